"""The pooled lift of policies that are known: its algebra by hand, its error rates where the truth
is known, and the command on a run.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from benchmarks.pooled import memoryless
from policies.base import Histories
from simulator.cli.pooled import pooled as command
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.pooled import (
    LEVELS,
    ArmSums,
    _judge,
    _Lives,
    arm_sums,
    carry_over,
    halves,
    pooled_audit,
    pooled_lift,
    pooled_moments,
)
from simulator.offpolicy.pooled_run import _check, _compared
from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.target import Target
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats import intervals, moments
from simulator.stats.randomise import Rate, draws
from simulator.stats.tests import t_test

NAMES = "control", "treatment"


@pytest.fixture(scope="module")
def twins() -> tuple[ArmSums, ArmSums]:
    return memoryless(0.1, 400)


def test_the_difference_is_that_of_the_requests_in_which_the_policies_differ(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    control, treatment = halves(*twins, seed=1)
    both = [moments.sample(arm.columns("slate")) for arm in (control, treatment)]
    plain = pooled_moments(*both, adjusted=False)
    differing = treatment.differing["slate"].mean() - control.differing["slate"].mean()
    assert plain.difference == pytest.approx(differing)
    assert plain.control == pytest.approx(control.reward.mean())
    # By hand: the variance of a difference of means, adjusted by the slope of both arms.
    ours = pooled_moments(*both)
    ys, ns = (
        [getattr(arm, name)["slate"] for arm in (control, treatment)]
        for name in ("differing", "decisions")
    )
    size = [len(y) for y in ys]
    slope = sum(np.cov(y, n)[0, 1] / k for y, n, k in zip(ys, ns, size, strict=True)) / sum(
        np.var(n, ddof=1) / k for n, k in zip(ns, size, strict=True)
    )
    left = [y - slope * n for y, n in zip(ys, ns, strict=True)]
    assert ours.difference == pytest.approx(left[1].mean() - left[0].mean())
    assert ours.variance == pytest.approx(
        sum(np.var(one, ddof=1) / k for one, k in zip(left, size, strict=True))
    )


def test_equal_policies_do_not_differ_at_all() -> None:
    same = memoryless(0.0, 50)
    lift = pooled_lift(NAMES, *halves(*same, seed=0), "life")
    assert (float(lift.moments.lift), lift.low, lift.high) == (0, 0, 0)
    assert np.isnan(lift.p)
    assert lift.sentence.startswith(
        "There is no difference at all: the policies decide alike in 100%"
    )


def test_answers_before_the_first_difference_of_a_life_cancel(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    """Of deterministic policies a life counts from its first differing request on."""
    control, treatment = twins
    for arm in twins:
        assert (arm.differing["life"] <= arm.reward).all()
        assert (arm.decisions["slate"] <= arm.decisions["life"]).all()
    kept = [arm.reward - arm.differing["life"] for arm in (control, treatment)]
    assert kept[0] == pytest.approx(kept[1])


def test_chances_are_multiplied_along_each_life_in_the_order_of_steps() -> None:
    lives = _Lives()
    user, step = np.array([1, 0, 1, 0, 1]), np.array([5, 2, 3, 9, 4])
    first, second = np.array([0.5, 0.1, 0.2, 1.0, 1.0]), np.array([0.25, 0.2, 0.4, 0.5, 0.0])
    past = np.zeros((5, 1), dtype=np.int64)
    nothing = past > 0
    rounds = Rounds(
        user, past[:, 0], past[:, 0], past[:, 0], past, past, past.astype(float),
        past.astype(float), "unknown", past[:, 0], Histories(user, step, past, nothing, past),
    )  # fmt: skip
    lives.add(rounds, np.arange(5.0), first, second)
    got = {}
    for users, reward, one, other in lives.by_request():
        for i in range(len(users)):
            got[int(reward[i])] = other[i] / one[i]
    # User 0: steps 2, 9 (rows 1, 3); user 1: steps 3, 4, 5 (rows 2, 4, 0).
    assert got == pytest.approx({1: 2.0, 3: 1.0, 2: 2.0, 4: 0.0, 0: 0.0})


def test_error_rates_and_gain_where_nothing_that_was_shown_changes_anything(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    for audit in pooled_audit(*twins, n=400, repetitions=600, levels=("life", "slate")):
        error = 3 * np.sqrt(0.95 * 0.05 / 600)
        print(audit)
        assert audit.error.value == pytest.approx(0.05, abs=error)
        assert audit.coverage.value == pytest.approx(0.95, abs=error)
        assert audit.gain > (1.05 if audit.level == "life" else 30)
    assert carry_over(*twins, "slate") > 0.01
    assert np.isnan(carry_over(*twins, "life"))
    with pytest.raises(ReplayError, match="needs twins"):
        list(pooled_audit(twins[0], twins[1].rows(np.arange(5)), 100))


def test_what_comes_later_is_found_out_and_other_models_are_named(
    twins: tuple[ArmSums, ArmSums],
) -> None:
    control, treatment = twins
    tired = replace(treatment, requests=treatment.requests * 0.9)
    found = pooled_lift(NAMES, control, tired, "slate")
    assert found.word == "unusable"
    assert "changes what comes later" in found.reasons[0]
    other = replace(control, own=control.own * 0.5)
    strange = pooled_lift(NAMES, other, treatment, "life")
    assert (
        "the policy of control would not have shown what the log says in 50%" in strange.reasons[0]
    )
    with pytest.raises(ReplayError, match="three users"):
        pooled_lift(NAMES, control.rows(np.arange(2)), treatment, "life")


def test_only_what_nothing_tests_is_held_against_an_estimate(
    twins: tuple[ArmSums, ArmSums], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.offpolicy.pooled.WORTH", 1.0)
    found = {level: pooled_lift(NAMES, *twins, level) for level in LEVELS}
    assert {level: lift.word for level, lift in found.items()} == {
        "life": "trustworthy",
        "slate": "trustworthy",
        "cascade": "weak",
        "place": "weak",
    }
    (why,) = found["place"].reasons
    assert why == "nothing here tests that an answer depends on no other item of the slate"


SMALL = {
    "name": "small",
    "seed": 4,
    "users": {"kind": "choice", "n_users": 40, "n_items": 60},
    "data": {"source": "synthetic", "history_days": 2},
    "days": 1,
    "serving": {"slate": 3, "recall": 20},
    "arms": {
        "near": {"policy": "itemknn", "params": {"neighbours": 20}},
        "base": {"policy": "itemknn", "params": {"neighbours": 30}},
    },
    "design": {"kind": "paired", "control": "base"},
    "engine": {"executor": "serial"},
}


@pytest.mark.parametrize("kind", ["paired", "split"])
def test_the_command_asks_the_models_of_a_run(tmp_path: Path, kind: str) -> None:
    scenario = {**SMALL, "design": {"kind": kind, "control": "base"}}
    root = tmp_path / "run"
    simulate(Scenario.model_validate(scenario), root, folder=tmp_path)
    arguments = [str(root), "--repetitions", "100", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    ((one,)) = json.loads((tmp_path / "out" / "pooled.json").read_text())
    assert [lift["level"] for lift in one["lifts"]] == list(LEVELS)
    # The saved models, rankers and histories show what the log says: nothing speaks of a stranger.
    assert not any("another version" in r for lift in one["lifts"] for r in lift["reasons"])
    assert (one["paired"]["lift"] is None) == (kind == "split")
    assert len(one["audits"]) == (0 if kind == "split" else len(LEVELS))
    again = CliRunner().invoke(command, [*arguments, "--quiet"])
    assert again.output.strip() == str(tmp_path / "out" / "pooled.html")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serving": {"refit": "daily"}}, "serving.refit is daily"),
        ({"fits": 2}, "fits.number is 2"),
        ({"design": {"kind": "switchback"}, "days": 4}, "design.kind is switchback"),
        ({"design": {"kind": "interleave"}}, "design.kind is interleave"),
    ],
)
def test_a_run_whose_policies_or_users_change_is_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ReplayError, match=message):
        _check(Scenario.model_validate({**SMALL, **change}))
    _check(Scenario.model_validate(SMALL))
    _check(Scenario.model_validate({**SMALL, "design": {"kind": "split", "control": "base"}}))


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    log = EventLog.from_columns(
        {name: np.array([0]) for name in ("user", "session", "request", "position", "t")}
        | {"item": np.array([1]), "click": np.array([1], np.int8)},
        Metadata(("a",), 1, 1),
    )
    log.write(tmp_path / "log.parquet")
    done = CliRunner().invoke(command, [str(tmp_path / "log.parquet"), "--quiet"])
    assert done.exit_code == 2
    assert "give the folder of a finished run" in done.output


def test_a_run_of_one_arm_has_no_lift(tmp_path: Path) -> None:
    scenario = {**SMALL, "arms": {"base": SMALL["arms"]["base"]}}  # type: ignore[index]
    simulate(Scenario.model_validate(scenario), tmp_path / "run", folder=tmp_path)
    done = CliRunner().invoke(command, [str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "has one arm, and a lift is over another" in done.output


# By hand.


def by_hand(seed: int, n: int = 12, users: int = 0) -> ArmSums:
    """Sums of users of an arm, the same for all levels but for a factor."""
    random = np.random.default_rng(seed)
    reward, requests = random.gamma(2.0, 2.0, n), random.integers(1, 9, n) * 1.0
    differing, decisions = 0.3 * reward * random.random(n), requests * random.random(n)
    return ArmSums(
        np.arange(users, users + n), reward,
        {level: differing * (i + 1) / 4 for i, level in enumerate(LEVELS)},
        {level: decisions * (i + 1) for i, level in enumerate(LEVELS)},
        requests, {level: requests * (i + 1) / 10 for i, level in enumerate(LEVELS)}, requests,
    )  # fmt: skip


def literal_moments(arms: list[ArmSums], level: Any, adjusted: bool) -> list[float]:
    """Control mean, difference, variances of both means and of the difference, df."""
    y, z = ([getattr(arm, name)[level] for arm in arms] for name in ("differing", "decisions"))
    n = [len(arm.users) for arm in arms]
    spread = sum(np.var(one, ddof=1) / k for one, k in zip(z, n, strict=True))
    cross = sum(np.cov(a, b)[0, 1] / k for a, b, k in zip(y, z, n, strict=True))
    slope = cross / spread if adjusted else 0.0
    left = [a - slope * b for a, b in zip(y, z, strict=True)]
    own = arms[0].reward
    still = own - left[0]
    parts = [np.var(one, ddof=1) / k for one, k in zip(left, n, strict=True)]
    df = sum(parts) ** 2 / sum(v**2 / (k - 1) for v, k in zip(parts, n, strict=True)) - adjusted
    return [
        own.mean(), left[1].mean() - left[0].mean(), np.var(own, ddof=1) / n[0],
        np.var(still, ddof=1) / n[0] + parts[1], np.cov(own, still)[0, 1] / n[0], sum(parts), df,
    ]  # fmt: skip


@pytest.mark.parametrize("adjusted", [True, False])
@pytest.mark.parametrize("level", LEVELS)
def test_moments_of_a_pooled_difference_are_those_of_what_is_left(
    level: Any, adjusted: bool
) -> None:
    arms = [by_hand(1), by_hand(2, 15, 12)]
    found = pooled_moments(*(moments.sample(arm.columns(level)) for arm in arms), adjusted)
    got = [
        found.control, found.difference, found.var_control, found.var_treatment, found.cov,
        found.variance, found.df,
    ]  # fmt: skip
    assert [float(one) for one in got] == pytest.approx(literal_moments(arms, level, adjusted))
    assert (found.n_control, found.n_treatment, found.paired) == (12, 15, False)


@pytest.mark.parametrize("level", LEVELS)
def test_a_pooled_lift_by_hand(level: Any) -> None:
    """Whole lives are not adjusted; what deciding alike brings is over a split test that is
    adjusted by requests.
    """
    arms = [by_hand(1), by_hand(2, 15, 12)]
    short = level != "life"
    found = pooled_lift(NAMES, *arms, level)
    base, difference, *_, variance, df = literal_moments(arms, level, short)
    assert float(found.moments.lift) == pytest.approx(difference / base)
    plain = sum(np.var(arm.reward, ddof=1) / len(arm.users) for arm in arms)
    assert found.gain == pytest.approx(plain / variance)
    own = intervals.fieller(found.moments)
    rough = intervals.fieller(found.split)
    assert (found.low, found.high) == (float(own.low), float(own.high))
    assert (found.split_low, found.split_high) == (float(rough.low), float(rough.high))
    means = [arm.reward.mean() for arm in arms]
    assert float(found.split.lift) == pytest.approx(means[1] / means[0] - 1)
    requests = [
        replace(arm, differing={level: arm.reward}, decisions={level: arm.requests}) for arm in arms
    ]
    by_requests = literal_moments(requests, level, True)[5] if short else plain
    assert found.alike == pytest.approx(by_requests / variance)
    every = sum(arm.requests.sum() for arm in arms)
    unlike = sum(arm.unlike[level].sum() for arm in arms)
    assert found.variation == pytest.approx(unlike / every)
    t = difference / np.sqrt(variance)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), df))
    if short:
        assert found.carry == carry_over(*arms, level)
        p = [
            stats.ttest_ind(one, other, equal_var=False).pvalue
            for one, other in (
                [arm.requests for arm in arms],
                [arm.decisions[level] for arm in arms],
                [arm.reward - arm.differing[level] for arm in arms],
            )
        ]
        assert found.carry == pytest.approx(min(1.0, 3 * min(p)))
    else:
        assert np.isnan(found.carry)
    known = pooled_lift(NAMES, *arms, level, 0.25)
    assert known.carry == 0.25


def test_a_lift_takes_three_users_in_each_arm_and_some_requests() -> None:
    whole = by_hand(1)
    three, two = (whole.rows(np.arange(n)) for n in (3, 2))
    pooled_lift(NAMES, three, by_hand(2), "slate")
    for arms in ((two, whole), (whole, two)):
        with pytest.raises(ReplayError, match="at least three users in each arm"):
            pooled_lift(NAMES, *arms, "slate")
    none = replace(whole, requests=0 * whole.requests)
    assert np.isnan(pooled_lift(NAMES, none, none, "life").variation)


def test_twins_are_compared_pair_by_pair_for_what_carries_over() -> None:
    one, other = by_hand(1), by_hand(2)
    assert carry_over(one, other, "place") == pytest.approx(min(1.0, 3 * min(
        stats.ttest_rel(a, b).pvalue
        for a, b in (
            (one.requests, other.requests),
            (one.decisions["place"], other.decisions["place"]),
            (one.reward - one.differing["place"], other.reward - other.differing["place"]),
        )
    )))  # fmt: skip
    assert carry_over(one, one, "place") == 1.0  # nothing differs, nothing is known


def test_what_is_held_against_a_pooled_lift_on_both_sides_of_its_limits() -> None:
    arms = by_hand(1), by_hand(2, 12, 12)

    def judged(
        own: float = 1.0, alike: float = 1.1, carry: float = 0.01, level: Any = "slate"
    ) -> Any:
        first = replace(arms[0], own=own * arms[0].requests)
        return _judge(NAMES, (first, arms[1]), alike, carry, level)

    assert judged() == ("trustworthy", ())
    assert judged(own=0.991)[0] == "trustworthy"
    why = (
        "the policy of control would not have shown what the log says in 1% of its requests:"
        " another version, seed, history or ranking stage?"
    )
    assert judged(own=0.989) == ("unusable", (why,))
    assert judged(alike=1.09) == (
        "weak", ("deciding alike gains nothing (variance ratio 1.09)",)
    )  # fmt: skip
    word, (later,) = judged(carry=0.0099)
    assert word == "unusable"
    assert later == (
        "what an arm showed before changes what comes later (p = 0.01: how often users ask, how"
        " often the policies differ, or answers to what both would have shown), and this estimate"
        " leaves that out"
    )
    assert judged(carry=float("nan"))[0] == "trustworthy"
    below = "nothing here tests that an answer depends on the items above, not on those below"
    assert judged(level="cascade") == ("weak", (below,))
    assert judged(0.5, 1.0, 0.001, "cascade")[0] == "unusable"
    empty = replace(arms[0], requests=0 * arms[0].requests, own=0 * arms[0].own)
    assert _judge(NAMES, (empty, arms[1]), 1.1, 0.5, "slate")[0] == "unusable"


class Chances:
    """Shows each item at each place with a chance of its own."""

    def __init__(self, name: str, *chance: float) -> None:
        self.name, self.chance = name, np.array([0.0, *chance])

    def __call__(self, rounds: Rounds) -> Target:
        return Target(self.chance[rounds.item], rounds.item[:, None, :])


@pytest.mark.parametrize("arm", NAMES)
def test_an_arm_is_asked_about_every_request(arm: str) -> None:
    """Weights are (t - c) / (a c + b t) of the chances of a decision, with the sign and the share
    of the other arm; three users of whom one has no request.
    """
    control, treatment = Chances("control", 0.5, 0.3, 0.0), Chances("treatment", 0.5, 0.6, 0.2)
    users, items = [0, 0, 2], [[1, 2], [3, 1], [2, 2]]
    clicks = [[1, 0], [1, 1], [0, 1]]
    n = 6
    columns = {
        "arm": np.zeros(n, int), "user": np.repeat(users, 2), "session": np.repeat([0, 1, 0], 2),
        "request": np.zeros(n, int), "position": np.tile([0, 1], 3),
        "t": np.repeat([1, 2, 3], 2), "item": np.ravel(items),
        "click": np.ravel(clicks).astype(np.int8),
    }  # fmt: skip
    log = EventLog.from_columns(columns, Metadata((arm, "other"), 4, 3))
    shares = (0.25, 0.75)
    told: list[tuple[object, ...]] = []
    got = arm_sums(
        Stream(log, "click", arm, history=2), control, treatment, shares, np.array([0, 2, 3]),
        lambda *said: told.append(said),
    )  # fmt: skip
    assert told == [(f"ask about {arm}", 3, 0, {})]
    own = NAMES.index(arm)
    sign = (-0.25, 0.75)[own]
    differing, decisions, unlike = ({level: np.zeros(4) for level in LEVELS} for _ in range(3))
    lives = {user: [1.0, 1.0] for user in users}
    mine = np.zeros(4)

    def weight(c: float, t: float) -> float:
        mixed = shares[0] * c + shares[1] * t
        return (t - c) / mixed if mixed > 0 else 0.0

    for user, slate, click in zip(users, items, clicks, strict=True):
        both = [[float(one.chance[item]) for item in slate] for one in (control, treatment)]
        mine[user] += min(both[own]) > 0
        down = [list(np.cumprod(one)) for one in both]
        lives[user] = [a * b[-1] for a, b in zip(lives[user], down, strict=True)]
        per_level = {
            "place": [weight(c, t) for c, t in zip(*both, strict=True)],
            "cascade": [weight(c, t) for c, t in zip(*down, strict=True)],
            "slate": [weight(down[0][-1], down[1][-1])] * 2,
            "life": [weight(*lives[user])] * 2,
        }
        for level, one in per_level.items():
            differing[level][user] += sign * sum(w * r for w, r in zip(one, click, strict=True))
            decisions[level][user] += sign * sum(one) / 2
            unlike[level][user] += sum(map(abs, one)) / 4
    assert got.users.tolist() == [0, 2, 3]
    assert got.reward.tolist() == [3.0, 1.0, 0.0]
    assert got.requests.tolist() == [2.0, 1.0, 0.0]
    assert got.own.tolist() == mine[[0, 2, 3]].tolist()
    for mine_of, want in ((got.differing, differing), (got.decisions, decisions),
                          (got.unlike, unlike)):  # fmt: skip
        for level in LEVELS:
            np.testing.assert_allclose(mine_of[level], want[level][[0, 2, 3]], err_msg=level)
    with pytest.raises(ReplayError, match="the arm 'other' is of neither policy: control, treatme"):
        arm_sums(Stream(log, "click", "other"), control, treatment, shares, np.arange(3))


def test_an_arm_without_requests_has_sums_of_0() -> None:
    one = {name: np.array([0]) for name in ("arm", "user", "session", "request", "position", "t")}
    columns = one | {"item": np.array([1]), "click": np.array([1], np.int8)}
    log = EventLog.from_columns(columns, Metadata(("a", "control"), 2, 1))
    policies = Chances("control", 1.0), Chances("treatment", 1.0)
    got = arm_sums(Stream(log, "click", "control", history=1), *policies, (0.5, 0.5), np.arange(2))
    assert got.reward.tolist() == got.requests.tolist() == got.own.tolist() == [0, 0]
    assert list(got.unlike) == list(LEVELS)
    assert not np.concatenate(list(got.unlike.values())).any()
    assert list(_Lives().by_request()) == []


def test_an_audit_counts_what_each_sample_said() -> None:
    """Samples are drawn by the seed; gains are of mean variances."""
    arms = [by_hand(1), by_hand(2)]
    truth = arms[1].reward.mean() / arms[0].reward.mean() - 1
    for audit in pooled_audit(arms[0], arms[1], 9, 40, 3, ("life", "place")):
        level, short = audit.level, audit.level != "life"
        errors, held, ours, theirs, requests, lifts = ([] for _ in range(6))  # type: ignore[var-annotated]
        plain_errors, plain_held = [], []
        for heads, tails in draws(12, 9, 40, 3):
            here, null, effect = (
                moments.weighted(arm.columns(level), weight)
                for arm, weight in ((arms[0], heads), (arms[0], tails), (arms[1], tails))
            )
            none, some = (pooled_moments(here, one, short) for one in (null, effect))
            errors += list(t_test(none).p < 0.05)
            ends = intervals.fieller(some)
            held += list((ends.low <= truth) & (truth <= ends.high))
            ours += list(some.variance)
            lifts += list(some.lift)
            none, some = (moments.split_moments(here, one, 0, None) for one in (null, effect))
            plain_errors += list(t_test(none).p < 0.05)
            ends = intervals.fieller(some)
            plain_held += list((ends.low <= truth) & (truth <= ends.high))
            theirs += list(some.variance)
            both = (sample.pick((0, 0, 3)) for sample in (here, effect))
            requests += list(pooled_moments(*both, short).variance)
        assert len(errors) == 40
        assert (audit.n, audit.repetitions) == (9, 40)
        for rate, hits in ((audit.error, errors), (audit.split_error, plain_errors),
                           (audit.coverage, held), (audit.split_coverage, plain_held)):  # fmt: skip
            assert rate == Rate.of(int(sum(hits)), 40)
        assert audit.gain == pytest.approx(np.mean(theirs) / np.mean(ours))
        assert audit.alike == pytest.approx(np.mean(requests) / np.mean(ours))
        assert audit.bias == pytest.approx(np.mean(lifts) - truth)
        assert audit.lift == pytest.approx(truth)


def test_a_coin_gives_each_twin_an_arm() -> None:
    arms = [by_hand(1, 50), by_hand(2, 50)]
    heads = np.random.default_rng(4).random(50) < 0.5
    control, treatment = halves(*arms, seed=4)
    assert control.users.tolist() == np.flatnonzero(heads).tolist()
    assert treatment.users.tolist() == np.flatnonzero(~heads).tolist()
    np.testing.assert_array_equal(treatment.reward, arms[1].reward[~heads])
    for name in ("differing", "decisions", "unlike"):
        for level in LEVELS:
            want = getattr(arms[0], name)[level][heads]
            np.testing.assert_array_equal(getattr(control, name)[level], want)
    np.testing.assert_array_equal(control.own, arms[0].own[heads])
    np.testing.assert_array_equal(control.requests, arms[0].requests[heads])


def test_twins_are_split_by_a_coin_and_audited_others_are_not() -> None:
    twins = by_hand(1, 30), by_hand(2, 30)
    one = _compared(NAMES, "click", *twins, 20, 5)
    paired = moments.paired(twins[0].reward, twins[1].reward)
    ends = intervals.fieller(paired)
    assert (one.paired, one.paired_low, one.paired_high) == (
        float(paired.lift), float(ends.low), float(ends.high),
    )  # fmt: skip
    assert [audit.level for audit in one.audits] == list(LEVELS)
    assert one.audits[0] == next(pooled_audit(*twins, 30, 20, 5))
    arms = halves(*twins, 5)
    assert one.lifts[1].moments == pooled_lift(NAMES, *arms, "slate").moments
    assert one.lifts[1].carry == carry_over(*twins, "slate")  # of all that is known
    assert _compared(NAMES, "click", *twins, 0, 5).audits == ()
    apart = by_hand(1), by_hand(2, 12, 12)
    split = _compared(NAMES, "click", *apart, 20, 5)
    assert np.isnan([split.paired, split.paired_low, split.paired_high]).all()
    assert (split.audits, split.reward, split.control) == ((), "click", "control")
    assert split.lifts[1].moments == pooled_lift(NAMES, *apart, "slate").moments
