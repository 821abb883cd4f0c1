"""Many tests at once, as a company's experiments are published: moments so far of both arms at each
look, and what each sequential rule would have done.

The layout is that of Liu, Cardoso, Couturier & McCoy, "Datasets for online controlled experiments"
(NeurIPS 2021, datasets track): one row for each experiment, variant, metric and look, with the
moments of the control in the same row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.log.metrics import Better, MetricRole, declarations, declared
from simulator.stats import intervals, sequential, spending, tests
from simulator.stats.aggregates import Aggregates, CellMoments, by_variance, shares_of
from simulator.stats.frames import metric_of
from simulator.stats.moments import Floats, Moments, welch_df
from simulator.stats.readings import UnreadableError, read_numbers
from simulator.stats.rows import Rows, labels
from simulator.stats.unit_table import TableError, Use

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

KEYS = ("experiment_id", "variant_id", "metric_id", "time_since_start")
MOMENTS = ("count", "mean", "variance")
SIDES = ("c", "t")
"""Columns of moments are `count_c`, ..., of the control, and `count_t`, ..., of the variant."""

SHAPES: dict[sequential.Rule, spending.Shape] = {
    "obrien_fleming": "obrien-fleming",
    "pocock": "pocock",
}


def are_series(columns: Iterable[str]) -> bool:
    """Whether columns are those of published experiments."""
    needed = {*KEYS, *(f"{moment}_{side}" for moment in MOMENTS for side in SIDES)}
    return needed <= set(columns)


@dataclass(frozen=True)
class PublishedSeries:
    """Every comparison of a file, with its looks; arrays are `[series, looks]`, NaN beyond a
    series' last look and where a moment is not published.

    Attributes:
        names: of each series (experiment, variant, metric).
        times: of the looks.
        n, mean, variance: of control and treatment, `[2, series, looks]`.
        faults: of each series, what cannot be, with its place; "" of a sound one.
    """

    names: tuple[tuple[str, str, str], ...]
    times: Floats
    n: Floats
    mean: Floats
    variance: Floats
    faults: tuple[str, ...]

    @property
    def moments(self) -> Moments:
        """Of every comparison at every look; NaN where a variance is not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            n, of_mean = self.n, self.variance / self.n
        return Moments(
            self.mean[0], self.mean[1], of_mean[0], of_mean[1], 0.0,
            welch_df(of_mean[0], of_mean[1], n[0], n[1]), n[0], n[1], False,
        )  # fmt: skip


def read_series(rows: Rows) -> PublishedSeries:
    """The series of a table of published experiments, looks in the order of time.

    Raises:
        TableError: a column that is no number; a name or a time that is missing; a look that is
            there twice.
    """
    codes, names = zip(*(_coded(rows, key) for key in KEYS[:3]), strict=True)
    time = _numbers(rows, KEYS[3])
    missing = np.flatnonzero(np.isnan(time))
    if len(missing):
        raise TableError(f"{rows.place(int(missing[0]))}: column {KEYS[3]!r} has no value")
    key = (codes[0] * len(names[1]) + codes[1]) * len(names[2]) + codes[2]
    distinct, first, series = np.unique(key, return_index=True, return_inverse=True)
    order = np.lexsort((time, series))
    starts = np.concatenate(([0], np.cumsum(np.bincount(series))))
    look = np.empty(len(order), dtype=np.int64)
    look[order] = np.arange(len(order)) - starts[series[order]]
    shape = (len(distinct), int(np.diff(starts).max()))
    where = np.full(shape, -1, dtype=np.int64)
    where[series, look] = np.arange(len(time))

    def placed(values: Floats) -> Floats:
        return np.where(where >= 0, values[np.maximum(where, 0)], np.nan)

    times = placed(time)
    again = np.argwhere(np.diff(times, axis=1) == 0)
    if len(again):
        row, column = again[0]
        at = rows.place(int(where[row, column + 1]))
        raise TableError(f"{at}: this look of a series is there twice; give one row for each")
    n, mean, variance = (
        np.stack([placed(_numbers(rows, f"{moment}_{side}")) for side in SIDES])
        for moment in MOMENTS
    )
    found = tuple(
        (names[0][codes[0][i]], names[1][codes[1][i]], names[2][codes[2][i]]) for i in first
    )
    return PublishedSeries(found, times, n, mean, variance, _faults(rows, where, n, mean, variance))


