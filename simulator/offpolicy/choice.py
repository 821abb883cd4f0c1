"""Which of many policies to take by what a log says of their lifts, and what is guaranteed of the
one that is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulator.offpolicy.lifts import OffPolicyLift
from simulator.offpolicy.uncertainty import RESAMPLES, multipliers
from simulator.stats import intervals

SUPPORT = "its estimate is unusable"
"""Why a policy cannot be chosen: the log does not support its estimate."""


@dataclass(frozen=True)
class ChoiceCandidate:
    """A policy that may be chosen.

    Attributes:
        policy: its name.
        lift: estimated, relative.
        bound: lower bound of the lift that holds for all candidates at once.
        better: probability that it is better than the control, by itself: Student's, from a flat
            prior. Whoever takes the best of many by it is misled; `bound` is for that.
        excluded: why it cannot be chosen, or None.
    """

    policy: str
    lift: float
    bound: float
    better: float
    excluded: str | None


@dataclass(frozen=True)
class PolicyChoice:
    """The policy to take, and its guarantee.

    Attributes:
        control: over whom the lifts are.
        estimator: of all of them.
        level: probability with which all bounds hold at once.
        candidates: in order of the lifts.
        pick: the policy with the largest lower bound, if that is above 0; None: keep the control.
        favourite: the policy with the largest estimate among those that the log supports; None:
            there is none.
        shrunk_low, shrunk_high: interval of the favourite's lift that is right although it was
            taken for its estimate; it holds for all candidates at once.
    """

    control: str
    estimator: str
    level: float
    candidates: tuple[ChoiceCandidate, ...]
    pick: str | None
    favourite: str | None
    shrunk_low: float
    shrunk_high: float

    def __getitem__(self, policy: str) -> ChoiceCandidate:
        return next(one for one in self.candidates if one.policy == policy)

    @property
    def sentence(self) -> str:
        """What to do, in words."""
        supported = [one for one in self.candidates if one.excluded is None]
        if not supported:
            return (
                f"Keep {self.control}: the log supports none of"
                f" {len(self.candidates)} policies ({SUPPORT})."
            )
        if self.pick is None:
            return (
                f"Keep {self.control}: of none of {len(supported)} policies is it shown that it is"
                f" better (at {self.level:.0%}, all at once)."
            )
        return (
            f"Take {self.pick}: with {self.level:.0%} confidence its lift over {self.control} is at"
            f" least {self[self.pick].bound:+.1%}, although it was taken among {len(supported)}."
        )


def choose(
    lifts: Sequence[OffPolicyLift],
    level: float = 0.95,
    resamples: int = 10 * RESAMPLES,
    seed: int = 0,
) -> PolicyChoice:
    """The pessimistic choice: the policy whose lift has the largest lower bound.

    A bound of a policy that was taken because its bound is the largest must hold for all policies
    at once. So the standard errors are multiplied by the `level` quantile of the largest of all
    studentised errors, which is drawn with their covariances by a multiplier bootstrap over units
    (Chernozhukov, Chetverikov & Kato, Annals of Statistics 2013). Choosing by lower bounds:
    Swaminathan & Joachims, JMLR 2015; that only a positive bound replaces the control: Thomas,
    Theocharous & Ghavamzadeh, "High confidence policy improvement", ICML 2015. A policy whose
    estimate is unusable is left out: its standard error is not known either.

    Args:
        lifts: over one control by one estimator, on the same rounds.
        level: of the bounds, all at once.
        resamples: draws of the largest error.
        seed: of the draws.

    Raises:
        ValueError: no lift, or lifts over different controls or by different estimators.
    """
    kinds = {(one.control, one.estimator) for one in lifts}
    if len(kinds) != 1:
        raise ValueError(f"a choice is among lifts over one control by one estimator; got {kinds}")
    ((control, estimator),) = kinds
    excluded = [_excluded(one) for one in lifts]
    open_ = [one for one, why in zip(lifts, excluded, strict=True) if why is None]
    one_sided, two_sided = _critical(open_, level, resamples, seed)
    candidates = []
    for one, why in zip(lifts, excluded, strict=True):
        bound = better = float("nan")
        if one.moments is not None:
            bound = float(intervals.fieller(one.moments, critical=one_sided).low)
            better = _better(one)
        candidates.append(ChoiceCandidate(one.policy, one.lift, bound, better, why))
    pick = favourite = None
    ends = float("nan"), float("nan")
    if open_:
        eligible = [one for one in candidates if one.excluded is None]
        safest = max(eligible, key=lambda one: one.bound)
        pick = safest.policy if safest.bound > 0 else None
        best = max(open_, key=lambda one: one.lift)
        favourite = best.policy
        if best.moments is not None:
            shrunk = intervals.fieller(best.moments, critical=two_sided)
            ends = float(shrunk.low), float(shrunk.high)
    return PolicyChoice(control, estimator, level, tuple(candidates), pick, favourite, *ends)


def _excluded(lift: OffPolicyLift) -> str | None:
    """Why a policy cannot be chosen, or None."""
    if lift.refused is not None:
        return lift.refused
    if lift.moments is None or lift.influence is None:
        return "nothing is known of its lift"
    if lift.word == "unusable":
        return f"{SUPPORT}: {'; '.join(lift.reasons)}"
    return None


def _better(lift: OffPolicyLift) -> float:
    """Probability that the lift is above 0 by Student's t; NaN where nothing varies."""
    from scipy.special import stdtr

    assert lift.moments is not None
    variance = float(lift.moments.variance)
    if not variance > 0:
        return float("nan")
    return float(stdtr(lift.moments.df, lift.moments.difference / np.sqrt(variance)))


def _critical(
    lifts: Sequence[OffPolicyLift], level: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The `level` quantiles of the largest studentised error of all lifts, and of the largest in
    size.
    """
    influences = [one.influence for one in lifts if one.influence is not None]
    scales = [float(np.sqrt(np.square(one).sum())) for one in influences]
    columns = [one / scale for one, scale in zip(influences, scales, strict=True) if scale > 0]
    if not columns:
        return float("nan"), float("nan")
    drawn = multipliers(np.stack(columns, axis=1), resamples, seed)
    highest, farthest = drawn.max(axis=1), np.abs(drawn).max(axis=1)
    # A single lift keeps at least Student's quantile: a bootstrap knows no degrees of freedom.
    least = [one.moments.df for one in lifts if one.moments is not None]
    df = min(least)
    return (
        max(float(np.quantile(highest, level)), float(intervals.quantile(df, 2 * level - 1))),
        max(float(np.quantile(farthest, level)), float(intervals.quantile(df, level))),
    )
