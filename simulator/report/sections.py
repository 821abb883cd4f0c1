"""The sections of a report, in the order of reading: from its content to the blocks that page and
Markdown show.

Every key of the content is shown by some section, and nothing is shown that is not in it: the three
files say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from simulator.designs.registry import DESIGNS
from simulator.page.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Heading,
    Legend,
    Multiples,
    Points,
    Section,
    Table,
    Words,
    plain,
)
from simulator.page.words import (
    LIGHTS,
    detects,
    interval,
    is_defined,
    listed,
    number,
    percent,
    probability,
    title,
    whole,
)
from simulator.report import plots
from simulator.report.content import (
    Across,
    AcrossWorlds,
    Content,
    DecidedLift,
    Headline,
    Verdict,
)
from simulator.report.sentences import (
    AGREEMENTS,
    MEANINGS,
    SIGNS,
    NeedsUsers,
    better,
    compared,
    corrected,
    directions,
    errors_by_day,
    method_line,
    more_fits,
    needed,
    stated,
    tone,
)
from simulator.report.spread import QUANTILES
from simulator.stats.intervals import GROUNDS
from simulator.stats.randomise import Rate
from simulator.stats.sequential import Look, Rule
from simulator.stats.verdict import Lift
from simulator.users.learned.support import Support

LEVELS = {"none": 0, "low": 1, "middle": 2, "high": 3}
"""The order of levels that have one; others stay in the order of the alphabet."""

READING = (
    "A lift is the difference of the arm's mean from the control's, as a share of the size of the"
    " control's. A 95% interval of a lift covers the true one in 95 of 100 runs; an adjusted"
    " p-value below .05 would be seen on any of the comparisons in at most 5 of 100 runs in which"
    " nothing differs. The detectable lift is the true change that a run of this size finds in four"
    " of five runs."
)


def document(c: Content) -> Document:
    """The report of a gathered content."""
    name = c.scenario or "A/B report"
    return Document(
        title=f"{name}: {listed(c.arms[1:])} against {c.control}",
        kicker="A/B report",
        heading=c.scenario or "Unnamed scenario",
        about=str(c.settings.get("description") or ""),
        facts=_facts(c),
        gates=list(_gates(c)),
        sections=[section for section in (make(c) for make in SECTIONS) if section is not None],
        closing=READING,
    )


def _facts(c: Content) -> Facts:
    size = c.size
    items = [
        ("Control", c.control),
        ("Against it", listed(c.arms[1:])),
        ("Design", f"{c.design}: {DESIGNS[c.design].words}"),
    ]
    items.append((f"Clusters ({c.clusters})" if c.clusters else "Users", whole(size.users)))
    if size.days:
        items += [
            ("Days", str(size.days)),
            ("Items", whole(size.items)),
            ("Impressions", whole(size.impressions)),
        ]
    if c.seed is not None:
        items.append(("Seed", str(c.seed)))
    return Facts(items)


def _gates(c: Content) -> Iterator[Gate]:
    """What must be read before the lifts: each red check whole, amber ones by name."""
    for check in c.red():
        yield Gate("red", f"Red: {check.name}.", f"{check.value} {check.meaning}")
    amber = [check.name.lower() for check in c.checks if check.status == "amber"]
    if amber:
        yield Gate("amber", f"{len(amber)} amber", f"of {len(c.checks)} checks: {listed(amber)}.")
    elif c.checks and not c.red():
        yield Gate("green", f"All {len(c.checks)} checks are green.")


class _HasLift(Protocol):
    @property
    def lift(self) -> float | None: ...


class _HasInterval(_HasLift, Protocol):
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


class _OfArm(Protocol):
    @property
    def metric(self) -> str: ...
    @property
    def arm(self) -> str: ...


def _shown(show: Callable[..., str], value: float | None, *how: Any, **more: Any) -> Cell:
    """A number as `show` writes it, sorted by its value."""
    finite = value if is_defined(value) else None
    return Cell(show(finite, *how), finite, **more)


def _lift(row: _HasLift, **more: Any) -> Cell:
    return _shown(percent, row.lift, **more)


def _p(p: float | None) -> Cell:
    return _shown(probability, p)


def _interval(row: _HasInterval) -> Cell:
    return Cell(interval(row.low, row.high) if is_defined(row.lift) else "n/a")


def _sequence(look: Look) -> Cell:
    """The confidence sequence of a look."""
    ends = interval(look.sequence_low, look.sequence_high)
    return Cell(ends if is_defined(look.lift) else "n/a")


def _columns(*heads: str, text: int = 2) -> list[Column]:
    """Columns of which the first few are text and the others numbers."""
    return [Column(head, number=i >= text) for i, head in enumerate(heads)]


def _of(row: _OfArm) -> tuple[Cell, Cell]:
    return plain(title(row.metric)), plain(row.arm)


def _legend(c: Content, first: int = 1) -> Legend:
    return Legend(list(enumerate(c.arms))[first:])


def _verdict(c: Content) -> Section | None:
    """The lifts of each arm under the sentence that sums them up: what is decided on."""
    if not c.headlines:
        return None
    strips, axis = plots.forests(c)
    columns = [
        Column("Metric"),
        Column("Lift", number=True),
        Column("Forest plot", figure=True, sorts=False),
        Column("95% interval", number=True, sorts=False),
        Column("Adjusted p", number=True, label="adjusted p"),
        Column("Verdict"),
        Column("Detects", number=True, label="detects"),
    ]
    blocks: list[Block] = []
    for i, (summary, rows) in enumerate(_by_arm(c), 1):
        lines = []
        for row, verdict in rows:
            kind = tone(verdict.verdict, c.metrics[row.metric].higher_is_better)
            lines.append(
                (
                    Cell(title(row.metric), sign=SIGNS[verdict.verdict], kind=kind),
                    _lift(row, kind=f"lift {kind}"),
                    Cell(figure=strips[row.arm, row.metric]),
                    _interval(row),
                    _p(row.p_adjusted),
                    Cell(
                        _stated(c, verdict),
                        kind=f"verdict {kind}",
                        hint=MEANINGS[verdict.verdict],
                    ),
                    _shown(detects, row.mde),
                )
            )
        blocks += [
            Heading(summary.sentence, loud=True, id=f"arm-{i}"),
            Table(summary.sentence, columns, lines, kind="forest", foot=axis),
        ]
    note = (
        f"Per {c.unit}; lift over the control with its 95% interval. Adjusted p: {corrected(c)}."
        " Detects: the smallest true lift that a run of this size calls up or down four times in"
        " five, after the adjustment. ▲ higher and ▼ lower than the control after adjustment; ○"
        " undecided: a difference is neither shown nor excluded; = identical. An arrow at the end"
        " of an interval: it goes on beyond the scale."
    )
    about = method_line(c.methods, c.unit)
    notes = [Words(text, note=True) for text in (note, *directions(c.metrics))]
    if about is not None:
        notes.insert(0, Words(about))
    return Section("verdict", "Verdict", [*blocks, *notes], "Verdict", bare=True)


def _methods(c: Content) -> Section | None:
    """Models and methods side by side, and what the uncertainty of a method is made of."""
    known = [method for method in c.methods if method.rows]
    if not known:
        return None
    heads = ("Metric", "Arm", "Lift", "These models", "The methods", "Adjusted p", "Share of fits")
    columns = [*_columns(*heads), Column("", figure=True, sorts=False)]
    of_models = {(row.arm, row.metric): (row, verdict) for row, verdict in c.decided()}
    lines, parts, points = [], [], []
    for method in known:
        for one in method.rows:
            row, verdict = of_models[method.arm, one.lift.metric]
            lines.append(
                (
                    *_of(row),
                    _lift(row),
                    _decided(c, row, verdict.verdict),
                    _decided(c, one.lift, one.lift.words),
                    _p(one.lift.p_adjusted),
                    _shown(percent, one.components.share_of_fits, 0, False),
                    Cell(figure=plots.share_of_fits(one, c.arms.index(row.arm))),
                )
            )
            made_of = one.components
            variances = (made_of.users, made_of.fits, made_of.interaction)
            parts.append((*_of(row), *(_shown(number, variance) for variance in variances)))
            if one.components.share_of_fits >= 0.5:
                points.append((SIGNS[one.lift.words], f"{method.arm}: {more_fits(one)}"))
    fits = max(method.fits for method in known)
    note = (
        f"Each method was trained {fits} times, with seeds of their own. These models: users are"
        " random, the models are these. The methods: fits are as random as users, so that another"
        " training is within the interval, too. Share of fits: the part of the variance of the"
        " methods' difference that more users would not lessen."
    )
    of_parts = (
        "Variance of what one user, one fit, or one user with one fit adds to the difference, in"
        " squared units of the metric. It is estimated without a limit at 0, and so below 0 by"
        " chance where it is small. Where users are divided over fits, the interaction is in the"
        " users' part."
    )
    variances_of = _columns("Metric", "Arm", "Users", "Fits", "Interaction")
    blocks: list[Block] = [
        Words(note, note=True),
        Table("Models and methods", columns, lines),
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
    ends = _interval(row).text
    return Cell(ends, sign=SIGNS[verdict], kind=kind, hint=stated(verdict, direction))


def _stated(c: Content, verdict: Verdict) -> str:
    return stated(verdict.verdict, c.metrics[verdict.metric].higher_is_better)


def _by_arm(c: Content) -> Iterator[tuple[Headline, list[tuple[Lift, Verdict]]]]:
    """Headline and rows, each with its verdict, of every arm."""
    for summary in c.headlines:
        yield summary, [pair for pair in c.decided() if pair[0].arm == summary.arm]


def _words(c: Content) -> Section | None:
    if not c.headlines:
        return None
    blocks: list[Block] = []
    for summary, rows in _by_arm(c):
        blocks += [
            Heading(f"{summary.arm} against {c.control}"),
            Points([(SIGNS[verdict.verdict], verdict.sentence) for _, verdict in rows]),
        ]
    return Section("words", "In words", blocks, "In words")


def _margins(c: Content) -> Section | None:
    if not c.margins:
        return None
    note = (
        "A guardrail is safe where it is shown not to lose its margin (non-inferiority), harmed"
        " where it is shown to lose more. Equivalent: two one-sided tests show the lift to lie"
        " within the margin. Not shown is not a fault of the arm: the test is too small. Adjusted"
        " p: Holm over all guardrails, and over all equivalences. The interval is the test's own:"
        " it holds the margin where the one-sided test at 5% does not reject it, before adjustment."
    )
    tones = {"safe": "good", "equivalent": "good", "harmed": "bad"}
    rows = []
    for row in c.margins:
        asked = (
            plain(row.kind),
            plain(better(c.metrics[row.metric])),
            _shown(percent, row.margin, 2, False),
        )
        within = plain("n/a" if row.answer == "no data" else interval(row.low, row.high))
        answer = Cell(row.answer, kind=tones.get(row.answer, "open"))
        rows.append((*_of(row), *asked, _lift(row), within, _p(row.p), _p(row.p_adjusted), answer))
    level = f"{c.margins[0].level:.0%} interval"
    heads = _columns(
        "Metric", "Arm", "Asked", "Direction", "Margin", "Lift", level, "p", "Adjusted p", text=4
    )
    table = Table("Guardrails and equivalence", [*heads, Column("Answer")], rows)
    signs = {"safe": "✓", "equivalent": SIGNS["identical"], "harmed": "✗"}
    sentences = Points(
        [(signs.get(row.answer, SIGNS["undecided"]), row.sentence) for row in c.margins]
    )
    return Section(
        "margins",
        "Guardrails and equivalence",
        [Words(note, note=True), table, sentences],
        "Guardrails",
    )


def _days(c: Content) -> Section | None:
    if not c.daily:
        return None
    note = (
        "Each day alone, per user, with 95% intervals that are not adjusted for looking at several"
        " days. A lift that fades or grows is a novelty or a learning effect."
    )
    figures = plots.daily(c)
    same = [
        title(name).lower() for name in c.metrics if name not in {metric for metric, _ in figures}
    ]
    rows = [
        (*_of(row), plain(row.day + 1, row.day), _shown(number, row.control_mean),
         _shown(number, row.treatment_mean), _lift(row), _interval(row), _p(row.p),
         _shown(whole, row.n_units))
        for row in c.daily
        if is_defined(row.lift)
    ]  # fmt: skip
    columns = _columns(
        "Metric", "Arm", "Day", c.control, "Arm's mean", "Lift", "95% interval", "p", "Units"
    )
    blocks: list[Block] = [
        Words(note, note=True),
        _legend(c),
        Multiples([(title(metric), figure) for metric, figure in figures]),
    ]
    if same:
        blocks.append(Words(f"Without any difference on any day: {listed(same)}.", note=True))
    return Section(
        "days",
        "Lift by day",
        [*blocks, Fold("The same as a table", [Table("Lift by day", columns, rows)], screen=True)],
        "By day",
    )


RULES: dict[Rule, str] = {
    "always_valid": "Always valid",
    "obrien_fleming": "O'Brien-Fleming",
    "pocock": "Pocock",
}
"""The stopping rules that are shown (fields of `sequential.Look`)."""


def _sequential(c: Content) -> Section | None:
    if not c.sequential:
        return None
    note = (
        "All days up to each day, with a 95% confidence sequence: unlike an ordinary interval it"
        " may be looked at every day, and the whole of it covers the true lift in 95 of 100 runs."
        " It is wider; that is the price of peeking."
    )
    rows, looks = [], []
    for peek in c.sequential:
        last = peek.looks[-1]
        stops = (Cell(f"day {day}" if day else "not yet", day) for day in map(peek.stop, RULES))
        rows.append(
            (
                *_of(peek),
                _lift(last),
                _sequence(last),
                _p(last.p),
                *stops,
            )
        )
        for look in peek.looks:
            bounds = (look.always_valid, look.obrien_fleming, look.pocock)
            numbers = (_shown(number, value) for value in (look.t, *bounds))
            intervals = (_interval(look), _sequence(look))
            looks.append(
                (
                    *_of(peek),
                    _shown(str, look.day),
                    _lift(look),
                    *intervals,
                    _p(look.p),
                    *numbers,
                )
            )
    caption = (
        "The first day on which each rule, fixed beforehand, would have stopped with a difference"
        " shown in that metric alone (level 5%, a look every day)."
    )
    stopping = Table(
        "When one could have stopped",
        _columns(
            "Metric",
            "Arm",
            "Lift at the end",
            "Confidence sequence",
            "Always-valid p",
            *RULES.values(),
        ),
        rows,
        caption=caption,
        id="stopping",
    )
    every = Table(
        "Every look",
        _columns(
            "Metric",
            "Arm",
            "After day",
            "Lift so far",
            "Interval for one look",
            "Confidence sequence",
            "Always-valid p",
            "t",
            *(f"{rule}: stop beyond" for rule in RULES.values()),
        ),
        looks,
    )
    figures = Multiples([(title(metric), figure) for metric, figure in plots.so_far(c)])
    blocks: list[Block] = [
        Words(note, note=True),
        _legend(c),
        figures,
        stopping,
        Fold("Every day's look as a table", [every], screen=True),
    ]
    return Section("sequential", "Lift so far, and when one could have stopped", blocks, "So far")


def _funnel(c: Content) -> Section | None:
    if not c.funnel:
        return None
    arms, steps = c.arms, plots.funnel(c)
    note = (
        "Totals of the run; the last columns say how much more or less each user does than under"
        f" {c.control}. Bars are per impression; the steps below the rule are rarer and have a"
        " scale of their own."
    )
    columns = [
        Column("Step"),
        Column("Bars", figure=True, sorts=False),
        *(Column(arm, number=True) for arm in arms),
        Column("per 1,000 impressions", number=True),
        *(Column(f"{arm}, per user", number=True) for arm in arms[1:]),
    ]
    rows = [
        (
            plain(title(step.step)),
            Cell(figure=step.figure),
            *(plain(whole(step.counts[arm])) for arm in arms),
            Cell(lines=tuple(number(step.per_1000[arm]) for arm in arms)),
            *(plain(percent(step.change[arm], 2)) for arm in arms[1:]),
        )
        for step in steps
    ]
    rules = frozenset(
        i for i in range(1, len(steps)) if steps[i].is_rare and not steps[i - 1].is_rare
    )
    table = Table("Funnel of each arm", columns, rows, kind="funnel", sortable=False, rules=rules)
    users = Words(
        "Users in each arm, those who never came included:"
        f" {', '.join(f'{arm} {whole(n)}' for arm, n in c.units.items())}."
    )
    return Section(
        "funnel", "Funnel", [Words(note, note=True), users, _legend(c, 0), table], "Funnel"
    )


def _spread(c: Content) -> Section | None:
    if not c.distributions:
        return None
    note = (
        "How a metric is spread over the users of each arm: the thin line from the 5% to the 95%"
        " quantile, the thick one over the middle half, a tick at the median, a dot at the mean."
    )
    columns = [
        Column("Metric"),
        Column("Figure", figure=True, sorts=False),
        Column("Arm"),
        Column("Mean", number=True),
        Column("Zeros", number=True),
        *(Column(f"{q:.0%}", number=True) for q in QUANTILES),
        Column("Max", number=True),
        Column("Units", number=True),
    ]
    rows: list[Sequence[Cell]] = []
    rules = set()
    for metric in c.metrics:
        mine = [row for row in c.distributions if row.metric == metric]
        rules.add(len(rows))
        for i, row in enumerate(mine):
            first, figure = (Cell(title(metric), span=0), Cell(span=0))
            if i == 0:
                first, figure = (
                    Cell(title(metric), span=len(mine)),
                    Cell(figure=plots.spread(mine), span=len(mine)),
                )
            quantiles = (plain(number(q)) for q in row.quantiles)
            shown = (
                plain(number(row.mean)),
                plain(percent(row.zeros, 1, False)),
                *quantiles,
                plain(number(row.max)),
            )
            rows.append(
                (
                    first,
                    figure,
                    Cell(row.arm, kind=f"arm-{c.arms.index(row.arm) % 6}"),
                    *shown,
                    plain(whole(row.n)),
                )
            )
    table = Table(
        "Distribution of each metric",
        columns,
        rows,
        kind="spread",
        sortable=False,
        rules=frozenset(rules - {0}),
    )
    return Section(
        "spread", "Distributions", [Words(note, note=True), _legend(c, 0), table], "Distributions"
    )


def _segments(c: Content) -> Section | None:
    """For each group of users a line for each metric and arm: the lift in every level and the
    interaction test.
    """
    if not c.segments:
        return None
    note = (
        "Below each lift its 95% interval, and p adjusted by Holm over all segments, metrics and"
        " arms."
    )
    blocks: list[Block] = [
        Words(c.segments.warning, lead="A warning."),
        Words(note, note=True),
    ]
    for group in dict.fromkeys(segment.group for segment in c.segments.rows):
        cells = {
            (segment.row.metric, segment.row.arm, segment.level): segment.row
            for segment in c.segments.rows
            if segment.group == group
        }
        levels = sorted(
            dict.fromkeys(level for _, _, level in cells), key=lambda level: LEVELS.get(level, 0)
        )
        rows = []
        for test in c.segments.interactions:
            if test.group == group:
                lifts = (cells.get((test.metric, test.arm, level)) for level in levels)
                rows.append((*_of(test), *map(_within, lifts), _p(test.p_adjusted)))
        heads = (
            *(f"{level} ({_sizes(cells, level)} users)" for level in levels),
            "Do they differ? Adjusted p",
        )
        blocks += [
            Heading(f"By {title(group).lower()}"),
            Table(f"Lift by {group}", _columns("Metric", "Arm", *heads), rows),
        ]
    return Section("segments", "Segments", blocks, "Segments")


def _sizes(cells: Mapping[tuple[str, str, str], Lift], level: str) -> str:
    """The users of a level who are compared: of each pair of arms, or once where all pairs have as
    many.
    """
    by_arm: dict[str, int] = {}
    for (_, arm, at), row in cells.items():
        if at == level:
            by_arm[arm] = max(by_arm.get(arm, 0), row.n_units)
    if len(set(by_arm.values())) == 1:
        return whole(next(iter(by_arm.values())))
    return ", ".join(f"{arm} {whole(n)}" for arm, n in by_arm.items())


def _within(row: Lift | None) -> Cell:
    """The lift in a segment, its interval and adjusted p below."""
    if row is None or not is_defined(row.lift):
        return Cell("n/a", None)
    return _lift(row, under=f"{interval(row.low, row.high, 1)}; p {probability(row.p_adjusted)}")


FIGURES = ("Arm's mean", "Lift", "Low", "High", "t", "df", "p", "Adjusted p", "Units", "Detects")
"""The heads of the figures of a row of `lifts`, below that of the control's mean, which is its
name.
"""


def _all(row: Lift) -> Iterator[Cell]:
    """Every figure of a row, in the order of FIGURES, the control's mean first."""
    yield _shown(number, row.control_mean)
    yield _shown(number, row.treatment_mean)
    yield _lift(row)
    for end in (row.low, row.high):
        is_open = is_defined(row.lift) and not is_defined(end)
        yield Cell("unbounded", None) if is_open else _shown(percent, end)
    yield _shown(number, row.t)
    yield _shown(number, row.df)
    yield _p(row.p)
    yield _p(row.p_adjusted)
    yield _shown(whole, row.n_units)
    yield _shown(detects, row.mde)


