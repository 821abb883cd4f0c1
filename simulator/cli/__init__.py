"""The command line `abtest`. Each command has its own file here and is imported only when it is
called.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

import click

from policies.similar import similar
from simulator.cli.failure import BAD_INPUT, failures, of_system, terminable
from simulator.cli.say import say

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("simulator.cli.run:run", "Run a scenario to a finished report."),
    "compile": (
        "simulator.cli.compile:compile_",
        "Compile ahead what a scenario computes with: the first run is as fast as the next.",
    ),
    "report": (
        "simulator.cli.report:report",
        "Rebuild the report of a run, a log or a per-user table.",
    ),
    "compare": ("simulator.cli.compare:compare", "Compare two or more runs."),
    "audit": (
        "simulator.cli.audit:audit",
        "Re-randomise a paired run: the true error rates of every test.",
    ),
    "prior": ("simulator.cli.prior:prior", "What do earlier tests say of a lift beforehand?"),
    "power": ("simulator.cli.power:power", "Sample size, duration and smallest detectable lift."),
    "sensitivity": (
        "simulator.cli.which_metric:sensitivity",
        "Which metric decides soonest, which is hopeless, and which weighted sum would.",
    ),
    "replay": ("simulator.cli.replay:replay", "Off-policy value of policies on a log."),
    "pooled": (
        "simulator.cli.pooled:pooled",
        "The lift of a run by asking both policies about every request.",
    ),
    "fidelity": (
        "simulator.cli.fidelity:fidelity",
        "Do offline figures predict the simulated A/B?",
    ),
    "map": (
        "simulator.cli.map:map_",
        "Where over parameters of the world or of a policy does an arm win?",
    ),
    "bias": (
        "simulator.cli.bias:bias",
        "What would each design report where arms learn from one another?",
    ),
    "foretell": (
        "simulator.cli.foretell:foretell",
        "Which early metric foretells the lift of the last days?",
    ),
    "reproduce": (
        "simulator.cli.reproduce:reproduce",
        "The paper's tables and figures, measured beside published.",
    ),
    "calibrate": (
        "simulator.cli.calibrate:calibrate",
        "Hold a world to its published marginals, or fit it to them.",
    ),
    "world": (
        "simulator.cli.world_fit:world",
        "Make worlds from a log: learned users, and a world held to its own figures.",
    ),
    "data": ("simulator.cli.data:data", "Describe tables of interactions; prepare raw data sets."),
    "scenario": (
        "simulator.cli.scenario:scenario",
        "List and check scenarios; print their JSON schema.",
    ),
    "policies": ("simulator.cli.policies:policies", "List, check and start recall policies."),
    "users": ("simulator.cli.users:users", "List and check user models."),
}
"""Command -> ("module:object", one line for --help)."""


class Lazy(click.Group):
    """A group that imports a command's module only when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command: Any = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = similar(args[0], COMMANDS)
            if near is None:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near!r}?", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        with terminable(), failures():
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # of the help, or of the last words
            with suppress(OSError):
                say(f"abtest: {of_system(error)}", err=True)
            raise SystemExit(BAD_INPUT) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="abtest")
def main() -> None:
    """Decide which recommender is better before real users pay for the answer.

    \b
    abtest run scenarios/kuaishou_like.yaml
    """
