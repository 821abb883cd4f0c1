"""The audit of the decision: how often the rule ships an arm where the truth is known, counted by
re-randomising a paired run, beside what the rule promises (`stats.decision`).

Three kinds of truth, made of the answers that the run's users gave in each arm, all metrics of a
user together, so that metrics keep the dependence that they have:

- *equal*: no arm differs from the control (twins: each user's answers are dealt anew over the
  arms; split users: all arms answer as the control). That any arm ships may happen in alpha / 2,
  2.5%; with one-sided tests in alpha.
- *harmed*: every success of every arm is so much better that it is surely found, and one guardrail
  loses exactly its margin. An arm may ship in alpha.
- *better*: one success of every arm is better by its detectable lift, and nothing else differs. An
  arm ships in at least 1 - the chances that the success is missed (.2), that a guardrail is not
  shown to be safe, and that a harm is found which is not there (`decision.chance_of_false_harm`).
  How often a guardrail is safe at this size follows from its standard error.

A lift is planted by scaling an arm's own answers (where a metric has negative values, by shifting
them) until its mean over all users of the run is as wished. The decision on a sample is made by the
functions of the report: `decision.evidence` and `decide` on the models; on methods
`methods.FitTables` of fits that are drawn with the users, both arms having fits of one method
(`stats.fit_audit`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
import numpy.typing as npt

from policies.base import Progress
from simulator.log.metrics import Absolute, Metric
from simulator.stats import margins as bounds
from simulator.stats.choices import Choices
from simulator.stats.decision import Decision, Ground, chance_of_false_harm, decide, evidence
from simulator.stats.fit_audit import (
    DEALINGS,
    SIDES,
    Assignment,
    FitPopulation,
    audited_arms,
    draw_sample,
)
from simulator.stats.margins import Margin
from simulator.stats.methods import FitTables
from simulator.stats.moments import Floats
from simulator.stats.randomise import ROOM, Rate
from simulator.stats.replication import Dealing
from simulator.stats.rule import STANDARD, Rule
from simulator.stats.unit_table import UnitTable, as_floats
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import POWER, Lift, Uncorrected, in_families, noncentrality

Truth = Literal["equal", "harmed", "better"]

REPETITIONS = 1000
"""Samples of each truth, unless asked otherwise: each is a verdict, and takes some ms."""

PILOT = 40
"""Samples from which the standard errors are known that detectable lifts follow from."""

SURE = 3.0
"""A success of so many detectable lifts is surely found."""

ANY = "any"
"""In place of an arm's name: of the test as a whole."""


@dataclass(frozen=True)
class AuditedDecision:
    """How often the rule ships under one truth.

    Attributes:
        truth, metric: what holds, and of which metric ("" where all are equal).
        arm: which arm, or `any`.
        on: decided on models or on methods.
        assignment: who is in which arm of a sample.
        fits: how an arm is trained and users live with it, in words; "" for models.
        n: users in a sample.
        repetitions: how many samples.
        lift: that was planted in `metric`, relative or absolute as its margin is; NaN: none.
        ship, hold, drop: shares of the samples in which the arm is decided so.
        promise: what the rule promises of `ship`.
        at_least: whether that is the least (a power), or else the most (an error).
    """

    truth: Truth
    metric: str
    arm: str
    on: Ground
    assignment: Assignment
    fits: str
    n: int
    repetitions: int
    lift: float
    ship: Rate
    hold: Rate
    drop: Rate
    promise: float
    at_least: bool

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of `ship`."""
        share = self.ship.value
        return math.sqrt(share * (1.0 - share) / self.repetitions)

    @property
    def holds(self) -> bool:
        """The promise is kept within three Monte-Carlo standard errors."""
        off = self.promise - self.ship.value if self.at_least else self.ship.value - self.promise
        return off <= 3.0 * math.sqrt(self.promise * (1.0 - self.promise) / self.repetitions)


@dataclass(frozen=True)
class PlantedTruth:
    """Means that an arm must have: by metric the difference from the control's, in its units."""

    truth: Truth
    metric: str = ""
    differences: Mapping[str, float] | None = None
    lift: float = math.nan


Answers = Mapping[str, tuple[Floats, Floats | None]]
"""By metric numerators and denominators, each `[arms, users]`."""


def has_decision(metrics: Mapping[str, Metric]) -> bool:
    """Whether a decision can be audited: some metric is a success."""
    return any(metric.role == "success" for metric in metrics.values())


