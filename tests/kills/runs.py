"""Small runs as processes of their own: started, ended, resumed, and held to an undisturbed run of
the same scenario.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.fuzz.harness import WrongEndError, readable
from tests.kills.fate import Fate, begin

DESIGNS = ("paired", "split", "switchback", "interleave")
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Variant:
    """One of the scenarios that are disturbed.

    Attributes:
        design: kind of the A/B.
        refit: whether policies are fitted again each day.
        shards: of the users.
    """

    design: str = "paired"
    refit: bool = False
    shards: int = 2

    def scenario(self, **changes: Any) -> dict[str, Any]:
        """As it stands in the file; `changes` replace whole sections."""
        return {
            "name": "small",
            "seed": 3,
            "users": {"kind": "choice", "n_users": 40, "n_items": 60},
            "data": {"source": "synthetic", "history_days": 1},
            "days": 2,
            "serving": {
                "slate": 3,
                "recall": 8,
                "history": 8,
                "refit": "daily" if self.refit else "never",
            },
            "arms": {
                "a": {"policy": "popularity"},
                "b": {"policy": "itemknn", "params": {"neighbours": 5}},
            },
            "design": {"kind": self.design, "control": "a"},
            "engine": {"executor": "serial", "shards": self.shards},
            **changes,
        }


@dataclass(frozen=True)
class Ended:
    """How a process has ended.

    Attributes:
        code: its exit code; of a signal, negative.
        out, err: what it has said.
    """

    code: int
    out: str
    err: str


class Place:
    """A folder with a scenario, in which runs of it are started.

    Attributes:
        folder: of the scenario; the run's own is `out` within.
        executor: of the runs.
    """

    def __init__(self, folder: Path, scenario: dict[str, Any], executor: str = "serial") -> None:
        self.folder, self.executor = folder.resolve(), executor
        (self.folder / "s.yaml").write_text(yaml.safe_dump(scenario, sort_keys=False))
        self.harmless = Fate(str(self.out), str(self.folder / "steps"))

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def fate(self, **what: Any) -> Fate:
        """One that counts its steps from here on."""
        Path(self.harmless.counter).unlink(missing_ok=True)
        return replace(self.harmless, **what)

    def run(
        self,
        *options: str,
        fate: Fate | None = None,
        disturb: Callable[[int], None] | None = None,
        home: bool = True,
    ) -> Ended:
        """`abtest run` of the scenario. `disturb` is called with the process id of the main
        process, and ends in its own time.
        """
        where = ["--out", str(self.out)] if home else []
        command = ["run", "s.yaml", "--quiet", "--engine.executor", self.executor, *where, *options]
        return self.abtest(command, fate or self.fate(), disturb)

    def abtest(
        self,
        command: list[str],
        fate: Fate | None = None,
        disturb: Callable[[int], None] | None = None,
    ) -> Ended:
        """Any command of abtest, from this folder.

        Raises:
            WrongEndError: a traceback, a hang, processes that outlive the main one, an unreadable
                message.
        """
        begun = self.folder / "begun"
        begun.unlink(missing_ok=True)
        process = _server().Process(
            target=begin, args=(command, fate or self.harmless, str(self.folder))
        )
        process.start()
        assert process.pid is not None
        try:
            while not begun.exists() and process.is_alive():
                time.sleep(0.005)
            if disturb is not None:
                disturb(process.pid)
            process.join(_patience())
            late = process.exitcode is None
            left = _outlived(process.pid)
        finally:
            _end(process.pid)
            process.join()
        ended = Ended(
            process.exitcode or 0,
            *((self.folder / name).read_text(errors="replace") for name in ("stdout", "stderr")),
        )
        if late or left:
            raise WrongEndError(
                f"{'a hang' if late else f'processes that outlive the run: {left}'}: {ended}"
            )
        orphaned = ended.code == -signal.SIGKILL and "spawn_main" in ended.err
        if "Traceback (most recent call last)" in ended.err + ended.out and not orphaned:
            # Python itself says so of a worker that is starting while its parent is killed.
            raise WrongEndError(f"a traceback: {ended}")
        if ended.code == 2:
            readable(ended.err)
        return ended

    def resumed(self) -> None:
        """Resume the run, and hold it to an undisturbed one.

        Raises:
            WrongEndError: it cannot be resumed, or ends in other bytes.
        """
        ended = self.run("--resume")
        if ended.code != 0:
            raise WrongEndError(f"it cannot be resumed: {ended}")


def expect(ended: Ended, *codes: int) -> Ended:
    """What has ended, if it did with one of these codes.

    Raises:
        WrongEndError: it did not.
    """
    if ended.code not in codes:
        raise WrongEndError(
            f"ended with {ended.code}, not with {' or '.join(map(str, codes))}: {ended}"
        )
    return ended


def hold(out: Path, whole: Path) -> None:
    """Hold a finished run to an undisturbed one.

    Raises:
        WrongEndError: a byte of the log, the models or the report is another one, or something half
            done is left.
    """
    ours, theirs = content(out), content(whole)
    different = sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
    if different:
        raise WrongEndError(f"other bytes than those of an undisturbed run: {different}")
    debris = [
        path.name for path in out.rglob("*") if path.name.endswith(".part") or path.name == "work"
    ]
    if debris:
        raise WrongEndError(f"left half done: {debris}")


def content(out: Path) -> dict[str, Any]:
    """Log and models of a finished run as bytes, and its report without the runtime."""
    files = [
        path
        for name in ("log", "sums", "models")
        for path in sorted((out / name).rglob("*"))
        if path.is_file()
    ]
    found: dict[str, Any] = {str(path.relative_to(out)): path.read_bytes() for path in files}
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {
        **found,
        "report.json": {name: value for name, value in report.items() if name != "runtime"},
    }


@cache
def undisturbed(variant: Variant) -> tuple[Path, int, int]:
    """The folder of an undisturbed run, how many renames it made, and how many steps in all."""
    home = Path(tempfile.mkdtemp(prefix="abtest-kills-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    place = Place(home, variant.scenario())
    expect(place.run(fate=place.fate(renames=False)), 0)
    steps = Path(place.harmless.counter).read_bytes()
    return place.out, steps.count(b"r"), len(steps)


def members(group: int) -> dict[int, str]:
    """The living processes of a group, and the command line of each."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, pgrp = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(pgrp) == group and state not in "ZX":
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
    return found


def _patience() -> float:
    """Seconds after which a process hangs: 60 where the processors are free for it, in proportion
    more where they are not.
    """
    return 60 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _outlived(group: int) -> dict[int, str]:
    """The processes of the group that are still there when they have had time to end."""
    end = time.monotonic() + _patience()
    while (left := members(group)) and time.monotonic() < end:
        time.sleep(0.02)
    return left


def _end(group: int) -> None:
    if members(group):
        os.killpg(group, signal.SIGKILL)


@cache
def _server() -> Any:
    """Where processes are forked from: a process of its own, without threads, that has imported
    everything.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kills.warm"])
    return context
