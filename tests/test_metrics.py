"""Metrics by hand: a log of a dozen rows whose every figure is counted on the fingers."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.log.eventlog import EventLog
from simulator.log.items import ItemFacts
from simulator.log.metadata import Metadata
from simulator.log.metrics import METRICS, MetricError, chosen, metric
from simulator.stats.contrasts import TableMoments
from simulator.stats.unit_table import TableError, UnitTable
from simulator.stats.units import read
from tests.worlds import hand_counted_log

WANTED = (
    "comment",
    "play",
    "watch_time",
    "click",
    "sessions",
    "return",
    "click_rate",
    "impressions",
    "requests",
    "hit_rate@1",
    "ndcg@2",
)
BY_HAND = {
    "comment": [[1, 0, 0], [0, 1, 0]],
    "play": [[3, 1, 0], [0, 1, 0]],
    "watch_time": [[6.5, 0.5, 0], [0, 4, 0]],
    "click": [[3, 0, 0], [0, 1, 0]],
    "sessions": [[3, 1, 0], [1, 1, 0]],
    "return": [[1, 0, 0], [0, 0, 0]],
    "click_rate": [[3, 0, 0], [0, 1, 0]],
    "impressions": [[5, 1, 0], [1, 1, 0]],
    "requests": [[4, 1, 0], [1, 1, 0]],
    "hit_rate@1": [[3, 0, 0], [0, 0, 0]],
    "ndcg@2": [[3, 0, 0], [0, 1 / np.log2(3), 0]],
}


@pytest.mark.parametrize("name", WANTED)
def test_by_hand(name: str) -> None:
    table = read(hand_counted_log(), WANTED).by("user")
    assert table.numerators[name] == pytest.approx(np.array(BY_HAND[name]))


def test_denominators_by_hand() -> None:
    table = read(hand_counted_log(), WANTED).by("user")
    assert table.denominators["return"].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert table.denominators["click_rate"].tolist() == [[5, 1, 0], [1, 1, 0]]
    assert "click" not in table.denominators


def test_history_is_a_covariate_and_no_arm() -> None:
    days = read(hand_counted_log(), WANTED)
    assert days.arms == ("a", "b")
    assert days.by("user").covariates["watch_time"].tolist() == [7.0, 0.0, 0.0]
    assert days.by("user").groups["newness"].tolist() == ["known", "new", "new"]


def test_days_and_user_days() -> None:
    days = read(hand_counted_log(), WANTED)
    assert days.by("day").numerators["watch_time"] == pytest.approx(
        np.array([[4.5, 2.5], [0, 4.0]]) / 3
    )
    assert days.by("user-day").numerators["sessions"].tolist() == [
        [2, 1, 0, 1, 0, 0],
        [1, 0, 0, 1, 0, 0],
    ]
    assert days.by("user", until=1).numerators["click"].tolist() == [[2, 0, 0], [0, 0, 0]]
    assert days.by("user", first=1).numerators["click"].tolist() == [[1, 0, 0], [0, 1, 0]]


def test_a_column_that_is_not_logged_or_never_observed_is_no_data() -> None:
    days = read(hand_counted_log(), ("like", "click"))
    assert days.missing == ("like",)
    columns = {
        "user": [0],
        "session": [0],
        "request": [0],
        "position": [0],
        "t": [1],
        "item": [1],
        "click": np.array([-1], dtype=np.int8),
    }
    never = EventLog.from_columns(columns, Metadata(("a",), 1, 1, days=1))
    assert read(never, ("click", "impressions")).missing == ("click",)


def test_the_streaming_pass_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    log = hand_counted_log()
    whole = read(log, WANTED)
    original = EventLog.batches
    for rows in (1, 2, 3):
        monkeypatch.setattr(
            EventLog, "batches", lambda self, columns=None, rows=rows: original(self, columns, rows)
        )
        cut = read(log, WANTED)
        assert all(np.array_equal(whole.terms[name], cut.terms[name]) for name in whole.terms)
        monkeypatch.undo()


def test_rows_out_of_order_are_refused() -> None:
    log = hand_counted_log()
    shuffled = EventLog(log.metadata, log.table.take([3, 0, 1, 2, 4, 5, 6, 7, 8, 9]))
    with pytest.raises(TableError, match="order"):
        read(shuffled, WANTED)


def test_a_pure_history_cannot_be_compared() -> None:
    log = hand_counted_log()
    with pytest.raises(TableError, match="pure history"):
        read(EventLog(Metadata(("history",), 3, 1), log.table.slice(0, 1)), ("click",))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clik", "did you mean 'click'"),
        ("ndcg@0", "whole number"),
        ("ndcg@x", "whole number"),
        ("return/click", "'return' is not"),
    ],
)
def test_metrics_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        metric(name)


def test_a_log_without_days_is_one_stretch_of_time() -> None:
    """Held-out users: `days` is 0, every row from t = 0 on counts, and nothing is said by day."""
    days = read(hand_counted_log(days=0), ("watch_time", "hit_rate@1"))
    assert (days.days, days.by("user").numerators["watch_time"].tolist()) == (
        1,
        [[6.5, 0.5, 0], [0, 13.0, 0]],
    )
    assert days.by("user").numerators["hit_rate@1"].tolist() == [[3, 0, 0], [0, 0, 0]]


def test_a_day_without_a_denominator_in_either_of_two_arms_is_no_unit() -> None:
    """The third arm has one on each day; on the second day neither of the others does."""
    known = {"rate": metric("click_rate")}
    top = np.array([[1.0, 0, 3, 2], [2.0, 0, 4, 1], [5.0, 5, 5, 6]])
    bottom = np.array([[4.0, 0, 6, 7], [5.0, 0, 8, 0], [9.0, 9, 8, 9]])
    table = UnitTable("day", ("a", "b", "c"), known, {"rate": top}, {"rate": bottom})
    for arm, days in (("b", [0, 2, 3]), ("c", [0, 1, 2, 3])):
        part = TableMoments(table.where(np.array(days)), {}).moments("rate", "a", arm)
        found = TableMoments(table, {}).moments("rate", "a", arm)
        assert found.n_units == len(days)
        assert (found.lift, found.variance) == pytest.approx((part.lift, part.variance))


def test_a_ratio_of_two_metrics() -> None:
    ratio = read(hand_counted_log(), ("watch_time/impressions", "click_rate")).by("user")
    assert ratio.denominators["watch_time/impressions"] == pytest.approx(
        ratio.denominators["click_rate"]
    )
    assert [m.name for m in chosen(["click", "click", "like"])] == ["click", "like"]
    assert set(METRICS) > {
        "comment",
        "forward",
        "play",
        "follow",
        "watch_time",
        "click",
        "like",
        "sessions",
        "return",
    }


def test_a_frame_has_a_row_for_every_unit_of_every_arm() -> None:
    frame = read(hand_counted_log(), ("watch_time", "click")).by("user").frame()
    assert frame["arm"].tolist() == ["a"] * 3 + ["b"] * 3
    assert frame["unit"].tolist() == [0, 1, 2] * 2
    for name in ("watch_time", "click"):
        assert frame[name].tolist() == BY_HAND[name][0] + BY_HAND[name][1]
        assert frame[f"{name}.before"].tolist() == [7.0 if name == "watch_time" else 1.0, 0, 0] * 2


def sliced_log() -> tuple[EventLog, np.ndarray]:
    """Slates of 4 of 30 items with a history; and the categories of the items."""
    random = np.random.default_rng(5)
    n = 60 * 4
    items = np.concatenate([random.choice(30, 4, replace=False) + 1 for _ in range(60)])
    index = np.arange(n)
    columns = {
        "arm": np.minimum(index // 80, 2),
        "user": (index // 20) % 4,
        "session": np.zeros(n, dtype=int),
        "request": (index // 4) % 5,
        "position": index % 4,
        "t": np.where(index < 80, -1, 1),
        "item": items,
    }
    meta = Metadata(("history", "a", "b"), 4, 30, days=1)
    return EventLog.from_columns(columns, meta), random.integers(-1, 4, 31)


def test_diversity_and_novelty_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    log, tag = sliced_log()
    monkeypatch.setattr(ItemFacts, "of_log", lambda log: ItemFacts(tag=tag))
    names = ("diversity", "novelty", "author_diversity")
    days = read(log, names)
    table = days.by("user")
    rows = log.table.to_pandas()
    counts = np.bincount(rows["item"][rows["arm"] == 0], minlength=31)
    bits = -np.log2((counts + 1) / (80 + 30))
    for arm in (1, 2):
        for user in range(4):
            own = rows[(rows["arm"] == arm) & (rows["user"] == user)]
            pairs = unlike = 0
            for _, slate in own.groupby("request"):
                tags = tag[slate["item"]]
                for i in range(4):
                    for j in range(i):
                        pairs += tags[i] >= 0 and tags[j] >= 0
                        unlike += tags[i] >= 0 and tags[j] >= 0 and tags[i] != tags[j]
            assert table.denominators["diversity"][arm - 1, user] == pairs
            assert table.numerators["diversity"][arm - 1, user] == unlike
            expected = bits[own["item"]].sum()
            assert table.numerators["novelty"][arm - 1, user] == pytest.approx(expected)
    assert days.missing == ("author_diversity",)
    # However the rows are cut into batches.
    plain = EventLog.batches
    monkeypatch.setattr(
        EventLog, "batches", lambda self, columns, rows=7: plain(self, columns, min(rows, 7))
    )
    again = read(log, names).by("user")
    assert np.array_equal(again.numerators["diversity"], table.numerators["diversity"])
    assert np.array_equal(again.denominators["diversity"], table.denominators["diversity"])
