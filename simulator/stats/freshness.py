"""How much of what each user was shown was fresh, by arm and day; and which share that is, with
users as the unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.base import DoubleArray
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metrics import FRESH_DAYS
from simulator.stats.intervals import quantile


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
        """Count a log in one streaming pass.

        Args:
            log: of a run, with days.
            uploaded: `[n_items + 1]` ms at which each item appeared (`ItemFacts.uploaded`).
        """
        meta = log.metadata
        arms = [meta.arms.index(name) for name in meta.compared]
        shape = (len(arms), meta.n_users, meta.days or 1)
        fresh, shown = np.zeros((2, int(np.prod(shape))))
        place = np.full(len(meta.arms), -1)
        place[arms] = np.arange(len(arms))
        for batch in log.batches(("arm", "user", "item", "t")):
            t, arm = batch["t"].to_numpy(), place[batch["arm"].to_numpy()]
            keep = (arm >= 0) & (t >= 0) & (t < shape[2] * DAY)
            user, item = (
                batch[name].to_numpy()[keep].astype(np.int64) for name in ("user", "item")
            )
            cell = (arm[keep] * shape[1] + user) * shape[2] + t[keep] // DAY
            age = t[keep] - uploaded[item]
            is_fresh = (age >= 0) & (age <= FRESH_DAYS * DAY)
            shown += np.bincount(cell, minlength=len(shown))
            fresh += np.bincount(cell[is_fresh], minlength=len(fresh))
        return cls(fresh.reshape(shape), shown.reshape(shape))

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
