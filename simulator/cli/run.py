"""`abtest run`: a scenario to its finished report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import CSV, EXECUTOR, GATE, RUN_FOLDER, SOURCE, TRACK, goes_on
from simulator.cli.say import can_decide, hand_on, leave_by_decision, say, say_report, tracker_of

if TYPE_CHECKING:
    from simulator.report.tracking import Tracker
    from simulator.scenario.model import Scenario


@click.command()
@click.argument("scenario", type=SOURCE)
@click.option(
    "--out",
    type=RUN_FOLDER,
    help="Folder of the run, or its address (s3://bucket/run); runs/<name>/<time> if left out.",
)
@click.option("--seed", type=int, help="Overrides the scenario's seed.")
@click.option(
    "--engine.tick",
    "tick",
    type=float,
    help="Simulated seconds whose requests are served together (speed only).",
)
@click.option(
    "--engine.block",
    "block",
    type=int,
    help="Requests in one call of a policy, at most (speed only).",
)
@click.option(
    "--engine.shards",
    "shards",
    type=int,
    help="Parts that the users are cut into (speed and memory only).",
)
@EXECUTOR
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted run: that in --out, or the latest of this scenario.",
)
@click.option(
    "--quiet",
    is_flag=True,
    help="No progress bars, no table; only what is red, and the path of the report.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Report no lift where a check is red (a world out of calibration, ...).",
)
@GATE
@click.option(
    "--keep-going",
    is_flag=True,
    help="Give up an arm whose policy breaks its contract, and report the others.",
)
@CSV
@TRACK
def run(
    scenario: Path,
    out: Path | None,
    resume: bool,
    quiet: bool,
    strict: bool,
    gate: bool,
    keep_going: bool,
    csv: bool,
    track: str | None,
    **overrides: Any,
) -> None:
    """Run SCENARIO: make or read the history, fit the policies, simulate the A/B, report the lift.

    Ends with the lift table and the path of report.html. Exit code 0: reported. 2: bad input, one
    message. 130: interrupted (143: by SIGTERM); finished parts are kept and `--resume` continues
    with the same result as an undisturbed run.

    \b
    abtest run scenarios/kuaishou_like.yaml
    abtest run scenarios/kuaishou_like.yaml --seed 3 --out runs/seed-3
    abtest run my.yaml --engine.executor serial --engine.block 512
    abtest run my.yaml --resume
    """
    from simulator.scenario.model import Scenario, find

    keys = {
        "seed": "seed",
        "tick": "engine.tick",
        "block": "engine.block",
        "shards": "engine.shards",
        "executor": "engine.executor",
    }
    with failures():
        loaded = Scenario.load(scenario, {keys[name]: value for name, value in overrides.items()})
        tracker = tracker_of(track)
        if gate:
            can_decide(loaded)
        root = out or _folder(loaded.name, resume=resume)
        with failures(goes_on(scenario, root, "parts")):
            _go(
                loaded,
                root,
                find(scenario).parent,
                resume=resume,
                quiet=quiet,
                gate=gate,
                csv=csv,
                track=tracker,
                strict=strict,
                keep_going=keep_going,
            )


def _go(
    scenario: Scenario,
    root: Path,
    folder: Path,
    *,
    quiet: bool,
    gate: bool,
    csv: bool,
    track: Tracker | None,
    **options: Any,
) -> None:
    from simulator.log.notices import WARNINGS
    from simulator.run.pipeline import run as go
    from simulator.run.progress import board

    with board(quiet=quiet) as progress:
        outcome = go(scenario, root, folder=folder, progress=progress, **options)
    for arm, why in outcome.failed.items():
        say(f"abtest: arm {arm!r} was given up: {why}", err=True)
    for notice, times in sorted(outcome.notices.items()):
        say(f"abtest: {notice}{f' [{times} times]' if times > 1 else ''}", err=True)
    for policy in sorted(
        {notice.policy for notice in outcome.notices if notice.promise != WARNINGS}
    ):
        say(f"abtest: `abtest policies check {policy}` looks closer", err=True)
    if outcome.report is None:
        say(f"abtest: one arm, nothing to compare; the log is {root / 'log'}")
        return
    say_report(outcome.report, root / "report.html", quiet=quiet)
    hand_on(outcome.report, root, csv=csv, track=track)
    if outcome.failed:
        raise SystemExit(1)
    if gate:
        leave_by_decision(outcome.report)


def _folder(name: str, *, resume: bool) -> Path:
    """Where a run goes: a new folder named by the time, or the latest of this scenario.

    Raises:
        RunError: nothing is there to be resumed.
    """
    from simulator.log.workspace import RunError, file_name

    home = Path("runs") / file_name(name)
    if not resume:
        return home / time.strftime("%Y-%m-%d-%H%M%S")

    runs = sorted(path for path in home.glob("*") if path.is_dir())
    if not runs:
        raise RunError(
            f"nothing to resume: {home} holds no run; start one without --resume, or say which with"
            " --out"
        )
    return runs[-1]
