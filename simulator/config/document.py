"""Document: a YAML mapping that knows the line of each of its keys, so that every complaint can
name it.

Reading and complaining only; what the keys mean is the business of the models in
`simulator.scenario.model`. A scenario may come from anybody, so reading one is total: any bytes end
as plain values or as one `ScenarioError`, in bounded time and memory.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import PydanticCustomError, ValidationError

from policies.rules import rule_of
from policies.similar import suggest

Keys = tuple[str | int, ...]

SIZE = 1 << 20
"""Bytes that a scenario may have; one of 255 arms with all their hyper-parameters has some 200
thousand.
"""

DEPTH = 32
"""Sections within sections; the deepest key of a shipped scenario lies 6 deep."""

TOO_DEEP = f"sections within sections, deeper than {DEPTH}"

VALUES = 100_000
"""Values after aliases (`*x`) are written out: nine aliases of nine aliases of ... make a few
hundred bytes into billions.
"""

WHOLE = range(-(2**63), 2**64)
"""Whole numbers that a scenario may have: those that a column of 64 bits holds."""


class ScenarioError(ValueError):
    """A scenario that breaks a rule; the message names file, line and key path, the rule and the
    value.
    """


class _Loader(yaml.SafeLoader):
    """YAML's syntax with the plain scalars of YAML 1.2 (https://yaml.org/spec/1.2.2/, 10.3.2) and
    nothing that makes objects.

    YAML 1.1, which PyYAML reads otherwise, takes `no` for false, `1:30` for 90, `010` for 8,
    `2020-01-01` for a date and `1e3` for text. What is not clearly a number here is text; a key
    that wants a number still reads `010` as ten.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML declares it

    def __init__(self, text: str, file: str) -> None:
        super().__init__(text)
        self.file, self.depth = file, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        here = f"{self.file}:{event.start_mark.line + 1}"
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ScenarioError(
                f"{here}: the tag {shown(tag)} is not read; write the plain value, in quotes if it"
                " is text"
            )
        self.depth += 1
        if self.depth > DEPTH:
            raise ScenarioError(f"{here}: {TOO_DEEP}")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_NULL, _BOOL, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")
)
for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass
class YamlDocument:
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
    def read(cls, path: Path) -> YamlDocument:
        """Read one YAML mapping.

        Raises:
            ScenarioError: unreadable, no regular file, too long, not UTF-8, or as `parse`.
        """
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise ScenarioError(f"{path}: is no regular file; a scenario is a YAML file")
            with path.open("rb") as stream:
                content = stream.read(SIZE + 1)
        except OSError as error:
            raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
        if len(content) > SIZE:
            raise ScenarioError(
                f"{path}: a scenario has at most {SIZE:,} bytes; this file has more"
            )
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ScenarioError(
                f"{path}:{line}: not UTF-8 text: byte 0x{content[error.start]:02x}; save the file"
                " as UTF-8"
            ) from error
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, file: str) -> YamlDocument:
        """As `read`, from text.

        Raises:
            ScenarioError: not YAML, too deep or too many values, a tag, a key given twice, a number
                or a character that cannot be kept, or not a mapping.
        """
        document = cls(file, {}, {(): 1})
        root = document._compose(text)
        values = None if root is None else document._plain(root, (), [])
        if not isinstance(values, dict):
            kind = "nothing" if values is None else type(values).__name__
            raise ScenarioError(
                f"{file}:1: must be a mapping of keys such as `name`, `users`, `arms`; got {kind}"
            )
        document.values = values
        return document

    def _compose(self, text: str) -> yaml.Node | None:
        """The tree of nodes of a text."""
        loader = None
        try:
            loader = _Loader(text, self.file)
            node: yaml.Node | None = loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = "" if mark is None else f":{mark.line + 1}"
            raise ScenarioError(
                f"{self.file}{line}: not YAML: {error.problem or error.context}"
            ) from error
        except yaml.reader.ReaderError as error:
            line = f":{text.count(chr(10), 0, error.position) + 1}"
            raise ScenarioError(
                f"{self.file}{line}: a control character, U+{error.character:04X}; remove it"
            ) from error
        except ScenarioError:
            raise
        except (
            ValueError,
            OverflowError,
        ) as error:  # chr and int within PyYAML: `"\\UFFFFFFFF"`, `%YAML 1.99...9`
            line = "" if loader is None else f":{loader.get_mark().line + 1}"
            raise ScenarioError(
                f"{self.file}{line}: not YAML: an escape that is no character, or a version that is"
                " none"
            ) from error
        return node

    def _plain(self, node: yaml.Node, path: Keys, around: list[yaml.Node]) -> Any:
        """The plain value of a node at `path`, `around` being the nodes that it lies in."""
        if len(self.lines) > VALUES:
            raise self._error(
                node, path, f"more than {VALUES:,} values once every alias (`*name`) is written out"
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if any(node is outer for outer in around):
            raise self._error(node, path, "an anchor that contains itself; write the values out")
        if len(around) > DEPTH:
            raise self._error(node, path, TOO_DEEP)
        inner = [*around, node]
        if isinstance(node, yaml.SequenceNode):
            for i, child in enumerate(node.value):
                self.lines[(*path, i)] = child.start_mark.line + 1
            return [self._plain(child, (*path, i), inner) for i, child in enumerate(node.value)]
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key in mapping:
                first = self.lines[(*path, key)]
                raise self._error(
                    key_node, (*path, key), f"given twice, first on line {first}; keep one"
                )
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            mapping[key] = self._plain(value_node, (*path, key), inner)
        return mapping

    def _key(self, node: yaml.Node, path: Keys) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, path, "a key must be a plain word")
        if node.value == "<<" and node.style is None:
            raise self._error(
                node,
                (*path, "<<"),
                "merge keys are not read; write the values out, or alias (`*name`) a whole section",
            )
        return self._text(node, path)

    def _scalar(self, node: yaml.ScalarNode, path: Keys) -> Any:
        """The value of a scalar: null, a bool, a whole number, a finite number, or text."""
        text = node.value
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        if node.tag == _INT:
            digits = text.lstrip("+-")
            if len(digits) > 64 or int(text, 0) not in WHOLE:
                raise self._error(
                    node, path, f"whole numbers lie between -2^63 and 2^64 - 1; got {shown(text)}"
                )
            return int(text, 0)
        if node.tag == _FLOAT:
            infinite = text.lower().endswith((".inf", ".nan"))
            number = math.inf if infinite else float(text)
            if not math.isfinite(number):
                raise self._error(node, path, f"must be a finite number; got {shown(text)}")
            return number
        return self._text(node, path)

    def _text(self, node: yaml.ScalarNode, path: Keys) -> str:
        text: str = node.value
        for character in text:
            code = ord(character)
            if (
                (code < 32 and character not in "\n\t")
                or 127 <= code < 160
                or 0xD800 <= code < 0xE000
            ):
                raise self._error(
                    node, path, f"a control character, U+{code:04X}, in {shown(text)}; remove it"
                )
        return text

    def _error(self, node: yaml.Node, path: Keys, rule: str) -> ScenarioError:
        place = f"{dotted(path)}: " if path else ""
        return ScenarioError(f"{self.file}:{node.start_mark.line + 1}: {place}{rule}")

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
        """`file:line: key.path` of a key, or of the nearest section around it; the flag where the
        command line set it.
        """
        if path in self.flags:
            return self.flags[path]
        known = path
        while known not in self.lines:
            known = known[:-1]
        if path:
            return f"{self.file}:{self.lines[known]}: {dotted(path)}"
        return f"{self.file}:{self.lines[known]}"


