"""The cells and columns that sections of a report share."""

from __future__ import annotations

from typing import Any, Protocol

from simulator.page.blocks import Cell, Legend, numeric, plain
from simulator.page.words import interval, is_defined, number, percent, probability, title
from simulator.report.content import Content
from simulator.report.sentences import adjusted_interval
from simulator.stats.verdict import Lift


class HasLift(Protocol):
    @property
    def lift(self) -> float | None: ...


class HasInterval(HasLift, Protocol):
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


class OfArm(Protocol):
    @property
    def metric(self) -> str: ...
    @property
    def arm(self) -> str: ...


def lift_cell(row: HasLift, **more: Any) -> Cell:
    return numeric(percent, row.lift, **more)


def both_lifts_cell(row: Lift, **more: Any) -> Cell:
    """The relative lift above the absolute difference, in units of the metric."""
    under = number(row.difference) if is_defined(row.difference) else ""
    return lift_cell(row, under=under, **more)


def p_cell(p: float | None) -> Cell:
    return numeric(probability, p)


def interval_cell(row: HasInterval) -> Cell:
    return Cell(interval(row.low, row.high) if is_defined(row.lift) else "n/a")


def adjusted_cell(row: Lift) -> Cell:
    """The interval that goes with the verdict of a row, above that of the difference."""
    under = ""
    if is_defined(row.difference_low_adjusted):
        under = f"{number(row.difference_low_adjusted)} to {number(row.difference_high_adjusted)}"
    return Cell(adjusted_interval(row), under=under)


def metric_and_arm(row: OfArm) -> tuple[Cell, Cell]:
    return plain(title(row.metric)), plain(row.arm)


def legend(c: Content, first: int = 1) -> Legend:
    return Legend(list(enumerate(c.arms))[first:])
