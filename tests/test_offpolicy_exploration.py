"""The planner of exploration: planned widths against realised ones, other logging policies from one
pilot, and the command.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.exploration import DAYS, PER_USER, USERS, ExplorationWorld, realised
from simulator.cli import main
from simulator.offpolicy.exploration import (
    OWN,
    ExplorationOption,
    ExplorationPilot,
    explore_pilot,
)
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.target import Target
from tests.worlds import simulate_scenario, tiny_scenario


def pilot(world: ExplorationWorld) -> ExplorationPilot:
    rounds = world.log(world.loggings[0], USERS, PER_USER, DAYS, 7)
    options = world.loggings[1:]
    return explore_pilot([rounds], world.target, world.control, options, USERS, world.items)


@pytest.mark.parametrize("length", [1, 3])
def test_planned_widths_are_realised_within_15_percent(length: int) -> None:
    world = ExplorationWorld(length)
    by_name = {OWN: world.loggings[0], **{one.name: one for one in world.loggings[1:]}}
    for plan in pilot(world).plans(0.02, (DAYS, 3 * DAYS)):
        printed, spread = realised(world, by_name[plan.logging], plan.requests, plan.days, 15)
        assert printed == pytest.approx(0.02, rel=0.15), plan
        assert spread == pytest.approx(0.02, rel=0.6), plan  # of 15 logs: a guard, not a measure


def test_a_plan_counts_how_alike_the_rounds_of_a_user_are() -> None:
    """Kish: variance (1 + (m - 1) dependence), with m - 1 = 9 in 5 days and 18 in 10."""
    option = ExplorationOption("b", 0.1, 0.1, 0.5, 0.6, 4.0, 0.2, 100)
    found = ExplorationPilot("t", "c", "snips", 1000, 5, 10.0,
                             (ExplorationOption("a", refused="no"), option))  # fmt: skip
    short, long = found.plans(0.05, (5, 10))
    for plan, more, days in ((short, 9, 5), (long, 18, 10)):
        requests = 4.0 * (1 + more * 0.2) * (1.959964 / 0.05) ** 2
        assert (plan.logging, plan.days) == ("b", days)
        assert plan.requests == pytest.approx(requests)
        assert plan.share == pytest.approx(requests / (200 * days))
        assert plan.cost == pytest.approx(requests * 0.1)
        assert plan.cost_share == pytest.approx(requests * 0.1 / (200 * days * 0.6))


def test_another_logging_policy_is_known_from_the_pilot() -> None:
    """What one pilot says of another policy is what a pilot under that policy says of itself."""
    world = ExplorationWorld(3)
    foretold = {one.logging: one for one in pilot(world).options}
    for logging in world.loggings[1:]:
        rounds = world.log(logging, 6 * USERS, PER_USER, DAYS, 8)
        (own,) = explore_pilot(
            [rounds], world.target, world.control, (), 6 * USERS, world.items
        ).options
        assert foretold[logging.name].variance == pytest.approx(own.variance, rel=0.1)
        assert foretold[logging.name].value == pytest.approx(own.value, rel=0.03)
        assert foretold[logging.name].control == pytest.approx(own.control, rel=0.03)


def test_the_price_is_what_the_control_would_have_got() -> None:
    world = ExplorationWorld(1)
    found = pilot(world)
    own = found.options[0]
    (plan,) = found.plans(0.02, (4,), traffic=50_000)[:1]
    assert plan.share == pytest.approx(plan.requests / 200_000)
    assert plan.cost == pytest.approx(plan.requests * (own.control - own.value))
    assert plan.cost_share == pytest.approx(plan.cost / (200_000 * own.control))
    half = found.plans(0.01, (4,), traffic=50_000)[0]
    assert half.requests == pytest.approx(4 * plan.requests)


def test_against_the_log_itself_and_with_what_cannot_log() -> None:
    world = ExplorationWorld(1)
    rounds = world.log(world.loggings[0], USERS, PER_USER, DAYS, 7)
    found = explore_pilot([rounds], world.target, None, (), USERS, world.items)
    assert found.control == OWN
    assert found.options[0].control == pytest.approx(rounds.reward.mean())
    unknown = type(rounds)(
        *(getattr(rounds, name) for name in ("user", "day", "t", "row", "position", "item")),
        rounds.reward,
        np.full(rounds.item.shape, np.nan),
        "unknown",
        rounds.context,
    )
    with pytest.raises(ReplayError, match="must say with which probability"):
        explore_pilot([unknown], world.target, None, (), USERS, world.items)


def test_the_command_plans_from_the_history_of_a_run(tmp_path: Path) -> None:
    users = {"kind": "choice", "n_users": 150, "n_items": 30}
    logging = {"policy": "production", "temperature": 3.0, "epsilon": 0.6}
    data = {"source": "synthetic", "history_days": 5, "logging": logging}
    serving = {"slate": 2, "recall": 10, "history": 16}
    root = simulate_scenario(
        tmp_path, tiny_scenario(users=users, data=data, serving=serving, days=1)
    )
    log = str(root / "log" / "arm_name=history")
    out = tmp_path / "plan.json"
    target, blurred = "explore:policy=popularity,epsilon=0.5", "explore:policy=popularity,epsilon=1"
    asked = ["power", log, "--replay", "--width", "5%", "--policy", target, "--out", str(out)]
    done = CliRunner().invoke(main, [*asked, "--logging", blurred])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "costs least with" in said or "not with all traffic" in said
    stored = json.loads(out.read_text())
    assert {one["logging"] for one in stored["options"]} == {OWN, blurred}
    assert len(stored["plans"]) >= 6
    without = CliRunner().invoke(main, ["power", log, "--replay", "--policy", target])
    assert without.exit_code == 2
    assert "--width" in without.output


class Chances:
    """A policy that shows each item at each place with a chance of its own."""

    def __init__(self, name: str, *chance: float) -> None:
        self.name, self.chance = name, np.array([0.0, *chance])

    def __call__(self, rounds: Rounds) -> Target:
        return Target(self.chance[rounds.item], rounds.item[:, None, :])


TARGET, CONTROL = Chances("target", 0.2, 0.3, 0.5), Chances("control", 0.5, 0.4, 0.1)
OTHER = Chances("other", 0.6, 0.4, 0.0)


def small_log(kind: str, places: int, n: int = 1200) -> Rounds:
    """Rounds of 250 users over the days 3 to 6."""
    random = np.random.default_rng(places)
    item = random.integers(1, 4, (n, places))
    zero, user = np.zeros(n, dtype=np.int64), np.sort(random.integers(0, 250, n))
    mood = random.random(250)[user][:, None]
    reward = 1.0 * (random.random((n, places)) < 0.8 * mood + 0.05 * item)
    chance = np.array([0, 0.3, 0.3, 0.4])[item]
    return Rounds(
        user, random.integers(3, 7, n), zero, np.arange(n), np.tile(np.arange(places), (n, 1)),
        item, reward, chance, kind, zero,
    )  # type: ignore[arg-type]  # fmt: skip


def literal_option(
    log: Rounds, come: np.ndarray, chance: np.ndarray, name: str, dependence: float | None
) -> dict[str, float]:
    """Means over rounds that come so often, with weights over `chance`; the lift's parts less
    their regression on both policies' weights.
    """
    sides = []
    for policy in (TARGET, CONTROL):
        step = policy.chance[log.item] / chance
        running = step if name == "iips" else np.cumprod(step, axis=1)
        below = step[:, 0] if name == "snips" else np.ones(len(log))
        sides.append(((running * log.reward).sum(axis=1), below, running.mean(axis=1)))
    (above, below, z), (base_above, base_below, base_z) = sides

    def mean(values: np.ndarray) -> float:
        return float(np.average(values, weights=come))

    value, base = (mean(a) / mean(b) for a, b in ((above, below), (base_above, base_below)))
    if name == "snips":
        z, base_z = above * 0 + TARGET.chance[log.item[:, 0]] / chance[:, 0], base_z
    part = (above - value * below) / (mean(below) * base)
    part = part - (base_above - base * base_below) / mean(base_below) * value / base**2
    design = np.stack([one - mean(one) for one in (z, base_z)], axis=1) * np.sqrt(come)[:, None]
    slope = np.linalg.lstsq(design, part * np.sqrt(come), rcond=None)[0]
    part = part - slope[0] * (z - mean(z)) - slope[1] * (base_z - mean(base_z))
    variance = mean(part**2)
    rounds = np.bincount(log.user)
    per_user = (rounds**2).sum() / len(log)
    if dependence is None:
        clustered = (np.bincount(log.user, weights=come * part) ** 2).sum()
        dependence = max(clustered / (variance * come.sum()) - 1, 0) / (per_user - 1)
    error = np.sqrt(variance * (1 + (per_user - 1) * dependence) / len(log))
    logged = mean(log.reward.sum(axis=1))
    return {
        "lift": value / base - 1, "error": float(error), "value": logged, "control": base,
        "variance": variance, "dependence": dependence,
        "effective": come.sum() ** 2 / (come**2).sum(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "places", "name"),
    [("marginal", 1, "snips"), ("conditional", 3, "rips"), ("marginal", 3, "iips")],
)
def test_a_pilot_is_counted_by_hand(kind: str, places: int, name: str) -> None:
    """Of the log's own policy, and of another one that never shows item 3."""
    log = small_log(kind, places)
    cut = [log.rows(slice(0, 150)), log.rows(slice(150, 150)), log.rows(slice(150, None))]
    found = explore_pilot(cut, TARGET, CONTROL, [OTHER], 250, 3)  # type: ignore[list-item]
    rounds = np.bincount(log.user)
    assert (found.target, found.control, found.estimator) == ("target", "control", name)
    assert (found.rounds, found.days) == (1200, 4)
    assert found.per_user == pytest.approx((rounds**2).sum() / 1200)
    own, other = found.options
    assert (own.logging, own.refused, other.logging, other.refused) == (OWN, "", "other", "")
    want = literal_option(log, np.ones(1200), log.propensity, name, None)
    for key, value in want.items():
        assert getattr(own, key) == pytest.approx(value, rel=1e-8), key
    assert (own.dependence > 0.01) == (name == "iips")
    ratio = OTHER.chance[log.item] / log.propensity
    come = ratio.mean(axis=1) if name == "iips" else ratio.prod(axis=1)
    chance = np.where(OTHER.chance[log.item] > 0, OTHER.chance[log.item], 1.0)
    want = literal_option(log, come, chance, name, own.dependence)
    for key, value in want.items():
        if other.refused == "":
            assert getattr(other, key) == pytest.approx(value, rel=1e-8), key


