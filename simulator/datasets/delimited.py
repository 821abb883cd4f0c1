"""Delimited text -> typed Arrow tables, every bad cell named by file, line, column, rule and value.

No data set is known here. What all readers of text share is said here once: a byte order mark and
the kind of line end are no content, blank lines hold no row, spaces around a cell do not belong to
it. Cells between commas may be quoted, a quoted cell ends on its line; cells between tabs are plain
text, in which a quote is a character like any other.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from policies.base import IntArray
from policies.similar import similar
from simulator.log.files import looked_up

LAYOUT_ERRORS = (OSError, EOFError, zlib.error, UnicodeDecodeError)

TEXT = pa.string()

_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_RANGE = {
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.float32(): (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)),
    pa.float64(): (float(np.finfo(np.float64).min), float(np.finfo(np.float64).max)),
}
"""The numbers that a type of column can hold."""


class DataError(ValueError):
    """Data that cannot be read as it should: the message names the file, the line, the column, the
    rule and the value.
    """


@dataclass(frozen=True)
class ColumnRule:
    """What a column must hold.

    Attributes:
        type: Arrow type: `pa.int64()`, `pa.float32()`, `pa.float64()` or `TEXT`.
        low: smallest value allowed, or None.
        high: largest value allowed, or None.
        null: whether an empty cell is allowed.
        unique: whether every value may stand there once only.
        values: the only values allowed, or None.
    """

    type: pa.DataType
    low: float | None = None
    high: float | None = None
    null: bool = False
    unique: bool = False
    values: tuple[float, ...] | None = None

    @property
    def rule(self) -> str:
        """The rule in words, as in "must be an integer in [0, 1]"."""
        if self.values is not None:
            return " or ".join(f"{value:.15g}" for value in self.values)
        if self.type == TEXT:
            return "text" if self.null else "text that is not empty"
        if pa.types.is_integer(self.type):
            low = "-2^63" if self.low is None else f"{self.low:.15g}"
            high = "2^63 - 1" if self.high is None else f"{self.high:.15g}"
            return f"an integer in [{low}, {high}]"
        if self.low is None and self.high is None:
            return "a number"
        low = "-inf" if self.low is None else f"{self.low:.15g}"
        high = "inf" if self.high is None else f"{self.high:.15g}"
        if self.low == np.nextafter(0, 1):
            return f"a number in (0, {high}]"
        return f"a number in [{low}, {high}]"

    def parse(self, cell: str) -> Any:
        """The value of a cell, None where it is empty.

        Raises:
            ValueError: the cell breaks the rule.
        """
        text = cell.strip()
        if not text:
            if not self.null:
                raise ValueError("empty")
            return None
        if self.type == TEXT:
            return text
        whole = pa.types.is_integer(self.type)
        if not (_INTEGER if whole else _NUMBER).fullmatch(text):
            raise ValueError("unreadable")
        if whole and len(text) > 20:
            raise ValueError("out of range")
        value = int(text) if whole else float(text)
        low, high = _RANGE[self.type]
        low = low if self.low is None else self.low
        high = high if self.high is None else self.high
        if not low <= value <= high:
            raise ValueError("out of range")
        if self.values is not None and value not in self.values:
            raise ValueError("another value")
        return value


UTF_8 = "utf-8-sig"
"""UTF-8 with or without a byte order mark, which is no part of the text."""


def open_text(path: Path, encoding: str = UTF_8) -> IO[str]:
    """Open a text file, decompressing `.gz`.

    Raises:
        DataError: no such file.
    """
    return io.TextIOWrapper(_open_bytes(path), encoding=encoding)


def _open_bytes(path: Path) -> IO[bytes]:
    try:
        return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError as error:
        raise DataError(missing(path)) from error


def missing(path: Path) -> str:
    """That nothing is at `path`, in words: also where that is, if it depends on the working
    directory.
    """
    return f"{path}: no such file or folder{looked_up(path)}"


def unreadable(path: Path, error: Exception) -> DataError:
    """One of LAYOUT_ERRORS in words: with its line, where a line is not UTF-8."""
    if isinstance(error, UnicodeDecodeError):
        try:
            with _open_bytes(path) as stream:
                number, odd = next(
                    (number, line)
                    for number, line in enumerate(stream, start=1)
                    if not _is_utf8(line)
                )
        except LAYOUT_ERRORS as another:
            error = another  # a packed file that is damaged is both
        else:
            return DataError(
                f"{path}: line {number}: must be UTF-8 text; got {odd[:80]!r}: save the file as"
                " UTF-8"
            )
    reason = getattr(error, "strerror", None) or error
    return DataError(f"{path}: the file breaks off or cannot be read: {reason}")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def header(path: Path, delimiter: str = ",") -> list[str]:
    """The column names in the first line.

    Raises:
        DataError: no readable first line, or a name that stands there twice.
    """
    try:
        with open_text(path) as stream:
            first = stream.readline()
    except LAYOUT_ERRORS as error:
        raise unreadable(path, error) from error
    if not first.strip():
        raise DataError(
            f"{path}: line 1: a header with column names must stand there; the line is empty"
        )
    names = [name.strip() for name in _cells(path, 1, first, delimiter)]
    once(path, names)
    return names


def once(path: Path, names: Sequence[str]) -> None:
    """Hold the names of columns to being different; columns without a name may be several, for
    nobody can ask for them.

    Raises:
        DataError: a name that stands there twice.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(names, start=1):
        if name and name in places:
            raise DataError(
                f"{path}: line 1: two columns are called {name!r}, columns {places[name]} and"
                f" {place}: rename one or take it away"
            )
        places[name] = place


