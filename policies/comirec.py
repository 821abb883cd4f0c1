"""ComiRec: several interest vectors for a user, merged under a controllable diversity (Cen et al.,
KDD 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from policies.base import Catalogue, Fitting, Histories, IntArray, Sequences, Slates, right_aligned
from policies.jit import njit
from policies.layers import initialise
from policies.losses import Loss, Objective
from policies.operators import Linear
from policies.retrieval import interest_of, pooled, ties
from policies.train import Training
from policies.users import user_vectors
from policies.vectors import Batch, Network, VectorPolicy


def squash(x: Tensor) -> Tensor:
    """|x|^2 / (1 + |x|^2) x / |x| over the last axis (Sabour et al. 2017, eq. 1; Cen et al. 2020,
    section 3.2).
    """
    square = (x * x).sum(-1, keepdim=True)
    return square / (1 + square) * x / torch.sqrt(square + 1e-9)


class DynamicRouting(nn.Module):
    """Interests as capsules (Cen et al. 2020, section 3.2, Algorithm 1).

    u_(j|i) = W_ij e_i with a matrix for every place and interest, as in the authors' code; c_i =
    softmax_j(b_ij) with b from 0; v_j = squash(sum_i c_ij u_(j|i)); b_ij += u_(j|i) . v_j. The
    routing sees u without gradient; only the last sum has one.
    """

    def __init__(self, length: int, width: int, interests: int, rounds: int) -> None:
        super().__init__()
        self.shape, self.rounds = (interests, width), rounds
        self.maps = nn.Parameter(torch.randn(length, width, interests * width) * width**-0.5)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`x` `[B, L, d]`, `valid` `[B, L]` -> interests `[B, I, d]`."""
        batch, length, (interests, width) = len(x), x.shape[1], self.shape
        maps = self.maps[len(self.maps) - length :]
        # Each row's interests are batches of the products, so that no vote is moved or copied.
        votes = torch.bmm(x.transpose(0, 1), maps).view(length, -1, width).transpose(0, 1)
        still = votes.detach()  # [B * I, L, d]
        mask = valid[:, None]
        logits = x.new_zeros(batch, interests, length)
        for _ in range(self.rounds - 1):
            capsules = squash(torch.bmm(_shares(logits, mask), still))
            logits = logits + torch.bmm(still, capsules.transpose(1, 2)).view(logits.shape)
        return squash(torch.bmm(_shares(logits, mask), votes)).view(batch, interests, width)


def _shares(logits: Tensor, mask: Tensor) -> Tensor:
    """The interests' shares of each click `[B * I, 1, L]`, by `logits` `[B, I, L]`; 0 of padding
    (`mask` `[B, 1, L]`).
    """
    return (logits.softmax(1) * mask).flatten(0, 1)[:, None]


