"""Where tasks run: in this process, in worker processes, or on Ray (`simulator.run.cluster`). What
a task does is not known here.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from policies.base import Progress
from simulator.run.cluster import Cluster
from simulator.run.contract import THREADS, Done, Executor, Task, WorkerError
from simulator.run.progress import compiling
from simulator.run.worker import releasing

__all__ = ["Executor", "Processes", "Serial", "WorkerError", "cores", "executor", "spawning"]


class Serial:
    """One task after another, here."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        for i, task in enumerate(tasks):
            try:
                result = task(self.progress)
            except Exception as error:  # `done` decides
                done(i, error)
            else:
                done(i, result)

    def here(self, tasks: Sequence[Task], done: Done) -> None:
        self.run(tasks, done)

    def prepare(self, files: Sequence[Path], look: Task) -> None:
        """Nothing: there is one machine, and all is there."""


class Processes:
    """A pool of spawned worker processes; each computes with one thread and forwards its progress
    to the main process.

    A worker notes where its task is within a policy's code, so that a policy that ends its process
    is named.
    """

    def __init__(self, progress: Progress, workers: int) -> None:
        import multiprocessing

        self._context = multiprocessing.get_context("spawn")
        self._progress, self._workers = progress, workers
        self._start()

    def _start(self) -> None:
        from concurrent.futures import ProcessPoolExecutor

        # The queue starts a process, too, which keeps account of shared memory.
        with spawning(threads=1):
            self._news: Any = self._context.Queue()
            # A worker that is killed while it writes keeps the queue's lock for ever: nobody may
            # wait for it, and the next workers have a queue of their own.
            self._news.cancel_join_thread()
            self._notes = [_Note(self._context) for _ in range(self._workers)]
            args = self._news, self._notes, self._context.Value("i", 0)
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=self._context, initializer=_enter, initargs=args
            )
        self._listener = threading.Thread(target=self._listen, args=(self._news,), daemon=True)
        self._listener.start()

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        waiting = dict(enumerate(tasks))
        while waiting:
            futures = {}
            # The first tasks may break the pool while the last ones are submitted.
            with (
                spawning(threads=1),
                suppress(BrokenProcessPool),
            ):
                for i, task in waiting.items():
                    futures[self._pool.submit(_work, i, task)] = i
            workers = list((self._pool._processes or {}).values())
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    continue  # its own doing, or that of a task beside it
                if error is not None and not isinstance(error, Exception):
                    raise error
                del waiting[futures[future]]
                done(futures[future], error if error is not None else future.result())
            if waiting:
                i, fallen = self._fallen(workers, waiting)
                del waiting[i]
                done(i, fallen)
                self._news.put(None)
                self._start()

    def here(self, tasks: Sequence[Task], done: Done) -> None:
        self.run(tasks, done)

    def prepare(self, files: Sequence[Path], look: Task) -> None:
        """Nothing: there is one machine, and all is there."""

    def _fallen(
        self, workers: Sequence[Any], waiting: Mapping[int, Task]
    ) -> tuple[int, WorkerError]:
        """The task whose worker died in a policy's code, and what is to be said of it.

        Raises:
            WorkerError: a worker died otherwise.
        """
        # Of a SIGTERM to all processes of a run the main process speaks itself, in this time.
        time.sleep(SHORTLY)
        for worker in workers:
            worker.join(timeout=SHORTLY)
        notes = {note.pid: note for note in self._notes if note.task in waiting}
        for worker in workers:
            # The pool itself ends the others by SIGTERM as soon as one is gone.
            if worker.exitcode in (None, -signal.SIGTERM) or worker.pid not in notes:
                continue
            note = notes[worker.pid]
            if note.text and worker.exitcode != -signal.SIGKILL:
                advice = (
                    "`abtest policies check` on it shows more; what is finished is kept: --resume"
                    " continues the run"
                )
                return note.task, WorkerError(
                    f"{note.text} ended its process ({ending(worker.exitcode)}). {advice}"
                )
            if worker.exitcode != 0:
                inside = f" ({note.text})" if note.text else ""
                raise epitaph(f"{ended(worker.exitcode)} while it was {waiting[note.task]}{inside}")
        inside = "; ".join(note.text for note in notes.values() if note.text)
        raise epitaph(f"was ended from outside{f' ({inside})' if inside else ''}")

    def close(self, *, kill: bool) -> None:
        """End the workers; with `kill`, at once (whatever they have finished is whole)."""
        workers = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=not kill, cancel_futures=True)
        if kill:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.join(timeout=10)  # until then it may still be writing
        self._news.put(None)
        self._listener.join(timeout=5)

    def _listen(self, queue: Any) -> None:
        while (news := queue.get()) is not None:
            self._progress(*news)


