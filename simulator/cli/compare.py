"""`abtest compare`: two or more runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from simulator.cli.failure import failures
from simulator.cli.options import FOLDER, SOURCE, check_quiet
from simulator.cli.say import say


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--out", type=FOLDER, help="Also write compare.json, compare.md and compare.html there."
)
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the page.")
def compare(runs: tuple[Path, ...], out: Path | None, quiet: bool) -> None:
    """Compare runs (folders, logs or report.json files): the lift in each, whether signs agree, and
    which settings differ.

    Runs of one scenario with different seeds are repeats: their lifts are also pooled.

    \b
    abtest compare runs/kuaishou_like/seed1 runs/kuaishou_like/seed2 --out runs/compared
    """
    from simulator.report import comparison
    from simulator.report.console import show_comparison
    from simulator.run.progress import board

    check_quiet(quiet=quiet, out=out)
    with failures():
        with board(quiet=quiet) as progress:
            content = comparison.read(runs, progress)
        if not quiet:
            show_comparison(content)
        if out is not None:
            say(comparison.save(content, out))
