"""Days of a plan: the parts of the variance, draws of them, and days at their limits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from simulator.log.metrics import chosen
from simulator.stats import durations, power, verdict
from simulator.stats.durations import DRAWS, DaysNeeded, Duration
from simulator.stats.power import Arms
from simulator.stats.user_days import UserDays


def test_draws_of_means_have_their_normal_law() -> None:
    """Means, then draws from N(mean, cov / n); a column that is constant stays where it is."""
    random = np.random.default_rng(1)
    x = random.gamma(2.0, 1.0, 60)
    columns = np.stack([x, x + random.normal(0.0, 0.1, 60), np.full(60, 3.0), 100 - x])
    drawn = durations._drawn_means(columns.mean(axis=1), np.cov(columns) / 60)
    assert drawn.shape == (4, 1 + DRAWS)
    assert drawn[:, 0] == pytest.approx(columns.mean(axis=1))
    assert (drawn[2] == 3.0).all()
    assert drawn[0] + drawn[3] == pytest.approx(np.full(1 + DRAWS, 100.0))
    # The draws are the mean plus a root of the covariance times fixed normals: their own moments
    # are those of the normals, turned.
    normal = np.random.default_rng(0).standard_normal((4, DRAWS))
    expected = np.cov(columns) / 60
    away = drawn[:, 1:] - drawn[:, :1]
    root = np.linalg.lstsq(normal.T, away.T, rcond=None)[0].T
    assert root @ root.T == pytest.approx(expected, abs=1e-12)
    assert away == pytest.approx(root @ normal, abs=1e-10)


def test_the_past_takes_the_same_from_every_day() -> None:
    random = np.random.default_rng(2)
    past, daily = random.normal(size=30), random.normal(size=(30, 4))
    daily += past[:, None]
    slope = np.polyfit(past, daily.mean(axis=1), 1)[0]
    expected = daily - slope * (past - past.mean())[:, None]
    assert adjusted(daily, past) == pytest.approx(expected)


def adjusted(daily: np.ndarray, past: np.ndarray) -> np.ndarray:
    """What an adjusted split compares of the users `[n, D]`."""
    days = days_of(np.stack([daily, daily]), past)
    over = partial(days.mapped, terms=["click"])
    base = durations._Daily.of(over, days, "click", "a")
    regressed = power.past_of(days.by("user"), "click", "a", over, base.means)
    return durations._Sides(base, None).adjusted(over, regressed).daily(days)[1]


def days_of(
    cube: np.ndarray, past: np.ndarray | None = None, assigned: np.ndarray | None = None
) -> UserDays:
    before = {} if past is None else {"click": past}
    metrics = {m.name: m for m in chosen(("click", "click_rate"))}
    terms = {"click": cube, "impressions": 2 * cube + 1}
    return UserDays(("a", "b"), *cube.shape[1:], metrics, terms, before, assigned)


def cube(n: int = 40, width: int = 3, lasting: float = 2.0) -> np.ndarray:
    random = np.random.default_rng(3)
    users = lasting * random.normal(size=(1, n, 1))
    return 20 + users + random.normal(size=(2, n, width))


def test_a_split_log_is_planned_from_the_users_of_its_control() -> None:
    both, assigned = cube(), np.arange(40) % 2
    found = durations.durations(days_of(both, assigned=assigned), "click", "a", "b")
    assert set(found) == {"split"}
    alone = durations.durations(days_of(both[:, ::2]), "click", "a", "b")
    # Without twins to tie it to: the same users of a paired log, as far as these need more.
    mean = both[0, ::2].mean(axis=1)
    assert found["split"].spread[0] == pytest.approx(4 * mean.var(ddof=1) / mean.mean() ** 2)
    assert found["split"].spread[0] == pytest.approx(alone["split"].spread[0])
    by_b = durations.durations(days_of(both, assigned=assigned), "click", "b", "a")["split"]
    other = both[1, 1::2].mean(axis=1)
    assert by_b.spread[0] == pytest.approx(4 * other.var(ddof=1) / other.mean() ** 2)


def test_twins_a_split_and_an_adjusted_one_come_in_the_order_of_plans() -> None:
    random = np.random.default_rng(4)
    both = cube()
    past = both[0].mean(axis=1) + random.normal(size=40)
    found = durations.durations(days_of(both, past), "click", "a", "b", Arms(0.2, 0.8))
    assert list(found) == ["paired", "split", "cuped"]
    for design, one in found.items():
        assert (one.days, one.design, one.arms) == (3, design, Arms(0.2, 0.8))
        assert len(one.spread) == len(one.lasting) == 1 + DRAWS
        assert (one.lasting >= 0).all()
        assert (one.lasting <= 1).all()
    mean, d = both[0].mean(), (both[1] - both[0]).mean(axis=1)
    assert found["paired"].spread[0] == pytest.approx(d.var(ddof=1) / mean**2)
    left = adjusted(both[0], past).mean(axis=1)
    factor = 1 / 0.2 + 1 / 0.8
    assert found["cuped"].spread[0] == pytest.approx(factor * left.var(ddof=1) / mean**2)
    within = both[0].var(axis=1, ddof=1).mean() / 3
    split = both[0].mean(axis=1).var(ddof=1)
    assert found["split"].lasting[0] == pytest.approx(1 - within / split)
    # A past or means that do not vary adjust nothing.
    flat = durations.durations(days_of(both, np.full(40, 2.0)), "click", "a", "b")
    assert list(flat) == ["paired", "split"]


def test_a_ratio_is_linearised_over_users_and_days() -> None:
    both = np.round(np.abs(cube()))
    days = days_of(both)

    def by_days(days: UserDays, metric: str, arm: str) -> np.ndarray:
        return durations._Daily.of(days.mapped, days, metric, arm)(days)

    daily = by_days(days, "click_rate", "b")
    top, bottom = both[1], 2 * both[1] + 1
    ratio = top.sum() / bottom.sum()
    assert daily == pytest.approx(ratio + (top - ratio * bottom) / bottom.mean())
    split = replace(days, assigned=np.arange(40) % 2)
    assert by_days(split, "click_rate", "b").shape == (20, 3)
    assert by_days(split, "click", "a") == pytest.approx(both[0, ::2])


def one(spread: float, lasting: float, days: int = 5) -> Duration:
    return Duration(np.full(3, spread), np.full(3, lasting), days, "paired")


def test_days_are_whole_at_least_one_and_without_end_where_users_are_too_few() -> None:
    n = 401
    effect = verdict.noncentrality(n - 1)
    for needed in (1, 5, 7, 300):
        lift = effect * np.sqrt(2.0 * (0.25 + 0.75 * 5 / needed) / n)
        for factor, days in ((1 + 1e-12, needed), (1 - 1e-6, needed + 1)):
            found = one(2.0, 0.25).needed(n, lift * factor)
            assert found == DaysNeeded(days, days, days), (needed, factor)
    assert one(2.0, 0.25).needed(n, 9.0).days == 1.0
    lasting = effect * np.sqrt(2.0 * 0.25 / n)
    assert one(2.0, 0.25).needed(n, lasting * 0.999).days == np.inf
    assert np.isfinite(one(2.0, 0.25).needed(n, lasting * 1.001).days)
    # What all lasts needs one day, or none is enough.
    assert one(2.0, 1.0).needed(n, effect * np.sqrt(2.0 / n) * 1.001).days == 1.0
    assert one(2.0, 1.0).needed(n, effect * np.sqrt(2.0 / n) * 0.999).days == np.inf
    assert one(2.0, 0.25).needed(n, 0.2) == one(2.0, 0.25).needed(n, 0.2, 0.8, 0.95)
    assert one(2.0, 0.25).arms == Arms(0.5, 0.5)


def test_ends_of_days_are_those_of_the_draws() -> None:
    spread = np.concatenate(([1.0], np.linspace(0.5, 3.0, 1000)))
    found = Duration(spread, np.zeros(1001), 4, "paired").needed(2_000, 0.05)
    room = (0.05 / verdict.noncentrality(1_999)) ** 2 * 2_000
    days = np.maximum(np.ceil(4 * spread / room), 1)
    ordered = np.sort(days[1:])
    assert found == DaysNeeded(days[0], ordered[24], ordered[974])


def test_at_least_keeps_both_parts_of_the_other() -> None:
    """Spreads 2 and 4, lasting .5 and .9, and the other way round."""
    for mine, other, spread, lasting in (
        ((2.0, 0.5), (4.0, 0.9), 4.0, 0.9),
        ((4.0, 0.5), (2.0, 0.9), 4.0, 0.5),  # of the other 1.8 last: .45 of 4 at least
        ((4.0, 0.1), (2.0, 0.9), 4.0, 0.45),
        ((4.0, 0.99), (2.0, 0.2), 4.0, 0.6),  # of the other 1.6 does not last: .4 of 4
    ):
        found = one(*mine).at_least(one(*other))
        assert (found.spread[0], found.lasting[0]) == pytest.approx((spread, lasting))
        assert found.days == 5
