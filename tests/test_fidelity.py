"""Fidelity: agreement against scipy and hand-made truths, and the whole command on a small
world.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import kendalltau, spearmanr

from policies.base import Fitting
from policies.registry import make
from policies.time import DAY
from simulator.cli.fidelity import fidelity as command
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.log.workspace import Workspace, load_catalogue
from simulator.offpolicy.agreement import Agreement, agreement, for_new_policies
from simulator.offpolicy.evidence import Evidence
from simulator.offpolicy.fidelity import FEWEST, POLICIES, YARDSTICKS, FidelityResult, widened
from simulator.offpolicy.fidelity_page import _figures, _policies, answer
from simulator.offpolicy.jobs import training
from simulator.offpolicy.offline_figure import READING, Figure, reading
from simulator.offpolicy.online import Online, OnlinePolicy, best_of, online
from simulator.offpolicy.ranked import RankedClicks
from simulator.offpolicy.replay import ReplayError
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.target import PolicyTargets, Target, apart
from simulator.offpolicy.target_fits import Lesson, Wanted, served
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Arm
from simulator.serving.ranking import Ranker, impression_features

WORLD = """
name: small
seed: 5
data:
  source: synthetic
  history_days: 4
  logging: {policy: production, temperature: 1.0, epsilon: 0.05}
users: {kind: choice, n_users: 60, n_items: 80}
days: 2
serving: {slate: 4, recall: 20}
engine: {executor: serial, shards: 1}
arms:
  random: {policy: random}
  popularity: {policy: popularity}
  itemknn: {policy: itemknn}
  fading: {policy: popularity, params: {half_life: 1.0}}
  blurred: {policy: explore, params: {policy: popularity, epsilon: 0.5}}
  near: {policy: explore, params: {policy: itemknn, temperature: 0.1, epsilon: 0.1}}
  far: {policy: explore, params: {policy: itemknn, temperature: 0.1, epsilon: 0.8}}
  wide: {policy: explore, params: {policy: popularity, temperature: 10.0, epsilon: 0.05}}
