"""Off-policy estimators of what recall brings through a ranking stage that stays as it is: each
weighs single items, by whether the target's slates would hold them.

What changes is the set of candidates; ranking and cut are asked (`serving.desk`), so the slate that
a set of candidates leads to is known. An item's chance to be in it over its chance to be logged is
then a weight of the item alone, where that of a whole slate would be a product of many.
"""

from __future__ import annotations

from typing import ClassVar

from policies.base import DoubleArray
from simulator.offpolicy.diagnostics import EstimateVerdict, Findings, weighted
from simulator.offpolicy.estimators import Estimator, Ratio, single
from simulator.offpolicy.evidence import Evidence, ReplayFacts


class CandidateIPS(Estimator):
    """Candidate IPS: the rewards of the logged items that the target's slates would hold, each by
    its own weight.

    Paper: Des Raj, "Some estimators in sampling with varying probabilities without replacement",
    JASA 1956, of the items of a slate, which the log has drawn one after another; importance
    weights of the items that a new candidate generator brings into a two-stage recommender:
    "Off-policy evaluation of candidate generators in two-stage recommender systems", RecSys 2025.
    The draw at a place is, given the items above, a draw of one item with known probabilities: so
    what stood above and what was drawn here over its probability is an unbiased estimate of the sum
    over the target's items, at every place; the mean of these over the places is taken. With
    marginal propensities of places that were drawn independently, what was drawn over its
    probability is. Assumption: an item's reward depends on the request and the item, not on its
    place or its neighbours. Valid: unbiased then, wherever the log could show each item that the
    target shows.
    """

    name: ClassVar[str] = "candidate_ips"
    paper: ClassVar[str] = "Des Raj 1956; RecSys 2025"
    scope: ClassVar = "items"

    def refuses(self, facts: ReplayFacts) -> str | None:
        if facts.kind == "unknown":
            return "the log's propensities are unknown"
        return single(facts, "ips")

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [((e.item_weight * e.rounds.reward).sum(axis=1), None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return e.mean_item_weight

    def judge(self, findings: Findings) -> EstimateVerdict:
        return weighted(findings, self_normalised=self.normalised)


class CandidateSNIPS(CandidateIPS):
    """Self-normalised candidate IPS: what `candidate_ips` counts, over what it would count of items
    that all have reward 1, times the number of items that the target shows.

    Paper: Swaminathan & Joachims, "The self-normalized estimator for counterfactual learning",
    NIPS 2015, of Des Raj's weights (JASA 1956; Hajek's ratio). Assumption: as `candidate_ips`.
    Valid: consistent; where the log cannot show some of the target's items it takes them for as
    good as the others.
    """

    name: ClassVar[str] = "candidate_snips"
    paper: ClassVar[str] = "Des Raj 1956; Swaminathan & Joachims 2015"
    normalised: ClassVar[bool] = True

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [((e.item_weight * e.rounds.reward).sum(axis=1), e.mean_item_weight)]


class CandidateDR(CandidateIPS):
    """Candidate doubly robust: what the reward model expects of the target's slates, and how far
    the logged items that these would hold were from it, weighted as by `candidate_ips`.

    Paper: the difference estimator of Cassel, Sarndal & Wretman, Biometrika 1976, over Des Raj's
    weights (JASA 1956); Dudik, Langford & Li, ICML 2011. Assumption: as `candidate_ips`. Valid:
    unbiased for any cross-fitted model. An item is held against what the model expects of it at its
    place in the target's slate, so that the two sums of predictions cancel in the mean whatever the
    model: its own sampling error enters as a product with that of the weights, and moves no
    interval.
    """

    name: ClassVar[str] = "candidate_dr"
    paper: ClassVar[str] = "Des Raj 1956; Dudik et al. 2011"
    model: ClassVar[bool] = True
    moves_with_model: ClassVar[bool] = False

    def refuses(self, facts: ReplayFacts) -> str | None:
        if facts.kind == "unknown":
            return "the log's propensities are unknown"
        return single(facts, "dr")

    def ratios(self, e: Evidence) -> list[Ratio]:
        residual = e.inclusion * e.rounds.reward - e.expected_items
        return [(e.value + (e.drawn_weight * residual).sum(axis=1), None)]
