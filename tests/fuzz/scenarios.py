"""Scenarios: every shipped one and a few small ones, mutated as trees and as bytes; the valid small
ones are run to their report.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import scenarios
from simulator.config.document import ScenarioError
from simulator.scenario.model import Scenario
from tests.fuzz import mutations
from tests.fuzz.harness import WrongEndError, command

COUNT = 5000

MOST_USERS, MOST_ITEMS, MOST_DAYS = 60, 80, 3
"""Sizes up to which a valid scenario is run."""

CHEAP = ("popularity", "itemknn", "random")

USERS: dict[str, dict[str, Any]] = {
    "choice": {"kind": "choice", "n_users": 30, "n_items": 50},
    "markov": {"kind": "markov", "n_users": 30, "n_items": 50},
}


def case(chance: random.Random, folder: Path) -> str:
    """A mutated scenario is refused by `scenario check` with file, line and key; or it is valid,
    and if small, it runs.
    """
    path = folder / "s.yaml"
    base = chance.choice([_small, _small, _shipped])(chance)
    if chance.random() < 0.3:
        path.write_bytes(
            mutations.of_bytes(
                chance, yaml.safe_dump(base, sort_keys=False, allow_unicode=True).encode()
            )
        )
    else:
        tree = mutations.of_tree(chance, base)
        path.write_text(
            json.dumps(tree, ensure_ascii=True), encoding="utf-8"
        )  # JSON is YAML, and keeps surrogates escaped
    if not command("scenario", "check", path):
        return "refused"
    try:
        scenario = Scenario.load(path)
    except ScenarioError as error:
        raise WrongEndError("checked, and then refused") from error
    if (
        Scenario.model_validate(json.loads(json.dumps(scenario.resolved(), allow_nan=False)))
        != scenario
    ):
        raise WrongEndError("resolved to another scenario")
    if not _is_small(scenario):
        return "valid"
    out = folder / "out"
    if not command("run", path, "--quiet", "--out", out, "--engine.executor", "serial"):
        return "valid, refused by the run"
    there = {entry.name for entry in folder.iterdir()}
    if there != {"s.yaml", "out"}:
        raise WrongEndError(f"files outside --out: {sorted(there)}")
    return "run to its report" if (out / "report.html").is_file() else "run"


def _small(chance: random.Random) -> dict[str, Any]:
    users = dict(USERS[chance.choice(sorted(USERS))])
    scenario: dict[str, Any] = {
        "name": "small",
        "seed": chance.randrange(100),
        "users": users,
        "data": {"source": "synthetic", "history_days": 1},
        "days": chance.choice([1, 2]),
        "serving": {
            "slate": 3,
            "recall": 8,
            "ranking": {"kind": chance.choice(["pointwise", "recall"])},
        },
        "arms": {
            "a": {"policy": "popularity"},
            "b": {"policy": "itemknn", "params": {"neighbours": 5}},
        },
        "design": {
            "kind": chance.choice(["paired", "split", "interleave", "switchback"]),
            "control": "a",
        },
        "engine": {"executor": "serial", "shards": chance.choice([1, 2])},
        "published": {"click": 0.01},
    }
    if chance.random() < 0.2:
        scenario["serving"]["channels"] = [{"name": "more", "policy": "random", "quota": 4}]
    if chance.random() < 0.2:
        scenario["worlds"] = {"other": {"users": dict(USERS["markov"])}}
    if chance.random() < 0.2:
        scenario["serving"]["refit"] = "daily"
    return scenario


@cache
def _files() -> tuple[Path, ...]:
    return tuple(sorted(Path(scenarios.__path__[0]).glob("*.yaml")))


def _shipped(chance: random.Random) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(chance.choice(_files()).read_text(encoding="utf-8"))
    return loaded


def _is_small(scenario: Scenario) -> bool:
    """Whether a run of it takes a second or two: few users and days, policies without training,
    answers that nothing is fitted for.
    """
    worlds = [scenario.users, *(world.users for world in scenario.worlds.values())]
    sizes = [
        getattr(users, name, most + 1) <= most
        for users in worlds
        for name, most in (("n_users", MOST_USERS), ("n_items", MOST_ITEMS))
    ]
    policies = [spec.policy in (*CHEAP, "production") for _, spec in scenario.policies()]
    days = scenario.days + scenario.data.history_days <= MOST_DAYS + 1
    small = (
        scenario.serving.recall <= 500
        and scenario.serving.history <= 1000
        and scenario.engine.shards <= 8
    )
    tick = (
        scenario.engine.tick >= 600
        and scenario.engine.block >= 8
        and scenario.engine.executor != "ray"
    )
    return (
        all(sizes)
        and all(policies)
        and days
        and small
        and tick
        and scenario.data.source == "synthetic"
    )
