"""What options and arguments of several commands share."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from simulator.cli.failure import failures


class PlaceParam(click.Path):  # type: ignore[type-arg,unused-ignore]
    """A path, or an address on a store; what is there is brought here, unless it is `new`."""

    def __init__(self, *, new: bool = False, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self.new = new

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, Path):
            from simulator.log.ledger import here
            from simulator.log.store import place

            with failures():
                value = place(value) if self.new else here(value)
        return super().convert(value, param, ctx)


SOURCE = PlaceParam(readable=False)
"""A path that is read; whoever reads it says what is wrong with it, and not Click."""
FILE = PlaceParam(dir_okay=False)
"""A file that is written."""
FOLDER = PlaceParam(file_okay=False)
"""A folder that is written."""
RUN_FOLDER = PlaceParam(file_okay=False, new=True)
"""A folder that a run is written into; the run brings here what it needs of it."""
COUNT = click.IntRange(1)
SEED = click.IntRange(0, 2**64 - 1)
RESAMPLES = click.IntRange(100, 1_000_000)
"""Of a bootstrap: the ends of a 95% interval are the 2.5% of its samples on each side."""


class SamplesParam(click.IntRange):
    """A number of samples: 0 for none, or enough of them to say anything."""

    LEAST = 100

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        if 0 < number < self.LEAST:
            self.fail(f"at least {self.LEAST}, or 0 for none; got {number}", param, ctx)
        return number


SAMPLES = SamplesParam()


class NamesParam(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Names with commas between, each once: `click,watch`."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = tuple(name.strip() for name in value.split(","))
        twice = next((name for name in names if names.count(name) > 1), None)
        if not all(names):
            self.fail(f"names with commas between, as A,B; got {value!r}", param, ctx)
        if twice is not None:
            self.fail(f"{twice!r} is there twice; give each name once", param, ctx)
        return names


NAMES = NamesParam()


@dataclass(frozen=True)
class Shard:
    """One of the parts that users are cut into, from 1."""

    number: int
    shards: int

    def __str__(self) -> str:
        return f"{self.number}/{self.shards}"


class ShardParam(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """`3/64` is the third of 64 shards."""

    name = "shard"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shard:
        number, _, shards = value.partition("/")
        if not (number.isascii() and number.isdigit() and shards.isascii() and shards.isdigit()):
            self.fail(f"must be I/N, such as 3/64 for the third of 64; got {value!r}", param, ctx)
        if not 1 <= int(number) <= int(shards):
            self.fail(f"I must be between 1 and N; got {value!r}", param, ctx)
        return Shard(int(number), int(shards))


QUIET = click.option(
    "--quiet", is_flag=True, help="No progress bars, no table; only the path of the page."
)
DAYS = click.option("--days", type=COUNT, help="Overrides the days of the A/B.")
EXECUTOR = click.option(
    "--engine.executor",
    "executor",
    type=click.Choice(["serial", "processes", "ray"]),
    help="Where work is done (speed only).",
)
WORKERS = click.option(
    "--workers",
    type=COUNT,
    default=1,
    show_default=True,
    help="Processes that read the users of a run, where they are millions (speed only).",
)
GATE = click.option(
    "--gate", is_flag=True, help="Exit code by the decision: 0 ship, 3 hold, 4 drop."
)
REWARD = click.option(
    "--reward",
    type=NAMES,
    metavar="A,B,...",
    default="click",
    show_default=True,
    help="click, watch (s) or other feedback in the log; A,B for several.",
)

TRACK = click.option(
    "--track",
    metavar="TRACKER",
    help="Log the report: mlflow (its MLFLOW_TRACKING_URI), module:function or file.py:function.",
)
"""Of commands that end with a report."""
CSV = click.option("--csv", is_flag=True, help="Write its rows as CSV files, too, into csv/.")


class LevelParam(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A level of confidence, written 95% or 0.95."""

    name = "level"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            text = str(value).strip()
            level = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            level = 0.0
        if not 0.5 < level < 1.0:
            rule = "a level is written 95% or 0.95, above 50% and below 100%"
            self.fail(f"{rule}; got {value!r}", param, ctx)
        return level


LEVEL = click.option(
    "--level",
    type=LevelParam(),
    default="95%",
    show_default=True,
    help="Of intervals; tests reject at what is left.",
)
ALTERNATIVE = click.option(
    "--alternative",
    type=click.Choice(["two-sided", "better"]),
    default="two-sided",
    show_default=True,
    help=(
        "better: one-sided tests. Is a metric better; is a guardrail or a deterioration metric"
        " worse?"
    ),
)
METRIC_FILE = click.option(
    "--metrics",
    "metric_file",
    type=SOURCE,
    metavar="FILE.yaml",
    help="Table: metrics with what is declared of them, as in a scenario (docs/report.md).",
)


def written(*left_out: str) -> dict[str, str]:
    """The options of this command line by name, as they were written: `--seed 3` of `seed`.

    Args:
        left_out: names of options that are not of interest.
    """
    context, options = click.get_current_context(), {}
    for option in context.command.params:
        if not isinstance(option, click.Option):
            continue
        name, value = option.opts[0].lstrip("-"), context.params.get(option.name or "")
        source = context.get_parameter_source(option.name or "")
        if name in left_out or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        values = value if isinstance(value, tuple) else (value,)
        options[name] = " ".join(
            f"--{name}" if option.is_flag else f"--{name} {shlex.quote(str(v))}" for v in values
        )
    return options


def check_quiet(*, quiet: bool, out: Path | None) -> None:
    """Refuse `--quiet` of a command that writes nothing without `--out`: it would say nothing.

    Raises:
        click.UsageError: quiet, and nothing is written.
    """
    if quiet and out is None:
        raise click.UsageError(
            "--quiet prints nothing but the path of the page, and without --out there is none"
        )


def goes_on(scenario: Path, folder: Path, kept: str) -> str:
    """What an interrupted command says: what is kept, and the command that continues, with the
    options that this one had.

    Args:
        scenario: as it was written.
        folder: where the results lie.
        kept: what is finished and stays, as "runs".
    """
    name = click.get_current_context().command.name
    command = [f"abtest {name}", shlex.quote(str(scenario)), "--out", shlex.quote(str(folder))]
    command += [*written("out", "resume").values(), "--resume"]
    return f"interrupted; finished {kept} are kept: {' '.join(command)}"
