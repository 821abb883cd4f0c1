"""What one replay says: the evaluation of every policy and what it is held against; replay.json
keeps it, and `replay_page` shows it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simulator.offpolicy.choice import PolicyChoice, choose
from simulator.offpolicy.jobs import OwnLogTruth, ReplayJob, truth
from simulator.offpolicy.lifts import LOGGING, OffPolicyLift, off_policy_lifts
from simulator.offpolicy.offline_figure import figures_of, reading
from simulator.offpolicy.replay import Estimate, Evaluation
from simulator.offpolicy.scores import Ordering
from simulator.offpolicy.settings import RANKED, ROLLOUT
from simulator.page.words import listed

COVERED_OFTEN = (
    "the truth is a sample too: covered means that the interval holds the truth's mean, which has"
    " its own standard error"
)


@dataclass(frozen=True)
class ReplayResult:
    """What policies would have got on the same rounds.

    Attributes:
        title: what was replayed, in words.
        reward: what was counted.
        arm: whose rounds they are.
        n_items: items of the log.
        evaluations: of each policy, in order.
        truths: by policy, what it really got, where the log has its own rounds of the same time.
        orders: how the scores of each policy order what was shown.
        notes: what the reader of the data says.
        control: over whom the lifts are: a policy, or None for the one that wrote the log.
        lifts: of every other policy, by every estimator.
    """

    title: str
    reward: str
    arm: str
    n_items: int
    evaluations: tuple[Evaluation, ...]
    truths: Mapping[str, OwnLogTruth]
    orders: tuple[Ordering, ...]
    notes: Mapping[str, Any]
    control: str | None = None
    lifts: tuple[OffPolicyLift, ...] = ()

    @property
    def log(self) -> Evaluation:
        """An evaluation, asked for what it says of the log: that is the same in all of them."""
        return self.evaluations[0]

    @property
    def over(self) -> str:
        """What the lifts are over, in words."""
        return LOGGING if self.control is None else self.control

    @property
    def choice(self) -> PolicyChoice | None:
        """Which policy to take, by the lifts of one estimator: the one to read first for most
        policies. None where there are fewer than two.
        """
        policies = list(dict.fromkeys(lift.policy for lift in self.lifts))
        if len(policies) < 2:
            return None
        first = Counter(self.lift_of(policy).estimator for policy in policies)
        ((estimator, _),) = first.most_common(1)
        return choose([lift for lift in self.lifts if lift.estimator == estimator])

    @property
    def reading(self) -> PolicyReading | None:
        """Which policy to test first where all were rolled out; None where there are fewer than two
        or one of the figures is not usable for some of them.
        """
        found = reading(figures_of(self.evaluations)) if len(self.evaluations) > 1 else None
        if found is None:
            return None

        def names(places: Iterable[int]) -> tuple[str, ...]:
            return tuple(self.evaluations[place].policy for place in places)

        order = names(np.argsort(-found.value, kind="stable"))
        return PolicyReading(found.name, order, names(found.leaders), names(found.tied(found.best)))

    def lift_of(self, policy: str) -> OffPolicyLift:
        """The lift of a policy to read first: by the estimator that is read first for its value, or
        by the next that the control has, too.
        """
        mine = {one.estimator: one for one in self.lifts if one.policy == policy}
        (evaluation,) = (one for one in self.evaluations if one.policy == policy)
        ran = [mine[name] for name in evaluation.precedence if not mine[name].refused]
        return ran[0] if ran else mine[evaluation.headline.estimator]


@dataclass(frozen=True)
class PolicyReading:
    """Which policy to test first, by two figures.

    Attributes:
        by: the figures in words (`offline_figure.reading`).
        order: the policies, the best first.
        leaders: the best of the first figure, and those that it cannot tell from it.
        tied: of these, those that the second figure cannot tell from `pick` either.
    """

    by: str
    order: tuple[str, ...]
    leaders: tuple[str, ...]
    tied: tuple[str, ...]

    @property
    def pick(self) -> str:
        """The policy to test first."""
        return self.order[0]

    @property
    def sentence(self) -> str:
        """What to do, in words."""
        best, *others = self.leaders
        said = f"Test {self.pick} first. {ROLLOUT} puts {best} first"
        if not others:
            return f"{said}, and no other policy is as good within its error."
        said += f", and cannot tell {listed(others)} from it by its own error. Of these {RANKED}"
        if self.tied:
            return f"{said} puts {self.pick} first, but cannot tell {listed(self.tied)} from it."
        return f"{said} puts {self.pick} first."


@dataclass(frozen=True)
class Deviation:
    """How far an estimate is from the truth.

    Attributes:
        covered: whether the interval holds the truth; None: there is no interval.
        z: distance in standard errors of the difference of two independent samples.
        relative: distance as a share of the truth.
    """

    covered: bool | None
    z: float
    relative: float


def gather(
    job: ReplayJob,
    evaluations: Sequence[Evaluation],
    orders: Sequence[Ordering] = (),
    control: str | None = None,
) -> ReplayResult:
    """The result of one job: truths and lifts are computed, all else is put together."""
    log = job.stream.log.metadata
    return ReplayResult(
        title=job.title,
        reward=job.stream.reward,
        arm=job.stream.arm or log.arms[0],
        n_items=log.n_items,
        evaluations=tuple(evaluations),
        truths={one.policy: truth(job.truths[one.policy])
                for one in evaluations if one.policy in job.truths},
        orders=tuple(orders),
        notes={name: value for name, value in job.notes.items()
               if isinstance(value, (str, int, float, list))},
        control=control,
        lifts=tuple(off_policy_lifts(evaluations, control)),
    )  # fmt: skip


def deviation(estimate: Estimate, truth: OwnLogTruth) -> Deviation:
    """Estimate against truth."""
    interval, distance = estimate.interval(), estimate.value - truth.value
    both = math.hypot(estimate.error, truth.error)
    return Deviation(
        None if math.isnan(interval.low) else interval.covers(truth.value),
        distance / both if both > 0 else math.nan,
        distance / truth.value if truth.value else math.nan,
    )


def as_json(result: ReplayResult) -> dict[str, Any]:
    """A result of replay.json (docs/offpolicy.md). NaN is null there, and infinity `inf`: that is
    the threshold which cuts no weight.
    """
    log = result.log
    stored: dict[str, Any] = _finite(
        {
            "title": result.title,
            "reward": result.reward,
            "arm": result.arm,
            "propensity": log.facts.kind,
            "rounds": log.weights.rounds,
            "impressions": log.weights.impressions,
            "unobserved": log.unobserved,
            "n_items": result.n_items,
            "logged": _estimate(log.logged, None),
            "policies": [_policy(one, result.truths.get(one.policy)) for one in result.evaluations],
            "control": result.control,
            "lifts": [_lift(lift) for lift in result.lifts],
            "choice": None if result.choice is None else _choice(result.choice),
            "reading": None if result.reading is None else _reading(result.reading),
            "orders": [_order(order) for order in result.orders],
            "notes": dict(result.notes),
        }
    )
    return stored


def _lift(one: OffPolicyLift) -> dict[str, Any]:
    """A lift by its own names; both values as they enter it."""
    stored = {
        name: getattr(one, name)
        for name in (
            *("policy", "control", "estimator", "lift", "low", "high"),
            *("difference", "difference_low", "difference_high"),
            *("p", "p_adjusted", "gain", "refused"),
        )
    }
    if one.moments is not None:
        stored["value"] = float(one.moments.treatment)
        stored["control_value"] = float(one.moments.control)
    return stored | {"verdict": one.word, "reasons": list(one.reasons)}


def _choice(choice: PolicyChoice) -> dict[str, Any]:
    return asdict(choice) | {"sentence": choice.sentence}


def _reading(reading: PolicyReading) -> dict[str, Any]:
    return asdict(reading) | {"pick": reading.pick, "sentence": reading.sentence}


def _policy(one: Evaluation, truth: OwnLogTruth | None) -> dict[str, Any]:
    head = one.headline
    return {
        "policy": one.policy,
        "headline": head.estimator,
        "verdict": head.word,
        "reasons": list(head.reasons),
        "truth": None if truth is None else _truth(truth),
        "estimates": [_estimate(estimate, truth) for estimate in one.estimates],
        "diagnostics": _diagnostics(one),
    }


def _diagnostics(one: Evaluation) -> dict[str, Any]:
    w = one.weights
    chi, p = w.drift()
    weights = None
    if one.facts.kind != "unknown":
        weights = {
            "effective_sample": w.effective,
            "effective_share": w.effective_share,
            "effective_by_place": w.effective_by_place,
            "matched_rounds": w.share_of_rounds_matched,
            "events": w.events,
            "mean": w.mean,
            "low": one.mean_weight.low,
            "high": one.mean_weight.high,
            "largest": [
                {"weight": weight, "share": weight / w.total, "row": row}
                for weight, row in w.largest
                if weight > 0
            ],
        }
    return {
        "matched_impressions": w.share_of_impressions_matched,
        "coverage": w.coverage,
        "drift": {"chi_square": chi, "p": p},
        "days": [asdict(day) for day in w.by_day()],
        "weights": weights,
    }


def _truth(truth: OwnLogTruth) -> dict[str, Any]:
    return {
        "value": truth.value,
        "error": truth.error,
        "rounds": truth.rounds,
        "relative_error": truth.relative_error,
        "low": truth.interval.low,
        "high": truth.interval.high,
    }


def _estimate(one: Estimate, truth: OwnLogTruth | None) -> dict[str, Any]:
    interval = one.interval()
    stored = {
        "estimator": one.estimator,
        "paper": one.paper,
        "unit": one.unit,
        "value": one.value,
        "count": one.count,
        "error": one.error,
        "low": interval.low,
        "high": interval.high,
        "intervals": {each.method: [each.low, each.high] for each in one.intervals},
        "threshold": one.threshold,
        "bias": one.bias,
        "curve": [point._asdict() for point in one.curve],
        "refused": one.refused,
        "verdict": one.word,
        "reasons": list(one.reasons),
    }
    if truth is not None and one.refused is None:
        stored |= asdict(deviation(one, truth))
    return stored


def _order(order: Ordering) -> dict[str, Any]:
    stored: dict[str, Any] = {
        "policy": order.policy,
        "sessions": order.sessions,
        "refused": order.refused,
    }
    for name, figure in order.figures.items():
        stored[name] = None
        if figure is not None:
            value, ends = figure
            stored[name] = {"value": value, "low": ends.low, "high": ends.high}
    return stored


def _finite(value: Any) -> Any:
    """The same without the floats that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
