"""Intervals of a relative lift (`moments.relative`) and of a difference, from `Moments`; words for
those that are unbounded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from policies.elementary import exps
from simulator.stats.moments import Moments, Number

Method = Literal["fieller", "log", "delta", "newcombe"]
Side = Literal["two-sided", "greater", "less"]
"""Of which differences a test asks: any, treatment above control, treatment below it."""


class Interval(NamedTuple):
    """A two-sided interval; `-inf` and `inf` where the set is unbounded, NaN where it does not
    exist.
    """

    low: Number
    high: Number


def quantile(df: Number, level: float) -> Number:
    """The two-sided Student quantile at `level`, e.g. 1.96 for .95 and many degrees of freedom."""
    from scipy.special import stdtrit

    return stdtrit(df, 0.5 + level / 2.0)


def two_sided(level: float, side: Side) -> float:
    """The level of the two-sided interval of which one end is the bound at `level` on one side."""
    return level if side == "two-sided" else 2.0 * level - 1.0


def opened(ends: Interval, side: Side) -> Interval:
    """The ends of `two_sided`, without the one that a one-sided test says nothing of."""
    low, high = ends
    if side == "greater":
        high = np.where(np.isnan(high), np.nan, np.inf)[()]
    elif side == "less":
        low = np.where(np.isnan(low), np.nan, -np.inf)[()]
    return Interval(low, high)


def difference(m: Moments, level: float = 0.95) -> Interval:
    """The Student interval of treatment - control."""
    half = quantile(m.df, level) * np.sqrt(m.variance)
    return Interval(m.difference - half, m.difference + half)


def fieller(m: Moments, level: float = 0.95, critical: Number | None = None) -> Interval:
    """The relative lift by Fieller's theorem, exact for normal means whatever the size of the
    control's mean.

    All theta with (t - theta c)^2 <= q^2 (v_t - 2 theta cov + theta^2 v_c) (Fieller, "Some problems
    in interval estimation", JRSS B 1954; Franz, "Ratios: a short guide to confidence limits",
    2007), as lifts. It excludes 0 exactly where the t test on the same moments rejects. Where the
    control's mean is not distinguishable from 0 the set is unbounded, and the sign that turns theta
    into a lift is not
    known: `-inf` and `inf` are given, and `unbounded` says it in words. `critical`: q itself, in
    place of Student's at `level` (sequential boundaries).
    """
    q = quantile(m.df, level) if critical is None else critical
    a, b, c = _conic(m, q)
    # With next to no degree of freedom q is so large that products overflow: of unbounded sets.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # b^2 - a c without the squares of the means that cancel, which are millions of times as
        # large with millions of units.
        own = np.square(m.control) * m.var_treatment + np.square(m.treatment) * m.var_control
        apart = own - 2.0 * m.control * m.treatment * m.cov
        shared = m.var_control * m.var_treatment - np.square(m.cov)
        root = q * np.sqrt(np.maximum(apart - np.square(q) * shared, 0.0))
        ends = _lifts(m, (b - root) / a, (b + root) / a)
        bad = np.isnan(a) | np.isnan(b) | np.isnan(c)
        low = np.where(bad, np.nan, np.where(a > 0, np.minimum(*ends), -np.inf))
        high = np.where(bad, np.nan, np.where(a > 0, np.maximum(*ends), np.inf))
    return Interval(low[()], high[()])


def _conic(m: Moments, critical: Number) -> tuple[Number, Number, Number]:
    """a, b and c of a theta^2 - 2 b theta + c <= 0, Fieller's set of theta = treatment /
    control.
    """
    q2 = np.square(critical)
    a = np.square(m.control) - q2 * m.var_control
    b = m.control * m.treatment - q2 * m.cov
    c = np.square(m.treatment) - q2 * m.var_treatment
    return a, b, c


def _lifts(m: Moments, *theta: Number) -> tuple[Number, ...]:
    """Ratios of the means as lifts: theta - 1, with its sign turned where the control's mean is
    negative (`moments.relative`).
    """
    sign = np.where(np.asarray(m.control) < 0, -1.0, 1.0)[()]
    return tuple(sign * (ratio - 1.0) for ratio in theta)


def delta(m: Moments, level: float = 0.95) -> Interval:
    """The relative lift by the delta method: lift +- q sqrt(v_t / c^2 - 2 t cov / c^3 + t^2 v_c /
    c^4) (Casella & Berger 2002, 5.5.4).

    Symmetric, and too short where the control's mean is small against its error: an option, not the
    default.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        half = quantile(m.df, level) * np.sqrt(np.maximum(lift_variance(m), 0.0))
        return Interval(m.lift - half, m.lift + half)