def _numbers(c: Content) -> Section | None:
    if not c.lifts:
        return None
    heads = [c.control, *FIGURES]
    how = "paired across arms" if c.paired else "compared between arms"
    blocks: list[Block] = [Words(f"By user: the unit is a user, {how}. {_chosen(c)}", note=True)]
    if c.adjusted:
        adjusted = (
            "Adjusted for the pre-period of the same user (CUPED):"
            f" {listed([title(m).lower() for m in c.adjusted])}. The same without adjustment stands"
            " below."
        )
        blocks.append(Words(adjusted, note=True))
    shown = [row for row in c.lifts if row.unit == c.unit or row.unit == "user"]
    units = len({row.unit for row in shown}) > 1
    rows = [(*_of(row), *([plain(row.unit)] if units else []), *_all(row)) for row in shown]
    columns = _columns("Metric", "Arm", *(["Unit"] if units else []), *heads, text=2 + units)
    blocks.append(Table("All numbers", columns, rows, id="lifts"))
    described = [
        (title(name), f"{metric.description} ({better(metric)})")
        for name, metric in c.metrics.items()
    ]
    blocks.append(Fold("What each metric is", [Facts(described)]))
    if c.beside:
        rows = [(*_of(row), *_all(row)) for row in c.beside.rows]
        blocks += [
            Heading(c.beside.title),
            Table(c.beside.title, _columns("Metric", "Arm", *heads), rows, id="beside"),
        ]
    return Section("numbers", "All numbers", blocks, "All numbers")


