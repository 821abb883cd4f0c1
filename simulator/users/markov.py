"""A first-order Markov world: what a user wants next is where the last click leads. No interests of
users' own live here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from policies.base import DoubleArray, IntArray
from policies.streams import Purpose, uniform
from simulator.config.section import ConfigSection
from simulator.users.choice.parameters import Affinity, Drift, Focus, Interests, Spread
from simulator.users.choice.people import People
from simulator.users.choice.population import Choice
from simulator.users.choice.world import World, normal, unit

_PATH, _BRANCH, _ONWARD = 50, 51, 52
"""Further meanings of `step` under Purpose.WORLD."""


class Succession(ConfigSection):
    """Where a click leads: to a tag drawn among the `branches` successors of the video's tag, the
    same each time, and a deviation.

    A first-order Markov chain over videos whose transitions go through tags (Rendle, Freudenthaler
    & Schmidt-Thieme, "Factorizing personalized Markov chains", WWW 2010, without the personal
    part).
    """

    branches: Annotated[int, Field(ge=1, le=1000)] = 3
    spread: Spread = Field(
        default=0.4, description="length of a video's deviation from the next tag's centre"
    )


class Markov(Choice):
    """The world of `choice` in all but one thing: a user's only interest is where his last click
    leads; before it, a random one.

    Nothing of a user's past before the last click matters, and all users follow the same
    successions: the opposite assumption to several slowly drifting interests.
    """

    kind: Literal["markov"] = "markov"  # type: ignore[assignment]
    interests: Interests = Interests(per_user=1)
    affinity: Affinity = Affinity(author=0.0)
    drift: Drift = Drift(enabled=False)
    focus: Focus = Focus(enabled=False)
    succession: Succession = Succession()

    def draw(self, seed: int) -> World:
        """The world with its successions, drawn anew."""
        world = super().draw(seed)
        return replace(world, onward=self.onward(world, seed))

    def people(self, world: World, seed: int, who: IntArray | None) -> Walkers:
        """Users of a world."""
        return Walkers(self, world, seed, who)

    def onward(self, world: World, seed: int) -> DoubleArray:
        """`[n_items + 1, D]` the direction that a click on each video leads to, of length 1; row 0
        is padding.
        """
        tag, item = np.arange(self.videos.tags), np.arange(1, self.n_items + 1)
        paths = uniform(
            seed, Purpose.WORLD, tag[:, None], _PATH, np.arange(self.succession.branches)
        )
        branch = (uniform(seed, Purpose.WORLD, item, _BRANCH) * self.succession.branches).astype(
            np.int64
        )
        follows = (paths * self.videos.tags).astype(np.int64)[world.tag[1:], branch]
        own = unit(normal(seed, item, _ONWARD, self.interests.dimensions)) * self.succession.spread
        return np.concatenate(
            (np.zeros((1, self.interests.dimensions)), unit(world.centres[follows] + own))
        )


class Walkers(People):
    """Users of `Markov`: as `People`, with the last click in the place of interests."""

    def known(self, row: IntArray, refresh: int) -> tuple[IntArray, IntArray]:
        """The last click, which is all that there is to know; before it, nothing (key 0)."""
        return self.lives.clicked[row], np.zeros(len(row), dtype=np.int64)

    @property
    def n_known(self) -> int:
        """Keys that `known` gives are below it."""
        return self.n_items + 1

    def _known(
        self, key: IntArray, version: IntArray
    ) -> tuple[IntArray, tuple[DoubleArray, DoubleArray]]:
        """One interest: where a click on the video `key` leads."""
        return key, (np.zeros((len(key), 1)), self.truth.onward[key][:, None])
