"""Tests of no difference and their corrections, on p values and moments given by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from simulator.stats import intervals, tests
from simulator.stats.moments import Moments, split
from simulator.stats.tests import (
    LEAST,
    adjust,
    level_of_one,
    rank_sum,
    t_test,
    thresholds,
    wilcoxon,
)
from simulator.stats.unit_table import TableError

WELL = Moments(10.0, 12.0, 0.25, 0.36, 0.1, 20.0, 50, 50, True)
FLAGS = split(np.array([0.0, 0, 0, 1, 0, 1, 0]), np.array([1.0, 1, 0, 1, 1, 1]))


def test_t_is_the_difference_over_its_error_and_p_of_the_side_that_is_asked() -> None:
    t = 2 / np.sqrt(0.25 + 0.36 - 0.2)
    for side, p in (
        ("two-sided", 2 * stats.t.sf(t, 20)),
        ("greater", stats.t.sf(t, 20)),
        ("less", stats.t.cdf(t, 20)),
    ):
        assert t_test(WELL, side) == pytest.approx((t, 20.0, p))  # type: ignore[arg-type]
    turned = replace(WELL, treatment=8.0)
    assert t_test(turned).p == t_test(WELL).p == t_test(WELL, "two-sided").p
    assert t_test(turned, "less").p == pytest.approx(stats.t.sf(t, 20))


def test_without_variance_there_is_no_test_and_no_p_is_0() -> None:
    still = replace(WELL, var_control=0.1, var_treatment=0.1, cov=0.1)
    assert np.isnan(t_test(still)).all()
    far = replace(WELL, treatment=1e9, df=np.inf)
    for side in ("two-sided", "greater"):
        assert t_test(far, side).p == LEAST == 5e-324  # type: ignore[arg-type]
    assert t_test(far, "less").p == 1.0
    assert t_test(replace(far, treatment=-1e9), "less").p == LEAST


def test_the_score_test_of_proportions_is_normal_at_newcombes_z() -> None:
    z = float(intervals.newcombe_z(FLAGS))
    assert z > 1
    for side, p in (
        ("two-sided", 2 * stats.norm.sf(z)),
        ("greater", stats.norm.sf(z)),
        ("less", stats.norm.cdf(z)),
    ):
        assert tests.score_test(FLAGS, side) == pytest.approx((z, np.inf, p))  # type: ignore[arg-type]
        assert tests.fitting(FLAGS, "newcombe", side) == tests.score_test(FLAGS, side)  # type: ignore[arg-type]
        assert tests.fitting(FLAGS, "fieller", side) == t_test(FLAGS, side)  # type: ignore[arg-type]
        assert tests.fitting(WELL, "newcombe", side) == t_test(WELL, side)  # type: ignore[arg-type]
    assert tests.fitting(WELL, "newcombe") == t_test(WELL)
    assert tests.score_test(FLAGS) == tests.score_test(FLAGS, "two-sided")
    still = split(np.zeros(4), np.zeros(4))
    assert np.isnan(tests.score_test(still)).all()


def test_ranks_are_scipys_exact_up_to_50_pairs_without_zeros() -> None:
    random = np.random.default_rng(3)
    for n, zero, method in ((50, False, "exact"), (51, False, "approx"), (20, True, "approx")):
        c, t = random.normal(size=n), random.normal(0.3, 1.0, n)
        if zero:
            t[0] = c[0]
        theirs = stats.wilcoxon(t - c, zero_method="pratt", method=method)
        found = wilcoxon(c, t)
        assert found.statistic == theirs.statistic
        assert found.p == pytest.approx(theirs.pvalue, rel=1e-12)
        assert np.isnan(found.df)
    assert np.isnan(wilcoxon(np.ones(3), np.ones(3))).all()
    many = np.arange(1.0, 20_001.0)
    assert wilcoxon(np.zeros(20_000), many).p == LEAST


def test_rank_sums_are_of_the_treatment_and_need_values_that_differ() -> None:
    c, t = np.array([1.0, 4.0, 2.0]), np.array([3.0, 9.0, 1.5, 7.0])
    theirs = stats.mannwhitneyu(t, c, alternative="two-sided")
    found = rank_sum(c, t)
    assert (found.statistic, found.p) == (theirs.statistic, theirs.pvalue)
    assert np.isnan(found.df)
    for none in ((c[:0], t), (c, t[:0]), (np.ones(3), np.ones(2))):
        assert np.isnan(rank_sum(*none)).all()
    assert rank_sum(np.zeros(20_000), np.ones(20_000)).p == LEAST
    assert not np.isnan(rank_sum(np.ones(1), np.zeros(1)).p)


P = [0.011, 0.02, 0.02, 0.9, 0.004, 0.5]
NAMES = {
    "holm": "holm",
    "bonferroni": "bonferroni",
    "hochberg": "simes-hochberg",
    "bh": "fdr_bh",
}


@pytest.mark.parametrize("method", NAMES)
def test_corrections_do_not_count_what_is_missing(method: str) -> None:
    p = np.array([*P[:3], np.nan, *P[3:]])
    found = adjust(p, method)  # type: ignore[arg-type]
    expected = multipletests(P, method=NAMES[method])[1]
    assert found[~np.isnan(p)] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(found[3])
    nothing = adjust(np.array([np.nan, np.nan]), method)  # type: ignore[arg-type]
    assert np.isnan(nothing).all()
    assert adjust(np.array([]), method).tolist() == []  # type: ignore[arg-type]


def test_none_leaves_p_as_it_is_and_holm_is_the_default() -> None:
    p = np.array(P)
    assert adjust(p, "none").tolist() == P
    assert adjust(p).tolist() == adjust(p, "holm").tolist()
    assert thresholds(p).tolist() == thresholds(p, "holm", 0.05).tolist()
    assert thresholds(p, "none").tolist() == [0.05] * 6
    assert thresholds(p, "none", 0.1).tolist() == [0.1] * 6
    assert level_of_one(4, "holm") == 0.0125
    assert level_of_one(4, "none", 0.1) == 0.1
    assert [level_of_one(k, "bonferroni", 0.1) for k in (0, 1, 2)] == [0.1, 0.1, 0.05]


def test_dunnett_without_a_law_is_refused_and_without_tests_needs_none() -> None:
    message = (
        "dunnett: how the comparisons go together is not known here, which needs their units;"
        " correct by holm"
    )
    for of in (adjust, thresholds):
        with pytest.raises(TableError) as refusal:
            of(np.array(P), "dunnett")
        assert str(refusal.value) == message
        assert np.isnan(of(np.array([np.nan]), "dunnett")).all()


@pytest.mark.parametrize("method", ["holm", "bonferroni", "hochberg", "bh"])
@pytest.mark.parametrize("values", [P, [0.01] * 4, [0.9, 0.001, 0.03], [0.04], [0.0125, 0.0125, 1]])
def test_a_threshold_is_where_the_verdict_of_one_test_turns(
    method: str, values: list[float]
) -> None:
    """By search: each p is put below and above its threshold, the others stay."""
    for order in set(permutations(values)) if len(values) < 4 else {tuple(values)}:
        p = np.array(order)
        found = thresholds(p, method, 0.05)  # type: ignore[arg-type]
        for place, limit in enumerate(found):
            assert 0 < limit < 0.05 + 1e-12
            for factor, is_shown in ((1 - 1e-9, True), (1 + 1e-9, False)):
                moved = p.copy()
                moved[place] = limit * factor
                assert (adjust(moved, method)[place] < 0.05) is np.bool_(is_shown)  # type: ignore[arg-type]


def test_thresholds_leave_what_is_missing_out() -> None:
    p = np.array([np.nan, 0.01, 0.2])
    for method in ("holm", "bonferroni", "hochberg", "bh"):
        found = thresholds(p, method)  # type: ignore[arg-type]
        assert np.isnan(found[0])
        assert found[1:].tolist() == thresholds(p[1:], method).tolist()  # type: ignore[arg-type]
    assert np.isnan(thresholds(np.array([np.nan]))).all()
