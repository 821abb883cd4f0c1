"""Off-policy estimators for logs without exploration: what is random is not what was shown but who
looked at it and clicked. Each says its assumption, its source, when it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from policies.base import DoubleArray
from simulator.offpolicy.diagnostics import (
    COVERAGE,
    LEAST_SAMPLE,
    EstimateVerdict,
    Findings,
    finished,
)
from simulator.offpolicy.estimators import Estimator, Ratio
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.uncertainty import Ratios, delta

SEEN_TOGETHER = 0.98
"""`cips` is unusable where less of what the target shows stood in the logged slate of the same
request: the rest counts as nothing.
"""

LEAST_OVERLAP = 0.5
"""`cdr` is unusable below this overlap: the model would stand in for most of what is shown."""

MOST_CARRIED = 0.10
"""`cdr` is unusable where the model's error on the overlap, if it errs as much on the rest, is more
than this share of the estimate.
"""


class ClickIPS(Estimator):
    """Click-based IPS: the reward of each logged item that the target shows, too, times how much
    likelier it is looked at on the target's place.

    Paper: the ratio of click probabilities in place of that of policies is the idea of Tanaka et
        al., "Off-policy evaluation for ranking policies under deterministic logging policies", ICLR
        2026 (arXiv 2603.21485, CIPS). What is written here is derived from the position-based model
        (Richardson et al., WWW 2007), in whose ratio the item cancels, and is the item-position
        estimator of Li et al., KDD 2018, on a log that draws nothing; it may differ from theirs.
    Assumption: a click is random given the request: an item is looked at with a probability of its
    place, and clicked with one of its own, whatever its neighbours; and all that the target shows
    stood in the logged slate of the same request. Valid: then; it needs no propensity. What did not
    stand there counts as nothing, so that for rewards that are never negative it is a lower bound.
    The attention of places comes from the log (`RewardTable.attention`) and is taken as known.
    """

    name, paper = "cips", "Li et al. 2018; idea: Tanaka et al. 2026"
    places = True

    def refuses(self, facts: ReplayFacts) -> str | None:
        if facts.kind != "unknown":
            return "the log has propensities, by which less is assumed"
        return None

    def ratios(self, e: Evidence) -> list[Ratio]:
        return [((e.click_weight * e.rounds.reward).sum(axis=1), None)]

    def control_variate(self, e: Evidence) -> DoubleArray | None:
        return None

    def checks(self, e: Evidence) -> Mapping[str, DoubleArray]:
        met = (e.click_weight > 0).sum(axis=1).astype(np.float64)
        return {"met": met, "overlap": e.overlap, "rounds": np.ones(len(e))}

    def judge(self, findings: Findings) -> EstimateVerdict:
        bad, poor = [], [_UNTESTED]
        overlap = _overlap(findings)
        met = findings.checks["met"].sum()
        if met < LEAST_SAMPLE:
            bad.append(f"only {met:.0f} impressions of the log are shown by the target, too")
        if not overlap >= SEEN_TOGETHER:
            bad.append(
                f"only {overlap:.0%} of what the target shows stood in the logged slate of the same"
                " request, and the rest counts as nothing: a lower bound"
            )
        return finished(findings, bad, poor)


@dataclass(frozen=True)
class ClickDR(ClickIPS):
    """Click-based doubly robust: the reward model for the target's slate, corrected by the weighted
    residuals of the logged items that the target shows, too.

    Paper: as `cips`; doubly robust as Dudík, Langford & Li, ICML 2011, with our reward model. It
        has the name of the CDR of Tanaka et al. 2026, and may differ from it.
    Assumption: as `cips` for the items that stood in the logged slate; for the others, that the
    model errs between not at all and as much as on those. Valid: as far as that holds; the more
    overlap, the less rests on it. Two estimates are made: with the model as it is beyond the
    overlap, and with its mean error on the overlap `carried` over (the correction is divided by the
    overlap, as in `sndr`); the first is printed, and its interval is the hull of both.
    """

    carried: bool = False
    name, paper, model = "cdr", "Dudík et al. 2011; idea: Tanaka et al. 2026", True

    @property
    def normalised(self) -> bool:  # type: ignore[override]
        """The correction is divided by the overlap."""
        return self.carried

    @property
    def label(self) -> str:
        return f"{self.name}, carried" if self.carried else self.name

    def ratios(self, e: Evidence) -> list[Ratio]:
        residual = (e.click_weight * (e.rounds.reward - e.predicted)).sum(axis=1)
        if self.carried:
            return [(e.value, None), (residual, e.overlap)]
        return [(e.value + residual, None)]

    def trust(self, e: Evidence) -> DoubleArray:
        return e.click_weight

    def checks(self, e: Evidence) -> Mapping[str, DoubleArray]:
        residual = (e.click_weight * (e.rounds.reward - e.predicted)).sum(axis=1)
        return {**super().checks(e), "residual": residual, "value": e.value}

    def judge(self, findings: Findings) -> EstimateVerdict:
        bad, poor = [], [_UNTESTED]
        overlap, coverage = _overlap(findings), findings.weights.coverage
        if overlap < LEAST_OVERLAP:
            bad.append(
                f"only {overlap:.0%} of what the target shows stood in the logged slate of the same"
                " request: the model stands in for most of it, and clicks do not hold it there"
            )
        elif overlap < 1:
            carried = _carried(findings)
            text = (
                f"the model stands in for {1 - overlap:.0%} of what the target shows; its error on"
                f" the rest, carried over, would move the estimate by {carried:.0%}"
            )
            (bad if not carried <= MOST_CARRIED else poor).append(text)
        if coverage < COVERAGE:
            bad.append(f"the log shows only {coverage:.0%} of what the target shows")
        return finished(findings, bad, poor)


def _carried(findings: Findings) -> float:
    """By how much of itself the estimate would move if the model erred beyond the overlap as it
    does on it: the end of the 95% interval that is farther from 0.
    """
    columns = findings.checks
    mean = Ratios(columns["residual"][:, None], columns["overlap"][:, None])
    ends = delta(mean)
    value = columns["value"].sum() / columns["rounds"].sum()
    if not value > 0:
        return float("inf")
    return (1 - _overlap(findings)) * max(abs(ends.low), abs(ends.high)) / float(value)


_UNTESTED = (
    "rests on clicks that are random given the request and independent of their neighbours; the log"
    " cannot test it"
)


def _overlap(findings: Findings) -> float:
    """Share of the attention to the target's slates that falls on items which stood in the logged
    slate of the same request: the mean over rounds.
    """
    return float(findings.checks["overlap"].sum() / findings.checks["rounds"].sum())
