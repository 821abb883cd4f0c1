"""Frames: a `UnitTable` from a plain per-user table, so that a real A/B test gets the same verdict
as a simulated one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from simulator.log.metrics import (
    METRICS,
    Better,
    Declared,
    Metric,
    MetricRole,
    Term,
    declarations,
    declared,
    direction_of,
)
from simulator.stats.adjustment import MISSING, imputed, users_so_far
from simulator.stats.clustering import clustered
from simulator.stats.quantities import Quantity
from simulator.stats.readings import (
    ColumnReading,
    Floats,
    LostDigitsError,
    UnreadableError,
    has_leading_zeros,
    is_number,
    is_text,
    read_numbers,
)
from simulator.stats.rows import BLANK, UNNAMED, Ids, Labels, Rows, as_rows, ids, labels
from simulator.stats.unit_table import Details, Role, TableError, UnitTable, Use, keys_of, levels

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

BEFORE = "_before"
"""A column `<metric>_before` is that metric in a period before the test: a covariate, known before
the arms differ.
"""

SMALLEST, LARGEST = 1e-60, 1e60
"""Bounds of the largest figure of a column: Fieller's interval and Welch's degrees of freedom take
its fourth power.
"""

LEVELS = 250
"""Levels of a segment, at most: as many as there are countries. A column of text with more is an
id, or a remark.
"""

ROW_NUMBER = re.compile(r"index|level_0|row_?number|__index_level_\d+__")
"""Names of columns that tools write to number the rows."""

COUNTED = 30
"""Rows from which a column of any name that counts them in order is their number: no metric does
that by chance.
"""

Asked = str | tuple[str, str] | Quantity
"""What a metric is computed from: a column, two of which it is the ratio of sums, or a figure."""

Columns = Mapping[str, Asked]


def from_frame(
    frame: pd.DataFrame | Rows | Any,
    *,
    metrics: Columns | Iterable[str] | None = None,
    covariates: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    predictors: Iterable[str] | None = None,
    user: str = "user",
    arm: str = "arm",
    cluster: str | None = None,
    better: Mapping[str, Better] | None = None,
    roles: Mapping[str, MetricRole] | None = None,
    entries: Mapping[str, Declared] | None = None,
) -> UnitTable:
    """A table of one row per user (split design), or one row per user and arm, every user in every
    arm (paired design).

    Users, arms, clusters and segments are text exactly as it came (`0007` is not `7`). A column of
    numbers may be written in another dress (`simulator.stats.readings`). `columns` of the result
    says of every column what it was taken for.

    Args:
        frame: columns `user`, `arm`, metrics, covariates, groups: a pandas DataFrame (row labels of
            these names will do), an Arrow table, or anything that gives one (`__arrow_c_stream__`).
        metrics: names of metric columns, or name -> column, or name -> (numerator column,
            denominator column) for a ratio of sums, or name -> `Quantity`;
            None: every column of numbers or of yes and no that is no covariate, no segment and does
                not end in `_before`.
        covariates: names of numeric pre-period columns; None: those that end in `_before`, but for
            those of columns that are in the table and no metrics.
        groups: columns of segments; None: every column of text or of categories that has 2 to 250
            levels, blank being one.
        predictors: columns from which metrics are predicted (`stats.predictions`): numbers, which
            may be missing, or labels; (): every covariate and every segment; None: nothing is.
        user: name of the user column.
        arm: name of the arm column.
        cluster: name of a column of clusters that were assigned as a whole; the rows may then be
            anything (users, or users' days), and the units of the table are the clusters.
        better: by metric, whether `higher` or `lower` values of it are better; of others as far as
            their names tell (`direction_of`).
        roles: by metric, what it is for in the decision (`log.metrics.ROLES`); guardrails have a
            margin and are named with it (`Margins`).
        entries: by metric, all that is declared of it, in one (`log.metrics.Declared`).

    Returns:
        A `UnitTable` by user (or cluster), arms in the order of their first row.

    Raises:
        TableError: a column missing or not numeric, a value missing, a word among numbers, numbers
            that can be read in two ways, fewer than two arms, or users that are neither in one arm
            nor in all of them.
        MetricError: `better` or `roles` of no metric, or no direction or role.
    """
    fixed: dict[str, Role] = {user: "user", arm: "arm"}
    sheet = _sheet(frame, fixed, cluster, metrics, covariates, groups, entries, predictors)
    rows = sheet.rows
    codes, arms = _arms(rows, arm)
    who = ids(rows, user) if cluster is None else None
    order = None if who is None else _layout(who, codes, len(arms), rows)
    table = sheet.table(codes, arms, order, None if cluster is None else _cluster(rows, cluster))
    told = declarations(better, roles, entries)
    table = replace(table, metrics=declared(table.metrics, told)).as_declared()
    if predictors is not None:
        keys = None if who is None else keys_of(map(who.name, range(len(codes))))
        table = replace(table, features=sheet.features(table), keys=keys)
    return table if cluster is None else _clustered(table, cluster)


def looks_from_frame(
    frame: pd.DataFrame | Rows | Any,
    day: str,
    *,
    metrics: Columns | Iterable[str] | None = None,
    covariates: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    user: str = "user",
    arm: str = "arm",
    better: Mapping[str, Better] | None = None,
    roles: Mapping[str, MetricRole] | None = None,
    entries: Mapping[str, Declared] | None = None,
) -> tuple[list[UnitTable], Array]:
    """The tables of users at the end of each day, the last one that of the whole test, from a table
    with a row for each user and day (or several; days without a row are zeros). A user is in one
    arm. See `from_frame`; a pre-period column is the mean of a user's rows.

    Args:
        frame: as `from_frame`, with a column of days.
        day: its name; days are numbers, or dates written 2026-01-31. Those on which nobody has a
            row are no looks.

    Returns:
        A table for each day, and how many users had their first row on each, `[arms, days]`.

    Raises:
        TableError, MetricError: as `from_frame`; days of another kind.
    """
    fixed: dict[str, Role] = {user: "user", arm: "arm", day: "day"}
    sheet = _sheet(frame, fixed, None, metrics, covariates, groups, entries)
    codes, arms = _arms(sheet.rows, arm)
    number = _days(sheet.rows, day)
    table = sheet.table(codes, arms, None, _cluster(sheet.rows, user))
    table = replace(table, metrics=declared(table.metrics, declarations(better, roles, entries)))
    looks = users_so_far(table, number)
    assert table.cluster is not None
    index = levels(table.cluster)[1]
    first = np.full(int(index.max()) + 1, number.max())
    np.minimum.at(first, index, number)
    assigned = looks[-1].assigned
    assert assigned is not None
    new = np.zeros((len(arms), len(looks)))
    np.add.at(new, (assigned, first), 1.0)
    return looks, new


DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def _whole(rows: Rows, column: str, must: str) -> Labels:
    """The labels of a column.

    Raises:
        TableError: one is missing; every row must be what `must` says.
    """
    coded = labels(rows, column)
    missing = np.flatnonzero(coded.codes < 0)
    if len(missing):
        place = rows.place(int(missing[0]))
        raise TableError(f"{place}: column {column!r} has no value; every row must be {must}")
    return coded


def _days(rows: Rows, day: str) -> Array:
    """The number of each row's day, from 0, in the order of time.

    Raises:
        TableError: a day is missing, or is neither a number nor a date.
    """
    coded = _whole(rows, day, "of a day")
    keys: list[Any] = []
    is_dates = all(DATE.fullmatch(name[:10]) for name in coded.names)
    for name in coded.names:
        try:
            keys.append(name[:10] if is_dates else float(name))
        except ValueError:
            raise TableError(
                f"column {day!r}: days are numbers (0, 1, 2) or dates (2026-01-31); got {name!r}"
            ) from None
    ranks = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.array([ranks[key] for key in keys])[coded.codes]


def _sheet(
    frame: Any,
    fixed: dict[str, Role],
    cluster: str | None,
    metrics: Columns | Iterable[str] | None,
    covariates: Iterable[str] | None,
    groups: Iterable[str] | None,
    entries: Mapping[str, Declared] | None,
    predictors: Iterable[str] | None = None,
) -> _Sheet:
    """The columns of a frame, and what each is taken for.

    Args:
        fixed: columns of who and where, the user's first.
        cluster: that of clusters; then nobody's user need be known.
    """
    rows = as_rows(frame)
    if len(fixed) < 2:
        raise TableError(
            f"column {next(iter(fixed))!r} is named for users and for arms: each has its own"
        )
    user, arm = list(fixed)[:2]
    asked = None if metrics is None else asked_columns(metrics)
    if cluster is not None:
        fixed[cluster] = "cluster"
    for name in fixed:
        if name != user or cluster is None:
            rows.cells(name)
    if not len(rows.cells(arm)):
        raise TableError("the table has no rows")
    return _Sheet(
        rows,
        fixed,
        asked,
        covariates if covariates is None else list(covariates),
        groups if groups is None else list(groups),
        _past_columns(rows, entries or {}),
        list(predictors or ()),
    )


def named_as_other(column: str, role: str, own: str) -> str:
    """What is wrong where a column is named as a `role`, and is that of `own`."""
    return f"column {column!r} is named as a {role}, and is the column of {own}; name another one"


def asked_columns(metrics: Columns | Iterable[str]) -> dict[str, Asked]:
    """Metrics by name, their columns by name, too (a label of pandas may be a number)."""
    if not isinstance(metrics, Mapping):
        return {str(name): str(name) for name in metrics}
    asked: dict[str, Asked] = {}
    for name, column in metrics.items():
        if isinstance(column, Quantity):
            asked[str(name)] = column
        elif isinstance(column, tuple):
            asked[str(name)] = (str(column[0]), str(column[1]))
        else:
            asked[str(name)] = str(column)
    return asked


def _columns_of(asked: Asked) -> tuple[str, ...]:
    """The columns that a metric is computed from."""
    if isinstance(asked, Quantity):
        return asked.columns
    return (asked,) if isinstance(asked, str) else asked


def _past_columns(rows: Rows, entries: Mapping[str, Declared]) -> tuple[str, ...]:
    """Columns of the pre-period that are declared of single metrics, with or without `_before`."""
    columns = []
    for entry in entries.values():
        for name in entry.covariates or ():
            longer = name.removesuffix(BEFORE) + BEFORE
            columns.append(longer if longer in rows.columns else name)
    return tuple(dict.fromkeys(columns))


@dataclass
class _Sheet:
    """The columns of a table, and what each is taken for.

    Attributes:
        rows: the table.
        fixed: columns of who and where.
        asked: metrics that were named; None: every column of numbers.
        pasts: covariates that were named; None: those that end in `_before`.
        segments: that were named; None: every column of text.
        declared_pasts: further covariates, of single metrics.
        predictors: that were named.
    """

    rows: Rows
    fixed: Mapping[str, Role]
    asked: dict[str, Asked] | None
    pasts: list[str] | None
    segments: list[str] | None
    declared_pasts: tuple[str, ...]
    predictors: list[str] = field(default_factory=list)
    uses: dict[str, Use] = field(default_factory=dict)
    read: dict[str, ColumnReading] = field(default_factory=dict)
    levels: dict[str, Array] = field(default_factory=dict)
    labelled: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take every column for something: first those that were named, then the others by what
        they hold.
        """
        for name in (*self.rows.columns, *self.fixed):
            if name in self.fixed and (name in self.rows.columns or name in self.rows.labels):
                self.uses[name] = Use(name, self.fixed[name])
        named = [column for spec in (self.asked or {}).values() for column in _columns_of(spec)]
        self._no_role_twice(named)
        for column in named:
            self._take(column, "metric")
        for column in (*(self.pasts or ()), *self.declared_pasts):
            self._take(column, "covariate")
        for column in self.segments or ():
            self._segment(column, named=True)
        for column in self.predictors:
            self._predictor(column)
        for column in self.rows.columns:
            if column not in self.uses:
                self._by_content(column)
        for column in self.rows.labels:
            self.uses.setdefault(column, Use(column, "left out", "the row labels of pandas"))
        if self.asked is None:
            self.asked = {
                column: column for column, use in self.uses.items() if use.role == "metric"
            }
        if not self.asked:
            raise TableError(self._without_metric())
        if self.pasts is None:
            self.pasts = [column for column, use in self.uses.items() if use.role == "covariate"]
            self._no_strange_pasts(self.asked)
        self.pasts = list(dict.fromkeys((*self.pasts, *self.declared_pasts)))

    def _no_role_twice(self, outcomes: Iterable[str]) -> None:
        """Refuse to condition on an outcome, and to take who and where for anything else.

        Raises:
            TableError: a column was named as a metric and as a covariate or segment; or as one of
                these, and is that of users, arms or days.
        """
        known_before = {
            "covariate": (*(self.pasts or ()), *self.declared_pasts),
            "segment": self.segments or (),
            "predictor": self.predictors,
        }
        for role, columns in {"metric": outcomes, **known_before}.items():
            for column in columns:
                own = self.fixed.get(column)
                if own in ("user", "arm", "day"):
                    raise TableError(named_as_other(column, role, f"{own}s"))
                if role != "metric" and column in outcomes:
                    raise TableError(
                        f"column {column!r} is named as a metric and as a {role}: what the arms may"
                        f" change is no {role}, which must be known before the test; name it as one"
                    )

    def _take(self, column: str, role: Role) -> None:
        """Take a column that was named as one of numbers.

        Raises:
            TableError: it holds none.
        """
        reading = self._numbers(column)
        if reading is None:
            cells = self.rows.cells(column).drop_null()
            raise TableError(
                f"column {column!r} must be numeric; it holds {cells.type}"
                + (f": {cells[0]}, ..." if len(cells) else "")
            )
        self.read[column] = reading
        self.uses.setdefault(column, Use(column, role, _read_how(reading)))

    def _predictor(self, column: str) -> None:
        """Take a column that predicts; one that is whole and from before the test is a covariate,
        too, and one of labels may be a segment.

        Raises:
            TableError: it holds neither numbers nor labels.
        """
        if column in self.uses and column not in self.levels:
            return
        reading = self._numbers(column)
        if reading is None:
            found = labels(self.rows, column)
            self.labelled[column] = np.array([*found.names, BLANK], dtype=object)[found.codes]
            # One with a few levels is taken for a segment, too, unless segments were named.
            if self.segments is not None or len(found.names) >= LEVELS:
                self.uses.setdefault(
                    column, Use(column, "predictor", f"{len(found.names):,} labels")
                )
            return
        self.read[column] = reading
        missing = int(np.isnan(reading.values).sum())
        if column.endswith(BEFORE) and not missing and self.pasts is None:
            self._number(column, reading, "covariate", taken=True)
        else:
            note = f"{missing:,} missing" if missing else _read_how(reading)
            self.uses[column] = Use(column, "predictor", note)

    def features(self, table: UnitTable) -> dict[str, Array]:
        """What metrics are predicted from, `[rows]`: the named columns, or every covariate and
        segment.
        """
        if not self.predictors:
            return {**{f"{n}{BEFORE}": v for n, v in table.covariates.items()}, **table.groups}
        return {
            column: self.labelled[column] if column in self.labelled else self.read[column].values
            for column in self.predictors
        }

    def _numbers(self, column: str) -> ColumnReading | None:
        """The numbers of a column, None where it holds none.

        Raises:
            TableError: most of its values are numbers, but not all, or they can be read in two
                ways.
        """
        if column in self.read:
            return self.read[column]
        cells = self.rows.cells(column)
        try:
            reading = read_numbers(cells)
        except UnreadableError as error:
            advice = (
                f"{error.advice}; or name {column!r} as a segment if it is one, or the metrics that"
                " you want"
            )
            raise TableError(
                f"{self.rows.place(error.row)}: column {column!r} is {error.why}; {advice}"
            ) from error
        if reading is not None and not reading.how and is_text(cells.type) and not self.rows.text:
            return replace(reading, how="from text")
        return reading

    def _by_content(self, column: str) -> None:
        """Take a column that nobody named for what it holds.

        Raises:
            TableError: numbers that cannot be read, where metrics were not named.
        """
        if UNNAMED.fullmatch(column):
            self._leave(column, "it has no name")
            return
        cells = self.rows.cells(column)
        if cells.null_count == len(cells):
            self._leave(column, "all blank")
            return
        if column in self.rows.marks:
            self._segment(column)
            return
        if self.asked is not None and is_number(cells.type) and not column.endswith(BEFORE):
            self._leave(column, "not asked for")
            return
        try:
            reading = self._numbers(column)
        except TableError as error:
            if isinstance(error.__cause__, LostDigitsError) and not has_leading_zeros(cells):
                self._leave(column, f"it holds {error.__cause__.why}")
                return
            if self.asked is None and not has_leading_zeros(cells):
                raise
            reading = None
        if reading is None:
            self._segment(column)
        elif np.isnan(reading.values).all():
            self._leave(column, "all blank")
        elif _counts_rows(column, reading.values):
            self._leave(column, "it numbers the rows")
        elif column.endswith(BEFORE):
            self._number(column, reading, "covariate", taken=self.pasts is None)
        elif has_leading_zeros(cells):
            self._segment(column, why="numbers with leading zeros are labels; ")
        else:
            self._number(column, reading, "metric", taken=self.asked is None)

    def _number(self, column: str, reading: ColumnReading, role: Role, *, taken: bool) -> None:
        if not taken:
            self._leave(column, "not asked for")
            return
        self.read[column] = reading
        self.uses[column] = Use(column, role, _read_how(reading))

    def _leave(self, column: str, why: str) -> None:
        self.uses[column] = Use(column, "left out", why)

    def _segment(self, column: str, *, named: bool = False, why: str = "") -> None:
        """Take a column for a segment, if it has a few levels.

        Raises:
            TableError: it was named, and cannot be one.
        """
        if not named and self.segments is not None:
            self._leave(column, f"{why}not asked for")
            return
        try:
            found = labels(self.rows, column, LEVELS)
            here = np.flatnonzero(np.bincount(found.codes + 1, minlength=len(found.names) + 1))
        except TableError as error:
            if named:
                raise
            self._leave(column, why + str(error).removeprefix(f"column {column!r} "))
            return
        if len(here) < 2 and not named:
            self._leave(
                column,
                f"{why}it is {found.names[0]!r} in every row" if found.names else "all blank",
            )
            return
        names = np.array([*found.names, BLANK], dtype=object)
        self.levels[column] = names[found.codes]
        few = f": {', '.join(sorted(names[here - 1]))}" if len(here) <= 6 else ""
        self.uses[column] = Use(column, "segment", f"{why}{len(here)} levels{few}")

    def _no_strange_pasts(self, asked: Mapping[str, Any]) -> None:
        """Leave out the past of a column that is in the table and no metric."""
        used = {column for spec in asked.values() for column in _columns_of(spec)}
        for column in self.pasts or ():
            of = column.removesuffix(BEFORE)
            is_known = of in asked or of in used or of in self.fixed
            if of in self.rows.columns and not is_known and column not in self.declared_pasts:
                self._leave(column, f"the past of {of!r}, which is no metric")
        self.pasts = [
            column for column in self.pasts or () if self.uses[column].role == "covariate"
        ]

    def _without_metric(self) -> str:
        why = "; ".join(
            f"{use.column}: {_spoken(use)}"
            for use in self.uses.values()
            if use.role in ("segment", "left out")
        )
        rule = (
            "the table has no metric: give at least one numeric column besides user, arm and"
            " covariates"
        )
        return f"{rule} ({why})" if why else rule

    def table(
        self, codes: Array, arms: tuple[str, ...], order: Array | None, cluster: Array | None
    ) -> UnitTable:
        """The table of the rows as they are, or of pairs in `order` `[arms, users]`.

        Raises:
            TableError: a number that is missing.
        """
        asked, one = self.asked or {}, slice(None) if order is None else order[0]

        def values(column: str) -> Floats:
            found = self._finite(column)
            return found if order is None else found[order]

        if order is not None:
            for column, level in list(self.levels.items()):
                if (level[order] != level[order[0]]).any():
                    del self.levels[column]
                    self._leave(column, "it differs between the rows of a user")
        assigned = codes if order is None else None
        return UnitTable(
            "user",
            arms,
            {name: metric_of(name, column) for name, column in asked.items()},
            {name: values(_columns_of(column)[0]) for name, column in asked.items()},
            {
                name: values(column[1])
                for name, column in asked.items()
                if isinstance(column, tuple)
            },
            assigned,
            cluster,
            self._covariates(one),
            {column: level[one] for column, level in self.levels.items()},
            tuple(self.uses[column] for column in (*self.rows.columns, *self.rows.labels)),
            details={
                name: Details(tuple(map(values, figure.columns)), None, assigned)
                for name, figure in asked.items()
                if isinstance(figure, Quantity)
            },
        )

    def _covariates(self, rows: Array | slice) -> dict[str, Floats]:
        """The pre-period columns by name, those with missing values filled, and for each of these
        the column that says where.

        Raises:
            TableError: as `_finite`; a column without any value.
        """
        columns: dict[str, Floats] = {}
        for column in self.pasts or ():
            name, values = column.removesuffix(BEFORE), self._finite(column, may_miss=True)
            missing = int(np.count_nonzero(np.isnan(values)))
            if missing == len(values):
                raise TableError(f"column {column!r} has no value: it cannot be a covariate")
            columns[name] = values[rows]
            if missing:
                filled, indicator = imputed(values)
                columns[name], columns[name + MISSING] = filled[rows], indicator[rows]
                how = (
                    f"{missing:,} of {len(values):,} values missing: filled with the mean, and"
                    " adjusted for an indicator of them, too"
                )
                use = self.uses[column]
                self.uses[column] = replace(use, note=f"{use.note}; {how}" if use.note else how)
        return columns

    def _finite(self, column: str, *, may_miss: bool = False) -> Floats:
        """The numbers of a column, NaN where one is missing and `may_miss`.

        Raises:
            TableError: one is missing or infinite, or they are too large or too small to compute
                with.
        """
        values = self.read[column].values
        low, high = values.min(initial=0.0), values.max(initial=0.0)
        if may_miss and np.isnan(low):
            low, high = np.fmin.reduce(values, initial=0.0), np.fmax.reduce(values, initial=0.0)
        if not np.isfinite((low, high)).all():
            bad = np.flatnonzero(np.isinf(values) if may_miss else ~np.isfinite(values))
            row = int(bad[0])
            raise TableError(
                f"{self.rows.place(row)}: column {column!r} {self.rows.said(column, row)}; such"
                f" values: {len(bad):,}; fill them (a user without events has 0) or drop them"
            )
        largest = float(max(-low, high))
        if largest and not SMALLEST <= largest <= LARGEST:
            at = int(np.nanargmax(np.abs(values)))
            raise TableError(
                f"{self.rows.place(at)}: column {column!r} is {values[at]:g}, the largest of it:"
                f" the largest figure of a column must be between {SMALLEST:g} and {LARGEST:g},"
                " since intervals need its fourth power; give it in another unit"
            )
        return values


def _read_how(reading: ColumnReading) -> str:
    return f"read {reading.how}" if reading.how else ""


def _spoken(use: Use) -> str:
    return f"{use.role}, {use.note}" if use.note else use.role


def _counts_rows(column: str, values: Floats) -> bool:
    """Whether a column numbers the rows: in order, or, called like one, whole and nowhere twice."""
    n = len(values)
    if ROW_NUMBER.fullmatch(column.lower()):
        return bool((values == np.floor(values)).all()) and len(np.unique(values)) == n
    if n < COUNTED or values[0] != values[-1] - (n - 1):
        return False
    return bool((np.diff(values) == 1).all())


def metric_of(name: str, column: Asked) -> Metric:
    """A metric of a table by its column, by its numerator and denominator, or by its figure."""
    standard = METRICS.get(name)
    if isinstance(column, Quantity):
        is_high, first = direction_of(name), column.columns[0]
        return Metric(
            name,
            f"a figure of {', '.join(column.columns)}",
            "",
            _named(first),
            higher_is_better=is_high,
            known_by="" if is_high is None else "name",
            covariates=(),
            quantity=column.of,
        )
    top, bottom = (column, None) if isinstance(column, str) else column
    higher = direction_of(name, top, bottom)
    source: Literal["", "name"] = "" if higher is None else "name"
    if bottom is None:
        return Metric(
            name,
            standard.description if standard else name,
            standard.measure if standard else "",
            _named(top),
            None,
            higher,
            source,
        )
    return Metric(name, f"{top} per {bottom}", "ratio", _named(top), _named(bottom), higher, source)


def _named(column: str) -> Term:
    return Term(column, (column,), itemgetter(column))


def _arms(rows: Rows, arm: str) -> tuple[Array, tuple[str, ...]]:
    """Arm index of each row and the names, in the order of first appearance."""
    coded = _whole(rows, arm, "in an arm")
    if len(coded.names) < 2:
        raise TableError(
            f"column {arm!r} has the arms {list(coded.names)}: a comparison needs at least two"
        )
    return coded.codes, coded.names


def _cluster(rows: Rows, cluster: str) -> Array:
    coded = labels(rows, cluster)
    missing = np.flatnonzero(coded.codes < 0)
    if len(missing):
        raise TableError(
            f"{rows.place(int(missing[0]))}: column {cluster!r} has no value; every row must be in"
            " a cluster"
        )
    return np.array(coded.names, dtype=object)[coded.codes]


def _clustered(table: UnitTable, cluster: str) -> UnitTable:
    """The table of clusters; a segment that cuts through one is left out."""
    found = clustered(table)
    lost = {
        name: Use(name, "left out", f"it differs within a {cluster}")
        for name in table.groups
        if name not in found.groups
    }
    return replace(found, columns=tuple(lost.get(use.column, use) for use in table.columns))


def _layout(who: Ids, codes: Array, n_arms: int, rows: Rows) -> Array | None:
    """None for a split table; for a paired one the rows of each arm in a common order of users,
    `[arms, users]`.
    """
    if who.distinct:
        return None
    number = who.ranks
    n_users, rem = divmod(len(number), n_arms)
    cell = number * n_arms + codes
    order = np.argsort(cell, kind="stable")
    if rem or not np.array_equal(cell[order], np.arange(len(cell))):
        again = _first_again(number)
        raise TableError(
            f"user {who.name(again)} has several rows ({rows.place(again)} is not the first), but"
            f" not every user has exactly one row in each of the {n_arms} arms: give one row per"
            " user (split) or one row per user and arm for all users (paired)"
        )
    return np.ascontiguousarray(order.reshape(n_users, n_arms).T)


def _first_again(number: Array) -> int:
    """The first row of somebody who had one before."""
    order = np.argsort(number, kind="stable")
    return int(order[1:][number[order[1:]] == number[order[:-1]]].min())
