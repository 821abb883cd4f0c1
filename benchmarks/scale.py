"""What a hundred million users cost, from rates measured here, and how a thousand workers share it.

    OMP_NUM_THREADS=1 python -m benchmarks.scale cost
    OMP_NUM_THREADS=1 python -m benchmarks.scale fits
    python -m benchmarks.scale schedule

`cost` measures small worlds on one core and prints core-hours and bytes of
`--target-users` x `--target-items` x `--target-days` for each policy as an arm. What does not
depend on the catalogue is taken as it is; the time inside a policy is measured with two sizes of
catalogue and drawn on as a straight line.

`fits` measures what an epoch more takes, with losses over sampled negatives: a fit of three epochs
beside one of a single epoch.

`schedule` simulates (simpy) a driver that hands pieces to workers as `simulator.run.cluster` does:
at most twice as many in flight as there are workers, each costs the driver some milliseconds, a
piece whose worker dies goes on elsewhere from its last finished day. Nothing is computed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import simpy

from benchmarks import report as made
from benchmarks.simulator import ServedArm, live, served
from policies.base import Catalogue, Fitting, Sequences, silent
from policies.registry import make
from simulator.log.eventlog import EventLog
from simulator.report.gather import gather

HOUR = 3600.0


@click.group()
def main() -> None:
    """What a hundred million users cost."""


@main.command()
@click.option("--users", type=int, default=2_000, help="Users of the worlds that are measured.")
@click.option("--items", type=int, nargs=2, default=(4_000, 16_000), help="Of their catalogues.")
@click.option("--days", type=int, default=3, help="Days that are served.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=("random", "popularity", "itemknn", "sasrec", "recgpt1"),
)
@click.option("--target-users", type=int, default=100_000_000)
@click.option("--target-items", type=int, default=1_000_000)
@click.option("--target-days", type=int, default=5)
def cost(
    users: int,
    items: tuple[int, int],
    days: int,
    policies: tuple[str, ...],
    target_users: int,
    target_items: int,
    target_days: int,
) -> None:
    """Measure rates, and print what a target costs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        live(users, items[0], days, path, 86_400)  # compiles
        lived = live(users, items[1], days, path, 86_400)
        size = path.stat().st_size / lived.impressions
        row, user_day = _report_rates(Path(folder))
        clicks = EventLog.open(path).sequences().clicked.sum()
    user_days = users * days
    impressions = lived.impressions / user_days * target_users * target_days
    requests = lived.requests / user_days * target_users * target_days
    click.echo(
        f"{users:,} users, {days} days: {lived.impressions / user_days:.1f} impressions in"
        f" {lived.requests / user_days:.2f} requests and {clicks / user_days:.2f} clicks a user and"
        " day;"
        f" {1e9 * lived.seconds / lived.impressions:.0f} ns an impression (users, random slates,"
        f" Parquet), {size:.1f} B in the log; adding up {1e9 * row:.0f} ns a row, report"
        f" {1e6 * user_day:.1f} us a user and day"
    )
    click.echo(
        f"\n{target_users:,} users x {target_items:,} items x {target_days} days:"
        f" {impressions:.2e} impressions, {requests:.2e} requests an arm\n"
    )
    click.echo("| of an arm | core-hours | what limits it |\n|---|---:|---|")
    lives = impressions * lived.seconds / lived.impressions / HOUR
    click.echo(f"| lives and log | {lives:,.0f} | the users' answers |")
    click.echo(f"| adding up | {impressions * row / HOUR:,.1f} | shared out by the parts |")
    in_report = target_users * target_days * user_day / HOUR
    click.echo(f"| report | {in_report:,.1f} | one process compares users |")
    small, large = (
        {one.policy: one for one in served(list(policies), users, n, days)} for n in items
    )
    for name in small:
        inside = _at(small[name], large[name], items, target_items)
        click.echo(
            f"| policy `{name}` | {requests * inside / HOUR:,.0f} |"
            f" {1e6 * _inside(small[name]):.0f} and {1e6 * _inside(large[name]):.0f} us a request"
            f" with {items[0]:,} and {items[1]:,} items,"
            f" {1e6 * inside:,.0f} with {target_items:,} |"
        )
    click.echo(f"\nlog: {impressions * size / 1e12:.2f} TB an arm")


