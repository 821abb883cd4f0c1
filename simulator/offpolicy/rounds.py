"""Rounds: the logged requests as an estimator needs them, streamed from an event log by bounded chunks.

Nothing here knows a target policy or an estimator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import BoolArray, Histories, IntArray
from simulator.eventlog import FEEDBACK, EventLog, LogError, Propensity

Float = npt.NDArray[np.float64]

DAY_MS = 86_400_000
REWARDS = ("click", "watch", *FEEDBACK)
"""Log columns that may be a reward. `watch` is in seconds; the others count 0 or 1."""

_KEY = ("arm", "user", "session", "request", "position")


@dataclass(frozen=True, slots=True)
class Rounds:
    """`R` logged requests whose slates all have `K` impressions (a chunk is split by length, so there is no padding).

    Attributes:
        user: `[R]` the unit of every interval.
        day: `[R]` whole days since t = 0, negative before it.
        t: `[R]` ms.
        row: `[R]` row of the request's first impression in the log (of its arm), which names the request.
        position: `[R, K]` from 0; a log that holds only the third place of a slate says 2.
        item: `[R, K]` what was shown.
        reward: `[R, K]` in the unit of the reward column; NaN where it was not observed.
        propensity: `[R, K]` of the logging policy, NaN where unknown.
        kind: what `propensity` means: `conditional` on the items above, `marginal`, or `unknown`.
        context: `[R]` a small integer known before the request was served; the reward model keeps one table for each.
        histories: what a policy is given for these requests, or None where nobody asked for it.
    """

    user: IntArray
    day: IntArray
    t: IntArray
    row: IntArray
    position: IntArray
    item: IntArray
    reward: Float
    propensity: Float
    kind: Propensity
    context: IntArray
    histories: Histories | None = None

    def __len__(self) -> int:
        return len(self.user)

    @property
    def length(self) -> int:
        """Impressions per request, `K`."""
        return int(self.item.shape[1])

    def rows(self, index: Any) -> Rounds:
        """The rounds at `index` (a slice, an index array or a mask)."""
        picked = {
            name: getattr(self, name)[index]
            for name in ("user", "day", "t", "row", "position", "item", "reward", "propensity", "context")
        }
        return replace(self, **picked, histories=None if self.histories is None else self.histories.rows(index))


@dataclass(frozen=True)
class Stream:
    """Where rounds come from: an event log, one of its arms, one reward. Iterating twice gives the same rounds twice.

    Attributes:
        log: read by batches; memory does not grow with it.
        reward: one of REWARDS.
        arm: name of the arm, or None for the only one.
        since: ms; only requests with t >= since are rounds (earlier ones still fill histories). None: all.
        history: impressions of the past that a policy is given; 0 where no policy is asked.
        chunk: impressions held at once.
        contexts: how many levels of past click share the reward model may tell apart (1: none).
    """

    log: EventLog
    reward: str = "click"
    arm: str | None = None
    since: int | None = None
    history: int = 0
    chunk: int = 1 << 18
    contexts: int = 1

    def __iter__(self) -> Iterator[Rounds]:
        """Yield `Rounds`, a chunk of the log at a time, each chunk split by slate length.

        Raises:
            LogError: a row that breaks a rule (order, duplicate, item, propensity), named by file and row.
        """
        raise NotImplementedError
