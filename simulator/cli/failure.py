"""How every command ends when something is wrong: one message, one exit code, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

BAD_INPUT = 2
INTERRUPTED = 130


class Failure(click.ClickException):
    """A message for the user and exit code 2: the input breaks a rule."""

    exit_code = BAD_INPUT

    def show(self, file: object = None) -> None:
        click.echo(f"abtest: {self.message}", err=True)


@contextmanager
def failures(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn abtest's own errors (subclasses of ValueError) and missing files into `Failure`; Ctrl-C into exit code 130.

    Args:
        interrupted: what to say on Ctrl-C (what is kept, how to go on).
    """
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"abtest: {interrupted}", err=True)
        raise SystemExit(INTERRUPTED) from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise Failure(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        if type(error) is ValueError:
            raise  # not one of ours: a defect, to be seen
        raise Failure(str(error)) from error
