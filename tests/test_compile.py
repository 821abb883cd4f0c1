"""`abtest compile`: a scenario's kernels, before its first run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulator.cli import main
from simulator.run import compiling
from simulator.scenario.model import Scenario
from tests.worlds import tiny_scenario, write_scenario

NOTED = """
from pathlib import Path
from policies.popularity import Random

class Noted(Random):
    def fit(self, sequences, catalogue, fitting):
        Path(__file__).with_name("fits").open("a").write(f"{catalogue.n_users}\\n")
        return super().fit(sequences, catalogue, fitting)
"""


def compiled(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["compile", *arguments])


def test_every_arm_is_fitted_in_a_run_with_few_users_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    content = tiny_scenario({"a": {"policy": "noted.py:Noted"}, "b": {"policy": "popularity"}})
    content["users"]["n_users"] = 5000
    file = write_scenario(tmp_path / "mine", content)
    file.with_name("noted.py").write_text(NOTED)
    result = compiled(str(file))
    assert result.exit_code == 0, result.output
    assert file.with_name("fits").read_text().split() == [str(compiling.USERS)]
    assert not list(scratch.iterdir())
    assert sorted(p.name for p in file.parent.iterdir() if p.is_file()) == [
        "fits",
        "noted.py",
        "scenario.yaml",
    ]


def test_each_shipped_synthetic_scenario_has_a_miniature() -> None:
    from simulator.scenario.model import shipped

    small = 0
    for file in shipped().values():
        scenario = Scenario.load(file)
        if scenario.data.source == "synthetic":
            few = compiling.miniature(file)
            assert few.users.n_users <= compiling.USERS
            assert {arm.policy for arm in few.arms.values()} == {
                arm.policy for arm in scenario.arms.values()
            }
            small += 1
    assert small > 5


def test_real_data_are_refused_by_their_key(tmp_path: Path) -> None:
    content = tiny_scenario(data={"source": "kuairand", "path": "."}, users={"kind": "logged"})
    result = compiled(str(write_scenario(tmp_path, content)))
    assert result.exit_code == 2
    assert "data.source: must be synthetic" in result.output


def test_a_policy_that_breaks_ends_it_in_words(tmp_path: Path) -> None:
    file = write_scenario(
        tmp_path, tiny_scenario({"a": {"policy": "bad.py:Bad"}, "b": {"policy": "random"}})
    )
    file.with_name("bad.py").write_text(
        NOTED.replace("Noted", "Bad").replace(
            "        return super()", "        raise OSError('no room')\n        return super()"
        )
    )
    result = compiled(str(file))
    assert result.exit_code == 2
    assert "no room" in result.output
    assert "Traceback" not in result.output
