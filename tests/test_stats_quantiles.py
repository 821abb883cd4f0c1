"""Quantiles by their definitions on small samples, and on both sides of each limit."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from simulator.stats import quantiles
from simulator.stats.quantiles import MidQuantile, estimated, merged, mid_quantile
from simulator.stats.randomise import Outcomes

NAN = float("nan")


def same(one: Any, other: Any) -> None:
    assert one == pytest.approx(other, rel=1e-9, abs=1e-12, nan_ok=True)


def curve(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values and their mid-distribution (Ma, Genton & Parzen 2011)."""
    distinct, counts = np.unique(values, return_counts=True)
    return distinct, (np.cumsum(counts) - counts / 2) / len(values)


def by_definition(values: np.ndarray, level: float) -> MidQuantile:
    """The mid-quantile of one sample, and the spread of its scores and of itself."""
    n = len(values)
    x, pi = curve(values)
    j = int(np.searchsorted(pi, level, side="right")) - 1
    share = (level - pi[j]) / (pi[j + 1] - pi[j])
    half = lambda at: (values < at) + (values == at) / 2  # noqa: E731
    score = (1 - share) * half(x[j]) + share * half(x[j + 1])
    variance = (np.square(score).mean() - level**2) / (n - 1)
    z = np.linspace(-2.5, 2.5, 26)
    mass = norm.pdf(z) / norm.pdf(z).sum()
    at = np.interp(level + z * np.sqrt(variance), pi, x, left=NAN, right=NAN)
    spread = np.sqrt(mass @ np.square(at - mass @ at) / (mass @ np.square(z)))
    slope = spread / np.sqrt(variance)
    value = x[j] + share * (x[j + 1] - x[j])
    return MidQuantile(*map(np.array, (value, x[j], x[j + 1], share, slope, variance, n)))


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0, 1, n)


