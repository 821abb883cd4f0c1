"""Replication: what a lift says of *these models* and what of *the methods* that trained them.

An arm serves the fits of a method: models that differ in nothing but the seed of their training.
Users are random, and so are fits. Two designs:

- *divided*: each user lives with one fit, the same for all arms (users are nested in fits);
- *crossed*: each user lives with every fit.

Let y_uf be what user u has with fit f, in both arms, so a vector (control, treatment):

    y_uf = mu + a_u + b_f + e_uf,

with user, fit and interaction effects that are independent, of mean 0 and of covariances A, B and
E: the random-effects model with two factors (Searle, Casella & McCulloch, "Variance components",
1992, chapter 4; for A/B tests and recommenders: Owen, "The pigeonhole bootstrap", Annals of Applied
Statistics 2007). A verdict on the models holds the b_f fixed, a verdict on the methods does not.
Both are `Moments`, so that every test and interval of `stats` is right for them as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from policies.products import matmul
from simulator.stats.intervals import quantile
from simulator.stats.moments import Floats, Moments, Sample, ratio

LEVEL = 0.95
"""Of the interval whose width is held where degrees of freedom are mixed."""

Dealing = Literal["divided", "crossed"]
"""How users live with fits: each with one of them, or each with every one."""

Columns = tuple[int, int | None]
"""Where numerator and denominator stand among the variables of a sample."""


@dataclass(frozen=True, slots=True)
class Components:
    """What the variance of the difference of two methods is made of, in squared units of the
    metric.

    Attributes:
        users: variance of a user's difference; where users are divided, with the interaction.
        fits: variance of a fit's difference, over endlessly many users. Below 0 by chance where
            it is small: the estimate is unbiased, not cut off.
        interaction: variance of what a user has with one fit only; NaN where users are divided.
        n_users: users behind the estimate, of all fits.
        n_fits: fits.
    """

    users: float
    fits: float
    interaction: float
    n_users: float
    n_fits: int

    @property
    def of_the_mean(self) -> tuple[float, float]:
        """The parts of the variance of the estimated difference that users and fits bring."""
        users = self.users / self.n_users
        if not math.isnan(self.interaction):
            users += self.interaction / (self.n_users * self.n_fits)
        return max(users, 0.0), max(self.fits, 0.0) / self.n_fits

    @property
    def share_of_fits(self) -> float:
        """The share of the variance of the estimated difference that more users would not
        lessen, in [0, 1].
        """
        users, fits = self.of_the_mean
        return fits / (users + fits) if users + fits else math.nan


@dataclass(frozen=True, slots=True)
class Replicated:
    """One comparison by both questions.

    Attributes:
        models: the fits are these; users are random.
        methods: users and fits are random; None with one fit, which cannot tell.
        components: of the variance of the difference; None with one fit.
    """

    models: Moments
    methods: Moments | None
    components: Components | None


def same_model(pooled: Moments, n_fits: int) -> Replicated:
    """Methods whose fits are all the same: what is said of the models is true of the methods."""
    n_users = float(pooled.n_units)
    parts = Components(float(pooled.variance) * n_users, 0.0, np.nan, n_users, n_fits)
    return Replicated(pooled, pooled, parts)


def divided(pooled: Moments, fits: Sequence[Moments]) -> Replicated:
    """Users divided over fits: the comparison of all users, and that of the users of each fit, of
    whatever design.

    The estimate is the pooled one, a mean over fits with weights w_f by their users. For the
    methods, fits are clusters of users, with covariance F / (F - 1) sum w_f^2 (x_f - x)(x_f - x)',
    x_f = (c_f, t_f), and F - 1 degrees of freedom: with equal weights S / F, which holds what users
    and fits bring without telling them apart (Liang & Zeger, Biometrika 1986, with the small-sample
    factor of MacKinnon & White, Journal of Econometrics 1985).

    Args:
        pooled: all users; the verdict on the models.
        fits: the users of each fit, by themselves.
    """
    n_fits = len(fits)
    if n_fits == 1:
        return Replicated(pooled, None, None)
    n_users = np.array([m.n_units for m in fits], dtype=np.float64)
    weights = n_users / n_users.sum()
    pairs = np.array([(m.control, m.treatment) for m in fits], dtype=np.float64)
    away = weights[:, None] * (pairs - np.array([pooled.control, pooled.treatment]))
    spread = matmul(away.T, away) * (n_fits / (n_fits - 1.0))
    methods = _moments_of(pooled, spread, n_fits - 1.0)
    within = np.array([m.variance for m in fits], dtype=np.float64)
    expected = float((np.square(weights) * within).sum())
    components = Components(
        users=float((weights * within * n_users).sum()),
        fits=(_of_difference(spread) - expected) / float(np.square(weights).sum()),
        interaction=np.nan,
        n_users=float(n_users.sum()),
        n_fits=n_fits,
    )
    return Replicated(pooled, methods, components)


def _moments_of(pooled: Moments, covariance: Floats, df: float) -> Moments:
    """The means of `pooled` with another covariance `[2, 2]` of them."""
    return replace(
        pooled,
        var_control=float(covariance[0, 0]),
        var_treatment=float(covariance[1, 1]),
        cov=float(covariance[0, 1]),
        df=df,
    )


def _of_difference(covariance: Floats) -> float:
    """Variance of treatment - control from the covariance `[2, 2]` of both."""
    return float(covariance[0, 0] + covariance[1, 1] - 2.0 * covariance[0, 1])


@dataclass(frozen=True, slots=True)
class _Arm:
    """One arm by fit: ratios or means `[F]`, and their gradients `[F, p]` in the variables of
    a sample.
    """

    value: Floats
    gradient: Floats


def crossed_pairs(
    pooled: Moments, sample: Sample, control: Sequence[Columns], treatment: Sequence[Columns]
) -> Replicated:
    """Users who were in both arms with every fit.

    Args:
        pooled: the comparison of each user's means over fits; the verdict on the models.
        sample: of the users; its variables are what each has in each arm with each fit.
        control: of each fit, the columns of numerator and denominator (None: a mean per user).
        treatment: the same of the treatment.
    """
    arms = _arm(sample, control), _arm(sample, treatment)
    gradient = np.stack([arm.gradient for arm in arms])  # [2, F, p]
    across = np.einsum("afi,ij,bgj->abfg", gradient, sample.cov, gradient)
    return _crossed(pooled, arms, across, (sample.n, sample.n))


def crossed_split(
    pooled: Moments,
    control: tuple[Sample, Sequence[Columns]],
    treatment: tuple[Sample, Sequence[Columns]],
) -> Replicated:
    """Users who were in one arm each, with every fit of it: sample and columns of either arm, as in
    `crossed_pairs`.
    """
    arms = _arm(*control), _arm(*treatment)
    n_fits = len(arms[0].value)
    across = np.zeros((2, 2, n_fits, n_fits))
    for side, (arm, (sample, _)) in enumerate(zip(arms, (control, treatment), strict=True)):
        across[side, side] = arm.gradient @ sample.cov @ arm.gradient.T
    return _crossed(pooled, arms, across, (control[0].n, treatment[0].n))


def _arm(sample: Sample, columns: Sequence[Columns]) -> _Arm:
    parts = [ratio(sample.mean, *one) for one in columns]
    return _Arm(
        np.array([value for value, _ in parts], dtype=np.float64),
        np.stack([gradient for _, gradient in parts]),
    )


def _crossed(
    pooled: Moments, arms: tuple[_Arm, _Arm], across: Floats, sizes: tuple[int, int]
) -> Replicated:
    """Both verdicts from the fits' values and the users' covariances between fits.

    K = `across` `[2, 2, F, F]` holds the covariances over users of what they have with fit f in one
    arm and with fit g in another. With n users, the mean over fits of a user has covariance
    S_u = 1'K1 / F^2, and the interaction S_e = (tr K - 1'K1 / F) / (F - 1). With S_f the covariance
    of the fits' means, expectations are

        S_u = A + E / F,    S_e = E,    S_f = B + E / n,

    so the methods' variance is S_f / F + S_u / n - S_e / (n F), the analysis-of-variance estimator
    of the two-factor model (Searle, Casella & McCulloch 1992, chapter 4). It is never told as less
    than either of its first two parts: the third can exceed the second by chance.
    """
    values = np.stack([arm.value for arm in arms])
    n_fits = values.shape[1]
    if n_fits == 1:
        return Replicated(pooled, None, None)
    n = np.array([[sizes[0], sizes[0]], [sizes[1], sizes[1]]], dtype=np.float64)
    sums, traces = across.sum(axis=(2, 3)), np.trace(across, axis1=2, axis2=3)
    interaction = (traces - sums / n_fits) / (n_fits - 1.0)
    spread = np.cov(values)
    of_fits = spread / n_fits
    of_users = sums / n_fits**2 / n
    of_interaction = interaction / (n * n_fits)
    candidates = (of_fits + of_users - of_interaction, of_fits, of_users)
    total = max(candidates, key=_of_difference)
    parts = [_of_difference(part) for part in (of_fits, of_users, of_interaction)]
    df = mixed_df(parts[:2], (n_fits - 1.0, float(pooled.df)))
    size = float(sizes[0]) if pooled.paired else float(sum(sizes))
    e = parts[2] * n_fits * size
    components = Components(
        users=parts[1] * size - e / n_fits,
        fits=_of_difference(spread) - e / size,
        interaction=e,
        n_users=size,
        n_fits=n_fits,
    )
    return Replicated(pooled, _moments_of(pooled, total, df), components)


def mixed_df(variances: Sequence[float], df: Sequence[float]) -> float:
    """Degrees of freedom of a difference whose variance has parts that are known with different
    degrees of freedom.

    Student's quantiles are weighted by the parts, as in Cochran & Cox ("Experimental designs", 2nd
    edition 1957, section 4.14), and the degrees of freedom are those whose 95% quantile this is.
    Those of Satterthwaite (1946) are high just where the fits are alike by chance, which is often
    with few: where fits bring ten times the variance of users, that test finds differences of
    equal methods in 7.8% with 3 fits and in 6.3% with 4. This one does so in at most 5.4%, and
    where fits bring little in as few as 2%.
    """
    from scipy.special import stdtridf

    total = sum(variances)
    if not total > 0:
        return df[0]
    critical = sum(v * quantile(f, LEVEL) for v, f in zip(variances, df, strict=True)) / total
    return float(np.clip(stdtridf(0.5 + LEVEL / 2.0, critical), min(df), max(df)))
