"""`abtest report`: rebuild the report of a run or a log from the log alone, or make one of any
per-user table.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from simulator.stats.intervals import Method
    from simulator.stats.rows import Rows
    from simulator.stats.rule import Alternative
    from simulator.stats.tests import Correction

from simulator.cli.failure import failures
from simulator.cli.options import (
    ALTERNATIVE,
    CSV,
    FOLDER,
    GATE,
    LEVEL,
    METRIC_FILE,
    SOURCE,
    TRACK,
    WORKERS,
    written,
)
from simulator.cli.say import hand_on, leave_by_decision, say, say_report, tracker_of

TABLE = (
    "control",
    "user",
    "arm",
    "metric",
    "metrics",
    "covariate",
    "segment",
    "ratio",
    "cluster",
    "ml",
    "predictor",
    "day",
    "experiment",
)
"""Options that only a table needs."""


@click.command()
@click.argument("source", metavar="RUN_OR_LOG_OR_TABLE", type=SOURCE)
@click.option("--out", type=FOLDER, help="Folder of the report; by default that of the run or log.")
@click.option("--strict", is_flag=True, help="Report no lift where a check is red; exit code 2.")
@click.option("--quiet", is_flag=True, help="Print only what is red, and the path of the page.")
@click.option("--control", help="Table: the control arm; by default the arm called `control`.")
@click.option("--user", default="user", show_default=True, help="Table: the column of users.")
@click.option("--arm", default="arm", show_default=True, help="Table: the column of arms.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME[=COLUMN[/DENOMINATOR]]",
    help="Table: a metric; by default every number.",
)
@METRIC_FILE
@click.option(
    "--covariate",
    "covariates",
    multiple=True,
    metavar="COLUMN",
    help="Table: a pre-period column; by default every *_before.",
)
@click.option(
    "--segment",
    "segments",
    multiple=True,
    metavar="COLUMN",
    help="Table: a segment; by default every column of text.",
)
@click.option(
    "--ratio",
    "ratios",
    multiple=True,
    metavar="ARM=9",
    help="Table: users meant for an arm; by default as many for each.",
)
@click.option(
    "--success",
    "successes",
    multiple=True,
    metavar="METRIC",
    help="What the change is made for: asks for a decision, ship, hold or drop.",
)
@click.option(
    "--deterioration",
    "deteriorations",
    multiple=True,
    metavar="METRIC",
    help="A metric that must not be shown to get worse.",
)
@click.option(
    "--quality",
    "qualities",
    multiple=True,
    metavar="METRIC",
    help="A metric that does not differ in a sound test.",
)
@GATE
@click.option(
    "--guardrail",
    "guardrails",
    multiple=True,
    metavar="METRIC=1%",
    help="A metric that must not get worse by so much (20abs: in its own units).",
)
@click.option(
    "--equivalence",
    "equivalences",
    multiple=True,
    metavar="METRIC=1%",
    help="Is a metric the same, to within so much?",
)
@click.option(
    "--prior",
    type=SOURCE,
    help="What earlier tests say of lifts (`abtest prior`): shrinks the chances of several arms.",
)
@click.option(
    "--better",
    "directions",
    multiple=True,
    metavar="METRIC=lower",
    help=(
        "Is lower or higher better? Known by name of many (latency, revenue); a guardrail needs it."
    ),
)
@click.option(
    "--interval",
    type=click.Choice(["fieller", "log", "delta", "newcombe"]),
    default="fieller",
    show_default=True,
    help="Of the lift; newcombe: of proportions (columns of 0 and 1) by scores, with their test.",
)
@click.option(
    "--correction",
    type=click.Choice(["holm", "bonferroni", "hochberg", "bh", "dunnett", "none"]),
    default="holm",
    show_default=True,
    help=(
        "Of p and of the intervals, over the metrics that have no role; dunnett: by the joint law"
        " of all comparisons, of every role."
    ),
)
@LEVEL
@ALTERNATIVE
@click.option("--pairs", is_flag=True, help="Compare every arm with every other one, too.")
@click.option(
    "--winsorise",
    default="0.1%",
    show_default=True,
    metavar="SHARE",
    help="Beside the verdict: how much of the top is cut.",
)
@click.option(
    "--resamples",
    default=0,
    show_default=True,
    help="Beside the verdict: permutations and BCa bootstrap samples, e.g. 4000.",
)
@click.option(
    "--cluster",
    metavar="COLUMN",
    help="Table: rows that were assigned together, e.g. households; or users, of a table by day.",
)
@click.option(
    "--ml",
    is_flag=True,
    help=(
        "Table: adjust lifts for predictions of each metric from every covariate and segment; needs"
        " scikit-learn (abtest[ml])."
    ),
)
@click.option(
    "--predictor",
    "predictors",
    multiple=True,
    metavar="COLUMN",
    help="Table: the same from this column, known before the test; it may have missing values.",
)
@click.option(
    "--day",
    metavar="COLUMN",
    help=(
        "Table of a row for each user and day, or of moments: looks at the end of each (of moments"
        " by default `day`)."
    ),
)
@click.option(
    "--experiment",
    metavar="NAME",
    help="Table of published experiments: which one; all of them, one line each, if left out.",
)
@WORKERS
@CSV
@TRACK
def report(
    source: Path,
    out: Path | None,
    strict: bool,
    quiet: bool,
    control: str | None,
    user: str,
    arm: str,
    metrics: tuple[str, ...],
    metric_file: Path | None,
    covariates: tuple[str, ...],
    segments: tuple[str, ...],
    ratios: tuple[str, ...],
    successes: tuple[str, ...],
    deteriorations: tuple[str, ...],
    qualities: tuple[str, ...],
    gate: bool,
    guardrails: tuple[str, ...],
    equivalences: tuple[str, ...],
    prior: Path | None,
    directions: tuple[str, ...],
    interval: Method,
    correction: Correction,
    level: float,
    alternative: Alternative,
    pairs: bool,
    winsorise: str,
    resamples: int,
    cluster: str | None,
    ml: bool,
    predictors: tuple[str, ...],
    day: str | None,
    experiment: str | None,
    workers: int,
    csv: bool,
    track: str | None,
) -> None:
    """Write report.json, report.md and report.html.

    Of a run's folder, an event log (a .parquet file or a folder of parts), or a plain table (csv,
    tsv, Parquet): one row per user with its arm, one row per user and arm, or moments as
    warehouses export them: one row per arm (and day, and segment) with n, and for each metric
    X_sum and X_sum_squares, or X_mean and X_variance.

    \b
    abtest report runs/kuaishou_like/latest
    abtest report users.csv --control A --metric revenue --metric ctr=clicks/impressions
    abtest report users.csv --control A --guardrail latency=2% --better latency=lower
    abtest report users.csv --control A --success revenue --guardrail latency=2% --gate
    abtest report runs/kuaishou_like/latest --csv --track mlflow
    abtest report users.csv --control A --metrics metrics.yaml --level 99% --alternative better
    abtest report days.csv --control A --day date --ratio A=9 --ratio B=1
    abtest report users.csv --control A --interval log --correction bh --resamples 4000
    abtest report users.csv --control A --predictor age --predictor city --predictor revenue_before
    abtest report moments.csv --control A --day date --metric ctr=clicks/impressions
    """
    from simulator import report as reports
    from simulator.log.workspace import held_if_run
    from simulator.report import earlier
    from simulator.report import user_table as tables
    from simulator.report.metric_file import read_metrics
    from simulator.run.over_parts import parts_map
    from simulator.run.progress import board
    from simulator.stats.choices import Choices
    from simulator.stats.margins import Margins

    with failures(), board(quiet=quiet) as progress:
        tracker = tracker_of(track)
        choices = Choices(
            interval,
            correction,
            tables.share(winsorise),
            resamples,
            level=level,
            alternative=alternative,
            pairs=pairs,
        )
        margins = Margins(
            tables.by_name("--guardrail", guardrails, tables.bound),
            tables.by_name("--equivalence", equivalences, tables.bound),
        )
        better = tables.by_name("--better", directions, tables.direction)
        priors = None if prior is None else earlier.read_priors(prior)
        roles = tables.by_role(
            {"success": successes, "deterioration": deteriorations, "quality": qualities}
        )
        if tables.is_log(source) or not source.exists():
            options = written()
            strangers = [f"--{name}" for name in TABLE if name in options]
            if source.exists() and strangers:
                raise reports.ReportError(
                    f"{', '.join(strangers)}: for tables; {source} is a log, which says so itself"
                )
            log, home = reports.find(source, inspect=False)
            folder = out or home
            with held_if_run(folder), parts_map("processes", workers, home) as parts:
                content = reports.write(
                    log,
                    folder,
                    runtime=reports.runtime(home),
                    run=home,
                    strict=strict,
                    margins=margins,
                    choices=choices,
                    better=better,
                    roles=roles,
                    priors=priors,
                    progress=progress,
                    inspect=True,
                    parts=parts,
                )
        else:
            if "workers" in written():
                raise reports.ReportError(
                    f"--workers: for runs; {source} is a table, which one process reads: leave it"
                    " out"
                )
            folder = out or source.parent / "report"
            with tables.of(source):
                rows = tables.read(source)
                if experiment is None and tables.are_series(rows.columns):
                    _all_series(rows, source, folder, quiet=quiet)
                    return
            columns, entries = read_metrics(metric_file) if metric_file is not None else ({}, {})
            columns |= tables.by_name("--metric", metrics, tables.parse)
            if day is not None and cluster is not None:
                raise reports.ReportError(
                    "--day and --cluster: by day the users are what was assigned; leave one out"
                )
            more = {} if cluster is None else {"cluster": cluster}
            with tables.of(source):
                content = tables.write(
                    rows,
                    folder,
                    control=control,
                    name=source.name,
                    margins=margins,
                    choices=choices,
                    shares=tables.by_name("--ratio", ratios, tables.weight) or None,
                    strict=strict,
                    command=" ".join(
                        [
                            "abtest report",
                            shlex.quote(str(source)),
                            *written("out", "quiet", "csv", "track").values(),
                        ]
                    ),
                    progress=progress,
                    experiment=experiment,
                    metrics=columns or None,
                    entries=entries,
                    covariates=covariates or None,
                    groups=segments or None,
                    **({"predictors": predictors} if ml or predictors else {}),
                    user=user,
                    arm=arm,
                    day=day,
                    **more,
                    better=better,
                    roles=roles,
                    priors=priors,
                )
    with failures():
        say_report(content, folder / "report.html", quiet=quiet)
        hand_on(content, folder, csv=csv, track=tracker)
        if gate:
            leave_by_decision(content)


def _all_series(rows: Rows, source: Path, folder: Path, *, quiet: bool) -> None:
    """Put every series of a table of experiments through the sequential rules: series.csv, and a
    summary.

    Raises:
        ReportError: an option that only one experiment has.
        TableError: a table that cannot be read.
    """
    from simulator.log.files import write_text
    from simulator.page.terminal import show
    from simulator.report import ReportError
    from simulator.report.of_moments import stopped_blocks
    from simulator.stats.series import read_series, stops

    strangers = [f"--{name}" for name in written("out", "quiet")]
    if strangers:
        raise ReportError(
            f"{source}: {', '.join(strangers)}: for one experiment; this table has many: name one"
            " (--experiment), or leave the option out"
        )
    found = stops(read_series(rows))
    if not quiet:
        show(stopped_blocks(found))
    say(write_text(folder / "series.csv", found.to_csv(index=False)))
