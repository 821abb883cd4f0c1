"""Small made-up logs with a known answer: what a policy is checked on, here and in a stranger's
tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from policies.base import BoolArray, Catalogue, Histories, IntArray, Sequences
from policies.context import is_of_request, log_column
from policies.time import DAY


@dataclass(frozen=True, slots=True)
class Example:
    """A log, its catalogue, and what should come next.

    Attributes:
        sequences: the log to fit on.
        catalogue: of its users and items.
        right: `[U, n_items + 1]` True where recalling the item for the user would be right; all
            False where nothing is known.
        time: `[U]` ms, when each user asks.
    """

    sequences: Sequences
    catalogue: Catalogue
    right: BoolArray
    time: IntArray

    def requests(self, length: int = 20, context: Sequence[str] = ()) -> Histories:
        """One request for each user, with the last `length` impressions, and what of the `context`
        the example knows: all of it `with_context`.
        """
        asked = self.sequences.last(length, context)
        found = asked.context()
        for path in context:
            if path == "time":
                found[path] = self.time
            elif is_of_request(path) and log_column(path) in self.sequences.columns:
                found[path] = _surfaces(len(self.time))
        return asked.with_context(found)

    def with_context(self, context: Sequence[str], seed: int = 0) -> Example:
        """The same example, its log with columns for all that a policy asks for, made at random
        where it has none.
        """
        draw = np.random.default_rng(seed)
        columns = dict(self.sequences.columns)
        for path in context:
            name, n = log_column(path), len(self.sequences.items)
            if name == "t" or name in columns:
                continue
            if is_of_request(path):
                columns[name] = draw.permutation(_surfaces(n))
            else:
                columns[name] = draw.integers(-1, 2, n).astype(np.int8)
        return replace(self, sequences=replace(self.sequences, columns=columns))


def _surfaces(n: int) -> npt.NDArray[np.int16]:
    """A feature of `n` requests: 0, 1, 2, 3, and -1 where it is not known."""
    return (np.arange(n) % 5 - 1).astype(np.int16)


def from_rows(
    rows: list[list[tuple[int, bool]]], catalogue: Catalogue, right: BoolArray
) -> Example:
    """An example from each user's (item, clicked) pairs in time order; one minute between
    impressions. Users ask after that, 37 minutes one after the other: at all hours.
    """
    lengths = np.array([len(row) for row in rows])
    items = np.array([item for row in rows for item, _ in row], dtype=np.int64)
    clicked = np.array([click for row in rows for _, click in row], dtype=bool)
    t = np.concatenate([np.arange(-n, 0) for n in lengths]) * 60_000
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    columns = {"watch": np.where(clicked, 20.0, 1.0).astype(np.float32)}
    return Example(
        Sequences(np.arange(len(rows)), offsets, items, clicked, t.astype(np.int64), columns),
        catalogue,
        right,
        np.arange(len(rows), dtype=np.int64) * 37 * 60_000,
    )


def _catalogue(n_users: int, n_items: int) -> Catalogue:
    ids = np.arange(n_items + 1)
    columns: dict[str, npt.NDArray[Any]] = {
        "duration": np.where(ids > 0, 30.0, 0.0).astype(np.float32),
        "author": ids // 3,
        "tag": ids % 2,
    }
    return Catalogue(n_users, n_items, columns)


def checkerboard(seed: int = 0, n_users: int = 120, n_items: int = 40, shown: int = 16) -> Example:
    """Even users click even items, odd users odd ones; everybody is shown both."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        items = draw.permutation(n_items)[:shown] + 1
        rows.append([(int(item), int(item) % 2 == user % 2) for item in items])
    parity = np.arange(n_items + 1) % 2
    right = parity[None, :] == (np.arange(n_users) % 2)[:, None]
    right[:, 0] = False
    return from_rows(rows, _catalogue(n_users, n_items), right)


def chain(seed: int = 0, n_users: int = 200, n_items: int = 40, length: int = 10) -> Example:
    """Every user walks round a fixed random cycle of all items from a random start: the next item
    is certain.
    """
    draw = np.random.default_rng(seed)
    cycle = draw.permutation(n_items) + 1
    starts = draw.integers(0, n_items, n_users)
    path = cycle[(starts[:, None] + np.arange(length + 1)) % n_items]
    right = np.zeros((n_users, n_items + 1), dtype=bool)
    right[np.arange(n_users), path[:, -1]] = True
    return from_rows(
        [[(int(item), True) for item in row[:-1]] for row in path],
        _catalogue(n_users, n_items),
        right,
    )


def fresh(seed: int = 0, n_users: int = 120, n_items: int = 40, new: int = 20) -> Example:
    """As `checkerboard`, and the last `new` items were never shown to anybody: of them, too, even
    users like the even ones. Only the `tag` of the catalogue says which these are.
    """
    old = checkerboard(seed, n_users, n_items)
    parity = np.arange(n_items + new + 1) % 2
    right = parity[None, :] == (np.arange(n_users) % 2)[:, None]
    right[:, : n_items + 1] = False
    return replace(old, catalogue=_catalogue(n_users, n_items + new), right=right)


def hours(seed: int = 0, n_users: int = 120, n_items: int = 40, shown: int = 24) -> Example:
    """Everybody clicks even items from midnight to noon and odd ones after noon, whoever they are
    and whatever they clicked before: only the time of the request tells what is right. Each user
    was shown items at `shown` hours of the last ten days.
    """
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(-10 * DAY, 0, (n_users, shown)), axis=1)
    items = draw.integers(1, n_items + 1, (n_users, shown))
    clicked = items % 2 == t % DAY // (DAY // 2)
    time = draw.integers(0, DAY, n_users)
    parity = np.arange(n_items + 1) % 2
    right = parity[None, :] == (time // (DAY // 2))[:, None]
    right[:, 0] = False
    offsets = np.arange(n_users + 1, dtype=np.int64) * shown
    watch = np.where(clicked, 20.0, 1.0).astype(np.float32).ravel()
    log = Sequences(
        np.arange(n_users), offsets, items.ravel(), clicked.ravel(), t.ravel(), {"watch": watch}
    )
    return Example(log, _catalogue(n_users, n_items), right, time)


def uploads(catalogue: Catalogue, unknown: ArrayLike, removed: ArrayLike) -> Catalogue:
    """A catalogue as one that lives: nobody has uploaded the items `unknown` yet, and `removed`
    are no longer shown.
    """
    is_unknown = np.isin(np.arange(catalogue.n_items + 1), unknown)
    available = ~is_unknown & ~np.isin(np.arange(catalogue.n_items + 1), removed)
    available[0] = False
    uploaded = np.where(is_unknown, np.nan, catalogue.n_items - np.arange(catalogue.n_items + 1.0))
    columns = {name: np.where(is_unknown, 0, column) for name, column in catalogue.items.items()}
    columns["uploaded"] = uploaded
    return replace(catalogue, items=columns, available=available)


def mixed(seed: int = 0, n_users: int = 60, n_items: int = 50) -> Example:
    """Clicks and unclicks at random, histories of very different length, some empty: for promises
    that ask for no learning.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        length = 0 if user % 15 == 7 else int(draw.integers(1, 30))
        items = draw.permutation(n_items)[:length] + 1
        rows.append([(int(item), bool(draw.random() < 0.5)) for item in items])
    return from_rows(
        rows, _catalogue(n_users, n_items), np.zeros((n_users, n_items + 1), dtype=bool)
    )


def share_right(example: Example, items: IntArray) -> float:
    """Share of the recalled `items` `[U, k]` that are right for their users."""
    return float(np.take_along_axis(example.right, items, axis=1).mean())
