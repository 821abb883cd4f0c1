"""Off-policy estimators made for slates: each says its paper, its assumption, when it is valid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policies.base import DoubleArray, IntArray
from policies.products import matmul, pseudo_inverse
from simulator.offpolicy.estimators import Estimator, Ratio, single
from simulator.offpolicy.evidence import Evidence, ReplayFacts, within
from simulator.offpolicy.rounds import Rounds


class IndependentIPS(Estimator):
    """Independent IPS: each place is weighted by its own *marginal* probabilities.

    Paper: Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen, "Offline evaluation of ranking
        policies with click models", KDD
    2018. Assumption: an impression's reward does not depend on its neighbours; propensities are
    marginal over what stands above. Valid: exact then. With propensities conditional on the items
    above it is biased even if rewards are independent, because the conditioning items were drawn by
    the log; it refuses them.
    """

    name, paper = "iips", "Li et al. 2018"

    def refuses(self, facts: ReplayFacts) -> str | None:
        if facts.kind == "unknown":
            return "the log's propensities are unknown"
        if facts.kind == "conditional" and facts.length > 1:
            return (
                "the propensities are conditional on the items above; position-wise weights over"
                " them are biased (use rips)"
            )
        return single(facts, "ips")

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [((e.step * e.rounds.reward).sum(axis=1), None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return e.mean_weight


class RewardInteractionIPS(Estimator):
    """Reward-interaction IPS (RIPS): each place is weighted by the product of the weights down to
    it.

    Paper: McInerney, Brost, Chandar, Mehrotra & Carterette, "Counterfactual evaluation of slate
    recommendations with sequential reward interactions", KDD 2020. Assumption: an impression's
    reward depends on it and on the items above, not below (a cascade); propensities are conditional
    on the items above. Valid: unbiased then, with less variance than standard IPS.
    """

    name, paper = "rips", "McInerney et al. 2020"

    def refuses(self, facts: ReplayFacts) -> str | None:
        return super().refuses(facts) or single(facts, "ips")

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [((e.running * e.rounds.reward).sum(axis=1), None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return e.mean_weight


class CascadeDR(Estimator):
    """Cascade doubly robust: RIPS with a control variate at every place.

    Paper: Kiyohara, Saito, Matsuhiro, Narita, Shimizu & Yamamoto, "Doubly robust off-policy
    evaluation for ranking policies under the cascade behavior model", WSDM 2022 (Cascade-DR).
    Assumption: as RIPS; the model may be wrong. Valid: unbiased for any cross-fitted model, if the
    target is deterministic or can say what it expects at a place after the *logged* items above it
    (`explore` and `random` can: `policies.base.Expectant`). Its own drawn slates do not do instead:
    they stand below other items. The prediction of what follows a place is the model's for the
    target's own slates; it has mean 0 whatever they are.
    """

    name, paper, model = "cascade_dr", "Kiyohara et al. 2022", True

    def refuses(self, facts: ReplayFacts) -> str | None:
        if not facts.foretells:
            return (
                "the target is stochastic and cannot say what it expects at a place after the"
                " logged items above it: the policy has no `slate_expectations`"
                " (policies.base.Expectant)"
            )
        return super().refuses(facts) or single(facts, "dr")

    def ratios(self, e: Evidence) -> list[Ratio]:
        assert e.model is not None
        above = np.concatenate((np.ones((len(e), 1)), e.running[:, :-1]), axis=1)
        follows = e.expected[:, ::-1].cumsum(axis=1)[:, ::-1] - e.expected
        future = e.predicted + follows
        planned = e.model.given_above(e.rounds, e.target) + follows
        return [((e.running * (e.rounds.reward - future) + above * planned).sum(axis=1), None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return e.mean_weight

    def trust(self, e: Evidence) -> DoubleArray:
        """The running weight: what else the model adds at and above a place cancels by telescoping,
        or has mean 0.
        """
        return e.running


SlateDistribution = Callable[[Rounds], tuple[IntArray, DoubleArray]]
"""The logging policy over whole slates, for small candidate sets: slates `[S, K]`, and their
probability `[R, S]`.
"""


@dataclass(frozen=True)
class PseudoInverse(Estimator):
    """Pseudo-inverse estimator (PI) of whole-slate rewards.

    Paper: Swaminathan, Krishnamurthy, Agarwal, Dudík, Langford, Jose & Zitouni, "Off-policy
        evaluation for slate recommendation", NIPS
    2017: the weight of a slate s is `q' pinv(G) 1_s`, with G the log's second moment of the (place,
    item) indicators and q the target's mean of them. Assumption: the reward of a slate is a sum of
    unknown effects of (place, item); no impression need have a reward of its own. Valid: unbiased
    then, wherever the log could show each (place, item) that the target shows; its variance grows
    with the number of places, not of slates. G must be known, so it runs on logs with

    - propensities that are marginal, of places that were drawn independently: weight = sum of
      `step` - K + 1 (Swaminathan et al., Proposition 1 for product policies);
    - slates drawn uniformly without replacement (seen from the propensities 1/m, 1/(m - 1), ...):
        closed form below;
    - a `logging` distribution over slates that is given (small candidate sets, Plackett-Luce by
        enumeration).
    """

    logging: SlateDistribution | None = None
    name, paper = "pseudo_inverse", "Swaminathan et al. 2017"

    def refuses(self, facts: ReplayFacts) -> str | None:
        if self.logging is not None:
            return None
        if facts.kind == "unknown":
            return "the log's propensities are unknown"
        if facts.kind == "conditional" and facts.length > 1 and not facts.uniform:
            return (
                "it needs the log's law of whole slates: independent places, uniform slates, or a"
                " given `logging` distribution"
            )
        return single(facts, "ips")

    def ratios(self, e: Evidence) -> list[Ratio]:
        if self.logging is not None:
            weight = _enumerated(e, *self.logging(e.rounds))
        elif e.rounds.kind == "marginal" or e.rounds.length == 1:
            weight = e.step.sum(axis=1) - e.rounds.length + 1
        else:
            weight = _uniform(e)
        return [(weight * e.total, None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None if e.rounds.kind == "unknown" else e.mean_weight


def _uniform(e: Evidence) -> DoubleArray:
    """`q' pinv(G) 1_s`, `[R]`, where the log draws K of m items uniformly without replacement.

    G is a combination of Kronecker products of identities and all-one matrices over places and
    items. Its eigenvalues are K/m on (mean place, mean item), (m - K) / (m (m - 1)) on (mean place,
    contrast of items), 0 on (contrast of places, mean item) and 1 / (m - 1) on (contrasts of both);
    projecting q and 1_s on these spaces leaves the expected number of agreeing places and of common
    items only.
    """
    k = e.rounds.length
    m = 1.0 / e.rounds.propensity[:, 0]
    share = e.share
    agree, common = np.zeros(len(e)), np.zeros(len(e))
    for d in range(e.target.slates.shape[1]):
        slate = e.target.slates[:, d]
        agree += share[:, d] * (slate == e.rounds.item).sum(axis=1)
        common += share[:, d] * within(e.rounds.item, slate).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.where(m - k > 0.5, m * (m - 1) / (m - k) * (common / k - k / m), 0.0)
    return 1.0 + (m - 1) * (agree - common / k) + contrast


def _enumerated(e: Evidence, slates: IntArray, probability: DoubleArray) -> DoubleArray:
    """`q' pinv(G) 1_s`, `[R]`, from the log's whole distribution over `slates` `[S, K]`,
    `probability` `[R, S]`.
    """
    items = int(max(slates.max(), e.target.slates.max(), e.rounds.item.max())) + 1
    shape = e.rounds.length * items
    logged, share = _indicators(e.rounds.item, items), e.share
    wanted = np.zeros_like(logged)
    for d in range(share.shape[1]):
        wanted += share[:, d, None] * _indicators(e.target.slates[:, d], items)
    every = _indicators(slates, items)
    out = np.empty(len(e))
    distinct, which = np.unique(probability, axis=0, return_inverse=True)
    for i, law in enumerate(distinct):
        moment = matmul((law[:, None] * every).T, every).reshape(shape, shape)
        at = which.ravel() == i
        out[at] = (matmul(wanted[at], pseudo_inverse(moment)) * logged[at]).sum(axis=1)
    return out


def _indicators(slates: IntArray, items: int) -> DoubleArray:
    """1 at each (place, item) of each slate, `[S, K * items]`."""
    out = np.zeros((len(slates), slates.shape[1] * items))
    cell = np.arange(slates.shape[1]) * items + slates
    out[np.arange(len(slates))[:, None], cell] = 1.0
    return out
