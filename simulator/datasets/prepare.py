"""Raw dumps (reviews of Amazon and Yelp as JSON lines, ratings of MovieLens) -> the text format of
`s3rec`: chronological, k-core. Nothing is read for a run here.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import BoolArray, IntArray
from simulator.datasets.delimited import LAYOUT_ERRORS, UTF_8, DataError, open_text, unreadable
from simulator.log.files import write_text


@dataclass(frozen=True)
class Format:
    """How a dump names things.

    Attributes:
        user, item, time: keys of a review.
        when: the value of `time` -> seconds since 1970 (UTC); raises ValueError, TypeError or
            OverflowError.
        text: key of a review's text.
        key: the item's key in the file of item descriptions.
        words: an item description -> its attributes, as text.
        since: the first day taken if the caller does not say (the paper takes Yelp from
            2019-01-01), or None.
        fields: what stands between the `::` of a line, for a dump that is no JSON; the last one may
            hold more of them.
        item_fields: the same of the file of item descriptions.
        item_encoding: of that file, for one that is no JSON.
    """

    user: str
    item: str
    time: str
    when: Callable[[Any], float]
    text: str
    key: str
    words: Callable[[Mapping[str, Any]], list[str]]
    since: datetime | None = None
    fields: tuple[str, ...] = ()
    item_fields: tuple[str, ...] = ()
    item_encoding: str = UTF_8


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and not value.strip().isdecimal()):
        raise TypeError("not a number")
    return float(value)


def _date(value: Any) -> float:
    """A time without an offset is UTC."""
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _amazon_words(item: Mapping[str, Any]) -> list[str]:
    """Every category below the first, which all items of a dump share, and the brand."""
    paths = item.get("categories") or []
    if not isinstance(paths, list) or not all(isinstance(path, list) for path in paths):
        raise TypeError(
            "categories must be lists of names from the widest to the narrowest; got"
            f" {str(paths)[:60]}"
        )
    found = [str(name) for path in paths for name in path[1:]]
    return list(dict.fromkeys([*found, *([str(item["brand"])] if item.get("brand") else [])]))


def _yelp_words(item: Mapping[str, Any]) -> list[str]:
    names = item.get("categories") or ""
    if not isinstance(names, str):
        raise TypeError(f"categories must be names with commas between them; got {str(names)[:60]}")
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def _genres(item: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name.strip() for name in item["genres"].split("|") if name.strip()))


LATEST = 1e11
"""s since 1970 (the year 5138): a greater number is a time in ms or us."""

FORMATS = {
    "amazon": Format(
        "reviewerID", "asin", "unixReviewTime", _seconds, "reviewText", "asin", _amazon_words
    ),
    "yelp": Format(
        "user_id",
        "business_id",
        "date",
        _date,
        "text",
        "business_id",
        _yelp_words,
        datetime(2019, 1, 1, tzinfo=UTC),
    ),
    "movielens": Format(
        "user",
        "item",
        "timestamp",
        _seconds,
        "text",
        "item",
        _genres,
        fields=("user", "item", "rating", "timestamp"),
        item_fields=("item", "title", "genres"),
        item_encoding="latin-1",
    ),
}
"""By kind. MovieLens: `ratings.dat` and `movies.dat` of ml-1m and ml-10m, by their README."""


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
        repeated: of them, word for word what a review above says.
        outside: of the others, outside the days asked for.
        rare: of the others, those of users or items that the k-core has not.
    """

    user: IntArray
    item: IntArray
    original: list[str]
    read: int
    repeated: int
    outside: int
    rare: int

    @property
    def statistics(self) -> Statistics:
        """Of what is left."""
        return Statistics(len(np.unique(self.user)), len(self.original), len(self.user))


