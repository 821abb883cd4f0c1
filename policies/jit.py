"""`njit`: numba's, with a cache that knows what a kernel is made of, and each kernel compiled by
one process at a time.

The workers of a run come to the same kernels at the same moment. Each would compile them, all for
itself. Here the first that comes compiles while the others wait, and then read what it wrote into
the cache. Importing this module imports numba.

A function is compiled for who calls it: as a *kernel*, with the code that unpacks Python's objects,
where Python calls, and as a *part* where a kernel does (`lowering`).
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import llvmlite
import numba
import numpy as np
import numpy.typing as npt
from numba.core.caching import IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic
from numba.core.sigutils import normalize_signature
from numba.core.types import unliteral

from policies import lowering
from policies.clock import stopped

F = TypeVar("F", bound=Callable[..., Any])
D = TypeVar("D", bound=np.generic)

_compiling: set[str] = set()


def njit(**options: Any) -> Callable[[F], F]:
    """A decorator: the function compiled at its first call with arguments of a kind, or read from
    the cache.

    Args:
        options: of `numba.njit`, over these: the cache is on, other threads run meanwhile
            (`nogil`), and a division by zero gives what IEEE 754 says (0 of whole numbers).
    """

    def compiled(function: F) -> F:
        kernel = _dispatcher(function, {**_OPTIONS, **_KERNEL, **options}, "kernel")
        part = _dispatcher(function, {**_OPTIONS, **_PART, **options}, "part")
        part.add_overload = partial(_add, part)
        part._cache._impl = lowering.PartCache(function)
        # What numba asks for where another kernel calls this one.
        kernel.get_call_template = part.get_call_template
        kernel.get_overload = part.get_overload
        return kernel  # type: ignore[no-any-return]

    return compiled


_OPTIONS = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": False,
    "forceinline": False,
    "no_cfunc_wrapper": True,
}
"""Arithmetic is said in full: what is not, a function would take over from whichever kernel calls
it first. And nobody calls a kernel by a pointer of C.
"""

_KERNEL = {"pipeline_class": lowering.KernelCompiler}
_PART = {"pipeline_class": lowering.PartCompiler, "no_cpython_wrapper": True}


def _add(part: Any, result: Any) -> None:
    """Note what was compiled of a part, which has no code that Python could call."""
    part.overloads[tuple(result.signature.args)] = result


def read_only(array: npt.NDArray[D]) -> npt.NDArray[D]:
    """A view that cannot be written: for arguments that come so or otherwise, as a kernel is
    compiled once for either kind.
    """
    view = array.view()
    view.setflags(write=False)
    return view


def made_of(kernel: Any) -> str:
    """A digest of all that a kernel's machine code is a function of, but for the kinds of its
    arguments and the processor, which numba's own key has: its code and options and, of whatever it
    names, constants by value and kernels by their digest; numba and LLVM by their version, and
    how they are used here.

    numba itself looks at the file of a kernel alone: a kernel whose parts or constants stand in
    other files would stay what it was when those change.

    Args:
        kernel: what `njit` gave back.
    """
    return _digest(kernel, ())


_DIGESTS: dict[Any, str] = {}


def _digest(kernel: Any, callers: tuple[Any, ...]) -> str:
    function = kernel.py_func
    if function in callers:  # it calls itself
        return "itself"
    options = sorted((name, _said(value)) for name, value in kernel.targetoptions.items())
    known = function, repr(options)
    if known not in _DIGESTS:
        facts = [llvmlite.__version__, numba.__version__, _compiler(), repr(options)]
        facts += _facts(function, function.__code__, (*callers, function))
        _DIGESTS[known] = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    return _DIGESTS[known]


@cache
def _compiler() -> str:
    return inspect.getsource(lowering)


def _facts(function: Any, code: CodeType, callers: tuple[Any, ...]) -> Iterator[str]:
    """What a function does, in words that are the same in every process."""
    yield code.co_code.hex()
    yield _said(function.__defaults__)
    yield repr((code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _facts(function, constant, callers)
        else:
            yield _said(constant)
    cells = function.__closure__ or ()
    names = {**function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        names[name] = cell.cell_contents
    for name in (*code.co_names, *code.co_freevars):
        for value in _values(names[name], code.co_names) if name in names else ():
            yield f"{name} = {_made(value, callers)}"


def _made(value: Any, callers: tuple[Any, ...]) -> str:
    """A kernel by its digest; what writes LLVM's language (`numba.extending.intrinsic`), and the
    functions of Python that it asks, by what they do; anything else as text.
    """
    if isinstance(value, Dispatcher):
        return _digest(value, callers)
    function = value._defn if isinstance(value, _Intrinsic) else value
    if not isinstance(function, FunctionType) or _home(function) in _VERSIONED:
        return _said(value)
    if function in callers:
        return "itself"
    return repr(list(_facts(function, function.__code__, (*callers, function))))


def _home(value: Any) -> str:
    """The package in which something stands."""
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
    return str(name).split(".")[0]


def _values(value: Any, attributes: tuple[str, ...]) -> Iterator[Any]:
    """What a function may take from what a name stands for: of a module and a class of Python, the
    attributes that it names.
    """
    yield value
    if isinstance(value, (ModuleType, type)) and _home(value) not in _KNOWN_BY_NUMBA:
        for attribute in attributes:
            if hasattr(value, attribute):
                yield getattr(value, attribute)


_KNOWN_BY_NUMBA = {"builtins", "math", "numpy"}
"""Of what stands there numba compiles code of its own."""

_VERSIONED = {*_KNOWN_BY_NUMBA, "numba", "llvmlite"}
"""Functions that stand there change with the version of numba or LLVM."""


def _said(value: Any) -> str:
    """A constant as text; a class or a function of Python by its name."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    if isinstance(value, (set, frozenset)):
        return repr(sorted(map(_said, value)))
    if isinstance(value, tuple):
        return repr([_said(part) for part in value])
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__} {getattr(value, '_fields', '')}"
    if isinstance(value, ModuleType):
        return value.__name__
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return f"{type(value).__qualname__} {value!r}"


