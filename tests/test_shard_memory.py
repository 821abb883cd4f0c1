"""A process holds the users of its shard: what it needs does not grow with the world, nor do the
answers depend on it.
"""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from policies.base import Sequences
from policies.streams import Purpose, uniform
from simulator.cli import main
from simulator.engine import tape
from simulator.log import eventlog
from simulator.log.eventlog import EventLog
from simulator.log.files import FileError, map_arrays, save_mappable
from simulator.log.metadata import HISTORY, LogError, Metadata
from simulator.log.workspace import Lane, RunError, Workspace
from simulator.run.context import Context, Job
from simulator.run.pipeline import put_source, simulate, simulate_shard
from simulator.scenario.model import Scenario
from simulator.users.base import rows_among
from tests.worlds import in_file, paired_log, tiny_scenario, write_scenario

SHARD = 1000
"""Users of a shard."""

WORLDS: dict[str, dict[str, Any]] = {
    "choice": {"users": {"kind": "choice", "n_items": 80}},
    "markov": {"users": {"kind": "markov", "n_items": 80}, "design": {"kind": "split"}},
    "looking into the world": {
        "users": {"kind": "choice", "n_items": 80},
        "data": {"source": "synthetic", "history_days": 2, "logging": {"policy": "production"}},
        "arms": {"a": {"policy": "oracle"}, "b": {"policy": "production"}},
    },
}


