"""Durations: how many days a lift needs, of twins, a split, and a split that is adjusted for the
pre-period.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from policies.products import matmul
from simulator.stats.moments import Floats, linearised_by
from simulator.stats.passes import Pass, spreads
from simulator.stats.power import EQUAL_ARMS, PLANS, Arms, PastOf, PlanName, PowerError, past_of
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import noncentrality

DRAWS = 1000
"""Draws of what the pilot's users leave uncertain of a duration."""

ROUNDED = 1e-12
"""An eigenvalue of correlations below which it is what rounding leaves of 0."""


@dataclass(frozen=True)
class DaysNeeded:
    """Days that a lift needs, with the 95% interval that the pilot's users leave open; inf where no
    number of days is enough.
    """

    days: float
    low: float
    high: float


@dataclass(frozen=True)
class Duration:
    """How the relative variance of a difference falls with the length of a test.

    A user's mean per day differs from that of others for good, and by the days that were looked at:
    over d days the variance is spread (lasting + (1 - lasting) D / d). After the D days of the
    pilot it is that of the pilot, so that users and days of a plan are told by one variance.

    Attributes:
        spread: the squared `Pilot.relative_error` of one user `[1 + DRAWS]`: as measured, then as
            it may be.
        lasting: the share of it that more days do not reduce `[1 + DRAWS]`, in [0, 1].
        days: D.
        design: whose degrees of freedom are used.
        arms: how users are divided.
    """

    spread: Floats
    lasting: Floats
    days: int
    design: PlanName
    arms: Arms = EQUAL_ARMS

    def needed(self, n: int, lift: float, target: float = 0.8, level: float = 0.95) -> DaysNeeded:
        """Days for `n` users in all to show `lift`."""
        df = PLANS[self.design].df(n, self.arms)
        room = (lift / noncentrality(df, target, level)) ** 2 * n / self.spread - self.lasting
        with np.errstate(divide="ignore", invalid="ignore"):
            days = np.where(room > 0, (1.0 - self.lasting) * self.days / room, np.inf)
        # What needs exactly the pilot's days needs no further one by rounding.
        whole = np.maximum(np.ceil(days - 1e-9 * np.minimum(days, 1e9)), 1.0)
        low, high = np.quantile(whole[1:], [0.025, 0.975], method="inverted_cdf")
        return DaysNeeded(float(whole[0]), float(low), float(high))

    def at_least(self, other: Duration) -> Duration:
        """The same, as far as it allows no less than `other` for any number of days: of a split,
        that it needs what twins need.

        Lasting part and the rest of `spread` are each no less than those of `other`; both can be
        wherever `spread` is.
        """
        ratio = np.minimum(other.spread / self.spread, 1.0)
        least, most = other.lasting * ratio, 1.0 - (1.0 - other.lasting) * ratio
        spread = np.maximum(self.spread, other.spread)
        return replace(self, spread=spread, lasting=np.clip(self.lasting, least, most))


def without_duration(days: UserDays, metric: str) -> str:
    """Why no days can be planned for a metric; "" where they can."""
    m = days.metrics[metric]
    if days.switched is not None:
        return "days of a switchback belong to different arms"
    if any(term.days is not None for term in m.terms):
        return "what it counts of a day depends on other days"
    return "the log has one day" if days.days < 2 else ""


def durations(
    days: UserDays, metric: str, control: str, treatment: str, arms: Arms = EQUAL_ARMS
) -> dict[PlanName, Duration]:
    """How the variances of twins (of a paired log), of a split and of an adjusted one (where users
    have a past) fall with days.

    The lasting part by one-way random-effects analysis of variance over users, MS_users -
    MS_within over days (Searle, Casella & McCulloch, "Variance components", 1992, 3.5), within what
    is possible: it is no less than 0 and no more than the whole. A ratio is linearised. What the
    pilot's users leave uncertain are draws of the means that all of it follows from (of values,
    their squares, their variances within users), by their normal law.

    The pre-period of a user is the same whatever the days of the test, and days are alike, so that
    the regression on it takes the same from every day: of each day it leaves the lasting part less
    what is explained, and all of what differs from day to day.

    Raises:
        PowerError: nothing can be said (`without_duration`).
    """
    why = without_duration(days, metric)
    if why:
        raise PowerError(f"{metric}: days cannot be planned: {why}")
    over: Pass = partial(days.mapped, terms=[term.name for term in days.metrics[metric].terms])
    base = _Daily.of(over, days, metric, control)
    sides = _Sides(
        base, None if days.assigned is not None else _Daily.of(over, days, metric, treatment)
    )
    sides = sides.adjusted(over, past_of(days.by("user"), metric, control, over, base.means))
    parts = list(over(sides.sums))
    n = sum(n for n, _ in parts)
    means = np.sum([sums for _, sums in parts], axis=0) / n
    covariance = np.sum(list(over(partial(_products, sides, means))), axis=0) / n / (n - 1.0)
    drawn = _drawn_means(means, covariance)
    found: dict[PlanName, Duration] = {}
    for design, of_side in zip(sides.designs, np.split(drawn, len(sides.designs)), strict=True):
        mean, square, within = of_side
        factor = arms.factor if PLANS[design].divides else 1.0
        variance = (square - mean**2) * n / (n - 1.0)
        if not variance[0] > 0:
            continue
        # A draw far out may say that squares are negative.
        variance = np.maximum(variance, LEAST_SHARE * variance[0])
        lasting = np.clip(1.0 - within / days.days / variance, 0.0, 1.0)
        spread = factor * variance / drawn[0] ** 2
        found[design] = Duration(spread, lasting, days.days, design, arms)
    twins = found.get("paired")
    if twins is not None:
        for design in found.keys() - {"paired"}:
            found[design] = found[design].at_least(twins)
    return {design: found[design] for design in PLANS if design in found}


