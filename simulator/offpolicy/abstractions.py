"""Off-policy estimators that look at items, or at slates, through an abstraction: clusters of
items, and what a slate mostly consists of. Each says its paper, its assumption, when it is valid.

Where the log never drew the very items that a policy shows, it has drawn others of their kind; and
the weight of a kind, the policy's share of it over the log's, is far smaller than that of an item.
MIPS and LIPS count both shares, so that no propensity is needed: the sum over kinds of share times
mean reward is a table by kind, cross-fitted and shrunk as the reward model of items is. OffCEM
leaves to its clusters only what a model of single items misses, and weighs it by propensities.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from policies.base import DoubleArray
from simulator.offpolicy.diagnostics import (
    COVERAGE,
    EstimateVerdict,
    Findings,
    Word,
    finished,
    weighted,
)
from simulator.offpolicy.estimators import Estimator, Ratio, Scope, single
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
        return _no_clusters(facts)

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


class OffCEM(Estimator):
    """Off-policy evaluation by the conjunct effect model (OffCEM): what the reward model expects of
    the target's slates, corrected by its residuals on logged items of the clusters that the target
    shows there.

    Paper: Saito, Ren & Joachims, "Off-policy evaluation for large action spaces via conjunct effect
    modeling", ICML 2023. Assumption: the model is wrong by the same amount for all items of a
    cluster, given request and place (local correctness), and an item's reward does not depend on
    its neighbours. Valid: unbiased then, for any choice of the log and the target among items,
    wherever the log can show every item of a cluster that the target shows, at each place one that
    does not stand above; what it cannot show (withheld since it was seen) lowers the mean weight.
    The weight of a cluster is (target's share of it) / (propensity of the logged item * number of
    its items that are left), which needs no more than the logged propensities; with one cluster for
    each item it is that of `dr` by places, and with one for all items the residual is the uniform
    mean. Its variance grows with how unevenly the log draws within a cluster.
    """

    name: ClassVar[str] = "offcem"
    paper: ClassVar[str] = "Saito, Ren & Joachims 2023"
    model: ClassVar[bool] = True
    scope: ClassVar[Scope] = "clusters"

    def refuses(self, facts: ReplayFacts) -> str | None:
        if facts.kind == "unknown":
            return "the log's propensities are unknown"
        return _no_clusters(facts)

    def ratios(self, e: Evidence) -> list[Ratio]:
        missed = e.rounds.reward - e.predicted
        return [(e.value + (e.cluster_weight * missed).sum(axis=1), None)]

    def trust(self, e: Evidence) -> DoubleArray:
        """The weight of each item's cluster."""
        return e.cluster_weight

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return e.mean_cluster_weight

    def judge(self, findings: Findings) -> EstimateVerdict:
        """By the weights of clusters; weak at best."""
        by_weights = weighted(findings, self_normalised=False)
        claim = (
            "valid only if the model errs alike on all items of a cluster; the log cannot show it"
        )
        word: Word = "unusable" if by_weights.word == "unusable" else "weak"
        return EstimateVerdict(word, (*by_weights.reasons, claim))


def _no_clusters(facts: ReplayFacts) -> str | None:
    """Why an estimator by clusters does not run where items have none."""
    return None if facts.clusters else "items have no clusters (--clusters)"
