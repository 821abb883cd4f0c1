"""The picture of a calibration: every marginal's ratio to its target on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from simulator.calibration.targets import TargetRow
from simulator.page.figures import (
    Line,
    RatioScale,
    Whiskers,
    forest,
    forest_height,
    numbers,
    picture,
    strip,
)
from simulator.page.words import number, percent

WIDTH = 860
SCALE = RatioScale(0.5, 2.0, 30, 80)
"""Ratios at the edges; what lies beyond is drawn at the edge, as an arrow."""

FEEDS = {
    "logging": "under the logging policy",
    "clicks": "of the clicks",
    "random": "under random exposure",
    "catalogue": "in the catalogue",
    "gap": "logging / random",
}


def draw(rows: Sequence[TargetRow], tolerance: float, name: str) -> str:
    """The SVG: a mark at simulated / target for every row, its standard error as a line, the
    tolerance as a band, grouped by feed; simulated (target) to the right.

    What is out of tolerance differs in shape (a diamond) as well as in colour.
    """
    within = sum(row.within for row in rows)
    heading = (
        f"{name}: {within} of {len(rows)} marginals within {percent(tolerance, 0, sign=False)} of"
        " their targets"
    )
    lines = []
    for feed in dict.fromkeys(row.feed for row in rows):
        lines.append(Line(FEEDS.get(feed, feed)))
        lines += [_line(row, tolerance) for row in rows if row.feed == feed]
    drawn = forest(lines, SCALE, numbers, heading)
    title = "simulated / target, with one standard error; simulated (target)"
    return picture(
        [(title, drawn)], 1, (WIDTH, forest_height(len(lines))), heading, heading=heading
    )


def _line(row: TargetRow, tolerance: float) -> Line:
    return Line(row.name, mark(row, tolerance), f"{number(row.simulated)} ({number(row.target)})")


def mark(row: TargetRow, tolerance: float, scale: RatioScale = SCALE) -> Markup:
    """The mark of a row at simulated / target, with its standard error and the tolerance."""
    note = f"{number(row.simulated)} ({number(row.target)})"
    error = 0.0 if math.isnan(row.se) else row.se / abs(row.target)
    is_drawn = math.isfinite(row.ratio) and row.ratio > 0
    ratio = row.ratio if is_drawn else math.nan
    return strip(
        Whiskers(ratio, row.ratio - error, row.ratio + error),
        scale,
        "good" if row.within else "bad",
        f"{row.name}: {note}, ratio {number(row.ratio)}",
        region=(1 - tolerance, 1 + tolerance),
        shape="circle" if row.within else "diamond",
        height=18,
    )
