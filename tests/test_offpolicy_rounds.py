"""Stream against a slow literal reading of the same log: any chunk, any parts; every broken row is
named by file and row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import LogError, Metadata
from simulator.offpolicy.rounds import Rounds, Stream

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
    with pytest.raises(LogError, match="reward 'like': the log has"):
        Stream(log, "like", "a")
    with pytest.raises(LogError, match="say which one wrote"):
        Stream(log, "click")
    with pytest.raises(LogError, match="no arm 'c'"):
        Stream(log, "click", "c")
