"""A DataFrame of lifts that a notebook shows as a forest plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from simulator.page import figures
from simulator.page.blocks import Cell, Column, Document, Facts, Section, Table, numeric, plain
from simulator.page.html import framed
from simulator.page.words import detects, interval, percent, probability, title, typeset
from simulator.report.sentences import MEANINGS, SIGNS, UNTESTED, stated, tone


class Lifts(pd.DataFrame):
    """A DataFrame of lifts that a notebook shows as a forest plot. What is taken from it (rows,
    columns, sorted) is an ordinary DataFrame.
    """

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        """The lifts with their intervals, or pandas' own table where columns were taken away."""
        needed = {"metric", "arm", "lift", "low_adjusted", "high_adjusted", "p_adjusted", "verdict"}
        if not needed <= set(self.columns):
            plain_table: str = pd.DataFrame(self)._repr_html_()  # type: ignore[operator]
            return plain_table
        return framed(_document(self), 150 + 36 * len(self))


DIRECTIONS = "higher_is_better"
"""The attribute (`DataFrame.attrs`) that has, by metric, whether more of it is better."""


def lifts(rows: Mapping[str, list[Any]], directions: Mapping[str, bool | None]) -> Lifts:
    """A DataFrame of lifts; `directions`: by metric, whether higher values are better."""
    frame = Lifts(dict(rows))
    frame.attrs[DIRECTIONS] = dict(directions)
    return frame


def _document(frame: Lifts) -> Document:
    directions = frame.attrs.get(DIRECTIONS, {})
    rows: list[Any] = list(frame.itertuples(index=False))
    whiskers = [figures.Whiskers(row.lift, row.low_adjusted, row.high_adjusted) for row in rows]
    scale = figures.around_zero(whiskers)
    heads = [
        Column("Metric"),
        Column("Arm"),
        Column("Lift", number=True),
        Column("Forest plot", figure=True, sorts=False),
        Column("95% interval", number=True, sorts=False),
        Column("Adjusted p", number=True),
        Column("Verdict"),
        Column("Detects", number=True),
    ]
    lines = []
    for row, at in zip(rows, whiskers, strict=True):
        direction = directions.get(row.metric)
        kind = tone(row.verdict, direction)
        ends = interval(row.low_adjusted, row.high_adjusted)
        label = typeset(figures.describe(row.metric, row.arm, at))
        lines.append(
            (
                Cell(title(row.metric), sign=SIGNS[row.verdict], kind=kind),
                plain(row.arm),
                numeric(percent, row.lift, kind=kind),
                Cell(figure=figures.strip(at, scale, kind, label)),
                Cell("n/a" if row.verdict in UNTESTED else ends),
                numeric(probability, row.p_adjusted),
                Cell(stated(row.verdict, direction), kind=kind, hint=MEANINGS[row.verdict]),
                numeric(detects, row.mde),
            )
        )
    table = Table("Lifts", heads, lines)
    section = Section("lifts", "Lifts", [table], bare=True)
    return Document("Lifts", "", "", "", Facts([]), [], [section])
