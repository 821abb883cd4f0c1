"""The tape: what one (arm, shard, day) has seen so far, as flat columns in the order of serving,
and its turn into log rows.

A tape knows nothing of policies or users; it is the only writer between the engine and the event
log, and holds no rows in Python. The log's own rules live in `simulator.log.eventlog`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.base import IntArray
from simulator.log.eventlog import ROW_GROUP
from simulator.log.files import save_arrays
from simulator.log.kinds import FEEDBACK
from simulator.log.metadata import FIT
from simulator.log.schema import TAB, schema
from simulator.serving.desk import Served
from simulator.users.base import Feedback

Array = npt.NDArray[Any]

REQUESTS: dict[str, Any] = {
    "user": np.uint32,
    "session": np.uint32,
    "request": np.uint16,
    "t": np.int64,
    "shown": np.uint16,
    TAB: np.int16,
}
"""Columns with one value a request; TAB only where a policy asks for it."""

IMPRESSIONS: dict[str, Any] = {
    "item": np.uint32,
    "propensity": np.float32,
    "click": np.int8,
    "watch": np.float32,
    "channel": np.uint8,
    "logged": np.bool_,
    "team": np.uint8,
}
"""Columns with one value an impression; the int8 columns of feedback follow. NaN and -1 are null.
All but `team` are columns of the log; `team` says which of the two arms that draft a slate an item
is of.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked: the request side of a block, each `[B]`; `tab` is the surface, -1 = unknown, or
    None where no policy asks for it.
    """

    user: IntArray
    session: IntArray
    request: IntArray
    t: IntArray
    tab: IntArray | None = None


def _absent(name: str) -> Any:
    """What stands in a place without a value: null in the columns of answers and of propensities,
    else 0.
    """
    return {"propensity": np.nan, "channel": 0, "logged": False, "team": 0}.get(name, -1)


class _Column:
    """A growing array, doubled when full. As long as nothing is put into it, only its length is
    kept.
    """

    def __init__(self, dtype: Any, absent: Any) -> None:
        self.dtype, self.absent = np.dtype(dtype), absent
        self.values: Array | None = None
        self.n = 0

    def room(self, n: int) -> Array:
        """The next `n` places, to be filled."""
        end = self.n + n
        if self.values is None or end > len(self.values):
            # Twice as long each time: all copies together cost no more than the rows themselves.
            grown = np.empty(max(end, 2 * self.n, 1 << 12), dtype=self.dtype)
            if self.n:
                grown[: self.n] = self.absent if self.values is None else self.values[: self.n]
            self.values = grown
        start, self.n = self.n, end
        return self.values[start:end]

    def skip(self, n: int) -> None:
        """Leave `n` places to `absent`."""
        if self.values is None:
            self.n += n
        else:
            self.room(n)[:] = self.absent


class Tape:
    """The log of an arm as it grows: blocks of served requests are appended whole.

    A user's requests must come in the order of time; users may come in any order.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = tuple(name for name in FEEDBACK if name in kinds)
        types = {**REQUESTS, **IMPRESSIONS, **dict.fromkeys(self.kinds, np.int8)}
        self._columns = {name: _Column(dtype, _absent(name)) for name, dtype in types.items()}

    @property
    def n_requests(self) -> int:
        return self._columns["user"].n

    @property
    def n_rows(self) -> int:
        return self._columns["item"].n

    def append(self, asked: Asked, served: Served, feedback: Feedback) -> None:
        """Add the first `feedback.shown[b]` impressions of each of the `B` requests.

        Args:
            asked: user, session, request and time, `[B]` each.
            served: what was served, `[B, k]`.
            feedback: the answers.
        """
        from simulator.serving.kernels import pack

        slates, shown, put = served.slates, feedback.shown, self._columns
        for name in ("user", "session", "request", "t"):
            put[name].room(len(shown))[:] = getattr(asked, name)
        put["shown"].room(len(shown))[:] = shown
        if asked.tab is None:
            put[TAB].skip(len(shown))
        else:
            put[TAB].room(len(shown))[:] = asked.tab
        n = int(shown.sum())
        blocks: dict[str, Array | None] = {
            "item": slates.items,
            "propensity": slates.propensities,
            "click": feedback.click,
            "watch": feedback.watch,
            "channel": served.channel,
            "logged": feedback.logged,
            "team": served.team,
            **{name: feedback.kinds.get(name) for name in self.kinds},
        }
        for name, block in blocks.items():
            column = put[name]
            if block is None:
                column.skip(n)
            else:
                pack(np.ascontiguousarray(block, dtype=column.dtype), shown, column.room(n))

    def columns(self) -> dict[str, Array]:
        """The filled part of every column, without copying; columns into which nothing was put are
        left out of a tape with rows.
        """
        parts = {}
        for name, column in self._columns.items():
            if column.values is not None:
                parts[name] = column.values[: column.n]
            elif column.n == 0 and name != TAB:
                parts[name] = np.empty(0, dtype=column.dtype)
        return parts

    def save(self, path: Path) -> None:
        """Write the columns, by rename; `files.load_arrays` reads them."""
        save_arrays(path, self.columns(), self.n_rows)


