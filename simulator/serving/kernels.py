"""The compiled loops of serving and of the engine: moving columns, memories of users, uniting
candidates and cutting slates; no policy and no world.

Importing this module imports numba: do so inside the function that needs it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from policies.jit import njit

Array = npt.NDArray[Any]


def group_by_user(user: Array) -> Array:
    """The order `[R]` that puts requests of the same user together, users ascending, each user's
    own order kept.
    """
    if len(user) == 0:
        return np.zeros(0, dtype=np.int64)
    low, high = int(user.min()), int(user.max())
    order: Array = _counting_sort(user, low, high - low + 1)
    return order


@njit()
def _counting_sort(key: Any, low: int, width: int) -> Any:
    place = np.zeros(width + 1, dtype=np.int64)
    for i in range(len(key)):
        place[np.int64(key[i]) - low + 1] += 1
    for j in range(width):
        place[j + 1] += place[j]
    order = np.empty(len(key), dtype=np.int64)
    for i in range(len(key)):
        at = np.int64(key[i]) - low
        order[place[at]] = i
        place[at] += 1
    return order


def _bits(values: Array) -> Array:
    """The same memory as unsigned integers: what is only moved takes one kernel for all types of a
    width.
    """
    return values.view(f"u{values.dtype.itemsize}")


def rows_of_runs(starts: Array, lengths: Array, total: int) -> Array:
    """The numbers from `starts[i]` to `starts[i] + lengths[i] - 1` one after another, `[total]`."""
    out = np.empty(total, dtype=np.int64)
    _rows_of_runs(starts, lengths, out)
    return out


@njit()
def _rows_of_runs(starts: Any, lengths: Any, out: Any) -> None:
    at = 0
    for i in range(len(starts)):
        for j in range(lengths[i]):
            out[at + j] = starts[i] + j
        at += lengths[i]


def places(lengths: Array, total: int) -> Array:
    """0, 1, ..., `lengths[i]` - 1 for each i, one after another, `[total]` uint16."""
    out = np.empty(total, dtype=np.uint16)
    _places(lengths, out)
    return out


@njit()
def _places(lengths: Any, out: Any) -> None:
    at = 0
    for i in range(len(lengths)):
        for j in range(lengths[i]):
            out[at + j] = j
        at += lengths[i]


def pack(block: Array, shown: Array, out: Array) -> None:
    """The first `shown[b]` values of each row of `block` `[B, k]` one after another in `out`, of
    the same type.
    """
    _pack(_bits(block), shown, _bits(out))


@njit()
def _pack(block: Any, shown: Any, out: Any) -> None:
    at = 0
    for b in range(len(shown)):
        for j in range(shown[b]):
            out[at + j] = block[b, j]
        at += shown[b]


@njit()
def remember(items: Any, clicked: Any, rows: Any, slate: Any, click: Any, shown: Any) -> None:
    """Push the shown items of each request onto the right end of its user's memory.

    Args:
        items: `[n, W]` int32 right-aligned, 0 = nothing yet; changed in place.
        clicked: `[n, W]` bool; changed in place.
        rows: `[B]` row of each request in `items`.
        slate, click, shown: `[B, k]` items, `[B, k]` int8 and `[B]` of the block.
    """
    width = items.shape[1]
    whole_items = np.empty(width + slate.shape[1], dtype=np.int32)
    whole_clicked = np.empty(width + slate.shape[1], dtype=np.bool_)
    for b in range(len(rows)):
        row, new = rows[b], shown[b]
        # To a place of its own, with what is new behind it, and back: loops that LLVM vectorises.
        for j in range(width):
            whole_items[j] = items[row, j]
        for j in range(width):
            whole_clicked[j] = clicked[row, j]
        for j in range(new):
            whole_items[width + j] = slate[b, j]
            whole_clicked[width + j] = click[b, j] == 1
        last_items, last_clicked = whole_items[new:], whole_clicked[new:]
        for j in range(width):
            items[row, j] = last_items[j]
        for j in range(width):
            clicked[row, j] = last_clicked[j]


@njit()
def push(memory: Any, rows: Any, values: Any, shown: Any) -> None:
    """Push what is known of the shown items of each request onto the right end of its user's
    memory, as `remember` does the items.

    Args:
        memory: `[n, W]` right-aligned; changed in place.
        rows: `[B]` row of each request in `memory`.
        values, shown: `[B, k]` and `[B]` of the block.
    """
    width = memory.shape[1]
    whole = np.empty(width + values.shape[1], dtype=memory.dtype)
    for b in range(len(rows)):
        row, new = rows[b], shown[b]
        for j in range(width):
            whole[j] = memory[row, j]
        for j in range(new):
            whole[width + j] = values[b, j]
        last = whole[new:]
        for j in range(width):
            memory[row, j] = last[j]


@njit()
def recollect(memory: Any, rows: Any, out: Any) -> None:
    """Copy the last `out.shape[1]` values of each row of `memory` `[n, W]` that `rows` `[B]` names
    into `out`.
    """
    skip = memory.shape[1] - out.shape[1]
    for b in range(len(rows)):
        last, target = memory[rows[b], skip:], out[b]
        for j in range(len(last)):
            target[j] = last[j]


@njit()
def unite(lists: Any, quotas: Any, n_items: int, out_items: Any, out_channel: Any) -> None:
    """One candidate list for each request out of the lists of its channels: earlier channels first,
    repeats dropped.

    Args:
        lists: `[B, sum(quotas)]` the channels' items side by side, 0 = none.
        quotas: `[C]` width of each channel's part.
        n_items: items are 1..n_items.
        out_items, out_channel: `[B, sum(quotas)]`, filled from the left; zeros on entry.
    """
    mark = np.full(n_items + 1, -1, dtype=np.int32)
    for b in range(lists.shape[0]):
        n, at = 0, 0
        for c in range(len(quotas)):
            for j in range(at, at + quotas[c]):
                item = lists[b, j]
                if item != 0 and mark[item] != b:
                    mark[item] = b
                    out_items[b, n] = item
                    out_channel[b, n] = c
                    n += 1
            at += quotas[c]


@njit()
def best(items: Any, scores: Any, places: Any) -> bool:
    """The columns of the candidates of highest score in each row, best first; equal scores keep
    their order. Whether that is every column where it stands: nothing is left to be cut.

    Args:
        items, scores: `[B, n]` candidates; items that are 0 are none.
        places: `[B, k]`, filled from the left; -1 on entry.
    """
    k = places.shape[1]
    is_whole: bool = items.shape[1] == k
    for b in range(items.shape[0]):
        n = 0
        for j in range(items.shape[1]):
            if items[b, j] == 0:
                continue
            score = scores[b, j]
            if n == k and score <= scores[b, places[b, k - 1]]:
                continue
            at = n if n < k else k - 1
            while at > 0 and scores[b, places[b, at - 1]] < score:
                places[b, at] = places[b, at - 1]
                at -= 1
            places[b, at] = j
            is_whole &= at == j
            n = min(n + 1, k)
        is_whole &= n == k
    return bool(is_whole)


@njit()
def draft(
    one: Any,
    two: Any,
    channel_one: Any,
    channel_two: Any,
    coins: Any,
    items: Any,
    team: Any,
    channel: Any,
) -> None:
    """Team draft: in each round the coin's winner picks first; each picks its best item that is not
    in the slate yet.

    Args:
        one, two: `[B, k]` items of the two teams, best first, 0 = none.
        channel_one, channel_two: `[B, k]` where each came from.
        coins: `[B, k]` True: team 0 picks first in this round.
        items, team, channel: `[B, k]` outputs; zeros on entry.
    """
    k = items.shape[1]
    for b in range(items.shape[0]):
        n = 0
        at = np.zeros(2, dtype=np.int64)
        for r in range(k):
            before = n
            leader = 0 if coins[b, r] else 1
            for turn in range(2):
                who = leader if turn == 0 else 1 - leader
                source, where = (one, channel_one) if who == 0 else (two, channel_two)
                while n < k and at[who] < k:
                    item = source[b, at[who]]
                    taken = item == 0
                    for j in range(n):
                        taken = taken or items[b, j] == item
                    at[who] += 1
                    if not taken:
                        items[b, n], team[b, n], channel[b, n] = item, who, where[b, at[who] - 1]
                        n += 1
                        break
            if n in (before, k):
                break


def windows(
    items: Array, clicked: Array, begin: Array, end: Array, width: int, *, left: bool
) -> tuple[Array, Array]:
    """The stretches begin..end-1 of flat columns as rows `[B, width]`, 0 and False where there is
    nothing.

    Args:
        items, clicked: `[N]`.
        begin, end: `[B]`.
        width: columns of a row; of a longer stretch the first (left) or last ones are taken.
        left: whether rows are filled from the left, or right-aligned.
    """
    out, marks = (
        np.zeros((len(begin), width), dtype=np.int64),
        np.zeros((len(begin), width), dtype=np.bool_),
    )
    _windows(items, clicked, begin, end, left, out, marks)
    return out, marks


@njit()
def _windows(
    items: Any, clicked: Any, begin: Any, end: Any, left: bool, out: Any, marks: Any
) -> None:
    width = out.shape[1]
    for b in range(len(begin)):
        n = min(end[b] - begin[b], width)
        source = begin[b] if left else end[b] - n
        target = 0 if left else width - n
        for j in range(n):
            out[b, target + j] = items[source + j]
            marks[b, target + j] = clicked[source + j]
