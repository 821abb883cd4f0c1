"""Gathering a report: everything that is said of a run or of a table, from its event log or its
units, as one `Content`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from policies.base import Progress, silent
from simulator.designs.base import Design
from simulator.designs.paired import Paired
from simulator.designs.split import Split
from simulator.log import workspace
from simulator.log.eventlog import EventLog
from simulator.log.items import ItemFacts
from simulator.log.metadata import HISTORY, Metadata
from simulator.log.metrics import Better, Metric, MetricRole, declarations, declared
from simulator.page.words import sentenced, title
from simulator.report import run_checks as checks
from simulator.report import supplied
from simulator.report import worlds as world
from simulator.report.catalogues import catalogues
from simulator.report.content import (
    AdjustmentGain,
    Beside,
    BoundedMargin,
    Channels,
    Content,
    DailyLift,
    DesignNeed,
    Headline,
    Method,
    MetricNote,
    Need,
    PairLift,
    PublishedLift,
    Segments,
    Size,
    Step,
    Verdict,
)
from simulator.report.counts import Cells, Counts
from simulator.report.errors import ReportError
from simulator.report.otherwise import compute_otherwise
from simulator.report.plan import compared_designs, interleaved_designs, needs, preferences
from simulator.report.reading import read
from simulator.report.sentences import headline, in_words, margin_sentence, verdict_sentence
from simulator.report.spread import distributions
from simulator.stats import checks as design
from simulator.stats import segments, sequential, supply, verdict, winners
from simulator.stats.adjustment import declared_periods, pre_periods
from simulator.stats.checks import Check
from simulator.stats.choices import Choices
from simulator.stats.contrasts import Further
from simulator.stats.decision import Ground, decide
from simulator.stats.exposures import Exposures, unknown_supply
from simulator.stats.intervals import two_sided
from simulator.stats.margins import Margin, Margins, answer_margins, planned
from simulator.stats.methods import MethodLift, method_lifts, method_margins, unknown
from simulator.stats.predictions import with_predictions, without_predictions
from simulator.stats.priors import Prior
from simulator.stats.replication import Components
from simulator.stats.rule import Rule
from simulator.stats.streamed import Map
from simulator.stats.tests import level_of_one
from simulator.stats.unit_table import Array, TableError, Unit, UnitTable
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import FAMILIES, FAMILY, FAMILY_OF_ROLES, Lift, correction_in
from simulator.stats.winners import Winner

T = TypeVar("T")

FUNNEL = (
    "sessions",
    "requests",
    "impressions",
    "play",
    "click",
    "long_view",
    "like",
    "comment",
    "follow",
    "forward",
)
"""The steps of the funnel, in order, as far as the log has them."""

URGENCY = ("red", "amber", "green")
"""The order of checks."""


@dataclass(frozen=True)
class Comparison:
    """Who is compared with whom.

    Attributes:
        arms: names, the control first, then in the order of declaration.
        control: name of the control arm.
        index: of each of `arms` in the log's own list.
    """

    arms: tuple[str, ...]
    control: str
    index: tuple[int, ...]

    @classmethod
    def of(
        cls, meta: Metadata, without: tuple[str, ...] = (), declared: Sequence[str] = ()
    ) -> Comparison:
        """The comparison that a log declares, `without` some arms; where it declares no control, it
        is the first arm. Arms stand in the order in which they were `declared`, else in the log's.

        Raises:
            ReportError: fewer than two arms, or no such control.
        """
        there = [name for name in meta.arms if name != HISTORY and name not in without]
        if len(there) < 2:
            raise ReportError(
                f"a report compares at least two arms; this log has {there or 'none'}"
            )
        control = meta.control or there[0]
        if control not in there:
            raise ReportError(f"the control arm {control!r} is not among the arms {there}")
        order = dict.fromkeys((control, *(name for name in declared if name in there), *there))
        arms = tuple(order)
        return cls(arms, control, tuple(meta.arms.index(name) for name in arms))

    @property
    def treatments(self) -> tuple[str, ...]:
        return self.arms[1:]

    def by_arm(self, rows: Sequence[T]) -> dict[str, T]:
        """The entries of `rows`, one for each arm of the log, under the names of the compared
        arms.
        """
        return {name: rows[i] for name, i in zip(self.arms, self.index, strict=True)}


def gather(
    log: EventLog,
    *,
    runtime: Mapping[str, Any] | None,
    progress: Progress,
    margins: Margins | None = None,
    choices: Choices | None = None,
    better: Mapping[str, Better] | None = None,
    roles: Mapping[str, MetricRole] | None = None,
    arms: Sequence[str] = (),
    priors: Mapping[str, Prior] | None = None,
    inspect: bool = False,
    parts: Map = map,
) -> Content:
    """Everything that the report says of a log, its arms in the order of `arms`. See
    `simulator.report.write`.
    """
    meta, choices = log.metadata, choices or Choices()
    progress("report: sums", 0, 4, {})
    unsupplied = unknown_supply(meta)
    exposures = None if unsupplied else Exposures(meta, ItemFacts.of_log(log))
    summed, counts = read(log, exposures, inspect=inspect, parts=parts)
    sums, silent = answered(summed)
    declares = declarations(better, roles)
    guarded = () if margins is None else (*margins.guardrails, *margins.equivalence)
    of_supply = supply.asked(meta, (*declares, *guarded))
    every = declared({**sums.metrics, **of_supply}, declares)
    every, margins = planned(every, margins)
    metrics = {name: every[name] for name in sums.metrics}
    who = Comparison.of(meta, silent, arms)
    sums = dataclasses.replace(sums, metrics=metrics).in_order(who.arms)
    side = supplied.side_of(exposures, every, who.arms, unsupplied)
    progress("report: calibration", 2, 4, {})
    calibration = world.calibration(log)
    progress("report: lifts", 3, 4, {})
    unit = meta.design.unit
    by_user = sums.by("user")
    rows, supply_rows = supplied.of_users(
        verdict.verdict(
            sums,
            who.control,
            method=choices.interval,
            correction=choices.correction,
            rule=choices.rule,
            further=side,
        )
    )
    clusters = None if sums.cluster is None else "design.clusters"
    n_clusters = None if sums.cluster is None else by_user.n_units
    assigned = "user" if sums.cluster is None else "cluster"
    own_rows = [row for row in rows if row.unit == "user"]
    rows = sorted(rows, key=lambda row: (row.unit != unit, who.arms.index(row.arm)))
    scenario, notes = (
        json.loads(json.dumps(stored, sort_keys=True)) for stored in (meta.scenario, meta.notes)
    )
    if priors is None:
        priors = _declared_priors(scenario)
    adjusted = declared_periods(by_user)
    published = scenario.get("published", {})
    levels = levels_of_one([*own_rows, *supply_rows], every, choices)
    power = needs(by_user, who.control, who.treatments, published, levels)
    shown = counts.steps["impressions"]
    name = scenario.get("name")
    is_sequential = sums.days > 1 and sums.switched is None
    methods: tuple[Method, ...] = ()
    of_methods: list[MethodLift] = []
    if scenario.get("arms"):
        methods, of_methods = _methods(sums, who, unit, choices, margins, side)
    content = Content(
        control=who.control,
        arms=who.arms,
        unit=unit,
        lifts=tuple(rows),
        verdicts=verdicts(rows, who.control, sums.metrics, supply_rows, every, assigned),
        headlines=headlines(rows, who, unit, sums.metrics),
        methods=methods,
        winners=_winners(sums, who, unit, known_priors(priors, sums.metrics), choices.rule),
        metrics=described(sums.metrics, adjusted),
        adjusted=tuple(sorted(adjusted)),
        family=family_of(every),
        choices=choices,
        scenario=name,
        seed=scenario.get("seed"),
        design=meta.design.kind,
        checks=in_order(
            checks.calibrated(calibration),
            *checks.complete(sums, silent, shown.sum(axis=0)),
            *design.checks(sums, who.control, scenario=scenario, rows=own_rows),
        ),
        runtime=None if runtime is None else dict(runtime),
        paired=by_user.paired,
        margins=_margins(by_user, who.control, margins, choices, side),
        command=f"abtest run {shlex.quote(name + '.yaml')}" if name else None,
        pairs=_pairs(by_user, who.control, adjusted, choices),
        beside=_with_the_past(by_user, who, choices) if sums.assigned is not None else None,
        size=Size(meta.n_users, meta.n_items, sums.days, int(shown.sum()), n_clusters),
        clusters=clusters,
        units=_units(sums, who),
        daily=tuple(
            DailyLift.of(day, row)
            for day, lifts in verdict.by_day(sums, who.control, rule=choices.rule)
            for row in lifts
        ),
        sequential=(
            tuple(sequential.peeks(sums, who.control, choices.rule.alpha)) if is_sequential else ()
        ),
        distributions=distributions(by_user, who.arms),
        segments=_segments(by_user, who.control, adjusted, choices),
        otherwise=compute_otherwise(
            by_user, own_rows, who.control, who.treatments, choices, progress=progress
        ),
        funnel=_funnel(counts, who),
        channels=_channels(counts, meta, who),
        answered_by_log=_share(counts.logged, shown.sum(axis=1), who),
        supply=supplied.supply(
            side,
            who.control,
            who.arms,
            described(every, adjusted),
            supply_rows,
            of_methods,
            sums,
            choices,
            supplied.most_shown(exposures, who.arms),
        ),
        catalogues=catalogues(log, who.arms, choices.level),
        calibration=calibration,
        support=world.support(log, who.arms),
        published=_published(published, own_rows, power, _design_of(by_user).kind),
        power=power,
        designs=_designs(sums, who, meta.design, levels),
        preference=(
            preferences(by_user, who.control, who.treatments) if meta.design.shares_slates else ()
        ),
        settings=scenario,
        versions=dict(sorted(meta.versions.items())),
        notes={key: value for key, value in notes.items() if key != "calibration"},
    )
    progress("report: lifts", 4, 4, {})
    return content


def gather_table(
    table: UnitTable,
    control: str,
    name: str,
    margins: Margins | None = None,
    choices: Choices | None = None,
    *,
    cluster: str | None = None,
    shares: Mapping[str, float] | None = None,
    command: str | None = None,
    progress: Progress | None = None,
    predict: bool = False,
    priors: Mapping[str, Prior] | None = None,
    looks: Sequence[UnitTable] = (),
    new: Cells | None = None,
) -> Content:
    """Everything that the report says of a plain per-user table; what only a log can tell is empty.

    `adjusted` are the metrics whose lifts are adjusted for their pre-period column; `beside` has
    the same rows without.

    Args:
        table: by user, or by cluster.
        control: the control arm.
        name: title of the report.
        margins: guardrails and equivalences that were planned.
        choices: how the lifts are computed.
        cluster: the column of clusters that are the table's units.
        shares: of users that were meant for each arm, up to a common factor.
        command: that makes this report.
        progress: of what takes time.
        priors: by metric, what earlier tests say of its lift.
        predict: whether lifts are adjusted for predictions from the table's features, in place of
            the pre-period.
        looks: the tables at the end of each day of a test that was looked at, the last one `table`.
        new: users who are new on each day, `[arms, days]`.

    Raises:
        TableError: nothing can be predicted (`with_predictions`).
    """
    choices = choices or Choices()
    metrics, margins = planned(table.metrics, margins)
    table = dataclasses.replace(table, metrics=metrics)
    arms = (control, *(arm for arm in table.arms if arm != control))
    who = Comparison(arms, control, tuple(table.arms.index(arm) for arm in arms))
    if predict:
        table = with_predictions(table, progress or silent)
    adjusted = pre_periods(table)
    method, correction = choices.interval, choices.correction
    rule = choices.rule

    def lifts(of: UnitTable, covariates: Mapping[str, Sequence[str]]) -> list[Lift]:
        return verdict.lifts(
            of, control, covariates=covariates, method=method, correction=correction, rule=rule
        )

    rows = lifts(table, adjusted)
    beside, gains = None, list[AdjustmentGain]()
    if adjusted:
        by_past = without_predictions(table)
        past, unadjusted = pre_periods(by_past), lifts(by_past, {})
        beside = Beside("Without adjustment", tuple(unadjusted))
        gains = gains_of(unadjusted, rows, table.predicted, "predictions")
        if past:
            by_cuped = lifts(by_past, past) if table.predicted else rows
            gains += gains_of(unadjusted, by_cuped, past, "CUPED")
    return Content(
        control=who.control,
        arms=who.arms,
        unit="user",
        lifts=tuple(rows),
        verdicts=verdicts(rows, control, table.metrics, assigned="cluster" if cluster else "user"),
        headlines=headlines(rows, who, "user", table.metrics),
        winners=tuple(
            winners.of_models(table, control, known_priors(priors, table.metrics), adjusted, rule)
        ),
        metrics=described(table.metrics, adjusted),
        family=family_of(table.metrics),
        choices=choices,
        scenario=name,
        design=_design_of(table).kind,
        checks=in_order(*design.checks(table, control, shares=shares, rows=rows, new=new)),
        paired=table.paired,
        margins=_margins(table, control, margins, choices),
        adjusted=tuple(sorted(adjusted)),
        gains=tuple(gains),
        predictors=tuple(table.features) if table.predicted else (),
        clusters=cluster,
        columns=table.columns,
        command=command,
        beside=beside,
        pairs=_pairs(table, control, adjusted, choices),
        size=Size(table.n_units, days=len(looks) or None),
        sequential=(
            tuple(sequential.peeks_at(looks, control, rule.alpha)) if len(looks) > 1 else ()
        ),
        units={arm: len(table.sums(next(iter(table.numerators)), arm)[0]) for arm in arms},
        distributions=distributions(table, arms),
        segments=_segments(table, control, adjusted, choices),
        otherwise=compute_otherwise(table, rows, control, who.treatments, choices, progress),
        power=needs(
            table, control, who.treatments, {}, levels_of_one(rows, table.metrics, choices)
        ),
        versions=workspace.versions(),
    )


def gains_of(
    plain: Sequence[Lift],
    adjusted: Sequence[Lift],
    metrics: Mapping[str, Sequence[str]],
    by: Literal["CUPED", "predictions"],
) -> list[AdjustmentGain]:
    """What an adjustment of some metrics makes of the rows of a verdict."""
    gains = []
    for one, other in zip(plain, adjusted, strict=True):
        if one.metric in metrics and one.se > 0 and other.se > 0:
            width = other.se / one.se
            gains.append(AdjustmentGain(one.metric, one.arm, by, width, width**-2 - 1.0))
    return gains


def in_order(*unsorted: Check) -> tuple[Check, ...]:
    """Checks in whole sentences, red first, then amber."""
    sentences = [
        Check(title(check.name), check.status, sentenced(check.value), sentenced(check.meaning))
        for check in unsorted
    ]
    return tuple(sorted(sentences, key=lambda check: URGENCY.index(check.status)))


def with_check(content: Content, check: Check) -> Content:
    """The content with one more check."""
    return dataclasses.replace(content, checks=in_order(*content.checks, check))


def with_decision(content: Content) -> Content:
    """The content with the decision that its rows, margins, methods and checks amount to.

    It rests on the methods where the scenario asks for them (`decision.on`), or has several fits
    and does not say.
    """
    asked = content.settings.get("decision", {}).get("on")
    fits = max((method.fits for method in content.methods), default=1)
    on: Ground = asked or ("methods" if fits > 1 else "models")
    rows, answers = content.deciding(), list[Margin](content.margins)
    unknown_arms: dict[str, str] = {}
    components: dict[tuple[str, str], Components] = {}
    if on == "methods":
        of_methods = [one for method in content.methods for one in method.rows]
        rows = [one.lift for one in content.deciding_methods()]
        answers = [answer for method in content.methods for answer in method.margins]
        unknown_arms = {m.arm: m.unknown for m in content.methods if m.unknown is not None}
        components = {(one.lift.arm, one.lift.metric): one.components for one in of_methods}
    decision = decide(
        rows,
        answers,
        content.notes_of_metrics(),
        on=on,
        red=[check.name for check in content.red()],
        unknown=unknown_arms,
        components=components,
    )
    return dataclasses.replace(
        content, decision=in_words(decision, rows, answers, content.assigned)
    )


def family_of(metrics: Mapping[str, Metric]) -> str:
    """The tests that are corrected together, in words."""
    has_roles = any(metric.role != "exploratory" for metric in metrics.values())
    return FAMILY_OF_ROLES if has_roles else FAMILY


def described(
    metrics: Mapping[str, Metric], adjusted: Mapping[str, tuple[str, ...]]
) -> dict[str, MetricNote]:
    """What a reader needs of each metric; `adjusted`: for which columns of the past."""
    return {
        name: MetricNote(
            metric.description,
            metric.measure,
            metric.higher_is_better,
            metric.known_by,
            metric.role,
            metric.margin,
            adjusted.get(name, ()),
            metric.winsorise,
            metric.quantile,
        )
        for name, metric in metrics.items()
    }


def answered(sums: UserDays) -> tuple[UserDays, tuple[str, ...]]:
    """The sums without the arms that nobody has seen anything of (an arm that was given up), and
    the names of those.
    """
    shown = np.zeros(len(sums.arms), dtype=bool)
    for some in sums.mapped(_shown, ["impressions"]):
        shown |= some
    if shown.all():
        return sums, ()
    left = sums.of_arms(np.flatnonzero(shown))
    return left, tuple(sums.arms[i] for i in np.flatnonzero(~shown))


def _shown(days: UserDays) -> Array:
    """Whether anybody has seen anything in each arm."""
    return np.asarray(days.terms["impressions"].any(axis=(1, 2)))


def _units(sums: UserDays, who: Comparison) -> dict[str, int]:
    """Users in each arm, those that never came included."""
    if sums.assigned is None:
        return dict.fromkeys(who.arms, sums.n_users)
    return {arm: int(np.count_nonzero(sums.assigned == sums.arms.index(arm))) for arm in who.arms}


def _segments(
    table: UnitTable, control: str, adjusted: Mapping[str, tuple[str, ...]], choices: Choices
) -> Segments | None:
    rows, interactions = segments.segments(table, control, covariates=adjusted, level=choices.level)
    return Segments(segments.WARNING, tuple(rows), tuple(interactions)) if rows else None


def _pairs(
    table: UnitTable, control: str, adjusted: Mapping[str, tuple[str, ...]], choices: Choices
) -> tuple[PairLift, ...]:
    """Every arm over every other one, where that is asked and says more than the verdict."""
    if not choices.pairs or len(table.arms) < 3:
        return ()
    rows = verdict.pairs(
        table,
        control,
        covariates=adjusted,
        method=choices.interval,
        correction=choices.correction,
        rule=choices.rule,
    )
    return tuple(PairLift(over, row) for over, row in rows)


def _with_the_past(table: UnitTable, who: Comparison, choices: Choices) -> Beside | None:
    """The lifts of a split log adjusted for each user's past, beside the plain ones."""
    adjusted = pre_periods(table)
    if not adjusted:
        return None
    rows = verdict.lifts(
        table, who.control, metrics=adjusted, covariates=adjusted, rule=choices.rule
    )
    return Beside("Adjusted for each user's past (CUPED)", tuple(rows))


