"""The columns of an event log, what holds rows to them, and the check sums of what was written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.log.kinds import FEEDBACK
from simulator.log.metadata import FIT, LogError

TAB = "tab"
"""Optional column (u8) of logs of a real service: the surface that a request came from, as the
source numbers it.
"""


OPTIONAL = (*FEEDBACK, TAB, FIT)
"""The columns that a log has only where it knows them, in order."""


COLUMNS: dict[str, pa.DataType] = {
    "arm": pa.uint8(),
    "user": pa.uint32(),
    "session": pa.uint32(),
    "request": pa.uint16(),
    "position": pa.uint16(),
    "t": pa.int64(),
    "item": pa.uint32(),
    "propensity": pa.float32(),
    "click": pa.bool_(),
    "watch": pa.float32(),
    "duration": pa.float32(),
    "channel": pa.uint8(),
    "logged": pa.bool_(),
}
"""The columns that every log has, in order; FEEDBACK columns (bool), TAB and FIT follow where the
log knows them.

arm: index into `Metadata.arms`. session: per (arm, user), from 0. request: within the session, from
0. position: within the slate, from 0. t: ms, the scenario starts at 0, history has t < 0. item:
1..n_items. propensity: null where unknown.
click: true = click, false = unclick, null = not observed. watch: s, null = not observed. duration:
    s, NaN-free, 0 where unknown.
channel: 0 = the recall policy of the arm, 1, 2, ... = `Metadata.channels`. logged: true where a
real log answered, false where a model of users did.
"""


NULLABLE = frozenset({"propensity", "click", "watch", TAB, *FEEDBACK})


def schema(kinds: Iterable[str]) -> pa.Schema:
    """The Arrow schema of a log with the given optional columns: FEEDBACK `kinds`, TAB, FIT."""
    kinds = set(kinds)
    unknown = kinds - {*OPTIONAL}
    if unknown:
        raise LogError(
            f"unknown kinds of feedback {sorted(unknown)}; an event log knows {list(FEEDBACK)}"
        )
    fields = [pa.field(name, kind, nullable=name in NULLABLE) for name, kind in COLUMNS.items()]
    fields += [pa.field(name, pa.bool_(), nullable=True) for name in FEEDBACK if name in kinds]
    fields += [pa.field(TAB, pa.uint8(), nullable=True)] if TAB in kinds else []
    fields += [pa.field(FIT, pa.uint8(), nullable=False)] if FIT in kinds else []
    return pa.schema(fields)


class Seal:
    """Check sums of the rows and columns of a part, which it carries beside its metadata; they do
    not depend on how rows are cut.

    Page check sums guard the pages of a Parquet file but not its footer, where sizes and names
    stand: the seal guards what is read.
    """

    KEY = b"abtest.seal"

    def __init__(self) -> None:
        self.rows = 0
        self.columns: dict[str, int] = {}

    def add(self, rows: pa.Table | LogRows) -> None:
        """Take the next rows in."""
        if isinstance(rows, LogRows):
            names, n_rows = rows.batch.schema.names, rows.n_rows
            values: Mapping[str, np.ndarray] = rows
        else:
            names, n_rows = rows.column_names, rows.num_rows
            values = {name: column_values(rows, name) for name in names}
        self.rows += n_rows
        for name in names:
            column = np.ascontiguousarray(values[name]).data
            self.columns[name] = zlib.crc32(column, self.columns.get(name, 0))

    def to_json(self, metadata: bytes) -> str:
        """The seal of these rows and of the `metadata` that goes with them."""
        return json.dumps(
            {"rows": self.rows, "columns": self.columns, "metadata": zlib.crc32(metadata)},
            sort_keys=True,
        )

    def compare(self, written: Mapping[str, Any], place: str) -> None:
        """Hold the rows that were read to the seal of those that were written.

        Raises:
            LogError: they are not the same.
        """
        if self.rows != written.get("rows"):
            raise LogError(
                f"{place}: damaged: {self.rows} rows can be read, {written.get('rows')} were"
                " written"
            )
        for name, value in self.columns.items():
            columns = written.get("columns")
            if not isinstance(columns, dict) or columns.get(name) != value:
                raise LogError(
                    f"{place}: damaged: the values of column {name!r} are not those that were"
                    " written"
                )


def check_columns(place: str, given: pa.Schema) -> None:
    """Hold columns to the schema: names, order and types.

    Raises:
        LogError: they are others; `place` is named.
    """
    places: dict[str, int] = {}
    for number, name in enumerate(given.names, start=1):
        if name in places:
            raise LogError(
                f"{place}: two columns are called {name!r}, columns {places[name]} and {number}"
            )
        places[name] = number
    expected = schema([name for name in given.names if name in OPTIONAL])
    if list(given.names) != list(expected.names):
        raise LogError(f"{place}: columns are {given.names}; the schema says {expected.names}")
    for column in expected:
        kind = given.field(column.name).type
        if kind != column.type:
            raise LogError(f"{place}: column {column.name!r} must be {column.type}; it is {kind}")


def rises(key: Sequence[np.ndarray]) -> np.ndarray:
    """Whether each row's key is greater than the one above, `[N - 1]`."""
    result = np.zeros(max(len(key[0]) - 1, 0), dtype=bool)
    equal = np.ones_like(result)
    for column in key:
        step = np.diff(column)
        result |= equal & (step > 0)
        equal &= step == 0
    return result


