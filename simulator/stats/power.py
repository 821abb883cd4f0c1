"""Power: how many users (or days) a lift needs, and the smallest lift that given users can show, by
formula and by simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from policies.products import matmul
from simulator.stats import tests
from simulator.stats.contrasts import values
from simulator.stats.intervals import quantile
from simulator.stats.moments import Floats
from simulator.stats.quadrature import legendre
from simulator.stats.randomise import Outcomes, Pair, Rate, draws, paired_pair, split_pair
from simulator.stats.units import TableError, UnitTable, UserDays
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
class Pilot:
    """What is known of a metric before a test is planned.

    Attributes:
        metric: its name.
        mean: control mean per user (or ratio of sums).
        sd: standard deviation of one user's (linearised) value.
        sd_difference: standard deviation of the difference between a user's twins, or None where
            nobody had twins or they never differ.
        correlation: of a user's value with the pre-period, or None where there is none.
        n_users: users that these come from; 0 for figures given by hand.
        log_errors: by design, the standard error of the logarithm of the users that a lift needs,
            from what the pilot's own users leave uncertain; empty for figures given by hand.
    """

    metric: str
    mean: float
    sd: float
    sd_difference: float | None = None
    correlation: float | None = None
    n_users: int = 0
    log_errors: Mapping[PlanName, float] = field(default_factory=dict)

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
        splits have n / 2 in each of two arms.

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
        arms: the number of users comes in multiples of it.
        estimated: means and slopes that are estimated, taken off the degrees of freedom.
        make: the samples that `simulate` tests.
    """

    words: str
    spread: Callable[[Pilot], float | None]
    without: str
    arms: int
    estimated: int
    make: Callable[[Outcomes, Floats, Floats], Pair]

    def df(self, n: float) -> float:
        """Degrees of freedom of the t test with `n` users in all, at least 1."""
        return max(n - self.estimated, 1.0)


def _of_halves(p: Pilot) -> float:
    """Two arms of n / 2 users: 2 sd."""
    return 2.0 * p.sd


def _of_adjusted_halves(p: Pilot) -> float | None:
    """2 sd sqrt(1 - r^2) (Deng et al., WSDM 2013, eq. 4)."""
    if p.correlation is None:
        return None
    return float(2.0 * p.sd * np.sqrt(1.0 - p.correlation**2))


