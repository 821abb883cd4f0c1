"""Yardsticks: random slates are uniform and keyed by the request, popularity counts clicks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from scipy import stats

from policies.base import Catalogue, Fitting, Histories, Sequences
from policies.popularity import Popularity, Random


def requests(n: int, seen: list[int]) -> Histories:
    none = np.zeros((n, 0), dtype=np.int64)
    return Histories(
        np.arange(n),
        np.arange(n) % 3,
        none,
        none.astype(bool),
        np.tile(np.array(seen, dtype=np.int64), (n, 1)),
    )


LOG = Sequences(
    np.arange(2),
    np.array([0, 4, 7]),
    np.array([1, 2, 2, 3, 2, 3, 4]),
    np.array([True, True, True, True, True, False, True]),
    np.array([0, 0, 0, 0, 86_400_000, 86_400_000, 86_400_000]),
)


def test_random_slates_are_all_equally_likely_and_their_propensities_say_so() -> None:
    policy = Random().fit(LOG, Catalogue(2, 5), Fitting())
    histories = requests(12_000, [2, 2, 0])
    slates = policy.recall(histories, 2, seed=7)
    pairs = list(permutations([1, 3, 4, 5], 2))
    counts = [int((slates.items == pair).all(axis=1).sum()) for pair in pairs]
    assert sum(counts) == 12_000
    assert stats.chisquare(counts).pvalue > 1e-3
    assert slates.propensities is not None
    np.testing.assert_allclose(slates.propensities[0], [1 / 4, 1 / 3])
    np.testing.assert_array_equal(
        policy.slate_propensities(histories, slates.items, 7), slates.propensities
    )
    impossible = np.tile([2, 3, 3, 0], (12_000, 1))
    np.testing.assert_allclose(
        policy.slate_propensities(histories, impossible, 7)[0], [0, 1 / 3, 0, 0]
    )


def test_random_slates_are_keyed_by_the_request() -> None:
    policy = Random().fit(LOG, Catalogue(2, 50), Fitting())
    histories = requests(200, [])
    slates = policy.recall(histories, 5, seed=1)
    part = policy.recall(histories.rows(slice(120, 123)), 5, seed=1)
    np.testing.assert_array_equal(part.items, slates.items[120:123])
    np.testing.assert_array_equal(part.scores, slates.scores[120:123])
    assert not np.array_equal(policy.recall(histories, 5, seed=2).items, slates.items)


def test_popularity_counts_clicks_and_fills_the_rest_in_the_order_of_ties() -> None:
    policy = Popularity().fit(LOG, Catalogue(2, 5), Fitting())
    slates = policy.recall(requests(3, []), 6, 0)
    assert slates.items[0, 0] == 2
    assert slates.scores[0].tolist()[:5] == [3, 1, 1, 1, 0]
    assert sorted(slates.items[0].tolist()) == [0, 1, 2, 3, 4, 5]
    assert np.isneginf(slates.scores[0, 5])
    hidden = policy.recall(requests(3, [2, 1]), 3, 0)
    assert hidden.items[0].tolist() == [item for item in slates.items[0] if item not in (1, 2)][:3]
    assert policy.score(requests(1, []), np.array([[2, 5, 1]])).tolist() == [[3, 0, 1]]


def test_popularity_forgets_by_its_half_life() -> None:
    policy = Popularity(half_life=1.0).fit(LOG, Catalogue(2, 5), Fitting())
    assert policy.counts_.tolist() == [0, 0.5, 2.0, 0.5, 1.0, 0]
    again = Popularity(half_life=1.0).restore(policy.state())
    np.testing.assert_array_equal(
        again.recall(requests(2, []), 3, 0).items, policy.recall(requests(2, []), 3, 0).items
    )
