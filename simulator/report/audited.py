"""The audit of a run beside its report: what `abtest audit` has said of the tests that were used,
if it was asked; no counting here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from simulator.log.files import read_json
from simulator.page.blocks import Block, Cell, Column, Points, Table, Words, columns, plain
from simulator.page.words import is_defined, percent, share, title, whole
from simulator.report.content import AuditBeside, AuditRow, AuditSummary, ErrorsByDay
from simulator.report.errors import ReportError
from simulator.report.stored import StoredError, decode
from simulator.stats.checks import Check
from simulator.stats.decision_audit import ANY, AuditedDecision
from simulator.stats.fit_audit import AuditedMethods
from simulator.stats.keyed_draws import KEYED
from simulator.stats.looking import Looking
from simulator.stats.rule import STANDARD, Rule
from simulator.stats.wrong import Wrong


class Sampled(Protocol):
    """What is known of the samples that a row is of."""

    @property
    def n(self) -> int: ...
    @property
    def repetitions(self) -> int: ...


FILE = "audit.json"
"""Where a run's folder keeps its audit: `abtest audit RUN`."""

BY_DAY = "paired t by day"
"""The analysis of a paired run's table by day."""


def beside(folder: Path) -> AuditSummary | None:
    """The audit that lies in a run's folder, in short; None where there is none.

    Raises:
        ReportError: the file is no audit.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return _summary(read_json(file))
    except (KeyError, TypeError, AttributeError, StoredError) as error:
        raise ReportError(
            f"{file}: not an audit ({error}); make it anew with `abtest audit {folder}`, or"
            " remove it"
        ) from error


def _summary(stored: Any) -> AuditSummary:
    rows = stored["rows"]
    largest = {row["analysis"]: row["n"] for row in sorted(rows, key=lambda row: row["n"])}
    verdict = [row for row in rows if row["default"]]
    others = [row for row in rows if not row["default"] and row["n"] == largest[row["analysis"]]]
    by_day = [row for row in rows if row["analysis"] == BY_DAY and row["undefined"] < 1]
    return AuditSummary(
        repetitions=stored["repetitions"],
        n_users=stored["n_users"],
        wrong=tuple(decode(Wrong, row) for row in stored["wrong"]),
        looking=tuple(decode(Looking, row) for row in stored["looking"]),
        rows=tuple(decode(AuditRow, row) for row in verdict),
        warnings=_warnings(verdict),
        by_day=_by_day(by_day),
        beside=AuditBeside(sum(row["holds"] for row in others), len(others), _warnings(others)),
        methods=tuple(decode(AuditedMethods, row) for row in stored.get("methods", ())),
        decisions=tuple(decode(AuditedDecision, row) for row in stored.get("decisions", ())),
        rule=decode(Rule, stored["rule"]) if "rule" in stored else STANDARD,
    )


def _by_day(rows: Sequence[Mapping[str, Any]]) -> ErrorsByDay | None:
    """The range of what the table by day does at the largest size; None where it was not
    audited.
    """
    if not rows:
        return None
    largest = max(row["n"] for row in rows)
    last = [row for row in rows if row["n"] == largest]
    errors, coverages = ([row[key]["value"] for row in last] for key in ("error", "coverage"))
    return ErrorsByDay((min(errors), max(errors)), (min(coverages), max(coverages)))


def _warnings(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{row['warning']} [{row['arm']}]" for row in rows if row["warning"])


def rule_in_words(rule: Rule) -> str:
    """Level and side of the tests: `95%, two-sided`."""
    side = "two-sided" if rule.alternative == "two-sided" else "one-sided"
    return f"{share(rule.level)}, {side}"


def samples_in_words(repetitions: int, n_users: int, rows: Iterable[Sampled]) -> str:
    """What was drawn: `10,000 samples of each size from 2,000 users`, and of all users of a big
    run.
    """
    words = f"{whole(repetitions)} samples of each size from {whole(n_users)} users"
    for row in rows:
        if row.n >= KEYED:
            return f"{words}, and {whole(row.repetitions)} of all {whole(row.n)}"
    return words


def other_rule(audit: AuditSummary, rule: Rule) -> str:
    """What to do where the tests that were counted are not those of the report; "" where they
    are.
    """
    if audit.rule == rule:
        return ""
    again = f"abtest audit RUN --level {share(rule.level)} --alternative {rule.alternative}"
    return (
        f"counted were tests at {rule_in_words(audit.rule)}; this report tests at"
        f" {rule_in_words(rule)}: {again}"
    )


def check(audit: AuditSummary, rule: Rule) -> Check:
    """The audit as a check: amber where a test that the verdict rests on did not hold at the
    largest size, and where it counted tests by another `rule` than the report's.
    """
    largest = max(row.n for row in audit.rows)
    last = [row for row in audit.rows if row.n == largest]
    held = sum(row.holds for row in last)
    value = (
        f"{held} of {len(last)} tests and intervals of the verdict hold their level,"
        f" {last[0].repetitions or audit.repetitions:,} samples of {largest:,} users."
    )
    other = other_rule(audit, rule)
    if other:
        return Check("audit of the tests", "amber", value, other)
    broken = [f"{said(row)} {_rate(row.ship.value)}" for row in audit.decisions if not row.holds]
    if broken:
        meaning = f"The decision does not hold what it promises: ships {'; '.join(broken)}."
        return Check("audit of the tests", "amber", value, meaning)
    if held == len(last):
        meaning = (
            "Counted on this run's own users: what the verdict rests on errs as often as it says."
        )
        return Check("audit of the tests", "green", value, meaning)
    warnings = "; ".join(audit.warnings[held - len(last) :])
    meaning = f"Read the p and interval of those that do not hold with care: {warnings}."
    return Check("audit of the tests", "amber", value, meaning)


def of_methods(rows: Sequence[AuditedMethods]) -> list[Block]:
    """What the verdict on methods does, in words and as a table, with what does not hold."""
    naive = [row.models_error.value for row in rows]
    held = sum(row.holds for row in rows)
    words = (
        "Both arms have fits of one method, drawn from those of this run with its users:"
        f" {whole(rows[0].repetitions)} samples of {whole(rows[0].n)} users each. The verdict on"
        f" methods may call them different in {share(1 - rows[0].level)}; the verdict on these"
        " models, read as if it spoke of the methods, does so in"
        f" {_rate(min(naive))} to {_rate(max(naive))}. {held} of"
        f' {len(rows)} rows hold. ± is three Monte-Carlo standard errors; under "other fits" are'
        " three standard errors from the choice of this run's fits. Power and coverage are of the"
        " lift over the control, which is known: that of all fits and users of the run."
    )
    heads = [
        *columns("metric", "arm", "users", "fits", text=4),
        *columns("false positives", "other fits", "of these models", "power", "coverage", text=0),
        Column("holds"),
    ]
    lines = [
        (
            plain(title(row.metric)),
            plain(row.arm),
            plain(row.assignment),
            plain(f"{row.n_fits} {row.dealing}"),
            plain(f"{_rate(row.error.value)} ± {_rate(three_errors(row.level, row.repetitions))}"),
            plain(f"± {_rate(3 * row.between_fits)}"),
            *(plain(_rate(r.value)) for r in (row.models_error, row.power, row.coverage)),
            Cell("yes", kind="good") if row.holds else Cell("no", kind="bad"),
        )
        for row in rows
    ]
    warnings = [("▲", f"{row.warning} [{row.arm}]") for row in rows if row.warning]
    return [Words(words, note=True), Table("Audit of the methods", heads, lines), Points(warnings)]


TRUTHS = {
    "equal": "where no arm differs",
    "harmed": "where {} is harmed by its margin",
    "better": "where {} is better by its detectable lift",
}
"""Under what the decision was counted, in words."""


def said(row: AuditedDecision) -> str:
    """The truth of a row in words."""
    return TRUTHS[row.truth].format(title(row.metric).lower())


def decision_errors(rows: Sequence[AuditedDecision]) -> str:
    """How often the rule ships under each truth, in one sentence: over arms and designs."""
    parts = []
    for words in dict.fromkeys(map(said, rows)):
        own = [row.ship.value for row in rows if said(row) == words]
        low, high = _rate(min(own)), _rate(max(own))
        parts.append(f"{low if low == high else f'{low} to {high}'} {words}")
    return f"It ships {'; '.join(parts)}."


def of_decisions(rows: Sequence[AuditedDecision]) -> list[Block]:
    """How often the rule ships where the truth is known, beside what it promises."""
    words = (
        f"Samples of this run's users, {whole(rows[0].repetitions)} of each truth, decided by the"
        " rule of the report. Where no arm differs, any ship is an error; where a guardrail is"
        " harmed, every success is so much better that it is surely found; where a success is"
        " better by its detectable lift (power 80%), nothing else differs. ± is three Monte-Carlo"
        " standard errors. The promise of a power is a lower bound: guardrails that are not shown"
        " to be safe at this size are in it."
    )
    heads = [
        *columns("truth", "arm", "decided on", "users", text=4),
        *columns("planted", "ship", "promised", "hold", "drop", text=0),
        Column("kept"),
    ]
    lines = [
        (
            plain(said(row)),
            plain("any arm" if row.arm == ANY else row.arm),
            plain(f"{row.on}, {row.assignment}{', ' if row.fits else ''}{row.fits}"),
            plain(whole(row.n)),
            plain(percent(row.lift, 2) if is_defined(row.lift) else ""),
            plain(f"{_rate(row.ship.value)} ± {_rate(3 * row.error)}"),
            plain(f"{'at least' if row.at_least else 'at most'} {_rate(row.promise)}"),
            plain(_rate(row.hold.value)),
            plain(_rate(row.drop.value)),
            Cell("yes", kind="good") if row.holds else Cell("no", kind="bad"),
        )
        for row in rows
    ]
    return [Words(words, note=True), Table("Errors of the decision", heads, lines)]


def _rate(share: float) -> str:
    return percent(share, 1, sign=False) if is_defined(share) else "n/a"


def three_errors(level: float, repetitions: int) -> float:
    """Three Monte-Carlo standard errors of a share that is `level`, or what is left of it."""
    return float(3 * (level * (1 - level) / repetitions) ** 0.5)
