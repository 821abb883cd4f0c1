"""The audit of the verdict on methods: a crossed run knows what every user does with every fit, so
fits of the *same* method can be given to two arms, and how often they are called different can be
counted.

Each repetition draws users and fits from the run with replacement: the run's are the population.
Under the *null* both arms have fits of one method, drawn independently; under the *effect* each arm
has its own, and the true lift of the methods is known. The tables that come out are those of a run
with a few fits, and the very functions of its report are called on them (`stats.methods`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import Progress
from policies.products import matmul
from simulator.stats import intervals, moments, tests
from simulator.stats.analyses import is_asked
from simulator.stats.intervals import Side
from simulator.stats.methods import FitTables
from simulator.stats.moments import Floats, Moments
from simulator.stats.randomise import ROOM, Rate
from simulator.stats.replication import Dealing, Replicated
from simulator.stats.rule import STANDARD, OneTest, Rule
from simulator.stats.unit_table import UnitTable, mean_table
from simulator.stats.user_days import UserDays

Indices = npt.NDArray[np.int64]
DEALINGS: tuple[Dealing, ...] = ("divided", "crossed")

FITS = (3, 5, 10)
"""Fits of an arm in a sample, unless asked otherwise."""

REPETITIONS = 1000
"""Samples of each kind, unless asked otherwise: each is a small report, and takes a few ms."""

SIDES = ("control", "treatment")
"""The arms of a sample."""


class Assignment(StrEnum):
    """Who is in which arm of a sample."""

    PAIRED = "paired"
    """Twins: every user is in both."""
    SPLIT = "split"
    """Every user is in one of the two, by a coin."""


def name_of(assignment: Assignment, dealing: Dealing, n_fits: int) -> str:
    """The name of an analysis, as printed."""
    return f"methods, {assignment}, {n_fits} fits {dealing}"


@dataclass(frozen=True)
class AuditedMethods:
    """What the verdict on methods does to one metric with so many fits.

    Attributes:
        metric, arm: whose fits both arms have under the null; what the control is compared with
            under the effect.
        assignment: who is in which arm.
        dealing: users are `divided` over fits, or `crossed` with them.
        n_fits: fits of each arm in a sample.
        n: users in a sample.
        repetitions: how many samples.
        error: share of samples in which fits of one method are called different.
        models_error: the same of the verdict on these models, read as if it spoke of the methods.
        between_fits: standard error of `error` from the choice of the run's fits, by the jackknife
            over fits: what another run's fits would show beside the Monte-Carlo error. 0 where
            it cannot be told from that.
        power, coverage: share of samples of the effect in which the methods are called different,
            and whose interval holds the true lift; NaN for fits of the control, and where the
            control is all that there is.
        lift: the true lift of the methods: of all fits and users of the run.
        undefined: share of samples of the null in which nothing could be said.
        level, alternative: of the intervals, and of which differences the tests ask.
    """

    metric: str
    arm: str
    assignment: Assignment
    dealing: Dealing
    n_fits: int
    n: int
    repetitions: int
    error: Rate
    models_error: Rate
    between_fits: float
    power: Rate
    coverage: Rate
    lift: float
    undefined: float
    level: float = STANDARD.level
    alternative: Side = "two-sided"

    @property
    def analysis(self) -> str:
        """Its name, as printed."""
        return name_of(self.assignment, self.dealing, self.n_fits)

    @property
    def holds(self) -> bool:
        """No more false positives and no less coverage than the level says, within three standard
        errors of Monte Carlo and of the choice of fits. With few fits the verdict may be cautious.
        """
        return self.undefined == 1.0 or not self.faults

    @property
    def faults(self) -> list[str]:
        """What is not as promised, in words."""
        error, coverage, of_fits = self.error, self.coverage, self.between_fits
        level, alpha, wrong = self.level, 1 - self.level, []
        if error.value > alpha and not error.near(alpha, self.repetitions, of_fits):
            wrong.append(f"false positives {error.value:.1%} instead of {100 * alpha:.4g}%")
        if coverage.value < level and not coverage.near(level, self.repetitions, of_fits):
            wrong.append(f"coverage {coverage.value:.1%} instead of {100 * level:.4g}%")
        return wrong

    @property
    def warning(self) -> str | None:
        """What the report must say, or None."""
        if self.holds:
            return None
        return f"{self.metric}, {self.analysis}, {self.n} users: {', '.join(self.faults)}"


class FitPopulation:
    """What every user of a run does with every fit."""

    def __init__(self, days: UserDays) -> None:
        tables = [life.by("user") for life in days.lives]
        first = tables[0]
        self.arms, self.metrics = first.arms, {m: first.metrics[m] for m in first.numerators}
        self.n_users, self.n_fits = days.n_users, len(tables)
        self.top = {
            m: np.stack([t.numerators[m] for t in tables], dtype=np.float64) for m in self.metrics
        }
        self.bottom = {
            m: np.stack([t.denominators[m] for t in tables], dtype=np.float64)
            for m in first.denominators
        }

    def mean(self, metric: str, arm: str) -> float:
        """The true mean (or ratio) of a method: over all fits and users."""
        place = self.arms.index(arm)
        mean = self.top[metric][:, place].mean()
        return float(mean / self.bottom[metric][:, place].mean() if metric in self.bottom else mean)

    def lift(self, metric: str, control: str, arm: str) -> float:
        """The true lift of a method."""
        return float(moments.relative(*(self.mean(metric, one) for one in (control, arm))))


@dataclass(frozen=True)
class FitSample:
    """Users and fits that were drawn, and who lives with what.

    Attributes:
        population: which they were drawn from.
        users: `[n]`.
        fits: of each arm `[2, n_fits]`.
        slot: with which of an arm's fits a user lives `[n]`; None where with every one.
        assigned: in which arm a user is `[n]`; None where in both.
    """

    population: FitPopulation
    users: Indices
    fits: Indices
    slot: Indices | None
    assigned: Indices | None

    def tables(self, arms: tuple[str, str], fits: Indices) -> FitTables:
        """The tables of a run in which two arms had the `fits` `[2, n_fits]` of the methods of
        `arms`.
        """
        if self.slot is not None:
            pooled = self._table(arms, fits[:, self.slot])
            each = [pooled.where(self.slot == f) for f in range(fits.shape[1])]
            return FitTables(pooled, each, crossed=False)
        each = [self._table(arms, fits[:, [f]]) for f in range(fits.shape[1])]
        return FitTables(mean_table(each), each, crossed=True)

    def _table(self, arms: tuple[str, str], fits: Indices) -> UnitTable:
        """What users do in both arms with the `fits` `[2, n or 1]`."""
        people = self.population
        sides = [(fit, people.arms.index(arm)) for fit, arm in zip(fits, arms, strict=True)]

        def sums(of: Mapping[str, Floats]) -> dict[str, Floats]:
            answers = {m: [v[fit, arm, self.users] for fit, arm in sides] for m, v in of.items()}
            return {metric: self._seen(both) for metric, both in answers.items()}

        return UnitTable(
            "user", SIDES, people.metrics, sums(people.top), sums(people.bottom), self.assigned
        )

    def _seen(self, answers: Sequence[Floats]) -> Floats:
        """Both answers of each user `[2, n]`, or the one that is seen `[n]`."""
        if self.assigned is None:
            return np.stack(answers)
        return np.where(self.assigned == 0, *answers)


@dataclass
class _Verdicts:
    """Both verdicts on one metric in many samples."""

    models: list[Moments] = field(default_factory=list)
    methods: list[Moments] = field(default_factory=list)

    def add(self, result: Replicated) -> None:
        assert result.methods is not None
        self.models.append(result.models)
        self.methods.append(result.methods)


def audited_arms(days: UserDays, sizes: Sequence[int] = FITS) -> tuple[str, ...]:
    """Arms whose method can be audited: trained often enough for the smallest of `sizes`, in a log
    of twins who live with every fit.
    """
    if not days.lives or days.assigned is not None or days.switched is not None:
        return ()
    often = min(sizes) * ROOM
    return tuple(
        arm
        for arm, number in zip(days.arms, days.fits, strict=True)
        if number >= often and arm not in days.fitted_once
    )


def why_not(days: UserDays, sizes: Sequence[int] = FITS) -> str:
    """Why the verdict on methods of a run cannot be audited, and what to do about it; "" where it
    can be.
    """
    most, least = max(days.fits, default=1), ROOM * min(sizes)
    learned = [arm for arm in days.arms if arm not in days.fitted_once]
    remedy = f"Run the scenario with `fits: {{number: {least}, design: crossed}}` or more."
    if not learned:
        return (
            "The policies of this run draw nothing in training, so that their models are their"
            " methods."
        )
    if most < 2:
        return (
            "This run has one fit of each policy: of one that draws in training it is not known"
            f" what another training would bring. {remedy}"
        )
    if not days.lives:
        return (
            f"The users of this run are divided over its {most} fits, so that nobody has lived with"
            f" two fits of a method. {remedy}"
        )
    if most < least:
        return (
            f"Samples of {min(sizes)} fits are drawn from {least} or more, and this run has"
            f" {most}. {remedy}"
        )
    return ""


def is_methods_asked(analyses: Sequence[str], sizes: Sequence[int] = FITS) -> bool:
    """Whether some of the verdicts on methods have one of these in their names."""
    kinds = product(Assignment, DEALINGS, sizes)
    return any(is_asked(name_of(*kind), analyses) for kind in kinds)


def fit_audit(
    days: UserDays,
    control: str,
    *,
    arms: Sequence[str] = (),
    repetitions: int = REPETITIONS,
    sizes: Sequence[int] = FITS,
    n: int = 1000,
    seed: int = 0,
    analyses: Sequence[str] = (),
    rule: Rule = STANDARD,
    progress: Progress | None = None,
) -> tuple[AuditedMethods, ...]:
    """Count how often the verdict on methods errs, for twins and split users, divided over fits and
    crossed with them.

    Args:
        days: of a paired log whose users live with every fit.
        control: name of the control arm, against which the effect is.
        arms: whose fits are drawn; () for all that can be audited.
        repetitions: samples of each kind.
        sizes: fits of an arm in a sample. A size is left out where the run has fewer than ROOM
            fits for each: a handful is no population to draw from.
        n: users in a sample.
        seed: decides the samples.
        analyses: count only those whose name has one of these in it.
        rule: level and alternative of every test.
        progress: called as ("methods", samples done, samples, {}).
    """
    own = [arm for arm in audited_arms(days, sizes) if not arms or arm in arms]
    if not own:
        return ()
    people = FitPopulation(days)
    kinds = [
        (arm, size, dealing, assignment)
        for arm, size, dealing, assignment in product(own, sizes, DEALINGS, Assignment)
        if size * ROOM <= people.n_fits and is_asked(name_of(assignment, dealing, size), analyses)
    ]
    rows: list[AuditedMethods] = []
    for done, (arm, size, dealing, assignment) in enumerate(kinds):
        null = {metric: _Verdicts() for metric in people.metrics}
        effect = {metric: _Verdicts() for metric in people.metrics if arm != control}
        absent = np.ones((repetitions, people.n_fits), dtype=bool)
        generator = np.random.default_rng([seed, size, n])
        for r in range(repetitions):
            sample = draw_sample(people, generator, size, n, dealing, assignment)
            absent[r, sample.fits.ravel()] = False
            _count(sample.tables((arm, arm), sample.fits), null)
            # A run trains fit f of every arm with the same seed, so that these stay together.
            _count(sample.tables((control, arm), sample.fits[[0, 0]]), effect)
            if progress is not None:
                progress("methods", done * repetitions + r + 1, len(kinds) * repetitions, {})
        rows += [
            _row(
                metric,
                arm,
                (assignment, dealing, size, n),
                null[metric],
                effect.get(metric),
                people.lift(metric, control, arm),
                absent,
                rule.test(people.metrics[metric]),
            )
            for metric in people.metrics
        ]
    return tuple(rows)


def draw_sample(
    people: FitPopulation,
    generator: np.random.Generator,
    size: int,
    n: int,
    dealing: Dealing,
    assignment: Assignment,
) -> FitSample:
    """Users and fits with replacement; the fit of a user, and the arm of one, by chance."""
    users = generator.integers(0, people.n_users, n)
    fits = generator.integers(0, people.n_fits, (2, size))
    slot, coin = generator.integers(0, size, n), generator.integers(0, 2, n)
    return FitSample(
        people,
        users,
        fits,
        slot if dealing == "divided" else None,
        coin if assignment is Assignment.SPLIT else None,
    )


def _count(tables: FitTables, tallies: Mapping[str, _Verdicts]) -> None:
    for metric, tally in tallies.items():
        tally.add(tables.replicated(metric, *SIDES))


def _row(
    metric: str,
    arm: str,
    kind: tuple[Assignment, Dealing, int, int],
    null: _Verdicts,
    effect: _Verdicts | None,
    lift: float,
    absent: npt.NDArray[np.bool_],
    test: OneTest,
) -> AuditedMethods:
    assignment, dealing, size, n = kind
    total = len(absent)
    rejected, of_models = (_rejected(m, test) for m in (null.methods, null.models))
    power, coverage = Rate.of(0, 0), Rate.of(0, 0)
    if effect is not None:
        ends = intervals.fieller(_stacked(effect.methods), test.two_sided_level)
        low, high = intervals.opened(ends, test.side)
        power = Rate.of(int(np.count_nonzero(_rejected(effect.methods, test))), total)
        coverage = Rate.of(int(np.count_nonzero((low <= lift) & (lift <= high))), total)
    undefined = np.count_nonzero(np.isnan(tests.t_test(_stacked(null.methods)).p)) / total
    return AuditedMethods(
        metric=metric,
        arm=arm,
        assignment=assignment,
        dealing=dealing,
        n_fits=size,
        n=n,
        repetitions=total,
        error=Rate.of(int(np.count_nonzero(rejected)), total),
        models_error=Rate.of(int(np.count_nonzero(of_models)), total),
        between_fits=between_fits(rejected, absent),
        power=power,
        coverage=coverage,
        lift=lift if effect is not None else np.nan,
        undefined=undefined,
        level=test.level,
        alternative=test.side,
    )


def _stacked(many: Sequence[Moments]) -> Moments:
    """One `Moments` of arrays."""
    columns = {f.name: [getattr(m, f.name) for m in many] for f in fields(Moments)}
    figures: dict[str, Any] = {
        name: np.array(column)
        for name, column in columns.items()
        if not isinstance(column[0], bool | str)
    }
    return replace(many[0], **figures)


def _rejected(many: Sequence[Moments], test: OneTest) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(tests.t_test(_stacked(many), test.side).p < test.alpha)


def between_fits(counted: npt.NDArray[np.bool_], absent: npt.NDArray[np.bool_]) -> float:
    """Standard error of a share of samples from the choice of the fits that they were drawn from,
    less what Monte Carlo brings; 0 where that is all.

    The samples that fit k is absent from are samples from the other fits, so the jackknife over
    fits needs no further ones (Efron, "Jackknife-after-bootstrap standard errors and influence
    functions", JRSS B 1992). With so few samples each its variance is too large by Monte Carlo,
    which is taken off (Wager, Hastie & Efron, "Confidence intervals for random forests", JMLR
    2014).

    Args:
        counted: whether a sample is counted `[R]`.
        absent: whether a fit is absent from a sample `[R, K]`.
    """
    n, (total, k) = absent.sum(axis=0), absent.shape
    if (n == 0).any():
        return float("nan")
    shares = matmul(counted[None].astype(np.float64), absent.astype(np.float64))[0] / n
    share = counted.mean()
    spread = np.square(shares - shares.mean()).sum()
    noise = share * (1.0 - share) * (1.0 / n - 1.0 / total).sum()
    return float(np.sqrt(max(spread - noise, 0.0) * (k - 1) / k))
