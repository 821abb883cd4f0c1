"""User-days: what every user did on every day in every arm, and the unit tables of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import TypeVar

import numpy as np

from policies.products import matmul
from simulator.log.metrics import Metric, Term
from simulator.stats.clustering import clustered
from simulator.stats.unit_table import (
    Array,
    AskedFor,
    Floats,
    TableError,
    Unit,
    UnitTable,
    in_few_bytes,
    mean_table,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Past:
    """What the days before the A/B say of all users together, by which each is measured.

    Attributes:
        ratios: by ratio metric, the sum of its numerators over that of its denominators.
        thirds: of the users with a history, the impressions up to which the lowest and the middle
            third have; None: nobody has any.
    """

    ratios: Mapping[str, float]
    thirds: tuple[float, float] | None

    @classmethod
    def of(cls, metrics: Mapping[str, Metric], before: Mapping[str, Array]) -> Past:
        """What the sums before the A/B `[n_users]` say, by term."""
        ratios = {}
        for name, metric in metrics.items():
            if metric.denominator is not None and all(t.name in before for t in metric.terms):
                top, bottom = (before[t.name].sum(dtype=np.float64) for t in metric.terms)
                ratios[name] = float(top / bottom) if bottom > 0 else 0.0
        if "impressions" not in before or not before["impressions"].any():
            return cls(ratios, None)
        seen = before["impressions"].astype(np.float64)
        low, high = np.quantile(seen[seen > 0], [1 / 3, 2 / 3]).tolist()
        return cls(ratios, (low, high))


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
            the log has no data. Float64, or whole numbers of few bytes: made float64
            before anything is taken from them.
        before: by term name, `[n_users]`: sums of the rows with t < 0, of the same types.
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
        past: of all users, where these are some of them; None: these are all.
    """

    arms: tuple[str, ...]
    n_users: int
    days: int
    metrics: Mapping[str, Metric]
    terms: Mapping[str, Array]
    before: Mapping[str, Array]
    assigned: Array | None = None
    switched: Array | None = None
    fits: tuple[int, ...] = ()
    fit_of_user: Array | None = None
    fitted_once: frozenset[str] = frozenset()
    lives: tuple[UserDays, ...] = ()
    cluster: Array | None = None
    past: Past | None = None
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
        missing = self.missing
        for name, metric in self.metrics.items():
            if name in missing:
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
        past = self.covariates
        covariates = AskedFor(past, cache(lambda name: spread(past[name])))
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
            AskedFor(self._groups, cache(lambda name: spread(self._group(name)))),
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
            past=None,
        )

    def of_fit(self, fit: int) -> UserDays:
        """The users who live with a fit, where they are divided over fits."""
        assert self.fit_of_user is not None
        return self.users(np.flatnonzero(self.fit_of_user == fit))

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

    def tilted(self, terms: Collection[str], slopes: Array) -> UserDays:
        """The same users with some terms weighted by day, `slopes` `[days]`."""
        return self.pooled({**self.terms, **{name: self.terms[name] * slopes for name in terms}})

    def mapped(
        self, function: Callable[[UserDays], T], terms: Collection[str] | None = None
    ) -> Iterator[T]:
        """What a function says of the users, a stretch of them after the other, as
        `UnitTable.mapped`.

        Args:
            function: can be pickled, as what it says.
            terms: the only ones that it needs; None: all.
        """
        yield function(self)

    @cached_property
    def _past(self) -> Past:
        return Past.of(self.metrics, self.before) if self.past is None else self.past

    @property
    def covariates(self) -> Mapping[str, Floats]:
        """By metric, what users had of it before the A/B, `[n_users]`."""
        names = [name for name, metric in self.metrics.items() if self._has_before(metric)]
        return AskedFor(names, self._before)

    @property
    def groups(self) -> Mapping[str, Array]:
        """Segments known before the A/B, `[n_users]` of str: `activity` (thirds by impressions in
        the history) and `newness`.
        """
        return AskedFor(self._groups, self._group)

    @property
    def _groups(self) -> tuple[str, ...]:
        return () if self._past.thirds is None else ("activity", "newness")

    def _group(self, name: str) -> Array:
        assert self._past.thirds is not None
        seen, (low, high) = self.before["impressions"].astype(np.float64), self._past.thirds
        known = seen > 0
        if name == "newness":
            return np.where(known, "known", "new")
        return np.select([~known, seen <= low, seen <= high], ["none", "low", "middle"], "high")

    def _switchback(self, cube: Array, unit: Unit, span: slice, *, mean: bool) -> Array:
        """Sums of a switchback from what everybody did on each day `[users, days]`."""
        assert self.switched is not None
        if unit == "user-day":
            return np.asarray(cube.reshape(-1).astype(np.float64))
        served = self.switched[span] == np.arange(len(self.arms))[:, None]
        sums = np.where(served.any(axis=1)[:, None], matmul(served, cube.T), np.nan)
        return np.asarray(sums / np.maximum(served.sum(axis=1), 1)[:, None] if mean else sums)

    def _cube(self, term: Term, span: slice) -> Array:
        cube = self.terms[term.name][:, :, span]
        if self.switched is not None:
            cube = cube.sum(axis=0, keepdims=True)
        return cube if term.days is None else term.days(cube)

    def _sums(self, term: Term, unit: Unit, span: slice, *, mean: bool) -> Array:
        if unit == "day":
            counts = self.n_users if self.assigned is None else self._members()[:, None]
            by_day = self.mapped(partial(_by_day, term, span), [term.name])
            sums = sum(by_day, np.zeros(()))
            if self.switched is not None:
                return np.asarray(sums[0] / counts)
            with np.errstate(invalid="ignore"):
                return np.asarray(sums / counts)
        cube = self._cube(term, span)
        if self.switched is not None:
            return self._switchback(cube[0], unit, span, mean=mean)
        if unit == "user":
            by_unit = cube[:, :, 0] if cube.shape[2] == 1 else in_few_bytes(cube.sum(axis=2))
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

    def _before(self, name: str) -> Floats:
        metric = self.metrics[name]
        top = self.before[metric.numerator.name].astype(np.float64)
        if metric.denominator is None:
            return top
        bottom = self.before[metric.denominator.name].astype(np.float64)
        overall = self._past.ratios[name]
        return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), overall)


def _by_day(term: Term, span: slice, days: UserDays) -> Floats:
    """The sums `[arms, days]` of a term over users."""
    return np.asarray(days._cube(term, span).sum(axis=1, dtype=np.float64))