def decision_audit(
    days: UserDays,
    control: str,
    *,
    arms: Sequence[str] = (),
    repetitions: int = REPETITIONS,
    n: int = 2000,
    fits: Sequence[int] = (),
    fit_n: int = 500,
    seed: int = 0,
    rule: Rule = STANDARD,
    progress: Progress | None = None,
) -> tuple[AuditedDecision, ...]:
    """Count how often the rule ships where all arms are equal, where a guardrail is harmed by its
    margin, and where a success is better by its detectable lift; () where no metric is a success.

    Args:
        days: of a paired run, whose metrics have their roles.
        control: name of the control arm.
        arms: treatment arms; () for all.
        repetitions: samples of each truth.
        n: users in a sample.
        fits: fits of an arm in samples for the decision on methods, of runs of twins who live with
            every fit.
        fit_n: users in these samples.
        seed: decides the samples.
        rule: level and alternative of every test.
        progress: called as ("decisions", samples done, samples, {}).
    """
    table = days.by("user")
    known = {m: one for m, one in days.metrics.items() if m in table.numerators}
    metrics = {m: one for m, one in known.items() if one.role != "exploratory"}
    if not has_decision(metrics):
        return ()
    treatments = tuple(arms) or tuple(arm for arm in table.arms if arm != control)
    samples = [
        _Models(table, metrics, (control, *treatments), assignment, n, seed, rule)
        for assignment in Assignment
    ]
    crossed = [
        _Methods(FitPopulation(days), metrics, arm, dealing, size, fit_n, seed, rule)
        for arm, size, dealing in product(_audited(days, treatments, fits), fits, DEALINGS)
        if size * ROOM <= min(days.fits)
    ]
    every: list[_Models | _Methods] = [*samples, *crossed]
    total = sum(
        1 + sum(m.role in ("guardrail", "success") for m in metrics.values()) for _ in every
    )
    rows: list[AuditedDecision] = []
    done = 0
    for one in every:
        for truth in _truths(one, metrics):
            counted = _Tally(one, truth)
            for decision in one.decisions(truth, repetitions):
                counted.add(decision)
                done += 1
                if progress is not None:
                    progress("decisions", done, total * repetitions, {})
            rows += counted.rows()
    return tuple(rows)


def _audited(days: UserDays, treatments: Sequence[str], fits: Sequence[int]) -> tuple[str, ...]:
    """The treatments whose fits can be drawn."""
    return tuple(arm for arm in audited_arms(days) if arm in treatments) if fits else ()


class _Models:
    """Samples of users, decided on the models."""

    on: Ground = "models"
    fits = ""

    def __init__(
        self,
        table: UnitTable,
        metrics: Mapping[str, Metric],
        arms: tuple[str, ...],
        assignment: Assignment,
        n: int,
        seed: int,
        rule: Rule = STANDARD,
    ) -> None:
        self.metrics, self.arms, self.assignment, self.n = metrics, arms, assignment, n
        self.treatments, self._seed, self.rule = arms[1:], seed, rule
        places = [table.arms.index(arm) for arm in arms]
        self._own: Answers = {
            m: (
                as_floats(table.numerators[m][places]),
                as_floats(table.denominators[m][places]) if m in table.denominators else None,
            )
            for m in metrics
        }

    def means(self) -> dict[str, float]:
        """The control's mean of each metric over all users."""
        return {m: _mean(top[0], _row(bottom, 0)) for m, (top, bottom) in self._own.items()}

    def planted(self, truth: PlantedTruth) -> Answers:
        """The answers of all users under a truth."""
        if truth.differences is None:
            return self._own
        answers = {}
        for m, (top, bottom) in self._own.items():
            wished = self.means()[m] + truth.differences.get(m, 0.0)
            rows = [top[0], *(_moved(row, _row(bottom, i), wished) for i, row in _others(top))]
            answers[m] = (np.stack(rows), bottom)
        return answers

    def evidence(self, truth: PlantedTruth, repetitions: int) -> Iterator[_Evidence]:
        """What the decision on each sample rests on."""
        answers = self.planted(truth)
        generator = np.random.default_rng([self._seed, self.n, len(self.arms)])
        n_users, k = next(iter(answers.values()))[0].shape[1], len(self.arms)
        is_equal = truth.truth == "equal"
        choices = Choices(level=self.rule.level, alternative=self.rule.alternative)
        for _ in range(repetitions):
            users = generator.integers(0, n_users, self.n)
            assigned: npt.NDArray[np.int64] | None = None
            if self.assignment is Assignment.SPLIT:
                assigned = generator.integers(0, k, self.n)
                source = np.zeros_like(assigned) if is_equal else assigned
            elif is_equal:
                source = generator.permuted(np.tile(np.arange(k)[:, None], self.n), axis=0)
            else:
                source = np.tile(np.arange(k)[:, None], self.n)
            table = UnitTable(
                "user",
                self.arms,
                dict(self.metrics),
                {m: top[source, users] for m, (top, _) in answers.items()},
                {m: low[source, users] for m, (_, low) in answers.items() if low is not None},
                assigned,
            )
            rows, answered, _ = evidence(table, self.arms[0], choices=choices)
            yield rows, answered

    def decisions(self, truth: PlantedTruth, repetitions: int) -> Iterator[Decision]:
        return _decided(self, truth, repetitions)


