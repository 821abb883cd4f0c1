"""What a report says, as types: `Content` is one report, whole, and every part of it has a name.

Every rendering (terminal, JSON, Markdown, HTML) shows a `Content` and adds nothing to it. What
statistics has as a type stands here as it is. A number that is not defined is NaN (or infinite, an
open end of an interval) in these types, and null in report.json (`simulator.report.stored`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from simulator.designs.registry import DESIGNS
from simulator.log.metrics import ROLES, MetricRole
from simulator.page.display import as_html
from simulator.report.catalogues import Catalogues
from simulator.stats.checks import Check, Status
from simulator.stats.choices import Choices
from simulator.stats.decision import Decision
from simulator.stats.decision_audit import AuditedDecision
from simulator.stats.efficiency import Preference
from simulator.stats.ensemble import WorldsLift
from simulator.stats.fit_audit import AuditedMethods
from simulator.stats.fit_checks import FitFigure
from simulator.stats.looking import Looking
from simulator.stats.margins import Margin
from simulator.stats.methods import MethodLift
from simulator.stats.randomise import Rate
from simulator.stats.rule import STANDARD, Rule
from simulator.stats.segments import Interaction, Segment
from simulator.stats.sensitivity import Influence
from simulator.stats.sequential import Peeks
from simulator.stats.supply import Level
from simulator.stats.unit_table import Unit, Use
from simulator.stats.verdict import FAMILY, Lift
from simulator.stats.winners import Winner
from simulator.stats.wrong import Wrong
from simulator.users.learned.support import Support

SCHEMA_VERSION = 2

Agreement = Literal["same sign", "opposite", "identical", "undecided"]

Users = dict[str, int | None]
"""Users needed, by design; None: no number of users suffices."""


@dataclass(frozen=True)
class Verdict:
    """What a row of `lifts` says.

    Attributes:
        metric, arm, unit: those of the row.
        verdict: `Lift.words`.
        sentence: the row in plain words.
    """

    metric: str
    arm: str
    unit: Unit
    verdict: str
    sentence: str


@dataclass(frozen=True)
class Headline:
    """The sentence that sums an arm up."""

    arm: str
    sentence: str


@dataclass(frozen=True)
class BoundedMargin(Margin):
    """The answer to a margin, with its sentence."""

    sentence: str = ""


@dataclass(frozen=True)
class Method:
    """What is known of the method of an arm against the control's, apart from their models.

    Attributes:
        arm: the arm.
        fits: how often it was trained.
        unknown: why nothing is known, in words; None where it is.
        rows: by metric; () where nothing is known.
        margins: the answers of the method to guardrails and equivalences.
    """

    arm: str
    fits: int
    unknown: str | None
    rows: tuple[MethodLift, ...] = ()
    margins: tuple[BoundedMargin, ...] = ()


@dataclass(frozen=True)
class MetricNote:
    """What a metric is: the fields of `log.metrics.Metric` that a reader needs; `covariates` are
    the columns that its lifts are adjusted for.
    """

    description: str
    measure: str
    higher_is_better: bool | None
    known_by: Literal["", "name", "declared"] = ""
    role: MetricRole = "exploratory"
    margin: float | None = None
    covariates: tuple[str, ...] = ()
    winsorise: float = 0.0
    quantile: float | None = None


@dataclass(frozen=True)
class PairLift:
    """The lift of an arm over another one, `over`, of the comparison of all pairs."""

    over: str
    row: Lift


@dataclass(frozen=True)
class Beside:
    """The same rows computed in another way, under a title."""

    title: str
    rows: tuple[Lift, ...]


@dataclass(frozen=True)
class AdjustmentGain:
    """What an adjustment makes of a comparison.

    Attributes:
        metric, arm: of what.
        by: `CUPED` (the pre-period) or `predictions` (of what users do, by a model).
        width: standard error of the difference with it, as a share of that without.
        users: how many more users, as a share, would make the comparison as precise without it.
    """

    metric: str
    arm: str
    by: Literal["CUPED", "predictions"]
    width: float
    users: float


@dataclass(frozen=True)
class Size:
    """How much there is; None: only a log can tell."""

    users: int
    items: int | None = None
    days: int | None = None
    impressions: int | None = None
    clusters: int | None = None


@dataclass(frozen=True)
class DailyLift:
    """The lift by user of one day alone; `day` counts from 0, the rest is as in `Lift`."""

    day: int
    metric: str
    arm: str
    control_mean: float
    treatment_mean: float
    lift: float
    low: float
    high: float
    p: float
    n_units: int

    @classmethod
    def of(cls, day: int, row: Lift) -> DailyLift:
        return cls(
            day,
            row.metric,
            row.arm,
            row.control_mean,
            row.treatment_mean,
            row.lift,
            row.low,
            row.high,
            row.p,
            row.n_units,
        )


@dataclass(frozen=True)
class Distribution:
    """How a metric is spread over the units of an arm: a unit's sum, or its own ratio.

    Attributes:
        metric, arm: of what.
        n: units; of a ratio metric those that have a denominator.
        mean: of the units' values.
        zeros: share of the units whose value is 0.
        quantiles: at `spread.QUANTILES`.
        max: the largest value.
    """

    metric: str
    arm: str
    n: int
    mean: float
    zeros: float
    quantiles: tuple[float, ...]
    max: float


@dataclass(frozen=True)
class Segments:
    """Lifts in groups of users known before the test, the tests of whether they differ, and the
    warning that belongs beside them.
    """

    warning: str
    rows: tuple[Segment, ...]
    interactions: tuple[Interaction, ...]


@dataclass(frozen=True)
class Alternative:
    """One comparison computed by one method. A figure that the method does not give is None, one
    that it could not compute is NaN; `note` says why.
    """

    metric: str
    arm: str
    method: str
    lift: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Step:
    """A step of the funnel with its count in each arm."""

    step: str
    counts: Mapping[str, float]


@dataclass(frozen=True)
class Channels:
    """Share of the impressions that each recall channel brought, by arm, in the order of `names`
    (the tested policy first).
    """

    names: tuple[str, ...]
    shares: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class WorldMarginal:
    """A marginal of the world beside its target (`calibration.targets.TargetRow`); `feed` is None
    for a world fitted to a log.
    """

    feed: str | None
    name: str
    target: float
    simulated: float
    se: float
    ratio: float
    within: bool


@dataclass(frozen=True)
class Calibration:
    """How far the world of a log is from real users.

    Attributes:
        basis: on what it was measured, in words; "" where no targets are named.
        tolerance: relative: how far a marginal may be from its target.
        rows: the marginals.
    """

    basis: str
    tolerance: float
    rows: tuple[WorldMarginal, ...]


@dataclass(frozen=True)
class PublishedLift:
    """A published lift beside ours by user.

    Attributes:
        metric, arm: of what.
        published: the published lift.
        lift, low, high: ours, with its 95% interval.
        inside: whether the published lift lies within our interval; None where we have none.
        users: how many this run's design needs to show the published lift.
    """

    metric: str
    arm: str
    published: float
    lift: float
    low: float
    high: float
    inside: bool | None
    users: int | None


@dataclass(frozen=True)
class Need:
    """Users that each design needs to find `lift` four times in five; `published`: whether it is
    the published lift.
    """

    metric: str
    arm: str
    lift: float
    published: bool
    users: Users

    @property
    def notes(self) -> dict[str, str]:
        """Nothing is to be known of a need by design (`DesignNeed`)."""
        return {}


@dataclass(frozen=True)
class DesignNeed:
    """Users that each design needs to find what was found here: a lift, or with interleaving a
    relative difference of credits; `notes`: what to know of a design's figure.
    """

    metric: str
    arm: str
    lift: float
    users: Users
    notes: Mapping[str, str]


@dataclass(frozen=True)
class HeadlineEstimate:
    """The headline estimate of a policy that was replayed on the log of a run.

    Attributes:
        policy: its name.
        verdict: `trustworthy`, `weak` or `unusable`; None: not judged.
        reasons: of the verdict.
        estimator: that made it.
        value, low, high: per impression, with its 95% interval.
        reward: the metric.
        logged: the logging policy's own value.
        arm: the arm that the policy is; None where it is none.
        online: that arm's lift in the metric.
    """

    policy: str
    verdict: str | None
    reasons: tuple[str, ...]
    estimator: str
    value: float | None
    low: float | None
    high: float | None
    reward: str
    logged: float | None
    arm: str | None
    online: float | None


@dataclass(frozen=True)
class OfflineFigure:
    """An offline figure of an arm, and how well such figures foretell the online lift.

    Attributes:
        figure: its name (hit rate, NDCG, an off-policy estimate on held-out days).
        reward: the metric of the online lift.
        arm: the arm.
        value, control: the arm's value and the control's.
        online: the arm's true lift there.
        rho: rank correlation of the figure with the online lift over all policies.
        ordered: share of pairs of policies that the figure puts in the right order.
    """

    figure: str
    reward: str
    arm: str
    value: float | None
    control: float | None
    online: float | None
    rho: float | None
    ordered: float | None


@dataclass(frozen=True)
class AuditRow:
    """What one analysis does to one metric at one sample size (`stats.audit.AuditedAnalysis`)."""

    metric: str
    arm: str
    analysis: str
    n: int
    error: Rate
    power: Rate
    coverage: Rate
    bias: float
    lift: float
    holds: bool
    repetitions: int = 0


@dataclass(frozen=True)
class AuditBeside:
    """Of the analyses printed beside the verdict: how many rows hold, of how many, and the warnings
    of the others.
    """

    held: int
    of: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ErrorsByDay:
    """Least and greatest false positives and coverage of the table by day."""

    error: tuple[float, ...]
    coverage: tuple[float, ...]


@dataclass(frozen=True)
class AuditSummary:
    """The audit of a run in short.

    Attributes:
        repetitions, n_users: samples of each size, and the users that they were drawn from.
        wrong: the usual wrong analyses.
        looking: the rules for looking every day.
        rows: what the verdict rests on, at every size.
        warnings: of these rows.
        by_day: of the table by day; None where it was not audited.
        beside: what is printed beside the verdict.
        methods: the verdict on methods; empty where it was not audited.
        decisions: how often the rule ships; empty where no metric is a success.
        rule: level and alternative of the tests that were counted.
    """

    repetitions: int
    n_users: int
    wrong: tuple[Wrong, ...]
    looking: tuple[Looking, ...]
    rows: tuple[AuditRow, ...]
    warnings: tuple[str, ...]
    by_day: ErrorsByDay | None
    beside: AuditBeside
    methods: tuple[AuditedMethods, ...] = ()
    decisions: tuple[AuditedDecision, ...] = ()
    rule: Rule = STANDARD


@dataclass(frozen=True)
class LiftInterval:
    """A lift with its 95% interval."""

    lift: float
    low: float
    high: float


@dataclass(frozen=True)
class DecidedLift(LiftInterval):
    """A lift with its interval and its verdict.

    Attributes:
        verdict: after correction.
        low_adjusted, high_adjusted: the interval that goes with the verdict.
        error: standard error of the lift, from the width of its own interval; NaN where that is
            unbounded, and of one point.
    """

    verdict: str
    low_adjusted: float = math.nan
    high_adjusted: float = math.nan
    error: float = math.nan

    @classmethod
    def of(cls, row: Lift, verdict: str) -> DecidedLift:
        """A row of a verdict, one- or two-sided at its own level."""
        from simulator.stats.intervals import quantile, two_sided

        q = float(quantile(math.inf, two_sided(row.confidence, row.alternative)))
        ends = {"greater": (row.low, row.lift), "less": (row.lift, row.high)}
        low, high = ends.get(row.alternative, (row.low, row.high))
        sides = 1.0 if row.alternative in ends else 2.0
        width = high - low
        error = width / sides / q if math.isfinite(width) and width > 0 else math.nan
        adjusted = row.low_adjusted, row.high_adjusted
        return cls(row.lift, row.low, row.high, verdict, *adjusted, error)


@dataclass(frozen=True)
class Across:
    """The lift of an arm and metric in each of several worlds or runs.

    Attributes:
        metric, arm: of what.
        lifts: by name of the world or run.
        agree: `same sign` (the verdict is up in all, or down in all), `opposite` (up in one, down
            in another), `identical` in all, or `undecided` (no contradiction, but not all say so).
    """

    metric: str
    arm: str
    lifts: Mapping[str, DecidedLift]
    agree: Agreement


@dataclass(frozen=True)
class AcrossWorlds(Across):
    """`all`: the lift over the worlds, with an interval that includes what they disagree about;
    None where a world has no finite interval.
    """

    all: LiftInterval | None


@dataclass(frozen=True)
class WorldLifts:
    """The lifts in one drawn world.

    Attributes:
        calibration: the status of the calibration gate there.
        lifts: the rows of the verdict by the unit of its design.
    """

    calibration: Status
    lifts: tuple[Lift, ...]


@dataclass(frozen=True)
class DrawnWorlds:
    """The same arms in drawn worlds: draws of what the scenario's own world may be.

    Attributes:
        names: of the worlds.
        rows: the verdict over worlds.
        influences: the parameters with the largest shares in each of the rows.
        parameters: what each of `influences` is in each world.
        lifts: the lift of each of the rows in each world, NaN where it has no finite interval.
        uncalibrated: names of the worlds that are out of calibration.
    """

    names: tuple[str, ...]
    rows: tuple[WorldsLift, ...]
    influences: tuple[Influence, ...]
    parameters: Mapping[str, tuple[float, ...]]
    lifts: tuple[tuple[float, ...], ...]
    uncalibrated: tuple[str, ...]


@dataclass(frozen=True)
class ItemShown:
    """An item that an arm shows much.

    Attributes:
        arm: whose.
        item: its number in the log.
        id: what it is called in the data that it comes from; None: it has its number alone.
        impressions: how often it was shown, to the users who are counted.
        share: of the arm's impressions.
        click_rate: of these; None where the log knows no clicks.
    """

    arm: str
    item: int
    id: str | None
    impressions: int
    share: float
    click_rate: float | None


@dataclass(frozen=True)
class Supply:
    """How the arms share impressions and clicks out among items and authors (`stats.supply`).

    Attributes:
        unknown: why nothing can be said, in words; None where it can.
        metrics: by name, in the order of print.
        levels: what each arm has, the control first.
        rows: lifts over the control, by arm and metric, by author (or item); those of metrics with
            a role are corrected with the users' metrics of like roles, the others by themselves.
        verdicts: of each of `rows`.
        methods: the same lifts with fits as random as authors; () with one fit.
        absent: by metric, why there is nothing to say of it.
        users: of each arm who are counted: the same number in every arm.
        items, authors: of the catalogue; authors None: not known.
        most_shown: the items that each arm shows most, in this order.
    """

    unknown: str | None = None
    metrics: Mapping[str, MetricNote] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    rows: tuple[Lift, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    methods: tuple[MethodLift, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)
    items: int = 0
    authors: int | None = None
    most_shown: tuple[ItemShown, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Content:
    """One report, its fields in the order of report.json.

    Attributes:
        schema: version of report.json.
        control, arms: names; the control is the first of `arms`.
        unit: of the verdict on the first screen.
        decision: on each arm, by the roles of the metrics; None where no metric is declared a
            success.
        lifts: the rows of the verdict; `verdicts` says what each means, in the same order.
        headlines: of each arm.
        methods: of each arm, what is known of its method; () for what no scenario has made.
        winners: the best of several treatment arms in each metric, of the models and, where they
            are known, of the methods; () with one treatment arm.
        metrics: by name, in the order of print.
        family: the tests that `p_adjusted` is corrected for.
        choices: how the lifts were computed.
        scenario, seed, design: of the run; the name of a table stands in `scenario`.
        checks: red first, then amber; each a sentence.
        runtime: seconds, rates and sizes of the run.
        paired: whether every user was in every arm.
        margins: guardrails and equivalences that were asked.
        adjusted: metrics whose lifts are adjusted, for their pre-period (CUPED) or predictions.
        gains: what each adjustment makes of the lifts.
        predictors: the columns from which metrics are predicted; () where none are.
        clusters: where the clusters of users that are the units come from: the column of a table,
            the key of a scenario.
        columns: what each column of a table was taken for.
        command: that makes this report.
        beside: the lifts with, or without, the adjustment that `lifts` have not, or have.
        size, units: how much there is, and the users of each arm.
        daily: each day alone; `sequential`: all days up to each.
        distributions: of every metric and arm.
        segments: lifts in groups of users.
        otherwise: the same comparisons by other methods.
        funnel, channels, answered_by_log: what was served.
        supply: what of the catalogue was shown, and of whom; None: only a log can tell.
        catalogues: how fresh slates were and which creators are left; None: they do not live.
        calibration, support: how far the world is from real users.
        published: published lifts beside ours.
        power, designs: users needed for a lift, and by each design for the lift found here.
        preference: of interleaved slates.
        offline, foretold: replayed estimates and offline figures beside the online lift.
        audit: of the tests.
        fits: what each fit finds of held-out clicks, and the floor; () where no policy draws in
            training.
        worlds: the same arms in further worlds.
        drawn: the same arms in draws of the scenario's own world; None where there are none.
        settings, versions, notes: the resolved scenario, versions and notes of the log.
    """

    schema: int = SCHEMA_VERSION
    control: str
    arms: tuple[str, ...]
    unit: Unit
    decision: Decision | None = None
    lifts: tuple[Lift, ...]
    verdicts: tuple[Verdict, ...]
    headlines: tuple[Headline, ...]
    methods: tuple[Method, ...] = ()
    winners: tuple[Winner, ...] = ()
    metrics: Mapping[str, MetricNote]
    family: str = FAMILY
    choices: Choices
    scenario: str | None
    seed: int | None = None
    design: str
    checks: tuple[Check, ...]
    runtime: Mapping[str, Any] | None = None
    paired: bool
    margins: tuple[BoundedMargin, ...]
    adjusted: tuple[str, ...] = ()
    gains: tuple[AdjustmentGain, ...] = ()
    predictors: tuple[str, ...] = ()
    clusters: str | None = None
    columns: tuple[Use, ...] = ()
    command: str | None = None
    beside: Beside | None = None
    pairs: tuple[PairLift, ...] = ()
    size: Size
    units: Mapping[str, int]
    daily: tuple[DailyLift, ...] = ()
    sequential: tuple[Peeks, ...] = ()
    distributions: tuple[Distribution, ...]
    segments: Segments | None
    otherwise: tuple[Alternative, ...]
    funnel: tuple[Step, ...] = ()
    channels: Channels | None = None
    answered_by_log: Mapping[str, float | None] = field(default_factory=dict)
    supply: Supply | None = None
    catalogues: Catalogues | None = None
    calibration: Calibration | None = None
    support: tuple[Support, ...] = ()
    published: tuple[PublishedLift, ...] = ()
    power: tuple[Need, ...]
    designs: tuple[DesignNeed, ...] = ()
    preference: tuple[Preference, ...] = ()
    offline: tuple[HeadlineEstimate, ...] = ()
    foretold: tuple[OfflineFigure, ...] = ()
    audit: AuditSummary | None = None
    fits: tuple[FitFigure, ...] = ()
    worlds: tuple[AcrossWorlds, ...] = ()
    drawn: DrawnWorlds | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise ValueError(f"design: must be one of {list(DESIGNS)}; got {self.design!r:.60}")
        if len(self.verdicts) != len(self.lifts):
            raise ValueError(
                f"verdicts: one for each row of lifts; got {len(self.verdicts)} for"
                f" {len(self.lifts)}"
            )

    def decided(self) -> list[tuple[Lift, Verdict]]:
        """The rows on the first screen, each with its verdict: those of `unit`, arm by arm, by the
        role of the metric where roles are declared, and then by evidence: noise never comes first.
        """
        pairs = zip(self.lifts, self.verdicts, strict=True)
        return sorted((pair for pair in pairs if pair[0].unit == self.unit), key=self._place)

    def of_methods(self, arm: str) -> list[MethodLift]:
        """The rows of an arm's method, in the order of those of its models; none where its fits say
        nothing.
        """
        order = [row.metric for row, _ in self.decided() if row.arm == arm]
        rows = [row for method in self.methods if method.arm == arm for row in method.rows]
        return sorted(rows, key=lambda row: order.index(row.lift.metric))

    @property
    def assigned(self) -> str:
        """What was assigned as a whole, and is drawn by intervals: a user, a day, a cluster."""
        return "cluster" if self.clusters else self.unit

    def deciding(self) -> list[Lift]:
        """The rows of metrics that have a role, those of the supply side after the users'."""
        rows = [row for row, _ in self.decided()]
        rows += self.supply.rows if self.supply is not None else ()
        notes = self.notes_of_metrics()
        return [row for row in rows if notes[row.metric].role != "exploratory"]

    def deciding_methods(self) -> list[MethodLift]:
        """The same rows of the methods, as far as they are known."""
        rows = [one for method in self.methods for one in method.rows]
        rows += self.supply.methods if self.supply is not None else ()
        notes = self.notes_of_metrics()
        return [one for one in rows if notes[one.lift.metric].role != "exploratory"]

    def _place(self, pair: tuple[Lift, Verdict]) -> tuple[int, int, float]:
        row, note = pair[0], self.metrics.get(pair[0].metric)
        role = "exploratory" if note is None else note.role
        evidence = 1.0 if math.isnan(row.p) else row.p
        return self.arms.index(row.arm), list(ROLES).index(role), evidence

    def _repr_html_(self) -> str | None:
        """The first screen, in a notebook."""
        return as_html(self)

    def guarded(self) -> list[BoundedMargin]:
        """The answers to guardrails and equivalences that the decision rests on: of the methods
        where it is theirs, else of the models.
        """
        if self.decision is not None and self.decision.on == "methods":
            return [answer for method in self.methods for answer in method.margins]
        return list(self.margins)

    def notes_of_metrics(self) -> dict[str, MetricNote]:
        """What each metric is, those of the supply side included."""
        of_supply = {} if self.supply is None else self.supply.metrics
        return {**of_supply, **self.metrics}

    def red(self) -> list[Check]:
        """The checks that say not to act on the lifts."""
        return [check for check in self.checks if check.status == "red"]
