"""A replay as a document: the page, its Markdown and what the terminal shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from simulator.offpolicy.choice import ChoiceCandidate, PolicyChoice
from simulator.offpolicy.diagnostics import Weights
from simulator.offpolicy.jobs import OwnLogTruth
from simulator.offpolicy.lifts import OffPolicyLift
from simulator.offpolicy.replay import Estimate, Evaluation
from simulator.offpolicy.result import COVERED_OFTEN, ReplayResult, as_json, deviation
from simulator.offpolicy.scores import Ordering
from simulator.offpolicy.uncertainty import EstimateInterval
from simulator.page import saved
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Heading,
    Multiples,
    Points,
    Section,
    Status,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.figures import (
    Point,
    Scale,
    Series,
    Whiskers,
    around_zero,
    axis,
    numbers,
    over_steps,
    strip,
)
from simulator.page.words import (
    between,
    counted,
    interval,
    is_defined,
    number,
    percent,
    probability,
    two,
    whole,
)

TONES = {"trustworthy": "good", "weak": "open", "unusable": "bad", None: "open"}
SIGNS = {"trustworthy": "●", "weak": "◐", "unusable": "○", None: "·"}
LIGHTS: dict[str | None, Status] = {"trustworthy": "green", "weak": "amber", "unusable": "red"}

LIFTS = (
    "Both values come from the same rounds: the interval holds their covariance by user, and a"
    " control variate. Gain: how many times as many rounds two separate estimates would need for"
    " the same width. Adjusted p: Holm over the policies."
)

READING = (
    "● trustworthy, ◐ weak, ○ unusable. Intervals are by bootstrap over users; replay.json has the"
    " others. Every estimator's assumption stands in docs/offpolicy.md."
)


def document(results: Sequence[ReplayResult]) -> Document:
    """All replays of a command, a section for each."""
    first = results[0].title
    several = "What would these policies have got?"
    return Document(
        title=f"Offline replay: {first}",
        kicker="Offline replay",
        heading=first if len(results) == 1 else several,
        about="",
        facts=Facts([]),
        gates=[],
        sections=[
            _section(i, result, bare=len(results) == 1) for i, result in enumerate(results, 1)
        ],
        closing=READING,
    )


def save(results: Sequence[ReplayResult], folder: Path) -> Path:
    """Write replay.json, replay.md and replay.html; returns the page."""
    content = [as_json(result) for result in results]
    return saved.save(folder, "replay", content, document(results))


def _section(i: int, result: ReplayResult, bare: bool) -> Section:
    title = f"{result.title} ({result.reward})"
    blocks: list[Block] = [_facts(result)]
    if result.log.unobserved:
        note = f"{whole(result.log.unobserved)} rounds left out: their reward was not observed."
        blocks.append(Words(note, note=True))
    if len(result.evaluations) > 1:
        blocks.append(_headlines(result.evaluations))
    blocks += _lifts(result)
    for one in result.evaluations:
        blocks += _policy(one, result.truths.get(one.policy))
    if result.orders:
        blocks += [Heading("Order of what was shown"), _orders(result.orders)]
    if result.notes:
        notes = [(name, _listed(value)) for name, value in result.notes.items()]
        blocks.append(Fold("What the reader of the data says", [Facts(notes)]))
    return Section(f"replay-{i}", title, blocks, title, bare)


def _facts(result: ReplayResult) -> Facts:
    log = result.log
    own = _with_interval(log.logged.value, log.logged.interval())
    return Facts(
        [
            ("Reward", result.reward),
            ("Rounds", whole(log.weights.rounds)),
            ("Impressions", whole(log.weights.impressions)),
            ("Written by", result.arm),
            ("Propensities", log.facts.kind),
            ("The log's own value per request", own),
        ]
    )


def _with_interval(value: float, ends: EstimateInterval) -> str:
    """`.31 [.30, .32]`: a value and the ends of its 95% interval."""
    return f"{number(value)} [{number(ends.low)}, {number(ends.high)}]"


def _interval(row: Estimate) -> Cell:
    ends = row.interval()
    return plain(between(ends.low, ends.high, number))


def _verdict(row: Estimate, **more: Any) -> Cell:
    return Cell(row.word or "no verdict", kind=f"verdict {TONES[row.word]}", **more)


def _headlines(evaluations: Sequence[Evaluation]) -> Table:
    rows = []
    for one in evaluations:
        row = one.headline
        value = row.value if is_defined(row.value) else None
        shown = Cell(f"{number(value)} per {row.unit}", value)
        by = plain(one.policy), plain(row.estimator)
        rows.append((*by, shown, _interval(row), _verdict(row)))
    heads = columns("Policy", "By", "Value", "95% interval", text=2)
    name = "The estimate to read first of each policy"
    return Table(name, [*heads, Column("May one believe it?")], rows, caption=name)


def _lifts(result: ReplayResult) -> Iterator[Block]:
    """The lift of each policy to read first, and those by all estimators behind it."""
    policies = list(dict.fromkeys(lift.policy for lift in result.lifts))
    if not policies:
        return
    first = [result.lift_of(policy) for policy in policies]
    yield _lift_table(f"Lift over {result.over}", first)
    yield Words(LIFTS, note=True)
    choice = result.choice
    if choice is not None:
        yield Heading("Which to take")
        yield Gate("green" if choice.pick else "amber", choice.pick or "none", choice.sentence)
        yield _candidates(choice)
        if choice.favourite is not None:
            ends = interval(choice.corrected_low, choice.corrected_high, 1)
            yield Words(
                f"{choice.favourite} has the largest estimate. Corrected for its having been chosen"
                f" by it: {percent(choice.corrected, 1)}, 95% interval {ends}.",
                note=True,
            )
    if result.reading is not None:
        yield Heading("Which to test first")
        yield Gate("amber", result.reading.pick, result.reading.sentence)
    ran = [lift for lift in result.lifts if lift.refused is None]
    yield Fold("Lifts by every estimator", [_lift_table("Lifts by every estimator", ran)])


def _candidates(choice: PolicyChoice) -> Table:
    """The policies among which was chosen, the largest bound first."""
    rows = [
        (
            Cell(one.policy, under=one.excluded or ""),
            numeric(percent, one.lift, 1),
            numeric(percent, one.bound, 1),
            numeric(percent, one.better, 1, False),
            numeric(percent, one.best, 1, False),
        )
        for one in sorted(choice.candidates, key=_bound, reverse=True)
    ]
    heads = columns("Policy", "Lift", "At least", "P(better)", "P(best)")
    caption = (
        f"Lifts over {choice.control} by {choice.estimator}; all of the bounds hold at once with"
        f" {choice.level:.0%} confidence"
    )
    return Table("Which to take", heads, rows, caption=caption)


def _bound(candidate: ChoiceCandidate) -> tuple[bool, float]:
    """Those that can be chosen first, by their bounds; what has none comes last."""
    bound = candidate.bound if is_defined(candidate.bound) else -math.inf
    return candidate.excluded is None, bound


def _lift_table(name: str, lifts: Sequence[OffPolicyLift]) -> Table:
    """A forest plot of lifts."""
    scale = around_zero([Whiskers(one.lift, one.low, one.high) for one in lifts])
    rows = []
    for one in lifts:
        tone, ends = TONES[one.word], interval(one.low, one.high, 1)
        label = f"{one.policy} by {one.estimator}: {percent(one.lift, 1)}, 95% interval {ends}"
        drawn = Whiskers(one.lift, one.low, one.high)
        rows.append(
            (
                Cell(one.policy, sign=SIGNS[one.word], kind=tone, under=one.refused or ""),
                plain(one.estimator),
                numeric(percent, one.lift, 1, kind="lift"),
                Cell(figure=strip(drawn, scale, tone, label)),
                plain(ends),
                numeric(probability, one.p_adjusted),
                numeric(two, one.gain),
                Cell(one.word or "none", kind=f"verdict {tone}", hint="; ".join(one.reasons)),
            )
        )
    heads = [
        *columns("Policy", "By", text=2),
        Column("Lift", number=True, label="lift"),
        Column("Forest plot", figure=True, sorts=False),
        Column("95% interval", number=True, sorts=False),
        Column("Adj. p", number=True),
        Column("Gain", number=True),
        Column("May one believe it?"),
    ]
    return Table(name, heads, rows, kind="forest", caption=name, foot=axis(scale))


def _policy(one: Evaluation, truth: OwnLogTruth | None) -> Iterator[Block]:
    estimates = [row for row in one.estimates if not row.refused]
    refused = [row for row in one.estimates if row.refused]
    head = one.headline
    yield Heading(one.policy)
    why = f": {'; '.join(head.reasons)}" if head.reasons else ""
    yield Gate(
        LIGHTS.get(head.word, "amber"), head.word or "no verdict", f"by {head.estimator}{why}."
    )
    if truth:
        error = percent(truth.relative_error, 1, sign=False)
        yield Words(
            f"Truth: {number(truth.value)} by its own log of the same time"
            f" ({whole(truth.rounds)} rounds, standard error {error} of it), the band behind"
            f" the intervals; {COVERED_OFTEN}."
        )
    yield _estimates(one.policy, estimates, truth, _scale(estimates, truth, one.logged.value))
    if refused:
        reasons = [("–", f"{row.estimator} ({row.paper}): {row.refused}.") for row in refused]
        number_of = counted(len(refused), "estimator")
        yield Fold(f"{number_of} did not run", [Points(reasons)])
    yield Fold("Why: reasons, diagnostics, sensitivity", list(_why(one, estimates)))


def _scale(estimates: Sequence[Estimate], truth: OwnLogTruth | None, logged: float) -> Scale:
    """From the middle three quarters of all ends of intervals on, the truth and the log's own value
    inside; the widest intervals end in an arrow.
    """
    every = (
        end for row in estimates for end in (row.value, row.interval().low, row.interval().high)
    )
    ends = sorted(end for end in every if is_defined(end))
    inner = ends[len(ends) // 8 : len(ends) - len(ends) // 8] or [logged]
    if truth:
        inner = [*inner, truth.interval.low, truth.interval.high]
    low, high = min([*inner, logged]), max([*inner, logged])
    margin = (high - low or abs(high) or 1.0) * 0.08
    return Scale(low - margin, high + margin, 2, 98)


def _estimates(
    policy: str, estimates: Sequence[Estimate], truth: OwnLogTruth | None, scale: Scale
) -> Table:
    """A forest plot of all estimators; the truth's interval is a band behind them."""
    region = (truth.interval.low, truth.interval.high) if truth else None
    rows = []
    for row in estimates:
        tone, ends = TONES[row.word], row.interval()
        label = f"{row.estimator}: {number(row.value)}, 95% interval {_interval(row).text}"
        name = row.estimator
        if row.threshold is not None:
            name += f" ({_threshold(row.threshold)})"
        matched = ""
        if row.unit != "request":
            matched = f"per {row.unit}, {whole(row.count)} matched"
        drawn = Whiskers(row.value, ends.low, ends.high)
        cells = [
            Cell(name, sign=SIGNS[row.word], kind=tone, under=matched),
            numeric(number, row.value, kind="lift"),
            Cell(figure=strip(drawn, scale, tone, label, region=region)),
            _interval(row),
        ]
        if truth:
            against = deviation(row, truth)
            covered = {True: "yes", False: "no", None: "n/a"}[against.covered]
            cells += [plain(covered), numeric(two, against.z)]
        rows.append((*cells, _verdict(row, hint="; ".join(row.reasons))))
    heads = [
        Column("Estimator"),
        Column("Value", number=True),
        Column("Forest plot", figure=True, sorts=False),
        Column("95% interval", number=True, sorts=False),
    ]
    if truth:
        heads += [Column("Covered", label="covered"), Column("z", number=True, label="z")]
    return Table(
        f"Estimates of {policy}",
        [*heads, Column("May one believe it?")],
        rows,
        kind="forest",
        foot=axis(scale, numbers),
    )


