"""How fast the neural policies are, beside RecBole, and what level they reach.

`python -m benchmarks.policies speed --data Beauty.txt --recbole PYTHON`: CPU seconds of one thread,
both sides in one run. `python -m benchmarks.policies level sasrec --data Beauty.txt --param
loss.kind=softmax`: leave-one-out, full ranking, the history masked; a system of `abtest reproduce`,
such as "Best committee", is fitted as there. Data: lines `user item item ...` in time order.
`python -m benchmarks.policies products`: our products with their fixed orders beside numpy's and
torch's. Machines and neighbours differ: compare speeds of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402 (threads first)

from policies.base import Catalogue, Fitting, Histories, IntArray, Policy, Sequences  # noqa: E402
from policies.registry import make  # noqa: E402
from policies.validation import discount  # noqa: E402
from simulator.reproduce.systems import OWNER, PROTOCOLS  # noqa: E402

JOBS = {
    "SASRec:CE": ("sasrec", {"loss": {"kind": "softmax"}}),
    "SASRec:BPR": ("sasrec", {"loss": {"kind": "bpr"}}),
    "GRU4Rec:CE": ("gru4rec", {"loss": {"kind": "softmax"}}),
}
"""RecBole's model and loss, and ours of the same form: RecBole's SASRec has 2 blocks, 2 heads, an
inner width of 256 and post-norm.
"""

FORMS: dict[str, dict[str, Any]] = {
    "sasrec": {"heads": 2, "inner": 256, "norm": "post", "activation": "gelu"},
    "gru4rec": {"hidden": 128, "dropout": 0.3},
}


def read(file: Path, leave: int) -> tuple[Sequences, IntArray, Catalogue]:
    """Every user's items without the last `leave`, the first one left out (or 0s), and the
    catalogue.
    """
    users = [[int(field) for field in line.split()[1:]] for line in file.read_text().splitlines()]
    kept = [user[: max(len(user) - leave, 0)] for user in users]
    items = np.concatenate([np.array(user, dtype=np.int64) for user in kept])
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in kept])]).astype(np.int64)
    clicked = np.ones(len(items), dtype=bool)
    target = np.array([user[-leave] if 0 < leave <= len(user) else 0 for user in users])
    sequences = Sequences(np.arange(len(users)), offsets, items, clicked, np.arange(len(items)))
    return (
        sequences,
        target,
        Catalogue(
            len(users), max(map(max, users)), attributes=attributes(file, max(map(max, users)))
        ),
    )


def attributes(file: Path, n_items: int) -> tuple[IntArray, IntArray] | None:
    """The attributes of each item from `NAME_item2attributes.json` beside the data, or None."""
    beside = file.with_name(f"{file.stem}_item2attributes.json")
    if not beside.is_file():
        return None
    stored = json.loads(beside.read_text())
    lists = [stored.get(str(item), []) for item in range(n_items + 1)]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in lists])]).astype(np.int64)
    return offsets, np.array([one for each in lists for one in each], dtype=np.int64)


def evaluate(policy: Policy, sequences: Sequences, target: IntArray) -> dict[str, float]:
    """HR and NDCG at 5 and 10 over all items but the user's own, and users by the CPU second."""
    n = np.diff(sequences.offsets)
    order = np.argsort(n, kind="stable")
    hits = np.zeros((len(order), 10), dtype=bool)
    start = time.process_time()
    for first in range(0, len(order), 2048):
        rows = order[first : first + 2048]
        place = sequences.offsets[1:][rows, None] + np.arange(-int(n[rows].max()), 0)
        items = np.where(
            place >= sequences.offsets[rows, None], sequences.items[np.maximum(place, 0)], 0
        )
        histories = Histories(rows, np.zeros(len(rows), dtype=np.int64), items, items > 0, items)
        hits[rows] = policy.recall(histories, 10, 0).items == target[rows, None]
    seconds = time.process_time() - start
    gains = hits * discount(np.arange(10))
    found = {
        f"{name}@{k}": float(values[:, :k].sum() / len(order))
        for k in (5, 10)
        for name, values in (("HR", hits), ("NDCG", gains))
    }
    return {**found, "users_per_s": len(order) / seconds}


def ours(file: Path, name: str, params: Mapping[str, Any]) -> dict[str, float]:
    """CPU seconds of two epochs without validation (the first one warms up), and of a full-ranking
    evaluation.
    """
    sequences, target, catalogue = read(file, 1)
    training_log, _, _ = read(file, 2)
    policy = make(name, {**FORMS[name], **params, "training": {"epochs": 2, "patience": 0}})
    ends: list[float] = []
    policy.fit(
        training_log, catalogue, Fitting(progress=lambda *_: ends.append(time.process_time()))
    )
    targets = int(np.minimum(np.maximum(np.diff(training_log.offsets) - 1, 0), 50).sum())
    evaluate(policy, sequences, target)
    seconds = ends[1] - ends[0]
    users = evaluate(policy, sequences, target)["users_per_s"]
    return {
        "targets_per_s": targets / seconds,
        "epoch_targets": targets,
        "epoch_s": seconds,
        "users_per_s": users,
    }


