"""The sentences of a report: how a verdict, a margin, a direction or a need of users reads. Pure
functions of what a report says; numbers are written by `simulator.page.words`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from simulator.designs.registry import DESIGNS
from simulator.page.words import (
    detects,
    interval,
    is_defined,
    listed,
    number,
    percent,
    probability,
    sentenced,
    share,
    title,
    whole,
)
from simulator.stats.adjustment import MISSING
from simulator.stats.fit_checks import unseen_failures
from simulator.stats.tests import Correction
from simulator.stats.verdict import FAMILIES, Family, correction_in

if TYPE_CHECKING:
    from simulator.report.content import (
        AuditSummary,
        Content,
        MetricNote,
        Users,
        Verdict,
    )
    from simulator.stats.decision import Decision, Reason
    from simulator.stats.margins import Margin
    from simulator.stats.methods import MethodLift
    from simulator.stats.unit_table import Use
    from simulator.stats.verdict import Lift

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

AGREEMENTS: dict[str, str] = {
    "same sign": "✓ same sign",
    "opposite": "✗ opposite signs",
    "identical": "= identical",
    "undecided": "○ undecided",
}
"""Whether runs or worlds agree on a lift (`content.Across`)."""

COMPARED = {name: head for design in DESIGNS.values() for name, head in design.titles.items()}
"""The designs whose sensitivity is compared, in the order of print."""


class NeedsUsers(Protocol):
    """A row that says how many users each design needs."""

    @property
    def users(self) -> Users: ...


def compared(rows: Iterable[NeedsUsers]) -> dict[str, str]:
    """The designs of COMPARED that any of `rows` has users for."""
    tried = {name for row in rows for name in row.users}
    return {name: shown for name, shown in COMPARED.items() if name in tried}


def needed(row: NeedsUsers, design: str) -> str:
    """The users that a design needs; `no number` where none suffices, `n/a` where the design was
    not tried.
    """
    if design not in row.users:
        return "n/a"
    n = row.users[design]
    return "no number" if n is None else whole(n)


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


def method_line(c: Content) -> str | None:
    """Of what the lifts on the first screen speak, in a line; None where no scenario says it."""
    if not c.methods:
        return None
    models = "These lifts are of the models that were trained."
    reasons = {method.unknown for method in c.methods} - {None}
    if len(reasons) == 0:
        line = f"{models} Of the methods: fits are as random as {c.assigned}s."
        return " ".join(filter(None, (line, unseen_failures(c.fits))))
    return f"{models} Of the methods: not known, {listed(sorted(map(str, reasons)))}."


def more_fits(row: MethodLift) -> str:
    """What more fits would do where they are the larger part of what is not known."""
    share, name = row.components.share_of_fits, title(row.lift.metric).lower()
    shorter = 1.0 - math.sqrt(1.0 - share / 2.0)
    return (
        f"{share:.0%} of what is not known of {name} is the luck of training: more users will not"
        f" lessen it, twice the fits would make the interval {shorter:.0%} shorter."
    )


def stated(verdict: str, higher_is_better: bool | None) -> str:
    """The verdict as a table shows it: `up`, `undecided`; of a metric of which less is better
    `up: worse`.
    """
    return ": ".join(part for part in (verdict, welcome(verdict, higher_is_better)) if part)


SOURCES = {"": "", "name": "known by its name", "declared": "as declared"}
"""How a direction is known (`Metric.known_by`), in words."""


def better(metric: MetricNote) -> str:
    """Which values of a metric are better, and how that is known:
    `lower is better, known by its name`.
    """
    if metric.higher_is_better is None:
        return "not known whether higher or lower is better"
    way = f"{'higher' if metric.higher_is_better else 'lower'} is better"
    return ", ".join(part for part in (way, SOURCES[metric.known_by]) if part)


def directions(metrics: Mapping[str, MetricNote]) -> list[str]:
    """What must be known to read an arrow: of which metrics less is better, and of which the
    direction is not known.
    """
    sentences = []
    for source, aside in SOURCES.items():
        names = [
            title(name).lower()
            for name, metric in metrics.items()
            if metric.higher_is_better is False and metric.known_by == source
        ]
        if names:
            how = aside if len(names) == 1 else aside.replace("its name", "their names")
            sentences.append(f"Less is better{f' ({how})' if how else ''}: {listed(names)}.")
    unknown = [name for name, metric in metrics.items() if metric.higher_is_better is None]
    if unknown:
        what = listed([title(name).lower() for name in unknown])
        sentences.append(
            f"Not known whether more or less is better: {what}; --better {unknown[0]}=lower (or"
            " =higher) declares it."
        )
    return sentences


def analysed(metrics: Mapping[str, MetricNote]) -> list[str]:
    """How metrics are analysed that are not plain means or ratios: of which quantiles they are,
    what is cut, and for what of the past they are adjusted.
    """
    sentences = []
    for name, metric in metrics.items():
        what = title(name)
        if metric.quantile is not None:
            sentences.append(f"{what}: the {share(metric.quantile)} quantile, not the mean.")
        if metric.winsorise:
            cut = share(metric.winsorise)
            sentences.append(f"{what}: winsorised, the largest {cut} cut down to the next value.")
    past: dict[tuple[str, ...], list[str]] = {}
    for name, metric in metrics.items():
        if metric.covariates:
            past.setdefault(metric.covariates, []).append(title(name))
    for columns, names in past.items():
        before = listed([column for column in columns if not column.endswith(MISSING)])
        gaps = " with its gaps" if any(column.endswith(MISSING) for column in columns) else ""
        sentences.append(
            f"{listed(names)}: adjusted for {before}, from before the test{gaps} (CUPED)."
        )
    return sentences


def in_words(
    decision: Decision | None,
    rows: Iterable[Lift],
    margins: Iterable[Margin],
    assigned: str = "user",
) -> Decision | None:
    """The decision with its sentences. `assigned`: what users were assigned by, one by one or in
    clusters.
    """
    if decision is None:
        return None
    by_row = {(row.arm, row.metric): row for row in rows}
    guards = {(one.arm, one.metric): one for one in margins if one.kind == "guardrail"}
    arms = []
    for one in decision.arms:
        reasons = [
            _reason(
                reason,
                by_row.get((one.arm, reason.subject)),
                guards.get((one.arm, reason.subject)),
                assigned,
            )
            for reason in one.reasons
        ]
        safe = [title(metric).lower() for arm, metric in guards if arm == one.arm]
        if one.answer == "ship" and safe:
            reasons.append(f"{listed(safe)} {'are' if len(safe) > 1 else 'is'} safe")
        sentence = f"{one.answer.capitalize()} {one.arm}: {'; '.join(reasons)}."
        is_known = all(reason.cause != "unknown" for reason in one.reasons)
        if decision.on == "methods" and is_known:
            sentence += f" Decided on the methods: fits are as random as {assigned}s."
        arms.append(replace(one, sentence=sentence))
    return replace(decision, arms=tuple(arms))


def _reason(reason: Reason, row: Lift | None, guard: Margin | None, assigned: str) -> str:
    """A reason of a decision, a clause."""
    if reason.cause == "red":
        return f"a check is red ({reason.subject.lower()}), so no lift may be acted on"
    if reason.cause == "unknown":
        return f"nothing is known of its method ({reason.subject})"
    name, size = title(reason.subject).lower(), "" if row is None else f" ({percent(row.lift)})"
    if reason.cause == "unsound":
        return f"{name} differs{size}, which it must not in a sound test"
    if reason.cause in ("better", "worse"):
        return f"{name} is {reason.cause}{size}"
    margin = "its margin" if guard is None else margin_size(guard)
    if reason.cause == "harmed":
        return f"{name} is worse by more than {margin}{size}"
    if reason.cause == "worse within":
        return f"{name} is worse{size}, by less than {margin}: a trade that is yours to judge"
    what = f"{name} is not shown to be better{size}"
    if reason.cause == "unsafe":
        what = f"a loss of {margin} of {name} is not excluded{size}"
    if row is not None and row.words in UNTESTED:
        return f"{what}: no test is possible, because {UNTESTED[row.words]}"
    unit = assigned if row is None or row.unit == "user" else row.unit
    return f"{what}, {_missing(reason, unit)}"


def adjusted_interval(row: Lift, digits: int = 3) -> str:
    """The interval that goes with the verdict of a row; `n/a` where no test is possible."""
    if row.words in UNTESTED or not is_defined(row.lift):
        return "n/a"
    return interval(row.low_adjusted, row.high_adjusted, digits)


UNTESTED = {
    "not computable": "too few units have it, or it does not vary within the arms",
    "no data": "there is no data of it",
}
"""Why a row has no test, by its words: nothing can be said of what would show it."""


def _missing(reason: Reason, unit: str) -> str:
    """What would show what was not shown."""
    if unit in ("item", "author"):
        return f"and more users or fits would not show it: its units are the catalogue's {unit}s"
    ways = []
    if is_defined(reason.users):
        ways.append(f"{whole(reason.users)} more {unit}s")
    if is_defined(reason.fits):
        ways.append(f"{whole(reason.fits)} more fits")
    if not ways:
        return f"and would not be by any number of {unit}s or fits if the truth is as measured"
    together = " and " if reason.both else " or "
    return f"and needs {together.join(ways)} if the truth is as measured"


def margin_size(row: Margin) -> str:
    """A margin as it was declared: `1.00%`, or `20` in the metric's own units."""
    return number(row.margin) if row.absolute else percent(row.margin, 2, sign=False)


