"""The tape: what one (arm, shard, day) has seen so far, as flat columns in the order of serving, and its turn into log rows.

A tape knows nothing of policies or users; it is the only writer between the engine and the event log, and holds no rows in
Python. The log's own rules live in `simulator.eventlog`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.base import IntArray
from simulator.desk import Served
from simulator.eventlog import FEEDBACK, schema
from simulator.users.base import Feedback

Array = npt.NDArray[Any]

REQUESTS: dict[str, Any] = {"user": np.uint32, "session": np.uint32, "request": np.uint16, "t": np.int64, "shown": np.uint16}
"""Columns with one value a request."""

IMPRESSIONS: dict[str, Any] = {
    "item": np.uint32,
    "propensity": np.float32,
    "click": np.int8,
    "watch": np.float32,
    "channel": np.uint8,
    "logged": np.bool_,
    "team": np.uint8,
}
"""Columns with one value an impression; the int8 columns of feedback follow. NaN and -1 are null. All but `team` are columns of the
log; `team` says which of two interleaved arms a row belongs to."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked: the request side of a block, each `[B]`."""

    user: IntArray
    session: IntArray
    request: IntArray
    t: IntArray


class _Column:
    """A growing array: `n` filled values, doubled when full."""

    def __init__(self, dtype: Any) -> None:
        self.values: Array = np.empty(1 << 12, dtype=dtype)
        self.n = 0

    def extend(self, values: Array) -> None:
        end = self.n + len(values)
        if end > len(self.values):
            grown = np.empty(max(end, 2 * len(self.values)), dtype=self.values.dtype)
            grown[: self.n] = self.values[: self.n]
            self.values = grown
        self.values[self.n : end] = values
        self.n = end

    def fill(self, value: Any, n: int) -> None:
        self.extend(np.broadcast_to(np.asarray(value, dtype=self.values.dtype), n))

    @property
    def filled(self) -> Array:
        return self.values[: self.n]


class Tape:
    """The log of an arm as it grows: blocks of served requests are appended whole.

    A user's requests must come in the order of time; users may come in any order.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = tuple(name for name in FEEDBACK if name in kinds)
        types = {**REQUESTS, **IMPRESSIONS, **dict.fromkeys(self.kinds, np.int8)}
        self._columns = {name: _Column(dtype) for name, dtype in types.items()}

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
        slates, shown = served.slates, feedback.shown
        width = slates.items.shape[1]
        put = self._columns
        for name in ("user", "session", "request", "t"):
            put[name].extend(getattr(asked, name))
        put["shown"].extend(shown)
        whole = int(shown.min(initial=width)) == width
        keep = None if whole else np.arange(width) < shown[:, None]
        n = len(shown) * width if keep is None else int(shown.sum())
        given: dict[str, Array | None] = {
            "item": slates.items,
            "propensity": slates.propensities,
            "click": feedback.click,
            "watch": feedback.watch,
            "channel": served.channel,
            "logged": feedback.logged,
            "team": served.team,
            **{name: feedback.kinds.get(name) for name in self.kinds},
        }
        for name, block in given.items():
            if block is None:
                put[name].fill(_ABSENT.get(name, -1), n)
            else:
                put[name].extend(block.ravel() if keep is None else block[keep])

    def columns(self) -> dict[str, Array]:
        """The filled part of every column, without copying."""
        return {name: column.filled for name, column in self._columns.items()}

    def save(self, path: Path) -> None:
        """Write the columns as one uncompressed npz by temporary name and rename."""
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(path.name + ".part")
        with staging.open("wb") as stream:
            np.savez(stream, **self.columns())  # type: ignore[arg-type]
        os.replace(staging, path)


_ABSENT: dict[str, Any] = {"propensity": np.nan, "channel": 0, "logged": False, "team": 0}


def load(path: Path) -> dict[str, Array]:
    """The columns that `Tape.save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def rows(days: Sequence[dict[str, Array]], arm: int, duration: Array, kinds: Sequence[str], team: int | None = None) -> pa.Table:
    """The log rows of one (arm, shard), in KEY order, out of the columns of its days (in the order of time).

    Args:
        days: columns of tapes over the same users.
        arm: index of the arm.
        duration: `[n_items + 1]` seconds of each item.
        kinds: FEEDBACK columns that the log has; those that the tapes lack are null.
        team: only the rows of one of two interleaved arms; they keep their positions in the slate.
    """
    from simulator.kernels import group_by_user, take_runs

    tape = {name: np.concatenate([day[name] for day in days]) if len(days) > 1 else days[0][name] for name in days[0]}
    order = group_by_user(tape["user"])
    shown = tape["shown"][order].astype(np.int64)
    ends = np.cumsum(tape["shown"], dtype=np.int64)
    starts = (ends - tape["shown"])[order]
    n = int(shown.sum())
    target = schema(kinds)
    out: dict[str, pa.Array] = {
        "arm": pa.array(np.full(n, arm, dtype=np.uint8)),
        "position": pa.array(np.arange(n, dtype=np.int64) - np.repeat(np.cumsum(shown) - shown, shown)).cast(pa.uint16()),
    }
    for name in ("user", "session", "request", "t"):
        out[name] = pa.array(np.repeat(tape[name][order], shown))
    for name in target.names:
        if name in out or name == "duration":
            continue
        if name not in tape:
            out[name] = pa.nulls(n, target.field(name).type)
            continue
        out[name] = _arrow(take_runs(tape[name], starts, shown, n), target.field(name))
    out["duration"] = pa.array(np.asarray(duration, dtype=np.float32)[out["item"].to_numpy()])
    table = pa.table([out[name] for name in target.names], schema=target)
    return table if team is None else table.filter(pa.array(take_runs(tape["team"], starts, shown, n) == team))


def _arrow(values: Array, column: pa.Field) -> pa.Array:
    """A numpy column as an Arrow array of the log's type: -1 and NaN become null."""
    if pa.types.is_boolean(column.type):
        bits = pa.py_buffer(np.packbits(values == 1, bitorder="little"))
        known = values >= 0 if values.dtype != np.bool_ else None
        valid = None if known is None or known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [valid, bits])
    if column.nullable and pa.types.is_floating(column.type):
        unknown = np.isnan(values)
        return pa.array(values, column.type, mask=unknown) if unknown.any() else pa.array(values)
    return pa.array(values).cast(column.type)
