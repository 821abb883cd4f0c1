"""What one process needs that simulates one shard of a world, whatever the size of the world.

Each row is a process of its own, whose address space is limited: what it maps, touched or not,
counts. The world has as many users as the first column says, the process simulates a shard of
`--shard` of them: a day of history, then a day of an arm. The fits come from a small world with the
same seed. The digest is of what the shard was shown and answered: it is the same in any world.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.shard_memory
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from policies.base import silent
from simulator.log.metadata import HISTORY
from simulator.log.workspace import Lane, Workspace
from simulator.run.context import Job
from simulator.run.executors import spawning
from simulator.run.pipeline import put_source, simulate
from simulator.run.tasks import FitUsers, Simulate
from simulator.scenario.model import Scenario

CONTENT: dict[str, Any] = {
    "name": "shard",
    "seed": 1,
    "data": {"source": "synthetic", "history_days": 1, "logging": {"policy": "random"}},
    "users": {"kind": "choice", "n_users": 2000, "n_items": 10_000},
    "days": 1,
    "serving": {"slate": 10, "recall": 10, "ranking": {"kind": "recall"}},
    "arms": {"popularity": {"policy": "popularity"}, "random": {"policy": "random"}},
    "design": {"kind": "paired", "control": "random"},
    "engine": {"executor": "serial", "shards": 1, "memory_limit": 1e6},
}
ARM = "popularity"


def world(n_users: int) -> Scenario:
    return Scenario.model_validate({**CONTENT, "users": {**CONTENT["users"], "n_users": n_users}})


def one_shard(
    root: Path, fits: Path, n_users: int, first: int, last: int, limit: int, out: Any
) -> None:
    """Simulate users first..last-1 of a world in this process, within `limit` bytes of address
    space; CPU seconds, memory and a digest go to `out`.
    """
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    scenario, workspace = world(n_users), Workspace(root)
    with workspace.held():
        workspace.claim(scenario.identity(), {}, resume=False)
        workspace.borrow(fits)
        put_source(scenario, root, workspace)
        job = Job(str(root), str(root), json.dumps(scenario.resolved()))
        FitUsers(job)(silent)
        start, impressions, digest = time.process_time(), 0.0, hashlib.sha256()
        for lane, days in ((Lane(HISTORY), 0), (Lane(ARM), 1)):
            impressions += Simulate(job, lane, first, last, days)(silent)["impressions"]
            for tape in sorted(workspace.shard(lane, first, last).glob("day-*.npz")):
                digest.update(tape.read_bytes())
    out.put((time.process_time() - start, impressions, digest.hexdigest()[:12], *memory()))


def memory() -> tuple[float, float]:
    """(address space, resident memory) of this process at their peaks, MiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in text.splitlines())
    space, resident = (int(lines[name].split()[0]) / 1024 for name in ("VmPeak", "VmHWM"))
    return space, resident


@click.command()
@click.option("--users", "worlds", type=int, multiple=True, default=(10**5, 10**6, 10**7, 10**8))
@click.option("--shard", type=int, default=100_000, help="users of the shard")
@click.option("--limit", type=float, default=2.0, help="GiB of address space")
def main(worlds: tuple[int, ...], shard: int, limit: float) -> None:
    """Measure, and print a table."""
    click.echo("| users | CPU s | impressions | address space, MiB | resident, MiB | digest |")
    click.echo("|---:|---:|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        fits = simulate(world(2000), Path(folder, "small")).root / "models"
        for n_users in worlds:
            root = Path(folder, str(n_users))
            with spawning(threads=1):
                context = multiprocessing.get_context("spawn")
                out = context.Queue()
                bounds = n_users, 0, shard, round(limit * 2**30)
                child = context.Process(target=one_shard, args=(root, fits, *bounds, out))
                child.start()
            child.join()
            if child.exitcode != 0:
                raise SystemExit(f"the shard of a world of {n_users:,} users needs more memory")
            seconds, impressions, digest, space, resident = out.get()
            click.echo(
                f"| {n_users:,} | {seconds:.1f} | {impressions:,.0f} | {space:,.0f} |"
                f" {resident:,.0f} | {digest} |"
            )


if __name__ == "__main__":
    main()