def lift_variance(m: Moments) -> Number:
    """Variance of the relative lift by the delta method."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(m.treatment, m.control)
        return np.divide(
            m.var_treatment - 2.0 * ratio * m.cov + ratio**2 * m.var_control, np.square(m.control)
        )


def log_delta(m: Moments, level: float = 0.95) -> Interval:
    """The relative lift by the delta method on log(treatment / control) (Katz et al., Biometrics
    1978, for the same idea); NaN unless both means have one sign."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.divide(m.treatment, m.control)
        ratio = np.where((ratio > 0) & np.isfinite(ratio), ratio, np.nan)
        half = quantile(m.df, level) * np.sqrt(np.maximum(log_variance(m), 0.0))
        ends = _lifts(m, ratio * exps(-half), ratio * exps(half))
        return Interval(np.minimum(*ends)[()], np.maximum(*ends)[()])


def log_variance(m: Moments) -> Number:
    """Variance of log(treatment / control) by the delta method."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.divide(m.var_treatment, np.square(m.treatment)) + np.divide(
            m.var_control, np.square(m.control)
        )
        return own - 2.0 * np.divide(m.cov, m.treatment * m.control)


def is_proportion(m: Moments) -> Number:
    """Whether both means are of zeros and ones: then, and of whole numbers only then, the mean of
    the squares is the mean itself, so that a sample's variance is p (1 - p) n / (n - 1).
    """
    is_so: Number = True
    for p, variance, n in (
        (m.control, m.var_control, m.n_control),
        (m.treatment, m.var_treatment, m.n_treatment),
    ):
        with np.errstate(invalid="ignore"):
            of_flags = np.asarray(p * (1.0 - p))
            near = np.abs(variance * (n - 1.0) - of_flags) <= 1e-9 * (of_flags + 1e-9)
            is_so = is_so & near & (p >= 0) & (p <= 1)
    return np.asarray(is_so)[()]


def wilson(p: Number, n: Number, z: Number) -> Interval:
    """The score interval of a proportion of `n` units at the normal quantile `z` (Wilson, "Probable
    inference, the law of succession, and statistical inference", JASA 1927).
    """
    square = np.square(z) / n
    half = np.sqrt(p * (1.0 - p) * square + np.square(square) / 4.0)
    centre = p + square / 2.0
    return Interval((centre - half) / (1.0 + square), (centre + half) / (1.0 + square))


def _from_wilson(m: Moments, z: Number) -> tuple[tuple[Number, Number, Number], ...]:
    """Of the lower and the upper end of treatment - control: how far Wilson's ends are away from
    the treatment's and the control's proportion, and the covariance of the two.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        phi = np.divide(m.cov, np.sqrt(m.var_control * m.var_treatment))
    phi = np.where(np.isfinite(phi), phi, 0.0)
    # What is no proportion has another interval (`newcombe`); here it must only be computable.
    control = wilson(np.clip(m.control, 0.0, 1.0), m.n_control, z)
    treatment = wilson(np.clip(m.treatment, 0.0, 1.0), m.n_treatment, z)
    below = (m.treatment - treatment.low, control.high - m.control)
    above = (treatment.high - m.treatment, m.control - control.low)
    return tuple((a, b, phi * a * b) for a, b in (below, above))


def newcombe_difference(m: Moments, z: Number) -> Interval:
    """The hybrid score interval of a difference of proportions (Newcombe, "Interval estimation for
    the difference between independent proportions", Statistics in Medicine 1998, method 10; of
    twins with the correlation of their answers, his "Improved confidence intervals for the
    difference between binomial proportions based on paired data", ibid., without the continuity
    correction: Zou & Donner 2008).
    """
    low, high = (np.sqrt(np.maximum(a**2 + b**2 - 2.0 * c, 0.0)) for a, b, c in _from_wilson(m, z))
    return Interval(m.difference - low, m.difference + high)


def newcombe(m: Moments, level: float = 0.95) -> Interval:
    """The relative lift of proportions from Wilson's intervals of both; of other means by Fieller.

    All theta for which `newcombe_difference` of treatment - theta control holds 0 (Donner & Zou,
    "Closed-form confidence intervals for functions of the normal mean and standard deviation",
    Statistical Methods in Medical Research 2012, for ratios): so it excludes a lift of 0 exactly
    where the interval of the difference does.
    """
    (a, b, c), (a_up, b_up, c_up) = _from_wilson(m, quantile(np.inf, level))
    with np.errstate(divide="ignore", invalid="ignore"):
        product = m.control * m.treatment
        top = np.square(m.treatment) - np.square(a)
        root = np.sqrt(
            np.maximum(np.square(product - c) - (np.square(m.control) - np.square(b)) * top, 0.0)
        )
        # Of a treatment of zeros all is lost at the lower end: 0 / 0, else.
        low = np.where(top == 0, -1.0, top / (product - c + root) - 1.0)
        top = np.square(m.treatment) - np.square(a_up)
        bottom = np.square(m.control) - np.square(b_up)
        root = np.sqrt(np.maximum(np.square(product - c_up) - bottom * top, 0.0))
        high = (product - c_up + root) / bottom - 1.0
        other, is_flags = fieller(m, level), is_proportion(m)
        is_defined = is_flags & (np.asarray(m.control) > 0)
        low = np.where(is_flags, np.where(is_defined, low, -np.inf), other.low)
        high = np.where(is_flags, np.where(is_defined, high, np.inf), other.high)
    return Interval(low[()], high[()])


def newcombe_z(m: Moments) -> Number:
    """The normal quantile, with the sign of the difference, at which the hybrid score interval
    begins to hold 0: its test (by bisection; at most 38, where p is the least that a double holds).
    """
    low, high = np.zeros(np.shape(m.difference)), np.full(np.shape(m.difference), 38.0)
    for _ in range(60):
        z = (low + high) / 2.0
        ends = newcombe_difference(m, z)
        is_excluded = (ends.low > 0) | (ends.high < 0)
        low, high = np.where(is_excluded, z, low), np.where(is_excluded, high, z)
    return (np.sign(m.difference) * low)[()]


def difference_by(m: Moments, method: Method, level: float = 0.95) -> Interval:
    """The interval of the difference that goes with `method` for the lift: Student's, or of
    proportions by Newcombe's his.
    """
    if method == "newcombe" and bool(is_proportion(m)):
        return newcombe_difference(m, quantile(np.inf, level))
    return difference(m, level)


METHODS: dict[Method, Callable[[Moments, float], Interval]] = {
    "fieller": fieller,
    "log": log_delta,
    "delta": delta,
    "newcombe": newcombe,
}
"""Relative-lift intervals by name; `fieller` is the default everywhere."""

TITLES = {
    "fieller": "Fieller interval",
    "log": "log-delta interval",
    "delta": "delta interval",
    "newcombe": "Newcombe's score interval",
}

GROUNDS = {
    "fieller": "Fieller's theorem",
    "log": "the delta method on the logarithm",
    "delta": "the delta method",
    "newcombe": "Newcombe's hybrid score method where a metric is a proportion of units, and by"
    " Fieller's theorem where it is not",
}
"""What each of the METHODS rests on, in words."""


def unbounded(m: Moments, level: float = 0.95) -> str | None:
    """What an unbounded Fieller set says, in words; None where the set is an interval (or there is
    no data).

    The set leaves out the thetas between two roots. The control's sign is not known, so that a lift
    is left out where both of the thetas that it may stand for are.
    """
    a, b, c = (float(v) for v in _conic(m, quantile(m.df, level)))
    if not a <= 0:
        return None
    why = (
        f"the control's mean is not distinguishable from 0 at {level:.0%}, so no bounded interval"
        " of the relative lift exists"
    )
    apart = b * b - a * c
    if apart > 0 and a < 0:
        low, high = sorted((b + side * np.sqrt(apart)) / a - 1.0 for side in (-1, 1))
        excluded = min(high, -low)
        if excluded > 0:
            return f"{why}: only lifts between {-excluded:+.1%} and {excluded:+.1%} are excluded"
    return f"{why}: every lift is compatible with the data"
