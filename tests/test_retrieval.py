"""Ranking: against brute force, under ties, whatever the batch, exactly and approximately."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.base import Slates
from policies.blocks import by_length, by_rows, length_batches, widths
from policies.retrieval import (
    Approximate,
    Exact,
    Search,
    by_max,
    by_quota,
    shares,
    ties,
    top_k,
    top_k_of,
)

NONE = np.zeros((1, 0), dtype=np.int64)


def brute_force(scores: np.ndarray, k: int, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort all candidates by (score down, tie rank up)."""
    ranks = ties(scores.shape[1] - 1)[0]
    items, best = (
        np.zeros((len(scores), k), np.int64),
        np.full((len(scores), k), -np.inf, np.float32),
    )
    for row in range(len(scores)):
        candidates = [
            i
            for i in range(1, scores.shape[1])
            if i not in set(seen[row]) and scores[row, i] > -np.inf
        ]
        chosen = sorted(candidates, key=lambda i: (-scores[row, i], ranks[i]))[:k]
        items[row, : len(chosen)], best[row, : len(chosen)] = chosen, scores[row, chosen]
    return items, best


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
    st.integers(0, 8),
)
def test_top_k_is_brute_force(n_items: int, k: int, levels: int, seed: int, n_seen: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (5, n_items + 1)).astype(np.float32)  # few levels: many ties
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    seen = rng.integers(0, n_items + 1, (5, n_seen))
    items, best = top_k(scores, k, seen)
    expected, expected_best = brute_force(scores, k, seen)
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_array_equal(best, expected_best)


def test_candidates_may_come_in_any_order() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, (8, 51)).astype(np.float32)
    seen = rng.integers(0, 51, (8, 6))
    order = np.stack([rng.permutation(51) for _ in range(8)])
    given_items, given_scores = top_k_of(order, np.take_along_axis(scores, order, 1), 12, seen, 50)
    items, best = top_k(scores, 12, seen)
    np.testing.assert_array_equal(given_items, items)
    np.testing.assert_array_equal(given_scores, best)


def test_a_constant_scorer_hits_one_random_item_with_probability_k_over_n() -> None:
    n, k, trials = 200, 10, 20_000
    items, _ = top_k(np.zeros((1, n + 1), np.float32), k, NONE)
    held_out = np.random.default_rng(1).integers(1, n + 1, trials)
    hits = np.isin(held_out, items[0]).mean()
    assert abs(hits - k / n) < 4 * np.sqrt(k / n * (1 - k / n) / trials)
    assert abs(items[0].mean() - n / 2) < 4 * n / np.sqrt(
        12 * k
    )  # neither low nor high ids are favoured


def test_top_k_refuses_nan_and_unknown_items() -> None:
    scores = np.zeros((3, 5), np.float32)
    scores[2, 3] = np.nan
    with pytest.raises(ValueError, match="row 2 of 3 holds NaN"):
        top_k(scores, 2, np.zeros((3, 0), np.int64))
    with pytest.raises(ValueError, match=r"seen items must be ids of 1\.\.4"):
        top_k(scores[:1], 2, np.array([[9]]))
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_k(scores[:1], 0, NONE)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
def test_search_gives_the_same_bytes_however_requests_are_batched(kind: str) -> None:
    rng = np.random.default_rng(2)
    vectors, queries = (
        rng.standard_normal((1500, 17), dtype=np.float32),
        rng.standard_normal((150, 17), dtype=np.float32),
    )
    seen = rng.integers(0, 1500, (150, 9)) * (rng.random((150, 9)) < 0.5)
    index = Exact(vectors) if kind == "exact" else Approximate(vectors, kind)
    items, scores = index.search(queries, 7, seen)
    shuffled = rng.permutation(150)
    for batch in (1, 7, 64, 150):
        parts = [
            index.search(queries[rows], 7, seen[rows])
            for rows in np.split(shuffled, range(batch, 150, batch))
        ]
        np.testing.assert_array_equal(np.concatenate([p[0] for p in parts]), items[shuffled])
        np.testing.assert_array_equal(np.concatenate([p[1] for p in parts]), scores[shuffled])


@pytest.mark.parametrize("search", [Search(), Search("hnsw", 8, 40), Search("ivf", effort=9)])
def test_a_saved_index_is_mapped_and_searches_as_the_one_that_was_built(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    vectors, queries = (rng.standard_normal((n, 17), dtype=np.float32) for n in (1500, 70))
    seen = rng.integers(0, 1500, (70, 9))
    built = search.index(vectors)
    assert search.saved(tmp_path / "index") is None
    built.save(tmp_path / "index")

    def refuse(*given: Any) -> None:
        raise AssertionError("built again")

    for kind in (Exact, Approximate):
        monkeypatch.setattr(kind, "__init__", refuse)
    kept = search.saved(tmp_path / "index")
    assert kept is not None
    for one, other in zip(
        built.search(queries, 7, seen), kept.search(queries, 7, seen), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(built.score(queries, seen), kept.score(queries, seen))
    if isinstance(built, Exact) and isinstance(kept, Exact):
        np.testing.assert_array_equal(built.scores(queries), kept.scores(queries))
    with Path("/proc/self/maps").open() as maps:
        mapped = {line.split()[-1] for line in maps if str(tmp_path) in line}
    assert str(tmp_path / "index.vectors.npy") in mapped
    assert (str(tmp_path / "index.faiss") in mapped) == (search.kind != "exact")


@pytest.mark.parametrize(("kind", "effort", "least"), [("hnsw", 128, 0.95), ("ivf", 16, 0.9)])
def test_approximate_search_finds_nearly_what_exact_search_finds(
    kind: str, effort: int, least: float
) -> None:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((40, 32))
    vectors = (
        centres[rng.integers(0, 40, 6001)] + 0.5 * rng.standard_normal((6001, 32))
    ) * rng.gamma(4, 0.25, (6001, 1))
    queries = (centres[rng.integers(0, 40, 200)] + 0.5 * rng.standard_normal((200, 32))).astype(
        np.float32
    )
    vectors, seen = vectors.astype(np.float32), rng.integers(1, 6001, (200, 50))
    exact, scores = Exact(vectors).search(queries, 10, seen)
    found, inner = Approximate(vectors, kind, effort=effort).search(queries, 10, seen)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])
    assert recall >= least
    assert not any(np.isin(a, b).any() for a, b in zip(found, seen, strict=True))
    same = exact[:, 0] == found[:, 0]
    np.testing.assert_allclose(inner[same, 0], scores[same, 0], rtol=1e-5)


