"""From a name to a policy: entry points of the group `abtest.policies`, `module:Class`, or
`file.py:Class`.

The built-in policies come through the same entry points as a stranger's. Listing names imports no
policy.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, get_args, get_type_hints

from policies.base import Params, Policy
from policies.calls import CallError, PolicyError, calling
from policies.similar import suggest

__all__ = ["Entry", "PolicyError", "available", "complaint", "locate", "make", "resolve"]

GROUP = "abtest.policies"

DISTRIBUTION = "abtest"
"""The distribution whose policies are the built-in ones."""


LONGEST_FILE = 1 << 20
"""Bytes of a plug-in file: to parse it takes some 500 times as much memory."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered policy: its name, the `module:Class` behind it, and the distribution that brings
    it.
    """

    name: str
    target: str
    distribution: str


def available() -> dict[str, Entry]:
    """All registered policies by name, in alphabetical order; nothing is imported."""
    return dict(_registered(tuple(sys.path)))


@lru_cache(maxsize=4)
def _registered(path: tuple[str, ...]) -> dict[str, Entry]:
    """What the distributions on `path` register: reading them takes .02 s, and a run asks for each
    of its policies many times.
    """
    entries = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: point.name):
        distribution = "?" if point.dist is None else point.dist.name
        entries[point.name] = Entry(point.name, point.value, distribution)
    return entries


def locate(name: str, folder: Path | None = None) -> str:
    """The `module:Class` or `file.py:Class` behind a name, found without importing it.

    Raises:
        PolicyError: no such registered name, no such plug-in file, a file that is not Python, or no
            such class in it.
    """
    if ":" not in name:
        entries = available()
        if name not in entries:
            others = "see `abtest policies list`, or give `module:Class` or `file.py:Class`"
            raise PolicyError(f"no policy {name!r}; {suggest(name, entries, others)}")
        return entries[name].target
    module, _, class_name = name.rpartition(":")
    if module.endswith(".py"):
        file = _find_file(module, folder)
        try:
            with file.open("rb") as stream:
                text = stream.read(LONGEST_FILE + 1)
        except OSError as error:
            raise PolicyError(f"plug-in file {file}: cannot be read: {error.strerror}") from error
        if len(text) > LONGEST_FILE:
            rule = f"has more than {LONGEST_FILE:,} bytes; put large data into a file of its own"
            raise PolicyError(f"plug-in file {file} {rule}")
        try:
            tree = ast.parse(text.decode("utf-8"), str(file))
        # What `ast.parse` raises, and ValueError also for text that is not UTF-8
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = error.lineno if isinstance(error, SyntaxError) else 1
            raise PolicyError(f"plug-in file {file}:{line}: not Python: {error}") from error
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        imported = []
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                imported += [alias.asname or alias.name for alias in node.names]
        if class_name not in classes + imported:
            others = f"it has {', '.join(classes) or 'none'}"
            advice = suggest(class_name, classes, others)
            raise PolicyError(f"plug-in file {file} has no class {class_name!r}; {advice}")
    return name


def is_built_in(name: str) -> bool:
    """Whether a policy comes with abtest itself, by its name or by its `module:Class`: to import it
    runs nobody else's code.
    """
    entries = available()
    if name in entries:
        return entries[name].distribution == DISTRIBUTION
    packages = {
        _package(entry.target) for entry in entries.values() if entry.distribution == DISTRIBUTION
    }
    return ":" in name and _package(name) in packages


def _package(target: str) -> str:
    return target.partition(":")[0].partition(".")[0]


def resolve(name: str, folder: Path | None = None) -> type[Policy]:
    """The class behind a name.

    Args:
        name: a registered name, `module:Class`, or `file.py:Class` (relative to `folder`, then to
            the working directory).
        folder: usually that of the scenario.

    Raises:
        PolicyError: no such name, module, file or class, an import that fails, or a class that is
            no `Policy`.
    """
    target = locate(name, folder)
    module_name, _, class_name = target.rpartition(":")
    file = _find_file(module_name, folder) if module_name.endswith(".py") else None
    with calling(name, f"importing {module_name!r}"):
        module = importlib.import_module(module_name) if file is None else _load_file(file)
    policy = getattr(module, class_name, None)
    if policy is None:
        classes = [key for key, value in vars(module).items() if _is_policy(value)]
        advice = suggest(class_name, classes, f"its policies are {classes}")
        raise PolicyError(f"policy {name!r}: {module_name!r} has no class {class_name!r}; {advice}")
    if not (isinstance(policy, type) and issubclass(policy, Policy)):
        raise PolicyError(
            f"policy {name!r}: {class_name!r} must be a subclass of policies.base.Policy; got"
            f" {policy!r}"
        )
    if policy.__abstractmethods__:
        missing = ", ".join(sorted(policy.__abstractmethods__))
        raise PolicyError(
            f"policy {name!r}: the class {class_name!r} does not have all methods of a policy;"
            f" write {missing}"
        )
    fields = sorted(inspect.get_annotations(policy).keys() - policy.__dataclass_fields__.keys())
    if fields:
        rule = (
            f"the class {class_name!r} must be a dataclass, else nobody can set"
            f" {', '.join(fields)}; write @dataclass above it"
        )
        raise PolicyError(f"policy {name!r}: {rule}")
    return policy


def _is_policy(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Policy) and value is not Policy


def _find_file(path: str, folder: Path | None) -> Path:
    places = [Path(path)] if folder is None else [folder / path, Path(path)]
    for place in places:
        try:
            if place.is_file():
                return place
        except OSError as error:  # a name that no file system takes
            raise PolicyError(f"plug-in file {path[:80]!r}: {error.strerror}") from error
    raise PolicyError(f"no plug-in file {path!r}; looked at {', '.join(map(str, places))}")


class _Uncached(SourceFileLoader):
    """A loader that compiles a file as it is: a cache of compiled code counts as fresh where size
    and second of the last change are those of the file, and would be of another policy.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _load_file(file: Path) -> ModuleType:
    """A plug-in file as a module whose name no other module has: neither one of Python nor a file
    of the same name elsewhere.
    """
    file = file.resolve()
    name = f"abtest_plugin_{file.stem}_{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}"
    if name in sys.modules and sys.modules[name].__file__ == str(file):
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file, loader=_Uncached(name, str(file)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def make(name: str, params: Mapping[str, Any] | None = None, folder: Path | None = None) -> Policy:
    """An unfitted policy with its hyper-parameters checked against its dataclass fields.

    Raises:
        PolicyError: as `resolve`; or a hyper-parameter that is unknown, of the wrong type or out of
            range, with its key path.
    """
    import pydantic

    kind = resolve(name, folder)
    try:
        with calling(name, f"making {kind.__name__}"):
            policy: Policy = pydantic.TypeAdapter(kind).validate_python(dict(params or {}))
    except CallError as error:
        why = error.__cause__
        if isinstance(why, pydantic.ValidationError):
            issues = why.errors()
            complaints = [(tuple(issue["loc"]), complaint(name, kind, issue)) for issue in issues]
            message = "\n".join(text for _, text in complaints)
            raise PolicyError(message, tuple(complaints)) from why
        if isinstance(why, ValueError):
            raise PolicyError(f"policy {name!r}: {why}") from why
        raise
    return policy


def complaint(name: str, policy: type[Policy], issue: Any) -> str:
    """One line for one pydantic error: whose, which key, the rule, the value."""
    path = ".".join(str(part) for part in issue["loc"])
    if issue["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"policy {name!r}: no hyper-parameter {path!r}; {_advice(policy, issue['loc'])}"
    if not path:
        return f"policy {name!r}: {str(issue['msg']).removeprefix('Value error, ')}"
    return (
        f"policy {name!r}: hyper-parameter {path!r}: {issue['msg']}. Got {issue['input']!r}"
        " instead."
    )


def _advice(policy: type[Policy], unknown: tuple[str | int, ...]) -> str:
    """What may be meant by the key path of a hyper-parameter that does not exist.

    The same key in another place of the policy comes first (`epochs` for `training.epochs`), then
    the most similar key in the same place, then all keys of that place.
    """
    *owner, key = (str(part) for part in unknown)
    paths = list(_key_paths(policy))
    elsewhere = [".".join(path) for path in paths if path[-1] == key]
    if elsewhere:
        return f"did you mean {' or '.join(repr(path) for path in elsewhere)}?"
    beside = [path for path in paths if path[:-1] == tuple(owner)]
    similar = difflib.get_close_matches(key, [path[-1] for path in beside], n=1)
    if similar:
        return f"did you mean {'.'.join((*owner, similar[0]))!r}?"
    place = repr(".".join(owner)) if owner else "it"
    return f"{place} has {', '.join(path[-1] for path in beside) or 'none'}"


def _key_paths(owner: type[Params]) -> Iterator[tuple[str, ...]]:
    """The key path of every hyper-parameter of a policy, and of those within its parts
    (`training`, then `training.epochs`).
    """
    hints = get_type_hints(owner)
    for field in dataclasses.fields(owner):
        yield (field.name,)
        kind = hints[field.name]
        for part in (kind, *get_args(kind)):  # `Search`, or the first of `Counts | None`
            if inspect.isclass(part) and issubclass(part, Params):
                yield from ((field.name, *path) for path in _key_paths(part))
