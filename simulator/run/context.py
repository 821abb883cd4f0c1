"""What the tasks of one run share within a process: the scenario, its source, users, policies and
desks, read from the run's folder.

Nothing is computed here that a task would have to keep; a context can be thrown away and read
again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.base import BoolArray, Catalogue, IntArray, Policy, Sequences, WorldBound
from policies.calls import CallError, Calls
from policies.context import not_known, union
from policies.explore import Explore
from policies.registry import make
from policies.sources import sources
from policies.time import DAY
from simulator.designs.base import Design
from simulator.engine import tape
from simulator.engine.lives import Release
from simulator.living.life import LivingCatalogue, Uploads
from simulator.log.eventlog import EventLog
from simulator.log.files import FileError, load_arrays, map_arrays, reading
from simulator.log.kinds import FEEDBACK
from simulator.log.ledger import bring, present
from simulator.log.metadata import FIT, FITTED_ONCE, HISTORY, Metadata, Propensity, arm_names
from simulator.log.schema import TAB, schema
from simulator.log.store import place
from simulator.log.workspace import OF_A_DAY, Lane, Workspace, load_catalogue, open_log, versions
from simulator.run.contract import Needs
from simulator.scenario.memory import of_process, of_shard
from simulator.scenario.model import Scenario
from simulator.scenario.parts import PolicySpec
from simulator.scenario.populations import behind
from simulator.serving.desk import Channel, Desk, Serves
from simulator.serving.draft import Draft
from simulator.serving.history import logging_policy
from simulator.serving.promises import Witness
from simulator.serving.ranking import Ranker
from simulator.users.base import (
    CALIBRATION,
    NEVER,
    DescribesRequests,
    Population,
    Source,
    Users,
)


@dataclass(frozen=True)
class Job:
    """The run that a task belongs to.

    Attributes:
        root: the run's folder, or its address.
        folder: where the scenario lies (plug-in files and data are looked up there), relative to
            the working directory: machines that lack it have a copy of what is needed.
        scenario: as JSON of `Scenario.resolved()`.
    """

    root: str
    folder: str
    scenario: str


class OfRun:
    """A task of a run, which computes in a process of it."""

    job: Job

    @property
    def needs(self) -> Needs:
        """As a process of the run."""
        return context(self.job).needs


SHARE_OF_A_GPU = 0.25
"""Processes that answer requests on a GPU share one by four: a request takes more of a processor,
on which the user lives, than of a GPU.
"""


def share_of_gpu(*specs: PolicySpec) -> float:
    """What a process takes of a GPU in which these policies answer requests."""
    return SHARE_OF_A_GPU if any(spec.on_gpu for spec in specs) else 0.0


def fit_numbers(number: int) -> Sequence[int | None]:
    """The numbers of the fits of a method; None alone where there is but one."""
    return range(number) if number > 1 else (None,)


@dataclass(frozen=True)
class RefitDays:
    """What a refit learns from besides the history: the days of the A/B before `day`.

    Attributes:
        day: before which it is made.
        lane: whose log; None: that of all lanes.
        fit: in the lives with this fit only; None: with all fits.
        like: the arm that each impression of the days is weighted towards; None: all weigh the
            same.
    """

    day: int
    lane: str | None = None
    fit: int | None = None
    like: str | None = None

    def includes(self, lane: Lane) -> bool:
        """Whether the log of a lane is learned from."""
        return self.lane in (None, lane.name) and self.fit in (None, lane.fit)


class Context:
    """A run as its tasks see it."""

    def __init__(self, job: Job) -> None:
        self.workspace = Workspace(place(job.root))
        self.folder = Path(job.folder)
        self.scenario = Scenario.model_validate(json.loads(job.scenario))
        self.seed = self.scenario.seed
        self.design: Design = self.scenario.assignment
        self._by_fit: dict[str, bool] = {}

    @cached_property
    def catalogue(self) -> Catalogue:
        """What is known of users and items apart from the log."""
        return load_catalogue(self.workspace.models / "catalogue.npz")

    @cached_property
    def uploads(self) -> Uploads | None:
        """What is uploaded when, in a catalogue that lives."""
        items = self.scenario.items
        if items is None:
            return None
        author = self.catalogue.items["author"]
        return Uploads.draw(items, author, self.seed, -self.scenario.data.history_days)

    def market(self, lane: Lane) -> Lane:
        """Whose catalogue a lane shows: its own under all fits that its users are divided over, or
        that of all lanes together, which has no name.
        """
        if lane.name == HISTORY:
            return lane
        fit = lane.fit if self.scenario.fits.crossed else None
        if self.scenario.items is not None and self.scenario.items.catalogue == "pooled":
            return Lane("", fit)
        return self.as_lived(Lane(lane.name, fit))

    def life(self, market: Lane, day: int) -> LivingCatalogue | None:
        """What a catalogue is on a day; None where it does not live.

        Raises:
            FileError: the day before has not been lived by all users.
        """
        if self.uploads is None:
            return None
        if day == self.uploads.first_day:
            return self.uploads.born()
        return LivingCatalogue.restore(
            load_arrays(self.workspace.life(Lane(HISTORY) if day <= 0 else market, day))
        )

    def catalogue_of(self, learned: RefitDays | None) -> Catalogue:
        """What a fit is told of users and items: where the catalogue lives, what has appeared by
        then in any lane that it learns from.
        """
        if self.uploads is None:
            return self.catalogue
        day = 0 if learned is None else learned.day
        lanes = [Lane(HISTORY)]
        if learned is not None:
            lanes = [lane for lane in self.lanes() if learned.includes(lane)]
        known = np.zeros(self.catalogue.n_items + 1, dtype=np.bool_)
        removed = np.ones_like(known)
        for market in dict.fromkeys(map(self.market, lanes)):
            life = self.life(market, day)
            assert life is not None
            known |= life.known(self.uploads, day * DAY)
            removed &= life.removed
        return self.uploads.told(self.catalogue, known, removed)

    def admitting(self, desk: Serves, life: LivingCatalogue, t: int) -> Serves:
        """A desk that is told of the catalogue as it is from `t` (ms) on."""
        assert self.uploads is not None
        return desk.admitting(life.catalogue(self.uploads, self.catalogue, t), t)

    def releases(self, life: LivingCatalogue | None) -> list[Release]:
        """The moments of a day at which new items appear."""
        if life is None or self.uploads is None:
            return []
        return [
            Release(t, partial(self.admitting, life=life, t=t)) for t in life.releases(self.uploads)
        ]

    @cached_property
    def truth(self) -> dict[str, npt.NDArray[Any]]:
        """What a synthetic world has drawn of its items, mapped into memory; {} of no such one."""
        file = self.workspace.truth
        return map_arrays(file) if present(file) else {}

    @property
    def source(self) -> Source:
        """The source as the run has put it into its folder so far (a synthetic world has a history
        only once it is made).
        """
        where = self.workspace
        return Source(
            self.catalogue,
            open_log(where.past) or where.history(self.catalogue.n_users),
            open_log(where.future),
            where.notes,
            self.truth,
        )

    @cached_property
    def sequences(self) -> Sequences:
        """The history, every user's, mapped into memory."""
        history = self.source.history
        assert history is not None
        folder = self.workspace.past_sequences
        sequences = history.map_sequences(folder, HISTORY, before=0)
        self.workspace.ledger.hold([folder])
        return sequences

    @cached_property
    def lesson(self) -> Sequences:
        """What every policy is fitted on: the history, or that of `fits.users` of its users."""
        return self.scenario.fits.lesson(self.seed, self.sequences, self.catalogue.n_users)

    @cached_property
    def needs(self) -> Needs:
        """What a process of the run needs: tasks follow one another in it, and what one has read
        stays for the next.
        """
        return Needs(of_process(*self._sizes))

    @cached_property
    def needs_of_shard(self) -> Needs:
        """What a process needs that simulates a shard."""
        return Needs(of_shard(*self._sizes))

    def gpus_in(self, lane: Lane) -> float:
        """What a process takes of a GPU in which the lives of a lane are simulated."""
        if lane.name == HISTORY:
            return share_of_gpu(self.scenario.data.logging)
        arms = (self.scenario.arms[arm] for arm in self._arms_in(lane.name))
        return share_of_gpu(*arms, *self.scenario.serving.channels)

    @property
    def _sizes(self) -> tuple[Scenario, int, int, int]:
        history = None if self.scenario.data.source == "synthetic" else self.source.history
        logged = 0 if history is None else history.n_rows
        return self.scenario, self.catalogue.n_users, self.catalogue.n_items, logged

    def forget(
        self,
        names: Sequence[str] = (
            "catalogue",
            "truth",
            "sequences",
            "lesson",
            "population",
            "_nobody",
        ),
    ) -> None:
        """Read what is named anew when it is next asked for: by default everything, since a policy
        may have written into what is in memory.
        """
        for name in names:
            self.__dict__.pop(name, None)

    def sequences_until(self, day: int, lanes: Sequence[Lane]) -> Sequences:
        """The history and what has been simulated before `day` in some lanes, each user's merged
        in time.
        """
        history = self.source.history
        assert history is not None
        columns = (*self.kinds, *self.surface)
        names = schema(columns).names
        tables = [
            with_columns(batch, schema(columns))
            for batch in history.batches(schema(history.optional).names)
        ]
        for lane in lanes:
            for first, last in self.shards:
                days = self.tapes(lane, first, last, until=day)
                if days:
                    tables.append(tape.rows(days, 0, self.duration, columns).select(names))
        whole = pa.concat_tables(tables)
        whole = whole.set_column(0, names[0], pa.array(np.zeros(whole.num_rows, dtype=np.uint8)))
        return EventLog(
            Metadata((HISTORY,), self.catalogue.n_users, self.catalogue.n_items), whole
        ).sequences()

    def tapes(
        self, lane: Lane, first: int, last: int, *, until: int, only: frozenset[int] | None = None
    ) -> list[dict[str, Any]]:
        """The days before `until` of one shard of a lane, in the order of time, each held to the
        run's ledger.

        Args:
            lane: of the A/B, or the history.
            first, last: of the shard.
            until: a day.
            only: these days of it; None: all.

        Raises:
            FileError: the shard has not lived so long, or the tape of a day is missing, cut, an
                earlier version, that of another day or shard, or not listed.
        """
        lane = self.as_lived(lane)
        folder = self.workspace.shard(lane, first, last)
        if self.reached(lane, first, last) < until * DAY:
            rule = f"the days of users {first} to {last - 1} are no longer whole there"
            raise FileError(f"{folder}: {rule}: use --resume")
        begin = -self.scenario.data.history_days if lane.name == HISTORY else 0
        days = [day for day in range(begin, until) if only is None or day in only]
        files = [folder / f"day-{day}.npz" for day in days]
        self.workspace.ledger.hold(files)
        return [load_arrays(file) for file in files]

    def reached(self, lane: Lane, first: int, last: int) -> int:
        """The time (ms) up to which a shard is finished, as its snapshot says; far in the past
        where nothing is.
        """
        snapshot = self.workspace.shard(self.as_lived(lane), first, last) / "snapshot.npz"
        return int(load_arrays(snapshot, ["now"])["now"]) if present(snapshot) else -NEVER

    @property
    def shards(self) -> tuple[tuple[int, int], ...]:
        """The ranges of users (first, last + 1) that are simulated on their own."""
        return tuple(map(self.shard, range(1, self.n_shards + 1)))

    @property
    def n_shards(self) -> int:
        """How many there are; with fewer users than `engine.shards` each has one of his own."""
        return min(self.scenario.engine.shards, self.catalogue.n_users)

    def shard(self, number: int) -> tuple[int, int]:
        """The users (first, last + 1) of a shard, which are numbered from 1."""
        n_users, n = self.catalogue.n_users, self.n_shards
        return n_users * (number - 1) // n, n_users * number // n

    @cached_property
    def population(self) -> Population:
        """Who the users section of the scenario configures."""
        return behind(self.scenario.users, self.folder, self.scenario.engine.time_limit)

    def users(self, who: IntArray) -> Users:
        """The users `who` `[n]` (ids, ascending) as they are at their start, and nobody else."""
        bring(self.workspace.models / "users")
        users = self.population.build(
            self.source, self.seed, self.scenario.days, self.workspace.models / "users", who
        )
        self.fade(users, 0)
        return users

    @cached_property
    def _nobody(self) -> Users:
        """Users of the run's kind, to be asked what all of them are."""
        return self.users(np.zeros(0, dtype=np.int64))

    def fade(self, users: Users, day: int) -> None:
        """Let the items be as old as they are on a day, where the catalogue lives."""
        if self.uploads is not None:
            people: Any = users  # of the kinds that `items` goes with
            people.fade(self.uploads.fading(day))

    @property
    def kinds(self) -> tuple[str, ...]:
        """FEEDBACK columns of the run's log."""
        history = self.source.history
        known = {*self._nobody.kinds, *(history.kinds if history is not None else ())}
        return tuple(name for name in FEEDBACK if name in known)

    @cached_property
    def asks(self) -> tuple[str, ...]:
        """What the policies of the run ask for of requests: of the arms, the channels and the
        history of a synthetic world. Lives remember this and no more.
        """
        specs = [*self.scenario.arms.values(), *self.scenario.serving.channels]
        asked = [self.policy(spec).asked_context() for spec in specs]
        if self.scenario.data.source == "synthetic":
            logging = self.scenario.data.logging
            asked.append(make(logging.policy, logging.params, self.folder).asked_context())
        return union(asked)

    def check_context(self, name: str, policy: Policy) -> None:
        """Hold what a policy asks for of requests to what is known of them in this run.

        Raises:
            CallError: it asks for something else.
        """
        asked = policy.asked_context()
        known = {"time", "times", "watch"}
        if not known.issuperset(asked):
            users = self._nobody
            known |= {f"reactions.{kind}" for kind in self.kinds}
            if isinstance(users, DescribesRequests):
                known |= {f"features.{feature}" for feature in users.features}
        why = not_known(asked, known)
        if why is not None:
            raise CallError(name, why, "form")

    @property
    def surface(self) -> tuple[str, ...]:
        """TAB, where a policy asks for the surface of requests: then the log keeps it, so that a
        refit learns from it and a replay tells it.
        """
        return (TAB,) if f"features.{TAB}" in self.asks else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The optional columns of the run's log."""
        several = (FIT,) if self.scenario.fits.number > 1 else ()
        return (*self.kinds, *self.surface, *several)

    @property
    def duration(self) -> npt.NDArray[Any]:
        """Seconds of each item, `[n_items + 1]`; 0 where unknown."""
        catalogue = self.catalogue
        known = catalogue.items.get("duration")
        if known is None:
            return np.zeros(catalogue.n_items + 1, dtype=np.float32)
        return np.asarray(known, dtype=np.float32)

    def metadata(self) -> Metadata:
        """What the run's log says of itself."""
        scenario, catalogue, source = self.scenario, self.catalogue, self.source
        propensity: Propensity = "conditional"
        if scenario.data.source != "synthetic" and source.history is not None:
            propensity = source.history.metadata.propensity
        return Metadata(
            arm_names(tuple(scenario.arms)),
            catalogue.n_users,
            catalogue.n_items,
            propensity,
            scenario.control,
            scenario.days,
            tuple(channel.name for channel in scenario.serving.channels),
            scenario.identity(),
            versions(),
            {**source.notes, **self._calibration(), **self._fitted_once()},
        )

    def _fitted_once(self) -> dict[str, Any]:
        """A note for the log where methods are trained several times: the arms whose policies draw
        nothing in training, so that all their fits are one.
        """
        if self.scenario.fits.number == 1:
            return {}
        arms = [a for a, spec in self.scenario.arms.items() if not self.policy(spec).is_seeded]
        return {FITTED_ONCE: sorted(arms)}

    def _calibration(self) -> dict[str, Any]:
        """What fitted users have said of how close they are to real ones, for the notes of the log;
        {} where they have not.
        """
        file = self.workspace.models / "users" / CALIBRATION
        if not present(file):
            return {}
        with reading(file):
            return {"calibration": json.loads(file.read_text(encoding="utf-8"))}

    def lanes(self) -> list[Lane]:
        """What is simulated in the A/B, each lane under each of its fits."""
        lanes = []
        for name in self.design.lanes():
            lanes += [Lane(name, fit) for fit in fit_numbers(self._fits_in(name))]
        return lanes

    def lanes_called(self, name: str) -> list[Lane]:
        """A lane of the design under each of its fits."""
        return [lane for lane in self.lanes() if lane.name == name]

    def as_lived(self, lane: Lane) -> Lane:
        """The lane in which the lives of a lane are simulated: where users live with every fit, and
        nothing that they meet in the lane depends on the fit, all are those of the first.
        """
        if not lane.fit or not self.scenario.fits.crossed or self._differs_by_fit(lane.name):
            return lane
        return replace(lane, fit=0)

    def _differs_by_fit(self, lane: str) -> bool:
        """Whether a policy that serves in a lane of the design, or that wrote what one learns from
        at night, draws in training.
        """
        if lane not in self._by_fit:
            serving = self.scenario.serving
            alone = serving.refit == "never" or serving.refit_on == "own"
            alone &= self.scenario.items is None or self.scenario.items.catalogue == "own"
            arms = self._arms_in(lane) if alone else list(self.scenario.arms)
            specs = [*(self.scenario.arms[arm] for arm in arms), *serving.channels]
            self._by_fit[lane] = any(self.policy(spec).is_seeded for spec in specs)
        return self._by_fit[lane]

    def _arms_in(self, lane: str) -> list[str]:
        """The arms that serve in a lane of the design."""
        return [arm for arm in self.design.arms if self.design.rows_of(arm).lane == lane]

    def _fits_in(self, lane: str) -> int:
        """How many fits a lane of the design has: those of the arms that serve in it."""
        return max(self.scenario.fits_of(arm) for arm in self._arms_in(lane))

    def who(self, lane: Lane, first: int, last: int) -> IntArray:
        """The users of a range that live in a lane, ascending."""
        user = np.arange(first, last)
        if lane.name == HISTORY:
            return user
        if lane.fit is not None and not self.scenario.fits.crossed:
            fit = self.scenario.fits.fit_of_user(self.seed, user, self._fits_in(lane.name))
            user = user[fit == lane.fit]
        return self.design.who(lane.name, user)

    def fit_of(self, arm: str, lanes: Sequence[Lane]) -> int | Callable[[IntArray], IntArray]:
        """The fit that served an arm's rows of some lanes: the same for all, or that of each
        user.
        """
        number = 1 if arm == HISTORY else self.scenario.fits_of(arm)
        if number == 1 or len(lanes) == 1:
            return (lanes[0].fit or 0) if number > 1 else 0
        return partial(self.scenario.fits.fit_of_user, self.seed, number=number)

    def training_seed(self, policy: Policy, fit: int | None) -> int:
        """The seed of a policy's training; one that draws nothing has the same in every fit."""
        return self.scenario.fits.training_seed(self.seed, (fit or 0) if policy.is_seeded else 0)

    def policy(self, spec: PolicySpec) -> Policy:
        """An unfitted policy of the scenario."""
        made = make(spec.policy, spec.params, self.folder)
        if isinstance(made, Explore):
            made.found_in(self.folder)
        one_torch_thread()
        return made

    def desk(self, lane: Lane, day: int, users: Users, witness: Witness) -> Serves:
        """Who serves a lane on a day; `witness` is told what it notices of the policies."""
        scenario = self.scenario
        if lane.name == HISTORY:
            logging = scenario.data.logging
            one_torch_thread()
            policy = logging_policy(logging, self.catalogue, users, self.seed, self.folder)
            channel = Channel(logging.policy, policy, scenario.serving.slate)
            return Desk(
                HISTORY,
                channel,
                (),
                None,
                self.catalogue.n_items,
                self.seed,
                scenario.engine.time_limit,
                witness,
            )
        one, *other = (
            self._arm(name, lane, day, users, witness)
            for name in self.design.served_by(lane.name, day)
        )
        return Draft(one, other[0], self.seed) if other else one

    def _arm(self, name: str, lane: Lane, day: int, users: Users, witness: Witness) -> Desk:
        arm, serving = self.scenario.arms[name], self.scenario.serving
        ranker = None
        if serving.ranking.kind == "pointwise":
            ranker = Ranker.restore(load_arrays(self.workspace.models / "ranking.npz"))
        learned = self.learned(name, lane.fit, day)
        fit = lane.fit if self.scenario.fits_of(name) > 1 else None
        policies = [
            self._fitted(arm, fit, users, learned),
            *(self._fitted(channel, lane.fit, users) for channel in serving.channels),
        ]
        told = [self._told(learned), *(self._told(None) for _ in serving.channels)]
        return Desk.of_arm(
            self.scenario, name, policies, ranker, self.catalogue.n_items, witness, told
        )

    def _told(self, learned: RefitDays | None) -> BoolArray | None:
        """The items that a fit was told of; None: all."""
        if self.uploads is None:
            return None
        told: BoolArray = ~np.isnan(self.catalogue_of(learned).items["uploaded"])
        return told

    def _fitted(
        self, spec: PolicySpec, fit: int | None, users: Users, learned: RefitDays | None = None
    ) -> Policy:
        """A policy with one of its fits loaded; yardsticks get their world."""
        policy = self.policy(spec)
        calls = Calls(policy, spec.policy)
        self.load_fit(calls, fit, learned)
        if isinstance(policy, WorldBound):
            calls.bind(users)
        return policy

    def load_fit(self, calls: Calls, fit: int | None, learned: RefitDays | None = None) -> None:
        """Load a fit into a policy; its files are held to the run's ledger.

        Raises:
            FileError: a file of it is missing, changed or not listed.
            CallError: the policy cannot load it.
        """
        folder = self.workspace.models / self.fit_name(calls.policy, fit, learned)
        self.workspace.ledger.hold([folder])
        calls.load(folder)

    def learned(self, arm: str, fit: int | None, day: int) -> RefitDays | None:
        """What the policy of an arm has learned from by the beginning of a day besides the history;
        None: nothing.
        """
        serving = self.scenario.serving
        if day == 0 or serving.refit == "never":
            return None
        lane = self.design.rows_of(arm).lane if serving.refit_on == "own" else None
        like = arm if serving.refit_on == "weighted" else None
        return RefitDays(day, lane, fit if self.scenario.fits.crossed else None, like)

    def fit_name(self, policy: Policy, fit: int | None, learned: RefitDays | None = None) -> str:
        """Folder of one fit of a policy; refits on the same lives share it."""
        if learned is not None and learned.lane is not None:
            lived = self.as_lived(Lane(learned.lane, learned.fit))
            learned = replace(learned, fit=lived.fit)
        return fit_name(policy, self.training_seed(policy, fit), learned)


