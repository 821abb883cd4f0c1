"""Figures of a surface: a heat map over two parameters, a curve with its band over one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from markupsafe import Markup

from simulator.page.figures import Scale, around, element, horizontals, mark, marker, percents

TILE = 30
"""Height of a tile, px."""
LEFT, RIGHT = 16, 99
"""Where the cells begin and end, percent of the width."""


@dataclass(frozen=True)
class Tile:
    """A cell of a surface.

    Attributes:
        value: a fraction.
        low, high: of its band.
        tone: the colour class: decided above zero, decided below, or not decided.
        runs: that were made there.
        tip: what it says on hover.
    """

    value: float
    low: float
    high: float
    tone: Literal["good", "bad", "open"]
    runs: int
    tip: str


def heat_map(
    rows: Sequence[Sequence[Tile]],
    across: Sequence[str],
    up: Sequence[str],
    titles: tuple[str, str],
    label: str,
) -> Markup:
    """Tiles, the stronger the farther from zero; those that are not decided are crossed by a line;
    dots are runs, and the zero line is that of the values, linear between the cells.

    Args:
        rows: from the lowest to the highest of the axis that goes up.
        across, up: names of the values of both axes.
        titles: names of both axes.
        label: for screen readers.
    """
    reach = max((abs(tile.value) for row in rows for tile in row), default=0.0) or 1.0
    x = Scale(-0.5, len(across) - 0.5, LEFT, RIGHT)
    y = Scale(-0.5, len(rows) - 0.5, TILE * (len(rows) + 1), TILE)
    parts = [element("text", titles[1], x="0", y=14, class_="head")]
    for j, row in enumerate(rows):
        parts.append(_name(up[j], f"{LEFT - 1}%", y(j) + 4, "end"))
        parts += [_tile(tile, x, y, i, j, reach) for i, tile in enumerate(row)]
    parts += [
        element("line", x1=x.at(a), y1=f"{y(b):.1f}", x2=x.at(c), y2=f"{y(d):.1f}", class_="bar")
        for a, b, c, d in zero_line([[tile.value for tile in row] for row in rows])
    ]
    foot = TILE * (len(rows) + 1) + 14
    parts += _names(across, x, foot)
    parts.append(
        element("text", titles[0], x=f"{RIGHT}%", y=foot + 20, class_="head", text_anchor="end")
    )
    return _figure(parts, label, heat_height(len(rows)))


def heat_height(n_rows: int) -> int:
    """The height of a heat map, px."""
    return TILE * (n_rows + 1) + 40


def _tile(tile: Tile, x: Scale, y: Scale, i: int, j: int, reach: float) -> Markup:
    left, right, top, bottom = x(i - 0.5), x(i + 0.5), y(j + 0.5), y(j - 0.5)
    strength = f"{0.12 + 0.68 * abs(tile.value) / reach:.2f}"
    shapes = [
        element(
            "rect",
            x=f"{left:.3f}%",
            y=f"{top:.1f}",
            width=f"{right - left:.3f}%",
            height=f"{bottom - top:.1f}",
            class_="fill",
            opacity=strength,
        )
    ]
    if tile.tone == "open":
        ends = {"x1": f"{left:.3f}%", "x2": f"{right:.3f}%", "y1": f"{bottom:.1f}"}
        shapes.append(element("line", **ends, y2=f"{top:.1f}", class_="bound"))
    if tile.runs:
        shapes.append(marker("circle", x.at(i), y(j), 2.5 + min(tile.runs, 4), "name"))
    return mark(tile.tip, *shapes, class_=tile.tone)


def zero_line(values: Sequence[Sequence[float]]) -> list[tuple[float, float, float, float]]:
    """The line on which values `[up][across]` are zero, as segments (across, up, across, up):
    between four neighbours, from side to side, linear on the sides (marching squares: Lorensen &
    Cline, SIGGRAPH 1987, in two dimensions).
    """
    segments = []
    for j in range(len(values) - 1):
        for i in range(len(values[0]) - 1):
            corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1), (i, j)]
            cuts = []
            for (a, b), (c, d) in pairwise(corners):
                one, other = values[b][a], values[d][c]
                if (one > 0) != (other > 0):
                    share = one / (one - other)
                    cuts.append((a + share * (c - a), b + share * (d - b)))
            segments += [(*cuts[k], *cuts[k + 1]) for k in range(0, len(cuts), 2)]
    return segments


@dataclass(frozen=True)
class Dot:
    """A run on a curve: its place, the value with its interval, what it says on hover."""

    place: int
    low: float
    value: float
    high: float
    tip: str


def curve(tiles: Sequence[Tile], dots: Sequence[Dot], across: Sequence[str], label: str) -> Markup:
    """The values over one axis as a line within its band, coloured where it is decided; runs are
    dots with their intervals.
    """
    height = CURVE
    x = Scale(-0.5, len(tiles) - 0.5, LEFT, RIGHT)
    ends = [end for tile in tiles for end in (tile.low, tile.high)]
    y = around([0.0, *ends, *(dot.value for dot in dots)], height - 22, 6)
    parts = horizontals(y, percents, f"{LEFT}%", f"{LEFT - 1}%")
    for i, tile in enumerate(tiles):
        top, bottom = y(tile.high), y(tile.low)
        width = f"{x(i + 0.5) - x(i - 0.5):.3f}%"
        span = {"y": f"{top:.1f}", "width": width, "height": f"{bottom - top:.1f}"}
        shapes = [element("rect", x=x.at(i - 0.5), **span, class_="fill", opacity="0.22")]
        if i:
            before = tiles[i - 1]
            ends_of_line = {"x1": x.at(i - 1), "x2": x.at(i), "y1": f"{y(before.value):.1f}"}
            shapes.append(element("line", **ends_of_line, y2=f"{y(tile.value):.1f}", class_="bar"))
        parts.append(mark(tile.tip, *shapes, class_=tile.tone))
    for dot in dots:
        at, low, high = x.at(dot.place), f"{y(dot.low):.1f}", f"{y(dot.high):.1f}"
        bar = element("line", x1=at, x2=at, y1=low, y2=high, class_="bound")
        parts.append(mark(dot.tip, bar, marker("circle", at, y(dot.value), 3.0), class_="arm-1"))
    parts += _names(across, x, height - 6)
    return _figure(parts, label, height)


CURVE = 220
"""The height of a curve, px."""


def _names(names: Sequence[str], x: Scale, y: float) -> list[Markup]:
    """The names of an axis, as many as stand side by side on a narrow page."""
    every = max(1, math.ceil(len(names) * max(map(len, names)) / LETTERS))
    return [_name(names[i], x.at(i), y, "middle") for i in range(0, len(names), every)]


LETTERS = 45
"""Of all names of an axis together."""


def _name(text: str, x: str, y: float, anchor: str) -> Markup:
    return element("text", text, x=x, y=f"{y:.1f}", class_="tick", text_anchor=anchor)


def _figure(parts: Sequence[Markup], label: str, height: int) -> Markup:
    return element(
        "svg", *parts, class_="surface", role="img", aria_label=label, width="100%", height=height
    )
