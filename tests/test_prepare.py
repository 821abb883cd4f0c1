"""Raw reviews -> sequences: k-core against a literal search, order, days, ids, attributes, and
every fault by file and line.
"""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from simulator import datasets
from simulator.cli import main
from simulator.datasets import DataError
from simulator.datasets.prepare import FORMATS, attributes, k_core, prepare, write
from simulator.scenario.parts import Data

AMAZON, YELP = FORMATS["amazon"], FORMATS["yelp"]


def amazon(rows: list[tuple[str, str, int]]) -> str:
    return "".join(
        json.dumps({"reviewerID": u, "asin": i, "overall": 5.0, "unixReviewTime": t}) + "\n"
        for u, i, t in rows
    )


def test_core_is_the_largest_set_that_holds(tmp_path: Path) -> None:
    """Against rows taken away one by one."""
    generator = np.random.default_rng(2)
    for _ in range(20):
        user, item = generator.integers(0, 12, 60), generator.integers(0, 10, 60)
        rows = list(zip(user.tolist(), item.tolist(), range(60), strict=True))
        while True:
            bad = [
                r
                for r in rows
                if sum(x[0] == r[0] for x in rows) < 4 or sum(x[1] == r[1] for x in rows) < 4
            ]
            if not bad:
                break
            rows.remove(bad[0])
        assert np.flatnonzero(k_core(user, item, 4)).tolist() == [r[2] for r in rows]


def test_sequences_are_chronological_and_numbered_by_appearance(tmp_path: Path) -> None:
    dump = tmp_path / "reviews.json.gz"
    with gzip.open(dump, "wt") as stream:
        stream.write(
            amazon(
                [("bo", "x", 30), ("al", "y", 5), ("bo", "y", 10), ("al", "x", 5), ("cy", "z", 1)]
            )
        )
    prepared = prepare(dump, AMAZON, core=2)
    assert prepared.original == ["y", "x"]
    assert prepared.read == 5
    assert prepared.rare == 1
    write(prepared, tmp_path, "Toy", {"x": ["red", "big"], "q": ["blue"]})
    assert (
        tmp_path / "Toy.txt"
    ).read_text() == "1 1 2\n2 1 2\n"  # bo: y, x; al: y before x, as in the file
    assert json.loads((tmp_path / "Toy_item2attributes.json").read_text()) == {"1": [], "2": [1, 2]}
    source = datasets.read(Data(source="s3rec", path=str(tmp_path / "Toy.txt")), Path())
    assert source.notes["users held out"] == 2


def test_yelp_starts_where_the_paper_starts(tmp_path: Path) -> None:
    dump = tmp_path / "review.json"
    lines = [
        ("u", "b", "2018-12-31 23:59:59"),
        ("u", "b", "2019-01-01 00:00:00"),
        ("u", "c", "2020-05-01 10:00:00"),
    ]
    dump.write_text(
        "".join(
            json.dumps({"user_id": u, "business_id": b, "date": d, "stars": 1}) + "\n"
            for u, b, d in lines
        )
    )
    assert prepare(dump, YELP, core=1, since=YELP.since).statistics.actions == 2
    until = datetime(2019, 12, 31, tzinfo=UTC)
    assert prepare(dump, YELP, core=1, since=YELP.since, until=until).statistics.actions == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: must be a JSON object"),
        ("[1]", "line 2: must be a JSON object; got '[1]'"),
        ('{"reviewerID": "a", "unixReviewTime": 1}', "line 2: asin must be text; got None"),
        (
            '{"reviewerID": 7, "asin": "x", "unixReviewTime": 1}',
            "line 2: reviewerID must be text; got 7",
        ),
        (
            '{"reviewerID": "a", "asin": "x", "unixReviewTime": "noon"}',
            "line 2: unixReviewTime must be a time; got 'noon'",
        ),
        (
            '{"reviewerID": "a", "asin": "x", "unixReviewTime": NaN}',
            "line 2: unixReviewTime must be a time; got 'nan'",
        ),
        (
            '{"reviewerID": "a", "asin": "x", "unixReviewTime": -Infinity}',
            "line 2: unixReviewTime must be a time; got '-inf'",
        ),
        (
            f'{{"reviewerID": "a", "asin": "x", "unixReviewTime": 1{"0" * 400}}}',
            "line 2: unixReviewTime must be a time; got '10000",
        ),
        ('{"reviewerID": "a", "asin": "x"}', "line 2: unixReviewTime must be a time; got 'None'"),
    ],
)
def test_bad_reviews_are_named(tmp_path: Path, line: str, said: str) -> None:
    dump = tmp_path / "reviews.json"
    dump.write_text(amazon([("a", "x", 1)]) + line + "\n")
    with pytest.raises(DataError) as caught:
        prepare(dump, AMAZON, core=1)
    assert str(dump) in str(caught.value)
    assert said in str(caught.value)


def test_a_time_with_an_offset_is_the_moment_that_it_names(tmp_path: Path) -> None:
    dump = tmp_path / "review.json"
    lines = [
        ("b", "2019-01-01 01:30:00+02:00"),
        ("c", "2018-12-31 23:30:00-01:00"),
        ("d", "2019-01-01 00:10:00"),
    ]
    dump.write_text(
        "".join(json.dumps({"user_id": "u", "business_id": b, "date": d}) + "\n" for b, d in lines)
    )
    prepared = prepare(dump, YELP, core=1, since=YELP.since)
    assert prepared.outside == 1  # b is of 2018-12-31 23:30 UTC
    assert prepared.original == ["d", "c"]  # c is of 00:30 UTC


