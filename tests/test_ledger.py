"""The ledger of a run: whatever is missing, added, changed, cut or stale is named, and whatever a
death leaves is put in order.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from policies.base import Progress
from policies.staging import staging_of
from simulator.cli import main
from simulator.datasets import read
from simulator.engine import tape
from simulator.log.files import load_arrays, read_json, save_arrays, staged, write_text
from simulator.log.ledger import FileError, Ledger, Piece, commit
from simulator.log.workspace import RunError, Workspace
from simulator.run.tasks import Merge
from simulator.scenario.parts import Data
from tests.worlds import FIRST, log_files, run_again, run_stoppable


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
    assert log_files(out) == log_files(whole_run)


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
        lambda out: flip(out / "log/arm_name=history" / FIRST),
        r"log/arm_name=history/first_user=0+/part\.parquet has changed",
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
        "missing": lambda out: (out / "log/arm_name=a" / FIRST).unlink(),
        "is not of this run": lambda out: shutil.copy(
            out / "log/arm_name=a" / FIRST, out / "log/arm_name=a/b.parquet"
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
    with pytest.raises(FileError, match=r"models/stops-\w+/state\.npz is cut: it has 30 of"):
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
    flip(out / "log/arm_name=a" / FIRST)
    with pytest.raises(FileError, match=r"log/arm_name=a/first_user=0+/part\.parquet has changed"):
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
            piece for name, piece in pieces.items() if name.startswith(f"log/arm_name={arm}/")
        ]
        assert sum(tapes.values()) == part.rows


# --- while the log is written


def _doubled(out: Path) -> None:
    shutil.copy(one(out, "work/a/users-0-20/day-0.npz"), out / "work/a/users-0-20/day-1.npz")


def _stale_tape(out: Path) -> None:
    """The tape of day 1 is written twice, and what lies there is the first."""
    file = out / "work/a/users-20-40/day-1.npz"
    old = file.read_bytes()
    tape = load_arrays(file)
    save_arrays(file, {**tape, "item": tape["item"][::-1]}, len(tape["item"]))
    file.write_bytes(old)


def _unlisted(out: Path) -> None:
    ledger = out / "pieces.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(line for line in lines if "work/a/users-0-20/day-1" not in line))


def _stale_snapshot(out: Path) -> None:
    file = out / "work/a/users-0-20/snapshot.npz"
    save_arrays(file, {**load_arrays(file), "now": np.array(86_400_000)})


TAPES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "dropped": (
        lambda out: one(out, "work/a/users-0-20/day-1.npz").unlink(),
        r"work/a/users-0-20/day-1\.npz is missing",
    ),
    "doubled": (_doubled, r"work/a/users-0-20/day-1\.npz (has changed|is cut)"),
    "cut": (
        lambda out: os.truncate(one(out, "work/a/users-0-20/day-1.npz"), 99),
        r"work/a/users-0-20/day-1\.npz is cut: it has 99 of",
    ),
    "stale": (_stale_tape, r"work/a/users-20-40/day-1\.npz is stale: an earlier version"),
    "swapped": (_swapped, r"users-0-20/day-0\.npz (has changed|is cut)[\s\S]*users-20-40/day-0"),
    "not listed": (_unlisted, r"work/a/users-0-20/day-1\.npz is not of this run"),
    "a day less": (_stale_snapshot, r"users-0-20: the days of users 0 to 19 are no longer whole"),
}


@pytest.mark.parametrize("damage", TAPES)
def test_a_piece_that_is_damaged_before_the_log_is_written_is_named(damage, tmp_path, monkeypatch):
    change, message = TAPES[damage]
    if damage == "swapped":
        message = message.split("[", 1)[0]
    write = Merge.__call__

    def damaged(task: Merge, progress: Progress) -> dict[str, float]:
        if task.arm == "a":
            change(tmp_path / "out")
        return write(task, progress)

    monkeypatch.setattr(Merge, "__call__", damaged)
    with pytest.raises(FileError, match=message):
        run_stoppable(tmp_path, None)
    out = tmp_path / "out"
    assert not Workspace(out).finished
    assert not list(out.glob("log/arm_name=a/*/*.parquet"))
    monkeypatch.undo()
    if damage != "a day less":
        done = CliRunner().invoke(
            main, ["run", str(tmp_path / "scenario.yaml"), "--out", str(out), "--resume", "--quiet"]
        )
        assert done.exit_code == 2
        assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize("change", ["dropped", "doubled"])
def test_rows_that_are_lost_or_doubled_on_the_way_into_the_log_are_named(
    change, tmp_path, monkeypatch
):
    tables = tape.tables

    def changed(*args: Any, **kwargs: Any) -> Iterator[Any]:
        first, *others = tables(*args, **kwargs)
        yield from [first[:-1], *others] if change == "dropped" else [first, *others, first[:1]]

    monkeypatch.setattr(tape, "tables", changed)
    with pytest.raises(FileError, match=r"users 0 to 19: [\d,]+ rows were written of [\d,]+"):
        run_stoppable(tmp_path, None)


# --- whoever reads a finished run


def _stale_part(out: Path) -> None:
    """The log part of an arm is written twice, and what lies there is the first."""
    file = out / "log/arm_name=a" / FIRST
    old = file.read_bytes()
    with staged(file) as staging:
        staging.write_bytes(old + b" ")
    file.write_bytes(old)


PARTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "dropped": (
        lambda out: (out / "log/arm_name=a" / FIRST).unlink(),
        r"arm_name=a/.*parquet is missing",
    ),
    "doubled": (
        lambda out: shutil.copy(out / "log/arm_name=a" / FIRST, out / "log/arm_name=z" / FIRST),
        r"arm_name=z/first_user=0+/part\.parquet (has changed|is cut)",
    ),
    "cut": (
        lambda out: os.truncate(out / "log/arm_name=a" / FIRST, 2000),
        r"arm_name=a/first_user=0+/part\.parquet is cut: it has 2,000 of",
    ),
    "stale": (_stale_part, r"arm_name=a/.*parquet is stale: an earlier version"),
    "added": (
        lambda out: shutil.copy(out / "log/arm_name=a" / FIRST, out / "log/arm_name=a/b.parquet"),
        r"arm_name=a/b\.parquet is not of this run",
    ),
}

READERS: dict[str, Callable[[Path], list[str]]] = {
    "report": lambda out: ["report", str(out), "--quiet"],
    "report of the log": lambda out: ["report", str(out / "log"), "--out", str(out.parent / "r")],
    "audit": lambda out: ["audit", str(out)],
    "compare": lambda out: ["compare", str(out), str(out.parent / "other")],
    "sensitivity": lambda out: ["sensitivity", str(out), str(out.parent / "other")],
    "prior": lambda out: ["prior", str(out)],
    "replay": lambda out: ["replay", str(out), "--policy", "popularity"],
    "power": lambda out: ["power", str(out), "--lift", "0.05"],
    "pooled": lambda out: ["pooled", str(out)],
    "resume": lambda out: [
        *["run", str(out.parent / "scenario.yaml"), "--out", str(out), "--resume", "--quiet"]
    ],
}


@pytest.mark.parametrize("damage", PARTS)
@pytest.mark.parametrize(
    ("reader", "reported"),
    [*((reader, reader == "prior") for reader in READERS), ("compare", True)],
)
def test_no_command_reads_a_damaged_run(damage, reader, reported, whole_run, tmp_path):
    change, message = PARTS[damage]
    out = copy(whole_run.parent, tmp_path)
    shutil.copytree(out, tmp_path / "other")
    if reported:
        done = CliRunner().invoke(main, ["report", str(out), "--quiet"])
        assert done.exit_code == 0, done.output
    change(out)
    done = CliRunner().invoke(main, READERS[reader](out))
    assert done.exit_code == 2, done.output
    assert re.search(message, done.stderr), done.stderr