@pytest.mark.parametrize("level", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("counts", [False, True])
def test_every_sample_is_that_of_the_definition(level: float, counts: bool) -> None:
    random = np.random.default_rng(4)
    values = random.poisson(9.0, 90).astype(float) if counts else skewed(90)
    weights = random.poisson(1.2, (90, 5)).astype(np.float32)
    found = mid_quantile(values, weights, level)
    for r in range(5):
        own = np.repeat(values, weights[:, r].astype(int))
        expected = by_definition(own, level)
        same([float(field[r]) for field in astuple(found)], list(map(float, astuple(expected))))
        score = found.scores(values)[:, r]
        same((weights[:, r] * score).sum() / len(own), level)
    alone = mid_quantile(values, np.ones((90, 1)), level)
    same([float(field[0]) for field in astuple(alone)], list(by_definition_of_all(values, level)))


def by_definition_of_all(values: np.ndarray, level: float) -> list[float]:
    return list(map(float, astuple(by_definition(values, level))))


def test_distinct_values_and_their_counts() -> None:
    values = np.array([3.0, 1.0, 3.0, 2.0])
    for weights, counts in (
        (np.ones((4, 1)), [[1], [1], [2]]),
        (np.ones((4, 3)), [[1, 1, 1], [1, 1, 1], [2, 2, 2]]),
        (np.full((4, 1), 2.0), [[2], [2], [4]]),
        (np.array([[2.0], [1], [1], [1]]), [[1], [1], [3]]),
        (np.array([[1.0, 0], [1, 5], [1, 2], [1, 0]]), [[1, 5], [1, 0], [2, 2]]),
    ):
        distinct, found = merged(values, weights)
        assert (distinct.tolist(), found.tolist()) == ([1.0, 2.0, 3.0], counts)
        assert found.dtype == weights.dtype
    distinct, found = merged(values[[0, 1, 3]], np.array([[1.0, 2], [3, 4], [5, 6]]))
    assert (distinct.tolist(), found.tolist()) == ([1, 2, 3], [[3, 4], [5, 6], [1, 2]])


def test_levels_at_the_values_and_beyond_them() -> None:
    """Mid-distributions are .1, .3, .5, .7 and .9."""
    values, ones = np.arange(5.0) ** 2, np.ones((5, 1))
    for level, value in ((0.1, 0.0), (0.3, 1.0), (0.4, 2.5), (0.7, 9.0), (0.8999, 15.9965)):
        same(mid_quantile(values, ones, level).value[0], value)
    for level in (0.0999, 0.9001):
        assert np.isnan(mid_quantile(values, ones, level).value[0])
    gone = np.array([[0.0], [1], [1], [1], [0]])
    assert np.isnan(mid_quantile(values, gone, 0.9).value[0])
    assert np.isnan(mid_quantile(values, gone, 0.1).value[0])
    same(mid_quantile(values, gone, 0.5).value[0], 4.0)


@pytest.mark.parametrize(("level", "n"), [(0.5, 20), (0.9, 100), (0.1, 100)])
def test_a_spread_needs_ten_units_on_the_thinner_side(level: float, n: int) -> None:
    def slope(units: int) -> float:
        return float(mid_quantile(np.arange(units) * 3.0, np.ones((units, 1)), level).slope[0])

    assert slope(n) == pytest.approx(3.0 * n) or level != 0.5
    assert np.isfinite(slope(n + 30))
    assert np.isnan(slope(n - 1))


def test_a_straight_line_has_its_slope_and_one_value_none() -> None:
    same(mid_quantile(np.arange(40) * 3.0, np.ones((40, 1)), 0.5).slope[0], 120.0)
    assert np.isnan(mid_quantile(np.ones(40), np.ones((40, 1)), 0.5).slope[0])


def test_two_arms_and_twins() -> None:
    c, t = skewed(60), skewed(60, 1)[:50]
    m = quantiles.quantile_moments(c, t, 0.5, paired=False)
    of_c, of_t = by_definition(c, 0.5), by_definition(t, 0.5)
    same(
        astuple(m)[:-1],
        (
            float(of_c.value), float(of_t.value),
            of_c.slope**2 * of_c.variance, of_t.slope**2 * of_t.variance,
            0.0, np.inf, 60, 50, False,
        ),
    )  # fmt: skip
    t = np.random.default_rng(3).permutation(c) + c
    m = quantiles.quantile_moments(c, t, 0.5, paired=True)
    of_c, of_t = by_definition(c, 0.5), by_definition(t, 0.5)
    own, other = of_c.scores(c), of_t.scores(t)
    cov = of_c.slope * of_t.slope * ((own * other).mean() - 0.25) / 59
    expected = (of_c.slope**2 * of_c.variance, of_t.slope**2 * of_t.variance, cov, np.inf, 60, 60)
    same(astuple(m)[2:-1], (*map(float, expected), True))


@pytest.mark.parametrize("paired", [False, True])
def test_samples_of_both_answers(paired: bool) -> None:
    c, t = skewed(80), skewed(80, 1)
    o = Outcomes("x", "b", (c,), (t,), (c[:, None],), (t[:, None],), None)
    random = np.random.default_rng(2)
    heads, tails = random.poisson(0.9, (2, 3, 80)).astype(float)
    pair = quantiles.quantile_pair(o, heads, tails, 0.4, paired=paired)
    for r in range(3):
        up, down = (np.repeat(np.arange(80), counts[r].astype(int)) for counts in (heads, tails))
        both = np.concatenate((up, down))
        sides = [(c[up], c[down]), (c[up], t[down])]
        if paired:
            sides = [
                (np.concatenate((c[up], t[down])), np.concatenate((t[up], c[down]))),
                (c[both], t[both]),
            ]
        for many, side in zip(pair, sides, strict=True):
            one = quantiles.quantile_moments(*side, 0.4, paired=paired)
            for name in ("control", "treatment", "var_control", "var_treatment", "n_control"):
                assert getattr(many, name)[r] == pytest.approx(getattr(one, name), rel=1e-5), name
            assert np.ravel(many.cov)[r if paired else 0] == pytest.approx(one.cov, rel=1e-4)
            assert many.paired == paired


@pytest.mark.parametrize(("level", "n"), [(0.5, 100), (0.75, 200), (0.25, 200)])
def test_a_lift_needs_fifty_users_beyond(level: float, n: int) -> None:
    values = np.arange(1, 3001.0)
    assert quantiles.unfit(values, values, level, n) == ""
    assert quantiles.unfit(values, values, level, n - 1) == "fewer than 50 users beyond it"


def test_a_lift_needs_values_that_differ() -> None:
    """Of 1,000 users of whom 100 are in a sample, .1 of the error .05 is 5 others."""
    plain = np.arange(1, 1001.0)
    for others, said in ((5, ""), (6, "too many users (0.6%) have that one value")):
        tied = np.where((plain >= 500) & (plain <= 500 + others), 500.0, plain)
        assert quantiles.unfit(tied, plain, 0.5, 100) == said
        assert quantiles.unfit(plain, tied, 0.5, 100) == said
    assert quantiles.unfit(plain - 2000, plain - 2000, 0.5, 100) == "", "losses are events"
    none = np.where(plain <= 500, 0.0, plain)
    assert quantiles.unfit(plain, none, 0.5, 100) == "that quantile of users has no events"
    assert quantiles.unfit(plain, none, 0.75, 200) == ""


@pytest.mark.parametrize(
    ("level", "n"), [(0.5, 100), (0.9, 501), (0.1, 501)]
)  # fifty units are above, above and below
def test_an_estimate_needs_fifty_units_beyond(level: float, n: int) -> None:
    given = estimated(np.arange(float(n)), level)
    assert (given.note, given.n, given.df) == ("", n, np.inf)
    assert np.isfinite(given.influence).all()
    refused = estimated(np.arange(float(n - 2)), level)
    assert refused.note == "fewer than 50 units beyond the quantile"
    assert (refused.n, len(refused.influence)) == (n - 2, n - 2)
    assert np.isnan(refused.influence).all()
    assert refused.value == np.quantile(np.arange(n - 2), level, method="inverted_cdf")


def test_an_estimate_counts_units_and_not_their_rows() -> None:
    values = np.arange(200.0)
    for beyond, said in ((50, ""), (49, "fewer than 50 units beyond the quantile")):
        units = np.concatenate((np.arange(100), 100 + np.minimum(np.arange(100), beyond - 1)))
        found = estimated(values, 0.5, units)
        assert (found.note, found.n, len(found.influence)) == (said, 100 + beyond, 100 + beyond)


def test_an_estimate_of_nothing() -> None:
    for units in (None, np.zeros(0, dtype=np.int64)):
        found = estimated(np.zeros(0), 0.5, units)
        assert (found.n, len(found.influence), np.isnan(found.value)) == (0, 0, True)
        assert found.note == "fewer than 50 units beyond the quantile"


def test_an_estimate_needs_values_that_differ() -> None:
    """Of 1,001 rows the error is .0158: a tenth of it is 1.6 others."""
    values = np.arange(1001.0)
    for others, said in (
        (1, ""),
        (2, "too many values (0.2%) are 500, where the quantile is"),
    ):
        tied = np.where((values >= 500) & (values <= 500 + others), 500.0, values)
        found = estimated(tied, 0.5)
        assert found.note == said
        assert np.isnan(found.influence).all() == (said != "")
        same(found.value, by_definition_of_all(tied, 0.5)[0])
        assert (found.n, found.df) == (1001, np.inf)


def test_the_two_largest_values_may_lie_around_a_quantile() -> None:
    values, units = np.repeat([1.0, 3.0], [40, 60]), np.arange(100) // 4
    q = mid_quantile(values, np.ones((100, 1)), 0.5, units)
    same((q.value[0], q.lower[0], q.upper[0]), (2.2, 1.0, 3.0))
    sums = np.repeat([0.8 - 0.5, 0.3 - 0.5], [40, 60]).reshape(25, 4).sum(axis=1)
    same(q.variance[0], 25 / 24 * np.square(sums).sum() / 100**2)


def test_influences_have_the_variance_of_the_quantile() -> None:
    values = skewed(400)
    found = estimated(values, 0.6)
    expected = by_definition(values, 0.6)
    same(found.value, expected.value)
    same(found.variance, expected.slope**2 * expected.variance)
    same(found.influence, -expected.slope * (expected.scores(values)[:, 0] - 0.6) / 400)
    # Two rows a unit: the mean score is a ratio of sums, with the variance of one.
    units = np.repeat(np.arange(200), 2)
    two = estimated(values, 0.6, units)
    sums = (expected.scores(values)[:, 0] - 0.6).reshape(200, 2).sum(axis=1)
    q = mid_quantile(values, np.ones((400, 1)), 0.6, units)
    same(q.variance[0], 200 / 199 * np.square(sums).sum() / 400**2)
    same(two.influence, -q.slope[0] * sums / 400)
    same(two.variance, q.slope[0] ** 2 * q.variance[0])
    assert two.n == 200
