"""How far what the arms show is from what was logged: where a response model is asked about items
of which it knows little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import IntArray
from simulator.log.eventlog import EventLog
from simulator.log.metadata import LogError

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
    """The support of each arm of a run's log; the answers of its arm `history` are what the model
    knows.

    Raises:
        LogError: the log has no history, or no history with complete answers.
    """
    arms = log.metadata.arms
    if "history" not in arms:
        raise LogError("support diagnostics need the run's history: no arm 'history' in this log")
    table = log.table.select(["arm", "user", "item", "t", "watch", "click", "logged"])
    known = pc.and_(
        pc.equal(table["arm"], arms.index("history")),
        pc.and_(pc.is_valid(table["watch"]), pc.is_valid(table["click"])),
    )
    past = table.filter(known)
    if not past.num_rows:
        raise LogError("support diagnostics need a history with clicks and watch times")
    answers = np.bincount(past["item"].to_numpy(), minlength=log.metadata.n_items + 1)
    met = np.bincount(past["user"].to_numpy(), minlength=log.metadata.n_users)
    found = []
    for index, arm in enumerate(arms):
        rows = table.filter(pc.and_(pc.equal(table["arm"], index), pc.greater_equal(table["t"], 0)))
        if arm != "history" and rows.num_rows:
            found.append(_support(arm, rows, answers, met))
    return found


def _support(arm: str, rows: pa.Table, answers: IntArray, met: IntArray) -> Support:
    item, user = rows["item"].to_numpy(), rows["user"].to_numpy()
    shown = np.bincount(item, minlength=len(answers))
    p, q = shown / shown.sum(), answers / answers.sum()
    both = (p > 0) & (q > 0)
    kept = p[both].sum()
    ratio = float((p[both] ** 2 / q[both]).sum() / kept**2) if kept else float("inf")
    most = max(1, (len(answers) - 1) // 100)
    return Support(
        arm,
        len(item),
        float(np.mean(rows["logged"].to_numpy())),
        float(np.minimum(p, q).sum()),
        1 / ratio,
        float((answers[item] < THIN).mean()),
        float((answers[item] == 0).mean()),
        float((met[user] == 0).mean()),
        int((shown > 0).sum()),
        float(np.sort(p)[-most:].sum()),
    )
