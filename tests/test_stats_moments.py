"""Moments against numpy, scipy and statsmodels on a handful of numbers, and at their limits."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from simulator.stats import moments
from simulator.stats.moments import Moments, Sample

M = Moments(4.0, 5.0, 0.3, 0.2, 0.1, 9.0, 10, 12, False)
NAN = float("nan")


def draws(n: int, p: int, seed: int = 0) -> np.ndarray:
    """`[p, n]` numbers that depend on one another, far from 0."""
    random = np.random.default_rng(seed)
    return random.normal(size=(p, p)) @ random.gamma(2.0, 1.0, (p, n)) + 5.0


def same(one: Any, other: Any) -> None:
    assert one == pytest.approx(other, rel=1e-10, abs=1e-12, nan_ok=True)


def same_sample(found: Sample, columns: np.ndarray) -> None:
    assert found.n == columns.shape[1]
    same(found.mean, columns.mean(axis=1))
    same(found.cov, np.cov(columns, ddof=1))


def test_what_two_means_amount_to() -> None:
    assert (M.difference, M.lift, M.n_units) == (1.0, 0.25, 22)
    assert M.variance == pytest.approx(0.3)
    assert replace(M, paired=True).n_units == 10


@pytest.mark.parametrize(("left", "kept"), [(0.9e-12, False), (1.1e-12, True)])
def test_a_variance_below_the_rounding_of_its_parts_is_none(left: float, kept: bool) -> None:
    m = replace(M, var_control=1.0, var_treatment=1.0, cov=1.0 - left)
    assert m.variance == pytest.approx(2.0 * left if kept else 0.0, rel=1e-3, abs=0.0)
    assert np.isnan(replace(m, cov=NAN).variance)


@pytest.mark.parametrize(
    ("control", "treatment", "lift"),
    [(2.0, 3.0, 0.5), (1.0, 3.0, 2.0), (2.0, 1.0, -0.5), (-2.0, -3.0, -0.5),
     (-2.0, -1.0, 0.5), (0.0, 1.0, NAN), (2.0, NAN, NAN), (NAN, 1.0, NAN), (-2.0, -2.0, 0.0)],
)  # fmt: skip
def test_a_lift_has_the_sign_of_the_difference(
    control: float, treatment: float, lift: float
) -> None:
    found = moments.relative(control, treatment)
    same(found, lift)
    assert not np.signbit(found) or lift < 0


def test_a_sample_is_that_of_its_rows_in_any_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = draws(11, 3)
    group = np.array([0, 1, 1, 0, -1, 1, 0, 2, 1, 0, 1])
    for chunk in (2, 3, 4, 11, 100):
        monkeypatch.setattr(moments, "CHUNK", chunk)
        same_sample(moments.sample(list(x)), x)
        sampler = moments.Sampler(len(x), 4)
        for stretch in (slice(0, 5), slice(5, 6), slice(6, None)):
            sampler.add(list(x[:, stretch]), group[stretch])
        first, second, alone, none = sampler.samples()
        same_sample(first, x[:, group == 0])
        same_sample(second, x[:, group == 1])
        assert (alone.n, np.isnan(alone.cov).all()) == (1, True)
        same(alone.mean, x[:, 7])
        assert (none.n, np.isnan(none.mean).all(), np.isnan(none.cov).all()) == (0, True, True)
        assert (none.mean.shape, none.cov.shape) == ((3,), (3, 3))


def test_a_sample_picks_leaves_out_and_combines() -> None:
    x = draws(9, 3)
    s = moments.sample(list(x))
    same_sample(s.pick([2, 0]), x[[2, 0]])
    same_sample(s.without(x[:, 4]), np.delete(x, 4, axis=1))
    a, b = np.array([1.0, -2.0, 0.5]), np.array([0.0, 3.0, 1.0])
    same(s.variance(a), np.var(a @ x, ddof=1) / 9)
    same(s.covariance(a, b), np.cov(a @ x, b @ x)[0, 1] / 9)


def test_many_weighted_samples_at_once() -> None:
    x = draws(6, 2)
    counts = np.array([[1, 0, 2, 3, 1, 1], [0, 0, 0, 2, 0, 1], [0, 0, 0, 1, 0, 0], [0] * 6])
    s = moments.weighted(list(x), counts.astype(float))
    for r, row in enumerate(counts[:2]):
        same_sample(Sample(s.n[r], s.mean[r], s.cov[r]), np.repeat(x, row, axis=1))
    same(s.mean[2], x[:, 3])
    assert np.isnan(s.cov[2:]).all()
    assert np.isnan(s.mean[3]).all()
    none = moments.weighted([np.zeros(6)], counts.astype(float))
    assert none.mean[0, 0] == 0.0


def test_a_split_of_known_answers() -> None:
    c, t = draws(8, 2)
    heads = np.array([[1, 0, 0, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0.0]])
    many = moments.split_by(c, t, heads)
    for r, seen in enumerate(heads == 1):
        one = moments.split(c[~seen], t[seen])
        for name in ("control", "treatment", "var_control", "var_treatment", "df"):
            same(getattr(many, name)[r], getattr(one, name))
        assert (many.n_control[r], many.n_treatment[r]) == (one.n_control, one.n_treatment)
    assert (many.cov, many.paired) == (0.0, False)


def test_rounding_makes_no_variance_below_zero() -> None:
    """Three users who are alike, beside whom the others are large."""
    random = np.random.default_rng(0)
    heads = np.array([[0, 0, 0, 1, 1, 1, 1.0]])
    people = [np.r_[[0.1] * 3, random.gamma(1.0, 1e5, 4)] for _ in range(50)]
    assert min(moments.split_by(x, x, heads).var_control[0] for x in people) == 0.0
    assert min(moments.split_by(x, x, 1 - heads).var_treatment[0] for x in people) == 0.0


def test_small_samples_along_the_last_axis() -> None:
    x = draws(24, 2).reshape(2, 2, 3, 4)
    s = moments.stacked(list(x))
    assert s.n.tolist() == [[4, 4, 4], [4, 4, 4]]
    for at in np.ndindex(2, 3):
        same_sample(Sample(4, s.mean[at], s.cov[at]), x[:, *at])
    two = moments.stacked(list(x[..., :2]))
    same(two.cov[1, 0], np.cov(x[:, 1, 0, :2]))
    assert np.isnan(moments.stacked(list(x[..., :1])).cov).all()


def test_a_ratio_and_its_gradient() -> None:
    means = np.array([[6.0, 9.0, 2.0], [1.0, 1.0, 0.0]])
    value, gradient = moments.ratio(means, 0, 2)
    same(value, [3.0, NAN])
    same(gradient[0], [0.5, 0.0, -1.5])
    value, gradient = moments.ratio(means, 1, None)
    assert value.tolist() == [9.0, 1.0]
    assert gradient.tolist() == [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]


def test_twins_against_scipy() -> None:
    c, t = draws(7, 2)
    m = moments.paired(c, t)
    theirs = stats.ttest_rel(t, c)
    same(m.difference / np.sqrt(m.variance), theirs.statistic)
    same((m.df, m.n_control, m.n_treatment, m.paired), (6.0, 7, 7, True))
    same(m.var_control, c.var(ddof=1) / 7)
    assert np.isnan(moments.paired(c[:1], t[:1]).df)
    assert moments.paired(c[:2], t[:2]).df == 1.0


def test_a_split_against_scipy() -> None:
    c, t = draws(7, 2)[0], draws(11, 2, 1)[1]
    m = moments.split(c, t)
    theirs = stats.ttest_ind(t, c, equal_var=False)
    same((m.difference / np.sqrt(m.variance), m.df), (theirs.statistic, theirs.df))
    assert (m.n_control, m.n_treatment, m.cov, m.paired) == (7, 11, 0.0, False)


def arms(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Variables z, d, x1, x2 of two arms: a value, a denominator and what was known before."""
    return draws(n, 4), draws(m, 4, 1) + 0.3


