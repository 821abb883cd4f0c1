"""Nearest: the base of policies that say only where requests and items lie. Retrieval, quotas and
scores come with it. No model.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from policies.base import FloatArray, Histories, IntArray, Policy, Slates
from policies.products import pad, score_items
from policies.retrieval import Index, Search, by_max, by_quota, shares


@dataclass
class Nearest(Policy):
    """A policy that gives query vectors and item vectors; everything else of serving is done here.

    A subclass writes `fit`, `queries`, `item_vectors`, `state` and `restore`. It is then a
    `Retriever` and a `Scorer`, and `Explore` makes it stochastic.

    Attributes:
        search: exact, or approximate by faiss (`{kind: hnsw}`, `{kind: ivf}`; extra `abtest[ann]`).
        quotas: shares of the slate for each interest, as in `RecGPT`; empty: all interests compete
            by score.
    """

    search: Search = field(default_factory=Search)
    quotas: tuple[int, ...] = ()

    serving_fields: ClassVar[frozenset[str]] = frozenset({"search", "quotas"})

    @abstractmethod
    def queries(self, histories: Histories) -> FloatArray:
        """Query vectors `[B, I, d]`, each row from its own request only."""

    @abstractmethod
    def item_vectors(self) -> FloatArray:
        """Item vectors `[n_items + 1, d]`, row 0 is padding; the same array object as long as
        nothing was learned anew.
        """

    def index(self) -> Index:
        """The search index over the item vectors, built when they are new."""
        vectors = self.item_vectors()
        kept = self.__dict__.get("index_")
        if kept is None or kept[0] is not vectors:
            kept = self.__dict__["index_"] = vectors, self.search.index(vectors)
        built: Index = kept[1]
        return built

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The unseen items of largest inner product, by quota or by score.

        Raises:
            ValueError: quotas for another number of interests than `queries` gives.
        """
        queries = np.ascontiguousarray(self.queries(histories), dtype=np.float32)
        if not self.quotas:
            return by_max(self.index(), queries, k, histories.seen)
        if len(self.quotas) != queries.shape[1]:
            raise ValueError(
                f"{type(self).__name__}: {queries.shape[1]} interests need as many quotas; got"
                f" {list(self.quotas)}"
            )
        return by_quota(self.index(), queries, shares(self.quotas, k), histories.seen)

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Inner products `[B, n]` of `items` `[B, n]`, the largest one over the interests."""
        return largest_product(self.queries(histories), self.item_vectors(), items)


def largest_product(queries: FloatArray, vectors: FloatArray, items: IntArray) -> FloatArray:
    """Inner products `[B, n]` of `queries` `[B, I, d]` with the `vectors` `[n_items + 1, d]` of
    `items` `[B, n]`, the largest over I.

    Bit for bit those of exact search; -inf where the item is 0.
    """
    vectors = pad(vectors)
    products = [score_items(pad(queries[:, i]), vectors, items) for i in range(queries.shape[1])]
    largest: FloatArray = np.maximum.reduce(products)
    return largest
