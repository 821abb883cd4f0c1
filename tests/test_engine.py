"""The engine on worlds solved by hand: who is served when, what is remembered, what is logged."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pytest
import torch

from policies.base import Catalogue, Fitting, Histories, IntArray, Policy, Sequences, Slates
from policies.time import DAY
from simulator.engine import tape
from simulator.engine.lives import Engine, EngineError, ShardLives, Span
from simulator.engine.tape import Tape
from simulator.serving.desk import Channel, Desk, ServingError, cut
from simulator.users.base import NEVER, Feedback

HOUR = 3_600_000
N_ITEMS = 9


@dataclass
class Ascending(Policy):
    """The lowest ids that were not seen; written to be solved by hand."""

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        items = np.zeros((len(histories), k), dtype=np.int64)
        for b in range(len(histories)):
            free = [i for i in range(1, N_ITEMS + 1) if i not in histories.seen[b]][:k]
            items[b, : len(free)] = free
        return Slates(items, np.where(items > 0, -np.arange(k), -np.inf).astype(np.float32))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> Self:
        return self


@dataclass
class Metronomes:
    """User u asks first at u hours, then every `beat` hours; a session ends with every third
    request; only odd items are clicked.
    """

    n_users: int = 3
    n_items: int = N_ITEMS
    beat: int = 6
    shows: int = 2
    kinds: tuple[str, ...] = ("like",)
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def first(self, user: IntArray) -> IntArray:
        return user * HOUR

    def slate_size(self, user: IntArray, step: IntArray) -> IntArray | None:
        return None

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        self.asked += zip(user.tolist(), step.tolist(), t.tolist(), strict=True)
        click = (slates.items % 2).astype(np.int8)
        return Feedback(
            click,
            slates.items.astype(np.float32),
            np.full(len(user), self.shows),
            t + self.beat * HOUR,
            step % 3 == 2,
            {"like": np.where(slates.items % 3 == 0, 1, -1).astype(np.int8)},
        )

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        return None


def desk(policy: Policy | None = None, quota: int = 3, **changes: Any) -> Desk:
    return Desk(
        "a", Channel("ascending", policy or Ascending(), quota), (), None, N_ITEMS, 1, **changes
    )


def engine(
    users: Metronomes,
    *,
    tick: int = HOUR,
    block: int = 2,
    end: int = DAY,
    memory: int = 4,
    slate: int = 3,
) -> Engine:
    user = np.arange(users.n_users)
    lives = ShardLives.born(user, users.first(user), memory)
    return Engine(
        lives, users, desk(), Tape(users.kinds), Span(0, end, tick, block, slate, memory, memory)
    )


def table(made: Engine) -> dict[str, list[Any]]:
    rows = tape.rows([made.tape.columns()], 1, np.arange(N_ITEMS + 1), made.users.kinds)
    return rows.to_pydict()


@pytest.mark.parametrize("tick", [1, 60_000, HOUR, 7 * HOUR, DAY, 9 * DAY])
@pytest.mark.parametrize("block", [1, 2, 5])
def test_a_day_of_three_metronomes(tick, block):
    """Users 0, 1, 2 ask at u, u+6, u+12, u+18 hours: sessions of three requests, so the fourth
    opens session 1.

    Two of three positions are shown, memory holds four impressions, and the lowest unseen items are
    served: items 1 2, then 3 4, then (memory full with 1 2 3 4) 5 6, then (3 4 5 6 remembered) 1 2
    again.
    """
    users = Metronomes()
    made = engine(users, tick=tick, block=block)
    made.run()
    rows = table(made)
    assert rows["user"] == [u for u in range(3) for _ in range(8)]
    assert rows["item"] == [1, 2, 3, 4, 5, 6, 1, 2] * 3
    assert rows["session"] == [0, 0, 0, 0, 0, 0, 1, 1] * 3
    assert rows["request"] == [0, 0, 1, 1, 2, 2, 0, 0] * 3
    assert rows["position"] == [0, 1] * 12
    assert rows["t"] == [(u + 6 * r) * HOUR for u in range(3) for r in range(4) for _ in range(2)]
    assert rows["click"] == [True, False] * 12
    assert rows["like"] == [None, None, True, None, None, True, None, None] * 3
    assert rows["watch"] == rows["duration"] == [float(i) for i in rows["item"]]
    assert rows["arm"] == [1] * 24
    assert rows["propensity"] == [None] * 24
    assert made.lives.next.tolist() == [24 * HOUR, 25 * HOUR, 26 * HOUR]
    assert made.lives.step.tolist() == [4, 4, 4]


def test_each_user_is_asked_in_the_order_of_time():
    users = Metronomes(beat=1)
    engine(users, tick=DAY, block=2).run()
    for u in range(3):
        steps = [(step, t) for user, step, t in users.asked if user == u]
        assert steps == [(i, (u + i) * HOUR) for i in range(24 - u)]


def test_days_end_after_all_their_requests_and_before_the_next():
    users = Metronomes(beat=5)
    made = engine(users, tick=7 * HOUR, end=3 * DAY)
    barriers: list[tuple[int, int]] = []
    made.run(lambda t: barriers.append((t, max(asked for _, _, asked in users.asked))))
    assert [t for t, _ in barriers] == [DAY, 2 * DAY, 3 * DAY]
    for t, latest in barriers:
        assert latest < t
        assert latest >= t - 5 * HOUR
    assert len(users.asked) == sum(len(range(u, 72, 5)) for u in range(3))


def test_nobody_who_never_comes_is_served():
    users = Metronomes()
    made = engine(users)
    made.lives.next[:] = NEVER
    days: list[int] = []
    made.run(days.append)
    assert made.tape.n_rows == 0
    assert days == [DAY]


def test_a_snapshot_continues_as_if_nothing_had_happened():
    whole = engine(Metronomes(), end=2 * DAY)
    whole.run()
    first = engine(Metronomes(), end=DAY)
    first.run()
    lives = ShardLives.restore(
        {name: column.copy() for name, column in first.lives.state().items()}
    )
    second = Engine(
        lives, Metronomes(), desk(), Tape(("like",)), Span(DAY, 2 * DAY, HOUR, 2, 3, 4, 4)
    )
    second.run()
    joined = tape.rows(
        [first.tape.columns(), second.tape.columns()], 1, np.arange(N_ITEMS + 1), ("like",)
    )
    assert joined.to_pydict() == table(whole)


def test_requests_of_different_sizes():
    class Sizes(Metronomes):
        def slate_size(self, user: IntArray, step: IntArray) -> IntArray | None:
            return user + 1

        def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
            self.shows = slates.items.shape[1]
            return super().respond(user, step, t, slates)

    made = engine(Sizes(beat=24), block=3, tick=DAY)
    made.run()
    rows = table(made)
    assert list(zip(rows["user"], rows["item"], strict=True)) == [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
        (2, 3),
    ]


def test_the_past_of_a_log_is_remembered():
    clicked = np.array([1, 0, 1, 0, 1, 0], bool)
    history = Sequences(
        np.arange(3), np.array([0, 1, 1, 6]), np.array([4, 1, 2, 3, 4, 5]), clicked, np.arange(6)
    )
    lives = ShardLives.born(np.arange(3), np.zeros(3), 3).with_past(history)
    assert lives.items.tolist() == [[0, 0, 4], [0, 0, 0], [3, 4, 5]]
    assert lives.clicked.tolist() == [[False, False, True], [False] * 3, [False, True, False]]
    asked = lives.histories(np.array([2]), 2, 3)
    assert asked.items.tolist() == [[4, 5]]
    assert asked.seen.tolist() == [[3, 4, 5]]
    assert asked.user.tolist() == [2]


def test_users_whose_time_goes_back_are_named():
    users = Metronomes(beat=-1)
    with pytest.raises(EngineError, match="user 0 asked at 0 ms"):
        engine(users).run()


def test_lives_go_with_the_engine_that_ran_them() -> None:
    """No cycle holds them until Python looks for cycles: the next shard needs their memory."""
    gc.disable()
    try:
        made = engine(Metronomes())
        made.run()
        lives = weakref.ref(made.lives)
        del made
        assert lives() is None
    finally:
        gc.enable()


def requests(seen: list[list[int]]) -> Histories:
    n = len(seen)
    return Histories(
        np.arange(n) + 10,
        np.arange(n),
        np.array(seen),
        np.zeros((n, len(seen[0])), bool),
        np.array(seen),
    )


class Says(Ascending):
    """Returns what it is told."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def recall(self, histories: Histories, k: int, seed: int) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def slates(
    *items: list[int], scores: list[list[float]] | None = None, propensities: Any = None
) -> Slates:
    array = np.array(items)
    default = np.tile(-np.arange(array.shape[1]), (len(array), 1))
    return Slates(
        array, np.array(default if scores is None else scores, dtype=np.float32), propensities
    )


