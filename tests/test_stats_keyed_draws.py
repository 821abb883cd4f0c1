"""Draws that are keyed by unit, against plain loops over the same draws and against draws of units
one after another.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy.stats import poisson, ttest_ind, ttest_rel

from simulator.report.otherwise import compute_otherwise
from simulator.stats import contrasts, keyed_draws, moments, resampling, verdict
from simulator.stats.choices import Choices
from simulator.stats.keyed_draws import OUTCOMES, POISSON, Drawable, KeyedDraws
from simulator.stats.unit_table import UnitTable
from tests.worlds import TASTE_METRICS, days_by_taste, keyed_bits


def table(split: bool) -> UnitTable:
    return days_by_taste(split=split).by("user")


def test_the_law_of_the_bootstrap_is_poissons() -> None:
    expected = np.round(OUTCOMES * poisson.cdf(np.arange(9), 1.0)).astype(int)
    assert (*POISSON, OUTCOMES) == tuple(expected)
    chances = np.diff([0, *POISSON, OUTCOMES]) / OUTCOMES
    count = np.arange(len(chances))
    mean = (chances * count).sum()
    assert mean == pytest.approx(1.0, abs=2e-5)
    assert (chances * (count - mean) ** 2).sum() == pytest.approx(1.0, abs=1e-4)
    assert (chances * (count - mean) ** 3).sum() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("split", [False, True], ids=["paired", "split"])
def test_sums_under_draws_are_those_of_a_loop(split: bool) -> None:
    own = table(split)
    rows = own.numerators["click"]
    values = list(rows) if rows.ndim == 2 else [rows]
    group = own.assigned if split else np.zeros(own.n_units, dtype=np.int64)
    assert group is not None
    group = np.where(np.arange(own.n_units) % 5 == 0, -1, group)
    draws = KeyedDraws(9, 150, 3, POISSON)
    drawable = Drawable([*values, values[0] ** 2], len(values), group, 2)
    whole, drawn = draws.sums(own, lambda _: drawable)
    counts = (keyed_bits(own.n_units, 150, 9, 3)[:, :, None] >= np.array(POISSON)).sum(axis=2)
    assert drawn.shape == (2, 1 + len(values), 150)
    for g in range(2):
        here = group == g
        assert whole[g].tolist() == [here.sum(), *(v[here].sum() for v in drawable.values)]
        for i, column in enumerate([np.ones(own.n_units), *values]):
            assert (drawn[g, i] == (column[here, None] * counts[here]).sum(axis=0)).all()


@pytest.mark.parametrize("split", [False, True], ids=["paired", "split"])
@pytest.mark.parametrize("metric", TASTE_METRICS)
def test_p_counts_the_assignments_that_are_as_far_out(split: bool, metric: str) -> None:
    own = table(split)
    found = keyed_draws.resampled(own, "a", ["b"], repetitions=200, seed=1)[metric, "b"]
    base, other = contrasts.alike(own, metric, "a", "b")
    if split:
        assert own.assigned is not None
        pooled = np.zeros(own.n_units)
        pooled[own.assigned == 0], pooled[own.assigned == 1] = base, other
        limit = round(OUTCOMES * len(base) / own.n_units)
        is_heads = keyed_bits(own.n_units, 200, 1, 1) >= limit
        observed = ttest_ind(other, base, equal_var=False).statistic
        t = [ttest_ind(pooled[h], pooled[~h], equal_var=False).statistic for h in is_heads.T]
    else:
        is_heads = keyed_bits(own.n_units, 200, 1, 1) >= OUTCOMES // 2
        observed = ttest_rel(other, base).statistic
        flipped = (np.where(h, base - other, other - base) for h in is_heads.T)
        t = [ttest_rel(d, np.zeros(len(d))).statistic for d in flipped]
    far = int((np.abs(t) >= abs(observed) - 1e-9).sum())
    assert 0 < far < 200 or metric != "click_rate"
    assert found.p == (1 + far) / 201


@pytest.mark.parametrize("split", [False, True], ids=["paired", "split"])
@pytest.mark.parametrize("metric", TASTE_METRICS)
def test_intervals_are_those_of_units_drawn_with_replacement(split: bool, metric: str) -> None:
    own = table(split)
    found = keyed_draws.resampled(own, "a", ["b"], repetitions=4000, seed=2, level=0.9)[metric, "b"]
    base, other = contrasts.values(own, metric, "a", "b")
    paired = own.paired
    low, high = resampling.bootstrap(base, other, paired=paired, level=0.9, repetitions=4000)
    assert found.lift == pytest.approx(moments.relative(base.mean(), other.mean()), rel=1e-12)
    # The end of an interval at 90% of 4,000 samples has an error of 2.7% of its half.
    assert found.interval == pytest.approx((low, high), abs=0.06 * (high - low))
    assert found.interval[1] - found.interval[0] == pytest.approx(high - low, rel=0.08)


def test_accelerations_are_those_of_units_left_out() -> None:
    random = np.random.default_rng(5)
    skewed = random.gamma([[4.0], [0.5]], 1.0, (2, 900))
    for split in (False, True):
        own = table(split)
        values = skewed if own.assigned is None else skewed[own.assigned, np.arange(900)]
        own = replace(own, numerators={"click": values}, denominators={})
        base, other = own.sums("click", "a")[0], own.sums("click", "b")[0]
        influence = resampling._jackknife(base, other, own.paired)
        expected = (influence**3).sum() / np.square(influence).sum() ** 1.5
        influences = {("click", "b"): contrasts.UnitInfluence.of([own], "click", "a", "b")[0]}
        slopes = {("click", "b"): other.mean() / base.mean()}
        squares, cubes = keyed_draws._powers(influences, slopes, own)["click", "b"]
        assert cubes / squares**1.5 == pytest.approx(expected, rel=0.02)
        assert expected > 0.005


def test_what_does_not_differ_has_no_p_and_no_interval() -> None:
    own = table(split=False)
    same = {name: np.stack([rows[0], rows[0]]) for name, rows in own.numerators.items()}
    below = {name: np.stack([rows[0], rows[0]]) for name, rows in own.denominators.items()}
    alike = replace(own, numerators=same, denominators=below)
    found = keyed_draws.resampled(alike, "a", ["b"], repetitions=64, seed=0)
    for row in found.values():
        assert np.isnan(row.p)
        assert row.lift == 0.0
        assert np.isnan(row.interval).all()


def test_many_units_are_drawn_by_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    own, choices = table(split=True), Choices(resamples=100, seed=3)
    rows = verdict.lifts(own, "a")
    otherwise = partial(compute_otherwise, own, rows, "a", ("b",), choices)
    few = otherwise()
    monkeypatch.setattr(keyed_draws, "KEYED", own.n_units)
    many = otherwise()
    expected = keyed_draws.resampled(own, "a", ["b"], repetitions=100, seed=3)
    assert [(row.metric, row.method) for row in few] == [(row.metric, row.method) for row in many]
    for one, other in zip(few, many, strict=True):
        if one.method == "permutation":
            assert other.p == expected[one.metric, "b"].p
        elif one.method == "BCa bootstrap":
            assert (other.low, other.high) == expected[one.metric, "b"].interval
            assert one.low != other.low
        else:
            assert one == other
