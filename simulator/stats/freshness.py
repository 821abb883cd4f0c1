"""How much of what each user was shown was fresh, by arm and day; and which share that is, with
users as the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.base import DoubleArray
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.log.metrics import FRESH_DAYS
from simulator.log.part_sums import add_up
from simulator.log.schema import LogRows
from simulator.stats.intervals import quantile
from simulator.stats.units import GrowingCells, InCells


class FreshSums(InCells):
    """Counts the impressions of every user and day, and those of fresh items, from the stretches of
    a log or the sums of its parts.

    Attributes:
        columns: of the log that `add` reads.
    """

    def __init__(self, meta: Metadata, uploaded: DoubleArray, *, of_part: bool = False) -> None:
        """
        Args:
            meta: of the log.
            uploaded: `[n_items + 1]` ms at which each item appeared.
            of_part: as `UserSums`.
        """
        arms = [meta.arms.index(name) for name in meta.compared]
        self.columns = (*meta.key, "t", "item")
        self._uploaded, self._shape = uploaded, (len(arms), meta.n_users, meta.days or 1)
        self._place = np.full(len(meta.arms), -1)
        self._place[arms] = np.arange(len(arms))
        n_cells = 0 if of_part else int(np.prod(self._shape))
        self._fresh, self._shown = GrowingCells(n_cells), GrowingCells(n_cells)

    def cells(self) -> dict[str, GrowingCells]:
        """Both counts, by name."""
        return {"days fresh or not": self._shown, "days fresh": self._fresh}

    def add(self, rows: LogRows) -> None:
        """Add the stretch that follows the last one."""
        _, n_users, days = self._shape
        t, arm = rows["t"], self._place[rows["arm"]]
        keep = (arm >= 0) & (t >= 0) & (t < days * DAY)
        if not keep.any():
            return
        cell = (arm[keep] * n_users + rows["user"][keep]) * days + t[keep] // DAY
        first = int(cell.min())
        age = t[keep] - self._uploaded[rows["item"][keep]]
        is_fresh = (age >= 0) & (age <= FRESH_DAYS * DAY)
        self._shown.add(first, np.bincount(cell - first))
        self._fresh.add(first, np.bincount(cell[is_fresh] - first))

    def freshness(self) -> Freshness:
        """Of all that was added."""
        fresh, shown = (
            cells.values.reshape(self._shape).astype(np.float64)
            for cells in (self._fresh, self._shown)
        )
        return Freshness(fresh, shown)


@dataclass(frozen=True)
class Freshness:
    """The impressions of every user, `[arms, n_users, days]` each.

    Attributes:
        fresh: of items that had been uploaded at most FRESH_DAYS before.
        shown: all.
    """

    fresh: DoubleArray
    shown: DoubleArray

    @classmethod
    def of(cls, log: EventLog, uploaded: DoubleArray) -> Freshness:
        """Those of a log.

        Args:
            log: of a run, with days.
            uploaded: `[n_items + 1]` ms at which each item appeared (`ItemFacts.uploaded`).

        Raises:
            FileError: as `part_sums.add_up`.
        """
        sums = FreshSums(log.metadata, uploaded)
        add_up(log, [sums])
        return sums.freshness()

    def share(self, arm: int, first: int, until: int) -> tuple[float, DoubleArray]:
        """The fresh share of what an arm shows on some days, and what each user adds to its error
        `[n_users]`: the linearisation of a ratio of sums, 0 for who was not there.
        """
        fresh = self.fresh[arm, :, first:until].sum(axis=1)
        shown = self.shown[arm, :, first:until].sum(axis=1)
        if not shown.sum():
            return float("nan"), np.full(len(shown), np.nan)
        share = float(fresh.sum() / shown.sum())
        return share, (fresh - share * shown) / shown.sum()


@dataclass(frozen=True)
class ShareEstimate:
    """A figure and the ends of its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, influences: DoubleArray, level: float) -> ShareEstimate:
        """With the standard error of the units' `influences` `[n]`, whose sum is 0: Student's
        interval.
        """
        n = len(influences)
        if n < 2:
            return cls(value, float("nan"), float("nan"))
        half = float(quantile(n - 1, level)) * float(np.sqrt((influences**2).sum() * n / (n - 1)))
        return cls(value, value - half, value + half)
