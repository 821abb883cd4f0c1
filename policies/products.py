"""Products in a fixed order of addition: rows with a table, queries with chosen items; and rough
ones that say what may be left out.

A library's product adds the terms of one element in an order that depends on the shapes of its
operands and, by the processor, on the place of the row in its block or in memory. Here the order is
written below: an element's bytes depend on the two vectors alone, not on the batch, the processor,
its libraries or their threads. `matmul` is what policies use in place of `@`. Searching so takes up
to twice as long as by a library's product. So a product of rounded integers says which items need
not be looked at, with a bound on its error. No ranking lives here.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray, FloatArray, IntArray
from policies.integers import GROUP, ROWS, Words, grouped, multiply

LANES = 8
"""Products that are added as a tree before they are added to the sum; vectors are padded with zeros
to a multiple of it.
"""

TILE = 1024
"""Columns of a table that are in the cache while the rows go by, and"""

TOGETHER = 64
"""rows whose sums of these columns are, while the terms go by."""


def padded(vectors: FloatArray) -> FloatArray:
    """`vectors` `[N, d]` as float32 `[N, D]`, D the next multiple of `LANES`; zeros change no
    sum.
    """
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    short = -vectors.shape[1] % LANES
    return np.pad(vectors, ((0, 0), (0, short))) if short else vectors


@numba.njit(cache=True, nogil=True)
def _chosen(queries: Any, vectors: Any, ids: Any, out: Any) -> None:
    for row in range(len(queries)):
        q = queries[row]
        for place in range(ids.shape[1]):
            if ids[row, place] == 0:
                continue
            x = vectors[ids[row, place]]
            total = np.float32(0)
            for i in range(0, len(q), LANES):
                low = (q[i] * x[i] + q[i + 1] * x[i + 1]) + (
                    q[i + 2] * x[i + 2] + q[i + 3] * x[i + 3]
                )
                high = (q[i + 4] * x[i + 4] + q[i + 5] * x[i + 5]) + (
                    q[i + 6] * x[i + 6] + q[i + 7] * x[i + 7]
                )
                total += low + high
            out[row, place] = total


def chosen(queries: FloatArray, vectors: FloatArray, ids: IntArray) -> FloatArray:
    """Inner products `[B, C]` of each of `queries` `[B, D]` with its items `ids` `[B, C]`; -inf
    where the id is 0.

    Args:
        queries, vectors: as `padded` gives them.
        ids: rows of `vectors`.
    """
    out = np.full(ids.shape, -np.inf, dtype=np.float32)
    _chosen(queries, vectors, ids, out)
    return out


@numba.njit(cache=True, nogil=True)
def _add(rows: Any, table: Any, out: Any) -> None:
    """Add `rows @ table` to `out`, in the order of `_chosen`; the number of columns of `rows` is a
    multiple of `LANES`.
    """
    for start in range(0, table.shape[1], TILE):
        stop = min(start + TILE, table.shape[1])
        for first in range(0, len(rows), TOGETHER):
            last = min(first + TOGETHER, len(rows))
            for i in range(0, len(table), LANES):
                x0, x1, x2, x3 = (
                    table[i, start:stop],
                    table[i + 1, start:stop],
                    table[i + 2, start:stop],
                    table[i + 3, start:stop],
                )
                x4, x5, x6, x7 = (
                    table[i + 4, start:stop],
                    table[i + 5, start:stop],
                    table[i + 6, start:stop],
                    table[i + 7, start:stop],
                )
                for row in range(first, last):
                    q, total = rows[row], out[row, start:stop]
                    q0, q1, q2, q3, q4, q5, q6, q7 = (
                        q[i],
                        q[i + 1],
                        q[i + 2],
                        q[i + 3],
                        q[i + 4],
                        q[i + 5],
                        q[i + 6],
                        q[i + 7],
                    )
                    for c in range(len(total)):
                        low = (q0 * x0[c] + q1 * x1[c]) + (q2 * x2[c] + q3 * x3[c])
                        high = (q4 * x4[c] + q5 * x5[c]) + (q6 * x6[c] + q7 * x7[c])
                        total[c] += low + high


@numba.njit(cache=True, nogil=True)
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
    """`rows @ table`, a row's bytes depending on the row and the table alone: on every processor,
    in every batch and place.

    Products are added by `LANES` as a tree, and the trees one after the other (float32: bit for bit
    the sums of `chosen`). A table that is contiguous in memory (`np.ascontiguousarray`) is not
    copied.

    Args:
        rows: `[B, d]`, or `[d]` for one row.
        table: `[d, N]`, or `[d]` for one column.

    Returns:
        `[B, N]`, without the axis of an operand that is a vector; float32 where both are, else
        float64.

    Raises:
        ValueError: operands that are neither matrices nor vectors, or do not fit.
    """
    rows, table = np.asarray(rows), np.asarray(table)
    if not (rows.ndim in (1, 2) and table.ndim in (1, 2) and rows.shape[-1] == len(table)):
        raise ValueError(
            f"matmul takes [B, d] and [d, N], or vectors [d]; got shapes {rows.shape} and"
            f" {table.shape}"
        )
    dtype = np.float32 if rows.dtype == table.dtype == np.float32 else np.float64
    left = np.ascontiguousarray(rows if rows.ndim == 2 else rows[None], dtype)
    right = np.ascontiguousarray(table if table.ndim == 2 else table[:, None], dtype)
    out = np.zeros((len(left), right.shape[1]), dtype)
    whole = len(table) // LANES * LANES
    parts = [(left[:, :whole], right[:whole])]
    if whole < len(table):
        short = LANES - (len(table) - whole)
        parts.append(
            (
                np.pad(left[:, whole:], ((0, 0), (0, short))),
                np.pad(right[whole:], ((0, short), (0, 0))),
            )
        )
    for some, of_table in parts:
        if right.shape[1] == 1:
            _add_dots(some, of_table[:, 0], out[:, 0])
        else:
            _add(some, of_table, out)
    return out.reshape(rows.shape[:-1] + table.shape[1:])


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def _diagonalise(a: Any, v: Any) -> None:
    """Turn the symmetric `a` `[n, n]` into its eigenvalues, on its diagonal, and the unit matrix
    `v` into their vectors, by columns.

    Jacobi's rotations, row by row (Golub & Van Loan 2013, Matrix Computations, 8.5), until what is
    beside the diagonal is rounding.
    """
    n = len(a)
    for _ in range(60):
        beside = whole = 0.0
        for i in range(n):
            for j in range(n):
                whole += a[i, j] * a[i, j]
                beside += 0.0 if i == j else a[i, j] * a[i, j]
        if not beside > 1e-36 * whole:
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


@numba.njit(cache=True, nogil=True)
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
"""What is left out; below every rough score."""


@numba.njit(cache=True, nogil=True)
def _reached(upper: Any, k: int, low: int) -> int:
    """The k-th largest of `upper`, by halving the range, where it is at least `low`; else `low`."""
    high = np.int16(low)
    for hand in range(len(upper)):
        high = max(high, upper[hand])
    least = np.int16(low)
    while least < high:
        middle = np.int16((np.int32(least) + np.int32(high) + 1) >> 1)
        reach = np.int32(0)
        for hand in range(len(upper)):
            reach += np.int32(upper[hand] >= middle)
        if reach >= k:
            least = middle
        else:
            high = np.int16(middle - 1)
    return int(least)


@numba.njit(cache=True, nogil=True)
def _shortlist(
    queries: Any,
    groups: Any,
    ids: Any,
    places: Any,
    most: Any,
    seen: Any,
    k: int,
    margin: int,
    width: int,
    short: Any,
    found: Any,
) -> None:
    """Fill `short` `[B, C]` with the unseen items that may be among the first k, `found` `[B]` with
    their number, which may exceed C.

    Items stand in `groups` from the longest to the shortest, `ids` `[N]`, each with the `most`
    `[N]` that a rough score of it can be. They are multiplied with `queries`, pairs
    `[B filled up to ROWS, D / 2]`, until what is left is below the k-th largest score so far by
    more than the `margin`. To find that one, items are dealt into `width` hands: the k-th largest
    of the hands' maxima is at most the k-th largest score, and only hands whose maximum comes near
    it are looked through.
    """
    n = len(ids)
    scores = np.empty((BLOCK, len(groups) * GROUP), dtype=np.int16)
    upper = np.empty((BLOCK, width), dtype=np.int16)
    reached, multiplied = np.empty(BLOCK, dtype=np.int64), np.empty(BLOCK, dtype=np.int64)
    for first in range(0, len(short), BLOCK):
        rows = min(BLOCK, len(short) - first)
        upper[:], reached[:] = LOWEST, LOWEST
        end = 0
        while end < n:
            start, step = end, max(STEP, end // 2)
            end = min(start + max(step // width, 1) * width, n)
            for some in range(0, rows, ROWS):
                last = min(some + ROWS, rows)
                if most[start] < reached[some:last].min() - margin:
                    continue
                multiply(
                    queries[first + some : first + some + ROWS],
                    groups,
                    start // GROUP,
                    -(-end // GROUP),
                    15,
                    scores[some : some + ROWS],
                )
                for row in range(some, last):
                    mine, best = scores[row], upper[row]
                    for item in seen[first + row]:
                        if start <= places[item] < end:
                            mine[places[item]] = LOWEST
                    for hands in range(start, end, width):
                        dealt = mine[hands : min(hands + width, end)]
                        for hand in range(len(dealt)):
                            best[hand] = max(best[hand], dealt[hand])
                    reached[row], multiplied[row] = _reached(best, k, reached[row]), end
        for row in range(rows):
            bound, m = max(reached[row] - margin, LOWEST + 1), 0
            for hand in range(width):
                if upper[row, hand] < bound:
                    continue
                for place in range(hand, multiplied[row], width):
                    if scores[row, place] >= bound:
                        if m < short.shape[1]:
                            short[first + row, m] = ids[place]
                        m += 1
            found[first + row] = m


class Rough:
    """Approximate inner products with all items that are long enough, in 16-bit integers.

    With M the largest length of an item and s = 2^15 - 1 - sqrt(d)/2, a query q and an item x
    become Q = s q / |q| and X = s x / M, rounded to integers: off by at most sqrt(d)/2, and so no
    longer than 2^15 - 1. Q . X is exact, and off from s^2 q . x / (|q| M) by at most sqrt(d)/2 (|X|
    + s) < 2^15 sqrt(d). A score in `chosen`'s order is off by less than 2^-23 d |q| M (Higham,
    Accuracy and Stability of Numerical Algorithms, 2002, section 3.1), less than 2^7 d here. So in
    units of 2^15, of which one more is lost with the lower bits, every score is within `error` =
    sqrt(d) + d/256 + 1 of its rough one; their range is 2^16.

    No rough score exceeds |X| (Cauchy-Schwarz), so after the k best of the longer items the shorter
    ones need not be looked at (Teflioudi, Gemulla & Mykytiuk, LEMP, SIGMOD 2015). Where lengths say
    nothing, all are.
    """

    def __init__(self, vectors: FloatArray) -> None:
        """Of the items' finite `vectors` `[N + 1, D]` as `padded` gives them; row 0 is padding."""
        width = vectors.shape[1]
        self._scale = 2.0**15 - 1 - width**0.5 / 2
        self.error = width**0.5 + width / 256 + 1
        lengths = _lengths(vectors[1:])
        self.longest = float(lengths.max(initial=0.0))
        self._ids = np.argsort(-lengths, kind="stable") + 1
        self._places = np.full(len(vectors), -1)
        self._places[self._ids] = np.arange(len(self._ids))
        scale = self._scale / max(self.longest, TINY)
        self._groups = grouped(_rounded(vectors[self._ids], np.full(len(self._ids), scale)))
        self._most = np.ceil(lengths[self._ids - 1] * scale + width**0.5 / 2)

    def fits(self, k: int) -> bool:
        """Whether a shortlist of k is worth its while: more hands than wanted items, and some items
        in a hand.
        """
        return 2 * self._hands(k) <= len(self._ids)

    @staticmethod
    def _hands(k: int) -> int:
        """A multiple of `GROUP`."""
        return max(256, -(-2 * k // GROUP) * GROUP)

    def shortlist(
        self, queries: FloatArray, k: int, seen: IntArray
    ) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Items that may be among the k of largest score, seen ones left out.

        Args:
            queries: `[B, D]` as `padded` gives them.
            k: wanted.
            seen: `[B, S]` items left out, 0 = none.

        Returns:
            Items `[B, C]`, 0 = none, and `[B]` whether they hold the k best for certain: not where
            too many are near one another, and not for queries so short or long (or not finite) that
            the bound on the error does not hold.
        """
        ids = np.zeros((len(queries), 3 * k + 64), dtype=np.int64)
        found = np.zeros(len(queries), dtype=np.int64)
        length = _lengths(queries)
        holds = (length >= TINY) & (length <= 1 / TINY) & (TINY <= self.longest <= 1 / TINY)
        if not holds.all():
            queries, length = (
                np.where(holds[:, None], queries, np.float32(0)),
                np.where(holds, length, 1),
            )
        words = np.pad(
            _rounded(queries, self._scale / length), ((0, -len(queries) % ROWS), (0, 0))
        ).view(np.int32)
        margin = math.ceil(2 * self.error)
        _shortlist(
            words,
            self._groups,
            self._ids,
            self._places,
            self._most,
            seen,
            k,
            margin,
            self._hands(k),
            ids,
            found,
        )
        certain: npt.NDArray[np.bool_] = holds & (found <= ids.shape[1])
        return ids[:, : found.max(initial=1)], certain


def _lengths(vectors: FloatArray) -> npt.NDArray[np.float64]:
    """`[N]` of `vectors` `[N, D]`."""
    wide = vectors.astype(np.float64)
    squares: npt.NDArray[np.float64] = np.einsum("nd,nd->n", wide, wide)
    return np.sqrt(squares)


def _rounded(vectors: FloatArray, scale: npt.NDArray[np.float64]) -> Words:
    """`vectors` `[N, D]`, each times its `scale` `[N]`, as the nearest integers."""
    return np.rint(vectors * scale[:, None]).astype(np.int16)


STEP = 1024
"""Items that are multiplied before it is looked whether shorter ones can be among the best; later
half as many as there were so far.
"""

BLOCK = 4 * ROWS
"""Queries that are multiplied with them, while they are in the cache."""

TINY = 2.0**-40
"""Lengths below it may lose products to underflow, lengths above its inverse to overflow."""
