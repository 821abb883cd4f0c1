"""`abtest bias`: what would each design of a test report where arms learn from one another?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simulator.cli.options import COUNT, FOLDER, SOURCE
from simulator.cli.studies import of_one_lift, study


@click.command()
@click.argument("scenario", type=SOURCE)
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
@click.option("--resume", is_flag=True, help="Take over the finished runs in --out.")
@click.option(
    "--keep-runs",
    is_flag=True,
    help="Keep the folder of each run, with its log and models; else its sums alone.",
)
@of_one_lift
def bias(scenario: Path, **how: Any) -> None:
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
    from simulator.surface.bias import design_bias
    from simulator.surface.bias_page import document, save

    study("runs", scenario, design_bias, save, document, **how)
