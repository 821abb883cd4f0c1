"""The same comparison computed otherwise: other intervals, ranks, winsorised sums, quantiles,
strata, resampling.

It stands beside the verdict, to see whether that hangs on one method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from policies.base import Progress
from simulator.report import finite
from simulator.stats import contrasts as compare
from simulator.stats import quantiles, resampling, segments, tests, verdict
from simulator.stats.adjustment import post_stratified, winsorised
from simulator.stats.choices import Choices
from simulator.stats.intervals import METHODS
from simulator.stats.moments import Moments, relative
from simulator.stats.units import TableError, UnitTable, levels

RANKED = 200_000
"""Units up to which ranks are computed: sorting a million users for every metric takes longer than
the report may.
"""

QUANTILES = {"median": 0.5, "ninth decile": 0.9}

INTERVALS = {"fieller": "Fieller interval", "log": "log-delta interval", "delta": "delta interval"}

STRATA = 50
"""Levels of a group beyond which it is not used for post-stratification."""

Row = dict[str, Any]


def computed_otherwise(
    table: UnitTable,
    control: str,
    treatments: tuple[str, ...],
    choices: Choices,
    covariates: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """What every method says of each arm and metric with data, the verdict's own first.

    Args:
        table: by user.
        control: the control arm.
        treatments: the other arms.
        choices: how the verdict is computed; how much is winsorised; how often is resampled, if at
            all.
        covariates: what the verdict is adjusted for; the other methods are not.
        progress: called as ("report: resampling", comparisons done, comparisons, {}) where one is
            made.

    Returns:
        Rows with `metric`, `arm`, `method`; `lift`, `low`, `high`, `p`, each None where the method
        does not give it or it is not defined;
        `note`: why not, or "".
    """
    own = {
        (r.metric, r.arm): r
        for r in verdict.lifts(table, control, covariates=covariates, method=choices.interval)
    }
    cut = {
        (r.metric, r.arm): r for r in verdict.lifts(winsorised(table, choices.winsorise), control)
    }
    strata = [
        name
        for name, p in segments.dependence(table).items()
        if p >= segments.DEPENDENT and _levels(table, name) > 1
    ]
    samples = compare.Samples(table, {})
    rows = []
    done, of = 0, len(treatments) * len(table.numerators)
    for arm in treatments:
        for metric in table.numerators:
            found = [
                _row("as in the verdict", own[metric, arm]),
                *_intervals(samples.moments(metric, control, arm), choices),
            ]
            found += [_ranks(table, metric, control, arm)]
            if metric not in table.denominators:
                found.append(_row(f"winsorised {100 * choices.winsorise:g}%", cut[metric, arm]))
            found += [
                _quantile(table, metric, control, arm, name, level)
                for name, level in QUANTILES.items()
            ]
            found += [_stratified(table, metric, control, arm, group) for group in strata]
            if choices.resamples:
                found += _resampled(table, metric, control, arm, choices)
                done += 1
                if progress is not None:
                    progress("report: resampling", done, of, {})
            rows += [{"metric": metric, "arm": arm, **row} for row in found]
    return rows


def _levels(table: UnitTable, group: str) -> int:
    return len(levels(table.groups[group])[0])


def _said(
    method: str,
    lift: float | None = None,
    low: float | None = None,
    high: float | None = None,
    p: float | None = None,
    note: str = "",
) -> Row:
    return {
        "method": method,
        **finite({"lift": lift, "low": low, "high": high, "p": p}),
        "note": note,
    }


def _row(method: str, row: verdict.Lift) -> Row:
    return _said(method, row.lift, row.low, row.high, row.p, row.note)


def _intervals(m: Moments, choices: Choices) -> Iterator[Row]:
    """The other intervals of the lift; the t test, and so p, is the same."""
    for name, method in METHODS.items():
        if name != choices.interval:
            low, high = method(m, verdict.LEVEL)
            yield _said(INTERVALS[name], float(m.lift), float(low), float(high))


def _ranks(table: UnitTable, metric: str, control: str, arm: str) -> Row:
    name = "Wilcoxon" if table.paired else "rank sum"
    base, other = compare.alike(table, metric, control, arm)
    if max(len(base), len(other)) > RANKED:
        return _said(name, note=f"not made beyond {RANKED:,} users")
    return _said(name, p=float((tests.wilcoxon if table.paired else tests.rank_sum)(base, other).p))


def _quantile(
    table: UnitTable, metric: str, control: str, arm: str, name: str, level: float
) -> Row:
    """The lift of a quantile of users' sums, where there is one to speak of."""
    if metric in table.denominators:
        return _said(name, note="a ratio metric has no quantiles of users")
    base, other = compare.values(table, metric, control, arm)
    why = quantiles.unfit(base, other, level, min(len(base), len(other)))
    if why:
        return _said(name, note=why)
    m = quantiles.quantile_moments(base, other, level, paired=table.paired)
    return _row(name, verdict.row(m, metric, arm, table.unit))


def _stratified(table: UnitTable, metric: str, control: str, arm: str, group: str) -> Row:
    name = f"post-stratified by {group}"
    strata = _levels(table, group)
    if strata > STRATA:
        return _said(name, note=f"not made with more than {STRATA} strata; there are {strata:,}")
    try:
        return _row(
            name,
            verdict.row(
                post_stratified(table, metric, control, arm, group), metric, arm, table.unit
            ),
        )
    except TableError as error:
        return _said(name, note=str(error).removeprefix("post-stratification: "))


def _resampled(
    table: UnitTable, metric: str, control: str, arm: str, choices: Choices
) -> Iterator[Row]:
    """A randomisation test and a BCa interval."""
    base, other = compare.values(table, metric, control, arm)
    paired, n, seed = table.paired, choices.resamples, choices.seed
    exchanged = compare.alike(table, metric, control, arm)
    p = float(resampling.permutation(*exchanged, paired=paired, repetitions=n, seed=seed).p)
    yield _said("permutation", p=p, note=f"{n:,} permutations")
    low, high = resampling.bootstrap(base, other, paired=paired, repetitions=n, seed=seed)
    lift = float(relative(base.mean(), other.mean())) if len(base) else np.nan
    yield _said("BCa bootstrap", lift, low, high, note=f"{n:,} samples")
