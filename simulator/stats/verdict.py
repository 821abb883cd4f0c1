"""The verdict: the lift of each arm against the control, metric by metric, with interval, test,
correction and smallest detectable lift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from simulator.stats import intervals, tests
from simulator.stats.contrasts import TableMoments, compare
from simulator.stats.intervals import Method
from simulator.stats.moments import Moments
from simulator.stats.tests import Correction
from simulator.stats.units import Unit, UnitTable, UserDays

LEVEL = 0.95
POWER = 0.8

FAMILY = "all metrics of all treatment arms, for one kind of unit"
"""The family over which `p_adjusted` is corrected, as the report states it."""


@dataclass(frozen=True, slots=True)
class Lift:
    """A row of the verdict. Where the data cannot say, a number is NaN; no data at all has
    `n_units` 0.

    Attributes:
        metric: name of the metric.
        arm: the treatment arm.
        unit: "user", "day" or "user-day".
        control_mean: mean per unit in the control arm, or the ratio of sums for a ratio metric.
        treatment_mean: the same in the treatment arm.
        lift: (treatment - control) / |control|, a fraction (`moments.relative`).
        low: lower end of the 95% interval of `lift`; -inf where it is unbounded.
        high: upper end.
        t: the t statistic of the difference (paired or Welch, by design).
        df: its degrees of freedom.
        p: its two-sided p value.
        p_adjusted: p corrected for the family (`FAMILY`).
        n_units: pairs, or the units of both arms in a split design.
        mde: the smallest relative lift that the verdict would call a difference with power .8, as
            the only one of its family: at the level that the correction leaves it
            (`tests.level_of_one`).
        note: what an unbounded interval says, in words; else "".
    """

    metric: str
    arm: str
    unit: Unit
    control_mean: float
    treatment_mean: float
    lift: float
    low: float
    high: float
    t: float
    df: float
    p: float
    p_adjusted: float
    n_units: int
    mde: float
    note: str = ""

    @property
    def identical(self) -> bool:
        """Every unit (or pair) has the same value in both arms: there is nothing to test. One unit
        an arm cannot show that.
        """
        return self.low == self.high == 0.0 and np.isnan(self.p)

    @property
    def words(self) -> str:
        """What the row says, in a word or two (after correction): `identical`, `no data`,
        `not computable`, `up`, `down` or `undecided`.
        """
        if self.n_units == 0:
            return "no data"
        if self.identical:
            return "identical"
        if np.isnan(self.p_adjusted):
            return "not computable"
        if self.p_adjusted >= 1 - LEVEL:
            return "undecided"
        return "up" if self.treatment_mean > self.control_mean else "down"


ROW = tuple(one.name for one in fields(Lift) if one.name != "note")
"""The figures of a row, in order: the keys of a row of `lifts` in report.json."""


def lifts(
    table: UnitTable,
    control: str,
    *,
    metrics: Iterable[str] | None = None,
    covariates: Mapping[str, Sequence[str]] | None = None,
    method: Method = "fieller",
    correction: Correction = "holm",
) -> list[Lift]:
    """The lift of every other arm against `control` in every metric, corrected over all rows
    returned.

    Args:
        table: per-unit sums; its layout decides between paired and Welch tests.
        control: name of the control arm.
        metrics: names; None: all of the table, those without data as rows with `n_units` 0.
        covariates: by metric, the pre-period columns to adjust it for (CUPED; split tables only:
            twins need none); `own` gives the metric's own pre-period.
        method: interval of the relative lift.
        correction: of the p values over the rows returned.

    Returns:
        Rows by arm, then metric.

    Raises:
        TableError: no such arm or covariate.
    """
    table.arm(control)
    names = tuple(table.metrics if metrics is None else metrics)
    samples = TableMoments(table, covariates or {})
    rows = []
    for arm in table.arms:
        for name in names if arm != control else ():
            known = name in table.numerators
            rows.append(
                row(samples.moments(name, control, arm), name, arm, table.unit, method)
                if known
                else _no_data(name, arm, table.unit)
            )
    return in_family(rows, correction)


def in_family(rows: Sequence[Lift], correction: Correction = "holm") -> list[Lift]:
    """The rows as one family: p corrected for all of them, and the lift that the corrected verdict
    would find.
    """
    adjusted = tests.adjust(np.array([row.p for row in rows]), correction)
    level = 1.0 - tests.level_of_one(
        int(np.count_nonzero(~np.isnan(adjusted))), correction, 1.0 - LEVEL
    )
    return [
        replace(row, p_adjusted=float(p), mde=_at_level(row, level))
        for row, p in zip(rows, adjusted, strict=True)
    ]


def _at_level(row: Lift, level: float) -> float:
    """The row's smallest detectable lift, told at LEVEL, at another level."""
    if np.isnan(row.mde):
        return row.mde
    return row.mde * noncentrality(row.df, POWER, level) / noncentrality(row.df)


