"""`abtest replay`: what policies would have got on a log that another policy wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FOLDER, NAMES, QUIET, RESAMPLES, REWARD, SEED, SOURCE
from simulator.cli.say import say


@click.command()
@click.argument("source", metavar="LOG|DATASET|SCENARIO", type=SOURCE)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME[:params]",
    help="A target policy; may be repeated.",
)
@click.option(
    "--control",
    metavar="NAME[:params]",
    help="The policy that lifts are over, evaluated like the others; the one that wrote the log if"
    " left out.",
)
@click.option(
    "--estimators",
    type=NAMES,
    metavar="A,B,...",
    help="Only these estimators, in this order; all that are right for the log if left out.",
)
@REWARD
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
    "--served",
    is_flag=True,
    help=(
        "Ask policies through the serving of the scenario (or of the run that wrote the log):"
        " channels, quotas, ranking. They are then rolled out, too."
    ),
)
@click.option(
    "--contexts",
    default=1,
    type=COUNT,
    show_default=True,
    help="Levels of past click share, for the reward model.",
)
@click.option(
    "--clusters",
    metavar="COLUMN|POLICY:N",
    help="By what mips, lips and offcem tell items apart: a column of the catalogue (tag, author),"
    " or N clusters of the item vectors of a policy (bpr:50).",
)
@click.option(
    "--resamples", default=1000, type=RESAMPLES, show_default=True, help="Of the bootstrap by user."
)
@click.option(
    "--seed", type=SEED, default=0, show_default=True, help="Of fits, folds and resamples."
)
@click.option("--out", type=FOLDER, help="Folder of the result; runs/replay/<source> if left out.")
@QUIET
@click.pass_context
def replay(
    context: click.Context,
    /,
    source: Path,
    policies: tuple[str, ...],
    control: str | None,
    out: Path | None,
    quiet: bool,
    **asked: Any,
) -> None:
    """Estimate the value of policies, and their lift over a control, on LOG (a .parquet file, a
    folder of parts, a run), DATASET (a folder of published files) or SCENARIO.

    A data set with two policies that served at the same time (Open Bandit) is evaluated both ways,
    each against the other's own log as the truth, without --policy. Exit code 0: reported, whatever
    the verdicts. 2: bad input, one message. 130: interrupted.

    \b
    abtest replay runs/kuaishou_like/latest --policy explore:policy=itemknn,temperature=0.5
    abtest replay log.parquet --policy itemknn --policy ease --control popularity
    abtest replay ../shared/data/open_bandit
    abtest replay runs/kuaishou_like/latest --policy bpr --policy itemknn --served
    abtest replay scenarios/replay_kuairand.yaml --reward click,long_view,watch
    abtest replay log.parquet --policy my_policy.py:Mine:dim=32 --estimators rips,cascade_dr
    """
    if asked["served"]:
        _refuse(context, ("history", "recall"), "the scenario's serving says it with --served")
    from simulator.offpolicy.replay_page import document, save
    from simulator.page.terminal import show
    from simulator.run.progress import board

    with failures():
        from simulator.offpolicy import sources
        from simulator.offpolicy.jobs import ReplayOptions
        from simulator.scenario.model import Scenario

        is_scenario = source.suffix in (".yaml", ".yml")
        if is_scenario and Scenario.load(source).data.source != "open_bandit":
            _refuse(context, ("history", "recall", "seed"), "the scenario says it itself")
        cut = dict(asked)
        resamples, rewards, estimators = map(cut.pop, ("resamples", "reward", "estimators"))
        chosen = {"rewards": rewards, **({"estimators": estimators} if estimators else {})}
        with board(quiet=quiet) as progress:
            results = sources.replay(
                source,
                policies,
                control=control,
                options=ReplayOptions(**cut),
                resamples=resamples,
                progress=progress,
                **chosen,
            )
        page = save(results, out or Path("runs") / "replay" / source.stem)
        if not quiet:
            show(document(results))
        say(page)


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    """Options that would change nothing, because what is replayed has keys for them."""
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name}: {why}; leave it out")
