"""What an ensemble of worlds costs: to draw it, and to run it to its verdict.

python -m benchmarks.worlds --worlds 100

CPU seconds of this process and its workers, kernels compiled beforehand: of the draws (`abtest
calibrate --ensemble` on `scenarios/drawn_worlds.yaml`: 1,000 users, two arms that count, five
days), of the run of all worlds to its report, and of both. The aim is 300 for 100 worlds.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

from simulator.calibration.draws import draw
from simulator.calibration.targets import measured
from simulator.run.pipeline import run
from simulator.scenario.model import Scenario

VARY = (
    "users.interests.concentration",
    "users.interests.spread",
    "users.drift",
    "users.focus",
    "users.satiation",
    "users.affinity.base",
    "users.affinity.quality",
    "users.affinity.match",
    "users.affinity.taste",
    "users.affinity.author",
    "users.watch.attention",
    "data.logging",
)
"""What the worlds of `scenarios/drawn_worlds.yaml` differ in."""


def cpu() -> float:
    """CPU seconds of this process and of the workers that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument(
        "--shipped", action="store_true", help="Run the worlds that ship, and draw none."
    )
    asked = parser.parse_args()
    scenario = Scenario.load("scenarios/drawn_worlds.yaml")
    own = scenario.model_copy(update={"worlds": {}})
    measured(own)  # compiles what a worker will find compiled
    start = cpu()
    if asked.shipped:
        whole, number = scenario, len(scenario.drawn)
    else:
        ensemble = draw(own, asked.worlds, VARY, one_seed=True)
        number = len(ensemble.worlds)
        print(f"draws:  {cpu() - start:7.1f} CPU s, {ensemble.tried} simulations for {number}")
        whole = Scenario.model_validate({**own.resolved(), "worlds": dict(ensemble.worlds)})
    begun = cpu()
    with tempfile.TemporaryDirectory() as folder:
        run(whole, Path(folder) / "run")
    print(f"run:    {cpu() - begun:7.1f} CPU s of {number} worlds and the scenario's own")
    print(f"in all: {cpu() - start:7.1f} CPU s, {(cpu() - start) / number:.2f} a world")


if __name__ == "__main__":
    main()
