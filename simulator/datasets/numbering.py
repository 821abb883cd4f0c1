"""Original ids -> the ids of the house (users 0.., items 1..), by first appearance, and back. No
data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import IntArray


@dataclass(frozen=True)
class Numbering:
    """A one-to-one map from original ids to `base`, `base + 1`, ...

    Attributes:
        original: `[n]` the original id of each number, from `base` on.
        base: 0 for users, 1 for items.
    """

    original: npt.NDArray[Any]
    base: int
    _order: IntArray

    @classmethod
    def by_appearance(cls, *columns: npt.NDArray[Any], base: int) -> Numbering:
        """Number the ids of all `columns` in the order in which they first appear, one column after
        the other.
        """
        values = np.concatenate(columns)
        _, first = np.unique(values, return_index=True)
        original = values[np.sort(first)]
        return cls(original, base, np.argsort(original, kind="stable"))

    def __len__(self) -> int:
        return len(self.original)

    def __call__(self, ids: npt.NDArray[Any]) -> IntArray:
        """The numbers of `ids` `[N]`, each of which must be known."""
        return self._order[np.searchsorted(self.original, ids, sorter=self._order)] + self.base
