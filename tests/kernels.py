"""Promises, exactness and a small run under other kernels than this processor's own:
`make kernels`, `python -m tests.kernels`.

The libraries choose their compiled kernels by the processor, and can be told to take those of an
older one. Each combination is a child process that says which kernels it really ran, so that a name
which a library does not know cannot pass for a check:

- OpenBLAS (numpy's products): `OPENBLAS_CORETYPE`, read back by threadpoolctl;
- ATen (torch): `ATEN_CPU_CAPABILITY`, read back from torch; MKL and oneDNN within torch follow the
    processor;
- numpy's own loops: `NPY_DISABLE_CPU_FEATURES`, read back from numpy;
- one thread and four (OpenBLAS takes no more than there are processors);
- the C library's `exp` and `log`, with fused multiply-add and without: `GLIBC_TUNABLES`, read back
    from their last bits.

By default a few combinations hold every kernel of every library once: those that come together in
one kind of processor. `--all` takes the whole product, every promise with the defaults of every
registered policy, and a further executor.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import os
import resource
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

AVX2, AVX512 = ("AVX2", "FMA3"), ("AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL")
BLAS: dict[str, tuple[str, ...]] = {
    "Prescott": (),
    "Haswell": AVX2,
    "Zen": AVX2,
    "SkylakeX": AVX512,
}
"""Kernels of OpenBLAS and what the processor must have for them."""

REPORTED = {"Prescott": ("Prescott", "Katmai"), "Zen": ("Zen", "Haswell")}
"""What OpenBLAS may report: kernels that it shares have the name of the first kind of processor."""

TORCH: dict[str, tuple[str, ...]] = {"default": (), "avx2": AVX2, "avx512": AVX512}
NUMPY: dict[str, tuple[str, ...]] = {"baseline": (), "avx2": AVX2, "avx512": AVX512}
"""Levels of ATen and of numpy's loops."""

THREADS = (1, 4)


@dataclass(frozen=True)
class Kernels:
    """One combination: what each library is told to take. `fused`: whether the C library may use
    fused multiply-add.
    """

    blas: str
    torch: str
    numpy: str
    threads: int
    fused: bool = True

    def __str__(self) -> str:
        words = (
            f"OpenBLAS {self.blas:8}  ATen {self.torch:7}  numpy {self.numpy:8}  libm"
            f" {'FMA' if self.fused else 'no FMA':6}"
        )
        return f"{words}  threads {self.threads}"

    def environment(self) -> dict[str, str]:
        """The variables that say so, for a new process."""
        named = {
            "OPENBLAS_CORETYPE": self.blas,
            "ATEN_CPU_CAPABILITY": self.torch,
            "NPY_DISABLE_CPU_FEATURES": " ".join(above(self.numpy)),
            "GLIBC_TUNABLES": "" if self.fused else "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2",
            "PYTHONPATH": str(ROOT),
        }
        threads = {
            f"{library}_NUM_THREADS": str(self.threads) for library in ("OPENBLAS", "OMP", "MKL")
        }
        return {**os.environ, **named, **threads}

    def not_running(self, running: dict[str, Any]) -> Iterator[str]:
        """Kernels that the child `running` was told to take and did not."""
        if running["blas"] not in REPORTED.get(self.blas, (self.blas,)):
            yield f"OpenBLAS runs its kernels for {running['blas']}, not for {self.blas}"
        if running["torch"] != self.torch:
            yield f"ATen runs its kernels for {running['torch']}, not for {self.torch}"
        if set(running["numpy"]) & set(above(self.numpy)):
            yield f"numpy still uses {', '.join(running['numpy'])}"
        if running["threads"][0] != min(self.threads, os.cpu_count() or 1):
            yield f"OpenBLAS runs {running['threads'][0]} threads, not {self.threads}"


def features() -> tuple[dict[str, bool], list[str]]:
    """What the processor has, and which of it numpy has loops for beyond its baseline."""
    try:
        from numpy._core import _multiarray_umath as numpy
    except ImportError:  # numpy 1
        from numpy.core import _multiarray_umath as numpy
    return numpy.__cpu_features__, numpy.__cpu_dispatch__


def above(level: str) -> list[str]:
    """Features of numpy's loops that the processor has and `level` has not."""
    has, dispatched = features()
    wide = [name for name in dispatched if name.startswith("AVX512") or name == "X86_V4"]
    barred = {"baseline": dispatched, "avx2": wide, "avx512": []}[level]
    return [name for name in barred if has[name]]


def available(levels: dict[str, tuple[str, ...]]) -> list[str]:
    """The kernels that this processor can run."""
    has, _ = features()
    return [name for name, needed in levels.items() if all(has.get(one, False) for one in needed)]


