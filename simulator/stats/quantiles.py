"""Quantiles: lifts of a metric's median or ninth decile over users, as moments like any other."""

from __future__ import annotations

import numpy as np

from simulator.stats.moments import Floats, Moments

TIED = 0.02
"""Share of users tied at a quantile above which the covariance of twins' quantiles is not estimated."""


def quantile_moments(control: Floats, treatment: Floats, level: float, *, paired: bool) -> Moments:
    """Moments of the `level` quantile of users in both arms.

    The standard error is that of the order statistic under resampling, without resampling (Maritz & Jarrett, "A note on estimating the
    variance of the sample median", JASA 1978). Twins: the correlation of the two sample quantiles is that of the indicators of being below
    them, (P(both below) - q^2) / (q (1 - q)) (Babu & Rao, "Joint asymptotic distribution of marginal quantiles", 1988); this presumes
    values that differ: where more than `TIED` of the users are tied at the quantile (counts), the covariance is taken as 0, and the
    interval is too wide rather than too short. df are taken as infinite. Without spread around the quantile (many equal values) the
    variance is 0 and there is no test.
    """
    (c, se_c), (t, se_t) = (_with_error(v, level) for v in (control, treatment))
    cov = 0.0
    if paired and len(control):
        both = float(np.mean((control <= c) & (treatment <= t)))
        marginal = float(np.mean(control <= c)), float(np.mean(treatment <= t))
        spread = np.sqrt(marginal[0] * (1 - marginal[0]) * marginal[1] * (1 - marginal[1]))
        lumpy = max(float(np.mean(control == c)), float(np.mean(treatment == t))) > TIED
        cov = 0.0 if lumpy or not spread > 0 else float(np.clip((both - marginal[0] * marginal[1]) / spread, -1.0, 1.0)) * se_c * se_t
    return Moments(c, t, se_c**2, se_t**2, cov, np.inf, len(control), len(treatment), paired)


def _with_error(values: Floats, level: float) -> tuple[float, float]:
    """A sample quantile and its standard error; NaN with fewer than 10 values on its thinner side.

    With m = n level + 1/2 rounded down, value i of the ordered sample has the weight that Beta(m, n - m + 1) gives to ((i - 1) / n, i / n);
    only values within 12 standard deviations of that have one.
    """
    from scipy.special import betainc

    n = len(values)
    if n * min(level, 1.0 - level) < 10:
        return (float(np.quantile(values, level)) if n else float("nan")), float("nan")
    ordered = np.sort(values)
    m = int(n * level + 0.5)
    reach = 12.0 * np.sqrt(n * level * (1.0 - level))
    first, last = max(int(m - reach), 0), min(int(m + reach) + 1, n)
    near = ordered[first:last] - ordered[m - 1]
    weight = np.diff(betainc(m, n - m + 1, np.arange(first, last + 1) / n))
    mean = float(weight @ near)
    return float(np.quantile(ordered, level)), float(np.sqrt(max(float(weight @ np.square(near)) - mean**2, 0.0)))
