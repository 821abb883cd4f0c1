"""From the content of a report to its figures. The numbers that they draw stand in a table of the
same section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from simulator.page import figures, words


def forests(c: Mapping[str, Any]) -> tuple[dict[tuple[str, str], Markup], Markup]:
    """The interval of each (arm, metric) of the verdict, all on one scale, and its axis."""
    rows = [
        (row, said)
        for row, said in zip(c["lifts"], c["verdicts"], strict=True)
        if row["unit"] == c["unit"]
    ]
    scale = figures.around_zero(row for row, _ in rows)
    strips = {
        (row["arm"], row["metric"]): figures.strip(
            row, scale, tone(c, row["metric"], said["verdict"]), words.typeset(figures.spoken(row))
        )
        for row, said in rows
    }
    return strips, figures.axis(scale)


def tone(c: Mapping[str, Any], metric: str, verdict: str) -> str:
    """Whether a verdict on a metric is welcome."""
    return words.tone(verdict, c["metrics"][metric]["higher_is_better"])


def daily(c: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """One small figure for each metric whose arms differ on some day: each day alone, with its
    interval.
    """

    def points(metric: str, arm: str) -> list[figures.Point]:
        rows = [row for row in c["daily"] if row["metric"] == metric and row["arm"] == arm]
        tips = [words.typeset(f"Day {row['day'] + 1}. {figures.spoken(row)}") for row in rows]
        return [
            (row["day"], row["lift"], row["low"], row["high"], tip)
            for row, tip in zip(rows, tips, strict=True)
        ]

    return _over_days(
        c, points, "lift over {control} on each day with 95% interval, for {arms}", band=False
    )


def so_far(c: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """One small figure for each metric: the lift of all days so far within its confidence
    sequence.
    """
    peeks = {(peek["metric"], peek["arm"]): peek for peek in c["sequential"]}

    def points(metric: str, arm: str) -> list[figures.Point]:
        found = []
        for look in peeks[metric, arm]["looks"] if (metric, arm) in peeks else ():
            low, high = look["sequence_low"], look["sequence_high"]
            said = (
                f"{words.title(metric)}, {arm}: {words.percent(look['lift'])}, confidence sequence"
                f" {words.interval(low, high)}"
            )
            found.append(
                (
                    look["day"] - 1,
                    look["lift"],
                    low,
                    high,
                    words.typeset(f"After day {look['day']}. {said}"),
                )
            )
        return found

    return _over_days(
        c,
        points,
        "lift over {control} of all days so far with its confidence sequence, for {arms}",
        band=True,
    )


def _over_days(
    c: Mapping[str, Any],
    points: Callable[[str, str], list[figures.Point]],
    what: str,
    *,
    band: bool,
) -> list[tuple[str, Markup]]:
    treatments = c["arms"][1:]
    what = what.format(control=c["control"], arms=words.listed(treatments))
    plots = []
    for metric in c["metrics"]:
        series = [
            figures.Series(arm, i, points(metric, arm)) for i, arm in enumerate(treatments, 1)
        ]
        if any(point[1] for one in series for point in one.points):
            figure = figures.over_days(
                series, c["size"]["days"], f"{words.title(metric)}: {what}", band=band
            )
            plots.append((metric, figure))
    return plots


def funnel(c: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The funnel's steps with a bar for each arm; bars of two groups of steps (the way to a view,
    what follows it) share a scale each.

    Returns:
        Of each step `step`, `counts`, `per_1000` impressions, `change` per user over the control,
        `rare` and `figure`.
    """
    arms, steps = c["arms"], c["funnel"]
    impressions = next(step["counts"] for step in steps if step["step"] == "impressions")
    rate = {
        step["step"]: {a: step["counts"][a] / max(impressions[a], 1) for a in arms}
        for step in steps
    }
    rare = {
        name
        for name, by_arm in rate.items()
        if name not in ("users", "sessions", "requests") and max(by_arm.values()) < 0.1
    }
    limits = {
        flag: max(
            (v for n, by_arm in rate.items() if (n in rare) == flag for v in by_arm.values()),
            default=1.0,
        )
        for flag in (True, False)
    }
    result = []
    for step in steps:
        name = step["step"]
        tips = [
            f"{words.title(name)}, {arm}: {words.whole(step['counts'][arm])},"
            f" {words.number(1000 * rate[name][arm])} per 1,000 impressions"
            for arm in arms
        ]
        figure = figures.bars(
            [(arm, i, rate[name][arm]) for i, arm in enumerate(arms)],
            limits[name in rare],
            "; ".join(tips),
            tips,
        )
        per_user = {arm: step["counts"][arm] / max(c["units"][arm], 1) for arm in arms}
        change = {
            arm: per_user[arm] / per_user[arms[0]] - 1 if per_user[arms[0]] else None
            for arm in arms[1:]
        }
        result.append(
            {
                **step,
                "per_1000": {a: 1000 * rate[name][a] for a in arms},
                "figure": figure,
                "change": change,
                "rare": name in rare,
            }
        )
    return result


def spread(rows: list[dict[str, Any]]) -> Markup:
    """The distributions of one metric, a line for each arm's row."""
    tips = [
        f"{words.title(row['metric'])}, {row['arm']}: half of {words.whole(row['n'])} units between"
        f" {words.number(row['quantiles'][1])} and {words.number(row['quantiles'][3])}, 90% between"
        f" {words.number(row['quantiles'][0])} and {words.number(row['quantiles'][4])}, mean"
        f" {words.number(row['mean'])}"
        for row in rows
    ]
    return figures.boxes(rows, "; ".join(tips), tips)
