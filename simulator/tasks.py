"""The pieces of a run that a worker does alone: make history, fit a policy, fit the ranking, simulate a shard, merge an arm.

A task is small and picklable; what it needs lies in the run's folder, what it makes is put there whole. Nothing is returned
but figures.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.base import Catalogue, Fitting, IntArray, Policy, Progress, Sequences, Stochastic, WorldBound
from policies.explore import Explore
from policies.registry import make, resolve
from simulator import tape
from simulator.design import DAY, HISTORY, arm_names, assignment
from simulator.desk import Channel, Desk
from simulator.engine import Engine, Lives, Span
from simulator.eventlog import FEEDBACK, EventLog, Metadata, Propensity, Writer, schema
from simulator.ranking import Ranker
from simulator.scenario import PolicySpec, Scenario, population
from simulator.users.base import Population, Source, Users
from simulator.workspace import Workspace, load_arrays, load_catalogue, open_log, save_arrays, versions

Lost = tuple[tuple[str, str], ...]
"""Arms that were given up, and why."""


@dataclass(frozen=True)
class Job:
    """The run that a task belongs to.

    Attributes:
        root: the run's folder.
        folder: where the scenario lies (plug-in files and data are looked up there).
        scenario: as JSON of `Scenario.resolved()`.
    """

    root: str
    folder: str
    scenario: str


class Context:
    """What the tasks of one run share within a process: the scenario, its source and pristine users; read once from the folder."""

    def __init__(self, job: Job) -> None:
        self.workspace = Workspace(Path(job.root))
        self.folder = Path(job.folder)
        self.scenario = Scenario.model_validate(json.loads(job.scenario))
        self.seed = self.scenario.seed

    @cached_property
    def catalogue(self) -> Catalogue:
        """What is known of users and items apart from the log."""
        return load_catalogue(self.workspace.models / "catalogue.npz")

    @property
    def source(self) -> Source:
        """The source as the run has put it into its folder so far (a synthetic world has a history only once it is made)."""
        where = self.workspace
        return Source(self.catalogue, open_log(where.past) or open_log(where.history), open_log(where.future), where.notes)

    @cached_property
    def sequences(self) -> Sequences:
        """The history as every policy is fitted on it."""
        history = self.source.history
        assert history is not None
        return history.sequences(HISTORY, before=0)

    @cached_property
    def population(self) -> Population:
        """The users section of the scenario."""
        section: Any = population(self.scenario.users)
        return section  # type: ignore[no-any-return]

    @cached_property
    def _built(self) -> tuple[Users, dict[str, npt.NDArray[Any]]]:
        users = self.population.build(self.source, self.seed, self.scenario.days, self.workspace.models / "users")
        return users, {name: values.copy() for name, values in users.state().items()}

    def users(self) -> Users:
        """Users as they were built. One instance a process: the next call takes it back to its start."""
        users, pristine = self._built
        users.restore(pristine)
        return users

    @property
    def kinds(self) -> tuple[str, ...]:
        """FEEDBACK columns of the run's log."""
        history = self.source.history
        known = {*self._built[0].kinds, *(history.kinds if history is not None else ())}
        return tuple(name for name in FEEDBACK if name in known)

    @property
    def duration(self) -> npt.NDArray[Any]:
        """Seconds of each item, `[n_items + 1]`; 0 where unknown."""
        catalogue = self.catalogue
        known = catalogue.items.get("duration")
        return np.zeros(catalogue.n_items + 1, dtype=np.float32) if known is None else np.asarray(known, dtype=np.float32)

    def metadata(self, lost: Lost = ()) -> Metadata:
        """What the run's log says of itself; arms that were given up are not in it, but named in its notes."""
        scenario, catalogue, source = self.scenario, self.catalogue, self.source
        propensity: Propensity = "conditional"
        if scenario.data.source != "synthetic" and source.history is not None:
            propensity = source.history.metadata.propensity
        names = dict(lost)
        notes: dict[str, Any] = dict(source.notes)
        if lost:
            notes["given up"] = names
        return Metadata(
            tuple(arm for arm in arm_names(tuple(scenario.arms)) if arm not in names),
            catalogue.n_users,
            catalogue.n_items,
            propensity,
            None if scenario.control in names else scenario.control,
            scenario.days,
            tuple(channel.name for channel in scenario.serving.channels),
            scenario.identity(),
            versions(),
            notes,
        )

    def policy(self, spec: PolicySpec) -> Policy:
        """An unfitted policy of the scenario."""
        made = make(spec.policy, spec.params, self.folder)
        _one_torch_thread()
        return made

    def fitted(self, spec: PolicySpec, users: Users) -> Policy:
        """A policy of the scenario with its fit loaded; yardsticks get their world."""
        policy = self.policy(spec)
        policy.load(self.workspace.models / fit_name(policy, self.seed))
        if isinstance(policy, WorldBound):
            policy.bind(users)
        return policy


