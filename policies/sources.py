"""sources: digests of the files that decide what a policy or a user model does, so that a run is
not continued, nor a fit reused, after they changed.

Of abtest's own policies there is nothing to say here: their source is that of the package
(`package`).
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

OWN = ("policies", "recgpt", "simulator")
"""abtest's own packages."""

ABSENT = "absent"
"""In place of the digest of a file that is not there."""

_CODE = tuple(importlib.machinery.all_suffixes())


class Traced(Protocol):
    """A policy or a user model, as far as its files go."""

    def files(self) -> tuple[Path, ...]:
        """Files, besides its source, that decide what it does."""

    def parts(self) -> Sequence[Any]:
        """Others of its kind that it is made of."""


def sources(plugin: Traced) -> dict[str, str]:
    """Digest by name of what is behind a policy or a user model that is not abtest's own, and of
    its `files`.

    A plug-in file counts with the modules beside it that it imports, however deep; a class of an
    installed distribution with the distribution's RECORD, which holds a digest of every file; a
    class of any other package (one installed with `-e`, or found on the path) with every source
    file of the package.
    """
    digests: dict[str, str] = {}
    for kind in type(plugin).__mro__:
        digests |= _of_module(kind.__module__)
    for file in plugin.files():
        digests[str(file)] = digest(file)
    for part in plugin.parts():
        digests |= sources(part)
    return dict(sorted(digests.items()))


def carried(plugin: Traced) -> list[Path]:
    """The files behind a policy or a user model that another machine may lack: plug-in files, with
    the modules beside them that they import, and its `files` with a relative path. Packages are
    installed there; an absolute path leads to the same file everywhere.
    """
    files = [file for file in plugin.files() if file.is_file() and not file.is_absolute()]
    for kind in type(plugin).__mro__:
        files += _plug_in(kind.__module__)[1]
    for part in plugin.parts():
        files += carried(part)
    return sorted(set(files))


@cache
def package(name: str) -> str:
    """One digest of all source files of one of abtest's own packages."""
    root = Path(__file__).resolve().parents[1] / name
    whole = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        whole.update(f"{file.relative_to(root)} {digest(file)}\n".encode())
    return whole.hexdigest()[:32]


def digest(file: Path) -> str:
    """The digest of a file's bytes, or ABSENT."""
    if not file.is_file():
        return ABSENT
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def _of_module(module: str) -> dict[str, str]:
    """Digests by name of the files behind a module; {} for those of abtest and of Python."""
    file = _file_of(module)
    if file is None:
        return {}
    for distribution, record in _records(module):
        version = metadata.version(distribution)
        return {f"{distribution} {version}": hashlib.sha256(record.encode()).hexdigest()[:32]}
    if file.name == "__init__.py":
        root, files = file.parent.parent, _code_in(file.parent)
    else:
        root, files = _plug_in(module)
    return {str(source.relative_to(root)): digest(source) for source in files}


def _file_of(module: str) -> Path | None:
    """The file of the top package of a module; None for those of abtest and of Python."""
    top = module.partition(".")[0]
    if top in OWN or top in sys.stdlib_module_names:
        return None
    origin = getattr(sys.modules.get(top), "__file__", None)
    return None if origin is None else Path(origin)


def _records(module: str) -> Iterator[tuple[str, str]]:
    """The installed distributions that a module is of, and their RECORD."""
    for distribution in _distributions().get(module.partition(".")[0], ()):
        record = metadata.distribution(distribution).read_text("RECORD")
        if record is not None:
            yield distribution, record


def _plug_in(module: str) -> tuple[Path, list[Path]]:
    """The folder of a module that is one file of nobody's package, and the files in it that count:
    its own, and the modules beside it that it imports; none for any other module.
    """
    file = _file_of(module)
    if file is None or file.name == "__init__.py" or any(_records(module)):
        return Path(), []
    return file.parent, sorted(_with_imports(file))


def _code_in(folder: Path) -> list[Path]:
    """All Python files and compiled modules in a folder, however deep; not the caches of compiled
    code, which Python writes when it likes.
    """
    return sorted(
        file
        for file in folder.rglob("*")
        if file.name.endswith(_CODE) and "__pycache__" not in file.relative_to(folder).parts
    )


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _with_imports(file: Path) -> set[Path]:
    """A Python file and what it imports from its own folder, directly or through one another."""
    files: set[Path] = set()
    to_visit = [file]
    while to_visit:
        source = to_visit.pop()
        if source in files or not source.is_file():
            continue
        files.add(source)
        if source.suffix != ".py":
            continue
        for name in _imports(source):
            top = file.parent / name.partition(".")[0]
            to_visit.append(top.with_suffix(".py"))
            if top.is_dir():
                to_visit += _code_in(top)
    return files


def _imports(file: Path) -> Iterator[str]:
    """The names of all modules that a file imports, wherever in it; a relative one without its
    dots.
    """
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except SyntaxError:  # then its import fails, and says so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.name for alias in node.names)
