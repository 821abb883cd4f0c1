"""The built-in policies that read the time of a request and the features of items."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences
from policies.check import check_policy
from policies.content import ContentBased
from policies.examples import fresh, mixed
from policies.hourly import Hourly, hour_of
from policies.time import DAY, HOUR


@pytest.mark.parametrize("policy", [Hourly(), Hourly(half_life=2.0), ContentBased()], ids=repr)
def test_it_keeps_every_promise_and_learns_what_it_claims(policy: Policy) -> None:
    results = {r.name: r for r in check_policy(policy)}
    assert {n: r.detail for n, r in results.items() if not (r.kept or r.skipped)} == {}
    for claim in policy.learns:
        assert results[f"learns_{claim}"].kept


def clicks_at(hours: list[float], items: list[int]) -> Sequences:
    """The log of one user who clicked items at hours before the A/B."""
    t = (np.array(hours) * HOUR).astype(np.int64)
    n = len(items)
    return Sequences(
        np.zeros(1, np.int64), np.array([0, n]), np.array(items), np.ones(n, dtype=bool), t
    )


def at(hour: int) -> Histories:
    nothing = np.zeros((1, 1), dtype=np.int64)
    zero = np.zeros(1, dtype=np.int64)
    return Histories(zero, zero, nothing, nothing > 0, nothing, np.array([hour * HOUR]))


def test_hourly_by_hand() -> None:
    # Item 1 at 23:30 of the day before, item 2 at 01:00, item 3 at noon; ages 13, 11 and 0 hours.
    log = clicks_at([-24.5, -23.0, -12.0], [1, 2, 3])
    policy = Hourly(spread=2.0, half_life=0.5, shrink=3.0).fit(log, Catalogue(1, 3), Fitting())
    weight = [2 ** (-12.5 / 12), 2 ** (-11 / 12), 1.0]
    share = [3.0 * one / sum(weight) for one in weight]
    # From midnight it is one hour to 23, round the clock, one to 1 and twelve to noon.
    near = [math.exp(-0.5 * (hours / 2) ** 2) for hours in (1, 1, 12)]
    expected = [w * k + s for w, k, s in zip(weight, near, share, strict=True)]
    np.testing.assert_allclose(policy.scores(at(0))[0, 1:], expected, rtol=1e-6)
    np.testing.assert_array_equal(policy.scores(at(24)), policy.scores(at(0)))


def test_hours_before_the_start_count_from_midnight_too() -> None:
    t = np.array([-1, -HOUR, -DAY, 0, HOUR - 1, DAY + HOUR])
    assert hour_of(t).tolist() == [23, 23, 0, 0, 0, 1]


def test_content_by_hand() -> None:
    catalogue = Catalogue(
        1, 4, {"tag": np.array([0, 1, 1, 2, 2]), "duration": np.ones(5), "pair": np.ones((5, 2))}
    )
    log = clicks_at([-3, -2, -1], [1, 1, 3])  # tag 1 twice, tag 2 once
    policy = ContentBased(decay=0.5, prior=2.0, floor=1.0).fit(log, catalogue, Fitting())
    share = np.array([1, 3, 2]) / 6  # of the tags 0 (padding), 1 and 2
    asked = log.last(3)
    clicks = np.array([0, 0.5**2 + 0.5, 1.0])
    expected = np.log(clicks + 2.0 * share)[[1, 1, 2, 2]]
    np.testing.assert_allclose(policy.scores(asked)[0, 1:], expected, rtol=1e-6)
    cold = at(0)
    np.testing.assert_allclose(
        policy.scores(cold)[0, 1:], np.log(2.0 * share)[[1, 1, 2, 2]], rtol=1e-6
    )


def test_content_reads_columns_that_are_categories() -> None:
    example = mixed()
    named = ContentBased(columns=("tag",)).fit(example.sequences, example.catalogue, Fitting())
    both = ContentBased().fit(example.sequences, example.catalogue, Fitting())
    assert len(named.values_) == 1
    assert len(both.values_) == 2  # author and tag, not the duration in seconds
    with pytest.raises(ValueError, match="got 'colour', and it has author, duration, tag"):
        ContentBased(columns=("colour",)).fit(example.sequences, example.catalogue, Fitting())
    bare = Catalogue(60, 50, {"duration": np.ones(51)})
    with pytest.raises(ValueError, match=r"categorical column of items .* has duration"):
        ContentBased().fit(example.sequences, bare, Fitting())


def test_a_value_that_nobody_clicked_can_still_be_recalled() -> None:
    example = fresh()
    tag = np.asarray(example.catalogue.items["tag"]).copy()
    tag[-5:] = 9
    catalogue = Catalogue(example.catalogue.n_users, example.catalogue.n_items, {"tag": tag})
    policy = ContentBased().fit(example.sequences, catalogue, Fitting())
    assert np.isfinite(policy.scores(example.requests())[:, 1:]).all()
