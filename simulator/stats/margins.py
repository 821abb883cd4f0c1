"""Margins: equivalence, non-inferiority and guardrails, where the question is not "any difference?"
but "a difference that matters?".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import numpy as np

from simulator.log.metrics import (
    MARGIN,
    UNDIRECTED,
    Absolute,
    Declared,
    Metric,
    MetricError,
    declared,
    is_margin,
)
from simulator.stats import intervals
from simulator.stats.contrasts import Further, TableMoments
from simulator.stats.intervals import Side, quantile
from simulator.stats.moments import Moments
from simulator.stats.tests import adjust
from simulator.stats.unit_table import TableError, UnitTable

Kind = Literal["guardrail", "equivalence"]
Answer = Literal["safe", "harmed", "equivalent", "not shown", "no data"]

LEVEL = 0.05
"""Of each one-sided test, unless another is chosen (`rule.Rule.alpha`)."""


def shown(alpha: float) -> float:
    """Level of the interval beside an answer: both one-sided tests at `alpha` read their answers
    from its two ends.
    """
    return 1.0 - 2.0 * alpha


def side(metric: Metric) -> Side:
    """On which side of its margin a guardrail must be shown to be."""
    return "greater" if metric.higher_is_better else "less"


def one_sided(m: Moments, bound: float, *, above: bool, alpha: float = LEVEL) -> float:
    """p of the hypothesis that the true relative lift is at or beyond `bound`, against its being
    above (or below) it; of an `Absolute` bound that of the difference, a t test.

    The lift is above `bound` where treatment > control + bound |control|: the t test of treatment -
    (1 + bound) control, for a negative control of treatment - (1 - bound) control, linear in the
    two means, so that no ratio need be normal (Sasabuchi 1988; Hauschke, Kieser & Hothorn, "Proof
    of safety in toxicology based on the ratio of two means", Biometrical Journal 1999). Where the
    control's mean is not distinguishable from 0 (its sign is not known), the larger p of the two.
    NaN without variance.
    """
    if isinstance(bound, Absolute):
        return _beyond(m, 1.0, above=above, shift=bound)
    is_distinct = np.square(m.control) > np.square(quantile(m.df, shown(alpha))) * m.var_control
    signs = (float(np.sign(m.control)),) if is_distinct else (1.0, -1.0)
    return float(np.max([_beyond(m, 1.0 + sign * bound, above=above) for sign in signs]))


def _beyond(m: Moments, theta: float, *, above: bool, shift: float = 0.0) -> float:
    """p of the t test of treatment - theta control against its being above (or below) `shift`."""
    from scipy.special import stdtr

    variance = m.var_treatment - 2.0 * theta * m.cov + theta**2 * m.var_control
    if not variance > 1e-12 * (m.var_treatment + theta**2 * m.var_control):
        return float("nan")
    t = (m.treatment - theta * m.control - shift) / np.sqrt(variance)
    return float(stdtr(m.df, -t if above else t))


def equivalence(m: Moments, margin: float, alpha: float = LEVEL) -> float:
    """p of the two one-sided tests that the lift is within +-`margin` (Schuirmann 1987): below
    `alpha` shows equivalence.

    Raises:
        TableError: the margin is not positive.
    """
    if not margin > 0:
        raise TableError(f"equivalence: the margin must be above 0; got {margin}")
    lower, upper = _opposite(margin), margin
    ends = ((lower, True), (upper, False))
    return max(one_sided(m, end, above=above, alpha=alpha) for end, above in ends)


def _opposite(margin: float) -> float:
    """The margin on the other side of 0, in its own unit."""
    return Absolute(-margin) if isinstance(margin, Absolute) else -margin


def non_inferiority(
    m: Moments, margin: float, higher_is_better: bool = True, alpha: float = LEVEL
) -> float:
    """p that the treatment is worse than the control by `margin` or more (relative): below `alpha`
    shows that it is not.

    Raises:
        TableError: the margin is not positive.
    """
    if not margin > 0:
        raise TableError(f"non-inferiority: the margin must be above 0; got {margin}")
    if higher_is_better:
        return one_sided(m, _opposite(margin), above=True, alpha=alpha)
    return one_sided(m, margin, above=False, alpha=alpha)


def harm(m: Moments, margin: float, higher_is_better: bool = True, alpha: float = LEVEL) -> float:
    """p of the opposite test: below `alpha` shows that the treatment is worse than the control by
    more than `margin`.
    """
    if higher_is_better:
        return one_sided(m, _opposite(margin), above=False, alpha=alpha)
    return one_sided(m, margin, above=True, alpha=alpha)


@dataclass(frozen=True)
class Margins:
    """What a test was planned to show besides differences, by metric: `guardrails` that must not
    get worse by a margin, and metrics whose `equivalence` within a margin is asked. A margin is a
    share of the control's mean, or `Absolute`.
    """

    guardrails: Mapping[str, float] = field(default_factory=dict)
    equivalence: Mapping[str, float] = field(default_factory=dict)


def planned(
    metrics: Mapping[str, Metric], margins: Margins | None
) -> tuple[dict[str, Metric], Margins]:
    """Metrics and margins that say the same: guardrails of `margins` have that role, and those of
    the metrics' roles their margin.

    Raises:
        MetricError: a guardrail of no metric, of one whose direction is not known or that has
            another role, or a margin that cannot be (`is_margin`).
    """
    margins = margins or Margins()
    for name, margin in margins.equivalence.items():
        if not is_margin(margin):
            raise MetricError(
                f"equivalence: the margin of {name!r} must be {MARGIN}; got {float(margin):g}"
            )
    guards = {
        name: Declared(role="guardrail", margin=margin)
        for name, margin in margins.guardrails.items()
    }
    metrics = declared(metrics, guards)
    guardrails = {m.name: m.margin for m in metrics.values() if m.margin is not None}
    return metrics, Margins(guardrails, margins.equivalence)


@dataclass(frozen=True)
class Margin:
    """The answer to one margin.

    Attributes:
        kind: `guardrail` or `equivalence`.
        metric, arm: of what.
        margin: the difference that matters, as `absolute` says.
        lift: as in the verdict; of an absolute margin the difference of the means.
        level: of the interval `low` to `high` (Fieller's of a lift, Student's of a difference),
            which holds a margin exactly where the one-sided test does not reject it.
        low, high: that interval.
        p: of the non-inferiority test, or of the two one-sided tests.
        p_adjusted: of equivalences Holm-adjusted over all of them. Of guardrails p itself: an arm
            ships only if all of its guardrails are safe, and a wrong decision needs the harmed one
            among them to be found safe, so that each may be tested at .05 (an intersection of
            rejections: Berger, Technometrics 1982; Schultzberg, Ankargren & Fraanberg, arXiv
            2402.11609, section 3).
        answer: of a guardrail `safe`: shown not to lose the margin; `harmed`: shown to be worse
            than the control by more than the margin; `not shown`: neither. Of an equivalence
            `equivalent` or `not shown`.
        absolute: whether margin, lift and interval are in units of the metric, not relative.
        note: what an unbounded interval says, in words; else "".
    """

    kind: Kind
    metric: str
    arm: str
    margin: float
    lift: float
    level: float
    low: float
    high: float
    p: float
    p_adjusted: float
    answer: Answer
    absolute: bool = False
    note: str = ""


Comparer = Callable[[str, str], Moments | None]
"""The moments of a metric in an arm against the control's; None where there is no data."""


def answer_margins(
    table: UnitTable,
    control: str,
    margins: Margins,
    covariates: Mapping[str, Sequence[str]] | None = None,
    further: Further | None = None,
    alpha: float = LEVEL,
) -> list[Margin]:
    """Every margin for every other arm: guardrails first, then equivalences, Holm over these.

    Args:
        table: of any design.
        control: the control arm.
        margins: by metric.
        covariates: by metric, pre-period columns to adjust for (as `verdict.lifts`).
        further: comparisons by other units, whose metrics may have margins, too.
        alpha: of each one-sided test.

    Raises:
        TableError: a margin that is not positive, no such metric or arm, a guardrail of a metric
            whose direction is not known.
    """
    samples = TableMoments(table, covariates or {})

    def moments_of(metric: str, arm: str) -> Moments | None:
        if metric in table.metrics or further is None:
            return samples.moments(metric, control, arm) if metric in table.numerators else None
        return further.moments(metric, control, arm)

    arms = [arm for arm in table.arms if arm != control]
    metrics = {**({} if further is None else further.metrics), **table.metrics}
    return answer_compared(moments_of, arms, metrics, margins, alpha)


def answer_compared(
    moments_of: Comparer,
    arms: Sequence[str],
    metrics: Mapping[str, Metric],
    margins: Margins,
    alpha: float = LEVEL,
) -> list[Margin]:
    """The same of comparisons however they were made.

    Raises:
        TableError: as `answer_margins`.
    """
    for name in (*margins.guardrails, *margins.equivalence):
        if name not in metrics:
            raise TableError(f"margin: no metric {name!r}; there are {list(metrics)}")
    for name in margins.guardrails:
        if metrics[name].higher_is_better is None:
            raise TableError(f"guardrail: {UNDIRECTED.format(name)}")
    guardrails = [
        _guard(moments_of(name, arm), metrics[name], arm, margin, alpha)
        for arm, (name, margin) in product(arms, margins.guardrails.items())
    ]
    alike = [
        _alike(moments_of(name, arm), metrics[name], arm, margin, alpha)
        for arm, (name, margin) in product(arms, margins.equivalence.items())
    ]
    adjusted = adjust(np.array([one.p for one in alike]))
    equivalences = []
    for one, p_adjusted in zip(alike, adjusted, strict=True):
        is_shown = one.answer == "not shown" and p_adjusted < alpha
        answer: Answer = "equivalent" if is_shown else one.answer
        equivalences.append(replace(one, p_adjusted=float(p_adjusted), answer=answer))
    return [*guardrails, *equivalences]


def _guard(m: Moments | None, metric: Metric, arm: str, margin: float, alpha: float) -> Margin:
    """The answer to a guardrail."""
    blank = _blank("guardrail", m, metric, arm, margin, shown(alpha))
    if m is None or blank.answer == "no data":
        return blank
    if _is_identical(m):
        return replace(blank, answer="safe")
    is_better = bool(metric.higher_is_better)
    p = non_inferiority(m, margin, is_better, alpha)
    answer: Answer = "not shown"
    if p < alpha:
        answer = "safe"
    elif harm(m, margin, is_better, alpha) < alpha:
        answer = "harmed"
    return replace(blank, p=p, p_adjusted=p, answer=answer)


def _alike(m: Moments | None, metric: Metric, arm: str, margin: float, alpha: float) -> Margin:
    """The answer to an equivalence, before it is adjusted."""
    blank = _blank("equivalence", m, metric, arm, margin, shown(alpha))
    if m is None or blank.answer == "no data":
        return blank
    if _is_identical(m):
        return replace(blank, answer="equivalent")
    p = equivalence(m, margin, alpha)
    return replace(blank, p=p, p_adjusted=p)


def _is_identical(m: Moments) -> bool:
    return bool(m.control == m.treatment and m.variance == 0)


def _blank(
    kind: Kind, m: Moments | None, metric: Metric, arm: str, margin: float, level: float
) -> Margin:
    """A margin with its interval, and without an answer."""
    nan, in_units = float("nan"), isinstance(margin, Absolute)
    blank = Margin(
        kind, metric.name, arm, margin, nan, level, nan, nan, nan, nan, "no data", in_units
    )
    if m is None or (np.isnan(m.control) and np.isnan(m.treatment)):
        return blank
    if _is_identical(m):
        return replace(blank, lift=0.0, low=0.0, high=0.0, answer="not shown")
    low, high = intervals.difference(m, level) if in_units else intervals.fieller(m, level)
    is_ratio = not in_units and m.variance > 0
    return replace(
        blank,
        lift=float(m.difference if in_units else m.lift),
        low=float(low),
        high=float(high),
        answer="not shown",
        note=(intervals.unbounded(m, level) or "") if is_ratio else "",
    )