def verdict_sentence(
    row: Lift,
    control: str,
    comparisons: int,
    higher_is_better: bool | None = None,
    assigned: str = "user",
) -> str:
    """The verdict on one row in plain words.

    Args:
        row: of the verdict.
        control: name of the control arm.
        comparisons: how many tests the adjusted p-value accounts for.
        higher_is_better: of the metric; None: not known.
        assigned: what users were assigned by, one by one or in clusters.
    """
    aside = _aside(row)
    what, arm, words = title(row.metric), row.arm, row.words
    unit = assigned if row.unit == "user" else row.unit
    if words == "no data":
        return f"{what}: the log has no data."
    if words == "identical":
        return (
            f"{what}: identical. Each of {whole(row.n_units)} {unit}s has the same value under"
            f" {arm} as under {control}."
        )
    means = f"{number(row.treatment_mean)} under {arm}, {number(row.control_mean)} under {control}"
    if words == "not computable":
        return (
            f"{what}: not computable ({means}): the {whole(row.n_units)} {unit}s are too few, or"
            f" all {unit}s of an arm have one value, so that nothing tells a difference from"
            " chance."
        )
    ends = interval(row.low_adjusted, row.high_adjusted)
    which = f"adjusted {share(row.confidence)}" if comparisons > 1 else share(row.confidence)
    size = f"{percent(row.lift)}, {which} interval {ends}"
    if not is_defined(row.lift):
        size = (
            f"{number(row.treatment_mean)} against {number(row.control_mean)} per {row.unit};"
            " a relative lift of nothing is not defined"
        )
    p = "p" if row.alternative == "two-sided" else "one-sided p"
    alone = f"{p} {probability(row.p)}"
    adjusted = alone
    if comparisons > 1:
        adjusted = f"adjusted {p} {probability(row.p_adjusted)} over {comparisons} comparisons"
    if words in ("up", "down"):
        way = "higher" if words == "up" else "lower"
        quality = welcome(words, higher_is_better)
        which = f", which is {quality}" if quality else ""
        return f"{what}: {way} under {arm} than under {control}{which}: {size} ({adjusted}).{aside}"
    sees = ""
    if is_defined(row.mde):
        sees = (
            f" A true change of {detects(row.mde)} or more would be called so in four runs of five."
        )
    if row.p < 1.0 - row.confidence:
        return (
            f"{what}: not shown. {size}; alone it would pass ({alone}), among all comparisons it"
            f" does not ({adjusted}).{sees}{aside}"
        )
    shown = {"two-sided": "no difference", "greater": "no rise", "less": "no fall"}
    return f"{what}: {shown[row.alternative]} shown: {size} ({alone}).{sees}{aside}"


