"""What the users of each arm did: the funnel, distributions, segments."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Points,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import (
    is_defined,
    listed,
    number,
    percent,
    probability,
    share,
    title,
    whole,
)
from simulator.report import plots
from simulator.report.content import Content
from simulator.report.sections.cells import adjusted_cell, legend, lift_cell, metric_and_arm, p_cell
from simulator.report.sentences import SIGNS, stated, tone
from simulator.report.spread import QUANTILES
from simulator.stats.segments import Segment


def funnel(c: Content) -> Section | None:
    if not c.funnel:
        return None
    arms, steps = c.arms, plots.funnel(c)
    note = (
        "Totals of the run; the last columns say how much more or less each user does than under"
        f" {c.control}. Bars are per impression; steps rarer than a tenth of the impressions have a"
        " scale of their own."
    )
    heads = [
        Column("Step"),
        Column("Bars", figure=True, sorts=False),
        Column("Arm"),
        Column("Total", number=True),
        Column("per 1,000 impressions", number=True),
        Column(f"per user, against {c.control}", number=True),
    ]
    rows = []
    for step in steps:
        for k, arm in enumerate(arms):
            span = 0 if k else len(arms)
            change = plain(percent(step.change[arm], 2)) if k else plain("")
            rows.append(
                (
                    Cell(title(step.step), span=span),
                    Cell(figure=step.figure, span=span),
                    Cell(arm, kind=f"arm-{k % 6}"),
                    plain(whole(step.counts[arm])),
                    plain(number(step.per_1000[arm])),
                    change,
                )
            )
    rules = frozenset(range(len(arms), len(rows), len(arms)))
    table = Table("Funnel of each arm", heads, rows, kind="funnel", sortable=False, rules=rules)
    users = Words(
        "Users in each arm, those who never came included:"
        f" {', '.join(f'{arm} {whole(n)}' for arm, n in c.units.items())}."
    )
    return Section(
        "funnel", "Funnel", [Words(note, note=True), users, legend(c, 0), table], "Funnel"
    )


def spread(c: Content) -> Section | None:
    if not c.distributions:
        return None
    note = (
        "How a metric is spread over the users of each arm: the thin line from the 5% to the 95%"
        " quantile, the thick one over the middle half, a tick at the median, a dot at the mean."
    )
    heads = [
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
                first = Cell(title(metric), span=len(mine))
                figure = Cell(figure=plots.spread(mine), span=len(mine))
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
        heads,
        rows,
        kind="spread",
        sortable=False,
        rules=frozenset(rules - {0}),
    )
    return Section(
        "spread", "Distributions", [Words(note, note=True), legend(c, 0), table], "Distributions"
    )


LEVELS = {"none": 0, "low": 1, "middle": 2, "high": 3}
"""The order of levels that have one; others stay in the order of the alphabet."""

TOO_WIDE = 1.0
"""Half the width of an interval of a lift from which on the lift says nothing of its size."""

MOST_ROWS = 1000
"""Rows of segments on the page; report.json has all."""


def segments(c: Content) -> Section | None:
    """The lift in groups of users: first whether it differs between them, then the segments in
    which a difference is shown, and folded away those in which none is.
    """
    if not c.segments:
        return None
    differing = [
        test for test in c.segments.interactions if test.p_adjusted < 1.0 - c.choices.level
    ]
    points = [
        ("○", f"{title(test.metric)}, {test.arm}: the lift differs by {_words(test.group)},"
         f" adjusted p {probability(test.p_adjusted)}.")
        for test in differing
    ]  # fmt: skip
    if not differing:
        groups = dict.fromkeys(_words(test.group) for test in c.segments.interactions)
        points = [("○", f"No lift is shown to differ between users by {listed(list(groups))}.")]
    tests = [
        (*metric_and_arm(test), plain(_words(test.group)), numeric(number, test.q),
         numeric(whole, test.df), p_cell(test.p), p_cell(test.p_adjusted))
        for test in c.segments.interactions
    ]  # fmt: skip
    heads = columns("Metric", "Arm", "Group", "Q", "df", "p", "Adjusted p", text=3)
    between = Table("Do lifts differ between groups?", heads, tests, id="interactions")
    shown: list[Segment] = []
    quiet: list[Segment] = []
    for segment in sorted(c.segments.rows, key=lambda one: LEVELS.get(one.level, 0)):
        (shown if segment.row.words in ("up", "down") else quiet).append(segment)
    ends = f"{share(c.choices.level)} interval"
    names = ("Metric", "Arm", "Segment", "Users", "Lift", ends, "Adjusted p")
    heads = [*columns(*names, text=3), Column("Verdict")]
    note = (
        "Intervals and p are adjusted by Holm over all segments, metrics and arms. Too uncertain:"
        " the interval reaches more than 100% to a side, so that the lift says nothing of a size."
    )
    blocks: list[Block] = [
        Words(c.segments.warning, lead="A warning."),
        Points(points),
        Fold("Whether each lift differs between groups", [between], screen=True),
    ]
    if shown:
        rows = [_segment(c, one) for one in shown[:MOST_ROWS]]
        blocks.append(Table("Segments in which a difference is shown", heads, rows))
        blocks += _left_out(len(shown))
    else:
        blocks.append(Words("In no segment is a difference shown."))
    blocks.append(Words(note, note=True))
    if quiet:
        name = "Segments in which none is shown"
        table = Table(name, heads, [_segment(c, one) for one in quiet[:MOST_ROWS]])
        folded = [table, *_left_out(len(quiet))]
        blocks.append(Fold(f"{name} ({whole(len(quiet))} rows)", folded, screen=True))
    return Section("segments", "Segments", blocks, "Segments")


def _left_out(rows: int) -> list[Block]:
    if rows <= MOST_ROWS:
        return []
    text = f"{whole(rows - MOST_ROWS)} more rows stand in report.json (abtest report --csv)."
    return [Words(text, note=True)]


def _words(group: str) -> str:
    return title(group).lower()


def _segment(c: Content, segment: Segment) -> tuple[Cell, ...]:
    """A line of a segment; one in which nothing is shown is printed quietly, and its lift not at
    all where its interval says nothing of a size.
    """
    row, direction = segment.row, c.metrics[segment.row.metric].higher_is_better
    is_shown = row.words in ("up", "down")
    quiet = "" if is_shown else "quiet"
    kind = tone(row.words, direction) if is_shown else quiet
    ends = adjusted_cell(row)
    lift = lift_cell(row, kind=f"lift {kind}" if is_shown else quiet)
    reach = max(abs(row.low_adjusted - row.lift), abs(row.high_adjusted - row.lift))
    if not is_shown and is_defined(row.lift) and not reach <= TOO_WIDE:
        hint = f"{percent(row.lift)}, {ends.text}"
        lift = Cell("too uncertain", row.lift, kind=quiet, hint=hint)
        ends = Cell("wider than ±100%")
    return (
        Cell(title(row.metric), sign=SIGNS[row.words], kind=kind),
        Cell(row.arm, kind=quiet),
        Cell(f"{_words(segment.group)}: {segment.level}", kind=quiet),
        numeric(whole, row.n_units, kind=quiet),
        lift,
        Cell(ends.text, kind=quiet),
        numeric(probability, row.p_adjusted, kind=quiet),
        Cell(
            stated(row.words, direction),
            kind=kind,
        ),
    )