def _chosen(c: Content) -> str:
    ground = GROUNDS[c.choices.interval]
    return f"Intervals of the relative lift by {ground}; adjusted p: {corrected(c)}."


def _paper(c: Content) -> Section | None:
    """The day x arm table that papers print."""
    rows = [(*_of(row), *_all(row)) for row in c.lifts if row.unit == "day"]
    days = c.size.days
    if not rows or days is None or c.unit == "day":
        return None
    note = (
        f"The unit is a day, paired across arms, with t({days - 1}): the kind of table that the"
        f" paper prints. {errors_by_day(c.audit, c.paired)} The verdict rests on the users."
    )
    heads = [c.control, *FIGURES]
    table = Table(
        "By day, as in the paper", _columns("Metric", "Arm", *heads), rows, id="paper-table"
    )
    return Section(
        "paper", "By day, as in the paper", [Words(note, note=True), table], "As in the paper"
    )


def _otherwise(c: Content) -> Section | None:
    """Whether the verdict hangs on the method: p of each, and the lifts and intervals of each."""
    if not c.otherwise:
        return None
    tested = list(dict.fromkeys(row.method for row in c.otherwise if is_defined(row.p)))
    p = {(row.metric, row.arm, row.method): row.p for row in c.otherwise}
    pairs = list(dict.fromkeys((row.metric, row.arm) for row in c.otherwise))
    rows = [
        (plain(title(metric)), plain(arm), *(_p(p.get((metric, arm, method))) for method in tested))
        for metric, arm in pairs
    ]
    caption = (
        "Whether the verdict hangs on the method: p of each, none of them adjusted for several"
        " metrics. Ranks test another hypothesis than equal means. n/a: not asked, or not to be had"
        " (the reason stands in the table below)."
        + (
            " The verdict is adjusted for the pre-period where there is one, the other methods are"
            " not."
            if c.adjusted
            else ""
        )
    )
    lifts = [
        (
            *_of(row),
            plain(row.method),
            _lift(row),
            _interval(row),
            _p(row.p),
            plain(row.note),
        )
        for row in c.otherwise
    ]
    every = Table(
        "Lift by each method",
        [*_columns("Metric", "Arm", "Method", "Lift", "95% interval", "p", text=3), Column("Note")],
        lifts,
    )
    blocks = [
        Table(
            "Computed otherwise",
            _columns("Metric", "Arm", *tested),
            rows,
            caption=caption,
            id="otherwise",
        )
    ]
    return Section(
        "otherwise",
        "Computed otherwise",
        [*blocks, Fold("Lift and interval by each method", [every], screen=True)],
        "Otherwise",
    )


