"""Personalised prompts (RecGPT section 4.3, Algorithm 1): what stands between the items of a
history. No training and no recall here.

Prompts are one matrix beside the items: row i holds the up to K prompts that stand *before* item i.
Whether a model generated them or a user really was shown them, all else is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policies.base import BoolArray, FloatArray, Histories, IntArray, Sequences, right_aligned
from recgpt.model import GENERATED, GPT, REAL, Layer

ROWS = 512
"""How many users are walked at once."""


@dataclass(frozen=True, slots=True)
class Dialogues:
    """Prompt-enhanced sequences s* (4.3), ragged: user i has the tokens
    `offsets[i]:offsets[i + 1]`.

    Attributes:
        offsets: `[U + 1]`.
        tokens: `[N]` items.
        prompt: `[N]` True where the token is a prompt, False where it is real.
        target: `[N]` the next real item after a real token; 0 after a prompt and after the user's
            last item (eq. 5 predicts from the positions of real items only).
    """

    offsets: IntArray
    tokens: IntArray
    prompt: BoolArray
    target: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def segments(self) -> IntArray:
        """`[N]` REAL or GENERATED."""
        return np.where(self.prompt, GENERATED, REAL)

    def following(self) -> IntArray:
        """The next real item after every token, prompts too, `[N]`; 0 after the user's last
        item.
        """
        at = np.flatnonzero(~self.prompt)
        after = np.searchsorted(at, np.arange(len(self.tokens)), side="right")
        end = np.repeat(self.offsets[1:], np.diff(self.offsets))
        at = np.append(at, len(self.tokens))
        return np.where(at[after] < end, np.append(self.tokens, 0)[at[after]], 0)

    def last(self, length: int) -> tuple[IntArray, IntArray]:
        """The last `length` tokens of every user and their segments, `[U, length]`,
        right-aligned.
        """
        n = np.diff(self.offsets)
        return right_aligned(self.tokens, self.offsets[1:], n, length), right_aligned(
            self.segments, self.offsets[1:], n, length
        )


def interleave(offsets: IntArray, items: IntArray, prompts: IntArray) -> Dialogues:
    """`s* = v1, p(2,1..K), v2, p(3,1..K), v3, ...` of ragged `items` `[N]` and the `prompts`
    `[N, K]` before each (0 = none).
    """
    block = np.concatenate([prompts, items[:, None]], axis=1)
    held = block != 0
    running = np.concatenate(([0], np.cumsum(held.sum(axis=1))))
    following = np.append(items[1:], 0)
    following[offsets[1:][np.diff(offsets) > 0] - 1] = 0
    target = np.zeros_like(block)
    target[:, -1] = following
    prompt = np.ones_like(held)
    prompt[:, -1] = False
    return Dialogues(running[offsets].astype(np.int64), block[held], prompt[held], target[held])


def exposures(sequences: Sequences, window: int) -> tuple[Sequences, IntArray]:
    """What users really were shown and did not click, as prompts.

    Args:
        sequences: clicks and unclicks in time order.
        window: K, how many unclicks before a click are kept: the last ones before it, in their
            order.

    Returns:
        The clicks, and the prompts `[N_clicks, K]`, left-aligned, 0 = none. Unclicks before a
        user's first click have no item that they follow, those after the last click none that
        answers them: neither are prompts.
    """
    n = len(sequences.items)
    clicks = sequences.clicks()
    at = np.flatnonzero(sequences.clicked)
    prompts = np.zeros((len(at), window), dtype=np.int64)
    if n == 0 or window == 0 or len(at) == 0:
        return clicks, prompts
    which: IntArray = (
        np.cumsum(sequences.clicked) - sequences.clicked
    )  # index among all clicks of the next click at or after each impression
    user = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    distance = at[np.minimum(which, len(at) - 1)] - np.arange(n)
    keep = ~sequences.clicked & (which < len(at)) & (distance <= window)
    keep[keep] = user[keep] == user[at[which[keep]]]
    keep[keep] = which[keep] > clicks.offsets[user[keep]]
    source = np.flatnonzero(keep)
    slot: IntArray = which[source]
    first = np.searchsorted(slot, slot)
    prompts[slot, np.arange(len(slot)) - first] = sequences.items[source]
    return clicks, prompts


def recent(histories: Histories, window: int, length: int) -> tuple[IntArray, IntArray]:
    """The last `length` tokens of each request's dialogue and their segments, `[B, length]`,
    right-aligned: clicks, real exposures between.

    The same as `interleave` of `exposures`, without looking at what is older than needed.
    """
    shape = (len(histories), length)
    tokens, segments = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    _recent(histories.items, histories.clicked, window, tokens, segments)
    return tokens, segments


@numba.njit(cache=True, nogil=True)
def _recent(items: Any, clicked: Any, window: int, tokens: Any, segments: Any) -> None:
    for row in range(len(items)):
        place = tokens.shape[1]
        since = -1  # unclicks met since the last click from the right; -1 = none yet
        # Tokens from `place` on that stand before the oldest click met: prompts only if a click
        # precedes them.
        pending = 0
        for c in range(items.shape[1] - 1, -1, -1):
            if items[row, c] == 0:
                continue
            if not clicked[row, c]:
                if since < 0 or since >= window or place == 0:
                    continue
                since += 1
                pending += 1
                segments[row, place - 1] = GENERATED
            else:
                if place == 0:
                    pending = 0
                    break
                since = pending = 0
            place -= 1
            tokens[row, place] = items[row, c]
        for c in range(place, place + pending):
            tokens[row, c] = segments[row, c] = 0


@torch.no_grad()
def generate(
    model: GPT,
    users: IntArray,
    offsets: IntArray,
    items: IntArray,
    prompts: IntArray,
    layer: Layer = "items",
    rows: int = 0,
    least: float = 0.0,
    beyond: int = 0,
    until: int = 0,
    fresh: bool = False,
) -> IntArray:
    """Fill the empty places of `prompts` by Algorithm 1, for all users.

    Walking along a user's items, the model answers K times after each item: the best item over all
    is appended, then it generates again; then the true next item is appended. So a prompt depends
    on all tokens before it, prompts and items. (Algorithm 1 prints `if k < K` for the loop over k,
    and `v_{t+2}` for the next item; both are read as in the text of section 4.3.) Users with about
    equally many items are walked together, one token at a time, from the keys and values of the
    tokens before; who has fewer is done earlier. A user's last `length` items are walked; once s*
    is longer than the model's `length`, the model sees its last `length` tokens, as everywhere.

    Args:
        model: in evaluation mode.
        users: `[U]`.
        offsets: `[U + 1]` of the items.
        items: `[N]` real items.
        prompts: `[N, K]`, given prompts (real exposures) left-aligned, 0 where the model is to
            answer.
        layer: the item vectors that are searched.
        rows: compute in blocks of exactly so many users, so that a user's prompts do not depend on
            who else is there; 0 = as is fastest.
        least: an answer to which the model gives a smaller probability is walked over, but is no
            prompt.
        beyond: users with no more items are left as given.
        until: users with more items are left as given; 0: nobody is.
        fresh: an item that stands in the dialogue already is no answer.

    Returns:
        `[N, K]`; rows of a user's first item, and of items older than the last `length`, stay as
        they were given.
    """
    window = prompts.shape[1]
    filled = prompts.copy()
    length = model.shape.length
    n = np.minimum(np.diff(offsets), length)
    if window == 0:
        return filled
    n = np.where((np.diff(offsets) <= beyond) | (until > 0) & (np.diff(offsets) > until), 0, n)
    search = Search(model, layer)
    order = np.argsort(n, kind="stable")
    order = order[n[order] > 1]
    for start in range(0, len(order), rows or ROWS):
        some = order[start : start + (rows or ROWS)]
        column = np.arange(n[some].max())
        inside = column < n[some][:, None]
        flat = (offsets[some + 1] - n[some])[:, None] + np.minimum(column, n[some][:, None] - 1)
        block = np.resize(np.arange(len(some)), max(rows, len(some)))
        walked = _walk(
            search, users[some[block]], items[flat[block]], filled[flat[block, 1:]], least, fresh
        )
        filled[flat[:, 1:][inside[:, 1:]]] = walked[: len(some)][inside[:, 1:]]
    return filled


class Search:
    """The best item for hidden states: argmax over all items of the inner product (Algorithm 1,
    line 8).

    On a CPU the scores of a block stay in the cache and numpy's argmax is used: three times faster
    than torch's.
    """

    BLOCK = 64

    def __init__(self, model: GPT, layer: Layer) -> None:
        self.model = model
        self.layer = layer
        self.vectors = model.vectors(layer)[1:].t().contiguous()
        self.scores = self.vectors.new_empty(self.BLOCK, self.vectors.shape[1])

    def best(self, hidden: Tensor) -> Tensor:
        """`[B, d]` -> `[B]`."""
        return self.answer(hidden, 0.0)[0]

    def answer(
        self, hidden: Tensor, least: float, left_out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The best item for each hidden state, and whether it is sure enough.

        Args:
            hidden: `[B, d]`.
            least: smallest probability, by a softmax over all items that may be answered.
            left_out: `[B, n]` items that may not, 0 = none; or None.

        Returns:
            Items `[B]`; whether each has at least that probability, `[B]`.
        """
        query = self.model.query(hidden, self.layer)
        if query.is_cuda:
            scores = query @ self.vectors
            if left_out is not None:
                row, column = torch.nonzero(left_out, as_tuple=True)
                scores[row, left_out[row, column] - 1] = -torch.inf
            return scores.argmax(1) + 1, scores.softmax(1).amax(1) >= least
        found, sure = [], []
        for start in range(0, len(query), self.BLOCK):
            block = query[start : start + self.BLOCK]
            inner: FloatArray = torch.mm(block, self.vectors, out=self.scores[: len(block)]).numpy()
            if left_out is not None:
                taken = left_out[start : start + self.BLOCK].numpy()
                at = np.nonzero(taken)
                inner[at[0], taken[at] - 1] = -np.inf
            place = inner.argmax(1)
            found.append(place)
            if least > 0:
                inner -= np.take_along_axis(inner, place[:, None], axis=1)
                sure.append(1 / np.exp(inner, out=inner).sum(axis=1) >= least)
        every = np.concatenate(sure) if sure else np.ones(len(query), dtype=bool)
        return torch.from_numpy(np.concatenate(found) + 1), torch.from_numpy(every)


