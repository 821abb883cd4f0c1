"""Designs, refits and worlds: what is shared, what is switched, what is learned, read from the
log.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from policies.base import Sequences
from policies.time import DAY
from simulator.designs.switchback import Switchback
from simulator.log.eventlog import EventLog
from simulator.run.pipeline import run
from simulator.scenario.model import Scenario
from simulator.serving.feedback import blocks
from tests.worlds import PLAIN_ARMS, log_digests, simulate_scenario, tiny_scenario, write_scenario

TWO = {"a": PLAIN_ARMS["a"], "b": PLAIN_ARMS["b"]}


@pytest.fixture(scope="module")
def paired_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_scenario(tmp_path_factory.mktemp("paired"), tiny_scenario(TWO))


def rows(root: Path, arm: int) -> pa.Table:
    table = EventLog.open(root / "log").table
    return table.filter(pc.equal(table["arm"], arm))


def test_a_switchback_changes_the_arm_of_everybody_by_day(tmp_path):
    content = tiny_scenario(TWO, design={"kind": "switchback", "control": "a"}, days=4)
    root = simulate_scenario(tmp_path, content)
    log = EventLog.open(root / "log")
    log.validate()
    given = Switchback(("a", "b"), 9, 4).schedule()
    table = log.table.filter(pc.greater(log.table["arm"], 0))
    day = table["t"].to_numpy() // DAY
    np.testing.assert_array_equal(table["arm"].to_numpy(), given[day] + 1)
    assert set(day) == {0, 1, 2, 3}
    again = log_digests(
        simulate_scenario(
            tmp_path / "again",
            {**content, "engine": {"executor": "serial", "block": 5, "shards": 3}},
        )
    )
    assert again == log_digests(root)


def test_the_first_day_of_a_switchback_is_that_of_the_arm_alone(tmp_path, paired_run):
    first = int(Switchback(("a", "b"), 9, 2).schedule()[0]) + 1
    table = rows(
        simulate_scenario(
            tmp_path, tiny_scenario(TWO, design={"kind": "switchback", "control": "a"})
        ),
        first,
    )
    alone = rows(paired_run, first)
    assert table.equals(alone.filter(pc.less(alone["t"], DAY)))


def test_interleaved_slates_credit_each_item_to_its_drafter(tmp_path):
    content = tiny_scenario(TWO, design={"kind": "interleave", "control": "a"})
    content["serving"] = {"slate": 4, "recall": 12, "history": 16, "ranking": {"kind": "recall"}}
    root = simulate_scenario(tmp_path, content)
    log = EventLog.open(root / "log")
    log.validate()
    table = log.table.filter(pc.greater(log.table["arm"], 0)).to_pandas()
    slates = table.groupby(["user", "session", "request"])
    drafted = slates["arm"].agg(["count", "sum"])
    whole = drafted[drafted["count"] == 4]
    assert len(whole) > 50
    assert (whole["sum"] == 6).all(), "two of four items from each team"
    assert (slates["item"].nunique() == slates["item"].count()).all()
    first = table[table["position"] == 0]["arm"]
    assert abs((first == 1).mean() - 0.5) < 5 * (0.25 / len(first)) ** 0.5
    again = {**content, "engine": {"executor": "serial", "block": 5, "shards": 3, "tick": 60.0}}
    assert log_digests(simulate_scenario(tmp_path / "again", again)) == log_digests(root)


def test_interleaving_an_arm_with_itself_serves_its_own_slates(tmp_path, paired_run):
    """Both teams have the same list, so the slates are those of the arm alone, whoever drafted an
    item.
    """
    root = simulate_scenario(
        tmp_path,
        tiny_scenario(
            {"a": PLAIN_ARMS["a"], "c": PLAIN_ARMS["a"]},
            design={"kind": "interleave", "control": "a"},
        ),
    )
    table = EventLog.open(root / "log").table
    order = [(name, "ascending") for name in ("user", "session", "request", "position")]
    table = table.filter(pc.greater(table["arm"], 0)).sort_by(order)
    assert table.drop_columns(["arm"]).equals(rows(paired_run, 1).drop_columns(["arm"]))


DAILY = {"slate": 4, "recall": 12, "history": 16, "refit": "daily"}


@pytest.mark.parametrize("on", ["own", "pooled"])
def test_a_daily_refit_learns_from_the_days_before_and_changes_no_earlier_one(on, tmp_path):
    arms = {"a": PLAIN_ARMS["a"], "b": PLAIN_ARMS["b"], "c": PLAIN_ARMS["a"]}
    never = simulate_scenario(
        tmp_path / "never", tiny_scenario(arms, serving={**DAILY, "refit": "never"}, days=3)
    )
    daily = simulate_scenario(
        tmp_path / "daily", tiny_scenario(arms, serving={**DAILY, "refit_on": on}, days=3)
    )
    one, other = rows(never, 1), rows(daily, 1)
    assert one.filter(pc.less(one["t"], DAY)).equals(other.filter(pc.less(other["t"], DAY)))
    assert not one.equals(other)
    assert other.drop_columns(["arm"]).equals(rows(daily, 3).drop_columns(["arm"])), (
        "equal arms stay equal"
    )
    fits = sorted(
        p.name.split("-day-")[-1].split("-")[0]
        for p in (daily / "models").glob("popularity-*-day-*")
    )
    assert fits == (["1", "2"] if on == "pooled" else ["1", "1", "2", "2"])


def test_a_refit_on_the_own_log_counts_its_clicks(tmp_path):
    """Popularity fitted again before day 1 counts the clicks of the history and of the arm's own
    first day.
    """
    root = simulate_scenario(tmp_path, tiny_scenario(TWO, serving=DAILY))
    own = rows(root, 1)
    seen = pa.concat_tables([rows(root, 0), own.filter(pc.less(own["t"], DAY))])
    clicks = np.bincount(
        seen.filter(pc.fill_null(seen["click"], False))["item"].to_numpy(), minlength=121
    )
    with np.load(next((root / "models").glob("popularity-*-day-1-*")) / "state.npz") as state:
        np.testing.assert_array_equal(state["counts"], clicks)


def test_a_daily_refit_is_exact_however_it_is_computed(tmp_path):
    one = simulate_scenario(tmp_path / "one", tiny_scenario(TWO, serving=DAILY))
    two = simulate_scenario(
        tmp_path / "two",
        tiny_scenario(
            TWO,
            serving=DAILY,
            engine={"executor": "serial", "block": 3, "shards": 4, "tick": 600.0},
        ),
    )
    assert log_digests(one) == log_digests(two)


BANDIT = """
from dataclasses import dataclass
import numpy as np
from policies.popularity import Popularity

