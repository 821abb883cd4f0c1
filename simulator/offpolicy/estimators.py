"""Off-policy estimators of a target policy's reward per request; each says its paper, its
assumption, when it is valid.

An estimator turns rounds into numerators and denominators, and judges what came of them; sums over
units and intervals are made elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from policies.base import DoubleArray
from policies.validation import discount
from simulator.offpolicy.diagnostics import EstimateVerdict, Findings, matched, modelled, weighted
from simulator.offpolicy.evidence import Evidence, ReplayFacts, within
from simulator.offpolicy.kind_table import Level

Ratio = tuple[DoubleArray, DoubleArray | None]
"""Numerator `[R]` and denominator `[R]` (None: 1 for each round). An estimate is a sum of ratios of
their sums.
"""


Scope = Literal["slates", "items", "clusters"]
"""What an estimator weighs: whole slates, single items, or clusters of items at their places."""


class Estimator(ABC):
    """An off-policy estimator: a sum of ratios of sums over rounds."""

    name: ClassVar[str]
    paper: ClassVar[str]
    unit: ClassVar[str] = "request"
    threshold: float = float("inf")
    """Where weights are cut, switched or shrunk; infinite: nowhere."""
    model: ClassVar[bool] = False
    """It uses the reward model."""
    places: ClassVar[bool] = False
    """It uses the attention that places get (`RewardTable.attention`)."""
    moves_with_model: ClassVar[bool] = True
    """The sampling error of the reward model moves it, and so its intervals."""
    level: ClassVar[Level | None] = None
    """The kinds whose table it rests on (`kind_table`); None: on none."""
    scope: ClassVar[Scope] = "slates"
    """What its weights are of."""
    normalised: ClassVar[bool] = False
    """What enters with a weight is divided by the mean weight."""

    @property
    def label(self) -> str:
        """The name, and the threshold where weights are cut, switched or shrunk."""
        return self.name if np.isinf(self.threshold) else f"{self.name}({self.threshold:g})"

    def refuses(self, facts: ReplayFacts) -> str | None:
        """Why the estimator is not right for this log and target, or None: by default it needs
        weights of whole slates.
        """
        return _no_slate_weights(facts)

    @abstractmethod
    def ratios(self, e: Evidence) -> list[Ratio]:
        """Numerators and denominators of each round."""

    def trust(self, e: Evidence) -> DoubleArray:
        """Weight `[R, K]` with which the model's residual of each impression enters; none where
        there is no model.
        """
        return np.zeros(e.rounds.item.shape)

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        """A weight of each round `[R]` whose mean is 1 where the propensities are right, and which
        moves with the estimate: lifts are adjusted by it. None: there is none.
        """
        return e.weight

    def checks(self, e: Evidence) -> Mapping[str, DoubleArray]:
        """Columns `[R]` of its own by which it is judged; it finds their sums by unit in
        `Findings.checks`.
        """
        return {}

    def judge(self, findings: Findings) -> EstimateVerdict:
        """May the estimate be believed? By default it is judged by the weights that it rests on."""
        return weighted(findings, self_normalised=self.normalised)


def single(facts: ReplayFacts, same: str) -> str | None:
    """Why an estimator made for slates has nothing to do where there are none."""
    return f"every slate has one item: the same as {same}" if facts.length == 1 else None


def _no_slate_weights(facts: ReplayFacts) -> str | None:
    if facts.kind == "unknown":
        return "the log's propensities are unknown"
    if facts.kind == "marginal" and facts.length > 1:
        return (
            "marginal propensities do not give the probability of a whole slate; it needs"
            " propensities conditional on the items above"
        )
    return None


class Matching(Estimator):
    """Replay by matching: mean reward of the logged impressions whose item the target puts at the
    same place.

    Paper: Li, Chu, Langford & Wang, "Unbiased offline evaluation of contextual-bandit-based news
    article recommendation algorithms", WSDM 2011. Assumption: the log showed items uniformly at
    random, and an impression's reward does not depend on its neighbours. Valid: single items under
    uniform logging; under any other log it inherits the log's choice of what was shown where, and
    is a description, not an estimate. Value per impression. Where the target is stochastic, an
    impression counts with the probability that it would have matched, instead of a draw of it.
    """

    name, paper, unit = "matching", "Li et al. 2011", "impression"

    def refuses(self, facts: ReplayFacts) -> str | None:
        return None

    def ratios(self, e: Evidence) -> list[Ratio]:
        agree = e.target.probability
        return [((agree * e.rounds.reward).sum(axis=1), agree.sum(axis=1))]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None

    def judge(self, findings: Findings) -> EstimateVerdict:
        return matched(findings, fair=findings.facts.uniform)


class Recalled(Estimator):
    """Matching within a set: mean reward of the logged impressions whose item is among the target's
    candidates.

    Paper: Li et al. 2011, with the recalled set for the one item. Assumption: as Matching, and that
    the stages behind recall would have shown the recalled items as the log did. Valid: on single
    items drawn uniformly it estimates the reward of a candidate drawn uniformly from the set (it is
    then SNIPS of the policy that shows such a candidate). Anywhere else it is no estimate: it says
    how good the logged impressions were that the target would have kept. Value per impression.
    """

    name, paper, unit = "recalled", "Li et al. 2011, within the recalled set", "impression"

    def refuses(self, facts: ReplayFacts) -> str | None:
        return None if facts.recalled else "the target gives no set of candidates"

    def ratios(self, e: Evidence) -> list[Ratio]:
        assert e.target.recalled is not None
        return [_within(e, within(e.rounds.item, e.target.recalled))]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None

    def judge(self, findings: Findings) -> EstimateVerdict:
        facts = findings.facts
        return matched(findings, fair=facts.uniform and facts.length == 1)


def ranks(items: np.ndarray, recalled: np.ndarray) -> np.ndarray:
    """0-based place of each of `items` `[R, K]` among its row's `recalled` `[R, M]`, M where it is
    not there, `[R, K]`.
    """
    place = np.full(items.shape, recalled.shape[1])
    for k in range(items.shape[1]):
        here = recalled == items[:, k, None]
        place[:, k] = np.where(here.any(axis=1), here.argmax(axis=1), place[:, k])
    return place


def _within(e: Evidence, agree: np.ndarray) -> Ratio:
    return (agree * e.rounds.reward).sum(axis=1), agree.sum(axis=1).astype(np.float64)


@dataclass(frozen=True)
class HitRate(Estimator):
    """HR@k on the logged clicks: the share of them whose item is among the target's first `k`
    candidates.

    Paper: Deshpande & Karypis, TOIS 2004. Assumption: none; it is no value. Valid: as a figure of
    how well the policy foretells what was clicked among what the log chose to show, with all the
    log's choices in it.
    """

    k: int = 10
    name, paper, unit = "hr", "Deshpande & Karypis 2004", "click"

    @property
    def label(self) -> str:
        return f"{self.name}@{self.k}"

    def refuses(self, facts: ReplayFacts) -> str | None:
        return None if facts.recalled else "the target gives no set of candidates"

    def worth(self, rank: np.ndarray) -> DoubleArray:
        """What a click on the candidate at each 0-based `rank` counts; k or more: nothing."""
        return (rank < self.k).astype(np.float64)

    def ratios(self, e: Evidence) -> list[Ratio]:
        assert e.target.recalled is not None
        clicked = (e.rounds.reward > 0).astype(np.float64)
        return [
            (
                (clicked * self.worth(ranks(e.rounds.item, e.target.recalled))).sum(axis=1),
                clicked.sum(axis=1),
            )
        ]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None

    def judge(self, findings: Findings) -> EstimateVerdict:
        return matched(findings, fair=False)


@dataclass(frozen=True)
class Gain(HitRate):
    """NDCG@k on the logged clicks, each of which is one relevant item: 1 / log2(rank + 2).

    Paper: Järvelin & Kekäläinen, TOIS 2002. Assumption and validity: as HitRate.
    """

    name, paper = "ndcg", "Järvelin & Kekäläinen 2002"

    def worth(self, rank: np.ndarray) -> DoubleArray:
        return np.where(rank < self.k, discount(rank), 0.0)


class IPS(Estimator):
    """Inverse propensity score; on slates the standard IPS of whole slates.

    Paper: Horvitz & Thompson, JASA 1952; Precup, Sutton & Singh, ICML 2000. Assumption: correct
    propensities and full support (the log can show whatever the target shows). Valid: always then,
    unbiased; its variance grows with the product of the weights over the slate.
    """

    name, paper = "ips", "Horvitz & Thompson 1952"

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [(e.weight * e.total, None)]


@dataclass(frozen=True)
class ClippedIPS(Estimator):
    """IPS with weights cut at `threshold`.

    Paper: Ionides, JCGS 2008; Bottou et al., JMLR 2013. Assumption: as IPS, and that little value
    lies where the weight is above the threshold. Valid: biased downwards for rewards that are never
    negative, by the mean of the cut part; the threshold is chosen by an estimate of the mean
    squared error, which enters the interval.
    """

    threshold: float
    name, paper = "clipped_ips", "Ionides 2008; Bottou et al. 2013"

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [(np.minimum(e.weight, self.threshold) * e.total, None)]


class SNIPS(Estimator):
    """Self-normalised IPS: weights are divided by their own mean.

    Paper: Swaminathan & Joachims, "The self-normalized estimator for counterfactual learning", NIPS
        2015. Assumption: as IPS.
    Valid: consistent, bias of order 1 / effective sample size; stays within the range of the
    rewards, and does not mind propensities that are wrong by a constant factor.
    """

    name, paper, normalised = "snips", "Swaminathan & Joachims 2015", True

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [(e.weight * e.total, e.weight)]


class DirectMethod(Estimator):
    """Direct method: the reward model's prediction for what the target shows.

    Paper: Beygelzimer & Langford, KDD 2009; Dudík, Langford & Li, ICML 2011. Assumption: the reward
    model is right everywhere the target goes. Valid: as far as the model is; no propensity is used.
    Its interval holds the model's sampling error (infinitesimal jackknife), not its
    misspecification: the mean weighted residual is shown beside it.
    """

    name, paper, model = "dm", "Beygelzimer & Langford 2009", True

    def refuses(self, facts: ReplayFacts) -> str | None:
        if facts.kind == "unknown":
            return "the log's propensities are unknown, so nothing can contradict the model"
        return None

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [(e.value, None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None

    def judge(self, findings: Findings) -> EstimateVerdict:
        return modelled(findings)


class DoublyRobust(Estimator):
    """Doubly robust: the model's prediction, corrected by the weighted residual of the logged
    rewards.

    Paper: Dudík, Langford & Li, "Doubly robust policy evaluation and learning", ICML 2011;
        cross-fitting as in Chernozhukov et al.
    2018. Assumption: correct propensities with full support, or a correct model. Valid: unbiased
    whatever the cross-fitted model, if the propensities are right.
    """

    name, paper, model = "dr", "Dudík, Langford & Li 2011", True

    def kept(self, e: Evidence) -> DoubleArray:
        """What is left of the weight of each slate, `[R]`: all of it; other members of the family
        cut it.
        """
        return e.weight

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [(e.value + self.kept(e) * e.residual, None)]

    def trust(self, e: Evidence) -> DoubleArray:
        """The kept weight of the slate for each of its impressions."""
        return np.broadcast_to(self.kept(e)[:, None], e.rounds.item.shape)


class SelfNormalisedDR(DoublyRobust):
    """Doubly robust with the correction divided by the mean weight.

    Paper: Robins & Rotnitzky 2007; Thomas & Brunskill, ICML 2016 (weighted doubly robust).
    Assumption: as DR. Valid: consistent, bias of order 1 / effective sample size; much steadier
    where weights are large.
    """

    name, paper, normalised = "sndr", "Thomas & Brunskill 2016", True

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [(e.value, None), (e.weight * e.residual, e.weight)]


@dataclass(frozen=True)
class SwitchDR(DoublyRobust):
    """SWITCH-DR: doubly robust where the weight is at most `threshold`, the model alone elsewhere.

    Paper: Wang, Agarwal & Dudík, "Optimal and adaptive off-policy evaluation in contextual
    bandits", ICML 2017. Assumption: as DR below the threshold, a right model above it. Valid:
    biased by the model's error above the threshold, which is chosen by an estimate of the mean
    squared error.
    """

    threshold: float
    name, paper = "switch_dr", "Wang, Agarwal & Dudík 2017"

    def kept(self, e: Evidence) -> DoubleArray:
        return np.where(e.weight <= self.threshold, e.weight, 0.0)


@dataclass(frozen=True)
class ShrunkDR(DoublyRobust):
    """Doubly robust with optimistic shrinkage: the weight w becomes
    `threshold * w / (w^2 + threshold)`.

    Paper: Su, Dimakopoulou, Krishnamurthy & Dudík, "Doubly robust off-policy evaluation with
    shrinkage", ICML 2020 (there as optimistic shrinkage). Assumption: between the model's
    (threshold 0) and DR's (infinite). Valid: biased by the model's error times what was shrunk
    away; the threshold is chosen by an estimate of the mean squared error.
    """

    threshold: float
    name, paper = "shrunk_dr", "Su et al. 2020"

    def kept(self, e: Evidence) -> DoubleArray:
        if np.isinf(self.threshold):
            return e.weight
        return self.threshold * e.weight / (np.square(e.weight) + self.threshold)