class _Methods:
    """Samples of users and fits, decided on the methods: both arms have fits of one method."""

    on: Ground = "methods"
    assignment = Assignment.PAIRED

    def __init__(
        self,
        population: FitPopulation,
        metrics: Mapping[str, Metric],
        arm: str,
        dealing: Dealing,
        size: int,
        n: int,
        seed: int,
        rule: Rule = STANDARD,
    ) -> None:
        self.metrics, self.n, self.rule = metrics, n, rule
        self.treatments = (arm,)
        self.fits = f"{size} fits {dealing}"
        self._population, self._dealing, self._size, self._seed = population, dealing, size, seed

    def means(self) -> dict[str, float]:
        """The method's mean of each metric over all fits and users."""
        return {m: self._population.mean(m, self.treatments[0]) for m in self.metrics}

    def evidence(self, truth: PlantedTruth, repetitions: int) -> Iterator[_Evidence]:
        generator = np.random.default_rng([self._seed, self._size, self.n])
        (arm,) = self.treatments
        means = self.means()
        moved = {
            m: (1.0 + difference / means[m]) if means[m] != 0 else 1.0
            for m, difference in (truth.differences or {}).items()
        }
        asked = bounds.planned(dict(self.metrics), None)[1]
        for _ in range(repetitions):
            sample = draw_sample(
                self._population, generator, self._size, self.n, self._dealing, self.assignment
            )
            tables = _scaled(sample.tables((arm, arm), sample.fits), moved)
            found = {m: tables.replicated(m, *SIDES).methods for m in self.metrics}
            rows = in_families(
                [Uncorrected(m, SIDES[1], "user", one) for m, one in found.items()],
                self.metrics,
                rule=self.rule,
            )
            yield (
                rows,
                bounds.answer_compared(
                    lambda metric, _, found=found: found[metric],  # type: ignore[misc]
                    SIDES[1:],
                    self.metrics,
                    asked,
                    self.rule.alpha,
                ),
            )

    def decisions(self, truth: PlantedTruth, repetitions: int) -> Iterator[Decision]:
        return _decided(self, truth, repetitions)


_Evidence = tuple[list[Lift], list[Margin]]


def _decided(
    samples: _Models | _Methods, truth: PlantedTruth, repetitions: int
) -> Iterator[Decision]:
    for rows, answers in samples.evidence(truth, repetitions):
        decision = decide(rows, answers, samples.metrics, on=samples.on)
        assert decision is not None
        yield decision


def _scaled(tables: FitTables, factors: Mapping[str, float]) -> FitTables:
    """The tables with the treatment's numerators of some metrics multiplied."""

    def one(table: UnitTable) -> UnitTable:
        sides = np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])
        numerators = {
            m: values * (sides[0] + factors.get(m, 1.0) * sides[1])
            for m, values in table.numerators.items()
        }
        return replace(table, numerators=numerators)

    return replace(tables, pooled=one(tables.pooled), each=[one(table) for table in tables.each])


def _row(values: Floats | None, place: int) -> Floats | None:
    return None if values is None else values[place]


def _others(top: Floats) -> Iterator[tuple[int, Floats]]:
    """The rows of the treatments, with their places."""
    return ((i, top[i]) for i in range(1, len(top)))


def _mean(top: Floats, bottom: Floats | None) -> float:
    return float(top.mean() if bottom is None else top.sum() / bottom.sum())


def _moved(top: Floats, bottom: Floats | None, wished: float) -> Floats:
    """Numerators `[users]` moved so that their mean (or ratio) is as wished: scaled, so that users
    without events have none, or shifted where values have both signs or the mean is 0.
    """
    mean = _mean(top, bottom)
    if (top >= 0).all() and mean > 0 and wished > 0:
        return np.asarray(top * (wished / mean))
    return np.asarray(top + (wished - mean) * (1.0 if bottom is None else bottom))


