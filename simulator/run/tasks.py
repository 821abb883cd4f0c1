"""The pieces of a run that a worker does alone: fit the users, a policy, the ranking; simulate a
shard of a lane; write an arm.

A task is small and picklable; what it needs lies in the run's folder, what it makes is put there
whole. Nothing is returned but figures.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.base import Catalogue, Fitting, IntArray, Progress, Sequences, Updatable
from policies.calls import CallError, Calls, Limit
from policies.device import Device, DeviceError, device
from policies.explore import Explore
from policies.ranks import ALONE, RankGroup
from policies.registry import PolicyError, file_of, is_built_in, locate, make
from policies.sources import Traced, carried, sources
from policies.staging import staging_of
from policies.time import DAY
from simulator.config.document import Keys
from simulator.designs.base import ArmRows, Design
from simulator.engine import tape
from simulator.engine.lives import Engine, ShardLives, Span
from simulator.log.eventlog import write_parts
from simulator.log.files import (
    FULL,
    FileError,
    adopt,
    load_arrays,
    reason,
    save_arrays,
    writing,
)
from simulator.log.ledger import REMEDY, bring, present
from simulator.log.metadata import HISTORY
from simulator.log.notices import FILE, as_text, keep, kept, of_warnings
from simulator.log.schema import schema
from simulator.log.workspace import Lane, open_log
from simulator.run.context import (
    Context,
    Job,
    OfRun,
    RefitDays,
    begin,
    context,
    one_torch_thread,
    with_columns,
)
from simulator.run.contract import Needs
from simulator.run.together import together
from simulator.run.weighting import thinned
from simulator.scenario.parts import Arm, PolicySpec
from simulator.scenario.populations import PluginUsers
from simulator.serving.feedback import blocks
from simulator.serving.promises import Witness
from simulator.serving.ranking import Ranker
from simulator.users.base import NEVER, Users, rows_among
from simulator.users.plugins import USER_MODELS, UserModelError


@dataclass(frozen=True)
class FitUsers(OfRun):
    """What the users must learn or draw once, before anybody lives; then the `history` part of the
    log where the past is real.
    """

    job: Job

    def __str__(self) -> str:
        return "fitting the users"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run, start = begin(self.job), time.process_time()
        bring(run.workspace.models / "users")
        run.population.fit(run.source, run.seed, run.workspace.models / "users", progress)
        one_torch_thread()
        past = open_log(run.workspace.past)
        n_users = run.catalogue.n_users
        if past is not None and run.workspace.history(n_users) is None:
            parts = run.workspace.parts(HISTORY, n_users, (0, n_users))
            batches = past.batches(schema(past.optional).names)
            tables = (with_columns(batch, schema(run.columns)) for batch in batches)
            write_parts(tables, parts, run.metadata(), run.columns)
        return {"seconds": time.process_time() - start}


@dataclass(frozen=True)
class Behind:
    """The files behind the policies and user models of a scenario.

    Attributes:
        digests: by name.
        files: those that another machine may lack.
    """

    digests: dict[str, str] = field(default_factory=dict)
    files: set[Path] = field(default_factory=set)

    def add(self, whose: str, plugin: Traced, file: Path | None) -> None:
        """Take in what is behind a policy or a user model, which was looked up in a plug-in file or
        nowhere.
        """
        for name, digest in sources(plugin).items():
            self.digests[f"{whose}: {name}"] = digest
        self.files.update(carried(plugin), [] if file is None else [file])

    def update(self, other: Behind) -> None:
        """Take over what is behind others."""
        self.digests.update(other.digests)
        self.files.update(other.files)


@dataclass(frozen=True)
class CheckPolicies:
    """Make every policy of a scenario once, before anything is written: what is wrong, and the
    digests of the files behind them.

    Attributes:
        folder: where plug-in files are looked up.
        specs: key path within the scenario and policy.
        strangers: whether those are made, too, that abtest does not bring; else they are only
            looked up.
        n_items: of the catalogue, where the scenario says it.
        processes: that are to compute one fit together.
        fits_on: `engine.device`.
        is_here: whether this machine is the one that computes.
    """

    folder: str
    specs: tuple[tuple[Keys, PolicySpec], ...]
    strangers: bool = True
    n_items: int | None = None
    processes: int = 1
    fits_on: Device = "auto"
    is_here: bool = False

    def __str__(self) -> str:
        return (
            f"importing the policies {', '.join(sorted({spec.policy for _, spec in self.specs}))}"
        )

    def __call__(self, progress: Progress) -> tuple[list[tuple[Keys, str]], Behind]:
        behind = Behind()
        wrong: list[tuple[Keys, str]] = []
        for keys, spec in self.specs:
            complaints = self._check(keys, "params", spec.policy, spec.params, behind)
            if isinstance(spec, Arm) and not complaints:
                complaints = self._fits_that_differ(keys, spec)
            on_gpu = [(*keys, "params", *where) for where in spec.on_gpu]
            wrong += complaints or self._no_gpu(on_gpu, "cpu")
        if self.fits_on == "cuda":
            wrong += self._no_gpu([("engine", "device")], "auto or cpu")
        return wrong or self._nobody_shares(), behind

    def _no_gpu(self, saying: Sequence[Keys], instead: str) -> list[tuple[Keys, str]]:
        """What is to be computed on a GPU, as these keys say, finds one."""
        if not (self.is_here and saying):
            return []
        try:
            device("cuda", "it", instead)
        except DeviceError as error:
            return [(keys, str(error)) for keys in saying]
        return []

    def _nobody_shares(self) -> list[tuple[Keys, str]]:
        """Several processes for a fit go with a policy that can be fitted by several."""
        if self.processes == 1:
            return []
        for _, spec in self.specs:
            if not (self.strangers or is_built_in(spec.policy)):
                return []
            policy = make(spec.policy, spec.params, Path(self.folder))
            if isinstance(policy, Explore):
                policy.found_in(Path(self.folder))
            if policy.most_processes > 1:
                return []
        rule = "no policy of this scenario is trained in micro-batches, which processes share"
        advice = "e.g. params: {training: {microbatches: 4}} of a network, or leave it out"
        return [(("engine", "fit_processes"), f"{rule}: give them, {advice}")]

    def _fits_that_differ(self, keys: Keys, arm: Arm) -> list[tuple[Keys, str]]:
        """An arm's own `fits` are of a policy whose fits can differ."""
        if (arm.fits or 1) == 1 or not (self.strangers or is_built_in(arm.policy)):
            return []
        if make(arm.policy, arm.params, Path(self.folder)).is_seeded:
            return []
        rule = f"policy {arm.policy!r} draws nothing in training, so that all its fits are one"
        return [((*keys, "fits"), f"{rule}: leave `fits` out, or give 1; got {arm.fits}")]

    def _check(
        self, keys: Keys, inner: str, name: str, params: Mapping[str, Any], behind: Behind
    ) -> list[tuple[Keys, str]]:
        """One policy, and the one within it where it explores over another; `inner` is the key of
        its hyper-parameters.
        """
        folder = Path(self.folder)
        try:
            if not (self.strangers or is_built_in(name)):
                locate(name, folder)
                return []
            policy = make(name, params, folder)
        except PolicyError as error:
            if not error.complaints:
                return [((*keys, "policy"), str(error))]
            return [((*keys, inner, *where), text) for where, text in error.complaints]
        if isinstance(policy, Explore):
            return self._check(
                (*keys, inner), "policy_params", policy.policy, policy.policy_params, behind
            )
        behind.add(f"policy {name!r}", policy, file_of(name, folder))
        unfit = [] if self.n_items is None else policy.misfits(self.n_items)
        return [((*keys, inner, *where), rule) for where, rule in unfit]


