"""A scenario from its file to its report: source -> history -> fits -> (arm x shard) -> merged log -> report.

The order of the pieces and what of them is finished already; each piece itself is a task of `simulator.tasks`.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.base import Progress
from simulator import executors
from simulator.design import HISTORY
from simulator.eventlog import EventLog
from simulator.progress import silent
from simulator.scenario import PolicySpec, Scenario
from simulator.workspace import RunError, Workspace, save_catalogue

if TYPE_CHECKING:
    from simulator.executors import Executor
    from simulator.tasks import Job


@dataclass
class Outcome:
    """What a run leaves.

    Attributes:
        root: the run's folder.
        report: the content of report.json, or None where fewer than two arms are left.
        failed: arm -> why it was given up (only with `keep_going`).
        runtime: seconds (CPU) by stage, impressions, peak memory (MiB).
    """

    root: Path
    report: dict[str, Any] | None = None
    failed: dict[str, str] = field(default_factory=dict)
    runtime: dict[str, float] = field(default_factory=dict)


def run(
    scenario: Scenario,
    out: Path,
    *,
    folder: Path = Path(),
    resume: bool = False,
    keep_going: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Run a scenario to its finished report.

    Args:
        scenario: checked.
        out: folder of the run; new, or with `resume` that of an unfinished run of the same scenario.
        folder: where the scenario lies; plug-in files and data are looked up there.
        resume: take over finished pieces; the result is the same bytes as without an interruption.
        keep_going: an arm whose policy breaks its contract is given up instead of the run, and the others are reported.
        progress: told of fitting, simulating, writing and reporting.

    Raises:
        RunError: the folder holds another run; or nothing is left to report.
        DataError, PolicyError, ServingError: bad data, a policy that cannot be made, one that breaks its contract.
    """
    start = time.monotonic()
    outcome = simulate(scenario, out, folder=folder, resume=resume, keep_going=keep_going, progress=progress)
    log = EventLog.open(Workspace(out).log)
    outcome.runtime["wall seconds"] = time.monotonic() - start
    outcome.runtime["peak MiB"] = peak_memory() / 2**20
    if len(log.metadata.arms) < 2 + (HISTORY in log.metadata.arms):
        return outcome
    from simulator import report

    outcome.report = report.write(log, out, runtime=outcome.runtime, progress=progress)
    return outcome


