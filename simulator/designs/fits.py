"""Fits: how often each method is trained, on whose history, and who lives with which of its models.

A lift of one model of each method holds the luck of its training. With several fits a log can tell
what is the models' from what is the methods' (`stats.replication`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from policies.base import BoolArray, IntArray, Sequences
from policies.streams import Purpose, philox, uniform
from policies.stretches import collected
from simulator.config.section import ConfigSection

MOST = 255
"""A fit is a u8 of the log."""

Seed = Annotated[int, Field(ge=0, lt=2**64)]


class FitsSpec(ConfigSection):
    """How often every policy that draws numbers in training is trained, each time with a seed of
    its own. A number alone is `number`.
    """

    number: Annotated[int, Field(ge=1, le=MOST)] = Field(
        default=1, description="fits of each arm; its own `fits` comes first"
    )
    design: Literal["divided", "crossed"] = Field(
        default="divided",
        description=(
            "`divided`: each user lives with one fit, the same in every arm, so that more fits cost"
            " no more simulation; `crossed`: each user lives with every fit (lives in which nothing"
            " depends on the fit are simulated once)"
        ),
    )
    seed: Seed | None = Field(
        default=None,
        description="of the training alone; the scenario's if left out. Fit 0 is trained with it",
    )
    users: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description=(
            "policies and the ranking stage learn from so many users, drawn at random, the same for"
            " all of them; from all users if left out"
        ),
    )

    @property
    def crossed(self) -> bool:
        """Whether a user has several lives in each arm, one with each fit."""
        return self.number > 1 and self.design == "crossed"

    def disagreement(self, own: int | None) -> str | None:
        """What is wrong with an arm's own number of fits, in words; None where nothing is."""
        if own not in (None, 1, self.number):
            return f"must be 1 or the scenario's fits.number ({self.number}); got {own}"
        if own == 1 and self.crossed:
            rule = "where users live with every fit, each arm has as many fits as the others"
            return f"{rule} ({self.number}); got 1"
        return None

    def training_seed(self, seed: int, fit: int) -> int:
        """The seed of one fit; `seed` is the scenario's."""
        first = seed if self.seed is None else self.seed
        if fit == 0:
            return first
        words = philox(first, fit, 0, Purpose.FIT, 0)
        return int(words[0]) | int(words[1]) << 32

    def fit_of_user(self, seed: int, user: IntArray, number: int | IntArray) -> IntArray:
        """With which of `number` fits each of the users `[n]` lives, where they are divided:
        keyed by the user alone, with equal shares.
        """
        return (uniform(seed, Purpose.FIT, user) * number).astype(np.int64)

    def misfit(self, n_users: int) -> str | None:
        """What is wrong with `users` where there are `n_users`, in words; None where nothing is."""
        if self.users is None or self.users <= n_users:
            return None
        return f"must be at most the number of users ({n_users:,}); got {self.users:,}"

    def learned_from(self, seed: int, n_users: int) -> BoolArray | None:
        """Whether policies learn from each of the users 0..n_users-1, `[n_users]`: from those whose
        random numbers, keyed by the user alone, are smallest. None: from all.
        """
        if self.users is None or self.users >= n_users:
            return None
        draw = uniform(seed, Purpose.LEARN, np.arange(n_users))
        chosen = np.argpartition(draw, self.users - 1)[: self.users]
        is_learned = np.zeros(n_users, dtype=np.bool_)
        is_learned[chosen] = True
        return is_learned

    def lesson(self, seed: int, log: Sequences, n_users: int) -> Sequences:
        """What policies learn from a log: the impressions of `learned_from`. The others keep their
        rows, without impressions.
        """
        is_learned = self.learned_from(seed, n_users)
        if is_learned is None:
            return log
        each = (np.repeat(is_learned[p.user], np.diff(p.offsets)) for p in log.stretches())
        return log.where(collected(each))


def as_section(value: Any) -> Any:
    """`fits: 4` is `fits: {number: 4}`.

    Raises:
        ValueError: neither a whole number nor a section.
    """
    if isinstance(value, dict | FitsSpec):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return {"number": value}
    raise ValueError(
        "must be how often each policy is trained, a whole number, or a mapping such as {number: 4,"
        " design: crossed}"
    )
