"""Team-draft interleaving: two arms share each slate, and each item is credited to the arm that
drafted it. No test of it here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.base import Catalogue, Histories, Slates
from policies.streams import Purpose, uniform
from simulator.serving import kernels
from simulator.serving.desk import Desk, Served


@dataclass(frozen=True)
class Draft:
    """A desk of two arms (Radlinski, Kurup & Joachims, "How does clickthrough data reflect
    retrieval quality?", CIKM 2008, alg. 2).

    Both arms make their whole slate (recall, channels, ranking). Then, round by round, a coin says
    which arm picks first, and each picks its best item that is not in the slate yet; an arm that
    has none left passes.

    Attributes:
        first, second: the arms, in the order of their names.
        seed: of the coins, which are keyed by user, step and round.
    """

    first: Desk
    second: Desk
    seed: int

    def admitting(self, catalogue: Catalogue, t: int) -> Draft:
        """The same two desks as from `t` (ms) on, when the catalogue is another."""
        first, second = (desk.admitting(catalogue, t) for desk in (self.first, self.second))
        return Draft(first, second, self.seed)

    def serve(self, histories: Histories, k: int) -> Served:
        """Interleaved slates `[B, k]` with the team (0 = first, 1 = second) of each item.

        Raises:
            ServingError: a policy of either arm raised or broke its contract.
        """
        lists = [arm.serve(histories, k) for arm in (self.first, self.second)]
        coins = (
            uniform(
                self.seed,
                Purpose.INTERLEAVE,
                histories.user[:, None],
                histories.step[:, None],
                np.arange(k),
            )
            < 0.5
        )
        items = np.zeros((len(histories), k), dtype=np.int64)
        team, channel = np.zeros(items.shape, dtype=np.uint8), np.zeros(items.shape, dtype=np.uint8)
        channels = [
            np.zeros(items.shape, dtype=np.uint8) if one.channel is None else one.channel
            for one in lists
        ]
        kernels.draft(
            lists[0].slates.items,
            lists[1].slates.items,
            channels[0],
            channels[1],
            coins,
            items,
            team,
            channel,
        )
        scores = np.where(items > 0, -np.arange(k), -np.inf).astype(np.float32)
        return Served(Slates(items, scores), channel, team)