def rows(
    days: Sequence[dict[str, Array]],
    arm: int,
    duration: Array,
    kinds: Sequence[str],
    team: int | None = None,
) -> pa.Table:
    """All of `tables` as one."""
    return pa.concat_tables(tables(days, arm, duration, kinds, team))


def tables(
    days: Sequence[dict[str, Array]],
    arm: int,
    duration: Array,
    kinds: Sequence[str],
    team: int | None = None,
    fit: int | Callable[[IntArray], IntArray] = 0,
    most: int = ROW_GROUP,
    users: tuple[int, int] | None = None,
) -> Iterator[pa.Table]:
    """The log rows of one (arm, shard), in KEY order, out of the columns of its days (in the order
    of time).

    Args:
        days: columns of tapes over the same users.
        arm: index of the arm.
        duration: `[n_items + 1]` seconds of each item.
        kinds: optional columns that the log has; those that the tapes lack are null.
        team: only the rows of one of the two arms that draft each slate; they keep their positions
            in the slate.
        fit: which served all users, or users by their ids; for the column FIT.
        most: rows of a table, rounded up to whole requests: so that the memory of the table before
            it is used again.
        users: the first of those whose rows are wanted, and that after the last; None: all.
    """
    from simulator.serving.kernels import group_by_user

    names = {name for day in days for name in day}
    whole = {name: _joined(days, name) for name in names}
    order = group_by_user(whole["user"])
    if users is not None:
        order = order[slice(*np.searchsorted(whole["user"][order], users))]
    shown = whole["shown"][order].astype(np.int64)
    starts = (np.cumsum(whole["shown"], dtype=np.int64) - whole["shown"])[order]
    ends = np.cumsum(shown)
    n_rows = int(ends[-1]) if len(ends) else 0
    inner = np.searchsorted(ends, np.arange(most, n_rows, most), side="right")
    cuts = [0, *inner.tolist(), len(order)]
    seconds = np.asarray(duration, dtype=np.float32)
    for first, last in pairwise(cuts):
        if first < last or len(order) == 0:
            part = slice(first, last)
            runs = (order[part], starts[part], shown[part])
            yield _table(whole, runs, arm, seconds, schema(kinds), team, fit)


def _table(
    whole: dict[str, Array],
    runs: tuple[Array, Array, Array],
    arm: int,
    seconds: Array,
    target: pa.Schema,
    team: int | None,
    fit: int | Callable[[IntArray], IntArray],
) -> pa.Table:
    """The rows of requests: `runs` names them, their first impressions, and how many each has,
    `[R]` each.
    """
    from simulator.serving.kernels import places, rows_of_runs

    order, starts, shown = runs
    n = int(shown.sum())
    impressions = rows_of_runs(starts, shown, n)
    out: dict[str, pa.Array] = {
        "arm": pa.array(np.full(n, arm, dtype=np.uint8)),
        "position": pa.array(places(shown, n)),
    }
    for name in ("user", "session", "request", "t"):
        out[name] = pa.array(np.repeat(whole[name][order], shown))
    if TAB in target.names and TAB in whole:
        tab = np.repeat(whole[TAB][order], shown)
        out[TAB] = pa.array(tab, mask=tab < 0).cast(pa.uint8())
    if FIT in target.names:
        if isinstance(fit, int):
            theirs = np.full(n, fit)
        else:
            theirs = np.repeat(fit(whole["user"])[order], shown)
        out[FIT] = pa.array(theirs.astype(np.uint8))
    for name in target.names:
        if name in out or name == "duration":
            continue
        column = target.field(name)
        if name in whole:
            out[name] = _arrow(np.take(whole[name], impressions), column)
        elif column.nullable:
            out[name] = pa.nulls(n, column.type)
        else:
            out[name] = pa.array(np.full(n, _absent(name), dtype=IMPRESSIONS[name]))
    out["duration"] = pa.array(np.take(seconds, out["item"].to_numpy()))
    table = pa.table([out[name] for name in target.names], schema=target)
    if team is None:
        return table
    if "team" in whole:
        drafted = np.take(whole["team"], impressions)
    else:
        drafted = np.full(n, _absent("team"), dtype=IMPRESSIONS["team"])
    return table.filter(pa.array(drafted == team))


def _joined(days: Sequence[dict[str, Array]], name: str) -> Array:
    """A column over all days; a day that lacks it is filled with what stands for nothing."""
    dtype = next(day[name].dtype for day in days if name in day)
    parts = []
    for day in days:
        if name in day:
            parts.append(day[name])
            continue
        length = len(day["user" if name in REQUESTS else "item"])
        parts.append(np.full(length, _absent(name), dtype=dtype))
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _arrow(values: Array, column: pa.Field) -> pa.Array:
    """A numpy column as an Arrow array of the log's type: -1 and NaN become null."""
    if pa.types.is_boolean(column.type):
        bits = pa.py_buffer(np.packbits(values == 1, bitorder="little"))
        is_valid = values >= 0  # of True and False, too
        valid = None
        if not is_valid.all():
            valid = pa.py_buffer(np.packbits(is_valid, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [valid, bits])
    if column.nullable and pa.types.is_floating(column.type):
        unknown = np.isnan(values)
        return pa.array(values, column.type, mask=unknown) if unknown.any() else pa.array(values)
    return pa.array(values).cast(column.type)
