"""A scenario from its file to its report: source -> history -> fits -> (arm x shard) -> merged log
-> report.

The order of the pieces and what of them is finished already; each piece itself is a task of
`simulator.run.tasks`.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.base import Progress, silent
from policies.sources import OWN, digest, package
from policies.time import DAY
from simulator.calibration.targets import unknown_targets
from simulator.config.document import Keys, ScenarioError
from simulator.living.life import Uploads
from simulator.log.eventlog import EventLog
from simulator.log.files import FileError, save_mappable, write_text
from simulator.log.ledger import fetch_all, here, present
from simulator.log.metadata import HISTORY
from simulator.log.notices import Notice
from simulator.log.remote import KEPT
from simulator.log.store import address_of, place
from simulator.log.workspace import Lane, RunError, Workspace, save_catalogue
from simulator.run import executors, held_out_clicks, machines, tasks
from simulator.run.context import Job, context, fit_numbers
from simulator.run.over_parts import parts_map
from simulator.scenario import memory
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Data, EngineSpec
from simulator.scenario.populations import synthetic_source

if TYPE_CHECKING:
    from simulator.report.content import Content
    from simulator.run.executors import Executor


@dataclass
class Outcome:
    """What a run leaves.

    Attributes:
        root: the run's folder.
        report: what report.json says, or None where fewer than two arms are left.
        failed: arm -> why it was given up (only with `keep_going`).
        notices: what was noticed of the policies without stopping the run, and how often.
        runtime: seconds (CPU) by stage, impressions, peak memory (MiB).
    """

    root: Path
    report: Content | None = None
    failed: dict[str, str] = field(default_factory=dict)
    notices: Counter[Notice] = field(default_factory=Counter)
    runtime: dict[str, float] = field(default_factory=dict)

    def _repr_html_(self) -> str | None:
        """The first screen of its report, in a notebook; None where it has none."""
        return None if self.report is None else self.report._repr_html_()


def run(
    scenario: Scenario,
    out: Path | str,
    *,
    folder: Path | str = Path(),
    resume: bool = False,
    keep_going: bool = False,
    strict: bool = False,
    progress: Progress = silent,
    fits: Path | str | None = None,
) -> Outcome:
    """Run a scenario to its finished report, in its own world and in its further `worlds`.

    Args:
        scenario: checked.
        out: folder of the run; new, or with `resume` that of an unfinished run of the same
            scenario.
        folder: where the scenario lies; plug-in files and data are looked up there.
        resume: take over finished pieces; the result is the same bytes as without an interruption.
        keep_going: an arm whose policy breaks its contract is given up instead of the run, and the
            others are reported.
        strict: report no lift where a check of the report is red.
        fits: models of a finished run with the same seed on the same history, whose fits of
            policies are taken over.
        progress: told of fitting, simulating, writing and reporting.

    Raises:
        RunError: the folder holds another run, or is in use; or nothing is left to report.
        FileError: a file cannot be written, or a piece of a run that is resumed is missing or
            damaged.
        DataError, PolicyError, ServingError: bad data, a policy that cannot be made, one that
            breaks its contract.
    """
    out, folder, fits = place(out), Path(folder), None if fits is None else here(fits)
    with ExitStack() as held:
        return _run(scenario, out, held, folder, resume, keep_going, strict, progress, fits)


def _run(
    scenario: Scenario,
    out: Path,
    held: ExitStack,
    folder: Path,
    resume: bool,
    keep_going: bool,
    strict: bool,
    progress: Progress,
    fits: Path | None,
) -> Outcome:
    """As `run`; the run's folder is held from its claim on until `held` ends."""
    start = time.monotonic()
    outcome = _simulate(scenario, out, held, folder, resume, keep_going, progress, fits)
    for name in scenario.worlds:
        if name in scenario.drawn:
            continue
        there = Workspace(out).world(name)
        inner = run(
            scenario.within(name),
            there,
            folder=folder,
            resume=resume,
            keep_going=keep_going,
            strict=strict,
            progress=_within(name, progress),
            fits=_lent_fits(scenario, name, out),
        )
        _include(outcome, inner, name)
    _draws(scenario, out, outcome, folder, resume, keep_going, progress)
    fetch_all(out, KEPT)
    log = EventLog.open(Workspace(out).log)
    outcome.runtime["wall seconds"] = time.monotonic() - start
    outcome.runtime["peak MiB"] = peak_memory() / 2**20
    if len(log.metadata.arms) < 2 + (HISTORY in log.metadata.arms):
        return outcome
    from simulator import report

    engine = scenario.engine
    workers = engine.shards * len(scenario.arms)
    with parts_map(engine.executor, workers, out) as parts:
        outcome.report = report.write(
            log, out, runtime=outcome.runtime, strict=strict, progress=progress, parts=parts
        )
    return outcome


