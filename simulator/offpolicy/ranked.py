"""What the ranking stage expects of the slates that it makes of a policy's candidates: a figure of
the set that is recalled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from policies.base import Catalogue, DoubleArray, Sequences
from policies.elementary import exps
from simulator.offpolicy.diagnostics import EstimateVerdict, Findings, finished
from simulator.offpolicy.estimators import Estimator, Ratio
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.settings import BY_SERVING, RANKED
from simulator.serving.desk import Ranks
from simulator.serving.ranking import Ranker


@dataclass(frozen=True)
class RankedClicks(Estimator):
    """Expected clicks of the target's slates, by the ranker's own click probabilities.

    Where a ranking stage stands behind recall, the order of the candidates hardly reaches the user,
    and HR@10 is of an order. Here each slate is the one that the stage cuts out of the recalled
    set, and counts what a fitted ranker expects of its items.

    Paper: the direct method (Dudík, Langford & Li, ICML 2011) with the ranker as the model.
    Assumption: P(click) of an item is the ranker's, whatever the place and the items beside it, and
    also for items that the log rarely showed. Valid: as far as the ranker is right. Where it picks
    the slates as well, items of which it thinks too much are picked, and the figure is too high.

    Attributes:
        ranker: whose scores are log P(click).
    """

    ranker: Ranker
    name, paper = RANKED, BY_SERVING[RANKED]

    @classmethod
    def of(cls, ranker: Ranks | None, past: Sequences, catalogue: Catalogue, history: int) -> Self:
        """By the click probabilities of a ranking stage, which may also look at watch times; where
        recall is shown as it is, by those of a ranker fitted for it.

        Args:
            ranker: of the desks that serve the policies, or None.
            past: every user's impressions before the replayed days.
            catalogue: groups of items.
            history: impressions of the past that the ranker is given.
        """
        if not isinstance(ranker, Ranker):
            ranker = Ranker.fit(past, catalogue, history, 0.0)
        return cls(replace(ranker, weight=0.0))

    def refuses(self, facts: ReplayFacts) -> str | None:
        return None

    def ratios(self, e: Evidence) -> list[Ratio]:
        assert e.rounds.histories is not None
        total = np.zeros(len(e))
        for d in range(e.target.slates.shape[1]):
            chances = exps(self.ranker.score(e.rounds.histories, e.target.slates[:, d]))
            total += e.share[:, d] * chances.sum(axis=1)
        return [(total, None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None

    def judge(self, findings: Findings) -> EstimateVerdict:
        return finished(findings, [], ["it is as good as the ranker that expects it"])
