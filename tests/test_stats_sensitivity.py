"""Shares of parameters on a handful of worlds: every figure of a row by hand or by statsmodels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.optimize import brentq

from simulator.stats.sensitivity import FEWEST, Influence, influences, ranked

K = 14
LIFTS = np.array(
    [-0.9, 0.4, 0.1, 0.7, -0.2, 1.1, 0.9, -0.6, 0.3, 1.4, 0.2, -0.1, 0.8, 0.5], dtype=float
)
VALUES = np.array([1.0, 6.0, 4.0, 8.0, 3.0, 9.0, 7.0, 2.0, 4.0, 12.0, 5.0, 3.0, 8.0, 6.5])
WEIGHTS = np.array([1.0, 2, 1, 3, 1, 1, 2, 2, 1, 1, 3, 1, 2, 1])


def noncentral(f: float, share: float) -> float:
    """x / (x + k) of the noncentral F(2, k - 3) that has this share of its mass below f."""
    if stats.f.cdf(f, 2, K - 3) < share:
        return 0.0
    x = brentq(lambda nc: stats.ncf.cdf(f, 2, K - 3, nc) - share, 1e-9, 1e4)
    return x / (x + K)


def test_a_row_is_the_weighted_regression_on_ranks_with_a_bend() -> None:
    (row,) = influences("click", "new", {"a.b": VALUES}, LIFTS, WEIGHTS)
    x = 2 * (stats.rankdata(VALUES) - 0.5) / K - 1
    design = np.stack([np.ones(K), x, x**2], axis=1)
    fit = sm.WLS(LIFTS, design, weights=WEIGHTS).fit()
    tenths = 2 * np.linspace(0.1, 0.9, 81) - 1
    line = fit.params @ np.stack([np.ones(81), tenths, tenths**2])
    grid = np.quantile(VALUES, np.linspace(0.1, 0.9, 81))
    assert line[0] < 0 < line[-1]
    expected = Influence(
        "click",
        "new",
        "a.b",
        fit.rsquared_adj,
        noncentral(fit.fvalue, 0.975),
        noncentral(fit.fvalue, 0.025),
        fit.f_pvalue,
        fit.f_pvalue,
        line[0],
        line[-1],
        grid[0],
        grid[-1],
        grid[np.flatnonzero(line < 0)[-1]],
    )
    names = (row.metric, row.arm, row.parameter)
    assert names == (expected.metric, expected.arm, expected.parameter)
    for name in Influence.__slots__[3:]:
        # scipy inverts the noncentral law to three digits.
        close = 1e-3 if name in ("low", "high") else 1e-6
        assert getattr(row, name) == pytest.approx(getattr(expected, name), rel=close), name
    # Weights count in proportion.
    assert influences("click", "new", {"a.b": VALUES}, LIFTS, 7 * WEIGHTS)[0].share == (
        pytest.approx(row.share)
    )


def test_what_explains_nothing_has_a_share_of_0_and_no_flip() -> None:
    # The lifts go up and down along the parameter, around 1.
    lifts = 1 + 0.5 * (-1.0) ** np.arange(K)
    (row,) = influences("click", "new", {"a": np.arange(K) * 1.0}, lifts, np.ones(K))
    assert (row.share, row.low) == (0.0, 0.0)
    assert row.p > 0.5
    assert math.isnan(row.flip)
    assert not row.is_shown


def test_lifts_that_are_all_alike_are_explained_by_nothing() -> None:
    (row,) = influences("click", "new", {"a": np.arange(K) * 1.0}, np.zeros(K), np.ones(K))
    assert (row.share, row.p) == (0.0, 1.0)


def test_lifts_that_are_a_parabola_are_explained_whole() -> None:
    rank = 2 * (np.arange(K) + 0.5) / K - 1
    (row,) = influences("click", "new", {"a": np.arange(K) * 1.0}, rank**2 - 0.1, np.ones(K))
    assert row.share == pytest.approx(1.0)
    assert row.p < 1e-12
    assert row.at_low == pytest.approx(0.64 - 0.1)
    assert row.at_high == pytest.approx(0.54)
    # It falls below 0 first where the rank is (1 - sqrt(.1)) / 2 = .342.
    assert row.flip == pytest.approx((K - 1) * 0.34, abs=0.3)


def test_twelve_worlds_and_three_values_are_enough() -> None:
    values = np.tile([1.0, 2.0, 3.0], 4)
    lifts = np.array([0.0, 1.0, 2.5, 0.2, 1.1, 2.4, -0.1, 0.9, 2.6, 0.0, 1.2, 2.5])
    assert FEWEST == 12
    assert len(influences("m", "a", {"x": values}, lifts, np.ones(12))) == 1
    assert influences("m", "a", {"x": values[:11]}, lifts[:11], np.ones(11)) == []
    assert influences("m", "a", {"x": np.minimum(values, 2.0)}, lifts, np.ones(12)) == []


def test_rows_stand_by_their_shares_then_by_p() -> None:
    parameters = {"weak": VALUES[::-1].copy(), "strong": VALUES, "none": np.arange(K) % 3 * 1.0}
    rows = influences("click", "new", parameters, LIFTS, WEIGHTS)
    assert rows[0].parameter == "strong"
    assert [(-row.share, row.p) for row in rows] == sorted((-row.share, row.p) for row in rows)
    adjusted = ranked(rows)
    by_p = sorted(row.p for row in rows)
    assert adjusted[0].p_adjusted == pytest.approx(3 * by_p[0])
    assert [row.p for row in adjusted] == [row.p for row in rows]


def test_what_is_shown_flips_where_the_lift_changes_its_sign() -> None:
    nan = math.nan
    row = Influence("m", "a", "x", 0.5, 0.1, 0.8, 0.01, 0.049, -1.0, 1.0, 0.0, 9.0, 4.0)
    assert row.is_shown
    assert row.flips
    assert not replace(row, flip=nan).flips
    at_the_limit = replace(row, p_adjusted=0.05)
    assert not at_the_limit.is_shown
    assert not at_the_limit.flips
