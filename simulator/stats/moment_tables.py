"""A table of moments: its rows read, checked against what cannot be, and put in their places by
arm, look and cell. What the columns of a row hold is in `moment_sheets`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.log.metrics import Better, MetricRole, declarations, declared
from simulator.stats.aggregates import Aggregates, CellMoments, shares_of
from simulator.stats.frames import (
    BEFORE,
    LARGEST,
    SMALLEST,
    Columns,
    asked_columns,
    metric_of,
    named_as_other,
)
from simulator.stats.moments import Floats
from simulator.stats.quantities import Quantity
from simulator.stats.readings import UnreadableError, read_numbers
from simulator.stats.rows import BLANK, Rows, labels
from simulator.stats.unit_table import TableError, Use

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

COUNTS = ("n", "users", "count")
"""Names of the column of users."""

LOOK = "day"
"""The column of looks where none is named."""

FEW_DIGITS = 1e-10
"""A variance that is so small a part of its sum of squares has lost ten of sixteen digits."""

SLACK = 1e-9
"""Relative rounding that a bound is given: exports are printed with some ten digits at least."""


class Sheet(ABC):
    """A table of moments: its rows are read, checked, and put in their places."""

    def __init__(
        self, rows: Rows, arm: str, look: str | None, groups: Iterable[str] | None, *fixed: str
    ) -> None:
        self.rows = rows
        self.uses: dict[str, Use] = {arm: Use(arm, "arm")}
        self.arm_of, self.arms = self._coded(arm, "every row must be of an arm")
        if len(self.arms) < 2:
            raise TableError(
                f"column {arm!r} has the arms {list(self.arms)}: a comparison needs at least two"
            )
        self.look_of, self.looks, self.shares = self._in_time(look)
        self.count = next(name for name in COUNTS if name in rows.columns)
        self.uses[self.count] = Use(self.count, "count")
        self.segments = self._segments(groups, {arm, look or LOOK, self.count, *fixed})
        self.n = self._numbers(self.count)
        self.row_of = np.arange(len(self.n))[:, None]
        self._hold(
            self.count,
            (self.n >= 0) & (self.n == np.floor(self.n)),
            "users are a whole number, 0 or more",
        )

    # What is read

    def _coded(self, column: str, rule: str) -> tuple[Array, tuple[str, ...]]:
        coded = labels(self.rows, column)
        missing = np.flatnonzero(coded.codes < 0)
        if len(missing):
            where = self.rows.place(int(missing[0]))
            raise TableError(f"{where}: column {column!r} has no value; {rule}")
        return coded.codes, coded.names

    def _in_time(self, asked: str | None) -> tuple[Array, tuple[str, ...], Floats]:
        """The look of each row, and the looks in order with their shares of the test.

        Raises:
            TableError: the column that is asked for is not there, or holds no looks.
        """
        column = LOOK if asked is None else asked
        if asked is None and column not in self.rows.columns:
            return np.zeros(len(self.arm_of), dtype=np.int64), ("",), np.ones(1)
        codes, names = self._coded(column, "every row must be of a look")
        times = _times(column, names)
        order = np.argsort(times, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        ordered = tuple(names[i] for i in order)
        self.uses[column] = Use(
            column, "look", f"{len(order)} looks, from {ordered[0]} to {ordered[-1]}"
        )
        return place[codes], ordered, shares_of(times[order])

    def _segments(self, groups: Iterable[str] | None, taken: set[str]) -> dict[str, Array]:
        found = {}
        for column in self.rows.columns if groups is None else groups:
            if groups is not None and column in taken:
                raise TableError(named_as_other(column, "segment", "arms, looks or numbers"))
            if column in taken or (groups is None and self._is_number(column)):
                continue
            coded = labels(self.rows, column)
            if groups is None and _are_dates(coded.names):
                raise TableError(
                    f"column {column!r} holds dates, such as {coded.names[0]!r}, and is not named:"
                    f" is it that of looks (--day {column}), or a segment (--segment {column})?"
                )
            names = np.array([*coded.names, BLANK], dtype=object)
            found[column] = names[coded.codes]
            self.uses[column] = Use(column, "segment", f"{len(set(found[column]))} levels")
        return found

    def _is_number(self, column: str) -> bool:
        try:
            return read_numbers(self.rows.cells(column)) is not None
        except UnreadableError:
            return True

    def _numbers(self, column: str, *, blank: bool = False) -> Floats:
        """The numbers of a column `[rows]`.

        Raises:
            TableError: it holds others, or none where none may be `blank`.
        """
        try:
            reading = read_numbers(self.rows.cells(column))
        except UnreadableError as error:
            where = self.rows.place(error.row)
            raise TableError(
                f"{where}: column {column!r} is {error.why}; {error.advice}"
            ) from error
        if reading is None:
            cells = self.rows.cells(column)
            first = next((i for i, cell in enumerate(cells) if str(cell).strip()), 0)
            raise TableError(
                f"{self.rows.place(first)}: column {column!r} is {str(cells[first])!r}: must be a"
                " number"
            )
        values = reading.values
        self._hold(column, np.isfinite(values) | (blank & np.isnan(values)), "must be a number")
        return values

    def _hold(self, column: str, holds: Mask, rule: str, advice: str = "") -> None:
        """Check that a rule holds in every row.

        Raises:
            TableError: it does not; with the first such row.
        """
        broken = np.flatnonzero(~holds)
        if len(broken):
            row = int(broken[0])
            more = f" ({len(broken):,} such rows)" if len(broken) > 1 else ""
            hint = f"; {advice}" if advice else ""
            raise TableError(
                f"{self.rows.place(row)}: column {column!r} {self.rows.said(column, row)}:"
                f" {rule}{more}{hint}"
            )

    def first_two(self, sums: tuple[str, str], means: tuple[str, str]) -> tuple[Floats, Floats]:
        """Mean and variance `[rows]` from columns of either kind; NaN where they are not known.

        Raises:
            TableError: moments that cannot be.
        """
        n = self.n
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            given = all(name in self.rows.columns for name in means)
            if given:
                mean, variance = (self._numbers(name, blank=True) for name in means)
                self._hold(means[0], np.isfinite(mean) | (n < 1), "users have a mean")
                self._hold(means[1], ~(variance < 0), "a variance is 0 or more")
            else:
                total, squares = (self._numbers(name, blank=True) for name in sums)
                self._hold(sums[0], np.isfinite(total) | (n < 1), "users have a sum")
                self._hold(sums[0], (n > 0) | ~(np.abs(total) > 0), "no users have a sum of 0")
                self._hold(sums[1], ~(squares < 0), "a sum of squares is 0 or more")
                mean, least = total / n, np.square(total) / n
                left = squares - least
                self._hold(
                    sums[1],
                    ~(left < -SLACK * squares),
                    f"a sum of squares is at least {sums[0]}^2 / {self.count}",
                )
                lost = (left < FEW_DIGITS * squares) & (left != 0)
                self._hold(
                    sums[1],
                    ~lost,
                    f"less {sums[0]}^2 / {self.count} it leaves too few digits for a variance",
                    f"export {means[0]} and {means[1]}",
                )
                variance = left / (n - 1.0)
            for column, size in zip(
                means if given else sums, (np.abs(mean), np.sqrt(variance)), strict=True
            ):
                largest = np.nanmax(size, initial=0.0)
                self._hold(
                    column,
                    ~(size == largest) | (largest == 0.0) | (SMALLEST <= largest <= LARGEST),
                    f"means and standard deviations must be between {SMALLEST:g} and {LARGEST:g},"
                    " since intervals need their fourth power",
                    "give them in another unit",
                )
        return np.where(n > 0, mean, np.nan), np.where(n > 1, variance, np.nan)

    def bounded(self, variable: str, mean: Floats, variance: Floats, low: str, high: str) -> None:
        """Check moments against the bounds of a variable, where they are there: a variance is at
        most (max - mean) (mean - min) n / (n - 1) (Bhatia & Davis, American Mathematical Monthly
        2000).

        Raises:
            TableError: moments that cannot be.
        """
        at = [low, high]
        ends = [self._numbers(c, blank=True) if c in self.rows.columns else None for c in at]
        for name, end, sign in zip(at, ends, (1.0, -1.0), strict=True):
            if end is not None:
                slack = SLACK * np.maximum(np.abs(mean), np.abs(end))
                rule = f"the mean of {variable} is {'below' if sign > 0 else 'above'} it"
                self._hold(name, ~(sign * (end - mean) > slack), rule)
        bottom, top = ends
        if bottom is not None and top is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                most = (top - mean) * (mean - bottom) * self.n / (self.n - 1.0)
                slack = SLACK * np.square(top - bottom)
                self._hold(
                    high,
                    ~(variance > most + slack),
                    f"with {low} and the mean it leaves {variable} less variance than is given",
                )

    # What becomes of it

    def aggregates(
        self,
        metrics: Columns | Iterable[str] | None,
        covariates: Iterable[str] | None,
        better: Mapping[str, Better] | None,
        roles: Mapping[str, MetricRole] | None,
    ) -> Aggregates:
        variables, cells = self.read()
        index = self._placed()
        whole = self._arranged(cells, index)
        self._no_fewer(whole.n, index, variables)
        if whole.twins is not None:
            self._same_users(whole.n, index)
        parts, pasts = self._parts(variables, metrics, covariates)
        together = whole.together()
        known = {name: metric_of(name, _spec(part)) for name, part in parts.items()}
        result = Aggregates(
            self.arms,
            declared(known, declarations(better, roles)),
            variables,
            parts,
            {},
            self.looks,
            self.shares,
            together,
            {name: self._of_levels(whole, name) for name in self.segments},
        )
        adjusting = self._adjusting(result, pasts, explicit=covariates is not None)
        self._needed(result)
        names = self.rows.columns
        for name in names:
            self.uses.setdefault(name, Use(name, "left out", "no moment of a variable"))
        return replace(
            result, covariates=adjusting, columns=tuple(self.uses[name] for name in names)
        )

    @abstractmethod
    def read(self) -> tuple[tuple[str, ...], CellMoments]:
        """The variables, and the moments of each row `[rows]`."""

    def _placed(self) -> Array:
        """The row of each arm, look and cell of the segments `[arms, looks, cells]`.

        Raises:
            TableError: one is missing, or there twice.
        """
        crossed = [" x ".join(map(str, cell)) for cell in zip(*self.segments.values(), strict=True)]
        names = dict.fromkeys(crossed or [""])
        self.cell_names = tuple(names)
        place = {name: i for i, name in enumerate(names)}
        cell = np.array([place[name] for name in crossed] or [0] * len(self.n), dtype=np.int64)
        shape = (len(self.arms), len(self.looks), len(names))
        index = np.full(shape, -1, dtype=np.int64)
        places = zip(self.arm_of.tolist(), self.look_of.tolist(), cell.tolist(), strict=True)
        for row, at in enumerate(places):
            if index[at] >= 0:
                where, first = (
                    self.rows.place(int(self.row_of[one].max())) for one in (row, index[at])
                )
                raise TableError(
                    f"{where}: arm {self.arms[at[0]]!r}{self._spoken(at)} is there twice ({first}"
                    " is the first): one row for each arm, look and cell of the segments; merge"
                    " them, or name the column of looks (--day) or of segments (--segment)"
                )
            index[at] = row
        gone = np.argwhere(index < 0)
        # A cell in which nobody is yet may be left out; one that was there may not go.
        for arm, look, place_of_cell in gone.tolist():
            if look and index[arm, look - 1, place_of_cell] >= 0:
                where = f"arm {self.arms[arm]!r}{self._spoken((arm, look, place_of_cell))}"
                raise TableError(
                    f"{where} has no row, but one at the look before: moments are of all users so"
                    " far, and nobody leaves"
                )
        return index

    def _spoken(self, at: tuple[int, ...]) -> str:
        look = f" at {self.looks[at[1]]}" if len(self.looks) > 1 else ""
        cell = f" in {self.cell_names[at[2]]}" if len(self.cell_names) > 1 else ""
        return look + cell

    def _arranged(self, cells: CellMoments, index: Array) -> CellMoments:
        there = index >= 0

        def at(values: Floats, blank: float) -> Floats:
            found = values[np.maximum(index, 0)]
            return np.where(there.reshape(there.shape + (1,) * (values.ndim - 1)), found, blank)

        return CellMoments(
            at(cells.n, 0.0), at(cells.mean, np.nan), at(cells.cov, np.nan),
            at(cells.previous, np.nan),
            None if cells.twins is None else at(cells.twins, np.nan),
        )  # fmt: skip

    def _no_fewer(self, n: Floats, index: Array, variables: Sequence[str]) -> None:
        """Check that no look has fewer users than the one before.

        Raises:
            TableError: one has.
        """
        fewer = np.argwhere(np.diff(n, axis=1) < 0)
        if len(fewer):
            arm, before, cell, variable = (int(i) for i in fewer[0])
            now = before + 1
            of_row = self.row_of[index[arm, now, cell]]
            at = of_row[min(variable, len(of_row) - 1)]
            if at < 0:
                name = variables[variable]
                raise TableError(
                    f"metric {name!r} of arm {self.arms[arm]!r}{self._spoken((arm, now, cell))} has"
                    " no row, but one at the look before: moments are of all users so far, and"
                    " nobody leaves"
                )
            values = n[arm, before, cell, variable], n[arm, now, cell, variable]
            raise TableError(
                f"{self.rows.place(int(at))}: column {self.count!r} falls from {values[0]:,.0f} to"
                f" {values[1]:,.0f} in arm {self.arms[arm]!r}{self._spoken((arm, now, cell))}:"
                " moments must be of all users so far, whose number does not fall; sum up the days,"
                " users once"
            )

    def _of_levels(self, whole: CellMoments, group: str) -> dict[str, CellMoments]:
        """Moments `[arms]` of each level of a segment at the last look."""
        column = self.segments[group]
        first = {name: i for i, name in reversed(list(enumerate(self._cell_of_rows())))}
        level_of = np.array([str(column[first[name]]) for name in self.cell_names])
        last = CellMoments(
            whole.n[:, -1:], whole.mean[:, -1:], whole.cov[:, -1:], whole.previous[:, -1:],
            None if whole.twins is None else whole.twins[:, -1:],
        )  # fmt: skip
        levels = {}
        for level in sorted(set(level_of.tolist())):
            mine = level_of == level
            part = CellMoments(
                last.n[:, :, mine], last.mean[:, :, mine], last.cov[:, :, mine],
                last.previous[:, :, mine],
                None if last.twins is None else last.twins[:, :, mine],
            ).together()  # fmt: skip
            levels[level] = CellMoments(
                part.n[:, 0], part.mean[:, 0], part.cov[:, 0], part.previous[:, 0],
                None if part.twins is None else part.twins[:, 0],
            )  # fmt: skip
        return levels

    def _cell_of_rows(self) -> list[str]:
        return [" x ".join(map(str, cell)) for cell in zip(*self.segments.values(), strict=True)]

    def _parts(
        self,
        variables: Sequence[str],
        metrics: Columns | Iterable[str] | None,
        covariates: Iterable[str] | None,
    ) -> tuple[dict[str, tuple[str, str | None]], list[str]]:
        """The variables of each metric, and those that are covariates."""
        pasts = list(covariates) if covariates is not None else None
        for name in pasts or ():
            self._known(name, variables)
        if pasts is None:
            pasts = [name for name in variables if name.endswith(BEFORE)]
        if metrics is None:
            plain: dict[str, str | tuple[str, str]] = {v: v for v in variables if v not in pasts}
        else:
            plain = {}
            for name, asked in asked_columns(metrics).items():
                if isinstance(asked, Quantity):
                    raise TableError(f"metric {name!r}: a quantity needs rows, not moments")
                plain[name] = asked
        parts: dict[str, tuple[str, str | None]] = {}
        for name, spec in plain.items():
            top, bottom = (spec, None) if isinstance(spec, str) else spec
            for variable in (top, *([] if bottom is None else [bottom])):
                self._known(variable, variables)
                if variable in pasts:
                    raise TableError(
                        f"variable {variable!r} is named as a metric and as a covariate: what the"
                        " arms may change is no covariate; name it as one"
                    )
            parts[name] = (top, bottom)
        if not parts:
            raise TableError("the table has no metric: all its variables are covariates")
        return parts, pasts

    def _known(self, variable: str, variables: Sequence[str]) -> None:
        if variable not in variables:
            raise TableError(
                f"no variable {variable!r} in this table; it has {list(variables)} (a variable has"
                " columns _sum and _sum_squares, or _mean and _variance)"
            )

    def _same_users(self, n: Floats, index: Array) -> None:
        """Check that all arms of twins have as many users.

        Raises:
            TableError: one has not.
        """
        other = np.argwhere(n[1:] != n[:1])
        if len(other):
            arm, look, cell, variable = (int(i) for i in other[0])
            row = index[arm + 1, look, cell]
            where = self.rows.place(int(row)) if row >= 0 else "the table"
            raise TableError(
                f"{where}: column {self.count!r} has {n[arm + 1, look, cell, variable]:,.0f} in arm"
                f" {self.arms[arm + 1]!r}{self._spoken((arm + 1, look, cell))} and"
                f" {n[0, look, cell, variable]:,.0f} in arm {self.arms[0]!r}: products between arms"
                " are of users who are in every arm; of a split test leave them out"
            )

    def _adjusting(
        self, result: Aggregates, pasts: Sequence[str], *, explicit: bool
    ) -> dict[str, tuple[str, ...]]:
        """The covariates of each metric: its own past, and those that are nobody's; twins, who have
        one past, need none.

        Raises:
            TableError: one is asked for that lacks products, or of twins.
        """
        if result.paired:
            if explicit and pasts:
                raise TableError(
                    f"covariate {pasts[0]!r}: a paired table needs none, twins have the same past"
                    " and it cancels"
                )
            for past in pasts:
                self._taken(past, "left out", "twins have the same past, and it cancels")
            return {}
        outcomes = {name for name in result.variables if name not in pasts}
        adjusting: dict[str, list[str]] = {name: [] for name in result.metrics}
        for past in pasts:
            of = past.removesuffix(BEFORE)
            for_all = of not in outcomes and of not in result.metrics
            users = [of] if of in adjusting else list(adjusting) if for_all else []
            lacking = []
            for metric in users:
                trial = replace(result, covariates={metric: (*adjusting[metric], past)})
                control, other = result.arms[:2]
                if trial.moments(metric, control, other, adjusted=True) is None:
                    lacking.append(metric)
                else:
                    adjusting[metric].append(past)
            if lacking and explicit:
                raise TableError(
                    f"covariate {past!r} has no product with {lacking[0]!r}: give a column"
                    f" {result.parts[lacking[0]][0]}_{past}_sum_product, or _covariance, and those"
                    " with the other covariates and a denominator"
                )
            if not users:
                note = f"the past of {of!r}, which is no metric by itself"
            elif lacking:
                note = f"no product with {', '.join(lacking)}, so that nothing is adjusted for it"
            else:
                note = ""
            self._taken(past, "covariate" if len(lacking) < len(users) else "left out", note)
        return {name: tuple(used) for name, used in adjusting.items() if used}

    def _needed(self, result: Aggregates) -> None:
        """Check that every ratio has its product.

        Raises:
            TableError: one has not.
        """
        for name, (top, bottom) in result.parts.items():
            if bottom is None:
                continue
            at = [result.variables.index(v) for v in (top, bottom)]
            sizes = result.cells.n[:, -1, at].min() if result.cells.n.size else 0
            if sizes > 1 and not np.isfinite(result.cells.cov[:, -1, at[0], at[1]]).all():
                raise TableError(
                    f"metric {name!r} is a ratio, whose variance needs the product of both: give a"
                    f" column {top}_{bottom}_sum_product, or {top}_{bottom}_covariance"
                )

    @abstractmethod
    def _taken(self, variable: str, role: str, note: str = "") -> None:
        """Say what the columns of a variable were taken for."""


def _are_dates(names: Sequence[str]) -> bool:
    """Whether labels are dates or times: then rows are of looks, and to put them together as cells
    of a segment would count every user once for each look.
    """
    try:
        return bool([datetime.fromisoformat(name) for name in names])
    except ValueError:
        return False


def _times(column: str, names: Sequence[str]) -> Floats:
    """Looks as numbers, in days where they are dates or times.

    Raises:
        TableError: they are neither.
    """
    with suppress(ValueError):  # then they are dates or times
        return np.array([float(name) for name in names])
    try:
        times = [datetime.fromisoformat(name) for name in names]
    except ValueError as error:
        raise TableError(
            f"column {column!r}: looks are numbers (1, 2, ...), dates or times (2026-05-01); got"
            f" {names[0]!r} ({error})"
        ) from error
    first = min(times)
    return np.array([(time - first).total_seconds() / 86_400.0 for time in times])


def _spec(part: tuple[str, str | None]) -> str | tuple[str, str]:
    return part[0] if part[1] is None else (part[0], part[1])
