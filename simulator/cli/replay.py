"""`abtest replay`: what policies would have got on a log that another policy wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.base import Progress
    from simulator.offpolicy.jobs import Job, Options, Wanted
    from simulator.scenario.parts import Data
    from simulator.users.base import Source

COUNT = click.IntRange(min=1)


@click.command()
@click.argument("source", metavar="LOG|DATASET|SCENARIO", type=click.Path(path_type=Path))
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME[:params]",
    help="A target policy; may be repeated.",
)
@click.option(
    "--estimators",
    metavar="A,B,...",
    help="Only these estimators, in this order; all that are right for the log if left out.",
)
@click.option(
    "--reward",
    default="click",
    show_default=True,
    help="click, watch (s) or other feedback in the log; A,B for several.",
)
@click.option("--arm", help="Whose impressions; `history`, or the only arm, if left out.")
@click.option(
    "--test-days",
    default=2,
    type=COUNT,
    show_default=True,
    help="Of a pure history: the last days, which are replayed.",
)
@click.option("--fit-days", type=COUNT, help="Fit on this many days before the replayed ones only.")
@click.option(
    "--history",
    default=50,
    type=COUNT,
    show_default=True,
    help="Impressions of the past that a policy is given.",
)
@click.option(
    "--recall",
    default=100,
    type=click.IntRange(0),
    show_default=True,
    help="Candidates, for matching within the set; 0: none.",
)
@click.option(
    "--draws",
    default=1,
    type=COUNT,
    show_default=True,
    help="Slates drawn from a stochastic policy for the reward model.",
)
@click.option(
    "--contexts",
    default=1,
    type=COUNT,
    show_default=True,
    help="Levels of past click share, for the reward model.",
)
@click.option(
    "--resamples", default=1000, type=COUNT, show_default=True, help="Of the bootstrap by user."
)
@click.option("--seed", default=0, show_default=True, help="Of fits, folds and resamples.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the result; runs/replay/<source> if left out.",
)
@click.option(
    "--quiet", is_flag=True, help="No progress bars, no table; only the path of the page."
)
def replay(
    source: Path, policies: tuple[str, ...], out: Path | None, quiet: bool, **given: Any
) -> None:
    """Estimate the value of policies on LOG (a .parquet file, a folder of parts, a run), DATASET (a
    folder of published files) or SCENARIO.

    A data set with two policies that served at the same time (Open Bandit) is evaluated both ways,
    each against the other's own log as the truth, without --policy. Exit code 0: reported, whatever
    the verdicts. 2: bad input, one message. 130: interrupted.

    \b
    abtest replay runs/kuaishou_like/latest --policy explore:policy=itemknn,temperature=0.5
    abtest replay ../shared/data/open_bandit
    abtest replay scenarios/replay_kuairand.yaml --reward click,long_view,watch
    abtest replay log.parquet --policy my_policy.py:Mine:dim=32 --estimators rips,cascade_dr
    """
    from simulator.offpolicy.replay_page import document
    from simulator.offpolicy.result import save
    from simulator.page.terminal import show
    from simulator.run.progress import board

    with failures():
        from simulator.offpolicy.jobs import Wanted

        wanted = [Wanted.parse(text) for text in policies]
        with board(quiet=quiet) as progress:
            results = [
                _result(job, given, progress) for job in _jobs(source, wanted, given, progress)
            ]
        page = save(results, out or Path("runs") / "replay" / source.stem)
        if not quiet:
            show(document(results))
        say(page)


def _result(job: Job, given: dict[str, Any], progress: Progress) -> dict[str, Any]:
    from dataclasses import replace

    from simulator.offpolicy.replay import ESTIMATORS, Settings, evaluate
    from simulator.offpolicy.result import gather
    from simulator.offpolicy.scores import orderings

    names = (
        tuple(name.strip() for name in given["estimators"].split(","))
        if given["estimators"]
        else tuple(ESTIMATORS)
    )
    settings = Settings(
        names, resamples=given["resamples"], seed=given["seed"], contexts=given["contexts"]
    )
    stored = job.stream.log.metadata
    evaluations = evaluate(
        job.stream, job.targets, stored.n_users, stored.n_items, settings, progress
    )
    orders = []
    if job.policies and job.stream.reward == "click":
        orders = orderings(
            replace(job.stream, by="session", contexts=1), job.policies, stored.n_users
        )
    return gather(job, evaluations, orders)


def _jobs(
    source: Path, wanted: list[Wanted], given: dict[str, Any], progress: Progress
) -> Iterator[Job]:
    """What SOURCE holds to replay, one reward after the other."""
    from simulator.offpolicy.jobs import Options

    fields = ("arm", "test_days", "fit_days", "history", "recall", "draws", "contexts", "seed")
    rewards = [reward.strip() for reward in given["reward"].split(",")]
    options = Options(reward=rewards[0], **{name: given[name] for name in fields})
    for job in _of_source(source, wanted, options, progress):
        for reward in rewards:
            yield job.of(reward)


def _of_source(
    source: Path, wanted: list[Wanted], options: Options, progress: Progress
) -> Iterator[Job]:
    from simulator.datasets import open_bandit
    from simulator.offpolicy.jobs import ab_test, replay_log
    from simulator.report import find

    if source.suffix in (".yaml", ".yml"):
        yield from _of_scenario(source, wanted, options, progress)
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
        yield from _of_data("kuairand", source, wanted, options, progress)
        return
    log, _ = find(source)
    yield replay_log(source.name, log, wanted, options, progress)


def _of_data(
    name: str, path: Path, wanted: list[Wanted], options: Options, progress: Progress
) -> Iterator[Job]:
    from simulator.datasets import read
    from simulator.scenario.parts import Data

    data = Data.model_validate(
        {"source": name, "path": str(path.resolve()), "test_days": options.test_days}
    )
    yield from _of_read(path.name, data, read(data, path), wanted, options, progress)


def _of_read(
    title: str,
    data: Data,
    found: Source,
    wanted: list[Wanted],
    options: Options,
    progress: Progress,
) -> Iterator[Job]:
    """The rounds of a data set; what it is known to have drawn uniformly a second time, with the
    propensities of that.
    """
    from simulator.datasets import kuairand
    from simulator.offpolicy.jobs import exposures, joined, replay_log
    from simulator.offpolicy.rounds import Uniform

    log = joined(found.history, found.future)
    job = replay_log(title, log, wanted, options, progress, found.catalogue)
    yield job
    if data.source == "kuairand" and "random" in log.metadata.channels:
        drawn = exposures(job, Uniform("random", min(kuairand.POOL, found.catalogue.n_items)))
        if drawn is not None:
            yield drawn


def _of_scenario(
    source: Path, wanted: list[Wanted], options: Options, progress: Progress
) -> Iterator[Job]:
    """A scenario's data, its arms as the target policies (those of --policy after them), its
    serving's recall and history.
    """
    from dataclasses import replace

    from simulator.datasets import locate, open_bandit, read
    from simulator.offpolicy.jobs import Wanted, ab_test
    from simulator.scenario.model import Scenario, find

    scenario, folder = Scenario.load(source), find(source).parent
    if scenario.data.source == "open_bandit":
        root = locate(scenario.data.path or "open_bandit", folder)
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
        read(scenario.data, folder),
        [*arms, *wanted],
        options,
        progress,
    )
