"""Scored: the base of policies that say only how good each item is for a request. Ranking comes
with it. No model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import Catalogue, FloatArray, Histories, IntArray, Policy, Slates
from policies.blocks import ROWS, by_rows
from policies.retrieval import top_k


@dataclass
class Scored(Policy):
    """A policy that scores all items for each request; everything else of serving is done here.

    A subclass writes `fit`, `scores`, `state` and `restore`. It is then a `Scorer`, and `Explore`
    makes it stochastic.
    """

    @abstractmethod
    def scores(self, histories: Histories) -> FloatArray:
        """Scores `[B, n_items + 1]` of all items, -inf for one that cannot be recalled; column 0 is
        padding and ignored.

        Each row from its own request only. Requests come in blocks of `policies.blocks.ROWS`,
        filled up with empty histories, so that torch's products give a request the same bytes in
        any batch. Those of numpy do not on every processor: a product of arrays is
        `policies.products.matmul(rows, table)`, not `rows @ table`.
        """

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Recall available items only; new ones by the scores that they have."""
        self.withheld_ = catalogue.withheld
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The k unseen items of highest score, of those that are available where it was told."""
        withheld = getattr(self, "withheld_", ())
        items, scores = [], []
        for rows, block in self._blocks(histories):
            if len(withheld):
                block = block.copy()
                block[:, withheld] = -np.inf
            best, best_scores = top_k(block, k, histories.seen[rows])
            items.append(best)
            scores.append(best_scores)
        return Slates(np.concatenate(items), np.concatenate(scores))

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """The score of each of `items` `[B, n]`."""
        blocks = self._blocks(histories)
        parts = [np.take_along_axis(scores, items[rows], axis=1) for rows, scores in blocks]
        return np.concatenate(parts)

    def _blocks(self, histories: Histories) -> Iterator[tuple[slice, FloatArray]]:
        """The rows of a block of requests, and their scores `[ROWS or fewer, n_items + 1]`."""
        for start in range(0, max(len(histories), 1), ROWS):
            rows = slice(start, start + ROWS)
            arrays = histories.rows(rows).arrays()

            def scores(*block: npt.NDArray[Any], names: tuple[str, ...] = tuple(arrays)) -> Any:
                return self.scores(Histories.of(dict(zip(names, block, strict=True))))

            yield rows, by_rows(scores, *arrays.values())
