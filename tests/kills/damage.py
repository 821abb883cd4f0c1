"""Damage from outside: a disk that is full, a clock that jumps, pieces that are torn, flipped,
lost, swapped or not of the run.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from simulator.log.ledger import LEDGER
from tests.fuzz.harness import Chance, WrongEndError
from tests.kills.runs import DESIGNS, KILLED, Place, Variant, content, expect, hold, undisturbed

UNLISTED = (".lock", "scenario.yaml")
"""Files of a run's folder that decide nothing: they are for people."""


def full_disk(chance: Chance, folder: Path) -> str:
    """The disk is full, or files may not grow, in the middle of a run; when there is room it is
    resumed.
    """
    variant = Variant(chance.choice(DESIGNS), chance.random() < 0.5)
    whole = undisturbed(variant)[0]
    place = Place(
        folder, variant.scenario(), ["serial", "serial", "serial", "processes"][chance.number % 4]
    )
    with _small_disk(place.out, chance.choice([4, 16, 32, 64, 128, 300])) as more:
        if more is None or chance.random() < 0.3:
            ended = expect(place.run(fate=place.fate(largest=chance.randrange(1, 40_000))), 0, 2)
            kind = "a limit of file sizes"
        else:
            ended = expect(place.run(), 0, 2)
            kind = "a full disk"
        if ended.code and "cannot be written" not in ended.err:
            raise WrongEndError(f"it does not say that something cannot be written: {ended}")
        if more is not None:
            more()
        place.resumed()
        hold(place.out, whole)
    return f"{place.executor}: {kind} {'met, resumed' if ended.code else 'not met'}"


@contextmanager
def _small_disk(place: Path, kib: int) -> Iterator[Callable[[], object] | None]:
    """A file system of its own at `place`; gives what makes room there. None where only root may do
    that and we are not.
    """
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=100m", str(place)], check=True)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def clock(chance: Chance, folder: Path) -> str:
    """Every look at the clock gives another year; the run dies, and is resumed by name or as the
    latest.
    """
    variant = Variant(chance.choice(DESIGNS), chance.random() < 0.5)
    whole, renames, _ = undisturbed(variant)
    place = Place(folder, variant.scenario(), ["serial", "serial", "processes"][chance.number % 3])
    named = chance.random() < 0.5
    at = chance.randrange(3, 2 * renames)  # from 3 on the run is claimed
    expect(place.run(fate=place.fate(at=at, clock=chance.number), home=named), 0, 2, KILLED)
    expect(place.run("--resume", fate=place.fate(clock=chance.number + 1000), home=named), 0)
    runs = [place.out] if named else list((folder / "runs" / "small").iterdir())
    if len(runs) != 1:
        raise WrongEndError(f"another run was begun instead: {runs}")
    hold(runs[0], whole)
    return f"{place.executor}: right by any clock"


@cache
def _unfinished(variant: Variant) -> Path:
    """The folder of a run that has died late."""
    home = Path(tempfile.mkdtemp(prefix="abtest-kills-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    place = Place(home, variant.scenario())
    renames = undisturbed(variant)[1]
    expect(place.run(fate=place.fate(at=renames * 2 // 3)), KILLED)
    return place.out


def pieces(chance: Chance, folder: Path) -> str:
    """A piece is damaged: `--resume` and `report` name it, or nothing depends on it. Put back, all
    is as it was.
    """
    variant = Variant(DESIGNS[chance.number % 4], refit=True)
    whole = undisturbed(variant)[0]
    finished = chance.random() < 0.5
    place = Place(folder, variant.scenario())
    source = whole if finished else _unfinished(variant)
    shutil.copytree(source, place.out)
    files = sorted(
        path for path in place.out.rglob("*") if path.is_file() and not path.name.endswith(".part")
    )
    file = chance.choice(files)
    before = file.read_bytes()
    name = chance.choice(list(DAMAGE))
    hurt = {file.name, DAMAGE[name](chance, file, [other for other in files if other != file])}
    resume = ["run", "s.yaml", "--quiet", "--out", "out", "--resume"]
    command = ["report", "out", "--quiet"] if finished and chance.random() < 0.7 else resume
    ended = expect(place.abtest(command), 0, 2)
    if ended.code == 0:
        unlisted = file.name in UNLISTED or file.name.startswith("report.")
        # What is no whole line at the ledger's end is what a death leaves, and is written over.
        unlisted |= file.name == LEDGER and name in ("torn", "grown")
        if not unlisted and file.exists() and file.read_bytes() != before:
            raise WrongEndError(f"{file.relative_to(place.out)} {name}: nobody has seen it")
        if content(place.out) != content(whole):
            raise WrongEndError(f"{file.relative_to(place.out)} {name}: another result")
        return f"{name}: nothing depends on it"
    if not any(each and each in ended.err for each in hurt):
        raise WrongEndError(f"{file.relative_to(place.out)} {name}: not named: {ended}")
    shutil.rmtree(place.out)
    shutil.copytree(source, place.out)
    place.resumed()
    hold(place.out, whole)
    return f"{name}: named by {command[0]}, right when put back"


def _torn(chance: random.Random, file: Path, others: list[Path]) -> None:
    os.truncate(file, chance.randrange(max(file.stat().st_size, 1)))


def _flipped(chance: random.Random, file: Path, others: list[Path]) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def _lost(chance: random.Random, file: Path, others: list[Path]) -> None:
    file.unlink()


def _swapped(chance: random.Random, file: Path, others: list[Path]) -> str:
    other = chance.choice([path for path in others if path.suffix == file.suffix] or others)
    between = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(between)
    return other.name


def _grown(chance: random.Random, file: Path, others: list[Path]) -> None:
    with file.open("ab") as stream:
        stream.write(chance.choice([b"\0", b"\n", b"x" * 100]))


DAMAGE: dict[str, Callable[[random.Random, Path, list[Path]], str | None]] = {
    "torn": _torn,
    "flipped": _flipped,
    "lost": _lost,
    "swapped": _swapped,
    "grown": _grown,
}
"""What is done to a file; it returns the name of another one that it was done to as well."""
