"""The `Users` protocol: who answers a slate. Simulated, learned, logged and held-out users differ
in nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, Catalogue, FloatArray, IntArray, Progress, Slates
from policies.context import log_column
from simulator.log.eventlog import EventLog

CALIBRATION = "calibration.json"
"""A file that `Population.fit` may leave in its folder: what it has measured of itself on answers
that it was not fitted on (`basis`, `tolerance`, `rows` as `simulator.report.worlds.calibration`
gives them). A run takes it into its log's notes."""


class UsersError(ValueError):
    """Users that cannot be fitted to or built from the data of a scenario; the message says what is
    missing.
    """


NEVER = np.iinfo(np.int64).max
"""A time (ms) that does not come: the user does not (re)appear."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """The answers to a block of slates.

    Attributes:
        click: `[B, k]` int8: 1 = click, 0 = unclick, -1 = not observed (the row is logged with
            null) .
        watch: `[B, k]` float32 seconds, NaN = not observed.
        kinds: further feedback by column name of the event log, each `[B, k]` int8 as `click`.
        shown: `[B]` int64: how many positions were shown before the user left; later positions are
            not logged.
        logged: `[B, k]` bool: True where a real log answered, False where a model did; or None: all
            False.
        next: `[B]` int64 ms: when the user asks again; NEVER = not in this run.
        leaves: `[B]` bool: the session ended with this request (the next request opens a new one).
    """

    click: npt.NDArray[np.int8]
    watch: FloatArray
    shown: IntArray
    next: IntArray
    leaves: BoolArray
    kinds: Mapping[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    logged: BoolArray | None = None


class Users(Protocol):
    """A population in one arm. An instance keeps its own state (interests, satiation, patience), so
    every (arm, shard) has its own.

    Promises: users are independent of one another; a user's answers depend on that user's past
    only, never on how users are batched; clicks and watch times are keyed by (user, step, item),
    not by position in a batch nor by arm.
    """

    n_users: int
    """Of the world; an instance may be built for some of them (`Population.build`)."""
    n_items: int
    kinds: tuple[str, ...]
    """Feedback columns of the event log that `respond` fills, besides click and watch."""

    def first(self, user: IntArray) -> IntArray:
        """When each user first asks, `[B]` ms from where the engine starts this instance's clock,
        or NEVER.

        A synthetic world is started once, at t = -history_days; its A/B continues from `restore`.
        `respond` and `Feedback.next` are on the scenario's clock, where t = 0 is the start of the
        A/B.
        """

    def slate_size(self, user: IntArray, step: IntArray) -> IntArray | None:
        """How many positions each request has, `[B]`, or None for the scenario's own constant
        size.
        """

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        """Answer the slates served to `user` at their `step`-th request (from 0) at time `t` ms,
        all `[B]`; each user at most once.
        """

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All that has changed since the instance was built, as named arrays; enough to continue
        another day or another process.

        The first axis of every array is the user: a row for each that the instance was built for,
        in the order of ids.
        """

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what another instance's `state` gave; both then answer the same bytes."""


@runtime_checkable
class DescribesRequests(Protocol):
    """Optional ability of users: what the service knows of a request before it answers, for
    policies that ask for it (`Policy.asks_for`: `features.NAME`).
    """

    features: tuple[str, ...]
    """The names of what is known."""

    def describe(
        self, user: IntArray, step: IntArray, t: IntArray
    ) -> Mapping[str, npt.NDArray[Any]]:
        """What is known of the requests that `respond` will be asked to answer next, `[B]` by name:
        numbers, categories as whole numbers.
        """


def described(
    users: Users, user: IntArray, step: IntArray, t: IntArray, context: Iterable[str]
) -> dict[str, npt.NDArray[Any]]:
    """The context of requests themselves, by its paths: of what is asked for, what is known.

    Args:
        users: who ask.
        user, step, t: `[B]` the requests, as `Users.respond` is given them.
        context: what policies ask for (`Policy.asks_for`).
    """
    found: dict[str, npt.NDArray[Any]] = {}
    if "time" in context:
        found["time"] = t
    wanted = [path for path in context if path.startswith("features.")]
    if wanted and isinstance(users, DescribesRequests):
        known = users.describe(user, step, t)
        found |= {path: known[log_column(path)] for path in wanted if log_column(path) in known}
    return found


@dataclass(frozen=True, slots=True)
class Source:
    """What the data of a scenario gives, before anybody is simulated.

    Attributes:
        catalogue: users, items and their features.
        history: what happened before t = 0 (one arm, `history`), or None where the engine is to
            make it (synthetic worlds).
        future: what the log says happened from t = 0 on (one arm, `history`): the clock and the
            answers of logged and held-out users; or None.
        notes: what the reader wants said in the report (rows read, duplicates dropped, ...).
        truth: what a synthetic world has drawn of its items and no policy sees, by name, so that
            users can be built without drawing it again; may be read by many at once.
    """

    catalogue: Catalogue
    history: EventLog | None = None
    future: EventLog | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    truth: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


class Population(Protocol):
    """The `users:` section of a scenario: a configuration that can build its `Users`."""

    kind: str

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """What must be learned or drawn once, before any worker starts, kept in `folder` (a
        response model); often nothing.
        """

    def build(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray | None = None
    ) -> Users:
        """A fresh instance, the same from the same arguments in every process.

        Args:
            source: catalogue, history and future.
            seed: of the world.
            days: length of the A/B.
            folder: what `fit` has left.
            who: `[n]` ids of those who will ask, ascending: memory is for them alone, and no answer
                of theirs depends on it. None: everybody.
        """


def rows_among(who: IntArray, user: IntArray) -> IntArray:
    """The row of each of `user` `[B]` in arrays that have one for each of `who` `[n]`.

    Args:
        who: distinct ids, ascending.
        user: some of them.

    Raises:
        ValueError: somebody else.
    """
    first = who[0] if len(who) else 0
    is_range = len(who) > 0 and who[-1] - first + 1 == len(who)
    row = user - first if is_range else np.searchsorted(who, user)
    strange = (row < 0) | (row >= len(who))
    if not is_range and len(who):
        strange |= who.take(row, mode="clip") != user
    if strange.any():
        raise ValueError(f"user {int(user[strange][0])} was not built: users are built for others")
    return row
