"""Requests answered on another device: exact search to the bytes of the CPU's, networks in double
precision. torch's CPU stands for the device here; `tests/test_cuda.py` asks a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from policies.base import Fitting, Histories, Slates
from policies.examples import chain
from policies.products import matmul
from policies.registry import make
from policies.resident import Resident
from policies.retrieval import Exact
from policies.validation import LastClicks
from policies.vectors import NetworkPolicy, elsewhere
from simulator.run.context import SHARE_OF_A_GPU, share_of_gpu
from simulator.run.pipeline import run
from simulator.scenario.model import Scenario, ScenarioError
from simulator.scenario.parts import Arm
from tests.worlds import tiny_scenario

HERE = torch.device("cpu")
NETWORKS = (
    *("bpr", "stamp", "gru4rec", "narm", "sasrec", "s3rec", "bert4rec", "comirec"),
    *("pretrain", "finetune", "recgpt", "recgpt1"),
)


@pytest.mark.parametrize("n_items", [3, 50, 3_000])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_it_finds_and_scores_as_exact_search(n_items: int, k: int) -> None:
    draw = np.random.default_rng([n_items, k])
    vectors = draw.standard_normal((n_items + 1, 20)).astype(np.float32)
    queries = draw.standard_normal((70, 20)).astype(np.float32)
    queries[3] = 0  # all items are equal
    seen = draw.integers(0, n_items + 1, (70, 9))
    for there, here in zip(
        Resident(vectors, HERE).search(queries, k, seen),
        Exact(vectors).search(queries, k, seen),
        strict=True,
    ):
        assert there.tobytes() == here.tobytes()


def test_where_items_are_too_close_to_be_told_apart_the_cpu_looks_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((401, 16)).astype(np.float32)
    vectors[1:300] = vectors[1]
    queries = np.stack([vectors[1], -vectors[1]])
    nothing = np.zeros((2, 1), dtype=np.int64)
    resident, looked = Resident(vectors, HERE), []

    def scores(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        looked.append(len(rows))
        return matmul(rows, resident._columns)

    monkeypatch.setattr(resident, "scores", scores)
    there, here = resident.search(queries, 10, nothing), Exact(vectors).search(queries, 10, nothing)
    assert looked == [1]  # the first query, whose best items are all the same
    assert all(a.tobytes() == b.tobytes() for a, b in zip(there, here, strict=True))


def test_many_items_are_searched_some_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((101, 8)).astype(np.float32)
    queries, seen = vectors[:30], draw.integers(0, 101, (30, 4))
    whole = Resident(vectors, HERE).search(queries, 5, seen)
    monkeypatch.setattr("policies.resident.CELLS", 707)
    parts = Resident(vectors, HERE).search(queries, 5, seen)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(whole, parts, strict=True))


def test_what_is_no_number_is_refused_as_by_exact_search() -> None:
    vectors = np.ones((6, 4), dtype=np.float32)
    vectors[2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        Resident(vectors, HERE).search(vectors[:1], 2, np.zeros((1, 0), dtype=np.int64))


def requests() -> Histories:
    held_out = LastClicks(chain().sequences, 150, 0)
    return held_out.requests(slice(0, len(held_out)), 40)


def answers(policy: Any, asked: Histories, size: int) -> Slates:
    parts = [
        policy.recall(asked.rows(slice(start, start + size)), 10, 0)
        for start in range(0, len(asked), size)
    ]
    return Slates(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("items", "scores"))
    )


@pytest.mark.parametrize(
    ("name", "further"),
    [
        *((name, {}) for name in NETWORKS),
        ("pretrain", {"quotas": (4, 3, 3)}),
        ("recgpt", {"quotas": (4, 3, 3), "second": "marginal"}),
        ("recgpt", {"second": "marginal"}),
    ],
)
def test_networks_answer_there_as_here_whatever_the_batch(
    name: str, further: dict[str, Any]
) -> None:
    stages = {"training"} if hasattr(make(name), "training") else {"pretraining", "tuning"}
    few = {stage: {"epochs": 2, "patience": 0} for stage in stages if hasattr(make(name), stage)}
    example = chain()
    policy = make(name, {**few, **further}).fit(example.sequences, example.catalogue, Fitting(3))
    assert isinstance(policy, NetworkPolicy)
    asked = requests()
    here = answers(policy, asked, 64)
    policy.answering_ = elsewhere(policy.network_, "cpu")
    policy.index_ = Resident(policy.vectors_, HERE)
    there = answers(policy, asked, 64)
    assert np.abs(there.scores - here.scores).max() < 1e-5
    assert (there.items == here.items).mean() > 0.99
    for size in (1, len(asked)):
        again = answers(policy, asked, size)
        assert again.items.tobytes() == there.items.tobytes()
        assert again.scores.tobytes() == there.scores.tobytes()
    again = policy.with_params().restore(policy.state())
    assert isinstance(again, NetworkPolicy)
    assert again.network_.items.weight.dtype == torch.float32  # it keeps what it learned as it was


def test_blocks_of_a_gpu_are_filled_with_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"epochs": 1, "patience": 0}
    example, asked = chain(), requests()
    many = asked.rows(np.resize(np.arange(len(asked)), 700))
    policy = make("pretrain", {"pretraining": few, "quotas": (5, 5)})
    policy.fit(example.sequences, example.catalogue, Fitting(3))
    assert isinstance(policy, NetworkPolicy)
    policy.answering_ = elsewhere(policy.network_, "cpu")
    here, widths, begin = policy.recall(many, 10, 0), [], policy.answering_.begin

    def counted(tokens: torch.Tensor, *others: Any) -> Any:
        widths.append(tokens.shape)
        return begin(tokens, *others)

    monkeypatch.setattr(policy.answering_, "begin", counted)
    monkeypatch.setattr("recgpt.walk.rows_on", lambda device: 1024)
    there = policy.recall(many, 10, 0)
    assert {rows for rows, _ in widths} == {1024}
    assert len(widths) == len(set(widths))  # one block of each width
    assert there.items.tobytes() == here.items.tobytes()
    assert np.abs(there.scores - here.scores).max() < 1e-6


def test_a_policy_that_answers_on_a_gpu_takes_a_share_of_one() -> None:
    on_gpu = Arm(policy="recgpt", params={"device": "cuda"})
    within = Arm(policy="explore", params={"policy": "sasrec", "policy_params": {"device": "cuda"}})
    assert on_gpu.on_gpu == [("device",)]
    assert within.on_gpu == [("policy_params", "device")]
    assert share_of_gpu(Arm(policy="recgpt", params={"device": "cpu"})) == 0
    assert share_of_gpu(Arm(policy="popularity"), within) == SHARE_OF_A_GPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a CUDA device here")
def test_a_gpu_that_is_not_there_is_missed_before_anything_is_written(tmp_path: Path) -> None:
    content = tiny_scenario(
        {
            "counts": {"policy": "popularity"},
            "net": {"policy": "sasrec", "params": {"device": "cuda"}},
        },
        engine={"device": "cuda"},
        design={"kind": "paired", "control": "counts"},
    )
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ScenarioError) as refused:
        run(Scenario.load(tmp_path / "a.yaml"), tmp_path / "out", folder=tmp_path)
    assert "engine.device: it is 'cuda'" in str(refused.value)
    assert "arms.net.params.device: it is 'cuda'" in str(refused.value)
    assert not (tmp_path / "out").exists()
