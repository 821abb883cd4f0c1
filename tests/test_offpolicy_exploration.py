"""The planner of exploration: planned widths against realised ones, other logging policies from one
pilot, and the command.
"""

from __future__ import annotations

import json
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
from simulator.offpolicy.settings import ReplayError
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
