"""PreTrain, FineTune, RecGPT, RecGPT1: one network in the paper's stages (4.2-4.3), and
autoregressive recall by quotas (4.4).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policies.base import (
    PADDING,
    TUNED,
    Catalogue,
    Fitting,
    FloatArray,
    Histories,
    IntArray,
    Sequences,
    Slates,
)
from policies.blocks import ROWS, one_thread
from policies.continuation import Chosen, Continuation, Continued, best_continuation
from policies.losses import Loss, Objective
from policies.mixture import Mixture, TransitionCounts
from policies.popularity import clicks_of_items
from policies.retrieval import Exact, Index, Search, shares
from policies.train import Training
from policies.vectors import Begun, NetworkPolicy, load_weights, weights_of
from recgpt.model import GPT, Layer, Shape
from recgpt.prompts import Prompts, converse, recent
from recgpt.spectral import spectral
from recgpt.tuning import pretrain, tune
from recgpt.validation import Validation
from recgpt.walk import Merge, Reading, Walk, real_clicks

MODEL, GENERATOR, MIXED = "model/", "generator/", "mixture/"
"""What the names of the network's weights, of its generator's, and of the mixture's counts begin
with in the state of a policy.
"""


@dataclass
class PreTrain(NetworkPolicy):
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
        windows: what of a longer history is trained on: the `last` tokens, or `all` in pieces.
        start: item vectors before training: `normal` draws, or `spectral`, from a singular value
            decomposition of the log.
        pretraining_loss: of pre-training; the paper's is `bce`.
        pretraining: epochs, batch, rate, early stopping by the NDCG@10 of each user's last click.
        counts: pool the network's probabilities with those of counted transitions, by the weight
            that is best on the validation clicks, with which epochs are compared, too (1 without
            validation); None = the network alone.
        weight: of these counts at serving; None: the one that was chosen, 0: the network alone.
        second: what comes after the first step. `argmax`: each step's best item is appended as the
            next click, as in the paper. `marginal`: an expectation over the likely next clicks
            (`policies.continuation`); one quota then ranks by it, several recall what follows each
            of the most likely next items, and a `merge` of them by score ranks by it, too.
        continuation: of a marginal second step: `beam` next items and the `share` of what follows
            them (both None: chosen on the validation clicks), over so many `candidates`.
    """

    shape: Shape = field(default_factory=Shape)
    quotas: tuple[int, ...] = (1,)
    merge: Merge = "interest"
    windows: Literal["last", "all"] = "all"
    start: Literal["normal", "spectral"] = "normal"
    pretraining_loss: Loss = field(default_factory=lambda: Loss("softmax"))
    pretraining: Training = field(default_factory=lambda: Training(epochs=60))
    counts: TransitionCounts | None = None
    weight: float | None = None
    second: Literal["argmax", "marginal"] = "argmax"
    continuation: Continuation = field(default_factory=Continuation)

    serving_fields: ClassVar[frozenset[str]] = NetworkPolicy.serving_fields | {
        "quotas",
        "merge",
        "weight",
        "second",
        "continuation",
    }

    def __post_init__(self) -> None:
        if self.weight is not None and (self.counts is None or not 0 <= self.weight < np.inf):
            raise ValueError(
                f"the 'weight' parameter of {type(self).__name__} is that of its 'counts', at least"
                f" 0 and finite; got {self.weight} with counts {self.counts}"
            )
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

    def network(self, n_users: int, n_items: int) -> GPT:
        """An untrained GPT; `learn` draws its weights."""
        return GPT(n_items, n_users, self.shape)

    def learn(
        self, network: GPT, sequences: Sequences, catalogue: Catalogue, fitting: Fitting
    ) -> None:
        """Pre-train, and tune where the class does; with early stopping each user's last click is
        held out for validation.
        """
        random = torch.Generator().manual_seed(fitting.seed % 2**63)
        network.initialise(random).to(fitting.device)
        self.source_ = self._source(sequences)
        self.generator_: GPT | None = None
        self.mixture_: Mixture | None = None
        validation = self._validation(sequences, self.pretraining.sample, fitting.seed)
        log = self._log(sequences, validation)
        self.clicks_ = clicks_of_items(log, catalogue.n_items).astype(np.float32)
        if self.counts is not None:
            self.mixture_ = Mixture(self.counts, 1.0).fit(log, catalogue, fitting)
        self._train(network, sequences, validation, fitting)
        for trained in (network, self.generator_):
            if trained is not None:
                trained.cpu()
        if self.mixture_ is not None and self.holds_out and len(validation):
            read = partial(self._read, length=self.shape.length)
            validation.ndcg_of(self._walk(self.mixture_), read, once=True)()
        self.chosen_ = Chosen()
        if self.holds_out and len(validation):
            longer = partial(self._read, length=self.shape.length - self.shape.masked)
            n_candidates = min(Chosen.candidates, catalogue.n_items)
            walk = self._walk(self.mixture_)
            self.chosen_ = best_continuation(validation.continued(walk, longer, n_candidates))

    def _validation(self, sequences: Sequences, most: int, seed: int) -> Validation:
        return Validation(sequences, most, seed, 4 * self.shape.length)

    def _log(self, sequences: Sequences, validation: Validation) -> Sequences:
        """What is trained on."""
        return validation.history if self.holds_out else sequences

    @property
    def holds_out(self) -> bool:
        """As of every `NetworkPolicy`; a stage that validates keeps the last clicks from all."""
        return self.pretraining.patience > 0

    def _source(self, sequences: Sequences) -> str:
        """Where prompts come from: `model`, `exposed` or `both`."""
        return "model"

    def _train(
        self, network: GPT, sequences: Sequences, validation: Validation, fitting: Fitting
    ) -> None:
        self._pretrain(network, sequences, validation, fitting)

    def _pretrain(
        self, network: GPT, sequences: Sequences, validation: Validation, fitting: Fitting
    ) -> None:
        log, n_items = self._log(sequences, validation), len(self.clicks_) - 1
        if self.start == "spectral":
            network.place(*spectral(log, n_items, self.shape.width, fitting.seed))
        clicks = log.clicks()
        objective = Objective(self.pretraining_loss, clicks, n_items, fitting.device)
        validate = None
        if self.pretraining.patience and len(validation):
            walk = Walk(network, "items", False, self.clicks_, self.mixture_)
            read = partial(recent, window=0, length=self.shape.length)
            validate = validation.ndcg_of(walk, read, once=True)
        with one_thread():
            pretrain(network, clicks, objective, self.pretraining, fitting, self.windows, validate)

    # Serving

    @property
    def layer(self) -> Layer:
        """What items are ranked by."""
        return "items"

    @property
    def _segmented(self) -> bool:
        """Whether the network is told which tokens are prompts."""
        return False

    @property
    def searched(self) -> Search:
        """How items are searched: a mixture looks at every item."""
        return self.search if self._served_mixture is None else Search()

    def _item_tensor(self) -> Tensor:
        model: GPT = self._fitted()
        return model.vectors(self.layer)

    def _walk(self, mixture: Mixture | None, continuation: Chosen | None = None) -> Walk:
        """Recall by the network as it is."""
        network, clicks = self.answering_, self.clicks_
        return Walk(network, self.layer, self._segmented, clicks, mixture, continuation)

    @property
    def _served_mixture(self) -> Mixture | None:
        """The counts that are pooled in at serving, with their weight there."""
        if self.mixture_ is None or self.weight is None:
            return self.mixture_
        return self.mixture_.weighted(self.weight) if self.weight > 0 else None

    @property
    def _continuation(self) -> Chosen | None:
        """Of the second step that is served."""
        return self.chosen_.over(self.continuation) if self.second == "marginal" else None

    def tokens(self, histories: Histories) -> Reading:
        """What the network reads of each history: tokens and segments `[B, length - steps + 1]`,
        right-aligned.

        The appended items of later steps take the places that are left free; where padding is read
        as well, they push the oldest out, and all `length` places are read at every step.
        """
        n_appended = 1 if self.second == "marginal" else len(self.quotas) - 1
        if not self.shape.masked:
            n_appended = 0
        return self._read(histories, self.shape.length - n_appended)

    def _read(self, histories: Histories, length: int) -> Reading:
        """The last `length` tokens of each history and their segments, `[B, length]`."""
        return recent(histories, 0, length)

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The items of the user's successive interests by their quotas, without repeats; the most
        clicked ones without any click.
        """
        n_steps = len(self.quotas)
        is_pool = self.merge == "pool" and self.second == "argmax"
        quotas = (k,) * n_steps if is_pool else shares(self.quotas, k)
        walk = self._walk(self._served_mixture, self._continuation)
        users, seen = histories.user, histories.seen
        with one_thread(), torch.inference_mode():
            reading = self.tokens(histories)
            slates = walk.slates(self.index_, quotas, reading, users, seen, self.merge)
        assert slates.interest is not None
        return Slates(slates.items[:, :k], slates.scores[:, :k], interest=slates.interest[:, :k])

    def continued(
        self, histories: Histories, candidates: int, beam: int, clicked: IntArray | None = None
    ) -> Continued:
        """As `policies.continuation.Continuing`, by the network and the counts that are served."""
        parts = []
        with one_thread(), torch.inference_mode():
            walk = self._walk(self._served_mixture)
            for start in range(0, len(histories), walk.at_once):
                rows = slice(start, start + walk.at_once)
                asked = histories.rows(rows)
                reading = self._read(asked, self.shape.length - self.shape.masked)
                given = None if clicked is None else clicked[rows]
                who = asked.user, asked.seen
                parts.append(walk.continued(self.index_, reading, *who, candidates, beam, given))
        return Continued.joined(parts)

    def queries(self, histories: Histories) -> FloatArray:
        """The query vector of the first interest, `[B, 1, d]`; the later ones follow from what it
        recalls.
        """
        with one_thread(), torch.inference_mode():
            return self._walk(None).queries(self.tokens(histories), histories.user)[:, None]

    def begin(self, histories: Histories) -> Begun:
        """As `NetworkPolicy.begin`, from one memory of the histories; these leave room for the
        click that comes.
        """
        with one_thread(), torch.inference_mode():
            reading = self._read(histories, self.shape.length - self.shape.masked)
            return self._walk(None).begin(reading, histories.user)

    def score(self, histories: Histories, items: IntArray) -> FloatArray:
        """Inner products `[B, n]` of `items` `[B, n]` with the query vector of the first interest;
        log probabilities of a mixture.
        """
        mixture = self._served_mixture
        if mixture is None:
            return super().score(histories, items)
        index = Exact(self.vectors_)
        with one_thread(), torch.inference_mode():
            tokens, segments = self.tokens(histories)
            query = self._walk(mixture).queries((tokens, segments), histories.user)
        parts = []
        for start in range(0, max(len(items), 1), ROWS):
            rows = slice(start, start + ROWS)
            clicks = real_clicks(tokens[rows], segments[rows], histories.user[rows])
            parts.append(mixture.scores(index.scores(query[rows]), clicks))
        return np.take_along_axis(np.concatenate(parts), items, axis=1)

    # Keeping

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The weights by name, the clicks of each item, and where prompts come from."""
        state = weights_of(self._fitted(), MODEL)
        if self.generator_ is not None:
            state |= weights_of(self.generator_, GENERATOR)
        if self.mixture_ is not None:
            state |= {MIXED + name: array for name, array in self.mixture_.state().items()}
        chosen = np.asarray([self.chosen_.beam, self.chosen_.share], dtype=np.float64)
        return {
            **state,
            "clicks": self.clicks_,
            "source": np.asarray(self.source_),
            "continuation": chosen,
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""
        self.clicks_, self.source_ = np.array(state["clicks"]), str(state["source"])
        beam, share = state.get("continuation", (Chosen.beam, Chosen.share))
        self.chosen_ = Chosen(int(beam), float(share))
        network = self._restored(state, MODEL)
        self.generator_ = None
        if any(name.startswith(GENERATOR) for name in state):
            self.generator_ = self._restored(state, GENERATOR)
        self.mixture_ = None
        if self.counts is not None:
            names = [name for name in state if name.startswith(MIXED)]
            counted = {name.removeprefix(MIXED): state[name] for name in names}
            self.mixture_ = Mixture(self.counts).restore(counted)
        self._serve(network, network.n_users, network.n_items)
        self._check_state()
        return self

    def _check_state(self) -> None:
        """Raises ValueError where a state lacks what these hyper-parameters need."""

    def _restored(self, state: Mapping[str, npt.NDArray[Any]], prefix: str) -> GPT:
        """The network whose weights begin with `prefix` in a state."""
        n_items = len(state[prefix + "items.weight"]) - 1
        users, n_users = state.get(prefix + "users.weight"), 0
        if users is not None:
            n_users = int(state.get(prefix + "users.n_users", len(users) - 1))
        network = self.network(n_users, n_items)
        load_weights(network, state, prefix)
        return network.eval()


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
    tuning: Training = field(default_factory=lambda: Training(epochs=40, rate=5e-4))

    @property
    def layer(self) -> Layer:
        """What items are ranked by."""
        return self.ranking

    @property
    def _segmented(self) -> bool:
        return True

    @property
    def holds_out(self) -> bool:
        """As of every `NetworkPolicy`; a stage that validates keeps the last clicks from all."""
        return self.pretraining.patience > 0 or self.tuning.patience > 0

    def _prompts(self) -> Prompts:
        return Prompts(0, "model")

    def _generator(self, network: GPT) -> GPT | None:
        """What prompts will be generated by as training goes on: the pre-trained network as it is
        now, or None.
        """
        return None

    def _prompt_index(self) -> Index | None:
        """The index by which prompts are found; None: all items are looked at."""
        return None

    @property
    def _reads_weights(self) -> bool:
        """Whether what is read of a history changes while the network is trained."""
        return False

    def _train(
        self, network: GPT, sequences: Sequences, validation: Validation, fitting: Fitting
    ) -> None:
        if self.pretrained:
            self._start_from(network, Path(self.pretrained))
        else:
            self._pretrain(network, sequences, validation, fitting)
        self.generator_ = self._generator(network)
        if self.tuning.sample != self.pretraining.sample:
            validation = self._validation(sequences, self.tuning.sample, fitting.seed)
        log, n_items = self._log(sequences, validation), len(self.clicks_) - 1
        objective = Objective(self.tuning_loss, log.clicks(), n_items, fitting.device)
        validate = None
        if self.tuning.patience and len(validation):
            read = partial(self._read, length=self.shape.length)
            walk = self._walk(self.mixture_)
            validate = validation.ndcg_of(walk, read, once=not self._reads_weights)
        prompts, source, windows = self._prompts(), self.source_, self.windows
        with one_thread():
            tuned = tune(
                network,
                log,
                prompts,
                source,
                objective,
                self.tuning,
                fitting,
                windows,
                validate,
                self._prompt_index(),
            )
        self.tuned_ = tuned.chosen

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """As of `PreTrain`, and the epochs of the tuning that the weights are the mean of."""
        return {**super().state(), TUNED: np.asarray(self.tuned_, dtype=np.int64)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""
        self.tuned_ = tuple(np.asarray(state.get(TUNED, ())).tolist())
        return super().restore(state)

    def _start_from(self, network: GPT, folder: Path) -> None:
        """Take over the weights of a saved PreTrain."""
        start = PreTrain(shape=self.shape)
        try:
            start.load(folder)
            network.load_state_dict(start._fitted().state_dict())
        except (FileNotFoundError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"the 'pretrained' parameter of {type(self).__name__} must be the folder of a saved"
                f" PreTrain of the same shape, users and items. Got {folder}:"
                f" {str(error).splitlines()[0]}"
            ) from error
        network.start_output()


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

    @property
    def _reads_weights(self) -> bool:
        return self._generates and self.prompts.anew

    def _generator(self, network: GPT) -> GPT | None:
        if not self._generates or self.prompts.anew:
            return None
        return copy.deepcopy(network).eval()

    def _prompt_index(self) -> Index | None:
        """That over the items of the pre-trained network: as it was saved, or built when first
        used.
        """
        search = self.prompts.search
        if self.generator_ is None or search.kind == "exact":
            return None
        kept: GPT | None
        index: Index | None
        kept, index = self.__dict__.get("prompted_", (None, None))
        if kept is not self.generator_:
            folder = self.search_in_
            index = None if folder is None else search.saved(self._prompts_in(folder))
            if index is None:
                vectors = self.generator_.vectors("items").detach().float().cpu().numpy()
                index = search.index(vectors)
            self.prompted_ = self.generator_, index
        return index

    def _prompts_in(self, folder: Path) -> Path:
        """What the names of the files of this index begin with."""
        return folder / f"prompts-{self._index_in(folder, self.prompts.search).name}"

    def save_search(self, folder: Path) -> None:
        """As of every `NetworkPolicy`, and the index of prompts."""
        super().save_search(folder)
        index, stem = self._prompt_index(), self._prompts_in(folder)
        if index is not None and self.prompts.search.saved(stem) is None:
            index.save(stem)

    def _check_state(self) -> None:
        if self._generates and not self.prompts.anew and self.generator_ is None:
            raise ValueError(
                f"this state of {type(self).__name__} lacks the pre-trained network that its"
                " prompts come from: fit it again"
            )

    def _read(self, histories: Histories, length: int) -> Reading:
        """As `PreTrain._read`, with the prompts between the items."""
        if not self._generates:
            return recent(histories, self.prompts.between, length)
        model, layer = self._fitted(), self.layer
        if self.generator_ is not None:
            model, layer = self.generator_, "items"
        log = _ragged(histories)
        index = self._prompt_index()
        dialogues = converse(model, log, self.prompts, self.source_, layer, ROWS, index)
        return dialogues.last(length)


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
