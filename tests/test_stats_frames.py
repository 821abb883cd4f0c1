"""Frames: who, where and which segment is text as it came, whatever the way in; every column is
accounted for.
"""

from __future__ import annotations

import decimal
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from simulator.log.metrics import Declared
from simulator.report import user_table as tables
from simulator.stats.frames import from_frame, looks_from_frame, metric_of
from simulator.stats.quantities import Quantity
from simulator.stats.segments import DEPENDENT, dependence
from simulator.stats.unit_table import TableError, UnitTable, keys_of, levels

N = 60
WAYS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda f: f,
    "arrow": lambda f: pa.Table.from_pandas(f),
}


@pytest.fixture(params=list(WAYS))
def wrap(request: pytest.FixtureRequest) -> Callable[[pd.DataFrame], Any]:
    return WAYS[request.param]


def users(**columns: Any) -> pd.DataFrame:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "user": range(N),
            "arm": ["control", "new"] * (N // 2),
            "clicks": random.poisson(5, N),
            "spent": random.gamma(2, 9, N),
        }
    )
    return frame.assign(**columns)


def said(table: UnitTable) -> dict[str, tuple[str, str]]:
    return {use.column: (use.role, use.note) for use in table.columns}


def alike(ids: Callable[[int], str], other: Callable[[int], str]) -> list[str]:
    """Ids of which every two differ, but not as numbers."""
    return [other(i // 2) if i % 2 else ids(i // 2) for i in range(N)]


@pytest.mark.parametrize(
    "ids",
    [
        alike(str, lambda i: f"{i:04d}"),
        alike(lambda i: f"{i}000", lambda i: f"{i}e3"),
        alike(str, hex),
        alike(str, lambda i: f"{i}.0"),
        alike(str, lambda i: f"+{i}"),
        [str(10**25 + i) for i in range(N)],
        ["nan", "NA", "null", "None", "NaN", *map(str, range(5, N))],
        [2**64 - 1 - i for i in range(N)],
        [2**53 + i for i in range(N)],
        [decimal.Decimal(10**20 + i) for i in range(N)],
        [uuid.UUID(int=i) for i in range(N)],
        [b"\xff%d" % i for i in range(N)],
        pd.Categorical([f"u{i}" for i in range(N)]),
        pd.date_range("2024-01-01", periods=N, freq="ns"),
        pd.array(2**60 + np.arange(N), dtype="Int64"),
    ],
)
def test_users_are_who_they_are(ids: Any, wrap: Callable[[pd.DataFrame], Any]) -> None:
    table = from_frame(wrap(users(user=ids)))
    assert (table.paired, table.n_units) == (False, N)


def test_ids_that_arrow_has_no_type_for_are_text() -> None:
    assert not from_frame(users(user=[10**30 + i for i in range(N)])).paired
    mixed = [i if i % 2 else str(i) for i in range(N)]
    assert not from_frame(users(user=mixed)).paired
    with pytest.raises(TableError, match=r"user 7 has several rows \(row 8"):
        from_frame(users(user=[*range(8), "7", *range(9, N)]))
    for missing in (None, np.nan, pd.NA):
        with pytest.raises(TableError, match="row 5: column 'user' has no value"):
            from_frame(users(user=[*range(5), missing, *map(str, range(6, N))]))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NaT, pd.NA, "", "  "])
@pytest.mark.parametrize("column", ["user", "arm"])
def test_nobody_and_nowhere_are_refused_with_their_row(column: str, missing: Any) -> None:
    frame = users()
    frame[column] = frame[column].astype(object)
    frame.loc[5, column] = missing
    with pytest.raises(TableError, match=f"row 5: column '{column}' has no value"):
        from_frame(frame)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NaT, pd.NA, "", "  "])
