"""`abtest fidelity`: do offline figures predict the simulated A/B?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FOLDER, SOURCE, goes_on
from simulator.cli.say import say


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
    "--resamples", default=1000, type=COUNT, show_default=True, help="Of users, on both sides."
)
@click.option("--days", type=COUNT, help="Overrides the days of the A/B.")
@click.option("--resume", is_flag=True, help="Take over the finished pieces of the run in --out.")
@click.option(
    "--quiet", is_flag=True, help="No progress bars, no table; only the path of the page."
)
def fidelity(scenario: Path, out: Path | None, resume: bool, quiet: bool, **how: Any) -> None:
    """Run SCENARIO's policies (filled up with cheap yardsticks) in the simulated A/B, compute every
    offline figure of the same policies from the history log of the same world, and say how well
    each foretells the true lift.

    Exit code 0: reported. 2: bad input, one message. 130: interrupted; `--resume` continues.

    \b
    abtest fidelity scenarios/kuaishou_like.yaml
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
