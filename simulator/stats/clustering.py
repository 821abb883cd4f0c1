"""Clusters: units that belong together become one unit each, so that what they share is not taken
for independent news.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simulator.stats.unit_table import (
    Array,
    TableError,
    UnitTable,
    in_few_bytes,
    keys_of,
    levels,
)


def clustered(table: UnitTable) -> UnitTable:
    """The table of clusters (the users of user-days): every metric becomes a ratio of cluster sums,
    so that dependence within a cluster is respected.

    The mean over units is sum y / sum 1: a ratio of cluster sums, whose delta-method variance in
    each arm is the cluster-robust one of that arm's mean: CR1 of Liang & Zeger (1986) on the arm
    alone, with G / (G - 1) for its G clusters (Deng, Knoblich & Lu, KDD 2018, section 3.2). The
    arms are then compared as any others: independent arms by Welch's t, with df from both numbers
    of clusters (one CR1 of both arms would have one factor and one df for them), twins with df =
    clusters - 1. Covariates are clusters' means; groups that cut through a cluster are dropped.

    Each stretch of the table gives the sums of its own clusters, which are added here: the table of
    clusters is in memory, whatever that of units is.

    Raises:
        TableError: the units are not clustered, or a cluster is in several arms.
    """
    if table.cluster is None:
        raise TableError("these units are independent: there are no clusters to respect")
    names, index = levels(table.cluster)
    k = len(names)
    first = first_rows(table, names, index, "cluster")
    together = _Together(names)
    for part in table.mapped(_sums_by_cluster):
        together.add(part)
    sums = together.sums
    return UnitTable(
        "user",
        table.arms,
        table.metrics,
        {name: sums["numerators", name] for name in table.numerators},
        {name: sums.get(("denominators", name), together.sizes) for name in table.numerators},
        None if table.assigned is None else table.assigned[first],
        covariates={
            name: sums["covariates", name] / np.bincount(index, minlength=k)
            for name in table.covariates
        },
        groups={name: labels for name, labels in together.labels.items() if labels is not None},
        columns=table.columns,
        features=_of_clusters(table.features, index, first),
        keys=keys_of(map(str, names)) if table.features else None,
        predicted=table.predicted,
        details={
            name: table.details_of(name).of_clusters(index)
            for name, metric in table.metrics.items()
            if metric.is_figure
        },
    )


Column = tuple[str, str]
"""A part of a table, and a name in it."""


@dataclass(frozen=True)
class _PartOfClusters:
    """What the units of one stretch of a table bring to their clusters.

    Attributes:
        names: of the clusters `[k]` of which there are some, ascending.
        sizes: how many units of each, one row for each arm of a paired table.
        sums: by column, `[k]` or `[arms, k]`.
        labels: by group, that of each cluster; None where one has several.
    """

    names: Array
    sizes: Array
    sums: Mapping[Column, Array]
    labels: Mapping[str, Array | None]


def _sums_by_cluster(table: UnitTable) -> _PartOfClusters:
    assert table.cluster is not None
    names, index = levels(table.cluster)
    k = len(names)

    def summed(column: Array) -> Array:
        rows = column[None] if column.ndim == 1 else column
        sums = np.stack([np.bincount(index, row, k) for row in rows])
        if column.dtype.kind in "iu":
            sums = in_few_bytes(sums.astype(np.int64))
        return sums[0] if column.ndim == 1 else sums

    first = _first_of(index, k)
    shape = next(iter(table.numerators.values()), index).shape
    return _PartOfClusters(
        names,
        summed(np.ones(shape, dtype=np.int8)),
        {
            (part, name): summed(column)
            for part in ("numerators", "denominators", "covariates")
            for name, column in getattr(table, part).items()
        },
        {
            name: labels[first] if (labels == labels[first][index]).all() else None
            for name, labels in table.groups.items()
        },
    )


class _Together:
    """The clusters `names` of all stretches, ascending: memory grows with their number, not with
    that of units.

    Attributes:
        sizes, sums, labels: as those of a part.
    """

    def __init__(self, names: Array) -> None:
        self._names, self._is_known = names, np.zeros(len(names), dtype=bool)
        self.sizes: Array = np.zeros(0)
        self.sums: dict[Column, Array] = {}
        self.labels: dict[str, Array | None] = {}

    def add(self, part: _PartOfClusters) -> None:
        """Add a stretch."""
        k = len(self._names)
        at = np.searchsorted(self._names, part.names)
        if not self.sums:
            self.sizes = np.zeros((*part.sizes.shape[:-1], k), dtype=np.int8)
            self.sums = {
                key: np.zeros((*own.shape[:-1], k), dtype=own.dtype)
                for key, own in part.sums.items()
            }
            self.labels = {
                name: None if own is None else np.zeros(k, dtype=own.dtype)
                for name, own in part.labels.items()
            }
        self.sizes = _added(self.sizes, at, part.sizes)
        self.sums = {key: _added(total, at, part.sums[key]) for key, total in self.sums.items()}
        was_known = self._is_known[at]
        for name, labels in self.labels.items():
            own = part.labels[name]
            if labels is None or own is None or (labels[at] != own)[was_known].any():
                self.labels[name] = None
                continue
            labels = labels.astype(np.promote_types(labels.dtype, own.dtype), copy=False)
            labels[at] = own
            self.labels[name] = labels
        self._is_known[at] = True


def _added(total: Array, at: Array, own: Array) -> Array:
    """Sums with those of some clusters `at` added, whole numbers in few bytes."""
    wide = np.promote_types(own.dtype, np.int64)
    here = in_few_bytes(total[..., at] + own.astype(wide))
    total = total.astype(np.promote_types(total.dtype, here.dtype), copy=False)
    total[..., at] = here
    return total


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
    first = _first_of(index, len(names))
    if table.assigned is not None:
        torn = np.flatnonzero(table.assigned != table.assigned[first][index])
        if len(torn):
            name = names[index[torn[0]]]
            raise TableError(f"{what} {name!r} is in several arms; each {what} must be in one")
    return first


def _first_of(index: Array, k: int) -> Array:
    """Where each of 0..k-1 comes first in `index`."""
    first = np.zeros(k, dtype=np.int64)
    first[index[::-1]] = np.arange(len(index))[::-1]
    return first
