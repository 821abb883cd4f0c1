"""Raw review dumps (Amazon, Yelp; JSON lines) -> the text format of `s3rec`: chronological, k-core. Nothing is read for a run here."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, IntArray
from simulator.datasets.tables import LAYOUT_ERRORS, DataError, open_text
from simulator.files import write_text


@dataclass(frozen=True)
class Format:
    """How a dump names things.

    Attributes:
        user, item, time: keys of a review.
        when: the value of `time` -> seconds since 1970 (UTC); raises ValueError, TypeError or OverflowError.
        key: the item's key in the file of item descriptions.
        words: an item description -> its attributes, as text.
        since: the first day taken if the caller does not say (the paper takes Yelp from 2019-01-01), or None.
    """

    user: str
    item: str
    time: str
    when: Callable[[Any], float]
    key: str
    words: Callable[[Mapping[str, Any]], list[str]]
    since: datetime | None = None


def _seconds(value: Any) -> float:
    return float(value)


def _date(value: Any) -> float:
    """A time without an offset is UTC."""
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _amazon_words(item: Mapping[str, Any]) -> list[str]:
    """Every category below the first, which all items of a dump share, and the brand."""
    found = [str(name) for path in item.get("categories") or () for name in path[1:]]
    return list(dict.fromkeys([*found, *([str(item["brand"])] if item.get("brand") else [])]))


def _yelp_words(item: Mapping[str, Any]) -> list[str]:
    return [name.strip() for name in (item.get("categories") or "").split(",") if name.strip()]


FORMATS = {
    "amazon": Format("reviewerID", "asin", "unixReviewTime", _seconds, "asin", _amazon_words),
    "yelp": Format("user_id", "business_id", "date", _date, "business_id", _yelp_words, datetime(2019, 1, 1, tzinfo=UTC)),
}


@dataclass(frozen=True)
class Statistics:
    """What the paper's Table 1 tells of a data set.

    Attributes:
        users, items, actions: counts.
    """

    users: int
    items: int
    actions: int

    @property
    def per_user(self) -> float:
        """Mean actions of a user."""
        return self.actions / self.users

    @property
    def per_item(self) -> float:
        """Mean actions of an item."""
        return self.actions / self.items

    @property
    def sparsity(self) -> float:
        """1 - actions / (users x items)."""
        return 1 - self.actions / (self.users * self.items)


@dataclass(frozen=True)
class Prepared:
    """A prepared data set: ids by first appearance, and what was left out.

    Attributes:
        user, item: `[N]` 1, 2, ..., sorted by user, in time order within a user.
        original: of each item from 1 on.
        read: reviews in the dump.
        outside: of them, outside the days asked for.
        rare: of the others, those of users or items that the k-core has not.
    """

    user: IntArray
    item: IntArray
    original: list[str]
    read: int
    outside: int
    rare: int

    @property
    def statistics(self) -> Statistics:
        """Of what is left."""
        return Statistics(len(np.unique(self.user)), len(self.original), len(self.user))


def prepare(dump: Path, form: Format, core: int = 5, since: datetime | None = None, until: datetime | None = None) -> Prepared:
    """Read a dump, keep the days asked for, then only users and items with at least `core` reviews, put users' reviews in time order.

    Ratings are not looked at: a review is an interaction, as in the data of S3-Rec (Zhou et al., CIKM 2020). The k-core is the largest
    set in which every user and every item has at least `core` reviews. Reviews of the same second keep the order of the file.

    Args:
        dump: JSON lines, plain or gzip.
        form: one of FORMATS.
        core: k.
        since, until: first and last moment taken, both included; None = no limit.

    Raises:
        DataError: a line that is not a review, or nothing left.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows = [(users.setdefault(user, len(users)), items.setdefault(item, len(items)), t) for user, item, t in _reviews(dump, form)]
    if not rows:
        raise DataError(f"{dump}: the file is empty")
    user, item, t = (np.array(column) for column in zip(*rows, strict=True))
    inside = np.ones(len(t), dtype=bool)
    if since is not None:
        inside &= t >= since.timestamp()
    if until is not None:
        inside &= t <= until.timestamp()
    kept = inside.copy()
    kept[inside] = k_core(user[inside], item[inside], core)
    if not kept.any():
        raise DataError(f"{dump}: of {len(t):,} reviews, {int(inside.sum()):,} are of the days asked for and none is in the {core}-core")
    order = np.lexsort((np.arange(int(kept.sum())), t[kept], user[kept]))
    user, item = user[kept][order], item[kept][order]
    names = list(items)
    numbers, appearance = _by_appearance(item)
    return Prepared(
        _by_appearance(user)[0],
        numbers,
        [names[i] for i in appearance],
        len(t),
        int((~inside).sum()),
        int(inside.sum() - kept.sum()),
    )


