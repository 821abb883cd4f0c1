"""`People`: the users of a synthetic world in one arm - their state, and the `Users` protocol
around the compiled kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray, FloatArray, IntArray, Slates
from policies.time import DAY
from simulator.users.base import Feedback, rows_among
from simulator.users.choice.law import (
    TOGETHER,
    UNBORN,
    Answers,
    Law,
    LawTables,
    Lives,
    Promoted,
    Truth,
    law,
    tables,
)
from simulator.users.choice.parameters import ChoiceParameters
from simulator.users.choice.world import World, people


class People:
    """Users of `Choice` in one arm: born at their first request, living by their own clocks.

    Promises: as `simulator.users.base.Users`. A user's state depends on that user's own past only,
    and the bits of an answer do not depend on the batch (scalar compiled code). Drift is keyed by
    the user's age in days, whatever was shown: arms share it.

    Attributes:
        who: `[n]` ids of those who live here, ascending; their state has a row each.
    """

    def __init__(
        self,
        choice: ChoiceParameters,
        world: World,
        seed: int,
        who: IntArray | None = None,
    ) -> None:
        self.n_users, self.n_items = choice.n_users, world.n_items
        self.world, self.seed = world, np.uint64(seed)
        self.kinds: tuple[str, ...] = choice.reactions.kinds
        self.who = np.arange(self.n_users) if who is None else who
        self.law: Law = law(choice, succession=world.onward is not None)
        self.tables: LawTables = tables(choice)
        self.truth = Truth(
            world.video, world.author, world.centres, world.tag_cdf,
            *people(choice, seed, self.who),
            np.zeros((1, world.dimensions)) if world.onward is None else world.onward,
        )  # fmt: skip
        self._choice = choice
        self._scratch: dict[int, Any] = {}  # `responses.Scratch` by the size of slates

    @cached_property
    def lives(self) -> Lives:
        """The state of those who live here, at its start where `restore` has not given another."""
        choice, n = self._choice, len(self.who)
        m, d = choice.interests.per_user, choice.interests.dimensions
        logits, interests = self._interests(self.who, np.zeros_like(self.who))
        return Lives(
            birth=np.full(n, UNBORN),
            age=np.zeros(n, dtype=np.int64),
            logits=logits,
            interests=interests,
            weights=np.ones((n, m)),
            session=np.zeros(n, dtype=np.int64),
            open=np.zeros(n, dtype=np.int64),
            focus=np.full(n, -1, dtype=np.int64),
            memory=np.zeros((n, d)),
            last=np.zeros(n, dtype=np.int64),
            clock=np.zeros(n, dtype=np.int64),
            clicked=np.zeros(n, dtype=np.int64),
            satisfaction=np.full(n, choice.returning.reference),
        )

    def fade(self, offsets: DoubleArray) -> None:
        """From now on `offsets` `[n_items + 1]` are added to the logit of a click on each item."""
        video = self.world.video.copy()  # the world's own is read by others, too
        video[:, self.world.dimensions] += offsets
        self.truth = self.truth._replace(video=video)

    def first(self, user: IntArray) -> IntArray:
        """When each user first asks, `[B]` ms from midnight of the first day."""
        from simulator.users.choice import kernel

        out = np.empty(len(user), dtype=np.int64)
        rate = self.truth.rate[rows_among(self.who, user)]
        who = np.asarray(user, dtype=np.int64)
        kernel.first_arrivals(self.tables.hours, self.seed, rate, who, out)
        return out

    def slate_size(self, user: IntArray, step: IntArray) -> IntArray | None:
        """None: the scenario's own size."""
        return None

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        """Answer slates `[B, k]`; ends a row at its first padding, and where the user puts the app
        away.
        """
        from simulator.users.choice import responses

        b, k = slates.items.shape
        out = Answers(
            click=np.empty((b, k), dtype=np.int8),
            watch=np.empty((b, k), dtype=np.float32),
            kinds=np.zeros((len(self.kinds), b, k), dtype=np.int8),
            shown=np.empty(b, dtype=np.int64),
            next=np.empty(b, dtype=np.int64),
            leaves=np.empty(b, dtype=np.bool_),
        )
        rows = rows_among(self.who, user)
        who, lived, when, at, items = (
            np.ascontiguousarray(column, dtype=np.int64)
            for column in (user, rows, step, t, slates.items)
        )
        if k not in self._scratch:
            sizes = self.tables.streams, k, *self.lives.interests.shape[1:]
            self._scratch[k] = responses.Scratch.of(*sizes)
        world = (self.law, self.tables, self.seed, self.truth, self.lives)
        scratch = self._scratch[k]
        drawn = scratch.words.reshape(4, -1)
        responses.respond(*world, who, lived, when, at, items, scratch, drawn, out)
        kinds = dict(zip(self.kinds, out.kinds, strict=True))
        return Feedback(out.click, out.watch, out.shown, out.next, out.leaves, kinds)

    def known(self, row: IntArray, refresh: int) -> tuple[IntArray, IntArray]:
        """What an estimate of the utilities of the users in `row` `[B]` rests on: keys and
        versions, `[B]` each; equal pairs have equal estimates, keys are below `n_known`.

        Here: the row, and the days from the first request to the app's last training.
        """
        lives = self.lives
        age = np.where(lives.session[row] == 0, 0, lives.clock[row] // DAY - lives.birth[row])
        return row, age // refresh * refresh

    @property
    def n_known(self) -> int:
        """Keys that `known` gives are below it."""
        return len(self.who)

    def promoted(self, traffic: DoubleArray) -> Promoted:
        """The videos in the order of their appeal and `traffic` `[n_items + 1]`; those of -inf are
        none.
        """
        n_places = self.world.dimensions
        known = self.truth.video[:, n_places] + traffic
        order = np.argsort(-known, kind="stable")
        order = order[(known[order] > -np.inf) & (order > 0)]
        places = self.truth.video[:, :n_places]
        of_all = np.zeros((-(-len(order) // TOGETHER) * TOGETHER, n_places), dtype=np.float32)
        of_all[: len(order)] = places[order]
        return Promoted(
            order,
            known[order],
            self.truth.author[order],
            np.ascontiguousarray(of_all.reshape(-1, TOGETHER, n_places).transpose(0, 2, 1)),
            int(self.truth.author.max()) + 1,
            float((places**2).sum(axis=1).max()),
        )

    def estimate(
        self,
        key: IntArray,
        version: IntArray,
        noise: float,
        traffic: DoubleArray,
        promoted: Promoted,
        size: int,
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """The `size` videos of largest utility as the app estimates it by each `key` and `version`
        `[B]` of `known`, that is, by the interests as they were at its last training, and `traffic`
        `[n_items + 1]`, with these sums, largest first, `[B, size]` each; 0 and -inf where there
        are fewer.
        """
        from policies.elementary import exps
        from simulator.users.choice import kernel

        users, (logits, interests) = self._known(key, version)
        items = np.empty((len(key), size), dtype=np.int32)
        values = np.empty((len(key), size), dtype=np.float32)
        kernel.best_estimates(
            self.law.match,
            self.law.author,
            self.seed,
            self.truth.video,
            self.truth.author,
            users,
            exps(logits - logits.max(axis=1, keepdims=True)),  # as `kernel.weigh`
            interests,
            interests.astype(np.float32),
            noise,
            traffic,
            promoted,
            items,
            values,
        )
        return items, values

    def _known(
        self, key: IntArray, version: IntArray
    ) -> tuple[IntArray, tuple[DoubleArray, DoubleArray]]:
        """Of keys and versions `[B]` of `known`: the numbers that random numbers are keyed by, and
        the interests, `[B, M]` logits of their weights and `[B, M, D]` directions.
        """
        return self.who[key], self._interests(self.who[key], version)

    def _interests(self, user: IntArray, age: IntArray) -> tuple[DoubleArray, DoubleArray]:
        """Logits `[n, M]` and directions `[n, M, D]` of the interests of users at ages (days)."""
        from simulator.users.choice import kernel

        interests, truth = self._choice.interests, self.truth
        logits = np.empty((len(user), interests.per_user))
        directions = np.empty((*logits.shape, interests.dimensions))
        kernel.settle(
            self.law, self.seed, truth.centres, truth.tag_cdf, user, age, logits, directions
        )
        return logits, directions

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Interests, memory, session and clock of those who live here, each `[n, ...]`."""
        return {name: column.copy() for name, column in self.lives._asdict().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what another instance's `state` gave.

        Raises:
            ValueError: a column is missing or has another shape.
        """
        n, m, d = len(self.who), self._choice.interests.per_user, self._choice.interests.dimensions
        further = {"logits": (m,), "interests": (m, d), "weights": (m,), "memory": (d,)}
        for name in Lives._fields:
            shape, given = (n, *further.get(name, ())), state.get(name)
            if given is None or given.shape != shape:
                got = "nothing" if given is None else given.shape
                raise ValueError(
                    f"state of choice users: {name!r} must have shape {shape}; got {got}"
                )
        self.lives = Lives(**{name: state[name].copy() for name in Lives._fields})
