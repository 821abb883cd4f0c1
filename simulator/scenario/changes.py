"""Numbers of a scenario at their dotted keys: how plain sections are read, and how changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simulator.config.document import near, shown


def number_at(sections: Mapping[str, Any], key: str) -> float:
    """The number at a dotted key of plain sections.

    Raises:
        ValueError: no such key.
    """
    here: Any = sections
    for part in path_of(sections, key):
        here = here[part]
    return float(here)


def changed(sections: dict[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    """Plain sections with the numbers at some dotted keys changed, in place.

    Raises:
        ValueError: no such key.
    """
    for key, value in values.items():
        *around, last = path_of(sections, key)
        inner: Any = sections
        for part in around:
            inner = inner[part]
        inner[last] = value
    return sections


def path_of(sections: Mapping[str, Any], key: str) -> list[str]:
    """The parts of a dotted key. A part may hold a dot of its own, as the durations in
    `users.affinity.duration.10.0` do.

    Raises:
        ValueError: no such key.
    """
    here: Any = sections
    path, left = [], key.split(".")
    while left:
        names = [".".join(left[:n]) for n in range(1, len(left) + 1)]
        inner = here if isinstance(here, Mapping) else {}
        name = next((name for name in names if name in inner), None)
        if name is None:
            raise ValueError(f"no such key {shown(key)}; {near(left[0], inner)}")
        here, left = inner[name], left[name.count(".") + 1 :]
        path.append(name)
    return path
