"""A replay as one self-contained HTML page, in the dress of the A/B report. Every number comes from
the gathered content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from simulator.offpolicy.result import COVERED_OFTEN, headline, number, share
from simulator.page.figures import Scale, element, mark
from simulator.page.html import seen

TONES = {"trustworthy": "good", "weak": "open", "unusable": "bad", None: "open"}
SIGNS = {"trustworthy": "●", "weak": "◐", "unusable": "○", None: "·"}


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The page; all text of the content is escaped."""
    style = (
        files("simulator.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    )
    template = _environment().get_template("replay.html.j2")
    return template.render(
        results=[_drawn(result) for result in results], style=Markup(style), note=COVERED_OFTEN
    )


@cache
def _environment() -> Environment:
    loader = PackageLoader("simulator.offpolicy", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=seen,
    )
    environment.filters |= {"number": number, "share": share}
    environment.globals |= {"TONES": TONES, "SIGNS": SIGNS, "headline": headline}
    return environment


def _drawn(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with a figure beside every estimate and a curve for every threshold."""
    policies = []
    for policy in result["policies"]:
        scale = _scale(policy, result["logged"]["value"])
        rows = [
            {**row, "strip": _strip(row, scale, policy["truth"])}
            for row in policy["estimates"]
            if not row["refused"]
        ]
        refused = [row for row in policy["estimates"] if row["refused"]]
        curves = [
            {"estimator": row["estimator"], "points": row["curve"], "figure": _curve(row)}
            for row in rows
            if row["curve"]
        ]
        policies.append(
            {**policy, "rows": rows, "refused": refused, "curves": curves, "axis": _axis(scale)}
        )
    return {**result, "policies": policies}


def _scale(policy: Mapping[str, Any], logged: float) -> Scale:
    """From the middle half of all ends of intervals, twice as wide, the truth and the log's own
    value inside.
    """
    ends = sorted(
        v
        for row in policy["estimates"]
        if not row["refused"]
        for v in (row["low"], row["high"], row["value"])
        if v is not None
    )
    inner = ends[len(ends) // 8 : len(ends) - len(ends) // 8] or [logged]
    if policy["truth"]:
        inner = [*inner, policy["truth"]["low"], policy["truth"]["high"]]
    low, high = min([*inner, logged]), max([*inner, logged])
    margin = (high - low or abs(high) or 1.0) * 0.08
    return Scale(low - margin, high + margin, 2, 98)


def _strip(row: Mapping[str, Any], scale: Scale, truth: Mapping[str, Any] | None) -> Markup:
    """The interval and the estimate on the common scale; the truth as a band behind it."""
    said = (
        f"{row['estimator']}: {number(row['value'])}, 95% interval {number(row['low'])} to"
        f" {number(row['high'])}"
    )
    parts = []
    if truth is not None:
        left, right = scale(truth["low"]), scale(truth["high"])
        parts.append(
            element(
                "rect",
                x=f"{left:.2f}%",
                width=f"{right - left:.2f}%",
                y=2,
                height=20,
                fill="currentColor",
                opacity=".12",
            )
        )
        parts.append(
            element(
                "line",
                x1=scale.at(truth["value"]),
                x2=scale.at(truth["value"]),
                y1=2,
                y2=22,
                class_="zero",
            )
        )
    shapes = []
    if row["low"] is not None:
        shapes.append(
            element(
                "line",
                x1=scale.at(row["low"]),
                x2=scale.at(row["high"]),
                y1=12,
                y2=12,
                class_="bar",
            )
        )
    if row["value"] is not None:
        shapes.append(element("circle", cx=scale.at(row["value"]), cy=12, r=4, class_="dot"))
    tone = TONES[row["verdict"]]
    return element(
        "svg",
        *parts,
        mark(said, *shapes, class_=tone),
        role="img",
        aria_label=said,
        width="100%",
        height=24,
    )


def _axis(scale: Scale) -> Markup:
    parts = [
        element(
            "text", number(tick, 3), x=scale.at(tick), y=13, class_="tick", text_anchor="middle"
        )
        for tick in scale.ticks(5)
    ]
    return element("svg", *parts, class_="axis", aria_hidden="true", width="100%", height=18)


def _curve(row: Mapping[str, Any]) -> Markup:
    """Value with one standard error to either side, by threshold (in equal steps)."""
    points = [
        point for point in row["curve"] if point["value"] is not None and point["error"] is not None
    ]
    if not points:
        return Markup("")
    low, high = (
        min(p["value"] - p["error"] for p in points),
        max(p["value"] + p["error"] for p in points),
    )
    y = Scale(low, high if high > low else low + 1e-9, 118, 8)
    x = Scale(-0.5, len(points) - 0.5, 18, 99)
    parts = [
        element(
            "text", number(v, 3), x="17%", y=f"{y(v) + 4:.1f}", class_="tick", text_anchor="end"
        )
        for v in (low, high)
    ]
    for i, p in enumerate(points):
        said = (
            f"threshold {number(p['threshold'])}: {number(p['value'])}, se {number(p['error'])},"
            f" bias {number(p['bias'])}"
        )
        bar = element(
            "line",
            x1=x.at(i),
            x2=x.at(i),
            y1=f"{y(p['value'] - p['error']):.1f}",
            y2=f"{y(p['value'] + p['error']):.1f}",
            class_="bar thin",
        )
        chosen = p["threshold"] == row["threshold"]
        dot = element(
            "circle", cx=x.at(i), cy=f"{y(p['value']):.1f}", r=5 if chosen else 3, class_="dot"
        )
        parts.append(mark(said, bar, dot, class_="arm-1" if chosen else "arm-0"))
        parts.append(
            element(
                "text",
                _short(p["threshold"]),
                x=x.at(i),
                y=138,
                class_="tick",
                text_anchor="middle",
            )
        )
    return element(
        "svg",
        *parts,
        role="img",
        aria_label=f"{row['estimator']} by threshold",
        width="100%",
        height=144,
    )


def _short(threshold: float | str) -> str:
    """A threshold as a tick: 30, 1k, 1M, ∞."""
    if isinstance(threshold, str):
        return "∞"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if threshold >= size:
            return f"{threshold / size:g}{letter}"
    return f"{threshold:g}"
