"""What users answer to slates, compiled: a chunk of requests at a time, place after place, over
columns that have a number for each request.

What a user does at a place depends on the places above it, and on no other user. So one place of
all requests of a chunk is answered at once, in loops without branches that LLVM turns into vectors;
what rests on single answers (seconds, reactions) is computed of all that were clicked, or skipped,
behind one another. The operations of a request, and their order, are the same whatever the chunk
and the width of a vector, and so are its bits (`kernel`).

Importing this module imports numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from policies.elementary import exp_all, log_all, power_all, tanh_all
from policies.jit import njit
from policies.philox import philox_words, unit
from policies.streams import Purpose
from simulator.users.choice.kernel import (
    AUTHOR_TASTE,
    FAR,
    VIDEO_TASTE,
    arrival,
    bell,
    unit32,
    wake,
    weibull,
)
from simulator.users.choice.law import (
    AUTHOR,
    EXAMINE,
    RESPONSE,
    STREAMS,
    VIDEO,
    Answers,
    Floats,
    Ints,
    Law,
    Lives,
    Truth,
    Words,
)
from simulator.users.choice.parameters import LONG_VIEW, VALID_PLAY

_EXAMINE, _RESPONSE, _FEEDBACK, _WORLD, _LEAVE, _RETURN = (
    int(Purpose.EXAMINE), int(Purpose.RESPONSE), int(Purpose.FEEDBACK),
    int(Purpose.WORLD), int(Purpose.LEAVE), int(Purpose.RETURN),
)  # fmt: skip

CHUNK = 64
"""Requests that are answered together; their number changes no bit."""

FURTHER = 256
"""Purpose.FEEDBACK + 256, + 512, ... key the further streams of worlds with many reactions."""

SHOWN, EXAMINED, CLICKED = 1, 2, 4
"""What became of an impression, added up; 0: it was not shown."""


@njit()
def _count(
    user: Ints, step: Ints, items: Ints, author: Ints, streams: int, counters: Words
) -> None:
    """Fill the counters of all words that the answers to `[n]` slates may take, `[4, streams, k,
    CHUNK]`.
    """
    n, k = items.shape
    for stream in range(streams):
        purpose = _FEEDBACK + FURTHER * (stream - STREAMS + 1)
        if stream < STREAMS:
            purpose = (_EXAMINE, _RESPONSE, _FEEDBACK, _WORLD, _WORLD)[stream]
        for p in range(k):
            for b in range(n):
                what, lane = step[b], items[b, p]
                if stream == AUTHOR:
                    what, lane = AUTHOR_TASTE, author[lane]
                elif stream == VIDEO:
                    what = VIDEO_TASTE
                counters[0, stream, p, b] = np.uint32(user[b])
                counters[1, stream, p, b] = np.uint32(what)
                counters[2, stream, p, b] = np.uint32(purpose)
                counters[3, stream, p, b] = np.uint32(lane)


@njit()
def _likely(law: Law, words: Words) -> npt.NDArray[np.bool_]:
    """Whether any reaction to each impression is possible, by its random word alone, `[k,
    CHUNK]`.
    """
    k = words.shape[2]
    out = np.zeros((k, CHUNK), dtype=np.bool_)
    for kind in range(len(law.most)):
        stream, word, most = law.words[kind, 0], law.words[kind, 1], law.most[kind]
        for p in range(k):
            for b in range(CHUNK):  # contiguous: LLVM compares many at a time
                out[p, b] |= words[word, stream, p, b] <= most
    return out


class Seen(NamedTuple):
    """What becomes of the impressions of a chunk, `[k, CHUNK]` each, place by place."""

    state: Ints
    """SHOWN + EXAMINED + CLICKED, as far as it is so."""
    y: Floats
    """The click's logit with the user's own level set to `base`."""
    duration: Floats
    """s"""
    watch: Floats
    """s; 0 where nothing was examined"""
    long: Ints
    """1: a long view"""


@njit(forceinline=True)
def _columns(n: int) -> Floats:
    """`n` columns of zeros that begin with a cache line each: a vector that lies in two costs two
    reads, and waits for what was written into them one by one.
    """
    whole = np.zeros(n * CHUNK + 8)
    skip = -(whole.ctypes.data // 8) % 8
    return whole[skip : skip + n * CHUNK].reshape(n, CHUNK)


@njit(error_model="numpy", forceinline=True)
def _match(lens: Floats, shares: Floats, place: Floats, out: Floats, part: Floats) -> None:
    """`kernel.matching` of the videos at `place` `[D, CHUNK]`, in the same order of additions, by
    interests `[M * D, CHUNK]` and their weights `[M, CHUNK]`; `part` is overwritten.
    """
    n_places = len(place)
    out[:] = 0.0
    for m in range(len(shares)):
        part[:] = 0.0
        for d in range(n_places):
            for b in range(CHUNK):
                part[b] += lens[m * n_places + d, b] * place[d, b]
        for b in range(CHUNK):
            positive = max(part[b], 0.0)
            out[b] += shares[m, b] * positive * positive


@njit(error_model="numpy", forceinline=True)
def _tire(strength: float, memory: Floats, place: Floats, out: Floats) -> None:
    """`kernel.fatigue` of the videos at `place`, by memories `[D, CHUNK]`: its four sums."""
    sums, n_places = _columns(4), len(place)
    whole = n_places - n_places % 4
    for d in range(whole):
        for b in range(CHUNK):
            sums[d % 4, b] += memory[d, b] * place[d, b]
    for d in range(whole, n_places):
        for b in range(CHUNK):
            sums[0, b] += memory[d, b] * place[d, b]
    for b in range(CHUNK):
        alike = (sums[0, b] + sums[1, b]) + (sums[2, b] + sums[3, b])
        out[b] = strength * alike if alike > 0.0 else 0.0


@njit(error_model="numpy", forceinline=True)
def _taste(law: Law, words: Words, p: int, out: Floats) -> None:
    """The users' own liking for the authors and the videos at place `p`."""
    for b in range(CHUNK):
        out[b] = law.author * bell(
            words[0, AUTHOR, p, b],
            words[1, AUTHOR, p, b],
            words[2, AUTHOR, p, b],
            words[3, AUTHOR, p, b],
        )
    for b in range(CHUNK):
        out[b] += law.taste * bell(
            words[0, VIDEO, p, b],
            words[1, VIDEO, p, b],
            words[2, VIDEO, p, b],
            words[3, VIDEO, p, b],
        )


