"""The event log: what goes in comes out, the bytes depend on the rows only, and every broken rule
is named.
"""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.base import Slates
from simulator.cli import main
from simulator.engine import tape
from simulator.engine.tape import Asked, Tape
from simulator.log.eventlog import EventLog, Writer, merge
from simulator.log.files import load_arrays
from simulator.log.metadata import LogError, Metadata
from simulator.log.schema import schema
from simulator.offpolicy.rounds import Stream
from simulator.serving.desk import Served
from simulator.users.base import Feedback

META = Metadata(("a", "b"), n_users=4, n_items=9)


def columns(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "arm": [0, 0, 0, 1],
        "user": [0, 0, 2, 3],
        "session": [0, 1, 0, 0],
        "request": [0, 0, 0, 0],
        "position": [0, 0, 0, 0],
        "t": [5, 9, -3, 7],
        "item": [1, 9, 4, 4],
        "click": [1, 0, -1, 1],
        "watch": [2.5, np.nan, 0.0, 1.0],
        "duration": [3.0, 0.0, 1.0, 1.0],
        "propensity": [0.5, 1.0, np.nan, 0.25],
        "like": [0, -1, 1, 0],
    }
    return {**base, **changes}


def test_what_goes_in_comes_out(tmp_path):
    log = EventLog.from_columns(columns(), META)
    log.validate()
    read = EventLog.open(log.write(tmp_path / "log.parquet"))
    read.validate()
    assert read.metadata == META
    assert read.kinds == ("like",)
    assert read.n_rows == 4
    assert read.table.replace_schema_metadata(None).equals(log.table)
    rows = read.table.to_pydict()
    assert rows["click"] == [True, False, None, True]
    assert rows["like"] == [False, None, True, False]
    assert rows["watch"] == [2.5, None, 0.0, 1.0]
    assert rows["channel"] == [0, 0, 0, 0]
    assert not list(tmp_path.glob("*.part"))


def test_rows_are_put_into_the_order_of_their_key():
    order = [3, 1, 0, 2]
    shuffled = {name: [values[i] for i in order] for name, values in columns().items()}
    assert EventLog.from_columns(shuffled, META).table.equals(
        EventLog.from_columns(columns(), META).table
    )


def test_logs_with_other_keys_merge():
    whole = EventLog.from_columns(columns(), META)
    halves = [
        EventLog.from_columns({n: v[i::2] for n, v in columns().items()}, META) for i in (1, 0)
    ]
    assert merge(halves, META).table.equals(whole.table)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 50), max_size=6), group=st.integers(1, 60))
def test_the_bytes_depend_on_the_rows_only(tmp_path_factory, cuts, group):
    folder = tmp_path_factory.mktemp("cuts")
    n = 50
    values = {**columns(), "position": np.arange(n), "item": np.arange(n) % 9 + 1}
    values = {
        name: np.resize(v, n) if name in ("watch", "click", "duration") else v
        for name, v in values.items()
        if name != "like"
    }
    for name in ("arm", "user", "session", "request", "t"):
        values[name] = np.zeros(n, dtype=np.int64)
    values["propensity"] = np.full(n, 0.5)
    log = EventLog.from_columns(values, META)
    whole = log.write(folder / "whole.parquet", row_group=group)
    writer = Writer(folder / "cut.parquet", META, (), row_group=group)
    edges = [0, *sorted(cuts), n]
    for start, end in pairwise(edges):
        writer.add(log.table.slice(start, end - start))
    assert writer.close().read_bytes() == whole.read_bytes()