"""


def truth(lift: np.ndarray, noise: float = 0.0) -> Online:
    random = np.random.Generator(np.random.Philox(key=4))
    names = tuple(f"policy {i}" for i in range(len(lift)))
    resampled = lift[:, None] + noise * random.standard_normal((len(lift), 400))
    return Online(names, names[0], 1 + lift, np.full(len(lift), 0.01), lift, resampled)


def figure(value: np.ndarray, error: float = 0.0, *, estimates: bool = False) -> Figure:
    return Figure("figure", value, np.full(len(value), error), ("",) * len(value), estimates)


def test_correlations_are_scipys() -> None:
    random = np.random.Generator(np.random.Philox(key=12))
    lift, value = random.normal(size=9), np.round(random.normal(size=9), 1)
    value[3] = value[5]  # a tie
    said = agreement(figure(value), truth(lift), [None] * 9, 0)
    assert said.rho == pytest.approx(spearmanr(value, lift).statistic)
    assert said.kendall == pytest.approx(kendalltau(value, lift).statistic)
    assert (said.low, said.high) == pytest.approx((said.rho, said.rho))  # no noise on either side


def test_the_permutation_p_value_is_that_of_all_orders() -> None:
    lift = np.arange(8.0)
    assert agreement(figure(lift), truth(lift), [None] * 8, 0).p == pytest.approx(
        2 / 40320, abs=2e-3
    )
    random = np.random.Generator(np.random.Philox(key=13))
    value = random.normal(size=8)
    said = agreement(figure(value), truth(lift), [None] * 8, 0)
    from itertools import permutations

    ranks = value.argsort().argsort() + 1.0
    every = np.array(list(permutations(range(1, 9))), dtype=float)
    rho = ((every - 4.5) @ (ranks - 4.5)) / 42.0
    assert said.p == pytest.approx(
        float((np.abs(rho) >= abs(said.rho) - 1e-9).mean()), abs=4 * 0.5 / np.sqrt(5000)
    )


def test_noise_of_either_side_widens_the_interval() -> None:
    lift = np.linspace(0, 1, 8)
    calm, online_noise, offline_noise = (
        agreement(figure(lift, error), truth(lift, noise), [None] * 8, 0)
        for noise, error in ((0, 0), (0.3, 0), (0, 0.3))
    )
    assert calm.low == calm.high == pytest.approx(1)
    assert online_noise.low < 0.95
    assert offline_noise.low < 0.95


def test_what_the_pick_loses_is_corrected_for_the_choice_of_the_best() -> None:
    """Policies that do not differ: the best-looking is ahead by luck, and the pick loses nothing
    that is shown; one that is far ahead is so after the correction, too.
    """
    random = np.random.default_rng(9)
    luck = 0.02 * random.standard_normal(16)
    chosen = np.abs(luck).argmin()
    said = agreement(
        figure((np.arange(16) == chosen) + 0.0), truth(luck, 0.02), [None] * 16, 0
    )  # fmt: skip
    assert said.regret == pytest.approx(luck.max() - luck[chosen])
    assert said.lost < said.regret
    assert said.lost_low == 0.0
    ahead = luck + np.where(np.arange(16) == 3, 0.5, 0.0)
    worst = agreement(figure(-ahead), truth(ahead, 0.02), [None] * 16, 0)
    assert worst.lost_low < worst.regret < worst.lost_high
    assert worst.lost == pytest.approx(worst.regret, abs=0.01)
    assert agreement(figure(ahead), truth(ahead, 0.02), [None] * 16, 0).lost_high == 0.0
    best = best_of(truth(luck, 0.02), "click")
    assert best is not None
    assert best.estimate < best.lift
    assert sum(one.best for one in best.arms) == pytest.approx(1.0)


def test_error_regret_and_cover() -> None:
    lift = np.array([0.0, 0.2, 0.1])
    said = agreement(
        figure(np.array([1.1, 1.2, 1.4]), estimates=True), truth(lift), [True, False, None], 0
    )
    assert said.error == pytest.approx(np.sqrt(((1.1 / 1 - 1) ** 2 + 0 + (1.4 / 1.1 - 1) ** 2) / 3))
    assert said.regret == pytest.approx(0.2 - 0.1)  # it would have picked the third
    assert (said.lost, said.lost_low, said.lost_high) == pytest.approx((0.1,) * 3), "no noise"
    assert said.covered == 1
    missing = agreement(figure(np.array([1.1, np.nan, 1.4])), truth(lift), [None] * 3, 0)
    assert (missing.policies, missing.covered) == (2, None)
    assert np.isnan(missing.error)


def test_pairs_are_counted_by_hand() -> None:
    lift, value = np.array([0.0, 0.1, 0.2, 0.3]), np.array([0.0, 2.0, 1.0, 3.0])
    said = agreement(figure(value), truth(lift), [None] * 4, 0)
    assert (said.pairs, said.ordered) == (6, pytest.approx(5 / 6))
    left_out = np.array(
        [2 / 3, 1, 1, 2 / 3]
    )  # the pair (1, 2) is wrong: without one of them all three are right
    assert said.ordered_error == pytest.approx(
        np.sqrt(3 / 4 * np.square(left_out - left_out.mean()).sum())
    )
    assert said.pick == "policy 3"
    tied = agreement(figure(np.array([0.0, 1.0, 1.0, 3.0])), truth(lift), [None] * 4, 0)
    assert tied.ordered == pytest.approx(5.5 / 6)
    noisy = agreement(figure(value), truth(lift, 1.0), [None] * 4, 0)  # no difference is proven
    assert noisy.pairs == 0
    assert np.isnan(noisy.ordered)


def by(name: str, *values: float, error: float, word: str = "weak") -> Figure:
    """A figure of four policies."""
    return Figure(name, np.array(values), np.full(4, error), (word,) * 4, estimates=True)


def test_ties_for_the_first_place_are_broken_by_another_figure() -> None:
    """The rollout's own error leaves the first three tied (1.96 sqrt(2) .1 = .28). The second
    figure knows the last policy as its best, which is no tie, and cannot tell the third from the
    second (1.96 sqrt(2) .01 = .028).
    """
    rollout = by("rollout", 3.0, 2.9, 2.8, 1.0, error=0.1)
    ranked = by("ranked", 0.5, 0.7, 0.69, 0.9, error=0.01)
    read = reading([ranked, rollout])
    assert read is not None
    assert (read.name, read.leaders, read.best, read.tied(1)) == (READING, (0, 1, 2), 1, [2])
    assert np.argsort(-read.value).tolist() == [1, 0, 2, 3]
    said = agreement(read, truth(np.array([0.0, 0.1, -0.1, -0.2])), [None] * 4, 0)
    assert (said.pick, said.tied, said.ordered) == ("policy 1", ("policy 2",), 1.0)
    sure = reading([by("rollout", 3.0, 2.9, 2.8, 1.0, error=0.01), ranked])
    assert sure is not None
    assert (sure.leaders, sure.best, sure.tied(0)) == ((0,), 0, [])
    assert reading([rollout]) is None
    assert reading([rollout, by("ranked", 0.5, np.nan, 0.6, 0.9, error=0.01)]) is None
    assert reading([by("rollout", 3.0, 2.0, 1.0, 0.0, error=1.0, word="unusable"), ranked]) is None


def test_the_interval_for_new_policies_covers_as_often_as_it_says() -> None:
    """16 policies from a bivariate normal law of correlation r, whose Spearman correlation is 6/pi
    asin(r/2) (Pearson 1907).
    """
    random = np.random.Generator(np.random.Philox(key=14))
    covered, times, r = 0, 2000, 0.7
    exact = 6 / np.pi * np.arcsin(r / 2)
    for _ in range(times):
        x, y = random.multivariate_normal([0, 0], [[1, r], [r, 1]], 16).T
        low, high = for_new_policies(float(spearmanr(x, y).statistic), 16)
        covered += low <= exact <= high
    assert covered / times == pytest.approx(0.95, abs=0.02)


def test_the_interval_for_new_policies_has_the_width_of_bonett_and_wright() -> None:
    """sqrt((1 + .6^2 / 2) / (19 - 3)) = .2716 on Fisher's scale, to either side."""
    low, high = np.arctanh(for_new_policies(0.6, 19)) - np.arctanh(0.6)
    assert (low, high) == pytest.approx((-1.96 * 0.271570, 1.96 * 0.271570), abs=1e-4)


