"""Words and numbers of the report: how a lift, a p-value, a verdict reads. Pure functions of report
rows; no layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from simulator.designs.registry import DESIGNS

LEVEL = 0.05

SIGNS: dict[str, str] = {
    "up": "▲",
    "down": "▼",
    "undecided": "○",
    "identical": "=",
    "not computable": "–",
    "no data": "–",
}
"""A sign beside every verdict (`Lift.words`), so that none is told by colour alone."""

MEANINGS: dict[str, str] = {
    "up": "higher than the control, also after adjustment for the number of comparisons",
    "down": "lower than the control, also after adjustment for the number of comparisons",
    "undecided": "a difference is neither shown nor excluded",
    "identical": "every unit has the same value in both arms",
    "not computable": "the values do not vary within the arms, or are too few: no test is possible",
    "no data": "the log has no data for this metric",
}

LIGHTS: dict[str, str] = {"green": "●", "amber": "▲", "red": "■"}
"""A sign for each colour of a check."""

AGREEMENTS: dict[str, str] = {
    "same sign": "✓ same sign",
    "opposite": "✗ opposite signs",
    "identical": "= identical",
    "undecided": "○ undecided",
}
"""Whether runs or worlds agree on a lift (`world.across`)."""

COMPARED = {name: head for design in DESIGNS.values() for name, head in design.titles.items()}
"""The designs whose sensitivity is compared, in the order of print."""


def compared(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The designs of COMPARED that any of `rows` has users for."""
    there = {name for row in rows for name in row["users"]}
    return {name: shown for name, shown in COMPARED.items() if name in there}


def needed(row: Mapping[str, Any], design: str) -> str:
    """The users that a design needs; `no number` where none suffices, `n/a` where the design was
    not tried.
    """
    n = row["users"].get(design, math.nan)
    return "no number" if n is None else "n/a" if math.isnan(n) else whole(n)


def title(metric: str) -> str:
    """The metric as the reader is shown it: `watch_time` -> `Watch time`."""
    text = metric.replace("_", " ")
    return text[:1].upper() + text[1:]


def tone(verdict: str, higher_is_better: bool | None) -> str:
    """`good`, `bad` or `open`: whether a verdict is welcome, as far as the metric's direction is
    known; a class of the style sheet.
    """
    if verdict not in ("up", "down") or higher_is_better is None:
        return "open"
    return "good" if (verdict == "up") == higher_is_better else "bad"


def welcome(verdict: str, higher_is_better: bool | None) -> str:
    """`worse` or `better` where a difference is shown of a metric of which less is better; else "":
    there the sign says it.
    """
    if verdict not in ("up", "down") or higher_is_better is not False:
        return ""
    return "worse" if verdict == "up" else "better"


def stated(verdict: str, higher_is_better: bool | None) -> str:
    """The verdict as a table shows it: `up`, `undecided`; of a metric of which less is better
    `up: worse`.
    """
    return ": ".join(part for part in (verdict, welcome(verdict, higher_is_better)) if part)


SOURCES = {"": "", "name": "known by its name", "declared": "as declared"}
"""How a direction is known (`Metric.known_by`; reports that were stored before it was said do not
have it), in words.
"""


def better(metric: Mapping[str, Any]) -> str:
    """Which values of a metric are better, and how that is known:
    `lower is better, known by its name`; `metric`: of the content.
    """
    if metric["higher_is_better"] is None:
        return "not known whether higher or lower is better"
    way = f"{'higher' if metric['higher_is_better'] else 'lower'} is better"
    return ", ".join(part for part in (way, SOURCES[metric.get("known_by", "")]) if part)


