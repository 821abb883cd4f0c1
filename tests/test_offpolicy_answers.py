"""The model of answers, its parts against slow literal ones: compiled loops, regressions, what it
remembers of a log, and what the log says of it.
"""

from __future__ import annotations

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from scipy.optimize import minimize

from policies.base import Catalogue, Histories
from simulator.offpolicy import answers, factors
from simulator.offpolicy.answers import (
    AnswerModel,
    AnswerRows,
    Expected,
    ModelEvidence,
    _bent,
    _by_user,
    _ends,
    _groups,
    _Logged,
    _logistic,
    _sigmoid,
)
from simulator.offpolicy.rollout import judge
from simulator.offpolicy.rounds import Rounds

HOUR = 3_600_000
USERS, ITEMS = 4, 5
TAG = np.array([0, 7, 7, 9, 9, 7])
"""Of each item; item 0 is none."""


def rows(n: int = 48, drawn: bool = True) -> AnswerRows:
    """Impressions of requests of two places, some hours apart."""
    random = np.random.default_rng(8)
    user = np.sort(random.integers(0, USERS, n // 2)).repeat(2)
    step = np.arange(n // 2).repeat(2)
    place = np.tile([0, 1], n // 2)
    item = random.integers(1, ITEMS + 1, n)
    reward = 1.0 * (random.random(n) < np.where(item == user + 1, 0.9, 0.3))
    weight = random.choice([1.0, 2.0, 4.0], n) if drawn else np.ones(n)
    return AnswerRows(user, step, step * 5 * HOUR, item, place, reward, weight, drawn)


def catalogue() -> Catalogue:
    return Catalogue(USERS, ITEMS, {"tag": TAG, "score": np.linspace(0, 1, ITEMS + 1)})


@pytest.fixture(scope="module")
def fitted() -> AnswerModel:
    return AnswerModel(catalogue(), 3, folds=2).fit(rows())


@pytest.fixture(params=["interpreted", "compiled"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops as Python runs them, and as they are used."""
    if request.param == "interpreted":
        for name, kernel in vars(factors).copy().items():
            if hasattr(kernel, "py_func") and kernel.__module__ == factors.__name__:
                monkeypatch.setattr(factors, name, kernel.py_func)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.usefixtures("_kernels")
def test_a_pass_of_the_fit_is_a_step_of_adagrad_for_each_row() -> None:
    """With two groups of each item, written out with whole rows in place of loops."""
    random = np.random.default_rng(1)
    groups = np.array([[4, 5, 5, 6], [7, 7, 8, 8]])
    users, items = random.normal(0, 0.5, (3, 4)), random.normal(0, 0.5, (9, 4))
    places = random.normal(0, 0.5, 2)
    ridge = random.uniform(0.1, 0.3, (3, 2)), random.uniform(0.1, 0.3, (9, 2))
    of_pairs = [random.integers(0, size, 12) for size in (3, 4, 2)]
    reward = random.random(12)
    order = random.permutation(12)[:9]
    got = [users.copy(), items.copy(), places.copy()]
    squares = tuple(np.full(one.shape, 0.7) for one in got)
    seen = [one.copy() for one in squares]
    factors.fit(order, *of_pairs, reward, groups, ridge, 0.3, *got, squares)

    def step(table: int, at: object, slope: np.ndarray) -> None:
        seen[table][at] += slope**2  # type: ignore[index]
        want[table][at] -= 0.3 * slope / np.sqrt(seen[table][at])  # type: ignore[index]

    want = [users, items, places]
    kind = np.array([0, 1, 1, 1])
    for row in order:
        u, i, k = (one[row] for one in of_pairs)
        v = items[i] + items[groups[0, i]] + items[groups[1, i]]
        own = users[u].copy()
        error = sigmoid(places[k] + own[0] + v[0] + own[1:] @ v[1:]) - reward[row]
        step(2, k, error)
        to_user, to_item = np.append(error, error * v[1:]), np.append(error, error * own[1:])
        step(0, u, to_user + ridge[0][u, kind] * own)
        for j in (i, groups[0, i], groups[1, i]):
            step(1, j, to_item + ridge[1][j, kind] * items[j])
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    for mine, theirs in zip(squares, seen, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


@pytest.mark.usefixtures("_kernels")
def test_the_parts_of_a_pair_are_its_product_and_both_levels() -> None:
    random = np.random.default_rng(2)
    groups = np.array([[3, 3, 4]])
    users, items = random.normal(size=(2, 3)), random.normal(size=(5, 3))
    out = np.full((3, factors.PARTS), 9.0)
    factors.parts(np.array([1, 0, 1]), np.array([2, 0, 1]), groups, users, items, out)
    first, last = items[2] + items[4], items[1] + items[3]
    want = [[users[1, 1:] @ v[1:], users[1, 0], v[0]] for v in (first, last)]
    np.testing.assert_allclose(out, [want[0], [0, 0, 0], want[1]], rtol=1e-12)


@pytest.mark.usefixtures("_kernels")
def test_what_was_logged_near_is_added_up_by_likeness_and_time() -> None:
    """Likeness: 1 within a group, the squared cosine where it is above 0. What is 8 time constants
    away or more counts nothing in that reach; the fold that is asked about is left out.
    """
    random = np.random.default_rng(3)
    groups = np.array([[3, 4, 4]])
    vectors = random.normal(size=(2, 3, 2))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    begin = np.array([0, 6, 11])
    at = np.array([0, 0, 5, 5, 9, 80, 3, 3, 8, 8, 8])
    item, fold = random.integers(1, 3, 11), random.integers(0, 2, 11)
    surplus = random.normal(size=11)
    rates = np.array([1.0, 0.1, 0.0])
    user, asked, t = np.array([0, 1, 1, 0]), np.array([1, 2, 0, 2]), np.array([8, 0, 5, 0])
    out = np.zeros((4, 3, 3, 2))
    logged = begin, at, item, fold, surplus
    factors.nearby(user, asked, t, 1, logged, groups, vectors, rates, out)
    want = np.zeros(out.shape)
    for n in (0, 1, 3):
        for row in range(begin[user[n]], begin[user[n] + 1]):
            if fold[row] != 1:
                i, k = asked[n], item[row]
                cosines = [max(0.0, one[i] @ one[k]) for one in vectors]
                like = np.array([groups[0, i] == groups[0, k], *np.square(cosines)])
                far = abs(t[n] - at[row]) * rates
                weight = np.where(far < 8, np.exp(-far), 0)
                want[n, :, :, 0] += np.outer(like, weight) * surplus[row]
                want[n, :, :, 1] += np.outer(like, weight)
    assert (abs(8 - at[:6]) == 8).any()  # one row is just 8 time constants away
    np.testing.assert_allclose(out, want, rtol=1e-12, atol=1e-15)


def test_a_regression_is_where_the_penalised_likelihood_is_largest() -> None:
    random = np.random.default_rng(4)
    x = np.column_stack((np.ones(60), random.normal(size=(60, 2))))
    y, weight = random.random(60), random.uniform(0.5, 2, 60)

    def loss(beta: np.ndarray) -> float:
        p = sigmoid(x @ beta)
        fit = weight * (y * np.log(p) + (1 - y) * np.log(1 - p))
        return float(-fit.sum() + (beta[1:] ** 2).sum() / 2)

    want = minimize(loss, np.zeros(3), tol=1e-12).x
    got = _logistic(x, y, weight)
    np.testing.assert_allclose(got, want, atol=1e-5)
    slope = x.T @ (weight * (y - sigmoid(x @ got)))
    np.testing.assert_allclose(slope, [1e-6 * got[0], *got[1:]], atol=1e-9)
    start = np.array([0.1, 0.3, -0.4])
    kept = start.copy()
    np.testing.assert_allclose(_logistic(x, y, weight, start), got, atol=1e-9)
    np.testing.assert_array_equal(start, kept)
    assert _logistic(x, np.zeros(60), weight)[0] < -5  # the level is free


def test_ends_are_bent_apart_and_log_odds_stay_within_30() -> None:
    z = np.array([-40.0, -1.0, 0.0, 2.0, 40.0])
    p = sigmoid(np.clip(z, -30, 30))
    np.testing.assert_allclose(_sigmoid(z), p, rtol=1e-12)
    ends = _ends(z[1:4])
    want = np.ones(3), np.log(p[1:4]), np.log(1 - p[1:4])
    np.testing.assert_allclose(ends, np.stack(want, axis=1), rtol=1e-12)
    bend = np.array([0.2, 1.5, -0.7])
    np.testing.assert_allclose(_bent(z[1:4], bend), sigmoid(ends @ bend), rtol=1e-12)


def test_groups_are_numbered_after_the_items_and_only_by_whole_numbers() -> None:
    columns = {
        "b": np.array([0, 5, 5, 2]),
        "a": np.array([3, 3, 1, 1], np.uint8),
        "real": np.zeros(4),
        "wide": np.zeros((4, 2), int),
    }
    groups, size = _groups(Catalogue(2, 3, columns))
    # a: 1 -> 4, 3 -> 5; then b: 0 -> 6, 2 -> 7, 5 -> 8.
    assert groups.tolist() == [[5, 5, 4, 4], [6, 8, 8, 7]]
    assert size == 9
    none, own = _groups(Catalogue(2, 3))
    assert (none.shape, own) == ((0, 4), 4)


def test_the_surplus_is_above_the_smoothed_mean_of_the_item() -> None:
    zero = np.zeros(4, int)
    user, item, t = np.array([1, 0, 1, 3]), np.array([2, 1, 2, 1]), np.array([7, 8, 9, 10])
    reward, fold = np.array([1.0, 0.0, 0.5, 0.0]), np.array([0, 1, 1, 0])
    log = AnswerRows(user, zero, t, item, zero, reward, np.ones(4), True)
    kept = _Logged.of(log, reward, fold, Catalogue(4, 2))
    overall = 1.5 / 4
    first, second = (0 + 20 * overall) / (2 + 20), (1.5 + 20 * overall) / (2 + 20)
    assert kept.begin.tolist() == [0, 1, 3, 3, 4]
    assert (kept.t.tolist(), kept.item.tolist()) == ([8, 7, 9, 10], [1, 2, 2, 1])
    assert kept.fold.tolist() == [1, 0, 1, 0]
    want = [0 - first, 1 - second, 0.5 - second, 0 - first]
    np.testing.assert_allclose(kept.surplus, want, rtol=1e-12)
    assert _by_user(user, reward).tolist() == [[0.0], [1.5], [0.0]]


def test_impressions_are_those_whose_reward_was_observed_in_the_order_of_the_log() -> None:
    item = np.array([[3, 1], [2, 4]])
    past = np.zeros((2, 1), int)
    user, step = np.array([1, 0]), np.array([6, 2])
    rounds = Rounds(
        user, past[:, 0], np.array([50, 60]), past[:, 0], np.array([[0, 1], [0, 2]]), item,
        np.array([[1.0, np.nan], [0.0, 1.0]]), np.array([[0.5, 0.25], [0.2, 0.1]]), "conditional",
        past[:, 0], Histories(user, step, past, past > 0, past),
    )  # fmt: skip
    got = AnswerRows.of([rounds, rounds.rows([0])])
    assert len(got) == 4
    assert [one.tolist() for one in astuple(got)[:-1]] == [
        [1, 0, 0, 1], [6, 2, 2, 6], [50, 60, 60, 50], [3, 2, 4, 3], [0, 0, 2, 0],
        [1.0, 0.0, 1.0, 1.0], [2.0, 5.0, 10.0, 2.0],
    ]  # fmt: skip
    assert got.drawn
    unknown = AnswerRows.of([replace(rounds, kind="unknown")])
    assert not unknown.drawn
    assert unknown.weight.tolist() == [1.0, 1.0, 1.0]


def test_evidence_is_the_error_among_the_tenth_of_the_weight_with_the_highest_promises() -> None:
    """Ten impressions of weight 2 after one of weight 1: a tenth of 21 is reached by the second."""
    n = 11
    user, zero = np.array([5, 5, 3, *[0] * 8]), np.zeros(n, int)
    predicted = np.linspace(0.9, 0.1, n)
    reward, weight = np.array([1.0, 0.0, *[1.0] * 9]), np.array([1.0, *[2.0] * 10])
    log = AnswerRows(user, zero, zero, np.full(n, 2), zero, reward, weight, True)
    found = ModelEvidence.of(log, reward, predicted, 3)
    missed, promised = 1 * (1 - 0.9) + 2 * (0 - 0.82), 1 * 0.9 + 2 * 0.82
    assert found.drawn
    assert found.effective == pytest.approx(21**2 / 41)
    assert found.error == pytest.approx(missed / promised)
    assert math.isnan(found.deviation)  # one user
    assert found.shown.tolist() == [False, False, True, False]
    others = replace(log, user=np.arange(n))
    ratio = missed / promised
    moved = np.array([0.1 - ratio * 0.9, -1.64 - ratio * 1.64]) / promised
    deviation = ModelEvidence.of(others, reward, predicted, 3).deviation
    assert deviation == pytest.approx(np.sqrt((moved**2).sum() * 2))


def literal_inputs(model: AnswerModel, fold: int, asked: list[np.ndarray]) -> np.ndarray:
    """What a calibration knows of impressions by user, item, place and time, one by one."""
    log = rows()
    answered, chosen = model._scores[fold]
    often_user, often_item = (
        np.log1p(np.bincount(one, minlength=size))
        for one, size in ((log.user, USERS), (log.item, ITEMS + 1))
    )
    group = np.unique(TAG, return_inverse=True)[1] + ITEMS + 1
    whole = [one.items[: ITEMS + 1] + one.items[group] for one in (answered, chosen)]
    folds = model.fold(log.user, log.step)
    mean = (np.bincount(log.item, log.reward) + 20 * log.reward.mean()) / (
        np.bincount(log.item) + 20
    )
    out = []
    for user, item, place, t in zip(*asked, strict=True):
        parts = []
        for one, v in zip((answered, chosen), whole, strict=True):
            parts += [one.users[user, 1:] @ v[item, 1:], one.users[user, 0], v[item, 0]]
        match, own, level, drawn, _, drawn_level = parts
        shown = (often_item[item] - often_item[log.item].mean()) / 2
        asks = often_user[user] - often_user[log.user].mean()
        stands = answered.places[min(place, 1)] - answered.places.mean()
        scores = [
            *(1, stands, match, own, level, shown, asks, match**2, match * own, match * level),
            *(match * shown, level * shown, own * asks, drawn, drawn_level, drawn**2),
            *(drawn * match, drawn * shown, drawn * own, drawn * level),
        ]
        mine = (log.user == user) & (folds != fold)
        unit = [v[:, 1:] / np.linalg.norm(v[:, 1:], axis=1, keepdims=True) for v in whole]
        likes = [1.0 * (TAG[log.item] == TAG[item])]
        likes += [np.maximum(v[log.item] @ v[item], 0) ** 2 for v in unit]
        hours = abs(t - log.t) / HOUR
        surplus, much = [], []
        for like in likes:
            for reach in (0.5, 48.0, math.inf):
                far = hours / reach
                weight = (like * np.where(far < 8, np.exp(-far), 0))[mine]
                shrunk = (weight * (log.reward - mean[log.item])[mine]).sum() / (weight.sum() + 5)
                surplus.append(shrunk)
                much.append(np.log1p(weight.sum()))
        out.append([*scores, *surplus, *much])
    return np.array(out)


def test_a_calibration_knows_scores_and_what_was_answered_near(fitted: AnswerModel) -> None:
    random = np.random.default_rng(5)
    n = 30
    user, item, place = (
        random.integers(low, high, n) for low, high in ((0, USERS), (1, ITEMS + 1), (0, 4))
    )
    asked = [user, item, place, random.integers(0, 120, n) * HOUR]
    for fold in (0, 1):
        want = literal_inputs(fitted, fold, asked)
        assert want.shape == (n, answers.INPUTS + 18)
        np.testing.assert_allclose(fitted._inputs(fold, *asked), want, rtol=1e-9, atol=1e-12)


def test_what_is_expected_is_the_mean_of_the_folds_bent_by_what_was_left_out(
    fitted: AnswerModel,
) -> None:
    """Also of two-fold rewards; of no item, nothing."""
    items = np.array([[2, 0], [5, 1]])
    user, t = np.array([3, 0]), np.array([30, 80]) * HOUR
    asked = [np.repeat(user, 2), items.ravel(), np.tile([0, 1], 2), np.repeat(t, 2)]
    got = replace(fitted, scale=2.0)
    vars(got).update({k: v for k, v in vars(fitted).items() if k != "scale"})
    inputs = [fitted._inputs(fold, *asked) for fold in (0, 1)]
    shown = 2.0 * (items.ravel() > 0)
    whole = [_bent(x @ fitted._worth, fitted._bend) for x in inputs]
    plain = [sigmoid(x[:, :20] @ fitted._plain_worth) for x in inputs]
    without = [
        _bent(x @ worth, bend) * shown
        for x, worth, bend in zip(inputs, fitted._without, fitted._bends, strict=True)
    ]
    found = got.expect(user, items, t)
    want = sum(whole) / 2 * shown, np.stack(without), sum(plain) / 2 * shown
    for mine, theirs in zip(found, want, strict=True):
        np.testing.assert_allclose(mine.reshape(theirs.shape), theirs, rtol=1e-9)
    assert found.without.shape == (2, 2, 2)


def test_a_logged_impression_is_expected_by_the_model_without_its_fold(
    fitted: AnswerModel,
) -> None:
    log = rows()
    take = np.arange(0, 48, 2)
    past = np.zeros((24, 1), int)
    slates = log.item.reshape(24, 2)
    user, step = log.user[take], log.step[take]
    rounds = Rounds(
        user, past[:, 0], log.t[take], past[:, 0], log.place.reshape(24, 2), slates,
        log.reward.reshape(24, 2), np.ones((24, 2)), "conditional", past[:, 0],
        Histories(user, step, past, past > 0, past),
    )  # fmt: skip
    fold = fitted.fold(log.user, log.step)
    asked = [log.user, log.item, log.place, log.t]
    both = [sigmoid(fitted._inputs(f, *asked) @ fitted._without[f]) for f in (0, 1)]
    want = np.where(fold == 0, *both).reshape(24, 2)
    np.testing.assert_allclose(fitted.expect_logged(rounds), want, rtol=1e-9)
    assert set(fold) == {0, 1}


def test_calibrations_are_regressions_on_what_other_folds_have_learned(
    fitted: AnswerModel,
) -> None:
    """Weights are scaled to what their impressions are worth; each fold's own regression leaves it
    out; what it predicts of the fold is what the evidence holds against the rewards.
    """
    log = rows()
    fold = fitted.fold(log.user, log.step)
    asked = [log.user, log.item, log.place, log.t]
    inputs = np.where((fold == 0)[:, None], fitted._inputs(0, *asked), fitted._inputs(1, *asked))
    weight = log.weight * log.weight.sum() / (log.weight**2).sum()
    worth = _logistic(inputs, log.reward, weight)
    np.testing.assert_allclose(fitted._worth, worth, atol=1e-7)
    plain = _logistic(inputs[:, :20], log.reward, weight)
    np.testing.assert_allclose(fitted._plain_worth, plain, atol=1e-7)
    held_out = np.empty(48)
    for out in (0, 1):
        others = np.where(fold == out, 0, weight)
        np.testing.assert_allclose(
            fitted._without[out], _logistic(inputs, log.reward, others), atol=1e-6
        )
        held_out[fold == out] = inputs[fold == out] @ fitted._without[out]
    ends = _ends(held_out)
    np.testing.assert_allclose(fitted._bend, _logistic(ends, log.reward, weight), atol=1e-6)
    predicted = np.empty(48)
    for out in (0, 1):
        bend = _logistic(ends, log.reward, np.where(fold == out, 0, weight))
        np.testing.assert_allclose(fitted._bends[out], bend, atol=1e-6)
        predicted[fold == out] = sigmoid(ends[fold == out] @ bend)
    want = ModelEvidence.of(log, log.reward, predicted, ITEMS)
    assert astuple(fitted.evidence)[:4] == pytest.approx(astuple(want)[:4], rel=1e-5)
    assert fitted.evidence.shown.tolist() == [False, *[True] * ITEMS]


def test_scores_are_five_passes_from_small_random_factors(fitted: AnswerModel) -> None:
    """The first of what was answered, the second of what was rewarded against four items drawn for
    each; both without the fold that is left out.
    """
    log = rows()
    fold = fitted.fold(log.user, log.step)
    groups, size = _groups(catalogue())
    kept = np.flatnonzero(fold != 1)
    random = np.random.Generator(np.random.Philox(key=[3, 1]))

    def passes(user: np.ndarray, item: np.ndarray, place: np.ndarray, y: np.ndarray) -> list:
        users, items = (
            np.column_stack((np.zeros(n), 0.1 * random.standard_normal((n, 17))[:, 1:]))
            for n in (USERS, size)
        )
        mean = (y.sum() + 0.5) / (len(y) + 1)
        places = np.full(place.max() + 1, np.log(mean / (1 - mean)))
        squares = tuple(np.ones(one.shape) for one in (users, items, places))
        often = np.bincount(user, minlength=USERS), np.bincount(item, minlength=size)
        often = often[0], often[1] + np.bincount(groups[0, item], minlength=size)
        ridge = tuple(
            np.array(penalty) / np.maximum(count, 1)[:, None]
            for penalty, count in zip(((4.0, 8.0), (2.0, 4.0)), often, strict=True)
        )
        for _ in range(5):
            order = random.permutation(len(user))
            tables = user, item, place, y, groups, ridge, 0.2, users, items, places, squares
            factors.fit(order, *tables)
        return [users, items, places]

    want = passes(log.user[kept], log.item[kept], log.place[kept], log.reward[kept])
    liked = kept[log.reward[kept] > 0]
    others = random.integers(1, ITEMS + 1, 4 * len(liked))
    user = np.concatenate((log.user[liked], np.repeat(log.user[liked], 4)))
    y = np.repeat([1.0, 0.0], [len(liked), 4 * len(liked)])
    want += passes(user, np.concatenate((log.item[liked], others)), 0 * user, y)
    answered, chosen = fitted._scores[1]
    got = [*vars(answered).values(), *vars(chosen).values()]
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_folds_are_as_many_and_rewards_are_scaled_by_the_largest_above_1() -> None:
    told = []
    log = rows()
    small = replace(log, reward=0.5 * log.reward)
    half = AnswerModel(catalogue(), 3, folds=2).fit(small, lambda *said: told.append(said))
    assert half.scale == 1.0
    assert told == [("model of answers", fold, 2, {}) for fold in (1, 2)]
    assert AnswerModel(catalogue()).folds == 5
    assert set(AnswerModel(catalogue()).fold(np.arange(99), np.zeros(99, int))) == set(range(5))
    below = replace(log, reward=-1.5 * log.reward)
    with pytest.raises(ValueError, match=r"rewards must be 0 or more for a model .*; got -1\.5"):
        AnswerModel(catalogue(), 3, folds=2).fit(below)
    nothing = AnswerModel(catalogue(), 3, folds=2).fit(replace(log, reward=0.0 * log.reward))
    items = np.tile(np.arange(1, ITEMS + 1), (USERS, 1))
    found: Expected = nothing.expect(np.arange(USERS), items, np.zeros(USERS, int))
    assert found.reward.max() < 0.02


def test_a_rollout_is_weak_at_best_and_unusable_where_its_model_is_contradicted() -> None:
    sound = ModelEvidence(True, 500.0, 0.05, 0.03, np.ones(2, bool))
    off = "off by +5% ± 6% where it promises most"
    as_good = f"as good as its model, which is {off}"
    for change, known, word, reasons in (
        ({}, 0.95, "weak", (as_good,)),
        ({"effective": 499.9}, 0.95, "weak",
         ("impressions drawn by chance are worth 500 only", as_good)),
        ({"effective": 50.0}, 0.95, "weak",
         ("impressions drawn by chance are worth 50 only", as_good)),
        ({"effective": 49.0}, 0.95, "unusable",
         ("impressions drawn by chance are worth 49 only", as_good)),
        ({"drawn": False, "effective": 1.0}, 1.0, "unusable",
         ("the log's propensities are unknown: nothing corrects the model for its choices",
          as_good)),
        ({}, 0.94, "weak", (as_good, "the log shows only 94% of what the target shows")),
        ({"error": -0.07, "deviation": 0.02}, 1.0, "unusable",
         ("the log contradicts the model: off by -7% ± 4% where it promises most",)),
        ({"error": 1.96, "deviation": 1.0}, 1.0, "weak",
         ("as good as its model, which is off by +196% ± 196% where it promises most",)),
    ):  # fmt: skip
        told = judge(replace(sound, **change), known)
        assert (told.word, told.reasons) == (word, reasons)
