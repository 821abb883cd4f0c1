"""The spine: one row per impression. Everything abtest says is read from an event log; nothing else
is.

Here live the Parquet parts of a log and their merge, the streaming of its rows, held to the rules
(`simulator.log.rules`), and its view as training sequences. No measurement, no world and no policy
belongs here; the columns are in `simulator.log.schema`.
"""

from __future__ import annotations

import inspect
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from policies.base import IntArray, Sequences
from policies.staging import staging_of
from simulator.log.files import adopt, mapped, writing
from simulator.log.kinds import FEEDBACK
from simulator.log.ledger import bring, commit, here, on_store, opened, present
from simulator.log.metadata import FIT, HISTORY, LogError, Metadata
from simulator.log.rules import Inspector
from simulator.log.schema import (
    NULLABLE,
    OPTIONAL,
    TAB,
    LogRows,
    Seal,
    check_columns,
    column_values,
    rises,
    schema,
)
from simulator.log.store import FileError, place

ROWS = 1 << 18
"""Rows that are held at once."""

FORMS = "an event log is a Parquet file that abtest wrote, or a folder of them"
"""What messages say to somebody who named something else."""

MEMORY = "the log in memory"
"""What messages call a log that is no file."""


@dataclass(frozen=True)
class EventLog:
    """An event log: Arrow rows sorted by KEY, and what they mean.

    The rows are held in memory (`table`) or lie in Parquet parts (`parts`); `batches` streams
    either. Logs are immutable.
    """

    metadata: Metadata
    memory: pa.Table | None = None
    parts: tuple[Path, ...] = ()

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Any], metadata: Metadata, *, sort: bool = True
    ) -> EventLog:
        """A log in memory from one array per column (numpy, Arrow, lists; missing optional columns
        get their defaults).

        Args:
            columns: by name; `arm`, `channel` default to 0, `logged` to False, `propensity`,
                `click` and `watch` to null, `duration` to 0. Answers (click, like, ...) are bools
                or 0, 1 and -1 for null, and nothing else: a count is no answer. `tab` may be -1 for
                null; None, NaN and NA are null.
            metadata: of the log.
            sort: put the rows into KEY order (stable).

        Raises:
            LogError: a column missing, unknown, of another length, or with a value that its type
                has not, by row.
        """
        kinds = [name for name in OPTIONAL if name in columns]
        target = schema(kinds)
        unknown = set(columns) - set(target.names)
        if unknown:
            raise LogError(f"unknown columns {sorted(unknown)}; an event log has {target.names}")
        by_name = {
            name: _as_arrow(name, values) for name, values in columns.items() if values is not None
        }
        if "item" not in by_name:
            raise LogError("column 'item' is missing")
        arrays = []
        for column in target:
            try:
                arrays.append(_convert(by_name.get(column.name), column, len(by_name["item"])))
            except pa.ArrowException as error:
                raise LogError(
                    f"column {column.name!r} cannot be read as {column.type}: {error}"
                ) from error
        table = pa.table(arrays, schema=target)
        log = cls(metadata, table)
        return log.sorted() if sort else log

    @classmethod
    def open(cls, path: Path | str) -> EventLog:
        """The log in a Parquet file or a folder of Parquet parts, which may lie in folders named as
        Hive does (`arm_name=new/`); no row is read yet. Parts stand in the order of their arms,
        then of their paths.

        Raises:
            LogError: no parts there, not Parquet, no metadata of abtest or such that breaks a rule,
                other columns than the schema's, or parts of different logs.
        """
        path = here(path)
        stored = {part: _described(part) for part in parts_at(path)}
        if not stored:
            raise LogError(
                f"{path}: no event log there: expected a .parquet file or a folder of them"
            )
        parts = sorted(stored, key=lambda part: (stored[part].first_arm, part))
        first = stored[parts[0]]
        for part in parts:
            own = stored[part]
            if own.metadata != first.metadata:
                raise LogError(
                    f"{part}: a part of another log than {parts[0]}:"
                    f" {_difference(first.metadata, own.metadata)}"
                )
            if own.columns != first.columns:
                raise LogError(
                    f"{part}: columns are {own.columns}; those of {parts[0]} are {first.columns}"
                )
        return cls(first.metadata, None, tuple(parts))

    @property
    def table(self) -> pa.Table:
        """All rows in memory, in KEY order (parts are read and put into order at each call: keep
        it).
        """
        if self.memory is not None:
            return self.memory
        tables = []
        for part in self.parts:
            bring(part)
            with _parquet(part):
                tables.append(pq.read_table(part, page_checksum_verification=True))
        read = pa.concat_tables(tables)
        return read if len(self.parts) == 1 else _in_order(read, self.metadata.key)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The FEEDBACK columns that this log has."""
        return tuple(name for name in self.optional if name in FEEDBACK)

    @property
    def optional(self) -> tuple[str, ...]:
        """The optional columns that this log has: FEEDBACK kinds, then TAB and FIT."""
        if self.memory is not None:
            names = self.memory.schema.names
        else:
            names = _footer(self.parts[0]).schema.names
        return tuple(name for name in OPTIONAL if name in names)

    @property
    def n_rows(self) -> int:
        """Number of impressions, read from the Parquet footers where the log is on disk."""
        if self.memory is not None:
            return int(self.memory.num_rows)
        return sum(int(_footer(part).num_rows) for part in self.parts)

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = 1 << 20
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows part by part, at most `rows` at a time: memory does not grow with the
        log.

        Raises:
            LogError: a part whose bytes are broken, by name.
        """
        if self.memory is not None:
            yield from (self.memory if columns is None else self.memory.select(columns)).to_batches(
                max_chunksize=rows
            )
            return
        for part in self.parts:
            with _opened(part) as stored:
                yield from stored.iter_batches(batch_size=rows, columns=columns)

    def of_users(self, who: IntArray) -> EventLog:
        """The rows of the users `who` `[n]` (ids, ascending) in memory. Of a log on disk the row
        groups are read that may hold them, one at a time.
        """
        wanted = pa.array(who, pa.uint32())
        if self.memory is not None:
            groups: Iterable[pa.Table] = [self.memory]
        else:
            groups = self._row_groups(who)
        read = pa.concat_tables(
            table.filter(pc.is_in(table["user"], value_set=wanted)) for table in groups
        )
        return EventLog(
            self.metadata,
            read if len(self.parts) < 2 else _in_order(read, self.metadata.key),
        )

    def _row_groups(self, who: IntArray) -> Iterator[pa.Table]:
        """The row groups that may hold users, by their statistics; first of each part no row, which
        says its columns.
        """
        for part in self.parts:
            with _opened(part) as stored:
                yield stored.schema_arrow.empty_table()
                place = stored.schema_arrow.get_field_index("user")
                for group in range(stored.num_row_groups):
                    known = stored.metadata.row_group(group).column(place).statistics
                    if known is not None and known.has_min_max:
                        first, last = np.searchsorted(who, [known.min, known.max + 1])
                        if first == last:
                            continue
                    yield stored.read_row_group(group)

    def sorted(self) -> EventLog:
        """The same log in memory in KEY order."""
        return EventLog(self.metadata, _in_order(self.table, self.metadata.key))

    def write(self, path: Path | str, row_group: int | None = None) -> Path:
        """Write one Parquet file by temporary name and rename; the same rows give the same bytes.

        Returns:
            `path`.
        """
        path = place(path)
        with Writer(path, self.metadata, self.optional, row_group or ROW_GROUP) as writer:
            if self.memory is not None:
                writer.add(self.memory)
            else:
                for batch in self.batches():
                    writer.add(pa.Table.from_batches([batch]))
        return path

    def sequences(
        self,
        arm: str | None = None,
        *,
        before: int | None = None,
        who: IntArray | None = None,
    ) -> Sequences:
        """What a policy is fitted on: users' impressions in time order.

        Args:
            arm: name of the arm; None for the only one.
            before: ms; only impressions with t < before.
            who: `[n]` ids of the users, ascending; None: all `n_users`.

        Returns:
            `Sequences` with a row for each of the users, empty ones included. An
            impression that was not observed counts as an unclick. `columns` holds what the log has
            of session, request, position, propensity, watch, duration, TAB and FEEDBACK (null: -1
            in int8 columns, NaN in float ones).
        """
        table = self.table if who is None else self.of_users(who).table
        if arm is not None or len(self.metadata.arms) > 1:
            table = table.filter(pc.equal(table["arm"], self._index_of(arm)))
        if before is not None:
            table = table.filter(pc.less(table["t"], before))
        if self.metadata.fits.crossed and arm != HISTORY and not _is_of_one_fit(table):
            raise LogError(
                f"users of the arm {arm!r} live with each of its fits, so they have no one"
                " sequence: give the log of one fit"
            )
        user = column_values(table, "user").astype(np.int64)
        t = column_values(table, "t")
        order = np.lexsort((np.arange(len(t)), t, user))
        if who is None:
            who = np.arange(self.metadata.n_users, dtype=np.int64)
            counts = np.bincount(user, minlength=len(who))
        else:
            counts = np.bincount(np.searchsorted(who, user), minlength=len(who))
        return Sequences(
            who,
            np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
            column_values(table, "item").astype(np.int64)[order],
            (column_values(table, "click") == 1)[order],
            t[order],
            {name: column_values(table, name)[order] for name in self._of_sequences},
        )

    def map_sequences(self, folder: Path, arm: str, *, before: int) -> Sequences:
        """What `sequences` gives of every user in an arm, as arrays in files that are mapped into
        memory: processes of a machine share them, and what nobody reads takes none. They are
        written where they are not there, a stretch of rows at a time.

        Args:
            folder: of the files.
            arm: by name; its users live with one fit.
            before: ms; only impressions with t < before.

        Raises:
            LogError: rows are not in the order of users and of their time.
            FileError: a file cannot be written.
        """
        arrays = ("user", "offsets", "items", "clicked", "t")
        if not present(folder / "user.npy"):
            self._write_sequences(folder, self._index_of(arm), before)
        bring(folder)
        user, offsets, items, clicked, t = (mapped(folder / f"{name}.npy") for name in arrays)
        columns = {name: mapped(folder / f"columns.{name}.npy") for name in self._of_sequences}
        return Sequences(user, offsets, items, clicked, t, columns)

    def _write_sequences(self, folder: Path, arm: int, before: int) -> None:
        counts, row = np.zeros(self.metadata.n_users, dtype=np.int64), 0
        for rows in self.stretches([*self.metadata.key, "t"], ROWS):
            falls = rows.beside_above("user", np.less)
            falls |= ~rows.begins["user"] & rows.beside_above("t", np.less)
            wrong = np.flatnonzero(falls & ~rows.begins["arm"] & (rows["arm"] == arm))
            if len(wrong):
                place = self.place_of(row + int(wrong[0]))
                raise LogError(f"{place}: rows must ascend by user, and each user's by t")
            is_asked = (rows["arm"] == arm) & (rows["t"] < before)
            counts += np.bincount(rows["user"][is_asked], minlength=len(counts))
            row += rows.n_rows
        n_rows, staging = int(counts.sum()), staging_of(folder)
        of_log = {"item": "items", "click": "clicked", "t": "t"}
        of_log |= {name: f"columns.{name}" for name in self._of_sequences}
        types: dict[str, Any] = {"item": np.int64, "click": np.bool_}
        nothing = schema(self.optional).empty_table()
        with writing(folder), ExitStack() as stack:
            staging.mkdir(parents=True)
            np.save(staging / "user.npy", np.arange(len(counts), dtype=np.int64))
            np.save(staging / "offsets.npy", np.concatenate(([0], np.cumsum(counts))))
            files = {}
            for name, ours in of_log.items():
                file = stack.enter_context((staging / f"{ours}.npy").open("wb"))
                kind = types.setdefault(name, column_values(nothing, name).dtype)
                form = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (n_rows,)}
                np.lib.format.write_array_header_1_0(file, form)
                files[name] = file
            for rows in self.stretches(list(dict.fromkeys((*self.metadata.key, *of_log))), ROWS):
                is_asked = (rows["arm"] == arm) & (rows["t"] < before)
                for name, file in files.items():
                    values = rows[name] == 1 if name == "click" else rows[name]
                    file.write(values[is_asked].astype(types[name]).tobytes())
        adopt(staging, folder, last="user.npy")

    def _index_of(self, arm: str | None) -> int:
        """The index of an arm.

        Raises:
            LogError: there is none of this name.
        """
        if arm not in self.metadata.arms:
            raise LogError(f"no arm {arm!r} in this log; it has {list(self.metadata.arms)}")
        return self.metadata.arms.index(arm)

    @property
    def _of_sequences(self) -> list[str]:
        """The further columns that `sequences` has."""
        always = ["session", "request", "position", "propensity", "watch", "duration"]
        return [*always, *(name for name in (TAB, *self.kinds) if name in self.optional)]

    def validate(self) -> None:
        """Check every rule on every row; memory does not grow with the log.

        Raises:
            LogError: the first row that breaks a rule, with file, row (from 0 within the file),
                column, rule and value.
        """
        for _ in self.inspected():
            pass

    def check_metadata(self) -> None:
        """Hold the metadata to its rules, the numbers of users and items to the rows.

        Raises:
            LogError: it breaks one.
        """
        Metadata.from_json(self.metadata.to_json())
        self.metadata.plausible(self.n_rows)

    def stretches(
        self, columns: Sequence[str] | None = None, rows: int = ROWS
    ) -> Iterator[LogRows]:
        """Stream the rows as numpy columns, at most `rows` at a time.

        Args:
            columns: those that are read, the key and `t` among them; None: all.
            rows: of a stretch, at most.
        """
        above = None
        for batch in self.batches(columns, rows):
            if batch.num_rows:
                above = LogRows(batch, self.metadata.key, above)
                yield above

    def inspected(
        self, columns: Sequence[str] | None = None, rows: int = ROWS
    ) -> Iterator[LogRows]:
        """As `stretches`, each held to the rules before it is given out.

        Args:
            columns: those that are read, `rules.INSPECTED` among them; None: all. FIT is read
                where the log has it.
            rows: of a batch, at most.

        Raises:
            LogError: as `validate`. What a part's seal says of its values is known once the part
                has been read to its end.
        """
        self.check_metadata()
        inspector = Inspector(self.metadata)
        if columns is not None and FIT in self.optional:
            columns = [*columns, FIT]
        above = None
        for name, part, written in self._parts():
            seal = Seal()
            for batch in part.batches(columns, rows):
                stretch = LogRows(batch, self.metadata.key, above)
                inspector.inspect(name, seal.rows, stretch)
                seal.add(stretch)
                if stretch.n_rows:
                    yield stretch
                    above = stretch
            if written is not None:
                seal.compare(written, name)
        inspector.finish()

    def _parts(self) -> Iterator[tuple[str, EventLog, dict[str, Any] | None]]:
        """Each part: how it is called in messages, its rows, and the seal that it carries."""
        if self.memory is not None:
            check_columns(MEMORY, self.memory.schema)
            yield MEMORY, self, None
        for part in self.parts:
            yield str(part), EventLog(self.metadata, None, (part,)), seal_of(part)

    def place_of(self, row: int) -> str:
        """Where a row of the whole log is, in words: its part and its row there."""
        for part in self.parts:
            count = EventLog(self.metadata, None, (part,)).n_rows
            if row < count:
                return f"{part}: row {row}"
            row -= count
        return f"{MEMORY}: row {row}"


