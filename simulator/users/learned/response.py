"""The fitted response model at work: tables and numba kernels, no torch. An impression's answer
depends on no other's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.base import IntArray
from policies.streams import Purpose, uniform
from simulator.log.files import load_arrays, save_arrays
from simulator.log.kinds import FEEDBACK
from simulator.users.learned.inputs import POSITIONS

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
LANES = 16
"""Random lanes of an item: one for each kind of further feedback, with room to append."""


@dataclass(frozen=True)
class Response:
    """A fitted response model.

    The first layer is a sum of tables (`network.ResponseNetwork`), so a user and an item are folded
    once; what remains for an impression is one product of vectors, one hidden layer and the heads.
    Heads are calibrated: scale and shift are folded into them.

    Attributes:
        user_first, user_vector: `[n_users, h]`, `[n_users, d]`.
        item_first, item_vector: `[n_items + 1, h]`, `[n_items + 1, d]`.
        tab, hour, position: `[TABS, h]`, `[24, h]`, `[POSITIONS, h]`.
        product: `[d, h]`.
        second, second_bias: `[h, h]`, `[h]`.
        click, click_bias: `[h]`, `[1]`.
        watch: `[h, 2 (bins + 1)]`: given no click, then given a click; bin 0 is a watch time of
            zero.
        watch_bias: `[durations, 2 (bins + 1)]`: of each class of duration.
        duration_class: `[n_items + 1]`.
        edges: `[bins + 1]` s; one edge, and so no bin, where the log knows no watch time.
        hidden, hidden_bias: `[h + 4, m]`, `[m]`; further feedback given click and watch time.
        kinds, kinds_bias: `[m, K]`, `[K]`.
        duration: `[n_items + 1]` s, 0 = unknown.
    """

    user_first: F32
    user_vector: F32
    item_first: F32
    item_vector: F32
    tab: F32
    hour: F32
    position: F32
    product: F32
    second: F32
    second_bias: F32
    click: F32
    click_bias: F32
    watch: F32
    watch_bias: F32
    edges: F32
    hidden: F32
    hidden_bias: F32
    kinds: F32
    kinds_bias: F32
    duration: F32
    duration_class: IntArray
    names: tuple[str, ...]

    @property
    def has_watch(self) -> bool:
        """Whether it answers with watch times; else these are NaN."""
        return len(self.edges) > 1

    def predict(
        self, user: IntArray, item: IntArray, tab: IntArray, hour: IntArray, position: IntArray
    ) -> tuple[F64, F64]:
        """(P(click) `[N]`, P(watch bin) `[N, bins + 1]`, the click averaged out) of each
        impression, all arguments `[N]`.
        """
        encoded = self._encode(user, item, tab, hour, position)
        chance, bins = _given(
            encoded,
            self.duration_class[item],
            self.click,
            self.click_bias,
            self.watch,
            self.watch_bias,
        )
        return chance, bins[:, 0] * (1 - chance[:, None]) + bins[:, 1] * chance[:, None]

    def mean_watch(self, bins: F64) -> F64:
        """Expected watch time, s, `[N]`, of the bin probabilities `[N, bins + 1]`: a bin's watch
        times are uniform between its edges.
        """
        middle = np.concatenate(([0.0], (self.edges[1:].astype(np.float64) + self.edges[:-1]) / 2))
        return np.asarray(bins @ middle)

    def kind_probabilities(
        self,
        user: IntArray,
        item: IntArray,
        tab: IntArray,
        hour: IntArray,
        position: IntArray,
        click: npt.NDArray[np.int8],
        watch: F32,
    ) -> F64:
        """P(kind | click, watch) `[N, K]`."""
        encoded = self._encode(user, item, tab, hour, position)
        heads = (self.hidden, self.hidden_bias, self.kinds, self.kinds_bias)
        known = np.nan_to_num(watch)
        return np.asarray(_kinds(encoded, click, known, self.duration[item], *heads))

    def answer(
        self,
        seed: int,
        user: IntArray,
        step: IntArray,
        items: IntArray,
        tab: IntArray,
        hour: IntArray,
    ) -> tuple[npt.NDArray[np.int8], F32, dict[str, npt.NDArray[np.int8]]]:
        """Draw the answers to slates; the same (seed, user, step, item) draws the same noise in any
        slate of any arm.

        Args:
            seed: of the run.
            user, step, tab, hour: `[B]`.
            items: `[B, k]`; where 0 the answer is meaningless.

        Returns:
            click `[B, k]` 0 or 1, watch `[B, k]` s (NaN without `has_watch`), kinds by name
            `[B, k]` 0 or 1.
        """
        batch, k = items.shape
        who, when = np.repeat(user, k), np.repeat(step, k)
        what = np.ascontiguousarray(items).ravel()
        place = np.tile(np.minimum(np.arange(k), POSITIONS - 1), batch)
        encoded = self._encode(who, what, np.repeat(tab, k), np.repeat(hour, k), place)
        chance, bins = _given(
            encoded,
            self.duration_class[what],
            self.click,
            self.click_bias,
            self.watch,
            self.watch_bias,
        )
        click = (uniform(seed, Purpose.CLICK, who, when, what) < chance).astype(np.int8)
        given = bins[np.arange(len(click)), click.astype(np.int64)]
        watch = _quantile(given, uniform(seed, Purpose.WATCH, who, when, what), self.edges).astype(
            np.float32
        )
        chances = _kinds(
            encoded,
            click,
            watch,
            self.duration[what],
            self.hidden,
            self.hidden_bias,
            self.kinds,
            self.kinds_bias,
        )
        if not self.has_watch:
            watch = np.full(len(click), np.nan, dtype=np.float32)
        order = list(FEEDBACK)
        kinds = {
            name: (
                (
                    uniform(seed, Purpose.FEEDBACK, who, when, what * LANES + order.index(name))
                    < chances[:, i]
                )
                .astype(np.int8)
                .reshape(batch, k)
            )
            for i, name in enumerate(self.names)
        }
        return click.reshape(batch, k), watch.reshape(batch, k), kinds

    def _encode(
        self, user: IntArray, item: IntArray, tab: IntArray, hour: IntArray, position: IntArray
    ) -> F32:
        rows = (user, item, tab, hour, position)
        tables = (self.user_first, self.item_first, self.tab, self.hour, self.position)
        weights = (self.user_vector, self.item_vector, self.product, self.second, self.second_bias)
        return np.asarray(_encode(rows, tables, weights))

    def save(self, file: Path) -> None:
        """Write the tables as npz, by rename."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "names"}
        save_arrays(file, {"names": np.array(self.names, dtype=np.str_), **arrays})

    @classmethod
    def load(cls, file: Path) -> Response:
        """Read what `save` wrote."""
        arrays: dict[str, Any] = load_arrays(file)
        return cls(**{**arrays, "names": tuple(str(name) for name in arrays["names"])})


