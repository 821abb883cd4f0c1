"""`abtest run`: a scenario to its finished report."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import (
    CSV,
    EXECUTOR,
    GATE,
    RUN_FOLDER,
    SOURCE,
    TRACK,
    Shard,
    ShardParam,
    goes_on,
    written,
)
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
    "--shard",
    type=ShardParam(),
    metavar="I/N",
    help="Simulate the I-th of N shards alone, without a report; --resume takes it over.",
)
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
    shard: Shard | None,
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
    abtest run my.yaml --out runs/big --shard 3/64
    """
    from simulator.scenario.model import Scenario, find

    keys = {
        "seed": "seed",
        "tick": "engine.tick",
        "block": "engine.block",
        "shards": "engine.shards",
        "executor": "engine.executor",
    }
    if shard is not None:
        _alone(overrides["shards"], strict, gate, keep_going, csv, track)
        overrides["shards"] = shard.shards
    with failures():
        loaded = Scenario.load(scenario, {keys[name]: value for name, value in overrides.items()})
        tracker = tracker_of(track)
        if gate:
            can_decide(loaded)
        root = out or _folder(loaded.name, resume=resume)
        with failures(goes_on(scenario, root, "parts")):
            if shard is not None:
                _go_shard(loaded, root, shard, scenario, resume=resume, quiet=quiet)
                return
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


def _alone(*others: Any) -> None:
    """Refuse what a shard alone has no use for.

    Raises:
        click.UsageError: an option that says how to cut, report or go on.
    """
    names = ("--engine.shards", "--strict", "--gate", "--keep-going", "--csv", "--track")
    given = [name for name, value in zip(names, others, strict=True) if value]
    if given:
        rule = "--shard I/N says into how many shards the users are cut, and makes no report"
        raise click.UsageError(f"{rule}: leave out {', '.join(given)}")


def _go_shard(
    scenario: Scenario, root: Path, shard: Shard, source: Path, *, resume: bool, quiet: bool
) -> None:
    from simulator.run.pipeline import simulate_shard
    from simulator.run.progress import board
    from simulator.scenario.model import find

    with board(quiet=quiet) as progress:
        outcome = simulate_shard(
            scenario,
            root,
            shard.number,
            folder=find(source).parent,
            resume=resume,
            progress=progress,
        )
    took = outcome.runtime
    stages = [name for name in ("history", "simulate") if f"{name} impressions" in took]
    for name in stages:
        what = "the A/B" if name == "simulate" else "the history"
        say(
            f"{what} of shard {shard}, {took[f'{name} days']:.0f} days:"
            f" {took[f'{name} impressions']:,.0f} impressions simulated in"
            f" {took[f'{name} CPU seconds']:,.1f} CPU s"
        )
    say(f"the largest process took {took['peak MiB']:,.0f} MiB")
    asked = {"history": scenario.data.history_days, "simulate": scenario.days}
    if any(took[f"{name} days"] < asked[name] for name in stages):
        say("abtest: its further days wait for midnights that need the day of all shards")
    if "simulate" not in stages:
        say("abtest: its A/B waits for the fits, which learn from the history of all shards")
    command = [f"abtest run {shlex.quote(str(source))} --out {shlex.quote(str(root))}"]
    command += [*written("out", "resume", "shard").values(), f"--engine.shards {shard.shards}"]
    say(f"{' '.join(command)} --resume does what is left")


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
