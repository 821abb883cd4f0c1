"""The arithmetic of the synthetic world as compiled scalar loops: one user after the other, so that
the batch cannot matter. What users answer to slates is in `responses`.

Importing this module imports numba. What its numbers mean is in `parameters`, how they get here in
`law`. Without `fastmath`, and with the functions of `policies.elementary`, a request's bits depend
on its own numbers alone, not on the processor.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.elementary import circle, exp, exp2, log, log_all, power, tanh
from policies.heap import heapify, offer, unheap
from policies.jit import njit
from policies.philox import philox, philox_words, uniform, unit
from policies.streams import Purpose
from policies.time import DAY, HOUR
from simulator.users.choice.law import (
    TOGETHER,
    UNBORN,
    Floats,
    Ints,
    Law,
    Lives,
    Promoted,
    Truth,
    Words,
)
from simulator.users.choice.parameters import LONG_VIEW, VALID_PLAY

_ARRIVE, _DRIFT, _WORLD = int(Purpose.ARRIVE), int(Purpose.DRIFT), int(Purpose.WORLD)
AUTHOR_TASTE, VIDEO_TASTE, ESTIMATE, INTEREST = 30, 31, 32, 33
"""Further meanings of `step` under Purpose.WORLD (the others are in `world`); lane = author, video,
video, interest.
"""

FAR = 2.0**62
"""ms: a time that no run reaches and 64 bits hold; heavy tails of watch times lie beyond it."""

VECTOR = 16
"""Numbers of a loop that LLVM computes in one go, at the cost of three of them alone."""


@njit()
def unit32(word: Any) -> float:
    """A uniform number in (0, 1) of one Philox word."""
    return (np.float64(word) + 0.5) * (1.0 / 4294967296.0)


@njit()
def bell(w0: Any, w1: Any, w2: Any, w3: Any) -> float:
    """A number of mean 0 and variance 1 out of four words: the sum of four uniforms, normal to the
    eye (Irwin-Hall) and cheap.
    """
    total = (np.float64(w0) + np.float64(w1)) + (np.float64(w2) + np.float64(w3)) + 2.0
    return float(total * (1.7320508075688772 / 4294967296.0) - 3.4641016151377544)


@njit()
def liking(seed: Any, user: int, what: int, lane: int) -> float:
    """A fixed number of mean 0 and variance 1 for a pair."""
    w0, w1, w2, w3 = philox(seed, user, what, _WORLD, lane)
    return bell(w0, w1, w2, w3)


@njit()
def _words(seed: Any, purpose: int, user: int, step: int, lane: int, n: int) -> Words:
    """The words of the lanes from `lane` on, `[4, >= n]`: as many as fill vectors."""
    size = (n + VECTOR - 1) // VECTOR * VECTOR
    counters, words = np.empty((4, size), dtype=np.uint32), np.empty((4, size), dtype=np.uint32)
    for i in range(size):
        counters[0, i], counters[1, i] = np.uint32(user), np.uint32(step)
        counters[2, i], counters[3, i] = np.uint32(purpose), np.uint32(lane + i)
    philox_words(seed, counters, size, words)
    return words


@njit()
def _normal(words: Words, out: Floats) -> None:
    """Standard normal numbers `[n]` of words `[4, >= n]` (Box & Muller 1958)."""
    n = len(out)
    for i in range(n):
        out[i] = unit32(words[0, i])
    log_all(out, n)
    for i in range(n):
        out[i] = math.sqrt(-2.0 * out[i]) * circle(unit32(words[1, i]))[0]


@njit()
def _new_interest(
    spread: float,
    seed: Any,
    centres: Floats,
    tag_cdf: Floats,
    user: int,
    m: int,
    age: int,
    out: Floats,
) -> None:
    """Draw the direction of interest `m` that begins at `age`: a tag's centre and a deviation from
    it, length 1.
    """
    n = len(out)
    place = uniform(seed, _WORLD, user, INTEREST + age, m)
    tag, end = 0, len(tag_cdf) - 1  # the first tag whose sum is above it, the last at most
    while tag < end:
        middle = (tag + end) >> 1
        if tag_cdf[middle] <= place:
            tag = middle + 1
        else:
            end = middle
    _normal(_words(seed, _WORLD, user, INTEREST + age, (m + 1) * 256, n), out)
    norm = 0.0
    for d in range(n):
        norm += out[d] * out[d]
    scale = spread / math.sqrt(norm)
    norm = 0.0
    for d in range(n):
        out[d] = centres[tag, d] + scale * out[d]
        norm += out[d] * out[d]
    length = math.sqrt(norm)
    for d in range(n):
        out[d] /= length


@njit()
def settle(
    law: Law,
    seed: Any,
    centres: Floats,
    tag_cdf: Floats,
    users: Ints,
    ages: Ints,
    logits: Floats,
    interests: Floats,
) -> None:
    """The interests of users `[n]` at `ages` `[n]`: `[n, M]` logits of their weights, and `[n, M,
    D]` directions.
    """
    n = logits.shape[1]
    rows, oldest = np.empty(len(users), dtype=np.int64), 0
    for row in range(len(users)):
        _normal(_words(seed, _DRIFT, users[row], 0, 0, n), logits[row])
        for m in range(n):
            logits[row, m] *= law.concentration
            _new_interest(
                law.interest_spread, seed, centres, tag_cdf, users[row], m, 0, interests[row, m]
            )
        oldest = max(oldest, ages[row])
    older, days = np.empty_like(rows), np.empty_like(rows)
    for day in range(1, oldest + 1):
        n_older = 0
        for row in range(len(users)):
            rows[n_older], older[n_older], days[n_older] = row, users[row], day
            n_older += ages[row] >= day
        drift(law, seed, centres, tag_cdf, older, rows, days, n_older, logits, interests)


@njit()
def drift(
    law: Law,
    seed: Any,
    centres: Floats,
    tag_cdf: Floats,
    users: Ints,
    rows: Ints,
    ages: Ints,
    n: int,
    logits: Floats,
    interests: Floats,
) -> None:
    """One day: the interests of the first `n` users, who live in `rows` of `[N, M]` and `[N, M,
    D]`, reach `ages`.
    """
    m = logits.shape[1]
    half = (n * m + VECTOR - 1) // VECTOR * VECTOR
    counters = np.zeros((4, 2 * half), dtype=np.uint32)
    words, moves = np.empty((4, 2 * half), dtype=np.uint32), np.empty(n * m)
    for b in range(n):
        for which in range(2 * m):
            at, lane = b * m + which, which
            if which >= m:
                at, lane = half + at - m, 256 + which - m
            counters[0, at], counters[1, at] = np.uint32(users[b]), np.uint32(ages[b])
            counters[2, at], counters[3, at] = np.uint32(_DRIFT), np.uint32(lane)
    philox_words(seed, counters, 2 * half, words)
    noise = math.sqrt(1.0 - law.persistence * law.persistence) * law.concentration
    if noise > 0.0:
        _normal(words, moves)
    for b in range(n):
        row = rows[b]
        for which in range(m):
            i = b * m + which
            logits[row, which] = law.persistence * logits[row, which]
            if noise > 0.0:
                logits[row, which] += noise * moves[i]
            chance = unit(np.uint64(words[0, half + i]), np.uint64(words[1, half + i]))
            if chance < law.renewal:
                _new_interest(
                    law.interest_spread, seed, centres, tag_cdf, users[b], which, ages[b],
                    interests[row, which],
                )  # fmt: skip


@njit()
def weigh(logits: Floats, row: int, focus: int, strength: float, out: Floats) -> None:
    """Weights of the interests in a row of `[n, M]`, the largest 1 before the session's `focus`
    (-1: none) takes `strength` of the others.
    """
    top = logits[row, 0]
    for m in range(logits.shape[1]):
        top = max(top, logits[row, m])
    for m in range(logits.shape[1]):
        share = 1.0 if focus < 0 or m == focus else 1.0 - strength
        out[row, m] = exp(logits[row, m] - top) * share


@njit()
def fold(weights: Floats, interests: Floats, row: int, lens: Floats) -> None:
    """What `matching` reads of a user, from a row of `[n, M]` and `[n, M, D]`: interests four
    abreast, their weights below.

    `lens` is `[ceil(M / 4), D + 1, 4]`; where there is none it is left alone.
    """
    _, n, n_places = interests.shape
    for m in range(n):
        for d in range(n_places):
            lens[m // 4, d, m % 4] = interests[row, m, d]
        lens[m // 4, n_places, m % 4] = weights[row, m]


@njit()
def matching(lens: Floats, places: Floats, i: int) -> float:
    """`sum_m w_m max(0, <p_m, v>)^2` of row `i` of places `[N, >= D]`; four interests at a time, so
    that their sums overlap.

    Here and below, rows are given by number: a slice would cost an atomic count of references.
    """
    total, n = 0.0, lens.shape[1] - 1
    for g in range(lens.shape[0]):
        a = b = c = e = 0.0
        for d in range(n):
            v = places[i, d]
            a += lens[g, d, 0] * v
            b += lens[g, d, 1] * v
            c += lens[g, d, 2] * v
            e += lens[g, d, 3] * v
        a, b, c, e = max(a, 0.0), max(b, 0.0), max(c, 0.0), max(e, 0.0)
        total += lens[g, n, 0] * a * a
        total += lens[g, n, 1] * b * b
        total += lens[g, n, 2] * c * c
        total += lens[g, n, 3] * e * e
    return total


@njit()
def matches(weights: Floats, interests: Floats, row: int, places: Floats, out: Floats) -> None:
    """`matching` of all items, `[n_items + 1]`, for the user in a row of `[n, M]` and `[n, M, D]`;
    `places` `[n_items + 1, >= D]`.
    """
    lens = np.zeros(((weights.shape[1] + 3) // 4, interests.shape[2] + 1, 4))
    fold(weights, interests, row, lens)
    for i in range(len(out)):
        out[i] = matching(lens, places, i)


@njit()
def tastes(
    seed: Any, user: int, author: int, item: int, by_author: float, by_video: float
) -> float:
    """A user's own liking for an author and for a video, on the scale of the logit."""
    x = 0.0
    if by_author > 0.0:
        x += by_author * liking(seed, user, AUTHOR_TASTE, author)
    if by_video > 0.0:
        x += by_video * liking(seed, user, VIDEO_TASTE, item)
    return x


