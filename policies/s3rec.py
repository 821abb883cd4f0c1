"""S3-Rec: self-supervised pre-training by mutual information, then SASRec (Zhou et al., CIKM
2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.base import Catalogue, Fitting, IntArray, Sequences
from policies.layers import Activation, Norm, initialise
from policies.losses import Loss, Objective
from policies.operators import Embedding, Linear
from policies.sasrec import SASRec, SASRecNetwork
from policies.sequence import Windows
from policies.train import Training, seeded, train
from policies.vectors import Batch, Network

Kind = Literal["aap", "mip", "map", "sp"]


class Pretraining(nn.Module):
    """The four objectives over a network that here sees both sides of each place (Zhou et al. 2020,
    section 4.2).

    Associated attribute prediction ("Modeling Item-Attribute Correlation"): items against their
    attributes. Masked item prediction ("Sequence-Item"): what stands at a mask against another
    item. Masked attribute prediction ("Sequence-Attribute"): what stands at a mask against the
    item's attributes. Segment prediction ("Sequence-Segment"): the rest of a sequence against the
    segment taken out of it and one of another user. Each is InfoNCE over a bilinear score f(x, y) =
    x^T W y, here with one negative.

    Args:
        network: that is pre-trained.
        policy: objectives and their weights.
        attributes: of the items, as `Catalogue.attributes`.
        outside: from users' rows `[P]` and n to n items for each that are not among the user's own,
            `[P, n]` (the negatives of MIP).
    """

    def __init__(
        self,
        network: SASRecNetwork,
        policy: S3Rec,
        attributes: tuple[IntArray, IntArray] | None,
        outside: Callable[[Tensor, int], Tensor],
    ) -> None:
        super().__init__()
        self.network, self.policy, self.outside = network, policy, outside
        width, n_items = policy.width, network.items.num_embeddings - 1
        n_attributes = 0 if attributes is None else int(attributes[1].max(initial=-1)) + 1
        owned = torch.zeros(n_items + 1, n_attributes, dtype=torch.bool)
        if attributes is not None:
            owned[
                torch.from_numpy(np.repeat(np.arange(n_items + 1), np.diff(attributes[0]))),
                torch.tensor(attributes[1]),
            ] = True
        self.register_buffer("owned", owned)
        self.owned: Tensor
        self.attributes = Embedding(n_attributes, width)
        self.mask = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.maps = nn.ModuleDict({kind: Linear(width, width) for kind in policy.objectives})
        initialise(self.attributes)
        initialise(self.maps)

    def forward(self, batch: Batch) -> Tensor:
        """The weighted sum of the chosen objectives for sequences `items` `[B, L]` and their last
        `targets`.
        """
        items = torch.cat([batch.items, batch.targets[:, -1:]], dim=1)[:, -self.policy.length :]
        real = items != 0
        weights = self.policy.weights
        total = items.new_zeros((), dtype=torch.float32)
        gaps = real & (torch.rand(items.shape, device=items.device) < self.policy.masked)
        gaps[:, -1] |= ~gaps.any(1)
        if "aap" in self.maps:
            total = total + weights["aap"] * self._attributes(
                self.maps["aap"](self.network.items(items[real])), items[real]
            )
        if "mip" in self.maps or "map" in self.maps:
            hidden, kept = self._encode(items, gaps)[gaps], items[gaps]
            if "map" in self.maps:
                total = total + weights["map"] * self._attributes(self.maps["map"](hidden), kept)
            if "mip" in self.maps:
                total = total + weights["mip"] * self._contrast(
                    self.maps["mip"](hidden), kept, batch.row[:, None].expand_as(items)[gaps]
                )
        if "sp" in self.maps:
            total = total + weights["sp"] * self._segments(items, real)
        return total

    def _encode(self, items: Tensor, gaps: Tensor) -> Tensor:
        """Hidden vectors `[B, L, d]` with the mask's vector in the place of the items at `gaps`."""
        return self.network.encode(items, causal=False, instead=(gaps, self.mask))

    def _attributes(self, hidden: Tensor, items: Tensor) -> Tensor:
        """Binary cross-entropy of every attribute of each of `items` `[P]`, summed over attributes
        (AAP and MAP).
        """
        logits = hidden @ self.attributes.weight.T
        loss = functional.binary_cross_entropy_with_logits(
            logits, self.owned[items].float(), reduction="none"
        )
        return loss.sum(1).mean()

    def _contrast(self, hidden: Tensor, kept: Tensor, row: Tensor) -> Tensor:
        """-log s(h . e_kept - h . e_other), the other item drawn uniformly outside the user's own
        (MIP with one negative).
        """
        other = self.outside(row, 1)[:, 0]
        vectors = self.network.items.weight
        return -functional.logsigmoid((hidden * (vectors[kept] - vectors[other])).sum(1)).mean()

    def _segments(self, items: Tensor, real: Tensor) -> Tensor:
        """-log s(s . own segment - s . another user's), s the sequence without its segment (SP with
        one negative).

        Sequences of fewer than four items have no segment of at least two with a rest as long.
        """
        length = real.sum(1)
        items, length = items[length >= 4], length[length >= 4]
        if len(items) < 2:
            return items.new_zeros((), dtype=torch.float32)
        size = 2 + (torch.rand(len(items), device=items.device) * (length // 2 - 1)).long()
        first = (
            items.shape[1]
            - length
            + (torch.rand(len(items), device=items.device) * (length - size + 1)).long()
        )
        place = torch.arange(items.shape[1], device=items.device)
        inside = (place >= first[:, None]) & (place < (first + size)[:, None])
        # Turned so that the segment's end is at the last place.
        own = items.gather(1, (place + (first + size)[:, None]) % items.shape[1])
        own = own.masked_fill(place < (items.shape[1] - size)[:, None], 0)
        nothing = torch.zeros_like(inside)
        rest = self.maps["sp"](self._encode(items, inside)[:, -1])
        segment = self._encode(own, nothing)[:, -1]
        return -functional.logsigmoid((rest * (segment - segment.roll(1, 0))).sum(1)).mean()


@dataclass
class S3Rec(SASRec):
    """S3-Rec: SASRec whose network is pre-trained to fill gaps in items, attributes and segments.

    The default objectives need no attributes of items: the form of the RecGPT tables' row "S3-Rec
    (IPS)". With attributes, all four are `[aap, mip, map, sp]`. The fine-tuning is SASRec's, with
    the authors' form of the network.

    Attributes:
        objectives: of the pre-training: associated attributes (`aap`), masked items (`mip`), masked
            attributes (`map`), segments (`sp`).
        weights: of the objectives (the authors' code: .2, 1, 1, .5).
        masked: share of the items that are masked.
        pretraining: epochs, batch and learning rate of the pre-training; it has no validation.
    """

    training: Training = field(default_factory=Training)
    heads: int = 2
    inner: int = 256
    activation: Activation = "gelu"
    norm: Norm = "post"
    objectives: tuple[Kind, ...] = ("mip", "sp")
    weights: dict[Kind, float] = field(
        default_factory=lambda: {"aap": 0.2, "mip": 1.0, "map": 1.0, "sp": 0.5}
    )
    masked: float = 0.2
    pretraining: Training = field(default_factory=lambda: Training(epochs=50, patience=0))

    on_examples: ClassVar[Mapping[str, Any]] = {"pretraining": Training(epochs=5, patience=0)}

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = [kind for kind in self.objectives if kind not in self.weights]
        if missing or not self.objectives:
            raise ValueError(
                "the 'objectives' of S3Rec must be at least one, each with its weight; without"
                f" one: {missing}"
            )
        if not 0 < self.masked < 1:
            raise ValueError(
                f"the 'masked' parameter of S3Rec must be within (0, 1); got {self.masked}"
            )
        if self.pretraining.patience:
            raise ValueError(
                "the pre-training of S3Rec has no validation: 'pretraining.patience' must be 0;"
                f" got {self.pretraining.patience}"
            )

    def prepare(
        self, network: Network, log: Sequences, catalogue: Catalogue, fitting: Fitting
    ) -> None:
        """Pre-train the network."""
        wants = [kind for kind in self.objectives if kind in ("aap", "map")]
        if wants and catalogue.attributes is None:
            raise ValueError(
                f"the objectives {wants} of S3Rec need item attributes, which the data does not"
                " have: leave them out"
            )
        assert isinstance(network, SASRecNetwork)
        with seeded(fitting.seed, "pre-training"):
            outside = Objective(Loss(), log, catalogue.n_items, fitting.device).outside
            model = Pretraining(network, self, catalogue.attributes if wants else None, outside).to(
                fitting.device
            )
        windows = Windows(log, self.length, self.windows)
        train(
            model,
            lambda index: model(windows.batch(index, fitting.device)),
            windows.lengths,
            self.pretraining,
            fitting,
            stage="pre-train",
            targets=windows.targets,
        )
