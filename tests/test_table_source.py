"""Any interaction table: what a column map makes of small files and tables of Python, and what it
refuses by name.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from policies.base import silent
from policies.time import DAY
from simulator import datasets
from simulator.datasets import DataError, table
from simulator.datasets.batches import tabular, write_table
from simulator.datasets.describe import describe
from simulator.log.workspace import Workspace, load_catalogue
from simulator.report import find, write
from simulator.run.executors import Serial
from simulator.run.pipeline import check, simulate
from simulator.scenario.model import Scenario, ScenarioError
from simulator.scenario.parts import Data
from simulator.scenario.tables import READY
from simulator.users.base import Source

MIDNIGHT = 1_714_521_600_000
"""2024-05-01 00:00 UTC, ms."""

COLUMNS = {"user": "who", "item": "what", "time": "when", "click": "yes"}


def read(path: Path, **keys: Any) -> Source:
    keys.setdefault("columns", COLUMNS)
    keys.setdefault("test_days", 1)
    return datasets.read(Data(source="table", path=str(path), **keys), Path())


def rows_of(source: Source) -> list[tuple[Any, Any, int, Any]]:
    """(user id, item id, t, click) of history and future, ids as the table has them."""
    users, items = source.catalogue.users["id"], source.catalogue.items["id"]
    assert source.history is not None
    assert source.future is not None
    rows = []
    for log in (source.history, source.future):
        log.validate()
        for row in log.table.to_pylist():
            user, item = users[row["user"]].item(), items[row["item"]].item()
            rows.append((user, item, row["t"], row["click"]))
    return rows


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return csv(
        tmp_path / "events.csv",
        "who,what,when,yes,other",
        f"007,a,{MIDNIGHT + 1000},1,x",
        f"7,b,{MIDNIGHT + DAY + 5},0,x",
        f"007,b,{MIDNIGHT + 500},,x",
        f"007,a,{MIDNIGHT + 1000},1,y",
        f"7,a,{MIDNIGHT + 2000},true,x",
    )


EXPECTED = [
    ("007", "b", -DAY + 500, None),
    ("007", "a", -DAY + 1000, True),
    ("7", "a", -DAY + 2000, True),
    ("7", "b", 5, False),
]


def test_a_table_is_history_and_its_last_days(events: Path) -> None:
    source = read(events)
    assert rows_of(source) == EXPECTED
    assert source.notes["exact duplicates dropped"] == 1
    assert source.notes["rows read"] == 5
    assert source.notes["columns of events.csv that nothing uses"] == ["other"]
    assert source.notes["first day of the A/B"] == "2024-05-02 (UTC)"


def in_parquet(frame: pd.DataFrame, folder: Path) -> Path:
    pq.write_table(pa.Table.from_pandas(frame), folder / "events.parquet", row_group_size=2)
    return folder / "events.parquet"


def in_arrow(frame: pd.DataFrame, folder: Path) -> Path:
    file = folder / "events.arrow"
    batch = pa.Table.from_pandas(frame)
    with pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_table(batch, max_chunksize=2)
    return file


def in_parts(frame: pd.DataFrame, folder: Path) -> Path:
    """Hive partitions, the user in the names of the folders."""
    home = folder / "parts"
    for user, rows in frame.groupby("who", sort=False):
        (home / f"who={user}").mkdir(parents=True)
        in_parquet(rows.drop(columns="who"), home / f"who={user}")
    (home / "_SUCCESS").write_text("")
    return home


def in_tsv(frame: pd.DataFrame, folder: Path) -> Path:
    file = folder / "events.tsv.gz"
    file.write_bytes(gzip.compress(frame.to_csv(sep="\t", index=False).encode()))
    return file


def in_zst(frame: pd.DataFrame, folder: Path) -> Path:
    file = folder / "events.csv.zst"
    with pa.output_stream(str(file), compression="zstd") as stream:
        stream.write(frame.to_csv(index=False).encode())
    return file


def by_python(frame: pd.DataFrame, folder: Path) -> Path:
    return write_table(frame, folder / "written.parquet")


def by_stream(frame: pd.DataFrame, folder: Path) -> Path:
    batches = pa.Table.from_pandas(frame).to_batches(max_chunksize=2)
    stream = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    return write_table(stream, folder / "streamed.parquet")


@pytest.mark.parametrize(
    "write", [in_parquet, in_arrow, in_parts, in_tsv, in_zst, by_python, by_stream]
)
def test_every_form_of_a_table_is_the_same_log(events: Path, tmp_path: Path, write: Any) -> None:
    frame = pd.read_csv(events, dtype={"who": str, "yes": str})
    source = read(write(frame, tmp_path))
    assert sorted(rows_of(source), key=lambda row: (row[0], row[2])) == EXPECTED


def test_what_does_not_fit_into_memory_is_the_same_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(1)
    n = 500
    frame = pd.DataFrame(
        {
            "who": draw.integers(0, 40, n),
            "what": draw.integers(0, 30, n),
            "when": MIDNIGHT + draw.integers(0, 3 * DAY, n),
            "yes": draw.integers(0, 2, n),
        }
    )
    path = in_parquet(frame, tmp_path)
    whole = read(path)
    monkeypatch.setattr(table, "SORTED", 60)
    parts = read(path)
    assert rows_of(parts) == rows_of(whole)
    assert parts.notes == whole.notes
    assert parts.history is not None
    assert whole.history is not None
    assert parts.history.parts
    one, other = (
        log.write(tmp_path / f"{place}.parquet").read_bytes()
        for place, log in enumerate((parts.history, whole.history))
    )
    assert one == other


@pytest.mark.parametrize(
    ("values", "original"),
    [
        (["007", "7", "07"], ["007", "7", "07"]),
        ([2**63 - 1, -5, 0], [str(2**63 - 1), "-5", "0"]),
        (pa.array([2**64 - 1, 1, 2], pa.uint64()), [str(2**64 - 1), "1", "2"]),
        ([12, 3, 4], [12, 3, 4]),
        (pa.array([1.0, 2.0, 5.0]), [1, 2, 5]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b"]),
        (
            pa.array([UUID(int=one).bytes for one in (1, 2, 3)], pa.binary(16)),
            [str(UUID(int=one)) for one in (1, 2, 3)],
        ),
        (pa.array(["é", "中", "x"], pa.large_string()), ["é", "中", "x"]),
    ],
)
def test_ids_of_any_type_are_kept(tmp_path: Path, values: Any, original: list[Any]) -> None:
    rows = pa.table({"who": values, "what": values, "when": [MIDNIGHT, MIDNIGHT + DAY, MIDNIGHT]})
    path = tmp_path / "ids.parquet"
    pq.write_table(rows, path)
    source = read(path, columns={"user": "who", "item": "what", "time": "when"})
    assert source.catalogue.users["id"].tolist() == original
    assert source.catalogue.items["id"].tolist()[1:] == original


SECOND = MIDNIGHT // 1000


@pytest.mark.parametrize(
    ("times", "spec", "zone"),
    [
        ([SECOND, SECOND + 86400], {}, None),
        ([MIDNIGHT, MIDNIGHT + DAY], {}, None),
        ([MIDNIGHT * 1000, (MIDNIGHT + DAY) * 1000], {}, None),
        ([MIDNIGHT * 10**6, (MIDNIGHT + DAY) * 10**6], {}, None),
        ([SECOND + 0.0, SECOND + 86400.0], {}, None),
        ([str(SECOND), str(SECOND + 86400)], {}, None),
        (["2024-05-01T00:00:00Z", "2024-05-02 02:00:00+02:00"], {}, None),
        (["2024-05-01T02:00:00.000000+0200", "2024-05-02T00:00Z"], {}, None),
        (["2024-05-01", "2024-05-02 00:00:00"], {}, "UTC"),
        (
            ["5/1/2024 12:00:00 AM", "5/2/2024 12:00:00 AM"],
            {"format": "%m/%d/%Y %I:%M:%S %p"},
            "UTC",
        ),
        (pa.array([MIDNIGHT, MIDNIGHT + DAY], pa.timestamp("ms", "Asia/Tokyo")), {}, None),
        (pa.array([MIDNIGHT, MIDNIGHT + DAY], pa.timestamp("ms")), {}, "UTC"),
        (pa.array([SECOND // 86400, SECOND // 86400 + 1], pa.date32()), {}, "UTC"),
    ],
)
def test_times_of_any_form_are_one_clock(
    tmp_path: Path, times: Any, spec: dict[str, str], zone: str | None
) -> None:
    path = tmp_path / "times.parquet"
    pq.write_table(pa.table({"who": [1, 1], "what": [1, 2], "when": times}), path)
    columns = {"user": "who", "item": "what", "time": {"column": "when", **spec}}
    source = read(path, columns=columns, zone=zone)
    assert [row[2] for row in rows_of(source)] == [-DAY, 0]


def test_days_begin_at_midnight_of_the_zone(tmp_path: Path) -> None:
    lines = ["1,1,2024-05-01 23:59:59", "1,2,2024-05-02 00:00:00"]
    path = csv(tmp_path / "x.csv", "who,what,when", *lines)
    columns = {"user": "who", "item": "what", "time": "when"}
    source = read(path, columns=columns, zone="Asia/Shanghai")
    assert [row[2] for row in rows_of(source)] == [-1000, 0]


def test_finer_times_than_ms_decide_the_order(tmp_path: Path) -> None:
    us = MIDNIGHT * 1000
    lines = [f"1,a,{us + 900}", f"1,b,{us + 100}", f"1,c,{us + DAY * 1000}"]
    path = csv(tmp_path / "x.csv", "who,what,when", *lines)
    source = read(path, columns={"user": "who", "item": "what", "time": "when"})
    assert [row[1] for row in rows_of(source)] == ["b", "a", "c"]


def test_ratings_watch_times_and_reactions(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "x.csv",
        "who,what,when,stars,ms,length,liked,where,chance",
        f"1,1,{MIDNIGHT},4.5,1500,10,1,2,.25",
        f"1,2,{MIDNIGHT + DAY},3,,12,,3,1",
    )
    columns = {
        "user": "who",
        "item": "what",
        "time": "when",
        "click": {"column": "stars", "at_least": 4},
        "watch": {"column": "ms", "unit": "ms"},
        "duration": "length",
        "like": "liked",
        "tab": "where",
        "propensity": "chance",
    }
    source = read(path, columns=columns)
    assert source.history is not None
    assert source.future is not None
    (first,), (second,) = (log.table.to_pylist() for log in (source.history, source.future))
    names = ("click", "watch", "duration", "like", "tab", "propensity")
    assert [first[name] for name in names] == [True, 1.5, 10, True, 2, 0.25]
    assert [second[name] for name in names] == [False, None, 12, None, 3, 1]
    assert source.catalogue.items["duration"].tolist() == [0, 10, 12]
    assert source.history.metadata.propensity == "marginal"


def test_without_a_column_of_clicks_every_row_is_one(tmp_path: Path) -> None:
    path = csv(tmp_path / "x.csv", "who,what,when", f"1,1,{MIDNIGHT}", f"1,2,{MIDNIGHT + DAY}")
    source = read(path, columns={"user": "who", "item": "what", "time": "when"})
    assert [row[3] for row in rows_of(source)] == [True, True]


def places(source: Source) -> list[tuple[int, int, int]]:
    assert source.history is not None
    rows = source.history.table.to_pylist()
    return [(row["session"], row["request"], row["position"]) for row in rows]


def test_sessions_end_with_a_pause_or_where_the_table_says(tmp_path: Path) -> None:
    lines = [
        f"1,{item},{MIDNIGHT + 1000 * second},{visit},{slate}"
        for item, second, visit, slate in [
            (1, 0, "A", "r1"),
            (2, 0, "A", "r1"),
            (3, 10, "A", "r2"),
            (4, 5000, "A", "r3"),
            (5, 5001, "B", "r4"),
            (6, 5002, "A", "r5"),
            (7, 86400, "A", "r6"),
        ]
    ]
    path = csv(tmp_path / "x.csv", "who,what,when,visit,slate", *lines)
    basic = {"user": "who", "item": "what", "time": "when"}
    by_gap = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0)]
    assert places(read(path, columns=basic, session_gap=60)) == by_gap
    source = read(path, columns={**basic, "session": "visit", "request": "slate"})
    by_id = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0), (1, 0, 0), (2, 0, 0)]
    assert places(source) == by_id
    words = "sessions in pieces, for others of the user came between"
    assert source.notes[words] == 1


def test_a_row_may_be_a_whole_slate(tmp_path: Path) -> None:
    rows = {
        "who": ["u", "u"],
        "shown": [["a", "b"], ["b", "c", "d"]],
        "yes": [[0, 1], [1, 0, None]],
        "when": [MIDNIGHT, MIDNIGHT + DAY],
    }
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    columns = {"user": "who", "item": "shown", "click": "yes", "time": "when"}
    source = read(tmp_path / "x.parquet", columns=columns)
    assert [row[1:] for row in rows_of(source)] == [
        *(("a", -DAY, False), ("b", -DAY, True)),
        *(("b", 0, True), ("c", 0, False), ("d", 0, None)),
    ]
    assert places(source) == [(0, 0, 0), (0, 0, 1)]


def test_features_of_items_and_users(tmp_path: Path) -> None:
    path = csv(tmp_path / "x.csv", "who,what,when", f"1,a,{MIDNIGHT}", f"2,b,{MIDNIGHT + DAY}")
    csv(
        tmp_path / "items.csv",
        "id,kind,price,tags,ms",
        "b,x,1.5,t2|t1,9000",
        "z,y,,,",
        "a,x,2,t1,",
    )
    frame = pd.DataFrame({"name": [2, 9], "age": [30, 40], "vip": [True, False]})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "users.parquet")
    source = read(
        path,
        columns={"user": "who", "item": "what", "time": "when"},
        items={
            "path": "items.csv",
            "id": "id",
            "duration": {"column": "ms", "unit": "ms"},
            "attributes": {"column": "tags", "separator": "|"},
        },
        users={"path": "users.parquet", "id": "name"},
    )
    catalogue = source.catalogue
    assert catalogue.items["id"].tolist() == ["", "a", "b", "z"]
    assert catalogue.items["duration"].tolist() == [0, 0, 9, 0]
    assert catalogue.items["kind"].tolist() == [0, 1, 1, 2]
    assert np.array_equal(catalogue.items["price"], np.float32([np.nan, 2, 1.5, np.nan]), True)
    assert catalogue.attributes is not None
    offsets, codes = catalogue.attributes
    assert offsets.tolist() == [0, 0, 1, 3, 3]
    assert codes.tolist() == [2, 1, 2]  # t2 = 1, t1 = 2
    assert catalogue.users["age"].tolist() == [0, 30]
    assert catalogue.users["vip"].tolist() == [0, 1]
    assert source.notes["items of items.csv that the log never shows, in the catalogue"] == 1
    assert source.notes["users of the log that users.parquet does not list"] == 1


FAULTS: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "a column that is not there": (
        ["who,what,when,yes"],
        {"columns": {**COLUMNS, "like": "liked"}},
        r"x\.csv: no column 'liked', which data\.columns\.like names; it has who, what, when, yes",
    ),
    "a count": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},1", "", f"1,1,{MIDNIGHT},3"],
        {},
        r"x\.csv: line 4: yes \(columns\.click\) must be 0 or 1; got '3': say which numbers are a"
        r" yes, columns: \{click: \{column: yes, at_least: \.\.\.\}\}",
    ),
    "no user": (
        ["who,what,when,yes", f" ,1,{MIDNIGHT},1"],
        {},
        r"line 2: who \(columns\.user\) must be there; got None: data\.missing: drop",
    ),
    "times of several units": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},1", f"1,2,{SECOND},1"],
        {},
        r"numbers from 1714521600 to 1714521600000 are no times since 1970 in one of s, ms, us and"
        r" ns: say the unit, columns: \{time: \{column: when, unit: s\}\}",
    ),
    "times from no date": (
        ["who,what,when,yes", "1,1,5,1"],
        {},
        r"line 2: when \(columns\.time\): numbers from 5 to 5 are no times since 1970",
    ),
    "times of another unit": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},1"],
        {"columns": {**COLUMNS, "time": {"column": "when", "unit": "s"}}},
        r"must be a time in s before the year 10000; got '1714521600000': is it another unit\?",
    ),
    "times without a zone": (
        ["who,what,when,yes", "1,1,2024-05-01 10:00:00,1"],
        {},
        r"a time without a zone \(2024-05-01 10:00:00\): say whose clock it is, data\.zone: UTC",
    ),
    "no time": (
        ["who,what,when,yes", "1,1,2024-05-01T10:00:00Z,1", "1,1,2024-02-30T10:00:00Z,1"],
        {},
        r"line 3: when \(columns\.time\) must be a time as ISO 8601, .*got '2024-02-30T10:00:00Z'",
    ),
    "a short line": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},1", f"1,1,{MIDNIGHT}"],
        {},
        r"x\.csv: line 3: must have 4 cells as the header; got 3: '1,1,1714521600000'",
    ),
    "an open quote": (
        ["who,what,when,yes", f'"1,1,{MIDNIGHT},1', f"1,1,{MIDNIGHT},1"],
        {},
        r"x\.csv: line 2: a quoted cell must end on its line",
    ),
    "a column twice": (
        ["who,what,when,yes,who"],
        {},
        r"two columns are called 'who', columns 1 and 5",
    ),
    "no rows": (["who,what,when,yes"], {}, r"x\.csv: no interactions there"),
    "no history": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},1"],
        {},
        r"data\.test_days = 1 leaves no history: all rows are of the last 1 days",
    ),
    "a negative watch time": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},-1"],
        {"columns": {"user": "who", "item": "what", "time": "when", "watch": "yes"}},
        r"yes \(columns\.watch\) must be a time in s of 0 or more; got '-1'",
    ),
    "no table of features": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},1"],
        {"items": {"path": "nowhere.csv", "id": "id"}},
        r"nowhere\.csv: no such file, which data\.items\.path names",
    ),
    "an id twice": (
        ["who,what,when,yes", f"1,1,{MIDNIGHT},1"],
        {"items": {"path": "x.csv", "id": "who"}, "users": {"path": "twice.csv", "id": "a"}},
        r"twice\.csv: line 4: a \(data\.users\.id\) must be unique; 'u' is row 0 already",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_by_line_column_rule_and_key(tmp_path: Path, fault: str) -> None:
    lines, keys, message = FAULTS[fault]
    csv(tmp_path / "twice.csv", "a,b", "u,1", "v,1", "u,2")
    with pytest.raises(DataError, match=message):
        read(csv(tmp_path / "x.csv", *lines), **keys)


def test_a_fault_in_parquet_is_named_by_its_row_group(tmp_path: Path) -> None:
    times = [MIDNIGHT, MIDNIGHT, MIDNIGHT + DAY, None]
    rows = pa.table({"who": [1] * 4, "what": [1, 2, 3, 4], "when": times, "yes": [1] * 4})
    pq.write_table(rows, tmp_path / "x.parquet", row_group_size=3)
    with pytest.raises(DataError, match=r"x\.parquet: row group 1, row 0: when \(columns\.time\)"):
        read(tmp_path / "x.parquet")
    source = read(tmp_path / "x.parquet", missing="drop")
    assert source.notes["rows without time, dropped"] == 1
    assert len(rows_of(source)) == 3


def test_a_file_of_another_kind_says_so(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.csv")
    with pytest.raises(
        DataError, match=r"x\.csv: is no text, but a Parquet file: call it \.parque"
    ):
        tabular(tmp_path / "x.csv")
    (tmp_path / "y.parquet").write_text("a,b")
    with pytest.raises(DataError, match=r"y\.parquet: not a readable Parquet file"):
        tabular(tmp_path / "y.parquet")
    (tmp_path / "z.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(DataError, match=r"z\.csv: line 2: must be UTF-8 text"):
        next(tabular(tmp_path / "z.csv").batches(["a"]))
    with pytest.raises(DataError, match=r"an object that gives Arrow streams .*; got list"):
        tabular([1, 2])


ODD_TYPES: dict[str, pa.Array] = {
    "struct": pa.array([{"a": 1}, {"a": 2}]),
    "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    "decimal": pa.array([1, 2], pa.decimal128(5, 2)),
    "time": pa.array([1, 2], pa.time32("s")),
    "duration": pa.array([1, 2], pa.duration("s")),
    "bytes": pa.array([b"\xff", b"a"]),
    "bool": pa.array([True, False]),
    "nothing": pa.nulls(2),
    "lists": pa.array([[[1]], [[2]]]),
    "lists of bytes": pa.array([[b"\xff"], [b"a"]]),
    "lists of nothing": pa.array([[], []], pa.list_(pa.null())),
    "dictionary of numbers": pa.array([1, 2]).dictionary_encode(),
    "half floats": pa.array([np.float16(1), np.float16(0)]),
    "infinite": pa.array([np.inf, np.nan]),
    "large lists": pa.array([[1], [0]], pa.large_list(pa.int32())),
    "far dates": pa.array([2**30, -(2**30)], pa.date32()),
    "nanoseconds": pa.array([1, 2], pa.timestamp("ns")),
}


@pytest.mark.parametrize("role", ["user", "item", "time", "click", "watch", "position", "session"])
@pytest.mark.parametrize("kind", ODD_TYPES)
def test_no_type_of_a_column_is_more_than_refused(tmp_path: Path, kind: str, role: str) -> None:
    times = [MIDNIGHT, MIDNIGHT + DAY]
    columns = {"user": "user", "item": "item", "time": "time", role: "odd"}
    rows = {"user": [1, 2], "item": [1, 2], "time": times, "odd": ODD_TYPES[kind]}
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table(rows), path)
    with suppress(DataError):
        rows_of(read(path, columns=columns))
    pq.write_table(pa.table({**rows, role: rows.pop("odd")}), path)
    with suppress(DataError):
        describe(path)


def _published() -> Iterator[tuple[str, dict[str, list[str]], str, list[Any]]]:
    """(format, files as published, the file that is given, (user, item, click) in order)."""
    day = SECOND + 86400
    yield (
        "movielens",
        {
            "ratings.csv": [
                "userId,movieId,rating,timestamp",
                f"1,31,2.5,{SECOND}",
                f"1,1029,4.0,{day}",
            ],
            "movies.csv": [
                "movieId,title,genres",
                '31,"Dangerous Minds, The (1995)",Drama',
                "1029,Dumbo (1941),Animation|Children|Drama|Musical",
            ],
        },
        ".",
        [(1, 31, False), (1, 1029, True)],
    )
    yield (
        "movielens-100k",
        {
            "u.data": [f"196\t242\t3\t{SECOND}", f"186\t302\t5\t{day}"],
            "u.user": ["196|49|M|writer|55105", "186|39|F|executive|00000"],
        },
        ".",
        [(196, 242, False), (186, 302, True)],
    )
    yield (
        "movielens-1m",
        {
            "ratings.dat": [f"1::1193::5::{SECOND}", f"1::661::3::{day}"],
            "movies.dat": [
                "661::James and the Giant Peach::Animation|Musical",
                "1193::Misérables::Drama",
            ],
            "users.dat": ["1::F::1::10::48067"],
        },
        ".",
        [(1, 1193, True), (1, 661, False)],
    )
    yield (
        "kuairec",
        {
            "big_matrix.csv": [
                "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio",
                "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2733965",
                "0,9598,30000,10984,2020-07-06 00:13:41.297,20200706,1593965621.297,2.731",
                "0,7,30000,10984,,,,2.731",
            ],
            "item_categories.csv": ["video_id,feat", '3649,"[27, 9]"', "9598,[8]"],
            "user_features.csv": [
                "user_id,user_active_degree,is_lowactive_period",
                "0,high_active,0",
            ],
        },
        "big_matrix.csv",
        [(0, 3649, False), (0, 9598, True)],
    )
    head = (
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
        "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
        "is_profile_enter,is_rand,tab"
    )
    first = "0,4354972,20220409,900,1649467982289,0,0,0,0,0,0,0,0,70100,0,0,0,0,0"
    second = "0,2528540,20220410,900,1649554382289,1,1,0,0,0,0,1,5332,11450,0,0,0,0,1"
    for size, names in (
        ("1k", ("4_08_to_4_21_1k", "4_22_to_5_08_1k")),
        ("27k", ("4_08_to_4_21_27k_part1", "4_08_to_4_21_27k_part2")),
    ):
        yield (
            "kuairand",
            {
                f"log_standard_{names[0]}.csv": [head, first],
                f"log_standard_{names[1]}.csv": [head, second],
                f"user_features_{size}.csv": ["user_id,user_active_degree", "0,full_active"],
                f"video_features_basic_{size}.csv": [
                    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,"
                    "video_duration,server_width,server_height,music_id,music_type,tag",
                    '4354972,5,NORMAL,2022-04-01,Kmovie,1.0,70100.0,720,1280,2,9.0,"12,65"',
                    "2528540,6,AD,2022-04-02,Kmovie,1.0,11450.0,720,1280,2,9.0,",
                ],
            },
            ".",
            [(0, 4354972, False), (0, 2528540, True)],
        )
    yield (
        "mind",
        {
            "behaviors.tsv": [
                "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0",
                "2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0",
            ],
            "news.tsv": [
                'N55689\tsports\tnfl\tA "quote\tText\thttps://x\t[]\t[]',
                "N35729\tnews\tworld\tTitle\tText\thttps://y\t[]\t[]",
            ],
        },
        "behaviors.tsv",
        [("U13740", "N55689", True), ("U13740", "N35729", False), ("U91836", "N20678", False)],
    )
    yield (
        "criteo-attribution",
        {
            "criteo_attribution_dataset.tsv": [
                "timestamp\tuid\tcampaign\tconversion\tconversion_timestamp\tconversion_id"
                "\tattribution\tclick\tclick_pos\tclick_nb\tcost\tcpo\ttime_since_last_click\tcat1",
                "0\t20073966\t22589171\t0\t-1\t-1\t0\t0\t-1\t-1\t0.00001\t0.390794\t-1\t5824233",
                "90000\t28474333\t18975823\t0\t-1\t-1\t0\t1\t-1\t-1\t0.000183\t0.149\t8879\t138937",
            ]
        },
        "criteo_attribution_dataset.tsv",
        [(20073966, 22589171, False), (28474333, 18975823, True)],
    )


@pytest.mark.parametrize("case", [*_published()], ids=lambda case: f"{case[0]}-{len(case[1])}")
def test_published_data_sets_are_read_by_their_name(tmp_path: Path, case: Any) -> None:
    name, files, given, expected = case
    for file, lines in files.items():
        encoding = READY[name].get("items", {}).get("text", {}).get("encoding", "utf-8")
        (tmp_path / file).write_text("\n".join(lines) + "\n", encoding=encoding)
    data = Data(source="table", path=str(tmp_path / given), format=name, test_days=1)
    source = datasets.read(data, Path())
    assert [(user, item, click) for user, item, _, click in rows_of(source)] == expected
    sides = [
        file
        for file in files
        if file.startswith(("movies", "item_", "u.user", "users", "user_", "video", "news"))
    ]
    assert sorted(source.notes.get("side files read", [])) == sorted(sides)


def test_categories_of_kuairec_are_attributes(tmp_path: Path) -> None:
    files = next(case[1] for case in _published() if case[0] == "kuairec")
    for file, lines in files.items():
        csv(tmp_path / file, *lines)
    data = Data(source="table", path=str(tmp_path), format="kuairec", test_days=1)
    catalogue = datasets.read(data, Path()).catalogue
    assert catalogue.attributes is not None
    offsets, codes = catalogue.attributes
    assert codes[offsets[1] : offsets[2]].tolist() == [27, 9]
    assert codes[offsets[2] : offsets[3]].tolist() == [8]


def test_tenrec_has_no_times_and_keeps_the_last_clicks_back(tmp_path: Path) -> None:
    path = csv(
        tmp_path / "QK-video.csv",
        "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age",
        "1,4,1,0,0,0,1,1,1,4",
        "1,1201,1,0,1,0,1,1,1,4",
        "1,4,0,0,0,0,1,0,1,4",
        "1,311,1,1,0,1,0,1,1,4",
        "2,4,1,0,0,0,1,1,1,4",
    )
    source = datasets.read(Data(source="table", path=str(path), format="tenrec"), Path())
    assert rows_of(source) == [
        (1, 4, -3000, True),
        (1, 1201, -2000, True),
        (1, 4, -1000, False),
        (2, 4, -1000, True),
        (1, 311, 0, True),
    ]
    assert source.future is not None
    assert source.future.table["forward"].to_pylist() == [True]
    assert source.notes["users held out"] == 1


def of_kuairand(source: Source) -> pd.DataFrame:
    """The A/B with the ids as published, without the numbers of the house."""
    assert source.future is not None
    rows = source.future.table.drop_columns(["channel", "propensity"]).to_pandas()
    rows["user"] = source.catalogue.users["id"][rows["user"]]
    rows["item"] = source.catalogue.items["id"][rows["item"]]
    return rows.sort_values(["user", "session", "request", "position"], ignore_index=True)


def scenario_on(events: Path, **data: Any) -> Scenario:
    section = {"source": "table", "path": str(events), "columns": COLUMNS, **data}
    return Scenario.model_validate(
        {
            "name": "mine",
            "users": {"kind": "held_out"},
            "days": 1,
            "data": section,
            "serving": {"slate": 2, "recall": 2},
            "arms": {"popularity": {"policy": "popularity"}, "random": {"policy": "random"}},
            "engine": {"executor": "serial", "shards": 1},
        }
    )


def test_a_run_keeps_the_ids_and_what_was_counted(events: Path, tmp_path: Path) -> None:
    columns = {role: name for role, name in COLUMNS.items() if role != "click"}
    simulate(scenario_on(events, columns=columns, test_days=1), tmp_path / "run", folder=tmp_path)
    run = Workspace(tmp_path / "run")
    catalogue = load_catalogue(run.models / "catalogue.npz")
    assert catalogue.users["id"].tolist() == ["007", "7"]
    assert catalogue.items["id"].tolist() == ["", "a", "b"]
    assert run.notes["exact duplicates dropped"] == 1


def test_the_report_names_items_as_the_table_does(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    names = ["0007", "7", "b3f1c2d4-aaaa-4bbb-8ccc-1234567890ab", str(2**63 + 5), "7.0"]
    lines = []
    for user, day, request in itertools.product(range(40), range(3), range(4)):
        time = MIDNIGHT + day * DAY + request * 60_000
        lines.append(f"u{user},{names[draw.integers(5)]},{time},{draw.integers(2)}")
    events = csv(tmp_path / "events.csv", "who,what,when,yes", *lines)
    scenario = scenario_on(events, test_days=1)
    logged = {**scenario.resolved(), "users": {"kind": "logged"}}
    simulate(Scenario.model_validate(logged), tmp_path / "run", folder=tmp_path)
    content = write(find(tmp_path / "run")[0], tmp_path / "report", run=tmp_path / "run")
    assert content.supply is not None
    for arm in content.arms:
        shown = [one for one in content.supply.most_shown if one.arm == arm]
        assert {one.id for one in shown} == set(names)
        assert sum(one.share for one in shown) == pytest.approx(1.0)
        assert [one.impressions for one in shown] == sorted(
            (one.impressions for one in shown), reverse=True
        )
    assert "b3f1c2d4-aaaa-4bbb-8ccc-1234567890ab" in (tmp_path / "report" / "report.md").read_text()


def test_a_check_looks_for_the_columns(events: Path, tmp_path: Path) -> None:
    scenario = scenario_on(events, columns={**COLUMNS, "watch": "seconds"})
    message = r"data\.path: .*no column 'seconds', which data\.columns\.watch names"
    with pytest.raises(ScenarioError, match=message):
        check(scenario, tmp_path, Serial(silent))


@pytest.mark.data
def test_a_map_of_kuairand_is_its_reader(data_root: Path) -> None:
    """But for rows that differ only in columns that the map does not read."""
    path = str(data_root / "kuairand")
    known = datasets.read(Data(source="kuairand", path=path), Path())
    mapped = datasets.read(Data(source="table", path=path, format="kuairand"), Path())
    expected, rows = of_kuairand(known), of_kuairand(mapped)
    expected = expected.drop_duplicates([name for name in expected.columns if name != "position"])
    places = expected.groupby(["user", "session", "request"]).cumcount()
    expected = expected.assign(position=places.astype(rows["position"].dtype))
    pd.testing.assert_frame_equal(rows, expected[rows.columns].reset_index(drop=True))


def test_days_that_are_left_out_are_those_of_the_log():
    content = {
        "name": "mine",
        "users": {"kind": "logged"},
        "data": {
            "source": "table",
            "path": "t.csv",
            "columns": {"user": "u", "item": "i", "time": "t"},
        },
        "arms": {"random": {"policy": "random"}},
    }
    assert Scenario.model_validate(content).days == 2
    content["data"]["test_days"] = 9
    assert Scenario.model_validate(content).days == 5
    with pytest.raises(ValidationError, match=r"must be at most data.test_days \(9\); got 10"):
        Scenario.model_validate({**content, "days": 10})
    shorter = Scenario.model_validate({**content, "data": {**content["data"], "test_days": 1}})
    assert "days: 1" in shorter.to_yaml()


def test_one_cell_that_is_no_number_among_times_is_named(tmp_path):
    """Two exports that were put together: the second header is among the rows."""
    rows = "".join(f"a,b,{1_714_521_600 + i}\n" for i in range(4))
    (tmp_path / "t.csv").write_text(f"user,item,time\n{rows}user,item,time\n{rows}")
    columns = {"user": "user", "item": "item", "time": "time"}
    data = Data(source="table", path=str(tmp_path / "t.csv"), columns=columns)
    with pytest.raises(DataError, match=r"line 6: time \(columns.time\) must be a time: a number"):
        datasets.read(data, tmp_path)


def test_a_relation_of_duckdb_is_a_table(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as database:
        relation = database.sql(
            "select lpad(i::varchar, 4, '0') as user, i % 5 as item,"
            " to_timestamp(1714521600 + 300 * i) as time from range(2000) rows(i)"
        )
        path = write_table(relation, tmp_path / "t.parquet")
    columns = {"user": "user", "item": "item", "time": "time"}
    data = Data(source="table", path=str(path), columns=columns)
    source = datasets.read(data, tmp_path)
    assert source.catalogue.n_users == 2000
    assert {"0000", "1999"} <= set(source.catalogue.users["id"])
