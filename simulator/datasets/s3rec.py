"""The text files of S3-Rec (Zhou et al., CIKM 2020): one user a line, items in time order;
attributes as JSON beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Catalogue, IntArray
from simulator.datasets.beside import coverage, packed_or_plain, presence
from simulator.datasets.delimited import LAYOUT_ERRORS, DataError, open_text, unreadable
from simulator.datasets.numbering import Numbering
from simulator.datasets.sequences import leave_out
from simulator.scenario.parts import Data
from simulator.users.base import Source


def read(data: Data, path: Path) -> Source:
    """Read `NAME.txt`, and `NAME_item2attributes.json` where it lies beside it, each plain or
    `.gz`.

    Users and items keep their order of first appearance. The last `hold_out` items of every user
    are held out (`sequences.leave_out`). Attributes of items that nobody has are left out and
    counted.

    Raises:
        DataError: a line that is not `user item item ...` in whole numbers, or a user twice, named
            by file and line; an item twice in the attributes.
    """
    users, offsets, original = read_lines(path)
    numbering = Numbering.by_appearance(original, base=1)
    files = beside(path)
    attributes: tuple[IntArray, IntArray] | None = None
    of_attributes: dict[str, int] = {}
    for file in files:
        attributes, of_attributes = _attributes(file, numbering)
    catalogue = Catalogue(
        len(users),
        len(numbering),
        {"id": np.concatenate(([-1], numbering.original))},
        {"id": users},
        attributes,
    )
    notes: dict[str, Any] = {
        "file": path.name,
        "users": len(users),
        "items": len(numbering),
        "interactions": len(original),
        **presence(files, [] if files else [_attributes_name(path)]),
        **of_attributes,
    }
    return leave_out(offsets, numbering(original), catalogue, notes, held=data.hold_out)


def attributes_of(path: Path) -> Path:
    """Where the attributes of the items of `NAME.txt` lie, or would lie:
    `NAME_item2attributes.json`, plain or `.gz`.
    """
    name = _attributes_name(path)
    return packed_or_plain(path.parent, name) or path.with_name(name)


def beside(path: Path) -> list[Path]:
    """The files that are read with `NAME.txt`, as far as they are there."""
    return [file for file in [attributes_of(path)] if file.exists()]


def _attributes_name(path: Path) -> str:
    return f"{path.name.removesuffix('.gz').removesuffix('.txt')}_item2attributes.json"


def read_lines(path: Path) -> tuple[IntArray, IntArray, IntArray]:
    """The file as (user `[U]`, offsets `[U + 1]`, item `[N]`), ids as they stand there; blank lines
    hold nobody.

    Raises:
        DataError: see `read`.
    """
    users: list[int] = []
    counts: list[int] = []
    items: list[int] = []
    seen: dict[int, int] = {}
    try:
        with open_text(path) as stream:
            for number, line in enumerate(stream, start=1):
                words = line.split()
                if not words:
                    continue
                bad = next((word for word in words if not is_id(word)), None)
                if bad is not None:
                    raise DataError(
                        f"{path}: line {number}: must be `user item item ...` in whole numbers of 0"
                        f" to 2^63 - 1; got {bad[:40]!r}"
                    )
                user, *bought = map(int, words)
                if not bought:
                    raise DataError(
                        f"{path}: line {number}: user {user} must have at least one item; it has"
                        " none"
                    )
                if user in seen:
                    raise DataError(
                        f"{path}: line {number}: user {user} must have one line; line {seen[user]}"
                        " is theirs already"
                    )
                seen[user] = number
                users.append(user)
                counts.append(len(bought))
                items.extend(bought)
    except LAYOUT_ERRORS as error:
        raise unreadable(path, error) from error
    if not users:
        raise DataError(f"{path}: the file is empty")
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return np.array(users, dtype=np.int64), offsets, np.array(items, dtype=np.int64)


def is_id(word: str) -> bool:
    """Whether a word is a whole number of 0 to 2^63 - 1 in plain digits."""
    return (
        word.isascii()
        and word.isdecimal()
        and (len(word) < 19 or (len(word) < 40 and int(word) < 2**63))
    )


def _attributes(
    path: Path, numbering: Numbering
) -> tuple[tuple[IntArray, IntArray], dict[str, int]]:
    """Item -> attribute ids, ragged, and notes on the items; attributes of items that nobody has
    are left out.
    """
    stored = _pairs(path)
    lists: list[list[int]] = [[] for _ in range(len(numbering) + 1)]
    place = {int(original): number for number, original in enumerate(numbering.original, start=1)}
    keys: dict[int, str] = {}
    for key, ids in stored:
        if (
            not is_id(key)
            or type(ids) is not list
            or not all(type(i) is int and 1 <= i < 2**31 for i in ids)
        ):
            raise DataError(
                f"{path}: key {key!r} must be an item id with a list of attribute ids of 1 to 2^31"
                f" - 1; got {str(ids)[:60]}"
            )
        item = int(key)
        if item in keys:
            raise DataError(
                f"{path}: item ids must be unique; {key!r} stands there twice (first as"
                f" {keys[item]!r})"
            )
        keys[item] = key
        if item in place:
            lists[place[item]] = ids
    counts = np.array([len(ids) for ids in lists])
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    flat = np.array([i for ids in lists for i in ids], dtype=np.int64)
    return (offsets, flat), coverage("items", path.name, keys, place, "left out")


def _pairs(path: Path) -> list[tuple[str, Any]]:
    """The keys and values of a JSON object in their order, a key that stands there twice
    included.
    """
    try:
        with open_text(path) as stream:
            stored = json.load(stream, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {error.lineno}: not readable as JSON: {error.msg}"
        ) from error
    except LAYOUT_ERRORS as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(stored, _Pairs):
        raise DataError(
            f"{path}: must map item ids to lists of attribute ids; got {type(stored).__name__}"
        )
    return stored


class _Pairs(list[tuple[str, Any]]):
    """A JSON object: unlike a JSON array, which is a plain list."""
