"""The clock of real users: who came when, with how many requests of which size, as a log says. No
answers live here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from policies.base import BoolArray, IntArray
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.schema import TAB
from simulator.users.base import NEVER, rows_among


@dataclass(frozen=True)
class Clock:
    """The requests of users in time order; those of `who[i]` are `offsets[i]:offsets[i + 1]`.

    Attributes:
        who: `[n]` ids of the users, ascending.
        offsets: `[n + 1]`.
        t: `[R]` ms.
        size: `[R]` impressions of the request.
        session: `[R]` number of the session within its user.
        tab: `[R]` surface of the service, -1 = the log does not say.
        has_tab: whether the log says the surface of any request, of whatever user.
    """

    who: IntArray
    offsets: IntArray
    t: IntArray
    size: IntArray
    session: IntArray
    tab: IntArray
    has_tab: bool

    @classmethod
    def of(cls, log: EventLog, days: int, who: IntArray) -> Clock:
        """The requests of some users of a log with one arm in its first `days` days from t = 0."""
        table = log.of_users(who).table
        table = table.filter(_is_within(table, days))
        user, session, request = (
            table[name].to_numpy().astype(np.int64) for name in ("user", "session", "request")
        )
        t = table["t"].to_numpy()
        first = np.flatnonzero(
            np.diff(user, prepend=-1) | np.diff(session, prepend=-1) | np.diff(request, prepend=-1)
        )
        size = np.diff(np.append(first, len(user)))
        tab = np.full(len(first), -1, dtype=np.int64)
        if TAB in table.column_names:
            tab = pc.fill_null(pc.cast(table[TAB], "int64"), -1).to_numpy()[first]
        counts = np.bincount(rows_among(who, user[first]), minlength=len(who))
        offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        has_tab = bool((tab >= 0).any()) or _says_tab(log, days)
        return cls(who, offsets, t[first], size.astype(np.int64), session[first], tab, has_tab)


def _says_tab(log: EventLog, days: int) -> bool:
    """Whether a log says the surface of any impression in its first `days` days."""
    if TAB not in log.optional:
        return False
    return any(
        len(batch.filter(pc.and_(_is_within(batch, days), pc.is_valid(batch[TAB]))))
        for batch in log.batches(["t", TAB])
    )


def _is_within(rows: Any, days: int) -> Any:
    """Which rows are of the first `days` days from t = 0."""
    return pc.and_(pc.greater_equal(rows["t"], 0), pc.less(rows["t"], days * DAY))


class ClockedUsers:
    """The half of `Users` that a clock decides: each user comes when the log says, and asks as
    often and for as many items.

    State: how many requests each user has made.

    Attributes:
        clock: of whose requests.
        features: what is known of requests: the surface (TAB), where the log says it of any.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.features: tuple[str, ...] = (TAB,) if clock.has_tab else ()
        self._asked = np.zeros(len(clock.who), dtype=np.int64)

    def first(self, user: IntArray) -> IntArray:
        """When each user first asks, `[B]` ms, or NEVER."""
        row = rows_among(self.clock.who, user)
        return self._time(row, self.clock.offsets[row])

    def slate_size(self, user: IntArray, step: IntArray) -> IntArray:
        """How many impressions the log has in each user's next request, `[B]`."""
        return self.clock.size[self.place(user)]

    def describe(
        self, user: IntArray, step: IntArray, t: IntArray
    ) -> Mapping[str, npt.NDArray[Any]]:
        """The surface of each user's next request, `[B]`; -1 = the log does not say."""
        return {name: self.clock.tab[self.place(user)] for name in self.features}

    def place(self, user: IntArray) -> IntArray:
        """The index into the clock's requests of each user's request now being made, `[B]`.

        Raises:
            ValueError: a user who has no request left.
        """
        row = rows_among(self.clock.who, user)
        place = self.clock.offsets[row] + self._asked[row]
        over = place >= self.clock.offsets[row + 1]
        if over.any():
            raise ValueError(
                f"user {int(user[over][0])} has no request left: the log's sessions have"
                f" {int(self._asked[row[over][0]])}"
            )
        return place

    def advance(self, user: IntArray) -> tuple[IntArray, BoolArray]:
        """End each user's request: (when the next one comes `[B]` ms or NEVER, whether the session
        is over `[B]`).
        """
        here, row = self.place(user), rows_among(self.clock.who, user)
        self._asked[row] += 1
        following = np.minimum(here + 1, len(self.clock.t) - 1)
        ends = here + 1 >= self.clock.offsets[row + 1]
        return self._time(row, here + 1), ends | (
            self.clock.session[following] != self.clock.session[here]
        )

    def _time(self, row: IntArray, place: IntArray) -> IntArray:
        there = place < self.clock.offsets[row + 1]
        t = np.full(len(row), NEVER, dtype=np.int64)
        t[there] = self.clock.t[place[there]]
        return t

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The number of requests made, by user."""
        return {"asked": self._asked.copy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what `state` gave."""
        self._asked = np.array(state["asked"], dtype=np.int64)
