"""Estimators by clusters of items and kinds of slates: right by enumeration where their assumption
holds, off where it does not, refused without clusters.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from policies.base import DoubleArray, IntArray
from simulator.offpolicy.kind_table import KindTable
from simulator.offpolicy.replay import Evaluation, ReplaySettings, evaluate
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

CLUSTER = np.array([0, 1, 1, 2, 2, 3, 3])
ITEMS, LENGTH, ROUNDS = 6, 2, 40_000
SLATES = np.array(list(permutations(range(1, ITEMS + 1), LENGTH)))
STRENGTH = np.array([[0, 3.0, 1.0, 2.0, 0.5, 1.0, 0.3], [0, 0.5, 2.0, 0.4, 1.0, 3.0, 1.0]])
TARGET = np.array([[4, 6], [2, 1]])
"""The slate of each context."""


class Always:
    """Shows one slate in each context."""

    name = "target"

    def __call__(self, rounds: Rounds) -> Target:
        slate = TARGET[rounds.context]
        return Target((slate == rounds.item) * 1.0, slate[:, None, :], deterministic=True)


def enumerated(reward: DoubleArray) -> Rounds:
    """Every slate of every context as often as a Plackett-Luce log draws it, with its mean reward
    `[contexts, slates, LENGTH]`.
    """
    chosen = np.take_along_axis(STRENGTH[:, None, :].repeat(len(SLATES), 1), SLATES[None], axis=2)
    above = np.concatenate((np.zeros_like(chosen[:, :, :1]), chosen[:, :, :-1].cumsum(2)), axis=2)
    chance = chosen / (STRENGTH.sum(axis=1)[:, None, None] - above)
    times = np.rint(chance.prod(axis=2) * ROUNDS).astype(int)
    context, slate = (np.repeat(index.ravel(), times.ravel()) for index in np.indices(times.shape))
    n = len(context)
    zero, place = np.zeros(n, dtype=np.int64), np.tile(np.arange(LENGTH), (n, 1))
    return Rounds(
        np.arange(n), zero, zero, np.arange(n) * LENGTH, place, SLATES[slate],
        reward[context, slate], chance[context, slate], "conditional", context,
    )  # fmt: skip


def evaluated(reward: DoubleArray, clusters: IntArray | None = CLUSTER) -> tuple[Evaluation, float]:
    """The evaluation, and what the target gets in the contexts of these rounds."""
    rounds = enumerated(reward)
    names = ("mips", "lips", "candidate_snips")
    settings = ReplaySettings(names, resamples=100, contexts=2, clusters=clusters)
    (found,) = evaluate([rounds], [Always()], len(rounds), ITEMS, settings)
    at = [int(np.flatnonzero((slate == SLATES).all(axis=1))[0]) for slate in TARGET]
    worth = np.array([reward[context, at[context]].sum() for context in (0, 1)])
    return found, float(worth[rounds.context].mean())


def test_mips_is_right_where_the_cluster_is_all_that_matters() -> None:
    random = np.random.Generator(np.random.Philox(key=81))
    worth = random.uniform(0.1, 0.9, (2, LENGTH, 4))
    by_place = [worth[:, place][:, CLUSTER[SLATES[:, place]]] for place in range(LENGTH)]
    found, truth = evaluated(np.stack(by_place, axis=2))
    assert found["mips"].value == pytest.approx(truth, rel=2e-3)


def test_lips_is_right_where_the_kind_of_the_slate_is_all_that_matters() -> None:
    """Two items of one cluster spoil one another: no sum over places is right."""
    random = np.random.Generator(np.random.Philox(key=82))
    first, second = CLUSTER[SLATES].T
    worth = random.uniform(0.1, 0.9, (2, 4))[:, first] * np.where(first == second, 0.3, 1.0)
    found, truth = evaluated(np.stack((worth, worth), axis=2) / 2)
    assert found["lips"].value == pytest.approx(truth, rel=2e-3)
    assert abs(found["mips"].value / truth - 1) > 0.05


def test_what_items_are_worth_by_themselves_is_not_seen() -> None:
    """Good and bad items of one cluster: the log shows the good ones, the target the others."""
    worth = np.where(SLATES % 2 == 1, 0.8, 0.2)
    found, truth = evaluated(np.stack((worth, worth)).astype(float))
    assert found["candidate_snips"].value == pytest.approx(truth, rel=0.02)
    assert found["mips"].value > 1.15 * truth
    assert found["mips"].word == "weak"
    assert "items of a cluster are worth the same" in " ".join(found["mips"].reasons)


def test_kinds_that_the_log_lacks_are_said() -> None:
    reward = np.full((2, len(SLATES), LENGTH), 0.5)
    alone = np.arange(ITEMS + 1)
    rounds = enumerated(reward)
    kept = rounds.rows(~(rounds.item == TARGET[rounds.context]).any(axis=1))
    settings = ReplaySettings(("mips",), resamples=50, contexts=2, clusters=alone)
    (found,) = evaluate([kept], [Always()], len(rounds), ITEMS, settings)
    assert found["mips"].word == "unusable"
    assert "of the kinds that the target shows" in found["mips"].reasons[0]


def test_without_clusters_both_are_refused() -> None:
    found, _ = evaluated(np.full((2, len(SLATES), LENGTH), 0.5), None)
    for name in ("mips", "lips"):
        assert "no clusters" in (found[name].refused or "")


def test_the_kind_of_a_slate_is_its_main_cluster_and_how_many() -> None:
    kinds = KindTable("slates", CLUSTER, 1, 2, 0)
    slates = np.array([[1, 2, 3], [3, 1, 2], [5, 0, 0], [0, 0, 0], [6, 1, 3]])
    zero = np.zeros(5, dtype=np.int64)
    place = np.tile(np.arange(3), (5, 1))
    reward = np.ones((5, 3))
    rounds = Rounds(zero, zero, zero, zero, place, slates, reward, reward, "unknown", zero)
    found = kinds.rounds(rounds).item[:, 0]
    assert found[0] == found[1] == 2
    assert found.tolist()[2:4] == [2 * 16 + 1, 0]
    assert found[4] == 2 * 16 + 1
    assert (kinds.rounds(rounds).reward == 3).all()
