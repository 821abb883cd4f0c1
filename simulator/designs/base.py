"""What a design of an A/B test is: who gets which arm, and all that follows from it.

A design is a pure function of the names of the arms, the seed and the days. It reads no scenario,
no log and no policy; whoever needs to know what a design does asks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from policies.base import IntArray


class DesignError(ValueError):
    """What is given cannot be of this design; the message says why and what to do."""


@dataclass(frozen=True)
class ArmRows:
    """Which of the simulated rows are those of one arm.

    Attributes:
        lane: the lane in which they are simulated.
        days: the days of the lane that are the arm's; None: all.
        team: which side of a drafted slate is the arm's (0 or 1); None: whole slates are.
    """

    lane: str
    days: frozenset[int] | None = None
    team: int | None = None


@dataclass(frozen=True)
class Design:
    """A design with its arms. The base is what most designs share: each arm lives its own lives, on
    every day.

    Attributes:
        arms: names of the compared arms, in the order of the log (ascending, where a run wrote it).
        seed: of the assignment; None where a log does not say it.
        days: of the A/B.
    """

    arms: tuple[str, ...]
    seed: int | None
    days: int

    kind: ClassVar[str]
    """The name in scenarios, logs and reports."""

    titles: ClassVar[Mapping[str, str]]
    """The ways to analyse the design, by name: what stands at the head of a column. The first is
    the plain one, called by the kind.
    """

    words: ClassVar[str]
    """What the design is, in half a sentence."""

    unit: ClassVar[Literal["user", "day"]] = "user"
    """What is assigned as a whole, and so the unit on which the verdict rests."""

    has_twins: ClassVar[bool] = False
    """Whether each user's whole feed is known in every arm, so that others can be tried on it."""

    divides_users: ClassVar[bool] = False
    """Whether each user is in one arm only, on every day."""

    shares_slates: ClassVar[bool] = False
    """Whether the arms are in one slate: a visit is then of no arm, and lifts are of credits."""

    def disagreements(self) -> Iterator[tuple[str, str]]:
        """Rules of the design that its arms break: the key of the section `design`, and the
        rule.
        """
        yield from ()

    def lanes(self) -> tuple[str, ...]:
        """What is simulated apart from one another, by name: each arm its own lives."""
        return self.arms

    def who(self, lane: str, user: IntArray) -> IntArray:
        """Those of the users `[n]` who live in a lane, in the same order."""
        return user

    def served_by(self, lane: str, day: int) -> tuple[str, ...]:
        """The arms that serve a lane on a day: one, or the two that draft each slate."""
        return (lane,)

    def rows_of(self, arm: str) -> ArmRows:
        """Which of the simulated rows are an arm's."""
        return ArmRows(arm)

    def arm_of_user(self, n_users: int) -> IntArray | None:
        """The arm of each user `[n_users]`, as an index into `arms`; None where every user is in
        every arm.

        Raises:
            DesignError: the users were drawn by a seed that is not known.
        """
        return None

    def misfit(self, n_users: int) -> str | None:
        """Why the design cannot be of so many users, in words; None where it can."""
        return None

    def cluster_of_user(self, n_users: int) -> IntArray | None:
        """The cluster that each user was assigned with, `[n_users]`; None where users were assigned
        one by one, or not at all.

        Raises:
            DesignError: the clusters are of another number of users.
        """
        return None

    def arm_of_day(self, impressions: npt.NDArray[Any]) -> IntArray | None:
        """The arm that everybody got on each day `[days]`, as an index into `arms`, read from the
        impressions of a log `[arms, days]`; None where all arms are served on every day.

        Raises:
            DesignError: the impressions cannot be of this design.
        """
        return None


@dataclass(frozen=True)
class OneLane(Design):
    """A design whose arms share the same lives: one lane, called by the kind of the design."""

    def lanes(self) -> tuple[str, ...]:
        return (self.kind,)

    def rows_of(self, arm: str) -> ArmRows:
        return ArmRows(self.kind)
