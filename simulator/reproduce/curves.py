"""Figures as self-contained SVG files: 4 to 6 with means over seeds and their 95% band, claims as
forest plots. Nothing is run here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from simulator.log.files import write_text
from simulator.page.figures import Scale, element
from simulator.reproduce.claims import Answer
from simulator.reproduce.result_tables import Cell, number

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300, 210, 52, 34, 26
FOREST, NAMES, LINE = 440, 170, 18
"""Of a forest plot: width of a panel, of its names, height of a line; px."""
TONES = {"hit_rate@10": "#1b6ca8", "ndcg@10": "#a8541b"}


def figure(table: Sequence[Cell], axis: str, path: Path) -> Path:
    """Draw the cells, whose rows are the points along the axis, and write the file by rename.

    Args:
        table: rows in the order of the axis.
        axis: what the rows are.
        path: of the SVG.
    """
    datasets = list(dict.fromkeys(cell.dataset for cell in table))
    metrics = list(dict.fromkeys(cell.metric for cell in table))
    panels = [
        [_panel([c for c in table if (c.dataset, c.metric) == (dataset, m)], axis) for m in metrics]
        for dataset in datasets
    ]
    return _write(
        panels, (WIDTH, HEIGHT), f"{', '.join(metrics)} by {axis} for {', '.join(datasets)}", path
    )


def forest(rows: Sequence[Answer], path: Path) -> Path:
    """Draw the differences with their intervals, a line of panels for each claim, a panel for each
    metric; write by rename.

    Args:
        rows: of each claim and metric first that of all users, then those of its groups; or those
            of several systems.
        path: of the SVG.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    claims = list(dict.fromkeys((row.dataset, row.says) for row in rows))
    panels = [
        [[r for r in rows if (r.dataset, r.says, r.metric) == (*claim, m)] for m in metrics]
        for claim in claims
    ]
    most = max(len(panel) for line in panels for panel in line)
    size = (FOREST, TOP + most * LINE + BOTTOM)
    drawn = [[_differences(panel) for panel in line] for line in panels]
    return _write(
        drawn,
        size,
        f"difference of two systems in {', '.join(metrics)}, with 95% intervals, by group of users",
        path,
    )


def _write(
    panels: Sequence[Sequence[Sequence[Markup]]], size: tuple[int, int], label: str, path: Path
) -> Path:
    """Panels of one size, line by line, as a file."""
    width, height = size[0] * max(map(len, panels)), size[1] * len(panels)
    places = (
        (line, column, panel) for line, row in enumerate(panels) for column, panel in enumerate(row)
    )
    svg = element(
        "svg",
        element("rect", width=width, height=height, fill="#fff"),
        *(
            element("g", *panel, transform=f"translate({column * size[0]} {line * size[1]})")
            for line, column, panel in places
        ),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        font_family="sans-serif",
        font_size=11,
        role="img",
        aria_label=label,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, str(svg))


def _differences(rows: Sequence[Answer]) -> list[Markup]:
    """One line a group of users, or a system where there are several; the line at 0 is where both
    systems are alike.
    """
    ends = [v for row in rows for v in (row.low, row.high, 0.0) if math.isfinite(v)]
    margin = max((max(ends) - min(ends)) * 0.05, 1e-4)
    x = Scale(min(ends) - margin, max(ends) + margin, NAMES, FOREST - 28)
    floor = TOP + len(rows) * LINE
    several = len({row.better for row in rows}) > 1
    head = (
        f"{rows[0].dataset}: {'each' if several else rows[0].better} - {rows[0].worse},"
        f" {rows[0].metric}"
    )
    parts = [element("text", head, x=8, y=16, font_weight="bold")]
    for tick in x.ticks(5):
        at = f"{x(tick):.1f}"
        parts.append(
            element("line", x1=at, x2=at, y1=TOP, y2=floor, stroke="#666" if tick == 0 else "#ddd")
        )
        parts.append(
            element(
                "text",
                number(tick, sign=True) if tick else "0",
                x=at,
                y=floor + 14,
                text_anchor="middle",
            )
        )
    tone = TONES.get(rows[0].metric, "#444")
    for i, row in enumerate(rows):
        y = TOP + (i + 0.5) * LINE
        name = row.group or (row.better if several else f"all {row.users:,} users")
        parts.append(element("text", name, x=NAMES - 8, y=f"{y + 4:.1f}", text_anchor="end"))
        if math.isfinite(row.low):
            parts.append(
                element(
                    "line",
                    x1=f"{x(row.low):.1f}",
                    x2=f"{x(row.high):.1f}",
                    y1=y,
                    y2=y,
                    stroke=tone,
                    stroke_width=2,
                )
            )
        tip = element(
            "title",
            f"{number(row.difference, sign=True)} ({number(row.low, sign=True)} to"
            f" {number(row.high, sign=True)})",
        )
        parts.append(
            element(
                "circle",
                tip,
                cx=f"{x(row.difference):.1f}",
                cy=y,
                r=5 if not row.group else 3.5,
                fill=tone,
            )
        )
    return parts


def _panel(some: Sequence[Cell], axis: str) -> list[Markup]:
    ends = [v for cell in some for v in (cell.measured, cell.low, cell.high) if math.isfinite(v)]
    margin = max((max(ends) - min(ends)) * 0.15, 1e-4)
    x = Scale(0, max(len(some) - 1, 1), LEFT + 8, WIDTH - 14)
    y = Scale(min(ends) - margin, max(ends) + margin, HEIGHT - BOTTOM, TOP)
    tone = TONES.get(some[0].metric, "#444")
    parts = [
        element("text", f"{some[0].dataset}: {some[0].metric}", x=LEFT, y=16, font_weight="bold")
    ]
    for tick in y.ticks(6):
        parts.append(
            element(
                "line",
                x1=LEFT,
                x2=WIDTH - 8,
                y1=f"{y(tick):.1f}",
                y2=f"{y(tick):.1f}",
                stroke="#ddd",
            )
        )
        parts.append(
            element("text", number(tick), x=LEFT - 4, y=f"{y(tick) + 4:.1f}", text_anchor="end")
        )
    upper = [(x(i), y(cell.high)) for i, cell in enumerate(some) if math.isfinite(cell.high)]
    lower = [(x(i), y(cell.low)) for i, cell in enumerate(some) if math.isfinite(cell.low)]
    if upper:
        parts.append(
            element(
                "polygon", points=_points([*upper, *reversed(lower)]), fill=tone, fill_opacity=0.18
            )
        )
    parts.append(
        element(
            "polyline",
            points=_points([(x(i), y(c.measured)) for i, c in enumerate(some)]),
            fill="none",
            stroke=tone,
        )
    )
    for i, cell in enumerate(some):
        tip = element("title", f"{cell.row}: {number(cell.measured)}, {cell.seeds} seeds")
        parts.append(
            element("circle", tip, cx=f"{x(i):.1f}", cy=f"{y(cell.measured):.1f}", r=3, fill=tone)
        )
        parts.append(
            element("text", cell.row, x=f"{x(i):.1f}", y=HEIGHT - BOTTOM + 14, text_anchor="middle")
        )
    parts.append(element("text", axis, x=(LEFT + WIDTH) / 2, y=HEIGHT - 4, text_anchor="middle"))
    return parts


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