def _coded(rows: Rows, column: str) -> tuple[Array, tuple[str, ...]]:
    coded = labels(rows, column)
    missing = np.flatnonzero(coded.codes < 0)
    if len(missing):
        raise TableError(f"{rows.place(int(missing[0]))}: column {column!r} has no value")
    return coded.codes, coded.names


def _numbers(rows: Rows, column: str) -> Floats:
    try:
        reading = read_numbers(rows.cells(column))
    except UnreadableError as error:
        where = f"{rows.place(error.row)}: column {column!r}"
        raise TableError(f"{where} is {error.why}; {error.advice}") from error
    if reading is None:
        raise TableError(f"column {column!r} must be numeric")
    return reading.values


def _faults(rows: Rows, where: Array, n: Floats, mean: Floats, variance: Floats) -> tuple[str, ...]:
    """The first thing of each series that cannot be."""
    fewer = np.concatenate((np.zeros((*n.shape[:2], 1), dtype=bool), np.diff(n, axis=2) < 0), 2)
    rules = {
        "count": (
            ((n < 0) | (n != np.floor(n)) & ~np.isnan(n), "is no whole number of users"),
            (fewer, "falls, but is of all users so far"),
        ),
        "mean": (((n > 0) & ~np.isfinite(mean), "is not there, but users are"),),
        "variance": ((variance < 0, "is below 0"),),
    }
    values = {"count": n, "mean": mean, "variance": variance}
    faults = [""] * len(where)
    for moment, broken in rules.items():
        for mask, rule in broken:
            for side, row, look in np.argwhere(mask).tolist():
                if not faults[row]:
                    at = rows.place(int(where[row, look]))
                    value = values[moment][side, row, look]
                    faults[row] = f"{at}: column '{moment}_{SIDES[side]}' ({value:,.10g}) {rule}"
    return tuple(faults)


def stops(series: PublishedSeries) -> pd.DataFrame:
    """What each rule would have done with each series, planned for all looks that there are.

    How looks go together is read from the variances (`aggregates.by_variance`), for nothing else is
    published.

    Returns:
        One row for each series: `experiment`, `variant`, `metric`, `looks` (with a variance),
        `n_control`, `n_treatment`, `lift`, `low`, `high` and `p` as if the last look were the only
        one, `p_always_valid`, `sequence_low`, `sequence_high` at the last look, the time at which
        each rule stops (`always_valid`, `obrien_fleming`, `pocock`; NaN: never), and `fault`: why
        a series says nothing; "" of a sound one.
    """
    import pandas as pd

    m = series.moments
    test = tests.t_test(m)
    z = np.asarray(test.statistic)
    sound = np.array([not fault for fault in series.faults])
    z = np.where(sound[:, None], z, np.nan)
    known = np.isfinite(z)
    variance = np.where(known, m.variance, np.nan)
    information = _information(variance)
    share = shares_of(series.times)
    with np.errstate(invalid="ignore"):
        mixture = sequential.mixture_boundary(information, 1.0)
        p = np.fmin.accumulate(sequential.inverse_likelihood_ratio(z, information, 1.0), axis=1)
        first = {"always_valid": _first(np.abs(z) > mixture)}
    first |= {
        rule: spending.first_crossings(shape, z, share, information)
        for rule, shape in SHAPES.items()
    }
    rows = np.arange(len(z))
    last = known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    mean, of_mean, n = (
        [side[rows, last] for side in sides]
        for sides in (series.mean, (m.var_control, m.var_treatment), series.n)
    )
    df = np.asarray(m.df)[rows, last]
    end = Moments(mean[0], mean[1], of_mean[0], of_mean[1], 0.0, df, n[0], n[1], False)
    tells = known.any(axis=1)
    low, high = intervals.fieller(end)
    wide = intervals.fieller(end, critical=mixture[rows, last])

    def told(values: Any) -> Floats:
        return np.where(tells, values, np.nan)

    faults = [
        fault or ("" if tell else "no look has a variance in both arms")
        for fault, tell in zip(series.faults, tells, strict=True)
    ]
    return pd.DataFrame(
        {
            "experiment": [name[0] for name in series.names],
            "variant": [name[1] for name in series.names],
            "metric": [name[2] for name in series.names],
            "looks": known.sum(axis=1),
            "n_control": told(end.n_control),
            "n_treatment": told(end.n_treatment),
            "lift": told(end.lift),
            "low": told(low),
            "high": told(high),
            "p": told(np.asarray(test.p)[rows, last]),
            "p_always_valid": told(p[rows, last]),
            "sequence_low": told(wide.low),
            "sequence_high": told(wide.high),
            **{
                rule: np.where(at >= 0, series.times[rows, np.maximum(at, 0)], np.nan)
                for rule, at in first.items()
            },
            "fault": faults,
        }
    )


