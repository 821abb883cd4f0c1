"""What an executor takes of the main process for each task: empty tasks, so that nothing else is
measured.

    python -m benchmarks.executors --executor ray --tasks 8000 --tasks 30000

prints a row for each number of tasks: CPU seconds of the main process (all its threads), seconds on
the clock, and CPU milliseconds a task. The cluster or the pool is started beforehand.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any, Literal

import click

from policies.base import Progress, silent
from simulator.run.executors import executor


@dataclass(frozen=True)
class Nothing:
    """An empty task."""

    number: int

    def __call__(self, progress: Progress) -> int:
        return self.number


@click.command()
@click.option(
    "--executor", "kind", type=click.Choice(["serial", "processes", "ray"]), default="ray"
)
@click.option("--tasks", "counts", type=int, multiple=True, default=(1000, 8000, 30_000))
def main(kind: Literal["serial", "processes", "ray"], counts: tuple[int, ...]) -> None:
    """Measure, and print a table."""
    click.echo("| tasks | main process, CPU s | clock, s | CPU ms a task |\n|---:|---:|---:|---:|")
    with executor(kind, silent, 2) as made:
        made.run([Nothing(i) for i in range(64)], lambda i, result: None)
        for count in counts:
            seen: set[Any] = set()
            tasks = [Nothing(i) for i in range(count)]
            began, cpu = time.monotonic(), _cpu()
            made.run(tasks, lambda i, result, seen=seen: seen.add(result))  # type: ignore[misc]
            cpu, clock = _cpu() - cpu, time.monotonic() - began
            if seen != set(range(count)):
                raise SystemExit(f"{count - len(seen)} of {count} tasks have no result")
            click.echo(f"| {count:,} | {cpu:.1f} | {clock:.0f} | {1e3 * cpu / count:.2f} |")


def _cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
