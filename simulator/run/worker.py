"""What a worker process does around its tasks, whatever has started it."""

from __future__ import annotations

import atexit
import ctypes
import gc
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LENGTH = 512
"""Bytes of a note."""


class Note:
    """In which policy's code this process is, in a file that outlives it: so a policy that ends its
    process is named. What is assigned to `value` lies in `path` at once.
    """

    def __init__(self) -> None:
        handle, self.path = tempfile.mkstemp(prefix="abtest-note-")
        os.ftruncate(handle, LENGTH)
        self._memory = mmap.mmap(handle, LENGTH)
        os.close(handle)
        atexit.register(Path(self.path).unlink, missing_ok=True)

    def __len__(self) -> int:
        return LENGTH

    @property
    def value(self) -> bytes:
        """The text as bytes, b"" = in no policy's code."""
        return self._memory[:].rstrip(b"\0")

    @value.setter
    def value(self, text: bytes) -> None:
        self._memory[:] = text.ljust(LENGTH, b"\0")


def read_note(path: str) -> str:
    """What the note of a dead process says; the file goes."""
    file = Path(path)
    if not file.is_file():
        return ""
    text = file.read_bytes().rstrip(b"\0").decode(errors="replace")
    file.unlink(missing_ok=True)
    return text


SHORT = 1.0
"""Seconds in which a task does not take memory that is worth the tenth of a second to look for."""


@contextmanager
def releasing() -> Iterator[None]:
    """Give memory that is freed inside back to the system: a worker's next task may need little,
    and its neighbour much.
    """
    began = time.monotonic()
    try:
        yield
    finally:
        if time.monotonic() > began + SHORT:
            _release()


def _release() -> None:
    gc.collect()
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