@lru_cache(maxsize=2)
def context(job: Job) -> Context:
    """The context of a run in this process."""
    return Context(job)


def fit_name(policy: Policy, seed: int) -> str:
    """Folder of a policy's fit: policies that differ only in how they serve share it."""
    import hashlib

    key = policy.fit_key()
    who = json.loads(key)[0].rpartition(":")[2].lower()
    return f"{who}-{hashlib.sha256(f'{key} {seed}'.encode()).hexdigest()[:12]}"


def _one_torch_thread() -> None:
    """A policy that brought torch computes with one thread: the number of threads changes the last bits of a sum."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@dataclass(frozen=True)
class FitUsers:
    """What the users must learn or draw once, before anybody lives; then the `history` part of the log where the past is real."""

    job: Job

    def __call__(self, progress: Progress) -> dict[str, float]:
        run, start = context(self.job), time.process_time()
        run.population.fit(run.source, run.seed, run.workspace.models / "users", progress)
        _one_torch_thread()
        past = open_log(run.workspace.past)
        if past is not None and not run.workspace.history.is_file():
            writer = Writer(run.workspace.history, run.metadata(), run.kinds)
            for batch in past.batches(schema(past.kinds).names):
                writer.add(_with_columns(batch, schema(run.kinds)))
            writer.close()
        return {"seconds": time.process_time() - start}


def _with_columns(batch: pa.RecordBatch, target: pa.Schema) -> pa.Table:
    """The rows of a real past with the columns of the run's log; feedback that was not logged is null."""
    names = batch.schema.names
    columns = [batch.column(f.name) if f.name in names else pa.nulls(batch.num_rows, f.type) for f in target]
    return pa.table(columns, schema=target)


@dataclass(frozen=True)
class FitNames:
    """The folder of each policy's fit; asked of a worker, since policies may bring torch."""

    job: Job
    specs: tuple[PolicySpec, ...]

    def __call__(self, progress: Progress) -> list[str]:
        run = context(self.job)
        return [fit_name(run.policy(spec), run.seed) for spec in self.specs]