SHORTLY = 0.5
"""Seconds after which a process that is ending has ended."""


def ended(code: int) -> str:
    """How a process has ended, in words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended itself with exit code {code}"


def epitaph(how: str) -> WorkerError:
    """What is said of a process of the run that ended as `how` says."""
    return WorkerError(
        f"a worker process {how}. Out of memory (then fewer side by side help: engine.shards, or"
        " --workers of a report), a crash of a library, or ended by hand; what a run has finished"
        " is kept: --resume continues the run"
    )


class _Note:
    """What a worker is doing, in memory that outlives it."""

    def __init__(self, context: Any) -> None:
        self._numbers, self.place = context.RawArray("q", 2), context.RawArray("c", 512)

    def task_begins(self, i: int) -> None:
        """In the worker: the task with index `i` is next."""
        self._numbers[:] = os.getpid(), i

    @property
    def pid(self) -> int:
        return int(self._numbers[0])

    @property
    def task(self) -> int:
        return int(self._numbers[1])

    @property
    def text(self) -> str:
        """Which policy's code the worker is in, "" = none."""
        return str(self.place.value.decode(errors="replace"))


def ending(code: int) -> str:
    """How a process ended, from its exit code (negative: a signal)."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code}: {(signal.strsignal(-code) or 'unknown').lower()}"


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def executor(
    kind: Literal["serial", "processes", "ray"], progress: Progress, tasks: int
) -> Iterator[Executor]:
    """The executor of a run; its workers end with the context.

    Args:
        kind: as `engine.executor` of the scenario.
        progress: receives the progress of all tasks.
        tasks: how many will run at most side by side.
    """
    workers = min(cores(), tasks)
    if kind == "serial":
        yield Serial(progress)
        return
    if kind == "ray":
        cluster = Cluster(progress, lambda: executor("processes", progress, 1))
        try:
            yield cluster
        finally:
            cluster.close()
        return
    pool = Processes(progress, max(workers, 1))
    try:
        yield pool
    except BaseException:
        pool.close(kill=True)
        raise
    pool.close(kill=False)


_news: Any = None
_note: _Note | None = None


def _enter(news: Any, notes: Sequence[_Note], begun: Any) -> None:
    """Start of a worker: Ctrl-C is the main process's business, and a worker does not outlive
    it.
    """
    from policies.calls import note_in

    global _news, _note
    _news = news
    with begun.get_lock():
        _note = notes[begun.value % len(notes)]
        begun.value += 1
    note_in(_note.place)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()


def follow_parent() -> None:
    """End this process when the one that started it has ended, however that ended."""
    import multiprocessing
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def follow() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(i: int, task: Task) -> Any:
    assert _note is not None
    _note.task_begins(i)

    def progress(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        _news.put((stage, done, total, dict(figures)))

    with releasing(), compiling(progress):
        return task(progress)


@contextmanager
def spawning(threads: int | None = None) -> Iterator[None]:
    """The environment of processes that are started inside.

    Modules are not looked for in the working directory first, where a plug-in called `array.py`
    would stand before Python's own.

    Args:
        threads: with how many each computes (BLAS, OpenMP and torch read this at their start);
            None: as many as here.
    """
    changes = {"PYTHONSAFEPATH": "1"}
    if threads is not None:
        changes |= dict.fromkeys(THREADS, str(threads))
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