def _power(c: Content) -> Section | None:
    if not c.power:
        return None
    names = compared(c.power)
    caption = (
        "To find a true lift four times in five after the adjustment of this report, as the only"
        " one among its comparisons. Paired: the same users in both arms; split: all users of two"
        " equal arms; CUPED: split, adjusted for each user's past."
    )
    rows = [
        (
            *_of(row),
            plain("published" if row.published else "round figure"),
            _lift(row),
            *_needs(row, names),
        )
        for row in c.power
    ]
    columns = _columns("Metric", "Arm", "From", "Lift to find", *names.values(), text=3)
    sentences = []
    for row in c.power:
        if not row.published:
            continue
        users = [
            f"{needed(row, name)} users ({shown[0].lower()}{shown[1:]})"
            for name, shown in names.items()
        ]
        sentence = (
            f"To see the published {percent(row.lift)} {title(row.metric).lower()} of"
            f" {row.arm} you would need {listed(users, 'or')}."
        )
        sentences.append(("○", sentence))
    blocks: list[Block] = [Table("Users needed", columns, rows, caption=caption, id="power")]
    return Section(
        "needed",
        "Users needed",
        [*blocks, Points(sentences)] if sentences else blocks,
        "Users needed",
    )


def _needs(
    row: NeedsUsers, names: Iterable[str], notes: Mapping[str, str] | None = None
) -> Iterator[Cell]:
    for name in names:
        hint = (notes or {}).get(name, "")
        yield Cell(needed(row, name), row.users.get(name), hint=hint)