def _dispatcher(function: Any, options: dict[str, Any], side: str) -> Any:
    """numba's, whose cache is keyed by `made_of` and filled by one process."""
    dispatcher: Any = numba.njit(**options)(function)
    compile_alone = dispatcher.compile
    name = f"{function.__module__}.{function.__qualname__}"

    def compile(signature: Any) -> Any:
        # One kernel for all integers: numba would compile another one for every constant that
        # a kernel hands to it.
        kinds = normalize_signature(signature)[0]
        kinds = tuple(map(unliteral, kinds))
        if kinds in dispatcher.overloads:
            return dispatcher.overloads[kinds].entry_point
        # The lock of numba's compiler first, as whoever calls this function in a kernel of
        # their own holds it by now: one order of locks, so that threads cannot wait in a ring.
        with stopped(), global_compiler_lock, _alone(f"{name}.{side}"), _garbage_kept():
            _key(dispatcher, f"{name}.{side}")
            entry = compile_alone(kinds)
            if side == "kernel":
                lowering.bind(dispatcher.overloads[kinds])
            return entry

    dispatcher.compile = compile
    return dispatcher


def _key(dispatcher: Any, name: str) -> None:
    """Have numba take for fresh what was compiled of the same things, wherever in its file the
    function stands.
    """
    cache = dispatcher._cache
    digest = made_of(dispatcher)
    file = IndexDataCacheFile(cache.cache_path, f"{name}.{sys.implementation.cache_tag}", digest)
    # Read before anything else: numba would build the kinds of the arguments first, of classes
    # that another revision may not have.
    file._version = digest
    cache._cache_file = file


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """No search for garbage inside: compiling makes millions of objects and next to no cycles, and
    the search would take a tenth of its time. What is left counts as old, so that the next search
    does not go through all of it.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


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
