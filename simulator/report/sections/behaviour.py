"""What the users of each arm did: the funnel, distributions, segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Heading,
    Section,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.words import interval, is_defined, number, percent, probability, title, whole
from simulator.report import plots
from simulator.report.content import Content
from simulator.report.sections.cells import legend, lift_cell, metric_and_arm, p_cell
from simulator.report.spread import QUANTILES
from simulator.stats.verdict import Lift


def funnel(c: Content) -> Section | None:
    if not c.funnel:
        return None
    arms, steps = c.arms, plots.funnel(c)
    note = (
        "Totals of the run; the last columns say how much more or less each user does than under"
        f" {c.control}. Bars are per impression; the steps below the rule are rarer and have a"
        " scale of their own."
    )
    heads = [
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


def segments(c: Content) -> Section | None:
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
                rows.append((*metric_and_arm(test), *map(_within, lifts), p_cell(test.p_adjusted)))
        heads = (
            *(f"{level} ({_sizes(cells, level)} users)" for level in levels),
            "Do they differ? Adjusted p",
        )
        blocks += [
            Heading(f"By {title(group).lower()}"),
            Table(f"Lift by {group}", columns("Metric", "Arm", *heads, text=2), rows),
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
    ends = interval(row.low_adjusted, row.high_adjusted, 1)
    return lift_cell(row, under=f"{ends}; p {probability(row.p_adjusted)}")
