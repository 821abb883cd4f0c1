"""What fits and search over a million users and items take, beside another revision.

    python -m benchmarks.large_fits adam|logger [--before ../before] [--users N] [--items N]
    python -m benchmarks.large_fits memory [--before ../before] [--users N]
    python -m benchmarks.large_fits index|prompts [--items N]
    python -m benchmarks.large_fits ranks [--users N] [--items N]

Each part is computed in a process of its own with one thread, by the code of this checkout and of
that given by `--before`; printed are CPU seconds and the peak of memory, and the ratio of the two.
Vectors of items are drawn around 1,000 centres.

- `adam`: 16 batches of RecGPT's pre-training on 4,096 users with 8 clicks each, of all users.
- `logger`: the policy that writes the history of a synthetic world, recalling 100 items each for
  ten users who have seen 128; seconds are of one user.
- `memory`: one short epoch of small networks, and counts, over a log in files of 40 and of 160
  impressions a user, half of them clicks: how many bytes that no file backs an impression more
  takes at the peak of the fit.
- `index`: the exact index over all items, built and opened from its files, with the private memory
  that it then takes.
- `prompts`: of the index over all items, of cells (`ivf`) and of a graph (`hnsw`): what building
  takes, from opening its files, none of which is in memory, to the first answer, the 60 best items
  of a query, and Algorithm 1 for 64 users with 8 clicks each; how many of the exact 60 are found,
  and of the exact prompts.
- `ranks`: fits of SASRec and of RecGPT's pre-training, two epochs in two micro-batches, by one
  process and by two: CPU seconds and clock of the rank that takes longer, and whether the weights
  are the same. CPU seconds tell what two processes gain where other work is on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


def adam(users: int, items: int) -> dict[str, Any]:
    """CPU seconds of one epoch of pre-training, and its loss."""
    from policies.base import Catalogue, Fitting, Sequences
    from policies.losses import Loss
    from policies.train import Training
    from recgpt.policy import PreTrain

    clicks, chance = 8, np.random.default_rng(0)
    has_clicks = np.arange(users) % max(users // 4096, 1) == 0
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


def logger(users: int, items: int) -> dict[str, Any]:
    """CPU seconds of a user of the production policy, and a digest of what it recalls."""
    import hashlib

    from policies.base import Histories
    from simulator.users.choice import Choice, Production

    world = Choice(n_users=12, n_items=items)
    people = world.build(world.source(1), 1, 2, Path())
    policy = Production()
    policy.bind(people)
    user = np.arange(12)
    seen = np.random.default_rng(0).integers(1, items + 1, (12, 128))
    asked = Histories(user, np.zeros(12, dtype=np.int64), seen, seen > 0, seen)
    policy.recall(asked.rows(slice(0, 2)), 100, 0)  # compiled
    start = time.process_time()
    slates = policy.recall(asked.rows(slice(2, 12)), 100, 0)
    seconds = (time.process_time() - start) / 10
    digest = hashlib.sha256(slates.items.tobytes() + slates.scores.tobytes()).hexdigest()
    return {"seconds": seconds, "digest": digest[:12]}


MEMORY: dict[str, dict[str, Any]] = {
    "popularity": {},
    "itemknn": {},
    "sasrec": {"width": 8, "length": 8, "blocks": 1, "training": {"epochs": 1, "batch": 1024}},
    "bpr": {"width": 8, "training": {"epochs": 1, "batch": 1 << 16}},
    "recgpt": {
        "shape": {"width": 8, "feedforward": 8, "length": 8},
        "windows": "last",
        "pretraining": {"epochs": 1, "batch": 1024},
        "tuning": {"epochs": 1, "batch": 1024},
        "prompts": {"source": "exposed"},
    },
}

WATCH = """
import sys, time
most = 0
while True:
    try:
        lines = open(f"/proc/{sys.argv[1]}/status").read().splitlines()
    except OSError:
        break
    now = max([0, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
    if now > most:
        most = now
        print(most, flush=True)
    time.sleep(.002)
"""


def memory(users: int, items: int) -> dict[str, Any]:
    """Own bytes at the peak of each fit for an impression more, and CPU seconds of all fits."""
    import tempfile

    from policies.base import Catalogue, Fitting, Sequences
    from policies.registry import make

    chance, seconds, peaks = np.random.default_rng(0), 0.0, {}
    with tempfile.TemporaryDirectory() as folder:
        for each in (8, 40, 160):  # the first compiles
            n = users * each
            columns = {
                "items": chance.integers(1, items + 1, n),
                "clicked": chance.random(n) < 0.5,
                "t": np.arange(n) - n,
                "watch": chance.random(n, dtype=np.float32),
            }
            for name, column in columns.items():
                np.save(f"{folder}/{name}.npy", column)
            del columns, column
            files = ("items", "clicked", "t", "watch")
            flat = [np.load(f"{folder}/{f}.npy", mmap_mode="r").view(np.ndarray) for f in files]
            offsets, watch_time = np.arange(users + 1) * each, {"watch": flat[3]}
            log = Sequences(np.arange(users), offsets, *flat[:3], watch_time)
            for name, params in MEMORY.items():
                command = [sys.executable, "-c", WATCH, str(os.getpid())]
                watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                assert watch.stdout is not None
                before, start = int(watch.stdout.readline()), time.process_time()
                make(name, params).fit(log, Catalogue(users, items), Fitting(0))
                seconds += time.process_time() - start
                watch.terminate()
                most = max([before, *map(int, watch.stdout.read().split())])
                peaks[name, each] = 1024 * (most - before)
    slopes = {name: (peaks[name, 160] - peaks[name, 40]) / (120 * users) for name in MEMORY}
    return {"seconds": seconds, **slopes}


def _vectors(items: int) -> np.ndarray:
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((1000, 64), dtype=np.float32)
    vectors = centres[chance.integers(0, 1000, items + 1)]
    vectors += 0.5 * chance.standard_normal((items + 1, 64), dtype=np.float32)
    return 0.1 * vectors


def _private() -> float:
    """MiB that this process shares with nobody."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    held = (line.split() for line in lines if line.startswith(("Private_Dirty", "Private_Hugetlb")))
    return sum(int(line[1]) for line in held) / 1024


def index(users: int, items: int) -> dict[str, Any]:
    """CPU seconds and MiB of opening the exact index, and of building it."""
    import tempfile

    from policies.retrieval import Exact, Search

    figures: dict[str, Any] = {}
    queries = _vectors(63)
    seen = np.zeros((64, 0), dtype=np.int64)
    Search().index(_vectors(5000)).search(queries, 60, seen)  # compiled
    with tempfile.TemporaryDirectory() as folder:
        vectors = _vectors(items)
        before, start = _private(), time.process_time()
        built: Exact | None = Exact(vectors)
        assert built is not None
        figures |= {"built in s": time.process_time() - start, "built MiB": _private() - before}
        built.save(Path(folder) / "index")
        expected = built.search(queries, 60, seen)[0]
        built = None
        before, start = _private(), time.process_time()
        kept = Search().saved(Path(folder) / "index")
        figures |= {"seconds": time.process_time() - start, "MiB held": _private() - before}
        assert kept is not None
        assert np.array_equal(kept.search(queries, 60, seen)[0], expected)
    return figures


def _forgotten(files: list[Path]) -> None:
    """Have the system read `files` from the disk when they are asked for next."""
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def prompts(users: int, items: int) -> dict[str, Any]:
    """CPU seconds of the prompts of 64 users by all items, by cells and by a graph, and what the
    index of each kind takes.
    """
    import tempfile

    import torch

    from policies.base import Sequences
    from policies.retrieval import Search
    from recgpt.model import GPT, Shape
    from recgpt.prompts import Prompts, converse

    model = GPT(items, 64, Shape()).initialise(torch.Generator().manual_seed(0)).eval()
    vectors, queries, none_seen = _vectors(items), _vectors(639), np.zeros((640, 0), dtype=np.int64)
    with torch.no_grad():
        model.items.weight[1:] = torch.from_numpy(vectors[1:])
    clicked = np.random.default_rng(1).integers(1, items + 1, 64 * 8)
    log = Sequences(np.arange(64), np.arange(65) * 8, clicked, clicked > 0, np.arange(len(clicked)))
    at = np.arange(64 * 15) % 15 % 2 == 1
    small = Search().index(_vectors(5000))
    for rows in (1, 640):  # compiled
        small.search(queries[:rows], 60, none_seen[:rows])
    figures: dict[str, Any] = {}
    expected: Any = None
    with tempfile.TemporaryDirectory() as folder:
        for search in (Search(), Search("ivf", effort=16), Search("hnsw")):
            stem, own, start = Path(folder) / search.kind, {}, time.process_time()
            search.index(vectors).save(stem)
            own["built and saved in s"] = time.process_time() - start
            files = list(stem.parent.glob(f"{stem.name}.*"))
            own["files MiB"] = sum(file.stat().st_size for file in files) / 2**20
            _forgotten(files)
            held, start, clock = _private(), time.process_time(), time.monotonic()
            index: Any = search.saved(stem)
            index.search(queries[:1], 60, none_seen[:1])
            own["opened and asked once in CPU ms"] = 1e3 * (time.process_time() - start)
            own["and in ms of the clock"] = 1e3 * (time.monotonic() - clock)
            own["MiB held"] = _private() - held
            way = None if search.kind == "exact" else index
            for effort in (128, 512) if search.kind == "hnsw" else (search.effort,):
                if search.kind == "hnsw":  # the graph is the same, whatever the effort
                    index._index.hnsw.efSearch = effort
                index.search(queries, 60, none_seen)  # from now on the files are in memory
                start = time.process_time()
                best = index.search(queries, 60, none_seen)[0]
                took = {"60 items in ms": (time.process_time() - start) / 0.64}
                start = time.process_time()
                tokens = converse(model, log, Prompts(1, "model"), "model", "items", 0, way).tokens
                took["a prompt in ms"] = 1e3 * (time.process_time() - start) / at.sum()
                expected = expected or (best, tokens)
                pairs = zip(best, expected[0], strict=True)
                found = [len(np.intersect1d(*pair)) / 60 for pair in pairs]
                took["of 60 items found"] = float(np.mean(found))
                took["prompts that are the same"] = float((tokens == expected[1])[at].mean())
                with_effort = "" if search.kind == "exact" else f", effort {effort}"
                own |= {f"{what}{with_effort}": figure for what, figure in took.items()}
            figures |= {f"{search.kind}: {what}": figure for what, figure in own.items()}
    return {"seconds": figures["hnsw: a prompt in ms, effort 128"] / 1e3, **figures}


@dataclass(frozen=True)
class Epochs:
    """Two epochs of a policy on drawn clicks, 40 of each user, after a few that compile."""

    policy: str
    params: dict[str, Any]
    users: int
    items: int
    device: str = "cpu"

    def of_rank(self, progress: Any, ranks: Any) -> dict[str, Any]:
        """CPU seconds and clock of this rank, and a digest of its weights."""
        import hashlib

        import torch

        from policies.base import Catalogue, Fitting, Sequences
        from policies.registry import make

        torch.set_num_threads(1)
        policy, figures = make(self.policy, self.params), {}
        with ranks.connected(self.device):
            for users in (64, self.users):
                items = np.random.default_rng(0).integers(1, self.items + 1, 40 * users)
                offsets, clicked = 40 * np.arange(users + 1), np.ones(len(items), dtype=bool)
                log = Sequences(np.arange(users), offsets, items, clicked, np.arange(len(items)))
                clock, cpu = time.monotonic(), time.process_time()
                policy.fit(log, Catalogue(users, self.items), Fitting(0, self.device, ranks=ranks))
                figures = {"cpu": time.process_time() - cpu, "clock": time.monotonic() - clock}
        digest = hashlib.sha256(b"".join(part.tobytes() for part in policy.state().values()))
        return {**figures, "digest": digest.hexdigest()}


def ranks(users: int, items: int) -> dict[str, Any]:
    """What two processes spare of a fit."""
    from policies.base import silent
    from policies.ranks import ALONE
    from simulator.run.together import together

    training = {"epochs": 2, "patience": 0, "batch": 256, "microbatches": 2}
    params: dict[str, dict[str, Any]] = {
        "sasrec": {"training": training},
        "pretrain": {"pretraining": training},
    }
    figures: dict[str, Any] = {}
    for name, each in params.items():
        fit = Epochs(name, each, users, items)
        one, several = fit.of_rank(silent, ALONE), together(fit, 2, silent)
        two = {unit: max(rank[unit] for rank in several) for unit in ("cpu", "clock")}
        for unit in ("cpu", "clock"):
            figures[f"{name} by one, {unit} s"] = one[unit]
            figures[f"{name} by two, {unit} s"] = two[unit]
            figures[f"{name}, {unit} by one / by two"] = one[unit] / two[unit]
        same = all(rank["digest"] == one["digest"] for rank in several)
        figures[f"{name}, weights"] = "the same" if same else "other"
    return {"seconds": figures["sasrec by one, cpu s"], **figures}


PARTS = {
    "adam": adam,
    "logger": logger,
    "memory": memory,
    "index": index,
    "prompts": prompts,
    "ranks": ranks,
}


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
    parser.add_argument("--users", type=int, help="1,000,000; of memory 50,000, of ranks 2,048")
    parser.add_argument(
        "--items", type=int, help="1,000,000; of adam 20,000, of memory 500, of ranks 4,000"
    )
    parser.add_argument("--before", type=Path, help="checkout of another revision")
    parser.add_argument("--one", action="store_true", help="here, as JSON")
    options = parser.parse_args()
    sizes = {"adam": (10**6, 20_000), "memory": (50_000, 500), "ranks": (2048, 4000)}
    users, items = sizes.get(options.part, (10**6, 10**6))
    options.users, options.items = options.users or users, options.items or items
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
        said = ", ".join(
            f"{key} {value if isinstance(value, str) else format(value, ',.4g')}"
            for key, value in figures.items()
        )
        print(f"{options.part}, {name}: {said}", flush=True)
    if options.before:
        print(f"{options.part}: {seconds['now'] / seconds['before']:.3f} of before")


if __name__ == "__main__":
    main()
