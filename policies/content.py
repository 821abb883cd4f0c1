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
        """Number the values of every column, and count their clicks.

        Raises:
            ValueError: the catalogue has no such column, or none that is categorical.
        """
        clicks = sequences.clicks().items
        names = self.columns or _categorical(catalogue)
        self.values_ = np.zeros((len(names), catalogue.n_items + 1), dtype=np.int64)
        self.shares_ = []
        for row, name in enumerate(names):
            self.values_[row] = _numbered(catalogue, name)
            counts = np.bincount(self.values_[row][clicks], minlength=self.values_[row].max() + 1)
            smooth = counts + self.floor
            self.shares_.append((smooth / smooth.sum()).astype(np.float32))
        return self

    def scores(self, histories: Histories) -> FloatArray:
        """Scores of all items, `[B, n_items + 1]`."""
        clicks = histories.clicks(self.length)
        row, place = np.nonzero(clicks)
        weights = powers(self.decay, np.arange(self.length - 1, -1, -1))
        total = np.zeros((len(clicks), self.values_.shape[1]))
        for value, share in zip(self.values_, self.shares_, strict=True):
            profile = np.tile(self.prior * share.astype(np.float64), (len(clicks), 1))
            # In the order of a row's clicks, whatever stands beside it.
            np.add.at(profile, (row, value[clicks[row, place]]), weights[place])
            total += logs(profile)[:, value]
        return total.astype(np.float32)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The value of each item in each column, and the share of clicks of each value."""
        return {"values": self.values_} | {f"share{i}": s for i, s in enumerate(self.shares_)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Take over values and shares."""
        self.values_ = np.asarray(state["values"], dtype=np.int64)
        shares = [state[f"share{i}"] for i in range(len(self.values_))]
        self.shares_ = [np.asarray(share, dtype=np.float32) for share in shares]
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