def directions(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What must be known to read an arrow: of which metrics less is better, and of which the
    direction is not known.
    """
    said = []
    for source, aside in SOURCES.items():
        names = [
            title(n).lower()
            for n, m in metrics.items()
            if m["higher_is_better"] is False and m.get("known_by", "") == source
        ]
        if names:
            how = aside if len(names) == 1 else aside.replace("its name", "their names")
            said.append(f"Less is better{f' ({how})' if how else ''}: {listed(names)}.")
    unknown = [name for name, m in metrics.items() if m["higher_is_better"] is None]
    if unknown:
        what = listed([title(name).lower() for name in unknown])
        said.append(
            f"Not known whether more or less is better: {what}; --better {unknown[0]}=lower (or"
            " =higher) declares it."
        )
    return said


def percent(fraction: float | None, digits: int = 3, sign: bool = True) -> str:
    """A fraction in the paper's style: `.00772` -> `+0.772%`; `n/a` where it is not defined."""
    if fraction is None or not math.isfinite(fraction):
        return "n/a"
    text = f"{100 * abs(fraction):.{digits}f}%"
    if float(text[:-1]) == 0 or (fraction > 0 and not sign):
        return text
    return ("+" if fraction > 0 else "-") + text


def interval(low: float | None, high: float | None, digits: int = 3, sign: bool = True) -> str:
    """`-0.310% to +1.854%`; an end that is open (an unbounded Fieller set) is said in words."""
    if low is None and high is None:
        return "unbounded"
    if low is None:
        return f"below {percent(high, digits, sign)}"
    return (
        f"above {percent(low, digits, sign)}"
        if high is None
        else f"{percent(low, digits, sign)} to {percent(high, digits, sign)}"
    )


def probability(p: float | None) -> str:
    """`.034`; below a thousandth `<.001`; `n/a` where it is not defined."""
    if p is None or math.isnan(p):
        return "n/a"
    if p < 0.001:
        return "<.001"
    return f"{p:.3f}".removeprefix("0")


def number(value: float | None) -> str:
    """A mean to four significant digits, thousands separated; `n/a` where it is not defined."""
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def two(value: float | None) -> str:
    """A correlation or a statistic of a test to two decimals."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.2f}"


def score(value: float, sign: bool = False) -> str:
    """A hit rate or NDCG to four decimals, as papers print it: `.0339`; a difference of two with
    its `sign`.
    """
    if math.isnan(value):
        return "n/a"
    form = "+.4f" if sign else ".4f"
    return re.sub(r"^([+-]?)0\.", r"\1.", format(value, form))


def between(low: float | None, high: float | None, show: Callable[[float | None], str]) -> str:
    """The ends of an interval of numbers: `1.2 to 3.4`; `n/a` where neither is known."""
    return "n/a" if low is None and high is None else f"{show(low)} to {show(high)}"


def whole(n: float | None) -> str:
    """A whole number, thousands separated."""
    return "n/a" if n is None else f"{n:,.0f}"


def detects(mde: float | None) -> str:
    """The smallest detectable lift: `±0.42%`."""
    return "n/a" if mde is None else f"±{percent(mde, 2, sign=False)}"


def sentence(
    row: Mapping[str, Any],
    verdict: str,
    control: str,
    comparisons: int,
    note: str = "",
    higher_is_better: bool | None = None,
) -> str:
    """The verdict on one row in plain words.

    Args:
        row: of `lifts`.
        verdict: its `Lift.words`.
        control: name of the control arm.
        comparisons: how many tests the adjusted p-value accounts for.
        note: what an unbounded interval says (`Lift.note`).
        higher_is_better: of the metric; None: not known.
    """
    aside = f" {sentenced(note)}" if note else ""
    what, arm, unit = title(row["metric"]), row["arm"], row["unit"]
    if verdict == "no data":
        return f"{what}: the log has no data."
    if verdict == "identical":
        return (
            f"{what}: identical. Each of {whole(row['n_units'])} {unit}s has the same value under"
            f" {arm} as under {control}."
        )
    if verdict == "not computable":
        means = (
            f"{number(row['treatment_mean'])} under {arm}, {number(row['control_mean'])} under"
            f" {control}"
        )
        return (
            f"{what}: not computable ({means}): the {whole(row['n_units'])} {unit}s are too few, or"
            f" all {unit}s of an arm have one value, so that nothing tells a difference from"
            " chance."
        )
    size = f"{percent(row['lift'])}, 95% interval {interval(row['low'], row['high'])}"
    if row["lift"] is None:
        size = (
            f"{number(row['treatment_mean'])} against {number(row['control_mean'])} per {unit}; a"
            " relative lift of nothing is not defined"
        )
    adjusted = (
        f"adjusted p {probability(row['p_adjusted'])} over {comparisons} comparisons"
        if comparisons > 1
        else f"p {probability(row['p'])}"
    )
    if verdict in ("up", "down"):
        judged = welcome(verdict, higher_is_better)
        which = f", which is {judged}" if judged else ""
        return (
            f"{what}: {'higher' if verdict == 'up' else 'lower'} under {arm} than under"
            f" {control}{which}: {size} ({adjusted}).{aside}"
        )
    sees = (
        ""
        if row["mde"] is None
        else (
            f" A true change of {detects(row['mde'])} or more would be called so in four runs of"
            " five."
        )
    )
    if row["p"] is not None and row["p"] < LEVEL:
        return (
            f"{what}: not shown. {size}; alone it would pass (p {probability(row['p'])}), "
            f"among all comparisons it does not ({adjusted}).{sees}{aside}"
        )
    return f"{what}: no difference shown: {size} (p {probability(row['p'])}).{sees}{aside}"


def bounded(row: Mapping[str, Any], control: str, higher_is_better: bool | None = None) -> str:
    """The answer to a margin in plain words; `row`: of `margins`, `higher_is_better`: of its
    metric.
    """
    what, arm, margin = title(row["metric"]), row["arm"], percent(row["margin"], 2, sign=False)
    if row["kind"] == "guardrail" and higher_is_better is False:
        what += " (less is better)"
    size = (
        f"{percent(row['lift'])}, {row['level']:.0%} interval {interval(row['low'], row['high'])}"
    )
    aside = f" {sentenced(row['note'])}" if row["note"] else ""
    shown = "identical" if row["p"] is None else f"adjusted p {probability(row['p_adjusted'])}"
    if row["answer"] == "no data":
        return f"{what}: no data."
    said = {
        "safe": f"not worse under {arm} than under {control} by {margin} or more ({shown})",
        "harmed": f"WORSE under {arm} than under {control} by more than {margin}",
        "equivalent": f"the same under {arm} as under {control} to within {margin} ({shown})",
    }.get(row["answer"])
    if said is None and row["kind"] == "guardrail":
        said = (
            f"a {'rise' if higher_is_better is False else 'loss'} of {margin} under {arm} is not"
            f" excluded ({shown})"
        )
    if said is None:
        said = f"a difference of {margin} between {arm} and {control} is not excluded ({shown})"
    return f"{what}: {said}: {size}.{aside}"


def headline(
    verdicts: Iterable[tuple[str, str]],
    arm: str,
    control: str,
    lower_is_better: Collection[str] = (),
) -> str:
    """One sentence on an arm: on which metrics it is higher, lower, or undecided.

    Args:
        verdicts: (metric, `Lift.words`) of the arm's rows by the design's unit.
        arm: the treatment arm.
        control: name of the control arm.
        lower_is_better: the metrics of which less is better.
    """
    given = list(verdicts)
    same = sum(state == "identical" for _, state in given)
    if given and same == len(given):
        return f"{arm} and {control} are identical in every metric."
    if given and all(state in ("not computable", "no data") for _, state in given):
        return (
            f"{arm} and {control} cannot be compared: no test is possible on any of {len(given)}"
            " metrics."
        )
    shown: dict[str, list[str]] = {}
    for turned in (False, True):
        for state, word in (("up", "higher"), ("down", "lower")):
            names = [
                title(m).lower()
                for m, s in given
                if s == state and (m in lower_is_better) == turned
            ]
            if names:
                shown[f"{word}, which is {welcome(state, False)}," if turned else word] = names
    if not shown:
        return f"No difference between {arm} and {control} is shown on any of {len(given)} metrics."
    parts = [f"{how} on {listed(names)}" for how, names in shown.items()]
    rest = len(given) - same - sum(map(len, shown.values()))
    parts += [
        f"{n} of {len(given)} metrics {what}"
        for n, what in ((rest, "undecided"), (same, "identical"))
        if n
    ]
    return f"{arm} against {control}: {'; '.join(parts)}."


def listed(words: list[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


CORRECTIONS: dict[str, str] = {
    "holm": "Holm over {}",
    "hochberg": "Hochberg over {} (valid where the tests are positively dependent)",
    "bh": (
        "Benjamini and Hochberg over {} (of the differences shown, at most 5% are false; a single"
        " one may be)"
    ),
    "none": "none: each p stands alone, and of {} one in twenty is below .05 by chance",
}
"""What `p_adjusted` is corrected by, in words, with the family."""


def uses(columns: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """What columns of a table were taken for, a line for each kind of use, where it is not plain:
    who, where and plain numbers are.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for use in columns:
        if use["note"] or use["role"] in ("covariate", "segment", "left out"):
            alike.setdefault((use["role"], use["note"]), []).append(use["column"])
    for (role, note), names in alike.items():
        taken = (
            "left out"
            if role == "left out"
            else f"taken for {role}s"
            if len(names) > 1
            else f"taken for a {role}"
        )
        yield f"{listed(names)}: {taken}{f', {note}' if note else ''}"


def corrected(content: Mapping[str, Any]) -> str:
    """How p was adjusted, and over which family."""
    return CORRECTIONS[content["choices"]["correction"]].format(content["family"])


def errors_by_day(audit: Mapping[str, Any] | None, paired: bool) -> str:
    """How often a table by day errs: what the run's own audit has counted, or why nobody can rely
    on it.
    """
    if not paired:
        return (
            "The same users make up an arm on every day, so that what differs between them by"
            " chance differs on all days alike: this table finds differences where there are none"
            " several times as often as in 5 of 100 runs. Do not decide on it."
        )
    why = (
        "Days of the same users are not independent, and what differs between the days counts as"
        " noise"
    )
    found = (audit or {}).get("by_day")
    if not found:
        return (
            f"{why}: it may find differences where there are none more often than in 5 of 100 runs;"
            " abtest audit counts how often."
        )
    error, cover = found["error"], found["coverage"]
    return (
        f"{why}: audited on this run's own users, it finds differences where there are none in"
        f" {_between(error)} of tests in place of 5%, and its intervals cover the true lift in"
        f" {_between(cover)} in place of 95%."
    )


def _between(ends: Iterable[float]) -> str:
    low, high = (percent(end, 1, sign=False) for end in ends)
    return low if low == high else f"{low} to {high}"


def reds(content: Mapping[str, Any]) -> list[str]:
    """What must be said of a report even where nothing else is: its red checks, a sentence each."""
    return [
        f"red: {check['name']}. {check['value']} {check['meaning']}"
        for check in content["checks"]
        if check["status"] == "red"
    ]


def typeset(text: str) -> str:
    """A hyphen before a number becomes a minus sign, and no line breaks between p and its value."""
    return re.sub(r"(?<![\w.-])-(?=[\d.])", "−", re.sub(r"\bp (?=[.<]|1\.000)", "p\u00a0", text))


def sentenced(text: str) -> str:
    """A phrase as a sentence: a capital first, a stop at the end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
