"""One lift out of several: of several worlds, with an interval that includes what they disagree
about; of independent estimates of one effect, with a test of whether it is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.products import matmul
from simulator.stats.moments import Floats
from simulator.stats.verdict import Lift


@dataclass(frozen=True)
class Pooled:
    """A lift over m worlds.

    Attributes:
        lift: mean over the worlds.
        low, high: interval that includes sampling of users and the worlds' disagreement.
        within: standard error by sampling of users (root of the mean variance).
        between: standard deviation of the lift between worlds.
        df: of the t distribution used.
    """

    lift: float
    low: float
    high: float
    within: float
    between: float
    df: float


@dataclass(frozen=True)
class FixedEffect:
    """Independent estimates taken together, as if the effect were the same in all of them.

    Attributes:
        mean, error: the inverse-variance mean and its standard error.
        q, df, p: Cochran's Q, its degrees of freedom, and the p-value that the effect is the same.
    """

    mean: float
    error: float
    q: float
    df: int
    p: float


def fixed_effect(effects: Floats, variances: Floats) -> FixedEffect:
    """Two or more independent estimates `[n]` with their variances `[n]`, all above 0.

    With w = 1 / variance and l the mean weighted by w, which has variance 1 / sum w, Q = sum w (l_i
    - l)^2 is chi-square with n - 1 degrees of freedom where all true effects are equal (Cochran,
    "The combination of estimates from different experiments", Biometrics 1954).
    """
    from scipy.stats import chi2

    weights = 1.0 / variances
    total = float(weights.sum())
    mean = float(matmul(weights, effects)) / total
    q = float(matmul(weights, np.square(effects - mean)))
    df = len(effects) - 1
    return FixedEffect(mean, total**-0.5, q, df, float(chi2.sf(q, df)))


def pooled(lifts: Sequence[float], errors: Sequence[float]) -> Pooled:
    """Combine the estimates of m >= 2 worlds, each a draw of what the world may be, by Rubin
    (1987), equations 3.1.2-3.1.6.

    With W the mean variance within worlds and B the variance of the lift between them, T = W + (1 +
    1/m) B and the 95% interval is t with (m - 1) (1 + W / ((1 + 1/m) B))^2 degrees of freedom.

    Args:
        lifts: of each world.
        errors: standard errors of the lifts, each within its world.

    Raises:
        ValueError: fewer than two worlds.
    """
    from scipy.stats import norm, t

    m = len(lifts)
    if m < 2:
        raise ValueError(f"pooling needs at least two worlds; got {m}")
    within, between = float(np.mean(np.square(errors))), float(np.var(lifts, ddof=1))
    extra = (1 + 1 / m) * between
    total = within + extra
    df = (m - 1) * (1 + within / extra) ** 2 if extra > 0 else float("inf")
    quantile = float(norm.ppf(0.975) if np.isinf(df) else t.ppf(0.975, df))
    reach = quantile * total**0.5
    mean = float(np.mean(lifts))
    return Pooled(mean, mean - reach, mean + reach, within**0.5, between**0.5, df)


def pool_lifts(
    worlds: Sequence[Sequence[Lift]],
) -> dict[tuple[str, str], Pooled]:
    """The pooled lift of every (arm, metric) by user that the verdict of each of the `worlds` has.

    A standard error is the width of the world's own 95% interval over that of t with its df; rows
    without a finite interval or without any difference are left out.
    """
    from scipy.stats import t

    estimates: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for rows in worlds:
        for row in rows:
            width = row.high - row.low
            if row.unit != "user" or not np.isfinite([row.lift, width, row.df]).all():
                continue
            if width > 0:
                error = width / (2 * float(t.ppf(0.975, row.df)))
                estimates.setdefault((row.arm, row.metric), []).append((row.lift, error))
    pools = {}
    for key, pairs in estimates.items():
        if len(pairs) == len(worlds):
            lifts, errors = zip(*pairs, strict=True)
            pools[key] = pooled(lifts, errors)
    return pools
