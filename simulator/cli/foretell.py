"""`abtest foretell`: which early metric foretells the late lift?"""

from __future__ import annotations

from pathlib import Path

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FOLDER, QUIET, SOURCE, goes_on
from simulator.cli.say import say


@click.command()
@click.argument("sources", metavar="SCENARIO|RUN...", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--target",
    metavar="METRIC",
    help="Whose late lift; the scenario's first success, else watch time, if left out.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="An early metric; those of the scenario and some more if left out.",
)
@click.option(
    "--day",
    "horizons",
    type=COUNT,
    multiple=True,
    metavar="DAY",
    help="Look after so many days; 1, 3, 7, 14 and 28, as far as they are early, if left out.",
)
@click.option(
    "--window", type=COUNT, default=7, show_default=True, help="Last days of the late lift."
)
@click.option("--out", type=FOLDER, help="Folder of the result; runs/foretell/<name> if left out.")
@click.option("--resume", is_flag=True, help="Go on with the run of a scenario in --out.")
@QUIET
def foretell(
    sources: tuple[Path, ...],
    target: str | None,
    metrics: tuple[str, ...],
    horizons: tuple[int, ...],
    window: int,
    out: Path | None,
    resume: bool,
    quiet: bool,
) -> None:
    """Which early metric foretells the lift of the last days, over all pairs of policies of
    finished RUNs; a SCENARIO is run first.

    Exit code 0: told. 2: bad input (too few pairs, runs too short), one message. 130: interrupted;
    `--resume` continues the run.

    \b
    abtest foretell scenarios/living_catalogue.yaml
    abtest foretell runs/one runs/two --target click --day 1 --day 7
    """
    from simulator.log.workspace import file_name
    from simulator.page.terminal import show
    from simulator.run.pipeline import simulate
    from simulator.run.progress import board
    from simulator.scenario.model import Scenario, find
    from simulator.surface.foretelling import foretell as told_by
    from simulator.surface.foretelling_page import document, save

    with failures():
        scenarios = [source for source in sources if not source.is_dir()]
        if scenarios and len(sources) > 1:
            raise click.UsageError(
                f"give one scenario, or folders of finished runs; got {len(sources)} sources, of"
                f" which {scenarios[0]} is no folder"
            )
        if resume and not scenarios:
            raise click.UsageError("--resume goes on with the run of a scenario; these are runs")
        name = sources[0].name
        loaded = None
        if scenarios:
            loaded = Scenario.load(scenarios[0])
            name = loaded.name
        root = out or Path("runs") / "foretell" / file_name(name)
        paths = sources
        with board(quiet=quiet) as progress:
            if loaded is not None:
                paths = (root / "run",)
                with failures(goes_on(scenarios[0], root, "days")):
                    folder = find(scenarios[0]).parent
                    simulate(loaded, paths[0], folder=folder, resume=resume, progress=progress)
            one = told_by(
                paths,
                target=target,
                metrics=metrics,
                horizons=horizons,
                window=window,
                progress=progress,
            )
        page = save(one, root)
    if not quiet:
        show(document(one).sections[0].blocks[-1:])
    say(page)
