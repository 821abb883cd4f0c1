"""What slates may hold: one definition for the serving desk, the replay and the checks."""

from __future__ import annotations

from typing import Any

import numpy as np

from policies.base import BoolArray, Histories, Slates
from policies.jit import njit

KEPT, UNKNOWN_ITEM, SEEN_ITEM, REPEATED_ITEM, GAP, NOT_A_NUMBER, NOT_SORTED, NO_CHANCE = range(8)

_RULES = {
    UNKNOWN_ITEM: "items must be 0 or of 1..{n_items}; got {item} at place {place}",
    SEEN_ITEM: "item {item} at place {place} is in histories.seen and must not be recalled",
    REPEATED_ITEM: "item {item} at place {place} stands in the row twice",
    GAP: "0 may only stand at the end of a row; item {item} at place {place} follows one",
    NOT_A_NUMBER: "the score of item {item} at place {place} is NaN",
    NOT_SORTED: (
        "scores must not increase along a row; the score {score} at place {place} is above the one"
        " before it"
    ),
    NO_CHANCE: "the propensity at place {place} must be in (0, 1]; got {chance}",
}

_NONE = np.zeros((0, 0), dtype=np.float32)


WIDE = 1024
"""Seen items of a request from which on they are marked, and not compared with each item."""


def fault(slates: Slates, histories: Histories, n_items: int) -> tuple[int, str] | None:
    """The first rule that slates `[B, k]` of the right types and shapes break: the request's row
    and a sentence; None: all is kept.

    Args:
        slates: what was recalled.
        histories: for these requests.
        n_items: items are 1..n_items.
    """
    chances = _NONE if slates.propensities is None else slates.propensities
    rule, row, column = _inspect(slates.items, slates.scores, chances, histories.seen, n_items)
    if rule == KEPT:
        return None
    values = {
        "item": slates.items[row, column],
        "score": slates.scores[row, column],
        "chance": chances[row, column] if rule == NO_CHANCE else None,
    }
    return row, _RULES[rule].format(**values, n_items=n_items, place=column)


def short(
    slates: Slates, histories: Histories, n_items: int, available: BoolArray | None = None
) -> int | None:
    """The row of the first slate that has an empty place although unseen items are left, of those
    that are `available` `[n_items + 1]` (None: all), or None.
    """
    rows = np.flatnonzero((slates.items[:, -1:] == 0).any(axis=1))
    if not len(rows):
        return None
    seen = histories.seen[rows]
    if available is not None:
        n_items, seen = int(available.sum()), np.where(available[seen], seen, 0)
    seen = np.sort(seen, axis=1)
    seen[:, 1:][seen[:, 1:] == seen[:, :-1]] = 0
    unseen = n_items - np.count_nonzero(seen, axis=1)
    n_recalled = np.count_nonzero(slates.items[rows], axis=1)
    is_short = n_recalled < np.minimum(slates.items.shape[1], unseen)
    return int(rows[is_short.argmax()]) if is_short.any() else None


@njit()
def _inspect(
    items: Any, scores: Any, chances: Any, seen: Any, n_items: int
) -> tuple[int, int, int]:
    """The first rule that is broken: (rule, row, column); (KEPT, 0, 0) if none is.

    Args:
        items, scores: `[B, k]` of a policy.
        chances: `[B, k]` propensities, or without rows: there are none. They are looked at last.
        seen: `[B, S]` of the request.
        n_items: items are 1..n_items.
    """
    mark = np.full(n_items + 1, -1, dtype=np.int32)
    is_wide = seen.shape[1] > WIDE
    hidden = np.full(n_items + 1 if is_wide else 0, -1, dtype=np.int32)
    for b in range(items.shape[0]):
        before = seen[b]  # once: each cut of a row is an atomic count of references
        if is_wide:
            for item in before:
                hidden[item] = b
        for j in range(items.shape[1]):
            item, score = items[b, j], scores[b, j]
            if item < 0 or item > n_items:
                return UNKNOWN_ITEM, b, j
            if np.isnan(score):
                return NOT_A_NUMBER, b, j
            if j > 0 and score > scores[b, j - 1]:
                return NOT_SORTED, b, j
            if item == 0:
                continue
            if j > 0 and items[b, j - 1] == 0:
                return GAP, b, j
            if hidden[item] == b if is_wide else _is_among(item, before):
                return SEEN_ITEM, b, j
            if mark[item] == b:
                return REPEATED_ITEM, b, j
            mark[item] = b
    for b in range(chances.shape[0]):
        for j in range(items.shape[1]):
            if items[b, j] > 0 and not 0.0 < chances[b, j] <= 1.000001:
                return NO_CHANCE, b, j
    return KEPT, 0, 0


@njit()
def _is_among(item: Any, items: Any) -> bool:
    """Whether `item` is in `items` `[S]`: a loop without an exit, which LLVM turns into comparisons
    of many items at a time.
    """
    is_among = 0
    for j in range(len(items)):
        is_among |= items[j] == item
    return is_among != 0
