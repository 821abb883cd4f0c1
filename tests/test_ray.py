"""Runs on Ray: two nodes on this machine, each with folders of its own, whose workers are killed.

Ray lies in an environment of its own (`make .venv-ray/.installed`) or is installed; otherwise these
tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.log.ledger import Ledger
from simulator.run.cluster import offered
from simulator.run.contract import Needs
from tests.worlds import log_files, tiny_scenario

ROOT = Path(__file__).resolve().parents[1]
BESIDE = [str(path) for path in ROOT.glob(".venv-ray/lib/python3*/site-packages")]
HAS_RAY = bool(BESIDE) or importlib.util.find_spec("ray") is not None
pytestmark = pytest.mark.skipif(
    not HAS_RAY, reason="no Ray: run `make .venv-ray/.installed`, or install abtest[ray]"
)

PATIENCE = 420
"""Seconds that anything here may take on a machine that has much else to do."""

PLUG_IN = """\
from dataclasses import dataclass
from policies.sasrec import SASRec

@dataclass
class Mine(SASRec):
    '''SASRec under another name.'''
"""

RUN = """\
import json, sys
from pathlib import Path
from simulator.run import cluster
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario

cluster.STRANDED = 1.0  # a fit may have asked for the GPU of the node that is lost

def tell(stage, done, total, figures):
    print(json.dumps([stage, done, total]), flush=True)

file, out, executor = sys.argv[1:]
engine = {"engine.executor": executor, "engine.fit_processes": 2 if executor == "ray" else 1}
scenario = Scenario.load(Path(file), engine)
simulate(scenario, Path(out), folder=Path(file).parent, progress=tell)
"""

COLLECT = """\
from simulator.run.executors import WorkerError, executor
from tests.cluster_tasks import End, See, Square

def told(*news):
    print("news", *news[:3])

with executor("ray", told, 2) as made:
    tasks = [Square(2), Square(13), See(1, 1 << 60), End(True), Square(3)]
    found = {}
    made.run(tasks, found.__setitem__)
    for i in sorted(found):
        print(i, found[i])
    try:
        made.run([End(False)], found.__setitem__)
    except WorkerError as error:
        print("error", error)
"""


SUMS = """\
import sys
from pathlib import Path
from policies.base import silent
from simulator.cli.audit import content
from simulator.log import workspace
from simulator.log.eventlog import EventLog
from simulator.log.files import json_text
from simulator.report.gather import gather
from simulator.report.stored import encode
from simulator.run.over_parts import parts_map
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats import audit, keyed_draws, units
from simulator.stats.choices import Choices

# As of a big run: the sums of users stay in the files of parts, draws are keyed by user.
workspace.PART_USERS, units.STREAMED, keyed_draws.KEYED, audit.KEYED = 7, 0, 0, 0

file, out = map(Path, sys.argv[1:])
simulate(Scenario.load(file, {"engine.executor": "serial"}), out, folder=file.parent)
log = EventLog.open(out / "log")
for kind in ("serial", "ray"):
    with parts_map(kind, 2, out) as parts:
        found = gather(
            log, runtime=None, progress=silent, choices=Choices(resamples=100), parts=parts
        )
        days = units.read(log, streamed=parts)
        audited = audit.audit(
            days, "mine", repetitions=100, sizes=(20,), most=20, of_all=100
        )
    (out / f"{kind}.json").write_text(json_text([encode(found), content(audited)]))
    print(kind, type(days).__name__, len(audited.rows))
