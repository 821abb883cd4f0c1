"""`abtest compile`: what a scenario computes with, compiled ahead."""

from __future__ import annotations

from pathlib import Path

import click

from simulator.cli.failure import failures
from simulator.cli.options import SOURCE
from simulator.cli.say import say


@click.command()
@click.argument("scenario", type=SOURCE)
def compile_(scenario: Path) -> None:
    """Compile ahead what SCENARIO, of a synthetic world, computes with: at installation, or into
    the image of a container.

    abtest compiles its inner loops for the processor that it finds, when they are first called, and
    keeps them beside its source (or in NUMBA_CACHE_DIR) for every run and worker after. Without
    this command the first run does it, and takes that much longer.

    \b
    abtest compile scenarios/kuaishou_like.yaml
    """
    from simulator.run.compiling import compile_ahead, miniature
    from simulator.run.progress import board
    from simulator.scenario.model import find

    with failures():
        small = miniature(scenario)
        with board(quiet=False) as progress:
            compile_ahead(small, find(scenario).parent, progress)
        say(f"abtest: compiled for {small.name}")
