"""Readers: published files as they are -> Source; every fault named by file and line. Small files
are made here.
"""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policies.base import Catalogue
from policies.time import DAY
from simulator import datasets
from simulator.datasets import DataError
from simulator.datasets.delimited import ColumnRule, codes, feature, read_csv
from simulator.datasets.numbering import Numbering
from simulator.datasets.sequences import leave_out
from simulator.datasets.sessions import sessions
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.scenario.parts import Data
from tests.worlds import KUAIRAND_HEAD, MIDNIGHT, kuairand_row


@pytest.fixture
def kuairand_folder(tmp_path: Path) -> Path:
    """Two log files with two exact duplicates, one user over two days, a random exposure, features
    and a sequence.
    """
    standard = [
        kuairand_row(70, 9, MIDNIGHT + 5000, click=1),
        kuairand_row(70, 4, MIDNIGHT + 65_000),
        kuairand_row(70, 9, MIDNIGHT + 5000, click=1),  # twice
        kuairand_row(12, 4, MIDNIGHT + 5000, duration=0),
        kuairand_row(70, 6, MIDNIGHT + DAY + 1000, tab=0),
        kuairand_row(70, 4, MIDNIGHT + DAY + 1000, click=1, tab=0),
        kuairand_row(70, 9, MIDNIGHT + DAY + 9_000_000),
        kuairand_row(70, 9, MIDNIGHT + 5000, click=1),  # thrice
    ]
    with gzip.open(tmp_path / "log_standard_1_pure.csv.gz", "wt") as stream:
        stream.write("\n".join([KUAIRAND_HEAD, *standard]) + "\n")
    (tmp_path / "log_random_2_pure.csv").write_text(
        "\n".join([KUAIRAND_HEAD, kuairand_row(12, 6, MIDNIGHT + DAY, rand=1)]) + "\n"
    )
    (tmp_path / "user_features_pure.csv").write_text(
        "user_id,user_active_degree,follow_user_num,fans_user_num,friend_user_num,register_days\n"
        "70,high,5,0,0,10\n12,low,,1,1,3\n99,high,1,1,1,1\n"
    )
    (tmp_path / "video_features_basic_pure.csv").write_text(
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,music_id,music_type,tag\n"
        '4,50,NORMAL,2022-04-20,A,0,30000,7,1,"3,8"\n6,50,AD,2022-04-21,B,0,,7,,\n9,51,NORMAL,2022-04-25,A,0,9000,8,1,8\n'
        "77,51,NORMAL,2022-04-25,A,0,9000,8,1,3\n"
    )
    sequences = pa.table(
        {
            "user_id": [12, 33],
            "last_time_ms": [MIDNIGHT - 1000, MIDNIGHT - 2000],
            "watch_seq": [[9, 6], [4]],
            "like_seq": [[6], []],
            "long_watch_seq": [[6], [9]],
        }
    )
    pq.write_table(sequences, tmp_path / "user_sequences_1.parquet")
    return tmp_path


def test_kuairand_reads_duplicates_days_and_ids(kuairand_folder: Path) -> None:
    source = datasets.read(Data(source="kuairand", path=str(kuairand_folder), test_days=1), Path())
    assert source.notes["impressions read"] == 9
    assert source.notes["exact duplicates dropped"] == 2
    assert source.notes["sequence users"] == 2
    assert source.catalogue.n_items == 4  # 4, 6, 9 of the log, 77 of the table
    assert (
        source.catalogue.n_users == 3
    )  # 70, 12 of the log, 33 of the sequences; 99 has features only
    assert source.notes["users of user_features that the log never shows, left out"] == 1
    assert source.notes["users of the log that user_features does not list"] == 1  # 33
    assert (
        source.notes["items of video_features_basic that the log never shows, in the catalogue"]
        == 1
    )
    assert source.history is not None
    assert source.future is not None
    source.history.validate()
    source.future.validate()
    users, items = source.catalogue.users["id"], source.catalogue.items["id"]
    future = source.future.table.to_pydict()
    told = [
        (int(users[u]), int(items[i]), t)
        for u, i, t in zip(future["user"], future["item"], future["t"], strict=True)
    ]
    assert sorted(told) == [(12, 6, 0), (70, 4, 1000), (70, 6, 1000), (70, 9, 9_000_000)]
    assert future["t"] == [t for t in future["t"] if t >= 0]
    assert max(source.history.table["t"].to_pylist()) < 0


