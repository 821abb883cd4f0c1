"""Numbers in another dress: what is one rule for a whole column is read, what has two readings is
refused, what is text stays text.
"""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simulator.stats.readings import (
    LostDigitsError,
    UnreadableError,
    as_numpy,
    encoded,
    has_leading_zeros,
    is_number,
    is_text,
    read_numbers,
)

AMOUNTS = [1234.5, 0.07, -12.0, 1234567.25]


def cells(values: Any, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def english(x: float) -> str:
    return f"{x:,.2f}"


def german(x: float) -> str:
    return english(x).translate(str.maketrans(",.", ".,"))


@pytest.mark.parametrize(
    ("texts", "is_clear"),
    [
        (["900", "1.234", "12.500"], False),
        (["900", "1.234", None, "0", "-999"], False),
        (["1.234", "12.500", None], True),  # who writes three decimals writes them always
        (["900", "800"], True),
        (["1000", "1.234"], True),  # thousands would have a dot
        (["900", "0.500"], True),
        (["900", "1.2345"], True),
        (["900", "1234.567"], True),
        (["900", "1.234", "2.5"], True),
        ([*["1.234"] * 1000, "7", "1.5"], True),
    ],
)
def test_a_dot_between_thousands_or_before_decimals(
    texts: list[str | None], is_clear: bool
) -> None:
    if not is_clear:
        with pytest.raises(UnreadableError, match="not clear"):
            read_numbers(cells(texts))
        return
    reading = read_numbers(cells(texts))
    assert reading is not None
    expected = [np.nan if text is None else float(text) for text in texts]
    assert reading.values == pytest.approx(np.array(expected), nan_ok=True)
    assert reading.how == ""


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (str, ""),
        (lambda x: f" {x:+} ", ""),
        (lambda x: f"{x:.9e}", ""),
        (english, "with ',' between thousands"),
        (german, "with '.' between thousands and ',' before decimals"),
        (lambda x: f"{x:.2f}".replace(".", ","), "with ',' before decimals"),
        (
            lambda x: english(x).translate(str.maketrans(",.", " ,")),
            "with ' ' between thousands and ',' before decimals",
        ),
        (
            lambda x: german(x).replace(".", "\u202f"),
            "with ' ' between thousands and ',' before decimals",
        ),
        (lambda x: english(x).replace(",", "\u2019"), 'with "\'" between thousands'),
        (lambda x: english(x).replace("-", "\u2212"), "with ',' between thousands"),
        (lambda x: f"${english(x)}", "without $, with ',' between thousands"),
        (
            lambda x: english(x).replace("-", "-$") if x < 0 else f"${english(x)}",
            "without $, with ',' between thousands",
        ),
        (
            lambda x: f"{german(x)}\u00a0€",
            "without €, with '.' between thousands and ',' before decimals",
        ),
        (lambda x: f"CHF {x}", "without CHF"),
        (lambda x: f"({english(-x)})" if x < 0 else english(x), "with ',' between thousands"),
    ],
)
def test_amounts_are_read_by_the_one_rule_that_all_keep(write: Any, how: str) -> None:
    reading = read_numbers(cells([write(x) for x in AMOUNTS] + [None]))
    assert reading is not None
    assert reading.values[:-1].tolist() == pytest.approx(AMOUNTS, rel=1e-9)
    assert (np.isnan(reading.values[-1]), reading.how) == (True, how)


def test_indian_groups_and_shares() -> None:
    rupees = read_numbers(cells(["₹1,23,456.50", "₹999.00", "₹12,34,56,789.00"]))
    assert rupees is not None
    assert rupees.values.tolist() == [123456.5, 999.0, 123456789.0]
    shares = read_numbers(cells(["12.5%", "0", "100 %"]))
    assert shares is not None
    assert shares.values.tolist() == [0.125, 0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["00:01:30", "1:00:00.5"], [90.0, 3600.5]),
        (["0 days 00:01:30", "-1 days +23:59:00"], [90.0, -60.0]),
        (["1 day, 0:00:01", "-0:01:00"], [86401.0, -60.0]),
        (["2 days", "1 day"], [172800.0, 86400.0]),
        (["PT1M30S", "P1DT0.5S"], [90.0, 86400.5]),
        ([datetime.timedelta(seconds=90), datetime.timedelta(days=-1)], [90.0, -86400.0]),
        ([datetime.time(0, 1, 30), datetime.time(1)], [90.0, 3600.0]),
    ],
)
def test_durations_are_seconds(values: list[Any], seconds: list[float]) -> None:
    reading = read_numbers(cells(values))
    assert reading is not None
    assert (reading.values.tolist(), reading.how) == (seconds, "as seconds")