LEAST_SHARE = 1e-12
"""Of the measured variance, what a drawn one is at least."""


@dataclass(frozen=True)
class _Daily:
    """What an arm's users in a stretch had on each day `[n, D]`; of a ratio linearised, with the
    ratio as mean.

    Attributes:
        metric, arm: by name.
        halves: of a ratio, the means of numerators and denominators over all the arm's users' days.
    """

    metric: str
    arm: str
    halves: tuple[float, ...] = ()

    @classmethod
    def of(cls, over: Pass, days: UserDays, metric: str, arm: str) -> _Daily:
        """With the means of all users."""
        one = cls(metric, arm)
        if len(days.metrics[metric].terms) == 1:
            return one
        n, *sums = np.sum(list(over(one._sums)), axis=0).tolist()
        return replace(one, halves=tuple(total / n for total in sums))

    def _terms(self, days: UserDays) -> list[Floats]:
        place = days.arms.index(self.arm)
        own = [
            np.asarray(days.terms[t.name][place], np.float64)
            for t in days.metrics[self.metric].terms
        ]
        if days.assigned is not None:
            own = [cube[days.assigned == place] for cube in own]
        return own

    def _sums(self, days: UserDays) -> list[float]:
        own = self._terms(days)
        return [own[0].size, *(float(cube.ravel().sum()) for cube in own)]

    def __call__(self, days: UserDays) -> Floats:
        own = self._terms(days)
        if len(own) == 1:
            return own[0]
        return linearised_by(own[0].ravel(), own[1].ravel(), *self.halves).reshape(own[0].shape)

    def means(self, days: UserDays) -> Floats:
        """Of each user `[n]`."""
        return np.asarray(self(days).mean(axis=1))


@dataclass(frozen=True)
class _Sides:
    """What the designs compare of the users in a stretch, by day.

    Attributes:
        base, answers: of the control, and of twins' treatment.
        past: of the control's users, if a split is adjusted for it.
        centre: its mean.
        slope: what a user's mean has of it.
    """

    base: _Daily
    answers: _Daily | None
    past: PastOf | None = None
    centre: float = 0.0
    slope: float = 0.0

    def adjusted(self, over: Pass, past: PastOf | None) -> _Sides:
        """With the regression on a past; as they are where it or the means do not vary."""
        if past is None:
            return self
        means, pasts = spreads(over, partial(_columns, self.base.means, past), 2)
        if not means.high > means.low:
            return self
        found = replace(self, past=past, centre=pasts.mean)
        parts = list(over(partial(_regressed, found, means.mean)))
        products, squares = np.sum(parts, axis=0)
        return replace(found, slope=float(products / squares))

    @property
    def designs(self) -> list[PlanName]:
        """Their names, in the order of `daily`."""
        adjusted: list[PlanName] = [] if self.past is None else ["cuped"]
        paired: list[PlanName] = [] if self.answers is None else ["paired"]
        return ["split", *adjusted, *paired]

    def away(self, days: UserDays) -> Floats:
        """The past less its mean `[n]`."""
        assert self.past is not None
        return self.past(days) - self.centre

    def daily(self, days: UserDays) -> list[Floats]:
        """Of each design `[n, D]`."""
        base = self.base(days)
        adjusted = [] if self.past is None else [base - self.slope * self.away(days)[:, None]]
        return [base, *adjusted, *([] if self.answers is None else [self.answers(days) - base])]

    def columns(self, days: UserDays) -> Floats:
        """Of each design the means of users, their squares, and the variances within users
        `[3 designs, n]`.
        """
        columns = []
        for side in self.daily(days):
            mean = side.mean(axis=1)
            columns += [mean, np.square(mean), side.var(axis=1, ddof=1)]
        return np.stack(columns)

    def sums(self, days: UserDays) -> tuple[int, Floats]:
        """How many users, and the sum of each column."""
        columns = self.columns(days)
        return columns.shape[1], columns.sum(axis=1)


def _columns(means: Callable[[UserDays], Floats], past: PastOf, days: UserDays) -> list[Floats]:
    return [means(days), past(days)]


def _regressed(sides: _Sides, mean: float, days: UserDays) -> Floats:
    """Sums of the products of means with a past, and of its squares."""
    away = sides.away(days)
    return np.array([matmul(sides.base.means(days) - mean, away), matmul(away, away)])


def _products(sides: _Sides, means: Floats, days: UserDays) -> Floats:
    """Sums of the products of columns, less their means, with one another."""
    away = sides.columns(days) - means[:, None]
    return np.asarray(matmul(away, np.ascontiguousarray(away.T)))


def _drawn_means(means: Floats, covariance: Floats) -> Floats:
    """Means `[k]` and draws of them by their normal law `[k, 1 + DRAWS]`."""
    scale = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(covariance / scale[:, None] / scale)
    # Of a combination that does not vary rounding leaves a value, whose root is a million times it.
    values = np.where(values > ROUNDED, values, 0.0)
    root = scale[:, None] * vectors * np.sqrt(values)
    normal = np.random.default_rng(0).standard_normal((len(means), DRAWS))
    return np.concatenate((means[:, None], means[:, None] + root @ normal), axis=1)
