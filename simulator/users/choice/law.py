"""The parameters of a world as numbers and tables, and its truth, state and answers as named
arrays: what compiled code is handed.

No arithmetic of the world lives here, and nothing imports numba.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.users.choice.parameters import ChoiceParameters

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

TOGETHER = 256
"""Videos whose match is bounded together."""

UNBORN = int(np.iinfo(np.int64).min)
"""The day of birth of a user who has not asked yet."""


EXAMINE, RESPONSE, FEEDBACK, AUTHOR, VIDEO = range(5)
"""The streams: blocks of four random words of an impression, by what they decide."""

STREAMS = 5

SPARE = (*((FEEDBACK, word) for word in range(4)), (EXAMINE, 2), (EXAMINE, 3), (RESPONSE, 3))
"""(stream, word) that the first reactions take: what examination and response leave over."""


class Truth(NamedTuple):
    """The arrays of `World` and of those who live, for compiled code."""

    video: Floats
    """`[n_items + 1, >= D + 2]` place (D numbers), appeal, duration (s)."""
    author: Ints
    centres: Floats
    tag_cdf: Floats
    level: Floats
    """`[n]` the user's own part of the click's logit, base included."""
    rate: Floats
    """`[n]` sessions of the user per day."""
    onward: Floats
    """`[n_items + 1, D]` where a click on the video leads in a world of successions; else `[1, D]`.
    """


class Promoted(NamedTuple):
    """What the app's recommender adds to videos for all users alike: those that may be shown, the
    most promoted first.
    """

    order: Ints
    """`[n]` which videos."""
    known: Floats
    """`[n]` their appeal and traffic; never rises."""
    author: Ints
    """`[n]` of each."""
    places: Any
    """`[ceil(n / TOGETHER), D, TOGETHER]` float32, where each is; 0 behind the last."""
    n_authors: int
    longest: float
    """The largest squared length of a place."""


class Law(NamedTuple):
    """The parameters of `Choice` as numbers; a mechanism that is off has its neutral values."""

    interest_spread: float
    concentration: float
    base: float
    match: float
    author: float
    taste: float
    examine: float
    examine_decay: float
    abandon_click: float
    abandon_unclick: float
    skip_scale: float
    skip_shape: float
    attention: float
    attention_affinity: float
    attention_shape: float
    stop: float
    loop: float
    satiation: float
    fade: float
    half_life: float
    persistence: float
    renewal: float
    focus: float
    leave: float
    leave_satisfaction: float
    leave_reference: float
    gap: float
    return_satisfaction: float
    return_reference: float
    return_memory: float
    succession: bool
    """Whether the interests of a user are where the last click leads, and nothing else."""


class LawTables(NamedTuple):
    """The parameters of `Choice` that are arrays."""

    hours: Floats
    """`[25]` cumulative share of the day's arrivals at each full hour."""
    reactions: Floats
    """`[F, 3]` logit of the rate, affinity, factor without a click; in the order of
    parameters.Reactions.
    """
    most: Words
    """`[F]` no reaction is given where its random word (of 2^32) is above this."""
    words: Ints
    """`[F, 2]` of each reaction: the stream of its random word, and which of its four words."""

    @property
    def streams(self) -> int:
        """Blocks of random words that an impression may take: STREAMS, and more for many
        reactions.
        """
        return max(STREAMS, int(self.words[:, 0].max()) + 1)


class Lives(NamedTuple):
    """What changes: the state of those who live, a row each."""

    birth: Ints
    """Day number of the first request; UNBORN before it."""
    age: Ints
    """Days since birth up to which the interests have drifted."""
    logits: Floats
    """`[n, M]` logits of the interests' weights."""
    interests: Floats
    """`[n, M, D]` directions of the interests."""
    weights: Floats
    """`[n, M]` weights in the current session."""
    session: Ints
    """Sessions begun."""
    open: Ints
    """1 within a session."""
    focus: Ints
    """The interest that the session leans to."""
    memory: Floats
    """`[n, D]` fading sum of what was shown."""
    last: Ints
    """ms of the last request."""
    clock: Ints
    """ms of the next request."""
    clicked: Ints
    """The video clicked last; 0: none."""
    satisfaction: Floats
    """Fading mean share of long views."""