# The parts of an answer, each of which one function calls: put into it before types are known, they
# are not compiled apart as well.


@njit()
def _look(
    law: Law,
    truth: Truth,
    lives: Lives,
    rows: Ints,
    items: Ints,
    words: Words,
    seen: Seen,
    mood: Floats,
) -> None:
    """Who examines and clicks what, of slates `[n, k]` for the users in `rows` `[n]`, n at most
    CHUNK; `mood[2]` says who puts the app away.

    A column has CHUNK numbers; those behind n stand for nobody.
    """
    state, ys, duration = seen.state, seen.y, seen.duration
    video, onward = truth.video, truth.onward
    interests, memory = lives.interests, lives.memory
    (n, k), (_, n_interests, n_places) = items.shape, interests.shape
    lens, shares = _columns(n_interests * n_places), _columns(n_interests)
    fading, place, others = _columns(n_places), _columns(n_places), _columns(7)
    level, appeal, total, x = others[0], others[1], others[2], others[3]
    part, taste, leaving = others[4], others[5], others[6]
    going, last = np.zeros(CHUNK, dtype=np.int64), np.zeros(CHUNK, dtype=np.int64)
    for b in range(n):
        u = rows[b]
        for m in range(n_interests):
            shares[m, b] = lives.weights[u, m]
            for d in range(n_places):
                lens[m * n_places + d, b] = interests[u, m, d]
        for d in range(n_places):
            fading[d, b] = memory[u, d]
        level[b], going[b], last[b] = truth.level[u], 1, lives.clicked[u]
    chance = law.examine
    for p in range(k):
        for b in range(n):
            i = items[b, p]
            going[b] = 0 if i == 0 else going[b]
            for d in range(n_places):
                place[d, b] = video[i, d]
            appeal[b], duration[p, b] = video[i, n_places], video[i, n_places + 1]
        _match(lens, shares, place, total, part)
        _tire(law.satiation, fading, place, part)
        for b in range(CHUNK):
            x[b] = level[b] + appeal[b] + law.match * total[b]
        _taste(law, words, p, taste)
        for b in range(CHUNK):
            x[b] += taste[b] - part[b]
        for b in range(CHUNK):
            ys[p, b] = x[b] - level[b] + law.base
        for b in range(CHUNK):
            part[b] = -x[b]
        exp_all(part, CHUNK)
        for b in range(CHUNK):
            part[b] = 1.0 / (1.0 + part[b])
        for b in range(CHUNK):
            is_examined = unit32(words[0, EXAMINE, p, b]) < chance
            is_click = unit32(words[0, RESPONSE, p, b]) < part[b]
            depth = SHOWN + is_examined * (EXAMINED + is_click * CLICKED)
            state[p, b] = going[b] * depth
        for d in range(n_places):
            for b in range(CHUNK):
                faded = law.fade * fading[d, b] + place[d, b]
                fading[d, b] = faded if state[p, b] >= EXAMINED else fading[d, b]
        for b in range(CHUNK):
            leave = law.abandon_click if state[p, b] >= CLICKED else law.abandon_unclick
            stays = unit32(words[1, EXAMINE, p, b]) >= leave
            leaving[b] = leaving[b] if stays or going[b] == 0 else 1.0
            going[b] = going[b] if stays else 0
        for b in range(n):
            if state[p, b] >= CLICKED:
                last[b] = items[b, p]
                if law.succession:
                    for d in range(n_places):
                        lens[d, b] = interests[rows[b], 0, d] = onward[items[b, p], d]
        chance *= law.examine_decay
    for b in range(n):
        u = rows[b]
        lives.clicked[u] = last[b]
        mood[2, b] = leaving[b]
        for d in range(n_places):
            memory[u, d] = fading[d, b]


