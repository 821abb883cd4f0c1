"""What epochs and weights are chosen by: how early each user's last click, which is held out, is
found among all items. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, DoubleArray, Histories, IntArray, Sequences, right_aligned
from policies.elementary import logs2
from policies.stretches import collected, stretches

K = 10
"""Length of the slates that validation judges: NDCG@K."""

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
    """Each user's last click, to be found among all items from what came before it. The user's own
    past is left out of the ranking.

    Attributes:
        history: the log before each user's last click.
        rows: `[R]` users with a click to find and an earlier one to go by, at most `most` of them,
            drawn by `seed`.
        target: `[R]` their last clicks.
    """

    def __init__(
        self, sequences: Sequences, most: int, seed: int, *, shortest_first: bool = False
    ) -> None:
        """Draw the users.

        Args:
            sequences: the whole log.
            most: number of users.
            seed: decides which, where there are more.
            shortest_first: order the users by the length of their history, so that blocks are no
                wider than need be; else they stand in the order of `sequences`.
        """
        last, n_clicks = np.full(len(sequences), -1), np.zeros(len(sequences), dtype=np.int64)

        def is_before_last() -> Iterator[BoolArray]:
            for users, rows in stretches(sequences.offsets):
                offsets = sequences.offsets[users.start : users.stop + 1]
                clicked = np.flatnonzero(sequences.clicked[rows]) + rows.start
                ends = np.searchsorted(clicked, offsets)
                n_clicks[users] = np.diff(ends)
                has_clicks = n_clicks[users] > 0
                last[users][has_clicks] = clicked[ends[1:][has_clicks] - 1]
                row = np.arange(rows.start, rows.stop)
                yield row < np.repeat(last[users], np.diff(offsets))

        self.history = sequences.where(collected(is_before_last()))
        rows = np.flatnonzero(n_clicks >= 2)
        if len(rows) > most:
            rows = np.random.default_rng([seed, len(rows)]).choice(rows, most, replace=False)
        if shortest_first:
            lengths = np.diff(self.history.offsets)[rows]
            self.rows = rows[np.argsort(lengths, kind="stable")]
        else:
            self.rows = np.sort(rows)
        self._log, self._last = sequences, last[self.rows]
        self.target = sequences.items[self._last]

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[slice]:
        """Users some at a time, as slices of `rows`."""
        for start in range(0, len(self), ROWS):
            yield slice(start, start + ROWS)

    def requests(self, block: slice, length: int, context: Sequence[str] = ()) -> Histories:
        """The requests of some users: the last `length` impressions before the last click. All
        earlier impressions may not be recalled.

        Args:
            block: of `rows`.
            length: impressions of a history.
            context: what else a policy asks for (`Policy.asks_for`); the requests are those of the
                last clicks.
        """
        rows = self.rows[block]
        end, n = self.history.offsets[1:][rows], np.diff(self.history.offsets)[rows]
        seen = right_aligned(self.history.items, end, n)
        clicked = right_aligned(self.history.clicked, end, n)
        recent = slice(max(seen.shape[1] - length, 0), None)
        asked = Histories(
            self.history.user[rows],
            np.zeros(len(rows), dtype=np.int64),
            seen[:, recent],
            clicked[:, recent],
            seen,
        )
        return asked.with_context(
            self.history.context_before(end, n, asked.items.shape[1], context)
            | self._log.context_at(self._last[block], context)
        )

    def gains(self, items: IntArray, block: slice) -> DoubleArray:
        """The `discount` of each place of `items` `[B, k]` that holds the last click of its user,
        else 0, `[B, k]`: a row's sum is NDCG@k.
        """
        is_hit = items == self.target[block, None]
        return np.where(is_hit, discount(np.arange(items.shape[1])), 0.0)

    def ndcg(self, slates: Iterable[IntArray]) -> float:
        """The mean NDCG@k of the items `[B, k]` that were recalled for each of `blocks`, in their
        order.
        """
        pairs = zip(slates, self.blocks(), strict=True)
        per_user = [self.gains(items, block).sum(axis=1) for items, block in pairs]
        return float(np.concatenate(per_user).mean())
