"""What a row of a log says only beside others, or beside the catalogue: how unlike its item is to
those above it in the slate, and how little known the item was.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import DoubleArray, IntArray
from policies.elementary import logs2
from simulator.log.eventlog import EventLog
from simulator.log.items import ItemFacts
from simulator.log.metadata import Metadata
from simulator.log.part_sums import InArrays, add_up
from simulator.log.schema import LogRows
from simulator.log.workspace import Workspace

Array = npt.NDArray[Any]

INFORMATION = "information"
PAIRS = {
    "tag_pairs": "tag",
    "tag_unlike": "tag",
    "author_pairs": "author",
    "author_unlike": "author",
}
"""Columns that are counted over the slate, and the group of items that they ask for."""


class DerivedColumns:
    """The derived columns of a log that are asked for, batch by batch, in KEY order.

    `information`: -log2 of the item's share of the history's impressions, in bits, each item with
    one impression more than it has (Zhou et al., "Solving the apparent diversity-accuracy dilemma
    of recommender systems", PNAS 2010). `tag_pairs`: items above in the same slate, of which
    `tag_unlike` are of another category, so that their sums over a slate are its pairs (the
    intra-list distance of Ziegler et al., WWW 2005, with a distance of 0 or 1); items of no known
    category are in no pair. The same by author.

    Attributes:
        available: the columns asked for that the log, its history and its catalogue allow.
    """

    def __init__(self, log: EventLog, asked: Collection[str]) -> None:
        self.available: frozenset[str] = frozenset()
        self._information: DoubleArray | None = None
        self._group: dict[str, IntArray] = {}
        self._open: dict[str, IntArray] = {}
        found = set()
        if INFORMATION in asked:
            shown = _history(log)
            if shown.any():
                known = shown[1:].sum() + log.metadata.n_items
                self._information = -np.asarray(logs2((shown + 1.0) / known))
                found.add(INFORMATION)
        groups = {PAIRS[name] for name in asked if name in PAIRS}
        if groups:
            items = ItemFacts.of_log(log)
            for name in sorted(groups):
                group: IntArray | None = getattr(items, name)
                if group is not None:
                    self._group[name] = group
                    self._open[name] = np.zeros(0, dtype=np.int64)
            found |= {name for name in asked if PAIRS.get(name) in self._group}
        self.available = frozenset(found)

    def add(self, rows: dict[str, Array]) -> None:
        """Add the columns to a batch that has `item` and `opens_request`."""
        if not self.available:
            return
        item = rows["item"].astype(np.int64)
        if self._information is not None:
            rows[INFORMATION] = self._information[item]
        for name, group in self._group.items():
            pairs, unlike, self._open[name] = _pairs(
                group[item], rows["opens_request"], self._open[name]
            )
            rows[f"{name}_pairs"], rows[f"{name}_unlike"] = pairs, unlike


class ShownBefore(InArrays):
    """Impressions of each item before the A/B.

    Attributes:
        columns: of the log that `add` reads.
        before: `[n_items + 1]`.
    """

    def __init__(self, meta: Metadata) -> None:
        self.columns = (*meta.key, "t", "item")
        self.before = np.zeros(meta.n_items + 1, dtype=np.int64)

    def arrays(self) -> dict[str, IntArray]:
        """As `Exposures` calls them."""
        return {"shown before": self.before}

    def add(self, rows: LogRows) -> None:
        """Add a stretch."""
        old = rows["item"][rows["t"] < 0]
        # The rules, to which a row may not be held yet, name other items.
        np.add.at(self.before, old[old < len(self.before)].astype(np.int64), 1)


def _history(log: EventLog) -> IntArray:
    """Impressions of each item before the A/B, `[n_items + 1]`; a part of a run's log has that of
    its run.
    """
    run, shown = Workspace.of_log(log), ShownBefore(log.metadata)
    history = None if run is None else run.history(log.metadata.n_users)
    add_up(history or log, [shown])
    return shown.before


def _pairs(
    group: IntArray, opens: Array, above: IntArray
) -> tuple[DoubleArray, DoubleArray, IntArray]:
    """Of each row `[N]`: how many rows above it in its slate are of a known group, and how many of
    these of another one; 0 for a row of no known group. `above` are the groups of the slate that
    goes on from the batch before; returned with the last slate of this one.
    """
    n_above = 0 if len(opens) and opens[0] else len(above)
    every = np.concatenate((above[len(above) - n_above :], group))
    starts = np.concatenate((np.zeros(n_above, dtype=bool), opens))
    if len(starts):
        starts[0] = True
    slate = np.cumsum(starts)
    is_known = every >= 0
    pairs = _before(slate, is_known)
    order = np.lexsort((every, slate))
    kind = np.cumsum(
        np.concatenate(([1], (np.diff(slate[order]) != 0) | (np.diff(every[order]) != 0)))[
            : len(order)
        ]
    )
    alike = np.empty(len(every))
    alike[order] = _before(kind, np.ones(len(kind), dtype=bool))
    unlike = pairs - alike
    pairs[~is_known] = unlike[~is_known] = 0.0
    last = every[slate == slate[-1]] if len(slate) else every
    return pairs[n_above:], unlike[n_above:], last


def _before(block: Array, counted: Array) -> DoubleArray:
    """How many counted rows stand before each row in its block of equal numbers `[N]`."""
    total = np.cumsum(counted) - counted
    first = np.maximum.accumulate(
        np.where(np.diff(block, prepend=-1) != 0, np.arange(len(block)), 0)
    )
    return np.asarray(total - total[first], dtype=np.float64) if len(block) else np.zeros(0)