class Answers(NamedTuple):
    """What `respond` fills: `Feedback`, for compiled code."""

    click: npt.NDArray[np.int8]
    watch: npt.NDArray[np.float32]
    kinds: npt.NDArray[np.int8]
    shown: Ints
    next: Ints
    leaves: npt.NDArray[np.bool_]


def law(choice: ChoiceParameters, *, succession: bool) -> Law:
    """The parameters as numbers for compiled code; what is off gets its neutral values."""
    examination = choice.examination
    cascade = choice.cascade
    watch = choice.watch
    satiation = choice.satiation
    drift, patience, returning = choice.drift, choice.patience, choice.returning
    return Law(
        interest_spread=choice.interests.spread,
        concentration=choice.interests.concentration,
        base=choice.affinity.base,
        match=choice.affinity.match,
        author=choice.affinity.author,
        taste=choice.affinity.taste,
        examine=examination.first if examination.enabled else 1.0,
        examine_decay=examination.decay if examination.enabled else 1.0,
        abandon_click=cascade.after_click if cascade.enabled else 0.0,
        abandon_unclick=cascade.after_unclick if cascade.enabled else 0.0,
        skip_scale=watch.skip_scale,
        skip_shape=watch.skip_shape,
        attention=watch.attention,
        attention_affinity=watch.affinity,
        attention_shape=watch.shape,
        stop=watch.stop,
        loop=watch.loop,
        satiation=satiation.strength if satiation.enabled else 0.0,
        fade=satiation.fade,
        half_life=satiation.recovery,
        persistence=drift.persistence if drift.enabled else 1.0,
        renewal=drift.renewal if drift.enabled else 0.0,
        focus=choice.focus.strength if choice.focus.enabled else 0.0,
        leave=patience.leave,
        leave_satisfaction=patience.satisfaction if patience.enabled else 0.0,
        leave_reference=patience.reference,
        gap=choice.arrival.gap,
        return_satisfaction=returning.satisfaction if returning.enabled else 0.0,
        return_reference=returning.reference,
        return_memory=returning.memory,
        succession=succession,
    )


def tables(choice: ChoiceParameters) -> LawTables:
    """The parameters that are arrays, for compiled code."""
    from policies.elementary import exps

    hours = np.asarray(choice.diurnal.hours if choice.diurnal.enabled else (1.0,) * 24)
    reactions = np.array([_reaction(reaction) for _, reaction in choice.reactions])
    most = np.maximum(reactions[:, 2], 1.0) / (
        1.0 + exps(-reactions[:, 0] - np.abs(reactions[:, 1]))
    )
    return LawTables(
        hours=np.concatenate(([0.0], np.cumsum(hours) / hours.sum())),
        reactions=reactions,
        most=np.array([min(int(chance * 2**32), 2**32 - 1) for chance in most], dtype=np.uint32),
        words=np.array([_words_of(number) for number in range(len(reactions))]),
    )


def _words_of(reaction: int) -> tuple[int, int]:
    """The stream, and the word in it, that a reaction (numbered from 0) is drawn with."""
    if reaction < len(SPARE):
        return SPARE[reaction]
    stream, word = divmod(reaction - len(SPARE), 4)
    return STREAMS + stream, word


def _reaction(reaction: Any) -> tuple[float, float, float]:
    if not reaction.enabled:
        return -math.inf, 0.0, 0.0
    from policies.elementary import logs

    return float(logs(reaction.rate / (1.0 - reaction.rate))), reaction.affinity, reaction.unclicked
