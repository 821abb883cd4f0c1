"""Held-out last clicks: whose, what is asked for them, what finding one counts."""

from __future__ import annotations

import numpy as np
import pytest

from policies.base import Sequences
from policies.validation import LastClicks, discount

LOG = Sequences(  # user 10: two clicks; 11: none; 12: three and an unclick at the end; 13: one
    np.array([10, 11, 12, 13]),
    np.array([0, 3, 4, 9, 10]),
    np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 1]),
    np.array([True, False, True, False, True, True, False, True, False, True]),
    np.arange(10),
)


def test_the_last_click_is_held_out_and_all_before_it_is_known() -> None:
    held_out = LastClicks(LOG, 99, 0)
    assert held_out.history.offsets.tolist() == [0, 2, 2, 5, 5]
    assert held_out.history.items.tolist() == [1, 2, 5, 6, 7]
    assert (held_out.rows.tolist(), held_out.target.tolist()) == ([0, 2], [3, 8])
    (block,) = held_out.blocks()
    requests = held_out.requests(block, 2)
    assert requests.user.tolist() == [10, 12]
    assert requests.items.tolist() == [[1, 2], [6, 7]]
    assert requests.clicked.tolist() == [[True, False], [True, False]]
    assert requests.seen.tolist() == [[0, 1, 2], [5, 6, 7]]


def test_a_click_counts_by_the_place_where_it_is_found() -> None:
    held_out = LastClicks(LOG, 99, 0)
    (block,) = held_out.blocks()
    items = np.array([[4, 3, 9], [7, 6, 5]])
    np.testing.assert_allclose(held_out.gains(items, block).sum(axis=1), [1 / np.log2(3), 0])
    assert held_out.ndcg([items]) == pytest.approx(0.5 / np.log2(3))


def test_a_hit_counts_less_from_place_to_place() -> None:
    np.testing.assert_allclose(discount([0, 1, 2, 6]), [1, 1 / np.log2(3), 1 / 2, 1 / 3])
    assert (np.diff(discount(np.arange(500))) < 0).all()


def test_at_most_so_many_are_drawn_the_same_in_any_order() -> None:
    n = np.arange(3000) % 7
    offsets = np.concatenate([[0], np.cumsum(n)])
    items = 1 + np.arange(offsets[-1])
    log = Sequences(np.arange(3000), offsets, items, np.ones(len(items), dtype=bool), items)
    by_row, by_length, other = (
        LastClicks(log, 1500, 3),
        LastClicks(log, 1500, 3, shortest_first=True),
        LastClicks(log, 1500, 4),
    )
    assert len(by_row) == 1500
    assert np.array_equal(by_row.rows, np.sort(by_length.rows))
    assert not np.array_equal(by_row.rows, other.rows)
    assert (np.diff(n[by_length.rows]) >= 0).all()
    for held_out in (by_row, by_length):
        assert [block.start for block in held_out.blocks()] == [0, 1024]
        assert np.array_equal(held_out.target, items[offsets[1:][held_out.rows] - 1])
