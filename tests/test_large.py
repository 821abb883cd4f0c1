"""Tables of many rows: gradients by rows, lazy Adam, losses that are not over all items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from policies import operators
from policies.adam import Adam
from policies.base import Catalogue, Fitting, Histories, Sequences
from policies.losses import Loss, Objective
from policies.operators import LARGE, lookup
from policies.registry import make
from policies.train import Training
from recgpt import rows
from recgpt.model import GPT, Shape
from recgpt.policy import PreTrain
from recgpt.rows import hidden_at
from simulator.cli import main
from tests.worlds import simulate_scenario, tiny_scenario, write_scenario

N, D = LARGE, 4


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def of_rows(places: Tensor, grad: Tensor, n: int) -> Tensor:
    """A sparse gradient, as autograd gives it."""
    return torch.sparse_coo_tensor(places[None], grad, (n, D), check_invariants=True)


def test_lazy_adam_is_adam_where_every_batch_has_every_row() -> None:
    lazy, dense = (nn.Parameter(drawn(7, D)) for _ in range(2))
    optimisers = [Adam([one], rate=0.01, decay=0.1) for one in (lazy, dense)]
    for step in range(20):
        grad = drawn(7, D, seed=step)
        order = torch.randperm(7, generator=torch.Generator().manual_seed(step))
        lazy.grad, dense.grad = of_rows(order, grad[order], 7), grad
        for optimiser in optimisers:
            optimiser.clip(2.0)
            optimiser.step()
    assert torch.equal(lazy, dense)


def test_lazy_adam_is_torchs_sparse_adam_and_leaves_all_other_rows() -> None:
    mine, theirs = (nn.Parameter(drawn(50, D)) for _ in range(2))
    start, optimiser = mine.detach().clone(), Adam([mine], rate=0.01)
    reference = torch.optim.SparseAdam([theirs], lr=0.01)
    touched = torch.zeros(50, dtype=torch.bool)
    for step in range(30):
        chance = torch.Generator().manual_seed(step)
        places = torch.randint(0, 40, (12,), generator=chance)  # some of them twice
        grad = drawn(12, D, seed=step)
        for one, optim in ((mine, optimiser), (theirs, reference)):
            one.grad = of_rows(places, grad, 50)
            optim.step()
        touched[places] = True
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert torch.equal(mine[~touched], start[~touched])
    mean, square = (optimiser.state()[0][name] for name in ("exp_avg", "exp_avg_sq"))
    assert not mean[~touched].any()
    assert not square[~touched].any()


def test_clipping_is_torchs_and_knows_sparse_gradients() -> None:
    grads = [drawn(3, seed=1), drawn(40, D, seed=2)]
    for largest in (0.5, 1e9):
        mine, theirs = ([nn.Parameter(torch.zeros_like(g)) for g in grads] for _ in range(2))
        for one, other, grad in zip(mine, theirs, grads, strict=True):
            one.grad, other.grad = grad.clone(), grad.clone()
        mine[1].grad = of_rows(torch.arange(40), grads[1].clone(), 40)
        Adam(mine, 0.1).clip(largest)
        nn.utils.clip_grad_norm_(theirs, largest)
        for one, other in zip(mine, theirs, strict=True):
            assert one.grad is not None
            assert other.grad is not None
            assert torch.equal(one.grad.to_dense(), other.grad)


def test_a_large_table_has_a_gradient_of_the_rows_that_were_looked_up() -> None:
    table = nn.Parameter(drawn(N, D))
    index = torch.tensor([[5, 0, 7], [5, 5, N - 1]])
    out = lookup(table, index, 0)
    assert torch.equal(out, table.detach()[index])
    out.backward(torch.ones_like(out))
    assert table.grad is not None
    assert table.grad.is_sparse
    grad = table.grad.coalesce()
    assert grad.indices()[0].tolist() == [5, 7, N - 1]  # not padding
    assert grad.values()[:, 0].tolist() == [3, 1, 1]
    small = nn.Parameter(drawn(N - 1, D))
    lookup(small, index - (index == N - 1).long(), 0).sum().backward()
    assert small.grad is not None
    assert not small.grad.is_sparse


@pytest.mark.parametrize("kind", ["sampled", "bce", "gbce", "bpr", "top1"])
def test_losses_over_a_large_catalogue_have_the_gradients_of_a_small_one(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = np.arange(1, 41, dtype=np.int64)
    log = Sequences(np.arange(2), np.array([0, 20, 40]), items, items > 0, items)
    objective = Objective(Loss(kind, 32), log, N - 1)
    target, row = torch.from_numpy(items[:30]), torch.arange(30) // 20
    found = []
    for least in (N, N + 1):
        monkeypatch.setattr(operators, "LARGE", least)
        hidden, vectors = drawn(30, D).requires_grad_(), nn.Parameter(drawn(N, D, seed=1))
        torch.manual_seed(3)
        loss = objective(hidden, vectors, target, row)
        loss.backward()
        assert vectors.grad is not None
        assert hidden.grad is not None
        assert vectors.grad.is_sparse == (least == N)
        found.append((loss.detach(), hidden.grad, vectors.grad.to_dense()))
    for sparse, dense in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=1e-7)


def test_recgpts_pass_has_sparse_gradients_of_large_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = Shape(width=4, feedforward=4, length=6, user_dropout=0.4)
    model = GPT(N, N, shape).initialise(torch.Generator().manual_seed(0)).train()
    tokens = torch.tensor([[0, 0, 3, 9, 3, N], [4, 9, 9, 1, 2, 8], [0, 0, 0, 0, 6, 7]])
    users, found = torch.tensor([N - 1, 5, -1]), []
    for least in (N, N + 2):
        for module in (operators, rows):
            monkeypatch.setattr(module, "LARGE", least)
        torch.manual_seed(1)
        model.zero_grad()
        hidden = hidden_at(model, tokens, users, None, tokens != 0)
        hidden.backward(drawn(*hidden.shape))
        grads = {name: one.grad for name, one in model.named_parameters()}
        assert grads["items.weight"].is_sparse == grads["users.weight"].is_sparse == (least == N)  # type: ignore[union-attr]
        found.append({name: g.to_dense() for name, g in grads.items() if g is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        assert torch.equal(grad, found[1][name]), name


def test_a_fit_of_many_users_moves_the_vectors_of_those_who_are_trained_on(
    tmp_path: Path,
) -> None:
    clicks = np.tile(np.arange(1, 9), 50)
    offsets = np.minimum(np.arange(N + 1), 50) * 8
    log = Sequences(np.arange(N), offsets, clicks, clicks > 0, np.arange(len(clicks)))
    policy = PreTrain(
        shape=Shape(width=4, feedforward=4, length=8, user_dropout=0.0),
        pretraining=Training(epochs=2, patience=0, rate=0.1, clip=1.0),
        pretraining_loss=Loss("sampled", 16),
    )
    policy.fit(log, Catalogue(N, 20), Fitting(1, folder=tmp_path))
    users = policy.state()["model/users.weight"]
    whole = Fitting(1, folder=tmp_path, resume=True)
    fresh = policy.with_params(pretraining=Training(epochs=0, patience=0))
    start = fresh.fit(log, Catalogue(N, 20), Fitting(1)).state()["model/users.weight"]
    has_moved = (users != start).any(axis=1)
    assert has_moved[1:51].all()
    assert not has_moved[51:].any()
    again = policy.with_params().fit(log, Catalogue(N, 20), whole)  # from the checkpoint
    np.testing.assert_array_equal(again.state()["model/users.weight"], users)


def test_every_way_of_searching_one_fit_has_its_index_saved_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever serves by the fit, in whatever process, builds no index."""
    bpr: dict[str, Any] = {"width": 4, "training": {"epochs": 1}}
    ways = {
        kind: {**bpr, "search": {"kind": kind, "effort": 8}} for kind in ("exact", "hnsw", "ivf")
    }
    arms: dict[str, Any] = {kind: {"policy": "bpr", "params": way} for kind, way in ways.items()}
    arms["drawn"] = {"policy": "explore", "params": {"policy": "bpr", "policy_params": ways["ivf"]}}
    root = simulate_scenario(tmp_path, tiny_scenario(arms))
    (fit,) = (root / "models").glob("bpr-*")
    assert len(list(fit.glob("index-*.faiss"))) == 2  # the exact index of few items is built anew
    policies = {kind: make("bpr", way).load(fit) for kind, way in ways.items()}
    (explored,) = (root / "models").glob("explore-*")
    policies["drawn"] = make("explore", arms["drawn"]["params"]).load(explored)
    built = {kind: make("bpr", way).restore(policies[kind].state()) for kind, way in ways.items()}
    nobody = np.zeros((5, 1), dtype=np.int64)
    asked = Histories(np.arange(5), np.arange(5), nobody, nobody > 0, nobody)
    expected = {kind: policy.recall(asked, 9, 0).items for kind, policy in built.items()}

    def refuse(*given: Any) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("policies.retrieval.Approximate.__init__", refuse)
    for kind in ways:
        np.testing.assert_array_equal(policies[kind].recall(asked, 9, 0).items, expected[kind])
    assert (policies["drawn"].recall(asked, 9, 0).items > 0).all()


def test_a_softmax_over_too_many_items_is_refused_with_what_to_do(tmp_path: Path) -> None:
    rule = (
        rf"pretraining_loss\.kind: `softmax` is over all items, and these are {LARGE:,}; .*sampled"
    )
    nothing = np.zeros(0, dtype=np.int64)
    log = Sequences(np.arange(3), np.zeros(4, dtype=np.int64), nothing, nothing > 0, nothing)
    with pytest.raises(ValueError, match=rule):
        make("recgpt", {}).fit(log, Catalogue(3, LARGE), Fitting())
    assert make("recgpt", {}).misfits(LARGE - 1) == []
    assert make("sasrec", {}).misfits(LARGE) == []
    arms = {"a": {"policy": "explore", "params": {"policy": "pretrain"}}, "b": {"policy": "random"}}
    users = {"kind": "choice", "n_users": 60, "n_items": LARGE}
    file = write_scenario(tmp_path, tiny_scenario(arms, users=users))
    command = ["run", str(file), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "arms.a.params.policy_params.pretraining_loss.kind: `softmax`" in done.output
    assert "scenario.yaml:" in done.output
