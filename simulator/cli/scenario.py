"""`abtest scenario`: list those that are shipped, check scenario files, print their JSON schema."""

from __future__ import annotations

import click

from simulator.cli.failure import failures
from simulator.cli.say import say


@click.group()
def scenario() -> None:
    """List and check scenarios; print their JSON schema and the reference of their keys.

    \b
    abtest scenario list
    abtest scenario check scenarios/kuaishou_like.yaml
    abtest scenario schema > scenario.schema.json
    """


@scenario.command("list")
def list_shipped() -> None:
    """List the scenarios that come with abtest: `abtest run NAME` runs one from any folder.

    \b
    abtest scenario list
    """
    from simulator.page.blocks import Table, columns, plain
    from simulator.page.terminal import show
    from simulator.scenario.model import Scenario, shipped

    with failures():
        rows = [
            [plain(name), plain(Scenario.load(file).description)]
            for name, file in shipped().items()
        ]
        show([Table("scenarios", columns("scenario", "what it is for", text=2), rows)])


@scenario.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(readable=False))
@click.option(
    "--plug-ins",
    is_flag=True,
    help="Also import the scenario's plug-ins, which runs their code, and check their parameters.",
)
def check(files: tuple[str, ...], plug_ins: bool) -> None:
    """Validate scenario FILES: keys, types, ranges, names, memory, that data are there, and the
    hyper-parameters of abtest's own policies. Runs nothing, and imports no plug-in unless asked to:
    a stranger's scenario is safe to check.

    Exit code 0: all good. 2: every broken rule is named with file, line and key path.

    \b
    abtest scenario check scenarios/kuaishou_like.yaml
    """
    from policies.base import silent
    from policies.registry import is_built_in
    from simulator.cli.failure import Failure
    from simulator.run.executors import Serial
    from simulator.run.pipeline import check as check_outside
    from simulator.scenario.model import Scenario, ScenarioError, find

    wrong = []
    for file in files:
        try:
            loaded = Scenario.load(file)
            check_outside(loaded, find(file).parent, Serial(silent), strangers=plug_ins)
        except ScenarioError as error:
            wrong.append(str(error))
            continue
        say(
            f"{file}: ok: {loaded.name}, {len(loaded.arms)} arms ({', '.join(loaded.arms)}),"
            f" {loaded.days} days"
        )
        unmade = []
        if not plug_ins:
            strangers = {spec.policy for _, spec in loaded.policies()}
            strangers = {name for name in strangers if not is_built_in(name)}
            unmade = sorted(strangers | {users.kind for _, users in loaded.user_models()})
        if unmade:
            say(
                f"  {', '.join(unmade)}: there, but not imported; --plug-ins or a run checks the"
                " parameters"
            )
    if wrong:
        raise Failure("\n".join(wrong))


@scenario.command()
def schema() -> None:
    """Print the JSON schema of a scenario file, for completion and checks in an editor.

    \b
    abtest scenario schema > scenario.schema.json
    # then, first line of a scenario: # yaml-language-server: $schema=scenario.schema.json
    """
    import json

    from simulator.scenario.model import json_schema

    with failures():
        say(json.dumps(json_schema(), indent=1))


@scenario.command()
def reference() -> None:
    """Print the reference of all keys as Markdown (docs/scenario.md is this output).

    \b
    abtest scenario reference > docs/scenario.md
    """
    from simulator.scenario.reference import markdown

    say(markdown(), nl=False)
