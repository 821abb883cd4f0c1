"""User-days of more users than memory should hold: they stay where they lie, in the sums that a run
keeps of the parts of its log, and the users of one part are in memory at a time.

`blocks` gives these, and whatever is a sum over users is made of them. What is no such sum asks for
a column by its name, as of any table: that column is then put together, and nobody keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from simulator.stats import selection
from simulator.stats.unit_table import Array, Unit, UnitTable
from simulator.stats.user_days import Past, UserDays


class Whole(Mapping[str, Array]):
    """Columns of all users by name, put together from their stretches where one is asked for."""

    def __init__(self, names: Collection[str], stretches: Callable[[str], Iterator[Array]]) -> None:
        self._names, self._stretches = tuple(names), stretches

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        parts = list(self._stretches(name))
        return np.concatenate(parts, axis=min(parts[0].ndim - 1, 1))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


DaySource = Callable[[Collection[str] | None], Iterator[UserDays]]
"""Gives the stretches of users, with the sums of the named terms (None: of all)."""

TableSource = Callable[[Collection[str] | None], Iterator[UnitTable]]
"""Gives the stretches of units, with the named metrics (None: all)."""


@dataclass(frozen=True)
class StreamedDays(UserDays):
    """`UserDays` that come in stretches; each user was in every arm, or assigned to one.

    Attributes:
        source: gives the stretches; what they say of anything but sums does not count.
    """

    source: DaySource = field(kw_only=True)

    @classmethod
    def of(cls, days: UserDays, before: Collection[str], source: DaySource) -> StreamedDays:
        """Days with the sums of `source`; of the others `terms` says no more than the names, and so
        does `before`.
        """
        known = {name: getattr(days, name) for name in ("arms", "n_users", "days", "metrics")}
        return cls(
            **known,
            terms=Whole(days.terms, lambda name: (b.terms[name] for b in source([name]))),
            before=Whole(before, lambda name: (b.before[name] for b in source([name]))),
            assigned=days.assigned,
            fits=days.fits,
            fitted_once=days.fitted_once,
            source=source,
        )

    def blocks(self, terms: Collection[str] | None = None) -> Iterator[UserDays]:
        """The users of each part of the log."""
        first = 0
        for block in self.source(terms):
            end = first + block.n_users
            assigned = None if self.assigned is None else self.assigned[first:end]
            yield replace(block, metrics=self.metrics, assigned=assigned, past=self._past)
            first = end

    def _of(self, source: DaySource, **changes: Any) -> StreamedDays:
        """The same users with other sums."""
        return StreamedDays.of(replace(self, **changes), self.before, source)

    def users(self, index: Array) -> UserDays:
        """Some of the users `[k]`, in memory; only the parts that they are in are read."""
        parts, first = [], 0
        own, place = np.sort(index), np.argsort(np.argsort(index, kind="stable"))
        for block in self.source(None):
            here = own[(own >= first) & (own < first + block.n_users)]
            parts.append(block.users(here - first))
            first += block.n_users
            if not len(own) or own[-1] < first:
                break
        together = UserDays(
            self.arms,
            len(index),
            self.days,
            self.metrics,
            {n: np.concatenate([p.terms[n] for p in parts], axis=1) for n in self.terms},
            {n: np.concatenate([p.before[n] for p in parts]) for n in self.before},
            None if self.assigned is None else self.assigned[own],
            fits=self.fits,
            fitted_once=self.fitted_once,
        )
        return together.users(place)

    def of_arms(self, index: Array) -> UserDays:
        """Some of the arms `[k]`, in the order given; who was in another arm is in none."""
        nothing = {name: np.zeros((len(self.arms), 0)) for name in self.terms}
        empty = UserDays.of_arms(replace(self, terms=nothing), index)
        return self._of(
            lambda names: (block.of_arms(index) for block in self.source(names)),
            arms=empty.arms,
            assigned=empty.assigned,
            fits=empty.fits,
        )

    def tilted(self, terms: Collection[str], slopes: Array) -> UserDays:
        """The same users with some terms weighted by day, `slopes` `[days]`."""
        return self._of(
            lambda names: (
                block.tilted([n for n in terms if n in block.terms], slopes)
                for block in self.source(names)
            )
        )

    @cached_property
    def _past(self) -> Past:
        """As of days in memory, by two passes."""
        sums = dict.fromkeys(self.before, 0.0)
        known = 0
        for block in self.source(()):
            for name, column in block.before.items():
                sums[name] += float(column.sum(dtype=np.float64))
            if "impressions" in block.before:
                known += int(np.count_nonzero(block.before["impressions"]))
        ratios = {
            name: sums[metric.numerator.name] / sums[metric.denominator.name]
            if sums[metric.denominator.name] > 0
            else 0.0
            for name, metric in self.metrics.items()
            if metric.denominator is not None and all(t.name in sums for t in metric.terms)
        }
        if not known:
            return Past(ratios, None)
        thirds = selection.quantiles(
            lambda: (
                block.before["impressions"][block.before["impressions"] > 0]
                for block in self.source(())
            ),
            (1 / 3, 2 / 3),
            known,
        )
        return Past(ratios, (thirds[0], thirds[1]))

    def _build(self, unit: Unit, span: slice) -> UnitTable:
        if unit == "day":
            return super()._build(unit, span)
        if unit != "user":
            return self.users(np.arange(self.n_users))._build(unit, span)
        nobody = UserDays(
            self.arms,
            0,
            self.days,
            self.metrics,
            {name: np.zeros((len(self.arms), 0, self.days)) for name in self.terms},
            {name: np.zeros(0) for name in self.before},
            None if self.assigned is None else self.assigned[:0],
            past=self._past,
        )

        def source(metrics: Collection[str] | None) -> Iterator[UnitTable]:
            asked = self.metrics if metrics is None else metrics
            terms = {t.name for name in asked for t in self.metrics[name].terms}
            for block in self.blocks(terms & self.terms.keys()):
                yield block._build(unit, span)

        head = nobody._build(unit, span)
        return StreamedTable.of(head, self.n_users, self.assigned, source)


@dataclass(frozen=True)
class StreamedTable(UnitTable):
    """A `UnitTable` whose units come in stretches.

    Attributes:
        n: units.
        source: gives the stretches; covariates and groups are there whatever metrics are named.
    """

    n: int = field(kw_only=True)
    source: TableSource = field(kw_only=True)

    @classmethod
    def of(
        cls, head: UnitTable, n: int, assigned: Array | None, source: TableSource
    ) -> StreamedTable:
        """The table of `source`, of which `head` says all but the values."""

        def whole(part: str, is_metric: bool) -> Whole:
            return Whole(
                getattr(head, part),
                lambda name: (
                    getattr(block, part)[name] for block in source([name] if is_metric else ())
                ),
            )

        return cls(
            head.unit,
            head.arms,
            head.metrics,
            whole("numerators", True),
            whole("denominators", True),
            assigned,
            covariates=whole("covariates", False),
            groups=whole("groups", False),
            n=n,
            source=source,
        )

    @property
    def n_units(self) -> int:
        """Number of units, those with zeros included."""
        return self.n

    def blocks(self, metrics: Collection[str] | None = None) -> Iterator[UnitTable]:
        """The units of each part of the log."""
        return self.source(metrics)

    def of_levels(self, group: str) -> Iterator[tuple[str, UnitTable]]:
        """The units of each level of a group, levels in ascending order."""
        for name in self.levels(group):
            yield str(name), self._of_level(group, name)

    def _of_level(self, group: str, level: Any) -> UnitTable:
        here = np.concatenate([block.groups[group] == level for block in self.source(())])

        def source(metrics: Collection[str] | None) -> Iterator[UnitTable]:
            for block in self.source(metrics):
                yield block.where(block.groups[group] == level)

        assigned = None if self.assigned is None else self.assigned[here]
        return StreamedTable.of(self, int(np.count_nonzero(here)), assigned, source)

    def _bound(self, metric: str, share: float) -> float:
        size = self.n * (len(self.arms) if self.paired else 1)
        (found,) = selection.order_statistics(
            lambda: ({0: block.numerators[metric].ravel()} for block in self.source([metric])),
            {0: [size - 1 - int(share * size)]},
            {0: size},
        ).values()
        return found[0]

    def _cut(self, bounds: Mapping[str, Any]) -> UnitTable:
        def source(metrics: Collection[str] | None) -> Iterator[UnitTable]:
            for block in self.source(metrics):
                yield block._cut({n: b for n, b in bounds.items() if n in block.numerators})

        return StreamedTable.of(self, self.n, self.assigned, source)
