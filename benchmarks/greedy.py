"""Logs without exploration: what policies would have got by the log of a greedy arm, against what
they got in the same simulated A/B.

    python -m benchmarks.greedy [--worlds 3] [--users 600]

Every user lives in every arm. The log of the first arm (item-to-item transitions, greedy) is
replayed through the policies of all arms, whose own logs are the truth; what is recalled is shown
as it is. A value per impression
(matching, recalled) is held against the truth per impression.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from policies.base import Fitting, silent
from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.offpolicy.jobs import training
from simulator.offpolicy.replay import Estimate, ReplaySettings, evaluate
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.target import PolicyTargets
from simulator.offpolicy.target_fits import Lesson, Wanted, fitted
from simulator.run.context import load_catalogue
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario

ESTIMATORS = ("matching", "recalled", "cips", "cdr")
ARMS = {
    "itemknn": {"policy": "itemknn", "params": {"neighbours": 50}},
    "neighbours 45": {"policy": "itemknn", "params": {"neighbours": 45}},
    "neighbours 30": {"policy": "itemknn", "params": {"neighbours": 30}},
    "neighbours 10": {"policy": "itemknn", "params": {"neighbours": 10}},
    "popularity": {"policy": "popularity"},
    "random": {"policy": "random"},
}


def scenario(seed: int, users: int) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "greedy",
            "seed": seed,
            "users": {"kind": "choice", "n_users": users, "n_items": 400},
            "data": {"source": "synthetic", "history_days": 5},
            "days": 2,
            "serving": {"slate": 6, "recall": 50, "ranking": {"kind": "recall"}},
            "arms": ARMS,
            "design": {"kind": "paired", "control": "itemknn"},
        }
    )


def world(seed: int, users: int, folder: Path) -> Iterator[tuple[str, Estimate, float]]:
    """Every estimate of every policy in one world, with the truth of its unit."""
    made = scenario(seed, users)
    simulate(made, folder, folder=Path(), progress=silent)
    log = EventLog.open(folder / "log")
    catalogue = load_catalogue(folder / "models" / "catalogue.npz")
    wanted = [Wanted(name, arm.policy, arm.params) for name, arm in made.arms.items()]
    lessons = [Lesson(training(log, HISTORY, 0, None), seed)]
    policies = fitted(wanted, lessons, catalogue, Fitting(seed))
    serving = made.serving
    stream = Stream(
        log, "click", "itemknn", history=serving.history, seen=serving.seen, contexts=3,
        propensity="unknown",
    )  # fmt: skip
    targets = [
        PolicyTargets.of(name, policy, catalogue.n_items, serving.recall, seed)
        for name, (policy,) in policies
    ]
    settings = ReplaySettings(ESTIMATORS, resamples=200, contexts=3)
    found = evaluate(stream, targets, catalogue.n_users, catalogue.n_items, settings)
    for one in found:
        rounds = list(Stream(log, "click", one.policy))
        total = sum(float(part.reward.sum()) for part in rounds)
        truth = {
            "request": total / sum(map(len, rounds)),
            "impression": total / sum(part.reward.size for part in rounds),
        }
        for estimate in one.estimates:
            yield one.policy, estimate, truth[estimate.unit]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worlds", type=int, default=3, help="seeds 1, 2, ...")
    parser.add_argument("--users", type=int, default=600)
    given = parser.parse_args()
    rows: dict[tuple[str, str], list[tuple[float, bool, str]]] = {}
    for seed in range(1, given.worlds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for policy, estimate, truth in world(seed, given.users, Path(folder) / "run"):
                held = estimate.interval().covers(truth)
                row = estimate.value / truth - 1, held, estimate.word or "none"
                rows.setdefault((policy, estimate.estimator), []).append(row)
                print(f"{seed} {policy:14} {estimate.estimator:9} {row[0]:+7.1%} {held} {row[2]}"
                      f" {'; '.join(estimate.reasons)}", flush=True)  # fmt: skip
    print(f"\n{'policy':14} {'estimator':9} {'bias':>7} {'size':>6} {'covered':>8}  verdicts")
    for (policy, estimator), found in rows.items():
        bias = np.array([row[0] for row in found])
        words = sorted({row[2] for row in found})
        covered = f"{sum(row[1] for row in found)}/{len(found)}"
        print(f"{policy:14} {estimator:9} {bias.mean():+7.1%} {np.abs(bias).mean():6.1%}", end="")
        print(f" {covered:>8}  {', '.join(words)}")


if __name__ == "__main__":
    main()
