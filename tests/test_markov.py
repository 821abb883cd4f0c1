"""The first-order Markov world: only the last click matters, and successions are as drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Histories, Slates
from policies.time import DAY
from simulator.users.choice import Production
from simulator.users.markov import Markov, Walkers


def walkers(n_users: int = 200, n_items: int = 120, **parameters: Any) -> Walkers:
    markov = Markov.model_validate({"n_users": n_users, "n_items": n_items, **parameters})
    built = markov.build(markov.source(3), 3, 5, Path())
    assert isinstance(built, Walkers)
    return built


def answer(people: Walkers, step: int, items: np.ndarray) -> Any:
    n = people.n_users
    slates = Slates(items, np.zeros(items.shape, dtype=np.float32))
    return people.respond(np.arange(n), np.full(n, step), np.full(n, step * DAY), slates)


def slate(people: Walkers, step: int) -> np.ndarray:
    return np.random.default_rng(step).permuted(
        np.tile(np.arange(1, people.n_items + 1), (people.n_users, 1)), axis=1
    )[:, :6]


def test_a_users_interest_is_where_the_last_click_leads() -> None:
    people = walkers()
    last = np.zeros(200, dtype=np.int64)
    for step in range(4):
        items = slate(people, step)
        given = answer(people, step, items)
        for place in range(6):
            last = np.where(given.click[:, place] == 1, items[:, place], last)
    assert np.array_equal(people.lives.clicked, last)
    somewhere = last > 0
    assert somewhere.mean() > 0.5
    assert np.array_equal(
        people.lives.interests[somewhere, 0], people.truth.onward[last[somewhere]]
    )


def test_nothing_before_the_last_click_matters() -> None:
    """Two histories that end in the same click: the same chances from there on."""
    one, two = walkers(satiation={"enabled": False}), walkers(satiation={"enabled": False})
    for step in range(3):
        answer(one, step, slate(one, step))
        answer(two, step, slate(two, step + 50))
    state = two.state()
    state["interests"], state["clicked"] = one.lives.interests, one.lives.clicked
    two.restore(state)
    a, b = answer(one, 9, slate(one, 9)), answer(two, 9, slate(two, 9))
    both = np.arange(6) < np.minimum(a.shown, b.shown)[:, None]
    assert np.array_equal(a.click[both], b.click[both])
    assert np.array_equal(a.watch[both], b.watch[both])


def test_clicks_follow_the_successions() -> None:
    """After a click on a video, those nearest to where it leads are clicked more than those
    farthest from it.
    """
    people = walkers(1500, 300, affinity={"author": 0.0, "taste": 0.0, "match": 8.0})
    answer(people, 0, slate(people, 0))
    near = people.lives.interests[:, 0] @ people.world.place[1:].T
    order = np.argsort(-near, axis=1) + 1
    state = people.state()
    best = answer(people, 1, order[:, :6]).click
    people.restore(state)
    worst = answer(people, 1, order[:, -6:]).click
    assert (best == 1).mean() > 1.5 * (worst == 1).mean()


def test_videos_of_a_tag_lead_to_few_tags() -> None:
    people = walkers(n_items=3000, succession={"branches": 2, "spread": 0.0})
    leads = (people.truth.onward[1:] @ people.truth.centres.T).argmax(axis=1)
    assert np.allclose(np.linalg.norm(people.truth.onward[1:], axis=1), 1.0)
    for tag in range(people.truth.centres.shape[0]):
        here = leads[people.world.tag[1:] == tag]
        assert len(np.unique(here)) <= 2


def test_its_yardsticks_know_the_last_click() -> None:
    people = walkers(80, 60)
    answer(people, 0, slate(people, 0))
    nothing = np.zeros((80, 1), dtype=np.int64)
    request = Histories(
        np.arange(80), np.ones(80, dtype=np.int64), nothing, nothing.astype(bool), nothing
    )
    production = Production(noise=0.0, boost=0.0, brevity=0.0)
    production.bind(people)
    known = production.recall(request, 10, 0).items
    clicked = people.lives.clicked
    pairs = [(a, b) for a in range(80) for b in range(a) if clicked[a] == clicked[b] > 0]
    assert pairs
    assert all(np.array_equal(known[a], known[b]) for a, b in pairs)


def test_answers_do_not_depend_on_the_batch() -> None:
    whole, cut = walkers(90), walkers(90)
    items = slate(whole, 1)
    expected = answer(whole, 0, items)
    for first in range(0, 90, 7):
        users = np.arange(first, min(first + 7, 90))
        zero = np.zeros(len(users), dtype=np.int64)
        got = cut.respond(
            users, zero, zero, Slates(items[users], np.zeros((len(users), 6), dtype=np.float32))
        )
        assert np.array_equal(got.watch, expected.watch[users], equal_nan=True)
        assert np.array_equal(got.next, expected.next[users])