def _lent_fits(scenario: Scenario, world: str, out: Path) -> Path | None:
    """The fits of the own world where those of a further world are the same: of the same real
    history with the same seed.
    """
    alone = scenario.within(world)
    is_same = alone.data == scenario.data and alone.seed == scenario.seed
    return Workspace(out).models if is_same and alone.data.source != "synthetic" else None


def _include(outcome: Outcome, inner: Outcome, world: str) -> None:
    """Add what went wrong in a further world to what the whole run leaves."""
    outcome.failed |= {f"{arm} in {world}": why for arm, why in inner.failed.items()}
    outcome.notices.update(
        {
            replace(notice, arm=f"{notice.arm} in {world}".lstrip()): n
            for notice, n in inner.notices.items()
        }
    )


def _draws(
    scenario: Scenario,
    out: Path,
    outcome: Outcome,
    folder: Path,
    resume: bool,
    keep_going: bool,
    progress: Progress,
) -> None:
    """Simulate the drawn worlds, each whole in one worker: a hundred small worlds would pay more
    for a hundred pools of workers than for their lives.
    """
    names = scenario.drawn
    if not names:
        return
    whole = json.dumps(scenario.resolved())
    pieces = [
        DrawnWorld(whole, name, address_of(out), os.path.relpath(folder), resume, keep_going)
        for name in names
    ]
    finished = 0

    def done(i: int, result: Any) -> None:
        nonlocal finished
        _include(outcome, _checked(result), names[i])
        seconds = "drawn worlds CPU seconds"
        outcome.runtime[seconds] = outcome.runtime.get(seconds, 0.0) + result.runtime["seconds"]
        finished += 1
        progress("drawn worlds", finished, len(names), {})

    progress("drawn worlds", 0, len(names), {})
    with executors.executor(scenario.engine.executor, silent, len(pieces)) as executor:
        behind = check(scenario, folder, executor)
        _prepare(executor, scenario, folder, Workspace(out), behind)
        executor.run(pieces, done)


@dataclass(frozen=True)
class DrawnWorld:
    """Simulate one drawn world of a scenario and keep its lifts.

    Attributes:
        scenario: as JSON of `Scenario.resolved()`.
        name: of the world.
        out: folder of the run of the scenario.
        folder: where the scenario lies.
        resume, keep_going: as `run`.
    """

    scenario: str
    name: str
    out: str
    folder: str
    resume: bool
    keep_going: bool

    def __str__(self) -> str:
        return f"simulating the drawn world {self.name!r}"

    def __call__(self, progress: Progress) -> Outcome:
        from simulator import report

        start = time.process_time()
        scenario = Scenario.model_validate(json.loads(self.scenario))
        alone = scenario.within(self.name)
        here = EngineSpec.model_validate(
            {**alone.engine.model_dump(), "executor": "serial", "shards": 1}
        )
        there = Workspace(place(self.out)).world(self.name)
        outcome = simulate(
            alone.model_copy(update={"engine": here}),
            there,
            folder=Path(self.folder),
            resume=self.resume,
            keep_going=self.keep_going,
            fits=_lent_fits(scenario, self.name, place(self.out)),
        )
        report.keep_lifts(there)
        outcome.runtime["seconds"] = time.process_time() - start
        return outcome


