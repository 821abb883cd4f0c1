"""Offline figures held to online lifts: every number of an agreement by scipy and by the same
draws, ties, races, and the truth of a small log.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, astuple, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy import fidelity
from simulator.offpolicy.agreement import (
    FigurePoint,
    _order,
    _spearman,
    agreement,
    for_new_policies,
)
from simulator.offpolicy.diagnostics import EstimateVerdict, Weights
from simulator.offpolicy.estimators import Gain, HitRate
from simulator.offpolicy.evidence import ReplayFacts
from simulator.offpolicy.fidelity import (
    YARDSTICKS,
    Offline,
    _covers,
    agreements,
    settings,
    widened,
)
from simulator.offpolicy.offline_figure import Figure, TieBroken, figures_of, reading
from simulator.offpolicy.online import Online, OnlinePolicy, best_of, lost_by, online, race_from
from simulator.offpolicy.replay import Estimate, Evaluation
from simulator.offpolicy.scores import Ordering
from simulator.offpolicy.settings import ESTIMATORS, ReplayError
from simulator.offpolicy.uncertainty import EstimateInterval, FirstOrder, Ratios, bootstrap
from simulator.scenario.model import Scenario
from simulator.stats.winners import Race, corrected, winner
from tests.worlds import tiny_scenario


def truth(*lift: float, noise: float = 0.05) -> Online:
    """Policies a, b, c, ... over a, with independent noise."""
    lifts, n = np.array(lift), len(lift)
    drawn = np.random.default_rng(n).standard_normal((n, 300))
    names = tuple("abcdefgh"[:n])
    resampled = lifts[:, None] + noise * drawn
    return Online(names, "a", 1 + lifts, np.linspace(0.01, 0.02, n), lifts, resampled)


LIFTS = (0.0, 0.3, -0.2, 0.25, 0.1, 0.12)
VALUES = (1.1, 1.4, math.nan, 1.2, 1.2, 0.9)


def figure(*value: float, error: float = 0.1, **more: Any) -> Figure:
    n = len(value)
    known = {"verdict": ("weak",) * n, "estimates": True} | more
    return Figure("ips", np.array(value), np.full(n, error), **known)


def test_an_agreement_is_counted_over_the_policies_that_have_the_figure() -> None:
    """Noise and permutations by the same random numbers as there."""
    words = ("weak", "unusable", "trustworthy", "unusable", "weak", "")
    reasons = tuple((f"reason {i}",) for i in range(6))
    online_side = truth(*LIFTS)
    offline_side = figure(*VALUES, verdict=words, reasons=reasons)
    covers = [True, False, True, None, True, False]
    said = agreement(offline_side, online_side, covers, 3)
    have = [0, 1, 3, 4, 5]
    value, lift = np.array(VALUES)[have], np.array(LIFTS)[have]
    rho = stats.spearmanr(value, lift).statistic
    random = np.random.Generator(np.random.Philox(key=3))
    noise = 0.1 * random.standard_normal((300, 5))
    resampled = online_side.resampled[have]
    rhos = [
        stats.spearmanr(value + one, other).statistic
        for one, other in zip(noise, resampled.T, strict=True)
    ]
    shuffled = random.permuted(np.broadcast_to(lift, (5000, 5)), axis=1)
    exact = np.abs(_spearman(value[None], shuffled)) >= abs(rho) - 1e-12
    pairs, ordered, ordered_error = _order(value, lift, resampled)
    lost = lost_by(online_side, 1)
    # The pick is b; d and e are 0.2 behind, within 1.96 * sqrt(2) * .1, a too is not: .3.
    want = {
        "figure": "ips", "policies": 5, "usable": 3, "pairs": pairs, "ordered": ordered,
        "ordered_error": ordered_error, "rho": rho, "low": np.quantile(rhos, 0.025),
        "high": np.quantile(rhos, 0.975), "new_low": for_new_policies(rho, 5)[0],
        "new_high": for_new_policies(rho, 5)[1], "p": exact.mean(),
        "kendall": stats.kendalltau(value, lift).statistic,
        "error": np.sqrt(np.mean((value / (1 + lift) - 1) ** 2)), "covered": 2, "pick": "b",
        "tied": ("d", "e"), "doubts": ("reason 1",), "regret": 0.0, "lost": lost[0],
        "lost_low": lost[1], "lost_high": lost[2], "p_adjusted": math.nan,
    }  # fmt: skip
    for name, one in want.items():
        got = getattr(said, name)
        assert got == (one if isinstance(one, (str, tuple)) else pytest.approx(one, nan_ok=True)), (
            name
        )
    assert said.points[1] == FigurePoint(1.4, 0.1, "unusable")
    assert len(said.points) == 6
    assert agreement(figure(*VALUES), online_side, covers, 3).doubts == ()
    ranking = agreement(figure(*VALUES, estimates=False), online_side, covers, 3)
    assert (ranking.covered, math.isnan(ranking.error)) == (None, True)


def test_a_figure_that_says_the_same_of_all_orders_nothing() -> None:
    said = agreement(figure(1.0, 1.0, 1.0, error=0.0), truth(0.0, 0.5, 1.0), [None] * 3, 0)
    for name in ("rho", "low", "high", "p", "kendall", "new_low"):
        assert math.isnan(getattr(said, name)), name
    assert (said.ordered, said.pairs, said.pick) == (0.5, 3, "a")
    assert said.regret == 1.0


@pytest.mark.parametrize("rho", [-1.0, 0.0, 0.5, 1.0])
def test_the_interval_for_new_policies_needs_four(rho: float) -> None:
    assert all(map(math.isnan, for_new_policies(rho, 3)))
    low, high = for_new_policies(rho, 4)
    half = 1.96 * math.sqrt(1 + rho**2 / 2)
    if abs(rho) < 1:
        want = math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
        assert (low, high) == pytest.approx(want)
    else:  # a distance of 1e-12 from a perfect one
        assert math.atanh(rho * low if rho > 0 else rho * high) == pytest.approx(
            math.atanh(1 - 1e-12) - half, rel=1e-3
        )
    assert all(map(math.isnan, for_new_policies(math.nan, 9)))


def test_pairs_are_proven_both_ways_and_left_out_one_policy_at_a_time() -> None:
    """Of three policies with known lifts; the last two are not told apart by the resamples."""
    lift = np.array([0.0, -1.0, -1.1])
    resampled = lift[:, None] + np.array([[0.0] * 100, [0.0] * 100, [0.3, -0.3] * 50])
    count, share, error = _order(np.array([1.0, 2.0, 0.0]), lift, resampled)
    assert (count, share) == (2, 0.5)
    # Without the first none is left; without the second the right pair is, without the third not.
    assert error == pytest.approx(np.sqrt(2 / 3 * 0.5))
    assert _order(np.array([1.0, 1.0, 0.0]), lift, resampled)[1] == 0.75  # a tie counts half
    nothing = _order(np.zeros(2), np.zeros(2), np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert nothing[0] == 0
    assert np.isnan(nothing[1:]).all()
    alone = _order(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([[1.0], [0.0]]))
    assert alone[:2] == (1, 1.0)
    assert math.isnan(alone[2])


def test_what_is_tied_is_within_the_error_of_the_difference() -> None:
    """1.96 sqrt(.3^2 + .4^2) = .98; by common luck of the same units the error is smaller."""
    ends = np.array([0.3, 0.4])
    for away, tied in ((0.97, [1]), (0.99, [])):
        one = Figure("x", np.array([1.0, 1.0 - away]), ends, ("", ""), True)
        assert one.tied(0) == tied
    third = Figure("x", np.array([1.0, math.nan, 0.9]), np.full(3, 0.3), ("",) * 3, True)
    assert (third.best, third.tied(0), third.tied(2)) == (0, [2], [0])
    moved = np.array([0.3, -0.3]), np.array([0.3, -0.2])
    for away, tied in ((0.195, [1]), (0.197, [])):
        one = Figure("x", np.array([1.0, 1.0 - away]), ends, ("", ""), True, (), moved)
        assert one.tied(0) == tied
    # Influences over other units, or over one, tell nothing of common luck.
    for influence in ((moved[0], np.zeros(3)), (np.array([0.1]), np.array([0.1]))):
        one = Figure("x", np.array([1.0, 0.5]), ends, ("", ""), True, (), influence)
        assert one.tied(0) == [1]


def estimate(name: str, value: float, influence: np.ndarray | None = None, **more: Any) -> Estimate:
    first = () if influence is None else (FirstOrder(value, influence),)
    ends = EstimateInterval("bootstrap", value - 0.1, value + 0.1)
    known: dict[str, Any] = {
        "value": value, "error": 0.1, "verdict": EstimateVerdict("weak", ("few",)),
        "first_order": first, "intervals": (ends,),
    }  # fmt: skip
    return Estimate("p", name, "", **({"unit": "request"} | known | more))


def evaluated(policy: str, *estimates: Estimate) -> Evaluation:
    nothing = EstimateInterval("delta", 1, 1)
    facts = ReplayFacts("conditional", 1)
    return Evaluation(policy, facts, estimates, Weights(1), nothing, estimates[0], 0)


def test_figures_are_the_answers_of_each_estimator() -> None:
    moved = np.array([0.1, -0.1])
    every = [
        evaluated("a", estimate("ips", 1.0, moved), estimate("hr", 0.5, unit="click")),
        evaluated("b", estimate("ips", 2.0, moved), estimate("hr", 0.4, moved, verdict=None)),
    ]
    ips, hr = figures_of(every)
    assert (ips.name, ips.value.tolist(), ips.error.tolist()) == ("ips", [1.0, 2.0], [0.1, 0.1])
    assert (ips.verdict, ips.estimates) == (("weak", "weak"), True)
    assert ips.reasons == (("few",), ("few",))
    assert [one.tolist() for one in ips.influence] == [[0.1, -0.1]] * 2
    assert (hr.name, hr.verdict, hr.estimates, hr.influence) == ("hr", ("weak", ""), False, ())


def test_a_pick_of_the_second_figure_goes_just_before_the_best_of_the_first() -> None:
    rollout = replace(figure(3.0, 2.9, 1.0), name="rollout", verdict=("weak",) * 3)
    ranked = replace(figure(0.5, 0.7, 0.9, error=0.01), name="ranked", verdict=("weak",) * 3)
    read = reading([rollout, ranked])
    assert isinstance(read, TieBroken)
    assert read.name == "rollout, ties by ranked"
    assert read.value.tolist() == [3.0, np.nextafter(3.0, 4.0), 1.0]
    assert read.estimates is False
    assert (read.error is rollout.error, read.verdict) == (True, rollout.verdict)
    assert rollout.value.tolist() == [3.0, 2.9, 1.0]
    for word in ("trustworthy", "unusable"):
        one = replace(ranked, verdict=("weak", "weak", word))
        assert (reading([rollout, one]) is None) == (word == "unusable")


def test_offline_figures_are_those_that_three_policies_have() -> None:
    ends = EstimateInterval("delta", 0.6, 0.796)
    orders = [Ordering(name, (0.7, ends), (0.65, ends)) for name in "abc"]
    orders.append(Ordering("d", refused="no scores"))
    nan = math.nan
    evaluations = [
        evaluated(name, estimate("ips", value), estimate("rollout", 2.0), estimate("ranked", 1.0))
        for name, value in zip("abcd", (1.0, 2.0, nan, nan), strict=True)
    ]
    figures = Offline(tuple(evaluations), tuple(orders)).figures()
    names = ["rollout", "ranked", "auc of shown", "gauc of shown", "rollout, ties by ranked"]
    assert [one.name for one in figures] == names
    auc = figures[2]
    np.testing.assert_array_equal(auc.value, [0.7, 0.7, 0.7, nan])
    np.testing.assert_allclose(auc.error, [0.05, 0.05, 0.05, nan])
    assert (auc.verdict, auc.estimates) == (("",) * 4, False)


def test_agreements_come_by_correlation_and_are_corrected_by_holm() -> None:
    online_side = truth(0.0, 0.3, -0.2, 0.25, noise=0.01)
    values = {"ips": (1.0, 1.3, 0.8, 1.2), "dm": (1.3, 1.0, 1.2, 1.1), "flat": (1.0,) * 4}
    evaluations = tuple(
        evaluated(name, *(estimate(key, one[i]) for key, one in values.items()))
        for i, name in enumerate("abcd")
    )
    said = list(agreements(online_side, Offline(evaluations, ()), 5))
    assert [one.figure for one in said] == ["ips", "dm", "flat"]
    assert [one.rho for one in said[:2]] == pytest.approx([1.0, -0.8])
    assert said[0].p_adjusted == pytest.approx(min(1.0, 2 * said[0].p))
    assert said[0].covered == 4  # a tenth to either side, of values that are as far from the truth
    assert math.isnan(said[2].p_adjusted)
    (one, *_) = evaluations
    assert [_covers(one, "ips", value) for value in (0.9, 0.89)] == [True, False]
    assert _covers(one, "auc of shown", 1.0) is None
    bare = evaluated("a", estimate("ips", 1.0, intervals=()))
    assert _covers(bare, "ips", 1.0) is None


def test_the_settings_of_fidelity_are_every_estimator_and_hit_rates() -> None:
    found = settings(4, 300, 40)
    assert found.estimators == ("hr@10", "ndcg@10", "hr@40", *ESTIMATORS)
    assert found.members == {"hr@10": (HitRate(10),), "ndcg@10": (Gain(10),),
                             "hr@40": (HitRate(40),)}  # fmt: skip
    assert (found.resamples, found.seed, found.contexts) == (300, 4, 3)


def test_arms_are_filled_up_to_as_many_as_are_asked_for() -> None:
    """Both sides of the least number, and of what there is to fill up with."""
    scenario = Scenario.model_validate(tiny_scenario({"a": {"policy": "random"}}))
    wide = widened(scenario, 8)
    assert len(wide.arms) == 8
    names = [name for name in YARDSTICKS if name != "random"]
    assert list(wide.arms) == ["a", *names[:7]]  # random is there already, by another name
    assert (wide.control, wide.design.kind) == ("a", "paired")
    with pytest.raises(ReplayError, match=r"--policies must be at least 8: .* got 7"):
        widened(scenario, 7)
    assert len(widened(scenario, 16).arms) == 16
    with pytest.raises(ReplayError) as error:
        widened(scenario, 17)
    assert str(error.value) == (
        f"--policies 17: {scenario.name} has 1 arms, and there are 16 yardsticks, 15 of them other"
        " than these; write more arms, or ask for fewer policies"
    )
    assert (fidelity.FEWEST, fidelity.POLICIES) == (8, 16)


def test_yardsticks_are_these() -> None:
    """Spread in quality; each is named after what it is."""

    def blurred(policy: str, epsilon: float, temperature: float) -> str:
        params = {"policy": policy, "temperature": temperature, "epsilon": epsilon}
        return json.dumps(["explore", params], sort_keys=True)

    known = {
        name: json.dumps([one["policy"], one.get("params", {})], sort_keys=True)
        for name, one in YARDSTICKS.items()
    }
    shared = {"popularity, half uniform": blurred("popularity", 0.5, 1.0),
              "itemknn, half uniform": blurred("itemknn", 0.5, 0.1),
              "itemknn, 20% uniform": blurred("itemknn", 0.2, 0.1),
              "itemknn, 80% uniform": blurred("itemknn", 0.8, 0.1),
              "itemknn, hot": blurred("itemknn", 0.05, 2.0),
              "popularity, 20% uniform": blurred("popularity", 0.2, 0.1),
              "popularity, 80% uniform": blurred("popularity", 0.8, 0.1)}  # fmt: skip
    assert {name: known[name] for name in shared} == shared
    assert YARDSTICKS["bpr"]["params"] == {"training": {"epochs": 10, "patience": 3}}
    assert YARDSTICKS["sasrec"]["params"] == {"training": {"epochs": 4, "patience": 2}}
    assert len(known) == len(set(known.values())) == 16


def test_the_truth_of_a_log_is_by_request_and_by_user_over_the_control() -> None:
    log = EventLog.from_columns(
        {
            "arm": [0, 1, 1, 1, 2, 2, 2, 2],
            "user": [0, 0, 0, 1, 0, 1, 1, 2],
            "session": [0, 0, 1, 0, 0, 0, 0, 0],
            "request": [0] * 8,
            "position": [0, 0, 0, 0, 0, 0, 1, 0],
            "t": [-DAY, 0, 9, 5, 0, 5, 5, 7],
            "item": [1, 1, 1, 1, 1, 1, 2, 1],
            "click": np.array([1, 1, 0, 0, 1, 1, 1, -1], dtype=np.int8),
        },
        Metadata(("history", "a", "b"), n_users=4, n_items=2, control="a"),
    )
    found = online(log, "a", "click", 40, 6)
    totals = np.array([[1.0, 0, 0, 0], [1, 2, 0, 0]])
    requests = np.array([[2.0, 1, 0, 0], [1, 1, 1, 0]])
    ratios = [Ratios(t[:, None], r[:, None]) for t, r in zip(totals, requests, strict=True)]
    assert (found.arms, found.control) == (("a", "b"), "a")
    np.testing.assert_allclose(found.value, [1 / 3, 1.0])
    np.testing.assert_allclose(found.value_error, [one.error() for one in ratios])
    np.testing.assert_allclose(found.lift, [0.0, 2.0])
    ones = np.ones((4, 1))
    drawn = bootstrap([Ratios(t[:, None], ones) for t in totals], 40, 6)
    got = drawn[0] > 0  # a resample may miss all rewards of the control
    assert 0 < got.sum() < 40
    np.testing.assert_allclose(found.resampled[:, got], drawn[:, got] / drawn[0, got] - 1)
    assert not np.isfinite(found.resampled[:, ~got]).any()
    turned = found.of(["b", "a"])
    assert turned.arms == ("b", "a")
    for name in ("value", "value_error", "lift", "resampled"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(found, name)[::-1])
    sure = replace(found, resampled=np.array([[0.0] * 41, np.linspace(1, 2, 41)]))
    _, other = sure.policies()
    error = float(found.value_error[1])
    assert other == OnlinePolicy("b", 2.0, pytest.approx(1.025), pytest.approx(1.975), 1.0, error)


def test_a_race_is_of_those_who_differ_from_the_base() -> None:
    online_side = truth(0.0, 0.3, 0.2, noise=0.05)
    race = race_from(online_side, 1)
    away = online_side.resampled[[0, 2]] - online_side.resampled[1]
    want = Race.of_lifts(["a", "c"], np.array([-0.3, -0.1]), np.cov(away))
    assert race is not None
    assert list(race.arms) == list(want.arms)
    for mine, theirs in zip(astuple(race)[1:], astuple(want)[1:], strict=True):
        np.testing.assert_allclose(mine, theirs)
    assert lost_by(online_side, 1) == (0.0, 0.0, max(0.0, corrected(race)[2]))
    assert lost_by(online_side, 0) == tuple(map(float, corrected(race_from(online_side, 0))))
    known = race_from(online_side, 0)
    assert known is not None
    assert asdict(best_of(online_side, "click")) == asdict(winner(known, "a", "click"))
    # One that moves with the base is no rival; resamples that miss the base's reward are left out.
    same = replace(online_side, resampled=online_side.resampled[[0, 0, 2]] + [[0.0], [1.0], [0.0]])
    pair = race_from(same, 0)
    assert pair is not None
    assert list(pair.arms) == ["c"]
    assert best_of(same, "click") is None
    for at in (2, 299):
        gaps = online_side.resampled.copy()
        gaps[1, at:] = np.nan
        assert race_from(replace(online_side, resampled=gaps), 0) is not None
    gaps[1, 1:] = np.inf
    few = replace(online_side, resampled=gaps)
    assert race_from(few, 0) is None
    assert best_of(few, "click") is None


@pytest.mark.parametrize(("pick", "lost"), [(0, 0.3), (1, 0.0), (2, 0.1)])
def test_without_noise_what_is_lost_is_the_difference(pick: int, lost: float) -> None:
    still = truth(0.0, 0.3, 0.2, noise=0.0)
    assert lost_by(still, pick) == pytest.approx((lost,) * 3)
