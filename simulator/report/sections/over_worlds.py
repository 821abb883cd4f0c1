"""What is said over drawn worlds: whether a lift holds in another draw of the world, and which
parameter it depends on.
"""

from __future__ import annotations

from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Multiples,
    Points,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import interval, number, percent
from simulator.report import plots
from simulator.report.content import Content, DrawnWorlds
from simulator.report.drawn import flips, have_one_seed
from simulator.report.sections.cells import interval_cell, lift_cell, metric_and_arm, p_cell
from simulator.report.sentences import SIGNS, tone


def worlds(c: Content) -> Section | None:
    """The verdict over drawn worlds beside that of the scenario's own, and its ranking."""
    drawn = c.drawn
    if drawn is None or not drawn.rows:
        return None
    if have_one_seed(drawn.names, c.settings):
        whose = "all with the same catalogue and users, whose noise they share"
        shorter = "more users take no more than this noise from it"
    else:
        whose = "each with a seed, a catalogue and users of its own"
        shorter = "more users do not make it shorter"
    text = (
        f"{len(drawn.names)} draws of what this world may be, {whose}. Over worlds: the 95%"
        f" interval of the lift in one more world, such as the real one; {shorter}. Higher"
        " in: the share of worlds in which the true lift is above 0, its noise within worlds"
        " left out, with its 95% interval. Share of worlds: of the variance of a lift in one more"
        " world, the part that worlds bring."
    )
    blocks: list[Block] = [
        Words(text, note=True),
        _over(c, drawn),
        Points([("→", sentence) for sentence in flips(drawn)]),
        *_ranking(drawn),
    ]
    return Section("drawn", "Over drawn worlds", blocks, "Drawn worlds")


def _over(c: Content, drawn: DrawnWorlds) -> Table:
    strips, axis = plots.over_worlds(c, drawn)
    own = {(row.metric, row.arm): row for row, _ in c.decided()}
    rows = []
    for row, strip in zip(drawn.rows, strips, strict=True):
        kind = tone(row.words, c.metrics[row.metric].higher_is_better)
        share = f"{percent(row.up_low, 0, False)} to {percent(row.up_high, 0, False)}"
        rows.append(
            (
                *metric_and_arm(row),
                lift_cell(own[row.metric, row.arm]),
                interval_cell(own[row.metric, row.arm]),
                Cell(interval(row.low, row.high), sign=SIGNS[row.words], kind=kind),
                Cell(figure=strip),
                numeric(percent, row.up, 0, False, under=share),
                numeric(percent, row.share_of_worlds, 0, False),
                plain(str(row.n_worlds)),
            )
        )
    heads = [
        *columns("Metric", "Arm", "Lift here", "95% interval here", text=2),
        Column("Over worlds", number=True, sorts=False),
        Column("Forest plot", figure=True, sorts=False),
        *columns("Higher in", "Share of worlds", "Worlds", text=0),
    ]
    return Table("Lifts over drawn worlds", heads, rows, kind="forest", foot=axis)


def _ranking(drawn: DrawnWorlds) -> list[Block]:
    """Which parameter a lift depends on, and the pictures of those that are shown to matter."""
    if not drawn.influences:
        return []
    rows = [
        (
            *metric_and_arm(row),
            plain(row.parameter),
            numeric(
                percent,
                row.share,
                0,
                False,
                kind="" if row.is_shown else "open",
                under=f"{percent(row.low, 0, False)} to {percent(row.high, 0, False)}",
            ),
            p_cell(row.p_adjusted),
            plain(f"{percent(row.at_low)} at {number(row.smaller)}"),
            plain(f"{percent(row.at_high)} at {number(row.greater)}"),
            numeric(number, row.flip),
        )
        for row in drawn.influences
    ]
    heads = columns(
        "Metric",
        "Arm",
        "Parameter",
        "Share",
        "Adjusted p",
        "Lift where small",
        "Lift where great",
        "0 at",
        text=3,
    )
    note = (
        "Share: of the variance of the lift between worlds, the part that goes with the parameter"
        " (first-order index), with its 95% interval; adjusted p: Holm over all parameters of all"
        " lifts. Small and great: a tenth of the worlds have smaller, a tenth greater values."
    )
    table: list[Block] = [Words(note, note=True), Table("Parameters of the world", heads, rows)]
    pictures = plots.against_parameters(drawn)
    ranking = Fold("Which parameter the lifts depend on", table)
    return [Multiples(pictures), ranking] if pictures else [ranking]
