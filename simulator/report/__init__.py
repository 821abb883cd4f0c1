"""The report: all that is said of a run, gathered from its event log and shown as a terminal table,
JSON, Markdown and one HTML page.

No measurement lives here: counts come from one pass over the log, figures with an interval from
`simulator.stats`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.base import Progress, silent
from simulator.log.eventlog import EventLog
from simulator.log.files import looked_up, read_json
from simulator.log.ledger import here
from simulator.log.store import place
from simulator.log.workspace import Workspace, hold_to_ledger, sound_log
from simulator.report.errors import ReportError

if TYPE_CHECKING:
    from simulator.log.metrics import Better, MetricRole
    from simulator.report.content import Content
    from simulator.stats.choices import Choices
    from simulator.stats.margins import Margins
    from simulator.stats.priors import Prior
    from simulator.stats.streamed import Map

__all__ = ["ReportError", "find", "keep_lifts", "load", "refuse", "runtime", "save", "write"]


def write(
    log: EventLog,
    folder: Path | str,
    *,
    runtime: Mapping[str, Any] | None = None,
    run: Path | str | None = None,
    strict: bool = False,
    margins: Margins | None = None,
    choices: Choices | None = None,
    better: Mapping[str, Better] | None = None,
    roles: Mapping[str, MetricRole] | None = None,
    priors: Mapping[str, Prior] | None = None,
    progress: Progress = silent,
    inspect: bool = False,
    parts: Map = map,
) -> Content:
    """Gather everything from the log and write `report.json`, `report.md` and `report.html`, each
    by temporary name and rename.

    Args:
        log: of an A/B: at least two arms.
        folder: is made if it is not there.
        runtime: seconds, rates and sizes of the run that wrote the log; kept under `runtime`, and
            nothing else depends on it.
        run: the run's folder, where the same arms in further worlds (`worlds/<name>`), a replay of
            the log (`replay`) and an audit (`audit.json`) may lie, offline figures (`fidelity`),
            what the fits find of held-out clicks (`fits.npz`), and what the run has noticed of its
            policies (`notices.json`), to be shown beside; `folder` if left out.
        strict: refuse to report a lift, and write nothing, where a check is red (a world out of
            calibration, an arm given up).
        margins: guardrails and equivalences that were planned, by user.
        choices: how lifts are computed, and what is computed beside them.
        better: by metric, whether `higher` or `lower` values of it are better, where that is not as
            the log says.
        roles: by metric, what it is for in the decision, where that is not as the log says.
        priors: by metric, what earlier tests say of its lift, where that is not as the log says
            (`report.earlier`).
        progress: called as (stage, steps done, steps, {}).
        inspect: hold every row of the log to the rules while it is read; a log that a run has just
            written, or that was validated, needs it not.
        parts: computes what is said of the users of each part of the log, where they are many
            (`simulator.run.over_parts`): speed only.

    Returns:
        What the three files say.

    Raises:
        LogError: a row that breaks a rule, with `inspect`.
        ReportError: the log holds nothing to compare, or `strict` and a red check.
        TableError: a margin of no metric, or one that is not positive; a guardrail of a metric
            whose direction is not known; priors of none of the metrics.
        MetricError: `better` or `roles` of no metric, or no direction or role.
    """
    from simulator.log import notices as noticed
    from simulator.log.fit_values import FitValues
    from simulator.report import audited, drawn, offline
    from simulator.report import run_checks as checks
    from simulator.report import worlds as world
    from simulator.report.gather import gather, with_check, with_decision
    from simulator.stats.fit_checks import check_fits, judge_fits

    folder = place(folder)
    home = folder if run is None else here(run)
    content = gather(
        log,
        arms=Workspace(home).declared_arms,
        runtime=runtime,
        progress=progress,
        margins=margins,
        choices=choices,
        better=better,
        roles=roles,
        priors=priors,
        inspect=inspect,
        parts=parts,
    )
    content = replace(
        content,
        offline=offline.beside(home, content),
        foretold=offline.foretold(home, content),
        audit=audited.beside(home),
    )
    if content.audit is not None:
        content = with_check(content, audited.check(content.audit, content.choices.rule))
    held_out = FitValues.load(home)
    if held_out is not None:
        content = replace(content, fits=tuple(judge_fits(held_out)))
        content = with_check(content, check_fits(content.fits))
    notices = noticed.kept(home.glob(noticed.FILE))
    if notices:
        content = with_check(content, checks.promises(notices))
    places = Workspace(home).worlds(content.settings)
    draws = drawn.among(places, content.settings)
    worlds = {name: load(place) for name, place in places.items() if name not in draws}
    if draws:
        lifts = {name: drawn.load(place) for name, place in draws.items()}
        over_worlds = drawn.over(lifts, content)
        content = replace(content, drawn=over_worlds)
        content = with_check(content, drawn.check(over_worlds, content))
    if worlds:
        own = content.settings.get("users", {}).get("kind", "this world")
        content = replace(content, worlds=world.over({own: content, **worlds}))
        content = with_check(content, world.agreement(content.worlds, worlds))
    content = with_decision(content)
    if strict:
        refuse(content)
    save(content, folder)
    return content


def keep_lifts(run: Path) -> None:
    """Keep the lifts of the run of a drawn world in its folder, for the report over all of them."""
    from simulator.report import drawn

    drawn.keep(run)


def refuse(content: Content) -> None:
    """Refuse to report a lift where a check is red.

    Raises:
        ReportError: one is.
    """
    red = content.red()
    if red:
        why = "\n".join(f"  {check.name}: {check.value} {check.meaning}" for check in red)
        raise ReportError(
            f"strict: no lift is reported, because {len(red)} of {len(content.checks)} checks"
            f" are red:\n{why}"
        )


def load(source: Path | str) -> Content:
    """The content of a report: as report.json of a run's folder (or that file) keeps it, else
    gathered from the log there. A run's folder is held to its ledger.

    Raises:
        RunError: the run there is not finished.
        FileError: a piece of the run there is missing, changed or strange.
        ReportError: nothing is there, nothing to compare, or the file is no report of this
            schema; the message names the path.
        LogError: something is there, but it is not an event log.
    """
    from simulator.report import notebook  # noqa: F401 (a notebook can show what is loaded)
    from simulator.report.content import SCHEMA_VERSION, Content
    from simulator.report.gather import gather
    from simulator.report.stored import decode
    from simulator.stats.unit_table import TableError

    source = here(source)
    file = source / "report.json" if source.is_dir() else source
    if file.suffix != ".json" or not file.is_file():
        log, home = find(source, inspect=False)
        declared = Workspace(home).declared_arms
        try:
            return gather(log, arms=declared, runtime=None, progress=silent, inspect=True)
        except (ReportError, TableError) as error:
            raise ReportError(f"{source}: {error}") from error
    if source.is_dir():
        hold_to_ledger(source)
    stored = read_json(file, "Rebuild it with `abtest report`")
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA_VERSION:
        raise ReportError(
            f"{file}: not a report of schema {SCHEMA_VERSION}; rebuild it with `abtest report`"
        )
    try:
        return decode(Content, stored)
    except ValueError as error:
        raise ReportError(
            f"{file}: not a report: {error}; rebuild it with `abtest report`"
        ) from error


def check_distinct(sources: Sequence[Path]) -> None:
    """Refuse a run that is named twice: by its folder, its log or its report.json.

    Raises:
        ReportError: one is; the message names both.
    """
    homes: dict[Path, Path] = {}
    for source in sources:
        place = source.resolve()
        if place.name in ("log", "report.json"):
            place = place.parent
        if place in homes:
            raise ReportError(
                f"{source}: the same run as {homes[place]}, which agrees with itself; name each run"
                " once"
            )
        homes[place] = source


def find(source: Path, *, inspect: bool = True) -> tuple[EventLog, Path]:
    """The event log that a path means, and the folder where its report belongs.

    Args:
        source: a run's folder (with `log/`), a folder of Parquet parts, or one .parquet file.
        inspect: hold every row to the rules; else whoever reads the log does it.

    Raises:
        ReportError: nothing is there.
        RunError: the run there is not finished.
        FileError: a piece of the run there is missing, changed or strange.
        LogError: something is there, but it is not an event log.
    """
    if not source.exists():
        raise ReportError(
            f"{source}: no such file or folder{looked_up(source)}; "
            "give a run's folder, a folder of Parquet parts or a .parquet file"
        )
    home = source.parent if source.is_file() or source.name == "log" else source
    return sound_log(source, rows=inspect), source if (source / "log").is_dir() else home


def runtime(folder: Path) -> dict[str, Any] | None:
    """The run time figures that an earlier report of the same folder keeps; the log itself does not
    have them.

    None where there is no such report, or one that cannot be read: it is about to be written anew.
    """
    try:
        stored = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    figures = stored.get("runtime") if isinstance(stored, dict) else None
    return figures if isinstance(figures, dict) else None


def save(content: Content, folder: Path) -> None:
    """Write a gathered report as JSON, Markdown and HTML into `folder`."""
    from simulator.page import saved
    from simulator.report import notebook  # noqa: F401 (a notebook can show what is saved)
    from simulator.report.sections import document
    from simulator.report.stored import encode

    saved.save(folder, "report", encode(content), document(content))