def test_pandas_writes_durations_that_are_read_back() -> None:
    given = pd.to_timedelta([0.25, 90, 1e6, -0.5], unit="s")
    reading = read_numbers(cells([str(t) for t in given]))
    assert reading is not None
    assert reading.values.tolist() == given.total_seconds().tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, False], [1.0, 0.0]),
        (["True", "FALSE"], [1.0, 0.0]),
        (["yes", "No"], [1.0, 0.0]),
        (["t", "f"], [1.0, 0.0]),
        (["true", "true"], [1.0, 1.0]),
        (["F", "M"], None),
        (["F", "F"], None),
        (["yes", "maybe"], None),
    ],
)
def test_yes_and_no_are_numbers(values: list[Any], expected: list[float] | None) -> None:
    reading = read_numbers(cells(values))
    assert (None if reading is None else reading.values.tolist()) == expected


@pytest.mark.parametrize(
    ("values", "row", "why"),
    [
        (["900", "1,234"], 1, "'1,234', which may be 1234 or 1.234"),
        (["900", "1.234", "12.500"], 1, "'1.234', which may be 1.234 or 1234"),
        (["$2.500", "$1.750"], 0, "may be 2.5 or 2500"),
        (["12:30", "1:05"], 0, "minutes and seconds or hours and minutes"),
        (["$5", "€6", "$7"], 1, "'€6' and others have '$'"),
        (["5%", "6%", "7"], 2, "'7' without the '%' of others"),
        (["1", "2", "oops"], 2, "'oops', no number, as most of the column are; such values: 1"),
        (["1", "NA", "NA", "NA"], 1, "'NA', no number"),
        (["0:01:30", "0:01:31", "late"], 2, "'late', no number"),
    ],
)
def test_what_has_two_readings_or_strays_is_refused_with_its_row(
    values: list[str], row: int, why: str
) -> None:
    with pytest.raises(UnreadableError) as refusal:
        read_numbers(cells(values))
    assert refusal.value.row == row
    assert why in refusal.value.why


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1,234", "0,5"], [1234e-3, 0.5]),
        (["1,234", "1,234,567"], [1234.0, 1234567.0]),
        (["1.234", "0.5"], [1.234, 0.5]),
        (["1.234", "7.5", "900"], [1.234, 7.5, 900.0]),
        (["1.234", "2.500"], [1.234, 2.5]),
    ],
)
def test_one_value_may_settle_the_column(values: list[str], expected: list[float]) -> None:
    reading = read_numbers(cells(values))
    assert reading is not None
    assert reading.values.tolist() == expected


@pytest.mark.parametrize(
    "values",
    [
        ["PT", "PT", "DE"],
        ["10.0.0.1", "192.168.100.200", "10.0.0.2"],
        ["1.0.2", "1.1.2"],
        ["18-24", "25-34"],
        ["4G", "5G"],
        ["2024-01-01", "2024-02-01"],
        ["group 1", "group 2"],
        ["x-00a1", "x-00a2"],
        ["0x1f", "0x2f"],
        ["a", "5"],
        ["$5%", "$6%"],
    ],
)
def test_text_stays_text(values: list[str]) -> None:
    assert read_numbers(cells(values)) is None


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (cells([decimal.Decimal("1.10"), decimal.Decimal("-2")]), [1.1, -2.0]),
        (cells(["1", "2"]).dictionary_encode(), [1.0, 2.0]),
        (cells([2**63, 1], pa.uint64()), [float(2**63), 1.0]),
        (cells([1, None]), [1.0, np.nan]),
        (cells([1, 2]).dictionary_encode(), None),
        (cells([[1], [2]]), None),
        (cells([datetime.date(2024, 1, 1)]), None),
    ],
)
def test_types_that_are_numbers_and_types_that_are_not(
    column: pa.ChunkedArray, expected: list[float] | None
) -> None:
    reading = read_numbers(column)
    if expected is None:
        assert reading is None
    else:
        assert reading is not None
        np.testing.assert_array_equal(reading.values, expected)