def read_csv(
    path: Path, columns: Mapping[str, ColumnRule], delimiter: str = ",", *, others: bool = True
) -> pa.Table:
    """Read a delimited file with a header line, plain or gzip.

    Args:
        path: the file.
        columns: what must be there, by name.
        delimiter: between cells; see the module for what follows from it.
        others: whether columns that are not in `columns` are read too, as text. Columns without a
            name never are.

    Returns:
        The table, columns in the order of the file (without `others`: of `columns`), empty cells
        null.

    Raises:
        DataError: the first bad line, with file, line, column, rule and value.
    """
    names = header(path, delimiter)
    for name in columns:
        if name not in names:
            near = similar(name, names)
            hint = f"it has {', '.join(names)}" if near is None else f"did {near!r} mean it?"
            raise DataError(f"{path}: line 1: no column {name!r}; {hint}")
    if delimiter == "," and _needs_care(path):
        fault = _first_fault(path, names, columns, delimiter)
        if fault is not None:
            raise fault
    kept = [name for name in names if name] if others else list(columns)
    types = {name: columns[name].type if name in columns else TEXT for name in kept}
    try:
        table = _parse(path, names, types, delimiter)
    except (pa.ArrowInvalid, *LAYOUT_ERRORS) as error:
        fault = _first_fault(path, names, columns, delimiter)
        if fault is not None:
            raise fault from error
        # Every line is right. The fast reader takes a line of spaces for a row, and a header alone
        # for none.
        try:
            table = _parse(_tidy(path, delimiter), names, types, delimiter)
        except pa.ArrowInvalid as again:
            raise DataError(f"{path}: cannot be read: {again}") from again
    table = pa.table({name: _trimmed(table[name]) for name in table.column_names})
    for name, column in columns.items():
        if not _allowed(table[name], column):
            fault = _first_fault(path, names, columns, delimiter)
            raise fault or DataError(f"{path}: column {name!r} must be {column.rule}")
    return table


