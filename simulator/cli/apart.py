"""The checks of a policy in a process of their own: one that ends its process, or hangs in native
code, is named like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.device import Device
from simulator.cli.failure import Failure

if TYPE_CHECKING:
    from policies.check import Result

GRACE = 15.0
"""Seconds beyond the limit of a check after which its process is ended: Python code is interrupted
at the limit, native code is not.
"""


def apart(
    name: str,
    params: Mapping[str, Any],
    checks: tuple[str, ...],
    seed: int,
    device: Device,
    limit: float,
) -> Iterator[Result]:
    """Run checks one after another in a child process.

    Yields:
        As `policies.check.check_policy`.

    Raises:
        Failure: a policy that cannot be made.
    """
    import multiprocessing

    from policies.check import Result, promise_of
    from simulator.run.executors import ending, spawning

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    note: Any = context.RawArray("c", 512)
    args = there, note, name, dict(params), checks, seed, device, limit
    child = context.Process(target=_child, args=args, daemon=True)
    with spawning():
        child.start()
    there.close()
    waiting = list(checks)

    def fallen(how: str) -> Result:
        doing = note.value.decode(errors="replace").partition(": ")[2] or "it"
        promise = promise_of(waiting[0])
        return Result(waiting[0], promise, False, detail=f"{doing} {how}", stops=True, crashed=True)

    try:
        while waiting:
            if not here.poll(limit + GRACE):
                yield fallen(f"took longer than the {limit:g} s of a check")
                return
            try:
                got = here.recv()
            except EOFError:
                child.join()
                yield fallen(f"ended its process ({ending(child.exitcode or 0)})")
                return
            if isinstance(got, str):
                raise Failure(got)
            waiting.remove(got.name)
            yield got
            if got.stops:
                return
    finally:
        child.kill()
        child.join()


def _child(
    pipe: Connection,
    note: Any,
    name: str,
    params: dict[str, Any],
    checks: tuple[str, ...],
    seed: int,
    device: Device,
    limit: float,
) -> None:
    import signal

    from policies.base import WorldBound
    from policies.calls import note_in
    from policies.check import check_policy
    from policies.device import DeviceError
    from policies.device import device as there
    from policies.registry import PolicyError, make
    from simulator.run.executors import follow_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()
    note_in(note)
    try:
        policy = make(name, params, Path())
        place = there(device)
    except (PolicyError, DeviceError) as error:
        pipe.send(str(error))
        return
    world = _world(seed) if isinstance(policy, WorldBound) else None
    for result in check_policy(
        policy, seed=seed, only=checks, world=world, device=place, limit=limit
    ):
        pipe.send(result)


def _world(seed: int) -> Any:
    """A small synthetic world for the yardsticks that look into one."""
    from simulator.users.base import Source
    from simulator.users.choice import Choice

    population = Choice(n_users=60, n_items=50)
    return population.build(Source(population.catalogue(seed)), seed, 1, Path())
