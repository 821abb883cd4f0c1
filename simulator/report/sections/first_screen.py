"""What each decision rests on, for the first screen: the metrics that have a role, with their
intervals for the models and for the methods, and what the rule makes of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import nan

from markupsafe import Markup

from simulator.log.metrics import MetricRole
from simulator.page import figures
from simulator.page.blocks import Block, Cell, Column, Fold, Gate, Status, Table
from simulator.page.figures import Whiskers
from simulator.page.words import (
    interval,
    is_defined,
    listed,
    number,
    percent,
    probability,
    title,
    typeset,
)
from simulator.report.content import Content, Method
from simulator.report.sentences import SIGNS, adjusted_interval, margin_size, tone
from simulator.stats.decision import ArmDecision, is_better
from simulator.stats.margins import Margin
from simulator.stats.verdict import Lift

LIGHTS: dict[str, Status] = {"ship": "green", "hold": "amber", "drop": "red"}

ROLES: tuple[MetricRole, ...] = ("success", "guardrail", "deterioration", "quality")
"""The roles that decide, in the order of reading."""

MOST_ARMS = 4
"""Arms that have a frame of their own on the first screen; more of them share one table."""

DIGITS = 2
"""Decimals of percentages on the first screen; the tables below have three."""


def lines(c: Content) -> Iterator[Gate]:
    """The decision on each arm in one sentence: the first lines of every report."""
    for one in c.decision.arms if c.decision is not None else ():
        lead, _, reasons = one.sentence.partition(": ")
        yield Gate(LIGHTS[one.answer], f"{lead}.", f"{reasons[:1].upper()}{reasons[1:]}")


def decisions(c: Content) -> list[Gate]:
    """The decisions with what they rest on; those on many arms in one table."""
    if c.decision is None:
        return []
    arms = c.decision.arms
    if len(arms) > MOST_ARMS:
        return [_of_all(c, arms)]
    scale = figures.around_zero(
        whiskers for arm in arms for piece in _pieces(c, arm.arm) for whiskers in piece.drawn
    )
    return [
        replace(gate, blocks=[_table(c, one.arm, scale)])
        for gate, one in zip(lines(c), arms, strict=True)
    ]


@dataclass(frozen=True)
class DecidingMetric:
    """A metric that a decision rests on: its row of the verdict, for the models and for the
    methods (None: not known), and where it is a guardrail the answers to its margin.
    """

    metric: str
    models: Lift
    methods: Lift | None
    guard: Margin | None = None
    method_guard: Margin | None = None

    @property
    def drawn(self) -> list[Whiskers]:
        """The intervals that are drawn: of the models, and of the methods where they are known."""
        shown = [_whiskers(self.models, self.guard)]
        if self.methods is not None:
            shown.append(_whiskers(self.methods, self.method_guard))
        return shown


def _whiskers(row: Lift, guard: Margin | None) -> Whiskers:
    """The interval that decides: the guardrail's own, else that of the verdict."""
    if guard is not None and not guard.absolute:
        return Whiskers(guard.lift, guard.low, guard.high)
    return Whiskers(row.lift, row.low_adjusted, row.high_adjusted)


def _pieces(c: Content, arm: str) -> Iterator[DecidingMetric]:
    """The metrics that decide on an arm, by role."""
    notes = c.notes_of_metrics()
    of_models = {row.metric: row for row in c.deciding() if row.arm == arm}
    method = _method(c, arm)
    of_methods = {one.lift.metric: one.lift for one in c.deciding_methods() if one.lift.arm == arm}
    guards = _guards(c.margins, arm)
    method_guards = _guards(method.margins, arm) if method else {}
    for role in ROLES:
        for metric, row in of_models.items():
            if notes[metric].role == role:
                yield DecidingMetric(
                    metric,
                    row,
                    of_methods.get(metric),
                    guards.get(metric),
                    method_guards.get(metric),
                )


def _method(c: Content, arm: str) -> Method | None:
    return next((method for method in c.methods if method.arm == arm and method.rows), None)


def _guards(margins: Sequence[Margin], arm: str) -> dict[str, Margin]:
    return {one.metric: one for one in margins if one.arm == arm and one.kind == "guardrail"}


