"""The ledger of a run's folder: every piece that was written into it, with its digest, so that
nothing is lost or changed unseen.

One JSON object a line, appended as pieces are finished; a later line of a piece replaces the
earlier one. A line is written *before* its piece gets its name. So whatever a death leaves is one
of three things: a piece that is listed and there; a piece that is listed and still waits under its
temporary name (`settle` finishes the renaming); a temporary file that is not listed (`settle`
removes it). Everything else was done to the folder from outside, and `check` names it.

The digest is BLAKE2b of 256 bits (`b2sum -l 256 FILE` prints the same): about 1 GB/s on any
processor, where SHA-256 is as fast only with instructions of its own. It guards against accidents;
whoever can write a piece can write its line as well.

Files are not forced to the disk one by one: death of a process loses nothing that was written.
`flush` forces what a finished run consists of. A power cut during a run may lose pieces; they are
then named, and never taken for what they are not.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from policies.staging import PART, place_of
from simulator.log.remote import KEPT, LOCK, TRACKED, RemoteRun
from simulator.log.store import FileError, address_of, around, place

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo

LEDGER = "pieces.jsonl"
"""Name of the ledger; a folder with this file is a run's folder."""

CLAIM = "claim.json"
"""Which scenario a run's folder belongs to; it lies under `work` until the run is finished, and
then in the folder itself.
"""

SELF_SEALED = "checkpoints"
"""Folders of trainings in progress: their files carry their own digest, because policies know
nothing of runs.
"""

REMEDY = "Put back a whole copy of it, or run again into another folder (--out)"

STRANGE = "is not of this run: nothing there has written it"
"""What is wrong with a file that is not listed."""


@dataclass(frozen=True)
class Piece:
    """What the ledger says of one piece.

    Attributes:
        digest: BLAKE2b-256 of its bytes, in hexadecimal digits.
        size: bytes.
        rows: impressions in it; None of a piece that holds none.
        version: on a store, how often it was written before (`simulator.log.remote`).
        stored: on a store, the name of its object below the run's folder.
    """

    digest: str
    size: int
    rows: int | None = None
    version: int = 0
    stored: str = ""

    @classmethod
    def of(cls, file: Path, rows: int | None = None) -> Piece:
        """The piece that `file` is now."""
        with file.open("rb") as stream:
            digest = hashlib.file_digest(
                stream, lambda: hashlib.blake2b(digest_size=32)
            ).hexdigest()
            return cls(digest, stream.tell(), rows)


