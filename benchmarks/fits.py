"""What several fits of a method cost on one core, and how good they are.

`python -m benchmarks.fits scenarios/kuaishou_like.yaml --arm recgpt --fits 8 --before ../before`:
CPU seconds of each fit of an arm, in a process of its own with one thread, and how often its first
ten items hold the last click of a user, which was left out (HR@10). With `--before`, a checkout of
another revision, one fit of that revision's code and scenario is made, too, on the same clicks.
`python -m benchmarks.fits --stacked`: a step of eight small RecGPTs one after another, and of
the same eight as one network with stacked weights.
`python -m benchmarks.fits --best`: a training step of the best network of the tables through its
module and through the pass that is written out. Compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import yaml

N_STACKED = 8


def make_clicks(scenario: Path, folder: Path) -> Path:
    """The history of a scenario and its catalogue's size as one npz; nothing else is simulated for
    longer than a day.
    """
    from simulator.log.eventlog import EventLog
    from simulator.log.metadata import HISTORY
    from simulator.log.workspace import Workspace
    from simulator.run.pipeline import simulate
    from simulator.scenario.model import Scenario

    document = yaml.safe_load(scenario.read_text(encoding="utf-8"))
    document["arms"] = {name: {"policy": name} for name in ("popularity", "random")}
    document |= {"days": 1, "design": {"kind": "paired", "control": "popularity"}}
    document.pop("fits", None)
    short = folder / "history.yaml"
    short.write_text(yaml.safe_dump(document), encoding="utf-8")
    simulate(Scenario.load(short), folder / "run", folder=scenario.parent)
    history = EventLog.open(Workspace(folder / "run").arm(HISTORY))
    log = history.sequences(HISTORY, before=0)
    file = folder / "clicks.npz"
    size = [history.metadata.n_users, history.metadata.n_items]
    columns = {name: getattr(log, name) for name in ("user", "offsets", "items", "clicked", "t")}
    np.savez(file, size=np.array(size), **columns)
    return file


def fit(clicks: Path, scenario: Path, arm: str, seed: int) -> dict[str, float]:
    """One fit of an arm by the code of the checkout that is imported here."""
    import torch

    from policies.base import Catalogue, Fitting, Sequences
    from policies.registry import make
    from policies.validation import LastClicks

    torch.set_num_threads(1)
    spec = yaml.safe_load(scenario.read_text(encoding="utf-8"))["arms"][arm]
    policy = make(spec["policy"], spec.get("params", {}), scenario.parent)
    with np.load(clicks) as stored:
        columns = dict(stored)
    catalogue = Catalogue(*columns.pop("size").tolist())
    held_out = LastClicks(Sequences(**columns), 10**9, 0)
    start = time.process_time()
    policy.fit(held_out.history, catalogue, Fitting(seed))
    seconds = time.process_time() - start
    hits = []
    for block in held_out.blocks():
        slates = policy.recall(held_out.requests(block, 200), 10, 0)
        hits.append((held_out.gains(slates.items, block) > 0).any(axis=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "hr": float(np.concatenate(hits).mean()), "mib": peak}


def in_checkout(tree: Path, clicks: Path, scenario: Path, arm: str, seed: int) -> dict[str, float]:
    """`fit` in a process that imports the code of `tree`."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, "1"), "PYTHONPATH": str(tree)}
    here = Path(__file__).resolve()  # -P: the modules beside it have the names of packages
    command = [sys.executable, "-P", str(here), "--one", str(clicks), arm, str(seed)]
    command.append(str(scenario))
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def stacked(rows: int) -> tuple[float, float]:
    """CPU seconds of a gradient of `N_STACKED` networks one after another, as they are trained, and
    of all at once by `torch.func` and torch's own layers, for `rows` windows of 50 clicks and 512
    negatives each.
    """
    import torch
    from torch import nn
    from torch.func import functional_call, grad, stack_module_state, vmap

    from policies.losses import sampled_softmax
    from policies.operators import Embedding, Linear
    from recgpt.model import GPT, Shape
    from recgpt.rows import hidden_at

    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = Shape(embedding_dropout=0, dropout=0, user_dropout=0)
    draws = [torch.Generator().manual_seed(seed) for seed in range(N_STACKED)]
    models = [GPT(4000, 3000, shape).initialise(draw).train() for draw in draws]
    tokens = torch.randint(1, 4001, (N_STACKED, rows, shape.length))
    targets = torch.randint(1, 4001, (N_STACKED, rows * shape.length))
    users = torch.randint(0, 3000, (N_STACKED, rows))
    negatives = torch.randint(1, 4001, (N_STACKED, 512))
    everywhere, log_q = torch.ones(rows, shape.length, dtype=torch.bool), torch.zeros(4001)

    def loss(weights: Any, tokens: Any, targets: Any, users: Any, negatives: Any) -> Any:
        hidden = functional_call(models[0], weights, (tokens, users)).flatten(0, 1)
        vectors = weights["items.weight"]
        own = (hidden * vectors[targets]).sum(1, keepdim=True)
        logits = torch.cat([own, hidden @ vectors[negatives].T], 1)
        return (logits.logsumexp(1) - own[:, 0]).mean()

    weights = {name: value.detach() for name, value in stack_module_state(models)[0].items()}
    batch = tokens, targets, users, negatives
    together = vmap(grad(loss))
    seconds: list[list[float]] = [[], []]
    for _ in range(9):
        start = time.thread_time()
        for i, model in enumerate(models):
            hidden = hidden_at(model, tokens[i], users[i], None, everywhere)
            sampled_softmax(
                hidden, model.vectors("items"), targets[i], negatives[i], log_q
            ).backward()
        middle = time.thread_time()
        with (
            patch.object(Linear, "forward", nn.Linear.forward),
            patch.object(Embedding, "forward", nn.Embedding.forward),
        ):
            together(weights, *batch)
        seconds[0].append(middle - start)
        seconds[1].append(time.thread_time() - middle)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))


