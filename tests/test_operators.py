"""The operators of training against torch's own: values, gradients, steps of the optimiser."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.adam import Adam
from policies.compiled import exponentials
from policies.losses import full_softmax, sampled_softmax
from policies.operators import GRAIN, Embedding, Linear, linear, lookup, outer_sum, product

LIKE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.mark.parametrize("rows", [1, GRAIN - 1, GRAIN, GRAIN + 1, 3 * GRAIN + 7])
def test_products_are_torchs_for_any_number_of_rows(rows: int) -> None:
    torch.manual_seed(rows)
    a, b, bias = torch.randn(rows, 24), torch.randn(40, 24), torch.randn(40)
    torch.testing.assert_close(product(a, b, bias), a @ b.T + bias, **LIKE)
    for n_columns in (8, 24, 40):  # either operand may have the fewer columns
        c = torch.randn(rows, n_columns)
        torch.testing.assert_close(outer_sum(a, c), a.T @ c, **LIKE)


@pytest.mark.parametrize("shape", [(5,), (3, 70), (2, 3, 90)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_the_gradient_of_a_linear_layer_is_torchs(shape: tuple[int, ...], has_bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(12, 20, bias=has_bias)
    x = torch.randn(*shape, 12, requires_grad=True)
    pull = torch.randn(*shape, 20)
    inputs = [x, *layer.parameters()]
    mine = torch.autograd.grad((layer(x) * pull).sum(), inputs)
    theirs = torch.autograd.grad(
        (functional.linear(x, layer.weight, layer.bias) * pull).sum(), inputs
    )
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    double = [part.detach().double().requires_grad_() for part in inputs]
    assert torch.autograd.gradcheck(linear, double, fast_mode=True)


def test_serving_takes_torchs_product() -> None:
    layer, x = Linear(12, 20), torch.randn(300, 12)
    with torch.no_grad():
        assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("padding", [0, None])
def test_the_gradient_of_a_lookup_is_torchs(padding: int | None) -> None:
    torch.manual_seed(0)
    table = Embedding(9, 4, padding_idx=padding)
    index = torch.tensor([[0, 3, 3], [8, 0, 3]])
    pull = torch.randn(2, 3, 4)
    (mine,) = torch.autograd.grad((table(index) * pull).sum(), [table.weight])
    expected = functional.embedding(index, table.weight, padding)
    (theirs,) = torch.autograd.grad((expected * pull).sum(), [table.weight])
    torch.testing.assert_close(table(index), expected)
    torch.testing.assert_close(mine, theirs)
    assert mine[3].abs().sum() > 0
    assert bool(mine[0].any()) == (padding is None)


def test_what_a_lookup_gives_can_be_added_to_in_place() -> None:
    table = torch.randn(5, 3, requires_grad=True)
    x = lookup(table, torch.tensor([1, 1, 4]))
    x += 1
    (grad,) = torch.autograd.grad(x.sum(), [table])
    assert grad.sum(1).tolist() == [0, 6, 0, 0, 3]


def train(optimiser: Adam | torch.optim.Adam, weights: list[nn.Parameter], steps: int) -> None:
    """Some steps on the distance from 1, 2, ...; the last weight is used every other time."""
    for step in range(steps):
        for weight in weights:
            weight.grad = None
        used = weights if step % 2 else weights[:-1]
        loss = torch.zeros(())
        for number, weight in enumerate(used, 1):
            loss = loss + ((weight - number) ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def weights_of(seed: int) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (33,), (), (4, 3)]
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_step_of_adam_is_torchs_bit_for_bit(decay: float) -> None:
    mine, theirs = weights_of(1), weights_of(1)
    train(Adam(mine, 0.03, decay), mine, 7)
    train(torch.optim.Adam(theirs, lr=0.03, weight_decay=decay, fused=True), theirs, 7)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(mine[0], weights_of(1)[0])


def test_adam_goes_on_from_its_state() -> None:
    whole, halves = weights_of(2), weights_of(2)
    train(Adam(whole, 0.03), whole, 8)
    first = Adam(halves, 0.03)
    train(first, halves, 4)
    second = Adam(halves, 0.03)
    second.restore(first.state())
    train(second, halves, 4)
    for a, b in zip(whole, halves, strict=True):
        assert torch.equal(a, b)


def test_a_training_does_not_load_torchs_compiler() -> None:
    """Its import takes more than a second and 70 MiB."""
    code = (
        "import sys, torch; from policies.adam import Adam;"
        "w = torch.nn.Parameter(torch.ones(3)); w.sum().backward(); Adam([w], 0.1).step();"
        "print(w.tolist() != [1, 1, 1], 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.split() == ["True", "False"]


def test_exponentials_are_right_to_float32() -> None:
    scores = np.linspace(-87, 30, 1000, dtype=np.float32)
    expected = np.exp(scores.astype(np.float64) - 30)
    powers = np.empty(1000, dtype=np.int32)
    got = scores.copy()
    top, total = exponentials(got, 1000, powers, powers.view(np.float32))
    is_normal = expected > 2e-38
    assert top == 30
    np.testing.assert_allclose(got[is_normal], expected[is_normal], rtol=1e-5)
    assert got[~is_normal].max() < 3e-38
    near = np.abs(scores - 30) < 1
    np.testing.assert_allclose(got[near], expected[near], rtol=4e-7)
    assert total == pytest.approx(expected.sum(), rel=1e-5)


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [loss.detach().double(), *(g.double() for g in torch.autograd.grad(loss, inputs))]


@pytest.mark.parametrize("positions", [1, 130, 1100])
@pytest.mark.parametrize("is_sampled", [True, False])
def test_compiled_cross_entropy_is_the_same_in_double_precision(
    positions: int, is_sampled: bool
) -> None:
    """float64 takes torch's operators. 1,100 positions are several blocks; one item is drawn
    twice, and is the target of many.
    """
    torch.manual_seed(0)
    hidden, vectors = torch.randn(positions, 16), torch.randn(301, 16)
    target = torch.randint(1, 301, (positions,))
    target[::3] = 7
    negatives = torch.cat([torch.tensor([7, 7]), torch.randint(1, 301, (254,))])
    log_q = torch.randn(301) - 5

    def loss(dtype: torch.dtype) -> list[Tensor]:
        inputs = [part.to(dtype).requires_grad_() for part in (hidden, vectors)]
        if is_sampled:
            value = sampled_softmax(*inputs, target, negatives, log_q.to(dtype))
        else:
            value = full_softmax(*inputs, target)
        return gradients(3 * value, inputs)

    for a, b in zip(loss(torch.float32), loss(torch.float64), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_position_for_which_nothing_counts_has_no_loss() -> None:
    hidden, vectors = torch.ones(2, 4, requires_grad=True), torch.ones(3, 4, requires_grad=True)
    only = torch.tensor([2])
    loss = sampled_softmax(hidden, vectors, only.expand(2), only, torch.zeros(3))
    for part in gradients(loss, [hidden, vectors]):
        assert not part.any()