@njit()
def sigmoid(x: float) -> float:
    return float(1.0 / (1.0 + exp(-x)))


@njit()
def fatigue(strength: float, memory: Floats, row: int, places: Floats, i: int) -> float:
    """What the memory `[n, D]` of near-duplicates takes from the logit that the user in a row of it
    has of row `i` of places `[N, >= D]`.
    """
    n = memory.shape[1]
    a = b = c = e = 0.0
    for d in range(0, n - 3, 4):  # four sums that need not wait for one another
        a += memory[row, d] * places[i, d]
        b += memory[row, d + 1] * places[i, d + 1]
        c += memory[row, d + 2] * places[i, d + 2]
        e += memory[row, d + 3] * places[i, d + 3]
    for d in range(n - n % 4, n):
        a += memory[row, d] * places[i, d]
    alike = (a + b) + (c + e)
    return strength * alike if alike > 0.0 else 0.0


@njit()
def suiting(y: float) -> float:
    """How well a video suits, -1..1; `y` is the click's logit with the user's own level set to
    `base`.
    """
    return tanh(0.5 * y)


@njit()
def survival(scale: float, shape: float, seconds: float) -> float:
    """P(attention > seconds) of the log-logistic law."""
    return float(1.0 / (1.0 + power(seconds / scale, shape)))


