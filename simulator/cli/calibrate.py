"""`abtest calibrate`: a world beside its published marginals, as a table and a picture; or fitted
to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FILE, SOURCE
from simulator.cli.say import say
from simulator.page.blocks import Cell, Column, Table, columns, plain
from simulator.page.words import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.calibration.targets import TargetRow


@click.command()
@click.argument("scenario", type=SOURCE)
@click.option(
    "--seed",
    type=int,
    help="Overrides the scenario's seed: is it the world that fits, or one draw of it?",
)
@click.option(
    "--replications", type=COUNT, default=1, show_default=True, help="Worlds to draw and average."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    default=0.10,
    show_default=True,
    help="Relative.",
)
@click.option("--picture", type=FILE, help="Write the comparison as a self-contained SVG.")
@click.option("--fit", "fitted", type=FILE, help="Fit the free parameters, write them there.")
@click.option(
    "--rounds",
    type=COUNT,
    default=1,
    show_default=True,
    help="How often --fit goes through all its stages.",
)
def calibrate(
    scenario: Path,
    seed: int | None,
    replications: int,
    tolerance: float,
    picture: Path | None,
    fitted: Path | None,
    rounds: int,
) -> None:
    """Hold SCENARIO's synthetic world to its published marginals: under its logging policy, under
    random exposure, in its catalogue.

    Exit code 0: all within the tolerance. 1: at least one is out of it. 2: bad input.

    \b
    abtest calibrate scenarios/kuaishou_like.yaml --picture calibration.svg
    abtest calibrate scenarios/kuaishou_like.yaml --fit fitted.yaml
    """
    from simulator.calibration.targets import compare, measured
    from simulator.log.files import write_text
    from simulator.page.terminal import show
    from simulator.run.progress import board
    from simulator.scenario.model import Scenario, find

    with failures():
        folder = find(scenario).parent
        loaded = Scenario.load(scenario, {"seed": seed})
        if fitted is not None:
            from simulator.calibration.search import fit

            loaded = fit(loaded, _step, rounds, folder)
            write_text(fitted, loaded.to_yaml())
        with board() as progress:
            rows = compare(
                measured(loaded, replications=replications, progress=progress, folder=folder),
                tolerance,
            )
    show([_table(rows)])
    if picture is not None:
        from simulator.calibration.figure import draw

        write_text(picture, draw(rows, tolerance, loaded.name))
        say(picture)
    if fitted is not None:
        say(fitted)
    wrong = sum(not row.within for row in rows)
    say(f"{len(rows) - wrong} of {len(rows)} marginals within {tolerance:.0%} of their targets")
    if wrong:
        raise SystemExit(1)


def _table(rows: list[TargetRow]) -> Table:
    lines = [
        (
            plain(row.feed),
            plain(row.name),
            *(plain(number(value)) for value in (row.target, row.simulated, row.ratio)),
            Cell("" if row.within else "out", kind="open" if row.within else "bad"),
        )
        for row in rows
    ]
    heads = columns("measured on", "marginal", "target", "simulated", "ratio", text=2)
    return Table("Marginals", [*heads, Column("")], lines)


def _step(stage: str, values: Mapping[str, float], cost: float) -> None:
    moved = ", ".join(f"{key.rpartition('.')[2]} {value:.4g}" for key, value in values.items())
    say(f"fit {stage}: cost {cost:.2f}: {moved}", err=True)
