"""The supply side: what of the catalogue each arm shows, and how evenly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan

from simulator.page import figures, words
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
from simulator.page.words import listed, number, percent, title, whole
from simulator.report.content import Content, Supply
from simulator.report.sections.cells import adjusted_cell, lift_cell, metric_and_arm, p_cell
from simulator.report.sentences import MEANINGS, SIGNS, adjusted_interval, stated, tone
from simulator.stats.supply import Level
from simulator.stats.verdict import Lift


def supply(c: Content) -> Section | None:
    if c.supply is None:
        return None
    side = c.supply
    if side.unknown is not None:
        return Section("supply", "Supply side", [Words(f"Not known: {side.unknown}.")], "Supply")
    blocks: list[Block] = [Points([("", sentence) for sentence in sentences(c)]), *_tables(c)]
    if side.methods:
        blocks.append(Fold("Of the methods", [_methods(side)]))
    if side.most_shown:
        blocks.append(Fold("Most shown items", [_most_shown(side)]))
    blocks += [Words(text, note=True) for text in _notes(c)]
    return Section("supply", "Supply side", blocks, "Supply")


def catalogue_shown(c: Content) -> list[str]:
    """What share of the catalogue each arm shows, in a line; [] where it is not known."""
    if c.supply is None or c.supply.unknown is not None:
        return []
    levels = {(level.metric, level.arm): level for level in c.supply.levels}
    of_catalogue = [percent(levels["items_shown", arm].value, 0, False) for arm in c.arms]
    first = f"{c.control} shows {of_catalogue[0]} of the catalogue"
    others = [f"{arm} {share}" for arm, share in zip(c.arms[1:], of_catalogue[1:], strict=True)]
    return [f"{listed([first, *others])}."]


def sentences(c: Content) -> list[str]:
    """What each arm does to the supply side beside the control, a line each."""
    side = c.supply
    if side is None or side.unknown is not None:
        return []
    lines = catalogue_shown(c)
    for arm in c.arms[1:]:
        told: dict[str, list[str]] = {"better": [], "worse": []}
        for row in side.rows:
            kind = tone(row.words, side.metrics[row.metric].higher_is_better)
            if row.arm == arm and kind in ("good", "bad"):
                name = f"{title(row.metric).lower()} ({percent(row.lift, 1)})"
                told["better" if kind == "good" else "worse"].append(name)
        parts = [f"{how} on {listed(names)}" for how, names in told.items() if names]
        shown = "; ".join(parts) or "no difference is shown"
        lines.append(f"{arm} against {c.control}: {shown}.")
    return lines


def _tables(c: Content) -> Iterable[Block]:
    """Shown, and clicked: every arm with its own value, the treatments with their lifts."""
    side = c.supply
    assert side is not None
    lifts = {(row.metric, row.arm): row for row in side.rows}
    scale = figures.around_zero(_whiskers(row) for row in side.rows)
    heads = [
        *columns("Metric", "Arm", text=2),
        Column("Value", number=True),
        Column("Lift", number=True),
        Column("Forest plot", figure=True, sorts=False),
        Column(f"{words.share(c.choices.level)} interval", number=True, sorts=False),
        Column("Adjusted p", number=True, label="adjusted p"),
        Column("Verdict"),
    ]
    for name, is_click in (("Shown", False), ("Clicked", True)):
        lines = [
            _line(side, level, lifts.get((level.metric, level.arm)), scale)
            for level in side.levels
            if ("click" in level.metric) == is_click
        ]
        if lines:
            yield Table(name, heads, lines, caption=name, kind="forest", foot=figures.axis(scale))


def _line(side: Supply, level: Level, row: Lift | None, scale: figures.Scale) -> Sequence[Cell]:
    """An arm's own value with its interval and, of a treatment, its lift."""
    value = Cell(
        number(level.value),
        level.value,
        under=f"{number(level.low)} to {number(level.high)}",
        hint=side.metrics[level.metric].description,
    )
    first = (*metric_and_arm(level), value)
    if row is None:
        return (*first, plain(""), plain(""), plain(""), plain(""), plain("control"))
    direction = side.metrics[row.metric].higher_is_better
    kind = tone(row.words, direction)
    lift = _whiskers(row)
    label = words.typeset(figures.describe(row.metric, row.arm, lift))
    verdict = Cell(
        stated(row.words, direction),
        kind=f"verdict {kind}",
        sign=SIGNS[row.words],
        hint=MEANINGS[row.words],
    )
    return (
        *first,
        lift_cell(row, kind=f"lift {kind}"),
        Cell(figure=figures.strip(lift, scale, kind, label)),
        adjusted_cell(row),
        p_cell(row.p_adjusted),
        verdict,
    )


def _most_shown(side: Supply) -> Table:
    """The items that each arm shows most."""
    heads = columns("Arm", "Item", "Impressions", "Share", "Click rate", text=2)
    rows = [
        (
            plain(one.arm),
            plain(one.id or str(one.item)),
            numeric(whole, one.impressions),
            numeric(percent, one.share, 2, False),
            numeric(percent, one.click_rate, 1, False),
        )
        for one in side.most_shown
    ]
    return Table("The items that each arm shows most", heads, rows)


def _whiskers(row: Lift) -> figures.Whiskers:
    if row.n_units == 0:
        return figures.Whiskers(nan, nan, nan)
    return figures.Whiskers(row.lift, row.low_adjusted, row.high_adjusted)


def _methods(side: Supply) -> Table:
    """The lifts of the methods: another training is within the interval, too."""
    heads = columns("Metric", "Arm", "Lift", "The methods", "Adjusted p", "Share of fits", text=2)
    lines = []
    for one in side.methods:
        row = one.lift
        direction = side.metrics[row.metric].higher_is_better
        ends = Cell(
            adjusted_interval(row),
            sign=SIGNS[row.words],
            kind=tone(row.words, direction),
            hint=stated(row.words, direction),
        )
        share = numeric(percent, one.components.share_of_fits, 0, False)
        lines.append((*metric_and_arm(row), lift_cell(row), ends, p_cell(row.p_adjusted), share))
    return Table("The supply side of the methods", [*heads], lines)


def _notes(c: Content) -> Iterable[str]:
    side = c.supply
    assert side is not None
    unit = "item" if side.authors is None else "author"
    whose = f"{whole(side.items)} items"
    if side.authors is not None:
        whose += f" of {whole(side.authors)} authors"
    counted = next(iter(side.users.values()), 0)
    law = ""
    if c.choices.correction == "dunnett":
        law = f" by their joint law, that of {unit}s who are drawn for all rows together"
    yield (
        f"A catalogue of {whose}. Counted over {whole(counted)} users in every arm, since what is"
        f" shown grows with who looks. The intervals draw {unit}s with replacement, each with"
        " all of its items, which holds what other users would have changed, too."
        " A Gini coefficient is 0 where all get as much, 1 where one gets"
        f" all. p: of metrics without a role over all {sum(row.p == row.p for row in side.rows)}"
        f" rows of the supply side{law}; a metric with a role is corrected with the users' metrics"
        " of like roles."
    )
    reasons: dict[str, list[str]] = {}
    for name, reason in side.absent.items():
        reasons.setdefault(reason, []).append(title(name).lower())
    for reason, names in reasons.items():
        yield f"Not told: {listed(names)}: {reason}."
