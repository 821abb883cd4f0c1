"""Mutations of bytes and of plain trees, each by a source of chance."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

TOKENS = [
    b'"',
    b"'",
    b"\t",
    b",",
    b";",
    b"\n",
    b"\r\n",
    b"\r",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"0x1F",
    b"1e400",
    b"nan",
    b"inf",
    b"-1",
    b" ",
    b"9" * 30,
    b"9" * 5000,
    b"\xe2\x80\xa8",
    b"\xc2\xa0",
    b"[",
    b"{",
    b"}",
    b"null",
    b"true",
    b"2019-13-45",
    b"\\",
    b"x" * 5000,
    b"1_0",
    b"+5",
    b"\xd9\xa3",
    b"::",
    b":token",
    b":float",
    b"\x1a",
    b"\x0c",
    b"&a ",
    b"*a",
    b"<<: ",
    b"---\n",
    b"...\n",
    b": ",
    b"- ",
    b"|\n",
    b"!!int ",
    b"!!python/object:os.system ",
    b"%YAML 9.9\n",
    b"#",
    b"@",
    b"`",
    b"0x_",
    b".nan",
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b"\xf0\x9f\x98\x80",
]

VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3.5,
    0.5,
    10**12,
    10**30,
    2**32,
    1e308,
    -1e308,
    1e-308,
    float("nan"),
    float("inf"),
    "",
    " ",
    "x",
    ".",
    "..",
    "history",
    "../../x",
    "a/b",
    "\x00",
    "\x1b[31m",
    "\u202eabc",
    "<script>",
    "a|b`",
    "y" * 5000,
    "\u00e9",
    [],
    {},
    [1],
    ["a", "a"],
    [[[]]],
    {"a": {"b": [None]}},
    {"kind": 5},
    "mine.py:X",
    "choice",
    "markov",
    "held_out",
    "popularity",
    "random",
    "2020-01-01",
]


def of_bytes(chance: random.Random, content: bytes) -> bytes:
    """The content with one to five places changed: a token put in, bytes lost, doubled or changed,
    lines lost or doubled, an end cut.
    """
    mutated = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(mutated) + 1)
        until = min(len(mutated), at + chance.choice([0, 1, 2, 8, 40]))
        kind = chance.randrange(6)
        if kind == 0:
            mutated[at:until] = chance.choice(TOKENS)
        elif kind == 1:
            del mutated[at:until]
        elif kind == 2:
            start = chance.randrange(len(mutated) + 1)
            mutated[at:at] = mutated[start : start + chance.randrange(60)]
        elif kind == 3 and mutated:
            mutated[at % len(mutated)] = chance.randrange(256)
        elif kind == 4 and chance.random() < 0.3:
            del mutated[at:]
        else:
            lines = bytes(mutated).split(b"\n")
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
            mutated[:] = b"\n".join(lines)
    return bytes(mutated)


def of_tree(chance: random.Random, tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with a key lost, renamed, added, or given a value from VALUES, from elsewhere in it,
    or a little larger or smaller.
    """
    mutated = copy.deepcopy(tree)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        places = list(_places(mutated))
        holder, key = chance.choice(places)
        kind = chance.randrange(12)
        if kind >= 8 and isinstance(holder[key], (int, float)):
            holder[key] = chance.choice([0, 1, 2, 0.5, 1.1]) * holder[key]
        elif kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[str(chance.choice(VALUES))] = holder.pop(key)
        elif kind == 2 and isinstance(holder, dict):
            holder["colour"] = chance.choice(VALUES)
        elif kind == 3:
            other, name = chance.choice(places)
            if name in other if isinstance(other, dict) else name < len(other):
                holder[key] = copy.deepcopy(other[name])
        else:
            holder[key] = chance.choice(VALUES)
        if not mutated:
            break
    return mutated


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    entries = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in list(entries):
        yield tree, key
        yield from _places(value)
