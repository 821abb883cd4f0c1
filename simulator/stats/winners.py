"""Winners: of several arms the one that came first was chosen by its own luck, too.

The lift of the best-looking arm is too high on average, and its interval holds the true lift too
rarely: the best of 10 arms that do not differ is covered by its ordinary 95% interval in some 85 of
100 tests. Here are the estimate and the interval of the winner that are right although it was
chosen, and what a choice among the arms is worth: the chance of each to be the best, and what is
lost on average by taking it.

The winner's interval is the hybrid one of Andrews, Kitagawa & McCloskey, "Inference on winners",
Quarterly Journal of Economics 139 (2024), section 5. With W the winner's treatment mean less rho
times the control's, rho = 1 + the lift in question, W is normal with mean 0 if this is the true
lift (Fieller's theorem, `intervals.fieller`). That the arm came first says that W lies between two
bounds which do not depend on W itself, so that W is truncated normal there: that is the conditional
test. Its intervals are endless where the arm has won by little. So it is held together with the
simultaneous interval of all arms at 1 - beta, by which W is bounded, too, and made at
(alpha - beta) / (1 - beta), beta = alpha / 10. The two cover at least 1 - alpha together, and at
most (1 - alpha) / (1 - beta), 95.5% of 95%, whatever the true lifts and the covariance of the arms.
Student's law stands in place of the normal one where degrees of freedom are few; where they are
fewer than FEW_DF (two to four fits) the covariances are too uncertain for it, and the interval is
the simultaneous one of all arms at 1 - alpha, which is cautious.

Chances and regrets are those of the posterior of all lifts: multivariate Student around the
measured ones where nothing is known beforehand, or with a prior from earlier tests
(`stats.priors`). The control is one of the choices, with lift 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal

import numpy as np

from policies.products import matmul
from simulator.log.metrics import Metric
from simulator.stats import intervals
from simulator.stats.contrasts import TableMoments
from simulator.stats.intervals import Interval, Side, opened, two_sided
from simulator.stats.methods import FitTables, unknown
from simulator.stats.moments import Floats, Moments, relative
from simulator.stats.priors import Prior, posterior, triangle
from simulator.stats.rule import STANDARD, Rule
from simulator.stats.unit_table import Unit, UnitTable
from simulator.stats.user_days import UserDays

LEVEL = STANDARD.level
BETA = 0.1
"""Share of the error that the simultaneous interval may make: a tenth, as the paper has it."""

FEW_DF = 4.0
"""With 2 degrees of freedom the hybrid interval covers 92 to 94%, with 4 at least 94.5%."""

DRAWS = 40_000
"""Draws of the posterior: a chance is known to within .5% (two standard errors)."""

SEED = 0
"""Of the draws: the same lifts always have the same chances."""

PairMoments = Callable[[str, str], Moments | None]
"""The moments of one arm (second) against another (first); None where there is no data."""

Ground = Literal["models", "methods"]


@dataclass(frozen=True)
class Chance:
    """What is known of one arm, the control included, as the best.

    Attributes:
        arm: the arm.
        lift: as measured; 0 for the control.
        best: the probability that it is the best of all arms.
        regret: what is lost on average by taking it, as a lift: the best arm's true lift less its
            own. NaN where it has no mean (one degree of freedom: two fits).
        shrunk, shrunk_low, shrunk_high: mean of the posterior and its interval, at the level of the
            winner's, with a prior; NaN without one.
    """

    arm: str
    lift: float
    best: float
    regret: float
    shrunk: float = math.nan
    shrunk_low: float = math.nan
    shrunk_high: float = math.nan


@dataclass(frozen=True)
class Winner:
    """The best of several treatment arms in one metric.

    Attributes:
        metric: of what.
        on: whether the lifts are of the models that were trained or of the methods.
        arm: the treatment arm with the best lift.
        lift: its lift as measured.
        estimate: its lift, corrected for its having been chosen: the true one is above it as often
            as below. NaN where the control's mean is not distinguishable from 0.
        low, high: its corrected interval; infinite there. One-sided tests have one end.
        top_two: the two best-looking arms, the control included.
        top_two_best: the probability that the best of all is one of them.
        prior: whether chances, regrets and shrunk lifts rest on a prior.
        arms: every arm, the control first.
        level: of the interval, and of those with a prior.
    """

    metric: str
    on: Ground
    arm: str
    lift: float
    estimate: float
    low: float
    high: float
    top_two: tuple[str, ...]
    top_two_best: float
    prior: bool
    arms: tuple[Chance, ...]
    level: float = LEVEL


@dataclass(frozen=True)
class Race:
    """Several treatments against one control, in one metric.

    Attributes:
        arms: names of the K treatments.
        control, treatment: means `[K]`; the control's is that of each comparison (adjusted for
            covariates, they differ a little).
        var_control: variance of the control's mean `[K]`.
        with_control: covariance of each treatment's mean with the control's `[K]`.
        cov: covariances of the treatments' means `[K, K]`.
        df: degrees of freedom of each comparison `[K]`.
        sign: 1 where higher is better, -1 where lower is.
    """

    arms: tuple[str, ...]
    control: Floats
    treatment: Floats
    var_control: Floats
    with_control: Floats
    cov: Floats
    df: Floats
    sign: float = 1.0

    @classmethod
    def read(
        cls, compare: PairMoments, control: str, arms: Sequence[str], higher_is_better: bool = True
    ) -> Race | None:
        """The race of all arms that can be compared; None where they are fewer than two.

        The covariance of two treatments is that of their own comparison, so that any kind of
        moments will do: twins, split users, adjusted, methods.
        """
        own = {arm: compare(control, arm) for arm in arms}
        known = {arm: m for arm, m in own.items() if m is not None and _is_known(m)}
        if len(known) < 2:
            return None
        names, rows = tuple(known), list(known.values())
        cov = np.diag([float(m.var_treatment) for m in rows])
        for (j, one), (k, other) in combinations(enumerate(names), 2):
            between = compare(one, other)
            cov[j, k] = cov[k, j] = 0.0 if between is None else float(between.cov)
        return cls(
            names,
            np.array([m.control for m in rows], dtype=np.float64),
            np.array([m.treatment for m in rows], dtype=np.float64),
            np.array([m.var_control for m in rows], dtype=np.float64),
            np.array([m.cov for m in rows], dtype=np.float64),
            cov,
            np.array([m.df for m in rows], dtype=np.float64),
            1.0 if higher_is_better else -1.0,
        )

    @classmethod
    def of_lifts(
        cls, arms: Sequence[str], lifts: Floats, cov: Floats, df: float = math.inf
    ) -> Race:
        """The race of lifts (or differences) with known covariances, the more the better."""
        k = len(arms)
        none = np.zeros(k)
        return cls(tuple(arms), np.ones(k), 1.0 + lifts, none, none, cov, np.full(k, df))

    @property
    def lifts(self) -> Floats:
        """The relative lift of each treatment `[K]`."""
        return np.asarray(relative(self.control, self.treatment))

    @property
    def best(self) -> int:
        """The place of the treatment with the best lift."""
        return int(np.argmax(self.sign * self.lifts))

    @property
    def lift_cov(self) -> Floats:
        """Covariances of the lifts `[K, K]` by the delta method."""
        size, ratio = np.abs(self.control), self.treatment / self.control
        shared = np.sqrt(np.multiply.outer(self.var_control, self.var_control))
        across = np.multiply.outer(ratio, self.with_control)
        raw = self.cov - across - across.T + np.multiply.outer(ratio, ratio) * shared
        return np.asarray(raw / np.multiply.outer(size, size))


def _is_known(m: Moments) -> bool:
    return bool(m.variance > 0 and m.control != 0 and m.df >= 1)


def corrected(race: Race, level: float = LEVEL) -> tuple[float, float, float]:
    """Estimate and interval of the best treatment's lift that hold although it was chosen as the
    best (module docstring): (estimate, low, high).
    """
    from scipy.optimize import brentq
    from scipy.special import stdtrit

    k = race.best
    beta = BETA * (1.0 - level)
    rest = (1.0 - level - beta) / (1.0 - beta)
    df, own = _finite(race.df[k]), _own(race, k)
    is_hybrid = df >= FEW_DF
    # Simultaneous over the arms by Bonferroni: valid whatever their correlations.
    missed = beta if is_hybrid else 1.0 - level
    bound = float(stdtrit(df, 1.0 - missed / len(race.arms) / 2.0))
    low, high = (float(end) for end in intervals.fieller(own, critical=bound))
    if not (math.isfinite(low) and math.isfinite(high)):
        return math.nan, -math.inf, math.inf

    # By how much the winner leads each rival, in units of the metric.
    leads = race.sign * abs(race.control[k]) * (race.lifts[k] - race.lifts)

    def above(lift: float, share: float) -> float:
        return _share_below(race, k, leads, lift, bound) - share

    def at(share: float) -> float:
        # At its ends the share is 1 and 0 but for rounding.
        if above(low, share) <= 0.0:
            return low
        return high if above(high, share) >= 0.0 else float(brentq(above, low, high, (share,)))

    if not is_hybrid:
        return at(0.5), low, high
    return at(0.5), at(1.0 - rest / 2.0), at(rest / 2.0)


def _own(race: Race, k: int) -> Moments:
    """The comparison of one treatment with the control."""
    return Moments(
        race.control[k],
        race.treatment[k],
        race.var_control[k],
        race.cov[k, k],
        race.with_control[k],
        race.df[k],
        math.nan,
        math.nan,
        False,
    )


def _share_below(race: Race, k: int, leads: Floats, lift: float, bound: float) -> float:
    """The share of tests won by arm k in which W would be below what it is here, if `lift` were
    its true lift, and W were within `bound` standard errors. It falls from 1 to 0 over the
    simultaneous interval.
    """
    from scipy.special import stdtr

    rho = 1.0 + (lift if race.control[k] > 0 else -lift)
    against = race.with_control[k]
    variance = race.cov[k, k] - 2.0 * rho * against + rho**2 * race.var_control[k]
    w = race.treatment[k] - rho * race.control[k]
    # What W has to do with the leads.
    own = race.cov[k, k] - rho * against
    theirs = race.cov[:, k] - rho * race.with_control
    slopes = race.sign * (own - theirs) / variance
    slopes[k] = 0.0
    rising, falling = slopes > 0, slopes < 0
    se = math.sqrt(variance)
    first = max(-bound, (w - float((leads[rising] / slopes[rising]).min(initial=math.inf))) / se)
    last = min(bound, (w - float((leads[falling] / slopes[falling]).max(initial=-math.inf))) / se)
    here = min(max(w / se, first), last)
    df = _finite(race.df[k])
    below, at, above = stdtr(df, (first, here, last)).tolist()
    if above > below:
        return float((at - below) / (above - below))
    return (here - first) / (last - first) if last > first else 0.5


def _finite(df: float) -> float:
    """Degrees of freedom that scipy can take: a million and infinitely many are the same."""
    return min(float(df), 1e6)


def draws_of(race: Race, prior: Prior | None = None) -> Floats:
    """Draws `[DRAWS, K]` of the true lifts, given the measured ones.

    Without a prior they are multivariate Student around the measured lifts, with the least degrees
    of freedom of any comparison.
    """
    df = _finite(float(race.df.min()))
    generator = np.random.default_rng(SEED)
    if prior is not None:
        return posterior(race.lifts, race.lift_cov, df, prior, generator, DRAWS)
    from scipy.special import chdtri

    half = DRAWS // 2
    normal = matmul(generator.standard_normal((half, len(race.arms))), triangle(race.lift_cov).T)
    # Every scale of Student's law once, in chance order: its far tail is not left to luck.
    quantiles = (generator.permutation(half) + 0.5) / half
    scaled = normal * np.sqrt(df / chdtri(df, quantiles))[:, None]
    return np.concatenate((race.lifts + scaled, race.lifts - scaled))


def chances(
    race: Race, control: str, prior: Prior | None = None, level: float = LEVEL
) -> tuple[Chance, ...]:
    """Of every arm, the control first, the chance that it is the best, and the regret of it; with a
    prior the interval of its lift at `level`.
    """
    draws = draws_of(race, prior)
    worth = race.sign * np.concatenate((np.zeros((len(draws), 1)), draws), axis=1)
    best = np.bincount(worth.argmax(axis=1), minlength=worth.shape[1]) / len(draws)
    regret = worth.max(axis=1).mean() - worth.mean(axis=0)
    if prior is None and race.df.min() <= 1.0:
        regret = np.full(len(regret), np.nan)
    lifts = np.concatenate(([0.0], race.lifts))
    rows = []
    for place, arm in enumerate((control, *race.arms)):
        figures = [float(column[place]) for column in (lifts, best, regret)]
        if prior is not None and place:
            own = draws[:, place - 1]
            ends = np.quantile(own, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
            figures += [float(own.mean()), *map(float, ends)]
        rows.append(Chance(arm, *figures))
    return tuple(rows)


def winner(
    race: Race,
    control: str,
    metric: str,
    on: Ground = "models",
    prior: Prior | None = None,
    level: float = LEVEL,
    side: Side = "two-sided",
) -> Winner:
    """What is to be said of the best of several arms, by the rule of the metric's test."""
    arms = chances(race, control, prior, level)
    estimate, lower, upper = corrected(race, two_sided(level, side))
    low, high = map(float, opened(Interval(lower, upper), side))
    shrunk = [one.lift if prior is None or not i else one.shrunk for i, one in enumerate(arms)]
    order = sorted(range(len(arms)), key=lambda i: -race.sign * shrunk[i])[:2]
    return Winner(
        metric,
        on,
        race.arms[race.best],
        float(race.lifts[race.best]),
        estimate,
        low,
        high,
        tuple(arms[i].arm for i in order),
        sum(arms[i].best for i in order),
        prior is not None,
        arms,
        level,
    )


