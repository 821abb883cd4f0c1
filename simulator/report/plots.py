"""From the content of a report to its figures. The numbers that they draw stand in a table of the
same section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from simulator.page import figures, words
from simulator.report.content import Content, DailyLift, Distribution, DrawnWorlds
from simulator.report.sentences import tone
from simulator.stats.methods import MethodLift
from simulator.stats.verdict import Lift

MODELS, METHODS = "these models", "the methods"
"""What a verdict speaks of."""

Strips = dict[tuple[str, str], Markup]
"""By arm and metric."""


def forests(c: Content) -> tuple[dict[str, Strips], Markup]:
    """The interval of each (arm, metric) of the verdicts on models and on methods, all on one
    scale, and its axis.
    """
    of_models = [(row, verdict.verdict) for row, verdict in c.decided()]
    of_methods = [(one.lift, one.lift.words) for method in c.methods for one in method.rows]
    scale = figures.around_zero(_adjusted(row) for row, _ in (*of_models, *of_methods))
    strips: dict[str, Strips] = {MODELS: {}, METHODS: {}}
    for what, rows in ((MODELS, of_models), (METHODS, of_methods)):
        for row, verdict in rows:
            kind = tone(verdict, c.metrics[row.metric].higher_is_better)
            lift = _adjusted(row)
            label = words.typeset(figures.describe(row.metric, row.arm, lift))
            strips[what][row.arm, row.metric] = figures.strip(lift, scale, kind, label)
    return strips, figures.axis(scale)


def daily(c: Content) -> list[tuple[str, Markup]]:
    """One small figure for each metric whose arms differ on some day: each day alone, with its
    interval.
    """

    def points(metric: str, arm: str) -> list[figures.Point]:
        series = []
        for row in c.daily:
            if row.metric == metric and row.arm == arm:
                lift = _whiskers(row)
                tip = f"Day {row.day + 1}. {figures.describe(metric, arm, lift)}"
                series.append(figures.Point(row.day, lift, words.typeset(tip)))
        return series

    return _over_days(
        c, points, "lift over {control} on each day with 95% interval, for {arms}", band=False
    )


def so_far(c: Content) -> list[tuple[str, Markup]]:
    """One small figure for each metric: the lift of all days so far within its confidence
    sequence.
    """
    looks = {(peeks.metric, peeks.arm): peeks.looks for peeks in c.sequential}

    def points(metric: str, arm: str) -> list[figures.Point]:
        series = []
        for look in looks.get((metric, arm), ()):
            low, high = look.sequence_low, look.sequence_high
            tip = (
                f"After day {look.day}. {words.title(metric)}, {arm}: {words.percent(look.lift)},"
                f" confidence sequence {words.interval(low, high)}"
            )
            lift = figures.Whiskers(look.lift, low, high)
            series.append(figures.Point(look.day - 1, lift, words.typeset(tip)))
        return series

    return _over_days(
        c,
        points,
        "lift over {control} of all days so far with its confidence sequence, for {arms}",
        band=True,
    )


def _adjusted(row: Lift) -> figures.Whiskers:
    """The lift with the interval that goes with its verdict."""
    return figures.Whiskers(row.lift, row.low_adjusted, row.high_adjusted)


def _whiskers(row: DailyLift) -> figures.Whiskers:
    return figures.Whiskers(row.lift, row.low, row.high)


MOST_DRAWN = 6
"""Arms in one figure: more lines than there are colours cannot be told apart."""


def drawn_arms(c: Content) -> tuple[str, ...]:
    """The treatment arms that figures over days show, the first ones."""
    return tuple(c.arms[1 : 1 + MOST_DRAWN])


def _over_days(
    c: Content,
    points: Callable[[str, str], list[figures.Point]],
    what: str,
    *,
    band: bool,
) -> list[tuple[str, Markup]]:
    treatments = drawn_arms(c)
    what = what.format(control=c.control, arms=words.listed(treatments))
    plots = []
    for metric in c.metrics:
        series = [
            figures.Series(arm, i, points(metric, arm)) for i, arm in enumerate(treatments, 1)
        ]
        lifts = [point.at.value for one in series for point in one.points]
        if any(words.is_defined(lift) and lift != 0 for lift in lifts):
            days = c.size.days or max(len(one.points) for one in series)
            figure = figures.over_days(series, days, f"{words.title(metric)}: {what}", band=band)
            plots.append((metric, figure))
    return plots


@dataclass(frozen=True)
class FunnelStep:
    """A step of the funnel as it is shown.

    Attributes:
        step, counts: as in `content.Step`.
        per_1000: impressions, by arm.
        change: per user over the control, by treatment arm; None: the control has none.
        figure: a bar for each arm.
    """

    step: str
    counts: Mapping[str, float]
    per_1000: Mapping[str, float]
    change: Mapping[str, float | None]
    figure: Markup


def funnel(c: Content) -> list[FunnelStep]:
    """The funnel's steps with a bar for each arm; bars of two groups of steps (the way to a view,
    what follows it) share a scale each.
    """
    arms, steps = c.arms, c.funnel
    impressions = next(step.counts for step in steps if step.step == "impressions")
    rate = {
        step.step: {arm: step.counts[arm] / max(impressions[arm], 1) for arm in arms}
        for step in steps
    }
    rare = {
        name
        for name, by_arm in rate.items()
        if name not in ("users", "sessions", "requests") and max(by_arm.values()) < 0.1
    }
    limits = {}
    for is_rare in (True, False):
        shown = [by_arm.values() for name, by_arm in rate.items() if (name in rare) == is_rare]
        limits[is_rare] = max((value for values in shown for value in values), default=1.0)
    result = []
    for step in steps:
        name, counts = step.step, step.counts
        per_1000 = {arm: 1000 * rate[name][arm] for arm in arms}
        tips = [
            f"{words.title(name)}, {arm}: {words.whole(counts[arm])},"
            f" {words.number(per_1000[arm])} per 1,000 impressions"
            for arm in arms
        ]
        bars = [(arm, i, rate[name][arm]) for i, arm in enumerate(arms)]
        figure = figures.bars(bars, limits[name in rare], "; ".join(tips), tips)
        per_user = {arm: counts[arm] / max(c.units[arm], 1) for arm in arms}
        base = per_user[c.control]
        change = {arm: per_user[arm] / base - 1 if base else None for arm in arms[1:]}
        result.append(FunnelStep(name, counts, per_1000, change, figure))
    return result


def share_of_fits(row: MethodLift, arm: int) -> Markup:
    """How much of the variance of a method's lift is that of its fits: a bar of the whole width
    for all of it.
    """
    share = row.components.share_of_fits
    if not words.is_defined(share):
        return Markup("")
    tip = f"{words.title(row.lift.metric)}: {share:.0%} of the variance is that of the fits"
    return figures.bars([(row.lift.arm, arm, share)], 1.0, tip, [tip])


def over_worlds(c: Content, drawn: DrawnWorlds) -> tuple[list[Markup], Markup]:
    """The interval over worlds of each row, all on one scale, and its axis."""
    whiskers = [figures.Whiskers(row.lift, row.low, row.high) for row in drawn.rows]
    scale = figures.around_zero(whiskers)
    strips = []
    for row, whisker in zip(drawn.rows, whiskers, strict=True):
        kind = tone(row.words, c.metrics[row.metric].higher_is_better)
        label = words.typeset(
            f"Over worlds: {figures.describe(row.metric, row.arm, whisker)};"
            f" higher in {words.percent(row.up, 0, False)} of worlds"
        )
        strips.append(figures.strip(whisker, scale, kind, label))
    return strips, figures.axis(scale)


MOST_PICTURES = 6
"""Pictures of parameters, the largest shares first."""


def against_parameters(drawn: DrawnWorlds) -> list[tuple[str, Markup]]:
    """The lift in each world against the parameter, of those that are shown to move it."""
    shown = sorted((row for row in drawn.influences if row.is_shown), key=lambda row: -row.share)
    place = {(row.metric, row.arm): i for i, row in enumerate(drawn.rows)}
    plots = []
    for row in shown[:MOST_PICTURES]:
        lifts = drawn.lifts[place[row.metric, row.arm]]
        spots = []
        for name, value, lift in zip(
            drawn.names, drawn.parameters[row.parameter], lifts, strict=True
        ):
            if words.is_defined(lift):
                tip = f"{name}: {row.parameter} {words.number(value)}, {words.percent(lift)}"
                at, up = (figures.Whiskers(x, x, x) for x in (value, lift))
                spots.append(figures.Spot(at, up, "", words.typeset(tip)))
        what = f"{words.title(row.metric)} of {row.arm} against {row.parameter}"
        plots.append((what, figures.scatter(spots, f"{what}, a point for each world")))
    return plots


def spread(rows: Sequence[Distribution]) -> Markup:
    """The distributions of one metric, a line for each arm's row."""
    tips = []
    for row in rows:
        ends = [words.number(quantile) for quantile in row.quantiles]
        tips.append(
            f"{words.title(row.metric)}, {row.arm}: half of {words.whole(row.n)} units between"
            f" {ends[1]} and {ends[3]}, 90% between {ends[0]} and {ends[4]}, mean"
            f" {words.number(row.mean)}"
        )
    return figures.boxes(rows, "; ".join(tips), tips)
