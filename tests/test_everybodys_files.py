"""Files as people have them, in every reader: one content in many dresses, and what no dress may
hide.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from simulator import datasets
from simulator.cli import main
from simulator.datasets import DataError
from simulator.datasets.prepare import FORMATS, attributes, prepare
from simulator.scenario.parts import Data
from simulator.users.base import Source
from tests.made_files import (
    BANDIT,
    BANDIT_HEAD,
    BANDIT_ROWS,
    DAY,
    INTER,
    KUAIRAND,
    LOG_HEAD,
    MIDNIGHT,
    S3REC,
    SETS,
    USER_HEAD,
    amazon,
    impression,
    reviews,
    write,
)


def read(root: Path, source: str, ending: str = "") -> Source:
    path = root / SETS[source][1]
    return datasets.read(
        Data.model_validate(
            {"source": source, "path": str(path) + (ending if path.suffix else ""), "test_days": 1}
        ),
        Path(),
    )


def content(source: Source) -> dict[str, Any]:
    """All that a reader gives, but for the names of files."""
    assert source.history is not None
    assert source.future is not None
    catalogue = source.catalogue
    return {
        "size": (catalogue.n_users, catalogue.n_items),
        "items": {
            name: [str(value) for value in values] for name, values in catalogue.items.items()
        },
        "users": {
            name: [str(value) for value in values] for name, values in catalogue.users.items()
        },
        "attributes": (
            None
            if catalogue.attributes is None
            else [part.tolist() for part in catalogue.attributes]
        ),
        "history": source.history.table.to_pydict(),
        "future": source.future.table.to_pydict(),
        "notes": {name: value for name, value in source.notes.items() if isinstance(value, int)},
    }


def blank(text: str) -> bytes:
    """A blank line below every line, some of them of spaces, and none at the end of the last
    line.
    """
    return (
        "".join(f"{line}\n{'  ' if i % 2 else ''}\n" for i, line in enumerate(text.splitlines()))
        .rstrip("\n")
        .encode()
    )


DRESSES: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "byte order mark and CRLF": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
    "empty lines at the end": lambda text: (text + "\n\n").encode(),
    "blank lines": blank,
    "spaces at the end": lambda text: text.replace("\n", "  \n").encode(),
}


@pytest.mark.parametrize("source", SETS)
@pytest.mark.parametrize("dress", DRESSES)
def test_a_dress_changes_nothing(tmp_path: Path, source: str, dress: str) -> None:
    files, _ = SETS[source]
    write(tmp_path / "plain", files)
    write(tmp_path / "dressed", files, DRESSES[dress])
    assert content(read(tmp_path / "dressed", source)) == content(read(tmp_path / "plain", source))


@pytest.mark.parametrize("source", SETS)
def test_packed_files_are_read_with_all_that_lies_beside_them(tmp_path: Path, source: str) -> None:
    files, _ = SETS[source]
    write(tmp_path / "plain", files)
    write(tmp_path / "packed", files, DRESSES["byte order mark and CRLF"], ".gz")
    plain, packed = read(tmp_path / "plain", source), read(tmp_path / "packed", source, ".gz")
    of_files = {
        name.replace(".json.gz", ".json").replace("csv.gz", "csv"): n
        for name, n in content(packed)["notes"].items()
    }
    of_files = {
        name.replace(".item.gz", ".item").replace(".user.gz", ".user"): n
        for name, n in of_files.items()
    }
    assert {**content(packed), "notes": of_files} == content(plain)
    assert len(packed.notes["side files read"]) == len(plain.notes["side files read"]) > 0


@pytest.mark.parametrize(
    ("source", "side", "absent"),
    [
        ("kuairand", "user_features_pure.csv", "user_features"),
        ("kuairand", "video_features_basic_pure.csv", "video_features_basic"),
        ("inter", "toy.item", "toy.item"),
        ("inter", "toy.user", "toy.user"),
        ("s3rec", "Toy_item2attributes.json", "Toy_item2attributes.json"),
    ],
)
def test_what_does_not_lie_beside_is_said(
    tmp_path: Path, source: str, side: str, absent: str
) -> None:
    files, _ = SETS[source]
    write(tmp_path, {name: lines for name, lines in files.items() if name != side})
    assert absent in read(tmp_path, source).notes["side files not there"]


@pytest.mark.parametrize(
    ("source", "name"),
    [(source, name) for source, (files, _) in SETS.items() for name in files if name != "Toy.txt"],
)
def test_a_file_that_is_there_plain_and_packed_is_refused(
    tmp_path: Path, source: str, name: str
) -> None:
    write(tmp_path, SETS[source][0])
    write(tmp_path, {name: SETS[source][0][name]}, ending=".gz")
    if name.startswith("bts/shop/item_context"):
        return  # not read: the other policy's folder has the same
    with pytest.raises(DataError, match=r"are both there|exactly one"):
        read(tmp_path, source)


def test_a_side_file_of_the_other_policy_is_taken(tmp_path: Path) -> None:
    write(
        tmp_path,
        {name: lines for name, lines in BANDIT.items() if name != "random/shop/item_context.csv"},
    )
    assert read(tmp_path, "open_bandit").notes["side files read"] == ["item_context.csv"]
    (tmp_path / "bts" / "shop" / "item_context.csv").unlink()
    assert read(tmp_path, "open_bandit").notes["side files not there"] == ["item_context.csv"]


HEADERS = [
    ("kuairand", "log_standard_1_pure.csv", ",tab", ",tab,tab", "'tab', columns 19 and 20"),
    (
        "kuairand",
        "user_features_pure.csv",
        "degree",
        "follow_user_num",
        "'follow_user_num', columns 2 and 3",
    ),
    ("kuairand", "video_features_basic_pure.csv", "video_type", '" tag"', "'tag', columns 3 and 6"),
    ("open_bandit", "bts/shop/shop.csv", "user_feature_0", "click", "'click', columns 5 and 7"),
    (
        "open_bandit",
        "random/shop/item_context.csv",
        "item_feature_1",
        "item_feature_0",
        "'item_feature_0', columns 2 and 3",
    ),
    ("inter", "toy.inter", "label:float", "timestamp:float", "'timestamp:float', columns 3 and 4"),
    ("inter", "toy.item", "brand:token", "price:token", "'price', columns 2 and 3"),
    ("inter", "toy.user", "age:token", "user_id:token", "'user_id:token', columns 1 and 2"),
]


@pytest.mark.parametrize(("source", "name", "old", "new", "words"), HEADERS)
def test_a_column_twice_is_refused(
    tmp_path: Path, source: str, name: str, old: str, new: str, words: str
) -> None:
    head, *lines = SETS[source][0][name]
    write(
        tmp_path,
        {**SETS[source][0], name: [head.replace(old, new), *lines]},
        DRESSES["byte order mark"],
    )
    with pytest.raises(DataError) as caught:
        read(tmp_path, source)
    assert str(caught.value).startswith(
        f"{tmp_path / name}: line 1: two columns are called {words}"
    )


def test_columns_without_a_name_may_be_several(tmp_path: Path) -> None:
    """Row numbers that pandas wrote twice: nobody can ask for them."""
    lines = KUAIRAND["user_features_pure.csv"]
    numbered = [f",,{lines[0]}", *(f"{i},{i},{line}" for i, line in enumerate(lines[1:]))]
    write(tmp_path / "a", KUAIRAND)
    write(tmp_path / "b", {**KUAIRAND, "user_features_pure.csv": numbered})
    assert content(read(tmp_path / "b", "kuairand")) == content(read(tmp_path / "a", "kuairand"))


TWICE = [
    (
        "kuairand",
        "user_features_pure.csv",
        "070,low,3,0,0,9",
        "line 5: user_id must be unique; 70 stands in line 2 already",
    ),
    (
        "kuairand",
        "video_features_basic_pure.csv",
        "77,1,AD,,1,",
        "line 5: video_id must be unique; 77 stands in line 4 already",
    ),
    (
        "open_bandit",
        "random/shop/item_context.csv",
        "5,1.5,y",
        "line 5: item_id must be unique; 5 stands in line 3 already",
    ),
    (
        "inter",
        "toy.item",
        "b\t2.5\tx\tg1 g2",
        "line 5: item_id:token must be unique; 'b' stands in line 2 already",
    ),
    (
        "inter",
        "toy.item",
        "z\t9\tx\t",
        "line 5: item_id:token must be unique; 'z' stands in line 3 already",
    ),
    (
        "inter",
        "toy.user",
        "u1 \tyoung",
        "line 4: user_id:token must be unique; 'u1' stands in line 3 already",
    ),
]


@pytest.mark.parametrize(("source", "name", "line", "words"), TWICE)
def test_an_id_twice_in_a_feature_file_is_refused(
    tmp_path: Path, source: str, name: str, line: str, words: str
) -> None:
    write(tmp_path, {**SETS[source][0], name: [*SETS[source][0][name], line]})
    with pytest.raises(DataError) as caught:
        read(tmp_path, source)
    assert str(caught.value) == f"{tmp_path / name}: {words}"


def test_an_id_in_two_feature_files_is_refused(tmp_path: Path) -> None:
    write(
        tmp_path,
        {**KUAIRAND, "user_features_2.csv": [USER_HEAD, "1,high,5,0,0,9", "12,high,5,0,0,9"]},
    )
    with pytest.raises(DataError) as caught:
        read(tmp_path, "kuairand")
    first, second = tmp_path / "user_features_2.csv", tmp_path / "user_features_pure.csv"
    assert (
        str(caught.value)
        == f"{second}: line 3: user_id must be unique; 12 stands in {first}: line 3 already"
    )


@pytest.mark.parametrize("key", ["6", "06"])
def test_an_item_twice_among_attributes_is_refused(tmp_path: Path, key: str) -> None:
    write(
        tmp_path,
        {"Toy.txt": S3REC["Toy.txt"], "Toy_item2attributes.json": [f'{{"6": [2], "{key}": [3]}}']},
    )
    with pytest.raises(DataError, match=f"item ids must be unique; '{key}' stands there twice"):
        read(tmp_path, "s3rec")


def test_ids_that_only_one_side_has_are_counted(tmp_path: Path) -> None:
    for source, (files, _) in SETS.items():
        write(tmp_path / source, files)
    told = {source: read(tmp_path / source, source) for source in SETS}
    assert {
        source: [
            n
            for name, n in found.notes.items()
            if "that the log never shows" in name or "of the log that" in name
        ]
        for source, found in told.items()
    } == {"kuairand": [1, 0, 1, 0], "open_bandit": [1, 1], "inter": [1, 1, 0, 0], "s3rec": [1, 2]}
    assert (
        told["open_bandit"].catalogue.n_items == 6
    )  # 0..5 of the context; the log shows 0, 2 and 3
    np.testing.assert_array_equal(
        told["open_bandit"].catalogue.items["item_feature_0"],
        np.array([np.nan, 2.5, np.nan, 0.5, np.nan, np.nan, 1.5], dtype=np.float32),
    )


LONE = ['"', 'g"0', '"g0', 'g0"', '""', '5" disc']


@pytest.mark.parametrize("cell", LONE)
def test_quotes_between_tabs_are_plain_characters(tmp_path: Path, cell: str) -> None:
    """Thirty items with a genre, two of them odd: nothing swallows its neighbours."""
    ids = [cell if i in (3, 9) else f"b{i}" for i in range(30)]
    inter = [
        "user_id:token\titem_id:token",
        *(f"{'u' if i % 2 else cell}\ti{i}" for i in range(30)),
    ]
    item = [
        "item_id:token\tbrand:token\tgenre:token_seq",
        *(f"i{i}\t{brand}\t{brand} g{i % 3}" for i, brand in enumerate(ids)),
    ]
    write(
        tmp_path,
        {
            "toy.inter": inter,
            "toy.item": item,
            "toy.user": ["user_id:token\tage:token", f"{cell}\t{cell}", "u\tx"],
        },
    )
    source = read(tmp_path, "inter")
    assert source.catalogue.users["id"].tolist() == [cell, "u"]
    assert source.catalogue.users["age"].tolist() == [1, 2]
    brand = source.catalogue.items["brand"]
    assert (brand[1:] > 0).all()
    assert len(set(brand[1:].tolist())) == 29
    assert brand[4] == brand[10]
    assert source.catalogue.attributes is not None
    assert np.diff(source.catalogue.attributes[0]).tolist()[1:] == [
        len(f"{brand} g".split()) for brand in ids
    ]


UNCLOSED = [
    (
        "kuairand",
        "log_standard_1_pure.csv",
        impression(1, 2, MIDNIGHT).replace("20220425", '"20220425'),
    ),
    ("kuairand", "user_features_pure.csv", '1,"high,5,0,0,9'),
    ("kuairand", "user_features_pure.csv", '1,"hi"gh,5,0,0,9'),
    ("kuairand", "video_features_basic_pure.csv", '5,50,NORMAL,2022-04-20,30000,"3'),
    ("open_bandit", "bts/shop/shop.csv", '9,2019-11-24 10:03:56+00:00,0,1,1,0.5,"b'),
    ("open_bandit", "random/shop/item_context.csv", '7,1,"x'),
]


@pytest.mark.parametrize(("source", "name", "line"), UNCLOSED)
def test_a_quote_between_commas_that_does_not_close_is_named(
    tmp_path: Path, source: str, name: str, line: str
) -> None:
    """Also where a later line closes it, and in a column that nobody reads: lines between would be
    lost.
    """
    lines = SETS[source][0][name]
    write(tmp_path, {**SETS[source][0], name: [lines[0], line, *lines[1:], line]})
    with pytest.raises(DataError) as caught:
        read(tmp_path, source)
    assert str(caught.value).startswith(
        f"{tmp_path / name}: line 2: a quoted cell must end on its line"
    )


CLICKS = ["2", "-1", "0.5", "1.0", "true", "nan", "0x1", ""]


@pytest.mark.parametrize("cell", CLICKS)
def test_what_is_neither_0_nor_1_is_no_click(tmp_path: Path, cell: str) -> None:
    files = {
        "kuairand": (
            "log_standard_1_pure.csv",
            impression(1, 2, MIDNIGHT, cell),
            "is_click must be an integer in [0, 1]",
        ),
        "open_bandit": (
            "bts/shop/shop.csv",
            f"9,2019-11-24 10:03:56+00:00,0,1,{cell},0.5,b",
            "click must be an integer in [0, 1]",
        ),
        "inter": ("toy.inter", f"u1\tc\t9\t{cell}", "label:float must be 0 or 1"),
    }
    for source, (name, line, rule) in files.items():
        lines = SETS[source][0][name]
        write(tmp_path / source, {**SETS[source][0], name: [*lines, line]})
        if source == "inter" and cell == "1.0":
            assert read(tmp_path / source, source).notes["interactions"] == len(lines)
            continue
        with pytest.raises(DataError) as caught:
            read(tmp_path / source, source)
        assert f"line {len(lines) + 1}: {rule}; got {cell!r}" in str(caught.value)


@pytest.mark.parametrize(
    "column",
    [
        "is_like",
        "is_follow",
        "is_comment",
        "is_forward",
        "is_hate",
        "long_view",
        "is_profile_enter",
        "is_rand",
    ],
)
def test_no_answer_of_kuairand_may_be_a_count(tmp_path: Path, column: str) -> None:
    cells = impression(1, 2, MIDNIGHT).split(",")
    cells[LOG_HEAD.split(",").index(column)] = "2"
    name = "log_standard_1_pure.csv"
    write(tmp_path, {**KUAIRAND, name: [*KUAIRAND[name], ",".join(cells)]})
    with pytest.raises(
        DataError, match=rf"line 5: {column} must be an integer in \[0, 1\]; got '2'"
    ):
        read(tmp_path, "kuairand")


@pytest.mark.parametrize(
    "t",
    [
        1_650_816_000,
        1_650_816_000_000_000,
        "2022-04-25 00:00:00",
        "1650816000000.0",
        "0x1805e0a2400",
    ],
)
def test_times_of_kuairand_in_another_unit_are_refused(tmp_path: Path, t: Any) -> None:
    name = "log_standard_1_pure.csv"
    write(tmp_path, {**KUAIRAND, name: [LOG_HEAD, impression(1, 2, t)]})
    with pytest.raises(
        DataError,
        match=rf"line 2: time_ms must be an integer in \[1000000000000, 9999999999999\]; got '{t}'",
    ):
        read(tmp_path, "kuairand")


def test_time_stamps_of_open_bandit_keep_their_zone(tmp_path: Path) -> None:
    stamps = [
        "2019-11-24T00:03:24Z",
        "2019-11-24 00:03:24.5",
        "2019-11-24 09:03:24+09:00",
        "2019-11-23 19:33:24.1 -0430",
        "2019-11-24 00:03:24 UTC",
    ]
    rows = [f"{i},{stamp},{i},1,0,0.25,a" for i, stamp in enumerate(stamps)]
    write(tmp_path, {**BANDIT, "random/shop/shop.csv": [BANDIT_HEAD, *rows, BANDIT_ROWS[-1]]})
    source = read(tmp_path, "open_bandit")
    assert source.history is not None
    assert set(source.history.table["t"].to_pylist()) == {204_000 - 2 * DAY}
    assert source.notes["first and last day (UTC)"] == "2019-11-24, 2019-11-26"
    for bad in (
        "1574553804",
        "1574553804688",
        "2019-02-30 00:00:00",
        "2019-11-24 24:00:00",
        "24/11/2019 00:03:24",
        "2019-11-24",
    ):
        write(
            tmp_path,
            {"random/shop/shop.csv": [BANDIT_HEAD, BANDIT_ROWS[0], "", f"1,{bad},2,1,0,0.25,a"]},
        )
        with pytest.raises(
            DataError,
            match=r"line 4: timestamp must be YYYY-MM-DD HH:MM:SS\.\.\. in UTC, or with its zone",
        ):
            read(tmp_path, "open_bandit")


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e9])
def test_the_unit_of_inter_times_does_not_matter_but_must_be_one(
    tmp_path: Path, scale: float
) -> None:
    times = [1_600_000_030, 1_600_000_010, 1_600_000_020]
    lines = [f"u\ti{t % 100}\t{t * scale:.0f}" for t in times]
    head = "user_id:token\titem_id:token\ttimestamp:float"
    write(tmp_path, {"toy.inter": [head, *lines]})
    source = read(tmp_path, "inter")
    assert source.future is not None
    assert source.catalogue.items["id"][source.future.table["item"].to_pylist()].tolist() == ["i30"]
    write(tmp_path, {"toy.inter": [head, *lines, "u\tx\t1600000000", "u\ty\t1600000000000"]})
    with pytest.raises(DataError, match="timestamp must be in one unit"):
        read(tmp_path, "inter")


@pytest.mark.parametrize("cell", ["inf", "-inf", "1e400", "nan", "2019-11-24", "0x10"])
def test_inter_times_are_finite_numbers(tmp_path: Path, cell: str) -> None:
    write(tmp_path, {**INTER, "toy.inter": [INTER["toy.inter"][0], f"u\ti\t{cell}\t1"]})
    with pytest.raises(DataError, match=f"line 2: timestamp:float must be a number; got '{cell}'"):
        read(tmp_path, "inter")


@pytest.mark.parametrize("cell", ["0x10", "12.0", str(2**63), "7e3", "-1", " "])
def test_ids_of_tables_are_whole_numbers_as_they_stand(tmp_path: Path, cell: str) -> None:
    lines = {
        "kuairand": (
            "user_features_pure.csv",
            f"{cell},high,5,0,0,9",
            "user_id must be an integer in [0, 2^63 - 1]",
        ),
        "open_bandit": (
            "random/shop/item_context.csv",
            f"{cell},1,x",
            "item_id must be an integer in [0, 1000000]",
        ),
    }
    for source, (name, line, rule) in lines.items():
        write(tmp_path / source, {**SETS[source][0], name: [*SETS[source][0][name], line]})
        with pytest.raises(DataError) as caught:
            read(tmp_path / source, source)
        assert f"line 5: {rule}; got {cell!r}" in str(caught.value)


def test_ids_of_inter_are_text_as_it_stands(tmp_path: Path) -> None:
    """Leading zeros, exponents, hexadecimal and huge numbers are kept apart, in `.inter` and in
    what lies beside it.
    """
    ids = ["0007", "7", "7.0", "7e0", "0x7", str(2**70), "nan", "NA", "None", "null"]
    head = "user_id:token\titem_id:token"
    write(
        tmp_path,
        {
            "toy.inter": [head, *(f"u\t{i}" for i in ids)],
            "toy.item": [
                "item_id:token\tplace:float",
                *(f"{i}\t{place}" for place, i in enumerate(ids)),
            ],
        },
    )
    catalogue = read(tmp_path, "inter").catalogue
    assert catalogue.items["id"].tolist() == ["", *ids]
    assert catalogue.items["place"][1:].tolist() == list(range(len(ids)))
    write(
        tmp_path,
        {
            "toy.inter": [head, "u\t7", "u\t12"],
            "toy.item": ["item_id:token\tplace:float", "007\t1", "12\t2"],
        },
    )
    source = read(tmp_path, "inter")
    assert source.catalogue.items["id"].tolist() == [-1, 7, 12]
    np.testing.assert_array_equal(
        source.catalogue.items["place"], np.array([np.nan, np.nan, 2], dtype=np.float32)
    )
    assert source.notes["items of the log that toy.item does not list"] == 1
    write(tmp_path, {"toy.inter": [head, "u\t7", f"u\t{'x' * 2000}"]})
    with pytest.raises(
        DataError, match=r"an id must have at most 1,024 characters; got one of 2,000: 'xxx"
    ):
        read(tmp_path, "inter")


def test_what_a_catalogue_calls_id_is_no_feature(tmp_path: Path) -> None:
    write(tmp_path / "a", {**INTER, "toy.user": ["user_id:token\tid:token", "u1\tx"]})
    with pytest.raises(DataError, match="line 1: no field may be called id"):
        read(tmp_path / "a", "inter")
    write(
        tmp_path / "b",
        {**KUAIRAND, "user_features_pure.csv": [f"id,{USER_HEAD}", "1,70,high,3,0,0,9"]},
    )
    with pytest.raises(DataError, match="no column may be called 'id'"):
        read(tmp_path / "b", "kuairand")


def test_fields_that_nothing_uses_are_listed(tmp_path: Path) -> None:
    item = ["item_id:token\tgenres:token_seq\twords:token_seq\tvector:float_seq", "a\tg\tw\t1 2"]
    write(tmp_path, {**INTER, "toy.item": item})
    assert read(tmp_path, "inter").notes["fields of toy.item that nothing uses"] == [
        "words:token_seq",
        "vector:float_seq",
    ]


def test_types_are_those_of_the_whole_column(tmp_path: Path) -> None:
    """Numbers for more than a block of the reader, then a word: the column is text, and 1 and 1.0
    stay apart.
    """
    n = 400_000
    lines = [
        "item_id,item_feature_0,item_feature_1",
        *(f"{i},{i % 7},{i % 5}.5" for i in range(n)),
        f"{n},unknown,",
        f"{n + 1},,0.5",
    ]
    write(tmp_path, {**BANDIT, "random/shop/item_context.csv": lines})
    items = read(tmp_path, "open_bandit").catalogue.items
    assert items["item_feature_0"].dtype == np.int64
    assert items["item_feature_0"][1:9].tolist() == [1, 2, 3, 4, 5, 6, 7, 1]
    assert items["item_feature_0"][-2:].tolist() == [8, 0]
    assert items["item_feature_1"].dtype == np.float32
    assert np.isnan(items["item_feature_1"][-2])


SEQUENCES = {
    "user_id": [12, 33],
    "last_time_ms": [MIDNIGHT - 1000, MIDNIGHT - 2000],
    "watch_seq": [[9, 6], [4]],
    "like_seq": [[6], []],
    "long_watch_seq": [[6], None],
}


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("user_id", [12, 12], "row 1: user_id must be unique; 12 stands in row 0 already"),
        ("user_id", [12, None], "user_id must be whole numbers, none of them empty"),
        ("user_id", [1.5, 2.5], "user_id must be whole numbers, none of them empty; got double"),
        ("user_id", ["a", "b"], "user_id must be whole numbers, none of them empty; got string"),
        ("user_id", [12, -3], r"user_id must be an integer in \[0, 2\^63 - 1\]; got -3"),
        (
            "last_time_ms",
            [1_650_816_000, MIDNIGHT],
            "row 0: last_time_ms must be .*, ms since 1970; got 1650816000",
        ),
        ("watch_seq", ["1,2", "3"], "watch_seq must be lists of whole numbers; got string"),
        ("watch_seq", [[1, None], [2]], "watch_seq must be whole numbers, none of them empty"),
        ("like_seq", [["a"], []], "like_seq must be whole numbers"),
        ("like_seq", None, "no column 'like_seq'"),
    ],
)
def test_sequences_keep_the_rules_of_the_logs(
    tmp_path: Path, name: str, values: Any, words: str
) -> None:
    write(tmp_path, KUAIRAND)
    columns = {**SEQUENCES, name: values}
    pq.write_table(
        pa.table({key: column for key, column in columns.items() if column is not None}),
        tmp_path / "user_sequences_1.parquet",
    )
    with pytest.raises(DataError, match=words):
        read(tmp_path, "kuairand")


def test_sequences_of_one_user_in_two_files_or_a_column_twice_are_refused(tmp_path: Path) -> None:
    write(tmp_path, KUAIRAND)
    table = pa.table(SEQUENCES)
    for number in (1, 2):
        pq.write_table(table, tmp_path / f"user_sequences_{number}.parquet")
    with pytest.raises(
        DataError,
        match=(
            r"user_sequences_2\.parquet: user_id must be unique; 12 stands in"
            r" user_sequences_1\.parquet, too"
        ),
    ):
        read(tmp_path, "kuairand")
    (tmp_path / "user_sequences_2.parquet").unlink()
    pq.write_table(
        table.append_column("like_seq", table["watch_seq"]), tmp_path / "user_sequences_1.parquet"
    )
    with pytest.raises(DataError, match=r"two columns are called 'like_seq', columns 4 and 6"):
        read(tmp_path, "kuairand")


@pytest.mark.parametrize("dress", DRESSES)
def test_a_dress_changes_no_dump(tmp_path: Path, dress: str) -> None:
    text = "".join(
        f"{line}\n"
        for line in reviews(
            [amazon(f"u{u}", f"i{(u + j) % 4}", j) for u in range(4) for j in range(3)]
        )
    )
    (tmp_path / "plain.json").write_text(text)
    (tmp_path / "dressed.json.gz").write_bytes(gzip.compress(DRESSES[dress](text)))
    plain, dressed = (
        prepare(tmp_path / name, FORMATS["amazon"], core=3)
        for name in ("plain.json", "dressed.json.gz")
    )
    assert (plain.read, plain.original, plain.item.tolist()) == (
        12,
        dressed.original,
        dressed.item.tolist(),
    )
    meta = '{"asin": "x", "categories": [["a", "b"]]}\n{"asin": "y"}\n'
    (tmp_path / "meta.json").write_bytes(DRESSES[dress](meta))
    assert attributes(tmp_path / "meta.json", FORMATS["amazon"]) == {"x": ["b"], "y": []}


def test_a_hundred_thousand_of_everything(tmp_path: Path) -> None:
    """Nothing grows with the square of the number of distinct ids: this would take minutes if it
    did.
    """
    n = 100_000
    write(
        tmp_path / "inter",
        {
            "toy.inter": ["user_id:token\titem_id:token", *(f"u{i // 2}\ti{i}" for i in range(n))],
            "toy.item": [
                "item_id:token\tbrand:token\tgenres:token_seq",
                *(f"i{i}\tb{i}\tg{i} h{i}" for i in range(n)),
            ],
            "toy.user": ["user_id:token\tage:token", *(f"u{i}\t{i}" for i in range(n // 2))],
        },
    )
    source = read(tmp_path / "inter", "inter")
    assert (source.catalogue.n_users, source.catalogue.n_items, source.notes["users held out"]) == (
        n // 2,
        n,
        n // 2,
    )
    dump = tmp_path / "d.json"
    dump.write_text(
        "".join(
            f"{line}\n" for line in reviews([amazon(f"u{i}", f"i{i}", i % 3) for i in range(n)] * 2)
        )
    )
    assert prepare(dump, FORMATS["amazon"], core=1).repeated == n


@pytest.mark.parametrize(
    ("source", "name"), [(source, name) for source in SETS for name in SETS[source][0]]
)
def test_text_of_another_encoding_is_named_by_line(tmp_path: Path, source: str, name: str) -> None:
    write(tmp_path, SETS[source][0])
    path = tmp_path / name
    path.write_bytes(path.read_bytes() + "\nCafé".encode("latin-1"))
    if name == "bts/shop/item_context.csv":
        return  # not read: the other policy's folder has the same
    with pytest.raises(DataError) as caught:
        read(tmp_path, source)
    line = len(SETS[source][0][name]) + 2
    assert (
        str(caught.value)
        == f"{path}: line {line}: must be UTF-8 text; got b'Caf\\xe9': save the file as UTF-8"
    )


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\n  \n", "\r\n"])
def test_a_header_alone_is_an_empty_table(tmp_path: Path, end: str) -> None:
    files = {
        "kuairand": ("log_standard_1_pure.csv", "no impressions there, only a header"),
        "open_bandit": ("bts/shop/shop.csv", "no impressions there, only a header"),
        "inter": ("toy.inter", "no interactions there, only a header"),
    }
    for source, (name, words) in files.items():
        write(tmp_path / source, SETS[source][0])
        (tmp_path / source / name).write_bytes((SETS[source][0][name][0] + end).encode())
        with pytest.raises(DataError, match=words):
            read(tmp_path / source, source)
    sides = {
        "user_features_pure.csv": "kuairand",
        "random/shop/item_context.csv": "open_bandit",
        "toy.item": "inter",
    }
    for name, source in sides.items():
        write(tmp_path / "sides", SETS[source][0])
        (tmp_path / "sides" / name).write_bytes((SETS[source][0][name][0] + end).encode())
        notes = read(tmp_path / "sides", source).notes
        assert any(count > 0 for words, count in notes.items() if "of the log that" in words)


def test_a_packed_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    for source, (files, _) in SETS.items():
        for name in files:
            write(tmp_path / source, files, ending=".gz")
            path = tmp_path / source / f"{name}.gz"
            path.write_bytes(path.read_bytes()[:-12])
            if name != "bts/shop/item_context.csv":
                with pytest.raises(
                    DataError, match="the file breaks off or cannot be read"
                ) as caught:
                    read(tmp_path / source, source, ".gz")
                assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("source", ["kuairand", "open_bandit", "inter", "s3rec"])
def test_missing_data_says_where_it_was_looked_for(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        datasets.read(
            Data.model_validate({"source": source, "path": "no/such"}), tmp_path / "scenarios"
        )
    for place in (tmp_path / "scenarios" / "no" / "such", tmp_path / "no" / "such"):
        assert str(place) in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ["data", "describe", "../no/such"],
        ["data", "prepare", "amazon", "../no/such", "--name", "X", "--out", "out"],
        ["replay", "../no/such", "--policy", "popularity"],
        ["replay", "../no/such/random/women"],
        ["report", "../no/such"],
        ["power", "../no/such"],
    ],
)
def test_a_missing_path_is_shown_as_it_was_looked_up(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert f"no such file or folder (looked up as {tmp_path / 'no' / 'such'}" in done.output
    assert done.output.startswith("abtest: ../no/such")
