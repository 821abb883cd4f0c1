"""Report and replay hold a log to one set of rules: the same rows are refused, in the same words,
and the same rows are accepted, by the commands as users call them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from policies.time import DAY
from simulator.cli.replay import replay
from simulator.cli.report import report
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata

USERS, VISITS, PLACES = 40, 6, 2


def written(path: Path) -> Path:
    """A split log of two arms, two impressions a request."""
    random = np.random.Generator(np.random.Philox(key=31))
    user, visit, place = (index.ravel() for index in np.indices((USERS, VISITS, PLACES)))
    n = len(user)
    first = random.integers(0, 12, (USERS, VISITS, 1))
    item = (first + np.array([0, 5])) % 12 + 1
    columns = {
        "arm": user % 2,
        "user": user,
        "session": visit,
        "request": np.zeros(n, dtype=int),
        "position": place,
        "t": visit * DAY // 2 + user,
        "item": item.ravel(),
        "click": (random.uniform(size=n) < 0.4).astype(np.int8),
        "watch": random.uniform(0, 30, n),
        "duration": np.full(n, 20.0),
        "propensity": np.full(n, 1 / 12),
    }
    metadata = Metadata(("a", "b"), USERS, 12, propensity="conditional", control="a")
    return EventLog.from_columns(columns, metadata).write(path)


def changed(path: Path, name: str, row: int, value: Any) -> Path:
    """The log with one value changed, as another program would have written it: without a seal."""
    table = pq.read_table(path)
    at = table.schema.get_field_index(name)
    values = table[name].to_pylist()
    values[row] = value
    field = table.schema.field(at)
    keep = {b"abtest": table.schema.metadata[b"abtest"]}
    table = table.set_column(at, field, pa.array(values, field.type))
    pq.write_table(table.replace_schema_metadata(keep), path)
    return path


def answers(log: Path, folder: Path) -> list[tuple[int, str]]:
    """Exit code and last words of both commands."""
    asked = (
        (report, [str(log), "--out", str(folder / "report"), "--quiet"]),
        (replay, [str(log), "--arm", "b", "--policy", "popularity", "--resamples", "100", "--quiet",
                  "--out", str(folder / "replay")]),
    )  # fmt: skip
    said = []
    for command, arguments in asked:
        done = CliRunner().invoke(command, arguments)
        assert "Traceback" not in done.output
        said.append((done.exit_code, done.output.strip()))
    return said


BAD: list[tuple[str, int, Any, str]] = [
    ("t", 5, 0, "row 5: t = 0 ms is before that of the row above"),
    ("t", 7, 10**16, "row 7: t must be ms, at most 200 years from the start"),
    ("user", 9, USERS, "row 9: user must be"),
    ("item", 11, 13, "row 11: item must be an item of 1..12; got 13"),
    ("item", 250, 13, "row 250: item must be an item of 1..12; got 13"),
    ("arm", 3, 2, "row 3: arm must be"),
    ("propensity", 2, 1.5, "row 2: propensity must be a probability in (0, 1] or null; got 1.5"),
    ("propensity", 2, float("nan"), "row 2: propensity must be a probability"),
    ("propensity", 2, 0.0, "row 2: propensity must be a probability in (0, 1] or null; got 0"),
    ("watch", 4, -0.5, "row 4: watch must be seconds >= 0 or null; got -0.5"),
    ("watch", 4, float("inf"), "row 4: watch must be seconds >= 0 or null; got inf"),
    ("duration", 6, float("nan"), "row 6: duration must be seconds >= 0; got nan"),
    ("position", 1, 0, "row 1:"),
]


@pytest.mark.parametrize(("name", "row", "value", "words"), BAD)
def test_both_refuse_the_same_rows_in_the_same_words(
    name: str, row: int, value: Any, words: str, tmp_path: Path
) -> None:
    """Also rows of the other arm: a log that breaks a rule anywhere is not trusted."""
    log = changed(written(tmp_path / "log.parquet"), name, row, value)
    by_report, by_replay = answers(log, tmp_path)
    assert by_report == by_replay
    assert by_report[0] == 2
    assert words in by_report[1]
    assert "log.parquet" in by_report[1]


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [("watch", 4, None), ("item", 11, 12), ("propensity", 2, 1.0), ("click", 8, None)],
)
def test_both_accept_the_same_rows(name: str, row: int, value: Any, tmp_path: Path) -> None:
    log = changed(written(tmp_path / "log.parquet"), name, row, value)
    assert [code for code, _ in answers(log, tmp_path)] == [0, 0]
