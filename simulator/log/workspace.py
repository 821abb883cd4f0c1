"""The output folder of a run: what lies where, what is finished, and whether it belongs to this
scenario.

Everything here is written by temporary name and rename, so whatever exists is whole; and everything
is listed with its digest (`simulator.log.ledger`), so whatever is missing, changed or strange is
named.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from policies.base import Catalogue
from policies.sources import ABSENT
from policies.staging import place_of, staging_of
from simulator.log.eventlog import EventLog, LogPart
from simulator.log.files import (
    adopt,
    map_arrays,
    read_json,
    reading,
    reason,
    remove,
    save_mappable,
    write_text,
    writing,
)
from simulator.log.ledger import CLAIM, LEDGER, Ledger, bring, present
from simulator.log.metadata import HISTORY
from simulator.log.notices import FILE, Notice, keep, kept
from simulator.log.remote import LOCK, RemoteRun

DECIDING = ("abtest", "numpy", "numba", "pyarrow", "scipy", "torch")
"""Libraries whose version may decide bytes."""


PART_USERS = 100_000
"""Users of a part of a run's log, by their numbers: the cut of the log does not follow that of the
run (`engine.shards`), so that it has the same bytes under any.
"""


class RunError(ValueError):
    """A run that cannot start, go on or be resumed; the message says what to do."""


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide bytes; none is imported."""
    return {"python": platform.python_version(), **{name: _version(name) for name in DECIDING}}


# Read once: a run of many worlds asks for them several times in each.
_version = cache(metadata.version)


OF_A_DAY = "-day-"
"""Within the folder's name of a refit, before the day; no fit on the history has it."""


@dataclass(frozen=True)
class Lane:
    """What is simulated apart: one of `Design.lanes`, or the history, under one fit of its
    policies.

    Attributes:
        name: of the lane.
        fit: from 0; None where there is but one.
    """

    name: str
    fit: int | None = None

    def __str__(self) -> str:
        return self.name if self.fit is None else f"{self.name} (fit {self.fit})"


