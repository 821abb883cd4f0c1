"""Stated choices about a comparison: winsorising, post-stratification, clusters. Regression on the pre-period (CUPED) is in `moments`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from simulator.stats.compare import values
from simulator.stats.moments import Moments
from simulator.stats.units import TableError, UnitTable


def winsorised(table: UnitTable, share: float = 0.001, metrics: Iterable[str] | None = None) -> UnitTable:
    """The table with the largest `share` of the values of each mean metric cut down to the value that bounds them.

    One bound for all arms together, so that the arms are treated alike (Tukey 1962; Kohavi, Tang & Xu 2020, chapter 22). Ratio metrics are
    left as they are. It changes what is estimated: the report says so where it is used.

    Raises:
        TableError: `share` outside [0, 0.5).
    """
    if not 0 <= share < 0.5:
        raise TableError(f"winsorising: the share must be in [0, 0.5); got {share}")
    chosen = set(table.numerators if metrics is None else metrics) - set(table.denominators)
    return replace(table, numerators={n: _cut(v, share) if n in chosen else v for n, v in table.numerators.items()})


def _cut(values: np.ndarray, share: float) -> np.ndarray:
    """The `share` of largest values put down to the next one."""
    largest = int(share * values.size)
    at = values.size - 1 - largest
    return np.asarray(np.minimum(values, np.partition(values, at, axis=None)[at]))


def post_stratified(table: UnitTable, metric: str, control: str, treatment: str, group: str) -> Moments:
    """The comparison with each arm's mean put together from its strata at their share of all users.

    mean = sum_s W_s mean_s, variance = sum_s W_s^2 var_s / n_s, W_s the share of stratum s in both arms (Miratrix, Sekhon & Yu, "Adjusting
    treatment effect estimates by post-stratification in randomized experiments", JRSS B 2013); df by Satterthwaite over all strata.

    Raises:
        TableError: a paired table (its strata cancel), no such group, or a stratum with fewer than two units in an arm.
    """
    if table.assigned is None:
        raise TableError("post-stratification: a paired table needs none, twins are in the same stratum")
    if group not in table.groups:
        raise TableError(f"no group {group!r} in this table; it has {list(table.groups)}")
    members = [table.assigned == table.arm(arm) for arm in (control, treatment)]
    labels, strata = np.unique(table.groups[group][members[0] | members[1]], return_inverse=True)
    share = np.bincount(strata) / len(strata)
    sides = values(table.where(members[0] | members[1]), metric, control, treatment)
    in_arm = members[1][members[0] | members[1]].astype(int)
    means, variances, parts, counts = [], [], [], []
    for side, z in enumerate(sides):
        stratum = strata[in_arm == side]
        if len(stratum) != len(z):
            raise TableError(f"post-stratification: {metric!r} has units without a denominator; use a mean metric")
        n = np.bincount(stratum, minlength=len(labels))
        if (n < 2).any():
            raise TableError(f"post-stratification: stratum {labels[int(n.argmin())]!r} of {group!r} has fewer than 2 units in an arm")
        mean = np.bincount(stratum, z, len(labels)) / n
        spread = np.bincount(stratum, np.square(z - mean[stratum]), len(labels)) / (n - 1.0)
        part = np.square(share) * spread / n
        means.append(float(share @ mean))
        variances.append(float(part.sum()))
        parts.append(float((np.square(part) / (n - 1.0)).sum()))
        counts.append(len(z))
    total = sum(variances)
    df = total**2 / sum(parts) if total > 0 else float(sum(counts) - 2 * len(labels))
    return Moments(means[0], means[1], variances[0], variances[1], 0.0, df, counts[0], counts[1], False)


def clustered(table: UnitTable) -> UnitTable:
    """The table of clusters (the users of user-days): every metric becomes a ratio of cluster sums, so that dependence within a cluster
    is respected.

    The mean over units is sum y / sum 1; with cluster sums as units its delta-method variance is the cluster-robust (CR1) one (Liang &
    Zeger 1986; Deng, Knoblich & Lu, KDD 2018, section 3.2); df = clusters - 1.

    Raises:
        TableError: the units are not clustered.
    """
    if table.cluster is None:
        raise TableError("these units are independent: there are no clusters to respect")
    names, index = np.unique(table.cluster, return_inverse=True)
    k = len(names)

    def summed(column: np.ndarray) -> np.ndarray:
        rows = column[None] if column.ndim == 1 else column
        sums = np.stack([np.bincount(index, row, k) for row in rows])
        return sums[0] if column.ndim == 1 else sums

    first = np.zeros(k, dtype=np.int64)
    first[index[::-1]] = np.arange(len(index))[::-1]
    tops = {n: summed(v) for n, v in table.numerators.items()}
    ones = {n: np.ones(v.shape) for n, v in table.numerators.items()}
    return replace(
        table,
        unit="user",
        numerators=tops,
        denominators={n: summed(table.denominators.get(n, ones[n])) for n in tops},
        assigned=None if table.assigned is None else table.assigned[first],
        cluster=None,
        covariates={n: v[first] for n, v in table.covariates.items()},
        groups={n: v[first] for n, v in table.groups.items()},
    )
