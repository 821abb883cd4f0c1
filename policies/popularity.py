"""Yardsticks without a model: random slates, and the most clicked items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from policies.base import (
    Catalogue,
    DoubleArray,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Policy,
    Sequences,
    Slates,
)
from policies.elementary import exp2s
from policies.retrieval import top_k, top_k_of
from policies.time import DAY
from policies.withheld import authors_others, recall_withholding, withholding


@dataclass
class Random(Policy):
    """Every unseen item equally likely, in a random order: what knowing nothing gets.

    Random numbers are keyed by user, step and place, so a slate depends on the seed and the request
    only.
    """

    draws_in_fit: ClassVar[bool] = False
    learns: ClassVar[tuple[str, ...]] = ()

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Learn how many items there are."""
        self.n_items_ = catalogue.n_items
        return self

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Draw among the available items, new ones as any other."""
        self.withheld_ = catalogue.withheld
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """k items drawn without replacement from the unseen ones; the cost of a request does not
        grow with the catalogue, but with the items that are not available.
        """
        return recall_withholding(
            lambda asked: self._draw(asked, k, seed), histories, self.withheld
        )

    @property
    def withheld(self) -> IntArray:
        """The items that may not be recalled now; none where it was not told."""
        return getattr(self, "withheld_", np.zeros(0, dtype=np.int64))

    def _draw(self, histories: Histories, k: int, seed: int) -> Slates:
        from policies.race import alike

        items = np.zeros((len(histories), k), dtype=np.int64)
        chances = np.zeros((len(histories), k), dtype=np.float32)
        key = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        alike(key, histories.user, histories.step, histories.seen, self.n_items_, items, chances)
        scores = np.where(items > 0, -np.arange(k), -np.inf).astype(np.float32)
        return Slates(items, scores, chances)

    def _chances(self, histories: Histories, k: int) -> DoubleArray:
        """1 / (number of unseen items not yet placed) at each of k places, `[B, k]`."""
        ordered = np.sort(histories.seen, axis=1)
        distinct = (ordered > 0) & (np.diff(ordered, axis=1, prepend=0) > 0)
        n_left = self.n_items_ - distinct.sum(axis=1)[:, None] - np.arange(k)
        return np.asarray(1 / np.maximum(n_left, 1))

    def slate_propensities(self, histories: Histories, items: IntArray, seed: int) -> FloatArray:
        """1 / (number of unseen items not yet placed) for each unseen item, 0 for a seen, repeated
        or missing one.
        """
        histories, k = withholding(histories, self.withheld), items.shape[1]
        is_seen = (items[:, :, None] == histories.seen[:, None, :]).any(axis=2)
        is_above = np.tril(np.ones((k, k), dtype=bool), -1)
        is_repeated = ((items[:, :, None] == items[:, None, :]) & is_above).any(axis=2)
        is_possible = (items > 0) & ~is_seen & ~is_repeated
        return np.where(is_possible, self._chances(histories, k), 0).astype(np.float32)

    def slate_expectations(
        self, histories: Histories, items: IntArray, values: DoubleArray, rows: IntArray, seed: int
    ) -> DoubleArray:
        """Mean `[B, k]` of `values` `[V, n_items + 1]`, row `rows` `[B, k]`, over the item at each
        place given those above it.
        """
        from policies.race import expected

        histories = withholding(histories, self.withheld)
        nothing, out = np.zeros((len(histories), 0), dtype=np.int64), np.zeros(items.shape)
        totals = values[:, 1:].sum(axis=1)
        expected(
            histories.seen,
            nothing,
            nothing.astype(np.float32),
            (self.n_items_, 1.0, 1.0),
            items,
            values,
            totals,
            rows,
            out,
        )
        return out

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The number of items."""
        return {"n_items": np.asarray(self.n_items_)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over the number of items."""
        self.n_items_ = int(state["n_items"])
        return self


@dataclass
class Popularity(Policy):
    """The most clicked items of the log, the same for everybody (PopRec).

    Attributes:
        half_life: days after which a click counts half; 0 = all clicks count the same.
    """

    half_life: float = 0.0

    draws_in_fit: ClassVar[bool] = False
    learns: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not self.half_life >= 0:
            raise ValueError(
                "the 'half_life' parameter of Popularity must be a number of days, at least 0; got"
                f" {self.half_life}"
            )

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Count clicks."""
        counts = np.zeros(catalogue.n_items + 1)
        for clicks, weight in weighted_clicks(sequences, self.half_life):
            np.add.at(counts, clicks.items, weight)
        self.counts_ = counts.astype(np.float32)
        return self

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Recall available items only; one that nobody was shown yet counts as its author's others
        do on the mean.
        """
        counts, others = self.counts_.copy(), authors_others(catalogue, new)
        if others is not None:
            groups, old = others
            number = np.bincount(groups[old], minlength=groups.max() + 1)
            total = np.bincount(groups[old], counts[old], minlength=groups.max() + 1)
            counts[new] = (total / np.maximum(number, 1))[groups[new]]
        counts[catalogue.withheld] = -np.inf
        self.present_ = counts
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The k most clicked items that the user has not seen."""
        return same_for_all(getattr(self, "present_", self.counts_), histories, k)

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """The (weighted) number of clicks of each item, whoever asks."""
        return self.counts_[items]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The (weighted) clicks of each item, `[n_items + 1]`."""
        return {"counts": self.counts_}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over the clicks of each item."""
        self.counts_ = np.asarray(state["counts"], dtype=np.float32)
        return self


@dataclass
class Newest(Policy):
    """The items that were uploaded last, the same for everybody: the channel by which a feed gives
    a new item its first audience.
    """

    draws_in_fit: ClassVar[bool] = False
    learns: ClassVar[tuple[str, ...]] = ()

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Learn when each item was uploaded: all at once where the catalogue does not say it."""
        uploaded = catalogue.items.get("uploaded", np.zeros(catalogue.n_items + 1))
        self.uploaded_ = -np.asarray(uploaded, dtype=np.float64)
        return self

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Recall available items only, new ones first."""
        scores = -np.asarray(catalogue.items["uploaded"], dtype=np.float64)
        scores[catalogue.withheld] = np.nan
        self.present_ = scores
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The k newest items that the user has not seen; none whose upload is not known."""
        uploaded = getattr(self, "present_", self.uploaded_)
        scores = np.where(np.isnan(uploaded), -np.inf, uploaded).astype(np.float32)
        return same_for_all(scores, histories, k)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """When each item was uploaded, `[n_items + 1]` days from the start of the A/B."""
        return {"uploaded": self.uploaded_}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over when each item was uploaded."""
        self.uploaded_ = np.asarray(state["uploaded"], dtype=np.float64)
        return self


def clicks_of_items(sequences: Sequences, n_items: int) -> IntArray:
    """The clicks of each item, `[n_items + 1]`."""
    counts = np.zeros(n_items + 1, dtype=np.int64)
    for part in sequences.stretches():
        counts += np.bincount(part.items[part.clicked], minlength=len(counts))
    return counts


def weighted_clicks(
    sequences: Sequences, half_life: float
) -> Iterator[tuple[Sequences, DoubleArray]]:
    """The clicks of a log, some users at a time, and the weight 2^(-age / half_life) of each, whose
    age is in days before the last click of all; a `half_life` of 0: 1.
    """
    now = 0
    if half_life:
        parts = (part.t[part.clicked] for part in sequences.stretches())
        now = max((int(t.max()) for t in parts if len(t)), default=0)
    for part in sequences.stretches():
        clicks = part.clicks()
        weight = np.ones(len(clicks.items))
        if half_life:
            weight = exp2s(-((now - clicks.t) / DAY) / half_life)
        yield clicks, weight


def same_for_all(scores: FloatArray, histories: Histories, k: int) -> Slates:
    """The k unseen items of greatest score, by scores `[n_items + 1]` that are the same for
    everybody; -inf: never.

    Only the `k + S` greatest ones need be looked at, S the number of seen items.
    """
    n_items = len(scores) - 1
    n_candidates = max(min(k + histories.seen.shape[1], n_items), 1)
    nothing = np.zeros((1, 0), dtype=np.int64)
    items, best = top_k(scores[None], n_candidates, nothing)
    shape = (len(histories), n_candidates)
    candidates, theirs = np.broadcast_to(items, shape), np.broadcast_to(best, shape)
    return Slates(*top_k_of(candidates, theirs, k, histories.seen, n_items))
