"""The verdict: the lift of each arm against the control, metric by metric, with interval, test,
correction and smallest detectable lift.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from simulator.log.metrics import Metric, MetricRole
from simulator.stats import intervals, tests
from simulator.stats.adjustment import declared_periods
from simulator.stats.contrasts import Further, TableMoments, compare
from simulator.stats.intervals import Interval, Method, Side, opened, two_sided
from simulator.stats.joint import JointLaw
from simulator.stats.moments import Floats, Moments
from simulator.stats.rule import STANDARD, Rule
from simulator.stats.tests import Correction
from simulator.stats.unit_table import Unit, UnitTable
from simulator.stats.user_days import UserDays

LEVEL = STANDARD.level
POWER = 0.8

FAMILY = "all metrics of all treatment arms, for one kind of unit"
"""The family over which `p_adjusted` is corrected where no roles are declared, as the report states
it.
"""

FAMILY_OF_ROLES = "metrics of like roles of all treatment arms, for one kind of unit"
"""The same where roles are declared (`FAMILIES`)."""

Family = Literal["success", "safety", "exploratory"]

FAMILIES: dict[MetricRole, Family] = {
    "success": "success",
    "guardrail": "safety",
    "deterioration": "safety",
    "quality": "safety",
    "exploratory": "exploratory",
}
"""The tests that are corrected together follow from what they are for: a success is not charged for
what is looked at besides. Of successes, one is enough to ship, so their error is divided among them
(a union of rejections); of the tests of safety, one is enough not to ship, so that theirs is, too
(Schultzberg, Ankargren & Fraanberg, arXiv 2402.11609, section 4). Both by Bonferroni, whose
intervals are simultaneous; the rest as chosen.
"""


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
        low: lower end of the interval of `lift` at `confidence`; -inf where it is unbounded.
        high: upper end.
        t: the t statistic of the difference (paired or Welch, by design); of proportions by
            Newcombe's interval z.
        df: its degrees of freedom.
        p: its p value, of the differences that `alternative` names.
        p_adjusted: p corrected for the family (`FAMILY`).
        n_units: pairs, or the units of both arms in a split design.
        mde: the smallest relative lift that the verdict would call a difference with power .8, as
            the only one of its family: at the level that the correction leaves it
            (`tests.level_of_one`).
        se: standard error of treatment_mean - control_mean.
        difference_low, difference_high: the interval of `difference` at `confidence`, in units of
            the metric (Student's; with Newcombe's interval, his).
        level_adjusted: of the interval that goes with `p_adjusted` (`tests.thresholds`).
        low_adjusted, high_adjusted: the ends of that interval of `lift`: it excludes 0 exactly
            where p_adjusted is below 1 - confidence (with Fieller's interval, and Newcombe's).
        difference_low_adjusted, difference_high_adjusted: that of the difference.
        confidence: level of the rule (`rule.Rule`): 95%, or as chosen.
        alternative: of which differences the row asks. One-sided intervals have one end.
        note: what an unbounded interval at `level_adjusted` says, in words; else "".
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
    se: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    level_adjusted: float = LEVEL
    low_adjusted: float = math.nan
    high_adjusted: float = math.nan
    difference_low_adjusted: float = math.nan
    difference_high_adjusted: float = math.nan
    confidence: float = LEVEL
    alternative: Side = "two-sided"
    note: str = ""

    @property
    def difference(self) -> float:
        """treatment_mean - control_mean, in units of the metric."""
        return self.treatment_mean - self.control_mean

    @property
    def two_sided_level(self) -> float:
        """The level of the two-sided test that is as strict as the corrected one."""
        return two_sided(self.level_adjusted, self.alternative)

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
        if self.p_adjusted >= 1 - self.confidence:
            return "undecided"
        return "up" if self.treatment_mean > self.control_mean else "down"


ROW = (*(one.name for one in fields(Lift) if one.name != "note"), "difference")
"""The figures of a row, in order: the keys of a row of `lifts` in report.json."""


def lifts(
    table: UnitTable,
    control: str,
    *,
    metrics: Iterable[str] | None = None,
    covariates: Mapping[str, Sequence[str]] | None = None,
    method: Method = "fieller",
    correction: Correction = "holm",
    further: Further | None = None,
    rule: Rule = STANDARD,
) -> list[Lift]:
    """The lift of every other arm against `control` in every metric, corrected over all rows
    returned, those of each family by themselves (`FAMILIES`).

    Args:
        table: per-unit sums; its layout decides between paired and Welch tests.
        control: name of the control arm.
        metrics: names; None: all of the table, those without data as rows with `n_units` 0.
        covariates: by metric, the pre-period columns to adjust it for (CUPED; split tables only:
            twins need none); `own` gives the metric's own pre-period.
        method: interval of the relative lift.
        correction: of the p values over the exploratory rows returned; "none": of no row.
        further: comparisons by other units; those with a role are corrected with these.
        rule: level and alternative of every test.

    Returns:
        Rows by arm, then metric; then those of `further` that have a role.

    Raises:
        TableError: no such arm or covariate.
    """
    table.arm(control)
    places = [(control, arm) for arm in table.arms if arm != control]
    return _compared(table, places, metrics, covariates, method, correction, rule, further)


def pairs(
    table: UnitTable,
    control: str,
    *,
    covariates: Mapping[str, Sequence[str]] | None = None,
    method: Method = "fieller",
    correction: Correction = "holm",
    rule: Rule = STANDARD,
) -> list[tuple[str, Lift]]:
    """The lift of every arm over every other one, the control first, corrected over all of them;
    each pair once. The arguments are those of `lifts`; with Dunnett's correction that is Tukey's
    comparison of all pairs (Tukey 1953; Kramer, Biometrics 1956), of any design and of several
    metrics at once.

    Returns:
        (the arm that is compared with, the row), by pair, then metric.
    """
    table.arm(control)
    arms = [control, *(arm for arm in table.arms if arm != control)]
    places = [(first, then) for i, first in enumerate(arms) for then in arms[i + 1 :]]
    rows = _compared(table, places, None, covariates, method, correction, rule)
    per_pair = len(rows) // len(places)
    return [(places[i // per_pair][0], row) for i, row in enumerate(rows)]


def _compared(
    table: UnitTable,
    places: Sequence[tuple[str, str]],
    metrics: Iterable[str] | None,
    covariates: Mapping[str, Sequence[str]] | None,
    method: Method,
    correction: Correction,
    rule: Rule,
    further: Further | None = None,
) -> list[Lift]:
    """The rows of pairs of arms (control, treatment), by pair, then metric."""
    names = tuple(table.metrics if metrics is None else metrics)
    samples = TableMoments(table, covariates or {})
    comparisons = []
    for control, arm in places:
        for name in names:
            is_known = name in table.numerators
            m = samples.moments(name, control, arm) if is_known else None
            comparisons.append(Uncorrected(name, arm, table.unit, m, control))
    metrics_of = dict(table.metrics)
    if further is not None:
        for control, arm in places:
            comparisons += compared_further(further, control, [arm], with_role=True)
        metrics_of |= further.metrics

    def correlations(some: Sequence[Uncorrected]) -> Floats:
        """Of users; of other units among themselves. Users and other units are taken as
        independent, on the safe side (`TableMoments.correlations`).
        """
        of_users = [one.metric in table.metrics for one in some]
        joint = np.eye(len(some))
        for group, source in ((True, samples), (False, further)):
            at = [place for place, is_of_users in enumerate(of_users) if is_of_users == group]
            if at and source is not None:
                asked = [(some[i].metric, some[i].control, some[i].arm) for i in at]
                joint[np.ix_(at, at)] = source.correlations(asked)
        return joint

    return in_families(comparisons, metrics_of, method, correction, rule, correlations)


def compared_further(
    further: Further, control: str, arms: Iterable[str], *, with_role: bool
) -> list[Uncorrected]:
    """The comparisons by other units, of the metrics that have a role or of the others."""
    return [
        Uncorrected(name, arm, further.unit, further.moments(name, control, arm), control)
        for arm in arms
        for name, metric in further.metrics.items()
        if (metric.role != "exploratory") == with_role
    ]


@dataclass(frozen=True, slots=True)
class Uncorrected:
    """One comparison before it joins its family; `moments`: None without data; `control`: the arm
    that it is compared with, where that must be known.
    """

    metric: str
    arm: str
    unit: Unit
    moments: Moments | None
    control: str = ""


Correlations = Callable[[Sequence[Uncorrected]], Floats]
"""How the estimates of comparisons go together, `[k, k]`."""


def in_families(
    comparisons: Sequence[Uncorrected],
    metrics: Mapping[str, Metric],
    method: Method = "fieller",
    correction: Correction = "holm",
    rule: Rule = STANDARD,
    correlations: Correlations | None = None,
) -> list[Lift]:
    """The rows of comparisons, each corrected in the family of its metric's role; in their order.

    Raises:
        TableError: Dunnett's correction, where no `correlations` are known.
    """
    families: dict[Family, list[int]] = {}
    for place, one in enumerate(comparisons):
        families.setdefault(FAMILIES[metrics[one.metric].role], []).append(place)
    rows: dict[int, Lift] = {}
    for family, places in families.items():
        own = correction_in(family, correction)
        members = [comparisons[place] for place in places]
        sides = [rule.side(metrics[one.metric]) for one in members]
        corrected = in_family(members, method, own, rule.level, sides, correlations)
        rows.update(zip(places, corrected, strict=True))
    return [rows[place] for place in range(len(comparisons))]


def correction_in(family: Family, correction: Correction) -> Correction:
    """How p is corrected in a family, where `correction` is chosen for what is exploratory."""
    is_kept = family == "exploratory" or correction in ("none", "dunnett")
    return correction if is_kept else "bonferroni"


def in_family(
    comparisons: Sequence[Uncorrected],
    method: Method = "fieller",
    correction: Correction = "holm",
    level: float = LEVEL,
    sides: Sequence[Side] | None = None,
    correlations: Correlations | None = None,
) -> list[Lift]:
    """The rows of comparisons as one family: p corrected for all of them, the interval that says
    the same, and the lift that the corrected verdict would find.

    Args:
        comparisons: `[k]`.
        method: interval of the relative lift.
        correction: of p.
        level: of the family.
        sides: `[k]`; None: two-sided.
        correlations: for Dunnett's correction.

    Raises:
        TableError: as `in_families`.
    """
    sides = sides or ["two-sided"] * len(comparisons)
    rows = [
        _uncorrected(one, method, level, side) for one, side in zip(comparisons, sides, strict=True)
    ]
    p = np.array([row.p for row in rows])
    tested = [int(place) for place in np.flatnonzero(~np.isnan(p))]
    law = None
    if correction == "dunnett" and correlations is not None and len(tested):
        law = JointLaw.of(
            correlations([comparisons[place] for place in tested]),
            min(rows[place].df for place in tested),
            [sides[place] for place in tested],
        )
    adjusted = tests.adjust(p, correction, law)
    alphas = tests.thresholds(p, correction, 1.0 - level, law)
    of_one = tests.level_of_one(len(tested), correction, 1.0 - level)
    if law is not None:
        of_one = law.threshold(1.0 - level)
    corrected = []
    for one, row, p_adjusted, alpha in zip(comparisons, rows, adjusted, alphas, strict=True):
        own = row
        if one.moments is not None and not np.isnan(alpha):
            own = _with_ends(row, one.moments, method, 1.0 - float(alpha))
        mde = _at_level(row, two_sided(1.0 - of_one, row.alternative))
        corrected.append(replace(own, p_adjusted=float(p_adjusted), mde=mde))
    return corrected


def _uncorrected(one: Uncorrected, method: Method, level: float, side: Side) -> Lift:
    if one.moments is None:
        return _no_data(one.metric, one.arm, one.unit)
    return row(one.moments, one.metric, one.arm, one.unit, method, level, side)


def _with_ends(row: Lift, m: Moments, method: Method, level: float) -> Lift:
    """The row with its intervals at `level`, and what an unbounded one of them says."""
    low, high = ends(m, method, level, row.alternative)
    difference_low, difference_high = _difference_ends(m, method, level, row.alternative)
    return replace(
        row,
        level_adjusted=level,
        low_adjusted=low,
        high_adjusted=high,
        difference_low_adjusted=difference_low,
        difference_high_adjusted=difference_high,
        note=_note(m, method, two_sided(level, row.alternative)),
    )


def _at_level(row: Lift, level: float) -> float:
    """The row's smallest detectable lift, told at its own level, at another one (two-sided)."""
    if np.isnan(row.mde):
        return row.mde
    own = noncentrality(row.df, POWER, two_sided(row.confidence, row.alternative))
    return row.mde * noncentrality(row.df, POWER, level) / own


