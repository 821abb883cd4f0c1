"""How well a RecGPT finds the last clicks that were held out (`policies.validation`). Nothing is
trained here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from policies.base import Histories, IntArray, Sequences
from policies.blocks import one_thread
from policies.retrieval import Exact, top_k
from policies.validation import LastClicks
from recgpt.mixture import WEIGHTS, Mixture
from recgpt.walk import Reading, Walk

Read = Callable[[Histories], Reading]
"""What a network is given of a batch of histories."""

K = 10


class Validation(LastClicks):
    """The last clicks as a network finds them by one-step recall, or its counts do."""

    def __init__(self, sequences: Sequences, most: int, seed: int, length: int) -> None:
        """As `LastClicks`; `length` impressions of a history are looked at."""
        super().__init__(sequences, most, seed)
        self._length = length

    def ndcg_of(self, walk: Walk, read: Read, *, once: bool) -> Callable[[], float]:
        """A function that gives the NDCG@10 of a walk with the weights as they then are; of network
        and counts pooled, where the walk has counts.

        Args:
            walk: whose first step recalls.
            read: what the network is given.
            once: the histories are read once and for all, because what is read does not depend on
                the weights.
        """
        readings: dict[int, Reading] = {}

        def items(index: Exact, block: slice) -> IntArray:
            requests = self.requests(block, self._length)
            if block.start not in readings or not once:
                readings[block.start] = read(requests)
            reading = readings[block.start]
            return walk.slates(index, (K,), reading, requests.user, requests.seen).items

        def ndcg() -> float:
            with one_thread(), torch.inference_mode():
                index = Exact(walk.model.vectors(walk.layer).float().cpu().numpy())
                return self.ndcg(items(index, block) for block in self.blocks())

        return ndcg

    def best_weight(self, walk: Walk, mixture: Mixture, read: Read) -> float:
        """The weight of the counts with the best NDCG@10; the smaller one of two equal ones."""
        index = Exact(walk.model.vectors(walk.layer).detach().float().cpu().numpy())
        gains = np.zeros(len(WEIGHTS))
        for block in self.blocks():
            requests = self.requests(block, self._length)
            tokens, segments = read(requests)
            with one_thread(), torch.inference_mode():
                query = walk.queries((tokens, segments), requests.user)
            inner = index.scores(query)
            for place, weight in enumerate(WEIGHTS):
                pooled = mixture.scores(inner, tokens, segments, requests.user, weight)
                items, _ = top_k(pooled, K, requests.seen)
                gains[place] += float(self.gains(items, block).sum())
        return WEIGHTS[int(gains.argmax())]
