"""Delimited text -> typed Arrow tables, every bad cell named by file, line, column, rule and value. No data set is known here."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

LAYOUT_ERRORS = (OSError, EOFError, zlib.error, UnicodeDecodeError)


class DataError(ValueError):
    """Data that cannot be read as it should: the message names the file, the line, the column, the rule and the value."""


@dataclass(frozen=True)
class Column:
    """What a column must hold.

    Attributes:
        type: Arrow type: an integer, a float, or `pa.string()`.
        low: smallest value allowed, or None.
        high: largest value allowed, or None.
        null: whether an empty cell is allowed.
    """

    type: pa.DataType
    low: float | None = None
    high: float | None = None
    null: bool = False

    @property
    def rule(self) -> str:
        """The rule in words, as in "must be an integer in [0, 1]"."""
        text = "text" if self.null else "text that is not empty"
        kind = "an integer" if pa.types.is_integer(self.type) else "a number" if pa.types.is_floating(self.type) else text
        if self.low is None and self.high is None:
            return kind
        low, high = ("-inf" if self.low is None else f"{self.low:.15g}"), ("inf" if self.high is None else f"{self.high:.15g}")
        return f"{kind} in (0, {high}]" if self.low == np.nextafter(0, 1) else f"{kind} in [{low}, {high}]"

    def parse(self, text: str) -> str | None:
        """Why `text` is not allowed, or None where it is."""
        if text == "":
            return None if self.null else "empty"
        if pa.types.is_string(self.type):
            return None
        try:
            value: float = int(text) if pa.types.is_integer(self.type) else float(text)
        except ValueError:
            return "unreadable"
        good = value == value and (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        return None if good else "out of range"


def open_text(path: Path) -> IO[str]:
    """Open a text file, decompressing `.gz`."""
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def header(path: Path, delimiter: str = ",") -> list[str]:
    """The column names in the first line.

    Raises:
        DataError: no readable first line.
    """
    try:
        with open_text(path) as stream:
            first = stream.readline()
    except LAYOUT_ERRORS as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    names = next(csv.reader([first.rstrip("\r\n")], delimiter=delimiter), [])
    if not names:
        raise DataError(f"{path}: line 1: a header with column names must stand there; the line is empty")
    return [name.lstrip("\ufeff").strip() for name in names]


def read_csv(path: Path, columns: Mapping[str, Column], delimiter: str = ",", *, others: bool = True) -> pa.Table:
    """Read a delimited file with a header line, plain or gzip.

    Args:
        path: the file.
        columns: what must be there, by name.
        delimiter: between cells.
        others: whether columns that are not named are read too, with the types that they seem to have.

    Returns:
        The table, columns in the order of the file (without `others`: of `columns`).

    Raises:
        DataError: the first bad line, with file, line, column, rule and value.
    """
    names = header(path, delimiter)
    for name in columns:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"; did {close[0]!r} mean it?" if close else f"; it has {', '.join(names)}"
            raise DataError(f"{path}: line 1: no column {name!r}{hint}")
    try:
        table = pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(column_names=names, skip_rows=1, block_size=1 << 22),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types={name: column.type for name, column in columns.items()},
                include_columns=[] if others else list(columns),
                null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, *LAYOUT_ERRORS) as error:
        raise _first_fault(path, names, columns, delimiter) or DataError(f"{path}: cannot be read: {error}") from error
    for name, column in columns.items():
        if not _allowed(table[name], column):
            raise _first_fault(path, names, columns, delimiter) or DataError(f"{path}: column {name!r} must be {column.rule}")
    return table


def _allowed(values: pa.ChunkedArray, column: Column) -> bool:
    if values.null_count and not column.null:
        return False
    if pa.types.is_string(column.type):
        return column.null or not pc.any(pc.equal(values, "")).as_py()
    if len(values) == values.null_count:
        return True
    if pa.types.is_floating(column.type) and pc.any(pc.is_nan(values)).as_py():
        return False
    extremes = pc.min_max(values).as_py()
    return (column.low is None or extremes["min"] >= column.low) and (column.high is None or extremes["max"] <= column.high)


def _first_fault(path: Path, names: list[str], columns: Mapping[str, Column], delimiter: str) -> DataError | None:
    """The first line that breaks a rule, found by reading slowly; None where every line keeps them."""
    places = {name: names.index(name) for name in columns}
    try:
        for line, cells in _lines(path, delimiter):
            if len(cells) != len(names):
                shown = delimiter.join(cells)
                return DataError(f"{path}: line {line}: must have {len(names)} cells as the header; got {len(cells)}: {shown[:120]!r}")
            for name, place in places.items():
                if columns[name].parse(cells[place]) is not None:
                    return DataError(f"{path}: line {line}: {name} must be {columns[name].rule}; got {cells[place]!r}")
    except LAYOUT_ERRORS as error:
        return DataError(f"{path}: the file breaks off or is not UTF-8 text: {error}")
    return None


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    with open_text(path) as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        next(reader, None)
        for cells in reader:
            yield reader.line_num, cells


def codes(values: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], list[Any]]:
    """Categories as numbers: `[N]` 1, 2, ... by first appearance, 0 = empty; and the category of each number from 1 on."""
    encoded = pc.dictionary_encode(values).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], values.type).dictionary_encode()
    indices = pc.fill_null(pc.cast(encoded.indices, pa.int64()), -1)
    return indices.to_numpy(zero_copy_only=False) + 1, encoded.dictionary.to_pylist()


def feature(values: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column as a feature: numbers as float32 (NaN = empty), whole numbers as int64, anything else as category codes.

    A column of whole numbers that has empty cells becomes float32. Text becomes int64 codes with 0 for empty.
    """
    if pa.types.is_boolean(values.type):
        values = pc.cast(values, pa.int8())
    if pa.types.is_floating(values.type) or (pa.types.is_integer(values.type) and values.null_count):
        return np.asarray(pc.cast(values, pa.float32()).to_numpy(), dtype=np.float32)
    if pa.types.is_integer(values.type):
        return np.asarray(values.to_numpy(), dtype=np.int64)
    return codes(pc.cast(values, pa.string()))[0]
