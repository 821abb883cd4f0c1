"""Clusters: each user is in one arm, and users of one cluster are in the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.base import IntArray
from policies.streams import Purpose, uniform
from simulator.designs.base import DesignError
from simulator.designs.split import Split


@dataclass(frozen=True)
class Clusters(Split):
    """A split of whole clusters of users, each arm with the same number of them (to within one).
    The cluster is the unit: its users share whatever happens within it.

    Attributes:
        clusters: the cluster of each user, from 0; () where there are none yet.
    """

    clusters: tuple[int, ...] = ()

    kind: ClassVar = "clusters"
    titles: ClassVar = {"clusters": "Clusters", "clusters-cuped": "Clusters, CUPED"}
    words: ClassVar = "each cluster of users is in one arm, and is the unit"

    def disagreements(self) -> Iterator[tuple[str, str]]:
        n = len(set(self.clusters))
        if n < 2 * len(self.arms):
            rule = "must name at least two clusters for each arm, a number for each user"
            yield "clusters", f"{rule}; got {n} clusters for {len(self.arms)} arms"

    def misfit(self, n_users: int) -> str | None:
        if len(self.clusters) == n_users:
            return None
        return (
            f"design.clusters must have a number for each of the {n_users:,} users; it has"
            f" {len(self.clusters):,}"
        )

    def cluster_of_user(self, n_users: int) -> IntArray | None:
        wrong = self.misfit(n_users)
        if wrong is not None:
            raise DesignError(wrong)
        return np.array(self.clusters, dtype=np.int64)

    def _draw(self, user: IntArray) -> IntArray:
        """The arm of users `[n]`: clusters in a random order are dealt to the arms in turn."""
        seed = self._known_seed()
        if not self.clusters:
            return super()._draw(user)
        names, cluster = np.unique(np.array(self.clusters, dtype=np.int64), return_inverse=True)
        rank = np.argsort(np.argsort(uniform(seed, Purpose.ASSIGN, names, 2), kind="stable"))
        arm: IntArray = (rank % len(self.arms))[cluster[user]]
        return arm