@lru_cache(maxsize=2)
def context(job: Job) -> Context:
    """The context of a run in this process."""
    return Context(job)


def begin(job: Job) -> Context:
    """The context of a run at the beginning of a task: it knows what other tasks have made."""
    run = context(job)
    run.workspace.ledger.refresh()
    return run


def fit_name(policy: Policy, seed: int, learned: RefitDays | None = None) -> str:
    """Folder of a policy's fit: policies that differ only in how they serve share it, unless the
    files behind them differ.

    Args:
        policy: with its hyper-parameters.
        seed: of the training.
        learned: from what, besides the history.
    """
    import hashlib

    key = policy.fit_key()
    behind = sources(policy)
    if behind:
        key += json.dumps(behind, sort_keys=True)
    who = json.loads(policy.fit_key())[0].rpartition(":")[2].lower()
    name = f"{who}-{hashlib.sha256(f'{key} {seed}'.encode()).hexdigest()[:12]}"
    if learned is None:
        return name
    lane, like = learned.lane, learned.like
    whose = "pooled" if lane is None else hashlib.sha256(lane.encode()).hexdigest()[:8]
    if like is not None:
        whose = f"weighted-{hashlib.sha256(like.encode()).hexdigest()[:8]}"
    with_fit = "" if learned.fit is None else f"-fit-{learned.fit}"
    return f"{name}{OF_A_DAY}{learned.day}-{whose}{with_fit}"


def with_columns(batch: pa.RecordBatch, target: pa.Schema) -> pa.Table:
    """Rows with the columns of the run's log; feedback that was not logged is null."""
    names = batch.schema.names
    columns = []
    for f in target:
        if f.name in names:
            columns.append(batch.column(f.name))
        elif f.name == FIT:  # what happened before the A/B is of one fit
            columns.append(pa.array(np.zeros(batch.num_rows, dtype=np.uint8)))
        else:
            columns.append(pa.nulls(batch.num_rows, f.type))
    return pa.table(columns, schema=target)


def one_torch_thread() -> None:
    """A policy that brought torch computes with one thread: the number of threads changes the last
    bits of a sum.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
