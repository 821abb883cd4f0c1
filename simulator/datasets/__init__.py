"""Readers of published data sets: files as they are -> `Source`. Which file is read how lives in
one module a source.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from simulator.datasets.delimited import DataError
from simulator.log import store
from simulator.log.ledger import fetch_all
from simulator.log.store import AddressError, FileError
from simulator.scenario.parts import Data
from simulator.users.base import Source

__all__ = ["SOURCES", "DataError", "check", "files", "locate", "place", "read"]

SOURCES: dict[str, tuple[str, str | None]] = {
    "table": ("simulator.datasets.table", None),
    "kuairand": ("simulator.datasets.kuairand", "kuairand"),
    "open_bandit": ("simulator.datasets.open_bandit", "open_bandit"),
    "s3rec": ("simulator.datasets.s3rec", None),
    "inter": ("simulator.datasets.inter", None),
    "log": ("simulator.datasets.native", None),
}
"""`data.source` -> (module with `read(data, path) -> Source`, the path where the scenario gives
none).
"""


def locate(path: str, folder: Path) -> Path:
    """The file or folder that a scenario means by `data.path`.

    Args:
        path: absolute, or relative to ABTEST_DATA, to `folder`, to the working directory, or to
            `../shared/data` beside the checkout; or an address (`s3://bucket/log`), from which it
            is brought here.
        folder: where the scenario lies.

    Raises:
        DataError: it is in none of these places; the message names them. Or an address that cannot
            be used, or reached.
    """
    if "://" in path:
        try:
            brought = store.place(path)
            fetch_all(brought)
        except (AddressError, FileError) as error:
            raise DataError(f"data.path: {error}") from error
        if not brought.exists():
            raise DataError(f"data.path: nothing at {path!r}; look at the address")
        return brought
    given = Path(path)
    try:
        given = given.expanduser()
    except RuntimeError as error:  # `~name` of nobody
        raise DataError(f"data.path: {path!r}: {error}") from error
    roots = [folder, Path.cwd(), Path(__file__).resolve().parents[3] / "shared" / "data"]
    if "ABTEST_DATA" in os.environ:
        roots.insert(0, Path(os.environ["ABTEST_DATA"]))
    if given.is_absolute():
        places = [given]
    else:
        places = list(dict.fromkeys((root / given).resolve() for root in roots))
    try:
        found = next((place for place in places if place.exists()), None)
    except OSError as error:  # a name that no file system takes
        raise DataError(f"data.path: {path[:80]!r}: {error.strerror}") from error
    if found is not None:
        return found
    looked = "".join(f"\n  {place}" for place in places)
    advice = "Set ABTEST_DATA to the folder of data sets, or give an absolute path"
    raise DataError(f"data.path: nothing at {path!r}. Looked at{looked}\n{advice}")


def place(data: Data, folder: Path) -> Path:
    """The file or folder that a scenario's `data` section reads; `folder` is where the scenario
    lies.

    Raises:
        DataError: the source has no files or was given no path, or nothing is there.
    """
    if data.source not in SOURCES:
        raise DataError(
            f"data.source {data.source!r} has no files to read: its history is made by running the"
            " world"
        )
    path = data.path if data.path is not None else SOURCES[data.source][1]
    if path is None:
        raise DataError(f"data.path: the source {data.source!r} needs the path of its file")
    return locate(path, folder)


def check(data: Data, folder: Path) -> None:
    """Hold a scenario's `data` section to what is there, before anything is read: its file or
    folder, and of a table the columns that it names.

    Raises:
        DataError: as `place`; a column that is not there.
    """
    path = place(data, folder)
    if data.source == "table":
        from simulator.datasets.table import opened

        opened(data, path)


def files(data: Data, folder: Path) -> list[Path]:
    """The files that a scenario's `data` section reads, or may read: those of a folder are all.

    Raises:
        DataError: as `place`.
    """
    path = place(data, folder)
    if not path.is_file():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if data.source == "table":
        from simulator.datasets.table import beside

        return [path, *beside(data, path)]
    return [path]


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
    path = place(data, folder)
    source: Source = importlib.import_module(SOURCES[data.source][0]).read(data, path)
    return source
