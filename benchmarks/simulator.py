"""How fast the simulator is and where its time goes:
`OMP_NUM_THREADS=1 python -m benchmarks.simulator`, `... --policies comirec recgpt`,
`... --policies recgpt --items 12000 --interests 6`.

CPU seconds of one process with one thread; all feedback of the `choice` world, slates of 10, a
random policy, the log written as Parquet. Machines and neighbours differ: compare figures of one
run only.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Fitting, Policy, Sequences
from policies.explore import Explore
from policies.registry import make
from policies.time import DAY
from simulator.engine import tape
from simulator.engine.lives import Engine, ShardLives, Span
from simulator.engine.tape import Tape
from simulator.log.eventlog import EventLog, Writer
from simulator.log.metadata import Metadata
from simulator.run.context import one_torch_thread
from simulator.serving.desk import Channel, Desk
from simulator.serving.ranking import Ranker
from simulator.users.base import Source
from simulator.users.choice import Choice

SLATE = 10
HISTORY = 128
PAST = 7
"""Days of history of the users whose requests policies serve."""


class Clock:
    """CPU seconds by part; a part is a method that is wrapped."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def watch(self, owner: Any, method: str, part: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[part] += time.process_time() - start

        object.__setattr__(owner, method, timed)


def world(n_users: int, n_items: int) -> tuple[Any, Source]:
    """Fresh users of the choice world."""
    choice = Choice(n_users=n_users, n_items=n_items)
    source = choice.source(1)
    return choice.build(source, 1, 1, Path()), source


def fitted(policy: Policy, source: Source) -> Policy:
    """A policy fitted on nothing (the random one learns nothing, the app's own knows the world)."""
    catalogue = source.catalogue
    empty = np.zeros(0, dtype=np.int64)
    nobody = Sequences(
        np.arange(catalogue.n_users),
        np.zeros(catalogue.n_users + 1, dtype=np.int64),
        empty,
        empty.astype(bool),
        empty,
    )
    return policy.fit(nobody, catalogue, Fitting(1))


@dataclass
class Lived:
    """What a run of the simulator took: CPU seconds in all, and by part where a clock watched."""

    impressions: int
    requests: int
    seconds: float
    parts: dict[str, float]


def live(
    n_users: int, n_items: int, days: int, path: Path, tick: float, clock: Clock | None = None
) -> Lived:
    """`days` days from the first request to the closed Parquet file.

    A clock is a system call, which costs microseconds on virtual machines: what is to be compared
    is measured without one.
    """
    users, source = world(n_users, n_items)
    policy = fitted(make("random", {}), source)
    user = np.arange(n_users)
    lives, recorder = ShardLives.born(user, users.first(user), HISTORY), Tape(users.kinds)
    desk = Desk("random", Channel("random", policy, SLATE), (), None, n_items, 1)
    engine = Engine(
        lives,
        users,
        desk,
        recorder,
        Span(0, days * DAY, round(tick * 1000), 2048, SLATE, HISTORY, HISTORY),
    )
    writer = Writer(path, Metadata(("random",), n_users, n_items), users.kinds)
    if clock is not None:
        clock.watch(policy, "recall", "policy")
        clock.watch(users, "respond", "response")
        clock.watch(recorder, "append", "tape")
        clock.watch(desk, "serve", "desk (with policy)")
        clock.watch(engine, "serve_until", "serving")
        clock.watch(writer, "add", "Parquet")
        clock.watch(writer, "close", "Parquet")
    start = time.process_time()
    engine.run()
    simulated = time.process_time() - start
    for table in tape.tables(
        [recorder.columns()], 0, np.asarray(source.catalogue.items["duration"]), users.kinds
    ):
        writer.add(table)
    writer.close()
    total = time.process_time() - start
    return Lived(
        recorder.n_rows,
        recorder.n_requests,
        total,
        {} if clock is None else _parts(clock.seconds, simulated, total),
    )


def _parts(s: Mapping[str, float], simulated: float, total: float) -> dict[str, float]:
    return {
        "policy (random numbers, seen items)": s["policy"],
        "desk (contract, cutting)": s["desk (with policy)"] - s["policy"],
        "response (choice kernel)": s["response"],
        "tape": s["tape"],
        "lives (memory, clocks)": (
            s["serving"] - s["desk (with policy)"] - s["response"] - s["tape"]
        ),
        "simpy (ticks, days, queue)": simulated - s["serving"],
        "rows in KEY order": total - simulated - s["Parquet"],
        "Parquet": s["Parquet"],
    }


def speed(sizes: list[tuple[int, int]], days: int, tick: float) -> None:
    """Print the rate for each size, and the parts of another run of the last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        # Compile, and let the process have its memory: new pages cost a virtual machine
        # microseconds.
        live(*sizes[-1], days, path, tick)
        for n_users, n_items in sizes:
            done = live(n_users, n_items, days, path, tick)
            print(
                f"{n_users:>9,} users x {n_items:>6,} items x {days} days: {done.impressions:>10,}"
                f" impressions, {done.seconds:6.2f} CPU s,"
                f" {done.impressions / done.seconds:>11,.0f} impressions/s,"
                f" {done.requests / done.seconds:>9,.0f} requests/s,"
                f" {path.stat().st_size / done.impressions:.1f} B each"
            )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        watched = live(*sizes[-1], days, path, tick, Clock())
    print("\nwhere the time of the last goes, ns an impression (with the clocks that measure it)")
    for part, spent in watched.parts.items():
        print(
            f"  {part:<38} {spent / watched.impressions * 1e9:7.1f}  {spent / watched.seconds:6.1%}"
        )
    print(f"\npeak memory {peak:,.0f} MiB")


def serving(names: list[str], n_users: int, n_items: int, days: int, interests: int) -> None:
    """Print the requests per CPU second of arms with fitted policies; the policy's own share."""
    print(
        f"\n{n_users:,} users x {n_items:,} items: requests per CPU second, served and answered"
        " (fits of one epoch)"
    )
    for one in served(names, n_users, n_items, days, interests):
        print(
            f"  {one.policy:<16} {one.requests / one.seconds:>9,.0f} requests/s  ({one.requests:,}"
            f" requests; {1 - one.inside / one.seconds:.1%} of the time outside the policy)",
            flush=True,
        )


