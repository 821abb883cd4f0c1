"""From query vectors or scores to ranked items: exact and approximate inner-product search, ties,
seen items, merging.

Everything that ranks items goes through `top_k`. No model lives here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from policies.base import PADDING, FloatArray, IntArray, Params, Slates
from policies.blocks import by_rows
from policies.heap import before, heapify, sink, unheap
from policies.jit import njit, read_only
from policies.products import Rough, matmul, pad, score_items
from policies.streams import Purpose, uniform

Ranked = tuple[IntArray, FloatArray]
"""Items `[B, k]` and their scores `[B, k]`, best first; 0 and -inf where a row has fewer than k
candidates.
"""


@lru_cache(maxsize=8)
def ties(n_items: int) -> IntArray:
    """The fixed pseudo-random order in which items of equal score come, `[2, n_items + 1]`: the
    rank of each item, and the item of each rank.

    Ids are often numbered by first appearance, so an order by id would favour old or popular items:
    with this one, a scorer that knows nothing hits one random item among n with probability k / n.
    """
    draws = uniform(0, Purpose.TIES, np.arange(n_items + 1))
    found = np.empty((2, n_items + 1), dtype=np.int64)
    found[1] = np.argsort(draws, kind="stable")
    found[0, found[1]] = np.arange(n_items + 1)
    found.setflags(write=False)
    return found


STRIP = 64
"""Scores that are compared with the worst kept one at once."""


@njit()
def _all_below(strip: Any, bound: float) -> bool:
    """Whether all scores are below `bound` (no NaN is); without a branch, so that the loop is
    compiled to vector instructions.
    """
    above = 0
    for c in range(len(strip)):
        above += not strip[c] < bound
    return above == 0


@njit()
def _select(scores: Any, ids: Any, seen: Any, ties: Any, items: Any, best: Any) -> int:
    """Fill `items`, `best` `[B, k]` (0 and -inf before) with the first k candidates; the first row
    with a NaN, or -1.

    `ids` `[B, C]` names the candidates of `scores` `[B, C]`, 0 = none; with `ids` of no rows,
    candidate c is item c. `ties` are the rank of each item among equals and the item of each rank,
    `[2, n_items + 1]`.
    """
    ranks, of_rank = ties
    excluded = np.zeros(len(ranks), dtype=np.bool_)
    k = items.shape[1]
    for row in range(len(scores)):
        for c in range(seen.shape[1]):
            excluded[seen[row, c]] = True
        keys, heap = items[row], best[row]  # ranks, until all are found
        # What comes best first, as candidates of a list in order do, is left as it is: `worst` is
        # then its end. Else the k first become a heap, and `worst` is its root.
        found, worst, in_order = 0, k - 1, True
        for start in range(0, scores.shape[1], STRIP):
            strip = scores[row, start : start + STRIP]
            if found == k and _all_below(strip, heap[worst]):
                continue
            for c in range(start, start + len(strip)):
                score = scores[row, c]
                if found == k and score < heap[worst]:
                    continue
                if np.isnan(score):
                    return row
                item = ids[row, c] if len(ids) else c
                if item == 0 or excluded[item] or score == -np.inf:
                    continue
                rank = ranks[item]
                if found < k:
                    if found > 0 and before(score, rank, heap[found - 1], keys[found - 1]):
                        in_order = False
                    heap[found], keys[found] = score, rank
                    found += 1
                    if found == k and not in_order:
                        heapify(heap, keys, k)
                        worst = 0
                elif before(score, rank, heap[worst], keys[worst]):
                    if in_order:
                        heapify(heap, keys, k)
                        in_order, worst = False, 0
                    heap[0], keys[0] = score, rank
                    sink(heap, keys, k, 0)
        if not in_order:
            if found < k:
                heapify(heap, keys, found)
            unheap(heap, keys, found)
        for c in range(found):
            keys[c] = of_rank[keys[c]]
        for c in range(seen.shape[1]):
            excluded[seen[row, c]] = False
    return -1


def check_wanted(k: int, seen: IntArray, n_items: int) -> None:
    """Raises ValueError where k is below 1 or a seen item is no item."""
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    _check_ids("seen", seen, n_items)


def _check_ids(name: str, given: IntArray, n_items: int) -> None:
    if given.size and (given.min() < 0 or given.max() > n_items):
        raise ValueError(
            f"{name} items must be ids of 1..{n_items}, or 0 for none; got"
            f" {given.min()}..{given.max()}"
        )


def _run(scores: FloatArray, ids: IntArray, seen: IntArray, k: int, n_items: int) -> Ranked:
    check_wanted(k, seen, n_items)
    _check_ids("candidate", ids, n_items)
    items = np.zeros((len(scores), k), dtype=np.int64)
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    scores = np.ascontiguousarray(scores, dtype=np.float32)
    given = read_only(scores), read_only(ids), read_only(np.ascontiguousarray(seen))
    wrong = _select(*given, ties(n_items), items, best)
    if wrong >= 0:
        raise ValueError(f"scores must be numbers; row {wrong} of {len(scores)} holds NaN")
    return items, best


def top_k(scores: FloatArray, k: int, seen: IntArray) -> Ranked:
    """The k best items of each row, from scores of all items.

    Seen items, padding (column 0) and items of score -inf are no candidates. Items of equal score
    come in the order of `ties`.

    Args:
        scores: `[B, n_items + 1]`.
        k: at least 1; may exceed the number of candidates.
        seen: `[B, S]` items left out, 0 = none.

    Raises:
        ValueError: a NaN among the scores, a seen item out of range, or k < 1.
    """
    return _run(scores, np.zeros((0, 0), dtype=np.int64), seen, k, scores.shape[1] - 1)


def top_k_of(items: IntArray, scores: FloatArray, k: int, seen: IntArray, n_items: int) -> Ranked:
    """The k best of given candidates `items` `[B, C]` (distinct in a row, 0 = none) by `scores`
    `[B, C]`; else as `top_k`.
    """
    return _run(scores, np.ascontiguousarray(items), seen, k, n_items)


class Index(Protocol):
    """Inner-product search over the vectors of all items."""

    n_items: int

    def score(self, queries: FloatArray, items: IntArray) -> FloatArray:
        """Inner products `[B, C]` of each of `queries` `[B, d]` with its own `items` `[B, C]`; -inf
        where the id is 0.
        """

    def search(self, queries: FloatArray, k: int, seen: IntArray) -> Ranked:
        """The k unseen items of largest inner product with each of `queries` `[B, d]`; `seen`
        `[B, S]`, 0 = none.
        """

    def save(self, stem: Path) -> None:
        """Write it into files whose names begin with `stem`."""


class _Vectors(ABC):
    """The vectors of all items, scored by name."""

    _vectors: FloatArray
    n_items: int

    def save(self, stem: Path) -> None:
        """Write what was built into files whose names begin with `stem`."""
        for name, array in self._arrays().items():
            np.save(stem.with_name(f"{stem.name}.{name}.npy"), array)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"vectors": self._vectors}

    @abstractmethod
    def _take(self, stem: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
        """Take over what `save` wrote at `stem` besides the vectors; `arrays` are those mapped."""

    @classmethod
    def open(cls, stem: Path) -> Self:
        """What `save` wrote, mapped into memory: the processes of a machine share one copy."""
        index = cls.__new__(cls)
        # Copy on write, since compiled code is compiled anew for arrays that cannot be written
        arrays = {
            file.name.removeprefix(f"{stem.name}.").removesuffix(".npy"): np.load(file, "c")
            for file in stem.parent.glob(f"{stem.name}.*.npy")
        }
        index._vectors = arrays.pop("vectors")
        index.n_items = len(index._vectors) - 1
        index._take(stem, arrays)
        return index

    def score(self, queries: FloatArray, items: IntArray) -> FloatArray:
        return score_items(pad(queries), self._vectors, items)


class Exact(_Vectors):
    """The items of largest score for certain: every item is looked at, roughly, and those that may
    be among the best exactly.

    The bytes of the result depend on the query, the items and k only (`policies.products`).
    """

    def __init__(self, vectors: FloatArray) -> None:
        self.n_items = len(vectors) - 1
        self._vectors = pad(vectors)
        self._columns = np.ascontiguousarray(self._vectors.T)
        self._rough = Rough(self._vectors) if np.isfinite(self._vectors).all() else None

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        rough = {} if self._rough is None else self._rough.arrays()
        return {**super()._arrays(), "columns": self._columns, **rough}

    def _take(self, stem: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._columns = arrays.pop("columns")
        self._rough = Rough.of(self._vectors.shape[1], arrays) if arrays else None

    def scores(self, queries: FloatArray) -> FloatArray:
        """Inner products `[B, n_items + 1]` with `queries` `[B, d]`, bit for bit those of
        `search`.
        """
        return matmul(pad(queries), self._columns)

    def search(self, queries: FloatArray, k: int, seen: IntArray) -> Ranked:
        queries = pad(queries)
        check_wanted(k, seen, self.n_items)
        if self._rough is None or not self._rough.fits(k):
            return top_k(matmul(queries, self._columns), k, seen)
        ids, certain = self._rough.shortlist(queries, k, seen)
        items, scores = top_k_of(
            ids,
            score_items(queries, self._vectors, ids),
            k,
            np.zeros((len(ids), 0), dtype=np.int64),
            self.n_items,
        )
        rest = np.flatnonzero(~certain)
        if len(rest):
            items[rest], scores[rest] = top_k(matmul(queries[rest], self._columns), k, seen[rest])
        return items, scores


def _faiss() -> Any:
    """The library faiss.

    Raises:
        ModuleNotFoundError: it is missing.
    """
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "approximate search needs faiss: pip install 'abtest[ann]' (or use search kind `exact`)"
        ) from error
    # A BLAS product rounds by a query's place in its block
    faiss.cvar.distance_compute_blas_threshold = 2**31 - 1
    return faiss


class Approximate(_Vectors):
    """Nearest neighbours by faiss, re-scored exactly.

    The largest inner product is made a smallest distance by one more coordinate, sqrt(M^2 - |x|^2)
    with M the largest norm (Bachrach et al., RecSys 2014), because graphs and cells are built for
    distances. More candidates are fetched than asked for, by the number of the row's own seen
    items.
    """

    def __init__(
        self,
        vectors: FloatArray,
        kind: Literal["hnsw", "ivf"] = "hnsw",
        links: int = 32,
        effort: int = 128,
    ) -> None:
        """Build the index with one thread, so that it is the same each time.

        Args:
            vectors: `[n_items + 1, d]`; row 0 is left out.
            kind: `hnsw` (Malkov & Yashunin 2018), a navigable graph; `ivf`, sqrt(n_items) k-means
                cells.
            links: of a graph node.
            effort: candidates held during a graph search, or cells visited: more is slower and
                finds more.

        Raises:
            ModuleNotFoundError: faiss is missing: `pip install 'abtest[ann]'`.
        """
        faiss = _faiss()
        self.n_items = len(vectors) - 1
        self._vectors = pad(vectors)
        squares = (self._vectors[1:].astype(np.float64) ** 2).sum(axis=1)
        extra = np.sqrt(np.maximum(squares.max(initial=0.0) - squares, 0.0))
        points = np.ascontiguousarray(np.column_stack([self._vectors[1:], extra]), dtype=np.float32)
        self._index: Any
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            if kind == "hnsw":
                self._index = faiss.IndexHNSWFlat(points.shape[1], links)
                self._index.hnsw.efConstruction = max(2 * links, 80)
                self._index.hnsw.efSearch = effort
            else:
                cells = max(1, int(np.sqrt(self.n_items)))
                self._index = faiss.IndexIVFFlat(
                    faiss.IndexFlatL2(points.shape[1]), points.shape[1], cells
                )
                self._index.cp.min_points_per_centroid = 1
                self._index.train(points)
                self._index.nprobe = min(effort, cells)
            self._index.add(points)
        finally:
            faiss.omp_set_num_threads(threads)

    def search(self, queries: FloatArray, k: int, seen: IntArray) -> Ranked:
        queries = pad(queries)
        wanted = np.minimum(k + (seen != PADDING).sum(axis=1), self.n_items)
        size = np.minimum(
            2 ** np.ceil(np.log2(np.maximum(wanted, 1))).astype(np.int64), self.n_items
        )
        items = np.zeros((len(queries), k), dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for fetch in np.unique(size):
            rows = np.flatnonzero(size == fetch)
            found = by_rows(
                lambda block, fetch=fetch: self._nearest(block, int(fetch)), queries[rows]
            )
            inner = score_items(queries[rows], self._vectors, found)
            items[rows], scores[rows] = top_k_of(found, inner, k, seen[rows], self.n_items)
        return items, scores

    def save(self, stem: Path) -> None:
        super().save(stem)
        _faiss().write_index(self._index, str(stem.with_name(f"{stem.name}.faiss")))

    def _take(self, stem: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
        faiss = _faiss()
        file = str(stem.with_name(f"{stem.name}.faiss"))
        self._index = faiss.read_index(file, faiss.IO_FLAG_MMAP_IFC)

    def _nearest(self, block: FloatArray, fetch: int) -> IntArray:
        """The ids `[B, fetch]` nearest to the queries `[B, d]`, 0 where the search found fewer."""
        points = np.ascontiguousarray(np.column_stack([block, np.zeros(len(block), np.float32)]))
        _, places = self._index.search(points, fetch)
        return np.asarray(places, dtype=np.int64) + 1


@dataclass
class Search(Params):
    """How the best items of a query vector are found.

    Attributes:
        kind: `exact`, or approximately by `hnsw` or `ivf` (both need the extra `ann`).
        links: links of a node of the hnsw graph.
        effort: candidates held during an hnsw search, or ivf cells visited.
    """

    kind: Literal["exact", "hnsw", "ivf"] = "exact"
    links: int = 32
    effort: int = 128

    def index(self, vectors: FloatArray) -> Index:
        """The index over `vectors` `[n_items + 1, d]`."""
        if self.kind == "exact":
            return Exact(vectors)
        return Approximate(vectors, self.kind, self.links, self.effort)

    def saved(self, stem: Path) -> Index | None:
        """The index that `Index.save` wrote at `stem`; None where there is none."""
        if not any(stem.parent.glob(f"{stem.name}.*")):
            return None
        return Exact.open(stem) if self.kind == "exact" else Approximate.open(stem)


def shares(quotas: Sequence[int], k: int) -> tuple[int, ...]:
    """`k` places divided in proportion to `quotas` (largest remainders, earlier ones first);
    `quotas` itself if it sums to k.

    Raises:
        ValueError: a negative quota, or none above 0.
    """
    total = sum(quotas)
    if min(quotas, default=-1) < 0 or total < 1:
        raise ValueError(f"quotas must be non-negative and not all zero; got {list(quotas)}")
    whole = [quota * k // total for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: (-(quotas[i] * k % total), i))
    for i in by_remainder[: k - sum(whole)]:
        whole[i] += 1
    return tuple(whole)


def by_quota(
    index: Index,
    queries: FloatArray,
    quotas: Sequence[int],
    seen: IntArray,
    order: Literal["interest", "score"] = "interest",
) -> Slates:
    """Interest after interest takes the best items that no earlier one has taken, up to its quota.

    Two-step recall (m, n), six online interests and one-step recall (k,) of RecGPT (section 4.4)
    are this with a list of quotas.

    Args:
        index: of the items.
        queries: `[B, I, d]`, one query vector for each interest.
        quotas: `I` numbers of items; the slate has their sum.
        seen: `[B, S]` items left out, 0 = none.
        order: `interest`: the first interest's items, then the second's, ...; a score is then
            lowered to that of the item above it where it would exceed it. `score`: all by inner
            product.

    Returns:
        Slates `[B, sum(quotas)]` with `interest`.
    """
    if len(quotas) != queries.shape[1]:
        raise ValueError(
            f"as many quotas as interests: got {len(quotas)} quotas for {queries.shape[1]}"
            " interests"
        )
    taken: list[IntArray] = []
    inner: list[FloatArray] = []
    interest: list[IntArray] = []
    for i, quota in enumerate(quotas):
        if quota == 0:
            continue
        found, scores = index.search(queries[:, i], quota, np.concatenate([seen, *taken], axis=1))
        taken.append(found)
        inner.append(scores)
        interest.append(np.full(found.shape, i, dtype=np.int64))
    items, values, source = (
        np.concatenate(taken, axis=1),
        np.concatenate(inner, axis=1),
        np.concatenate(interest, axis=1),
    )
    if order == "score":
        best, values = top_k_of(
            items, values, items.shape[1], np.zeros((len(items), 0), dtype=np.int64), index.n_items
        )
        return Slates(best, values, interest=interest_of(best, items, source, index.n_items))
    place = np.argsort(items == PADDING, axis=1, kind="stable")
    values = np.minimum.accumulate(np.take_along_axis(values, place, axis=1), axis=1)
    return Slates(
        np.take_along_axis(items, place, axis=1),
        values,
        interest=np.take_along_axis(source, place, axis=1),
    )


@njit()
def _distinct(items: Any, scores: Any, size: int, union: Any, best: Any, source: Any) -> None:
    """Each row's distinct items of `items` `[B, I, C]` into `union` `[B, I * C]`, with their best
    score and its interest.
    """
    place = np.full(size, -1, dtype=np.int64)
    for row in range(len(items)):
        n = 0
        for i in range(items.shape[1]):
            for c in range(items.shape[2]):
                item = items[row, i, c]
                if item == 0:
                    continue
                at = place[item]
                if at < 0:
                    place[item] = n
                    union[row, n], best[row, n], source[row, n] = item, scores[row, i, c], i
                    n += 1
                elif scores[row, i, c] > best[row, at]:
                    best[row, at], source[row, at] = scores[row, i, c], i
        for at in range(n):
            place[union[row, at]] = -1


def pooled(
    index: Index, queries: FloatArray, each: int, seen: IntArray
) -> tuple[IntArray, FloatArray, IntArray]:
    """The union of every interest's `each` best items, an item's score being its best over the
    interests.

    Args:
        index: of the items.
        queries: `[B, I, d]`.
        each: items that an interest brings.
        seen: `[B, S]` items left out, 0 = none.

    Returns:
        Items, scores and interests `[B, I * each]` of the pool, in no order; 0, -inf, 0 where it
        has fewer.
    """
    b, interests, d = queries.shape
    found, inner = index.search(
        queries.reshape(b * interests, d), each, np.repeat(seen, interests, axis=0)
    )
    shape = (b, interests * each)
    union = np.zeros(shape, dtype=np.int64)
    best = np.full(shape, -np.inf, dtype=np.float32)
    source = np.zeros(shape, dtype=np.int64)
    _distinct(
        found.reshape(b, interests, each),
        inner.reshape(b, interests, each),
        index.n_items + 1,
        union,
        best,
        source,
    )
    return union, best, source


def by_max(index: Index, queries: FloatArray, k: int, seen: IntArray) -> Slates:
    """All interests search together: an item's score is its best inner product with any of them.

    With exact search these are the k items of largest max over interests: each is among the k best
    of its own interest.

    Args:
        index: of the items.
        queries: `[B, I, d]`.
        k: places.
        seen: `[B, S]` items left out, 0 = none.
    """
    union, best, source = pooled(index, queries, k, seen)
    items, scores = top_k_of(
        union, best, k, np.zeros((len(union), 0), dtype=np.int64), index.n_items
    )
    return Slates(items, scores, interest=interest_of(items, union, source, index.n_items))


@njit()
def _look_up(items: Any, union: Any, source: Any, size: int, out: Any) -> None:
    place = np.zeros(size, dtype=np.int64)
    for row in range(len(items)):
        for c in range(union.shape[1]):
            place[union[row, c]] = source[row, c]
        for c in range(items.shape[1]):
            out[row, c] = place[items[row, c]] if items[row, c] else 0


def interest_of(items: IntArray, union: IntArray, source: IntArray, n_items: int) -> IntArray:
    """The interest `[B, k]` of `items` `[B, k]`, looked up in a pool `union` `[B, C]` with
    interests `source` `[B, C]`.
    """
    out = np.zeros(items.shape, dtype=np.int64)
    _look_up(items, union, source, n_items + 1, out)
    return out
