"""Coverage of the best arm's interval: as printed before it was corrected, and corrected.

    python -m benchmarks.winners [--samples 10000] [--seed 0] [--arms 2 5 10 15 20]
    python -m benchmarks.winners --asos FILE --out lifts.csv

Samples of arms whose control has mean 1; every arm's mean has a standard error of 2%, and normal
noise: split users (the arms share their control only) and twins (correlation .8). Three truths: no
arm differs; lifts from 0 to 4% in equal steps; one arm is better by 5%. The second form writes the
last look of every treatment in the experiments of ASOS (docs/data.md) as the table of earlier lifts
that `abtest prior` reads.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  # after the number of threads is set
import numpy.typing as npt  # noqa: E402

ERROR = 0.02


def truths(arms: int) -> dict[str, npt.NDArray[np.float64]]:
    """True lifts of the arms, by name."""
    one = np.zeros(arms)
    one[-1] = 0.05
    return {"equal": np.zeros(arms), "steps": np.linspace(0.0, 0.04, arms), "one better": one}


def covered(
    lifts: npt.NDArray[np.float64], shared: float, samples: int, seed: int
) -> tuple[float, float, float, float]:
    """How often the ordinary and the corrected interval of the best arm hold its true lift, how
    often the corrected estimate is below it, and the mean ratio of their lengths.
    """
    from simulator.stats import intervals
    from simulator.stats.moments import Moments
    from simulator.stats.winners import Race, corrected

    random = np.random.default_rng([seed, len(lifts), int(100 * shared)])
    k = len(lifts)
    cov = ERROR**2 * (shared + (1.0 - shared) * np.eye(1 + k))
    names = tuple(str(i) for i in range(k))
    counts = np.zeros(4)
    for mean in random.multivariate_normal(1.0 + np.append(0.0, lifts), cov, samples):
        parts = np.full(k, mean[0]), mean[1:], np.full(k, cov[0, 0]), cov[0, 1:], cov[1:, 1:]
        race = Race(names, *parts, np.full(k, 1e6))
        best = race.best
        own = cov[0, 0], cov[1, 1], cov[0, 1]
        plain = intervals.fieller(Moments(mean[0], mean[1 + best], *own, 1e6, 1, 1, True))
        estimate, low, high = corrected(race)
        truth = lifts[best]
        counts += (
            plain.low <= truth <= plain.high,
            low <= truth <= high,
            estimate < truth,
            (high - low) / (plain.high - plain.low),
        )
    ordinary, ours, below, length = (counts / samples).tolist()
    return ordinary, ours, below, length


def table(arms: list[int], samples: int, seed: int) -> None:
    """Print the coverage of every number of arms, design and truth."""
    print(f"{samples} samples each, seed {seed}; {platform.machine()}")
    print("| arms | design | truth | ordinary | corrected | truth above estimate | length |")
    print("|---:|---|---|---:|---:|---:|---:|")
    for k in arms:
        for design, shared in (("split", 0.0), ("twins", 0.8)):
            for name, lifts in truths(k).items():
                ordinary, ours, below, length = covered(lifts, shared, samples, seed)
                print(
                    f"| {k} | {design} | {name} | {ordinary:.1%} | {ours:.1%} | {below:.1%} |"
                    f" {length:.2f} |",
                    flush=True,
                )


def asos(source: Path, out: Path) -> None:
    """The last look of every experiment, treatment and metric as a table of earlier lifts."""
    import pandas as pd

    looks = pd.read_parquet(source).sort_values("time_since_start")
    last = looks.groupby(["metric_id", "experiment_id", "variant_id"]).last().reset_index()
    ratio = last.mean_t / last.mean_c
    variance = last.variance_t / last.count_t + ratio**2 * last.variance_c / last.count_c
    se = np.sqrt(variance) / last.mean_c.abs()
    rows = pd.DataFrame({"metric": "metric " + last.metric_id.astype(str), "lift": ratio - 1})
    rows["se"] = se
    rows[np.isfinite(rows.lift) & (rows.se > 0)].to_csv(out, index=False)
    print(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", type=int, nargs="+", default=[2, 5, 10, 15, 20])
    parser.add_argument("--asos", type=Path)
    parser.add_argument("--out", type=Path, default=Path("lifts.csv"))
    asked = parser.parse_args()
    if asked.asos is not None:
        asos(asked.asos, asked.out)
    else:
        table(asked.arms, asked.samples, asked.seed)
