"""Priors by their parts: the mixture of normals, the fit and its interval, the sampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar

from simulator.stats import priors
from simulator.stats.priors import Prior, fit, log_likelihood, posterior, triangle
from simulator.stats.unit_table import TableError


@pytest.mark.parametrize("df", [1.2, 3.0, 30.0, math.inf])
def test_a_student_law_is_the_mixture_of_its_normals(df: float) -> None:
    """Also far out: at 12 scales."""
    scales, weights = priors._scales(df)
    assert weights.sum() == pytest.approx(1.0)
    for x in (0.0, 1.0, 3.0, 12.0):
        mixed = float((weights * stats.norm.pdf(x, scale=np.sqrt(scales))).sum())
        expected = stats.norm.pdf(x) if math.isinf(df) else stats.t.pdf(x, df)
        assert mixed == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("df", [2.0, math.inf])
def test_the_likelihood_is_that_of_noise_upon_the_prior(df: float) -> None:
    prior = Prior(0.1, 0.5, df)
    lifts, errors = np.array([0.3, -0.9, 2.5]), np.array([0.2, 0.4, 0.1])
    total = 0.0
    for y, s in zip(lifts, errors, strict=True):
        if math.isinf(df):
            density = stats.norm.pdf(y, 0.1, math.hypot(s, 0.5))
        else:
            law = stats.t(df, 0.1, 0.5)
            density, _ = quad(
                lambda x, y=y, s=s, law=law: law.pdf(x) * stats.norm.pdf(y, x, s),
                *(y - 9 * s, y + 9 * s),
                epsabs=1e-12,
            )
        total += math.log(density)
    assert log_likelihood(lifts, errors, prior) == pytest.approx(total, rel=1e-6)


def test_a_prior_that_cannot_be_is_refused_at_its_limits() -> None:
    assert Prior(0.0, 1.0) == Prior(0.0, 1.0, math.inf, 0)
    assert Prior(0.0, 1e-9, 1.0).df == 1.0
    for bad in ((math.nan, 1.0), (math.inf, 1.0), (0.0, 0.0), (0.0, -1.0), (0.0, math.inf)):
        with pytest.raises(TableError, match="a finite mean, a scale above 0"):
            Prior(*bad)
    with pytest.raises(TableError) as refusal:
        Prior(0.25, 2.0, 0.9)
    assert str(refusal.value).endswith("at least 1; got mean 0.25, scale 2, df 0.9")


LIFTS = np.array([0.011, -0.004, 0.03, 0.002, -0.021, 0.008, 0.0, 0.065, -0.009, 0.005])
ERRORS = np.array([0.004, 0.006, 0.01, 0.003, 0.008, 0.005, 0.004, 0.012, 0.006, 0.007])


@pytest.fixture
def only_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priors, "DEGREES", (math.inf,))


def profile(scale: float) -> tuple[float, float]:
    """The best likelihood of a normal prior of this scale, and its mean: the weighted one."""
    variance = ERRORS**2 + scale**2
    mean = float((LIFTS / variance).sum() / (1 / variance).sum())
    return float(stats.norm.logpdf(LIFTS, mean, np.sqrt(variance)).sum()), mean


@pytest.mark.usefixtures("only_normal")
def test_a_normal_prior_and_its_interval_are_those_of_the_profile() -> None:
    best = minimize_scalar(lambda x: -profile(math.exp(x))[0], bounds=(-8, 0), method="bounded")
    scale, top = math.exp(best.x), -best.fun
    found = fit(LIFTS.tolist(), ERRORS.tolist())
    assert found.prior.scale == pytest.approx(scale, rel=1e-3)
    assert found.prior.mean == pytest.approx(profile(scale)[1], abs=1e-5)
    assert (found.prior.df, found.prior.tests) == (math.inf, 10)

    def short(x: float) -> float:
        return profile(math.exp(x))[0] - top + 1.92

    # 3.84 is the 95% point of chi-square with one degree of freedom.
    assert stats.chi2.ppf(0.95, 1) / 2 == pytest.approx(1.92, abs=1e-3)
    low, high = brentq(short, -9, best.x), brentq(short, best.x, 0)
    assert found.scale_low == pytest.approx(math.exp(low), rel=3e-3)
    assert found.scale_high == pytest.approx(math.exp(high), rel=3e-3)


@pytest.mark.usefixtures("only_normal")
def test_lifts_that_show_no_difference_have_a_scale_from_0() -> None:
    found = fit(np.linspace(-0.1, 0.1, 9), np.ones(9))
    assert found.scale_low == 0.0
    assert 1e-4 <= found.prior.scale < found.scale_high < 1.0


def test_the_degrees_of_freedom_with_the_best_likelihood_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(priors, "DEGREES", (1.2, math.inf))
    monkeypatch.setattr(priors, "_interval", lambda y, s, prior, top: (top, prior.df))
    far = np.array([*LIFTS, 3.0])  # one that no normal law has
    errors = np.array([*ERRORS, 0.01])
    found = fit(far, errors)
    fits = {df: priors._fit_at(far, errors, df) for df in priors.DEGREES}
    assert found.prior.df == 1.2
    assert (found.scale_low, found.scale_high) == (fits[1.2][0], 1.2)
    assert fits[1.2][0] > fits[math.inf][0] + 5
    assert found.prior == fits[1.2][1]
    assert fits[1.2][0] == pytest.approx(log_likelihood(far, errors, found.prior))
    fixed, prior = priors._fit_at(far, errors, 1.2, 0.02)
    assert prior.scale == 0.02
    means = np.linspace(-0.02, 0.03, 501)
    by_grid = max(log_likelihood(far, errors, Prior(m, 0.02, 1.2)) for m in means)
    assert fixed == pytest.approx(by_grid, abs=1e-3)


def test_lifts_that_are_none_are_named() -> None:
    eight, errors = np.linspace(-0.1, 0.1, 8), np.full(8, 0.02)
    with pytest.raises(TableError, match=r"at least 8 earlier lifts; got 7"):
        fit(eight[:7], errors[:7])
    for place, lift, error, message in (
        (2, math.nan, 0.02, "number 3 has lift nan and standard error 0.02"),
        (0, 0.5, 0.0, "number 1 has lift 0.5 and standard error 0"),
        (7, 0.5, math.inf, "number 8 has lift 0.5 and standard error inf"),
        (1, 2e6, 0.02, "below 1e\\+06; number 2 has lift 2e\\+06 and standard error 0.02"),
        (3, -2e6, 0.02, "number 4 has lift -2e\\+06"),
        (4, 0.1, 2e6, "number 5 has lift 0.1 and standard error 2e\\+06"),
    ):
        y, s = eight.copy(), errors.copy()
        y[place], s[place] = lift, error
        y[-1] = math.nan if place == 0 else y[-1]  # the first one is named
        with pytest.raises(TableError, match=message):
            fit(y, s)


@pytest.mark.usefixtures("only_normal")
def test_eight_lifts_and_the_largest_ones_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priors, "_interval", lambda *_: (0.0, 1.0))
    y, s = np.linspace(-0.1, 0.1, 8), np.full(8, 0.02)
    y[0], s[0] = -1e6, 1e6
    assert fit(y, s).prior.tests == 8


def test_a_triangle_leaves_a_direction_without_variance_out() -> None:
    random = np.random.default_rng(3)
    a = random.normal(size=(4, 3, 3))
    cov = a @ a.transpose(0, 2, 1)
    assert triangle(cov) == pytest.approx(np.linalg.cholesky(cov))
    assert triangle(cov[0]) == pytest.approx(np.linalg.cholesky(cov[0]))
    for factor, is_there in ((1e-13, False), (1e-11, True)):
        # The second variable is the first, and a little of its own.
        close = np.array([[1.0, 1.0], [1.0, 1.0 + factor]])
        assert bool(triangle(close)[1, 1] > 0) is is_there
    assert triangle(np.zeros((2, 2))).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_triangles_solve_systems() -> None:
    random = np.random.default_rng(4)
    a = random.normal(size=(5, 3, 3))
    cov, right = a @ a.transpose(0, 2, 1), random.normal(size=(5, 3))
    expected = np.linalg.solve(cov, right[:, :, None])[:, :, 0]
    assert priors._solve(np.linalg.cholesky(cov), right) == pytest.approx(expected)


def test_a_draw_of_true_lifts_is_matherons() -> None:
    """From the same normals: own + spread (noise cov + spread)^-1 (lifts - own - shock)."""
    lifts, cov = np.array([0.3, -0.1]), np.array([[0.04, 0.01], [0.01, 0.09]])
    noise, spread = np.array([1.0, 2.5]), np.array([[0.5, 0.2], [0.1, 3.0]])
    found = priors._conditional(lifts, cov, noise, spread, 0.7, np.random.default_rng(1))
    generator = np.random.default_rng(1)
    first, then = generator.standard_normal((2, 2)), generator.standard_normal((2, 2))
    for c in range(2):
        own = 0.7 + np.sqrt(spread[c]) * first[c]
        shock = np.sqrt(noise[c]) * np.linalg.cholesky(cov) @ then[c]
        gain = np.diag(spread[c]) @ np.linalg.inv(noise[c] * cov + np.diag(spread[c]))
        assert found[c] == pytest.approx(own + gain @ (lifts - own - shock))


def test_draws_of_the_posterior_are_as_many_as_asked_and_of_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(priors, "CHAINS", 50)
    monkeypatch.setattr(priors, "WARM", 3)
    lifts, cov = np.array([0.3, -0.1]), np.array([[0.04, 0.01], [0.01, 0.09]])

    def draw(n: int, df: float = 5.0) -> np.ndarray:
        prior = Prior(0.1, 0.2, df)
        return posterior(lifts, cov, 12.0, prior, np.random.default_rng(2), n)

    assert [len(draw(n)) for n in (1, 50, 99, 100, 149)] == [50, 50, 50, 100, 100]
    assert (draw(100)[:50] == draw(50)).all()
    # By hand, round by round: chi-square precisions of the noise and of each arm's prior.
    for df in (5.0, math.inf):
        generator, drawn = np.random.default_rng(2), np.tile(lifts, (50, 1))
        for _ in range(3 + 1):
            away = drawn - lifts
            squares = np.einsum("ci,ij,cj->c", away, np.linalg.inv(cov), away)
            noise = (12.0 + squares) / generator.chisquare(14.0, 50)
            spread = np.full((50, 2), 0.04)
            if df == 5.0:
                far = ((drawn - 0.1) / 0.2) ** 2
                spread = 0.04 * (5.0 + far) / generator.chisquare(6.0, (50, 2))
            drawn = priors._conditional(lifts, cov, noise, spread, 0.1, generator)
        assert draw(50, df) == pytest.approx(drawn)
