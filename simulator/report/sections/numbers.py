"""Every number behind the verdict: by unit, by method, and within interleaved slates."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Facts,
    Fold,
    Heading,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import (
    detects,
    interval,
    is_defined,
    number,
    percent,
    share,
    title,
    whole,
)
from simulator.report.content import Content
from simulator.report.sections.cells import (
    adjusted_cell,
    both_lifts_cell,
    interval_cell,
    lift_cell,
    metric_and_arm,
    p_cell,
)
from simulator.report.sentences import (
    CORRECTIONS,
    better,
    corrected,
    errors_by_day,
    gained,
    stated,
)
from simulator.stats.intervals import GROUNDS
from simulator.stats.verdict import Lift

FIGURES = (
    "Arm's mean",
    "Lift",
    "Low",
    "High",
    "t",
    "df",
    "p",
    "Adjusted p",
    "Units",
    "Detects",
)
"""The heads of the figures of a row of `lifts`, below that of the control's mean, which is its
name.
"""


def _figures_of(row: Lift) -> Iterator[Cell]:
    """Every figure of a row, in the order of FIGURES, the control's mean first."""
    yield numeric(number, row.control_mean)
    yield numeric(number, row.treatment_mean)
    yield both_lifts_cell(row)
    for end, adjusted in ((row.low, row.low_adjusted), (row.high, row.high_adjusted)):
        is_open = is_defined(row.lift) and not is_defined(end)
        under = percent(adjusted) if is_defined(adjusted) else ""
        yield Cell("unbounded", None) if is_open else numeric(percent, end, under=under)
    yield numeric(number, row.t)
    yield numeric(number, row.df)
    yield p_cell(row.p)
    yield p_cell(row.p_adjusted)
    yield numeric(whole, row.n_units)
    yield numeric(detects, row.mde)


def all_numbers(c: Content) -> Section | None:
    if not c.lifts:
        return None
    heads = [c.control, *FIGURES]
    how = "paired across arms" if c.paired else "compared between arms"
    blocks: list[Block] = [
        Words(f"By user: the unit is a user, {how}. {_grounds_of(c)}", note=True)
    ]
    blocks += [Words(line, note=True) for line in gained(c)]
    if c.adjusted:
        blocks.append(Words("The lifts without adjustment stand below.", note=True))
    shown = [row for row in c.lifts if row.unit == c.unit or row.unit == "user"]
    units = len({row.unit for row in shown}) > 1
    rows = [
        (*metric_and_arm(row), *([plain(row.unit)] if units else []), *_figures_of(row))
        for row in shown
    ]
    named = ["Metric", "Arm", *(["Unit"] if units else [])]
    blocks.append(Table("All numbers", columns(*named, *heads, text=2 + units), rows, id="lifts"))
    described = [
        (title(name), f"{metric.description} ({better(metric)})")
        for name, metric in c.metrics.items()
    ]
    blocks.append(Fold("What each metric is", [Facts(described)]))
    if c.beside:
        rows = [(*metric_and_arm(row), *_figures_of(row)) for row in c.beside.rows]
        blocks += [
            Heading(c.beside.title),
            Table(c.beside.title, columns("Metric", "Arm", *heads, text=2), rows, id="beside"),
        ]
    return Section("numbers", "All numbers", blocks, "All numbers")


def _grounds_of(c: Content) -> str:
    ground = GROUNDS[c.choices.interval]
    return (
        f"Intervals of the relative lift by {ground}. Below a lift stands the difference, below an"
        f" end of its interval that of the adjusted one, which the verdict shows. Adjusted:"
        f" {corrected(c)}."
    )


def all_pairs(c: Content) -> Section | None:
    """Every arm over every other one."""
    if not c.pairs:
        return None
    how = CORRECTIONS[c.choices.correction].format("all pairs", alpha=share(1 - c.choices.level))
    note = (
        f"Each arm over each of those before it, by {c.assigned}, corrected as a family of its own:"
        f" {how}. The decision rests on the comparisons with the control above."
    )
    rows = [
        (
            *metric_and_arm(one.row),
            plain(one.over),
            both_lifts_cell(one.row),
            adjusted_cell(one.row),
            p_cell(one.row.p_adjusted),
            Cell(stated(one.row.words, c.metrics[one.row.metric].higher_is_better)),
        )
        for one in c.pairs
    ]
    ends = f"{share(c.choices.level)} interval"
    heads = columns("Metric", "Arm", "Over", "Lift", ends, "Adjusted p", "Verdict", text=3)
    table = Table("Every pair of arms", heads, rows, id="pairs-table")
    return Section("pairs", "Every pair of arms", [Words(note, note=True), table], "Pairs")


def by_day(c: Content) -> Section | None:
    """The day x arm table that papers print."""
    rows = [(*metric_and_arm(row), *_figures_of(row)) for row in c.lifts if row.unit == "day"]
    days = c.size.days
    if not rows or days is None or c.unit == "day":
        return None
    note = (
        f"The unit is a day, paired across arms, with t({days - 1}): the kind of table that the"
        f" paper prints. {errors_by_day(c.audit, c.paired)} The verdict rests on the users."
    )
    heads = [c.control, *FIGURES]
    table = Table(
        "By day, as in the paper", columns("Metric", "Arm", *heads, text=2), rows, id="paper-table"
    )
    return Section(
        "paper", "By day, as in the paper", [Words(note, note=True), table], "As in the paper"
    )


def otherwise(c: Content) -> Section | None:
    """Whether the verdict hangs on the method: p of each, and the lifts and intervals of each."""
    if not c.otherwise:
        return None
    tested = list(dict.fromkeys(row.method for row in c.otherwise if is_defined(row.p)))
    p = {(row.metric, row.arm, row.method): row.p for row in c.otherwise}
    pairs = list(dict.fromkeys((row.metric, row.arm) for row in c.otherwise))
    rows = [
        (
            plain(title(metric)),
            plain(arm),
            *(p_cell(p.get((metric, arm, method))) for method in tested),
        )
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
            *metric_and_arm(row),
            plain(row.method),
            lift_cell(row),
            interval_cell(row),
            p_cell(row.p),
            plain(row.note),
        )
        for row in c.otherwise
    ]
    level = share(c.choices.level)
    every = Table(
        "Lift by each method",
        [
            *columns("Metric", "Arm", "Method", "Lift", f"{level} interval", "p", text=3),
            Column("Note"),
        ],
        lifts,
    )
    blocks = [
        Table(
            "Computed otherwise",
            columns("Metric", "Arm", *tested, text=2),
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


def preference(c: Content) -> Section | None:
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
        counts = (numeric(whole, n) for n in (row.preferring, row.against, row.tied))
        shares = (
            numeric(percent, wins.value, 1, False),
            plain(interval(wins.low, wins.high, 1, sign=False)),
        )
        tests = (
            p_cell(row.p_sign),
            numeric(number, row.t),
            numeric(number, row.df),
            p_cell(row.p),
        )
        rows.append(
            (*metric_and_arm(row), *counts, *shares, numeric(percent, row.share, 1), *tests)
        )
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
        columns("Metric", "Arm", *heads, text=2),
        rows,
        caption=caption,
        id="preference",
    )
    return Section("preferred", "Preference within slates", [table], "Preference")