def _jit(function: Any) -> Any:
    """Compile at the first call, so that importing this module costs nothing; no fast-math: bits do
    not depend on the batch.
    """
    compiled: list[Any] = []

    def call(*arguments: Any) -> Any:
        if not compiled:
            from policies.jit import njit

            compiled.append(njit()(function))
        return compiled[0](*arguments)

    return call


@_jit
def _encode(rows: Any, tables: Any, weights: Any) -> Any:
    user, item, tab, hour, position = rows
    user_first, item_first, of_tab, of_hour, of_position = tables
    user_vector, item_vector, product, second, bias = weights
    n, h, d = len(user), len(bias), product.shape[0]
    out = np.empty((n, h), dtype=np.float32)
    first = np.empty(h, dtype=np.float32)
    for i in range(n):
        for j in range(h):
            first[j] = (
                user_first[user[i], j]
                + item_first[item[i], j]
                + of_tab[tab[i], j]
                + of_hour[hour[i], j]
                + of_position[position[i], j]
            )
        for a in range(d):
            both = user_vector[user[i], a] * item_vector[item[i], a]
            for j in range(h):
                first[j] += both * product[a, j]
        for j in range(h):
            out[i, j] = bias[j]
        for a in range(h):
            if first[a] > 0:
                for j in range(h):
                    out[i, j] += first[a] * second[a, j]
        for j in range(h):
            out[i, j] = max(out[i, j], np.float32(0))
    return out