def test_quotas_are_filled_one_interest_after_another() -> None:
    vectors = np.zeros((6, 2), np.float32)
    vectors[1:] = [[5, 0], [4, 3], [3, 4], [0, 5], [1, 1]]
    queries = np.array([[[1, 0], [0, 1]]], np.float32)
    slates = by_quota(Exact(vectors), queries, (2, 2), np.array([[4]]))
    assert slates.items.tolist() == [[1, 2, 3, 5]]  # 4 is seen; 2 was taken by the first interest
    assert slates.interest is not None
    assert slates.interest.tolist() == [[0, 0, 1, 1]]
    assert slates.scores.tolist() == [[5, 4, 4, 1]]
    merged = by_quota(Exact(vectors), queries, (1, 3), np.array([[0]]), order="score")
    assert merged.items.tolist() == [[1, 4, 3, 2]] or merged.items.tolist() == [[4, 1, 3, 2]]
    assert merged.scores.tolist() == [[5, 5, 4, 3]]
    assert_consistent(merged, Exact(vectors), queries)
    short = by_quota(Exact(vectors), queries, (4, 4), np.array([[0]]))
    assert sorted(short.items[0, :5].tolist()) == [1, 2, 3, 4, 5]
    assert short.items[0, 5:].tolist() == [0, 0, 0]


def assert_consistent(slates: Slates, index: Exact, queries: np.ndarray) -> None:
    """Every score is the inner product with the query of the interest that is named."""
    assert slates.interest is not None
    for interest in range(queries.shape[1]):
        mine = (slates.interest == interest) & (slates.items > 0)
        scores = np.take_along_axis(index.scores(queries[:, interest]), slates.items, 1)
        np.testing.assert_allclose(slates.scores[mine], scores[mine], rtol=1e-5)


def test_merging_by_max_is_the_maximum_over_interests() -> None:
    rng = np.random.default_rng(4)
    vectors, queries = (
        rng.standard_normal((300, 8), dtype=np.float32),
        rng.standard_normal((20, 4, 8), dtype=np.float32),
    )
    seen = rng.integers(0, 300, (20, 30))
    index = Exact(vectors)
    slates = by_max(index, queries, 25, seen)
    dense = np.stack([index.scores(queries[:, i]) for i in range(4)], 1)
    items, scores = top_k(dense.max(1), 25, seen)
    np.testing.assert_array_equal(slates.items, items)
    np.testing.assert_allclose(slates.scores, scores, rtol=1e-5)
    np.testing.assert_array_equal(slates.interest, np.take_along_axis(dense.argmax(1), items, 1))


def test_shares() -> None:
    assert shares((9, 1), 10) == (9, 1)
    assert shares((9, 1), 20) == (18, 2)
    assert shares((1, 1, 1), 10) == (4, 3, 3)
    assert shares((5,), 60) == (60,)
    assert sum(shares((10, 7, 3, 1), 37)) == 37
    with pytest.raises(ValueError, match="quotas must be non-negative"):
        shares((0, 0), 3)


def test_blocks_keep_rows_and_order() -> None:
    assert widths(50) == (4, 8, 16, 32, 50)
    assert widths(3) == (3,)
    rows = np.arange(300.0).reshape(150, 2)
    np.testing.assert_array_equal(by_rows(lambda block: block * 2, rows), rows * 2)
    assert by_rows(lambda block: block.sum(1), rows[:0]).shape == (0,)
    lengths = np.random.default_rng(0).integers(0, 21, 130)
    items = np.where(np.arange(20) >= 20 - lengths[:, None], 1 + np.arange(20), 0)
    seen_widths: list[int] = []

    def total(block: np.ndarray) -> np.ndarray:
        seen_widths.append(block.shape[1])
        return block.sum(1)

    np.testing.assert_array_equal(by_length(total, items), items.sum(1))
    assert set(seen_widths) == {4, 8, 16, 20}


def test_length_batches_partition_the_rows_and_pad_little() -> None:
    lengths = np.random.default_rng(1).geometric(0.1, 5000)
    batches = length_batches(lengths, 64, np.random.default_rng(2))
    assert sorted(np.concatenate(batches).tolist()) == list(range(5000))
    padded = sum(lengths[batch].max() * len(batch) for batch in batches)
    assert padded < 1.25 * lengths.sum()
    assert {len(batch) for batch in batches} == {64, 5000 % 64}
    again = length_batches(lengths, 64, np.random.default_rng(2))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_batches_may_hold_the_same_number_of_targets() -> None:
    lengths = np.random.default_rng(1).geometric(0.1, 5000)
    batches = length_batches(lengths, 64, np.random.default_rng(2), targets=lengths)
    assert sorted(np.concatenate(batches).tolist()) == list(range(5000))
    totals = np.sort([lengths[batch].sum() for batch in batches])[5:]  # but the last of each chunk
    assert (abs(totals / (64 * lengths.mean()) - 1) < 0.2).all()
