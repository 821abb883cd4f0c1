"""Units: the sums of every user and day, read from an event log in one streaming pass."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from policies.time import DAY
from simulator.designs.base import DesignError
from simulator.log import workspace
from simulator.log.eventlog import EventLog
from simulator.log.metadata import FIT, FITTED_ONCE
from simulator.log.metrics import DEFAULT_METRICS, IMPRESSIONS, Rows, chosen
from simulator.log.part_sums import CellSums, KeptSums, Sums, add_up, some
from simulator.log.schema import LogRows
from simulator.stats.derived import DerivedColumns
from simulator.stats.streamed import Map, StreamedDays, Then
from simulator.stats.unit_table import Array, TableError, in_few_bytes
from simulator.stats.user_days import UserDays


def read(
    log: EventLog,
    metrics: Iterable[str] | None = None,
    *,
    inspect: bool = False,
    streamed: Map | None = None,
) -> UserDays:
    """Sum a log: memory grows with users and days, not with impressions. The arguments and errors
    are those of `UserSums` and `part_sums.add_up`.

    Args:
        log, metrics, streamed: of `UserSums`.
        inspect: of `part_sums.add_up`.
    """
    sums = UserSums(log, metrics, streamed=streamed)
    add_up(log, [sums], inspect=inspect)
    return sums.user_days()


STREAMED = 1 << 22
"""Days of users in all arms from which on their sums stay in files: fewer take little memory, and
less time where they are in it.
"""

ROOM = 1 << 28
"""Bytes of sums that are kept for the next pass over them."""


class GrowingCells:
    """Sums by cell in as few bytes as they need: whole numbers in the smallest type that holds
    them (a user's clicks of a day in one byte), others in float64.

    Attributes:
        first, values: the cells that there are: `n` from 0 on, and as far as any were added to.
    """

    def __init__(self, n: int = 0) -> None:
        self.first = 0
        self.values: Array = np.zeros(n, dtype=np.int8)

    def add(self, first: int, sums: Array) -> None:
        """Add whole numbers, int64, or float64 to the cells from `first` on."""
        self._reach(first, first + len(sums))
        here = slice(first - self.first, first - self.first + len(sums))
        total = in_few_bytes(self.values[here] + sums)
        kind = np.promote_types(total.dtype, self.values.dtype)
        self.values = self.values.astype(kind, copy=False)
        self.values[here] = total

    def _reach(self, first: int, end: int) -> None:
        """Let there be the cells from `first` to before `end`."""
        if not len(self.values):
            self.first = first
        before, after = self.first - first, end - self.first - len(self.values)
        if before > 0 or after > 0:
            self.values = np.pad(self.values, (max(before, 0), max(after, 0)))
            self.first = min(self.first, first)


class InCells(ABC):
    """Sums of users that lie in cells, for `part_sums.Summing`."""

    @abstractmethod
    def cells(self) -> Mapping[str, GrowingCells]:
        """By name; what is added to them counts."""

    @property
    def names(self) -> Collection[str]:
        """Of `sums`."""
        return self.cells().keys()

    def sums(self) -> Sums:
        """Of all that was added, by name."""
        return {name: CellSums(cells.first, cells.values) for name, cells in self.cells().items()}

    def take(self, sums: Sums) -> None:
        """Add the sums of a part of the log."""
        cells = self.cells()
        for name, (first, values) in some(sums, cells.keys()).items():
            if len(values):
                cells[name].add(first, values.astype(np.promote_types(values.dtype, np.int64)))


class Room:
    """Sums that a process keeps for the next pass over them, ROOM bytes of them."""

    def __init__(self, token: str) -> None:
        """`token`: of the log that they are of."""
        self._token, self._left = token, ROOM
        self._kept: dict[tuple[int, str], Array] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _room_here, (self._token,)  # another process keeps its own

    def get(self, first: int, name: str) -> Array | None:
        """Sums of a name of the users from `first` on, if they are kept."""
        return self._kept.get((first, name))

    def keep(self, first: int, name: str, sums: Array) -> None:
        """Keep them, where there is room: all are asked for in every round, so that the first ones
        are as good as any.
        """
        if sums.nbytes <= self._left:
            self._left -= sums.nbytes
            self._kept[first, name] = sums


@lru_cache(maxsize=1)
def _room_here(token: str) -> Room:
    return Room(token)


@dataclass(frozen=True)
class _Lying:
    """The sums of users of one part of the log, and which cells they are.

    Attributes:
        sums: where they lie.
        days: flat cells `[arms, fits, users, days]` of every term.
        before: cells `[users]` before the A/B.
    """

    sums: KeptSums
    days: range
    before: range

    def places(self, n_users: int, days: int, cut: int) -> range:
        """The stretches of `cut` users in which it has some. All are of one arm and fit."""
        cells = [*self.days[:1], *self.days[-1:]]
        users = [*(cell // days % n_users for cell in cells), *self.before[:1], *self.before[-1:]]
        return range(min(users) // cut, max(users) // cut + 1) if users else range(0)

    def add_to(self, into: Mapping[str, GrowingCells], cells: range, at: int, own: range) -> None:
        """Add what is in some `cells` of all to those from `at` on of a stretch."""
        low, high = max(cells.start, own.start), min(cells.stop, own.stop)
        if low >= high or not into:
            return
        for name, (first, sums) in self.sums.some(into.keys()).items():
            values = sums[low - first : high - first]
            wide = values.astype(np.promote_types(values.dtype, np.int64))
            into[name].add(at + low - cells.start, wide)


@dataclass(frozen=True)
class _PartOfUsers:
    """The users of one part of the log, in all arms: a `streamed.Piece`.

    Attributes:
        lying: the parts that have sums of theirs.
        arms: names.
        shape: fits with which each user lives, users, and days of the whole log.
        first, n: the users.
        own: by term that the log has data for, the one that is summed alike.
        room: for the next pass.
    """

    lying: tuple[_Lying, ...]
    arms: tuple[str, ...]
    shape: tuple[int, int, int]
    first: int
    n: int
    own: Mapping[str, str]
    room: Room

    def __call__(self, names: Collection[str] | None) -> UserDays:
        """With the sums of the named terms (None: of all), and with all before the A/B."""
        asked = [name for name in self.own if names is None or name in names]
        wanted = {f"days {self.own[name]}" for name in asked}
        wanted |= {f"before {own}" for own in self.own.values()}
        sums = self._together(sorted(wanted))
        n_fits, _, n_days = self.shape
        shape = (len(self.arms), n_fits, self.n, n_days)
        cubes = {name: sums[f"days {self.own[name]}"].reshape(shape) for name in asked}
        before = {name: sums[f"before {own}"] for name, own in self.own.items()}
        lives = tuple(
            UserDays(
                self.arms,
                self.n,
                n_days,
                {},
                {name: cube[:, fit] for name, cube in cubes.items()},
                before,
            )
            for fit in range(n_fits)
        )
        return _means_of(lives, cubes) if n_fits > 1 else lives[0]

    def _together(self, names: Sequence[str]) -> dict[str, Array]:
        """Some of the sums by name: flat `[arms, fits, n, days]`, or `[n]` before the A/B."""
        kept = {name: self.room.get(self.first, name) for name in names}
        found = {name: sums for name, sums in kept.items() if sums is not None}
        n_fits, n_users, n_days = self.shape
        lanes = range(len(self.arms) * n_fits)
        width = self.n * n_days
        of_days = [name for name in names if name not in found and name.startswith("days ")]
        days = {name: GrowingCells(len(lanes) * width) for name in of_days}
        before = {name: GrowingCells(self.n) for name in names if name not in {*found, *days}}
        for part in self.lying:
            for lane in lanes:
                start = (lane * n_users + self.first) * n_days
                part.add_to(days, range(start, start + width), lane * width, part.days)
            part.add_to(before, range(self.first, self.first + self.n), 0, part.before)
        for name, cells in (days | before).items():
            found[name] = cells.values
            self.room.keep(self.first, name, cells.values)
        return found


class UserSums(InCells):
    """The sums of every user and day, added up from the stretches of a log in KEY order.

    Attributes:
        columns: of the log that `add` reads.
    """

    def __init__(
        self,
        log: EventLog,
        metrics: Iterable[str] | None = None,
        *,
        of_part: bool = False,
        streamed: Map | None = None,
    ) -> None:
        """
        Args:
            log: whose metadata, history and catalogue count; its rows are given to `add`.
            metrics: names; None: those of the log's own scenario, or the default nine. Those of the
                supply side are not of users, and left to `stats.supply`.
            of_part: room is made for the users of the rows that come, and not for all; there are
                then `sums` and no `user_days`.
            streamed: sums of STREAMED users' days or more stay in the files of the parts, and this
                computes what is said of those of each part (`stats.streamed`), where clusters are
                not the units. None: they come into memory.

        Raises:
            TableError: fewer than one arm besides the history.
            MetricError: a metric that does not exist.
        """
        meta = self.meta = log.metadata
        asked = metrics if metrics is not None else meta.scenario.get("metrics", DEFAULT_METRICS)
        self.metrics = {m.name: m for m in chosen(asked) if m.supply is None}
        self.arms = meta.compared
        if not self.arms:
            raise TableError(
                f"this log is a pure history (arms {list(meta.arms)}): there is nothing to compare"
            )
        self._place = np.array(
            [self.arms.index(name) if name in self.arms else -1 for name in meta.arms],
            dtype=np.int64,
        )
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
        terms = [t for m in self.metrics.values() for t in m.terms]
        self._derived = DerivedColumns(log, {c for t in terms for c in t.columns})
        names |= self._derived.available
        self._asked = {t.name: t for t in (*terms, IMPRESSIONS) if set(t.columns) <= names}
        # Of terms that are summed alike, impressions come first: they are always asked for.
        alike = (*reversed(self._asked.values()), IMPRESSIONS)
        self._first = {t.of: t for t in alike}
        self._terms = list(self._first.values())
        key = meta.key[:-1]
        columns = {c for t in self._terms for c in t.columns} | {*meta.key, "t"}
        if columns & self._derived.available:
            columns = (columns - self._derived.available) | {"item"}
        self.columns = sorted(columns)
        self._key, self._days = key, max(meta.days, 1)
        self._n_fits = meta.fits.number if meta.fits.crossed else 1
        self._shape = (len(self.arms), self._n_fits, meta.n_users, self._days)
        n_cells, n_before = (0, 0) if of_part else (int(np.prod(self._shape)), meta.n_users)
        self._cubes = {t.name: GrowingCells(n_cells) for t in self._terms}
        self._before = {t.name: GrowingCells(n_before) for t in self._terms}
        self._observed = {name: GrowingCells(1) for name in self.columns}
        self._done: set[int] = set()
        self._n_rows = GrowingCells(1)
        many = int(np.prod(self._shape)) >= STREAMED
        self._map = streamed
        self._lying: list[_Lying] | None = [] if streamed is not None and many else None

    def cells(self) -> dict[str, GrowingCells]:
        """By term, of each user's days in each arm and before the A/B; how many rows there are, and
        how many values of each column were observed.
        """
        return {
            "rows": self._n_rows,
            **{f"observed {name}": n for name, n in self._observed.items()},
            **{f"days {name}": cells for name, cells in self._cubes.items()},
            **{f"before {name}": cells for name, cells in self._before.items()},
        }

    def take(self, sums: Sums) -> None:
        """Add the sums of a part of the log."""
        if self._lying is None or not isinstance(sums, KeptSums):
            super().take(sums)
            return
        counts = {"rows": self._n_rows, **{f"observed {n}": c for n, c in self._observed.items()}}
        name = self._terms[0].name
        found = sums.some([*counts, f"days {name}", f"before {name}"])
        for count, cells in counts.items():
            cells.add(0, found[count].sums.astype(np.int64))
        # A row adds to the same cells of every term.
        places = (
            range(cells.first, cells.first + len(cells.sums))
            for cells in (found[f"days {name}"], found[f"before {name}"])
        )
        self._lying.append(_Lying(sums, *places))

    def _pieces(self, known: Sequence[str]) -> list[_PartOfUsers]:
        """The users of each part, with the sums of the terms of which the log has data."""
        n_users, cut = self.meta.n_users, workspace.PART_USERS
        lying: list[list[_Lying]] = [[] for _ in range(0, n_users, cut)]
        for one in self._lying or ():
            for place in one.places(n_users, self._days, cut):
                lying[place].append(one)
        own = {name: self._first[self._asked[name].of].name for name in known}
        room = Room(secrets.token_hex(8))
        return [
            _PartOfUsers(
                tuple(parts),
                self.arms,
                (self._n_fits, n_users, self._days),
                place * cut,
                min(cut, n_users - place * cut),
                own,
                room,
            )
            for place, parts in enumerate(lying)
        ]

    def _known(self) -> list[str]:
        """The terms that the log has data for."""
        found = []
        for name, term in self._asked.items():
            columns = self._first[term.of].columns
            observed = [self._observed[c] for c in columns if c in self._observed]
            if not self._n_rows.values[0] or all(one.values[0] for one in observed):
                found.append(name)
        return found

    def user_days(self) -> UserDays:
        """`UserDays` over the arms of the log other than `history`, of all that was added. In an
        interleaved log an impression is of the arm that drafted its item, and metrics of the visit
        (sessions, requests, return) have no data: both arms share it.

        Raises:
            TableError: rows that cannot be of the log's design.
        """
        meta, arms, design, number = self.meta, self.arms, self.meta.design, self._n_fits
        if self._lying:
            return self._streamed()
        cubes, before = {}, {}
        for name in self._known():
            first = self._first[self._asked[name].of].name
            cubes[name] = self._cubes[first].values.reshape(self._shape)
            before[name] = self._before[first].values
        try:
            assigned = design.arm_of_user(meta.n_users)
            cluster = design.cluster_of_user(meta.n_users)
            switched = design.arm_of_day(cubes["impressions"].sum(axis=(1, 2)))
        except DesignError as error:
            raise TableError(str(error)) from error
        cubes = {name: cube for name, cube in cubes.items() if name not in self._unknown_visits()}
        lives = tuple(
            UserDays(
                arms,
                meta.n_users,
                self._days,
                self.metrics,
                {name: cube[:, fit] for name, cube in cubes.items()},
                before,
                assigned,
                switched,
                cluster=cluster,
            )
            for fit in range(number)
        )
        return self._with_fits(_means_of(lives, cubes) if number > 1 else lives[0])

    def _unknown_visits(self) -> set[str]:
        """Terms of a visit that both arms share."""
        terms = [term for metric in self.metrics.values() for term in metric.terms]
        return {t.name for t in terms if t.visit} if self.meta.design.shares_slates else set()

    def _with_fits(self, days: UserDays) -> UserDays:
        """With what is known of the fits of arms with several."""
        meta = self.meta
        fits = tuple(int(meta.fits_of_arm()[meta.arms.index(name)]) for name in self.arms)
        if max(fits) == 1:
            return days
        once = frozenset(meta.notes.get(FITTED_ONCE, ()))
        days = replace(days, fits=fits, fitted_once=once)
        if meta.fits.crossed:
            return days
        everybody = np.arange(meta.n_users)
        theirs = meta.fits.fit_of_user(meta.scenario.get("seed", 0), everybody, meta.fits.number)
        return replace(days, fit_of_user=theirs.astype(np.min_scalar_type(meta.fits.number)))

    def _streamed(self) -> UserDays:
        """
        Raises:
            TableError: as `user_days`.
        """
        design, n_users = self.meta.design, self.meta.n_users
        names, nothing = self._known(), np.zeros(0)
        own = set(names) - self._unknown_visits()
        try:
            assigned = design.arm_of_user(n_users)
            cluster = design.cluster_of_user(n_users)
        except DesignError as error:
            raise TableError(str(error)) from error
        days = UserDays(
            self.arms,
            n_users,
            self._days,
            self.metrics,
            {name: nothing for name in names if name in own},
            dict.fromkeys(names, nothing),
            None if assigned is None else in_few_bytes(assigned),
            cluster=None if cluster is None else in_few_bytes(cluster),
        )
        assert self._map is not None
        pieces = self._pieces(names)
        sizes = [piece.n for piece in pieces]
        whole = StreamedDays.of(days, names, pieces, sizes, self._map)
        if design.unit == "day":
            shown = sum(whole.mapped(_shown_by_day, ["impressions"]), np.zeros((), np.int64))
            try:
                whole = replace(whole, switched=design.arm_of_day(shown))
            except DesignError as error:
                raise TableError(str(error)) from error
        if self._n_fits > 1:
            of_lives = (
                [Then(piece, partial(_life_of, fit)) for piece in pieces]
                for fit in range(self._n_fits)
            )
            lives = (StreamedDays.of(whole, names, life, sizes, self._map) for life in of_lives)
            whole = replace(whole, lives=tuple(lives))
        return self._with_fits(whole)

    def add(self, rows: LogRows) -> None:
        """Add the stretch that follows the last one.

        Raises:
            TableError: rows not in KEY order.
        """
        self._n_rows.add(0, np.array([rows.n_rows]))
        for name, observed in self._observed.items():
            observed.add(0, np.array([rows.n_rows - rows.batch.column(name).null_count]))
        self._in_order(rows)
        rows |= {f"opens_{name}": rows.begins[name] for name in ("session", "request")}
        self._derived.add(rows)
        t, user = rows["t"], rows["user"].astype(np.int64)
        arm = self._place[rows["arm"]]
        if FIT in self._key:
            arm = arm * self._n_fits + rows[FIT]
        cell = arm * self.meta.n_users + user
        now = (t >= 0) & (arm >= 0)
        if self.meta.days:
            day = t // DAY
            now &= day < self._days
            cell = cell * self._days + day
        self._accumulate(self._cubes, rows, now, cell)
        old = t < 0
        if old.any():
            self._accumulate(self._before, rows, old, user)

    def _accumulate(
        self, into: Mapping[str, GrowingCells], rows: Rows, keep: Array, key: Array
    ) -> None:
        """Add the kept rows to the flat cells `key`; a stretch touches a narrow range of cells, and
        only that range is added.
        """
        is_whole = bool(keep.all())
        if not is_whole:
            key = key[keep]
        if not len(key):
            return
        low = int(key.min())
        key = key - low
        width = int(key.max()) + 1
        for term in self._terms:
            value = term.of(rows)
            value = value if is_whole else value[keep]
            counted = value.dtype == bool
            into[term.name].add(
                low,
                np.bincount(
                    key[value] if counted else key, None if counted else value, minlength=width
                ),
            )

    def _in_order(self, rows: LogRows) -> None:
        """Within an arm, rows come in KEY order, and each arm comes once."""
        key = [name for name in self._key if name != "arm"]
        falls, outer = np.zeros(rows.n_rows, dtype=bool), rows.begins["arm"]
        for name in key:
            falls |= ~outer & rows.beside_above(name, np.less)
            outer = rows.begins[name]
        first = rows["arm"][np.flatnonzero(rows.begins["arm"])].tolist()
        if falls.any() or len({*first, *self._done}) < len(first) + len(self._done):
            raise TableError(
                f"the log is not in the order ({', '.join(self._key)}): use `log.sorted()`"
            )
        self._done.update(first)


def _means_of(lives: Sequence[UserDays], cubes: Mapping[str, Array]) -> UserDays:
    """What users had on average with each of several fits, of which `cubes` are
    `[arms, fits, users, days]`.
    """
    means = {name: cube.mean(axis=1) for name, cube in cubes.items()}
    return replace(lives[0], terms=means, lives=tuple(lives))


def _life_of(fit: int, days: UserDays) -> UserDays:
    return days.lives[fit]


def _shown_by_day(days: UserDays) -> Array:
    """Impressions, `[arms, days]`."""
    return np.asarray(days.terms["impressions"].sum(axis=1))
