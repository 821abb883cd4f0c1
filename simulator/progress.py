"""What a person at a terminal sees while a run is under way: one bar a stage. Nothing is measured and nothing depends on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from policies.base import Progress


def silent(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """The progress of a run that nobody watches."""


@contextmanager
def board(*, quiet: bool = False) -> Iterator[Progress]:
    """A progress callback that draws bars on stderr; silent when `quiet` or when stderr is no terminal.

    A stage is known by its name; its bar appears with its first news. News may come from any thread.
    """
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bars(*columns, console=Console(stderr=True), refresh_per_second=5) as bars:
        yield _Board(bars)


class _Board:
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._last: dict[str, tuple[float, float]] = {}

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, figures="")
        self._bars.update(self._tasks[stage], completed=done, total=total, figures=self._said(stage, figures))

    def _said(self, stage: str, figures: Mapping[str, float]) -> str:
        """Figures as text; a count of requests becomes a rate since the stage's first news."""
        said = {name: f"{value:.4g}" for name, value in figures.items() if name != "requests"}
        if "requests" in figures:
            now, count = time.monotonic(), figures["requests"]
            since, base = self._last.setdefault(stage, (now, count))
            if now > since:
                said["requests/s"] = f"{(count - base) / (now - since):,.0f}"
        return "  ".join(f"{name} {value}" for name, value in said.items())