def _information(variance: Floats) -> Floats:
    """Information `[series, looks]` by `sequential.clock`, the last known look having 1; NaN where
    nothing is known.
    """
    information = np.full(variance.shape, np.nan)
    known = np.isfinite(variance)
    counts = known.sum(axis=1)
    for count in np.unique(counts[counts > 0]):
        rows = np.flatnonzero(counts == count)
        at = np.nonzero(known[rows])[1].reshape(len(rows), count)
        own = np.take_along_axis(variance[rows], at, axis=1)
        block = information[rows]
        np.put_along_axis(block, at, sequential.clock(by_variance(own)), axis=1)
        information[rows] = block
    return information


def _first(crossed: Array) -> Array:
    """The first look of each series at which something holds; -1 where it never does."""
    return np.where(crossed.any(axis=1), crossed.argmax(axis=1), -1)


def experiment(
    series: PublishedSeries,
    name: str,
    better: Mapping[str, Better] | None = None,
    roles: Mapping[str, MetricRole] | None = None,
) -> Aggregates:
    """One experiment of the file, its variants against the control that all of them share; arms are
    called `control` and `variant 1`, metrics `metric 1`.

    Raises:
        TableError: there is none of this name, or its series cannot be put side by side: a moment
            that cannot be, other looks, other users of the control.
        MetricError: `better` or `roles` of no metric, or no direction or role.
    """
    mine = [i for i, one in enumerate(series.names) if one[0] == name]
    if not mine:
        known = list(dict.fromkeys(one[0] for one in series.names))
        more = f" and {len(known) - 10:,} more" if len(known) > 10 else ""
        raise TableError(
            f"no experiment {name!r} in this file; it has {', '.join(known[:10])}{more}"
        )
    for i in mine:
        if series.faults[i]:
            raise TableError(series.faults[i])
    variants = list(dict.fromkeys(series.names[i][1] for i in mine))
    metrics = list(dict.fromkeys(series.names[i][2] for i in mine))
    times = series.times[mine[0]]
    looks = int(np.isfinite(times).sum())
    shape = (len(variants) + 1, looks, len(metrics))
    n, mean, variance = np.zeros(shape), np.full(shape, np.nan), np.full(shape, np.nan)
    for i in mine:
        if not np.array_equal(series.times[i], times, equal_nan=True):
            _, variant, metric = series.names[i]
            raise TableError(
                f"experiment {name!r}: variant {variant}, metric {metric} has other looks"
                " than the first series; they cannot stand in one report"
            )
        at = metrics.index(series.names[i][2])
        for side, arm in ((0, 0), (1, variants.index(series.names[i][1]) + 1)):
            own = series.n[side, i, :looks]
            if n[arm, :, at].any() and not np.array_equal(n[arm, :, at], own):
                raise TableError(
                    f"experiment {name!r}: its variants have other users in the control; they are"
                    " no arms of one test"
                )
            n[arm, :, at] = own
            mean[arm, :, at] = series.mean[side, i, :looks]
            variance[arm, :, at] = series.variance[side, i, :looks]
    cov = np.full((*shape, len(metrics)), np.nan)
    each = np.arange(len(metrics))
    cov[..., each, each] = variance
    names = [f"metric {metric}" for metric in metrics]
    return Aggregates(
        ("control", *(f"variant {variant}" for variant in variants)),
        declared({one: metric_of(one, one) for one in names}, declarations(better, roles)),
        tuple(names),
        {one: (one, None) for one in names},
        {},
        tuple(f"{time:g}" for time in times[:looks]),
        shares_of(times[:looks]),
        CellMoments(n, mean, cov, np.full_like(cov, np.nan)),
        columns=(
            Use(KEYS[3], "look", f"{looks} looks, from {times[0]:g} to {times[looks - 1]:g}"),
        ),
    )