@njit()
def _watch(law: Law, seen: Seen, words: Words) -> None:
    """Fill in the seconds of what was examined, and whether they are a long view.

    A clicked video gets attention of the log-logistic law beyond the click's threshold, which may
    exceed the duration. A skip takes a time of the Weibull law, cut above where its probability is
    that of the threshold.
    """
    state, ys, duration = seen.state.reshape(-1), seen.y.reshape(-1), seen.duration.reshape(-1)
    watch, is_long = seen.watch.reshape(-1), seen.long.reshape(-1)
    drawn, ends = words[1, RESPONSE].copy().reshape(-1), words[2, RESPONSE].copy().reshape(-1)
    size = len(state)
    clicked, skipped = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    n_clicked = n_skipped = 0
    watch[:], is_long[:] = 0.0, 0
    for i in range(size):
        clicked[n_clicked] = skipped[n_skipped] = i
        n_clicked += state[i] >= CLICKED
        n_skipped += (state[i] >= EXAMINED) & (state[i] < CLICKED)
    scale, x, threshold, length = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    for j in range(n_clicked):
        length[j] = duration[clicked[j]]
        scale[j] = 0.5 * ys[clicked[j]]
    tanh_all(scale, n_clicked, x)
    for j in range(n_clicked):
        scale[j] *= law.attention_affinity
    exp_all(scale, n_clicked)
    for j in range(n_clicked):
        threshold[j] = min(VALID_PLAY, length[j])
    for j in range(n_clicked):
        scale[j] *= law.attention
        x[j] = threshold[j] / scale[j]
    power_all(x, law.attention_shape, n_clicked)
    for j in range(n_clicked):
        x[j] = (1.0 + x[j]) / unit32(drawn[clicked[j]]) - 1.0
    power_all(x, 1.0 / law.attention_shape, n_clicked)
    for j in range(n_clicked):
        seconds = max(scale[j] * x[j], threshold[j])
        if seconds >= length[j]:
            if unit32(ends[clicked[j]]) < law.stop:
                seconds = length[j]
            else:
                seconds = length[j] + law.loop * (seconds - length[j])
        watch[clicked[j]] = seconds
        is_long[clicked[j]] = seconds >= min(LONG_VIEW, length[j])
    usual = weibull(law.skip_scale, law.skip_shape, VALID_PLAY)
    for j in range(n_skipped):
        below, seconds = usual, duration[skipped[j]]
        if seconds < VALID_PLAY:
            below = weibull(law.skip_scale, law.skip_shape, seconds)
        x[j] = 1.0 - unit32(drawn[skipped[j]]) * below
    log_all(x, n_skipped)
    for j in range(n_skipped):
        x[j] = -x[j]
    power_all(x, 1.0 / law.skip_shape, n_skipped)
    for j in range(n_skipped):
        watch[skipped[j]] = law.skip_scale * x[j]