def test_what_a_pilot_says_nothing_of_is_refused() -> None:
    log = small_log("marginal", 1)

    def refused(of: Rounds, logging: Chances | None = None, target: Chances = TARGET) -> str:
        loggings = [] if logging is None else [logging]
        found = explore_pilot([of], target, CONTROL, loggings, 250, 3)  # type: ignore[arg-type]
        return found.options[-1].refused

    assert refused(log.rows(slice(0, 200))) == ""
    with pytest.raises(ReplayError) as error:
        refused(log.rows(slice(0, 199)))
    assert str(error.value) == (
        "target: the pilot is worth 199 of its rounds; at least 200 are needed"
    )
    never, nowhere = Chances("never", 0, 0, 0), "the pilot has nothing that it would show"
    assert refused(log, never) == nowhere
    with pytest.raises(ReplayError, match="target: no logged round agrees with it and with"):
        refused(log, target=replace_name(never, "target"))
    with pytest.raises(ReplayError, match="target: no logged reward agrees with it and with"):
        refused(replace(log, reward=0 * log.reward))
    seldom = Chances("seldom", 1.0, 0, 0)
    ones = int((log.item == 1).sum())
    assert 200 < ones < 500
    sure = explore_pilot([log], TARGET, CONTROL, [seldom], 250, 3).options[1]
    assert (sure.refused, sure.error) == ("", pytest.approx(0.0, abs=1e-8))  # nothing varies
    assert refused(log.rows(slice(0, 500)), seldom).startswith("the pilot is worth 1")


def replace_name(policy: Chances, name: str) -> Chances:
    return Chances(name, *policy.chance[1:])


def test_users_with_one_round_each_do_not_depend_on_themselves() -> None:
    log = small_log("marginal", 1)
    log = replace(log, user=np.arange(1200))
    found = explore_pilot([log], TARGET, CONTROL, [], 1200, 3)  # type: ignore[arg-type]
    assert (found.per_user, found.options[0].dependence) == (1.0, 0.0)
    plain = ExplorationOption("x")
    assert (plain.dependence, plain.effective, plain.refused) == (0.0, 0.0, "")
    days = [plan.days for plan in found.plans(0.1)]
    assert days == [1, 2, 4, 7, 14, 28]
