"""One lift out of several worlds: the interval that includes what the worlds themselves disagree
about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pooled:
    """A lift over m worlds.

    Attributes:
        lift: mean over the worlds.
        low, high: interval that includes sampling of users and the worlds' disagreement.
        within: standard error by sampling of users (root of the mean variance).
        between: standard deviation of the lift between worlds.
        df: of the t distribution used.
    """

    lift: float
    low: float
    high: float
    within: float
    between: float
    df: float


def pooled(lifts: Sequence[float], errors: Sequence[float], level: float = 0.95) -> Pooled:
    """Combine the estimates of m >= 2 worlds, each a draw of what the world may be, by Rubin
    (1987), equations 3.1.2-3.1.6.

    With W the mean variance within worlds and B the variance of the lift between them, T = W + (1 +
    1/m) B and the interval is t with (m - 1) (1 + W / ((1 + 1/m) B))^2 degrees of freedom.

    Args:
        lifts: of each world.
        errors: standard errors of the lifts, each within its world.
        level: of the interval.

    Raises:
        ValueError: fewer than two worlds.
    """
    from scipy.stats import norm, t

    m = len(lifts)
    if m < 2:
        raise ValueError(f"pooling needs at least two worlds; got {m}")
    within, between = float(np.mean(np.square(errors))), float(np.var(lifts, ddof=1))
    extra = (1 + 1 / m) * between
    total = within + extra
    df = (m - 1) * (1 + within / extra) ** 2 if extra > 0 else float("inf")
    reach = (
        float(norm.ppf((1 + level) / 2) if np.isinf(df) else t.ppf((1 + level) / 2, df))
        * total**0.5
    )
    mean = float(np.mean(lifts))
    return Pooled(mean, mean - reach, mean + reach, within**0.5, between**0.5, df)


def pool_reports(
    reports: Sequence[Mapping[str, Any]], level: float = 0.95
) -> dict[tuple[str, str], Pooled]:
    """The pooled lift of every (arm, metric) by user that all `reports` (contents of report.json,
    one a world) have.

    A standard error is the width of the report's own 95% interval over that of t with its df; rows
    without a finite interval or without any difference are left out.
    """
    from scipy.stats import t

    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for report in reports:
        for row in report["lifts"]:
            if row["unit"] != "user" or not all(
                isinstance(row[k], (int, float)) for k in ("lift", "low", "high", "df")
            ):
                continue
            width = row["high"] - row["low"]
            if np.isfinite(width) and width > 0:
                found = (row["lift"], width / (2 * float(t.ppf(0.975, row["df"]))))
                rows.setdefault((row["arm"], row["metric"]), []).append(found)
    full = {key: found for key, found in rows.items() if len(found) == len(reports)}
    return {
        key: pooled([lift for lift, _ in found], [error for _, error in found], level)
        for key, found in full.items()
    }
