"""The report: counts by hand, words, JSON, Markdown and HTML from a log alone, and the commands that write them."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.eventlog import EventLog, Metadata
from simulator.report.counts import DAY_MS, count


def made_log(n_users: int = 300, days: int = 5, arms: tuple[str, ...] = ("comirec", "recgpt1", "recgpt"), seed: int = 3) -> EventLog:
    """A paired log: the users live in every arm with shared noise; the last arm is truly better, the one before it is equal."""
    random = np.random.default_rng(seed)
    columns: dict[str, list[np.ndarray]] = {}
    taste = random.normal(0, 0.5, n_users)
    shape = (n_users, days, 2, 2, 6)
    noise = {name: random.random(shape) for name in ("click", "long_view", "like", "comment", "forward", "follow", "watch", "item")}
    lives = np.broadcast_to((random.random((n_users, days)) < 0.8)[:, :, None, None, None], shape)
    user, day, session, request, position = np.indices(shape)
    for arm, _ in enumerate(arms):
        lift = 0.06 if arm == len(arms) - 1 and arm > 0 else 0.0
        other = np.random.default_rng((seed, arm))
        own = other.random(shape) < (0.3 if arm else 0)
        roll = {name: np.where(own, other.random(shape), v) for name, v in noise.items()}
        click = roll["click"] < 1 / (1 + np.exp(0.2 - taste[user] - lift + 0.08 * position))
        watch = np.where(roll["watch"] < 0.1, 0, np.exp(1.3 + 1.6 * click + roll["watch"])).astype(np.float32)
        given = {
            "arm": np.full(shape, arm),
            "user": user,
            "session": session + 2 * day,
            "request": request,
            "position": position,
            "t": day * DAY_MS + session * 9 * 3_600_000 + request * 60_000,
            "item": 1 + (roll["item"] * 500).astype(np.int64),
            "click": click,
            "watch": watch,
            "duration": np.full(shape, 60.0),
            "channel": (roll["item"] * 97 % 1 < 0.2).astype(np.int64),
            "long_view": click & (roll["long_view"] < 0.7),
            "like": click & (roll["like"] < 0.08),
            "comment": click & (roll["comment"] < 0.03),
            "forward": click & (roll["forward"] < 0.02),
            "follow": click & (roll["follow"] < 0.01),
        }
        for name, values in given.items():
            columns.setdefault(name, []).append(values[lives])
    scenario = {
        "name": "made",
        "seed": seed,
        "days": days,
        "arms": {name: {"policy": name, "params": {}} for name in arms},
        "published": {"comment": 0.00772, "watch_time": 0.00017},
        "design": {"kind": "paired", "control": arms[0]},
    }
    return EventLog.from_columns(
        {name: np.concatenate(parts) for name, parts in columns.items()},
        Metadata(arms, n_users, 500, control=arms[0], days=days, channels=("popular",), scenario=scenario, versions={"abtest": "0.1.0"}),
    )


@pytest.fixture(scope="session")
def log() -> EventLog:
    return made_log()


def test_counts_agree_with_pandas(log: EventLog) -> None:
    frame = log.table.to_pandas()
    frame["day"] = frame.t // DAY_MS
    found = count(log, rows=997)
    by = frame.groupby(["arm", "day"])
    assert (found.steps["impressions"] == by.size().unstack().to_numpy()).all()
    assert (found.steps["users"] == by.user.nunique().unstack().to_numpy()).all()
    for name in ("click", "like", "comment", "long_view"):
        assert (found.steps[name] == by[name].sum().unstack().to_numpy()).all()
    assert np.allclose(found.steps["watch_time"], by.watch.sum().unstack().to_numpy(), rtol=1e-6)
    requests = frame.drop_duplicates(["arm", "user", "session", "request"]).groupby(["arm", "day"]).size().unstack()
    sessions = frame.drop_duplicates(["arm", "user", "session"]).groupby(["arm", "day"]).size().unstack()
    assert (found.steps["requests"] == requests.to_numpy()).all()
    assert (found.steps["sessions"] == sessions.to_numpy()).all()
    assert (found.users == frame.groupby("arm").user.nunique().to_numpy()).all()
    assert (found.channels == frame.groupby(["arm", "channel"]).size().unstack().to_numpy()).all()


def test_counts_leave_out_the_history_and_what_was_not_observed() -> None:
    columns = {
        "user": [0, 0, 0], "session": [0, 1, 1], "request": [0, 0, 0], "position": [0, 0, 1],
        "t": [-5, 10, 10], "item": [1, 2, 3], "click": np.array([1, -1, 1], dtype=np.int8), "watch": [3.0, np.nan, 0.0],
    }  # fmt: skip
    found = count(EventLog.from_columns(columns, Metadata(("a",), 1, 3, days=1)))
    assert found.steps["impressions"].sum() == 2
    assert found.steps["click"].sum() == found.observed["click"].sum() == 1
    assert found.steps["play"].sum() == 0
    assert found.observed["watch_time"].sum() == 1