"""


@dataclass
class Nodes:
    """Two nodes of a cluster on this machine.

    Attributes:
        home: folder with `shared`, seen by both; `scenario` and `private`, which the second node
            has its own, empty ones of where that is allowed.
        mark: in the environment of every process of the cluster.
        environment: of whoever uses the cluster.
        apart: whether the second node has folders of its own.
        raylets: process of each node, the head first.
    """

    home: Path
    mark: str
    environment: dict[str, str]
    apart: bool
    raylets: list[int] = field(default_factory=list)

    def start(self, arguments: list[str], resources: list[str], *, apart: bool) -> None:
        """Start a node in a working directory of its own."""
        before = set(self.processes("raylet/raylet"))
        place = self.home / f"node-{len(self.raylets)}"
        place.mkdir()
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *resources]
        start += ["--object-store-memory", "80000000", "--disable-usage-stats"]
        start += ["--min-worker-port", "0", "--max-worker-port", "0"]
        start += ["--dashboard-agent-listen-port", "0"]
        if apart:
            hide = " && ".join(
                f"mount -t tmpfs none {self.home / name}" for name in ("scenario", "private")
            )
            start = ["unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh", *start]
        done = subprocess.run(
            start,
            cwd=place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (raylet,) = set(self.processes("raylet/raylet")) - before
        self.raylets.append(raylet)

    def processes(self, name: str = "") -> list[int]:
        """Processes of the cluster whose command has `name` in it."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                ours = self.mark.encode() in (process / "environ").read_bytes()
                if ours and name.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:  # it has ended meanwhile
                continue
        return sorted(found)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python where the scenario lies."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.home / "scenario",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def stop(self) -> None:
        """End every process of the cluster."""
        deadline = time.monotonic() + 30
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)


