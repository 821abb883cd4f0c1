"""Tests of no difference: on `Moments` (t tests of every design) and on paired or split values
(ranks); multiplicity corrections.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.stats.intervals import Method, Side, is_proportion, newcombe_z
from simulator.stats.joint import JointLaw
from simulator.stats.moments import Floats, Moments, Number
from simulator.stats.unit_table import TableError

Correction = Literal["holm", "bonferroni", "hochberg", "bh", "dunnett", "none"]
CORRECTIONS: tuple[Correction, ...] = ("holm", "bonferroni", "hochberg", "bh", "dunnett", "none")
LEAST = float(np.nextafter(0.0, 1.0))
"""The least p that a double can hold (4.9e-324): no test of data gives 0, so a smaller one is told
as this.
"""

P_BITS = 42
"""Bits of a p value that are told, 12 digits: the same on every processor."""

_STATSMODELS = {
    "bonferroni": "bonferroni",
    "hochberg": "simes-hochberg",
    "bh": "fdr_bh",
}


class Test(NamedTuple):
    """A test of no difference. All three are NaN where the data cannot say: fewer than two units,
    or no variance ("identical").
    """

    statistic: Number
    df: Number
    p: Number


def t_test(m: Moments, side: Side = "two-sided") -> Test:
    """Student's t (paired moments) or Welch's (split moments): difference / standard error, and p
    of the differences that `side` asks for.

    Without any variance there is no test: NaN, never p = 1 or 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.asarray(m.variance, dtype=np.float64)
        t = np.where(variance > 0, m.difference / np.sqrt(variance), np.nan)
        df = np.where(np.isnan(t), np.nan, m.df)
        return Test(t[()], df[()], _p_of(t, m.df, side)[()])


def score_test(m: Moments, side: Side = "two-sided") -> Test:
    """The test that Newcombe's hybrid score interval of two proportions amounts to: p is that of
    the level at which the interval begins to hold no difference.
    """
    z = np.where(m.variance > 0, newcombe_z(m), np.nan)
    return Test(z[()], np.where(np.isnan(z), np.nan, np.inf)[()], _p_of(z, np.inf, side)[()])


def fitting(m: Moments, method: Method, side: Side = "two-sided") -> Test:
    """The test that goes with an interval of the lift: the t test, or of proportions by Newcombe's
    interval its own.
    """
    is_score = method == "newcombe" and bool(is_proportion(m))
    return score_test(m, side) if is_score else t_test(m, side)


def _p_of(t: Number, df: Number, side: Side) -> Floats:
    """p of Student's t to `P_BITS`: further ones are those of the C library's `exp` and `log`."""
    from scipy.special import stdtr

    if side == "two-sided":
        p = 2.0 * stdtr(df, -np.abs(t))
    else:
        p = stdtr(df, -t if side == "greater" else t)
    fraction, exponent = np.frexp(p)
    rounded = np.ldexp(np.round(np.ldexp(fraction, P_BITS)), exponent - P_BITS)
    return np.asarray(np.maximum(rounded, LEAST))


def wilcoxon(control: Floats, treatment: Floats) -> Test:
    """Wilcoxon's signed-rank test of paired values `[n]` (Wilcoxon 1945; zeros kept in the ranking
    as in Pratt 1959).

    It tests symmetry of the differences about 0, not equality of means: beside the t test, never in
    its place.
    """
    from scipy.stats import wilcoxon as scipy_wilcoxon

    d = treatment - control
    if np.count_nonzero(d) == 0:
        return Test(np.nan, np.nan, np.nan)
    result = scipy_wilcoxon(
        d, zero_method="pratt", method="approx" if (d == 0).any() or len(d) > 50 else "auto"
    )
    return Test(float(result.statistic), np.nan, max(float(result.pvalue), LEAST))


def rank_sum(control: Floats, treatment: Floats) -> Test:
    """The rank-sum test of independent values (Mann & Whitney 1947), the split design's counterpart
    of `wilcoxon`.
    """
    from scipy.stats import mannwhitneyu

    if (
        not len(control)
        or not len(treatment)
        or (np.ptp(np.concatenate((control, treatment))) == 0)
    ):
        return Test(np.nan, np.nan, np.nan)
    result = mannwhitneyu(treatment, control, alternative="two-sided")
    return Test(float(result.statistic), np.nan, max(float(result.pvalue), LEAST))


