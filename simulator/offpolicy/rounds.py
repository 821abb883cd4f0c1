"""Rounds: the logged requests as an estimator needs them, streamed from an event log by bounded
chunks.

Nothing here knows a target policy or an estimator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from policies.base import DoubleArray, Histories, IntArray
from policies.context import dtype_of, is_of_request, log_column, past_of
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.kinds import FEEDBACK
from simulator.log.metadata import FIT, HISTORY, LogError, Propensity
from simulator.log.rules import INSPECTED
from simulator.log.schema import column_values

Columns = dict[str, npt.NDArray[Any]]

REWARDS = ("click", "watch", *FEEDBACK)
"""Log columns that may be a reward. `watch` is in seconds; the others count 0 or 1."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """`R` logged requests whose slates all have `K` impressions (a chunk is split by length, so
    there is no padding).

    Attributes:
        user: `[R]` the unit of every interval.
        day: `[R]` whole days since t = 0, negative before it.
        t: `[R]` ms.
        row: `[R]` row of the request's first impression in the log, which names the request.
        position: `[R, K]` from 0; a log that holds only the third place of a slate says 2.
        item: `[R, K]` what was shown.
        reward: `[R, K]` in the unit of the reward column; NaN where it was not observed.
        propensity: `[R, K]` of the logging policy, NaN where unknown.
        kind: what `propensity` means: `conditional` on the items above, `marginal`, or `unknown`.
        context: `[R]` a small integer known before the request was served; the reward model keeps
            one table for each.
        histories: what a policy is given for these requests, or None where nobody asked for it.
        fit: `[R]` which fit of a target policy is asked about them, from 0 (`Stream.fit_of_user`);
            None: the only one.
        told: `[R, K]` what later requests will tell of these impressions besides item and click,
            by its path (`policies.context`), as far as the stream's `context` asks for it.
    """

    user: IntArray
    day: IntArray
    t: IntArray
    row: IntArray
    position: IntArray
    item: IntArray
    reward: DoubleArray
    propensity: DoubleArray
    kind: Propensity
    context: IntArray
    histories: Histories | None = None
    fit: IntArray | None = None
    told: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    @property
    def length(self) -> int:
        """Impressions per request, `K`."""
        return int(self.item.shape[1])

    def rows(self, index: Any) -> Rounds:
        """The rounds at `index` (a slice, an index array or a mask)."""
        names = ("user", "day", "t", "row", "position", "item", "reward", "propensity", "context")
        picked = {name: getattr(self, name)[index] for name in names}
        return replace(
            self,
            **picked,
            histories=None if self.histories is None else self.histories.rows(index),
            fit=None if self.fit is None else self.fit[index],
            told={path: values[index] for path, values in self.told.items()},
        )

    def of_fits(self, number: int) -> Iterator[tuple[int, IntArray]]:
        """Which rounds `[r]` each of `number` fits of a policy is asked about; one fit is asked
        about all.
        """
        if number == 1 or self.fit is None:
            yield 0, np.arange(len(self))
            return
        for fit in range(number):
            mine = np.flatnonzero(self.fit == fit)
            if len(mine):
                yield fit, mine


class Uniform(NamedTuple):
    """Impressions that are known to have been drawn uniformly, whatever the log says of the others.

    Attributes:
        channel: the recall channel of the log that they came by.
        pool: how many items they were drawn from.
    """

    channel: str
    pool: int


@dataclass(frozen=True)
class Stream:
    """Where rounds come from: an event log, one of its arms, one reward. Iterating twice gives the
    same rounds twice.

    Attributes:
        log: read by batches; memory does not grow with it.
        reward: one of REWARDS.
        arm: name of the arm, or None for the only one.
        since: ms; only requests with t >= since are rounds (earlier ones still fill histories).
            None: all.
        history: impressions of the past that a policy is given; 0 where no policy is asked. Of an
            arm of a run, the past begins in the log's arm `history`, which all arms share.
        seen: impressions of the past that may not be recalled again; None: those of `history`.
        context: what else policies ask for of requests (`Policy.asks_for`); what the log does not
            know is left out.
        propensity: what propensities mean, where it is not what the metadata says (an arm whose
            policy drew nothing has none); None: what it says.
        chunk: impressions held at once.
        contexts: how many levels of past click share the reward model may tell apart (1: none).
        by: what a round is: a request, or a whole session (its positions are then counted through
            the session).
        uniform: only these impressions, each a round of its own at the first place, with the
            marginal propensity 1 / pool; histories are those of the requests that they stood in.
            None: the log as it is.
        fit_of_user: `[n_users]` which fit of a target policy is asked about a user's rounds. None:
            where users live with every fit of the arm (`crossed`), that which they were lived with,
            so that a policy that has learned from one life is asked about this life; else the only
            one.
    """

    log: EventLog
    reward: str = "click"
    arm: str | None = None
    since: int | None = None
    history: int = 0
    seen: int | None = None
    propensity: Propensity | None = None
    chunk: int = 1 << 18
    contexts: int = 1
    by: Literal["request", "session"] = "request"
    uniform: Uniform | None = None
    fit_of_user: IntArray | None = None
    context: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.reward not in REWARDS or (
            self.reward in FEEDBACK and self.reward not in self.log.kinds
        ):
            raise LogError(
                f"reward {self.reward!r}: the log has {['click', 'watch', *self.log.kinds]}"
            )
        if self.arm is None and len(self.log.metadata.arms) > 1:
            raise LogError(
                f"this log has the arms {list(self.log.metadata.arms)}; say which one wrote the"
                " rounds"
            )
        if self.arm is not None and self.arm not in self.log.metadata.arms:
            raise LogError(
                f"no arm {self.arm!r} in this log; it has {list(self.log.metadata.arms)}"
            )
        if self.uniform is not None and self.uniform.channel not in self.log.metadata.channels:
            raise LogError(
                f"no channel {self.uniform.channel!r} in this log; it has"
                f" {list(self.log.metadata.channels)}"
            )

    @property
    def n_items(self) -> int:
        return self.log.metadata.n_items

    def __iter__(self) -> Iterator[Rounds]:
        """Yield `Rounds`, a chunk of the log at a time, each chunk split by slate length.

        Raises:
            LogError: a row that breaks a rule (order, duplicate, user, item, time, propensity),
                named by file and row.
        """
        past = self._past
        tail: Columns = {}
        done = 0
        for columns, whole in self._chunks():
            if tail:
                columns = {
                    name: np.concatenate((tail[name], column)) for name, column in columns.items()
                }
            first = None if self._before is None else self._before.steps
            before = int(tail["step"][0]) if tail else None
            starts, user_begin = _number(columns, self.by, before, first)
            ends = np.append(starts[1:], len(columns["row"]))
            fresh = starts >= done
            if not whole:  # the last request may go on in the next chunk
                fresh[-1] = False
            if fresh.any():
                yield from self._rounds(columns, starts[fresh], ends[fresh], user_begin, past)
            last = int(starts[-1])
            keep = max(int(user_begin[last]), last - past)
            tail = {name: column[keep:] for name, column in columns.items()}
            done = last - keep

    @property
    def _past(self) -> int:
        """Impressions of the past that are looked at, for a policy or for the context."""
        asked = max(self.history, self.seen or 0)
        return max(asked, _CONTEXT_PAST if self.contexts > 1 else 0)

    @cached_property
    def _before(self) -> Before | None:
        """What each user was shown before the arm began; None where the arm has no such past."""
        arms = self.log.metadata.arms
        if self.arm in (None, HISTORY) or HISTORY not in arms or not self._past:
            return None
        shape = self.log.metadata.n_users, self._past
        found = Before(
            np.zeros(shape, np.int32),
            np.zeros(shape, np.bool_),
            np.zeros(shape[0], int),
            {path: np.zeros(shape, dtype_of(path)) for path in past_of(self._columns)},
        )
        history = replace(
            self,
            reward="click",
            arm=HISTORY,
            since=None,
            history=self._past,
            seen=None,
            propensity="unknown",
            contexts=1,
            by="request",
            uniform=None,
            fit_of_user=None,
        )
        for rounds in history:
            found.add(rounds)
        return found

    @cached_property
    def _columns(self) -> dict[str, str]:
        """The columns of the log that say what policies ask for, by path."""
        has = {"t", "watch", *self.log.optional}
        named = {path: log_column(path) for path in self.context}
        return {path: name for path, name in named.items() if name in has}

    def _chunks(self) -> Iterator[tuple[Columns, bool]]:
        """The arm's rows as numpy columns, checked, and whether they are the last ones."""
        told = self._columns.values()
        names = list(dict.fromkeys([*INSPECTED, "click", self.reward, *told]))
        arm = 0 if self.arm is None else self.log.metadata.arms.index(self.arm)
        waiting: Columns | None = None
        first = 0
        for rows in self.log.inspected(names, self.chunk):
            batch = rows.batch
            columns = _arrays(batch, self.reward, self.log.metadata.key, told)
            columns["row"] = np.arange(first, first + batch.num_rows, dtype=np.int64)
            first += batch.num_rows
            mine = columns["arm"] == arm
            if not mine.all():
                columns = {name: column[mine] for name, column in columns.items()}
            if len(columns["row"]):
                if waiting is not None:
                    yield waiting, False
                waiting = columns
        if waiting is not None:
            yield waiting, True

    def _rounds(
        self, columns: Columns, starts: IntArray, ends: IntArray, begin: IntArray, past: int
    ) -> Iterator[Rounds]:
        if self.since is not None:
            inside = columns["t"][starts] >= self.since
            starts, ends = starts[inside], ends[inside]
        lengths = ends - starts
        if self.uniform is not None:
            yield from self._exposed(
                columns, np.repeat(starts, lengths), _within(starts, lengths), begin, past
            )
            return
        for length in np.unique(lengths):
            at = starts[lengths == length]
            cells = at[:, None] + np.arange(length)
            if self.by == "request":
                position = columns["position"][cells]
            else:
                position = np.tile(np.arange(length), (len(at), 1))
            yield self._made(columns, at, cells, position, begin, past)

    def _exposed(
        self, columns: Columns, starts: IntArray, rows: IntArray, begin: IntArray, past: int
    ) -> Iterator[Rounds]:
        """Rounds of one uniformly drawn impression each: `rows` `[N]`, of requests that start at
        `starts` `[N]`.
        """
        assert self.uniform is not None
        mine = columns["channel"][rows] == 1 + self.log.metadata.channels.index(
            self.uniform.channel
        )
        starts, rows = starts[mine], rows[mine]
        if len(rows):
            made = self._made(
                columns,
                starts,
                rows[:, None],
                np.zeros((len(rows), 1), dtype=np.int64),
                begin,
                past,
            )
            chance = np.full((len(rows), 1), 1.0 / self.uniform.pool)
            yield replace(made, row=columns["row"][rows], propensity=chance, kind="marginal")

    def _made(
        self,
        columns: Columns,
        at: IntArray,
        cells: IntArray,
        position: IntArray,
        begin: IntArray,
        past: int,
    ) -> Rounds:
        """Rounds of the rows `cells` `[R, K]`, shown at `position` `[R, K]` in requests that start
        at `at` `[R]`.
        """
        told = self._columns
        histories = _histories(columns, at, begin, past, self._before, told) if past else None
        t = columns["t"][at]
        return Rounds(
            columns["user"][at],
            t // DAY,
            t,
            columns["row"][at],
            position,
            columns["item"][cells],
            columns["reward"][cells],
            columns["propensity"][cells],
            self.propensity or self.log.metadata.propensity,
            (
                _levels(histories, self.contexts)
                if histories is not None
                else np.zeros(len(at), dtype=np.int64)
            ),
            self._given(histories),
            self._fit(columns, at),
            {path: columns[told[path]][cells] for path in past_of(told)},
        )

    def _fit(self, columns: Columns, at: IntArray) -> IntArray | None:
        """Which fit is asked about the requests that start at `at` `[R]`."""
        if self.fit_of_user is not None:
            return self.fit_of_user[columns["user"][at]]
        return columns[FIT][at] if FIT in columns else None

    def _given(self, histories: Histories | None) -> Histories | None:
        """What a policy is given of the past that was looked at."""
        if histories is None or not self.history:
            return None
        seen = self.history if self.seen is None else self.seen
        past, context = histories.items.shape[1], histories.context()
        for path in past_of(context):
            context[path] = context[path][:, past - self.history :]
        return replace(
            histories,
            items=histories.items[:, past - self.history :],
            clicked=histories.clicked[:, past - self.history :],
            seen=histories.seen[:, past - seen :],
        ).with_context(context)


