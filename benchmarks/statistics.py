"""Speed of the statistics: a verdict on a per-user table, and re-randomisations, beside tea-tasting
in the same run.

    python -m benchmarks.statistics [--rows 1000000] [--peer PYTHON]

PYTHON is an interpreter with tea-tasting, pandas and polars
(`pip install tea-tasting polars pandas`). Seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402  # after the number of threads is set

ARMS = 3
UNITS, METRICS = 3000, 4


def columns(rows: int) -> dict[str, Any]:
    """A per-user table: arm, three counts, seconds watched and the same before the test; every arm
    with a lift of its own.
    """
    rng = np.random.default_rng(0)
    arm = rng.integers(0, ARMS, rows)
    before = rng.gamma(1.5, 300.0, rows)
    impressions = rng.poisson(40, rows) + 1.0
    return {
        "user": np.arange(rows),
        "arm": arm,
        "sessions": rng.poisson(4, rows).astype(np.float64),
        "clicks": rng.binomial(impressions.astype(np.int64), 0.38 + 0.002 * arm).astype(np.float64),
        "impressions": impressions,
        "watch": before * rng.gamma(4.0, 0.25, rows) * (1 + 0.01 * arm),
        "watch_before": before,
    }


def timed(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The least CPU seconds of a few runs, and the last result."""
    least, result = float("inf"), None
    for _ in range(times):
        start = time.process_time()
        result = work()
        least = min(least, time.process_time() - start)
    return least, result


def peak() -> float:
    """Peak resident memory of this process, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def ours(rows: int) -> dict[str, Any]:
    """abtest: from the DataFrame to all lifts."""
    import pandas as pd

    from simulator.stats.frames import from_frame
    from simulator.stats.verdict import lifts

    frame = pd.DataFrame(columns(rows), copy=False)
    held = peak()
    metrics = {
        "sessions": "sessions",
        "clicks": "clicks",
        "click_rate": ("clicks", "impressions"),
        "watch": "watch",
    }

    def verdict(frame: pd.DataFrame = frame) -> Any:
        table = from_frame(frame, metrics=metrics, covariates=["watch_before"])
        return lifts(table, str(frame["arm"].iloc[0]), covariates={"watch": ["own"]})

    verdict(frame.head(1000))  # what is imported and compiled once does not grow with the rows
    if rows > 1_000_000:
        start = time.process_time()
        verdict()
        return {"seconds": time.process_time() - start, "peak_gb": peak(), "table_gb": held}
    seconds, found = timed(verdict)
    row = {f"{r.metric} {r.arm}": [r.lift, r.low, r.high] for r in found}
    return {
        "seconds": seconds,
        "peak_gb": peak(),
        "table_gb": held,
        "lifts": row,
        "control": str(frame["arm"].iloc[0]),
    }


def rerandomisations() -> float:
    """Experiments per CPU second: both answers of 3,000 users to 4 metrics, a coin for each,
    Welch's t and p of each metric.
    """
    from simulator.stats.moments import split_by
    from simulator.stats.resampling import coins
    from simulator.stats.tests import t_test

    rng = np.random.default_rng(1)
    metrics = [(rng.gamma(2, 1, UNITS), rng.gamma(2, 1, UNITS)) for _ in range(METRICS)]

    def all_of_them() -> None:
        for heads in coins(UNITS, 20_000, 0):
            for control, treatment in metrics:
                t_test(split_by(control, treatment, heads))

    return 20_000 / timed(all_of_them)[0]


def peer(rows: int) -> dict[str, Any]:
    """tea-tasting on the same table, from pandas and from polars, and its simulated experiments."""
    import pandas as pd
    import polars as pl
    import tea_tasting as tt  # type: ignore[import-not-found,unused-ignore]

    given = columns(rows)
    experiment = tt.Experiment(
        {
            "sessions": tt.Mean("sessions"),
            "clicks": tt.Mean("clicks"),
            "click_rate": tt.RatioOfMeans("clicks", "impressions"),
            "watch": tt.Mean("watch", covariate="watch_before"),
        },
        variant="arm",
    )
    control = int(given["arm"][0])
    seconds, found = {}, None
    for name, frame in (("pandas", pd.DataFrame(given)), ("polars", pl.DataFrame(given))):
        seconds[name], found = timed(
            lambda frame=frame: experiment.analyze(frame, control=control, all_variants=True)
        )
    lifts = {}
    for (_, arm), result in (found or {}).items():
        for metric in result:
            r = result[metric]
            lifts[f"{metric} {arm}"] = [
                r.rel_effect_size,
                r.rel_effect_size_ci_lower,
                r.rel_effect_size_ci_upper,
            ]
    small = pl.DataFrame(
        {**{f"m{i}": np.random.default_rng(i).gamma(2, 1, UNITS) for i in range(METRICS)}}
    )
    simulated = tt.Experiment({f"m{i}": tt.Mean(f"m{i}") for i in range(METRICS)})
    spent, _ = timed(lambda: simulated.simulate(small, 200, seed=0), times=1)
    return {
        "seconds": seconds,
        "lifts": lifts,
        "rerandomisations": 200 / spent,
        "version": tt.__version__,
    }


def run(python: str, *arguments: str) -> dict[str, Any]:
    """This script in another process, for its own peak memory (or another interpreter)."""
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [python, "-m", "benchmarks.statistics", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer", help="interpreter that has tea-tasting")
    parser.add_argument("--only", choices=["ours", "peer"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps({"ours": ours, "peer": peer}[given.only](given.rows)))
        return
    mine = run(sys.executable, "--only", "ours", "--rows", str(given.rows))
    print(f"4 metrics (one ratio, one with CUPED) x {ARMS} arms, {given.rows:,} rows of pandas:")
    print(
        f"  abtest                 {mine['seconds']:7.3f} s "
        f" ({mine['seconds'] * 1e6 / given.rows:.3f} s per million rows)"
    )
    large = run(sys.executable, "--only", "ours", "--rows", str(10 * given.rows))
    print(
        f"  abtest, {10 * given.rows:,} rows {large['seconds']:7.3f} s, peak {large['peak_gb']:.2f}"
        f" GB (table {large['table_gb']:.2f} GB)"
    )
    if given.peer:
        theirs = run(given.peer, "--only", "peer", "--rows", str(given.rows))
        for name, seconds in theirs["seconds"].items():
            print(
                f"  tea-tasting {theirs['version']} {name:<6} {seconds:7.3f} s "
                f" ({seconds * 1e6 / given.rows:.3f} s per million rows)"
            )
        gap = max(
            abs(a - b)
            for key, row in mine["lifts"].items()
            for a, b in zip(row, theirs["lifts"][key], strict=True)
        )
        print(
            f"  largest difference of a lift or an end of its interval between the two: {gap:.1e}"
        )
    print(f"re-randomised experiments, {UNITS:,} users x {METRICS} metrics:")
    print(f"  abtest      {rerandomisations():10,.0f} per CPU second")
    if given.peer:
        print(f"  tea-tasting {theirs['rerandomisations']:10,.0f} per CPU second")


if __name__ == "__main__":
    main()
