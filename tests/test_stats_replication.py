"""Models and methods: the two-factor model by hand and by simulation, users divided and crossed."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.stats import intervals, moments, replication, tests
from simulator.stats.moments import Floats, Moments


def lives(
    rng: np.random.Generator, n_users: int, n_fits: int, fits: float, interaction: float
) -> Floats:
    """What users have `[2 arms, n_fits, n_users]`: 10 on average in both methods."""
    user = rng.gamma(2.0, 5.0, n_users) + rng.normal(0.0, 1.0, (2, 1, n_users))
    fit = rng.normal(0.0, fits, (2, n_fits, 1)) if fits else 0.0
    return np.asarray(user + fit + rng.normal(0.0, interaction, (2, n_fits, n_users)))


def crossed(y: Floats) -> replication.Replicated:
    n_fits = y.shape[1]
    columns = [[(a * n_fits + f, None) for f in range(n_fits)] for a in (0, 1)]
    pooled = moments.paired(y[0].mean(axis=0), y[1].mean(axis=0))
    return replication.crossed_pairs(pooled, moments.sample([*y[0], *y[1]]), *columns)


def divided(y: Floats) -> replication.Replicated:
    """User u lives with fit u mod F."""
    n_fits, n_users = y.shape[1:]
    fit = np.arange(n_users) % n_fits
    own = y[:, fit, np.arange(n_users)]
    parts = [moments.paired(own[0, fit == f], own[1, fit == f]) for f in range(n_fits)]
    return replication.divided(moments.paired(own[0], own[1]), parts)


def test_crossed_components_are_those_of_the_analysis_of_variance() -> None:
    y = lives(np.random.default_rng(3), 40, 3, 0.5, 2.0)
    d = y[1] - y[0]
    n_fits, n = d.shape
    rows = n * np.square(d.mean(axis=1) - d.mean()).sum() / (n_fits - 1)
    columns = n_fits * np.square(d.mean(axis=0) - d.mean()).sum() / (n - 1)
    rest = np.square(d - d.mean(axis=1)[:, None] - d.mean(axis=0) + d.mean()).sum()
    rest /= (n - 1) * (n_fits - 1)
    result = crossed(y)
    assert result.components is not None
    assert result.methods is not None
    assert result.components.interaction == pytest.approx(rest)
    assert result.components.users == pytest.approx((columns - rest) / n_fits)
    assert result.components.fits == pytest.approx((rows - rest) / n)
    assert result.methods.variance == pytest.approx((rows + columns - rest) / (n * n_fits))
    assert result.methods.difference == pytest.approx(d.mean())
    of_fits = rows / (rows + columns)
    critical = of_fits * intervals.quantile(n_fits - 1, 0.95)
    critical += (1 - of_fits) * intervals.quantile(n - 1, 0.95)
    assert intervals.quantile(result.methods.df, 0.95) == pytest.approx(critical)


@pytest.mark.parametrize("share_of_fits", [0.3, 0.7, 0.9, 0.97])
def test_degrees_of_freedom_of_three_fits_do_not_trust_fits_that_are_alike(
    share_of_fits: float,
) -> None:
    """Differences of equal methods, from variances that 2 and endlessly many degrees of freedom
    tell: Satterthwaite's degrees of freedom find 7.8% of them where fits bring ten times the
    variance of users.
    """
    rng, repetitions = np.random.default_rng(2), 20_000
    of_users = 1.0 - share_of_fits
    wrong = 0
    for of_fits in share_of_fits * rng.chisquare(2, repetitions) / 2:
        df = replication.mixed_df((of_fits, of_users), (2.0, 1e6))
        standard_error = np.sqrt(of_fits + of_users)
        wrong += abs(rng.standard_normal()) > intervals.quantile(df, 0.95) * standard_error
    assert 0.02 < wrong / repetitions < 0.055


def test_divided_with_equal_fits_is_the_t_test_of_the_fits_means() -> None:
    y = lives(np.random.default_rng(4), 60, 4, 0.5, 2.0)
    result = divided(y)
    assert result.methods is not None
    own = y[:, np.arange(60) % 4, np.arange(60)]
    means = own.reshape(2, 15, 4).mean(axis=1)
    by_hand = moments.paired(means[0], means[1])
    assert tests.t_test(result.methods) == pytest.approx(tests.t_test(by_hand))
    assert intervals.fieller(result.methods) == pytest.approx(intervals.fieller(by_hand))


@pytest.mark.parametrize("n_fits", [3, 5, 10])
@pytest.mark.parametrize("design", [crossed, divided])
def test_methods_cover_where_models_do_not(design: object, n_fits: int) -> None:
    """Both methods are the same: a verdict that calls them different is wrong. Fits spread by .4,
    users by 1.4 and more of 300, so the models are told apart much too often.
    """
    assert callable(design)
    rng, repetitions = np.random.default_rng(n_fits), 600
    wrong = np.zeros(2)
    spread = 0.0
    for _ in range(repetitions):
        result: replication.Replicated = design(lives(rng, 300, n_fits, 0.4, 1.0))
        assert result.methods is not None
        assert result.components is not None
        both = (result.models, result.methods)
        wrong += [float(tests.t_test(m).p < 0.05) for m in both]
        spread += result.components.fits / repetitions
    assert wrong[0] / repetitions > 0.25
    assert abs(wrong[1] / repetitions - 0.05) < 4 * np.sqrt(0.05 * 0.95 / repetitions)
    assert spread == pytest.approx(2 * 0.4**2, rel=0.25)


def test_without_fit_effects_the_methods_interval_is_not_shorter_than_it_should_be() -> None:
    rng = np.random.default_rng(8)
    wrong = [
        tests.t_test(design(lives(rng, 200, 4, 0.0, 2.0)).methods).p < 0.05
        for design in (crossed, divided)
        for _ in range(500)
    ]
    assert np.mean(wrong[:500]) < 0.06
    assert abs(np.mean(wrong[500:]) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 500)


def test_ratios_are_linearised_by_fit() -> None:
    """Clicks per impression, and impressions that come with the user: the components are those of
    (N - R D) / mean D.
    """
    rng = np.random.default_rng(5)
    n, n_fits = 400, 3
    shown = rng.integers(1, 30, (2, n_fits, n)).astype(float)
    rate = np.clip(0.3 + rng.normal(0, 0.02, (2, n_fits, 1)) + rng.normal(0, 0.1, n), 0.01, 0.99)
    clicks = rng.binomial(shown.astype(int), rate).astype(float)
    variables = [*clicks.reshape(-1, n), *shown.reshape(-1, n)]
    at = [[(a * n_fits + f, (2 + a) * n_fits + f) for f in range(n_fits)] for a in (0, 1)]
    sums = [clicks.mean(axis=1), shown.mean(axis=1)]
    pooled = moments.paired_moments(
        moments.sample([sums[0][0], sums[1][0], sums[0][1], sums[1][1]]), (0, 1), (2, 3)
    )
    result = replication.crossed_pairs(pooled, moments.sample(variables), *at)
    by_hand = np.stack(
        [
            np.stack(
                [moments.linearised(clicks[a, f], shown[a, f]) for f in range(n_fits)],
            )
            for a in (0, 1)
        ]
    )
    linear = crossed(by_hand)
    assert result.components is not None
    assert linear.components is not None
    assert result.components.fits == pytest.approx(linear.components.fits)
    assert result.components.users == pytest.approx(linear.components.users)
    assert result.components.interaction == pytest.approx(linear.components.interaction)


def test_crossed_users_of_one_arm_each() -> None:
    """Split users with every fit: false positives at 5%, and variance components of both arms."""
    rng, repetitions = np.random.default_rng(6), 600
    wrong = 0
    for _ in range(repetitions):
        y = [lives(rng, 150, 4, 0.5, 1.0)[arm] for arm in (0, 1)]
        columns = [(f, None) for f in range(4)]
        pooled = moments.split(y[0].mean(axis=0), y[1].mean(axis=0))
        result = replication.crossed_split(
            pooled, (moments.sample(list(y[0])), columns), (moments.sample(list(y[1])), columns)
        )
        assert result.methods is not None
        wrong += tests.t_test(result.methods).p < 0.05
    assert abs(wrong / repetitions - 0.05) < 4 * np.sqrt(0.05 * 0.95 / repetitions)


def test_one_fit_says_nothing_of_the_method() -> None:
    y = lives(np.random.default_rng(1), 50, 1, 0.0, 1.0)
    for result in (crossed(y), divided(y)):
        assert result.methods is None
        assert result.components is None
        assert isinstance(result.models, Moments)


def test_the_share_of_what_more_users_would_not_lessen() -> None:
    parts = replication.Components(users=8.0, fits=1.0, interaction=4.0, n_users=100, n_fits=4)
    of_users, of_fits = parts.of_the_mean
    assert (of_users, of_fits) == (pytest.approx(0.08 + 0.01), pytest.approx(0.25))
    assert parts.share_of_fits == pytest.approx(0.25 / 0.34)
    below = replication.Components(users=8.0, fits=-1.0, interaction=np.nan, n_users=100, n_fits=4)
    assert below.share_of_fits == 0.0
    by_chance = replication.Components(users=-9.0, fits=1.0, interaction=4.0, n_users=9, n_fits=4)
    assert by_chance.share_of_fits == 1.0
