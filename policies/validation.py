"""What epochs and weights are chosen by: how early each user's last click, held out, is found among
all items. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray, Histories, IntArray, Sequences, right_aligned
from policies.elementary import logs2

ROWS = 1024
"""Users that are asked for at once."""


def discount(place: npt.ArrayLike) -> DoubleArray:
    """What an item at the 0-based `place` of a slate counts in DCG: 1 / log2(place + 2).

    Järvelin & Kekäläinen, TOIS 2002, with gain 1 for a relevant item. With one relevant item the
    ideal DCG is 1, so this is also the NDCG of a slate that has it there.
    """
    discounts: DoubleArray = 1.0 / logs2(np.asarray(place, dtype=np.float64) + 2.0)
    return discounts


class LastClicks:
    """Each user's last click, to be found among all items from what came before it; the user's own
    past is left out of the ranking.

    Attributes:
        known: the log up to each user's last click.
        rows: `[R]` users with a click to find and one to go by, at most `most` of them, drawn by
            `seed`.
        target: `[R]` their last clicks.
    """

    def __init__(
        self, sequences: Sequences, most: int, seed: int, *, shortest_first: bool = False
    ) -> None:
        """Draw the users, in the order of `sequences` or of how much is known of them: then blocks
        are no wider than need be.
        """
        n = np.diff(sequences.clicks().offsets)
        at = np.flatnonzero(sequences.clicked)
        last = np.full(len(sequences), -1)
        last[n > 0] = at[np.cumsum(n)[n > 0] - 1]
        self.known = sequences.where(
            np.arange(len(sequences.items)) < np.repeat(last, np.diff(sequences.offsets))
        )
        rows = np.flatnonzero(n >= 2)
        if len(rows) > most:
            rows = np.random.default_rng([seed, len(rows)]).choice(rows, most, replace=False)
        self.rows = (
            rows[np.argsort(np.diff(self.known.offsets)[rows], kind="stable")]
            if shortest_first
            else np.sort(rows)
        )
        self.target = sequences.items[last[self.rows]]

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[slice]:
        """Users some at a time."""
        for start in range(0, len(self), ROWS):
            yield slice(start, start + ROWS)

    def asked(self, some: slice, length: int) -> Histories:
        """The requests of some users: the last `length` impressions before the last click, all of
        which may not be recalled.
        """
        rows = self.rows[some]
        end, n = self.known.offsets[1:][rows], np.diff(self.known.offsets)[rows]
        seen, clicked = (
            right_aligned(flat, end, n) for flat in (self.known.items, self.known.clicked)
        )
        recent = slice(max(seen.shape[1] - length, 0), None)
        return Histories(
            self.known.user[rows],
            np.zeros(len(rows), dtype=np.int64),
            seen[:, recent],
            clicked[:, recent],
            seen,
        )

    def gains(self, found: IntArray, some: slice) -> DoubleArray:
        """The `discount` of a place of `found` `[B, k]` that holds the last click of its user, else
        0, `[B, k]`: a row's sum is NDCG@k.
        """
        is_hit = found == self.target[some, None]
        return np.where(is_hit, discount(np.arange(found.shape[1])), 0.0)
