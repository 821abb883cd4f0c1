"""Logged requests as a policy saw them: history before, slate, clicks. What `Updatable` policies
learn from at the end of a day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from policies.base import BoolArray, Histories, Sequences, Slates
from simulator.serving import kernels

BLOCK = 4096
"""Requests in one call of `Updatable.update`; fixed, because the state after it may depend on it.
"""


def blocks(
    log: Sequences, since: int, history: int, seen: int, context: Sequence[str] = ()
) -> Iterator[tuple[Histories, Slates, BoolArray]]:
    """The requests from `since` (ms) on, in the order of time (equal times: of users), in blocks.

    Args:
        log: all impressions of every user in time order; impressions of a user at one time are one
            request.
        since: ms.
        history: impressions before a request that its history holds.
        seen: impressions before a request that were not to be recalled.
        context: what else the policy asks for (`Policy.asks_for`).

    Yields:
        Histories `[B, history]` (`step` counts the user's requests in `log`), slates `[B, k]` and
        clicks `[B, k]`.
    """
    user = np.repeat(log.user, np.diff(log.offsets))
    opens = np.ones(len(user), dtype=np.bool_)
    opens[1:] = (np.diff(user) != 0) | (np.diff(log.t) != 0)
    start = np.flatnonzero(opens)
    length = np.diff(np.append(start, len(user)))
    born = log.offsets[np.searchsorted(log.user, user[start])]
    number = np.arange(len(start))
    step = number - number[np.searchsorted(start, born)] if len(start) else number
    chosen = np.flatnonzero(log.t[start] >= since)
    chosen = chosen[np.lexsort((user[start[chosen]], log.t[start[chosen]]))]
    for at in range(0, len(chosen), BLOCK):
        rows = chosen[at : at + BLOCK]
        k = int(length[rows].max())
        items, clicked = kernels.windows(
            log.items, log.clicked, start[rows], start[rows] + length[rows], k, left=True
        )
        past, clicks = kernels.windows(
            log.items, log.clicked, born[rows], start[rows], history, left=False
        )
        before, _ = kernels.windows(
            log.items, log.clicked, born[rows], start[rows], seen, left=False
        )
        scores = np.where(items > 0, -np.arange(k), -np.inf).astype(np.float32)
        asked = Histories(user[start[rows]], step[rows], past, clicks, before)
        told = log.context_before(start[rows], start[rows] - born[rows], history, context)
        told |= log.context_at(start[rows], context)
        yield asked.with_context(told), Slates(items, scores), clicked
