"""Models and methods: the two-factor model by hand and by simulation, users divided and crossed."""

from __future__ import annotations

from dataclasses import replace

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


def two_way(y: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean squares and products `[2, 2]` between fits, between users and of the rest, of what
    users have in both arms `[2, F, n]`.
    """
    n_fits, n = y.shape[1:]
    fits, users = y.mean(axis=2, keepdims=True), y.mean(axis=1, keepdims=True)
    mean = y.mean(axis=(1, 2), keepdims=True)
    rest = (y - fits - users + mean).reshape(2, -1)
    between_fits, between_users = (fits - mean)[..., 0], (users - mean)[:, 0]
    return (
        n * between_fits @ between_fits.T / (n_fits - 1),
        n_fits * between_users @ between_users.T / (n - 1),
        rest @ rest.T / ((n - 1) * (n_fits - 1)),
    )


def test_crossed_methods_have_the_covariances_of_both_arms() -> None:
    """The variance of each mean and what they share, and not of the difference alone."""
    y = lives(np.random.default_rng(13), 40, 3, 0.8, 2.0)
    rows, columns, rest = two_way(y)
    result = crossed(y)
    assert result.methods is not None
    cov = (rows + columns - rest) / (40 * 3)
    assert result.methods.var_control == pytest.approx(cov[0, 0])
    assert result.methods.var_treatment == pytest.approx(cov[1, 1])
    assert result.methods.cov == pytest.approx(cov[0, 1])
    assert (result.methods.control, result.methods.treatment) == pytest.approx(
        tuple(y.mean(axis=(1, 2)))
    )


def test_crossed_users_of_one_arm_share_fits_alone() -> None:
    """40 users of the control, 60 of the treatment: each arm's own mean squares, and the product of
    the fits' means.
    """
    y = lives(np.random.default_rng(14), 100, 3, 3.0, 1.0)
    sides = y[0, :, :40], y[1, :, 40:]
    columns = [(f, None) for f in range(3)]
    pooled = moments.split(*(side.mean(axis=0) for side in sides))
    result = replication.crossed_split(
        pooled, *((moments.sample(list(side)), columns) for side in sides)
    )
    assert result.methods is not None
    assert result.components is not None
    own = []
    for side in sides:
        rows, users, rest = (one[0, 0] for one in two_way(np.stack([side, side])))
        own.append((rows + users - rest) / side.size)
    means = np.stack([side.mean(axis=1) for side in sides])
    shared = np.cov(means)[0, 1] / 3
    found = result.methods
    assert [found.var_control, found.var_treatment, found.cov] == pytest.approx([*own, shared])
    # The difference of two arms' users: components by their sum over the sizes.
    parts = [two_way(np.stack([side, side])) for side in sides]
    rest = sum(part[2][0, 0] / side.shape[1] for part, side in zip(parts, sides, strict=True))
    assert result.components.n_users == 100
    assert result.components.interaction == pytest.approx(rest * 100)
    difference = means[1] - means[0]
    assert result.components.fits == pytest.approx(difference.var(ddof=1) - rest)


def test_where_parts_are_below_zero_by_chance_a_variance_is_no_less_than_its_parts() -> None:
    """Users who are all alike and answers that differ by fit and user alone."""
    rng = np.random.default_rng(15)
    for trial in range(20):
        y = 10.0 + rng.normal(0.0, 1.0, (2, 3, 30))
        result = crossed(y)
        rows, columns, rest = two_way(y)
        d = np.array([-1.0, 1.0])
        of_fits, of_users, of_rest = (d @ part @ d / 90 for part in (rows, columns, rest))
        assert result.methods is not None
        most = max(of_fits + of_users - of_rest, of_fits, of_users)
        assert result.methods.variance == pytest.approx(most), trial


def test_divided_users_of_unequal_fits_are_clusters_weighted_by_their_users() -> None:
    """10, 20 and 30 users: F / (F - 1) sum w^2 (x_f - x)(x_f - x)', and parts by expectation."""
    rng = np.random.default_rng(16)
    sizes = np.array([10, 20, 30])
    parts = [moments.paired(*(rng.normal(5 + f, 1.0 + f, (2, n)))) for f, n in enumerate(sizes)]
    w = sizes / 60
    x = np.array([(one.control, one.treatment) for one in parts], dtype=float)
    mean = w @ x
    pooled = replace(parts[0], control=mean[0], treatment=mean[1], n_control=60, n_treatment=60)
    result = replication.divided(pooled, parts)
    away = x - mean
    cov = 1.5 * (away * w[:, None] ** 2).T @ away
    assert result.methods is not None
    assert result.components is not None
    found = result.methods
    assert [found.var_control, found.var_treatment, found.cov] == pytest.approx(
        [cov[0, 0], cov[1, 1], cov[0, 1]]
    )
    assert (found.df, result.components.n_users, result.components.n_fits) == (2.0, 60.0, 3)
    within = np.array([one.variance for one in parts], dtype=float)
    assert result.components.users == pytest.approx((w * within * sizes).sum())
    spread = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    assert result.components.fits == pytest.approx((spread - (w**2 * within).sum()) / (w**2).sum())


def test_fits_that_are_one_model_bring_nothing() -> None:
    y = lives(np.random.default_rng(17), 30, 2, 0.0, 1.0)
    pooled = moments.paired(y[0, 0], y[1, 0])
    result = replication.same_model(pooled, 4)
    assert result.models is result.methods is pooled
    assert result.components is not None
    assert result.components.of_the_mean == pytest.approx((pooled.variance, 0.0))
    assert (result.components.n_users, result.components.n_fits) == (30.0, 4)


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
