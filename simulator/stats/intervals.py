"""Intervals of a relative lift (`moments.relative`) and of a difference, from `Moments`; words for
those that are unbounded.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from policies.elementary import exps
from simulator.stats.moments import Moments, Number

Method = Literal["fieller", "log", "delta"]


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
    a, b, c = _conic(m, quantile(m.df, level) if critical is None else critical)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(np.square(b) - a * c, 0.0))
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


METHODS = {"fieller": fieller, "log": log_delta, "delta": delta}
"""Relative-lift intervals by name; `fieller` is the default everywhere."""

TITLES = {"fieller": "Fieller interval", "log": "log-delta interval", "delta": "delta interval"}

GROUNDS = {
    "fieller": "Fieller's theorem",
    "log": "the delta method on the logarithm",
    "delta": "the delta method",
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
