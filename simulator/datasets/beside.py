"""Files that lie beside a log: which of them are there, and how far they and the log speak of the same ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from simulator.datasets.tables import DataError


def packed_or_plain(folder: Path, name: str) -> Path | None:
    """`name` or `name.gz` in `folder`; None where neither is there.

    Raises:
        DataError: both are.
    """
    there = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(there) == 2:
        raise DataError(f"{folder}: {name} and {name}.gz are both there: take one away, so that it is clear which is meant")
    return there[0] if there else None


def presence(read: Iterable[Path], absent: Iterable[str]) -> dict[str, list[str]]:
    """Notes: which side files were read, and which are not there."""
    notes = {"side files read": [file.name for file in read], "side files not there": list(absent)}
    return {words: names for words, names in notes.items() if names}


def coverage(what: str, file: str, listed: Collection[Any], logged: Collection[Any], fate: str) -> dict[str, int]:
    """Notes: how many ids only a side file has, and how many only the log.

    Args:
        what: `items` or `users`.
        file: name of the side file.
        listed, logged: distinct ids of the file and of the log.
        fate: what becomes of the ids that only the file has, in words.
    """
    listed, logged = set(listed), set(logged)
    return {
        f"{what} of {file} that the log never shows, {fate}": len(listed - logged),
        f"{what} of the log that {file} does not list": len(logged - listed),
    }
