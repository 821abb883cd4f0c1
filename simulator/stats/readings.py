"""Numbers as people write them: amounts, shares, durations and yes or no, read for a column as a
whole.

A column of text is a number only where *every* value that is not blank is one by the same rule.
Where most values are numbers and some are not, or where two rules read a value differently (`1,234`
is 1234 or 1.234), nothing is guessed: the row is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Cells = Any
"""A `pyarrow.ChunkedArray`: pyarrow has no types of its own."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MOST = 0.5
"""Share of a column's values from which those that are no numbers are mistakes, and the column is
not simply text.
"""

WHOLE = 2.0**53
"""float64 holds every whole number up to this one; beyond it neighbours become one value."""

ABSENT = ("na", "n/a", "nan", "null", "none", "nil", "nat", "#n/a", "-", "--", "?")
"""Words that people write in a column of numbers where there is none."""

TYPESET = {"\u2212": "-", "\u2019": "'", "\u00a0": " ", "\u202f": " ", "\u2009": " "}
"""Signs that typography has for a minus, an apostrophe and a space (no-break, narrow, thin)."""

CURRENCIES = (
    "AED|AUD|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EUR|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|MXN|MYR|NOK|NZD|PEN|PHP|PLN|RMB|RON|RUB|SAR|SEK|SGD|"
    "THB|TRY|TWD|UAH|USD|VND|ZAR"
)
"""Codes of ISO 4217 that are traded most (BIS Triennial Survey), and RMB."""

UNIT = rf"[A-Z]{{0,2}}\p{{Sc}}|{CURRENCIES}|kr|zł|Kč|Rs\.?"

AMOUNT = (
    rf"^(?P<open>\()?(?P<sign>[+-])?\s*(?P<before>{UNIT})?\s*(?P<inner>[+-])?"
    r"(?P<number>[.,]?\d(?:[\d.,'"
    rf" ]*\d)?[.,]?(?:[eE][+-]?\d+)?)\s*(?P<after>{UNIT}|%)?(?P<close>\))?$"
)

CONVENTIONS = ((",", "."), (".", ","), (" ", "."), (" ", ","), ("'", "."), ("'", ","))
"""What stands between thousands, and before decimals."""

BOOLEANS = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))

CLOCK = (
    (
        r"^(?:(?P<days>-?\d+) days?,?"
        r" \+?)?(?P<sign>-)?(?P<hours>\d+):(?P<minutes>[0-5]?\d):(?P<seconds>[0-5]?\d(?:[.,]\d+)?)$"
    ),
    r"^(?P<days>-?\d+) days?$",
    r"^(?P<sign>-)?P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:[.,]\d+)?)S)?)?$",
)
"""h:mm:ss with or without days, as databases, Python and pandas write it; whole days; ISO 8601."""

SECONDS = {"days": 86_400.0, "hours": 3_600.0, "minutes": 60.0, "seconds": 1.0}


@dataclass(frozen=True)
class ColumnReading:
    """A column of numbers.

    Attributes:
        values: `[n]`, NaN where the cell is blank.
        how: in what way another dress was read ("as seconds", "without $"); "" for plain numbers.
    """

    values: Floats
    how: str = ""


class UnreadableError(Exception):
    """A column of numbers with a value that is none, or that may be two.

    Attributes:
        row: of the first such value.
        why: the value, and the rule that it breaks.
        advice: how to write it.
    """

    def __init__(
        self, row: int, why: str, advice: str = "write plain numbers, such as 1234.5"
    ) -> None:
        super().__init__(why)
        self.row, self.why, self.advice = row, why, advice


class LostDigitsError(UnreadableError):
    """A whole number of which float64 would lose digits."""


def encoded(cells: Cells) -> tuple[Cells, npt.NDArray[np.int32]]:
    """The distinct values of a column in the order of their first rows, and the index `[n]` of each
    row's (-1: blank), which is read-only; by hashing.
    """
    coded = cells.dictionary_encode().combine_chunks()
    if isinstance(coded, pa.ChunkedArray):  # without rows there is no chunk
        return pa.array([], cells.type), np.zeros(0, dtype=np.int32)
    indices = coded.indices.fill_null(-1) if coded.null_count else coded.indices
    return coded.dictionary, np.asarray(indices.to_numpy())


