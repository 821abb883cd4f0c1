"""A task that several processes of this machine compute together (`policies.ranks`): they are
started, watched and ended here. What the task does is not known here.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from policies.base import Progress
from policies.calls import CallError, note_in
from policies.ranks import RankError, RankGroup
from simulator.run.contract import WorkerError
from simulator.run.executors import SHORTLY, ended, ending, epitaph, follow_parent, spawning
from simulator.run.progress import compiling

ECHO = 60.0
"""Seconds for which the cause is waited for of what other ranks complain of."""


class Together(Protocol):
    """A picklable task whose text says what it does."""

    def of_rank(self, progress: Progress, ranks: RankGroup) -> Any:
        """Compute the task as one of its `ranks`."""


@dataclass(frozen=True)
class _End:
    """What a rank says last.

    Attributes:
        result: of the task.
        error: that it raised; None: none.
        is_echo: the error says that another rank does not answer.
    """

    result: Any = None
    error: Exception | None = None
    is_echo: bool = False


def together(task: Together, count: int, progress: Progress) -> list[Any]:
    """What each of `count` processes makes of a task, in the order of the ranks. None of them
    outlives the call, or this process.

    Raises:
        WorkerError: one was ended from outside, or ended itself.
        Exception: whatever the task raised in one of them; the first rank's, where several did.
    """
    import multiprocessing
    from multiprocessing.connection import wait

    context = multiprocessing.get_context("spawn")
    pipes: dict[Any, int] = {}
    ends: dict[int, _End] = {}
    processes, notes = [], [context.RawArray("c", 512) for _ in range(count)]
    deadline = float("inf")
    with tempfile.TemporaryDirectory(prefix="abtest-ranks-") as folder:
        try:
            with spawning(threads=1):
                for rank in range(count):
                    ranks = RankGroup(rank, count, Path(folder) / "store")
                    mine, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(task, ranks, theirs, notes[rank]))
                    process.start()
                    theirs.close()  # so that the end of the process is the end of the pipe
                    processes.append(process)
                    pipes[mine] = rank
            while pipes and time.monotonic() < deadline:
                ready: list[Any] = wait(list(pipes), timeout=SHORTLY)
                for pipe in ready:
                    rank = pipes[pipe]
                    try:
                        news = pipe.recv()
                    except EOFError:
                        del pipes[pipe]
                        processes[rank].join()
                        death = _death(task, RankGroup(rank, count), processes[rank], notes[rank])
                        ends.setdefault(rank, _End(error=death))
                        continue
                    if isinstance(news, _End):
                        ends[rank] = news
                    else:
                        progress(*news)
                errors = [end for end in ends.values() if end.error is not None]
                if errors:
                    # The cause may come later than its echoes from other ranks
                    patience = ECHO if all(end.is_echo for end in errors) else SHORTLY
                    deadline = min(deadline, time.monotonic() + patience)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join()
    failed = [(end.is_echo, rank, end.error) for rank, end in ends.items() if end.error is not None]
    if failed:
        _, rank, error = min(failed, key=lambda each: each[:2])
        raise _named(error, RankGroup(rank, count))
    return [ends[rank].result for rank in range(count)]


def _death(task: Together, ranks: RankGroup, process: Any, note: Any) -> WorkerError:
    """What is said of a rank that has ended without an answer."""
    inside = note.value.decode(errors="replace")
    if inside and process.exitcode >= 0:
        return WorkerError(f"{inside} ended its process, {ranks} ({ending(process.exitcode)})")
    where = f" ({inside})" if inside else ""
    return epitaph(f"{ended(process.exitcode)} while it was {task}, {ranks}{where}")


def _named(error: Exception, ranks: RankGroup) -> Exception:
    """An error of a policy, with the rank in which it was raised."""
    if isinstance(error, CallError):
        return CallError(error.name, f"{error.what} ({ranks})", error.kind)
    return error


def _work(task: Together, ranks: RankGroup, pipe: Any, note: Any) -> None:
    """The life of a rank. Ctrl-C is the main process's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()
    note_in(note)

    def progress(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        pipe.send((stage, done, total, dict(figures)))

    try:
        with compiling(progress):
            end = _End(task.of_rank(progress, ranks))
    except Exception as error:  # whoever has started the ranks decides
        end = _End(error=error, is_echo=_is_echo(error))
    pipe.send(end)


def _is_echo(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, RankError):
            return True
        error = error.__cause__
    return False