def _truths(samples: _Models | _Methods, metrics: Mapping[str, Metric]) -> Iterator[PlantedTruth]:
    """Every truth that is counted, with what must be planted for it."""
    yield PlantedTruth("equal")
    means = samples.means()
    detectable = _detectable(samples)
    best = {
        m: SURE * _sign(metric) * detectable[m]
        for m, metric in metrics.items()
        if metric.role == "success" and math.isfinite(detectable[m])
    }
    for m, metric in metrics.items():
        if metric.role == "guardrail" and metric.margin is not None:
            size = 1.0 if isinstance(metric.margin, Absolute) else abs(means[m])
            loss = -_sign(metric) * metric.margin
            yield PlantedTruth("harmed", m, {**best, m: loss * size}, loss)
    for m, metric in metrics.items():
        if m in best:
            gain = _sign(metric) * detectable[m]
            lift = gain / abs(means[m]) if means[m] != 0 else math.nan
            yield PlantedTruth("better", m, {m: gain}, lift)


def _better_by_chance(rule: Rule) -> float:
    """How often, at most, an arm ships where none differs: the better sides of the tests of all
    successes.
    """
    return rule.alpha if rule.alternative == "better" else rule.alpha / 2.0


def _sign(metric: Metric) -> float:
    return 1.0 if metric.higher_is_better else -1.0


def _pilot(samples: _Models | _Methods) -> dict[str, tuple[float, float, float]]:
    """By metric, the standard error of a difference, its degrees of freedom and the level of the
    two-sided test that is as strict as its corrected one, where nothing differs: root mean square
    and median over samples and arms.
    """
    rows: dict[str, list[Lift]] = {}
    for found, _ in samples.evidence(PlantedTruth("better", differences={}), PILOT):
        for row in found:
            if row.se > 0:
                rows.setdefault(row.metric, []).append(row)
    return {
        m: (
            math.sqrt(float(np.mean([row.se**2 for row in own]))),
            float(np.median([row.df for row in own])),
            own[0].two_sided_level,
        )
        for m, own in rows.items()
    }


def _detectable(samples: _Models | _Methods) -> dict[str, float]:
    """By metric, the difference that the corrected verdict finds with power .8."""
    pilot = _pilot(samples)
    return {
        m: pilot[m][0] * noncentrality(pilot[m][1], POWER, pilot[m][2]) if m in pilot else math.inf
        for m in samples.metrics
    }


def _power_of_safety(samples: _Models | _Methods) -> float:
    """The chance that all guardrails are shown to be safe where none differs, at least: 1 - the sum
    of their chances to fail (Bonferroni).
    """
    from scipy.special import nctdtr, stdtrit

    pilot, means = _pilot(samples), samples.means()
    missed = 0.0
    for m, metric in samples.metrics.items():
        if metric.role == "guardrail" and metric.margin is not None and m in pilot:
            se, df, _ = pilot[m]
            size = 1.0 if isinstance(metric.margin, Absolute) else abs(means[m])
            critical = float(stdtrit(df, samples.rule.level))
            missed += float(nctdtr(df, metric.margin * size / se, critical))
    return max(1.0 - missed, 0.0)


class _Tally:
    """The decisions on many samples of one truth."""

    def __init__(self, samples: _Models | _Methods, truth: PlantedTruth) -> None:
        self._samples, self._truth = samples, truth
        self._answers: list[tuple[str, ...]] = []

    def add(self, decision: Decision) -> None:
        self._answers.append(tuple(one.answer for one in decision.arms))

    def rows(self) -> Iterator[AuditedDecision]:
        """Of equal arms one row for the test, else one for each arm."""
        samples, truth = self._samples, self._truth
        answers = np.array(self._answers)
        if truth.truth == "equal":
            shipped = (answers == "ship").any(axis=1)
            dropped = (answers == "drop").all(axis=1)
            yield self._row(ANY, shipped, dropped, _better_by_chance(samples.rule))
            return
        promise = samples.rule.alpha
        if truth.truth == "better":
            harm = chance_of_false_harm(samples.metrics, truth.metric, samples.rule)
            promise = max(POWER - (1.0 - _power_of_safety(samples)) - harm, 0.0)
        for place, arm in enumerate(samples.treatments):
            own = answers[:, place]
            yield self._row(arm, own == "ship", own == "drop", promise)

    def _row(
        self,
        arm: str,
        shipped: npt.NDArray[np.bool_],
        dropped: npt.NDArray[np.bool_],
        promise: float,
    ) -> AuditedDecision:
        samples, truth, total = self._samples, self._truth, len(shipped)
        ship, hold, drop = (
            Rate.of(int(np.count_nonzero(one)), total)
            for one in (shipped, ~(shipped | dropped), dropped)
        )
        return AuditedDecision(
            truth.truth,
            truth.metric,
            arm,
            samples.on,
            samples.assignment,
            samples.fits,
            samples.n,
            total,
            truth.lift,
            ship,
            hold,
            drop,
            promise,
            truth.truth == "better",
        )
