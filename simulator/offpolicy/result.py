"""What a replay says, once: a plain mapping for replay.json, from which its document is made
(`replay_page`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.offpolicy.jobs import OwnLogTruth, ReplayJob, truth
from simulator.offpolicy.replay import Estimate, Evaluation
from simulator.offpolicy.scores import Ordering
from simulator.offpolicy.uncertainty import EstimateInterval

COVERED_OFTEN = (
    "the truth is a sample too: covered means that the interval holds the truth's mean, which has"
    " its own standard error"
)


def gather(
    job: ReplayJob, evaluations: Sequence[Evaluation], orders: Sequence[Ordering] = ()
) -> dict[str, Any]:
    """One replay as plain JSON types; NaN becomes None."""
    first = evaluations[0]
    return {
        "title": job.title,
        "reward": job.stream.reward,
        "arm": job.stream.arm or job.stream.log.metadata.arms[0],
        "propensity": first.facts.kind,
        "rounds": first.weights.rounds,
        "impressions": first.weights.impressions,
        "unobserved": first.unobserved,
        "n_items": job.stream.log.metadata.n_items,
        "logged": _estimate(first.logged, None),
        "policies": [
            _policy(one, truth(job.truths[one.policy]) if one.policy in job.truths else None)
            for one in evaluations
        ],
        "orders": [_order(order) for order in orders],
        "notes": {
            name: value
            for name, value in job.notes.items()
            if isinstance(value, (str, int, float, list))
        },
    }


def _policy(one: Evaluation, truth: OwnLogTruth | None) -> dict[str, Any]:
    head = one.headline
    return {
        "policy": one.policy,
        "headline": head.estimator,
        "verdict": head.verdict.word if head.verdict else None,
        "reasons": list(head.verdict.reasons) if head.verdict else [],
        "truth": None if truth is None else _truth(truth),
        "estimates": [_estimate(estimate, truth) for estimate in one.estimates],
        "diagnostics": _diagnostics(one),
    }


def _diagnostics(one: Evaluation) -> dict[str, Any]:
    w, rounds = one.weights, max(one.weights.rounds, 1)
    chi, p = w.drift()
    out: dict[str, Any] = {
        "matched_impressions": _plain(w.matched_impressions / max(w.impressions, 1)),
        "coverage": _plain(w.coverage),
        "drift": {"chi_square": _plain(chi), "p": _plain(p)},
        "days": [_day(day, *w.days[day]) for day in sorted(w.days)],
        "weights": None,
    }
    if one.facts.kind != "unknown":
        out["weights"] = {
            "effective_sample": _plain(w.effective),
            "effective_share": _plain(w.effective / rounds),
            "effective_by_place": [
                _plain(total**2 / squares if squares > 0 else 0.0) for total, squares in w.places
            ],
            "matched_rounds": _plain(w.matched_rounds / rounds),
            "events": w.events,
            "mean": _plain(w.total / rounds),
            "low": _plain(one.mean_weight.low),
            "high": _plain(one.mean_weight.high),
            "largest": [
                {"weight": weight, "share": _plain(weight / w.total), "row": row}
                for weight, row in w.largest
                if weight > 0
            ],
        }
    return out


def _day(
    day: int, n: float, reward: float, _: float, weight: float, weighted: float
) -> dict[str, Any]:
    return {
        "day": day,
        "rounds": int(n),
        "logged": _plain(reward / n),
        "mean_weight": _plain(weight / n),
        "snips": _plain(weighted / weight if weight > 0 else math.nan),
    }


def _truth(truth: OwnLogTruth) -> dict[str, Any]:
    relative = truth.error / truth.value if truth.value else math.nan
    return {
        "value": _plain(truth.value),
        "error": _plain(truth.error),
        "rounds": truth.rounds,
        "relative_error": _plain(relative),
        "low": _plain(truth.interval.low),
        "high": _plain(truth.interval.high),
    }


def _estimate(one: Estimate, truth: OwnLogTruth | None) -> dict[str, Any]:
    interval = one.interval()
    out: dict[str, Any] = {
        "estimator": one.estimator,
        "paper": one.paper,
        "unit": one.unit,
        "value": _plain(one.value),
        "count": _plain(one.count),
        "error": _plain(one.error),
        "low": _plain(interval.low),
        "high": _plain(interval.high),
        "intervals": {i.method: [_plain(i.low), _plain(i.high)] for i in one.intervals},
        "threshold": _plain(one.threshold),
        "bias": _plain(one.bias),
        "curve": [
            dict(zip(("threshold", "value", "error", "bias"), map(_plain, point), strict=True))
            for point in one.curve
        ],
        "refused": one.refused,
        "verdict": one.verdict.word if one.verdict else None,
        "reasons": list(one.verdict.reasons) if one.verdict else [],
    }
    if truth is not None and one.refused is None:
        out |= _against(one, interval, truth)
    return out


def _against(one: Estimate, interval: EstimateInterval, truth: OwnLogTruth) -> dict[str, Any]:
    """Estimate against truth: covered, and the distance in standard errors of the difference of two
    independent samples.
    """
    distance = one.value - truth.value
    both = math.hypot(one.error, truth.error)
    return {
        "covered": None if math.isnan(interval.low) else interval.covers(truth.value),
        "z": _plain(distance / both if both > 0 else math.nan),
        "relative": _plain(distance / truth.value if truth.value else math.nan),
    }


def _order(order: Ordering) -> dict[str, Any]:
    out: dict[str, Any] = {
        "policy": order.policy,
        "sessions": order.sessions,
        "refused": order.refused,
    }
    for name in ("auc", "gauc", "ndcg"):
        figure = getattr(order, name)
        out[name] = (
            None
            if figure is None
            else {
                "value": _plain(figure[0]),
                "low": _plain(figure[1].low),
                "high": _plain(figure[1].high),
            }
        )
    return out


def _plain(value: float | None) -> float | str | None:
    if value is None or math.isnan(value):
        return None
    return "inf" if math.isinf(value) else float(value)


def headline(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """The estimate of a policy that is to be read first."""
    row: Mapping[str, Any] = next(
        row for row in policy["estimates"] if row["estimator"] == policy["headline"]
    )
    return row
