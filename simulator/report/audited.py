"""The audit of a run beside its report: what `abtest audit` has said of the tests that were used,
if it was asked; no counting here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulator.log.files import read_json
from simulator.report import ReportError
from simulator.stats.checks import Check

FILE = "audit.json"
"""Where a run's folder keeps its audit: `abtest audit RUN`."""

BY_DAY = "paired t by day"
"""The analysis of a paired run's table by day."""

ROW = ("metric", "arm", "analysis", "n", "error", "power", "coverage", "bias", "lift", "holds")


def beside(folder: Path) -> dict[str, Any] | None:
    """The audit that lies in a run's folder, in short; None where there is none.

    Returns:
        `repetitions`, `n_users`; `rows`: what the verdict rests on, at every size (ROW);
        `warnings`: of these rows; `beside`: of what is printed beside the verdict, how many rows
        `held`, `of` how many, and the `warnings` of the others; `by_day`: the least and the
        greatest `error` and `coverage` of the table by day; `wrong` and `looking` as there.

    Raises:
        ReportError: the file is no audit.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        stored = read_json(file)
        rows = stored["rows"]
        largest = {row["analysis"]: row["n"] for row in sorted(rows, key=lambda row: row["n"])}
        others = [
            row for row in rows if not row["default"] and row["n"] == largest[row["analysis"]]
        ]
        return {
            **{key: stored[key] for key in ("repetitions", "n_users", "wrong", "looking")},
            "rows": [{key: row[key] for key in ROW} for row in rows if row["default"]],
            "warnings": [_warned(row) for row in rows if row["default"] and row["warning"]],
            "by_day": _by_day(
                [row for row in rows if row["analysis"] == BY_DAY and row["undefined"] < 1]
            ),
            "beside": {
                "held": sum(row["holds"] for row in others),
                "of": len(others),
                "warnings": [_warned(row) for row in others if row["warning"]],
            },
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"{file}: not an audit ({error}); make it anew with `abtest audit {folder}`, or"
            " remove it"
        ) from error


def _by_day(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]] | None:
    """The range of what the table by day does at the largest size; None where it was not
    audited.
    """
    mine = [row for row in rows if row["n"] == max(row["n"] for row in rows)]
    if not mine:
        return None
    return {
        key: [how(row[key]["value"] for row in mine) for how in (min, max)]
        for key in ("error", "coverage")
    }


def check(found: Mapping[str, Any]) -> Check:
    """The audit as a check: amber where a test that the verdict rests on did not hold at the
    largest size.
    """
    largest = max(row["n"] for row in found["rows"])
    last = [row for row in found["rows"] if row["n"] == largest]
    held = sum(row["holds"] for row in last)
    value = (
        f"{held} of {len(last)} tests and intervals of the verdict hold their level,"
        f" {found['repetitions']:,} samples of {largest:,} users."
    )
    fine = "Counted on this run's own users: what the verdict rests on errs as often as it says."
    off = (
        "Read the p and interval of those that do not hold with care: "
        + "; ".join(found["warnings"][-(len(last) - held) :])
        + "."
    )
    good = held == len(last)
    return Check("audit of the tests", "green" if good else "amber", value, fine if good else off)


def _warned(row: Mapping[str, Any]) -> str:
    return f"{row['warning']} [{row['arm']}]"