@dataclass(frozen=True)
class Workspace:
    """The folder of one run."""

    root: Path

    @classmethod
    def of_log(cls, log: EventLog) -> Workspace | None:
        """The run whose log it is, or a part of whose log; None for a log that lies alone."""
        folders = log.parts[0].resolve().parents if log.parts else ()
        homes = [folder.parent for folder in folders if folder.name == "log"]
        return cls(homes[0]) if homes else None

    @property
    def log(self) -> Path:
        """Folder of the finished event log, a part for each arm and PART_USERS users."""
        return self.root / "log"

    @property
    def sums(self) -> Path:
        """Folder of what a report adds up from each part of the log (`simulator.log.part_sums`)."""
        return self.root / "sums"

    def sums_of(self, part: Path) -> Path:
        """The sums of a part of the log."""
        inside = part.resolve().relative_to(self.log.resolve())
        return self.sums / inside.with_suffix(".npz")

    @property
    def models(self) -> Path:
        """Folder of fitted policies, the ranking stage and the model of the users."""
        return self.root / "models"

    @property
    def work(self) -> Path:
        """Folder of finished pieces of an unfinished run; removed when the log is whole."""
        return self.root / "work"

    @property
    def past(self) -> Path:
        """A real log's history as its reader gave it, with what the run's own log has no column for
        (the surface of a request).
        """
        return self.work / "past.parquet"

    @property
    def future(self) -> Path:
        """What a real log says happened from t = 0 on."""
        return self.work / "future.parquet"

    @property
    def truth(self) -> Path:
        """What a synthetic world has drawn of its items (`Source.truth`)."""
        return self.work / "truth.npz"

    @property
    def past_sequences(self) -> Path:
        """Folder of what policies are fitted on: the history by users, as arrays that are mapped
        into memory.
        """
        return self.work / "sequences.d"

    @property
    def scenario(self) -> Path:
        """The resolved scenario."""
        return self.root / "scenario.yaml"

    @property
    def declared_arms(self) -> tuple[str, ...]:
        """The arms in the order in which the scenario declares them, which is that of every page:
        a log has them by name. () where there is no scenario, of a log alone.
        """
        if not (self.log.is_dir() and present(self.scenario)):
            return ()
        with reading(self.scenario):
            arms = yaml.safe_load(self.scenario.read_text(encoding="utf-8"))["arms"]
            return tuple(map(str, arms))

    @property
    def notes(self) -> dict[str, Any]:
        """What the reader of the data wants said in the report."""
        file = self.models / "notes.json"
        notes: dict[str, Any] = {}
        if present(file):
            with reading(file):
                notes = json.loads(file.read_text(encoding="utf-8"))
        return notes

    def world(self, name: str) -> Path:
        """Folder of the run in one of the further worlds."""
        return self.root / "worlds" / file_name(name)

    def worlds(self, scenario: Mapping[str, Any]) -> dict[str, Path]:
        """The folders of the further worlds that are there, by the names that the resolved scenario
        gives them.
        """
        names = {file_name(name): name for name in scenario.get("worlds", {})}
        places = sorted(place for place in (self.root / "worlds").glob("*") if place.is_dir())
        return {names.get(place.name, place.name): place for place in places}

    def arm(self, name: str) -> Path:
        """Folder of the log parts of an arm. Its name is a column for whoever reads folders as Hive
        writes them, and so are those of the folders in it.
        """
        return self.log / f"arm_name={file_name(name)}"

    def parts(
        self, arm: str, n_users: int, shard: tuple[int, int], fit: int | None = None
    ) -> list[LogPart]:
        """The log parts of an arm whose first user is in a range.

        Args:
            arm: by name.
            n_users: of the whole log.
            shard: first user of the range, and that after its last.
            fit: whose parts, where every user lives with each fit; else None.
        """
        folder = self.arm(arm)
        if fit is not None:
            folder /= f"fit_number={fit:03d}"
        begin = -(-shard[0] // PART_USERS) * PART_USERS
        return [
            LogPart(
                folder / f"first_user={user:010d}" / "part.parquet",
                user,
                min(user + PART_USERS, n_users),
            )
            for user in range(begin, shard[1], PART_USERS)
        ]

    def history(self, n_users: int) -> EventLog | None:
        """The log of what happened before the A/B; None until all of its parts are written."""
        firsts = range(0, n_users, PART_USERS)  # one part at a time: of many users there are many
        parts = (self.parts(HISTORY, n_users, (first, first + 1))[0] for first in firsts)
        is_whole = all(present(part.path) for part in parts)
        return EventLog.open(self.arm(HISTORY)) if is_whole else None

    def shard(self, lane: Lane, first: int, last: int) -> Path:
        """Folder of the tapes and snapshots of users first..last-1 in a lane."""
        place = self.work / file_name(lane.name)
        if lane.fit is not None:
            place /= f"fit-{lane.fit}"
        return place / f"users-{first}-{last}"

    def life(self, market: Lane, day: int) -> Path:
        """What a catalogue is on a day: that of a lane, or of all lanes together (no name)."""
        place = self.work / "catalogues.d" / (file_name(market.name) if market.name else "all.d")
        if market.fit is not None:
            place /= f"fit-{market.fit}"
        return place / f"day-{day}.npz"

    @property
    def lived(self) -> Path:
        """What became of the catalogue in each arm, where it lives."""
        return self.models / "catalogues.npz"

    @property
    def ledger(self) -> Ledger:
        """What lists the pieces of the run."""
        return Ledger(self.root)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against every other process that would write into it; it is made if it is
        not there.

        The lock is the system's (`flock`), so that a death releases it. What an earlier death, or
        an exception inside, has left half done is put in order.

        Raises:
            RunError: another process holds it, its file system has no locks, or it is not empty and
                holds no run.
        """
        remote = RemoteRun.of(self.root)
        with writing(self.root):
            if remote is None:
                is_strange = (
                    self.root.exists() and self._claimed() is None and not self._only_debris()
                )
            else:
                is_strange = not remote.owners() and bool(remote.sizes())
            if is_strange:
                raise RunError(
                    f"{self.root} is not empty and holds no run of abtest; give --out another"
                    " folder"
                )
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock(handle)
            self.ledger.refresh()
            if self._claimed() is None:
                self.ledger.file.touch()
            if self.ledger.file.is_file():
                self.ledger.settle()
            try:
                yield
            except BaseException:
                self.ledger.settle()
                raise
        finally:
            os.close(handle)

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder, *_ = os.pread(handle, 200, 0).decode(errors="replace").splitlines() or [""]
            rule = f"is in use by {holder or 'another process'}; wait for it"
            raise RunError(f"{self.root} {rule}, or give --out another folder") from error
        except OSError as error:
            advice = "give --out a folder on another disk"
            raise RunError(f"{self.root} cannot be locked ({reason(error)}); {advice}") from error
        with writing(self.root / LOCK):
            os.ftruncate(handle, 0)
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            os.pwrite(handle, f"{holder}\n{secrets.token_hex(16)}\n".encode(), 0)
            os.fsync(handle)  # so that other machines see it

    def _claimed(self) -> Path | None:
        """The claim, where there is one."""
        return next(filter(present, (self.root / CLAIM, self.work / CLAIM)), None)

    def _only_debris(self) -> bool:
        """Whether nothing is here, or only what a run leaves that dies before its claim is
        whole.
        """
        here = {path.name for path in self.root.iterdir()}
        of_work = list(self.work.iterdir()) if self.work.is_dir() else []
        waiting = self.work / CLAIM
        own = {LOCK, LEDGER, "work"}
        return here <= own and all(place_of(it) == waiting for it in of_work)

    def claim(self, identity: Mapping[str, Any], files: Mapping[str, str], *, resume: bool) -> None:
        """Make the folder this scenario's own, or make sure that it is, and that its pieces are as
        they were written.

        Args:
            identity: the resolved scenario without `engine`.
            files: digest by name of what else decides the run: source files of policies and of
                abtest, model and data files.
            resume: whether finished pieces may be taken over.

        Raises:
            RunError: there is a run already and `resume` is False, or it is another scenario's; the
                difference is named.
            FileError: a piece of it is missing, changed, stale or strange.
        """
        ours = json.loads(
            json.dumps({"scenario": identity, "versions": versions(), "files": files})
        )
        known = self._claimed()
        if known is None:
            self._take()
            write_text(self.work / CLAIM, json.dumps(ours, indent=1, sort_keys=True) + "\n")
            return
        if not resume:
            raise RunError(
                f"{self.root} already holds a run; --resume continues it, or give --out another"
                " folder"
            )
        theirs = read_json(known)
        before = theirs.get("files", {})
        different = [
            *differences({**theirs, "files": before}, {**ours, "files": before}),
            *_changes(before, files),
        ]
        if different:
            listed = "\n  ".join(different)
            rule = (
                f"{self.root} holds a run of another scenario or of other files, so it cannot be"
                " resumed"
            )
            raise RunError(f"{rule}:\n  {listed}\nUndo the change, or give --out another folder")
        self.ledger.check()
        self._take()
        if self.finished:
            remove(self.work)  # where the last run died while it did so

    def borrow(self, models: Path) -> None:
        """Take over the finished fits of policies on the history in another run's `models`; what is
        here already stays. Refits are not taken: they have learned from what was shown in that run.

        Raises:
            FileError: a fit there is not as it was written.
        """
        bring(models)
        Ledger(models.parent).check(models)
        for fit in sorted(models.iterdir()):
            here = self.models / fit.name
            is_of_history = OF_A_DAY not in fit.name and (fit / "state.npz").is_file()
            if is_of_history and not here.exists():
                staging = staging_of(here)
                with writing(staging):
                    shutil.copytree(fit, staging, ignore=shutil.ignore_patterns("checkpoints"))
                adopt(staging, here, last="state.npz")

    def holder(self) -> str:
        """Who holds the folder, with a token that no other folder and no other holder has.

        Raises:
            FileError: nobody has ever held it.
        """
        remote = RemoteRun.of(self.root)
        if remote is not None:
            return "".join(f"{line}\n" for line in remote.owners()[:2])
        with reading(self.root / LOCK):
            return (self.root / LOCK).read_text(encoding="utf-8")

    def _take(self) -> None:
        """Hold the run on its store, too; a local one is held by its lock alone."""
        remote = RemoteRun.of(self.root)
        if remote is not None:
            remote.take()

    def notices(self) -> Counter[Notice]:
        """What was noticed of the policies so far."""
        self.ledger.fetch(self.root, FILE)
        if self.finished:
            return kept(self.root.glob(FILE))
        return kept(
            [*sorted(self.models.glob(f"*/{FILE}")), *sorted(self.work.glob(f"*/*/{FILE}"))]
        )

    def finish(self) -> None:
        """Drop the pieces, keep the claim and what was noticed: the log is whole, and on the
        disk.
        """
        keep(self.root, self.notices())
        self.ledger.refresh()
        self.ledger.settle()  # of attempts at a task that died, while others did it
        with writing(self.root):
            self.ledger.flush()
            write_text(self.root / CLAIM, (self.work / CLAIM).read_text(encoding="utf-8"))
            self.ledger.flush()
        remove(self.work)
        self.ledger.sweep()

    @property
    def finished(self) -> bool:
        """Whether the log is whole."""
        return present(self.root / CLAIM)


@contextmanager
def held_if_run(folder: Path) -> Iterator[None]:
    """Hold `folder` while something is written into it, if it is that of a finished run."""
    with writing(folder):
        finished = Workspace(folder).finished
    if not finished:
        yield
        return
    with Workspace(folder).held():
        Workspace(folder)._take()
        yield


def sound_log(source: Path, *, rows: bool = True) -> EventLog:
    """The event log of a run, or that in a folder of parts or a file; held to the run's ledger and
    to every rule of the schema.

    Args:
        source: the run's folder, that of its parts, or a file.
        rows: whether the rows are, too; else whoever reads them does it (`EventLog.inspected`).

    Raises:
        RunError: the run there is not finished.
        FileError: a piece of the run is missing, changed or strange.
        LogError: no log, or one that breaks a rule.
    """
    hold_to_ledger(source)
    log = EventLog.open(source / "log" if (source / "log").is_dir() else source)
    if rows:
        log.validate()
    else:
        log.check_metadata()
    return log


def hold_to_ledger(source: Path) -> None:
    """Hold a run's folder, or what lies in one, to the run's ledger; nothing outside of runs.

    Raises:
        RunError: the run there is not finished.
        FileError: a piece of it is missing, changed or strange.
    """
    if present(source / "work" / CLAIM) and not (source / CLAIM).is_file():
        go_on = f"`abtest run SCENARIO --out {source} --resume` continues it"
        raise RunError(f"{source} holds a run that is not finished: {go_on}")
    ledger = Ledger(source) if (source / CLAIM).is_file() else Ledger.around(source)
    if ledger is not None:
        ledger.check(source)


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """What files have changed, as sentences."""
    for name in sorted(old.keys() | new.keys()):
        if name not in new or new[name] == ABSENT != old.get(name):
            yield f"{name} is gone"
        elif name not in old:
            yield f"{name} is new"
        elif old[name] != new[name]:
            yield f"{name} has changed"


def differences(old: Any, new: Any, path: str = "") -> Any:
    """The key paths at which two trees of plain values differ, as sentences."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(
                old.get(key), new.get(key), f"{path}.{key}" if path else str(key)
            )
    elif old != new:
        yield f"{path}: the run there has {json.dumps(old)}, now it is {json.dumps(new)}"


