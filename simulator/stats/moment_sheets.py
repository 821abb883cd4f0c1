"""Tables of moments as warehouses export them, read into `aggregates`.

A row of such a table is one arm, at one look (a day), in one cell of the segments; it has the
number of users so far and moments of their totals so far. Names of columns say what they hold:

    n (or users, count)                            users
    X_sum and X_sum_squares                        sum of x, of x^2
    X_mean and X_variance                          or mean and sample variance (n - 1)
    X_Y_sum_product, or X_Y_covariance             sum of x y, or sample covariance (n - 1)
    X_Y_previous_sum_product, ..._covariance       the same of x now and of y at the look before
    X_Y_in_ARM_sum_product, ..._covariance         of x here and of the same users' y in that arm
    X_min, X_max                                   bounds, which are checked

A table with a column `metric` holds one metric a row instead, in `mean` and `variance`, or `sum`
and `sum_squares`. What is impossible is refused with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.log.metrics import Better, MetricRole
from simulator.stats.aggregates import Aggregates, CellMoments
from simulator.stats.frames import Columns
from simulator.stats.moment_tables import COUNTS, SLACK, Sheet
from simulator.stats.moments import Floats
from simulator.stats.rows import Rows
from simulator.stats.unit_table import TableError, Use

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

PREVIOUS = "_previous"
"""A product with `<variable>_previous` is one with that variable at the look before."""

IN_ARM = "_in_"
"""A product with `<variable>_in_<arm>` is one with what the same users have in that arm: twins."""


def are_moments(columns: Iterable[str], user: str = "user") -> bool:
    """Whether columns are those of a table of moments: users are counted, and not named."""
    names = set(columns)
    if user in names or not names & set(COUNTS):
        return False
    if "metric" in names:
        return {"mean", "variance"} <= names or {"sum", "sum_squares"} <= names
    return bool(_variables(names))


def _variables(names: Iterable[str]) -> list[str]:
    """The variables of which a table has a first and a second moment, in its order."""
    there = dict.fromkeys(names)
    found: dict[str, None] = {}
    for name in there:
        for first, second in (("_sum", "_sum_squares"), ("_mean", "_variance")):
            variable = name.removesuffix(first)
            if name.endswith(first) and variable and variable + second in there:
                found[variable] = None
    return list(found)


def from_moments(
    rows: Rows,
    *,
    metrics: Columns | Iterable[str] | None = None,
    covariates: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    arm: str = "arm",
    look: str | None = None,
    better: Mapping[str, Better] | None = None,
    roles: Mapping[str, MetricRole] | None = None,
) -> Aggregates:
    """The aggregates of a table of moments (the columns are described above).

    Args:
        rows: the table.
        metrics: names of variables; or name -> variable; or name -> (numerator, denominator), a
            ratio of sums, for which their product is needed. None: every variable that is no
            covariate.
        covariates: variables known before the test, whose products with a metric are needed; None:
            those that end in `_before`, as far as their products are there.
        groups: columns of segments: the rows of an arm and a look are the cells of their crossing.
            None: every column of text.
        arm: name of the arm column.
        look: name of the column of looks: numbers, dates or times. Moments are of all users so far
            and of their totals so far. None: `day`, if there is such a column.
        better, roles: as `frames.from_frame`.

    Raises:
        TableError: a column or a row that is missing or twice there, or moments that cannot be.
        MetricError: `better` or `roles` of no metric, or no direction or role.
    """
    sheet = (_LongSheet if "metric" in rows.columns else _WideSheet)(rows, arm, look, groups)
    return sheet.aggregates(metrics, covariates, better, roles)


class _WideSheet(Sheet):
    """One row holds the moments of all variables."""

    def read(self) -> tuple[tuple[str, ...], CellMoments]:
        names = tuple(self.rows.columns)
        variables = tuple(_variables(names))
        p, rows = len(variables), len(self.n)
        mean, cov = np.empty((rows, p)), np.full((rows, p, p), np.nan)
        previous, twins = np.full((rows, p, p), np.nan), None
        for i, v in enumerate(variables):
            mean[:, i], cov[:, i, i] = self.first_two(
                (f"{v}_sum", f"{v}_sum_squares"), (f"{v}_mean", f"{v}_variance")
            )
            self._hold(
                f"{v}_variance" if f"{v}_variance" in self.rows.columns else f"{v}_sum_squares",
                np.isfinite(cov[:, i, i]) | (self.n < 2),
                "two users and more have a variance",
            )
            self.bounded(v, mean[:, i], cov[:, i, i], f"{v}_min", f"{v}_max")
            for end in ("sum", "sum_squares", "mean", "variance", "min", "max"):
                if f"{v}_{end}" in self.rows.columns:
                    self.uses[f"{v}_{end}"] = Use(f"{v}_{end}", "moments")
        for column in names:
            pair = self._pair(column, variables)
            if pair is None:
                continue
            i, j, where = pair
            self.uses[column] = Use(column, "moments")
            if where == PREVIOUS:
                previous[:, i, j] = self._product(column, mean[:, i], self._earlier(mean[:, j]))
                continue
            other = np.arange(rows)
            if where:
                arm = self.arms.index(where.removeprefix(IN_ARM))
                other = self._rows_in(arm)
            at = np.maximum(other, 0)
            with np.errstate(invalid="ignore"):
                found = self._product(column, mean[:, i], mean[at, j])
                found = np.where(other >= 0, found, np.nan)
                most = np.sqrt(cov[:, i, i] * cov[at, j, j])
                holds = ~(np.abs(found) > most * (1.0 + SLACK))
            a, b = variables[i], variables[j] + where.replace("_", " ")
            self._hold(
                column, holds, f"with their variances it makes {a} and {b} correlated beyond 1"
            )
            if where:
                twins = np.full((rows, len(self.arms), p, p), np.nan) if twins is None else twins
                twins[:, arm, i, j] = found
            else:
                cov[:, i, j] = cov[:, j, i] = found
        n = np.repeat(self.n[:, None], p, axis=1)
        return variables, CellMoments(n, mean, cov, previous, twins)

    def _rows_in(self, arm: int) -> Array:
        """The row of the same look and cell in another arm `[rows]`; -1 where there is none."""
        index = self._placed()
        there = np.argwhere(index >= 0)
        found = np.full(len(self.n), -1)
        for of_arm, look, cell in there.tolist():
            found[index[of_arm, look, cell]] = index[arm, look, cell]
        return found

    def _pair(self, column: str, variables: Sequence[str]) -> tuple[int, int, str] | None:
        """The two variables of a product, and where the second is: "" for here, PREVIOUS for the
        look before, IN_ARM and its name for another arm.

        Raises:
            TableError: it may be the product of two pairs.
        """
        body = column.removesuffix("_sum_product").removesuffix("_covariance")
        if body == column:
            return None
        found = set()
        ends = ("", PREVIOUS, *(IN_ARM + arm for arm in self.arms))
        for i, a in enumerate(variables):
            rest = body.removeprefix(a + "_")
            for end in ends if rest != body else ():
                if rest.endswith(end) and rest.removesuffix(end) in variables:
                    found.add((i, variables.index(rest.removesuffix(end)), end))
        if len(found) > 1:
            pairs = [f"{variables[i]} and {variables[j]}" for i, j, _ in sorted(found)]
            raise TableError(
                f"column {column!r} may be the product of {' or of '.join(pairs)}; name the"
                " variables otherwise"
            )
        return found.pop() if found else None

    def _product(self, column: str, mean: Floats, other: Floats) -> Floats:
        """The sample covariance `[rows]` of a column of either kind."""
        values, n = self._numbers(column, blank=True), self.n
        if column.endswith("_covariance"):
            return np.where(n > 1, values, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(n > 1, (values - n * mean * other) / (n - 1.0), np.nan)

    def _earlier(self, mean: Floats) -> Floats:
        """The means at the look before, of the same arm and cell `[rows]`.

        Raises:
            TableError: users have come since, so that their values then are not in the product.
        """
        index = self._placed()
        before, earlier = np.full(len(mean), -1), np.full(len(mean), np.nan)
        here = (index[:, 1:] >= 0) & (index[:, :-1] >= 0)
        before[index[:, 1:][here]] = index[:, :-1][here]
        there = before >= 0
        grown = there & (self.n[np.maximum(before, 0)] != self.n)
        self._hold(
            self.count,
            ~grown,
            "products with the look before need the same users at every look",
            "count every assigned user from the first look on, with 0 until they come; or leave the"
            " columns of the look before out, and looks are read as independent increments",
        )
        earlier[there] = mean[before[there]]
        return earlier

    def _taken(self, variable: str, role: str, note: str = "") -> None:
        for column, use in list(self.uses.items()):
            ends = ("sum", "sum_squares", "mean", "variance")
            if column in [f"{variable}_{end}" for end in ends]:
                self.uses[column] = replace(use, role=role, note=note)  # type: ignore[arg-type]


class _LongSheet(Sheet):
    """One row holds one metric: means only, for there are no products between rows."""

    def __init__(
        self, rows: Rows, arm: str, look: str | None, groups: Iterable[str] | None
    ) -> None:
        fixed = ("metric", "mean", "variance", "sum", "sum_squares", "min", "max")
        super().__init__(rows, arm, look, groups, *fixed)
        self.metric_of, self.names = self._coded("metric", "every row must be of a metric")
        for column in fixed:
            if column in rows.columns:
                self.uses[column] = Use(column, "metric" if column == "metric" else "moments")

    def read(self) -> tuple[tuple[str, ...], CellMoments]:
        mean, variance = self.first_two(("sum", "sum_squares"), ("mean", "variance"))
        self.bounded("the metric", mean, variance, "min", "max")
        p, cells = len(self.names), self._cell_of_rows() or [""] * len(mean)
        wide: dict[tuple[Any, ...], int] = {}
        keys = zip(self.arm_of.tolist(), self.look_of.tolist(), cells, strict=True)
        row = np.array([wide.setdefault(key, len(wide)) for key in keys])
        taken = row * p + self.metric_of
        again = np.flatnonzero(np.bincount(taken, minlength=len(wide) * p)[taken] > 1)
        if len(again):
            raise TableError(
                f"{self.rows.place(int(again[1]))}: metric {self.names[self.metric_of[again[1]]]!r}"
                " of an arm, look and cell of the segments is there twice"
                f" ({self.rows.place(int(again[0]))}): give one row for each"
            )
        at = (row, self.metric_of)
        means, n = np.full((len(wide), p), np.nan), np.zeros((len(wide), p))
        cov, self.row_of = np.full((len(wide), p, p), np.nan), np.full((len(wide), p), -1)
        means[at], n[at], cov[(*at, self.metric_of)] = mean, self.n, variance
        self.row_of[at] = np.arange(len(mean))
        first = np.unique(row, return_index=True)[1]
        self.arm_of, self.look_of = self.arm_of[first], self.look_of[first]
        self.segments = {name: column[first] for name, column in self.segments.items()}
        self.n = n.max(axis=1)
        return self.names, CellMoments(n, means, cov, np.full_like(cov, np.nan))

    def _taken(self, variable: str, role: str, note: str = "") -> None:
        """Rows hold the variables, so that no column is one's own."""