def _why(one: Evaluation, estimates: Sequence[Estimate]) -> Iterator[Block]:
    reasons = [
        (SIGNS[row.word], f"{row.estimator}: {'; '.join(row.reasons)}.")
        for row in estimates
        if row.reasons
    ]
    if reasons:
        yield Points(reasons)
    rows = [(plain(name), plain(value)) for name, value in _diagnostics(one)]
    yield Table("Diagnostics", columns("Diagnostic", "Value", text=2), rows, sortable=False)
    yield _days(one.weights)
    curves = [
        (f"{row.estimator} by threshold", _curve(row))
        for row in estimates
        if any(is_defined(point.value) for point in row.curve)
    ]
    if curves:
        yield Multiples([(name, figure) for name, (figure, _) in curves])
        note = "Value and one standard error; the chosen threshold is the large mark."
        yield Words(note, note=True)
        for name, (_, table) in curves:
            yield Fold(f"{name} as a table", [table], screen=True)


def _diagnostics(one: Evaluation) -> Iterator[tuple[str, str]]:
    def share(value: float) -> str:
        return percent(value, 1, sign=False)

    w = one.weights
    if one.facts.kind != "unknown":
        of_rounds = share(w.effective_share)
        yield "Effective sample size", f"{number(w.effective)} ({of_rounds} of the rounds)"
        if w.effective_by_place:
            yield "Down to each place", ", ".join(map(number, w.effective_by_place))
        events = f"{whole(w.events)} of them with a reward"
        yield "Whole slates with a weight", f"{share(w.share_of_rounds_matched)}; {events}"
        yield "Mean weight (should be 1)", _with_interval(w.mean, one.mean_weight)
        largest = [(weight, row) for weight, row in w.largest if weight > 0]
        if largest:
            shown = (f"{number(weight)} ({row})" for weight, row in largest[:5])
            yield "Largest weights (row of the log)", ", ".join(shown)
            yield "The largest, of the sum of all", share(largest[0][0] / w.total)
    yield "Impressions that match", share(w.share_of_impressions_matched)
    yield "The log shows", f"{share(w.coverage)} of what the target shows"
    chi, p = w.drift()
    yield "Drift of the daily reward", f"chi-square {number(chi)}, p {probability(p)}"


