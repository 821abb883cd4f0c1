"""Runs whose folder lies on a store: an S3 server, and a file system of fsspec.

The server is moto's. It lies in an environment of its own (`make .venv-moto/.installed`); otherwise
the tests that ask it are skipped.
"""

from __future__ import annotations

import pickle
import re
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import fsspec
import pyarrow.dataset as ds
import pytest
from click.testing import CliRunner

from abtest import EventLog
from policies.base import silent
from simulator import datasets
from simulator.cli import main
from simulator.datasets import DataError
from simulator.log import part_sums
from simulator.log.files import write_text
from simulator.log.ledger import Ledger, fetch_all, here, present
from simulator.log.remote import RemoteRun
from simulator.log.store import (
    AddressError,
    FileError,
    Store,
    address_of,
    around,
    home,
    place,
    with_addresses,
)
from simulator.log.workspace import RunError, Workspace
from simulator.report.gather import gather
from simulator.report.stored import encode
from simulator.run import over_parts
from simulator.run.context import context
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Data
from simulator.stats import units
from tests.worlds import FIRST, log_digests, run_stoppable, simulate_scenario, tiny_scenario

MOTO = Path(__file__).parents[1] / ".venv-moto" / "bin" / "moto_server"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no copy of anything yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Go on as on a machine that has no copy of anything."""

    def go_on(name: str = "another") -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        context.cache_clear()  # which in this process knows the copy of the machine before

    return go_on


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    if not MOTO.is_file():
        pytest.skip("no S3 server: run `make .venv-moto/.installed`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(MOTO), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as moto:
        assert moto.stderr is not None
        for line in moto.stderr:
            if "Running on" in line:
                break
        threading.Thread(target=moto.stderr.read, daemon=True).start()
        yield f"http://127.0.0.1:{port}"
        moto.terminate()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket of the S3 server, which the environment leads to."""
    settings = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{secrets.token_hex(4)}"
    with urlopen(Request(f"{server}/{bucket}", method="PUT")):
        return f"s3://{bucket}"


@pytest.fixture
def memory() -> Iterator[str]:
    """The address of an empty folder in the memory of this process, which fsspec reaches."""
    name = f"bucket-{secrets.token_hex(4)}"
    yield f"memory://{name}"
    files = fsspec.filesystem("memory")
    if files.exists(f"/{name}"):
        files.rm(f"/{name}", recursive=True)


def store_of(address: str) -> tuple[Store, str]:
    there = around(place(address))
    assert there is not None
    return there


def names(address: str) -> set[str]:
    """The objects below an address, without the tokens in their names."""
    store, base = store_of(address)
    return {
        re.sub(r"\.[0-9a-f]{12}(?=\.|$)", "", name[len(base) + 1 :]) for name in store.list(base)
    }


def object_of(address: str, piece: str) -> str:
    """The name of a piece's object within its bucket."""
    store, base = store_of(address)
    folder, _, file = piece.rpartition("/")
    stem = file.partition(".")[0]
    (name,) = (n for n in store.list(f"{base}/{folder}") if f"/{stem}." in n)
    return name


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


# Addresses.


@pytest.mark.parametrize("address", ["s3://bucket/runs/one", "gs://b/r", "memory://m/a/b"])
def test_a_copy_knows_its_address(address: str) -> None:
    copy = place(address)
    assert copy.is_relative_to(home())
    assert address_of(copy) == address
    assert with_addresses(f"{copy}/log is missing") == f"{address}/log is missing"


def test_options_stay_with_the_address_and_out_of_messages() -> None:
    address = "s3://bucket/run?endpoint_override=127.0.0.1:9000&scheme=http"
    assert address_of(place(address)) == address
    assert place(address) != place("s3://bucket/run")
    assert with_addresses(str(place(address))) == "s3://bucket/run"


def test_local_paths_stay_what_they_are(tmp_path: Path) -> None:
    assert place("runs/a") == Path("runs/a")
    assert place(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert around(tmp_path) is None


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nonsense://bucket/run", "no protocol 'nonsense' is known"),
        ("s3://bucket", "give an address as s3://BUCKET/FOLDER"),
        ("s3:///run", "give an address as s3://BUCKET/FOLDER"),
        ("s3://bucket/../run", "give an address as s3://BUCKET/FOLDER"),
        ("s3://key:secret@bucket/run", "give them by the environment"),
        (Path("s3://bucket/run"), "give it as text"),
    ],
)
def test_addresses_that_lead_nowhere(address: str | Path, said: str) -> None:
    with pytest.raises(AddressError, match=said) as raised:
        place(address)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("option", ["run", "report", "compare", "replay", "map"])