def _within(starts: IntArray, lengths: IntArray) -> IntArray:
    """Every row of requests that start at `starts` `[R]` and have `lengths` `[R]` rows,
    `[sum of lengths]`.
    """
    before = np.cumsum(lengths) - lengths
    rows: IntArray = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
    return rows


@dataclass(frozen=True)
class Before:
    """The past of every user before an arm began.

    Attributes:
        items, clicked: `[n_users, past]` the last impressions, right-aligned, 0 = none.
        steps: `[n_users]` requests.
        told: `[n_users, past]` what else is told of these impressions, by its path.
    """

    items: npt.NDArray[np.int32]
    clicked: npt.NDArray[np.bool_]
    steps: IntArray
    told: dict[str, npt.NDArray[Any]]

    def add(self, rounds: Rounds) -> None:
        """Take in rounds of the history with what came before each; a user's last one stays,
        although rounds come ordered by length within a chunk.
        """
        assert rounds.histories is not None
        rounds = rounds.rows(rounds.histories.step + 1 > self.steps[rounds.user])
        above, past = rounds.histories, self.items.shape[1]
        if above is None or not len(rounds):
            return
        items = np.concatenate((above.items, rounds.item), axis=1)
        clicked = np.concatenate((above.clicked, rounds.reward == 1), axis=1)
        self.items[rounds.user] = items[:, -past:]
        self.clicked[rounds.user] = clicked[:, -past:]
        context = above.context()
        for path, kept in self.told.items():
            values = np.concatenate((context[path], rounds.told[path]), axis=1)
            kept[rounds.user] = values[:, -past:]
        self.steps[rounds.user] = above.step + 1