class SelfAttention(nn.Module):
    """Interests as weighted sums of the clicked items: V = H softmax(W2 tanh(W1 (H + P)))^T (Cen et
    al. 2020, section 3.2; Lin et al., ICLR 2017, eq. 5-6)."""

    def __init__(self, length: int, width: int, interests: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        self.first = Linear(width, 4 * width, bias=False)
        self.second = Linear(4 * width, interests, bias=False)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`x` `[B, L, d]`, `valid` `[B, L]` -> interests `[B, I, d]`; zeros for an empty
        history.
        """
        hidden = torch.tanh(self.first(x + self.places[len(self.places) - x.shape[1] :]))
        logits = self.second(hidden).masked_fill(~valid[:, :, None], -1e9)
        weights = logits.softmax(1) * valid[:, :, None]
        return torch.matmul(weights.transpose(1, 2), x)


class ComiRecNetwork(Network):
    """Item vectors, an interest extractor and, where wanted, a vector for each user that is added
    to the user's interests.
    """

    def __init__(self, n_users: int, n_items: int, policy: ComiRec) -> None:
        super().__init__(n_items, policy.width)
        self.extractor: nn.Module
        if policy.extractor == "dr":
            self.extractor = DynamicRouting(
                policy.length, policy.width, policy.interests, policy.rounds
            )
        else:
            self.extractor = SelfAttention(policy.length, policy.width, policy.interests)
        self.users: nn.Embedding | None = None
        self.user_map: nn.Linear | None = None
        if policy.user_aware:
            self.users = user_vectors(n_users, policy.width, policy.user_rows)
            self.user_map = Linear(policy.width, policy.width, bias=False)
        self.user_dropout = policy.user_dropout
        initialise(self, std=policy.width**-0.5)

    def last(self, items: Tensor, user: Tensor) -> Tensor:
        """As `Network.last`: the interests, moved by the user's vector where there is one."""
        interests: Tensor = self.extractor(self.items(items), items != 0)
        if self.users is not None and self.user_map is not None:
            if self.training:
                is_hidden = torch.rand(user.shape, device=user.device) < self.user_dropout
                user = torch.where(is_hidden, 0, user)
            interests = interests + self.user_map(self.users(user))[:, None]
        return interests


class Cuts:
    """Training samples: for each user some places of the sequence, drawn anew in every epoch; what
    stands there is to be found from the `length` clicks before it."""

    def __init__(self, clicks: Sequences, length: int, most: int) -> None:
        targets = np.maximum(np.diff(clicks.offsets) - 1, 0)
        self.row = np.repeat(np.arange(len(clicks)), np.minimum(targets, most))
        self._after, self._length, self._clicks = targets, length, clicks
        self.lengths = np.minimum(targets[self.row], length)
        self.targets = np.ones(len(self.row), dtype=np.int64)

    def batch(self, index: IntArray, device: str) -> Batch:
        """A fresh draw for the samples at `index`; `targets` is `[B, 1]`."""
        row = self.row[index]
        draw = torch.rand(len(row), dtype=torch.float64).numpy()
        before = 1 + (draw * self._after[row]).astype(np.int64)
        end = self._clicks.offsets[row] + before
        items = right_aligned(self._clicks.items, end, np.minimum(before, self._length))
        arrays = items, self._clicks.items[end][:, None], row, self._clicks.user[row] + 1
        return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


@dataclass
class ComiRec(VectorPolicy):
    """ComiRec: `interests` query vectors from the clicks, trained on the one nearest to the label,
    merged at serving.

    Training (section 3.2): of the interests the one of largest inner product with the target is
        trained, by sampled softmax.
    Serving (section 3.3): the interests' nearest items are pooled, f(u, i) = max_k e_i . v_k, and
    the slate is chosen greedily for Q(u, S) = sum_(i in S) f(u, i) + diversity * sum_(i in S)
    sum_(j in S) [category(i) != category(j)].

    The user-aware form, the online control of the RecGPT paper (section 5.5), adds a mapped user
    vector to every interest, as that paper's eq. 2 adds its user module; in training a user is
    unknown with probability `user_dropout`, so that the interests must do without the vector as
    well, and cold users are served by them alone.

    An epoch draws at most `cuts` places of each user: of users with a hundred clicks a tenth. What
    it adds to the validation is then less than the validation's own noise, and little patience
    (`training.patience`) stops at a lucky epoch.

    Attributes:
        length: clicks of a history that are read.
        extractor: `dr`, dynamic routing, or `sa`, self-attention.
        interests: query vectors of a user.
        rounds: of the routing.
        user_aware: add a user vector.
        user_rows: of the table into which users' vectors are hashed (`policies.users`); 0: a vector
            of each user's own.
        user_dropout: probability that a training sample hides its user.
        cuts: samples of each user and epoch, at most.
        category: item column of the catalogue that `diversity` looks at.
        diversity: lambda of the controllable aggregation; 0 = by score alone.
    """

    length: int = 20
    loss: Loss = field(default_factory=lambda: Loss("sampled", negatives=512))
    training: Training = field(default_factory=lambda: Training(epochs=30, batch=256, rate=5e-3))
    extractor: Literal["dr", "sa"] = "dr"
    interests: int = 4
    rounds: int = 3
    user_aware: bool = False
    user_rows: int = 0
    user_dropout: float = 0.5
    cuts: int = 10
    category: str = "tag"
    diversity: float = 0.0

    serving_fields: ClassVar[frozenset[str]] = VectorPolicy.serving_fields | {"diversity"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "length", "interests", "rounds", "cuts")
        self.at_least(0, "user_rows")
        if self.user_rows and not self.user_aware:
            raise ValueError(
                "the 'user_rows' parameter of ComiRec is of its user vectors: set 'user_aware', or"
                f" leave it out; got {self.user_rows}"
            )
        if not 0 <= self.user_dropout <= 1 or not self.diversity >= 0:
            raise ValueError(
                "'user_dropout' of ComiRec must be within 0..1 and 'diversity' at least 0; got"
                f" {self.user_dropout}, {self.diversity}"
            )

    def network(self, n_users: int, n_items: int) -> ComiRecNetwork:
        """An untrained ComiRec network."""
        return ComiRecNetwork(n_users, n_items, self)

    def prepare(
        self, network: Network, log: Sequences, catalogue: Catalogue, fitting: Fitting
    ) -> None:
        """Number the categories of the items, where the catalogue has them."""
        column = catalogue.items.get(self.category)
        if column is not None and column.ndim != 1:
            raise ValueError(
                "the 'category' of ComiRec must be a column of one value for each item;"
                f" {self.category!r} has shape {column.shape}"
            )
        if column is None and self.diversity > 0:
            columns = sorted(catalogue.items)
            raise ValueError(
                f"'diversity' of ComiRec needs the item column {self.category!r}; the catalogue has"
                f" {columns}"
            )
        self.categories_ = np.zeros(0, np.int64)
        if column is not None:
            self.categories_ = np.unique(column, return_inverse=True)[1].astype(np.int64)

    def reads(self) -> int:
        """`length` clicks."""
        return self.length

    def samples(self, log: Sequences) -> Cuts:
        """Random places of every user's sequence."""
        return Cuts(log, self.length, self.cuts)

    def batch_loss(self, network: ComiRecNetwork, batch: Batch, objective: Objective) -> Tensor:
        """The loss of the interest nearest to the target (Cen et al. 2020, section 3.2)."""
        interests = network.last(batch.items, batch.user)
        vectors, target = network.vectors(), batch.targets[:, 0]
        nearest = torch.einsum("bid,bd->bi", interests, vectors[target]).argmax(1)
        rows = torch.arange(len(target), device=target.device)
        return objective(interests[rows, nearest], vectors, target, batch.row)

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The k best of the pooled candidates, by the controllable aggregation."""
        if self.diversity == 0:
            return super().recall(histories, k, seed)
        if len(self.categories_) == 0:
            raise ValueError(
                f"'diversity' of ComiRec needs the item column {self.category!r}, which the"
                " catalogue it was fitted on did not have"
            )
        union, best, source = pooled(self.index_, self.queries(histories), k, histories.seen)
        items = np.zeros((len(union), k), dtype=np.int64)
        scores = np.full((len(union), k), -np.inf, dtype=np.float32)
        _aggregate(
            union, best, self.categories_, ties(self.n_items_)[0], self.diversity, items, scores
        )
        return Slates(items, scores, interest=interest_of(items, union, source, self.n_items_))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The weights, and the items' categories."""
        return {**super().state(), "categories": self.categories_}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""
        self.categories_ = np.asarray(state["categories"])
        return super().restore(state)


@njit()
def _aggregate(
    union: Any, best: Any, category: Any, ranks: Any, weight: float, items: Any, scores: Any
) -> None:
    """Greedy inference of Q(u, S) (Cen et al. 2020, Algorithm 2).

    Adding i to S changes Q by f(u, i) + weight * 2 * (|S| - n), n the members of S in i's category
    (both orders of a pair count; the factor is taken into `weight`). |S| is the same for all
    candidates, so the order is that of f(u, i) - weight * n, which is also what is given out as the
    score: it never increases from place to place.
    """
    count = np.zeros(category.max() + 1, dtype=np.int64)
    taken = np.zeros(union.shape[1], dtype=np.bool_)
    for row in range(len(union)):
        count[:] = 0
        taken[:] = False
        for place in range(items.shape[1]):
            chosen, value = -1, np.float32(-np.inf)
            for c in range(union.shape[1]):
                item = union[row, c]
                if item == 0 or taken[c]:
                    continue
                gain = np.float32(best[row, c] - weight * count[category[item]])
                if (
                    chosen < 0
                    or gain > value
                    or (gain == value and ranks[item] < ranks[union[row, chosen]])
                ):
                    chosen, value = c, gain
            if chosen < 0:
                break
            taken[chosen] = True
            items[row, place], scores[row, place] = union[row, chosen], value
            count[category[union[row, chosen]]] += 1