@dataclass(frozen=True)
class CheckUserModels:
    """Make every user model of a scenario once, before anything is written: what is wrong, and the
    digests of the files behind them.

    Attributes:
        folder: where plug-in files are looked up.
        sections: key path within the scenario and users section.
        strangers: whether they are made; else they are only looked up.
    """

    folder: str
    sections: tuple[tuple[Keys, PluginUsers], ...]
    strangers: bool = True

    def __str__(self) -> str:
        names = sorted({section.kind for _, section in self.sections})
        return f"importing the user models {', '.join(names)}"

    def __call__(self, progress: Progress) -> tuple[list[tuple[Keys, str]], Behind]:
        behind = Behind()
        wrong: list[tuple[Keys, str]] = []
        for keys, section in self.sections:
            try:
                if not self.strangers:
                    USER_MODELS.locate(section.kind, Path(self.folder))
                    continue
                model = USER_MODELS.make(section.kind, section.params, Path(self.folder))
            except UserModelError as error:
                wrong += [
                    ((*keys, "params", *where), text) for where, text in error.complaints
                ] or [((*keys, "kind"), str(error))]
                continue
            whose = f"user model {section.kind!r}"
            behind.add(whose, model, USER_MODELS.file_of(section.kind, Path(self.folder)))
        return wrong, behind


