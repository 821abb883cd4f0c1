"""Linear maps whose rows depend on nothing beside them: what they are, and that they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policies.affine import PANEL, ROWS, Affine, room

SHAPES = [(1, 1), (7, 21), (64, 192), (100, 300), (65, 33)]
"""Terms and columns: fewer than a panel, whole panels, and more."""


def layer(terms: int, columns: int) -> torch.nn.Linear:
    torch.manual_seed(terms)
    return torch.nn.Linear(terms, columns)


@pytest.mark.parametrize(("terms", "columns"), SHAPES)
@pytest.mark.parametrize("n", [1, 8, 9, 70])
def test_a_map_is_that_of_torch(terms: int, columns: int, n: int) -> None:
    linear, x = layer(terms, columns), room(n, terms)
    x[:n] = np.random.default_rng(n).standard_normal((n, terms))
    given = Affine.of(linear.weight, linear.bias)(x, n)
    with torch.inference_mode():
        wanted = linear.double()(torch.from_numpy(x[:n]).double()).numpy()
    assert len(given) % ROWS == 0
    assert given.shape[1] % PANEL == 0
    np.testing.assert_allclose(given[:n, :columns], wanted, rtol=1e-5, atol=1e-5)
    assert not given[:n, columns:].any()


@pytest.mark.parametrize(("terms", "columns"), SHAPES)
def test_a_row_is_the_same_bits_wherever_it_stands(terms: int, columns: int) -> None:
    linear, random = layer(terms, columns), np.random.default_rng(0)
    affine = Affine.of(linear.weight, linear.bias)
    rows = random.standard_normal((50, terms)).astype(np.float32)
    x = room(50, terms)
    x[:50] = rows
    whole = affine(x, 50)[:50].copy()
    for n in (1, 3, 8, 49):
        chosen = random.permutation(50)[:n]
        part = room(n, terms)
        part[:n] = rows[chosen]
        part[n:] = np.nan  # what fills the last rows up reaches no other
        np.testing.assert_array_equal(affine(part, n)[:n], whole[chosen])


def test_terms_are_added_one_after_the_other_from_the_bias_on() -> None:
    # 2^24 + 1 is no float32: 1 is lost where it is added to 2^24, and not where it comes before it
    for terms, total in (
        ([2.0**24, 1.0, 1.0, -(2.0**24)], 0.0),
        ([1.0, 1.0, 2.0**24, -(2.0**24)], 2.0),
    ):
        weight, x = torch.tensor([terms]), room(1, 4)
        x[0] = 1
        assert Affine.of(weight, torch.zeros(1))(x, 1)[0, 0] == total
