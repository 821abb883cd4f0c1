"""Arrays as long as a log, made a stretch at a time: what is made of a log that is larger than
memory lies in a file, as the log does. No policy and no log format lives here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

STRETCH = 1 << 20
"""Impressions that are looked at together."""

LARGE = 1 << 24
"""Bytes from which on an array lies in a file."""


def stretches(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Users some at a time: their rows, and their pieces of the flat columns, which have at most
    `STRETCH` entries, or those of one user. Without users there is one stretch, of nobody.

    Args:
        offsets: `[U + 1]`; user i has the entries `offsets[i]:offsets[i + 1]`.
    """
    n_users, first = len(offsets) - 1, 0
    while True:
        last = int(np.searchsorted(offsets, offsets[first] + STRETCH, side="right")) - 1
        last = min(max(last, first + 1), n_users)
        yield slice(first, last), slice(int(offsets[first]), int(offsets[last]))
        if last == n_users:
            return
        first = last


class Pile:
    """An array that grows part by part: in memory while it is small, else in a file without a name
    in the folder for temporary files, which goes with the array.
    """

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._bytes, self._rows = 0, 0
        self._file: Any = None

    def add(self, part: Array) -> None:
        """Put `part` `[n, ...]` at the end; all parts are of one type and, but for n, one shape."""
        self._parts.append(part)
        self._bytes += part.nbytes
        self._rows += len(part)
        if self._bytes >= LARGE:
            self._write()

    def array(self) -> Array:
        """All parts, one after another, in memory of the caller's own or in the file, which is
        mapped into memory.

        Raises:
            OSError: the folder for temporary files (`TMPDIR`) is full.
        """
        if self._file is None:
            return np.concatenate(self._parts)
        shape, kind = (self._rows, *self._parts[-1].shape[1:]), self._parts[-1].dtype
        self._write()
        with self._file as file:  # the map keeps it open
            return np.memmap(file, kind, "r+", shape=shape).view(np.ndarray)

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the array
        for part in self._parts:
            self._file.write(np.ascontiguousarray(part).data)
        self._file.flush()
        self._parts, self._bytes = [self._parts[-1][:0]], 0


def collected(parts: Iterable[Array]) -> Array:
    """Parts `[n, ...]`, at least one, as one array: a `Pile` of them."""
    pile = Pile()
    for part in parts:
        pile.add(part)
    return pile.array()
