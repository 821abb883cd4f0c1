"""Durations: how many days a lift needs, of twins, a split, and a split that is adjusted for the
pre-period.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from policies.products import matmul
from simulator.stats.moments import Floats, linearised
from simulator.stats.power import EQUAL_ARMS, PLANS, Arms, PlanName, PowerError, past_of
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import noncentrality

DRAWS = 1000
"""Draws of what the pilot's users leave uncertain of a duration."""


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
    base = _by_days(days, metric, control)
    sides: dict[PlanName, Floats] = {"split": base}
    past = past_of(days.by("user"), metric, control, base.mean(axis=1))
    if past is not None and np.ptp(base.mean(axis=1)) > 0:
        sides["cuped"] = _adjusted(base, past)
    if days.assigned is None:
        sides["paired"] = _by_days(days, metric, treatment) - base
    columns = []
    for side in sides.values():
        mean = side.mean(axis=1)
        columns += [mean, np.square(mean), side.var(axis=1, ddof=1)]
    drawn = _drawn_means(np.stack(columns))
    n = len(base)
    found: dict[PlanName, Duration] = {}
    for design, of_side in zip(sides, np.split(drawn, len(sides)), strict=True):
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


def _by_days(days: UserDays, metric: str, arm: str) -> Floats:
    """What an arm's users had on each day `[n, D]`; of a ratio linearised, with the ratio as
    mean.
    """
    place = days.arms.index(arm)
    own = [np.asarray(days.terms[t.name][place], np.float64) for t in days.metrics[metric].terms]
    if days.assigned is not None:
        own = [cube[days.assigned == place] for cube in own]
    if len(own) == 1:
        return own[0]
    return linearised(own[0].ravel(), own[1].ravel()).reshape(own[0].shape)


def _adjusted(daily: Floats, past: Floats) -> Floats:
    """What users had on each day `[n, D]`, less what their past `[n]` tells of their mean."""
    means, away = daily.mean(axis=1), past - past.mean()
    slope = matmul(means - means.mean(), away) / matmul(away, away)
    return np.asarray(daily - slope * away[:, None])


def _drawn_means(columns: Floats) -> Floats:
    """The means of columns `[k, n]` and draws of them by their normal law `[k, 1 + DRAWS]`."""
    means = columns.mean(axis=1)
    away = columns - means[:, None]
    n = columns.shape[1]
    covariance = matmul(away, np.ascontiguousarray(away.T)) / n / (n - 1.0)
    scale = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(covariance / scale[:, None] / scale)
    root = scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    normal = np.random.default_rng(0).standard_normal((len(means), DRAWS))
    return np.concatenate((means[:, None], means[:, None] + root @ normal), axis=1)
