"""Split: each user is in one arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.base import IntArray
from policies.streams import Purpose, uniform
from simulator.designs.base import Design, DesignError


@dataclass(frozen=True)
class Split(Design):
    """The usual A/B test: users are split by hash, with equal shares."""

    kind: ClassVar = "split"
    titles: ClassVar = {"split": "Split", "cuped": "Split, CUPED"}
    words: ClassVar = "each user is in one arm"
    divides_users: ClassVar = True

    def who(self, lane: str, user: IntArray) -> IntArray:
        mine: IntArray = user[self._draw(user) == self.arms.index(lane)]
        return mine

    def arm_of_user(self, n_users: int) -> IntArray | None:
        return self._draw(np.arange(n_users)) if self.arms else None

    def _draw(self, user: IntArray) -> IntArray:
        """The arm of users `[n]`, keyed by the user alone: it does not depend on who else is
        there.
        """
        drawn = uniform(self._known_seed(), Purpose.ASSIGN, user)
        return (drawn * len(self.arms)).astype(np.int64)

    def _known_seed(self) -> int:
        if self.seed is None:
            raise DesignError(
                "this log was split by users, but its metadata has no scenario.seed to recover the"
                " assignment from"
            )
        return self.seed
