"""Any network's probabilities pooled with counted transitions, by a weight chosen on validation
clicks. No model lives here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

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
from policies.blocks import ROWS, one_thread
from policies.continuation import (
    BEAMS,
    CHUNK,
    Chosen,
    Continuation,
    Continued,
    best_continuation,
    distribution,
)
from policies.mixture import WEIGHTS, Mixture, TransitionCounts, gains_by_weight
from policies.registry import make
from policies.retrieval import Exact, Ranked, top_k, top_k_of
from policies.scored import Scored
from policies.validation import K, LastClicks
from policies.vectors import NetworkPolicy
from policies.withheld import recall_withholding

BASE, MIXTURE = "base/", "mixture/"
"""What the names of the base policy's arrays and of the counts' begin with in the state; those of
further members begin with their number.
"""

READ = 128
"""Impressions of a history that the weight is chosen by."""


@dataclass
class PooledNetwork(Scored):
    """The network of another policy, pooled with counted transitions as RecGPT's own `counts` are
    (`policies.mixture`): what a network gains by the pool alone.

    Each user's last click chooses the weight of the counts, and neither the network nor the counts
    have learned from it. The network's epochs are compared without the counts. Its scores should be
    log probabilities, as those of a softmax are; of several interests the nearest one counts.

    Several `members` are fits of the base policy with seeds of their own, whose inner products are
    averaged: a geometric mean of their probabilities (Genest & Zidek 1986; of networks that differ
    by their seeds: Lakshminarayanan et al., "Deep Ensembles", NeurIPS 2017).

    Attributes:
        policy: name of the base policy, one that serves inner products of a network.
        policy_params: its hyper-parameters.
        members: fits of the base policy.
        counts: what is pooled in.
        weight: of the counts at serving; None: the one of best NDCG@10 on the validation clicks (1
            without any), 0: the network alone.
        continuation: of a second step in expectation (`policies.continuation`) by the whole pool;
            its beam and share are chosen on the validation clicks where they are left open. None:
            one step.
        chooses: whether the fit makes that choice; else what is left open is as without
            validation. Where there are six members it takes nearly as long as one of them.
        sample: users of the validation, at most.
    """

    serving_fields: ClassVar[frozenset[str]] = frozenset({"weight", "continuation"})

    policy: str = "sasrec"
    policy_params: dict[str, Any] = field(default_factory=dict)
    members: int = 1
    counts: TransitionCounts = field(default_factory=TransitionCounts)
    weight: float | None = None
    continuation: Continuation | None = None
    chooses: bool = True
    sample: int = 10_000

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight < np.inf:
            raise ValueError(
                "the 'weight' parameter of PooledNetwork must be at least 0 and finite; got"
                f" {self.weight}"
            )
        for name in ("members", "sample"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"the {name!r} of PooledNetwork must be at least 1; got {getattr(self, name)}"
                )
        self.bases_ = [self._unfitted() for _ in range(self.members)]

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Train the networks and count, all without each user's last click; then choose the
        weight, and by it, if asked to, the beam and the share of a second step.
        """
        held_out = LastClicks(sequences, self.sample, fitting.seed, shortest_first=True)
        known = sequences if self.bases_[0].holds_out else held_out.history
        for number, base in enumerate(self.bases_):
            base.fit(known, catalogue, _fitting_of(number, fitting))
        self.mixture_ = Mixture(self.counts, 1.0).fit(held_out.history, catalogue, fitting)
        self._serve()
        self.chosen_ = Chosen()
        if len(held_out):
            self.mixture_.weight = self._best_weight(held_out)
            if self.chooses:
                self.chosen_ = best_continuation(self._expected(held_out, catalogue.n_items))
        return self

    def _best_weight(self, held_out: LastClicks) -> float:
        """The smallest of WEIGHTS that has the best NDCG@10."""
        gains = np.zeros(len(WEIGHTS))
        for block in held_out.blocks():
            asked = held_out.requests(block, READ, self.asked_context())
            target = held_out.target[block]
            for start in range(0, len(asked), ROWS):
                rows = slice(start, start + ROWS)
                some = asked.rows(rows)
                pair = self._inner(some), self.mixture_.log_shares(some)
                gains += gains_by_weight(*pair, target[rows], some.seen, K)
        return WEIGHTS[int(gains.argmax())]

    def _expected(self, held_out: LastClicks, n_items: int) -> Iterator[tuple[Continued, IntArray]]:
        """What comes after the next item, and the item that is looked for."""
        n_candidates = min(Chosen.candidates, n_items)
        for block in held_out.blocks():
            asked = held_out.requests(block, READ, self.asked_context())
            found = self._continued(self.mixture_, asked, n_candidates, max(BEAMS), None)
            yield found, held_out.target[block]

    def _serve(self) -> None:
        """Search the item vectors of the members from now on."""
        self._indexes = [Exact(base.item_vectors()) for base in self.bases_]

    def _inner(self, histories: Histories) -> FloatArray:
        """Inner products `[B, n_items + 1]` with the nearest of a member's queries, the mean over
        the members.
        """
        return self._mean([base.queries(histories) for base in self.bases_], Exact.scores)

    def _mean(
        self, queries: Sequence[FloatArray], inner: Callable[[Exact, FloatArray], FloatArray]
    ) -> FloatArray:
        """The mean over the members of inner products with the nearest of each one's queries
        `[B, I, d]`.
        """
        total: FloatArray | None = None
        for index, query in zip(self._indexes, queries, strict=True):
            each = [inner(index, query[:, i]) for i in range(query.shape[1])]
            nearest: FloatArray = np.maximum.reduce(each)
            total = nearest if total is None else total + nearest
        assert total is not None
        return total / np.float32(self.members)

    @property
    def _served_mixture(self) -> Mixture:
        """The counts with their weight at serving."""
        return self.mixture_ if self.weight is None else self.mixture_.weighted(self.weight)

    def scores(self, histories: Histories) -> FloatArray:
        """Log probabilities `[B, n_items + 1]` of all items."""
        return self._served_mixture.scores(self._inner(histories), histories)

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        """The k unseen items of highest log probability: of the next item or, with a continuation,
        of the marginal of two steps.
        """
        best = self._next if self.continuation is None else partial(self._expect, self.continuation)
        withheld = getattr(self, "withheld_", np.zeros(0, dtype=np.int64))
        return recall_withholding(partial(best, k), histories, withheld)

    def _next(self, k: int, histories: Histories) -> Slates:
        """The k unseen items that are the most likely to come next."""
        queries = [base.queries(histories) for base in self.bases_]
        return Slates(*self._best(self._served_mixture, queries, histories, k))

    def _expect(self, continuation: Continuation, k: int, histories: Histories) -> Slates:
        """The k unseen items of highest log probability in the marginal of two steps."""
        chosen, n_items = self.chosen_.over(continuation), self._indexes[0].n_items
        n_candidates = max(min(chosen.candidates, n_items), k)
        found = self.continued(histories, n_candidates, chosen.beam)
        with np.errstate(divide="ignore"):
            expected = np.log(found.marginal(chosen.beam, chosen.share))
        return Slates(*top_k_of(found.items, expected, k, histories.seen, n_items))

    def _best(
        self, mixture: Mixture, queries: Sequence[FloatArray], histories: Histories, k: int
    ) -> Ranked:
        """The k unseen items of highest log probability by the members' queries `[B, I, d]`."""
        best = []
        for start in range(0, max(len(histories), 1), ROWS):
            rows = slice(start, start + ROWS)
            some = histories.rows(rows)
            inner = self._mean([query[rows] for query in queries], Exact.scores)
            best.append(top_k(mixture.scores(inner, some), k, some.seen))
        items, scores = (np.concatenate(column) for column in zip(*best, strict=True))
        return items, scores

    def continued(
        self, histories: Histories, candidates: int, beam: int, clicked: IntArray | None = None
    ) -> Continued:
        """As `policies.continuation.Continuing`, by the pool that is served."""
        parts = []
        for start in range(0, max(len(histories), 1), CHUNK):
            rows = slice(start, start + CHUNK)
            asked, given = histories.rows(rows), None if clicked is None else clicked[rows]
            parts.append(self._continued(self._served_mixture, asked, candidates, beam, given))
        return Continued.joined(parts)

    def _continued(
        self,
        mixture: Mixture,
        histories: Histories,
        candidates: int,
        beam: int,
        clicked: IntArray | None,
    ) -> Continued:
        """Of requests whose states are remembered at once; at least `beam` candidates."""
        most = max(candidates, beam)
        with one_thread(), torch.inference_mode():
            begun = [base.begin(histories) for base in self.bases_]
            items, scores = self._best(mixture, [one.queries for one in begun], histories, most)
            clicked = items[:, :beam] if clicked is None else clicked
            further = [one.after(clicked) for one in begun]
        after = np.empty((*clicked.shape, most), dtype=np.float32)
        for start in range(0, len(histories), ROWS):
            rows = slice(start, start + ROWS)
            found = partial(_score, items=items[rows])
            for b in range(clicked.shape[1]):
                after[rows, b] = self._mean([query[rows, b] for query in further], found)
            asked = histories.rows(rows), items[rows], clicked[rows]
            after[rows] = mixture.continued(after[rows], *asked)
        return Continued(items, distribution(scores), distribution(after))

    def fit_params(self) -> dict[str, Any]:
        """Those of the base policy with their defaults, and the own ones."""
        return {**super().fit_params(), "policy_params": self.bases_[0].params()}

    def parts(self) -> tuple[Policy, ...]:
        return tuple(self.bases_)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The members' arrays, the counts, and what was chosen."""
        arrays = {
            _prefix(number) + name: values
            for number, base in enumerate(self.bases_)
            for name, values in base.state().items()
        }
        chosen = np.asarray([self.chosen_.beam, self.chosen_.share], dtype=np.float64)
        mixture = {MIXTURE + name: values for name, values in self.mixture_.state().items()}
        return arrays | mixture | {"continuation": chosen}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over what another instance's `state` gave."""

        def part(prefix: str) -> dict[str, npt.NDArray[Any]]:
            names = (name for name in state if name.startswith(prefix))
            return {name.removeprefix(prefix): state[name] for name in names}

        for number, base in enumerate(self.bases_):
            base.restore(part(_prefix(number)))
        self.mixture_ = Mixture(self.counts).restore(part(MIXTURE))
        beam, share = state.get("continuation", (Chosen.beam, Chosen.share))
        self.chosen_ = Chosen(int(beam), float(share))
        self._serve()
        return self

    def _unfitted(self) -> NetworkPolicy:
        base = make(self.policy, self.policy_params)
        if not isinstance(base, NetworkPolicy):
            raise ValueError(
                "the 'policy' parameter of PooledNetwork must be one that serves inner products"
                f" of a network, such as sasrec; got {self.policy!r}"
            )
        return base


def _score(index: Exact, queries: FloatArray, items: IntArray) -> FloatArray:
    """Inner products `[B, C]` with the items `[B, C]` of each request."""
    return index.score(queries, items)


def _prefix(number: int) -> str:
    """What the names of a member's arrays begin with in the state."""
    return f"{number}/{BASE}" if number else BASE


def _fitting_of(number: int, fitting: Fitting) -> Fitting:
    """The circumstances of a member's fit: the first one has those of the whole, further ones a
    seed and a folder of their own.
    """
    if number == 0:
        return fitting
    seed = int(np.random.SeedSequence([fitting.seed, number]).generate_state(1)[0])
    folder = None if fitting.folder is None else fitting.folder / f"member-{number}"
    return replace(fitting, seed=seed, folder=folder)
