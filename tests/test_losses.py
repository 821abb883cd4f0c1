"""Losses against values worked out by hand or by torch's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from policies.base import Sequences
from policies.losses import Loss, Objective, binary, full_softmax, gbce_power, sampled_softmax


def clicks(users: list[list[int]]) -> Sequences:
    items = np.array([item for user in users for item in user], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64)
    return Sequences(
        np.arange(len(users)),
        offsets,
        items,
        np.ones(len(items), dtype=bool),
        np.arange(len(items)),
    )


def test_full_softmax_and_its_gradient_are_torchs_cross_entropy() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(700, 6, dtype=torch.float64, requires_grad=True)  # more than two chunks
    vectors = torch.randn(31, 6, dtype=torch.float64, requires_grad=True)
    target = torch.randint(1, 31, (700,))
    loss = 3 * full_softmax(hidden, vectors, target)
    mine = torch.autograd.grad(loss, (hidden, vectors))
    expected = 3 * functional.cross_entropy((hidden @ vectors.T)[:, 1:], target - 1)
    theirs = torch.autograd.grad(expected, (hidden, vectors))
    torch.testing.assert_close(loss, expected)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_binary_by_hand() -> None:
    positive, negative = torch.tensor([2.0, -1.0]), torch.tensor([[0.5], [0.0]])

    def s(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    by_hand = (-math.log(s(2)) - math.log(1 - s(0.5)) - math.log(s(-1)) - math.log(1 - s(0))) / 2
    assert binary(positive, negative).item() == pytest.approx(by_hand, rel=1e-6)
    raised = (
        -0.3 * math.log(s(2)) - math.log(1 - s(0.5)) - 0.3 * math.log(s(-1)) - math.log(1 - s(0))
    ) / 2
    assert binary(positive, negative, 0.3).item() == pytest.approx(raised, rel=1e-6)


def test_gbce_power_at_its_ends() -> None:
    assert gbce_power(1001, 10, 0.0) == pytest.approx(1.0)  # t = 0: binary cross-entropy
    assert gbce_power(1001, 10, 1.0) == pytest.approx(0.01)  # t = 1: the sampling rate
    assert gbce_power(101, 1, 0.75) == pytest.approx(0.01 * (0.75 * (1 - 100) + 100))


def test_sampled_softmax_by_hand() -> None:
    hidden, vectors = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0], [-1.0], [0.5]])
    log_q = torch.log(torch.tensor([1e-9, 0.5, 0.3, 0.2]))
    loss = sampled_softmax(hidden, vectors, torch.tensor([1, 2]), torch.tensor([2, 3]), log_q)
    first = [math.exp(1) / 0.5, math.exp(-1) / 0.3, math.exp(0.5) / 0.2]
    second = [
        math.exp(-2) / 0.3,
        math.exp(1.0) / 0.2,
    ]  # its own target among the negatives is left out
    assert loss.item() == pytest.approx(
        (-math.log(first[0] / sum(first)) - math.log(second[0] / sum(second))) / 2, rel=1e-5
    )


def test_sampled_softmax_and_its_gradient_are_torchs_cross_entropy() -> None:
    """In several blocks, of one item drawn twice; the last position has only its own item among
    the negatives of the second case.
    """
    torch.manual_seed(0)
    hidden = torch.randn(2500, 6, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(31, 6, dtype=torch.float64, requires_grad=True)
    log_q = torch.randn(31, dtype=torch.float64)
    target = torch.randint(1, 31, (2500,))
    for negatives in (torch.cat([torch.arange(1, 31), torch.tensor([7, 7])]), target[-1:]):
        own = (hidden * vectors[target]).sum(1) - log_q[target]
        logits = hidden @ vectors[negatives].T - log_q[negatives]
        logits = logits.masked_fill(target[:, None] == negatives, -torch.inf)
        logits = torch.cat([own[:, None], logits], 1)
        expected = 3 * functional.cross_entropy(logits, torch.zeros_like(target))
        loss = 3 * sampled_softmax(hidden, vectors, target, negatives, log_q)
        torch.testing.assert_close(loss, expected)
        mine = torch.autograd.grad(loss, (hidden, vectors))
        theirs = torch.autograd.grad(expected, (hidden, vectors))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_sampled_softmax_with_correction_estimates_the_full_one() -> None:
    """With logQ correction the gradient of each position points as the full softmax's; without it
    popular items are pushed down.

    Both push the position from its target's vector to the mean vector of the other items, by their
    softmax: of many negatives each item's share is Q exp(x), and exp(x) once logits are lowered by
    log Q.
    """
    torch.manual_seed(1)
    users = [[i] * n for i, n in enumerate([400, 100, 50, 20, 10, 5, 5, 2, 1, 1], start=1)]
    objective = Objective(
        Loss("sampled", negatives=200_000, sampler="popularity"), clicks(users), 10
    )
    hidden, vectors = torch.randn(5, 4), torch.randn(11, 4)
    target = torch.tensor([1, 2, 3, 4, 10])
    hidden.requires_grad_()
    negatives = objective.draw(200_000)
    (full,) = torch.autograd.grad(full_softmax(hidden, vectors, target), hidden)

    def alike(log_q: torch.Tensor) -> torch.Tensor:
        (mine,) = torch.autograd.grad(
            sampled_softmax(hidden, vectors, target, negatives, log_q), hidden
        )
        return torch.nn.functional.cosine_similarity(mine, full)

    assert alike(objective._log_q).min() > 0.999
    assert alike(torch.zeros_like(objective._log_q)).min() < 0.9


def test_negatives_are_uniform_outside_the_users_own_items() -> None:
    objective = Objective(Loss("bce"), clicks([[1, 2, 3, 9], [4]]), 10)
    torch.manual_seed(2)
    drawn = objective.outside(torch.tensor([0, 1]), 20_000)
    counts = torch.bincount(drawn[0], minlength=11)
    assert counts[[0, 1, 2, 3, 9]].sum() == 0
    assert stats.chisquare(counts[[4, 5, 6, 7, 8, 10]].numpy()).pvalue > 1e-3
    counts = torch.bincount(drawn[1], minlength=11)
    assert counts[[0, 4]].sum() == 0
    assert stats.chisquare(np.delete(counts.numpy(), [0, 4])).pvalue > 1e-3


def test_popular_negatives_come_in_proportion_to_clicks_plus_one() -> None:
    objective = Objective(Loss("sampled", sampler="popularity"), clicks([[1] * 9, [2] * 4]), 4)
    torch.manual_seed(3)
    counts = torch.bincount(objective.draw(50_000), minlength=5).numpy()
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], 50_000 * np.array([10, 5, 1, 1]) / 17).pvalue > 1e-3
    torch.testing.assert_close(objective._log_q[1:].exp(), torch.tensor([10, 5, 1, 1]) / 17)


@pytest.mark.parametrize("kind", ["bce", "softmax", "sampled", "gbce", "bpr", "top1"])
def test_every_loss_falls_when_the_target_scores_higher(kind: str) -> None:
    objective = Objective(Loss(kind, negatives=5), clicks([[1, 2]]), 20)  # type: ignore[arg-type]
    vectors = torch.zeros(21, 3)
    vectors[2] = torch.tensor([1.0, 0, 0])
    values = []
    for strength in (-1.0, 0.0, 1.0):
        torch.manual_seed(0)
        values.append(
            objective(
                torch.tensor([[strength, 0, 0]]), vectors, torch.tensor([2]), torch.tensor([0])
            ).item()
        )
    assert values[0] > values[1] > values[2]


def test_pairwise_losses_by_hand() -> None:
    hidden, vectors = torch.tensor([[2.0]]), torch.tensor([[0.0], [0.5], [0.25]])

    def s(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for kind, by_hand in (("bpr", -math.log(s(1.0 - 0.5))), ("top1", s(0.5 - 1.0) + s(0.25))):
        objective = Objective(Loss(kind), clicks([[1]]), 2)  # type: ignore[arg-type]
        assert objective(
            hidden, vectors, torch.tensor([1]), torch.tensor([0])
        ).item() == pytest.approx(by_hand, rel=1e-6)


def test_bad_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="'negatives' of a loss must be at least 1; got 0"):
        Loss("bce", negatives=0)
    with pytest.raises(ValueError, match=r"within 0\.\.1; got 2"):
        Loss("gbce", calibration=2)