def test_kuairand_requests_and_sessions_follow_the_stated_rules(kuairand_folder: Path) -> None:
    source = datasets.read(Data(source="kuairand", path=str(kuairand_folder), test_days=1), Path())
    assert source.future is not None
    rows = source.future.table.to_pylist()
    seventy = [r for r in rows if source.catalogue.users["id"][r["user"]] == 70]
    assert [(r["session"], r["request"], r["position"]) for r in seventy] == [
        (0, 0, 0),
        (0, 0, 1),
        (1, 0, 0),
    ]
    assert [r["tab"] for r in seventy] == [0, 0, 1]
    random = [r for r in rows if source.catalogue.users["id"][r["user"]] == 12]
    assert [r["channel"] for r in random] == [1]
    assert source.future.metadata.channels == ("random",)


def test_kuairand_sequences_come_first_and_know_only_long_views(kuairand_folder: Path) -> None:
    source = datasets.read(Data(source="kuairand", path=str(kuairand_folder), test_days=1), Path())
    assert source.history is not None
    who = int(np.flatnonzero(source.catalogue.users["id"] == 12)[0])
    rows = [r for r in source.history.table.to_pylist() if r["user"] == who]
    items = [int(source.catalogue.items["id"][r["item"]]) for r in rows]
    assert items == [9, 6, 4]
    assert [r["click"] for r in rows] == [None, True, False]
    assert [r["like"] for r in rows] == [False, True, False]
    assert [r["watch"] for r in rows] == [None, None, 1.0]
    assert [r["session"] for r in rows] == [0, 0, 1]


def test_kuairand_sequence_that_reaches_into_the_log_is_not_counted_twice(
    kuairand_folder: Path,
) -> None:
    stored = pq.read_table(kuairand_folder / "user_sequences_1.parquet")
    late = stored.set_column(1, "last_time_ms", pa.array([MIDNIGHT + 5000, MIDNIGHT - 2000]))
    pq.write_table(late, kuairand_folder / "user_sequences_1.parquet")
    source = datasets.read(Data(source="kuairand", path=str(kuairand_folder), test_days=1), Path())
    assert source.notes["sequence users left out, they reach into the log"] == 1
    assert source.history is not None
    who = int(np.flatnonzero(source.catalogue.users["id"] == 12)[0])
    assert [r["item"] for r in source.history.table.to_pylist() if r["user"] == who] == [
        int(np.flatnonzero(source.catalogue.items["id"] == 4)[0])
    ]