def verdict(
    days: UserDays,
    control: str,
    *,
    units: Iterable[Unit] = ("user", "day"),
    method: Method = "fieller",
    correction: Correction = "holm",
    further: Further | None = None,
    rule: Rule = STANDARD,
) -> list[Lift]:
    """All rows of the verdict of a log: by user and by day, each kind of unit its own family;
    `further` joins that by user. Users are adjusted for the pre-period that is declared of a
    metric; days have none.
    """
    rows = []
    for unit in units:
        table, by_users = days.by(unit), unit == "user"
        rows += lifts(
            table,
            control,
            covariates=declared_periods(table) if by_users else {},
            method=method,
            correction=correction,
            further=further if by_users else None,
            rule=rule,
        )
    return rows


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


def row(
    m: Moments,
    metric: str,
    arm: str,
    unit: Unit,
    method: Method = "fieller",
    level: float = LEVEL,
    side: Side = "two-sided",
) -> Lift:
    """The row that moments of one comparison amount to, however they were made (plain, adjusted,
    clustered), as the only one of its family.
    """
    test = tests.fitting(m, method, side)
    low, high = ends(m, method, level, side)
    difference_low, difference_high = _difference_ends(m, method, level, side)
    # Nothing is known of a ratio of which neither arm has a denominator.
    nothing = np.isnan(m.control) and np.isnan(m.treatment)
    return Lift(
        metric,
        arm,
        unit,
        float(m.control),
        float(m.treatment),
        0.0 if _is_identical(m) else float(m.lift),
        low,
        high,
        float(test.statistic),
        float(test.df),
        float(test.p),
        float(test.p),
        0 if nothing else int(m.n_units),
        smallest_detectable(m, level=two_sided(level, side)),
        se=float(np.sqrt(m.variance)),
        difference_low=difference_low,
        difference_high=difference_high,
        level_adjusted=level,
        low_adjusted=low,
        high_adjusted=high,
        difference_low_adjusted=difference_low,
        difference_high_adjusted=difference_high,
        confidence=level,
        alternative=side,
        note=_note(m, method, two_sided(level, side)),
    )