def scenario(n_users: int, **changes: Any) -> Scenario:
    arms = {"a": {"policy": "popularity"}, "b": {"policy": "random"}}
    content = tiny_scenario(**{"arms": arms, **changes})
    content["users"] = {**content["users"], "n_users": n_users}
    content["design"] = {**content["design"], "control": "a"}
    content["serving"] = {**content["serving"], "ranking": {"kind": "recall"}}
    shards = max(n_users // SHARD, 1)
    content["engine"] = {"executor": "serial", "shards": shards, "memory_limit": 1e6}
    return Scenario.model_validate(content)


def job_of(root: Path, alone: Scenario) -> Job:
    return Job(str(root), str(root), json.dumps(alone.resolved()))


@pytest.mark.parametrize("kind", WORLDS)
def test_a_shard_of_a_hundred_million_users_lives_alone_to_the_bytes_of_a_small_world(
    kind: str, tmp_path: Path
) -> None:
    """All that is drawn of a user is keyed by his id: so the first users of a huge world are those
    of a small one.
    """
    small = simulate(scenario(2 * SHARD, **WORLDS[kind]), tmp_path / "small").root
    huge = scenario(100_000_000, **WORLDS[kind])
    simulate_shard(huge, tmp_path / "huge", 2, fits=small / "models")
    run = Context(job_of(tmp_path / "huge", huge))
    for arm, index in ((HISTORY, 0), ("a", 1), ("b", 2)):
        until = 0 if arm == HISTORY else 2
        days = run.tapes(Lane(arm), SHARD, 2 * SHARD, until=until)
        lived = tape.rows(days, index, run.duration, run.columns)
        log = EventLog.open(small / "log").of_users(np.arange(SHARD, 2 * SHARD)).table
        theirs = log.filter(pc.equal(log["arm"], index)).replace_schema_metadata(None)
        assert lived.num_rows > 2500
        assert lived.equals(theirs)


def test_the_memory_of_a_shard_does_not_grow_with_the_number_of_users(tmp_path: Path) -> None:
    """A byte for each of a hundred million users would be 95 MiB; a shard of 1,000 takes some 10.
    What is left between the worlds are a few KiB of Python's own stores of small objects.
    """
    fits = simulate(scenario(2 * SHARD), tmp_path / "small").root / "models"
    peaks = {}
    for n_users in (100_000, 100_000_000):
        alone, root = scenario(n_users), tmp_path / str(n_users)
        simulate_shard(alone, root, 1, fits=fits)  # imports, and compiles
        tracemalloc.start()
        simulate_shard(alone, root, 81, resume=True)
        peaks[n_users] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert max(peaks.values()) - min(peaks.values()) < 2**15, peaks


def bytes_of(root: Path) -> dict[str, bytes]:
    parts = (root / "log").rglob("*.parquet")
    return {part.relative_to(root).as_posix(): part.read_bytes() for part in parts}


def test_a_run_takes_over_the_shards_that_were_simulated_alone(tmp_path: Path) -> None:
    alone = scenario(3 * SHARD)
    whole = simulate(alone, tmp_path / "whole")
    models, out = whole.root / "models", tmp_path / "pieces"
    first = simulate_shard(alone, out, 3)  # no fits yet: its history alone
    assert "simulate impressions" not in first.runtime
    again = simulate_shard(alone, out, 3, resume=True, fits=models)
    assert again.runtime["history impressions"] == 0
    rest = simulate(alone, out, resume=True)
    assert bytes_of(out) == bytes_of(whole.root)
    for stage, done in (("history", first), ("simulate", again)):
        impressions = f"{stage} impressions"
        assert done.runtime[impressions] > 2500
        assert done.runtime[impressions] + rest.runtime[impressions] == whole.runtime[impressions]
    with pytest.raises(RunError, match="holds a finished run: no shard of it is left"):
        simulate_shard(alone, out, 3, resume=True)


@pytest.mark.parametrize("waits", ["refit", "items"])
def test_a_shard_alone_ends_at_the_first_midnight_that_needs_all_users(
    waits: str, tmp_path: Path
) -> None:
    serving = {**tiny_scenario()["serving"], "refit": "daily" if waits == "refit" else "never"}
    changes = {"serving": serving, "items": {"uploads": 0.1} if waits == "items" else None}
    daily = scenario(3 * SHARD, **changes)
    whole = simulate(daily, tmp_path / "whole")
    out, days = tmp_path / "pieces", {}
    for fits in (None, whole.root / "models"):
        first = simulate_shard(daily, out, 3, resume=fits is not None, fits=fits)
        days |= {name: n for name, n in first.runtime.items() if name.endswith(" days")}
    history = {"refit": 2, "items": 1}[waits]
    assert days == {"history days": history} | ({"simulate days": 1} if waits == "refit" else {})
    rest = simulate(daily, out, resume=True)
    assert bytes_of(out) == bytes_of(whole.root)
    for stage in [name.removesuffix(" days") for name in days]:
        lived = [each.runtime[f"{stage} impressions"] for each in (whole, rest)]
        assert lived[1] < lived[0]


def test_a_shard_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no shard 4: there are 3 of the 3,000 users"):
        simulate_shard(scenario(3 * SHARD), tmp_path / "out", 4)


def test_the_command_simulates_one_shard_and_says_what_is_left(tmp_path: Path) -> None:
    serving = {**tiny_scenario()["serving"], "refit": "daily"}
    file = write_scenario(tmp_path, scenario(100, serving=serving).resolved())
    out, command = tmp_path / "out", ["run", str(file), "--out", str(tmp_path / "out"), "--quiet"]
    done = CliRunner().invoke(main, [*command, "--shard", "2/3"])
    assert done.exit_code == 0, done.output
    assert re.search(
        r"the history of shard 2/3, 2 days: [\d,]+ impressions simulated in", done.output
    )
    assert "its A/B waits for the fits, which learn from the history of all shards" in done.output
    assert "further days" not in done.output, "no midnight of the history needs all users"
    left = f"abtest run {file} --out {out} --quiet --engine.shards 3 --resume does what is left"
    assert left in done.output
    assert [path.name for path in (out / "work" / HISTORY).iterdir()] == ["users-33-66"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--shard", "3"], "must be I/N, such as 3/64 for the third of 64; got '3'"),
        (["--shard", "x/2"], "must be I/N"),
        (["--shard", "0/2"], "I must be between 1 and N; got '0/2'"),
        (["--shard", "3/2"], "I must be between 1 and N; got '3/2'"),
        (["--shard", "1/2", "--engine.shards", "2"], "leave out --engine.shards"),
        (["--shard", "1/2", "--gate", "--csv"], "makes no report: leave out --gate, --csv"),
    ],
)
def test_a_wrong_shard_is_bad_input(options: list[str], wrong: str, tmp_path: Path) -> None:
    file = write_scenario(tmp_path, scenario(100).resolved())
    done = CliRunner().invoke(main, ["run", str(file), *options])
    assert done.exit_code == 2
    assert wrong in " ".join(done.output.split())


def test_the_rows_of_some_users_are_read_from_the_row_groups_that_hold_them(tmp_path: Path) -> None:
    """A damaged row group is noticed by who asks for its users, and by nobody else."""
    log = EventLog.open(paired_log(200).write(tmp_path / "log.parquet", row_group=500))
    who = np.array([3, 4, 50, 199])
    wanted = np.isin(log.table["user"].to_numpy(), who)
    assert log.of_users(who).table.equals(log.table.filter(wanted))
    assert EventLog(log.metadata, log.table).of_users(who).table.equals(log.table.filter(wanted))
    assert log.of_users(who[:0]).table.num_rows == 0
    stored = pq.ParquetFile(log.parts[0]).metadata
    last = stored.row_group(stored.num_row_groups - 1)
    at = last.column(last.num_columns - 1).data_page_offset + 40
    with log.parts[0].open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 255]))
    damaged = last.column(stored.schema.to_arrow_schema().get_field_index("user")).statistics.min
    assert damaged > 100
    assert log.of_users(np.arange(100)).table.num_rows > 1000
    with pytest.raises(LogError, match="not a readable Parquet file"):
        log.of_users(np.arange(damaged, 200))


