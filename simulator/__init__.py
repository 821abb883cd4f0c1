"""The world, the replay, the measurement and the command line. Imports the policies' contract,
never a model.

Scripts written before the modules had rooms go on: what the pages once imported is found at its new
place, with a DeprecationWarning that says where. New ones `import abtest`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import policies  # noqa: F401 (chooses where compiled kernels are kept, before numba is imported)

_MOVED: dict[str, tuple[str, ...]] = {
    "eventlog": ("log.metadata", "log.schema", "log.kinds", "log.eventlog"),
    "report.tables": ("report.user_table",),
    "run": ("run.pipeline",),
    "scenario": ("scenario.parts", "config.document", "scenario.model"),
    "stats.compare": ("stats.contrasts",),
}
"""Where the pages once imported from, and where the names are now."""

_PACKAGES = ("run", "scenario")
"""Those that were modules and are rooms now."""


def _find(place: str, name: str) -> Any:
    """A name at its new place.

    Raises:
        AttributeError: it is at none of them.
    """
    for room in _MOVED[place] if not name.startswith("__") else ():
        module = import_module(f"{__name__}.{room}")
        if hasattr(module, name):
            where = f"{__name__}.{room}.{name}"
            rule = "is now" if not hasattr(import_module("abtest"), name) else "is now abtest's, or"
            warnings.warn(f"{__name__}.{place}.{name} {rule} {where}", DeprecationWarning, 2)
            return getattr(module, name)
    raise AttributeError(f"module {__name__}.{place} has no attribute {name!r}")


class _Finder(MetaPathFinder, Loader):
    """Finds a module under its old name, with its names at their new place."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = fullname.removeprefix(f"{__name__}.")
        is_moved = place in _MOVED and place not in _PACKAGES and place != fullname
        return ModuleSpec(fullname, self) if is_moved else None

    def exec_module(self, module: ModuleType) -> None:
        place = module.__name__.removeprefix(f"{__name__}.")
        vars(module)["__getattr__"] = partial(_find, place)


sys.meta_path.append(_Finder())
for _place in _PACKAGES:
    vars(import_module(f"{__name__}.{_place}"))["__getattr__"] = partial(_find, _place)
