"""Replay of a log that is larger than memory: 50 million impressions in at most 4 GB.

    python -m benchmarks.replay_stream [--impressions 50000000] [--folder DIR]

Makes a log of uniform slates of 5 of 5,000 items (Parquet parts; kept in DIR, so that a second call
only replays), then replays it in a process of its own through `abtest replay`: a policy, every
estimator that is right for the log, 1,000 resamples by user. Prints CPU seconds (user + system) and
the peak memory of that process.
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

ITEMS, PLACES, REQUESTS_PER_USER = 5_000, 5, 25
USERS_PER_PART = 20_000


def make(folder: Path, impressions: int) -> int:
    """Write the log part by part; returns the number of impressions from t = 0 on."""
    from simulator.log.eventlog import EventLog
    from simulator.log.metadata import Metadata

    per_user = (REQUESTS_PER_USER - 1) * PLACES
    users = -(-impressions // per_user)
    metadata = Metadata(("history",), users, ITEMS, "conditional")
    folder.mkdir(parents=True, exist_ok=True)
    for part, first in enumerate(range(0, users, USERS_PER_PART)):
        file = folder / f"part-{part:04d}.parquet"
        if not file.is_file():
            EventLog.from_columns(
                columns(part, first, min(USERS_PER_PART, users - first)), metadata, sort=False
            ).write(file)
            print(
                f"\rmaking the log: {min(first + USERS_PER_PART, users):,} of {users:,} users",
                end="",
                file=sys.stderr,
                flush=True,
            )
    print(file=sys.stderr)
    return users * per_user


def columns(part: int, first: int, users: int) -> dict[str, np.ndarray]:
    """Rows of `users` users: one request before t = 0 (what policies are fitted on), 24 from it on;
    low ids are clicked more.
    """
    random = np.random.Generator(np.random.Philox(key=[50, part]))
    requests = users * REQUESTS_PER_USER
    items = random.integers(1, ITEMS + 1, (requests, PLACES))
    while True:  # a slate has no item twice: draw the offenders again
        ordered = np.sort(items, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        if not twice.any():
            break
        items[twice] = random.integers(1, ITEMS + 1, (int(twice.sum()), PLACES))
    number = np.tile(np.arange(REQUESTS_PER_USER), users)
    spread = lambda values: np.repeat(values, PLACES)  # noqa: E731
    click = random.uniform(size=items.shape) < 0.05 + 0.3 * np.exp(-items / 200)
    return {
        "user": spread(np.repeat(np.arange(first, first + users), REQUESTS_PER_USER)),
        "session": spread(number),
        "request": np.zeros(items.size, dtype=np.int64),
        "position": np.tile(np.arange(PLACES), requests),
        "t": spread((number - 1) * DAY // 8),
        "item": items.ravel(),
        "click": click.ravel().astype(np.int8),
        "propensity": np.tile(1 / (ITEMS - np.arange(PLACES)), requests),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--impressions", type=int, default=50_000_000)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "abtest-replay-stream"
    )
    given = parser.parse_args()
    log = given.folder / f"{given.impressions}"
    replayed = make(log, given.impressions)
    command = [
        sys.executable,
        "-m",
        "simulator",
        "replay",
        str(log),
        "--policy",
        "popularity",
        "--recall",
        "50",
    ]
    started = time.monotonic()
    subprocess.run(
        [*command, "--history", "20", "--out", str(given.folder / "result"), "--quiet"], check=True
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu, wall = used.ru_utime + used.ru_stime, time.monotonic() - started
    print(
        f"{replayed:,} impressions replayed: {cpu:.0f} CPU s, {wall:.0f} s, peak"
        f" {used.ru_maxrss / 2**20:.2f} GB"
    )


if __name__ == "__main__":
    main()