def test_sequences_of_some_users_are_theirs_among_all() -> None:
    log, who = paired_log(60), np.array([0, 7, 8, 59])
    whole, some = log.sequences("history"), log.sequences("history", who=who)
    assert some.user.tolist() == who.tolist()
    for i, user in enumerate(who):
        theirs = slice(*whole.offsets[user : user + 2])
        ours = slice(*some.offsets[i : i + 2])
        for name in ("items", "clicked", "t"):
            assert np.array_equal(getattr(whole, name)[theirs], getattr(some, name)[ours])
        assert np.array_equal(
            whole.columns["watch"][theirs], some.columns["watch"][ours], equal_nan=True
        )


def long_log(path: Path, n_rows: int) -> EventLog:
    """A history of 50 users in row groups of 1,000 impressions."""
    row = np.arange(n_rows)
    user = row * 50 // n_rows
    columns = {
        "user": user,
        "session": row - np.searchsorted(user, user),
        "request": np.zeros(n_rows, dtype=np.int64),
        "position": np.zeros(n_rows, dtype=np.int64),
        "t": row - n_rows,
        "item": 1 + row % 7,
        "click": np.where(row % 5 == 4, -1, row % 2),
        "watch": np.where(row % 3 == 0, np.nan, row),
    }
    log = EventLog.from_columns(columns, Metadata((HISTORY,), 51, 7))
    return EventLog.open(log.write(path, row_group=1000))


def begun(root: Path, alone: Scenario) -> Context:
    """A run as a process sees it before anybody lives."""
    workspace = Workspace(root)
    with workspace.held():
        put_source(alone, root, workspace)
    return Context(job_of(root, alone))


ARRAYS = {
    "items.who/made it, \u00e4": np.array(["", "x", "\u00e4\u00f6"]),
    "flag": np.array([True, False, True]),
    "table": np.arange(12, dtype=np.float32).reshape(3, 4),
    "turned": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "number": np.array(7),
    "none": np.zeros((0, 3)),
}


def test_arrays_are_mapped_as_they_were_saved_and_what_is_written_stays_here(
    tmp_path: Path,
) -> None:
    file = tmp_path / "arrays.npz"
    save_mappable(file, ARRAYS)
    first, again = map_arrays(file), map_arrays(file)
    with np.load(file) as plain:
        for name, array in ARRAYS.items():
            for read in (first[name], plain[name]):
                assert (read.dtype, read.shape) == (array.dtype, array.shape), name
                assert np.array_equal(read, array), name
            assert in_file(first[name]), name
            assert first[name].ctypes.data % 64 == 0, name
    first["table"][:] = -1.0
    assert np.array_equal(again["table"], ARRAYS["table"])
    assert np.array_equal(map_arrays(file)["table"], ARRAYS["table"])


def test_arrays_of_other_writers_are_read_and_what_is_no_plain_array_is_refused(
    tmp_path: Path,
) -> None:
    others = tmp_path / "others.npz"
    np.savez(others, **{name: ARRAYS[name] for name in ("flag", "table")})  # type: ignore[arg-type]
    read = map_arrays(others)
    assert np.array_equal(read["table"], ARRAYS["table"])
    assert all(array.flags.aligned for array in read.values())
    np.savez_compressed(tmp_path / "small.npz", table=ARRAYS["table"])
    np.savez(tmp_path / "objects.npz", table=np.array([{}], dtype=object))
    save_mappable(tmp_path / "cut.npz", ARRAYS)
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("small", "objects", "cut"):
        with pytest.raises(FileError, match=rf"{name}\.npz is damaged"):
            map_arrays(tmp_path / f"{name}.npz")
    with pytest.raises(FileError, match=r"there\.npz is missing"):
        map_arrays(tmp_path / "there.npz")


