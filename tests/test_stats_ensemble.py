"""The verdict over worlds: its intervals cover what they promise, noise is no sign, and a parameter
is ranked only where it moves the lift.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import beta, ncf, norm
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests

from simulator.stats.ensemble import FEWEST, WorldsLift, estimate, over_worlds
from simulator.stats.pooling import pool_lifts, pooled
from simulator.stats.sensitivity import FEWEST as FEWEST_RANKED
from simulator.stats.sensitivity import Influence, influences, ranked
from simulator.stats.verdict import Lift


def of(lifts: np.ndarray, errors: np.ndarray) -> WorldsLift:
    worlds = over_worlds("click", "new", lifts, errors)
    assert worlds is not None
    return worlds


def test_with_many_exact_worlds_it_is_the_normal_theory() -> None:
    """Errors near 0: the mean has Student's interval; one more world lies within its own."""
    rng = np.random.default_rng(1)
    lifts = rng.normal(0.01, 0.02, 40)
    found = of(lifts, np.full(40, 1e-6))
    mean, sd = lifts.mean(), lifts.std(ddof=1)
    half = 2.0227 * sd  # Student's t with 39 degrees of freedom
    assert found.lift == pytest.approx(mean, abs=1e-5)
    assert found.mean_high - mean == pytest.approx(half / math.sqrt(40), rel=0.03)
    assert found.high - mean == pytest.approx(half * math.sqrt(1 + 1 / 40), rel=0.03)
    assert found.up == pytest.approx(np.mean(lifts > 0))
    assert found.between == pytest.approx(sd, rel=0.05)


def test_worlds_that_do_not_differ_are_weighted_by_their_errors() -> None:
    lifts, errors = np.array([0.02, 0.02, 0.02, 0.02]), np.array([0.001, 0.004, 0.01, 0.02])
    found = of(lifts, errors)
    assert found.lift == pytest.approx(0.02)
    assert found.within == pytest.approx(math.sqrt(np.mean(errors**2)))
    assert found.low < found.mean_low < 0.02 < found.mean_high < found.high


@pytest.mark.parametrize(("k", "tau"), [(8, 1.0), (20, 0.5), (50, 2.0)])
def test_the_band_holds_one_more_world_and_the_mean_its_mean(k: int, tau: float) -> None:
    """400 ensembles: 95% within Monte-Carlo error (3 sd: 3%), and not much more."""
    rng = np.random.default_rng(k)
    band, mean, share = [], [], []
    for _ in range(400):
        errors = rng.gamma(8.0, 1 / 8, k)
        lifts = rng.normal(0.5 + tau * rng.normal(size=k), errors)
        found, one_more = of(lifts, errors), 0.5 + tau * rng.normal()
        band.append(found.low <= one_more <= found.high)
        mean.append(found.mean_low <= 0.5 <= found.mean_high)
        share.append(found.up_low <= norm.cdf(0.5 / tau) <= found.up_high)
    assert 0.915 <= np.mean(band) <= 0.995
    assert 0.915 <= np.mean(mean) <= 0.995
    assert np.mean(share) >= 0.915


def test_worlds_of_the_same_users_have_one_error() -> None:
    """10 worlds share an error as large as they differ: as if each had its own, the band holds one
    more world in three of four ensembles, and with one for all in 95%.
    """
    rng = np.random.default_rng(3)
    apart, together, mean, share = [], [], [], []
    for _ in range(200):
        lifts, one_more = rng.normal(size=10) + rng.normal(), rng.normal()
        each = of(lifts, np.ones(10))
        apart.append(each.low <= one_more <= each.high)
        found = over_worlds("click", "new", lifts, np.ones(10), same_users=True)
        assert found is not None
        together.append(found.low <= one_more <= found.high)
        mean.append(found.mean_low <= 0 <= found.mean_high)
        share.append(found.up_low <= 0.5 <= found.up_high)
    assert np.mean(apart) < 0.85
    for held in (together, mean, share):
        assert 0.9 <= np.mean(held) <= 0.99


