"""True is no number: pydantic takes it for 1 where a whole number or a float is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str | int, ...]


def counted_booleans(given: Any, made: Any) -> Iterator[tuple[Path, bool]]:
    """Where `given` has true or false and what was `made` of it has a number.

    Args:
        given: what a file says: numbers, text, lists and mappings.
        made: what validation made of it, field by field.

    Yields:
        the keys that lead there, and what stands there.
    """
    if isinstance(given, bool):
        if isinstance(made, int | float) and not isinstance(made, bool):
            yield (), given
    elif isinstance(given, Mapping):
        for key, value in given.items():
            inner = made.get(key) if isinstance(made, Mapping) else getattr(made, str(key), None)
            yield from (((key, *path), found) for path, found in counted_booleans(value, inner))
    elif isinstance(given, list | tuple) and isinstance(made, list | tuple):
        for place, (value, inner) in enumerate(zip(given, made, strict=False)):
            yield from (((place, *path), found) for path, found in counted_booleans(value, inner))
