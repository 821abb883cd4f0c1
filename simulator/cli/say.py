"""What commands print: names are those of people's files, so nothing reaches the terminal that it
would act upon.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.page.escapes import printable

if TYPE_CHECKING:
    from simulator.report.content import Content


def say(message: Any = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a message or a path."""
    click.echo(
        printable(os.fspath(message) if isinstance(message, os.PathLike) else str(message)),
        err=err,
        nl=nl,
    )


def say_report(content: Content, page: Path, *, quiet: bool) -> None:
    """Show a report and where it is; `quiet` leaves out all but its red checks, which nobody may
    overlook.
    """
    if quiet:
        from simulator.report.sentences import reds

        for sentence in reds(content):
            say(f"abtest: {sentence}", err=True)
    else:
        from simulator.report.console import show

        show(content)
    say(page)