def test_worlds_of_the_same_users_may_all_show_one_lift() -> None:
    found = over_worlds("click", "new", [0.02] * 5, [0.01] * 5, same_users=True)
    assert found is not None
    assert found.low == pytest.approx(0.02 - 1.96 * 0.01, rel=0.02)
    assert found.between < 0.001


@pytest.mark.parametrize("law", ["line", "step", "tail"])
def test_bands_hold_whatever_the_law_of_a_hidden_parameter(law: str) -> None:
    """A lift that follows a parameter x in (0, 1) which nobody sees, with mean .5 and sd 1: evenly
    spread, another in one world of four, exponential. The model takes it for normal; its bands hold
    one more world, and the mean, in 90% and more.
    """
    rng = np.random.default_rng(4)

    def true_lift(x: np.ndarray) -> np.ndarray:
        if law == "line":
            return 0.5 + math.sqrt(12) * (x - 0.5)
        if law == "step":
            return 0.5 + np.where(x < 0.25, -math.sqrt(3), math.sqrt(1 / 3))
        return -0.5 - np.log(x)

    band, mean = [], []
    for _ in range(300):
        errors = rng.gamma(8.0, 1 / 8, 30) / 2
        found = of(rng.normal(true_lift(rng.random(30)), errors), errors)
        band.append(found.low <= true_lift(rng.random(1))[0] <= found.high)
        mean.append(found.mean_low <= 0.5 <= found.mean_high)
    least = 0.9 - 3 * math.sqrt(0.9 * 0.1 / 300)
    assert np.mean(band) >= least
    assert np.mean(mean) >= least
    assert np.mean(mean) <= 0.995


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_law_over_worlds_is_that_of_draws(level: float) -> None:
    """Flat priors of mean and spread: drawn, weighted by the likelihood, and drawn from again."""
    rng = np.random.default_rng(6)
    lifts, errors = np.array([0.3, -0.4, 0.9, 1.6, 0.2, -0.1]), np.array([0.2, 0.5, 0.3, 1, 0.1, 2])
    found = over_worlds("click", "new", lifts, errors, level)
    assert found is not None
    mu, tau = rng.uniform(-4, 5, 200_000), rng.uniform(0, 6, 200_000)
    seen = norm.logpdf(lifts, mu[:, None], np.hypot(errors, tau[:, None])).sum(axis=1)
    weight = np.exp(seen - seen.max())
    at = rng.choice(len(mu), 60_000, p=weight / weight.sum())
    mu, tau = mu[at], tau[at]
    precision = 1 / errors**2 + 1 / tau[:, None] ** 2
    true = (lifts / errors**2 + (mu / tau**2)[:, None]) / precision
    n = (true + rng.standard_normal(true.shape) / np.sqrt(precision) > 0).sum(axis=1)
    share = rng.beta(n + 0.5, 6 - n + 0.5)
    size = share.mean() * (1 - share.mean()) / share.var() - 1
    of_share = beta(share.mean() * size, (1 - share.mean()) * size)
    tails = [(1 - level) / 2, (1 + level) / 2]
    one_more = mu + tau * rng.standard_normal(len(mu))
    for figures, wanted in (
        ([found.lift, found.mean_low, found.mean_high], [mu.mean(), *np.quantile(mu, tails)]),
        ([found.low, found.high], np.quantile(one_more, tails)),
        ([found.between, found.between_low, found.between_high], np.quantile(tau, [0.5, *tails])),
        ([found.up, found.up_low, found.up_high], [n.mean() / 6, *of_share.ppf(tails)]),
    ):
        assert figures == pytest.approx(wanted, abs=0.03)
    assert found.within == pytest.approx(np.sqrt((errors**2).mean()))
    assert found.share_of_worlds == pytest.approx(
        found.between**2 / (found.between**2 + (errors**2).mean())
    )


def test_noise_within_worlds_is_no_share_of_signs() -> None:
    """All true lifts are +0.5; the errors put 3 of 10 estimates below 0."""
    rng = np.random.default_rng(7)
    lifts = rng.normal(0.5, 1.0, 200)
    found = of(lifts, np.ones(200))
    assert np.mean(lifts > 0) < 0.75
    assert found.up > 0.85
    assert found.up_high > 0.98


