"""Files that are whole or not there: written beside their place under another name, then renamed;
and their reading back.

Within a run's folder every file is listed with its digest (`simulator.log.ledger`). What goes wrong
with a file, in whatever library, is one `FileError` that names it.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import mmap
import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from policies.staging import staging_of
from simulator.log.ledger import REMEDY, Ledger, bring, commit
from simulator.log.store import FileError, around

__all__ = [
    "HIDDEN",
    "FileError",
    "adopt",
    "csv_text",
    "load_arrays",
    "map_arrays",
    "mapped",
    "partitions",
    "read_json",
    "save_arrays",
    "save_mappable",
    "staged",
    "write_text",
    "write_texts",
    "writing",
]


HIDDEN = "_."
"""What the names of files begin with that writers of tables hide (`_temporary`, `.crc`)."""

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions(inside: Path) -> list[tuple[str, str | None]]:
    """The columns that the folders of a part name, and their values, as Hive writes them
    (`arm=new/part-0.parquet`).
    """
    steps = [step.partition("=") for step in inside.parts[:-1] if "=" in step]
    return [
        (unquote(name), None if value == HIVE_NULL else unquote(value)) for name, _, value in steps
    ]


@contextmanager
def staged(path: Path, rows: int | None = None) -> Iterator[Path]:
    """Where to write what will stand at `path`; it does only if nothing was raised. Its folder is
    made if it is not there.

    Args:
        path: of the file.
        rows: impressions in it, for the ledger of a run.

    Raises:
        FileError: it cannot be written: no space, no permission, a path below a file, ...
    """
    staging = staging_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield staging
        except BaseException:
            with suppress(OSError):
                staging.unlink(missing_ok=True)
            raise
        commit(staging, path, rows)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing `path` into a FileError."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "give another place (--out)")
        raise FileError(f"{path} cannot be written: {reason(error)}; {advice}") from error


@contextmanager
def reading(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turn whatever goes wrong with the bytes of `path` into a FileError; nothing but reading may
    be done inside.

    Damaged bytes make zipfile, zlib, struct, json and NumPy raise errors of many unrelated types.
    """
    try:
        yield
    except FileError:
        raise
    except FileNotFoundError as error:
        raise FileError(f"{path} is missing. {remedy}") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {reason(error)}. {remedy}") from error
    except Exception as error:
        raise FileError(f"{path} is damaged ({type(error).__name__}: {error}). {remedy}") from error


FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What the system says where a disk, a quota or a file may not grow: never the fault of who writes.
"""


ADVICE = {
    errno.ENOSPC: "make room there, or give another place (--out)",
    errno.EDQUOT: "make room there, or give another place (--out)",
    errno.EFBIG: "files may not be so large here (ulimit -f)",
    errno.ENOTDIR: "a part of the path is a file; give another place (--out)",
    errno.ENAMETOOLONG: "give a shorter name (--out)",
}
"""What to do about what the system says."""


def reason(error: OSError) -> str:
    """What the system said, in its words; libraries often keep only the number."""
    return os.strerror(error.errno) if error.errno else str(error)


def looked_up(path: Path) -> str:
    """Where a path is, in words for a message, if that depends on the working directory."""
    return "" if path.is_absolute() else f" (looked up as {os.path.normpath(Path.cwd() / path)})"


def write_text(path: Path, text: str) -> Path:
    """Write a text file; its folder is made if it is not there. Returns its path.

    Raises:
        FileError: it cannot be written.
    """
    with staged(path) as staging:
        staging.write_text(text, encoding="utf-8")
    return path


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write text files by name into `folder`, which is made if it is not there."""
    for name, text in texts.items():
        write_text(folder / name, text)


def json_text(value: Any) -> str:
    """Plain JSON values as indented JSON, without NaN and infinite numbers.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV (RFC 4180), the heads among them; None is empty."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def read_json(path: Path, remedy: str = REMEDY) -> Any:
    """The content of a JSON file; within a run's folder it must be as it was written.

    Raises:
        FileError: it is missing, changed or no JSON.
    """
    bring(path)
    ledger = Ledger.around(path)
    if ledger is not None:
        ledger.check_one(path)
    with reading(path, remedy):
        return json.loads(path.read_text(encoding="utf-8"))


def save_arrays(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], rows: int | None = None
) -> None:
    """Write named arrays as one uncompressed npz; its folder is made if it is not there.

    Args:
        path: of the file.
        arrays: by name.
        rows: impressions in it, for the ledger of a run.

    Raises:
        FileError: it cannot be written.
    """
    with staged(path, rows) as staging, staging.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `save_arrays` wrote.

    Args:
        path: of the file.
        names: only these; None: all.

    Raises:
        FileError: it is missing or damaged.
    """
    bring(path)
    with (
        reading(path),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as stored,
    ):
        return {name: stored[name] for name in (stored.files if names is None else names)}


