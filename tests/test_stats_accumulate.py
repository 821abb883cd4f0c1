"""Compiled sums of samples against numpy's: nothing cancels, and nothing depends on company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.stats import moments
from simulator.stats.accumulate import sums_of_heads


def by_group(columns: list[Any], group: Any, k: int) -> list[moments.Sample]:
    sampler = moments.Sampler(len(columns), k)
    sampler.add(columns, group)
    return sampler.samples()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, moments.CHUNK, 2 * moments.CHUNK + 3])
@pytest.mark.parametrize("p", [1, 3])
def test_samples_of_groups_are_numpys(n: int, p: int) -> None:
    rng = np.random.default_rng([n, p])
    columns, group = list(1e6 + rng.standard_normal((p, n))), rng.integers(-1, 4, n)
    found = by_group(columns, group, 5)
    assert len(found) == 5
    for g, one in enumerate(found):
        own = np.stack(columns)[:, group == g]
        assert one.n == own.shape[1]
        if one.n == 0:
            assert np.isnan(one.mean).all()
            assert np.isnan(one.cov).all()
            continue
        np.testing.assert_allclose(one.mean, own.mean(axis=1), rtol=1e-14)
        if one.n > 1:
            np.testing.assert_allclose(one.cov, np.cov(own).reshape(p, p), rtol=1e-9, atol=1e-12)
        else:
            assert np.isnan(one.cov).all()


def test_a_group_that_begins_late_has_a_mean_of_its_own() -> None:
    """Nothing cancels in a group that is far from those before it."""
    n = moments.CHUNK
    near, far = np.random.default_rng(0).standard_normal((2, n))
    column, group = np.concatenate((near, 1e8 + far)), np.repeat([0, 1], n)
    late = by_group([column], group, 2)[1]
    assert late.cov[0, 0] == pytest.approx(np.var(far, ddof=1), rel=1e-6)


@pytest.mark.parametrize("units", [1, 4, 7, 8, 9, 16, 203])
@pytest.mark.parametrize("kind", [np.uint8, np.bool_, np.float64])
def test_sums_of_heads_are_those_of_the_units(units: int, kind: type) -> None:
    rng = np.random.default_rng(units)
    heads, values = rng.integers(0, 2, (70, units)), rng.integers(-9, 9, (units, 4))
    count, sums = sums_of_heads(heads.astype(kind), values.astype(np.float64))
    np.testing.assert_array_equal(count, heads.sum(axis=1))
    np.testing.assert_array_equal(sums, heads @ values)  # whole numbers: exact in any order
    again = sums_of_heads(heads[3:5].astype(kind), values.astype(np.float64))[1]
    np.testing.assert_array_equal(again, sums[3:5])