def _margins(
    table: UnitTable,
    control: str,
    margins: Margins,
    choices: Choices,
    further: Further | None = None,
) -> tuple[BoundedMargin, ...]:
    """The answers to guardrails and equivalences that were asked, each with its sentence."""
    answers = answer_margins(
        table, control, margins, pre_periods(table), further, choices.rule.alpha
    )
    metrics = {**({} if further is None else further.metrics), **table.metrics}
    return _with_sentences(answers, control, metrics)


def _with_sentences(
    answers: Sequence[Margin], control: str, metrics: Mapping[str, Metric]
) -> tuple[BoundedMargin, ...]:
    rows = []
    for answer in answers:
        words = margin_sentence(answer, control, metrics[answer.metric].higher_is_better)
        rows.append(BoundedMargin(**vars(answer), sentence=words))
    return tuple(rows)


def levels_of_one(
    rows: Sequence[Lift], metrics: Mapping[str, Metric], choices: Choices
) -> dict[str, float]:
    """By metric, the level of the two-sided test that one true difference must pass in its family
    of `rows`, the verdict by user.
    """
    families = {name: FAMILIES[metric.role] for name, metric in metrics.items()}
    tested = Counter(families[row.metric] for row in rows if not math.isnan(row.p))
    levels = {}
    for name, family in families.items():
        own = correction_in(family, choices.correction)
        alpha = level_of_one(tested[family], own, choices.rule.alpha)
        levels[name] = two_sided(1.0 - alpha, choices.rule.side(metrics[name]))
    return levels