def dotted(path: Iterable[str | int]) -> str:
    """`arms.comirec.params` from its parts; a part that is no plain word is shown as text in
    quotes.
    """
    return ".".join(
        part if part.isprintable() and len(part) <= 80 else shown(part) for part in map(str, path)
    )


def shown(value: Any) -> str:
    """A value as a message shows it: in quotes where it is text, its control characters escaped,
    cut where it is long.
    """
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def near(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or what there is."""
    known = list(known)
    return suggest(str(name), known, f"there is {', '.join(known) or 'none'}")


DISAGREEMENT = "disagreement"


def disagreement(broken: Sequence[tuple[Keys, str]]) -> PydanticCustomError:
    """For a model's validator: keys that are fine alone break rules together; each rule with the
    key to point at.
    """
    text = "\n".join(f"{dotted(keys)}: {rule}" for keys, rule in broken)
    return PydanticCustomError(DISAGREEMENT, "{text}", {"text": text, "broken": broken})


def complaints(
    document: YamlDocument, error: ValidationError, keys_around: Callable[[Keys], Iterable[str]]
) -> str:
    """The message for a pydantic error: a line for each broken rule.

    Args:
        document: what was validated.
        error: what is wrong with it.
        keys_around: of the path of an unknown key: gives those that its section has, for the near
            miss.
    """
    issues = [(*_place(document.values, issue), issue) for issue in error.errors()]
    of_unions: dict[Keys, list[str]] = {}
    for path, is_of_union, issue in issues:
        if is_of_union:
            of_unions.setdefault(path, []).append(rule_of(issue))
    broken: dict[tuple[Keys, str], None] = {}
    for path, is_of_union, issue in issues:
        # Of a union that alternative is meant whose complaint lies deepest.
        if is_of_union and any(_is_within(other, path) for other, _, _ in issues):
            continue
        if issue["type"] == DISAGREEMENT:
            broken |= {((*path, *keys), rule): None for keys, rule in issue["ctx"]["broken"]}
        elif issue["type"] == "extra_forbidden":
            near_miss = near(str(path[-1]), keys_around(path))
            broken[path, f"no such key {shown(path[-1])}; {near_miss}"] = None
        elif issue["type"] == "missing":
            broken[path, "this key must be given"] = None
        else:
            rules = of_unions[path] if is_of_union else [rule_of(issue)]
            rule = ", or ".join(dict.fromkeys(rules))
            broken[path, f"{rule}; got {shown(issue.get('input'))}{_in_quotes(issue)}"] = None
    return "\n".join(f"{document.where(path)}: {rule}" for path, rule in broken)


def _place(values: Mapping[str, Any], issue: Mapping[str, Any]) -> tuple[Keys, bool]:
    """The key path of an issue in a document, and whether pydantic put names of the alternatives of
    a union between its keys.
    """
    path: list[str | int] = []
    here: Any = values
    is_of_union = False
    for place, part in enumerate(issue["loc"], 1):
        is_key = isinstance(here, Mapping) and part in here
        is_index = isinstance(here, (list, tuple)) and isinstance(part, int)
        is_missing = issue["type"] == "missing" and place == len(issue["loc"])
        if is_key or is_index:
            here = here[part]
        elif not is_missing:
            is_of_union |= part != "[key]"  # which stands where the key itself is wrong
            continue
        path.append(part)
    return tuple(path), is_of_union


def _is_within(path: Keys, other: Keys) -> bool:
    return len(path) > len(other) and path[: len(other)] == other


def _in_quotes(issue: Mapping[str, Any]) -> str:
    is_number = isinstance(issue["input"], (int, float))
    return "; write it in quotes" if issue["type"] == "string_type" and is_number else ""