def simulate(
    scenario: Scenario,
    out: Path,
    *,
    folder: Path = Path(),
    resume: bool = False,
    keep_going: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Run a scenario to its event log, `out`/log; arguments and errors as `run`."""
    workspace = Workspace(out)
    workspace.claim(scenario.identity(), resume=resume)
    workspace.write_text("scenario.yaml", scenario.to_yaml())
    outcome = Outcome(out)
    if not workspace.finished:
        with executors.executor(scenario.engine.executor, progress, max(scenario.engine.shards, 1) * len(scenario.arms)) as executor:
            _Run(scenario, folder, workspace, executor, outcome, keep_going).all()
        workspace.finish()
    return outcome


def peak_memory() -> int:
    """Peak resident memory in bytes of this process or of its largest worker, whichever is greater."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class _Run:
    """The stages of one run, in their order; each stage's pieces run side by side."""

    def __init__(
        self, scenario: Scenario, folder: Path, workspace: Workspace, executor: Executor, outcome: Outcome, keep_going: bool
    ) -> None:
        from simulator.tasks import Job

        self.scenario, self.folder, self.workspace, self.executor = scenario, folder, workspace, executor
        self.outcome, self.keep_going = outcome, keep_going
        self.job: Job = Job(str(workspace.root.resolve()), str(folder.resolve()), json.dumps(scenario.resolved(), sort_keys=True))

    def all(self) -> None:
        self._source()
        if self.scenario.data.source == "synthetic":
            self._simulate("history", [HISTORY])
            self._write([HISTORY])
        self._fits()
        self._simulate("simulate", self._arms())
        if not self._arms():
            raise RunError("every arm has failed:\n" + "\n".join(self.outcome.failed.values()))
        self._write(self._arms())

    def _arms(self) -> list[str]:
        """The arms that have not been given up, by name."""
        return [name for name in sorted(self.scenario.arms) if name not in self.outcome.failed]

    def _source(self) -> None:
        """Put catalogue, history and future into the folder, and fit the users."""
        from simulator import tasks

        where, scenario = self.workspace, self.scenario
        context = tasks.context(self.job)
        if not (where.models / "catalogue.npz").is_file():
            if scenario.data.source == "synthetic":
                population: Any = context.population
                catalogue = population.catalogue(scenario.seed)
            else:
                from simulator import datasets

                source = datasets.read(scenario.data, self.folder)
                catalogue = source.catalogue
                if source.history is not None:
                    source.history.write(where.past)
                if source.future is not None:
                    source.future.write(where.future)
                where.write_text("models/notes.json", json.dumps(dict(source.notes), indent=1, sort_keys=True) + "\n")
            save_catalogue(where.models / "catalogue.npz", catalogue)
        self._go("users", [tasks.FitUsers(self.job)], [[None]])

    def _shards(self) -> tuple[tuple[int, int], ...]:
        from simulator import tasks

        n_users = tasks.context(self.job).catalogue.n_users
        shards = min(self.scenario.engine.shards, n_users)
        bounds = [n_users * i // shards for i in range(shards + 1)]
        return tuple(pairwise(bounds))

    def _fits(self) -> None:
        from simulator import tasks

        specs: list[tuple[PolicySpec, str | None]] = [(self.scenario.arms[name], name) for name in self._arms()]
        specs += [(channel, None) for channel in self.scenario.serving.channels]
        names: list[str] = []
        self.executor.run([tasks.FitNames(self.job, tuple(spec for spec, _ in specs))], lambda _, found: names.extend(_checked(found)))
        distinct: dict[str, tuple[PolicySpec, list[str | None]]] = {}
        for name, (spec, arm) in zip(names, specs, strict=True):
            distinct.setdefault(name, (spec, []))[1].append(arm)
        pieces: list[Any] = [tasks.Fit(self.job, spec) for spec, _ in distinct.values()]
        owners = [arms for _, arms in distinct.values()]
        if self.scenario.serving.ranking.kind == "pointwise":
            pieces.append(tasks.FitRanking(self.job))
            owners.append([None])
        self._go("fit", pieces, owners)

    def _simulate(self, stage: str, arms: Sequence[str]) -> None:
        from simulator import tasks

        pieces = [tasks.Simulate(self.job, arm, first, last) for arm in arms for first, last in self._shards()]
        self._go(stage, pieces, [[piece.arm] for piece in pieces])

    def _write(self, arms: Sequence[str]) -> None:
        """Write the log parts; what an arm that was given up has left does not belong to the log."""
        from simulator import tasks

        lost = dict(self.outcome.failed)
        pieces: list[Any] = [tasks.Merge(self.job, arm, self._shards(), tuple(lost.items())) for arm in arms]
        if lost:
            pieces.append(tasks.Relabel(self.job, tuple(lost.items())))
        self._go("write", pieces, [[None]] * len(pieces))

    def _go(self, stage: str, pieces: Sequence[Any], owners: Sequence[Sequence[str | None]]) -> None:
        """Run pieces side by side. A ValueError of one that belongs to arms only gives up these arms if the run is to keep going."""

        def done(i: int, result: Any) -> None:
            if isinstance(result, BaseException):
                arms = [arm for arm in owners[i] if arm is not None and arm != HISTORY]
                if not (self.keep_going and isinstance(result, ValueError) and len(arms) == len(owners[i])):
                    raise result
                self.outcome.failed |= dict.fromkeys(arms, str(result))
                return
            seconds = f"{stage} CPU seconds"
            self.outcome.runtime[seconds] = self.outcome.runtime.get(seconds, 0.0) + result.pop("seconds")
            for name, value in result.items():
                self.outcome.runtime[f"{stage} {name}"] = self.outcome.runtime.get(f"{stage} {name}", 0.0) + value

        self.executor.run(pieces, done)


def _checked(result: Any) -> Any:
    """A task's result; an exception is raised."""
    if isinstance(result, BaseException):
        raise result
    return result
