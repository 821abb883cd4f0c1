"""Stated choices about a comparison: which pre-period columns adjust which metric (the regression
on them, CUPED, is in `moments`), winsorising, post-stratification, clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from simulator.stats import moments
from simulator.stats.moments import Moments, Sample
from simulator.stats.units import TableError, UnitTable, levels


def pre_periods(table: UnitTable) -> dict[str, tuple[str, ...]]:
    """Which metrics of a split table are adjusted for which pre-period columns: a column of the
    name of a metric for that metric, any other for all of them. A column that does not vary adjusts
    nothing. A metric that is predicted (`stats.predictions`) is adjusted for its predictions alone.

    CUPED: Deng, Xu, Kohavi & Walker, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data", WSDM 2013, with several covariates. Twins of a paired table have
    the same past, and need none.

    Returns:
        By metric, names of `table.covariates`; metrics without any are left out.
    """
    if table.paired:
        return {}
    predictions = {name for names in table.predicted.values() for name in names}
    varied = [
        name
        for name, column in table.covariates.items()
        if name not in predictions and np.ptp(column) > 0
    ]
    shared = tuple(name for name in varied if name not in table.metrics)
    chosen = {}
    for metric in table.metrics:
        names = (metric, *shared) if metric in varied else shared
        names = table.predicted.get(metric, names)
        if names:
            chosen[metric] = names
    return chosen


def winsorised(
    table: UnitTable, share: float = 0.001, metrics: Iterable[str] | None = None
) -> UnitTable:
    """The table with the largest `share` of the values of each mean metric cut down to the value
    that bounds them.

    One bound for all arms together, so that the arms are treated alike (Tukey 1962; Kohavi, Tang &
    Xu 2020, chapter 22). Ratio metrics are left as they are. It changes what is estimated: the
    report says so where it is used.

    Raises:
        TableError: `share` outside [0, 0.5).
    """
    if not 0 <= share < 0.5:
        raise TableError(f"winsorising: the share must be in [0, 0.5); got {share}")
    chosen = set(table.numerators if metrics is None else metrics) - set(table.denominators)
    return replace(
        table,
        numerators={n: _cut(v, share) if n in chosen else v for n, v in table.numerators.items()},
    )


def _cut(values: np.ndarray, share: float) -> np.ndarray:
    """The `share` of largest values put down to the next one."""
    largest = int(share * values.size)
    at = values.size - 1 - largest
    return np.asarray(np.minimum(values, np.partition(values, at, axis=None)[at]))


def post_stratified(
    table: UnitTable, metric: str, control: str, treatment: str, group: str
) -> Moments:
    """The comparison with each arm's mean put together from the strata of `group` (see
    `stratified`).

    Raises:
        TableError: a paired table (its strata cancel), no such group, or a stratum with fewer than
            two units in an arm.
    """
    if table.assigned is None:
        raise TableError(
            "post-stratification: a paired table needs none, twins are in the same stratum"
        )
    if group not in table.groups:
        raise TableError(f"no group {group!r} in this table; it has {list(table.groups)}")
    labels, strata = levels(table.groups[group])
    sides = []
    for arm in (control, treatment):
        sums = [column for column in table.sums(metric, arm) if column is not None]
        sides.append(moments.samples(sums, strata[table.assigned == table.arm(arm)], len(labels)))
    for label, *both in zip(labels, *sides, strict=True):
        if sum(s.n for s in both) > 0 and min(s.n for s in both) < 2:
            raise TableError(
                f"post-stratification: stratum {label!r} of {group!r} has fewer than 2 units in"
                " an arm"
            )
    return stratified(sides[0], sides[1], 1 if metric in table.denominators else None)


def stratified(
    control: Sequence[Sample], treatment: Sequence[Sample], denominator: int | None = None
) -> Moments:
    """Moments from the strata's samples, many comparisons at once where the samples have leading
    axes.

    mean = sum_s W_s mean_s, variance = sum_s W_s^2 var_s / n_s, W_s the share of stratum s in both
    arms (Miratrix, Sekhon & Yu, "Adjusting treatment effect estimates by post-stratification in
    randomized experiments", JRSS B 2013); df by Satterthwaite over all strata. A ratio is that of
    two such means, its variance by the gradient of `moments.ratio`. NaN where a stratum has fewer
    than two units in an arm.

    Args:
        control: of each stratum, the sample of the numerator and, of a ratio metric, the
            denominator.
        treatment: the same.
        denominator: column of the denominator; None for a mean.
    """
    sizes = [
        np.stack([np.asarray(s.n, dtype=np.float64) for s in side]) for side in (control, treatment)
    ]
    share = (sizes[0] + sizes[1]) / (sizes[0] + sizes[1]).sum(axis=0)
    values, variances, lost = [], [], 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for n, side in zip(sizes, (control, treatment), strict=True):
            means, covariances = np.stack([s.mean for s in side]), np.stack([s.cov for s in side])
            weight = share[..., None]
            value, gradient = moments.ratio(
                np.where(weight > 0, weight * means, 0.0).sum(axis=0), 0, denominator
            )
            spread = np.einsum("...i,s...ij,...j->s...", gradient, covariances, gradient)
            part = np.where(share > 0, np.square(share) * spread / n, 0.0)
            values.append(value)
            variances.append(part.sum(axis=0))
            lost = lost + np.where(share > 0, np.square(part) / (n - 1.0), 0.0).sum(axis=0)
        total = variances[0] + variances[1]
        n_units = [n.sum(axis=0) for n in sizes]
        df = np.where(
            total > 0, np.square(total) / lost, n_units[0] + n_units[1] - 2.0 * len(control)
        )
    c, t, var_c, var_t = (np.asarray(v)[()] for v in (*values, *variances))
    return Moments(c, t, var_c, var_t, 0.0, df[()], n_units[0][()], n_units[1][()], False)
