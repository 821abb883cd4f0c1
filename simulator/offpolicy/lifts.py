"""Off-policy lifts: how much better one policy is than another, or than the one that wrote the log,
by the same rounds. Values are estimated elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from policies.base import DoubleArray
from policies.products import matmul, pseudo_inverse
from simulator.offpolicy.diagnostics import EstimateVerdict, Word
from simulator.offpolicy.replay import Estimate, Evaluation
from simulator.offpolicy.settings import BY_SERVING
from simulator.offpolicy.uncertainty import FirstOrder
from simulator.stats import intervals
from simulator.stats.moments import Moments
from simulator.stats.tests import adjust, t_test

LOGGING = "the logging policy"
"""What a lift is over where no other policy is named."""

_ORDER: tuple[Word, ...] = ("trustworthy", "weak", "unusable")


@dataclass(frozen=True)
class OffPolicyLift:
    """The lift of one policy over another by one estimator, or why there is none.

    Attributes:
        policy: whose lift.
        control: over whom: a policy, or LOGGING.
        estimator: of both values.
        moments: of both values, adjusted by the control variate where that makes the difference
            surer; None where there is no lift.
        lift, low, high: relative, with its Fieller interval.
        difference, difference_low, difference_high: per round (or impression).
        p: two-sided, of no difference; NaN where the two are the same policy on this log.
        p_adjusted: by Holm over the policies that this estimator compares with the control.
        gain: variance of the difference of two estimates, each from a log of its own of this size,
            over the variance of the difference here: so many times as many rounds would they need.
        verdict: the worse of the verdicts on the two values, with the reasons of both.
        refused: why there is none.
        influence: `[U]` first-order effect of each unit on the lift; what choosing among policies
            is made of.
    """

    policy: str
    control: str
    estimator: str
    moments: Moments | None = None
    lift: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    difference: float = float("nan")
    difference_low: float = float("nan")
    difference_high: float = float("nan")
    p: float = float("nan")
    p_adjusted: float = float("nan")
    gain: float = float("nan")
    verdict: EstimateVerdict | None = None
    refused: str | None = None
    influence: DoubleArray | None = field(default=None, repr=False, compare=False)

    @property
    def word(self) -> Word | None:
        """The verdict in a word; None where there is no lift."""
        return None if self.verdict is None else self.verdict.word

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is no better."""
        return () if self.verdict is None else self.verdict.reasons


def off_policy_lifts(
    evaluations: Sequence[Evaluation], control: str | None = None, level: float = 0.95
) -> list[OffPolicyLift]:
    """The lift of every policy over a control, by every estimator.

    Both values come from the same rounds, so the variance of their difference holds their
    covariance by user, and a control variate with it (Jeunen & Ustimenko, "Delta-OPE: off-policy
    estimation with pairs of policies", RecSys 2024: the additive control variate with the least
    variance). Intervals and tests are those of an online comparison of the same users.

    Args:
        evaluations: of policies on the same rounds with the same settings (one call of `evaluate`).
        control: name of one of them; None: the policy that wrote the log, whose value is the mean
            of its rewards.
        level: of the intervals.

    Returns:
        Policies in order, each with its estimators in order; the control itself is left out.

    Raises:
        KeyError: no evaluation of that name.
    """
    base = None
    if control is not None:
        base = next((one for one in evaluations if one.policy == control), None)
        if base is None:
            raise KeyError(f"no evaluation of {control!r}: {[one.policy for one in evaluations]}")
    found = []
    for one in evaluations:
        if one is not base:
            found += [_lift(one, estimate, base, level) for estimate in one.estimates]
    return _adjusted(found)


