"""The audit: a paired run knows both answers of every user, so the error rates of every analysis
that we print can be counted.

Each repetition draws users from the run with replacement (the run's users are the population) and a
coin for each decides what it is given. Under the *null* both arms answer alike; under the *effect*
each answers as it did, and the true lift is known. Here is only counting: the analyses are those of
`simulator.stats`, called on many samples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policies.base import Progress
from simulator.stats import decision_audit as of_decisions
from simulator.stats import intervals, moments
from simulator.stats.analyses import (
    ANALYSES,
    SHARES,
    Analysis,
    Reading,
    Sampling,
    is_asked,
    predicted,
    resampled,
)
from simulator.stats.decision_audit import AuditedDecision, decision_audit
from simulator.stats.fit_audit import (
    FITS,
    REPETITIONS,
    AuditedMethods,
    fit_audit,
    is_methods_asked,
    why_not,
)
from simulator.stats.intervals import Side
from simulator.stats.keyed_audit import rerandomised
from simulator.stats.keyed_draws import KEYED
from simulator.stats.looking import Looking, looking
from simulator.stats.moments import Floats
from simulator.stats.randomise import ROOM, Outcomes, Rate, draws, outcomes, population
from simulator.stats.rule import STANDARD, OneTest, Rule
from simulator.stats.unit_table import TableError
from simulator.stats.user_days import UserDays
from simulator.stats.wrong import Wrong, wrong_analyses

OF_ALL = 1000
"""Samples of all users of a big run."""

MOST = 2000
"""Users of the run that samples are drawn from; more cost time and show nothing new."""

LEAST_USERS = 20
"""Of fewer users most samples hold each several times, and every test seems to hold."""

DECISION = "decision"
"""The name of the decision among the analyses."""

PLANTED = 0.005
"""The true lift that is planted, to see it recovered."""


@dataclass(frozen=True)
class AuditedAnalysis:
    """What one analysis does to one metric at one sample size.

    Attributes:
        metric, arm: what is compared with the control.
        design: `paired` (twins), `split` (each user in one arm) or `day` (paired by day, all users
            in both arms).
        analysis: the test or interval.
        n: users in the sample.
        repetitions: how many samples.
        error: type-I error: share of rejections when both arms answer alike.
        power: share of rejections when each arm answers as it did.
        coverage: share of intervals that hold the true lift.
        bias: mean estimated lift less the true lift.
        bias_error: Monte-Carlo standard error of `bias`.
        lift: the true lift of the population.
        undefined: share of samples in which the analysis could not say anything (no variance, no
            events).
        events: mean number of users with a non-zero value in the sample's control arm.
        default: whether the verdict rests on it.
        level: of the intervals; a test rejects at what is left.
        alternative: of which differences the tests ask; ranks and resampling of both signs.
    """

    metric: str
    arm: str
    design: Sampling
    analysis: str
    n: int
    repetitions: int
    error: Rate
    power: Rate
    coverage: Rate
    bias: float
    bias_error: float
    lift: float
    undefined: float
    events: float
    default: bool
    level: float = STANDARD.level
    alternative: Side = "two-sided"

    @property
    def holds(self) -> bool:
        """Type-I error and coverage are nominal within three Monte-Carlo standard errors (or the
        arms are identical).
        """
        return self.undefined == 1.0 or (
            self.error.near(1 - self.level, self.repetitions)
            and self.coverage.near(self.level, self.repetitions)
        )

    @property
    def warning(self) -> str | None:
        """What the report must say of this analysis at this size, or None."""
        if self.holds:
            return None
        parts = []
        if not self.error.near(1 - self.level, self.repetitions):
            parts.append(
                f"false positives {self.error.value:.1%} instead of {100 * (1 - self.level):.4g}%"
            )
        if not self.coverage.near(self.level, self.repetitions):
            parts.append(f"coverage {self.coverage.value:.1%} instead of {100 * self.level:.4g}%")
        rare = ""
        if self.events < 100:
            rare = f" (only about {self.events:.0f} users with events an arm)"
        return f"{self.metric}, {self.analysis}, {self.n} users: {', '.join(parts)}{rare}"


@dataclass(frozen=True)
class Planted:
    """A lift of known size, planted on the control's own answers and measured.

    Attributes:
        metric: the metric.
        design: `paired` or `split`.
        n: users in each sample.
        planted: the true lift.
        mean: mean of the estimated lifts (a ratio of noisy means is biased upwards by the control's
            squared relative error).
        pooled: lift between the means of all samples' means: what is recovered without that bias.
        error: Monte-Carlo standard error of `pooled`.
        coverage: share of intervals that hold `planted`.
        power: share of rejections.
    """

    metric: str
    design: Sampling
    n: int
    planted: float
    mean: float
    pooled: float
    error: float
    coverage: Rate
    power: Rate


@dataclass(frozen=True)
class Audit:
    """The whole audit of a run.

    Attributes:
        control: the arm that the others are compared with.
        repetitions: samples of each size.
        n_users: that samples are drawn from.
        rows, planted, wrong, looking, methods, decisions: what was counted; nothing is planted in
            an arm whose mean is 0.
        without_methods: why nothing was counted of the verdict on methods; "" where it was, and
            where it was not asked for.
        left_out: by reason, metrics whose tests are not counted.
        rule: level and alternative of the tests.
    """

    control: str
    repetitions: int
    n_users: int
    rows: tuple[AuditedAnalysis, ...]
    planted: tuple[Planted, ...]
    wrong: tuple[Wrong, ...]
    looking: tuple[Looking, ...]
    methods: tuple[AuditedMethods, ...] = ()
    decisions: tuple[AuditedDecision, ...] = ()
    without_methods: str = ""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rule: Rule = STANDARD


@dataclass
class _Tally:
    """Counts of one analysis of one metric while the repetitions go by.

    Attributes:
        test: how the metric is tested.
    """

    test: OneTest
    rejected_null: int = 0
    rejected: int = 0
    covered: int = 0
    undefined: int = 0
    total: int = 0
    errors: list[Floats] = field(default_factory=list)
    means: list[tuple[Floats, Floats]] = field(default_factory=list)

    def add(
        self, read: Callable[[Any, OneTest], Reading], made: tuple[Any, Any], lift: float
    ) -> None:
        """Count what an analysis reads from samples of the null and of the effect, whose truth is
        `lift`.
        """
        null, effect = (read(one, self.test) for one in made)
        self.rejected_null += int(np.count_nonzero(null.rejected))
        self.rejected += int(np.count_nonzero(effect.rejected))
        with np.errstate(divide="ignore", invalid="ignore"):
            slack = 1e-9 * (1.0 + abs(lift))
            self.covered += int(
                np.count_nonzero((effect.low - slack <= lift) & (lift <= effect.high + slack))
            )
            error = moments.relative(effect.control, effect.treatment) - lift
        self.undefined += int(np.count_nonzero(~effect.defined))
        self.total += len(effect.rejected)
        self.errors.append(error[np.isfinite(error)])
        self.means.append((effect.control, effect.treatment))

    @property
    def bias(self) -> tuple[float, float]:
        """Mean error of the lift and its Monte-Carlo standard error."""
        error = np.concatenate(self.errors)
        if len(error):
            return (float(error.mean()), float(error.std() / np.sqrt(len(error))))
        return (np.nan, np.nan)

    def row(self, o: Outcomes, a: Analysis, n: int) -> AuditedAnalysis:
        """What samples of `n` of these users came to."""
        events = float((o.control[0] != 0).mean() * (n * SHARES[a.design]))
        lift = float("nan") if a.truth is None else a.truth(a.prepare(o))
        return self.row_of(o.metric, o.arm, a, n, events, lift)

    def row_of(
        self, metric: str, arm: str, a: Analysis, n: int, events: float, lift: float
    ) -> AuditedAnalysis:
        """The same, of users with so many `events` and a true lift."""
        error, power = (Rate.of(count, self.total) for count in (self.rejected_null, self.rejected))
        coverage = Rate.of(self.covered, self.total) if a.truth is not None else Rate.of(0, 0)
        return AuditedAnalysis(
            metric,
            arm,
            a.design,
            a.name,
            n,
            self.total,
            error,
            power,
            coverage,
            *self.bias,
            lift,
            self.undefined / self.total,
            events,
            a.verdict,
            *self.test,
        )


def audit(
    days: UserDays,
    control: str,
    *,
    arms: Sequence[str] = (),
    repetitions: int = 10_000,
    sizes: Sequence[int] = (100, 500, 2000),
    seed: int = 0,
    most: int = MOST,
    resamples: int = 0,
    predictions: int = 0,
    of_all: int = OF_ALL,
    analyses: Sequence[str] = (),
    fits: Sequence[int] = FITS,
    fit_repetitions: int = REPETITIONS,
    decision_repetitions: int = of_decisions.REPETITIONS,
    rule: Rule = STANDARD,
    progress: Progress | None = None,
) -> Audit:
    """Count the error rates of every analysis on a paired run; those of ranks at the largest size
    only, those of quantiles at the largest that leaves ROOM. Where users live with many fits, also
    those of the verdict on methods (`stats.fit_audit`), at the size of the quantiles.

    Args:
        days: sums of the run.
        control: name of the control arm.
        arms: treatment arms; () for all.
        repetitions: samples per size.
        sizes: users in a sample.
        seed: decides the samples, and the users of the population where there are more than `most`.
        most: users of the population that samples are drawn from, which are held in memory.
        resamples: also count permutation tests and BCa intervals, each of so many resamples, on the
            first samples of the largest size.
        of_all: samples of all users of a run that has KEYED or more of them, beside those of
            `sizes`, for the analyses that follow from sums (`stats.keyed_audit`); 0: none.
        predictions: also count the adjustment for predictions, on so many samples of the largest
            size, each with models of its own.
        analyses: count only those whose name has one of these in it, and nothing else (no planted
            lifts, wrong analyses, looks).
        fits: fits of an arm in the samples for the verdict on methods.
        fit_repetitions: how many of these samples of each kind.
        decision_repetitions: samples of each truth under which the decision is counted, where a
            metric is a success (`stats.decision_audit`), at the largest size.
        rule: level and alternative of every test, as a report has them.
        progress: called as ("audit", "methods" or "decisions", samples done, samples, {}).

    Raises:
        TableError: the run is not paired, has one arm, too few users or no data, or there is no
            such analysis.
    """
    _check_size(days, control)
    every = ANALYSES + (resampled(resamples) if resamples else ())
    every += predicted(predictions) if predictions else ()
    counted = tuple(a for a in every if is_asked(a.name, analyses))
    everybody, days = days, days.users(population(days.n_users, most, seed))
    small = max((n for n in sizes if n * ROOM <= days.n_users), default=min(sizes))
    methods = fit_audit(
        days,
        control,
        arms=arms,
        repetitions=fit_repetitions,
        sizes=fits,
        n=small,
        seed=seed,
        analyses=analyses,
        rule=rule,
        progress=progress,
    )
    decided: tuple[AuditedDecision, ...] = ()
    if is_asked(DECISION, analyses):
        decided = decision_audit(
            days,
            control,
            arms=arms,
            repetitions=decision_repetitions,
            n=max(sizes),
            fits=fits,
            fit_n=small,
            seed=seed,
            rule=rule,
            progress=progress,
        )
    is_of_methods = is_methods_asked(analyses, fits)
    without_methods = why_not(days, fits) if is_of_methods and not methods else ""
    if not counted and not methods and not decided:
        if without_methods:
            raise TableError(f"the verdict on methods cannot be audited here. {without_methods}")
        raise TableError(
            f"no analysis is called {' or '.join(map(repr, analyses))}; there are"
            f" {', '.join(repr(a.name) for a in every)}; 'methods', in a run of twins who live with"
            " every fit; and 'decision', in a run with a success metric"
        )
    treatments = tuple(arms) or tuple(a for a in days.arms if a != control)
    names = [m for m, one in days.metrics.items() if m not in days.missing and not one.is_figure]
    both = [outcomes(days, control, arm, m) for arm in treatments for m in names]
    left_out = {
        "a quantile or a figure of choice": tuple(
            m for m, one in days.metrics.items() if one.is_figure
        ),
        "no data": tuple(m for m in days.missing if not days.metrics[m].is_figure),
        "no relative lift, for the control's mean is 0, or a ratio divides by nothing": tuple(
            dict.fromkeys(o.metric for o in both if not np.isfinite(o.lift))
        ),
    }
    both = [o for o in both if np.isfinite(o.lift)]
    rows: list[AuditedAnalysis] = []
    planted: list[Planted] = []
    done, last = 0, max(sizes)
    for n in sizes if counted else ():
        counts = {
            (o.arm, o.metric, a.name): _Tally(rule.test(days.metrics[o.metric]))
            for o in both
            for a in counted
            if a.fits(o, n) and (not a.slow or n == (small if a.smooth else last))
        }
        plants = {
            (o.arm, o.metric, a.name): _Tally(rule.test(days.metrics[o.metric]))
            for o in both
            for a in counted
            # An arm that had nothing of a metric cannot be scaled to a lift.
            if a.name in PLANTS and n == last and not analyses and o.means[1] != 0
        }
        for heads, tails in draws(days.n_users, n, repetitions, seed):
            for o in both:
                _count(o, heads, tails, counted, counts)
                for a in counted:
                    if (o.arm, o.metric, a.name) in plants:
                        tally = plants[o.arm, o.metric, a.name]
                        made = a.make(o.planted(PLANTED), heads, tails)
                        tally.add(a.read, made, PLANTED)
            done += len(heads)
            if progress is not None:
                progress("audit", done, repetitions * len(sizes), {})
        rows += [
            counts[o.arm, o.metric, a.name].row(o, a, n)
            for o in both
            for a in counted
            if (o.arm, o.metric, a.name) in counts
        ]
        planted += [
            _planted(o.metric, a, n, plants[o.arm, o.metric, a.name])
            for o in both
            for a in counted
            if (o.arm, o.metric, a.name) in plants
        ]
    if of_all and everybody.n_users >= KEYED:
        rows += _of_all(
            everybody, control, treatments, names, counted, of_all, seed, rule, progress
        )
    alpha = rule.alpha
    wrong = () if analyses else wrong_analyses(days, control, repetitions, seed, alpha)
    looks = () if analyses else looking(days, control, repetitions, seed, alpha)
    found = tuple(rows), tuple(planted), wrong, looks, methods, decided, without_methods
    said = {why: names for why, names in left_out.items() if names and counted}
    return Audit(control, repetitions, days.n_users, *found, said, rule)


def _of_all(
    days: UserDays,
    control: str,
    treatments: Sequence[str],
    names: Sequence[str],
    analyses: Sequence[Analysis],
    repetitions: int,
    seed: int,
    rule: Rule,
    progress: Progress | None,
) -> list[AuditedAnalysis]:
    """The rows of samples of all users."""
    some = [a for a in analyses if a.sums is not None]
    compared = rerandomised(
        days.by("user"),
        control,
        treatments,
        names,
        repetitions=repetitions,
        seed=seed,
        progress=progress,
    )
    rows = []
    for one in compared if some else ():
        for a in some:
            if a.sums is None or not np.isfinite(one.lift):
                continue
            if a.sums == "adjusted" and not one.has_past:
                continue
            tally = _Tally(rule.test(days.metrics[one.metric]))
            tally.add(a.read, one.pair(a.sums), one.lift)
            events = one.events * days.n_users * SHARES[a.design]
            rows.append(tally.row_of(one.metric, one.arm, a, days.n_users, events, one.lift))
    return rows


def _check_size(days: UserDays, control: str) -> None:
    """Refuse a run of which nothing can be audited.

    Raises:
        TableError: one arm, or fewer than LEAST_USERS users.
    """
    if not any(arm != control for arm in days.arms):
        raise TableError(
            f"an audit compares arms with the control {control!r}; this run has no other arm"
        )
    if days.n_users < LEAST_USERS:
        raise TableError(
            f"an audit draws samples of a run's users, and takes {LEAST_USERS} of them or more;"
            f" this run has {days.n_users}"
        )


PLANTS = ("paired t, Fieller", "Welch t, Fieller")
"""The analyses that a planted lift is measured by."""

Key = tuple[str, str, str]


def _count(
    o: Outcomes,
    heads: Floats,
    tails: Floats,
    analyses: Sequence[Analysis],
    counts: Mapping[Key, _Tally],
) -> None:
    """Add one chunk of samples to the tallies of one metric; analyses of the same samples share
    them.
    """
    made: dict[Any, tuple[Any, Any]] = {}
    for a in analyses:
        tally = counts.get((o.arm, o.metric, a.name))
        if tally is None or (a.samples and tally.total >= a.samples):
            continue
        prepared = a.prepare(o)
        key = (a.make, a.prepare)
        if key not in made:
            some = slice(a.samples - tally.total if a.samples else None)
            made[key] = a.make(prepared, heads[some], tails[some])
        truth = a.truth(prepared) if a.truth is not None else float("nan")
        tally.add(a.read, made[key], truth)


def _planted(metric: str, a: Analysis, n: int, tally: _Tally) -> Planted:
    bias, _ = tally.bias
    control, treatment = (np.concatenate(parts) for parts in zip(*tally.means, strict=True))
    finite = np.isfinite(control) & np.isfinite(treatment)
    pooled = moments.paired(control[finite], treatment[finite])
    error = float(np.sqrt(np.maximum(intervals.lift_variance(pooled), 0.0)))
    coverage, power = Rate.of(tally.covered, tally.total), Rate.of(tally.rejected, tally.total)
    return Planted(
        metric, a.design, n, PLANTED, PLANTED + bias, float(pooled.lift), error, coverage, power
    )
