"""Speed of the sequential rules on many tests at once: tables in the layout of published
experiments, from the table to the look at which each rule stops.

    python -m benchmarks.sequential [--experiments 1000] [--metrics 4] [--looks 30]

Seconds are CPU seconds, the least of three runs; kernels are compiled before.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pyarrow as pa

from simulator.stats import series
from simulator.stats.rows import of_arrow


def table(
    experiments: int, metrics: int, looks: int, seed: int = 0, share: float = 0.2
) -> pa.Table:
    """Experiments to which users come at their own pace, a look a day; a `share` of the series has
    a true effect of some 2.5 standard errors at the end.
    """
    rng = np.random.default_rng(seed)
    k = experiments * metrics
    pace = 3000.0 * rng.gamma(2.0, 0.5, (experiments, 1))
    new = np.repeat(rng.poisson(pace, (experiments, looks)) + 100, metrics, axis=0)
    n = np.cumsum(new, axis=1).astype(np.float64)
    noise = np.cumsum(rng.normal(size=(k, looks)) * np.sqrt(new), axis=1) / np.sqrt(n)
    effect = np.where(rng.random((k, 1)) < share, 2.5 * rng.normal(size=(k, 1)), 0.0)
    z = noise + effect * np.sqrt(n / n[:, -1:])
    sd = rng.gamma(2.0, 1.0, (k, 1))
    sides: dict[str, Any] = {}
    for side, mean in (("c", 2.0 * sd), ("t", 2.0 * sd + z * sd * np.sqrt(2.0 / n))):
        moments = {"count": n, "mean": mean, "variance": np.square(sd)}
        sides |= {f"{m}_{side}": np.broadcast_to(v, n.shape).ravel() for m, v in moments.items()}
    experiment = np.repeat(np.arange(experiments), metrics * looks).astype(str)
    return pa.table(
        {
            "experiment_id": pa.array(experiment.tolist()),
            "variant_id": np.ones(k * looks, dtype=np.int64),
            "metric_id": np.tile(np.repeat(np.arange(metrics) + 1, looks), experiments),
            "time_since_start": np.tile(np.arange(looks) + 1.0, k),
            **sides,
        }
    )


def main() -> None:
    """Print seconds and what the rules stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("experiments", 1000), ("metrics", 4), ("looks", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    series.stops(series.read_series(of_arrow(table(3, 2, asked.looks))))
    rows = table(asked.experiments, asked.metrics, asked.looks)
    least, stops = float("inf"), None
    for _ in range(3):
        start = time.process_time()
        stops = series.stops(series.read_series(of_arrow(rows)))
        least = min(least, time.process_time() - start)
    assert stops is not None
    print(f"{len(stops):,} series of {asked.looks} looks: {least:.2f} CPU s")
    for rule in ("always_valid", *series.SHAPES):
        print(f"{rule}: stops {stops[rule].notna().mean():.1%}")


if __name__ == "__main__":
    main()
