"""`abtest fidelity`: do offline figures predict the simulated A/B?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from simulator.cli.options import COUNT, DAYS, FILE, FOLDER, QUIET, RESAMPLES, SOURCE
from simulator.cli.studies import study


@click.command()
@click.argument("scenario", type=SOURCE)
@click.option(
    "--out", type=FOLDER, help="Folder of run and report; runs/fidelity/<name> if left out."
)
@click.option("--seed", type=int, help="Overrides the scenario's seed.")
@click.option(
    "--reward", default="click", show_default=True, help="What is counted, online and offline."
)
@click.option(
    "--policies",
    default=16,
    type=COUNT,
    show_default=True,
    help="Yardsticks are added up to this many arms; at least 8.",
)
@click.option(
    "--test-days",
    default=2,
    type=COUNT,
    show_default=True,
    help="Last days of the history: the offline side.",
)
@click.option(
    "--resamples", default=1000, type=RESAMPLES, show_default=True, help="Of users, on both sides."
)
@click.option(
    "--launches",
    type=FILE,
    help="Hold the simulator's lifts to those of real tests in this table, and forecast the next.",
)
@DAYS
@click.option(
    "--resume",
    is_flag=True,
    help="Take over what is finished in --out: pieces of the run, fits of the offline side.",
)
@QUIET
@click.pass_context
def fidelity(context: click.Context, /, scenario: Path, launches: Path | None, **how: Any) -> None:
    """Run SCENARIO's policies (filled up with cheap yardsticks) in the simulated A/B, compute every
    offline figure of the same policies from the history log of the same world, and say how well
    each foretells the true lift.

    With --launches TABLE the arms of SCENARIO are policies of real tests, whose lifts stand in
    TABLE (columns test, arm, control, metric, lift, se): says whether the simulator's lifts
    foretell the real ones, and forecasts the real lift of the arms that were not launched.

    Exit code 0: reported. 2: bad input, one message. 130: interrupted; `--resume` continues.

    \b
    abtest fidelity scenarios/kuaishou_like.yaml
    abtest fidelity my.yaml --launches tests.csv
    abtest fidelity my.yaml --reward watch --out runs/fidelity-watch
    """
    if launches is None:
        from simulator.offpolicy.fidelity import fidelity as compare
        from simulator.offpolicy.fidelity_page import document, save

        study("parts", scenario, compare, save, document, **how)
        return

    from simulator.offpolicy import launch_page
    from simulator.offpolicy.past_launches import launches as hold_to

    _refuse_what_is_of_figures(context)
    for name in OF_FIGURES:
        del how[name]
    hold = partial(hold_to, file=launches)
    study("parts", scenario, hold, launch_page.save, launch_page.document, **how)


OF_FIGURES = ("reward", "policies", "test_days", "resamples")
"""Options that say how offline figures are computed."""


def _refuse_what_is_of_figures(context: click.Context) -> None:
    """They do not go with --launches."""
    for name in OF_FIGURES:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = name.replace("_", "-")
            rule = f"--{option} is of offline figures"
            raise click.UsageError(f"{rule}; leave it out with --launches")