def _histories(
    columns: Columns,
    at: IntArray,
    begin: IntArray,
    past: int,
    before: Before | None,
    told: Mapping[str, str],
) -> Histories:
    """The last `past` impressions of the same user above each request, right-aligned
    `[R, past]`; above the user's first row stands what was `before`. `told` are the columns of the
    context, by path.
    """
    index = at[:, None] + np.arange(-past, 0)
    first = begin[at][:, None]
    good = index >= first
    row = np.maximum(index, 0)
    items = np.where(good, columns["item"][row], 0)
    clicked = good & (columns["click"][row] == 1)
    user = columns["user"][at]
    context = {}
    for path, name in told.items():
        values = columns[name]
        context[path] = values[at] if is_of_request(path) else np.where(good, values[row], 0)
    if before is not None:
        back = past + index - first  # right-aligned: -1 above the first row is the last column
        older = ~good & (back >= 0)
        column = np.maximum(np.minimum(back, past - 1), 0)
        items = np.where(older, before.items[user[:, None], column], items)
        clicked |= older & before.clicked[user[:, None], column]
        for path, kept in before.told.items():
            context[path] = np.where(older, kept[user[:, None], column], context[path])
    for path in past_of(told):
        context[path] = context[path].astype(dtype_of(path))
    asked = Histories(user, columns["step"][at], items, clicked, items)
    return asked.with_context(context)


