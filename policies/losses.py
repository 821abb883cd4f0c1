"""Losses of next-item models, each over the same inputs, so that models can be compared under one
loss. No model lives here.

Scores are inner products of a hidden vector with the item vectors. Every loss takes the valid
positions only, never padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from policies.base import Params, Sequences
from policies.operators import GRAIN, LARGE, is_large, lookup, outer_sum, product
from policies.stretches import collected, stretches

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

    def misfits(self, n_items: int) -> list[tuple[tuple[str, ...], str]]:
        """As `Params.misfits`: a softmax over all items is for fewer than `LARGE` of them."""
        if self.kind != "softmax" or n_items < LARGE:
            return []
        rule = (
            f"`softmax` is over all items, and these are {n_items:,}; from {LARGE:,} on it must be"
        )
        return [(("kind",), f"{rule} sampled, e.g. {{kind: sampled, negatives: 2048}}")]


LEFT_OUT = -1e30
"""The logit of what does not count. It is finite, so that a position for which nothing counts has
a loss of 0 and not NaN.
"""

BLOCK = 2**16
"""Logits that are held at once on a CPU: with their shares half a MiB, which stays in a core's
cache. Half and twice as many take 5 to 10% longer, at 128 and at 512 negatives.
"""


class _CrossEntropy(torch.autograd.Function):
    """Mean over positions of log(exp(x) + sum_j exp(h . w_j + b_j)) - x, x the logit of the
    position's own item, with its gradient made in the same pass.

    With l = log sum_j exp(h . w_j + b_j) this is log(1 + exp(l - x)), its derivative by l and by
    -x is s(l - x), s the logistic function. Works through some positions at a time, so that neither
    the logits nor their gradient `[P, N]` are ever held, and what is held stays in the cache. l is
    the largest logit less the logarithm of its share, which is never below 1/N.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, own: Tensor, others: Tensor, bias: Tensor, left_out: Tensor
    ) -> Tensor:
        """`hidden` `[P, d]`, `own` `[P]`, `others` `[N, d]`, `bias` `[N]`, `left_out` `[2, n]`:
        positions, ascending, and places among the others that do not count for them.
        """
        gap, grad_hidden = torch.empty_like(own), torch.empty_like(hidden)
        grad_others = others.new_zeros(others.shape[::-1])
        size = max(64, BLOCK // len(others)) if hidden.device.type == "cpu" else 8192
        starts = torch.arange(0, len(hidden) + size, size, device=hidden.device)
        ends = torch.searchsorted(left_out[0].contiguous(), starts).tolist()
        for block, start in enumerate(range(0, len(hidden), size)):
            rows, pairs = slice(start, start + size), slice(ends[block], ends[block + 1])
            logits = torch.addmm(bias, hidden[rows], others.T)
            logits[left_out[0, pairs] - start, left_out[1, pairs]] = LEFT_OUT
            share = logits.softmax(1)
            gap[rows] = logits.amax(1) - share.amax(1).log() - own[rows]
            weight = gap[rows, None].sigmoid()
            grad_hidden[rows] = torch.mm(share, others).mul_(weight)
            grad_others.addmm_((hidden[rows] * weight).T, share)
        ctx.save_for_backward(grad_hidden, -gap.sigmoid(), grad_others.T)
        return functional.softplus(gap).mean()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        scale = grads[0] / len(ctx.saved_tensors[0])
        return *(grad * scale for grad in ctx.saved_tensors), None, None


class _CompiledCrossEntropy(torch.autograd.Function):
    """`_CrossEntropy` of float32 on a CPU, in few calls, from the item vectors themselves."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, vectors: Tensor, target: Tensor, others: Tensor, log_q: Tensor
    ) -> Tensor:
        """`hidden` `[P, d]`, `vectors` `[n_items + 1, d]`, `target` `[P]`, `others` `[N]` items,
        `log_q` `[n_items + 1]`.
        """
        from policies.compiled import add_own, add_rows, cross_entropy, own_logits

        hidden, vectors = hidden.detach().contiguous(), vectors.detach().contiguous()
        rows, table, items, wanted = (part.numpy() for part in (hidden, vectors, others, target))
        own, slope = (np.empty(len(rows), dtype=np.float32) for _ in range(2))
        own_logits(rows, table, wanted, log_q.numpy(), own)
        chosen, bias = vectors.index_select(0, others), -log_q.index_select(0, others)
        to_hidden, to_chosen = torch.empty_like(hidden), torch.zeros_like(chosen)
        size = max(1, 2 * BLOCK // len(others) // GRAIN) * GRAIN
        is_other = np.zeros(len(table), dtype=np.bool_)
        is_other[items] = True
        total = 0.0
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            logits = product(hidden[part], chosen, bias)
            total += cross_entropy(
                logits.numpy(),
                own[part],
                wanted[part],
                items,
                is_other,
                np.float32(LEFT_OUT),
                1.0 / len(rows),
                slope[part],
            )
            to_hidden[part] = product(logits, chosen.T)
            to_chosen += outer_sum(logits, hidden[part])
        to_vectors = torch.zeros_like(vectors)
        add_rows(to_chosen.numpy(), items, to_vectors.numpy())
        add_own(slope, rows, table, wanted, to_hidden.numpy(), to_vectors.numpy())
        ctx.save_for_backward(to_hidden, to_vectors)
        return hidden.new_tensor(total / len(rows))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        to_hidden, to_vectors = ctx.saved_tensors
        if grads[0] != 1:  # a sum of losses, or a multiple
            to_hidden, to_vectors = to_hidden * grads[0], to_vectors * grads[0]
        return to_hidden, to_vectors, None, None, None


def _cross_entropy(
    hidden: Tensor, vectors: Tensor, target: Tensor, others: Tensor, log_q: Tensor
) -> Tensor:
    """Mean cross-entropy of `target` among itself and `others`, logits lowered by log Q."""
    if is_large(vectors):
        rows, place = torch.cat([target, others]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
        vectors, log_q = lookup(vectors, rows), log_q[rows]
        target, others = place.split([len(target), len(others)])
    if hidden.device.type == "cpu" and hidden.dtype == torch.float32 and len(target):
        compiled: Tensor = _CompiledCrossEntropy.apply(hidden, vectors, target, others, log_q)  # type: ignore[no-untyped-call]
        return compiled
    own = (hidden * functional.embedding(target, vectors)).sum(1) - log_q[target]
    loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden,
        own,
        functional.embedding(others, vectors),
        -log_q[others],
        _pairs(target, others, len(vectors) - 1),
    )
    return loss


def full_softmax(hidden: Tensor, vectors: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of `target` `[P]` among all items, for `hidden` `[P, d]` and `vectors`
    `[n_items + 1, d]`.
    """
    everyone = torch.arange(1, len(vectors), device=vectors.device)
    return _cross_entropy(hidden, vectors, target, everyone, vectors.new_zeros(len(vectors)))


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
    return _cross_entropy(hidden, vectors, target, negatives, log_q)


def _pairs(target: Tensor, negatives: Tensor, n_items: int) -> Tensor:
    """The positions of `target` `[P]`, ascending, and the places of `negatives` `[N]` that hold
    the same item, `[2, n]`.
    """
    is_negative = torch.zeros(n_items + 1, dtype=torch.bool, device=target.device)
    is_negative[negatives] = True
    position = is_negative[target].nonzero()[:, 0]
    which, place = torch.nonzero(target[position, None] == negatives, as_tuple=True)
    return torch.stack([position[which], place])


def contrast(
    hidden: Tensor, vectors: Tensor, target: Tensor, negatives: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores `[P]` of the targets and `[P, N]` of each position's own `negatives` `[P, N]`."""
    if is_large(vectors):
        own, others = lookup(vectors, target), lookup(vectors, negatives)
    else:
        own, others = vectors[target], vectors[negatives]
    return (hidden * own).sum(1), torch.einsum("pd,pnd->pn", hidden, others)


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
        self._sequences, self._device = sequences, device
        clicks = np.bincount(sequences.items, minlength=n_items + 1).astype(np.float64)
        weight = (clicks + 1 if loss.sampler == "popularity" else np.ones(n_items + 1)) * (
            np.arange(n_items + 1) > 0
        )
        self._edges = torch.from_numpy(np.cumsum(weight / weight.sum())).to(device)
        self._log_q = (
            torch.from_numpy(np.log(np.maximum(weight, 1e-30) / weight.sum())).float().to(device)
        )

    @cached_property
    def _own(self) -> Tensor:
        """What each user owns, as row * (n_items + 1) + item, ascending: for losses whose negatives
        are outside of it.
        """
        log = self._sequences

        def keys() -> Iterator[npt.NDArray[np.int64]]:
            for users, rows in stretches(log.offsets):
                n = np.diff(log.offsets[users.start : users.stop + 1])
                row = np.repeat(np.arange(users.start, users.stop), n)
                yield np.unique(row * (self.n_items + 1) + log.items[rows])

        return torch.from_numpy(collected(keys())).to(self._device)

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
