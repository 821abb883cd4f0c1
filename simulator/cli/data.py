"""`abtest data`: what a table of interactions holds; raw data sets -> sequence files; how good
users fitted to a log are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FILE, FOLDER, SOURCE
from simulator.cli.say import say
from simulator.page.blocks import Heading, Table, Words, columns, plain
from simulator.page.terminal import show

if TYPE_CHECKING:
    from datetime import datetime

    from simulator.datasets.prepare import Statistics
    from simulator.users.learned.evaluation import ResponseEvaluation


@click.group()
def data() -> None:
    """Describe and prepare data sets; hold learned users against days that they have not seen.

    \b
    abtest data describe events.csv
    abtest data prepare amazon reviews_Beauty.json.gz --name Beauty --out prepared
    """


@data.command()
@click.argument("kind", type=click.Choice(["amazon", "yelp", "movielens"]))
@click.argument("dump", type=SOURCE)
@click.option("--out", type=FOLDER, required=True, help="Folder of the result.")
@click.option("--name", required=True, help="Of the data set: NAME.txt, NAME_item2attributes.json.")
@click.option(
    "--core",
    type=COUNT,
    default=5,
    show_default=True,
    help="Users and items with fewer reviews are left out.",
)
@click.option(
    "--since", type=click.DateTime(), help="First moment taken; Yelp: 2019-01-01 if left out."
)
@click.option("--until", type=click.DateTime(), help="Last moment taken.")
@click.option(
    "--meta",
    type=SOURCE,
    help="Item descriptions: categories, brand and genres become attributes.",
)
def prepare(
    kind: str,
    dump: Path,
    out: Path,
    name: str,
    core: int,
    since: datetime | None,
    until: datetime | None,
    meta: Path | None,
) -> None:
    """Turn DUMP into sequences: chronological, k-core, one user a line. DUMP holds raw reviews of
    KIND as JSON lines, or the ratings.dat of MovieLens 1M or 10M (plain or .gz).

    The result is what `data.source: s3rec` reads. Ratings are not looked at; a review repeated word
    for word counts once.

    \b
    abtest data prepare amazon reviews_Beauty.json.gz --name Beauty --meta meta_Beauty.json.gz
    abtest data prepare yelp yelp_academic_dataset_review.json --name Yelp --out data
    abtest data prepare movielens ml-1m/ratings.dat --name ml-1m --meta ml-1m/movies.dat --out data
    """
    from datetime import UTC

    from simulator.datasets import prepare as raw

    form = raw.FORMATS[kind]
    first = form.since if since is None else since.replace(tzinfo=UTC)
    with failures():
        words = None if meta is None else raw.attributes(meta, form)
        prepared = raw.prepare(
            dump, form, core, first, None if until is None else until.replace(tzinfo=UTC)
        )
        written = raw.write(prepared, out, name, words)
    say(
        f"{prepared.read:,} reviews read, {prepared.repeated:,} repeated word for word,"
        f" {prepared.outside:,} outside the days asked for, {prepared.rare:,} outside the"
        f" {core}-core"
    )
    _print_statistics([(name, prepared.statistics)])
    for path in written:
        say(path)


@data.command()
@click.argument("files", nargs=-1, required=True, type=SOURCE)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the data: section there, too.",
)
def describe(files: tuple[Path, ...], out: Path | None) -> None:
    """What tables of interactions hold: a guess for each column and why, what is odd about the
    rows, and the data: section of a scenario that reads them.

    Of sequence files (.txt, one user a line): users, items, actions a user and an item, sparsity
    (the paper's Table 1). Exit code 2 where user and item cannot be guessed.

    \b
    abtest data describe ml-latest-small/ratings.csv
    abtest data describe events.parquet --out data.yaml
    abtest data describe ../shared/data/s3rec/*.txt
    """
    from simulator.log.files import write_text

    if out is not None and len(files) > 1:
        raise click.UsageError("--out holds one section: describe one table at a time")
    with failures():
        if all(file.name.removesuffix(".gz").endswith(".txt") for file in files):
            _print_sequences(files)
            return
        for file in files:
            section = _print_description(file)
            if out is not None:
                write_text(out, section)
                say(out)


def _print_sequences(files: tuple[Path, ...]) -> None:
    import numpy as np

    from simulator.datasets.prepare import Statistics
    from simulator.datasets.s3rec import read_lines

    rows = []
    for file in files:
        users, _, items = read_lines(file)
        rows.append((file.name, Statistics(len(users), len(np.unique(items)), len(items))))
    _print_statistics(rows)


def _print_description(file: Path) -> str:
    """Print what a table holds; its section as YAML."""
    import yaml

    from simulator.datasets import DataError
    from simulator.datasets.describe import describe as describe_table

    table = describe_table(file)
    if table.format is not None:
        say(f"{file} is of the format {table.format}.")
    heads = columns("column", "type", "first values", "taken for", "why", text=5)
    rows = []
    for guess in table.columns:
        examples = ", ".join(f"{one!s:.20}" for one in guess.examples)
        cells = (guess.name, guess.type, examples, guess.role or "-", guess.why)
        rows.append([plain(cell) for cell in cells])
    show([Table("columns", heads, rows)])
    if not table.section:
        absent = {"user", "item"} - {guess.role for guess in table.columns}
        raise DataError(
            f"{file}: no column is called like {' or '.join(sorted(absent))}: say which it is,"
            f" data: {{source: table, path: {file}, columns: {{user: ..., item: ...}}}}"
        )
    for words, count in table.counts.items():
        say(f"{words}: {count}")
    for words, times in table.odd.items():
        say(f"odd: {words}: {times:,}")
    section = yaml.safe_dump({"data": table.section}, sort_keys=False, allow_unicode=True)
    say(f"\n# {table.why}\n{section}", nl=False)
    return section


def _print_statistics(found: list[tuple[str, Statistics]]) -> None:
    table = _table(
        ("data set", "users", "items", "actions/user", "actions/item", "actions", "sparsity"),
        (
            (
                name,
                f"{s.users:,}",
                f"{s.items:,}",
                f"{s.per_user:.1f}",
                f"{s.per_item:.1f}",
                f"{s.actions:,}",
                f"{s.sparsity:.2%}",
            )
            for name, s in found
        ),
    )
    show([table])


@data.command()
@click.argument("scenario", type=SOURCE)
@click.option("--seed", type=int, help="Overrides the scenario's seed.")
@click.option("--out", type=FILE, help="Write everything as JSON there.")
@click.option(
    "--days",
    type=COUNT,
    help="Overrides data.test_days: fit on all days but so many, evaluate on these.",
)
def evaluate(scenario: Path, seed: int | None, out: Path | None, days: int | None) -> None:
    """Fit the learned users of SCENARIO on its history and hold them against its last days.

    Prints AUC and log loss of every kind of answer, the calibration of the click, coverage of
    watch-time quantiles, and totals by day and by how much of a user's past was known, predicted
    beside actual.

    \b
    abtest data evaluate scenarios/kuairand.yaml
    abtest data evaluate scenarios/kuairand.yaml --days 3 --out evaluation.json
    """
    import tempfile

    from simulator import datasets
    from simulator.log.files import json_text, write_text
    from simulator.report.stored import encode
    from simulator.run.progress import board
    from simulator.scenario.model import Scenario, ScenarioError, find
    from simulator.users.learned import MODEL, Learned
    from simulator.users.learned.evaluation import evaluate as hold
    from simulator.users.learned.response import Response
    from simulator.users.logged import Logged

    with failures():
        overrides = {"seed": seed, "data.test_days": days}
        loaded = Scenario.load(scenario, overrides, {"data.test_days": "--days"})
        users: Any = loaded.users
        learned = users.response if isinstance(users, Logged) else users
        if not isinstance(learned, Learned):
            raise ScenarioError(
                f"{scenario}: users.kind: only learned and logged users are fitted to a log; got"
                f" {users.kind!r}"
            )
        source = datasets.read(loaded.data, find(scenario).parent)
        with tempfile.TemporaryDirectory() as folder, board(quiet=False) as progress:
            learned.fit(source, loaded.seed, Path(folder), progress)
            found = hold(Response.load(Path(folder) / MODEL), source, loaded.seed)
        _print_evaluation(found)
        if out is not None:
            say(write_text(out, json_text(encode(found))))


def _print_evaluation(found: ResponseEvaluation) -> None:
    heads = [
        (
            head.name,
            f"{head.occurred:,}",
            _share(head.auc, ".4f"),
            f"{head.log_loss:.5f}",
            f"{head.base_log_loss:.5f}",
        )
        for head in found.heads
    ]
    reliability = [(f"{p:.3f}", f"{y:.3f}", f"{n:,}") for p, y, n in found.reliability]
    coverage = [(f"{level:.0%}", f"{share:.1%}") for level, share in found.coverage.items()]
    totals = [
        (
            total.group,
            total.what,
            f"{total.impressions:,}",
            f"{total.predicted:,.0f}",
            f"{total.actual:,.0f}",
            _share(total.error, "+.1%"),
            _share(total.noise, ".1%"),
        )
        for total in found.totals
    ]
    names = (
        "group",
        "total of",
        "impressions",
        "predicted",
        "actual",
        "error",
        "noise (1 s.e.)",
    )
    calibration = (
        f"Expected calibration error of the click: {found.calibration_error:.4f} (a perfect model"
        f" on as many impressions: {found.calibration_noise:.4f})."
    )
    show(
        [
            Words(f"{found.impressions:,} impressions of days that the model has not seen."),
            Heading("Each kind of answer"),
            _table(("answer", "occurred", "AUC", "log loss", "base rate's"), heads),
            Heading("Calibration of the click"),
            Words(calibration),
            _table(("predicted", "clicked", "impressions"), reliability),
            Heading("Coverage of watch-time quantiles"),
            _table(("watch quantile", "below it"), coverage),
            Heading("Totals"),
            _table(names, totals),
        ]
    )


@data.command()
@click.argument("run", type=SOURCE)
def support(run: Path) -> None:
    """How far what the arms of RUN showed is from what the model of its users was fitted on.

    A policy that exploits the model where it has no data shows up here: little overlap, thin items,
    few items shown often.

    \b
    abtest data support runs/kuairand/2022-05-04
    """
    from simulator.report import find
    from simulator.users.learned.support import THIN
    from simulator.users.learned.support import support as measure

    with failures():
        found = measure(find(run)[0])
    names = (
        "arm",
        "impressions",
        "logged",
        "overlap",
        "effective",
        f"items < {THIN}",
        "items 0",
        "users 0",
        "items shown",
        "top 1%",
    )
    rows = []
    for s in found:
        shares = (f"{x:.1%}" for x in (s.logged, s.overlap, s.effective, s.thin, s.never, s.cold))
        rows.append((s.arm, f"{s.impressions:,}", *shares, f"{s.items:,}", f"{s.top:.1%}"))
    show([_table(names, rows)])


@data.command()
@click.argument("run", type=SOURCE)
def worlds(run: Path) -> None:
    """The lifts of RUN over its own and its further worlds, with intervals that include what the
    worlds disagree about.

    \b
    worlds:            # in the scenario: the same users, fitted to the log drawn anew
      again-1: {users: {kind: logged, response: {bootstrap: 1}}}
      again-2: {users: {kind: logged, response: {bootstrap: 2}}}
    """
    from simulator.datasets import DataError
    from simulator.log.workspace import Workspace
    from simulator.report import drawn, load
    from simulator.stats.pooling import pool_lifts

    with failures():
        own = load(run)
        places = Workspace(run).worlds(own.settings)
        draws = drawn.among(places, own.settings)
        worlds = {
            name: (drawn.load(place) if name in draws else load(place)).lifts
            for name, place in places.items()
        }
        if not worlds:
            raise DataError(
                f"{run}: no further worlds there: name some under `worlds:` in the scenario"
            )
        found = pool_lifts([own.lifts, *worlds.values()])
    say(f"{1 + len(worlds)} worlds: {', '.join(['its own', *worlds])}")
    rows = []
    for (arm, metric), p in found.items():
        rows.append(
            (
                f"{arm}: {metric}",
                f"{p.lift:+.3%}",
                f"{p.low:+.3%}",
                f"{p.high:+.3%}",
                f"{p.within:.3%}",
                f"{p.between:.3%}",
            )
        )
    show([_table(("lift", "mean", "low", "high", "s.e. within", "s.d. between"), rows)])


def _share(value: float, form: str) -> str:
    return "n/a" if value != value else format(value, form)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    """A table of which the first column is text and the others are numbers."""
    return Table(header[0], columns(*header), [tuple(map(plain, row)) for row in rows])
