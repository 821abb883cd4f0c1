"""Compiled loops of training that several models share: the softmax of a row, and cross-entropy
with its gradient. No product of matrices lives here.

Loops may add in any order (`FAST`), so that they are vectors: their last bits are those of a kind
of processor, as those of torch's own kernels are. A function that others call is always inlined:
compiled apart it may add in another order, and which of two compiled copies is called depends on
whether they come from numba's cache. Importing this module imports numba.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from policies.jit import njit

FAST = {"contract", "nsz", "reassoc", "arcp"}
LOG2_E, LN_2 = np.float32(1.4426950408889634), np.float32(0.6931471805599453)
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
LEAST = np.float32(-126)
"""Least power of two of a softmax weight: below it float32 has no normal number."""


@njit(fastmath=FAST, forceinline=True)
def factor(x: Any, powers: Any, j: int) -> Any:
    """`2^x = factor * 2^k` for x within -126..126: the factor; the bits of 2^k are made in
    `powers[j]`.

    By 1 + r + r^2 / 2 + ... of r = (x - k) ln 2, |r| <= ln(2) / 2, with six terms.
    """
    k = np.floor(x + HALF)
    r = (x - k) * LN_2
    powers[j] = (np.int32(k) + np.int32(127)) << np.int32(23)
    p = np.float32(1 / 720) * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + HALF
    p = p * r + ONE
    return p * r + ONE


@njit(fastmath=FAST, forceinline=True)
def exponentials(scores: Any, n: int, powers: Any, factors: Any) -> Any:
    """`exp(scores[:n] - m)` in place, m the largest; m and the sum.

    Off by 4e-7 near m and by 1e-5 at e^-87, relatively. The bits of powers of two are made in
    `powers` and read in `factors`, the same memory as int32 and as float32.
    """
    top = scores[0]
    for j in range(n):
        top = max(top, scores[j])
    for j in range(n):
        scores[j] = factor(max((scores[j] - top) * LOG2_E, LEAST), powers, j)
    total = ZERO
    for j in range(n):
        scores[j] *= factors[j]
        total += scores[j]
    return top, total


@njit(fastmath=FAST, forceinline=True)
def softmax(scores: Any, n: int, powers: Any, factors: Any) -> None:
    """The softmax of `scores[:n]`, in place; `powers` and `factors` as in `exponentials`."""
    _, total = exponentials(scores, n, powers, factors)
    for j in range(n):
        scores[j] /= total


@njit(fastmath=FAST)
def own_logits(hidden: Any, vectors: Any, target: Any, log_q: Any, out: Any) -> None:
    """`out[i] = hidden[i] . vectors[target[i]] - log_q[target[i]]`."""
    for i in range(len(target)):
        item = target[i]
        total = ZERO
        for c in range(hidden.shape[1]):
            total += hidden[i, c] * vectors[item, c]
        out[i] = total - log_q[item]


@njit(fastmath=FAST)
def cross_entropy(
    logits: Any,
    own: Any,
    target: Any,
    items: Any,
    is_other: Any,
    left_out: Any,
    share: float,
    slope: Any,
) -> Any:
    """log(exp(x) + sum_j exp(l_j)) - x of each position, added up, and the derivatives of `share`
    times it.

    Args:
        logits: `[P, N]` l of the others; ends as the derivative by them.
        own: `[P]` x.
        target: `[P]` each position's own item.
        items: `[N]` what the others are. The position's own item is none of them.
        is_other: `[n_items + 1]` whether an item is among them.
        left_out: float, the logit of what does not count.
        share: by which the derivatives are multiplied.
        slope: `[P]` ends as the derivative by x.
    """
    n = len(items)
    powers = np.empty(n, dtype=np.int32)
    factors = powers.view(np.float32)
    loss = 0.0
    for i in range(len(own)):
        row = logits[i]
        if is_other[target[i]]:
            for j in range(n):
                if items[j] == target[i]:
                    row[j] = left_out
        top, total = exponentials(row, n, powers, factors)
        gap = np.float64(top) + math.log(np.float64(total)) - np.float64(own[i])
        tail = math.exp(-abs(gap))
        loss += max(gap, 0.0) + math.log1p(tail)
        weight = (1.0 if gap >= 0 else tail) / (1.0 + tail)
        slope[i] = -weight * share
        factor = np.float32(weight * share / total)
        for j in range(n):
            row[j] *= factor
    return loss


@njit(fastmath=FAST)
def add_own(
    slope: Any, hidden: Any, vectors: Any, target: Any, to_hidden: Any, to_vectors: Any
) -> None:
    """Adds what the own logits send back, `slope` `[P]` being their derivatives."""
    for i in range(len(target)):
        item, by = target[i], slope[i]
        for c in range(hidden.shape[1]):
            to_hidden[i, c] += by * vectors[item, c]
        for c in range(hidden.shape[1]):
            to_vectors[item, c] += by * hidden[i, c]


@njit(fastmath=FAST)
def add_rows(rows: Any, items: Any, out: Any) -> None:
    """`out[items[j]] += rows[j]`."""
    for j in range(len(items)):
        item = items[j]
        for c in range(rows.shape[1]):
            out[item, c] += rows[j, c]