ROW_GROUP = 1 << 18
"""Rows of a Parquet row group: what a writer holds at once."""

ONE_PAGE = (
    {"max_rows_per_page": ROW_GROUP}
    if "max_rows_per_page" in inspect.signature(pq.ParquetWriter).parameters
    else {}
)
"""A column of a row group is one page, which takes a sixth less time to write than pages of 20,000
rows, and half a per cent less room. Arrow before it knew the parameter made no smaller pages.
"""

NOISE = frozenset({"item", "watch", "duration"})
"""Columns in which zstd finds little: items are packed to the bits that they need, and seconds are
nearly random.
"""


class Writer:
    """Writes one Parquet part of a log from tables that come in KEY order; as a context, it gives
    the part its name if nothing is raised.

    The bytes depend on the rows only, not on how they were cut into tables: row groups are of a
    fixed size. Columns are not dictionary-encoded: on logs of ours that is smaller and 1.5 times as
    fast (zstd finds the repeats). NOISE is not compressed, because that takes longer than it saves.
    Pages carry check sums, and the part a seal.

    Raises:
        FileError: the part cannot be written.
    """

    def __init__(
        self, path: Path, metadata: Metadata, kinds: Iterable[str], row_group: int = ROW_GROUP
    ) -> None:
        self.path, self.row_group = path, row_group
        self._metadata = metadata.to_json().encode()
        self._schema = schema(kinds).with_metadata({b"abtest": self._metadata})
        self._staging = staging_of(path)
        self._seal = Seal()
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stored = pq.ParquetWriter(
                self._staging,
                self._schema,
                compression={
                    name: "none" if name in NOISE else "zstd" for name in self._schema.names
                },
                column_encoding={"item": "DELTA_BINARY_PACKED"},
                use_dictionary=False,
                write_statistics=["arm", "user", "t"],
                write_page_checksum=True,
                **ONE_PAGE,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._give_up()

    def add(self, table: pa.Table) -> None:
        """Append rows; whole row groups are written at once, the rest waits."""
        self._waiting.append(table.replace_schema_metadata(None))
        self._n_waiting += table.num_rows
        if self._n_waiting >= self.row_group:
            self._flush(self._n_waiting // self.row_group * self.row_group)

    def close(self) -> Path:
        """Write what waits and give the part its name."""
        try:
            if self._n_waiting:
                self._flush(self._n_waiting)
            with writing(self.path):
                self._stored.add_key_value_metadata({Seal.KEY: self._seal.to_json(self._metadata)})
                self._stored.close()
        except BaseException:
            self._give_up()
            raise
        with writing(self.path):
            commit(self._staging, self.path, self._seal.rows)
        return self.path

    def _flush(self, rows: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        for start in range(0, rows, self.row_group):
            group = (
                waiting.slice(start, min(self.row_group, rows - start))
                .combine_chunks()
                .cast(self._schema)
            )
            self._seal.add(group)
            with writing(self.path):
                self._stored.write_table(group, row_group_size=self.row_group)
        rest = waiting.slice(rows)
        self._waiting, self._n_waiting = ([rest] if rest.num_rows else []), rest.num_rows

    def _give_up(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._stored.close()
        with suppress(OSError):
            self._staging.unlink(missing_ok=True)


class LogPart(NamedTuple):
    """Where the rows of some users of an arm lie.

    Attributes:
        path: of the Parquet file.
        first, end: the first of the users, and that after the last.
    """

    path: Path
    first: int
    end: int


def write_parts(
    tables: Iterable[pa.Table],
    parts: Sequence[LogPart],
    metadata: Metadata,
    kinds: Iterable[str],
) -> None:
    """Write rows of one arm, which come in KEY order, as parts that are cut between users.

    Args:
        tables: the rows, of users of the parts alone.
        parts: ascending, without gaps; one may have no rows.
        metadata: of the log.
        kinds: its optional columns.

    Raises:
        FileError: a part cannot be written.
    """
    kinds, coming = tuple(kinds), iter(tables)
    rest: pa.Table | None = None
    for part in parts:
        with Writer(part.path, metadata, kinds) as writer:
            while True:
                if rest is None:
                    rest = next(coming, None)
                if rest is None:
                    break
                here = int(np.searchsorted(column_values(rest, "user"), part.end))
                writer.add(rest.slice(0, here))
                if here < rest.num_rows:
                    rest = rest.slice(here)
                    break
                rest = None
    assert rest is None, "rows of users after the last part"


def _begins_as_parquet(part: Path) -> bool:
    with part.open("rb") as file:
        return file.read(4) == b"PAR1"


@contextmanager
def _parquet(part: Path) -> Iterator[None]:
    """Turn whatever is wrong with a part into a LogError that names it: what the system says where
    it does not let us read it, else what is wrong with its bytes.
    """
    try:
        yield
    except (FileError, LogError):
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise LogError(f"{part}: {_what_is_wrong(part, error)}") from error


def _what_is_wrong(part: Path, error: Exception) -> str:
    bring(part)  # what has changed on a store is told by its digest
    try:
        is_parquet = _begins_as_parquet(part)
    except OSError as refused:  # the system says it better than Arrow
        error = refused
    if isinstance(error, OSError) and error.errno is not None:
        rule = f"it must be a file that you may read: {FORMS}"
        return f"cannot be read: {os.strerror(error.errno)}; {rule}"
    if is_parquet:
        why = str(error).rstrip(".")
        return f"not a readable Parquet file: {why}; put back a whole copy, or write it again"
    advice = "a table of users (csv, tsv) is read by `abtest report`"
    return f"not a readable Parquet file: it does not begin as one; {FORMS}; {advice}"


@contextmanager
def _opened(part: Path) -> Iterator[pq.ParquetFile]:
    """A part whose rows are read; from a store it is brought here."""
    bring(part)
    with _parquet(part), pq.ParquetFile(part, page_checksum_verification=True) as stored:
        yield stored


def parts_at(path: Path) -> list[Path]:
    """The Parquet files of a log at `path`: that file, or those of a folder, some in folders named
    as Hive does; of a run on a store also those that nobody has brought here.
    """
    if path.is_file():
        return [path]
    found = {*path.glob("*.parquet"), *path.glob("*=*/**/*.parquet")}
    for part in on_store(path):
        inside = part.relative_to(path.absolute()).parts
        if part.suffix == ".parquet" and (len(inside) < 2 or "=" in inside[0]):
            found.add(path.joinpath(*inside))
    return sorted(found)


def _footer(part: Path) -> pq.FileMetaData:
    with _parquet(part), opened(part) as stored:
        return pq.read_metadata(stored)


def _first_arm(footer: pq.FileMetaData) -> int:
    """The index of the arm that a part begins with, as its footer says; -1 where it does not say,
    or has no rows.
    """
    column = footer.schema.to_arrow_schema().get_field_index("arm")
    if column < 0 or footer.num_row_groups == 0:
        return -1
    known = footer.row_group(0).column(column).statistics
    return int(known.min) if known is not None and known.has_min_max else -1


class _Described(NamedTuple):
    """What a part says of its log.

    Attributes:
        metadata: of the log.
        columns: by name.
        first_arm: of `_first_arm`.
    """

    metadata: Metadata
    columns: list[str]
    first_arm: int


def _described(part: Path) -> _Described:
    """What a part says of its log; metadata and columns keep their rules.

    Raises:
        LogError: they do not, or it is no part of an event log.
    """
    footer = _footer(part)
    with _parquet(part):
        columns = footer.schema.to_arrow_schema()
    stored = footer.metadata or {}
    if b"abtest" not in stored:
        raise LogError(
            f"{part}: a Parquet file without abtest's metadata is not a part of an event log"
        )
    try:
        metadata = Metadata.from_json(stored[b"abtest"])
    except LogError as error:
        raise LogError(f"{part}: {error}") from error
    seal = _seal_in(footer, part)
    if seal is not None and seal.get("metadata") != zlib.crc32(stored[b"abtest"]):
        raise LogError(f"{part}: damaged: the metadata is not that which was written")
    check_columns(str(part), columns)
    return _Described(metadata, list(columns.names), _first_arm(footer))


def seal_of(part: Path) -> dict[str, Any] | None:
    """The seal that a part carries; None of a part that another program has written.

    Raises:
        LogError: it is no seal.
    """
    return _seal_in(_footer(part), part)


def _seal_in(footer: pq.FileMetaData, part: Path) -> dict[str, Any] | None:
    text = (footer.metadata or {}).get(Seal.KEY)
    if text is None:
        return None
    try:
        seal = json.loads(text)
    except ValueError:
        seal = None
    if not isinstance(seal, dict):
        raise LogError(f"{part}: damaged: {Seal.KEY.decode()} is not as it was written")
    return seal


def _difference(one: Metadata, other: Metadata) -> str:
    """The first key in which the metadata of two parts differs."""
    name = next(
        name for name in one.__dataclass_fields__ if getattr(one, name) != getattr(other, name)
    )
    return f"metadata.{name} is not the same"


def _is_of_one_fit(table: pa.Table) -> bool:
    return FIT in table.column_names and len(pc.unique(table[FIT])) <= 1


def merge(logs: Sequence[EventLog], metadata: Metadata) -> EventLog:
    """One log in memory out of logs with disjoint keys, in KEY order; all must have the same
    columns.
    """
    return EventLog(
        metadata,
        _in_order(
            pa.concat_tables([log.table.replace_schema_metadata(None) for log in logs]),
            metadata.key,
        ),
    )


def _in_order(table: pa.Table, names: Sequence[str]) -> pa.Table:
    table = table.combine_chunks()
    key = [column_values(table, name).astype(np.int64) for name in names]
    if rises(key).all():
        return table
    return table.take(pa.array(np.lexsort(key[::-1])))


_DEFAULTS: dict[str, Any] = {"arm": 0, FIT: 0, "channel": 0, "logged": False, "duration": 0.0}


def _as_arrow(name: str, given: Any) -> pa.Array:
    """One column of whatever holds numbers or bools (numpy, pandas, Arrow, a list, a range); None,
    NaN and NA are null.

    Raises:
        LogError: it holds anything else.
    """
    try:
        if not isinstance(given, (pa.Array, pa.ChunkedArray)):
            given = pa.array(given if hasattr(given, "dtype") else list(given), from_pandas=True)
        values = given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_decimal(values.type) or pa.types.is_float16(values.type):
            values = values.cast(pa.float64())
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise LogError(f"column {name!r} cannot be read: {error}") from error
    kind = values.type
    if not any(
        holds(kind)
        for holds in (
            pa.types.is_boolean,
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_null,
        )
    ):
        raise LogError(f"column {name!r} cannot be read: it must hold numbers or bools; got {kind}")
    return values


def _convert(values: pa.Array | None, column: pa.Field, n: int) -> pa.Array:
    """A column in the type of the schema, its default where it was not given."""
    if values is None:
        if column.name in NULLABLE:
            return pa.nulls(n, column.type)
        if column.name not in _DEFAULTS:
            raise LogError(f"column {column.name!r} is missing")
        return pa.array(np.full(n, _DEFAULTS[column.name]), column.type)
    if len(values) != n:
        raise LogError(
            f"column {column.name!r} must have a value for each of the {n:,} items; it has"
            f" {len(values):,}"
        )
    if pa.types.is_boolean(column.type):
        values = _answers(values, column.name)
    elif pa.types.is_floating(column.type):
        limit = float(np.finfo(np.float32).max)
        _hold(
            column.name,
            values,
            pc.less_equal(pc.abs(values.cast(pa.float64(), safe=False)), limit),
            f"numbers up to {limit:.3g}",
        )
    elif column.nullable:
        numbers = values.cast(pa.float64(), safe=False)
        _hold(column.name, values, pc.greater_equal(numbers, -1), "0, 1, ... or -1 (not known)")
        values = pc.if_else(pc.equal(numbers, -1), pa.scalar(None, values.type), values)
    if values.null_count and not column.nullable:
        row = pc.index(pc.is_null(values), True).as_py()
        raise LogError(f"column {column.name!r} must not be empty; row {row} is")
    return values.cast(column.type)


def _answers(values: pa.Array, name: str) -> pa.Array:
    """Answers as bool: 1 is yes, 0 is no, -1 is not observed, and there is no other."""
    if pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        return values
    numbers = values.cast(pa.float64(), safe=False)
    rule = "0, 1 or -1 (not observed), for a count is no answer (but count > 0 is)"
    _hold(name, values, pc.is_in(numbers, pa.array([-1.0, 0.0, 1.0])), rule)
    return pc.if_else(pc.equal(numbers, -1), pa.scalar(None, pa.bool_()), pc.equal(numbers, 1))


def _hold(name: str, values: pa.Array, good: pa.Array, rule: str) -> None:
    """Raise a LogError for the first value, not null, for which `good` is false."""
    bad = pc.index(pc.and_(pc.is_valid(values), pc.invert(good)), True).as_py()
    if bad >= 0:
        raise LogError(f"column {name!r} must be {rule}; row {bad} has {values[bad].as_py()!r}")
