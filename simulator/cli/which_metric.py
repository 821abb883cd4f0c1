"""`abtest sensitivity`: which metric decides soonest."""

from __future__ import annotations

from pathlib import Path

import click

from simulator.cli.failure import failures
from simulator.cli.options import FOLDER, SOURCE, check_quiet
from simulator.cli.say import say


@click.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--reference",
    metavar="METRIC",
    help=(
        "The metric whose sign over all other runs is taken for the truth; by default the"
        " scenario's first success, else watch time or clicks."
    ),
)
@click.option(
    "--better", "better", multiple=True, metavar="ARM", help="An arm that is known to be better."
)
@click.option(
    "--worse", "worse", multiple=True, metavar="ARM", help="An arm that is known to be worse."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Only these metrics; by default all that every run has.",
)
@click.option(
    "--out",
    type=FOLDER,
    help="Also write sensitivity.json, sensitivity.md and sensitivity.html there.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the page.")
def sensitivity(
    runs: tuple[Path, ...],
    reference: str | None,
    better: tuple[str, ...],
    worse: tuple[str, ...],
    metrics: tuple[str, ...],
    out: Path | None,
    quiet: bool,
) -> None:
    """Say which metric decides soonest with the right sign, which is hopeless at this size, and
    which weighted sum of all would do better.

    Of several runs of the same arms (other seeds, other worlds), or of one run with several fits,
    each of which is a trial. Whether an arm is better in truth is taken from all runs but the one
    that is judged, and so are the weights of the sum.

    \b
    abtest sensitivity runs/seed1 runs/seed2 runs/seed3 --reference watch_time --out runs/metrics
    abtest sensitivity runs/kuaishou_like/latest --worse recgpt
    """
    from simulator.page import terminal
    from simulator.report import metric_sensitivity
    from simulator.report.errors import ReportError
    from simulator.run.progress import board

    check_quiet(quiet=quiet, out=out)
    with failures():
        both = sorted(set(better) & set(worse))
        if both:
            raise ReportError(f"--better and --worse: {both[0]!r} cannot be both")
        declared = {**dict.fromkeys(better, 1), **dict.fromkeys(worse, -1)}
        with board(quiet=quiet) as progress:
            judged = metric_sensitivity.sensitivity(
                runs, reference=reference, declared=declared, metrics=metrics, progress=progress
            )
        if not quiet:
            terminal.show(metric_sensitivity.lines(judged))
        if out is not None:
            say(metric_sensitivity.save(judged, out))
