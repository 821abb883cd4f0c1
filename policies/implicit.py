"""Implicit: models of the `implicit` package as policies, fitted here or loaded from a file that
`model.save` wrote.

Only models that answer from the history of the request: alternating least squares (users are folded
in) and item-item neighbours. Needs the extra `abtest[implicit]`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import PADDING, Catalogue, Fitting, FloatArray, Histories, IntArray, Sequences
from policies.products import matmul, solve
from policies.scored import Scored

CLASSES = {
    "als": "implicit.cpu.als:AlternatingLeastSquares",
    "cosine": "implicit.nearest_neighbours:CosineRecommender",
    "tfidf": "implicit.nearest_neighbours:TFIDFRecommender",
    "bm25": "implicit.nearest_neighbours:BM25Recommender",
}


class ImplicitError(ValueError):
    """An implicit model that cannot be imported, configured or loaded."""


@dataclass
class Implicit(Scored):
    """A model of the `implicit` package.

    Attributes:
        model: `als` (Hu, Koren & Volinsky 2008) or item-item neighbours `cosine`, `tfidf`, `bm25`.
        arguments: of the model's constructor, e.g. `{factors: 64}`.
        file: a saved model (`.npz`) to serve instead of fitting one; item i of the model is item i
            + 1 of the catalogue.
        length: clicks of the history that are used.
    """

    model: Literal["als", "cosine", "tfidf", "bm25"] = "als"
    arguments: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    length: Annotated[int, Field(ge=1)] = 100

    def files(self) -> tuple[Path, ...]:
        return (Path(self.file),) if self.file else ()

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Fit on the clicks, or load `file`.

        Raises:
            ImplicitError: the package is missing, an argument is wrong, or the file is no model of
                this catalogue.
        """
        from scipy.sparse import csr_matrix

        self.n_items_ = catalogue.n_items
        kind = self._class()
        if self.file:
            if not Path(self.file).is_file():
                raise ImplicitError(f"implicit policy: no model file {self.file!r}")
            try:
                model = kind.load(self.file)
            except Exception as error:  # whatever the package raises on a file that is not its own
                raise ImplicitError(
                    f"implicit policy: {self.file}: not a saved {self.model} model: {error}"
                ) from error
        else:
            clicks = sequences.clicks()
            owner = np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets))
            shape = (len(clicks), self.n_items_)
            matrix = csr_matrix(
                (np.ones(len(owner), dtype=np.float32), (owner, clicks.items - 1)), shape=shape
            )
            arguments: dict[str, Any] = {"num_threads": 1}
            if self.model == "als":
                arguments["random_state"] = fitting.seed
            try:
                model = kind(**{**arguments, **self.arguments})
            except TypeError as error:
                raise ImplicitError(
                    f"implicit policy: arguments of {self.model}: {error}"
                ) from error
            with warnings.catch_warnings():
                # The package warns of its own conversions between sparse formats
                warnings.simplefilter("ignore")
                model.fit(matrix, show_progress=False)
        if self.model == "als":
            self.vectors_ = np.asarray(model.item_factors, dtype=np.float64)
            self.weights_ = np.array([model.regularization, model.alpha])
            n_items = len(self.vectors_)
        else:
            self.similarity_ = csr_matrix(model.similarity)
            n_items = self.similarity_.shape[0]
        if n_items != self.n_items_:
            raise ImplicitError(
                f"implicit policy: {self.file}: the model has {n_items} items, the catalogue"
                f" {self.n_items_}"
            )
        return self

    def _class(self) -> Any:
        import importlib

        module, name = CLASSES[self.model].split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise ImplicitError(
                f"implicit policy: needs `pip install 'abtest[implicit]'`: {error}"
            ) from error

    def scores(self, histories: Histories) -> FloatArray:
        """What the model gives for the last `length` clicks, `[B, n_items + 1]`."""
        clicks = histories.clicks(self.length)
        return self._folded_in(clicks) if self.model == "als" else self._neighbours(clicks)

    def _folded_in(self, clicks: IntArray) -> FloatArray:
        """Scores `[R, n_items + 1]` of users folded in by eq. 4 of Hu, Koren & Volinsky (2008):
        (Y'C Y + reg I) x = Y'C p.
        """
        vectors = np.concatenate((np.zeros((1, self.vectors_.shape[1])), self.vectors_))
        regularization, alpha = self.weights_
        gram = matmul(self.vectors_.T, self.vectors_) + regularization * np.eye(
            self.vectors_.shape[1]
        )
        users = np.empty((len(clicks), self.vectors_.shape[1]))
        for i, row in enumerate(clicks):
            items, counts = np.unique(row[row != PADDING], return_counts=True)
            clicked = vectors[items]
            confidence = alpha * counts
            matrix = gram + matmul(clicked.T * (confidence - 1), clicked)
            users[i] = solve(matrix, (clicked.T * confidence).sum(axis=1))
        return np.asarray(matmul(users, vectors.T), dtype=np.float32)

    def _neighbours(self, clicks: IntArray) -> FloatArray:
        """Scores `[R, n_items + 1]`: the sum of the similarities to what was clicked."""
        from scipy.sparse import csr_matrix

        real = clicks != PADDING
        pointer = np.concatenate(([0], np.cumsum(real.sum(axis=1))))
        read = csr_matrix(
            (np.ones(pointer[-1]), clicks[real] - 1, pointer), shape=(len(clicks), self.n_items_)
        )
        return np.pad((read @ self.similarity_).toarray().astype(np.float32), ((0, 0), (1, 0)))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        if self.model == "als":
            return {
                "n_items": np.array(self.n_items_),
                "vectors": self.vectors_,
                "weights": self.weights_,
            }
        s = self.similarity_
        return {
            "n_items": np.array(self.n_items_),
            "data": s.data,
            "indices": s.indices,
            "indptr": s.indptr,
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        from scipy.sparse import csr_matrix

        self.n_items_ = int(state["n_items"])
        if self.model == "als":
            self.vectors_, self.weights_ = state["vectors"], state["weights"]
        else:
            shape = (self.n_items_, self.n_items_)
            self.similarity_ = csr_matrix(
                (state["data"], state["indices"], state["indptr"]), shape=shape
            )
        return self