def test_yardsticks_are_what_their_names_say() -> None:
    keys = {" neighbours": ("neighbours", 1.0), "% uniform": ("epsilon", 0.01)}
    keys |= {" days": ("half_life", 1.0)}
    told = 0
    for name, spec in YARDSTICKS.items():
        for word, (key, unit) in keys.items():
            match = re.search(rf"(\d+){word}", name)
            if match is not None:
                assert spec["params"][key] == pytest.approx(unit * int(match[1])), name
                told += 1
    assert told == 7


def test_online_counts_users_without_requests() -> None:
    log = EventLog.from_columns(
        {
            "arm": [0, 0, 0, 1, 1],
            "user": [0, 0, 2, 0, 2],
            "session": [0, 1, 0, 0, 0],
            "request": [0] * 5,
            "position": [0] * 5,
            "t": [0, 9, 5, 0, 5],
            "item": [1] * 5,
            "click": np.array([1, 0, 1, 1, 1], dtype=np.int8),
        },
        Metadata(("a", "b"), n_users=4, n_items=2, control="a"),
    )
    found = online(log, "a", "click", 50, 0)
    np.testing.assert_allclose(found.value, [2 / 3, 1.0])
    np.testing.assert_allclose(found.lift, [0, 0])  # both have two clicks of four users
    assert found.resampled.shape == (2, 50)