@dataclass
class Bandit(Popularity):
    def update(self, histories, slates, clicked):
        np.add.at(self.counts_, slates.items[clicked], 100)
"""


def test_an_updatable_policy_is_given_the_answers_of_the_day(tmp_path):
    (tmp_path / "bandit.py").write_text(BANDIT)
    root = simulate_scenario(
        tmp_path,
        tiny_scenario(
            {"a": PLAIN_ARMS["a"], "bandit": {"policy": "bandit.py:Bandit"}}, serving=DAILY
        ),
    )
    fits = sorted((root / "models").glob("bandit-*"), key=lambda p: len(p.name))
    before, after = (np.load(fit / "state.npz")["counts"] for fit in fits)
    served = rows(root, 2)
    served = served.filter(pc.and_(pc.less(served["t"], DAY), pc.fill_null(served["click"], False)))
    np.testing.assert_array_equal(
        after - before, 100 * np.bincount(served["item"].to_numpy(), minlength=121)
    )


def test_logged_requests_are_given_back_as_they_were():
    """Two users by hand: user 0 asks at 1 (items 1 2) and 7 (item 3), user 1 at 5 (items 4 5 6)."""
    log = Sequences(
        np.array([0, 1]),
        np.array([0, 3, 6]),
        np.array([1, 2, 3, 4, 5, 6]),
        np.array([True, False, True, False, True, False]),
        np.array([1, 1, 7, 5, 5, 5]),
    )
    ((histories, slates, clicked),) = blocks(log, 0, 2, 3)
    assert histories.user.tolist() == [0, 1, 0]
    assert histories.step.tolist() == [0, 0, 1]
    assert slates.items.tolist() == [[1, 2, 0], [4, 5, 6], [3, 0, 0]]
    assert clicked.tolist() == [[True, False, False], [False, True, False], [True, False, False]]
    assert histories.items.tolist() == [[0, 0], [0, 0], [1, 2]]
    assert histories.clicked.tolist() == [[False, False], [False, False], [True, False]]
    assert histories.seen.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 2]]
    assert [len(block[0]) for block in blocks(log, 6, 2, 3)] == [1]


def test_further_worlds_run_the_same_arms(tmp_path):
    worlds = {"smaller": {"users": {"kind": "choice", "n_users": 40, "n_items": 80}}}
    loaded = Scenario.load(write_scenario(tmp_path, tiny_scenario(TWO, worlds=worlds)))
    outcome = run(loaded, tmp_path / "out", folder=tmp_path)
    there = EventLog.open(tmp_path / "out" / "worlds" / "smaller" / "log").metadata
    assert (there.n_users, there.arms) == (40, ("history", "a", "b"))
    assert outcome.report is not None
    assert outcome.report.worlds
