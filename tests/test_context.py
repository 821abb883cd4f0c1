"""Context of requests: lives, logs and replays tell the same, whatever the batch, the shards or an
interruption; what nobody asks for is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences, Slates
from policies.calls import CallError, Calls
from policies.context import wrong_context
from policies.examples import mixed
from policies.popularity import Random
from policies.registry import PolicyError, make
from policies.scored import Scored
from policies.time import DAY, HOUR
from policies.validation import LastClicks
from simulator.engine.lives import ShardLives
from simulator.log.eventlog import EventLog
from simulator.offpolicy.rounds import Stream
from simulator.serving.desk import ServingError
from simulator.serving.feedback import blocks
from simulator.users.base import Feedback
from tests.worlds import (
    KUAIRAND_HEAD,
    MIDNIGHT,
    kuairand_row,
    log_digests,
    simulate_scenario,
    tiny_scenario,
)

PAST = ("times", "watch", "reactions.like")
EVERYTHING = ("time", *PAST)

Told = dict[tuple[int, int], dict[str, Any]]
"""What was told of each request, by user and step: lists without the padding."""


@dataclass
class Tells(Random):
    """Recalls at random, keyed by all that it is told, too: other context, other slates. Notes what
    it is told.
    """

    asks_for: ClassVar[tuple[str, ...]] = EVERYTHING
    noted: ClassVar[Told] = {}

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        self.noted.update(told_by(histories))
        context = histories.context()
        key = histories.user.copy()
        for path in sorted(context):
            values = np.nan_to_num(context[path].astype(np.float64), nan=7.0).astype(np.int64)
            key = key * 31 + (values if values.ndim == 1 else values.sum(axis=1))
        return super().recall(replace(histories, user=key & 0xFFFF), k, seed)


def told_by(histories: Histories) -> Told:
    found = {}
    context = histories.context()
    for row in range(len(histories)):
        used = histories.items[row] > 0
        told: dict[str, Any] = {"items": histories.items[row][used].tolist()}
        for path, values in context.items():
            whole = values[row] if values.ndim == 1 else values[row][used]
            told[path] = np.nan_to_num(whole, nan=-9.0).tolist()
        found[int(histories.user[row]), int(histories.step[row])] = told
    return found


@dataclass
class AtThisHour(Scored):
    """The most clicked at this hour."""

    asks_for: ClassVar[tuple[str, ...]] = ("time",)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        clicks = sequences.clicks()
        self.clicks_ = np.zeros((24, catalogue.n_items + 1), dtype=np.float32)
        np.add.at(self.clicks_, (clicks.t % DAY // HOUR, clicks.items), 1.0)
        return self

    def scores(self, histories: Histories) -> np.ndarray:
        assert histories.time is not None
        assert histories.times is None
        return np.asarray(self.clicks_[histories.time % DAY // HOUR])

    def state(self) -> dict[str, np.ndarray]:
        return {"clicks": self.clicks_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.clicks_ = np.array(state["clicks"])
        return self


ARMS = {
    "tells": {"policy": "tests.test_context:Tells"},
    "plain": {"policy": "popularity"},
    "hour": {"policy": "tests.test_context:AtThisHour"},
}


def simulated(folder: Path, **engine: Any) -> Path:
    scenario = tiny_scenario(ARMS, engine={"executor": "serial", **engine})
    scenario["serving"] |= {"channels": [], "history": 12, "seen": 20}
    return simulate_scenario(folder, scenario)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    """A run, and what its arm was told of each request."""
    Tells.noted.clear()
    root = simulated(tmp_path_factory.mktemp("whole"))
    return root, dict(Tells.noted)


def test_lives_and_their_log_tell_the_same(whole: tuple[Path, Told]) -> None:
    root, lived = whole
    log = EventLog.open(root / "log")
    stream = Stream(log, arm="tells", history=12, seen=20, chunk=97, context=EVERYTHING)
    replayed: Told = {}
    for rounds in stream:
        assert rounds.histories is not None
        replayed.update(told_by(rounds.histories))
    assert len(replayed) > 150
    assert all(set(told) == {"items", *EVERYTHING} for told in replayed.values())
    before = [min(told["times"], default=1) < 0 <= told["time"] for told in replayed.values()]
    assert sum(before) > 20  # the past of some begins in the history of the world
    for key, told in replayed.items():
        assert told == lived[key], key


def test_what_is_told_is_what_the_log_says(whole: tuple[Path, Told]) -> None:
    root, lived = whole
    log = EventLog.open(root / "log")
    table = log.table.to_pandas()
    rows = table[table.arm == log.metadata.arms.index("tells")]
    shown = rows[(rows.session == rows.session.max())].iloc[-1]
    user = int(shown.user)
    own = rows[(rows.user == user) & (rows.t < shown.t)].tail(12)
    (told,) = [one for (who, _), one in lived.items() if who == user and one["time"] == shown.t]
    n = len(own)
    assert n > 0
    assert told["items"][-n:] == own.item.tolist()
    assert told["times"][-n:] == own.t.tolist()
    assert told["watch"][-n:] == own.watch.astype(float).tolist()
    assert told["reactions.like"][-n:] == own.like.astype(int).tolist()


@pytest.mark.parametrize("engine", [{"shards": 3}, {"block": 7}, {"tick": 1200}])
def test_no_cut_changes_a_byte(
    whole: tuple[Path, Told], engine: dict[str, Any], tmp_path: Path
) -> None:
    assert log_digests(simulated(tmp_path, **engine)) == log_digests(whole[0])


def test_workers_give_the_same_bytes(whole: tuple[Path, Told], tmp_path: Path) -> None:
    engine = {"executor": "processes", "shards": 2}
    scenario = tiny_scenario(ARMS, engine=engine)
    scenario["serving"] |= {"channels": [], "history": 12, "seen": 20}
    assert log_digests(simulate_scenario(tmp_path, scenario)) == log_digests(whole[0])


def test_an_interrupted_run_goes_on_with_the_same_bytes(
    whole: tuple[Path, Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recall = Tells.recall

    def stops(self: Tells, histories: Histories, k: int, seed: int) -> Slates:
        # After the first day of the A/B, whose snapshot is then there.
        if histories.time is not None and (histories.time > DAY + HOUR).any():
            raise KeyboardInterrupt
        return recall(self, histories, k, seed)

    scenario = tiny_scenario(ARMS, engine={"executor": "serial"})
    scenario["serving"] |= {"channels": [], "history": 12, "seen": 20}
    with monkeypatch.context() as patch:
        patch.setattr(Tells, "recall", stops)
        with pytest.raises(ServingError, match="KeyboardInterrupt"):
            simulate_scenario(tmp_path, scenario)
    assert list((tmp_path / "out").rglob("snapshot.npz"))
    assert log_digests(simulate_scenario(tmp_path, scenario, resume=True)) == log_digests(whole[0])


def test_nobody_else_is_told(whole: tuple[Path, Told], tmp_path: Path) -> None:
    """The other arms have the bytes that they have without an arm that asks."""
    scenario = tiny_scenario(
        {"plain": ARMS["plain"], "hour": ARMS["hour"]}, engine={"executor": "serial"}
    )
    scenario["serving"] |= {"channels": [], "history": 12, "seen": 20}
    scenario["design"] = {"kind": "paired", "control": "plain"}
    alone = EventLog.open(simulate_scenario(tmp_path, scenario) / "log")
    beside = EventLog.open(whole[0] / "log")
    for arm in ("plain", "hour"):
        one, other = (
            log.table.filter(
                np.asarray(log.table["arm"]) == log.metadata.arms.index(arm)
            ).drop_columns(["arm"])
            for log in (alone, beside)
        )
        assert one.equals(other)


def test_lives_remember_what_is_asked_for_and_no_more() -> None:
    plain = ShardLives.born(np.arange(3), np.zeros(3), 4)
    assert set(plain.state()) == {
        "user",
        "next",
        "session",
        "request",
        "step",
        "items",
        "clicked",
    }
    lives = ShardLives.born(np.arange(3), np.array([5, 6, 7]), 4, (*EVERYTHING, "features.tab"))
    assert set(lives.past) == set(PAST)
    for t in (5, 50):  # user 1 asks at 6 and at 50
        answers = Feedback(
            np.array([[1, 0, 1]], dtype=np.int8),
            np.array([[1.5, np.nan, t]], dtype=np.float32),
            np.array([2 + (t == 50)]),
            np.array([t + 45]),
            np.array([False]),
            {"like": np.array([[1, -1, 0]], dtype=np.int8)},
        )
        lives.advance(np.array([1]), np.array([[7, 8, 9]]) + t, answers)
    back = ShardLives.restore(lives.state()).rows(np.array([1, 2]))
    asked = back.histories(np.array([0]), 4, 4, {"time": np.array([95])})
    assert asked.items.tolist() == [[13, 57, 58, 59]]
    context = asked.context()
    assert context["times"].tolist() == [[6, 50, 50, 50]]
    np.testing.assert_array_equal(context["watch"], [[np.nan, 1.5, np.nan, 50.0]])
    assert context["reactions.like"].tolist() == [[-1, 1, -1, 0]]
    assert context["time"].tolist() == [95]


def test_a_past_that_the_history_does_not_know_is_unknown() -> None:
    log = mixed(n_users=4).sequences
    bare = Sequences(log.user, log.offsets, log.items, log.clicked, log.t)
    lives = ShardLives.born(np.arange(4), np.zeros(4), 6, EVERYTHING).with_past(bare)
    some = lives.items > 0
    assert some.any()
    assert not some.all()
    assert np.isnan(lives.past["watch"][some]).all()
    assert (lives.past["reactions.like"][some] == -1).all()
    assert (lives.past["times"][some] < 0).all()
    assert all((column[~some] == 0).all() for column in lives.past.values())


# Real logs: the surface of each request.


LOGGED = {
    "name": "surfaces",
    "seed": 3,
    "users": {"kind": "logged", "response": {"epochs": 1, "dim": 2, "hidden": 4, "bins": 12}},
    "days": 2,
    "serving": {"slate": 2, "recall": 8, "refit": "daily"},
    "arms": {"tab": {"policy": "tests.test_context:BySurface"}, "plain": {"policy": "popularity"}},
    "design": {"control": "plain"},
    "engine": {"executor": "serial"},
}


@dataclass
class BySurface(Scored):
    """The most clicked on this surface."""

    asks_for: ClassVar[tuple[str, ...]] = ("features.tab",)
    draws_in_fit: ClassVar[bool] = False
    fitted: ClassVar[list[list[int]]] = []

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        tab = sequences.columns["tab"]
        self.fitted.append(np.unique(tab[sequences.t >= 0]).tolist())
        self.clicks_ = np.zeros((8, catalogue.n_items + 1), dtype=np.float32)
        np.add.at(self.clicks_, (tab, sequences.items), sequences.clicked)
        return self

    def scores(self, histories: Histories) -> np.ndarray:
        assert histories.features is not None
        return np.asarray(self.clicks_[histories.features["tab"]])

    def state(self) -> dict[str, np.ndarray]:
        return {"clicks": self.clicks_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.clicks_ = np.array(state["clicks"])
        return self


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty users, twenty videos, five days; odd requests come from surface 3, others from 1."""
    where = tmp_path_factory.mktemp("surfaces")
    draw = np.random.default_rng(6)
    lines = [KUAIRAND_HEAD]
    for user in range(40):
        for day in range(5):
            for request in range(2):
                t = MIDNIGHT + day * DAY + user * 60_000 + request * 30_000
                for video in draw.choice(20, size=2, replace=False):
                    click = int(draw.random() < 0.5)
                    tab = 3 if (user + day + request) % 2 else 1
                    play = int(draw.exponential(20_000 if click else 1500))
                    lines.append(kuairand_row(user, int(video), t, click, play, tab=tab))
    (where / "log_standard_1_pure.csv").write_text("\n".join(lines) + "\n")
    return where


