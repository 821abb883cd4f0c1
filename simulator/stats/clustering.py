"""Clusters: units that belong together become one unit each, so that what they share is not taken
for independent news.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from simulator.stats.unit_table import Array, TableError, UnitTable, keys_of, levels


def clustered(table: UnitTable) -> UnitTable:
    """The table of clusters (the users of user-days): every metric becomes a ratio of cluster sums,
    so that dependence within a cluster is respected.

    The mean over units is sum y / sum 1: a ratio of cluster sums, whose delta-method variance in
    each arm is the cluster-robust one of that arm's mean: CR1 of Liang & Zeger (1986) on the arm
    alone, with G / (G - 1) for its G clusters (Deng, Knoblich & Lu, KDD 2018, section 3.2). The
    arms are then compared as any others: independent arms by Welch's t, with df from both numbers
    of clusters (one CR1 of both arms would have one factor and one df for them), twins with df =
    clusters - 1. Covariates are clusters' means; groups that cut through a cluster are dropped.

    Raises:
        TableError: the units are not clustered, or a cluster is in several arms.
    """
    if table.cluster is None:
        raise TableError("these units are independent: there are no clusters to respect")
    names, index = levels(table.cluster)
    k = len(names)

    def summed(column: np.ndarray) -> np.ndarray:
        rows = column[None] if column.ndim == 1 else column
        sums = np.stack([np.bincount(index, row, k) for row in rows])
        return sums[0] if column.ndim == 1 else sums

    first = first_rows(table, names, index, "cluster")
    tops = {n: summed(v) for n, v in table.numerators.items()}
    ones = {n: np.ones(v.shape) for n, v in table.numerators.items()}
    return replace(
        table,
        unit="user",
        numerators=tops,
        denominators={n: summed(table.denominators.get(n, ones[n])) for n in tops},
        assigned=None if table.assigned is None else table.assigned[first],
        cluster=None,
        covariates={
            n: summed(v) / np.bincount(index, minlength=k) for n, v in table.covariates.items()
        },
        groups={n: v[first] for n, v in table.groups.items() if (v == v[first][index]).all()},
        features=_of_clusters(table.features, index, first),
        keys=keys_of(map(str, names)) if table.features else None,
        details={
            name: table.details_of(name).of_clusters(index)
            for name, metric in table.metrics.items()
            if metric.is_figure
        },
    )


def _of_clusters(features: Mapping[str, Array], index: Array, first: Array) -> dict[str, Array]:
    """What is known of clusters: means of the numbers that are there, labels that all units of each
    share.
    """
    found = {}
    for name, values in features.items():
        if values.dtype.kind == "f":
            there = ~np.isnan(values)
            sums = np.bincount(index[there], values[there], len(first))
            counts = np.bincount(index[there], minlength=len(first))
            found[name] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        elif (values == values[first][index]).all():
            found[name] = values[first]
    return found


def first_rows(table: UnitTable, names: Array, index: Array, what: str) -> Array:
    """The first row of each cluster.

    Raises:
        TableError: a cluster is in several arms.
    """
    first = np.zeros(len(names), dtype=np.int64)
    first[index[::-1]] = np.arange(len(index))[::-1]
    if table.assigned is not None:
        torn = np.flatnonzero(table.assigned != table.assigned[first][index])
        if len(torn):
            name = names[index[torn[0]]]
            raise TableError(f"{what} {name!r} is in several arms; each {what} must be in one")
    return first
