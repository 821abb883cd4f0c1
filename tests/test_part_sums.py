"""What a run keeps of each part of its log says all that the rows say."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.report import apart
from policies.base import silent
from simulator import report
from simulator.cli import main
from simulator.log import part_sums, workspace
from simulator.log.eventlog import EventLog
from simulator.log.files import load_arrays, save_arrays
from simulator.log.ledger import FileError
from simulator.log.part_sums import CellSums
from simulator.log.workspace import Workspace
from simulator.report import otherwise, reading
from simulator.report.gather import gather
from simulator.report.stored import encode
from simulator.run.over_parts import parts_map
from simulator.stats import keyed_draws, streamed, units
from simulator.stats.choices import Choices
from tests.worlds import no_whole_column, simulate_scenario, tiny_scenario

NETWORK = {"policy": "bpr", "params": {"width": 4, "training": {"epochs": 1}}, "fits": 2}
DESIGNS: dict[str, dict[str, Any]] = {
    "paired": {"metrics": ["click", "return", "novelty", "diversity", "hit_rate@3", "like"]},
    "split": {"design": {"kind": "split", "control": "B"}},
    "interleave": {"design": {"kind": "interleave", "control": "B"}},
    "switchback": {"design": {"kind": "switchback", "control": "B"}, "days": 4},
    "clusters": {
        "design": {"kind": "clusters", "control": "B", "clusters": [n * n % 11 for n in range(30)]}
    },
    "fits crossed": {
        "arms": {"B": {"policy": "popularity"}, "a": NETWORK},
        "fits": {"number": 2, "design": "crossed"},
    },
    "fits divided": {
        "arms": {"B": {"policy": "popularity"}, "a": NETWORK},
        "design": {"kind": "split", "control": "B"},
        "fits": {"number": 2, "design": "divided"},
    },
    "a catalogue that lives": {"items": {"uploads": 5, "stock": 20}},
}
ARMS = {"B": {"policy": "popularity"}, "a": {"policy": "random"}}


def lived(folder: Path, shards: int = 1, *, resume: bool = False, **changes: Any) -> Path:
    content = tiny_scenario(**{"arms": ARMS, **changes})
    content["users"] = {"kind": "choice", "n_users": 30, "n_items": 60}
    content["engine"] = {"executor": "serial", "shards": shards}
    return simulate_scenario(folder, content, resume=resume)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "PART_USERS", 7)
    monkeypatch.setattr(units, "STREAMED", 0)
    monkeypatch.setattr(units, "ROOM", 500)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "PART_USERS", 7)
        return lived(tmp_path_factory.mktemp("run"), 2)


def no_rows(*_: Any) -> Any:
    raise AssertionError("rows of the log are read")


@pytest.mark.parametrize("design", DESIGNS)
def test_a_report_of_sums_is_that_of_rows(
    design: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otherwise, "RANKED", 0)  # ranks are not made of many users
    root = lived(tmp_path, 2, **DESIGNS[design])
    log = EventLog.open(root / "log")
    assert len(list((root / "sums").rglob("*.npz"))) == len(log.parts) > 8
    with monkeypatch.context() as patch:
        for reader in ("stretches", "inspected", "batches"):
            patch.setattr(EventLog, reader, no_rows)
        patch.setattr(streamed, "_put_together", no_whole_column)
        of_sums = encode(report.load(root))
    monkeypatch.setattr(part_sums, "_kept", lambda *_: None)
    of_rows = encode(report.load(root))
    assert texts(of_sums) == texts(of_rows)
    assert apart(of_sums, of_rows) < (1e-12, "")


def test_processes_say_what_one_says(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_draws, "KEYED", 0)
    log, choices = EventLog.open(run / "log"), Choices(resamples=100)
    alone = gather(log, runtime=None, progress=silent, choices=choices)
    with parts_map("processes", 2, run) as parts:
        together = gather(log, runtime=None, progress=silent, choices=choices, parts=parts)
    assert encode(together) == encode(alone)


COMMANDS = {
    "audit": ("--repetitions", "100", "--sizes", "20", "--population", "25", "--metric", "click"),
    "power": ("--lift", "1%", "--simulate", "100"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_writes_the_same_by_any_number_of_workers(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def written(*more: str) -> str:
        out = tmp_path / "found.json"
        asked = [command, str(run), *COMMANDS[command], "--out", str(out), *more]
        answer = CliRunner().invoke(main, asked, catch_exceptions=False)
        assert answer.exit_code == 0
        said.append(answer.output)
        return out.read_text(encoding="utf-8")

    two = written("--workers", "2")
    assert ("Not simulated: an arm of the users that" in said[-1]) == (command == "power")
    assert two == written("--workers", "1")
    monkeypatch.setattr(units, "STREAMED", 1 << 22)
    one, other = json.loads(two), json.loads(written())
    assert texts(one) == texts(other)
    assert apart(one, other) < (1e-12, "")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "design", ["interleave", "switchback", "clusters", "fits crossed", "fits divided"]
)
def test_a_command_says_of_sums_what_it_says_in_memory(
    design: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = lived(tmp_path, 2, **DESIGNS[design]), tmp_path / "found.json"

    def answer() -> tuple[int, str, Any]:
        out.write_text("{}")
        asked = [command, str(root), *COMMANDS[command], "--out", str(out)]
        said = CliRunner().invoke(main, asked, catch_exceptions=False)
        return said.exit_code, said.output, json.loads(out.read_text(encoding="utf-8"))

    *of_sums, found = answer()
    monkeypatch.setattr(units, "STREAMED", 1 << 22)
    *in_memory, other = answer()
    assert of_sums == in_memory
    assert texts(found) == texts(other)
    assert apart(found, other) < (1e-12, "")


@pytest.mark.parametrize("command", ["report", "power"])
def test_workers_are_for_runs(command: str, tmp_path: Path) -> None:
    table = tmp_path / "users.csv"
    table.write_text("user,arm,clicks\n1,control,2\n2,new,3\n")
    said = CliRunner().invoke(main, [command, str(table), "--workers", "2"])
    assert said.exit_code == 2
    assert f"--workers: for runs; {table} is a table" in said.output


def texts(tree: Any) -> Any:
    """A report without its numbers."""
    if isinstance(tree, dict):
        return {key: texts(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return list(map(texts, tree))
    return None if isinstance(tree, float) else tree


def test_what_is_not_a_sum_of_the_report_is_read_from_rows(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog.open(run / "log")
    asked = ("click", "sessions"), ("click", "ndcg@3")
    kept, others = (units.read(log, metrics) for metrics in asked)
    with monkeypatch.context() as patch:
        patch.setattr(part_sums, "_kept", lambda *_: None)
        rows = [units.read(log, metrics) for metrics in asked]
    for one, other in zip((kept, others), rows, strict=True):
        assert one.terms.keys() == other.terms.keys()
        assert all((one.terms[name] == sums).all() for name, sums in other.terms.items())
        assert all((one.before[name] == sums).all() for name, sums in other.before.items())
    monkeypatch.setattr(EventLog, "stretches", no_rows)
    units.read(log, asked[0])
    with pytest.raises(AssertionError, match="rows of the log"):
        units.read(log, asked[1])


def test_a_run_of_another_form_is_read_by_rows(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_sums, "FORM", part_sums.FORM + 1)
    monkeypatch.setattr(EventLog, "stretches", no_rows)
    with pytest.raises(AssertionError, match="rows of the log"):
        units.read(EventLog.open(run / "log"))


def test_sums_have_the_same_bytes_under_all_shards(run: Path, tmp_path: Path) -> None:
    def files(root: Path) -> dict[str, bytes]:
        return {
            str(file.relative_to(root)): file.read_bytes()
            for file in sorted((root / "sums").rglob("*.npz"))
        }

    assert files(run) == files(lived(tmp_path, 5))


def first(root: Path) -> Path:
    return root / "sums/arm_name=a/first_user=0000000000/part.npz"


def _cut(root: Path) -> None:
    content = first(root).read_bytes()
    first(root).write_bytes(content[: len(content) // 2])


def _changed(root: Path) -> None:
    content = bytearray(first(root).read_bytes())
    content[len(content) // 2] ^= 4
    first(root).write_bytes(content)


def _doubled(root: Path) -> None:
    shutil.copy(first(root), first(root).with_name("again.npz"))


def _swapped(root: Path) -> None:
    other = root / "sums/arm_name=a/first_user=0000000007/part.npz"
    between = root / "between"
    first(root).rename(between)
    other.rename(first(root))
    between.rename(other)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (_cut, r"0000000/part\.npz is cut"),
    "changed": (_changed, r"0000000/part\.npz has changed"),
    "missing": (lambda root: first(root).unlink(), r"0000000/part\.npz is missing"),
    "all missing": (lambda root: shutil.rmtree(root / "sums"), r"0000000/part\.npz is missing"),
    "doubled": (_doubled, r"again\.npz is not of this run"),
    "swapped": (_swapped, r"0000000/part\.npz (has changed|is cut)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_sums_are_named(damage: str, run: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    shutil.copytree(run, root)
    change, message = DAMAGE[damage]
    change(root)
    for command in ("report", "audit"):
        result = CliRunner().invoke(main, [command, str(root)])
        assert result.exit_code == 2
        assert re.search(message, result.output)


def test_sums_of_another_part_are_never_used(run: Path, tmp_path: Path) -> None:
    """Whether a part is another one than was added up, or its sums were written anew for another,
    both by the rules of the ledger.
    """
    for change in ("part", "sums"):
        root = tmp_path / change
        shutil.copytree(run, root)
        log = EventLog.open(root / "log")
        part = next(part for part in log.parts if Workspace(root).sums_of(part) == first(root))
        if change == "part":
            rows = EventLog.open(part)
            clicks = rows.table["click"].to_numpy(zero_copy_only=False)
            at = rows.table.schema.get_field_index("click")
            table = rows.table.set_column(at, rows.table.schema.field(at), [~clicks])
            EventLog(rows.metadata, table).write(part)
        else:
            other = Workspace(root).sums_of(log.parts[0])
            save_arrays(first(root), load_arrays(other))
        with pytest.raises(FileError, match="has the sums of another part than"):
            units.read(EventLog.open(root / "log"))


def test_a_run_that_dies_among_its_sums_is_resumed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def death(file: Path, *_: Any) -> None:
        if file == first(tmp_path / "out"):
            raise KeyboardInterrupt
        real(file, *_)

    real = part_sums.keep
    with monkeypatch.context() as patch:
        patch.setattr(reading, "keep", death)
        with pytest.raises(KeyboardInterrupt):
            lived(tmp_path, 2)
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/sums").rglob("*.npz")}
    assert written
    assert first(tmp_path / "out") not in written
    root = lived(tmp_path, 2, resume=True)
    assert all(file.stat().st_mtime_ns == time for file, time in written.items())
    assert first(root).read_bytes() == first(run).read_bytes()


def test_cells_are_those_that_are_not_all_zero() -> None:
    whole = np.array([[0, 0, 3], [0, 5, 0]])
    cells = CellSums.of(whole)
    assert (cells.first, cells.sums.tolist()) == (2, [3, 0, 5])
    into = np.ones((2, 3), dtype=np.int64)
    cells.add_to(into)
    assert into.tolist() == [[1, 1, 4], [1, 6, 1]]
    assert CellSums.of(np.zeros(3)).sums.tolist() == []


def test_sums_by_cell_reach_as_far_as_they_are_added_to() -> None:
    cells = units.GrowingCells()
    for start, sums in ((5, [1, 2]), (6, [1, 300]), (3, [7])):
        cells.add(start, np.array(sums))
    assert (cells.first, cells.values.tolist(), cells.values.dtype) == (
        3, [7, 0, 1, 3, 300], np.int16
    )  # fmt: skip
