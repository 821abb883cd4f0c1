"""One case after another: each in a folder of its own, under a watchdog, with warnings as errors;
what fails is its seed.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import click
from click.testing import CliRunner

from simulator.cli import main
from simulator.cli.failure import failures

SECONDS = 60
"""What no case may take longer than."""

LONGEST = 20_000
"""Characters of a message beyond which nobody reads it."""


class Chance(random.Random):
    """The source of chance of one case.

    Attributes:
        number: the seed, for kinds of cases that go through a list in its order.
    """

    def __init__(self, kind: str, number: int) -> None:
        super().__init__(f"{kind} {number}")
        self.number = number

    def __new__(cls, kind: str, number: int) -> Chance:
        return super().__new__(cls)  # that of Random would hash its arguments


Case = Callable[[Chance, Path], str]
"""From a source of chance and an empty folder to how the case ended; raises where it ended wrongly.
"""


class WrongEndError(AssertionError):
    """An input that was accepted with another answer than the same content has, or refused
    unreadably.
    """


class Hang(BaseException):
    """The watchdog; no Exception, so that nothing swallows it."""


@dataclass
class Found:
    """What the cases of one kind came to.

    Attributes:
        ends: how often each end was met.
        wrong: seed -> what went wrong, with the last frames of the traceback.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, str] = field(default_factory=dict)


def run(
    kind: str,
    case: Case,
    seeds: Iterable[int],
    told: Callable[[int], None] = lambda seed: None,
    seconds: float = SECONDS,
) -> Found:
    """Run the case of every seed; `told` is called after each. The rest as `one`."""
    found = Found()
    for seed in seeds:
        try:
            found.ends[one(kind, case, seed, seconds)] += 1
        except (Exception, Hang, SystemExit) as error:
            last = traceback.format_exception(error)[-4:]
            found.wrong[seed] = "".join(last).strip()
        told(seed)
    return found


def one(kind: str, case: Case, seed: int, seconds: float = SECONDS) -> str:
    """How the case of one seed ended.

    Args:
        kind: of the case.
        case: the function.
        seed: of its source of chance.
        seconds: how long it may take; 0: it watches over that itself.

    Raises:
        Exception, Hang: whatever a user would have met.
    """
    folder = Path(tempfile.mkdtemp(prefix="abtest-fuzz-"))
    try:
        with _watched(seconds), warnings.catch_warnings():
            warnings.simplefilter("error")
            return case(Chance(kind, seed), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refused(call: Callable[[], object]) -> bool:
    """Whether `call` is refused with a message, as the command line would show it.

    Raises:
        WrongEndError: a message that cannot be read.
    """
    try:
        with failures():
            call()
    except click.ClickException as error:
        readable(error.message)
        return True
    return False


def command(*arguments: object) -> bool:
    """Whether `abtest` with these arguments ends well (exit code 0) and is not refused (2).

    Raises:
        WrongEndError: another exit code, or words that cannot be read.
        Exception: what the command did not catch.
    """
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in (0, 2):
        raise WrongEndError(f"exit code {result.exit_code}: {result.output[-500:]}")
    readable(result.output)
    return result.exit_code == 0


def readable(message: str) -> None:
    """Raise WrongEndError where nobody could read a message."""
    if not message.strip() or len(message) > LONGEST:
        raise WrongEndError(f"a message of {len(message)} characters: {message[:200]!r}")
    strange = {
        c
        for c in message
        if (ord(c) < 32 and c not in "\n\t") or 0xD800 <= ord(c) < 0xE000 or c in "\x7f\u202e"
    }
    if strange or "Traceback (most recent call last)" in message:
        raise WrongEndError(f"a message with {sorted(strange)!r}: {message[:200]!r}")


@contextmanager
def _watched(seconds: float) -> Iterator[None]:
    def bark(number: int, frame: FrameType | None) -> None:
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