def simulate(
    scenario: Scenario,
    out: Path | str,
    *,
    folder: Path | str = Path(),
    resume: bool = False,
    keep_going: bool = False,
    progress: Progress = silent,
    fits: Path | str | None = None,
) -> Outcome:
    """Run a scenario to its event log, `out`/log; arguments and errors as `run`."""
    out, folder, fits = place(out), Path(folder), None if fits is None else here(fits)
    with ExitStack() as held:
        return _simulate(scenario, out, held, folder, resume, keep_going, progress, fits)


def simulate_shard(
    scenario: Scenario,
    out: Path | str,
    number: int,
    *,
    folder: Path | str = Path(),
    resume: bool = False,
    progress: Progress = silent,
    fits: Path | str | None = None,
) -> Outcome:
    """Simulate one of the `engine.shards` of a scenario and no other: the history of its users,
    where that is synthetic, then, once the fits are there, their A/B in every lane. What it does
    and what it takes does not depend on the other shards: where midnights need the day of all users
    (daily refits, a catalogue that lives), it ends at the first of them. A run that is resumed with
    as many shards takes the pieces over.

    Args:
        number: of the shard, from 1.
        fits: as `run`; else the A/B waits for a run that has fitted on the history of all.

    Other arguments as `run`.

    Returns:
        What it took, in `runtime`, with the `history days` and `simulate days` that were lived;
        without `simulate` where the A/B waits.

    Raises:
        RunError: there are not so many shards; or as `run`.
        FileError, DataError, PolicyError, ScenarioError, ServingError: as `run`.
    """
    out, folder, fits = place(out), Path(folder), None if fits is None else here(fits)
    with ExitStack() as held:
        outcome = _simulate(scenario, out, held, folder, resume, False, progress, fits, number)
        if not outcome.runtime:
            raise RunError(f"{out} holds a finished run: no shard of it is left to simulate")
    outcome.runtime["peak MiB"] = peak_memory() / 2**20
    return outcome


def _simulate(
    scenario: Scenario,
    out: Path,
    held: ExitStack,
    folder: Path,
    resume: bool,
    keep_going: bool,
    progress: Progress,
    fits: Path | None,
    shard: int | None = None,
) -> Outcome:
    """As `simulate`, or `simulate_shard`; the run's folder is held from its claim on until `held`
    ends, which is after the workers have ended.
    """
    workspace, outcome = Workspace(out), Outcome(out)
    with executors.executor(
        scenario.engine.executor, progress, max(scenario.engine.shards, 1) * len(scenario.arms)
    ) as executor:
        behind = check(scenario, folder, executor)
        files = {**_own(), **behind.digests, **_data(scenario, folder)}
        held.enter_context(workspace.held())
        claimed = {**scenario.identity(), "control": scenario.control}
        workspace.claim(claimed, files, resume=resume)
        write_text(workspace.scenario, scenario.to_yaml())
        if fits is not None:
            workspace.borrow(fits)
        if not workspace.finished:
            _prepare(executor, scenario, folder, workspace, behind)
            stages = _Run(scenario, folder, workspace, executor, outcome, keep_going)
            if shard is None:
                stages.all()
                workspace.finish()
            else:
                stages.one_shard(shard)
    outcome.notices = workspace.notices()
    return outcome