@dataclass(frozen=True)
class FitNames:
    """The folder of each policy's fits, whether they compute on a device, and how many processes
    can compute one together; asked of a worker, since policies may bring torch.
    """

    job: Job
    pieces: tuple[Fit, ...]

    def __str__(self) -> str:
        policies = sorted({piece.spec.policy for piece in self.pieces})
        return f"importing the policies {', '.join(policies)}"

    def __call__(self, progress: Progress) -> list[tuple[str, bool, int]]:
        run, named = begin(self.job), []
        for piece in self.pieces:
            policy = run.policy(piece.spec)
            name = run.fit_name(policy, piece.fit, piece.learned)
            named.append((name, policy.uses_device, policy.most_processes))
        return named


@dataclass(frozen=True)
class LivedLanes:
    """The lanes whose lives are simulated, in their order; asked of a worker, since policies may
    bring torch.
    """

    job: Job

    def __str__(self) -> str:
        return "importing the policies of the lanes"

    def __call__(self, progress: Progress) -> list[Lane]:
        run = begin(self.job)
        return list(dict.fromkeys(map(run.as_lived, run.lanes())))


@dataclass(frozen=True)
class Fit(OfRun):
    """Fit one policy and save it; finished fits are kept.

    Attributes:
        job: the run.
        spec: the policy.
        fit: which of its fits, each with a seed of its own; None where there is but one.
        learned: of a refit, what it learns from besides the history. A policy that is `Updatable`
            is not fitted again but given the answers of the day before.
        uses_device: whether it computes on the device of the run's fits.
        processes: how many compute it together, each on a GPU of its own where it is fitted on one.
        shared: other policies that serve by the same fit, each in its own way.
    """

    job: Job
    spec: PolicySpec
    fit: int | None = None
    learned: RefitDays | None = None
    uses_device: bool = False
    processes: int = 1
    shared: tuple[PolicySpec, ...] = ()

    def __str__(self) -> str:
        which = "" if self.fit is None else f" (fit {self.fit})"
        when = "" if self.learned is None else f" before day {self.learned.day}"
        return f"fitting policy {self.spec.policy!r}{which}{when}"

    @property
    def needs(self) -> Needs:
        """A GPU, too, if it computes on one; with `engine.device: cuda` every fit must see one. All
        of it for each of its processes.
        """
        run, n = context(self.job), self.processes
        wanted = run.scenario.engine.device
        on_gpu = wanted == "cuda" or (wanted == "auto" and self.uses_device)
        return Needs(n * run.needs.memory, gpus=n * on_gpu, processors=n)

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = begin(self.job)
        name = run.fit_name(run.policy(self.spec), self.fit, self.learned)
        if present(run.workspace.models / name / "state.npz"):
            return {"seconds": 0.0}
        if self.processes == 1:
            return self.of_rank(progress, ALONE)
        results = together(self, self.processes, progress)
        run.workspace.ledger.refresh()
        return {"seconds": sum(result["seconds"] for result in results)}

    def of_rank(self, progress: Progress, ranks: RankGroup) -> dict[str, float]:
        """Fit the policy as one of the processes that do so together; the first saves it."""
        run = begin(self.job)
        policy = run.policy(self.spec)
        folder = run.workspace.models / run.fit_name(policy, self.fit, self.learned)
        run.check_context(self.spec.policy, policy)
        processor = device(run.scenario.engine.device)
        start = time.process_time()
        label = f"fit {self.spec.policy}" + ("" if self.fit is None else f" {self.fit}")
        label += "" if self.learned is None else f" day {self.learned.day}"

        def named(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            progress(f"{label}: {stage}", done, total, figures)

        log, seed = run.lesson, run.training_seed(policy, self.fit)
        catalogue = run.catalogue_of(self.learned)
        if self.learned is not None:
            lanes = [lane for lane in run.lanes() if self.learned.includes(lane)]
            log = run.sequences_until(self.learned.day, lanes)
            log = run.scenario.fits.lesson(run.seed, log, catalogue.n_users)
            if self.learned.like is not None:
                log = thinned(run, log, self.learned.like, seed)
        limit = run.scenario.engine.fit_limit
        rule = f"engine.fit_limit ({limit:g} s); fewer epochs or a higher limit may help"
        calls = Calls(policy, self.spec.policy, Limit(limit, rule))
        with _disk(folder):
            if self.learned is not None and isinstance(policy, Updatable):
                self._update(run, calls, log, self.learned)
            else:
                checkpoints = folder / "checkpoints"
                fitting = Fitting(seed, processor, named, checkpoints, True, ranks=ranks)
                with ranks.connected(processor):
                    self._fit(run, calls, log, catalogue, fitting)
            if ranks.is_first:
                _save(calls, [Calls(run.policy(spec), spec.policy) for spec in self.shared], folder)
        return {"seconds": time.process_time() - start}

    def _fit(
        self, run: Context, calls: Calls, log: Sequences, catalogue: Catalogue, fitting: Fitting
    ) -> None:
        try:
            calls.fit(log, catalogue, fitting)
        except CallError:
            run.forget()
            raise

    def _update(self, run: Context, calls: Calls, log: Sequences, learned: RefitDays) -> None:
        day = learned.day - 1
        before = replace(learned, day=day) if day else None
        run.load_fit(calls, self.fit, before)
        serving = run.scenario.serving
        seen = serving.seen or serving.history
        for histories, slates, clicked in blocks(
            log, day * DAY, serving.history, seen, calls.policy.asked_context()
        ):
            calls.update(histories, slates, clicked)


def _save(calls: Calls, shared: Sequence[Calls], folder: Path) -> None:
    """Write a fitted policy into `folder`, with what its code warned of and the search indexes of
    those that share the fit; its files are listed in the run's ledger.
    """
    staging = staging_of(folder)
    with writing(staging):
        calls.save(staging)
        for other in shared:
            other.load(staging)
            other.save_search(staging)
        notices = of_warnings("", calls.name, calls.warned)
        if notices:
            (staging / FILE).write_text(as_text(notices), encoding="utf-8")
    adopt(staging, folder, last="state.npz")


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """A disk that is full is not the fault of the policy that writes on it.

    Raises:
        FileError: in place of a policy's error that has this cause.
    """
    try:
        yield
    except CallError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise FileError(
                f"{cause.filename or folder} cannot be written: {reason(cause)}"
            ) from error
        raise


@dataclass(frozen=True)
class FitRanking(OfRun):
    """Fit the ranking stage on the history and save it."""

    job: Job

    def __str__(self) -> str:
        return "fitting the ranking stage"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = begin(self.job)
        file = run.workspace.models / "ranking.npz"
        if present(file):
            return {"seconds": 0.0}
        start = time.process_time()
        progress("fit ranking", 0, 1, {})
        serving = run.scenario.serving
        ranker = Ranker.fit(
            run.lesson, run.catalogue, serving.history, serving.ranking.watch_weight
        )
        save_arrays(file, ranker.state())
        progress("fit ranking", 1, 1, ranker.figures())
        return {"seconds": time.process_time() - start}


@dataclass(frozen=True)
class Simulate(OfRun):
    """Run one lane for the users first..last-1, from its last finished day on: a tape a day, a
    snapshot at each day's end.

    Attributes:
        job: the run.
        lane: of the A/B; that called `history` makes the history of a synthetic world under its
            logging policy.
        first, last: range of users.
        days: stop after so many days of the A/B, to be continued after a refit, or at the midnight
            before this day (of the history, not above 0) where a catalogue lives.
    """

    job: Job
    lane: Lane
    first: int
    last: int
    days: int

    def __str__(self) -> str:
        return f"simulating {str(self.lane)!r}, users {self.first} to {self.last - 1}"

    @property
    def needs(self) -> Needs:
        """Of the users, those of the shard; a share of a GPU where policies answer on one."""
        run = context(self.job)
        return replace(run.needs_of_shard, gpus=run.gpus_in(self.lane))

    def __call__(self, progress: Progress) -> dict[str, float]:
        run = begin(self.job)
        scenario, serving = run.scenario, run.scenario.serving
        start, end = (
            (-scenario.data.history_days * DAY, min(self.days, 0) * DAY)
            if self._is_history
            else (0, self.days * DAY)
        )
        folder = run.workspace.shard(self.lane, self.first, self.last)
        if run.reached(self.lane, self.first, self.last) >= end:
            return {"seconds": 0.0, "impressions": 0.0}
        began = time.process_time()
        run.forget(["sequences", "lesson"])  # of all users; whoever fitted before has read them
        lives, users, now = self._resume(run, folder, start)
        tick = max(round(scenario.engine.tick * 1000), 1)
        span = Span(
            now,
            end,
            tick,
            scenario.engine.block,
            serving.slate,
            serving.history,
            serving.seen or serving.history,
            run.asks,
        )
        bring(folder / FILE)
        witness, noticed = Witness(), kept(folder.glob(FILE))
        desk, life = run.desk(self.lane, now // DAY, users, witness), None
        if run.uploads is not None:
            life = run.life(run.market(self.lane), now // DAY)
            assert life is not None
            run.fade(users, now // DAY)
            desk = run.admitting(desk, life, now)
        engine = Engine(
            lives,
            users,
            desk,
            tape.Tape(run.kinds),
            span,
        )
        rows = requests = 0

        def day_is_over(t: int) -> None:
            nonlocal rows, requests
            rows, requests = rows + engine.tape.n_rows, requests + engine.tape.n_requests
            keep(folder, noticed + witness.notices())
            again = self._is_history or t < scenario.days * DAY
            _keep(folder, t, engine, again=again)
            engine.tape = tape.Tape(run.kinds)
            if t < end and self._is_handed_over(run.design, t // DAY):
                engine.desk = run.desk(self.lane, t // DAY, users, witness)
            label = f"simulate {self.lane} {self.first}-{self.last - 1}"
            progress(label, (t - start) // DAY, (end - start) // DAY, {"requests": float(requests)})

        engine.run(day_is_over, run.releases(life))
        return {
            "seconds": time.process_time() - began,
            "impressions": float(rows),
            "requests": float(requests),
        }

    @property
    def _is_history(self) -> bool:
        return self.lane.name == HISTORY

    def _is_handed_over(self, design: Design, day: int) -> bool:
        """Whether others serve the lane on a day than on the day before."""
        if self._is_history:
            return False
        lane = self.lane.name
        return design.served_by(lane, day) != design.served_by(lane, day - 1)

    def _resume(self, run: Context, folder: Path, start: int) -> tuple[ShardLives, Users, int]:
        """The lives and their users at the last finished day's end, and that time."""
        snapshot = folder / "snapshot.npz"
        shard, who = (self.first, self.last), run.who(self.lane, self.first, self.last)
        if present(snapshot):
            state = load_arrays(snapshot)
            return *_restore(run, state, who), int(state["now"])
        if not self._is_history:
            return *lives_at_start(run, shard, who), start
        users = run.users(who)
        first = users.first(who)
        return born(run, who, np.where(first == NEVER, NEVER, first + start)), users, start


def lives_at_start(run: Context, shard: tuple[int, int], who: IntArray) -> tuple[ShardLives, Users]:
    """The lives of some users of a shard (first, last + 1) at t = 0, with the past that the history
    gives them, and these users.
    """
    inherited = run.workspace.shard(Lane(HISTORY), *shard) / "snapshot.npz"
    if present(inherited):
        lives, users = _restore(run, load_arrays(inherited), who)
        return lives.renumbered(), users
    users, history = run.users(who), run.source.history
    assert history is not None
    past = history.sequences(HISTORY, before=0, who=who)
    return born(run, who, users.first(who)).with_past(past), users


def born(run: Context, user: IntArray, first: IntArray) -> ShardLives:
    """Lives without a past that ask for the first time at `first` (ms)."""
    serving = run.scenario.serving
    memory = max(serving.history, serving.seen or 0)
    return ShardLives.born(user, first, memory, run.asks)


def _keep(folder: Path, t: int, engine: Engine, *, again: bool) -> None:
    """Keep what a finished day has brought: its tape, then the snapshot that says it is finished
    (with all state if it goes on).
    """
    engine.tape.save(folder / f"day-{t // DAY - 1}.npz")
    state: dict[str, npt.NDArray[Any]] = {"now": np.array(t)}
    if again:
        state |= {f"lives.{name}": column for name, column in engine.lives.state().items()}
        state |= {f"users.{name}": column for name, column in engine.users.state().items()}
    save_arrays(folder / "snapshot.npz", state)


def _restore(
    run: Context, state: Mapping[str, npt.NDArray[Any]], who: IntArray
) -> tuple[ShardLives, Users]:
    """The lives in a snapshot of the users `who`, and these users."""
    lives = ShardLives.restore(
        {
            name.removeprefix("lives."): column
            for name, column in state.items()
            if name.startswith("lives.")
        }
    )
    rows, users = rows_among(lives.user, who), run.users(who)
    users.restore(
        {
            name.removeprefix("users."): column[rows]
            for name, column in state.items()
            if name.startswith("users.")
        }
    )
    return lives.rows(rows), users


def _hold_to_total(
    arm: str,
    users: tuple[int, int],
    written: int,
    days: Sequence[Mapping[str, Any]],
    team: int | None,
) -> None:
    """Every impression of some users on a shard's tapes has become a row of its arm, once.

    Raises:
        FileError: it has not.
    """
    first, last = users
    expected = 0
    for day in days:
        is_theirs = (day["user"] >= first) & (day["user"] < last)
        counted = np.repeat(is_theirs, day["shown"])
        if team is not None:
            counted &= day["team"] == team
        expected += int(counted.sum())
    if written != expected:
        rule = f"{written:,} rows were written of {expected:,} impressions on its tapes"
        raise FileError(f"the log of {arm!r}, users {first} to {last - 1}: {rule}. {REMEDY}")


@dataclass(frozen=True)
class Settle(OfRun):
    """Let a catalogue that lives come to the end of a day that all users of its lanes have lived:
    what their creators make of it, what goes, and what comes on the next day.

    Attributes:
        job: the run.
        market: whose catalogue (`Context.market`).
        lanes: that show it, as they are lived.
        day: that is over.
    """

    job: Job
    market: Lane
    lanes: tuple[Lane, ...]
    day: int

    def __str__(self) -> str:
        return f"settling the catalogue of {str(self.market)!r} after day {self.day}"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run, start = begin(self.job), time.process_time()
        file = run.workspace.life(self.market, self.day + 1)
        if present(file):
            return {"seconds": 0.0}
        life = run.life(self.market, self.day)
        assert life is not None
        assert run.uploads is not None
        size = run.catalogue.n_items + 1
        shown, clicked = np.zeros((2, size), dtype=np.int64)
        for lane in self.lanes:
            for first, last in run.shards:
                day = load_arrays(
                    run.workspace.shard(lane, first, last) / f"day-{self.day}.npz",
                    ("item", "click"),
                )
                shown += np.bincount(day["item"], minlength=size)
                clicked += np.bincount(day["item"][day["click"] == 1], minlength=size)
        save_arrays(file, life.after(run.uploads, shown, clicked).state())
        return {"seconds": time.process_time() - start}


@dataclass(frozen=True)
class KeepLives(OfRun):
    """Keep what became of the catalogue in each of some arms: its counts by day, and the day on
    which each creator stopped.
    """

    job: Job
    arms: tuple[str, ...]

    def __str__(self) -> str:
        return "keeping what became of the catalogues"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run, start = begin(self.job), time.process_time()
        arrays: dict[str, npt.NDArray[Any]] = {}
        for arm in self.arms:
            name = run.design.rows_of(arm).lane
            markets = dict.fromkeys(map(run.market, run.lanes_called(name)))
            lives = [run.life(market, run.scenario.days) for market in markets]
            for field_name in ("record", "stopped_on"):
                arrays[f"{field_name}.{arm}"] = np.stack(
                    [getattr(life, field_name) for life in lives]
                )
        assert run.uploads is not None
        arrays["is_creator"] = run.uploads.is_creator
        arrays["first_day"] = np.array(run.uploads.first_day)
        save_arrays(run.workspace.lived, arrays)
        return {"seconds": time.process_time() - start}


@dataclass(frozen=True)
class Merge(OfRun):
    """Write the log parts of one arm whose first users are in a shard out of the tapes of its lane,
    in KEY order; a shard at a time is in memory.
    """

    job: Job
    arm: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"writing the log of {self.arm!r}, users from {self.first} on"

    def __call__(self, progress: Progress) -> dict[str, float]:
        run, start = begin(self.job), time.process_time()
        shard, n_users = (self.first, self.last), run.catalogue.n_users
        stretches = _stretches(run, self.arm)
        for done, (lanes, fit) in enumerate(stretches, start=1):
            parts = run.workspace.parts(self.arm, n_users, shard, fit)
            first, end = parts[0].first, parts[-1].end
            if not all(present(part.path) for part in parts):
                tables = self._tables(run, lanes, first, end)
                write_parts(tables, parts, run.metadata(), run.columns)
            progress(f"write {self.arm} {first}-{end - 1}", done, len(stretches), {})
        return {"seconds": time.process_time() - start}

    def _tables(
        self, run: Context, lanes: Sequence[Lane], start: int, end: int
    ) -> Iterator[pa.Table]:
        """The rows of the users start..end-1 in some lanes, none of whom lives in two of them."""
        is_history = self.arm == HISTORY
        rows = ArmRows(HISTORY) if is_history else run.design.rows_of(self.arm)
        until = 0 if is_history else run.scenario.days
        index, fit = run.metadata().arms.index(self.arm), run.fit_of(self.arm, lanes)
        for first, last in run.shards:
            users, written = (max(first, start), min(last, end)), 0
            if users[0] >= users[1]:
                continue
            days: list[dict[str, Any]] = []
            for lane in lanes:
                days += run.tapes(lane, first, last, until=until, only=rows.days)
            if days:
                for table in tape.tables(
                    days, index, run.duration, run.columns, rows.team, fit, users=users
                ):
                    written += table.num_rows
                    yield table
                _hold_to_total(self.arm, users, written, days, rows.team)


def _stretches(run: Context, arm: str) -> list[tuple[list[Lane], int | None]]:
    """The lanes whose rows of an arm lie in log parts of their own, in KEY order, and the fit of
    these parts: users who live with one fit each are one stretch of rows, users with several lives
    one for each fit.
    """
    if arm == HISTORY:
        return [([Lane(HISTORY)], None)]
    lanes = run.lanes_called(run.design.rows_of(arm).lane)
    if run.scenario.fits.crossed:
        return [([lane], lane.fit) for lane in lanes]
    return [(lanes, None)]


@dataclass(frozen=True)
class AddUp(OfRun):
    """Add up the log parts of one arm whose first users are in a shard, as far as the report needs
    them; a stretch of rows is in memory at a time.
    """

    job: Job
    arm: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"adding up the log of {self.arm!r}, users from {self.first} on"

    def __call__(self, progress: Progress) -> dict[str, float]:
        from simulator.report.reading import keep_sums

        run, start = begin(self.job), time.process_time()
        shard, n_users, workspace = (self.first, self.last), run.catalogue.n_users, run.workspace
        parts: list[Path] = []
        for _, fit in _stretches(run, self.arm):
            parts += (part.path for part in workspace.parts(self.arm, n_users, shard, fit))
        left = [part for part in parts if not present(workspace.sums_of(part))]
        workspace.ledger.hold(left)
        for done in keep_sums(workspace, left):
            progress(f"add up {self.arm} {self.first}-{self.last - 1}", done, len(left), {})
        return {"seconds": time.process_time() - start}
