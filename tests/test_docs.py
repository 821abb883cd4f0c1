"""Pages are executed: Python blocks run in one namespace a page, shell blocks in a folder of their
own, outputs are compared.
"""

from __future__ import annotations

import doctest
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from tests.pages import PAGES, ROOT, blocks

INSTALLS = ("make ", "pip ", "git ", "python -m venv", ". .venv", "cd ", "pytest", "#")
"""Commands that set a machine up or take it over: read, not run, by this test (CI runs `make test`
itself).
"""


def same(expected: str, got: str) -> bool:
    checker = doctest.OutputChecker()
    return checker.check_output(expected, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def run_python(body: str, namespace: dict[str, object]) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        exec(
            compile(body, "<page>", "exec"), namespace
        )  # dataclasses of a page look themselves up in sys.modules
    return out.getvalue()


def run_shell(body: str) -> str | None:
    lines = [
        line
        for line in body.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith(INSTALLS)
    ]
    if not lines:
        return None
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-euc", "\n".join(lines)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_a_page_does_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    monkeypatch.chdir(tmp_path)
    module = type(sys)("page")
    monkeypatch.setitem(sys.modules, "page", module)
    output: str | None = None
    for language, body in blocks(page):
        if language == "python":
            output = run_python(body, module.__dict__)
        elif language == "sh":
            output = run_shell(body)
        elif language == "text" and output is not None:
            assert same(body, output), f"{page.name} says\n{body}\nand got\n{output}"
            output = None


def test_every_block_has_a_language() -> None:
    bare = [
        (page.name, body[:40])
        for page in [ROOT / "README.md", *PAGES]
        for language, body in blocks(page)
        if not language
    ]
    assert bare == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *PAGES]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_site_shows_every_page() -> None:
    site = yaml.safe_load((ROOT / ".ci" / "mkdocs.yml").read_text(encoding="utf-8"))
    shown = re.findall(r"'([^']+\.md)'", str(site["nav"]))
    assert sorted(shown) == sorted(["index.md", *(page.name for page in PAGES)])


def test_the_scenario_reference_is_what_the_models_say() -> None:
    from simulator.scenario.reference import markdown

    assert (ROOT / "docs/scenario.md").read_text(encoding="utf-8") == markdown(), (
        "run: abtest scenario reference > docs/scenario.md"
    )


def test_every_command_has_help_with_an_example() -> None:
    from simulator.cli import COMMANDS

    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "simulator", command, "--help"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert f"abtest {command}" in done.stdout, f"abtest {command} --help shows no example"


def test_help_answers_at_once() -> None:
    code = "import resource, subprocess, sys\n"
    code += (
        "subprocess.run([sys.executable, '-m', 'simulator', '--help'], check=True,"
        " stdout=subprocess.DEVNULL)\n"
    )
    code += (
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); print(used.ru_utime + used.ru_stime)"
    )
    best = min(
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(3)
    )
    assert best < 0.5


def test_help_and_listing_import_nothing_heavy() -> None:
    heavy = {"torch", "numba", "scipy", "pandas", "statsmodels", "simpy", "ray", "faiss"}
    for arguments in (["--help"], ["policies", "list"], ["run", "--help"]):
        code = (
            f"import sys; sys.argv = ['abtest', *{arguments}]\ntry:\n import simulator.cli;"
            " simulator.cli.main()\n"
        )
        code += f"except SystemExit: pass\nprint('LOADED', sorted({heavy} & set(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().endswith("LOADED []"), (arguments, done.stdout[-200:])


def test_the_gallery_describes_every_registered_policy_and_its_parameters() -> None:
    from dataclasses import fields

    from policies.registry import available, resolve
    from simulator.reproduce.gallery import names

    text = (ROOT / "docs/policies.md").read_text(encoding="utf-8")
    ours = {entry.name for entry in available().values() if entry.distribution == "abtest"}
    assert set(names(text)) == ours, "run: abtest policies gallery --out docs/policies.md"
    for name in ours:
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert all(f"| `{field.name}` |" in section for field in fields(resolve(name))), name
