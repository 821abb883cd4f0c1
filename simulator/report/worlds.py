"""What a lift rests on: the calibration of the world, read from the log's own history, and the
lifts of the same arms in further worlds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.report.content import (
    Across,
    AcrossWorlds,
    Agreement,
    Calibration,
    Content,
    DecidedLift,
    LiftInterval,
    WorldMarginal,
)
from simulator.report.errors import ReportError
from simulator.report.run_checks import CALIBRATION
from simulator.report.stored import StoredError, decode
from simulator.scenario.held_to import CalibrationSpec, as_calibration
from simulator.stats.checks import Check
from simulator.stats.verdict import Lift
from simulator.users.learned.support import Support, is_measured
from simulator.users.learned.support import support as measured_support

ENOUGH = 4_000_000
"""Impressions of the history on which a calibration is measured; of a longer history, the first
users only.
"""


def calibration(log: EventLog) -> Calibration | None:
    """How far the world of a log is from its targets.

    A synthetic world is measured on the history that its logging policy wrote, which the log
    carries, and compared with the targets that its scenario names; a fitted world brings what its
    fit has measured on held-out days (`notes["calibration"]` of the log: `basis`, `tolerance`,
    `rows`).

    Returns:
        None for a log that says neither; without rows where a scenario names no targets.

    Raises:
        ReportError: the notes are not what a fit writes, or the scenario's targets are none.
    """
    measured_by_fit = log.metadata.notes.get("calibration")
    if measured_by_fit is not None:
        try:
            return decode(Calibration, measured_by_fit)
        except StoredError as error:
            raise ReportError(f"the log's notes on its calibration: {error}") from error
    scenario = log.metadata.scenario
    if scenario.get("data", {}).get("source") != "synthetic" or HISTORY not in log.metadata.arms:
        return None
    from pydantic import ValidationError

    from simulator.calibration.marginals import Impressions
    from simulator.calibration.targets import (
        CLICKS,
        LOGGING,
        CalibrationError,
        by_feed,
        compare,
        feeds_of,
        held_to,
    )

    try:
        section = CalibrationSpec.model_validate(as_calibration(scenario.get("calibration", {})))
        targets = held_to(section)
    except (ValidationError, CalibrationError) as error:
        raise ReportError(f"the log's scenario: {error}") from error
    if not targets:
        return Calibration("", section.tolerance, ())
    history = _history(log)
    if not history.n_rows:
        return None
    of_history = [target for target in targets if target.feed in (LOGGING, CLICKS)]
    seen = Impressions.of(history)
    measured = by_feed(seen, clicks=CLICKS in feeds_of(of_history))
    rows = [
        WorldMarginal(*row)
        for row in compare(measured, section.tolerance, of_history)
        if math.isfinite(row.simulated)
    ]
    against = section.basis or "the targets of the scenario"
    if section.targets == "kuaishou":
        against = "KuaiRand-Pure's standard feed"
    basis = (
        f"the logged history ({history.n_rows:,} impressions of {history.metadata.n_users:,} users)"
        f" against {against}"
    )
    return Calibration(basis, section.tolerance, tuple(rows))


def support(log: EventLog, arms: tuple[str, ...]) -> tuple[Support, ...]:
    """How far what each arm shows is from what was logged, where a model fitted to the log answers;
    () of any other world.
    """
    if not is_measured(log.metadata):
        return ()
    rows = [row for row in measured_support(log) if row.arm in arms]
    return tuple(sorted(rows, key=lambda row: arms.index(row.arm)))


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


def across(contents: Mapping[str, Content]) -> list[Across]:
    """The lift of each arm and metric by user in each of several worlds or runs, and whether they
    agree.

    Args:
        contents: gathered reports by name of the world or run.
    """
    cells = {}
    for name, content in contents.items():
        cells[name] = [
            (row, DecidedLift.of(row, verdict.verdict)) for row, verdict in content.decided()
        ]
    return _side_by_side(cells)


def across_methods(contents: Mapping[str, Content]) -> list[Across]:
    """As `across`, of the methods: without the runs whose fits tell nothing of them; [] where those
    of none do.
    """
    cells = {}
    for name, content in contents.items():
        lifts = [row.lift for method in content.methods for row in method.rows]
        cells[name] = [(lift, DecidedLift.of(lift, lift.words)) for lift in lifts]
    return _side_by_side(cells)


def across_supply(contents: Mapping[str, Content]) -> list[Across]:
    """As `across`, of the supply side: without the runs of which nothing is known."""
    cells = {}
    for name, content in contents.items():
        rows = () if content.supply is None else content.supply.rows
        cells[name] = [(row, DecidedLift.of(row, row.words)) for row in rows]
    return _side_by_side(cells)


def _side_by_side(cells: Mapping[str, Sequence[tuple[Lift, DecidedLift]]]) -> list[Across]:
    """The rows of several worlds or runs by name, put together by metric and arm."""
    lifts: dict[tuple[str, str], dict[str, DecidedLift]] = {}
    for name, rows in cells.items():
        for row, decided in rows:
            lifts.setdefault((row.metric, row.arm), {})[name] = decided
    together = []
    for (metric, arm), decided_in in lifts.items():
        verdicts = [decided.verdict for decided in decided_in.values()]
        together.append(Across(metric, arm, decided_in, _agree(verdicts, len(cells))))
    return together


def over(contents: Mapping[str, Content]) -> tuple[AcrossWorlds, ...]:
    """`across` of worlds, each row with the lift over the worlds and an interval that includes what
    they disagree about.

    Worlds count as draws of what the world may be (Rubin 1987, `stats.pooling`).
    """
    from simulator.stats.pooling import pool_lifts

    pooled = pool_lifts([content.lifts for content in contents.values()])
    rows = []
    for row in across(contents):
        lift = pooled.get((row.arm, row.metric))
        all_worlds = None if lift is None else LiftInterval(lift.lift, lift.low, lift.high)
        rows.append(AcrossWorlds(row.metric, row.arm, row.lifts, row.agree, all_worlds))
    return tuple(rows)


def agreement(rows: Sequence[Across], others: Mapping[str, Content]) -> Check:
    """Whether worlds contradict one another: amber where an arm is better in one and worse in
    another, or one is out of calibration; red where a fit of one went wrong.

    Args:
        rows: of `over`.
        others: the contents of the further worlds by name.
    """
    faulty = [world for world, content in others.items() if any(one.fault for one in content.fits)]
    if faulty:
        value = f"A fit went wrong in {', '.join(faulty)}: see the fits in that world's own report."
        meaning = "What its arm does there is no method's doing: do not read these lifts together."
        return Check("agreement of worlds", "red", value, meaning)
    name, opposite = "agreement of worlds", [row for row in rows if row.agree == "opposite"]
    unlike = [
        world
        for world, content in others.items()
        if any(check.name.lower() == CALIBRATION for check in content.red())
    ]
    out = f" Out of calibration themselves: {', '.join(unlike)}." if unlike else ""
    if opposite:
        some = "; ".join(f"{row.metric} of {row.arm} ({_sides(row.lifts)})" for row in opposite)
        value = f"Opposite in sign: {some}.{out}"
        meaning = (
            "Which arm is better depends on what users are like: these lifts say as much of the"
            " world as of the arm."
        )
        return Check(name, "amber", value, meaning)
    same = sum(row.agree == "same sign" for row in rows)
    value = (
        f"No arm is better in one world and worse in another; {same} of {len(rows)} lifts are"
        f" decided alike in all.{out}"
    )
    if unlike:
        meaning = "What holds in a world unlike its data need not hold among real users."
        return Check(name, "amber", value, meaning)
    meaning = "No lift here is won by sharing the assumptions of one world."
    return Check(name, "green", value, meaning)


def _sides(lifts: Mapping[str, DecidedLift]) -> str:
    sides = {
        side: [name for name, cell in lifts.items() if cell.verdict == side]
        for side in ("up", "down")
    }
    return ", ".join(f"{side} in {' and '.join(names)}" for side, names in sides.items())


def _agree(verdicts: Sequence[str], n: int) -> Agreement:
    states = set(verdicts)
    if {"up", "down"} <= states:
        return "opposite"
    if len(verdicts) == n and len(states) == 1 and states <= {"up", "down", "identical"}:
        return "identical" if states == {"identical"} else "same sign"
    return "undecided"
