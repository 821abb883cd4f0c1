"""Compiled sums of samples: the sums and products of the units of each group, in one pass, and the
sums of the units that each of many coins picks, or many draws keyed by unit. Their order of
addition is written here, so that they are the same on every processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from policies.jit import njit
from policies.philox import philox_words

Floats = npt.NDArray[np.float64]

DRAWS = 64
"""Draws that are made at once: 8 counters of Philox give 16 bits to each."""

UNITS = 1 << 9
"""Units whose values stay in the cache while all draws go by."""

NIBBLE = 4
"""Units of which the sums over every subset are made once: 16 of them."""


@njit()
def _dot(x: Any, y: Any) -> Any:
    """The inner product of two vectors, in four sums that run beside one another."""
    s0, s1, s2, s3, whole = 0.0, 0.0, 0.0, 0.0, len(x) // 4 * 4
    for i in range(0, whole, 4):
        s0 += x[i] * y[i]
        s1 += x[i + 1] * y[i + 1]
        s2 += x[i + 2] * y[i + 2]
        s3 += x[i + 3] * y[i + 3]
    for i in range(whole, len(x)):
        s0 += x[i] * y[i]
    return (s0 + s1) + (s2 + s3)


@njit()
def add_groups(block: Any, group: Any, count: Any, shift: Any, total: Any, gram: Any) -> None:
    """Add a stretch of units to the sums of their groups, values less the group's `shift`.

    The shift of a group is the mean of its units in the first stretch that has any, so that nothing
    cancels (Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American
    Statistician 1983).

    Args:
        block: `[p, units or more]` values.
        group: `[units]` of 0..k-1; units of other numbers are left out.
        count: `[k]` units so far, added to, as are `total` `[k, p]` and `gram` `[k, p, p]`.
        shift: `[k, p]`, set where a group begins.
    """
    k, p = shift.shape
    start = np.zeros(k + 1, dtype=np.int64)
    for g in group:
        if 0 <= g < k:
            start[g + 1] += 1
    for g in range(k):
        start[g + 1] += start[g]
    order, place = np.empty(start[k], dtype=np.int64), np.empty(k, dtype=np.int64)
    for g in range(k):
        place[g] = start[g]
    for unit in range(len(group)):
        g = group[unit]
        if 0 <= g < k:
            order[place[g]] = unit
            place[g] += 1
    ones, away = np.empty(len(order)), np.empty((p, len(order)))
    for unit in range(len(order)):
        ones[unit] = 1.0
    for g in range(k):
        own = order[start[g] : start[g + 1]]
        n = len(own)
        if n == 0:
            continue
        for i in range(p):
            values, column = away[i, :n], block[i]
            for unit in range(n):
                values[unit] = column[own[unit]]
            if count[g] == 0:
                shift[g, i] = _dot(values, ones[:n]) / n
            for unit in range(n):
                values[unit] -= shift[g, i]
            total[g, i] += _dot(values, ones[:n])
            for j in range(i + 1):
                gram[g, i, j] += _dot(values, away[j, :n])
                gram[g, j, i] = gram[g, i, j]
        count[g] += n


@njit()
def _add_heads(packed: Any, values: Any, sums: Any) -> None:
    """Sums of coins that lie as bits, `[units / 8, R]`, and `values` `[units, 4]`, both
    filled up with zeros.

    The sums over every subset of four units are made once; an experiment looks up those of its own
    ("the method of the four Russians", Arlazarov, Dinic, Kronrod & Faradzev 1970).
    """
    low, high = np.zeros((16, 4)), np.zeros((16, 4))
    for byte in range(len(packed)):
        for subset in range(1, 16):
            rest, last = subset & (subset - 1), 0
            while not (subset >> last) & 1:
                last += 1
            for c in range(4):
                low[subset, c] = low[rest, c] + values[8 * byte + last, c]
                high[subset, c] = high[rest, c] + values[8 * byte + NIBBLE + last, c]
        bits = packed[byte]
        for row in range(len(bits)):
            a, b, own = low[bits[row] & 15], high[bits[row] >> NIBBLE], sums[row]
            own[0] += a[0] + b[0]
            own[1] += a[1] + b[1]
            own[2] += a[2] + b[2]
            own[3] += a[3] + b[3]


def sums_of_heads(heads: npt.NDArray[Any], values: Floats) -> tuple[Floats, Floats]:
    """How many units have 1 in `heads` `[R, units]`, `[R]`, and the sums `[R, 4]` of
    their `values` `[units, 4]`.
    """
    bits = np.packbits(heads == 1, axis=1, bitorder="little")
    padded = np.zeros((8 * bits.shape[1], 4))
    padded[: len(values)] = values
    sums = np.zeros((len(heads), 4))
    _add_heads(np.ascontiguousarray(bits.T), padded, sums)
    return np.bitwise_count(bits).sum(axis=1, dtype=np.float64), sums


@njit()
def add_draws(
    values: Any, group: Any, first: Any, seed: Any, purpose: Any, lane: Any, limits: Any, sums: Any
) -> None:
    """Add units to the sums of their groups under every draw: a draw counts a unit as often as
    there are `limits` that its 16 random bits, keyed by unit and draw, reach.

    Args:
        values: `[units, >= c]`, of which the first c columns are added.
        group: `[units]`; units of a group below 0 are left out.
        first: number of the first unit.
        seed, purpose, lane: of the random numbers.
        limits: `[l]` int32.
        sums: `[R / DRAWS, groups, c, DRAWS]`, a block of draws in one piece: it stays in the cache
            while the units go by.
    """
    counters, words = np.empty((4, 8), np.uint32), np.empty((4, 8), np.uint32)
    bits, counts = np.empty(DRAWS, np.int32), np.empty(DRAWS, np.int32)
    often = np.empty(DRAWS)
    counters[2], counters[3] = purpose, lane
    n, k = len(values), sums.shape[2]
    # What is not 0, unit by unit: found once for all draws, without a branch that nobody foresees.
    start = np.zeros(UNITS + 1, np.int64)
    column, value = np.empty(UNITS * k, np.int64), np.empty(UNITS * k)
    for low in range(0, n, UNITS):
        here = min(UNITS, n - low)
        filled = 0
        for i in range(here):
            if group[low + i] >= 0:
                for c in range(k):
                    column[filled], value[filled] = c, values[low + i, c]
                    filled += values[low + i, c] != 0.0
            start[i + 1] = filled
        for block in range(len(sums)):
            for i in range(here):
                unit = low + i
                if start[i] == start[i + 1]:
                    continue
                for j in range(8):
                    counters[0, j], counters[1, j] = first + unit, 8 * block + j
                philox_words(seed, counters, 8, words)
                for word in range(4):
                    for j in range(8):
                        bits[16 * word + j] = words[word, j] & np.uint32(0xFFFF)
                        bits[16 * word + 8 + j] = words[word, j] >> np.uint32(16)
                counts[:] = 0
                for limit in limits:
                    for r in range(DRAWS):
                        counts[r] += bits[r] >= limit
                for r in range(DRAWS):
                    often[r] = counts[r]
                of_group = sums[block, group[unit]]
                for at in range(start[i], start[i + 1]):
                    own, one = of_group[column[at]], value[at]
                    for r in range(DRAWS):
                        own[r] += one * often[r]
