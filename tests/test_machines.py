"""What a run needs of every machine, and what is brought to those that lack it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from policies.base import silent
from policies.registry import make
from policies.sources import carried
from simulator.log.workspace import RunError, Workspace
from simulator.run import cluster
from simulator.run.contract import WorkerError
from simulator.run.machines import LookAround
from simulator.run.tasks import CheckPolicies
from simulator.scenario.memory import PROCESS, ROW, of_process, of_shard
from simulator.scenario.model import Scenario
from tests.worlds import tiny_scenario, write_scenario

PLUG_IN = """\
import helper
from dataclasses import dataclass
from pathlib import Path
from policies.popularity import Popularity

@dataclass
class Mine(Popularity):
    table: str = ""

    def files(self):
        return (Path(self.table),)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a plug-in that imports a module and has a file."""
    (tmp_path / "mine.py").write_text(PLUG_IN)
    (tmp_path / "helper.py").write_text("import deeper\n")
    (tmp_path / "deeper.py").write_text("")
    (tmp_path / "stranger.py").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("a\n1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mine(folder: Path, table: str) -> list[str]:
    files = carried(make("mine.py:Mine", {"table": table}, folder))
    return sorted(os.path.relpath(file, folder) for file in files)


def test_a_plug_in_takes_its_modules_and_files_along(folder):
    modules = ["deeper.py", "helper.py", "mine.py"]
    assert mine(folder, "data/table.csv") == ["data/table.csv", *modules]
    # An absolute path is expected to lead to the same file on all machines.
    assert mine(folder, str(folder / "data" / "table.csv")) == modules
    assert carried(make("itemknn")) == []


def test_files_lie_in_the_mirror_as_they_lie_here(folder, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cluster._mirror([Path("../data/table.csv"), folder / "mine.py", Path("..")], mirror)
    here = mirror / str(tmp_path / "elsewhere").lstrip("/")
    assert (here / "../data/table.csv").read_text() == "a\n1\n"
    assert (here / "../mine.py").read_text() == PLUG_IN
    assert not (here / "../stranger.py").exists()
    assert cluster._module_folders([folder / "mine.py"]) == (str(folder),)


def test_files_that_are_too_large_to_be_brought_are_named(folder, monkeypatch):
    monkeypatch.setattr(cluster, "MOST", 3)
    with pytest.raises(WorkerError, match=r"table\.csv: .* give its absolute path"):
        cluster._mirror([Path("data/table.csv")], folder / "mirror")


def look(folder: Path, out: Path, **changes: object) -> LookAround:
    content = tiny_scenario({"a": {"policy": "mine.py:Mine"}, "b": {"policy": "random"}})
    scenario = Scenario.load(write_scenario(folder, content))
    _, behind = CheckPolicies(".", tuple(scenario.policies()))(silent)
    asked = {
        "root": str(out),
        "holder": Workspace(out).holder(),
        "folder": ".",
        "scenario": scenario.model_dump_json(),
        "behind": tuple(sorted(behind.digests.items())),
    }
    return LookAround(**{**asked, **changes})  # type: ignore[arg-type]


def test_a_machine_that_lacks_something_is_told_what_and_what_to_do(folder, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    with Workspace(out).held(), Workspace(other).held():
        look(folder, out)(silent)
        assert not list(out.glob("*.part"))
        with pytest.raises(RunError, match=r"nowhere is not seen there: all nodes must see it"):
            look(folder, out, root=str(tmp_path / "nowhere"))(silent)
        with pytest.raises(RunError, match=r"other is another one there: all nodes must see it"):
            look(folder, out, root=str(other))(silent)
        with pytest.raises(RunError, match=r"policy 'mine\.py:Mine': mine\.py is not as here"):
            look(folder, out, behind=(("policy 'mine.py:Mine': mine.py", "0" * 32),))(silent)
        stale = look(folder, out)
        (folder / "mine.py").unlink()
        with pytest.raises(RunError, match=r"no plug-in file 'mine\.py'.*Install there"):
            stale(silent)


def test_networks_ask_for_a_gpu_and_counts_do_not():
    asks = {name: make(name).uses_device for name in ("itemknn", "random", "sasrec", "recgpt")}
    assert asks == {"itemknn": False, "random": False, "sasrec": True, "recgpt": True}
    assert make("explore", {"policy": "sasrec"}).uses_device


def test_the_memory_of_a_process_grows_with_its_users_and_with_a_real_history():
    scenario = Scenario.model_validate(tiny_scenario(engine={"shards": 1}))
    few, many = of_process(scenario, 1000, 500, 0), of_process(scenario, 101_000, 500, 0)
    assert PROCESS < few < many
    # What a user takes at least: its state twice, and its memories.
    assert many - few > 100_000 * 500
    assert of_process(scenario, 1000, 500, 10**9) == few + ROW * 10**9
    cut = Scenario.model_validate(tiny_scenario(engine={"shards": 100}))
    assert of_shard(cut, 100_000, 500, 10**9) == of_shard(scenario, 1000, 500, 10**7)
    assert of_shard(scenario, 1000, 500, 0) < few  # without the history
