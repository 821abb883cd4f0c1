"""How tests are kept apart: no test file imports another, and no assert looks at the clock."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.rglob("*.py"))
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "time_ns"}


def imported(tree: ast.Module) -> set[str]:
    """The last part of every module, and every name, that a file imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.rpartition(".")[2] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
            names.add((node.module or "").rpartition(".")[2])
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_test_file_imports_another(file: Path) -> None:
    others = {other.stem for other in FILES if other.stem.startswith("test_")}
    names = imported(ast.parse(file.read_text(encoding="utf-8")))
    assert not names & others, "move what is shared to tests/worlds.py"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_assert_looks_at_the_clock(file: Path) -> None:
    """A machine may be slow: count what was done, or say what must not have happened yet."""
    asserts = [
        node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    read = {
        node.attr for one in asserts for node in ast.walk(one) if isinstance(node, ast.Attribute)
    }
    assert not read & CLOCKS
