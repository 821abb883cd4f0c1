"""What policies share in a catalogue that lives: items that may not be recalled by anybody, as part
of what a request has seen; and what speaks for an item that nobody was shown yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from policies.base import Catalogue, Histories, IntArray, Slates

WIDEST = 1 << 22
"""Entries of `seen` that are made at a time, where withheld items are put into it."""


def withholding(histories: Histories, withheld: IntArray) -> Histories:
    """The requests with the items `withheld` `[G]` among what each may not be recalled."""
    whole = np.broadcast_to(withheld, (len(histories), len(withheld)))
    return replace(histories, seen=np.concatenate((histories.seen, whole), axis=1))


def recall_withholding(
    recall: Callable[[Histories], Slates], histories: Histories, withheld: IntArray
) -> Slates:
    """What `recall` gives for requests that may get none of `withheld` `[G]`, a few requests at a
    time: the memory does not grow with requests times items.
    """
    if not len(withheld):
        return recall(histories)
    size = max(WIDEST // (histories.seen.shape[1] + len(withheld)), 1)
    starts = range(0, max(len(histories), 1), size)
    pieces = (histories.rows(slice(start, start + size)) for start in starts)
    return joined([recall(withholding(piece, withheld)) for piece in pieces])


def authors_others(catalogue: Catalogue, new: IntArray) -> tuple[IntArray, IntArray] | None:
    """What speaks for a new item is what speaks for its author's others: the author of each item
    `[n_items + 1]` as 0, 1, ..., and the items `[m]` that were there before `new` (ascending ids);
    None where nothing is new, or nobody says who made it.
    """
    author = catalogue.items.get("author")
    if author is None or not len(new):
        return None
    is_old = np.ones(catalogue.n_items + 1, dtype=np.bool_)
    is_old[[0, *new]] = False
    if "uploaded" in catalogue.items:
        is_old &= ~np.isnan(catalogue.items["uploaded"])
    groups = np.unique(author, return_inverse=True)[1].astype(np.int64)
    return groups, np.flatnonzero(is_old)


def joined(parts: Sequence[Slates]) -> Slates:
    """The slates of several blocks of requests, one below the other."""
    if len(parts) == 1:
        return parts[0]
    items, scores = (np.concatenate([getattr(p, n) for p in parts]) for n in ("items", "scores"))
    return Slates(items, scores, _column(parts, "propensities"), _column(parts, "interest"))


def _column(parts: Sequence[Slates], name: str) -> Any:
    """An optional column of several blocks; None where one of them lacks it."""
    columns = [getattr(part, name) for part in parts]
    return None if any(column is None for column in columns) else np.concatenate(columns)