@dataclass
class ServedArm:
    """What an arm took: CPU seconds in all, those of them inside the policy, and of its fit."""

    policy: str
    requests: int
    seconds: float
    inside: float
    fit: float


def served(
    names: list[str], n_users: int, n_items: int, days: int, interests: int = 0
) -> Iterator[ServedArm]:
    """Arms with fitted policies, ranking included: recall 60, slates of 6.

    As in `scenarios/kuaishou_like.yaml`: the users have lived with the app's recommender for a
    week, on whose log everything is fitted, and each arm serves the days after it. A first day, not
    counted, compiles.
    """
    users, source = world(n_users, n_items)
    user = np.arange(n_users)

    def run(desk: Desk, lives: ShardLives, first: int, end: int) -> tuple[Engine, float]:
        engine = Engine(
            lives,
            users,
            desk,
            Tape(users.kinds),
            Span(first * DAY, end * DAY, DAY, 2048, 6, HISTORY, HISTORY),
        )
        start = time.process_time()
        engine.run()
        return engine, time.process_time() - start

    logging = Explore(
        "production",
        {"noise": 0.25, "boost": 1.9, "brevity": 0.15, "refresh": 7},
        temperature=0.36,
        epsilon=0.07,
    )
    fitted(logging, source)
    logging.bind(users)
    desk = Desk("production", Channel("production", logging, 6), (), None, n_items, 1)
    past, _ = run(desk, ShardLives.born(user, users.first(user), HISTORY), 0, PAST)
    fresh = {name: column.copy() for name, column in users.state().items()}
    rows = tape.rows(
        [past.tape.columns()], 0, np.asarray(source.catalogue.items["duration"]), users.kinds
    )
    log = EventLog(Metadata(("history",), n_users, n_items), rows).sequences()
    ranker = Ranker.fit(log, source.catalogue, HISTORY, 1.0)
    for name in names:
        params = EPOCH.get(name, {"training": {"epochs": 1}})
        one_torch_thread()
        start = time.process_time()
        fit = make(name, params).fit(log, source.catalogue, Fitting(1))
        learned = time.process_time() - start
        ways: dict[str, dict[str, Any]] = {name: {}}
        if name == "recgpt" and interests:
            quotas = {"quotas": (1,) * interests}
            ways = {f"{name} {second}": {**quotas, "second": second} for second in SECONDS}
        for label, further in ways.items():
            policy = fit.with_params(**further).restore(fit.state())
            desk = Desk(name, Channel(name, policy, 60), (), ranker, n_items, 1)
            for end in (PAST + 1, PAST + days):
                clock, inner = Clock(), policy.recall
                clock.watch(policy, "recall", "policy")
                users.restore({name: column.copy() for name, column in fresh.items()})
                lived, seconds = run(desk, past.lives.rows(user), PAST, end)
                object.__setattr__(policy, "recall", inner)
            yield ServedArm(label, lived.tape.n_requests, seconds, clock.seconds["policy"], learned)


SECONDS = ("argmax", "marginal")
"""The kinds of RecGPT's second step."""

_SAMPLED = {"kind": "sampled", "negatives": 512}
_TWO_STAGES: dict[str, Any] = {
    "pretraining_loss": _SAMPLED,
    "pretraining": {"epochs": 1},
    "tuning_loss": _SAMPLED,
    "tuning": {"epochs": 1},
}

EPOCH: dict[str, dict[str, Any]] = {
    "random": {},
    "popularity": {},
    "itemknn": {},
    "pretrain": {"pretraining": {"epochs": 1}},
    "finetune": _TWO_STAGES,
    "recgpt1": _TWO_STAGES,
    "recgpt": _TWO_STAGES,
}
"""Hyper-parameters of a fit of one epoch, where it is not `training.epochs`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--users", type=int, nargs="+", default=[1_000, 10_000], help="each with as many items"
    )
    parser.add_argument("--items", type=int, help="items, where not as many as users")
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--tick", type=float, default=86_400, help="simulated seconds")
    parser.add_argument(
        "--interests",
        type=int,
        default=0,
        help="of recgpt, with equal quotas, by both kinds of second step; 0: its default",
    )
    parser.add_argument(
        "--policies",
        nargs="*",
        default=[],
        help="requests per second with these policies, e.g. comirec recgpt1 recgpt",
    )
    asked = parser.parse_args()
    if asked.policies:
        serving(asked.policies, 2_000, asked.items or 4_000, 5, asked.interests)
        return
    speed([(n, asked.items or n) for n in asked.users], asked.days, asked.tick)


if __name__ == "__main__":
    main()
