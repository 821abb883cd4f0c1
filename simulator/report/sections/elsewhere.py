"""What is said of the same arms elsewhere: in print, in other worlds, offline."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import interval, is_defined, number, percent, title, whole
from simulator.report.content import Across, AcrossWorlds, Content, DecidedLift
from simulator.report.sections.cells import HasInterval, interval_cell, lift_cell, metric_and_arm
from simulator.report.sentences import AGREEMENTS, SIGNS


def published_lifts(c: Content) -> Section | None:
    if not c.published:
        return None
    caption = (
        "Published lifts come from another system, its users and its days; a simulated world is not"
        " expected to repeat them."
    )
    answers = {True: "yes", False: "no", None: "n/a"}
    rows = []
    for row in c.published:
        lifts = (numeric(percent, row.published), lift_cell(row), interval_cell(row))
        needed = numeric(whole, row.users)
        rows.append((*metric_and_arm(row), *lifts, plain(answers[row.inside]), needed))
    heads = [
        *columns("Metric", "Arm", "Published", "Here", "95% interval", text=2),
        Column("Published within it"),
    ]
    table = Table(
        "Published figures",
        [*heads, Column("Users needed to show it", number=True)],
        rows,
        caption=caption,
        id="published-table",
    )
    return Section("published", "Published beside ours", [table], "Published")


def worlds(c: Content) -> Section | None:
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


def across(rows: Sequence[Across]) -> Table:
    """The lift of each arm and metric in each of several worlds or runs."""
    names = list(dict.fromkeys(name for row in rows for name in row.lifts))
    tones = {"same sign": "good", "opposite": "bad"}
    lines = []
    for row in rows:
        cells = [_signed(row.lifts.get(name)) for name in names]
        if isinstance(row, AcrossWorlds):
            cells.append(_with_interval(row.all))
        agreement = Cell(AGREEMENTS[row.agree], kind=tones.get(row.agree, "open"))
        lines.append((*metric_and_arm(row), *cells, agreement))
    over = ["Over all worlds"] if isinstance(rows[0], AcrossWorlds) else []
    return Table(
        "Lift by world or run",
        [*columns("Metric", "Arm", *names, *over, text=2), Column("Agreement")],
        lines,
        kind="across",
    )


def _with_interval(row: HasInterval | None) -> Cell:
    if row is None:
        return Cell("n/a", None)
    return lift_cell(row, under=interval(row.low, row.high))


def _signed(cell: DecidedLift | None) -> Cell:
    if cell is None or not is_defined(cell.lift):
        return Cell("n/a", None)
    return Cell(
        f"{SIGNS[cell.verdict]} {percent(cell.lift)}",
        cell.lift,
        under=interval(cell.low_adjusted, cell.high_adjusted),
    )


def offline(c: Content) -> Section | None:
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
                numeric(number, row.value),
                plain(f"{number(row.low)} to {number(row.high)}"),
                numeric(number, row.logged),
                numeric(percent, row.online),
                plain(
                    ": ".join(
                        part for part in (row.verdict or "n/a", "; ".join(row.reasons)) if part
                    )
                ),
            )
            for row in c.offline
        ]
        heads = columns(
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
                numeric(number, row.control),
                numeric(number, row.value),
                numeric(percent, row.online),
                numeric(number, row.rho),
                numeric(percent, row.ordered, 0, False),
            )
            for row in c.foretold
        ]
        heads = columns(
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
