"""Any table as a stream of Arrow batches whose rows know their place: text, Parquet and Arrow
files, folders of them, and tables of Python. What the columns mean is not known here.

Memory: one batch of the columns that are asked for (`ROWS` rows, or `BLOCK` bytes of text).
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from simulator.datasets.delimited import LAYOUT_ERRORS, DataError, missing, once
from simulator.log.files import HIDDEN, partitions, staged
from simulator.scenario.tables import TextLayout

ROWS = 1 << 20
"""Rows of a batch, at most."""

BLOCK = 1 << 23
"""Bytes of text that are cut into cells at once: more than any line has."""

COLUMNAR = (".parquet", ".arrow", ".feather")
TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".data", ".user", ".item")
PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}

MAGIC = {
    b"PAR1": "a Parquet file: call it .parquet",
    b"ARROW1": "an Arrow file: call it .arrow",
    b"\x1f\x8b": "gzipped: call it .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd: call it .zst",
    b"PK\x03\x04": "a zip archive (or an Excel file): unpack it (save it as csv)",
}

UNIT_SEPARATOR = "\x1f"
"""Stands for a delimiter of several characters, which Arrow's reader does not know."""


@dataclass(frozen=True)
class TableBatch:
    """Rows of a table.

    Attributes:
        table: the columns that were asked for.
        place: where a row of it stands (from 0): "ratings.csv: line 12".
    """

    table: pa.Table
    place: Callable[[int], str]


class Tabular(Protocol):
    """A table that is read in batches.

    Attributes:
        name: how messages call it.
        names: of the columns.
        files: that it is read from.
    """

    name: str
    names: list[str]
    files: list[Path]

    def batches(self, columns: Sequence[str]) -> Iterator[TableBatch]:
        """The rows in their order, with `columns` only.

        Raises:
            DataError: what cannot be read, by file and line or row group.
        """


def tabular(source: Any, layout: TextLayout | None = None, pattern: str | None = None) -> Tabular:
    """A table from a file, a folder or an object of Python.

    Args:
        source: the path of a text file (`.csv`, `.tsv`, ...; plain, `.gz`, `.zst` or `.bz2`), of a
            Parquet or Arrow file, or of a folder of one kind of these, whose folders may name
            columns (`day=2024-05-01/part-0.parquet`); or an object with `__arrow_c_stream__`: a
            table of pandas, Polars or Arrow, a relation of DuckDB, a stream. A stream can be read
            once.
        layout: how text files are cut.
        pattern: which files of a folder are parts of the table; else all that are tables.

    Raises:
        DataError: nothing there, no table, or one whose columns have no names.
    """
    layout = layout or TextLayout()
    if hasattr(source, "__arrow_c_stream__"):
        return _Relation(source)
    if not isinstance(source, (str, Path)):
        raise DataError(
            f"a table is a path or an object that gives Arrow streams (__arrow_c_stream__); got"
            f" {type(source).__name__}: collect a lazy frame first, or write it as Parquet"
        )
    path = Path(source)
    if path.is_dir():
        return _Folder(path, layout, pattern)
    if not path.exists():
        raise DataError(missing(path))
    return _part(path, layout)


def endings(path: Path) -> tuple[str, str | None]:
    """The ending that says what a file is, and the codec that it is packed by, if any."""
    codec = PACKED.get(path.suffix.lower())
    inner = Path(path.stem) if codec else path
    return inner.suffix.lower(), codec


def _part(path: Path, layout: TextLayout) -> Tabular:
    kind, codec = endings(path)
    if kind in COLUMNAR and codec is None:
        return _Parquet(path) if kind == ".parquet" else _Arrow(path)
    return _Text(path, layout)


class _Relation:
    """A table of Python, by the PyCapsule interface of Arrow's C streams."""

    files: list[Path] = []  # noqa: RUF012 (of no instance: there are none)

    def __init__(self, source: Any) -> None:
        self.name = type(source).__name__
        self.stream = pa.RecordBatchReader.from_stream(source)
        self.names = list(self.stream.schema.names)

    def batches(self, columns: Sequence[str]) -> Iterator[TableBatch]:
        first = 0
        for batch in self.stream:
            for start in range(0, batch.num_rows, ROWS):
                table = pa.Table.from_batches([batch.slice(start, ROWS)]).select(list(columns))
                yield TableBatch(table, _row(self.name, first + start))
            first += batch.num_rows


