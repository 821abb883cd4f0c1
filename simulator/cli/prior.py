"""`abtest prior`: what earlier tests say of a lift before the next one has begun."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simulator.cli.failure import failures
from simulator.cli.options import FILE, SOURCE
from simulator.cli.say import say
from simulator.page.blocks import Table, columns, plain
from simulator.page.terminal import show
from simulator.page.words import percent, title, whole

if TYPE_CHECKING:
    from simulator.stats.priors import FittedPrior


@click.command()
@click.argument("sources", metavar="LIFTS...", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--out",
    type=FILE,
    default=Path("prior.yaml"),
    show_default=True,
    help="The file of priors.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the file.")
def prior(sources: tuple[Path, ...], out: Path, quiet: bool) -> None:
    """Fit the law of true lifts to those of earlier tests, metric by metric: a Student law, since
    most changes do little and a few do much. The noise of each test is taken off.

    LIFTS are tables with the columns metric, lift (a fraction) and se (its standard error), one row
    for each test and treatment arm (csv, tsv, Parquet), or reports (report.json, or their folders).
    Reports and scenarios take the file as `--prior FILE` and `decision: {prior: FILE}`.

    \b
    abtest prior lifts.csv --out prior.yaml
    abtest prior runs/*/report.json
    """
    from simulator.log.files import write_text
    from simulator.report import earlier

    with failures():
        priors = earlier.fitted(earlier.earlier_lifts(sources))
        write_text(out, earlier.as_yaml(priors, sources))
        if not quiet:
            show([_table(priors)])
        say(out)


def _table(priors: Mapping[str, FittedPrior]) -> Table:
    heads = columns("metric", "lifts", "mean", "scale", "95% interval", "df", text=1)
    rows = [
        (
            plain(title(metric)),
            plain(whole(one.prior.tests)),
            plain(percent(one.prior.mean)),
            plain(percent(one.prior.scale, sign=False)),
            plain(f"{percent(one.scale_low, sign=False)} to {percent(one.scale_high, sign=False)}"),
            plain("normal" if math.isinf(one.prior.df) else f"{one.prior.df:g}"),
        )
        for metric, one in priors.items()
    ]
    return Table("Priors of lifts", heads, rows)
