"""Targets on a few rounds: how a policy is asked, drawn, cut and put together again; the policy
behind a log; the order of what was shown; what a ranking stage expects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences, Slates
from policies.streams import Purpose, uniform
from policies.time import HOUR
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.logging_policy import CELLS, Published, PublishedTargets, _completed
from simulator.offpolicy.ranked import RankedClicks
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.scores import Ordering, _counts, orderings
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.target import (
    FittedTargets,
    PolicyTargets,
    Target,
    _joined,
    alone,
    apart,
)
from simulator.offpolicy.uncertainty import Ratios, delta

ITEMS = 6


def rounds(item: Any, reward: Any = None, kind: Any = "conditional", **more: Any) -> Rounds:
    """Of users 0, 1, ... in their step 10, 11, ... with one impression of the past."""
    item = np.array(item)
    n, k = item.shape
    zero, past = np.zeros(n, dtype=np.int64), np.arange(1, n + 1)[:, None]
    user = np.arange(n)
    known = {
        "user": user, "day": zero, "t": zero, "row": 100 * user,
        "position": np.tile(np.arange(k), (n, 1)), "item": item,
        "reward": np.zeros((n, k)) if reward is None else np.array(reward, dtype=float),
        "propensity": np.full((n, k), 0.5), "kind": kind, "context": zero,
        "histories": Histories(user, user + 10, past, past > 9, 0 * past),
    } | more  # fmt: skip
    return Rounds(**known)


class Cycle(Policy):
    """Recalls item (user + seed) modulo 6 plus 1 and those that follow it; draws nothing."""

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Cycle:
        return self

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> Cycle:
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        first = histories.user[:, None] + seed + np.arange(k)
        return Slates(first % ITEMS + 1, -np.tile(np.arange(k, dtype=np.float32), (len(first), 1)))


class Drawing(Cycle):
    """As if it drew, with known chances: place j of item i has a chance of i / 100 + j / 10."""

    def slate_propensities(self, histories: Histories, items: Any, seed: int) -> Any:
        chance = items / 100 + np.arange(items.shape[1]) / 10 + seed / 1000
        return chance.astype(np.float32)

    def slate_expectations(
        self, histories: Histories, items: Any, values: Any, rows: Any, seed: int
    ) -> Any:
        return values[rows, items] + histories.user[:, None] + seed


def desk(policy: Any, recall: int = 0, seed: int = 0) -> Any:
    return alone("p", policy, ITEMS, recall, seed)


def test_what_a_policy_serves_is_its_target() -> None:
    """Blocks of two of three rounds; candidates are more than places where they are asked for."""
    asked = rounds([[1, 3], [2, 2], [3, 1]])
    for block in (1, 2, 3, 4096):
        found = PolicyTargets("p", desk(Cycle(), 3), 5, block)(asked)
        assert found.slates.tolist() == [[[1, 2]], [[2, 3]], [[3, 4]]]
        assert found.probability.tolist() == [[1, 0], [1, 0], [1, 0]]
        assert found.recalled is not None
        assert found.recalled.tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
        assert found.deterministic
        assert found.foretells
    bare = PolicyTargets.of("p", Cycle(), ITEMS)(asked)
    assert (bare.recalled, bare.slates.tolist()) == (None, [[[1, 2]], [[2, 3]], [[3, 4]]])
    plain = PolicyTargets.of("p", Cycle(), ITEMS, 4, 2, 3)  # type: ignore[arg-type]
    assert (plain.desk.recall.quota, plain.desk.seed, plain.draws) == (4, 2, 3)
    low = replace(asked, position=np.array([[0, 2]] * 3))
    third = PolicyTargets("p", desk(Cycle()))(low)
    assert third.slates.tolist() == [[[1, 3]], [[2, 4]], [[3, 5]]]
    assert (PolicyTargets("p", desk(Cycle())).draws, PolicyTargets("p", desk(Cycle())).block) == (
        1, 4096,
    )  # fmt: skip


def test_a_policy_that_draws_gives_chances_and_expectations() -> None:
    asked = rounds([[1, 3], [2, 2], [3, 1]])
    values, rows = np.random.default_rng(1).random((2, 7)), np.array([[0, 1], [1, 1], [0, 0]])
    for block in (2, 4096):
        found = PolicyTargets("p", desk(Drawing(), seed=5), 2, block)(asked)
        chance = asked.item / 100 + [0, 0.1] + 0.005
        np.testing.assert_allclose(found.probability, chance, rtol=1e-6)
        first = np.arange(3)[:, None, None] + 5 + np.array([[0], [1]]) + np.arange(2)
        assert found.slates.tolist() == (first % 6 + 1).tolist()
        assert not found.deterministic
        want = values[rows, asked.item] + np.arange(3)[:, None] + 5
        np.testing.assert_allclose(found.expects(values, rows), want)
    marginal = PolicyTargets("p", desk(Drawing()), 3)(replace(asked, kind="".join("marginal")))
    # Three draws of each round, each one item further: one of them may be the logged one.
    assert marginal.probability.tolist() == [[1 / 3, 1 / 3], [1 / 3, 0], [1 / 3, 0]]
    assert marginal.above is None
    single = rounds([[1], [2]], kind="".join("marginal"))
    one = PolicyTargets("p", desk(Drawing()), 3)(single)
    np.testing.assert_allclose(one.probability, [[0.01], [0.02]], rtol=1e-6)


def test_each_round_is_asked_of_its_own_fit_and_put_back() -> None:
    asked = rounds([[1, 2]] * 4, fit=np.array([1, 0, 1, 0]))
    fits = tuple(PolicyTargets("p", desk(Drawing(), 3, seed), 2) for seed in (0, 3))
    found = FittedTargets("p", fits)(asked)
    values, rows = np.random.default_rng(1).random((2, 7)), np.array([[0, 1]] * 4)
    whole = [one(asked) for one in fits]
    for r, fit in enumerate((1, 0, 1, 0)):
        for name in ("probability", "slates", "recalled"):
            mine, theirs = getattr(found, name)[r], getattr(whole[fit], name)[r]
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(
            found.expects(values, rows)[r], whole[fit].expects(values, rows)[r]
        )
    only = replace(asked, fit=np.array([1, 1, 1, 1]))
    np.testing.assert_array_equal(FittedTargets("p", fits)(only).slates, whole[1].slates)
    assert [fit for fit, _ in only.of_fits(2)] == [1]
    assert [fit for fit, _ in only.of_fits(1)] == [0]
    ((_, every),) = replace(asked, fit=None).of_fits(3)
    assert every.tolist() == [0, 1, 2, 3]


def test_parts_are_joined_and_put_back_as_they_are() -> None:
    sure = [
        Target(np.full((n, 1), 1.0 * n), np.full((n, 1, 1), n), deterministic=True) for n in (1, 2)
    ]
    both = _joined(sure)
    assert both.probability.tolist() == [[1.0], [2.0], [2.0]]
    assert (both.deterministic, both.above, both.recalled) == (True, None, None)
    back = both.put_back(np.array([2, 0, 1]))
    assert back.probability.tolist() == [[2.0], [2.0], [1.0]]
    assert (back.deterministic, back.above, back.recalled) == (True, None, None)
    assert not Target(np.ones((1, 1)), np.ones((1, 1, 1), int)).foretells
    assert Target(np.ones((1, 1)), np.ones((1, 1, 1), int), given=np.ones((1, 1, 2))).foretells


def test_what_is_expected_of_a_slate_is_the_value_of_its_items() -> None:
    values, rows = np.array([[9.0, 1, 2], [9, 3, 4]]), np.array([[0, 1], [1, 0]])
    one = Target(np.ones((2, 2)), np.array([[[1, 2]], [[2, 0]]]), deterministic=True)
    assert one.expects(values, rows).tolist() == [[1.0, 4.0], [4.0, 0.0]]
    law = np.array([[[0, 0.5, 0.5], [0, 1, 0]], [[0, 0, 1], [0, 0.25, 0.75]]])
    given = replace(one, given=law)
    assert given.expects(values, rows).tolist() == [[1.5, 3.0], [4.0, 1.75]]


def test_a_target_has_random_numbers_of_its_own() -> None:
    assert apart(0) == 0x9E3779B9
    assert apart(5) - apart(4) == 1


# The policy behind a log.


def sequences(t: Any, item: Any, propensity: Any, position: Any = None) -> Sequences:
    t, item = np.array(t), np.array(item)
    columns = {
        "propensity": np.array(propensity, dtype=np.float32),
        "position": np.zeros(len(t), np.int8) if position is None else np.array(position, np.int8),
    }
    return Sequences(np.array([0]), np.array([0, len(t)]), item, item > 0, t, columns)


def published(every: int = 1) -> Published:
    """Two places over three stretches from the fifth on."""
    log = sequences(
        [5 * HOUR, 5 * HOUR, 5 * HOUR, 6 * HOUR, 8 * HOUR - 1, 8 * HOUR - 1],
        [1, 2, 3, 1, 2, 2], [0.5, 0.25, 0.25, 0.9, 0.6, 0.4], [0, 0, 1, 0, 0, 0],
    )  # fmt: skip
    return Published(every).fit(log, Catalogue(1, 3), Fitting())


def test_a_law_is_the_mean_of_its_propensities_by_stretch_and_place() -> None:
    policy = published()
    assert (policy.first_, policy.law_.shape) == (5, (3, 2, 4))
    # The first place: 1/2, 1/4, and the rest to item 3; then 9/10 to item 1 and the rest as before.
    want = [
        [0, 0.5, 0.25, 0.25],
        [0, 0.9, 0.05, 0.05],
        [0, 0.9 / 0.95 * 0.5, 0.5, 0.05 / 0.95 * 0.5],
    ]
    np.testing.assert_allclose(policy.law_[:, 0], want, atol=1e-6)
    np.testing.assert_allclose(policy.law_[:, 1], [[0, 0.375, 0.375, 0.25]] * 3, atol=1e-6)
    long = published(2)
    assert (long.first_, long.law_.shape) == (2, (2, 2, 4))
    # Beyond both ends the nearest stretch counts, below the last place the last one.
    t, place = np.array([0, 7 * HOUR, 99 * HOUR]), np.array([[0], [0], [5]])
    got = policy.at(t, place)[:, 0]
    np.testing.assert_array_equal(got, [policy.law_[0, 0], policy.law_[2, 0], policy.law_[2, 1]])
    again = Published().restore(policy.state())
    np.testing.assert_array_equal(again.law_, policy.law_)
    assert again.first_ == 5
    first = policy.score(rounds([[1]]).histories, np.array([[3, 1]]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(first, policy.law_[-1, 0][[[3, 1]]].astype(np.float32))


def test_what_a_law_cannot_be_read_from_is_refused() -> None:
    with pytest.raises(ValueError, match="'every' must be at least 1 hour"):
        Published(0)
    log = sequences([0, 1], [1, 2], [0.5, math.nan])
    with pytest.raises(ValueError, match="missing here: propensity of some rows"):
        Published().fit(log, Catalogue(1, 3), Fitting())
    with pytest.raises(ValueError, match=r"missing here: \['propensity', 'position'\]"):
        Published().fit(replace(log, columns={}), Catalogue(1, 3), Fitting())
    assert CELLS == 50_000_000
    # 5 x 1 x 10,000,000 figures are one place too many.
    wide = sequences([0, 4 * HOUR], [1, 2], [0.5, 0.5])
    with pytest.raises(ReplayError) as error:
        Published().fit(wide, Catalogue(1, 10_000_000), Fitting())
    assert str(error.value) == (
        "the law behind the log has 5 stretches of time, 1 places and 10,000,001 items, together"
        " more than 50,000,000 figures; is a time or an item of the log a stray one?"
    )


def test_what_is_left_of_a_law_is_shared_by_what_was_known_before() -> None:
    nan = math.nan
    # Known are 1/2 and 1/2; 1/2 alone; more than 1 of two; nothing; 1 of one. Four items.
    mean = np.array([
        [nan, 0.5, 0.5, nan, nan],
        [nan, nan, 0.5, nan, nan],
        [nan, 0.75, 0.75, nan, nan],
        [nan, nan, nan, nan, nan],
        [nan, nan, nan, 1.0, nan],
    ])  # fmt: skip
    law = _completed(mean[:, None])[:, 0]
    # Item 3's first propensity is 1: so much it has before it is seen, and gives the rest its part.
    np.testing.assert_allclose(law[0], [0, 0.5, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(law[1], [0, 0.5, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(law[2], [0, 0.5, 0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(law[3], law[2], atol=1e-12)
    np.testing.assert_allclose(law[4], [0, 0, 0, 1, 0], atol=1e-12)
    fresh = _completed(np.array([[[nan, 0.4, nan, nan]], [[nan, nan, 0.3, nan]]]))[:, 0]
    # Item 2 had .3 when it was first shown, and item 3 never was: it has nothing but by need.
    np.testing.assert_allclose(fresh[0], [0, 0.4, 0.6, 0], atol=1e-12)
    np.testing.assert_allclose(fresh[1], [0, 0.7, 0.3, 0], atol=1e-12)
    none = _completed(np.array([[[nan, 0.4, nan, nan]]]))[0, 0]
    np.testing.assert_allclose(none, [0, 0.4, 0.3, 0.3], atol=1e-12)


def test_a_published_policy_draws_by_the_race_of_exponential_times() -> None:
    policy = published()
    histories = replace(
        rounds([[1]] * 3).histories,
        seen=np.array([[0], [1], [9]]),  # type: ignore[type-var]
    )
    got = policy.recall(histories, 5, 7)  # type: ignore[arg-type]
    user, step = np.arange(3)[:, None], np.arange(10, 13)[:, None]
    noise = uniform(7, Purpose.RECALL, user, step, np.arange(4))
    for r in range(3):
        left = {1, 2, 3} - {int(min(histories.seen[r, 0], 3))}  # type: ignore[union-attr]
        want = []
        for place in range(3):
            law = policy.law_[-1, min(place, 1)]
            if left:
                race = {i: -np.log1p(-noise[r, i]) / law[i] for i in left}
                want.append(min(race, key=race.__getitem__))
                left -= set(want)
            else:
                want.append(0)
        assert got.items[r].tolist() == [*want, 0, 0]
        shown = int(np.count_nonzero(want))
        assert got.scores[r].tolist() == [-float(i) for i in range(shown)] + [-math.inf] * (
            5 - shown
        )


def test_a_published_target_knows_its_whole_law() -> None:
    policy = published()
    asked = rounds([[1], [3]], kind="marginal", t=np.array([5, 7]) * HOUR,
                   row=np.array([3, 2**32 + 3]))  # fmt: skip
    found = PublishedTargets("q", policy, 11)(asked)
    law = policy.law_[[0, 2], 0]
    np.testing.assert_allclose(found.probability[:, 0], law[[0, 1], [1, 3]])
    np.testing.assert_array_equal(found.given[:, 0], law)  # type: ignore[index]
    noise = uniform(11, Purpose.RECALL, np.array([3, 3]), 0, 0)
    want = [int(np.searchsorted(one.cumsum(), u)) for one, u in zip(law, noise, strict=True)]
    assert found.slates[:, 0, 0].tolist() == want
    assert PublishedTargets("q", policy).seed == 0


# The order of what was shown.


class ByItem(Cycle):
    """Scores an item by its number, the last two alike; or less by what it was asked to exclude."""

    def score(self, histories: Histories, items: Any) -> Any:
        assert not histories.seen.any()
        return np.minimum(items, 5).astype(np.float32)


def test_clicks_are_ordered_above_unclicks_by_pairs_and_by_places() -> None:
    scores = np.array([[3.0, 1, 2, 2], [1, 1, 0, 5]])
    clicked = np.array([[True, False, True, False], [False, True, False, False]])
    item = np.array([[1, 2, 3, 4], [1, 2, 3, 4]])
    got = _counts(scores, clicked, item)
    # (3 against 1, 2), (2 against 1, 2): a tie is half; then 1 against 1, 0, 5.
    assert got["right"].tolist() == [3.5, 1.5]
    assert got["pairs"].tolist() == [4.0, 3.0]
    assert got["sessions"].tolist() == [1.0, 1.0]
    assert got["impressions"].tolist() == [4.0, 4.0]
    tie = uniform(0, Purpose.TIES, item, 0, 0)
    second = 2 if tie[0, 2] < tie[0, 3] else 3
    gained = 1 + 1 / np.log2(second + 1)
    place = 2 if tie[1, 1] < tie[1, 0] else 3
    want = [gained / (1 + 1 / np.log2(3)), 1 / np.log2(place + 1)]
    np.testing.assert_allclose(got["ndcg"], want)


def test_orders_are_of_sessions_with_both_answers() -> None:
    """Users 0 and 1 have two sessions and one; the others say nothing."""
    nan = math.nan
    asked = rounds(
        [[1, 2], [3, 1], [2, 4], [5, 6], [1, 2], [1, 2]],
        [[0, 1], [0, 1], [1, 0], [1, 0], [1, 1], [nan, 0]],
    )
    user = np.array([0, 0, 1, 1, 2, 2])
    asked = replace(asked, user=user)
    found, other = orderings([asked], [("p", [ByItem()]), ("q", [Cycle()])], 3)  # type: ignore[list-item]
    right, pairs, weight = np.array([1.0, 0.5]), np.array([2.0, 2.0]), np.array([4.0, 4.0])
    assert found.sessions == 4
    for figure, above, below in (
        (found.auc, right, pairs),
        (found.gauc, weight * right / pairs, weight),
    ):
        assert figure is not None
        ratio = Ratios(above[:, None], below[:, None])
        assert figure == (ratio.value, delta(ratio))
    assert found.auc is not None
    assert found.auc[0] == 1.5 / 4
    assert other == Ordering("q", refused="the policy cannot score given items")
    (empty,) = orderings([asked.rows([4, 5])], [("p", [ByItem()])], 3)  # type: ignore[list-item]
    assert empty == Ordering("p", refused="no session has both a click and an unclick")
    assert list(found.figures) == ["auc", "gauc", "ndcg"]
    twice = rounds([[1, 2]] * 1500, [[0, 1]] * 1500)
    (many,) = orderings([replace(twice, user=twice.user % 3)], [("p", [ByItem()])], 3)  # type: ignore[list-item]
    assert many.sessions == 1500
    assert many.auc is not None
    assert many.auc[0] == 1.0


# What a ranking stage expects.


def test_a_ranking_stage_expects_its_own_click_probabilities() -> None:
    ranker: Any = SimpleNamespace(score=lambda histories, items: np.log(items / 10))
    asked = rounds([[1, 2], [2, 1]])
    slates = np.array([[[1, 2], [3, 4]], [[5, 6], [1, 1]]])
    target = Target(np.ones((2, 2)), slates, np.array([[0.5, 0.5], [0.25, 0.75]]))
    ranked = RankedClicks(ranker)
    ((total, below),) = ranked.ratios(Evidence(asked, target))
    np.testing.assert_allclose(total, [0.5 * 0.3 + 0.5 * 0.7, 0.25 * 1.1 + 0.75 * 0.2])
    assert below is None
    assert ranked.refuses(ReplayFacts("unknown", 2)) is None
    assert ranked.control_variate(Evidence(asked, target)) is None
    assert (ranked.name, ranked.label) == ("ranked", "ranked")