def test_a_blank_segment_is_a_segment(missing: Any) -> None:
    country = np.array(["de", "NA", missing] * (N // 3), dtype=object)
    table = from_frame(users(country=country))
    assert table.groups["country"].tolist() == ["de", "NA", "(blank)"] * (N // 3)
    assert said(table)["country"] == ("segment", "3 levels: (blank), NA, de")


@pytest.mark.parametrize(
    ("arms", "names"),
    [
        ([b"control", b"new"], ("control", "new")),
        (["0", "00"], ("0", "00")),
        ([False, True], ("False", "True")),
        ([0, 1], ("0", "1")),
        (["True", "true"], ("True", "true")),
    ],
)
def test_arms_are_text(
    arms: list[Any], names: tuple[str, ...], wrap: Callable[[pd.DataFrame], Any]
) -> None:
    assert from_frame(wrap(users(arm=arms * (N // 2)))).arms == names


def test_bytes_that_are_no_text_are_refused_for_arms() -> None:
    with pytest.raises(
        TableError, match=r"column 'arm' holds bytes \(binary\) that are no UTF-8 text"
    ):
        from_frame(users(arm=[b"control", b"\xff"] * (N // 2)))


@pytest.mark.parametrize(
    "dress",
    [
        lambda x: [decimal.Decimal(str(v)) for v in x],
        lambda x: [f"${v}" for v in x],
        lambda x: [str(v) for v in x],
        lambda x: pd.Series([str(v) for v in x]).astype("category"),
        lambda x: pd.array(x, dtype="Float64"),
        lambda x: pd.Series(x).astype(object),
        lambda x: pd.Series(x).astype(">f8"),
        lambda x: pd.arrays.SparseArray(x),
        lambda x: [v if i % 2 else decimal.Decimal(str(v)) for i, v in enumerate(x)],
    ],
)
def test_a_metric_in_another_dress_is_the_metric(dress: Callable[[Any], Any]) -> None:
    plain = users()
    pd.testing.assert_frame_equal(
        tables.lifts(plain.assign(spent=dress(plain.spent))), tables.lifts(plain), rtol=1e-9
    )


def test_an_outcome_of_yes_and_no_is_a_metric_and_never_conditioned_on(
    wrap: Callable[[pd.DataFrame], Any],
) -> None:
    bought = np.arange(N) % 3 == 0
    expected = from_frame(users(bought=bought.astype(int))).numerators["bought"]
    for values in (
        bought,
        pd.array(bought, dtype="boolean"),
        np.where(bought, "yes", "no"),
        pd.Series(bought).map({True: "True", False: "False"}),
    ):
        table = from_frame(wrap(users(bought=values)))
        assert table.numerators["bought"].tolist() == expected.tolist()
        assert table.groups == {}
        assert said(table)["bought"][0] == "metric"
    named = from_frame(wrap(users(bought=bought)), groups=["bought"])
    assert (list(named.numerators), set(named.groups["bought"])) == (
        ["clicks", "spent"],
        {"True", "False"},
    )


def test_what_is_no_metric_is_named_with_its_reason(wrap: Callable[[pd.DataFrame], Any]) -> None:
    frame = users(
        ids=[f"x{i}" for i in range(N)],
        zip=["01234", "99999"] * (N // 2),
        empty=[None] * N,
        same="x",
        rank=np.arange(N) + 7,
        tags=[[1]] * N,
        day=pd.to_datetime(["2024-01-01", "2024-02-01"] * (N // 2)),
        spent_before=1.5,
        age=pd.Categorical([1, 2, 3] * (N // 3)),
    ).rename(columns={"ids": "Unnamed: 0"})
    uses = said(from_frame(wrap(frame)))
    assert uses == {
        "user": ("user", ""),
        "arm": ("arm", ""),
        "clicks": ("metric", ""),
        "spent": ("metric", ""),
        "Unnamed: 0": ("left out", "it has no name"),
        "zip": ("segment", "numbers with leading zeros are labels; 2 levels: 01234, 99999"),
        "empty": ("left out", "all blank"),
        "same": ("left out", "it is 'x' in every row"),
        "rank": ("left out", "it numbers the rows"),
        "tags": ("left out", uses["tags"][1]),
        "day": ("segment", "2 levels: 2024-01-01, 2024-02-01"),
        "spent_before": ("covariate", ""),
        "age": ("segment", "3 levels: 1, 2, 3"),
    }
    assert "not one value in each row" in uses["tags"][1]
    asked = said(from_frame(wrap(frame), metrics=["clicks"]))
    assert asked["spent"] == ("left out", "not asked for")
    assert asked["spent_before"] == ("left out", "the past of 'spent', which is no metric")


def test_a_segment_has_250_levels_at_most() -> None:
    n = 1000
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": ["a", "b"] * (n // 2),
            "x": np.random.default_rng(0).poisson(3, n),
        }
    )
    few = from_frame(frame.assign(c=[f"c{i % 249}" if i > 3 else None for i in range(n)]))
    assert said(few)["c"] == ("segment", "250 levels")
    many = frame.assign(c=[f"c{i % 250}" if i > 3 else None for i in range(n)])
    assert said(from_frame(many))["c"] == (
        "left out",
        "has 251 levels, such as 'c4'; a segment has at most 250",
    )
    with pytest.raises(TableError, match="column 'c' has 251 levels"):
        from_frame(many, groups=["c"])


@pytest.mark.parametrize("name", ["index", "level_0", "row_number", "anything"])
def test_row_numbers_are_no_metric(name: str) -> None:
    assert said(from_frame(users(**{name: range(N)})))[name] == ("left out", "it numbers the rows")
    shuffled = users(**{name: np.random.default_rng(0).permutation(N)})
    assert said(from_frame(shuffled))[name][0] == ("metric" if name == "anything" else "left out")


def test_labels_of_columns_may_be_anything_but_alike() -> None:
    frame = users()
    frame[1] = range(1, N + 1)
    frame[2] = 2.5
    frame[1] = frame[1] % 7
    assert list(from_frame(frame).numerators) == ["clicks", "spent", "1", "2"]
    frame.columns = pd.MultiIndex.from_tuples(
        [("user", ""), ("arm", ""), ("clicks", "sum"), ("clicks", "mean"), ("a", 1), ("a", 2)]
    )
    assert list(from_frame(frame).numerators) == ["clicks_sum", "clicks_mean", "a_1", "a_2"]
    for columns in (["user", "arm", "x", "x"], ["user", "arm", 1, "1"]):
        twice = users()
        twice.columns = columns
        with pytest.raises(TableError, match=f"two columns are called '{columns[-1]}'"):
            from_frame(twice)
    unnamed = users()
    unnamed[None] = range(N)
    assert said(from_frame(unnamed))["Unnamed: 4"] == ("left out", "it has no name")


def test_row_labels_are_used_where_they_are_asked_for(wrap: Callable[[pd.DataFrame], Any]) -> None:
    plain = from_frame(users())
    for index in ("user", ["arm", "user"]):
        table = from_frame(wrap(users().set_index(index)))
        assert table.numerators["clicks"].tolist() == plain.numerators["clicks"].tolist()
        assert said(table)["user"] == ("user", "")
    other = from_frame(wrap(users().rename_axis("id")))
    assert list(other.numerators) == ["clicks", "spent"]
    with pytest.raises(TableError, match=r"no column 'user' \(is it 'User'\?"):
        from_frame(wrap(users().rename(columns={"user": "User"})))


def test_arrow_in_any_wrapping_is_a_table() -> None:
    frame = users()
    plain = tables.lifts(frame)
    for table in (
        pa.Table.from_pandas(frame),
        pa.RecordBatch.from_pandas(frame),
        pa.Table.from_pandas(frame).to_reader(),
    ):
        pd.testing.assert_frame_equal(tables.lifts(table), plain)
    with pytest.raises(
        TableError, match="a table is a pandas DataFrame or an Arrow table; got list"
    ):
        tables.lifts([1])


def test_segments_that_differ_between_a_users_rows_are_left_out() -> None:
    pairs = pd.concat(
        [
            users(c=["x", "y"] * (N // 2), v="old"),
            users(arm=["new", "control"] * (N // 2), c=["x", "y"] * (N // 2), v="new"),
        ]
    )
    table = from_frame(pairs.sample(frac=1, random_state=1))
    assert table.paired
    assert list(table.groups) == ["c"]
    assert said(table)["v"] == ("left out", "it differs between the rows of a user")
    days = users(
        house=np.arange(N) // 2 % 15,
        arm=np.where(np.arange(N) // 2 % 15 % 2, "new", "control"),
        weekday=["mo", "tu"] * (N // 2),
    )
    assert said(from_frame(days, cluster="house"))["weekday"] == (
        "left out",
        "it differs within a house",
    )


def test_nothing_is_post_stratified_by_what_depends_on_the_arm(tmp_path: Any) -> None:
    """A text column that the treatment changed is an outcome: a check says so, and only the segment
    from before the test is conditioned on."""
    random = np.random.default_rng(8)
    n = 2000
    new = np.arange(n) % 2 == 1
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": np.where(new, "new", "control"),
            "x": random.gamma(2, 3, n),
            "plan": np.where(random.random(n) < np.where(new, 0.6, 0.4), "premium", "basic"),
            "country": random.choice(["de", "jp"], n),
        }
    )
    table = from_frame(frame)
    by_group = dependence(table)
    assert by_group["plan"] < DEPENDENT < by_group["country"]
    content = tables.write(frame, tmp_path)
    assert {row.method for row in content.otherwise if "strat" in row.method} == {
        "post-stratified by country"
    }
    (check,) = [check for check in content.checks if check.name == "Segment balance"]
    assert (check.status, "differ in plan" in check.meaning) == ("amber", True)


def test_a_segment_of_many_levels_is_no_set_of_strata_and_the_report_says_so(tmp_path: Any) -> None:
    n = 1200
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": np.where(np.arange(n) % 2 == 1, "new", "control"),
            "x": np.random.default_rng(9).gamma(2, 3, n),
            "city": [f"city {i // 2 % 60}" for i in range(n)],
            "country": [f"country {i // 2 % 3}" for i in range(n)],
        }
    )
    content = tables.write(frame, tmp_path)
    strata = {r.method: r for r in content.otherwise if "strat" in r.method}
    assert strata["post-stratified by country"].note == ""
    city = strata["post-stratified by city"]
    assert city.lift is None
    assert city.note == "not made with more than 50 strata; there are 60"


def test_levels_are_sorted_and_every_unit_has_its_own() -> None:
    labels = np.array(["b", "a", "(blank)", "b", "é"], dtype=object)
    names, codes = levels(labels)
    assert names.tolist() == ["(blank)", "a", "b", "é"]
    assert names[codes].tolist() == labels.tolist()
    expected, index = np.unique(labels.astype(str), return_inverse=True)
    assert (names.tolist(), codes.tolist()) == (expected.tolist(), index.tolist())


BEYOND = [2**53 + i for i in range(N)]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(BEYOND, dtype="int64"),
        pd.Series(BEYOND, dtype="UInt64"),
        pd.Series([decimal.Decimal(10**30 + i) for i in range(N)], dtype=object),
        pd.Series([10**30 + i for i in range(N)], dtype=object),
        pd.Series([str(x) for x in BEYOND]),
    ],
)
def test_digits_are_not_lost_without_a_word(
    values: pd.Series[Any], wrap: Callable[[pd.DataFrame], Any]
) -> None:
    frame = users(spend=values)
    if isinstance(values[0], int) and values[0] >= 2**64:
        wrap = WAYS["pandas"]  # Arrow has no such integers
    with pytest.raises(TableError, match=r"row \d+: column 'spend' is \d+, which would become"):
        from_frame(wrap(frame), metrics={"spend": "spend"})
    table = from_frame(wrap(frame))
    assert "spend" not in table.metrics
    (use,) = [use for use in table.columns if use.column == "spend"]
    assert use.role == "left out"
    assert "which would become" in use.note
    assert from_frame(wrap(frame), metrics={"clicks": "clicks"}).metrics.keys() == {"clicks"}


def test_long_labels_with_leading_zeros_stay_labels() -> None:
    table = from_frame(users(bank=["01234567890123456789", "00000000000000000001"] * (N // 2)))
    assert "bank" in table.groups


NAN = float("nan")


def four(**columns: Any) -> pd.DataFrame:
    """Four users, by turns in two arms."""
    plain = {"user": [0, 1, 2, 3], "arm": ["c", "t", "c", "t"], "x": [1.0, 2.0, 3.0, 5.0]}
    return pd.DataFrame({k: v for k, v in (plain | columns).items() if v is not None})


RULE = "the table has no metric: give at least one numeric column besides user, arm and covariates"
FILL = "fill them (a user without events has 0) or drop them"
BOUNDS = (
    "the largest of it: the largest figure of a column must be between 1e-60 and 1e+60, since"
    " intervals need its fourth power; give it in another unit"
)
TWICE = (
    "user 0 has several rows (row 2 is not the first), but not every user has exactly one row in"
    " each of the 2 arms: give one row per user (split) or one row per user and arm for all users"
    " (paired)"
)


@pytest.mark.parametrize(
    ("table", "more", "message"),
    [
        (four(user=None), {}, "the table has no column 'user'; it has ['arm', 'x']"),
        (four(arm=None), {}, "the table has no column 'arm'; it has ['user', 'x']"),
        (four(arm="c"), {}, "column 'arm' has the arms ['c']: a comparison needs at least two"),
        (four(), {"user": "arm"},
         "column 'arm' is named for users and for arms: each has its own"),
        (four().iloc[:0], {}, "the table has no rows"),
        (four(x=None), {}, RULE),
        (four(x=None, c=["a", "b"] * 2, e=["a"] * 4), {},
         f"{RULE} (c: segment, 2 levels: a, b; e: left out, it is 'a' in every row)"),
        (four(x=[*"abcd"]), {"metrics": ["x"]},
         "column 'x' must be numeric; it holds large_string: a, ..."),
        (four(x=[1, 2, NAN, NAN]), {},
         f"row 2: column 'x' has no value; such values: 2; {FILL}"),
        (four(x=[1, 2, 3, np.inf]), {}, f"row 3: column 'x' is inf; such values: 1; {FILL}"),
        (four(x_before=[1, 2, 3, np.inf]), {},
         f"row 3: column 'x_before' is inf; such values: 1; {FILL}"),
        (four(x=[1, 2, -1e61, 3]), {}, f"row 2: column 'x' is -1e+61, {BOUNDS}"),
        (four(x=[0, 0, 1e-61, 0]), {}, f"row 2: column 'x' is 1e-61, {BOUNDS}"),
        (four(x_before=[NAN] * 4), {"covariates": ["x_before"]},
         "column 'x_before' has no value: it cannot be a covariate"),
        (four(x=["1", "2", "3", "z"]), {},
         "row 3: column 'x' is 'z', no number, as most of the column are; such values: 1; write"
         " plain numbers, such as 1234.5; or name 'x' as a segment if it is one, or the metrics"
         " that you want"),
        (four(), {"metrics": ["x"], "covariates": ["x"]},
         "column 'x' is named as a metric and as a covariate: what the arms may change is no"
         " covariate, which must be known before the test; name it as one"),
        (four(), {"metrics": ["x"], "predictors": ["x"]},
         "column 'x' is named as a metric and as a predictor: what the arms may change is no"
         " predictor, which must be known before the test; name it as one"),
        (four(), {"metrics": ["user"]},
         "column 'user' is named as a metric, and is the column of users; name another one"),
        (four(), {"groups": ["arm"]},
         "column 'arm' is named as a segment, and is the column of arms; name another one"),
        (four(), {"covariates": ["user"]},
         "column 'user' is named as a covariate, and is the column of users; name another one"),
        (four(), {"predictors": ["arm"]},
         "column 'arm' is named as a predictor, and is the column of arms; name another one"),
        (four(user=[0, 1, 0, 2], arm=[*"cctt"]), {}, TWICE),
        (four(user=[0, 1, 0, 0], arm=[*"cctt"]), {}, TWICE),
        (four(user=[0, 1, 0, 1], arm=[*"cttt"]), {}, TWICE),
        (four(user=[3, 0, 0, 0], arm=[*"ctct"]), {}, TWICE),
        (four(h=["a", "b", "a", None]), {"cluster": "h"},
         "row 3: column 'h' has no value; every row must be in a cluster"),
        (four(tags=[[1], [2], [3], [4]]), {"metrics": ["tags"]},
         "column 'tags' must be numeric; it holds list<item: int64>: [1], ..."),
        (four(tags=[None] * 4), {"metrics": ["tags"]},
         "column 'tags' must be numeric; it holds null"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    table: pd.DataFrame, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(TableError) as error:
        from_frame(table, **more)
    assert str(error.value) == message


def taken(table: UnitTable) -> dict[str, tuple[str, str]]:
    """What the columns were taken for besides user, arm and x."""
    return {name: use for name, use in said(table).items() if name not in ("user", "arm", "x")}


@pytest.mark.parametrize("x", [[0.0] * 4, [1e60, 0, 0, 1], [1e-60, 0, 0, 0], [-1e60, 0, 0, 1]])
def test_figures_up_to_the_bounds_are_read(x: list[float]) -> None:
    assert from_frame(four(x=x)).numerators["x"].tolist() == x


def test_a_past_with_missing_values_is_filled_and_says_so() -> None:
    table = from_frame(four(x_before=[1, 2, NAN, 3], y_before=["1", "2", "3", None]))
    how = "1 of 4 values missing: filled with the mean, and adjusted for an indicator of them, too"
    assert taken(table) == {
        "x_before": ("covariate", how),
        "y_before": ("covariate", f"read from text; {how}"),
    }
    assert {name: column.tolist() for name, column in table.covariates.items()} == {
        "x": [1, 2, 2, 3],
        "x (missing)": [0, 0, 1, 0],
        "y": [1, 2, 3, 2],
        "y (missing)": [0, 0, 0, 1],
    }


def plain(values: Any) -> list[Any]:
    """Labels and numbers, without their types."""
    return [one if isinstance(one, str) else float(one) for one in values]


@pytest.mark.parametrize(
    ("columns", "more", "uses", "features"),
    [
        ({"y": [1, 2, 3, NAN], "z": ["a", "b", "a", None]},
         {"metrics": ["x"], "predictors": ["y", "z"]},
         {"y": ("predictor", "1 missing"), "z": ("segment", "3 levels: (blank), a, b")},
         {"y": [1, 2, 3, NAN], "z": ["a", "b", "a", "(blank)"]}),
        ({"y": ["1", "2", "3", "4"]}, {"metrics": ["x"], "predictors": ["y"]},
         {"y": ("predictor", "read from text")}, {"y": [1, 2, 3, 4]}),
        ({"y_before": [1, 2, 3, 4], "z": ["a", "b", "a", None]},
         {"metrics": ["x"], "predictors": []},
         {"y_before": ("covariate", ""), "z": ("segment", "3 levels: (blank), a, b")},
         {"y_before": [1, 2, 3, 4], "z": ["a", "b", "a", "(blank)"]}),
        ({"y_before": [1, 2, 3, 4], "z": ["a", "b", "a", "b"]},
         {"metrics": ["x"], "predictors": ["y_before", "z"], "groups": []},
         {"y_before": ("covariate", ""), "z": ("predictor", "2 labels")},
         {"y_before": [1, 2, 3, 4], "z": ["a", "b", "a", "b"]}),
        ({"y_before": [1, 2, 3, 4], "w_before": [NAN, 2, 3, 4]},
         {"metrics": ["x"], "predictors": ["y_before", "w_before"], "covariates": []},
         {"y_before": ("predictor", ""), "w_before": ("predictor", "1 missing")},
         {"y_before": [1, 2, 3, 4], "w_before": [NAN, 2, 3, 4]}),
        ({"y_before": [NAN, 2, 3, 4]}, {"metrics": ["x"], "predictors": ["y_before"]},
         {"y_before": ("predictor", "1 missing")}, {"y_before": [NAN, 2, 3, 4]}),
        ({"z": ["a", "b", "a", "b"]},
         {"metrics": ["x"], "predictors": ["z"], "groups": ["z"]},
         {"z": ("segment", "2 levels: a, b")}, {"z": ["a", "b", "a", "b"]}),
        ({"y_before": [1, 2, 3, 4]},
         {"metrics": ["x"], "predictors": ["y_before"], "covariates": ["y_before"]},
         {"y_before": ("covariate", "")}, {}),
    ],
)  # fmt: skip
def test_what_metrics_are_predicted_from(
    columns: dict[str, Any], more: dict[str, Any], uses: Any, features: dict[str, Any]
) -> None:
    table = from_frame(four(**columns), **more)
    assert taken(table) == uses
    assert list(table.features) == list(features or ["y_before"])
    for name, values in features.items():
        assert str(plain(table.features[name])) == str(plain(values))
    assert from_frame(four(**columns), metrics=["x"]).keys is None
    assert table.keys is not None
    assert len(set(table.keys.tolist())) == 4


@pytest.mark.parametrize("n", [249, 250])
def test_a_label_that_predicts_is_a_segment_up_to_250_levels(n: int) -> None:
    frame = pd.DataFrame({"user": range(500), "arm": ["c", "t"] * 250, "x": np.arange(500) % 7})
    table = from_frame(
        frame.assign(z=[f"z{i % n}" for i in range(500)]), metrics=["x"], predictors=["z"]
    )
    expected = {249: ("segment", "249 levels"), 250: ("predictor", "250 labels")}
    assert said(table)["z"] == expected[n]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (np.arange(30), True),
        (np.arange(30) + 7.0, True),
        (np.arange(29), False),
        (np.arange(30)[::-1], False),
        (np.r_[np.arange(28), 27, 29], False),
        (np.r_[np.arange(29), 30], False),
        (np.arange(30) * 2, False),
    ],
)
def test_thirty_numbers_in_order_are_those_of_the_rows(values: Any, numbers: bool) -> None:
    n = len(values)
    frame = pd.DataFrame({"user": range(n), "arm": (["c", "t"] * 15)[:n], "x": 1.5, "k": values})
    assert said(from_frame(frame))["k"] == (
        ("left out", "it numbers the rows") if numbers else ("metric", "")
    )


@pytest.mark.parametrize(
    ("values", "numbers"),
    [([3, 9, 1, 4], True), ([3, 9, 1, 3], False), ([3.5, 9, 1, 4], False)],
)
def test_a_column_called_row_number_has_whole_ones(values: Any, numbers: bool) -> None:
    table = from_frame(four(row_number=values))
    assert taken(table)["row_number"][0] == ("left out" if numbers else "metric")


def test_pairs_are_in_one_order_of_users_whatever_that_of_the_rows() -> None:
    frame = four(user=[7, 3, 3, 7], arm=["c", "t", "c", "t"], x_before=[1, 2, 2, 1])
    table = from_frame(frame.assign(c=["k", "l", "l", "k"], d=["k", "l", "m", "k"]))
    assert table.numerators["x"].tolist() == [[3.0, 1.0], [2.0, 5.0]]
    assert table.covariates["x"].tolist() == [2, 1]
    assert (table.groups["c"].tolist(), table.assigned) == (["l", "k"], None)
    assert taken(table)["d"] == ("left out", "it differs between the rows of a user")


def test_pasts_go_with_their_metrics() -> None:
    frame = four(
        y=[1, 2, 3, 5], x_before=[1, 2, 3, 4], y_before=[2, 2, 3, 4], z_before=[1, 2, 1, 2]
    )
    assert set(from_frame(frame).covariates) == {"x", "y", "z"}
    some = from_frame(frame, metrics=["x"])
    assert set(some.covariates) == {"x", "z"}
    assert said(some)["y_before"] == ("left out", "the past of 'y', which is no metric")
    ratio = from_frame(frame, metrics={"r": ("x", "y")})
    assert set(ratio.covariates) == {"x", "y", "z"}
    named = from_frame(frame, metrics=["x"], covariates=["y_before"])
    assert (set(named.covariates), said(named)["x_before"]) == (
        {"y"},
        ("left out", "not asked for"),
    )
    declared = from_frame(frame, metrics=["x"], entries={"x": Declared(covariates=("y",))})
    assert set(declared.covariates) == {"x", "y", "z"}
    assert declared.metrics["x"].covariates == ("y",)


def test_metrics_are_told_by_their_columns() -> None:
    mean, ratio = metric_of("spent", "money"), metric_of("rate", ("clicks", "views"))
    assert (mean.description, mean.measure, mean.numerator.name, mean.denominator) == (
        "spent", "", "money", None,
    )  # fmt: skip
    assert (ratio.description, ratio.measure) == ("clicks per views", "ratio")
    assert ratio.denominator is not None
    assert (ratio.numerator.name, ratio.denominator.name) == ("clicks", "views")
    assert ratio.numerator.columns == ("clicks",)
    assert ratio.numerator.of({"clicks": np.array([3])}).tolist() == [3]
    known = metric_of("watch_time", "seconds")
    assert (known.description, known.measure) == ("time watched", "s")
    figure = metric_of("p90", Quantity(np.max, "seconds", "views"))
    assert (figure.description, figure.measure, figure.numerator.name) == (
        "a figure of seconds, views", "", "seconds",
    )  # fmt: skip
    assert (figure.covariates, figure.is_figure) == ((), True)
    for metric, higher in ((metric_of("errors", "n"), False), (metric_of("revenue", "n"), True),
                           (metric_of("spot", "n"), None), (metric_of("q", ("errors", "n")), False),
                           (metric_of("errors", Quantity(np.max, "n")), False),
                           (metric_of("spot", Quantity(np.max, "n")), None)):  # fmt: skip
        assert metric.higher_is_better is higher
        assert metric.known_by == ("" if higher is None else "name")


def daily(days: list[Any]) -> pd.DataFrame:
    """Rows of three users: two of user 0, one of user 1, two of user 2 on one day."""
    return pd.DataFrame(
        {
            "user": [0, 0, 1, 2, 2],
            "arm": ["c", "c", "t", "c", "c"],
            "day": days,
            "x": [1.0, 2.0, 4.0, 8.0, 16.0],
        }
    )


@pytest.mark.parametrize(
    "days",
    [
        [1, 9, 3, 3, 3],
        ["1", "9.5", "3", "3", "3"],
        ["2026-01-30", "2026-02-02", "2026-02-01 10:00", "2026-02-01", "2026-02-01 23:59"],
    ],
)
def test_looks_are_the_sums_so_far(days: list[Any]) -> None:
    """Days on which nobody has a row are no looks."""
    looks, new = looks_from_frame(daily(days), "day")
    assert [look.numerators["x"].tolist() for look in looks] == [[1, 0, 0], [1, 4, 24], [3, 4, 24]]
    assert looks[-1].assigned is not None
    assert looks[-1].assigned.tolist() == [0, 1, 0]
    assert new.tolist() == [[1, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("days", "message"),
    [
        ([1, 2, None, 3, 3], "row 2: column 'day' has no value; every row must be of a day"),
        ([1, "soon", 2, 3, 3],
         "column 'day': days are numbers (0, 1, 2) or dates (2026-01-31); got 'soon'"),
        (["2026-01-30", "1", "1", "1", "1"],
         "column 'day': days are numbers (0, 1, 2) or dates (2026-01-31); got '2026-01-30'"),
    ],
)  # fmt: skip
def test_days_that_are_none_are_named(days: list[Any], message: str) -> None:
    with pytest.raises(TableError) as error:
        looks_from_frame(daily(days), "day")
    assert str(error.value) == message
    with pytest.raises(TableError, match="'day' is named as a segment, and is the column of days"):
        looks_from_frame(daily([1, 2, 3, 3, 3]), "day", groups=["day"])


LONG = [f"{2**53 + 2 * i + 1}" for i in range(4)]


@pytest.mark.parametrize(
    ("values", "more", "use"),
    [
        ([NAN] * 4, {}, ("left out", "all blank")),
        ([None] * 4, {}, ("left out", "all blank")),
        (["", " ", "", ""], {}, ("left out", "all blank")),
        (["1", "2", "3", ""], {"metrics": ["x"]}, ("left out", "not asked for")),
        ([1, 2, 3, 4], {"metrics": ["x"]}, ("left out", "not asked for")),
        (["1", "2", "3", "z"], {"metrics": ["x"]}, ("segment", "4 levels: 1, 2, 3, z")),
        (["01", "2", "3", "z"], {}, ("segment", "4 levels: 01, 2, 3, z")),
        (["01", "2", "3", "4"], {"metrics": ["x"]},
         ("segment", "numbers with leading zeros are labels; 4 levels: 01, 2, 3, 4")),
        (["01", "01", "01", "01"], {},
         ("left out", "numbers with leading zeros are labels; it is '01' in every row")),
        (["01", "2", "3", "4"], {"groups": []},
         ("left out", "numbers with leading zeros are labels; not asked for")),
        (["a", "b", "c", "d"], {"groups": []}, ("left out", "not asked for")),
        (["a", "b", "c", None], {"groups": ["y"]}, ("segment", "4 levels: (blank), a, b, c")),
        (["a"] * 4, {"groups": ["y"]}, ("segment", "1 levels: a")),
        (LONG, {}, ("left out", "it holds 9007199254740993, which would become 9007199254740992: a"
                    " number is held as float64, which has no place for every whole number beyond"
                    " 2^53 (9007199254740992)")),
    ],
)  # fmt: skip
def test_a_column_is_taken_for_what_it_holds(
    values: Any, more: dict[str, Any], use: tuple[str, str]
) -> None:
    assert taken(from_frame(four(y=values), **more)) == {"y": use}


@pytest.mark.parametrize(("n", "listed"), [(6, True), (7, False)])
def test_six_levels_are_listed(n: int, listed: bool) -> None:
    labels = [f"k{i % n}" for i in range(N)]
    note = f"{n} levels" + (f": {', '.join(f'k{i}' for i in range(n))}" if listed else "")
    assert said(from_frame(users(z=labels)))["z"] == ("segment", note)


def test_clusters_are_units_with_features_and_keys_of_their_own() -> None:
    frame = four(user=None, h=["b", "a", "b", "a"], y_before=[1, 2, 3, 5], z=[*"klkl"])
    table = from_frame(frame, cluster="h", predictors=[])
    assert (table.n_units, table.cluster) == (2, None)
    assert table.numerators["x"].tolist() == [7.0, 4.0]
    assert table.features["y_before"].tolist() == [3.5, 2.0]
    assert table.features["z"].tolist() == ["l", "k"]
    assert table.keys is not None
    assert table.keys.tolist() == keys_of(["a", "b"]).tolist()
    assert taken(table)["h"] == ("cluster", "")
    assert from_frame(frame, cluster="h").keys is None


def test_metrics_of_several_columns() -> None:
    frame = four(y=[2.0, 2, 4, 4], user=[5, 6, 7, 8])
    by_name = from_frame(frame, metrics={1: "x", "r": ("x", "y"), "q": Quantity(np.max, "x", "y")})
    assert list(by_name.metrics) == ["1", "r", "q"]
    assert by_name.numerators["r"].tolist() == by_name.numerators["q"].tolist() == [1, 2, 3, 5]
    assert {name: v.tolist() for name, v in by_name.denominators.items()} == {"r": [2, 2, 4, 4]}
    (first, second), units = by_name.details["q"].of_arm(1)
    assert (first.tolist(), second.tolist(), units) == ([2, 5], [2, 4], None)
    assert list(from_frame(frame.rename(columns={"y": "7"}), metrics=[7, "x"]).metrics) == [
        "7",
        "x",
    ]
    twice = from_frame(frame.assign(user=[0, 0, 1, 1]), metrics={"q": Quantity(np.max, "y")})
    assert twice.details["q"].values[0].tolist() == [[2, 4], [2, 4]]
    assert twice.details["q"].assigned is None


def test_what_is_declared_in_one_is_read() -> None:
    entries = {"x": Declared(better="lower", winsorise=0.25)}
    table = from_frame(four(), entries=entries, roles={"x": "success"})
    assert table.metrics["x"].higher_is_better is False
    assert table.metrics["x"].role == "success"
    assert table.numerators["x"].tolist() == [1, 2, 3, 3]
    looks, _ = looks_from_frame(daily([1, 2, 3, 3, 3]), "day", better={"x": "lower"}, entries={
        "x": Declared(winsorise=0.1)})  # fmt: skip
    assert {look.metrics["x"].higher_is_better for look in looks} == {False}