def _parse(
    source: Path | IO[bytes], names: Sequence[str], types: Mapping[str, pa.DataType], delimiter: str
) -> pa.Table:
    """The columns of `types` of a file whose columns are called `names`, by Arrow's reader."""
    return pacsv.read_csv(
        source,
        read_options=pacsv.ReadOptions(
            column_names=[name or f"\0{place}" for place, name in enumerate(names)],
            skip_rows=1,
            block_size=1 << 22,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=delimiter, quote_char='"' if delimiter == "," else False
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _tidy(path: Path, delimiter: str) -> IO[bytes]:
    """The text of a file without its blank lines, and with an end to its last line."""
    with open_text(path) as stream:
        kept = [line.rstrip("\n") + "\n" for line in stream if not _is_blank(line, delimiter)]
    return io.BytesIO("".join(kept).encode())


def read_all(paths: Sequence[Path], columns: Mapping[str, ColumnRule]) -> pa.Table:
    """Read files of one kind as one table (`read_csv` of each); a unique column is unique over all
    of them.

    Raises:
        DataError: see `read_csv`; a value of a unique column in two files.
    """
    tables = [read_csv(path, columns) for path in paths]
    if len(tables) == 1:
        return tables[0]
    for name in [name for name, column in columns.items() if column.unique]:
        where: dict[Any, Path] = {}
        for path, table in zip(paths, tables, strict=True):
            for value in table[name].to_pylist():
                if where.setdefault(value, path) is not path:
                    here, there = (
                        _line_of(file, name, columns[name], value) for file in (path, where[value])
                    )
                    raise DataError(
                        f"{here}: {name} must be unique; {value!r} stands in {there} already"
                    )
    return pa.concat_tables(tables, promote_options="permissive")


def line_of(path: Path, row: int, delimiter: str = ",") -> int:
    """The line of the file in which row `row` of its table stands (from 0, as `read_csv` gives
    them).
    """
    for place, (line, _) in enumerate(_lines(path, delimiter)):
        if place == row:
            return line
    raise IndexError(f"{path} has no row {row}")


def _line_of(path: Path, name: str, column: ColumnRule, value: Any) -> str:
    place = header(path).index(name)
    for line, cells in _lines(path, ","):
        if column.parse(cells[place]) == value:
            return f"{path}: line {line}"
    raise KeyError(f"{path} has no {value!r}")


def _trimmed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text without the spaces around it; what is then empty is null."""
    if values.type != TEXT:
        return values
    trimmed = pc.utf8_trim_whitespace(values)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, TEXT), trimmed)


def _allowed(values: pa.ChunkedArray, column: ColumnRule) -> bool:
    if values.null_count and not column.null:
        return False
    if column.unique and pc.count_distinct(values).as_py() < len(values) - values.null_count:
        return False
    if column.type == TEXT or len(values) == values.null_count:
        return True
    if pa.types.is_floating(column.type) and not pc.all(pc.is_finite(values)).as_py():
        return False
    if column.values is not None:
        return bool(pc.all(pc.is_in(values, pa.array(column.values, column.type))).as_py())
    extremes = pc.min_max(values).as_py()
    return (column.low is None or extremes["min"] >= column.low) and (
        column.high is None or extremes["max"] <= column.high
    )


def _needs_care(path: Path) -> bool:
    """Whether a file has what the fast reader takes otherwise than the rules say: quotes, which may
    swallow lines, and hexadecimal numbers."""
    last = b""
    try:
        with _open_bytes(path) as stream:
            while block := stream.read(1 << 22):
                if b'"' in block or re.search(rb"0[xX]", last + block):
                    return True
                last = block[-1:]
    except LAYOUT_ERRORS as error:
        raise unreadable(path, error) from error
    return False


def _first_fault(
    path: Path, names: list[str], columns: Mapping[str, ColumnRule], delimiter: str
) -> DataError | None:
    """The first line that breaks a rule, found by reading slowly; None where every line keeps
    them.
    """
    places = {name: names.index(name) for name in columns}
    lines: dict[str, dict[Any, int]] = {
        name: {} for name, column in columns.items() if column.unique
    }
    try:
        for line, cells in _lines(path, delimiter):
            if len(cells) != len(names):
                shown = delimiter.join(cells)
                return DataError(
                    f"{path}: line {line}: must have {len(names)} cells as the header; got"
                    f" {len(cells)}: {shown[:120]!r}"
                )
            for name, place in places.items():
                try:
                    value = columns[name].parse(cells[place])
                except ValueError:
                    return DataError(
                        f"{path}: line {line}: {name} must be {columns[name].rule}; got"
                        f" {cells[place][:120]!r}"
                    )
                if (
                    name in lines
                    and value is not None
                    and lines[name].setdefault(value, line) != line
                ):
                    return DataError(
                        f"{path}: line {line}: {name} must be unique; {value!r} stands in line"
                        f" {lines[name][value]} already"
                    )
    except DataError as fault:
        return fault
    except LAYOUT_ERRORS as error:
        return unreadable(path, error)
    return None


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of every line below the header that is not blank."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            if number > 1 and not _is_blank(line, delimiter):
                yield number, _cells(path, number, line, delimiter)


def _is_blank(line: str, delimiter: str) -> bool:
    return not line.replace(delimiter, "x").strip()


def _cells(path: Path, number: int, line: str, delimiter: str) -> list[str]:
    text = line.rstrip("\n")
    if delimiter == "\t" or '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text.rstrip()], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}: line {number}: a quoted cell must end on its line, before a {delimiter!r} or"
            f" the end of the line ({error}); got {text[:120]!r}"
        ) from error


def codes(values: pa.ChunkedArray) -> tuple[IntArray, list[Any]]:
    """Categories as numbers: `[N]` 1, 2, ... by first appearance, 0 = empty; and the category of
    each number from 1 on.
    """
    encoded = pc.dictionary_encode(values).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        if encoded.num_chunks:
            encoded = encoded.chunk(0)
        else:
            encoded = pa.array([], values.type).dictionary_encode()
    indices = pc.fill_null(pc.cast(encoded.indices, pa.int64()), -1)
    return indices.to_numpy(zero_copy_only=False) + 1, encoded.dictionary.to_pylist()


def numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text as whole numbers, else as numbers, where every cell that is not empty is one; else as it
    is.
    """
    for kind in (pa.int64(), pa.float64()):
        column = ColumnRule(kind, null=True)
        if all(_fits(cell, column) for cell in pc.unique(values).to_pylist()):
            return pc.cast(values, kind)
    return values


def _fits(cell: str | None, column: ColumnRule) -> bool:
    try:
        column.parse(cell or "")
    except ValueError:
        return False
    return True


def feature(values: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column as a feature: numbers as float32 (NaN = empty), whole numbers as int64, anything
    else as category codes.

    Whole numbers are categories, too: a column of them that has empty cells becomes codes. Codes
    are int64 with 0 for empty.
    """
    if pa.types.is_floating(values.type):
        return np.asarray(pc.cast(values, pa.float32()).to_numpy(), dtype=np.float32)
    if pa.types.is_integer(values.type) and not values.null_count:
        return np.asarray(values.to_numpy(), dtype=np.int64)
    return codes(values)[0]


def spread(values: npt.NDArray[Any], row: IntArray, n: int) -> npt.NDArray[Any]:
    """`[n]` a feature's `values` at `row`; elsewhere it is unknown: 0 for codes and whole numbers,
    NaN for numbers.
    """
    out = np.full(n, np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
    out[row] = values
    return out
