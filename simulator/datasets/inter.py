"""RecBole's atomic files: `.inter` with its typed header, and `.item`, `.user` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import Catalogue, IntArray
from simulator.datasets.numbering import Numbering
from simulator.datasets.sequences import leave_out
from simulator.datasets.tables import Column, DataError, feature, header, read_csv
from simulator.scenario import Data
from simulator.users.base import Source

NEEDED = {"user_id": "token", "item_id": "token", "timestamp": "float", "label": "float"}
"""Fields of an `.inter` file that decide what happened, and the type that each must have."""

TYPES = ("token", "token_seq", "float", "float_seq")
"""Field types of the format, as in `user_id:token`."""


def read(data: Data, path: Path) -> Source:
    """Read `NAME.inter` (a file, or a folder with one), and `NAME.item`, `NAME.user` where they lie beside it.

    Needs the fields `user_id:token` and `item_id:token`; no cell of a field of NEEDED may be empty. With `timestamp:float` interactions are
    put into its order (ties keep the order of the file), otherwise the order of the file is the order of time. With `label:float`, 0 is an
    unclick. Users and items are numbered by first appearance; every user's last `hold_out` clicks are held out (`sequences.leave_out`).

    Raises:
        DataError: a header without types, a field missing or of another type, or a bad line, named by file and line.
    """
    file = _inter_file(path)
    table, types = _atomic(file, NEEDED)
    for name in ("user_id", "item_id"):
        if name not in types:
            raise DataError(f"{file}: line 1: needs the field {name}:token; it has {', '.join(f'{n}:{t}' for n, t in types.items())}")
    if not table.num_rows:
        raise DataError(f"{file}: no interactions there, only a header")
    users, items = _ids(table, "user_id"), _ids(table, "item_id")
    user_of, item_of = Numbering.by_appearance(users, base=0), Numbering.by_appearance(items, base=1)
    user, item = user_of(users), item_of(items)
    times = table["timestamp"].to_numpy() if "timestamp" in types else np.arange(len(user))
    order = np.lexsort((times, user))
    clicked = (table["label"].to_numpy() != 0)[order] if "label" in types else None
    by_item, attributes = _features(file.with_suffix(".item"), "item_id", item_of)
    by_user, _ = _features(file.with_suffix(".user"), "user_id", user_of)
    catalogue = Catalogue(
        len(user_of),
        len(item_of),
        {"id": np.concatenate((["" if items.dtype.kind == "U" else -1], item_of.original)), **by_item},
        {"id": user_of.original, **by_user},
        attributes,
    )
    offsets = np.concatenate(([0], np.cumsum(np.bincount(user, minlength=len(user_of))))).astype(np.int64)
    notes = {"file": file.name, "users": len(user_of), "items": len(item_of), "interactions": len(user)}
    return leave_out(offsets, item[order], catalogue, notes, clicked, data.hold_out)


def beside(file: Path) -> list[Path]:
    """The files that are read with `NAME.inter`, as far as they are there."""
    return [path for path in (file.with_suffix(".item"), file.with_suffix(".user")) if path.exists()]


def _inter_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted(path.glob("*.inter"))
    if len(found) != 1:
        raise DataError(f"{path}: must hold exactly one .inter file; it has {len(found)}: give data.path the file itself")
    return found[0]


def _atomic(path: Path, needed: Mapping[str, str]) -> tuple[pa.Table, dict[str, str]]:
    """A file of the format, its columns by bare name, and their types; fields of `needed` have its type and no empty cell."""
    types: dict[str, str] = {}
    for field in header(path, "\t"):
        name, colon, kind = field.rpartition(":")
        if not colon or kind not in TYPES:
            raise DataError(f"{path}: line 1: a field must be name:type with a type of {', '.join(TYPES)}; got {field!r}")
        if needed.get(name, kind) != kind:
            raise DataError(f"{path}: line 1: the field {name} must be {name}:{needed[name]}; got {field!r}")
        types[name] = kind
    rules = {
        f"{name}:{kind}": Column(pa.float64() if kind == "float" else pa.string(), null=name not in needed) for name, kind in types.items()
    }
    table = read_csv(path, rules, "\t")
    return table.rename_columns(list(types)), types


def _ids(table: pa.Table, name: str) -> np.ndarray:
    """A token column as ids: whole numbers where all are, else text."""
    values = table[name]
    try:
        numbers = pc.cast(values, pa.int64())
    except pa.ArrowInvalid:
        return np.asarray(values.to_pylist(), dtype=np.str_)
    same = pc.all(pc.equal(pc.cast(numbers, pa.string()), values)).as_py()
    return np.asarray(numbers.to_numpy(), dtype=np.int64) if same else np.asarray(values.to_pylist(), dtype=np.str_)


def _features(path: Path, key: str, numbering: Numbering) -> tuple[dict[str, Any], tuple[IntArray, IntArray] | None]:
    """Columns of a `.item` or `.user` file by name, and its first token_seq field as ragged attributes; ({}, None) without a file."""
    if not path.exists():
        return {}, None
    table, types = _atomic(path, {key: "token"})
    if key not in types:
        raise DataError(f"{path}: line 1: needs the field {key}:token")
    ids = np.asarray(table[key].to_pylist(), dtype=np.str_)
    known = {str(original): place for place, original in enumerate(numbering.original)}
    keep = np.array([str(i) in known for i in ids], dtype=bool)
    row = np.array([known[str(i)] for i in ids[keep]], dtype=np.int64) + numbering.base
    size = len(numbering) + numbering.base
    columns: dict[str, Any] = {}
    attributes = None
    for name, kind in types.items():
        values = table[name].filter(pa.array(keep))
        if kind == "token_seq" and attributes is None:
            attributes = _ragged(values, row, size)
        elif kind in ("token", "float") and name != key:
            short = feature(values)
            column = np.full(size, np.nan if short.dtype.kind == "f" else 0, dtype=short.dtype)
            column[row] = short
            columns[name] = column
    return columns, attributes


def _ragged(values: pa.ChunkedArray, row: IntArray, size: int) -> tuple[IntArray, IntArray]:
    lists = pc.split_pattern(pc.fill_null(values, ""), " ")
    flat = pc.list_flatten(lists)
    owner = np.repeat(row, pc.list_value_length(lists).to_numpy())
    real = pc.not_equal(flat, "").to_numpy()
    ids, owner = feature(flat.filter(pa.array(real))), owner[real]
    counts = np.bincount(owner, minlength=size)
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64), ids[np.argsort(owner, kind="stable")]
