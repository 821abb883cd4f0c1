"""How well a RecGPT finds the last clicks that were held out (`policies.validation`). Nothing is
trained here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from policies.base import Sequences
from policies.retrieval import Exact, top_k
from policies.validation import LastClicks
from recgpt.mixture import WEIGHTS, Mixture
from recgpt.model import Layer
from recgpt.walk import Reading

if TYPE_CHECKING:
    from recgpt.policy import PreTrain


class Validation(LastClicks):
    """The last clicks as a RecGPT finds them, or its counts do."""

    def __init__(self, policy: PreTrain, sequences: Sequences, most: int, seed: int) -> None:
        super().__init__(sequences, most, seed)
        self._policy, self._length = policy, 4 * policy.shape.length

    def of(self, layer: Layer, reader: PreTrain) -> Callable[[], float]:
        """The NDCG@10 of one-step recall as a function: of the network, or, where there are counts,
        of both pooled with weight 1.

        Histories are read as `reader` reads them, once, unless what is read depends on the trained
        weights.
        """
        policy = self._policy
        reading: dict[int, Reading] = {}

        def ndcg() -> float:
            reader._take(
                policy.model_, policy.clicks_, policy.source_, policy.generator_, policy.mixture_
            )
            index = Exact(policy.model_.vectors(layer).detach().float().cpu().numpy())
            gain = 0.0
            for some in self.blocks():
                asked = self.asked(some, self._length)
                if some.start not in reading or not reader.reads_the_same:
                    reading[some.start] = reader.tokens(asked)
                found = reader.nearest(index, asked, 10, (10,), layer, reading[some.start]).items
                gain += float(self.gains(found, some).sum())
            return gain / len(self)

        return ndcg

    def best_weight(self, mixture: Mixture) -> float:
        """The weight of the counts with the best NDCG@10 of one-step recall; the smaller one of two
        equal ones.
        """
        policy = self._policy
        index = Exact(policy.item_vectors())
        gains = np.zeros(len(WEIGHTS))
        for some in self.blocks():
            asked = self.asked(some, self._length)
            tokens, segments = policy.tokens(asked)
            inner = index.scores(policy.asked((tokens, segments), asked.user))
            for place, weight in enumerate(WEIGHTS):
                found, _ = top_k(
                    mixture.scores(inner, tokens, segments, asked.user, weight), 10, asked.seen
                )
                gains[place] += float(self.gains(found, some).sum())
        return WEIGHTS[int(gains.argmax())]
