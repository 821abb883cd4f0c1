"""Which keys the section of a table may have, and which of them win over those of its format."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.scenario.parts import Data
from simulator.scenario.tables import READY


def test_own_keys_win_over_those_of_a_format() -> None:
    click = {"column": "rating", "at_least": 3}
    data = Data(
        source="table", path="x", format="movielens", columns={"click": click, "time": None}
    )
    assert data.columns["click"].at_least == 3
    assert "time" not in data.columns
    assert data.columns["user"].column == "userId"
    assert Data.model_validate(data.model_dump(mode="json")) == data


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source": "table"}, "needs columns.user: the name of its column"),
        ({"source": "log", "zone": "UTC"}, "zone goes with source: table only"),
        ({"source": "table", "format": "movielen"}, "did you mean 'movielens'"),
        (
            {"source": "table", "columns": {"user": "u", "item": "i", "tme": "t"}},
            "cannot be 'tme'; did you mean 'time'",
        ),
        (
            {"source": "table", "columns": {"user": "u", "item": "i"}, "zone": "Asia/Shangai"},
            "did you mean 'Asia/Shanghai'",
        ),
        (
            {"source": "table", "columns": {"user": "u", "item": "i"}, "split": "days"},
            "split: days needs columns.time",
        ),
        (
            {
                "source": "table",
                "columns": {"user": "u", "item": {"column": "i", "pattern": "N[0-9]+"}},
            },
            r"must have one group, as \(.+\)-\[01\] has; it has 0",
        ),
    ],
)
def test_a_section_that_cannot_be_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Data.model_validate(keys)


@pytest.mark.parametrize("name", READY)
def test_every_format_is_a_section_that_can_be(name: str) -> None:
    assert Data(source="table", path="x", format=name).columns["user"].column