def test_the_surface_is_told_logged_and_learned_from(surfaces: Path, tmp_path: Path) -> None:
    data = {"source": "kuairand", "path": str(surfaces), "test_days": 2}
    BySurface.fitted.clear()
    root = simulate_scenario(tmp_path, {**LOGGED, "data": data})
    log = EventLog.open(root / "log")
    log.validate()
    table = log.table.to_pandas()
    lived = table[table.t >= 0]
    request = (lived.t % DAY - lived.user * 60_000) // 30_000
    day = lived.t // DAY + 3
    assert (lived.tab == np.where((lived.user + day + request) % 2, 3, 1)).all()
    assert (table[table.t < 0].tab > 0).all()
    assert [] in BySurface.fitted  # the first fit, on the history
    assert [1, 3] in BySurface.fitted  # the refit, on the first day of the A/B
    stream = Stream(log, arm="tab", history=4, context=("features.tab",))
    for rounds in stream:
        assert rounds.histories is not None
        assert rounds.histories.features is not None
        assert set(rounds.histories.features["tab"].tolist()) <= {1, 3}


def test_a_log_without_a_policy_that_asks_has_no_surface(surfaces: Path, tmp_path: Path) -> None:
    data = {"source": "kuairand", "path": str(surfaces), "test_days": 2}
    arms = {"plain": {"policy": "popularity"}, "random": {"policy": "random"}}
    root = simulate_scenario(tmp_path, {**LOGGED, "data": data, "arms": arms})
    assert "tab" not in EventLog.open(root / "log").optional


