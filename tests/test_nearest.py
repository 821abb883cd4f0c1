"""A stranger's query and item vectors get retrieval, quotas, scores and exploration for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, Retriever, Scorer, Sequences
from policies.examples import mixed
from policies.explore import Explore
from policies.nearest import Nearest
from policies.retrieval import Search
from tests.worlds import broken_promises


@dataclass
class CoClicks(Nearest):
    """Two interests: items by their co-clicks, seen from the last click and from all clicks."""

    learns: ClassVar[tuple[str, ...]] = ("checkerboard",)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        clicks = sequences.clicks()
        owner = np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets))
        table = np.zeros((len(clicks), catalogue.n_items + 1), dtype=np.float32)
        table[owner, clicks.items] = 1
        self.vectors_ = (table.T / np.maximum(np.linalg.norm(table, axis=0)[:, None], 1)).astype(
            np.float32
        )
        return self

    def queries(self, histories: Histories) -> np.ndarray:
        out = np.zeros((len(histories), 2, self.vectors_.shape[1]), dtype=np.float32)
        for row, clicks in enumerate(histories.clicks(20)):
            out[row, 0] = self.vectors_[clicks[-1]] + 1e-3
            out[row, 1] = self.vectors_[clicks].sum(axis=0) + 1e-3
        return out

    def item_vectors(self) -> np.ndarray:
        return self.vectors_

    def state(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.vectors_ = state["vectors"]
        return self


@pytest.mark.parametrize("quotas", [(), (3, 1)])
def test_it_keeps_every_promise(quotas: tuple[int, ...]) -> None:
    assert broken_promises(CoClicks(quotas=quotas)) == {}
    assert isinstance(CoClicks(), Retriever)
    assert isinstance(CoClicks(), Scorer)


def test_recall_is_the_largest_inner_product_over_the_interests() -> None:
    example = mixed()
    policy = CoClicks().fit(example.sequences, example.catalogue, Fitting())
    requests = example.requests()
    scores = np.einsum("bid,nd->bin", policy.queries(requests), policy.vectors_).max(axis=1)
    scores[:, 0] = -np.inf
    np.put_along_axis(scores, requests.seen, -np.inf, axis=1)
    slates = policy.recall(requests, 5, 0)
    np.testing.assert_allclose(slates.scores, -np.sort(-scores, axis=1)[:, :5], rtol=1e-5)
    np.testing.assert_allclose(policy.score(requests, slates.items), slates.scores, rtol=1e-5)


def test_quotas_share_the_slate_among_the_interests() -> None:
    example = mixed()
    policy = CoClicks(quotas=(3, 1)).fit(example.sequences, example.catalogue, Fitting())
    interest = policy.recall(example.requests(), 8, 0).interest
    assert interest is not None
    assert np.array_equal(np.sort(interest, axis=1), np.tile([0] * 6 + [1] * 2, (len(interest), 1)))
    with pytest.raises(ValueError, match="2 interests need as many quotas"):
        CoClicks(quotas=(1, 1, 1)).restore(policy.state()).recall(example.requests(), 8, 0)


def test_approximate_search_finds_most_of_it() -> None:
    pytest.importorskip("faiss")
    example = mixed()
    exact = CoClicks().fit(example.sequences, example.catalogue, Fitting())
    near = CoClicks(search=Search("hnsw")).restore(exact.state())
    a, b = (policy.recall(example.requests(), 10, 0).items for policy in (exact, near))
    assert (
        np.mean([len(set(x) & set(y)) / 10 for x, y in zip(a.tolist(), b.tolist(), strict=True)])
        > 0.9
    )


def test_exploration_comes_for_free() -> None:
    example = mixed()
    base = CoClicks().fit(example.sequences, example.catalogue, Fitting())
    slates = (
        Explore(epsilon=0.1).over(base, example.catalogue.n_items).recall(example.requests(), 4, 7)
    )
    assert slates.propensities is not None
    assert ((slates.propensities > 0) & (slates.propensities <= 1)).all()


def test_new_vectors_build_a_new_index() -> None:
    example = mixed()
    policy = CoClicks().fit(example.sequences, example.catalogue, Fitting())
    first = policy.recall(example.requests(), 5, 0).items
    policy.restore(
        {
            "vectors": (
                policy.vectors_[:, ::-1]
                * np.linspace(0, 1, policy.vectors_.shape[1], dtype=np.float32)
            )
        }
    )
    assert not np.array_equal(first, policy.recall(example.requests(), 5, 0).items)
