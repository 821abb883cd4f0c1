"""Rows of any kind: names, labels and ids exactly as they came, and what cannot be is named."""

from __future__ import annotations

import decimal
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simulator.stats import rows
from simulator.stats.rows import Ids, Rows, as_rows, ids, labels, of_arrow
from simulator.stats.unit_table import TableError


def one(values: Any, *, text: bool = False) -> Rows:
    """A table of one column `x`."""
    cells = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
    return Rows({"x": lambda: cells}, lambda row: f"line {row + 2}", text=text)


def refusal(do: Any, *given: Any) -> str:
    with pytest.raises(TableError) as error:
        do(*given)
    return str(error.value)


def test_columns_are_read_once_and_named() -> None:
    read = []

    def column() -> pa.Array:
        read.append(1)
        return pa.array([1, 2])

    table = Rows({"clicks": column}, str, {"index": lambda: pa.array([7, 8])})
    assert table.cells("clicks") is table.cells("clicks")
    assert (len(read), table.cells("clicks").to_pylist()) == (1, [1, 2])
    assert table.cells("index").to_pylist() == [7, 8]
    assert refusal(table.cells, "click") == (
        "the table has no column 'click' (is it 'clicks'? name it: --user, --arm, --metric, ...);"
        " it has ['clicks']"
    )
    assert refusal(table.cells, "zzz") == "the table has no column 'zzz'; it has ['clicks']"


@pytest.mark.parametrize(
    ("value", "text", "said"),
    [(7, False, "is 7"), ("x", False, "is x"), (None, False, "has no value"),
     (" ", False, "has no value"), ("", True, "has no value"),
     (float("nan"), False, "has no value"), ("nan", True, "is nan"),
     ("nan", False, "has no value")],
)  # fmt: skip
def test_a_cell_in_words(value: Any, text: bool, said: str) -> None:
    assert (
        one([None, value, "y"] if isinstance(value, str) else [None, value], text=text).said("x", 1)
        == said
    )


def test_tables_of_all_kinds() -> None:
    frame = pd.DataFrame({"x": [1, 2]})
    table = as_rows(frame)
    assert as_rows(table) is table
    assert as_rows(pa.table({"x": [1, 2]})).cells("x").to_pylist() == [1, 2]
    batch = pa.RecordBatch.from_pydict({"x": [1, 2]})
    assert as_rows(batch).cells("x").to_pylist() == [1, 2]
    assert refusal(as_rows, [1]) == "a table is a pandas DataFrame or an Arrow table; got list"


def test_rows_are_called_as_their_table_calls_them() -> None:
    frame = pd.DataFrame({"x": [1, 2]}, index=[5, 9])
    assert as_rows(frame).place(1) == "row 9"
    assert as_rows(frame.rename_axis("id")).place(1) == "id 9"
    table = pa.table({"x": [1, 2]})
    assert (of_arrow(table).place(1), of_arrow(table, lambda row: f"line {row}").place(1)) == (
        "row 1", "line 1",
    )  # fmt: skip


def test_row_labels_are_no_columns() -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": [3, 4]}, index=pd.Index(["a", "b"], name="id"))
    for table in (as_rows(frame), of_arrow(pa.Table.from_pandas(frame))):
        assert (list(table.columns), list(table.labels)) == (["x", "y"], ["id"])
        assert table.cells("id").to_pylist() == ["a", "b"]
    named = of_arrow(pa.table({"x": [1], "y": [2]}), index=["y"])
    assert (list(named.columns), list(named.labels)) == (["x"], ["y"])
    two = frame.set_index("x", append=True)
    assert list(as_rows(two).labels) == ["id", "x"]
    assert as_rows(two).cells("x").to_pylist() == [1, 2]
    # A column of that name goes before the labels; labels without a name are none.
    assert list(as_rows(frame.assign(id=[7, 8])).labels) == []
    assert as_rows(frame.assign(id=[7, 8])).cells("id").to_pylist() == [7, 8]
    assert list(as_rows(frame.rename_axis(None)).labels) == []


