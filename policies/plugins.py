"""From a name to somebody's class: entry points of a group, `module:Class`, or `file.py:Class`.

Policies and user models are found, imported and made in this one way. What abtest brings itself
comes through the same entry points as a stranger's. Listing names imports nothing.
"""

from __future__ import annotations

import ast
import dataclasses
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
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_type_hints

from policies.base import Params
from policies.booleans import counted_booleans
from policies.calls import PluginCallError, PluginError, calling
from policies.rules import rule_of
from policies.similar import similar, suggest

if TYPE_CHECKING:
    from pydantic import TypeAdapter

DISTRIBUTION = "abtest"
"""The distribution whose plug-ins are the built-in ones."""

LONGEST_FILE = 1 << 20
"""Bytes of a plug-in file: to parse it takes some 500 times as much memory."""

T = TypeVar("T", bound=Params)


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered plug-in: its name, the `module:Class` behind it, and the distribution that
    brings it.
    """

    name: str
    target: str
    distribution: str


@dataclass(frozen=True)
class Registry(Generic[T]):
    """The plug-ins of one kind.

    Attributes:
        group: of their entry points.
        base: the class that each of them derives from.
        error: raised where one cannot be found, imported or made; it has the noun of the kind.
        fault: raised where the code of one fails.
        plural: of the noun.
        parameter: what their fields are called.
        listing: the command that lists those which are registered.
    """

    group: str
    base: type[T]
    error: type[PluginError]
    fault: type[PluginCallError]
    plural: str
    parameter: str
    listing: str

    @property
    def noun(self) -> str:
        """What one of them is called."""
        return self.error.noun

    def available(self) -> dict[str, Entry]:
        """All registered plug-ins by name, in alphabetical order; nothing is imported."""
        return dict(_registered(self.group, tuple(sys.path)))

    def locate(self, name: str, folder: Path | None = None) -> str:
        """The `module:Class` or `file.py:Class` behind a name, found without importing it.

        Raises:
            PluginError: no such registered name, no such plug-in file, a file that is not Python,
                or no such class in it.
        """
        if ":" not in name:
            entries = self.available()
            if name not in entries:
                others = f"see `{self.listing}`, or give `module:Class` or `file.py:Class`"
                raise self.error(f"no {self.noun} {name!r}; {suggest(name, entries, others)}")
            return entries[name].target
        module, _, class_name = name.rpartition(":")
        if module.endswith(".py"):
            file = self._find_file(module, folder)
            try:
                with file.open("rb") as stream:
                    text = stream.read(LONGEST_FILE + 1)
            except OSError as error:
                raise self.error(
                    f"plug-in file {file}: cannot be read: {error.strerror}"
                ) from error
            if len(text) > LONGEST_FILE:
                rule = (
                    f"has more than {LONGEST_FILE:,} bytes; put large data into a file of its own"
                )
                raise self.error(f"plug-in file {file} {rule}")
            try:
                tree = ast.parse(text.decode("utf-8"), str(file))
            # What `ast.parse` raises, and ValueError also for text that is not UTF-8
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                line = error.lineno if isinstance(error, SyntaxError) else 1
                raise self.error(f"plug-in file {file}:{line}: not Python: {error}") from error
            classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
            imported = []
            for node in tree.body:
                if isinstance(node, ast.ImportFrom):
                    imported += [alias.asname or alias.name for alias in node.names]
            if class_name not in classes + imported:
                others = f"it has {', '.join(classes) or 'none'}"
                advice = suggest(class_name, classes, others)
                raise self.error(f"plug-in file {file} has no class {class_name!r}; {advice}")
        return name

    def file_of(self, name: str, folder: Path | None = None) -> Path | None:
        """The plug-in file that a name leads to, as it is looked up; None of any other name.

        Raises:
            PluginError: there is no such file.
        """
        module = name.rpartition(":")[0]
        return self._find_file(module, folder) if module.endswith(".py") else None

    def is_built_in(self, name: str) -> bool:
        """Whether one comes with abtest itself, by its name or by its `module:Class`: to import it
        runs nobody else's code.
        """
        entries = self.available()
        if name in entries:
            return entries[name].distribution == DISTRIBUTION
        packages = {
            _package(entry.target)
            for entry in entries.values()
            if entry.distribution == DISTRIBUTION
        }
        return ":" in name and _package(name) in packages

    def resolve(self, name: str, folder: Path | None = None) -> type[T]:
        """The class behind a name.

        Args:
            name: a registered name, `module:Class`, or `file.py:Class` (relative to `folder`, then
                to the working directory).
            folder: usually that of the scenario.

        Raises:
            PluginError: no such name, module, file or class, an import that fails, or a class that
                does not derive from `base`.
        """
        target = self.locate(name, folder)
        module_name, _, class_name = target.rpartition(":")
        file = self.file_of(target, folder)
        with calling(name, f"importing {module_name!r}", fault=self.fault):
            module = importlib.import_module(module_name) if file is None else _load_file(file)
        found = getattr(module, class_name, None)
        if found is None:
            classes = [key for key, value in vars(module).items() if self._is_one(value)]
            advice = suggest(class_name, classes, f"its {self.plural} are {classes}")
            raise self.error(
                f"{self.noun} {name!r}: {module_name!r} has no class {class_name!r}; {advice}"
            )
        if not (isinstance(found, type) and issubclass(found, self.base)):
            raise self.error(
                f"{self.noun} {name!r}: {class_name!r} must be a subclass of"
                f" {self.base.__module__}.{self.base.__name__}; got {found!r}"
            )
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        if missing:
            rule = f"the class {class_name!r} does not have all methods of a {self.noun}"
            raise self.error(f"{self.noun} {name!r}: {rule}; write {missing}")
        fields = sorted(inspect.get_annotations(found).keys() - found.__dataclass_fields__.keys())
        if fields:
            rule = (
                f"the class {class_name!r} must be a dataclass, else nobody can set"
                f" {', '.join(fields)}; write @dataclass above it"
            )
            raise self.error(f"{self.noun} {name!r}: {rule}")
        return found

    def make(
        self, name: str, params: Mapping[str, Any] | None = None, folder: Path | None = None
    ) -> T:
        """A new one with its parameters checked against its dataclass fields.

        Raises:
            PluginError: as `resolve`; or a parameter that is unknown, of the wrong type or out of
                range, with its key path.
        """
        import pydantic

        kind = self.resolve(name, folder)
        try:
            with calling(name, f"making {kind.__name__}", fault=self.fault):
                # mypy takes the class for one of its objects, which have no hash.
                made: T = checker(kind).validate_python(dict(params or {}))  # type: ignore[arg-type]
        except self.fault as error:
            why = error.__cause__
            if isinstance(why, pydantic.ValidationError):
                issues = why.errors()
                complaints = [
                    (tuple(issue["loc"]), self._complaint(name, kind, issue)) for issue in issues
                ]
                message = "\n".join(text for _, text in complaints)
                raise self.error(message, tuple(complaints)) from why
            if isinstance(why, ValueError):
                raise self.error(f"{self.noun} {name!r}: {why}") from why
            raise
        for path, found in counted_booleans(params or {}, made):
            key = ".".join(map(str, path))
            whose = f"{self.noun} {name!r}: {self.parameter} {key!r}"
            message = f"{whose}: must be a number; got {str(found).lower()}"
            raise self.error(message, ((path, message),))
        return made

    def _is_one(self, value: Any) -> bool:
        return isinstance(value, type) and issubclass(value, self.base) and value is not self.base

    def _find_file(self, path: str, folder: Path | None) -> Path:
        places = [Path(path)] if folder is None else [folder / path, Path(path)]
        for place in places:
            try:
                if place.is_file():
                    return place
            except OSError as error:  # a name that no file system takes
                raise self.error(f"plug-in file {path[:80]!r}: {error.strerror}") from error
        raise self.error(f"no plug-in file {path!r}; looked at {', '.join(map(str, places))}")

    def _complaint(self, name: str, owner: type[T], issue: Any) -> str:
        """One line for one pydantic error: whose, which key, the rule, the value."""
        whose = f"{self.noun} {name!r}"
        path = ".".join(str(part) for part in issue["loc"])
        if issue["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            return f"{whose}: no {self.parameter} {path!r}; {_advice(owner, issue['loc'])}"
        if not path:
            return f"{whose}: {rule_of(issue)}"
        return f"{whose}: {self.parameter} {path!r}: {rule_of(issue)}; got {issue['input']!r}"


@lru_cache(maxsize=256)
def checker(kind: type[Any]) -> TypeAdapter[Any]:
    """What checks the parameters of a class: to make one takes .002 to .02 s, and a run makes each
    of its policies many times.
    """
    import pydantic

    return pydantic.TypeAdapter(kind)


@lru_cache(maxsize=8)
def _registered(group: str, path: tuple[str, ...]) -> dict[str, Entry]:
    """What the distributions on `path` register: reading them takes .02 s, and a run asks for each
    of its policies many times.
    """
    entries = {}
    for point in sorted(metadata.entry_points(group=group), key=lambda point: point.name):
        distribution = "?" if point.dist is None else point.dist.name
        entries[point.name] = Entry(point.name, point.value, distribution)
    return entries


def _package(target: str) -> str:
    return target.partition(":")[0].partition(".")[0]


class _Uncached(SourceFileLoader):
    """A loader that compiles a file as it is: a cache of compiled code counts as fresh where size
    and second of the last change are those of the file, and would be of another plug-in.
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