LEVEL = {"Prescott": 0, "Haswell": 1, "Zen": 1, "SkylakeX": 2}
"""Which of the levels of the other libraries belongs to a processor with these kernels of OpenBLAS.
"""


def covering() -> list[Kernels]:
    """Every kernel of every library at least once, those of one kind of processor together; one
    thread and four by turns.
    """
    torch, numpy = available(TORCH), available(NUMPY)
    return [
        Kernels(
            blas, torch[LEVEL[blas]], numpy[LEVEL[blas]], THREADS[place % 2], fused=LEVEL[blas] > 0
        )
        for place, blas in enumerate(available(BLAS))
    ]


def product() -> list[Kernels]:
    """All combinations."""
    names = itertools.product(
        available(BLAS), available(TORCH), available(NUMPY), THREADS, (True, False)
    )
    return list(itertools.starmap(Kernels, names))


def skipped() -> list[str]:
    """One line for each kernel that this processor cannot run."""
    has, _ = features()
    return [
        f"skip  {library} {name}: this processor lacks"
        f" {', '.join(one for one in needed if not has.get(one, False))}"
        for library, levels in (("OpenBLAS", BLAS), ("ATen", TORCH), ("numpy", NUMPY))
        for name, needed in levels.items()
        if name not in available(levels)
    ]


# What a child does


def running() -> dict[str, Any]:
    """The kernels that this process runs, as the libraries say."""
    import threadpoolctl
    import torch

    has, dispatched = features()
    (blas,) = (
        info
        for info in threadpoolctl.threadpool_info()
        if info["internal_api"] == "openblas" and "numpy" in info["filepath"]
    )
    return {
        "blas": blas["architecture"],
        "torch": torch.backends.cpu.get_cpu_capability().lower(),
        "numpy": [name for name in dispatched if has[name]],
        "threads": [blas["num_threads"], torch.get_num_threads()],
        "libm": digest_of_exp(),
    }


def digest_of_exp() -> str:
    """Of the last bits of the C library's `exp`."""
    return digest(b"".join(struct.pack("d", math.exp(x / 1000)) for x in range(-20_000, 20_000)))