def test_a_range_of_row_labels_is_written_out() -> None:
    frame = pd.DataFrame({"x": [1, 2, 3]}, index=pd.RangeIndex(4, 10, 2, name="id"))
    table = pa.Table.from_pandas(frame)
    found, names = rows.with_index(table)
    assert (names, found["id"].to_pylist()) == (("id",), [4, 6, 8])
    assert rows.with_index(table.slice(0, 2))[1] == (), "rows were taken away since"
    nameless = pa.Table.from_pandas(frame.rename_axis(None))
    assert rows.with_index(nameless)[1] == ()
    assert rows.with_index(pa.table({"x": [1]}))[1] == ()
    both = pa.Table.from_pandas(frame.assign(id=1).rename_axis("id"))
    assert both.column_names.count("id") == 1
    assert rows.with_index(both)[1] == ()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a", " b ", 3], ["a", "b", "3"]),
        ([None, "a", np.nan, ""], ["Unnamed: 0", "a", "Unnamed: 2", "Unnamed: 3"]),
        ([("a", "b"), ("a", ""), ("a", 1), ("", "c")], ["a_b", "a", "a_1", "c"]),
        (["Unnamed: 1", None], ["Unnamed: 1", "Unnamed: 1.1"]),
        ([None, "Unnamed: 0", "Unnamed: 0.1"], ["Unnamed: 0.1.1", "Unnamed: 0", "Unnamed: 0.1"]),
    ],
)
def test_names_of_columns(given: list[Any], names: list[str]) -> None:
    assert rows.named(given) == names
    assert all(rows.UNNAMED.fullmatch(name) for name in names if name.startswith("Unn"))


def test_two_columns_of_one_name_are_refused() -> None:
    assert refusal(rows.named, ["a", "b", "a", "b"]) == (
        "two columns are called 'a'; give every column a name of its own"
    )
    assert "'1'" in refusal(rows.named, [1, "1"])


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        (pd.Categorical(["b", None, "a", "b"]), ["b", None, "a", "b"]),
        (pd.Series([1, 2], dtype=">i4"), [1, 2]),
        (pd.Series([1.5, np.nan], dtype=">f8"), [1.5, np.nan]),
        (pd.arrays.SparseArray([0, 3]), [0, 3]),
        (pd.period_range("2026-01", periods=2, freq="M"), ["2026-01", "2026-02"]),
        (pd.interval_range(0, 2), ["(0, 1]", "(1, 2]"]),
        (pd.Series([1, "a", None, b"k", b"\xff"], dtype=object), ["1", "a", None, "k", "\\xff"]),
        (pd.Series([10**30, 5], dtype=object), [str(10**30), "5"]),
        (pd.Series(["a", None]), ["a", None]),
        (pd.Series([True, False]), [True, False]),
    ],
)
def test_cells_of_pandas(values: Any, cells: list[Any]) -> None:
    found = as_rows(pd.DataFrame({"x": values})).cells("x").to_pylist()
    assert str(found) == str(cells)


def test_cells_in_types_that_arrow_knows() -> None:
    who = uuid.UUID(int=5)
    for values, cells in (
        (pa.array(["a"], pa.string_view()), ["a"]),
        (pa.array([b"a"], pa.binary_view()), [b"a"]),
        (pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"])), ["a", "a"]),
        (pa.array([who.bytes], pa.uuid()), [str(who)]),
        (pa.chunked_array([pa.array([who.bytes], pa.uuid())]), [str(who)]),
        (pa.chunked_array([], pa.uuid()), []),
        (pa.array([1], pa.int8()), [1]),
    ):
        table = one(values)
        assert isinstance(table.cells("x"), pa.ChunkedArray)
        assert table.cells("x").to_pylist() == cells
    assert one(pa.array(["a"], pa.string_view())).cells("x").type == pa.large_string()
    assert one(pa.array([b"a"], pa.binary_view())).cells("x").type == pa.large_binary()
    bools = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))
    assert one(bools).cells("x").to_pylist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        (["b", "a", None, "b"], ("b", "a"), [0, 1, -1, 0]),
        (["b", " ", "a", "", None, "b"], ("b", "a"), [0, -1, 1, -1, -1, 0]),
        ([1.5, float("nan"), 2.0], ("1.5", "2.0"), [0, -1, 1]),
        ([7, None, 7], ("7",), [0, -1, 0]),
        (pa.array([None, None]), (), [-1, -1]),
        (pa.array([b"k", b"l"]), ("k", "l"), [0, 1]),
        (pa.array([b"k"], pa.large_binary()), ("k",), [0]),
        (pa.array([b"k"], pa.binary(1)), ("k",), [0]),
        (pa.array([0, 86_400_000_000], pa.timestamp("us")), ("1970-01-01", "1970-01-02"), [0, 1]),
        (pa.array([0, 1_500_000], pa.timestamp("us")),
         ("1970-01-01 00:00:00.000000", "1970-01-01 00:00:01.500000"), [0, 1]),
        (pa.array([0, 2_000_000], pa.timestamp("us")),
         ("1970-01-01 00:00:00", "1970-01-01 00:00:02"), [0, 1]),
        (pa.array([0], pa.timestamp("s", "UTC")), ("1970-01-01Z",), [0]),
        (pa.array([1], pa.date32()), ("1970-01-02",), [0]),
        (pa.array(["a", "b"]).dictionary_encode(), ("a", "b"), [0, 1]),
    ],
)  # fmt: skip
def test_labels_are_text_as_it_came(values: Any, names: tuple[str, ...], codes: list[int]) -> None:
    found = labels(one(values), "x")
    assert (found.names, found.codes.tolist()) == (names, codes)