def _days(weights: Weights) -> Table:
    """The rounds by day; what rests on weights is left out where propensities are unknown."""
    days = list(weights.by_day())
    weighed = any(is_defined(day.mean_weight) for day in days)
    names = ["Day", "Rounds", "Logged reward"]
    rows: list[tuple[Cell, ...]] = []
    for day in days:
        cells = plain(day.day, day.day), numeric(whole, day.rounds), numeric(number, day.logged)
        by_weight = numeric(number, day.mean_weight), numeric(number, day.snips)
        rows.append((*cells, *by_weight) if weighed else cells)
    if weighed:
        names += ["Mean weight", "Self-normalised"]
    return Table("By day", columns(*names), rows, caption="By day")


def _curve(row: Estimate) -> tuple[Markup, Table]:
    """The value with one standard error to either side, by threshold, as a figure and as a
    table.
    """
    curve = [point for point in row.curve if is_defined(point.value)]
    points, rows, chosen = [], [], None
    for i, (at, value, error, bias) in enumerate(curve):
        threshold = _threshold(at)
        tip = (
            f"threshold {threshold}: {number(value)}, standard error {number(error)}, bias"
            f" {number(bias)}"
        )
        points.append(Point(i, Whiskers(value, value - error, value + error), tip))
        rows.append((plain(threshold), *(plain(number(one)) for one in (value, error, bias))))
        if at == row.threshold:
            chosen = i
    name = f"{row.estimator} by threshold"
    series = Series(row.estimator, 1, points, large=chosen)
    heads = columns("Threshold", "Value", "Standard error", "Bias")
    names = [_threshold(point.threshold) for point in curve]
    return over_steps([series], names, name), Table(name, heads, rows)


def _threshold(threshold: float) -> str:
    """A threshold in few characters: 30, 1k, 1M, ∞."""
    if math.isinf(threshold):
        return "∞"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if threshold >= size:
            return f"{threshold / size:.4g}{letter}"
    return f"{threshold:.4g}"


def _orders(orders: Sequence[Ordering]) -> Table:
    caption = (
        "How each policy's scores order the clicks above the unclicks of the same session, scored"
        " from what came before the session."
    )
    rows = []
    for order in orders:
        if order.refused:
            cells = [plain(order.refused), *[plain("")] * 3]
        else:
            figures = [figure for figure in order.figures.values() if figure is not None]
            cells = [Cell(_with_interval(*figure), figure[0]) for figure in figures]
            cells.append(numeric(whole, order.sessions))
        rows.append((plain(order.policy), *cells))
    heads = columns("Policy", "AUC", "Grouped AUC", "NDCG", "Sessions")
    return Table("Order of what was shown", heads, rows, caption=caption)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
