"""Impressions -> sessions, requests and positions, where a log has only times. Stated rules, no
data set.
"""

from __future__ import annotations

import numpy as np

from policies.base import IntArray
from simulator.datasets.delimited import DataError

LIMIT = 65536
"""Requests of a session and positions of a request are stored as u16."""


def sessions(
    user: IntArray,
    t: IntArray,
    gap: float,
    session_ids: np.ndarray | None = None,
    request_ids: np.ndarray | None = None,
) -> tuple[IntArray, IntArray, IntArray]:
    """Number the sessions of each user, the requests of each session and the positions of each
    request, all from 0.

    A session ends where the user sees nothing for more than `gap`. Impressions of one user with the
    same time stamp came with one request, in the order of the rows. Where the log has ids of
    sessions or requests, these say it instead: one ends where the id changes.

    Args:
        user: `[N]`, ascending.
        t: `[N]` ms, ascending within a user.
        gap: s.
        session_ids, request_ids: `[N]` as the log has them, or None.

    Returns:
        (session `[N]`, request `[N]`, position `[N]`).

    Raises:
        DataError: a session with more than 65,536 requests, or a request with more positions.
    """
    n = len(user)
    if n == 0:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    new_user = np.concatenate(([True], user[1:] != user[:-1]))
    pause = np.concatenate(([0], np.diff(t)))
    new_session = new_user | (pause > gap * 1000 if session_ids is None else _changes(session_ids))
    new_request = new_session | (pause > 0 if request_ids is None else _changes(request_ids))
    session = _count_within(new_session, new_user)
    request = _count_within(new_request, new_session)
    position = _count_within(np.ones(n, dtype=bool), new_request)
    for name, values in (("requests in a session", request), ("positions in a request", position)):
        if values.max() >= LIMIT:
            worst = int(user[values.argmax()])
            raise DataError(
                f"user {worst} (as numbered here) has more than {LIMIT} {name}: make"
                " data.session_gap smaller"
            )
    return session, request, position


def _changes(ids: np.ndarray) -> np.ndarray:
    """Where an id is another than that of the row before, `[N]`; the first row is never."""
    return np.concatenate(([False], ids[1:] != ids[:-1]))


def _count_within(event: np.ndarray, start: np.ndarray) -> IntArray:
    """How many events since the last start, `[N]`, the event at the start being number 0."""
    running = np.cumsum(event)
    return (running - np.maximum.accumulate(np.where(start, running, 0))).astype(np.int64)