@dataclass(frozen=True)
class Ledger:
    """The ledger of the run's folder `root`."""

    root: Path

    @classmethod
    def around(cls, path: Path) -> Ledger | None:
        """The ledger of the run's folder that `path` lies in, the nearest one; None outside of
        runs.
        """
        for folder in path.absolute().parents:
            if (folder / LEDGER).is_file():
                return cls(folder)
        return None

    @property
    def file(self) -> Path:
        return self.root / LEDGER

    def publish(self, staging: Path, path: Path, rows: int | None = None) -> None:
        """Say that a piece lies at `path`, a place below the root, and give `staging` this name.

        Both happen while the ledger is locked: of several who publish the same piece, the last
        line is always that of the file that is there.

        Args:
            staging: the finished file.
            path: where it shall stand.
            rows: impressions in it.
        """
        piece = Piece.of(staging, rows)
        name = path.absolute().relative_to(self.root.absolute()).as_posix()
        entry: dict[str, Any] = {"piece": name, "bytes": piece.size}
        entry |= {"digest": piece.digest, "rows": piece.rows}
        remote = RemoteRun.of(self.root)
        if remote is not None:
            before = self.pieces().get(name)
            entry["version"] = 0 if before is None else before.version + 1
            entry["stored"] = remote.write(staging, name)
            remote.commit(_line(entry))
        with self._appending() as stream:
            end = stream.tell()
            try:
                stream.write(_line(entry).encode())
                os.replace(staging, path)
            except OSError:
                stream.truncate(end)
                raise

    @contextmanager
    def _appending(self) -> Iterator[BinaryIO]:
        """The ledger, locked, where its next line goes."""
        with self.file.open("r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            end = _end_of_whole_lines(stream)
            stream.truncate(end)
            stream.seek(end)
            yield stream

    def refresh(self) -> None:
        """Take in what other machines have written since, where the run lies on a store: it is
        listed, and what it replaces here goes.

        Raises:
            FileError: the store cannot be reached.
        """
        remote = RemoteRun.of(self.root)
        if remote is None:
            return
        remote.begin(self.file)
        with self._appending() as stream, remote.news() as news:
            listed = self.pieces()
            latest = {name: (piece.version, piece.stored) for name, piece in listed.items()}
            for entry in sorted(news, key=lambda entry: (entry["version"], entry["stored"])):
                name = entry["piece"]
                if (entry["version"], entry["stored"]) > latest.get(name, (-1, "")):
                    entry.pop("line")
                    stream.write(_line(entry).encode())
                    (self.root / name).unlink(missing_ok=True)

    def fetch(self, within: Path, ending: str = "", but: Sequence[str] = ()) -> None:
        """Bring the pieces at or below `within` here, where the run lies on a store.

        Args:
            within: a place in the run's folder.
            ending: of their names.
            but: folders of the run, of which no more than the folders inside is made here.

        Raises:
            FileError: one is not as it was written, or the store cannot be reached.
        """
        remote = RemoteRun.of(self.root)
        if remote is None:
            return
        for name, piece in self._required(within.absolute()).items():
            path = self.root / name
            if name.partition("/")[0] in but:
                path.parent.mkdir(parents=True, exist_ok=True)
            elif name.endswith(ending) and not path.is_file():
                remote.fetch(piece.stored, path)
                if _fault(path, piece, ()) is not None:
                    path.unlink()
                    address = f"{address_of(self.root)}/{piece.stored}"
                    raise FileError(f"{address} has changed since it was written. {REMEDY}")

    def _required(self, within: Path) -> dict[str, Piece]:
        """The pieces at or below a place that are there: those of a finished run's work are not."""
        listed = self.pieces()
        wanted = within.relative_to(self.root.absolute()).as_posix()
        gone = "work/" if CLAIM in listed else None
        if wanted in listed:  # one piece, without a look at all others
            listed = {wanted: listed[wanted]}
        return {
            name: piece
            for name, piece in listed.items()
            if (wanted in (name, ".") or name.startswith(f"{wanted}/"))
            and not (gone and name.startswith(gone))
        }

    def on_store(self, within: Path) -> dict[Path, Piece]:
        """The pieces at or below a place of a run on a store, whether or not they were brought
        here; of a local run none.
        """
        if RemoteRun.of(self.root) is None:
            return {}
        return {self.root / name: piece for name, piece in self._required(within).items()}

    def sweep(self) -> None:
        """Remove what attempts that died have left on the store of a finished run."""
        remote = RemoteRun.of(self.root)
        if remote is None:
            return
        stored = {piece.stored for piece in self.pieces().values()}
        for name in remote.sizes():
            if name.startswith(TRACKED) and name not in stored:
                remote.delete(name)

    def pieces(self) -> dict[str, Piece]:
        """The last line of every piece, by its path below the root.

        Raises:
            FileError: the ledger is missing, or a line of it is damaged.
        """
        return dict(self._lines())

    def settle(self) -> None:
        """Finish or undo what a death has interrupted. Nobody else may be writing into the folder.

        A temporary file whose digest is the last one of its piece gets its name; all other
        temporary files and folders go.
        """
        listed = self.pieces()
        for part in _temporary(self.root):
            if part.is_dir():
                shutil.rmtree(part)
                continue
            path = place_of(part)
            piece = None
            if path is not None:
                piece = listed.get(path.relative_to(self.root).as_posix())
            if path is not None and piece is not None and piece.digest == Piece.of(part).digest:
                os.replace(part, path)
            else:
                part.unlink()

    def check(self, within: Path | None = None) -> None:
        """Hold the pieces of the run to the ledger: all of them there, unchanged, and no others.

        Args:
            within: only the pieces at or below this place; None: all.

        Raises:
            FileError: what is missing, changed, cut, an earlier version, or not of this run; every
                such file is named.
        """
        faults = list(self._faults((within or self.root).absolute()))
        if faults:
            raise self._error(faults)

    def check_one(self, path: Path) -> None:
        """Hold one file to the ledger, if it is listed.

        Raises:
            FileError: it is missing or changed.
        """
        piece = self.pieces().get(path.absolute().relative_to(self.root.absolute()).as_posix())
        fault = None if piece is None else _fault(path, piece, ())
        if fault is not None:
            raise FileError(f"{path} {fault}. {REMEDY}")

    def hold(self, paths: Iterable[Path]) -> None:
        """Hold files and folders to the ledger before they are used: something is listed of each,
        and what is listed is unchanged.

        Raises:
            FileError: what is missing, changed, cut, an earlier version, or not of this run; every
                such file is named.
        """
        paths = list(paths)
        for path in paths:
            self.fetch(path)
        listed, earlier = self._versions()
        root, faults = self.root.absolute(), []
        for path in paths:
            wanted = path.absolute().relative_to(root).as_posix()
            names = [wanted] if wanted in listed else []
            if not names:
                names = [name for name in listed if name.startswith(f"{wanted}/")]
            if not names:
                faults.append(f"{wanted} {STRANGE}")
            for name in names:
                fault = _fault(root / name, listed[name], earlier.get(name, ()))
                if fault is not None:
                    faults.append(f"{name} {fault}")
        if faults:
            raise self._error(faults)

    def flush(self) -> None:
        """Force every piece outside of `work`, and the ledger, to the disk."""
        files = [self.root / name for name in self.pieces() if not name.startswith("work/")]
        for file in (*filter(Path.is_file, files), self.file):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())

    def _lines(self) -> Iterator[tuple[str, Piece]]:
        if not self.file.is_file():
            raise FileError(
                f"{self.root}: {LEDGER}, the list of the pieces of this run, is missing: they"
                " cannot be verified. It was removed, or the run is of an abtest that had none:"
                " run again into another folder (--out)"
            )
        state = self.file.stat()
        yield from _read(self.file, (state.st_ino, state.st_mtime_ns, state.st_size))

    def _versions(self) -> tuple[dict[str, Piece], dict[str, list[str]]]:
        """The last line of every piece, and the digests in its earlier ones."""
        listed: dict[str, Piece] = {}
        earlier: dict[str, list[str]] = {}
        for name, piece in self._lines():
            if name in listed:
                earlier.setdefault(name, []).append(listed[name].digest)
            listed[name] = piece
        return listed, earlier

    def _error(self, faults: list[str]) -> FileError:
        """What is wrong with pieces, of which the first 20 are told."""
        shown = faults[:20]
        if len(faults) > 20:
            shown.append(f"and {len(faults) - 20} more")
        told = "\n  ".join(shown)
        rule = f"pieces of this run are not as {LEDGER} lists them"
        return FileError(f"{self.root}: {rule}:\n  {told}\n{REMEDY}")

    def _faults(self, within: Path) -> Iterator[str]:
        """What is wrong with the pieces at or below `within`, one sentence each."""
        listed, earlier = self._versions()
        root = self.root.absolute()
        remote = RemoteRun.of(self.root)
        on_store = None if remote is None else remote.sizes()
        finished = CLAIM in listed if on_store is not None else (root / CLAIM).is_file()
        folders = KEPT if finished else (*KEPT, "work")
        required = {
            name for name in listed if name.startswith(tuple(f"{folder}/" for folder in folders))
        }
        if finished or CLAIM in listed:
            required.add(CLAIM)
        for name in sorted(required):
            path = root / name
            if path.is_relative_to(within):
                fault: str | None = "is not listed"
                if name in listed and on_store is not None and not path.is_file():
                    fault = _fault_of_size(on_store.get(listed[name].stored), listed[name])
                elif name in listed:
                    fault = _fault(path, listed[name], earlier.get(name, ()))
                if fault is not None:
                    yield f"{name} {fault}"
        for file in sorted(file for folder in folders for file in (root / folder).rglob("*")):
            name = file.relative_to(root).as_posix()
            own = SELF_SEALED in file.parts or file.is_dir()
            if not own and name not in listed and file.is_relative_to(within):
                yield f"{name} {STRANGE}"


