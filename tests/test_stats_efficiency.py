"""Designs beside one another on a few users: every row by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from simulator.log.metrics import chosen, metric
from simulator.stats import efficiency, moments
from simulator.stats.contrasts import compare
from simulator.stats.efficiency import Preference, Sensitivity
from simulator.stats.power import Pilot, pilot, users_needed
from simulator.stats.randomise import Rate
from simulator.stats.unit_table import TableError, UnitTable
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import noncentrality


def credits(a: list[float], b: list[float]) -> UnitTable:
    return UnitTable("user", ("a", "b"), {"click": metric("click")}, {"click": np.array([a, b])})


def test_preferences_are_counted_by_user() -> None:
    a, b = [1.0, 0, 2, 3, 0, 4], [2.0, 0, 1, 5, 0, 9]
    d = np.subtract(b, a)
    theirs = stats.ttest_1samp(d, 0.0)
    assert efficiency.preference(credits(a, b), "click", "a", "b") == Preference(
        "click", "b", 3, 1, 2, pytest.approx(4 / 6 - 0.5), Rate.of(3, 4),
        stats.binomtest(3, 4).pvalue, pytest.approx(theirs.statistic), 5.0,
        pytest.approx(theirs.pvalue),
    )  # fmt: skip
    turned = efficiency.preference(credits(a, b), "click", "b", "a")
    assert (turned.preferring, turned.against, turned.share) == (1, 3, pytest.approx(2 / 6 - 0.5))
    nobody = efficiency.preference(credits([0.0, 0.0], [0.0, 0.0]), "click", "a", "b")
    assert (nobody.tied, nobody.share) == (2, 0.0)
    assert np.isnan([nobody.p_sign, nobody.wins.value, nobody.p]).all()
    assert np.isnan(efficiency.preference(credits([], []), "click", "a", "b").share)


def test_preferences_need_sums_of_both_arms() -> None:
    both = credits([1.0, 2.0], [2.0, 1.0])
    split = replace(both, numerators={"click": np.ones(2)}, assigned=np.array([0, 1]))
    with pytest.raises(TableError, match="needs both arms in the same slates of the same users"):
        efficiency.preference(split, "click", "a", "b")
    rate = replace(both, denominators={"click": np.ones((2, 2))})
    with pytest.raises(TableError, match="credits sums; 'click' is a ratio"):
        efficiency.preference(rate, "click", "a", "b")


def days_of(cube: np.ndarray, past: bool = False) -> UserDays:
    metrics = {m.name: m for m in chosen(("click", "click_rate"))}
    terms = {"click": cube, "impressions": 2 * cube + 1}
    before = {"click": cube[0].sum(axis=1) ** 1.1} if past else {}
    return UserDays(("a", "b"), cube.shape[1], cube.shape[2], metrics, terms, before)


def cube(n_days: int, lift: float = 1.3) -> np.ndarray:
    random = np.random.default_rng(8)
    own = random.gamma(3.0, 2.0, (1, 30, 1))
    return own + random.gamma(2.0, 1.0, (2, 30, n_days)) * np.array([1.0, lift])[:, None, None]


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_each_design_is_told_by_its_own_error(level: float) -> None:
    days = days_of(cube(5), past=True)
    table = days.by("user")
    p = pilot(table, "click", "a", "b")
    effect = float(compare(table, "click", "a", "b").lift)
    rows = efficiency.sensitivity(days, "click", "a", "b", level=level)
    assert [row.design for row in rows] == ["paired", "split", "cuped", "switchback"]
    for row in rows[:-1]:
        assert row == Sensitivity(
            "click", "b", row.design, effect, p.relative_error(row.design, 30),
            users_needed(p, effect, row.design, level=level), "",
        )  # fmt: skip
    c, t = days.terms["click"]
    own, lifts = [], []
    for treated in combinations(range(5), 2):
        mask = np.isin(np.arange(5), treated)
        m = moments.paired(c[:, ~mask].mean(axis=1), t[:, mask].mean(axis=1))
        own.append(m.variance / m.control**2)
        lifts.append(m.lift)
    by_users, by_days = np.mean(own), max(np.var(lifts) - np.mean(own), 0.0)
    room = (effect / noncentrality(3.0, level=level)) ** 2 - by_days
    need = by_users * 30 / room if room > 0 else np.inf
    last = rows[-1]
    assert (last.effect, last.relative_error, last.users_needed) == pytest.approx(
        (effect, np.sqrt(by_users + by_days), need)
    )
    assert last.note == "5 days; at best, without carry-over" + (
        "" if room > 0 else "; days differ too much for any number of users"
    )
    if level == 0.95:
        assert rows == efficiency.sensitivity(days, "click", "a", "b")


def test_a_switchback_needs_days_events_and_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    one = efficiency.sensitivity(days_of(cube(1)), "click", "a", "b")
    assert [row.design for row in one] == ["paired", "split"]
    rate = efficiency.sensitivity(days_of(cube(4)), "click_rate", "a", "b")
    assert [row.design for row in rate] == ["paired", "split"]
    two = efficiency.sensitivity(days_of(cube(2)), "click", "a", "b")[-1]
    assert two.note.startswith("2 days")
    days = days_of(cube(4))
    nothing = efficiency._switchback(days_of(np.zeros((2, 30, 4))), "click", "a", "b", 0.1, 0.95)
    assert (nothing.design, nothing.users_needed, nothing.note) == (
        "switchback", np.inf, "no day has any event"
    )  # fmt: skip
    assert np.isnan(nothing.relative_error)
    # More users than MOST are no number.
    need = efficiency._switchback(days, "click", "a", "b", 0.5, 0.95).users_needed
    for most, shown in ((need, need), (need * 0.999, np.inf)):
        monkeypatch.setattr(efficiency, "MOST", most)
        assert efficiency._switchback(days, "click", "a", "b", 0.5, 0.95).users_needed == shown
    split = replace(days, assigned=np.arange(30) % 2)
    for bad in (split, replace(days, switched=np.array([0, 1, 0, 1]))):
        with pytest.raises(TableError, match="designs are compared on a paired log"):
            efficiency.sensitivity(bad, "click", "a", "b")


def test_no_effect_needs_users_without_end() -> None:
    alike = cube(3)
    alike[1] = alike[0]
    rows = efficiency.sensitivity(days_of(alike), "click", "a", "b")
    assert {row.users_needed for row in rows if row.design != "switchback"} == {np.inf}


def test_days_are_assigned_in_equal_numbers_spread_over_all_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [mask.tolist() for mask in efficiency._assignments(5)]
    assert found == [np.isin(np.arange(5), one).tolist() for one in combinations(range(5), 2)]
    monkeypatch.setattr(efficiency, "MOST_SWITCHES", 3)
    some = [mask.tolist() for mask in efficiency._assignments(5)]
    assert some == found[::3]
    assert len(list(efficiency._assignments(3))) == 3


def test_an_interleaved_log_is_told_by_its_differences_of_credits() -> None:
    days = days_of(cube(1))
    a, b = days.by("user").numerators["click"]
    middle = (a.mean() + b.mean()) / 2
    error = (b - a).std(ddof=1) / np.sqrt(30) / middle
    effect = (b - a).mean() / middle
    alone = Pilot("click", 1.0, 1.0, error * np.sqrt(30), None, 30)
    for level in (0.95, 0.8):
        found = efficiency.interleaved_sensitivity(days, "click", "a", "b", level)
        assert (found.effect, found.relative_error) == pytest.approx((effect, error))
        assert found.users_needed == users_needed(alone, effect, "paired", level=level)
        assert (found.design, found.metric, found.arm) == ("interleave", "click", "b")
        assert found.note == "a preference within one slate, not the lift of a whole feed"
    assert efficiency.interleaved_sensitivity(days, "click", "a", "b").users_needed == (
        users_needed(alone, effect, "paired")
    )
    same = np.stack([cube(1)[0]] * 2)
    alike = efficiency.interleaved_sensitivity(days_of(same), "click", "a", "b")
    assert (alike.effect, alike.relative_error, alike.users_needed) == (0.0, 0.0, np.inf)
    both = efficiency.sensitivity(days_of(cube(3)), "click", "a", "b", days, level=0.8)
    assert both[-1] == efficiency.interleaved_sensitivity(days, "click", "a", "b", 0.8)
