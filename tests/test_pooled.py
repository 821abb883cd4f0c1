"""A pooled network: the pool by hand, its weight, what it learns from, and a policy's promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.base import Fitting
from policies.check import CHECKS
from policies.continuation import Chosen, Continuation
from policies.examples import Example, chain
from policies.mixture import WEIGHTS, gains_by_weight
from policies.pooled import PooledNetwork
from policies.registry import PolicyError, make
from policies.retrieval import Exact, top_k
from policies.transitions import Transitions
from policies.validation import LastClicks, discount
from tests.worlds import broken_promises

POOLED = "policies.pooled:PooledNetwork"
SASREC: dict[str, Any] = {
    "width": 8,
    "inner": 8,
    "loss": {"kind": "softmax"},
    "training": {"epochs": 2, "patience": 1, "batch": 32},
}
BRIEF = {"policy": "sasrec", "policy_params": SASREC, "counts": {"shrink": 1.0}}


@pytest.fixture(scope="module")
def example() -> Example:
    return chain(1)


@pytest.fixture(scope="module")
def fitted(example: Example) -> PooledNetwork:
    policy = make(POOLED, BRIEF)
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    assert isinstance(policy, PooledNetwork)
    return policy


@pytest.mark.parametrize(
    ("base", "continuation"), [("sasrec", None), ("comirec", None), ("sasrec", {"beam": 2})]
)
def test_keeps_the_promises_of_serving(base: str, continuation: dict[str, int] | None) -> None:
    training = {"training": SASREC["training"]}
    params = {"policy": base, "policy_params": {"width": 8, **training}}
    policy = make(POOLED, {**params, "continuation": continuation})
    without = ("propensities", "learns_checkerboard", "learns_chain", "cost")
    assert broken_promises(policy, only=[name for name in CHECKS if name not in without]) == {}


def test_the_pool_is_the_network_times_a_power_of_the_counts(
    fitted: PooledNetwork, example: Example
) -> None:
    """Both as they are fitted by themselves, without each user's last click."""
    history = LastClicks(example.sequences, 10**6, 0).history
    alone = make("sasrec", SASREC).fit(example.sequences, example.catalogue, Fitting(seed=1))
    counted = Transitions(200, 50, 0.8, 6.0, 1.0).fit(history, example.catalogue, Fitting())
    asked = example.requests(8)
    every = np.broadcast_to(np.arange(1, 41), (len(asked), 40))
    share = np.exp(alone.score(asked, every))
    share /= share.sum(axis=1, keepdims=True)
    counts = counted.score(asked, every)
    total = counts.sum(axis=1, keepdims=True)
    policy = fitted.with_params(weight=0.75).restore(fitted.state())
    expected = share * (counts / np.where(total > 0, total, 1) + 0.003) ** 0.75
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(policy.score(asked, every)), expected, rtol=2e-4, atol=1e-7)
    network = fitted.with_params(weight=0.0).restore(fitted.state())
    assert np.array_equal(network.recall(asked, 10, 0).items, alone.recall(asked, 10, 0).items)


def test_the_weight_is_the_best_on_the_validation_clicks(
    fitted: PooledNetwork, example: Example
) -> None:
    held_out = LastClicks(example.sequences, 10**6, 0)
    judged = []
    for weight in WEIGHTS:
        policy = fitted.with_params(weight=weight).restore(fitted.state())
        blocks = held_out.blocks()
        slates = (policy.recall(held_out.requests(some, 128), 10, 0).items for some in blocks)
        judged.append(held_out.ndcg(slates))
    assert fitted.mixture_.weight == WEIGHTS[int(np.argmax(judged))]
    assert fitted.mixture_.weight > 0


@pytest.mark.parametrize("is_tied", [False, True])
def test_the_places_of_all_weights_are_those_of_their_top_k(is_tied: bool) -> None:
    draw = np.random.default_rng(3)
    inner, counted = (draw.normal(size=(30, 41)).astype(np.float32) for _ in range(2))
    if is_tied:
        inner, counted = np.round(inner), np.round(counted)
    target = draw.integers(1, 41, 30)
    seen = draw.integers(0, 41, (30, 7))
    seen[seen == target[:, None]] = 0
    expected = []
    for weight in WEIGHTS:
        best, _ = top_k(inner + np.float32(weight) * counted, 10, seen)
        expected.append(((best == target[:, None]) * discount(np.arange(10))).sum())
    got = gains_by_weight(inner, counted, target, seen, 10)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert len(set(got)) > len(WEIGHTS) / 2


def test_a_base_that_holds_nothing_out_is_kept_from_the_validation_clicks(example: Example) -> None:
    whole = {**SASREC, "training": {"epochs": 2, "patience": 0, "batch": 32}}
    policy = make(POOLED, {**BRIEF, "policy_params": whole})
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    history = LastClicks(example.sequences, 10**6, 0).history
    alone = make("sasrec", whole).fit(history, example.catalogue, Fitting(seed=1))
    assert np.array_equal(policy.state()["base/items.weight"], alone.state()["items.weight"])


