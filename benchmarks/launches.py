"""Does `abtest fidelity --launches` keep what it promises? One world plays reality, others the
simulator: one like reality, and one whose users like all items alike.

    python -m benchmarks.launches --keep build/launches

The worlds of a trial run the same cheap policies, whose kinds and hyper-parameters are drawn, each
with users, a catalogue and a history of its own. A draw takes some of these policies as past
launches, each measured on users who are drawn with replacement from those of its world (so that
standard errors are what they say), and one more to forecast: its true lift is that of all users of
reality. The share of the forecasts' 90% intervals that hold it is counted, and the verdicts. Draws
of one trial share worlds and policies, so errors of shares are those of the means of trials.
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
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats.launches import Calibrator, Launch
from simulator.stats.moments import Floats

LAUNCHES = 5, 10, 20, 40
"""Policies of a draw that were launched."""

CONTROL = "random"

SIMULATORS: dict[str, dict[str, Any]] = {
    "like": {"focus": {"strength": 0.3}, "drift": {"renewal": 0.03}},
    "tasteless": {"affinity": {"match": 0.0, "quality": 0.0, "taste": 0.0, "author": 0.0}},
}
"""Kinds of simulators: what of its users differs from reality's."""

Clicks = dict[str, Floats]
"""Of each user in each arm, `[n_users]`."""


def policies(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """The control and `n` cheap arms, three of four of which explore."""

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    arms: dict[str, Any] = {CONTROL: {"policy": "random"}}
    for i in range(n):
        if rng.random() < 0.5:
            policy, params = "popularity", {"half_life": log_uniform(0.1, 5)}
        else:
            policy, params = "itemknn", {"neighbours": int(log_uniform(2, 200))}
        if rng.random() < 0.75:
            base = {"policy": policy, "policy_params": params}
            policy = "explore"
            params = {**base, "temperature": log_uniform(0.03, 2), "epsilon": float(rng.random())}
        arms[f"p{i}"] = {"policy": policy, "params": params}
    return arms


def world(seed: int, n_users: int, users: dict[str, Any], arms: dict[str, Any]) -> Scenario:
    """The scenario of a world, in which every user lives in every arm."""
    plain = {
        "name": "launches",
        "seed": seed,
        "users": {"kind": "choice", "n_users": n_users, "n_items": 400, **users},
        "data": {"history_days": 3},
        "days": 1,
        "serving": {"slate": 6, "recall": 12, "ranking": {"kind": "recall"}},
        "arms": arms,
        "design": {"kind": "paired", "control": CONTROL},
        "engine": {"executor": "serial", "shards": 1},
    }
    return Scenario.model_validate(plain)


def clicks(scenario: Scenario) -> Clicks:
    """Run a scenario and count."""
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
    rng: np.random.Generator,
    reality: Clicks,
    simulator: Clicks,
    launches: int,
    users: int,
) -> tuple[bool, float, str]:
    """Whether a forecast's interval holds the true lift, its width, and the verdict."""
    *launched, ahead = rng.permutation([arm for arm in reality if arm != CONTROL])[: launches + 1]

    def measured(sums: Clicks, arm: str) -> tuple[float, float]:
        who = rng.integers(len(sums[arm]), size=users)
        return lift(sums[arm][who], sums[CONTROL][who])

    past = [Launch(arm, *measured(reality, arm), *measured(simulator, arm)) for arm in launched]
    calibrator = Calibrator(past)
    forecast = calibrator.forecast(*measured(simulator, ahead))
    truth, _ = lift(reality[ahead], reality[CONTROL])
    held = forecast.low <= truth <= forecast.high
    return held, forecast.high - forecast.low, calibrator.relation().verdict


def worlds(trial: int, users: int, keep: Path | None) -> dict[str, Clicks]:
    """What reality's and the simulators' users click on in one trial; kept, if it shall be."""
    file = keep / f"trial-{trial}-{users}.npz" if keep else None
    if file is not None and file.is_file():
        stored = np.load(file)
        found: dict[str, Clicks] = {}
        for name in stored.files:
            kind, arm = name.split(" ", 1)
            found.setdefault(kind, {})[arm] = stored[name]
        return found
    arms = policies(np.random.default_rng([trial, 9]), max(LAUNCHES) + 8)
    found = {}
    for i, (kind, differs) in enumerate({"reality": {}, **SIMULATORS}.items()):
        found[kind] = clicks(world(100 + 3 * trial + i, users, differs, arms))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        flat = {f"{kind} {arm}": sums for kind, of in found.items() for arm, sums in of.items()}
        np.savez(file, **flat)  # type: ignore[arg-type]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8, help="of worlds")
    parser.add_argument("--draws", type=int, default=25, help="in each trial")
    parser.add_argument("--users", type=int, default=2000, help="of a world")
    parser.add_argument("--tested", type=int, default=500, help="users of a test")
    parser.add_argument("--keep", type=Path, help="a folder that keeps what the worlds show")
    asked = parser.parse_args()
    cases = [(kind, n) for kind in SIMULATORS for n in LAUNCHES]
    held: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    widths: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    verdicts = {case: Counter[str]() for case in cases}
    for trial in range(asked.trials):
        found = worlds(trial, asked.users, asked.keep)
        for kind, n in cases:
            rng = np.random.default_rng([trial, n])
            draws = [
                draw(rng, found["reality"], found[kind], n, asked.tested)
                for _ in range(asked.draws)
            ]
            held[kind, n].append(float(np.mean([inside for inside, _, _ in draws])))
            widths[kind, n] += [width for _, width, _ in draws]
            verdicts[kind, n].update(verdict for _, _, verdict in draws)
        print(f"trial {trial + 1} of {asked.trials} done", flush=True)
    for kind, n in cases:
        shares, total = held[kind, n], len(widths[kind, n])
        error = 1.96 * np.std(shares, ddof=1) / math.sqrt(asked.trials)
        width = np.mean(widths[kind, n])
        said = ", ".join(f"{word} {count}" for word, count in verdicts[kind, n].most_common())
        print(f"{kind}, {n} launches: 90% intervals hold {np.mean(shares):.1%} +- {error:.1%}")
        print(f"  of {total} true lifts, mean width {width:.1%}; {said}")


if __name__ == "__main__":
    main()