PLANS: dict[PlanName, Plan] = {
    "paired": Plan(
        "twins: every user in both arms",
        lambda p: p.sd_difference,
        "without twins the paired design's variance is not known",
        arms=1,
        estimated=1,
        make=paired_pair,
    ),
    "split": Plan("each user in one arm", _of_halves, "", arms=2, estimated=2, make=split_pair),
    "cuped": Plan(
        "each user in one arm, adjusted for the pre-period",
        _of_adjusted_halves,
        "without a pre-period the adjusted design's variance is not known",
        arms=2,
        estimated=3,
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
        PowerError: the metric is constant or has mean 0.
    """
    if table.metrics[metric].is_figure:
        raise PowerError(f"{metric}: tests are planned for means and ratios, and it is neither")
    other = treatment if treatment is not None else next(a for a in table.arms if a != control)
    base, answers = values(table, metric, control, other)
    covariate = table.covariates.get(metric)
    correlation = None
    if covariate is not None:
        own = covariate
        if table.assigned is not None:
            own = covariate[table.assigned == table.arm(control)]
        if len(own) == len(base) and np.ptp(own) > 0 and np.ptp(base) > 0:
            correlation = float(
                np.clip(matmul(_standard(base), _standard(own)) / len(base), -0.999999, 0.999999)
            )
    difference = float((answers - base).std(ddof=1)) if table.paired and len(base) > 1 else 0.0
    sd = float(base.std(ddof=1)) if len(base) > 1 else float("nan")
    away: dict[PlanName, Floats] = {"split": base - base.mean()} if sd > 0 else {}
    if difference:
        away["paired"] = answers - base - (answers - base).mean()
    if correlation is not None and covariate is not None:
        away["cuped"] = _standard(base) - correlation * _standard(own)
    mean = float(base.mean()) if len(base) else float("nan")
    return Pilot(
        metric,
        mean,
        sd,
        difference or None,
        correlation,
        len(base),
        {design: _log_error(residuals, base) for design, residuals in away.items()} if mean else {},
    )


def _log_error(residuals: Floats, values: Floats) -> float:
    """Standard error of log(variance / mean^2), to which the users that a lift needs are
    proportional: by the delta method, each user i adds r_i^2 / s^2 - 1 - 2 (z_i - m) / m over n.
    """
    variance, mean = np.square(residuals).mean(), values.mean()
    influence = np.square(residuals) / variance - 1.0 - 2.0 * (values - mean) / mean
    return float(influence.std(ddof=1) / np.sqrt(len(values)))


def power(p: Pilot, lift: float, n: int, design: PlanName, level: float = 0.95) -> float:
    """The chance that a two-sided t test finds a true relative `lift` with `n` users in all.

    P(|T| > q) for noncentral T = (Z + shift) / S, by integrating over S = chi(df) / sqrt(df) (the
    distribution functions at hand are NaN far out): mean over S of Phi(shift - q S) + Phi(-shift -
    q S).
    """
    from scipy.special import chdtri, ndtr

    df = PLANS[design].df(n)
    q, shift = float(quantile(df, level)), abs(lift) / p.relative_error(design, n)
    node, weight = legendre(400)
    s = np.sqrt(chdtri(df, (1.0 + node) / 2.0) / df)
    return float(
        np.clip(matmul(weight / 2.0, ndtr(shift - q * s) + ndtr(-shift - q * s)), 0.0, 1.0)
    )


def detectable(
    p: Pilot, n: int, design: PlanName, target: float = 0.8, level: float = 0.95
) -> float:
    """The smallest relative lift that `n` users in all would show with power `target`."""
    return noncentrality(PLANS[design].df(n), target, level) * p.relative_error(design, n)


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
    return float(high + high % PLANS[design].arms)


@dataclass(frozen=True)
class Days:
    """How the relative variance of a user's total falls with the length of a test: (between +
    within / days) per user.

    Attributes:
        between: squared relative spread of users (or of twins' lasting differences): more days do
            not reduce it.
        within: squared relative spread of one user's days.
    """

    between: float
    within: float

    def at_least(self, other: Days) -> Days:
        """These components, and no less than those of `other`."""
        return Days(max(self.between, other.between), max(self.within, other.within))

    def needed(self, n: int, lift: float, target: float = 0.8, level: float = 0.95) -> float:
        """Days for `n` users (twins, or both arms of a split counted by 4 / n already in the
        components) to show `lift`; inf if never.
        """
        room = (lift / noncentrality(max(n - 2.0, 1.0), target, level)) ** 2 * n - self.between
        return float(np.ceil(self.within / room)) if room > 0 else float("inf")


def days_components(
    days: UserDays, metric: str, control: str, treatment: str | None = None
) -> Days | None:
    """The two components, by one-way random-effects analysis of variance over users; None for ratio
    metrics or fewer than two days.

    Between = MS_users - MS_within over days (Searle, Casella & McCulloch, "Variance components",
    1992, 3.5). With a `treatment` of a paired log: of the twins' differences; without: of a split
    test's two arms (variances times 4, for n users in all).
    """
    m = days.metrics[metric]
    if days.switched is not None:
        raise TableError(
            "how variance falls with days cannot be told from a switchback: its days belong to"
            " different arms"
        )
    if (
        m.denominator is not None
        or m.numerator.days is not None
        or days.days < 2
        or metric in days.missing
    ):
        return None
    cube = days.terms[m.numerator.name]
    own = cube[days.arms.index(control)].astype(np.float64)
    if days.assigned is not None:
        own = own[days.assigned == days.arms.index(control)]
    if treatment is not None and days.assigned is not None:
        raise TableError("twins' differences need a paired log")
    values = own if treatment is None else cube[days.arms.index(treatment)] - own
    mean, d = own.mean(), days.days
    within = float(values.var(axis=1, ddof=1).mean())
    between = max(float(values.mean(axis=1).var(ddof=1)) - within / d, 0.0)
    scale = (4.0 if treatment is None else 1.0) / mean**2 if mean else float("nan")
    return Days(between * scale, within * scale)


def simulate(
    o: Outcomes,
    lift: float,
    n: int,
    design: PlanName,
    repetitions: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Rate:
    """Power by simulation: samples of `n` users drawn from the run with a planted `lift`, each put
    through the t test of the design.
    """
    make, planted = PLANS[design].make, o.planted(lift)
    count = 0
    for heads, tails in draws(len(o.control[0]), n, repetitions, seed):
        with np.errstate(invalid="ignore"):
            count += int(
                np.count_nonzero(
                    np.asarray(tests.t_test(make(planted, heads, tails)[1]).p) < 1.0 - level
                )
            )
    return Rate.of(count, repetitions)


def population(table: UnitTable, metric: str, control: str, treatment: str) -> Outcomes:
    """The users that `simulate` draws from: both answers of a paired table; the control's own of a
    split one (then only split designs).
    """
    arms = (control, treatment if table.paired else control)
    own, other = (tuple(v for v in table.sums(metric, arm) if v is not None) for arm in arms)
    past = table.covariates.get(metric)
    if past is not None and table.assigned is not None:
        past = past[table.assigned == table.arm(control)]
    return _people(
        metric, treatment, own, other, past if past is not None and np.ptp(past) > 0 else None
    )


def imagined(p: Pilot, n: int = 2000, seed: int = 0) -> Outcomes:
    """Users with exactly the moments of a pilot, for `simulate` where nobody is at hand:
    gamma-distributed values (skewed, as sums of events are), a pre-period and a twin's difference
    that are linear in them but for independent normal noise.
    """
    from scipy.stats import gamma

    random = np.random.default_rng(seed)
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


def curve(
    p: Pilot,
    lift: float,
    design: PlanName,
    *,
    level: float = 0.95,
    points: int = 25,
    population: Outcomes | None = None,
    repetitions: int = 1000,
    seed: int = 0,
) -> Curve:
    """A power curve around the size that has power .8; with a `population`, simulated at its
    quarter, half and full size.
    """
    need = users_needed(p, lift, design, level=level)
    centre = min(need, float(MOST))
    users = tuple(
        int(n)
        for n in np.unique(
            np.maximum(np.geomspace(centre / 20, centre * 4, points), 8).astype(np.int64)
        )
    )
    checked: Sequence[int] = []
    if population is not None:
        checked = [max(int(centre * share), 8) for share in (0.25, 0.5, 1.0)]
    drawn = tuple(
        (n, simulate(population, lift, n, design, repetitions, seed, level))
        for n in checked
        if population is not None
    )
    return Curve(design, users, tuple(power(p, lift, n, design, level) for n in users), drawn)
