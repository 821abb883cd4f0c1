"""`abtest scenario`: check scenario files and print their JSON schema."""

from __future__ import annotations

import click

from simulator.cli.failure import failures


@click.group()
def scenario() -> None:
    """Check scenarios; print their JSON schema.

    \b
    abtest scenario check scenarios/kuaishou_like.yaml
    abtest scenario schema > scenario.schema.json
    """


@scenario.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
def check(files: tuple[str, ...]) -> None:
    """Validate scenario FILES: keys, types, ranges, names. Imports no plug-in, runs nothing.

    Exit code 0: all good. 2: every broken rule is named with file, line and key path.

    \b
    abtest scenario check scenarios/kuaishou_like.yaml
    """
    from simulator.cli.failure import Failure
    from simulator.scenario import Scenario, ScenarioError

    wrong = []
    for file in files:
        try:
            loaded = Scenario.load(file)
        except ScenarioError as error:
            wrong.append(str(error))
        else:
            click.echo(f"{file}: ok: {loaded.name}, {len(loaded.arms)} arms ({', '.join(loaded.arms)}), {loaded.days} days")
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

    from simulator.scenario import json_schema

    with failures():
        click.echo(json.dumps(json_schema(), indent=1))


@scenario.command()
def reference() -> None:
    """Print the reference of all keys as Markdown (docs/scenario.md is this output).

    \b
    abtest scenario reference > docs/scenario.md
    """
    from simulator.reference import markdown

    click.echo(markdown(), nl=False)