def adjust(p: Floats, method: Correction = "holm", law: JointLaw | None = None) -> Floats:
    """p values `[k]` adjusted for the family that they form; NaN stays NaN and does not count in
    the family.

    Holm (1979) and Bonferroni, valid under any dependence; Hochberg (1988), under positive
    dependence; Benjamini & Hochberg (1995) controls the false discovery rate instead; "dunnett"
    asks the joint `law` of the tests (`joint.JointLaw`); "none" leaves them as they are.

    Raises:
        TableError: "dunnett" without a law: where only the comparisons are known, and not how they
            go together.
    """
    p = np.asarray(p, dtype=np.float64)
    result = p.copy()
    defined = ~np.isnan(p)
    if method == "holm":
        result[defined] = _holm(p[defined])
    elif method == "dunnett":
        result[defined] = _known(law).adjusted(p[defined]) if defined.any() else p[defined]
    elif method != "none" and defined.any():
        from statsmodels.stats.multitest import multipletests

        result[defined] = multipletests(p[defined], method=_STATSMODELS[method])[1]
    return result


def _known(law: JointLaw | None) -> JointLaw:
    if law is None:
        raise TableError(
            "dunnett: how the comparisons go together is not known here, which needs their units;"
            " correct by holm"
        )
    return law


def _holm(p: Floats) -> Floats:
    """As statsmodels, to the bit. Theirs ends with a collection of garbage: .07 s of a whole
    process for each family, and a report has dozens.
    """
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1.0)


def thresholds(
    p: Floats, method: Correction = "holm", alpha: float = 0.05, law: JointLaw | None = None
) -> Floats:
    """What each of the p values `[k]` must stay below to be called a difference, the others being
    what they are: `adjust(p) < alpha` exactly where `p < thresholds(p)`. NaN stays NaN.

    An interval at 1 - threshold therefore excludes 0 exactly where the corrected test rejects it:
    the test inverted for one parameter. Bonferroni's are simultaneous. Holm's of what it does not
    reject are the compatible simultaneous bounds of Strassburger & Bretz (Statistics in Medicine
    2008) and Guilbaud (Biometrical Journal 2008), which have nothing more to say of what it rejects
    than the sign; here that has the interval of the last step that rejects it, which holds by
    itself. Those of Benjamini & Hochberg are at the level of Benjamini & Yekutieli (JASA 2005).
    """
    p = np.asarray(p, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    defined = np.flatnonzero(~np.isnan(p))
    m = len(defined)
    if m == 0:
        return result
    steps = np.arange(1, m + 1)
    if method == "dunnett":
        levels = np.full(m, _known(law).threshold(alpha))
    elif method == "bh":
        levels = alpha * steps / m
    elif method in ("holm", "hochberg"):
        levels = alpha / (m - steps + 1)
    else:
        levels = np.full(m, level_of_one(m, method, alpha))
    order = defined[np.argsort(p[defined], kind="stable")]
    ascending = p[order]
    if method in ("hochberg", "bh"):  # steps up: the largest level that enough others pass
        below = np.searchsorted(ascending, levels)
        for place in order:
            others = below - (p[place] < levels)
            result[place] = levels[np.flatnonzero(others >= steps - 1)[-1]]
        return result
    # Steps down: the others go first for as long as they pass. Those before a p in the order stand
    # where they do in `ascending`, those after it one step earlier.
    first = _first_failure(ascending < levels)
    later = _first_failure(np.append(ascending[1:], np.inf) < levels)
    for rank, place in enumerate(order):
        step = first[0] if first[0] < rank else later[rank]
        result[place] = levels[step]
    return result


def _first_failure(passed: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """From each place on, where the first False stands; the last place if there is none."""
    places = np.where(passed, len(passed) - 1, np.arange(len(passed)))
    return np.minimum.accumulate(places[::-1])[::-1]


def level_of_one(comparisons: int, correction: Correction, alpha: float = 0.05) -> float:
    """The level at which one true difference among `comparisons` must show by itself to be called a
    difference.

    Holm, Hochberg and Benjamini-Hochberg all compare the smallest p with alpha / comparisons (Holm,
    Scandinavian Journal of Statistics 1979); what they allow beyond that rests on other
    differences. What a test can find is told at this level, which is its verdict's own. Dunnett's
    is a little above it, as far as the tests go together (`JointLaw.threshold`).
    """
    return alpha if correction == "none" else alpha / max(comparisons, 1)
