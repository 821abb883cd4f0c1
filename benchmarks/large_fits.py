"""What fits and search over a million users and items take, beside another revision.

    python -m benchmarks.large_fits adam [--before ../before] [--users 1000000] [--items 20000]

Each part is computed in a process of its own with one thread, by the code of this checkout and of
that given by `--before`; printed are CPU seconds and the peak of memory, and the ratio of the two.

- `adam`: RecGPT's pre-training, one epoch over a synthetic log of 8 clicks a user of every 16th
  user (245 batches of a million users): a batch has the vectors of 256 users of all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def adam(users: int, items: int) -> dict[str, Any]:
    """CPU seconds of one epoch of pre-training, and its loss."""
    from policies.base import Catalogue, Fitting, Sequences
    from policies.losses import Loss
    from policies.train import Training
    from recgpt.policy import PreTrain

    clicks, every = 8, 16
    chance = np.random.default_rng(0)
    has_clicks = np.arange(users) % every == 0
    offsets = np.concatenate(([0], np.cumsum(np.where(has_clicks, clicks, 0))))
    drawn = chance.zipf(1.3, int(offsets[-1])) % items + 1
    log = Sequences(
        np.arange(users), offsets, drawn, np.ones(len(drawn), dtype=bool), np.arange(len(drawn))
    )
    policy = PreTrain(
        pretraining=Training(epochs=1, patience=0), pretraining_loss=Loss("sampled", 512)
    )
    losses: list[float] = []

    def tell(stage: str, done: int, total: int, figures: Any) -> None:
        losses.append(figures["loss"])

    start = time.process_time()
    policy.fit(log, Catalogue(users, items), Fitting(0, progress=tell))
    return {"seconds": time.process_time() - start, "loss": losses[-1]}


PARTS = {"adam": adam}


def in_checkout(tree: Path, part: str, users: int, items: int) -> dict[str, Any]:
    """A part in a process that imports the code of `tree`."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, "1"), "PYTHONPATH": str(tree)}
    here = Path(__file__).resolve()  # -P: the modules beside it have the names of packages
    command = [sys.executable, "-P", str(here), part, "--one", f"--users={users}"]
    done = subprocess.run(
        [*command, f"--items={items}"], env=environment, check=True, capture_output=True, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--before", type=Path, help="checkout of another revision")
    parser.add_argument("--one", action="store_true", help="here, as JSON")
    options = parser.parse_args()
    if options.one:
        import torch

        torch.set_num_threads(1)
        figures = PARTS[options.part](options.users, options.items)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**figures, "MiB": round(peak)}))
        return
    trees = {"now": Path(__file__).resolve().parents[1]}
    if options.before:
        trees["before"] = options.before.resolve()
    seconds = {}
    for name, tree in trees.items():
        figures = in_checkout(tree, options.part, options.users, options.items)
        seconds[name] = figures["seconds"]
        said = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items())
        print(f"{options.part}, {name}: {said}", flush=True)
    if options.before:
        print(f"{options.part}: {seconds['now'] / seconds['before']:.3f} of before")


if __name__ == "__main__":
    main()
