"""Which of many policies to test first, by rules over what a log says of them.

    python -m benchmarks.first_policy [--worlds small,markov] [--folder DIR]

In each world, 16 policies are run in a simulated A/B and judged offline as by `abtest fidelity`,
one fit each. The rules see the rollouts of the policies and what the ranking stage expects of them:

    rollout   the largest estimate
    ranked    the largest estimate
    reading   the order of `rollout`, the first of its ties by `ranked`
    mean      both, each over its mean
    bound     the largest lower bound of the lift by `rollout`, all at once

Printed of each: proven pairs of policies in the right order, the first policy, and how much lift it
loses against the best one, corrected for that one's having been chosen. A world takes 4 to 6 CPU
minutes; its run is kept in DIR, and taken over there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from policies.base import silent
from simulator.log.eventlog import EventLog
from simulator.log.workspace import Workspace, load_catalogue
from simulator.offpolicy.agreement import Agreement, agreement
from simulator.offpolicy.choice import choose
from simulator.offpolicy.fidelity import Ran, offline, widened
from simulator.offpolicy.lifts import OffPolicyLift, Pair
from simulator.offpolicy.offline_figure import Figure, reading
from simulator.offpolicy.online import Online, online
from simulator.offpolicy.settings import RANKED, ROLLOUT, ReplaySettings
from simulator.offpolicy.uncertainty import FirstOrder
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario, find

WORLDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "kuaishou": ("kuaishou_like.yaml", 1, {"users": {"n_users": 1500, "n_items": 2500}}),
    "small": (
        "kuaishou_like.yaml",
        3,
        {"users": {"n_users": 1500, "n_items": 1500}, "data": {"history_days": 10}},
    ),
    "markov": ("three_worlds.yaml", 5, {}),
    "channels": ("channels.yaml", 6, {"users": {"n_users": 1500, "n_items": 2500}}),
    "counts": (
        "shared_data.yaml",
        7,
        {
            "users": {"n_users": 2000},
            "data": {"history_days": 10},
            "serving": {"seen": 512, "refit": "never"},
        },
    ),
    "where": ("where.yaml", 8, {"users": {"n_users": 1500}}),
}
"""Name -> the scenario that it is like, its seed, and what differs from it."""


def world(name: str) -> Scenario:
    """Three days of a world, with one fit of each policy, filled up to 16 of them."""
    file, seed, changes = WORLDS[name]
    content = yaml.safe_load(find(f"scenarios/{file}").read_text(encoding="utf-8"))
    content |= content.pop("worlds", {}).get(name, {})
    for section, values in changes.items():
        content[section] |= values
    content |= {"seed": seed, "days": 3, "fits": 1, "engine": {"executor": "serial", "shards": 1}}
    return widened(Scenario.model_validate(content))


def judged(scenario: Scenario, folder: Path) -> tuple[Online, Figure, Figure]:
    """What the policies get online, and the two figures of the same policies offline."""
    where = Workspace(folder / "run")
    simulate(scenario, where.root, resume=where.root.exists())
    log = EventLog.open(where.log)
    truth = online(log, scenario.control, "click", 1000, scenario.seed)
    settings = ReplaySettings(("recalled",), resamples=200, seed=scenario.seed, contexts=3)
    catalogue = load_catalogue(where.models / "catalogue.npz")
    ran = Ran(scenario, log, catalogue, Path(), folder / "offline")
    found = offline(ran, "click", settings, 2, silent)
    named = {figure.name: figure for figure in found.figures()}
    return truth.of([one.policy for one in found.evaluations]), named[ROLLOUT], named[RANKED]


def rules(truth: Online, rollout: Figure, ranked: Figure) -> Iterator[Figure]:
    """The figure by which each rule orders the policies."""
    yield rollout
    yield ranked
    read = reading([rollout, ranked])
    assert read is not None, "both are usable here"
    yield replace(read, name="reading")
    both = rollout.value / rollout.value.mean() + ranked.value / ranked.value.mean()
    yield replace(rollout, name="mean", value=both, influence=())
    yield replace(rollout, name="bound", value=bounds(truth, rollout), influence=())


def bounds(truth: Online, rollout: Figure) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Lower bounds `[A]` of the lifts over the control, which has 0, all at once."""
    base = truth.arms.index(truth.control)
    control = FirstOrder(float(rollout.value[base]), rollout.influence[base])
    lifts = []
    for arm, value, influence in zip(truth.arms, rollout.value, rollout.influence, strict=True):
        if arm == truth.control:
            continue
        pair = Pair.of(FirstOrder(float(value), influence), control)
        lift, moved = float(pair.moments.lift), pair.influence()
        lifts.append(
            OffPolicyLift(arm, truth.control, ROLLOUT, pair.moments, lift, influence=moved)
        )
    choice = choose(lifts)
    return np.array([0.0 if arm == truth.control else choice[arm].bound for arm in truth.arms])


def row(said: Agreement) -> str:
    """One rule in one world."""
    return (
        f"  {said.figure:8} {said.ordered:6.1%} of {said.pairs:3} in order   {said.pick:25}"
        f" loses {said.lost:5.1%} ({said.lost_low:.1%} to {said.lost_high:.1%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", default=",".join(WORLDS), help="Some of them, by name.")
    parser.add_argument("--folder", type=Path, help="Runs and fits are kept there.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        for name in given.worlds.split(","):
            scenario = world(name)
            truth, rollout, ranked = judged(scenario, (given.folder or Path(empty)) / name)
            best = truth.arms[int(np.argmax(truth.lift))]
            print(f"{name}: {best} is best, {len(rollout.tied(rollout.best))} tied", flush=True)
            for figure in rules(truth, rollout, ranked):
                none = [None] * len(truth.arms)
                print(row(agreement(figure, truth, none, scenario.seed)), flush=True)


if __name__ == "__main__":
    main()
