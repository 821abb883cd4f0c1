"""Power: how many users a lift needs, and the smallest lift that given users can show, by
formula and by simulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from policies.products import matmul
from simulator.stats import contrasts, passes, randomise, tests
from simulator.stats.adjustment import pre_periods
from simulator.stats.checks import intended
from simulator.stats.intervals import Side, quantile
from simulator.stats.moments import Floats
from simulator.stats.quadrature import legendre
from simulator.stats.randomise import Outcomes, Pair, Rate, draws, paired_pair, split_pair
from simulator.stats.streamed import StreamedTable
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import noncentrality

PlanName = Literal["paired", "split", "cuped"]
"""The names of the PLANS."""

PUBLISHED = {
    "comment": 0.00772,
    "forward": 0.00336,
    "play": 0.00143,
    "follow": 0.00027,
    "watch_time": 0.00017,
}
"""Lifts of the online test in arXiv 2404.08675, section 5.5 (1-5 July 2023)."""

MOST = 10**15
"""Users beyond which a need is given as infinite."""


class PowerError(ValueError):
    """Figures from which no power can be computed; the message names the figure and the rule."""


@dataclass(frozen=True)
class Arms:
    """How a test divides its users, where each is in one arm: the shares, of all users of all arms,
    that are in the two arms which are compared.
    """

    control: float = 0.5
    treatment: float = 0.5

    @classmethod
    def of(
        cls, arms: Sequence[str], control: str, treatment: str, ratio: Mapping[str, float] | None
    ) -> Arms:
        """Two of a test's `arms`, of which each has users by `ratio`, up to a common factor; equal
        ones if left out.

        Raises:
            TableError: a ratio that is not one positive number for each arm.
        """
        shares = intended(arms, ratio) or [1.0 / len(arms)] * len(arms)
        return cls(shares[arms.index(control)], shares[arms.index(treatment)])

    @property
    def factor(self) -> float:
        """The variance of the difference is this times that of a user, over all users."""
        return 1.0 / self.control + 1.0 / self.treatment

    @property
    def step(self) -> int:
        """Equal arms are filled evenly: users come in multiples of their number."""
        return round(1.0 / self.control) if self.control == self.treatment else 1

    def df(self, n: float) -> float:
        """Welch's degrees of freedom of `n` users in all, whose variance is the same in both arms;
        n - 2 of two equal arms.
        """
        first, second = n * self.control, n * self.treatment
        if first == second:
            return first + second - 2.0
        if min(first, second) <= 1.0:
            return 0.0
        parts = 1.0 / (first**2 * (first - 1.0)) + 1.0 / (second**2 * (second - 1.0))
        return (1.0 / first + 1.0 / second) ** 2 / parts


EQUAL_ARMS = Arms()
"""Two arms with half of the users each."""


@dataclass(frozen=True)
class Pilot:
    """What is known of a metric before a test is planned.

    Attributes:
        metric: its name.
        mean: control mean per user (or ratio of sums).
        sd: standard deviation of one user's (linearised) value.
        sd_difference: standard deviation of the difference between a user's twins, or None where
            nobody had twins or they never differ.
        correlation: of a user's value with the pre-period (of several columns the multiple one), or
            None where there is none.
        n_users: users that these come from; 0 for figures given by hand.
        log_errors: by design, the standard error of the logarithm of the users that a lift needs,
            from what the pilot's own users leave uncertain; empty for figures given by hand.
        arms: how users are divided in the test that is planned.
    """

    metric: str
    mean: float
    sd: float
    sd_difference: float | None = None
    correlation: float | None = None
    n_users: int = 0
    log_errors: Mapping[PlanName, float] = field(default_factory=dict)
    arms: Arms = EQUAL_ARMS

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and self.mean != 0):
            raise PowerError(
                f"{self.metric}: the mean must be a number other than 0 to speak of a relative"
                f" lift; got {self.mean}"
            )
        if not (np.isfinite(self.sd) and self.sd > 0):
            raise PowerError(
                f"{self.metric}: the standard deviation must be above 0; got {self.sd}"
            )
        if self.correlation is not None and not -1 < self.correlation < 1:
            raise PowerError(
                f"{self.metric}: the correlation with the pre-period must be in (-1, 1); got"
                f" {self.correlation}"
            )

    @property
    def designs(self) -> tuple[PlanName, ...]:
        """The designs whose variance is known."""
        return tuple(name for name, plan in PLANS.items() if plan.spread(self) is not None)

    def relative_error(self, design: PlanName, n: float) -> float:
        """Standard error of the relative difference with `n` users in all: twins are one user,
        splits divide them as `arms` says.

        Raises:
            PowerError: the design's variance is not known.
        """
        plan = PLANS[design]
        spread = plan.spread(self)
        if spread is None:
            raise PowerError(f"{self.metric}: {plan.without}")
        return float(spread / abs(self.mean) / np.sqrt(n))


@dataclass(frozen=True)
class Plan:
    """A design as a test is planned with it.

    Attributes:
        words: what it is.
        spread: of a pilot: the standard error of the difference times sqrt(users in all); None
            where the pilot does not know it.
        without: what the pilot then lacks.
        divides: whether each user is in one arm.
        slopes: that are estimated beside means, taken off the degrees of freedom.
        make: the samples that `simulate` tests.
    """

    words: str
    spread: Callable[[Pilot], float | None]
    without: str
    divides: bool
    slopes: int
    make: Callable[[Outcomes, Floats, Floats], Pair]

    def df(self, n: float, arms: Arms) -> float:
        """Degrees of freedom of the t test with `n` users in all, at least 1."""
        return max((arms.df(n) if self.divides else n - 1.0) - self.slopes, 1.0)

    def step(self, arms: Arms) -> int:
        """The number of users comes in multiples of it."""
        return arms.step if self.divides else 1


def _of_split(p: Pilot) -> float:
    """sd sqrt(1 / share + 1 / share), 2 sd of two halves; no less than twins have.

    (t - c)^2 <= t^2 / a + c^2 / b for shares a + b <= 1 (Cauchy & Schwarz), so that twins need at
    most the users of a split. Only the control's sd is known here, and where the treatment's is far
    above it, the twins' difference says so.
    """
    return max(math.sqrt(p.arms.factor) * p.sd, p.sd_difference or 0.0)


def _of_adjusted_split(p: Pilot) -> float | None:
    """The same times sqrt(1 - r^2) (Deng et al., WSDM 2013, eq. 4); no less than twins have, whose
    difference is the same of adjusted values.
    """
    if p.correlation is None:
        return None
    own = math.sqrt(p.arms.factor * (1.0 - p.correlation**2)) * p.sd
    return max(own, p.sd_difference or 0.0)


PLANS: dict[PlanName, Plan] = {
    "paired": Plan(
        "twins: every user in both arms",
        lambda p: p.sd_difference,
        "without twins the paired design's variance is not known",
        divides=False,
        slopes=0,
        make=paired_pair,
    ),
    "split": Plan("each user in one arm", _of_split, "", divides=True, slopes=0, make=split_pair),
    "cuped": Plan(
        "each user in one arm, adjusted for the pre-period",
        _of_adjusted_split,
        "without a pre-period the adjusted design's variance is not known",
        divides=True,
        slopes=1,
        make=partial(split_pair, adjusted=True),
    ),
}
"""Twins with a covariate are not a further design: both twins have the same past, and it cancels in
their difference.
"""


def pilot(table: UnitTable, metric: str, control: str, treatment: str | None = None) -> Pilot:
    """The pilot figures of a table; `treatment` is needed for the paired design only (its twins'
    difference).

    Raises:
        TableError: no such arm, or no data.
        PowerError: the metric is constant or has mean 0, or is a quantile or a figure of choice.
    """
    if metric not in table.metrics:
        raise PowerError(f"{metric}: no such metric; there are {', '.join(table.metrics)}")
    if table.metrics[metric].is_figure:
        kind = "a figure of choice" if table.metrics[metric].quantile is None else "a quantile"
        raise PowerError(f"{metric}: tests are planned for means and ratios; it is {kind}")
    if metric not in table.numerators:
        raise PowerError(f"{metric}: no data")
    other = treatment if treatment is not None else next(a for a in table.arms if a != control)
    over = partial(table.mapped, metrics=[metric])
    values = contrasts.PairValues.of(table, metric, control, other)
    past = past_of(table, metric, control, over, partial(_of_control, values))
    columns = _PilotColumns(values, past)
    spreads = passes.spreads(over, columns, 1 + table.paired + (past is not None))
    base, n = spreads[0], spreads[0].n
    sd, correlation = base.deviation(1), None
    difference = spreads[1].deviation(1) if table.paired and n > 1 else 0.0
    if past is not None and base.high > base.low:
        products = over(partial(_product, columns, base, spreads[-1]))
        correlation = float(np.clip(sum(products) / n, -0.999999, 0.999999))
    designs: list[PlanName] = []
    designs += ["split"] if sd > 0 else []
    designs += ["paired"] if difference else []
    designs += ["cuped"] if correlation is not None else []
    residuals = _Residuals(columns, tuple(designs), tuple(spreads), correlation or 0.0)
    errors = _log_errors(over, residuals) if base.mean else {}
    return Pilot(metric, base.mean, sd, difference or None, correlation, n, errors)


@dataclass(frozen=True)
class PastOf:
    """What an arm's users of a stretch had before the test.

    Attributes:
        arm: by name.
        names: the columns.
        spreads: of the columns, of all the arm's users.
        slopes: of several columns, what each standardised one counts in their sum.
    """

    arm: str
    names: tuple[str, ...]
    spreads: tuple[passes.ColumnSpread, ...] = ()
    slopes: Floats | None = None

    def columns(self, stretch: UnitTable | UserDays) -> list[Floats]:
        """Each of the columns `[n]`."""
        own: Any = slice(None)
        if stretch.assigned is not None:
            own = stretch.assigned == stretch.arms.index(self.arm)
        return [np.asarray(stretch.covariates[name], dtype=np.float64)[own] for name in self.names]

    def standard(self, stretch: UnitTable | UserDays) -> Floats:
        """The columns with mean 0 and standard deviation 1, `[n, columns]`."""
        pairs = zip(self.spreads, self.columns(stretch), strict=True)
        return np.stack([spread.standard(own) for spread, own in pairs], axis=1)

    def __call__(self, stretch: UnitTable | UserDays) -> Floats:
        if self.slopes is None:
            return self.columns(stretch)[0]
        return np.asarray(matmul(self.standard(stretch), self.slopes[:, None])[:, 0])


def past_of(
    table: UnitTable,
    metric: str,
    control: str,
    over: passes.Pass,
    values: Callable[[Any], Floats],
) -> PastOf | None:
    """What the control's users had before the test, as the verdict adjusts for it
    (`adjustment.pre_periods`): one column, or of several the sum of them that is nearest to
    their values; None where there is none that varies.

    Args:
        table: by user.
        metric, control: by name.
        over: a pass over stretches of the table, or of the users' days.
        values: of the control's users in a stretch `[n]`; asked for where there are several
            columns.
    """
    declared = table.metrics[metric].covariates
    names: Sequence[str] = pre_periods(table).get(metric, ())
    if table.paired:
        # Twins are not adjusted, but a split test of the same users would be.
        names = [name for name in declared or () if name in table.covariates]
        if declared is None and metric in table.covariates:
            names = [metric]
    past = PastOf(control, tuple(names))
    spreads = passes.spreads(over, past.columns, len(names))
    varied = {name: one for name, one in zip(names, spreads, strict=True) if one.high > one.low}
    past = replace(past, names=tuple(varied), spreads=tuple(varied.values()))
    if len(varied) <= 1:
        return past if varied else None
    (base,) = passes.spreads(over, partial(_alone, values), 1)
    rows = np.concatenate(list(over(partial(_equations, past, values, base.mean))))
    slopes = np.linalg.lstsq(rows[:, :-1], rows[:, -1], rcond=None)[0]
    past = replace(past, slopes=slopes)
    (found,) = passes.spreads(over, partial(_alone, past), 1)
    return past if found.high > found.low else None


def _of_control(values: contrasts.PairValues, table: UnitTable) -> Floats:
    return values(table)[0]


def _alone(column: Callable[[Any], Floats], stretch: Any) -> list[Floats]:
    return [column(stretch)]


def _equations(past: PastOf, values: Callable[[Any], Floats], mean: float, stretch: Any) -> Floats:
    """The columns of a stretch, standardised, and its values less their mean, `[n, columns + 1]`:
    what least squares are taken of. Of a stretch of several no more rows than columns, which have
    the same least squares: the triangle R of Q R.
    """
    rows = np.column_stack((past.standard(stretch), values(stretch) - mean))
    return rows if len(rows) == past.spreads[0].n else np.asarray(np.linalg.qr(rows, mode="r"))


@dataclass(frozen=True)
class _PilotColumns:
    """Of the control's units in a stretch the values, the difference of twins, and the past."""

    values: contrasts.PairValues
    past: PastOf | None

    def __call__(self, table: UnitTable) -> list[Floats]:
        base, answers = self.values(table)
        twins = [answers - base] if table.paired else []
        return [base, *twins, *([] if self.past is None else [self.past(table)])]


