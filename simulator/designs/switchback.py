"""Switchback: all users share one arm at a time, which changes by day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from policies.base import IntArray
from policies.streams import Purpose, uniform
from simulator.designs.base import ArmRows, DesignError, OneLane


@dataclass(frozen=True)
class Switchback(OneLane):
    """One life for each user, served by another arm on other days; a day is the unit."""

    kind: ClassVar = "switchback"
    titles: ClassVar = {"switchback": "Switchback"}
    words: ClassVar = "all users share one arm at a time, which changes by day"
    unit: ClassVar = "day"

    def served_by(self, lane: str, day: int) -> tuple[str, ...]:
        return (self.arms[self.schedule()[day]],)

    def rows_of(self, arm: str) -> ArmRows:
        days = np.flatnonzero(self.schedule() == self.arms.index(arm))
        return ArmRows(self.kind, days=frozenset(days.tolist()))

    def schedule(self) -> IntArray:
        """The arm of each day of a run, `[days]`, as an index into `arms`.

        Days come in blocks as long as there are arms; each block is a random permutation of the
        arms, so that arms have equal numbers of days (to within one) and no fixed place in the week
        (randomised block design; Bojinov, Simchi-Levi & Zhao, Management Science 2023).
        """
        assert self.seed is not None  # a run has one
        n = len(self.arms)
        blocks = np.arange(-(-self.days // n))
        noise = uniform(self.seed, Purpose.ASSIGN, blocks[:, None], 1, np.arange(n))
        return np.argsort(noise, axis=1, kind="stable").ravel()[: self.days].astype(np.int64)

    def arm_of_day(self, impressions: npt.NDArray[Any]) -> IntArray | None:
        """As the base; -1 on a day without impressions. The log decides, and not the schedule: a
        switchback that no run of ours wrote has another one.
        """
        both = np.flatnonzero((impressions > 0).sum(axis=0) > 1)
        if len(both):
            raise DesignError(
                f"day {int(both[0])} of this switchback has impressions of more than one arm; it"
                " must have one"
            )
        return np.where(impressions.any(axis=0), impressions.argmax(axis=0), -1)
