"""Readers of published data sets: files as they are -> `Source`. Which file is read how lives in one module a source."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from simulator.datasets.tables import DataError
from simulator.scenario import Data
from simulator.users.base import Source

__all__ = ["SOURCES", "DataError", "locate", "read"]

SOURCES: dict[str, tuple[str, str | None]] = {
    "kuairand": ("simulator.datasets.kuairand", "kuairand"),
    "open_bandit": ("simulator.datasets.open_bandit", "open_bandit"),
    "s3rec": ("simulator.datasets.s3rec", None),
    "inter": ("simulator.datasets.inter", None),
    "log": ("simulator.datasets.log", None),
}
"""`data.source` -> (module with `read(data, path) -> Source`, the path where the scenario gives none)."""


def locate(path: str, folder: Path) -> Path:
    """The file or folder that a scenario means by `data.path`.

    Args:
        path: absolute, or relative to ABTEST_DATA, to `folder`, to the working directory, or to `../shared/data` beside the checkout.
        folder: where the scenario lies.

    Raises:
        DataError: it is in none of these places; the message names them.
    """
    given = Path(path).expanduser()
    roots = [folder, Path.cwd(), Path(__file__).resolve().parents[3] / "shared" / "data"]
    if "ABTEST_DATA" in os.environ:
        roots.insert(0, Path(os.environ["ABTEST_DATA"]))
    places = [given] if given.is_absolute() else list(dict.fromkeys((root / given).resolve() for root in roots))
    for place in places:
        if place.exists():
            return place
    looked = "".join(f"\n  {place}" for place in places)
    advice = "Set ABTEST_DATA to the folder of data sets, or give an absolute path"
    raise DataError(f"data.path: nothing at {path!r}. Looked at{looked}\n{advice}")


def read(data: Data, folder: Path) -> Source:
    """Read the data of a scenario.

    Args:
        data: the scenario's `data` section.
        folder: where the scenario lies.

    Returns:
        The `Source`: catalogue, history (t < 0) and what the log says happened from t = 0 on.

    Raises:
        DataError: nothing to read, or a broken file: names file, line, column, rule and value.
    """
    if data.source not in SOURCES:
        raise DataError(f"data.source {data.source!r} has no files to read: its history is made by running the world")
    module, default = SOURCES[data.source]
    path = data.path if data.path is not None else default
    if path is None:
        raise DataError(f"data.path: the source {data.source!r} needs the path of its file")
    source: Source = importlib.import_module(module).read(data, locate(path, folder))
    return source