def _designs(c: Content) -> Section | None:
    if not c.designs:
        return None
    names = compared(c.designs)
    caption = (
        "Users that each design would need, on the same world, to find this difference of credits"
        " four times in five, after the adjustment. A preference within one slate is not the lift"
        " of a whole feed; abtest compare puts it beside a paired run of the same scenario."
        if DESIGNS[c.design].shares_slates
        else (
            "Users that each design would need, on the same world, to find the lift found here four"
            " times in five, after the adjustment. A paired run knows both answers of every user,"
            " so every design that serves whole feeds can be tried on it; how interleaving does is"
            " told by abtest compare with an interleaved run of the same scenario."
        )
    )
    rows = [(*_of(row), _lift(row), *_needs(row, names, row.notes)) for row in c.designs]
    table = Table(
        "Users needed by each design",
        _columns("Metric", "Arm", "Lift", *names.values()),
        rows,
        caption=caption,
        id="designs",
    )
    notes = sorted(
        {f"{names[name]}: {note}." for row in c.designs for name, note in row.notes.items()}
    )
    return Section(
        "designs",
        "Designs compared",
        [table, *(Words(note, note=True) for note in notes)],
        "Designs",
    )


def _preference(c: Content) -> Section | None:
    if not c.preference:
        return None
    caption = (
        "Team-draft interleaving: each credit goes to the arm that drafted the item. Users who"
        " credited the arm more, less, and equally; the share of the former two that prefer it,"
        " with its interval; half of the ties given to each side, less a half; p of the sign test"
        " and of the paired t test."
    )
    rows = []
    for row in c.preference:
        wins = row.wins
        counts = (_shown(whole, n) for n in (row.preferring, row.against, row.tied))
        shares = (
            _shown(percent, wins.value, 1, False),
            plain(interval(wins.low, wins.high, 1, sign=False)),
        )
        tests = (
            _p(row.p_sign),
            _shown(number, row.t),
            _shown(number, row.df),
            _p(row.p),
        )
        rows.append((*_of(row), *counts, *shares, _shown(percent, row.share, 1), *tests))
    heads = (
        "Prefer it",
        f"Prefer {c.control}",
        "Tied",
        "Share",
        "95% interval",
        "Margin",
        "Sign test, p",
        "t",
        "df",
        "t test, p",
    )
    table = Table(
        "Preference within slates",
        _columns("Metric", "Arm", *heads),
        rows,
        caption=caption,
        id="preference",
    )
    return Section("preferred", "Preference within slates", [table], "Preference")