def in_short(c: Content, rows: Iterable[tuple[Lift, Verdict]]) -> Iterator[tuple[str, str]]:
    """What the table of an arm does not say of its rows, each with its sign: the means that differ,
    what would pass alone, and how large a difference may have been missed.
    """
    undecided: list[Lift] = []
    for row, verdict in rows:
        name, words = title(row.metric), verdict.verdict
        if words in ("no data", "not computable", "identical"):
            yield SIGNS[words], verdict.sentence
        elif words in ("up", "down"):
            direction = c.metrics[row.metric].higher_is_better
            quality = ""
            if direction is not None:
                quality = " better:" if (words == "up") == direction else " worse:"
            yield (
                SIGNS[words],
                f"{name} is{quality} {number(row.treatment_mean)} under {row.arm},"
                f" {number(row.control_mean)} under {c.control}.{_aside(row)}",
            )
        else:
            undecided.append(row)
            if row.p < 1.0 - row.confidence:
                yield (
                    SIGNS[words],
                    f"{name} would pass alone (p {probability(row.p)}); among all comparisons it"
                    f" does not.{_aside(row)}",
                )
            elif row.note:
                yield SIGNS[words], f"{name}:{_aside(row)}"
    missed = sorted((row for row in undecided if is_defined(row.mde)), key=lambda row: row.mde)
    if missed:
        least, most = missed[0], missed[-1]
        ends = f"{detects(least.mde)} ({title(least.metric).lower()})"
        if len(missed) > 1:
            ends += f" to {detects(most.mde)} ({title(most.metric).lower()})"
        yield (
            SIGNS["undecided"],
            "Undecided is not the same as equal: true changes below what is detected here,"
            f" {ends}, may have been missed.",
        )