@pytest.mark.parametrize(
    ("values", "levels"), [([*"abc"], 3), (["a", "b", None], 3), (["a", "b", "a"], 2)]
)
def test_labels_have_a_most_number(values: list[Any], levels: int) -> None:
    labels(one(values), "x", levels)
    assert refusal(labels, one(values), "x", levels - 1) == (
        f"column 'x' has {levels} levels, such as 'a'; a segment has at most {levels - 1}"
    )


def test_what_is_no_label_is_named() -> None:
    assert refusal(labels, one([[1], [2]]), "x") == (
        "column 'x' holds list<item: int64>, and not one value in each row"
    )
    assert refusal(labels, one([b"\xff"]), "x") == (
        "column 'x' holds bytes (binary) that are no UTF-8 text; write them as text (hexadecimal,"
        " base64)"
    )


@pytest.mark.parametrize(
    ("numbers", "distinct"),
    [([], True), ([4], True), ([1, 2, 9], True), ([1, 2, 9, 12], True),
     ([1, 2, 2], False), ([2, 1, 3], True),
     ([2, 1, 2], False), ([10**12, 1, 10**12], False), ([10**12, 1, 10**12 + 1], True),
     ([12, 1, 2], True), ([13, 1, 13], False), ([-5, -6, -5], False)],
)  # fmt: skip
def test_whether_somebody_is_there_twice(numbers: list[int], distinct: bool) -> None:
    assert Ids(np.array(numbers, dtype=np.int64)).distinct == distinct


def test_users_are_in_the_order_of_their_ids() -> None:
    assert Ids(np.array([30, -2, 30, 7])).ranks.tolist() == [2, 0, 2, 1]
    found = ids(one(["b", "a", "c", "a"]), "x")
    assert found.ranks.tolist() == [1, 0, 2, 0]
    assert [found.name(row) for row in range(4)] == ["b", "a", "c", "a"]
    assert Ids(np.array([30, -2])).name(1) == "-2"
    raw = ids(one([b"k", b"\xff"]), "x")
    assert (raw.name(0), raw.name(1)) == ("k", "ff")


@pytest.mark.parametrize(
    ("values", "text", "numbers"),
    [
        ([3, 1, 3], False, [3, 1, 3]),
        (["3", "10", "3"], True, [3, 10, 3]),
        (["0", "10"], True, [0, 10]),
        (["-3", "10"], True, [-3, 10]),
        (["3", "10", "3"], False, [0, 1, 0]),
        (["03", "3"], True, [0, 1]),
        (["0x3", "3"], True, [0, 1]),
        (["-03", "-3"], True, [0, 1]),
        (["-0", "0"], True, [0, 1]),
        (["3", "x"], True, [0, 1]),
        ([decimal.Decimal(10**20), decimal.Decimal(10**20 + 1)], False, [0, 1]),
    ],
)
def test_ids_are_numbers_only_where_they_are_written_as_such(
    values: list[Any], text: bool, numbers: list[int]
) -> None:
    assert ids(one(values, text=text), "x").numbers.tolist() == numbers


@pytest.mark.parametrize(
    "values", [["a", None, "b", None], ["a", " ", "b", ""], [1, None, 2, None]]
)
def test_rows_of_nobody_are_counted(values: list[Any]) -> None:
    assert refusal(ids, one(values, text=True), "x") == (
        "line 3: column 'x' has no value; such rows: 2; every row must be of somebody"
    )
