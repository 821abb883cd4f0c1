"""Stream against a slow literal reading of the same log: any chunk, any parts; every broken row is
named by file and row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.base import Histories
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import FIT, LogError, Metadata
from simulator.offpolicy.rounds import Rounds, Stream, Uniform, _levels, _number, _within

N_USERS, N_ITEMS, PAST = 40, 30, 9


def columns(seed: int = 3) -> dict[str, np.ndarray]:
    """A log of two arms; sessions of 1-4 requests of 1-4 places; some clicks not observed."""
    random = np.random.Generator(np.random.Philox(key=seed))
    rows: list[tuple[int, ...]] = []
    for arm in range(2):
        for user in range(N_USERS):
            t = int(random.integers(-3 * DAY, -2 * DAY))
            for session in range(int(random.integers(0, 5))):
                for request in range(int(random.integers(1, 5))):
                    t += int(random.integers(1, DAY // 2))
                    items = random.permutation(N_ITEMS)[: int(random.integers(1, 5))] + 1
                    rows += [
                        (arm, user, session, request, place, t, int(item))
                        for place, item in enumerate(items)
                    ]
    table = np.array(rows)
    named = {
        name: table[:, i]
        for i, name in enumerate(("arm", "user", "session", "request", "position", "t", "item"))
    }
    named["click"] = random.integers(-1, 2, len(rows)).astype(np.int8)
    named["watch"] = random.uniform(0, 9, len(rows))
    named["propensity"] = random.uniform(0.01, 1, len(rows))
    return named


META = Metadata(("a", "b"), N_USERS, N_ITEMS, "conditional")


@pytest.fixture(scope="module")
def log() -> EventLog:
    return EventLog.from_columns(columns(), META)


def literal(log: EventLog, arm: int, since: int | None, by: str) -> Iterator[dict[str, Any]]:
    """One mapping for each round, by walking over the rows."""
    rows = log.table.to_pylist()
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if row["arm"] == arm:
            key = (
                (row["user"], row["session"], row["request"])
                if by == "request"
                else (row["user"], row["session"])
            )
            groups.setdefault(key, []).append(i)
    step: dict[int, int] = {}
    for key, where in groups.items():
        first, user = where[0], key[0]
        number = step.get(user, 0)
        step[user] = number + 1
        if since is not None and rows[first]["t"] < since:
            continue
        past = [i for i in range(first) if rows[i]["user"] == user and rows[i]["arm"] == arm][
            -PAST:
        ]
        yield {
            "row": first,
            "user": user,
            "step": number,
            "items": [rows[i]["item"] for i in where],
            "reward": [rows[i]["click"] for i in where],
            "propensity": [rows[i]["propensity"] for i in where],
            "past": [rows[i]["item"] for i in past],
            "clicked": [rows[i]["click"] is True for i in past],
        }


def collected(rounds: Iterator[Rounds]) -> list[dict[str, Any]]:
    out = []
    for chunk in rounds:
        assert chunk.histories is not None
        for i in range(len(chunk)):
            kept = chunk.histories.items[i] > 0
            reward = [None if np.isnan(r) else bool(r) for r in chunk.reward[i]]
            out.append(
                {
                    "row": int(chunk.row[i]),
                    "user": int(chunk.user[i]),
                    "step": int(chunk.histories.step[i]),
                    "items": chunk.item[i].tolist(),
                    "reward": reward,
                    "propensity": chunk.propensity[i].tolist(),
                    "past": chunk.histories.items[i][kept].tolist(),
                    "clicked": chunk.histories.clicked[i][kept].tolist(),
                }
            )
    return sorted(out, key=lambda one: one["row"])


@pytest.mark.parametrize("by", ["request", "session"])
@pytest.mark.parametrize("since", [None, -DAY])
@pytest.mark.parametrize("chunk", [1, 7, 100, 1 << 18])
def test_a_stream_is_the_literal_reading(
    log: EventLog, chunk: int, since: int | None, by: Any
) -> None:
    for arm, name in enumerate(("a", "b")):
        found = collected(iter(Stream(log, "click", name, since, PAST, chunk, by=by)))
        assert found == list(literal(log, arm, since, by))


def test_parts_on_disk_give_the_same_rounds(log: EventLog, tmp_path: Path) -> None:
    table = log.table
    cut = table.num_rows // 3 + 1  # in the middle of a request, as a cut by size would
    EventLog(META, table.slice(0, cut)).write(tmp_path / "part-0.parquet", row_group=50)
    EventLog(META, table.slice(cut)).write(tmp_path / "part-1.parquet", row_group=50)
    stored = EventLog.open(tmp_path)
    assert collected(iter(Stream(stored, "click", "a", None, PAST, 64))) == collected(
        iter(Stream(log, "click", "a", None, PAST))
    )


def test_rewards_are_what_the_column_says(log: EventLog) -> None:
    total = sum(float(r.reward.sum()) for r in Stream(log, "watch", "b"))
    assert total == pytest.approx(
        float(np.sum(columns()["watch"][columns()["arm"] == 1])), rel=1e-6
    )


def test_contexts_are_bands_of_the_past_click_share(log: EventLog) -> None:
    for rounds in Stream(log, "click", "a", history=PAST, contexts=3):
        assert rounds.histories is not None
        shown = (rounds.histories.items > 0).sum(axis=1)
        assert set(rounds.context[shown == 0].tolist()) <= {1}
        whole = (shown > 0) & (shown < PAST)  # the history given is all there is
        share = rounds.histories.clicked.sum(axis=1)[whole] / shown[whole]
        np.testing.assert_array_equal(rounds.context[whole], np.minimum((share * 3).astype(int), 2))


def test_a_context_looks_back_over_32_impressions() -> None:
    n, bands = 200, 64
    click = np.random.Generator(np.random.Philox(key=6)).integers(0, 2, n)
    log = EventLog.from_columns(
        {
            "user": np.zeros(n, dtype=int),
            "session": np.arange(n),
            "request": np.zeros(n, dtype=int),
            "position": np.zeros(n, dtype=int),
            "t": np.arange(n),
            "item": np.ones(n, dtype=int),
            "click": click.astype(np.int8),
        },
        Metadata(("history",), 1, 1),
    )
    (rounds,) = Stream(log, contexts=bands)
    shares = [0.5] + [click[max(0, i - 32) : i].mean() for i in range(1, n)]
    assert rounds.context.tolist() == [min(int(share * bands), bands - 1) for share in shares]


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("item", 11, N_ITEMS + 1, "row 11: item must be an item of 1..30; got 31"),
        ("item", 4, 0, "row 4: item must be an item of 1..30; got 0"),
        ("user", 200, N_USERS, "row 200: user must be a user of 0..39; got 40"),
        (
            "propensity",
            17,
            1.5,
            "row 17: propensity must be a probability in (0, 1] or null; got 1.5",
        ),
        (
            "propensity",
            17,
            0.0,
            "row 17: propensity must be a probability in (0, 1] or null; got 0.0",
        ),
    ],
)
def test_a_bad_value_is_named_by_file_and_row(
    tmp_path: Path, column: str, row: int, value: float, message: str
) -> None:
    broken = columns()
    broken[column][row] = value
    file = EventLog.from_columns(broken, META, sort=False).write(tmp_path / "log.parquet")
    with pytest.raises(LogError) as raised:
        list(Stream(EventLog.open(file), "click", "a", chunk=8))
    assert str(raised.value) == f"{file}: {message}"


def test_an_unsorted_a_repeated_and_a_backward_row_are_named(tmp_path: Path) -> None:
    good = columns()
    for name, change, words in (
        ("twice", lambda c: {k: np.insert(v, 21, v[20]) for k, v in c.items()}, "row 21: key"),
        (
            "swapped",
            lambda c: {k: v[[*range(30), 31, 30, *range(32, len(v))]] for k, v in c.items()},
            "row 31: key",
        ),
        (
            "back",
            lambda c: {
                **c,
                "t": np.where(np.arange(len(c["t"])) == 25, c["t"] - 10 * DAY, c["t"]),
            },
            "row 25: t =",
        ),
    ):
        file = EventLog.from_columns(
            change({k: v.copy() for k, v in good.items()}), META, sort=False
        ).write(tmp_path / f"{name}.parquet")
        with pytest.raises(LogError, match=words) as raised:
            list(Stream(EventLog.open(file), "click", "a", chunk=10))
        assert str(raised.value).startswith(str(file))


def test_what_a_stream_cannot_read_is_said(log: EventLog) -> None:
    for how, message in (
        (("like", "a"), "reward 'like': the log has ['click', 'watch']"),
        (("item", "a"), "reward 'item': the log has ['click', 'watch']"),
        (("click",), "this log has the arms ['a', 'b']; say which one wrote the rounds"),
        (("click", "c"), "no arm 'c' in this log; it has ['a', 'b']"),
    ):
        with pytest.raises(LogError) as error:
            Stream(log, *how)
        assert str(error.value) == message
    with pytest.raises(LogError) as error:
        Stream(log, "click", "a", uniform=Uniform("random", 9))
    assert str(error.value) == "no channel 'random' in this log; it has []"
    plain = Stream(log, "click", "a")
    assert (plain.since, plain.history, plain.seen, plain.chunk) == (None, 0, None, 262_144)
    assert (plain.contexts, plain.by, plain.context, plain.n_items) == (1, "request", (), N_ITEMS)


# Of an arm that begins in a history, with what else is told of requests and impressions.

NAMES = ("arm", "user", "session", "request", "position", "t", "item", "click", "watch", "like")
ROWS = [
    (0, 0, 0, 0, 0, -90, 1, 1, 1.5, 1),
    (0, 0, 0, 0, 1, -90, 2, 0, 2.5, 0),
    (0, 0, 0, 1, 0, -80, 3, 1, 3.5, -1),
    (0, 2, 0, 0, 0, -70, 4, -1, np.nan, 1),
    (1, 0, 1, 0, 0, 10, 5, 0, 4.5, 1),
    (1, 0, 1, 0, 1, 10, 6, 1, np.nan, 0),
    (1, 0, 1, 1, 0, 20, 7, 1, 6.5, -1),
    (1, 0, 2, 0, 0, 30, 8, 1, 7.5, 1),
    (1, 1, 0, 0, 0, 40, 1, 0, 8.5, 0),
    (1, 1, 0, 1, 0, 50, 2, 1, 9.5, 1),
    (1, 2, 1, 0, 0, 60, 3, 0, 0.5, 1),
]
CONTEXT = ("time", "times", "watch", "reactions.like", "reactions.follow")
"""The log knows nothing of `follow`, so it is left out."""


def told_log() -> EventLog:
    columns = dict(zip(NAMES, map(np.array, zip(*ROWS, strict=True)), strict=True))
    for name in ("click", "like"):
        columns[name] = columns[name].astype(np.int8)
    return EventLog.from_columns(columns, Metadata(("history", "x"), 3, 9))


def of_request(first: int, past: int) -> dict[str, Any]:
    """What is known of the request that starts at a row, from all rows of its user before it."""
    user = ROWS[first][1]
    above = [row for row in ROWS[:first] if row[1] == user][-past:]
    fill = [(0,) * len(NAMES)] * (past - len(above))
    rows = fill + above
    return {
        "items": [row[6] for row in rows],
        "clicked": [row[7] == 1 for row in rows],
        "time": ROWS[first][5],
        "times": [row[5] for row in rows],
        "watch": [row[8] for row in rows],
        "reactions.like": [row[9] for row in rows],
    }


@pytest.mark.parametrize("chunk", [1, 2, 3, 99])
@pytest.mark.parametrize(("history", "seen"), [(4, None), (2, 5), (5, 2)])
def test_a_past_is_that_of_the_user_in_the_history_and_in_the_arm(
    chunk: int, history: int, seen: int | None
) -> None:
    stream = Stream(told_log(), "watch", "x", history=history, seen=seen, chunk=chunk,
                    context=CONTEXT)  # fmt: skip
    got = {}
    for rounds in stream:
        asked = rounds.histories
        assert asked is not None
        context = asked.context()
        assert sorted(context) == sorted(CONTEXT[:-1])
        assert context["times"].dtype == np.int64
        assert context["watch"].dtype == np.float32
        assert context["reactions.like"].dtype == np.int8
        assert asked.seen.shape[1] == (history if seen is None else seen)
        for i, row in enumerate(rounds.row):
            got[int(row)] = {"items": asked.items[i], "clicked": asked.clicked[i],
                             "seen": asked.seen[i], "step": asked.step[i],
                             **{path: one[i] for path, one in context.items()}}  # fmt: skip
            first = int(row)
            length = rounds.length
            told = [list(one[i]) for one in (rounds.told["watch"], rounds.told["reactions.like"])]
            np.testing.assert_array_equal(told[0], [r[8] for r in ROWS[first : first + length]])
            assert told[1] == [r[9] for r in ROWS[first : first + length]]
            np.testing.assert_array_equal(rounds.reward[i], told[0])
    # User 0 asked twice before the arm began, user 2 once, user 1 never.
    steps = {4: 2, 6: 3, 7: 4, 8: 0, 9: 1, 10: 1}
    assert sorted(got) == list(steps)
    for row, step in steps.items():
        want = of_request(row, history)
        assert got[row].pop("step") == step
        wide = of_request(row, history if seen is None else seen)["items"]
        assert got[row].pop("seen").tolist() == wide
        for name, value in want.items():
            np.testing.assert_array_equal(got[row][name], value, err_msg=f"{row} {name}")


def test_rewards_that_were_not_observed_are_nan_and_days_are_whole() -> None:
    rewards = {
        name: np.concatenate([one.reward.ravel() for one in Stream(told_log(), name, "history")])
        for name in ("click", "like", "watch")
    }
    assert np.isnan(rewards["click"]).sum() == 1
    assert np.nansum(rewards["click"]) == 2
    assert (np.isnan(rewards["like"]).sum(), np.nansum(rewards["like"])) == (1, 2)
    assert (np.isnan(rewards["watch"]).sum(), np.nansum(rewards["watch"])) == (1, 7.5)
    for since, n in ((None, 6), (20, 5), (21, 4)):
        found = [one for rounds in Stream(told_log(), "click", "x", since) for one in rounds.row]
        assert len(found) == n
    (days,) = {one.day.tolist()[0] for one in Stream(told_log(), "click", "history")}
    assert days == -1
    assert next(iter(Stream(told_log(), "click", "x"))).day.tolist() == [0] * 5


def test_a_fit_is_that_of_the_user_and_propensities_may_be_said_to_be_others() -> None:
    fit = np.array([3, 1, 2])
    stream = Stream(told_log(), "click", "x", fit_of_user=fit, propensity="marginal")
    for rounds in stream:
        assert rounds.fit is not None
        assert rounds.fit.tolist() == fit[rounds.user].tolist()
        assert rounds.kind == "marginal"
        assert rounds.histories is None
        assert not rounds.context.any()
    (one, *_) = Stream(told_log(), "click", "x")
    assert (one.fit, one.kind) == (None, "unknown")


def test_a_session_is_one_round_with_places_of_its_own() -> None:
    got = {}
    for rounds in Stream(told_log(), "click", "x", history=2, by="session"):
        assert rounds.histories is not None
        for i, row in enumerate(rounds.row):
            step = int(rounds.histories.step[i])
            of_round = (one[i].tolist() for one in (rounds.position, rounds.item))
            got[int(row)] = (*of_round, rounds.histories.items[i].tolist(), step)
    assert got[4][:3] == ([0, 1, 2], [5, 6, 7], [2, 3])
    assert got[7][:3] == ([0], [8], [6, 7])
    assert got[8][:3] == ([0, 1], [1, 2], [0, 0])
    assert [got[row][3] - got[4][3] for row in (4, 7)] == [0, 1]


def test_levels_of_the_past_are_bands_of_its_click_share() -> None:
    items = np.array([[0, 0, 0], [0, 1, 2], [1, 2, 3], [1, 2, 3]])
    clicked = np.array([[0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]], bool)
    zero = np.zeros(4, int)
    asked = Histories(zero, zero, items, clicked, items)
    assert _levels(asked, 4).tolist() == [2, 2, 3, 0]
    assert _levels(asked, 1).tolist() == [0, 0, 0, 0]
    assert _levels(asked, 2).tolist() == [1, 1, 1, 0]


def test_requests_are_numbered_from_where_the_last_rows_ended() -> None:
    columns = {
        "user": np.array([0, 0, 0, 2, 2]), "session": np.array([0, 0, 1, 1, 1]),
        "request": np.array([0, 1, 1, 1, 1]), FIT: np.array([0, 0, 0, 0, 1]),
    }  # fmt: skip
    for by, step, before, want in (
        ("request", None, None, ([0, 1, 2, 3, 4], [0, 1, 2, 0, 0])),
        ("session", None, None, ([0, 2, 3, 4], [0, 0, 1, 0, 0])),
        ("request", 7, None, ([0, 1, 2, 3, 4], [7, 8, 9, 0, 0])),
        ("request", None, np.array([4, 5, 6]), ([0, 1, 2, 3, 4], [4, 5, 6, 6, 6])),
        ("request", 7, np.array([4, 5, 6]), ([0, 1, 2, 3, 4], [7, 8, 9, 6, 6])),
    ):
        mine = dict(columns)
        starts, begin = _number(mine, by, step, before)
        assert (starts.tolist(), mine["step"].tolist()) == want
        assert begin.tolist() == [0, 0, 0, 3, 4]
    once = {name: one for name, one in columns.items() if name != FIT}
    assert _number(once, "request", None, None)[0].tolist() == [0, 1, 2, 3]


def test_rows_of_requests_are_counted_one_after_the_other() -> None:
    got = _within(np.array([3, 10, 20]), np.array([2, 1, 3]))
    assert got.tolist() == [3, 4, 10, 20, 21, 22]


def test_uniform_impressions_are_rounds_of_their_own() -> None:
    columns = dict(zip(NAMES, map(np.array, zip(*ROWS, strict=True)), strict=True))
    columns["channel"] = np.array([0, 2, 2, 0, 2, 1, 2, 0, 1, 2, 2])
    for name in ("click", "like"):
        columns[name] = columns[name].astype(np.int8)
    log = EventLog.from_columns(
        columns, Metadata(("history", "x"), 3, 9, channels=("own", "random"))
    )
    for chunk in (1, 3, 99):
        stream = Stream(log, "click", "x", history=3, chunk=chunk, uniform=Uniform("random", 40))
        every = [one for one in stream if len(one)]
        rows = np.concatenate([one.row for one in every])
        assert rows.tolist() == [4, 6, 9, 10]
        assert np.concatenate([one.item for one in every]).tolist() == [[5], [7], [2], [3]]
        assert not np.concatenate([one.position for one in every]).any()
        assert set(np.concatenate([one.propensity for one in every]).ravel()) == {1 / 40}
        assert {one.kind for one in every} == {"marginal"}
        past = np.concatenate([one.histories.items for one in every])  # type: ignore[union-attr]
        assert past.tolist() == [[1, 2, 3], [3, 5, 6], [0, 0, 1], [0, 0, 4]]