def test_leading_zeros_are_of_labels() -> None:
    assert has_leading_zeros(cells(["01234", "99999"]))
    assert not has_leading_zeros(cells(["0", "0.5", "10"]))
    assert not has_leading_zeros(cells([0, 10]))


LOST = 2**53 + 1


@pytest.mark.parametrize(
    "column",
    [
        cells([1, LOST]),
        cells([1, LOST], pa.uint64()),
        cells([None, -LOST]),
        cells([1, 2**64 - 1], pa.uint64()),
        cells([decimal.Decimal(1), decimal.Decimal(LOST)]),
        cells([decimal.Decimal("1.00"), decimal.Decimal(f"{LOST}.25")]),
        cells([decimal.Decimal(1), decimal.Decimal(10**30 + 1)]),
        cells(["1", str(LOST)]),
        cells(["1", str(10**30 + 1)]),
        cells(["1", f"{LOST}.0"]),
        cells(["$1", f"${LOST:,}"]),
        cells(["1,5", f"{LOST:,}".replace(",", ".")]),
        cells(["1", str(LOST)]).dictionary_encode(),
    ],
)
def test_a_whole_number_that_loses_digits_is_refused_with_its_row(column: pa.ChunkedArray) -> None:
    with pytest.raises(UnreadableError, match="which would become") as refusal:
        read_numbers(column)
    assert refusal.value.row == 1


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.decimal128(38, 2), pa.string()])
def test_large_numbers_that_are_held_exactly_are_read(kind: pa.DataType) -> None:
    whole = [2**53, 2**53 + 2, 2**60, 5 * 2**55]
    given = [str(x) if pa.types.is_string(kind) else x for x in whole]
    reading = read_numbers(cells(given, kind))
    assert reading is not None
    assert [int(x) for x in reading.values] == whole


def test_floats_are_as_they_came() -> None:
    for column in (cells([1e30, 0.1]), cells(["1e30", "0.1"]), cells(["1e+16", "inf"])):
        assert read_numbers(column) is not None


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "expected", "how"),
    [
        (["(5)", "7"], [-5.0, 7.0], ""),
        (["$5", "0", "$7"], [5.0, 0.0, 7.0], "without $"),
        (["US$5", "US$-7"], [5.0, -7.0], "without US$"),
        (["5 kr", "+6 kr"], [5.0, 6.0], "without kr"),
        (["5 USD", "USD 6"], [5.0, 6.0], "without USD"),
        (["5%", "0", "-7 %"], [0.05, 0.0, -0.07], "as shares: 12% is .12"),
        (["1,5%", "20%"], [0.015, 0.2], "as shares: 12% is .12, with ',' before decimals"),
        (["1 234,5", "1"], [1234.5, 1.0], "with ' ' between thousands and ',' before decimals"),
        (["12'345", "1'000.5"], [12345.0, 1000.5], 'with "\'" between thousands'),
        (["1,23,456", "5"], [123456.0, 5.0], "with ',' between thousands"),
        (["1,2345", "7"], [1.2345, 7.0], "with ',' before decimals"),
        (["00,5", ",5"], [0.5, 0.5], "with ',' before decimals"),
        (["5,", "6,"], [5.0, 6.0], "with ',' before decimals"),
        (["1,5e3", "2,5E-1"], [1500.0, 0.25], "with ',' before decimals"),
        (["1\u00a0000", "5", ""], [1000.0, 5.0, NAN], "with ' ' between thousands"),
        (["\u22125", "$6", "$7"], None, ""),
        (["-PT1M", "PT2S"], [-60.0, 2.0], "as seconds"),
        (["P1DT2H3M4.5S", None], [93784.5, NAN], "as seconds"),
        (["P2D", "PT1,5S"], [172800.0, 1.5], "as seconds"),
        (["1:2:3", "10:20:30"], [3723.0, 37230.0], "as seconds"),
        (["3 days 4:05:06", "1 day"], [273906.0, 86400.0], "as seconds"),
        (["-3 days", "-0:00:01"], [-259200.0, -1.0], "as seconds"),
        (["1:30", "0:01:00", "x"], None, ""),
        (["T", "F", ""], [1.0, 0.0, NAN], "with t as 1, f as 0"),
        (["y", "N", "1", "0"], [1.0, 0.0, 1.0, 0.0], "with y as 1, n as 0"),
        (["yes", "1", "0"], [1.0, 1.0, 0.0], "with yes as 1, no as 0"),
        (["no", "no"], [0.0, 0.0], "with yes as 1, no as 0"),
        (["1", "0"], [1.0, 0.0], ""),
        (["t", "1"], None, ""),
        (["true", "no"], None, ""),
        (["$5", "abc"], None, ""),
        (["", None, " "], None, ""),
        (["5", "", " "], [5.0, NAN, NAN], ""),
    ],
)
def test_each_dress_is_read_with_its_name(
    values: list[Any], expected: list[float] | None, how: str
) -> None:
    for column in (cells(values), cells(values).dictionary_encode()):
        try:
            reading = read_numbers(column)
        except UnreadableError:
            assert expected is None
            continue
        if expected is None:
            assert reading is None
        else:
            assert reading is not None
            assert reading.values.tolist() == pytest.approx(expected, nan_ok=True)
            assert reading.how == how