def test_what_it_cannot_be_over_is_named() -> None:
    with pytest.raises(PolicyError, match=r"inner products of a network.* got 'popularity'"):
        make(POOLED, {"policy": "popularity"})
    with pytest.raises(PolicyError, match="no hyper-parameter 'widht'; did you mean 'width'"):
        make(POOLED, {"policy": "sasrec", "policy_params": {"widht": 8}})
    with pytest.raises(PolicyError, match=r"'weight' parameter of PooledNetwork .* got -1"):
        make(POOLED, {"weight": -1})
    assert make(POOLED, BRIEF).fit_key() == make(POOLED, {**BRIEF, "weight": 0}).fit_key()


def test_members_are_fits_of_their_own_and_averaged(
    example: Example, fitted: PooledNetwork
) -> None:
    policy = make(POOLED, {**BRIEF, "members": 2})
    assert isinstance(policy, PooledNetwork)
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    asked = LastClicks(example.sequences, 50, 0).requests(slice(0, 50), 20)
    each = [Exact(base.item_vectors()).scores(base.queries(asked)[:, 0]) for base in policy.bases_]
    first = fitted.bases_[0]
    assert np.array_equal(each[0], Exact(first.item_vectors()).scores(first.queries(asked)[:, 0]))
    assert not np.allclose(each[0], each[1])
    mean = (each[0] + each[1]) / 2
    np.testing.assert_allclose(policy.scores(asked), policy.mixture_.scores(mean, asked), rtol=1e-5)
    again = make(POOLED, {**BRIEF, "members": 2})
    assert isinstance(again, PooledNetwork)
    again.restore(policy.state())
    assert np.array_equal(again.scores(asked), policy.scores(asked))


@pytest.mark.parametrize("base", ["sasrec", "comirec", "pretrain"])
def test_a_second_step_is_the_marginal_over_the_whole_pool(base: str, example: Example) -> None:
    """Each of two members and the counts asked anew after every click that might come."""
    params = {
        "sasrec": SASREC,
        "comirec": {"width": 8, "training": SASREC["training"]},
        "pretrain": {
            "shape": {"width": 8, "heads": 2, "feedforward": 8, "length": 12, "users": "none"},
            "pretraining": SASREC["training"],
        },
    }[base]
    pool = {"policy": base, "policy_params": params, "counts": {"shrink": 1.0}, "members": 2}
    policy = make(POOLED, {**pool, "weight": 0.5, "continuation": {"beam": 3, "share": 0.7}})
    assert isinstance(policy, PooledNetwork)
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    once = policy.with_params(continuation=None).restore(policy.state())
    asked = LastClicks(example.sequences, 70, 0).requests(slice(0, 70), 11)
    found = policy.continued(asked, 40, 3)
    every = np.broadcast_to(np.arange(1, 41), (len(asked), 40))
    first = np.exp(once.score(asked, every))
    fresh = (every[:, :, None] != asked.seen[:, None, :]).all(axis=2)
    first = np.where(fresh, first, 0) / np.where(fresh, first, 0).sum(axis=1, keepdims=True)
    expected, left = 0, 1.0
    for b in range(3):
        item = found.items[:, b]
        after = np.where(fresh, np.exp(once.score(asked.then(item), every)), 0)
        p = np.take_along_axis(first, item[:, None] - 1, axis=1)
        expected, left = expected + p * after / after.sum(axis=1, keepdims=True), left - p
    marginal = (first + 0.7 * (expected + left * first)) / 1.7
    slates = policy.recall(asked, 10, 0)
    scores = np.exp(slates.scores)
    np.testing.assert_allclose(scores, -np.sort(-marginal, axis=1)[:, :10], rtol=2e-4)
    alone = policy.recall(asked.rows(slice(40, 41)), 10, 0)
    assert np.array_equal(alone.items[0], slates.items[40])
    assert np.array_equal(alone.scores[0], slates.scores[40])
    assert not np.array_equal(slates.items, once.recall(asked, 10, 0).items)
    again = make(POOLED, pool)
    assert isinstance(again, PooledNetwork)
    assert again.restore(policy.state()).chosen_ == policy.chosen_


def test_items_that_are_withheld_are_in_no_second_step(
    fitted: PooledNetwork, example: Example
) -> None:
    policy = fitted.with_params(continuation=Continuation()).restore(fitted.state())
    asked = example.requests(8)
    best = policy.recall(asked, 5, 0).items
    available = np.ones(example.catalogue.n_items + 1, dtype=bool)
    available[best[0]] = False
    policy.admit(replace(example.catalogue, available=available), np.zeros(0, dtype=np.int64), 0)
    assert not np.isin(policy.recall(asked, 5, 0).items, best[0]).any()


def test_a_pool_that_is_not_to_choose_a_second_step_is_else_the_same(
    fitted: PooledNetwork, example: Example
) -> None:
    policy = make(POOLED, {**BRIEF, "chooses": False})
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    assert isinstance(policy, PooledNetwork)
    assert (policy.chosen_, fitted.chosen_ == Chosen()) == (Chosen(), False)
    own, others = policy.state(), fitted.state()
    assert own.keys() == others.keys()
    alike = {name for name in own if np.array_equal(own[name], others[name])}
    assert own.keys() - alike == {"continuation"}