def check(
    scenario: Scenario, folder: Path, executor: Executor, *, strangers: bool = True
) -> tasks.Behind:
    """What a scenario needs from outside itself, before anything is written: its data, and every
    policy and user model made once in a worker.

    Args:
        scenario: whose.
        folder: where plug-in files and data are looked up.
        executor: of the worker.
        strangers: make those too that abtest does not bring, which runs their code; else they are
            only looked up.

    Returns:
        The files behind the policies and user models that were made.

    Raises:
        ScenarioError: what is wrong, with file, line and key path.
    """
    wrong: list[tuple[Keys, str]] = list(_missing_data(scenario, folder))
    wrong.extend(unknown_targets(scenario.calibration))
    behind = tasks.Behind()

    def done(_: int, result: Any) -> None:
        broken, of_them = _checked(result)
        wrong.extend(broken)
        behind.update(of_them)

    n_items = getattr(scenario.users, "n_items", None)  # of a synthetic world
    policies, processes = tuple(scenario.policies()), scenario.engine.fit_processes
    fits_on, is_here = scenario.engine.device, scenario.engine.executor != "ray"
    asked = (strangers, n_items, processes, fits_on, is_here)
    pieces: list[Any] = [tasks.CheckPolicies(str(folder), policies, *asked)]
    models = tuple(scenario.user_models())
    if models:
        pieces.append(tasks.CheckUserModels(str(folder), models, strangers))
    executor.here(pieces, done)
    if wrong:
        raise ScenarioError("\n".join(f"{scenario.where(keys)}: {text}" for keys, text in wrong))
    return behind


def _prepare(
    executor: Executor,
    scenario: Scenario,
    folder: Path,
    workspace: Workspace,
    behind: tasks.Behind,
) -> None:
    """Let every machine have the files behind the policies, and look whether it sees the run's
    folder, which is held.
    """
    look = machines.LookAround(
        address_of(workspace.root),
        workspace.holder(),
        os.path.relpath(folder),
        json.dumps(scenario.resolved()),
        tuple(sorted(behind.digests.items())),
    )
    executor.prepare([folder, *sorted(behind.files)], look)


def _own() -> dict[str, str]:
    """Digests of abtest's own source: a checkout may change without its version."""
    return {f"abtest's package {name}": package(name) for name in OWN}


def _data(scenario: Scenario, folder: Path) -> dict[str, str]:
    """Digests of the data files that the scenario names."""
    if scenario.data.source == "synthetic":
        return {}
    from simulator import datasets

    home = datasets.place(scenario.data, folder).parent
    files = datasets.files(scenario.data, folder)
    return {f"data file {os.path.relpath(file, home)}": digest(file) for file in files}


def _missing_data(scenario: Scenario, folder: Path) -> Iterator[tuple[Keys, str]]:
    """The data of the scenario and its worlds that are not where they are looked for."""
    from simulator import datasets

    sections: list[tuple[Keys, Data]] = [(("data",), scenario.data)]
    sections += [
        (("worlds", name, "data"), world.data)
        for name, world in scenario.worlds.items()
        if world.data is not None
    ]
    for keys, data in sections:
        if data.source == "synthetic":
            continue
        try:
            datasets.check(data, folder)
        except datasets.DataError as error:
            yield (*keys, "path"), str(error).removeprefix("data.path: ")


def _within(world: str, progress: Progress) -> Progress:
    """The progress of a further world under its own name."""
    return lambda stage, done, total, figures: progress(f"{world}: {stage}", done, total, figures)


def peak_memory() -> int:
    """Peak resident memory in bytes of this process or of its largest worker, whichever is
    greater.
    """
    return 1024 * max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


