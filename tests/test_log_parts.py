"""The published cut of a run's log: a part for each arm and so many users, however the run was
cut.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from simulator.log import workspace
from simulator.log.eventlog import EventLog, LogPart, write_parts
from simulator.log.ledger import Ledger
from tests.worlds import log_files, paired_log, simulate_scenario, tiny_scenario

ARMS = {"B": {"policy": "popularity"}, "a": {"policy": "explore", "params": {"epsilon": 0.5}}}
"""Whose folders do not sort as their names do."""

RUNS: dict[str, dict[str, Any]] = {
    "paired": {},
    "slates drafted by two arms": {"design": {"kind": "interleave", "control": "B"}},
    "one user an arm": {
        "design": {"kind": "split", "control": "B"},
        "users": {"kind": "choice", "n_users": 2, "n_items": 40},
    },
    "lives with every fit": {
        "arms": {
            "B": {"policy": "popularity"},
            "a": {"policy": "bpr", "params": {"width": 4, "training": {"epochs": 1}}, "fits": 2},
        },
        "fits": {"number": 2, "design": "crossed"},
    },
}


def lived(folder: Path, shards: int, changes: dict[str, Any]) -> Path:
    content = tiny_scenario(**{"arms": ARMS, **changes})
    content["users"] = {"kind": "choice", "n_users": 30, "n_items": 60, **changes.get("users", {})}
    content["engine"] = {"executor": "serial", "shards": shards}
    return simulate_scenario(folder, content)


@pytest.mark.parametrize("kind", RUNS)
def test_parts_are_cut_between_users_alike_under_all_shards(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = EventLog.open(lived(tmp_path / "whole", 2, RUNS[kind]) / "log")
    monkeypatch.setattr(workspace, "PART_USERS", 7 if whole.metadata.n_users > 7 else 1)
    cut = [lived(tmp_path / str(shards), shards, RUNS[kind]) for shards in (1, 3, 11)]
    files = [log_files(root) for root in cut]
    assert files[0] == files[1] == files[2]
    log = EventLog.open(cut[0] / "log")
    log.validate()
    assert len(log.parts) > len(whole.parts)
    assert log.metadata == whole.metadata
    assert log.table.equals(whole.table)
    listed = Ledger(cut[0]).pieces()
    for part in log.parts:
        alone = EventLog.open(part)
        first = int(part.parent.name.removeprefix("first_user="))
        user = alone.table["user"].to_numpy()
        assert ((user >= first) & (user < first + workspace.PART_USERS)).all()
        assert listed[part.relative_to(cut[0]).as_posix()].rows == alone.n_rows
    who = np.arange(1, whole.metadata.n_users, 2)
    assert log.of_users(who).table.equals(whole.of_users(who).table)


def test_a_run_is_one_table_to_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polars = pytest.importorskip("polars")
    monkeypatch.setattr(workspace, "PART_USERS", 7)
    folder = lived(tmp_path, 2, {}) / "log"
    log = EventLog.open(folder)
    ours = Counter(log.metadata.arms[arm] for arm in log.table["arm"].to_pylist())
    read = polars.scan_parquet(folder).collect()
    assert read.select(log.table.column_names).height == log.n_rows
    theirs = Counter(name.partition("~")[0] for name in read["arm_name"])
    assert theirs == ours
    assert (read["user"] - read["first_user"]).is_between(0, 6).all()
    query = f"SELECT arm_name FROM '{folder}/**/*.parquet'"
    rows = duckdb.sql(query).fetchall()
    assert Counter(name.partition("~")[0] for (name,) in rows) == ours


def test_the_log_of_an_earlier_version_is_read_in_the_order_of_its_arms(tmp_path: Path) -> None:
    log = paired_log(20)
    for arm in range(len(log.metadata.arms)):
        rows = log.table.filter(np.equal(log.table["arm"].to_numpy(), arm))
        EventLog(log.metadata, rows).write(tmp_path / f"{9 - arm}.parquet")
    assert EventLog.open(tmp_path).table.equals(log.table)
    EventLog.open(tmp_path).validate()


def test_rows_of_users_after_the_last_part_are_not_lost(tmp_path: Path) -> None:
    log = paired_log(20)
    rows = log.table.filter(np.equal(log.table["arm"].to_numpy(), 0))
    with pytest.raises(AssertionError, match="after the last part"):
        write_parts([rows], [LogPart(tmp_path / "a.parquet", 0, 19)], log.metadata, log.optional)