def _design_of(table: UnitTable) -> type[Design]:
    """The design of a table of users, for which nobody needs to say it."""
    return Paired if table.paired else Split


def _designs(
    sums: UserDays, who: Comparison, design: Design, levels: Mapping[str, float]
) -> tuple[DesignNeed, ...]:
    """Users that each design which the log can speak of would need."""
    if design.has_twins:
        return compared_designs(sums, who.control, who.treatments, levels)
    if design.shares_slates:
        return interleaved_designs(sums, who.control, who.treatments, levels)
    return ()


def verdicts(
    rows: Sequence[Lift],
    control: str,
    metrics: Mapping[str, Metric],
    further: Sequence[Lift] = (),
    further_metrics: Mapping[str, Metric] | None = None,
    assigned: str = "user",
) -> tuple[Verdict, ...]:
    """Verdict and sentence of each row of `lifts`, in the same order; `further` rows were corrected
    with those by user. `assigned`: what users were assigned by.
    """
    families = [(row.unit, FAMILIES[metrics[row.metric].role]) for row in rows]
    tested = zip(rows, families, strict=True)
    comparisons = Counter(family for row, family in tested if not math.isnan(row.p))
    for row in further:
        role = (further_metrics or metrics)[row.metric].role
        comparisons["user", FAMILIES[role]] += not math.isnan(row.p)
    found = []
    for row, family in zip(rows, families, strict=True):
        direction = metrics[row.metric].higher_is_better
        sentence = verdict_sentence(row, control, comparisons[family], direction, assigned)
        found.append(Verdict(row.metric, row.arm, row.unit, row.words, sentence))
    return tuple(found)


