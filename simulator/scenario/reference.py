"""The reference of every scenario key, written from the models: docs/scenario.md is its output and
nothing else.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

from simulator.config.section import MAX_IDS
from simulator.page.blocks import Block, Heading, Prose, Section, Table, Words, columns, plain
from simulator.page.markdown import sections

HEAD = """\
# Scenario reference

Written by `abtest scenario reference` from the models themselves; a test holds this page to them. A
scenario is one YAML file. Unknown keys are errors; every key has a default unless it says
required. `abtest scenario schema` prints the JSON schema for editors.

`abtest scenario check FILE` refuses, with file, line and key path, what `abtest run` would refuse
before it simulates: unknown keys, values out of range, data that are not there, hyper-parameters of
abtest's own policies. It imports no plug-in, unless `--plug-ins` asks for it
([security](security.md)).

How a file is read:

- The file is UTF-8 text of at most 1 MiB. Plain values are those of YAML 1.2: `no` and `1:30` are
  text, `010` is text that a key for a number reads as ten. Aliases (`*name`) are read; tags
  (`!!int`) and merge keys (`<<`) are not.
- Numbers are finite. A whole number lies between -2^63 and 2^64 - 1.
- The name of an arm, a world or a channel is one line of at most 80 printable characters. Two names
  must differ in more than case or form of Unicode. Names become file names in one way: a name of
  lower-case letters, digits, `_` and `-` is its own file name, of any other as much as can be is
  kept, and a digest is added.
- Users and items of a synthetic world have no limit of their own. Before anything is written, the
  memory of one process is estimated from them, the history, the slate and the block, and refused
  above `engine.memory_limit`, with the largest parts named.
"""


def markdown() -> str:
    """The page: one table for each section, the scenario itself first, then the kinds of users."""
    from simulator.scenario.model import Scenario, json_schema
    from simulator.scenario.populations import POPULATIONS, population_class

    schema = json_schema()
    definitions = schema["$defs"]
    populations = {kind: population_class(kind) for kind in POPULATIONS}
    of_users = {cls.__name__ for cls in populations.values()}
    keys = {key: part for key, part in schema["properties"].items() if key != "users"}
    order = _reachable({"properties": keys}, definitions)
    shown = [Section("scenario", "Scenario", _keys("Scenario", schema, Scenario.__doc__))]
    for name in order:
        if name not in of_users:
            part = definitions[name]
            shown.append(Section(name, name, _keys(name, part, part.get("description"))))
    written = {*order, *of_users}
    for kind, cls in populations.items():
        whole = definitions[cls.__name__]
        blocks = _keys(cls.__name__, whole, cls.__doc__)
        for name in _reachable(whole, definitions):
            if name not in written:
                part = definitions[name]
                blocks += [Heading(name), *_keys(name, part, part.get("description"))]
                written.add(name)
        shown.append(Section(cls.__name__, Prose(f"users of kind `{kind}`"), blocks))
    return f"{HEAD}\n{sections(shown)}\n"


def _keys(name: str, schema: dict[str, Any], text: str | None) -> list[Block]:
    """What a section is, and the table of its keys."""
    words = inspect.cleandoc(text or "").split("\n\nAttributes:")[0]
    required = set(schema.get("required", ()))
    rows = []
    for key, field in schema.get("properties", {}).items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        if key in required:
            default = "required"
        elif len(default) > 60:
            default = "see its section"
        meaning = str(field.get("description", ""))
        cells = (f"`{key}`", _type(field), default, meaning)
        rows.append([plain(Prose(cell)) for cell in cells])
    heads = columns("key", "type", "default", "meaning", text=4)
    return [*(Words(Prose(part)) for part in words.split("\n\n")), Table(name, heads, rows)]


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[1]
    for key in ("anyOf", "oneOf"):
        if key in field:
            return " or ".join(_type(one) for one in field[key])
    if "allOf" in field:
        return _type(field["allOf"][0])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{one}`" for one in field["enum"])
    kind = field.get("type", "any")
    if kind == "array":
        inner = field.get("items") or (field.get("prefixItems") or [{}])[0]
        return f"list of {_type(inner)}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"mapping of {_type(field['additionalProperties'])}"
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [
        f"{sign} {field[name]:g}"
        for name, sign in words.items()
        if name in field and field[name] < MAX_IDS
    ]
    return " ".join([str(kind), *bounds])


def _reachable(schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """Names of the definitions that a schema refers to, depth first, in order of mention."""
    names: list[str] = []

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).rsplit("/", 1)[-1]
            if name in definitions and name not in names:
                names.append(name)
                visit(definitions[name])
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    visit(schema)
    return names
