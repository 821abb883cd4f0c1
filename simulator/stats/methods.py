"""The verdict on methods: the same lifts as the verdict's, with fits as random as users.

What is simulated is a few models of each method. The verdict (`stats.verdict`) speaks of these
models; here are the intervals and tests that speak of the methods which trained them
(`stats.replication`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from simulator.stats import moments
from simulator.stats.contrasts import Further, compare
from simulator.stats.intervals import Method
from simulator.stats.margins import LEVEL, Margin, Margins, answer_compared
from simulator.stats.moments import Moments, Sample
from simulator.stats.replication import (
    Columns,
    Components,
    Replicated,
    crossed_pairs,
    crossed_split,
    divided,
    same_model,
)
from simulator.stats.rule import STANDARD, Rule
from simulator.stats.tests import Correction
from simulator.stats.unit_table import Unit, UnitTable, mapped_together
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import Lift, Uncorrected, in_families


@dataclass(frozen=True, slots=True)
class MethodLift:
    """A row of the verdict on methods.

    Attributes:
        lift: as the verdict's, its interval and test with fits as random as users.
        components: what the variance of the difference is made of.
    """

    lift: Lift
    components: Components


def unknown(days: UserDays, control: str, arm: str) -> str | None:
    """Why nothing is known of two methods apart from their models, in words; None where it is."""
    fits = days.fits or (1,) * len(days.arms)
    once = [
        name
        for name in (control, arm)
        if fits[days.arms.index(name)] == 1 and name not in days.fitted_once
    ]
    if not once:
        return None
    return "one fit" if len(once) == 2 else f"one fit of {once[0]}"


def method_lifts(
    days: UserDays,
    control: str,
    *,
    unit: Unit = "user",
    interval: Method = "fieller",
    correction: Correction = "holm",
    further: Further | None = None,
    rule: Rule = STANDARD,
) -> list[MethodLift]:
    """The verdict on methods: each arm against `control` in every metric that has data, corrected
    over all rows returned. Arms of one fit have no rows (`unknown`).

    Args:
        days: of a log with several fits.
        control: name of the control arm.
        unit: the verdict's: what is assigned as a whole.
        interval: of the relative lift.
        correction: of the p values, as far as fits tell (`correction_of_methods`).
        further: comparisons by other units; those with a role are corrected with these.
        rule: level and alternative of every test.
    """
    arms = [a for a in days.arms if a != control and unknown(days, control, a) is None]
    if not arms:
        return []
    read = FitTables.read(days, unit)
    comparisons: list[Uncorrected] = []
    components: list[Components] = []
    for arm in arms:
        for metric in days.metrics:
            if metric in days.missing or days.metrics[metric].is_figure:
                continue
            result = read.replicated(metric, control, arm)
            if result.methods is not None and result.components is not None:
                comparisons.append(Uncorrected(metric, arm, unit, result.methods))
                components.append(result.components)
    metrics = dict(days.metrics)
    if further is not None:
        more, parts = replicated_further(further, control, arms, with_role=True)
        comparisons, components = comparisons + more, components + parts
        metrics |= further.metrics
    own = correction_of_methods(correction)
    rows = in_families(comparisons, metrics, interval, own, rule)
    return list(map(MethodLift, rows, components))


def further_method_lifts(
    further: Further,
    control: str,
    arms: Sequence[str],
    interval: Method = "fieller",
    correction: Correction = "holm",
    rule: Rule = STANDARD,
) -> list[MethodLift]:
    """The verdict on methods by other units, of the metrics without a role: a family by itself."""
    comparisons, components = replicated_further(further, control, arms, with_role=False)
    own = correction_of_methods(correction)
    rows = in_families(comparisons, further.metrics, interval, own, rule)
    return list(map(MethodLift, rows, components))


def correction_of_methods(correction: Correction) -> Correction:
    """Bonferroni in place of the joint law, which needs correlations that are known or estimated
    from many units (Hothorn, Bretz & Westfall, Biometrical Journal 2008, section 3): of F fits they
    have F - 1 degrees of freedom, so that those of 4 fits are of rank 3 whatever is compared, and
    the law that they give calls equal methods different in 24% of tests of 18 comparisons, and in
    10% of tests of 6 (counted in the tests). Sidak's inequality, which needs none, gives p all but
    Bonferroni's.
    """
    return "bonferroni" if correction == "dunnett" else correction


def replicated_further(
    further: Further, control: str, arms: Sequence[str], *, with_role: bool
) -> tuple[list[Uncorrected], list[Components]]:
    """The comparisons of methods by other units, of the metrics that have a role or of the others,
    with what their variances are made of.
    """
    comparisons, components = [], []
    for arm in arms:
        for name, metric in further.metrics.items():
            result = further.replicated(name, control, arm)
            if (metric.role != "exploratory") != with_role or result is None:
                continue
            if result.methods is not None and result.components is not None:
                comparisons.append(Uncorrected(name, arm, further.unit, result.methods))
                components.append(result.components)
    return comparisons, components


def method_margins(
    days: UserDays,
    control: str,
    margins: Margins,
    *,
    unit: Unit = "user",
    further: Further | None = None,
    alpha: float = LEVEL,
) -> list[Margin]:
    """The margins of methods (`margins.answer_margins`), of the arms of which something is
    known.
    """
    arms = [a for a in days.arms if a != control and unknown(days, control, a) is None]
    if not arms:
        return []
    read = FitTables.read(days, unit)

    def moments_of(metric: str, arm: str) -> Moments | None:
        if metric in days.metrics or further is None:
            is_missing = metric in days.missing or days.metrics[metric].is_figure
            return None if is_missing else read.replicated(metric, control, arm).methods
        result = further.replicated(metric, control, arm)
        return None if result is None else result.methods

    metrics = {**({} if further is None else further.metrics), **days.metrics}
    return answer_compared(moments_of, arms, metrics, margins, alpha)


@dataclass(frozen=True)
class FitTables:
    """What units did in two arms or more, with each of several fits.

    Attributes:
        pooled: all units; where they are crossed with fits, their means over fits.
        each: of each fit: the units who live with it, which are all of them where they are crossed.
        crossed: whether every unit lives with every fit.
        fitted_once: arms whose fits are all the same model.
    """

    pooled: UnitTable
    each: Sequence[UnitTable]
    crossed: bool
    fitted_once: frozenset[str] = frozenset()

    @classmethod
    def read(cls, days: UserDays, unit: Unit) -> FitTables:
        """Those of a log with several fits; a fit that nobody lives with is none."""
        if days.lives:
            each = [life.by(unit) for life in days.lives]
        else:
            assert days.fit_of_user is not None
            parts = [days.of_fit(fit) for fit in range(max(days.fits))]
            each = [part.by(unit) for part in parts if part.n_users]
        return cls(days.by(unit), each, bool(days.lives), days.fitted_once)

    def replicated(self, metric: str, control: str, arm: str) -> Replicated:
        """One comparison by both questions."""
        pooled = compare(self.pooled, metric, control, arm)
        if {control, arm} <= self.fitted_once:
            return same_model(pooled, len(self.each))
        if not self.crossed:
            return divided(pooled, [compare(table, metric, control, arm) for table in self.each])
        if self.pooled.paired:
            both, columns = self._sample(metric, (control, arm))
            half = len(columns) // 2
            return crossed_pairs(pooled, both, columns[:half], columns[half:])
        return crossed_split(pooled, self._sample(metric, (control,)), self._sample(metric, (arm,)))

    def _sample(self, metric: str, arms: Sequence[str]) -> tuple[Sample, list[Columns]]:
        """What units have in some arms with each fit: a variable for each numerator and
        denominator, and where they are, arm by arm.
        """
        is_ratio = metric in self.pooled.denominators
        width = 2 if is_ratio else 1
        n = len(arms) * len(self.each)
        columns = [(at, at + 1 if is_ratio else None) for at in range(0, n * width, width)]
        found = mapped_together(self.each, partial(_sample_of, metric, arms), [metric])
        return moments.together(found), columns


def _sample_of(metric: str, arms: Sequence[str], each: Sequence[UnitTable]) -> Sample:
    """Arm by arm and fit by fit, the numerators and the denominators."""
    halves = [half for arm in arms for table in each for half in table.sums(metric, arm)]
    return moments.sample([half for half in halves if half is not None])
