"""Tables of items and users beside a table of interactions -> the columns of a catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import BoolArray, Catalogue, FloatArray, IntArray
from simulator.datasets import table_cells as cells
from simulator.datasets.batches import Tabular, plain, tabular
from simulator.datasets.beside import coverage, presence
from simulator.datasets.delimited import DataError, feature, numbers, spread
from simulator.datasets.table_cells import Cells, Numbers
from simulator.scenario.tables import ColumnSpec, FeatureTable

CATEGORIES = 20
"""Rows of a table from which on a text that most rows have to themselves (a title) is no category.
"""


def files_of(spec: FeatureTable, home: Path) -> list[Path]:
    """The files of a table of features, in the order of their names; `home` is the folder of the
    interactions.
    """
    path = Path(spec.path)
    if path.is_absolute():
        return [path] if path.exists() else []
    return sorted(home.glob(spec.path))


@dataclass(frozen=True)
class TableFeatures:
    """A table of items or users: a row each.

    Attributes:
        side: `items` or `users`.
        files: that were read.
        ids: of its rows, as text.
        columns: features by name, each as long as `ids`.
        duration: s, or None.
        attributes: how many each row has, and the codes of all, or None.
        unused: columns that are no feature.
    """

    side: str
    files: list[Path]
    ids: list[str]
    columns: Mapping[str, npt.NDArray[Any]]
    duration: FloatArray | None
    attributes: tuple[IntArray, IntArray] | None
    unused: list[str]

    @classmethod
    def read(cls, spec: FeatureTable, home: Path, side: str) -> TableFeatures | None:
        """Read a table of features; None where it is not there and need not be.

        Args:
            spec: which table, and its columns.
            home: the folder of the interactions.
            side: `items` or `users`, as `data` calls it.

        Raises:
            DataError: not there, no such column, an id that is empty or stands there twice.
        """
        files = files_of(spec, home)
        if not files and spec.optional:
            return None
        if not files:
            raise DataError(f"{home / spec.path}: no such file, which data.{side}.path names")
        tables = [tabular(file, spec.text) for file in files]
        for table in tables:
            _hold_to_names(table, spec, side)
        ids: dict[str, int] = {}
        parts: dict[str, list[pa.Array]] = {name: [] for name in tables[0].names if name}
        lengths = []
        for table in tables:
            for batch in table.batches(list(parts)):
                columns = {name: plain(batch.table[name]) for name in parts}
                key = Cells("id", ColumnSpec(column=spec.id), columns[spec.id], batch.place)
                _add(ids, key, f"data.{side}.id")
                if spec.duration is not None:
                    values = columns[spec.duration.column]
                    lengths.append(
                        cells.lengths(Cells("duration", spec.duration, values, batch.place))
                    )
                for name, values in columns.items():
                    parts[name].append(values)
        whole = {name: pa.chunked_array(arrays) for name, arrays in parts.items()}
        duration = np.concatenate(lengths) if lengths else None
        attributes = None
        if spec.attributes is not None:
            attributes = _attributes(whole[spec.attributes.column], spec.attributes)
        mapped = [spec.id, *(one.column for one in (spec.duration, spec.attributes) if one)]
        read = {name: _feature(one) for name, one in whole.items() if name not in mapped}
        return cls(
            side,
            files,
            list(ids),
            {
                f"{side}.id" if name == "id" else name: values  # `id` are the ids of the log
                for name, values in read.items()
                if values is not None
            },
            duration,
            attributes,
            [name for name, values in read.items() if values is None],
        )


def _hold_to_names(table: Tabular, spec: FeatureTable, side: str) -> None:
    wanted = {"id": spec.id}
    for key, one in (("duration", spec.duration), ("attributes", spec.attributes)):
        if one is not None:
            wanted[key] = one.column
    for key, name in wanted.items():
        if name not in table.names:
            raise DataError(
                f"{table.name}: no column {name!r}, which data.{side}.{key} names; it has"
                f" {', '.join(table.names)}"
            )


def _add(ids: dict[str, int], key: Cells, keys: str) -> None:
    """Take in the ids of a batch, and the row of each."""
    key.refuse(key.empty, "there")
    for row, one in enumerate(cells.ids(key).to_pylist()):
        if one in ids:
            raise DataError(
                f"{key.place(row)}: {key.spec.column} ({keys}) must be unique; {one!r} is row"
                f" {ids[one]} already"
            )
        ids[one] = len(ids)


def _feature(values: pa.ChunkedArray) -> npt.NDArray[Any] | None:
    """A column as a feature; None for lists, times, and text of which most rows have their own."""
    if pa.types.is_string(values.type):
        values = numbers(values)
    kind = values.type
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_string(kind):
        is_title = pc.count_distinct(values).as_py() > len(values) / 2
        if is_title and len(values) > CATEGORIES:
            return None
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    return feature(values)


def _attributes(values: pa.ChunkedArray, spec: ColumnSpec) -> tuple[IntArray, IntArray]:
    """How many attributes each row has, and their codes."""
    flat, rows, _ = cells.explode(
        pa.table({spec.column: values}), {"attributes": spec}, lambda row: f"row {row}"
    )
    names = flat["attributes"].cast(pa.string())
    is_there = pc.fill_null(pc.not_equal(names, ""), False)
    codes = feature(numbers(pa.chunked_array([names.filter(is_there)])))
    owner = rows[is_there.to_numpy(zero_copy_only=False)]
    return np.bincount(owner, minlength=len(values)), codes.astype(np.int64)


def catalogue(
    users: Numbers,
    items: Numbers,
    stated: FloatArray,
    tables: Mapping[str, TableFeatures | None],
    *,
    unseen: bool,
) -> tuple[Catalogue, dict[str, Any]]:
    """Users and items of a log with what is known of them, and notes.

    Args:
        users, items: the ids of the log, numbered.
        stated: the length that the log states by item, s, from 1 on; it may end early.
        tables: by side; None for one that is not there.
        unseen: whether items that only their table has are in the catalogue, too.
    """
    there = [table for table in tables.values() if table is not None]
    notes: dict[str, Any] = presence(
        [file for table in there for file in table.files],
        [side for side, table in tables.items() if table is None],
    )
    for table in there:
        log_ids = items.of if table.side == "items" else users.of
        fate = "in the catalogue" if unseen and table.side == "items" else "left out"
        notes |= coverage(table.side, table.files[0].name, table.ids, log_ids, fate)
        if table.unused:
            notes[f"columns of {table.files[0].name} that nothing uses"] = table.unused
        if unseen and table.side == "items":
            for one in table.ids:
                items.of.setdefault(one, len(items.of))
    item_ids, user_ids = items.original(), users.original()
    padding = "" if item_ids.dtype.kind == "U" else -1
    columns: dict[str, dict[str, npt.NDArray[Any]]] = {
        "items": {"id": np.concatenate(([padding], item_ids))},
        "users": {"id": user_ids},
    }
    length = np.zeros(len(item_ids) + 1, dtype=np.float32)
    length[: len(stated)] = stated
    attributes = None
    for table in there:
        is_items = table.side == "items"
        of, base = (items.of, 1) if is_items else (users.of, 0)
        size = len(of) + base
        place = np.array([of.get(one, -1) for one in table.ids], dtype=np.int64)
        is_known, row = place >= 0, place[place >= 0] + base
        for name, values in table.columns.items():
            columns[table.side][name] = spread(values[is_known], row, size)
        if table.duration is not None and is_items:
            own = np.nan_to_num(table.duration[is_known])
            length[row] = np.where(own > 0, own, length[row])
        if table.attributes is not None and is_items:
            attributes = _ragged(*table.attributes, place + base, is_known, size)
    if length.any():
        columns["items"]["duration"] = length
    return (
        Catalogue(len(user_ids), len(item_ids), columns["items"], columns["users"], attributes),
        notes,
    )


def _ragged(
    counts: IntArray, codes: IntArray, place: IntArray, is_known: BoolArray, size: int
) -> tuple[IntArray, IntArray]:
    """Attributes of the rows that the catalogue has, by their place in it."""
    owner = np.repeat(np.where(is_known, place, -1), counts)
    codes, owner = codes[owner >= 0], owner[owner >= 0]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=size))))
    return offsets.astype(np.int64), codes[np.argsort(owner, kind="stable")]
