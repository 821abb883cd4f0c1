"""Priors: what earlier tests say of a lift before this one has begun.

Most changes do little and a few do much, so that the lifts of earlier tests have fat tails: a prior
is a Student law with a centre, a scale and degrees of freedom (Azevedo, Deng, Montiel Olea, Rao &
Weyl, "A/B testing with fat tails", Journal of Political Economy 128 (2020)). It is fitted to lifts
with their standard errors by maximum likelihood, which takes their noise off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from policies.products import matmul, pseudo_inverse
from simulator.stats.moments import Floats
from simulator.stats.unit_table import TableError

LARGEST = 1e6
"""Of an earlier lift and its standard error: more is no lift, and its square overflows."""

FEWEST = 8
"""Fewer earlier lifts say nothing of a scale and its tails."""

DEGREES = (1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, math.inf)
"""Degrees of freedom that are tried; tens of tests cannot tell 3 from 3.4."""

CHAINS, WARM, KEPT = 2000, 30, 20
"""Chains of the sampler, rounds before any are kept, and rounds that are."""


@dataclass(frozen=True)
class Prior:
    """The law of a true lift before it is measured.

    Attributes:
        mean: its centre, a fraction.
        scale: its scale, a fraction; of infinitely many degrees of freedom the standard deviation.
        df: degrees of freedom; infinite: normal.
        tests: lifts that it was fitted to; 0: not said.
    """

    mean: float
    scale: float
    df: float = math.inf
    tests: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.scale < math.inf and self.df >= 1):
            raise TableError(
                "a prior needs a finite mean, a scale above 0 and degrees of freedom of at least 1;"
                f" got mean {self.mean:g}, scale {self.scale:g}, df {self.df:g}"
            )


@dataclass(frozen=True)
class FittedPrior:
    """A prior with what its data leave open.

    Attributes:
        prior: the most likely one.
        scale_low, scale_high: 95% interval of the scale by the profile of the likelihood; from 0
            where no difference between the true lifts is shown.
    """

    prior: Prior
    scale_low: float
    scale_high: float


@lru_cache(maxsize=64)
def _scales(df: float) -> tuple[Floats, Floats]:
    """Nodes and weights `[n]` of the variances of the normals that a Student law is a mixture of,
    in units of its squared scale.

    Its precisions are gamma, with density proportional to exp(df (u - e^u) / 2) in their logarithm
    u: smooth and gone at both ends, so that the trapezoidal rule is exact to many digits, far out
    in the tails as well (Gauss-Laguerre with 160 nodes is off by 3% at ten scales).
    """
    if math.isinf(df):
        return np.ones(1), np.ones(1)
    u = np.arange(-1.0 - 36.0 / df, math.log(1.0 + 80.0 / df), min(0.25, 0.5 / math.sqrt(df)))
    weights = np.exp(df / 2.0 * (u - np.exp(u) + 1.0))
    return np.asarray(np.exp(-u)), np.asarray(weights / weights.sum())


def log_likelihood(lifts: Floats, errors: Floats, prior: Prior) -> float:
    """Of measured `lifts` `[n]` with standard errors `[n]`: their true lifts are drawn from the
    prior, and measured with normal noise.
    """
    from scipy.special import logsumexp

    scales, weights = _scales(prior.df)
    variance = np.square(errors)[:, None] + prior.scale**2 * scales
    squares = np.square(lifts - prior.mean)[:, None] / variance
    density = -0.5 * (squares + np.log(2.0 * np.pi * variance))
    return float(logsumexp(density, b=weights, axis=1).sum())


def fit(lifts: Sequence[float] | Floats, errors: Sequence[float] | Floats) -> FittedPrior:
    """The most likely prior of earlier lifts.

    Args:
        lifts: `[n]`, fractions.
        errors: their standard errors `[n]`.

    Raises:
        TableError: fewer than FEWEST lifts, a standard error that is not above 0, or either
            beyond LARGEST.
    """
    y, s = np.asarray(lifts, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if len(y) < FEWEST:
        raise TableError(f"a prior needs at least {FEWEST} earlier lifts; got {len(y)}")
    bad = np.flatnonzero(~(np.isfinite(y) & np.isfinite(s) & (s > 0)))
    if len(bad):
        at = int(bad[0])
        raise TableError(
            "an earlier lift needs a finite value and a standard error above 0; number"
            f" {at + 1} has lift {y[at]:g} and standard error {s[at]:g}"
        )
    far = np.flatnonzero(~((np.abs(y) <= LARGEST) & (s <= LARGEST)))
    if len(far):
        at = int(far[0])
        raise TableError(
            f"an earlier lift is a fraction (1% is 0.01), below {LARGEST:g}; number {at + 1} has"
            f" lift {y[at]:g} and standard error {s[at]:g}"
        )
    fits = [_fit_at(y, s, df) for df in DEGREES]
    top, prior = max(fits, key=lambda one: one[0])
    return FittedPrior(prior, *_interval(y, s, prior, top))


def _fit_at(y: Floats, s: Floats, df: float, scale: float | None = None) -> tuple[float, Prior]:
    """The best likelihood with given degrees of freedom (and scale), and its prior."""
    from scipy.optimize import minimize

    spread = float(np.median(np.abs(y - np.median(y)))) or float(s.min())
    unit = max(spread, float(s.min()))
    least = 1e-4 * float(s.min())

    def prior_at(x: Any) -> Prior:
        own = scale if scale is not None else max(unit * math.exp(x[1]), least)
        return Prior(float(x[0]) * unit, own, df, len(y))

    def minus(x: Any) -> Any:
        return -log_likelihood(y, s, prior_at(x))

    middle = float(np.median(y)) / unit
    start: Any = np.array([middle] if scale is not None else [middle, 0.0])
    found = minimize(
        minus,
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-5, "fatol": 1e-8, "maxiter": 2000},
    )
    return -float(found.fun), prior_at(found.x)


def _interval(y: Floats, s: Floats, prior: Prior, top: float) -> tuple[float, float]:
    """Scales whose best likelihood is not lower than `top` by more than 3.84 / 2."""
    from scipy.optimize import brentq

    def short(log_scale: float) -> float:
        at = max(_fit_at(y, s, df, math.exp(log_scale))[0] for df in DEGREES)
        return at - top + 1.92

    least = math.log(1e-3 * float(s.min()))
    here = max(math.log(prior.scale), least)
    low, most = 0.0, here + 1.0
    if here > least and short(least) < 0:
        low = math.exp(brentq(short, least, here, xtol=1e-3))
    while short(most) > 0:
        most += 1.0
    return low, math.exp(brentq(short, most - 1.0, most, xtol=1e-3))


def triangle(cov: Floats) -> Floats:
    """The lower triangle L with L L' = `cov` `[..., K, K]`: Cholesky's, without BLAS, so that the
    bits are the same everywhere. A direction without variance (by rounding, below 0) is left out.
    """
    out = np.zeros_like(cov)
    for j in range(cov.shape[-1]):
        before = out[..., j, None, :j]
        column = cov[..., j:, j] - (out[..., j:, :j] * before).sum(axis=-1)
        pivot = column[..., 0]
        is_there = pivot > 1e-12 * cov[..., j, j]
        root = np.sqrt(np.where(is_there, pivot, 1.0))
        out[..., j:, j] = np.where(is_there[..., None], column / root[..., None], 0.0)
    return out


def posterior(
    lifts: Floats, cov: Floats, df: float, prior: Prior, generator: np.random.Generator, n: int
) -> Floats:
    """Draws `[about n, K]` of the true lifts of arms, each with the same prior, measured as `lifts`
    `[K]` with covariances `cov` `[K, K]` that are known with `df` degrees of freedom.

    A Gibbs sampler over what makes either Student law a mixture of normals (the scale of each arm's
    prior, and of the noise), with many short chains: given these, the lifts are normal, and are
    drawn all at once (Gelman et al., Bayesian Data Analysis, 3rd edition 2013, section 12.1).
    """
    k, kept = len(lifts), max(1, n // CHAINS)
    precise = pseudo_inverse(cov)
    drawn = np.tile(lifts, (CHAINS, 1))
    out = np.empty((kept, CHAINS, k))
    for round_ in range(WARM + kept):
        away = drawn - lifts
        squares = (matmul(away, precise) * away).sum(axis=1)
        noise = (df + squares) / generator.chisquare(df + k, CHAINS)
        spread = np.full((CHAINS, k), prior.scale**2)
        if math.isfinite(prior.df):
            far = np.square((drawn - prior.mean) / prior.scale)
            spread *= (prior.df + far) / generator.chisquare(prior.df + 1.0, (CHAINS, k))
        # Normal with covariance `noise` cov around the lifts, and `spread` around the mean: the
        # mean pulled by cov (cov + spread)^-1, in a form that needs no inverse of cov.
        drawn = _conditional(lifts, cov, noise, spread, prior.mean, generator)
        if round_ >= WARM:
            out[round_ - WARM] = drawn
    return out.reshape(-1, k)


def _conditional(
    lifts: Floats,
    cov: Floats,
    noise: Floats,
    spread: Floats,
    mean: float,
    generator: np.random.Generator,
) -> Floats:
    """One draw for each chain of true lifts `[C, K]` with prior variances `spread` `[C, K]` and
    noise of covariance `noise` `[C]` times `cov`.

    By Matheron's rule (Journel & Huijbregts, Mining geostatistics, 1978): draw lifts and a
    measurement from the prior, and move the lifts as far as the real measurement differs.
    """
    chains, k = spread.shape
    own = mean + np.sqrt(spread) * generator.standard_normal((chains, k))
    shock = matmul(generator.standard_normal((chains, k)), triangle(cov).T)
    shock = shock * np.sqrt(noise)[:, None]
    total = noise[:, None, None] * cov
    total = total + spread[:, :, None] * np.eye(k)
    gap = _solve(triangle(total), lifts - own - shock)
    return np.asarray(own + spread * gap)


def _solve(lower: Floats, right: Floats) -> Floats:
    """x with L L' x = `right` `[C, K]`, for triangles L `[C, K, K]`."""
    k = right.shape[1]
    half = np.zeros_like(right)
    for j in range(k):
        done = (lower[:, j, :j] * half[:, :j]).sum(axis=1)
        half[:, j] = (right[:, j] - done) / lower[:, j, j]
    x = np.zeros_like(right)
    for j in reversed(range(k)):
        done = (lower[:, j + 1 :, j] * x[:, j + 1 :]).sum(axis=1)
        x[:, j] = (half[:, j] - done) / lower[:, j, j]
    return x
