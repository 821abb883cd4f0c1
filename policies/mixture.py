"""A network's probabilities pooled with those of counted transitions. No network and no recall
lives here.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import (
    PADDING,
    Catalogue,
    DoubleArray,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Params,
    Sequences,
)
from policies.jit import njit
from policies.retrieval import ties
from policies.transitions import Transitions
from policies.validation import discount

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 16.0)
"""The weights of the counts that validation chooses from, to where the network hardly counts."""


@dataclass
class TransitionCounts(Params):
    """The counts that are mixed in, as in `policies.transitions`.

    Attributes:
        neighbours: similar items kept for each item.
        decay: weight of a click relative to the next one.
        markov: weight of the transitions against the similarities.
        shrink: how many users speak against a count of few.
        floor: share of an item that nothing was counted for.
    """

    neighbours: int = 200
    decay: float = 0.8
    markov: float = 6.0
    shrink: float = 10.0
    floor: float = 0.003

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise ValueError(f"the 'floor' of counts must be within (0, 1); got {self.floor}")


class Mixture:
    """p(j | history) in proportion to softmax(h . v)_j (c_j / sum(c) + floor)^w, with c the counted
    scores of the history.

    A logarithmic opinion pool (Genest & Zidek 1986; Heskes 1998) of a smooth model and of counts:
    an item has to please both, and where the counts are silent the network speaks alone. w is
    chosen on the validation clicks.

    Attributes:
        weight: w; 0 = the network alone.
    """

    def __init__(self, counts: TransitionCounts, weight: float = 0.0) -> None:
        self._transitions = Transitions(
            counts.neighbours, 50, counts.decay, counts.markov, counts.shrink
        )
        self._floor = counts.floor
        self.weight = weight

    def fit(self, known: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Count."""
        self._transitions.fit(known, catalogue, fitting)
        return self

    def log_shares(self, histories: Histories) -> FloatArray:
        """log(c_j / sum(c) + floor) `[B, n_items + 1]`, from the clicks of histories."""
        counted = self._transitions.scores(histories)
        return self._logs(counted, counted.sum(axis=1))

    def continued(
        self, inner: FloatArray, histories: Histories, items: IntArray, clicked: IntArray
    ) -> FloatArray:
        """log p `[B, W, C]`, but for a constant of each row, of `items` `[B, C]` after each of
        `clicked` `[B, W]` was clicked.

        Args:
            inner: `[B, W, C]` of the network's queries after those clicks.
            histories: before them.
            items: 0 = none at the end of a row.
            clicked: 0 = none.
        """
        counted, totals = self._transitions.continued(histories, items, clicked)
        pooled: FloatArray = inner + np.float32(self.weight) * self._logs(counted, totals)
        return pooled

    def _logs(self, counted: FloatArray, totals: FloatArray) -> FloatArray:
        """log(c / sum(c) + floor); `counted` is overwritten."""
        counted /= np.where(totals > 0, totals, 1)[..., None]
        counted += np.float32(self._floor)
        return np.asarray(np.log(counted), dtype=np.float32)

    def scores(self, inner: FloatArray, histories: Histories) -> FloatArray:
        """log p `[B, n_items + 1]` from the inner products `[B, n_items + 1]` of the network's
        query with all item vectors, and from the clicks of the histories.
        """
        return log_softmax(inner + np.float32(self.weight) * self.log_shares(histories))

    def weighted(self, weight: float) -> Mixture:
        """The same counts with another weight."""
        other = copy(self)
        other.weight = weight
        return other

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The counts and the weight."""
        return {**self._transitions.state(), "weight": np.asarray(self.weight)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""
        self._transitions.restore(state)
        self.weight = float(state["weight"])
        return self


def gains_by_weight(
    inner: FloatArray, counted: FloatArray, target: IntArray, seen: IntArray, k: int
) -> DoubleArray:
    """The summed NDCG@k of requests, pooled by each of WEIGHTS, `[W]`.

    Args:
        inner: `[B, n_items + 1]` of the network.
        counted: `[B, n_items + 1]` log shares of the counts.
        target: `[B]` the item that each of them looks for.
        seen: `[B, S]` items left out, 0 = none.
        k: length of the slates.
    """
    weights, ranks = np.asarray(WEIGHTS, dtype=np.float32), ties(inner.shape[1] - 1)[0]
    places = np.empty((len(WEIGHTS), len(inner)), dtype=np.int64)
    _places(inner, counted, target, seen, weights, ranks, places)
    return np.array([discount(place[place < k]).sum() for place in places])


@njit()
def _places(
    inner: Any, counted: Any, target: Any, seen: Any, weights: Any, ranks: Any, out: Any
) -> None:
    """The 0-based places `[W, B]` at which `top_k` of `inner + weight * counted` has the targets,
    for each weight: without sorting, and while a row of both is in the cache.
    """
    for row in range(len(inner)):
        unseen, item = inner[row].copy(), target[row]
        unseen[PADDING] = -np.inf
        for other in seen[row]:
            unseen[other] = -np.inf
        mine = counted[row]
        for number in range(len(weights)):
            weight = weights[number]
            own = unseen[item] + weight * mine[item]
            ahead, equal = np.int32(0), np.int32(0)
            for other in range(len(unseen)):
                score = unseen[other] + weight * mine[other]
                ahead += np.int32(score > own)
                equal += np.int32(score == own)
            if equal > 1:
                for other in range(len(unseen)):
                    if unseen[other] + weight * mine[other] == own and ranks[other] < ranks[item]:
                        ahead += np.int32(1)
            out[number, row] = ahead


def log_softmax(scores: FloatArray) -> FloatArray:
    """log p `[B, n_items + 1]` of scores of all items; the padding in column 0 has none."""
    scores[:, 0] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return scores
