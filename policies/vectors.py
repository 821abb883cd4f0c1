"""The base of all policies whose scores are inner products of query and item vectors of a torch
network: fitting, serving, validation.

`NetworkPolicy` is what holds however a network is trained, `VectorPolicy` what is trained in one
stage. What a network looks like belongs to the model's own file, how an epoch goes to `train`, the
loss to `losses`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from policies.base import (
    Catalogue,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Policy,
    Sequences,
    Slates,
)
from policies.blocks import by_length, one_thread, rows_on
from policies.device import device
from policies.losses import Loss, Objective
from policies.nearest import largest_product
from policies.operators import LARGE, Embedding
from policies.resident import Resident
from policies.retrieval import Exact, Index, Search, by_max
from policies.train import Training, seeded, train
from policies.validation import K, LastClicks


@dataclass(frozen=True)
class Begun:
    """Where a network stands after `B` histories, and how it goes on from there.

    Attributes:
        queries: `[B, I, d]` query vectors.
        after: from items `[B, W]`, each clicked by itself, 0 = none, to the query vectors
            `[B, W, I, d]` after that click.
    """

    queries: FloatArray
    after: Callable[[IntArray], FloatArray]


class Network(nn.Module, ABC):
    """From histories to query vectors, whose inner product with an item's vector is its score."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.items = Embedding(n_items + 1, width, padding_idx=0)

    @abstractmethod
    def last(self, items: Tensor, user: Tensor) -> Tensor:
        """The query vectors of whole histories.

        Args:
            items: `[B, L]` clicks, right-aligned, 0 = padding.
            user: `[B]` user id + 1, 0 = unknown.

        Returns:
            `[B, I, d]`, one for each of the model's interests.
        """

    def queries(self, items: IntArray, user: IntArray) -> FloatArray:
        """`last` of arrays of any number of rows: the same bytes for a row however they are
        batched.

        In blocks of fixed shapes; a network that reads histories without padding says so itself.
        """
        there = device_of(self)

        def compute(items: IntArray, user: IntArray) -> FloatArray:
            tensors = (torch.from_numpy(array).to(there) for array in (items, user))
            vectors: FloatArray = self.last(*tensors).float().cpu().numpy()
            return vectors

        return by_length(compute, items, user, size=rows_on(there))

    def vectors(self) -> Tensor:
        """The item vectors `[n_items + 1, d]` that query vectors are multiplied with; row 0 is
        never a candidate.
        """
        return self.items.weight


@dataclass(frozen=True)
class Batch:
    """Training samples.

    Attributes:
        items: `[B, L]` clicks, right-aligned, 0 = padding.
        targets: `[B, T]` what is to be found, 0 = nothing: after each place (T = L), or after the
            whole (T = 1).
        row: `[B]` of the user in the training sequences.
        user: `[B]` id + 1, 0 = unknown.
    """

    items: Tensor
    targets: Tensor
    row: Tensor
    user: Tensor


class Samples(Protocol):
    """What a model is trained on: numbered samples of known length and number of targets, put into
    batches.
    """

    lengths: IntArray
    targets: IntArray

    def batch(self, index: IntArray, device: str) -> Batch:
        """The samples at `index`, padded to the longest of them."""