STRAY = "no number, as most of the column are; such values: "
UNCLEAR = "stands between thousands or before decimals is not clear from the whole column"


@pytest.mark.parametrize(
    ("values", "row", "why"),
    [
        (["$1", "$2", "x", "$3", "x"], 2, f"'x', {STRAY}2"),
        (["5", "x", *["6"] * 1500, *["x"] * 1499], 1, f"'x', {STRAY}1,500"),
        (["(5)", "5)", "7"], 1, f"'5)', {STRAY}1"),
        (["-(5)", "7", "8"], 0, f"'-(5)', {STRAY}1"),
        (["NA", "5"], 0, f"'NA', {STRAY}1"),
        (["-", "?", "n/a", "$5"], 0, f"'-', {STRAY}3"),
        (["1:30", "0:01:00", "0:02:00"], 0, f"'1:30', {STRAY}1"),
        (["0:01:00", "1:30", "1:31"], 1,
         "'1:30', which is minutes and seconds or hours and minutes: h:mm:ss is clear"),
        (["", "2,345", "1,234"], 1, f"'2,345', which may be 2345 or 2.345: whether ',' {UNCLEAR}"),
        (["5", "1.234", "-2.345"], 1,
         f"'1.234', which may be 1.234 or 1234: whether '.' {UNCLEAR}"),
        (["$5", "6", "$7", "8"], 1, "'6' without the '$' of others"),
        (["€6", "$5", "$7", "6"], 0, "'€6' and others have '$': amounts of several units"),
        (["$5", "$6", "£7", "€8"], 2, "'£7' and others have '$': amounts of several units"),
    ],
)  # fmt: skip
def test_the_first_row_that_cannot_be_is_told_with_what_to_do(
    values: list[str], row: int, why: str
) -> None:
    with pytest.raises(UnreadableError) as refusal:
        read_numbers(cells(values))
    told = refusal.value
    assert (told.row, told.why, str(told)) == (row, why, why)
    assert told.advice == "write plain numbers, such as 1234.5"


@pytest.mark.parametrize(
    ("column", "row", "cell", "value"),
    [
        (cells([0, LOST, LOST + 2]), 1, str(LOST), LOST - 1),
        (cells([None, "1", str(-LOST)]), 2, str(-LOST), 1 - LOST),
        (cells(["$1", f"${LOST:,}"]), 1, f"'${LOST:,}'", LOST - 1),
    ],
)
def test_lost_digits_are_told_with_what_they_would_become(
    column: pa.ChunkedArray, row: int, cell: str, value: int
) -> None:
    with pytest.raises(LostDigitsError) as refusal:
        read_numbers(column)
    assert refusal.value.row == row
    assert refusal.value.why == (
        f"{cell}, which would become {value}: a number is held as float64, which has no place for"
        " every whole number beyond 2^53 (9007199254740992)"
    )
    assert "with an exponent (9.007e15)" in refusal.value.advice


def test_2_to_the_53_and_what_has_an_exponent_or_no_end_is_held() -> None:
    for column in (
        cells([2**53, -(2**53)]),
        cells(["9.007199254740993e15", "9.007199254740993E15"]),
        cells([float("inf"), 1e300]),
        cells(["inf", "-inf", "nan"]),
        cells([0.1, 2.0**60]),
    ):
        assert read_numbers(column) is not None


