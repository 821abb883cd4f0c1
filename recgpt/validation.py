"""What epochs and weights are chosen by: each user's last click, held out. Nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from policies.base import Histories, IntArray, Sequences
from policies.retrieval import Exact, top_k
from recgpt.mixture import WEIGHTS, Mixture
from recgpt.model import Layer
from recgpt.walk import Reading

if TYPE_CHECKING:
    from recgpt.policy import PreTrain


class Validation:
    """Each user's last click, ranked among all items from what came before it; the user's own past is left out of the ranking.

    Attributes:
        known: the log up to each user's last click.
        rows: users with a click to find and one to go by, at most as many as asked for.
    """

    def __init__(self, policy: PreTrain, sequences: Sequences, most: int, seed: int) -> None:
        self._policy = policy
        n = np.diff(sequences.clicks().offsets)
        at = np.flatnonzero(sequences.clicked)
        last = np.full(len(sequences), -1)
        last[n > 0] = at[np.cumsum(n)[n > 0] - 1]
        self.known = sequences.where(np.arange(len(sequences.items)) < np.repeat(last, np.diff(sequences.offsets)))
        rows = np.flatnonzero(n >= 2)
        if len(rows) > most:
            rows = np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, most, replace=False))
        self.rows = rows
        self._target = sequences.items[last[rows]]
        self._recent = self.known.last(4 * policy.shape.length)
        self._seen = self.known.last(int(np.diff(self.known.offsets).max(initial=1))).items

    def of(self, layer: Layer, reader: PreTrain) -> Callable[[], float]:
        """The NDCG@10 of one-step recall as a function: of the network, or, where there are counts, of both pooled with weight 1.

        Histories are read as `reader` reads them, once, unless what is read depends on the trained weights.
        """
        policy = self._policy
        reading: dict[int, Reading] = {}

        def ndcg() -> float:
            reader._take(policy.model_, policy.clicks_, policy.source_, policy.generator_, policy.mixture_)
            index = Exact(policy.model_.vectors(layer).detach().float().cpu().numpy())
            gain = 0.0
            for start in range(0, len(self.rows), 1024):
                asked = self._asked(start)
                if start not in reading or not reader.reads_the_same:
                    reading[start] = reader.tokens(asked)
                gain += self._gain(reader.nearest(index, asked, 10, (10,), layer, reading[start]).items, start)
            return gain / len(self.rows)

        return ndcg

    def best_weight(self, mixture: Mixture) -> float:
        """The weight of the counts with the best NDCG@10 of one-step recall; the smaller one of two equal ones."""
        policy = self._policy
        index = Exact(policy.item_vectors())
        gains = np.zeros(len(WEIGHTS))
        for start in range(0, len(self.rows), 1024):
            asked = self._asked(start)
            tokens, segments = policy.tokens(asked)
            inner = index.scores(policy.asked((tokens, segments), asked.user))
            for place, weight in enumerate(WEIGHTS):
                found, _ = top_k(mixture.scores(inner, tokens, segments, asked.user, weight), 10, asked.seen)
                gains[place] += self._gain(found, start)
        return WEIGHTS[int(gains.argmax())]

    def _asked(self, start: int) -> Histories:
        """The requests of 1024 users: their recent impressions, none of their past to be recalled."""
        rows = self.rows[start : start + 1024]
        recent = self._recent.rows(rows)
        return Histories(recent.user, recent.step, recent.items, recent.clicked, self._seen[rows])

    def _gain(self, found: IntArray, start: int) -> float:
        """The sum over these users of 1 / log2(p + 2), p the place of the last click among `found` `[B, 10]`."""
        return float(((found == self._target[start : start + 1024, None]) / np.log2(np.arange(10) + 2)).sum())
