"""How commands end when the system is against them: one message that names the file, one exit code,
nothing left behind.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
from click.testing import CliRunner

import policies
from simulator.cli import main
from simulator.cli.failure import failures
from simulator.log.eventlog import EventLog, Writer
from simulator.log.files import FileError, load_arrays, read_json, save_arrays, write_text
from simulator.log.metadata import Metadata
from tests.worlds import STOPPABLE, log_files, run_stoppable

SLOW = """
import time
from dataclasses import dataclass
from policies.popularity import Random

@dataclass
class Stops(Random):
    def recall(self, histories, k, seed):
        if (histories.step > 6).any():
            time.sleep(30)
        return super().recall(histories, k, seed)
"""


def a_log(n: int = 4, **changes: Any) -> EventLog:
    """A log of `n` impressions of as many users in two arms."""
    columns: dict[str, Any] = {
        "arm": [0] * n + [1] * n,
        "user": [*range(n), *range(n)],
        "session": [0] * 2 * n,
        "request": [0] * 2 * n,
        "position": [0] * 2 * n,
        "t": [5] * 2 * n,
        "item": [1 + i % 9 for i in range(2 * n)],
        "click": [i % 2 for i in range(2 * n)],
        "watch": [1.0] * 2 * n,
    }
    return EventLog.from_columns(columns | changes, Metadata(("a", "b"), n, 9, days=1, control="a"))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file/below", "Not a directory; a part of the path is a file"),
        ("n" * 300, "File name too long; give a shorter name"),
        ("/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(out, message, tmp_path):
    (tmp_path / "file").write_text("a file")
    a_log().write(tmp_path / "log.parquet")
    done = CliRunner().invoke(
        main, ["report", str(tmp_path / "log.parquet"), "--quiet", "--out", str(tmp_path / out)]
    )
    assert done.exit_code == 2, done.output
    assert "cannot be written" in done.output
    assert message in done.output
    assert "Traceback" not in done.output


def _limited(size: int) -> None:
    """In a child process: files may not grow beyond `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_run_that_finds_no_room_can_go_on(tmp_path):
    """A limit of file sizes is met in the middle of the run; without it, --resume ends it."""
    root = run_stoppable(
        tmp_path, None
    )  # also compiles the kernels, whose files the limit would forbid
    whole = log_files(root)
    out = tmp_path / "again"
    command = [sys.executable, "-m", "simulator", "run", str(tmp_path / "scenario.yaml"), "--quiet"]
    command += ["--out", str(out), "--engine.executor", "processes"]
    full = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=lambda: _limited(6000)
    )
    assert full.returncode == 2, full.stderr
    assert "cannot be written: File too large; files may not be so large here" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(out.rglob("*.part"))
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert log_files(out) == whole


def test_what_is_written_is_whole_or_not_there(tmp_path, monkeypatch):
    """Errors of the libraries that write: no file, no temporary file, one message."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "whatever a library says")

    monkeypatch.setattr("numpy.savez", full)
    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    writes = {
        "a.npz": lambda path: save_arrays(path, {}),
        "a.json": lambda path: write_text(path, "{}"),
        "a.parquet": a_log().write,
    }
    for name, write in writes.items():
        with pytest.raises(FileError, match=rf"{name} cannot be written: No space left on device"):
            write(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_writer_that_is_interrupted_leaves_nothing(tmp_path):
    log = a_log()

    def write() -> None:
        with Writer(tmp_path / "a.parquet", log.metadata, ()) as writer:
            writer.add(log.table)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert not list(tmp_path.iterdir())


DAMAGED = [
    b"",
    b"PK\x03\x04 and then nothing",
    b"not a zip file",
    b"\x93NUMPY\x01\x00v\x00{'descr': '<i8'",
]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(FileError, match=r"a\.json cannot be written: Is a directory"):
        write_text(tmp_path / "a.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_arrays_and_texts_are_named(content, tmp_path):
    path = tmp_path / "piece.npz"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"piece\.npz is damaged"):
        load_arrays(path)
    with pytest.raises(FileError, match=r"piece\.npz is damaged"):
        read_json(path)
    with pytest.raises(FileError, match=r"none\.npz is missing"):
        load_arrays(tmp_path / "none.npz")


def test_every_cut_and_every_flip_of_an_array_file_is_named_or_harmless(tmp_path):
    """As a reader that has no ledger sees it: what is read is what was written, or a FileError."""
    path = tmp_path / "piece.npz"
    save_arrays(path, {"now": pa.array([1, 2, 3]).to_numpy()})
    good = path.read_bytes()
    seen = 0
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            read = load_arrays(path, ["now"])
        except FileError:
            seen += 1
        else:
            assert read["now"].tolist() == [1, 2, 3]
    assert seen > 10


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "?"), "No space left on device"),
        (OSError(errno.EROFS, "?", "/opt/x"), "/opt/x: Read-only file system"),
        (MemoryError("Unable to allocate 596. GiB"), "not enough memory: Unable to allocate 596"),
        (MemoryError(), "not enough memory: none is left"),
    ],
)
def test_errors_of_the_system_are_one_message(error, message):
    with pytest.raises(click.ClickException) as caught, failures():
        raise error
    assert message in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["policies", "list"], ["scenario", "schema"]])
def test_output_that_cannot_be_written_is_said(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "simulator", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def _until(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def _slow_run(folder: Path, executor: str) -> subprocess.Popen[str]:
    """A run that is in the middle of arm z, whose policy sleeps."""
    started_of = folder / "scenario.yaml"
    (folder / "mine.py").write_text(SLOW)
    import yaml

    started_of.write_text(yaml.safe_dump(STOPPABLE, sort_keys=False))
    command = [sys.executable, "-m", "simulator", "run", str(started_of), "--quiet"]
    command += ["--out", str(folder / "out"), "--engine.executor", executor]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    pieces = folder / "out" / "work"
    _until(lambda: len(list(pieces.glob("a/*/day-1.npz"))) == 2, process)
    time.sleep(1.0)  # now arm z is under way
    return process


def _alive(group: int) -> list[str]:
    """The processes of a group that still run, by name."""
    names = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue  # it has ended meanwhile
        state, _, of_group = rest.split()[:3]
        if int(of_group) == group and state != "Z":
            names.append(name)
    return names


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("whom", ["main", "all"])
@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_sigterm_ends_a_run_as_ctrl_c_does(executor, whom, tmp_path):
    process = _slow_run(tmp_path, executor)
    if whom == "all":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    again = re.search(r"abtest run .*", said)
    assert again is not None
    assert f"--out {tmp_path / 'out'} " in again[0]
    assert again[0].rstrip().endswith("--resume")
    assert "Traceback" not in said
    assert not list((tmp_path / "out").rglob("*.part"))
    deadline = time.monotonic() + 20
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_a_worker_that_is_killed_is_named_with_what_it_did(tmp_path):
    process = _slow_run(tmp_path, "processes")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert workers
    os.kill(int(workers[0]), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    # Which arm the worker has by then depends on the machine.
    assert re.search(r"was ended by SIGKILL while it was simulating '[az]', users", said)
    assert "--resume continues the run" in said
    assert "Traceback" not in said


# --- where compiled kernels are kept -----------------------------------------------------------


def _read_only(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """The package cannot be written, as on a read-only mount (root may write everything else)."""
    real = os.access

    def access(path: Any, mode: int) -> bool:
        return not str(path).startswith(str(package)) and real(path, mode)

    monkeypatch.setattr(os, "access", access)


def test_kernels_lie_beside_the_modules_where_that_can_be_written(tmp_path):
    assert policies.kernel_cache(str(tmp_path)) is None


def test_kernels_of_a_read_only_installation_lie_in_the_users_cache(tmp_path, monkeypatch):
    _read_only(monkeypatch, tmp_path / "package")
    (tmp_path / "package").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = policies.kernel_cache(str(tmp_path / "package"))
    assert place == str(tmp_path / "cache" / "abtest" / "kernels")
    assert os.stat(place).st_mode & 0o777 == 0o700


def test_without_a_home_kernels_lie_in_a_folder_for_temporary_files_that_is_ours(
    tmp_path, monkeypatch
):
    _read_only(monkeypatch, tmp_path / "package")
    (tmp_path / "package").mkdir()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = policies.kernel_cache(str(tmp_path / "package"))
    assert place == str(tmp_path / f"abtest-kernels-{os.getuid()}")
    os.chmod(place, 0o777)  # others may write into it: what lies there may not be executed
    other = policies.kernel_cache(str(tmp_path / "package"))
    assert other is not None
    assert other != place
    assert os.stat(other).st_mode & 0o777 == 0o700


def test_what_a_terminal_would_act_upon_is_shown_as_an_escape(tmp_path):
    """A file's own words stand in messages; they must not colour, clear or turn round a
    terminal.
    """
    table = tmp_path / "t.csv"
    table.write_text("user,arm,x\n1,a\x1b[31m\u202e,1\n2,b,2\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["report", str(table), "--control", "a"])
    assert result.exit_code == 2
    assert "\\x1b[31m\\u202e" in result.output
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output


@pytest.mark.parametrize("command", ["support", "worlds"])
def test_a_run_that_is_not_there_is_named_with_the_place_where_it_was_looked_up(command, tmp_path):
    missing = tmp_path / "nowhere"
    result = CliRunner().invoke(main, ["data", command, str(missing)])
    assert result.exit_code == 2
    assert f"abtest: {missing}: no such file or folder; give a run's folder" in result.output


def test_a_mistyped_command_is_answered_by_a_near_one() -> None:
    result = CliRunner().invoke(main, ["rnu"])
    assert result.exit_code == 2
    assert "No such command 'rnu'. Did you mean 'run'?" in result.output


def test_the_command_that_resumes_has_the_options_of_the_run(tmp_path, monkeypatch) -> None:
    """Without the seed it would be refused: another scenario."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    scenario = tmp_path / "my s.yaml"
    arms = {"a": {"policy": "popularity"}, "b": {"policy": "random"}}
    scenario.write_text(json.dumps({**STOPPABLE, "arms": arms}))
    monkeypatch.setattr("simulator.cli.run._go", interrupted)
    options = ["--out", str(tmp_path / "o"), "--seed", "5", "--engine.executor", "serial"]
    result = CliRunner().invoke(main, ["run", str(scenario), *options, "--quiet"])
    assert result.exit_code == 130
    again = f"abtest run '{scenario}' --out {tmp_path / 'o'} --seed 5 --engine.executor serial"
    assert f"kept: {again} --quiet --resume" in result.output
