"""The same comparison computed otherwise: ranks, winsorised sums, quantiles. Beside the verdict, to see whether it hangs on one method."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.report.words import title
from simulator.stats import compare, tests, verdict
from simulator.stats.adjustment import winsorised
from simulator.stats.quantiles import quantile_moments
from simulator.stats.units import UnitTable

SHARE = 0.001
"""Of units whose sums are cut to the quantile at 1 - SHARE."""

RANKED = 200_000
"""Units up to which ranks are computed: sorting a million users for every metric takes longer than the report may."""

QUANTILES = (0.5, 0.9)


def computed_otherwise(table: UnitTable, control: str, treatments: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each arm and metric with data.

    Returns:
        `metric`, `arm`; `p` of the t test; `ranks`: p of Wilcoxon's signed-rank test of pairs, or of the rank-sum test of a split (None
        above RANKED units); `winsorised`: lift, low, high and p with the largest SHARE of sums cut; `quantiles`: the same for the
        median and the ninth decile of sums (mid-quantiles; None where that quantile of users has no events).
    """
    cut = winsorised(table, SHARE)
    plain = {(row.metric, row.arm): row for row in verdict.lifts(table, control)}
    winsor = {(row.metric, row.arm): row for row in verdict.lifts(cut, control)}
    return [
        {
            "metric": metric,
            "arm": arm,
            "p": _lift(plain[metric, arm])["p"],
            "ranks": _ranks(table, metric, control, arm),
            "winsorised": _lift(winsor[metric, arm]),
            "quantiles": {f"p{level:.0%}".rstrip("%"): _quantile(table, metric, control, arm, level) for level in QUANTILES},
        }
        for arm in treatments
        for metric in table.numerators
    ]


def _lift(row: verdict.Lift) -> dict[str, float | None]:
    given = row.to_dict()
    return {key: given[key] for key in ("lift", "low", "high", "p")}


def _ranks(table: UnitTable, metric: str, control: str, arm: str) -> float | None:
    base, other = compare.values(table, metric, control, arm)
    if max(len(base), len(other)) > RANKED:
        return None
    p = float((tests.wilcoxon if table.paired else tests.rank_sum)(base, other).p)
    return p if p == p else None


def _quantile(table: UnitTable, metric: str, control: str, arm: str, level: float) -> dict[str, float | None] | None:
    """The lift of a quantile of users' sums; None for a ratio metric, whose linearised values have no such reading."""
    if metric in table.denominators:
        return None
    base, other = compare.values(table, metric, control, arm)
    m = quantile_moments(base, other, level, paired=table.paired)
    if not m.variance > 0 or not np.quantile(base, level) > 0:
        return None
    return _lift(verdict.row(m, title(metric), arm, table.unit))
