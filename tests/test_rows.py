"""The written-out pass of a network against the network itself (`recgpt.model.GPT.forward`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import policies.dropout
import recgpt.rows
from recgpt.model import GPT, Shape
from recgpt.rows import hidden_at, is_covered
from tests.pages import ROOT

N_ITEMS, N_USERS, LENGTH = 50, 9, 23


def network(**form: Any) -> GPT:
    shape = {"embedding_dropout": 0.0, "dropout": 0.0, "user_dropout": 0.0, **form}
    model = GPT(N_ITEMS, N_USERS, Shape(width=32, feedforward=48, length=LENGTH, **shape))
    model.initialise(torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and gains too
            parameter += 0.1 * torch.randn_like(parameter)
    return model.train()


def batch(rows: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Histories of any length, one of them empty; half of the tokens are asked, and of one history
    none; some users are unknown.
    """
    torch.manual_seed(3)
    tokens = torch.randint(1, N_ITEMS + 1, (rows, LENGTH))
    tokens[torch.arange(LENGTH) < LENGTH - torch.randint(1, LENGTH + 1, (rows, 1))] = 0
    tokens[1] = 0
    asked = (torch.rand(tokens.shape) < 0.5) & (tokens != 0)
    asked[2] = False
    users = torch.randint(-1, N_USERS, (rows,))
    return tokens, users, torch.randint(0, 2, tokens.shape), asked


def both_ways(model: GPT, rows: int, segmented: bool) -> list[tuple[Tensor, dict[str, Any]]]:
    tokens, users, segments, asked = batch(rows)
    roles = segments if segmented else None
    results = []
    for way in (
        lambda: hidden_at(model, tokens, users, roles, asked),
        lambda: model(tokens, users, roles),
    ):
        model.zero_grad()
        hidden = way()
        if hidden.dim() == 3:
            hidden = hidden[asked]
        weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(4))
        (hidden * weight).sum().backward()
        results.append((hidden.detach(), {n: p.grad for n, p in model.named_parameters()}))
    return results


def assert_same(results: list[tuple[Tensor, dict[str, Any]]]) -> None:
    (mine, my_grads), (theirs, their_grads) = results
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    for name, grad in their_grads.items():
        if grad is None:
            assert my_grads[name] is None or not my_grads[name].any(), name
            continue
        scale = max(float(grad.abs().max()), 1e-3)
        torch.testing.assert_close(my_grads[name] / scale, grad / scale, rtol=0, atol=2e-5)


FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "two layers, four heads": {"layers": 2, "heads": 4},
    "ReLU, no users": {"activation": "relu", "users": "none"},
    "padding is read, no norm": {"masked": False, "embedding_norm": False},
    "untied": {"output": "untied"},
    "distances": {"relative": True, "layers": 2},
    "trace": {"trace": True},
    "the best network": {"relative": True, "layers": 2, "trace": True, "users": "none"},
}


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_hidden_states_and_gradients_are_those_of_the_network(form: str, segmented: bool) -> None:
    model = network(**FORMS[form])
    assert is_covered(model.shape)
    assert_same(both_ways(model, 9, segmented))


def test_many_rows_go_through_one_dnn() -> None:
    assert_same(both_ways(network(), 70, True))


def test_dropout_is_that_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """With bytes that depend on the column alone, so that the layout of rows does not matter."""

    def bytes_of(*shape: int) -> npt.NDArray[np.uint8]:
        column = np.arange(shape[-1]) * 37 % 256
        return np.broadcast_to(column.astype(np.uint8), shape).copy()

    for module in (policies.dropout, recgpt.rows):
        monkeypatch.setattr(module, "random_bytes", bytes_of)
    model = network(embedding_dropout=0.3, dropout=0.4)
    without = both_ways(network(), 9, True)[0][0]
    results = both_ways(model, 9, True)
    assert_same(results)
    assert not torch.allclose(results[0][0], without)


def test_users_are_left_out_as_often_as_asked() -> None:
    model = network(user_dropout=0.25)
    torch.manual_seed(5)
    _, counts = model.user_rows(torch.arange(N_USERS).repeat(2000))
    assert counts.mean().item() == pytest.approx(0.75, abs=0.02)
    assert model.user_rows(torch.tensor([-1, N_USERS]))[0].tolist() == [0, 0]
    assert not network().user_rows(torch.tensor([-1, N_USERS]))[1].any()


@pytest.mark.parametrize(
    "form",
    [
        {"attention": "flow"},
        {"attention_dropout": 0.1},
        {"norm": "pre"},
    ],
)
def test_other_forms_are_left_to_the_network(form: dict[str, Any]) -> None:
    model = network(**form)
    assert not is_covered(model.shape)
    tokens, users, segments, asked = batch()
    torch.manual_seed(6)
    mine = hidden_at(model, tokens, users, segments, asked)
    torch.manual_seed(6)
    assert torch.equal(mine, model(tokens, users, segments)[asked])


def test_a_network_that_is_not_trained_drops_nothing() -> None:
    model = network(dropout=0.5).eval()
    tokens, users, segments, asked = batch()
    mine = hidden_at(model, tokens, users, segments, asked)
    assert torch.equal(mine, model(tokens, users, segments)[asked])


BITS = """
import hashlib, sys
import torch
from policies.base import Fitting
from policies.comirec import ComiRec
from policies.examples import mixed
from policies.train import Training
from recgpt.policy import RecGPT1

torch.set_num_threads(1)
example, brief = mixed(0), Training(epochs=2, patience=0)
for policy in (RecGPT1(pretraining=brief, tuning=brief), ComiRec(training=brief)):
    state = policy.fit(example.sequences, example.catalogue, Fitting(seed=1)).state()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(state[name].tobytes())
    print(digest.hexdigest())
"""


def test_kernels_from_the_cache_have_the_bits_of_those_just_compiled(tmp_path: Path) -> None:
    """Compiled copies of one function may add in another order, and which of them is called must
    not depend on what has been compiled before.
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", BITS]
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert len(outputs[0].split()) == 2
    assert outputs[0] == outputs[1]
