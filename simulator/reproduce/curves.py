"""The figures of the paper's artefacts: 4 to 6 with means over seeds and their 95% band, claims as
forest plots. Nothing is run here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from simulator.page.figures import (
    Line,
    Point,
    Scale,
    Series,
    Whiskers,
    forest,
    forest_height,
    numbers,
    over_steps,
    picture,
    strip,
)
from simulator.page.words import between, score, signed_score, whole
from simulator.reproduce.claims import TONES, Answer
from simulator.reproduce.result_tables import ResultCell

WIDTH, HEIGHT, FOREST = 300, 170, 460
"""Of a panel: width and height of one of Figures 4 to 6, width of a forest plot; px."""

Plots = list[tuple[str, Markup]]


def figures(table: Sequence[ResultCell], axis: str) -> Plots:
    """A panel for each data set and metric of the cells, whose rows are the points along the axis,
    in the order of the axis.
    """
    plots = []
    for dataset, metric in dict.fromkeys((cell.dataset, cell.metric) for cell in table):
        cells = [cell for cell in table if (cell.dataset, cell.metric) == (dataset, metric)]
        points = []
        for i, cell in enumerate(cells):
            tip = f"{cell.row}: {score(cell.measured)}, {cell.seeds} seeds"
            points.append(Point(i, Whiskers(cell.measured, cell.low, cell.high), tip))
        title = f"{dataset}: {metric} by {axis}"
        names = [cell.row for cell in cells]
        plots.append((title, over_steps([Series(metric, 1, points)], names, title, band=True)))
    return plots


def figure(plots: Plots, n_metrics: int) -> str:
    """The panels as an SVG file, a line of panels for each data set."""
    label = ", ".join(title for title, _ in plots)
    return picture(plots, n_metrics, (WIDTH, HEIGHT), label)


def differences(rows: Sequence[Answer]) -> str:
    """The differences with their intervals as an SVG file: a line of panels for each claim, a panel
    for each metric.

    Args:
        rows: of each claim and metric first that of all users, then those of its groups; or those
            of several systems.
    """
    metrics = list(dict.fromkeys(row.metric for row in rows))
    plots, most = [], 0
    for dataset, says in dict.fromkeys((row.dataset, row.says) for row in rows):
        for metric in metrics:
            panel = [r for r in rows if (r.dataset, r.says, r.metric) == (dataset, says, metric)]
            plots.append(_differences(panel))
            most = max(most, len(panel))
    label = f"difference of two systems in {', '.join(metrics)}, with 95% intervals, by group"
    return picture(plots, len(metrics), (FOREST, forest_height(most)), label)


def _differences(rows: Sequence[Answer]) -> tuple[str, Markup]:
    """One line a group of users, or a system where there are several; the line at 0 is where both
    systems are alike.
    """
    ends = [v for row in rows for v in (row.low, row.high, 0.0) if math.isfinite(v)]
    margin = max((max(ends) - min(ends)) * 0.05, 1e-4)
    scale = Scale(min(ends) - margin, max(ends) + margin, 40, 96)
    several = len({row.better for row in rows}) > 1
    better = "each" if several else rows[0].better
    title = f"{rows[0].dataset}: {better} - {rows[0].worse}, {rows[0].metric}"
    lines = []
    for row in rows:
        name = row.group or (row.better if several else f"all {whole(row.users)} users")
        low, high = row.low, row.high
        if math.isnan(low):
            low = high = row.difference
        drawn = Whiskers(row.difference, low, high)
        tip = f"{signed_score(row.difference)} ({between(low, high, signed_score)})"
        tone = TONES[row.verdict]
        lines.append(Line(name, strip(drawn, scale, tone, tip, height=18)))
    return title, forest(lines, scale, numbers, title)