def _published(c: Content) -> Section | None:
    if not c.published:
        return None
    caption = (
        "Published lifts come from another system, its users and its days; a simulated world is not"
        " expected to repeat them."
    )
    rows = [
        (*_of(row), _shown(percent, row.published), _lift(row), _interval(row),
         plain({True: "yes", False: "no", None: "n/a"}[row.inside]), _shown(whole, row.users))
        for row in c.published
    ]  # fmt: skip
    columns = [
        *_columns("Metric", "Arm", "Published", "Here", "95% interval"),
        Column("Published within it"),
    ]
    table = Table(
        "Published figures",
        [*columns, Column("Users needed to show it", number=True)],
        rows,
        caption=caption,
        id="published-table",
    )
    return Section("published", "Published beside ours", [table], "Published")


def across(rows: Sequence[Across]) -> Table:
    """The lift of each arm and metric in each of several worlds or runs."""
    names = list(rows[0].lifts)
    tones = {"same sign": "good", "opposite": "bad"}
    lines = []
    for row in rows:
        cells = [_signed(row.lifts.get(name)) for name in names]
        if isinstance(row, AcrossWorlds):
            cells.append(_with_interval(row.all))
        agreement = Cell(AGREEMENTS[row.agree], kind=tones.get(row.agree, "open"))
        lines.append((*_of(row), *cells, agreement))
    over = ["Over all worlds"] if isinstance(rows[0], AcrossWorlds) else []
    return Table(
        "Lift by world or run",
        [*_columns("Metric", "Arm", *names, *over), Column("Agreement")],
        lines,
        kind="across",
    )


def _with_interval(row: _HasInterval | None) -> Cell:
    if row is None:
        return Cell("n/a", None)
    return _lift(row, under=interval(row.low, row.high))


def _signed(cell: DecidedLift | None) -> Cell:
    if cell is None or not is_defined(cell.lift):
        return Cell("n/a", None)
    return Cell(
        f"{SIGNS[cell.verdict]} {percent(cell.lift)}",
        cell.lift,
        under=interval(cell.low, cell.high),
    )


def _worlds(c: Content) -> Section | None:
    if not c.worlds:
        return None
    text = (
        "A policy may win because it shares its assumptions with the simulated users. A lift that"
        " keeps its sign among users of another kind does not. The lift over all worlds has an"
        " interval that includes what they disagree about."
    )
    return Section(
        "worlds", "The same arms in other worlds", [Words(text), across(c.worlds)], "Worlds"
    )


