"""Per-user tables in files: csv and tsv, read as text and nothing but text, and Parquet, one file
or a folder of parts.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from simulator.log.files import HIDDEN, partitions
from simulator.log.ledger import on_store
from simulator.report.errors import ReportError
from simulator.stats.rows import Rows, named, of_arrow, with_index
from simulator.stats.unit_table import TableError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}

BLOCK = 1 << 24
"""Bytes that are parsed at once: more than any line of a table has."""

HEAD = 1 << 20
"""Bytes in which the first line ends."""

MAGIC = {
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzipped",
    b"PK\x03\x04": "a zip archive (or an Excel file)",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"ARROW1": "an Arrow file",
}


def read(path: Path) -> Rows:
    """A per-user table from a csv or tsv file (gzipped or not), a Parquet file, or a folder of
    Parquet parts.

    Text files are UTF-8, or UTF-16 with its mark; the first line names the columns. Cells are text:
    empty ones are blank, and nothing else is (a user may be called NA). Rows of blanks only are no
    rows.

    Raises:
        ReportError: no such kind of file, or one that cannot be read; with its name, and line where
            it has lines.
    """
    if path.is_dir():
        return _read_folder(path)
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise ReportError(
            f"{path}: a per-user table is a file of {', '.join(SUFFIXES)}, or a folder of Parquet"
            " parts"
        )
    try:
        if name.endswith(".parquet"):
            return of_arrow(_part(path))
        return _Text(path, "\t" if ".tsv" in name else ",").rows()
    except TableError as error:
        raise ReportError(f"{path}: {error}") from error
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror or error}") from error


def is_log(path: Path) -> bool:
    """Whether a path is an event log or a run's folder, and not a per-user table."""
    if path.is_dir():
        of_run = any(piece.suffix == ".parquet" for piece in on_store(path))
        return of_run or (path / "log").is_dir() or any(map(_has_log_schema, _parts(path)))
    return path.suffix.lower() == ".parquet" and _has_log_schema(path)


