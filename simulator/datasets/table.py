"""Any table of interactions -> `Source`, by its column map (`data.columns`).

Two passes. The first reads the table in batches, holds every cell to its rule and keeps the mapped
columns as numbers of the house; the second puts them into the order of users and times and cuts
sessions. Memory: the ids (some 100 bytes each and their letters), one batch, and `SORTED` rows,
which take some 180 bytes each while they are put into order (measured with four columns); what is
more waits in files of a temporary folder, grouped by users.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import Catalogue, FloatArray, IntArray
from policies.time import DAY
from simulator.datasets import table_cells as cells
from simulator.datasets.batches import TableBatch, Tabular, tabular
from simulator.datasets.delimited import DataError
from simulator.datasets.sequences import leave_out
from simulator.datasets.sessions import sessions
from simulator.datasets.table_cells import Cells, Numbers
from simulator.datasets.table_features import TableFeatures, files_of
from simulator.datasets.table_features import catalogue as catalogue_of
from simulator.log.eventlog import EventLog
from simulator.log.kinds import FEEDBACK
from simulator.log.metadata import Metadata, Propensity
from simulator.scenario.parts import Data
from simulator.users.base import Source

SORTED = 1 << 22
"""Rows that are put into order at once, unless one user has more."""

Columns = dict[str, npt.NDArray[Any]]

FeatureTables = Mapping[str, TableFeatures | None]
"""Tables of features by side; None for one that is not there and need not be."""

READERS: dict[str, Callable[[Cells], npt.NDArray[Any]]] = {
    "click": cells.answers,
    "watch": cells.lengths,
    "duration": cells.lengths,
    "position": cells.positions,
    "propensity": cells.shares,
    "tab": cells.surfaces,
    **dict.fromkeys(FEEDBACK, cells.answers),
}
"""How the columns are read that are neither ids nor times."""


def read(data: Data, path: Path) -> Source:
    """Read a table of interactions and the tables of features beside it.

    With times, the last `data.test_days` days (from midnight in `data.zone`) are the future; what
    came before is history. Without, or with `split: last`, each user's last `hold_out` clicks are
    held out (`sequences.leave_out`). With `split: parts` each user's rows are cut into parts, in
    their order, which stand for days. Rows that say the same in every mapped column at the same
    time are one, and the others are counted.

    Args:
        data: the scenario's section.
        path: a file, or a folder with the files of `data.files`.

    Raises:
        DataError: a column that is not there, a cell that breaks its rule, no history; by file,
            line or row group, and key.
    """
    table = opened(data, path)
    rows = Interactions.of(table, data)
    if not rows.n_rows:
        raise DataError(f"{table.name}: no interactions there")
    home = path if path.is_dir() else path.parent
    features = {
        side: TableFeatures.read(spec, home, side)
        for side, spec in (("items", data.items), ("users", data.users))
        if spec is not None
    }
    if data.split == "parts":
        return _by_parts(data, rows, features, path)
    return _by_days(data, rows, features, path) if data.by_days else _last(data, rows, features)


def opened(data: Data, path: Path) -> Tabular:
    """The table at `path`; no row is read yet.

    Raises:
        DataError: no table, or a column that `data.columns` names is not there.
    """
    table = tabular(path, data.text, data.files)
    _hold_to_names(table, {role: spec.column for role, spec in data.columns.items()})
    return table


def beside(data: Data, path: Path) -> list[Path]:
    """The files of the tables of features that are read with the table at `path`."""
    home = path if path.is_dir() else path.parent
    sides = [spec for spec in (data.items, data.users) if spec is not None]
    return [file for spec in sides for file in files_of(spec, home)]


def _hold_to_names(table: Tabular, wanted: Mapping[str, str]) -> None:
    for role, name in wanted.items():
        if name not in table.names:
            raise DataError(
                f"{table.name}: no column {name!r}, which data.columns.{role} names; it has"
                f" {', '.join(table.names)}"
            )


def _place_of(batch: TableBatch, source: IntArray) -> Callable[[int], str]:
    """Where a row stands that came from the row `source` of a batch."""
    return lambda row: batch.place(int(source[row]))


@dataclass
class Interactions:
    """All rows of a table as numbers of the house, in its order.

    Attributes:
        data: the scenario's section.
        rows: where they wait.
        users, items: the ids by number, from 0.
        counts: rows of each user.
        last: the greatest time, us.
        duration: by item, the longest that the rows state, s; 0 where they state none.
        notes: what was read, dropped and left unread.
    """

    data: Data
    rows: _Waiting = field(default_factory=lambda: _Waiting())
    users: Numbers = field(default_factory=Numbers)
    items: Numbers = field(default_factory=Numbers)
    counts: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    last: int = -(2**63)
    duration: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return int(self.counts.sum())

    @classmethod
    def of(cls, table: Tabular, data: Data) -> Interactions:
        """Read all rows once."""
        used = [spec.column for spec in data.columns.values()]
        unused = [name for name in table.names if name and name not in used]
        rows = cls(data)
        rows.notes = {
            "file": Path(table.name).name,
            **({"files": [file.name for file in table.files]} if len(table.files) > 1 else {}),
            "rows read": 0,
            **({f"columns of {Path(table.name).name} that nothing uses": unused} if unused else {}),
        }
        read_time = cells.TimeReader(data.zone)
        for batch in table.batches(list(dict.fromkeys(used))):
            values, source, is_slate = cells.explode(batch.table, data.columns, batch.place)
            at = rows.notes["rows read"] + source
            rows.notes["rows read"] += batch.table.num_rows
            place = _place_of(batch, source)
            read = {
                role: Cells(role, data.columns[role], column, place)
                for role, column in values.items()
            }
            rows.add(read, read_time, at if is_slate else None)
        rows.rows.close()
        return rows

    def add(
        self,
        read: Mapping[str, Cells],
        read_time: cells.TimeReader,
        slate: IntArray | None,
    ) -> None:
        """Take a batch in; `slate` is the row of the table that each row came from, where that one
        is a whole slate.
        """
        kept = np.ones(len(read["user"].values), dtype=bool)
        for role in ("user", "item", "time"):
            if role not in read:
                continue
            empty = read[role].empty
            if self.data.missing == "refuse":
                read[role].refuse(empty, "there", ": data.missing: drop leaves such rows out")
            _add_to(self.notes, f"rows without {role}, dropped", int((empty & kept).sum()))
            kept &= ~empty
        keep = pa.array(kept)
        columns: Columns = {
            "user": self.users(cells.ids(read["user"]).filter(keep)),
            "item": self.items(cells.ids(read["item"]).filter(keep)) + np.int32(1),
        }
        columns["us"] = np.zeros(int(kept.sum()), dtype=np.int64)
        if "time" in read:
            columns["us"] = read_time(read["time"])[kept]
        for role in ("session", "request"):
            if role in read:
                names = pc.fill_null(cells.ids(read[role]), "").filter(keep)
                columns[role] = cells.digests(names)
        for role, reader in READERS.items():
            if role in read:
                columns[role] = reader(read[role])[kept]
        if slate is not None:
            columns.setdefault("request", slate[kept].astype(np.uint64))
            first = np.searchsorted(slate, slate)
            columns.setdefault("position", (np.arange(len(slate)) - first)[kept].astype(np.int32))
        self._count(columns)
        self.rows.add(columns)

    def catalogue(
        self, features: FeatureTables, *, unseen: bool
    ) -> tuple[Catalogue, dict[str, Any]]:
        """Users and items with their features, and notes (`table_features.catalogue`)."""
        return catalogue_of(self.users, self.items, self.duration, features, unseen=unseen)

    def _count(self, columns: Columns) -> None:
        user, item = columns["user"], columns["item"]
        self.counts = np.pad(self.counts, (0, len(self.users.of) - len(self.counts)))
        self.counts += np.bincount(user, minlength=len(self.counts))
        if len(user):
            self.last = max(self.last, int(columns["us"].max()))
        if "duration" in columns:
            self.duration = np.pad(self.duration, (0, len(self.items.of) + 1 - len(self.duration)))
            np.fmax.at(self.duration, item, columns["duration"])  # NaN: it states none


def _add_to(notes: dict[str, Any], words: str, count: int) -> None:
    """Count what was dropped or changed; what never happened is not said."""
    if count:
        notes[words] = notes.get(words, 0) + count


class _Waiting:
    """Rows between the two passes: in memory, or in a file from `SORTED` rows on."""

    def __init__(self) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.rows = 0
        self.folder: Path | None = None
        self.file: Any = None

    def add(self, columns: Columns) -> None:
        batch = pa.RecordBatch.from_pydict({name: pa.array(v) for name, v in columns.items()})
        self.batches.append(batch)
        self.rows += batch.num_rows
        if self.rows <= SORTED and self.file is None:
            return
        if self.file is None:
            self.folder = Path(tempfile.mkdtemp(prefix="abtest-table-"))
            weakref.finalize(self, shutil.rmtree, self.folder, True)
            self.file = pa.ipc.new_file(self.folder / "rows.arrow", batch.schema)
        for one in self.batches:
            self.file.write_batch(one)
        self.batches = []

    def close(self) -> None:
        if self.file is not None:
            self.file.close()

    def groups(self, counts: IntArray) -> Iterator[tuple[IntArray, Columns]]:
        """The rows of one group of users after the other, each with its number in the table;
        together they are all users in their order.
        """
        if self.folder is None:
            yield np.arange(self.rows), _columns(pa.Table.from_batches(self.batches))
            return
        group = np.cumsum(counts) // SORTED
        _, group = np.unique(group, return_inverse=True)
        rows = self._open("rows")
        schema = rows.schema.append(pa.field("row", pa.int64()))
        files = [pa.ipc.new_file(self._path(f"group-{n}"), schema) for n in range(group.max() + 1)]
        first = 0
        for n in range(rows.num_record_batches):
            batch = rows.get_batch(n)
            number = pa.array(np.arange(first, first + batch.num_rows))
            batch = batch.append_column("row", number)
            of = group[batch["user"].to_numpy()]
            for one in np.unique(of):
                files[one].write_batch(batch.filter(pa.array(of == one)))
            first += batch.num_rows
        for n, file in enumerate(files):
            file.close()
            columns = _columns(self._open(f"group-{n}").read_all())
            yield columns.pop("row"), columns
            self._path(f"group-{n}").unlink()

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.arrow"

    def _open(self, name: str) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(self._path(name))))


def _columns(table: pa.Table) -> Columns:
    return {name: table[name].to_numpy() for name in table.column_names}


def _ordered(columns: Columns, row: IntArray, notes: dict[str, Any], *, timed: bool) -> Columns:
    """Rows by user and time; of rows that are the same the first."""
    keys = [row, *(columns[name] for name in ("position", "request") if name in columns)]
    order = np.lexsort([*keys, columns["us"], columns["user"]])
    columns = {name: values[order] for name, values in columns.items()}
    if not timed:
        return columns
    again = pd.DataFrame(columns).duplicated().to_numpy()
    notes["exact duplicates dropped"] = notes.get("exact duplicates dropped", 0) + int(again.sum())
    return {name: values[~again] for name, values in columns.items()}


Clock = Callable[[Columns], IntArray]
"""Times `[N]`, ms from the start of the A/B, of the ordered rows of some users."""


def _by_days(data: Data, rows: Interactions, features: FeatureTables, path: Path) -> Source:
    """The last days are the future."""
    start = cells.midnight(rows.last, data.zone, data.test_days)

    def clock(columns: Columns) -> IntArray:
        return (columns["us"] - start) // 1000

    said = {"first day of the A/B": _day(start, data.zone)}
    return _cut(data, rows, features, path, clock, said)


def _by_parts(data: Data, rows: Interactions, features: FeatureTables, path: Path) -> Source:
    """Each user's rows, in their order, are cut into parts of the same size, which stand for days;
    the last parts are the future. What came together stays in one part.
    """

    def clock(columns: Columns) -> IntArray:
        user = columns["user"]
        first = np.flatnonzero(np.diff(user, prepend=-1))
        size = np.diff(np.append(first, len(user)))
        place = np.arange(len(user)) - np.repeat(first, size)
        same = np.zeros(len(user), dtype=bool)
        name = "request" if "request" in columns else "us" if "time" in data.columns else None
        if name is not None:
            same[1:] = (columns[name][1:] == columns[name][:-1]) & (user[1:] == user[:-1])
        lead = np.maximum.accumulate(np.where(same, 0, np.arange(len(user))))
        part = place[lead] * data.parts // np.repeat(size, size)
        # Rows of a part are some ms apart, and all lie within its day.
        apart = np.maximum(np.minimum(60_000, (DAY - 1) // np.repeat(size, size)), 1)
        t: IntArray = (part - data.parts + data.test_days) * DAY + place[lead] * apart
        return t

    said = {"parts of each user's rows, which stand for days": data.parts}
    return _cut(data, rows, features, path, clock, said)


def _cut(
    data: Data,
    rows: Interactions,
    features: FeatureTables,
    path: Path,
    clock: Clock,
    said: Mapping[str, Any],
) -> Source:
    """What lies before t = 0 by a clock is history, the rest the future; `said` are notes."""
    catalogue, notes = rows.catalogue(features, unseen=True)
    propensity: Propensity = "marginal" if "propensity" in data.columns else "unknown"
    metadata = Metadata(("history",), catalogue.n_users, catalogue.n_items, propensity)
    parts = _Parts(metadata, several=rows.rows.folder is not None)
    for row, group in rows.rows.groups(rows.counts):
        columns = _ordered(group, row, rows.notes, timed="time" in data.columns)
        t = clock(columns)
        for name, chosen in (("history", t < 0), ("future", t >= 0)):
            part = {key: values[chosen] for key, values in columns.items()}
            log = _log_columns(data, part, t[chosen], catalogue, rows)
            parts.add(name, EventLog.from_columns(log, metadata, sort=False))
    if not parts.rows["history"]:
        raise DataError(
            f"{path}: data.test_days = {data.test_days} leaves no history: all rows are of the last"
            f" {data.test_days} days"
        )
    notes = {**rows.notes, **said, **notes}
    metadata = replace(metadata, notes=notes)
    return Source(catalogue, parts.log("history", metadata), parts.log("future", metadata), notes)


def _day(us: int, zone: str | None) -> str:
    there = pd.Timestamp(us, unit="us", tz="UTC").tz_convert(zone or "UTC")
    return f"{there:%Y-%m-%d} ({zone or 'UTC'})"


class _Parts:
    """The two logs as they grow: in memory where there is one group of users, else in files."""

    def __init__(self, metadata: Metadata, *, several: bool) -> None:
        self.metadata = metadata
        self.folder = Path(tempfile.mkdtemp(prefix="abtest-log-")) if several else None
        self.logs: dict[str, list[EventLog]] = {"history": [], "future": []}
        self.rows = dict.fromkeys(self.logs, 0)

    def add(self, name: str, log: EventLog) -> None:
        self.rows[name] += log.n_rows
        if self.folder is None:
            self.logs[name].append(log)
            return
        number = len(list(self.folder.glob(f"{name}/*.parquet")))
        log.write(self.folder / name / f"part-{number:05}.parquet")

    def log(self, name: str, metadata: Metadata) -> EventLog:
        if self.folder is None:
            return replace(self.logs[name][0], metadata=metadata)
        log = replace(EventLog.open(self.folder / name), metadata=metadata)
        weakref.finalize(log, shutil.rmtree, self.folder / name, True)
        return log


def _log_columns(
    data: Data, columns: Columns, t: IntArray, catalogue: Catalogue, rows: Interactions
) -> dict[str, Any]:
    """Columns of the event log of ordered rows."""
    user, item = columns["user"].astype(np.int64), columns["item"]
    session, request, position = sessions(
        user, t, data.session_gap, columns.get("session"), columns.get("request")
    )
    for name in ("session", "request"):
        if name in columns:
            runs = _runs(user, session, request if name == "request" else None)
            ids = len(pd.DataFrame({"user": user, "id": columns[name]}).drop_duplicates())
            words = f"{name}s in pieces, for others of the user came between"
            _add_to(rows.notes, words, runs - ids)
    if "position" in columns:
        position = columns["position"].astype(np.int64)
        _hold_to_places(rows, user, session, request, position)
    n = len(user)
    duration = np.asarray(catalogue.items.get("duration", np.zeros(catalogue.n_items + 1)))[item]
    if "duration" in columns:
        duration = np.where(columns["duration"] > 0, columns["duration"], duration)
    return {
        "user": user,
        "session": session,
        "request": request,
        "position": position,
        "t": t,
        "item": item.astype(np.uint32),
        "click": columns.get("click", np.ones(n, dtype=np.int8)),
        "watch": columns.get("watch", np.full(n, np.nan, dtype=np.float32)),
        "propensity": columns.get("propensity"),
        "duration": duration.astype(np.float32),
        "logged": np.ones(n, dtype=bool),
        **{name: columns[name] for name in ("tab", *FEEDBACK) if name in columns},
    }


def _hold_to_places(
    rows: Interactions, user: IntArray, session: IntArray, request: IntArray, position: IntArray
) -> None:
    keys = (user, session, request, position)
    again = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    if again.any():
        row = int(np.argmax(again))
        who = rows.users.original()[user[row]]
        raise DataError(
            f"{rows.data.path}: columns.position: user {who} has two rows at position"
            f" {position[row]} of one slate (see columns.request): leave columns.position out, or"
            " name the slates"
        )


def _runs(user: IntArray, session: IntArray, request: IntArray | None) -> int:
    """How many sessions, or requests, there are in ordered rows."""
    if not len(user):
        return 0
    keys = [user, session] if request is None else [user, session, request]
    return 1 + int(np.logical_or.reduce([key[1:] != key[:-1] for key in keys]).sum())


def _last(data: Data, rows: Interactions, features: FeatureTables) -> Source:
    """Each user's last clicks are the future."""
    timed = "time" in data.columns
    groups = [
        _ordered(group, row, rows.notes, timed=timed)
        for row, group in rows.rows.groups(rows.counts)
    ]
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    catalogue, notes = rows.catalogue(features, unseen=False)
    per_user = np.bincount(columns["user"], minlength=catalogue.n_users)
    offsets = np.concatenate(([0], np.cumsum(per_user))).astype(np.int64)
    names = [name for name in ("click", "watch", "tab", *FEEDBACK) if name in columns]
    return leave_out(
        offsets,
        columns["item"].astype(np.int64),
        catalogue,
        {**rows.notes, **notes},
        held=data.hold_out,
        answers={name: columns[name] for name in names},
    )
