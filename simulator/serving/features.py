"""The compiled features of the ranking stage: one scalar loop for fitting and for serving, so that
both see the same numbers.

Importing this module imports numba: do so inside the function that needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.base import IntArray
from policies.elementary import exp, log, log1p
from policies.jit import njit

N_DYNAMIC = 6
_TAG, _AUTHOR = 0, 1
_SMOOTH = 5.0
"""Impressions' worth of the user's own rate that smooth an affinity."""


def no_counts(groups: IntArray) -> IntArray:
    """What `score` and `logged` count in: impressions, clicks and the last impression of each of
    `groups`, `[3, 2, 1 + the largest]`, zeros on entry and on return.
    """
    return np.zeros((3, 2, int(groups.max()) + 1), dtype=np.int64)


@njit()
def _count(
    items: Any, clicked: Any, groups: Any, shown: Any, clicks: Any, last: Any
) -> tuple[int, int]:
    """Add a window `[L]` (oldest first) to the counts of its tags and authors; number of
    impressions and clicks.
    """
    n, total = 0, 0
    for j in range(len(items)):
        item = items[j]
        if item == 0:
            continue
        n += 1
        total += int(clicked[j])
        for g in range(2):
            group = groups[g, item]
            shown[g, group] += 1
            clicks[g, group] += int(clicked[j])
            last[g, group] = n
    return n, total


@njit()
def _forget(items: Any, groups: Any, shown: Any, clicks: Any, last: Any) -> None:
    for j in range(len(items)):
        if items[j] != 0:
            for g in range(2):
                group = groups[g, items[j]]
                shown[g, group] = clicks[g, group] = last[g, group] = 0


@njit()
def _dynamic(
    item: int,
    n: int,
    total: int,
    rate: float,
    groups: Any,
    shown: Any,
    clicks: Any,
    last: Any,
    out: Any,
) -> None:
    """The DYNAMIC features of one candidate: click rate, affinities, share of the tag, time since
    tag and author.
    """
    own = (total + 20.0 * rate) / (n + 20.0)
    out[0] = log(own / (1.0 - own))
    for g in range(2):
        group = groups[g, item]
        out[1 + g] = (clicks[g, group] - own * shown[g, group]) / (shown[g, group] + _SMOOTH)
        out[4 + g] = 0.0 if last[g, group] == 0 else 1.0 / (1.0 + n - last[g, group])
    out[3] = shown[_TAG, groups[_TAG, item]] / (n + _SMOOTH)


@njit()
def score(
    items: Any,
    clicked: Any,
    candidates: Any,
    static: Any,
    groups: Any,
    counts: Any,
    coefficients: Any,
    rate: float,
    weight: float,
    out: Any,
) -> None:
    """`out[b, j]` = log P(click) + weight * E[log(1 + watch)] of `candidates[b, j]`; left as it is
    where there is none.

    Args:
        items, clicked: `[B, L]` histories.
        candidates: `[B, n]`, 0 = none.
        static: `[n_items + 1, S]`.
        groups: `[2, n_items + 1]` tag and author.
        counts: `no_counts` of them.
        coefficients: `[2, S + N_DYNAMIC]` of clicks and of watch time.
        rate, weight: overall click rate; weight of watch time.
        out: `[B, n]`.
    """
    shown, clicks, last = counts[0], counts[1], counts[2]
    dynamic = np.empty(N_DYNAMIC)
    s = static.shape[1]
    for b in range(candidates.shape[0]):
        n, total = _count(items[b], clicked[b], groups, shown, clicks, last)
        for j in range(candidates.shape[1]):
            item = candidates[b, j]
            if item == 0:
                continue
            _dynamic(item, n, total, rate, groups, shown, clicks, last, dynamic)
            z, m = 0.0, 0.0
            for f in range(s):
                z += static[item, f] * coefficients[0, f]
                m += static[item, f] * coefficients[1, f]
            for f in range(N_DYNAMIC):
                z += dynamic[f] * coefficients[0, s + f]
                m += dynamic[f] * coefficients[1, s + f]
            out[b, j] = weight * m - (log1p(exp(-z)) if z > -30.0 else -z)
        _forget(items[b], groups, shown, clicks, last)


@njit()
def logged(
    items: Any,
    clicked: Any,
    t: Any,
    starts: Any,
    rows: Any,
    window: int,
    static: Any,
    groups: Any,
    counts: Any,
    rate: float,
    out: Any,
) -> None:
    """Features `out[i]` of the logged impression `rows[i]`, from the user's impressions before its
    request.

    Args:
        items, clicked, t: `[N]` of all users, each user's in time order.
        starts: `[R]` where the user of each row begins.
        rows: `[R]` impressions to describe.
        window: impressions that a request brings, at most.
        static, groups, counts, rate: as in `score`.
        out: `[R, S + N_DYNAMIC]`.
    """
    shown, clicks, last = counts[0], counts[1], counts[2]
    s = static.shape[1]
    for i in range(len(rows)):
        row = rows[i]
        end = row
        while end > starts[i] and t[end - 1] == t[row]:
            end -= 1
        begin = max(starts[i], end - window)
        n, total = _count(items[begin:end], clicked[begin:end], groups, shown, clicks, last)
        for f in range(s):
            out[i, f] = static[items[row], f]
        _dynamic(items[row], n, total, rate, groups, shown, clicks, last, out[i, s:])
        _forget(items[begin:end], groups, shown, clicks, last)
