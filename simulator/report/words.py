"""Words and numbers of the report: how a lift, a p-value, a verdict reads. Pure functions of report rows; no layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

ALPHA = 0.05

State = Literal["up", "down", "leaning", "unclear", "identical", "no data"]

NAMES: dict[str, str] = {
    "comment": "Comment",
    "forward": "Forward",
    "play": "Play",
    "follow": "Follow",
    "watch_time": "Watch time",
    "click": "Click",
    "like": "Like",
    "sessions": "Sessions",
    "return": "Return",
    "long_view": "Long view",
    "hate": "Hate",
    "profile_enter": "Profile enter",
}
"""What the reader is shown for a metric; an unknown metric shows its own name."""

LOWER_IS_BETTER = frozenset({"hate"})

MARKS: dict[State, str] = {"up": "▲", "down": "▼", "leaning": "◇", "unclear": "○", "identical": "=", "no data": "–"}
"""A sign beside every verdict, so that none is told by colour alone."""

MEANINGS: dict[State, str] = {
    "up": "higher than the control, also after adjustment for the number of comparisons",
    "down": "lower than the control, also after adjustment for the number of comparisons",
    "leaning": "the 95% interval excludes no change, but not after adjustment for the number of comparisons",
    "unclear": "no change is within the interval: neither shown nor excluded",
    "identical": "every unit has the same value in both arms",
    "no data": "too few units to say anything",
}


def name(metric: str) -> str:
    """The metric as the reader is shown it."""
    return NAMES.get(metric, metric)


def state(row: Mapping[str, Any]) -> State:
    """The verdict on one row of `lifts`, at the 5% level over the adjusted p-value."""
    if row["lift"] is None and row["t"] is None and row["control_mean"] != row["treatment_mean"]:
        return "no data"
    if row["control_mean"] is None or row["treatment_mean"] is None or row["n_units"] < 2:
        return "no data"
    if row["p"] is None:
        return "identical" if row["control_mean"] == row["treatment_mean"] else "no data"
    if row["p_adjusted"] is not None and row["p_adjusted"] < ALPHA:
        return "up" if row["treatment_mean"] > row["control_mean"] else "down"
    return "leaning" if row["p"] < ALPHA else "unclear"


def percent(fraction: float | None, digits: int = 3, sign: bool = True) -> str:
    """A fraction in the paper's style: `.00772` -> `+0.772%`; `n/a` for None."""
    if fraction is None or not math.isfinite(fraction):
        return "n/a"
    text = f"{100 * fraction:{'+' if sign else ''}.{digits}f}"
    return ("0" if float(text) == 0 and not sign else text) + "%" if float(text) else f"{0:.{digits}f}%"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`[-0.310%, +1.854%]`; an open end (an unbounded Fieller set) is said in words."""
    if low is None and high is None:
        return "unbounded"
    left = "below" if low is None else percent(low, digits)
    right = "above" if high is None else percent(high, digits)
    return f"[{left}, {right}]"


def probability(p: float | None) -> str:
    """`.034`; below a thousandth `<.001`; `n/a` for None."""
    if p is None:
        return "n/a"
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 0.9995 else "1"


def figure(value: float | None) -> str:
    """A mean to four significant digits, thousands separated."""
    if value is None:
        return "n/a"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def count(n: float | None) -> str:
    """A whole number with thousands separated."""
    return "n/a" if n is None else f"{n:,.0f}"


def sentence(row: Mapping[str, Any], control: str, comparisons: int) -> str:
    """The verdict on one row in plain words.

    Args:
        row: of `lifts`.
        control: name of the control arm.
        comparisons: how many tests the adjusted p-value accounts for.
    """
    what, arm, verdict = name(row["metric"]), row["arm"], state(row)
    per = f"per {row['unit']}"
    if verdict == "no data":
        return f"{what}: nothing can be said of {arm} against {control}: {count(row['n_units'])} units with data {per} are too few to compare."
    if verdict == "identical":
        return f"{what}: identical. All {count(row['n_units'])} {row['unit']}s have the same value under {arm} and under {control}."
    span = interval(row["low"], row["high"])
    size = f"{percent(row['lift'])} {per}, 95% interval {span}"
    p, adjusted = probability(row["p"]), probability(row["p_adjusted"])
    if verdict in ("up", "down"):
        side = "more" if verdict == "up" else "less"
        return f"{what}: {side} under {arm} than under {control}: {size}; p {adjusted} after adjustment for {comparisons} comparisons."
    sees = "" if row["mde"] is None else f" This run would have seen a change of ±{percent(row['mde'], 2, sign=False)} four times in five."
    if verdict == "leaning":
        return f"{what}: not shown. {size}; p {p} on its own, but {adjusted} after adjustment for {comparisons} comparisons.{sees}"
    return f"{what}: no difference shown between {arm} and {control}: {size}; p {p}.{sees}"


def headline(rows: list[Mapping[str, Any]], arm: str, control: str) -> str:
    """One sentence on an arm: how many metrics went up, down, stayed open."""
    states = [state(row) for row in rows if row["arm"] == arm]
    if states and all(s == "identical" for s in states):
        return f"{arm} and {control} are identical: no unit differs in any metric."
    up, down = states.count("up"), states.count("down")
    n = len(states)
    if up == down == 0:
        return f"No difference between {arm} and {control} is shown on any of {n} metrics."
    parts = []
    if up:
        parts.append(f"higher on {up}")
    if down:
        parts.append(f"lower on {down}")
    rest = n - up - down
    return f"{arm} is {' and '.join(parts)} of {n} metrics against {control}" + (f"; {rest} undecided." if rest else ".")
