"""Several processes train one network together: the bytes of one process, and what is said of a
rank that dies.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from policies import ranks as ranks_module
from policies.base import Catalogue, Fitting, Sequences
from policies.calls import CallError
from policies.losses import Loss
from policies.operators import sparse_rows
from policies.ranks import ALONE, RankGroup, Summand
from policies.registry import make
from policies.sasrec import SASRec
from policies.train import Training
from simulator.cli import main
from simulator.run.contract import WorkerError
from simulator.run.together import together
from tests.rank_tasks import Fails
from tests.worlds import log_digests, silent, simulate_scenario, tiny_scenario, write_scenario

PARTS = 4
LAST = {"epochs": 1, "batch": 16, "patience": 0, "microbatches": PARTS, "clip": 1.0}
BEST = {"epochs": 2, "batch": 16, "patience": 2, "sample": 20, "average": 2, "microbatches": PARTS}
POLICIES: dict[str, dict[str, Any]] = {
    "sasrec": {"width": 8, "training": BEST},
    "bpr": {"width": 8, "training": LAST},
    "gru4rec": {"width": 8, "training": LAST},
    "bert4rec": {"width": 8, "training": LAST},
    "s3rec": {"width": 8, "training": LAST, "pretraining": LAST},
    "comirec": {"width": 8, "user_aware": True, "training": BEST},
    "recgpt": {
        "shape": {"width": 8, "feedforward": 8, "length": 8},
        "pretraining": {**BEST, "microbatches": 1},
        "tuning": BEST,
    },
    "policies.pooled:PooledNetwork": {
        "policy": "sasrec",
        "policy_params": {"width": 8, "training": LAST},
    },
}


def log() -> tuple[Sequences, Catalogue]:
    chance = np.random.default_rng(0)
    n = chance.integers(0, 9, 60)
    offsets = np.concatenate(([0], np.cumsum(n)))
    items, clicked = chance.integers(1, 41, offsets[-1]), chance.random(offsets[-1]) < 0.8
    return Sequences(np.arange(60), offsets, items, clicked, np.arange(offsets[-1])), Catalogue(
        60, 40
    )


@dataclass(frozen=True)
class FitAll:
    """Fits one policy after another; the states of all."""

    def of_rank(self, progress: Any, ranks: RankGroup) -> dict[str, Any]:
        torch.set_num_threads(1)
        states: dict[str, Any] = {}
        with ranks.connected("cpu"):
            for name, params in POLICIES.items():
                policy = make(name, params)
                policy.fit(*log(), Fitting(3, progress=progress, ranks=ranks))
                states |= {f"{name}/{key}": value for key, value in policy.state().items()}
        return states


def test_two_processes_end_with_the_bytes_of_one():
    stages: list[str] = []
    alone = FitAll().of_rank(silent, ALONE)
    for states in together(FitAll(), 2, lambda stage, *_: stages.append(stage)):
        assert states.keys() == alone.keys()
        chosen_by_the_first = {"policies.pooled:PooledNetwork/mixture/weight"}
        for name in alone.keys() - chosen_by_the_first:
            assert np.array_equal(states[name], alone[name]), name
    assert stages.count("tune") == BEST["epochs"], "the first rank alone tells of progress"


def test_every_policy_that_is_trained_in_batches_can_be_shared():
    for name, params in POLICIES.items():
        assert make(name, params).most_processes == PARTS, name
        assert make(name, {}).most_processes == 1, name
    assert make("itemknn", {}).most_processes == 1


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_ranks_share_the_micro_batches_and_end_with_the_bits_of_one_tree(parts, count, monkeypatch):
    """Threads stand for the ranks; their gradients are whole, sparse, both, and missing."""
    shapes = [(3, 2), (50, 4), (5,), (), (4, 2)]
    parameters = [torch.zeros(shape) for shape in shapes]

    def of_part(part: int) -> Summand:
        chance = torch.Generator().manual_seed(part)
        whole = [torch.randn(shape, generator=chance) for shape in shapes]
        place = torch.randint(0, 50, (6,), generator=chance).unique()
        rows = sparse_rows(place, whole[1][place], (50, 4), None)
        third = None if part % 3 == 1 else whole[2]
        mixed = sparse_rows(torch.arange(4), whole[4], (4, 2), None) if part % 2 else whole[4]
        return Summand(float(part) / 7, [whole[0], rows, third, whole[3], mixed])

    def tree(part: range) -> Summand:
        if len(part) == 1:
            return of_part(part[0])
        half = len(part) // 2
        return tree(part[:half]).plus(tree(part[half:]))

    def bits(one: Summand) -> list[Any]:
        gradients = [None if g is None else g.to_dense() for g in one.gradients]
        numbers = [None if g is None else g.numpy().tobytes() for g in gradients]
        return [one.loss, *numbers, *(g is not None and g.is_sparse for g in one.gradients)]

    here = threading.local()
    mail: Any = {pair: queue.Queue() for pair in np.ndindex(count, count)}

    def exchanged(mine: Tensor, n: int, peer: int) -> Tensor:
        mail[here.rank, peer].put(mine.clone())
        theirs: Tensor = mail[peer, here.rank].get(timeout=60)
        assert len(theirs) == n
        return theirs

    monkeypatch.setattr(ranks_module, "_exchanged", exchanged)
    ends: dict[int, Any] = {}

    def work(rank: int) -> None:
        here.rank, ranks = rank, RankGroup(rank, count)
        ends[rank] = bits(ranks.total(tree(ranks.share(parts)), parts, parameters))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared = {part for rank in range(count) for part in RankGroup(rank, count).share(parts)}
    assert shared == set(range(parts))
    assert [ends[rank] for rank in range(count)] == [bits(tree(range(parts)))] * count


def test_a_batch_in_parts_is_the_batch_but_for_rounding():
    states = []
    for parts in (1, PARTS):
        training = Training(epochs=1, batch=16, patience=0, microbatches=parts)
        policy = SASRec(width=8, dropout=0.0, loss=Loss("softmax"), training=training)
        states.append(policy.fit(*log(), Fitting(3)).state())
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=2e-3, atol=2e-5, err_msg=name)
    assert any(not np.array_equal(states[1][name], value) for name, value in states[0].items())


@pytest.mark.parametrize("parts", [0, 3, 6])
def test_micro_batches_are_a_power_of_two(parts):
    with pytest.raises(ValueError, match=rf"'microbatches'.*power of two.*got {parts}"):
        Training(microbatches=parts)


@pytest.mark.parametrize(
    ("way", "kind", "message"),
    [
        ("raise", CallError, r"'mine': fit raised ValueError: of another shape .*\(rank 1 of 2\)"),
        ("kill", WorkerError, r"SIGKILL while it was fitting policy 'mine', rank 1 of 2.*--resume"),
        ("exit", WorkerError, r"'mine': fit ended its process, rank 1 of 2 \(exit code 7\)"),
    ],
)
def test_a_rank_that_goes_wrong_is_named_and_ends_all(way, kind, message):
    with pytest.raises(kind, match=message):
        together(Fails(way), 2, silent)


ORPHAN = """
import sys
from simulator.run.together import together
from tests.rank_tasks import Sleeps
if __name__ == "__main__":
    together(Sleeps(sys.argv[1]), 2, print)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_ranks_do_not_outlive_who_started_them(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    parent = subprocess.Popen([sys.executable, tmp_path / "orphan.py", tmp_path], env=env)
    while parent.poll() is None and len(list(tmp_path.glob("*.pid"))) < 2:
        time.sleep(0.05)
    ids = [int(file.read_text()) for file in tmp_path.glob("*.pid")]
    assert len(ids) == 2
    parent.kill()
    parent.wait()

    def is_there(process: int) -> bool:
        stat = Path(f"/proc/{process}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

    for _ in range(600):
        if not any(map(is_there, ids)):
            return
        time.sleep(0.1)
    pytest.fail("a rank is still alive")


def test_a_run_by_two_processes_a_fit_has_the_log_of_one(tmp_path):
    training = {"epochs": 1, "batch": 32, "patience": 0, "microbatches": 2}
    arms = {
        "a": {"policy": "popularity"},
        "z": {"policy": "sasrec", "params": {"width": 8, "training": training}},
    }
    logs = []
    for processes in (1, 2):
        engine = {"executor": "serial", "fit_processes": processes}
        content = tiny_scenario(arms, engine=engine)
        logs.append(log_digests(simulate_scenario(tmp_path / str(processes), content)))
    assert logs[0] == logs[1]


def test_processes_that_no_policy_can_share_are_refused(tmp_path):
    content = tiny_scenario(engine={"executor": "serial", "fit_processes": 2})
    path = write_scenario(tmp_path, content)
    done = CliRunner().invoke(main, ["run", str(path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "engine.fit_processes" in done.output
    assert "microbatches" in done.output
    assert not (tmp_path / "out").exists()
