"""Off-policy estimators that look at items, or at slates, through an abstraction: clusters of
items, and what a slate mostly consists of. Each says its paper, its assumption, when it is valid.

Where the log never drew the very items that a policy shows, it has drawn others of their kind; and
the weight of a kind, the policy's share of it over the log's, is far smaller than that of an item.
Both shares are counted here, so that no propensity is needed: the sum over kinds of share times
mean reward is a table by kind, cross-fitted and shrunk as the reward model of items is.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from policies.base import DoubleArray
from simulator.offpolicy.diagnostics import COVERAGE, EstimateVerdict, Findings, finished
from simulator.offpolicy.estimators import Estimator, Ratio, single
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.kind_table import Level


class MarginalIPS(Estimator):
    """Marginalised IPS (MIPS): each place is weighted by the target's share of the item's cluster
    there over the log's.

    Paper: Saito & Joachims, "Off-policy evaluation for large action spaces via embeddings", ICML
    2022. Assumption: given the context and the place, an item's reward depends on its cluster
    alone (no direct effect), and the context is all by which log and target choose among clusters.
    Valid: consistent then, wherever the log shows the clusters that the target shows (common
    embedding support). With shares that are counted the estimate is the cluster's mean reward, for
    the clusters that the target shows. It knows nothing of whom an item suits beyond the context,
    nor of good and bad items within a cluster.
    """

    name: ClassVar[str] = "mips"
    paper: ClassVar[str] = "Saito & Joachims 2022"
    level: ClassVar[Level] = "items"
    claim: ClassVar[str] = "items of a cluster are worth the same"

    def refuses(self, facts: ReplayFacts) -> str | None:
        return None if facts.clusters else "items have no clusters (--clusters COLUMN)"

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [(e.kinds[self.level].expected(e.rounds, e.target), None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None

    def checks(self, e: Evidence) -> dict[str, DoubleArray]:
        known = e.kinds[self.level].known(e.rounds, e.target)
        return {"known": known, "rounds": np.ones(len(e))}

    def judge(self, findings: Findings) -> EstimateVerdict:
        known = findings.checks["known"].sum() / findings.checks["rounds"].sum()
        bad = []
        if known < COVERAGE:
            bad.append(f"the log has only {known:.0%} of the kinds that the target shows")
        return finished(findings, bad, [f"valid only if {self.claim}; the log cannot show it"])


class LatentIPS(MarginalIPS):
    """Latent IPS (LIPS): whole slates are weighted by the target's share of their kind over the
    log's, the kind being the cluster that most items are of, and how many.

    Paper: Kiyohara, Nomura & Saito, "Off-policy evaluation of slate bandit policies via optimizing
    abstraction", WWW 2024, with an abstraction that is fixed and not learned. Assumption: given the
    context, a slate's reward depends on its kind alone; its items may act on one another in any
    way. Valid: as `mips`.
    """

    name: ClassVar[str] = "lips"
    paper: ClassVar[str] = "Kiyohara, Nomura & Saito 2024"
    level: ClassVar[Level] = "slates"
    claim: ClassVar[str] = "slates of a kind are worth the same"

    def refuses(self, facts: ReplayFacts) -> str | None:
        return super().refuses(facts) or single(facts, "mips")
