"""Impressions and clicks of items by arm: what the supply side (`stats.supply`) is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, IntArray
from policies.streams import Purpose, uniform
from policies.time import DAY
from simulator.log.items import ItemFacts
from simulator.log.metadata import FIT, Metadata
from simulator.log.metrics import FRESH_DAYS
from simulator.log.part_sums import CellSums, InArrays, Sums
from simulator.log.schema import LogRows
from simulator.stats.unit_table import in_few_bytes

Counts = npt.NDArray[np.int64]

LANE = 1
"""Of the random numbers that draw users for equal arms, under Purpose.RESAMPLE."""

EVENTS = ("shown", "clicked")


def unknown_supply(meta: Metadata) -> str | None:
    """Why nothing can be said of the supply side of a log, in words; None where it can."""
    if not meta.compared:
        return "the log is a history: there are no arms"
    if meta.design.shares_slates:
        return "the arms share each slate, and what each would show alone is not known"
    if meta.design.unit != "user":
        return "the arms serve on different days, and what is shown depends on the days before"
    return None


class Exposures(InArrays):
    """The sums of impressions and clicks by arm, fit and item, added up from the batches of a log
    in any order: memory grows with items, not with impressions.

    Attributes:
        counted: `[n_users]` whether a user counts; None: everybody.
        users: `[arms]` users who are counted, by arm (the compared ones, in the order of the log),
            those who never came included. With fits that users are divided over, of all fits.
        shown, clicked: `[arms, fits, n_items + 1]`.
        fresh: by event, the same of items that were fresh at the time; None: no upload times.
        before: `[n_items + 1]` impressions in the history.
        answers: `[1]` clicks and unclicks that were observed, in the history too.
    """

    def __init__(self, meta: Metadata, items: ItemFacts) -> None:
        self.meta, self.items = meta, items
        arms = meta.compared
        self._arm = np.array([arms.index(n) if n in arms else -1 for n in meta.arms])
        self._fits = meta.fits.number if max(meta.fits_of_arm(), default=1) > 1 else 1
        self._fit_of_user: IntArray | None = None
        everybody = np.arange(meta.n_users)
        if self._fits > 1 and not meta.fits.crossed:
            seed = meta.scenario.get("seed", 0)
            self._fit_of_user = meta.fits.fit_of_user(seed, everybody, self._fits)
        self.counted, self.users = self._equal_arms(everybody)
        shape = (len(arms), self._fits, meta.n_items + 1)
        self.shown: Counts = np.zeros(shape, dtype=np.int64)
        self.clicked: Counts = np.zeros(shape, dtype=np.int64)
        self.fresh: dict[str, Counts] | None = None
        if items.uploaded is not None:
            self.fresh = {event: np.zeros(shape, dtype=np.int64) for event in EVENTS}
        self.before: Counts = np.zeros(meta.n_items + 1, dtype=np.int64)
        self.answers: Counts = np.zeros(1, dtype=np.int64)

    @property
    def knows_history(self) -> bool:
        """Whether anything was shown before the A/B."""
        return bool(self.before.any())

    @property
    def knows_clicks(self) -> bool:
        """Whether the log says of anything if it was clicked."""
        return bool(self.answers.any())

    def arrays(self) -> dict[str, Counts]:
        """The sums, by name."""
        fresh = {} if self.fresh is None else self.fresh
        return {
            "shown": self.shown,
            "clicked": self.clicked,
            "shown before": self.before,
            "answers": self.answers,
            **{f"fresh {event}": counts for event, counts in fresh.items()},
        }

    def sums(self) -> Sums:
        """Of all that was added, in few bytes."""
        return {
            name: CellSums(first, in_few_bytes(sums))
            for name, (first, sums) in super().sums().items()
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the log that `add` reads."""
        fit = (FIT,) if self.meta.fits.crossed else ()
        return ("arm", "user", "item", "t", "click", *fit)

    def _equal_arms(self, everybody: IntArray) -> tuple[BoolArray | None, IntArray]:
        """Who counts, so that arms (within each fit) have as many users each: of the larger ones a
        draw by a number that belongs to the user.
        """
        meta, n_arms = self.meta, len(self.meta.compared)
        arm = meta.design.arm_of_user(meta.n_users)
        if arm is None:
            return None, np.full(n_arms, meta.n_users)
        fit = np.zeros(meta.n_users, dtype=np.int64)
        if self._fit_of_user is not None:
            fit = self._fit_of_user
        draw = uniform(meta.scenario.get("seed", 0), Purpose.RESAMPLE, everybody, lane=LANE)
        is_counted = np.zeros(meta.n_users, dtype=bool)
        for one in range(self._fits):
            cells = [np.flatnonzero((arm == a) & (fit == one)) for a in range(n_arms)]
            smallest = min(map(len, cells))
            for cell in cells:
                is_counted[cell[np.argsort(draw[cell], kind="stable")[:smallest]]] = True
        return is_counted, np.bincount(arm[is_counted], minlength=n_arms)

    def add(self, rows: LogRows) -> None:
        """Add rows of the log."""
        t, item, user = rows["t"], rows["item"].astype(np.int64), rows["user"]
        is_old = t < 0
        np.add.at(self.before, item[is_old], 1)
        arm = self._arm[rows["arm"]]
        keep = ~is_old & (arm >= 0)
        if self.meta.days:
            keep &= t < self.meta.days * DAY
        if self.counted is not None:
            keep &= self.counted[user]
        fit: Any = 0
        if self._fit_of_user is not None:
            fit = self._fit_of_user[user]
        elif self.meta.fits.crossed:
            fit = rows[FIT].astype(np.int64)
        cell = (arm * self._fits + fit) * (self.meta.n_items + 1) + item
        click = rows["click"] == 1
        self.answers += np.count_nonzero(rows["click"] >= 0)
        cells = {"shown": cell[keep], "clicked": cell[keep & click]}
        for event, into in (("shown", self.shown), ("clicked", self.clicked)):
            np.add.at(into.reshape(-1), cells[event], 1)
        if self.fresh is None:
            return
        assert self.items.uploaded is not None
        is_fresh = np.abs(t - self.items.uploaded[item] - FRESH_DAYS * DAY / 2) <= (
            FRESH_DAYS * DAY / 2
        )
        for event, of in (("shown", keep), ("clicked", keep & click)):
            np.add.at(self.fresh[event].reshape(-1), cell[of & is_fresh], 1)