@dataclass(frozen=True)
class Fit:
    """Fit one policy on the history and save it; finished fits are kept."""

    job: Job
    spec: PolicySpec
    device: str = "cpu"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = context(self.job)
        policy = run.policy(self.spec)
        folder = run.workspace.models / fit_name(policy, run.seed)
        if (folder / "state.npz").is_file():
            return {"seconds": 0.0}
        start = time.process_time()
        label = self.spec.policy

        def named(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            progress(f"fit {label}: {stage}", done, total, figures)

        fitting = Fitting(run.seed, self.device, named, folder / "checkpoints", True)
        policy.fit(run.sequences, run.catalogue, fitting).save(folder)
        return {"seconds": time.process_time() - start}


@dataclass(frozen=True)
class FitRanking:
    """Fit the ranking stage on the history and save it."""

    job: Job

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = context(self.job)
        file = run.workspace.models / "ranking.npz"
        if file.is_file():
            return {"seconds": 0.0}
        start = time.process_time()
        progress("fit ranking", 0, 1, {})
        serving = run.scenario.serving
        ranker = Ranker.fit(run.sequences, run.catalogue, serving.history, serving.ranking.watch_weight)
        save_arrays(file, ranker.state())
        progress("fit ranking", 1, 1, ranker.figures())
        return {"seconds": time.process_time() - start}


@dataclass(frozen=True)
class Simulate:
    """Run one arm for the users first..last-1, from the last finished day on: a tape a day, a snapshot at each day's end.

    Attributes:
        job: the run.
        arm: name; `history` makes the history of a synthetic world under its logging policy.
        first, last: range of users.
    """

    job: Job
    arm: str
    first: int
    last: int

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = context(self.job)
        start, end = self.period(run.scenario)
        folder = run.workspace.shard(self.arm, self.first, self.last)
        users = run.users()
        lives, now = self._resume(run, users, folder, start)
        began, rows = time.process_time(), 0
        if now < end:
            recorder = _Recorder(folder, lives, users, tape.Tape(run.kinds), end, keep_last=self.arm == HISTORY)
            scenario = run.scenario
            tick = max(round(scenario.engine.tick * 1000), 1)
            serving = scenario.serving
            seen = serving.seen or serving.history
            span = Span(now, end, tick, scenario.engine.block, serving.slate, serving.history, seen)
            engine = Engine(lives, users, self._desk(run, users), recorder.tape, span)
            recorder.engine = engine

            def barrier(t: int) -> None:
                recorder.day_is_over(t)
                progress(f"simulate {self.arm}", (t - start) // DAY, (end - start) // DAY, {"requests": float(recorder.requests)})

            engine.run(barrier)
            rows = recorder.rows
        return {"seconds": time.process_time() - began, "impressions": float(rows)}

    def period(self, scenario: Scenario) -> tuple[int, int]:
        """From when to when this arm is run, ms."""
        return (-scenario.data.history_days * DAY, 0) if self.arm == HISTORY else (0, scenario.days * DAY)

    def who(self, run: Context) -> IntArray:
        """The users of this shard that get this arm, ascending."""
        user = np.arange(self.first, self.last)
        if run.scenario.design.kind == "split" and self.arm != HISTORY:
            names = sorted(run.scenario.arms)
            user = user[assignment(run.seed, self.last, len(names))[user] == names.index(self.arm)]
        return user

    def _resume(self, run: Context, users: Users, folder: Path, start: int) -> tuple[Lives, int]:
        """The lives at the last finished day's end, and that time; the users are put there, too."""
        snapshot = folder / "snapshot.npz"
        if snapshot.is_file():
            state = load_arrays(snapshot)
            return _restore(state, users), int(state["now"])
        user = self.who(run)
        inherited = run.workspace.shard(HISTORY, self.first, self.last) / "snapshot.npz"
        if self.arm != HISTORY and inherited.is_file():
            lives = _restore(load_arrays(inherited), users).renumbered()
            return lives.rows(np.isin(lives.user, user)), start
        first = users.first(user)
        lives = Lives.born(user, np.where(first > _FAR, first, first + start), _memory(run.scenario))
        return (lives if self.arm == HISTORY else lives.with_past(run.sequences)), start

    def _desk(self, run: Context, users: Users) -> Desk:
        scenario, n_items = run.scenario, run.catalogue.n_items
        if self.arm == HISTORY:
            return Desk(HISTORY, Channel("logging", logging_policy(run, users), scenario.serving.slate), (), None, n_items, run.seed)
        arm, serving = scenario.arms[self.arm], scenario.serving
        ranker = None
        if serving.ranking.kind == "pointwise":
            ranker = Ranker.restore(load_arrays(run.workspace.models / "ranking.npz"))
        channels = tuple(Channel(c.policy, run.fitted(c, users), c.quota) for c in serving.channels)
        return Desk(self.arm, Channel(arm.policy, run.fitted(arm, users), serving.recall), channels, ranker, n_items, run.seed)


def _memory(scenario: Scenario) -> int:
    """Impressions that a life must remember."""
    return max(scenario.serving.history, scenario.serving.seen or 0)


_FAR = 1 << 62
"""Times from here on are "never"."""


def logging_policy(run: Context, users: Users) -> Policy:
    """The policy that writes the history of a synthetic world: stochastic, with exact conditional propensities."""
    logging, catalogue = run.scenario.data.logging, run.catalogue
    kind = resolve(logging.policy, run.folder)
    spread: dict[str, Any] = {"temperature": logging.temperature, "epsilon": logging.epsilon}
    policy: Policy
    if issubclass(kind, Stochastic):
        known = {name: value for name, value in spread.items() if name in kind.__dataclass_fields__}
        policy = run.policy(logging.model_copy(update={"params": {**known, **logging.params}}))
    else:
        policy = Explore(logging.policy, logging.params, **spread).found_in(run.folder)
    nothing = np.zeros(0, dtype=np.int64)
    nobody = Sequences(
        np.arange(catalogue.n_users), np.zeros(catalogue.n_users + 1, dtype=np.int64), nothing, nothing.astype(np.bool_), nothing
    )
    policy.fit(nobody, catalogue, Fitting(run.seed))
    if isinstance(policy, WorldBound):
        policy.bind(users)
    return policy


class _Recorder:
    """Keeps what a finished day has brought: its tape, then the snapshot that says the day is finished."""

    def __init__(self, folder: Path, lives: Lives, users: Users, first: tape.Tape, end: int, *, keep_last: bool) -> None:
        self.folder, self.lives, self.users, self.tape, self.end, self.keep_last = folder, lives, users, first, end, keep_last
        self.engine: Engine | None = None
        self.rows = self.requests = 0

    def day_is_over(self, t: int) -> None:
        assert self.engine is not None
        self.rows, self.requests = self.rows + self.tape.n_rows, self.requests + self.tape.n_requests
        self.tape.save(self.folder / f"day-{t // DAY - 1:+05d}.npz")
        state: dict[str, npt.NDArray[Any]] = {"now": np.array(t)}
        if t < self.end or self.keep_last:
            state |= {f"lives.{name}": column for name, column in self.lives.state().items()}
            state |= {f"users.{name}": column[self.lives.user] for name, column in self.users.state().items()}
        save_arrays(self.folder / "snapshot.npz", state)
        self.tape = self.engine.tape = tape.Tape(self.tape.kinds)


def _restore(state: Mapping[str, npt.NDArray[Any]], users: Users) -> Lives:
    """The lives of a snapshot; the users' own state is put back into `users`."""
    if "lives.user" not in state:  # the end of the run: nobody asks again
        nobody = np.zeros(0, dtype=np.int64)
        return Lives.born(nobody, nobody, 1)
    lives = Lives.restore({name.removeprefix("lives."): column for name, column in state.items() if name.startswith("lives.")})
    whole = {name: column.copy() for name, column in users.state().items()}
    for name, column in whole.items():
        column[lives.user] = state[f"users.{name}"]
    users.restore(whole)
    return lives


@dataclass(frozen=True)
class Merge:
    """Write the log part of one arm out of the tapes of its shards, in KEY order; a shard at a time is in memory."""

    job: Job
    arm: str
    shards: tuple[tuple[int, int], ...]
    lost: Lost = ()

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = context(self.job)
        metadata, start = run.metadata(self.lost), time.process_time()
        index = metadata.arms.index(self.arm)
        path = run.workspace.history if self.arm == HISTORY else run.workspace.part(index, self.arm)
        if path.is_file():
            return {"seconds": 0.0}
        writer = Writer(path, metadata, run.kinds)
        for done, (first, last) in enumerate(self.shards):
            folder = run.workspace.shard(self.arm, first, last)
            days = [tape.load(file) for file in sorted(folder.glob("day-*.npz"), key=lambda f: int(f.stem[4:]))]
            if days:
                writer.add(tape.rows(days, index, run.duration, run.kinds))
            progress(f"write {self.arm}", done + 1, len(self.shards), {})
        writer.close()
        return {"seconds": time.process_time() - start}


@dataclass(frozen=True)
class Relabel:
    """Write the `history` part once more, for a log without the arms that were given up."""

    job: Job
    lost: Lost

    def __call__(self, progress: Progress) -> dict[str, float]:
        run, start = context(self.job), time.process_time()
        EventLog(run.metadata(self.lost), None, (run.workspace.history,)).write(run.workspace.history)
        return {"seconds": time.process_time() - start}
