"""An event log of abtest itself as data: what it says before t = 0 is history, from t = 0 on it is
the future.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import Catalogue
from policies.time import DAY
from simulator.datasets.delimited import DataError
from simulator.log.eventlog import EventLog
from simulator.log.metadata import LogError, Metadata
from simulator.log.workspace import sound_log
from simulator.scenario.parts import Data
from simulator.users.base import Source


def read(data: Data, path: Path) -> Source:
    """Read a log: a Parquet file, a folder of parts, or a run's folder with `log/` in it.

    Of a log with several arms, the arm `history` and the control (the only other arm, if there is
    no control) are taken. A log with rows from t = 0 on is split there. Of a pure history, the last
    `data.test_days` become the future: its days end where it ends.

    Raises:
        DataError: no log there, no arm to take, or no history.
        RunError: the run there is not finished.
        FileError: a piece of the run there is missing or damaged.
    """
    folder = path / "log" if (path / "log").is_dir() else path
    try:
        log = sound_log(path)
    except LogError as error:
        raise DataError(
            str(error) if str(folder) in str(error) else f"{folder}: {error}"
        ) from error
    stored = log.metadata
    table = log.table
    arm = _arm(stored, folder)
    wanted = [
        stored.arms.index(name) for name in dict.fromkeys(("history", arm)) if name in stored.arms
    ]
    table = table.filter(pc.is_in(table["arm"], pa.array(wanted, pa.uint8())))
    if not table.num_rows:
        raise DataError(f"{folder}: no impressions of {arm!r} there")
    t = table["t"].to_numpy()
    shift = 0 if t.max() >= 0 else -data.test_days * DAY
    t = t - shift
    catalogue = Catalogue(
        stored.n_users, stored.n_items, {"duration": _durations(table, stored.n_items)}
    )
    notes = {"log": str(folder.name), "arm": arm, "impressions read": table.num_rows}
    metadata = Metadata(
        ("history",),
        stored.n_users,
        stored.n_items,
        stored.propensity,
        channels=stored.channels,
        notes=notes,
    )
    table = table.set_column(
        table.schema.get_field_index("t"), table.schema.field("t"), pa.array(t, pa.int64())
    )
    table = table.set_column(
        0, table.schema.field("arm"), pa.array(np.zeros(len(t), dtype=np.uint8))
    )
    parts = [
        EventLog(metadata, table.filter(pa.array(chosen))).sorted() for chosen in (t < 0, t >= 0)
    ]
    if not parts[0].n_rows:
        raise DataError(
            f"{folder}: no history there: every impression has t >= 0, the first t = {t.min():,}"
            " ms; t counts from the start of the A/B (not from 1970), what came before it has"
            " t < 0"
        )
    return Source(catalogue, parts[0], parts[1], notes)


def _arm(stored: Metadata, folder: Path) -> str:
    others = [name for name in stored.arms if name != "history"]
    if not others:
        return "history"
    if stored.control is not None:
        return stored.control
    if len(others) == 1:
        return others[0]
    raise DataError(
        f"{folder}: which of the arms {', '.join(others)} is the log? It names no control"
    )


def _durations(table: pa.Table, n_items: int) -> np.ndarray:
    duration = np.zeros(n_items + 1, dtype=np.float32)
    np.maximum.at(duration, table["item"].to_numpy(), table["duration"].to_numpy())
    return duration