def headlines(
    rows: Sequence[Lift], who: Comparison, unit: Unit, metrics: Mapping[str, Metric]
) -> tuple[Headline, ...]:
    """The sentence that sums each arm up."""
    lower_is_better = {name for name, metric in metrics.items() if metric.higher_is_better is False}
    found = []
    for arm in who.treatments:
        words = [(row.metric, row.words) for row in rows if row.unit == unit and row.arm == arm]
        found.append(Headline(arm, headline(words, arm, who.control, lower_is_better)))
    return tuple(found)


def _methods(
    sums: UserDays,
    who: Comparison,
    unit: Unit,
    choices: Choices,
    margins: Margins,
    further: Further,
) -> tuple[tuple[Method, ...], list[MethodLift]]:
    """What is known of the method of each arm: the verdict's rows with fits as random as users; and
    the rows of `further` that were corrected with these.
    """
    every = method_lifts(
        sums,
        who.control,
        unit=unit,
        interval=choices.interval,
        correction=choices.correction,
        rule=choices.rule,
        further=further,
    )
    of_methods = [one for one in every if one.lift.unit == unit]
    others = [one for one in every if one.lift.unit != unit]
    answers = method_margins(
        sums, who.control, margins, unit=unit, further=further, alpha=choices.rule.alpha
    )
    said = _with_sentences(answers, who.control, {**further.metrics, **sums.metrics})
    methods = []
    for arm in who.treatments:
        rows = tuple(one for one in of_methods if one.lift.arm == arm)
        fits = sums.fits[sums.arms.index(arm)] if sums.fits else 1
        own = tuple(answer for answer in said if answer.arm == arm)
        methods.append(Method(arm, fits, unknown(sums, who.control, arm), rows, own))
    return tuple(methods), others


