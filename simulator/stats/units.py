"""Units: the sums of every user and day, read from an event log in one streaming pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from policies.time import DAY
from simulator.designs.base import DesignError
from simulator.log.eventlog import EventLog
from simulator.log.metadata import FIT, FITTED_ONCE
from simulator.log.metrics import DEFAULT_METRICS, METRICS, Metric, Rows, chosen
from simulator.stats.derived import DerivedColumns
from simulator.stats.unit_table import Array, Floats, TableError
from simulator.stats.user_days import UserDays


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