@_jit
def _given(
    encoded: Any, duration: Any, click: Any, click_bias: Any, watch: Any, watch_bias: Any
) -> Any:
    """(P(click) [N], P(watch bin | click = 0, 1) [N, 2, bins + 1])."""
    n, h = encoded.shape
    width = watch_bias.shape[1] // 2
    chance = np.empty(n)
    bins = np.empty((n, 2, width))
    logits = np.empty(2 * width)
    for i in range(n):
        logit = float(click_bias[0])
        for a in range(h):
            logit += encoded[i, a] * click[a]
        chance[i] = 1 / (1 + math.exp(-logit))
        for j in range(2 * width):
            logits[j] = watch_bias[duration[i], j]
        for a in range(h):
            if encoded[i, a] > 0:
                for j in range(2 * width):
                    logits[j] += encoded[i, a] * watch[a, j]
        for side in range(2):
            top = logits[side * width]
            for j in range(width):
                top = max(top, logits[side * width + j])
            total = 0.0
            for j in range(width):
                bins[i, side, j] = math.exp(logits[side * width + j] - top)
                total += bins[i, side, j]
            for j in range(width):
                bins[i, side, j] /= total
    return chance, bins


@_jit
def _quantile(bins: Any, level: Any, edges: Any) -> Any:
    """The watch time, s, at `level` [N] of bins [N, bins + 1]: bin 0 is zero, the others are
    uniform between their edges.
    """
    n, width = bins.shape
    out = np.empty(n)
    for i in range(n):
        below, j = 0.0, 0
        while j < width - 1 and below + bins[i, j] <= level[i]:
            below += bins[i, j]
            j += 1
        if j == 0:
            out[i] = 0.0
        else:
            share = min(max((level[i] - below) / max(bins[i, j], 1e-300), 0.0), 1.0)
            out[i] = edges[j - 1] + share * (edges[j] - edges[j - 1])
    return out


@_jit
def _kinds(
    encoded: Any,
    click: Any,
    watch: Any,
    duration: Any,
    hidden: Any,
    hidden_bias: Any,
    kinds: Any,
    kinds_bias: Any,
) -> Any:
    """P(kind | click, watch) [N, K]; the four answer features as in `network.answer_features`."""
    n, h = encoded.shape
    m, size = len(hidden_bias), len(kinds_bias)
    out = np.empty((n, size))
    inner = np.empty(m, dtype=np.float32)
    answer = np.empty(4, dtype=np.float32)
    for i in range(n):
        answer[0] = click[i]
        answer[1] = math.log1p(watch[i])
        answer[2] = min(watch[i] / max(duration[i], 0.001), 2.0) if duration[i] > 0 else 0.0
        answer[3] = 1.0 if duration[i] > 0 else 0.0
        for j in range(m):
            inner[j] = hidden_bias[j]
        for a in range(h):
            if encoded[i, a] > 0:
                for j in range(m):
                    inner[j] += encoded[i, a] * hidden[a, j]
        for a in range(4):
            for j in range(m):
                inner[j] += answer[a] * hidden[h + a, j]
        for c in range(size):
            logit = float(kinds_bias[c])
            for j in range(m):
                if inner[j] > 0:
                    logit += inner[j] * kinds[j, c]
            out[i, c] = 1 / (1 + math.exp(-logit))
    return out