def read_numbers(cells: Cells) -> ColumnReading | None:
    """The numbers of a column of any type; None where it holds none (text, dates, categories,
    lists).

    Raises:
        UnreadableError: most values are numbers, but not all; or they can be read in two ways; or
            float64 would lose digits of a whole number.
    """
    kind = cells.type
    if pa.types.is_dictionary(kind):
        inner = kind.value_type
        if pa.types.is_boolean(inner) or is_text(inner):
            return read_numbers(cells.cast(inner))
        return None
    if pa.types.is_floating(kind):
        return ColumnReading(_floats(cells))
    if pa.types.is_integer(kind):
        return ColumnReading(_exact(cells, _floats(cells)))
    if pa.types.is_boolean(kind):
        return ColumnReading(_floats(pc.cast(cells, pa.int8())), "with true as 1, false as 0")
    if pa.types.is_decimal(kind):
        return ColumnReading(_exact(cells, _floats(pc.cast(cells, pa.float64()))), "as decimals")
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        ticks = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        whole = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return ColumnReading(_floats(pc.cast(cells, whole)) / ticks, "as seconds")
    return _from_text(cells) if is_text(kind) else None


def has_leading_zeros(cells: Cells) -> bool:
    """Whether a column of text has whole numbers such as `007`: such digits are a label (a
    postcode), and no amount.
    """
    if not is_text(cells.type):
        return False
    zero = cells.filter(pc.starts_with(cells, "0"))
    return bool(pc.any(pc.match_substring_regex(zero, r"^0\d+$")).as_py())


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is a string."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_number(kind: Any) -> bool:
    """Whether an Arrow type is one of plain numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def as_numpy(cells: Cells) -> npt.NDArray[Any]:
    """The cells as numpy has them, without a copy where there is one block of them and none is
    blank.
    """
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.chunk(0) if cells.num_chunks == 1 else cells.combine_chunks()
    return np.asarray(cells.to_numpy(zero_copy_only=False))


def _floats(cells: Cells) -> Floats:
    return np.asarray(as_numpy(cells), dtype=np.float64)


def _from_text(cells: Cells) -> ColumnReading | None:
    try:
        values = _floats(pc.cast(cells, pa.float64()))
    except pa.ArrowInvalid:
        return _dressed(cells)
    if _may_have_thousands(cells, values):
        return _dressed(cells)
    return ColumnReading(_exact(cells, values))


def _exact(cells: Cells, values: Floats) -> Floats:
    """The values `[n]` of the cells.

    Raises:
        UnreadableError: one of them has lost digits.
    """
    at = _first_inexact(cells, values)
    if at is not None:
        raise _lost_digits(at, cells[at].as_py(), values[at])
    return values


def _first_inexact(cells: Cells, values: Floats) -> int | None:
    """The first cell of more than 2^53 that is not exactly its value; None where all are. Fractions
    are rounded as float64 always rounds them, and so is text with an exponent: it was a float.
    """
    for at in np.flatnonzero(np.abs(values) >= WHOLE).tolist():
        cell = cells[at].as_py()
        is_float = isinstance(cell, str) and "e" in cell.lower()
        if not is_float and np.isfinite(values[at]) and Decimal(cell) != Decimal(values[at]):
            return int(at)
    return None


def _lost_digits(row: int, cell: object, value: float) -> LostDigitsError:
    return LostDigitsError(
        row,
        f"{cell}, which would become {value:.0f}: a number is held as float64, which has no place"
        " for every whole number beyond 2^53 (9007199254740992)",
        "if the last digits do not matter, write the column as floats, with an exponent (9.007e15)",
    )


def _may_have_thousands(cells: Cells, values: Floats) -> bool:
    """Whether plain numbers may be whole ones with a dot between thousands: `900`, `1.234`,
    `12.500`.

    Every number is then below 1000 and has three decimals or none, and both kinds occur: who writes
    three decimals writes them always.
    """
    size = np.abs(values[np.isfinite(values)])
    if not len(size) or size.max() >= 1000.0 or size[size > 0].min(initial=1.0) < 1.0:
        return False
    some = cells.slice(0, 1000)  # most columns show at once that they have decimals
    if not _are_in_thousands(some) or not _are_in_thousands(cells):
        return False
    dotted = int(pc.sum(pc.match_substring(cells, ".")).as_py())
    return 0 < dotted < int(len(cells) - cells.null_count)


def _are_in_thousands(cells: Cells) -> bool:
    """Whether every dot has one to three digits before it, the first no zero, and three behind
    it.
    """
    dotted = cells.filter(pc.match_substring(cells, "."))
    fits = pc.match_substring_regex(dotted, r"^[+-]?[1-9]\d{0,2}\.\d{3}$")
    return bool(pc.all(fits, min_count=0).as_py())


@dataclass(frozen=True)
class _Texts:
    """The distinct texts of a column, trimmed, with the rows they stand in."""

    texts: Cells  # [k]
    rows: npt.NDArray[Any]  # [n] index into texts, -1 where blank
    counts: npt.NDArray[np.int64]  # [k] rows of each

    @classmethod
    def of(cls, cells: Cells) -> _Texts:
        dictionary, rows = encoded(cells)
        texts = pc.utf8_trim_whitespace(dictionary)
        if not pc.all(pc.string_is_ascii(texts)).as_py():
            for typeset, plain in TYPESET.items():
                texts = pc.replace_substring(texts, typeset, plain)
        blank = np.asarray(pc.equal(texts, ""))
        rows = np.where(rows >= 0, np.where(blank[rows], -1, rows), -1)
        return cls(texts, rows, np.bincount(rows[rows >= 0], minlength=len(texts)))

    def share(self, mask: Mask) -> float:
        """Share of the rows with a value whose text is in `mask`."""
        return float(self.counts[mask].sum() / max(self.counts.sum(), 1))

    def first(self, mask: Mask) -> tuple[int, str]:
        """The first row whose text is in `mask`, and that text."""
        row = int(np.flatnonzero((self.rows >= 0) & mask[self.rows])[0])
        return row, self.texts[int(self.rows[row])].as_py()

    def column(self, values: Floats) -> Floats:
        """The values `[k]` of the texts as the column `[n]`."""
        return np.where(self.rows >= 0, values[self.rows], np.nan)


def _dressed(cells: Cells) -> ColumnReading | None:
    """Text that is not plain numbers, by the rule that most of its values keep."""
    column = _Texts.of(cells)
    if not column.counts.sum():
        return None
    used = column.counts > 0
    words = np.array(
        [str(t).lower() for t in column.texts.to_pylist()] if len(column.texts) <= 32 else [],
        dtype=object,
    )
    yes_no = _booleans(words, used)
    if yes_no is not None:
        return ColumnReading(column.column(yes_no[0]), yes_no[1])
    for rule in (_amounts, _durations):
        values, how = rule(column)
        strays = used & np.isnan(values)
        if not strays.any():
            return ColumnReading(column.column(values), how)
        if _mostly_numbers(column, strays):
            row, text = column.first(strays)
            count = int(column.counts[strays].sum())
            raise UnreadableError(
                row, f"{text!r}, no number, as most of the column are; such values: {count:,}"
            )
    return None


def _mostly_numbers(column: _Texts, strays: Mask) -> bool:
    """Whether the strays are mistakes among numbers: the lesser part, or words for what is
    absent.
    """
    share = column.share(strays)
    if share < MOST or share == 1.0:
        return share < MOST
    return bool(_absent(column.texts)[strays].all())


def _absent(texts: Cells) -> Mask:
    """Which texts say that there is no value."""
    return np.asarray(pc.is_in(pc.utf8_lower(texts), pa.array(ABSENT, texts.type)))


def _booleans(words: npt.NDArray[Any], used: Mask) -> tuple[Floats, str] | None:
    """Values and words of a column of yes and no. Single letters must both occur: a column of `F`
    alone may be anything.
    """
    if not len(words):
        return None
    there = set(words[used])
    for yes, no in BOOLEANS:
        if (
            there <= {yes, no, "1", "0"}
            and there & {yes, no}
            and (len(yes) > 1 or {yes, no} <= there)
        ):
            return np.isin(words, [yes, "1"]).astype(np.float64), f"with {yes} as 1, {no} as 0"
    return None


def _amounts(column: _Texts) -> tuple[Floats, str]:
    """Values `[k]` (NaN: no amount) of numbers with separators, a sign of money or of percent, and
    how they were read.

    Raises:
        UnreadableError: two ways to read them, or units that differ.
    """
    part = pc.extract_regex(column.texts, AMOUNT)
    fields = {
        name: pc.struct_field(part, name)
        for name in ("open", "sign", "before", "inner", "number", "after", "close")
    }
    is_amount = np.asarray(pc.is_valid(part)) & np.asarray(
        pc.fill_null(pc.equal(fields["open"], _closing(fields["close"])), False)
    )
    # `$5%` is neither money nor a share.
    is_amount &= np.asarray(
        pc.fill_null(pc.or_(pc.equal(fields["before"], ""), pc.equal(fields["after"], "")), False)
    )
    if column.share(is_amount) < MOST and not (
        column.share(is_amount) and _absent(column.texts).any()
    ):
        return np.full(len(column.texts), np.nan), ""
    values, separators = _separated(column, fields["number"], is_amount)
    minus = np.asarray(
        pc.fill_null(pc.or_(pc.equal(fields["sign"], "-"), pc.equal(fields["inner"], "-")), False)
    )
    minus |= np.asarray(pc.fill_null(pc.equal(fields["open"], "("), False))
    values = np.where(minus, -values, values)
    unit = pc.binary_join_element_wise(
        fields["before"], fields["after"], pa.scalar("", column.texts.type)
    )
    sign = _one_unit(column, unit, ~np.isnan(values), values)
    if sign == "%":
        values = values / 100.0
    dress = "as shares: 12% is .12" if sign == "%" else f"without {sign}" if sign else ""
    return values, ", ".join(word for word in (dress, separators) if word)


def _closing(close: Cells) -> Cells:
    return pc.replace_substring(close, ")", "(")


def _separated(column: _Texts, numbers: Cells, is_amount: Mask) -> tuple[Floats, str]:
    """Values by the convention of separators that most keep, and its name.

    Raises:
        UnreadableError: two conventions fit, and read a value differently; or digits are lost.
    """
    found = []
    for thousands, decimal in CONVENTIONS:
        values = _by_convention(numbers, thousands, decimal)
        values[~is_amount] = np.nan
        found.append((column.share(~np.isnan(values)), values, thousands, decimal))
    best = max(share for share, *_ in found)
    fitting = [row for row in found if row[0] == best]
    _, values, thousands, decimal = fitting[0]
    for _, other, *_ in fitting[1:] if best >= MOST else ():
        differs = (column.counts > 0) & (values != other) & ~np.isnan(values) & ~np.isnan(other)
        if differs.any():
            row, text = column.first(differs)
            at = int(column.rows[row])
            sign = "," if "," in text else "."
            raise UnreadableError(
                row,
                f"{text!r}, which may be {values[at]:.12g} or {other[at]:.12g}: whether {sign!r}"
                " stands between thousands or before decimals is not clear from the whole column",
            )
    plain = _plainly(numbers, thousands, decimal)
    inexact = _first_inexact(plain, values) if best == 1.0 else None
    if inexact is not None:
        row, text = column.first(np.arange(len(values)) == inexact)
        raise _lost_digits(row, repr(text), values[inexact])
    marks = {thousands: f"{thousands!r} between thousands"} | (
        {decimal: f"{decimal!r} before decimals"} if decimal != "." else {}
    )
    read = numbers.filter(pa.array(~np.isnan(values)))
    words = [word for sign, word in marks.items() if pc.any(pc.match_substring(read, sign)).as_py()]
    return values, f"with {' and '.join(words)}" if words else ""


def _by_convention(numbers: Cells, thousands: str, decimal: str) -> Floats:
    """Values `[k]` of the numbers that keep a convention; NaN for the others. Indian groups of two
    are thousands, too.
    """
    t, d = (f"\\{sign}" if sign in ".,'" else sign for sign in (thousands, decimal))
    grouped = rf"[1-9]\d{{0,2}}(?:{t}\d{{2,3}})*{t}\d{{3}}"
    fits = pc.match_substring_regex(
        numbers, rf"^(?:(?:{grouped}|\d+)(?:{d}\d*)?|{d}\d+)(?:[eE][+-]?\d+)?$"
    )
    plain = _plainly(numbers, thousands, decimal)
    return np.array(
        _floats(pc.cast(pc.if_else(fits, plain, pa.scalar(None, plain.type)), pa.float64()))
    )


def _plainly(numbers: Cells, thousands: str, decimal: str) -> Cells:
    """Numbers `[k]` without what stands between thousands, and with a dot before decimals."""
    return pc.replace_substring(pc.replace_substring(numbers, thousands, ""), decimal, ".")


def _one_unit(column: _Texts, unit: Cells, read: Mask, values: Floats) -> str:
    """The one sign of money or of percent that all values other than 0 bear; "" for none.

    Raises:
        UnreadableError: they bear several, or some none.
    """
    counted = read & (column.counts > 0)
    signs = set(pc.unique(unit.filter(pa.array(counted))).to_pylist())
    if len(signs) < 2 or column.share(counted) < MOST:
        return str(signs.pop()) if len(signs) == 1 else ""
    named = sorted(signs - {""})
    bare = np.asarray(pc.fill_null(pc.equal(unit, ""), False)) & counted & (values != 0)
    if len(named) == 1 and not bare.any():
        return str(named[0])
    if len(named) == 1:
        odd = bare
    else:
        odd = counted & np.asarray(pc.fill_null(pc.equal(unit, named[1]), False))
    row, text = column.first(odd)
    if len(named) == 1:
        rule = f"without the {named[0]!r} of others"
    else:
        rule = f"and others have {named[0]!r}: amounts of several units"
    raise UnreadableError(row, f"{text!r} {rule}")


def _durations(column: _Texts) -> tuple[Floats, str]:
    """Seconds `[k]` (NaN: no duration).

    Raises:
        UnreadableError: two parts, `1:30`, which may be minutes and seconds or hours and minutes.
    """
    values = np.full(len(column.texts), np.nan)
    if column.share(np.asarray(pc.match_substring_regex(column.texts, r":|day|^-?P"))) < MOST:
        return values, ""
    for pattern in CLOCK:
        part = pc.extract_regex(column.texts, pattern)
        # PT alone is Portugal, and no duration.
        fits = np.asarray(pc.is_valid(part)) & np.asarray(
            pc.match_substring_regex(column.texts, r"\d")
        )
        if fits.any():
            values = np.where(fits, _seconds(part), values)
    pairs = np.asarray(pc.match_substring_regex(column.texts, r"^\d+:[0-5]\d$")) & (
        column.counts > 0
    )
    if column.share(pairs) >= MOST:
        row, text = column.first(pairs)
        raise UnreadableError(
            row, f"{text!r}, which is minutes and seconds or hours and minutes: h:mm:ss is clear"
        )
    return values, "as seconds"


def _seconds(part: Cells) -> Floats:
    """Seconds `[k]` of the parts of a duration. In `-1 days +23:59:00` the minus is of the days
    alone, in `-0:01:00` of the whole.
    """
    total = np.zeros(len(part))
    names = [part.type.field(i).name for i in range(part.type.num_fields)]
    for name in names:
        if name in SECONDS:
            field = pc.replace_substring(pc.struct_field(part, name), ",", ".")
            total += SECONDS[name] * _floats(
                pc.cast(pc.if_else(pc.equal(field, ""), "0", field), pa.float64())
            )
    if "sign" in names:
        total = np.where(
            np.asarray(pc.fill_null(pc.equal(pc.struct_field(part, "sign"), "-"), False)),
            -total,
            total,
        )
    return total
