"""Which of many policies to take by what a log says of their lifts, and what is guaranteed of the
one that is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.products import matmul
from simulator.offpolicy.lifts import OffPolicyLift
from simulator.offpolicy.uncertainty import RESAMPLES, multipliers
from simulator.stats import intervals
from simulator.stats.winners import Race, chances, corrected

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
        best: probability that it is the best of all that can be chosen, the control included; NaN
            where it cannot be.
        excluded: why it cannot be chosen, or None.
    """

    policy: str
    lift: float
    bound: float
    better: float
    best: float
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
        corrected, corrected_low, corrected_high: the favourite's lift and its 95% interval, right
            although it was taken for its estimate (`stats.winners.corrected`, as for the best arm
            of an online test).
    """

    control: str
    estimator: str
    level: float
    candidates: tuple[ChoiceCandidate, ...]
    pick: str | None
    favourite: str | None
    corrected: float
    corrected_low: float
    corrected_high: float

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
    supported = [one for one, why in zip(lifts, excluded, strict=True) if why is None]
    critical = _critical(supported, level, resamples, seed)
    race = _race(supported)
    best = {} if race is None else {one.arm: one.best for one in chances(race, control)}
    candidates = []
    for one, why in zip(lifts, excluded, strict=True):
        bound = better = float("nan")
        if one.moments is not None:
            bound = float(intervals.fieller(one.moments, critical=critical).low)
            better = _better(one) if why is None else better
        candidates.append(
            ChoiceCandidate(
                one.policy, one.lift, bound, better, best.get(one.policy, float("nan")), why
            )
        )
    pick = favourite = None
    correction = (float("nan"),) * 3
    if supported:
        safest = max((c for c in candidates if c.excluded is None), key=lambda c: c.bound)
        pick = safest.policy if safest.bound > 0 else None
        leader = max(supported, key=lambda lift: lift.lift)
        favourite = leader.policy
        correction = leader.lift, leader.low, leader.high
        if race is not None and len(race.arms) > 1:
            correction = corrected(race)
    return PolicyChoice(control, estimator, level, tuple(candidates), pick, favourite, *correction)


def _race(lifts: Sequence[OffPolicyLift]) -> Race | None:
    """The lifts with their covariances, without those that are known exactly; None: there are
    none.
    """
    open_ = [
        (one, one.influence, one.moments.df)
        for one in lifts
        if one.influence is not None and one.moments is not None and one.moments.variance > 0
    ]
    if not open_:
        return None
    influences = np.stack([influence for _, influence, _ in open_])
    df = min(df for *_, df in open_)
    cov = matmul(influences, influences.T) * influences.shape[1] / df
    values = np.array([one.lift for one, *_ in open_])
    return Race.of_lifts([one.policy for one, *_ in open_], values, cov, float(df))


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


def _critical(lifts: Sequence[OffPolicyLift], level: float, resamples: int, seed: int) -> float:
    """The `level` quantile of the largest studentised error of all lifts."""
    influences = [one.influence for one in lifts if one.influence is not None]
    scales = [float(np.sqrt(np.square(one).sum())) for one in influences]
    columns = [one / scale for one, scale in zip(influences, scales, strict=True) if scale > 0]
    if not columns:
        return float("nan")
    highest = multipliers(np.stack(columns, axis=1), resamples, seed).max(axis=1)
    # A single lift keeps at least Student's quantile: a bootstrap knows no degrees of freedom.
    df = min(one.moments.df for one in lifts if one.moments is not None)
    return max(float(np.quantile(highest, level)), float(intervals.quantile(df, 2 * level - 1)))
