"""Off-policy estimates with 1,000 resamples of 1,000,000 logged rounds x 100 items, beside the
packaged obp in the same run.

    python -m benchmarks.offpolicy [--rounds 1000000] [--items 100] [--obp PYTHON]

obp 0.5.7 wants numpy < 2 and an environment of its own: PYTHON is that environment's interpreter
(or the variable ABTEST_OBP); without it only abtest is measured. Every case runs in its own
process, one thread, on the same rounds (made by the same seed); CPU seconds are user + system of
the estimation, the making of the rounds apart; peak memory is the whole process's.
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

import numpy as np

CASES = ("ips", "snips", "dr")
SLATES = ("candidate_ips", "candidate_snips", "candidate_dr", "mips", "lips", "offcem")
"""On slates of SLATE items, drawn uniformly one after another; obp has none of them."""
SLATE = 6
CLUSTER = 5
"""Items of a cluster."""
RESAMPLES = 1000


def rounds(count: int, items: int) -> dict[str, np.ndarray]:
    """Logged single-item rounds under a uniform log; the target shows one item for each of `items`
    kinds of context.
    """
    random = np.random.Generator(np.random.Philox(key=17))
    action = random.integers(0, items, count, dtype=np.int64)
    context = random.integers(0, 10, count, dtype=np.int64)
    best = (context * 7 + 3) % items
    reward = (random.uniform(size=count) < 0.02 + 0.05 * (action == best)).astype(np.float64)
    return {
        "action": action,
        "context": context,
        "best": best,
        "reward": reward,
        "propensity": np.full(count, 1 / items),
    }


def ours(case: str, count: int, items: int) -> dict[str, float]:
    """Estimate by abtest: chunks of 65,536 rounds, the target gives its slate."""
    from simulator.offpolicy.replay import ReplaySettings, evaluate
    from simulator.offpolicy.rounds import Rounds
    from simulator.offpolicy.target import Target

    log = rounds(count, items)
    zero, row = np.zeros(count, dtype=np.int64), np.arange(count)
    place = zero[:, None]
    whole = Rounds(
        row,
        zero,
        zero,
        row,
        place,
        log["action"][:, None] + 1,
        log["reward"][:, None],
        log["propensity"][:, None],
        "marginal",
        log["context"],
    )
    chunks = [whole.rows(slice(at, at + 65_536)) for at in range(0, count, 65_536)]

    class Best:
        name = "best"

        def __call__(self, part: Rounds) -> Target:
            slate = (part.context * 7 + 3)[:, None] % items + 1
            return Target(
                (slate == part.item).astype(np.float64), slate[:, None, :], deterministic=True
            )

    started = time.process_time()
    (found,) = evaluate(
        chunks, [Best()], count, items, ReplaySettings((case,), resamples=RESAMPLES, contexts=10)
    )
    seconds = time.process_time() - started
    estimate = found[case]
    interval = estimate.interval()
    return {"cpu_s": seconds, "value": estimate.value, "low": interval.low, "high": interval.high}


def of_slates(case: str, count: int, items: int) -> dict[str, float]:
    """Estimate by abtest on slates: the target shows the next SLATE items after that of the
    context.
    """
    from simulator.offpolicy.replay import ReplaySettings, evaluate
    from simulator.offpolicy.rounds import Rounds
    from simulator.offpolicy.target import Target

    random = np.random.Generator(np.random.Philox(key=18))
    context = random.integers(0, 10, count)
    item = np.zeros((count, SLATE), dtype=np.int64)
    for place in range(SLATE):  # one of those that are left, counted past the ones above
        drawn = random.integers(1, items + 1 - place, count)
        for above in np.sort(item[:, :place], axis=1).T:
            drawn += drawn >= above
        item[:, place] = drawn
    first = context * 7 + 3

    def wanted(start: np.ndarray) -> np.ndarray:
        return (start[:, None] + np.arange(SLATE)) % items + 1

    good = (item - 1 - first[:, None]) % items < SLATE
    reward = (random.uniform(size=item.shape) < 0.02 + 0.05 * good).astype(np.float64)
    chance = np.broadcast_to(1.0 / (items - np.arange(SLATE)), item.shape)
    place = np.broadcast_to(np.arange(SLATE), item.shape)
    zero, row = np.zeros(count, dtype=np.int64), np.arange(count)
    whole = Rounds(
        row, zero, zero, row * SLATE, place, item, reward, chance, "conditional", context
    )
    chunks = [whole.rows(slice(at, at + 65_536)) for at in range(0, count, 65_536)]

    class Next:
        name = "next"

        def __call__(self, part: Rounds) -> Target:
            slate = wanted(part.context * 7 + 3)
            agree = (slate == part.item).astype(np.float64)
            return Target(agree, slate[:, None, :], deterministic=True)

    started = time.process_time()
    clusters = (np.arange(items + 1) + CLUSTER - 1) // CLUSTER
    settings = ReplaySettings((case,), resamples=RESAMPLES, contexts=10, clusters=clusters)
    (found,) = evaluate(chunks, [Next()], count, items, settings)
    seconds = time.process_time() - started
    interval = found[case].interval()
    return {
        "cpu_s": seconds,
        "value": found[case].value,
        "low": interval.low,
        "high": interval.high,
    }


def theirs(case: str, count: int, items: int) -> dict[str, float]:
    """Estimate by obp with its own bootstrap; DR with its reward model, fitted as its users do."""
    from obp.ope import (
        DoublyRobust,
        InverseProbabilityWeighting,
        RegressionModel,
        SelfNormalizedInverseProbabilityWeighting,
    )
    from sklearn.linear_model import LogisticRegression

    log = rounds(count, items)
    dist = np.zeros((count, items, 1))
    dist[np.arange(count), log["best"], 0] = 1.0
    given = {
        "reward": log["reward"],
        "action": log["action"],
        "pscore": log["propensity"],
        "action_dist": dist,
    }
    given["position"] = np.zeros(count, dtype=int)
    started = time.process_time()
    model_s = 0.0
    if case == "dr":
        model = RegressionModel(n_actions=items, base_model=LogisticRegression(max_iter=100))
        context = np.eye(10)[log["context"]]
        given["estimated_rewards_by_reg_model"] = model.fit_predict(
            context=context,
            action=log["action"],
            reward=log["reward"],
            pscore=log["propensity"],
            n_folds=3,
            random_state=0,
        )
        model_s = time.process_time() - started
    kinds = {
        "ips": InverseProbabilityWeighting,
        "snips": SelfNormalizedInverseProbabilityWeighting,
        "dr": DoublyRobust,
    }
    estimator = kinds[case]()
    value = estimator.estimate_policy_value(**given)
    interval = estimator.estimate_interval(**given, n_bootstrap_samples=RESAMPLES, random_state=0)
    seconds = time.process_time() - started
    return {
        "cpu_s": seconds, "model_s": model_s, "value": float(value),
        "low": float(interval["95.0% CI (lower)"]), "high": float(interval["95.0% CI (upper)"]),
    }  # fmt: skip


def measured(python: str, side: str, case: str, count: int, items: int) -> dict[str, float]:
    """One case in a process of its own."""
    root = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    command = [
        python,
        "-W",
        "ignore",
        "-m",
        "benchmarks.offpolicy",
        "--side",
        side,
        "--case",
        case,
        "--rounds",
        str(count),
        "--items",
        str(items),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=root, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument(
        "--obp", default=os.environ.get("ABTEST_OBP"), help="a Python that has obp 0.5.7"
    )
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES + SLATES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        sides = {"ours": of_slates if given.case in SLATES else ours, "theirs": theirs}
        result = sides[given.side](given.case, given.rounds, given.items)
        print(
            json.dumps(
                {**result, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
            )
        )
        return
    print(
        f"{given.rounds:,} rounds x {given.items} items, {RESAMPLES:,} resamples; CPU seconds and"
        " peak memory of one process each"
    )
    print(f"{'':15} {'abtest s':>9} {'GB':>5} {'obp s':>8} {'GB':>5} {'times':>7}   estimates")
    for case in CASES + SLATES:
        mine = measured(sys.executable, "ours", case, given.rounds, given.items)
        line = f"{case:15} {mine['cpu_s']:9.2f} {mine['peak_gb']:5.2f}"
        said = f"{mine['value']:.5f} [{mine['low']:.5f}, {mine['high']:.5f}]"
        if given.obp and case in CASES:
            other = measured(given.obp, "theirs", case, given.rounds, given.items)
            line += (
                f" {other['cpu_s']:8.2f} {other['peak_gb']:5.2f}"
                f" {other['cpu_s'] / mine['cpu_s']:7.1f}"
            )
            said += f" / {other['value']:.5f} [{other['low']:.5f}, {other['high']:.5f}]"
            if other.get("model_s"):
                said += f" (of obp's seconds, {other['model_s']:.1f} for its reward model)"
        print(f"{line}   {said}", flush=True)


if __name__ == "__main__":
    main()
