"""What a GPU gives: requests per second of RecGPT with six interests, and fits.

    python -m benchmarks.gpu [--device cuda] [--items 12000] [--processes 1 2 4] [--seconds 5]

RecGPT is fitted on the CPU for one epoch on random impressions and answers requests of histories of
up to 128 impressions, 2,048 a call, 60 items each, by both kinds of second step: on a core of the
CPU and on the device, there by one process and by several that share it. Rates are of the policy
alone, by the clock; the users' own lives take a core some 11 us a request besides
(`benchmarks.simulator`).
Before that, slates of the device are compared with those of one request at a time, which must be
the same bytes, and with the CPU's, whose scores differ in their last bits. Then SASRec and RecGPT's
pre-training are fitted for two epochs on the CPU and on the device; and where there are two GPUs,
by two processes, which must end with the bytes of one.

`--device cpu` runs the device's code on the CPU, to see that this program is sound: its rates mean
nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.large_fits import Epochs
from benchmarks.simulator import SECONDS
from policies.base import Catalogue, Fitting, Histories, Sequences, silent
from policies.device import DeviceError, device
from policies.ranks import ALONE
from policies.registry import make
from policies.resident import Resident
from policies.vectors import elsewhere
from simulator.run.together import together as together_fit

REQUESTS, LENGTH, K, INTERESTS = 2048, 128, 60, 6

SAMPLED = {
    f"{stage}_loss": {"kind": "sampled", "negatives": 512} for stage in ("pretraining", "tuning")
}

State = Mapping[str, Any]


def log_of(n_users: int, n_items: int, length: int) -> Sequences:
    """Random impressions, of some items far more often than others, half of them clicks."""
    draw = np.random.default_rng(0)
    items = np.minimum(draw.zipf(1.2, n_users * length), 2**40) % n_items + 1
    offsets, clicked = length * np.arange(n_users + 1), draw.random(len(items)) < 0.5
    return Sequences(np.arange(n_users), offsets, items, clicked, np.arange(len(items)))


def requests(n_items: int) -> Histories:
    """Requests of users who have seen between none and all of `LENGTH` items, and clicked half."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(0, LENGTH + 1, REQUESTS)
    real = np.arange(LENGTH) >= LENGTH - lengths[:, None]
    items = draw.integers(1, n_items + 1, real.shape) * real
    clicked = real & (draw.random(real.shape) < 0.5)
    users = np.arange(REQUESTS)
    return Histories(users, np.zeros_like(users), items, clicked, items)


def answering(state: State, second: str, device: str) -> Any:
    """RecGPT as it answers on a device; `here` = the CPU's own code."""
    quotas = {"quotas": (1,) * INTERESTS, "second": second}
    if device == "cuda":
        return make("recgpt", {**quotas, "device": "cuda"}).restore(state)
    policy: Any = make("recgpt", quotas).restore(state)
    if device == "cpu":
        policy.answering_ = elsewhere(policy.network_, "cpu")
        policy.index_ = Resident(policy.vectors_, torch.device("cpu"))
    return policy


_START: Any = None


def _begin(start: Any) -> None:
    global _START
    _START = start


def rate(state: State, second: str, device: str, n_items: int, seconds: float) -> float:
    """Requests per second of one process, from the moment at which all have answered once."""
    torch.set_num_threads(1)
    policy, asked = answering(state, second, device), requests(n_items)
    policy.recall(asked, K, 0)
    if _START is not None:
        _START.wait()
    calls, begun = 0, time.monotonic()
    while time.monotonic() - begun < seconds:
        policy.recall(asked, K, 0)
        calls += 1
    return calls * REQUESTS / (time.monotonic() - begun)


def together(processes: int, *asked: Any) -> float:
    """The sum of the rates of several processes at the same time."""
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _begin, (spawn.Barrier(processes),)) as pool:
        return sum(done.result() for done in [pool.submit(rate, *asked) for _ in range(processes)])


def compare(state: State, second: str, device: str, n_items: int) -> None:
    """Print how slates of the device compare with those of one request at a time and the CPU's."""
    asked = requests(n_items)
    there, here = (answering(state, second, where) for where in (device, "here"))
    whole, own = there.recall(asked, K, 0), here.recall(asked, K, 0)
    some = range(0, REQUESTS, 31)
    alone = [there.recall(asked.rows(slice(row, row + 1)), K, 0) for row in some]
    same = all(
        np.array_equal(whole.items[row], one.items[0])
        and np.array_equal(whole.scores[row], one.scores[0])
        for row, one in zip(some, alone, strict=True)
    )
    equal = (whole.items == own.items).all(axis=1).mean()
    print(
        f"  recgpt {second}: one request at a time gives {'the same' if same else 'OTHER'} bytes;"
        f" {equal:.2%} of slates are the CPU's"
    )


def fits(device: str, n_items: int) -> None:
    """Print the clock of fits on the CPU and on the device, and by two of them."""
    training = {"epochs": 2, "patience": 0, "batch": 1024, "microbatches": 2}
    for name, stage in (("sasrec", "training"), ("pretrain", "pretraining")):
        one = {
            where: Epochs(name, {stage: training}, 8192, n_items, where).of_rank(silent, ALONE)
            for where in dict.fromkeys(("cpu", device))
        }
        clocks = (f"{where} {figures['clock']:.1f} s" for where, figures in one.items())
        print(f"  {name}: {', '.join(clocks)}", flush=True)
        if device == "cpu" or torch.cuda.device_count() > 1:
            two = together_fit(Epochs(name, {stage: training}, 8192, n_items, device), 2, silent)
            same = all(rank["digest"] == one[device]["digest"] for rank in two)
            clock = max(rank["clock"] for rank in two)
            print(f"  {name}, by two: {clock:.1f} s, {'the same' if same else 'OTHER'} weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rate")
    asked = parser.parse_args()
    try:
        device(asked.device, "--device", "cpu")
    except DeviceError as error:
        parser.error(str(error))
    if asked.device == "cuda":
        print(torch.cuda.get_device_name())
    few = {"epochs": 1, "patience": 0}
    recgpt = make("recgpt", {"pretraining": few, "tuning": few, **SAMPLED})
    log = log_of(REQUESTS, asked.items, LENGTH)
    state = recgpt.fit(log, Catalogue(REQUESTS, asked.items), Fitting(0)).state()
    print(f"slates of {K}, {asked.items:,} items, {INTERESTS} interests")
    for second in SECONDS:
        compare(state, second, asked.device, asked.items)
    print("requests per second, by the clock")
    for second in SECONDS:
        given = asked.items, asked.seconds
        print(f"  recgpt {second}, a core of the CPU: {rate(state, second, 'here', *given):,.0f}")
        for count in asked.processes:
            found = together(count, state, second, asked.device, *given)
            print(f"  recgpt {second}, {asked.device}, {count} processes: {found:,.0f}", flush=True)
    print("two epochs of 8,192 users with 40 clicks, by the clock")
    fits(asked.device, asked.items)


if __name__ == "__main__":
    main()