def _product(
    columns: _PilotColumns,
    base: passes.ColumnSpread,
    past: passes.ColumnSpread,
    table: UnitTable,
) -> float:
    """The sum of the products of standardised values and pasts."""
    first, *_, last = columns(table)
    return float(matmul(base.standard(first), past.standard(last)))


@dataclass(frozen=True)
class _Residuals:
    """What designs leave of the values of units in a stretch, whose squares are their variance.

    Attributes:
        columns: of a stretch.
        designs: by name.
        spreads: of each of the columns.
        correlation: of the first one and the last one, the past.
    """

    columns: _PilotColumns
    designs: tuple[PlanName, ...]
    spreads: tuple[passes.ColumnSpread, ...]
    correlation: float

    def of(self, own: Sequence[Floats]) -> list[Floats]:
        """Those of each design, of the columns of a stretch."""
        left: dict[PlanName, Callable[[Sequence[Floats]], Floats]] = {
            "split": self._of_values,
            "paired": self._of_twins,
            "cuped": self._of_past,
        }
        return [left[design](own) for design in self.designs]

    def _of_values(self, own: Sequence[Floats]) -> Floats:
        return own[0] - self.spreads[0].mean

    def _of_twins(self, own: Sequence[Floats]) -> Floats:
        return own[1] - self.spreads[1].mean

    def _of_past(self, own: Sequence[Floats]) -> Floats:
        base, past = self.spreads[0], self.spreads[-1]
        return np.asarray(base.standard(own[0]) - self.correlation * past.standard(own[-1]))

    def squares(self, table: UnitTable) -> Floats:
        """The sum of the squares of each design."""
        return np.array([np.square(own).sum() for own in self.of(self.columns(table))])


