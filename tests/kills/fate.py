"""What is done to a run from inside its processes: death at an exact step, a limit of file sizes, a
clock that jumps.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

STEPS = {
    "os.rename": 1,
    "open": 0,
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
    "shutil.rmtree": 0,
}
"""Python's audit events of changes of files -> which of their arguments says where."""

FATE = "ABTEST_TESTS_FATE"
"""Environment variable that hands a fate on to worker processes."""


@dataclass(frozen=True)
class Fate:
    """What happens to a run.

    Attributes:
        root: only steps below this folder count.
        counter: file of one byte a step, of all processes together, `r` of a rename; outside of
            `root`.
        renames: only renames are steps; else whatever changes files is one.
        at: the step at which the signal comes, from 1; 0: it never comes.
        after: it comes with the first thing that the process does after the step, not before the
            step.
        signal: which.
        target: to the process that takes the step, to the main process, or to all.
        largest: bytes beyond which no file may grow; None: any.
        clock: seed of the jumps of the clock; None: it does not jump.
    """

    root: str
    counter: str
    renames: bool = True
    at: int = 0
    after: bool = False
    signal: int = signal.SIGKILL
    target: Literal["self", "main", "all"] = "self"
    largest: int | None = None
    clock: int | None = None

    def come(self) -> None:
        """Let it happen to this process from now on, and to the workers that it starts."""
        os.environ[FATE] = json.dumps(asdict(self))
        if self.largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest, self.largest))
        if self.clock is not None:
            _jump(random.Random(f"{self.clock} {os.getpid()}"))
        sys.addaudithook(self._hook())

    def _hook(self) -> Any:
        due = busy = False

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal due, busy
            if busy:
                return
            busy = True
            try:
                if due:
                    due = False
                    self._strike()
                elif self._is_step(event, arguments) and self._count(event) == self.at:
                    due = self.after
                    if not due:
                        self._strike()
            finally:
                busy = False

        return hook

    def _is_step(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event not in STEPS or (self.renames and event != "os.rename"):
            return False
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return False
        place = arguments[STEPS[event]]
        return isinstance(place, (str, Path)) and os.path.abspath(place).startswith(self.root)

    def _count(self, event: str) -> int:
        handle = os.open(self.counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(handle, b"r" if event == "os.rename" else b".")
            return os.lseek(handle, 0, os.SEEK_CUR)
        finally:
            os.close(handle)

    def _strike(self) -> None:
        if self.target == "all":
            os.killpg(0, self.signal)
        else:
            os.kill(os.getpid() if self.target == "self" else os.getpgrp(), self.signal)


def begin(arguments: list[str], fate: Fate, folder: str) -> None:
    """`abtest` with these arguments: in a process group of its own, with `folder` as its own and
    its words in files there.
    """
    os.setsid()
    os.chdir(folder)
    for name, handle in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
    from simulator.cli import main
    from simulator.run import executors

    executors._enter = enter
    fate.come()
    Path("begun").touch()
    main(arguments, prog_name="abtest")


def enter(*arguments: Any) -> None:
    """Start of a worker of such a run."""
    from simulator.run import executors

    Fate(**json.loads(os.environ[FATE])).come()
    executors._enter(*arguments)


EPOCHS = (0.0, 86_400.0, 1e9, 1.7e9, 2.0**31 + 5, 4e9)
"""What the clock may jump to: seconds since 1970."""


def _jump(chance: random.Random) -> None:
    """From now on every call for the time of day gives any time, forwards and backwards."""
    formatted, localtime = time.strftime, time.localtime

    def now() -> float:
        return chance.choice(EPOCHS) + chance.random()

    def strftime(form: str, moment: Any = None) -> str:
        return formatted(form, localtime(now()) if moment is None else moment)

    patched: Any = time
    patched.time, patched.time_ns, patched.strftime = now, lambda: int(now() * 1e9), strftime
