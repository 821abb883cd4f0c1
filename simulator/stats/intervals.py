"""Intervals of a relative lift, treatment / control - 1, and of a difference, from `Moments`; words for those that are unbounded."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from simulator.stats.moments import Moments, Number

Method = Literal["fieller", "log", "delta"]


class Interval(NamedTuple):
    """A two-sided interval; `-inf` and `inf` where the set is unbounded, NaN where it does not exist."""

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
    """The relative lift by Fieller's theorem, exact for normal means whatever the size of the control's mean.

    All theta with (t - theta c)^2 <= q^2 (v_t - 2 theta cov + theta^2 v_c), less 1 (Fieller, "Some problems in interval
    estimation", JRSS B 1954; Franz, "Ratios: a short guide to confidence limits", 2007). It excludes 0 exactly where the t test on
    the same moments rejects. Where the control's mean is not distinguishable from 0 the set is unbounded: `-inf` and `inf` are
    given, and `unbounded` says it in words. `critical`: q itself, in place of Student's at `level` (sequential boundaries).
    """
    q2 = np.square(quantile(m.df, level) if critical is None else critical)
    a = np.square(m.control) - q2 * m.var_control
    b = m.control * m.treatment - q2 * m.cov
    c = np.square(m.treatment) - q2 * m.var_treatment
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(np.square(b) - a * c, 0.0))
        first, second = (b - root) / a - 1.0, (b + root) / a - 1.0
        bad = np.isnan(a) | np.isnan(b) | np.isnan(c)
        low = np.where(bad, np.nan, np.where(a > 0, np.minimum(first, second), -np.inf))
        high = np.where(bad, np.nan, np.where(a > 0, np.maximum(first, second), np.inf))
    return Interval(low[()], high[()])


def delta(m: Moments, level: float = 0.95) -> Interval:
    """The relative lift by the delta method: lift +- q sqrt(v_t / c^2 - 2 t cov / c^3 + t^2 v_c / c^4) (Casella & Berger 2002, 5.5.4).

    Symmetric, and too short where the control's mean is small against its error: an option, not the default.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(m.treatment, m.control)
        var = np.divide(m.var_treatment - 2.0 * ratio * m.cov + ratio**2 * m.var_control, np.square(m.control))
        half = quantile(m.df, level) * np.sqrt(np.maximum(var, 0.0))
        return Interval(ratio - 1.0 - half, ratio - 1.0 + half)


def log_delta(m: Moments, level: float = 0.95) -> Interval:
    """The relative lift by the delta method on log(treatment / control) (Katz et al., Biometrics 1978, for the same idea); NaN unless
    both means are positive."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        good = (m.control > 0) & (m.treatment > 0)
        ratio = np.where(good, np.divide(m.treatment, m.control), np.nan)
        own = np.divide(m.var_treatment, np.square(m.treatment)) + np.divide(m.var_control, np.square(m.control))
        var = own - 2.0 * np.divide(m.cov, m.treatment * m.control)
        half = quantile(m.df, level) * np.sqrt(np.maximum(var, 0.0))
        return Interval((ratio * np.exp(-half) - 1.0)[()], (ratio * np.exp(half) - 1.0)[()])


METHODS = {"fieller": fieller, "log": log_delta, "delta": delta}
"""Relative-lift intervals by name; `fieller` is the default everywhere."""


def unbounded(m: Moments, level: float = 0.95) -> str | None:
    """What an unbounded Fieller set says, in words; None where the set is an interval (or there is no data)."""
    q2 = float(quantile(m.df, level)) ** 2
    a = m.control**2 - q2 * m.var_control
    if not a <= 0:
        return None
    b, c = m.control * m.treatment - q2 * m.cov, m.treatment**2 - q2 * m.var_treatment
    why = f"the control's mean is not distinguishable from 0 at {level:.0%}, so no bounded interval of the relative lift exists"
    if b * b - a * c <= 0 or a == 0:
        return f"{why}: every lift is compatible with the data"
    low, high = sorted(((b - s * np.sqrt(b * b - a * c)) / a - 1.0) for s in (1, -1))
    return f"{why}: only lifts between {low:+.1%} and {high:+.1%} are excluded"
