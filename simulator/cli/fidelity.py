"""`abtest fidelity`: do offline figures predict the simulated A/B?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FILE, FOLDER, RESAMPLES, SOURCE, goes_on
from simulator.cli.say import say

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario


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
@click.option("--days", type=COUNT, help="Overrides the days of the A/B.")
@click.option(
    "--resume",
    is_flag=True,
    help="Take over what is finished in --out: pieces of the run, fits of the offline side.",
)
@click.option(
    "--quiet", is_flag=True, help="No progress bars, no table; only the path of the page."
)
@click.pass_context
def fidelity(
    context: click.Context,
    /,
    scenario: Path,
    out: Path | None,
    launches: Path | None,
    resume: bool,
    quiet: bool,
    **how: Any,
) -> None:
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
    from simulator.log.workspace import file_name
    from simulator.offpolicy import fidelity as offline
    from simulator.offpolicy.fidelity_page import document, save
    from simulator.page.terminal import show
    from simulator.run.progress import board
    from simulator.scenario.model import Scenario, find

    with failures():
        loaded = Scenario.load(scenario, {key: how.pop(key) for key in ("seed", "days")})
        root = out or Path("runs") / "fidelity" / file_name(loaded.name)
        if launches is not None:
            _refuse_what_is_of_figures(context)
            with failures(goes_on(scenario, root, "parts")):
                _hold_to_launches(loaded, launches, root, find(scenario).parent, resume, quiet)
            return
        with failures(goes_on(scenario, root, "parts")):
            with board(quiet=quiet) as progress:
                content = offline.fidelity(
                    loaded,
                    root,
                    folder=find(scenario).parent,
                    resume=resume,
                    progress=progress,
                    **how,
                )
            page = save(content, root)
            if not quiet:
                show(document(content))
            say(page)


def _refuse_what_is_of_figures(context: click.Context) -> None:
    """Options that say how offline figures are computed do not go with --launches."""
    for name in ("reward", "policies", "test_days", "resamples"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = name.replace("_", "-")
            rule = f"--{option} is of offline figures"
            raise click.UsageError(f"{rule}; leave it out with --launches")


def _hold_to_launches(
    scenario: Scenario, file: Path, root: Path, folder: Path, resume: bool, quiet: bool
) -> None:
    """Run, write and print the report on launches."""
    from simulator.offpolicy.launch_page import document, save
    from simulator.offpolicy.past_launches import launches
    from simulator.page.terminal import show
    from simulator.run.progress import board

    with board(quiet=quiet) as progress:
        content = launches(scenario, file, root, folder=folder, resume=resume, progress=progress)
    page = save(content, root)
    if not quiet:
        show(document(content))
    say(page)