class _Run:
    """The stages of one run, in their order; each stage's pieces run side by side."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        workspace: Workspace,
        executor: Executor,
        outcome: Outcome,
        keep_going: bool,
    ) -> None:
        self.scenario = scenario
        self.folder = folder
        self.workspace = workspace
        self.executor = executor
        self.outcome, self.keep_going = outcome, keep_going
        self.job = Job(
            address_of(workspace.root),
            os.path.relpath(folder),
            json.dumps(scenario.resolved()),
        )

    def all(self) -> None:
        """Every stage, to the finished log."""
        scenario = self.scenario
        self._begin()
        if scenario.data.source == "synthetic":
            for day in self._stops(-scenario.data.history_days, 0):
                self._simulate([Lane(HISTORY)], day)
                self._settle([Lane(HISTORY)], day)
            self._write([HISTORY])
        self._fits()
        self._held_out()
        for day in self._stops(0, scenario.days):
            if scenario.serving.refit == "daily" and day > 1:
                self._refits(day - 1)
            lanes = self._lanes()
            self._simulate(lanes, day)
            self._settle(lanes, day)
        failed = self.outcome.failed
        if failed and (scenario.control in failed or len(self._arms()) < 2):
            raise RunError("nothing is left to compare:\n" + "\n".join(failed.values()))
        self._write(self._arms())
        self._go("sums", self._by_part(tasks.AddUp, [HISTORY, *self._arms()]))
        if scenario.items is not None:
            self._go("write", [tasks.KeepLives(self.job, tuple(self._arms()))])

    def one_shard(self, number: int) -> None:
        """The lives of one shard, as far as they do not wait for what others make: an A/B in a
        catalogue that lives waits for the history of all.
        """
        scenario = self.scenario
        self._begin()
        run = context(self.job)
        if not 1 <= number <= run.n_shards:
            rule = f"there are {run.n_shards:,} of the {run.catalogue.n_users:,} users"
            raise RunError(f"no shard {number:,}: {rule} (engine.shards)")
        alone = [run.shard(number)]
        if scenario.data.source == "synthetic":
            self._to_first_stop([Lane(HISTORY)], -scenario.data.history_days, 0, alone)
        if scenario.items is None and self._is_fitted():
            self._to_first_stop(self._lanes(), 0, scenario.days, alone)

    def _to_first_stop(
        self, lanes: Sequence[Lane], first: int, last: int, shards: Sequence[tuple[int, int]]
    ) -> None:
        """Simulate some lanes of some shards until all users wait for one another."""
        day = self._stops(first, last)[0]
        self._simulate(lanes, day, shards)
        self.outcome.runtime[f"{_stage(lanes)} days"] = day - first

    def _begin(self) -> None:
        """What there must be before anybody lives."""
        put_source(self.scenario, self.folder, self.workspace)
        self._go("users", [tasks.FitUsers(self.job)])

    def _stops(self, first: int, last: int) -> Sequence[int]:
        """The ends of days at which the lives of a stretch wait for one another: for refits, and a
        catalogue that lives, which rest on what all users did.
        """
        is_refit = self.scenario.serving.refit == "daily" and first >= 0
        if is_refit or self.scenario.items is not None:
            return range(first + 1, last + 1)
        return (last,)

    def _settle(self, lanes: Sequence[Lane], day: int) -> None:
        """Bring the catalogues that these lanes show to the beginning of `day`."""
        if self.scenario.items is None:
            return
        showing: dict[Lane, list[Lane]] = {}
        for lane in lanes:
            if lane.name not in self.outcome.failed:
                showing.setdefault(context(self.job).market(lane), []).append(lane)
        pieces = [
            tasks.Settle(self.job, market, tuple(theirs), day - 1)
            for market, theirs in showing.items()
        ]
        self._go("settle", pieces)

    def _arms(self) -> list[str]:
        """The arms that have not been given up, by name."""
        return [name for name in sorted(self.scenario.arms) if name not in self.outcome.failed]

    def _lanes(self) -> list[Lane]:
        """The lanes to simulate, without those that have been given up."""
        lanes: list[Lane] = []
        self.executor.run(
            [tasks.LivedLanes(self.job)], lambda _, result: lanes.extend(_checked(result))
        )
        return [lane for lane in lanes if lane.name not in self.outcome.failed]

    def _wanted_fits(self) -> list[tuple[tasks.Fit, str | None]]:
        """The fits on the history, and the arm that each is for; None: for all."""
        wanted: list[tuple[tasks.Fit, str | None]] = [
            (tasks.Fit(self.job, self.scenario.arms[arm], fit), arm)
            for arm in self._arms()
            for fit in self._fits_of(arm)
        ]
        wanted += [
            (tasks.Fit(self.job, channel, fit), None)
            for channel in self.scenario.serving.channels
            for fit in fit_numbers(self.scenario.fits.number)
        ]
        return wanted

    def _is_fitted(self) -> bool:
        """Whether whatever serves is there."""
        files = [f"{name}/state.npz" for name, *_ in self._named(self._wanted_fits())]
        if self.scenario.serving.ranking.kind == "pointwise":
            files.append("ranking.npz")
        return all(present(self.workspace.models / file) for file in files)

    def _fits(self) -> None:
        """Fit every distinct policy as often as it is asked for, and the ranking stage."""
        pieces, owners = self._distinct(self._wanted_fits())
        if self.scenario.serving.ranking.kind == "pointwise":
            self._go("fit", [*pieces, tasks.FitRanking(self.job)], [*owners, [None]])
        else:
            self._go("fit", pieces, owners)

    def _held_out(self) -> None:
        """What every fit finds among clicks that it has not seen, and what the floor finds; nothing
        where no policy draws in training.
        """
        arms: list[str] = []
        asked = held_out_clicks.LearnedArms(self.job)
        self.executor.run([asked], lambda _, result: arms.extend(_checked(result)))
        learned = [arm for arm in self._arms() if arm in arms]
        if not learned:
            return
        self._go("held-out", [held_out_clicks.RandomLives(self.job)])
        pieces = [
            held_out_clicks.Find(self.job, self.scenario.arms[arm], arm, fit)
            for arm in learned
            for fit in self._fits_of(arm)
        ]
        floor = [held_out_clicks.Find(self.job, spec) for spec in held_out_clicks.FLOOR]
        owners = [[piece.arm or None] for piece in (*pieces, *floor)]
        self._go("held-out", [*pieces, *floor], owners)
        left = [piece for piece in pieces if piece.arm not in self.outcome.failed]
        if left:
            held_out_clicks.collect(self.workspace, [*left, *floor], self.scenario.serving.recall)

    def _refits(self, day: int) -> None:
        """Fit the policies of the arms again before `day`: each on its own lane's log, or equal
        ones once on the log of all.
        """
        run = context(self.job)
        wanted: list[tuple[tasks.Fit, str | None]] = [
            (tasks.Fit(self.job, self.scenario.arms[arm], fit, run.learned(arm, fit, day)), arm)
            for arm in self._arms()
            for fit in self._fits_of(arm)
        ]
        self._go("refit", *self._distinct(wanted))

    def _fits_of(self, arm: str) -> Sequence[int | None]:
        return fit_numbers(self.scenario.fits_of(arm))

    def _distinct(
        self, wanted: Sequence[tuple[tasks.Fit, str | None]]
    ) -> tuple[list[tasks.Fit], list[list[str | None]]]:
        """The fits that differ, and the arms that each is for: equal names are equal fits."""
        same: dict[str, list[tuple[tasks.Fit, str | None]]] = {}
        for named, (piece, arm) in zip(self._named(wanted), wanted, strict=True):
            name, uses_device, most = named
            processes = min(self.scenario.engine.fit_processes, most)
            piece = replace(piece, uses_device=uses_device, processes=processes)
            same.setdefault(name, []).append((piece, arm))
        pieces = []
        for (first, _), *others in same.values():
            ways = [piece.spec for piece, _ in others if piece.spec.params != first.spec.params]
            pieces.append(replace(first, shared=tuple(ways)))
        return pieces, [[arm for _, arm in each] for each in same.values()]

    def _named(self, wanted: Sequence[tuple[tasks.Fit, str | None]]) -> list[tuple[str, bool, int]]:
        """The folder of each fit, whether it computes on a device, and how many processes can
        compute it together.
        """
        named: list[tuple[str, bool, int]] = []
        asked = tasks.FitNames(self.job, tuple(piece for piece, _ in wanted))
        self.executor.run([asked], lambda _, result: named.extend(_checked(result)))
        return named

    def _simulate(
        self,
        lanes: Sequence[Lane],
        days: int,
        shards: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Some lanes of some shards; None: of all."""
        pieces = [
            tasks.Simulate(self.job, lane, first, last, days)
            for lane in lanes
            for first, last in shards or context(self.job).shards
        ]
        self._go(_stage(lanes), pieces, [[piece.lane.name] for piece in pieces])

    def _write(self, arms: Sequence[str]) -> None:
        """The log of some arms."""
        self._go("write", self._by_part(tasks.Merge, arms))

    def _by_part(
        self, task: type[tasks.Merge | tasks.AddUp], arms: Sequence[str]
    ) -> list[tasks.Merge | tasks.AddUp]:
        """Tasks on the log parts of some arms; each shard that some of them begin in has these."""
        run = context(self.job)
        n_users = run.catalogue.n_users
        return [
            task(self.job, arm, first, last)
            for arm in arms
            for first, last in run.shards
            if run.workspace.parts(arm, n_users, (first, last))
        ]

    def _go(
        self, stage: str, pieces: Sequence[Any], owners: Sequence[Sequence[str | None]] = ()
    ) -> None:
        """Run pieces side by side. A ValueError of one that belongs to arms only gives up these
        arms if the run is to keep going.
        """

        def done(i: int, result: Any) -> None:
            if isinstance(result, BaseException):
                arms = [arm for arm in (owners[i] if owners else ()) if arm in self.scenario.arms]
                # A full disk is no arm's fault.
                theirs = isinstance(result, ValueError) and not isinstance(result, FileError)
                if not (self.keep_going and theirs and owners and len(arms) == len(owners[i])):
                    raise result
                self.outcome.failed |= {str(arm): str(result) for arm in arms}
                return
            seconds = f"{stage} CPU seconds"
            self.outcome.runtime[seconds] = self.outcome.runtime.get(seconds, 0.0) + result.pop(
                "seconds"
            )
            for name, value in result.items():
                self.outcome.runtime[f"{stage} {name}"] = (
                    self.outcome.runtime.get(f"{stage} {name}", 0.0) + value
                )

        self.executor.run(pieces, done)
        self.workspace.ledger.refresh()


