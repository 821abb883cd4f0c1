"""The lift day by day, and what could have been said at the end of each."""

from __future__ import annotations

from simulator.page.blocks import (
    Block,
    Cell,
    Fold,
    Legend,
    Multiples,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import interval, is_defined, listed, number, share, title, whole
from simulator.report import plots
from simulator.report.content import Content
from simulator.report.sections.cells import interval_cell, legend, lift_cell, metric_and_arm, p_cell
from simulator.stats.sequential import Look, Rule


def daily(c: Content) -> Section | None:
    if not c.daily:
        return None
    note = (
        f"Each day alone, per user, with {share(c.choices.level)} intervals that are not adjusted"
        " for looking at several days. A lift that fades or grows is novelty or a learning effect."
    )
    figures = plots.daily(c)
    same = [
        title(name).lower() for name in c.metrics if name not in {metric for metric, _ in figures}
    ]
    rows = [
        (*metric_and_arm(row), plain(row.day + 1, row.day), numeric(number, row.control_mean),
         numeric(number, row.treatment_mean), lift_cell(row), interval_cell(row), p_cell(row.p),
         numeric(whole, row.n_units))
        for row in c.daily
        if is_defined(row.lift)
    ]  # fmt: skip
    ends = f"{share(c.choices.level)} interval"
    names = ("Metric", "Arm", "Day", c.control, "Arm's mean", "Lift", ends, "p", "Units")
    heads = columns(*names, text=2)
    blocks: list[Block] = [
        Words(note, note=True),
        *_signs(c),
        Multiples([(title(metric), figure) for metric, figure in figures], "Metric"),
    ]
    if same:
        blocks.append(Words(f"Without any difference on any day: {listed(same)}.", note=True))
    return Section(
        "days",
        "Lift by day",
        [*blocks, Fold("The same as a table", [Table("Lift by day", heads, rows)], screen=True)],
        "By day",
    )


def _signs(c: Content) -> list[Block]:
    """The legend of the figures, and which arms they leave to the tables."""
    drawn = len(plots.drawn_arms(c))
    signs = Legend(legend(c).arms[:drawn])
    if drawn == len(c.arms) - 1:
        return [signs]
    text = f"The figures show the first {drawn} of {len(c.arms) - 1} arms, the tables all."
    return [signs, Words(text, note=True)]


RULES: dict[Rule, str] = {
    "always_valid": "Always valid",
    "obrien_fleming": "O'Brien-Fleming",
    "pocock": "Pocock",
}
"""The stopping rules that are shown (fields of `sequential.Look`)."""


def so_far(c: Content) -> Section | None:
    if not c.sequential:
        return None
    level = c.choices.level
    note = (
        f"All days up to each day, with a {share(level)} confidence sequence: unlike an ordinary"
        " interval it may be looked at every day, and the whole of it covers the true lift in"
        f" {100 * level:.6g} of 100 runs."
        " It is wider; that is the price of peeking."
    )
    rows, looks = [], []
    for peek in c.sequential:
        last = peek.looks[-1]
        stops = (Cell(f"day {day}" if day else "not yet", day) for day in map(peek.stop, RULES))
        rows.append(
            (
                *metric_and_arm(peek),
                lift_cell(last),
                _sequence_cell(last),
                p_cell(last.p),
                *stops,
            )
        )
        for look in peek.looks:
            bounds = (look.always_valid, look.obrien_fleming, look.pocock)
            numbers = (numeric(number, value) for value in (look.t, *bounds))
            intervals = (interval_cell(look), _sequence_cell(look))
            looks.append(
                (
                    *metric_and_arm(peek),
                    numeric(str, look.day),
                    lift_cell(look),
                    *intervals,
                    p_cell(look.p),
                    *numbers,
                )
            )
    caption = (
        "The first day on which each rule, fixed beforehand, would have stopped with a difference"
        f" shown in that metric alone (level {share(1 - level)}, two-sided, a look every day)."
    )
    stopping = Table(
        "When one could have stopped",
        columns(
            "Metric",
            "Arm",
            "Lift at the end",
            "Confidence sequence",
            "Always-valid p",
            *RULES.values(),
            text=2,
        ),
        rows,
        caption=caption,
        id="stopping",
    )
    every = Table(
        "Every look",
        columns(
            "Metric",
            "Arm",
            "After day",
            "Lift so far",
            "Interval for one look",
            "Confidence sequence",
            "Always-valid p",
            "t",
            *(f"{rule}: stop beyond" for rule in RULES.values()),
            text=2,
        ),
        looks,
    )
    figures = Multiples([(title(metric), figure) for metric, figure in plots.so_far(c)], "Metric")
    blocks: list[Block] = [
        Words(note, note=True),
        *_signs(c),
        figures,
        stopping,
        Fold("Every day's look as a table", [every], screen=True),
    ]
    return Section("sequential", "Lift so far, and when one could have stopped", blocks, "So far")


def _sequence_cell(look: Look) -> Cell:
    """The confidence sequence of a look."""
    ends = interval(look.sequence_low, look.sequence_high)
    return Cell(ends if is_defined(look.lift) else "n/a")