def test_an_unknown_protocol_makes_no_folder(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [option, "anything", "--out", "nonsense://bucket/run"])
    assert done.exit_code == 2
    assert done.output.startswith("abtest: nonsense://bucket/run: no protocol")
    assert done.output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "s3://bucket/run?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(FileError, match="s3://bucket/run cannot be reached"):
        here(address)


# Pieces.


def held_run(address: str) -> Workspace:
    """A run at an address, held by this machine as if a process of it went on."""
    workspace = Workspace(place(address))
    with workspace.held():
        workspace.claim({"name": "one"}, {}, resume=True)
    return workspace


def test_of_two_attempts_everybody_believes_the_same(memory: str, another_machine: Any) -> None:
    one = held_run(f"{memory}/run")
    holder = one.holder()
    first = one.work / "tape.txt"
    another_machine("second")
    two = Workspace(place(f"{memory}/run"))
    remote = RemoteRun.of(two.root)
    assert remote is not None
    remote.follow(holder)
    two.ledger.refresh()
    another_machine("cache")
    write_text(first, "by the first")
    another_machine("second")
    write_text(two.work / "tape.txt", "by the second")
    believed = set()
    for machine in ("cache", "second", "third"):
        another_machine(machine)
        copy = here(f"{memory}/run") / "work" / "tape.txt"
        believed.add(copy.read_text())
    assert len(believed) == 1
    store, base = store_of(f"{memory}/run")
    assert sum("/tape." in name for name in store.list(base)) == 2


def test_a_later_version_replaces_what_another_machine_has(
    memory: str, another_machine: Any
) -> None:
    one = held_run(f"{memory}/run")
    write_text(one.work / "day.txt", "1")
    another_machine()
    copy = here(f"{memory}/run") / "work" / "day.txt"
    assert copy.read_text() == "1"
    another_machine("cache")
    write_text(one.work / "day.txt", "2")
    another_machine()
    Ledger(place(f"{memory}/run")).refresh()
    assert present(copy)
    assert copy.read_text() == "2"


def test_who_was_taken_over_ends_at_its_next_piece(memory: str, another_machine: Any) -> None:
    one = held_run(f"{memory}/run")
    another_machine()
    held_run(f"{memory}/run")
    another_machine("cache")
    with pytest.raises(FileError, match=r"memory://.*/run is now held by process \d+ on"):
        write_text(one.work / "tape.txt", "too late")
    assert not (one.work / "tape.txt").exists()
    another_machine()
    assert not (here(f"{memory}/run") / "work" / "tape.txt").exists()


def test_pieces_of_a_holder_that_nobody_followed_are_not_read(
    memory: str, another_machine: Any
) -> None:
    """Of two processes that begin at the same moment, the pieces of one are the run's."""
    one = held_run(f"{memory}/run")
    write_text(one.work / "tape.txt", "of the first")
    store, base = store_of(f"{memory}/run")
    store.write_text(f"{base}/.lock", "process 2 on another\nits-token\n")
    with pytest.raises(FileError, match="is now held by process 2 on another"):
        write_text(one.work / "other.txt", "of the first")
    another_machine()
    two = Workspace(place(f"{memory}/run"))
    two.ledger.refresh()
    assert not two.ledger.pieces()


def test_a_folder_of_other_things_is_no_place_for_a_run(memory: str) -> None:
    store, base = store_of(f"{memory}/run")
    store.write_text(f"{base}/thesis.txt", "mine")
    workspace = Workspace(place(f"{memory}/run"))
    with pytest.raises(RunError, match="holds no run"), workspace.held():
        pass


def test_the_data_of_a_scenario_may_have_an_address(memory: str) -> None:
    store, base = store_of(f"{memory}/data")
    store.write_text(f"{base}/log.csv", "user,item,when\na,x,2024-05-01\na,y,2024-05-02\n")
    columns = {"user": "user", "item": "item", "time": "when"}
    for path in ("data", "data/log.csv"):
        data = Data.model_validate(
            {
                "source": "table",
                "path": f"{memory}/{path}",
                "columns": columns,
                "test_days": 1,
                "zone": "UTC",
            }
        )
        datasets.check(data, Path())
        assert [file.name for file in datasets.files(data, Path())] == ["log.csv"]
        source = datasets.read(data, Path())
        assert source.catalogue.n_items == 2
    for path, message in (
        (f"{memory}/nothing", "data.path: nothing at 'memory://"),
        ("s4://bucket/log", "data.path: s4://bucket/log: no protocol 's4' is known"),
    ):
        with pytest.raises(DataError, match=message):
            datasets.place(Data(source="log", path=path), Path())