def _offline(c: Content) -> Section | None:
    blocks: list[Block] = []
    if c.offline:
        note = (
            "What a replay of this run's log says of the policies: estimated value per impression"
            " with its 95% interval, the logging policy's own value, and whether the estimate may"
            " be believed."
        )
        rows = [
            (
                plain(row.policy),
                plain(row.arm or "no arm"),
                plain(title(row.reward)),
                plain(row.estimator),
                _shown(number, row.value),
                plain(f"{number(row.low)} to {number(row.high)}"),
                _shown(number, row.logged),
                _shown(percent, row.online),
                plain(
                    ": ".join(
                        part for part in (row.verdict or "n/a", "; ".join(row.reasons)) if part
                    )
                ),
            )
            for row in c.offline
        ]
        heads = _columns(
            "Policy",
            "Arm",
            "Reward",
            "Estimator",
            "Estimate",
            "95% interval",
            "Logged",
            "Online lift",
            text=4,
        )
        blocks += [
            Words(note),
            Table("Offline estimates", [*heads, Column("May one believe it?")], rows),
        ]
    if c.foretold:
        note = (
            "Offline figures of the same arms, from the history's last days, and how well each"
            " figure foretells the online lift over all policies that abtest fidelity has tried:"
            " rank correlation, and share of pairs in the right order."
        )
        figures = [
            (
                plain(row.figure),
                plain(row.arm),
                plain(title(row.reward)),
                _shown(number, row.control),
                _shown(number, row.value),
                _shown(percent, row.online),
                _shown(number, row.rho),
                _shown(percent, row.ordered, 0, False),
            )
            for row in c.foretold
        ]
        heads = _columns(
            "Offline figure",
            "Arm",
            "Reward",
            c.control,
            "Arm's figure",
            "Online lift",
            "Rank correlation",
            "In order",
            text=3,
        )
        blocks += [Words(note), Table("Offline figures", heads, figures)]
    if not blocks:
        return None
    return Section(
        "offline", "Offline figures and estimates beside the online lift", blocks, "Offline"
    )


def _served(c: Content) -> Section | None:
    blocks: list[Block] = []
    if c.channels:
        shares = c.channels.shares
        rows = [
            (plain(name), *(plain(percent(shares[arm][i], 1, False)) for arm in c.arms))
            for i, name in enumerate(c.channels.names)
        ]
        note = (
            "Only part of each slate came from the policy under test; the rest came from recall"
            " channels that all arms share. The smaller the tested share, the smaller an online"
            " lift can be."
        )
        table = Table(
            "Share of impressions by recall channel",
            _columns("Channel", *c.arms, text=1),
            rows,
            sortable=False,
        )
        blocks += [Words(note), table]
    if any(c.answered_by_log.values()):
        answered = ", ".join(f"{arm} {percent(c.answered_by_log[arm], 1, False)}" for arm in c.arms)
        blocks.append(
            Words(
                f"Impressions that the real log answered, in place of a model of users: {answered}."
            )
        )
    if c.support:
        note = (
            "A model answers best where it has data. An arm that shows items of which little was"
            " logged is judged by a guess, and may win by it. Shares are of its impressions."
        )
        rows = [
            (
                plain(row.arm),
                *(plain(percent(share, 1, False)) for share in _shares(row)),
                plain(whole(row.items)),
                plain(percent(row.top, 1, False)),
            )
            for row in c.support
        ]
        heads = (
            "Answered by the log",
            "Overlap with the log",
            "Items with few logged answers",
            "Items with none",
            "Users with none",
            "Items shown",
            "On the top 1%",
        )
        table = Table(
            "Support of each arm in the log",
            _columns("Arm", *heads, text=1),
            rows,
            id="support",
            sortable=False,
        )
        blocks += [Words(note), table]
    if not blocks:
        return None
    return Section("served", "What was served, and who answered", blocks, "Served")


def _shares(row: Support) -> tuple[float, ...]:
    return row.logged, row.overlap, row.thin, row.never, row.cold


def _calibration(c: Content) -> Section | None:
    if not c.calibration:
        return None
    measured = c.calibration
    note = (
        "What the simulated users do, against what real ones are known to do. "
        f"Measured on {measured.basis}; tolerance {percent(measured.tolerance, 0, False)}."
    )
    columns = _columns(
        "Marginal", "Target", "Simulated", "Standard error", "Simulated / target", text=1
    )
    blocks: list[Block] = [Words(note)]
    for within in (False, True):
        rows = [
            (Cell(row.name, sign="✓" if within else "✗", kind="good" if within else "bad"),
             *(_shown(number, v) for v in (row.target, row.simulated, row.se, row.ratio)))
            for row in measured.rows
            if row.within == within
        ]  # fmt: skip
        if rows:
            summary = (
                f"{len(rows)} of {len(measured.rows)} marginals {'within' if within else 'out of'}"
                " tolerance"
            )
            blocks.append(Fold(summary, [Table("Calibration", columns, rows)], open=not within))
    return Section("calibration", "Calibration of the world", blocks, "Calibration")


def _checks(c: Content) -> Section | None:
    if not c.checks:
        return None
    rows = [
        (
            plain(check.name),
            Cell(f"{LIGHTS[check.status]} {check.status}", kind=f"status {check.status}"),
            plain(check.value),
            plain(check.meaning),
        )
        for check in c.checks
    ]
    columns = [Column("Check"), Column("Status"), Column("Found"), Column("What it means")]
    return Section(
        "checks",
        "Checks",
        [Table("Checks", columns, rows, kind="checks", sortable=False)],
        "Checks",
    )


