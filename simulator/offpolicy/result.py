"""What a replay says, once: a plain mapping for replay.json, from which Markdown, the page and the
terminal are made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.log.files import write_texts
from simulator.offpolicy.jobs import Job, Truth, truth
from simulator.offpolicy.replay import Estimate, Evaluation
from simulator.offpolicy.scores import Ordering
from simulator.offpolicy.uncertainty import Interval
from simulator.page.markdown import text

COVERED_OFTEN = (
    "the truth is a sample too: covered means that the interval holds the truth's mean, which has"
    " its own standard error"
)


def gather(
    job: Job, evaluations: Sequence[Evaluation], orders: Sequence[Ordering] = ()
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


def _policy(one: Evaluation, known: Truth | None) -> dict[str, Any]:
    head = one.headline
    return {
        "policy": one.policy,
        "headline": head.estimator,
        "verdict": head.verdict.word if head.verdict else None,
        "reasons": list(head.verdict.reasons) if head.verdict else [],
        "truth": None if known is None else _truth(known),
        "estimates": [_estimate(estimate, known) for estimate in one.estimates],
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


def _truth(known: Truth) -> dict[str, Any]:
    relative = known.error / known.value if known.value else math.nan
    return {
        "value": _plain(known.value),
        "error": _plain(known.error),
        "rounds": known.rounds,
        "relative_error": _plain(relative),
        "low": _plain(known.interval.low),
        "high": _plain(known.interval.high),
    }


def _estimate(one: Estimate, known: Truth | None) -> dict[str, Any]:
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
    if known is not None and one.refused is None:
        out |= _against(one, interval, known)
    return out


def _against(one: Estimate, interval: Interval, known: Truth) -> dict[str, Any]:
    """Estimate against truth: covered, and the distance in standard errors of the difference of two
    independent samples.
    """
    distance = one.value - known.value
    both = math.hypot(one.error, known.error)
    return {
        "covered": None if math.isnan(interval.low) else interval.covers(known.value),
        "z": _plain(distance / both if both > 0 else math.nan),
        "relative": _plain(distance / known.value if known.value else math.nan),
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


def number(value: Any, digits: int = 4) -> str:
    """A figure as text: four significant digits, n/a where there is none."""
    if value is None:
        return "n/a"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}g}"


def share(value: Any) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """All replays as one Markdown document."""
    return "\n".join(line for result in results for line in [*_section(result), ""])


def _section(c: Mapping[str, Any]) -> list[str]:
    lines = [f"# {text(c['title'])} ({text(c['reward'])})", ""]
    own = c["logged"]
    lines += [
        f"Reward: {text(c['reward'])}. {c['rounds']:,} rounds, {c['impressions']:,} impressions of"
        f" arm {text(c['arm'])}; propensities: {c['propensity']}. The log's own policy:"
        f" {number(own['value'])} per request [{number(own['low'])}, {number(own['high'])}]."
    ]
    if c["unobserved"]:
        lines.append(f"{c['unobserved']:,} rounds left out: their reward was not observed.")
    if len(c["policies"]) > 1:
        lines += ["", "| policy | by | value | 95% interval | verdict |", "|---|---|---|---|---|"]
        lines += [_headline(policy) for policy in c["policies"]]
    for policy in c["policies"]:
        lines += ["", f"## {text(policy['policy'])}: {policy['verdict']}", ""]
        lines += [
            *(f"- {text(reason)}" for reason in policy["reasons"]),
            *([""] if policy["reasons"] else []),
        ]
        lines += [*_estimates(policy), "", *_diagnosed(policy["diagnostics"])]
    if c["orders"]:
        lines += [
            "",
            "## Order of what was shown",
            "",
            "| policy | AUC | grouped AUC | NDCG | sessions |",
            "|---|---|---|---|---|",
        ]
        lines += [_ordered(order) for order in c["orders"]]
    if c["notes"]:
        lines += ["", "What the reader of the data says:", ""]
        lines += [f"- {text(name)}: {text(_listed(value))}" for name, value in c["notes"].items()]
    return lines


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def headline(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """The estimate of a policy that is to be read first."""
    row: Mapping[str, Any] = next(
        row for row in policy["estimates"] if row["estimator"] == policy["headline"]
    )
    return row


def _headline(policy: Mapping[str, Any]) -> str:
    row = headline(policy)
    value, interval = (
        f"{number(row['value'])} per {row['unit']}",
        f"{number(row['low'])} to {number(row['high'])}",
    )
    return (
        f"| {text(policy['policy'])} | {row['estimator']} | {value} | {interval} |"
        f" {policy['verdict']} |"
    )


def _estimates(policy: Mapping[str, Any]) -> list[str]:
    truth = policy["truth"]
    head = ["estimator", "value", "95% interval", "verdict"] + (
        ["truth", "covered", "z"] if truth else []
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in policy["estimates"]:
        if row["refused"]:
            lines.append(
                f"| {row['estimator']} | did not run: {text(row['refused'])} |"
                + " |" * (len(head) - 2)
            )
            continue
        name = row["estimator"] + (
            f" ({number(row['threshold'])})" if row["threshold"] is not None else ""
        )
        unit = (
            "" if row["unit"] == "request" else f" per {row['unit']}, {row['count']:,.0f} matched"
        )
        cells = [
            name,
            number(row["value"]) + unit,
            f"{number(row['low'])} to {number(row['high'])}",
            row["verdict"],
        ]
        if truth:
            covered = {True: "yes", False: "no", None: "n/a"}[row["covered"]]
            cells += [
                f"{number(truth['value'])} (se {share(truth['relative_error'])})",
                covered,
                number(row["z"], 2),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _diagnosed(d: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- Matched: {share(d['matched_impressions'])} of impressions; the log shows"
        f" {share(d['coverage'])} of what the target shows."
    ]
    w = d["weights"]
    if w is not None:
        lines += [
            (
                f"- Effective sample size {number(w['effective_sample'])}"
                f" ({share(w['effective_share'])} of the rounds)."
            ),
            (
                f"- {share(w['matched_rounds'])} of whole slates have a weight, {w['events']:,} of"
                " them a reward."
            ),
            (
                f"- Mean weight {number(w['mean'])} [{number(w['low'])}, {number(w['high'])}]; it"
                " should be 1."
            ),
        ]
        if w["largest"]:
            top = w["largest"][0]
            lines.append(
                f"- Largest weight {number(top['weight'])}, {share(top['share'])} of all, at row"
                f" {top['row']} of the log."
            )
    if d["drift"]["p"] is not None:
        lines.append(
            f"- Daily reward of the log: chi-square {number(d['drift']['chi_square'])}, p ="
            f" {number(d['drift']['p'], 2)}."
        )
    return lines


def _ordered(order: Mapping[str, Any]) -> str:
    if order["refused"]:
        return f"| {text(order['policy'])} | {text(order['refused'])} | | | |"
    figures = [
        f"{number(order[n]['value'])} [{number(order[n]['low'])}, {number(order[n]['high'])}]"
        for n in ("auc", "gauc", "ndcg")
    ]
    return f"| {text(order['policy'])} | {' | '.join(figures)} | {order['sessions']:,} |"


def save(results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write replay.json, replay.md and replay.html, each by rename; returns the page."""
    from simulator.offpolicy.replay_page import page

    stored = json.dumps(list(results), indent=1, allow_nan=False) + "\n"
    write_texts(
        folder,
        {"replay.json": stored, "replay.md": markdown(results), "replay.html": page(results)},
    )
    return folder / "replay.html"
