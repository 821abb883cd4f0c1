"""Unit tables by hand: who is in them, what is cut, and rows of units that have several."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.stats.frames import metric_of
from simulator.stats.unit_table import (
    Details,
    TableError,
    UnitTable,
    as_floats,
    in_few_bytes,
    keys_of,
    levels,
    mean_table,
)


def table(**more: Any) -> UnitTable:
    """Five units, each in one of two arms or in none."""
    given = {
        "unit": "user",
        "arms": ("a", "b"),
        "metrics": {name: metric_of(name, name) for name in ("x", "r", "gone")},
        "numerators": {"x": np.array([1, 2, 3, 4, 9]), "r": np.array([5.0, 6, 7, 8, 9])},
        "denominators": {"r": np.array([1, 2, 3, 4, 5])},
        "assigned": np.array([0, 1, 0, 1, -1]),
        "cluster": np.array([4, 4, 5, 6, 6]),
        "covariates": {"x": np.array([0.1, 0.2, 0.3, 0.4, 0.5]), "age": np.arange(5.0)},
        "groups": {"c": np.array(["k", "l", "k", "l", "m"])},
        "features": {"f": np.arange(5.0) * 2},
        "keys": np.arange(5, dtype=np.uint64),
    }
    return UnitTable(**given | more)


def twins(**more: Any) -> UnitTable:
    x = np.array([[1, 2, 3], [4, 5, 6]])
    return table(
        numerators={"x": x, "r": x + 0.5}, denominators={"r": x * 2}, assigned=None,
        cluster=None, covariates={"age": np.arange(3.0)}, groups={}, features={}, keys=None, **more,
    )  # fmt: skip


def refusal(do: Any, *given: Any) -> str:
    with pytest.raises(TableError) as error:
        do(*given)
    return str(error.value)


def test_sums_are_those_of_the_units_of_an_arm() -> None:
    assert (table().paired, table().n_units, twins().paired, twins().n_units) == (False, 5, True, 3)
    assert UnitTable("user", ("a", "b"), {}, {}).n_units == 0
    top, bottom = table().sums("x", "b")
    assert (top.tolist(), bottom, top.dtype) == ([2, 4], None, np.float64)
    top, bottom = table().sums("r", "a")
    assert bottom is not None
    assert (top.tolist(), bottom.tolist(), bottom.dtype) == ([5, 7], [1, 3], np.float64)
    top, bottom = twins().sums("r", "b")
    assert bottom is not None
    assert (top.tolist(), bottom.tolist()) == ([4.5, 5.5, 6.5], [8, 10, 12])
    assert refusal(table().sums, "gone", "a") == (
        "metric 'gone' has no data in this table; it has ['x', 'r']"
    )
    assert refusal(table().sums, "x", "z") == "no arm 'z' among ['a', 'b']"


@pytest.mark.parametrize("keep", [np.array([3, 0, 3]), np.array([True, False, False, True, False])])
def test_some_units(keep: np.ndarray) -> None:
    some = table(details={"x": Details((np.arange(5.0),), None, np.arange(5))}).where(keep)
    at = np.arange(5)[keep]
    assert some.numerators["x"].tolist() == [[1, 2, 3, 4, 9][i] for i in at]
    assert some.denominators["r"].tolist() == [i + 1 for i in at]
    for column in (some.assigned, some.cluster, some.keys):
        assert column is not None
    assert some.assigned.tolist() == [[0, 1, 0, 1, -1][i] for i in at]  # type: ignore[union-attr]
    assert some.cluster.tolist() == [[4, 4, 5, 6, 6][i] for i in at]  # type: ignore[union-attr]
    assert some.keys.tolist() == at.tolist()  # type: ignore[union-attr]
    assert some.covariates["age"].tolist() == some.details["x"].values[0].tolist() == at.tolist()
    assert some.features["f"].tolist() == (2 * at).tolist()
    assert some.groups["c"].tolist() == ["klklm"[i] for i in at]
    both = twins().where(np.array([2, 0]))
    assert both.numerators["x"].tolist() == [[3, 1], [6, 4]]
    assert (both.assigned, both.cluster, both.keys) == (None, None, None)


@pytest.mark.parametrize(
    ("share", "cut"),
    [
        (0.0, [1, 2, 3, 4, 9]),
        (0.19, [1, 2, 3, 4, 9]),
        (0.2, [1, 2, 3, 4, 4]),
        (0.49, [1, 2, 3, 3, 3]),
    ],
)
def test_the_largest_share_is_cut_to_the_next_value(share: float, cut: list[int]) -> None:
    found = table().winsorised({"x": share, "r": share})
    assert found.numerators["x"].tolist() == cut
    assert found.numerators["r"].tolist() == [5, 6, 7, 8, 9], "a ratio is left as it is"
    assert (table().winsorised({"r": 0.3}).numerators["x"] == table().numerators["x"]).all()


def test_one_bound_holds_for_all_arms() -> None:
    assert twins().winsorised({"x": 0.4}).numerators["x"].tolist() == [[1, 2, 3], [4, 4, 4]]
    plain = table()
    assert plain.winsorised({}) is plain
    assert plain.as_declared() is plain
    for share in (-0.01, 0.5, float("nan")):
        assert refusal(plain.winsorised, {"x": share}) == (
            f"winsorising: the share must be in [0, 0.5); got {share}"
        )


def test_rows_of_units_that_have_several() -> None:
    """Units 0, 1 and 3 have two, one and three rows; 2 has none."""
    rows = Details((np.arange(6.0), np.arange(6.0) * 10), np.array([0, 0, 1, 3, 3, 3]),
                   np.array([0, 0, 1, 0, 0, 0]))  # fmt: skip
    columns, unit = rows.of_arm(0)
    assert [column.tolist() for column in columns] == [[0, 1, 3, 4, 5], [0, 10, 30, 40, 50]]
    assert unit is not None
    assert unit.tolist() == [0, 0, 1, 1, 1]
    for keep in (np.array([3, 1, 2, 3]), np.array([3, 1, 2, 3])[[0, 1]]):
        some = rows.where(keep, 4)
        of_unit = {0: [0, 1], 1: [2], 2: [], 3: [3, 4, 5]}
        assert some.values[0].tolist() == [row for u in keep for row in of_unit[u]]
        assert some.unit is not None
        assert some.unit.tolist() == [i for i, u in enumerate(keep) for _ in of_unit[u]]
        assert some.assigned is not None
        assert some.assigned.tolist() == [int(u == 1) for u in keep for _ in of_unit[u]]
    masked = rows.where(np.array([True, False, True, True]), 4)
    assert masked.values[1].tolist() == [0, 10, 30, 40, 50]
    assert masked.unit is not None
    assert masked.unit.tolist() == [0, 0, 2, 2, 2]


def test_rows_that_are_their_own_units() -> None:
    rows = Details((np.arange(4.0),), None, np.array([1, 0, 1, 0]))
    columns, unit = rows.of_arm(1)
    assert (columns[0].tolist(), unit) == ([0, 2], None)
    both = Details((np.arange(6.0).reshape(2, 3),))
    columns, unit = both.of_arm(1)
    assert (columns[0].tolist(), unit) == ([3, 4, 5], None)
    assert both.where(np.array([2, 2]), 3).values[0].tolist() == [[2, 2], [5, 5]]
    together = rows.of_clusters(np.array([2, 0, 1, 0]))
    assert together.values[0].tolist() == [1, 3, 2, 0]
    assert together.unit is not None
    assert together.assigned is not None
    assert (together.unit.tolist(), together.assigned.tolist()) == ([0, 0, 1, 2], [0, 0, 1, 1])
    assert both.of_clusters(np.array([1, 0, 1])).values[0].tolist() == [[1, 0, 2], [4, 3, 5]]
    assert both.of_clusters(np.array([1, 0, 1])).assigned is None


def test_a_figure_is_of_its_rows_or_of_the_units_sums() -> None:
    rows = Details((np.arange(5.0),))
    assert table(details={"x": rows}).details_of("x") is rows
    found = table().details_of("x")
    assert found.values[0].tolist() == [1, 2, 3, 4, 9]
    assert found.values[0].dtype == np.float64
    assert found.unit is None
    assert found.assigned is not None
    assert found.assigned.tolist() == [0, 1, 0, 1, -1]


def test_a_frame_has_a_row_for_every_unit_of_every_arm() -> None:
    frame = table().frame()
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert frame.to_dict("list") == {
        "arm": ["a", "a", "b", "b"], "unit": [0, 2, 1, 3], "x": [1.0, 3, 2, 4],
        "r": [5.0, 7, 6, 8], "r.denominator": [1.0, 3, 2, 4], "x.before": [0.1, 0.3, 0.2, 0.4],
        "age": [0.0, 2, 1, 3], "c": ["k", "k", "l", "l"],
    }  # fmt: skip
    assert twins().frame().to_dict("list") == {
        "arm": ["a"] * 3 + ["b"] * 3, "unit": [0, 1, 2] * 2, "x": [1.0, 2, 3, 4, 5, 6],
        "r": [1.5, 2.5, 3.5, 4.5, 5.5, 6.5], "r.denominator": [2.0, 4, 6, 8, 10, 12],
        "age": [0.0, 1, 2] * 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "kind"),
    [([127, -128], np.int8), ([128], np.int16), ([-129], np.int16), ([0], np.int8),
     ([32_767, -32_768], np.int16), ([32_768], np.int32), ([2**31 - 1], np.int32),
     ([2**31], np.int64)],
)  # fmt: skip
def test_whole_numbers_take_few_bytes(values: list[int], kind: Any) -> None:
    found = in_few_bytes(np.array(values, dtype=np.int64))
    assert (found.dtype, found.tolist()) == (kind, values)
    assert in_few_bytes(np.array([], dtype=np.int64)).dtype == np.int64
    assert in_few_bytes(np.array([True])).dtype == np.bool_
    floats = np.array([1.0])
    assert in_few_bytes(floats) is floats
    assert as_floats(floats) is floats


def test_levels_keys_and_means() -> None:
    names, index = levels(np.array([30, 10, 30, 20]))
    assert (names.tolist(), index.tolist()) == ([10, 20, 30], [2, 0, 2, 1])
    expected = [
        int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        for name in ("ab", "é")
    ]
    assert keys_of(["ab", "é"]).tolist() == expected
    three = replace(twins(), numerators={n: v * 3 for n, v in twins().numerators.items()})
    both = mean_table([twins(), three])
    assert both.numerators["x"].tolist() == [[2, 4, 6], [8, 10, 12]]
    assert both.denominators["r"].tolist() == [[2, 4, 6], [8, 10, 12]]
    assert both.arms == ("a", "b")
