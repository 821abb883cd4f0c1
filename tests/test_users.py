"""Vectors of users that are hashed into a table whose size does not grow with the users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policies import examples
from policies.base import Fitting, Policy
from policies.registry import PolicyError, make
from policies.users import HashedUsers, user_vectors
from recgpt.model import Shape

SHORT: dict[str, Any] = {"epochs": 2, "patience": 1, "batch": 64}
POLICIES: dict[str, tuple[dict[str, Any], str]] = {
    "bpr": ({"width": 4, "training": SHORT, "user_rows": 20}, "users.weight"),
    "comirec": (
        {"width": 4, "length": 6, "training": SHORT, "user_aware": True, "user_rows": 20},
        "users.weight",
    ),
    "recgpt": (
        {
            "shape": {"width": 4, "feedforward": 4, "length": 6, "user_rows": 20},
            "pretraining": SHORT,
            "tuning": SHORT,
        },
        "model/users.weight",
    ),
}


def test_a_vector_is_the_sum_of_two_rows_that_the_key_and_the_user_choose() -> None:
    torch.manual_seed(0)
    table = HashedUsers(n_users=30_000, width=3, rows=50).double()
    with torch.no_grad():
        table.weight[1:] = 0
        table.weight[1:, 0] = 2.0 ** torch.arange(50)  # a sum of two tells which
    user = torch.arange(30_000).reshape(100, 300)
    vectors = table(user + 1)
    assert vectors.shape == (100, 300, 3)
    mantissa, exponent = torch.frexp(vectors[..., 0].flatten())
    is_twice = mantissa == 0.5  # both hashes give one row
    assert 0.015 < float(is_twice.double().mean()) < 0.025  # 1 of 50
    larger = (exponent - 1 - is_twice.int()).long()
    share = torch.bincount(larger, minlength=50) / 30_000
    expected = (2 * torch.arange(50) + 1) / 2500  # of the larger one of two
    assert float((share - expected).abs().max()) < 0.004
    assert bool((table(torch.zeros(2, 2, dtype=torch.int64)) == 0).all())  # unknown
    torch.manual_seed(1)
    other = HashedUsers(30_000, 3, 50).double()
    with torch.no_grad():
        other.weight.copy_(table.weight)
    same = (other(user + 1) == vectors).all(-1).double().mean()
    assert 0 < float(same) < 0.005  # two of 2,500, with the order not looked at
    alone = torch.cat([table(user[:1, i : i + 1] + 1) for i in range(300)], 1)
    assert torch.equal(alone, vectors[:1])


def test_without_rows_each_user_has_a_vector() -> None:
    assert user_vectors(7, 3, 0).weight.shape == (8, 3)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_with_hashed_users_is_kept_and_its_table_does_not_grow_with_users(
    name: str, tmp_path: Path
) -> None:
    params, table = POLICIES[name]
    example = examples.mixed(0, 90)
    fitted: Policy = make(name, params).fit(example.sequences, example.catalogue, Fitting(1))
    state = fitted.state()
    assert state[table].shape == (21, 4)
    fitted.save(tmp_path)
    again: Policy = make(name, params).load(tmp_path)
    asked = example.requests()
    one, other = (policy.recall(asked, 10, 0) for policy in (fitted, again))
    assert one.items.tobytes() == other.items.tobytes()
    assert one.scores.tobytes() == other.scores.tobytes()
    key = table.replace("weight", "key")
    assert again.state()[key] == state[key]
    fresh = make(name, params).fit(example.sequences, example.catalogue, Fitting(2)).state()
    assert fresh[key] != state[key]


@pytest.mark.parametrize("name", POLICIES)
def test_users_who_were_not_there_have_no_vector(name: str) -> None:
    params, _ = POLICIES[name]
    example = examples.mixed(0, 60)
    fitted = make(name, params).fit(example.sequences, example.catalogue, Fitting(1))
    asked = example.requests()
    queries: Any = fitted
    arrays = asked.arrays()
    found = {}
    for user in (60, 12345, -1, 3):
        arrays["user"] = np.full(len(asked), user)
        found[user] = queries.queries(type(asked).of(arrays)).tobytes()
    assert found[60] == found[12345] == found[-1] != found[3]


def test_tastes_are_learned_through_collisions() -> None:
    example = examples.checkerboard()
    training = {"epochs": 200, "patience": 0, "rate": 0.01}
    shares = {}
    for rows in (240, 30):  # for 120 users
        policy = make("bpr", {"training": training, "user_rows": rows})
        policy.fit(example.sequences, example.catalogue, Fitting(0))
        shares[rows] = examples.share_right(example, policy.recall(example.requests(), 5, 0).items)
    assert shares[240] > 0.85
    assert shares[30] < 0.65  # tastes that have nothing in common do not fit into so few


def test_rows_of_no_table_are_refused() -> None:
    with pytest.raises(PolicyError, match="'user_rows' parameter of ComiRec is of its user vec"):
        make("comirec", {"user_rows": 10})
    with pytest.raises(PolicyError, match="'user_rows' parameter of BPR must be at least 0"):
        make("bpr", {"user_rows": -1})
    with pytest.raises(PolicyError, match="'user_rows' of a shape must be at least 0, and 0 where"):
        make("recgpt", {"shape": {"users": "none", "user_rows": 5}})
    assert Shape(user_rows=5).users == "free"
