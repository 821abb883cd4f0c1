"""Holding an event log to its schema: every rule on every row, streamed; the first broken one is named with file, row and value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.eventlog import FEEDBACK, KEY, TAB, EventLog, LogError, column_values, rises, schema

if TYPE_CHECKING:
    from simulator.eventlog import Metadata

Array = npt.NDArray[Any]


def validate(log: EventLog) -> None:
    """Check every rule of the schema on every row; memory does not grow with the log.

    Raises:
        LogError: the first broken rule, with file, row (from 0 within the file), column and value.
    """
    last: tuple[int, ...] | None = None
    for place, found, batches in _parts(log):
        _columns(place, found)
        row = 0
        for batch in batches:
            if batch.num_rows:
                last = _batch(batch, log.metadata, place, row, last)
            row += batch.num_rows


def _parts(log: EventLog) -> Iterator[tuple[str, pa.Schema, Iterator[pa.RecordBatch]]]:
    """Where each part is said to be, its schema and its rows."""
    if log.memory is not None:
        yield "", log.memory.schema, iter(log.memory.to_batches(max_chunksize=1 << 20))
        return
    for part in log.parts:
        try:
            with pq.ParquetFile(part) as stored:
                if stored.metadata.metadata is None or b"abtest" not in stored.metadata.metadata:
                    raise LogError(f"{part}: a Parquet file without abtest's metadata is not a part of an event log")
                found = stored.schema_arrow
        except (pa.ArrowInvalid, OSError) as error:
            raise LogError(f"{part}: not a readable Parquet file: {error}") from error
        yield f"{part}: ", found, EventLog(log.metadata, None, (part,)).batches()


def _columns(place: str, found: pa.Schema) -> None:
    """The columns are those of the schema, in order and type."""
    expected = schema([name for name in found.names if name in {*FEEDBACK, TAB}])
    if found.names != expected.names:
        raise LogError(f"{place}columns are {found.names}; the schema says {expected.names}")
    for column in expected:
        got = found.field(column.name).type
        if got != column.type:
            raise LogError(f"{place}column {column.name!r} must be {column.type}; it is {got}")


def _batch(batch: pa.RecordBatch, metadata: Metadata, place: str, row: int, last: tuple[int, ...] | None) -> tuple[int, ...]:
    """Check a batch whose first row is `row` of its part and comes after the key `last`; its own last key."""
    table = pa.Table.from_batches([batch])
    for name in table.column_names:
        if table[name].null_count and not schema([n for n in table.column_names if n in {*FEEDBACK, TAB}]).field(name).nullable:
            bad = int(np.flatnonzero(np.asarray(table[name].is_null()))[0])
            raise LogError(f"{place}row {row + bad}: {name} must not be null")
    values = {name: column_values(table, name) for name in (*KEY, "item", "duration", "propensity", "watch")}
    for name, (good, rule) in _rules(values, metadata).items():
        if not good.all():
            bad = int(np.flatnonzero(~good)[0])
            raise LogError(f"{place}row {row + bad}: {name} must be {rule}; got {table[name][bad].as_py()!r}")
    key = [values[name].astype(np.int64) for name in KEY]
    first = tuple(int(column[0]) for column in key)
    if last is not None and first <= last:
        raise LogError(f"{place}row {row}: key {KEY} = {first} must come after {last}: unsorted or twice")
    ascending = rises(key)
    if not ascending.all():
        bad = int(np.flatnonzero(~ascending)[0]) + 1
        here, above = (tuple(int(column[i]) for column in key) for i in (bad, bad - 1))
        raise LogError(f"{place}row {row + bad}: key {KEY} = {here} must come after {above}: unsorted or twice")
    return tuple(int(column[-1]) for column in key)


def _rules(values: Mapping[str, Array], metadata: Metadata) -> dict[str, tuple[Array, str]]:
    """Column -> (whether each row keeps the rule, the rule)."""
    p, w, d = values["propensity"], values["watch"], values["duration"]
    return {
        "arm": (values["arm"] < len(metadata.arms), f"an index below {len(metadata.arms)}"),
        "user": (values["user"] < metadata.n_users, f"a user of 0..{metadata.n_users - 1}"),
        "item": ((values["item"] >= 1) & (values["item"] <= metadata.n_items), f"an item of 1..{metadata.n_items}"),
        "duration": (np.isfinite(d) & (d >= 0), "seconds >= 0"),
        "propensity": (np.isnan(p) | ((p > 0) & (p <= 1)), "a probability in (0, 1] or null"),
        "watch": (np.isnan(w) | ((w >= 0) & np.isfinite(w)), "seconds >= 0 or null"),
    }