def save_mappable(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as `save_arrays` does, each where `map_arrays` can use it as it lies: its
    numbers begin at a multiple of ALIGNMENT bytes.

    Raises:
        FileError: it cannot be written.
    """
    with staged(path) as staging, staging.open("wb") as stream, zipfile.ZipFile(stream, "w") as npz:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            # NumPy's header has a multiple of ALIGNMENT bytes; that of zip gets a field of zeros.
            fields = LARGE + ZIP_FIELD.size
            begin = stream.tell() + LOCAL.size + len(member.filename.encode()) + fields
            zeros = bytes(-begin % ALIGNMENT)
            member.extra = ZIP_FIELD.pack(ZEROS, len(zeros)) + zeros
            with npz.open(member, "w", force_zip64=True) as target:
                np.lib.format.write_array(target, np.asarray(array), allow_pickle=False)


def map_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `save_mappable` wrote, mapped into memory: processes of a machine share them,
    and what is written into them here stays in this process. Within a run's folder the file must
    be as it was written.

    Raises:
        FileError: it is missing, changed or damaged.
    """
    bring(path)
    ledger = Ledger.around(path)
    if ledger is not None:
        ledger.check_one(path)
    arrays = {}
    with reading(path), path.open("rb") as stream, zipfile.ZipFile(stream) as npz:
        memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        for member in npz.infolist():
            with npz.open(member) as source:
                version = np.lib.format.read_magic(source)
                shape, is_fortran, kind = READERS[version](source)
                header = source.tell()
            if kind.hasobject or member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is no plain array")
            _, name, extra = LOCAL.unpack_from(memory, member.header_offset)
            begin = member.header_offset + LOCAL.size + name + extra + header
            order: Literal["C", "F"] = "F" if is_fortran else "C"
            array = np.ndarray(shape, kind, memory, begin, order=order)
            # A file of another writer may have them anywhere: then they are copied.
            arrays[member.filename.removesuffix(".npy")] = np.require(array, requirements="A")
    return arrays


ALIGNMENT = 64
"""Bytes of a cache line, and of what NumPy's header is a multiple of."""

ZIP_FIELD = struct.Struct("<HH")
"""A further field of a zip header: its id and the bytes that follow."""

LARGE = 20
"""Bytes of the field with the sizes of a member that may be large."""

ZEROS = 0xD935
"""The id of a field that only fills (that of Android's zipalign)."""

LOCAL = struct.Struct("<26sHH")
"""The header before a member of a zip: 26 bytes, then the lengths of its name and of its further
fields, which come behind it (PKWARE, APPNOTE 4.3.7).
"""

READERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""How a header of NumPy's format is read, by its version."""


def mapped(path: Path) -> npt.NDArray[Any]:
    """An array that `numpy.save` wrote, mapped into memory; what is written into it here stays in
    this process.

    Raises:
        FileError: it is missing or damaged.
    """
    with reading(path):
        array = np.load(path, mmap_mode="c")
        return array.view(np.ndarray)  # type: ignore[no-any-return]


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, here and on its store; nothing where there is none.

    Raises:
        FileError: its store cannot be reached.
    """
    there = around(folder.absolute())
    if there is not None:
        store, name = there
        store.delete(name)
    shutil.rmtree(folder, ignore_errors=True)


def adopt(source: Path, folder: Path, last: str) -> None:
    """Move the files of `source`, a folder with a temporary name, into `folder`, where each is
    listed; `source` then goes.

    Args:
        source: files only; sub-folders are left behind.
        folder: is made if it is not there.
        last: the file that says that all are there: it is moved last.

    Raises:
        FileError: one cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(
            filter(Path.is_file, source.iterdir()), key=lambda file: (file.name == last, file.name)
        ):
            staging = staging_of(folder / file.name)
            os.replace(file, staging)
            commit(staging, folder / file.name)
        shutil.rmtree(source)
