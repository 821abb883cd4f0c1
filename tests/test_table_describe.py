"""`abtest data describe`: what it takes each column for and why, what it counts as odd, and that
the section it writes runs as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from policies.time import DAY
from simulator.cli import main
from simulator.datasets import read
from simulator.datasets.describe import describe
from simulator.scenario.parts import Data

MIDNIGHT = 1_714_521_600_000
"""2024-05-01 00:00 UTC, ms."""
NOW = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Six rows: one repeated, one too early, one in the future, one without a user; ratings."""
    lines = [
        "User-ID;video;createdAt;stars;dwell_ms;colour",
        f"u1;a;{MIDNIGHT + 5000};4;1500;red",
        f"u1;b;{MIDNIGHT + 1000};5;20000;red",
        f"u1;b;{MIDNIGHT + 1000};5;20000;red",
        f";b;{MIDNIGHT + 1000};5;20000;red",
        f"u2;a;{MIDNIGHT + 3 * DAY};1;100;red",
        f"u2;a;{MIDNIGHT + 90 * DAY};5;100;red",
    ]
    path = tmp_path / "events.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_are_guessed_by_name_and_value(events: Path) -> None:
    guesses = {guess.name: guess for guess in describe(events, NOW).columns}
    taken = {name: guess.role for name, guess in guesses.items() if guess.role}
    assert taken == {
        "User-ID": "user",
        "video": "item",
        "createdAt": "time",
        "stars": "click",
        "dwell_ms": "watch",
    }
    assert guesses["createdAt"].why == "its name; in ms since 1970 the first is of 2024-05-01"
    assert guesses["stars"].why == "its name; a scale of 1 to 5: from 4 on taken for a click"
    assert guesses["dwell_ms"].why == "its name says ms"
    assert guesses["colour"].why == "its name says nothing"
    assert guesses["video"].examples == ("a", "b")


def test_what_is_odd_is_counted(events: Path) -> None:
    table = describe(events, NOW)
    assert table.counts["rows"] == "6"
    assert table.counts["users"] == "2"
    assert table.odd == {
        "rows without user": 1,
        "rows that say the same as another": 1,
        "rows of a user that are earlier than the one above": 1,
        "rows in the future": 1,
        "users with one click only": 1,
    }


def test_the_section_reads_the_table(events: Path) -> None:
    table = describe(events, NOW)
    assert table.section == {
        "source": "table",
        "path": str(events),
        "text": {"delimiter": ";"},
        "columns": {
            "user": "User-ID",
            "item": "video",
            "time": {"column": "createdAt", "unit": "ms"},
            "click": {"column": "stars", "at_least": 4.0},
            "watch": {"column": "dwell_ms", "unit": "ms"},
        },
        "missing": "drop",
    }
    source = read(Data.model_validate(table.section), Path())
    assert source.notes["rows without user, dropped"] == 1
    assert source.notes["exact duplicates dropped"] == 1


def test_a_name_whose_values_do_not_fit_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"user,item,time,position,like\n1,2,{MIDNIGHT},-1,maybe\n")
    guesses = {guess.name: guess for guess in describe(path, NOW).columns}
    assert guesses["position"].role is None
    assert guesses["position"].why.startswith("called like a position, which must be a place in")
    assert guesses["like"].role is None


def test_a_published_file_is_known_by_its_columns_or_its_name(tmp_path: Path) -> None:
    ratings = tmp_path / "my-ratings.csv"
    ratings.write_text("userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,5,4,1260859144\n")
    assert describe(ratings, NOW).format == "movielens"
    data = tmp_path / "u.data"
    data.write_text("196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    table = describe(data, NOW)
    assert table.format == "movielens-100k"
    assert table.section == {"source": "table", "path": str(data), "format": "movielens-100k"}
    assert [guess.role for guess in table.columns] == ["user", "item", "click", "time"]


def test_times_without_a_zone_are_utc_and_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("user,item,time\n1,2,2024-05-01 10:00:00\n1,3,2024-05-09 10:00:00\n")
    table = describe(path, NOW)
    assert table.section["zone"] == "UTC"
    assert table.columns[2].why == "its name; times without a zone, taken for UTC"


def test_a_log_that_ends_in_silence_is_cut_by_user(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": range(300), "item": 1, "time": MIDNIGHT})
    frame.loc[0, "time"] += 90 * DAY
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = describe(tmp_path / "x.csv", NOW)
    assert table.section["split"] == "last"
    assert table.why.endswith("since the last 2 days have 0.3% of the rows")


def test_a_frame_of_python_is_described(events: Path) -> None:
    table = describe(pd.read_csv(events, sep=";"), NOW)
    assert table.section["columns"]["user"] == "User-ID"
    assert table.odd["rows in the future"] == 1


def test_the_command_writes_a_section_that_runs(events: Path, tmp_path: Path) -> None:
    out = tmp_path / "data.yaml"
    told = CliRunner().invoke(main, ["data", "describe", str(events), "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert "odd: rows without user: 1" in told.output
    assert yaml.safe_load(out.read_text()) == {"data": describe(events).section}
    assert out.read_text() in told.output
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "name: s\nusers: {kind: logged}\ndays: 1\narms: {random: {policy: random}}\n"
        f"serving: {{slate: 2, recall: 4}}\n{out.read_text()}"
    )
    checked = CliRunner().invoke(main, ["scenario", "check", str(scenario)])
    assert checked.exit_code == 0, checked.output


def test_one_file_holds_one_section(events: Path, tmp_path: Path) -> None:
    command = ["data", "describe", str(events), str(events), "--out", str(tmp_path / "data.yaml")]
    told = CliRunner().invoke(main, command)
    assert told.exit_code == 2
    assert "--out holds one section" in told.output


def test_the_command_asks_for_what_it_cannot_guess(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b,c\nx,y,z\n")
    told = CliRunner().invoke(main, ["data", "describe", str(path)])
    assert told.exit_code == 2
    assert "no column is called like item or user: say which it is" in told.output
