"""Rollouts: what the model of answers learns from a log that was chosen with more than it says, and
what a policy gets on its own path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences, Slates, silent
from policies.retrieval import top_k
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.answers import AnswerModel, AnswerRows
from simulator.offpolicy.replay import ReplaySettings
from simulator.offpolicy.rollout import ROLLOUT, ROLLOUT_DR, Requests, Rollout
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.target import alone

USERS, ITEMS, SLATE, TURNS = 200, 30, 2, 10


@dataclass
class InOrder(Policy):
    """Shows the items in the order of their numbers, or backwards; never one twice."""

    backwards: bool = False

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> InOrder:
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        score = np.tile(np.arange(ITEMS + 1.0), (len(histories), 1))
        score = score if self.backwards else -score
        return Slates(*top_k(score.astype(np.float32), k, histories.seen))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> InOrder:
        return self


def rate(item: np.ndarray) -> np.ndarray:
    """Item 1 is clicked nine times of ten, the last hardly ever."""
    return 0.9 - 0.85 * (item - 1) / (ITEMS - 1)


def uniform_log(seed: int, propensity: str = "conditional") -> EventLog:
    """Uniform slates without repetition; the last three requests have t >= 0."""
    random = np.random.Generator(np.random.Philox(key=[71, seed]))
    order = random.permuted(np.tile(np.arange(1, ITEMS + 1), (USERS, 1)), axis=1)
    item = order[:, : TURNS * SLATE].reshape(USERS, TURNS, SLATE)
    user, turn, place = np.indices(item.shape)
    columns = {
        "user": user,
        "session": turn,
        "request": np.zeros_like(user),
        "position": place,
        "t": (turn - 7) * DAY // 4,
        "item": item,
        "click": (random.uniform(size=item.shape) < rate(item)).astype(np.int8),
    }
    if propensity != "unknown":
        columns["propensity"] = (1.0 / (ITEMS - turn * SLATE - place)).astype(np.float32)
    flat = {name: column.ravel() for name, column in columns.items()}
    kind: Any = propensity
    return EventLog.from_columns(flat, Metadata(("history",), USERS, ITEMS, propensity=kind))


def rollout(log: EventLog) -> Rollout:
    stream = Stream(log, "click", "history", 0, TURNS * SLATE)
    past = log.sequences(before=0)
    return Rollout.of(stream, past, Catalogue(USERS, ITEMS), 3, silent)


SETTINGS = ReplaySettings((), resamples=200)


def truth(log: EventLog, policy: InOrder) -> float:
    """Clicks per request of the policy on its own path, by the world's own rates."""
    past = log.sequences(before=0).last(TURNS * SLATE).items
    total = 0.0
    for _ in range(3):
        asked = Histories(np.arange(USERS), np.zeros(USERS, int), past, past > 0, past)
        shown = policy.recall(asked, SLATE, 0).items
        total += rate(shown).sum() / USERS
        past = np.concatenate((past, shown), axis=1)
    return total / 3


def test_a_feed_exhausts_its_own_good_items() -> None:
    """Showing the best first leaves worse ones for later: the value of the path is met, which is
    below that of the first slate; of the worst first, above it.
    """
    log = uniform_log(2)
    run = rollout(log)
    for backwards in (False, True):
        policy = InOrder(backwards)
        plain, corrected = run.estimates("p", [alone("p", policy, ITEMS)], SETTINGS)
        assert (plain.estimator, corrected.estimator) == (ROLLOUT, ROLLOUT_DR)
        value = truth(log, policy)
        assert abs(plain.value - value) < 3 * plain.error < 0.4
        first = rate(policy.recall(log.sequences(before=0).last(20), SLATE, 0).items).sum() / USERS
        assert (plain.value < first - 0.1, plain.value > first + 0.1) == (not backwards, backwards)
        assert abs(corrected.value - value) < 3 * corrected.error
        assert plain.word == "weak"
        assert corrected.word in ("trustworthy", "weak")


def test_the_course_is_that_of_the_log() -> None:
    """Requests of the replayed days as they were, in the order of user and time."""
    log = uniform_log(2)
    asked = Requests.of(Stream(log, "click", "history", 0, 1))
    assert len(asked) == 3 * USERS
    assert asked.turn.tolist() == [0, 1, 2] * USERS
    assert asked.step.tolist() == [7, 8, 9] * USERS
    assert (asked.length == SLATE).all()


def test_a_log_without_propensities_is_not_corrected() -> None:
    run = rollout(uniform_log(3, "unknown"))
    plain, corrected = run.estimates("p", [alone("p", InOrder(), ITEMS)], SETTINGS)
    assert plain.word == "unusable"
    assert "propensities are unknown" in plain.reasons[0]
    assert corrected.refused == "the log's propensities are unknown"