def test_one_slope_for_equal_arms_is_the_analysis_of_covariance() -> None:
    c, t = arms(8, 8)
    m = moments.split_moments(moments.sample(list(c)), moments.sample(list(t)), 0, None, (2, 3))
    y = np.concatenate((c[0], t[0]))
    x = np.concatenate((c[2:], t[2:]), axis=1)
    table = np.column_stack((np.ones(16), np.arange(16) >= 8, x.T))
    theirs = sm.OLS(y, table).fit()
    same(m.difference, theirs.params[1])
    same(m.variance, theirs.bse[1] ** 2)
    same(m.control, theirs.params[0] + theirs.params[2:] @ x.mean(axis=1))


@pytest.mark.parametrize("bottom", [None, 1])
def test_one_slope_for_unequal_arms_by_its_formula(bottom: int | None) -> None:
    sides = arms(9, 14)
    samples = [moments.sample(list(side)) for side in sides]
    m = moments.split_moments(samples[0], samples[1], 0, bottom, (2, 3))
    z = [moments.linearised(side[0], side[1]) if bottom else side[0] for side in sides]
    x = [side[2:] for side in sides]
    # Cochran 1957 by hand: n - 1 scatter of both arms over their sizes, as the slopes are pooled.
    share = 9 / 23
    within = share * np.cov(x[0]) + (1 - share) * np.cov(x[1])
    crossed = sum(
        w * np.array([np.cov(one, own)[0, 1] for one in at])
        for w, at, own in zip((share, 1 - share), x, z, strict=True)
    )
    theta = np.linalg.solve(within, crossed)
    gap = x[1].mean(axis=1) - x[0].mean(axis=1)
    left = [np.var(own - theta @ at, ddof=1) for own, at in zip(z, x, strict=True)]
    v, w = left[0] / 9 * 21 / 19, left[1] / 14 * 21 / 19
    slope = (share * v * 9 + (1 - share) * w * 14) / 21 * gap @ np.linalg.solve(within, gap)
    far = 1 - share
    expected = Moments(
        z[0].mean() + theta @ gap * far,
        z[1].mean() - theta @ gap * share,
        v + far**2 * slope,
        w + share**2 * slope,
        -far * share * slope,
        (v + w) ** 2 / (v**2 / 8 + w**2 / 13) - 2,
        9,
        14,
        False,
    )
    same(astuple(m)[:-1], astuple(expected)[:-1])
    at_c, at_t = moments.split_gradients(samples[0], samples[1], 0, bottom, (2, 3))
    plain = moments.split_gradients(samples[0], samples[1], 0, bottom)
    for own, side, bare in zip((at_c, at_t), samples, plain, strict=True):
        assert bare.tolist() == moments.ratio(side.mean, 0, bottom)[1].tolist()
        same(own, bare - np.array([0, 0, *theta]))
    same(samples[0].variance(at_c), left[0] / 9)


