"""What commands print: names are those of people's files, so nothing reaches the terminal that it
would act upon.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.log.store import with_addresses
from simulator.page.escapes import printable

if TYPE_CHECKING:
    from simulator.report.content import Content
    from simulator.report.tracking import Tracker
    from simulator.scenario.model import Scenario


def say(message: Any = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a message or a path."""
    text = os.fspath(message) if isinstance(message, os.PathLike) else str(message)
    click.echo(printable(with_addresses(text)), err=err, nl=nl)


GATE = {"ship": 0, "hold": 3, "drop": 4}
"""Exit codes of `--gate`: 1 and 2 are those of failures and of wrong input."""


NO_SUCCESS = (
    "--gate: nothing is decided, because no metric is declared a success; name what the change is"
    " made for: --success METRIC; in a scenario, metrics: [{METRIC: {role: success}}]"
)


def can_decide(scenario: Scenario) -> None:
    """Look before a run whether it can end with a decision.

    Raises:
        ReportError: it has no success, or nothing to compare.
    """
    from simulator.log.metrics import chosen
    from simulator.report import ReportError

    if len(scenario.arms) < 2:
        raise ReportError("--gate: nothing is decided, because the scenario has one arm alone")
    metrics = chosen(scenario.resolved()["metrics"])
    if not any(metric.role == "success" for metric in metrics):
        raise ReportError(NO_SUCCESS)


def leave_by_decision(content: Content) -> None:
    """End with the exit code of the decision.

    Raises:
        ReportError: no decision was asked for.
        SystemExit: the decision is not to ship.
    """
    from simulator.report import ReportError

    if content.decision is None:
        raise ReportError(NO_SUCCESS)
    code = GATE[content.decision.answer]
    if code:
        raise SystemExit(code)


def tracker_of(name: str | None) -> Tracker | None:
    """The function that `--track` names, looked for before anything is computed.

    Raises:
        ReportError: there is no such one.
    """
    if name is None:
        return None
    from simulator.report.tracking import tracker

    return tracker(name)


def hand_on(content: Content, folder: Path, *, csv: bool, track: Tracker | None) -> None:
    """Write the rows of a report that lies in `folder` as CSV, and give it to a tracker.

    Raises:
        ReportError: the tracker failed.
    """
    if csv:
        from simulator.report import csv_files

        say(csv_files.write(content, folder))
    if track is not None:
        from simulator.report import tracking

        tracking.track(content, folder, track)


def say_report(content: Content, page: Path, *, quiet: bool) -> None:
    """Show a report and where it is; `quiet` leaves out all but its decision and its red checks,
    which nobody may overlook.
    """
    if quiet:
        from simulator.report.sentences import reds

        for one in content.decision.arms if content.decision is not None else ():
            say(one.sentence)
        for sentence in reds(content):
            say(f"abtest: {sentence}", err=True)
    else:
        from simulator.report.console import show

        show(content)
    say(page)