GOOD = [5, 6, 7]
FAULTS: list[tuple[Any, str]] = [
    (slates(GOOD, [5, 99, 7]), "user 11 at step 1.*items must be 0 or of 1..9; got 99 at place 1"),
    (slates(GOOD, [5, -1, 7]), "got -1 at place 1"),
    (slates(GOOD, [5, 2, 7]), "item 2 at place 1 is in histories.seen"),
    (slates(GOOD, [5, 6, 5]), "item 5 at place 2 stands in the row twice"),
    (slates(GOOD, [5, 0, 6]), "0 may only stand at the end"),
    (slates(GOOD, GOOD, scores=[[0, -1, -2], [0, np.nan, -2]]), "user 11.*NaN"),
    (slates(GOOD, GOOD, scores=[[0, -1, -2], [0, 1, -2]]), "must not increase"),
    (
        slates([5, 6], [5, 6]),
        r"items must be a numpy array of int64 and shape \(2, 3\); got int64 \(2, 2\)",
    ),
    (
        Slates(np.array([GOOD, GOOD]), np.zeros((2, 2), np.float32)),
        r"scores must be a numpy array of float32 and shape \(2, 3\); got float32 \(2, 2\)",
    ),
    (
        Slates(np.array([GOOD, GOOD], float), np.zeros((2, 3), np.float32)),
        "items must be a numpy array of int64.*got float64",
    ),
    (
        Slates(np.array([GOOD, GOOD], np.int32), np.zeros((2, 3), np.float32)),
        "items must be a numpy array of int64.*got int32",
    ),
    (Slates(np.array([GOOD, GOOD], object), np.zeros((2, 3), np.float32)), "got object"),
    (
        Slates(np.ma.masked_array([GOOD, GOOD]), np.zeros((2, 3), np.float32)),
        "got MaskedArray of int64",
    ),
    (Slates([GOOD, GOOD], np.zeros((2, 3), np.float32)), "items must be a numpy array .*got list"),  # type: ignore[arg-type]
    (
        Slates(np.array([GOOD, GOOD]), np.zeros((2, 3))),
        "scores must be a numpy array of float32.*got float64",
    ),
    (Slates(np.array([GOOD, GOOD]), torch.zeros(2, 3)), "scores must be .*got torch.Tensor"),  # type: ignore[arg-type]
    (
        Slates(np.array([GOOD, GOOD]), np.zeros((2, 3), np.float32), interest=np.zeros((2, 3))),
        "interest must be .*got float64",
    ),
    (
        slates(GOOD, GOOD, propensities=np.array([[0.5, 0.5, 1], [0.5, 0, 1]], np.float32)),
        "user 11.*propensity at place 1",
    ),
    ([[1, 2, 3]], "must return policies.base.Slates; got list"),
    (ZeroDivisionError("oops"), "raised ZeroDivisionError: oops"),
]