@njit()
def _react(law: Law, seen: Seen, words: Words, first: int, out: Answers) -> None:
    """The reactions to what was examined; `first` is the row of `out`."""
    state, ys, kinds = seen.state.reshape(-1), seen.y.reshape(-1), out.kinds
    size = len(state)
    likely, n = np.empty(size, dtype=np.int64), 0
    possible = _likely(law, words).reshape(-1)
    for i in range(size):  # seldom: spares exponentials
        likely[n] = i
        n += possible[i] & (state[i] >= EXAMINED)
    suits, x = np.empty(size), np.empty(size)
    for j in range(n):
        suits[j] = 0.5 * ys[likely[j]]
    tanh_all(suits, n, x)
    for kind in range(len(law.reactions)):
        rate, affinity, unclicked = law.reactions[kind]
        stream, word = law.words[kind]
        for j in range(n):
            x[j] = -(rate + affinity * suits[j])
        exp_all(x, n)
        for j in range(n):
            i = likely[j]
            p, b = i // CHUNK, i % CHUNK
            factor = 1.0 if state[i] >= CLICKED else unclicked
            is_given = unit32(words[word, stream, p, b]) < factor * (1.0 / (1.0 + x[j]))
            kinds[1 + kind, first + b, p] = is_given


@njit()
def _answer(
    law: Law,
    truth: Truth,
    lives: Lives,
    rows: Ints,
    items: Ints,
    words: Words,
    first: int,
    seen: Seen,
    out: Answers,
    mood: Floats,
) -> None:
    """Answer slates `[n, k]` of the users in `rows` `[n]`; `first` is the row of `out`.

    `mood` `[3, CHUNK]`: seconds spent, long views, whether the app was put away.
    """
    clicks, watches, kinds, shown = out.click, out.watch, out.kinds, out.shown
    state, watch, is_long = seen.state, seen.watch, seen.long
    n, k = items.shape
    mood[:] = 0.0
    _look(law, truth, lives, rows, items, words, seen, mood)
    _watch(law, seen, words)
    _react(law, seen, words, first, out)
    for p in range(k):
        for b in range(CHUNK):
            mood[0, b] += watch[p, b] + law.gap if state[p, b] else 0.0
        for b in range(CHUNK):
            mood[1, b] += is_long[p, b]
    for b in range(n):
        to, n_shown = first + b, 0
        for p in range(k):
            is_shown = state[p, b] != 0
            n_shown += is_shown
            clicks[to, p] = state[p, b] >= CLICKED if is_shown else -1
            watches[to, p] = watch[p, b] if is_shown else np.nan
            kinds[0, to, p] = is_long[p, b] if is_shown else -1
        for kind in range(1, len(kinds)):
            for p in range(n_shown, k):
                kinds[kind, to, p] = -1
        shown[to] = n_shown


