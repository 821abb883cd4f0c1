"""The report as one self-contained HTML page: no network, readable without script, on a phone, in print, in light and dark."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.report import figures, words

LEVELS = {"none": 0, "low": 1, "middle": 2, "high": 3}
"""The order of levels that have one; others stay in the order of the alphabet."""


def page(content: Mapping[str, Any]) -> str:
    """The page of a gathered report. All text of the content is escaped."""
    daily = _daily(content)
    return render(
        "report.html.j2",
        c=content,
        forests=_forests(content),
        daily=daily,
        sequential=_sequential(content) if content["sequential"] else [],
        same_daily=[words.title(name).lower() for name in content["metrics"] if name not in {plot["metric"] for plot in daily}],
        funnel=_funnel(content) if content["funnel"] else [],
        spread=_spread(content),
        segments=_segments(content) if content["segments"] else [],
        settings=settings(content),
        command=command(content),
    )


def render(template: str, **given: Any) -> str:
    """A page of ours with its style and script within; the content security policy admits that one script and no request."""
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment().get_template(template).render(style=Markup(_asset("report.css")), script=Markup(script), script_hash=digest, **given)
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("simulator.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "SIGNS": words.SIGNS,
        "AGREEMENTS": words.AGREEMENTS,
        "MEANINGS": words.MEANINGS,
        "DESIGNS": words.DESIGNS,
        "listed": words.listed,
        "compared": words.compared,
        "needed": words.needed,
    }
    environment.globals |= {"swatch": figures.swatch, "shown": _shown, "interval": lambda low, high: typeset(words.interval(low, high))}
    environment.filters |= {name: getattr(words, name) for name in ("probability", "number", "whole", "detects", "title")}
    environment.filters |= {"typeset": typeset, "percent": lambda *given: typeset(words.percent(*given))}
    return environment


@cache
def _asset(name: str) -> str:
    return files("simulator.report").joinpath("templates", name).read_text(encoding="utf-8")


def typeset(text: str) -> str:
    """A hyphen before a number becomes a minus sign."""
    return re.sub(r"(?<![\w.-])-(?=[\d.])", "−", text)


def _shown(row: Mapping[str, Any], key: str, how: str) -> str:
    """A cell of the table of all numbers; an open end of an interval is said in words."""
    if key in ("low", "high") and row[key] is None and row["lift"] is not None:
        return "unbounded"
    text: str = getattr(words, how)(row[key])
    return typeset(text)


def settings(content: Mapping[str, Any]) -> str:
    """The resolved scenario as YAML, as the log carries it."""
    import yaml

    return (
        yaml.safe_dump(dict(content["settings"]), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)
        if content["settings"]
        else ""
    )


def command(content: Mapping[str, Any]) -> str:
    """The command that repeats the run from the scenario that the report prints."""
    return "abtest run " + shlex.quote(f"{content['scenario'] or 'scenario'}.yaml")


def _forests(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The forest plot of each arm: its rows by user, all arms on one scale."""
    rows = [(row, said) for row, said in zip(content["lifts"], content["verdicts"], strict=True) if row["unit"] == content["unit"]]
    scale = figures.around_zero(row for row, _ in rows)
    return [
        {**said, "axis": figures.axis(scale), "rows": [_line(content, *pair, scale) for pair in rows if pair[0]["arm"] == said["arm"]]}
        for said in content["headlines"]
    ]


def _line(content: Mapping[str, Any], row: Mapping[str, Any], said: Mapping[str, str], scale: figures.Scale) -> dict[str, Any]:
    tone = words.tone(said["verdict"], content["metrics"][row["metric"]]["higher_is_better"])
    return {"row": row, "said": said, "tone": tone, "strip": figures.strip(row, scale, tone, typeset(figures.spoken(row)))}


