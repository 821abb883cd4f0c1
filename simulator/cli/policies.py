"""`abtest policies`: list, check and start recall policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from policies.device import Device
from simulator.cli.apart import apart
from simulator.cli.failure import Failure, failures
from simulator.cli.options import FILE, FOLDER
from simulator.cli.say import say


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
    import json

    from policies.registry import available
    from simulator.page.blocks import Table, columns, plain
    from simulator.page.terminal import show

    entries = available()
    if as_json:
        say(
            json.dumps(
                {
                    name: {"target": e.target, "distribution": e.distribution}
                    for name, e in entries.items()
                },
                indent=1,
            )
        )
        return
    rows = [(plain(name), plain(e.target), plain(e.distribution)) for name, e in entries.items()]
    heads = columns("policy", "class", "distribution", text=3)
    show([Table("Policies", heads, rows)])


@policies.command()
@click.argument("name")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A hyper-parameter (YAML value); may be repeated.",
)
@click.option(
    "--only", multiple=True, metavar="CHECK", help="Run only these checks; may be repeated."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the made-up logs.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where policies are fitted.",
)
@click.option(
    "--limit",
    default=600.0,
    type=click.FloatRange(0, min_open=True),
    show_default=True,
    help="Seconds for one check.",
)
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
    from policies.check import CHECKS

    with failures():
        given = _parameters(params)
        unknown = [one for one in only if one not in CHECKS]
        if unknown:
            raise Failure(f"--only: no check {unknown[0]!r}; there is {', '.join(CHECKS)}")
        waiting = list(dict.fromkeys(only or CHECKS))
        broken = 0
        for result in apart(name, given, tuple(waiting), seed, device, limit):
            waiting.remove(result.name)
            if result.stops and result.crashed:
                raise Failure(
                    f"policy {name!r} cannot be checked: {result.detail}{_unchecked(waiting)}"
                )
            say(
                f"{'ok  ' if result.kept else ('skip' if result.skipped else 'FAIL')} "
                f" {result.name:<22} {result.promise}"
            )
            if not result.kept:
                say("      " + result.detail.replace("\n", "\n      "))
            broken += not result.kept and not result.skipped
    if broken:
        say(
            f"{name}: {broken} broken"
            f" {'promise' if broken == 1 else 'promises'}{_unchecked(waiting)}",
            err=True,
        )
        raise SystemExit(1)


def _parameters(params: tuple[str, ...]) -> dict[str, Any]:
    """Hyper-parameters out of KEY=VALUE."""
    import yaml

    given = {}
    for param in params:
        key, equals, value = param.partition("=")
        if not equals:
            raise Failure(f"--param must be KEY=VALUE; got {param!r}")
        try:
            given[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise Failure(f"--param {key}: {value!r} is no YAML value: {error}") from error
    return given


def _unchecked(waiting: list[str]) -> str:
    return f"; not checked: {', '.join(waiting)}" if waiting else ""


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