def verdict(
    days: UserDays,
    control: str,
    *,
    units: Iterable[Unit] = ("user", "day"),
    method: Method = "fieller",
    correction: Correction = "holm",
) -> list[Lift]:
    """All rows of the verdict of a log: by user and by day, each kind of unit its own family."""
    return [
        row
        for unit in units
        for row in lifts(days.by(unit), control, method=method, correction=correction)
    ]


def lift(
    table: UnitTable, metric: str, control: str, treatment: str, method: Method = "fieller"
) -> Lift:
    """One row, not corrected (`p_adjusted` = `p`)."""
    if metric not in table.numerators:
        return _no_data(metric, treatment, table.unit)
    return row(compare(table, metric, control, treatment), metric, treatment, table.unit, method)


def _no_data(metric: str, arm: str, unit: Unit) -> Lift:
    nan = float("nan")
    return Lift(metric, arm, unit, nan, nan, nan, nan, nan, nan, nan, nan, nan, 0, nan)


def row(m: Moments, metric: str, arm: str, unit: Unit, method: Method = "fieller") -> Lift:
    """The row that moments of one comparison amount to, however they were made (plain, adjusted,
    clustered).
    """
    test = tests.t_test(m)
    low, high = intervals.METHODS[method](m, LEVEL)
    ratio = m.lift
    if m.control == m.treatment and m.variance == 0:
        ratio = low = high = 0.0
    # Nothing is known of a ratio of which neither arm has a denominator.
    nothing = np.isnan(m.control) and np.isnan(m.treatment)
    return Lift(
        metric,
        arm,
        unit,
        float(m.control),
        float(m.treatment),
        float(ratio),
        float(low),
        float(high),
        float(test.statistic),
        float(test.df),
        float(test.p),
        float(test.p),
        0 if nothing else int(m.n_units),
        smallest_detectable(m),
        _note(m, method) if m.variance > 0 else "",
    )


def _note(m: Moments, method: Method) -> str:
    """Why an interval of the relative lift is unbounded or does not exist, in words; "" where it is
    an ordinary one.
    """
    if method == "log" and not m.control * m.treatment > 0:
        return (
            "the means do not have one sign, so the logarithm of their ratio, and an interval by"
            " it, does not exist"
        )
    return (intervals.unbounded(m, LEVEL) or "") if method == "fieller" else ""


def smallest_detectable(m: Moments, power: float = POWER, level: float = LEVEL) -> float:
    """The relative lift whose two-sided t test at 1 - `level` has the given power with the variance
    of `m`; NaN without variance.
    """
    if not (m.variance > 0 and m.control != 0 and m.df >= 1):
        return float("nan")
    return float(noncentrality(float(m.df), power, level) * np.sqrt(m.variance) / abs(m.control))


@lru_cache(maxsize=4096)
def noncentrality(df: float, power: float = POWER, level: float = LEVEL) -> float:
    """How many standard errors a true difference must be for a two-sided t test with `df` to have
    `power`.

    By the noncentral t distribution; rejections on the wrong side (below 1e-5 at power .8) are not
    counted as power.
    """
    from scipy.special import nctdtrinc, stdtrit

    return float(nctdtrinc(df, 1.0 - power, stdtrit(df, 0.5 + level / 2.0)))


def by_day(
    days: UserDays, control: str, *, cumulative: bool = False
) -> Iterator[tuple[int, list[Lift]]]:
    """The rows by user of each day alone, or of the days so far, as (day from 0, rows)."""
    for day in range(days.days):
        yield day, lifts(days.by("user", first=0 if cumulative else day, until=day + 1), control)