def _walk(
    search: Search, users: IntArray, items: IntArray, given: IntArray, least: float, fresh: bool
) -> IntArray:
    """Algorithm 1: `items` `[B, n]`, `given` `[B, n - 1, K]` -> prompts `[B, n - 1, K]`; who has
    fewer items is filled up with any.
    """
    model = search.model
    device = model.items.weight.device
    who, real, prompts = (torch.as_tensor(a, device=device) for a in (users, items, given))
    steps, window = prompts.shape[1:]
    doubtful = torch.zeros_like(prompts, dtype=torch.bool)
    talk = Talk(
        model, who, real[:, :1], model.shape.length
    )  # room for all, so that a user's numbers do not depend on the longest
    for step in range(steps):
        for k in range(window):
            answer = prompts[:, step, k]
            best, sure = search.answer(talk.hidden, least, talk.tokens if fresh else None)
            doubtful[:, step, k] = (answer == 0) & ~sure
            answer = torch.where(answer == 0, best, answer)
            prompts[:, step, k] = answer
            talk.append(answer, GENERATED)
        if step + 1 < steps:
            talk.append(real[:, step + 1], REAL)
    walked: npt.NDArray[np.int64] = prompts.masked_fill_(doubtful, 0).cpu().numpy()
    return walked


class Talk:
    """A batch of growing sequences and the hidden state `[B, d]` after their last token; at most
    the last `length` tokens are seen.

    Up to `length` tokens the state is extended; from there on each further token moves all
    positions, and the window is computed anew.
    """

    def __init__(self, model: GPT, users: Tensor, tokens: Tensor, further: int) -> None:
        length = model.shape.length
        if not model.shape.masked:  # padding is seen: the window is full from the start
            tokens = torch.nn.functional.pad(tokens, (length - tokens.shape[1], 0))
        self.model, self.users, self.tokens = model, users, tokens
        self.segments = torch.full_like(tokens, REAL)
        self.hidden, self.memory = model.begin(
            tokens, users, self.segments, keep=max(min(further, length - tokens.shape[1]), 0)
        )

    def append(self, token: Tensor, segment: int) -> None:
        """Add `token` `[B]` to every sequence."""
        self.tokens = torch.cat([self.tokens, token[:, None]], 1)
        self.segments = torch.cat([self.segments, torch.full_like(token, segment)[:, None]], 1)
        length = self.model.shape.length
        if self.tokens.shape[1] <= length:
            self.hidden = self.model.extend(token, self.memory, segment)
        else:
            self.hidden, self.memory = self.model.begin(
                self.tokens[:, -length:], self.users, self.segments[:, -length:]
            )
