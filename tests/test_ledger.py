"""The ledger of a run: whatever is missing, added, changed, cut or stale is named, and whatever a
death leaves is put in order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from policies.registry import PolicyError
from policies.staging import staging_of
from simulator.cli import main
from simulator.datasets import read
from simulator.log.files import load_arrays, read_json, save_arrays, staged, write_text
from simulator.log.ledger import FileError, Ledger, Piece, commit
from simulator.log.workspace import RunError, Workspace
from simulator.scenario.parts import Data
from tests.worlds import run_again, run_stoppable


def log_of(root: Path) -> dict[str, bytes]:
    return {part.name: part.read_bytes() for part in sorted((root / "log").iterdir())}


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        run_stoppable(folder, patch)
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_stoppable(tmp_path_factory.mktemp("whole"), None)


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, dirs_exist_ok=True)
    return to / "out"


def flip(file: Path, at: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    file.write_bytes(bytes(content))


def one(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def test_an_interrupted_run_goes_on_to_the_same_bytes(interrupted_run, whole_run, tmp_path):
    out = copy(interrupted_run, tmp_path)
    assert len(list(out.glob("work/a/*/day-1.npz"))) == 2
    assert not list(out.glob("work/z/*/day-1.npz"))
    assert not list(out.rglob("*.part"))
    run_again(tmp_path)
    assert log_of(out) == log_of(whole_run)


def _swapped(out: Path) -> None:
    first, second = sorted(out.glob("work/a/*/day-0.npz"))
    first.rename(out / "between")
    second.rename(first)
    (out / "between").rename(second)


def _stale(out: Path) -> None:
    """An earlier version of a piece: the ledger has two lines of it, and the file of the first lies
    there.
    """
    file = one(out, "models/ranking.npz")
    old = file.read_bytes()
    state = load_arrays(file)
    save_arrays(file, {name: values + 1 for name, values in state.items()})
    file.write_bytes(old)


DAMAGE: list[tuple[str, Callable[[Path], Any], str]] = [
    (
        "a tape removed",
        lambda out: one(out, "work/a/*/day-0.npz").unlink(),
        r"work/a/users-0-20/day-0\.npz is missing",
    ),
    (
        "a shard removed",
        lambda out: shutil.rmtree(one(out, "work/a/users-*")),
        r"work/a/users-0-20/snapshot\.npz is missing",
    ),
    (
        "a snapshot removed",
        lambda out: one(out, "work/a/*/snapshot.npz").unlink(),
        r"snapshot\.npz is missing",
    ),
    (
        "a tape flipped",
        lambda out: flip(one(out, "work/a/*/day-1.npz")),
        r"work/a/users-0-20/day-1\.npz has changed",
    ),
    (
        "a tape cut",
        lambda out: os.truncate(one(out, "work/a/*/day-1.npz"), 99),
        r"day-1\.npz is cut: it has 99 of",
    ),
    (
        "a tape added",
        lambda out: shutil.copy(
            one(out, "work/a/*/day-1.npz"), out / "work/a/users-0-20/day-2.npz"
        ),
        r"day-2\.npz is not of",
    ),
    (
        "tapes swapped",
        _swapped,
        r"users-0-20/day-0\.npz (has changed|is cut)[\s\S]*users-20-40/day-0\.npz has changed",
    ),
    ("a stale piece", _stale, r"models/ranking\.npz is stale: an earlier version of it"),
    (
        "a fit flipped",
        lambda out: flip(one(out, "models/popularity-*/state.npz")),
        r"popularity-\w+/state\.npz has changed",
    ),
    (
        "a fit removed",
        lambda out: shutil.rmtree(one(out, "models/popularity-*")),
        r"popularity-\w+/policy\.json is missing",
    ),
    (
        "the catalogue flipped",
        lambda out: flip(out / "models/catalogue.npz"),
        r"models/catalogue\.npz has changed",
    ),
    (
        "the history flipped",
        lambda out: flip(out / "log/00-history.parquet"),
        r"log/00-history\.parquet has changed",
    ),
    ("the claim flipped", lambda out: flip(out / "work/claim.json"), r"claim\.json has changed"),
    ("the ledger flipped", lambda out: flip(out / "pieces.jsonl"), r"pieces\.jsonl:\d+: damaged"),
    (
        "the ledger removed",
        lambda out: (out / "pieces.jsonl").unlink(),
        r"pieces\.jsonl, the list of the pieces of this run, is missing",
    ),
]


@pytest.mark.parametrize(
    ("damage", "message"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE]
)
def test_no_damaged_run_is_resumed(interrupted_run, tmp_path, damage, message):
    out = copy(interrupted_run, tmp_path)
    damage(out)
    with pytest.raises(FileError, match=message):
        run_again(tmp_path)


def test_a_line_of_the_ledger_that_is_lost_leaves_a_stranger(interrupted_run, tmp_path):
    out = copy(interrupted_run, tmp_path)
    lines = (out / "pieces.jsonl").read_text().splitlines(keepends=True)
    (out / "pieces.jsonl").write_text(
        "".join(line for line in lines if "work/a/users-0-20/day-0.npz" not in line)
    )
    with pytest.raises(FileError, match=r"work/a/users-0-20/day-0\.npz is not of this run"):
        run_again(tmp_path)


def test_one_flipped_bit_in_any_file_of_a_finished_run_is_named(whole_run, tmp_path):
    files = [
        file
        for file in sorted(whole_run.rglob("*"))
        if file.is_file() and file.name not in (".lock", "scenario.yaml")
    ]
    assert len(files) > 8
    for number, file in enumerate(files):
        out = tmp_path / str(number)
        shutil.copytree(whole_run, out)
        flip(out / file.relative_to(whole_run), (number % 10) / 10)
        done = CliRunner().invoke(main, ["report", str(out), "--quiet"])
        assert done.exit_code == 2, (file, done.output)
        assert file.name in done.output
        assert "Traceback" not in done.output
        assert not (out / "report.json").exists()


def test_a_missing_and_an_added_part_of_the_log_are_named(whole_run, tmp_path):
    for name, change in {
        "missing": lambda out: (out / "log/01-a.parquet").unlink(),
        "is not of this run": lambda out: shutil.copy(
            out / "log/01-a.parquet", out / "log/09-a.parquet"
        ),
    }.items():
        out = tmp_path / name
        shutil.copytree(whole_run, out)
        change(out)
        for source in (out, out / "log"):
            done = CliRunner().invoke(
                main, ["report", str(source), "--quiet", "--out", str(tmp_path / "report")]
            )
            assert done.exit_code == 2
            assert name in done.output


def test_an_unfinished_run_is_not_reported(interrupted_run):
    done = CliRunner().invoke(main, ["report", str(interrupted_run / "out"), "--quiet"])
    assert done.exit_code == 2
    assert "is not finished" in done.output


def test_a_report_that_was_changed_is_not_read(whole_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole_run, out)
    assert CliRunner().invoke(main, ["report", str(out), "--quiet"]).exit_code == 0
    text = (out / "report.json").read_text()
    (out / "report.json").write_text(text.replace("1", "2"))
    with pytest.raises(FileError, match=r"report\.json has changed since it was written"):
        read_json(out / "report.json")


DEATHS: list[tuple[str, Callable[[Path], Any]]] = [
    ("nothing but the folder", lambda out: None),
    ("the lock", lambda out: (out / ".lock").touch()),
    ("an empty ledger", lambda out: [(out / ".lock").touch(), (out / "pieces.jsonl").touch()]),
    (
        "half a claim",
        lambda out: [
            (out / "work").mkdir(),
            staging_of(out / "work/claim.json").write_text('{"a'),
        ],
    ),
    ("half a line", lambda out: (out / "pieces.jsonl").write_text('{"piece": "wo')),
]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("death", [case[1] for case in DEATHS], ids=[case[0] for case in DEATHS])
def test_a_death_before_the_claim_is_whole_leaves_a_folder_that_is_taken(tmp_path, death, resume):
    out = tmp_path / "out"
    out.mkdir()
    death(out)
    where = Workspace(out)
    with where.held():
        where.claim({"seed": 1}, {}, resume=resume)
    assert json.loads((out / "work/claim.json").read_text())["scenario"] == {"seed": 1}
    assert not list(out.rglob("*.part"))


def test_a_death_between_line_and_name_is_settled(tmp_path):
    """The line is there and the piece waits under its temporary name: it gets its name. Other
    temporary files go.
    """
    where = Workspace(tmp_path / "out")
    with where.held():
        where.claim({}, {}, resume=False)
        save_arrays(where.models / "ranking.npz", {})
    notes = where.models / "notes.json"
    write_text(notes, "{}")
    notes.rename(staging_of(notes))
    staging_of(where.models / "ranking.npz").write_text("half of a new")
    fit = staging_of(where.models / "fit")
    fit.mkdir()
    staging_of(fit / "state.npz").write_text("x")
    with where.held():
        where.claim({}, {}, resume=True)
    assert sorted(path.name for path in where.models.iterdir()) == ["notes.json", "ranking.npz"]


def test_two_attempts_at_a_piece_do_not_meet_and_the_last_line_is_of_what_is_there(tmp_path):
    """Each writes under a name of its own, whichever began first; what waits of an attempt that was
    overtaken goes.
    """
    ledger, place = Ledger(tmp_path), tmp_path / "log" / "part"
    ledger.file.touch()
    with staged(place) as first:
        first.write_text("first")
        with staged(place) as second:
            second.write_text("second")
        assert Piece.of(place) == ledger.pieces()["log/part"]
    assert place.read_text() == "first"
    ledger.check()
    assert first.name != second.name
    staging_of(place).write_text("second")
    ledger.settle()
    assert [path.name for path in place.parent.iterdir()] == ["part"]


def test_attempts_of_many_processes_leave_what_the_ledger_says(tmp_path):
    """Every process writes other bytes to the same places: line and file change together."""
    ledger = Ledger(tmp_path)
    ledger.file.touch()
    code = (
        "import sys; from pathlib import Path; from simulator.log.files import write_text\n"
        "for i in range(60): write_text(Path(sys.argv[1], f'log/{i % 3}'), f'{sys.argv[2]} {i}')"
    )
    root = str(Path(__file__).parents[1])
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(i)], cwd=root)
        for i in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    ledger.check()


def test_a_line_that_a_death_has_cut_is_no_line(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.file.touch()
    write_text(tmp_path / "a", "a")
    with ledger.file.open("a") as stream:
        stream.write('{"piece": "b", "by')
    assert list(ledger.pieces()) == ["a"]
    write_text(tmp_path / "c", "c")
    assert list(ledger.pieces()) == ["a", "c"]


def test_files_outside_of_runs_are_not_listed(tmp_path):
    assert Ledger.around(tmp_path / "a") is None
    waiting = staging_of(tmp_path / "a")
    waiting.write_text("a")
    commit(waiting, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_run_folder_is_held_by_one_process(tmp_path):
    where = Workspace(tmp_path / "out")
    with where.held():
        where.claim({}, {}, resume=False)
        with (
            pytest.raises(RunError, match=rf"is in use by process {os.getpid()} on"),
            Workspace(tmp_path / "out").held(),
        ):
            pass
    with Workspace(tmp_path / "out").held():
        pass


def test_a_fit_that_is_damaged_while_the_run_uses_it_is_named(
    interrupted_run, tmp_path, monkeypatch
):
    out = copy(interrupted_run, tmp_path)
    check = Ledger.check

    def then_damaged(ledger: Ledger, within: Path | None = None) -> None:
        check(ledger, within)
        os.truncate(one(out, "models/stops-*/state.npz"), 30)

    monkeypatch.setattr(Ledger, "check", then_damaged)
    with pytest.raises(
        PolicyError,
        match=r"policy .mine.py:Stops.: loading the fit in .*models/stops-\w+ raised BadZipFile",
    ):
        run_again(tmp_path)


def test_a_report_of_a_run_that_another_process_holds_is_not_written(whole_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole_run, out)
    with Workspace(out).held():
        done = CliRunner().invoke(main, ["report", str(out), "--quiet"])
    assert done.exit_code == 2
    assert "is in use by process" in done.output
    assert not (out / "report.json").exists()


def test_a_log_as_data_is_held_to_its_ledger(whole_run, interrupted_run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole_run, out)
    data = Data(source="log", path=str(out))
    assert read(data, tmp_path).history is not None
    flip(out / "log/01-a.parquet")
    with pytest.raises(FileError, match=r"log/01-a\.parquet has changed"):
        read(data, tmp_path)
    with pytest.raises(RunError, match="is not finished"):
        read(Data(source="log", path=str(interrupted_run / "out")), tmp_path)


def test_rows_are_listed(whole_run):
    """Every impression of the log is on one of the tapes that were listed: none lost, none
    twice.
    """
    pieces = Ledger(whole_run).pieces()
    for arm in ("a", "z"):
        tapes = {
            name: piece.rows
            for name, piece in pieces.items()
            if name.startswith(f"work/{arm}/") and "/day-" in name
        }
        assert len(tapes) == 4
        (part,) = [
            piece
            for name, piece in pieces.items()
            if name.startswith("log/") and name.endswith(f"-{arm}.parquet")
        ]
        assert sum(tapes.values()) == part.rows