def _aside(row: Lift | Margin) -> str:
    return f" {sentenced(row.note)}" if row.note else ""


def margin_sentence(row: Margin, control: str, higher_is_better: bool | None = None) -> str:
    """The answer to a margin in plain words; `higher_is_better`: of its metric."""
    what, arm, margin = title(row.metric), row.arm, margin_size(row)
    if row.kind == "guardrail" and higher_is_better is False:
        what += " (less is better)"
    if row.answer == "no data":
        return f"{what}: no data."
    size = f"{percent(row.lift)}, {row.level:.0%} interval {interval(row.low, row.high)}"
    if row.absolute:
        ends = f"{number(row.low)} to {number(row.high)}"
        size = f"a difference of {number(row.lift)}, {row.level:.0%} interval {ends}"
    aside = _aside(row)
    shown = "identical"
    if is_defined(row.p):
        which = "p" if row.kind == "guardrail" else "adjusted p"
        shown = f"{which} {probability(row.p_adjusted)}"
    answers = {
        "safe": f"not worse under {arm} than under {control} by {margin} or more ({shown})",
        "harmed": f"WORSE under {arm} than under {control} by more than {margin}",
        "equivalent": f"the same under {arm} as under {control} to within {margin} ({shown})",
    }
    not_shown = f"a difference of {margin} between {arm} and {control} is not excluded ({shown})"
    if row.kind == "guardrail":
        way = "rise" if higher_is_better is False else "loss"
        not_shown = f"a {way} of {margin} under {arm} is not excluded ({shown})"
    return f"{what}: {answers.get(row.answer, not_shown)}: {size}.{aside}"


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
    pairs = list(verdicts)
    n = len(pairs)
    anywhere = f"any of {n} metrics" if n != 1 else title(pairs[0][0]).lower()
    same = sum(words == "identical" for _, words in pairs)
    if pairs and same == n:
        return f"{arm} and {control} are identical in every metric."
    if pairs and all(words in ("not computable", "no data") for _, words in pairs):
        return f"{arm} and {control} cannot be compared: no test is possible on {anywhere}."
    shown: dict[str, list[str]] = {}
    for less_is_better in (False, True):
        for words, way in (("up", "higher"), ("down", "lower")):
            names = [
                title(metric).lower()
                for metric, own in pairs
                if own == words and (metric in lower_is_better) == less_is_better
            ]
            how = f"{way}, which is {welcome(words, False)}," if less_is_better else way
            if names:
                shown[how] = names
    if not shown:
        return f"No difference between {arm} and {control} is shown on {anywhere}."
    parts = [f"{how} on {listed(names)}" for how, names in shown.items()]
    rest = n - same - sum(map(len, shown.values()))
    if rest:
        parts.append(f"{rest} of {n} metrics undecided")
    if same:
        parts.append(f"{same} of {n} metrics identical")
    return f"{arm} against {control}: {'; '.join(parts)}."


FAMILY_WORDS: dict[Family, str] = {
    "success": "the success metrics",
    "safety": "guardrails, deterioration and quality metrics",
    "exploratory": "the other metrics",
}
"""Families of tests (`verdict.FAMILIES`) in words."""

