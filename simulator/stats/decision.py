"""Ship, hold or drop: what the rows of a verdict amount to, by the roles of their metrics.

The rule is that of Schultzberg, Ankargren & Fraanberg, "Risk-aware product decisions in A/B tests
with multiple metrics" (arXiv 2402.11609, 2024). An arm ships if and only if

- at least one success metric is shown to be better,
- every guardrail is shown not to lose its margin,
- no success, guardrail or deterioration metric is shown to be worse,
- and nothing says that the test itself is unsound: a red check, a quality metric that differs.

What it promises, with tests at alpha = .05 (`verdict.FAMILIES`, `margins.Margin`):

- where no success metric is better, an arm ships in at most alpha / 2 of tests, whatever the number
  of success metrics and of arms: a better side of a two-sided test at alpha, divided among them
  (with one-sided tests, `Rule.alternative`, in at most alpha: there all of it is on this side);
- where a guardrail of an arm loses its margin, that arm ships in at most alpha of tests;
- where an arm is better in a success metric and loses nothing, it does not ship in at most
  (G + 1) beta + alpha / 2 of tests: G guardrails and a success that are each found with power
  1 - beta, and a harm that is not there. `power_of_each` is the power that each of them needs.

A row that is shown to be worse, or a guardrail beyond its margin, drops the arm; all else is held.
Everything here is a function of rows: no data is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from simulator.log.metrics import Metric, MetricRole
from simulator.stats import margins as bounds
from simulator.stats.adjustment import pre_periods
from simulator.stats.choices import Choices
from simulator.stats.intervals import Side, two_sided
from simulator.stats.margins import Margin, Margins
from simulator.stats.replication import Components
from simulator.stats.rule import STANDARD, Rule
from simulator.stats.tests import Correction, level_of_one
from simulator.stats.unit_table import UnitTable
from simulator.stats.verdict import FAMILIES, POWER, Lift, correction_in, lifts, noncentrality


class HasRole(Protocol):
    """What a decision must know of a metric (`log.metrics.Metric`)."""

    @property
    def role(self) -> MetricRole: ...
    @property
    def higher_is_better(self) -> bool | None: ...


Answer = Literal["ship", "hold", "drop"]
Ground = Literal["models", "methods"]
Cause = Literal[
    "better", "worse", "harmed", "red", "unknown", "unsound", "worse within", "not better", "unsafe"
]
"""Why an arm is decided as it is: a success that is better; a metric that is worse; a guardrail
that loses more than its margin; a red check; methods of which nothing is known; a quality metric
that differs; a guardrail that is worse, by less than its margin; a success that is not shown to be
better; a guardrail that is not shown to be safe.
"""

DROPS: tuple[Cause, ...] = ("worse", "harmed")
UNSOUND: tuple[Cause, ...] = ("red", "unknown", "unsound")
"""Causes for which no lift may be acted upon, in either way."""

MOST_FITS = 100
MOST_TIMES = 100.0
"""How many times the users there were may be asked for: more is `no number of users`."""


@dataclass(frozen=True)
class Reason:
    """One reason of a decision.

    Attributes:
        cause: the kind of reason.
        subject: the metric; of a red check its name, of unknown methods why.
        users: how many more users (days, where days are the units) would show it with the power
            that the rule needs (`power_of_each`), if the true lift is the measured one; NaN: no
            reasonable number.
        fits: how many more fits would, with as many users; NaN: none, or fits do not matter.
        both: neither would alone, so `users` and `fits` are needed together.
    """

    cause: Cause
    subject: str
    users: float = math.nan
    fits: float = math.nan
    both: bool = False


@dataclass(frozen=True)
class ArmDecision:
    """What is decided on an arm.

    Attributes:
        arm: the arm.
        answer: ship, hold or drop.
        reasons: those that decide first.
        sentence: the same in words, in a report.
    """

    arm: str
    answer: Answer
    reasons: tuple[Reason, ...]
    sentence: str = ""


@dataclass(frozen=True)
class Decision:
    """What is decided on a test.

    Attributes:
        on: whether the rows speak of the models that were trained or of the methods.
        arms: each treatment arm, in the order of the report.
    """

    on: Ground
    arms: tuple[ArmDecision, ...]

    @property
    def answer(self) -> Answer:
        """Of the test: `ship` where an arm ships, `drop` where all are dropped, else `hold`."""
        answers = {one.answer for one in self.arms}
        if "ship" in answers:
            return "ship"
        return "drop" if answers == {"drop"} else "hold"


def power_of_each(guardrails: int, power: float = POWER) -> float:
    """The power that the success and each guardrail need, so that all are found with `power`."""
    return 1.0 - (1.0 - power) / (guardrails + 1)


def chance_of_false_harm(
    metrics: Mapping[str, Metric], better: str, rule: Rule = STANDARD
) -> float:
    """How often, at most, an arm that is `better` in this metric and loses nothing does not ship,
    because some other metric is found to be worse, or its quality to differ: the errors of these
    tests, added up (Bonferroni, within a family as over families).
    """
    families = [FAMILIES[metric.role] for metric in metrics.values()]
    total = 0.0
    for name, metric in metrics.items():
        family = FAMILIES[metric.role]
        if family != "exploratory" and name != better:
            total += rule.alpha * _share_of_harm(metric, rule) / families.count(family)
    return total


def _share_of_harm(metric: Metric, rule: Rule) -> float:
    """The share of a test's error that keeps an arm from shipping: the worse side of a two-sided
    test, all of quality and of a one-sided test of harm, nothing of one that asks for better.
    """
    if metric.role == "quality":
        return 1.0
    if rule.side(metric) == "two-sided":
        return 0.5
    return 0.0 if metric.role == "success" else 1.0


@dataclass(frozen=True)
class PlannedTest:
    """The test that the decision makes of a metric, as it is planned for.

    Attributes:
        role: of the metric.
        level: of the two-sided test that one true difference must pass; of a guardrail that whose
            one side is the test of its margin.
        power: with which it must be found, for the decision to find all with the wished power.
        tests: how many are corrected together; 1 of a guardrail.
        margin: that a guardrail must be shown not to lose; None of other roles.
        side: of which differences the test asks; a guardrail's margin is one-sided always.
    """

    role: MetricRole
    level: float
    power: float
    tests: int
    margin: float | None = None
    side: Side = "two-sided"


def planned_tests(
    metrics: Mapping[str, Metric],
    treatments: int,
    correction: Correction = "holm",
    power: float = POWER,
    rule: Rule = STANDARD,
) -> dict[str, PlannedTest]:
    """The test of each of the metrics against `treatments` other arms, by the families and the
    power of the decision (`verdict.FAMILIES`, `power_of_each`), at the level and side of the rule.
    Dunnett's correction is planned as Bonferroni's: its own level is a little less strict.
    """
    has_success = any(metric.role == "success" for metric in metrics.values())
    guardrails = sum(metric.role == "guardrail" for metric in metrics.values())
    each = power_of_each(guardrails, power) if has_success else power
    planned = {}
    for name, metric in metrics.items():
        family = FAMILIES[metric.role]
        tests = treatments * sum(FAMILIES[one.role] == family for one in metrics.values())
        level = 1.0 - level_of_one(tests, correction_in(family, correction), rule.alpha)
        if metric.role == "guardrail":
            shown, side = bounds.shown(rule.alpha), bounds.side(metric)
            planned[name] = PlannedTest("guardrail", shown, each, 1, metric.margin, side)
        else:
            needed, side = each if metric.role == "success" else power, rule.side(metric)
            planned[name] = PlannedTest(
                metric.role, two_sided(level, side), needed, tests, side=side
            )
    return planned


def decide(
    rows: Sequence[Lift],
    margins: Sequence[Margin],
    metrics: Mapping[str, HasRole],
    *,
    on: Ground = "models",
    red: Sequence[str] = (),
    unknown: Mapping[str, str] | None = None,
    components: Mapping[tuple[str, str], Components] | None = None,
) -> Decision | None:
    """The decision on each arm; None where no metric is declared a success.

    Args:
        rows: of the verdict, of one kind of unit, corrected by role.
        margins: the answers to the guardrails.
        metrics: by name, with their roles and directions.
        on: what the rows speak of.
        red: names of red checks.
        unknown: by arm, why nothing is known of its method.
        components: by arm and metric, what the variance of a method's difference is made of.
    """
    if not any(metric.role == "success" for metric in metrics.values()):
        return None
    unknown = unknown or {}
    guardrails = sum(metric.role == "guardrail" for metric in metrics.values())
    power = power_of_each(guardrails)
    arms = []
    for arm in dict.fromkeys([*(row.arm for row in rows), *unknown]):
        reasons = [Reason("red", name) for name in red]
        if arm in unknown:
            reasons.append(Reason("unknown", unknown[arm]))
        own = [row for row in rows if row.arm == arm]
        by_metric = {row.metric: row for row in own}
        parts = {metric: one for (of, metric), one in (components or {}).items() if of == arm}
        for row in own:
            reasons += _of_row(row, metrics[row.metric])
        for margin in margins:
            if margin.arm == arm and margin.kind == "guardrail":
                guarded = by_metric.get(margin.metric)
                reasons += _of_margin(margin, guarded, metrics, power, parts.get(margin.metric))
        if not any(reason.cause == "better" for reason in reasons):
            for row in own:
                if metrics[row.metric].role == "success":
                    reasons.append(_not_better(row, metrics, power, parts.get(row.metric)))
        arms.append(_decided(arm, reasons))
    return Decision(on, tuple(arms))


def _decided(arm: str, reasons: Sequence[Reason]) -> ArmDecision:
    """The answer that reasons amount to, those that make it first."""
    causes = {reason.cause for reason in reasons}
    answer: Answer = "hold"
    if causes & set(UNSOUND):
        first = UNSOUND
    elif causes & set(DROPS):
        answer, first = "drop", DROPS
    elif causes == {"better"}:
        answer, first = "ship", ("better",)
    else:
        first = ("worse within", "unsafe", "not better")
    ordered = sorted(reasons, key=lambda reason: reason.cause not in first)
    return ArmDecision(arm, answer, tuple(ordered))


def is_better(row: Lift, metric: HasRole) -> bool | None:
    """Whether a row is shown to be better (True) or worse (False); None: neither."""
    if row.words not in ("up", "down") or metric.higher_is_better is None:
        return None
    return (row.words == "up") == metric.higher_is_better


def _of_row(row: Lift, metric: HasRole) -> list[Reason]:
    """What a difference that is shown means for the decision."""
    role: MetricRole = metric.role
    if role == "quality" and row.words in ("up", "down"):
        return [Reason("unsound", row.metric)]
    outcome = is_better(row, metric)
    if role == "success" and outcome is True:
        return [Reason("better", row.metric)]
    if outcome is False and role in ("success", "deterioration"):
        return [Reason("worse", row.metric)]
    return []


def _of_margin(
    margin: Margin,
    row: Lift | None,
    metrics: Mapping[str, HasRole],
    power: float,
    components: Components | None,
) -> list[Reason]:
    """What the answer to a guardrail means for the decision; `row`: of the same metric, None where
    there is none.
    """
    metric = metrics[margin.metric]
    if row is None or margin.answer == "no data":
        return [Reason("unsafe", margin.metric)]
    if margin.answer == "harmed":
        return [Reason("harmed", margin.metric)]
    if margin.answer == "safe":
        is_worse = is_better(row, metric) is False
        return [Reason("worse within", margin.metric)] if is_worse else []
    sign = 1.0 if metric.higher_is_better else -1.0
    size = margin.margin * (1.0 if margin.absolute else abs(row.control_mean))
    distance = size + sign * row.difference
    return [_missing("unsafe", row, distance, power, margin.level, components)]


def _not_better(
    row: Lift, metrics: Mapping[str, HasRole], power: float, components: Components | None
) -> Reason:
    """A success that is not shown to be better, with what would show it."""
    metric = metrics[row.metric]
    distance = row.difference if metric.higher_is_better else -row.difference
    return _missing("not better", row, distance, power, row.two_sided_level, components)


def _missing(
    cause: Cause,
    row: Lift,
    distance: float,
    power: float,
    level: float,
    components: Components | None,
) -> Reason:
    """The reason with the users or fits that are missing, if the truth is as it was measured.

    A test at `level` (two-sided) finds a true `distance` with `power` where its standard error is
    distance / noncentrality. More users lessen the users' part of the variance, more fits that of
    the fits, and add degrees of freedom.
    """
    if not (distance > 0 and row.se > 0 and row.df >= 1):
        return Reason(cause, row.metric)
    if components is None:
        of_users, of_fits, fits = row.se**2, 0.0, 0
    else:
        (of_users, of_fits), fits = components.of_the_mean, components.n_fits
    # The times of the users of this test that show it, by the number of fits there would be.
    times = {fits: _times(distance, row.df, power, level, of_users, of_fits)}
    if fits >= 2 and of_fits > 0.0:
        for n in range(fits + 1, fits + MOST_FITS):
            times[n] = _times(distance, n - 1.0, power, level, of_users, of_fits * fits / n)
    alone = _more_users(times[fits], row.n_units)
    as_many = [n for n, needed in times.items() if n > fits and needed <= 1.0]
    if math.isfinite(alone) or as_many:
        return Reason(cause, row.metric, alone, float(as_many[0] - fits) if as_many else math.nan)
    # Together: where neither has to grow by much more than the other.
    n = min(times, key=lambda n: max(times[n], n / fits if fits else 1.0))
    more = _more_users(times[n], row.n_units)
    if not math.isfinite(more):
        return Reason(cause, row.metric)
    return Reason(cause, row.metric, more, float(n - fits), both=True)


def _times(
    distance: float, df: float, power: float, level: float, of_users: float, of_fits: float
) -> float:
    """How many times as many users show `distance`; infinite where no number does."""
    needed = (distance / noncentrality(df, power, level)) ** 2
    return of_users / (needed - of_fits) if needed > of_fits else math.inf


def _more_users(times: float, n_units: int) -> float:
    """The users that are missing; NaN: more than MOST_TIMES those there are."""
    return max(math.ceil((times - 1.0) * n_units), 0.0) if times <= MOST_TIMES else math.nan


def evidence(
    table: UnitTable,
    control: str,
    margins: Margins | None = None,
    choices: Choices | None = None,
) -> tuple[list[Lift], list[Margin], Mapping[str, Metric]]:
    """What a decision on a table rests on: the rows of its verdict, the answers to its margins, and
    its metrics with their roles. `choices`: interval, correction and rule of the tests.

    Raises:
        MetricError, TableError: a margin or a role that cannot be, no such arm.
    """
    metrics, asked = bounds.planned(table.metrics, margins)
    table = replace(table, metrics=metrics)
    past, choices = pre_periods(table), choices or Choices()
    rows = lifts(
        table,
        control,
        covariates=past,
        method=choices.interval,
        correction=choices.correction,
        rule=choices.rule,
    )
    answers = bounds.answer_margins(table, control, asked, past, alpha=choices.rule.alpha)
    return rows, answers, metrics
