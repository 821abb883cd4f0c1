"""Stated choices about a comparison: which pre-period columns adjust which metric (the regression
on them, CUPED, is in `moments`), winsorising, post-stratification, clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from simulator.stats import moments
from simulator.stats.clustering import first_rows
from simulator.stats.moments import Floats, Moments, Sample
from simulator.stats.unit_table import Details, TableError, UnitTable, levels

MISSING = " (missing)"
"""Ends the name of the column that says of which units a pre-period column has no value."""


def pre_periods(table: UnitTable) -> dict[str, tuple[str, ...]]:
    """Which metrics of a split table are adjusted for which pre-period columns: those that are
    declared of a metric; else a column of the name of a metric for that metric, of a ratio without
    one those of its numerator and denominator, and any other column for all of them. A column that
    does not vary adjusts nothing. A metric that is predicted (`stats.predictions`) is adjusted for
    its predictions alone.

    CUPED: Deng, Xu, Kohavi & Walker, "Improving the sensitivity of online controlled experiments by
    utilizing pre-experiment data", WSDM 2013, with several covariates. The past of a ratio,
    linearised as the ratio is, is a weighted sum of its two halves, and the regression finds the
    weights. Twins of a paired table have the same past, and need none. A column with missing values
    goes with the one that says which are missing.

    Returns:
        By metric, names of `table.covariates`; metrics without any are left out.

    Raises:
        TableError: a declared column that the table does not have.
    """
    chosen = declared_periods(table)
    if table.paired:
        return chosen
    predictions = {name for names in table.predicted.values() for name in names}
    extents = list(table.mapped(_extents, ()))
    varied = [
        name
        for name in table.covariates
        if max(one[name][1] for one in extents) > min(one[name][0] for one in extents)
        and not name.endswith(MISSING)
        and name not in predictions
    ]
    own = {
        name: {name, *(term.name for term in metric.terms)}
        for name, metric in table.metrics.items()
    }
    of_one = set().union(*own.values(), *(one.covariates or () for one in table.metrics.values()))
    for name, metric in table.metrics.items():
        if metric.covariates is None:
            past = {name} if name in varied else own[name]
            columns = [one for one in varied if one in past or one not in of_one]
            chosen[name] = table.predicted.get(name, _with_missing(table, columns))
    return {name: chosen[name] for name in table.metrics if chosen.get(name)}


def _extents(table: UnitTable) -> dict[str, tuple[float, float]]:
    """The least and the largest value of each pre-period column."""
    return {
        name: (float(column.min(initial=np.inf)), float(column.max(initial=-np.inf)))
        for name, column in table.covariates.items()
    }


def declared_periods(table: UnitTable) -> dict[str, tuple[str, ...]]:
    """The pre-period columns by metric that are declared, and no others.

    Raises:
        TableError: as `pre_periods`.
    """
    chosen = {}
    for name, metric in table.metrics.items():
        if not metric.covariates:
            continue
        for column in metric.covariates:
            if not table.paired and column not in table.covariates:
                raise TableError(
                    f"metric {name!r}: no pre-period column {column!r} to adjust it for; there are"
                    f" {list(table.covariates)}"
                )
        chosen[name] = _with_missing(table, metric.covariates)
    return chosen


def _with_missing(table: UnitTable, columns: Iterable[str]) -> tuple[str, ...]:
    """Columns, each with the one that says which of its values are missing."""
    both = (name for column in columns for name in (column, column + MISSING))
    names = [name for name in both if not name.endswith(MISSING) or name in table.covariates]
    return tuple(names)


def imputed(values: Floats) -> tuple[Floats, Floats]:
    """A pre-period column with its mean where it has no value, and an indicator of these, both to
    be adjusted for: with the indicator among the covariates it does not matter which constant is
    put in, no unit is left out, and the adjusted estimate is never worse for large samples than
    without the column (the missingness-indicator method: Zhao & Ding, "To adjust or not to adjust?
    Estimating the average treatment effect in randomized experiments with missing covariates",
    JASA 2024). It need not be missing at random: what is missing was so before the test.

    Args:
        values: `[n]`, NaN where there is none; not everywhere.

    Returns:
        The column and the indicator, each `[n]`.
    """
    missing = np.isnan(values)
    return np.where(missing, values[~missing].mean(), values), missing.astype(np.float64)


def winsorised(table: UnitTable, share: float) -> UnitTable:
    """`UnitTable.winsorised` of every mean metric alike. It changes what is estimated: the report
    says so where it is used.

    Raises:
        TableError: `share` outside [0, 0.5).
    """
    return table.winsorised(dict.fromkeys(table.numerators, share))


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
    labels = table.levels(group)
    found = [
        list(table.mapped(partial(_by_stratum, metric, arm, group, labels), [metric]))
        for arm in (control, treatment)
    ]
    sides = [[moments.together(parts) for parts in zip(*own, strict=True)] for own in found]
    for label, *both in zip(labels, *sides, strict=True):
        if sum(s.n for s in both) > 0 and min(s.n for s in both) < 2:
            raise TableError(
                f"post-stratification: stratum {label!r} of {group!r} has fewer than 2 units in"
                " an arm"
            )
    return stratified(sides[0], sides[1], 1 if metric in table.denominators else None)


def _by_stratum(
    metric: str, arm: str, group: str, labels: Sequence[Any], table: UnitTable
) -> list[Sample]:
    """The samples of one arm in each of all levels of a group."""
    places = {label: place for place, label in enumerate(labels)}
    names, codes = levels(table.groups[group])
    strata = np.array([places[name] for name in names])[codes]
    columns = [column for column in table.sums(metric, arm) if column is not None]
    sampler = moments.Sampler(len(columns), len(places))
    sampler.add(columns, strata[table.assigned == table.arm(arm)])
    return sampler.samples()


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


def users_so_far(table: UnitTable, day: np.ndarray) -> list[UnitTable]:
    """The sums of users up to each day, from a table of users' days: what is seen at a look at the
    end of it. A user who has no row yet has zeros, and is in the arm of the later ones.

    Args:
        table: a row for each user and day on which the user did something; `cluster` is the user.
        day: `[rows]` number of the day, from 0.

    Returns:
        A table by user for each day; what is declared of metrics is done to the sums of users.

    Raises:
        TableError: a user is in several arms.
    """
    assert table.cluster is not None
    names, index = levels(table.cluster)
    k = len(names)
    first = first_rows(table, names, index, "user")
    groups = {n: v[first] for n, v in table.groups.items() if (v == v[first][index]).all()}
    covariates = {
        n: np.bincount(index, v, k) / np.bincount(index, minlength=k)
        for n, v in table.covariates.items()
    }
    assigned = None if table.assigned is None else table.assigned[first]
    looks = []
    for last in range(int(day.max()) + 1):
        rows = day <= last

        def summed(values: np.ndarray, rows: np.ndarray = rows) -> np.ndarray:
            return np.bincount(index[rows], values[rows], k)

        so_far = replace(
            table,
            unit="user",
            numerators={n: summed(v) for n, v in table.numerators.items()},
            denominators={n: summed(v) for n, v in table.denominators.items()},
            assigned=assigned,
            cluster=None,
            covariates=covariates,
            groups=groups,
            details={
                n: Details(tuple(map(summed, v.values)), None, assigned)
                for n, v in table.details.items()
            },
        )
        looks.append(so_far.as_declared())
    return looks