# What policies may ask for.


@dataclass
class AsksForWhatIsNotThere(AtThisHour):
    asks_for: ClassVar[tuple[str, ...]] = ("time", "features.tab")


@dataclass
class AsksWrongly(AtThisHour):
    asks_for: ClassVar[Any] = ("hour",)


def test_what_is_not_known_is_one_message_before_the_fit(tmp_path: Path) -> None:
    arms = {"x": {"policy": "tests.test_context:AsksForWhatIsNotThere"}, "y": ARMS["plain"]}
    rule = (
        "asks for 'features.tab' of each request (asks_for), which is not known here; known:"
        " reactions.comment, "
    )
    with pytest.raises(PolicyError, match=re.escape(rule)):
        simulate_scenario(tmp_path, tiny_scenario(arms))


def test_what_is_not_known_is_one_message_of_a_call() -> None:
    example = mixed()
    policy = AtThisHour().fit(example.sequences, example.catalogue, Fitting())
    calls = Calls(policy, "hour")
    with pytest.raises(CallError, match=r"'hour': asks for 'time' .* known: nothing$"):
        calls.recall(example.requests(), 3, 0)
    asked = example.requests(context=("time", "times", "watch"))
    with pytest.raises(AssertionError):  # it is told more than it asks for
        policy.recall(asked, 3, 0)
    assert calls.recall(asked, 3, 0).items.shape == (60, 3)