def test_kuairand_features(kuairand_folder: Path) -> None:
    source = datasets.read(Data(source="kuairand", path=str(kuairand_folder), test_days=1), Path())
    items = source.catalogue.items
    place = {int(original): number for number, original in enumerate(items["id"])}
    assert items["duration"][[place[4], place[6], place[9]]].tolist() == [
        30.0,
        20.0,
        9.0,
    ]  # 6: from the log
    assert items["author"][place[4]] == items["author"][place[6]] != items["author"][place[9]]
    assert items["uploaded"][place[4]] == pytest.approx(6.0)
    assert source.catalogue.attributes is not None
    offsets, ids = source.catalogue.attributes
    tags = {v: set(ids[offsets[place[v]] : offsets[place[v] + 1]].tolist()) for v in (4, 6, 9, 77)}
    assert len(tags[4]) == 2
    assert tags[6] == set()
    assert tags[9] < tags[4]
    assert tags[77] == tags[4] - tags[9]
    follow = source.catalogue.users["follow_user_num"]
    assert np.isnan(follow[source.catalogue.users["id"] == 12])
    assert follow[source.catalogue.users["id"] == 70] == 5


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            kuairand_row(1, 2, MIDNIGHT).replace(",0,0,0,0,0,0,", ",2,0,0,0,0,0,", 1),
            "line 3: is_click must be an integer in [0, 1]; got '2'",
        ),
        (kuairand_row(1, 2, MIDNIGHT) + ",5", "line 3: must have 19 cells as the header; got 20"),
        (
            kuairand_row(-1, 2, MIDNIGHT),
            "line 3: user_id must be an integer in [0, 2^63 - 1]; got '-1'",
        ),
        (
            kuairand_row(1, 2, 5),
            "line 3: time_ms must be an integer in [1000000000000, 9999999999999]; got '5'",
        ),
        (
            kuairand_row(1, 2, MIDNIGHT).replace("20220425", ""),
            "line 3: date must be an integer in [19700101, 99991231]; got ''",
        ),
        (
            kuairand_row(1, 2, MIDNIGHT).replace("1000", "1e3", 1),
            "line 3: play_time_ms must be an integer in [0, 2^63 - 1]; got '1e3'",
        ),
        (",", "line 3: must have 19 cells as the header; got 2"),
    ],
)
def test_kuairand_names_every_bad_row(tmp_path: Path, bad: str, said: str) -> None:
    file = tmp_path / "log_standard_1_pure.csv"
    file.write_text(
        "\n".join(
            [KUAIRAND_HEAD, kuairand_row(1, 2, MIDNIGHT), bad, kuairand_row(1, 2, MIDNIGHT + 1)]
        )
        + "\n"
    )
    with pytest.raises(DataError) as caught:
        datasets.read(Data(source="kuairand", path=str(tmp_path)), Path())
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


def test_kuairand_missing_column_is_named_with_its_near_miss(tmp_path: Path) -> None:
    (tmp_path / "log_standard_1_pure.csv").write_text(
        KUAIRAND_HEAD.replace("long_view", "longview") + "\n" + kuairand_row(1, 2, MIDNIGHT) + "\n"
    )
    with pytest.raises(DataError, match="line 1: no column 'long_view'; did 'longview' mean it"):
        datasets.read(Data(source="kuairand", path=str(tmp_path)), Path())