def test_what_the_logging_policy_knew_is_not_promised_of_others() -> None:
    """The log shows an item nine times of ten to users who like it, which nothing in the log says:
    shown items are clicked 73% of the time, any (user, item) 50%. Weighted, the model says so.
    """
    random = np.random.Generator(np.random.Philox(key=72))
    n, per = 400, 40
    user = np.repeat(np.arange(n), per)
    likes = random.uniform(size=(n, ITEMS + 1)) < 0.5
    strength = np.where(likes, 9.0, 1.0)
    strength[:, 0] = 0.0
    law = strength / strength.sum(axis=1, keepdims=True)
    item = (random.uniform(size=(n * per, 1)) > law[user].cumsum(axis=1)).sum(axis=1)
    reward = (random.uniform(size=n * per) < np.where(likes[user, item], 0.8, 0.2)) * 1.0
    step, place = np.tile(np.arange(per), n), np.zeros_like(user)
    every = np.tile(np.arange(1, ITEMS + 1), (n, 1))
    said = {}
    for weighted in (False, True):
        weight = 1 / law[user, item] if weighted else np.ones(n * per)
        rows = AnswerRows(user, step, step * DAY, item, place, reward, weight, weighted)
        model = AnswerModel(Catalogue(n, ITEMS), 4).fit(rows)
        said[weighted] = model.expect(np.arange(n), every, np.zeros(n, int)).reward.mean()
    assert reward.mean() == pytest.approx(0.74, abs=0.02)
    assert said[True] == pytest.approx(0.5, abs=0.02)
    assert said[False] > 0.6


def test_the_model_is_the_same_whatever_the_batch_and_refuses_negative_rewards() -> None:
    log = uniform_log(5)
    rows = AnswerRows.of(Stream(log, "click", "history", None, 1))
    model = AnswerModel(Catalogue(USERS, ITEMS), 1).fit(rows)
    user, items = np.arange(USERS), np.tile([1, 5, 0], (USERS, 1))
    t = user * 1000
    whole, without, _ = model.expect(user, items, t)
    assert without.shape == (model.folds, USERS, 3)
    assert (whole[:, 2] == 0).all()
    halves = [model.expect(part, items[: len(part)], t[part]).reward for part in np.split(user, 2)]
    assert np.array_equal(np.concatenate(halves), whole)
    rows.reward[0] = -1.0
    with pytest.raises(ValueError, match="rewards must be 0 or more"):
        AnswerModel(Catalogue(USERS, ITEMS), 1).fit(rows)


def test_rewards_that_are_no_clicks_keep_their_scale() -> None:
    log = uniform_log(6)
    rows = AnswerRows.of(Stream(log, "click", "history", None, 1))
    seconds = AnswerRows(
        *(rows.user, rows.step, rows.t, rows.item, rows.place), 40 * rows.reward, rows.weight, True
    )
    clicks = AnswerModel(Catalogue(USERS, ITEMS), 1).fit(rows)
    watch = AnswerModel(Catalogue(USERS, ITEMS), 1).fit(seconds)
    items = np.tile([2, 9], (USERS, 1))
    user = np.arange(USERS)
    t = np.zeros(USERS, int)
    answers = [model.expect(user, items, t).reward for model in (watch, clicks)]
    assert np.allclose(answers[0], 40 * answers[1])


def test_what_a_user_likes_at_the_time_is_what_is_expected_then() -> None:
    """Users like one of two tags, another one in each session: at the time of a session the model
    says which, and at a time that the log says nothing of it takes both for alike.
    """
    random = np.random.Generator(np.random.Philox(key=73))
    n, sessions, shown = 150, 8, 6
    shape = n, sessions, 2, shown // 2
    user, session, request, place = (index.ravel() for index in np.indices(shape))
    likes = random.integers(0, 2, (n, sessions))
    item = random.integers(1, ITEMS + 1, user.size)
    tag = np.arange(ITEMS + 1) % 2
    chance = np.where(tag[item] == likes[user, session], 0.85, 0.15)
    reward = (random.uniform(size=user.size) < chance) * 1.0
    t = session * 10 * DAY + request * 60_000
    weight = np.ones(user.size)
    rows = AnswerRows(user, 2 * session + request, t, item, place, reward, weight, True)
    model = AnswerModel(Catalogue(n, ITEMS, {"tag": tag}), 5).fit(rows)
    everybody, every = np.arange(n), np.tile(np.arange(1, ITEMS + 1), (n, 1))

    def gap(asked_at: int) -> float:
        """Expected reward of the tag that is liked in session 3 above that of the other."""
        expected = model.expect(everybody, every, np.full(n, asked_at)).reward
        liked = tag[every] == likes[:, 3, None]
        return float(expected[liked].mean() - expected[~liked].mean())

    assert gap(3 * 10 * DAY) > 0.35
    assert abs(gap(3 * 10 * DAY + 5 * DAY)) < 0.1


def test_the_error_counts_how_far_the_scores_alone_are() -> None:
    """An estimate that one step of modelling has moved by .3 a request has an error of at least
    that, as one more unit, by which policies that were moved alike are told apart as before.
    """
    log = uniform_log(2)
    run, n = rollout(log), 3 * USERS

    @dataclass(frozen=True)
    class Moved(Rollout):
        step: float = 0.0

        def run(self, desks: Any, progress: Any = silent) -> Any:
            course = super().run(desks, progress)
            return replace(course, plain=course.total.sum() + self.step * n)

    values, errors, units = [], [], []
    for step in (0.0, 0.3):
        parts = {field.name: getattr(run, field.name) for field in fields(Rollout)}
        moved = Moved(**parts, step=step)
        (estimate, _) = moved.estimates("p", [alone("p", InOrder(), ITEMS)], SETTINGS)
        values.append(estimate.value)
        errors.append(estimate.error)
        units.append(len(estimate.first_order[0].influence))
    assert errors[1] == pytest.approx(np.hypot(errors[0], 0.3), rel=0.01)
    assert values[0] == pytest.approx(values[1])
    assert units[0] == units[1]