@njit()
def weibull(scale: float, shape: float, seconds: float) -> float:
    """P(a skip takes at most `seconds`)."""
    return float(1.0 - exp(-power(seconds / scale, shape)))


@njit()
def arrival(hours: Floats, start: float, rate: float, exponential: float) -> float:
    """The time (ms) after `start` at which an inhomogeneous Poisson process of `rate` per day has
    done `exponential` more.

    Inversion of the cumulative rate (Cinlar 1975), which is linear within an hour; `hours` as
    `LawTables.hours`.
    """
    day = math.floor(start / DAY)
    hour = (start - day * DAY) / HOUR
    h = min(int(hour), 23)
    done = hours[h] + (hour - h) * (hours[h + 1] - hours[h])
    target = done + exponential / rate
    days = math.floor(target)
    rest = target - days
    h = 0
    while h < 23 and hours[h + 1] <= rest:
        h += 1
    width = hours[h + 1] - hours[h]
    within = (rest - hours[h]) / width if width > 0.0 else 0.0
    return float((day + days) * DAY + (h + min(within, 1.0)) * HOUR)


@njit()
def first_arrivals(hours: Floats, seed: Any, rate: Floats, user: Ints, out: Ints) -> None:
    """ms from midnight of the first day to the first session of users `[n]`, who come at `rate`
    `[n]` a day; `hours` as `LawTables.hours`.
    """
    for b in range(len(user)):
        wait = -log(1.0 - uniform(seed, _ARRIVE, user[b], 0, 0))
        out[b] = np.int64(arrival(hours, 0.0, rate[b], wait))


