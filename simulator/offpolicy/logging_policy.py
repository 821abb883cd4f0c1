"""Published: the policy that wrote a log, known by the propensities that it logged. No model is
fitted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from policies.elementary import logs1p
from policies.streams import Purpose, uniform
from policies.time import HOUR
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.target import Target

CELLS = 50_000_000
"""Figures that a law may have: stretches, places and items multiplied. To make it takes 40 bytes
for each, so 2 GB; a week of Open Bandit's campaign "all" has 40,000.
"""


@dataclass
class Published(Policy):
    """The policy behind a log of single impressions with marginal propensities that depend on place
    and time only.

    Its law at a place is read from the log: the mean logged propensity of each item that was shown
    in each stretch of `every` hours. What these leave of 1 goes to the items that were not shown
    then, in proportion to what they had when they were last shown (before their first appearance:
    when they were first shown); in equal parts where none of them ever was. Where the law moved so
    much within a stretch that its means add to more than 1, they keep what they had, and all are
    normalised. Clicks are never read.

    Attributes:
        every: hours over which propensities are taken to be constant.
    """

    draws_in_fit: ClassVar[bool] = False
    learns: ClassVar[tuple[str, ...]] = ()

    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(
                f"hyper-parameter 'every' must be at least 1 hour. Got {self.every!r} instead."
            )

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        missing = [name for name in ("propensity", "position") if name not in sequences.columns]
        if missing or not np.isfinite(sequences.columns["propensity"]).all():
            raise ValueError(
                "Published needs a log whose every row has a propensity; missing here:"
                f" {missing or 'propensity of some rows'}"
            )
        stretch = sequences.t // (self.every * HOUR)
        self.first_ = int(stretch.min())
        position = sequences.columns["position"].astype(np.int64)
        shape = (
            int(stretch.max()) - self.first_ + 1,
            int(position.max()) + 1,
            catalogue.n_items + 1,
        )
        if math.prod(shape) > CELLS:
            hours, places, items = (f"{n:,}" for n in shape)
            raise ReplayError(
                f"the law behind the log has {hours} stretches of time, {places} places and"
                f" {items} items, together more than {CELLS:,} figures; is a time or an item of the"
                " log a stray one?"
            )
        cell = np.ravel_multi_index((stretch - self.first_, position, sequences.items), shape)
        size = math.prod(shape)
        shown = np.bincount(cell, minlength=size).reshape(shape)
        total = np.bincount(
            cell, weights=sequences.columns["propensity"].astype(np.float64), minlength=size
        ).reshape(shape)
        self.law_: DoubleArray = _completed(
            np.divide(total, shown, out=np.full(shape, np.nan), where=shown > 0)
        )
        return self

    def at(self, t: IntArray, position: IntArray) -> DoubleArray:
        """Probability of each item at `position` `[R, K]` at `t` `[R]` ms,
        `[R, K, n_items + 1]`.
        """
        stretch = np.clip(t // (self.every * HOUR) - self.first_, 0, len(self.law_) - 1)
        law: DoubleArray = self.law_[stretch[:, None], np.minimum(position, self.law_.shape[1] - 1)]
        return law

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """Draws without replacement from the law of the last stretch, place by place (an
        exponential race for each place).
        """
        n = self.law_.shape[2]
        noise = uniform(
            seed, Purpose.RECALL, histories.user[:, None], histories.step[:, None], np.arange(n)
        )
        free = np.ones((len(histories), n), dtype=bool)
        free[:, 0] = False
        seen = np.clip(histories.seen, 0, n - 1)
        free[np.arange(len(histories))[:, None], seen] = False
        items = np.zeros((len(histories), k), dtype=np.int64)
        for place in range(min(k, n - 1)):
            law = self.law_[-1, min(place, self.law_.shape[1] - 1)]
            with np.errstate(divide="ignore"):
                # The first of exponential times with rates `law` is a draw with these chances; an
                # item of chance 0 comes last, but before what was shown.
                arrival = np.where(free, -logs1p(-noise) / np.maximum(law, 1e-300), np.inf)
            best = arrival.argmin(axis=1)
            items[:, place] = np.where(np.isfinite(arrival.min(axis=1)), best, 0)
            free[np.arange(len(histories)), best] = False
        scores = np.where(items > 0, -np.arange(k, dtype=np.float32), np.float32(-np.inf)).astype(
            np.float32
        )
        return Slates(items, scores)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        return {"law": self.law_, "first": np.array(self.first_)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        self.law_, self.first_ = np.asarray(state["law"], dtype=np.float64), int(state["first"])
        return self

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Probability of `items` `[B, n]` at the first place, by the law of the last stretch."""
        first: FloatArray = self.law_[-1, 0][items].astype(np.float32)
        return first


@dataclass
class PublishedTargets:
    """A `Published` policy as a target of single impressions: its whole law is known, so every
    expectation is exact.
    """

    name: str
    policy: Published
    seed: int = 0

    def __call__(self, rounds: Rounds) -> Target:
        law = self.policy.at(rounds.t, rounds.position)
        probability = np.take_along_axis(law, rounds.item[:, :, None], axis=2)[:, :, 0]
        noise = uniform(
            self.seed, Purpose.RECALL, rounds.row[:, None] & 0xFFFFFFFF, 0, rounds.position
        )
        drawn = (noise[:, :, None] > law.cumsum(axis=2)).sum(axis=2).clip(1, law.shape[2] - 1)
        return Target(probability, drawn[:, None, :], None, law)


def _completed(mean: DoubleArray) -> DoubleArray:
    """Each place's law over items 1..: the known propensities `mean` (NaN: not shown), the rest of
    1 shared among the others.

    Args:
        mean: `[stretches, places, n_items + 1]`.
    """
    law = np.zeros(mean.shape)
    known = np.isfinite(mean)
    known[:, :, 0] = True  # no item: never shown
    first = np.take_along_axis(mean, known.argmax(axis=0)[None], axis=0)[0]
    before = np.nan_to_num(first)
    for now, given, shown in zip(
        law, np.where(known, np.nan_to_num(mean), 0.0), known, strict=True
    ):
        given[:, 0] = 0.0
        left = 1.0 - given.sum(axis=1, keepdims=True)
        weight = np.where(shown, 0.0, before)
        weight = np.where(weight.sum(axis=1, keepdims=True) > 0, weight, ~shown)
        part = np.maximum(left, 0.0) / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        # Propensities are float32, and may add to a little over 1.
        rest = np.where(left > -1e-6, part * weight, np.where(shown, 0.0, before))
        now[:] = given + rest
        now /= now.sum(axis=1, keepdims=True)
        before = now
    return law
