"""`abtest reproduce second`: what a second step in expectation owes to the user's own likely next
clicks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from policies.base import FloatArray, Histories, IntArray, silent
from policies.continuation import Continued
from simulator.cli import main
from simulator.reproduce import second
from simulator.reproduce.experiment import (
    Dataset,
    Experiment,
    ExperimentPlan,
    ReproduceError,
    find,
)
from simulator.reproduce.systems import FAMILIES, OWNER, PROTOCOLS, Family
from tests.worlds import write_sequences

SOFTMAX = PROTOCOLS["softmax"]
N_ITEMS = 30
SMALL = Family(
    "small",
    "pretrain",
    {
        "shape": {"width": 8, "feedforward": 8, "length": 40},
        "pretraining": {"epochs": 2, "patience": 1, "batch": 32},
        "pretraining_loss": {"kind": "softmax"},
        "counts": {},
    },
    {
        "small": {},
        "small standard": {"second": "marginal", "continuation": {"beam": 5, "share": 0.5}},
        "small wide": {"second": "marginal", "continuation": {"beam": 20, "share": 0.5}},
    },
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("data")
    write_sequences(folder, n_items=N_ITEMS)
    return find(folder, ())[0]


def test_the_rows_are_what_the_policies_recall(dataset: Dataset, tmp_path: Path) -> None:
    """The log of a run, whose arms recall by the very same fit, against what is computed from it
    outside of any run.
    """
    found = second.results(ExperimentPlan((dataset,), (SMALL,), SOFTMAX, 2, tmp_path), silent, 1)
    for seed in range(2):
        logged = Experiment(dataset, SMALL, SOFTMAX, seed).places(tmp_path, silent)
        for arm, variant in (
            ("small", second.ONE_STEP),
            ("small standard", second.STANDARD),
            ("small wide", second.Variant("own", 20, 0.5)),
        ):
            rows = found.places["beauty", variant.name]
            assert rows[seed].tolist() == logged[arm].tolist(), arm
    random = found.places["beauty", second.Variant("random", 5, 0.5).name]
    assert random[0].tolist() != found.places["beauty", second.STANDARD.name][0].tolist()
    again = second.results(ExperimentPlan((dataset,), (SMALL,), SOFTMAX, 2, tmp_path), silent, 2)
    for name, rows in again.places.items():
        assert all(np.array_equal(a, b) for a, b in zip(rows, found.places[name], strict=True))


@dataclass
class Recorded:
    """Says nothing of what comes next, and keeps what it was asked."""

    clicked: list[IntArray | None] = field(default_factory=list)

    def continued(
        self, histories: Histories, candidates: int, beam: int, clicked: IntArray | None = None
    ) -> Continued:
        self.clicked.append(clicked)
        items = (histories.user[:, None] * 40 + np.arange(1, candidates + 1)) % 7919 + 1
        first: FloatArray = np.full(items.shape, 1 / candidates, dtype=np.float32)
        return Continued(items, first, np.repeat(first[:, None], beam, axis=1))


def test_others_items_are_somebody_elses_best_and_random_ones_anything() -> None:
    n = 2500
    user, none = np.arange(n), np.zeros((n, 4), dtype=np.int64)
    policy = Recorded()
    histories = Histories(user, np.zeros_like(user), none, none > 0, none)
    second.places(policy, histories, np.ones(n, dtype=np.int64), 7919, seed=3)
    own, others, random = np.split(np.arange(len(policy.clicked)), 3)
    assert [policy.clicked[i] for i in own] == [None] * 3
    best = (user[:, None] * 40 + np.arange(1, 6)) % 7919 + 1
    borrowed = np.concatenate([policy.clicked[i] for i in others])
    owner = {row[0]: i for i, row in enumerate(best.tolist())}
    lender = np.array([owner[row[0]] for row in borrowed.tolist()])
    assert np.array_equal(best[lender], borrowed)
    assert sorted(lender.tolist()) == user.tolist()  # each once, and nobody one's own
    assert (lender != user).all()
    drawn = np.concatenate([policy.clicked[i] for i in random])
    assert drawn.shape == (n, 5)
    assert drawn.min() >= 1
    assert drawn.max() <= 7919
    assert np.abs(drawn.mean() / 3960 - 1) < 0.02  # ten standard errors


def test_the_command_compares_with_one_step_and_names_what_cannot_continue(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, SMALL.name, SMALL)
    for system in SMALL.systems():
        monkeypatch.setitem(OWNER, system, SMALL)
    folders = ["--data", str(dataset.path.parent), "--out", str(tmp_path), "--quiet"]
    asked = ["reproduce", "second", *folders, "--seeds", "2", "--workers", "1"]
    done = CliRunner().invoke(main, [*asked, "--models", "small"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "second-paper.md").read_text()
    for variant in second.VARIANTS:
        assert variant.name in text
    assert "own, W = 5, c = 0.5 &gt; random, W = 5, c = 0.5" in text
    plan = ExperimentPlan((dataset,), (FAMILIES["PopRec"],), SOFTMAX, 1, tmp_path)
    with pytest.raises(ReproduceError, match="PopRec cannot say it"):
        second.results(plan, silent, 1)


def test_further_slates_are_refused_where_there_is_one_length(dataset: Dataset) -> None:
    asked = ["reproduce", "second", "--data", str(dataset.path.parent), "--recall", "60"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert "second has one length of slates: leave it out" in " ".join(done.output.split())
