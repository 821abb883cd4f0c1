"""Sums of users take as few bytes as they need, and nothing that is said of a log depends on it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest

from policies.base import silent
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY, LogError
from simulator.report.gather import gather
from simulator.report.stored import encode
from simulator.stats import units, user_days
from simulator.stats.unit_table import as_floats, in_few_bytes
from tests.worlds import feedback_log, interleaved_log, paired_log, switchback_log, with_fits


def split_log() -> EventLog:
    """Of each user of a paired log the rows of one arm, and the history."""
    log = paired_log(n_users=120, days=3)
    scenario = {**log.metadata.scenario, "seed": 1, "design": {"kind": "split"}}
    meta = dataclasses.replace(log.metadata, scenario=scenario)
    own = meta.arm_of_user()
    assert own is not None
    arm, user = (log.table[name].to_numpy() for name in ("arm", "user"))
    keep = (own[user] == arm) | (arm == meta.arms.index(HISTORY))
    return EventLog(meta, log.table.filter(pa.array(keep)))


LOGS = {
    "paired": lambda: paired_log(n_users=120, days=3),
    "one day": lambda: paired_log(n_users=120, days=1),
    "split": split_log,
    "fits": lambda: with_fits(feedback_log(80, days=2), 2),
    "switchback": lambda: switchback_log([0, 1, 1, 0], np.full((60, 4), 300)),
    "interleave": lambda: interleaved_log(60, 0.5),
}


@pytest.mark.parametrize("name", LOGS)
def test_a_report_does_not_depend_on_the_bytes_of_sums(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LOGS[name]()

    def said() -> str:
        return json.dumps(encode(gather(log, runtime=None, progress=silent)))

    few = said()
    assert min(cube.itemsize for cube in units.read(log).terms.values()) < 8
    for module in (units, user_days):
        monkeypatch.setattr(module, "in_few_bytes", as_floats)
    assert min(cube.itemsize for cube in units.read(log).terms.values()) == 8
    assert said() == few


def test_sums_grow_into_the_bytes_that_they_need() -> None:
    plays = np.array([[127, 0], [128, 1], [300, 2]])
    days = units.read(switchback_log([0, 1], plays), ("impressions", "watch_time"))
    impressions = days.terms["impressions"].sum(axis=0)
    assert days.terms["impressions"].dtype == np.int16
    assert days.terms["watch"].dtype == np.float64
    assert np.array_equal(impressions, plays)
    assert in_few_bytes(np.array([127], dtype=np.int64)).dtype == np.int8
    assert in_few_bytes(np.array([128], dtype=np.int64)).dtype == np.int16
    assert in_few_bytes(np.array([70_000], dtype=np.int64)).dtype == np.int32
    fewer, more = in_few_bytes(np.array([0, 127], dtype=np.uint64))
    assert fewer - more == -127
    assert in_few_bytes(np.array([0.5])).dtype == np.float64


def test_a_row_that_breaks_a_rule_is_named_before_it_counts() -> None:
    log = paired_log(n_users=20, days=2)
    item = log.table["item"].to_numpy().copy()
    item[7] = log.metadata.n_items + 1
    place = log.table.schema.get_field_index("item")
    broken = EventLog(
        log.metadata,
        log.table.set_column(place, log.table.schema.field(place), pa.array(item)),
    )
    with pytest.raises(LogError, match="row 7: item must be"):
        gather(broken, runtime=None, progress=silent, inspect=True)
