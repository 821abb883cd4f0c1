"""Products in a fixed order of addition (rows with a table, queries with some items each), and
rough products that say which items can be left out.

A library's product adds the terms of one element in an order that depends on the shapes of its
operands and, on some processors, on the place of the row in its block or in memory. Here the order
is written below: an element's bytes depend on the two vectors alone, not on the batch, the
processor, its libraries or their threads. `matmul` is what policies use in place of `@`.

A search by such products takes up to twice as long as one by a library's. So a product of rounded
integers first finds the items that cannot be among the best, by a proven bound on its error. No
ranking lives here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray, FloatArray, IntArray
from policies.integers import GROUP, ROWS, Words, group_items, multiply
from policies.jit import njit

LANES = 8
"""Products that are added as a tree before they are added to the sum; vectors are padded with zeros
to a multiple of it.
"""

TILE_COLUMNS = 512
"""Columns of `LANES` rows of a table that stay in the smallest cache while a tile's rows go by."""

TILE_ROWS = 64
"""Rows whose sums of a tile's columns stay in the cache while the terms go by."""


def pad(vectors: FloatArray) -> FloatArray:
    """`vectors` `[N, d]` as float32 `[N, D]`, D the next multiple of `LANES`; the zeros that are
    appended change no sum.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    n_missing = -vectors.shape[1] % LANES
    return np.pad(vectors, ((0, 0), (0, n_missing))) if n_missing else vectors


@njit()
def _score_items(queries: Any, vectors: Any, ids: Any, out: Any) -> None:
    width = queries.shape[1]
    # Each level of all trees is a loop of its own, which is compiled to vector instructions
    products = np.empty(width, dtype=np.float32)
    pairs = np.empty(width // 2, dtype=np.float32)
    fours = np.empty(width // 4, dtype=np.float32)
    for row in range(len(queries)):
        q = queries[row]
        for place in range(ids.shape[1]):
            if ids[row, place] == 0:
                continue
            x = vectors[ids[row, place]]
            for i in range(width):
                products[i] = q[i] * x[i]
            for i in range(width // 2):
                pairs[i] = products[2 * i] + products[2 * i + 1]
            for i in range(width // 4):
                fours[i] = pairs[2 * i] + pairs[2 * i + 1]
            total = np.float32(0)
            for i in range(width // LANES):
                total += fours[2 * i] + fours[2 * i + 1]
            out[row, place] = total


def score_items(queries: FloatArray, vectors: FloatArray, ids: IntArray) -> FloatArray:
    """Inner products `[B, C]` of each of `queries` `[B, D]` with its own items `ids` `[B, C]`; -inf
    where the id is 0.

    Args:
        queries, vectors: as `pad` gives them.
        ids: rows of `vectors`.
    """
    out = np.full(ids.shape, -np.inf, dtype=np.float32)
    _score_items(queries, vectors, np.ascontiguousarray(ids), out)
    return out


@njit()
def _add(rows: Any, table: Any, out: Any) -> None:
    """Add `rows @ table` to `out`, in the order of `_score_items`: 8 products are added as
    ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)), and then to the sum; the number of columns of `rows`
    is a multiple of `LANES`.
    """
    for start in range(0, table.shape[1], TILE_COLUMNS):
        stop = min(start + TILE_COLUMNS, table.shape[1])
        for first in range(0, len(rows), TILE_ROWS):
            last = min(first + TILE_ROWS, len(rows))
            for i in range(0, len(table), LANES):
                # Row by row, of which the compiler sees that they are contiguous; of a block's rows
                # it does not, and the loop over them takes four times as long.
                x0, x1 = table[i, start:stop], table[i + 1, start:stop]
                x2, x3 = table[i + 2, start:stop], table[i + 3, start:stop]
                x4, x5 = table[i + 4, start:stop], table[i + 5, start:stop]
                x6, x7 = table[i + 6, start:stop], table[i + 7, start:stop]
                for row in range(first, last):
                    q, total = rows[row], out[row, start:stop]
                    q0, q1, q2, q3 = q[i], q[i + 1], q[i + 2], q[i + 3]
                    q4, q5, q6, q7 = q[i + 4], q[i + 5], q[i + 6], q[i + 7]
                    for c in range(len(total)):
                        low = (q0 * x0[c] + q1 * x1[c]) + (q2 * x2[c] + q3 * x3[c])
                        high = (q4 * x4[c] + q5 * x5[c]) + (q6 * x6[c] + q7 * x7[c])
                        total[c] += low + high


@njit()
def _add_dots(rows: Any, vector: Any, out: Any) -> None:
    """`_add` with a table of one column, `vector`: the same additions."""
    for row in range(len(rows)):
        q, total = rows[row], out[row]
        for i in range(0, len(vector), LANES):
            low = (q[i] * vector[i] + q[i + 1] * vector[i + 1]) + (
                q[i + 2] * vector[i + 2] + q[i + 3] * vector[i + 3]
            )
            high = (q[i + 4] * vector[i + 4] + q[i + 5] * vector[i + 5]) + (
                q[i + 6] * vector[i + 6] + q[i + 7] * vector[i + 7]
            )
            total += low + high
        out[row] = total


def matmul(rows: npt.ArrayLike, table: npt.ArrayLike) -> npt.NDArray[Any]:
    """`rows @ table`. A row's bytes depend on the row and the table alone: they are the same on
    every processor, in every batch and at every place.

    `LANES` products at a time are added as a tree, and the trees one after the other (in float32
    bit for bit the sums of `score_items`). A table that is contiguous in memory
    (`np.ascontiguousarray`) is not copied.

    Args:
        rows: `[B, d]`, or `[d]` for one row.
        table: `[d, N]`, or `[d]` for one column.

    Returns:
        `[B, N]`, without the axis of an operand that is a vector; float32 where both are, else
        float64.

    Raises:
        ValueError: operands that are neither matrices nor vectors, or whose shapes do not fit.
    """
    rows, table = np.asarray(rows), np.asarray(table)
    if not (rows.ndim in (1, 2) and table.ndim in (1, 2) and rows.shape[-1] == len(table)):
        raise ValueError(
            f"matmul takes [B, d] and [d, N], or vectors [d]; got shapes {rows.shape} and"
            f" {table.shape}"
        )
    dtype = np.float32 if rows.dtype == table.dtype == np.float32 else np.float64
    left = np.ascontiguousarray(np.atleast_2d(rows), dtype)
    columns = table if table.ndim == 2 else table[:, None]
    right = np.ascontiguousarray(columns, dtype)
    out = np.zeros((len(left), right.shape[1]), dtype)
    n_whole = len(table) // LANES * LANES
    parts = [(np.ascontiguousarray(left[:, :n_whole]), right[:n_whole])]
    if n_whole < len(table):
        n_missing = LANES - (len(table) - n_whole)
        last_terms = np.pad(left[:, n_whole:], ((0, 0), (0, n_missing)))
        last_table = np.pad(right[n_whole:], ((0, n_missing), (0, 0)))
        parts.append((last_terms, last_table))
    for terms, of_table in parts:
        if right.shape[1] == 1:
            _add_dots(terms, of_table[:, 0], out[:, 0])
        else:
            _add(terms, of_table, out)
    return out.reshape(rows.shape[:-1] + table.shape[1:])


@njit()
def _solve(a: Any, x: Any) -> bool:
    """Turn `a` `[n, n]` into its lower Cholesky factor and `x` `[n]` into the solution; False where
    `a` is not positive definite.
    """
    n = len(x)
    for i in range(n):
        for j in range(i + 1):
            total = a[i, j]
            for m in range(j):
                total -= a[i, m] * a[j, m]
            if i > j:
                a[i, j] = total / a[j, j]
            elif total > 0.0:
                a[i, i] = math.sqrt(total)
            else:
                return False
    for i in range(n):
        for m in range(i):
            x[i] -= a[i, m] * x[m]
        x[i] /= a[i, i]
    for i in range(n - 1, -1, -1):
        for m in range(i + 1, n):
            x[i] -= a[m, i] * x[m]
        x[i] /= a[i, i]
    return True


def solve(matrix: DoubleArray, right: DoubleArray) -> DoubleArray:
    """The x of `matrix @ x = right`, by Cholesky's factors (Golub & Van Loan 2013, Matrix
    Computations, 4.2) in a fixed order.

    Args:
        matrix: `[n, n]`, symmetric and positive definite; its lower triangle is read.
        right: `[n]`.

    Raises:
        ValueError: a matrix that is not positive definite.
    """
    factor, x = np.array(matrix, dtype=np.float64, order="C"), np.array(right, dtype=np.float64)
    if not _solve(factor, x):
        raise ValueError("the matrix to solve with is not positive definite")
    return x


@njit()
def _diagonalise(a: Any, v: Any) -> None:
    """Turn the symmetric `a` `[n, n]` into its eigenvalues (on its diagonal) and the unit matrix
    `v` into the eigenvectors (its columns).

    Jacobi's rotations, row by row (Golub & Van Loan 2013, Matrix Computations, 8.5), until what is
    left off the diagonal is rounding.
    """
    n = len(a)
    for _ in range(60):  # they converge quadratically: some ten sweeps are enough
        off_diagonal = whole = 0.0
        for i in range(n):
            for j in range(n):
                whole += a[i, j] * a[i, j]
                off_diagonal += 0.0 if i == j else a[i, j] * a[i, j]
        if not off_diagonal > 1e-36 * whole:
            return
        for p in range(n - 1):
            for q in range(p + 1, n):
                if a[p, q] == 0.0:
                    continue
                tau = (a[q, q] - a[p, p]) / (2.0 * a[p, q])
                t = (1.0 if tau >= 0.0 else -1.0) / (abs(tau) + math.sqrt(1.0 + tau * tau))
                c = 1.0 / math.sqrt(1.0 + t * t)
                s = t * c
                for i in range(n):
                    x, y = a[i, p], a[i, q]
                    a[i, p], a[i, q] = c * x - s * y, s * x + c * y
                for i in range(n):
                    x, y = a[p, i], a[q, i]
                    a[p, i], a[q, i] = c * x - s * y, s * x + c * y
                for i in range(n):
                    x, y = v[i, p], v[i, q]
                    v[i, p], v[i, q] = c * x - s * y, s * x + c * y


@njit()
def _pseudo_inverse(matrices: Any, out: Any) -> None:
    n = matrices.shape[1]
    for m in range(len(matrices)):
        a, v = matrices[m].copy(), np.eye(n)
        if not np.isfinite(a).all():
            out[m] = np.nan
            continue
        _diagonalise(a, v)
        largest = 0.0
        for i in range(n):
            largest = max(largest, abs(a[i, i]))
        for k in range(n):
            value = a[k, k]
            if abs(value) > 1e-15 * largest:
                for i in range(n):
                    for j in range(n):
                        out[m, i, j] += v[i, k] * v[j, k] / value


def pseudo_inverse(matrices: DoubleArray) -> DoubleArray:
    """The pseudo-inverses (Penrose 1955) of symmetric `matrices` `[..., n, n]`, in a fixed order:
    as `numpy.linalg.pinv(hermitian=True)`.

    Eigenvalues of at most 1e-15 of the largest count as 0; a matrix with a number that is not
    finite gives NaN.
    """
    matrices = np.ascontiguousarray(matrices, dtype=np.float64)
    out = np.zeros_like(matrices)
    _pseudo_inverse(matrices.reshape(-1, *matrices.shape[-2:]), out.reshape(-1, *out.shape[-2:]))
    return out


LOWEST = np.int16(-(2**15))
"""The rough score of an item that is left out; below that of every other item."""

FIRST_STEP = 1024
"""Items that are multiplied before it is looked whether shorter ones can still be among the best.
Every later step takes half as many items as there were so far.
"""

BLOCK = 4 * ROWS
"""Queries that are multiplied with the items of a step, while these are in the cache."""

TINY = 2.0**-40
"""Products of shorter vectors may be lost to underflow, those of vectors longer than its inverse
to overflow.
"""


@njit()
def _kth_largest(values: Any, k: int, floor: int) -> int:
    """The k-th largest of 16-bit integers, or `floor` where that is larger; by halving the
    range.
    """
    high = np.int16(floor)
    for i in range(len(values)):
        high = max(high, values[i])
    low = np.int16(floor)
    while low < high:
        middle = np.int16((np.int32(low) + np.int32(high) + 1) >> 1)
        n_above = np.int32(0)
        for i in range(len(values)):
            n_above += np.int32(values[i] >= middle)
        if n_above >= k:
            low = middle
        else:
            high = np.int16(middle - 1)
    return int(low)


@njit()
def _shortlist(
    queries: Any,
    groups: Any,
    ids: Any,
    places: Any,
    largest: Any,
    seen: Any,
    k: int,
    margin: int,
    n_buckets: int,
    candidates: Any,
    n_candidates: Any,
) -> None:
    """Fill `candidates` `[B, C]` with the unseen items that may be among the k best, and
    `n_candidates` `[B]` with their number, which may exceed C.

    Items stand in `groups` from the longest to the shortest. They are multiplied with the queries
    until the shorter ones cannot come within `margin` of the k-th largest score so far.

    A lower bound on that score is enough. The item at place p is in bucket p modulo `n_buckets`.
    The k largest of the buckets' maxima are scores of k different items, so the k-th largest
    maximum is at most the k-th largest score. And only a bucket whose maximum reaches the bound is
    looked through for candidates.

    Args:
        queries: `[B filled up to ROWS, D / 2]` pairs of 16-bit integers.
        groups: the items' integers, as `group_items` gives them.
        ids: `[N]` which item stands at each place.
        places: `[N + 1]` where each item stands.
        largest: `[N]` what a rough score of the item at each place can be at most; never rises.
        seen: `[B, S]` items left out, 0 = none.
        k: wanted.
        margin: by how much a rough score and another one can be wrong together.
        n_buckets: more than k.
        candidates, n_candidates: outputs.
    """
    n = len(ids)
    scores = np.empty((BLOCK, len(groups) * GROUP), dtype=np.int16)
    bucket_max = np.empty((BLOCK, n_buckets), dtype=np.int16)
    lower_bound = np.empty(BLOCK, dtype=np.int64)
    n_multiplied = np.empty(BLOCK, dtype=np.int64)
    for first in range(0, len(candidates), BLOCK):
        rows = min(BLOCK, len(candidates) - first)
        for row in range(rows):
            lower_bound[row] = LOWEST
            for bucket in range(n_buckets):
                bucket_max[row, bucket] = LOWEST
        end = 0
        while end < n:
            start, step = end, max(FIRST_STEP, end // 2)
            end = min(start + max(step // n_buckets, 1) * n_buckets, n)
            for tile in range(0, rows, ROWS):
                last = min(tile + ROWS, rows)
                least = lower_bound[tile]
                for row in range(tile + 1, last):
                    least = min(least, lower_bound[row])
                if largest[start] < least - margin:
                    continue
                multiply(
                    queries[first + tile : first + tile + ROWS],
                    groups,
                    start // GROUP,
                    -(-end // GROUP),
                    15,
                    scores[tile : tile + ROWS],
                )
                for row in range(tile, last):
                    row_scores, row_max = scores[row], bucket_max[row]
                    for j in range(seen.shape[1]):
                        place = places[seen[first + row, j]]
                        if start <= place < end:
                            row_scores[place] = LOWEST
                    for round_start in range(start, end, n_buckets):
                        # One item for each bucket: a loop that is compiled to vector instructions
                        one_each = row_scores[round_start : min(round_start + n_buckets, end)]
                        for bucket in range(len(one_each)):
                            row_max[bucket] = max(row_max[bucket], one_each[bucket])
                    lower_bound[row] = _kth_largest(row_max, k, lower_bound[row])
                    n_multiplied[row] = end
        for row in range(rows):
            bound, n_row = max(lower_bound[row] - margin, LOWEST + 1), 0
            for bucket in range(n_buckets):
                if bucket_max[row, bucket] < bound:
                    continue
                for place in range(bucket, n_multiplied[row], n_buckets):
                    if scores[row, place] >= bound:
                        if n_row < candidates.shape[1]:
                            candidates[first + row, n_row] = ids[place]
                        n_row += 1
            n_candidates[first + row] = n_row


class Rough:
    """Approximate inner products with all items that are long enough, in 16-bit integers.

    With M the largest length of an item and s = 2^15 - 1 - sqrt(d)/2, a query q and an item x
    become Q = s q / |q| and X = s x / M, rounded to integers. Rounding moves a vector by at most
    sqrt(d)/2, so none is longer than 2^15 - 1. Q . X is exact, and differs from s^2 q . x / (|q| M)
    by at most sqrt(d)/2 (|X| + s) < 2^15 sqrt(d). A score of `score_items` is off by less than
    2^-23 d |q| M (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), which
    is less than 2^7 d in the units of Q . X. The lower 15 bits are dropped, which loses less than
    one unit of 2^15. So in these units every score is within `error` = sqrt(d) + d/256 + 1 of its
    rough one; rough scores range over 2^16.

    No rough score exceeds |X| (Cauchy-Schwarz), so after the k best of the longer items the shorter
    ones need not be looked at (Teflioudi, Gemulla & Mykytiuk, LEMP, SIGMOD 2015). Where all items
    are about equally long, all are looked at.
    """

    def __init__(self, vectors: FloatArray) -> None:
        """Prepare the items' finite `vectors` `[N + 1, D]` as `pad` gives them; row 0 is
        padding.
        """
        width = vectors.shape[1]
        self._of_width(width)
        lengths = _lengths(vectors[1:])
        self.longest = float(lengths.max(initial=0.0))
        self._ids = np.argsort(-lengths, kind="stable") + 1
        self._places = np.full(len(vectors), -1)
        self._places[self._ids] = np.arange(len(self._ids))
        scale = self._scale / max(self.longest, TINY)
        scales = np.full(len(self._ids), scale)
        self._groups = group_items(_round(vectors[self._ids], scales))
        self._largest = np.ceil(lengths[self._ids - 1] * scale + width**0.5 / 2)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What was prepared, by name."""
        return {
            "ids": self._ids,
            "places": self._places,
            "groups": self._groups,
            "largest": self._largest,
            "longest": np.asarray(self.longest),
        }

    @classmethod
    def of(cls, width: int, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """What `arrays` of vectors of this width gave, without preparing it again."""
        rough = cls.__new__(cls)
        rough._of_width(width)
        rough.longest = float(arrays["longest"])
        rough._ids, rough._places = arrays["ids"], arrays["places"]
        rough._groups, rough._largest = arrays["groups"], arrays["largest"]
        return rough

    def _of_width(self, width: int) -> None:
        self._scale = 2.0**15 - 1 - width**0.5 / 2
        self.error = width**0.5 + width / 256 + 1

    def fits(self, k: int) -> bool:
        """Whether a shortlist of k saves time: there are more buckets than wanted items, and two or
        more items in a bucket.
        """
        return 2 * self._n_buckets(k) <= len(self._ids)

    @staticmethod
    def _n_buckets(k: int) -> int:
        """A multiple of `GROUP`, so that a step ends with a group."""
        return max(256, -(-2 * k // GROUP) * GROUP)

    def shortlist(
        self, queries: FloatArray, k: int, seen: IntArray
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Items that may be among the k of largest score; seen ones are left out.

        Args:
            queries: `[B, D]` as `pad` gives them.
            k: wanted.
            seen: `[B, S]` items left out, 0 = none.

        Returns:
            Candidates `[B, C]`, 0 = none, and `[B]` whether they hold the k best for certain. They
            do not where too many scores lie near one another, and for a query so short or long (or
            not finite) that the bound on the error does not hold.
        """
        candidates = np.zeros((len(queries), 3 * k + 64), dtype=np.int64)
        n_candidates = np.zeros(len(queries), dtype=np.int64)
        lengths = _lengths(queries)
        is_bounded = (lengths >= TINY) & (lengths <= 1 / TINY)
        is_bounded &= TINY <= self.longest <= 1 / TINY
        if not is_bounded.all():
            queries = np.where(is_bounded[:, None], queries, np.float32(0))
            lengths = np.where(is_bounded, lengths, 1)
        words = np.zeros((-(-len(queries) // ROWS) * ROWS, queries.shape[1]), dtype=np.int16)
        words[: len(queries)] = _round(queries, self._scale / lengths)
        _shortlist(
            words.view(np.int32),
            self._groups,
            self._ids,
            self._places,
            self._largest,
            seen,
            k,
            math.ceil(2 * self.error),
            self._n_buckets(k),
            candidates,
            n_candidates,
        )
        is_certain: npt.NDArray[np.bool_] = is_bounded & (n_candidates <= candidates.shape[1])
        return candidates[:, : n_candidates.max(initial=1)], is_certain


def _lengths(vectors: FloatArray) -> npt.NDArray[np.float64]:
    """The Euclidean lengths `[N]` of `vectors` `[N, D]`."""
    wide = vectors.astype(np.float64)
    squares: npt.NDArray[np.float64] = np.einsum("nd,nd->n", wide, wide)
    return np.sqrt(squares)


def _round(vectors: FloatArray, scales: npt.NDArray[np.float64]) -> Words:
    """`vectors` `[N, D]`, each times its own one of `scales` `[N]`, as the nearest integers."""
    return np.rint(vectors * scales[:, None]).astype(np.int16)