def _shows_methods(c: Content) -> bool:
    return any(method.rows for method in c.methods)


def _intervals(c: Content) -> list[Column]:
    """The columns of intervals: of one verdict, or of both."""
    if not _shows_methods(c):
        return [Column("Interval", number=True, sorts=False)]
    return [
        Column("● These models", number=True, sorts=False, label="●"),
        Column("◆ The methods", number=True, sorts=False, label="◆"),
    ]


def _table(c: Content, arm: str, scale: figures.Scale) -> Table:
    """The metrics that decide on an arm."""
    heads = [
        Column("Metric", sorts=False),
        Column("Lift", number=True, sorts=False),
        Column("Forest plot", figure=True, sorts=False),
        *_intervals(c),
        Column("Answer", sorts=False),
    ]
    rows = [
        (_named(c, piece), _lift(c, piece), _figure(c, piece, arm, scale), *_ends(c, piece),
         _answer(c, piece))
        for piece in _pieces(c, arm)
    ]  # fmt: skip
    return Table(f"What is decided on for {arm}", heads, rows, kind="evidence", sortable=False)


def _of_all(c: Content, arms: Sequence[ArmDecision]) -> Gate:
    """The decision on each of many arms: those that ship in a table, the others folded away."""
    assert c.decision is not None
    by_answer: dict[str, list[ArmDecision]] = {answer: [] for answer in LIGHTS}
    for one in arms:
        by_answer[one.answer].append(one)
    parts = []
    for answer, own in by_answer.items():
        few = answer == "ship" or len(own) <= MOST_ARMS
        if own:
            names = listed([one.arm for one in own]) if few else f"{len(own)} arms"
            parts.append(f"{answer.capitalize()} {names}.")
    lead, *rest = parts
    scale = figures.around_zero(
        whiskers for one in arms for piece in _successes(c, one.arm) for whiskers in piece.drawn
    )
    blocks: list[Block] = []
    ships = by_answer["ship"]
    others = by_answer["hold"] + by_answer["drop"]
    if ships:
        blocks.append(_listed(c, "Arms that ship", ships, scale))
    if others:
        name = f"The {'other ' if ships else ''}{len(others)} arms, and why"
        blocks.append(Fold(name, [_listed(c, name, others, scale)]))
    return Gate(LIGHTS[c.decision.answer], lead, " ".join(rest), blocks)


def _listed(c: Content, name: str, arms: Sequence[ArmDecision], scale: figures.Scale) -> Table:
    """Decisions, a row for each success metric of an arm."""
    heads = [
        Column("Arm"),
        Column("Decision"),
        Column("Metric"),
        Column("Lift", number=True),
        Column("Forest plot", figure=True, sorts=False),
        *_intervals(c),
        Column("Why", sorts=False),
    ]
    tones = {"ship": "good", "hold": "open", "drop": "bad"}
    rows = [
        (Cell(one.arm), Cell(one.answer, kind=tones[one.answer]), Cell(title(piece.metric)),
         _lift(c, piece), _figure(c, piece, one.arm, scale), *_ends(c, piece),
         Cell(one.sentence.partition(": ")[2], kind="small"))
        for one in arms
        for piece in _successes(c, one.arm)
    ]  # fmt: skip
    return Table(name, heads, rows, kind="decisions")


def _successes(c: Content, arm: str) -> list[DecidingMetric]:
    notes = c.notes_of_metrics()
    return [piece for piece in _pieces(c, arm) if notes[piece.metric].role == "success"]


def _named(c: Content, piece: DecidingMetric) -> Cell:
    """The metric, its role below. What only looks for harm, and finds none, is `minor`: on a phone
    it takes one line.
    """
    role: str = c.notes_of_metrics()[piece.metric].role
    row, _ = _deciding(c, piece)
    is_minor = role in ("deterioration", "quality") and row.words not in ("up", "down")
    if piece.guard is not None:
        role = f"{role}, margin {margin_size(piece.guard)}"
    return Cell(title(piece.metric), under=role, kind="minor" if is_minor else "")


