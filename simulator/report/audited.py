"""The audit of a run beside its report: what `abtest audit` has said of the tests that were used,
if it was asked; no counting here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.log.files import read_json
from simulator.report.content import AuditBeside, AuditRow, AuditSummary, ErrorsByDay
from simulator.report.errors import ReportError
from simulator.report.stored import StoredError, decode
from simulator.stats.checks import Check
from simulator.stats.looking import Looking
from simulator.stats.wrong import Wrong

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


def check(audit: AuditSummary) -> Check:
    """The audit as a check: amber where a test that the verdict rests on did not hold at the
    largest size.
    """
    largest = max(row.n for row in audit.rows)
    last = [row for row in audit.rows if row.n == largest]
    held = sum(row.holds for row in last)
    value = (
        f"{held} of {len(last)} tests and intervals of the verdict hold their level,"
        f" {audit.repetitions:,} samples of {largest:,} users."
    )
    if held == len(last):
        meaning = (
            "Counted on this run's own users: what the verdict rests on errs as often as it says."
        )
        return Check("audit of the tests", "green", value, meaning)
    warnings = "; ".join(audit.warnings[held - len(last) :])
    meaning = f"Read the p and interval of those that do not hold with care: {warnings}."
    return Check("audit of the tests", "amber", value, meaning)
