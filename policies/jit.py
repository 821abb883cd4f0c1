"""`njit`: numba's, with its cache on and each kernel compiled by one process at a time.

The workers of a run come to the same kernels at the same moment. Each would compile them, all for
itself: 30 CPU seconds a worker. Here the first that comes compiles while the others wait, and then
read what it wrote into the cache. Importing this module imports numba.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba
from numba.core.compiler_lock import global_compiler_lock

F = TypeVar("F", bound=Callable[..., Any])

LOCK = ".abtest-compile"
"""Name of the file that the compiling process holds, in the folder of the cache."""

_holders = 0


def njit(**options: Any) -> Callable[[F], F]:
    """A decorator: the function compiled at its first call with arguments of a kind, or read from
    the cache.

    Args:
        options: of `numba.njit`; the cache is on.
    """

    def compiled(function: F) -> F:
        dispatcher: Any = numba.njit(cache=True, **options)(function)
        compile_alone = dispatcher.compile

        def compile(signature: Any) -> Any:
            # The lock of numba's compiler first, as whoever calls this function in a kernel of
            # their own holds it by now: one order of locks, so that threads cannot wait in a ring.
            with global_compiler_lock, _alone():
                return compile_alone(signature)

        dispatcher.compile = compile
        return dispatcher  # type: ignore[no-any-return]

    return compiled


@contextmanager
def _alone() -> Iterator[None]:
    """Among all processes that share the cache. A kernel compiles those that it calls, so a process
    may enter again. The lock saves work and keeps nothing right: numba writes its cache by renaming
    whole files. So where files cannot be locked (some network file systems) everybody compiles.
    """
    global _holders
    handle = None if _holders else _locked()
    _holders += 1
    try:
        yield
    finally:
        _holders -= 1
        if handle is not None:
            os.close(handle)


def _locked() -> int | None:
    """The lock's file, opened and locked; closing it, and the end of a process, unlocks it."""
    folder = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(
        os.path.dirname(__file__), "__pycache__"
    )
    try:
        os.makedirs(folder, exist_ok=True)
        handle = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        os.close(handle)
        return None
    return handle
