"""Frames: a `UnitTable` from a plain per-user table, so that a real A/B test gets the same verdict as a simulated one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from simulator.metrics import METRICS, Better, Metric, Term, directed, direction_of
from simulator.stats.adjustment import clustered
from simulator.stats.units import TableError, UnitTable

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

BEFORE = "_before"
"""A column `<metric>_before` is that metric in a period before the test: a covariate, known before the arms differ."""

Columns = Mapping[str, str | tuple[str, str]]


def from_frame(
    frame: pd.DataFrame,
    *,
    metrics: Columns | Iterable[str] | None = None,
    covariates: Iterable[str] | None = None,
    groups: Iterable[str] | None = None,
    user: str = "user",
    arm: str = "arm",
    cluster: str | None = None,
    better: Mapping[str, Better] | None = None,
) -> UnitTable:
    """A table of one row per user (split design), or one row per user and arm, every user in every arm (paired design).

    Args:
        frame: columns `user`, `arm`, metrics, covariates, groups.
        metrics: names of metric columns, or name -> column, or name -> (numerator column, denominator column) for a ratio of sums;
            None: every numeric column that is no covariate and does not end in `_before`.
        covariates: names of numeric pre-period columns; None: those that end in `_before`, but for those of columns that
            are in the table and no metrics.
        groups: columns of segments; None: every column of text, category or bool.
        user: name of the user column.
        arm: name of the arm column.
        cluster: name of a column of clusters that were assigned as a whole; the rows may then be anything (users, or users' days), and the
            units of the table are the clusters.
        better: by metric, whether `higher` or `lower` values of it are better; of others as far as their names tell (`direction_of`).

    Returns:
        A `UnitTable` by user (or cluster), arms in the order of their first row.

    Raises:
        TableError: a column missing or not numeric, a value missing, a word among numbers, fewer than two arms, or users that are
            neither in one arm nor in all of them.
        MetricError: `better` of no metric, or no direction.
    """
    for name in (user, arm) if cluster is None else (arm, cluster):
        _column(frame, name)
    free = [str(c) for c in frame.columns if c not in (user, arm, cluster)]
    numeric = [c for c in free if frame[c].dtype.kind in "iuf"]
    named = {*(groups or ()), *(covariates or ())}
    for column in free if metrics is None else ():
        if column not in numeric and column not in named:
            _no_strays(frame, column)
    pasts = [c for c in numeric if c.endswith(BEFORE)]
    asked = _asked(metrics if metrics is not None else [c for c in numeric if c not in (*pasts, *(covariates or ()))])
    before = [c for c in pasts if c.removesuffix(BEFORE) not in set(free) - set(asked)] if covariates is None else list(covariates)
    codes, arms = _arms(frame, arm)
    order = _layout(frame, user, codes, len(arms)) if cluster is None else None

    read: dict[str, Array] = {}

    def laid_out(column: str) -> Array:
        if column not in read:
            values = _numbers(frame, column)
            read[column] = values if order is None else values[order]
        return read[column]

    tops = {name: laid_out(column if isinstance(column, str) else column[0]) for name, column in asked.items()}
    bottoms = {name: laid_out(column[1]) for name, column in asked.items() if not isinstance(column, str)}
    one = slice(None) if order is None else order[0]
    segments = [c for c in free if c not in numeric and c not in before] if groups is None else list(groups)
    table = UnitTable(
        "user",
        arms,
        directed({name: _metric(name, column) for name, column in asked.items()}, better or {}),
        tops,
        bottoms,
        codes if order is None else None,
        None if cluster is None else _text(frame, cluster),
        {c.removesuffix(BEFORE): _numbers(frame, c)[one] for c in before},
        {c: _text(frame, c)[one] for c in segments},
    )
    return table if cluster is None else clustered(table)


def _asked(metrics: Columns | Iterable[str]) -> dict[str, str | tuple[str, str]]:
    asked = dict(metrics) if isinstance(metrics, Mapping) else {name: name for name in metrics}
    if not asked:
        raise TableError("the table has no metric: give at least one numeric column besides user, arm and covariates")
    return asked


def _metric(name: str, column: str | tuple[str, str]) -> Metric:
    known = METRICS.get(name)
    top, bottom = (column, None) if isinstance(column, str) else column
    higher = direction_of(name, top, bottom)
    source: Literal["", "name"] = "" if higher is None else "name"
    if bottom is None:
        return Metric(name, known.description if known else name, known.measure if known else "", _named(top), None, higher, source)
    return Metric(name, f"{top} per {bottom}", "ratio", _named(top), _named(bottom), higher, source)


def _named(column: str) -> Term:
    return Term(column, (column,), lambda rows: rows[column])


def _arms(frame: pd.DataFrame, arm: str) -> tuple[Array, tuple[str, ...]]:
    """Arm index of each row and the names, in the order of first appearance."""
    codes, names = frame[arm].factorize()
    if (codes < 0).any():
        raise TableError(f"{_place(frame, np.flatnonzero(codes < 0)[0])}: column {arm!r} has no value; every row must be in an arm")
    if len(names) < 2:
        raise TableError(f"column {arm!r} has the arms {[str(n) for n in names]}: a comparison needs at least two")
    return np.asarray(codes), tuple(str(n) for n in names)


def _layout(frame: pd.DataFrame, user: str, codes: Array, n_arms: int) -> Array | None:
    """None for a split table; for a paired one the rows of each arm in a common order of users, `[arms, users]`."""
    ids = frame[user]
    if _distinct(ids):
        return None
    number, _ = ids.factorize(sort=True)
    n_users, rem = divmod(len(ids), n_arms)
    cell = np.asarray(number, dtype=np.int64) * n_arms + codes
    order = np.argsort(cell, kind="stable")
    if rem or (number < 0).any() or not np.array_equal(cell[order], np.arange(len(ids))):
        twice = ids[ids.duplicated()].iloc[0]
        raise TableError(
            f"user {twice} has several rows, but not every user has exactly one row in each of the {n_arms} arms: "
            "give one row per user (split) or one row per user and arm for all users (paired)"
        )
    return np.ascontiguousarray(order.reshape(n_users, n_arms).T)


def _distinct(ids: pd.Series[Any]) -> bool:
    """Whether no user occurs twice; ascending or dense whole numbers are told without hashing."""
    if ids.dtype.kind in "iu" and len(ids):
        numbers = ids.to_numpy()
        if bool((numbers[1:] > numbers[:-1]).all()):
            return True
        low, high = int(numbers.min()), int(numbers.max())
        if high - low < 4 * len(numbers):
            return bool((np.bincount(numbers.astype(np.int64) - low) <= 1).all())
    return bool(ids.is_unique)


def _column(frame: pd.DataFrame, column: str) -> pd.Series[Any]:
    if column not in frame.columns:
        raise TableError(f"the table has no column {column!r}; it has {[str(c) for c in frame.columns]}")
    return frame[column]


def _place(frame: pd.DataFrame, row: int) -> str:
    """The row as its reader knows it: by its label, which is the line of a file that was read as text."""
    return f"{frame.index.name or 'row'} {frame.index[row]}"


def _strays(values: pd.Series[Any]) -> Array:
    """The rows of a column of text that have a value which is no number."""
    import pandas as pd

    return np.flatnonzero((values.notna() & pd.to_numeric(values, errors="coerce").isna()).to_numpy())


def _no_strays(frame: pd.DataFrame, column: str) -> None:
    """Refuse a column of numbers with a few words among them: it would be taken for a segment, and be missed as a metric.

    Raises:
        TableError: most values are numbers, but not all.
    """
    values = frame[column]
    if values.dtype.kind not in "OUST":
        return
    strays = _strays(values)
    if 0 < len(strays) < 0.5 * int(values.notna().sum()):
        raise TableError(
            f"{_place(frame, strays[0])}: column {column!r} is {str(values.iloc[strays[0]])!r}, no number, as most of the column are; "
            f"{len(strays)} such values: mend them, or name {column!r} as a segment if it is one"
        )


def _numbers(frame: pd.DataFrame, column: str) -> Array:
    given = _column(frame, column)
    if given.dtype.kind not in "iufb":
        strays = _strays(given) if given.dtype.kind in "OUST" else np.zeros(0, dtype=np.int64)
        if len(strays):
            where = f"{_place(frame, strays[0])}: column {column!r} is {str(given.iloc[strays[0]])!r}"
            raise TableError(f"{where}; it must be numeric, and {len(strays)} values are not")
        raise TableError(f"column {column!r} must be numeric; it is {given.dtype}")
    values = given.to_numpy(dtype=np.float64)
    if not np.isfinite(values.sum()):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise TableError(
                f"{_place(frame, bad[0])}: column {column!r} is {values[bad[0]]}; {len(bad)} such values: "
                "fill them (a user without events has 0) or drop them"
            )
    return values


def _text(frame: pd.DataFrame, column: str) -> Array:
    return _column(frame, column).astype(str).to_numpy(dtype=object)
