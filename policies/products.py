"""Inner products of queries with items: of chosen items in a fixed order of addition, of all items fast and roughly. No ranking lives here.

A score is a sum in float32 whose order of addition is written below: its bytes depend on the two vectors alone, not on the batch, the
processor or its libraries. Multiplying every item so would take twice as long as a library's matrix product, whose last bits depend on
the shapes of its operands; so that product only says which items need not be looked at, with a bound on its error.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from policies.base import FloatArray, IntArray

LANES = 8
"""Products that are added as a tree before they are added to the sum; vectors are padded with zeros to a multiple of it."""

TILE = 1024
"""Items whose sums stay in the cache while the coordinates go by."""


def padded(vectors: FloatArray) -> FloatArray:
    """`vectors` `[N, d]` as float32 `[N, D]`, D the next multiple of `LANES`; zeros change no sum."""
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
                low = (q[i] * x[i] + q[i + 1] * x[i + 1]) + (q[i + 2] * x[i + 2] + q[i + 3] * x[i + 3])
                high = (q[i + 4] * x[i + 4] + q[i + 5] * x[i + 5]) + (q[i + 6] * x[i + 6] + q[i + 7] * x[i + 7])
                total += low + high
            out[row, place] = total


def chosen(queries: FloatArray, vectors: FloatArray, ids: IntArray) -> FloatArray:
    """Inner products `[B, C]` of each of `queries` `[B, D]` with its items `ids` `[B, C]`; -inf where the id is 0.

    Args:
        queries, vectors: as `padded` gives them.
        ids: rows of `vectors`.
    """
    out = np.full(ids.shape, -np.inf, dtype=np.float32)
    _chosen(queries, vectors, ids, out)
    return out


@numba.njit(cache=True, nogil=True)
def _every(queries: Any, columns: Any, out: Any) -> None:
    """The sums of `_chosen`, of all items: the same additions in the same order."""
    for start in range(0, columns.shape[1], TILE):
        stop = min(start + TILE, columns.shape[1])
        for row in range(len(queries)):
            q, total = queries[row], out[row, start:stop]
            total[:] = 0
            for i in range(0, len(q), LANES):
                x0, x1, x2, x3 = columns[i, start:stop], columns[i + 1, start:stop], columns[i + 2, start:stop], columns[i + 3, start:stop]
                x4, x5, x6, x7 = (
                    columns[i + 4, start:stop],
                    columns[i + 5, start:stop],
                    columns[i + 6, start:stop],
                    columns[i + 7, start:stop],
                )
                q0, q1, q2, q3, q4, q5, q6, q7 = q[i], q[i + 1], q[i + 2], q[i + 3], q[i + 4], q[i + 5], q[i + 6], q[i + 7]
                for c in range(len(total)):
                    low = (q0 * x0[c] + q1 * x1[c]) + (q2 * x2[c] + q3 * x3[c])
                    high = (q4 * x4[c] + q5 * x5[c]) + (q6 * x6[c] + q7 * x7[c])
                    total[c] += low + high


def every(queries: FloatArray, columns: FloatArray) -> FloatArray:
    """Inner products `[B, N]` of `queries` `[B, D]` with all items, `columns` `[D, N]`: bit for bit those of `chosen`."""
    out = np.empty((len(queries), columns.shape[1]), dtype=np.float32)
    _every(queries, columns, out)
    return out


LOWEST = np.float32(-3.0e38)
"""Below every rough score; what is left out is -inf."""

HALVINGS = 8


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})  # without NaN and signed zeros, a maximum is a vector instruction
def _reached(upper: Any, k: int) -> float:
    """A value that at least `k` of `upper` reach, near the largest one: their range is halved; -inf where fewer than `k` are left in."""
    low, high, n = np.float32(np.inf), LOWEST, 0
    for hand in range(len(upper)):
        if upper[hand] > LOWEST:
            n += 1
            low = min(low, upper[hand])
        high = max(high, upper[hand])
    if n < k:
        return -np.inf
    for _ in range(HALVINGS):
        middle = np.float32(0.5) * (low + high)
        reach = np.int32(0)
        for hand in range(len(upper)):
            reach += np.int32(upper[hand] >= middle)
        if reach >= k:
            low = middle
        else:
            high = middle
    return float(low)


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _shortlist(bits: Any, shift: Any, seen: Any, k: int, margin: Any, width: int, ids: Any, found: Any) -> None:
    """Fill `ids` `[B, C]` with the unseen items that may be among the first k, `found` `[B]` with their number, which may exceed C.

    `bits` `[B, N]` are the upper bits of rough float32 scores. Items are dealt into `width` hands; what k of the hands' maxima reach
    is at most the k-th largest score, and only hands whose maximum comes near it are looked through.
    """
    n = bits.shape[1]
    whole, upper = np.empty(width, dtype=np.uint32), np.empty(width, dtype=np.float32)
    score = whole.view(np.float32)
    nothing = np.uint32(0xFF800000) >> shift
    for row in range(len(bits)):
        rough = bits[row]
        rough[0] = nothing
        for item in seen[row]:
            rough[item] = nothing
        upper[:] = -np.inf
        for start in range(0, n, width):
            dealt = rough[start : start + width]
            for hand in range(len(dealt)):
                whole[hand] = np.uint32(dealt[hand]) << shift
            for hand in range(len(dealt)):
                upper[hand] = max(upper[hand], score[hand])
        bound, m = _reached(upper, k) - margin[row], 0
        for hand in range(width):
            if upper[hand] < bound:
                continue
            for item in range(hand, n, width):
                whole[0] = np.uint32(rough[item]) << shift
                if score[0] >= bound and score[0] > LOWEST:
                    if m < ids.shape[1]:
                        ids[row, m] = item
                    m += 1
        found[row] = m


class Rough:
    """Approximate inner products with all items, in bfloat16 where the processor multiplies it, else in float32.

    With u = 2^-9 the relative error of a rounded bfloat16, the product of rounded vectors is off by at most (2u + u^2) |q| |x|, the
    rounded result by u |q| |x| more, and float32 sums of d terms, rough or in `chosen`'s order, by less than 2^-21 d |q| |x| together
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); with M the largest |x|, every score is within
    (2^-7 + 2^-21 d) |q| M, whatever the order of addition.
    """

    def __init__(self, columns: FloatArray) -> None:
        """Of the items' vectors as finite `columns` `[D, N]`."""
        self._width, self._items = int(columns.shape[0]), int(columns.shape[1])
        self.longest = float(np.sqrt((columns.astype(np.float64) ** 2).sum(axis=0).max(initial=0.0)))
        self._shift = 16 if _multiplies_bfloat16() else 0
        self._rows = min(max(ROOM // (self._items * (2 if self._shift else 4)), 16), 256)
        self._columns: Any = columns
        self._scores: Any = np.empty((self._rows, self._items), dtype=np.uint16 if self._shift else np.uint32)
        if self._shift:
            import torch

            self._columns = torch.from_numpy(np.ascontiguousarray(columns.T)).bfloat16().t()  # by item in memory: multiplied faster so

    def fits(self, k: int) -> bool:
        """Whether a shortlist of k is worth its while: more hands than wanted items, and some items in a hand."""
        return 2 * self._hands(k) <= self._items

    @staticmethod
    def _hands(k: int) -> int:
        return max(256, 2 * k)

    def shortlist(self, queries: FloatArray, k: int, seen: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
        """Items that may be among the k of largest score, seen ones left out.

        Args:
            queries: `[B, D]` as `padded` gives them.
            k: wanted.
            seen: `[B, S]` items left out, 0 = none.

        Returns:
            Items `[B, C]`, 0 = none, and `[B]` whether they hold the k best for certain: not where too many are near one another, and
            not for queries so short or long (or not finite) that the bound on the error does not hold.
        """
        ids = np.zeros((len(queries), 3 * k + 64), dtype=np.int64)
        found = np.zeros(len(queries), dtype=np.int64)
        length = np.sqrt((queries.astype(np.float64) ** 2).sum(axis=1))
        holds = (length >= TINY) & (length <= 1 / TINY) & (TINY <= self.longest <= 1 / TINY)
        queries = queries if holds.all() else np.where(holds[:, None], queries, np.float32(0))
        length = np.where(holds, length, 0)
        margin = (2 * (1 + 2.0**-20) * (2.0**-7 + 2.0**-21 * self._width) * length * self.longest).astype(np.float32)
        for start in range(0, len(queries), self._rows):
            some = slice(start, min(start + self._rows, len(queries)))
            _shortlist(
                self._bits(queries[some]), np.uint32(self._shift), seen[some], k, margin[some], self._hands(k), ids[some], found[some]
            )
        certain: npt.NDArray[np.bool_] = holds & (found <= ids.shape[1])
        return ids, certain

    def _bits(self, queries: FloatArray) -> npt.NDArray[Any]:
        """The upper bits of the rough scores `[B, N]`, written over those of the block before."""
        bits: npt.NDArray[Any] = self._scores[: len(queries)]
        if self._shift:
            import torch

            out = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)
            torch.mm(torch.from_numpy(queries).bfloat16(), self._columns, out=out)
        else:
            np.matmul(queries, self._columns, out=bits.view(np.float32))
        return bits


ROOM = 2**21
"""Bytes of rough scores at once: they should stay in a core's cache."""

TINY = 2.0**-40
"""Lengths below it may lose products to underflow, lengths above its inverse to overflow."""


def _multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16; torch from 2.10 on says so."""
    import torch

    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
