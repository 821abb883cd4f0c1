"""Spot checks of the promises of policies while a run goes on, and what else is noticed of them:
empty places, warnings.

A form that is broken ends the run or the arm at once (`simulator.serving.desk`); what is noticed
here is said at the end and in the report.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from policies.base import BoolArray, Histories, Slates
from policies.calls import CallError, Calls, Warned
from simulator.log.notices import Notice, of_warnings

SPOT = 32
"""Requests of the first block that are asked for again in another batch."""


class Witness:
    """Looks at what the policies of one desk recall."""

    def __init__(self) -> None:
        self._spotted: set[tuple[str, str]] = set()
        self._cases: dict[tuple[str, str, str], tuple[str, int]] = {}
        self._warned: dict[tuple[str, str], Warned] = {}

    def warned(self, arm: str, policy: str) -> Warned:
        """Where warnings of a policy are counted."""
        return self._warned.setdefault((arm, policy), Warned())

    def look(
        self,
        arm: str,
        calls: Calls,
        histories: Histories,
        slates: Slates,
        seed: int,
        n_items: int,
        available: BoolArray | None = None,
    ) -> None:
        """Look at one block: for empty places, and once for each policy whether requests get the
        same slates in another batch.
        """
        from policies.form import short

        row = short(slates, histories, n_items, available)
        if row is not None:
            cold = not histories.items[row].any()
            what = (
                "left places empty although unseen items were left; first for user"
                f" {histories.user[row]} at step {histories.step[row]}"
            )
            self._count(arm, calls.name, "cold_users" if cold else "k_too_large", what)
        if (arm, calls.name) not in self._spotted and len(histories) > 1:
            self._spotted.add((arm, calls.name))
            self._spot(arm, calls, histories, slates, seed)

    def _spot(
        self, arm: str, calls: Calls, histories: Histories, slates: Slates, seed: int
    ) -> None:
        backwards = np.arange(len(histories))[::-1][:SPOT]
        for rows, how in ((np.zeros(1, dtype=np.int64), "alone"), (backwards, "in another batch")):
            different = _different(calls, histories.rows(rows), slates.rows(rows), seed)
            if different:
                user, step = int(histories.user[rows[0]]), int(histories.step[rows[0]])
                where = f"user {user} at step {step}, in the first block of {len(histories)}"
                what = f"asked for again {how}, a request got another answer: {different} ({where})"
                self._count(arm, calls.name, "batch_invariance", what)
                return

    def _count(self, arm: str, policy: str, promise: str, what: str) -> None:
        first, n = self._cases.get((arm, policy, promise), (what, 0))
        self._cases[arm, policy, promise] = first, n + 1

    def notices(self) -> Counter[Notice]:
        """What was noticed, and in how many blocks or calls."""
        found = Counter({Notice(*case, what): n for case, (what, n) in self._cases.items()})
        for (arm, policy), warned in self._warned.items():
            found.update(of_warnings(arm, policy, warned))
        return found


def _different(calls: Calls, histories: Histories, before: Slates, seed: int) -> str:
    """What is different when the slates `before` are asked for again; "" if nothing."""
    try:
        again = calls.recall(histories, before.items.shape[1], seed)
    except CallError as error:
        return error.what
    names = [n for n in Slates.__slots__ if _bytes(getattr(before, n)) != _bytes(getattr(again, n))]
    return f"other {' and '.join(names)}" if names else ""


def _bytes(array: Any) -> bytes | None:
    return None if array is None else np.ascontiguousarray(array).tobytes()
