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
    LawTables,
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

SHOWN, EXAMINED, CLICKED, LONG = 1, 2, 4, 8
"""What became of an impression, added up; 0: it was not shown, LONG: a long view."""


@njit()
def _count(user: Ints, step: Ints, items: Ints, author: Ints, counters: Words) -> None:
    """Fill the counters of all words that the answers to `[n]` slates may take, `[4, streams * k *
    CHUNK]`.
    """
    n, k = items.shape
    for stream in range(counters.shape[1] // (k * CHUNK)):
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
                at = (stream * k + p) * CHUNK + b
                counters[0, at], counters[1, at] = np.uint32(user[b]), np.uint32(what)
                counters[2, at], counters[3, at] = np.uint32(purpose), np.uint32(lane)


class Seen(NamedTuple):
    """What becomes of the impressions of a chunk, `[k, CHUNK]` each, place by place."""

    state: Ints
    """SHOWN + EXAMINED + CLICKED + LONG, as far as it is so."""
    y: Floats
    """The click's logit with the user's own level set to `base`."""
    duration: Floats
    """s"""
    watch: Floats
    """s; 0 where nothing was examined"""


class Scratch(NamedTuple):
    """What a chunk is answered in: arrays that are used again for the next one."""

    counters: Words
    """`[4, streams * k * CHUNK]`"""
    words: Words
    """`[4, streams, k, CHUNK]` the random words of the counters."""
    seen: Seen
    lens: Floats
    """`[M * D, CHUNK]` the interests."""
    shares: Floats
    """`[M, CHUNK]` their weights."""
    fading: Floats
    """`[D, CHUNK]` the memories."""
    place: Floats
    """`[D, CHUNK]` of the videos at a place of the slates."""
    others: Floats
    """`[10, CHUNK]` four sums, and what else `_look` has of each user."""
    mood: Floats
    """`[3, CHUNK]` seconds spent, long views, whether the app was put away."""
    picked: Ints
    """`[2, k * CHUNK]` which impressions numbers are computed of."""
    numbers: Floats
    """`[4, k * CHUNK]`"""

    @classmethod
    def of(cls, streams: int, k: int, n_interests: int, n_places: int) -> Scratch:
        """Arrays for slates of `k`, `streams` of random words (`LawTables.streams`), M and D."""
        size = k * CHUNK
        words = np.zeros((4, streams, k, CHUNK), dtype=np.uint32)
        rows = (n_interests * n_places, n_interests, n_places, n_places, 10, 3)
        lens, shares, fading, place, others, mood = np.split(
            _columns(sum(rows)), np.cumsum(rows)[:-1]
        )
        return cls(
            counters=np.zeros((4, streams * size), dtype=np.uint32),
            words=words,
            seen=Seen(
                state=np.empty((k, CHUNK), dtype=np.int64),
                y=np.empty((k, CHUNK)),
                duration=np.zeros((k, CHUNK)),
                watch=np.empty((k, CHUNK)),
            ),
            lens=lens,
            shares=shares,
            fading=fading,
            place=place,
            others=others,
            mood=mood,
            picked=np.empty((2, size), dtype=np.int64),
            numbers=np.empty((4, size)),
        )


def _columns(n: int) -> Floats:
    """`n` columns of zeros that begin with a cache line each: a vector that lies in two costs two
    reads, and waits for what was written into them one by one.
    """
    whole = np.zeros(n * CHUNK + 8)
    skip = -(whole.ctypes.data // 8) % 8
    return whole[skip : skip + n * CHUNK].reshape(n, CHUNK)


@njit(forceinline=True)
def _match(lens: Floats, shares: Floats, place: Floats, out: Floats, part: Floats) -> None:
    """`kernel.matching` of the videos at `place` `[D, CHUNK]`, in the same order of additions, by
    interests `[M * D, CHUNK]` and their weights `[M, CHUNK]`; `part` is overwritten.
    """
    n_places = len(place)
    for b in range(CHUNK):
        out[b] = 0.0
    for m in range(len(shares)):
        for b in range(CHUNK):
            part[b] = 0.0
        for d in range(n_places):
            for b in range(CHUNK):
                part[b] += lens[m * n_places + d, b] * place[d, b]
        for b in range(CHUNK):
            positive = max(part[b], 0.0)
            out[b] += shares[m, b] * positive * positive


@njit(forceinline=True)
def _tire(strength: float, memory: Floats, place: Floats, out: Floats, sums: Floats) -> None:
    """`kernel.fatigue` of the videos at `place`, by memories `[D, CHUNK]`: its four sums, in the
    first rows of `sums` `[>= 4, CHUNK]`.
    """
    n_places = len(place)
    for quarter in range(4):
        for b in range(CHUNK):
            sums[quarter, b] = 0.0
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


@njit(forceinline=True)
def _taste(by_author: float, by_video: float, words: Words, p: int, out: Floats) -> None:
    """The users' own liking for the authors and the videos at place `p`."""
    for b in range(CHUNK):
        out[b] = 0.0
    for stream, scale in ((AUTHOR, by_author), (VIDEO, by_video)):
        for b in range(CHUNK):
            out[b] += scale * bell(
                words[0, stream, p, b],
                words[1, stream, p, b],
                words[2, stream, p, b],
                words[3, stream, p, b],
            )


@njit()
def _look(
    law: Law,
    video: Floats,
    level_of: Floats,
    onward: Floats,
    weights: Floats,
    interests: Floats,
    memory: Floats,
    clicked: Ints,
    rows: Ints,
    items: Ints,
    scratch: Scratch,
) -> None:
    """Who examines and clicks what, of slates `[n, k]` for the users in `rows` `[n]`, n at most
    CHUNK; `scratch.mood[2]` says who puts the app away.

    A column has CHUNK numbers; those behind n stand for nobody. The arrays before `rows` are those
    of `Truth` and `Lives`.
    """
    lens, shares, others = scratch.lens, scratch.shares, scratch.others
    fading, place, words = scratch.fading, scratch.place, scratch.words
    state, ys, duration = scratch.seen.state, scratch.seen.y, scratch.seen.duration
    (n, k), (_, n_interests, n_places) = items.shape, interests.shape
    level, appeal, total = others[4], others[5], others[6]
    part, taste, leaving = others[7], others[8], others[9]
    going, last = np.zeros(CHUNK, dtype=np.int64), np.zeros(CHUNK, dtype=np.int64)
    for b in range(CHUNK):
        leaving[b] = 0.0
    for b in range(n):
        u = rows[b]
        for m in range(n_interests):
            shares[m, b] = weights[u, m]
            for d in range(n_places):
                lens[m * n_places + d, b] = interests[u, m, d]
        for d in range(n_places):
            fading[d, b] = memory[u, d]
        level[b], going[b], last[b] = level_of[u], 1, clicked[u]
    chance = law.examine
    for p in range(k):
        for b in range(n):
            i = items[b, p]
            going[b] = 0 if i == 0 else going[b]
            for d in range(n_places):
                place[d, b] = video[i, d]
            appeal[b], duration[p, b] = video[i, n_places], video[i, n_places + 1]
        _match(lens, shares, place, total, part)
        _tire(law.satiation, fading, place, part, others)
        _taste(law.author, law.taste, words, p, taste)
        for b in range(CHUNK):
            x = level[b] + appeal[b] + law.match * total[b]
            x += taste[b] - part[b]
            ys[p, b] = x - level[b] + law.base
            part[b] = -x
        exp_all(part, CHUNK)
        for b in range(CHUNK):
            is_examined = unit32(words[0, EXAMINE, p, b]) < chance
            is_click = unit32(words[0, RESPONSE, p, b]) < 1.0 / (1.0 + part[b])
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
        clicked[u] = last[b]
        scratch.mood[2, b] = leaving[b]
        for d in range(n_places):
            memory[u, d] = fading[d, b]


@njit()
def _watch(law: Law, seen: Seen, words: Words, picked: Ints, numbers: Floats) -> None:
    """Fill in the seconds of what was examined, and whether they are a long view.

    A clicked video gets attention of the log-logistic law beyond the click's threshold, which may
    exceed the duration. A skip takes a time of the Weibull law, cut above where its probability is
    that of the threshold.

    `picked` `[2, k * CHUNK]` and `numbers` `[4, k * CHUNK]` are overwritten.
    """
    state, ys, duration, watch = seen
    clicked, skipped = picked[0], picked[1]
    scale, x = numbers[0], numbers[1]
    drawn, length = numbers[2], numbers[3]
    n_clicked = n_skipped = 0
    for p in range(len(state)):
        for b in range(CHUNK):
            depth, watch[p, b] = state[p, b], 0.0
            clicked[n_clicked] = skipped[n_skipped] = p * CHUNK + b
            n_clicked += depth >= CLICKED
            n_skipped += (depth >= EXAMINED) & (depth < CLICKED)
    for j in range(n_clicked):
        p, b = clicked[j] // CHUNK, clicked[j] % CHUNK
        length[j], scale[j] = duration[p, b], 0.5 * ys[p, b]
        drawn[j] = unit32(words[1, RESPONSE, p, b])
    tanh_all(scale, n_clicked, x)
    for j in range(n_clicked):
        scale[j] *= law.attention_affinity
    exp_all(scale, n_clicked)
    for j in range(n_clicked):
        scale[j] *= law.attention
        x[j] = min(VALID_PLAY, length[j]) / scale[j]
    power_all(x, law.attention_shape, n_clicked)
    for j in range(n_clicked):
        x[j] = (1.0 + x[j]) / drawn[j] - 1.0
    power_all(x, 1.0 / law.attention_shape, n_clicked)
    for j in range(n_clicked):
        p, b, end = clicked[j] // CHUNK, clicked[j] % CHUNK, length[j]
        seconds = max(scale[j] * x[j], min(VALID_PLAY, end))
        if seconds >= end:
            stops = unit32(words[2, RESPONSE, p, b]) < law.stop
            seconds = end if stops else end + law.loop * (seconds - end)
        watch[p, b] = seconds
        state[p, b] += LONG * (seconds >= min(LONG_VIEW, end))
    usual = weibull(law.skip_scale, law.skip_shape, VALID_PLAY)
    for j in range(n_skipped):
        p, b = skipped[j] // CHUNK, skipped[j] % CHUNK
        below, seconds = usual, duration[p, b]
        if seconds < VALID_PLAY:
            below = weibull(law.skip_scale, law.skip_shape, seconds)
        x[j] = 1.0 - unit32(words[1, RESPONSE, p, b]) * below
    log_all(x, n_skipped)
    for j in range(n_skipped):
        x[j] = -x[j]
    power_all(x, 1.0 / law.skip_shape, n_skipped)
    for j in range(n_skipped):
        p, b = skipped[j] // CHUNK, skipped[j] % CHUNK
        watch[p, b] = law.skip_scale * x[j]


@njit()
def _react(
    tables: LawTables,
    state: Ints,
    ys: Floats,
    words: Words,
    picked: Ints,
    numbers: Floats,
    first: int,
    kinds: npt.NDArray[np.int8],
) -> None:
    """The reactions to what was examined; `first` is the row of `kinds`, and `picked` and `numbers`
    are overwritten as by `_watch`.
    """
    most, word_of = tables.most, tables.words
    likely, possible, n = picked[0], picked[1], 0
    suits, x = numbers[0], numbers[1]
    for p in range(len(state)):  # seldom: spares exponentials
        for b in range(CHUNK):
            possible[b] = 0
        for kind in range(len(most)):
            stream, word, highest = word_of[kind, 0], word_of[kind, 1], most[kind]
            for b in range(CHUNK):  # contiguous: LLVM compares many at a time
                possible[b] |= words[word, stream, p, b] <= highest
        for b in range(CHUNK):
            likely[n] = p * CHUNK + b
            n += possible[b] & (state[p, b] >= EXAMINED)
    for j in range(n):
        suits[j] = 0.5 * ys[likely[j] // CHUNK, likely[j] % CHUNK]
    tanh_all(suits, n, x)
    for kind in range(len(most)):
        stream, word = word_of[kind, 0], word_of[kind, 1]
        rate, affinity = tables.reactions[kind, 0], tables.reactions[kind, 1]
        for j in range(n):
            x[j] = -(rate + affinity * suits[j])
        exp_all(x, n)
        for j in range(n):
            p, b = likely[j] // CHUNK, likely[j] % CHUNK
            factor = 1.0 if state[p, b] >= CLICKED else tables.reactions[kind, 2]
            is_given = unit32(words[word, stream, p, b]) < factor * (1.0 / (1.0 + x[j]))
            kinds[1 + kind, first + b, p] = is_given


@njit()
def _report(gap: float, n: int, seen: Seen, first: int, mood: Floats, out: Answers) -> None:
    """Write down what `n` users answered, from row `first` of `out` on, and what it was like for
    them, `mood` `[3, CHUNK]`.
    """
    state, watch = seen.state, seen.watch
    clicks, watches, kinds = out.click, out.watch, out.kinds
    k = len(state)
    for b in range(n):
        to, n_shown, spent, n_long = first + b, 0, 0.0, 0
        for p in range(k):
            depth, seconds = state[p, b], watch[p, b]
            is_shown = depth != 0
            n_shown += is_shown
            n_long += depth >= LONG
            spent += seconds + gap if is_shown else 0.0
            clicks[to, p] = depth >= CLICKED if is_shown else -1
            watches[to, p] = seconds if is_shown else np.nan
            kinds[0, to, p] = depth >= LONG if is_shown else -1
        mood[0, b], mood[1, b] = spent, n_long
        for kind in range(1, len(kinds)):
            for p in range(n_shown, k):
                kinds[kind, to, p] = -1
        out.shown[to] = n_shown


@njit()
def _go_on(
    law: Law,
    hours: Floats,
    seed: Any,
    rates: Floats,
    satisfaction: Floats,
    clock: Ints,
    is_open: Ints,
    user: Ints,
    rows: Ints,
    step: Ints,
    t: Ints,
    mood: Floats,
    first: int,
    shown: Ints,
    leaves: npt.NDArray[np.bool_],
    following: Ints,
) -> None:
    """Whether the sessions of users `[n]` end, and when each asks next; `mood` and `first` as in
    `_report`, the arrays before `user` those of `LawTables`, `Truth` and `Lives`.
    """
    n = len(user)
    counters = np.zeros((4, 2 * CHUNK), dtype=np.uint32)
    words = np.empty((4, 2 * CHUNK), dtype=np.uint32)
    for at in range(2 * n):
        b = at if at < n else at - n
        counters[0, at], counters[1, at] = np.uint32(user[b]), np.uint32(step[b])
        counters[2, at] = np.uint32(_LEAVE if at < n else _RETURN)
    philox_words(seed, counters, 2 * n, words)
    leaving, waits = np.empty(CHUNK), np.empty(CHUNK)
    odds, rate = np.empty(CHUNK), np.empty(CHUNK)
    for b in range(n):
        u, c = rows[b], n + b
        leaving[b] = unit(np.uint64(words[0, b]), np.uint64(words[1, b]))
        waits[b] = 1.0 - unit(np.uint64(words[0, c]), np.uint64(words[1, c]))
        share = mood[1, b] / max(shown[first + b], 1)
        satisfaction[u] = law.return_memory * satisfaction[u] + (1.0 - law.return_memory) * share
        odds[b] = -law.leave_satisfaction * (share - law.leave_reference)
        rate[b] = law.return_satisfaction * (satisfaction[u] - law.return_reference)
    exp_all(odds, n)
    exp_all(rate, n)
    log_all(waits, n)
    for b in range(n):
        u, to = rows[b], first + b
        odds[b] *= law.leave / (1.0 - law.leave)
        end = t[b] + 1000.0 * mood[0, b]
        leaves[to] = mood[2, b] != 0.0 or leaving[b] < odds[b] / (1.0 + odds[b])
        if leaves[to]:
            is_open[u] = 0
            end = arrival(hours, end, rates[u] * rate[b], -waits[b])
        following[to] = clock[u] = max(int(min(end, FAR)), t[b] + 1)


@njit()
def respond(
    law: Law,
    tables: LawTables,
    seed: Any,
    truth: Truth,
    lives: Lives,
    user: Ints,
    rows: Ints,
    step: Ints,
    t: Ints,
    items: Ints,
    scratch: Scratch,
    drawn: Words,
    out: Answers,
) -> None:
    """Answer `[B]` slates `[B, k]` of different users, who live in `rows` `[B]`, CHUNK at a
    time, in `scratch`; all noise of an impression is keyed by (user, step, item).

    `drawn` is `scratch.words` as `[4, streams * k * CHUNK]`, the same memory.
    """
    words, seen, mood = scratch.words, scratch.seen, scratch.mood
    picked, numbers = scratch.picked, scratch.numbers
    for first in range(0, len(user), CHUNK):
        end = min(first + CHUNK, len(user))
        who, lived = user[first:end], rows[first:end]
        when, at, slates = step[first:end], t[first:end], items[first:end]
        wake(law, seed, truth.centres, truth.tag_cdf, lives, who, lived, at)
        _count(who, when, slates, truth.author, scratch.counters)
        philox_words(seed, scratch.counters, scratch.counters.shape[1], drawn)
        _look(
            law, truth.video, truth.level, truth.onward,
            lives.weights, lives.interests, lives.memory, lives.clicked, lived, slates, scratch,
        )  # fmt: skip
        _watch(law, seen, words, picked, numbers)
        _react(tables, seen.state, seen.y, words, picked, numbers, first, out.kinds)
        _report(law.gap, len(who), seen, first, mood, out)
        _go_on(
            law, tables.hours, seed, truth.rate, lives.satisfaction, lives.clock, lives.open,
            who, lived, when, at, mood, first, out.shown, out.leaves, out.next,
        )  # fmt: skip
