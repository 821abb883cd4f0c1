"""`abtest calibrate`: a world beside its targets, as a table and a picture; or fitted to them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FILE, SOURCE
from simulator.cli.say import say
from simulator.page.blocks import Cell, Column, Table, columns, plain
from simulator.page.terminal import show
from simulator.page.words import number as written
from simulator.page.words import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from simulator.calibration.targets import TargetRow
    from simulator.scenario.model import Scenario


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
    "--targets",
    type=click.Choice(["kuaishou"]),
    help="Overrides the scenario's calibration.targets: the published figures of Kuaishou's logs.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    help="A fraction; the scenario's calibration.tolerance (0.1) if left out.",
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
@click.option(
    "--ensemble",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw worlds that all meet the targets, write them there, for `worlds:` of a scenario.",
)
@click.option(
    "--number",
    type=click.IntRange(3, 255),
    default=100,
    show_default=True,
    help="Worlds of --ensemble.",
)
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY",
    help="Parameters that --ensemble draws, or a section of them (users.drift); all if left out.",
)
@click.option(
    "--one-seed",
    is_flag=True,
    help="Worlds of --ensemble differ in their parameters alone, not in catalogue and users.",
)
def calibrate(
    scenario: Path,
    seed: int | None,
    replications: int,
    targets: str | None,
    tolerance: float | None,
    picture: Path | None,
    fitted: Path | None,
    rounds: int,
    ensemble: Path | None,
    number: int,
    vary: tuple[str, ...],
    one_seed: bool,
) -> None:
    """Hold SCENARIO's synthetic world to the targets that it names (`calibration`): figures that
    were published, or that `abtest world fit` has measured on a log.

    Exit code 0: all within the tolerance. 1: at least one is out of it. 2: bad input.

    --ensemble draws worlds in place of comparing one: parameters that the marginals say nothing of
    are drawn from all of their range, the others so that every world meets all targets. Worlds of
    learned and logged users are fitted to the log with its users drawn anew.

    \b
    abtest calibrate scenarios/kuaishou_like.yaml --picture calibration.svg
    abtest calibrate scenarios/kuaishou_like.yaml --fit fitted.yaml
    abtest calibrate scenarios/drawn_worlds.yaml --ensemble worlds.yaml --number 30
    """
    from simulator.calibration.targets import compare, feeds_of, held_to, measured
    from simulator.log.files import write_text
    from simulator.run.progress import board
    from simulator.scenario.model import Scenario, ScenarioError, find

    if vary and ensemble is None:
        raise click.UsageError("--vary goes with --ensemble")
    if ensemble is not None and (fitted is not None or picture is not None):
        raise click.UsageError("--ensemble goes without --fit and --picture")
    with failures():
        folder = find(scenario).parent
        overrides = {"seed": seed, "calibration": targets}
        loaded = Scenario.load(scenario, overrides, {"calibration": "--targets"})
        figures = held_to(loaded.calibration)
        tolerance = tolerance or loaded.calibration.tolerance
        if not figures and loaded.data.source == "synthetic":
            rule = "names no targets to hold its world to"
            advice = "write `calibration: kuaishou`, give --targets, or measure them on your log"
            where = loaded.where(("calibration",))
            raise ScenarioError(f"{where}: {rule}: {advice} (`abtest world fit`)")
        if ensemble is not None:
            _draw(loaded, ensemble, number, vary, one_seed, tolerance, folder)
            return
        if fitted is not None:
            from simulator.calibration.search import fit

            loaded = fit(loaded, _step, rounds, folder)
            write_text(fitted, loaded.to_yaml())
        with board() as progress:
            found = measured(loaded, feeds_of(figures), replications, progress, folder)
            rows = compare(found, tolerance, figures)
    show([target_table(rows)])
    for what, why in loaded.calibration.not_measured.items():
        say(f"not measured: {what}: {why}")
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


def _draw(
    scenario: Scenario,
    file: Path,
    number: int,
    vary: tuple[str, ...],
    one_seed: bool,
    tolerance: float,
    folder: Path,
) -> None:
    """Draw an ensemble, write it, and print what is left of the range of each parameter."""
    from simulator.calibration.draws import bootstraps, draw
    from simulator.log.files import write_text
    from simulator.run.progress import board

    if scenario.data.source == "synthetic":
        with board() as progress:
            drawn = draw(
                scenario,
                number,
                vary,
                tolerance=tolerance,
                one_seed=one_seed,
                progress=progress,
                folder=folder,
            )
        about = (
            f"{number} worlds that meet all their targets within {tolerance:.0%}, of"
            f" {drawn.tried} simulated, drawn around the scenario {scenario.name!r} (seed"
            f" {scenario.seed})\nby `abtest calibrate SCENARIO --ensemble FILE --number {number}"
            f"{' --one-seed' * one_seed}{''.join(f' --vary {key}' for key in vary)}`."
        )
    else:
        drawn = bootstraps(scenario, number)
        about = f"{number} worlds of users fitted to the log with its users drawn anew."
    write_text(file, drawn.to_yaml(about))
    lines = [
        (plain(key), plain(percent(left, 0, False)))
        for key, left in sorted(drawn.left.items(), key=lambda pair: -pair[1])
    ]
    if lines:
        heads = columns("parameter", "left of its range")
        show([Table("What the marginals leave of each parameter", heads, lines)])
    say(about.splitlines()[0])
    say(file)


def target_table(rows: list[TargetRow]) -> Table:
    """A row for each marginal beside its target."""
    lines = [
        (
            plain(row.feed),
            plain(row.name),
            *(plain(written(value)) for value in (row.target, row.simulated, row.ratio)),
            Cell("" if row.within else "out", kind="open" if row.within else "bad"),
        )
        for row in rows
    ]
    heads = columns("measured on", "marginal", "target", "simulated", "ratio", text=2)
    return Table("Marginals", [*heads, Column("")], lines)


def _step(stage: str, values: Mapping[str, float], cost: float) -> None:
    moved = ", ".join(f"{key.rpartition('.')[2]} {value:.4g}" for key, value in values.items())
    say(f"fit {stage}: cost {cost:.2f}: {moved}", err=True)
