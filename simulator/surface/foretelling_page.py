"""What early metrics foretell as a document: the page, its Markdown, what the terminal shows, its
figure. Every number comes from the result.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from simulator.log.files import csv_text
from simulator.page import figures, saved
from simulator.page.blocks import (
    Block,
    Cell,
    Document,
    Facts,
    Fold,
    Heading,
    Multiples,
    Prose,
    Section,
    Table,
    columns,
    plain,
)
from simulator.page.words import between, counted, percent, score, title, typeset
from simulator.report.stored import encode
from simulator.surface.foretelling import ITSELF, Foresight, Foretold

WIDTH = 620
"""Of the figure as a file, px."""

HOW_TO_READ = Prose(
    "A pair of policies is foretold where the early lift has the sign of the late one; tossing a"
    " coin agrees in half of the pairs. The rank correlation also asks whether the larger lift was"
    " the larger one. Policies are what is random in the intervals: one policy is left out at a"
    " time, with all its pairs, and one further policy may always be otherwise. The last row is the"
    " late lift of half of the users against that of the other half: no early figure can be asked"
    " to do better. It speaks of these policies in this world."
)


def document(one: Foretold) -> Document:
    """The page: the answer, every early figure, every pair."""
    heading = f"Which early metric foretells the lift of days {one.first} to {one.last}?"
    about = (
        f"{counted(one.pairs, 'pair')} of {one.policies} policies; the late lift is that of"
        f" {title(one.target).lower()} in days {one.first} to {one.last}."
    )
    facts = Facts(
        [("target", title(one.target)), ("runs", ", ".join(one.runs)), ("pairs", str(one.pairs))]
    )
    blocks: list[Block] = [
        Heading(answer(one), loud=True),
        Multiples(_figures(one)),
        _table(one),
    ]
    sections = [
        Section("early", "Early figures", blocks, "Figures"),
        Section("pairs", "Pairs", [Fold("Every pair", [_pairs(one)], screen=True)], "Pairs"),
    ]
    return Document(heading, "abtest foretell", heading, about, facts, (), sections, HOW_TO_READ)


def answer(one: Foretold) -> str:
    """The best early figure, what it foretells, and whether that is more than a coin does."""
    best = one.best_row
    is_better = best.agreement_low > 0.5
    sure = "better than a coin" if is_better else "not shown to be better than a coin"
    ceiling = one.rows[-1]
    return (
        f"{title(best.metric)} after day {best.day} foretells the late lift best: the same sign in"
        f" {percent(best.agreement, 0, False)} of pairs ({_ends(best)}), rank correlation"
        f" {score(best.rank)}; {sure}. Half of the users foretell the other half in"
        f" {percent(ceiling.agreement, 0, False)}."
    )


def _ends(row: Foresight) -> str:
    return between(row.agreement_low, row.agreement_high, lambda end: percent(end, 0, False))


def _name(row: Foresight) -> str:
    return "The late lift itself, other users" if row.metric == ITSELF else title(row.metric)


def _table(one: Foretold) -> Table:
    rows = []
    for row in one.rows:
        kind = "good" if row.agreement_low > 0.5 else "open"
        rows.append(
            (
                plain(_name(row)),
                plain(row.day),
                Cell(percent(row.agreement, 0, False), row.agreement, under=_ends(row), kind=kind),
                Cell(score(row.rank), row.rank, under=between(row.rank_low, row.rank_high, score)),
                plain(row.pairs),
            )
        )
    heads = ("Early metric", "After day", "Same sign", "Rank correlation", "Pairs")
    caption = "95% intervals over policies below each figure."
    return Table("Early figures", columns(*heads), rows, caption)


def _figures(one: Foretold) -> list[tuple[str, Markup]]:
    """The agreement by day, a line a metric; and the pairs by the best figure."""
    days = sorted({row.day for row in one.rows[:-1]})
    ranked = sorted(one.rows[:-1], key=lambda row: -row.agreement)
    drawn = list(dict.fromkeys(row.metric for row in ranked))[:6]
    series = []
    for i, metric in enumerate(drawn):
        points = [
            figures.Point(
                days.index(row.day),
                figures.Whiskers(row.agreement, row.agreement_low, row.agreement_high),
                typeset(
                    f"{title(metric)} after day {row.day}: the same sign in"
                    f" {percent(row.agreement, 0, False)} of pairs ({_ends(row)})"
                ),
            )
            for row in one.rows
            if row.metric == metric
        ]
        series.append(figures.Series(title(metric), i, points))
    names = [f"day {day}" for day in days]
    by_day = figures.over_steps(series, names, "Share of pairs with the same sign, by day")
    best = one.best_row
    spots = [
        figures.Spot(
            figures.Whiskers(pair.early, pair.early, pair.early),
            figures.Whiskers(pair.late, pair.late, pair.late),
            "",
            typeset(
                f"{pair.arm} over {pair.control}: early {percent(pair.early, 1)},"
                f" late {percent(pair.late, 1)}"
            ),
        )
        for pair in one.lifts
    ]
    what = f"Late lift against {title(best.metric).lower()} after day {best.day}"
    return [
        (f"Same sign: {', '.join(map(title, drawn))}", by_day),
        (what, figures.scatter(spots, what)),
    ]


def _pairs(one: Foretold) -> Table:
    best = one.best_row
    rows = [
        (
            plain(pair.run),
            plain(pair.arm),
            plain(pair.control),
            Cell(percent(pair.early, 2), pair.early),
            Cell(percent(pair.late, 2), pair.late),
        )
        for pair in one.lifts
    ]
    early = f"{title(best.metric)}, day {best.day}"
    heads = columns("Run", "Arm", "Over", early, f"{title(one.target)}, late", text=3)
    return Table("Pairs", heads, rows)


def save(one: Foretold, folder: Path) -> Path:
    """Write foretell.json, .md, .svg, .html and pairs.csv; returns the page."""
    size = WIDTH, figures.SERIES_HEIGHT + 30
    drawn = figures.picture(_figures(one), 1, size, answer(one))
    names = ("run", "arm", "control", "early", "late")
    pairs = ([getattr(pair, name) for name in names] for pair in one.lifts)
    content = {**encode(one), "answer": answer(one)}
    more = {"foretell.svg": drawn + "\n", "pairs.csv": csv_text([names, *pairs])}
    return saved.save(folder, "foretell", content, document(one), more)
