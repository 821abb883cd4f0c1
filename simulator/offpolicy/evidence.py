"""What an estimator is given: facts of a log and a target, and the rounds with the weights that
estimators share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from policies.base import DoubleArray, IntArray
from simulator.log.metadata import Propensity
from simulator.offpolicy.kind_table import KindTable
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target


@dataclass(frozen=True, slots=True)
class ReplayFacts:
    """What decides which estimators are right for a log and a target.

    Attributes:
        kind: of the log's propensities.
        length: impressions of the longest slate.
        uniform: every logged slate was drawn uniformly without replacement, as its propensities
            show.
        foretells: the target can say what it expects at a place after the logged items above.
        recalled: the target gives the set of its candidates.
        clusters: items have clusters.
    """

    kind: Propensity
    length: int
    uniform: bool = False
    foretells: bool = True
    recalled: bool = False
    clusters: bool = False


class Evidence:
    """Rounds and what the target does in them, with the weights that estimators share; everything
    is computed once.
    """

    def __init__(
        self,
        rounds: Rounds,
        target: Target,
        model: RewardTable | None = None,
        kinds: Mapping[str, KindTable] = MappingProxyType({}),
        clusters: IntArray | None = None,
    ) -> None:
        self.rounds, self.target, self.model, self.kinds = rounds, target, model, kinds
        self.clusters = clusters

    def __len__(self) -> int:
        return len(self.rounds)

    @cached_property
    def step(self) -> DoubleArray:
        """Target's over log's probability of each logged item, `[R, K]`."""
        return self.target.probability / self.rounds.propensity

    @cached_property
    def running(self) -> DoubleArray:
        """Product of `step` down to each place, `[R, K]`: exact for propensities conditional on the
        items above.
        """
        return np.multiply.accumulate(self.step, axis=1)

    @cached_property
    def weight(self) -> DoubleArray:
        """Target's over log's probability of the whole logged slate, `[R]`."""
        whole: DoubleArray = self.running[:, -1]
        return whole

    @cached_property
    def mean_weight(self) -> DoubleArray:
        """Mean over places of the weight with which a place's reward enters, `[R]`: `running` where
        propensities are conditional, `step` where they are marginal. Its expectation is 1.
        """
        by_place = self.step if self.rounds.kind == "marginal" else self.running
        mean: DoubleArray = by_place.mean(axis=1)
        return mean

    @cached_property
    def inclusion(self) -> DoubleArray:
        """Probability that the target's slate holds each logged item, at whatever place, `[R, K]`:
        exact where the target's slates are all that it shows, else that of its draws.
        """
        out = np.zeros(self.rounds.item.shape)
        for d in range(self.target.slates.shape[1]):
            out += self.share[:, d, None] * within(self.rounds.item, self.target.slates[:, d])
        return out

    @cached_property
    def item_weight(self) -> DoubleArray:
        """Weight of each logged item, `[R, K]`: the sum over a round of weight times what an item
        has for itself is unbiased for its sum over the items of the target's slate (Des Raj 1956;
        mean over the places of what stood above and what was drawn here over its propensity).
        """
        return self.inclusion * self.drawn_weight

    @cached_property
    def drawn_weight(self) -> DoubleArray:
        """`item_weight` of an item that the target's slate surely holds, `[R, K]`."""
        k = self.rounds.length
        below = np.arange(k - 1, -1, -1) if self.rounds.kind == "conditional" else np.zeros(k)
        weight: DoubleArray = (1.0 / self.rounds.propensity + below) / k
        return weight

    @cached_property
    def expected_items(self) -> DoubleArray:
        """What the model expects of each logged item at its place in the target's slates, times
        `inclusion`, `[R, K]`.
        """
        assert self.model is not None
        out = np.zeros(self.rounds.item.shape)
        for d in range(self.target.slates.shape[1]):
            slate = self.target.slates[:, d]
            shown = self.model.at(self.rounds, slate)
            for place in range(slate.shape[1]):
                same = (slate[:, place, None] == self.rounds.item) & (slate[:, place, None] > 0)
                out += self.share[:, d, None] * same * shown[:, place, None]
        return out

    @cached_property
    def mean_item_weight(self) -> DoubleArray:
        """Sum of `item_weight` over the number of items that the target shows, `[R]`. Its
        expectation is 1; 0 where the target shows none.
        """
        mean: DoubleArray = self.item_weight.sum(axis=1) / self._wanted
        return mean

    @cached_property
    def _wanted(self) -> DoubleArray:
        """How many items the target shows, `[R]`; 1 where it shows none."""
        shown: DoubleArray = (self.share[:, :, None] * (self.target.slates > 0)).sum(axis=(1, 2))
        return np.maximum(shown, 1.0)

    @cached_property
    def cluster_weight(self) -> DoubleArray:
        """Weight of each logged item, `[R, K]`: the target's share of its cluster at its place over
        the log's chance to draw a given item of the cluster there, times how many such items are
        not above it. What all items of a cluster have in common then has, summed over a round, the
        mean that it has under the target.
        """
        assert self.clusters is not None
        cluster = self.clusters[self.rounds.item]
        left = np.bincount(self.clusters)[cluster].astype(np.float64)
        if self.rounds.kind == "conditional":
            for place in range(1, self.rounds.length):
                same = cluster[:, :place] == cluster[:, place, None]
                left[:, place] -= same.sum(axis=1)
        weight: DoubleArray = self._cluster_share(cluster) / (self.rounds.propensity * left)
        return weight

    @cached_property
    def mean_cluster_weight(self) -> DoubleArray:
        """Sum of `cluster_weight` over the number of items that the target shows, `[R]`. Its
        expectation is 1; 0 where the target shows none.
        """
        mean: DoubleArray = self.cluster_weight.sum(axis=1) / self._wanted
        return mean

    def _cluster_share(self, cluster: IntArray) -> DoubleArray:
        """Probability that the target shows an item of the logged one's cluster at each place,
        `[R, K]`: exact of single items where it says what it expects, else that of its slates.
        """
        assert self.clusters is not None
        if self.rounds.length == 1 and self.target.foretells:
            here, row = np.unique(cluster, return_inverse=True)
            belongs = (self.clusters == here[:, None]).astype(np.float64)
            return self.target.expects(belongs, row.reshape(cluster.shape))
        share = np.zeros(cluster.shape)
        for d in range(self.target.slates.shape[1]):
            slate = self.target.slates[:, d]
            share += self.share[:, d, None] * ((self.clusters[slate] == cluster) & (slate > 0))
        return share

    @cached_property
    def total(self) -> DoubleArray:
        """Reward of the logged slate, `[R]`."""
        total: DoubleArray = self.rounds.reward.sum(axis=1)
        return total

    @cached_property
    def share(self) -> DoubleArray:
        """Probability of each of the target's slates, `[R, D]`: equal shares where they are
        draws.
        """
        if self.target.share is not None:
            return self.target.share
        return np.full(self.target.slates.shape[:2], 1.0 / self.target.slates.shape[1])

    @cached_property
    def predicted(self) -> DoubleArray:
        """Predicted reward of each logged impression, `[R, K]`."""
        assert self.model is not None
        return self.model.predict(self.model.fold(self.rounds.user), self.rounds)

    @cached_property
    def expected(self) -> DoubleArray:
        """Predicted reward at each place under the target, `[R, K]`."""
        assert self.model is not None
        return self.model.expected(self.rounds, self.target)

    @cached_property
    def click_weight(self) -> DoubleArray:
        """How much likelier each logged item is looked at where the target puts it than where it
        stood, `[R, K]`; 0 where the target does not show it.
        """
        attention = self._attention
        moved = np.zeros(self.rounds.item.shape)
        for d in range(self.target.slates.shape[1]):
            for place in range(self.rounds.length):
                same = self.target.slates[:, d, place, None] == self.rounds.item
                moved += same * (self.share[:, d] * attention[:, place])[:, None]
        weight: DoubleArray = moved / attention
        return weight

    @cached_property
    def overlap(self) -> DoubleArray:
        """Share of the attention to the target's slate that falls on items of the logged slate,
        `[R]`.
        """
        attention = self._attention
        shown = (self.target.slates > 0) * attention[:, None, :] * self.share[:, :, None]
        met = (self.click_weight * attention).sum(axis=1)
        total = shown.sum(axis=(1, 2))
        share: DoubleArray = np.divide(met, total, out=np.zeros(len(self)), where=total > 0)
        return share

    @cached_property
    def _attention(self) -> DoubleArray:
        """The attention that each place gets, `[R, K]`."""
        assert self.model is not None
        at_place: DoubleArray = self.model.attention[self.rounds.position]
        return at_place

    @cached_property
    def residual(self) -> DoubleArray:
        """Reward of the logged slate less its prediction, `[R]`."""
        left: DoubleArray = self.total - self.predicted.sum(axis=1)
        return left

    @cached_property
    def value(self) -> DoubleArray:
        """Predicted reward of the target's slate, `[R]`."""
        value: DoubleArray = self.expected.sum(axis=1)
        return value


def within(items: np.ndarray, recalled: np.ndarray) -> np.ndarray:
    """Whether each of `items` `[R, K]` is in its row's `recalled` `[R, M]`, `[R, K]`; never rounds
    x candidates x places.
    """
    found = np.zeros(items.shape, dtype=bool)
    for place in range(items.shape[1]):
        found[:, place] = (recalled == items[:, place, None]).any(axis=1)
    return found