Priors = Mapping[str, Prior]
"""The prior of each metric that has one."""


def of_models(
    table: UnitTable,
    control: str,
    priors: Priors | None = None,
    covariates: Mapping[str, Sequence[str]] | None = None,
    rule: Rule = STANDARD,
) -> list[Winner]:
    """The best of several arms of a table, in every metric whose direction is known; [] where there
    are fewer than two treatment arms.

    Args:
        table: of any design.
        control: the control arm.
        priors: by metric.
        covariates: as `verdict.lifts`.
        rule: level and alternative of the interval.
    """
    samples = TableMoments(table, covariates or {})

    def comparer(metric: str) -> PairMoments | None:
        return partial(samples.moments, metric) if metric in table.numerators else None

    return best_of_arms(comparer, table.metrics, table.arms, control, "models", priors, rule)


def of_methods(
    days: UserDays,
    control: str,
    priors: Priors | None = None,
    unit: Unit = "user",
    rule: Rule = STANDARD,
) -> list[Winner]:
    """The same of methods (`stats.methods`): fits are as random as users. [] where fewer than two
    treatment arms have several fits, or the control has one.
    """
    known = [arm for arm in days.arms if arm == control or unknown(days, control, arm) is None]
    if len(known) < 3:
        return []
    read = FitTables.read(days, unit)

    def comparer(metric: str) -> PairMoments | None:
        if metric in days.missing:
            return None
        return lambda base, arm: read.replicated(metric, base, arm).methods

    return best_of_arms(comparer, days.metrics, known, control, "methods", priors, rule)


def best_of_arms(
    comparer: Callable[[str], PairMoments | None],
    metrics: Mapping[str, Metric],
    arms: Sequence[str],
    control: str,
    on: Ground = "models",
    priors: Priors | None = None,
    rule: Rule = STANDARD,
) -> list[Winner]:
    """The same of comparisons however they were made.

    Args:
        comparer: by metric, how two arms compare in it; None without data.
        metrics: by name.
        arms: the control among them.
        control: its name.
        on: what is compared.
        priors: by metric.
        rule: level and alternative of the interval.
    """
    found = []
    others = [arm for arm in arms if arm != control]
    for name, metric in metrics.items():
        compare = comparer(name)
        if compare is None or metric.higher_is_better is None or len(others) < 2:
            continue
        race = Race.read(compare, control, others, metric.higher_is_better)
        if race is not None:
            prior, side = (priors or {}).get(name), rule.side(metric)
            found.append(winner(race, control, name, on, prior, rule.level, side))
    return found
