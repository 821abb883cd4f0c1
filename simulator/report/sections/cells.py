"""The cells and columns that sections of a report share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from simulator.page.blocks import Cell, Column, Legend, plain
from simulator.page.words import interval, is_defined, percent, probability, title
from simulator.report.content import Content


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


def number_cell(show: Callable[..., str], value: float | None, *how: Any, **more: Any) -> Cell:
    """A number as `show` writes it, sorted by its value."""
    finite = value if is_defined(value) else None
    return Cell(show(finite, *how), finite, **more)


def lift_cell(row: HasLift, **more: Any) -> Cell:
    return number_cell(percent, row.lift, **more)


def p_cell(p: float | None) -> Cell:
    return number_cell(probability, p)


def interval_cell(row: HasInterval) -> Cell:
    return Cell(interval(row.low, row.high) if is_defined(row.lift) else "n/a")


def columns_of(*heads: str, text: int = 2) -> list[Column]:
    """Columns of which the first few are text and the others numbers."""
    return [Column(head, number=i >= text) for i, head in enumerate(heads)]


def metric_and_arm(row: OfArm) -> tuple[Cell, Cell]:
    return plain(title(row.metric)), plain(row.arm)


def legend(c: Content, first: int = 1) -> Legend:
    return Legend(list(enumerate(c.arms))[first:])