@njit()
def wake(
    law: Law,
    seed: Any,
    centres: Floats,
    tag_cdf: Floats,
    lives: Lives,
    users: Ints,
    rows: Ints,
    t: Ints,
) -> None:
    """Bring users `[n]`, who live in `rows` `[n]`, to the times `[n]` of their requests: birth,
    drift, a new session, recovery from satiation.
    """
    birth, age, session = lives.birth, lives.age, lives.session
    logits, interests, weights = lives.logits, lives.interests, lives.weights
    open_, focus = lives.open, lives.focus
    memory, last = lives.memory, lives.last
    n = len(users)
    older, who = np.zeros(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    where, ages = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    while True:  # day after day of those who have not asked for days
        n_drifting = 0
        for b in range(n):
            u, day = rows[b], t[b] // DAY
            if birth[u] == UNBORN:
                birth[u] = day
            if age[u] < day - birth[u]:
                age[u] += 1
                older[b] = 1
                who[n_drifting], where[n_drifting], ages[n_drifting] = users[b], u, age[u]
                n_drifting += 1
        if n_drifting == 0:
            break
        drift(law, seed, centres, tag_cdf, who, where, ages, n_drifting, logits, interests)
    for b in range(n):
        user, u = users[b], rows[b]
        changed = older[b] != 0 or open_[u] == 0
        if open_[u] == 0:
            open_[u] = 1
            weigh(logits, u, -1, 0.0, weights)
            focus[u] = -1
            if law.focus > 0.0:
                total = 0.0
                for m in range(weights.shape[1]):
                    total += weights[u, m]
                mark = uniform(seed, _DRIFT, user, session[u], 512) * total
                m = 0
                while m < weights.shape[1] - 1 and mark >= weights[u, m]:
                    mark -= weights[u, m]
                    m += 1
                focus[u] = m
            session[u] += 1
        if changed:
            weigh(logits, u, focus[u], law.focus, weights)
        if law.satiation > 0.0:
            keep = exp2(-(t[b] - last[u]) / (law.half_life * HOUR))
            for d in range(memory.shape[1]):
                memory[u, d] *= keep
        last[u] = t[b]


@njit()
def expected(
    law: Law, seed: Any, truth: Truth, lives: Lives, user: int, row: int, long: bool, out: Floats
) -> None:
    """P(valid play), or P(long view), of every examined video for `user`, who lives in `row`, as he
    is now, `[n_items + 1]`; out[0] is 0.
    """
    matches(lives.weights, lives.interests, row, truth.video, out)
    own, n_places, out[0] = truth.level[row], lives.memory.shape[1], 0.0
    for i in range(1, len(out)):
        x = own + truth.video[i, n_places] + law.match * out[i]
        x += tastes(seed, user, truth.author[i], i, law.author, law.taste) - fatigue(
            law.satiation, lives.memory, row, truth.video, i
        )
        out[i] = sigmoid(x)
        if long:
            duration = truth.video[i, n_places + 1]
            scale = law.attention * exp(law.attention_affinity * suiting(x - own + law.base))
            of_clicks = survival(scale, law.attention_shape, min(VALID_PLAY, duration))
            out[i] *= survival(scale, law.attention_shape, min(LONG_VIEW, duration)) / of_clicks


@njit()
def best_estimates(
    by_match: float,
    by_author: float,
    seed: Any,
    video: Floats,
    author: Ints,
    users: Ints,
    weights: Floats,
    interests: Floats,
    narrow: npt.NDArray[np.float32],
    noise: float,
    traffic: Floats,
    promoted: Promoted,
    items: npt.NDArray[np.int32],
    values: npt.NDArray[np.float32],
) -> None:
    """Fill `items` and `values` `[B, m]` with the videos of largest `traffic` `[n_items + 1]` plus
    what the app knows of the utilities of `users` `[B]`, largest first: interests, no taste, an
    error of sd `noise`. Where there are fewer, 0 and -inf follow.

    Every video is either valued or shown to be worth less than `m` others, by bounds: on what is
    the same for all users (`promoted` begins with the most), on the match (computed in float32 for
    TOGETHER videos at a time), on authors and on the error, whose law ends at 3.4642 sd (`bell`).

    Args:
        by_match, by_author: `Law.match` and `Law.author`.
        weights, interests: `[B, M]` and `[B, M, D]`.
        narrow: `interests` in float32.
    """
    order, all_known = promoted.order, promoted.known
    author_of, places = promoted.author, promoted.places
    (_, n, n_places), n_authors, size = interests.shape, promoted.n_authors, items.shape[1]
    lens, authors = np.zeros(((n + 3) // 4, n_places + 1, 4)), np.empty(n_authors)
    best, best_items = np.empty(size), np.empty(size, dtype=np.int64)
    rough, part = np.empty(TOGETHER, dtype=np.float32), np.empty(TOGETHER, dtype=np.float32)
    for b in range(len(users)):
        fold(weights, interests, b, lens)
        words, most_author = _words(seed, _WORLD, users[b], AUTHOR_TASTE, 0, n_authors), -np.inf
        for a in range(n_authors):
            w0, w1 = np.uint64(words[0, a]), np.uint64(words[1, a])
            w2, w3 = np.uint64(words[2, a]), np.uint64(words[3, a])
            authors[a] = by_author * bell(w0, w1, w2, w3)
            most_author = max(most_author, authors[a])
        total = 0.0
        for m in range(n):
            for d in range(n_places):
                total += by_match * weights[b, m] * interests[b, m, d] * interests[b, m, d]
        total *= promoted.longest
        # In float32 a match is off by less than D + M + 8 roundings of 2^-23 (Higham 2002, section
        # 3.1)
        rounding = (n_places + n + 8) * 2.0**-22 * (1.0 + total)
        most_error = noise * 3.4641016151377544 + rounding
        found, bound = 0, -np.inf
        for block in range(len(places)):
            start = block * TOGETHER
            if all_known[start] + total + most_author + most_error < bound:
                break
            for j in range(TOGETHER):
                rough[j] = 0.0
            for m in range(n):
                share = np.float32(by_match * weights[b, m])
                for j in range(TOGETHER):
                    part[j] = 0.0
                for d in range(n_places):
                    x32 = narrow[b, m, d]
                    for j in range(TOGETHER):
                        part[j] += x32 * places[block, d, j]
                for j in range(TOGETHER):
                    positive = max(part[j], np.float32(0.0))
                    rough[j] += share * positive * positive
            for j in range(min(TOGETHER, len(order) - start)):
                known = all_known[start + j] + rough[j] + most_error
                by_most = known + most_author
                if by_most < bound or known + authors[author_of[start + j]] < bound:
                    continue
                i = order[start + j]
                x = video[i, n_places] + by_match * matching(lens, video, i)
                x += authors[author[i]]
                if noise > 0.0:
                    x += noise * liking(seed, users[b], ESTIMATE, i)
                x += traffic[i]
                found = offer(best, best_items, found, x, i)
                if found == size:
                    bound = best[0]
        if found < size:
            heapify(best, best_items, found)
        unheap(best, best_items, found)
        for j in range(size):
            items[b, j], values[b, j] = 0, -np.inf
            if j < found:
                items[b, j], values[b, j] = best_items[j], best[j]


@njit()
def best_unseen(
    order: npt.NDArray[np.int32],
    value: npt.NDArray[np.float32],
    row: Ints,
    seen: Ints,
    gone: Ints,
    items: Ints,
    scores: Any,
) -> None:
    """Fill `items` and `scores` `[B, k]` with the first items of the rows `row` `[B]` of `order`
    `[n, m]`, and their `value`, that are not in `seen` `[B, S]`; values of -inf are none. `gone`
    `[n_items + 1]` is -1 everywhere, and overwritten.
    """
    for b in range(len(row)):
        for j in range(seen.shape[1]):
            if 0 < seen[b, j] < len(gone):
                gone[seen[b, j]] = b
        place = 0
        for rank in range(order.shape[1]):
            if place == items.shape[1]:
                break
            item = order[row[b], rank]
            if gone[item] != b and value[row[b], rank] > -np.inf:
                items[b, place], scores[b, place] = item, value[row[b], rank]
                place += 1
