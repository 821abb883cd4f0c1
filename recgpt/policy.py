"""PreTrain, FineTune, RecGPT, RecGPT1: one network in the paper's stages (4.2-4.3), and
autoregressive recall by quotas (4.4).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch

from policies.base import (
    PADDING,
    Catalogue,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Policy,
    Sequences,
    Slates,
)
from policies.blocks import ROWS, one_thread
from policies.losses import Loss
from policies.nearest import largest_product
from policies.retrieval import Exact, Index, Search, shares, top_k
from policies.train import Training
from recgpt.mixture import Counts, Mixture
from recgpt.model import GPT, Layer, Shape
from recgpt.prompts import recent
from recgpt.smoothing import Smoothing
from recgpt.spectral import spectral
from recgpt.tuning import Goal, Prompts, converse, pretrain, tune
from recgpt.validation import Validation
from recgpt.walk import Reading, Walk, merged

MODEL, GENERATOR, MIXED = "model/", "generator/", "mixture/"
"""What the names of the network's weights, of its generator's, and of the mixture's counts begin
with in the state of a policy.
"""


@dataclass
class PreTrain(Policy):
    """The pre-trained GPT (4.2): next-item prediction on the clicks; recall by inner product.

    With one quota it recalls in one step (Variant 3 of Table 3), with two it is the two-step recall
    without tuning (Variant 1).

    Attributes:
        shape: size and form of the network.
        quotas: shares of the slate that the user's successive interests recall: the first hidden
            state recalls its share, its best item is appended to the history, the next hidden state
            recalls its own, and so on (4.4). (9, 1) at k = 10 is m = 9, n = 1; six equal quotas are
            the six online interests (5.5); (1,) is one step.
        merge: `interest`: the first interest's items first, as the paper's order m + n; `score`:
            the quotas' items by score; `pool`: every interest offers as many items as the slate
            has, whatever its quota, and the best by score are taken. Scores of different interests
            are log probabilities, and so comparable, where `counts` are pooled in; else they are
            inner products.
        search: exact or approximate search at serving.
        windows: what of a longer history is trained on: the `last` tokens, or `all` in pieces.
        start: item vectors before training: `normal` draws, or `spectral`, from a singular value
            decomposition of the log.
        pretraining_loss: of pre-training; the paper's is `bce`.
        pretraining: epochs, batch, rate, early stopping by the NDCG@10 of each user's last click.
        smoothing: of targets and inputs towards similar items, in both stages.
        counts: pool the network's probabilities with those of counted transitions, by a weight
            chosen on the validation clicks (1 without any, and while epochs are compared); None =
            the network alone.
    """

    shape: Shape = field(default_factory=Shape)
    quotas: tuple[int, ...] = (1,)
    merge: Literal["interest", "score", "pool"] = "interest"
    search: Search = field(default_factory=Search)
    windows: Literal["last", "all"] = "all"
    start: Literal["normal", "spectral"] = "normal"
    pretraining_loss: Loss = field(default_factory=lambda: Loss("softmax"))
    pretraining: Training = field(default_factory=lambda: Training(patience=3, epochs=60))
    smoothing: Smoothing = field(default_factory=Smoothing)
    counts: Counts | None = None

    serving_fields: ClassVar[frozenset[str]] = frozenset({"quotas", "merge", "search"})
    layer_: ClassVar[Layer] = "items"

    def __post_init__(self) -> None:
        try:
            shares(self.quotas, 1)
        except ValueError as error:
            raise ValueError(f"the 'quotas' parameter of {type(self).__name__}: {error}") from error
        if len(self.quotas) >= self.shape.length:
            raise ValueError(
                f"the 'quotas' parameter of {type(self).__name__} must have fewer entries than"
                f" shape.length ({self.shape.length}), because each step takes a place of the"
                f" history. Got {len(self.quotas)}."
            )

    # Fitting

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Pre-train, and tune where the class does; with early stopping each user's last click is
        held out for validation.
        """
        fitting = replace(fitting, identity=self.fit_key())
        random = torch.Generator().manual_seed(fitting.seed % 2**63)
        model = (
            GPT(catalogue.n_items, catalogue.n_users, self.shape)
            .initialise(random)
            .to(fitting.device)
        )
        clicks = np.bincount(sequences.clicks().items, minlength=catalogue.n_items + 1).astype(
            np.float32
        )
        source, validation = (
            self._source(sequences),
            Validation(self, sequences, self.pretraining.sample, fitting.seed),
        )
        known = validation.known if self._held_out else sequences
        mixture = (
            None
            if self.counts is None
            else Mixture(self.counts, 1.0).fit(known, catalogue, fitting)
        )
        self._take(model, clicks, source, mixture=mixture)
        self._train(sequences, validation, fitting)
        generator = self.generator_
        self._take(
            model.cpu(), clicks, source, None if generator is None else generator.cpu(), mixture
        )
        if mixture is not None and self._held_out and len(validation.rows):
            mixture.weight = validation.best_weight(mixture)
        return self

    @property
    def _held_out(self) -> bool:
        """Whether each user's last click is kept from all training, because a stage validates on
        it.
        """
        return self.pretraining.patience > 0

    def _source(self, sequences: Sequences) -> str:
        return "model"

    def _train(self, sequences: Sequences, validation: Validation, fitting: Fitting) -> None:
        self._pretrain(sequences, validation, fitting)

    def _pretrain(self, sequences: Sequences, validation: Validation, fitting: Fitting) -> None:
        known = validation.known if self._held_out else sequences
        if self.start == "spectral":
            items, vectors = spectral(known, len(self.clicks_) - 1, self.shape.width, fitting.seed)
            self.model_.place(items, vectors)
        goal = Goal.of(
            self.pretraining_loss, self.smoothing, known, len(self.clicks_) - 1, fitting.device
        )
        validate = (
            validation.of("items", PreTrain(self.shape))
            if self.pretraining.patience and len(validation.rows)
            else None
        )
        with one_thread():
            pretrain(self.model_, known, goal, self.pretraining, fitting, self.windows, validate)

    def _take(
        self,
        model: GPT,
        clicks: FloatArray,
        source: str,
        generator: GPT | None = None,
        mixture: Mixture | None = None,
    ) -> None:
        self.model_, self.clicks_, self.source_ = model.eval(), clicks, source
        self.generator_: GPT | None = generator
        self.mixture_: Mixture | None = mixture
        self.__dict__.pop("index_", None)

    # Serving

    @cached_property
    def index_(self) -> Index:
        """The search index over the item vectors, built when first used; a mixture looks at every
        item.
        """
        return (
            Exact(self.item_vectors())
            if self.counts is not None
            else self.search.index(self.item_vectors())
        )

    def item_vectors(self) -> FloatArray:
        """Item vectors `[n_items + 1, d]`; row 0 is padding."""
        with one_thread(), torch.inference_mode():
            return self._fitted().vectors(self.layer_).float().cpu().numpy().copy()

    def tokens(self, histories: Histories) -> Reading:
        """What the network reads of each history: tokens and segments `[B, length - steps + 1]`,
        right-aligned.

        The appended items of later steps take the places that are left free; where padding is read
        as well, they push the oldest out, and all `length` places are read at every step.
        """
        return recent(histories, 0, self._room)

    @property
    def _room(self) -> int:
        return self.shape.length - (len(self.quotas) - 1 if self.shape.masked else 0)

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The items of the user's successive interests by their quotas, without repeats; the most
        clicked ones without any click.
        """
        if self.merge != "pool":
            return self.nearest(self.index_, histories, k, shares(self.quotas, k))
        steps = len(self.quotas)
        found = self.nearest(self.index_, histories, k * steps, (k,) * steps)
        assert found.interest is not None
        return Slates(found.items[:, :k], found.scores[:, :k], interest=found.interest[:, :k])

    def nearest(
        self,
        index: Index,
        histories: Histories,
        k: int,
        quotas: tuple[int, ...],
        layer: Layer | None = None,
        reading: Reading | None = None,
    ) -> Slates:
        """`recall` by a given index and whole-numbered quotas; the slate is as long as their sum.
        `reading`: if known, what is read.
        """
        steps = max(i for i, quota in enumerate(quotas) if quota) + 1
        walk = Walk(
            self._fitted(),
            index,
            quotas[:steps],
            layer or self.layer_,
            self._segmented,
            self.mixture_,
        )
        with one_thread(), torch.inference_mode():
            tokens, segments = self.tokens(histories) if reading is None else reading
            known = np.where(histories.user >= 0, histories.user, -1)
            items, scores = walk(tokens, segments, known, histories.seen)
        interest = np.repeat(np.arange(steps), quotas[:steps])
        slates = merged(items, scores, interest, self.merge)
        cold = ~tokens.any(axis=1)
        if cold.any():
            popular = np.broadcast_to(self.clicks_, (int(cold.sum()), len(self.clicks_)))
            slates.items[cold], slates.scores[cold] = top_k(popular, k, histories.seen[cold])
            assert slates.interest is not None
            slates.interest[cold] = 0
        return slates

    @property
    def _segmented(self) -> bool:
        return False

    @property
    def reads_the_same(self) -> bool:
        """Whether what is read of a history stays the same while the network is trained."""
        return True

    def queries(self, histories: Histories) -> FloatArray:
        """The query vector of the first interest, `[B, 1, d]`; the later ones follow from what it
        recalls.
        """
        with torch.inference_mode():
            return self.asked(self.tokens(histories), histories.user)[:, None]

    def asked(self, reading: Reading, users: IntArray) -> FloatArray:
        """The query vector `[B, d]` of the first interest of `users` `[B]`, from what is read."""
        walk = Walk(self._fitted(), None, (1,), self.layer_, self._segmented)
        with one_thread(), torch.inference_mode():
            return walk.queries(*reading, users)

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Inner products `[B, n]` of `items` `[B, n]` with the query vector of the first interest;
        log probabilities of a mixture.
        """
        vectors = self.item_vectors()
        with torch.inference_mode():
            tokens, segments = self.tokens(histories)
        query = self.asked((tokens, segments), histories.user)
        if self.mixture_ is None:
            return largest_product(query[:, None], vectors, items)
        every = Exact(vectors)
        parts = [
            self.mixture_.scores(
                every.scores(query[rows]), tokens[rows], segments[rows], histories.user[rows]
            )
            for rows in (slice(start, start + ROWS) for start in range(0, max(len(items), 1), ROWS))
        ]
        return np.take_along_axis(np.concatenate(parts), items, axis=1)

    # Keeping

    def _fitted(self) -> GPT:
        if not hasattr(self, "model_"):
            raise ValueError(
                f"{type(self).__name__} has learned nothing yet: call `fit`, `load` or `restore`"
                " first"
            )
        return self.model_

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The weights by name, the clicks of each item, and where prompts come from."""
        weights = {
            MODEL + name: tensor.cpu().numpy()
            for name, tensor in self._fitted().state_dict().items()
        }
        if self.generator_ is not None:
            weights |= {
                GENERATOR + name: tensor.cpu().numpy()
                for name, tensor in self.generator_.state_dict().items()
            }
        mixed = (
            {}
            if self.mixture_ is None
            else {MIXED + name: array for name, array in self.mixture_.state().items()}
        )
        return {**weights, **mixed, "clicks": self.clicks_, "source": np.asarray(self.source_)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""
        model = self._network(state, MODEL)
        assert model is not None
        mixed = {
            name.removeprefix(MIXED): array
            for name, array in state.items()
            if name.startswith(MIXED)
        }
        mixture = None if self.counts is None else Mixture(self.counts).restore(mixed)
        self._take(
            model,
            np.array(state["clicks"]),
            str(state["source"]),
            self._network(state, GENERATOR),
            mixture,
        )
        self._complete()
        return self

    def _complete(self) -> None:
        """Raises ValueError where a state lacks what these hyper-parameters need."""

    def _network(self, state: Mapping[str, npt.NDArray[Any]], prefix: str) -> GPT | None:
        """The network whose weights begin with `prefix` in a state; None where there is none."""
        weights = {
            name.removeprefix(prefix): torch.from_numpy(np.array(a))
            for name, a in state.items()
            if name.startswith(prefix)
        }
        if not weights:
            return None
        users = weights.get("users.weight")
        model = GPT(
            len(weights["items.weight"]) - 1, 0 if users is None else len(users) - 1, self.shape
        )
        model.load_state_dict(weights)
        return model.eval()


@dataclass
class FineTune(PreTrain):
    """Pre-training, then full softmax on the same histories through the output layer, without
    prompts: the paper's "Fine-tuning".

    Attributes:
        ranking: what items are ranked by: `output`, the layer that was tuned; `items`, the item
            embedding (eq. 6).
        tuning_loss: the paper's is `softmax`.
        tuning: epochs, batch, rate, early stopping.
        pretrained: folder of a saved PreTrain of the same shape, from whose weights tuning starts;
            "" = pre-train first.
    """

    pretrained: str = ""
    ranking: Layer = "output"
    tuning_loss: Loss = field(default_factory=lambda: Loss("softmax"))
    tuning: Training = field(default_factory=lambda: Training(patience=3, epochs=40, rate=5e-4))

    def _prompts(self) -> Prompts:
        return Prompts(0, "model")

    @property
    def _held_out(self) -> bool:
        return self.pretraining.patience > 0 or self.tuning.patience > 0

    def _generator(self) -> GPT | None:
        """What prompts will be generated by, as training goes on: the pre-trained network as it is
        now, or None.
        """
        return None

    def _train(self, sequences: Sequences, validation: Validation, fitting: Fitting) -> None:
        if self.pretrained:
            self._start_from(Path(self.pretrained))
        else:
            self._pretrain(sequences, validation, fitting)
        self.generator_ = self._generator()
        if self.tuning.sample != self.pretraining.sample:
            validation = Validation(self, sequences, self.tuning.sample, fitting.seed)
        known = validation.known if self._held_out else sequences
        goal = Goal.of(
            self.tuning_loss, self.smoothing, known, len(self.clicks_) - 1, fitting.device
        )
        validate = (
            validation.of(self.layer_, self.with_params(quotas=(1,)))
            if self.tuning.patience and len(validation.rows)
            else None
        )
        with one_thread():
            tune(
                self.model_,
                known,
                self._prompts(),
                self.source_,
                goal,
                self.tuning,
                fitting,
                self.windows,
                validate,
            )

    def _start_from(self, folder: Path) -> None:
        """Take over the weights of a saved PreTrain."""
        start = PreTrain(self.shape)
        try:
            start.load(folder)
            self.model_.load_state_dict(start.model_.state_dict())
        except (FileNotFoundError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"the 'pretrained' parameter of {type(self).__name__} must be the folder of a saved"
                f" PreTrain of the same shape, users and items. Got {folder}:"
                f" {str(error).splitlines()[0]}"
            ) from error
        self.model_.start_output()

    @property
    def layer_(self) -> Layer:  # type: ignore[override]
        """What items are ranked by."""
        return self.ranking

    @property
    def _segmented(self) -> bool:
        return True


@dataclass
class RecGPT(FineTune):
    """Prompt-tuned GPT with autoregressive recall (4.3-4.4).

    Attributes:
        prompts: their number, source and form.
    """

    quotas: tuple[int, ...] = (9, 1)
    prompts: Prompts = field(default_factory=Prompts)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompts.form == "tail" and self.shape.masked:
            raise ValueError(
                "prompts of the form 'tail' end at the last place of a full window, which a network"
                " that does not read padding has not: set shape.masked to false, or prompts.form to"
                " 'between'"
            )

    def _prompts(self) -> Prompts:
        return self.prompts

    def _source(self, sequences: Sequences) -> str:
        unclicks = not sequences.clicked.all()
        if self.prompts.source == "exposed" and not unclicks:
            raise ValueError(
                "the 'prompts.source' of RecGPT is 'exposed', but no impression of this log is an"
                " unclick; use 'model' or 'either'"
            )
        if self.prompts.source != "either":
            return self.prompts.source
        return "exposed" if unclicks and self.prompts.form == "between" else "model"

    @property
    def _generates(self) -> bool:
        """Whether a history is read with prompts that a network makes."""
        return self.prompts.between > 0 and self.source_ != "exposed"

    def _generator(self) -> GPT | None:
        return (
            copy.deepcopy(self.model_).eval() if self._generates and not self.prompts.anew else None
        )

    def _complete(self) -> None:
        if self._generates and not self.prompts.anew and self.generator_ is None:
            raise ValueError(
                f"this state of {type(self).__name__} lacks the pre-trained network that its"
                " prompts come from: fit it again"
            )

    @property
    def reads_the_same(self) -> bool:
        """Unless its prompts are made anew."""
        return not (self._generates and self.prompts.anew)

    def tokens(self, histories: Histories) -> Reading:
        """As `PreTrain.tokens`, with the prompts between the items."""
        if not self._generates:
            return recent(histories, self.prompts.between, self._room)
        model, layer = (
            self.generator_ or self._fitted(),
            (self.layer_ if self.generator_ is None else "items"),
        )
        return converse(model, _ragged(histories), self.prompts, self.source_, layer, ROWS).last(
            self._room
        )


@dataclass
class RecGPT1(RecGPT):
    """RecGPT with one-step recall (Variant 2 of Table 3); its fit is that of RecGPT."""

    quotas: tuple[int, ...] = (1,)

    fitted_as: ClassVar[str] = "recgpt.policy:RecGPT"


def _ragged(histories: Histories) -> Sequences:
    """The impressions of a batch of requests as sequences, a row for each request."""
    shown = histories.items != PADDING
    offsets = np.concatenate(([0], np.cumsum(shown.sum(axis=1)))).astype(np.int64)
    items = histories.items[shown]
    return Sequences(
        histories.user,
        offsets,
        items,
        histories.clicked[shown],
        np.zeros(len(items), dtype=np.int64),
    )
