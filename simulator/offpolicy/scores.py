"""How a policy's scores order what users were really shown: AUC, grouped AUC and NDCG within
sessions. No value is estimated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.base import BoolArray, DoubleArray, Histories, IntArray, Policy, Scorer
from policies.calls import Calls
from policies.elementary import logs2
from policies.streams import Purpose, uniform
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.sums import UnitSums
from simulator.offpolicy.uncertainty import EstimateInterval, Ratios, delta

BLOCK = 1024
"""Sessions that are scored at once."""


@dataclass(frozen=True, slots=True)
class Ordering:
    """How well one policy orders the clicks above the unclicks of the same session.

    Attributes:
        policy: its name.
        auc: share of (click, unclick) pairs of one session that the scores order right, ties
            counting half, over all pairs.
        gauc: the same by user, averaged with the user's impressions as weight (grouped AUC: Zhu et
            al., KDD 2017, eq. 12).
        ndcg: mean over sessions of the NDCG of the session's impressions in the order of the
            scores, a click counting 1.
        sessions: sessions with a click and an unclick; the others say nothing.
        refused: why the policy has none of this, or None.
    """

    policy: str
    auc: tuple[float, EstimateInterval] | None = None
    gauc: tuple[float, EstimateInterval] | None = None
    ndcg: tuple[float, EstimateInterval] | None = None
    sessions: int = 0
    refused: str | None = None

    @property
    def figures(self) -> dict[str, tuple[float, EstimateInterval] | None]:
        """The three figures by name."""
        return {"auc": self.auc, "gauc": self.gauc, "ndcg": self.ndcg}


def orderings(
    sessions: Iterable[Rounds],
    policies: Sequence[tuple[str, Sequence[Policy]]],
    n_users: int,
) -> list[Ordering]:
    """Score every impression of every session from the history before the session, by every policy.

    Args:
        sessions: rounds by session (`Stream(by="session", history=...)`), reward `click`.
        policies: (name, its fits); a session is scored by the fit that it belongs to.
        n_users: users are 0..n_users-1.
    """
    scorers = [(name, fits) for name, fits in policies if isinstance(fits[0], Scorer)]
    sums = {name: UnitSums(n_users, n_users) for name, _ in scorers}
    for chunk in sessions:
        clicked = chunk.reward == 1
        mixed = (
            clicked.any(axis=1)
            & (chunk.reward == 0).any(axis=1)
            & np.isfinite(chunk.reward).all(axis=1)
        )
        told = chunk.rows(mixed)
        for at in range(0, len(told), BLOCK):
            part = told.rows(slice(at, at + BLOCK))
            for name, fits in scorers:
                scores = _scores(name, fits, part)
                sums[name].add(part.user, _counts(scores, part.reward == 1, part.item))
    named = dict(scorers)
    return [
        (
            _ordering(name, sums[name])
            if name in named
            else Ordering(name, refused="the policy cannot score given items")
        )
        for name, _ in policies
    ]


def _scores(name: str, fits: Sequence[Policy], sessions: Rounds) -> DoubleArray:
    """The score of every impression `[R, K]` by the fit that its session belongs to."""
    assert sessions.histories is not None
    scores = np.empty(sessions.item.shape)
    for fit, index in sessions.of_fits(len(fits)):
        asked = _unseen(sessions.histories.rows(index))
        scores[index] = Calls(fits[fit], name).score(asked, sessions.item[index])
    return scores


def _unseen(histories: Histories) -> Histories:
    """The same requests with nothing excluded: what was shown is scored even if it was shown
    before.
    """
    return replace(histories, seen=np.zeros((len(histories), 1), dtype=np.int64))


def _counts(scores: DoubleArray, clicked: BoolArray, item: IntArray) -> dict[str, DoubleArray]:
    """Ordered pairs, pairs, NDCG, sessions and impressions of each session `[R]`."""
    from scipy.stats import rankdata

    positives = clicked.sum(axis=1)
    pairs = positives * (scores.shape[1] - positives)
    ranks = rankdata(scores, axis=1)
    right = (ranks * clicked).sum(axis=1) - positives * (positives + 1) / 2
    order = np.lexsort((uniform(0, Purpose.TIES, item, 0, 0), -scores), axis=1)
    discount = 1 / logs2(np.arange(scores.shape[1]) + 2)
    gained = (np.take_along_axis(clicked, order, axis=1) * discount).sum(axis=1)
    ndcg = gained / discount.cumsum()[positives - 1]
    ones = np.ones(len(scores))
    return {
        "right": right,
        "pairs": pairs.astype(np.float64),
        "ndcg": ndcg,
        "sessions": ones,
        "impressions": ones * scores.shape[1],
    }


def _ordering(name: str, sums: UnitSums) -> Ordering:
    if "pairs" not in sums:
        return Ordering(name, refused="no session has both a click and an unclick")
    told = sums["pairs"] > 0
    right, pairs, ndcg, sessions, weight = (
        sums[c][told] for c in ("right", "pairs", "ndcg", "sessions", "impressions")
    )
    auc = _figure(right, pairs)
    gauc = _figure(weight * right / pairs, weight)
    mean = _figure(ndcg, sessions)
    return Ordering(name, auc, gauc, mean, int(sessions.sum()))


def _figure(above: DoubleArray, below: DoubleArray) -> tuple[float, EstimateInterval]:
    ratio = Ratios(above[:, None], below[:, None])
    return ratio.value, delta(ratio)
