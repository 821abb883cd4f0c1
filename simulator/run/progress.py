"""What a person at a terminal sees while a command is under way: one bar a stage, until it is done.
Nothing depends on it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from policies.base import Progress, silent


@contextmanager
def board(*, quiet: bool = False) -> Iterator[Progress]:
    """A progress callback that draws bars on stderr; silent when `quiet` or when stderr is no
    terminal.

    A stage is known by its name. Its bar appears with its first news, and goes when it is done and
    another stage has news, so that no finished bars pile up. News may come from any thread. Kernels
    that numba compiles in this process are a stage, too.
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
        shown = _Board(bars)
        with compiling(shown):
            yield shown


@contextmanager
def compiling(progress: Progress) -> Iterator[None]:
    """Tell of the kernels that numba compiles inside: the first run of an installation waits for
    them, and should say so.

    A kernel that lies in numba's cache is no news. Kernels compile others, so the number of those
    begun grows.
    """
    from numba.core import event

    stage = f"compile kernels (process {os.getpid()})"

    class Listener(event.Listener):  # type: ignore[misc,unused-ignore]
        begun = ended = 0

        def on_start(self, event: Any) -> None:
            self.begun += 1
            progress(stage, self.ended, self.begun, {})

        def on_end(self, event: Any) -> None:
            self.ended += 1
            progress(stage, self.ended, self.begun, {})

    with event.install_listener("numba:compile", Listener()):
        yield


class _Board:
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._last: dict[str, tuple[float, float]] = {}
        self._finished: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        with self._lock:
            for other in self._finished - {stage}:
                self._bars.remove_task(self._tasks.pop(other))
                self._last.pop(other, None)
            self._finished &= {stage}
            if stage not in self._tasks:
                self._tasks[stage] = self._bars.add_task(stage, total=total, figures="")
            self._bars.update(
                self._tasks[stage], completed=done, total=total, figures=self._said(stage, figures)
            )
            if done >= total:
                self._finished.add(stage)
            else:
                self._finished.discard(stage)

    def _said(self, stage: str, figures: Mapping[str, float]) -> str:
        """Figures as text; a count of requests becomes a rate since the stage's first news."""
        said = {name: f"{value:.4g}" for name, value in figures.items() if name != "requests"}
        if "requests" in figures:
            now, count = time.monotonic(), figures["requests"]
            since, base = self._last.setdefault(stage, (now, count))
            if now > since:
                said["requests/s"] = f"{(count - base) / (now - since):,.0f}"
        return "  ".join(f"{name} {value}" for name, value in said.items())
