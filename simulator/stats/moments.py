"""Moments: the two means of a comparison with their variances, which is all that every t test and lift interval needs.

Means per unit, ratio metrics, adjusted, clustered, paired and split samples differ only in how their moments are made; the tests
and intervals on them are in `tests` and `intervals`. All fields may be arrays of one shape: many comparisons at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Number = Any
"""A float or an array of floats."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Two means and the variance of their estimates.

    Attributes:
        control: mean per unit (or ratio) in the control arm.
        treatment: the same in the treatment arm.
        var_control: variance *of the mean* `control` (squared standard error).
        var_treatment: the same of `treatment`.
        cov: covariance of the two means; 0 where the arms are independent.
        df: degrees of freedom of the variance of the difference.
        n_control: units behind `control`.
        n_treatment: units behind `treatment` (the same units when paired).
        paired: whether the units of the arms are the same.
    """

    control: Number
    treatment: Number
    var_control: Number
    var_treatment: Number
    cov: Number
    df: Number
    n_control: Number
    n_treatment: Number
    paired: bool

    @property
    def difference(self) -> Number:
        return self.treatment - self.control

    @property
    def variance(self) -> Number:
        """Variance of the difference of the means; rounding below 0 is 0."""
        raw = self.var_control + self.var_treatment - 2.0 * self.cov
        scale = self.var_control + self.var_treatment
        return np.where(raw > 1e-14 * scale, raw, 0.0) if np.ndim(raw) else (raw if raw > 1e-14 * scale else 0.0)

    @property
    def n_units(self) -> Number:
        """Units in the comparison: pairs, or both arms together."""
        return self.n_control if self.paired else self.n_control + self.n_treatment


def linearised(numerator: Floats, denominator: Floats) -> Floats:
    """Per-unit values `[n]` whose mean is the ratio of sums and whose variance is that of the ratio to first order.

    z_i = R + (N_i - R D_i) / mean(D) with R = sum N / sum D (the delta method for ratio metrics: Deng, Knoblich & Lu,
    "Applying the delta method in metric analytics", KDD 2018, section 3.1; Budylin et al., "Consistent transformation of ratio
    metrics", WSDM 2018). NaN where the denominators sum to 0.
    """
    mean = denominator.mean()
    if not mean > 0:
        return np.full(len(numerator), np.nan)
    ratio = numerator.mean() / mean
    return np.asarray(ratio + (numerator - ratio * denominator) / mean)


def paired(control: Floats, treatment: Floats) -> Moments:
    """Moments of the same units in both arms, `[n]` and `[n]`; df = n - 1."""
    n = len(control)
    if n < 2:
        return _too_few(control, treatment, True)
    c, t = control.mean(), treatment.mean()
    dc, dt = control - c, treatment - t
    scale = 1.0 / (n * (n - 1.0))
    d = dt - dc
    var_c, var_t, var_d = (float(v @ v) * scale for v in (dc, dt, d))
    return Moments(float(c), float(t), var_c, var_t, (var_c + var_t - var_d) / 2.0, n - 1.0, n, n, True)


def split(control: Floats, treatment: Floats) -> Moments:
    """Moments of independent units, `[n]` and `[m]`; df by Welch (1947) and Satterthwaite (1946)."""
    if len(control) < 2 or len(treatment) < 2:
        return _too_few(control, treatment, False)
    n, m = len(control), len(treatment)
    v, w = float(control.var(ddof=1)) / n, float(treatment.var(ddof=1)) / m
    return Moments(float(control.mean()), float(treatment.mean()), v, w, 0.0, welch_df(v, w, n, m), n, m, False)


def welch_df(v: Number, w: Number, n: Number, m: Number) -> Number:
    """Degrees of freedom of a difference of means with squared standard errors `v` (of `n`) and `w` (of `m`)."""
    total = v + w
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, total**2 / (np.square(v) / (n - 1.0) + np.square(w) / (m - 1.0)), n + m - 2.0)[()]


def _too_few(control: Floats, treatment: Floats, same: bool) -> Moments:
    mean = [float(v.mean()) if len(v) else np.nan for v in (control, treatment)]
    return Moments(mean[0], mean[1], np.nan, np.nan, 0.0, np.nan, len(control), len(treatment), same)
