"""Compiled draws of slates without replacement: anybody alike, or by weight (Plackett-Luce), with
conditional probabilities.

Importing this module imports numba: do so inside the function that needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.elementary import exp, log1p
from policies.jit import njit
from policies.philox import philox_words, uniform, uniform2, unit
from policies.streams import Purpose

_EXPLORE, _RECALL = int(Purpose.EXPLORE), int(Purpose.RECALL)
_OUTSIDE = 1 << 31
"""Lanes from here on belong to the items outside the pool; below, a lane is an item."""
_TRIES = 64
_TOGETHER = 64
"""Requests whose first attempts are drawn together; their number changes no bit."""
_LEAST = -80.0
"""Least exponent of a softmax weight: below it the probability would vanish in float32."""


@njit()
def _weigh(items: Any, scores: Any, temperature: float, epsilon: float, out: Any) -> None:
    """`out[j] = (1 - epsilon) * softmax(scores / temperature)[j]`, 0 where there is no item;
    `[pool]` each.
    """
    total = 0.0
    for j in range(len(items)):
        out[j] = 0.0
        if items[j] != 0:
            out[j] = exp(max((np.float64(scores[j]) - np.float64(scores[0])) / temperature, _LEAST))
            total += out[j]
    for j in range(len(items)):
        out[j] = (1.0 - epsilon) * out[j] / total if total > 0 else 0.0


@njit()
def _mark(seen: Any, pool: Any, n_items: int, mark: Any, stamp: int) -> tuple[int, int]:
    """Stamp the seen items and the pool's in `mark`; how many items may be recalled, and how many
    of them the pool lacks.
    """
    eligible = n_items
    for j in range(len(seen)):
        if 0 < seen[j] <= n_items and mark[seen[j]] != stamp:
            mark[seen[j]] = stamp
            eligible -= 1
    inside = 0
    for j in range(len(pool)):
        if pool[j] != 0:
            mark[pool[j]] = stamp
            inside += 1
    return eligible, eligible - inside


@njit()
def _anyone(
    seed: Any,
    purpose: int,
    user: int,
    step: int,
    lane: int,
    left: int,
    mark: Any,
    stamp: int,
    failed: int,
) -> int:
    """One of the `left` items without this stamp, each with the same probability: by rejection, at
    last by rank.

    Takes the random numbers of `lane` and of the `_TRIES` lanes after it, of which the first
    `failed` were taken in vain.
    """
    n_items, u = len(mark) - 1, 0.0
    for attempt in range(failed, _TRIES + 1):
        u = uniform(seed, purpose, user, step, lane + attempt)
        item = 1 + int(u * n_items)
        if attempt < _TRIES and mark[item] != stamp:
            return item
    rank = int(u * left)
    for item in range(1, n_items + 1):
        if mark[item] != stamp:
            if rank == 0:
                return item
            rank -= 1
    return 0


@njit()
def alike(
    seed: Any, users: Any, steps: Any, seen: Any, n_items: int, items: Any, propensities: Any
) -> None:
    """Draw unseen items for each request, each with the same probability at each place.

    Args:
        seed: uint64.
        users, steps: `[B]`.
        seen: `[B, S]`.
        n_items: items are 1..n_items.
        items, propensities: `[B, k]` outputs; zeros on entry, and where nothing is left.
    """
    mark, k = np.full(n_items + 1, -1, dtype=np.int32), items.shape[1]
    counters, words = (
        np.empty((4, _TOGETHER * k), dtype=np.uint32),
        np.empty((4, _TOGETHER * k), dtype=np.uint32),
    )
    for b in range(len(users)):
        if b % _TOGETHER == 0:  # the first attempts of many requests at once
            n = min(_TOGETHER, len(users) - b)
            for r in range(n):
                for place in range(k):
                    at = r * k + place
                    counters[0, at], counters[1, at] = (
                        np.uint32(users[b + r]),
                        np.uint32(steps[b + r]),
                    )
                    counters[2, at], counters[3, at] = (
                        np.uint32(_RECALL),
                        np.uint32(place * (_TRIES + 1)),
                    )
            philox_words(seed, counters, n * k, words)
        left, _ = _mark(seen[b], items[b, :0], n_items, mark, b)
        for place in range(min(k, left)):
            at = b % _TOGETHER * k + place
            item = 1 + int(unit(np.uint64(words[0, at]), np.uint64(words[1, at])) * n_items)
            if mark[item] == b:
                item = _anyone(
                    seed,
                    _RECALL,
                    users[b],
                    steps[b],
                    place * (_TRIES + 1),
                    left - place,
                    mark,
                    b,
                    1,
                )
            mark[item] = b
            items[b, place], propensities[b, place] = item, 1.0 / (left - place)


@njit()
def draw(
    seed: Any,
    users: Any,
    steps: Any,
    seen: Any,
    pool: Any,
    scores: Any,
    shape: tuple[int, float, float],
    items: Any,
    propensities: Any,
) -> None:
    """Draw a slate for each request.

    Args:
        seed: uint64.
        users, steps: `[B]`.
        seen: `[B, S]`.
        pool, scores: `[B, P]` the base policy's best items, 0 = none, and their scores.
        shape: number of items, temperature, epsilon.
        items, propensities: `[B, k]` outputs; zeros on entry.
    """
    n_items, temperature, epsilon = shape
    mark = np.full(n_items + 1, -1, dtype=np.int32)
    n_pool = pool.shape[1]
    weight, arrives = np.empty(n_pool), np.empty(n_pool)
    counters = np.empty((4, n_pool), dtype=np.uint32)
    words = np.empty((4, n_pool), dtype=np.uint32)
    for b in range(len(users)):
        eligible, outside = _mark(seen[b], pool[b], n_items, mark, b)
        _weigh(pool[b], scores[b], temperature, epsilon, weight)
        each = epsilon / eligible if eligible > 0 else 0.0
        for j in range(n_pool):
            counters[0, j], counters[1, j] = np.uint32(users[b]), np.uint32(steps[b])
            counters[2, j], counters[3, j] = np.uint32(_EXPLORE), np.uint32(pool[b, j])
        philox_words(seed, counters, n_pool, words)
        for j in range(n_pool):
            arrives[j] = np.inf
            if pool[b, j] != 0 and weight[j] + each > 0:
                u = unit(np.uint64(words[0, j]), np.uint64(words[1, j]))
                arrives[j] = -log1p(-u) / (weight[j] + each)
        arrivals, next_outside = 0, np.inf
        if outside > 0 and each > 0:
            next_outside = -log1p(-uniform(seed, _EXPLORE, users[b], steps[b], _OUTSIDE)) / (
                outside * each
            )
        for place in range(items.shape[1]):
            first, total = -1, outside * each
            for j in range(pool.shape[1]):
                if arrives[j] < np.inf:
                    total += weight[j] + each
                    if first < 0 or arrives[j] < arrives[first]:
                        first = j
            if next_outside < np.inf and (first < 0 or next_outside < arrives[first]):
                lane = _OUTSIDE + 1 + arrivals * (_TRIES + 1)
                item = _anyone(seed, _EXPLORE, users[b], steps[b], lane, outside, mark, b, 0)
                mark[item] = b
                items[b, place], propensities[b, place] = item, each / total
                arrivals, outside = arrivals + 1, outside - 1
                if outside > 0:
                    _, u = uniform2(
                        seed,
                        _EXPLORE,
                        users[b],
                        steps[b],
                        _OUTSIDE + 1 + (arrivals - 1) * (_TRIES + 1),
                    )
                    next_outside -= log1p(-u) / (outside * each)
                else:
                    next_outside = np.inf
            elif first >= 0:
                items[b, place], propensities[b, place] = (
                    pool[b, first],
                    (weight[first] + each) / total,
                )
                arrives[first] = np.inf
            else:
                break


@njit()
def conditional(
    seen: Any, pool: Any, scores: Any, shape: tuple[int, float, float], items: Any, out: Any
) -> None:
    """Probability `[B, k]` of each of `items` at its place given the items above it; arguments as
    in `draw`, `out` zeros on entry.
    """
    n_items, temperature, epsilon = shape
    mark, placed = (
        np.full(n_items + 1, -1, dtype=np.int64),
        np.full(n_items + 1, -1, dtype=np.int64),
    )
    weight = np.empty(pool.shape[1])
    for b in range(items.shape[0]):
        eligible, outside = _mark(seen[b], pool[b], n_items, mark, b)
        _weigh(pool[b], scores[b], temperature, epsilon, weight)
        each = epsilon / eligible if eligible > 0 else 0.0
        for place in range(items.shape[1]):
            item = items[b, place]
            if item < 1 or item > n_items or placed[item] == b:
                break
            own, total = -1, outside * each
            for j in range(pool.shape[1]):
                if pool[b, j] != 0 and placed[pool[b, j]] != b:
                    total += weight[j] + each
                    if pool[b, j] == item:
                        own = j
            if own >= 0:
                out[b, place] = (weight[own] + each) / total
            elif mark[item] != b:
                out[b, place] = each / total
                outside -= 1
            if out[b, place] == 0:
                break
            placed[item] = b


@njit()
def expected(
    seen: Any,
    pool: Any,
    scores: Any,
    shape: tuple[int, float, float],
    items: Any,
    values: Any,
    totals: Any,
    rows: Any,
    out: Any,
) -> None:
    """Mean of a table of values over the item at each place, given the items above it; the cost
    does not grow with the catalogue.

    Args:
        seen, pool, scores, shape, items: as in `conditional`.
        values: `[V, n_items + 1]`.
        totals: `[V]` sum of each row over items 1..n_items.
        rows: `[B, k]` which row of `values` holds at each place.
        out: `[B, k]` zeros on entry; they stay below an item that could not be where it is, and
            where nothing is left to show.
    """
    n_items, temperature, epsilon = shape
    mark, placed = (
        np.full(n_items + 1, -1, dtype=np.int64),
        np.full(n_items + 1, -1, dtype=np.int64),
    )
    weight = np.empty(pool.shape[1])
    inside = np.empty(seen.shape[1] + pool.shape[1] + items.shape[1], dtype=np.int64)
    for b in range(items.shape[0]):
        known = 0
        for j in range(seen.shape[1]):
            if 0 < seen[b, j] <= n_items and mark[seen[b, j]] != b:
                mark[seen[b, j]], inside[known] = b, seen[b, j]
                known += 1
        eligible = n_items - known
        for j in range(pool.shape[1]):
            if pool[b, j] != 0:
                mark[pool[b, j]], inside[known] = b, pool[b, j]
                known += 1
        _weigh(pool[b], scores[b], temperature, epsilon, weight)
        each = epsilon / eligible if eligible > 0 else 0.0
        for place in range(items.shape[1]):
            row, item = rows[b, place], items[b, place]
            outside, total = totals[row], (n_items - known) * each
            for j in range(
                known
            ):  # seen, in the pool, or placed from outside it: all but these weigh the same
                outside -= values[row, inside[j]]
            mean, possible = outside * each, False
            for j in range(pool.shape[1]):
                if pool[b, j] != 0 and placed[pool[b, j]] != b:
                    total += weight[j] + each
                    mean += (weight[j] + each) * values[row, pool[b, j]]
                    possible |= pool[b, j] == item and weight[j] + each > 0
            if total <= 0:
                break
            out[b, place] = mean / total
            if 0 < item <= n_items and mark[item] != b and each > 0:
                mark[item], inside[known], possible = b, item, True
                known += 1
            if not possible:
                break
            placed[item] = b
