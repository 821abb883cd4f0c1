"""Margins: equivalence, non-inferiority and guardrails, where the question is not "any difference?" but "a difference that matters?"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from simulator.stats import verdict
from simulator.stats.compare import Samples
from simulator.stats.moments import Moments
from simulator.stats.units import TableError, UnitTable

Answer = Literal["safe", "harmed", "not shown", "no data"]


def one_sided(m: Moments, bound: float, *, above: bool) -> float:
    """p of the hypothesis that the true relative lift is at or beyond `bound`, against its being above (or below) it.

    The t test of treatment - (1 + bound) control, linear in the two means, so that no ratio need be normal (Sasabuchi 1988;
    Hauschke, Kieser & Hothorn, "Proof of safety in toxicology based on the ratio of two means", Biometrical Journal 1999). NaN without
    variance.
    """
    from scipy.special import stdtr

    theta = 1.0 + bound
    variance = m.var_treatment - 2.0 * theta * m.cov + theta**2 * m.var_control
    if not variance > 1e-12 * (m.var_treatment + theta**2 * m.var_control):
        return float("nan")
    t = (m.treatment - theta * m.control) / np.sqrt(variance)
    return float(stdtr(m.df, -t if above else t))


def equivalence(m: Moments, margin: float) -> float:
    """p of the two one-sided tests that the lift is within +-`margin` (Schuirmann 1987): below 0.05 shows equivalence.

    Raises:
        TableError: the margin is not positive.
    """
    if not margin > 0:
        raise TableError(f"equivalence: the margin must be above 0; got {margin}")
    return float(np.maximum(one_sided(m, -margin, above=True), one_sided(m, margin, above=False)))


def non_inferiority(m: Moments, margin: float, higher_is_better: bool = True) -> float:
    """p that the treatment is worse than the control by `margin` or more (relative): below 0.05 shows that it is not.

    Raises:
        TableError: the margin is not positive.
    """
    if not margin > 0:
        raise TableError(f"non-inferiority: the margin must be above 0; got {margin}")
    return one_sided(m, -margin, above=True) if higher_is_better else one_sided(m, margin, above=False)


@dataclass(frozen=True)
class Guardrail:
    """A metric that must not get worse by its margin.

    Attributes:
        metric, arm: what is guarded.
        margin: the relative loss that must not be.
        lift, low, high: the lift and its 95% interval.
        p: of the non-inferiority test; Holm-adjusted over all guardrails in `p_adjusted`.
        answer: `safe`: shown not to lose the margin; `harmed`: shown to be worse than the control by more than the margin;
            `not shown`: neither (the report says how much the interval allows).
    """

    metric: str
    arm: str
    margin: float
    lift: float
    low: float
    high: float
    p: float
    p_adjusted: float
    answer: Answer


def guardrails(table: UnitTable, control: str, margins: Mapping[str, float]) -> list[Guardrail]:
    """Non-inferiority of every other arm on every guarded metric, Holm over all of them.

    Raises:
        TableError: a margin that is not positive, no such arm.
    """
    from simulator.stats.tests import adjust

    samples = Samples(table, {})
    found: list[tuple[str, str, float, verdict.Lift, float, float]] = []
    for arm in table.arms:
        for metric, margin in margins.items() if arm != control else ():
            row = verdict.lift(table, metric, control, arm)
            if metric not in table.numerators:
                found.append((metric, arm, margin, row, float("nan"), float("nan")))
                continue
            m = samples.moments(metric, control, arm)
            better = table.metrics[metric].higher_is_better
            worse = one_sided(m, -margin, above=False) if better else one_sided(m, margin, above=True)
            found.append((metric, arm, margin, row, non_inferiority(m, margin, better), worse))
    adjusted = adjust(np.array([f[4] for f in found]))
    return [
        Guardrail(metric, arm, margin, row.lift, row.low, row.high, p, float(q), _answer(row, float(q), worse))
        for (metric, arm, margin, row, p, worse), q in zip(found, adjusted, strict=True)
    ]


def _answer(row: verdict.Lift, p_adjusted: float, worse: float) -> Answer:
    if row.n_units == 0:
        return "no data"
    if row.identical or p_adjusted < 0.05:
        return "safe"
    return "harmed" if worse < 0.05 else "not shown"
