"""The ranking stage: its arithmetic against statsmodels, its features by hand, and what it learns
from a log with a known law.
"""

from __future__ import annotations

import numpy as np
import pytest

from policies.base import Catalogue, Histories, Sequences
from simulator.serving import features
from simulator.serving.ranking import DYNAMIC, RIDGE, STATIC, Ranker, logistic, ridge


def test_logistic_regression_is_statsmodels():
    import statsmodels.api as sm

    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(4000), rng.normal(size=(4000, 3))])
    y = (rng.random(4000) < 1 / (1 + np.exp(-x @ np.array([-1.0, 0.5, -0.8, 0.1])))).astype(float)
    ours = logistic(x, y)
    theirs = sm.GLM(y, x, family=sm.families.Binomial()).fit()
    gap = np.abs(ours - theirs.params)
    assert (gap < 0.05 * theirs.bse).all(), (
        "a ridge of 1 against 4,000 rows moves a coefficient by a sliver of its standard error"
    )
    p = 1 / (1 + np.exp(-x @ ours))
    penalty = RIDGE * ours
    penalty[0] = 1e-6 * ours[0]
    np.testing.assert_allclose(x.T @ (y - p), penalty, atol=1e-6)


def test_ridge_regression_solves_its_equations():
    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(500), rng.normal(size=(500, 2))])
    y = x @ np.array([2.0, 1.0, -1.0]) + rng.normal(size=500)
    beta = ridge(x, y)
    penalty = RIDGE * beta
    penalty[0] = 1e-6 * beta[0]
    np.testing.assert_allclose(x.T @ (y - x @ beta), penalty, atol=1e-8)


def test_dynamic_features_by_hand():
    """A window of items 1 1 2 (clicks 1 0 1), tags: 1 -> 1, 2 -> 2; authors: both 1; overall rate
    .5.

    Own rate: (2 + 20 * .5) / (3 + 20) = 12/23. Item 1: tag shown twice, clicked once, last at place
    2 of 3.
    """
    items, clicked = np.array([0, 1, 1, 2]), np.array([False, True, False, True])
    groups = np.array([[0, 1, 2], [0, 1, 1]])
    static = np.zeros((3, len(STATIC)))
    out = np.empty((1, len(STATIC) + len(DYNAMIC)))
    history, clicks = np.append(items, 1), np.append(clicked, False)
    t = np.array([0, 1, 2, 3, 4])
    counts = features.no_counts(groups)
    features.logged(
        history, clicks, t, np.array([1]), np.array([4]), 9, static, groups, counts, 0.5, out
    )
    assert not counts.any()
    own = 12 / 23
    expected = [
        np.log(own / (1 - own)),
        (1 - own * 2) / (2 + 5),
        (2 - own * 3) / (3 + 5),
        2 / (3 + 5),
        1 / (1 + 3 - 2),
        1 / (1 + 3 - 3),
    ]
    np.testing.assert_allclose(out[0, len(STATIC) :], expected)


def test_a_request_is_not_its_own_past():
    """Three impressions of one request (same t): none of them is in the window of another."""
    items, clicked, t = (
        np.array([1, 2, 1, 2]),
        np.array([True, True, True, False]),
        np.array([0, 5, 5, 5]),
    )
    groups = np.zeros((2, 3), dtype=np.int64)
    groups[:, 1:] = [1, 2]
    out = np.empty((2, len(STATIC) + len(DYNAMIC)))
    features.logged(
        items,
        clicked,
        t,
        np.array([0, 0]),
        np.array([1, 3]),
        9,
        np.zeros((3, len(STATIC))),
        groups,
        features.no_counts(groups),
        0.5,
        out,
    )
    np.testing.assert_array_equal(out[0], out[1])


