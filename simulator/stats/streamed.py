"""User-days of more users than memory should hold: they stay where they lie, in the sums that a run
keeps of the parts of its log, and those who compute hold the users of one part at a time.

Whatever is a sum over users is made of what `mapped` says of each part, which an executor may
compute in many processes, where the parts lie. What is no such sum asks for a column by its name,
as of any table: that column is then put together in this process, and nobody keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate, pairwise
from operator import methodcaller
from typing import Any, TypeVar

import numpy as np

from simulator.stats import selection
from simulator.stats.clustering import clustered
from simulator.stats.unit_table import Array, AskedFor, Unit, UnitTable
from simulator.stats.user_days import Past, UserDays

T = TypeVar("T")

Piece = Callable[[Collection[str] | None], Any]
"""Gives one stretch of users or units, with the sums of the named terms or metrics (None: of all).
It can be pickled, and is small: it says where the sums lie.
"""

Map = Callable[[Callable[[Piece], Any], Sequence[Piece]], Iterable[Any]]
"""What a function says of each piece, in their order: Python's `map`, or one that an executor
computes.
"""


OF_ARMS = ("arms", "assigned", "switched", "fits", "lives")
"""What is known of user-days and changes with their arms."""


@dataclass(frozen=True)
class Then:
    """A piece of which something is made."""

    piece: Piece
    step: Callable[[Any], Any]

    def __call__(self, names: Collection[str] | None) -> Any:
        return self.step(self.piece(names))


@dataclass(frozen=True)
class SameStretch:
    """The same stretch of several tables."""

    pieces: tuple[Piece, ...]

    def __call__(self, names: Collection[str] | None) -> list[Any]:
        return [piece(names) for piece in self.pieces]


def _of(function: Callable[[Any], T], names: Collection[str] | None, piece: Piece) -> T:
    return function(piece(names))


def _whole(names: Iterable[str], part: str, pieces: Sequence[Piece], asks: bool) -> AskedFor:
    """Columns of all units, put together from their stretches; `asks`: they are named to pieces."""

    return AskedFor(names, lambda name: _put_together(name, part, pieces, [name] if asks else ()))


def _put_together(name: str, part: str, pieces: Sequence[Piece], asked: Collection[str]) -> Array:
    stretches = [getattr(piece(asked), part)[name] for piece in pieces]
    return np.concatenate(stretches, axis=min(stretches[0].ndim - 1, 1))


def _some_of(
    method: str, index: Array, pieces: Sequence[Piece], sizes: Sequence[int], map: Map
) -> tuple[list[Any], Array, Array]:
    """What a method makes of the units `index` `[k]` of each piece that has some of them (of the
    first one, if none has); those units in ascending order, and where each of `index` is there.
    """
    own, place = np.sort(index), np.argsort(np.argsort(index, kind="stable"))
    firsts = np.cumsum([0, *sizes])
    some = [
        Then(piece, methodcaller(method, own[low:high] - first))
        for piece, first, (low, high) in zip(
            pieces, firsts[:-1], pairwise(np.searchsorted(own, firsts)), strict=True
        )
        if high > low
    ]
    some = some or [Then(pieces[0], methodcaller(method, own))]
    return list(map(partial(_of, _itself, None), some)), own, place


def _itself(stretch: T) -> T:
    return stretch


@dataclass(frozen=True)
class StreamedDays(UserDays):
    """`UserDays` that come in stretches.

    Attributes:
        pieces: give the stretches; what they say of anything but sums does not count.
        sizes: users of each.
        map: computes what is said of them.
    """

    pieces: tuple[Piece, ...] = field(kw_only=True)
    sizes: tuple[int, ...] = field(kw_only=True)
    map: Map = field(kw_only=True)

    @classmethod
    def of(
        cls,
        days: UserDays,
        before: Collection[str],
        pieces: Sequence[Piece],
        sizes: Sequence[int],
        map: Map = map,
    ) -> StreamedDays:
        """Days with the sums of `pieces`; of the others `terms` says no more than the names, and so
        does `before`.
        """
        known = {name: getattr(days, name) for name in ("arms", "n_users", "days", "metrics")}
        return cls(
            **known,
            terms=_whole(days.terms, "terms", pieces, True),
            before=_whole(before, "before", pieces, False),
            assigned=days.assigned,
            switched=days.switched,
            fits=days.fits,
            fit_of_user=days.fit_of_user,
            fitted_once=days.fitted_once,
            lives=days.lives,
            cluster=days.cluster,
            pieces=tuple(pieces),
            sizes=tuple(sizes),
            map=map,
        )

    def mapped(
        self, function: Callable[[UserDays], T], terms: Collection[str] | None = None
    ) -> Iterator[T]:
        """What a function says of the users of each part of the log."""
        return iter(self.map(partial(_of, function, terms), list(self._placed())))

    def _placed(self) -> Iterator[Piece]:
        """The pieces with what is known of their users besides sums."""
        of_lives = tuple(life.metrics for life in self.lives)
        # A cluster may have users in several stretches: it is made of what all of them say.
        alike = {"switched": self.switched, "past": self._past, "cluster": None}
        first = 0
        for piece, n in zip(self.pieces, self.sizes, strict=True):
            assigned, fit = (
                None if column is None else column[first : first + n]
                for column in (self.assigned, self.fit_of_user)
            )
            known = {**alike, "assigned": assigned}
            own = {**known, "metrics": self.metrics, "fit_of_user": fit}
            lives = [{**known, "metrics": metrics} for metrics in of_lives]
            yield Then(piece, partial(_among_all, own, lives))
            first += n

    def _then(self, step: Callable[[UserDays], UserDays], **changes: Any) -> StreamedDays:
        """The same users with what a step makes of their sums."""
        pieces = [Then(piece, step) for piece in self.pieces]
        return StreamedDays.of(replace(self, **changes), self.before, pieces, self.sizes, self.map)

    def users(self, index: Array) -> UserDays:
        """Some of the users `[k]`, in memory: each part that some are in says what they had."""
        parts, own, place = _some_of("users", index, self.pieces, self.sizes, self.map)
        together = UserDays(
            self.arms,
            len(index),
            self.days,
            self.metrics,
            {n: np.concatenate([p.terms[n] for p in parts], axis=1) for n in self.terms},
            {n: np.concatenate([p.before[n] for p in parts]) for n in self.before},
            None if self.assigned is None else self.assigned[own],
            self.switched,
            self.fits,
            None if self.fit_of_user is None else self.fit_of_user[own],
            self.fitted_once,
            tuple(life.users(own) for life in self.lives),
            None if self.cluster is None else self.cluster[own],
        )
        return together.users(place)

    def of_arms(self, index: Array) -> UserDays:
        """Some of the arms `[k]`, in the order given; who was in another arm is in none."""
        nothing = {name: np.zeros((len(self.arms), 0)) for name in self.terms}
        empty = UserDays.of_arms(replace(self, terms=nothing), index)
        known = {name: getattr(empty, name) for name in OF_ARMS}
        return self._then(methodcaller("of_arms", index), **known)

    def tilted(self, terms: Collection[str], slopes: Array) -> UserDays:
        """The same users with some terms weighted by day, `slopes` `[days]`."""
        step = partial(_tilted, frozenset(terms), slopes)
        return self._then(step, fits=(), fit_of_user=None, lives=())

    def of_fit(self, fit: int) -> UserDays:
        """The users who live with a fit, where they are divided over fits."""
        assert self.fit_of_user is not None
        here = self.fit_of_user == fit
        sizes = [int(np.count_nonzero(own)) for own in np.split(here, np.cumsum(self.sizes)[:-1])]
        days = replace(
            self,
            n_users=sum(sizes),
            assigned=None if self.assigned is None else self.assigned[here],
            fit_of_user=self.fit_of_user[here],
            cluster=None if self.cluster is None else self.cluster[here],
        )
        pieces = [Then(piece, methodcaller("of_fit", fit)) for piece in self._placed()]
        return StreamedDays.of(days, self.before, pieces, sizes, self.map)

    @cached_property
    def _past(self) -> Past:
        """As of days in memory, by passes."""
        found = list(self._over_past(_sums_before))
        sums = {name: sum(sums[name] for sums, _ in found) for name in self.before}
        ratios = {
            name: sums[metric.numerator.name] / sums[metric.denominator.name]
            if sums[metric.denominator.name] > 0
            else 0.0
            for name, metric in self.metrics.items()
            if metric.denominator is not None and all(t.name in sums for t in metric.terms)
        }
        known = sum(known for _, known in found)
        if not known:
            return Past(ratios, None)
        low, high = selection.quantiles(self._over_past, _seen_before, (1 / 3, 2 / 3), known)
        return Past(ratios, (low, high))

    def _over_past(self, function: Callable[[Any], T]) -> Iterator[T]:
        return iter(self.map(partial(_of, function, ()), self.pieces))

    def _build(self, unit: Unit, span: slice) -> UnitTable:
        if unit == "day":
            return super()._build(unit, span)
        if unit != "user":
            return self.users(np.arange(self.n_users))._build(unit, span)
        if self.cluster is not None and self.lives:
            return super()._build(unit, span)  # the clusters of each life are in memory
        nobody = UserDays(
            self.arms,
            0,
            self.days,
            self.lives[0].metrics if self.lives else self.metrics,
            {name: np.zeros((len(self.arms), 0, self.days)) for name in self.terms},
            {name: np.zeros(0) for name in self.before},
            None if self.assigned is None else self.assigned[:0],
            self.switched,
            past=self._past,
        )
        known = frozenset(self.terms)
        terms = {
            name: known & {term.name for term in metric.terms}
            for name, metric in self.metrics.items()
        }
        pieces: list[Piece] = [_TablePiece(piece, terms, unit, span) for piece in self._placed()]
        if self.cluster is not None:
            own = np.split(self.cluster, np.cumsum(self.sizes)[:-1])
            pieces = [
                Then(piece, partial(_in_clusters, cluster))
                for piece, cluster in zip(pieces, own, strict=True)
            ]
        outline = nobody._build(unit, span)
        table = StreamedTable.of(outline, self.sizes, self.assigned, pieces, self.map)
        if self.cluster is None:
            return table
        return clustered(replace(table.as_declared(), cluster=self.cluster))


def _in_clusters(cluster: Array, table: UnitTable) -> UnitTable:
    return replace(table, cluster=cluster)


def _among_all(
    known: Mapping[str, Any], of_lives: Sequence[Mapping[str, Any]], days: UserDays
) -> UserDays:
    lives = (replace(life, **own) for life, own in zip(days.lives, of_lives, strict=True))
    return replace(days, **known, lives=tuple(lives))


def _tilted(terms: Collection[str], slopes: Array, days: UserDays) -> UserDays:
    return days.tilted([name for name in terms if name in days.terms], slopes)


def _sums_before(days: UserDays) -> tuple[dict[str, float], int]:
    """The sum of each term before the A/B, and how many users have an impression there."""
    sums = {name: float(column.sum(dtype=np.float64)) for name, column in days.before.items()}
    return sums, int(np.count_nonzero(days.before.get("impressions", ())))


def _seen_before(days: UserDays) -> Array:
    """Impressions before the A/B, of the users who have any."""
    seen = days.before["impressions"]
    return seen[seen > 0]


@dataclass(frozen=True)
class _TablePiece:
    """A stretch of the table by user.

    Attributes:
        days: the piece of user-days.
        terms: by metric, the terms that there are of it.
        unit, span: of the table.
    """

    days: Piece
    terms: Mapping[str, frozenset[str]]
    unit: Unit
    span: slice

    def __call__(self, metrics: Collection[str] | None) -> UnitTable:
        asked = self.terms if metrics is None else metrics
        terms = {term for name in asked for term in self.terms[name]}
        table: UnitTable = self.days(terms)._build(self.unit, self.span)
        return table


@dataclass(frozen=True)
class StreamedTable(UnitTable):
    """A `UnitTable` whose units come in stretches.

    Attributes:
        about: a table of no unit with the same columns.
        sizes: units of each stretch.
        pieces: give the stretches; covariates and groups are there whatever metrics are named.
        map: computes what is said of them.
    """

    about: UnitTable = field(kw_only=True)
    sizes: tuple[int, ...] = field(kw_only=True)
    pieces: tuple[Piece, ...] = field(kw_only=True)
    map: Map = field(kw_only=True)

    @classmethod
    def of(
        cls,
        about: UnitTable,
        sizes: Sequence[int],
        assigned: Array | None,
        pieces: Sequence[Piece],
        map: Map,
    ) -> StreamedTable:
        """The table of `pieces`, of which `about` says all but the values."""
        return cls(
            about.unit,
            about.arms,
            about.metrics,
            _whole(about.numerators, "numerators", pieces, True),
            _whole(about.denominators, "denominators", pieces, True),
            assigned,
            covariates=_whole(about.covariates, "covariates", pieces, False),
            groups=_whole(about.groups, "groups", pieces, False),
            about=about,
            sizes=tuple(sizes),
            pieces=tuple(pieces),
            map=map,
        )

    @property
    def n_units(self) -> int:
        """Number of units, those with zeros included."""
        return sum(self.sizes)

    @property
    def outline(self) -> UnitTable:
        """A table of no unit with the same columns."""
        return self.about

    def mapped(
        self, function: Callable[[UnitTable], T], metrics: Collection[str] | None = None
    ) -> Iterator[T]:
        """What a function says of the units of each part of the log."""
        return iter(self.map(partial(_of, function, metrics), self.pieces))

    def numbered(
        self,
        function: Callable[[tuple[int, UnitTable]], T],
        metrics: Collection[str] | None = None,
    ) -> Iterator[T]:
        """`mapped`, of a function that also takes the number of the first unit of a stretch."""
        firsts = accumulate(self.sizes[:-1], initial=0)
        steps = [
            Then(own, partial(_numbered, n)) for n, own in zip(firsts, self.pieces, strict=True)
        ]
        return iter(self.map(partial(_of, function, metrics), steps))

    def _mapped_with(
        self,
        others: Sequence[UnitTable],
        function: Callable[[Sequence[UnitTable]], T],
        metrics: Collection[str] | None,
    ) -> Iterator[T]:
        of_tables = [self.pieces, *(one.pieces for one in others if isinstance(one, StreamedTable))]
        assert len(of_tables) == 1 + len(others)
        pieces = [SameStretch(own) for own in zip(*of_tables, strict=True)]
        return iter(self.map(partial(_of, function, metrics), pieces))

    def where(self, keep: Array) -> UnitTable:
        """The units at `keep` (a mask or an index array over units), in memory: each part that
        some are in says what they had.
        """
        index = np.flatnonzero(keep) if keep.dtype == bool else keep
        parts, own, place = _some_of("where", index, self.pieces, self.sizes, self.map)

        def together(part: str) -> dict[str, Array]:
            columns: dict[str, list[Array]] = {
                name: [getattr(one, part)[name] for one in parts] for name in getattr(self, part)
            }
            return {name: np.concatenate(found, axis=-1) for name, found in columns.items()}

        table = UnitTable(
            self.unit,
            self.arms,
            self.metrics,
            together("numerators"),
            together("denominators"),
            None if self.assigned is None else self.assigned[own],
            covariates=together("covariates"),
            groups=together("groups"),
        )
        return table.where(place)

    def of_levels(self, group: str) -> Iterator[tuple[str, UnitTable]]:
        """The units of each level of a group, levels in ascending order."""
        for name in self.levels(group):
            yield str(name), self._of_level(group, name)

    def _of_level(self, group: str, level: Any) -> UnitTable:
        found = list(self.mapped(partial(_members, group, level), ()))
        sizes = [n for n, _ in found]
        assigned = None if self.assigned is None else np.concatenate([own for _, own in found])
        return self._then(partial(_at_level, group, level), self.about, sizes, assigned)

    def _bound(self, metric: str, share: float) -> float:
        size = self.n_units * (len(self.arms) if self.paired else 1)
        over, rank = partial(self.mapped, metrics=[metric]), size - 1 - int(share * size)
        columns = partial(_all_sums, metric)
        found = selection.order_statistics(over, columns, {metric: [rank]}, {metric: size})
        return found[metric][0]

    def _cut(self, bounds: Mapping[str, Any]) -> UnitTable:
        about = self.about._cut(bounds)
        return self._then(partial(_cut, bounds), about, self.sizes, self.assigned)

    def _then(
        self,
        step: Callable[[UnitTable], UnitTable],
        about: UnitTable,
        sizes: Sequence[int],
        assigned: Array | None,
    ) -> UnitTable:
        """The table that a step makes of each stretch."""
        pieces = [Then(piece, step) for piece in self.pieces]
        return StreamedTable.of(about, sizes, assigned, pieces, self.map)


def _numbered(first: int, table: UnitTable) -> tuple[int, UnitTable]:
    return first, table


def _at_level(group: str, level: Any, table: UnitTable) -> UnitTable:
    return table.where(table.groups[group] == level)


def _members(group: str, level: Any, table: UnitTable) -> tuple[int, Array | None]:
    """How many units there are at a level, and the arm of each."""
    here = table.groups[group] == level
    return int(np.count_nonzero(here)), None if table.assigned is None else table.assigned[here]


def _all_sums(metric: str, table: UnitTable) -> list[tuple[str, Array]]:
    return [(metric, table.numerators[metric].ravel())]


def _cut(bounds: Mapping[str, Any], table: UnitTable) -> UnitTable:
    return table._cut({name: bound for name, bound in bounds.items() if name in table.numerators})