def _daily(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One small figure for each metric whose arms differ on some day: each day alone, with its interval."""

    def points(metric: str, arm: str) -> list[figures.Point]:
        rows = [row for row in content["daily"] if row["metric"] == metric and row["arm"] == arm]
        tips = [typeset(f"Day {row['day'] + 1}. {figures.spoken(row)}") for row in rows]
        return [(row["day"], row["lift"], row["low"], row["high"], tip) for row, tip in zip(rows, tips, strict=True)]

    return _over_days(content, points, "lift over {control} on each day with 95% interval, for {arms}", band=False)


def _sequential(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One small figure for each metric: the lift of all days so far within its confidence sequence."""
    peeks = {(peek["metric"], peek["arm"]): peek for peek in content["sequential"]}

    def points(metric: str, arm: str) -> list[figures.Point]:
        found = []
        for look in peeks[metric, arm]["looks"] if (metric, arm) in peeks else ():
            low, high = look["sequence_low"], look["sequence_high"]
            said = f"{words.title(metric)}, {arm}: {words.percent(look['lift'])}, confidence sequence {words.interval(low, high)}"
            found.append((look["day"] - 1, look["lift"], low, high, typeset(f"After day {look['day']}. {said}")))
        return found

    return _over_days(content, points, "lift over {control} of all days so far with its confidence sequence, for {arms}", band=True)


def _over_days(
    content: Mapping[str, Any], points: Callable[[str, str], list[figures.Point]], what: str, *, band: bool
) -> list[dict[str, Any]]:
    treatments = content["arms"][1:]
    what = what.format(control=content["control"], arms=words.listed(treatments))
    plots = []
    for metric in content["metrics"]:
        series = [figures.Series(arm, i, points(metric, arm)) for i, arm in enumerate(treatments, 1)]
        if any(point[1] for one in series for point in one.points):
            figure = figures.over_days(series, content["size"]["days"], f"{words.title(metric)}: {what}", band=band)
            plots.append({"metric": metric, "figure": figure})
    return plots


def _funnel(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The funnel's steps with a bar for each arm; bars of two groups of steps (the way to a view, what follows it) share a scale each."""
    arms, steps = content["arms"], content["funnel"]
    impressions = next(step["counts"] for step in steps if step["step"] == "impressions")
    rate = {step["step"]: {a: step["counts"][a] / max(impressions[a], 1) for a in arms} for step in steps}
    rare = {name for name, by_arm in rate.items() if name not in ("users", "sessions", "requests") and max(by_arm.values()) < 0.1}
    limits = {
        flag: max((v for n, by_arm in rate.items() if (n in rare) == flag for v in by_arm.values()), default=1.0) for flag in (True, False)
    }
    result = []
    for step in steps:
        name = step["step"]
        tips = [
            f"{words.title(name)}, {arm}: {words.whole(step['counts'][arm])}, {words.number(1000 * rate[name][arm])} per 1,000 impressions"
            for arm in arms
        ]
        figure = figures.bars([(arm, i, rate[name][arm]) for i, arm in enumerate(arms)], limits[name in rare], "; ".join(tips), tips)
        per_user = {arm: step["counts"][arm] / max(content["units"][arm], 1) for arm in arms}
        change = {arm: per_user[arm] / per_user[arms[0]] - 1 if per_user[arms[0]] else None for arm in arms[1:]}
        result.append(
            {**step, "per_1000": {a: 1000 * rate[name][a] for a in arms}, "figure": figure, "change": change, "rare": name in rare}
        )
    return result


def _segments(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each group of users: its levels, and a line for each metric and arm with the lift in every level and the interaction test."""
    found = []
    given = content["segments"]
    for group in dict.fromkeys(row["group"] for row in given["rows"]):
        cells = {(row["metric"], row["arm"], row["level"]): row for row in given["rows"] if row["group"] == group}
        levels = sorted(dict.fromkeys(level for _, _, level in cells), key=lambda level: LEVELS.get(level, 0))
        lines = [
            {**test, "cells": [cells.get((test["metric"], test["arm"], level)) for level in levels]}
            for test in given["interactions"]
            if test["group"] == group
        ]
        sizes = [max(row["n_units"] for (_, _, at), row in cells.items() if at == level) for level in levels]
        found.append({"group": group, "levels": list(zip(levels, sizes, strict=True)), "lines": lines})
    return found


def _spread(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each metric the rows of its distribution in every arm, and their figure."""
    groups = []
    for metric in content["metrics"]:
        rows = [row for row in content["distributions"] if row["metric"] == metric]
        if rows:
            tips = [
                f"{words.title(metric)}, {row['arm']}: half of {words.whole(row['n'])} units between {words.number(row['quantiles'][1])} "
                f"and {words.number(row['quantiles'][3])}, 90% between {words.number(row['quantiles'][0])} and "
                f"{words.number(row['quantiles'][4])}, mean {words.number(row['mean'])}"
                for row in rows
            ]
            groups.append({"metric": metric, "rows": rows, "figure": figures.boxes(rows, "; ".join(tips), tips)})
    return groups