def _advice(owner_class: type[Params], unknown: tuple[str | int, ...]) -> str:
    """What may be meant by the key path of a parameter that does not exist.

    The same key in another place of the class comes first (`epochs` for `training.epochs`), then
    the most similar key in the same place, then all keys of that place.
    """
    *owner, key = (str(part) for part in unknown)
    paths = list(_key_paths(owner_class))
    elsewhere = [".".join(path) for path in paths if path[-1] == key]
    if elsewhere:
        return f"did you mean {' or '.join(repr(path) for path in elsewhere)}?"
    beside = [path for path in paths if path[:-1] == tuple(owner)]
    near = similar(key, [path[-1] for path in beside])
    if near is not None:
        return f"did you mean {'.'.join((*owner, near))!r}?"
    place = repr(".".join(owner)) if owner else "it"
    return f"{place} has {', '.join(path[-1] for path in beside) or 'none'}"


def _key_paths(owner: type[Params]) -> Iterator[tuple[str, ...]]:
    """The key path of every parameter of a class, and of those within its parts
    (`training`, then `training.epochs`).
    """
    hints = get_type_hints(owner)
    for field in dataclasses.fields(owner):
        yield (field.name,)
        kind = hints[field.name]
        for part in (kind, *get_args(kind)):  # `Search`, or the first of `Counts | None`
            if inspect.isclass(part) and issubclass(part, Params):
                yield from ((field.name, *path) for path in _key_paths(part))
