"""RecBole's atomic files: `.inter` with its typed header, and `.item`, `.user` beside it, each
plain or `.gz`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import Catalogue, DoubleArray, IntArray
from simulator.datasets.beside import coverage, packed_or_plain, presence
from simulator.datasets.delimited import (
    TEXT,
    ColumnRule,
    DataError,
    codes,
    feature,
    header,
    line_of,
    once,
    read_csv,
    spread,
)
from simulator.datasets.sequences import leave_out
from simulator.datasets.table_cells import LONGEST_ID, SINCE_1970, id_column
from simulator.scenario.parts import Data
from simulator.users.base import Source

_ID = ColumnRule(TEXT)
NEEDED = {
    "user_id": ("token", _ID),
    "item_id": ("token", _ID),
    "timestamp": ("float", ColumnRule(pa.float64())),
    "label": ("float", ColumnRule(pa.float64(), values=(0, 1))),
}
"""Fields of an `.inter` file that decide what happened: the type that each must have, and its rule.
"""

TYPES = ("token", "token_seq", "float", "float_seq")
"""Field types of the format, as in `user_id:token`."""

SIDES = (".item", ".user")
"""Endings of the files that may lie beside."""


def read(data: Data, path: Path) -> Source:
    """Read `NAME.inter` (a file, or a folder with one), and `NAME.item`, `NAME.user` where they lie
    beside it.

    Needs the fields `user_id:token` and `item_id:token`; no cell of a field of NEEDED may be empty.
    With `timestamp:float`, in any unit, interactions are put into its order (ties keep the order of
    the file), otherwise the order of the file is the order of time. With `label:float`, 0 is an
    unclick and 1 a click. Users and items are numbered by first appearance; every user's last
    `hold_out` clicks are held out (`sequences.leave_out`). Items and users that only `.item` and
    `.user` list are left out and counted; those that they lack have no features.

    Raises:
        DataError: a header without types, a field missing, twice or of another type, or a bad line,
            named by file and line; an id twice in `.item` or `.user`.
    """
    file = _inter_file(path)
    table, types = _atomic(file, NEEDED, pa.float64())
    for name in ("user_id", "item_id"):
        if name not in types:
            raise DataError(
                f"{file}: line 1: needs the field {name}:token; it has"
                f" {', '.join(f'{n}:{t}' for n, t in types.items())}"
            )
    if not table.num_rows:
        raise DataError(f"{file}: no interactions there, only a header")
    (user, users), (item, items) = codes(table["user_id"]), codes(table["item_id"])
    user -= 1
    times = np.arange(len(user))
    if "timestamp" in types:
        times = table["timestamp"].to_numpy()
        _hold_to_one_unit(file, times)
    order = np.lexsort((times, user))
    answers = {}
    if "label" in types:
        answers["click"] = (table["label"].to_numpy() != 0)[order]
    sides = {name: packed_or_plain(file.parent, name) for name in _side_names(file)}
    of_items, of_users = sides.values()
    by_item, attributes, item_notes = _features(of_items, "item_id", items, base=1)
    by_user, _, user_notes = _features(of_users, "user_id", users, base=0)
    item_ids = _ids(file, items)
    catalogue = Catalogue(
        len(users),
        len(items),
        {"id": np.concatenate((["" if item_ids.dtype.kind == "U" else -1], item_ids)), **by_item},
        {"id": _ids(file, users), **by_user},
        attributes,
    )
    offsets = np.concatenate(([0], np.cumsum(np.bincount(user, minlength=len(users))))).astype(
        np.int64
    )
    notes = {
        "file": file.name,
        "users": len(users),
        "items": len(items),
        "interactions": len(user),
        **presence(beside(file), [name for name, side in sides.items() if side is None]),
        **item_notes,
        **user_notes,
    }
    return leave_out(offsets, item[order], catalogue, notes, answers, data.hold_out)


def beside(file: Path) -> list[Path]:
    """The files that are read with `NAME.inter`, as far as they are there."""
    sides = [packed_or_plain(file.parent, name) for name in _side_names(file)]
    return [path for path in sides if path is not None]


def item_file(file: Path) -> Path:
    """Where the features of the items of `NAME.inter` lie, or would lie: `NAME.item`, plain or
    `.gz`.
    """
    name = _side_names(file)[0]
    return packed_or_plain(file.parent, name) or file.with_name(name)


def _side_names(file: Path) -> list[str]:
    stem = file.name.removesuffix(".gz").removesuffix(".inter")
    return [stem + ending for ending in SIDES]


def _inter_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = sorted([*path.glob("*.inter"), *path.glob("*.inter.gz")])
    if len(found) != 1:
        raise DataError(
            f"{path}: must hold exactly one .inter or .inter.gz file; it has {len(found)}: give"
            " data.path the file itself"
        )
    return found[0]


def _atomic(
    path: Path, needed: Mapping[str, tuple[str, ColumnRule]], number: pa.DataType
) -> tuple[pa.Table, dict[str, str]]:
    """A file of the format, its columns by bare name, and their types.

    Args:
        path: the file.
        needed: fields that have their type and keep their rule.
        number: what other fields of type float must fit into.
    """
    types: dict[str, str] = {}
    bare: list[str] = []
    for field in header(path, "\t"):
        name, colon, kind = field.rpartition(":")
        if not colon or kind not in TYPES:
            raise DataError(
                f"{path}: line 1: a field must be name:type with a type of {', '.join(TYPES)}; got"
                f" {field!r}"
            )
        if name in needed and needed[name][0] != kind:
            raise DataError(
                f"{path}: line 1: the field {name} must be {name}:{needed[name][0]}; got {field!r}"
            )
        bare.append(name)
        types[name] = kind
    once(path, bare)
    rules = {}
    for name, kind in types.items():
        free = ColumnRule(number if kind == "float" else TEXT, null=True)
        rules[f"{name}:{kind}"] = needed[name][1] if name in needed else free
    table = read_csv(path, rules, "\t")
    return table.rename_columns(list(types)), types


def _ids(file: Path, values: list[str]) -> npt.NDArray[Any]:
    """Ids of a token column as a catalogue keeps them."""
    longest = max(values, key=len)
    if len(longest) > LONGEST_ID:
        raise DataError(
            f"{file}: an id must have at most {LONGEST_ID:,} characters; got one of"
            f" {len(longest):,}: {longest[:60]!r}..."
        )
    return id_column(values)


def _hold_to_one_unit(file: Path, times: DoubleArray) -> None:
    """Refuse a file of which some times are seconds and others milliseconds since 1970: they have
    no common order.
    """
    seconds, milliseconds = (
        (times >= low) & (times <= high) for low, high in (SINCE_1970["s"], SINCE_1970["ms"])
    )
    between = (times > SINCE_1970["s"][1]) & (times < SINCE_1970["ms"][0])
    if seconds.any() and milliseconds.any() and not between.any():
        rows = [int(np.argmax(seconds)), int(np.argmax(milliseconds))]
        (a, at), (b, bt) = ((line_of(file, row, "\t"), times[row]) for row in rows)
        raise DataError(
            f"{file}: timestamp must be in one unit: line {a} has {at:.15g}, which is a time in s, "
            f"line {b} has {bt:.15g}, which is one in ms"
        )


def _features(
    path: Path | None, key: str, log_ids: list[str], base: int
) -> tuple[dict[str, Any], tuple[IntArray, IntArray] | None, dict[str, Any]]:
    """Columns of a `.item` or `.user` file by name, its first token_seq field as ragged attributes,
    and notes on its ids.

    Args:
        path: the file; None where it is not there.
        key: the field of its ids.
        log_ids: ids of the log in the order of their numbers.
        base: number of the first one.
    """
    if path is None:
        return {}, None, {}
    table, types = _atomic(path, {key: ("token", ColumnRule(TEXT, unique=True))}, pa.float32())
    if key not in types:
        raise DataError(f"{path}: line 1: needs the field {key}:token")
    if "id" in types:
        raise DataError(
            f"{path}: line 1: no field may be called id, as the ids of {key} are in a catalogue;"
            " rename it"
        )
    ids = table[key].to_pylist()
    place = {value: number for number, value in enumerate(log_ids, start=base)}
    keep = np.array([value in place for value in ids], dtype=bool)
    row = np.array([place[value] for value in ids if value in place], dtype=np.int64)
    size = len(log_ids) + base
    columns: dict[str, Any] = {}
    attributes, unused = None, []
    for name, kind in types.items():
        values = table[name].filter(pa.array(keep))
        if kind == "token_seq" and attributes is None:
            attributes = _ragged(values, row, size)
        elif kind in ("token", "float") and name != key:
            columns[name] = spread(feature(values), row, size)
        elif name != key:
            unused.append(f"{name}:{kind}")
    notes = coverage("items" if key == "item_id" else "users", path.name, ids, log_ids, "left out")
    return (
        columns,
        attributes,
        {**notes, **({f"fields of {path.name} that nothing uses": unused} if unused else {})},
    )


def _ragged(values: pa.ChunkedArray, row: IntArray, size: int) -> tuple[IntArray, IntArray]:
    lists = pc.split_pattern(pc.fill_null(values, ""), " ")
    flat = pc.list_flatten(lists)
    owner = np.repeat(row, pc.list_value_length(lists).to_numpy())
    real = pc.not_equal(flat, "").to_numpy()
    ids, owner = feature(flat.filter(pa.array(real))), owner[real]
    counts = np.bincount(owner, minlength=size)
    return (
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        ids[np.argsort(owner, kind="stable")],
    )
