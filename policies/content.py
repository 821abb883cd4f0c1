"""Content: items like those that the user clicked, by the features of the catalogue. It recalls
items that nobody was shown yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.base import Catalogue, Fitting, FloatArray, Histories, IntArray, Sequences
from policies.elementary import logs, powers
from policies.popularity import clicks_of_items
from policies.scored import Scored


@dataclass
class ContentBased(Scored):
    """Content-based filtering (Lops, de Gemmis & Semeraro, Recommender Systems Handbook, 2011): how
    much of the user's clicks have the features of an item, naive Bayes over its categories.

    score(j | i_1 .. i_n) = sum_f log(sum_h decay^(n - h) [f(i_h) = f(j)] + prior p_f(j)), where
    p_f(j) is the share of all clicks that have the value of item j in column f of the catalogue;
    every value has `floor` clicks more than it was given, so that a new one is not impossible.
    A user without clicks gets what is popular by its features.

    Attributes:
        columns: categorical columns of `catalogue.items`; empty: all of whole numbers or text.
        length: clicks of a history that are read.
        decay: weight of a click relative to the next one.
        prior: clicks that the popularity of a value weighs as much as.
        floor: clicks that every value is given besides its own.
    """

    columns: tuple[str, ...] = ()
    length: Annotated[int, Field(ge=1)] = 50
    decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    prior: Annotated[float, Field(gt=0)] = 1.0
    floor: Annotated[float, Field(gt=0)] = 0.5

    learns: ClassVar[tuple[str, ...]] = ("checkerboard", "fresh")
    draws_in_fit: ClassVar[bool] = False

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        """Count the clicks of items, and number the values of every column.

        Raises:
            ValueError: the catalogue has no such column, or none that is categorical.
        """
        self.clicks_ = clicks_of_items(sequences, catalogue.n_items)
        return self._described(catalogue)

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Self:
        """Recall available items only; new ones by their features."""
        return super().admit(catalogue, new, t)._described(catalogue)

    def _described(self, catalogue: Catalogue) -> Self:
        """Read the features of the items again."""
        names = self.columns or _categorical(catalogue)
        self.values_ = np.stack([_numbered(catalogue, name) for name in names])
        self._count()
        return self

    def _count(self) -> None:
        """The share of the clicks that each value of each column has."""
        self._shares = []
        for value in self.values_:
            smooth = np.bincount(value, self.clicks_) + self.floor
            self._shares.append(smooth / smooth.sum())

    def scores(self, histories: Histories) -> FloatArray:
        """Scores of all items, `[B, n_items + 1]`."""
        clicks = histories.clicks(self.length)
        row, place = np.nonzero(clicks)
        weights = powers(self.decay, np.arange(self.length - 1, -1, -1))
        total = np.zeros((len(clicks), self.values_.shape[1]))
        for value, share in zip(self.values_, self._shares, strict=True):
            profile = np.tile(self.prior * share, (len(clicks), 1))
            # In the order of a row's clicks, whatever stands beside it.
            np.add.at(profile, (row, value[clicks[row, place]]), weights[place])
            total += logs(profile)[:, value]
        return total.astype(np.float32)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The clicks of each item, and its value in each column."""
        return {"clicks": self.clicks_, "values": self.values_}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over clicks and values."""
        self.clicks_ = np.asarray(state["clicks"], dtype=np.int64)
        self.values_ = np.asarray(state["values"], dtype=np.int64)
        self._count()
        return self


def _categorical(catalogue: Catalogue) -> tuple[str, ...]:
    """The columns of whole numbers or text, one value an item.

    Raises:
        ValueError: there is none.
    """
    names = []
    for name, column in catalogue.items.items():
        if np.ndim(column) == 1 and np.asarray(column).dtype.kind in "iubSUO":
            names.append(name)
    if not names:
        has = ", ".join(sorted(catalogue.items)) or "nothing"
        raise ValueError(
            "ContentBased needs a categorical column of items (author, tag, ...); the catalogue has"
            f" {has}"
        )
    return tuple(sorted(names))


def _numbered(catalogue: Catalogue, name: str) -> IntArray:
    """The values of a column as 0..n-1, `[n_items + 1]`.

    Raises:
        ValueError: the catalogue has no such column, or one with several values an item.
    """
    column = catalogue.items.get(name)
    if column is None or np.ndim(column) != 1:
        has = ", ".join(sorted(catalogue.items)) or "nothing"
        raise ValueError(
            "the 'columns' of ContentBased must be columns of the catalogue with one value an item;"
            f" got {name!r}, and it has {has}"
        )
    return np.unique(np.asarray(column), return_inverse=True)[1].astype(np.int64)
