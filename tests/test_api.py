"""`import abtest` is the public API: quick, typed, documented name by name, and all that the pages
use.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import abtest
from tests.pages import PAGES, ROOT, blocks

OURS = {"abtest", "policies", "recgpt", "simulator"}


def imported(code: str) -> set[str]:
    """The packages of ours that a block of Python imports."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").partition(".")[0])
    return modules & OURS


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_pages_import_nothing_else(page: Path) -> None:
    for language, code in blocks(page):
        if language == "python":
            assert imported(code) <= {"abtest"}, code


def test_a_new_package_imports_nothing_else() -> None:
    templates = sorted((ROOT / "policies/template").glob("*.py.txt"))
    assert len(templates) >= 3
    for template in templates:
        text = template.read_text(encoding="utf-8")
        modules = {name.partition(".")[0] for name in re.findall(r"^from (\S+) import", text, re.M)}
        assert modules & OURS <= {"abtest"}, template.name


def test_every_name_is_what_its_type_says_and_stands_on_its_page() -> None:
    tree = ast.parse(Path(abtest.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in ast.walk(branch)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == abtest._PLACES
    assert sorted(typed) == sorted(abtest.__all__)
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    for name in abtest.__all__:
        value = getattr(abtest, name)
        assert f"| `{name}" in page, f"docs/api.md has no row for {name}"
        assert value is getattr(sys.modules[typed[name][0]], typed[name][1])
    rows = re.findall(r"^\| `(\w+)", page, re.M)
    assert sorted(rows) == sorted(abtest.__all__)


def test_a_name_that_is_not_there_is_answered() -> None:
    with pytest.raises(AttributeError, match=r"'abtest' has no attribute 'runn'; docs/api\.md"):
        abtest.runn  # noqa: B018


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = {"torch", "numba", "numpy", "scipy", "pandas", "pyarrow", "statsmodels", "simpy"}
    code = f"import abtest, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_whoever_takes_a_path_takes_its_text():
    """What users call; `folder` of a policy and of a user model is given by abtest."""
    called = [getattr(abtest, name) for name in abtest.__all__]
    called = [one for one in called if inspect.isfunction(one)]
    called += [abtest.EventLog.open, abtest.EventLog.write, abtest.Scenario.load]
    for function in called:
        for name, parameter in inspect.signature(function).parameters.items():
            words = set(re.findall(r"\w+", str(parameter.annotation)))
            if "Path" in words:
                assert "str" in words, f"{function.__name__}: {name} takes no text"


def test_a_table_is_written_read_and_compared_by_names_that_are_text(tmp_path):
    table = pa.table({"user": ["0007"], "item": [1]})
    assert abtest.write_table(table, f"{tmp_path}/t.parquet") == tmp_path / "t.parquet"
    with pytest.raises(ValueError, match=r"no event log there"):
        abtest.EventLog.open(f"{tmp_path}/nothing")
    with pytest.raises(ValueError, match=r"nothing: no such file"):
        abtest.load_report(f"{tmp_path}/nothing")
    with pytest.raises(ValueError, match=r"other: no such file|same run"):
        abtest.compare([f"{tmp_path}/other", f"{tmp_path}/another"])