def _is_identical(m: Moments) -> bool:
    return bool(m.control == m.treatment and m.variance == 0)


def ends(m: Moments, method: Method, level: float, side: Side) -> Interval:
    """The interval of the lift; 0 alone where no unit differs, and NaN where each arm has one
    value, which tells nothing of other units: a point would read as certainty.
    """
    if _is_identical(m):
        return Interval(0.0, 0.0)
    low, high = intervals.METHODS[method](m, two_sided(level, side))
    if low == high:
        return Interval(math.nan, math.nan)
    return Interval(*map(float, opened(Interval(low, high), side)))


def _difference_ends(m: Moments, method: Method, level: float, side: Side) -> Interval:
    """The interval of the difference; 0 where no unit differs, NaN where nothing varies."""
    if _is_identical(m):
        return Interval(0.0, 0.0)
    if m.variance == 0:
        return Interval(math.nan, math.nan)
    ends = intervals.difference_by(m, method, two_sided(level, side))
    return Interval(*map(float, opened(ends, side)))


def _note(m: Moments, method: Method, level: float) -> str:
    """Why an interval of the relative lift is unbounded or does not exist, in words; "" where it is
    an ordinary one.
    """
    if not m.variance > 0:
        return m.note
    if method == "log" and not m.control * m.treatment > 0:
        return (
            "the means do not have one sign, so the logarithm of their ratio, and an interval by"
            " it, does not exist"
        )
    return (intervals.unbounded(m, level) or "") if method == "fieller" else ""


def smallest_detectable(m: Moments, level: float = LEVEL) -> float:
    """The relative lift whose two-sided t test at 1 - `level` has power POWER with the variance of
    `m`; NaN without variance.
    """
    if not (m.variance > 0 and m.control != 0 and m.df >= 1):
        return float("nan")
    return float(noncentrality(float(m.df), level=level) * np.sqrt(m.variance) / abs(m.control))


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
    days: UserDays, control: str, *, rule: Rule = STANDARD
) -> Iterator[tuple[int, list[Lift]]]:
    """The rows by user of each day alone, as (day from 0, rows)."""
    for day in range(days.days):
        yield day, lifts(days.by("user", first=day, until=day + 1), control, rule=rule)