def _log_errors(over: passes.Pass, residuals: _Residuals) -> dict[PlanName, float]:
    """Standard errors of log(variance / mean^2), to which the users that a lift needs are
    proportional: by the delta method, each user i adds r_i^2 / s^2 - 1 - 2 (z_i - m) / m over n,
    r_i the residual of a design and z_i the value.
    """
    if not residuals.designs:
        return {}
    values = residuals.spreads[0]
    variances = sum(found / values.n for found in over(residuals.squares))
    influences = partial(_log_influences, residuals, variances)
    spreads = passes.spreads(over, influences, len(residuals.designs))
    root = np.sqrt(values.n)
    pairs = zip(residuals.designs, spreads, strict=True)
    return {design: float(one.deviation(1) / root) for design, one in pairs}


def _log_influences(residuals: _Residuals, variances: Floats, table: UnitTable) -> list[Floats]:
    own, values = residuals.columns(table), residuals.spreads[0]
    away = 2.0 * (own[0] - values.mean) / values.mean
    pairs = zip(residuals.of(own), variances, strict=True)
    return [np.square(one) / variance - 1.0 - away for one, variance in pairs]


def power(
    p: Pilot,
    lift: float,
    n: int,
    design: PlanName,
    level: float = 0.95,
    *,
    one_sided: bool = False,
) -> float:
    """The chance that a t test finds a true relative `lift` with `n` users in all.

    P(|T| > q) for noncentral T = (Z + shift) / S, by integrating over S = chi(df) / sqrt(df) (the
    distribution functions at hand are NaN far out): mean over S of Phi(shift - q S) + Phi(-shift -
    q S). `one_sided`: of the one side of the test at `level` that the lift is on, P(T > q).
    """
    from scipy.special import chdtri, ndtr

    df = PLANS[design].df(n, p.arms)
    q, shift = float(quantile(df, level)), abs(lift) / p.relative_error(design, n)
    node, weight = legendre(400)
    s = np.sqrt(chdtri(df, (1.0 + node) / 2.0) / df)
    found = ndtr(shift - q * s)
    if not one_sided:
        found = found + ndtr(-shift - q * s)
    return float(np.clip(matmul(weight / 2.0, found), 0.0, 1.0))


