"""Losses of next-item models, each over the same inputs, so that models can be compared under one
loss. No model lives here.

Scores are inner products of a hidden vector with the item vectors. Every loss takes the valid
positions only, never padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from policies.base import Params, Sequences

Kind = Literal["bce", "softmax", "sampled", "gbce", "bpr", "top1"]


@dataclass
class Loss(Params):
    """Which loss, and its negatives.

    Attributes:
        kind: `bce`, binary cross-entropy on the next item and `negatives` others (Kang & McAuley
            2018, section III.E); `softmax`, cross-entropy over all items; `sampled`, cross-entropy
            over the next item and `negatives` items shared by the batch, with logQ correction
            (Bengio & Senecal 2008); `gbce`, generalised binary cross-entropy (Petrov & Macdonald
            2023); `bpr`, pairwise (Rendle et al. 2009); `top1`, pairwise with a pull of negatives
            to 0 (Hidasi et al. 2016).
        negatives: for each position (`bce`, `gbce`, `bpr`, `top1`; outside the user's own items),
            or for each batch (`sampled`).
        sampler: of `sampled`: `uniform`, or `popularity` (in proportion to the clicks of an item).
        calibration: t of `gbce`: 0 is `bce`, 1 makes the scores' sigmoid a calibrated probability.
    """

    kind: Kind = "bce"
    negatives: int = 1
    sampler: Literal["uniform", "popularity"] = "uniform"
    calibration: float = 0.75

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise ValueError(f"the 'negatives' of a loss must be at least 1; got {self.negatives}")
        if not 0 <= self.calibration <= 1:
            raise ValueError(
                f"the 'calibration' of a loss must be within 0..1; got {self.calibration}"
            )


class _FullCrossEntropy(torch.autograd.Function):
    """Mean of log sum_j exp(h . v_j) - h . v_target over items 1..n, with its gradient made in the
    same pass.

    Works through some positions at a time, so that neither logits nor their gradient `[P, n + 1]`
    are ever held, and what is held stays in the cache. log sum exp is the largest logit less the
    logarithm of its share, which is never below 1/n.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
        total = hidden.new_zeros(())
        grad_hidden, grad_vectors = torch.empty_like(hidden), torch.zeros_like(vectors)
        most = 64 if hidden.device.type == "cpu" else 8192
        for start in range(0, len(hidden), most):
            rows = slice(start, start + most)
            goal = target[rows, None]
            logits = hidden[rows] @ vectors.T
            logits[:, 0] = -torch.inf
            share = logits.softmax(1)
            total += (logits.amax(1) - share.amax(1).log()).sum() - logits.gather(1, goal).sum()
            share.scatter_add_(1, goal, torch.full_like(goal, -1, dtype=share.dtype))
            torch.mm(share, vectors, out=grad_hidden[rows])
            grad_vectors.addmm_(share.T, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_vectors)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_hidden, grad_vectors = ctx.saved_tensors
        scale = grads[0] / len(grad_hidden)
        return grad_hidden * scale, grad_vectors * scale, None


def full_softmax(hidden: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of `target` `[P]` among all items, for `hidden` `[P, d]` and `vectors`
    `[n_items + 1, d]`.
    """
    loss: Tensor = _FullCrossEntropy.apply(hidden, vectors, target)  # type: ignore[no-untyped-call]
    return loss


def sampled_softmax(
    hidden: Tensor, vectors: Tensor, target: Tensor, negatives: Tensor, log_q: Tensor
) -> Tensor:
    """Mean cross-entropy of the target among itself and shared negatives, logits lowered by log Q
    of the item.

    Bengio & Senecal 2008; Yi et al. 2019 (the logQ correction). A negative that is the position's
    own target is left out.

    Args:
        hidden: `[P, d]`.
        vectors: `[n_items + 1, d]`.
        target: `[P]`.
        negatives: `[N]` items drawn with probability Q.
        log_q: `[n_items + 1]` log Q of each item.
    """
    positive = (hidden * vectors[target]).sum(1) - log_q[target]
    logits = hidden @ vectors[negatives].T - log_q[negatives]
    logits = logits.masked_fill(target[:, None] == negatives, -torch.inf)
    return functional.cross_entropy(
        torch.cat([positive[:, None], logits], dim=1), torch.zeros_like(target)
    )


def contrast(
    hidden: Tensor, vectors: Tensor, target: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores `[P]` of the targets and `[P, N]` of each position's own `negatives` `[P, N]`."""
    return (hidden * vectors[target]).sum(1), torch.einsum("pd,pnd->pn", hidden, vectors[negatives])


def binary(positive: Tensor, negative: Tensor, power: float = 1.0) -> Tensor:
    """Mean over positions of -power * log s(x+) - sum log(1 - s(x-)), s the logistic function.

    `power` 1 is binary cross-entropy (Kang & McAuley 2018, eq. 7); other powers are gBCE (Petrov &
    Macdonald, "gSASRec", RecSys 2023).
    """
    return (
        -power * functional.logsigmoid(positive) - functional.logsigmoid(-negative).sum(1)
    ).mean()


def gbce_power(n_items: int, negatives: int, calibration: float) -> float:
    """beta = alpha (t (1 - 1/alpha) + 1/alpha) with alpha = negatives / (n_items - 1) (gBCE's
    calibration t; Petrov & Macdonald 2023).
    """
    alpha = negatives / max(n_items - 1, 1)
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


class Objective:
    """A loss with what it must know of the training data: each user's own items, each item's
    clicks.

    Users are rows of `sequences`, items those of its impressions.
    """

    def __init__(self, loss: Loss, sequences: Sequences, n_items: int, device: str = "cpu") -> None:
        self.loss, self.n_items = loss, n_items
        row = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
        self._own = torch.from_numpy(np.unique(row * (n_items + 1) + sequences.items)).to(device)
        clicks = np.bincount(sequences.items, minlength=n_items + 1).astype(np.float64)
        weight = (clicks + 1 if loss.sampler == "popularity" else np.ones(n_items + 1)) * (
            np.arange(n_items + 1) > 0
        )
        self._edges = torch.from_numpy(np.cumsum(weight / weight.sum())).to(device)
        self._log_q = (
            torch.from_numpy(np.log(np.maximum(weight, 1e-30) / weight.sum())).float().to(device)
        )

    def __call__(self, hidden: Tensor, vectors: Tensor, target: Tensor, row: Tensor) -> Tensor:
        """The mean loss of positions `hidden` `[P, d]` whose next item is `target` `[P]`, of users
        `row` `[P]`.

        Negatives come from torch's default generator, which the trainer seeds.
        """
        loss = self.loss
        if loss.kind == "softmax":
            return full_softmax(hidden, vectors, target)
        if loss.kind == "sampled":
            return sampled_softmax(hidden, vectors, target, self.draw(loss.negatives), self._log_q)
        positive, negative = contrast(hidden, vectors, target, self.outside(row, loss.negatives))
        if loss.kind == "bpr":  # Rendle et al. 2009, section 4.1: -log s(x+ - x-)
            return -functional.logsigmoid(positive[:, None] - negative).mean()
        if loss.kind == "top1":  # Hidasi et al. 2016, section 3.1.3: s(x- - x+) + s(x-^2)
            return (torch.sigmoid(negative - positive[:, None]) + torch.sigmoid(negative**2)).mean()
        power = 1.0
        if loss.kind == "gbce":
            power = gbce_power(self.n_items, loss.negatives, loss.calibration)
        return binary(positive, negative, power)

    def draw(self, n: int) -> Tensor:
        """`n` items drawn with probability Q, `[n]`."""
        draws = torch.rand(n, dtype=torch.float64, device=self._edges.device)
        return torch.searchsorted(self._edges, draws, right=True).clamp_(1, self.n_items)

    def outside(self, row: Tensor, n: int) -> Tensor:
        """`n` uniform items for each of the users `row` `[P]` that are not among the user's own,
        `[P, n]`.

        A user who owns nearly everything may get an own item: after 20 rounds the last draw stands.
        """
        base = (row * (self.n_items + 1))[:, None]
        items = torch.randint(1, self.n_items + 1, (len(row), n), device=row.device)
        for _ in range(20):
            keys = base + items
            place = torch.searchsorted(self._own, keys).clamp_(max=len(self._own) - 1)
            own = self._own[place] == keys
            count = int(own.sum())
            if count == 0:
                break
            items[own] = torch.randint(1, self.n_items + 1, (count,), device=row.device)
        return items
