"""Tables of moments: every rule on both sides of its limit, and what each column was taken for."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator.stats.aggregates import Aggregates
from simulator.stats.moment_sheets import from_moments
from simulator.stats.quantities import Quantity
from simulator.stats.rows import as_rows
from simulator.stats.unit_table import TableError, Use

NAN = float("nan")


def two(**columns: Any) -> pd.DataFrame:
    """Two arms, a row each."""
    plain = {"arm": ["c", "t"], "n": [10, 20], "x_mean": [1.0, 2.0], "x_variance": [4.0, 5.0]}
    given = plain | columns
    return pd.DataFrame({k: v for k, v in given.items() if v is not None})


def sums(**columns: Any) -> pd.DataFrame:
    means = {"x_mean": None, "x_variance": None}
    return two(**means | {"x_sum": [10.0, 40.0], "x_sum_squares": [46.0, 175.0]} | columns)


def eight(**columns: Any) -> pd.DataFrame:
    """Two arms, two looks and two countries, with a past of x and products with it."""
    frame = pd.DataFrame(product("ct", (1, 2), ("de", "jp")), columns=["arm", "day", "country"])
    frame["n"] = [10, 11, 20, 22, 12, 13, 24, 26]
    for k, name in enumerate(("x", "y", "x_before")):
        frame[f"{name}_mean"] = np.arange(8) / 4 + k + 1
        frame[f"{name}_variance"] = 2.0 + k
    frame["x_y_covariance"] = 0.5
    frame["x_x_before_covariance"] = 1.0
    return frame.assign(**columns)


def read(table: pd.DataFrame, **more: Any) -> Aggregates:
    return from_moments(as_rows(table), **more)


def refusal(table: pd.DataFrame, **more: Any) -> str:
    with pytest.raises(TableError) as error:
        read(table, **more)
    return str(error.value)


def put(table: pd.DataFrame, row: int, column: str, value: Any) -> pd.DataFrame:
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    return table


def test_moments_are_in_the_places_of_their_arms_looks_and_levels() -> None:
    table = eight().sample(frac=1.0, random_state=3).sort_values("arm", ignore_index=True)
    found = read(table)
    assert (found.arms, found.looks, found.variables) == (
        ("c", "t"), ("1", "2"), ("x", "y", "x_before"),
    )  # fmt: skip
    assert found.cells.n[:, :, 0].tolist() == [[21, 42], [25, 50]]
    assert found.shares.tolist() == [0.5, 1.0]
    assert (found.n_users, found.paired) == ({"c": 42, "t": 50}, False)
    for level, n, mean in (("de", [20, 24], [1.5, 2.5]), ("jp", [22, 26], [1.75, 2.75])):
        own = found.groups["country"][level]
        assert own.n[:, 0].tolist() == n
        assert own.mean[:, 0].tolist() == mean
        assert own.cov[0].tolist() == [[2.0, 0.5, 1.0], [0.5, 3.0, NAN], [1.0, NAN, 4.0]] or (
            np.array_equal(own.cov[0], [[2, 0.5, 1], [0.5, 3, NAN], [1, NAN, 4]], equal_nan=True)
        )
    assert list(found.groups["country"]) == ["de", "jp"]
    whole = (20 * 1.5 + 22 * 1.75) / 42
    assert found.cells.mean[0, 1, 0] == pytest.approx(whole)
    between = 20 * (1.5 - whole) ** 2 + 22 * (1.75 - whole) ** 2
    assert found.cells.cov[0, 1, 0, 0] == pytest.approx((19 * 2 + 21 * 2 + between) / 41)


def test_what_every_column_was_taken_for() -> None:
    found = read(eight(remark=[*"1234567", "x"], rank=range(8)))
    assert found.columns == (
        Use("arm", "arm"),
        Use("day", "look", "2 looks, from 1 to 2"),
        Use("country", "segment", "2 levels"),
        Use("n", "count"),
        Use("x_mean", "moments"),
        Use("x_variance", "moments"),
        Use("y_mean", "moments"),
        Use("y_variance", "moments"),
        Use("x_before_mean", "covariate"),
        Use("x_before_variance", "covariate"),
        Use("x_y_covariance", "moments"),
        Use("x_x_before_covariance", "moments"),
        Use("remark", "left out", "no moment of a variable"),
        Use("rank", "left out", "no moment of a variable"),
    )
    assert (found.covariates, found.parts) == (
        {"x": ("x_before",)},
        {"x": ("x", None), "y": ("y", None)},
    )


def role(found: Aggregates, column: str) -> tuple[str, str]:
    (use,) = [use for use in found.columns if use.column == column]
    return use.role, use.note


@pytest.mark.parametrize("name", ["n", "users", "count"])
def test_users_are_counted_by_one_column(name: str) -> None:
    found = read(two().rename(columns={"n": name}))
    assert role(found, name) == ("count", "")
    assert found.cells.n[:, 0, 0].tolist() == [10, 20]


def test_the_first_of_several_counts_is_taken() -> None:
    found = read(two(users=[7, 8], count=[3, 4]))
    assert found.cells.n[:, 0, 0].tolist() == [10, 20]
    assert role(found, "users") == ("left out", "no moment of a variable")


@pytest.mark.parametrize(
    ("looks", "order", "shares"),
    [
        (["10", "9", "8"], ("8", "9", "10"), [1 / 3, 2 / 3, 1]),
        (["0.5", "4", "1"], ("0.5", "1", "4"), [0.125, 0.25, 1]),
        (["2026-05-04", "2026-05-02", "2026-05-01"],
         ("2026-05-01", "2026-05-02", "2026-05-04"), [0.25, 0.5, 1]),
        (["2026-05-02T12:00:00", "2026-05-01T12:00:00", "2026-05-01T18:00:00"],
         ("2026-05-01T12:00:00", "2026-05-01T18:00:00", "2026-05-02T12:00:00"), [0, 0.25, 1]),
    ],
)  # fmt: skip
def test_looks_are_in_the_order_of_time(
    looks: list[str], order: tuple[str, ...], shares: list[float]
) -> None:
    table = pd.DataFrame({"arm": [*"ccc", *"ttt"], "when": looks * 2, "n": 9})
    table["x_mean"], table["x_variance"] = [1.0, 2, 3, 4, 5, 6], 1.0
    found = read(table, look="when")
    assert found.looks == order
    assert found.shares == pytest.approx(shares)
    by_look = dict(zip(looks, (1.0, 2.0, 3.0), strict=True))
    assert found.cells.mean[0, :, 0].tolist() == [by_look[name] for name in order]
    assert role(found, "when") == ("look", f"3 looks, from {order[0]} to {order[2]}")


def test_without_looks_there_is_one() -> None:
    found = read(two())
    assert (found.looks, found.shares.tolist(), found.groups) == (("",), [1.0], {})


def test_segments_are_columns_of_text_or_those_that_are_named() -> None:
    table = eight(size=["s", "l"] * 4, code=[1, 2] * 4)
    assert set(read(table).groups) == {"country", "size"}
    named = read(table.drop(columns="country"), groups=["code"])
    assert (set(named.groups), role(named, "size")) == (
        {"code"},
        ("left out", "no moment of a variable"),
    )
    blank = read(eight(country=["de", None] * 4))
    assert list(blank.groups["country"]) == ["(blank)", "de"]
    assert role(blank, "country") == ("segment", "2 levels")


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        (two(arm=["c", None]), {}, "row 1: column 'arm' has no value; every row must be of an arm"),
        (two(arm=["c", "c"]), {},
         "column 'arm' has the arms ['c']: a comparison needs at least two"),
        (put(eight(), 2, "day", None), {},
         "row 2: column 'day' has no value; every row must be of a look"),
        (two(day=["soon", "later"]), {},
         "column 'day': looks are numbers (1, 2, ...), dates or times (2026-05-01); got 'soon'"
         " (Invalid isoformat string: 'soon')"),
        (eight(), {"groups": ["n"]},
         "column 'n' is named as a segment, and is the column of arms, looks or numbers; name"
         " another one"),
        (eight(country=["2026-05-01", "2026-05-02"] * 4), {},
         "column 'country' holds dates, such as '2026-05-01', and is not named: is it that of"
         " looks (--day country), or a segment (--segment country)?"),
        (two(n=["", "many"]), {}, "row 1: column 'n' is 'many': must be a number"),
        (put(eight().astype({"x_mean": str}), 3, "x_mean", "z"), {},
         "row 3: column 'x_mean' is 'z', no number, as most of the column are; such values: 1;"
         " write plain numbers, such as 1234.5"),
        (two(n=["", " "]), {}, "row 0: column 'n' is '': must be a number"),
        (two(n=[10.0, NAN]), {}, "row 1: column 'n' has no value: must be a number"),
        (two(n=[NAN, NAN]), {}, "row 0: column 'n' has no value: must be a number (2 such rows)"),
        (two(n=[10, -1]), {}, "row 1: column 'n' is -1: users are a whole number, 0 or more"),
        (two(n=[10, 9.5]), {}, "row 1: column 'n' is 9.5: users are a whole number, 0 or more"),
        (two(x_mean=[1.0, np.inf]), {}, "row 1: column 'x_mean' is inf: must be a number"),
        (two(x_mean=[1.0, NAN]), {}, "row 1: column 'x_mean' has no value: users have a mean"),
        (two(x_mean=[1.0, NAN], n=[10, 1]), {},
         "row 1: column 'x_mean' has no value: users have a mean"),
        (two(x_variance=[4.0, -0.1]), {},
         "row 1: column 'x_variance' is -0.1: a variance is 0 or more"),
        (two(x_variance=[4.0, NAN]), {},
         "row 1: column 'x_variance' has no value: two users and more have a variance"),
        (two(x_variance=[4.0, NAN], n=[10, 2]), {},
         "row 1: column 'x_variance' has no value: two users and more have a variance"),
        (two(x_min=[1.0, 2.1]), {}, "row 1: column 'x_min' is 2.1: the mean of x is below it"),
        (two(x_max=[0.9, 2.0]), {}, "row 0: column 'x_max' is 0.9: the mean of x is above it"),
        (two(x_min=[0.0, 0.0], x_max=[4.0, 4.0]), {},
         "row 0: column 'x_max' is 4.0: with x_min and the mean it leaves x less variance than is"
         " given (2 such rows)"),
        (sums(x_sum=[10.0, NAN]), {}, "row 1: column 'x_sum' has no value: users have a sum"),
        (sums(x_sum=[10.0, 1.0], n=[10, 0]), {},
         "row 1: column 'x_sum' is 1.0: no users have a sum of 0"),
        (sums(x_sum_squares=[46.0, -1.0], x_sum=[10.0, 0.0]), {},
         "row 1: column 'x_sum_squares' is -1.0: a sum of squares is 0 or more"),
        (sums(x_sum_squares=[46.0, 79.0]), {},
         "row 1: column 'x_sum_squares' is 79.0: a sum of squares is at least x_sum^2 / n"),
        (two(x_mean=[1e61, 2.0]), {},
         "row 0: column 'x_mean' is 1e+61: means and standard deviations must be between 1e-60 and"
         " 1e+60, since intervals need their fourth power; give them in another unit"),
        (two(x_mean=[0.0, 1e-61]), {},
         "row 1: column 'x_mean' is 1e-61: means and standard deviations must be between 1e-60 and"
         " 1e+60, since intervals need their fourth power; give them in another unit"),
        (two(x_variance=[1.0, 1e121]), {},
         "row 1: column 'x_variance' is 1e+121: means and standard deviations must be between"
         " 1e-60 and 1e+60, since intervals need their fourth power; give them in another unit"),
        (sums(x_sum=[1e62, 0.0], x_sum_squares=[1e124, 0.0]), {},
         "row 0: column 'x_sum' is 1e+62: means and standard deviations must be between 1e-60 and"
         " 1e+60, since intervals need their fourth power; give them in another unit"),
        (two(arm=["c", "c"], day=[1, 2]).assign(arm=["c", "t"], day=[1, 1]).iloc[[0, 0, 1]], {},
         "row 0: arm 'c' is there twice (row 0 is the first): one row for each arm, look and cell"
         " of the segments; merge them, or name the column of looks (--day) or of segments"
         " (--segment)"),
        (put(eight(), 3, "country", "de"), {},
         "row 3: arm 'c' at 2 in de is there twice (row 2 is the first): one row for each arm,"
         " look and cell of the segments; merge them, or name the column of looks (--day) or of"
         " segments (--segment)"),
        (eight().drop(index=6), {},
         "arm 't' at 2 in de has no row, but one at the look before: moments are of all users so"
         " far, and nobody leaves"),
        (put(eight(), 7, "n", 1).drop(columns="country").iloc[[1, 3, 5, 7]], {},
         "row 7: column 'n' falls from 13 to 1 in arm 't' at 2: moments must be of all users so"
         " far, whose number does not fall; sum up the days, users once"),
        (eight(), {"covariates": ["z"]},
         "no variable 'z' in this table; it has ['x', 'y', 'x_before'] (a variable has columns"
         " _sum and _sum_squares, or _mean and _variance)"),
        (eight(), {"metrics": ["z"]},
         "no variable 'z' in this table; it has ['x', 'y', 'x_before'] (a variable has columns"
         " _sum and _sum_squares, or _mean and _variance)"),
        (eight(), {"metrics": {"r": ("x", "z")}},
         "no variable 'z' in this table; it has ['x', 'y', 'x_before'] (a variable has columns"
         " _sum and _sum_squares, or _mean and _variance)"),
        (eight(), {"metrics": {"r": ("y", "x")}, "covariates": ["x"]},
         "variable 'x' is named as a metric and as a covariate: what the arms may change is no"
         " covariate; name it as one"),
        (eight(), {"metrics": {"q": Quantity(np.mean, "x")}},
         "metric 'q': a quantity needs rows, not moments"),
        (two(), {"covariates": ["x"]},
         "the table has no metric: all its variables are covariates"),
        (eight().drop(columns="x_x_before_covariance"),
         {"metrics": ["x", "y"], "covariates": ["x_before"]},
         "covariate 'x_before' has no product with 'x': give a column x_x_before_sum_product, or"
         " _covariance, and those with the other covariates and a denominator"),
        (eight().drop(columns="x_y_covariance"), {"metrics": {"x": "x", "r": ("x", "y")}},
         "metric 'r' is a ratio, whose variance needs the product of both: give a column"
         " x_y_sum_product, or x_y_covariance"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(table: pd.DataFrame, more: dict[str, Any], message: str) -> None:
    assert refusal(table, **more) == message


@pytest.mark.parametrize(
    "table",
    [
        two(n=[10, 0], x_mean=[1.0, NAN], x_variance=[4.0, NAN]),
        two(n=[10, 1], x_variance=[4.0, NAN]),
        two(x_variance=[4.0, 0.0]),
        two(x_min=[1.0, 2.0]),
        two(x_max=[1.0, 2.0], x_min=[1.0, 2.0], x_variance=[0.0, 0.0]),
        two(x_min=[1.0 + 0.9e-9, 2.0 + 1.9e-9]),
        two(x_max=[1.0 - 0.9e-9, 2.0 - 1.9e-9]),
        # (3 - 1) (1 - 0) 10 / 9 and (3 - 2) (2 - 0) 20 / 19, and what rounding adds to them.
        two(x_min=[0.0, 0.0], x_max=[3.0, 3.0], x_variance=[20 / 9, 40 / 19]),
        two(x_min=[0.0, 0.0], x_max=[3.0, 3.0], x_variance=[20 / 9 + 8.9e-9, 40 / 19 + 8.9e-9]),
        two(x_mean=[0.0, 0.0], x_variance=[0.0, 0.0]),
        two(x_mean=[1e60, 2.0], x_variance=[1.0, 1e120]),
        two(x_mean=[1e-60, 0.0], x_variance=[0.0, 1e-120]),
        sums(n=[10, 0], x_sum=[10.0, 0.0], x_sum_squares=[46.0, 0.0]),
        sums(n=[10, 0], x_sum=[10.0, NAN], x_sum_squares=[46.0, NAN]),
        sums(x_sum_squares=[10.0, 80.0]),
        sums(x_sum_squares=[10.0, 80.0 * (1 + 1.1e-10)]),
        sums(x_sum=[0.0, 0.0], x_sum_squares=[0.0, 0.0]),
    ],
)  # fmt: skip
def test_what_can_be_is_read(table: pd.DataFrame) -> None:
    read(table)


@pytest.mark.parametrize("past", [1.1, -1.1])
def test_bounds_have_some_rounding_and_no_more(past: float) -> None:
    side = "min" if past > 0 else "max"
    table = two(**{f"x_{side}": [1.0, 2.0 + past * 2e-9]})
    assert "the mean of x is" in refusal(table)
    both = two(x_min=[0.0, 0.0], x_max=[3.0, 3.0], x_variance=[1.0, 40 / 19 + 9.2e-9])
    assert "less variance than is given" in refusal(both)


@pytest.mark.parametrize("left", [0.9e-10, -0.9e-10, -0.9e-9])
def test_a_variance_that_rounding_has_eaten_is_none(left: float) -> None:
    table = sums(x_sum_squares=[46.0, 80.0 * (1 + left)])
    assert refusal(table).endswith(
        "less x_sum^2 / n it leaves too few digits for a variance; export x_mean and x_variance"
    )


def test_means_and_variances_of_sums() -> None:
    found = read(sums(n=[10, 1], x_sum=[10.0, 3.0], x_sum_squares=[46.0, 9.0])).cells
    assert found.mean[:, 0, 0].tolist() == [1.0, 3.0]
    assert found.cov[0, 0, 0, 0] == pytest.approx((46 - 10) / 9)
    assert np.isnan(found.cov[1, 0, 0, 0]), "one user has no variance"
    none = read(sums(n=[10, 0], x_sum=[10.0, 0.0], x_sum_squares=[46.0, 0.0])).cells
    assert np.isnan(none.mean[1, 0, 0])


def test_a_cell_in_which_nobody_is_yet_may_be_left_out() -> None:
    found = read(eight().drop(index=[1, 5]))
    assert found.cells.n[:, :, 0].tolist() == [[10, 42], [12, 50]]
    assert found.cells.mean[0, 0].tolist() == [1.0, 2.0, 3.0]


def test_segments_are_those_of_the_last_look() -> None:
    table = eight()
    third = table[table.day == 2].assign(day=3)
    third["n"] += 7
    third["x_mean"] += 5.0
    found = read(pd.concat((table, third), ignore_index=True))
    own = found.groups["country"]["de"]
    assert (own.n[:, 0].tolist(), own.mean[:, 0].tolist()) == ([27, 31], [6.5, 7.5])
    assert own.cov[:, 0, 1].tolist() == [0.5, 0.5]
    assert own.previous.shape == own.cov.shape == (2, 3, 3)


def test_users_who_leave_are_named_in_whatever_row_they_are() -> None:
    table = two(day=[2, 2], n=[5, 20])
    table = pd.concat((table, two(day=[1, 1])), ignore_index=True)
    assert refusal(table).startswith("row 0: column 'n' falls from 10 to 5 in arm 'c' at 2:")


def twins(**columns: Any) -> pd.DataFrame:
    both = {"n": [20, 20], "x_x_in_t_covariance": [1.0, NAN]}
    return two(**both | columns)


def test_twins_have_one_past_that_cancels() -> None:
    past = {"x_before_mean": [1.0, 1.0], "x_before_variance": [2.0, 2.0]}
    found = read(twins(**past))
    assert (found.paired, found.covariates) == (True, {})
    note = "twins have the same past, and it cancels"
    assert role(found, "x_before_mean") == role(found, "x_before_variance") == ("left out", note)
    m = found.moments("x", "c", "t")
    assert m is not None
    assert (m.control, m.treatment, m.variance, m.paired) == (1.0, 2.0, (4 + 5 - 2) / 20, True)
    assert refusal(twins(**past), covariates=["x_before"]) == (
        "covariate 'x_before': a paired table needs none, twins have the same past and it cancels"
    )
    assert read(twins(**past), covariates=[], metrics=["x"]).paired
    assert refusal(twins(n=[20, 21])) == (
        "row 1: column 'n' has 21 in arm 't' and 20 in arm 'c': products between arms are of users"
        " who are in every arm; of a split test leave them out"
    )


def test_a_past_without_a_product_adjusts_nothing() -> None:
    lacking = read(eight().drop(columns="x_x_before_covariance"))
    note = "no product with x, so that nothing is adjusted for it"
    assert lacking.covariates == {}
    assert role(lacking, "x_before_mean") == ("left out", note)
    # The past of a part of a metric is that of no metric.
    table = eight(x_y_covariance=0.5)
    part = read(table, metrics={"r": ("x", "y")})
    assert part.covariates == {}
    note = "the past of 'x', which is no metric by itself"
    assert role(part, "x_before_mean") == ("left out", note)
    assert role(read(table, metrics=["y"]), "x_before_mean") == ("left out", note)
    named = read(table, metrics=["y"], covariates=["x_before"])
    assert (named.covariates, role(named, "x_before_mean")) == ({}, ("left out", note))


def test_a_past_of_nobody_adjusts_all() -> None:
    """Of two metrics that it may adjust, it does those that it has a product with."""
    table = eight().rename(columns=lambda name: name.replace("x_before", "age"))
    table["y_age_covariance"] = 0.3
    both = read(table, metrics=["x", "y"], covariates=["age"])
    assert both.covariates == {"x": ("age",), "y": ("age",)}
    assert role(both, "age_mean") == ("covariate", "")
    assert refusal(
        table.drop(columns="y_age_covariance"), metrics=["x", "y"], covariates=["age"]
    ) == (
        "covariate 'age' has no product with 'y': give a column y_age_sum_product, or"
        " _covariance, and those with the other covariates and a denominator"
    )
    past = table.rename(columns=lambda name: name.replace("age", "age_before"))
    some = read(past.drop(columns="y_age_before_covariance"))
    assert some.covariates == {"x": ("age_before",)}
    assert role(some, "age_before_mean") == (
        "covariate", "no product with y, so that nothing is adjusted for it",
    )  # fmt: skip


def test_a_ratio_of_nobody_needs_no_product() -> None:
    table = two(y_mean=[1.0, NAN], y_variance=[1.0, NAN], n=[10, 1], x_variance=[4.0, NAN])
    table["y_mean"] = [1.0, 1.0]
    found = read(table.assign(n=[1, 1], x_variance=NAN, y_variance=NAN), metrics={"r": ("x", "y")})
    assert found.parts == {"r": ("x", "y")}
    assert "whose variance needs the product" in refusal(
        table.assign(n=[2, 2], x_variance=1.0, y_variance=1.0), metrics={"r": ("x", "y")}
    )
