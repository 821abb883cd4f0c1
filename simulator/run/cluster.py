"""Tasks on Ray: on the machines of a cluster, or on this one.

What Ray does is not done again here: it places tasks by what they need, brings files to machines,
watches workers and nodes. What is added: a task whose worker or node died is tried again, and
progress says so; the driver hears what tasks tell while they run; and what goes wrong becomes one
message that names the node and what to do.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from policies.base import Progress, silent
from policies.calls import note_in
from policies.sources import OWN, package
from simulator.log.workspace import versions
from simulator.run.contract import THREADS, Done, Executor, Needs, Task, WorkerError, needs_of
from simulator.run.progress import compiling
from simulator.run.worker import Note, read_note, releasing

TRIES = 4
"""How often a task is tried whose worker or node dies."""

AHEAD = 2
"""Tasks that Ray knows of, for each processor of the cluster: so many are at hand when others end.
Ray's work for a task does not grow with those that are left, and a cluster that grows with what is
asked of it may double at a time.
"""

FEWEST = 64
"""Tasks that Ray knows of, where there are as many, however small the cluster."""

TICK = 0.25
"""Seconds between two looks at what tasks tell, and between two news of one stage of a task."""

STRANDED = 600.0
"""Seconds for which a task waits for such a node as it has asked for, when the last one is lost: an
autoscaler may bring another. Then it asks for what there is.
"""

PATIENCE = 120.0
"""Seconds after which a node that has not answered is named."""

MIRROR = "files-of-the-driver"
"""Folder that is brought to every node: files lie below it as they lie below / here, so that
relative paths lead to them. The hyphens keep it from being a module: Ray adds the folder that it
lies in to Python's path.
"""

MOST = 256 << 20
"""Bytes that are brought to every node, at most: Ray holds them in the memory of the head node."""

KEPT = "what is finished is kept: --resume continues the run"


@dataclass(frozen=True)
class Place:
    """Where a task runs.

    Attributes:
        node: Ray's id.
        host: name of the machine.
        address: of the node.
        note: file on the node that says in which policy's code the worker is.
    """

    node: str
    host: str
    address: str
    note: str

    def __str__(self) -> str:
        return name_of(self.host, self.address, self.node)


def name_of(host: str, address: str, node: str) -> str:
    """A node in words; several may be on one machine."""
    return f"node {host} ({address}, {node[:8]})"


@dataclass(frozen=True)
class Ground:
    """Where a task stands on a node: in the driver's folder, as it was brought there.

    Attributes:
        folder: the driver's working directory.
        paths: of the driver's folders for modules those which modules were brought from.
        look: is run before any other task in a worker; None: nothing.
    """

    folder: str
    paths: tuple[str, ...] = ()
    look: Task | None = None


class News:
    """What tasks tell while they run, until the driver asks: an actor on the driver's node."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[int, int, Mapping[str, float]]] = {}
        self._working: dict[str, tuple[int, Place]] = {}

    def begins(self, attempt: int, place: Place) -> None:
        """A worker begins an attempt at a task."""
        self._working[place.note] = attempt, place

    def tell(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        """News of a stage, as of a progress callback."""
        self._latest[stage] = done, total, figures

    def ask(self) -> list[tuple[str, int, int, Mapping[str, float]]]:
        """The latest news of every stage that has had any since the last call."""
        news = [(stage, *latest) for stage, latest in self._latest.items()]
        self._latest.clear()
        return news

    def place_of(self, attempt: int) -> Place | None:
        """Where an attempt runs or was running; None where it never began."""
        return next((place for number, place in self._working.values() if number == attempt), None)


@dataclass(frozen=True)
class _Death:
    """How an attempt at a task ended whose worker or node died.

    Attributes:
        place: where; None where it is not known.
        how: a sentence without its full stop.
        advice: what to do.
        inside: the policy's code that the worker was in; "" = none.
    """

    place: Place | None
    how: str
    advice: str
    inside: str = ""


@dataclass
class _Flight:
    """A task that Ray knows of.

    Attributes:
        index: of the task.
        reference: Ray's, of its outcome.
        asked: what Ray was asked for.
        deaths: of its earlier attempts.
        seen: when a node that has as much was last there.
    """

    index: int
    reference: Any
    asked: Needs
    deaths: list[_Death] = field(default_factory=list)
    seen: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class _Size:
    """What the cluster has.

    Attributes:
        width: tasks that Ray is to know of.
        nodes: what each node has that computes, by Ray's names.
        offers: to those who have asked.
    """

    width: int
    nodes: list[Mapping[str, float]]
    offers: dict[Needs, Needs] = field(default_factory=dict)

    def offer(self, needs: Needs) -> Needs:
        """What `offered` says; once for all tasks that need as much."""
        if needs not in self.offers:
            self.offers[needs] = offered(needs, self.nodes)
        return self.offers[needs]


class Cluster:
    """Tasks on Ray, one processor each. All nodes must see the run's folder under the same path."""

    def __init__(
        self, progress: Progress, local: Callable[[], AbstractContextManager[Executor]]
    ) -> None:
        """
        Args:
            progress: receives the news of all tasks.
            local: opens an executor on this machine alone.
        """
        self._ray = _import_ray()
        self._progress, self._local = progress, local
        self._held = ExitStack()
        self._news: Any = None
        self._remote: Any = None
        self._ground = Ground(str(Path.cwd()))
        self._attempts = 0
        self._heard = 0.0
        self._measured: tuple[float, _Size] | None = None
        self._looked: _Size | None = None

    def here(self, tasks: Sequence[Task], done: Done) -> None:
        with self._local() as executor:
            executor.run(tasks, done)

    def prepare(self, files: Sequence[Path], look: Task) -> None:
        self._connect(files)
        self._ground = Ground(str(Path.cwd()), _module_folders(files), look)
        self._on_each_node(_differences_from(_own()))
        self._on_each_node(_stand_on, self._ground)

    def run(self, tasks: Sequence[Task], done: Done) -> None:
        self._connect(())
        waiting = deque((index, list[_Death]()) for index in range(len(tasks)))
        landed: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        flying: dict[int, _Flight] = {}
        try:
            while waiting or flying:
                while waiting and len(flying) < self._size().width:
                    index, deaths = waiting.popleft()
                    self._attempts += 1
                    asked = self._size().offer(needs_of(tasks[index]))
                    reference = self._submit(tasks[index], asked)
                    flying[self._attempts] = _Flight(index, reference, asked, deaths)
                    # Ray calls back. To ask for the outcomes of n tasks (`ray.wait`) takes a time
                    # that grows with n, each time.
                    reference.future().add_done_callback(
                        lambda future, attempt=self._attempts: landed.put((attempt, future))
                    )
                self._hear()
                for attempt in self._stranded(flying):
                    flight = flying.pop(attempt)
                    self._ray.cancel(flight.reference, force=True)
                    waiting.appendleft((flight.index, flight.deaths))
                with suppress(queue.Empty):
                    attempt, future = landed.get(timeout=TICK)
                    if attempt not in flying:  # it was stranded
                        continue
                    flight = flying.pop(attempt)
                    if self._is_over(tasks[flight.index], attempt, flight, future, done):
                        continue
                    waiting.appendleft((flight.index, flight.deaths))
            self._hear(now=True)
        finally:
            self._abandon([flight.reference for flight in flying.values()])

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._held.close()

    def _is_over(self, task: Task, attempt: int, flight: _Flight, future: Any, done: Done) -> bool:
        """Hand the outcome of an attempt on; False where its worker died and the task is to be
        tried again.

        Raises:
            WorkerError: a worker died too often.
        """
        again, error = f"try again: {task}", future.exception()
        if error is None:
            if flight.deaths:
                self._progress(again, TRIES, TRIES, {})
            done(flight.index, future.result())
            return True
        flight.deaths.append(self._death(attempt, error))
        self._progress(again, len(flight.deaths), TRIES, {})
        if len(flight.deaths) < TRIES:
            return False
        epitaph = _epitaph(task, flight.deaths)
        if not all(death.inside for death in flight.deaths):
            raise epitaph
        done(flight.index, epitaph)  # a policy that ends its process each time
        return True

    def _connect(self, files: Sequence[Path]) -> None:
        """Connect to the cluster that RAY_ADDRESS names, or to that which runs on this machine,
        else start one here; `files` are brought to its nodes.

        Raises:
            WorkerError: Ray is not installed, is in use, or cannot be reached.
        """
        if self._news is not None:
            return
        ray = self._ray
        if ray.is_initialized():
            raise WorkerError(
                "engine.executor is ray, but this process is connected to Ray already, and files"
                " are brought to the nodes when it connects: call ray.shutdown() first"
            )
        with tempfile.TemporaryDirectory(prefix="abtest-") as folder:
            _mirror(files, Path(folder) / MIRROR)
            environment = {"working_dir": folder, "env_vars": dict.fromkeys(THREADS, "1")}
            try:
                with _own_handling_of_sigterm():
                    ray.init(
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level="critical",
                        runtime_env=environment,
                    )
            except (ConnectionError, RuntimeError, ValueError) as error:
                where = os.environ.get("RAY_ADDRESS", "this machine")
                raise WorkerError(
                    f"engine.executor is ray, but there is no way to Ray at {where}:"
                    f" {str(error).splitlines()[0]}; set RAY_ADDRESS to the address of the head"
                    " node (HOST:6379), or unset it to start Ray here"
                ) from error
        self._held.callback(ray.shutdown)
        own = ray.get_runtime_context().get_node_id()
        news = ray.remote(News).options(
            num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=_on(own)
        )
        self._news = news.remote()
        self._remote = ray.remote(num_cpus=1, max_retries=0)(_attempt)

    def _submit(self, task: Task, asked: Needs) -> Any:
        handle = self._remote
        if asked != Needs():
            handle = handle.options(
                num_cpus=asked.processors, memory=asked.memory, num_gpus=asked.gpus
            )
        return handle.remote(task, self._attempts, self._news, self._ground)

    def _stranded(self, flying: Mapping[int, _Flight]) -> list[int]:
        """The attempts that have waited too long for a node that has what they have asked for."""
        size = self._size()
        if size is self._looked:
            return []
        self._looked, now = size, time.monotonic()
        for flight in flying.values():
            if size.offer(flight.asked) == flight.asked:
                flight.seen = now
        return [n for n, flight in flying.items() if now > flight.seen + STRANDED]

    def _size(self) -> _Size:
        """What the cluster has now, or had a few seconds ago."""
        if self._measured is None or time.monotonic() > self._measured[0] + 20 * TICK:
            nodes = [node["Resources"] for node in self._nodes()]
            width = max(FEWEST, AHEAD * round(sum(node["CPU"] for node in nodes)))
            self._measured = time.monotonic(), _Size(width, nodes)
        return self._measured[1]

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes that compute, in Ray's words."""
        return [
            node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")
        ]

    def _on_each_node(self, look: Callable[..., str], *arguments: Any) -> None:
        """Run `look` on every node that computes; what it returns is what is wrong there.

        Raises:
            WorkerError: something is wrong on a node; all such nodes are named.
        """
        remote = self._ray.remote(num_cpus=0, max_retries=1)(look)
        asked = {}
        for node in self._nodes():
            handle = remote.options(scheduling_strategy=_on(node["NodeID"]))
            asked[_name(node)] = handle.remote(*arguments)
        deadline, faults = time.monotonic() + PATIENCE, []
        for name, reference in asked.items():
            try:
                left = max(deadline - time.monotonic(), 1.0)
                fault = self._ray.get(reference, timeout=left)
            except self._ray.exceptions.GetTimeoutError:
                fault = f"it has not answered for {PATIENCE:g} s; take it out, or start it again"
            except self._ray.exceptions.RayError as error:
                fault = f"it cannot run tasks: {_first_line(error)}"
            if fault:
                faults.append(f"{name}: {fault}")
        if faults:
            raise WorkerError("\n".join(faults))

    def _death(self, attempt: int, error: BaseException) -> _Death:
        """How an attempt ended, from what Ray says.

        Raises:
            WorkerError: Ray could not even start it.
        """
        kinds = self._ray.exceptions
        place = self._answer(self._news.place_of.remote(attempt), None)
        if isinstance(error, kinds.OutOfMemoryError):
            more = "raise engine.shards, give the cluster larger nodes, or fewer CPUs a node"
            return _Death(place, "Ray ended it because the node ran out of memory", more)
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        is_lost = isinstance(error, kinds.NodeDiedError) or (place and place.node not in alive)
        if is_lost:
            more = "look into the node's logs (ray logs), and start it again"
            return _Death(place, "the node was lost", more)
        if isinstance(error, (kinds.WorkerCrashedError, kinds.ObjectLostError)):
            return _Death(
                place,
                "its process ended without an answer",
                "out of memory (then raise engine.shards), a crash of a library, or ended by hand:"
                " the node's logs say more (ray logs)",
                "" if place is None else self._inside(place),
            )
        raise WorkerError(f"Ray could not run a task: {_first_line(error)}; {KEPT}") from error

    def _inside(self, place: Place) -> str:
        """In which policy's code a dead worker was; "" where its node does not say."""
        remote = self._ray.remote(num_cpus=0, max_retries=0)(read_note)
        asked = remote.options(scheduling_strategy=_on(place.node)).remote(place.note)
        return str(self._answer(asked, ""))

    def _answer(self, reference: Any, otherwise: Any) -> Any:
        """What Ray answers within PATIENCE; `otherwise` where a node dies over it."""
        try:
            return self._ray.get(reference, timeout=PATIENCE)
        except self._ray.exceptions.RayError:
            return otherwise

    def _hear(self, *, now: bool = False) -> None:
        """Hand on what tasks have told since the last time, if that was a while ago."""
        if now or time.monotonic() > self._heard + TICK:
            for news in self._answer(self._news.ask.remote(), []):
                self._progress(*news)
            self._heard = time.monotonic()

    def _abandon(self, references: Sequence[Any]) -> None:
        """End tasks, and wait until they write no more."""
        for reference in references:
            self._ray.cancel(reference, force=True)
        if references:
            self._ray.wait(list(references), num_returns=len(references), timeout=10 * TICK)


def offered(needs: Needs, nodes: Sequence[Mapping[str, float]]) -> Needs:
    """The most that one of the nodes can give of what a task needs, of GPUs before processors
    before memory: a task that needs more than any node has gets such a node to itself.

    Args:
        needs: of the task.
        nodes: what each has, by Ray's names; none where a cluster has yet to grow.
    """
    offers = (
        (
            min(needs.gpus, node.get("GPU", 0)),
            min(needs.processors, int(node["CPU"])),
            min(needs.memory, int(node.get("memory", 0))),
        )
        for node in nodes
    )
    gpus, processors, memory = max(offers, default=(0, needs.processors, 0))
    return Needs(memory, gpus, processors)


def _attempt(task: Task, attempt: int, news: Any, ground: Ground) -> Any:
    """In a worker: a task's result or the exception it raised (Ray would wrap it in one of its
    own).
    """
    place = _place()
    # `future`, since Ray takes a worker that waits by `ray.get` for idle, and starts another one.
    news.begins.remote(attempt, place).future().result()
    teller = _Teller(news)
    try:
        fault = _stand_on(ground)
        if fault:
            raise WorkerError(f"{place}: {fault}")
        with releasing(), compiling(teller):
            return task(teller)
    except Exception as error:
        return error
    finally:
        teller.close()


class _Teller:
    """The progress callback of a task: a few news a second of each stage, and its last."""

    def __init__(self, news: Any) -> None:
        self._news, self._told = news, dict[str, float]()
        self._sent: Any = None

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        now = time.monotonic()
        if done >= total or now > self._told.get(stage, 0.0) + TICK:
            self._told[stage] = now
            self._sent = self._news.tell.remote(stage, done, total, dict(figures))

    def close(self) -> None:
        """Wait until the last news has come."""
        if self._sent is not None:
            self._sent.future().result()


@cache
def _place() -> Place:
    """This worker's place; its notes lie there from now on."""
    import ray

    note, node = Note(), ray.get_runtime_context().get_node_id()
    note_in(note)
    return Place(node, socket.gethostname(), ray.util.get_node_ip_address(), note.path)


@cache
def _brought() -> Path:
    """Where what was brought along lies on this node: Ray starts a worker there."""
    return Path.cwd() / MIRROR


def _stand_on(ground: Ground) -> str:
    """Stand where the driver stands, and look; what is wrong on this node, "" = nothing."""
    os.chdir(_brought() / ground.folder.lstrip("/"))
    return _seen_from(ground)


@cache
def _seen_from(ground: Ground) -> str:
    sys.path += [str(_brought() / path.lstrip("/")) for path in ground.paths]
    try:
        if ground.look is not None:
            ground.look(silent)
    except ValueError as error:
        return str(error)
    return ""


def _mirror(files: Sequence[Path], folder: Path) -> None:
    """Copy files, and the working directory without its files, to where they lie below `folder` as
    they lie below /; of a folder among `files` only that it is there.

    Raises:
        WorkerError: the files are too large.
    """
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    if sum(sizes.values()) > MOST:
        largest = max(sizes, key=lambda file: sizes[file])
        rule = (
            f"the files that policies need may have {MOST >> 20} MiB in all to be brought to nodes"
        )
        raise WorkerError(
            f"{largest}: {rule}; it has {sizes[largest] >> 20:,} MiB: put it where all nodes see"
            " it, and give its absolute path"
        )
    for file in (Path.cwd(), *files):
        place = folder / os.path.abspath(file).lstrip("/")
        if file.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        else:
            place.mkdir(parents=True, exist_ok=True)


def _module_folders(files: Sequence[Path]) -> tuple[str, ...]:
    """The folders on Python's path that files are modules of."""
    folders = {str(parent) for file in files for parent in Path(os.path.abspath(file)).parents}
    return tuple(path for path in map(os.path.abspath, sys.path) if path in folders)


def _own() -> dict[str, str]:
    """Versions and digests of what must be the same on all nodes."""
    # What follows + says how it was built (torch 2.13.0+cpu): nodes with a GPU have another one.
    known = {name: version.partition("+")[0] for name, version in versions().items()}
    return {**known, **{f"abtest's package {name}": package(name) for name in OWN}}


def _differences_from(own: Mapping[str, str]) -> Callable[[], str]:
    """A function that says, on a node, what of `own` is otherwise there."""

    # Ray sends a function within a function as code: abtest may not be there.
    def differences() -> str:
        import importlib.util

        if importlib.util.find_spec("simulator") is None:
            return f"abtest is not installed there: pip install 'abtest[ray]=={own['abtest']}'"
        from simulator.run.cluster import _own as of_node

        theirs = of_node()
        other = [
            f"{name} is {theirs.get(name)} there and {mine} here"
            for name, mine in own.items()
            if theirs.get(name) != mine
        ]
        return f"{'; '.join(other)}: install the same versions" if other else ""

    return differences


def _import_ray() -> Any:
    """Ray, which does not write into this process's output.

    Raises:
        WorkerError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
    # Ray prints the deaths of workers and nodes on stdout, whatever `log_to_driver` says.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    try:
        import ray
    except ImportError as error:
        raise WorkerError(
            "engine.executor is ray, but Ray is not installed: pip install 'abtest[ray]'"
        ) from error
    return ray


@contextmanager
def _own_handling_of_sigterm() -> Iterator[None]:
    """Ray answers SIGTERM by a dump of its stack and dies: what was to be done is done again after
    the context.
    """
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _on(node: str) -> Any:
    """Ray's strategy that places a task on one node and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _name(node: Mapping[str, Any]) -> str:
    """A node, in Ray's words, in ours."""
    return name_of(node["NodeManagerHostname"], node["NodeManagerAddress"], node["NodeID"])


def _first_line(error: BaseException) -> str:
    """What a message of Ray begins with; a traceback, with what it ends with."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else lines[0]


def _epitaph(task: Task, deaths: Sequence[_Death]) -> WorkerError:
    """What is said of a task whose every attempt died."""
    last = deaths[-1]
    where = "a node that did not say its name" if last.place is None else str(last.place)
    places = {death.place.node for death in deaths if death.place is not None}
    nodes = f" on {len(places)} nodes" if len(places) > 1 else ""
    tries = f"{task}: tried {len(deaths)} times{nodes}"
    inside = f" while it was in {last.inside}" if last.inside else ""
    return WorkerError(
        f"{tries}, the last time on {where}, where {last.how}{inside}: {last.advice}; {KEPT}"
    )