def test_slopes_need_a_unit_each() -> None:
    def adjusted(n: int, m: int) -> float:
        samples = [moments.sample(list(side)) for side in arms(n, m)]
        return float(moments.split_moments(samples[0], samples[1], 0, None, (2, 3)).variance)

    assert np.isnan(adjusted(2, 2)), "two means and two slopes of four units"
    assert adjusted(2, 3) > 0


@pytest.mark.parametrize("bottom", [None, 1])
def test_a_slope_for_each_arm_by_its_formula(bottom: int | None) -> None:
    sides = arms(9, 14)
    samples = [moments.sample(list(side)) for side in sides]
    m = moments.interacted_moments(samples[0], samples[1], 0, bottom, (2, 3))
    everybody = np.concatenate((sides[0][2:], sides[1][2:]), axis=1)
    spread = np.cov(everybody) / 23
    means, own, slopes = [], [], []
    for side in sides:
        n = side.shape[1]
        z = moments.linearised(side[0], side[1]) if bottom else side[0]
        fit = sm.OLS(z, sm.add_constant((side[2:] - everybody.mean(axis=1)[:, None]).T)).fit()
        means.append(fit.params[0])
        slopes.append(fit.params[1:])
        d = side[2:].mean(axis=1) - everybody.mean(axis=1)
        cost = 1 + d @ np.linalg.solve(np.cov(side[2:]), d) * n / (n - 1)
        own.append(fit.ssr / (n - 3) / n * cost)
    (v, w), (a, b) = own, slopes
    expected = Moments(
        *means,
        v + a @ spread @ a,
        w + b @ spread @ b,
        a @ spread @ b,
        (v + w) ** 2 / (v**2 / 6 + w**2 / 11),
        9,
        14,
        False,
    )
    same(astuple(m)[:-1], astuple(expected)[:-1])


