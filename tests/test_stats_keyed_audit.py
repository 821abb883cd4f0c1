"""Samples of all users, summed up by stretches, against the same samples written out."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.stats import poisson

from simulator.stats import audit, keyed_audit, randomise, units
from simulator.stats.keyed_audit import HALF, LANES
from simulator.stats.keyed_draws import OUTCOMES
from tests.worlds import TASTE_METRICS, days_by_taste, keyed_bits, paired_log


def test_heads_and_tails_are_poissons_of_a_half() -> None:
    expected = np.round(OUTCOMES * poisson.cdf(np.arange(7), 0.5)).astype(int)
    assert (*HALF, OUTCOMES) == tuple(expected)
    chances = np.diff([0, *HALF, OUTCOMES]) / OUTCOMES
    count = np.arange(len(chances))
    assert (chances * count).sum() == pytest.approx(0.5, abs=2e-5)
    assert (chances * (count - 0.5) ** 2).sum() == pytest.approx(0.5, abs=1e-4)


HOW = {
    "twins": randomise.paired_pair,
    "halves": randomise.split_pair,
    "adjusted": partial(randomise.split_pair, adjusted=True),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("metric", TASTE_METRICS)
def test_moments_are_those_of_the_users_drawn(how: keyed_audit.How, metric: str) -> None:
    days = days_by_taste(split=False)
    o = randomise.outcomes(days, "a", "b", metric)
    heads, tails = (
        (keyed_bits(days.n_users, 70, 5, lane)[:, :, None] >= np.array(HALF)).sum(axis=2).T
        for lane in LANES.values()
    )
    expected = HOW[how](o, heads.astype(float), tails.astype(float))
    found = {
        one.metric: one
        for one in keyed_audit.rerandomised(
            days.by("user"), "a", ["b"], TASTE_METRICS, repetitions=70, seed=5
        )
    }[metric]
    assert found.lift == pytest.approx(o.lift, rel=1e-12)
    assert found.events == (o.control[0] != 0).mean()
    assert found.has_past == (o.before is not None)
    if how == "adjusted" and o.before is None:
        how = "halves"
    for own, other in zip(found.pair(how), expected, strict=True):
        assert own.paired == other.paired
        for name in ("control", "treatment", "var_control", "var_treatment", "cov", "df"):
            np.testing.assert_allclose(getattr(own, name), getattr(other, name), 1e-9)


def test_a_big_run_is_audited_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal arms differ and intervals hold as often as they say, also at the size of the run; rows
    of samples from some users are as they were.
    """
    days = units.read(paired_log(n_users=1500), ("watch_time", "click", "click_rate"))
    asked = partial(audit.audit, days, "a", repetitions=100, sizes=(50,), decision_repetitions=20)
    few = asked(of_all=2000)
    assert {row.n for row in few.rows} == {50}
    monkeypatch.setattr(audit, "KEYED", days.n_users)
    many = asked(of_all=2000)
    assert repr(few.rows) == repr(many.rows[: len(few.rows)])
    added = many.rows[len(few.rows) :]
    assert {row.n for row in added} == {days.n_users}
    assert {row.repetitions for row in added} == {2000}
    assert {row.analysis for row in added} == {
        one.name for one in audit.ANALYSES if one.sums is not None
    }
    assert {row.metric for row in added} == set(days.metrics)
    assert all(row.holds for row in added)
    assert all(row.power.value > 0.9 for row in added if row.analysis == "paired t, Fieller")
    assert repr(asked(of_all=0).rows) == repr(few.rows)
    welch = asked(of_all=100, analyses=("Welch t",))
    assert [row.analysis for row in welch.rows] == ["Welch t, Fieller"] * 6
