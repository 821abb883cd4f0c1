"""Rank tests of many weighted samples at once, each against scipy's of its units written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from simulator.stats.ordered import rank_sum_z, signed_rank_z

COUNTS = np.array(
    [
        [1, 1, 1, 1, 1, 1],
        [2, 0, 3, 1, 0, 1],
        [0, 1, 1, 0, 4, 2],
        [1, 0, 0, 0, 0, 0],
        [3, 3, 0, 0, 0, 1],
    ],
    dtype=float,
)
OTHERS = np.array(
    [
        [1, 1, 1, 1, 1, 1],
        [0, 2, 1, 1, 2, 0],
        [1, 0, 0, 3, 0, 0],
        [0, 0, 0, 2, 1, 0],
        [0, 1, 1, 0, 2, 2],
    ],
    dtype=float,
)


def of_scipy(control: np.ndarray, treatment: np.ndarray) -> float:
    """z of scipy's asymptotic rank-sum test without a correction for continuity."""
    found = stats.mannwhitneyu(treatment, control, use_continuity=False, method="asymptotic")
    size = stats.norm.isf(found.pvalue / 2)
    return float(np.sign(found.statistic - len(control) * len(treatment) / 2) * size)


def test_rank_sums_are_scipys_with_ties_and_users_who_are_drawn_several_times() -> None:
    control = np.array([0.0, 0.0, 1.0, 2.0, 2.0, 5.0])
    treatment = np.array([0.0, 1.0, 1.0, 2.0, 4.0, 7.0])
    z = rank_sum_z(control, COUNTS, treatment, OTHERS)
    for row, (heads, tails) in enumerate(zip(COUNTS.astype(int), OTHERS.astype(int), strict=True)):
        expected = of_scipy(np.repeat(control, heads), np.repeat(treatment, tails))
        assert z[row] == pytest.approx(expected, abs=1e-9)
    # Of one array for both arms half of the work is saved; the answer is the same.
    same = rank_sum_z(control, COUNTS, control, OTHERS)
    assert same == pytest.approx(rank_sum_z(control, COUNTS, control.copy(), OTHERS), abs=1e-9)
    assert same[1] == pytest.approx(
        of_scipy(np.repeat(control, COUNTS[1].astype(int)), np.repeat(control, [0, 2, 1, 1, 2, 0])),
        abs=1e-9,
    )


def test_rank_sums_of_values_that_are_all_alike_have_no_test() -> None:
    alike = np.full(6, 3.0)
    assert np.isnan(rank_sum_z(alike, COUNTS, alike, OTHERS)).all()


def signed_by_scipy(values: np.ndarray) -> float:
    """z of scipy's signed-rank test by Pratt; of the sum of the positive ranks."""
    found = stats.wilcoxon(values, zero_method="pratt", correction=False, method="approx")
    ranks = stats.rankdata(np.abs(values))
    up, down = ranks[values > 0].sum(), ranks[values < 0].sum()
    return float(np.sign(up - down) * abs(found.zstatistic))


@pytest.mark.parametrize(
    "differences",
    [
        [-2.0, 0.0, 1.0, 1.0, 3.0, 0.0],
        [-2.0, -1.0, 1.0, 2.5, 3.0, -4.0],
        [2.0, 2.0, -2.0, 1.0, -1.0, 0.0],
    ],
    ids=["zeros and ties", "all unlike", "mostly ties"],
)
def test_signed_ranks_are_scipys(differences: list[float]) -> None:
    d = np.array(differences)
    z = signed_rank_z(d, COUNTS, OTHERS)
    for row, (up, down) in enumerate(zip(COUNTS.astype(int), OTHERS.astype(int), strict=True)):
        whole = np.concatenate((np.repeat(d, up), np.repeat(-d, down)))
        assert z[row] == pytest.approx(signed_by_scipy(whole), abs=1e-9), row


def test_signed_ranks_of_zeros_alone_have_no_test() -> None:
    assert np.isnan(signed_rank_z(np.zeros(6), COUNTS, OTHERS)).all()
