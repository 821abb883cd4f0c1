"""The reward model and its abstraction against dictionaries of cells, filled one impression after
the other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.streams import Purpose, uniform
from simulator.offpolicy.kind_table import KindTable
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

ITEMS, CONTEXTS, FOLDS, SEED = 3, 2, 2, 6


def rounds(n: int, places: int, seed: int) -> Rounds:
    """Slates of `places` items, of users whose folds differ."""
    random = np.random.default_rng(seed)
    zero = np.zeros(n, dtype=np.int64)
    return Rounds(
        random.integers(0, 40, n), zero, zero, np.arange(n),
        np.tile(np.arange(places), (n, 1)), random.integers(1, ITEMS + 1, (n, places)),
        random.integers(0, 3, (n, places)) * 1.0, np.full((n, places), 0.5), "conditional",
        random.integers(0, CONTEXTS, n),
    )  # fmt: skip


CHUNKS = rounds(14, 1, 1), rounds(9, 3, 2), rounds(11, 2, 3)
PLACES = 3


@pytest.fixture(scope="module")
def fitted() -> RewardTable:
    model = RewardTable(ITEMS, CONTEXTS, FOLDS, SEED)
    for chunk in CHUNKS:
        model.add(chunk)
    model.settle()
    return model


def fold_of(user: np.ndarray) -> np.ndarray:
    return (uniform(SEED, Purpose.SPLIT, user, 0, 0) * FOLDS).astype(int)


def impressions() -> list[tuple[int, int, int, int, float]]:
    """Fold of the user, context, place, item and reward of each."""
    return [
        (int(fold), int(chunk.context[r]), place, int(chunk.item[r, place]), reward)
        for chunk in CHUNKS
        for r, fold in enumerate(fold_of(chunk.user))
        for place, reward in enumerate(chunk.reward[r])
    ]


def test_a_cell_is_the_mean_of_the_other_folds_shrunk_to_that_of_its_place(
    fitted: RewardTable,
) -> None:
    """Kappa by the method of moments: what rewards vary within a cell over what cells vary."""
    every = impressions()
    shape = FOLDS, CONTEXTS, PLACES, ITEMS + 1
    count, total = np.zeros(shape), np.zeros(shape)
    for fold, context, place, item, reward in every:
        for other in range(FOLDS):
            if other != fold:
                count[other, context, place, item] += 1
                total[other, context, place, item] += reward
    at_place = np.maximum(count.sum(axis=3, keepdims=True), 1)
    prior = total.sum(axis=3, keepdims=True) / at_place
    rewards = np.array([one[-1] for one in every])
    within = (rewards**2).mean() - (prior**2).mean()
    want = np.zeros(shape)
    for fold in range(FOLDS):
        spread = free = weight = 0.0
        for cell in np.ndindex(CONTEXTS, PLACES):
            n, mean = count[fold][cell], prior[fold][cell][0]
            there = n > 0
            spread += (n[there] * (total[fold][cell][there] / n[there] - mean) ** 2).sum()
            free += there.sum() - there.any()
            weight += n.sum() - (n**2).sum() / max(n.sum(), 1)
        between = max((spread - free * within) / max(weight, 1), within * 1e-6)
        kappa = within / between
        assert fitted.kappa[fold].item() == pytest.approx(kappa)
        want[fold] = (total[fold] + kappa * prior[fold]) / (count[fold] + kappa)
        np.testing.assert_allclose(fitted.support[fold], count[fold] + kappa)
    assert len(set(fitted.kappa.ravel())) == FOLDS
    assert (fitted.kappa < 1e6).any()  # in one fold at least cells do differ
    np.testing.assert_allclose(fitted.table, want)
    np.testing.assert_allclose(fitted.prior, prior)
    np.testing.assert_allclose(fitted.shown_at, at_place)
    np.testing.assert_array_equal(fitted.fold(np.arange(40)), fold_of(np.arange(40)))
    assert set(fold_of(np.arange(40))) == {0, 1}


def test_where_nothing_varies_every_cell_is_the_mean() -> None:
    model = RewardTable(ITEMS, folds=2, seed=SEED)
    for chunk in CHUNKS:
        flat = replace(chunk, reward=np.ones(chunk.reward.shape), context=0 * chunk.context)
        model.add(flat)
    model.settle()
    np.testing.assert_allclose(model.table, 1.0)
    np.testing.assert_allclose(model.kappa, 1e6)
    plain = RewardTable(ITEMS)
    assert (plain.n_contexts, plain.folds, plain.seed, plain.n_positions) == (1, 3, 0, 0)


def cell(fold: int, chunk: Rounds, r: int, k: int) -> tuple[int, int, int]:
    return fold, int(chunk.context[r]), int(chunk.position[r, k])


def test_what_is_predicted_and_expected_is_looked_up(fitted: RewardTable) -> None:
    chunk = CHUNKS[1]
    n, random = len(chunk), np.random.default_rng(9)
    fold = fold_of(chunk.user)
    slates = random.integers(0, ITEMS + 1, (n, 2, PLACES))
    share = random.dirichlet((1, 1), n)
    predicted, at, mean = np.zeros((3, n, PLACES))
    drawn, mass = np.zeros((n, PLACES)), np.zeros(fitted.table.shape)
    halves, shown = np.zeros(fitted.table.shape), np.zeros(fitted.table.shape)
    weight = random.random((n, PLACES))
    for r in range(n):
        for k in range(PLACES):
            row = cell(fold[r], chunk, r, k)
            predicted[r, k] = fitted.table[(*row, chunk.item[r, k])]
            shown[(*row, chunk.item[r, k])] += weight[r, k]
            for d in range(2):
                item = slates[r, d, k]
                if item:
                    at[r, k] += fitted.table[(*row, item)] * (d == 1)
                    mean[r, k] += share[r, d] * fitted.table[(*row, item)]
                    drawn[r, k] += fitted.table[(*row, item)] / 2
                    mass[(*row, item)] += share[r, d]
                    halves[(*row, item)] += 0.5
    target = Target(weight, slates, share)
    np.testing.assert_allclose(fitted.predict(fold, chunk), predicted)
    other = fitted.predict(1 - fold, chunk)
    assert other[0, 2] == fitted.table[(*cell(1 - fold[0], chunk, 0, 2), chunk.item[0, 2])]
    np.testing.assert_allclose(fitted.at(chunk, slates[:, 1]), at)
    np.testing.assert_allclose(fitted.expected(chunk, target), mean)
    np.testing.assert_allclose(fitted.expected(chunk, Target(weight, slates)), drawn)
    np.testing.assert_allclose(fitted.mass(chunk, target), mass)
    np.testing.assert_allclose(fitted.mass(chunk, Target(weight, slates)), halves)
    np.testing.assert_allclose(fitted.shown(chunk, weight), shown)
    sure = Target(weight, slates[:, 1:], deterministic=True)
    np.testing.assert_allclose(fitted.given_above(chunk, sure), at)
    # A slate of several places is never foretold as one: its own slates are asked.
    both = replace(target, above=lambda values, rows: 0.0 * rows)
    np.testing.assert_allclose(fitted.expected(chunk, both), mean)


def test_of_a_single_item_the_whole_law_is_used(fitted: RewardTable) -> None:
    chunk = CHUNKS[0]
    n, fold = len(chunk), fold_of(chunk.user)
    law = np.random.default_rng(4).dirichlet(np.ones(ITEMS + 1), n)
    target = Target(np.ones((n, 1)), np.ones((n, 1, 1), int), None, law[:, None])
    mean, mass = np.zeros((n, 1)), np.zeros(fitted.table.shape)
    for r in range(n):
        row = cell(fold[r], chunk, r, 0)
        mean[r, 0] = law[r] @ fitted.table[row]
        mass[row] += law[r]
    np.testing.assert_allclose(fitted.expected(chunk, target), mean)
    np.testing.assert_allclose(fitted.mass(chunk, target), mass)


def test_a_round_moves_its_cell_and_the_mean_of_its_place(fitted: RewardTable) -> None:
    """Two sums of predictions at once; a round moves only the tables of the other folds."""
    chunk = CHUNKS[1]
    gradient = np.random.default_rng(2).normal(size=(2, *fitted.table.shape))
    want = np.zeros((2, len(chunk)))
    for r, own in enumerate(fold_of(chunk.user)):
        for fold in range(FOLDS):
            if fold == own:
                continue
            for k in range(PLACES):
                row = cell(fold, chunk, r, k)
                at = (*row, chunk.item[r, k])
                reward = chunk.reward[r, k]
                for s in range(2):
                    own_part = gradient[s][at] / fitted.support[at]
                    shrunk = (gradient[s][row] / fitted.support[row]).sum()
                    common = shrunk * fitted.kappa[fold].item() / fitted.shown_at[row][0]
                    want[s, r] += own_part * (reward - fitted.table[at])
                    want[s, r] += common * (reward - fitted.prior[row][0])
    np.testing.assert_allclose(fitted.influence(chunk, gradient), want)
    np.testing.assert_allclose(fitted.influence(chunk, gradient[1]), want[1])


def test_the_attention_of_places_is_the_fixed_point_of_both_factors(fitted: RewardTable) -> None:
    """Where both are at rest, each is its maximum of the likelihood with one reward more of the
    other's mean.
    """
    count, total = np.zeros((2, PLACES, ITEMS + 1))
    for _, _, place, item, reward in impressions():
        count[place, item] += 1
        total[place, item] += reward
    mean, place = total.sum() / count.sum(), np.ones(PLACES)
    for _ in range(30):
        appeal = (total.sum(axis=0) + mean) / (place @ count + 1)
        place = (total.sum(axis=1) + mean) / (count @ appeal + mean)
    np.testing.assert_allclose(fitted.attention, place / place[0], rtol=1e-12)
    assert fitted.attention[0] == 1
    nothing = RewardTable(ITEMS)
    nothing.add(replace(CHUNKS[1], reward=0 * CHUNKS[1].reward, context=0 * CHUNKS[1].context))
    assert nothing.attention.tolist() == [1.0, 1.0, 1.0]
    one = RewardTable(ITEMS)
    assert one.attention.tolist() == []


def test_a_kind_of_a_slate_is_its_commonest_cluster_and_how_often() -> None:
    """Of equally many the first; 16 or more are one kind; item 0 is of none."""
    clusters = np.array([0, 1, 1, 2, 3])
    table = KindTable("slates", clusters, 1, 2, 0)
    assert table.table.n_items == 3 * 16
    assert KindTable("items", clusters, 1, 2, 0).table.n_items == 3
    many = np.array([[4] * 17, [3] * 9 + [4] * 8, [0] * 17, [4] * 16 + [1], [0] + [1, 3] * 8])
    assert table._of_slates(many).tolist() == [48, 25, 0, 48, 8]


def test_a_kind_is_worth_what_its_slates_got() -> None:
    """Slates by one reward at one place, items by their clusters; known is what the log has."""
    clusters = np.array([0, 1, 1, 2])
    chunk = rounds(60, 2, 5)
    chunk = replace(chunk, item=np.minimum(chunk.item, 2))
    slates = np.tile([[[1, 2], [3, 0]]], (60, 1, 1))
    share = np.tile([0.25, 0.75], (60, 1))
    target = Target(np.zeros((60, 2)), slates, share)
    for level in ("items", "slates"):
        table = KindTable(level, clusters, CONTEXTS, FOLDS, SEED)  # type: ignore[arg-type]
        kinds = table.rounds(chunk)
        asked = table.target(target)
        if level == "items":
            assert kinds.item.tolist() == clusters[chunk.item].tolist()
            assert asked.slates[0].tolist() == [[1, 1], [2, 0]]
            np.testing.assert_array_equal(kinds.reward, chunk.reward)
        else:
            assert kinds.item.tolist() == [[2]] * 60
            assert asked.slates[0].tolist() == [[2], [17]]
            np.testing.assert_array_equal(kinds.reward[:, 0], chunk.reward.sum(axis=1))
            assert kinds.position.tolist() == [[0]] * 60
            assert kinds.propensity.tolist() == [[1.0]] * 60
        assert asked.probability.shape == asked.slates[:, 0].shape
        assert not asked.probability.any()
        np.testing.assert_array_equal(asked.share, share)
        table.add(chunk)
        table.table.settle()
        want = table.table.expected(kinds, asked).sum(axis=1)
        np.testing.assert_allclose(table.expected(chunk, target), want)
        # Kind 1 or 2 was shown in every context and to users of both folds, nothing else.
        known = 0.25 if level == "slates" else 0.25 * 2 / 2
        np.testing.assert_allclose(table.known(chunk, target), known)
