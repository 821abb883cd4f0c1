"""Permutations and the bootstrap against plain loops over the same draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, ttest_ind

from simulator.stats import resampling
from simulator.stats.moments import split_by
from simulator.stats.resampling import bootstrap, coins, permutation
from simulator.stats.tests import t_test

CONTROL = np.array([1.0, 4.0, 2.0, 7.0])
TREATMENT = np.array([3.0, 9.0, 1.0, 12.0])
SHORTER = TREATMENT[:3]


def test_coins_come_in_chunks_of_at_least_8_and_depend_on_seed_and_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resampling, "CELLS", 30)
    for share in (0.5, 0.25):
        chunks = list(coins(3, 24, 7, share))
        assert [len(chunk) for chunk in chunks] == [10, 10, 4]
        generator, expected = np.random.default_rng([7, 3]), []
        for rows in (10, 10, 4):
            if share == 0.5:
                bits = generator.integers(0, 256, (rows, 1), dtype=np.uint8)
                expected.append(np.unpackbits(bits, axis=1)[:, :3])
            else:
                expected.append(generator.random((rows, 3), dtype=np.float32) < share)
        assert (np.concatenate(chunks) == np.concatenate(expected)).all()
        assert chunks[0].dtype == np.uint8
    # Units that do not fill 8 rows get 8 all the same; 9 of them take two bytes a row.
    assert [chunk.shape for chunk in coins(9, 17, 0)] == [(8, 9), (8, 9), (1, 9)]


def t_of_twins(d: np.ndarray) -> float:
    if np.ptp(d) == 0:
        return math.inf * float(np.sign(d.mean()))
    return float(d.mean() / (d.std(ddof=1) / math.sqrt(len(d))))


@pytest.mark.parametrize("seed", [0, 3])
def test_a_permutation_of_twins_counts_what_is_at_least_as_far_out(seed: int) -> None:
    d = TREATMENT - CONTROL
    found = permutation(CONTROL, TREATMENT, paired=True, repetitions=200, seed=seed)
    flips = np.concatenate(list(coins(4, 200, seed)))
    observed = t_of_twins(d)
    count = sum(abs(t_of_twins(d * (1.0 - 2.0 * row))) >= abs(observed) - 1e-9 for row in flips)
    assert 5 < count < 150
    assert found.statistic == pytest.approx(observed)
    assert np.isnan(found.df)
    assert found.p == (1 + count) / 201
    mirrored = permutation(TREATMENT, CONTROL, paired=True, repetitions=200, seed=seed)
    assert (mirrored.statistic, mirrored.p) == (-found.statistic, found.p)


def test_twins_whose_differences_become_alike_are_infinitely_far_out() -> None:
    """The differences are 1, -1 and 1: flipped to three alike their variance is 0."""
    base, d = np.array([5.0, 6.0, 7.0]), np.array([1.0, -1.0, 1.0])
    found = permutation(base, base + d, paired=True, repetitions=64)
    flips = np.concatenate(list(coins(3, 64, 0)))
    assert found.p == 1.0, "every assignment is at least as far out as the observed one"
    assert any(np.ptp(d * (1.0 - 2.0 * row)) == 0 for row in flips)


def test_a_permutation_of_a_split_assigns_units_anew_with_the_share_there_was() -> None:
    pooled = np.concatenate((CONTROL, SHORTER))
    found = permutation(CONTROL, SHORTER, paired=False, repetitions=300, seed=1)
    observed = float(ttest_ind(SHORTER, CONTROL, equal_var=False).statistic)
    count = 0
    for row in np.concatenate(list(coins(7, 300, 1, 3 / 7))):
        ones, zeros = pooled[row == 1], pooled[row == 0]
        if min(len(ones), len(zeros)) >= 2:
            error = math.sqrt(ones.var(ddof=1) / len(ones) + zeros.var(ddof=1) / len(zeros))
            count += abs(ones.mean() - zeros.mean()) / error >= abs(observed) - 1e-9
    assert 50 < count < 290
    assert (found.statistic, found.p) == (pytest.approx(observed), (1 + count) / 301)


def test_who_is_alone_in_an_arm_has_no_variance_whatever_rounding_says() -> None:
    """Of these values that of one unit comes out a little below 0."""
    values = np.array([1.0, 4.0, 2.0, 7.0, 3.0, 9.0, 1.0])
    alone = split_by(values, values, np.eye(7, dtype=np.uint8))
    assert np.isnan(alone.var_treatment).all()
    assert np.isnan(t_test(split_by(values, values, 1 - np.eye(7, dtype=np.uint8))).statistic).all()


def test_a_permutation_makes_9999_with_seed_0_unless_asked_otherwise() -> None:
    assert permutation(CONTROL, TREATMENT, paired=True) == permutation(
        CONTROL, TREATMENT, paired=True, repetitions=9999, seed=0
    )


def relative(control: float, treatment: float) -> float:
    return (treatment - control) / abs(control)


def by_hand(
    c: np.ndarray, t: np.ndarray, paired: bool, level: float, n: int, seed: int
) -> tuple[float, float]:
    """BCa of DiCiccio & Efron (1996), one resample after the other."""
    generator, lifts = np.random.default_rng([seed, len(c)]), []
    pick = generator.integers(0, len(c), (n, len(c)))
    other = pick if paired else generator.integers(0, len(t), (n, len(t)))
    for mine, theirs in zip(pick, other, strict=True):
        if c[mine].mean() != 0:
            lifts.append(relative(c[mine].mean(), t[theirs].mean()))
    observed = relative(c.mean(), t.mean())
    below = np.mean([(x < observed) + 0.5 * (x == observed) for x in lifts])
    bias = norm.ppf(np.clip(below, 0.5 / len(lifts), 1 - 0.5 / len(lifts)))
    influence = []
    if paired:
        without = [relative(np.delete(c, i).mean(), np.delete(t, i).mean()) for i in range(len(c))]
        influence = [(np.mean(without) - x) * (len(c) - 1) for x in without]
    else:
        for values, lift in (
            (c, lambda kept: relative(kept.mean(), t.mean())),
            (t, lambda kept: relative(c.mean(), kept.mean())),
        ):
            without = [lift(np.delete(values, i)) for i in range(len(values))]
            size = len(values)
            influence += [(np.mean(without) - x) * (size - 1) / size for x in without]
    cubes, squares = np.power(influence, 3).sum(), np.square(influence).sum()
    a = cubes / (6 * squares**1.5)
    z = bias + norm.ppf([(1 - level) / 2, (1 + level) / 2])
    return tuple(np.quantile(lifts, norm.cdf(bias + z / (1 - a * z))))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_bootstrap_is_bca_over_its_own_draws(paired: bool, sign: float) -> None:
    """A control below 0 (a loss), too."""
    random = np.random.default_rng(2)
    c = sign * random.gamma(3.0, 1.0, 12)
    t = 1.3 * c + random.normal(0.0, 0.5, 12)
    t = t if paired else t[:9]
    found = bootstrap(c, t, paired=paired, level=0.9, repetitions=300, seed=5)
    assert found == pytest.approx(by_hand(c, t, paired, 0.9, 300, 5), rel=1e-9)


def test_lifts_that_are_all_on_one_side_of_the_observed_one_are_half_a_lift_from_its_end() -> None:
    values = np.random.default_rng(4).gamma(2.0, 1.0, (2, 9))
    sides = set()
    for seed in range(9):
        lifts = resampling._bootstrapped(*values, True, 2, seed)
        sides.add(int((lifts < relative(*values.mean(axis=1))).sum()))
        found = bootstrap(*values, paired=True, repetitions=2, seed=seed)
        assert found == pytest.approx(by_hand(*values, True, 0.95, 2, seed))
    assert sides == {0, 1, 2}


def test_the_bootstrap_draws_4000_with_seed_0_at_95_unless_asked_otherwise() -> None:
    values = np.random.default_rng(4).gamma(2.0, 1.0, (2, 9))
    asked = bootstrap(*values, paired=True, level=0.95, repetitions=4000, seed=0)
    assert bootstrap(*values, paired=True) == asked
    assert asked == pytest.approx(by_hand(*values, True, 0.95, 4000, 0), rel=0.01)


def test_the_bootstrap_does_not_depend_on_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(CONTROL, TREATMENT, paired=True, repetitions=50)
    for cells in (1, 12):  # one resample at a time, and three
        monkeypatch.setattr(resampling, "CELLS", cells)
        assert bootstrap(CONTROL, TREATMENT, paired=True, repetitions=50) == whole
    drawn = resampling._bootstrapped(CONTROL, SHORTER, False, 7, 1)
    generator = np.random.default_rng([1, 4])
    monkeypatch.setattr(resampling, "CELLS", 12)  # the longer arm has 4: chunks of 3, 3 and 1
    assert len(drawn) == 7
    chunks = resampling._bootstrapped(CONTROL, SHORTER, False, 7, 1)
    expected = []
    for rows in (3, 3, 1):
        picks = (generator.integers(0, n, (rows, n)) for n in (4, 3))
        mine, theirs = (v[p].mean(axis=1) for v, p in zip((CONTROL, SHORTER), picks, strict=True))
        expected += [relative(*pair) for pair in zip(mine, theirs, strict=True)]
    assert chunks == pytest.approx(np.array(expected))


def test_no_lift_or_none_that_varies_has_no_bootstrap_interval() -> None:
    for c, t in (
        ([1.0], [1.0, 2.0]),
        ([1.0, 2.0], [2.0]),
        ([-1.0, 1.0], [1.0, 2.0]),
        ([2.0, 2.0], [3.0, 3.0]),
    ):
        found = bootstrap(np.array(c), np.array(t), paired=False, repetitions=20)
        assert np.isnan(found).all()
    assert np.isfinite(bootstrap(np.array([1.0, 2.0]), np.array([1.0, 3.0]), paired=False)).all()


def test_bootstrap_means_of_0_are_left_out() -> None:
    """Of 0, 0 and 1, 1 one in sixteen resamples has a control of 0, and no lift."""
    c, t = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 3.0])
    expected = by_hand(c, t, False, 0.95, 400, 0)
    assert bootstrap(c, t, paired=False, repetitions=400) == pytest.approx(expected, rel=1e-9)
