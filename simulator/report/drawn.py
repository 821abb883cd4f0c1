"""The same arms in drawn worlds: their lifts, kept world by world, and the verdict over all of
them.

A drawn world has no report of its own, which would take longer than its lives: its lifts stand in
`lifts.json` of its folder, beside its log (`abtest report` makes a whole report of that).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulator.log.eventlog import EventLog
from simulator.log.files import read_json, write_texts
from simulator.page.words import listed, percent, title
from simulator.report import run_checks
from simulator.report import worlds as world
from simulator.report.content import Content, DrawnWorlds, WorldLifts
from simulator.report.errors import ReportError
from simulator.report.gather import Comparison, answered
from simulator.report.stored import StoredError, as_json, decode
from simulator.stats import units, verdict
from simulator.stats.checks import Check
from simulator.stats.ensemble import WorldsLift, estimate, over_worlds
from simulator.stats.methods import method_lifts
from simulator.stats.sensitivity import Influence, influences, ranked
from simulator.stats.verdict import Lift

FILE = "lifts.json"

LEADING = 8
"""Parameters of each lift that are told, those with the largest shares."""


def keep(run: Path) -> None:
    """Write the lifts of the finished run in `run` beside its log."""
    lifts = lifts_in(EventLog.open(run / "log"))
    write_texts(run, {FILE: as_json(lifts)})


def load(run: Path) -> WorldLifts:
    """The lifts of a drawn world.

    Raises:
        ReportError: its file is not what `keep` writes.
    """
    file = run / FILE
    if not file.is_file():
        keep(run)
    try:
        return decode(WorldLifts, read_json(file, "Remove it, and it is made anew"))
    except StoredError as error:
        raise ReportError(f"{file}: {error}. Remove it, and it is made anew") from error


def lifts_in(log: EventLog) -> WorldLifts:
    """The verdict by the unit of the design over the control of the log: on methods where it is
    known, else on models.
    """
    sums, silent = answered(units.read(log))
    who, unit = Comparison.of(log.metadata, silent), log.metadata.design.unit
    of_models = verdict.lifts(sums.by(unit), who.control)
    of_methods = {
        (row.lift.metric, row.lift.arm): row.lift
        for row in method_lifts(sums, who.control, unit=unit)
    }
    rows = tuple(of_methods.get((row.metric, row.arm), row) for row in of_models)
    return WorldLifts(run_checks.calibrated(world.calibration(log)).status, rows)


def among(places: Mapping[str, Path], settings: Mapping[str, Any]) -> dict[str, Path]:
    """The folders of those further worlds that are drawn, as the resolved scenario says."""
    worlds = settings.get("worlds", {})
    return {
        name: place
        for name, place in places.items()
        if name in worlds and "users" not in worlds[name]
    }


def over(worlds: Mapping[str, WorldLifts], content: Content) -> DrawnWorlds:
    """The verdict over drawn worlds.

    Args:
        worlds: the lifts in each, by name.
        content: the report of the scenario's own world, which says what each world changes.
    """
    names, rows, lifts, moved = tuple(worlds), [], [], []
    parameters = _parameters(names, content.settings)
    same_users = have_one_seed(names, content.settings)
    by_world = [{(row.metric, row.arm): row for row in one.lifts} for one in worlds.values()]
    for own, _ in content.decided():
        estimates = [_estimate(lifts_of.get((own.metric, own.arm))) for lifts_of in by_world]
        pairs = np.array(estimates, dtype=np.float64)
        known = np.isfinite(pairs).all(axis=1)
        measured, errors = pairs[known].T
        row = over_worlds(
            own.metric, own.arm, measured.tolist(), errors.tolist(), same_users=same_users
        )
        if row is None:
            continue
        rows.append(row)
        lifts.append(tuple(np.where(known, pairs[:, 0], math.nan).tolist()))
        weights = 1.0 / (np.square(pairs[known, 1]) + row.between**2)
        among_known = {key: values[known] for key, values in parameters.items()}
        moved.append(influences(own.metric, own.arm, among_known, pairs[known, 0], weights))
    told = [one for row in moved for one in row]
    corrected = iter(ranked(told))
    leading = [one for row in moved for one in [next(corrected) for _ in row][:LEADING]]
    keys = dict.fromkeys(one.parameter for one in leading)
    return DrawnWorlds(
        names,
        tuple(rows),
        tuple(leading),
        {key: tuple(parameters[key].tolist()) for key in keys},
        tuple(lifts),
        tuple(name for name, one in worlds.items() if one.calibration == "red"),
    )


def have_one_seed(names: Sequence[str], settings: Mapping[str, Any]) -> bool:
    """Whether drawn worlds have the same seed, and so the same catalogue and users."""
    return len({settings["worlds"][name].get("seed") for name in names}) == 1


def _estimate(row: Lift | None) -> tuple[float, float]:
    """Lift and standard error in one world; NaN where it has none."""
    pair = None if row is None else estimate(row)
    return (math.nan, math.nan) if pair is None else pair


def _parameters(
    names: tuple[str, ...], settings: Mapping[str, Any]
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """What every world changes, by dotted key: the value in each world."""
    changes = [settings["worlds"][name]["changes"] for name in names]
    return {
        key: np.array([one[key] for one in changes], dtype=np.float64)
        for key in changes[0]
        if all(key in one for one in changes)
    }


def check(worlds: DrawnWorlds, content: Content) -> Check:
    """Whether what is decided in the scenario's own world holds in another draw of it: amber where
    it does not, or where a world is out of calibration.
    """
    over_all = {(row.metric, row.arm): row for row in worlds.rows}
    n, name = len(worlds.names), "drawn worlds"
    broken = []
    decided = 0
    for own, verdict_of_own in content.decided():
        row = over_all.get((own.metric, own.arm))
        if row is None or verdict_of_own.verdict not in ("up", "down"):
            continue
        decided += 1
        if row.words != verdict_of_own.verdict:
            sign = "higher" if verdict_of_own.verdict == "up" else "lower"
            share = share_with(row, verdict_of_own.verdict)
            broken.append(f"{own.metric} of {own.arm} ({sign} in {share})")
    out = ""
    if worlds.uncalibrated:
        shown = [*worlds.uncalibrated[:5], *(["..."] if len(worlds.uncalibrated) > 5 else [])]
        out = f" {len(worlds.uncalibrated)} of {n} are out of calibration: {', '.join(shown)}."
    if broken:
        value = f"Of {decided} lifts decided here, over {n} worlds open: {'; '.join(broken)}.{out}"
        meaning = "What is decided in this world need not hold in another that fits as well."
        return Check(name, "amber", value, meaning)
    value = f"All {decided} lifts decided here keep their sign over {n} worlds.{out}"
    if not decided:
        value = f"No lift is decided here; {n} worlds were drawn.{out}"
    if worlds.uncalibrated:
        return Check(name, "amber", value, "Those worlds say nothing of real users.")
    return Check(name, "green", value, "What is decided does not rest on this one world.")


def share_with(row: WorldsLift, side: str) -> str:
    """In how many worlds the lift has a sign, `up` or `down`, with its interval, in words."""
    share, low, high = row.up, row.up_low, row.up_high
    if side == "down":
        share, low, high = 1.0 - share, 1.0 - high, 1.0 - low
    ends = f"{percent(low, 0, False)} to {percent(high, 0, False)}"
    return f"{percent(share, 0, False)} of worlds, {ends}"


def flip_sentence(row: Influence) -> str:
    """A parameter that moves a lift across 0, in words."""
    return (
        f"{title(row.metric)} of {row.arm} changes its sign with {row.parameter}:"
        f" {percent(row.at_low)} at {row.smaller:.3g}, {percent(row.at_high)} at"
        f" {row.greater:.3g}, 0 at {row.flip:.3g}; it goes with"
        f" {percent(row.share, 0, False)} of what the worlds disagree about."
    )


def flips(worlds: DrawnWorlds, arm: str | None = None) -> list[str]:
    """What changes the sign of a lift, of one arm or of all, in sentences; one that says that
    nothing is shown to.
    """
    if not worlds.influences:
        return []
    rows = [row for row in worlds.influences if row.is_shown and arm in (None, row.arm)]
    flipping = [flip_sentence(row) for row in rows if row.flips]
    if flipping:
        return flipping
    if rows:
        keys = listed(sorted({row.parameter for row in rows}))
        return [f"No parameter is shown to change a sign; {keys} move a lift within its sign."]
    return ["No parameter of the world is shown to move a lift."]