@njit(error_model="numpy")
def _go_on(
    law: Law,
    seed: Any,
    truth: Truth,
    lives: Lives,
    user: Ints,
    rows: Ints,
    step: Ints,
    t: Ints,
    mood: Floats,
    first: int,
    out: Answers,
) -> None:
    """Whether the sessions of users `[n]` end, and when each asks next; `mood` and `first` as in
    `_answer`.
    """
    satisfaction, clock, rates, hours = lives.satisfaction, lives.clock, truth.rate, law.hours
    shown, leaves, following, n = out.shown, out.leaves, out.next, len(user)
    counters, words = np.empty((2, 4, 2 * CHUNK), dtype=np.uint32)
    for b in range(n):
        for half in range(2):
            at = half * n + b
            counters[0, at], counters[1, at] = np.uint32(user[b]), np.uint32(step[b])
            counters[2, at] = np.uint32(_RETURN if half else _LEAVE)
            counters[3, at] = 0
    philox_words(seed, counters, 2 * n, words)
    drawn, odds, rate = np.empty(2 * CHUNK), np.empty(CHUNK), np.empty(CHUNK)
    for at in range(2 * n):
        drawn[at] = unit(np.uint64(words[0, at]), np.uint64(words[1, at]))
    for b in range(n):
        u = rows[b]
        share = mood[1, b] / max(shown[first + b], 1)
        satisfaction[u] = law.return_memory * satisfaction[u] + (1.0 - law.return_memory) * share
        odds[b] = -law.leave_satisfaction * (share - law.leave_reference)
        rate[b] = law.return_satisfaction * (satisfaction[u] - law.return_reference)
    exp_all(odds, n)
    exp_all(rate, n)
    for b in range(n):
        odds[b] *= law.leave / (1.0 - law.leave)
        drawn[n + b] = 1.0 - drawn[n + b]
    log_all(drawn[n:], n)
    for b in range(n):
        u, to = rows[b], first + b
        end = t[b] + 1000.0 * mood[0, b]
        leaves[to] = mood[2, b] != 0.0 or drawn[b] < odds[b] / (1.0 + odds[b])
        if leaves[to]:
            lives.open[u] = 0
            end = arrival(hours, end, rates[u] * rate[b], -drawn[n + b])
        following[to] = clock[u] = max(int(min(end, FAR)), t[b] + 1)


@njit()
def respond(
    law: Law,
    seed: Any,
    truth: Truth,
    lives: Lives,
    user: Ints,
    rows: Ints,
    step: Ints,
    t: Ints,
    items: Ints,
    out: Answers,
) -> None:
    """Answer `[B]` slates `[B, k]` of different users, who live in `rows` `[B]`, CHUNK at a
    time; all noise of an impression is keyed by (user, step, item).
    """
    k = items.shape[1]
    size = law.streams * k * CHUNK
    counters = np.zeros((4, law.streams, k, CHUNK), dtype=np.uint32)
    words = np.empty((4, law.streams, k, CHUNK), dtype=np.uint32)
    mood = np.empty((3, CHUNK))
    seen = Seen(
        np.empty((k, CHUNK), dtype=np.int64), np.empty((k, CHUNK)), np.zeros((k, CHUNK)),
        np.empty((k, CHUNK)), np.empty((k, CHUNK), dtype=np.int64),
    )  # fmt: skip
    for first in range(0, len(user), CHUNK):
        end = min(first + CHUNK, len(user))
        who, lived = user[first:end], rows[first:end]
        when, at, slates = step[first:end], t[first:end], items[first:end]
        wake(law, seed, truth, lives, who, lived, at)
        _count(who, when, slates, truth.author, law.streams, counters)
        philox_words(seed, counters.reshape(4, size), size, words.reshape(4, size))
        _answer(law, truth, lives, lived, slates, words, first, seen, out, mood)
        _go_on(law, seed, truth, lives, who, lived, when, at, mood, first, out)
