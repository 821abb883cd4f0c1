"""How every command ends when something is wrong: one message, one exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from simulator.log.store import with_addresses
from simulator.page.escapes import printable

BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143


class Failure(click.ClickException):
    """A message for the user and exit code 2: the input breaks a rule."""

    exit_code = BAD_INPUT

    def __init__(self, message: str) -> None:
        super().__init__(printable(with_addresses(message)))

    def show(self, file: object = None) -> None:
        click.echo(f"abtest: {self.message}", err=True)


class Terminated(KeyboardInterrupt):
    """SIGTERM: as Ctrl-C, with an exit code of its own."""


@contextmanager
def failures(interrupted: str = "interrupted") -> Iterator[None]:
    """Turn abtest's own errors (subclasses of ValueError), those of the system (files, memory) into
    `Failure`; Ctrl-C into exit code 130, SIGTERM into 143.

    Args:
        interrupted: what to say on Ctrl-C or SIGTERM (what is kept, how to go on).
    """
    try:
        yield
    except KeyboardInterrupt as error:
        click.echo(f"abtest: {with_addresses(interrupted)}", err=True)
        raise SystemExit(TERMINATED if isinstance(error, Terminated) else INTERRUPTED) from None
    except BrokenPipeError:
        raise  # whoever reads has seen enough; click ends quietly
    except OSError as error:
        raise Failure(of_system(error)) from error
    except MemoryError as error:
        raise Failure(f"not enough memory: {str(error) or 'none is left'}") from error
    except ValueError as error:
        if type(error) is ValueError:
            raise  # not one of ours: a defect, to be seen
        raise Failure(str(error)) from error


def of_system(error: OSError) -> str:
    """What the system said, and of which file. Where output cannot be written, it is given up."""
    said = os.strerror(error.errno) if error.errno else str(error)
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {said}"
    try:
        sys.stdout.flush()
    except OSError:
        # Otherwise Python tries again when it ends, and shows a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return f"something could not be written (the output, or a temporary file): {said}"


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated` once, so that what Ctrl-C cleans up is cleaned up."""
    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