def test_kuairand_truncated_gzip_is_named(tmp_path: Path, kuairand_folder: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    whole = (kuairand_folder / "log_standard_1_pure.csv.gz").read_bytes()
    (broken / "log_standard_1_pure.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"log_standard_1_pure\.csv\.gz"):
        datasets.read(Data(source="kuairand", path=str(broken)), Path())


def test_kuairand_without_logs_or_history_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no log there: expected files named"):
        datasets.read(Data(source="kuairand", path=str(tmp_path)), Path())
    (tmp_path / "log_standard_1_pure.csv").write_text(
        KUAIRAND_HEAD + "\n" + kuairand_row(1, 2, MIDNIGHT) + "\n"
    )
    with pytest.raises(DataError, match="leaves no history"):
        datasets.read(Data(source="kuairand", path=str(tmp_path)), Path())


def test_missing_path_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABTEST_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError) as caught:
        datasets.read(Data(source="s3rec", path="no/such.txt"), tmp_path)
    for place in (tmp_path / "elsewhere" / "no" / "such.txt", tmp_path / "no" / "such.txt"):
        assert str(place) in str(caught.value)
    assert "ABTEST_DATA" in str(caught.value)


def test_environment_comes_before_the_scenario_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text("1 2 3\n")
    monkeypatch.setenv("ABTEST_DATA", str(tmp_path / "a"))
    assert datasets.locate("x.txt", tmp_path / "b") == tmp_path / "a" / "x.txt"
    monkeypatch.delenv("ABTEST_DATA")
    assert datasets.locate("x.txt", tmp_path / "b") == tmp_path / "b" / "x.txt"


def test_sessions_by_hand() -> None:
    user = np.array([0, 0, 0, 0, 0, 2, 2])
    t = np.array([0, 0, 1000, 1_801_000, 3_601_001, 0, 5])
    session, request, position = sessions(user, t, 1800.0)
    assert session.tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert request.tolist() == [0, 0, 1, 2, 0, 0, 1]
    assert position.tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_session_too_long_for_the_log_is_refused() -> None:
    n = 65_537
    with pytest.raises(DataError, match="session_gap smaller"):
        sessions(np.zeros(n, dtype=np.int64), np.arange(n), 1800.0)


def test_numbering_is_by_first_appearance_and_inverts() -> None:
    numbering = Numbering.by_appearance(np.array([9, 2, 9]), np.array([4, 2]), base=1)
    assert numbering.original.tolist() == [9, 2, 4]
    assert numbering(np.array([4, 9, 2])).tolist() == [3, 1, 2]


def test_tables_read_gzip_codes_and_features(tmp_path: Path) -> None:
    file = tmp_path / "x.csv.gz"
    with gzip.open(file, "wt") as stream:
        stream.write('a,b,c\n1,x,\n2,"y,z",0.5\n3,x,1\n')
    table = read_csv(
        file, {"a": ColumnRule(pa.int64(), low=1, high=3), "c": ColumnRule(pa.float64(), null=True)}
    )
    assert codes(table["b"])[0].tolist() == [1, 2, 1]
    assert codes(table["b"])[1] == ["x", "y,z"]
    np.testing.assert_array_equal(feature(table["c"]), np.array([np.nan, 0.5, 1], dtype=np.float32))
    assert feature(table["a"]).dtype == np.int64


def test_s3rec_by_hand(tmp_path: Path) -> None:
    (tmp_path / "Toy.txt").write_text("1 5 6 7\n2 6 5\n3 9\n")
    (tmp_path / "Toy_item2attributes.json").write_text(
        json.dumps({"6": [2, 1], "5": [], "1000": [7]})
    )
    source = datasets.read(Data(source="s3rec", path=str(tmp_path / "Toy.txt")), Path())
    assert (
        source.notes["users held out"] == 2
    )  # the third user has one item: nothing would be left of the history
    assert source.catalogue.items["id"].tolist() == [-1, 5, 6, 7, 9]
    assert source.history is not None
    assert source.future is not None
    assert source.history.table["item"].to_pylist() == [1, 2, 2, 4]
    assert source.history.table["t"].to_pylist() == [-2000, -1000, -1000, -1000]
    assert source.future.table["item"].to_pylist() == [3, 1]
    assert source.catalogue.attributes is not None
    offsets, ids = source.catalogue.attributes
    assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == [[], [], [2, 1], [], []]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "1 2 3\n2 x 4\n",
            "line 2: must be `user item item ...` in whole numbers of 0 to 2^63 - 1; got 'x'",
        ),
        (
            "1 2 3\n2 -4\n",
            "line 2: must be `user item item ...` in whole numbers of 0 to 2^63 - 1; got '-4'",
        ),
        (
            "1 2 3\n2 1_0\n",
            "line 2: must be `user item item ...` in whole numbers of 0 to 2^63 - 1; got '1_0'",
        ),
        (
            "1 2 3\n2 \N{SUPERSCRIPT TWO}\n",
            "line 2: must be `user item item ...` in whole numbers of 0 to 2^63 - 1; got",
        ),
        (
            f"1 2 3\n2 {2**63}\n",
            (
                "line 2: must be `user item item ...` in whole numbers of 0 to 2^63 - 1; got"
                f" '{2**63}'"
            ),
        ),
        (
            f"{'9' * 5000} 3\n",
            "line 1: must be `user item item ...` in whole numbers of 0 to 2^63 - 1; got '9999",
        ),
        ("1 2 3\n4\n", "line 2: user 4 must have at least one item"),
        ("1 2 3\n1 4\n", "line 2: user 1 must have one line; line 1 is theirs already"),
        ("", "the file is empty"),
    ],
)
def test_s3rec_names_bad_lines(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "Bad.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        datasets.read(Data(source="s3rec", path=str(file)), Path())
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_s3rec_reads_the_largest_ids(tmp_path: Path) -> None:
    (tmp_path / "Toy.txt").write_text(f"{2**63 - 1} {2**63 - 1} 007\n")
    source = datasets.read(Data(source="s3rec", path=str(tmp_path / "Toy.txt")), Path())
    assert source.catalogue.items["id"].tolist() == [-1, 2**63 - 1, 7]


@pytest.mark.parametrize(
    "content",
    [
        '{"\N{SUPERSCRIPT TWO}": [1]}',
        '{"1_0": [1]}',
        '{"2": [true]}',
        f'{{"2": [{2**63}]}}',
        '{"2": [0]}',
        '{"2": 1}',
    ],
)
def test_s3rec_names_bad_attributes(tmp_path: Path, content: str) -> None:
    (tmp_path / "Toy.txt").write_text("1 2 3\n")
    (tmp_path / "Toy_item2attributes.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        DataError,
        match=(
            r"Toy_item2attributes\.json: key '.+' must be an item id with a list of attribute ids"
            r" of 1 to"
        ),
    ):
        datasets.read(Data(source="s3rec", path=str(tmp_path / "Toy.txt")), Path())


def test_inter_by_hand(tmp_path: Path) -> None:
    (tmp_path / "toy.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ta\t5\t30\nu2\tb\t4\t1\nu1\tb\t3\t10\nu1\tc\t1\t20\nu2\ta\t1\t2\n"
    )
    (tmp_path / "toy.item").write_text(
        "item_id:token\tprice:float\tbrand:token\tgenres:token_seq\nb\t2.5\tx\tg1"
        " g2\nz\t1\ty\tg1\na\t\tx\t\n"
    )
    source = datasets.read(Data(source="inter", path=str(tmp_path / "toy.inter")), Path())
    assert source.catalogue.users["id"].tolist() == ["u1", "u2"]
    assert source.catalogue.items["id"].tolist() == ["", "a", "b", "c"]
    assert source.history is not None
    assert source.future is not None
    assert source.history.table["item"].to_pylist() == [2, 3, 2]  # u1: b, c; u2: b
    assert source.future.table["item"].to_pylist() == [1, 1]
    np.testing.assert_array_equal(
        source.catalogue.items["price"], np.array([np.nan, np.nan, 2.5, np.nan], dtype=np.float32)
    )
    assert source.catalogue.items["brand"].tolist()[1:] == [1, 1, 0]
    assert source.catalogue.attributes is not None
    offsets, _ = source.catalogue.attributes
    assert np.diff(offsets).tolist() == [0, 0, 2, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user_id\titem_id:token\n1\t2\n", "line 1: a field must be name:type"),
        ("user_id:token\tthing:token\n1\t2\n", "line 1: needs the field item_id:token"),
        (
            "user_id:token\titem_id:token\ttimestamp:float\n1\t2\tnoon\n",
            "line 2: timestamp:float must be a number; got 'noon'",
        ),
        (
            "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t\n",
            "line 2: timestamp:float must be a number; got ''",
        ),
        (
            "user_id:token\titem_id:token\n1\ta\n1\t\n",
            "line 3: item_id:token must be text that is not empty; got ''",
        ),
        (
            "user_id:token\titem_id:token\n\ta\n",
            "line 2: user_id:token must be text that is not empty; got ''",
        ),
        (
            "user_id:token\titem_id:token\tlabel:float\n1\t2\t0\n1\t2\t\n",
            "line 3: label:float must be 0 or 1; got ''",
        ),
        (
            "user_id:token\titem_id:token\tlabel:float\n1\t2\tnan\n",
            "line 2: label:float must be 0 or 1; got 'nan'",
        ),
        (
            "user_id:token\titem_id:token\ttimestamp:token\n1\t2\t10\n",
            "line 1: the field timestamp must be timestamp:float; got 'time",
        ),
        (
            "user_id:float\titem_id:token\n1\t2\n",
            "line 1: the field user_id must be user_id:token; got 'user_id:float'",
        ),
        ("user_id:token\titem_id:token\n1\n", "line 2: must have 2 cells as the header; got 1"),
        ("user_id:token\titem_id:token\n", "only a header"),
    ],
)
def test_inter_names_bad_lines(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.inter").write_text(text)
    with pytest.raises(DataError) as caught:
        datasets.read(Data(source="inter", path=str(tmp_path)), Path())
    assert said in str(caught.value)


def test_inter_labels_are_unclicks_and_the_last_click_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "toy.inter").write_text(
        "user_id:token\titem_id:token\tlabel:float\n1\t1\t1\n1\t2\t0\n1\t3\t1\n1\t4\t0\n"
    )
    source = datasets.read(Data(source="inter", path=str(tmp_path)), Path())
    assert source.history is not None
    assert source.future is not None
    assert source.history.table["click"].to_pylist() == [True, False]
    assert source.future.table["item"].to_pylist() == [3]
    assert source.notes["interactions after the held-out click, dropped"] == 1


