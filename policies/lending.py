"""What is lent to a policy: arrays that nobody can write into, and proof that nobody did. No policy
is called here.

`flags.writeable = False` alone is no lock: whoever holds an array that owns its memory, or a view
of one, can set the flag back. So small arguments are copied into immutable bytes, and large ones
are views through a read-only buffer. Native code can still write through a pointer; that is found
by comparing with what was lent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Value = TypeVar("Value")


class Lending(Protocol):
    """One way of lending."""

    def __call__(self, value: Value) -> Value:
        """`value` (an array, or a dataclass, mapping or tuple of arrays) as the borrower gets
        it.
        """

    def changed(self) -> str | None:
        """The name of the first array that is not as it was lent, or None."""


class Frozen:
    """Copies in memory that is read-only from the start: for the arguments of one call."""

    def __init__(self) -> None:
        self._copies: dict[int, tuple[Array, Array, str]] = {}

    def __call__(self, value: Value) -> Value:
        return cast(Value, _each(value, self._copy, ""))

    def _copy(self, array: Array, name: str) -> Array:
        if id(array) not in self._copies:
            no_bytes = array.size == 0 or array.dtype.hasobject
            copy = _locked(array) if no_bytes else np.frombuffer(array.tobytes(), array.dtype)
            copy = copy.reshape(array.shape)
            self._copies[id(array)] = array, copy, name
        return self._copies[id(array)][1]

    def changed(self) -> str | None:
        for array, copy, name in self._copies.values():
            if not np.array_equal(array, copy, equal_nan=array.dtype.kind == "f"):
                return name
        return None


class Shared:
    """Read-only views of the lender's own memory: for a log, which is too large to be copied.
    Digests show whether it is unchanged.
    """

    def __init__(self) -> None:
        self._lent: list[tuple[Array, str, bytes]] = []

    def __call__(self, value: Value) -> Value:
        return cast(Value, _each(value, self._view, ""))

    def _view(self, array: Array, name: str) -> Array:
        if array.dtype.hasobject:
            return _locked(array)  # a copy: objects cannot be seen through a buffer
        whole = np.ascontiguousarray(array)
        self._lent.append((whole, name, _digest(whole)))
        if not array.size:
            return _locked(array)
        return np.frombuffer(_bytes(whole).toreadonly(), array.dtype).reshape(array.shape)

    def changed(self) -> str | None:
        return next((name for array, name, before in self._lent if _digest(array) != before), None)


class Given:
    """Copies that the borrower may do with as it likes."""

    def __call__(self, value: Value) -> Value:
        return cast(Value, _each(value, lambda array, name: np.array(array), ""))

    def changed(self) -> str | None:
        return None


def _each(value: Any, lend: Any, name: str) -> Any:
    """`value` with each array in it lent; containers are new ones, so that what is done to them
    stays with the borrower.
    """
    if isinstance(value, np.ndarray):
        return lend(value, name)
    if is_dataclass(value) and not isinstance(value, type):
        path = f"{name}." if name else f"{type(value).__name__.lower()}."
        lent = {f.name: getattr(value, f.name) for f in fields(value)}
        for name, one in lent.items():
            if one is not None:
                lent[name] = _each(one, lend, path + name)
        return type(value)(**lent)
    if isinstance(value, Mapping):
        return {key: _each(one, lend, f"{name}[{key!r}]") for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_each(one, lend, f"{name}[{i}]") for i, one in enumerate(value))
    return value


def _locked(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _bytes(array: Array) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _digest(array: Array) -> bytes:
    return hashlib.sha256(_bytes(array)).digest()
