"""What is decided: the verdict on these models and on the methods, in words, and on guardrails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan

from markupsafe import Markup

from simulator.log.metadata import FITTED_ONCE
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Group,
    Heading,
    Points,
    Prose,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import detects, interval, listed, number, percent, share, title
from simulator.report import plots
from simulator.report.content import BoundedMargin, Content, Headline, Verdict
from simulator.report.plots import METHODS, MODELS
from simulator.report.sections.cells import (
    adjusted_cell,
    both_lifts_cell,
    lift_cell,
    metric_and_arm,
    p_cell,
)
from simulator.report.sentences import (
    MEANINGS,
    SIGNS,
    analysed,
    better,
    corrected,
    directions,
    headline,
    in_short,
    margin_size,
    method_line,
    more_fits,
    sides,
    stated,
    tone,
)
from simulator.stats.verdict import Lift

UNDECLARED = Prose(
    "Nothing is decided: no metric is declared a success. `--success METRIC` asks for a decision,"
    " ship, hold or drop; in a scenario `metrics: [{METRIC: {role: success}}]`."
)


def verdict(c: Content) -> Section | None:
    """The lifts of each arm under the sentence that sums them up: what is decided on."""
    if not c.headlines:
        return None
    strips, axis = plots.forests(c)
    blocks: list[Block] = []
    if c.decision is None:
        blocks.append(Words(UNDECLARED, note=True))
    less_is_better = [name for name, note in c.metrics.items() if note.higher_is_better is False]
    of_methods = {method.arm: method.rows for method in c.methods if method.rows}
    for i, (summary, rows) in enumerate(_by_arm(c), 1):
        models = [(row, verdict.verdict) for row, verdict in rows]
        arm: list[Block] = [
            Heading(summary.sentence, loud=True, id=f"arm-{i}"),
            _forest(c, summary.sentence, models, strips[MODELS], axis),
            Points(list(in_short(c, rows))),
        ]
        if summary.arm in of_methods:
            known = {one.lift.metric: one.lift for one in of_methods[summary.arm]}
            own = [(known[row.metric], known[row.metric].words) for row, _ in rows]
            words = [(row.metric, verdict) for row, verdict in own]
            said = f"The methods: {headline(words, summary.arm, c.control, less_is_better)}"
            table = _forest(c, said, own, strips[METHODS], axis)
            arm = [Group({"Verdict on": MODELS}, arm)]
            arm.append(Group({"Verdict on": METHODS}, [Heading(said), table]))
        blocks.append(Group({"Arm": summary.arm}, arm))
    note = (
        f"Per {c.unit}; lift over the control with its interval, and below it the difference"
        f" in units of the metric with its own. Intervals and p are by {c.assigned}, adjusted:"
        f" {corrected(c)}. An interval excludes 0 where the verdict is up or down."
        " Detects: the smallest true lift that a run of this size calls up or down four times in"
        " five, after the adjustment. ▲ higher and ▼ lower than the control after adjustment; ○"
        " undecided: a difference is neither shown nor excluded; = identical. An arrow at the end"
        " of an interval: it goes on beyond the scale."
    )
    about = method_line(c)
    texts = (note, *sides(c), *directions(c.metrics), *analysed(c.metrics))
    notes = [Words(text, note=True) for text in texts]
    if about is not None:
        notes.insert(0, Words(about))
    return Section("verdict", "Verdict", [*blocks, *notes], "Verdict", bare=True)


def _forest(
    c: Content,
    name: str,
    rows: Sequence[tuple[Lift, str]],
    strips: Mapping[tuple[str, str], Markup],
    axis: Markup,
) -> Table:
    """The lifts of an arm with their verdicts, as a table around a forest plot."""
    heads = [
        Column("Metric"),
        Column("Lift", number=True),
        Column("Forest plot", figure=True, sorts=False),
        Column(f"{share(c.choices.level)} interval", number=True, sorts=False),
        Column("Adjusted p", number=True, label="adjusted p"),
        Column("Verdict"),
        Column("Detects", number=True, label="detects"),
    ]
    lines = []
    for row, verdict in rows:
        direction = c.metrics[row.metric].higher_is_better
        kind = tone(verdict, direction)
        lines.append(
            (
                Cell(title(row.metric), sign=SIGNS[verdict], kind=kind),
                both_lifts_cell(row, kind=f"lift {kind}"),
                Cell(figure=strips[row.arm, row.metric]),
                adjusted_cell(row),
                p_cell(row.p_adjusted),
                Cell(stated(verdict, direction), kind=f"verdict {kind}", hint=MEANINGS[verdict]),
                numeric(detects, row.mde),
            )
        )
    return Table(name, heads, lines, kind="forest", foot=axis)


def methods(c: Content) -> Section | None:
    """Models and methods side by side, and what the uncertainty of a method is made of."""
    known = [method for method in c.methods if method.rows]
    if not known:
        return None
    names = ("Metric", "Arm", "Lift", "These models", "The methods", "Adjusted p", "Share of fits")
    heads = [*columns(*names, text=2), Column("", figure=True, sorts=False)]
    of_models = {(row.arm, row.metric): (row, verdict) for row, verdict in c.decided()}
    lines, parts, points = [], [], []
    for method in known:
        for one in c.of_methods(method.arm):
            row, verdict = of_models[method.arm, one.lift.metric]
            lines.append(
                (
                    *metric_and_arm(row),
                    lift_cell(row),
                    _decided(c, row, verdict.verdict),
                    _decided(c, one.lift, one.lift.words),
                    p_cell(one.lift.p_adjusted),
                    numeric(percent, one.components.share_of_fits, 0, False),
                    Cell(figure=plots.share_of_fits(one, c.arms.index(row.arm))),
                )
            )
            made_of = one.components
            variances: tuple[float, ...] = (made_of.users, made_of.fits, made_of.interaction)
            if c.drawn is not None:
                of_worlds = {(one.metric, one.arm): one.between for one in c.drawn.rows}
                spread = of_worlds.get((row.metric, row.arm), nan) * abs(row.control_mean)
                variances = (*variances, spread**2)
            parts.append(
                (*metric_and_arm(row), *(numeric(number, variance) for variance in variances))
            )
            if one.components.share_of_fits >= 0.5:
                points.append((SIGNS[one.lift.words], f"{method.arm}: {more_fits(one)}"))
    fits = max(method.fits for method in known)
    note = (
        f"Each method was trained {fits} times, with seeds of their own. These models: users are"
        " random, the models are these. The methods: fits are as random as users, so that another"
        " training is within the interval, too. Share of fits: the part of the variance of the"
        " methods' difference that more users would not lessen."
    )
    if c.choices.correction == "dunnett":
        note += (
            f" p is corrected by Bonferroni: of {fits} fits the joint law of the comparisons is not"
            " known well enough."
        )
    once = c.notes.get(FITTED_ONCE)
    if once:
        note += (
            f" What draws nothing in training was fitted once, and its model is its method:"
            f" {listed(once)}."
        )
    of_parts = (
        "Variance of what one user, one fit, or one user with one fit adds to the difference, in"
        " squared units of the metric. It is estimated without a limit at 0, and so below 0 by"
        " chance where it is small. Where users are divided over fits, the interaction is in the"
        " users' part."
    )
    kinds = ["Users", "Fits", "Interaction"]
    if c.drawn is not None:
        kinds.append("Worlds")
        of_parts += " Worlds: that of the difference between one drawn world and another."
    variances_of = columns("Metric", "Arm", *kinds, text=2)
    blocks: list[Block] = [
        Words(note, note=True),
        Table("Models and methods", heads, lines),
        Points(points),
        Fold(
            "What the variance is made of",
            [Words(of_parts, note=True), Table("Components of variance", variances_of, parts)],
        ),
    ]
    return Section("methods", "Models and methods", blocks, "Methods")


def _decided(c: Content, row: Lift, verdict: str) -> Cell:
    """The interval of a lift under the sign and in the colour of its verdict."""
    direction = c.metrics[row.metric].higher_is_better
    kind = tone(verdict, direction)
    ends = adjusted_cell(row).text
    return Cell(ends, sign=SIGNS[verdict], kind=kind, hint=stated(verdict, direction))


def _by_arm(c: Content) -> Iterator[tuple[Headline, list[tuple[Lift, Verdict]]]]:
    """Headline and rows, each with its verdict, of every arm."""
    for summary in c.headlines:
        yield summary, [pair for pair in c.decided() if pair[0].arm == summary.arm]


def margins(c: Content) -> Section | None:
    if not c.margins:
        return None
    note = (
        "A guardrail is safe where it is shown not to lose its margin (non-inferiority), harmed"
        " where it is shown to lose more. Equivalent: two one-sided tests show the lift to lie"
        " within the margin. Not shown is not a fault of the arm: the test is too small. Adjusted"
        " p: Holm over all equivalences; each guardrail is tested at 5%, since all of an arm's must"
        " be safe. The interval is the test's own: it holds the margin where the one-sided test at"
        " 5% does not reject it, before adjustment. A margin without % is in the metric's units."
    )
    blocks: list[Block] = [Words(note, note=True), *_answers(c, c.margins)]
    of_methods = [answer for method in c.methods for answer in method.margins]
    if of_methods and max(method.fits for method in c.methods) > 1:
        blocks[1:1] = [Heading("Of the methods"), *_answers(c, of_methods, " of the methods")]
        blocks.insert(-2, Heading("Of these models"))
    return Section("margins", "Guardrails and equivalence", blocks, "Guardrails")


def _answers(c: Content, answers: Sequence[BoundedMargin], of: str = "") -> list[Block]:
    """The answers to margins as a table, and in words."""
    tones = {"safe": "good", "equivalent": "good", "harmed": "bad"}
    rows: list[tuple[Cell, ...]] = []
    for row in answers:
        asked = (
            plain(row.kind),
            plain(better(c.notes_of_metrics()[row.metric])),
            Cell(margin_size(row), row.margin),
        )
        ends = interval(row.low, row.high)
        if row.absolute:
            ends = f"{number(row.low)} to {number(row.high)}"
        within = plain("n/a" if row.answer == "no data" else ends)
        answer = Cell(row.answer, kind=tones.get(row.answer, "open"))
        rows.append(
            (
                *metric_and_arm(row),
                *asked,
                numeric(number, row.lift) if row.absolute else lift_cell(row),
                within,
                p_cell(row.p),
                p_cell(row.p_adjusted),
                answer,
            )
        )
    level = f"{answers[0].level:.0%} interval"
    heads = columns(
        "Metric", "Arm", "Asked", "Direction", "Margin", "Lift", level, "p", "Adjusted p", text=4
    )
    table = Table(f"Guardrails and equivalence{of}", [*heads, Column("Answer")], rows)
    signs = {"safe": "✓", "equivalent": SIGNS["identical"], "harmed": "✗"}
    sentences = Points(
        [(signs.get(row.answer, SIGNS["undecided"]), row.sentence) for row in answers]
    )
    return [table, sentences]