def test_a_slope_for_each_arm_needs_units_in_each() -> None:
    def variance(n: int) -> float:
        samples = [moments.sample(list(side)) for side in arms(n, 9)]
        return float(moments.interacted_moments(samples[0], samples[1], 0, None, (2, 3)).variance)

    assert np.isnan(variance(3))
    assert variance(4) > 0


def test_linearised_values_have_the_mean_and_the_variance_of_the_ratio() -> None:
    top, bottom = np.array([3.0, 0.0, 5.0, 4.0]), np.array([1.0, 0.0, 2.0, 1.0])
    assert moments.linearised(top, bottom).tolist() == [3.0, 3.0, 2.0, 4.0]
    assert np.isnan(moments.linearised(top, bottom * 0)).tolist() == [True] * 4
    assert len(moments.linearised(top[:0], bottom[:0])) == 0


def test_linearised_alike_is_by_the_ratio_of_both_arms() -> None:
    control = np.array([3.0, 1.0]), np.array([1.0, 1.0])
    treatment = np.array([2.0, 0.0, 6.0]), np.array([0.0, 2.0, 2.0])
    a, b = moments.linearised_alike(control, treatment)  # 12 / 6
    assert (a.tolist(), b.tolist()) == ([1.0, -1.0], [2.0, -4.0, 2.0])
    counts = np.array([2.0, 0.0]), np.array([1.0, 0.0, 1.0])  # 14 / 4
    a, b = moments.linearised_alike(control, treatment, counts)
    assert (a.tolist(), b.tolist()) == ([-0.5, -2.5], [2.0, -7.0, -1.0])
    none = np.zeros(2), np.zeros(2)
    assert np.isnan(moments.linearised_alike(none, none)[0]).all()


def test_degrees_of_freedom() -> None:
    v = np.array([0.2, 0.0, NAN, 0.2])
    found = moments.welch_df(v, np.array([0.3, 0.0, 0.1, 0.0]), 6.0, 11.0, 2)
    same(found, [0.25 / (0.04 / 5 + 0.09 / 10) - 2, 13.0, NAN, 3.0])
    assert moments.welch_df(0.0, 0.0, 6.0, 11.0) == 15.0


def test_samples_together_are_that_of_all_units() -> None:
    columns = np.random.default_rng(8).gamma(2.0, 3.0, (3, 500))
    columns[2] = 1e6  # has no spread, and keeps none
    whole = moments.sample(list(columns))
    parts = [moments.sample(list(part)) for part in np.split(columns, [0, 1, 3, 200], axis=1)]
    assert [part.n for part in parts] == [0, 1, 2, 197, 300]
    found = moments.together(parts)
    assert found.n == 500
    np.testing.assert_allclose(found.mean, whole.mean, 1e-14)
    np.testing.assert_allclose(found.cov, whole.cov, 1e-13)
    assert (found.cov == found.cov.T).all()
    assert not found.cov[2].any()
    assert moments.together([whole, parts[0]]) is whole
    assert moments.together(parts[:1]).n == 0