def can_hide_folders() -> bool:
    """Whether a process may have mounts of its own here."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    # Ray's sockets lie below it, and their names may have 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="ab-"))
    for name in ("shared", "scenario", "private"):
        (home / name).mkdir()
    mark = f"ABTEST_TEST_CLUSTER={secrets.token_hex(8)}"
    own = [path for path in sys.path if path]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PYTHONPATH": os.pathsep.join([str(ROOT), *own, *BESIDE]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_raylet_start_wait_time_s": str(PATIENCE),
        "PYTHONWARNINGS": "ignore",
        mark.partition("=")[0]: mark.partition("=")[2],
    }
    made = Nodes(home, mark, environment, can_hide_folders())
    try:
        temporary = home / "r"
        head = ["--head", "--port", "0", "--temp-dir", str(temporary)]
        head += ["--include-dashboard", "false"]
        made.start(head, ["--num-cpus", "1"], apart=False)
        address = (temporary / "ray_current_cluster").read_text().strip()
        environment["RAY_ADDRESS"] = address
        made.start(["--address", address], ["--num-cpus", "1", "--num-gpus", "1"], apart=made.apart)
        yield made
    finally:
        made.stop()
        shutil.rmtree(home, ignore_errors=True)


def write_scenario(nodes: Nodes) -> Path:
    """A scenario with a plug-in, in the folder that the second node does not see."""
    folder = nodes.home / "scenario"
    (folder / "mine.py").write_text(PLUG_IN)
    training = {"epochs": 1, "batch": 32, "patience": 0, "microbatches": 2}
    mine = {"policy": "mine.py:Mine", "params": {"width": 8, "training": training}}
    content = tiny_scenario(
        {"mine": mine, "itemknn": {"policy": "itemknn"}},
        engine={"shards": 4},
        design={"kind": "paired", "control": "mine"},
    )
    (folder / "a.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "a.yaml"


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        (Needs(6), Needs(6)),
        (Needs(100, processors=16), Needs(9, processors=8)),
        (Needs(20, gpus=2, processors=2), Needs(12, gpus=1, processors=2)),
        (Needs(5, gpus=0.25), Needs(5, gpus=0.25)),
    ],
)
def test_a_task_asks_for_no_more_than_one_of_the_nodes_has(needs, expected):
    nodes = [{"CPU": 8.0, "memory": 9.5}, {"CPU": 2.0, "memory": 12.0, "GPU": 1.0}]
    assert offered(needs, nodes) == expected
    assert offered(needs, []) == Needs(processors=needs.processors)


def test_tasks_get_what_they_need_and_those_whose_worker_dies_are_tried_again(nodes):
    done = nodes.python("-c", COLLECT)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert {"0 4", "1 thirteen", "2 sees '0'", "4 9"} <= set(lines)
    assert {"news square 2 1 1", "news square 13 1 1"} <= set(lines)
    assert [line for line in lines if line.startswith("news try again: End(inside=True)")] == [
        f"news try again: End(inside=True) {i} 4" for i in (1, 2, 3, 4)
    ]
    (inside,) = (line for line in lines if line.startswith("3 "))
    assert "End(inside=True): tried 4 times" in inside
    assert (
        "its process ended without an answer while it was in policy 'mine.py:Mine': fit" in inside
    )
    (outside,) = (line for line in lines if line.startswith("error "))
    assert "End(inside=False): tried 4 times" in outside
    assert f"the last time on node {os.uname().nodename} (" in outside
    assert "--resume continues the run" in outside


def test_a_node_that_does_not_see_the_folder_of_the_run_is_named(nodes):
    if not nodes.apart:
        pytest.skip("no mounts of a process's own are allowed here")
    out = nodes.home / "private" / "out"
    run = ["-m", "simulator", "run", str(write_scenario(nodes)), "--engine.executor", "ray"]
    done = nodes.python(*run, "--out", str(out))
    assert done.returncode == 2, done.stderr
    assert f"the run's folder {out} is not seen there: all nodes must see it" in done.stderr
    assert f"abtest: node {os.uname().nodename} (" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_and_an_audit_of_parts_have_the_bytes_of_serial_ones(nodes):
    """Each part says its sums on the node that Ray puts it on, of a run that both nodes see."""
    out = nodes.home / "shared" / "sums"
    done = nodes.python("-c", SUMS, str(write_scenario(nodes)), str(out))
    assert done.returncode == 0, done.stderr
    serial, ray = (line.split() for line in done.stdout.splitlines())
    assert (serial[0], ray[0]) == ("serial", "ray")
    assert serial[1:] == ray[1:]
    assert serial[1] == "StreamedDays"
    assert int(serial[2]) > 0
    assert len(list((out / "sums").rglob("*.npz"))) > 4
    assert (out / "serial.json").read_bytes() == (out / "ray.json").read_bytes()


def test_kills_of_workers_and_of_a_node_change_no_byte(nodes):
    """Tasks are tried again on what is left, and the run ends with the bytes of a serial one, in
    which one process fits the policy that two fit here, on nodes of one processor. The fit asks
    for a GPU, and the node that has one is lost.
    """
    file, chance = write_scenario(nodes), random.Random(1)
    serial, out = nodes.home / "shared" / "serial", nodes.home / "shared" / "ray"
    assert nodes.python("-c", RUN, str(file), str(serial), "serial").returncode == 0
    killed: list[str] = []
    over = threading.Event()

    def kill() -> None:
        for victim in ("worker", "node", "worker"):
            while not over.wait(chance.uniform(0.05, 0.3)):
                # Both nodes compute: the process of a task is a child of its node's.
                tasks = nodes.processes("ray::_attempt")
                theirs = [pid for pid in tasks if parent_of(pid) == nodes.raylets[1]]
                chosen = tasks if victim == "worker" else theirs
                if chosen and (out / "work").is_dir():
                    pid = chance.choice(chosen)
                    os.kill(pid if victim == "worker" else nodes.raylets[1], signal.SIGKILL)
                    killed.append(victim)
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        done = nodes.python("-c", RUN, str(file), str(out), "ray")
    finally:
        over.set()
        killer.join()
    assert done.returncode == 0, done.stderr
    assert killed == ["worker", "node", "worker"]
    stages: list[list[Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert any(stage.startswith("try again: ") for stage, _, _ in stages)
    days = [(number, total) for stage, number, total in stages if stage == "simulate mine 0-14"]
    assert days[-1] == (2, 2)
    assert log_files(serial) == log_files(out)
    Ledger(out).check()
    assert not list(out.rglob("*.part"))
    assert done.stderr == ""


def parent_of(process: int) -> int:
    """The process that started another one; 0 where it has ended."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])