def save_catalogue(path: Path, catalogue: Catalogue) -> None:
    """Write a catalogue as one npz, which processes map into memory."""
    arrays: dict[str, npt.NDArray[Any]] = {"size": np.array([catalogue.n_users, catalogue.n_items])}
    for side, columns in (("items", catalogue.items), ("users", catalogue.users)):
        for name, column in columns.items():
            values = np.asarray(column)
            arrays[f"{side}.{name}"] = values.astype(np.str_) if values.dtype == object else values
    if catalogue.attributes is not None:
        arrays["attributes.offsets"], arrays["attributes.ids"] = catalogue.attributes
    save_mappable(path, arrays)


def load_catalogue(path: Path) -> Catalogue:
    """The catalogue that `save_catalogue` wrote, mapped into memory.

    Raises:
        FileError: it is missing, damaged, or not as the run has written it.
    """
    arrays = map_arrays(path)
    n_users, n_items = (int(n) for n in arrays["size"])
    columns: dict[str, dict[str, npt.NDArray[Any]]] = {"items": {}, "users": {}}
    for name, values in arrays.items():
        side, _, column = name.partition(".")
        if side in columns:
            columns[side][column] = values
    attributes = None
    if "attributes.ids" in arrays:
        attributes = (arrays["attributes.offsets"], arrays["attributes.ids"])
    return Catalogue(n_users, n_items, columns["items"], columns["users"], attributes)


def open_log(path: Path) -> EventLog | None:
    """The log at `path`, or None where there is none."""
    return EventLog.open(path) if present(path) else None


PLAIN = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")
"""Names that are file names as they are, on every file system, and that no file of ours has: lower
case and without a dot.
"""


def file_name(name: str) -> str:
    """The file name of an arm, a world or a scenario: one part of a path, and different names have
    different ones.

    A plain name stays as it is. Any other keeps what can be kept of it, so that people find it, and
    ends with `~` and a digest of the whole name, so that `A` and `a`, `x/y` and `x-y`, or two
    spellings of one accent lie apart also where a file system takes them for one. `~` is in no
    plain name.
    """
    if PLAIN.fullmatch(name):
        return name
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:40]
    return f"{kept}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
