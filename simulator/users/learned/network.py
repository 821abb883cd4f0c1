"""The response model as a torch network, and its training. The only file of the simulator that
imports torch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.base import BoolArray, FloatArray, IntArray
from simulator.users.base import UsersError
from simulator.users.learned.inputs import (
    POSITIONS,
    TABS,
    AnsweredImpressions,
    Features,
    HistoryEvidence,
)

ANSWER = 4
"""Numbers by which the heads of further feedback know the click and the watch time, see
`answer_features`.
"""


@dataclass(frozen=True)
class ResponseShape:
    """Sizes of a network.

    Attributes:
        n_users, n_items: of the catalogue.
        dim: of the user and item vectors.
        hidden: of the shared encoder.
        kinds: names of further feedback.
        bins: of positive watch times; bin 0 is a watch time of zero.
        durations: classes of duration, each with its own distribution of watch times to start from.
        evidence: numbers that the history gives of a user or an item.
    """

    n_users: int
    n_items: int
    dim: int
    hidden: int
    kinds: tuple[str, ...]
    bins: int
    durations: int
    evidence: int


@dataclass(frozen=True)
class Inputs:
    """Impressions as tensors, all `[N, ...]`, and their answers."""

    user: Tensor
    item: Tensor
    user_evidence: Tensor
    item_evidence: Tensor
    bag: Tensor
    tab: Tensor
    hour: Tensor
    position: Tensor
    duration: Tensor
    weight: Tensor
    click: Tensor
    watch_bin: Tensor
    answer: Tensor
    kinds: Tensor

    @classmethod
    def of(
        cls,
        answers: AnsweredImpressions,
        evidence: HistoryEvidence,
        edges: FloatArray,
        durations: FloatArray,
        weight: FloatArray,
    ) -> Inputs:
        """The inputs of `answers`, each from the days before its own.

        Args:
            answers: the impressions.
            evidence: of the history they come from.
            edges: `[bins + 1]` edges of the positive watch-time bins, s.
            durations: upper limits of the classes of duration, see `duration_class`.
            weight: `[N]` of each impression in the loss.
        """
        watch_bin = np.where(
            answers.watch > 0, np.searchsorted(edges[1:-1], answers.watch, side="left") + 1, 0
        )
        kinds = (
            np.stack([answers.kinds[name] for name in answers.kinds], axis=1)
            if answers.kinds
            else np.zeros((len(answers), 0))
        )
        return cls(
            torch.from_numpy(answers.user),
            torch.from_numpy(answers.item),
            torch.from_numpy(evidence.of_users(answers.user, answers.day)),
            torch.from_numpy(evidence.of_items(answers.item, answers.day)),
            torch.from_numpy(evidence.bags(answers.user, answers.day)),
            torch.from_numpy(answers.tab),
            torch.from_numpy(answers.hour),
            torch.from_numpy(answers.position),
            torch.from_numpy(duration_class(answers.duration, durations)),
            torch.from_numpy(weight),
            torch.from_numpy(answers.click.astype(np.float32)),
            torch.from_numpy(watch_bin.astype(np.int64)),
            torch.from_numpy(answer_features(answers.click, answers.watch, answers.duration)),
            torch.from_numpy(kinds.astype(np.float32)),
        )

    def __len__(self) -> int:
        return len(self.user)

    def rows(self, index: Tensor) -> Inputs:
        """The impressions at `index`."""
        return Inputs(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Inputs]:
        """All impressions once, in random order."""
        order = torch.randperm(len(self), generator=generator)
        for start in range(0, len(self), size):
            yield self.rows(order[start : start + size])


def answer_features(click: BoolArray, watch: FloatArray, duration: FloatArray) -> FloatArray:
    """What further feedback depends on: click, ln(1 + watch), share of the duration watched (at
    most 2), and whether it is known. An unknown watch time counts as 0.
    """
    watch = np.nan_to_num(watch)
    share = np.where(duration > 0, np.minimum(watch / np.maximum(duration, 0.001), 2.0), 0.0)
    return np.stack([click, np.log1p(watch), share, duration > 0], axis=1).astype(np.float32)


class ResponseNetwork(nn.Module):
    """Shared encoder of (user, item, context); heads for click, watch time given the click, and
    further feedback given both.

    h1 = relu(a_user + b_item + c_context + (p_user * q_item) W); h2 = relu(h1 W + b): the product
    of the two vectors is the interaction of a factorisation machine (Rendle 2010), the rest a
    multi-task network with a shared bottom (Caruana 1997).
    """

    user_codes: Tensor
    item_codes: Tensor
    user_numbers: Tensor
    item_numbers: Tensor

    def __init__(self, shape: ResponseShape, users: Features, items: Features) -> None:
        super().__init__()
        d, h = shape.dim, shape.hidden
        self.shape = shape
        self.user_vector = nn.Embedding(shape.n_users, d)
        self.item_vector = nn.Embedding(shape.n_items + 1, d, padding_idx=0)
        self.taste_vector = nn.Embedding(shape.n_items + 1, d, padding_idx=0)
        self.user_features = nn.EmbeddingBag(max(users.categories.size, 1), h, mode="sum")
        self.item_features = nn.EmbeddingBag(max(items.categories.size, 1), h, mode="sum")
        self.item_features_vector = nn.EmbeddingBag(max(items.categories.size, 1), d, mode="sum")
        self.register_buffer(
            "user_codes", torch.from_numpy(users.categories.codes), persistent=False
        )
        self.register_buffer(
            "item_codes", torch.from_numpy(items.categories.codes), persistent=False
        )
        self.register_buffer("user_numbers", torch.from_numpy(users.numbers), persistent=False)
        self.register_buffer("item_numbers", torch.from_numpy(items.numbers), persistent=False)
        self.from_user = nn.Linear(d + shape.evidence + users.numbers.shape[1], h)
        self.from_item = nn.Linear(d + shape.evidence + items.numbers.shape[1], h, bias=False)
        self.from_product = nn.Linear(d, h, bias=False)
        self.tab = nn.Embedding(TABS, h)
        self.hour = nn.Embedding(24, h)
        self.position = nn.Embedding(POSITIONS, h)
        self.second = nn.Linear(h, h)
        self.click = nn.Linear(h, 1)
        self.watch = nn.Linear(h, 2 * (shape.bins + 1), bias=False)
        self.watch_duration = nn.Embedding(shape.durations, 2 * (shape.bins + 1))
        self.kinds_hidden = nn.Linear(h + ANSWER, 32)
        with warnings.catch_warnings():
            # A log without further kinds of feedback has a head of nothing.
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.kinds = nn.Linear(32, len(shape.kinds))

    def start(self, generator: torch.Generator) -> None:
        """Draw the starting weights: small vectors, features at zero, the rest by He et al.
        (2015).
        """
        for name, weight in self.named_parameters():
            with torch.no_grad():
                if (
                    "features" in name
                    or name.startswith(("tab", "hour", "position", "watch_duration"))
                    or weight.dim() == 1
                ):
                    weight.zero_()
                elif "vector" in name:
                    weight.normal_(0, 0.05, generator=generator)
                else:
                    weight.normal_(0, (2.0 / weight.shape[1]) ** 0.5 * 0.7, generator=generator)
        with torch.no_grad():
            self.item_vector.weight[0] = 0
            self.taste_vector.weight[0] = 0

    def user_part(self, user: Tensor, evidence: Tensor, bag: Tensor) -> tuple[Tensor, Tensor]:
        """(contribution to h1 `[B, h]`, vector `[B, d]`) of each user."""
        seen = (bag > 0).sum(1, keepdim=True)
        vector = self.user_vector(user) + self.taste_vector(bag).sum(1) / (seen + 1).sqrt()
        out: Tensor = self.from_user(torch.cat((vector, evidence, self.user_numbers[user]), 1))
        if self.user_codes.shape[1]:
            out = out + self.user_features(self.user_codes[user])
        return out, vector

    def item_part(self, item: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor]:
        """(contribution to h1 `[B, h]`, vector `[B, d]`) of each item."""
        vector = self.item_vector(item)
        out = self.from_item(torch.cat((vector, evidence, self.item_numbers[item]), 1))
        if self.item_codes.shape[1]:
            codes = self.item_codes[item]
            return out + self.item_features(codes), vector + self.item_features_vector(codes)
        return out, vector

    def encode(self, rows: Inputs) -> Tensor:
        """h2 `[B, h]`."""
        user, p = self.user_part(rows.user, rows.user_evidence, rows.bag)
        item, q = self.item_part(rows.item, rows.item_evidence)
        context = self.tab(rows.tab) + self.hour(rows.hour) + self.position(rows.position)
        first = functional.relu(user + item + context + self.from_product(p * q))
        return functional.relu(self.second(first))

    def heads(self, rows: Inputs, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(click `[B]`, watch bins given the click `[B, bins + 1]`, kinds given click and watch
        `[B, K]`), all logits.
        """
        given = self.watch_logits(rows, encoded)[torch.arange(len(encoded)), rows.click.long()]
        hidden = functional.relu(self.kinds_hidden(torch.cat((encoded, rows.answer), 1)))
        return self.click(encoded).squeeze(1), given, self.kinds(hidden)

    def watch_logits(self, rows: Inputs, encoded: Tensor) -> Tensor:
        """Logits of the watch bins given no click and given a click, `[B, 2, bins + 1]`."""
        logits: Tensor = self.watch(encoded) + self.watch_duration(rows.duration)
        return logits.view(len(encoded), 2, -1)

    def losses(self, rows: Inputs, dropout: float, generator: torch.Generator) -> Tensor:
        """Mean negative log likelihood of click, watch bin and kinds, `[3]` nats per impression."""
        encoded = self.encode(rows)
        if dropout:
            kept = torch.rand(encoded.shape, generator=generator) >= dropout
            encoded = encoded * kept / (1 - dropout)
        click, watch, kinds = self.heads(rows, encoded)
        known = (rows.kinds >= 0).float()
        parts = (
            functional.binary_cross_entropy_with_logits(click, rows.click, reduction="none"),
            functional.cross_entropy(watch, rows.watch_bin, reduction="none"),
            (
                functional.binary_cross_entropy_with_logits(
                    kinds, rows.kinds.clamp(min=0), reduction="none"
                )
                * known
            ).sum(1),
        )
        return torch.stack([(part * rows.weight).sum() / rows.weight.sum() for part in parts])


Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class ResponseTraining:
    """How a network is trained.

    Attributes:
        epochs: over which the learning rate falls linearly to a tenth.
        rate: of Adam (Kingma & Ba 2015) for the shared weights.
        vector_rate: times `rate`: of the vectors; that of the weights of features is its geometric
            mean with 1.
        batch: impressions.
        decay: weight decay of the vectors, and a tenth of it of features (decoupled: Loshchilov &
            Hutter 2019).
        dropout: of the encoder's output.
    """

    epochs: int
    rate: float
    vector_rate: float
    batch: int
    decay: float
    dropout: float


