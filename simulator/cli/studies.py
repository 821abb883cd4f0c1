"""What `abtest bias`, `map` and `fidelity` share: from a scenario through many runs to a page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import DAYS, EXECUTOR, QUIET, goes_on
from simulator.cli.say import say

Command = Callable[..., None]


def of_one_lift(command: Command) -> Command:
    """The options of a command whose runs have an arm and a control of the scenario."""
    options = (
        click.option(
            "--arm", help="Whose lift; may be left out where there is one besides the control."
        ),
        click.option("--control", help="Over whom; the scenario's control if left out."),
        click.option("--metric", default="click", show_default=True, help="In which metric."),
        DAYS,
        EXECUTOR,
        QUIET,
    )
    for option in reversed(options):
        command = option(command)
    return command


def study(
    kept: str,
    scenario: Path,
    compute: Callable[..., Any],
    save: Callable[[Any, Path], Path],
    document: Callable[[Any], Any],
    *,
    out: Path | None,
    resume: bool,
    quiet: bool,
    control: str | None = None,
    seed: int | None = None,
    days: int | None = None,
    executor: str | None = None,
    **how: Any,
) -> None:
    """Compute what the command is called for, write its page and print it.

    Args:
        kept: what an interruption leaves finished in `out`, as "runs".
        scenario: as it was written.
        compute: from the scenario and the folder of the result on, with `how`.
        save: writes what was computed into the folder, and says where the page is.
        document: of what was computed, for the terminal.
        out: the folder; None: runs/<command>/<scenario>.
        resume, quiet: the options.
        control, seed, days, executor: override those of the scenario; None: as it says.
    """
    from simulator.log.workspace import file_name
    from simulator.page.terminal import show
    from simulator.run.progress import board
    from simulator.scenario.model import Scenario, find

    overrides = {"seed": seed, "days": days, "engine.executor": executor}
    overrides["design.control"] = control
    with failures():
        loaded = Scenario.load(scenario, overrides, {"design.control": "--control"})
        name = click.get_current_context().command.name or ""
        root = out or Path("runs") / name / file_name(loaded.name)
        with failures(goes_on(scenario, root, kept)):
            with board(quiet=quiet) as progress:
                result = compute(
                    loaded,
                    out=root,
                    folder=find(scenario).parent,
                    resume=resume,
                    progress=progress,
                    **how,
                )
            page = save(result, root)
            if not quiet:
                show(document(result))
            say(page)
