"""`abtest bias`: what would each design of a test report where arms learn from one another?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FOLDER, SOURCE, goes_on
from simulator.cli.say import say


@click.command()
@click.argument("scenario", type=SOURCE)
@click.option("--arm", help="Whose lift; may be left out where there is one besides the control.")
@click.option("--control", help="Over whom; the scenario's control if left out.")
@click.option("--metric", default="click", show_default=True, help="In which metric.")
@click.option(
    "--fits",
    type=COUNT,
    help=(
        "Repetitions, each with fits and an assignment of its own; 2 at least. The scenario's"
        " `fits`, or 4, if left out."
    ),
)
@click.option(
    "--refit",
    type=click.Choice(["daily", "never"]),
    default="daily",
    show_default=True,
    help="`never`: nothing is learned, so that nothing is shared: a check.",
)
@click.option("--clusters", type=COUNT, help="Of users; one for each 30 users if left out.")
@click.option("--out", type=FOLDER, help="Folder of the result; runs/bias/<name> if left out.")
@click.option("--seed", type=int, help="Overrides the scenario's seed.")
@click.option("--days", type=COUNT, help="Overrides the days of the A/B.")
@click.option(
    "--engine.executor",
    "executor",
    type=click.Choice(["serial", "processes", "ray"]),
    help="Where work is done (speed only).",
)
@click.option("--resume", is_flag=True, help="Take over the finished runs in --out.")
@click.option(
    "--keep-runs",
    is_flag=True,
    help="Keep the folder of each run, with its log and models; else its sums alone.",
)
@click.option(
    "--quiet", is_flag=True, help="No progress bars, no table; only the path of the page."
)
def bias(
    scenario: Path,
    out: Path | None,
    control: str | None,
    seed: int | None,
    days: int | None,
    executor: str | None,
    resume: bool,
    quiet: bool,
    **how: Any,
) -> None:
    """What an A/B test of SCENARIO would have reported, by its design, where arms learn each night
    from what both have shown: beside the global effect, which is everybody with the treatment
    against everybody with the control.

    Designs: shared training, diverted data, weighted training, user clusters, switchback.
    Exit code 0: told, whatever the bias. 2: bad input, one message. 130: interrupted; `--resume`
    continues.

    \b
    abtest bias scenarios/daily_refit.yaml --arm recgpt1
    abtest bias my.yaml --metric watch_time --fits 8
    abtest bias my.yaml --refit never
    """
    from simulator.log.workspace import file_name
    from simulator.page.terminal import show
    from simulator.run.progress import board
    from simulator.scenario.model import Scenario, find
    from simulator.surface.bias import design_bias
    from simulator.surface.bias_page import document, save

    with failures():
        overrides = {"seed": seed, "days": days, "engine.executor": executor}
        overrides["design.control"] = control
        loaded = Scenario.load(scenario, overrides, {"design.control": "--control"})
        root = out or Path("runs") / "bias" / file_name(loaded.name)
        with failures(goes_on(scenario, root, "runs")):
            with board(quiet=quiet) as progress:
                result = design_bias(
                    loaded,
                    root,
                    folder=find(scenario).parent,
                    resume=resume,
                    progress=progress,
                    **how,
                )
            shown = save(result, root)
            if not quiet:
                show(document(result))
            say(shown)
