"""Estimators for logs without exploration, in a world of places and appeals whose truth is known;
and the past of an arm, which begins before it.
"""

from __future__ import annotations

import numpy as np
import pytest

from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.replay import Evaluation, ReplaySettings, evaluate
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.target import Target

ITEMS, LENGTH, USERS = 8, 4, 500
ATTENTION = np.array([1.0, 0.8, 0.5, 0.3])
APPEAL = np.array([0.0, 0.9, 0.2, 0.6, 0.4, 0.75, 0.3, 0.5, 0.1])


def greedy_log(seed: int = 0, each: int = 12) -> Rounds:
    """A log that draws nothing: the slate follows from the user alone; rewards are clicks."""
    user = np.repeat(np.arange(USERS), each)
    item = (user[:, None] * 3 + np.arange(LENGTH) * (1 + user[:, None] % 2 * 2)) % ITEMS + 1
    random = np.random.Generator(np.random.Philox(key=[21, seed]))
    click = (random.uniform(size=item.shape) < ATTENTION * APPEAL[item]).astype(float)
    zero, row = np.zeros(len(user), dtype=np.int64), np.arange(len(user))
    place = np.tile(np.arange(LENGTH), (len(user), 1))
    return Rounds(
        user, zero, zero, row, place, item, click, np.full(item.shape, np.nan), "unknown", zero
    )


class Turned:
    """The logged slates, turned by some places, with the last `fresh` items exchanged for others of
    the catalogue.
    """

    def __init__(self, by: int, fresh: int = 0) -> None:
        self.name, self.by, self.fresh = f"turned by {by}, {fresh} fresh", by, fresh

    def __call__(self, rounds: Rounds) -> Target:
        slate = np.roll(rounds.item, self.by, axis=1)
        if self.fresh:
            slate[:, -self.fresh :] = (slate[:, -self.fresh :] + 3) % ITEMS + 1
        agree = (slate == rounds.item).astype(float)
        return Target(agree, slate[:, None, :], deterministic=True)

    def value(self, rounds: Rounds) -> float:
        slates = self(rounds).slates[:, 0]
        return float((ATTENTION * APPEAL[slates]).sum(axis=1).mean())


def found_of(target: Turned, seed: int = 0) -> Evaluation:
    settings = ReplaySettings(("matching", "cips", "cdr", "ips"), resamples=100)
    (found,) = evaluate([greedy_log(seed)], [target], USERS, ITEMS, settings)
    return found


def test_the_attention_of_places_is_told_from_the_appeal_of_items() -> None:
    log = greedy_log(each=60)
    model = RewardTable(ITEMS)
    model.add(log)
    model.settle()
    assert model.attention == pytest.approx(ATTENTION, abs=0.03)


def test_an_order_that_was_not_shown_is_estimated_by_clicks() -> None:
    target = Turned(1)
    found, truth = found_of(target), target.value(greedy_log())
    for name in ("cips", "cdr"):
        assert abs(found[name].value - truth) < 4 * found[name].error, name
        assert found[name].word == "weak"
    assert found["matching"].word == "unusable"  # nothing stands at its place
    assert found.headline.estimator == "cdr"
    assert "known" not in str(found["cips"].refused)


def test_intervals_cover_a_new_order() -> None:
    target = Turned(1)
    truth = target.value(greedy_log())
    held = {"cips": 0, "cdr": 0}
    for seed in range(60):
        found = found_of(target, seed)
        for name in held:
            held[name] += found[name].interval().covers(truth)
    assert min(held.values()) >= 60 * (0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)), held


def test_its_own_policy_is_the_mean_of_the_log() -> None:
    found = found_of(Turned(0))
    for name in ("cips", "cdr"):
        assert found[name].value == pytest.approx(found.logged.value)


def test_what_was_not_shown_in_the_request_is_lost_to_cips_and_modelled_by_cdr() -> None:
    target = Turned(1, fresh=1)
    found, truth = found_of(target), target.value(greedy_log())
    assert found["cips"].value < truth
    assert abs(found["cdr"].value - truth) < 4 * found["cdr"].error
    assert found["cdr"].word == "weak"
    assert any("stands in for" in reason for reason in found["cdr"].reasons)


def test_too_little_overlap_is_refused() -> None:
    found = found_of(Turned(1, fresh=3))
    assert found["cdr"].word == found["cips"].word == "unusable"
    assert any("the model stands in for most of it" in reason for reason in found["cdr"].reasons)
    assert any("counts as nothing: a lower bound" in reason for reason in found["cips"].reasons)
    assert found.headline.estimator == "matching"


def test_a_log_with_propensities_needs_none_of_it() -> None:
    log = greedy_log()
    known = Rounds(
        *(getattr(log, name) for name in ("user", "day", "t", "row", "position", "item", "reward")),
        propensity=np.full(log.item.shape, 0.25),
        kind="conditional",
        context=log.context,
    )
    (found,) = evaluate([known], [Turned(1)], USERS, ITEMS, ReplaySettings(("cips",), resamples=10))
    assert found["cips"].refused == "the log has propensities, by which less is assumed"


def two_arms() -> EventLog:
    """User 0: a history of two requests, then one of arm a; user 1: arm a only."""
    rows = [
        # arm user session request position t item click
        (0, 0, 0, 0, 0, -9, 1, 1),
        (0, 0, 0, 0, 1, -9, 2, 0),
        (0, 0, 0, 1, 0, -8, 3, 1),
        (1, 0, 0, 0, 0, 5, 4, 0),
        (1, 0, 0, 1, 0, 6, 5, 1),
        (1, 0, 0, 1, 1, 6, 1, 0),
        (1, 1, 0, 0, 0, 7, 2, 1),
    ]
    names = ("arm", "user", "session", "request", "position", "t", "item", "click")
    columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    columns["click"] = columns["click"].astype(np.int8)
    return EventLog.from_columns(columns, Metadata(("history", "a"), 2, 8))


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_the_past_of_an_arm_begins_in_the_history(chunk: int) -> None:
    stream = Stream(two_arms(), arm="a", history=3, seen=5, chunk=chunk)
    by_row = {}
    for rounds in stream:
        past = rounds.histories
        assert past is not None
        assert past.items.shape[1] == 3
        for i, row in enumerate(rounds.row):
            seen = past.seen[i].tolist()
            by_row[int(row)] = (
                past.items[i].tolist(),
                past.clicked[i].tolist(),
                seen,
                past.step[i],
            )
    assert by_row[3] == ([1, 2, 3], [True, False, True], [0, 0, 1, 2, 3], 2)
    assert by_row[4] == ([2, 3, 4], [False, True, False], [0, 1, 2, 3, 4], 3)
    assert by_row[6] == ([0, 0, 0], [False] * 3, [0] * 5, 0)