BROKEN = [
    ({"user": [0, 0, 4, 3]}, r"row 2: user must be a user of 0\.\.3; got 4"),
    ({"item": [1, 9, 0, 4]}, r"row 2: item must be an item of 1\.\.9; got 0"),
    ({"item": [1, 9, 4, 10]}, r"row 3: item"),
    ({"arm": [0, 0, 1, 2]}, r"row 3: arm must be an index below 2; got 2"),
    (
        {"propensity": [0.5, 0.0, 0.1, 1.0]},
        r"row 1: propensity must be a probability in \(0, 1\] or null; got 0\.0",
    ),
    ({"propensity": [0.5, 1.5, 0.1, 1.0]}, r"row 1: propensity"),
    ({"watch": [0.5, -1.0, 0.1, 1.0]}, r"row 1: watch"),
    ({"duration": [0.5, 1.0, -0.1, 1.0]}, r"row 2: duration"),
    (
        {"user": [0, 2, 0, 3]},
        r"row 2: key .* = \(0, 0, 0, 0, 0\) must come after \(0, 2, 1, 0, 0\): unsorted or twice",
    ),
    ({"session": [0, 0, 0, 0]}, r"row 1: key .*unsorted or twice"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_a_broken_rule_is_named_with_file_row_and_value(change, message, tmp_path):
    log = EventLog.from_columns(columns(**change), META, sort=False)
    with pytest.raises(LogError, match=message):
        log.validate()
    part = log.write(tmp_path / "part.parquet")
    with pytest.raises(LogError, match=r"part\.parquet: " + message):
        EventLog.open(part).validate()


@pytest.mark.parametrize(
    ("t", "words"),
    [
        (3 * 86_400_000, "got 259200000$"),
        (-1, "got -1$"),
        (1_700_000_000_000, "got 1700000000000, which looks like ms since 1970"),
        (1_700_000_000, "got 1700000000, which looks like s since 1970"),
        (1_700_000_000_000_000, "got 1700000000000000, which looks like us since 1970"),
        (1_700_000_000_000_000_000, "got 1700000000000000000, which looks like ns since 1970"),
        (86_400_000_000, "got 86400000000, which looks like us"),
    ],
)
def test_a_time_outside_the_days_is_refused_with_the_unit_that_it_looks_like(tmp_path, t, words):
    """One row alone is enough; `abtest report` says the same."""
    meta = Metadata(("a", "b"), n_users=4, n_items=9, control="a", days=3)
    log = EventLog.from_columns(columns(t=[5, 9, 3, t]), meta)
    message = (
        r"row 3: t must be ms within the 3 days of the A/B, 0\.\.259199999 \(from its start, not"
        rf" from 1970\); {words}"
    )
    with pytest.raises(LogError, match=message):
        log.validate()
    done = CliRunner().invoke(
        main, ["report", str(log.write(tmp_path / "log.parquet")), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 2
    assert re.search(message, done.output.strip())


def test_parts_must_follow_one_another(tmp_path):
    first, second = (
        EventLog.from_columns({n: v[part] for n, v in columns().items()}, META)
        for part in (slice(0, 2), slice(2, 4))
    )
    second.write(tmp_path / "0.parquet")
    first.write(tmp_path / "1.parquet")
    with pytest.raises(LogError, match=r"1\.parquet: row 0: key"):
        EventLog.open(tmp_path).validate()
    assert EventLog.open(tmp_path).table.equals(EventLog.from_columns(columns(), META).table)


def test_files_that_are_no_log_are_named(tmp_path):
    with pytest.raises(LogError, match="no event log there"):
        EventLog.open(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(LogError, match=r"a\.parquet: not a readable Parquet file"):
        EventLog.open(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(LogError, match="without abtest's metadata"):
        EventLog.open(tmp_path)


def test_what_is_no_parquet_or_may_not_be_read_is_told_apart(tmp_path):
    table = tmp_path / "users.csv"
    table.write_text("user,arm,clicks\n1,a,3\n")
    with pytest.raises(LogError, match=r"users\.csv: .* does not begin as one; an event log is a"):
        EventLog.open(table)
    endless = tmp_path / "log" / "a.parquet"
    endless.parent.mkdir()
    endless.symlink_to(endless)
    with pytest.raises(LogError, match=r"a\.parquet: cannot be read: Too many levels") as refusal:
        EventLog.open(endless.parent)
    assert "Parquet file:" not in str(refusal.value)


def test_a_cut_file_and_a_wrong_column_are_named(tmp_path):
    whole = EventLog.from_columns(columns(), META).write(tmp_path / "a.parquet")
    log = EventLog.open(whole)
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(LogError, match=r"a\.parquet: not a readable"):
        log.validate()
    table = EventLog.from_columns(columns(), META).table
    wrong = table.set_column(6, "item", table["item"].cast(pa.int64())).replace_schema_metadata(
        {"abtest": META.to_json()}
    )
    pq.write_table(wrong, tmp_path / "a.parquet")
    with pytest.raises(LogError, match=r"column 'item' must be uint32; it is int64"):
        EventLog.open(tmp_path).validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": [1, 2, 3, 4]}, "unknown columns.*colour"),
        ({"t": None}, "'t' is missing"),
        ({"item": ["x"] * 4}, "'item' cannot be read"),
        ({"item": None}, "'item' is missing"),
        ({"item": [1, 2.5, 3, 4]}, "'item' cannot be read as uint32"),
        ({"item": [1, None, 3, 4]}, "'item' must not be empty; row 1 is"),
        (
            {"user": ["0", "1", "2", "3"]},
            "'user' cannot be read: it must hold numbers or bools; got string",
        ),
        ({"user": [0, 0, 2]}, "'user' must have a value for each of the 4 items; it has 3"),
        ({"user": 7}, "'user' cannot be read"),
        ({"watch": [1e300, 0, 0, 0]}, r"'watch' must be numbers up to 3.4e\+38; row 0 has 1e\+300"),
        ({"watch": np.zeros((2, 2))}, "'watch' cannot be read"),
        ({"duration": [1.0, 2.0, np.nan, 3.0]}, "'duration' must not be empty; row 2 is"),
        ({"logged": [1, None, 0, 0]}, "'logged' must not be empty; row 1 is"),
        ({"tab": [1, -2, 0, 0]}, "'tab' must be 0, 1, ... or -1"),
        ({"tab": [1, 256, 0, 0]}, "'tab' cannot be read as uint8"),
    ],
)
def test_columns_that_do_not_fit_are_named(change, message):
    with pytest.raises(LogError, match=message):
        EventLog.from_columns(columns(**change), META)


def test_a_column_twice_is_named_in_every_way_in(tmp_path):
    table = EventLog.from_columns(columns(), META).table.replace_schema_metadata(
        {"abtest": META.to_json()}
    )
    part = tmp_path / "part.parquet"
    pq.write_table(table.append_column("item", table["click"]), part)
    message = r"part\.parquet: two columns are called 'item', columns 7 and 15"
    with pytest.raises(LogError, match=message):
        EventLog.open(part).validate()
    for command in (["report"], ["replay", "--policy", "popularity"]):
        done = CliRunner().invoke(
            main, [command[0], str(part), *command[1:], "--out", str(tmp_path / "out")]
        )
        assert done.exit_code == 2
        assert re.search(message, done.output)


@pytest.mark.parametrize("name", ["click", "like", "logged"])
@pytest.mark.parametrize(
    ("given", "row", "value"),
    [
        ([0, 1, 2, 3], 2, "2"),
        (np.array([0, 1, 1, 7], dtype=np.uint8), 3, "7"),
        (np.array([0, 0.5, 1, 1]), 1, "0.5"),
        (pd.Series([1, -2, 0, 0]), 1, "-2"),
        (pa.array([0, 1, 1, 2], pa.int8()), 3, "2"),
        (pa.chunked_array([[0.0, 1.0], [1.0, 3.0]]), 3, "3.0"),
    ],
)
def test_a_count_is_no_answer(name: str, given: Any, row: int, value: str) -> None:
    with pytest.raises(
        LogError,
        match=(
            rf"column '{name}' must be 0, 1 or -1 .* a count is no answer .*; row {row} has"
            rf" {value}$"
        ),
    ):
        EventLog.from_columns(columns(**{name: given}), META)


@pytest.mark.parametrize(
    "given",
    [
        [1, 0, None, 1],
        [True, False, None, True],
        np.array([1, 0, -1, 1], dtype=np.int8),
        np.array([1, 0, np.nan, 1]),
        np.array([1, 0, -1, 1], dtype=np.float16),
        pd.Series([1, 0, None, 1], dtype="Int8"),
        pd.Series([True, False, None, True], dtype="boolean"),
        pd.Categorical([1, 0, -1, 1]),
        pa.array([1, 0, -1, 1], pa.int8()),
        pa.array([1.0, 0.0, float("nan"), 1.0]),
        pa.chunked_array([[True, False], [None, True]]),
    ],
    ids=lambda given: f"{type(given).__module__}.{type(given).__name__}",
)
def test_answers_come_in_any_dress(given: Any) -> None:
    assert EventLog.from_columns(columns(click=given), META).table["click"].to_pylist() == [
        True,
        False,
        None,
        True,
    ]


def stored(**changes: Any) -> str:
    """The metadata of a log as JSON, some keys changed; `...` removes one."""
    told = (
        json.loads(Metadata(("history", "a", "b"), 4, 9, days=1, control="a").to_json()) | changes
    )
    return json.dumps({name: value for name, value in told.items() if value is not ...})


WRONG = [
    ("", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("[]", "must be a JSON object; got \\[\\]"),
    (b"\xff\xfe", "is not JSON"),
    ("1" * 5000, "is not JSON"),
    (stored(notes={"x": float("nan")}), "NaN is no finite number"),
    (stored(notes=0).replace('"notes": 0', '"notes": {"x": 1e999}'), "1e999 is no finite number"),
    (stored(schema=0), "schema 0; this abtest reads schema 1"),
    (stored(schema=True), "schema True"),
    (stored(schema="1"), "schema '1'"),
    (stored(arms=...), r"metadata\.arms is missing"),
    (stored(n_users=...), r"metadata\.n_users is missing"),
    (stored(colour=1), r"metadata\.colour: unknown key"),
    (stored(arms=[]), r"metadata\.arms"),
    (stored(arms=["a", "b", "a"]), r"metadata\.arms: 'a' stands there twice"),
    (stored(arms=["a", 3]), r"metadata\.arms\.1 must be text; got 3"),
    (
        stored(arms="ab"),
        r"metadata\.arms must be a list",
    ),
    (stored(arms=["a", ""]), r"metadata\.arms\.1"),
    (stored(channels=[None]), r"metadata\.channels\.0 must be text; got None"),
    (stored(channels=["new", "new"]), r"metadata\.channels: 'new' stands there twice"),
    (stored(control="z"), r"metadata\.control must be one of the arms"),
    (stored(control="history"), r"metadata\.control must be an arm of the A/B"),
    (stored(n_users=-1), r"metadata\.n_users must be greater than or equal to 0; got -1"),
    (stored(n_users=10**12), r"metadata\.n_users must be less than or equal to 4294967296"),
    (stored(n_items=1.5), r"metadata\.n_items must be a whole number"),
    (stored(n_items="9"), r"metadata\.n_items must be a whole number; got '9'"),
    (stored(days=10**9), r"metadata\.days must be less than or equal to 3660"),
    (
        stored(propensity="sure"),
        r"metadata\.propensity must be 'conditional', 'marginal' or 'unknown'; got 'sure'",
    ),
    (stored(scenario=[]), r"metadata\.scenario"),
    (stored(scenario={"design": "split"}), r"metadata\.scenario\.design"),
    (stored(scenario={"design": {"kind": ["split"]}}), r"metadata\.scenario\.design\.kind"),
    (stored(scenario={"seed": -1}), r"metadata\.scenario\.seed"),
    (stored(scenario={"metrics": "click"}), r"metadata\.scenario\.metrics"),
    (stored(scenario={"published": {"click": "much"}}), r"metadata\.scenario\.published\.click"),
    (
        stored(notes={"calibration": {"rows": []}}),
        r"metadata\.notes\.calibration\.basis is missing",
    ),
    (stored(versions={"numpy": 2}), r"metadata\.versions\.numpy must be text; got 2"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_metadata_that_breaks_a_rule_is_named_with_file_key_and_value(text, message, tmp_path):
    with pytest.raises(LogError, match=message):
        Metadata.from_json(text)
    table = EventLog.from_columns(columns(), META).table
    pq.write_table(table.replace_schema_metadata({b"abtest": text}), tmp_path / "x.parquet")
    with pytest.raises(LogError, match=r"x\.parquet: .*" + message):
        EventLog.open(tmp_path / "x.parquet")


def test_numbers_of_users_and_items_must_be_plausible():
    whole = EventLog.from_columns(columns(), META)
    for name, limit in (("n_users", "1,000,000"), ("n_items", "10,000,000")):
        many = dataclasses.replace(META, **{name: 20_000_000})
        with pytest.raises(
            LogError, match=rf"metadata\.{name} must be at most {limit} in a log of 4 rows"
        ):
            EventLog(many, whole.table).validate()


NAN = [0.5, float("nan"), 0.25, 1.0]
RULES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"t": [9, 5, 3, 7]},
        {},
        (
            r"row 1: t = 5 ms is before that of the row above \(9 ms\): sessions and requests of"
            r" user 0"
        ),
    ),
    ({"t": [5, 9, 10**16, 7]}, {}, r"row 2: t must be ms, at most 200 years from the start"),
    (
        {"t": [5, 9, 3, 86_400_000]},
        {"days": 1},
        r"row 3: t must be ms within the 1 days of the A/B, 0\.\.86399999",
    ),
    ({"t": [5, 9, -1, 7]}, {"days": 1}, r"row 2: t must be ms within the 1 days"),
    (
        {"t": [-5, 9, 3, 7]},
        {"days": 1, "arms": ("history", "b")},
        r"row 1: t must be ms before the start",
    ),
    ({"watch": [1.0, np.inf, 0.0, 1.0]}, {}, r"row 1: watch must be seconds >= 0 or null; got inf"),
    ({"watch": [1.0, -0.5, 0.0, 1.0]}, {}, r"row 1: watch must be seconds >= 0 or null; got -0\.5"),
    ({"watch": NAN}, {}, r"row 1: watch must be seconds >= 0 or null; got nan"),
    (
        {"propensity": NAN},
        {},
        r"row 1: propensity must be a probability in \(0, 1\] or null; got nan",
    ),
    ({"duration": [1.0, np.inf, 0.0, 1.0]}, {}, r"row 1: duration must be seconds >= 0; got inf"),
    ({"duration": [1.0, np.nan, 0.0, 1.0]}, {}, r"row 1: duration must be seconds >= 0; got nan"),
    ({"channel": [0, 0, 0, 1]}, {}, r"row 3: channel must be a channel of 0\.\.0; got 1"),
    (
        {"arm": [0, 0, 0, 2], "item": [1, 10, 1, 1]},
        {},
        r"row 1: item must be an item of 1\.\.9; got 10",
    ),
]


@pytest.mark.parametrize(("change", "meta", "message"), RULES)
def test_all_readers_keep_the_same_rules(change, meta, message, tmp_path):
    """`validate` and the replay, from memory and from a file."""
    table = EventLog.from_columns(columns(), META).table
    for name, values in change.items():
        field = table.schema.field(name)
        table = table.set_column(
            table.column_names.index(name), field, pa.array(values, field.type)
        )
    log = EventLog(dataclasses.replace(META, **meta), table)
    for source in (log, EventLog.open(log.write(tmp_path / "x.parquet"))):
        with pytest.raises(LogError, match=message) as by_rules:
            source.validate()
        with pytest.raises(LogError) as by_replay:
            list(Stream(source, arm="b", chunk=2))
        assert str(by_replay.value) == str(by_rules.value)


def test_the_replay_holds_a_part_to_its_seal(tmp_path):
    """A value that is not the one that was written, under page check sums that are right."""
    log = EventLog.from_columns(columns(), META)
    part = log.write(tmp_path / "x.parquet")
    seal = pq.read_metadata(part).metadata
    other = EventLog.from_columns(columns(watch=[0.5, 2.0, 0.25, 1.0]), META).table
    pq.write_table(
        other.replace_schema_metadata(
            {b"abtest": seal[b"abtest"], b"abtest.seal": seal[b"abtest.seal"]}
        ),
        part,
    )
    message = r"x\.parquet: damaged: the values of column 'watch' are not those that were written"
    with pytest.raises(LogError, match=message) as by_rules:
        EventLog.open(part).validate()
    with pytest.raises(LogError) as by_replay:
        list(Stream(EventLog.open(part), arm="b", chunk=2))
    assert str(by_replay.value) == str(by_rules.value)


def test_equal_times_are_allowed():
    EventLog.from_columns(columns(t=[5, 5, 3, 7]), META).validate()


def test_a_split_log_has_each_user_in_the_arm_of_the_seed():
    n = 40
    scenario = {"design": {"kind": "split"}, "seed": 3}
    meta = Metadata(("history", "a", "b"), n, 9, days=1, control="a", scenario=scenario)
    arm = meta.arm_of_user()
    assert arm is not None
    rows = {
        "user": range(n),
        "session": [0] * n,
        "request": [0] * n,
        "position": [0] * n,
        "t": [1] * n,
        "item": [1] * n,
    }
    EventLog.from_columns({**rows, "arm": arm}, meta).validate()
    other = arm.copy()
    other[7] = 3 - other[7]
    with pytest.raises(
        LogError, match=r"arm must be that of its user: the scenario's seed gives user 7 the arm"
    ):
        EventLog.from_columns({**rows, "arm": other}, meta).validate()


def written(folder: Path, table: pa.Table, name: str = "x.parquet", meta: Metadata = META) -> Path:
    """A part as another program would write it: no seal, no check sums of pages."""
    folder.mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata({b"abtest": meta.to_json()}), folder / name)
    return folder


TABLE = EventLog.from_columns(columns(), META).table
LIKE = TABLE.column_names.index("like")
STRUCTURE: dict[str, tuple[Any, str]] = {
    "a column missing": (TABLE.drop_columns(["t"]), "columns are"),
    "a column more": (TABLE.append_column("colour", pa.array([1] * 4)), "columns are"),
    "columns in another order": (TABLE.select(TABLE.column_names[::-1]), "columns are"),
    "another type": (
        TABLE.set_column(5, "t", TABLE["t"].cast(pa.float64())),
        r"column 't' must be int64; it is double",
    ),
    "text": (
        TABLE.set_column(LIKE, "like", pa.array(["x"] * 4)),
        r"column 'like' must be bool; it is string",
    ),
    "a null": (
        TABLE.set_column(5, "t", pa.array([5, None, -3, 7])),
        r"x\.parquet: row 1: t must not be null",
    ),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_table_of_another_structure_is_named(name, tmp_path):
    table, message = STRUCTURE[name]
    with pytest.raises(LogError, match=message) as raised:
        EventLog.open(written(tmp_path / "log", table)).validate()
    assert "x.parquet" in str(raised.value)


def test_a_log_without_a_seal_is_read(tmp_path):
    log = EventLog.open(written(tmp_path / "log", TABLE))
    log.validate()
    assert log.n_rows == 4
    empty = EventLog.open(written(tmp_path / "empty", TABLE.slice(0, 0)))
    empty.validate()


def test_parts_of_different_logs_and_a_part_twice_are_named(tmp_path):
    written(tmp_path / "log", TABLE.slice(0, 2), "a.parquet")
    other = dataclasses.replace(META, n_users=5)
    written(tmp_path / "log", TABLE.slice(2), "b.parquet", other)
    with pytest.raises(
        LogError, match=r"b\.parquet: a part of another log than .*a\.parquet: metadata\.n_users"
    ):
        EventLog.open(tmp_path / "log")
    written(tmp_path / "log", TABLE.slice(2).drop_columns(["like"]), "b.parquet")
    with pytest.raises(LogError, match=r"b\.parquet: columns are"):
        EventLog.open(tmp_path / "log")
    written(tmp_path / "log", TABLE.slice(0, 2), "b.parquet")
    with pytest.raises(LogError, match=r"b\.parquet: row 0: key .* unsorted or twice"):
        EventLog.open(tmp_path / "log").validate()


def test_a_folder_with_the_name_of_a_part_is_named(tmp_path):
    (tmp_path / "a.parquet").mkdir()
    with pytest.raises(LogError, match=r"a\.parquet: cannot be read: Is a directory"):
        EventLog.open(tmp_path)


def test_every_flip_and_every_cut_of_a_part_is_named_or_harmless(tmp_path):
    """Footer, pages, seal: what is read is what was written, or a LogError that names the file."""
    log = EventLog.from_columns(columns(), META)
    path = log.write(tmp_path / "x.parquet")
    good = path.read_bytes()
    refused = 0
    for at in range(0, len(good), 7):
        flipped = good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :]
        for content in (flipped, good[:at]):
            path.write_bytes(content)
            said, read = "", None
            try:
                read = EventLog.open(path)
                read.validate()
            except LogError as error:
                said, read = str(error), None
            if read is None:
                refused += 1
                assert "x.parquet" in said
            else:
                assert read.metadata == META
                assert read.table.replace_schema_metadata(None).equals(log.table)
    assert refused > len(good) / 7


def test_pages_carry_check_sums(tmp_path):
    """Values that are not compressed, one bit flipped: plausible, but not what was written."""
    path = EventLog.from_columns(columns(), META).write(tmp_path / "x.parquet")
    content = bytearray(path.read_bytes())
    at = bytes(content).index(np.array([3.0, 0.0, 1.0, 1.0], np.float32).tobytes())
    content[at + 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(LogError, match=r"x\.parquet: not a readable Parquet file: .*CRC"):
        list(EventLog.open(path).batches())
    with pytest.raises(LogError, match=r"x\.parquet: not a readable Parquet file: .*CRC"):
        assert EventLog.open(path).table


def test_sequences_are_by_user_in_time():
    sequences = EventLog.from_columns(columns(), META).sequences("a")
    assert sequences.offsets.tolist() == [0, 2, 2, 3, 3]
    assert sequences.items.tolist() == [1, 9, 4]
    assert sequences.clicked.tolist() == [True, False, False]
    assert sequences.columns["like"].tolist() == [0, -1, 1]
    assert EventLog.from_columns(columns(), META).sequences("a", before=0).items.tolist() == [4]
    with pytest.raises(LogError, match="no arm 'c'"):
        EventLog.from_columns(columns(), META).sequences("c")


def test_batches_stream_what_the_table_holds(tmp_path):
    log = EventLog.from_columns(columns(), META)
    part = EventLog.open(log.write(tmp_path / "x.parquet"))
    for source in (log, part):
        batches = list(source.batches(["user", "item"], rows=3))
        assert [b.num_rows for b in batches] == [3, 1]
        assert pa.Table.from_batches(batches)["item"].to_pylist() == [1, 9, 4, 4]


def test_a_tape_of_ragged_blocks_becomes_rows_in_order():
    """Two blocks by hand: users 1, 0 then 1 again; one request shows nothing."""
    roll = Tape(("follow",))

    def block(
        user: list[int], request: list[int], t: list[int], items: list[list[int]], shown: list[int]
    ) -> None:
        grid = np.array(items)
        feedback = Feedback(
            (grid % 2).astype(np.int8),
            np.where(grid > 5, np.nan, grid).astype(np.float32),
            np.array(shown),
            np.array(t) + 1,
            np.zeros(len(user), bool),
            {"follow": np.full(grid.shape, -1, np.int8)},
        )
        zeros = np.zeros(len(user), dtype=np.int64)
        served = Served(Slates(grid, -grid.astype(np.float32)))
        roll.append(Asked(np.array(user), zeros, np.array(request), np.array(t)), served, feedback)

    block([1, 0], [0, 0], [10, 11], [[3, 6, 2], [1, 2, 4]], [2, 3])
    block([1, 2], [1, 0], [12, 13], [[5, 4], [1, 2]], [1, 0])
    rows = tape.rows([roll.columns()], 1, np.arange(10) / 2, ("like", "follow"))
    assert rows.schema == schema(("like", "follow"))
    got = rows.to_pydict()
    assert got["user"] == [0, 0, 0, 1, 1, 1]
    assert got["request"] == [0, 0, 0, 0, 0, 1]
    assert got["position"] == [0, 1, 2, 0, 1, 0]
    assert got["t"] == [11, 11, 11, 10, 10, 12]
    assert got["item"] == [1, 2, 4, 3, 6, 5]
    assert got["watch"] == [1.0, 2.0, 4.0, 3.0, None, 5.0]
    assert got["duration"] == [0.5, 1.0, 2.0, 1.5, 3.0, 2.5]
    assert got["click"] == [True, False, False, True, False, True]
    assert got["like"] == got["follow"] == got["propensity"] == [None] * 6
    assert got["logged"] == [False] * 6
    EventLog(Metadata(("a", "b"), 4, 9), rows).validate()


@pytest.mark.parametrize("most", [1, 4, 5, 1000])
def test_rows_may_come_in_tables_of_any_size(most):
    """Forty requests of three users, some of which show nothing: cut at requests, no row lost."""
    roll, rng = Tape(()), np.random.default_rng(3)
    shown, user = rng.integers(0, 4, 40), rng.integers(0, 3, 40)
    grid = rng.integers(1, 9, (40, 3))
    feedback = Feedback(
        (grid % 2).astype(np.int8),
        grid.astype(np.float32),
        shown,
        np.arange(40) + 1,
        np.zeros(40, bool),
    )
    asked = Asked(user, np.zeros(40, dtype=np.int64), np.arange(40), np.arange(40))
    roll.append(asked, Served(Slates(grid, -grid.astype(np.float32))), feedback)
    whole = tape.rows([roll.columns()], 0, np.zeros(9), ())
    cut = list(tape.tables([roll.columns()], 0, np.zeros(9), (), most=most))
    assert pa.concat_tables(cut).equals(whole)
    assert whole.num_rows == shown.sum()
    assert all(table.num_rows <= most + 2 for table in cut)
    assert len(cut) >= whole.num_rows / (most + 2)


def test_a_column_that_comes_late_is_null_before():
    """Propensities and teams on the second day only; the first day's rows have none, and what was
    never given takes no room.
    """

    def day(
        propensities: list[list[float]] | None, team: list[list[int]] | None
    ) -> dict[str, np.ndarray]:
        roll, grid, zero = Tape(()), np.array([[1, 2]]), np.zeros(1, dtype=np.int64)
        feedback = Feedback(
            np.ones((1, 2), np.int8),
            np.ones((1, 2), np.float32),
            np.array([2]),
            np.array([9]),
            np.array([True]),
        )
        for late in (None, propensities), (None, None):
            slates = Slates(
                grid,
                -grid.astype(np.float32),
                None if late[1] is None else np.array(late[1], dtype=np.float32),
            )
            drafted = None if team is None or late[1] is None else np.array(team, dtype=np.uint8)
            roll.append(
                Asked(zero, zero, np.array([roll.n_requests]), zero),
                Served(slates, None, drafted),
                feedback,
            )
        return roll.columns()

    first, second = day(None, None), day([[0.5, 0.25]], [[1, 0]])
    assert not {"propensity", "team", "channel", "logged"} & set(first)
    rows = tape.rows([first, second], 0, np.zeros(3), ())
    assert rows["propensity"].to_pylist() == [None] * 4 + [0.5, 0.25, None, None]
    assert rows["channel"].to_pylist() == [0] * 8
    assert tape.rows([first, second], 0, np.zeros(3), (), team=1)["item"].to_pylist() == [1]
    assert tape.rows([first], 0, np.zeros(3), (), team=0).num_rows == 4
    assert tape.rows([Tape(()).columns()], 0, np.zeros(3), ()).num_rows == 0


def test_a_tape_survives_saving(tmp_path):
    roll = Tape(())
    one = np.ones((1, 1))
    feedback = Feedback(
        one.astype(np.int8), one.astype(np.float32), np.array([1]), np.array([9]), np.array([True])
    )
    zero = np.zeros(1, dtype=np.int64)
    roll.append(
        Asked(zero, zero, zero, zero),
        Served(Slates(one.astype(np.int64), one.astype(np.float32))),
        feedback,
    )
    roll.save(tmp_path / "x" / "day.npz")
    loaded = load_arrays(Path(tmp_path / "x" / "day.npz"))
    assert {n: v.tolist() for n, v in loaded.items()}.items() >= {
        "item": [1],
        "click": [1],
        "user": [0],
        "shown": [1],
    }.items()
    assert not list((tmp_path / "x").glob("*.part"))
