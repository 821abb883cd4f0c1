"""Dumps of reviews, in the forms in which they are published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulator.cli import main
from simulator.datasets import DataError
from simulator.datasets.prepare import FORMATS, attributes, prepare
from tests.made_files import (
    amazon,
    reviews,
    yelp,
)


@pytest.mark.parametrize(
    ("kind", "review", "text"), [("amazon", amazon, "reviewText"), ("yelp", yelp, "text")]
)
def test_reviews_repeated_word_for_word_count_once(
    tmp_path: Path, kind: str, review: Callable[..., dict[str, Any]], text: str
) -> None:
    form = FORMATS[kind]
    rows = [
        review("u", "a", 1, **{text: "Fine.", "stars": 5}),
        review("u", "b", 2),
        review(
            "u", "a", 1, **{text: "Fine. ", "stars": 4, "review_id": "x"}
        ),  # the same text: a repetition
        review("u", "a", 1, **{text: "Broke.", "stars": 1}),  # another text: another review
        review("u", "a", 3, **{text: "Fine."}),  # another time
        review("v", "a", 1, **{text: "Fine."}),  # another user
        dict(reversed(review("u", "b", 2).items())),  # no text: the same record in another order
        review("u", "b", 2, stars=1),  # no text: not the same record
    ]
    (tmp_path / "d.json").write_text("\n".join(reviews(rows)))
    prepared = prepare(tmp_path / "d.json", form, core=1)
    assert (prepared.read, prepared.repeated, prepared.statistics.actions) == (8, 2, 6)
    assert prepared.item.tolist() == [1, 1, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("kind", "line", "words"),
    [
        (
            "amazon",
            '{"reviewerID": "u", "asin": "a", "asin": "b", "unixReviewTime": 1}',
            "the key 'asin' stands there twice",
        ),
        (
            "amazon",
            '{"reviewerID": "u", "asin": "a", "unixReviewTime": 1500000000000}',
            "must be a time since 1970, in s",
        ),
        (
            "amazon",
            '{"reviewerID": "u", "asin": "a", "unixReviewTime": -5}',
            "must be a time since 1970, in s",
        ),
        (
            "amazon",
            '{"reviewerID": "u", "asin": "a", "unixReviewTime": true}',
            "unixReviewTime must be a time; got 'True'",
        ),
        (
            "amazon",
            '{"reviewerID": "u", "asin": "a", "unixReviewTime": "1_0"}',
            "unixReviewTime must be a time; got '1_0'",
        ),
        (
            "amazon",
            f'{{"reviewerID": "u", "asin": "a", "unixReviewTime": {"1" * 5000}}}',
            "must be a JSON object",
        ),
        ("amazon", "[" * 100_000, "must be a JSON object"),
        (
            "amazon",
            '{"reviewerID": " ", "asin": "a", "unixReviewTime": 1}',
            "reviewerID must be text; got ' '",
        ),
        (
            "yelp",
            '{"user_id": "u", "business_id": "a", "date": "1556704800"}',
            "date must be a time; got '1556704800'",
        ),
        (
            "yelp",
            '{"user_id": "u", "business_id": "a", "date": 1556704800}',
            "date must be a time; got '1556704800'",
        ),
    ],
)
def test_bad_reviews_are_refused_by_line(tmp_path: Path, kind: str, line: str, words: str) -> None:
    good = {"amazon": amazon, "yelp": yelp}[kind]("u", "a", 1)
    (tmp_path / "d.json").write_text(f"{json.dumps(good)}\n\n{line}\n")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "d.json", FORMATS[kind], core=1)
    assert "d.json: line 3: " in str(caught.value)
    assert words in str(caught.value)


def test_descriptions_of_one_item_must_agree(tmp_path: Path) -> None:
    meta = tmp_path / "meta.json"
    meta.write_text(
        '{"asin": "x", "categories": [["a", "b"]]}\n{"asin": "x", "categories": [["a", "b"]],'
        ' "price": 3}\n'
    )
    assert attributes(meta, FORMATS["amazon"]) == {"x": ["b"]}
    meta.write_text('{"asin": "x", "brand": "a"}\n{"asin": "x", "brand": "b"}\n')
    with pytest.raises(
        DataError, match=r"line 2: asin must be unique; 'x' has other attributes in line 1"
    ):
        attributes(meta, FORMATS["amazon"])
    for line in (
        '{"asin": "x", "categories": ["a", "b"]}',
        '{"asin": "x", "categories": "a, b"}',
        "{'asin': 'x', 'categories': 5}",
    ):
        meta.write_text(line + "\n")
        with pytest.raises(DataError, match=r"line 1: categories must be lists of names"):
            attributes(meta, FORMATS["amazon"])


def test_a_prepared_data_set_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("\n".join(reviews([amazon("u", "a", 1)])))
    for name in ("../x", "a/b", "..", "", "x\ny", str(tmp_path / "x")):
        command = [
            "data",
            "prepare",
            "amazon",
            str(tmp_path / "d.json"),
            "--core",
            "1",
            "--out",
            str(tmp_path / "out"),
            "--name",
            name,
        ]
        done = CliRunner().invoke(main, command)
        assert (done.exit_code, done.output) == (
            2,
            f"abtest: --name {name!r}: must be the plain name of a file, without folders\n",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.json"]