def _row(name: str, first: int) -> Callable[[int], str]:
    return lambda row: f"{name}: row {first + row}"


class _Parquet:
    """A Parquet file; a place is a row group and a row in it."""

    def __init__(self, path: Path) -> None:
        self.name, self.files = str(path), [path]
        try:
            with pq.ParquetFile(path) as file:
                self.names = list(file.schema_arrow.names)
                groups = range(file.metadata.num_row_groups)
                counts = [file.metadata.row_group(group).num_rows for group in groups]
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file: {error}") from error
        self.starts = list(accumulate(counts, initial=0))
        once(path, self.names)

    def batches(self, columns: Sequence[str]) -> Iterator[TableBatch]:
        first = 0
        try:
            with pq.ParquetFile(self.files[0], page_checksum_verification=True) as file:
                for batch in file.iter_batches(ROWS, columns=list(columns)):
                    table = pa.Table.from_batches([batch]).select(list(columns))
                    yield TableBatch(table, self._place(first))
                    first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self._place(first)(0)}: cannot be read: {error}") from error

    def _place(self, first: int) -> Callable[[int], str]:
        def place(row: int) -> str:
            group = max(g for g, start in enumerate(self.starts) if start <= first + row)
            return f"{self.name}: row group {group}, row {first + row - self.starts[group]}"

        return place


class _Arrow:
    """An Arrow (Feather) file."""

    def __init__(self, path: Path) -> None:
        self.name, self.files = str(path), [path]
        with self._file() as file:
            self.names = list(file.schema.names)
        once(path, self.names)

    def _file(self) -> Any:
        try:
            return pa.ipc.open_file(pa.memory_map(self.name))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.name}: not a readable Arrow file: {error}") from error

    def batches(self, columns: Sequence[str]) -> Iterator[TableBatch]:
        with self._file() as file:
            for number in range(file.num_record_batches):
                try:
                    table = pa.Table.from_batches([file.get_batch(number)]).select(list(columns))
                except (pa.ArrowException, OSError) as error:
                    raise DataError(f"{self.name}: batch {number}: {error}") from error
                yield TableBatch(table, _row(f"{self.name}: batch {number}", 0))