def _stage(lanes: Sequence[Lane]) -> str:
    """What the simulation of some lanes is called in the runtime."""
    return "history" if lanes[0].name == HISTORY else "simulate"


def put_source(scenario: Scenario, folder: Path, where: Workspace) -> None:
    """Put catalogue, history, future and truth into the run's folder, if they are not there."""
    if present(where.models / "catalogue.npz"):
        return
    if scenario.data.source == "synthetic":
        source = synthetic_source(scenario.users, folder, scenario.seed)
        catalogue = source.catalogue
        if source.truth:
            save_mappable(where.truth, source.truth)
    else:
        from simulator import datasets

        source = datasets.read(scenario.data, folder)
        catalogue = source.catalogue
        too_much = memory.excess(scenario, catalogue.n_users, catalogue.n_items)
        if too_much is not None:
            raise ScenarioError(f"{scenario.where(too_much[0])}: {too_much[1]}")
        wrong = scenario.assignment.misfit(catalogue.n_users)
        if wrong is not None:
            raise ScenarioError(f"{scenario.where(('design',))}: {wrong}")
        wrong = scenario.fits.misfit(catalogue.n_users)
        if wrong is not None:
            raise ScenarioError(f"{scenario.where(('fits', 'users'))}: {wrong}")
        if source.history is not None:
            source.history.write(where.past)
        if source.future is not None:
            source.future.write(where.future)
        notes = {**source.notes, **_later_rows(source.future, scenario.days)}
        write_text(where.models / "notes.json", json.dumps(notes, indent=1, sort_keys=True) + "\n")
    if scenario.items is not None:
        first_day, author = -scenario.data.history_days, catalogue.items["author"]
        uploads = Uploads.draw(scenario.items, author, scenario.seed, first_day)
        catalogue = uploads.columns(catalogue)
    save_catalogue(where.models / "catalogue.npz", catalogue)


def _later_rows(future: EventLog | None, days: int) -> dict[str, int]:
    """A note on what the data has after the last day of the A/B; none where it has nothing
    there.
    """
    if future is None:
        return {}
    later = int((future.table["t"].to_numpy() >= days * DAY).sum())
    return {f"impressions of the data after the A/B (days: {days})": later} if later else {}


def _checked(result: Any) -> Any:
    """A task's result; an exception is raised."""
    if isinstance(result, BaseException):
        raise result
    return result