def test_there_is_no_lift_over_a_control_without_any_reward() -> None:
    log = EventLog.from_columns(
        {
            "arm": [0, 0, 1, 1],
            "user": [0, 1, 0, 1],
            "session": [0] * 4,
            "request": [0] * 4,
            "position": [0] * 4,
            "t": [0, 5, 0, 5],
            "item": [1] * 4,
            "click": np.array([0, 0, 0, 1], dtype=np.int8),
        },
        Metadata(("a", "b"), n_users=2, n_items=2, control="a"),
    )
    with pytest.raises(ReplayError, match="the control 'a' got no click"):
        online(log, "a", "click", 50, 0)
    np.testing.assert_allclose(online(log, "b", "click", 50, 0).lift, [-1, 0])


def test_few_arms_are_filled_up_with_yardsticks(tmp_path: Path) -> None:
    file = tmp_path / "few.yaml"
    file.write_text(WORLD.split("  itemknn:")[0])
    scenario = Scenario.load(file)
    assert len(widened(scenario).arms) == POLICIES
    wide = widened(scenario, FEWEST)
    assert len(wide.arms) == FEWEST
    assert list(wide.arms)[:2] == ["random", "popularity"]
    assert wide.design.control == "random"
    with pytest.raises(ReplayError, match="--policies must be at least 8"):
        widened(scenario, FEWEST - 1)
    with pytest.raises(
        ReplayError, match="--policies 99: small has 2 arms, and there are 16 yardsticks"
    ):
        widened(scenario, 99)


def made_agreement(**of: Any) -> Agreement:
    """One that is shown: `of` says what else it is."""
    tenths = (
        "low",
        "high",
        "new_low",
        "new_high",
        "ordered_error",
        "kendall",
        "error",
        "regret",
        "lost",
    )
    values = dict.fromkeys((*tenths, "lost", "lost_low", "lost_high"), 0.1)
    values |= {"p": 0.01, "p_adjusted": 0.01, "rho": 0.5, "ordered": 0.9, "pairs": 3, "points": ()}
    values |= {"tied": (), "doubts": ()}
    return Agreement(**(values | {"policies": 8, "usable": 8, "covered": 7, "pick": "x"} | of))


def made_result(figures: Sequence[Agreement]) -> FidelityResult:
    """A result of three policies."""
    policies = tuple(OnlinePolicy(str(i), i / 10, 0.0, 0.3, 1.0, 0.1) for i in range(3))
    return FidelityResult("made", "click", 2, "0", policies, None, tuple(figures), 1.0, 9)


def test_the_answer_is_of_every_policy_where_any_figure_is() -> None:
    """The first figure orders most, but one policy has none of it; the third is not usable."""
    figures = [
        made_agreement(figure=name, policies=policies, usable=usable, ordered=ordered)
        for name, policies, usable, ordered in (
            ("first", 2, 2, 1.0),
            ("second", 3, 3, 0.7),
            ("third", 3, 2, 0.9),
            ("fourth", 2, 3, 0.8),
        )
    ]
    assert answer(made_result(figures)).startswith("Read second:")
    assert answer(made_result(figures[:1] + figures[2:])).startswith("Read first:")


def test_the_rollout_is_read_with_its_ties_broken() -> None:
    figures = [
        made_agreement(figure=name, policies=3, usable=3, ordered=ordered)
        for name, ordered in (("rollout", 0.9), (READING, 0.8), ("ranked", 0.7))
    ]
    assert answer(made_result(figures)).startswith(f"Read {READING}: it orders 80.0%")
    assert answer(made_result(figures[::2])).startswith("Read rollout:")
    better = made_agreement(figure="hr@10", policies=3, usable=3, ordered=0.95)
    assert answer(made_result([*figures, better])).startswith("Read hr@10:")


def test_the_best_policy_online_has_the_first_place() -> None:
    rows = _policies(made_result([])).rows
    assert [(row[0].text, row[1].text) for row in rows] == [("1", "2"), ("2", "1"), ("3", "0")]


