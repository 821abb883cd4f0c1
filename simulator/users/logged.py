"""Logged users: what the log shows a user answers as logged, everything else by a response model
fitted on the history only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from policies.base import IntArray, Progress, Slates
from policies.time import DAY
from simulator.config.section import ConfigSection
from simulator.log.eventlog import EventLog
from simulator.users.base import Feedback, Source
from simulator.users.learned import Learned, LearnedUsers


class Logged(ConfigSection):
    """The log's own sessions as the clock, its answers where it has them, a response model where it
    has none.

    `Feedback.logged` says of every impression which it was.
    """

    kind: Literal["logged"] = "logged"
    response: Learned = Learned()
    match: Literal["user", "session", "request"] = Field(
        default="user",
        description=(
            "the log answers for an item that it shows this user: at any time of the A/B, in this"
            " session, in this request"
        ),
    )

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """Fit the response model on the history."""
        self.response.fit(source, seed, folder, progress)

    def build(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray | None = None
    ) -> LoggedUsers:
        """The users; `fit` must have been called with the same `folder`.

        Raises:
            UsersError: the data has no future, or it is shorter than `days`.
        """
        model = self.response.build(source, seed, days, folder, who)
        assert source.future is not None
        log = source.future.of_users(model.clock.who)
        return LoggedUsers(model, Occurrences(log, days, model.kinds), self.match)


class Occurrences:
    """What a log answered: for each (user, item), its impressions in time order."""

    def __init__(self, log: EventLog, days: int, kinds: tuple[str, ...]) -> None:
        table = log.table
        observed = pc.and_(
            pc.is_valid(table["click"]),
            pc.and_(pc.greater_equal(table["t"], 0), pc.less(table["t"], days * DAY)),
        )
        table = table.filter(observed)
        self._span = days * DAY + 1
        self._n_items = log.metadata.n_items + 1
        pair = table["user"].to_numpy().astype(np.int64) * self._n_items + table["item"].to_numpy()
        t = table["t"].to_numpy()
        order = np.lexsort((t, pair))
        self._pairs, rank = np.unique(pair[order], return_inverse=True)
        self._when = rank * self._span + t[order]
        self.t = t[order]
        self.session = table["session"].to_numpy().astype(np.int64)[order]
        self.click = table["click"].cast("int8").to_numpy()[order]
        self.watch = table["watch"].to_numpy().astype(np.float32)[order]
        self.kinds = {
            name: pc.fill_null(table[name].cast("int8"), -1).to_numpy()[order] for name in kinds
        }

    def nearest(self, user: IntArray, items: IntArray, t: IntArray) -> IntArray:
        """The impression of each item to each user that is nearest in time (the earlier of two
        equally near), `[B, k]`; -1 = none.
        """
        found = np.full(items.shape, -1, dtype=np.int64)
        if not len(self._pairs):
            return found
        pair = user[:, None] * self._n_items + items
        rank = np.minimum(np.searchsorted(self._pairs, pair), len(self._pairs) - 1)
        known = self._pairs[rank] == pair
        wanted = rank[known] * self._span + np.broadcast_to(t[:, None], items.shape)[known]
        after = np.searchsorted(self._when, wanted)
        best = np.full(len(wanted), -1, dtype=np.int64)
        gap = np.full(len(wanted), self._span, dtype=np.int64)
        for place in (after - 1, after):
            inside = (place >= 0) & (place < len(self._when))
            candidate = np.where(inside, place, 0)
            inside &= self._when[candidate] // self._span == rank[known]
            distance = np.abs(self._when[candidate] - wanted)
            nearer = inside & (distance < gap)
            best[nearer], gap[nearer] = candidate[nearer], distance[nearer]
        found[known] = best
        return found


class LoggedUsers(LearnedUsers):
    """Learned users, overruled by the log wherever it has the answer."""

    def __init__(self, model: LearnedUsers, occurrences: Occurrences, match: str) -> None:
        super().__init__(model.clock, model.response, model.seed, model.n_users)
        self.occurrences = occurrences
        self.match = match

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        """The log's answer where it has one (`Feedback.logged`), else the model's."""
        place = self.place(user)
        found = self.occurrences.nearest(user, slates.items, self.clock.t[place])
        log = self.occurrences
        if self.match == "request":
            found[(found >= 0) & (log.t[found] != self.clock.t[place][:, None])] = -1
        elif self.match == "session":
            found[(found >= 0) & (log.session[found] != self.clock.session[place][:, None])] = -1
        modelled = super().respond(user, step, t, slates)
        known = found >= 0
        return Feedback(
            click=np.where(known, log.click[found], modelled.click),
            watch=np.where(known, log.watch[found], modelled.watch),
            shown=modelled.shown,
            next=modelled.next,
            leaves=modelled.leaves,
            kinds={
                name: np.where(known, log.kinds[name][found], answers)
                for name, answers in modelled.kinds.items()
            },
            logged=known,
        )
