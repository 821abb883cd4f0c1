"""A map as a document: the page, its Markdown, what the terminal shows, its figure and its runs as
files of their own. Every number comes from the map.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

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
    Prose,
    Section,
    Table,
    columns,
    plain,
)
from simulator.page.figures import picture
from simulator.page.maps import CURVE, Dot, Tile, curve, heat_height, heat_map
from simulator.page.words import interval, listed, percent
from simulator.report.stored import encode
from simulator.surface.axes import Axis, named
from simulator.surface.mapping import SIGNS, LiftMap, MapCell, Sign

TONES: dict[Sign, Any] = {"higher": "good", "lower": "bad", "undecided": "open"}
"""The colour class of a sign."""

WIDTH = 620
"""Of the figure as a file, px."""


def document(one: LiftMap) -> Document:
    """The page of a map: the answer, the surface, the runs."""
    title = f"Where does it win? {one.scenario}"
    level = percent(one.level, 0, sign=False)
    about = (
        f"Lift of {one.metric} of {one.arm} over {one.control}, over"
        f" {listed([axis.key for axis in one.axes])}; the {level} band holds it at all cells at"
        " once."
    )
    facts = Facts(
        [
            ("runs", f"{len(one.runs)}, dealt over {one.seeds} seeds"),
            ("cells", " x ".join(str(len(axis.values)) for axis in one.axes)),
            ("between seeds", f"{percent(one.between_seeds, 2, sign=False)} of lift"),
        ]
    )
    figures: list[Block] = [
        Heading(answer(one), loud=True),
        Multiples([(f"Lift of {one.metric}", figure(one))]),
        *([_regions(one)] if len(one.axes) == 2 else []),
        Fold("Every cell", [_cells(one)], screen=True),
    ]
    sections = [
        Section("surface", "The lift as a surface", figures, "Surface"),
        Section("runs", "Runs", [_runs(one)], "Runs"),
    ]
    return Document(title, "abtest map", title, about, facts, (), sections, NOTE)


NOTE = Prose(
    "Each run is a world of its own seed, so runs of one cell differ by more than their standard"
    " errors: by other videos, other users, other fits (`between seeds`, estimated from all runs)."
    " The surface is a Gaussian process with a Matern 5/2 covariance, its hyper-parameters"
    " integrated over a grid; a sign is decided where the band, which holds the surface at all"
    " cells at once, leaves out 0. Runs were placed one after another where they leave the fewest"
    " signs undecided. docs/map.md says more."
)


def answer(one: LiftMap) -> str:
    """Where the arm is higher, where it is lower, and how much is not decided."""
    subject = f"{one.arm} against {one.control}, {one.metric}"
    of = "range" if len(one.axes) == 1 else "area"
    said = []
    for sign in SIGNS:
        share, word = one.share(sign), "not decided" if sign == "undecided" else sign
        if not share:
            said.append(f"{word} nowhere")
        elif len(one.axes) == 2:
            said.append(f"{word} on {percent(share, 0, sign=False)} of the {of}")
        else:
            where = listed(list(_stretches(one.axes[0], one.cells, sign)))
            said.append(f"{word} on {percent(share, 0, sign=False)} of the {of} ({where})")
    best = max(one.cells, key=lambda cell: cell.lift)
    worst = min(one.cells, key=lambda cell: cell.lift)
    return (
        f"{subject}: {'; '.join(said)}. Highest at {_at(one, best)}, lowest at {_at(one, worst)}."
    )


def _at(one: LiftMap, cell: MapCell) -> str:
    return (
        f"{_place(one, cell.values)}: {percent(cell.lift, 1)} ({interval(cell.low, cell.high, 1)})"
    )


def _place(one: LiftMap, values: Sequence[Any]) -> str:
    """`users.drift.renewal 0.1, users.interests.per_user 4`."""
    pairs = zip(one.axes, values, strict=True)
    return ", ".join(f"{axis.key} {named(value)}" for axis, value in pairs)


def _stretches(axis: Axis, cells: Sequence[MapCell], sign: Sign) -> Iterator[str]:
    """The stretches of an axis on which cells have a sign, in words."""
    for has, group in groupby(range(len(cells)), key=lambda i: cells[i].sign == sign):
        places = list(group)
        first, last = axis.named(places[0]), axis.named(places[-1])
        if has:
            yield first if len(places) == 1 else f"{first} to {last}"


def figure(one: LiftMap) -> Markup:
    """The heat map, or the curve with its band."""
    runs = Counter(_key(run.values) for run in one.runs)
    tiles = []
    for cell in one.cells:
        n = runs[_key(cell.values)]
        tip = f"{_at(one, cell)}, {cell.sign}, runs here: {n}"
        tiles.append(Tile(cell.lift, cell.low, cell.high, TONES[cell.sign], n, tip))
    across = [named(value) for value in one.axes[0].values]
    if len(one.axes) == 2:
        up = [named(value) for value in one.axes[1].values]
        rows = [tiles[j :: len(up)] for j in range(len(up))]
        return heat_map(rows, across, up, (one.axes[0].key, one.axes[1].key), answer(one))
    places = {_key((value,)): i for i, value in enumerate(one.axes[0].values)}
    dots = []
    for run in one.runs:
        reach = 1.96 * run.error
        low, high = run.lift - reach, run.lift + reach
        tip = f"seed {run.seed}: {percent(run.lift, 1)} ({interval(low, high, 1)})"
        dots.append(Dot(places[_key(run.values)], low, run.lift, high, tip))
    return curve(tiles, dots, across, answer(one))


def _key(values: Sequence[Any]) -> str:
    return json.dumps(values)


def _regions(one: LiftMap) -> Table:
    """For each value of the second axis, the stretches of the first with either sign."""
    first, second = one.axes
    rows = []
    for j in range(len(second.values)):
        cells = one.cells[j :: len(second.values)]
        words = ["; ".join(_stretches(first, cells, sign)) or "nowhere" for sign in SIGNS]
        rows.append((plain(second.named(j), j), *map(plain, words)))
    heads = columns(second.key, *(f"{first.key}: {word}" for word in SIGNS), text=4)
    return Table("Where the sign is decided", heads, rows)


def _cells(one: LiftMap) -> Table:
    rows = [
        (
            *map(plain, map(named, cell.values)),
            Cell(percent(cell.lift, 2), cell.lift),
            plain(interval(cell.low, cell.high, 2)),
            Cell(cell.sign, kind=TONES[cell.sign]),
        )
        for cell in one.cells
    ]
    heads = [axis.key for axis in one.axes]
    n = len(heads)
    return Table("Cells", columns(*heads, "Lift", "Band", "Sign", text=n), rows)


def _runs(one: LiftMap) -> Table:
    rows = [
        (
            plain(i, i),
            *map(plain, map(named, run.values)),
            plain(run.seed, run.seed),
            Cell(percent(run.lift, 2), run.lift),
            Cell(percent(run.error, 2, sign=False), run.error),
        )
        for i, run in enumerate(one.runs, 1)
    ]
    heads = [axis.key for axis in one.axes]
    return Table("Runs", columns("Run", *heads, "Seed", "Lift", "Standard error", text=1), rows)


def save(one: LiftMap, folder: Path) -> Path:
    """Write map.json, .md, .svg, .html and points.csv; returns the page."""
    height = heat_height(len(one.axes[1].values)) if len(one.axes) == 2 else CURVE
    plots = [(f"Lift of {one.metric}, {one.arm} over {one.control}", figure(one))]
    shares = {sign: one.share(sign) for sign in SIGNS}
    content = {**encode(one), "shares": shares, "answer": answer(one)}
    svg = picture(plots, 1, (WIDTH, height), answer(one)) + "\n"
    more = {"map.svg": svg, "points.csv": csv_text(_rows(one))}
    return saved.save(folder, "map", content, document(one), more)


def _rows(one: LiftMap) -> Iterator[Sequence[Any]]:
    """The runs, below their heads."""
    yield ["run", *(axis.key for axis in one.axes), "seed", "lift", "error"]
    for i, run in enumerate(one.runs, 1):
        values = [v if isinstance(v, str) else json.dumps(v) for v in run.values]
        yield [i, *values, run.seed, run.lift, run.error]
