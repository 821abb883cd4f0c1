"""The one trainer: epochs, early stopping, averaging, checkpoints. It knows no model, no loss and
no data.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from policies.adam import Adam
from policies.base import Fitting, IntArray, Params
from policies.blocks import length_batches, one_thread
from policies.ranks import Summand
from policies.staging import staging_of

RISE = 0.03
"""Share of the steps over which a rate that is not constant rises."""


@dataclass
class Training(Params):
    """How a model is trained.

    Attributes:
        epochs: at most.
        batch: sequences of a batch, on average.
        rate: learning rate of Adam (Kingma & Ba 2015; beta .9 and .999).
        schedule: `constant`, or `linear`: the rate rises from 0 over the first `RISE` of the steps
            of all `epochs` and falls linearly to 0 at their end (Devlin et al., NAACL 2019).
        decay: L2 penalty of all parameters.
        clip: largest norm of the gradient; 0 = no clipping.
        patience: stop after so many validations without a better NDCG@10, and keep the best
            weights, those of the start among them; 0 = train all epochs on all data and keep the
            last weights.
        every: epochs from one validation to the next.
        sample: users of a validation, at most.
        average: the result is the mean of the weights of so many best validated epochs (uniform
            soup, Wortsman et al. 2022), unless the best one alone validates better; without
            validation, of the last epochs (Izmailov et al. 2018).
        microbatches: a batch is cut into so many, a power of two, whose gradients are added: less
            memory, and as many processes may train together (`policies.ranks`), to the same bytes
            as one. Each draws random numbers and shared negatives of its own and counts by its
            targets.
    """

    epochs: int = 100
    batch: int = 256
    rate: float = 1e-3
    schedule: Literal["constant", "linear"] = "constant"
    decay: float = 0.0
    clip: float = 0.0
    patience: int = 10
    every: int = 1
    sample: int = 10_000
    average: int = 1
    microbatches: int = 1

    def __post_init__(self) -> None:
        smallest = {"epochs": 0, "batch": 1, "patience": 0, "every": 1, "sample": 1, "average": 1}
        for name, bound in smallest.items():
            value = getattr(self, name)
            if value < bound:
                raise ValueError(
                    f"the {name!r} of a training must be at least {bound}; got {value}"
                )
        if not self.rate > 0:
            raise ValueError(f"the 'rate' of a training must be above 0; got {self.rate}")
        if self.microbatches < 1 or self.microbatches & (self.microbatches - 1):
            raise ValueError(
                "the 'microbatches' of a training must be a power of two (1, 2, 4, ...), so that"
                f" their sum is one tree whoever computes them; got {self.microbatches}"
            )

    def rate_at(self, done: float) -> float:
        """The learning rate where a share `done` of all steps, within 0..1, is done."""
        if self.schedule == "constant":
            return self.rate
        return self.rate * min(done / RISE, (1 - done) / (1 - RISE))


@contextmanager
def seeded(seed: int, *key: int | str) -> Iterator[None]:
    """torch's default generators seeded by `seed` and `key`, and put back afterwards."""
    with torch.random.fork_rng():
        _seed(_sequence(seed, *key))
        yield


def _seed(sequence: np.random.SeedSequence) -> None:
    state = sequence.generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state >> np.uint64(1)))  # torch takes 63 bits


def _sequence(seed: int, *key: int | str) -> np.random.SeedSequence:
    numbers = [part if isinstance(part, int) else zlib.crc32(part.encode()) for part in key]
    return np.random.SeedSequence([seed, *numbers])


@dataclass(frozen=True)
class KeptEpoch:
    """The weights after an epoch, and what epochs are compared by: NDCG@10, or without validation
    the epoch's number.
    """

    value: float
    epoch: int
    weights: dict[str, Tensor]


