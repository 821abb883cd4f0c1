"""`abtest policies`: list, check and start recall policies."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from policies.device import Device
from simulator.cli.failure import failures
from simulator.cli.options import FILE, FOLDER, SEED
from simulator.cli.plugin_checks import (
    LIMIT,
    ONLY,
    PARAMS,
    apart,
    chosen,
    list_plugins,
    parameters,
    tell_results,
)
from simulator.cli.say import say

if TYPE_CHECKING:
    from policies.subject import Result


@click.group()
def policies() -> None:
    """List, check and start recall policies.

    \b
    abtest policies list
    abtest policies check comirec
    abtest policies new my_policy
    """


@policies.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def list_(as_json: bool) -> None:
    """List the registered policies; imports none of them.

    \b
    abtest policies list
    """
    from policies.registry import POLICIES

    list_plugins(POLICIES, as_json)


@policies.command()
@click.argument("name")
@PARAMS
@ONLY
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the made-up logs.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where policies are fitted.",
)
@LIMIT
def check(
    name: str,
    params: tuple[str, ...],
    only: tuple[str, ...],
    seed: int,
    device: Device,
    limit: float,
) -> None:
    """Check that policy NAME keeps the promises of the contract, one line for each.

    NAME is a registered name, `module:Class` or `file.py:Class`. The checks run in a process of
    their own. Exit code 0: all kept; 1: a promise is broken; 2: bad input, or a policy that cannot
    be made or fitted, ends its process or hangs.

    \b
    abtest policies check comirec
    abtest policies check my_policy.py:MyPolicy --param dim=16
    """
    from policies.check import CHECKS, promise_of

    with failures():
        checks = chosen(only, CHECKS)
        work = partial(_checked, name, parameters(params), checks, seed, device, limit)
        tell_results(f"policy {name!r}", apart(work, checks, promise_of, limit), checks)


def _checked(
    name: str,
    params: dict[str, Any],
    checks: tuple[str, ...],
    seed: int,
    device: Device,
    limit: float,
) -> Iterator[Result]:
    """The checks of a policy, in the process that runs its code."""
    from policies.base import WorldBound
    from policies.check import check_policy
    from policies.device import device as there
    from policies.registry import make

    policy = make(name, params, Path())
    place = there(device)
    world = _world(seed) if isinstance(policy, WorldBound) else None
    yield from check_policy(policy, seed=seed, only=checks, world=world, device=place, limit=limit)


def _world(seed: int) -> Any:
    """A small synthetic world for the yardsticks that look into one."""
    from simulator.users.choice import Choice

    population = Choice(n_users=60, n_items=50)
    return population.build(population.source(seed), seed, 1, Path())


@policies.command()
@click.argument("name")
@click.option("--into", type=FOLDER, default=Path(), help="Parent folder.  [default: here]")
def new(name: str, into: Path) -> None:
    """Write an installable package for a new policy NAME: policy, test, scenario, README.

    \b
    abtest policies new my_policy
    cd my_policy && pip install -e . && pytest && abtest run scenario.yaml
    """
    from policies.scaffold import write_package

    with failures():
        folder = write_package(name, into)
    say(
        f"wrote {folder}; next: cd {folder} && pip install -e . && pytest && abtest run"
        " scenario.yaml"
    )


@policies.command()
@click.option("--out", type=FILE, help="File to write; standard output if left out.")
def gallery(out: Path | None) -> None:
    """Measure every built-in policy on one synthetic history and write the gallery page.

    \b
    abtest policies gallery --out docs/policies.md
    """
    from simulator.log.files import write_text
    from simulator.reproduce.gallery import page

    with failures():
        text = page(lambda name: say(f"measuring {name}", err=True))
        if out is None:
            say(text, nl=False)
        else:
            write_text(out, text)
