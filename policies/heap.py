"""The best of many scored keys, kept in a binary heap whose root comes last of all: compiled
functions for kernels that look for the best of a stream.

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any

from policies.jit import njit


@njit()
def before(score: float, key: int, other: float, other_key: int) -> bool:
    """Whether an entry comes before another one: higher score, or the same score and lower key."""
    return score > other or (score == other and key < other_key)


@njit()
def sink(scores: Any, keys: Any, n: int, node: int) -> None:
    """Restore the heap `[n]` after one of its nodes was replaced by what may come before its
    children.
    """
    while True:
        child = 2 * node + 1
        if child >= n:
            return
        if child + 1 < n and before(scores[child], keys[child], scores[child + 1], keys[child + 1]):
            child += 1
        if not before(scores[node], keys[node], scores[child], keys[child]):
            return
        scores[node], scores[child] = scores[child], scores[node]
        keys[node], keys[child] = keys[child], keys[node]
        node = child


@njit()
def heapify(scores: Any, keys: Any, n: int) -> None:
    """Make `[n]` a heap (Floyd, "Algorithm 245: Treesort 3", 1964)."""
    for node in range(n // 2 - 1, -1, -1):
        sink(scores, keys, n, node)


@njit()
def unheap(scores: Any, keys: Any, n: int) -> None:
    """Put the heap `[n]` in order, best first."""
    for last in range(n - 1, 0, -1):  # take the last of all off the heap, again and again
        scores[0], scores[last] = scores[last], scores[0]
        keys[0], keys[last] = keys[last], keys[0]
        sink(scores, keys, last, 0)


@njit()
def offer(scores: Any, keys: Any, found: int, score: float, key: int) -> int:
    """Keep an entry if it is among the best `[k]`, of which the first `found` are taken; how many
    are taken now. From k on they are a heap.
    """
    k = len(scores)
    if found < k:
        scores[found], keys[found] = score, key
        if found + 1 == k:
            heapify(scores, keys, k)
        return found + 1
    if before(score, key, scores[0], keys[0]):
        scores[0], keys[0] = score, key
        sink(scores, keys, k, 0)
    return found