def commit(staging: Path, path: Path, rows: int | None = None) -> None:
    """Give a finished file its name; within a run's folder it is listed first.

    Args:
        staging: where it was written.
        path: where it shall stand.
        rows: impressions in it.

    Raises:
        OSError, FileError: it cannot be listed, or stand there; the temporary file is then removed.
    """
    ledger = Ledger.around(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if ledger is None:
            there = around(path.absolute())
            if there is not None:
                store, name = there
                store.write(staging, name)
            os.replace(staging, path)
        else:
            ledger.publish(staging, path, rows)
    except (OSError, FileError):
        staging.unlink(missing_ok=True)
        raise


@lru_cache(maxsize=1)
def _read(file: Path, version: tuple[int, int, int]) -> tuple[tuple[str, Piece], ...]:
    """The lines of the ledger in `file`. It is read again where its `version` (inode, time of the
    last change, size) is another one: a run of many shards asks once for each.

    Raises:
        FileError: a line is damaged.
    """
    text = file.read_bytes()
    # A death may have cut the last line: its piece then has no name yet.
    whole = text[: text.rfind(b"\n") + 1]
    lines = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            entry: dict[str, Any] = json.loads(line)
            check = entry.pop("line")
            if check != _check_of(entry):
                raise ValueError("the line is not as it was written")
            name = entry.pop("piece")
            lines.append((name, Piece(size=entry.pop("bytes"), **entry)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(
                f"{file}:{number}: damaged ({error}): the run cannot be verified. {REMEDY}"
            ) from error
    return tuple(lines)


def _fault_of_size(size: int | None, piece: Piece) -> str | None:
    """What is wrong with an object that has `size` bytes (None: is not there); None if nothing can
    be seen so far: its digest is compared when it is brought here.
    """
    if size is None:
        return "is missing"
    return None if size == piece.size else f"has {size:,} bytes and should have {piece.size:,}"


def _fault(path: Path, piece: Piece, earlier: list[str] | tuple[str, ...]) -> str | None:
    """What is wrong with the file at `path`, which should be `piece`; None if nothing is."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    digest = Piece.of(path).digest
    if digest in earlier and digest != piece.digest:
        return "is stale: an earlier version of it"
    if size < piece.size:
        return f"is cut: it has {size:,} of {piece.size:,} bytes"
    return None if digest == piece.digest else "has changed since it was written"


def _temporary(root: Path) -> list[Path]:
    """Temporary files and folders of a run, outermost first; further worlds are runs of their
    own.
    """
    places = [*root.glob(f"*{PART}")]
    for folder in (*KEPT, "work"):
        places += (root / folder).rglob(f"*{PART}")
    places.sort()
    inside = {
        place
        for place in places
        if any(parent.name.endswith(PART) for parent in place.relative_to(root).parents)
    }
    return [place for place in places if place not in inside]


def _line(entry: Mapping[str, Any]) -> str:
    """What the ledger says of a piece, as its line."""
    return json.dumps({**entry, "line": _check_of(entry)}) + "\n"


def _check_of(entry: Mapping[str, Any]) -> str:
    """A check sum of a line, so that damage to the ledger itself is seen."""
    return f"{zlib.crc32(json.dumps(entry, sort_keys=True).encode()):08x}"


def _end_of_whole_lines(stream: BinaryIO) -> int:
    """Where the last whole line ends; a death may have left half a line after it."""
    end = stream.seek(0, os.SEEK_END)
    if end == 0:
        return 0
    stream.seek(end - 1)
    if stream.read(1) == b"\n":
        return end
    stream.seek(0)
    return stream.read(end).rfind(b"\n") + 1


def present(path: Path) -> bool:
    """Whether a file is there; of a run on a store, it is then also here."""
    bring(path)
    return path.is_file()


def bring(path: Path) -> None:
    """Bring what a run on a store has at or below `path` here, as far as it is listed here."""
    if around(path.absolute()) is not None:
        ledger = Ledger.around(path / LEDGER)
        if ledger is not None:
            ledger.fetch(path)


def on_store(path: Path) -> dict[Path, Piece]:
    """The pieces at or below a place, where that is in a run on a store."""
    if around(path.absolute()) is None:
        return {}
    ledger = Ledger.around(path / LEDGER)
    return {} if ledger is None else ledger.on_store(path.absolute())


@contextmanager
def opened(path: Path) -> Iterator[Path | NativeFile]:
    """A file of which some is to be read: that here, or the object of a piece on a store that
    nobody has brought here.

    Raises:
        FileError: the store cannot be reached.
    """
    piece = None if path.is_file() else on_store(path).get(path.absolute())
    ledger = None if piece is None else Ledger.around(path)
    remote = None if ledger is None else RemoteRun.of(ledger.root)
    if piece is None or remote is None:
        yield path
        return
    with remote.open(piece.stored) as stream:
        yield stream


def here(given: Path | str) -> Path:
    """Where a file or folder that somebody has named lies on this machine: what has an address is
    brought here first, but for the log, the sums and the models of a run, which come when they are
    read (`bring`).

    Raises:
        AddressError: it is none that can be used.
        FileError: the store cannot be reached, or a piece of a run is not as it was written.
    """
    path = place(given)
    if not isinstance(given, Path):
        fetch_all(path, KEPT)
    return path


def fetch_all(path: Path, but: Sequence[str] = ()) -> None:
    """Bring whatever lies at or below `path` on its store here: the pieces of runs, and other files
    where they have changed.

    Args:
        path: in the copy of a store; of any other nothing is brought.
        but: folders of runs of which only the folders inside are made here, and the piece that
            `path` is.

    Raises:
        FileError: the store cannot be reached, or a piece is not as it was written.
    """
    there = around(path.absolute())
    if there is None:
        return
    store, name = there
    bucket = path.absolute().parents[name.count("/")]
    found = store.list(name)
    roots = [bucket / Path(file).parent for file in found if file.endswith(f"/{LOCK}")]
    roots += (folder for folder in path.absolute().parents if _is_run(folder, bucket))
    for root in roots:
        Ledger(root).refresh()
        Ledger(root).fetch(root, but=but)
    if path.absolute() in on_store(path):
        bring(path)
    for name, there_now in found.items():
        file = bucket / name
        if not any(file.is_relative_to(root) for root in roots) and _is_old(file, there_now):
            store.read(name, file)
    for file in filter(Path.is_file, [path, *path.rglob("*")]):
        is_gone = file.absolute().relative_to(bucket).as_posix() not in found
        if is_gone and not any(file.is_relative_to(root) for root in roots):
            file.unlink()


def _is_old(file: Path, stored: FileInfo) -> bool:
    """Whether the copy of a file is not there, or perhaps older: not all stores tell the time."""
    if not file.is_file() or stored.mtime is None:
        return True
    return bool(file.stat().st_mtime < stored.mtime.timestamp())


def _is_run(folder: Path, bucket: Path) -> bool:
    """Whether a folder of a store, of which this is the copy, is that of a run."""
    remote = RemoteRun.of(folder) if folder.is_relative_to(bucket) and folder != bucket else None
    return remote is not None and bool(remote.owners())
