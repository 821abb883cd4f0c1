"""What a history is continued by: the next item but one, over the user's own likely next items. No
network lives here.

A step that appends its one best item (4.4) rests on an item that is mostly not the next click. Here
the step is an expectation instead: with p(j) the network's distribution of the next item and i_1 ..
i_W its best items,

    s(j) = p(j) + c (sum_b p(i_b) p(j | history, i_b) + (1 - sum_b p(i_b)) p(j)),

the next item and c times the one after it, for which p stands where no continuation was looked at.
All distributions are over the request's candidates, the best items of p, so that one search is
enough and none of them needs a sum over the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from policies.base import FloatArray, Histories, IntArray, Params
from policies.validation import K, discount

CHUNK = 256
"""Requests whose states are remembered at once: few enough for these to stay in the cache."""

BEAMS = (1, 2, 5)
SHARES = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""The widths and the shares c that validation chooses from. Ten and twenty next items find no more
than five (docs/results.md), and ten would take twice as long to choose from; shares go past those
that were best so far.
"""


@dataclass
class Continuation(Params):
    """How far and how much the items after the next one count.

    Attributes:
        beam: W, next items that the history is continued by; None: chosen on the validation
            clicks. With several quotas it is one less than their number.
        share: c, what the item after the next one counts; None: chosen on the validation clicks.
        candidates: best items of the first step that are ranked, at least as many as the slate has.
    """

    beam: int | None = None
    share: float | None = None
    candidates: int = 100

    def __post_init__(self) -> None:
        if self.beam is not None and self.beam < 1:
            raise ValueError(f"the 'beam' of a continuation must be at least 1; got {self.beam}")
        if self.share is not None and not 0 <= self.share < np.inf:
            raise ValueError(
                f"the 'share' of a continuation must be at least 0 and finite; got {self.share}"
            )
        if self.candidates < 1:
            raise ValueError(
                f"the 'candidates' of a continuation must be at least 1; got {self.candidates}"
            )


@dataclass(frozen=True)
class Chosen:
    """A `Continuation` of which nothing is open; the defaults are those without validation."""

    beam: int = 5
    share: float = 0.5
    candidates: int = 100

    def over(self, asked: Continuation) -> Chosen:
        """What was asked for, and this where it was left open."""
        beam = self.beam if asked.beam is None else asked.beam
        share = self.share if asked.share is None else asked.share
        return Chosen(beam, share, asked.candidates)


@dataclass(frozen=True)
class Continued:
    """Distributions over the candidates of a batch of requests.

    Attributes:
        items: `[B, C]` candidates, the best first; 0 where there are fewer.
        first: `[B, C]` p(j).
        further: `[B, W, C]` p(j | history, i_b), where i_b is the b-th candidate, or what else was
            clicked in its place.
    """

    items: IntArray
    first: FloatArray
    further: FloatArray

    @classmethod
    def joined(cls, parts: Sequence[Continued]) -> Continued:
        """Those of several batches, one after another."""
        names = ("items", "first", "further")
        columns = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        return cls(*columns)

    def marginal(self, beam: int, share: float) -> FloatArray:
        """s(j) `[B, C]` over the first `beam` continuations, as a distribution (divided by 1 + c);
        0 where there is no candidate.
        """
        weight = self.first[:, :beam]
        after = np.zeros_like(self.first)
        for b in range(weight.shape[1]):  # in a fixed order, whatever the batch
            after += weight[:, b, None] * self.further[:, b]
        rest = 1.0 - weight.sum(axis=1, keepdims=True)
        c = np.float32(share)
        mixed: FloatArray = (self.first * (1 + c * rest) + c * after) / (1 + c)
        return mixed

    def place_of(self, item: IntArray, scores: FloatArray) -> IntArray:
        """The 0-based place `[B]` of one item of each row by `scores` `[B, C]`; C where it is no
        candidate. Among equal scores the better candidate comes first.
        """
        is_item = self.items == item[:, None]
        own = np.where(is_item, scores, 0).sum(axis=1, keepdims=True)
        before = np.cumsum(is_item, axis=1) == 0
        is_ahead = (scores > own) | ((scores == own) & before)
        place: IntArray = np.where(is_item.any(axis=1), is_ahead.sum(axis=1), self.items.shape[1])
        return place


def best_continuation(found: Iterable[tuple[Continued, IntArray]]) -> Chosen:
    """The beam and the share with the best NDCG@10, the smallest of equal ones.

    Args:
        found: batches of requests, continued by as many items as the widest of `BEAMS`, and the
            item `[B]` that each request looks for.
    """
    gains = np.zeros((len(BEAMS), len(SHARES)))
    for continued, target in found:
        for i, beam in enumerate(BEAMS):
            for j, share in enumerate(SHARES):
                place = continued.place_of(target, continued.marginal(beam, share))
                gains[i, j] += discount(place[place < K]).sum()
    beam, share = divmod(int(gains.argmax()), len(SHARES))
    return Chosen(BEAMS[beam], SHARES[share])


@runtime_checkable
class Continuing(Protocol):
    """Optional ability: what comes after the next item, for next items that anybody names."""

    def continued(
        self, histories: Histories, candidates: int, beam: int, clicked: IntArray | None = None
    ) -> Continued:
        """Distributions over each request's best `candidates` items: of the next item, and of the
        one after each of the `beam` best next ones was clicked.

        Args:
            histories: `B` requests.
            candidates: C, at least `beam`.
            beam: W.
            clicked: `[B, W]` items that are clicked in their place; 0 = none.
        """


def distribution(scores: FloatArray) -> FloatArray:
    """The softmax of `scores` `[..., C]` over the candidates; -inf counts nothing, and a row of
    nothing else is 0.
    """
    best = scores.max(axis=-1, keepdims=True)
    shares: FloatArray = np.exp(scores - np.where(np.isneginf(best), 0, best))
    total = shares.sum(axis=-1, keepdims=True)
    shares /= np.where(total > 0, total, 1)
    return shares
