"""Document: a YAML mapping that knows the line of each of its keys, so that every complaint can name it.

Reading and complaining only; what the keys mean is the business of the models in `simulator.scenario`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import PydanticCustomError

Keys = tuple[str | int, ...]


class ScenarioError(ValueError):
    """A scenario that breaks a rule; the message names file, line and key path, the rule and the value."""


@dataclass
class Document:
    """The plain values of a YAML file and where each key stands.

    Attributes:
        file: where it was read from, as the user wrote it.
        values: plain mappings, lists and scalars.
        lines: 1-based line of each key path; the path () is the whole file.
        flags: key paths that the command line has set, with the flag that did.
    """

    file: str
    values: dict[str, Any]
    lines: dict[Keys, int]
    flags: dict[Keys, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read one YAML mapping.

        Raises:
            ScenarioError: unreadable, not UTF-8, not YAML, a key given twice, or not a mapping.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text: {error}"
            raise ScenarioError(f"{path}: cannot be read: {reason}") from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, file: str) -> Document:
        """As `read`, from text."""
        document = cls(file, {}, {(): 1})
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            values = document._plain(root, ()) if root is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = "" if mark is None else f":{mark.line + 1}"
            raise ScenarioError(f"{file}{line}: not YAML: {error.problem or error.context}") from error
        except RecursionError as error:
            raise ScenarioError(f"{file}: an anchor that contains itself; write the values out") from error
        except yaml.YAMLError as error:
            raise ScenarioError(f"{file}: not YAML: {error}") from error
        if not isinstance(values, dict):
            found = "nothing" if values is None else type(values).__name__
            raise ScenarioError(f"{file}:1: must be a mapping of keys such as `name`, `users`, `arms`; got {found}")
        document.values = values
        return document

    def _plain(self, node: yaml.Node, path: Keys) -> Any:
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = key_node.value
                if not isinstance(key_node, yaml.ScalarNode):
                    raise ScenarioError(f"{self.file}:{key_node.start_mark.line + 1}: {dotted(path)}: a key must be a plain word")
                if key in mapping:
                    first = self.lines[(*path, key)]
                    line = key_node.start_mark.line + 1
                    raise ScenarioError(f"{self.file}:{line}: {dotted((*path, key))}: given twice, first on line {first}; keep one")
                self.lines[(*path, key)] = key_node.start_mark.line + 1
                mapping[key] = self._plain(value_node, (*path, key))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            items = []
            for i, child in enumerate(node.value):
                self.lines[(*path, i)] = child.start_mark.line + 1
                items.append(self._plain(child, (*path, i)))
            return items
        return yaml.SafeLoader("").construct_object(node, deep=True)

    def put(self, keys: Sequence[str], value: Any, flag: str) -> None:
        """Set a key from the command line."""
        here = self.values
        for key in keys[:-1]:
            below = here.setdefault(key, {})
            if not isinstance(below, dict):
                return  # the model will complain about this section, with its line
            here = below
        here[keys[-1]] = value
        self.flags[tuple(keys)] = flag

    def where(self, path: Keys) -> str:
        """`file:line: key.path` of a key, or of the nearest section around it; the flag where the command line set it."""
        if path in self.flags:
            return self.flags[path]
        known = path
        while known not in self.lines:
            known = known[:-1]
        return f"{self.file}:{self.lines[known]}: {dotted(path)}" if path else f"{self.file}:{self.lines[known]}"


def dotted(path: Iterable[str | int]) -> str:
    """`arms.comirec.params` from its parts."""
    return ".".join(str(part) for part in path)


def near(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or what there is."""
    known = list(known)
    matches = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {matches[0]!r}?" if matches else f"there is {', '.join(known) or 'none'}"


DISAGREEMENT = "disagreement"


def disagreement(keys: Keys, rule: str) -> PydanticCustomError:
    """For a model's validator: two keys that are fine alone break a rule together; `keys` is the one to point at."""
    return PydanticCustomError(DISAGREEMENT, "{path}: {rule}", {"path": dotted(keys), "keys": keys, "rule": rule})


def complaint(document: Document, issue: Mapping[str, Any], known: Iterable[str], prefix: Keys = ()) -> str:
    """One message for one pydantic error.

    Args:
        document: where the value stands.
        issue: of `ValidationError.errors()`.
        known: the keys that the section around the value has, for the near miss of an unknown key.
        prefix: key path of the section that was validated.
    """
    path = (*prefix, *issue["loc"])
    if issue["type"] == DISAGREEMENT:
        return f"{document.where((*path, *issue['ctx']['keys']))}: {issue['ctx']['rule']}"
    if issue["type"] == "extra_forbidden":
        return f"{document.where(path)}: no such key {path[-1]!r}; {near(str(path[-1]), known)}"
    if issue["type"] == "missing":
        return f"{document.where(path)}: this key must be given"
    rule = str(issue["msg"]).removeprefix("Value error, ")
    shown = repr(issue.get("input"))
    return f"{document.where(path)}: {rule}; got {shown if len(shown) < 120 else shown[:117] + '...'}"