def _report_rates(folder: Path) -> tuple[float, float]:
    """CPU seconds of a row more that is added up, and of a user's day more in the report."""
    added, reported, sizes = [], [], (50_000, 50_000, 300_000)  # the first compiles and imports
    for number, n_users in enumerate(sizes):
        home = folder / f"report-{number}"
        home.mkdir()
        added.append(made.make(home, n_users, 1, 12))
        start = time.process_time()
        gather(EventLog.open(home / "log"), arms=(), runtime=None, progress=silent)
        reported.append(time.process_time() - start)
    in_both_arms = 2 * (sizes[2] - sizes[1])
    row = (added[2] - added[1]) / (12 * in_both_arms)
    return row, (reported[2] - reported[1]) / in_both_arms


def _inside(arm: ServedArm) -> float:
    """CPU seconds of a request inside the policy."""
    return arm.inside / arm.requests


def _at(small: ServedArm, large: ServedArm, items: tuple[int, int], target: int) -> float:
    """Seconds of a request with `target` items, on the line through two sizes; never below the
    larger one's, since noise may tilt a line that is flat.
    """
    slope = (_inside(large) - _inside(small)) / (items[1] - items[0])
    return _inside(large) + max(slope, 0.0) * (target - items[1])


def _trained(epochs: int) -> dict[str, Any]:
    return {"epochs": epochs, "patience": 0}


