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

from simulator.stats.readings import UnreadableError, has_leading_zeros, read_numbers

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
