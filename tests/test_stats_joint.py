"""The joint law of several tests by its parts: a root of the correlations, and what counts of
points say.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from simulator.stats import joint
from simulator.stats.joint import JointLaw, _root


def test_the_root_of_correlations_is_choleskys() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(9, 5))
    correlation = np.corrcoef(values.T)
    assert _root(correlation) == pytest.approx(np.linalg.cholesky(correlation), abs=1e-12)


def test_a_comparison_that_others_make_up_adds_nothing_to_the_root() -> None:
    """All pairs of three arms: the third difference is the second less the first."""
    c = np.array([[1.0, 0.5, -0.5], [0.5, 1.0, 0.5], [-0.5, 0.5, 1.0]])
    root = _root(c)
    assert root @ root.T == pytest.approx(c)
    assert root[:, 2].tolist() == [0.0, 0.0, 0.0]
    # What is left of a variance is rounding up to 1e-10 of it, and a contrast beyond.
    for rest, is_there in ((0.5e-10, False), (2e-10, True)):
        near = np.array([[1.0, 0.0], [0.0, rest]])
        assert bool(_root(near)[1, 1] > 0) is is_there


def law(n: int = 1000, k: int = 3) -> JointLaw:
    """Smallest p at the middles of n equal steps."""
    return JointLaw((np.arange(n) + 0.5) / n, k)


def test_adjusted_is_the_share_of_points_within_p_and_bonferronis() -> None:
    # 1000 points at .0005, .0015, ...: 250 of them are at most .25.
    assert law().adjusted(np.array([0.25])) == pytest.approx([0.25])
    fewer = JointLaw(np.sort(np.arange(1000) / 2000.0), 3)  # points at 0, .0005, ...
    assert fewer.adjusted(np.array([0.1])).tolist() == [0.201], "p itself counts as reached"
    assert fewer.adjusted(np.array([0.45])).tolist() == [0.901]
    many = JointLaw(np.zeros(1000), 3)
    assert many.adjusted(np.array([0.1, 0.3, 0.9])).tolist() == pytest.approx([0.3, 0.9, 1.0])
    none = JointLaw(np.ones(1000), 3)
    assert none.adjusted(np.array([0.1])).tolist() == [0.1], "never below p"
    # Fewer than 20 points count as 20, so that Bonferroni's decides where p is small.
    few = JointLaw(np.concatenate((np.full(10, 1e-6), np.ones(990))), 3)
    assert few.adjusted(np.array([0.015, 0.001])).tolist() == pytest.approx([0.02, 0.003])


def test_a_threshold_is_the_last_point_below_alpha() -> None:
    points = JointLaw(np.sort(np.arange(1000) / 2000.0), 3)
    # 50 points of 1000 are 5%: those below .0245 are 49, and that at .0245 is the 50th.
    assert points.threshold(0.05) == 0.0245
    assert points.adjusted(np.array([0.0244]))[0] < 0.05
    assert points.adjusted(np.array([0.0245]))[0] == 0.05
    assert points.threshold(0.0501) == 0.025
    assert JointLaw(np.zeros(1000), 4).threshold(0.05) == 0.0125, "Bonferroni's at least"
    assert JointLaw(np.ones(1000), 4).threshold(0.05) == 0.05


@pytest.mark.parametrize("df", [4.0, np.inf])
@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_the_law_of_one_test_is_its_own_p(
    df: float, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single test needs no correction: the share of smaller p is p, by any number of points."""
    monkeypatch.setattr(joint, "POWER_OF_TWO", 12)
    one = JointLaw.of(np.eye(1), df, [side])  # type: ignore[list-item]
    assert one.comparisons == 1
    assert (np.diff(one.smallest) >= 0).all()
    shares = np.searchsorted(one.smallest, [0.01, 0.05, 0.3, 0.7]) / len(one.smallest)
    assert shares == pytest.approx([0.01, 0.05, 0.3, 0.7], abs=0.006)


def test_tests_that_are_one_and_the_same_need_no_correction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of sides: the same differences upward; upward and downward of one are its two sides."""
    monkeypatch.setattr(joint, "POWER_OF_TWO", 13)
    same = np.ones((2, 2))
    p = np.array([0.01, 0.05, 0.2])
    up = JointLaw.of(same, np.inf, ["greater", "greater"])
    assert up.adjusted(p) == pytest.approx(p, abs=0.003)
    both = JointLaw.of(same, np.inf, ["greater", "less"])
    assert both.adjusted(p) == pytest.approx(2 * p, abs=0.005)
    # Two-sided and upward of one: the smaller p is that of the upward side where z > 0 (half of
    # its two-sided p), else the two-sided one: p / 1 of the upper tail and p / 2 of the lower.
    mixed = JointLaw.of(same, np.inf, ["two-sided", "greater"])
    assert mixed.adjusted(p) == pytest.approx(1.5 * p, abs=0.005)


def test_points_are_worked_on_in_chunks_that_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "POWER_OF_TWO", 8)
    correlation = np.array([[1.0, 0.3], [0.3, 1.0]])
    whole = JointLaw.of(correlation, 7.0, ["two-sided", "less"])
    assert len(whole.smallest) == 256
    monkeypatch.setattr(joint, "CHUNK", 48)  # 5 chunks of 48, and one of 16
    parts = JointLaw.of(correlation, 7.0, ["two-sided", "less"])
    assert (parts.smallest == whole.smallest).all()
    # By hand, from the same points.
    points = stats.qmc.Sobol(3, scramble=True, seed=0).random_base2(8)
    z = stats.norm.ppf(points[:, :2]) @ np.linalg.cholesky(correlation).T
    t = z / np.sqrt(stats.chi2.isf(points[:, 2], 7) / 7)[:, None]
    smallest = np.minimum(2 * stats.t.sf(np.abs(t[:, 0]), 7), stats.t.sf(-t[:, 1], 7))
    assert whole.smallest == pytest.approx(np.sort(smallest))