def test_what_has_gone_from_the_store_is_not_read_from_its_copy(memory: str) -> None:
    store, base = store_of(f"{memory}/tables")
    store.write_text(f"{base}/users.csv", "user\n1\n")
    store.write_text(f"{base}/items.csv", "item\n1\n")
    assert (here(f"{memory}/tables") / "users.csv").read_text() == "user\n1\n"
    held_run(f"{memory}/run")
    store.delete(f"{base}/users.csv")
    store.delete(store_of(f"{memory}/run")[1])
    assert [file.name for file in here(f"{memory}/tables").iterdir()] == ["items.csv"]
    assert not present(here(f"{memory}/run") / "work" / "claim.json")
    done = CliRunner().invoke(main, ["report", f"{memory}/run"])
    assert done.exit_code == 2
    assert f"{memory}/run: has no .parquet parts" in done.output


# Runs.


def test_a_run_on_s3_is_that_on_a_disk(bucket: str, tmp_path: Path, another_machine: Any) -> None:
    """The same log, by the same processes; read from machines that have nothing of it."""
    scenario = tiny_scenario(engine={"executor": "processes", "shards": 2})
    local = simulate_scenario(tmp_path / "local", scenario)
    file = str(tmp_path / "local" / "scenario.yaml")
    run = f"{bucket}/runs/one"
    assert f"{run}/report.html" in invoke("run", file, "--out", run, "--quiet")
    assert log_digests(place(run)) == log_digests(local)
    assert not any(name.startswith("work/") for name in names(run))
    assert {"claim.json", "scenario.yaml", "report.json", ".lock"} <= names(run)
    assert not (tmp_path / "s3:").exists()

    another_machine("second")
    fetch_all(place(run))
    assert log_digests(place(run)) == log_digests(local)
    assert EventLog.open(f"{run}/log").n_rows == EventLog.open(local / "log").n_rows
    for command in (["report", run, "--quiet"], ["compare", run, str(local)]):
        invoke(*command)
    invoke("power", run)
    invoke(
        "replay",
        run,
        "--policy",
        "popularity",
        "--test-days",
        "1",
        "--out",
        f"{bucket}/replay",
        "--quiet",
    )
    assert "replay.json" in names(f"{bucket}/replay")

    another_machine("third")
    done = CliRunner().invoke(main, ["run", file, "--out", run, "--quiet"])
    assert done.exit_code == 2
    assert f"{run} already holds a run" in done.output
    invoke("run", file, "--out", run, "--quiet", "--resume")


def test_a_report_brings_what_it_reads(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_machine: Any
) -> None:
    """The sums of the parts and no rows; where rows are read, part by part."""
    simulate_scenario(tmp_path, tiny_scenario())
    run, brought = f"{bucket}/run", dict[str, int]()
    invoke("run", str(tmp_path / "scenario.yaml"), "--out", run, "--quiet")
    kept = (place(run) / "report.json").read_bytes()
    store, base = store_of(run)
    sizes = {name: found.size for name, found in store.list(base).items()}
    read = Store.read

    def counted(self: Store, name: str, path: Path) -> None:
        brought[name.removeprefix(f"{base}/")] = sizes[name]
        read(self, name, path)

    monkeypatch.setattr(Store, "read", counted)
    another_machine("second")
    invoke("report", run, "--quiet")
    assert (place(run) / "report.json").read_bytes() == kept
    folders = [name.partition("/")[0] for name in brought]
    rows, sums = (
        {name: size for name, size in sizes.items() if name.startswith(f"{base}/{folder}/")}
        for folder in ("log", "sums")
    )
    assert folders.count("sums") == len(sums) == 4
    assert "log" not in folders
    models = [name for name in brought if name.startswith("models/")]
    assert all("/catalogue." in name or "/notes." in name for name in models)
    assert sum(brought.values()) < sum(sizes.values()) - sum(rows.values())

    for source in (run, f"{run}/log", f"{run}/log/arm_name=a"):
        another_machine(f"for {source.replace('/', '-')}")
        brought.clear()
        monkeypatch.setattr(part_sums, "FORM", -1)  # so that sums are not read
        log = EventLog.open(source if source.endswith("a") else here(run) / "log")
        assert not any(name.startswith("log/") for name in brought)
        batches = log.batches(rows=1 << 20)
        next(batches)
        assert sum(name.startswith("log/") for name in brought) == 1
        assert len(list(batches)) == len(log.parts) - 1
        assert sum(name.startswith("log/") for name in brought) == len(log.parts)
    invoke("report", f"{run}/log", "--out", str(tmp_path / "report"), "--quiet")
    assert (tmp_path / "report" / "report.json").is_file()


