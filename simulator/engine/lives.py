"""The discrete-event engine: lives, ticks, day barriers and the serving desk. The only file that
imports simpy.

A life is a row of columns with the user's own clock; simpy keeps the ticks, the days, the uploads
and the queue of the desk. Because no life can touch another, how requests are gathered (tick), cut
(block) or spread over processes (shards) cannot change a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import simpy

from policies.base import BoolArray, Histories, IntArray, Sequences
from policies.context import dtype_of, past_of, unknown
from policies.time import DAY
from simulator.engine.tape import Asked, Tape
from simulator.serving import kernels
from simulator.serving.desk import Serves
from simulator.users.base import NEVER, Feedback, Users, described

MAX_REQUEST = 2**16 - 1
"""The number of a session's last request, from 0 (the column `request` of a log)."""


class EngineError(ValueError):
    """Users that break their protocol (a clock that stands still, answers of the wrong shape)."""


@dataclass
class ShardLives:
    """The users of one shard, one row each.

    Attributes:
        user: `[n]` ids, ascending.
        next: `[n]` ms, when the user asks next; NEVER = not in this run.
        session: `[n]` number of the current session, from 0.
        request: `[n]` number of the next request within the session, from 0.
        step: `[n]` number of the next request in the user's life; keys random numbers.
        items: `[n, W]` int32 the last `W` impressions, right-aligned, 0 = none.
        clicked: `[n, W]` whether each was clicked.
        past: what else is remembered of them, `[n, W]` each, by its path within the context of
            requests (`policies.context`): only what some policy asks for.
    """

    user: IntArray
    next: IntArray
    session: IntArray
    request: IntArray
    step: IntArray
    items: npt.NDArray[np.int32]
    clicked: BoolArray
    past: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def born(
        cls, user: IntArray, first: IntArray, memory: int, context: Sequence[str] = ()
    ) -> Self:
        """Lives without a past that ask for the first time at `first` (ms); they will remember the
        last `memory` impressions, and of them what of the `context` belongs to impressions.
        """
        n = len(user)
        session, request, step = np.zeros((3, n), dtype=np.int64)
        return cls(
            user.astype(np.int64),
            first.astype(np.int64),
            session,
            request,
            step,
            np.zeros((n, memory), dtype=np.int32),
            np.zeros((n, memory), dtype=np.bool_),
            {path: np.zeros((n, memory), dtype=dtype_of(path)) for path in past_of(context)},
        )

    def with_past(self, history: Sequences) -> Self:
        """The same lives with the last impressions of a logged history as their memory; `history`
        has a row for each life.
        """
        last = history.last(self.items.shape[1], self.past)
        context, past = last.context(), {}
        for path in self.past:
            known = context.get(path)
            if known is None:  # a kind of feedback that the history does not have
                known = np.where(last.items > 0, unknown(path), 0)
            past[path] = known.astype(dtype_of(path))
        return replace(self, items=last.items.astype(np.int32), clicked=last.clicked, past=past)

    def renumbered(self) -> Self:
        """The same lives at the start of an A/B: sessions count from 0 again, steps go on."""
        return replace(
            self, session=np.zeros_like(self.session), request=np.zeros_like(self.request)
        )

    def rows(self, index: Any) -> Self:
        """The lives at `index`."""
        return self.restore({name: column[index] for name, column in self.state().items()})

    @classmethod
    def joined(cls, parts: Sequence[ShardLives]) -> ShardLives:
        """The lives of several shards, in the order of their users."""
        states = [part.state() for part in parts]
        return cls.restore({n: np.concatenate([one[n] for one in states]) for n in states[0]})

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All columns by name; those of `past` by `past.PATH`."""
        bare = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "past"}
        return bare | {f"past.{path}": column for path, column in self.past.items()}

    @classmethod
    def restore(cls, state: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The lives whose `state` was given."""
        bare: dict[str, Any] = {}
        past: dict[str, npt.NDArray[Any]] = {}
        for name, column in state.items():
            if name.startswith("past."):
                past[name.removeprefix("past.")] = np.array(column)
            else:
                bare[name] = np.array(column)
        return cls(**bare, past=past)

    def histories(
        self,
        rows: IntArray,
        length: int,
        seen_length: int,
        request: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> Histories:
        """The requests of `rows`: the last `length` impressions; the last `seen_length` may not be
        recalled again. `request` is the context of the requests themselves, by its paths.
        """
        items = np.empty((len(rows), length), dtype=np.int64)
        kernels.recollect(self.items, rows, items)
        clicked = self.clicked[rows, self.clicked.shape[1] - length :]
        seen = items
        if seen_length != length:
            seen = np.empty((len(rows), seen_length), dtype=np.int64)
            kernels.recollect(self.items, rows, seen)
        asked = Histories(self.user[rows], self.step[rows], items, clicked, seen)
        if not self.past and not request:
            return asked
        context = dict(request or {})
        for path, column in self.past.items():
            context[path] = np.empty((len(rows), length), dtype=column.dtype)
            kernels.recollect(column, rows, context[path])
        return asked.with_context(context)

    def remember(self, rows: IntArray, items: IntArray, feedback: Feedback, t: IntArray) -> None:
        """Take the answers to slates `[B, k]`, served at `t` `[B]` ms, into the memory of `rows`
        `[B]`.
        """
        kernels.remember(self.items, self.clicked, rows, items, feedback.click, feedback.shown)
        for path, column in self.past.items():
            kernels.push(column, rows, _answers(path, items, feedback, t), feedback.shown)

    def advance(self, rows: IntArray, items: IntArray, feedback: Feedback) -> None:
        """Take over the answers to a block: memory, clocks and counters."""
        self.remember(rows, items, feedback, self.next[rows])
        self.next[rows] = feedback.next
        self.step[rows] += 1
        self.session[rows] += feedback.leaves
        self.request[rows] = np.where(feedback.leaves, 0, self.request[rows] + 1)


def _answers(path: str, items: IntArray, feedback: Feedback, t: IntArray) -> npt.NDArray[Any]:
    """What is remembered, under a path, of slates `[B, k]` that were answered at `t` `[B]` ms."""
    if path == "times":
        return np.repeat(t[:, None], items.shape[1], axis=1)
    if path == "watch":
        return feedback.watch
    answers = feedback.kinds.get(path.removeprefix("reactions."))
    return np.full(items.shape, unknown(path), dtype_of(path)) if answers is None else answers


@dataclass(frozen=True)
class Span:
    """A stretch of scenario time and how it is gathered.

    Attributes:
        start, end: ms; requests with start <= t < end are served.
        tick: ms whose requests are served together.
        block: requests served in one call of the policy.
        slate: positions of a request, where the users do not say.
        history: impressions of the past that a policy is given.
        seen: impressions of the past that may not be recalled again.
        context: what else policies ask for of requests (`Policy.asks_for`).
    """

    start: int
    end: int
    tick: int
    block: int
    slate: int
    history: int
    seen: int
    context: tuple[str, ...] = ()


Barrier = Callable[[int], None]
"""Called with the time (ms) of each day's end inside the span, when every request before it has
been served and none after it.
"""


def _no_barrier(t: int) -> None:
    return None


@dataclass(frozen=True)
class Release:
    """A moment (`t`, ms) within a day from which on another desk serves: what the catalogue has is
    not the same any more. `desk` makes it of the one before.
    """

    t: int
    desk: Callable[[Serves], Serves]


class Engine:
    """One arm of one shard, running: lives, their users, the desk that serves them and the tape
    that records it.
    """

    def __init__(
        self, lives: ShardLives, users: Users, desk: Serves, tape: Tape, span: Span
    ) -> None:
        self.lives, self.users, self.desk, self.tape, self.span = lives, users, desk, tape, span

    def run(self, barrier: Barrier = _no_barrier, releases: Sequence[Release] = ()) -> None:
        """Serve every request of the span; the desk is another from each of `releases` on, which
        are in the order of time.

        Raises:
            ServingError: a policy broke its contract.
            EngineError: the users broke theirs.
        """
        env = simpy.Environment(initial_time=self.span.start)
        queue = simpy.Store(env)
        processes = (
            self._serving(queue),
            self._releasing(env, queue, releases),
            self._clock(env, queue, barrier),
        )
        try:
            *_, clock = map(env.process, processes)
            env.run(until=clock)
        finally:
            # One that still waits is in a cycle with its queue, and would hold the lives until
            # Python looks for cycles.
            for process in processes:
                process.close()

    def _clock(
        self, env: simpy.Environment, queue: simpy.Store, barrier: Barrier
    ) -> Generator[simpy.Event, Any, None]:
        """Ticks and days: sleeps through ticks in which nobody asks, and stops at the end of each
        day.
        """
        span = self.span
        while (now := int(env.now)) < span.end:
            midnight = min((now // DAY + 1) * DAY, span.end)
            first = int(self.lives.next.min(initial=NEVER))
            to = midnight
            if first < midnight:
                to = min((max(first, now) // span.tick + 1) * span.tick, midnight)
            yield env.timeout(to - now)
            if first < to:
                served = env.event()
                yield queue.put((to, served))
                yield served
            if to == midnight:
                barrier(to)

    def _releasing(
        self, env: simpy.Environment, queue: simpy.Store, releases: Sequence[Release]
    ) -> Generator[simpy.Event, Any, None]:
        """Uploads: waits for each release, has every request before it served, then changes the
        desk. Where the clock's tick goes on beyond it, its rest meets the new desk.
        """
        for release in releases:
            yield env.timeout(release.t - env.now)
            served = env.event()
            yield queue.put((release.t, served))
            yield served
            self.desk = release.desk(self.desk)

    def _serving(self, queue: simpy.Store) -> Generator[simpy.Event, Any, None]:
        """The desk: takes the requests of one tick at a time."""
        while True:
            until, served = yield queue.get()
            self.serve_until(until)
            served.succeed()

    def serve_until(self, until: int) -> None:
        """Serve all requests with t < `until`, in blocks that are full as long as enough users ask.

        A user who asks again before `until` goes back to the head of the queue: each user's
        requests come in the order of time.
        """
        due = np.flatnonzero(self.lives.next < until)
        at, rows = 0, due[:0]
        while at < len(due) or len(rows):
            take = self.span.block - len(rows)
            rows = np.concatenate((rows, due[at : at + take])) if take > 0 else rows
            at += max(take, 0)
            self._serve(rows)
            rows = rows[self.lives.next[rows] < until]

    def _serve(self, rows: IntArray) -> None:
        lives = self.lives
        asked = Asked(lives.user[rows], lives.session[rows], lives.request[rows], lives.next[rows])
        step = lives.step[rows]
        self._check_count(asked)
        sizes = self.users.slate_size(asked.user, step)
        k = self.span.slate if sizes is None else int(sizes.max(initial=1))
        span = self.span
        request = described(self.users, asked.user, step, asked.t, span.context)
        if "features.tab" in request:
            asked = replace(asked, tab=request["features.tab"])
        served = self.desk.serve(lives.histories(rows, span.history, span.seen, request), k)
        if sizes is not None:
            fitting = np.where(np.arange(k) < sizes[:, None], served.slates.items, 0)
            served = replace(served, slates=replace(served.slates, items=fitting))
        items = served.slates.items
        feedback = self._checked(
            self.users.respond(asked.user, step, asked.t, served.slates), asked, items
        )
        self.tape.append(asked, served, feedback)
        lives.advance(rows, items, feedback)

    @staticmethod
    def _check_count(asked: Asked) -> None:
        """A log numbers the requests of a session in 16 bits: users whose sessions do not end would
        begin again at 0.
        """
        longest = int(asked.request.max(initial=0))
        if longest > MAX_REQUEST:
            user = int(asked.user[asked.request.argmax()])
            rule = f"a session has at most {MAX_REQUEST + 1:,} requests"
            advice = (
                "a higher users.patience.leave or a longer users.arrival.gap ends sessions sooner"
            )
            raise EngineError(
                f"user {user} makes request {longest + 1:,} of one session: {rule}; {advice}"
            )

    def _checked(self, feedback: Feedback, asked: Asked, items: IntArray) -> Feedback:
        """The answers with positions that hold no item not shown; protocol errors are named."""
        if feedback.click.shape != items.shape or feedback.watch.shape != items.shape:
            raise EngineError(
                f"users answered {feedback.click.shape} clicks and {feedback.watch.shape} watch"
                f" times to {items.shape} items"
            )
        back = feedback.next < asked.t
        if back.any():
            i = int(np.flatnonzero(back)[0])
            raise EngineError(
                f"user {asked.user[i]} asked at {asked.t[i]} ms and asks next at {feedback.next[i]}"
                " ms: time cannot go back"
            )
        if items.shape[1] and (items[:, -1] == 0).any():
            return replace(feedback, shown=np.minimum(feedback.shown, (items > 0).sum(axis=1)))
        return feedback