def test_few_worlds_say_nothing() -> None:
    assert over_worlds("click", "new", [0.1] * (FEWEST - 1), [0.1] * (FEWEST - 1)) is None


def test_the_error_of_a_row_is_that_of_its_interval() -> None:
    def row(low: float, high: float) -> Lift:
        nan = math.nan
        return Lift("m", "a", "user", 1.0, 1.1, 0.1, low, high, nan, 9.0, nan, nan, 10, nan)

    assert estimate(row(0.1 - 2.2622, 0.1 + 2.2622)) == pytest.approx((0.1, 1.0), rel=1e-4)
    assert estimate(row(-math.inf, math.inf)) is None
    assert estimate(row(0.1, 0.1)) is None


def verdict_row(lift: float, error: float, arm: str = "a", **more: object) -> Lift:
    """A row of a metric m whose lift has this standard error and 9 degrees of freedom."""
    half, nan = 2.262157 * error, math.nan
    row = Lift("m", arm, "user", 1.0, 1 + lift, lift, lift - half, lift + half, nan, 9.0, nan, nan,
               10, nan)  # fmt: skip
    return replace(row, **more)  # type: ignore[arg-type]


def test_lifts_are_pooled_by_rubins_rules() -> None:
    """Three worlds, by hand: W = mean square error, B = variance between, T = W + 4/3 B."""
    lifts, errors = [0.1, 0.2, 0.6], [0.1, 0.2, 0.2]
    within, between = 0.03, np.var(lifts, ddof=1)
    df = 2 * (1 + within / (4 / 3 * between)) ** 2
    half = student.ppf(0.975, df) * math.sqrt(within + 4 / 3 * between)
    one = pooled(lifts, errors)
    assert (one.lift, one.low, one.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    assert (one.within, one.between, one.df) == pytest.approx(
        (math.sqrt(within), math.sqrt(between), df)
    )
    alike = pooled([0.1, 0.1], [0.3, 0.3])
    assert (alike.df, alike.high) == pytest.approx((math.inf, 0.1 + 1.959964 * 0.3))
    with pytest.raises(ValueError, match="at least two worlds; got 1"):
        pooled([0.1], [0.1])


def test_rows_are_pooled_where_every_world_has_one_by_user() -> None:
    worlds = [
        [
            verdict_row(lift, 0.1),
            verdict_row(lift, 0.1, "days", unit="day"),
            verdict_row(lift, 0.1, "user-days", unit="user-day"),
            verdict_row(lift, 0.1, "unbounded", low=-math.inf),
            verdict_row(lift, 0.0, "same"),
            *([verdict_row(lift, 0.1, "once")] if lift else []),
        ]
        for lift in (0.0, 0.2)
    ]
    (found,) = pool_lifts(worlds).items()
    assert found[0] == ("a", "m")
    wanted = pooled([0.0, 0.2], [0.1, 0.1])
    assert [found[1].lift, found[1].low, found[1].high] == pytest.approx(
        [wanted.lift, wanted.low, wanted.high]
    )


def test_words_of_worlds_are_those_of_the_band() -> None:
    one = of(np.full(5, 0.3), np.full(5, 0.1))
    for low, high, words in ((0.1, 0.2, "up"), (-0.1, 0.2, "undecided"), (-0.2, -0.1, "down")):
        assert replace(one, low=low, high=high).words == words


def planted(rng: np.random.Generator, k: int, n_parameters: int) -> list[Influence]:
    """Lifts that parameter p0 moves across 0 at the middle of its range; the others do nothing."""
    parameters = {f"p{i}": rng.random(k) for i in range(n_parameters)}
    lifts = 1.5 * (parameters["p0"] - 0.5) + 0.3 * rng.normal(size=k)
    return ranked(influences("click", "new", parameters, lifts, np.ones(k)))


def test_the_parameter_that_flips_the_sign_is_first_and_no_other_is_shown() -> None:
    rng = np.random.default_rng(3)
    true = 1.5**2 / 12 / (1.5**2 / 12 + 0.3**2)
    false, within = 0, []
    for _ in range(80):
        first, *others = planted(rng, 60, 12)
        assert first.parameter == "p0"
        assert first.flips
        assert first.flip == pytest.approx(0.5, abs=0.25)
        assert first.at_low < 0 < first.at_high
        false += any(row.is_shown for row in others)
        within.append(first.low <= true <= first.high)
    assert false <= 10  # 5% of 80, and two standard deviations more
    assert np.mean(within) >= 0.87


def test_a_bend_is_seen_and_a_constant_is_not_ranked() -> None:
    rng = np.random.default_rng(5)
    x = rng.random(80)
    parameters = {"bend": x, "constant": np.ones(80)}
    lifts = np.square(x - 0.5) + 0.01 * rng.normal(size=80)
    (row,) = influences("click", "new", parameters, lifts, np.ones(80))
    assert row.parameter == "bend"
    assert row.share > 0.9


def test_a_share_is_that_of_a_weighted_regression_on_ranks() -> None:
    """Against statsmodels and scipy's noncentral F."""
    rng = np.random.default_rng(8)
    k, values, weights = 15, rng.gamma(2.0, 1.0, 15), rng.gamma(3.0, 1.0, 15)
    lifts = 0.5 * np.log(values) + 0.3 * rng.normal(size=15)
    (row,) = influences("click", "new", {"p": values}, lifts, weights)

    def parabola(rank: np.ndarray) -> np.ndarray:
        return np.vander(rank, 3)

    rank = (np.argsort(np.argsort(values)) + 0.5) / k
    fit = sm.WLS(lifts, parabola(rank), weights).fit()
    assert row.share == pytest.approx(fit.rsquared_adj)
    assert row.p == row.p_adjusted == pytest.approx(fit.f_pvalue)
    for share, below in ((row.low, 0.975), (row.high, 0.025)):
        assert ncf.cdf(fit.fvalue, 2, k - 3, k * share / (1 - share)) == pytest.approx(
            below, abs=1e-3
        )
    ends = fit.predict(parabola(np.array([0.1, 0.9])))
    assert [row.at_low, row.at_high] == pytest.approx(ends)
    assert [row.smaller, row.greater] == pytest.approx(np.quantile(values, [0.1, 0.9]))
    ranks = np.linspace(0.1, 0.9, 81)
    last_below = np.flatnonzero(fit.predict(parabola(ranks)) < 0)[-1]
    assert row.flip == pytest.approx(np.quantile(values, ranks[last_below]))
    half = [influences("click", "new", {"p": values}, lifts, w)[0] for w in (weights, 9 * weights)]
    assert half[0].p == pytest.approx(half[1].p)


def test_parameters_stand_by_their_shares_and_those_of_two_values_are_left_out() -> None:
    rng = np.random.default_rng(9)
    x = rng.random((4, FEWEST_RANKED))
    parameters = {"weak": x[0], "none": x[1], "strong": x[2], "two": np.round(x[3])}
    lifts = x[2] + 0.4 * x[0] + 0.1 * rng.normal(size=FEWEST_RANKED)
    rows = influences("click", "new", parameters, lifts, np.ones(FEWEST_RANKED))
    assert {row.parameter for row in rows} == {"weak", "none", "strong"}
    assert rows[0].parameter == "strong"
    assert [-row.share for row in rows] == sorted(-row.share for row in rows)
    p = [row.p_adjusted for row in ranked(rows)]
    assert p == pytest.approx(multipletests([row.p for row in rows], method="holm")[1])
    (exact,) = influences("click", "new", {"all": x[2]}, x[2].argsort().argsort() * 1.0, x[3] + 1)
    assert (exact.share, exact.low, exact.high) == pytest.approx((1.0, 1.0, 1.0), abs=0.01)
    (constant,) = influences("click", "new", {"p": x[0]}, np.ones(FEWEST_RANKED), x[3] + 1)
    assert (constant.share, constant.p) == (0.0, 1.0)
    assert math.isnan(constant.flip)
    assert not constant.flips


def test_too_few_worlds_rank_nothing() -> None:
    rng = np.random.default_rng(2)
    assert planted(rng, 8, 3) == []