def k_core(user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], core: int) -> BoolArray:
    """Which rows are in the k-core `[N]`: rows of users or items with fewer than `core` rows are taken away until there are none."""
    kept = np.ones(len(user), dtype=bool)
    while True:
        of_user = np.bincount(user[kept], minlength=int(user.max(initial=0)) + 1)
        of_item = np.bincount(item[kept], minlength=int(item.max(initial=0)) + 1)
        still = kept & (of_user[user] >= core) & (of_item[item] >= core)
        if still.sum() == kept.sum():
            return kept
        kept = still


def write(prepared: Prepared, out: Path, name: str, words: Mapping[str, list[str]] | None = None) -> list[Path]:
    """Write `NAME.txt`, and with `words` (item -> attributes) `NAME_item2attributes.json`, into `out`, each by rename.

    Returns:
        What was written.
    """
    out.mkdir(parents=True, exist_ok=True)
    starts = np.flatnonzero(np.diff(prepared.user, prepend=0))
    pieces = np.split(prepared.item, starts[1:])
    lines = [f"{user} {' '.join(map(str, items))}\n" for user, items in zip(prepared.user[starts], pieces, strict=True)]
    written = [write_text(out / f"{name}.txt", "".join(lines))]
    if words is not None:
        numbers: dict[str, int] = {}
        attributes = {
            str(place): [numbers.setdefault(word, len(numbers) + 1) for word in words.get(original, [])]
            for place, original in enumerate(prepared.original, start=1)
        }
        written.append(write_text(out / f"{name}_item2attributes.json", json.dumps(attributes)))
    return written


def attributes(descriptions: Path, form: Format) -> dict[str, list[str]]:
    """Item -> its attributes as text, from a file of item descriptions (JSON lines, or Python literals as in old Amazon dumps).

    Raises:
        DataError: a line that is not a description of an item.
    """
    found = {}
    for number, line in _lines(descriptions):
        item = _object(descriptions, number, line, literal=True)
        if not isinstance(item.get(form.key), str):
            raise DataError(f"{descriptions}: line {number}: {form.key} must be text; got {item.get(form.key)!r}")
        try:
            found[item[form.key]] = form.words(item)
        except (TypeError, AttributeError) as error:
            raise DataError(f"{descriptions}: line {number}: categories cannot be read: {error}") from error
    return found


def _reviews(dump: Path, form: Format) -> Iterator[tuple[str, str, float]]:
    for number, line in _lines(dump):
        review = _object(dump, number, line, literal=False)
        user, item = review.get(form.user), review.get(form.item)
        for key, value in ((form.user, user), (form.item, item)):
            if not isinstance(value, str) or not value:
                raise DataError(f"{dump}: line {number}: {key} must be text; got {value!r}")
        try:
            t = form.when(review.get(form.time))
        except (ValueError, TypeError, OverflowError):
            t = math.nan
        if not math.isfinite(t):
            raise DataError(f"{dump}: line {number}: {form.time} must be a time; got {str(review.get(form.time))[:60]!r}")
        yield user, item, t  # type: ignore[misc]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open_text(path) as stream:
            yield from enumerate(stream, start=1)
    except LAYOUT_ERRORS as error:
        raise DataError(f"{path}: the file breaks off or is not UTF-8 text: {error}") from error


def _object(path: Path, number: int, line: str, *, literal: bool) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        try:
            found = ast.literal_eval(line) if literal else None
        except (ValueError, SyntaxError):
            found = None
        if found is None:
            raise DataError(f"{path}: line {number}: must be a JSON object: {error.msg}; got {line.strip()[:60]!r}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: line {number}: must be a JSON object; got {line.strip()[:60]!r}")
    return found


def _by_appearance(values: npt.NDArray[np.int64]) -> tuple[IntArray, IntArray]:
    """(1, 2, ... in the order of first appearance `[N]`, the value of each)."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[order] = np.arange(1, len(distinct) + 1)
    return rank[inverse], distinct[order].astype(np.int64)
