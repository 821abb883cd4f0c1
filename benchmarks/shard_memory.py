"""What a process takes that simulates one shard of a large world, from the size of the world and of
its catalogue.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.shard_memory
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.shard_memory \\
        --users 100000000 --shard 10000 --items 10000 --items 1000000

Each world is simulated in a process of its own whose address space is limited: what it maps,
touched or not, counts. The world has as many users as the first column says, the process simulates
its first shard of `--shard` of them: a day of history, then a day of an arm. The fits come from a
small world with the same seed. `own` is the largest memory at a day's end that no file backs;
resident memory holds also what the processes of a machine share. The digest is of what the shard
was shown and answered: it is the same in a world of any number of users.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import resource
import tempfile
from pathlib import Path
from typing import Any

import click

from simulator.log.metadata import HISTORY
from simulator.run.executors import spawning
from simulator.run.pipeline import simulate, simulate_shard
from simulator.scenario.model import Scenario

CONTENT: dict[str, Any] = {
    "name": "shard",
    "seed": 1,
    "data": {"source": "synthetic", "history_days": 1, "logging": {"policy": "random"}},
    "users": {"kind": "choice"},
    "days": 1,
    "serving": {"slate": 10, "recall": 10, "ranking": {"kind": "recall"}},
    "arms": {"popularity": {"policy": "popularity"}},
    "design": {"kind": "paired", "control": "popularity"},
    "engine": {"executor": "serial", "memory_limit": 1e6},
}
STAGES = ("history", "simulate")


def world(n_users: int, n_items: int, shards: int) -> Scenario:
    users = {**CONTENT["users"], "n_users": n_users, "n_items": n_items}
    engine = {**CONTENT["engine"], "shards": shards}
    return Scenario.model_validate({**CONTENT, "users": users, "engine": engine})


def one_shard(scenario: Scenario, root: Path, fits: Path, limit: int, out: Any) -> None:
    """Simulate the first shard in this process, within `limit` bytes of address space; CPU seconds,
    impressions, memory and a digest go to `out`.
    """
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    own = [0.0]
    took = simulate_shard(
        scenario, root, 1, fits=fits, progress=lambda *_: own.append(memory("RssAnon"))
    ).runtime
    digest = hashlib.sha256()
    for lane in (HISTORY, "popularity"):
        for tape in sorted((root / "work" / lane).glob("*/day-*.npz")):
            digest.update(tape.read_bytes())
    seconds, impressions = (
        sum(took[f"{stage} {what}"] for stage in STAGES) for what in ("CPU seconds", "impressions")
    )
    space, resident = memory("VmPeak"), memory("VmHWM")
    out.put((seconds, impressions, space, resident, max(own), digest.hexdigest()[:12]))


def memory(name: str) -> float:
    """A figure of this process, MiB: `VmPeak` (address space at its peak), `VmHWM` (resident at its
    peak), `RssAnon` (resident now, of no file).
    """
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines[name].split()[0]) / 1024


@click.command()
@click.option("--users", "worlds", type=int, multiple=True, default=(10**5, 10**6, 10**7, 10**8))
@click.option("--items", "catalogues", type=int, multiple=True, default=(10_000,))
@click.option("--shard", type=int, default=100_000, help="users of the shard")
@click.option("--limit", type=float, default=2.0, help="GiB of address space")
def main(worlds: tuple[int, ...], catalogues: tuple[int, ...], shard: int, limit: float) -> None:
    """Measure, and print a table."""
    click.echo(
        "| users | videos | CPU s | impressions | address space, MiB | resident, MiB | own, MiB |"
        " digest |\n|---:|---:|---:|---:|---:|---:|---:|---|"
    )
    for n_users, n_items in itertools.product(worlds, catalogues):
        with tempfile.TemporaryDirectory() as folder:
            fits = simulate(world(2000, n_items, 1), Path(folder, "small")).root / "models"
            scenario = world(n_users, n_items, n_users // shard)
            with spawning(threads=1):
                context = multiprocessing.get_context("spawn")
                out = context.Queue()
                args = (scenario, Path(folder, "large"), fits, round(limit * 2**30), out)
                child = context.Process(target=one_shard, args=args)
                child.start()
            child.join()
            if child.exitcode != 0:
                raise SystemExit(f"the shard of a world of {n_users:,} users needs more memory")
            seconds, impressions, space, resident, own, digest = out.get()
            click.echo(
                f"| {n_users:,} | {n_items:,} | {seconds:.1f} | {impressions:,.0f} |"
                f" {space:,.0f} | {resident:,.0f} | {own:,.0f} | {digest} |"
            )


if __name__ == "__main__":
    main()
