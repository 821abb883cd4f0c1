"""Lifts taken together, by hand and by other packages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from simulator.stats.pooling import FixedEffect, Pooled, fixed_effect, pool_lifts, pooled
from simulator.stats.verdict import Lift


def test_a_fixed_effect_is_that_of_the_meta_analysis() -> None:
    effects, variances = np.array([0.1, 0.4, -0.2, 0.3]), np.array([0.01, 0.04, 0.02, 0.09])
    theirs = combine_effects(effects, variances)
    assert fixed_effect(effects, variances) == FixedEffect(
        pytest.approx(theirs.mean_effect_fe),
        pytest.approx(theirs.sd_eff_w_fe),
        pytest.approx(theirs.q),
        3,
        pytest.approx(stats.chi2.sf(theirs.q, 3)),
    )


def test_two_worlds_by_hand() -> None:
    """Lifts 1 and 3 (variance 2, with 1 + 1/2: 3), errors 1 and 2 (mean variance 2.5)."""
    df = (1 + 2.5 / 3) ** 2
    reach = stats.t.ppf(0.975, df) * np.sqrt(5.5)
    expected = Pooled(2.0, 2 - reach, 2 + reach, np.sqrt(2.5), np.sqrt(2.0), df)
    found = pooled([1.0, 3.0], [1.0, 2.0])
    assert vars(found) == pytest.approx(vars(expected))
    with pytest.raises(ValueError, match="at least two worlds; got 1"):
        pooled([1.0], [1.0])


def test_worlds_that_agree_have_the_normal_interval() -> None:
    found = pooled([0.5, 0.5, 0.5], [0.1, 0.1, 0.1])
    half = 1.959963984540054 * 0.1
    assert vars(found) == pytest.approx(vars(Pooled(0.5, 0.5 - half, 0.5 + half, 0.1, 0.0, np.inf)))


def row(arm: str, lift: float) -> Lift:
    """A row with an error of 1 and 10 degrees of freedom."""
    half, nan = float(stats.t.ppf(0.975, 10)), np.nan
    ends = lift - half, lift + half
    return Lift("click", arm, "user", 1.0, 1 + lift, lift, *ends, nan, 10.0, nan, nan, 100, nan)


def test_rows_are_pooled_by_arm_and_metric_with_the_errors_of_their_intervals() -> None:
    worlds = [[row("a", 1.0), row("b", 5.0)], [row("a", 3.0), row("b", 9.0)]]
    found = pool_lifts(worlds)
    assert list(found) == [("a", "click"), ("b", "click")]
    for key, lifts in ((("a", "click"), [1.0, 3.0]), (("b", "click"), [5.0, 9.0])):
        assert vars(found[key]) == pytest.approx(vars(pooled(lifts, [1.0, 1.0])))


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": "day"},
        {"low": -np.inf},
        {"high": np.inf},
        {"df": np.nan},
        {"lift": np.nan},
        {"low": 3.0, "high": 3.0},
    ],
)
def test_a_row_that_says_nothing_leaves_its_comparison_out(changes: dict[str, object]) -> None:
    # The rows behind it still count.
    odd = [replace(row("a", 3.0), **changes), row("b", 4.0)]  # type: ignore[arg-type]
    sound = [row("a", 1.0), row("b", 2.0)]
    for worlds in ([sound, odd], [odd, sound]):
        assert list(pool_lifts(worlds)) == [("b", "click")]
