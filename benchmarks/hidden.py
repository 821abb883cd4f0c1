"""Do bands over drawn worlds hold the lift in a reality whose parameters nobody sees?

python -m benchmarks.hidden --repetitions 100

Each repetition plants a reality: a world whose hidden parameters (`HIDDEN`) are drawn anywhere in
their ranges, with users and a catalogue of its own. Of it the click rates of both feeds are
published, and nothing else. An ensemble of small worlds is drawn to meet these targets
(`abtest calibrate --ensemble`), each with a seed of its own; the arms live in each; and the band
for one more world (`simulator.stats.ensemble`) holds the lift of reality, or not. Reality has four
times the users of a drawn world, so that its own lift has half the noise. Beside it: the
interval that the first drawn world alone would print, and what is left of the spread of lifts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simulator.calibration.draws import draw, ranges
from simulator.calibration.search import with_values
from simulator.calibration.targets import (
    LOGGING,
    RANDOM,
    CalibrationError,
    PublishedFigure,
    measured,
)
from simulator.report import drawn
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats.ensemble import estimate, over_worlds

HIDDEN = ("users.affinity.base", "users.affinity.quality", "users.affinity.match")
"""Three parameters, of which two published rates leave one free."""

METRICS = ("click", "watch_time", "play")

USERS = 400
"""Of a drawn world."""


def start() -> Scenario:
    """The world around which all are drawn: the arms are popular and random slates, whose
    difference follows how much better some videos are (`quality`).
    """
    return Scenario.model_validate(
        {
            "name": "hidden",
            "seed": 1,
            "users": {"kind": "choice", "n_users": USERS, "n_items": 400},
            "data": {"source": "synthetic", "history_days": 3},
            "days": 2,
            "serving": {"slate": 10, "recall": 20, "ranking": {"kind": "recall"}},
            "arms": {"random": {"policy": "random"}, "popularity": {"policy": "popularity"}},
            "design": {"control": "random"},
            "engine": {"executor": "serial", "shards": 1},
        }
    )


class Repetition(NamedTuple):
    """What one reality shows, by metric.

    Attributes:
        truth: lift and standard error of reality.
        worlds: those of the drawn worlds.
    """

    truth: dict[str, tuple[float, float]]
    worlds: dict[str, list[tuple[float, float]]]


def lifts(scenario: Scenario) -> dict[str, tuple[float, float]]:
    """Lifts and standard errors of a world by metric."""
    with tempfile.TemporaryDirectory() as folder:
        simulate(scenario, Path(folder) / "run")
        rows = {row.metric: estimate(row) for row in drawn.load(Path(folder) / "run").lifts}
    return {metric: pair for metric, pair in rows.items() if pair and metric in METRICS}


def repetition(number: int, n_worlds: int) -> Repetition | None:
    """One reality and its ensemble; None where its targets are out of reach.

    Args:
        number: decides everything that is random.
        n_worlds: of the ensemble.
    """
    random, own = np.random.default_rng(number), start()
    hidden = {one.key: one.at(random.uniform(-1.0, 1.0)) for one in ranges(own, HIDDEN)}
    seed = int(random.integers(2**32))
    reality = with_values(own, {**hidden, "users.n_users": 4 * USERS})
    reality = reality.model_copy(update={"seed": seed})
    published = measured(reality, (LOGGING, RANDOM))
    targets = [PublishedFigure(f, "click", published[f]["click"].value) for f in published]
    around = own.model_copy(update={"seed": seed + 1})
    try:
        ensemble = draw(around, n_worlds, HIDDEN, targets=targets)
    except CalibrationError:
        return None
    whole = Scenario.model_validate({**around.resolved(), "worlds": dict(ensemble.worlds)})
    each = [lifts(whole.within(name)) for name in whole.drawn]
    truth = lifts(reality)
    known = [metric for metric in truth if all(metric in world for world in each)]
    return Repetition(
        {metric: truth[metric] for metric in known},
        {metric: [world[metric] for world in each] for metric in known},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--worlds", type=int, default=10, help="Of each ensemble.")
    parser.add_argument("--first", type=int, default=0, help="Number of the first repetition.")
    parser.add_argument(
        "--rows", type=Path, help="Keeps each repetition there, a line of JSON; goes on from it."
    )
    asked = parser.parse_args()
    done: dict[int, Any] = {}
    if asked.rows and asked.rows.exists():
        done = dict(json.loads(line) for line in asked.rows.read_text().splitlines())
    for number in range(asked.first, asked.first + asked.repetitions):
        if number in done:
            continue
        done[number] = repetition(number, asked.worlds)
        if asked.rows:
            with asked.rows.open("a") as file:
                file.write(json.dumps([number, done[number]]) + "\n")
    found = [Repetition(*row) for row in done.values() if row is not None]
    print(f"{len(found)} realities, {len(done) - len(found)} out of reach, {asked.worlds} worlds")
    print("metric       band holds  mean, +-  one world's  sd of truth  half a band")
    for metric in METRICS:
        held, mean, alone, half, truths = [], [], [], [], []
        for row in found:
            if metric not in row.truth:
                continue
            truth = row.truth[metric][0]
            pairs = np.array(row.worlds[metric])
            band = over_worlds(metric, "popularity", pairs[:, 0].tolist(), pairs[:, 1].tolist())
            assert band is not None
            held.append(band.low <= truth <= band.high)
            mean.append(band.mean_low <= truth <= band.mean_high)
            alone.append(abs(pairs[0, 0] - truth) <= 1.96 * pairs[0, 1])
            half.append((band.high - band.low) / 2)
            truths.append(truth)
        error = 196 * np.sqrt(max(np.mean(held) * (1 - np.mean(held)), 0.01) / len(held))
        print(
            f"{metric:12}{100 * np.mean(held):10.1f}% {error:7.1f}% {100 * np.mean(alone):11.1f}%"
            f" {100 * np.std(truths):11.1f}% {100 * np.mean(half):11.1f}%"
        )


if __name__ == "__main__":
    main()