@pytest.mark.parametrize("kind", ["choice", "markov"])
def test_processes_share_what_grows_with_the_items(kind: str, tmp_path: Path) -> None:
    """A video has some 220 bytes in the world and 20 in the catalogue, and where clicks lead to as
    many again; a process that builds users takes none of them for itself.
    """
    peaks, who = [], np.arange(SHARD)
    for n_items in (2_000, 102_000):
        users = {"kind": kind, "n_items": n_items}
        alone = scenario(SHARD, users=users, design={"kind": "split"})
        first = begun(tmp_path / str(n_items), alone)
        for process in (first, Context(job_of(tmp_path / str(n_items), alone))):
            tracemalloc.start()
            people: Any = process.users(who)
            columns = [*process.catalogue.items.values(), people.world.tag]
            for array in (people.truth.video, people.truth.author, *columns, process.duration):
                assert in_file(array)
                assert len(array) == n_items + 1
            assert in_file(people.truth.onward) == (kind == "markov")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        drawn: Any = alone.users
        fresh = drawn.build(drawn.source(alone.seed), alone.seed, 1, tmp_path, who)
        for name, array in fresh.world.truth().items():
            assert np.array_equal(array, getattr(people.world, name)), name
    assert max(peaks[2:]) - peaks[1] < 2**15, peaks


def test_a_world_that_fades_in_one_life_does_not_in_another(tmp_path: Path) -> None:
    """The world is one for all lives of a process."""
    run = begun(tmp_path / "run", scenario(100))
    one, other = (run.users(np.arange(3)) for _ in range(2))
    people: Any = one
    people.fade(np.full(people.n_items + 1, 2.0))
    people.fade(np.full(people.n_items + 1, 1.0))
    n_places, world = people.world.dimensions, people.world
    assert np.array_equal(people.truth.video[:, n_places], world.appeal + 1.0)
    beside: Any = other
    assert np.array_equal(beside.truth.video[:, n_places], world.appeal)


def test_a_world_that_was_changed_is_not_used(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", scenario(100))
    with run.workspace.truth.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\1")
    with pytest.raises(FileError, match=r"truth\.npz has changed since it was written"):
        run.users(np.arange(3))


def arrays_of(sequences: Sequences) -> dict[str, np.ndarray]:
    names = ("user", "offsets", "items", "clicked", "t")
    return {**{name: getattr(sequences, name) for name in names}, **sequences.columns}


@pytest.mark.parametrize("before", [0, -1500, -(10**6)])
def test_sequences_in_files_are_those_in_memory(
    before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "ROWS", 700)
    log = long_log(tmp_path / "log.parquet", 4000)
    mapped = log.map_sequences(tmp_path / "sequences", HISTORY, before=before)
    ours, theirs = arrays_of(mapped), arrays_of(log.sequences(before=before))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        assert ours[name].tobytes() == array.tobytes(), name
    again = log.map_sequences(tmp_path / "sequences", HISTORY, before=before)
    mapped.items[:10] = 5  # by a policy: nobody else sees it
    assert arrays_of(again)["items"].tobytes() == theirs["items"].tobytes()


def test_rows_that_are_not_in_time_make_no_sequences(tmp_path: Path) -> None:
    log = long_log(tmp_path / "log.parquet", 100)
    t = np.arange(100)
    t[[10, 11]] = t[[11, 10]]
    wrong = log.table.set_column(5, "t", pa.array(t))
    EventLog(log.metadata, wrong).write(tmp_path / "wrong.parquet")
    with pytest.raises(LogError, match=r"wrong\.parquet: row 11: rows must ascend by user"):
        EventLog.open(tmp_path / "wrong.parquet").map_sequences(
            tmp_path / "sequences", HISTORY, before=1000
        )
    assert not list(tmp_path.glob("sequences*"))


def test_the_memory_of_sequences_in_files_does_not_grow_with_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An impression takes 56 bytes in memory: those of 90,000 more would be 4.8 MiB."""
    monkeypatch.setattr(eventlog, "ROWS", 1000)
    peaks = {}
    for n_rows in (1_000, 10_000, 100_000):  # the first imports
        log = long_log(tmp_path / f"{n_rows}.parquet", n_rows)
        tracemalloc.start()
        mapped = log.map_sequences(tmp_path / str(n_rows), HISTORY, before=0)
        assert mapped.last(20).items.shape == (51, 20)
        peaks[n_rows] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(mapped.items) == n_rows
    assert abs(peaks[100_000] - peaks[10_000]) < 2**17, peaks


@pytest.mark.parametrize("who", [np.arange(5, 25), np.flatnonzero(np.arange(60) % 3 == 1)])
def test_rows_among_are_found_and_strangers_refused(who: np.ndarray) -> None:
    asked = who[(uniform(4, Purpose.RECALL, np.arange(50)) * len(who)).astype(np.int64)]
    assert np.array_equal(who[rows_among(who, asked)], asked)
    for stranger in (0, int(who[-1]) + 1, 200):
        with pytest.raises(ValueError, match=f"user {stranger} was not built"):
            rows_among(who, np.append(asked, stranger))
    with pytest.raises(ValueError, match="user 3 was not built"):
        rows_among(who[:0], np.array([3]))
