"""How far what the arms show is from what was logged: where a response model is asked about items
of which it knows little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from policies.base import IntArray
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY, LogError

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


def support(log: EventLog) -> list[Support]:
    """The support of each arm of a run's log, in one streaming pass; the answers of its arm
    `history` are what the model knows.

    Raises:
        LogError: the log has no history, or no history with complete answers.
    """
    meta = log.metadata
    if HISTORY not in meta.arms:
        raise LogError("support diagnostics need the run's history: no arm 'history' in this log")
    past = meta.arms.index(HISTORY)
    # A row for each arm; then the history's clicks and unclicks without a watch time, which count
    # where it knows no watch time at all (`simulator.log.answered`).
    unwatched = len(meta.arms)
    items = np.zeros((unwatched + 1, meta.n_items + 1), dtype=np.int64)
    users = np.zeros((unwatched + 1, meta.n_users), dtype=np.int64)
    logged = np.zeros(unwatched + 1, dtype=np.int64)
    for batch in log.batches(["arm", "user", "item", "t", "watch", "click", "logged"]):
        is_past, is_live = pc.equal(batch["arm"], past), pc.greater_equal(batch["t"], 0)
        rows = batch.filter(pc.if_else(is_past, pc.is_valid(batch["click"]), is_live))
        arm = rows["arm"].to_numpy()
        no_watch = rows["watch"].is_null().to_numpy(zero_copy_only=False)
        arm = np.where((arm == past) & no_watch, unwatched, arm)
        by_log = arm[rows["logged"].to_numpy(zero_copy_only=False)]
        logged += np.bincount(by_log, minlength=len(logged))
        for counts, name in ((items, "item"), (users, "user")):
            cell = arm.astype(np.int64) * counts.shape[1] + rows[name].to_numpy()
            counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)
    known = past if items[past].any() else unwatched
    if not items[known].any():
        raise LogError("support diagnostics need a history with answers")
    return [
        _support(name, items[i], users[i], int(logged[i]), items[known], users[known])
        for i, name in enumerate(meta.arms)
        if i != past and items[i].any()
    ]


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