@dataclass
class TrainingState:
    """Where a training stands after some epochs: what a checkpoint holds besides the model and its
    optimiser.

    Attributes:
        epoch: epochs done.
        waited: validations since the best one.
        kept: the epochs that the result is averaged over, best first.
        losses: mean loss of each epoch.
        figures: NDCG@10 of each validated epoch, by epoch; 0 is the start.
        chosen: the epochs whose mean weights the result is, ascending; (0,) where the start was
            kept, () until the training has ended.
    """

    epoch: int = 0
    waited: int = 0
    kept: list[KeptEpoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    figures: dict[int, float] = field(default_factory=dict)
    chosen: tuple[int, ...] = ()

    def keep(self, value: float, weights: dict[str, Tensor], most: int) -> None:
        """Keep `weights` if they are among the `most` best so far (the earlier one of two equal
        ones).
        """
        before = self.kept[0].value if self.kept else -math.inf
        self.waited = 0 if value > before else self.waited + 1
        if len(self.kept) < most or value > self.kept[-1].value:
            copy = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
            kept = [*self.kept, KeptEpoch(value, self.epoch, copy)]
            self.kept = sorted(kept, key=lambda one: -one.value)[:most]


def train(
    model: nn.Module,
    step: Callable[[IntArray], Tensor],
    lengths: IntArray,
    training: Training,
    fitting: Fitting,
    *,
    stage: str = "fit",
    validate: Callable[[], float] | None = None,
    targets: IntArray | None = None,
    before_epoch: Callable[[], None] | None = None,
) -> TrainingState:
    """Train `model` in place by Adam and leave the chosen weights in it.

    The random numbers of an epoch depend on (`fitting.seed`, `stage`, epoch) only, so that a
    resumed training ends as an uninterrupted one.

    Args:
        model: whose parameters are trained, on its device.
        step: from the rows of a batch, or of a micro-batch, to their mean loss; may draw from
            torch's default generators.
        lengths: `[N]` length of each row; batches hold rows of similar length.
        training: epochs, batch, rate, early stopping.
        fitting: seed, progress callback, checkpoint folder, ranks.
        stage: names the training in progress, messages and its checkpoint.
        validate: NDCG@10 of the model as it is (in `eval` mode), or None.
        targets: `[N]` what each row has to predict, so that batches hold about the same number of
            them; None: one each.
        before_epoch: called before every epoch, to renew what is trained on; may change the mode of
            `model`.

    Raises:
        ValueError: nothing to train on, a loss that is not finite, or a checkpoint of another
            training.
    """
    if len(lengths) == 0:
        raise ValueError(
            f"{stage}: there is nothing to train on: no user of the log has a click that follows"
            " another one"
        )
    if validate is not None:
        validate = fitting.ranks.agreed(validate)
    weights = np.ones_like(lengths) if targets is None else np.maximum(targets, 1)
    optimizer = Adam(model.parameters(), training.rate, training.decay)
    checkpoint = _checkpoint(training, fitting, stage, lengths, targets)
    progress = TrainingState()
    if checkpoint is not None and fitting.resume:
        progress = checkpoint.read(model, optimizer)
    patience = training.patience if validate is not None else 0
    with one_thread():
        if validate is not None and patience and not progress.figures:
            model.eval()
            progress.figures[0] = validate()
            progress.keep(progress.figures[0], model.state_dict(), training.average)
        while progress.epoch < training.epochs and not (patience and progress.waited >= patience):
            progress.epoch += 1
            epoch = progress.epoch
            generator = np.random.default_rng(_sequence(fitting.seed, stage, "batches", epoch))
            batches = length_batches(lengths, training.batch, generator, targets=targets)
            with seeded(fitting.seed, stage, epoch):
                if before_epoch is not None:
                    before_epoch()
                name = stage, epoch
                steps = _Batches(model, optimizer, step, training, fitting, weights, name)
                loss = steps.pass_over(batches)
                progress.losses.append(loss)
                figures = {"loss": loss}
                if validate is not None and patience and epoch % training.every == 0:
                    model.eval()
                    progress.figures[epoch] = figures["ndcg@10"] = validate()
                    progress.keep(figures["ndcg@10"], model.state_dict(), training.average)
                elif not patience and epoch > training.epochs - training.average:
                    progress.keep(float(epoch), model.state_dict(), training.average)
            if fitting.ranks.is_first:
                if checkpoint is not None:
                    checkpoint.write(model, optimizer, progress)
                fitting.progress(stage, epoch, training.epochs, figures)
        _take_best(model, progress, validate if patience else None)
    return progress


def _checkpoint(
    training: Training,
    fitting: Fitting,
    stage: str,
    lengths: IntArray,
    targets: IntArray | None,
) -> Checkpoint | None:
    """The checkpoint of a training, or None where none is kept. More epochs of the same training
    have the same one, where its rate is constant.
    """
    if fitting.folder is None:
        return None
    rows = [lengths] if targets is None else [lengths, targets]
    is_constant = training.schedule == "constant"
    identity = {
        "training": {**asdict(training), **({"epochs": None} if is_constant else {})},
        "seed": fitting.seed,
        "policy": fitting.identity,
        "data": [zlib.crc32(np.ascontiguousarray(part).tobytes()) for part in rows],
    }
    file = fitting.folder / f"{stage}.safetensors"
    return Checkpoint(file, json.dumps(identity, sort_keys=True))


def _take_best(
    model: nn.Module, progress: TrainingState, validate: Callable[[], float] | None
) -> None:
    """Leave the mean of the kept weights in `model`; the best ones alone where they validate
    better. The progress says which epochs they are of.
    """
    kept = progress.kept
    if kept:
        model.load_state_dict(mean_weights([one.weights for one in kept]))
    model.eval()
    if validate is not None and len(kept) > 1 and validate() < kept[0].value:
        kept = kept[:1]
        model.load_state_dict(kept[0].weights)
    progress.chosen = tuple(sorted(one.epoch for one in kept)) or (progress.epoch,)


@dataclass(frozen=True)
class _Batches:
    """The batches of an epoch, and how the loss and the gradient of one are made of its
    micro-batches.

    Attributes:
        model: whose gradients are taken.
        optimizer: of the model.
        step: as of `train`.
        training: how.
        fitting: seed and ranks.
        weights: `[N]` what each row counts.
        name: stage and epoch.
    """

    model: nn.Module
    optimizer: Adam
    step: Callable[[IntArray], Tensor]
    training: Training
    fitting: Fitting
    weights: IntArray
    name: tuple[str, int]

    def pass_over(self, batches: Sequence[IntArray]) -> float:
        """Train on all batches; their mean loss."""
        stage, epoch = self.name
        self.model.train()
        total = 0.0
        for number, rows in enumerate(batches):
            done = (epoch - 1 + (number + 0.5) / len(batches)) / self.training.epochs
            self.optimizer.rate = self.training.rate_at(done)
            value = self._gradient(number, rows)
            if not math.isfinite(value):
                raise ValueError(
                    f"{stage}: the loss must be finite; got {value} in epoch {epoch}, batch"
                    f" {number + 1} of {len(batches)}: lower the learning rate (now"
                    f" {self.training.rate}) or set a gradient clip (now {self.training.clip})"
                )
            if self.training.clip > 0:
                self.optimizer.clip(self.training.clip)
            self.optimizer.step()
            total += value
        return total / len(batches)

    def _gradient(self, number: int, rows: IntArray) -> float:
        """Leave the gradient of a batch in the parameters; its loss."""
        parts, ranks = self.training.microbatches, self.fitting.ranks
        if parts == 1:
            return self._of_part(rows, 1.0)
        whole = ranks.total(self._sum(number, rows, ranks.share(parts)), parts, self._parameters)
        for parameter, gradient in zip(self._parameters, whole.gradients, strict=True):
            parameter.grad = gradient
        return whole.loss

    def _sum(self, number: int, rows: IntArray, share: range) -> Summand:
        """The sum over some micro-batches, as a binary tree."""
        if len(share) > 1:
            half = len(share) // 2
            first = self._sum(number, rows, share[:half])
            return first.plus(self._sum(number, rows, share[half:]))
        part = share[0]
        # Batches are sorted by length: so the rows of all parts are of about the same lengths
        mine = rows[part :: self.training.microbatches]
        if len(mine) == 0:
            return Summand(0.0, [None] * len(self._parameters))
        _seed(_sequence(self.fitting.seed, *self.name, number, part))
        weight = float(self.weights[mine].sum() / self.weights[rows].sum())
        loss = self._of_part(mine, weight)
        gradients = (parameter.grad for parameter in self._parameters)
        return Summand(
            loss, [g.coalesce() if g is not None and g.is_sparse else g for g in gradients]
        )

    def _of_part(self, rows: IntArray, weight: float) -> float:
        """Leave the gradient of the mean loss of some rows, times `weight`, in the parameters; the
        loss, times `weight`.
        """
        self.optimizer.forget()
        loss = self.step(rows)
        if loss.requires_grad:  # a few rows may have nothing to learn
            loss.backward(torch.full_like(loss, weight))  # type: ignore[no-untyped-call]
        return weight * loss.item()

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return self.optimizer.parameters


def mean_weights(weights: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of several models' weights, name by name; whole numbers are taken from the first."""
    first = weights[0]
    if len(weights) == 1:
        return first
    mean = dict(first)
    for name, tensor in first.items():
        if tensor.is_floating_point():
            mean[name] = torch.stack([each[name] for each in weights]).mean(0)
    return mean


def _digest(tensors: Mapping[str, Tensor], note: str) -> str:
    """BLAKE2b-256 of named tensors and of the note that is stored with them."""
    whole = hashlib.blake2b(note.encode(), digest_size=32)
    for name in sorted(tensors):
        whole.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        whole.update(tensors[name].cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


class Checkpoint:
    """A training in one safetensors file, written by rename after every epoch; `identity` tells it
    from other trainings.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity

    def write(self, model: nn.Module, optimizer: Adam, progress: TrainingState) -> None:
        """Write model, optimiser and progress.

        Raises:
            OSError: the file cannot be written.
        """
        from safetensors.torch import save

        tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
        for number, slots in optimizer.state().items():
            tensors |= {f"optimizer/{number}/{slot}": value for slot, value in slots.items()}
        for place, one in enumerate(progress.kept):
            tensors |= {f"kept/{place}/{name}": tensor for name, tensor in one.weights.items()}
        note = {
            "epoch": progress.epoch,
            "waited": progress.waited,
            "losses": progress.losses,
            "figures": progress.figures,
            "kept": [(one.value, one.epoch) for one in progress.kept],
            "identity": self.identity,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staging = staging_of(self.path)
        copies = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        text = json.dumps(note)
        metadata = {"progress": text, "digest": _digest(copies, text)}
        staging.write_bytes(save(copies, metadata))
        staging.rename(self.path)

    def read(self, model: nn.Module, optimizer: Adam) -> TrainingState:
        """Take model and optimiser over from the file; where there is none, nothing changes and
        epoch is 0.

        Raises:
            ValueError: the file is damaged, or of another training (policy, parameters, seed,
                lengths of the data or shapes differ).
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return TrainingState()
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
            if metadata["digest"] != _digest(tensors, metadata["progress"]):
                raise ValueError("its digest is another one")
            note = json.loads(metadata["progress"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"checkpoint {self.path} is damaged ({error}): remove it, and the training starts"
                " anew"
            ) from error
        state = {
            name.removeprefix("model/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("model/")
        }
        if note["identity"] != self.identity or _shapes(state) != _shapes(model.state_dict()):
            raise ValueError(
                f"checkpoint {self.path} is of another training (policy, parameters, seed, data or"
                " shapes): remove it, or do not resume"
            )
        model.load_state_dict(state)
        slots: dict[int, dict[str, Any]] = {}
        kept = [KeptEpoch(value, epoch, {}) for value, epoch in note["kept"]]
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            number, _, slot = rest.partition("/")
            if kind == "optimizer":
                slots.setdefault(int(number), {})[slot] = tensor
            elif kind == "kept":
                kept[int(number)].weights[slot] = tensor
        optimizer.restore(slots)
        figures = {int(epoch): value for epoch, value in note["figures"].items()}
        return TrainingState(
            note["epoch"],
            note["waited"],
            kept,
            note["losses"],
            figures,
        )
