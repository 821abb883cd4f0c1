"""`People`: the users of a synthetic world in one arm - their state, and the `Users` protocol
around the compiled kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray, FloatArray, IntArray, Slates
from policies.time import DAY
from simulator.users.base import Feedback
from simulator.users.choice.law import UNBORN, Answers, Law, Lives, Promoted, Truth, law, videos
from simulator.users.choice.parameters import ChoiceParameters
from simulator.users.choice.world import World


class People:
    """Users of `Choice` in one arm: born at their first request, living by their own clocks.

    Promises: as `simulator.users.base.Users`. A user's state depends on that user's own past only,
    and the bits of an answer do not depend on the batch (scalar compiled code). Drift is keyed by
    the user's age in days, whatever was shown: arms share it.
    """

    def __init__(
        self,
        choice: ChoiceParameters,
        world: World,
        seed: int,
        onward: DoubleArray | None = None,
    ) -> None:
        from simulator.users.choice import kernel

        self.n_users, self.n_items = world.n_users, world.n_items
        self.world, self.seed = world, np.uint64(seed)
        self.kinds: tuple[str, ...] = choice.reactions.kinds
        n, m, d = choice.n_users, choice.interests.per_user, choice.interests.dimensions
        self.law: Law = law(choice, succession=onward is not None)
        self.truth = Truth(
            videos(world), world.author, world.centres, world.tag_cdf, world.level, world.rate,
            np.zeros((1, d)) if onward is None else onward,
        )  # fmt: skip
        self.lives: Lives = Lives(
            birth=np.full(n, UNBORN),
            age=np.zeros(n, dtype=np.int64),
            logits=np.zeros((n, m)),
            interests=np.zeros((n, m, d)),
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
        kernel.settle(self.law, self.seed, self.truth, self.lives.logits, self.lives.interests)
        self._born: tuple[DoubleArray, DoubleArray] | None = None

    def fade(self, offsets: DoubleArray) -> None:
        """From now on `offsets` `[n_items + 1]` are added to the logit of a click on each item."""
        self.truth.video[:, self.world.place.shape[1]] = self.world.appeal + offsets

    def first(self, user: IntArray) -> IntArray:
        """When each user first asks, `[B]` ms from midnight of the first day."""
        from simulator.users.choice import kernel

        out = np.empty(len(user), dtype=np.int64)
        kernel.first_arrivals(
            self.law, self.seed, self.world.rate, np.asarray(user, dtype=np.int64), out
        )
        return out

    def slate_size(self, user: IntArray, step: IntArray) -> IntArray | None:
        """None: the scenario's own size."""
        return None

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        """Answer slates `[B, k]`; ends a row at its first padding, and where the user puts the app
        away.
        """
        from simulator.users.choice import kernel

        b, k = slates.items.shape
        out = Answers(
            click=np.empty((b, k), dtype=np.int8),
            watch=np.empty((b, k), dtype=np.float32),
            kinds=np.zeros((len(self.kinds), b, k), dtype=np.int8),
            shown=np.empty(b, dtype=np.int64),
            next=np.empty(b, dtype=np.int64),
            leaves=np.empty(b, dtype=np.bool_),
        )
        who, when, at, items = (
            np.ascontiguousarray(column, dtype=np.int64) for column in (user, step, t, slates.items)
        )
        kernel.respond(self.law, self.seed, self.truth, self.lives, who, when, at, items, out)
        kinds = dict(zip(self.kinds, out.kinds, strict=True))
        return Feedback(out.click, out.watch, out.shown, out.next, out.leaves, kinds)

    def known(self, user: IntArray, refresh: int) -> tuple[IntArray, IntArray]:
        """What an estimate of each user's utilities rests on: rows and versions, `[B]` each; equal
        pairs have equal estimates, rows are below `rows`.

        Here: the user, and the days from the first request to the app's last training.
        """
        lives = self.lives
        age = np.where(lives.session[user] == 0, 0, lives.clock[user] // DAY - lives.birth[user])
        return user, age // refresh * refresh

    @property
    def rows(self) -> int:
        """Number of rows that `known` gives."""
        return self.n_users

    def promoted(self, traffic: DoubleArray) -> Promoted:
        """The videos in the order of their appeal and `traffic` `[n_items + 1]`; those of -inf are
        none.
        """
        n_places = self.world.place.shape[1]
        known = self.truth.video[:, n_places] + traffic
        order = np.argsort(-known, kind="stable")
        order = order[(known[order] > -np.inf) & (order > 0)]
        places = self.truth.video[:, :n_places]
        return Promoted(
            order,
            known[order],
            self.truth.author[order],
            np.ascontiguousarray(places[order].T, dtype=np.float32),
            int(self.truth.author.max()) + 1,
            float((places**2).sum(axis=1).max()),
        )

    def estimate(
        self,
        known: tuple[int, int],
        noise: float,
        traffic: DoubleArray,
        promoted: Promoted,
        size: int,
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:
        """The `size` videos of largest utility as the app estimates it, by the interests as they
        were at its last training, and `traffic` `[n_items + 1]`, with these sums, largest first; 0
        and -inf where there are fewer.
        """
        from simulator.users.choice import kernel

        items, values = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.float32)
        row, age = known
        kernel.best_estimates(
            self.law,
            self.seed,
            self.truth,
            self._interests_at_birth(row),
            row,
            age,
            noise,
            traffic,
            promoted,
            items,
            values,
        )
        return items, values

    def _interests_at_birth(self, row: int) -> tuple[DoubleArray, DoubleArray]:
        """Logits `[M]` and directions `[M, D]` at age 0 of what `known` names."""
        from simulator.users.choice import kernel

        if self._born is None:
            self._born = np.empty_like(self.lives.logits), np.empty_like(self.lives.interests)
            kernel.settle(self.law, self.seed, self.truth, *self._born)
        return self._born[0][row].copy(), self._born[1][row].copy()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Interests, memory, session and clock of every user, each `[n_users, ...]`."""
        return {name: column.copy() for name, column in self.lives._asdict().items()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over what another instance's `state` gave.

        Raises:
            ValueError: a column is missing or has another shape.
        """
        for name, column in self.lives._asdict().items():
            if name not in state or np.shape(state[name]) != column.shape:
                got = np.shape(state[name]) if name in state else "nothing"
                raise ValueError(
                    f"state of choice users: {name!r} must have shape {column.shape}; got {got}"
                )
            column[...] = state[name]
