"""How far what the arms show is from what was logged: where a response model is asked about items
of which it knows little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from policies.base import IntArray
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY, LogError, Metadata
from simulator.log.part_sums import InArrays, add_up
from simulator.log.schema import LogRows

THIN = 20
"""An item with fewer logged answers than this is one of which the model knows little."""


@dataclass(frozen=True)
class Support:
    """One arm against the history that its users' model was fitted on.

    Attributes:
        arm: its name.
        impressions: in the A/B.
        logged: share that the log itself answered.
        overlap: sum over items of the smaller of the arm's and the history's share of impressions:
            1 = the same items in the same proportions, 0 = no item in common (1 less the total
            variation distance).
        effective: 1 / sum p^2 / q, p the arm's and q the history's shares: of 1,000 logged
            impressions, how many the arm's mean click is worth if it were estimated by reweighting
            them (Kong 1992). Items that were never logged are left out of it.
        thin: share of impressions of items with fewer than THIN logged answers.
        never: share of impressions of items without any.
        cold: share of impressions of users without any logged answer.
        items: distinct items shown.
        top: share of impressions of the arm's 1% (of the catalogue) most shown items.
    """

    arm: str
    impressions: int
    logged: float
    overlap: float
    effective: float
    thin: float
    never: float
    cold: float
    items: int
    top: float


def is_measured(meta: Metadata) -> bool:
    """Whether a model that was fitted to the history of a log answers in it."""
    kind = meta.scenario.get("users", {}).get("kind")
    return kind in ("learned", "logged") and HISTORY in meta.arms


class SupportCounts(InArrays):
    """Counts what the arms of a run's log show, and what its arm `history` has answers to, from
    stretches of the log or the sums of its parts.

    Attributes:
        columns: of the log that `add` reads.
    """

    def __init__(self, meta: Metadata) -> None:
        """
        Raises:
            LogError: the log has no history.
        """
        if HISTORY not in meta.arms:
            rule = f"no arm {HISTORY!r} in this log"
            raise LogError(f"support diagnostics need the run's history: {rule}")
        self.columns = (*meta.key, "t", "item", "watch", "click", "logged")
        self._arms, self._past = meta.arms, meta.arms.index(HISTORY)
        # A row for each arm; then the history's clicks and unclicks without a watch time, which
        # count where it knows no watch time at all (`simulator.log.answered`).
        self._unwatched = len(meta.arms)
        self._items = np.zeros((self._unwatched + 1, meta.n_items + 1), dtype=np.int64)
        self._users = np.zeros((self._unwatched + 1, meta.n_users), dtype=np.int64)
        self._logged = np.zeros(self._unwatched + 1, dtype=np.int64)

    def arrays(self) -> dict[str, IntArray]:
        """Impressions by arm and item, by arm and user, and those that the log answered."""
        return {
            "support items": self._items,
            "support users": self._users,
            "support logged": self._logged,
        }

    def add(self, rows: LogRows) -> None:
        """Add a stretch."""
        batch, past = rows.batch, self._past
        is_past, is_live = pc.equal(batch["arm"], past), pc.greater_equal(batch["t"], 0)
        batch = batch.filter(pc.if_else(is_past, pc.is_valid(batch["click"]), is_live))
        arm = batch["arm"].to_numpy()
        no_watch = batch["watch"].is_null().to_numpy(zero_copy_only=False)
        arm = np.where((arm == past) & no_watch, self._unwatched, arm)
        by_log = arm[batch["logged"].to_numpy(zero_copy_only=False)]
        self._logged += np.bincount(by_log, minlength=len(self._logged))
        for counts, name in ((self._items, "item"), (self._users, "user")):
            cell = arm.astype(np.int64) * counts.shape[1] + batch[name].to_numpy()
            counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)

    def support(self) -> list[Support]:
        """The support of each arm in all that was added.

        Raises:
            LogError: the history has no complete answers.
        """
        items, users, past = self._items, self._users, self._past
        known = past if items[past].any() else self._unwatched
        if not items[known].any():
            raise LogError("support diagnostics need a history with answers")
        return [
            _support(name, items[i], users[i], int(self._logged[i]), items[known], users[known])
            for i, name in enumerate(self._arms)
            if i != past and items[i].any()
        ]


def support(log: EventLog) -> list[Support]:
    """The support of each arm of a run's log; the answers of its arm `history` are what the model
    knows.

    Raises:
        LogError: the log has no history, or no history with complete answers.
        FileError: as `part_sums.add_up`.
    """
    counts = SupportCounts(log.metadata)
    add_up(log, [counts])
    return counts.support()


def _support(
    arm: str, shown: IntArray, asked: IntArray, logged: int, answers: IntArray, met: IntArray
) -> Support:
    """Of an arm's impressions by item and by user, beside the history's answers by both."""
    n = int(shown.sum())
    p, q = shown / n, answers / answers.sum()
    both = (p > 0) & (q > 0)
    kept = p[both].sum()
    ratio = float((p[both] ** 2 / q[both]).sum() / kept**2) if kept else float("inf")
    most = max(1, (len(answers) - 1) // 100)
    return Support(
        arm,
        n,
        logged / n,
        float(np.minimum(p, q).sum()),
        1 / ratio,
        float(shown[answers < THIN].sum() / n),
        float(shown[answers == 0].sum() / n),
        float(asked[met == 0].sum() / n),
        int((shown > 0).sum()),
        float(np.sort(p)[-most:].sum()),
    )
