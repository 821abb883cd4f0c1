"""What `abtest policies` and `abtest users` share: the list of plug-ins, and their checks in a
process of their own, where one that ends its process, or hangs in native code, is named like any
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import Failure
from simulator.cli.say import say

if TYPE_CHECKING:
    from policies.plugins import Registry
    from policies.subject import Result

PARAMS = click.option(
    "--param",
    "params",
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter (YAML value); may be repeated.",
)

ONLY = click.option(
    "--only", multiple=True, metavar="CHECK", help="Run only these checks; may be repeated."
)

LIMIT = click.option(
    "--limit",
    default=600.0,
    type=click.FloatRange(0, min_open=True),
    show_default=True,
    help="Seconds for one check.",
)

GRACE = 15.0
"""Seconds beyond the limit of a check after which its process is ended: Python code is interrupted
at the limit, native code is not.
"""

Work = Callable[[], Iterable["Result"]]
"""Runs the checks, one after another; something picklable."""


def apart(
    work: Work, checks: tuple[str, ...], promise_of: Callable[[str], str], limit: float
) -> Iterator[Result]:
    """Run checks one after another in a child process.

    Args:
        work: runs them there.
        checks: their names, in this order.
        promise_of: what the check of a name is about.
        limit: seconds that each may take.

    Yields:
        As `work`; and a `Result` that says so where the process ended or hangs.

    Raises:
        Failure: a plug-in that cannot be made, or data that cannot be read.
    """
    import multiprocessing

    from policies.subject import Result
    from simulator.run.executors import ending, spawning

    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    note: Any = context.RawArray("c", 512)
    child = context.Process(target=_child, args=(there, note, work), daemon=True)
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


def tell_results(name: str, results: Iterable[Result], checks: tuple[str, ...]) -> None:
    """Print one line for each check, and what a broken promise is about.

    Args:
        name: of the plug-in, with its noun.
        results: as `apart` gives them.
        checks: the names of all that were to be run.

    Raises:
        Failure: the plug-in gave no answer at all.
        SystemExit: 1, where a promise is broken.
    """
    waiting = list(checks)
    broken = 0
    for result in results:
        waiting.remove(result.name)
        unchecked = f"; not checked: {', '.join(waiting)}" if waiting else ""
        if result.stops and result.crashed:
            raise Failure(f"{name} cannot be checked: {result.detail}{unchecked}")
        word = "ok  " if result.kept else ("skip" if result.skipped else "FAIL")
        say(f"{word}  {result.name:<22} {result.promise}")
        if not result.kept:
            say("      " + result.detail.replace("\n", "\n      "))
        broken += not result.kept and not result.skipped
    if broken:
        unchecked = f"; not checked: {', '.join(waiting)}" if waiting else ""
        promises = "promise" if broken == 1 else "promises"
        say(f"{name}: {broken} broken {promises}{unchecked}", err=True)
        raise SystemExit(1)


def list_plugins(registry: Registry[Any], as_json: bool) -> None:
    """Print the registered plug-ins of a kind; none is imported."""
    import json

    from simulator.page.blocks import Table, columns, plain
    from simulator.page.terminal import show

    entries = registry.available()
    if as_json:
        brief = {
            name: {"target": entry.target, "distribution": entry.distribution}
            for name, entry in entries.items()
        }
        say(json.dumps(brief, indent=1))
        return
    rows = [(plain(name), plain(e.target), plain(e.distribution)) for name, e in entries.items()]
    heads = columns(registry.noun, "class", "distribution", text=3)
    show([Table(registry.plural.capitalize(), heads, rows)])


def chosen(only: tuple[str, ...], known: Iterable[str]) -> tuple[str, ...]:
    """The checks that `--only` names, each once; all where it names none.

    Raises:
        Failure: there is no check of a name.
    """
    names = list(known)
    unknown = [one for one in only if one not in names]
    if unknown:
        raise Failure(f"--only: no check {unknown[0]!r}; there is {', '.join(names)}")
    return tuple(dict.fromkeys(only or names))


def parameters(params: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of a plug-in out of KEY=VALUE.

    Raises:
        Failure: no equals sign, or no YAML value.
    """
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


def _child(pipe: Connection, note: Any, work: Work) -> None:
    import signal

    from policies.calls import note_in
    from simulator.run.executors import follow_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    follow_parent()
    note_in(note)
    try:
        for result in work():
            pipe.send(result)
    except ValueError as error:
        if type(error) is ValueError:
            raise  # not one of ours: a defect, to be seen
        pipe.send(str(error))