def test_leave_one_out_drops_nothing_else() -> None:
    generator = np.random.default_rng(5)
    counts = generator.integers(0, 7, 200)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    items = generator.integers(1, 50, counts.sum())
    source = leave_out(offsets, items, Catalogue(200, 49), {})
    assert source.history is not None
    assert source.future is not None
    assert source.history.n_rows + source.future.n_rows == len(items)
    assert source.future.n_rows == (counts >= 2).sum()
    history = source.history.sequences()
    for user in range(200):
        own = items[offsets[user] : offsets[user + 1]]
        kept = own[:-1] if counts[user] >= 2 else own
        np.testing.assert_array_equal(
            history.items[history.offsets[user] : history.offsets[user + 1]], kept
        )


def test_own_log_is_split_at_zero_or_by_days(tmp_path: Path) -> None:
    columns = {
        "user": np.array([0, 0, 1]),
        "session": np.array([0, 1, 0]),
        "request": np.zeros(3, dtype=int),
        "position": np.zeros(3, dtype=int),
        "t": np.array([-5 * DAY + 1, -DAY, -3]),
        "item": np.array([1, 2, 2]),
        "click": np.array([1, 0, 1]),
        "duration": np.array([3.0, 4.0, 4.0]),
    }
    EventLog.from_columns(columns, Metadata(("history",), 2, 3)).write(
        tmp_path / "log" / "a.parquet"
    )
    source = datasets.read(Data(source="log", path=str(tmp_path), test_days=2), Path())
    assert source.history is not None
    assert source.future is not None
    assert source.history.table["t"].to_pylist() == [-3 * DAY + 1]
    assert source.future.table["t"].to_pylist() == [DAY, 2 * DAY - 3]
    assert source.catalogue.items["duration"].tolist() == [0.0, 3.0, 4.0, 0.0]


