"""How well a RecGPT finds the last clicks that were held out (`policies.validation`). Nothing is
trained here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from policies.base import Histories, IntArray, Sequences
from policies.blocks import ROWS, one_thread
from policies.continuation import BEAMS, Continued
from policies.mixture import WEIGHTS, Mixture, gains_by_weight
from policies.operators import product
from policies.retrieval import Exact
from policies.validation import K, LastClicks
from recgpt.walk import Reading, Walk, real_clicks

Read = Callable[[Histories], Reading]
"""What a network is given of a batch of histories."""


class Validation(LastClicks):
    """The last clicks as a network finds them by one-step recall, or its counts do."""

    def __init__(self, sequences: Sequences, most: int, seed: int, length: int) -> None:
        """As `LastClicks`; `length` impressions of a history are looked at."""
        super().__init__(sequences, most, seed)
        self._length = length

    def ndcg_of(self, walk: Walk, read: Read, *, once: bool) -> Callable[[], float]:
        """A function that gives the NDCG@10 of a walk with the weights as they then are; where the
        walk has counts, with them pooled in by the weight that is best for these weights, which
        the mixture keeps.

        Args:
            walk: whose first step recalls.
            read: what the network is given.
            once: the histories are read once and for all, because what is read does not depend on
                the weights.
        """
        readings: dict[int, Reading] = {}

        def requests(block: slice) -> tuple[Histories, Reading]:
            asked = self.requests(block, self._length)
            if block.start not in readings or not once:
                readings[block.start] = read(asked)
            return asked, readings[block.start]

        def ndcg() -> float:
            with one_thread(), torch.inference_mode():
                if walk.mixture is not None:
                    return self._pool(walk, walk.mixture, requests)
                index = Exact(walk.model.vectors(walk.layer).float().cpu().numpy())
                return self.ndcg(self._items(walk, index, *requests(b)) for b in self.blocks())

        return ndcg

    def _items(self, walk: Walk, index: Exact, asked: Histories, reading: Reading) -> IntArray:
        return walk.slates(index, (K,), reading, asked.user, asked.seen).items

    def _pool(
        self,
        walk: Walk,
        mixture: Mixture,
        requests: Callable[[slice], tuple[Histories, Reading]],
    ) -> float:
        """The best NDCG@10 over the weights of the counts; the mixture is left with the smallest
        weight that has it.
        """
        gains = np.zeros(len(WEIGHTS))
        vectors = walk.model.vectors(walk.layer).float().cpu()
        for block in self.blocks():
            asked, (tokens, segments) = requests(block)
            query, target = walk.queries((tokens, segments), asked.user), self.target[block]
            inner = product(torch.from_numpy(query), vectors).numpy()
            for start in range(0, len(query), ROWS):
                rows = slice(start, start + ROWS)
                clicks = real_clicks(tokens[rows], segments[rows], asked.user[rows])
                pair = inner[rows], mixture.log_shares(clicks)
                gains += gains_by_weight(*pair, target[rows], asked.seen[rows], K)
        mixture.weight = WEIGHTS[int(gains.argmax())]
        return float(gains.max() / len(self))

    def continued(
        self, walk: Walk, read: Read, n_candidates: int
    ) -> Iterator[tuple[Continued, IntArray]]:
        """What a walk expects after the next item, for the widest beam there is, and what is looked
        for: what a continuation is chosen by.

        Args:
            walk: that continues.
            read: what the network is given, with room for a further token.
            n_candidates: best items of the first step that are ranked.
        """
        with one_thread(), torch.inference_mode():
            index = Exact(walk.model.vectors(walk.layer).float().cpu().numpy())
            for block in self.blocks():
                asked = self.requests(block, self._length)
                who = asked.user, asked.seen
                found = walk.continued(index, read(asked), *who, n_candidates, max(BEAMS))
                yield found, self.target[block]
