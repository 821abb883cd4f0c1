"""Margins: equivalence, non-inferiority and guardrails, where the question is not "any difference?"
but "a difference that matters?".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

import numpy as np

from simulator.stats import intervals, verdict
from simulator.stats.contrasts import TableMoments
from simulator.stats.intervals import quantile
from simulator.stats.moments import Moments
from simulator.stats.tests import adjust
from simulator.stats.units import TableError, UnitTable

Kind = Literal["guardrail", "equivalence"]
Answer = Literal["safe", "harmed", "equivalent", "not shown", "no data"]

LEVEL = 0.05
"""Of each one-sided test."""

SHOWN = 1.0 - 2.0 * LEVEL
"""Level of the interval beside an answer: both one-sided tests at LEVEL read their answers from its
two ends.
"""


UNDIRECTED = (
    "Its name does not tell. Declare it: --better {0}=lower (or =higher); in Python better={{{0!r}:"
    " 'lower'}}; in a scenario, metrics: [{{{0}: lower}}]"
)
"""How the direction of a metric is declared."""


def one_sided(m: Moments, bound: float, *, above: bool) -> float:
    """p of the hypothesis that the true relative lift is at or beyond `bound`, against its being
    above (or below) it.

    The lift is above `bound` where treatment > control + bound |control|: the t test of treatment -
    (1 + bound) control, for a negative control of treatment - (1 - bound) control, linear in the
    two means, so that no ratio need be normal (Sasabuchi 1988; Hauschke, Kieser & Hothorn, "Proof
    of safety in toxicology based on the ratio of two means", Biometrical Journal 1999). Where the
    control's mean is not distinguishable from 0 (its sign is not known), the larger p of the two.
    NaN without variance.
    """
    is_distinct = np.square(m.control) > np.square(quantile(m.df, SHOWN)) * m.var_control
    signs = (float(np.sign(m.control)),) if is_distinct else (1.0, -1.0)
    return float(np.max([_beyond(m, 1.0 + sign * bound, above=above) for sign in signs]))


def _beyond(m: Moments, theta: float, *, above: bool) -> float:
    """p of the t test of treatment - theta control against its being above (or below) 0."""
    from scipy.special import stdtr

    variance = m.var_treatment - 2.0 * theta * m.cov + theta**2 * m.var_control
    if not variance > 1e-12 * (m.var_treatment + theta**2 * m.var_control):
        return float("nan")
    t = (m.treatment - theta * m.control) / np.sqrt(variance)
    return float(stdtr(m.df, -t if above else t))


def equivalence(m: Moments, margin: float) -> float:
    """p of the two one-sided tests that the lift is within +-`margin` (Schuirmann 1987): below 0.05
    shows equivalence.

    Raises:
        TableError: the margin is not positive.
    """
    if not margin > 0:
        raise TableError(f"equivalence: the margin must be above 0; got {margin}")
    return float(np.maximum(one_sided(m, -margin, above=True), one_sided(m, margin, above=False)))


def non_inferiority(m: Moments, margin: float, higher_is_better: bool = True) -> float:
    """p that the treatment is worse than the control by `margin` or more (relative): below 0.05
    shows that it is not.

    Raises:
        TableError: the margin is not positive.
    """
    if not margin > 0:
        raise TableError(f"non-inferiority: the margin must be above 0; got {margin}")
    if higher_is_better:
        return one_sided(m, -margin, above=True)
    return one_sided(m, margin, above=False)


@dataclass(frozen=True)
class Margins:
    """What a test was planned to show besides differences, by metric: `guardrails` that must not
    get worse by a relative margin, and metrics whose `equivalence` within a margin is asked."""

    guardrails: Mapping[str, float] = field(default_factory=dict)
    equivalence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Margin:
    """The answer to one margin.

    Attributes:
        kind: `guardrail` or `equivalence`.
        metric, arm: of what.
        margin: the relative difference that matters.
        lift: as in the verdict.
        level: of the interval `low` to `high`, Fieller's, which holds a margin exactly where the
            one-sided test does not reject it (before adjustment).
        low, high: that interval.
        p: of the non-inferiority test, or of the two one-sided tests; Holm-adjusted over all of its
            kind in `p_adjusted`.
        answer: of a guardrail `safe`: shown not to lose the margin; `harmed`: shown to be worse
            than the control by more than the margin; `not shown`: neither. Of an equivalence
            `equivalent` or `not shown`.
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
    note: str = ""


def answer_margins(
    table: UnitTable,
    control: str,
    margins: Margins,
    covariates: Mapping[str, Sequence[str]] | None = None,
) -> list[Margin]:
    """Every margin for every other arm: guardrails first, Holm over all guardrails and over all
    equivalences.

    Args:
        table: of any design.
        control: the control arm.
        margins: by metric.
        covariates: by metric, pre-period columns to adjust for (as `verdict.lifts`).

    Raises:
        TableError: a margin that is not positive, no such metric or arm, a guardrail of a metric
            whose direction is not known.
    """
    samples, metrics = TableMoments(table, covariates or {}), table.metrics
    answers: list[tuple[Margin, bool]] = []
    asked: list[tuple[Kind, Mapping[str, float]]] = [
        ("guardrail", margins.guardrails),
        ("equivalence", margins.equivalence),
    ]
    for kind, by_metric in asked:
        for arm, (metric, margin) in product(table.arms, by_metric.items()):
            if metric not in metrics:
                raise TableError(f"{kind}: no metric {metric!r}; there are {list(metrics)}")
            if kind == "guardrail" and metrics[metric].higher_is_better is None:
                raise TableError(
                    f"guardrail: is more of {metric!r} better, or less? {UNDIRECTED.format(metric)}"
                )
            if arm != control:
                answers.append(
                    _judge(
                        samples if metric in table.numerators else None,
                        table,
                        kind,
                        metric,
                        (control, arm),
                        margin,
                    )
                )
    rows = []
    for kind, _ in asked:
        mine = [pair for pair in answers if pair[0].kind == kind]
        adjusted = adjust(np.array([one.p for one, _ in mine]))
        rows += [
            replace(one, p_adjusted=float(q), answer=_answer(one, float(q), harm))
            for (one, harm), q in zip(mine, adjusted, strict=True)
        ]
    return rows


def _judge(
    samples: TableMoments | None,
    table: UnitTable,
    kind: Kind,
    metric: str,
    arms: tuple[str, str],
    margin: float,
) -> tuple[Margin, bool]:
    """One margin, not yet adjusted nor answered, and whether harm beyond it is shown."""
    nan = float("nan")
    blank = Margin(kind, metric, arms[1], margin, nan, SHOWN, nan, nan, nan, nan, "no data")
    if samples is None:
        return blank, False
    m = samples.moments(metric, *arms)
    row = verdict.row(m, metric, arms[1], table.unit)
    better = bool(table.metrics[metric].higher_is_better)
    if row.n_units == 0:
        return blank, False
    if row.identical:
        answer: Answer = "safe" if kind == "guardrail" else "equivalent"
        return replace(blank, lift=0.0, low=0.0, high=0.0, answer=answer), False
    if kind == "equivalence":
        p, harm = equivalence(m, margin), False
    else:
        p = non_inferiority(m, margin, better)
        harm = (
            one_sided(m, -margin, above=False) if better else one_sided(m, margin, above=True)
        ) < LEVEL
    low, high = (float(end) for end in intervals.fieller(m, SHOWN))
    note = (intervals.unbounded(m, SHOWN) or "") if m.variance > 0 else ""
    return (
        replace(
            blank,
            lift=row.lift,
            low=low,
            high=high,
            p=p,
            p_adjusted=p,
            answer="not shown",
            note=note,
        ),
        harm,
    )


def _answer(one: Margin, p_adjusted: float, harm: bool) -> Answer:
    if one.answer != "not shown":
        return one.answer  # no data, or identical
    if p_adjusted < LEVEL:
        return "safe" if one.kind == "guardrail" else "equivalent"
    return "harmed" if harm else "not shown"