@dataclass
class NetworkPolicy(Policy, ABC):
    """A policy that serves a torch network by inner products of query and item vectors, however the
    network is trained.

    A subclass says what an untrained network is, how it learns, and what its query vectors are.

    Attributes:
        search: exact or approximate search at serving.
        device: where requests are answered. On `cuda` the network computes in double precision, so
            that the order in which a GPU adds does not show in its vectors in single precision;
            exact search gives the CPU's bytes, approximate search is the CPU's.
    """

    search: Search = field(default_factory=Search)
    device: Literal["cpu", "cuda"] = "cpu"

    serving_fields: ClassVar[frozenset[str]] = frozenset({"search", "device"})
    trains_on_device: ClassVar[bool] = True

    def at_least(self, least: int, *names: str) -> None:
        """Check hyper-parameters.

        Raises:
            ValueError: one of those named is less than `least`.
        """
        for name in names:
            if getattr(self, name) < least:
                raise ValueError(
                    f"the {name!r} parameter of {type(self).__name__} must be at least {least}; got"
                    f" {getattr(self, name)}"
                )

    @property
    @abstractmethod
    def holds_out(self) -> bool:
        """Whether `learn` keeps each user's last click from all training and validates on it."""

    @abstractmethod
    def network(self, n_users: int, n_items: int) -> nn.Module:
        """An untrained network, its weights drawn from torch's default generator."""

    @abstractmethod
    def learn(
        self, network: Any, sequences: Sequences, catalogue: Catalogue, fitting: Fitting
    ) -> None:
        """Move `network` to `fitting.device` and train it in place; `self` serves it already."""

    @abstractmethod
    def queries(self, histories: Histories) -> FloatArray:
        """Query vectors `[B, I, d]`, the same bytes for a request however requests are batched."""

    def begin(self, histories: Histories) -> Begun:
        """Where the network stands after histories. Every further click reads them anew here; a
        network that remembers them goes on from its memory.
        """

        def after(clicked: IntArray) -> FloatArray:
            return np.stack([self.queries(histories.then(item)) for item in clicked.T], axis=1)

        return Begun(self.queries(histories), after)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Train a network on the clicks of `sequences`; with early stopping each user's last click
        is held out for validation.

        Raises:
            ValueError: hyper-parameters that do not go with so many items.
        """
        for keys, rule in self.misfits(catalogue.n_items):
            raise ValueError(f"{type(self).__name__}: {'.'.join(keys)}: {rule}")
        with seeded(fitting.seed, "weights"):
            network = self.network(catalogue.n_users, catalogue.n_items)
        self._serve(network, catalogue.n_users, catalogue.n_items)
        self.answering_ = network  # while it learns, by itself
        self.learn(network, sequences, catalogue, replace(fitting, identity=self.fit_key()))
        self._serve(network.cpu(), catalogue.n_users, catalogue.n_items)
        return self

    def _serve(self, network: nn.Module, n_users: int, n_items: int) -> None:
        """Answer from this network from now on."""
        self.network_, self.n_users_, self.n_items_ = network.eval(), n_users, n_items
        self.search_in_: Path | None = None
        for derived in ("answering_", "index_", "vectors_"):
            self.__dict__.pop(derived, None)

    def _fitted(self) -> Any:
        """The network that is served."""
        if not hasattr(self, "network_"):
            raise ValueError(
                f"{type(self).__name__} has learned nothing yet: call `fit`, `load` or `restore`"
                " first"
            )
        return self.network_

    @cached_property
    def answering_(self) -> Any:
        """The network that answers requests, where it does so.

        Raises:
            DeviceError: there is no such device here.
        """
        network = self._fitted()
        if self.device == "cpu":
            return network
        return elsewhere(
            network, device(self.device, f"the 'device' of {type(self).__name__}", "cpu")
        )

    @cached_property
    def index_(self) -> Index:
        """The search index over the item vectors: a saved one, or built when first used."""
        there = device_of(self.answering_)
        search, folder, kept = self.searched, self.search_in_, None
        if self.device != "cpu" and search.kind == "exact":
            return Resident(self.vectors_, there)
        if folder is not None:
            kept = search.saved(self._index_in(folder, search))
        return search.index(self.vectors_) if kept is None else kept

    @property
    def searched(self) -> Search:
        """How items are searched."""
        return self.search

    def save_search(self, folder: Path) -> None:
        """Build the search index and save it, where that takes long: an approximate one, or one
        over at least `LARGE` items.
        """
        search = self.searched
        if search.kind == "exact" and self.n_items_ < LARGE:
            return
        stem = self._index_in(folder, search)
        if search.saved(stem) is None:
            self.index_.save(stem)

    def take_search(self, folder: Path) -> None:
        """Search by the index that `save_search` saved in `folder`, if it did."""
        self.search_in_ = folder

    def _index_in(self, folder: Path, search: Search) -> Path:
        """What the names of the files of an index begin with."""
        import hashlib

        key = f"{self.fit_key()} {search}"
        return folder / f"index-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    @cached_property
    def vectors_(self) -> FloatArray:
        """The item vectors as they are served, `[n_items + 1, d]`."""
        return self.item_vectors()

    def item_vectors(self) -> FloatArray:
        """Item vectors `[n_items + 1, d]`; row 0 is padding."""
        with one_thread(), torch.inference_mode():
            return self._item_tensor().float().cpu().numpy().copy()

    def _item_tensor(self) -> Tensor:
        vectors: Tensor = self._fitted().vectors()
        return vectors

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Inner products `[B, n]` of `items` `[B, n]` with the query vector, the largest one where
        there are several.
        """
        return largest_product(self.queries(histories), self.vectors_, items)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The weights by name, and the numbers of users and items."""
        return {
            **weights_of(self._fitted()),
            "n_users": np.asarray(self.n_users_),
            "n_items": np.asarray(self.n_items_),
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""
        n_users, n_items = int(state["n_users"]), int(state["n_items"])
        with seeded(0, "weights"):
            network = self.network(n_users, n_items)
        load_weights(network, state)
        self._serve(network, n_users, n_items)
        return self


def elsewhere(network: nn.Module, where: str) -> nn.Module:
    """A copy of a network on the torch device `where`, in double precision."""
    return copy.deepcopy(network).double().to(where).eval()


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights lie."""
    return next(network.parameters()).device


