"""Rows as people hold them: the columns of a DataFrame, an Arrow table or a file, before anything
is decided about them.

Every column is an Arrow array whose values are exactly those that came (no id becomes a float),
with null where a cell is blank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from policies.similar import similar
from simulator.stats.readings import Cells, as_numpy, encoded, is_text
from simulator.stats.unit_table import TableError

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

BLANK = "(blank)"
"""The segment of the users of whom nothing is written."""

UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*(_level_\d+)?")
"""A column without a name is called as pandas calls it."""


@dataclass(frozen=True)
class Rows:
    """Columns by name.

    Attributes:
        columns: by name, in order: what gives the cells `[n]` of each (asked for once).
        place: a row in words, as its reader knows it: `line 7`, `row 5`.
        labels: columns that pandas keeps as row labels (its index): used only where they are asked
            for.
        text: whether the source knows nothing but text (csv).
        marks: columns that say where a row lay (the folders of Parquet parts), and are no numbers
            whatever they hold.
    """

    columns: Mapping[str, Callable[[], Cells]]
    place: Callable[[int], str]
    labels: Mapping[str, Callable[[], Cells]] = field(default_factory=dict)
    text: bool = False
    marks: frozenset[str] = frozenset()
    _read: dict[str, Cells] = field(default_factory=dict)

    def cells(self, column: str) -> Cells:
        """The cells of a column (or of row labels) `[n]`, as a `pyarrow.ChunkedArray`.

        Raises:
            TableError: there is none of this name.
        """
        if column not in self._read:
            cells = _plain(self._getter(column)())
            self._read[column] = (
                cells if isinstance(cells, pa.ChunkedArray) else pa.chunked_array([cells])
            )
        return self._read[column]

    def said(self, column: str, row: int) -> str:
        """What a cell says, in words: `is 7`, or `has no value`."""
        cell = self.cells(column)[row]
        is_blank = not str(cell).strip() or (str(cell) == "nan" and not self.text)
        return f"is {cell}" if cell.is_valid and not is_blank else "has no value"

    def _getter(self, column: str) -> Callable[[], Cells]:
        getter = self.columns.get(column) or self.labels.get(column)
        if getter is None:
            raise TableError(
                f"the table has no column {column!r}{_near(column, self.columns)}; it has"
                f" {list(self.columns)}"
            )
        return getter


def _near(column: str, names: Iterable[str]) -> str:
    """A column that may have been meant."""
    near = similar(column, names)
    return "" if near is None else f" (is it {near!r}? name it: --user, --arm, --metric, ...)"


def as_rows(table: Rows | pd.DataFrame | Any) -> Rows:
    """Rows of a pandas DataFrame, of an Arrow table, or of anything that gives one
    (`__arrow_c_stream__`: polars, DuckDB).

    Raises:
        TableError: none of these, or two columns of one name.
    """
    if isinstance(table, Rows):
        return table
    if hasattr(table, "iloc") and hasattr(table, "columns"):
        return _of_pandas(table)
    if hasattr(table, "__arrow_c_stream__") or hasattr(table, "__arrow_c_array__"):
        return of_arrow(pa.table(table))
    raise TableError(f"a table is a pandas DataFrame or an Arrow table; got {type(table).__name__}")


def of_arrow(
    table: pa.Table, place: Callable[[int], str] | None = None, index: Iterable[str] = ()
) -> Rows:
    """Rows of an Arrow table; the columns of `index`, and those that pandas wrote as its index, are
    row labels.

    Raises:
        TableError: two columns of one name.
    """
    table, own = with_index(table)
    names, labels = named(table.column_names), {*index, *own}
    getters = {name: lambda i=i: table.column(i) for i, name in enumerate(names)}
    return Rows(
        {name: get for name, get in getters.items() if name not in labels},
        place or (lambda row: f"row {row}"),
        {name: get for name, get in getters.items() if name in labels},
    )


def with_index(table: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """A table with the row labels of pandas as columns, and the names of these. pandas writes
    consecutive ones as a range, by its ends.
    """
    names = []
    for label in (table.schema.pandas_metadata or {}).get("index_columns", ()):
        if isinstance(label, str):
            names.append(label)
        elif label.get("name") is not None and label["name"] not in table.column_names:
            numbers = np.arange(label["start"], label["stop"], label["step"])
            if len(numbers) == table.num_rows:  # else rows were taken away since
                table = table.append_column(str(label["name"]), pa.array(numbers))
                names.append(str(label["name"]))
    return table, tuple(names)


def _of_pandas(frame: pd.DataFrame) -> Rows:
    names = named(frame.columns)
    columns = {name: lambda i=i: _of_series(frame.iloc[:, i]) for i, name in enumerate(names)}
    levels = {
        _text(label): lambda i=i: _of_series(frame.index.get_level_values(i).to_series())
        for i, label in enumerate(frame.index.names)
        if label is not None
    }
    index = {name: get for name, get in levels.items() if name not in columns}
    return Rows(columns, lambda row: f"{frame.index.name or 'row'} {frame.index[row]}", index)


def named(labels: Iterable[Any]) -> list[str]:
    """Labels of columns as names; those without one are numbered as pandas does.

    Raises:
        TableError: two of one name.
    """
    names = [_text(label).strip() for label in labels]
    for i, name in enumerate(names):
        if not name:
            names[i] = f"Unnamed: {i}"
            while names[i] in names[:i] + names[i + 1 :]:
                names[i] += ".1"
    twice = []
    if len(set(names)) < len(names):
        twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise TableError(
            f"two columns are called {twice[0]!r}; give every column a name of its own"
        )
    return names


def _text(label: Any) -> str:
    """A label of a column as text; that of several levels, joined as one usually flattens them."""
    if isinstance(label, tuple):
        return "_".join(part for part in map(_text, label) if part)
    # A label that is not itself is NaN.
    return "" if label is None or label != label else str(label)


def _of_series(series: pd.Series[Any]) -> Cells:
    """The cells of a pandas column; what Arrow has no one type for (several types, very long
    integers, intervals) as text.
    """
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes = series.cat.codes.to_numpy()
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=codes < 0), _whole(_of_series(dtype.categories.to_series()))
        )
    if isinstance(dtype, pd.SparseDtype):
        return _of_series(pd.Series(series.to_numpy()))
    # NaN stays: looking for it takes longer than the verdict.
    if isinstance(dtype, np.dtype) and dtype.kind in "iuf":
        return pa.array(series.to_numpy().astype(dtype.newbyteorder("="), copy=False))
    if isinstance(dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        return _as_text(series)
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return _as_text(series)


def _as_text(values: Iterable[Any]) -> Cells:
    """Each value as Python writes it, null where there is none."""
    import pandas as pd

    def text(value: Any) -> str | None:
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return None
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)

    return pa.array([text(value) for value in values], pa.large_string())


def _whole(cells: Cells) -> Cells:
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells


def _plain(cells: Cells) -> Cells:
    """The cells in a type that every kernel of Arrow knows."""
    kind = cells.type
    if isinstance(kind, pa.BaseExtensionType):
        return _without_extension(cells)
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_decode(cells)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return cells.cast(pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary())
    return cells


def _without_extension(cells: Cells) -> Cells:
    """The cells of an extension type as those that it is stored as; UUIDs as text."""
    if isinstance(cells, pa.ChunkedArray):
        return pa.chunked_array(
            [_without_extension(chunk) for chunk in cells.chunks],
            type=None if cells.num_chunks else pa.string(),
        )
    if cells.type.extension_name == "arrow.uuid":
        return _as_text(cells.to_pylist())
    return cells.storage


@dataclass(frozen=True)
class Labels:
    """A column as labels: text exactly as it came.

    Attributes:
        names: the distinct labels in the order of their first rows.
        codes: `[n]` index into names, -1 where blank (nothing, or nothing but spaces).
    """

    names: tuple[str, ...]
    codes: Array


def labels(rows: Rows, column: str, most: int | None = None) -> Labels:
    """A column of any type as labels.

    Raises:
        TableError: no such column; lists or other nested values; bytes that are no UTF-8 text; more
            than `most` labels.
    """
    distinct, codes = _distinct_cells(rows, column)
    n_levels = len(distinct) + bool((codes < 0).any())
    if most is not None and n_levels > most:
        raise TableError(
            f"column {column!r} has {n_levels:,} levels, such as {str(distinct[0])!r}; a segment"
            f" has at most {most}"
        )
    kind = distinct.type
    if _is_binary(kind):
        try:
            distinct = pc.cast(distinct, pa.string())
        except pa.ArrowInvalid as error:
            rule = f"column {column!r} holds bytes ({kind}) that are no UTF-8 text"
            raise TableError(f"{rule}; write them as text (hexadecimal, base64)") from error
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        distinct = _moments(distinct)
    names = tuple(map(str, distinct.to_pylist()))
    blank = np.array([not name.strip() for name in names], dtype=bool)
    if not blank.any():
        return Labels(names, codes)
    place = np.append(np.where(blank, -1, np.cumsum(~blank) - 1), -1)
    return Labels(tuple(name for name in names if name.strip()), place[codes])


def _moments(times: Cells) -> Cells:
    """Dates and times as text, without the zeros that none of them needs."""
    texts = pc.cast(times, pa.string())
    for zeros in (r"\.0+(Z?)$", r" 00:00:00(Z?)$"):
        if pc.all(pc.match_substring_regex(texts, zeros)).as_py():
            texts = pc.replace_substring_regex(texts, zeros, r"\1")
    return texts


def _distinct_cells(rows: Rows, column: str) -> tuple[Cells, Array]:
    """The distinct cells of a column and the index `[n]` of each row's, -1 where blank.

    Raises:
        TableError: nested values.
    """
    cells = rows.cells(column)
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_nested(cells.type):
        raise TableError(f"column {column!r} holds {cells.type}, and not one value in each row")
    if pa.types.is_null(cells.type):
        return pa.array([], pa.string()), np.full(len(cells), -1)
    if pa.types.is_floating(cells.type):
        cells = pc.if_else(pc.is_nan(cells), pa.scalar(None, cells.type), cells)
    return encoded(cells)


def _is_binary(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


@dataclass(frozen=True)
class Ids:
    """Who each row is of.

    Attributes:
        numbers: `[n]` whole numbers, equal exactly where the ids are.
        names: the ids by number; None where the numbers are the ids.
    """

    numbers: Array
    names: Cells | None = None

    @property
    def distinct(self) -> bool:
        """Whether none occurs twice; ascending or dense numbers are told without hashing."""
        numbers = self.numbers
        if not len(numbers) or bool((numbers[1:] > numbers[:-1]).all()):
            return True
        low = numbers.min()
        if int(numbers.max()) - int(low) < 4 * len(numbers):
            return bool((np.bincount((numbers - low).astype(np.int64)) <= 1).all())
        return int(pc.count_distinct(pa.array(numbers)).as_py()) == len(numbers)

    @property
    def ranks(self) -> Array:
        """`[n]` 0, 1, ... in the order of the ids, numbers as numbers and text as text."""
        values, index = np.unique(self.numbers, return_inverse=True)
        if self.names is None:
            return index
        order = np.asarray(pc.array_sort_indices(self.names.take(pa.array(values))))
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return rank[index]

    def name(self, row: int) -> str:
        """The id of a row as text."""
        number = self.numbers[row]
        value = number if self.names is None else self.names[int(number)].as_py()
        if isinstance(value, bytes):
            return value.decode() if value.isascii() else value.hex()
        return str(value)


def ids(rows: Rows, column: str) -> Ids:
    """A column of ids of any type: `0007` is not `7`, and no digit of a long number is lost.

    Raises:
        TableError: no such column; a row without an id; nested values.
    """
    cells = rows.cells(column)
    if pa.types.is_integer(cells.type) and not cells.null_count:
        return Ids(as_numpy(cells))
    if rows.text and not cells.null_count:
        numbers = _canonical(cells)
        if numbers is not None:
            return Ids(numbers)
    distinct, numbers = _distinct_cells(rows, column)
    missing = numbers < 0
    if is_text(distinct.type):
        missing |= np.append(np.asarray(pc.equal(pc.utf8_trim_whitespace(distinct), "")), False)[
            numbers
        ]
    if missing.any():
        place, count = rows.place(int(np.flatnonzero(missing)[0])), np.count_nonzero(missing)
        raise TableError(
            f"{place}: column {column!r} has no value; such rows: {count:,}; every row must be of"
            " somebody"
        )
    return Ids(numbers, distinct)


def _canonical(cells: Cells) -> Array | None:
    """Text as whole numbers, where each number is written in the one usual way, so that numbers
    differ where texts do; else None.
    """
    zero = cells.filter(pc.starts_with(cells, "0"))  # 007, and 0x7, which Arrow reads as a number
    if pc.any(pc.not_equal(zero, "0")).as_py() or pc.any(pc.starts_with(cells, "-0")).as_py():
        return None
    try:
        return as_numpy(pc.cast(cells, pa.int64()))
    except pa.ArrowInvalid:
        return None