def digest(*parts: bytes) -> str:
    """The first half of the SHA-256 of some bytes."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:32]


def places() -> Iterator[str]:
    """Products of equal rows that are not equal at every place of a block: of `policies.products`,
    and of torch as policies call it.
    """
    import numpy as np
    import torch

    from policies.blocks import ROWS, one_thread
    from policies.products import matmul

    random = np.random.default_rng(0)

    def operand(*shape: int) -> Any:
        return random.standard_normal(shape).astype(np.float32)

    def linear(rows: Any, table: Any) -> Any:
        return torch.nn.functional.linear(
            torch.from_numpy(rows), torch.from_numpy(table.T.copy())
        ).numpy()

    def product(rows: Any, table: Any) -> Any:
        return (torch.from_numpy(rows) @ torch.from_numpy(table)).numpy()

    def attention(rows: Any, table: Any) -> Any:
        """Of five tokens, the row times 1 to 5, to themselves."""
        tokens = torch.from_numpy(rows)[:, None] * torch.arange(1, 6)[:, None]
        return ((tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens).numpy()

    def double(rows: Any, table: Any) -> Any:
        return matmul(rows.astype(np.float64), table.astype(np.float64))

    with one_thread(), torch.inference_mode():
        for d, n in itertools.product(
            (1, 7, 8, 17, 50, 64, 65, 128),
            (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 16, 51, 64, 65, 192, 401),
        ):
            row, others, table = operand(d), operand(ROWS, d), operand(d, n)
            for compute in (matmul, double, linear, product, attention):
                results = {bytes(result) for result in compute(np.tile(row, (ROWS, 1)), table)}
                for place in range(0, ROWS, 9):
                    rows = others.copy()
                    rows[place] = row
                    results.add(bytes(compute(rows, table)[place]))
                if len(results) > 1:
                    yield (
                        f"{compute.__name__} of [{ROWS}, {d}] and [{d}, {n}]: {len(results)}"
                        " results of one row"
                    )


BRIEF: dict[str, Any] = {"training": {"epochs": 1, "patience": 0}}
STAGES: dict[str, Any] = {
    "pretraining": {"epochs": 1, "patience": 0},
    "tuning": {"epochs": 1, "patience": 0},
}
FORMS: list[tuple[str, dict[str, Any]]] = [
    *(
        (name, BRIEF)
        for name in ("bpr", "stamp", "gru4rec", "narm", "bert4rec", "sasrec", "comirec")
    ),
    *((name, {**BRIEF, "width": 50}) for name in ("stamp", "narm", "comirec")),
    ("s3rec", {**BRIEF, "pretraining": {"epochs": 1, "patience": 0}}),
    ("sasrec", {**BRIEF, "width": 50, "heads": 1}),
    (
        "comirec",
        {
            **BRIEF,
            "extractor": "sa",
            "interests": 3,
            "user_aware": True,
            "diversity": 0.1,
            "width": 17,
        },
    ),
    ("pretrain", {"pretraining": STAGES["pretraining"]}),
    ("finetune", STAGES),
    ("recgpt1", STAGES),
    ("recgpt", {**STAGES, "counts": {}, "quotas": [1, 1, 1], "merge": "pool"}),
    (
        "recgpt",
        {
            **STAGES,
            "shape": {"width": 50, "heads": 1, "length": 30},
            "quotas": [3, 2],
            "prompts": {"window": 1, "source": "model"},
        },
    ),
    ("popularity", {}),
    ("popularity", {"half_life": 1.5}),
    ("random", {}),
    ("itemknn", {}),
    ("explore", {"policy": "itemknn"}),
    ("oracle", {}),
    ("production", {}),
    ("implicit", {"model": "als", "arguments": {"factors": 17, "iterations": 2}}),
    ("implicit", {"model": "cosine"}),
    ("tests.worlds:CoClicks", {}),
]
"""Policies under check; a promise of serving holds of any fit, so fits are short, and widths such
that vectors begin anywhere in memory.
"""

PROMISES = (
    "determinism",
    "purity",
    "batch_invariance",
    "permutation",
    "cold_users",
    "save_load",
    "no_look_ahead",
    "shapes",
    "seen_items",
)
"""What rests on how numbers are rounded; `--all` keeps every promise, with the defaults of every
policy that is registered.
"""


def promises(names: Iterable[str] | None, forms: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Promises that a policy breaks."""
    import dataclasses

    from policies.base import WorldBound
    from policies.check import check_policy
    from policies.registry import make
    from simulator.users.choice import Choice

    people = Choice(n_users=60, n_items=50)
    with tempfile.TemporaryDirectory() as folder:
        for name, params in forms:
            policy = make(name, params)
            bound = (
                people.build(people.source(1), 1, 5, Path(folder))
                if isinstance(policy, WorldBound)
                else None
            )
            for result in check_policy(policy, only=names, world=bound):
                if not (result.kept or result.skipped):
                    yield (
                        f"{name} {dataclasses.asdict(policy)} breaks {result.name}: {result.detail}"
                    )


COUNTS: dict[str, Any] = {
    "popularity": {"policy": "popularity"},
    "recent": {"policy": "popularity", "params": {"half_life": 1.5}},
    "itemknn": {"policy": "itemknn"},
    "explore": {"policy": "explore", "params": {"policy": "itemknn", "pool": 20}},
}
NEURAL: dict[str, Any] = {
    "comirec": {
        "policy": "comirec",
        "params": {"width": 17, "length": 8, "user_aware": True, **BRIEF},
    },
    "recgpt": {
        "policy": "recgpt",
        "params": {
            "shape": {"width": 18, "feedforward": 16, "heads": 1, "length": 12},
            "counts": {},
            "quotas": [1, 1, 1],
            "merge": "pool",
            **STAGES,
        },
    },
    "coclicks": {"policy": "tests.worlds:CoClicks"},
}