def detectable(
    p: Pilot, n: int, design: PlanName, target: float = 0.8, level: float = 0.95
) -> float:
    """The smallest relative lift that `n` users in all would show with power `target`."""
    return noncentrality(PLANS[design].df(n, p.arms), target, level) * p.relative_error(design, n)


def users_needed(
    p: Pilot, lift: float, design: PlanName, target: float = 0.8, level: float = 0.95
) -> float:
    """Users in all (twins count once) for a relative `lift` to be found with power `target`; inf
    beyond a million billions.

    Raises:
        PowerError: the lift is 0.
    """
    if lift == 0:
        raise PowerError(f"{p.metric}: a lift of 0 cannot be found by any number of users")
    low, high = 4, 8
    while detectable(p, high, design, target, level) > abs(lift):
        low, high = high, high * 2
        if high > MOST:
            return float("inf")
    while high - low > 1:
        middle = (low + high) // 2
        if detectable(p, middle, design, target, level) > abs(lift):
            low = middle
        else:
            high = middle
    step = PLANS[design].step(p.arms)
    return float(-(-high // step) * step)


def simulate(
    o: Outcomes,
    lift: float,
    n: int,
    design: PlanName,
    repetitions: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    *,
    arms: Arms = EQUAL_ARMS,
    one_sided: bool = False,
) -> Rate:
    """Power by simulation: samples of `n` users in all drawn from the run with a planted `lift`,
    each put through the t test of the design, or through the one side of it that the lift is on.
    """
    plan, planted, alpha = PLANS[design], o.planted(lift), 1.0 - level
    size, share = n, 0.5
    side: Side = "two-sided"
    if plan.divides:
        compared = arms.control + arms.treatment
        size, share = round(n * compared), arms.treatment / compared
    if one_sided:
        side, alpha = "greater" if lift > 0 else "less", alpha / 2.0
    count = 0
    for heads, tails in draws(len(o.control[0]), size, repetitions, seed, share):
        found = tests.t_test(plan.make(planted, heads, tails)[1], side)
        with np.errstate(invalid="ignore"):
            count += int(np.count_nonzero(np.asarray(found.p) < alpha))
    return Rate.of(count, repetitions)


DRAWN_FROM = 1 << 16
"""Units that `simulate` draws from where those of a table stay in files: beside them the error of
their own variance is below that of a thousand samples.
"""


def at_hand(table: UnitTable) -> UnitTable:
    """The units that `simulate` draws from, in memory: those of the table, or DRAWN_FROM of them by
    chance where they come in stretches.
    """
    if isinstance(table, StreamedTable):
        return table.where(randomise.population(table.n_units, DRAWN_FROM, 0))
    return table


def population(table: UnitTable, metric: str, control: str, treatment: str) -> Outcomes:
    """The users that `simulate` draws from: both answers of a paired table; the control's own of a
    split one (then only split designs).
    """
    arms = (control, treatment if table.paired else control)
    own, other = (tuple(v for v in table.sums(metric, arm) if v is not None) for arm in arms)
    values = contrasts.PairValues.of(table, metric, control, treatment)
    past = past_of(table, metric, control, table.mapped, partial(_of_control, values))
    return _people(metric, treatment, own, other, None if past is None else past(table))


IMAGINED = 2000
"""Users of a pilot by hand."""


def imagined(p: Pilot) -> Outcomes:
    """IMAGINED users with exactly the moments of a pilot, for `simulate` where nobody is at hand:
    gamma-distributed values (skewed, as sums of events are), a pre-period and a twin's difference
    that are linear in them but for independent normal noise.
    """
    from scipy.stats import gamma

    n = IMAGINED
    random = np.random.default_rng(0)
    shape = (p.mean / p.sd) ** 2
    ranks = random.permutation(n)
    value = _standard(gamma.ppf((ranks + 0.5) / n, shape))
    noise = _standard(_without(random.standard_normal(n), value))
    r = p.correlation or 0.0
    before = None if p.correlation is None else r * value + np.sqrt(1.0 - r**2) * noise
    own = _standard(_without(_without(random.standard_normal(n), value), noise))
    control = p.mean + float(np.sign(p.mean)) * p.sd * value
    return _people(
        p.metric, "treatment", (control,), (control + (p.sd_difference or 0.0) * own,), before
    )


def _people(
    metric: str,
    arm: str,
    control: tuple[Floats, ...],
    treatment: tuple[Floats, ...],
    before: Floats | None,
) -> Outcomes:
    """Outcomes of whole users, their days as one."""
    control_day, treatment_day = (
        tuple(v[:, None] for v in answers) for answers in (control, treatment)
    )
    return Outcomes(metric, arm, control, treatment, control_day, treatment_day, before)


def _standard(values: Floats) -> Floats:
    """The values with mean 0 and standard deviation 1."""
    return np.asarray((values - values.mean()) / values.std())


def _without(values: Floats, other: Floats) -> Floats:
    """The values less what is linear in `other` (which is standard)."""
    return np.asarray(values - matmul(values, other) / len(other) * other)


@dataclass(frozen=True)
class Curve:
    """Power against users for one design: by formula everywhere, by simulation at some sizes.

    Attributes:
        design: the design.
        users: sizes `[k]`.
        formula: power `[k]`.
        simulated: (users, rate) pairs.
    """

    design: PlanName
    users: tuple[int, ...]
    formula: tuple[float, ...]
    simulated: tuple[tuple[int, Rate], ...] = ()


POINTS = 25
"""Sizes of a power curve."""


def curve(
    p: Pilot,
    lift: float,
    design: PlanName,
    *,
    level: float = 0.95,
    population: Outcomes | None = None,
    repetitions: int = 1000,
    one_sided: bool = False,
) -> Curve:
    """A power curve around the size that has power .8; with a `population`, simulated at its
    quarter, half and full size.
    """
    need = users_needed(p, lift, design, level=level)
    centre = min(need, float(MOST))
    users = tuple(
        int(n)
        for n in np.unique(
            np.maximum(np.geomspace(centre / 20, centre * 4, POINTS), 8).astype(np.int64)
        )
    )
    checked: Sequence[int] = []
    if population is not None:
        checked = [max(int(centre * share), 8) for share in (0.25, 0.5, 1.0)]
    drawn = tuple(
        (
            n,
            simulate(
                population,
                lift,
                n,
                design,
                repetitions,
                level=level,
                arms=p.arms,
                one_sided=one_sided,
            ),
        )
        for n in checked
        if population is not None
    )
    formula = tuple(power(p, lift, n, design, level, one_sided=one_sided) for n in users)
    return Curve(design, users, formula, drawn)