@pytest.mark.parametrize(
    ("texts", "is_clear"),
    [
        (["999", "1.234"], False),
        (["999.999", "1"], False),
        (["1000", "1.234"], True),
        (["1", "0.999"], True),
        (["0", "1.000"], False),
        (["nan", "1.234", "5"], False),
        (["1.234", "0.5"], True),
        (["1.2345", "5"], True),
        (["+1.234", "-5"], False),
        (["01.234", "5"], True),
        ([*["5"] * 1000, "1.234"], False),
        ([*["5"] * 1000, "1.5"], True),
        (["inf", "nan"], True),
        (["0", "0"], True),
    ],
)
def test_whole_numbers_and_three_decimals_are_not_clear_below_1000(
    texts: list[str], is_clear: bool
) -> None:
    if is_clear:
        reading = read_numbers(cells(texts))
        assert reading is not None
        assert reading.values == pytest.approx(np.array(texts, dtype=float), nan_ok=True)
    else:
        with pytest.raises(UnreadableError):
            read_numbers(cells(texts))


@pytest.mark.parametrize(
    ("kind", "ticks"),
    [
        (pa.time32("s"), 1), (pa.time32("ms"), 1e3), (pa.time64("us"), 1e6), (pa.time64("ns"), 1e9),
        (pa.duration("s"), 1), (pa.duration("ms"), 1e3), (pa.duration("us"), 1e6),
        (pa.duration("ns"), 1e9),
    ],
)  # fmt: skip
def test_ticks_are_seconds_by_their_unit(kind: pa.DataType, ticks: float) -> None:
    reading = read_numbers(cells([90, None, 1500], kind))
    assert reading is not None
    assert reading.values.tolist() == pytest.approx([90 / ticks, NAN, 1500 / ticks], nan_ok=True)
    assert reading.how == "as seconds"


def test_plain_types_say_how_they_were_read() -> None:
    for column, how in (
        (cells([True, None]), "with true as 1, false as 0"),
        (cells([True, False]).dictionary_encode(), "with true as 1, false as 0"),
        (cells([decimal.Decimal("1.5"), None]), "as decimals"),
        (cells([1, 2]), ""),
        (cells([1.5]), ""),
    ):
        reading = read_numbers(column)
        assert reading is not None
        assert reading.how == how


def test_texts_numbers_and_columns_are_known_by_their_types() -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        assert (is_text(kind), is_number(kind)) == (True, False)
    for kind in (pa.int8(), pa.uint64(), pa.float32()):
        assert (is_text(kind), is_number(kind)) == (False, True)
    for kind in (pa.bool_(), pa.binary(), pa.decimal128(5, 2)):
        assert (is_text(kind), is_number(kind)) == (False, False)
    for values, leading in ((["007", "x"], True), (["0", "0.5", "x0", "10"], False),
                            ([None, "00"], True), (["0a1"], False)):  # fmt: skip
        assert has_leading_zeros(cells(values)) is leading


def test_distinct_values_come_in_the_order_of_their_rows() -> None:
    names, index = encoded(cells(["b", None, "a", "b"]))
    assert (names.to_pylist(), index.tolist()) == (["b", "a"], [0, -1, 1, 0])
    assert index.dtype == np.int32
    two = pa.chunked_array([["b"], ["a", "b"]])
    names, index = encoded(two)
    assert (names.to_pylist(), index.tolist()) == (["b", "a"], [0, 1, 0])
    names, index = encoded(pa.chunked_array([], pa.string()))
    assert (len(names), index.tolist()) == (0, [])
    assert as_numpy(two).tolist() == ["b", "a", "b"]
    assert as_numpy(cells([1, 2])).tolist() == [1, 2]
    assert as_numpy(pa.array([1.0, None])).tolist() == pytest.approx([1.0, NAN], nan_ok=True)


def test_a_column_of_yes_and_no_has_at_most_32_spellings() -> None:
    spelt = ["no", *("yes" + " " * k for k in range(31))]
    reading = read_numbers(cells(spelt))
    assert reading is not None
    assert reading.values.tolist() == [0.0] + [1.0] * 31
    assert read_numbers(cells([*spelt, "yes" + " " * 31])) is None
