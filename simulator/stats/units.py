"""Units: per-unit sums of every metric, read from an event log in one streaming pass or from a
plain per-user table.

A unit is a user, a day or a user-day. Here is only summing; comparing is done in the other modules
of `simulator.stats`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from policies.products import matmul
from policies.time import DAY
from simulator.designs.base import DesignError
from simulator.log.eventlog import EventLog
from simulator.log.metadata import FIT, FITTED_ONCE
from simulator.log.metrics import DEFAULT_METRICS, METRICS, Metric, Rows, Term, chosen
from simulator.stats.derived import DerivedColumns

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
        numerators: by metric name, `[arms, units]` or `[units]` float64; a metric without data is
            absent.
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
        if self.assigned is None:
            return top[index], None if bottom is None else bottom[index]
        here = self.assigned == index
        return top[here], None if bottom is None else bottom[here]

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
        cut = {
            name: _cut(values, shares[name])
            for name, values in self.numerators.items()
            if shares.get(name) and name not in self.denominators
        }
        return replace(self, numerators={**self.numerators, **cut}) if cut else self

    def as_declared(self) -> UnitTable:
        """The table with the sums of each metric winsorised as its declaration says."""
        return self.winsorised({name: one.winsorise for name, one in self.metrics.items()})

    def details_of(self, metric: str) -> Details:
        """What a metric that is no mean is computed from: its rows, or the sums of the units."""
        if metric in self.details:
            return self.details[metric]
        return Details((self.numerators[metric],), None, self.assigned)

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
                columns[metric] = top[pick]
                if metric in self.denominators:
                    columns[f"{metric}.denominator"] = self.denominators[metric][pick]
            for covariate, values in self.covariates.items():
                taken = covariate in self.numerators
                columns[f"{covariate}.before" if taken else covariate] = values[at]
            columns |= {n: v[at] for n, v in self.groups.items()}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)


def _cut(values: Array, share: float) -> Array:
    """The `share` of largest values put down to the next one."""
    largest = int(share * values.size)
    at = values.size - 1 - largest
    return np.asarray(np.minimum(values, np.partition(values, at, axis=None)[at]))


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


def keys_of(names: Iterable[str]) -> Keys:
    """A number of 64 bits for each name: who falls into which fold depends on the name alone, not
    on the order of rows.
    """
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


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


@dataclass(frozen=True)
class UserDays:
    """The sums of every metric's terms for each arm, user and day: the log, as far as the verdict
    needs it.

    Attributes:
        arms: names of the compared arms (the history is not one).
        n_users: users are 0..n_users-1; those without rows are zeros.
        days: days of the A/B (1 for a log without days).
        metrics: by name, in the order of print.
        terms: by term name, `[arms, n_users, days]`: sums of rows with 0 <= t < days; absent where
            the log has no data.
        before: by term name, `[n_users]`: sums of the rows with t < 0.
        assigned: `[n_users]` index into `arms` (-1: in none), or None when every user was in every
            arm.
        switched: `[days]` index into `arms` that everybody got on each day (a switchback), or None.
        fits: `[arms]` how many fits each arm has; () for one each.
        fit_of_user: `[n_users]` the fit that each user lives with, of as many as the arms with
            most have, where users are divided over fits; else None.
        fitted_once: arms whose fits are all the same model, for their policies draw nothing.
        lives: what users had with each fit, where they lived with every one; then `terms` are the
            means over fits. Else ().
        cluster: `[n_users]` that users were assigned with; then these are the units of the table
            by user. None where users were assigned one by one.
    """

    arms: tuple[str, ...]
    n_users: int
    days: int
    metrics: Mapping[str, Metric]
    terms: Mapping[str, Array]
    before: Mapping[str, Floats]
    assigned: Array | None = None
    switched: Array | None = None
    fits: tuple[int, ...] = ()
    fit_of_user: Array | None = None
    fitted_once: frozenset[str] = frozenset()
    lives: tuple[UserDays, ...] = ()
    cluster: Array | None = None
    _tables: dict[tuple[Unit, int], UnitTable] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def missing(self) -> tuple[str, ...]:
        """Metrics that the log has no data for (a column not logged, or never observed)."""
        return tuple(
            n for n, m in self.metrics.items() if any(t.name not in self.terms for t in m.terms)
        )

    def by(self, unit: Unit, *, first: int = 0, until: int | None = None) -> UnitTable:
        """The table of one kind of unit, of the days `first <= day < until` only.

        By *day*, a day's value in an arm is the sum over the arm's users divided by the number of
        users in the arm, so that arms of different size compare; days are paired (the paper's day x
        arm table).

        In a switchback each day belongs to one arm: days are then a split table, and a user's value
        in an arm is the mean per day that the arm was served (a ratio metric's sums stay sums).
        """
        last = self.days if until is None else until
        # Of all days, and of the first one (a day alone, and the days so far), a table is asked for
        # again and again; of any other days once, and keeping them all would need their room.
        if first > 0 or last not in (1, self.days):
            return self._declared(unit, slice(first, last))
        if (unit, last) not in self._tables:
            self._tables[unit, last] = self._declared(unit, slice(first, last))
        return self._tables[unit, last]

    def _declared(self, unit: Unit, span: slice) -> UnitTable:
        """The table, of users with what is declared of its metrics; days have no largest users."""
        table = self._build(unit, span)
        return table.as_declared() if unit == "user" else table

    def _build(self, unit: Unit, span: slice) -> UnitTable:
        if self.lives:
            return mean_table([life._build(unit, span) for life in self.lives])
        tops: dict[str, Array] = {}
        bottoms: dict[str, Array] = {}
        for name, metric in self.metrics.items():
            if name in self.missing:
                continue
            tops[name] = self._sums(metric.numerator, unit, span, mean=metric.denominator is None)
            if metric.denominator is not None:
                bottoms[name] = self._sums(metric.denominator, unit, span, mean=False)
        if unit == "day":
            return UnitTable(
                unit,
                self.arms,
                self.metrics,
                tops,
                bottoms,
                None if self.switched is None else self.switched[span],
            )
        n = 1 if unit == "user" else len(range(self.days)[span])
        spread = (lambda v: v) if unit == "user" else (lambda v: np.repeat(v, n))
        covariates = {
            name: spread(self._before(metric))
            for name, metric in self.metrics.items()
            if self._has_before(metric)
        }
        assigned = self.assigned
        if self.switched is not None and unit == "user-day":
            assigned = np.tile(self.switched[span], self.n_users)
        elif assigned is not None:
            assigned = spread(assigned)
        own = self.cluster
        if unit == "user-day":
            own = np.repeat(np.arange(self.n_users) if own is None else own, n)
        table = UnitTable(
            unit,
            self.arms,
            self.metrics,
            tops,
            bottoms,
            assigned,
            own,
            covariates,
            {name: spread(group) for name, group in self.groups.items()},
        )
        is_clustered = unit == "user" and own is not None
        return clustered(table.as_declared()) if is_clustered else table

    def users(self, index: Array) -> UserDays:
        """Some of the users `[k]`, numbered anew in the order given."""
        return replace(
            self,
            n_users=len(index),
            terms={name: cube[:, index] for name, cube in self.terms.items()},
            before={name: column[index] for name, column in self.before.items()},
            assigned=None if self.assigned is None else self.assigned[index],
            fit_of_user=None if self.fit_of_user is None else self.fit_of_user[index],
            cluster=None if self.cluster is None else self.cluster[index],
            lives=tuple(life.users(index) for life in self.lives),
        )

    def of_arms(self, index: Array) -> UserDays:
        """Some of the arms `[k]`, in the order given; who was in another arm is in none."""
        place = np.full(len(self.arms), -1)
        place[index] = np.arange(len(index))
        assigned, switched = self.assigned, self.switched
        if assigned is not None:
            assigned = np.where(assigned >= 0, place[np.maximum(assigned, 0)], -1)
        return replace(
            self,
            arms=tuple(self.arms[i] for i in index),
            terms={name: cube[index] for name, cube in self.terms.items()},
            assigned=assigned,
            switched=None if switched is None else place[switched],
            fits=tuple(self.fits[i] for i in index) if self.fits else (),
            lives=tuple(life.of_arms(index) for life in self.lives),
        )

    def of_metrics(self, names: Sequence[str]) -> UserDays:
        """The same with some of the metrics.

        Raises:
            TableError: there is none of a name.
        """
        for name in names:
            if name not in self.metrics:
                raise TableError(f"no metric {name!r}; there are {', '.join(self.metrics)}")
        kept = {name: self.metrics[name] for name in self.metrics if name in names}
        return replace(
            self, metrics=kept, lives=tuple(life.of_metrics(names) for life in self.lives)
        )

    def in_order(self, arms: Sequence[str]) -> UserDays:
        """The same with its arms in the order of `arms`, those that are not among them last."""
        first = [name for name in arms if name in self.arms]
        names = (*first, *(name for name in self.arms if name not in first))
        if names == self.arms:
            return self
        return self.of_arms(np.array([self.arms.index(name) for name in names]))

    def pooled(self, terms: Mapping[str, Array]) -> UserDays:
        """The same users with other sums, of which nobody says with which fit they were had."""
        return replace(self, terms=terms, fits=(), fit_of_user=None, lives=())

    @property
    def groups(self) -> dict[str, Array]:
        """Segments known before the A/B, `[n_users]` of str: `activity` (thirds by impressions in
        the history) and `newness`.
        """
        seen = self.before.get("impressions")
        if seen is None or not seen.any():
            return {}
        known = seen > 0
        low, high = np.quantile(seen[known], [1 / 3, 2 / 3])
        activity = np.select([~known, seen <= low, seen <= high], ["none", "low", "middle"], "high")
        return {"activity": activity, "newness": np.where(known, "known", "new")}

    def _switchback(self, cube: Array, unit: Unit, span: slice, *, mean: bool) -> Array:
        """Sums of a switchback from what everybody did on each day `[users, days]`."""
        assert self.switched is not None
        if unit == "day":
            return np.asarray(cube.sum(axis=0, dtype=np.float64) / self.n_users)
        if unit == "user-day":
            return np.asarray(cube.reshape(-1).astype(np.float64))
        served = self.switched[span] == np.arange(len(self.arms))[:, None]
        sums = np.where(served.any(axis=1)[:, None], matmul(served, cube.T), np.nan)
        return np.asarray(sums / np.maximum(served.sum(axis=1), 1)[:, None] if mean else sums)

    def _sums(self, term: Term, unit: Unit, span: slice, *, mean: bool) -> Array:
        cube = self.terms[term.name][:, :, span]
        if self.switched is not None:
            cube = cube.sum(axis=0, keepdims=True)
        if term.days is not None:
            cube = term.days(cube)
        if self.switched is not None:
            return self._switchback(cube[0], unit, span, mean=mean)
        if unit == "day":
            counts = self.n_users if self.assigned is None else self._members()[:, None]
            with np.errstate(invalid="ignore"):
                return np.asarray(cube.sum(axis=1, dtype=np.float64) / counts)
        if unit == "user":
            by_unit = cube.sum(axis=2, dtype=np.float64)
        else:
            by_unit = cube.reshape(len(self.arms), -1).astype(np.float64)
        if self.assigned is None:
            return np.asarray(by_unit)
        n = by_unit.shape[1] // max(self.n_users, 1)
        chosen_arm = np.repeat(np.maximum(self.assigned, 0), n)
        return np.asarray(by_unit[chosen_arm, np.arange(by_unit.shape[1])])

    def _members(self) -> Array:
        assert self.assigned is not None
        return np.bincount(self.assigned[self.assigned >= 0], minlength=len(self.arms))

    def _has_before(self, metric: Metric) -> bool:
        return all(t.days is None and t.name in self.before for t in metric.terms)

    def _before(self, metric: Metric) -> Floats:
        top = self.before[metric.numerator.name]
        if metric.denominator is None:
            return top
        bottom = self.before[metric.denominator.name]
        overall = top.sum() / bottom.sum() if bottom.sum() > 0 else 0.0
        return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), overall)


def read(log: EventLog, metrics: Iterable[str] | None = None) -> UserDays:
    """Sum a log in one streaming pass: memory grows with users and days, not with impressions.

    Args:
        log: in KEY order (as a run writes it).
        metrics: names; None: those of the log's own scenario, or the default nine. Those of the
            supply side are not of users, and left to `stats.supply`.

    Returns:
        `UserDays` over the arms of the log other than `history`. In an interleaved log an
        impression is of the arm that drafted its item, and metrics of the visit (sessions,
        requests, return) have no data: both arms share it.

    Raises:
        TableError: fewer than one arm besides the history, rows not in KEY order, or rows that
            cannot be of the log's design.
        MetricError: a metric that does not exist.
    """
    meta = log.metadata
    asked = metrics if metrics is not None else meta.scenario.get("metrics", DEFAULT_METRICS)
    wanted = {m.name: m for m in chosen(asked) if m.supply is None}
    arms, design = meta.compared, meta.design
    if not arms:
        raise TableError(
            f"this log is a pure history (arms {list(meta.arms)}): there is nothing to compare"
        )
    place = np.array(
        [arms.index(name) if name in arms else -1 for name in meta.arms], dtype=np.int64
    )
    number = meta.fits.number if meta.fits.crossed else 1
    reader = _Pass(log, wanted, place, len(arms), max(meta.days, 1), number)
    cubes = reader.cubes
    try:
        assigned = design.arm_of_user(meta.n_users)
        cluster = design.cluster_of_user(meta.n_users)
        switched = design.arm_of_day(cubes["impressions"].sum(axis=(1, 2)))
    except DesignError as error:
        raise TableError(str(error)) from error
    if design.shares_slates:
        visits = {t.name for m in wanted.values() for t in m.terms if t.visit}
        cubes = {name: cube for name, cube in cubes.items() if name not in visits}
    lives = tuple(
        UserDays(
            arms,
            meta.n_users,
            max(meta.days, 1),
            wanted,
            {name: cube[:, fit] for name, cube in cubes.items()},
            reader.before,
            assigned,
            switched,
            cluster=cluster,
        )
        for fit in range(number)
    )
    fits = tuple(int(meta.fits_of_arm()[meta.arms.index(name)]) for name in arms)
    if max(fits) == 1:
        return lives[0]
    once = frozenset(meta.notes.get(FITTED_ONCE, ()))
    if meta.fits.crossed:
        means = {name: cube.mean(axis=1) for name, cube in cubes.items()}
        return replace(lives[0], terms=means, fits=fits, fitted_once=once, lives=lives)
    everybody = np.arange(meta.n_users)
    theirs = meta.fits.fit_of_user(meta.scenario.get("seed", 0), everybody, meta.fits.number)
    return replace(lives[0], fits=fits, fit_of_user=theirs, fitted_once=once)


def mean_table(tables: Sequence[UnitTable]) -> UnitTable:
    """One table of the means over tables of the same units: what a unit has on average."""
    first = tables[0]

    def mean(part: str) -> dict[str, Array]:
        names: Mapping[str, Array] = getattr(first, part)
        return {n: np.mean([getattr(table, part)[n] for table in tables], axis=0) for n in names}

    return replace(first, numerators=mean("numerators"), denominators=mean("denominators"))


class _Pass:
    """One pass over the rows: adds each batch to the cubes `[arms, fits, users, days]` and the sums
    before t = 0 `[users]`.
    """

    def __init__(
        self,
        log: EventLog,
        metrics: Mapping[str, Metric],
        place: Array,
        n_arms: int,
        days: int,
        fits: int,
    ) -> None:
        names = {
            *log.kinds,
            "t",
            "position",
            "click",
            "watch",
            "duration",
            "item",
            "propensity",
            "channel",
            "logged",
        }
        terms = [t for m in metrics.values() for t in m.terms]
        self.derived = DerivedColumns(log, {c for t in terms for c in t.columns})
        names |= self.derived.available
        asked = {
            t.name: t
            for m in (*metrics.values(), METRICS["impressions"])
            for t in m.terms
            if set(t.columns) <= names
        }
        first = {t.of: t for t in reversed(asked.values())}
        self.terms = list(first.values())
        self.key = log.metadata.key[:-1]
        columns = {c for t in self.terms for c in t.columns} | {*self.key, "t"}
        if columns & self.derived.available:
            columns = (columns - self.derived.available) | {"item"}
        self.columns = sorted(columns)
        self.place, self.days, self.n_users = place, days, log.metadata.n_users
        self.bounded = log.metadata.days > 0
        self.n_fits = fits
        shape = (n_arms, fits, self.n_users, days)
        self.cubes: dict[str, Array] = {t.name: np.zeros(shape) for t in self.terms}
        self.before: dict[str, Floats] = {t.name: np.zeros(self.n_users) for t in self.terms}
        self._observed = dict.fromkeys(self.columns, 0)
        self._last: Array = np.full(len(self.key), -1, dtype=np.int64)
        self._done: set[int] = set()
        n_rows = 0
        for batch in log.batches(self.columns):
            if batch.num_rows:
                n_rows += batch.num_rows
                self._add(batch)
        if n_rows:
            for term in self.terms:
                if any(self._observed.get(c) == 0 for c in term.columns):
                    del self.cubes[term.name], self.before[term.name]
        for name, term in asked.items():
            if first[term.of].name in self.cubes:
                self.cubes[name], self.before[name] = (
                    self.cubes[first[term.of].name],
                    self.before[first[term.of].name],
                )

    def _add(self, batch: pa.RecordBatch) -> None:
        rows: dict[str, Array] = {}
        for name in self.columns:
            column = batch.column(name)
            self._observed[name] += len(column) - column.null_count
            if pa.types.is_boolean(column.type):
                column = pc.fill_null(pc.cast(column, pa.int8()), -1)
            rows[name] = np.asarray(column.to_numpy(zero_copy_only=False))
        self._openings(rows)
        self.derived.add(rows)
        t = rows["t"]
        arm = self.place[rows["arm"]]
        day = np.maximum(t, 0) // DAY if self.bounded else np.zeros(len(t), dtype=np.int64)
        user = rows["user"].astype(np.int64)
        if FIT in self.key:
            arm = arm * self.n_fits + rows[FIT]
        now = (t >= 0) & (arm >= 0) & (day < self.days)
        self._accumulate(
            self.cubes, rows, now, ((arm * self.n_users + user) * self.days + day)[now]
        )
        old = t < 0
        if old.any():
            self._accumulate(self.before, rows, old, user[old])

    def _accumulate(self, into: Mapping[str, Array], rows: Rows, keep: Array, key: Array) -> None:
        """Add the kept rows to the flat cells `key`; a batch touches a narrow range of cells, and
        only that range is added.
        """
        if not len(key):
            return
        low = int(key.min())
        key = key - low
        width = int(key.max()) + 1
        for term in self.terms:
            value = term.of(rows)[keep]
            counted = value.dtype == bool
            sums = np.bincount(
                key[value] if counted else key, None if counted else value, minlength=width
            )
            into[term.name].reshape(-1)[low : low + width] += sums

    def _openings(self, rows: dict[str, Array]) -> None:
        """Mark the first impression of each session and request; within an arm, rows come in KEY
        order, across batches too.
        """
        keys = [rows[n].astype(np.int64) for n in self.key]
        changed: Array = np.zeros(len(keys[0]), dtype=bool)
        ordered: Array = np.ones(len(keys[0]), dtype=bool)
        for place, key in enumerate(keys):
            above = np.concatenate((self._last[place : place + 1], key[:-1]))
            ordered &= changed | (key >= above) | (place == 0)
            changed = changed | (key != above)
            if self.key[place] == "session":
                rows["opens_session"] = changed
        rows["opens_request"] = changed
        arms = keys[0][np.flatnonzero(np.diff(keys[0], prepend=self._last[0]))].tolist()
        if not ordered.all() or len({*arms, *self._done}) < len(arms) + len(self._done):
            raise TableError(
                f"the log is not in the order ({', '.join(self.key)}): use `log.sorted()`"
            )
        self._done.update(arms)
        self._last = np.array([key[-1] for key in keys])