def test_own_log_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no event log there"):
        datasets.read(Data(source="log", path=str(tmp_path)), Path())


@pytest.mark.data
def test_kuairand_counts_of_the_published_files(data_root: Path) -> None:
    source = datasets.read(Data(source="kuairand", path=str(data_root / "kuairand")), Path())
    read, dropped = source.notes["impressions read"], source.notes["exact duplicates dropped"]
    assert read == 185_061
    assert dropped / read == pytest.approx(0.024, abs=0.002)
    assert source.catalogue.n_items == 7_583
    assert source.notes["sequence users"] == 26_469
    assert source.history is not None
    assert source.future is not None
    source.history.validate()
    source.future.validate()
    watched = (
        int((~np.isnan(source.history.table["watch"].to_numpy())).sum()) + source.future.n_rows
    )
    assert watched == read - dropped
    clicks = np.mean(source.future.table["click"].to_numpy())
    assert clicks == pytest.approx(0.4597, abs=0.03)  # the publishers' rate of the whole feed


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "users", "items", "actions"),
    [
        ("Beauty", 22_363, 12_101, 198_502),
        ("Sports_and_Outdoors", 35_598, 18_357, 296_337),
        ("Yelp", 30_431, 20_033, 316_354),
    ],
)
def test_s3rec_statistics_of_table_1(
    data_root: Path, name: str, users: int, items: int, actions: int
) -> None:
    source = datasets.read(
        Data(source="s3rec", path=str(data_root / "s3rec" / f"{name}.txt")), Path()
    )
    assert (source.catalogue.n_users, source.catalogue.n_items) == (users, items)
    assert source.notes["interactions"] == actions
    assert source.notes["users held out"] == users
    assert source.catalogue.attributes is not None
