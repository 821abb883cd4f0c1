"""Unit tables: per-unit sums of every metric in every arm, from which every test is computed.

A unit is a user, a day or a user-day, or whatever was assigned as a whole. Comparing is done in the
other modules of `simulator.stats`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from simulator.log.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd

    from simulator.stats.moments import Sample

Unit = Literal["user", "day", "user-day", "item", "author"]
Role = Literal[
    "user",
    "arm",
    "cluster",
    "day",
    "metric",
    "covariate",
    "segment",
    "left out",
    "count",
    "look",
    "moments",
    "predictor",
]
Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]
T = TypeVar("T")


class TableError(ValueError):
    """A log or table that cannot be compared; the message names what is wrong and what to do."""


@dataclass(frozen=True)
class Use:
    """What a column of a per-user table was taken for.

    Attributes:
        column: its name.
        role: what it is in the comparison.
        note: how it was read, or why it was left out; "" where there is nothing to say.
    """

    column: str
    role: Role
    note: str = ""


@dataclass(frozen=True)
class Details:
    """What a metric that is no mean is computed from: rows of units.

    Attributes:
        values: its columns, each `[rows]`, rows in the order of their units; of a paired table
            `[arms, units]`, a row for each unit.
        unit: `[rows]` the unit of each row, ascending; None: each row is its own unit.
        assigned: `[rows]` arm index of each row; None when paired.
    """

    values: tuple[Array, ...]
    unit: Array | None = None
    assigned: Array | None = None

    def of_arm(self, arm: int) -> tuple[list[Floats], Array | None]:
        """The columns `[n]` of the rows of one arm, and the unit of each row, numbered anew; None:
        each its own.
        """
        if self.assigned is None:
            return [column[arm] for column in self.values], None
        here = self.assigned == arm
        columns = [column[here] for column in self.values]
        if self.unit is None:
            return columns, None
        return columns, np.unique(self.unit[here], return_inverse=True)[1]

    def of_clusters(self, index: Array) -> Details:
        """The same rows, each a unit of its own so far, those of a cluster `index` `[rows]`
        together.
        """
        order = np.argsort(index, kind="stable")
        assigned = self.assigned
        return Details(
            tuple(column[..., order] for column in self.values),
            index[order],
            None if assigned is None else assigned[order],
        )

    def where(self, keep: Array, n_units: int) -> Details:
        """The rows of some of `n_units` units, in their order (a mask, or an index array in which
        a unit may stand several times).
        """
        rows, unit = keep, None
        if self.unit is not None:
            chosen = np.flatnonzero(keep) if keep.dtype == bool else keep
            ends = np.searchsorted(self.unit, np.arange(n_units + 1))
            counts = np.diff(ends)[chosen]
            unit = np.repeat(np.arange(len(chosen)), counts)
            first = np.cumsum(counts) - counts
            rows = np.arange(len(unit)) - np.repeat(first - ends[:-1][chosen], counts)
        return Details(
            tuple(column[..., rows] for column in self.values),
            unit,
            None if self.assigned is None else self.assigned[rows],
        )


class AskedFor(Mapping[str, Array]):
    """Columns by name, each made when it is asked for."""

    def __init__(self, names: Iterable[str], make: Callable[[str], Array]) -> None:
        self._names, self._make = tuple(names), make

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class UnitTable:
    """Per-unit sums of every metric in every arm: what all tests are computed from.

    Two layouts. *Paired*: every unit was in every arm, and `numerators[name]` is `[arms, units]`.
    *Split*: each unit was in one arm, given by `assigned` `[units]`, and `numerators[name]` is
    `[units]`.

    Attributes:
        unit: what a unit is.
        arms: names of the arms.
        metrics: by name, in the order of print.
        numerators: by metric name, `[arms, units]` or `[units]`; a metric without data is absent.
            Float64, or whole numbers in few bytes (`in_few_bytes`): `sums` gives float64.
        denominators: the same for ratio metrics only.
        assigned: `[units]` arm index (-1: in no arm), or None when paired.
        cluster: `[units]` what a unit belongs to (the user of a user-day), or None when units are
            independent.
        covariates: pre-period columns by name, `[units]` float64 (known before the A/B, so the same
            in every arm).
        groups: segments by name, `[units]` of str or int.
        features: what else is known of units before the test, by name, `[units]` numbers (NaN:
            missing) or labels: what predictions are made from (`stats.predictions`).
        keys: `[units]` a number of each unit's name, by which folds are made; None: no names.
        predicted: by metric, the covariates that are predictions of it.
        columns: what each column of a per-user table was taken for; empty where the units come from
            a log.
        details: by metric that is no mean, what it is computed from (a quantile of the units' own
            sums needs none).
        samples: the second moments that have been read of it, by covariates
            (`contrasts.TableMoments`).
    """

    unit: Unit
    arms: tuple[str, ...]
    metrics: Mapping[str, Metric]
    numerators: Mapping[str, Array]
    denominators: Mapping[str, Array] = field(default_factory=dict)
    assigned: Array | None = None
    cluster: Array | None = None
    covariates: Mapping[str, Floats] = field(default_factory=dict)
    groups: Mapping[str, Array] = field(default_factory=dict)
    columns: tuple[Use, ...] = ()
    features: Mapping[str, Array] = field(default_factory=dict)
    keys: Array | None = None
    predicted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    details: Mapping[str, Details] = field(default_factory=dict)
    samples: dict[tuple[str, ...], dict[str, Sample]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def paired(self) -> bool:
        """Whether every unit was in every arm."""
        return self.assigned is None

    @property
    def n_units(self) -> int:
        """Number of units, those with zeros included."""
        return 0 if not self.numerators else int(next(iter(self.numerators.values())).shape[-1])

    @property
    def outline(self) -> UnitTable:
        """A table with the same columns, perhaps of no unit."""
        return self

    def mapped(
        self, function: Callable[[UnitTable], T], metrics: Collection[str] | None = None
    ) -> Iterator[T]:
        """What a function says of the units, a stretch of them after the other: sums over units are
        made of it. Here the table is one stretch; of many users each part of their log is one, and
        the function may be called where that lies (`stats.streamed`).

        Args:
            function: can be pickled, as what it says.
            metrics: the only ones that it needs; None: all.
        """
        yield function(self)

    def numbered(
        self,
        function: Callable[[tuple[int, UnitTable]], T],
        metrics: Collection[str] | None = None,
    ) -> Iterator[T]:
        """`mapped`, of a function that also takes the number of the first unit of a stretch."""
        yield function((0, self))

    def _mapped_with(
        self,
        others: Sequence[UnitTable],
        function: Callable[[Sequence[UnitTable]], T],
        metrics: Collection[str] | None,
    ) -> Iterator[T]:
        yield function([self, *others])

    def levels(self, group: str) -> list[Any]:
        """The levels of a group, in ascending order."""
        found = self.mapped(partial(_levels_of, group), ())
        return sorted({name for names in found for name in names})

    def of_levels(self, group: str) -> Iterator[tuple[str, UnitTable]]:
        """The units of each level of a group, levels in ascending order and units in their own."""
        names, codes = levels(self.groups[group])
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(names)))
        for name, units in zip(names, np.split(order, ends[:-1]), strict=True):
            yield str(name), self.where(units)

    def arm(self, name: str) -> int:
        """Index of the arm called `name`.

        Raises:
            TableError: there is no such arm.
        """
        if name not in self.arms:
            raise TableError(f"no arm {name!r} among {list(self.arms)}")
        return self.arms.index(name)

    def sums(self, metric: str, arm: str) -> tuple[Floats, Floats | None]:
        """Numerator and denominator `[n]` of the units of one arm; denominator None for a mean per
        unit.

        Raises:
            TableError: no such arm, or the metric has no data.
        """
        index = self.arm(arm)
        if metric not in self.numerators:
            raise TableError(
                f"metric {metric!r} has no data in this table; it has {list(self.numerators)}"
            )
        top, bottom = self.numerators[metric], self.denominators.get(metric)
        here = index if self.assigned is None else self.assigned == index
        sums, below = (None if half is None else as_floats(half[here]) for half in (top, bottom))
        assert sums is not None
        return sums, below

    def where(self, keep: Array) -> UnitTable:
        """The units at `keep` (a mask or an index array over units): a segment, a bootstrap
        sample.
        """
        return replace(
            self,
            numerators={n: v[..., keep] for n, v in self.numerators.items()},
            denominators={n: v[..., keep] for n, v in self.denominators.items()},
            assigned=None if self.assigned is None else self.assigned[keep],
            cluster=None if self.cluster is None else self.cluster[keep],
            covariates={n: v[keep] for n, v in self.covariates.items()},
            groups={n: v[keep] for n, v in self.groups.items()},
            features={n: v[keep] for n, v in self.features.items()},
            keys=None if self.keys is None else self.keys[keep],
            details={n: v.where(keep, self.n_units) for n, v in self.details.items()},
        )

    def winsorised(self, shares: Mapping[str, float]) -> UnitTable:
        """The table with the largest share of the values of some mean metrics cut down to the value
        that bounds them, one bound for all arms together, so that the arms are treated alike
        (Tukey 1962; Kohavi, Tang & Xu 2020, chapter 22). Ratio metrics are left as they are.

        Raises:
            TableError: a share outside [0, 0.5).
        """
        for share in shares.values():
            if not 0 <= share < 0.5:
                raise TableError(f"winsorising: the share must be in [0, 0.5); got {share}")
        cut = [
            name for name in self.numerators if shares.get(name) and name not in self.denominators
        ]
        return self._cut({name: self._bound(name, shares[name]) for name in cut}) if cut else self

    def _bound(self, metric: str, share: float) -> Any:
        """The value that bounds the `share` of largest sums of a metric."""
        values = self.numerators[metric]
        at = values.size - 1 - int(share * values.size)
        return np.partition(values, at, axis=None)[at]

    def _cut(self, bounds: Mapping[str, Any]) -> UnitTable:
        """The table with the sums of some metrics put down to a bound."""
        cut = {name: np.minimum(self.numerators[name], bound) for name, bound in bounds.items()}
        return replace(self, numerators={**self.numerators, **cut})

    def as_declared(self) -> UnitTable:
        """The table with the sums of each metric winsorised as its declaration says."""
        return self.winsorised({name: one.winsorise for name, one in self.metrics.items()})

    def details_of(self, metric: str) -> Details:
        """What a metric that is no mean is computed from: its rows, or the sums of the units."""
        if metric in self.details:
            return self.details[metric]
        return Details((as_floats(self.numerators[metric]),), None, self.assigned)

    def frame(self) -> pd.DataFrame:
        """One row per (arm, unit): `arm`, `unit`, each metric's sum (and `<metric>.denominator`),
        covariates (`<metric>.before` where one is the metric of the days before) and groups.
        """
        import pandas as pd

        parts = []
        for index, name in enumerate(self.arms):
            if self.assigned is None:
                at = np.arange(self.n_units)
            else:
                at = np.flatnonzero(self.assigned == index)
            pick = (index, at) if self.assigned is None else at
            columns: dict[str, Any] = {"arm": name, "unit": at}
            for metric, top in self.numerators.items():
                columns[metric] = as_floats(top[pick])
                if metric in self.denominators:
                    columns[f"{metric}.denominator"] = as_floats(self.denominators[metric][pick])
            for covariate, values in self.covariates.items():
                taken = covariate in self.numerators
                columns[f"{covariate}.before" if taken else covariate] = values[at]
            columns |= {n: v[at] for n, v in self.groups.items()}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)


def in_few_bytes(sums: Array) -> Array:
    """Sums in the smallest signed type that holds them, if they are whole numbers by their type;
    others as they are. Signed, so that the difference of two counts is right without a thought of
    their type.
    """
    if sums.dtype.kind not in "iu" or not sums.size:
        return sums
    lowest = min(int(sums.min()), -int(sums.max()) - 1)
    return sums.astype(np.min_scalar_type(lowest), copy=False)


def as_floats(sums: Array) -> Floats:
    """Sums as float64, which nothing that is taken from them leaves; no copy where they are."""
    return np.asarray(sums, dtype=np.float64)


def levels(labels: Array) -> tuple[Array, Array]:
    """The levels of a group `[k]` in ascending order, and the index `[units]` of each unit's, in
    time linear in the units.
    """
    coded = pa.array(labels).dictionary_encode()
    names = coded.dictionary.to_numpy(zero_copy_only=False)
    order = np.argsort(names)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return names[order], rank[coded.indices.to_numpy()]


def _levels_of(group: str, table: UnitTable) -> list[Any]:
    return list(levels(table.groups[group])[0])


def mapped_together(
    tables: Sequence[UnitTable],
    function: Callable[[Sequence[UnitTable]], T],
    metrics: Collection[str] | None = None,
) -> Iterator[T]:
    """`UnitTable.mapped` of tables of the same units, the same stretch of all of them at once."""
    return tables[0]._mapped_with(tables[1:], function, metrics)


def keys_of(names: Iterable[str]) -> Keys:
    """A number of 64 bits for each name: who falls into which fold depends on the name alone, not
    on the order of rows.
    """
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def mean_table(tables: Sequence[UnitTable]) -> UnitTable:
    """One table of the means over tables of the same units: what a unit has on average."""
    first = tables[0]

    def mean(part: str) -> dict[str, Array]:
        names: Mapping[str, Array] = getattr(first, part)
        return {n: np.mean([getattr(table, part)[n] for table in tables], axis=0) for n in names}

    return replace(first, numerators=mean("numerators"), denominators=mean("denominators"))
