"""KindTable: what kinds of items, or of slates, were worth in a log, where items themselves are too
many. It knows no policy and no estimator.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from policies.base import DoubleArray, IntArray
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

Level = Literal["items", "slates"]
"""What is abstracted: single items at their places, or whole slates."""


MOST = 16
"""As many items of one cluster in a slate, or more, are one kind."""


@dataclass
class KindTable:
    """Mean reward of each kind, by context (and place, of items).

    A kind of an item is its cluster. A kind of a slate is the cluster that most of its items are of
    (of equally many, the one that stands first) and how many they are.

    Life: as of RewardTable.

    Attributes:
        level: what is abstracted.
        clusters: `[n_items + 1]` 1, 2, ...; 0 of no item.
        contexts, folds, seed: of the table.
        table: of the kinds.
    """

    level: Level
    clusters: IntArray
    contexts: int
    folds: int
    seed: int

    def __post_init__(self) -> None:
        kinds = int(self.clusters.max(initial=1)) * (MOST if self.level == "slates" else 1)
        self.table = RewardTable(kinds, self.contexts, self.folds, self.seed)

    def add(self, rounds: Rounds) -> None:
        """Count a chunk of rounds."""
        self.table.add(self.rounds(rounds))

    def expected(self, rounds: Rounds, target: Target) -> DoubleArray:
        """What the kinds of the target's slates were worth, `[R]`."""
        kinds = self.rounds(rounds)
        total: DoubleArray = self.table.expected(kinds, self.target(target)).sum(axis=1)
        return total

    def known(self, rounds: Rounds, target: Target) -> DoubleArray:
        """Share `[R]` of the kinds of the target's slates that the log has in this context."""
        seen = copy(self.table)
        seen.table = (self.table.support > self.table.kappa).astype(np.float64)
        share: DoubleArray = seen.expected(self.rounds(rounds), self.target(target)).mean(axis=1)
        return share

    def rounds(self, rounds: Rounds) -> Rounds:
        """The rounds with kinds for items; of slates, with one place and their whole reward."""
        if self.level == "items":
            return replace(rounds, item=self.clusters[rounds.item])
        zero, one = np.zeros((len(rounds), 1), dtype=np.int64), np.ones((len(rounds), 1))
        total = rounds.reward.sum(axis=1, keepdims=True)
        kind = self._of_slates(rounds.item)[:, None]
        return replace(rounds, position=zero, item=kind, reward=total, propensity=one)

    def target(self, target: Target) -> Target:
        """The target's slates as kinds; what it would do below logged items is not asked."""
        slates = self.clusters[target.slates]
        if self.level == "slates":
            flat = target.slates.reshape(-1, target.slates.shape[2])
            slates = self._of_slates(flat).reshape(*target.slates.shape[:2], 1)
        return Target(np.zeros(slates[:, 0].shape), slates, target.share)

    def _of_slates(self, slates: IntArray) -> IntArray:
        """The kind of each slate `[S, K]`, 0 of an empty one."""
        cluster = self.clusters[slates]
        often = ((cluster[:, :, None] == cluster[:, None, :]) & (cluster > 0)[:, None, :]).sum(2)
        often = np.where(cluster > 0, often, 0)
        first = often.argmax(axis=1)[:, None]
        main = np.take_along_axis(cluster, first, axis=1)[:, 0]
        count = np.take_along_axis(often, first, axis=1)[:, 0]
        return np.where(count > 0, (main - 1) * MOST + np.minimum(count, MOST), 0)
