"""Segments: the lift in groups of users known before the test, whether it differs between them, and
the warning that belongs beside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from policies.elementary import logs
from simulator.stats import intervals, verdict
from simulator.stats.contrasts import TableMoments
from simulator.stats.moments import Moments
from simulator.stats.pooling import fixed_effect
from simulator.stats.tests import adjust
from simulator.stats.unit_table import Array, Unit, UnitTable, levels

WARNING = (
    "Segments are looked at because they are there, not because they were planned: with so many,"
    " some differ by chance. Trust a segment only where the interaction test (is the lift different"
    " between the groups at all?) is significant after correction, and then test it anew."
)

LEAST = 30
"""Units that a segment must have (in each arm) to be shown."""

DEPENDENT = 0.001
"""p-value below which a group is taken to depend on the arm."""


@dataclass(frozen=True)
class Segment:
    """The lift in one group of users; `row.p_adjusted` is Holm-adjusted over every segment, metric
    and arm.
    """

    group: str
    level: str
    row: verdict.Lift


@dataclass(frozen=True)
class Interaction:
    """Whether a lift differs between the levels of a group.

    Attributes:
        group, metric, arm: of what.
        q: Cochran's Q (`heterogeneity`).
        df: levels - 1.
        p: chi-square.
        p_adjusted: Holm over all interactions.
    """

    group: str
    metric: str
    arm: str
    q: float
    df: int
    p: float
    p_adjusted: float


def segments(
    table: UnitTable,
    control: str,
    *,
    covariates: Mapping[str, Sequence[str]] | None = None,
    level: float = verdict.LEVEL,
) -> tuple[list[Segment], list[Interaction]]:
    """Lifts by every group that the table has, and the interaction tests.

    The interaction test is Cochran's Q over the levels' log ratios (or lifts: `heterogeneity`) with
    their delta-method variances (Cochran 1954; Hedges & Olkin 1985, chapter 6): are the relative
    lifts equal?

    Args:
        table: of users known by group.
        control: the control arm.
        covariates: by metric, pre-period columns to adjust it for, within each group by a slope of
            its own.
        level: of the intervals.
    """
    names = list(table.numerators)
    compared: list[Compared] = []
    for group in table.groups:
        parts = {name: part for name, part in table.of_levels(group) if _smallest(part) >= LEAST}
        samples = {name: TableMoments(part, covariates or {}) for name, part in parts.items()}
        for arm in table.arms if len(parts) > 1 else ():
            for metric in names if arm != control else ():
                moments = {name: one.moments(metric, control, arm) for name, one in samples.items()}
                compared.append((group, metric, arm, moments))
    return of_comparisons(compared, table.unit, level)


Compared = tuple[str, str, str, Mapping[str, Moments]]
"""A group, a metric, an arm, and the moments of the comparison by level."""


def of_comparisons(
    compared: Iterable[Compared], unit: Unit, level: float = verdict.LEVEL
) -> tuple[list[Segment], list[Interaction]]:
    """The same of comparisons however they were made; `level`: of the intervals."""
    groups: list[tuple[str, str]] = []
    comparisons: list[verdict.Uncorrected] = []
    interactions: list[Interaction] = []
    for group, metric, arm, by_level in compared:
        moments = list(by_level.values())
        groups += [(group, name) for name in by_level]
        comparisons += [verdict.Uncorrected(metric, arm, unit, m) for m in moments]
        q, df, p = heterogeneity(moments)
        interactions.append(Interaction(group, metric, arm, q, df, p, p))
    corrected = verdict.in_family(comparisons, level=level)
    between = adjust(np.array([i.p for i in interactions]))
    return (
        [Segment(*place, row) for place, row in zip(groups, corrected, strict=True)],
        [replace(i, p_adjusted=float(p)) for i, p in zip(interactions, between, strict=True)],
    )


def dependence(table: UnitTable) -> dict[str, float]:
    """For each group of a split table the p-value of its independence of the arm: Pearson's
    chi-square, Holm over the groups.

    What is known of users before the test does not depend on their arm. A group that does is an
    outcome of the test (or users were not assigned at random), and must not be conditioned on
    (Rosenbaum, "The consequences of adjustment for a concomitant variable that has been affected by
    the treatment", JRSS A 1984). Levels of fewer than `LEAST` units count as one.
    """
    if table.assigned is None:
        return {}
    from scipy.stats import chi2_contingency

    by_group = {}
    for group in table.groups:
        counted: dict[Any, Array] = defaultdict(lambda: np.zeros(len(table.arms), dtype=np.int64))
        for found in table.mapped(partial(_by_level, group), ()):
            for name, row in found.items():
                counted[name] += row
        counts = np.array([counted[name] for name in sorted(counted)])
        rare = counts.sum(axis=1) < LEAST
        pooled = np.vstack([counts[~rare], counts[rare].sum(axis=0, keepdims=True)])
        pooled = pooled[pooled.sum(axis=1) > 0][:, pooled.sum(axis=0) > 0]
        if min(pooled.shape, default=0) > 1:
            by_group[group] = float(chi2_contingency(pooled, correction=False).pvalue)
        else:
            by_group[group] = 1.0
    return dict(zip(by_group, adjust(np.array(list(by_group.values()))).tolist(), strict=True))


def _by_level(group: str, table: UnitTable) -> dict[Any, Array]:
    """How many units of each level are in each arm."""
    assert table.assigned is not None
    here = table.assigned >= 0
    names, codes = levels(table.groups[group][here])
    cells = codes * len(table.arms) + table.assigned[here]
    found = np.bincount(cells, minlength=len(names) * len(table.arms))
    return dict(zip(names, found.reshape(len(names), -1), strict=True))


def heterogeneity(parts: list[Moments]) -> tuple[float, int, float]:
    """Cochran's Q of the lifts of independent comparisons, its df and p; NaN with fewer than two
    whose effect has a variance.

    Of log(treatment / control) where the control's mean has one sign in all of them and the
    treatment's has it, too; else of the lifts themselves, with their delta-method variances.
    """
    varied = [m for m in parts if m.variance > 0 and m.control != 0]
    if len(varied) < 2:
        return float("nan"), 0, float("nan")
    if len({float(np.sign(mean)) for m in varied for mean in (m.control, m.treatment)}) == 1:
        effect = logs([m.treatment / m.control for m in varied])
        variance = np.array([intervals.log_variance(m) for m in varied])
    else:
        effect = np.array([m.lift for m in varied])
        variance = np.array([intervals.lift_variance(m) for m in varied])
    # An arm without any event at a level has no variance by the delta method, and so no weight.
    spread = variance > 0
    if np.count_nonzero(spread) < 2:
        return float("nan"), 0, float("nan")
    together = fixed_effect(effect[spread], variance[spread])
    return together.q, together.df, together.p


def _smallest(table: UnitTable) -> int:
    if table.assigned is None:
        return table.n_units
    return int(np.bincount(table.assigned[table.assigned >= 0], minlength=len(table.arms)).min())
