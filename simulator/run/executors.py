"""Where tasks run: in this process, in worker processes, or on Ray. What a task does is not known
here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, Protocol

from policies.base import Progress
from simulator.run.progress import compiling

Task = Callable[[Progress], Any]
"""Something picklable that is called with a progress callback; as text it says what it does
("fitting policy 'itemknn'").
"""

Done = Callable[[int, Any], None]
"""Called in the main process with (index of the task, its result or the exception it raised), in
order of completion.
"""


class Executor(Protocol):
    """Runs tasks that do not depend on one another."""

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        """Run all tasks; `done` is called once for each. What `done` raises ends the run: tasks
        under way are abandoned.
        """


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
                i, epitaph = self._fallen(workers, waiting)
                del waiting[i]
                done(i, epitaph)
                self._news.put(None)
                self._start()

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
                raise _death(f"{_ended(worker.exitcode)} while it was {waiting[note.task]}{inside}")
        inside = "; ".join(note.text for note in notes.values() if note.text)
        raise _death(f"was ended from outside{f' ({inside})' if inside else ''}")

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


def _ended(code: int) -> str:
    """How a process has ended, in words."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended itself with exit code {code}"


class WorkerError(ValueError):
    """A worker process that died."""


def _death(how: str) -> WorkerError:
    return WorkerError(
        f"a worker process {how}. Out of memory (then fewer engine.shards side by side help), a"
        " crash of a library, or ended by hand; what is finished is kept: --resume continues"
        " the run"
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
        with _ray(progress) as cluster:
            yield cluster
        return
    pool = Processes(progress, max(workers, 1))
    try:
        yield pool
    except BaseException:
        pool.close(kill=True)
        raise
    pool.close(kill=False)


class Cluster:
    """Tasks on Ray, one core each; all nodes must see the run's folder under the same path.
    Progress is told task by task.
    """

    def __init__(self, ray: Any, progress: Progress) -> None:
        self._ray, self._progress = ray, progress
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_outcome)

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        waiting = {self._remote.remote(task): i for i, task in enumerate(tasks)}
        finished = 0
        while waiting:
            ready, _ = self._ray.wait(list(waiting), num_returns=1)
            for one in ready:
                i = waiting.pop(one)
                finished += 1
                self._progress(type(tasks[i]).__name__.lower(), finished, len(tasks), {})
                done(i, self._ray.get(one))


def _outcome(task: Task) -> Any:
    """A task's result or the exception it raised (Ray would wrap it in one of its own)."""
    try:
        return task(lambda stage, done, total, figures: None)
    except Exception as error:
        return error


@contextmanager
def _ray(progress: Progress) -> Iterator[Cluster]:
    """The cluster that RAY_ADDRESS names, else one on this machine, as long as the run lasts."""
    try:
        import ray
    except ImportError as error:
        raise WorkerError(
            "engine.executor is ray, but Ray is not installed: pip install 'abtest[ray]'"
        ) from error
    started = not ray.is_initialized()
    if started:
        threads = dict.fromkeys(_THREADS, "1")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            runtime_env={"env_vars": threads},
        )
    try:
        yield Cluster(ray, progress)
    finally:
        if started:
            ray.shutdown()


_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

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

    try:
        with compiling(progress):
            return task(progress)
    finally:
        _release()


def _release() -> None:
    """Give freed memory back to the system: a worker's next task may need little, and its neighbour
    much.
    """
    import ctypes
    import gc

    gc.collect()
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


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
        changes |= dict.fromkeys(_THREADS, str(threads))
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
