"""Explore: the drawn slates have the probabilities that are logged, found by enumeration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Self

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences, Slates, Stochastic
from policies.explore import Explore

SCORES = np.array([0.0, 1.2, 0.3, -0.5, 0.9, 2.0, 0.1])


@dataclass
class Fixed(Policy):
    """Items by fixed scores, for the tests."""

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        items = np.zeros((len(histories), k), dtype=np.int64)
        for b in range(len(histories)):
            free = [
                i for i in np.argsort(-SCORES[1:], kind="stable") + 1 if i not in histories.seen[b]
            ][:k]
            items[b, : len(free)] = free
        return Slates(items, np.where(items > 0, SCORES[items], -np.inf).astype(np.float32))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> Self:
        return self


def requests(n: int, seen: tuple[int, ...] = (0,)) -> Histories:
    zeros = np.zeros((n, 1), dtype=np.int64)
    return Histories(
        np.arange(n), np.arange(n) % 7, zeros, zeros.astype(bool), np.tile(np.array(seen), (n, 1))
    )


def by_hand(slate: tuple[int, ...], explore: Explore, seen: tuple[int, ...]) -> list[float]:
    """Conditional probabilities of a slate, written from the docstring in plain Python."""
    free = [i for i in range(1, len(SCORES)) if i not in seen]
    pool = sorted(free, key=lambda i: -SCORES[i])[: max(explore.pool, len(slate))]
    soft = {i: np.exp(SCORES[i] / explore.temperature) for i in pool}
    weight = {
        i: (1 - explore.epsilon) * soft.get(i, 0) / sum(soft.values()) + explore.epsilon / len(free)
        for i in free
    }
    result = []
    for place, item in enumerate(slate):
        left = sum(w for i, w in weight.items() if i not in slate[:place])
        result.append(weight[item] / left)
    return result


CASES = [
    (1.0, 0.2, 3, (0,)),
    (0.5, 0.0, 6, (0,)),
    (2.0, 1.0, 2, (5, 5, 0)),
    (0.7, 0.3, 2, (1, 3)),
    (1.0, 0.5, 1, (2,)),
]


@pytest.mark.parametrize(("temperature", "epsilon", "pool", "seen"), CASES)
def test_probabilities_are_those_of_the_docstring_and_sum_to_one(temperature, epsilon, pool, seen):
    explore = Explore(temperature=temperature, epsilon=epsilon, pool=pool).over(Fixed(), 6)
    free = [i for i in range(1, 7) if i not in seen]
    slates = list(permutations(free, 2))
    told = explore.slate_propensities(requests(len(slates), seen), np.array(slates), 3)
    np.testing.assert_allclose(told, [by_hand(s, explore, seen) for s in slates], rtol=1e-6)
    assert told.prod(axis=1).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("temperature", "epsilon", "pool", "seen"), CASES)
def test_slates_come_as_often_as_their_probability_says(temperature, epsilon, pool, seen):
    n = 60_000
    explore = Explore(temperature=temperature, epsilon=epsilon, pool=pool).over(Fixed(), 6)
    drawn = explore.recall(requests(n, seen), 2, 11)
    again = explore.slate_propensities(requests(n, seen), drawn.items, 11)
    np.testing.assert_array_equal(drawn.propensities, again)
    for slate in permutations([i for i in range(1, 7) if i not in seen], 2):
        p = float(np.prod(by_hand(slate, explore, seen)))
        share = (drawn.items == slate).all(axis=1).mean()
        assert abs(share - p) <= 5 * (p * (1 - p) / n) ** 0.5 + 1e-9, slate


def test_a_rare_outsider_is_found_by_rank_when_guessing_fails():
    """Of 5,000 items all but three are seen: 64 guesses nearly always fail, and each of the three
    must come equally often.
    """
    n = 3000
    seen = np.arange(1, 5001)[None, :].repeat(n, axis=0)
    left = (17, 2500, 4999)
    seen[:, np.array(left) - 1] = 0
    histories = Histories(
        np.arange(n), np.zeros(n, dtype=np.int64), seen[:, :1], seen[:, :1] > 0, seen
    )

    class Nothing(Fixed):
        def recall(self, histories, k, seed):
            return Slates(
                np.zeros((len(histories), k), dtype=np.int64),
                np.full((len(histories), k), -np.inf, dtype=np.float32),
            )

    drawn = Explore(epsilon=0.5).over(Nothing(), 5000).recall(histories, 4, 1)
    assert set(drawn.items[:, :3].ravel()) == set(left)
    assert (drawn.items[:, 3] == 0).all()
    np.testing.assert_allclose(
        drawn.propensities[:, :3], np.tile([1 / 3, 1 / 2, 1], (n, 1)), rtol=1e-6
    )
    for item in left:
        assert abs((drawn.items[:, 0] == item).mean() - 1 / 3) < 5 * (2 / 9 / n) ** 0.5


def test_draws_do_not_depend_on_the_batch():
    explore = Explore(epsilon=0.4, pool=3).over(Fixed(), 6)
    whole = explore.recall(requests(500), 3, 5)
    parts = [explore.recall(requests(500).rows(slice(i, i + 7)), 3, 5) for i in range(0, 500, 7)]
    np.testing.assert_array_equal(whole.items, np.concatenate([p.items for p in parts]))
    np.testing.assert_array_equal(
        whole.propensities, np.concatenate([p.propensities for p in parts])
    )


def test_it_keeps_the_protocol_and_its_state():
    explore = Explore(policy=f"{__name__}:Fixed").fit(EMPTY, Catalogue(3, 6), Fitting())
    assert isinstance(explore, Stochastic)
    other = Explore(policy=f"{__name__}:Fixed").restore(explore.state())
    np.testing.assert_array_equal(
        explore.recall(requests(9), 2, 1).items, other.recall(requests(9), 2, 1).items
    )


@pytest.mark.parametrize(
    ("bad", "word"),
    [({"temperature": 0.0}, "temperature"), ({"epsilon": 1.5}, "epsilon"), ({"pool": 0}, "pool")],
)
def test_bad_hyper_parameters_are_named(bad, word):
    with pytest.raises(ValueError, match=word):
        Explore(**bad)


EMPTY = Sequences(
    np.zeros(0, int), np.zeros(1, int), np.zeros(0, int), np.zeros(0, bool), np.zeros(0, int)
)


@pytest.mark.parametrize(("temperature", "epsilon", "pool", "seen"), CASES)
def test_expectations_are_sums_over_all_items_by_hand(
    temperature: float, epsilon: float, pool: int, seen: tuple[int, ...]
) -> None:
    explore = Explore(temperature=temperature, epsilon=epsilon, pool=pool).over(
        Fixed(), len(SCORES) - 1
    )
    free = [i for i in range(1, len(SCORES)) if i not in seen]
    slates = [s for s in permutations(free, 2) if all(p > 0 for p in by_hand(s, explore, seen))]
    values = np.random.Generator(np.random.Philox(key=2)).normal(size=(4, len(SCORES)))
    rows = np.arange(2 * len(slates)).reshape(-1, 2) % 4
    told = explore.slate_expectations(
        requests(len(slates), seen), np.array(slates), values, rows, 3
    )
    for b, slate in enumerate(slates):
        for place in range(2):
            others = [
                (*slate[:place], i, *slate[place + 1 :]) for i in free if i not in slate[:place]
            ]
            want = sum(
                by_hand(other, explore, seen)[place] * values[rows[b, place], other[place]]
                for other in others
            )
            assert told[b, place] == pytest.approx(want, abs=1e-6)  # scores are float32