def _deciding(c: Content, piece: DecidingMetric) -> tuple[Lift, Margin | None]:
    """The row and the guardrail's answer that the decision rests on."""
    assert c.decision is not None
    if c.decision.on == "methods" and piece.methods is not None:
        return piece.methods, piece.method_guard
    return piece.models, piece.guard


def _lift(c: Content, piece: DecidingMetric) -> Cell:
    row, _ = _deciding(c, piece)
    under = number(row.difference) if is_defined(row.difference) else ""
    value = row.lift if is_defined(row.lift) else None
    return Cell(percent(row.lift, DIGITS), value, under=under, kind="lift")


def _ends(c: Content, piece: DecidingMetric) -> Iterator[Cell]:
    """The interval of the models, and of the methods where they are told apart."""
    yield _end(c, piece.metric, piece.models, piece.guard)
    if _shows_methods(c):
        if piece.methods is None:
            yield Cell("not known", kind="open")
        else:
            yield _end(c, piece.metric, piece.methods, piece.method_guard)


def _end(c: Content, metric: str, row: Lift, guard: Margin | None) -> Cell:
    kind = _tone(c, metric, row, guard)
    if guard is not None:
        ends = interval(guard.low, guard.high, DIGITS)
        if guard.absolute:
            ends = f"{number(guard.low)} to {number(guard.high)}"
        ends = "n/a" if guard.answer == "no data" else ends
        return Cell(ends, kind=kind, under=f"{percent(guard.level, 0, False)}: {guard.answer}")
    ends = adjusted_interval(row, DIGITS)
    return Cell(ends, kind=kind, under=f"adjusted p {probability(row.p_adjusted)}")


def _tone(c: Content, metric: str, row: Lift, guard: Margin | None) -> str:
    if guard is not None:
        return {"safe": "good", "harmed": "bad"}.get(guard.answer, "open")
    return tone(row.words, c.notes_of_metrics()[metric].higher_is_better)


def _answer(c: Content, piece: DecidingMetric) -> Cell:
    """What the rule makes of the metric."""
    row, guard = _deciding(c, piece)
    note = c.notes_of_metrics()[piece.metric]
    outcome = is_better(row, note)
    kind = _tone(c, piece.metric, row, guard)
    if guard is not None:
        signs = {"safe": "✓", "harmed": "✗"}
        words = {"not shown": "not shown to be safe"}.get(guard.answer, guard.answer)
        if guard.answer == "safe" and outcome is False:
            words = "worse, within its margin"
        return Cell(words, sign=signs.get(guard.answer, SIGNS["undecided"]), kind=kind)
    if note.role == "quality":
        differs = row.words in ("up", "down")
        words = "differs" if differs else "no difference shown"
        return Cell(words, sign="✗" if differs else "✓", kind="bad" if differs else "good")
    if outcome is None:
        words = "not shown to be better" if note.role == "success" else "not shown to be worse"
    else:
        words = "better" if outcome else "worse"
    return Cell(words, sign=SIGNS[row.words], kind=kind)


def _figure(c: Content, piece: DecidingMetric, arm: str, scale: figures.Scale) -> Cell:
    """The intervals one below the other; what is beyond a guardrail's margin is shaded."""
    region = None
    if piece.guard is not None and not piece.guard.absolute:
        size = piece.guard.margin
        is_up = c.notes_of_metrics()[piece.metric].higher_is_better
        region = (scale.low, -size) if is_up else (size, scale.high)
    rows = [(piece.models, piece.guard, "these models", "circle")]
    if piece.methods is not None:
        rows.append((piece.methods, piece.method_guard, "the methods", "diamond"))
    drawn = []
    for (row, guard, what, shape), whiskers in zip(rows, piece.drawn, strict=True):
        level = guard.level if guard is not None and not guard.absolute else nan
        wording = f"{percent(level, 0, False)} interval" if is_defined(level) else "interval"
        label = (
            f"{title(piece.metric)}, {arm}, {what}: {percent(whiskers.value)}, {wording}"
            f" {interval(whiskers.low, whiskers.high)}"
        )
        kind = _tone(c, piece.metric, row, guard)
        drawn.append(
            figures.strip(
                whiskers, scale, kind, typeset(label), region=region, shape=shape, height=14
            )
        )
    return Cell(figure=Markup("").join(drawn))