class LogRows(dict[str, np.ndarray]):
    """A stretch of a log as numpy columns by name (`column_values`), each converted at its first
    use, and what begins in which row; whoever reads the stretch shares it.
    """

    def __init__(
        self, batch: pa.RecordBatch, key: Sequence[str], above: LogRows | None = None
    ) -> None:
        """`key`: of the log (`Metadata.key`); `above`: the stretch that ends where this one begins,
        None: nothing does.
        """
        super().__init__()
        self.batch, self.key = batch, tuple(key)
        self._last = None if above is None else {name: above[name][-1] for name in (*key, "t")}

    @property
    def n_rows(self) -> int:
        return int(self.batch.num_rows)

    def __missing__(self, name: str) -> np.ndarray:
        self[name] = column_values(self.batch, name)
        return self[name]

    def value(self, name: str, row: int) -> int:
        """The whole number in a row; of the stretch above in row -1."""
        return int(self[name][row] if row >= 0 or self._last is None else self._last[name])

    def beside_above(self, name: str, compare: Callable[..., np.ndarray]) -> np.ndarray:
        """`compare` (a ufunc) of each row's value with that of the row above, `[rows]`; False in
        the first row of a log.
        """
        column = self[name]
        result = np.zeros(len(column), dtype=bool)
        compare(column[1:], column[:-1], out=result[1:])
        if self._last is not None and len(column):
            result[0] = compare(column[0], self._last[name])
        return result

    @cached_property
    def begins(self) -> dict[str, np.ndarray]:
        """By column of the key, the rows `[rows]` bool in which it or one before it is another than
        in the row above: where an arm, a user, a session, a request begins.
        """
        found: dict[str, np.ndarray] = {}
        begins: np.ndarray | None = None
        for name in self.key:
            differs = self.beside_above(name, np.not_equal)
            if self._last is None:
                differs[:1] = True
            found[name] = begins = differs if begins is None else begins | differs
        return found

    def falls(self, key: Sequence[str]) -> np.ndarray:
        """The rows `[rows]` bool whose `key`, the first columns of the log's, is below that of the
        row above.
        """
        result, outer = np.zeros(self.n_rows, dtype=bool), np.ones(self.n_rows, dtype=bool)
        for name in key:
            result |= outer & self.beside_above(name, np.less)
            outer = ~self.begins[name]
        return result


def column_values(table: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    """A column as numpy, of one type whether or not it has nulls: nullable bools as int8 with -1
    for null, nullable whole numbers as int16 with -1, nullable floats with NaN.
    """
    column = table[name]
    if pa.types.is_integer(column.type) and name in NULLABLE:
        column = pc.fill_null(pc.cast(column, pa.int16()), -1)
    if pa.types.is_boolean(column.type):
        column = pc.fill_null(pc.cast(column, pa.int8()), -1)
    return np.asarray(
        column.to_numpy()
        if isinstance(column, pa.ChunkedArray)
        else column.to_numpy(zero_copy_only=False)
    )
