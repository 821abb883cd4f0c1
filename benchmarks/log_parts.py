"""What writing the log of a run takes: CPU seconds in all, and of the longest piece, which is what
more processes cannot shorten.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.log_parts 200000 4
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from policies.base import Progress
from simulator.run.pipeline import simulate
from simulator.run.tasks import Merge
from simulator.scenario.model import Scenario


def main(n_users: int, shards: int) -> None:
    """Simulate a world of two arms, and print a line."""
    content = {
        "name": "log-parts",
        "seed": 1,
        "data": {"source": "synthetic", "history_days": 1, "logging": {"policy": "random"}},
        "users": {"kind": "choice", "n_users": n_users, "n_items": 2000},
        "days": 1,
        "serving": {"slate": 10, "recall": 10, "ranking": {"kind": "recall"}},
        "arms": {"popularity": {"policy": "popularity"}, "random": {"policy": "random"}},
        "design": {"kind": "paired", "control": "random"},
        "engine": {"executor": "serial", "shards": shards, "memory_limit": 1e6},
    }
    seconds: list[float] = []
    write = Merge.__call__

    def timed(piece: Merge, progress: Progress) -> dict[str, float]:
        figures = write(piece, progress)
        seconds.append(figures["seconds"])
        return figures

    with tempfile.TemporaryDirectory() as folder, patch.object(Merge, "__call__", timed):
        lived = simulate(Scenario.model_validate(content), Path(folder) / "run").runtime
    rows = lived["history impressions"] + lived["simulate impressions"]
    print(
        f"{rows:,.0f} rows in {len(seconds)} pieces: {sum(seconds):.2f} CPU s, the longest"
        f" {max(seconds):.2f}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