def _has_log_schema(part: Path) -> bool:
    try:
        return b"abtest" in (pq.read_schema(part).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _parts(folder: Path) -> list[Path]:
    """The Parquet files below a folder, but for those that writers hide (`_temporary`,
    `_delta_log`).
    """
    return [
        part
        for part in sorted(folder.rglob("*.parquet"))
        if not any(n[0] in HIDDEN for n in part.relative_to(folder).parts)
    ]


def _read_folder(folder: Path) -> Rows:
    """All parts below a folder as one table, with the columns that their paths name
    (`arm=new/part-0.parquet`), as text.

    Raises:
        ReportError: no parts, or parts with other columns.
    """
    if (folder / "_delta_log").is_dir():
        raise ReportError(
            f"{folder}: is a Delta table, whose log says which parts are of now; write them as"
            " plain Parquet"
        )
    paths = _parts(folder)
    if not paths:
        raise ReportError(
            f"{folder}: has no .parquet parts, and so neither an event log nor a table; a per-user"
            f" table is a file of {', '.join(SUFFIXES)}, or a folder of Parquet parts"
        )
    read, index = zip(*(with_index(_part(path)) for path in paths), strict=True)
    tables = [
        _with_partitions(_in_full(table), path.relative_to(folder), path)
        for table, path in zip(read, paths, strict=True)
    ]
    first = tables[0].schema
    for path, table in zip(paths, tables, strict=True):
        _same_columns(first, table.schema, paths[0], path)
    whole = pa.concat_tables(
        [table.select(first.names) for table in tables], promote_options="permissive"
    )
    starts = np.cumsum([0, *(table.num_rows for table in tables)])

    def place(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{paths[part].relative_to(folder)}: row {row - starts[part]}"

    try:
        rows = of_arrow(whole.replace_schema_metadata(None), place, index[0])
        return replace(
            rows, marks=frozenset(name for name, _ in partitions(paths[0].relative_to(folder)))
        )
    except TableError as error:
        raise ReportError(f"{folder}: {error}") from error


def _part(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read()
    except pa.ArrowException as error:
        with path.open("rb") as file:
            kind = _kind(file.read(8)).replace("a Parquet file", "the beginning of one")
        raise ReportError(
            f"{path}: is not a readable Parquet file{f', but {kind}' if kind else ''}: {error}"
        ) from error


def _kind(head: bytes) -> str:
    """What a file is by its first bytes; "" for what has no mark."""
    return next((kind for mark, kind in MAGIC.items() if head.startswith(mark)), "")


def _with_partitions(table: pa.Table, inside: Path, path: Path) -> pa.Table:
    """A part with the columns of its path.

    Raises:
        ReportError: it has such a column itself, with other values.
    """
    for name, value in partitions(inside):
        text = pa.array([value] * table.num_rows, pa.large_string())
        if name not in table.column_names:
            table = table.append_column(name, text)
        elif pc.any(pc.not_equal(pc.cast(table[name], pa.large_string()), text)).as_py():
            raise ReportError(
                f"{path}: column {name!r} has other values than the {value!r} of its folder"
            )
    return table


def _in_full(table: pa.Table) -> pa.Table:
    """A part with its text in one type: how writers encode it differs from part to part."""
    for i, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            table = table.set_column(
                i, field.name, table.column(i).cast(kind).cast(pa.large_string())
            )
    return table


def _family(kind: pa.DataType | None) -> str:
    """Types that may stand for each other without losing a digit."""
    if kind is None:
        return "not there"
    families = {
        "signed": pa.types.is_signed_integer, "unsigned": pa.types.is_unsigned_integer,
        "decimal": pa.types.is_decimal, "floating": pa.types.is_floating,
    }  # fmt: skip
    return next((name for name, belongs in families.items() if belongs(kind)), str(kind))


def _same_columns(first: pa.Schema, other: pa.Schema, path: Path, part: Path) -> None:
    """Check that a part has the columns of the first.

    Raises:
        ReportError: two parts have other columns, or columns of other types.
    """
    for name in (*first.names, *other.names):
        kinds = [
            schema.field(name).type if name in schema.names else None for schema in (first, other)
        ]
        if _family(kinds[0]) != _family(kinds[1]) and pa.null() not in kinds:
            mine, theirs = ("not there" if kind is None else str(kind) for kind in reversed(kinds))
            rule = "all parts of a table have the same columns"
            raise ReportError(
                f"{part}: column {name!r} is {mine}, and {theirs} in {path.name}; {rule}"
            )


class _Text:
    """A file of separated text. Lines are counted only where one has to be named: the file is then
    read again, slowly.
    """

    def __init__(self, path: Path, separator: str) -> None:
        self.path, self.separator = path, separator

    def rows(self) -> Rows:
        """The columns of the file.

        Raises:
            ReportError: a file that is no such text, or whose lines differ in length.
        """
        content = self._content()
        names = self._names(content)
        count = len(names)
        try:
            table = pa.csv.read_csv(
                pa.BufferReader(content),
                read_options=pa.csv.ReadOptions(autogenerate_column_names=True, block_size=BLOCK),
                parse_options=pa.csv.ParseOptions(
                    delimiter=self.separator, newlines_in_values=b'"' in content
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types={f"f{i}": pa.string() for i in range(count)},
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            ).slice(1)
        except pa.ArrowInvalid as error:
            raise self._fault(content, count) or ReportError(
                f"{self.path}: cannot be read as a table: {error}"
            ) from error
        kept = _not_blank(table)
        if kept is not None:
            table = table.take(pa.array(kept))
        if not table.num_rows:
            raise ReportError(f"{self.path}: has a head and no rows")

        def place(row: int) -> str:
            return f"line {self._line(int(row if kept is None else kept[row]) + 1)}"

        columns = {name: lambda i=i: table.column(i) for i, name in enumerate(names)}
        return Rows(columns, place, text=True)

    def _content(self) -> bytes:
        """The bytes of the file as UTF-8 without a mark.

        Raises:
            ReportError: it is of another kind or encoding.
        """
        try:
            content = self.path.read_bytes()
            if self.path.suffix.lower() == ".gz":
                content = gzip.decompress(content)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ReportError(f"{self.path}: is no whole gzip file: {error}") from error
        kind = _kind(content[:8])
        if kind:
            raise ReportError(
                f"{self.path}: is {kind}, and no text; a per-user table is a file of"
                f" {', '.join(SUFFIXES)}"
            )
        try:
            if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
                content = content.decode("utf-16").encode()
            content = content.removeprefix(b"\xef\xbb\xbf")
        except UnicodeDecodeError as error:
            raise ReportError(
                f"{self.path}: is not the UTF-16 text that its first bytes say: {error.reason}"
            ) from error
        if b"\0" in content:
            line = content.count(b"\n", 0, content.index(b"\0")) + 1
            raise ReportError(
                f"{self.path}: line {line}: has a NUL byte: no text, or UTF-16 without its mark;"
                " save it as UTF-8"
            )
        return content

    def _names(self, content: bytes) -> list[str]:
        """The names of the columns, of the first line that is not empty.

        Raises:
            ReportError: there is none, or it has one name where another separator stands; two names
                are alike.
        """
        record = next((record for _, record in self._records(content[:HEAD]) if record), None)
        if record is None:
            raise ReportError(
                f"{self.path}: cannot be read as a table: it is empty; its first line names the"
                " columns"
            )
        others = [sign for sign in SEPARATORS if sign in record[0]] if len(record) == 1 else []
        if others:
            raise ReportError(
                f"{self.path}: line 1: {record[0]!r} is one column; values must be separated by"
                f" {SEPARATORS[self.separator]}, and not by {SEPARATORS[others[0]]}"
            )
        try:
            return named(record)
        except TableError as error:
            raise ReportError(f"{self.path}: line 1: {error}") from error

    def _records(self, content: bytes) -> Iterator[tuple[int, list[str]]]:
        """The line of each record, and its values. What is no UTF-8 is shown as it is."""
        # A cell may be as long as the file.
        csv.field_size_limit(max(csv.field_size_limit(), len(content)))
        reader = csv.reader(
            io.StringIO(content.decode("utf-8", "backslashreplace"), newline=""),
            delimiter=self.separator,
        )
        line = 1
        for record in reader:
            yield line, record
            line = reader.line_num + 1

    def _line(self, record: int) -> int:
        """The line of a record that is not empty, the head being number 0."""
        lines = (line for line, values in self._records(self._content()) if values)
        return next(line for i, line in enumerate(lines) if i == record)

    def _fault(self, content: bytes, count: int) -> ReportError | None:
        """What is wrong with a file that cannot be parsed: its encoding, a quote that is not
        closed, or a line of another length.
        """
        try:
            content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            return ReportError(
                f"{self.path}: line {line}: is not UTF-8 text ({error.reason} at byte"
                f" {error.start}); save it as UTF-8"
            )
        for line, record in self._records(content):
            if record and len(record) != count:
                what = "more" if len(record) > count else "fewer"
                return ReportError(
                    f"{self.path}: line {line}: a row has {what} values than line 1 has names:"
                    f" {len(record)}, not {count} (a quote that is not closed? a separator at its"
                    " end?)"
                )
        return None


def _not_blank(table: pa.Table) -> np.ndarray | None:
    """The rows that have a value; None if all have."""
    blank = pc.is_null(table.column(0))
    for i in range(1, table.num_columns):
        if not pc.any(blank).as_py():
            return None
        blank = pc.and_(blank, pc.is_null(table.column(i)))
    return np.flatnonzero(~np.asarray(blank)) if pc.any(blank).as_py() else None