def best(rows: int) -> tuple[float, float]:
    """CPU seconds of a step of `rows` windows of 1 to 12 clicks among 12,000 items, forward and
    backward: by the module, and written out. Medians.
    """
    import torch

    from policies.losses import sampled_softmax
    from recgpt.model import GPT, Shape
    from recgpt.rows import hidden_at
    from simulator.reproduce.systems import BEST

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT(12_000, 1, Shape(**BEST)).initialise(torch.Generator().manual_seed(0)).train()
    tokens = torch.randint(1, 12_001, (rows, 12))
    tokens[torch.arange(12) < torch.randint(0, 12, (rows, 1))] = 0
    asked = tokens != 0
    users, log_q = torch.full((rows,), -1), torch.zeros(12_001)
    targets, negatives = (torch.randint(1, 12_001, (n,)) for n in (int(asked.sum()), 1024))
    seconds: list[list[float]] = [[], []]
    for _ in range(60):
        for is_written_out, spent in enumerate(seconds):
            start = time.thread_time()
            with patch("recgpt.rows.is_covered", return_value=bool(is_written_out)):
                hidden = hidden_at(model, tokens, users, None, asked)
            sampled_softmax(hidden, model.vectors("items"), targets, negatives, log_q).backward()
            spent.append(time.thread_time() - start)
    return float(np.median(seconds[0])), float(np.median(seconds[1]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path)
    parser.add_argument("--arm", default="recgpt")
    parser.add_argument("--fits", type=int, default=8)
    parser.add_argument("--before", type=Path, help="checkout of another revision")
    parser.add_argument("--stacked", action="store_true")
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--one", nargs=3, metavar=("CLICKS", "ARM", "SEED"))
    options = parser.parse_args()
    if options.stacked:
        for rows in (8, 32, 128):
            one_by_one, at_once = stacked(rows)
            ratio = at_once / one_by_one
            print(f"{rows} windows: {one_by_one:.3f} s, stacked {at_once:.3f} s ({ratio:.2f})")
        return
    if options.best:
        module, written = best(64)
        print(f"module {module:.4f} s, written out {written:.4f} s ({written / module:.2f})")
        return
    if options.scenario is None:
        parser.error("a scenario is needed")
    if options.one:
        clicks, arm, seed = options.one
        print(json.dumps(fit(Path(clicks), options.scenario, arm, int(seed))))
        return
    trees = {"now": Path(__file__).resolve().parents[1]}
    if options.before:
        trees["before"] = options.before.resolve()
    total = dict.fromkeys(trees, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        clicks_file = make_clicks(options.scenario, Path(folder))
        for seed in range(options.fits):
            for name, tree in trees.items():
                if name == "before" and seed > 0:
                    continue
                file = options.scenario.resolve()
                if name == "before":
                    file = tree / "scenarios" / options.scenario.name
                one = in_checkout(tree, clicks_file, file, options.arm, seed)
                total[name] += one["seconds"]
                print(
                    f"{name}, fit {seed}: {one['seconds']:.1f} s, HR@10 {one['hr']:.4f},"
                    f" {one['mib']:.0f} MiB",
                    flush=True,
                )
    each = total["now"] / options.fits
    print(f"{options.fits} fits: {total['now']:.1f} s, {each:.1f} s each")
    if options.before:
        print(f"{options.fits} fits against one before: {total['now'] / total['before']:.2f}")


if __name__ == "__main__":
    main()