def scenario(arms: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A small synthetic A/B behind a fitted ranker and beside another channel."""
    return {
        "name": "small",
        "seed": 9,
        "data": {"source": "synthetic", "history_days": 3},
        "users": {"kind": "choice", "n_users": 80, "n_items": 200},
        "days": 2,
        "serving": {
            "slate": 5,
            "recall": 20,
            "history": 32,
            "channels": [{"name": "new", "policy": "random", "quota": 3}],
        },
        "arms": arms,
        "engine": {"executor": "serial"},
        **changes,
    }


def finished(content: dict[str, Any], folder: Path, *, report: bool = False) -> Path:
    """The folder of the finished run of a scenario, its report with it or not."""
    import yaml

    from simulator.run.pipeline import run, simulate
    from simulator.scenario.model import Scenario

    folder.mkdir()
    (folder / "scenario.yaml").write_text(yaml.safe_dump(content))
    loaded = Scenario.load(folder / "scenario.yaml")
    return (run if report else simulate)(loaded, folder / "run", folder=folder).root


def contents(folder: Path) -> str:
    """The digest of the parts of a log."""
    return digest(*(file.read_bytes() for file in sorted(folder.rglob("*.parquet"))))


ENGINES: list[dict[str, Any]] = [
    {"executor": "serial", "tick": 60.0, "block": 7, "shards": 3},
    {"executor": "serial", "tick": 1e6, "block": 4096, "shards": 1},
    {"executor": "processes", "tick": 5000.0, "block": 33, "shards": 5},
]


def exactness(engines: list[dict[str, Any]]) -> Iterator[str]:
    """Ways to compute the run of neural policies that change its log."""
    with tempfile.TemporaryDirectory() as folder:
        logs = [
            contents(finished(scenario(NEURAL, engine=one), Path(folder, str(i))) / "log")
            for i, one in enumerate(engines)
        ]
    for engine, log in zip(engines, logs, strict=True):
        if log != logs[0]:
            yield f"the log differs between the engines {engines[0]} and {engine}"


def the_same() -> dict[str, str]:
    """What must be the same bytes under all kernels: digests by name."""
    import numpy as np

    from simulator.users.choice import Choice
    from simulator.users.choice.world import World

    world = World.draw(Choice(n_users=500, n_items=2000), 7)
    found = {
        f"world {name}": digest(np.ascontiguousarray(column).tobytes())
        for name, column in vars(world).items()
        if np.ndim(column)
    }
    for kind, design in (("choice", "paired"), ("markov", "split"), ("choice", "switchback")):
        with tempfile.TemporaryDirectory() as folder:
            users = {"kind": kind, "n_users": 150, "n_items": 300}
            content = scenario(COUNTS, users=users, design={"kind": design}, days=4)
            root = finished(content, Path(folder, "run"), report=True)
            report = json.loads((root / "report.json").read_text())
            del report["runtime"]  # seconds and memory
            found[f"log of {kind}, {design}"] = contents(root / "log")
            found[f"statistics of {kind}, {design}"] = digest(json.dumps(report).encode())
    return found


def child(every: bool) -> dict[str, Any]:
    """Everything under the kernels of this process."""
    result: dict[str, Any] = {"running": running()}
    result["wrong"] = [
        *places(),
        *promises(PROMISES, FORMS),
        *exactness(ENGINES if every else ENGINES[:2]),
    ]
    if every:
        result["wrong"] += promises(None, [(name, {}) for name in registered()])
    result["same"] = the_same()
    return result


def registered() -> list[str]:
    """The names of all policies of ours that bring no model of somebody else."""
    from policies.registry import available as named
    from simulator.reproduce.gallery import BRINGS_A_MODEL

    return sorted(
        entry.name
        for entry in named().values()
        if entry.distribution == "abtest" and entry.name not in BRINGS_A_MODEL
    )


# What the parent does


def ask(kernels: Kernels, every: bool) -> tuple[dict[str, Any], float]:
    """What the child under these kernels found, and its CPU seconds."""
    command = [
        sys.executable,
        "-W",
        "ignore::RuntimeWarning:implicit",
        "-m",
        "tests.kernels",
        "--child",
        *(["--all"] if every else []),
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, env=kernels.environment(), cwd=ROOT, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        return {"wrong": [f"the process ended with {done.returncode}: {done.stderr[-2000:]}"]}, 0.0
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.splitlines()[-1]), seconds


def verdicts(combinations: list[Kernels], every: bool) -> Iterator[tuple[bool, str]]:
    """Whether each combination is right, and a line that says so, with what is wrong below it."""
    first: dict[str, str] = {}
    plain = digest_of_exp()
    for kernels in combinations:
        found, seconds = ask(kernels, every)
        wrong, notes = found["wrong"], ""
        if "running" in found:
            running = found["running"]
            wrong += kernels.not_running(running)
            first = first or found["same"]
            wrong += [
                f"{name} differs from that under {combinations[0]}"
                for name, value in found["same"].items()
                if value != first[name]
            ]
            notes = (
                f"  ({running['blas']}; {', '.join(running['numpy']) or 'numpy baseline'};"
                f" {running['threads'][0]} threads"
            )
            notes += (
                "; this C library has one exp only)"
                if not kernels.fused and running["libm"] == plain
                else ")"
            )
        line = f"{'FAIL' if wrong else 'ok  '}  {kernels}{notes}  {seconds:.0f} CPU s"
        yield not wrong, "\n      ".join([line, *wrong])


def main() -> int:
    """Run the combinations one after the other; the exit status says whether all are right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--all", action="store_true", help="the whole product of the kernels, and every promise"
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.all)))
        return 0
    for line in skipped():
        print(line, flush=True)
    right = True
    for good, line in verdicts(product() if given.all else covering(), given.all):
        print(line, flush=True)
        right = right and good
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
