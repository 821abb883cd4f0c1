"""Interaction sequences without impressions -> `Source`: every interaction is a click, the last
ones are held out (leave-one-out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, IntArray
from simulator.datasets.delimited import DataError
from simulator.datasets.sessions import LIMIT
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.users.base import Source


def leave_out(
    offsets: IntArray,
    items: IntArray,
    catalogue: Catalogue,
    notes: dict[str, Any],
    answers: Mapping[str, npt.NDArray[Any]] | None = None,
    held: int = 1,
) -> Source:
    """Hold out the last `held` clicks of every user with at least one more; what is not clicked
    from the first of them on is dropped, what precedes it is history.

    The sequences have an order but no clock that all users share: interaction j of the n before the
    first held-out one gets t = (j - n) s, held-out click number i gets t = i s, from 0. Each is its
    own request of one session.

    Args:
        offsets: `[n_users + 1]`.
        items: `[N]` in time order within a user.
        catalogue: users, items, features.
        notes: for the report; `file` is named in messages.
        answers: columns of the event log by name, each `[N]`: `click` (without it, all clicked),
            and what else the log says of an interaction.
        held: clicks held out of each user.

    Returns:
        `Source` with `held` future rows a user.

    Raises:
        DataError: a user with more than 65,536 interactions; no user with `held + 1` clicks.
    """
    n_users = len(offsets) - 1
    user = np.repeat(np.arange(n_users), np.diff(offsets))
    answers = {"click": np.ones(len(items), dtype=bool), **(answers or {})}
    click = answers["click"] == 1
    if np.diff(offsets).max(initial=0) > LIMIT:
        raise DataError(
            f"user {int(np.diff(offsets).argmax())} (as numbered here) has more than {LIMIT}"
            " interactions"
        )
    place, at = np.arange(len(items)), np.flatnonzero(click)
    count = np.bincount(user[click], minlength=n_users)
    some = np.flatnonzero(count > held)
    if not len(some):
        raise DataError(
            f"{notes.get('file', 'data')}: no user has the {held + 1} clicks that data.hold_out ="
            f" {held} needs: {held} to hold out and one before; of {n_users:,} users, the one with"
            f" the most clicks has {int(count.max(initial=0))}"
        )
    rows = at[(np.cumsum(count)[some] - held)[:, None] + np.arange(held)]  # [users held out, held]
    first = np.full(n_users, len(items))
    first[some] = rows[:, 0]
    before = place < first[user]
    dropped = int(len(items) - before.sum() - rows.size)
    notes = {
        **notes,
        "users held out": len(some),
        "interactions after the held-out click, dropped": dropped,
    }
    metadata = Metadata(("history",), n_users, catalogue.n_items, "unknown", notes=notes)
    request, n_before = place - offsets[:-1][user], np.bincount(user[before], minlength=n_users)
    history = _columns(user, request, (request - n_before[user]) * 1000, items, answers, before)
    number = np.zeros(len(items), dtype=np.int64)
    number[rows] = np.arange(held)
    future = _columns(user, number, number * 1000, items, answers, rows.ravel())
    return Source(
        catalogue,
        EventLog.from_columns(history, metadata),
        EventLog.from_columns(future, metadata),
        notes,
    )


def _columns(
    user: IntArray,
    request: IntArray,
    t: IntArray,
    items: IntArray,
    answers: Mapping[str, npt.NDArray[Any]],
    rows: npt.NDArray[Any],
) -> dict[str, Any]:
    chosen = items[rows]
    zeros = np.zeros(len(chosen), dtype=np.int64)
    return {
        "user": user[rows],
        "session": zeros,
        "request": request[rows],
        "position": zeros,
        "t": t[rows],
        "item": chosen,
        "logged": np.ones(len(chosen), dtype=bool),
        **{name: values[rows] for name, values in answers.items()},
    }