def speed(file: Path, recbole: str | None, batches: int) -> None:
    """Print both sides' figures and their ratio."""
    theirs: dict[str, Any] = {}
    if recbole is not None:
        side = Path(__file__).with_name("recbole_speed.py")
        command = [recbole, str(side), str(file.resolve()), ",".join(JOBS), str(batches)]
        theirs = json.loads(
            subprocess.run(
                command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ).stdout
        )
    for job, (name, params) in JOBS.items():
        mine = ours(file, name, params)
        for figure, value in mine.items():
            other = theirs.get(job, {}).get(figure)
            print(
                f"{job:12} {figure:14} abtest {value:12,.1f}"
                + ("" if other is None else f"  RecBole {other:12,.1f}  ratio {value / other:8.2f}")
            )


def level(file: Path, name: str, params: Mapping[str, Any], seed: int) -> None:
    """Fit on all but each user's last item and print the CPU seconds of it and the accuracy on the
    last item. A name of `abtest reproduce` has its policy and parameters from there.
    """
    sequences, target, catalogue = read(file, 1)
    if name in OWNER:
        spec = OWNER[name].specs(PROTOCOLS["paper"])[name]
        policy = make(spec["policy"], spec["params"] | params)
    else:
        policy = make(name, params)

    def progress(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        print(
            f"{stage} {done}/{total} "
            + " ".join(f"{key} {value:.4f}" for key, value in figures.items()),
            file=sys.stderr,
            flush=True,
        )

    start = time.process_time()
    policy.fit(sequences, catalogue, Fitting(seed=seed, progress=progress))
    seconds = time.process_time() - start
    found = evaluate(policy, sequences, target)
    print(
        json.dumps(
            {
                "policy": name,
                "params": params,
                "seed": seed,
                "data": file.stem,
                "fit_s": round(seconds, 1),
                **found,
            }
        ),
        flush=True,
    )


def products(rounds: int = 5) -> None:
    """Print the CPU time of one thread of `policies.products.matmul` beside numpy's product of the
    same operands, and of `policies.affine` beside torch's linear map, best of some rounds.
    """
    import threadpoolctl
    import torch

    from policies.affine import Affine, room
    from policies.products import matmul

    kernel = next(
        info["architecture"]
        for info in threadpoolctl.threadpool_info()
        if info["internal_api"] == "openblas"
    )

    def best(compute: Callable[[], object], times: int = 10) -> float:
        seconds = []
        for _ in range(rounds + 1):
            start = time.process_time()
            for _ in range(times):
                compute()
            seconds.append((time.process_time() - start) / times)
        return min(seconds[1:])

    random = np.random.default_rng(0)
    print(f"rows x terms x columns, CPU ms; OpenBLAS' kernels for {kernel}")
    for b, d, n in (
        (64, 64, 6000),
        (1024, 64, 6000),
        (64, 64, 200),
        (64, 6000, 6000),
        (1, 64, 6000),
        (250, 3000, 30),
    ):
        for dtype in (np.float32, np.float64):
            rows, table = (
                random.standard_normal((b, d)).astype(dtype),
                random.standard_normal((d, n)).astype(dtype),
            )
            mine, theirs = (
                best(lambda rows=rows, table=table: matmul(rows, table)),
                best(lambda rows=rows, table=table: rows @ table),
            )
            print(
                f"{b:5} x {d:5} x {n:5} {dtype.__name__}  ours {1e3 * mine:8.3f}  numpy"
                f" {1e3 * theirs:8.3f}  ratio {mine / theirs:5.2f}"
            )
    print("maps of served networks, GFLOP/s")
    torch.set_num_threads(1)
    for b, d, n in ((8, 64, 192), (64, 64, 192), (64, 100, 300), (1024, 64, 128)):
        layer, x = torch.nn.Linear(d, n), room(b, d)
        x[:] = random.standard_normal((b, d))
        tensor, affine = torch.from_numpy(x), Affine.of(layer.weight, layer.bias)
        with torch.inference_mode():
            mine = best(lambda affine=affine, x=x, b=b: affine(x, b), 1000)
            theirs = best(lambda layer=layer, tensor=tensor: layer(tensor), 1000)
        speeds = (2e-9 * b * d * n / seconds for seconds in (mine, theirs))
        print("{:5} x {:5} x {:5}  ours {:4.0f}  torch {:4.0f}".format(b, d, n, *speeds))


def nested(pairs: list[str]) -> dict[str, Any]:
    """`["loss.kind=softmax", "width=32"]` as nested parameters; values are JSON where they can
    be.
    """
    params: dict[str, Any] = {}
    for pair in pairs:
        path, _, text = pair.partition("=")
        *parents, last = path.split(".")
        place = params
        for parent in parents:
            place = place.setdefault(parent, {})
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
    return params


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed", help="beside RecBole")
    fast.add_argument("--data", type=Path, required=True)
    fast.add_argument("--recbole", help="a Python interpreter that has RecBole 1.2.1")
    fast.add_argument(
        "--batches", type=int, default=20, help="training batches that RecBole is timed on"
    )
    good = commands.add_parser("level", help="accuracy of one policy")
    good.add_argument("policy")
    good.add_argument("--data", type=Path, required=True)
    good.add_argument("--param", action="append", default=[], metavar="KEY=VALUE")
    good.add_argument("--seed", type=int, default=0)
    commands.add_parser("products", help="our products beside numpy's and torch's")
    given = parser.parse_args()
    if given.command == "products":
        products()
    elif given.command == "speed":
        speed(given.data, given.recbole, given.batches)
    else:
        level(given.data, given.policy, nested(given.param), given.seed)


if __name__ == "__main__":
    main()