@pytest.mark.parametrize(("answer", "message"), FAULTS)
def test_a_broken_policy_is_named_with_the_request_that_did_it(answer, message):
    with pytest.raises(ServingError, match=message) as error:
        desk(Says(answer)).serve(requests([[1, 2], [2, 3]]), 2)
    assert "arm 'a'" in str(error.value)
    assert "abtest policies check ascending" in str(error.value)


def test_a_good_answer_passes_and_is_cut_to_the_slate():
    served = desk(Says(slates(GOOD, [9, 0, 0]))).serve(requests([[1, 2], [2, 3]]), 2)
    assert served.slates.items.tolist() == [[5, 6], [9, 0]]
    assert served.channel is None


class ByItem:
    """A ranking stage that likes high ids."""

    def score(self, histories: Histories, items: IntArray) -> Any:
        return items.astype(np.float32)


@pytest.mark.parametrize(
    ("ranker", "items", "channels"),
    [(None, [5, 6, 7, 1], [0, 0, 0, 1]), (ByItem(), [8, 7, 6, 5], [2, 0, 0, 0])],
)
def test_channels_fill_the_candidates_and_say_so(ranker, items, channels):
    own, one, two = slates(GOOD), slates([6, 1, 7]), slates([1, 8, 0])
    place = Desk(
        "a",
        Channel("own", Says(own), 3),
        (Channel("one", Says(one), 3), Channel("two", Says(two), 3)),
        ranker,
        N_ITEMS,
        1,
    )
    served = place.serve(requests([[0, 0]]), 4)
    assert served.slates.items.tolist() == [items]
    assert served.channel is not None
    assert served.channel.tolist() == [channels]


def test_without_a_candidate_slates_are_empty() -> None:
    none = Slates(np.zeros((2, 0), dtype=np.int64), np.zeros((2, 0), dtype=np.float32))
    slates, places = cut(none, 3)
    assert not slates.items.any()
    assert slates.items.shape == slates.scores.shape == places.shape == (2, 3)
    assert (places == -1).all()