def test_an_empty_core_says_what_there_was(tmp_path: Path) -> None:
    dump = tmp_path / "reviews.json"
    dump.write_text(amazon([("a", "x", 1), ("b", "y", 1)]))
    with pytest.raises(
        DataError,
        match=r"of 2 reviews, 0 are repeated .*, 2 of the others are of the days asked .* 5-core",
    ):
        prepare(dump, AMAZON)


def test_attributes_of_either_dump(tmp_path: Path) -> None:
    meta = tmp_path / "meta.json"
    meta.write_text(
        "{'asin': 'x', 'categories': [['Beauty', 'Hair', 'Oil'], ['Beauty', 'Hair']], 'brand':"
        " 'Acme'}\n"
    )
    assert attributes(meta, AMAZON) == {"x": ["Hair", "Oil", "Acme"]}
    business = tmp_path / "business.json"
    business.write_text(
        '{"business_id": "b", "categories": "Bars, Pubs"}\n{"business_id": "c", "categories":'
        " null}\n"
    )
    assert attributes(business, YELP) == {"b": ["Bars", "Pubs"], "c": []}
    business.write_text('{"categories": "Bars"}\n')
    with pytest.raises(DataError, match="line 1: business_id must be text"):
        attributes(business, YELP)


def test_the_command_prepares_and_describes(tmp_path: Path) -> None:
    dump = tmp_path / "reviews.json"
    dump.write_text(amazon([(f"u{u}", f"i{(u + j) % 7}", j) for u in range(7) for j in range(5)]))
    done = CliRunner().invoke(
        main, ["data", "prepare", "amazon", str(dump), "--out", str(tmp_path), "--name", "Toy"]
    )
    assert done.exit_code == 0, done.output
    assert (
        "35 reviews read, 0 repeated word for word, 0 outside the days asked for, 0 outside the"
        " 5-core" in done.output
    )
    told = CliRunner().invoke(main, ["data", "describe", str(tmp_path / "Toy.txt")])
    assert told.output.splitlines()[1].split() == [
        "Toy.txt",
        "7",
        "7",
        "5.0",
        "5.0",
        "35",
        "28.57%",
    ]
    (tmp_path / "Bad.txt").write_text("1 x\n")
    wrong = CliRunner().invoke(main, ["data", "describe", str(tmp_path / "Bad.txt")])
    assert wrong.exit_code == 2
    assert "Traceback" not in wrong.output


def test_missing_dump_ends_with_one_message(tmp_path: Path) -> None:
    arguments = [
        "data",
        "prepare",
        "yelp",
        str(tmp_path / "no.json"),
        "--out",
        str(tmp_path),
        "--name",
        "X",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "no.json" in done.output


@pytest.mark.data
def test_table_1(data_root: Path) -> None:
    done = CliRunner().invoke(main, ["data", "describe", str(data_root / "s3rec" / "Beauty.txt")])
    assert done.output.splitlines()[1].split() == [
        "Beauty.txt",
        "22,363",
        "12,101",
        "8.9",
        "16.4",
        "198,502",
        "99.93%",
    ]


MOVIELENS = {
    "ratings.dat": [
        "1::1193::5::978300760",
        "1::661::3::978300100",
        "2::661::4::978300000",
        "2::1193::1::978300000",
        "3::661::4::978300000",
    ],
    "movies.dat": [
        "661::James and the Giant Peach (1996)::Animation|Children's|Musical",
        "1193::One Flew Over the Cuckoo's Nest (1975)::Drama",
        "73::Mis\xe9rables, Les (1995)::Drama|Musical",
    ],
}


def movielens(folder: Path, name: str, **lines: str) -> Path:
    """A made file of MovieLens 1M, which is Latin-1."""
    file = folder / name
    text = "".join(f"{line}\n" for line in [*MOVIELENS[name], *lines.values()])
    file.write_text(text, encoding="latin-1")
    return file


def test_movielens_ratings_are_interactions_whatever_they_are(tmp_path: Path) -> None:
    """Chronological, of one second in the order of the file; the third user is not in the core."""
    prepared = prepare(movielens(tmp_path, "ratings.dat"), FORMATS["movielens"], core=2)
    assert prepared.original == ["661", "1193"]
    assert (prepared.read, prepared.rare) == (5, 1)
    words = attributes(movielens(tmp_path, "movies.dat"), FORMATS["movielens"])
    assert words["73"] == ["Drama", "Musical"]
    write(prepared, tmp_path, "ml-1m", words)
    assert (tmp_path / "ml-1m.txt").read_text() == "1 1 2\n2 1 2\n"
    stored = json.loads((tmp_path / "ml-1m_item2attributes.json").read_text())
    assert stored == {"1": [1, 2, 3], "2": [4]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("4::661::4", "line 6: must be user::item::rating::timestamp; got '4::661::4'"),
        ("4::661::4::soon", "line 6: timestamp must be a time; got 'soon'"),
        ("::661::4::9", "line 6: user must be text; got ''"),
    ],
)
def test_movielens_names_bad_lines(tmp_path: Path, line: str, said: str) -> None:
    dump = movielens(tmp_path, "ratings.dat", bad=line)
    done = CliRunner().invoke(
        main, ["data", "prepare", "movielens", str(dump), "--name", "x", "--out", str(tmp_path)]
    )
    assert done.exit_code == 2
    assert f"ratings.dat: {said}" in " ".join(done.output.split())
