"""Deaths: at every publication of a piece, at any change of a file, at any moment; of the main
process, of a worker, of all.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.harness import Case, Chance
from tests.kills.runs import DESIGNS, KILLED, Place, Variant, expect, hold, members, undisturbed

SIGNALS = {signal.SIGKILL: KILLED, signal.SIGTERM: 143, signal.SIGINT: 130}
"""Signal to the main process -> how it then ends."""


@dataclass(frozen=True)
class Kind:
    """The cases of one kind of disturbance."""

    case: Case
    COUNT: int


EXECUTORS = ("serial", "processes")


def _variant(chance: random.Random) -> Variant:
    return Variant(chance.choice(DESIGNS), chance.random() < 0.5, chance.choice([1, 2, 3]))


def at_rename(chance: Chance, folder: Path) -> str:
    """The run dies before or after one of its renames, seed by seed all of them; every eighth time
    under processes.
    """
    variant = Variant(DESIGNS[chance.number // 2 % 4], refit=True)
    whole, renames, _ = undisturbed(variant)
    at, after = 1 + chance.number // 2 % renames, bool(chance.number % 2)
    first = EXECUTORS[chance.number % 8 == 7]
    place = Place(folder, variant.scenario(), first)
    ends = (
        (0, KILLED, 2) if after and at == renames else (KILLED, 2)
    )  # nothing may come after the last one
    expect(place.run(fate=place.fate(at=at, after=after)), *ends)
    place.executor = chance.choice(EXECUTORS)
    place.resumed()
    hold(place.out, whole)
    return f"{first}: died at a rename, resumed"


def at_step(chance: Chance, folder: Path) -> str:
    """The run dies at any change of a file, once, or again and again while it is resumed."""
    variant = _variant(chance)
    whole, _, steps = undisturbed(variant)
    first = EXECUTORS[chance.random() < 0.25]
    place = Place(folder, variant.scenario(), first)
    which = chance.choice(list(SIGNALS))
    target = (
        chance.choice(["main", "all"])
        if which == signal.SIGKILL or place.executor == "serial"
        else "main"
    )
    for _ in range(chance.choice([1, 1, 3])):
        fate = place.fate(
            renames=False, at=1 + chance.randrange(steps), signal=which, target=target
        )
        expect(place.run("--resume", fate=fate), SIGNALS[which], 0)
    place.executor = chance.choice(EXECUTORS)
    place.resumed()
    hold(place.out, whole)
    return f"{first}: {which.name} at a step, resumed"


def at_moment(chance: Chance, folder: Path) -> str:
    """A signal comes from outside at any time, to the main process, to a worker or to all."""
    variant = _variant(chance)
    whole = undisturbed(variant)[0]
    first = EXECUTORS[chance.number % 2]
    place = Place(folder, variant.scenario(), first)
    target = chance.choice(["main", "all"] + ["worker"] * 2 * (place.executor == "processes"))
    which = signal.SIGKILL if target == "worker" else chance.choice(list(SIGNALS))
    disturb = _after(chance.random() * (6 if place.executor == "processes" else 1.2), which, target)
    ended = place.run(disturb=disturb)
    expect(
        ended,
        0,
        *(
            (2, KILLED)
            if target == "worker"
            else (SIGNALS[which], 2 if target == "all" else SIGNALS[which])
        ),
    )
    if chance.random() < 0.3:
        expect(place.run("--resume", disturb=disturb), 0, 2, KILLED, *SIGNALS.values())
    place.executor = chance.choice(EXECUTORS)
    place.resumed()
    hold(place.out, whole)
    how = "ended before it" if ended.code == 0 else "resumed"
    return f"{first}: {which.name} to {target}, {how}"


def _after(seconds: float, which: int, target: str) -> Callable[[int], None]:
    """What sends the signal when the run has used so much time of the processor: the same moment on
    a machine that is busy.
    """

    def disturb(main: int) -> None:
        while (group := members(main)) and sum(map(_used, group)) < seconds:
            time.sleep(0.01)
        workers = [process for process, line in group.items() if "spawn_main" in line]
        if target == "worker" and workers:
            _send(workers[0], which)
        elif target == "all":
            for process in group:
                _send(process, which)
        else:
            _send(main, which)

    return disturb


def _used(process: int) -> float:
    """Seconds of the processor that a process has used; 0 if it has ended."""
    try:
        fields: list[Any] = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100


def _send(process: int, which: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself: that is one of the moments, too
        os.kill(process, which)
