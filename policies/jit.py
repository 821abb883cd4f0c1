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
import numpy as np
import numpy.typing as npt
from numba.core.compiler_lock import global_compiler_lock
from numba.core.sigutils import normalize_signature
from numba.core.types import unliteral

from policies.clock import stopped

F = TypeVar("F", bound=Callable[..., Any])
D = TypeVar("D", bound=np.generic)

_compiling: set[str] = set()


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
            # One kernel for all integers: numba would compile another one for every constant that
            # a kernel hands to it.
            kinds = normalize_signature(signature)[0]  # type: ignore[no-untyped-call]
            signature = tuple(map(unliteral, kinds))
            # The lock of numba's compiler first, as whoever calls this function in a kernel of
            # their own holds it by now: one order of locks, so that threads cannot wait in a ring.
            name = f"{function.__module__}.{function.__qualname__}"
            with stopped(), global_compiler_lock, _alone(name):
                return compile_alone(signature)

        dispatcher.compile = compile
        return dispatcher  # type: ignore[no-any-return]

    return compiled


def read_only(array: npt.NDArray[D]) -> npt.NDArray[D]:
    """A view that cannot be written: for arguments that come so or otherwise, as a kernel is
    compiled once for either kind.
    """
    view = array.view()
    view.setflags(write=False)
    return view


@contextmanager
def _alone(kernel: str) -> Iterator[None]:
    """Among all processes that share the cache. Other processes compile other kernels meanwhile; a
    kernel compiles those that it calls, so kernels must not call each other in a ring.

    The lock saves work and keeps nothing right: numba writes its cache by renaming whole files. So
    where files cannot be locked (some network file systems) everybody compiles.
    """
    if kernel in _compiling:  # it calls itself
        yield
        return
    handle = _locked(kernel)
    _compiling.add(kernel)
    try:
        yield
    finally:
        _compiling.remove(kernel)
        if handle is not None:
            os.close(handle)


def _locked(kernel: str) -> int | None:
    """The lock's file, opened and locked; closing it, and the end of a process, unlocks it."""
    folder = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(
        os.path.dirname(__file__), "__pycache__"
    )
    try:
        os.makedirs(folder, exist_ok=True)
        place = os.path.join(folder, f".{kernel}.compiling")
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        os.close(handle)
        return None
    return handle
