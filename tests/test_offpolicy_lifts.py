"""Off-policy lifts and the choice among policies: their algebra by hand, coverage on logs whose
truth is known, and what the command says.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from benchmarks.lifts import USERS, Cascades, Singles, coverage, logs
from simulator.cli.replay import replay as command
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.choice import _better, _critical, _excluded, _race, choose
from simulator.offpolicy.diagnostics import EstimateVerdict, Weights
from simulator.offpolicy.evidence import ReplayFacts
from simulator.offpolicy.lifts import LOGGING, OffPolicyLift, Pair, off_policy_lifts, separate
from simulator.offpolicy.replay import Estimate, Evaluation, ReplaySettings, evaluate
from simulator.offpolicy.result import ReplayResult, _finite
from simulator.offpolicy.uncertainty import (
    EstimateInterval,
    FirstOrder,
    Ratios,
    _counts,
    _root,
    bootstrap,
    delta,
    multipliers,
)
from simulator.stats import intervals
from simulator.stats.tests import adjust, t_test
from simulator.stats.winners import Race

LOGS = 200


@pytest.fixture(scope="module")
def evaluations() -> list[Evaluation]:
    """Two policies on one log of single items."""
    world = Singles(2)
    settings = ReplaySettings(resamples=2, contexts=2)
    return evaluate([world.log(0)], list(world.policies), USERS, world.items, settings)


def first_order(seed: int, value: float, units: int = 40) -> FirstOrder:
    influence = np.random.default_rng(seed).standard_normal(units)
    return FirstOrder(value, (influence - influence.mean()) / units)


def test_a_pair_is_the_regression_on_its_control_variates() -> None:
    treatment, control, z = first_order(0, 2.0), first_order(1, 1.5), first_order(2, 0.3)
    treatment = replace(treatment, influence=treatment.influence + 2 * z.influence)
    pair = Pair.of(treatment, control, [z])
    design = z.influence[:, None]
    for i, one in enumerate((treatment, control)):
        (slope,), (left,), *_ = np.linalg.lstsq(design, one.influence, rcond=None)
        assert pair.values[i] == pytest.approx(one.value - slope * z.value)
        assert np.square(pair.influences[i]).sum() == pytest.approx(left)
    difference = treatment.influence - control.influence
    (_,), (left,), *_ = np.linalg.lstsq(design, difference, rcond=None)
    assert pair.moments.variance == pytest.approx(left * 40 / 38)


def test_a_control_variate_that_does_not_help_is_not_used() -> None:
    treatment, control = first_order(0, 2.0), first_order(1, 1.5)
    useless = replace(first_order(2, 5.0), influence=np.zeros(40))
    pair = Pair.of(treatment, control, [useless])
    assert pair.values.tolist() == [2.0, 1.5]
    assert pair.df == 39
    same = Pair.of(treatment, treatment)
    assert same.moments.variance == 0
    assert separate(treatment, control) == pytest.approx(
        (np.square(treatment.influence).sum() + np.square(control.influence).sum()) * 40 / 39
    )


def test_the_influence_of_a_lift_is_its_derivative() -> None:
    """Weighting a unit a little more moves the lift by its influence."""
    pair = Pair(np.array([2.0, 1.6]), np.array([[0.1, -0.1, 0.0], [0.02, 0.01, -0.03]]), 2.0)
    for unit, influence in enumerate(pair.influence()):
        moved = pair.values + 1e-6 * pair.influences[:, unit]
        assert influence == pytest.approx((moved[0] / moved[1] - 1.25) / 1e-6, rel=1e-4)


def test_the_lift_of_the_logging_policy_over_itself_is_zero_for_sure() -> None:
    world = Singles()
    world.policies = (replace(world.policies[0], name="same", law=world.logging),)
    (found,) = next(logs(world, 1, ("ips", "dr")))
    (ips, _) = off_policy_lifts([found])
    assert ips.control == LOGGING
    assert ips.lift == pytest.approx(0, abs=1e-12)
    assert (ips.low, ips.high) == pytest.approx((0, 0), abs=1e-6)


def test_exchanging_policy_and_control_turns_the_difference() -> None:
    found = next(logs(Singles(), 1, ("ips", "matching")))
    there = off_policy_lifts(found, "policy 0")
    back = off_policy_lifts(found, "policy 1")
    (one,) = (x for x in there if (x.policy, x.estimator) == ("policy 1", "ips"))
    (other,) = (x for x in back if (x.policy, x.estimator) == ("policy 0", "ips"))
    assert one.difference == pytest.approx(-other.difference)
    assert one.difference_low == pytest.approx(-other.difference_high)
    assert (1 + one.lift) * (1 + other.lift) == pytest.approx(1)
    assert one.p == pytest.approx(other.p)
    with pytest.raises(KeyError, match="no evaluation of 'policy 9'"):
        off_policy_lifts(found, "policy 9")


@pytest.mark.parametrize(
    ("world", "estimators"), [(Singles(2), ("ips", "dr")), (Cascades(), ("rips", "cascade_dr"))]
)
def test_intervals_of_lifts_cover_and_are_narrower_than_two_estimates(
    world: Singles | Cascades, estimators: tuple[str, ...]
) -> None:
    error = float(np.sqrt(0.95 * 0.05 / LOGS))
    for key, one in coverage(world, LOGS, estimators).items():
        share = one.covered / one.total
        print(*key, f"{share:.3f}", f"{min(one.gains):.2f}")
        assert abs(share - 0.95) < 3 * error, key
        assert one.wider == 0, key


def test_what_a_control_refuses_and_what_the_log_cannot_say(evaluations: list[Evaluation]) -> None:
    by_name = {lift.estimator: lift for lift in off_policy_lifts(evaluations, "policy 1")}
    assert by_name["rips"].refused is not None
    assert by_name["rips"].moments is None
    first, second, *_ = evaluations[0].precedence
    lifts = tuple((by_name | {first: replace(by_name[first], refused="no support")}).values())
    result = ReplayResult("", "click", "", 1, tuple(evaluations), {}, (), (), "policy 1", lifts)
    assert result.lift_of("policy 0") is by_name[second]
    assert by_name["ips"].refused is None
    assert by_name["matching"].word == "weak"
    assert any(reason.startswith("of the control: ") for reason in by_name["matching"].reasons)


def lift(policy: str, value: float, error: float, seed: int, word: str = "weak") -> OffPolicyLift:
    """A lift over a control of value 1 that is known exactly."""
    influence = first_order(seed, 0.0, 400).influence
    influence = influence / np.sqrt(np.square(influence).sum()) * error
    pair = Pair(np.array([1 + value, 1.0]), np.stack([influence, np.zeros(400)]), 399.0)
    ends = intervals.fieller(pair.moments)
    return OffPolicyLift(
        policy,
        "base",
        "ips",
        pair.moments,
        value,
        float(ends.low),
        float(ends.high),
        verdict=EstimateVerdict(word, ("few rounds",)),  # type: ignore[arg-type]
        influence=pair.influence(),
    )


def test_a_lift_is_judged_by_the_worse_of_its_values_and_corrected_among_its_like(
    evaluations: list[Evaluation],
) -> None:
    for control in ("policy 0", None):
        lifts = off_policy_lifts(evaluations, control)
        others = [one for one in evaluations if one.policy != control]
        assert [one.policy for one in lifts] == [
            one.policy for one in others for _ in one.estimates
        ]
        for name in {one.estimator for one in lifts}:
            own = [one for one in lifts if one.estimator == name and np.isfinite(one.p)]
            if own:
                together = adjust(np.array([one.p for one in own]))
                assert [one.p_adjusted for one in own] == pytest.approx(together)
        for one in lifts:
            if one.verdict is None:
                continue
            judged = next(e for e in evaluations if e.policy == one.policy)[one.estimator]
            against = None if control is None else evaluations[0][one.estimator]
            order = ("trustworthy", "weak", "unusable")
            words = [e.word for e in (judged, against) if e is not None]
            assert one.word == max(words, key=order.index)
            said = () if against is None else against.reasons
            assert one.reasons == (*judged.reasons, *(f"of the control: {why}" for why in said))
    with pytest.raises(KeyError, match="no evaluation of 'nobody'"):
        off_policy_lifts(evaluations, "nobody")


def test_the_choice_is_the_largest_bound_and_not_the_largest_estimate() -> None:
    sure, wild = lift("sure", 0.05, 0.01, 0), lift("wild", 0.09, 0.06, 1)
    unseen = lift("unseen", 0.5, 0.001, 2, "unusable")
    found = choose([sure, wild, unseen])
    assert (found.pick, found.favourite) == ("sure", "wild")
    # Sidak's quantile of two independent errors, to within the error of 10,000 draws.
    assert found["sure"].bound == pytest.approx(0.05 - 1.955 * 0.01, abs=0.0006)
    assert found["sure"].better == pytest.approx(1.0, abs=1e-5)
    assert found["unseen"].excluded == "its estimate is unusable: few rounds"
    assert np.isnan(found["unseen"].better)
    kept = _finite(asdict(found))  # the chance of a policy that cannot be chosen is no number
    assert [one["policy"] for one in kept["candidates"] if one["best"] is None] == ["unseen"]
    assert "Take sure: with 95% confidence its lift over base is at least +3.0%" in found.sentence
    # Two independent posteriors; the control is a third choice.
    draws = np.random.default_rng(0).standard_normal((2, 400_000))
    first, second = 0.05 + 0.01 * draws[0], 0.09 + 0.06 * draws[1]
    assert found["sure"].best == pytest.approx(float((first > second).mean()), abs=0.01)
    assert found.corrected < 0.09
    assert found.corrected_low < found.corrected < found.corrected_high
    alone = choose([sure])
    assert (alone.corrected, alone.corrected_low) == (sure.lift, sure.low)
    assert alone["sure"].bound == pytest.approx(0.05 - 1.65 * 0.01, abs=0.0006)


def test_the_control_is_kept_where_nothing_is_shown() -> None:
    found = choose([lift("wild", 0.05, 0.06, 1), lift("worse", -0.05, 0.01, 2)])
    assert found.pick is None
    assert found.favourite == "wild"
    assert "Keep base: of none of 2 policies is it shown" in found.sentence
    assert "supports none" in choose([lift("unseen", 0.5, 0.001, 2, "unusable")]).sentence
    with pytest.raises(ValueError, match="over one control by one estimator"):
        choose([lift("a", 0.1, 0.1, 0), replace(lift("b", 0.1, 0.1, 0), control="other")])


def test_multipliers_have_the_covariances_of_the_influences() -> None:
    columns = np.random.default_rng(3).standard_normal((50, 3))
    columns[:, 2] = columns[:, 0] - columns[:, 1]  # follows from the others
    drawn = multipliers(columns, 40_000, 0)
    assert np.cov(drawn.T) == pytest.approx(columns.T @ columns, rel=0.05, abs=1.5)
    assert drawn[:, 2] == pytest.approx(drawn[:, 0] - drawn[:, 1], abs=1e-4)


def test_the_guarantee_of_the_choice_holds_among_many_policies() -> None:
    """120 logs, 8 policies: a policy is taken with a bound above its true lift in 5% of all logs or
    fewer.
    """
    world, broken, taken, count = Singles(8), 0, 0, 120
    for found in logs(world, count, ("ips",)):
        choice = choose(off_policy_lifts(found), resamples=500)
        if choice.pick is not None:
            taken += 1
            truth = world.truth[choice.pick] / world.truth[LOGGING] - 1
            broken += choice[choice.pick].bound > truth
    assert taken > 30
    assert broken / count < 0.05 + 3 * np.sqrt(0.95 * 0.05 / count)


def test_the_command_says_lifts_over_a_control(tmp_path: Path) -> None:
    rounds = Singles().log(0)
    n = len(rounds)
    log = EventLog.from_columns(
        {
            "user": rounds.user,
            "session": np.arange(n) % 3,
            "request": np.zeros(n, int),
            "position": np.zeros(n, int),
            "t": (np.arange(n) % 3 - 1) * 86_400_000 + np.arange(n),
            "item": rounds.item[:, 0],
            "click": rounds.reward[:, 0].astype(np.int8),
            "propensity": rounds.propensity[:, 0],
        },
        Metadata(("history",), USERS, Singles.items, "marginal"),
    )
    log.write(tmp_path / "log.parquet")
    chosen = "explore:policy=popularity,temperature=2"
    arguments = [str(tmp_path / "log.parquet"), "--policy", "random", "--history", "3"]
    more = ["--resamples", "100", "--policy", chosen, "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(command, [*arguments, *more, "--control", "popularity"])
    assert done.exit_code == 0, done.output
    assert "Lift over popularity" in done.output
    (stored,) = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert stored["control"] == "popularity"
    assert {one["policy"] for one in stored["lifts"]} == {"random", chosen}
    first = next(one for one in stored["lifts"] if one["estimator"] == "ips")
    assert first["lift"] == pytest.approx(first["value"] / first["control_value"] - 1)
    assert stored["choice"]["control"] == "popularity"
    wrong = CliRunner().invoke(command, [*arguments, "--control", "popularty", "--quiet"])
    assert wrong.exit_code == 2
    assert "did you mean 'popularity'" in wrong.output


def told(name: str, value: float, seed: int, **more: Any) -> Estimate:
    """An estimate of 40 units by one member."""
    sound = EstimateVerdict("trustworthy", ())
    known = {"verdict": sound, "first_order": (first_order(seed, value),), "unit": "request"}
    return Estimate("p", name, "", value=value, **(known | more))


def held(policy: str, *estimates: Estimate) -> Evaluation:
    logged = told("mean", 1.0, 9, verdict=None)
    own = {"request": logged.first_order[0]}
    nothing = EstimateInterval("delta", 1, 1)
    facts = ReplayFacts("conditional", 1)
    return Evaluation(policy, facts, estimates, Weights(1), nothing, logged, 0, own)


def test_a_lift_is_that_of_its_first_pair_and_its_interval_the_hull_of_all() -> None:
    """A family of two members; the second has the wider interval and the larger p."""
    variate = first_order(5, 0.02)
    members = first_order(1, 1.2), first_order(2, 1.3)
    base_members = first_order(3, 1.0), first_order(4, 1.01)
    treatment = told("ips", 1.2, 0, first_order=members, variate=variate)
    control = told("ips", 1.0, 0, first_order=base_members)
    one, base = held("a", treatment), held("b", control)
    (got,) = off_policy_lifts([one, base], "b", 0.9)
    pairs = [Pair.of(t, c, [variate]) for t, c in zip(members, base_members, strict=True)]
    relative = [intervals.fieller(pair.moments, 0.9) for pair in pairs]
    absolute = [intervals.difference(pair.moments, 0.9) for pair in pairs]
    want = (
        pairs[0].moments.lift, min(i.low for i in relative), max(i.high for i in relative),
        pairs[0].moments.difference, min(i.low for i in absolute), max(i.high for i in absolute),
        max(t_test(pair.moments).p for pair in pairs),
        separate(members[0], base_members[0]) / pairs[0].moments.variance,
    )  # fmt: skip
    assert (
        got.lift, got.low, got.high, got.difference, got.difference_low, got.difference_high,
        got.p, got.gain,
    ) == pytest.approx(want, rel=1e-12)  # fmt: skip
    assert got.p_adjusted == got.p
    assert (got.policy, got.control, got.estimator, got.word) == ("a", "b", "ips", "trustworthy")
    assert got.influence is not None
    np.testing.assert_array_equal(got.influence, pairs[0].influence())


def test_why_there_is_no_lift() -> None:
    """Neither side ran, the log has no figure of that unit, or nothing is known of one value."""
    serving = told("rollout", 1.1, 1)
    per_click = told("hr", 0.1, 1, unit="click")
    refused = Estimate("a", "dm", "", "request", refused="no model")
    blank = told("ips", math.nan, 1)
    lone = told("snips", 1.0, 1, first_order=(FirstOrder(1.0, np.zeros(1)),))
    lifts = off_policy_lifts([held("a", serving, per_click, refused, blank, lone)])
    assert [one.refused for one in lifts] == [
        "a model's values compare policies with one another: give --control",
        "the log has no figure of its own per click",
        "no model",
        None,
        None,
    ]
    assert all(one.control == LOGGING and one.moments is None for one in lifts)
    assert [one.word for one in lifts] == [None, None, None, "trustworthy", "trustworthy"]
    both = (
        held("a", refused, told("ips", 1.0, 1)),
        held("b", told("dm", 1.0, 2), replace(refused, estimator="ips", refused="of b")),
    )
    against = off_policy_lifts(both, "b")
    assert [one.refused for one in against] == ["no model", "of b"]
    (over,) = off_policy_lifts([held("a", told("ips", 1.2, 1))])
    assert over.lift == pytest.approx(0.2)  # over the log's own mean


def test_a_variate_takes_a_degree_of_freedom_of_which_one_must_be_left() -> None:
    def of(units: int) -> Pair:
        treatment, control, z = (first_order(seed, 1.0 + seed, units) for seed in range(3))
        strong = replace(z, influence=treatment.influence - control.influence + 1e-9 * z.influence)
        return Pair.of(treatment, control, [strong])

    assert of(3).df == 1.0  # of 2, one is taken
    assert of(2).df == 1.0  # of 1 none can be
    pair = of(40)
    assert (pair.df, pair.moments.n_control, pair.moments.paired) == (38.0, 40, True)


def test_the_influence_of_a_lift_over_a_loss_has_the_sign_of_the_difference() -> None:
    pair = Pair(np.array([-1.0, -2.0]), np.array([[0.1, -0.1], [0.0, 0.0]]), 1.0)
    assert pair.influence().tolist() == [0.05, -0.05]


def test_the_quantile_of_the_largest_error_is_drawn_by_the_normal_law() -> None:
    """Of units' parts that are known exactly, none; of one lift, Student's of one side at least."""
    one = lift("a", 0.1, 0.01, 0)
    assert one.influence is not None
    assert one.moments is not None
    draws = multipliers(one.influence[:, None], 500, 3)[:, 0] / np.sqrt((one.influence**2).sum())
    wanted = max(float(np.quantile(draws, 0.9)), stats.t.ppf(0.9, one.moments.df))
    assert _critical([one], 0.9, 500, 3) == pytest.approx(wanted)
    sure = replace(one, influence=0 * one.influence)
    assert math.isnan(_critical([sure], 0.9, 500, 3))
    few = replace(one, moments=replace(one.moments, df=2.0))
    assert _critical([few], 0.9, 500, 3) == pytest.approx(stats.t.ppf(0.9, 2))
    other = lift("b", 0.1, 0.02, 1)
    assert other.influence is not None
    both = np.stack([x.influence / np.sqrt((x.influence**2).sum()) for x in (one, other)], axis=1)  # type: ignore[operator]
    largest = multipliers(both, 500, 3).max(axis=1)
    assert _critical([one, other], 0.9, 500, 3) == pytest.approx(np.quantile(largest, 0.9))
    assert _critical([one, sure], 0.9, 500, 3) == _critical([one], 0.9, 500, 3)


def test_a_race_is_of_lifts_that_vary_with_the_covariance_of_their_units() -> None:
    first, second = lift("a", 0.1, 0.01, 0), lift("b", 0.2, 0.02, 1)
    assert first.moments is not None
    sure = replace(first, policy="c", moments=replace(first.moments, var_control=0.0,
                                                      var_treatment=0.0, cov=0.0))  # fmt: skip
    assert _race([sure, replace(first, influence=None), replace(second, moments=None)]) is None
    assert second.moments is not None
    few = replace(second, moments=replace(second.moments, df=7.0))
    race = _race([first, sure, few])
    assert race is not None
    both = np.stack([one.influence for one in (first, few)])  # type: ignore[misc]
    want = Race.of_lifts(["a", "b"], np.array([0.1, 0.2]), both @ both.T * both.shape[1] / 7, 7.0)
    assert list(race.arms) == ["a", "b"]
    for field in fields(Race):
        mine, theirs = getattr(race, field.name), getattr(want, field.name)
        if isinstance(theirs, np.ndarray):
            np.testing.assert_allclose(mine, theirs, rtol=1e-12)
        else:
            assert mine == theirs


def test_a_policy_is_better_by_students_law_and_excluded_for_one_reason() -> None:
    one = lift("a", 0.03, 0.02, 0)
    assert one.moments is not None
    t = float(one.moments.difference / np.sqrt(one.moments.variance))
    assert _better(one) == pytest.approx(stats.t.cdf(t, one.moments.df))
    still = replace(one.moments, var_control=0.0, var_treatment=0.0, cov=0.0)
    assert math.isnan(_better(replace(one, moments=still)))
    assert _excluded(one) is None
    assert _excluded(replace(one, refused="why")) == "why"
    for unknown in ({"moments": None}, {"influence": None}):
        assert _excluded(replace(one, **unknown)) == "nothing is known of its lift"  # type: ignore[arg-type]


def test_a_bound_of_0_or_below_keeps_the_control() -> None:
    """The bound of one lift is that of its critical value; the pick needs more than 0."""
    one = lift("a", 0.05, 0.01, 0)
    found = choose([one], resamples=400)
    assert one.moments is not None
    critical = _critical([one], 0.95, 400, 0)
    bound = float(intervals.fieller(one.moments, critical=critical).low)
    assert found["a"].bound == bound > 0
    assert (found.pick, found.level) == ("a", 0.95)
    worse = choose([lift("a", 0.001, 0.01, 0)], resamples=400)
    assert worse.pick is None
    assert worse["a"].bound < 0
    assert found.sentence == (
        f"Take a: with 95% confidence its lift over base is at least {bound:+.1%}, although it was"
        " taken among 1."
    )
    assert worse.sentence == (
        "Keep base: of none of 1 policies is it shown that it is better (at 95%, all at once)."
    )
    out = choose([lift("a", 0.1, 0.01, 0, "unusable")])
    assert out.sentence == (
        "Keep base: the log supports none of 1 policies (its estimate is unusable)."
    )
    assert (out.favourite, math.isnan(out.corrected)) == (None, True)


def test_a_resample_is_a_draw_of_all_units_with_replacement() -> None:
    """In blocks of 64; each estimate's own columns, one after the other."""
    random = np.random.Generator(np.random.Philox(key=11))
    units, sizes, blocks = 5, (64, 64, 2), []
    for size in sizes:
        drawn = random.integers(0, units, (size, units), dtype=np.int32)
        blocks.append([np.bincount(row, minlength=units).tolist() for row in drawn])
    got = list(_counts(units, 130, 11))
    assert [one.tolist() for one in got] == blocks
    counts = np.concatenate(got)
    values = np.random.default_rng(1).random((6, units))
    first = Ratios(values[:2].T, values[2:4].T, values[5])
    second = Ratios(values[4][:, None], values[5][:, None])
    drawn = bootstrap([first, second], 130, 11)
    above = values[:2].copy()
    above[0] += values[5] - values[5].mean()
    np.testing.assert_allclose(
        drawn[0], (counts @ above.T / (counts @ values[2:4].T)).sum(axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(drawn[1], counts @ values[4] / (counts @ values[5]), rtol=1e-12)


def test_one_unit_or_no_denominator_gives_no_error() -> None:
    alone = Ratios(np.ones((1, 1)), np.full((1, 1), 2.0))
    assert alone.value == 0.5
    assert math.isnan(delta(alone).low)
    empty = Ratios(np.ones((3, 2)), np.array([[1.0, 0], [1, 0], [1, 0]]))
    assert math.isnan(empty.value)
    assert np.isnan(empty.influence()).all()
    assert EstimateInterval("x", 1, 2).covers(1)
    assert EstimateInterval("x", 1, 2).covers(2)
    assert not EstimateInterval("x", 1, 2).covers(2.01)


def test_a_root_is_choleskys_and_has_no_column_for_what_follows_from_others() -> None:
    half = np.random.default_rng(2).normal(size=(3, 6))
    cov = half @ half.T
    np.testing.assert_allclose(_root(cov), np.linalg.cholesky(cov), rtol=1e-10)
    columns = np.stack([half[0], half[1], half[0] - half[1], half[2]])
    root = _root(columns @ columns.T)
    assert not root[:, 2].any()
    np.testing.assert_allclose(root @ root.T, columns @ columns.T, atol=1e-10)
    assert not _root(np.zeros((2, 2))).any()
    drawn = multipliers(half.T, 7, 5)
    normal = np.random.Generator(np.random.Philox(key=5)).standard_normal((7, 3))
    np.testing.assert_allclose(drawn, normal @ np.linalg.cholesky(cov).T, rtol=1e-10)