def _winners(
    sums: UserDays, who: Comparison, unit: Unit, priors: Mapping[str, Prior], rule: Rule
) -> tuple[Winner, ...]:
    """The best of several arms, of the models and of the methods, where there are fits to tell."""
    of_models = winners.of_models(sums.by(unit), who.control, priors, rule=rule)
    if max(sums.fits, default=1) == 1:
        return tuple(of_models)
    return (*of_models, *winners.of_methods(sums, who.control, priors, unit, rule))


def _declared_priors(scenario: Mapping[str, Any]) -> dict[str, Prior]:
    """Those of a scenario, `decision.prior`."""
    stored = (scenario.get("decision") or {}).get("prior") or {}
    return {
        metric: Prior(one["mean"], one["scale"], one["df"] or math.inf)
        for metric, one in stored.items()
    }


def known_priors(
    priors: Mapping[str, Prior] | None, metrics: Mapping[str, Metric]
) -> dict[str, Prior]:
    """The priors of the metrics of a test; those of others are of no use to it.

    Raises:
        TableError: all are.
    """
    known = {metric: one for metric, one in (priors or {}).items() if metric in metrics}
    if priors and not known:
        raise TableError(
            f"prior: of {', '.join(priors)}, and none of the metrics {', '.join(metrics)}"
        )
    return known


