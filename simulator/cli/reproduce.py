"""`abtest reproduce`: the paper's tables and figures, measured beside published."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FOLDER, SOURCE
from simulator.cli.say import say

FURTHER = ("claims", "ahead", "second")
"""What else than the paper's tables and figures: a function of `simulator.reproduce.artefacts`."""

ONE_LENGTH = ("table1", "ahead", "second")
"""What has no slates, or slates of one length only."""


@click.command()
@click.argument("what", type=click.Choice(["table1", "table2", "table3", "fig4", "fig5", *FURTHER]))
@click.option(
    "--data",
    required=True,
    type=SOURCE,
    help="Folder of NAME.txt (S3-Rec) or NAME.inter (RecBole) files.",
)
@click.option(
    "--datasets",
    multiple=True,
    help="Data sets, comma-separated or repeated; those of the paper that are there if left out.",
)
@click.option(
    "--models",
    multiple=True,
    help=(
        "Rows, systems or families, comma-separated or repeated; `all` rows, or if left out those"
        " that do not take long."
    ),
)
@click.option(
    "--seeds",
    type=COUNT,
    default=3,
    show_default=True,
    help="Fits of each model, with seeds 0, 1, ...",
)
@click.option(
    "--protocol",
    type=click.Choice(["paper", "softmax"]),
    default="paper",
    show_default=True,
    help="How models are trained.",
)
@click.option(
    "--recall",
    type=click.IntRange(11, 127),
    help="Also HR at this length of recall, the set that a ranker is given; by the same fits, which"
    " serve every user once more for it.",
)
@click.option(
    "--workers",
    type=COUNT,
    help="Experiments side by side, one thread each; all cores if left out.",
)
@click.option(
    "--out", type=FOLDER, default=Path("runs/reproduce"), show_default=True, help="Folder."
)
@click.option("--quiet", is_flag=True, help="No progress bars.")
def reproduce(
    what: str,
    data: Path,
    datasets: tuple[str, ...],
    models: tuple[str, ...],
    seeds: int,
    protocol: str,
    recall: int | None,
    workers: int | None,
    out: Path,
    quiet: bool,
) -> None:
    """Run the paper's offline experiments as scenarios with held-out users and print WHAT:
    measured, published, difference, interval, test.

    Leave-one-out, all items ranked. What is finished in --out is not computed again, so an
    interrupted command is simply repeated; fig5 is Figures 5 and 6; claims compares the systems
    that the paper compares, over all users and by group; ahead asks what one slate finds of the
    next three clicks, and how novel and diverse it is; second asks what a second step in
    expectation gains, and what it owes to the user's own likely next clicks. Results are written
    as a page, Markdown, JSON and Parquet, figures as SVG.

    \b
    abtest reproduce table1 --data ../shared/data/s3rec
    abtest reproduce table2 --data ../shared/data/s3rec --datasets Beauty --seeds 1
    abtest reproduce table2 --data ../shared/data/s3rec --datasets Beauty --models all
    abtest reproduce table3 --data ../shared/data/s3rec --datasets Beauty,Yelp --protocol softmax
    abtest reproduce fig5 --data ../shared/data/s3rec --datasets Beauty
    abtest reproduce table2 --data ../shared/data/s3rec --models SASRec,NARM --recall 60
    abtest reproduce claims --data ../shared/data/s3rec --datasets Beauty --seeds 3
    abtest reproduce second --data ../shared/data/s3rec --datasets Beauty --seeds 3
    """
    from simulator.page.terminal import show
    from simulator.reproduce import artefacts
    from simulator.reproduce.experiment import ExperimentPlan, ReproduceError, find
    from simulator.reproduce.systems import PROTOCOLS
    from simulator.run.executors import cores
    from simulator.run.progress import board

    with failures("interrupted; finished experiments are kept: repeat the command to go on"):
        if recall is not None and what in ONE_LENGTH:
            rule = (
                f"--recall belongs to tables, figures and claims; {what} has one length of slates"
            )
            raise ReproduceError(f"{rule}: leave it out")
        found = find(data, _split(datasets))
        if what == "table1":
            show(artefacts.table1(found))
            return
        plan = ExperimentPlan(tuple(found), (), PROTOCOLS[protocol], seeds, out, recall=recall or 0)
        with board(quiet=quiet) as progress:
            if what in FURTHER:
                make = getattr(artefacts, what)
            else:
                make = partial(artefacts.make, artefacts.ARTEFACTS[what])
            shown, files = make(_split(models), plan, progress, workers or cores())
        show(shown)
        for file in files:
            say(file)


def _split(given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.strip() for part in given for name in part.split(",") if name.strip())
