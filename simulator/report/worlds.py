"""What a lift rests on: the calibration of the world, read from the log's own history, and the
lifts of the same arms in further worlds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.report import finite
from simulator.report.run_checks import CALIBRATION
from simulator.stats.checks import Check

ENOUGH = 4_000_000
"""Impressions of the history on which a calibration is measured; of a longer history, the first
users only.
"""


def calibration(log: EventLog) -> dict[str, Any] | None:
    """How far the world of a log is from its published marginals.

    A synthetic world is measured on the history that its logging policy wrote, which the log
    carries; a fitted world brings what its fit has measured on held-out days
    (`notes["calibration"]` of the log: `basis`, `tolerance`, `rows`).

    Returns:
        `basis` (on what, in words), `tolerance` (relative) and `rows` (`name`, `target`,
        `simulated`, `se`, `ratio`, `within`), or None for a log that says neither.
    """
    given = log.metadata.notes.get("calibration")
    if given is not None:
        return dict(given)
    if (
        log.metadata.scenario.get("data", {}).get("source") != "synthetic"
        or HISTORY not in log.metadata.arms
    ):
        return None
    from simulator.calibration.marginals import Impressions, measure
    from simulator.calibration.targets import LOGGING, TOLERANCE, compare

    history = _history(log)
    if not history.n_rows:
        return None
    rows = [
        row
        for row in compare({LOGGING: measure(Impressions.of(history))})
        if math.isfinite(row.simulated)
    ]
    basis = (
        f"the logged history ({history.n_rows:,} impressions of {history.metadata.n_users:,} users)"
        " against KuaiRand-Pure's standard feed"
    )
    return {"basis": basis, "tolerance": TOLERANCE, "rows": [finite(row._asdict()) for row in rows]}


def support(log: EventLog, arms: tuple[str, ...]) -> list[dict[str, Any]]:
    """How far what each arm shows is from what was logged, where a model fitted to the log answers;
    [] of any other world.
    """
    kind = log.metadata.scenario.get("users", {}).get("kind")
    if kind not in ("learned", "logged") or HISTORY not in log.metadata.arms:
        return []
    from simulator.users.learned.support import support as measured

    rows = [finite(dataclasses.asdict(row)) for row in measured(log)]
    return sorted(
        (row for row in rows if row["arm"] in arms), key=lambda row: arms.index(row["arm"])
    )


def _history(log: EventLog) -> EventLog:
    """The history of a log, in memory: of its first users, as many as have about ENOUGH
    impressions.
    """
    index = log.metadata.arms.index(HISTORY)
    parts: list[pa.Table] = []
    n_rows = 0
    for batch in log.batches():
        if batch.num_rows and batch["arm"][0].as_py() > index:
            break  # the log is in the order of arms
        past = batch.filter(pc.and_(pc.equal(batch["arm"], index), pc.less(batch["t"], 0)))
        parts.append(pa.Table.from_batches([past]))
        n_rows += past.num_rows
        if n_rows > ENOUGH:
            break
    table = pa.concat_tables(parts)
    n_users = log.metadata.n_users
    if n_rows > ENOUGH:
        n_users = table["user"][-1].as_py()
        table = table.filter(pc.less(table["user"], n_users))
    arms = (HISTORY,)
    table = table.set_column(
        0, table.schema.field("arm"), pa.nulls(len(table), pa.uint8()).fill_null(0)
    )
    return EventLog(
        dataclasses.replace(log.metadata, arms=arms, control=None, n_users=n_users), table
    )


def across(contents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lift of each arm and metric by user in each of several worlds or runs, and whether they
    agree.

    Args:
        contents: gathered reports by name of the world or run.

    Returns:
        Rows with `metric`, `arm`, `lifts` (by name: `lift`, `low`, `high`, `verdict`) and `agree`:
        `same sign` (the verdict is up in all, or down in all), `opposite` (up in one, down in
        another), `identical` in all, or `undecided` (no contradiction, but not all say so).
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, content in contents.items():
        for row, said in zip(content["lifts"], content["verdicts"], strict=True):
            if row["unit"] == content["unit"]:
                cell = {**{k: row[k] for k in ("lift", "low", "high")}, "verdict": said["verdict"]}
                rows.setdefault((row["metric"], row["arm"]), {})[name] = cell
    return [
        {
            "metric": metric,
            "arm": arm,
            "lifts": lifts,
            "agree": _agree([cell["verdict"] for cell in lifts.values()], len(contents)),
        }
        for (metric, arm), lifts in rows.items()
    ]


def over(contents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`across` of worlds, each row with `all`: the lift over the worlds and an interval that
    includes what they disagree about.

    None where a world has no finite interval. Worlds count as draws of what the world may be (Rubin
    1987, `users.learned.ensemble`).
    """
    from simulator.users.learned.ensemble import pool_reports

    pooled = pool_reports(list(contents.values()))
    rows = across(contents)
    for row in rows:
        found = pooled.get((row["arm"], row["metric"]))
        row["all"] = (
            None
            if found is None
            else finite({"lift": found.lift, "low": found.low, "high": found.high})
        )
    return rows


def agreement(rows: Sequence[Mapping[str, Any]], others: Mapping[str, Mapping[str, Any]]) -> Check:
    """Whether worlds contradict one another: amber where an arm is better in one and worse in
    another, or one is out of calibration.

    Args:
        rows: of `over`.
        others: the contents of the further worlds by name.
    """
    name, opposite = "agreement of worlds", [row for row in rows if row["agree"] == "opposite"]
    unlike = [
        world
        for world, content in others.items()
        if any(_red_calibration(check) for check in content["checks"])
    ]
    out = f" Out of calibration themselves: {', '.join(unlike)}." if unlike else ""
    if opposite:
        some = "; ".join(
            f"{row['metric']} of {row['arm']} ({_sides(row['lifts'])})" for row in opposite
        )
        found = f"Opposite in sign: {some}.{out}"
        return Check(
            name,
            "amber",
            found,
            "Which arm is better depends on what users are like: these lifts say as much of the"
            " world as of the arm.",
        )
    same = sum(row["agree"] == "same sign" for row in rows)
    found = (
        f"No arm is better in one world and worse in another; {same} of {len(rows)} lifts are"
        f" decided alike in all.{out}"
    )
    if unlike:
        return Check(
            name,
            "amber",
            found,
            "What holds in a world unlike its data need not hold among real users.",
        )
    return Check(
        name, "green", found, "No lift here is won by sharing the assumptions of one world."
    )


def _red_calibration(check: Mapping[str, Any]) -> bool:
    return bool(check["status"] == "red" and check["name"].lower() == CALIBRATION)


def _sides(lifts: Mapping[str, Mapping[str, Any]]) -> str:
    sides = {
        side: [name for name, cell in lifts.items() if cell["verdict"] == side]
        for side in ("up", "down")
    }
    return ", ".join(f"{side} in {' and '.join(names)}" for side, names in sides.items())


def _agree(verdicts: Sequence[str], n: int) -> str:
    states = set(verdicts)
    if {"up", "down"} <= states:
        return "opposite"
    if len(verdicts) == n and len(states) == 1 and states <= {"up", "down", "identical"}:
        return "identical" if states == {"identical"} else "same sign"
    return "undecided"