class _Text:
    """A file of delimited text; a place is a line."""

    def __init__(self, path: Path, layout: TextLayout) -> None:
        self.name, self.files = str(path), [path]
        kind, self.codec = endings(path)
        self.delimiter = layout.delimiter or ("\t" if kind == ".tsv" else ",")
        self.quoted = self.delimiter in (",", ";")
        self.headless = bool(layout.names)
        self.encoding = layout.encoding
        self.names = list(layout.names) or self._header()
        once(path, self.names)

    def batches(self, columns: Sequence[str]) -> Iterator[TableBatch]:
        names = [name or f"\0{place}" for place, name in enumerate(self.names)]
        several = len(self.delimiter) > 1
        first = 0
        try:
            reader = pacsv.open_csv(
                pa.PythonFile(cast("IO[bytes]", _Lines(self)), mode="r"),
                read_options=pacsv.ReadOptions(
                    column_names=names, skip_rows=0 if self.headless else 1, block_size=BLOCK
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=UNIT_SEPARATOR if several else self.delimiter,
                    quote_char='"' if self.quoted else False,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()),
                    include_columns=list(columns),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                yield TableBatch(_trimmed(pa.Table.from_batches([batch])), self._place(first))
                first += batch.num_rows
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return  # a header alone
            raise self._fault() or DataError(f"{self.name}: cannot be read: {error}") from error

    def _place(self, first: int) -> Callable[[int], str]:
        def place(row: int) -> str:
            for at, (line, _) in enumerate(self._cells()):
                if at == first + row:
                    return f"{self.name}: line {line}"
            return f"{self.name}: row {first + row}"

        return place

    def _header(self) -> list[str]:
        lines = _Lines(self)
        text = lines.read(1 << 20).partition(b"\n")[0].decode()
        if not text.strip():
            raise DataError(
                f"{self.name}: line 1: a header with column names must stand there, or text.names"
                " must give them; the line is empty"
            )
        return [name.strip() for name in self._cut(text.rstrip("\r"), several=UNIT_SEPARATOR)]

    def _cut(self, line: str, several: str | None = None) -> list[str]:
        delimiter = self.delimiter if len(self.delimiter) == 1 else several or self.delimiter
        if self.quoted and '"' in line:
            return next(csv.reader([line], delimiter=delimiter))
        return line.split(delimiter)

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        """The number and the cells of every line that holds a row."""
        lines = _Lines(self)
        text = b""
        number = 0
        while block := lines.read(BLOCK):
            *whole, text = (text + block).split(b"\n")
            for line in whole:
                number += 1
                if line.strip(b"\r ") and (self.headless or number > 1):
                    yield number, self._cut(line.decode().rstrip("\r"), several=UNIT_SEPARATOR)

    def _fault(self) -> DataError | None:
        """The first line with another number of cells than there are columns."""
        for number, cells in self._cells():
            if len(cells) != len(self.names):
                source = "names" if self.headless else "the header"
                shown = self.delimiter.join(cells)
                return DataError(
                    f"{self.name}: line {number}: must have {len(self.names)} cells as {source};"
                    f" got {len(cells)}: {shown[:120]!r}"
                )
        return None


class _Lines:
    """The bytes of a text file as Arrow's reader takes them: UTF-8 without a mark, whole lines,
    blank ones empty, delimiters of one character. Faults that the reader would not see are raised
    here, with their line: what is no text, and quotes that swallow lines.
    """

    closed = False

    def __init__(self, text: _Text) -> None:
        self.text = text
        self.line = 1
        self.rest = b""
        self.ready = b""
        self.first = True
        try:
            path = str(text.files[0])
            self.stream = pa.input_stream(path, compression=text.codec)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{text.name}: cannot be read: {error}") from error

    def read(self, size: int = -1) -> bytes:
        while not self.ready and self.stream is not None:
            self._fill()
        if size < 0:
            raise ValueError("lines are read piece by piece")
        out, self.ready = self.ready[:size], self.ready[size:]
        return out

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        self.closed = True

    def _fill(self) -> None:
        try:
            block = self.stream.read(BLOCK // 2)
        except (pa.ArrowException, *LAYOUT_ERRORS) as error:
            raise DataError(
                f"{self.text.name}: the file breaks off or cannot be read: {error}"
            ) from error
        if self.first:
            self._hold_to_text(block[:8])
            block = block.removeprefix(codecs.BOM_UTF8)
            self.first = False
        whole, newline, rest = (self.rest + block).rpartition(b"\n")
        if block:
            self.rest = rest
            self.ready = self._checked(whole + newline)
            return
        self.stream.close()
        self.stream, self.rest = None, b""
        last = whole + newline + rest
        self.ready = self._checked(last if not last or last.endswith(b"\n") else last + b"\n")

    def _hold_to_text(self, head: bytes) -> None:
        kind = next((kind for mark, kind in MAGIC.items() if head.startswith(mark)), None)
        if kind is not None:
            raise DataError(f"{self.text.name}: is no text, but {kind}")

    def _checked(self, lines: bytes) -> bytes:
        """Whole lines in the reader's form."""
        try:
            if self.text.encoding == "utf-8":
                lines.decode()
            else:
                lines = lines.decode(self.text.encoding).encode()
        except UnicodeDecodeError as error:
            at = self.line + lines.count(b"\n", 0, error.start)
            line = lines[lines.rfind(b"\n", 0, error.start) + 1 :].partition(b"\n")[0]
            raise DataError(
                f"{self.text.name}: line {at}: must be {self.text.encoding.upper()} text; got"
                f" {line[:80]!r}: save the file as UTF-8, or say text.encoding"
            ) from error
        if b"\0" in lines:
            at = self.line + lines.count(b"\n", 0, lines.index(b"\0"))
            raise DataError(
                f"{self.text.name}: line {at}: has a NUL byte: no text, or UTF-16: save it as UTF-8"
            )
        if self.text.quoted and b'"' in lines:
            for number, line in enumerate(lines.split(b"\n"), start=self.line):
                if line.count(b'"') % 2:
                    raise DataError(
                        f"{self.text.name}: line {number}: a quoted cell must end on its line; got"
                        f" {line.decode()[:120]!r}"
                    )
        self.line += lines.count(b"\n")
        lines = re.sub(rb"(?m)^ +(\r?)$", rb"\1", lines)
        if len(self.text.delimiter) > 1:
            lines = lines.replace(self.text.delimiter.encode(), UNIT_SEPARATOR.encode())
        return lines


def _trimmed(table: pa.Table) -> pa.Table:
    """Text without the spaces around it; what is then empty is null."""
    for place, column in enumerate(table.columns):
        trimmed = pc.utf8_trim_whitespace(column)
        cells = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
        table = table.set_column(place, table.column_names[place], cells)
    return table


def plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array without dictionary, extension or large types: how a writer encodes a value is none
    of its meaning. UUIDs become their text.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no chunk
        values = pa.array([], values.type)
    if isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    kind = values.type
    if pa.types.is_dictionary(kind):
        return plain(values.dictionary).take(values.indices)
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        return pa.array([_uuid(cell) for cell in values.to_pylist()], pa.string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return values.cast(pa.string())
        except pa.ArrowInvalid:  # bytes that are no text stay bytes, which no column may be
            return values
    if pa.types.is_large_string(kind) or "string_view" in str(kind):
        return values.cast(pa.string())
    return values


def _uuid(cell: bytes | None) -> str | None:
    if cell is None:
        return None
    digits = cell.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class _Folder:
    """The tables below a folder as one, with the columns that their paths name, as text."""

    def __init__(self, folder: Path, layout: TextLayout, pattern: str | None) -> None:
        self.name = str(folder)
        self.folder = folder
        if (folder / "_delta_log").is_dir():
            raise DataError(
                f"{folder}: is a Delta table, whose log says which parts are of now: write them as"
                " plain Parquet"
            )
        self.files = sorted(
            file
            for file in folder.rglob(pattern or "*")
            if file.is_file()
            and not any(part[0] in HIDDEN for part in file.relative_to(folder).parts)
            and (pattern or endings(file)[0] in (*COLUMNAR, *TEXT_ENDINGS))
        )
        if not self.files:
            what = f"no file there is called {pattern}" if pattern else "holds no table"
            endings_of_tables = ", ".join((*COLUMNAR, *TEXT_ENDINGS))
            raise DataError(
                f"{folder}: {what}; tables are {endings_of_tables}, text also as .gz, .zst or .bz2"
            )
        kinds = {endings(file)[0] for file in self.files}
        if len(kinds) > 1 and pattern is None:
            raise DataError(
                f"{folder}: holds tables of several kinds ({', '.join(sorted(kinds))}): say which"
                " by data.files, such as '*.parquet'"
            )
        for file in self.files:
            twin = next((file.with_name(file.name + end) for end in PACKED), file)
            if twin != file and twin in self.files:
                raise DataError(
                    f"{folder}: {file.name} and {twin.name} are both there: take one away, so that"
                    " it is clear which is meant"
                )
        self.parts = [_part(file, layout) for file in self.files]
        self.hive = list(dict(partitions(self.files[0].relative_to(folder))))
        first = self.parts[0]
        self.names = [*first.names, *(name for name in self.hive if name not in first.names)]
        for part in self.parts:
            other = sorted({*first.names} ^ {*part.names})
            if other:
                raise DataError(
                    f"{part.name}: all parts of a table have the same columns; {other[0]!r} is in"
                    f" only one of it and {first.name}"
                )

    def batches(self, columns: Sequence[str]) -> Iterator[TableBatch]:
        for part in self.parts:
            values = dict(partitions(part.files[0].relative_to(self.folder)))
            inner = [name for name in columns if name in part.names]
            for batch in part.batches(inner or part.names[:1]):
                table = batch.table
                for name in columns:
                    if name not in part.names:
                        cells = pa.array([values.get(name)] * table.num_rows, pa.string())
                        table = table.append_column(name, cells)
                yield TableBatch(table.select(list(columns)), batch.place)


def write_table(source: Any, path: Path | str) -> Path:
    """Write a table as one Parquet file, batch by batch, for `data.path` of a scenario to name.

    Args:
        source: as `tabular` takes it: a frame of pandas or Polars, a relation of DuckDB, a stream.
        path: ends in `.parquet`.

    Returns:
        Where it stands.

    Raises:
        DataError: no table, or another ending.
        FileError: it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise DataError(f"{path}: a table is written as Parquet: give a name that ends in .parquet")
    table = tabular(source)
    with staged(path) as staging:
        writer = None
        for batch in table.batches(table.names):
            columns = {name: plain(batch.table[name]) for name in batch.table.column_names}
            rows = pa.table(columns)
            writer = writer or pq.ParquetWriter(staging, rows.schema, compression="zstd")
            writer.write_table(rows)
        if writer is None:
            raise DataError(f"{table.name}: has no rows")
        writer.close()
    return path
