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

from simulator.report import user_table as tables
from simulator.stats.frames import from_frame
from simulator.stats.segments import DEPENDENT, dependence
from simulator.stats.unit_table import TableError, UnitTable, levels

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
