"""What commands print: names are those of people's files, so nothing reaches the terminal that it would act upon."""

from __future__ import annotations

import os
from typing import Any

import click

from simulator.text import printable


def say(message: Any = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a message or a path."""
    click.echo(printable(os.fspath(message) if isinstance(message, os.PathLike) else str(message)), err=err, nl=nl)
