"""A run whose folder lies on a store: which of the objects there are its pieces.

A store has no renames, no locks and no appending. So every process that makes pieces keeps a ledger
of its own there, `pieces/OWNER-PROCESS-NUMBER.jsonl`, with the lines of `simulator.log.ledger`; it
is put anew with each line, whole or not at all. A piece is an object of its own name, given by the
attempt that wrote it, and is believed once a line names it. Of several lines of one piece the one
with the highest version is right, then the one with the greatest name: everybody who reads the same
lines believes the same piece, and what it names is whole. Pieces do not depend on who makes them,
so it does not matter which of two attempts this is.

A store cannot keep a second process out, but the second one's pieces can be told apart. `.lock`
names the process that holds the run and a token of it, then the tokens of those that held it
before. Who takes the run over puts its own on top. Only ledgers of these owners are read, and
whoever writes a piece looks first whether it still holds the run. So a process that was taken over
stops at its next piece, and of two that begin at the same moment one does.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.staging import staging_of
from simulator.log.store import FileError, Store, address_of, around

if TYPE_CHECKING:
    from pyarrow import NativeFile

LOCK = ".lock"
"""File in a run's folder that says which process holds it: who that is, and its token, a line each;
on a store also the tokens of those before it.
"""

COPIED = ".copied"
"""File in the copy of a run: the token of the first process that held the run, and the name and the
bytes of each ledger on the store that has been put into that here.
"""

SEGMENTS = "pieces"
"""Folder of the ledgers of a run's processes on a store."""

LINES = 100
"""Lines of such a ledger, which is put anew with each; then the next one begins."""

KEPT = ("log", "sums", "models")
"""The folders of a finished run that tasks have written."""

TRACKED = tuple(f"{folder}/" for folder in (*KEPT, "work"))
"""What tasks write, each attempt under a name of its own. Whatever else lies in a run's folder is
written by the one process that holds it, and keeps its name on a store too.
"""


@dataclass(frozen=True)
class RemoteRun:
    """A run on a store, and the copy of what of it is needed here.

    Attributes:
        root: of the copy.
        store: where the run lies.
        base: its folder there.
    """

    root: Path
    store: Store
    base: str

    @classmethod
    def of(cls, root: Path) -> RemoteRun | None:
        """The run that `root` is the copy of; None of a run on a local disk."""
        there = around(root.absolute())
        return None if there is None else cls(root, *there)

    def owners(self) -> list[str]:
        """Who holds the run, its token, and the tokens of those before; [] where nobody ever did.

        Raises:
            FileError: the store cannot be reached.
        """
        return (self.store.text(self._at(LOCK)) or "").splitlines()

    def take(self) -> None:
        """Hold the run from now on.

        Raises:
            FileError: the store cannot be reached, or another process takes it at this moment.
        """
        holder, token = self._ours()
        _, *before = self.owners() or [holder]
        owners = [holder, token, *(one for one in before if one != token)]
        self.store.write_text(self._at(LOCK), "\n".join(owners) + "\n")
        self._keep([owners[-1], *self._known()[1:]])
        self.hold()

    def follow(self, holder: str) -> None:
        """Work on this machine for the process that holds the run, perhaps from another one.

        Args:
            holder: what its `.lock` says.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        file = self.root / LOCK
        if not file.is_file() or file.read_text(encoding="utf-8") != holder:
            file.write_text(holder, encoding="utf-8")

    def hold(self) -> None:
        """Make sure that this process, or the one that it works for, holds the run.

        Raises:
            FileError: it does not.
        """
        owners = self.owners()
        if owners[1:2] != self._ours()[1:]:
            who = owners[0] if owners else "nobody: it has been removed"
            raise FileError(f"{address_of(self.root)} is now held by {who}; this process ends")

    def write(self, path: Path, name: str) -> str:
        """Put a piece there, and return the name of its object below the run's folder."""
        stored = name
        if name.startswith(TRACKED):
            folder, slash, file = name.rpartition("/")
            stem, dot, ending = file.partition(".")
            stored = f"{folder}{slash}{stem}.{secrets.token_hex(6)}{dot}{ending}"
        self.store.write(path, self._at(stored))
        return stored

    def commit(self, line: str) -> None:
        """Say that a piece is there: put this process's ledger with one more line."""
        self.hold()
        _, token = self._ours()
        mine = _WRITTEN.setdefault((self.root, token, os.getpid()), _Segments())
        mine.lines.append(line)
        self.store.write_text(self._at(f"{SEGMENTS}/{token}-{mine.name}"), "".join(mine.lines))
        if len(mine.lines) == LINES:
            mine.turn()

    def begin(self, listed: Path) -> None:
        """Begin a copy: where `listed`, the ledger here, is not there, and where the run on the
        store is another one than that which the copy is of, which goes.

        Raises:
            FileError: the store cannot be reached.
        """
        first = self.owners()[-1:]
        if listed.is_file() and self._known()[:1] == first:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        for old in self.root.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
            elif old.name != LOCK:
                old.unlink()
        listed.touch()
        self._keep(first)

    @contextmanager
    def news(self) -> Iterator[list[dict[str, Any]]]:
        """The entries of all ledgers that have grown since they were last put into that here, which
        is done inside, while it is locked.

        Raises:
            FileError: the store cannot be reached.
        """
        owners, known = self.owners()[1:], self._known()
        entries: list[dict[str, Any]] = []
        sizes = dict(line.split(" ") for line in known[1:])
        for name, found in sorted(self.store.list(self._at(SEGMENTS)).items()):
            file = name.rpartition("/")[2]
            if file.partition("-")[0] in owners and sizes.get(file) != str(found.size):
                text = self.store.text(name) or ""
                entries += map(json.loads, text.splitlines())
                sizes[file] = str(len(text.encode()))
        yield entries
        self._keep([*known[:1], *map(" ".join, sizes.items())])

    def fetch(self, stored: str, path: Path) -> None:
        """Bring a piece here."""
        self.store.read(self._at(stored), path)

    def open(self, stored: str) -> NativeFile:
        """A piece as it lies there."""
        return self.store.open(self._at(stored))

    def sizes(self) -> dict[str, int]:
        """Bytes of every object of the run, by its name below the run's folder."""
        start = len(self.base) + 1
        return {name[start:]: found.size for name, found in self.store.list(self.base).items()}

    def delete(self, name: str) -> None:
        """Remove an object or a folder of the run."""
        self.store.delete(self._at(name))

    def _known(self) -> list[str]:
        file = self.root / COPIED
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    def _keep(self, lines: list[str]) -> None:
        staging = staging_of(self.root / COPIED)
        staging.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(staging, self.root / COPIED)

    def _ours(self) -> list[str]:
        """Who holds the copy here, and its token."""
        return (self.root / LOCK).read_text(encoding="utf-8").splitlines()[:2]

    def _at(self, name: str) -> str:
        return f"{self.base}/{name}"


class _Segments:
    """The ledger that a process is writing: its name, and the lines it has so far."""

    def __init__(self) -> None:
        self.process, self.number = secrets.token_hex(6), 0
        self.lines: list[str] = []

    @property
    def name(self) -> str:
        return f"{self.process}-{self.number:05d}.jsonl"

    def turn(self) -> None:
        self.number, self.lines = self.number + 1, []


_WRITTEN: dict[tuple[Path, str, int], _Segments] = {}
