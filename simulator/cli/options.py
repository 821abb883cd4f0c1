"""What options and arguments of several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

SOURCE = click.Path(readable=False, path_type=Path)
"""A path that is read; whoever reads it says what is wrong with it, and not Click."""
FILE = click.Path(dir_okay=False, path_type=Path)
"""A file that is written."""
FOLDER = click.Path(file_okay=False, path_type=Path)
"""A folder that is written."""
COUNT = click.IntRange(1)


TRACK = click.option(
    "--track",
    metavar="TRACKER",
    help="Log the report: mlflow (its MLFLOW_TRACKING_URI), module:function or file.py:function.",
)
"""Of commands that end with a report."""
CSV = click.option("--csv", is_flag=True, help="Write its rows as CSV files, too, into csv/.")


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
