"""Leave-one-out: interaction sequences without impressions -> `Source` (every interaction is a click; the last one is held out)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, Catalogue, IntArray
from simulator.datasets.sessions import LIMIT
from simulator.datasets.tables import DataError
from simulator.eventlog import EventLog, Metadata
from simulator.users.base import Source


def leave_one_out(
    offsets: IntArray, items: IntArray, catalogue: Catalogue, notes: dict[str, Any], clicked: BoolArray | None = None
) -> Source:
    """Hold out the last click of every user with at least two clicks; what follows it is dropped, what precedes it is history.

    The sequences have an order but no clock that all users share: interaction j of the n before the held-out one gets t = (j - n) s,
    the held-out one t = 0. Each is its own request of one session.

    Args:
        offsets: `[n_users + 1]`.
        items: `[N]` in time order within a user.
        catalogue: users, items, features.
        notes: for the report.
        clicked: `[N]` False where the item was shown and not clicked; None: all clicked.

    Returns:
        `Source` with one future row a user.

    Raises:
        DataError: a user with more than 65,536 interactions.
    """
    n_users = len(offsets) - 1
    user = np.repeat(np.arange(n_users), np.diff(offsets))
    click = np.ones(len(items), dtype=bool) if clicked is None else clicked
    if np.diff(offsets).max(initial=0) > LIMIT:
        raise DataError(f"user {int(np.diff(offsets).argmax())} (as numbered here) has more than {LIMIT} interactions")
    place = np.arange(len(items))
    last = np.full(n_users, -1)
    last[user[click]] = place[click]
    last[np.bincount(user[click], minlength=n_users) < 2] = -1
    before = place < np.where(last < 0, len(items), last)[user]
    held = last[last >= 0]
    dropped = int(len(items) - before.sum() - len(held))
    notes = {**notes, "users held out": len(held), "interactions after the held-out click, dropped": dropped}
    metadata = Metadata(("history",), n_users, catalogue.n_items, "unknown", notes=notes)
    n_before = np.bincount(user[before], minlength=n_users)
    request = place - offsets[:-1][user]
    history = _columns(user, request, (request - n_before[user]) * 1000, items, click, before)
    future = _columns(user, np.zeros(len(items), dtype=np.int64), np.zeros(len(items), dtype=np.int64), items, click, held)
    return Source(catalogue, EventLog.from_columns(history, metadata), EventLog.from_columns(future, metadata), notes)


def _columns(user: IntArray, request: IntArray, t: IntArray, items: IntArray, click: BoolArray, rows: npt.NDArray[Any]) -> dict[str, Any]:
    chosen = items[rows]
    zeros = np.zeros(len(chosen), dtype=np.int64)
    return {
        "user": user[rows],
        "session": zeros,
        "request": request[rows],
        "position": zeros,
        "t": t[rows],
        "item": chosen,
        "click": click[rows],
        "logged": np.ones(len(chosen), dtype=bool),
    }
