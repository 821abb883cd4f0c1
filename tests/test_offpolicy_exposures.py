"""Random exposures in a feed whose own propensities are unknown (KuaiRand's is_rand = 1): their
truth is known, and is found.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from policies.base import Catalogue, Fitting
from policies.popularity import Popularity
from policies.time import DAY
from simulator.cli.replay import replay as command
from simulator.datasets import kuairand
from simulator.datasets.kuairand import LOG
from simulator.log.eventlog import EventLog
from simulator.log.metadata import LogError, Metadata
from simulator.offpolicy.replay import ReplaySettings, evaluate
from simulator.offpolicy.rounds import Stream, Uniform
from simulator.offpolicy.target import PolicyTargets, alone
from simulator.scenario.parts import Data

USERS, VIDEOS, DAYS = 250, 40, 6
QUALITY = np.linspace(0.1, 0.7, VIDEOS)
DAWN = 1_650_816_000_000  # 2022-04-25 00:00 in China


def rows(random: np.random.Generator, *, uniform: bool, per_day: int) -> np.ndarray:
    """Log rows in the published columns: uniform exposures, or a feed that prefers good videos and
    users who like them there.
    """
    n = USERS * DAYS * per_day
    user, day = (
        np.repeat(np.arange(USERS), DAYS * per_day) + 1000,
        np.tile(np.repeat(np.arange(DAYS), per_day), USERS),
    )
    taste = np.exp(6 * QUALITY)
    video = (
        random.integers(0, VIDEOS, n)
        if uniform
        else random.choice(VIDEOS, n, p=taste / taste.sum())
    )
    rate = QUALITY[video] + (
        0.0 if uniform else 0.25
    )  # the feed shows a video to those who like it
    click = (random.uniform(size=n) < rate).astype(int)
    t = DAWN + day * DAY + random.integers(0, DAY, n)
    columns = dict.fromkeys(LOG, np.zeros(n, dtype=np.int64)) | {
        "user_id": user,
        "video_id": video,
        "date": np.full(n, 20220425),
        "time_ms": t,
        "is_click": click,
        "long_view": click,
        "play_time_ms": click * 9000,
        "duration_ms": np.full(n, 12_000),
        "is_rand": np.full(n, int(uniform)),
        "tab": np.ones(n, dtype=int),
    }
    return np.stack([columns[name] for name in LOG], axis=1)


@pytest.fixture(scope="module")
def kuairand_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder named and filled as the publishers do it."""
    root = tmp_path_factory.mktemp("kuairand")
    random = np.random.Generator(np.random.Philox(key=31))
    for name, uniform, per_day in (
        ("log_standard_4_25_to_4_30_pure", False, 12),
        ("log_random_4_25_to_4_30_pure", True, 12),
    ):
        lines = [
            ",".join(map(str, row))
            for row in rows(random, uniform=uniform, per_day=per_day).tolist()
        ]
        with gzip.open(root / f"{name}.csv.gz", "wt") as file:
            file.write("\n".join([",".join(LOG), *lines, ""]))
    return root


def test_the_random_exposures_are_replayed_with_the_propensities_that_they_have(
    kuairand_folder: Path, tmp_path: Path
) -> None:
    arguments = [
        str(kuairand_folder),
        "--policy",
        "popularity",
        "--recall",
        "8",
        "--history",
        "4",
        "--out",
        str(tmp_path),
        "--quiet",
    ]
    done = CliRunner().invoke(command, [*arguments, "--resamples", "200"])
    assert done.exit_code == 0, done.output
    feed, drawn = json.loads((tmp_path / "replay.json").read_text())
    assert (feed["propensity"], drawn["propensity"]) == ("unknown", "marginal")
    assert drawn["title"].endswith("uniformly drawn impressions")
    assert f"drawn uniformly from {VIDEOS} items" in drawn["notes"]["propensities"]
    assert drawn["rounds"] == USERS * 2 * 12
    biased, fair = (
        {row["estimator"]: row for row in one["policies"][0]["estimates"]} for one in (feed, drawn)
    )
    assert all(
        row["refused"]
        for name, row in biased.items()
        if name not in ("matching", "recalled", "cips", "cdr")
    )
    assert biased["recalled"]["verdict"] == "weak"
    # popularity shows the best of the videos that the user has not seen among the last 4: its
    # candidates are the 8 to 12 best
    assert fair["recalled"]["low"] < QUALITY[-9:].mean() + 0.03
    assert fair["recalled"]["high"] > QUALITY[-12:].mean() - 0.03
    assert fair["recalled"]["verdict"] == "trustworthy"
    assert (
        biased["recalled"]["low"] > fair["recalled"]["high"]
    )  # the feed's own choice, not the policy's worth
    assert QUALITY[-5] - 0.05 < fair["dm"]["value"] < QUALITY[-1] + 0.05
    for name in ("ips", "snips", "dr", "matching"):
        assert fair[name]["low"] < QUALITY[-1] + 0.02, name
        assert fair[name]["high"] > QUALITY[-5], name
    weights = drawn["policies"][0]["diagnostics"]["weights"]
    assert weights["low"] < 1 < weights["high"]


def test_a_uniform_stream_is_the_literal_reading(kuairand_folder: Path) -> None:
    found = kuairand.read(
        Data.model_validate({"source": "kuairand", "path": str(kuairand_folder), "test_days": 2}),
        kuairand_folder,
    )
    assert found.future is not None
    log = found.future
    stream = Stream(log, history=3, chunk=97, uniform=Uniform("random", VIDEOS))
    table = log.table.to_pydict()
    want = [i for i, channel in enumerate(table["channel"]) if channel == 1]
    got = [
        (int(r.row[i]), int(r.item[i, 0]), float(r.reward[i, 0]), r.histories.items[i].tolist())
        for r in stream
        for i in range(len(r))
    ]  # type: ignore[union-attr]
    assert [row for row, *_ in got] == want
    for row, item, reward, past in got:
        assert (item, reward) == (table["item"][row], float(table["click"][row]))
        key = (table["user"][row], table["session"][row], table["request"][row])
        mine = [i for i in range(max(0, row - 20), row) if table["user"][i] == key[0]]
        above = [
            table["item"][i]
            for i in mine
            if (table["user"][i], table["session"][i], table["request"][i]) != key
        ][-3:]
        assert [item for item in past if item] == above


def test_what_is_certain_is_found_exactly() -> None:
    """Every item equally often, the two most popular ones clicked always, the others never."""
    n_items = 5
    item = np.tile(np.arange(1, n_items + 1), 400)
    n = len(item)
    log = EventLog.from_columns(
        {
            "user": np.arange(n) // 10,
            "session": np.arange(n) % 10,
            "request": np.zeros(n, int),
            "position": np.zeros(n, int),
            "t": np.arange(n) * 10,
            "item": item,
            "click": (item >= 4).astype(np.int8),
            "channel": np.ones(n, int),
        },
        Metadata(("history",), n // 10, n_items, channels=("random",)),
    )
    policy = Popularity().fit(log.sequences(), Catalogue(n // 10, n_items), Fitting())
    stream = Stream(log, history=1, uniform=Uniform("random", n_items))
    (found,) = evaluate(
        stream,
        [PolicyTargets("popularity", alone("popularity", policy, n_items, 1))],
        n // 10,
        n_items,
        ReplaySettings(resamples=20),
    )
    assert found.facts.uniform
    for name in ("matching", "snips", "recalled"):
        assert found[name].value == pytest.approx(1.0)
    with pytest.raises(LogError, match="no channel 'lucky' in this log; it has \\['random'\\]"):
        Stream(log, uniform=Uniform("lucky", 5))
