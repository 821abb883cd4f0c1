"""The training-free floor: counts worked out by hand, and its level on real data."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from policies.base import Catalogue, Fitting, Histories, Sequences, right_aligned
from policies.elementary import powers
from policies.transitions import Transitions


def log(users: list[list[int]]) -> Sequences:
    items = np.array([item for user in users for item in user], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64)
    return Sequences(
        np.arange(len(users)),
        offsets,
        items,
        np.ones(len(items), dtype=bool),
        np.arange(len(items)),
    )


def request(items: list[int]) -> Histories:
    shown = np.array([items], dtype=np.int64)
    return Histories(np.zeros(1, np.int64), np.zeros(1, np.int64), shown, shown > 0, shown)


def test_scores_by_hand() -> None:
    policy = Transitions(neighbours=0, decay=0.5, markov=2.0, shrink=1.0).fit(
        log([[1, 2, 3], [1, 3], [2, 3, 3], [4]]), Catalogue(4, 5), Fitting()
    )
    scores = policy.score(request([1, 2]), np.array([[3, 4, 5, 1]]))[0]
    knn = 0.5 * 2 / (math.sqrt(2 * 3) + 1) + 2 / (
        math.sqrt(2 * 3) + 1
    )  # item 3: two users with 1, two with 2, three of its own
    markov = 2.0 * 2 / (2 + 1)  # after 2 came 3, twice of two
    assert scores[0] == pytest.approx(knn + markov, rel=1e-6)
    assert scores[1:3].tolist() == [0, 0]
    assert scores[3] == pytest.approx(
        1 / (2 + 1), rel=1e-6
    )  # 1 and 2: one user of two each; after 2 never came 1
    slates = policy.recall(request([1, 2]), 5, 0)
    assert slates.items[0, 0] == 3
    assert sorted(slates.items[0].tolist()) == [0, 0, 3, 4, 5]


def test_only_the_nearest_neighbours_are_kept() -> None:
    users = [[1, 2], [1, 2], [1, 3], [1, 2, 4]]
    policy = Transitions(neighbours=1, markov=0.0, shrink=0.0).fit(
        log(users), Catalogue(4, 4), Fitting()
    )
    scores = policy.score(request([1]), np.array([[2, 3, 4]]))[0]
    assert scores[0] == pytest.approx(3 / math.sqrt(4 * 3), rel=1e-6)
    assert scores[1:].tolist() == [0, 0]


def test_batches_and_reloading_change_nothing() -> None:
    rng = np.random.default_rng(0)
    users = [rng.integers(1, 31, rng.integers(1, 12)).tolist() for _ in range(150)]
    policy = Transitions().fit(log(users), Catalogue(150, 30), Fitting())
    histories = log(users).last(8)
    slates = policy.recall(histories, 6, 0)
    again = Transitions().restore(policy.state())
    for rows in (slice(3, 4), slice(50, 63), slice(0, 150)):
        part = again.recall(histories.rows(rows), 6, 0)
        np.testing.assert_array_equal(part.items, slates.items[rows])
        np.testing.assert_array_equal(part.scores, slates.scores[rows])


def test_what_follows_each_candidate_is_scored_as_a_longer_history() -> None:
    rng = np.random.default_rng(1)
    users = [rng.integers(1, 31, rng.integers(1, 12)).tolist() for _ in range(150)]
    policy = Transitions(neighbours=9, length=6).fit(log(users), Catalogue(150, 30), Fitting())
    histories = log(users).last(8)
    items = np.stack([rng.permutation(30)[:12] + 1 for _ in users])
    items[3, 7:] = 0
    scores, totals = policy.continued(histories, items, items[:, :4])
    assert scores.shape == (150, 4, 12)
    for b in range(4):
        longer = np.append(histories.items, items[:, b : b + 1], axis=1)
        asked = Histories(histories.user, histories.step, longer, longer > 0, longer)
        whole = policy.scores(asked)
        expected = np.where(items > 0, np.take_along_axis(whole, items, axis=1), 0)
        np.testing.assert_allclose(scores[:, b], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(totals[:, b], whole.sum(axis=1), rtol=1e-5)
    part = policy.continued(histories.rows(slice(3, 4)), items[3:4], items[3:4, :4])
    np.testing.assert_array_equal(part[0], scores[3:4])
    np.testing.assert_array_equal(part[1], totals[3:4])


@pytest.mark.data
def test_the_floor_of_beauty(data_root: Path) -> None:
    """Not below what was measured elsewhere by a plain kNN + Markov count: HR@10 .0756, NDCG@10
    .0491 (history masked).
    """
    users = [
        [int(field) for field in line.split()[1:]]
        for line in (data_root / "s3rec" / "Beauty.txt").read_text().splitlines()
    ]
    known = log([user[:-1] for user in users])
    policy = Transitions().fit(known, Catalogue(len(users), max(map(max, users))), Fitting())
    n, target = np.diff(known.offsets), np.array([user[-1] for user in users])
    order = np.argsort(n, kind="stable")
    gains = np.zeros((len(users), 10), dtype=bool)
    for start in range(0, len(users), 2048):
        rows = order[start : start + 2048]
        seen = right_aligned(known.items, known.offsets[1:][rows], n[rows])
        histories = Histories(rows, np.zeros(len(rows), np.int64), seen, seen > 0, seen)
        gains[rows] = policy.recall(histories, 10, 0).items == target[rows, None]
    assert gains.sum() / len(users) >= 0.0756
    assert (gains / np.log2(np.arange(10) + 2)).sum() / len(users) >= 0.0491


def test_scores_are_the_sparse_products_bit_for_bit() -> None:
    """As scipy computes them: terms of the similar items in the order of clicks, then the moves."""
    rng = np.random.default_rng(5)
    users = [rng.integers(1, 61, rng.integers(0, 40)).tolist() for _ in range(120)]
    policy = Transitions(neighbours=15, length=20, decay=0.9, markov=0.3).fit(
        log(users), Catalogue(120, 60), Fitting()
    )
    items, clicked = rng.integers(0, 61, (70, 30)), rng.random((70, 30)) < 0.7
    asked = Histories(np.arange(70), np.zeros(70, np.int64), items, clicked, items)
    clicks = asked.clicks(20)
    weights = powers(0.9, np.arange(19, -1, -1)) * (clicks > 0)
    read, last = np.zeros((2, 70, 20, 61), np.float32)
    for row, place in np.argwhere(clicks > 0):
        read[row, place, clicks[row, place]] = weights[row, place]
    last[np.arange(70), 0, clicks[:, -1]] = 0.3 * (clicks[:, -1] > 0)
    expected = np.zeros((70, 61), np.float32)
    for place in range(20):
        expected += sparse.csr_array(read[:, place]) @ policy.similar_.toarray()
    expected += sparse.csr_array(last[:, 0]) @ policy.moves_.toarray()
    assert policy.scores(asked).tobytes() == expected.tobytes()


@pytest.mark.parametrize("decay", [0.7, 1e-4])  # the smaller one underflows
@pytest.mark.parametrize("k", [1, 40, 70])
def test_a_large_catalogue_is_not_looked_through_to_the_same_bytes(
    decay: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(k)
    users = [list(draw.integers(1, 51, draw.integers(0, 30))) for _ in range(150)]
    catalogue = Catalogue(150, 60)  # ten items are never clicked
    policy = Transitions(decay=decay).fit(log(users), catalogue, Fitting())
    shown = draw.integers(0, 61, (130, 25)) * (draw.random((130, 1)) < 0.9)
    clicked = (shown > 0) & (draw.random(shown.shape) < 0.5)
    zeros = np.zeros(130, np.int64)
    asked = Histories(zeros, zeros, shown, clicked, shown[:, :9])
    for withheld in (np.zeros(0, dtype=np.int64), np.array([3, 8, 55])):
        policy.withheld_ = withheld
        slates = {}
        for far in (0, 10**9):
            monkeypatch.setattr("policies.transitions.FAR", far)
            slates[far] = policy.recall(asked, k, 0)
        assert slates[0].items.tobytes() == slates[10**9].items.tobytes()
        assert slates[0].scores.tobytes() == slates[10**9].scores.tobytes()
        assert not np.isin(slates[0].items, withheld).any()
        assert (slates[0].scores > 0).any()
        assert (slates[0].items[slates[0].scores == 0] > 0).any() or k == 1
