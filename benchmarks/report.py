"""The report of a big run: CPU and wall seconds and peak memory of `abtest report` on a made log.

    python -m benchmarks.report [--users 1000000] [--days 1] [--impressions 12]

The log has two arms of the same users, `impressions` a user, day and arm, and every kind of
feedback; it is written to Parquet, and the command is run in a process of its own, start of Python
included.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata


def arm(index: int, n_users: int, days: int, impressions: int, meta: Metadata) -> EventLog:
    """The rows of one arm, in KEY order."""
    random = np.random.default_rng(index)
    n = n_users * days * impressions
    day = np.tile(np.repeat(np.arange(days), impressions), n_users)
    request, position = np.divmod(np.tile(np.arange(impressions), n_users * days), 6)
    click = random.random(n, dtype=np.float32) < 0.4 + 0.004 * index
    columns = {
        "arm": np.full(n, index, np.uint8),
        "user": np.repeat(np.arange(n_users, dtype=np.uint32), days * impressions),
        "session": day,
        "request": request,
        "position": position,
        "t": day * DAY + request * 60_000,
        "item": random.integers(1, meta.n_items + 1, n),
        "click": click,
        "watch": random.exponential(20.0, n).astype(np.float32) * (click + 0.1),
        "duration": np.full(n, 60.0, np.float32),
    }
    rates = {
        "long_view": 0.7,
        "like": 0.034,
        "comment": 0.0054,
        "follow": 0.0021,
        "forward": 0.0019,
    }
    columns |= {
        kind: click & (random.random(n, dtype=np.float32) < rate) for kind, rate in rates.items()
    }
    return EventLog.from_columns(columns, meta, sort=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--impressions", type=int, default=12)
    given = parser.parse_args()
    scenario = {
        "name": "benchmark",
        "seed": 1,
        "days": given.days,
        "arms": {"a": {}, "b": {}},
        "design": {"kind": "paired", "control": "a"},
    }
    meta = Metadata(
        ("a", "b"), given.users, 10_000, control="a", days=given.days, scenario=scenario
    )
    with tempfile.TemporaryDirectory() as home:
        for index in range(2):
            arm(index, given.users, given.days, given.impressions, meta).write(
                Path(home) / "log" / f"{index}.parquet"
            )
        rows = EventLog.open(Path(home) / "log").n_rows
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "simulator", "report", home, "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        wall = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = (Path(home) / "report.html").stat().st_size
    print(f"{given.users:,} users x {given.days} days x 2 arms, {rows:,} impressions")
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    print(
        f"abtest report: {cpu:.1f} CPU s, {wall:.1f} s wall, peak {peak:.2f} GiB, page"
        f" {size / 1024:.0f} KiB"
    )


if __name__ == "__main__":
    main()
