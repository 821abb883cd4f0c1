"""What we install: every version is pinned and has its digests, every licence is known, and an
audit that was none says so.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pinned(file: str) -> dict[str, str]:
    """Version by canonical name, of the lines `name==version` of a file."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(m[1]): m[2]
        for line in lines
        if (m := re.match(r"([\w.-]+)==([\w.+-]+)", line))
    }


def test_the_lock_has_the_versions_of_the_constraints_and_digests_of_each() -> None:
    constraints, lock = pinned("constraints.txt"), pinned("requirements.lock")
    assert lock == {name: version for name, version in constraints.items() if name != "torch"}
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    assert all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))


def needed(name: str, extras: frozenset[str], known: set[tuple[str, frozenset[str]]]) -> None:
    """Add a package, and what it needs on this machine, to `known`."""
    if (name, extras) in known:
        return
    known.add((name, extras))
    for line in metadata.requires(name) or ():
        one = Requirement(line)
        if one.marker is None or any(
            one.marker.evaluate({"extra": extra}) for extra in (*extras, "")
        ):
            needed(canonicalize_name(one.name), frozenset(one.extras), known)


def test_whatever_abtest_needs_is_pinned() -> None:
    known: set[tuple[str, frozenset[str]]] = set()
    needed("abtest", frozenset({"ann", "dev"}), known)
    brought_by_torch = {"setuptools", "triton"}
    missing = (
        {name for name, _ in known if not name.startswith(("nvidia-", "cuda-"))}
        - set(pinned("constraints.txt"))
        - brought_by_torch
    )
    assert missing == {"abtest"}


@pytest.mark.parametrize(
    ("name", "expression", "why"),
    [
        ("any", "MIT", ""),
        ("any", "(BSD-3-Clause AND MIT) OR Apache-2.0 WITH LLVM-exception", ""),
        ("any", "", "it declares no licence"),
        ("any", "GPL-3.0-or-later", "not on the list: GPL-3.0-or-later"),
        ("any", "MIT OR AGPL-3.0-only", "not on the list: AGPL-3.0-only"),
        ("any", "MPL-2.0", "not on the list: MPL-2.0"),
        ("tqdm", "MPL-2.0 AND MIT", ""),
        ("tqdm", "SSPL-1.0", "not on the list: SSPL-1.0"),
        ("any", "Other/Proprietary License", "not on the list: Other/Proprietary License"),
    ],
)
def test_a_licence_is_on_the_list_or_named(name: str, expression: str, why: str) -> None:
    assert script("licences").objection(name, expression) == why


def test_the_licences_of_what_is_installed_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("licences").main() == 0
    assert "hypothesis" in capsys.readouterr().out


ANSWERS: list[tuple[Any, int, str]] = [
    ([{"name": "a", "version": "1", "vulns": []}], 0, "1 packages, 0 known weaknesses"),
    (
        [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
        1,
        "a 1: CVE-1, mended in 2",
    ),
    (
        [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}],
        3,
        "nothing was checked",
    ),
    (None, 3, "nothing was checked"),
]


@pytest.mark.parametrize(("answer", "code", "message"), ANSWERS)
def test_an_audit_that_could_ask_nobody_is_not_a_clean_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], answer: Any, code: int, message: str
) -> None:
    program = tmp_path / "pip-audit"
    write = (
        ""
        if answer is None
        else f"open(sys.argv[-1], 'w').write({json.dumps({'dependencies': answer})!r})"
    )
    program.write_text(f"#!{sys.executable}\nimport sys\n{write}\n")
    program.chmod(0o755)
    assert script("audit").main(str(program)) == code
    assert message in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("once", "now"),
    [
        ("simulator.eventlog:EventLog", "simulator.log.eventlog:EventLog"),
        ("simulator.eventlog:Metadata", "simulator.log.metadata:Metadata"),
        ("simulator.report.tables:lifts", "simulator.report.user_table:lifts"),
        ("simulator.scenario:Scenario", "simulator.scenario.model:Scenario"),
        ("simulator.scenario:Data", "simulator.scenario.parts:Data"),
        ("simulator.run:run", "simulator.run.pipeline:run"),
        ("simulator.stats.compare:compare", "simulator.stats.contrasts:compare"),
    ],
)
def test_what_the_pages_once_imported_is_found_and_told(once: str, now: str) -> None:
    place, name = once.split(":")
    with pytest.warns(DeprecationWarning, match=f"{once.replace(':', '.')} is now"):
        found = getattr(importlib.import_module(place), name)
    place, name = now.split(":")
    assert found is getattr(importlib.import_module(place), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = importlib.import_module(once.split(":")[0]).nothing
