"""Exact search over items whose vectors lie on another device than the CPU. No model lives here."""

from __future__ import annotations

import numpy as np
import torch

from policies.base import FloatArray, IntArray
from policies.products import pad, score_items
from policies.retrieval import Exact, Ranked, check_wanted, top_k, top_k_of

MARGIN = 16
"""Items that are fetched on top of those wanted, so that the last of them is almost always worse
for certain than the last one wanted.
"""

CELLS = 2**27
"""Scores that are on the device at once, 1 GiB of them."""


class Resident(Exact):
    """The items of largest score for certain, to the bytes of `Exact`: a device looks at every item
    in double precision, and the CPU scores the best of them as `Exact` does.

    A score of `score_items` is off by less than 2^-23 d |q| M, with M the largest length of an item
    (`policies.products.Rough`), and one of the device by nothing beside that. So a row is certain
    where the last item fetched is that much worse than the last one wanted. Other rows, of which
    there are few but where many items are nearly equal, are searched by the CPU.
    """

    def __init__(self, vectors: FloatArray, device: torch.device) -> None:
        """Bring the items' `vectors` `[n_items + 1, d]` to the device."""
        self.n_items = len(vectors) - 1
        self._vectors = pad(vectors)
        self._columns = np.ascontiguousarray(self._vectors.T)
        self._rough = None
        self._there = torch.from_numpy(self._vectors).to(device).double()
        lengths = torch.linalg.vector_norm(self._there, dim=1)
        self._error = 2.0**-23 * self._vectors.shape[1] * float(lengths.max())

    def search(self, queries: FloatArray, k: int, seen: IntArray) -> Ranked:
        """As of every `Index`."""
        queries = pad(queries)
        check_wanted(k, seen, self.n_items)
        fetched = min(k + MARGIN, self.n_items)
        items = np.zeros((len(queries), fetched), dtype=np.int64)
        last = np.empty(len(queries))
        size = max(1, CELLS // (self.n_items + 1))
        with torch.inference_mode():
            for start in range(0, len(queries), size):
                rows = slice(start, start + size)
                items[rows], last[rows] = self._fetch(queries[rows], fetched, seen[rows])
        nobody = np.zeros((len(queries), 0), dtype=np.int64)
        scores = score_items(queries, self._vectors, items)
        best, best_scores = top_k_of(items, scores, k, nobody, self.n_items)
        with np.errstate(invalid="ignore"):
            lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
            worst = best_scores[:, min(k, fetched) - 1].astype(np.float64)
            is_certain = np.isneginf(last) | (worst - last > 2 * self._error * lengths)
        rest = np.flatnonzero(~is_certain)
        if len(rest):
            best[rest], best_scores[rest] = top_k(self.scores(queries[rest]), k, seen[rest])
        return best, best_scores

    def _fetch(
        self, queries: FloatArray, fetched: int, seen: IntArray
    ) -> tuple[IntArray, np.ndarray[tuple[int], np.dtype[np.float64]]]:
        """The best unseen items `[B, fetched]` in no order, 0 = none, and the score `[B]` of the
        last one; -inf where these are all.
        """
        there = self._there.device
        scores = torch.from_numpy(queries).to(there).double() @ self._there.T
        scores[:, 0] = -torch.inf
        scores.scatter_(1, torch.from_numpy(np.ascontiguousarray(seen)).to(there), -torch.inf)
        best = scores.topk(fetched)
        items = torch.where(best.values == -torch.inf, 0, best.indices)
        last = best.values[:, -1].cpu().numpy()
        if fetched == self.n_items:
            last = np.full_like(last, -np.inf)
        return items.cpu().numpy(), last
