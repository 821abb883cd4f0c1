"""Figures 4 to 6 as self-contained SVG files: one panel a data set and metric, mean over seeds with its 95% band. Nothing is run here."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from simulator.report.figures import Scale, element
from simulator.reproduce.tables import Cell, number

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 300, 210, 52, 34, 26
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
    panels = []
    for line, dataset in enumerate(datasets):
        for column, metric in enumerate(metrics):
            some = [cell for cell in table if (cell.dataset, cell.metric) == (dataset, metric)]
            panels.append(element("g", *_panel(some, axis), transform=f"translate({column * WIDTH} {line * HEIGHT})"))
    width, height = WIDTH * len(metrics), HEIGHT * len(datasets)
    svg = element(
        "svg",
        element("rect", width=width, height=height, fill="#fff"),
        *panels,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        font_family="sans-serif",
        font_size=11,
        role="img",
        aria_label=f"{', '.join(metrics)} by {axis} for {', '.join(datasets)}",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(path.name + ".part")
    staging.write_text(str(svg), encoding="utf-8")
    os.replace(staging, path)
    return path


def _panel(some: Sequence[Cell], axis: str) -> list[Markup]:
    ends = [v for cell in some for v in (cell.measured, cell.low, cell.high) if math.isfinite(v)]
    margin = max((max(ends) - min(ends)) * 0.15, 1e-4)
    x = Scale(0, max(len(some) - 1, 1), LEFT + 8, WIDTH - 14)
    y = Scale(min(ends) - margin, max(ends) + margin, HEIGHT - BOTTOM, TOP)
    tone = TONES.get(some[0].metric, "#444")
    parts = [element("text", f"{some[0].dataset}: {some[0].metric}", x=LEFT, y=16, font_weight="bold")]
    for tick in y.ticks(4):
        parts.append(element("line", x1=LEFT, x2=WIDTH - 8, y1=f"{y(tick):.1f}", y2=f"{y(tick):.1f}", stroke="#ddd"))
        parts.append(element("text", number(tick), x=LEFT - 4, y=f"{y(tick) + 4:.1f}", text_anchor="end"))
    upper = [(x(i), y(cell.high)) for i, cell in enumerate(some) if math.isfinite(cell.high)]
    lower = [(x(i), y(cell.low)) for i, cell in enumerate(some) if math.isfinite(cell.low)]
    if upper:
        parts.append(element("polygon", points=_points([*upper, *reversed(lower)]), fill=tone, fill_opacity=0.18))
    parts.append(element("polyline", points=_points([(x(i), y(c.measured)) for i, c in enumerate(some)]), fill="none", stroke=tone))
    for i, cell in enumerate(some):
        tip = element("title", f"{cell.row}: {number(cell.measured)}, {cell.seeds} seeds")
        parts.append(element("circle", tip, cx=f"{x(i):.1f}", cy=f"{y(cell.measured):.1f}", r=3, fill=tone))
        parts.append(element("text", cell.row, x=f"{x(i):.1f}", y=HEIGHT - BOTTOM + 14, text_anchor="middle"))
    parts.append(element("text", axis, x=(LEFT + WIDTH) / 2, y=HEIGHT - 4, text_anchor="middle"))
    return parts


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
