"""What a path holds to replay: an event log, a data set with published propensities, a scenario's
data; and the replay of all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from policies.base import Progress, silent
from simulator import datasets
from simulator.datasets import kuairand, open_bandit
from simulator.log.ledger import present
from simulator.log.workspace import Workspace, load_catalogue
from simulator.offpolicy.jobs import (
    ReplayJob,
    ReplayOptions,
    ab_test,
    exposures,
    joined,
    replay_log,
)
from simulator.offpolicy.replay import (
    ESTIMATORS,
    ReplayError,
    ReplaySettings,
    evaluate,
)
from simulator.offpolicy.result import ReplayResult, gather
from simulator.offpolicy.rollout import Rollout, refused
from simulator.offpolicy.rounds import Uniform
from simulator.offpolicy.scores import orderings
from simulator.offpolicy.settings import BY_SERVING, RANKED, ROLLOUT, ROLLOUT_DR
from simulator.offpolicy.target_fits import Wanted
from simulator.report import find
from simulator.scenario import model
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Data
from simulator.users.base import Source


@dataclass(frozen=True)
class AskedPolicies:
    """The policies that the user named: those to evaluate, and the control, or None."""

    policies: tuple[str, ...]
    control: str | None

    def beside(self, arms: Sequence[Wanted] = ()) -> list[Wanted]:
        """All policies to fit: the arms of a scenario, then the named ones, and the control where
        it is not among them.
        """
        wanted = [*arms, *map(Wanted.parse, self.policies)]
        if self.control is not None and self.control not in [one.label for one in wanted]:
            wanted.append(Wanted.parse(self.control))
        return wanted


def replay(
    source: Path | str,
    policies: Sequence[str] = (),
    *,
    control: str | None = None,
    rewards: Sequence[str] = ("click",),
    estimators: Sequence[str] = (*ESTIMATORS, *BY_SERVING),
    options: ReplayOptions | None = None,
    resamples: int = 1000,
    progress: Progress = silent,
) -> list[ReplayResult]:
    """Estimate what policies would have got on what another policy logged.

    Args:
        source: an event log (file, folder of parts, run), the folder of a data set with published
            propensities, or a scenario on such data, whose arms are then policies to evaluate.
        policies: by name, each `NAME`, `NAME:key=value,key=value` or `NAME:{yaml}`. A data set
            with two policies that served at the same time needs none: each is evaluated on the
            other's log, against its own as the truth.
        control: the policy that lifts are over, by its name as above, evaluated like the others;
            None: the one that wrote the log.
        rewards: columns of feedback; one replay each.
        estimators: in this order; those that are not right for the log say why.
        options: how rounds are cut from the log; `reward` is taken from `rewards`.
        resamples: of the bootstrap by user.
        progress: told of fitting and evaluating.

    Returns:
        What each replay says; replay.json keeps the same (docs/offpolicy.md).

    Raises:
        ReplayError: a source, a policy or a reward that cannot be replayed.
        ReportError, LogError, DataError: no log there, or one that breaks a rule.
    """
    options = replace(options or ReplayOptions(), reward=rewards[0])
    asked = AskedPolicies(tuple(policies), control)
    settings = ReplaySettings(
        tuple(name for name in estimators if name not in BY_SERVING),
        resamples=resamples,
        seed=options.seed,
        contexts=options.contexts,
    )
    by_serving = [name for name in estimators if name in BY_SERVING]
    return [
        _replayed(job.of(reward), settings, by_serving, control, progress)
        for job in _jobs(Path(source), asked, options, progress)
        for reward in rewards
    ]


def _replayed(
    job: ReplayJob,
    settings: ReplaySettings,
    by_serving: Sequence[str],
    control: str | None,
    progress: Progress,
) -> ReplayResult:
    stored, course = job.stream.log.metadata, job.course
    settings = replace(settings, clusters=job.clusters)
    names = [target.name for target in job.targets]
    if control is not None and control not in names:
        raise ReplayError(
            f"no policy {control!r} to be the control of {job.title!r}, where lifts are of"
            f" {', '.join(names)}: leave --control out, and they are over the policy that wrote the"
            " log"
        )
    refusals: dict[str, str] = {}
    if isinstance(course, str):
        refusals = dict.fromkeys(by_serving, course)
    elif RANKED in by_serving and job.stream.reward == "click":
        settings = settings.beside(RANKED, course.ranked(job.stream.history))
    elif RANKED in by_serving:
        refusals[RANKED] = "the ranking stage expects clicks, and another reward is counted"
    evaluations = evaluate(
        job.stream, job.targets, stored.n_users, stored.n_items, settings, progress
    )
    if not isinstance(course, str) and {ROLLOUT, ROLLOUT_DR}.intersection(by_serving):
        rollout = Rollout.of(job.stream, course.past, course.catalogue, course.seed, progress)
        evaluations = [
            one.beside(
                estimate
                for estimate in rollout.estimates(one.policy, desks, settings, progress)
                if estimate.estimator in by_serving
            )
            for one, desks in zip(evaluations, course.desks, strict=True)
        ]
    evaluations = [
        one.beside(refused(one.policy, name, why) for name, why in refusals.items())
        for one in evaluations
    ]
    orders = []
    if job.policies and job.stream.reward == "click":
        orders = orderings(
            replace(job.stream, by="session", contexts=1), job.policies, stored.n_users
        )
    return gather(job, evaluations, orders, control)


def _jobs(
    source: Path, asked: AskedPolicies, options: ReplayOptions, progress: Progress
) -> Iterator[ReplayJob]:
    """What there is to replay, each with the policies fitted on what came before."""
    if source.suffix in (".yaml", ".yml"):
        yield from _of_scenario(source, asked, options, progress)
        return
    tests = open_bandit.campaigns(source) if source.is_dir() else []
    if not tests and (
        source.parent.name in open_bandit.ARMS
        or any((source / arm).is_dir() for arm in open_bandit.ARMS)
    ):
        tests = [source]
    if tests:
        for folder in tests:
            found = open_bandit.campaign(folder)
            yield from ab_test(f"{found.name}", found.log, found.catalogue, options, progress)
        return
    if source.is_dir() and any(source.glob("log_*.csv*")):
        yield from _of_data("kuairand", source, asked.beside(), options, progress)
        return
    log, _ = find(source)
    kept = Workspace(source).models / "catalogue.npz"
    catalogue = load_catalogue(kept) if present(kept) else None
    yield replay_log(source.name, log, asked.beside(), options, progress, catalogue)


def _of_data(
    name: str, path: Path, wanted: list[Wanted], options: ReplayOptions, progress: Progress
) -> Iterator[ReplayJob]:
    data = Data.model_validate(
        {"source": name, "path": str(path.resolve()), "test_days": options.test_days}
    )
    yield from _of_read(path.name, data, datasets.read(data, path), wanted, options, progress)


def _of_read(
    title: str,
    data: Data,
    found: Source,
    wanted: list[Wanted],
    options: ReplayOptions,
    progress: Progress,
    scenario: Scenario | None = None,
) -> Iterator[ReplayJob]:
    """The rounds of a data set; what it is known to have drawn uniformly a second time, with the
    propensities of that.
    """
    log = joined(found.history, found.future)
    job = replay_log(title, log, wanted, options, progress, found.catalogue, scenario)
    yield job
    if data.source == "kuairand" and "random" in log.metadata.channels:
        drawn = exposures(job, Uniform("random", min(kuairand.POOL, found.catalogue.n_items)))
        if drawn is not None:
            yield drawn


def _of_scenario(
    source: Path, asked: AskedPolicies, options: ReplayOptions, progress: Progress
) -> Iterator[ReplayJob]:
    """A scenario's data, its arms as the target policies (further ones after them), its
    serving's recall and history.
    """
    scenario, folder = Scenario.load(source), model.find(source).parent
    if scenario.data.source == "open_bandit":
        root = datasets.locate(scenario.data.path or "open_bandit", folder)
        for one in open_bandit.campaigns(root) or [root]:
            found = open_bandit.campaign(one)
            yield from ab_test(found.name, found.log, found.catalogue, options, progress)
        return
    arms = [Wanted(name, arm.policy, arm.params, folder) for name, arm in scenario.arms.items()]
    options = replace(
        options,
        recall=scenario.serving.recall,
        history=scenario.serving.history,
        seed=scenario.seed,
    )
    yield from _of_read(
        scenario.name,
        scenario.data,
        datasets.read(scenario.data, folder),
        asked.beside(arms),
        options,
        progress,
        scenario,
    )