def world(n_users: int = 300, per_user: int = 60, seed: int = 3) -> tuple[Sequences, Catalogue]:
    """Every user clicks items of one tag with .7 and others with .1; items of tag 1 are watched for
    60 s, others for 6.
    """
    rng = np.random.default_rng(seed)
    n_items = 40
    tag = np.concatenate(([0], np.arange(n_items) % 4 + 1))
    user = np.repeat(np.arange(n_users), per_user)
    items = rng.integers(1, n_items + 1, len(user))
    taste = user % 4 + 1
    clicked = rng.random(len(user)) < np.where(tag[items] == taste, 0.7, 0.1)
    watch = np.where(clicked, np.where(tag[items] == 1, 60.0, 6.0), 1.0) * np.exp(
        rng.normal(0, 0.2, len(user))
    )
    log = Sequences(
        np.arange(n_users),
        np.arange(n_users + 1) * per_user,
        items,
        clicked,
        np.tile(np.arange(per_user), n_users),
        {"watch": watch},
    )
    return log, Catalogue(
        n_users, n_items, {"tag": tag, "duration": np.where(tag == 1, 80.0, 10.0)}
    )


def requests(log: Sequences) -> Histories:
    last = log.last(30)
    return Histories(last.user, last.step, last.items, last.clicked, last.seen)


def test_it_ranks_by_the_taste_of_the_user_and_beats_the_base_rate():
    log, catalogue = world()
    ranker = Ranker.fit(log, catalogue, 30, 0.0)
    assert ranker.figures()["log loss"] < 0.9 * ranker.figures()["base"]
    items = np.tile(np.arange(1, 41), (len(log), 1))
    scores = ranker.score(requests(log), items)
    best = np.take_along_axis(items, np.argsort(-scores, axis=1)[:, :5], axis=1)
    right = (catalogue.items["tag"][best] == (log.user % 4 + 1)[:, None]).mean()
    assert right > 0.9


def test_the_weight_of_watch_time_moves_long_videos_up():
    log, catalogue = world()
    items = np.tile(np.arange(1, 41), (len(log), 1))
    long = catalogue.items["tag"][items] == 1
    ranks = []
    for weight in (0.0, 1.0):
        scores = Ranker.fit(log, catalogue, 30, weight).score(requests(log), items)
        ranks.append(np.argsort(np.argsort(-scores, axis=1), axis=1)[long].mean())
    assert ranks[1] < ranks[0] - 2


def test_scores_do_not_depend_on_the_batch_nor_on_other_candidates():
    log, catalogue = world(n_users=40)
    ranker = Ranker.restore(Ranker.fit(log, catalogue, 30, 1.0).state())
    asked = requests(log)
    items = np.tile(np.arange(0, 41), (len(log), 1))
    whole = ranker.score(asked, items)
    assert (whole[:, 0] == -np.inf).all()
    assert np.isfinite(whole[:, 1:]).all()
    np.testing.assert_array_equal(whole[7:8], ranker.score(asked.rows(slice(7, 8)), items[7:8]))
    np.testing.assert_array_equal(whole[:, 5:9], ranker.score(asked, items[:, 5:9]))


def test_a_log_without_watch_times_features_or_rows_still_ranks():
    log, _ = world(n_users=20)
    bare = Sequences(log.user, log.offsets, log.items, log.clicked, log.t)
    ranker = Ranker.fit(bare, Catalogue(20, 40), 10, 1.0)
    assert ranker.weight == 0.0
    assert np.isfinite(ranker.score(requests(bare), np.tile(np.arange(1, 41), (20, 1)))).all()
    nothing = np.zeros(0, dtype=np.int64)
    empty = Ranker.fit(
        Sequences(np.arange(3), np.zeros(4, int), nothing, nothing.astype(bool), nothing),
        Catalogue(3, 5),
        10,
        1.0,
    )
    cold = Histories(
        np.arange(1),
        np.zeros(1, int),
        np.zeros((1, 4), int),
        np.zeros((1, 4), bool),
        np.zeros((1, 4), int),
    )
    assert np.isfinite(empty.score(cold, np.array([[1, 2, 3]]))).all()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_same_log_gives_the_same_bytes(weight):
    log, catalogue = world(n_users=60)
    one, two = (Ranker.fit(log, catalogue, 20, weight).state() for _ in range(2))
    assert all((one[name] == two[name]).all() for name in one)
