"""The picture of a calibration: every marginal's ratio to its target on a logarithmic scale, as one
self-contained SVG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from simulator.calibration.targets import Row

_WIDTH, _LABEL, _FIGURES, _LINE = 860, 250, 170, 17
_LOW, _HIGH = 0.5, 2.0
"""Ratios at the edges; what lies beyond is drawn at the edge, as an arrow."""

_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1b1f24 } .head { font-weight: 600 }
  .small { fill: #59636e; font-size: 11px } .figures { text-anchor: end }
  .band { fill: #1a7f37; opacity: .12 } .one { stroke: #59636e; stroke-dasharray: 3 3 }
  .grid { stroke: #d1d9e0 } .in { fill: #1a7f37; stroke: #1a7f37 }
  .out { fill: #cf222e; stroke: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 } .grid { stroke: #3d444d }
    .in { fill: #3fb950; stroke: #3fb950 } .out { fill: #f85149; stroke: #f85149 } }
"""


def draw(rows: Sequence[Row], tolerance: float, name: str) -> str:
    """The SVG: a dot at simulated / target for every row, its standard error as a line, the
    tolerance as a band, grouped by feed.

    What is out of tolerance differs in shape (a diamond) as well as in colour.
    """
    feeds = list(dict.fromkeys(row.feed for row in rows))
    height = 66 + _LINE * (len(rows) + 2 * len(feeds))
    wrong = sum(not row.within for row in rows)
    said = (
        f"{name}: {len(rows) - wrong} of {len(rows)} marginals within {tolerance:.0%} of their"
        " published targets"
    )
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"'
            f' width="{_WIDTH}" role="img" aria-label="{escape(said)}">'
        ),
        f"<style>{_STYLE}</style>",
        f'<text x="8" y="20" class="head">{escape(said)}</text>',
        f'<text x="{_WIDTH - 8}" y="20" class="small figures">simulated (target)</text>',
        _axis(height, tolerance),
    ]
    y = 58
    for feed in feeds:
        parts.append(f'<text x="8" y="{y}" class="head">{escape(_SAID.get(feed, feed))}</text>')
        y += _LINE
        for row in (row for row in rows if row.feed == feed):
            parts.append(_row(row, y))
            y += _LINE
        y += _LINE
    return "\n".join([*parts, "</svg>", ""])


_SAID = {
    "logging": "under the logging policy",
    "random": "under random exposure",
    "catalogue": "in the catalogue",
    "gap": "logging / random",
}


def _x(ratio: float) -> float:
    inside = min(max(ratio, _LOW), _HIGH)
    return _LABEL + (_WIDTH - _LABEL - _FIGURES) * math.log(inside / _LOW) / math.log(_HIGH / _LOW)


def _axis(height: int, tolerance: float) -> str:
    low, high = _x(1 - tolerance), _x(1 + tolerance)
    parts = [
        f'<rect class="band" x="{low:.1f}" y="40" width="{high - low:.1f}" height="{height - 46}"/>'
    ]
    for tick in (0.5, 0.7, 0.9, 1.0, 1.1, 1.4, 2.0):
        kind = "one" if tick == 1.0 else "grid"
        parts.append(
            f'<line class="{kind}" x1="{_x(tick):.1f}" x2="{_x(tick):.1f}" y1="40"'
            f' y2="{height - 6}"/>'
        )
        parts.append(
            f'<text x="{_x(tick):.1f}" y="36" class="small" text-anchor="middle">{tick:g}</text>'
        )
    return "\n".join(parts)


def _row(row: Row, y: int) -> str:
    tone, middle = "in" if row.within else "out", y - 4
    parts = [f'<text x="20" y="{y}">{escape(row.name)}</text>']
    parts.append(
        f'<text x="{_WIDTH - 8}" y="{y}" class="figures small">{row.simulated:.4g}'
        f" ({row.target:.4g})</text>"
    )
    if not math.isfinite(row.ratio) or row.ratio <= 0:
        return "\n".join(parts)
    if math.isfinite(row.se):
        left, right = (_x((row.simulated + sign * row.se) / row.target) for sign in (-1, 1))
        parts.append(
            f'<line class="{tone}" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>'
        )
    x = _x(row.ratio)
    if not _LOW <= row.ratio <= _HIGH:
        way = 6 if row.ratio > _HIGH else -6
        parts.append(f'<path class="{tone}" d="M{x + way:.1f} {middle}l{-way} -4v8z"/>')
    elif row.within:
        parts.append(f'<circle class="{tone}" cx="{x:.1f}" cy="{middle}" r="3.5"/>')
    else:
        parts.append(f'<path class="{tone}" d="M{x:.1f} {middle - 5}l5 5l-5 5l-5 -5z"/>')
    return "\n".join(parts)
