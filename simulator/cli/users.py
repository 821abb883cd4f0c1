"""`abtest users`: list and check user models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import FILE, SEED
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
def users() -> None:
    """List and check user models: users of a scenario that are written by others.

    \b
    abtest users list
    abtest users check my_users.py:MyUsers
    """


@users.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def list_(as_json: bool) -> None:
    """List the registered user models; imports none of them.

    \b
    abtest users list
    """
    from simulator.scenario.populations import POPULATIONS
    from simulator.users.plugins import USER_MODELS

    list_plugins(USER_MODELS, as_json)
    if not as_json:
        say(f"abtest's own kinds of users: {', '.join(POPULATIONS)} (docs/scenario.md)")


@users.command()
@click.argument("name")
@PARAMS
@ONLY
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the world.")
@click.option(
    "--scenario",
    type=FILE,
    help="Check on the data of this scenario; in a small synthetic world if left out.",
)
@LIMIT
def check(
    name: str,
    params: tuple[str, ...],
    only: tuple[str, ...],
    seed: int,
    scenario: Path | None,
    limit: float,
) -> None:
    """Check that user model NAME keeps the promises of the protocol, one line for each.

    NAME is a registered name, `module:Class` or `file.py:Class`. The checks run in a process of
    their own. Exit code 0: all kept; 1: a promise is broken; 2: bad input, or a user model that
    cannot be made or fitted, ends its process or hangs.

    \b
    abtest users check my_users.py:MyUsers --param patience=3
    abtest users check my_users.py:MyUsers --scenario scenario.yaml
    """
    from simulator.users.check import CHECKS, promise_of

    with failures():
        checks = chosen(only, CHECKS)
        work = partial(_checked, name, parameters(params), checks, seed, scenario, limit)
        tell_results(f"user model {name!r}", apart(work, checks, promise_of, limit), checks)


def _checked(
    name: str,
    params: dict[str, Any],
    checks: tuple[str, ...],
    seed: int,
    scenario: Path | None,
    limit: float,
) -> Iterator[Result]:
    """The checks of a user model, in the process that runs its code."""
    from simulator import datasets
    from simulator.scenario.model import Scenario, find
    from simulator.users.check import check_users
    from simulator.users.plugins import USER_MODELS

    model = USER_MODELS.make(name, params, Path())
    source = None
    if scenario is not None:
        data = Scenario.load(scenario).data
        if data.source != "synthetic":
            source = datasets.read(data, find(scenario).parent)
    yield from check_users(model, seed=seed, only=checks, source=source, limit=limit)
