"""The report of a big run: CPU and wall seconds and peak memory of `abtest report` on a made log;
or of its audit (100 samples of each kind, and 1,000 of all users from 2,097,152 on) or its plan
(`abtest power`), by `--command`.

    python -m benchmarks.report [--users 1000000] [--days 1] [--impressions 12] [--workers 2]
                                [--command report] [--resamples 0] [--before TREE]

The log has two arms of the same users, `impressions` a user, day and arm, and every kind of
feedback. It lies in a folder as a run leaves it, in parts of 100,000 users that were added up; what
that took is printed, for a run shares it out. The command is run in a process of its own, start of
Python included, once more by `--workers` processes, and once more without the sums of the parts, by
the rows. `--before` names the
folder of another revision (`git worktree add`), which reads the same log in the same run, in turn
with this one; the largest difference between the numbers that are written is printed, relative
to the scale of each (`figures`).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.files import write_text
from simulator.log.ledger import CLAIM, LEDGER
from simulator.log.metadata import Metadata
from simulator.log.workspace import Workspace
from simulator.report.reading import keep_sums


def rows_of(index: int, first: int, last: int, impressions: int, meta: Metadata) -> EventLog:
    """The rows of the users first..last-1 in one arm, in KEY order."""
    random = np.random.default_rng([index, first])
    days, n_users = meta.days, last - first
    n = n_users * days * impressions
    day = np.tile(np.repeat(np.arange(days), impressions), n_users)
    request, position = np.divmod(np.tile(np.arange(impressions), n_users * days), 6)
    click = random.random(n, dtype=np.float32) < 0.4 + 0.004 * index
    columns = {
        "arm": np.full(n, index, np.uint8),
        "user": np.repeat(np.arange(first, last, dtype=np.uint32), days * impressions),
        "session": day,
        "request": request,
        "position": position,
        "t": day * DAY + request * 60_000,
        "item": random.integers(1, meta.n_items + 1, n),
        "click": click,
        "watch": random.exponential(20.0, n).astype(np.float32) * (click + 0.1),
        "duration": np.full(n, 60.0, np.float32),
    }
    rates = {
        "long_view": 0.7,
        "like": 0.034,
        "comment": 0.0054,
        "follow": 0.0021,
        "forward": 0.0019,
    }
    columns |= {
        kind: click & (random.random(n, dtype=np.float32) < rate) for kind, rate in rates.items()
    }
    return EventLog.from_columns(columns, meta, sort=False)


def make(home: Path, n_users: int, days: int, impressions: int) -> float:
    """Write the log, and add its parts up; returns the CPU seconds of the latter."""
    scenario = {
        "name": "benchmark",
        "seed": 1,
        "days": days,
        "arms": {"a": {}, "b": {}},
        "design": {"kind": "paired", "control": "a"},
    }
    meta = Metadata(("a", "b"), n_users, 10_000, control="a", days=days, scenario=scenario)
    run = Workspace(home)
    run.ledger.file.touch()
    parts = []
    for index, arm in enumerate(meta.arms):
        for part in run.parts(arm, n_users, (0, n_users)):
            rows = rows_of(index, part.first, part.end, impressions, meta)
            parts.append(rows.write(part.path))
    start = time.process_time()
    for _ in keep_sums(run, parts):
        pass
    taken = time.process_time() - start
    write_text(home / CLAIM, "{}")
    return taken


COMMANDS = {
    "report": ("--quiet",),
    "audit": ("--quiet", "--repetitions", "100", "--decision-repetitions", "100"),
    "power": ("--lift", "1%"),
}
"""By name, with the options that are always given."""


def measured(command: str, home: Path, tree: Path, *options: str) -> tuple[str, str]:
    """A command of one revision: what it took, in words, and the JSON text that it wrote."""
    out = home if command == "report" else home / f"{command}.json"
    start = time.monotonic()
    place = {**os.environ, "PYTHONPATH": str(tree)}
    asked = [command, str(home), *COMMANDS[command], "--out", str(out), *options]
    line = [sys.executable, "-m", "simulator", *asked]
    with subprocess.Popen(line, env=place, cwd=tree, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{tree}: abtest {command} ended with exit code {process.returncode}")
    wall = time.monotonic() - start
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    took = f"{cpu:.1f} CPU s, {wall:.1f} s wall, peak {peak:.2f} GiB"
    return took, (home / f"{command}.json").read_text(encoding="utf-8")


Figures = list[tuple[float, float, str]]


def figures(tree: Any, path: str = "") -> Figures:
    """The numbers of JSON, in order, each with its scale and its path.

    The scale is what a figure's own size would be without cancellation: of a lift or a difference
    and the ends of its intervals also the width of the 95% interval, which is some standard errors;
    of a statistic or a share at least 1; of parts of a variance the largest one; of a probability
    p its size times -ln p, for that is what a relative error of the statistic becomes.
    """
    if isinstance(tree, list):
        return [row for i, one in enumerate(tree) for row in figures(one, f"{path}/{i}")]
    if not isinstance(tree, dict):
        is_number = isinstance(tree, int | float)
        return [(float(tree), abs(float(tree)), path)] if is_number else []
    found = []
    for key in sorted(tree):
        name = key.removesuffix("_adjusted")
        for value, scale, place in figures(tree[key], f"{path}/{key}"):
            if place == f"{path}/{key}":
                if name == "p" and 0.0 < value < 1.0:
                    scale *= max(1.0, -math.log(value))
                elif name == "t" or name.startswith("share_of"):
                    scale = max(scale, 1.0)
                elif name.removesuffix("low").removesuffix("high") in ("difference", "difference_"):
                    scale += _width(tree, "difference_")
                elif name.removesuffix("low").removesuffix("high") in ("lift", "", "sequence_"):
                    scale += _width(tree, "")
            found.append((value, scale, place))
    if path.endswith("/components"):
        largest = max(scale for _, scale, _ in found)
        return [(value, largest, place) for value, _, place in found]
    return found


def _width(row: Mapping[str, Any], what: str) -> float:
    """Of the interval of a row, if it has a finite one."""
    ends = (row.get(f"{what}low"), row.get(f"{what}high"))
    if not all(isinstance(end, int | float) and math.isfinite(end) for end in ends):
        return 0.0
    low, high = ends
    return float(high - low)


def apart(one: Any, other: Any) -> tuple[float, str]:
    """The largest difference between two JSON trees of the same form, relative to the scale of the
    figure (`figures`), and which it is.
    """
    most = (0.0, "")
    for (a, scale, path), (b, far, place) in zip(figures(one), figures(other), strict=True):
        assert path == place, (path, place)
        if a != b and not (math.isnan(a) and math.isnan(b)):
            # Of an infinite figure and a finite one it is infinite.
            size = max(scale, far)
            most = max(most, (abs(a - b) / size if math.isfinite(size) else math.inf, path))
    return most


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--impressions", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2, help="of the command by several")
    parser.add_argument("--command", choices=COMMANDS, default="report")
    parser.add_argument("--resamples", default="0", help="of each report or audit")
    parser.add_argument("--before", type=Path, help="folder of another revision")
    given = parser.parse_args()
    own = Path(__file__).resolve().parents[1]
    command = given.command
    if command == "power" and given.resamples != "0":
        parser.error("--resamples: a plan has none: leave it out")
    asked = () if command == "power" else ("--resamples", given.resamples)
    trees = {"this revision": own}
    if given.before is not None:
        trees = {"before": given.before.resolve(), **trees}
    with tempfile.TemporaryDirectory() as folder:
        home, found = Path(folder), []
        # In a process of its own: a child's peak begins with what its parent holds.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn) as maker:
            size = given.users, given.days, given.impressions
            added = maker.submit(make, home, *size).result()
        rows = EventLog.open(home / "log").n_rows
        print(f"{given.users:,} users x {given.days} days x 2 arms, {rows:,} impressions")
        print(f"adding up their parts: {added:.1f} CPU s")
        warm = home / "warm"
        warm.mkdir()
        make(warm, 100, 1, 12)
        for name, tree in trees.items():
            measured(command, warm, tree, *asked)  # compiles
            took, text = measured(command, home, tree, *asked)
            print(f"abtest {command}, {name}: {took}")
            found.append(json.loads(text))
        took, text = measured(command, home, own, *asked, "--workers", str(given.workers))
        print(f"abtest {command}, this revision, {given.workers} processes: {took}")
        found.append(json.loads(text))
        for file in (CLAIM, LEDGER):
            home.joinpath(file).unlink()
        took, text = measured(command, home, own, *asked)
        print(f"abtest {command}, this revision, by rows: {took}")
        found.append(json.loads(text))
        most, which = max(apart(found[-1], other) for other in found[:-1])
        print(f"largest difference between what they wrote, by the scale of the figure: {most:.1g}")
        if which:
            print(f"of {which}")


if __name__ == "__main__":
    main()