def test_parts_are_summed_up_on_machines_that_have_nothing(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_machine: Any
) -> None:
    monkeypatch.setattr(units, "STREAMED", 0)
    run, asked = f"{memory}/run", 0
    simulate_scenario(tmp_path, tiny_scenario())
    scenario = Scenario.load(tmp_path / "scenario.yaml")
    log = EventLog.open(simulate(scenario, run, folder=tmp_path).root / "log")
    machines = iter(range(1_000))

    def elsewhere(function: Any, pieces: Any) -> list[Any]:
        nonlocal asked
        calls = [over_parts._Call(function, [piece], run, 1) for piece in pieces]
        texts = [pickle.dumps(call) for call in calls]
        found = []
        for text in texts:
            if asked < 3:
                another_machine(f"machine {next(machines)}")
                over_parts._know.cache_clear()
            found += pickle.loads(text)(silent)
            asked += 1
        another_machine("cache")
        return found

    here_alone = gather(log, runtime=None, progress=silent)
    assert encode(gather(log, runtime=None, progress=silent, parts=elsewhere)) == encode(here_alone)
    assert asked > 50


def test_arrow_reads_the_log_as_it_lies(bucket: str, tmp_path: Path) -> None:
    root = simulate_scenario(tmp_path, tiny_scenario())
    store, base = store_of(f"{bucket}/run")
    simulate(Scenario.load(tmp_path / "scenario.yaml"), f"{bucket}/run", folder=tmp_path)
    rows = ds.dataset(store._at(f"{base}/log"), filesystem=store.files).to_table()
    assert rows.num_rows == EventLog.open(root / "log").n_rows


def test_an_interrupted_run_goes_on_elsewhere(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_machine: Any
) -> None:
    whole = log_digests(run_stoppable(tmp_path, None))
    scenario = Scenario.load(tmp_path / "scenario.yaml")
    with monkeypatch.context() as patch:
        patch.setenv("STOP_HERE", "1")
        with pytest.raises(KeyboardInterrupt):
            simulate(scenario, f"{bucket}/run", folder=tmp_path)
    assert {"work/claim.json", "models/ranking.npz"} <= names(f"{bucket}/run")
    another_machine()
    done = CliRunner().invoke(main, ["report", f"{bucket}/run"])
    assert done.exit_code == 2
    assert f"{bucket}/run holds a run that is not finished" in done.output
    another_machine("third")
    store, base = store_of(f"{bucket}/run")
    store.write_text(f"{base}/log/arm_name=a/x.0123456789ab.parquet", "of an attempt that died")
    root = simulate(scenario, f"{bucket}/run", folder=tmp_path, resume=True).root
    assert log_digests(root) == whole
    assert f"{base}/log/arm_name=a/x.0123456789ab.parquet" not in store.list(base)


def test_a_run_by_fsspec(memory: str, tmp_path: Path, another_machine: Any) -> None:
    local = simulate_scenario(tmp_path, tiny_scenario())
    file = str(tmp_path / "scenario.yaml")
    invoke("run", file, "--out", f"{memory}/run", "--quiet")
    another_machine()
    invoke("report", f"{memory}/run/log", "--out", f"{memory}/report", "--quiet")
    fetch_all(place(f"{memory}/run"))
    assert log_digests(place(f"{memory}/run")) == log_digests(local)
    assert names(f"{memory}/report") == {"report.html", "report.json", "report.md"}


def test_damage_on_the_store_is_named(memory: str, tmp_path: Path, another_machine: Any) -> None:
    run = f"{memory}/run"
    root = simulate_scenario(tmp_path, tiny_scenario())
    scenario = Scenario.load(tmp_path / "scenario.yaml")
    simulate(scenario, run, folder=tmp_path)
    store, _ = store_of(run)
    part = object_of(run, f"log/arm_name=a/{FIRST}")

    content = bytearray((root / "log/arm_name=a" / FIRST).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(bytes(content))
    store.write(tmp_path / "flipped", part)
    another_machine("second")
    with pytest.raises(
        FileError,
        match=r"log/arm_name=a/first_user=0+/part\..*\.parquet has changed since it was written",
    ):
        fetch_all(place(run))
    with pytest.raises(FileError, match=r"has changed since it was written"):
        EventLog.open(f"{run}/log").validate()

    store.write_text(part, "cut")
    another_machine("third")
    with pytest.raises(
        FileError, match=r"log/arm_name=a/first_user=0+/part\.parquet has 3 bytes and should have"
    ):
        simulate(scenario, run, folder=tmp_path, resume=True)

    store.delete(part)
    another_machine("fourth")
    with pytest.raises(FileError, match=r"log/arm_name=a/first_user=0+/part\.parquet is missing"):
        simulate(scenario, run, folder=tmp_path, resume=True)