def train(
    network: ResponseNetwork,
    rows: Inputs,
    validation: Inputs,
    plan: ResponseTraining,
    seed: int,
    report: Report,
) -> None:
    """Train `network` in place; the weights of the epoch with the least loss on `validation` are
    kept.

    Raises:
        UsersError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    network.start(generator)
    vectors = [
        weight
        for name, weight in network.named_parameters()
        if "_vector" in name and "features" not in name
    ]
    features = [weight for name, weight in network.named_parameters() if "features" in name]
    known = {id(weight) for weight in (*vectors, *features)}
    optimiser = torch.optim.AdamW(
        [
            {"params": vectors, "weight_decay": plan.decay, "lr": plan.rate * plan.vector_rate},
            {"params": features, "weight_decay": plan.decay, "lr": plan.rate * plan.vector_rate},
            {
                "params": [weight for weight in network.parameters() if id(weight) not in known],
                "weight_decay": 0.01,
            },
        ],
        lr=plan.rate,
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, plan.epochs)
    best, kept = math.inf, network.state_dict()
    for epoch in range(1, plan.epochs + 1):
        figures = {"loss": _epoch(network, rows, plan, optimiser, generator)}
        schedule.step()
        if not math.isfinite(figures["loss"]):
            raise UsersError(
                f"the response model's loss is not finite in epoch {epoch}: use a smaller learning"
                f" rate than {plan.rate}"
            )
        with torch.no_grad():
            held = network.losses(validation, 0.0, generator)
        figures |= {"click": float(held[0]), "watch": float(held[1]), "kinds": float(held[2])}
        if float(held.sum()) < best:
            best = float(held.sum())
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        report(epoch, figures)
    network.load_state_dict(kept)


def _epoch(
    network: ResponseNetwork,
    rows: Inputs,
    plan: ResponseTraining,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    total = 0.0
    for batch in rows.batches(plan.batch, generator):
        loss = network.losses(batch, plan.dropout, generator).sum()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(batch) / len(rows)
    return total


def duration_limits(duration: FloatArray, classes: int) -> FloatArray:
    """Upper limits of `classes` classes of known durations with equally many impressions (fewer,
    where many are equal).
    """
    known = duration[duration > 0]
    if len(known):
        return np.unique(
            np.quantile(known, np.linspace(0, 1, classes + 1)[1:-1]).astype(np.float32)
        )
    return np.zeros(0, np.float32)


def duration_class(duration: FloatArray, limits: FloatArray) -> IntArray:
    """0 where the duration is unknown (not above 0), else 1, 2, ..., `len(limits) + 1`."""
    return np.where(duration > 0, np.searchsorted(limits, duration, side="left") + 1, 0).astype(
        np.int64
    )


def watch_edges(watch: FloatArray, bins: int) -> FloatArray:
    """Edges `[bins + 1]` of the bins of positive watch times, s: quantiles, closer in the upper
    tail, where the seconds are.

    The first edge is 0, the last is just above the longest watch time. A log that knows no watch
    time has no bin: one edge.
    """
    if np.isnan(watch).all():
        return np.zeros(1, dtype=np.float32)
    positive = watch[watch > 0]
    if not len(positive):
        return np.array([0.0, 1.0], dtype=np.float32)
    body = np.linspace(0, 0.95, max(bins - 8, 2))
    tail = 1 - 0.05 * 0.55 ** np.arange(1, 9)
    edges = np.unique(np.quantile(positive, np.concatenate((body, tail, [1.0]))).astype(np.float32))
    if len(edges) == 1:  # all of them are alike: the bin that ends there begins just below
        edges = np.array([0.0, np.nextafter(edges[0], np.float32(0)), edges[0]], dtype=np.float32)
    edges[0], edges[-1] = 0.0, np.nextafter(edges[-1], np.float32(np.inf))
    return edges