def prepare(
    dump: Path,
    form: Format,
    core: int = 5,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Prepared:
    """Read a dump, keep the days asked for, then only users and items with at least `core` reviews,
    put users' reviews in time order.

    A review that repeats one above it word for word (the same user, item, time and text; without a
    text, the same in everything) is dropped. Another review of the same user and item is another
    interaction. Ratings are not looked at: a review is an interaction, as in the data of S3-Rec
    (Zhou et al., CIKM 2020), and as MovieLens is used in the literature of sequences (Kang &
    McAuley, ICDM 2018). The k-core is the largest set in which every user and every item has at
    least `core` reviews. Reviews of the same second keep the order of the file.

    Args:
        dump: as the form says, plain or gzip.
        form: one of FORMATS.
        core: k.
        since, until: first and last moment taken, both included; None = no limit.

    Raises:
        DataError: a line that is not a review, or nothing left.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows = [
        (users.setdefault(user, len(users)), items.setdefault(item, len(items)), t, digest)
        for user, item, t, digest in _reviews(dump, form)
    ]
    if not rows:
        raise DataError(f"{dump}: the file is empty")
    user, item, t, digest = (np.array(column) for column in zip(*rows, strict=True))
    kept = _first_of_each(user, item, t, digest)
    repeated = int(len(t) - kept.sum())
    if since is not None:
        kept &= t >= since.timestamp()
    if until is not None:
        kept &= t <= until.timestamp()
    inside = int(kept.sum())
    kept[kept] = k_core(user[kept], item[kept], core)
    if not kept.any():
        raise DataError(
            f"{dump}: of {len(t):,} reviews, {repeated:,} are repeated word for word, {inside:,} of"
            f" the others are of the days asked for and none is in the {core}-core"
        )
    order = np.lexsort((np.arange(int(kept.sum())), t[kept], user[kept]))
    user, item = user[kept][order], item[kept][order]
    names = list(items)
    numbers, appearance = _by_appearance(item)
    return Prepared(
        _by_appearance(user)[0],
        numbers,
        [names[i] for i in appearance],
        len(t),
        repeated,
        len(t) - repeated - inside,
        inside - int(kept.sum()),
    )


def _first_of_each(*columns: npt.NDArray[Any]) -> BoolArray:
    """Which rows have no row above them that is the same in all `columns`, `[N]`."""
    order = np.lexsort(columns)  # stable: of rows that are the same, the first stays first
    first = np.ones(len(order), dtype=bool)
    first[order[1:]] = np.logical_or.reduce(
        [column[order][1:] != column[order][:-1] for column in columns]
    )
    return first


def k_core(user: IntArray, item: IntArray, core: int) -> BoolArray:
    """Which rows are in the k-core `[N]`: rows of users or items with fewer than `core` rows are
    taken away until there are none.
    """
    kept = np.ones(len(user), dtype=bool)
    while True:
        of_user = np.bincount(user[kept], minlength=int(user.max(initial=0)) + 1)
        of_item = np.bincount(item[kept], minlength=int(item.max(initial=0)) + 1)
        still = kept & (of_user[user] >= core) & (of_item[item] >= core)
        if still.sum() == kept.sum():
            return kept
        kept = still


def write(
    prepared: Prepared, out: Path, name: str, words: Mapping[str, list[str]] | None = None
) -> list[Path]:
    """Write `NAME.txt`, and with `words` (item -> attributes) `NAME_item2attributes.json`, into
    `out`, each by rename.

    Returns:
        What was written.

    Raises:
        DataError: `name` is not the plain name of a file.
    """
    if Path(name).name != name or name in ("", "..") or not name.isprintable():
        raise DataError(f"--name {name!r}: must be the plain name of a file, without folders")
    out.mkdir(parents=True, exist_ok=True)
    starts = np.flatnonzero(np.diff(prepared.user, prepend=0))
    pieces = np.split(prepared.item, starts[1:])
    lines = [
        f"{user} {' '.join(map(str, items))}\n"
        for user, items in zip(prepared.user[starts], pieces, strict=True)
    ]
    written = [write_text(out / f"{name}.txt", "".join(lines))]
    if words is not None:
        numbers: dict[str, int] = {}
        attributes = {
            str(place): [
                numbers.setdefault(word, len(numbers) + 1) for word in words.get(original, [])
            ]
            for place, original in enumerate(prepared.original, start=1)
        }
        written.append(write_text(out / f"{name}_item2attributes.json", json.dumps(attributes)))
    return written


def attributes(descriptions: Path, form: Format) -> dict[str, list[str]]:
    """Item -> its attributes as text, from a file of item descriptions (JSON lines, or Python
    literals as in old Amazon dumps).

    Raises:
        DataError: a line that is not a description of an item, or two that give one item different
            attributes.
    """
    found: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    encoding = form.item_encoding if form.item_fields else UTF_8
    for number, line in _lines(descriptions, encoding):
        if form.item_fields:
            description = _split(descriptions, number, line, form.item_fields)
        else:
            description = _object(descriptions, number, line, literal=True)
        item = _id(descriptions, number, description, form.key)
        try:
            words = form.words(description)
        except TypeError as error:
            raise DataError(f"{descriptions}: line {number}: {error}") from error
        if found.setdefault(item, words) != words:
            raise DataError(
                f"{descriptions}: line {number}: {form.key} must be unique; {item!r} has other"
                f" attributes in line {lines[item]}"
            )
        lines.setdefault(item, number)
    return found


def _reviews(dump: Path, form: Format) -> Iterator[tuple[str, str, float, int]]:
    """User, item, time (s since 1970) and a number for what is said of every review."""
    for number, line in _lines(dump):
        if form.fields:
            review = _split(dump, number, line, form.fields)
        else:
            review = _object(dump, number, line, literal=False)
        user, item = (_id(dump, number, review, key) for key in (form.user, form.item))
        try:
            t = form.when(review.get(form.time))
        except (ValueError, TypeError, OverflowError):
            t = math.nan
        if not math.isfinite(t):
            raise DataError(
                f"{dump}: line {number}: {form.time} must be a time; got"
                f" {str(review.get(form.time))[:60]!r}"
            )
        if not 0 <= t < LATEST:
            raise DataError(
                f"{dump}: line {number}: {form.time} must be a time since 1970, in s if it is a"
                f" number; got {t:.15g}"
            )
        yield user, item, t, _digest(review, form)


def _id(path: Path, number: int, record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(
            f"{path}: line {number}: {key} must be text; got"
            f" {str(value)[:60] if isinstance(value, str) else value!r}"
        )
    return value.strip()


def _digest(review: Mapping[str, Any], form: Format) -> int:
    """63 bits of what a review says: of its text, or of the whole record where it has none."""
    text = review.get(form.text)
    words = " ".join(text.split()) if isinstance(text, str) else ""
    words = words or json.dumps(review, sort_keys=True)
    return (
        int.from_bytes(
            hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        )
        >> 1
    )


def _lines(path: Path, encoding: str = UTF_8) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, by number."""
    try:
        with open_text(path, encoding) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, line
    except LAYOUT_ERRORS as error:
        raise unreadable(path, error) from error


def _split(path: Path, number: int, line: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a line with `::` between them.

    Raises:
        DataError: it has fewer.
    """
    cells = line.strip().split("::", len(fields) - 1)
    if len(cells) < len(fields):
        raise DataError(
            f"{path}: line {number}: must be {'::'.join(fields)}; got {line.strip()[:60]!r}"
        )
    return dict(zip(fields, cells, strict=True))


def _object(path: Path, number: int, line: str, *, literal: bool) -> dict[str, Any]:
    """The object of a line: JSON, or with `literal` a Python literal.

    Raises:
        DataError: neither, no object, or a key that stands in it twice.
    """
    try:
        found = json.loads(line, object_pairs_hook=_unique)
    except _TwiceError as error:
        raise DataError(
            f"{path}: line {number}: the key {error.args[0]!r} stands there twice; got"
            f" {line.strip()[:60]!r}"
        ) from error
    except (ValueError, RecursionError) as error:
        found = _literal(line) if literal else None
        if found is None:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"{path}: line {number}: must be a JSON object: {reason}; got {line.strip()[:60]!r}"
            ) from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: line {number}: must be a JSON object; got {line.strip()[:60]!r}")
    return found


class _TwiceError(ValueError):
    """A key that stands in an object twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise _TwiceError(key)
        unique[key] = value
    return unique


def _literal(line: str) -> Any:
    """A Python literal; None where the line is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of backslashes in old descriptions
            return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _by_appearance(values: IntArray) -> tuple[IntArray, IntArray]:
    """(1, 2, ... in the order of first appearance `[N]`, the value of each)."""
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(distinct), dtype=np.int64)
    rank[order] = np.arange(1, len(distinct) + 1)
    return rank[inverse], distinct[order].astype(np.int64)