@pytest.mark.parametrize(
    "asks_for",
    ["time", ["time"], ("hour",), ("reactions",), ("reactions.",), ("features.a b",), (3,)],
)
def test_what_is_asked_for_is_of_one_form(asks_for: Any) -> None:
    assert wrong_context(asks_for) is not None
    assert wrong_context((*EVERYTHING, "features.tab")) is None


def test_a_wrong_form_is_one_message() -> None:
    rule = "asks_for must be a tuple out of 'time', .* got 'hour'"
    with pytest.raises(PolicyError, match=rule):
        make("tests.test_context:AsksWrongly")


def test_parts_ask_too() -> None:
    inner = make("explore", {"policy": "tests.test_context:AtThisHour"})
    assert inner.asked_context() == ("time",)
    assert make("popularity").asked_context() == ()
    example = mixed()
    inner.fit(example.sequences, example.catalogue, Fitting())
    slates = Calls(inner, "explore").recall(example.requests(context=("time",)), 4, 1)
    assert (slates.items > 0).all()


def test_arrays_and_back() -> None:
    example = mixed().with_context((*EVERYTHING, "features.tab"))
    asked = example.requests(context=(*EVERYTHING, "features.tab"))
    assert set(asked.context()) == {*EVERYTHING, "features.tab"}
    again = Histories.of(asked.arrays())
    for path, values in asked.arrays().items():
        np.testing.assert_array_equal(values, again.arrays()[path])
    some = asked.rows(np.array([3, 1]))
    assert some.time is not None
    assert some.reactions is not None
    assert asked.time is not None
    assert asked.reactions is not None
    assert some.time.tolist() == asked.time[[3, 1]].tolist()
    assert some.reactions["like"].tolist() == asked.reactions["like"][[3, 1]].tolist()


def test_last_clicks_tell_the_time_of_the_click() -> None:
    log = mixed().sequences
    held_out = LastClicks(log, 10**6, 0)
    asked = held_out.requests(slice(0, 9), 5, EVERYTHING[:3])
    for row in range(len(asked)):
        own = slice(log.offsets[asked.user[row]], log.offsets[asked.user[row] + 1])
        last = np.flatnonzero(log.clicked[own])[-1]
        assert asked.time is not None
        assert asked.times is not None
        assert asked.watch is not None
        n = min(int(last), 5)
        assert asked.time[row] == log.t[own][last]
        assert asked.times[row, 5 - n :].tolist() == log.t[own][last - n : last].tolist()
        watch = log.columns["watch"][own][last - n : last]
        assert asked.watch[row, 5 - n :].tolist() == watch.tolist()


def test_updates_are_told_too() -> None:
    log = mixed().sequences
    seen = 0
    for histories, slates, _ in blocks(log, -(10**9), 4, 4, EVERYTHING[:2]):
        assert histories.time is not None
        assert histories.times is not None
        some = histories.items > 0
        assert (histories.times[some] < np.repeat(histories.time, some.sum(axis=1))).all()
        seen += len(slates)
    assert seen == len(log.items)


def test_a_policy_cannot_write_into_what_it_is_told() -> None:
    class Writes(AtThisHour):
        def scores(self, histories: Histories) -> np.ndarray:
            return super().scores(histories)

        def recall(self, histories: Histories, k: int, seed: int) -> Slates:
            assert histories.time is not None
            histories.time[:] = 0
            return super().recall(histories, k, seed)

    example = mixed()
    policy: Policy = Writes().fit(example.sequences, example.catalogue, Fitting())
    with pytest.raises(CallError, match="work on a copy"):
        Calls(policy, "writes").recall(example.requests(context=("time",)), 3, 0)