def _stages(negatives: int, epochs: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """The trainings that are measured: a policy, and its hyper-parameters."""
    loss = {"kind": "sampled", "negatives": negatives}
    pretrained = {"pretraining_loss": loss, "pretraining": _trained(1)}
    return {
        "sasrec": ("sasrec", {"loss": loss, "training": _trained(epochs)}),
        "recgpt1, pre-training": ("pretrain", {**pretrained, "pretraining": _trained(epochs)}),
        "recgpt1, tuning": (
            "recgpt1",
            {**pretrained, "tuning_loss": loss, "tuning": _trained(epochs)},
        ),
    }


def _impressions(users: int, each: int, items: int) -> Sequences:
    """A log of `each` impressions of every user; every second one is clicked."""
    at = np.arange(users * each)
    shown = np.random.default_rng(0).integers(1, items + 1, len(at))
    return Sequences(np.arange(users), each * np.arange(users + 1), shown, at % 2 == 1, at)


@main.command()
@click.option("--users", type=int, default=512, help="That policies learn from.")
@click.option("--clicks", type=int, default=40, help="Of each user, and as many other impressions.")
@click.option("--items", type=int, multiple=True, default=(12_000, 200_000, 1_000_000))
@click.option("--negatives", type=int, default=2_048)
def fits(users: int, clicks: int, items: tuple[int, ...], negatives: int) -> None:
    """Measure what an epoch of a million clicks takes."""
    click.echo(
        f"{users:,} users with {clicks} clicks and as many other impressions, {negatives:,}"
        " negatives: CPU seconds of an epoch for a million clicks\n\n"
        f"| training | {' | '.join(f'{n:,} items' for n in items)} |\n|---|{'---:|' * len(items)}"
    )
    for name in _stages(negatives, 1):
        rates = []
        for n_items in items:
            seconds = {}
            for n_users, epochs in ((16, 1), (users, 1), (users, 3)):  # the first compiles
                log = _impressions(n_users, 2 * clicks, n_items)
                policy, params = _stages(negatives, epochs)[name]
                start = time.process_time()
                make(policy, params).fit(log, Catalogue(users, n_items), Fitting(0))
                seconds[epochs] = time.process_time() - start
            rates.append((seconds[3] - seconds[1]) / 2 / (users * clicks) * 1e6)
        click.echo(f"| `{name}` | {' | '.join(f'{rate:,.0f}' for rate in rates)} |")


@dataclass(frozen=True)
class Fleet:
    """Workers, and what befalls them.

    Attributes:
        workers: processors that compute pieces.
        driver: seconds that the main process takes for a piece, half at its submission.
        spread: standard deviation of the logarithm of the time of a piece.
        slow: share of workers that take `slowness` times as long.
        slowness: see `slow`.
        life: hours until a worker dies, on average (exponential); another takes its place after
            `restart` seconds.
        restart: see `life`.
    """

    workers: int = 1000
    driver: float = 1e-3
    spread: float = 0.25
    slow: float = 0.02
    slowness: float = 3.0
    life: float = 24.0
    restart: float = 60.0


@dataclass
class Stage:
    """What a stage has taken so far."""

    lost: int = 0
    most_attempts: int = 1
    busy: float = 0.0
    ends: list[float] = field(default_factory=list)


def simulate(fleet: Fleet, pieces: int, seconds: float, days: int, seed: int) -> Stage:
    """One stage: `pieces` of `days` days that take `seconds` each on average.

    Returns:
        When each piece has ended (seconds from the start), attempts that were lost, and seconds in
        which the driver was busy.
    """
    world, stage = simpy.Environment(), Stage()
    random = np.random.default_rng(seed)
    driver = simpy.Resource(world, 1)
    room = simpy.Resource(world, 2 * fleet.workers)
    idle = simpy.Store(world)
    idle.items.extend(np.where(random.random(fleet.workers) < fleet.slow, fleet.slowness, 1.0))

    def handled() -> Generator[Any, Any, None]:
        with driver.request() as turn:
            yield turn
            stage.busy += fleet.driver / 2
            yield world.timeout(fleet.driver / 2)

    def back(pace: float, after: float) -> Generator[Any, Any, None]:
        yield world.timeout(after)
        idle.put(pace)

    def piece(length: float) -> Generator[Any, Any, None]:
        with room.request() as place:
            yield place
            left, attempts = days, 0
            while left:
                attempts += 1
                yield from handled()
                pace = yield idle.get()
                day = length / days * pace
                death = random.exponential(fleet.life * HOUR)
                if death >= left * day:
                    yield world.timeout(left * day)
                    left = 0
                    world.process(back(pace, 0.0))
                else:
                    yield world.timeout(death)
                    left -= int(death / day)
                    stage.lost += 1
                    world.process(back(pace, fleet.restart))
                yield from handled()
            stage.most_attempts = max(stage.most_attempts, attempts)
            stage.ends.append(world.now)

    lengths = random.lognormal(-(fleet.spread**2) / 2, fleet.spread, pieces) * seconds
    for length in lengths:
        world.process(piece(float(length)))
    world.run()
    return stage


@main.command()
@click.option("--core-hours", type=float, default=1000.0, help="Of all pieces together.")
@click.option("--days", type=int, default=5)
@click.option("--workers", type=int, default=1000)
@click.option("--driver-ms", type=float, default=1.06, help="As benchmarks.executors counts it.")
@click.option("--pieces", type=int, multiple=True, default=(1_000, 3_000, 10_000, 30_000, 100_000))
@click.option("--seed", type=int, default=0)
def schedule(
    core_hours: float,
    days: int,
    workers: int,
    driver_ms: float,
    pieces: tuple[int, ...],
    seed: int,
) -> None:
    """Simulate how workers share pieces."""
    calm = Fleet(workers, driver_ms / 1e3, life=1e9, slow=0.0)
    rough = Fleet(workers, driver_ms / 1e3)
    ideal = core_hours * HOUR / workers
    click.echo(
        f"{core_hours:,.0f} core-hours on {workers:,} workers: {ideal / 60:.0f} minutes at best;"
        f" driver {driver_ms:g} ms a piece, seed {seed}\n\n"
        "| pieces | seconds each | calm: minutes | with deaths and slow workers | lost attempts |"
        " most attempts | last 1% of pieces, minutes | driver busy |\n|---:|" + "---:|" * 7
    )
    for count in pieces:
        seconds = core_hours * HOUR / count
        quiet = simulate(calm, count, seconds, days, seed)
        real = simulate(rough, count, seconds, days, seed)
        if len(real.ends) != count:
            raise SystemExit(f"{count - len(real.ends)} of {count} pieces never ended")
        tail = real.ends[-1] - real.ends[-max(count // 100, 1) - 1]
        click.echo(
            f"| {count:,} | {seconds:,.0f} | {quiet.ends[-1] / 60:,.0f} | {real.ends[-1] / 60:,.0f}"
            f" | {real.lost} | {real.most_attempts} | {tail / 60:,.1f} |"
            f" {real.busy / real.ends[-1]:.1%} |"
        )


if __name__ == "__main__":
    main()
