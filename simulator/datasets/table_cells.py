"""Columns of any table -> ids, times, answers and numbers of the house; a cell that breaks its rule
is named by its place, column, rule and value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from policies.base import FloatArray, IntArray
from simulator.datasets.batches import plain
from simulator.datasets.delimited import DataError
from simulator.datasets.sessions import LIMIT
from simulator.scenario.tables import PER_SECOND, ColumnSpec, Unit

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
WHOLE = r"^[+-]?[0-9]{1,18}$"
ZONED = r"([zZ]|UTC|[+-][0-9]{2}:?[0-9]{2})$"

SINCE_1970: dict[Unit, tuple[float, float]] = {
    unit: (1e8 * per, 5e9 * per) for unit, per in PER_SECOND.items()
}
"""Times since 1970 of the years 1973 to 2128 lie here: no number lies in two of these."""

LAST = 253_402_300_800
"""s since 1970: the year 10000."""

LONGEST_ID = 1024
"""Characters of an id: what a catalogue keeps of n ids is n times the longest."""


@dataclass(frozen=True)
class Cells:
    """The cells of one column in one batch.

    Attributes:
        role: what the column is taken for, as `data.columns` calls it.
        spec: how its cells are read.
        values: of the cells.
        place: where the cell of a row stands.
    """

    role: str
    spec: ColumnSpec
    values: pa.Array
    place: Callable[[int], str]

    def refuse(self, bad: npt.NDArray[np.bool_], rule: str, advice: str = "") -> None:
        """Raise for the first bad cell, if there is one.

        Raises:
            DataError: with its place, column, rule and value, and what to do.
        """
        if not bad.any():
            return
        row = int(np.argmax(bad))
        value = repr(in_python(self.values[row]))
        if len(value) > 80:
            value = f"{value[:77]}..."
        raise DataError(f"{self.place(row)}: {self.name} must be {rule}; got {value}{advice}")

    @property
    def name(self) -> str:
        """The column, and what it is taken for."""
        return f"{self.spec.column} (columns.{self.role})"

    @property
    def empty(self) -> npt.NDArray[np.bool_]:
        """Which cells hold nothing, `[N]`: null, and in columns of numbers NaN."""
        return np.asarray(pc.is_null(self.values, nan_is_null=True).to_numpy(zero_copy_only=False))


def in_python(value: pa.Scalar) -> Any:
    """A cell as a value of Python; its type in words where Python has none for it (a date after the
    year 9999).
    """
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return f"a far {value.type}"


def ids(cells: Cells) -> pa.Array:
    """Ids as text, as they stand: `0007`, `7` and `7.0` are three; a whole number of any width is
    its digits.

    Raises:
        DataError: a column of fractions, times, or anything else that is no id.
    """
    values, kind = cells.values, cells.values.type
    if pa.types.is_floating(kind):
        number = values.to_numpy(zero_copy_only=False).astype(np.float64)
        whole = cells.empty | ((number == np.floor(number)) & (np.abs(number) < 2**53))
        cells.refuse(~whole, "an id: text or a whole number below 2^53")
        values = pc.cast(
            pc.cast(pc.if_else(pa.array(cells.empty), None, values), pa.int64()), pa.string()
        )
    elif pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        values = values.cast(pa.string())
    elif not pa.types.is_string(kind):
        raise DataError(
            f"{cells.place(0)}: {cells.name} must be ids: text or whole numbers; the column is of"
            f" type {kind}"
        )
    long = pc.fill_null(pc.greater(pc.utf8_length(values), LONGEST_ID), False)
    cells.refuse(long.to_numpy(zero_copy_only=False), f"an id of at most {LONGEST_ID:,} characters")
    return values


@dataclass
class Numbers:
    """Ids in the order in which they first appear, and the number of each, from 0."""

    of: dict[str, int] = field(default_factory=dict)

    def __call__(self, values: pa.Array) -> npt.NDArray[np.int32]:
        """The numbers of ids `[N]`, none of them null; new ids get the next ones."""
        encoded = values.dictionary_encode()
        get, count = self.of.setdefault, len(self.of)
        table = np.empty(len(encoded.dictionary), dtype=np.int32)
        for place, value in enumerate(encoded.dictionary.to_pylist()):
            table[place] = get(value, count)
            count = len(self.of)
        indices = encoded.indices.to_numpy(zero_copy_only=False)
        return np.asarray(table[indices], dtype=np.int32)

    def original(self) -> npt.NDArray[Any]:
        """The id of each number, as a catalogue keeps it."""
        return id_column(list(self.of))


def id_column(values: list[str]) -> npt.NDArray[Any]:
    """Ids as a catalogue keeps them `[n]`: int64 where all are whole numbers in plain digits, else
    text.
    """
    if all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", value) for value in values):
        return np.array(values, dtype=np.int64)
    return np.array(values, dtype=np.str_)


def digests(values: pa.Array) -> npt.NDArray[np.uint64]:
    """64 bits of each id `[N]`, to tell neighbours apart."""
    encoded = values.dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    table = pd.util.hash_array(names, categorize=False) if len(names) else np.zeros(0, np.uint64)
    return np.asarray(table[encoded.indices.to_numpy(zero_copy_only=False)], dtype=np.uint64)


def numbers(cells: Cells, rule: str = "a number") -> FloatArray:
    """Numbers `[N]` float64, NaN where the cell is empty.

    Raises:
        DataError: a cell that is none, or not finite.
    """
    values, kind = cells.values, cells.values.type
    if pa.types.is_string(kind):
        readable = pc.fill_null(pc.match_substring_regex(values, NUMBER), True)
        cells.refuse(~readable.to_numpy(zero_copy_only=False), rule)
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    ):
        raise DataError(
            f"{cells.place(0)}: {cells.name} must be {rule}; the column is of type {kind}"
        )
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    as_float = values.cast(pa.float64(), safe=False)
    out = as_float.to_numpy(zero_copy_only=False).astype(np.float64)
    cells.refuse(np.isinf(out), rule)
    return np.asarray(out, dtype=np.float64)


def answers(cells: Cells) -> npt.NDArray[np.int8]:
    """Answers `[N]`: 1, 0, and -1 where the cell is empty.

    Raises:
        DataError: a cell that is no answer, such as a rating without `at_least`.
    """
    limit = cells.spec.at_least
    if limit is not None:
        value = numbers(cells)
        return np.where(np.isnan(value), -1, value >= limit).astype(np.int8)
    if pa.types.is_string(cells.values.type):
        low = pc.utf8_lower(cells.values)
        yes, no = (pc.is_in(low, pa.array(words)) for words in (("1", "true"), ("0", "false")))
        yes, no = (mask.to_numpy(zero_copy_only=False) for mask in (yes, no))
        other = ~(yes | no | cells.empty)
        value = np.where(cells.empty, np.nan, yes)
    else:
        value = numbers(cells, "0 or 1")
        other = ~(np.isnan(value) | (value == 0) | (value == 1))
    example = f"{{column: {cells.spec.column}, at_least: ...}}"
    advice = f": say which numbers are a yes, columns: {{{cells.role}: {example}}}"
    cells.refuse(other, "0 or 1", advice)
    return np.where(np.isnan(value), -1, value).astype(np.int8)


def lengths(cells: Cells) -> npt.NDArray[np.float32]:
    """Lengths of time `[N]` in s, NaN where the cell is empty.

    Raises:
        DataError: a cell that is no number, or negative.
    """
    rule = f"a time in {cells.spec.unit or 's'} of 0 or more"
    value = numbers(cells, rule)
    cells.refuse(value < 0, rule)
    return (value / PER_SECOND[cells.spec.unit or "s"]).astype(np.float32)


def positions(cells: Cells) -> npt.NDArray[np.int32]:
    """Places in a slate `[N]`, from 0.

    Raises:
        DataError: a cell that is none.
    """
    rule = f"a place in the slate of 0 to {LIMIT - 1:,}"
    cells.refuse(cells.empty, rule)
    return _wholes(cells, LIMIT - 1, rule).astype(np.int32)


def surfaces(cells: Cells) -> npt.NDArray[np.int16]:
    """Surfaces of an app `[N]`, -1 where the cell is empty.

    Raises:
        DataError: a cell that is none.
    """
    return _wholes(cells, 254, "a surface of 0 to 254").astype(np.int16)


def _wholes(cells: Cells, high: int, rule: str) -> FloatArray:
    value = numbers(cells, rule)
    is_whole = np.isnan(value) | (value == np.floor(value))
    cells.refuse((value < 0) | (value > high) | ~is_whole, rule)
    return np.where(np.isnan(value), -1, value)


def shares(cells: Cells) -> npt.NDArray[np.float32]:
    """Probabilities `[N]`, NaN where the cell is empty.

    Raises:
        DataError: a cell that is not in (0, 1].
    """
    value = numbers(cells, "a probability in (0, 1]")
    cells.refuse((value <= 0) | (value > 1), "a probability in (0, 1]")
    return value.astype(np.float32)


def unit_of(low: float, high: float) -> Unit | None:
    """The unit in which numbers from `low` to `high` are times since 1970; None where there is not
    one.
    """
    fitting = [unit for unit, (first, last) in SINCE_1970.items() if first <= low <= high <= last]
    return fitting[0] if fitting else None


@dataclass
class TimeReader:
    """Reads times; what the first batch was taken for holds for all.

    Attributes:
        zone: of times that say none, or None.
        unit: of times that are numbers, as the first batch has them.
        is_number: whether text is numbers, as most of the first batch are.
    """

    zone: str | None
    unit: Unit | None = None
    is_number: bool | None = None

    def __call__(self, cells: Cells) -> IntArray:
        """Times `[N]` in us since 1970 (or since where the numbers begin); 0 where the cell is
        empty.

        Raises:
            DataError: a cell that is no time, a number whose unit could be several, a time without
                a zone.
        """
        kind = cells.values.type
        if pa.types.is_null(kind) or cells.empty.all():
            return np.zeros(len(cells.values), dtype=np.int64)
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return self._stamps(cells)
        if pa.types.is_string(kind) and not self._are_numbers(cells):
            return self._text(cells)
        return self._counts(cells)

    def _are_numbers(self, cells: Cells) -> bool:
        if cells.spec.format is not None:
            return False
        if self.is_number is None:
            # Most of them decide: one cell among numbers that is none is then named as such.
            first = pc.match_substring_regex(cells.values.drop_null()[:1000], NUMBER)
            self.is_number = bool(pc.mean(first).as_py() > 0.5)
        return self.is_number

    def _counts(self, cells: Cells) -> IntArray:
        """Numbers in one unit."""
        value = numbers(cells, "a time: a number")
        unit = cells.spec.unit or self._guessed(cells, value)
        per = PER_SECOND[unit]
        rule = f"a time in {unit} before the year 10000"
        cells.refuse(np.abs(value) > min(LAST * per, 2**63 - 1), rule, ": is it another unit?")
        exact = cells.values
        if pa.types.is_string(exact.type):
            is_whole = pc.all(pc.match_substring_regex(exact, WHOLE)).as_py()
            exact = exact.cast(pa.int64() if is_whole else pa.float64())
        if not pa.types.is_integer(exact.type):
            us = np.rint(np.nan_to_num(value) * (1_000_000 / per))
            return np.asarray(us, dtype=np.int64)
        # Whole numbers stay whole: a float64 does not hold ns.
        count = exact.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        us = count // (per // 1_000_000) if per > 1_000_000 else count * (1_000_000 // per)
        return np.asarray(us, dtype=np.int64)

    def _guessed(self, cells: Cells, value: FloatArray) -> Unit:
        """The unit in which all numbers are times since 1970, of this batch and of those before."""
        if self.unit is None:
            low, high = float(np.nanmin(value)), float(np.nanmax(value))
            self.unit = unit_of(low, high)
            if self.unit is None:
                example = f"columns: {{time: {{column: {cells.spec.column}, unit: s}}}}"
                raise DataError(
                    f"{cells.place(int(np.argmax(~np.isnan(value))))}: {cells.name}: numbers from"
                    f" {low:.15g} to {high:.15g} are no times since 1970 in one of s, ms, us and"
                    f" ns: say the unit, {example}"
                )
        first, last = SINCE_1970[self.unit]
        rule = f"a time since 1970 in {self.unit} as in the rows above"
        cells.refuse((value < first) | (value > last), rule, ": or say columns.time.unit")
        return self.unit

    def _stamps(self, cells: Cells) -> IntArray:
        """Columns that are times by type."""
        zone = getattr(cells.values.type, "tz", None)
        try:
            us = cells.values.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            if not pa.types.is_timestamp(cells.values.type):
                raise DataError(
                    f"{cells.place(0)}: {cells.name} must be times; the column has one that is"
                    " further away than 292,000 years"
                ) from None
            us = cells.values.cast(pa.timestamp("us", zone), safe=False)  # of ns
        if zone is None:
            us = self._in_zone(us, cells)
        return np.asarray(
            us.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64
        )

    def _text(self, cells: Cells) -> IntArray:
        """ISO 8601 with a zone each or none, or the stated format."""
        form = cells.spec.format
        if form is None:
            rule = "a time as ISO 8601, such as 2024-05-01T10:00:00+08:00"
        else:
            rule = f"a time of the form {form}"
        text = pd.Series(cells.values.to_pylist(), dtype=object)
        zoned = pc.fill_null(pc.match_substring_regex(cells.values, ZONED), True)
        zoned = zoned.to_numpy(zero_copy_only=False)
        if form is not None:
            zoned = np.full(len(text), "%z" in form)
        out = np.zeros(len(text), dtype=np.int64)
        for chosen, utc in ((zoned & ~cells.empty, True), (~zoned & ~cells.empty, False)):
            if not chosen.any():
                continue
            read = pd.to_datetime(text[chosen], format=form or "ISO8601", utc=utc, errors="coerce")
            bad = np.zeros(len(text), dtype=bool)
            bad[np.flatnonzero(chosen)[read.isna().to_numpy()]] = True
            cells.refuse(bad, rule, "" if form else ": another form is said by columns.time.format")
            moments = pa.array(read.dt.tz_localize(None)).cast(pa.timestamp("us"), safe=False)
            if not utc:
                moments = self._in_zone(moments, cells)
            out[chosen] = moments.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return out

    def _in_zone(self, moments: pa.Array, cells: Cells) -> pa.Array:
        if self.zone is None:
            raise DataError(
                f"{cells.place(0)}: {cells.name}: a time without a zone"
                f" ({in_python(cells.values.drop_null()[0])}): say whose clock it is, data.zone:"
                " UTC or Asia/Shanghai or another"
            )
        return pc.assume_timezone(moments, self.zone, ambiguous="earliest", nonexistent="earliest")


def midnight(us: int, zone: str | None, days: int) -> int:
    """The midnight (us since 1970) that begins the last `days` days of a log that ends at `us`."""
    from datetime import datetime, timedelta

    there = ZoneInfo(zone or "UTC")
    epoch = datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))
    last = (epoch + timedelta(microseconds=us)).astimezone(there)
    first = datetime.combine(last.date() - timedelta(days=days - 1), datetime.min.time(), there)
    return round((first - epoch) / timedelta(microseconds=1))


def explode(
    table: pa.Table, specs: dict[str, ColumnSpec], place: Callable[[int], str]
) -> tuple[dict[str, pa.Array], IntArray, bool]:
    """The cells of every role, those that hold several values as rows of their own.

    Returns:
        (values `[M]` by role; the row that each came from `[M]`; whether a row is a slate).

    Raises:
        DataError: two columns of one row that hold a different number of values; a value that the
            pattern does not fit.
    """
    columns: dict[str, pa.Array] = {}
    for role, spec in specs.items():
        values = plain(table[spec.column])
        if spec.separator is not None:
            if not pa.types.is_string(values.type):
                values = values.cast(pa.string())
            once_each = re.escape(spec.separator)
            values = pc.replace_substring_regex(values, f"({once_each})+", spec.separator)
            values = pc.split_pattern(pc.utf8_trim(values, spec.separator), spec.separator)
        columns[role] = values
    rows = np.arange(table.num_rows)
    several = [role for role, values in columns.items() if _is_list(values.type)]
    if several:
        counts = {
            role: pc.fill_null(pc.list_value_length(columns[role]), 0).to_numpy(
                zero_copy_only=False
            )
            for role in several
        }
        count = counts[several[0]]
        for role in several[1:]:
            odd = np.flatnonzero(counts[role] != count)
            if len(odd):
                raise DataError(
                    f"{place(int(odd[0]))}: columns.{several[0]} and columns.{role} must hold as"
                    f" many values; got {count[odd[0]]} and {counts[role][odd[0]]}"
                )
        rows = np.repeat(rows, count)
        taken = pa.array(rows)
        for role, values in columns.items():
            columns[role] = flattened(values) if role in counts else values.take(taken)
    for role, spec in specs.items():
        if spec.pattern is not None:
            cells = Cells(role, spec, columns[role], lambda row: place(int(rows[row])))
            whole = f"^(?:{spec.pattern})$"
            fits = pc.fill_null(pc.match_substring_regex(cells.values, whole), True)
            cells.refuse(~fits.to_numpy(zero_copy_only=False), f"of the form {spec.pattern}")
            columns[role] = pc.replace_substring_regex(cells.values, whole, r"\1")
    return columns, rows, bool(several)


def flattened(values: pa.Array) -> pa.Array:
    """The values of a column of lists, of all rows one after the other; another column as it is."""
    return plain(pc.list_flatten(values)) if _is_list(values.type) else values


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
