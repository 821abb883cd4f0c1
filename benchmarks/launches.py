"""Does `abtest fidelity --launches` keep what it promises? One world plays reality, another the
simulator.

    python -m benchmarks.launches                          # a world like reality
    python -m benchmarks.launches --simulator tasteless    # one whose users like all items alike

Both worlds run the same cheap policies once, each with users, a catalogue and a history of its own.
A draw takes some of these policies as past launches, each measured on some of reality's users, and
one more to forecast: its true lift is that of all of reality's users. The share of the forecasts'
90% intervals that hold it is counted, and the verdicts. Draws of one pair of worlds share their
policies, so that several pairs are made.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from simulator.log.eventlog import EventLog
from simulator.log.metadata import HISTORY
from simulator.offpolicy.fidelity import widened
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats.launches import Calibrator, Launch
from simulator.stats.moments import Floats

ARMS, LAUNCHES = 14, 9
"""Policies in a world; those of a draw that were launched."""

SIMULATORS: dict[str, dict[str, Any]] = {
    "like": {"focus": {"strength": 0.3}, "drift": {"renewal": 0.03}},
    "markov": {"kind": "markov"},
    "tasteless": {"affinity": {"match": 0.0, "quality": 0.0, "taste": 0.0, "author": 0.0}},
}
"""Kinds of simulators: what of its users differs from reality's."""


def world(seed: int, n_users: int, users: dict[str, Any]) -> Scenario:
    """The scenario of a world, filled up with cheap policies."""
    plain = {
        "name": "launches",
        "seed": seed,
        "users": {"kind": "choice", "n_users": n_users, "n_items": 400, **users},
        "data": {"history_days": 3},
        "days": 1,
        "serving": {"slate": 6, "recall": 12, "ranking": {"kind": "recall"}},
        "arms": {"random": {"policy": "random"}},
        "engine": {"executor": "serial", "shards": 1},
    }
    return widened(Scenario.model_validate(plain), ARMS)


def clicks(scenario: Scenario) -> dict[str, Floats]:
    """Clicks of each user in each arm, `[n_users]`."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog.open(Path(simulate(scenario, Path(folder) / "run").root) / "log")
        arms, n = log.metadata.arms, log.metadata.n_users
        sums = np.zeros((len(arms), n))
        for batch in log.batches(["arm", "user", "click", "t"]):
            arm, user, click, t = (
                batch[name].to_numpy(zero_copy_only=False) for name in ("arm", "user", "click", "t")
            )
            live = t >= 0
            clicked = np.nan_to_num(click[live].astype(np.float64))
            np.add.at(sums, (arm[live], user[live]), clicked)
    return {arm: sums[i] for i, arm in enumerate(arms) if arm != HISTORY}


def lift(treated: Floats, control: Floats) -> tuple[float, float]:
    """The lift of the mean of pairs, and its standard error (delta method)."""
    value = treated.mean() / control.mean() - 1
    rest = treated - (1 + value) * control
    return float(value), float(rest.std(ddof=1) / math.sqrt(len(rest)) / control.mean())


def draw(
    rng: np.random.Generator, reality: dict[str, Floats], simulator: dict[str, Floats], users: int
) -> tuple[bool, float, str]:
    """Whether a forecast's interval holds the true lift, its width, and the verdict."""
    *launched, ahead = rng.permutation([arm for arm in reality if arm != "random"])[: LAUNCHES + 1]

    def measured(sums: dict[str, Floats], arm: str) -> tuple[float, float]:
        who = rng.permutation(len(sums[arm]))[:users]
        return lift(sums[arm][who], sums["random"][who])

    past = [Launch(arm, *measured(reality, arm), *measured(simulator, arm)) for arm in launched]
    calibrator = Calibrator(past)
    forecast = calibrator.forecast(*measured(simulator, ahead))
    truth, _ = lift(reality[ahead], reality["random"])
    held = forecast.low <= truth <= forecast.high
    return held, forecast.high - forecast.low, calibrator.relation().verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=4, help="of worlds")
    parser.add_argument("--users", type=int, default=2000, help="of a world")
    parser.add_argument("--tested", type=int, default=500, help="users of a test")
    parser.add_argument("--simulator", choices=SIMULATORS, default="like")
    asked = parser.parse_args()
    held, widths, verdicts = 0, [], Counter[str]()
    for pair in range(asked.pairs):
        reality = clicks(world(2 * pair, asked.users, {}))
        simulator = clicks(world(2 * pair + 1, asked.users, SIMULATORS[asked.simulator]))
        rng = np.random.default_rng(pair)
        for _ in range(asked.draws // asked.pairs):
            inside, width, verdict = draw(rng, reality, simulator, asked.tested)
            held += inside
            widths.append(width)
            verdicts[verdict] += 1
        print(f"pair {pair + 1} of {asked.pairs}: {held} of {len(widths)} held", flush=True)
    n = len(widths)
    share = held / n
    error = 1.96 * math.sqrt(share * (1 - share) / n)
    print(f"90% intervals hold the true lift in {share:.1%} +- {error:.1%} of {n} draws")
    print(f"their mean width: {np.mean(widths):.1%}")
    print(", ".join(f"{word}: {count}" for word, count in verdicts.most_common()))


if __name__ == "__main__":
    main()
