"""Held-out users: each asks once and clicks what the log held out; so HR@k and NDCG@k are metrics
of the event log.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import Catalogue, IntArray, Progress, Slates
from simulator.config.section import ConfigSection
from simulator.log.eventlog import EventLog
from simulator.users.base import NEVER, Feedback, Source, UsersError, rows_among


class HeldOut(ConfigSection):
    """Leave-one-out evaluation as a population: a user's first clicks from t = 0 on are the items
    to be found.

    Every user who has as many asks once, at t = 0; the slate is `serving.slate` long and is shown
    whole. Where a held-out item stands in it, it is clicked; every other item is an unclick.
    """

    kind: Literal["held_out"] = "held_out"
    clicks: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="a user's next clicks that one slate is to find"
    )

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """Nothing is to be learned; the data must have what is asked for.

        Raises:
            UsersError: the data has no future to hold out, or no user has as many clicks in it.
        """
        count = np.zeros(source.catalogue.n_users, dtype=np.int64)
        for batch in _future(source).batches(["user", "click"]):
            np.add.at(count, batch.filter(batch["click"])["user"].to_numpy(), 1)
        most = int(count.max(initial=0))
        if most < self.clicks:
            raise UsersError(
                f"no user has the {self.clicks} clicks from t = 0 on that users.clicks ="
                f" {self.clicks} asks for; the most that one has is {most}: make users.clicks"
                " smaller, or data.hold_out (data.test_days) greater"
            )

    def build(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray | None = None
    ) -> HeldOutUsers:
        """The users.

        Raises:
            UsersError: the data has no future to hold out.
        """
        if who is None:
            who = np.arange(source.catalogue.n_users)
        table = _future(source).of_users(who).table
        user, item, t = (table[name].to_numpy().astype(np.int64) for name in ("user", "item", "t"))
        clicked = table["click"].fill_null(False).to_numpy()
        order = np.lexsort((t[clicked], user[clicked]))
        user, item = user[clicked][order], item[clicked][order]
        first = np.flatnonzero(np.diff(user, prepend=-1))
        count = np.diff(first, append=len(user))
        first = first[count >= self.clicks]
        held = np.zeros((len(who), self.clicks), dtype=np.int64)
        held[rows_among(who, user[first])] = item[first[:, None] + np.arange(self.clicks)]
        return HeldOutUsers(who, held, source.catalogue)


def _future(source: Source) -> EventLog:
    if source.future is None:
        raise UsersError(
            "users.kind held_out needs data with held-out items: data.source must be table,"
            " s3rec, inter, kuairand or log"
        )
    return source.future


class HeldOutUsers:
    """Users who know what they will click.

    Attributes:
        who: `[n]` their ids, ascending.
        held: `[n, clicks]` the items that are clicked; 0: the user does not come.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, who: IntArray, held: IntArray, catalogue: Catalogue) -> None:
        self.who, self.held = who, held
        self.n_users, self.n_items = catalogue.n_users, catalogue.n_items

    def first(self, user: IntArray) -> IntArray:
        """0 for users with a held-out item, else NEVER, `[B]`."""
        return np.where(self.held[rows_among(self.who, user), 0] > 0, 0, NEVER)

    def slate_size(self, user: IntArray, step: IntArray) -> IntArray | None:
        """The scenario's own size."""
        return None

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        """Click the held-out items; watch time is not observed; nobody comes back."""
        held = self.held[rows_among(self.who, user)]
        hit = (slates.items[:, :, None] == held[:, None]).any(axis=2)
        batch, k = slates.items.shape
        return Feedback(
            click=hit.astype(np.int8),
            watch=np.full((batch, k), np.nan, dtype=np.float32),
            shown=np.full(batch, k, dtype=np.int64),
            next=np.full(batch, NEVER, dtype=np.int64),
            leaves=np.ones(batch, dtype=bool),
            logged=hit,
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Nothing changes."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Nothing to take over."""