def test_only_an_estimate_of_the_reward_has_a_relative_error() -> None:
    ranking = made_agreement(figure="hr@10", error=math.nan, covered=None)
    estimate = made_agreement(figure="ips", error=0.25, covered=7)
    table = _figures(made_result([ranking, estimate]))
    heads = [column.head for column in table.columns]
    shown = [
        (row[heads.index("Relative error")].text, row[heads.index("Covered")].text)
        for row in table.rows
    ]
    assert shown == [("n/a", "n/a"), ("25.0%", "7 of 8")]


def test_an_interrupted_command_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c(*args: Any, **how: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulator.offpolicy.fidelity.fidelity", ctrl_c)
    file = tmp_path / "small.yaml"
    file.write_text(WORLD)
    asked = ["--out", str(tmp_path / "out"), "--policies", "4", "--quiet"]
    done = CliRunner().invoke(command, [str(file), *asked])
    assert done.exit_code == 130
    again = f"abtest fidelity {file} --out {tmp_path / 'out'} --policies 4 --quiet --resume"
    assert again in done.output


def test_the_command_on_a_small_world(tmp_path: Path) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(WORLD)
    done = CliRunner().invoke(
        command, [str(file), "--out", str(out), "--resamples", "100", "--policies", "8"]
    )
    assert done.exit_code == 0, done.output
    content = json.loads((out / "fidelity.json").read_text())
    assert len(content["policies"]) == FEWEST
    assert {"recalled", "ranked", "rollout", "dm", "hr@10", "ndcg@10", "rips"} <= {
        f["figure"] for f in content["figures"]
    }
    control = next(p for p in content["policies"] if p["policy"] == "random")
    assert (control["lift"], control["low"], control["high"]) == (0, 0, 0)
    rhos = [f["rho"] for f in content["figures"] if f["rho"] is not None]
    assert rhos == sorted(rhos, reverse=True)
    for f in content["figures"]:
        assert f["pairs"] <= 28
        assert f["ordered"] is None or 0 <= f["ordered"] <= 1
    answer = " ".join(done.output.split())
    assert ("it orders" in answer) or ("No two policies differ" in answer)
    svg = (out / "fidelity.svg").read_text()
    assert svg.count("<circle") >= len(content["figures"])
    assert "http" not in (out / "fidelity.html").read_text().replace(
        "http://www.w3.org/2000/svg", ""
    ).replace("http-equiv", "")
    again = CliRunner().invoke(
        command,
        [
            str(file),
            "--out",
            str(out),
            "--resamples",
            "100",
            "--policies",
            "8",
            "--resume",
            "--quiet",
        ],
    )
    assert again.exit_code == 0, again.output
    assert json.loads((out / "fidelity.json").read_text()) == content
    anew = CliRunner().invoke(command, [str(file), "--out", str(out), "--policies", "8"])
    assert anew.exit_code == 2  # a finished run is not taken over unless it is asked for
    assert "resume" in anew.output
    file.write_text(WORLD.replace("seed: 5", "seed: 6"))
    other = CliRunner().invoke(
        command, [str(file), "--out", str(out), "--policies", "8", "--resume", "--quiet"]
    )
    assert other.exit_code == 2
    assert "another scenario" in other.output
    assert "seed" in other.output


def test_the_offline_side_shows_what_a_run_serves(tmp_path: Path) -> None:
    """The candidates of the arm and of the channels, without repeats, by the ranker's score, best
    first; equal scores in the order of recall.
    """
    quotas = "serving: {slate: 4, recall: 8, channels: [{name: c, policy: random, quota: 5}]}"
    file = tmp_path / "small.yaml"
    file.write_text(WORLD.split("  itemknn:")[0].replace("serving: {slate: 4, recall: 20}", quotas))
    scenario = Scenario.load(file)
    assert scenario.serving.ranking.kind == "pointwise"
    where = Workspace(tmp_path / "run")
    simulate(scenario, where.root)
    log, catalogue = EventLog.open(where.log), load_catalogue(where.models / "catalogue.npz")
    past, since, seed = scenario.serving.history, -2 * DAY, apart(scenario.seed)
    sequences = training(log, "history", since, None)
    arms = [Wanted(name, arm.policy, arm.params, tmp_path) for name, arm in scenario.arms.items()]
    lessons = [Lesson(sequences, scenario.seed)]
    policies, desks = served(scenario, arms, lessons, catalogue, Fitting(scenario.seed))
    assert [desk.arm for (desk,) in desks] == ["random", "popularity"]
    beside = make("random", {}).fit(sequences, catalogue, Fitting(scenario.seed))
    ranker = Ranker.fit(sequences, catalogue, past, scenario.serving.ranking.watch_weight)
    (rounds,) = (one for one in Stream(log, "click", "history", since, past) if one.length == 4)
    histories = rounds.histories
    assert histories is not None
    by_channel = 0
    for (_, (policy,)), (desk,) in zip(policies, desks, strict=True):
        target = PolicyTargets(desk.arm, desk)(rounds)
        assert target.deterministic
        lists = policy.recall(histories, 8, seed).items, beside.recall(histories, 5, seed).items
        np.testing.assert_array_equal(target.recalled, lists[0])
        for row in range(len(rounds)):
            own, others = lists[0][row].tolist(), lists[1][row].tolist()
            candidates = list(dict.fromkeys(item for item in own + others if item))
            scores = ranker.score(histories.rows([row]), np.array([candidates]))[0]
            order = sorted(range(len(candidates)), key=lambda place: -scores[place])
            slate = [candidates[place] for place in order[:4]]
            assert target.slates[row, 0].tolist() == slate
            by_channel += len(set(slate) - set(own))
    assert by_channel > 0


def test_what_the_ranker_expects_is_its_logistic_regression(tmp_path: Path) -> None:
    """Of the logged slates themselves, whose features are known from another function."""
    file = tmp_path / "small.yaml"
    file.write_text(WORLD.split("  itemknn:")[0])
    scenario = Scenario.load(file)
    where = Workspace(tmp_path / "run")
    simulate(scenario, where.root)
    log, catalogue = EventLog.open(where.log), load_catalogue(where.models / "catalogue.npz")
    window, since = scenario.serving.history, -2 * DAY
    before, whole = training(log, "history", since, None), log.sequences("history")
    ranker = Ranker.fit(before, catalogue, window, 1.0)
    assert ranker.weight == 1.0
    rows = np.flatnonzero(whole.t >= since)
    features = impression_features(whole, rows, before, catalogue, window)
    expected = (1 / (1 + np.exp(-features @ ranker.click))).sum()
    estimator, total = RankedClicks.of(ranker, before, catalogue, window), 0.0
    for rounds in Stream(log, "click", "history", since, window):
        shown = Target(np.ones(rounds.item.shape), rounds.item[:, None], deterministic=True)
        ((value, below),) = estimator.ratios(Evidence(rounds, shown))
        assert below is None
        total += value.sum()
        twice = Target(np.ones(rounds.item.shape), np.stack([rounds.item, 0 * rounds.item], axis=1))
        ((half, _),) = estimator.ratios(Evidence(rounds, twice))
        np.testing.assert_allclose(half, value / 2)  # an empty slate expects nothing
    assert total == pytest.approx(expected, rel=1e-5)


def test_no_policy_stands_twice_among_the_points(tmp_path: Path) -> None:
    """`far` is the yardstick `itemknn, 80% uniform` under another name; all yardsticks differ from
    one another.
    """
    (tmp_path / "s.yaml").write_text(WORLD)
    arms = widened(Scenario.load(tmp_path / "s.yaml"), 16).arms
    assert "itemknn, 80% uniform" not in arms
    assert "itemknn, 20% uniform" in arms
    for wide in (arms, {name: Arm.model_validate(spec) for name, spec in YARDSTICKS.items()}):
        made = [make(arm.policy, arm.params) for arm in wide.values()]
        assert all(one != other for i, one in enumerate(made) for other in made[:i])
    with pytest.raises(
        ReplayError,
        match=(
            r"--policies 40: small has 8 arms, and there are 16 yardsticks, \d+ of them other than"
            r" these"
        ),
    ):
        widened(Scenario.load(tmp_path / "s.yaml"), 40)