def _lift(
    one: Evaluation, treatment: Estimate, base: Evaluation | None, level: float
) -> OffPolicyLift:
    """The lift by one estimator."""
    name = LOGGING if base is None else base.policy
    bare = OffPolicyLift(one.policy, name, treatment.estimator)
    control = one.logged if base is None else base[treatment.estimator]
    why = treatment.refused or control.refused
    if why is not None:
        return replace(bare, refused=why)
    if base is None and treatment.estimator in BY_SERVING:
        why = "a model's values compare policies with one another: give --control"
        return replace(bare, refused=why)
    if base is None and treatment.unit not in one.own:
        return replace(bare, refused=f"the log has no figure of its own per {treatment.unit}")
    if base is None:
        anchors = (one.own[treatment.unit],) * len(treatment.first_order)
    else:
        anchors = control.first_order
    variates = [v for v in (treatment.variate, control.variate) if v is not None]
    made = [
        Pair.of(t, c, variates)
        for t, c in zip(treatment.first_order, anchors, strict=True)
        if np.isfinite(t.value) and np.isfinite(c.value) and len(t.influence) > 1
    ]
    verdict = _worse(treatment, None if base is None else control)
    if not made:
        return replace(bare, verdict=verdict)
    # A threshold was chosen on the same log: as for values, the hull with the unbiased member's.
    relative = [intervals.fieller(pair.moments, level) for pair in made]
    absolute = [intervals.difference(pair.moments, level) for pair in made]
    moments = made[0].moments
    apart = separate(treatment.first_order[0], anchors[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = float(np.divide(apart, moments.variance))
    return replace(
        bare,
        moments=moments,
        lift=float(moments.lift),
        low=float(min(i.low for i in relative)),
        high=float(max(i.high for i in relative)),
        difference=float(moments.difference),
        difference_low=float(min(i.low for i in absolute)),
        difference_high=float(max(i.high for i in absolute)),
        p=float(max(t_test(pair.moments).p for pair in made)),
        gain=gain,
        verdict=verdict,
        influence=made[0].influence(),
    )


@dataclass(frozen=True)
class Pair:
    """Two estimates over the same units, to first order, treatment first.

    Attributes:
        values: `[2]`.
        influences: `[2, U]`.
        df: degrees of freedom of their variances.
    """

    values: DoubleArray
    influences: DoubleArray
    df: float

    @classmethod
    def of(
        cls, treatment: FirstOrder, control: FirstOrder, variates: Sequence[FirstOrder] = ()
    ) -> Pair:
        """The pair, adjusted by control variates z, whose expectation is 0: V' = V - theta' z with
        theta the regression of V's influences on those of z.

        A regression is linear, so this theta is the best one for the difference and for the ratio
        of the two, too. What theta costs is counted: each variate takes a degree of freedom. Where
        the difference gets no surer by it nothing is adjusted, so that its variance is never larger
        than the unadjusted one.
        """
        values = np.array([treatment.value, control.value])
        influences = np.stack([treatment.influence, control.influence])
        df = len(treatment.influence) - 1.0
        plain = cls(values, influences, df)
        if not variates or df <= len(variates):
            return plain
        z = np.stack([one.influence for one in variates])
        theta = matmul(matmul(influences, z.T), pseudo_inverse(matmul(z, z.T)))
        away = np.array([one.value for one in variates])
        adjusted = cls(
            values - matmul(theta, away), influences - matmul(theta, z), df - len(variates)
        )
        return adjusted if adjusted.moments.variance < plain.moments.variance else plain

    @cached_property
    def moments(self) -> Moments:
        """The two values as means of the same units."""
        units = self.influences.shape[1]
        cov = matmul(self.influences, self.influences.T) * units / self.df
        treatment, control = self.values
        variances = cov[1, 1], cov[0, 0], cov[0, 1]
        return Moments(control, treatment, *variances, self.df, units, units, paired=True)

    def influence(self) -> DoubleArray:
        """First-order effect of each unit on the relative lift, `[U]`."""
        treatment, control = self.values
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = self.influences[0] - treatment / control * self.influences[1]
            out: DoubleArray = moved / abs(control)
        return out


def separate(treatment: FirstOrder, control: FirstOrder) -> float:
    """Variance of the difference of two estimates that come from two logs of this size."""
    units = len(treatment.influence)
    both = np.square(treatment.influence).sum() + np.square(control.influence).sum()
    return float(both * units / (units - 1))


def _worse(treatment: Estimate, control: Estimate | None) -> EstimateVerdict | None:
    """The verdict on a lift: the worse of those on the two values, with the reasons of both."""
    given = [one for one in (treatment, control) if one is not None and one.verdict is not None]
    if not given:
        return None
    words = [one.word for one in given if one.word is not None]
    reasons = treatment.reasons
    if control is not None:
        reasons = (*reasons, *(f"of the control: {reason}" for reason in control.reasons))
    return EstimateVerdict(max(words, key=_ORDER.index), reasons)


def _adjusted(found: list[OffPolicyLift]) -> list[OffPolicyLift]:
    """The same lifts with their p values adjusted, the policies of one estimator being a family."""
    out = list(found)
    for name in dict.fromkeys(one.estimator for one in found):
        at = [i for i, one in enumerate(found) if one.estimator == name]
        p = adjust(np.array([found[i].p for i in at]))
        for i, value in zip(at, p, strict=True):
            out[i] = replace(found[i], p_adjusted=float(value))
    return out