def _funnel(counts: Counts, who: Comparison) -> tuple[Step, ...]:
    """Steps with their count in each arm, users first."""
    totals = {
        "users": counts.users,
        **{name: counts.steps[name].sum(axis=1) for name in FUNNEL if name in counts.steps},
    }
    return tuple(Step(name, who.by_arm(total.tolist())) for name, total in totals.items())


def _channels(counts: Counts, meta: Metadata, who: Comparison) -> Channels | None:
    """Share of the impressions that each recall channel brought, by arm; None where there is but
    one.
    """
    if not meta.channels:
        return None
    whole = counts.channels.sum(axis=1, keepdims=True)
    shares = (counts.channels / whole.clip(min=1)).tolist()
    return Channels(("tested policy", *meta.channels), who.by_arm(list(map(tuple, shares))))


def _share(part: Cells, whole: Cells, who: Comparison) -> dict[str, float | None]:
    shares = [None if n == 0 else float(k / n) for k, n in zip(part, whole, strict=True)]
    return who.by_arm(shares)


def _published(
    published: Mapping[str, float], rows: Sequence[Lift], power: Sequence[Need], design: str
) -> tuple[PublishedLift, ...]:
    """Published lifts beside ours by user, for every arm and metric that has one."""
    needed = {(row.metric, row.arm): row.users.get(design) for row in power if row.published}
    beside = []
    for row in rows:
        if row.metric in published:
            value = published[row.metric]
            inside = bool(row.low <= value <= row.high) if math.isfinite(row.lift) else None
            users = needed.get((row.metric, row.arm))
            beside.append(
                PublishedLift(
                    row.metric, row.arm, value, row.lift, row.low, row.high, inside, users
                )
            )
    return tuple(beside)
