"""Designs: a switchback read by hand, preference tests on drafted slates, and which design needs
how many users.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.stats import efficiency as designs
from simulator.stats import moments, units, verdict
from simulator.stats.unit_table import TableError
from simulator.stats.user_days import UserDays
from tests.worlds import interleaved_log, paired_log, switchback_log


def test_a_switchback_by_hand() -> None:
    plays = np.array([[2, 4, 1, 0], [1, 3, 0, 5], [0, 0, 2, 1]])
    days = units.read(switchback_log([0, 1, 1, 0], plays), ("watch_time", "click_rate", "return"))
    assert days.switched is not None
    assert days.switched.tolist() == [0, 1, 1, 0]
    by_user = days.by("user")
    assert by_user.numerators["watch_time"].tolist() == [[1.0, 3.0, 0.5], [2.5, 1.5, 1.0]]
    assert by_user.denominators["click_rate"].tolist() == [[2, 6, 1], [5, 3, 2]]
    assert by_user.numerators["return"].tolist() == [[1, 1, 0], [1, 0, 1]]
    by_day = days.by("day")
    assert by_day.assigned is not None
    assert by_day.assigned.tolist() == [0, 1, 1, 0]
    assert by_day.numerators["watch_time"] == pytest.approx(np.array([3, 7, 3, 6]) / 3)
    frame = by_day.frame()
    assert frame[["arm", "unit"]].to_numpy().tolist() == [["a", 0], ["a", 3], ["b", 1], ["b", 2]]
    assert frame["watch_time"].to_numpy() == pytest.approx(np.array([3, 6, 7, 3]) / 3)
    row = verdict.lifts(by_day, "a", metrics=["watch_time"])[0]
    theirs = stats.ttest_ind([7, 3], [3, 6], equal_var=False)
    assert (row.p, row.n_units) == (pytest.approx(theirs.pvalue), 4)


def test_a_day_of_two_arms_is_no_switchback() -> None:
    log = paired_log(n_users=30, days=2)
    meta = Metadata(log.metadata.arms, 30, 1, days=2, scenario={"design": {"kind": "switchback"}})
    with pytest.raises(TableError, match="more than one arm"):
        units.read(EventLog(meta, log.table), ("click",))


def test_preference_is_the_sign_and_the_t_test() -> None:
    table = units.read(interleaved_log(150, 0.5), ("click",)).by("user")
    found = designs.preference(table, "click", "a", "b")
    d = table.numerators["click"][1] - table.numerators["click"][0]
    assert (found.preferring, found.against, found.tied) == tuple(
        int((np.sign(d) == s).sum()) for s in (1, -1, 0)
    )
    assert found.p_sign == pytest.approx(
        stats.binomtest(found.preferring, found.preferring + found.against).pvalue
    )
    assert found.p == pytest.approx(stats.ttest_1samp(d, 0).pvalue)
    assert found.share > 0
    assert found.p < 0.05


def test_a_visit_belongs_to_neither_of_two_interleaved_arms() -> None:
    days = units.read(
        interleaved_log(20, 0.5), ("click", "sessions", "requests", "return", "click_rate")
    )
    assert days.missing == ("sessions", "requests", "return")


def test_no_preference_between_alike_policies() -> None:
    p = [
        designs.preference(
            units.read(interleaved_log(40, 0.0, seed), ("click",)).by("user"), "click", "a", "b"
        ).p
        for seed in range(60)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_preference_needs_both_arms_in_one_slate() -> None:
    table = units.read(interleaved_log(20, 0.0), ("click", "click_rate")).by("user")
    with pytest.raises(TableError, match="ratio"):
        designs.preference(table, "click_rate", "a", "b")


def test_sensitivity_of_designs() -> None:
    days = units.read(paired_log(), ("click", "click_rate"))
    found = {
        s.design: s
        for s in designs.sensitivity(
            days, "click", "a", "b", units.read(interleaved_log(150, 0.5), ("click",))
        )
    }
    assert set(found) == {"paired", "split", "cuped", "switchback", "interleave"}
    assert found["paired"].users_needed < found["cuped"].users_needed < found["split"].users_needed
    row = verdict.lift(days.by("user"), "click", "a", "b")
    assert found["paired"].effect == pytest.approx(row.lift)
    assert found["interleave"].users_needed < 150
    assert "click_rate" in days.metrics
    assert "switchback" not in {s.design for s in designs.sensitivity(days, "click_rate", "a", "b")}


def test_switchback_error_is_that_of_repeated_switchbacks() -> None:
    """Fresh users each time, days alike: the predicted relative error against the spread of 400
    estimates.
    """
    rng = np.random.default_rng(5)

    def world(n: int) -> np.ndarray:
        return rng.gamma(2, 5, (n, 1)) * rng.gamma(4, 0.25, (2, n, 6))

    metrics = {m.name: m for m in units.chosen(["click"])}
    days = UserDays(
        ("a", "b"), 500, 6, metrics, {"click": world(500) * np.array([1, 1.05])[:, None, None]}, {}
    )
    predicted = {s.design: s for s in designs.sensitivity(days, "click", "a", "b")}[
        "switchback"
    ].relative_error
    estimates = []
    for _ in range(400):
        cube = world(500)
        treated = rng.permutation(6) < 3
        m = moments.paired(cube[0][:, ~treated].mean(axis=1), cube[1][:, treated].mean(axis=1))
        estimates.append(m.treatment / m.control - 1)
    assert predicted == pytest.approx(np.std(estimates), rel=0.25)


def switchback_of(cube: np.ndarray) -> designs.Sensitivity:
    """What is said of a switchback on clicks `[arms, users, days]`."""
    metrics = {m.name: m for m in units.chosen(["click"])}
    days = UserDays(("a", "b"), cube.shape[1], cube.shape[2], metrics, {"click": cube}, {})
    return next(s for s in designs.sensitivity(days, "click", "a", "b") if s.design == "switchback")


def test_users_whose_days_differ_by_chance_add_their_own_variance_and_no_other() -> None:
    """Every user-day is drawn alone, with mean 10 and variance 25: then a mean of three days of one
    arm by a mean of the three others varies by 25/3 (1 + 1) / (10^2 n), and all of it falls with
    the number of users.
    """
    n = 200
    said = [
        switchback_of(np.random.default_rng(seed).gamma(4, 2.5, (2, n, 6))) for seed in range(30)
    ]
    variance = np.mean([s.relative_error**2 for s in said])
    assert variance == pytest.approx(25 / 3 * 2 / 100 / n, rel=0.12)


def test_users_of_a_switchback_are_those_that_leave_room_for_its_days() -> None:
    """Seven days, of which three are treated, in each of the 35 ways: what falls with users, beside
    what does not, against Student's law of days - 2.
    """
    rng = np.random.default_rng(7)
    cube = rng.gamma(4, 2.5, (2, 300, 7)) * np.linspace(0.99, 1.01, 7)
    cube[1] *= 1.2
    own, lifts = [], []
    for treated in itertools.combinations(range(7), 3):
        m = moments.paired(
            np.delete(cube[0], treated, axis=1).mean(axis=1), cube[1][:, treated].mean(axis=1)
        )
        own.append(m.variance / m.control**2)
        lifts.append(m.lift)
    by_users = np.mean(own)
    by_days = max(np.var(lifts) - by_users, 0.0)
    said = switchback_of(cube)
    assert said.relative_error == pytest.approx(np.sqrt(by_users + by_days))
    room = (said.effect / verdict.noncentrality(5.0)) ** 2 - by_days
    assert said.users_needed == pytest.approx(np.ceil(by_users * 300 / room), abs=1)
    assert said.note == "7 days; at best, without carry-over"


def test_users_of_an_interleaved_test_are_those_of_a_paired_one() -> None:
    """Credits of both arms: their difference by their mean, with its own standard error."""
    days = units.read(interleaved_log(150, 0.5), ("click",))
    a, b = days.by("user").numerators["click"].astype(float)
    middle = (a.mean() + b.mean()) / 2
    error = (b - a).std(ddof=1) / np.sqrt(len(a)) / middle
    said = designs.interleaved_sensitivity(days, "click", "a", "b")
    assert said.effect == pytest.approx((b.mean() - a.mean()) / middle)
    assert said.relative_error == pytest.approx(error)
    n = said.users_needed
    spread = error * np.sqrt(len(a))
    for users, is_enough in ((n, True), (n - 1, False)):
        shown = verdict.noncentrality(users - 1) * spread / np.sqrt(users)
        assert (shown <= said.effect) == is_enough


def test_days_that_differ_for_everybody_are_what_no_number_of_users_helps_against() -> None:
    """Users are all alike, days are not: the error is the spread of the estimates over all 20 ways
    to give three of six days to an arm.
    """
    of_day = np.array([8.0, 12, 9, 14, 7, 10])
    cube = np.stack([np.tile(of_day, (50, 1)), np.tile(of_day * 1.01, (50, 1))])
    cube += np.linspace(-0.1, 0.1, 50)[:, None]
    ways = [list(way) for way in itertools.combinations(range(6), 3)]
    others = [[day for day in range(6) if day not in way] for way in ways]
    estimates = [
        cube[1][:, way].mean() / cube[0][:, other].mean()
        for way, other in zip(ways, others, strict=True)
    ]
    said = switchback_of(cube)
    assert said.relative_error == pytest.approx(np.std(estimates), rel=1e-3)
    assert said.users_needed == np.inf
    assert "days differ too much for any number of users" in said.note


def test_no_credit_in_either_arm_is_no_effect_and_no_number_of_users() -> None:
    """Found by the fuzz of scenarios: nothing by nothing was a warning of numpy."""
    days = units.read(interleaved_log(20, 0.5), ("like", "follow", "click"))
    nobody = dataclasses.replace(
        days, terms={name: np.zeros_like(cube) for name, cube in days.terms.items()}
    )
    found = designs.interleaved_sensitivity(nobody, "click", "a", "b")
    assert np.isnan(found.effect)
    assert np.isinf(found.users_needed)
