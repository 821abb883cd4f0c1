"""What the usual wrong analyses of an A/B test would have done to the same data: false positives
where both arms answer alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policies.products import matmul
from simulator.stats import moments, tests
from simulator.stats.intervals import quantile
from simulator.stats.moments import Floats
from simulator.stats.randomise import Outcomes, Rate, day_pair, draws, outcomes
from simulator.stats.rule import STANDARD
from simulator.stats.user_days import UserDays

Mask = npt.NDArray[np.bool_]
Rejects = Callable[[Floats, Floats], Mask]
"""From the counts of heads and tails `[R, users]` to the samples `[R]` in which the analysis
rejects.
"""


@dataclass(frozen=True)
class Wrong:
    """What a usual wrong analysis would have done.

    Attributes:
        analysis: its name.
        metric: the metric it was applied to.
        why: what is wrong with it.
        error: its false positives, nominally alpha.
    """

    analysis: str
    metric: str
    why: str
    error: Rate


@np.errstate(divide="ignore", invalid="ignore")  # a sample's arm may be empty: it rejects nothing
def wrong_analyses(
    days: UserDays, control: str, repetitions: int, seed: int, alpha: float = STANDARD.alpha
) -> tuple[Wrong, ...]:
    """Apply the usual wrong analyses, two-sided at `alpha`, to samples in which both arms answer as
    the control did.

    For watch time and clicks: days as units with the normal quantile, user-days as independent
    units, a look at each day's end. For the click rate: impressions as independent.
    """
    other = next(arm for arm in days.arms if arm != control)
    z = float(quantile(np.inf, 1.0 - alpha))
    names = [m for m in ("watch_time", "click") if m in days.metrics and m not in days.missing]
    found = []
    for name in names:
        o = outcomes(days, control, other, name)
        cases = {
            f"{days.days} days with z": (
                "the normal quantile where t with days - 1 degrees of freedom belongs",
                _days_with_z(o, z),
            ),
            "user-days as independent": ("days of one user are alike", _user_days(o, z)),
            f"{days.days} peeks": (
                f"stopping at the first daily p < {alpha:.4g}",
                _peeks(o, alpha),
            ),
        }
        counts = dict.fromkeys(cases, 0)
        for heads, tails in draws(days.n_users, days.n_users, repetitions, seed):
            for case, (_, rejects) in cases.items():
                counts[case] += int(np.count_nonzero(rejects(heads, tails)))
        found += [
            Wrong(case, name, why, Rate.of(counts[case], repetitions))
            for case, (why, _) in cases.items()
            if days.days > 1
        ]
    if {"click", "impressions"} <= set(days.terms):
        found.append(_impressions(days, control, repetitions, seed, z))
    return tuple(found)


def _days_with_z(o: Outcomes, z: float) -> Rejects:
    """The day x arm table of a paired run, read with z."""

    def rejects(heads: Floats, tails: Floats) -> Mask:
        return np.asarray(np.abs(tests.t_test(day_pair(o, heads, tails)[0]).statistic) > z)

    return rejects


def _user_days(o: Outcomes, z: float) -> Rejects:
    """Welch's t on user-days of a split test, as if they were independent."""
    daily = o.control_days[0]
    total, squares, n_days = daily.sum(axis=1), np.square(daily).sum(axis=1), daily.shape[1]

    def rejects(heads: Floats, tails: Floats) -> Mask:
        mean, var = [], []
        for w in (heads, tails):
            n = w.sum(axis=1) * n_days
            mean.append(matmul(w, total) / n)
            var.append((matmul(w, squares) / n - mean[-1] ** 2) / (n - 1))
        return np.asarray(np.abs(mean[1] - mean[0]) > z * np.sqrt(var[0] + var[1]))

    return rejects


def _peeks(o: Outcomes, alpha: float) -> Rejects:
    """Welch's t on the users' totals so far, at the end of each day of a split test."""
    so_far = np.cumsum(o.control_days[0], axis=1)

    def rejects(heads: Floats, tails: Floats) -> Mask:
        hit = np.zeros(len(heads), dtype=bool)
        for day in range(so_far.shape[1]):
            control, treatment = (moments.weighted([so_far[:, day]], w) for w in (heads, tails))
            with np.errstate(invalid="ignore"):
                hit |= tests.t_test(moments.split_moments(control, treatment, 0, None)).p < alpha
        return hit

    return rejects


def _impressions(days: UserDays, control: str, repetitions: int, seed: int, z: float) -> Wrong:
    """A two-proportion z test of clicks per impression of a split test, as if impressions were
    independent.
    """
    arm = days.arms.index(control)
    clicks, shown = (
        days.terms[name][arm].sum(axis=1).astype(np.float64) for name in ("click", "impressions")
    )
    count = 0
    for heads, tails in draws(days.n_users, days.n_users, repetitions, seed):
        n, m = matmul(heads, shown), matmul(tails, shown)
        a, b = matmul(heads, clicks), matmul(tails, clicks)
        p = (a + b) / (n + m)
        error = np.sqrt(p * (1 - p) * (1 / n + 1 / m))
        count += int(np.count_nonzero(np.abs(b / m - a / n) > z * error))
    return Wrong(
        "impressions as independent",
        "click_rate",
        "impressions of one user are alike",
        Rate.of(count, repetitions),
    )
