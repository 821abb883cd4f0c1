"""A bias of designs as a document: the page, its Markdown, what the terminal shows, its figure.
Every number comes from the result.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from markupsafe import Markup

from simulator.log.files import csv_text
from simulator.page import saved
from simulator.page.blocks import (
    Block,
    Cell,
    Document,
    Facts,
    Fold,
    Heading,
    Multiples,
    Points,
    Prose,
    Section,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.figures import (
    Line,
    Scale,
    Whiskers,
    around,
    forest,
    forest_height,
    percents,
    picture,
    strip,
)
from simulator.page.words import detects, interval, listed, percent
from simulator.report.stored import encode
from simulator.surface.bias import ARRANGEMENTS, GLOBAL, BiasResult, BiasRun, DesignBias

WIDTH = 620
"""Of the figure as a file, px."""
NAMES = 30.0
"""Percent of the figure's width that the names take."""

HOW_TO_READ = Prose(
    "The global effect is what a launch would bring: everybody lives with the treatment, which"
    " learns from all of them, and again with the control. A design's lift is that of its test,"
    " less the luck of who is in which arm: what its users would have done in the global runs is"
    " known, and taken off. The intervals hold users, their random numbers and the"
    " repetitions (other fits, another assignment), and no other world. docs/bias.md says more."
)


def document(one: BiasResult) -> Document:
    """The page: the answer, every design, the runs."""
    title = f"What would a test have reported? {one.scenario}"
    about = (
        f"Lift of {one.metric} of {one.arm} over {one.control} in {one.days} days, by the way the"
        f" test is made; {one.fits} repetitions."
    )
    learns = {
        "daily": "both arms are fitted anew at the end of each day",
        "never": "nobody learns in the test (--refit never)",
    }
    facts = Facts(
        [
            (GLOBAL, f"{percent(one.lift, 2)} ({interval(one.low, one.high, 2)})"),
            ("learning", learns[one.refit]),
            ("repetitions", str(one.fits)),
        ]
    )
    left_out = [d for d in one.designs if d.left_out]
    blocks: list[Block] = [
        Heading(answer(one), loud=True),
        Multiples([("Bias of the reported lift", figure(one))]),
        _designs(one),
        Points([("", f"{name}: {how.words}.") for name, how in ARRANGEMENTS.items()]),
        *(Words(f"{d.design}: left out, because {d.left_out}.", note=True) for d in left_out),
    ]
    sections = [
        Section("designs", "Designs", blocks, "Designs"),
        Section("runs", "Runs", [Fold("Every run", [_runs(one)], screen=True)], "Runs"),
    ]
    return Document(title, "abtest bias", title, about, facts, (), sections, HOW_TO_READ)


def answer(one: BiasResult) -> str:
    """Which designs are off, which way, and which are not shown to be."""
    ran = [d for d in one.designs if not d.left_out]
    said = [f"{one.metric} of {one.arm} over {one.control}: {percent(one.lift, 1)} for everybody"]
    biased = [f"{d.design} {percent(d.bias, 1)}" for d in ran if d.is_biased]
    exact = [d.design for d in ran if d.low == d.high == 0.0]
    others = [d.design for d in ran if not d.is_biased and d.design not in exact]
    if biased:
        said.append(f"biased: {listed(biased)} (points of lift)")
    if exact:
        said.append(f"exactly unbiased: {listed(exact)}")
    if others:
        said.append(f"no bias is shown of {listed(others)}")
    return f"{'; '.join(said)}."


def _tone(design: DesignBias) -> str:
    return "bad" if design.is_biased else "open"


def figure(one: BiasResult) -> Markup:
    """The bias of each design with its interval, about 0."""
    ran = [d for d in one.designs if not d.left_out]
    scale = around([0.0, *(end for d in ran for end in (d.low, d.high))], NAMES, 90.0)
    lines = [Line(d.design, _strip(d, scale), percent(d.bias, 1)) for d in ran]
    return forest(lines, scale, percents, answer(one))


def _strip(design: DesignBias, scale: Scale) -> Markup:
    label = f"{design.design}: bias {_with_ends(design)}"
    drawn = Whiskers(design.bias, design.low, design.high)
    return strip(drawn, scale, _tone(design), label, height=18)


def _with_ends(design: DesignBias) -> str:
    return f"{percent(design.bias, 2)} ({interval(design.low, design.high, 2)})"


def _designs(one: BiasResult) -> Table:
    truth = plain(interval(one.low, one.high, 2))
    rows = [
        (
            plain(GLOBAL),
            Cell(percent(one.lift, 2), one.lift),
            plain(""),
            truth,
            plain(""),
            plain(""),
        )
    ]
    for design in one.designs:
        if design.left_out:
            continue
        rows.append(
            (
                plain(design.design),
                Cell(percent(design.lift, 2), design.lift),
                Cell(percent(design.bias, 2), design.bias, kind=_tone(design)),
                plain(interval(design.low, design.high, 2)),
                Cell(detects(design.half_width), design.half_width),
                plain(f"{design.held} of {one.fits}", design.held),
            )
        )
    heads = ("Design", "Lift", "Bias", "95% interval", "One test", "Holds the effect")
    caption = (
        "Bias in points of lift, with its 95% interval (of the global effect: its own). One test:"
        " half the width of the interval that a single test prints. Holds the effect: tests whose"
        " interval has the global effect in it."
    )
    return Table("Designs", columns(*heads), rows, caption)


def _runs(one: BiasResult) -> Table:
    rows = [
        (
            plain(run.fit + 1, run.fit),
            plain(run.design),
            Cell(percent(run.lift, 2), run.lift),
            plain(interval(run.low, run.high, 2)),
            Cell(percent(run.lift_of_twins, 2), run.lift_of_twins),
        )
        for run in one.runs
    ]
    heads = columns("Repetition", "Design", "Reported", "95% interval", "Less luck", text=2)
    return Table("Runs", heads, rows)


def save(one: BiasResult, folder: Path) -> Path:
    """Write bias.json, .md, .svg, .html and runs.csv; returns the page."""
    ran = [d for d in one.designs if not d.left_out]
    title = f"Bias of the lift of {one.metric}, {one.arm} over {one.control}"
    drawn = picture([(title, figure(one))], 1, (WIDTH, forest_height(len(ran))), answer(one))
    names = [field.name for field in fields(BiasRun)]
    runs = ([getattr(run, name) for name in names] for run in one.runs)
    content = {**encode(one), "answer": answer(one)}
    more = {"bias.svg": drawn + "\n", "runs.csv": csv_text([names, *runs])}
    return saved.save(folder, "bias", content, document(one), more)
