"""`abtest pooled`: the lift of an A/B test both of whose policies can be asked."""

from __future__ import annotations

from pathlib import Path

import click

from simulator.cli.failure import failures
from simulator.cli.options import FOLDER, QUIET, REWARD, SAMPLES, SEED, SOURCE
from simulator.cli.say import say


@click.command()
@click.argument("source", metavar="RUN", type=SOURCE)
@REWARD
@click.option(
    "--repetitions",
    type=SAMPLES,
    default=2000,
    show_default=True,
    help="Re-randomised tests of the audit of a paired run; 0: none.",
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--out", type=FOLDER, help="Folder of the result; runs/pooled/<run> if left out.")
@QUIET
def pooled(
    source: Path,
    reward: tuple[str, ...],
    repetitions: int,
    seed: int,
    out: Path | None,
    quiet: bool,
) -> None:
    """Ask the saved policies of RUN what they would have shown in every request of both arms, and
    estimate the lift from the requests in which they differ: beside the split test, and beside the
    twins of a paired run, on whom it is audited.

    Exit code 0: reported, whatever the verdict. 2: bad input, one message. 130: interrupted.

    \b
    abtest pooled runs/small
    abtest pooled runs/small --reward click,watch --repetitions 500
    """
    from simulator.offpolicy.pooled_run import document, save
    from simulator.offpolicy.pooled_run import pooled as estimate
    from simulator.page.terminal import show
    from simulator.report import find
    from simulator.run.progress import board

    with failures():
        log, home = find(source)
        with board(quiet=quiet) as progress:
            found = estimate(
                log,
                home,
                rewards=reward,
                repetitions=repetitions,
                seed=seed,
                progress=progress,
            )
        title = home.resolve().name
        file = save(title, found, out or Path("runs") / "pooled" / title)
        if not quiet:
            show(document(title, found))
        say(file)