_CONTEXT_PAST = 32
"""Impressions of the past over which a reward model's context (the click share) is counted."""


def _levels(histories: Histories, contexts: int) -> IntArray:
    """The click share of the last impressions, cut into `contexts` equal bands; the middle one
    where there is no past.
    """
    if contexts == 1:
        return np.zeros(len(histories), dtype=np.int64)
    shown = (histories.items[:, -_CONTEXT_PAST:] > 0).sum(axis=1)
    share = np.where(
        shown > 0, histories.clicked[:, -_CONTEXT_PAST:].sum(axis=1) / np.maximum(shown, 1), 0.5
    )
    return np.minimum((share * contexts).astype(np.int64), contexts - 1)


def _number(
    columns: Columns, by: str, step: int | None, before: IntArray | None
) -> tuple[IntArray, IntArray]:
    """Number the requests of sorted rows: adds the column `step`, the user's rounds before this
    one.

    Args:
        columns: rows of one arm in KEY order.
        by: `request` or `session`.
        step: of the first row, where it goes on from rows before; None: it opens its user.
        before: `[n_users]` rounds of each user before the arm began; None: none.

    Returns:
        Where each round starts, and for each row where its user begins.
    """
    user = columns["user"]
    opens = np.ones(len(user), dtype=bool)
    opens[1:] = user[1:] != user[:-1]
    if FIT in columns:  # the same user's next life
        opens[1:] |= columns[FIT][1:] != columns[FIT][:-1]
    request = opens.copy()
    for name in ("session", "request")[: 1 if by == "session" else 2]:
        request[1:] |= columns[name][1:] != columns[name][:-1]
    ordinal = np.cumsum(request) - 1
    begin = np.flatnonzero(opens)[np.cumsum(opens) - 1]
    first = np.zeros(len(user), dtype=np.int64) if before is None else before[user]
    if step is not None:
        first = np.where(begin == 0, step, first)
    columns["step"] = ordinal - ordinal[begin] + first
    return np.flatnonzero(request), begin


def _arrays(
    batch: pa.RecordBatch, reward: str, key: tuple[str, ...], told: Iterable[str]
) -> Columns:
    """The columns as int64 and float64, those of the log's `key` among them; `click` as -1, 0, 1;
    `reward` with NaN for not observed; those of the context that are `told` as they are.
    """
    table = pa.Table.from_batches([batch])
    columns: Columns = {name: column_values(table, name) for name in table.column_names}
    for name in (*key, "t", "item"):
        columns[name] = columns[name].astype(np.int64)
    given = columns[reward].astype(np.float64)
    columns["reward"] = given if reward == "watch" else np.where(given < 0, np.nan, given)
    columns["propensity"] = columns["propensity"].astype(np.float64)
    return {
        name: columns[name]
        for name in (*key, "t", "item", "propensity", "click", "channel", "reward", *told)
    }