def weights_of(network: nn.Module, prefix: str = "") -> dict[str, npt.NDArray[Any]]:
    """The weights of a network as arrays, by `prefix` and their names."""
    tensors = network.state_dict().items()
    return {prefix + name: tensor.cpu().numpy() for name, tensor in tensors}


def load_weights(
    network: nn.Module, state: Mapping[str, npt.NDArray[Any]], prefix: str = ""
) -> None:
    """Take the weights over that `weights_of` gave.

    Raises:
        KeyError: a weight is missing.
        RuntimeError: one has another shape.
    """
    names = network.state_dict().keys()
    network.load_state_dict(
        {name: torch.from_numpy(np.array(state[prefix + name])) for name in names}
    )


@dataclass
class VectorPolicy(NetworkPolicy, ABC):
    """A policy that recalls the items of largest inner product with the query vectors of a torch
    network, trained in one stage on one loss.

    Attributes:
        width: d, of the item vectors.
        loss: of the training.
        training: epochs, batch, learning rate, early stopping on NDCG@10 of each user's last click.
    """

    width: int = 64
    loss: Loss = field(default_factory=Loss)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        self.at_least(1, "width")

    @property
    def holds_out(self) -> bool:
        """Whether early stopping keeps each user's last click from training."""
        return self.training.patience > 0

    @abstractmethod
    def network(self, n_users: int, n_items: int) -> Network:
        """An untrained network, its weights drawn from torch's default generator."""

    @abstractmethod
    def reads(self) -> int:
        """How many clicks of a history the network is given."""

    @abstractmethod
    def samples(self, log: Sequences) -> Samples:
        """What is trained on."""

    @abstractmethod
    def batch_loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """The loss of a batch."""

    def prepare(
        self, network: Network, log: Sequences, catalogue: Catalogue, fitting: Fitting
    ) -> None:
        """What comes before the training proper (pre-training, item features); nothing unless a
        model says otherwise.
        """

    def learn(
        self, network: Network, sequences: Sequences, catalogue: Catalogue, fitting: Fitting
    ) -> None:
        """Prepare, then train on the samples of the log."""
        network.to(fitting.device)
        log, validate = sequences.clicks(), None
        if self.training.patience:
            sample = self.training.sample
            held_out = LastClicks(log, sample, fitting.seed, shortest_first=True)
            log = held_out.history
            validate = partial(self._ndcg, held_out) if len(held_out) else None
        self.prepare(network, log, catalogue, fitting)
        samples = self.samples(log)
        objective = Objective(self.loss, log, catalogue.n_items, fitting.device)

        def step(index: IntArray) -> Tensor:
            return self.batch_loss(network, samples.batch(index, fitting.device), objective)

        train(
            network,
            step,
            samples.lengths,
            self.training,
            fitting,
            validate=validate,
            targets=samples.targets,
        )

    def _ndcg(self, held_out: LastClicks) -> float:
        """NDCG@10 of the last clicks, by exact search."""
        index = Exact(self.item_vectors())
        reads, asks = self.reads(), self.asked_context()
        requests = (held_out.requests(block, reads, asks) for block in held_out.blocks())
        return held_out.ndcg(self._nearest(index, each, K).items for each in requests)

    def queries(self, histories: Histories) -> FloatArray:
        """Query vectors `[B, I, d]`, the same bytes for a request however requests are batched."""
        network: Network = self.answering_
        is_known = (histories.user >= 0) & (histories.user < self.n_users_)
        user = np.where(is_known, histories.user + 1, 0)
        with one_thread(), torch.inference_mode():
            return network.queries(histories.clicks(self.reads()), user)

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The k unseen items of largest inner product with the query vector (the nearest one, where
        there are several).
        """
        return self._nearest(self.index_, histories, k)

    def _nearest(self, index: Index, histories: Histories, k: int) -> Slates:
        """`recall` by any index."""
        queries = self.queries(histories)
        if queries.shape[1] > 1:
            return by_max(index, queries, k, histories.seen)
        return Slates(*index.search(queries[:, 0], k, histories.seen))
