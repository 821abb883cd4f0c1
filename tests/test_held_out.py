"""Held-out users: one request, one click where the held-out item stands; HR@k and NDCG@k then
follow from the log.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from policies.base import Catalogue, Slates, silent
from simulator.datasets.delimited import DataError
from simulator.datasets.sequences import leave_out
from simulator.users.base import NEVER, Source, UsersError
from simulator.users.held_out import HeldOut


def source() -> Source:
    """Users 0: 1 2 3 (3 is held out), 1: 4 (nothing to hold out), 2: 2 5 (5 is held out)."""
    return leave_out(np.array([0, 3, 4, 6]), np.array([1, 2, 3, 4, 2, 5]), Catalogue(3, 5), {})


def test_every_user_with_a_held_out_item_asks_once_and_clicks_it() -> None:
    users = HeldOut().build(source(), 0, 1, Path())
    who = np.arange(3)
    assert users.first(who).tolist() == [0, NEVER, 0]
    slates = Slates(np.array([[4, 3, 1], [1, 4, 0]]), np.zeros((2, 3), dtype=np.float32))
    answer = users.respond(
        np.array([0, 2]), np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64), slates
    )
    assert answer.click.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert np.isnan(answer.watch).all()
    assert answer.next.tolist() == [NEVER, NEVER]
    assert answer.leaves.all()
    assert answer.logged is not None
    assert answer.logged.tolist() == [[False, True, False], [False, False, False]]


def test_hit_rate_of_a_random_slate_is_k_over_n() -> None:
    """A slate of k of n items in random order holds the item with probability k / n."""
    n_users, n_items, k = 4000, 40, 8
    generator = np.random.default_rng(3)
    items = generator.integers(1, n_items + 1, 2 * n_users)
    users = HeldOut().build(
        leave_out(np.arange(0, 2 * n_users + 1, 2), items, Catalogue(n_users, n_items), {}),
        0,
        1,
        Path(),
    )
    slates = np.stack([generator.permutation(n_items)[:k] + 1 for _ in range(n_users)])
    zeros = np.zeros(n_users, dtype=np.int64)
    answer = users.respond(
        np.arange(n_users), zeros, zeros, Slates(slates, np.zeros(slates.shape, dtype=np.float32))
    )
    share = k / n_items
    assert answer.click.sum(axis=1).mean() == pytest.approx(
        share, abs=4 * (share * (1 - share) / n_users) ** 0.5
    )


def test_state_round_trip_and_no_future_is_refused() -> None:
    users = HeldOut().build(source(), 0, 1, Path())
    users.restore(users.state())
    with pytest.raises(ValueError, match="held_out needs data with held-out items"):
        HeldOut().build(Source(Catalogue(1, 1)), 0, 1, Path())


def test_several_clicks_ahead_are_held_out_and_found_by_one_slate() -> None:
    """Users 0: 1 2 3 4 5 (3 4 5 are held out), 1: 1 2 3 (too short), 2: 5 1 x 2 3 4, x shown and
    not clicked.
    """
    items = np.array([1, 2, 3, 4, 5, 1, 2, 3, 5, 1, 2, 2, 3, 4])
    clicked = np.ones(14, dtype=bool)
    clicked[10] = False
    several = leave_out(
        np.array([0, 5, 8, 14]), items, Catalogue(3, 5), {}, {"click": clicked}, held=3
    )
    assert several.history is not None
    assert several.future is not None
    history = several.history.sequences()
    assert [history.items[a:b].tolist() for a, b in pairwise(history.offsets)] == [
        [1, 2],
        [1, 2, 3],
        [5, 1, 2],
    ]
    assert several.future.table["t"].to_pylist() == [0, 1000, 2000] * 2
    assert several.future.table["item"].to_pylist() == [3, 4, 5, 2, 3, 4]
    users = HeldOut(clicks=3).build(several, 0, 1, Path())
    assert users.first(np.arange(3)).tolist() == [0, NEVER, 0]
    slates = Slates(np.array([[4, 1, 3], [1, 5, 2]]), np.zeros((2, 3), dtype=np.float32))
    answer = users.respond(
        np.array([0, 2]), np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64), slates
    )
    assert answer.click.tolist() == [[1, 0, 1], [0, 0, 1]]
    with pytest.raises(
        UsersError,
        match=(
            r"no user has the 4 clicks from .* users.clicks = 4 asks for; the most that one has"
            r" is 3"
        ),
    ):
        HeldOut(clicks=4).fit(several, 0, Path(), silent)


def test_a_data_set_where_nobody_has_enough_clicks_is_refused() -> None:
    """Users 0: 1 2, 1: 3; and one whose second impression was not clicked."""
    offsets, items, clicked = (
        np.array([0, 2, 3, 5]),
        np.array([1, 2, 3, 1, 2]),
        np.array([True, True, True, True, False]),
    )
    assert (
        leave_out(offsets, items, Catalogue(3, 3), {}, {"click": clicked}).notes["users held out"]
        == 1
    )
    with pytest.raises(
        DataError,
        match=(
            r"no user has the 3 clicks that data.hold_out = 2 needs.*of 3 users, .* most clicks"
            r" has 2"
        ),
    ):
        leave_out(offsets, items, Catalogue(3, 3), {}, {"click": clicked}, held=2)
    clicked[:] = False
    with pytest.raises(
        DataError,
        match=r"no user has the 2 clicks that data.hold_out = 1 needs.* most clicks has 0",
    ):
        leave_out(offsets, items, Catalogue(3, 3), {}, {"click": clicked})