def _audit(c: Content) -> Section | None:
    if not c.audit:
        return None
    result = c.audit
    note = (
        "This run knows both answers of every user, so the assignment can be drawn anew:"
        f" {whole(result.repetitions)} samples of each size from {whole(result.n_users)} users."
        " False positives where both arms answer alike (nominal 5%), power for what was there, how"
        " often the 95% interval holds the true lift, and the mean error of the lift. Of what is"
        f" printed beside the verdict, {result.beside.held} of {result.beside.of} rows"
        " hold."
    )
    rows = [
        (
            *_of(row),
            plain(row.analysis),
            _shown(whole, row.n),
            *map(_rate, (row.error, row.power, row.coverage)),
            _shown(percent, row.bias),
            _lift(row),
            Cell("yes" if row.holds else "no", kind="good" if row.holds else "bad"),
        )
        for row in result.rows
    ]
    heads = _columns(
        "Metric",
        "Arm",
        "Analysis",
        "Users",
        "False positives",
        "Power",
        "Coverage",
        "Bias",
        "True lift",
        text=3,
    )
    blocks: list[Block] = [
        Words(note, note=True),
        Table("Audit of the tests", [*heads, Column("Holds")], rows),
    ]
    for summary, warnings in (
        ("What the verdict rests on and does not hold", result.warnings),
        ("What is printed beside the verdict and does not hold", result.beside.warnings),
    ):
        if warnings:
            blocks.append(
                Fold(
                    f"{summary} ({len(warnings)})",
                    [Points([("▲", warning) for warning in warnings])],
                )
            )
    wrong = [
        (
            plain(row.analysis),
            plain(title(row.metric)),
            plain(row.why),
            _rate(row.error),
        )
        for row in result.wrong
    ]
    columns = _columns("Analysis", "Metric", "What is wrong", "False positives", text=3)
    blocks += [
        Heading("What the usual wrong analyses would have done"),
        Table("Usual wrong analyses", columns, wrong),
    ]
    if result.looking:
        looks = [
            (
                plain(title(row.rule)),
                plain(title(row.metric)),
                plain(row.design),
                _rate(row.error),
            )
            for row in result.looking
        ]
        columns = _columns("Rule", "Metric", "Design", "False positives", text=3)
        blocks += [
            Heading("Looking at the end of every day"),
            Table("Looking every day", columns, looks),
        ]
    return Section("audit", "Audit of the tests", blocks, "Audit")


def _rate(rate: Rate) -> Cell:
    """A share of samples with its Monte-Carlo interval."""
    ends = ""
    if is_defined(rate.value):
        ends = f"{percent(rate.low, 1, False)} to {percent(rate.high, 1, False)}"
    return _shown(percent, rate.value, 1, False, under=ends)


def _uses(c: Content) -> Section | None:
    if not c.columns:
        return None
    note = (
        "What each column of the table was taken for, and how it was read. Only metrics are tested;"
        " nothing else of the table is."
    )
    rows = [(plain(use.column), plain(use.role), plain(use.note)) for use in c.columns]
    table = Table("Columns", _columns("Column", "Taken for", "How, or why", text=3), rows)
    return Section("columns", "Columns of the table", [Words(note, note=True), table], "Columns")


def _repeat(c: Content) -> Section | None:
    blocks: list[Block] = []
    if c.settings:
        blocks += [
            Words(
                "The same scenario and seed give the same log, byte for byte. Save the scenario"
                " below and run:"
            ),
            Code(c.command or "abtest run scenario.yaml"),
            Fold("Scenario, resolved", [Code(settings(c))], open=True),
        ]
    elif c.size.days:
        blocks.append(Words("The log carries no scenario: it was not written by abtest run."))
    else:
        blocks.append(Words("Made by abtest report from a table of users."))
        if c.command:
            blocks.append(Code(c.command))
    if c.versions:
        blocks.append(
            Words(
                "Versions:"
                f" {', '.join(f'{name} {version}' for name, version in c.versions.items())}.",
                note=True,
            )
        )
    if c.notes:
        blocks += [
            Heading("Notes that the log carries"),
            Facts([(name, str(value)) for name, value in c.notes.items()]),
        ]
    if c.runtime:
        times = [
            (title(k), number(v) if isinstance(v, (int, float)) else str(v))
            for k, v in c.runtime.items()
        ]
        blocks += [Heading("Run time"), Facts(times)]
    blocks.append(Words(f"Schema of report.json: {c.schema}.", note=True))
    return Section("repeat", "Repeat it", blocks, "Repeat it")


SECTIONS: tuple[Callable[[Content], Section | None], ...] = (
    _verdict,
    _methods,
    _words,
    _margins,
    _checks,
    _paper,
    _days,
    _sequential,
    _funnel,
    _spread,
    _segments,
    _numbers,
    _otherwise,
    _power,
    _designs,
    _preference,
    _published,
    _worlds,
    _offline,
    _served,
    _calibration,
    _audit,
    _uses,
    _repeat,
)
"""Every section in the order of reading; one with nothing to show is None."""


def settings(c: Content) -> str:
    """The resolved scenario as YAML, as the log carries it."""
    import yaml

    return (
        yaml.safe_dump(
            dict(c.settings),
            sort_keys=False,
            allow_unicode=True,
            width=100,
            default_flow_style=None,
        )
        if c.settings
        else ""
    )
