"""Files that lie beside a log: which of them are there, and how far they and the log speak of the
same ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from simulator.datasets.delimited import DataError


def packed_or_plain(folder: Path, name: str) -> Path | None:
    """`name` or `name.gz` in `folder`; None where neither is there.

    Raises:
        DataError: both are.
    """
    candidates = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if len(candidates) == 2:
        raise DataError(
            f"{folder}: {name} and {name}.gz are both there: take one away, so that it is clear"
            " which is meant"
        )
    return candidates[0] if candidates else None


def presence(present: Iterable[Path], absent: Iterable[str]) -> dict[str, list[str]]:
    """Notes: which side files were read, and which are not there."""
    notes = {
        "side files read": [file.name for file in present],
        "side files not there": list(absent),
    }
    return {words: names for words, names in notes.items() if names}


def coverage(
    what: str, file: str, file_ids: Collection[Any], log_ids: Collection[Any], fate: str
) -> dict[str, int]:
    """Notes: how many ids only a side file has, and how many only the log.

    Args:
        what: `items` or `users`.
        file: name of the side file.
        file_ids, log_ids: ids of the file and of the log.
        fate: what becomes of the ids that only the file has, in words.
    """
    only_file, only_log = set(file_ids) - set(log_ids), set(log_ids) - set(file_ids)
    return {
        f"{what} of {file} that the log never shows, {fate}": len(only_file),
        f"{what} of the log that {file} does not list": len(only_log),
    }