CORRECTIONS: dict[str, str] = {
    "holm": "Holm over {}",
    "bonferroni": "Bonferroni over {}",
    "hochberg": "Hochberg over {} (valid where the tests are positively dependent)",
    "bh": (
        "Benjamini and Hochberg over {} (of the differences shown, at most {alpha} are false; a"
        " single one may be)"
    ),
    "dunnett": "Dunnett, by the joint t distribution of {}",
    "none": "none: each p stands alone, and of {} {alpha} are below {alpha} by chance",
}
"""What `p_adjusted` is corrected by, in words, with the family."""


def uses(columns: Iterable[Use]) -> Iterator[str]:
    """What columns of a table were taken for, a line for each kind of use, where it is not plain:
    who, where and plain numbers are.
    """
    alike: dict[tuple[str, str], list[str]] = {}
    for use in columns:
        if use.note or use.role in ("covariate", "segment", "left out"):
            alike.setdefault((use.role, use.note), []).append(use.column)
    for (role, note), names in alike.items():
        taken = f"taken for a {role}" if len(names) == 1 else f"taken for {role}s"
        if role == "left out":
            taken = "left out"
        yield f"{listed(names)}: {taken}{f', {note}' if note else ''}"


def gained(content: Content) -> Iterator[str]:
    """What adjustment makes of the lifts, a line for each kind."""
    ways = {"CUPED": "the pre-period (CUPED)"}
    if content.predictors:
        made = f"predictions from {listed(content.predictors)} (MLRATE)"
        ways = {"predictions": made, **ways}
    used = "predictions" if content.predictors else "CUPED"
    for by, what in ways.items():
        several = len({gain.arm for gain in content.gains}) > 1
        gains = [
            f"{title(gain.metric).lower()}{f' of {gain.arm}' if several else ''}"
            f" {percent(gain.users, 0)}"
            for gain in content.gains
            if gain.by == by
        ]
        if gains:
            lead = "Adjusted for" if by == used else "Not used,"
            yield f"{lead} {what}: as precise as with so many more users: {listed(gains)}."


def corrected(content: Content) -> str:
    """How p was adjusted, and over which family."""
    chosen, alpha = content.choices.correction, share(1.0 - content.choices.level)
    roles = {note.role for note in content.metrics.values()}
    if roles <= {"exploratory"} or chosen == "none":
        return CORRECTIONS[chosen].format(content.family, alpha=alpha)
    families: dict[Correction, list[str]] = {}
    for family, what in FAMILY_WORDS.items():
        if any(FAMILIES[role] == family for role in roles):
            families.setdefault(correction_in(family, chosen), []).append(what)
    corrections = []
    for own, whats in families.items():
        over = listed(whats) if len(whats) == 1 else f"{listed(whats)}, each by themselves"
        corrections.append(CORRECTIONS[own].format(over, alpha=alpha))
    return f"{'; '.join(corrections)} (a family: {content.family})"


def sides(content: Content) -> list[str]:
    """What one-sided tests ask, where they are chosen."""
    if content.choices.alternative == "two-sided":
        return []
    open_ones = [
        title(name).lower()
        for name, metric in content.metrics.items()
        if metric.higher_is_better is None or metric.role == "quality"
    ]
    kept = f" Two-sided: {listed(open_ones)}." if open_ones else ""
    return [
        "One-sided tests: is a metric better, is a guardrail or a deterioration metric worse?"
        f" Intervals have one end.{kept}"
    ]


def errors_by_day(audit: AuditSummary | None, paired: bool) -> str:
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
    by_day = None if audit is None else audit.by_day
    if by_day is None:
        return (
            f"{why}: it may find differences where there are none more often than in 5 of 100 runs;"
            " abtest audit counts how often."
        )
    return (
        f"{why}: audited on this run's own users, it finds differences where there are none in"
        f" {_range(by_day.error)} of tests in place of 5%, and its intervals cover the true lift in"
        f" {_range(by_day.coverage)} in place of 95%."
    )


def _range(ends: Iterable[float]) -> str:
    low, high = (percent(end, 1, sign=False) for end in ends)
    return low if low == high else f"{low} to {high}"


def reds(content: Content) -> list[str]:
    """What must be said of a report even where nothing else is: its red checks, a sentence each."""
    return [f"red: {check.name}. {check.value} {check.meaning}" for check in content.red()]
