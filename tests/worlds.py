"""The small worlds that tests share: logs whose numbers are known, scenarios, users and a model.

No test file imports another (`test_worlds.py` holds it): what two of them need stands here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
import yaml

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences
from policies.check import check_policy
from policies.products import matmul
from policies.scored import Scored
from policies.streams import Purpose, philox
from policies.time import DAY
from recgpt.model import GPT, Shape
from simulator.log.eventlog import EventLog
from simulator.log.fit_values import FitValues
from simulator.log.metadata import FIT, HISTORY, Metadata
from simulator.log.metrics import METRICS
from simulator.report.content import Content, Size, Verdict
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats.checks import Check
from simulator.stats.choices import Choices
from simulator.stats.user_days import UserDays
from simulator.stats.verdict import Lift
from simulator.users.base import Source

# Logs.


def hand_counted_log(**changes: object) -> EventLog:
    """Arms a and b, three users, two days. User 0 in a: two sessions on day 0, one on day 1; user 1
    in a: day 1 only; user 2: none.
    """
    rows = [
        # arm user session request position t click watch comment
        (1, 0, 0, 0, 0, 10, 1, 3.0, 0),
        (1, 0, 0, 0, 1, 10, 0, 0.0, -1),
        (1, 0, 0, 1, 0, 20, -1, np.nan, 0),
        (1, 0, 1, 0, 0, 30, 1, 1.5, 1),
        (1, 0, 2, 0, 0, DAY + 5, 1, 2.0, 0),
        (1, 1, 0, 0, 0, DAY, 0, 0.5, 0),
        (2, 0, 0, 0, 0, 10, 0, 0.0, 0),
        (2, 1, 0, 0, 1, 2 * DAY - 1, 1, 4.0, 1),
        (2, 1, 0, 0, 2, 2 * DAY, 1, 9.0, 1),
        (0, 0, 0, 0, 0, -5, 1, 7.0, 0),
    ]
    names = ("arm", "user", "session", "request", "position", "t", "click", "watch", "comment")
    columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    columns["click"] = columns["click"].astype(np.int8)
    columns["comment"] = columns["comment"].astype(np.int8)
    columns["item"] = np.ones(len(rows), dtype=int)
    given = {"arms": ("history", "a", "b"), "n_users": 3, "n_items": 1, "days": 2} | changes
    return EventLog.from_columns(columns, Metadata(**given))  # type: ignore[arg-type]


def paired_log(n_users: int = 400, days: int = 5, lift: float = 0.05, seed: int = 0) -> EventLog:
    """Arms a and b over the same users, with a history; users differ, half of the noise is shared
    by the arms.
    """
    columns: dict[str, list[np.ndarray]] = {}
    rng = np.random.default_rng(seed)
    rate, taste = rng.gamma(2.0, 4.0, n_users), rng.beta(3, 5, n_users)
    for arm in range(3):
        own = np.random.default_rng([seed, arm])
        for day in range(-3, 0) if arm == 0 else range(days):
            shared = np.random.default_rng([seed, 100 + day])
            n = shared.poisson(rate)
            user = np.repeat(np.arange(n_users), n)
            k = len(user)
            noise = np.where(shared.random(k) < 0.5, shared.random(k), own.random(k))
            click = noise < taste[user] * (1 + lift * (arm == 2))
            index = np.arange(k) - np.repeat(np.cumsum(n) - n, n)
            part = {
                "arm": np.full(k, arm),
                "user": user,
                "session": np.full(k, day + 3),
                "request": index,
                "position": np.zeros(k, dtype=int),
                "t": day * DAY + index,
                "item": np.ones(k, dtype=int),
                "click": click,
                "watch": np.where(click, shared.lognormal(3, 1, k), 0),
            }
            for name, values in part.items():
                columns.setdefault(name, []).append(values)
    meta = Metadata(("history", "a", "b"), n_users, 1, days=days, control="a")
    return EventLog.from_columns(
        {name: np.concatenate(parts) for name, parts in columns.items()}, meta
    )


def feedback_log(
    n_users: int = 300,
    days: int = 5,
    arms: tuple[str, ...] = ("comirec", "recgpt1", "recgpt"),
    seed: int = 3,
) -> EventLog:
    """A paired log: the users live in every arm with shared noise; the last arm is truly better,
    the one before it is equal.
    """
    random = np.random.default_rng(seed)
    columns: dict[str, list[np.ndarray]] = {}
    taste = random.normal(0, 0.5, n_users)
    shape = (n_users, days, 2, 2, 6)
    noise = {
        name: random.random(shape)
        for name in ("click", "long_view", "like", "comment", "forward", "follow", "watch", "item")
    }
    lives = np.broadcast_to((random.random((n_users, days)) < 0.8)[:, :, None, None, None], shape)
    user, day, session, request, position = np.indices(shape)
    for arm, _ in enumerate(arms):
        lift = 0.06 if arm == len(arms) - 1 and arm > 0 else 0.0
        other = np.random.default_rng((seed, arm))
        own = other.random(shape) < (0.3 if arm else 0)
        roll = {name: np.where(own, other.random(shape), v) for name, v in noise.items()}
        click = roll["click"] < 1 / (1 + np.exp(0.2 - taste[user] - lift + 0.08 * position))
        watch = np.where(roll["watch"] < 0.1, 0, np.exp(1.3 + 1.6 * click + roll["watch"])).astype(
            np.float32
        )
        given = {
            "arm": np.full(shape, arm),
            "user": user,
            "session": session + 2 * day,
            "request": request,
            "position": position,
            "t": day * DAY + session * 9 * 3_600_000 + request * 60_000,
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
        Metadata(
            arms,
            n_users,
            500,
            control=arms[0],
            days=days,
            channels=("popular",),
            scenario=scenario,
            versions={"abtest": "0.1.0"},
        ),
    )


def with_fits(log: EventLog, number: int) -> EventLog:
    """The log as if its users had been divided over fits of every arm."""
    arms = {name: {} for name in log.metadata.arms if name != HISTORY}
    scenario = {"seed": 0, **log.metadata.scenario, "fits": {"number": number}, "arms": arms}
    meta = dataclasses.replace(log.metadata, scenario=scenario)
    user = log.table["user"].to_numpy().astype(np.int64)
    fit = meta.fits.fit_of_user(scenario["seed"], user, number)
    fit = np.where(log.table["t"].to_numpy() < 0, 0, fit)
    column = pa.array(fit.astype(np.uint8))
    return EventLog(meta, log.table.append_column(pa.field(FIT, pa.uint8(), False), column))


def switchback_log(arm_of_day: list[int], plays: np.ndarray) -> EventLog:
    """`plays` `[users, days]` impressions, each watched one second, a click on the first of a
    day.
    """
    user, day = (np.repeat(index.ravel(), plays.ravel()) for index in np.indices(plays.shape))
    within = (
        np.concatenate([np.arange(n) for n in plays.ravel()])
        if plays.sum()
        else np.zeros(0, dtype=int)
    )
    columns = {
        "arm": np.array(arm_of_day)[day],
        "user": user,
        "session": day,
        "request": within,
        "position": np.zeros_like(day),
        "t": day * DAY + within,
        "item": np.ones_like(day),
        "click": within == 0,
        "watch": np.ones(len(day)),
    }
    scenario = {"design": {"kind": "switchback"}, "seed": 1}
    meta = Metadata(
        ("a", "b"), plays.shape[0], 1, days=plays.shape[1], control="a", scenario=scenario
    )
    return EventLog.from_columns(columns, meta)


def team_draft(
    first: np.ndarray, second: np.ndarray, k: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """(item, team) of a slate drafted from two rankings: the shorter team picks next, a coin
    decides ties (Radlinski et al. 2008).
    """
    slate: list[tuple[int, int]] = []
    taken: set[int] = set()
    sizes = [0, 0]
    while len(slate) < k:
        team = int(rng.integers(2)) if sizes[0] == sizes[1] else int(sizes[1] < sizes[0])
        item = next(i for i in (first, second)[team] if i not in taken)
        slate.append((int(item), team))
        taken.add(int(item))
        sizes[team] += 1
    return slate


def interleaved_log(n_users: int, skill: float, seed: int = 0) -> EventLog:
    """Two policies rank 30 items whose click chance falls by rank; the second sees the truth
    through less noise as `skill` grows.
    """
    rng = np.random.default_rng(seed)
    chance = np.concatenate(([0.0], np.linspace(0.5, 0.05, 30)))
    rows: dict[str, list[int]] = {
        name: [] for name in ("arm", "user", "request", "position", "item", "click")
    }
    for user in range(n_users):
        for request in range(4):
            rankings = [
                1 + np.argsort(-(chance[1:] + rng.normal(0, sd, 30)))
                for sd in (0.3, 0.3 * (1 - skill))
            ]
            for position, (item, team) in enumerate(team_draft(*rankings, 6, rng)):
                found = (team, user, request, position, item, int(rng.random() < chance[item]))
                for name, value in zip(rows, found, strict=True):
                    rows[name].append(value)
    columns = {name: np.array(column) for name, column in rows.items()} | {
        "session": np.zeros(len(rows["arm"]), dtype=int)
    }
    columns["t"] = columns["request"]
    columns["click"] = columns["click"].astype(np.int8)
    scenario = {"design": {"kind": "interleave"}}
    return EventLog.from_columns(
        columns, Metadata(("a", "b"), n_users, 30, days=1, control="a", scenario=scenario)
    )


TASTED = 900, 3
"""Users and days of `days_by_taste`."""

TASTE_METRICS = ("click", "watch_time", "click_rate", "return")


def days_by_taste(*, split: bool, with_past: bool = True) -> UserDays:
    """Users of two arms, whose values go with their past."""
    n, days = TASTED
    random = np.random.default_rng(3)
    taste = random.gamma(2.0, 1.0, n)
    shown = random.poisson(3.0 * taste[None, :, None], (2, n, days)).astype(np.int16)
    click = random.binomial(shown, 0.4).astype(np.int8)
    watch = click * random.exponential(20.0, shown.shape)
    metrics = {name: METRICS[name] for name in TASTE_METRICS}
    terms = {"impressions": shown, "click": click}
    terms |= {t.name: watch for t in metrics["watch_time"].terms}
    terms |= {t.name: shown for t in metrics["return"].terms}
    before: dict[str, Any] = {"impressions": np.zeros(n, np.int8)}
    if with_past:
        old = random.poisson(5.0 * taste) * (random.random(n) < 0.8)
        before = {"impressions": old.astype(np.int16), "click": random.binomial(old, 0.4)}
    assigned = random.integers(0, 2, n).astype(np.int8) if split else None
    return UserDays(("a", "b"), n, days, metrics, terms, before, assigned)


def keyed_bits(units: int, draws: int, seed: int, lane: int) -> np.ndarray:
    """The 16 random bits of each draw of each unit, `[units, draws]`: 8 of a counter of Philox."""
    unit, counter = np.arange(units)[:, None], np.arange(8 * -(-draws // 64))[None]
    words = np.stack(philox(seed, unit, counter, Purpose.RESAMPLE, lane), axis=1)
    halves = np.stack((words & 0xFFFF, words >> np.uint64(16)), axis=2)
    # Of 64 draws, word w gives 16: the low halves of 8 counters, then the high ones.
    blocks = halves.reshape(units, 4, 2, -1, 8).transpose(0, 3, 1, 2, 4)
    return blocks.reshape(units, -1)[:, :draws].astype(np.int64)


def no_whole_column(*_: Any) -> Any:
    """In place of what puts a column of all users together."""
    raise AssertionError("a column of all users is put together")


# Reports.


def decided_content(
    arm: str,
    lifts: Mapping[str, float],
    verdicts: Mapping[str, str],
    *,
    checks: tuple[Check, ...] = (),
) -> Content:
    """A report by hand of one arm against a control: by metric its lift, with an interval of .01 to
    either side, and its verdict.
    """
    return Content(
        control="control",
        arms=("control", arm),
        unit="user",
        lifts=tuple(
            Lift(m, arm, "user", 1.0, 1 + v, v, v - 0.01, v + 0.01, 1.0, 99.0, 0.5, 0.5, 100, 0.01)
            for m, v in lifts.items()
        ),
        verdicts=tuple(Verdict(m, arm, "user", words, "") for m, words in verdicts.items()),
        headlines=(),
        metrics={},
        choices=Choices(),
        scenario=None,
        design="split",
        checks=checks,
        paired=False,
        margins=(),
        size=Size(100),
        units={},
        distributions=(),
        segments=None,
        otherwise=(),
        power=(),
        versions={},
    )


def fit_values(
    mean: list[float], n_users: int, draws: np.random.Generator, floor: float = 0.05
) -> FitValues:
    """What fits of one arm find of held-out clicks at some rates, and the floor."""
    rates = np.array([*mean, floor, floor])
    clicks = 1.0 + draws.poisson(3.0, n_users)
    taste = draws.gamma(2.0, 0.5, n_users)
    chance = np.minimum(rates[:, None] * taste, 1.0)
    hits = draws.binomial(clicks.astype(int), chance).astype(np.float64)
    arms = (*("arm" for _ in mean), "", "")
    policies = (*("p" for _ in mean), "popularity", "itemknn")
    fits = (*range(len(mean)), 0, 0)
    return FitValues(10, arms, policies, fits, clicks, hits, hits)


# Scenarios and their runs.


PLAIN_ARMS: dict[str, Any] = {
    "a": {"policy": "popularity"},
    "b": {"policy": "random"},
    "c": {"policy": "popularity"},
}


def tiny_scenario(arms: dict[str, Any] = PLAIN_ARMS, **changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "seed": 9,
        "data": {"source": "synthetic", "history_days": 2},
        "users": {"kind": "choice", "n_users": 60, "n_items": 120},
        "days": 2,
        "serving": {
            "slate": 4,
            "recall": 12,
            "history": 16,
            "channels": [{"name": "new", "policy": "random", "quota": 3}],
        },
        "arms": arms,
        "design": {"kind": "paired", "control": next(iter(arms))},
        "engine": {"executor": "serial"},
        **changes,
    }


def write_scenario(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def simulate_scenario(folder: Path, content: dict[str, Any], **options: Any) -> Path:
    loaded = Scenario.load(write_scenario(folder, content))
    return simulate(loaded, folder / "out", folder=folder, **options).root


FIRST = "first_user=0000000000/part.parquet"
"""The first log part of an arm, below its folder."""


def log_files(root: Path) -> dict[str, bytes]:
    """The parts of a run's log by their paths."""
    log = root / "log"
    return {
        part.relative_to(log).as_posix(): part.read_bytes()
        for part in sorted(log.rglob("*.parquet"))
    }


def log_digests(root: Path) -> dict[str, str]:
    return {name: hashlib.sha256(part).hexdigest() for name, part in log_files(root).items()}


STOPPABLE: dict[str, Any] = {
    "name": "tiny",
    "seed": 9,
    "data": {"source": "synthetic", "history_days": 2},
    "users": {"kind": "choice", "n_users": 40, "n_items": 80},
    "days": 2,
    "serving": {"slate": 4, "recall": 12, "history": 16, "ranking": {"kind": "pointwise"}},
    "arms": {"a": {"policy": "popularity"}, "z": {"policy": "mine.py:Stops"}},
    "design": {"kind": "paired", "control": "a"},
    "engine": {"executor": "serial"},
}


STOPS = """
import os
from dataclasses import dataclass
from policies.popularity import Random

@dataclass
class Stops(Random):
    def recall(self, histories, k, seed):
        if os.environ.get("STOP_HERE") and (histories.step > 6).any():
            os.kill(os.getpid(), 2)
        return super().recall(histories, k, seed)
"""


def run_stoppable(folder: Path, monkeypatch: pytest.MonkeyPatch | None) -> Path:
    """A run into `folder`/out: interrupted in the middle of arm z, or whole."""
    (folder / "mine.py").write_text(STOPS)
    (folder / "scenario.yaml").write_text(yaml.safe_dump(STOPPABLE, sort_keys=False))
    if monkeypatch is None:
        run_again(folder, resume=False)
    else:
        with monkeypatch.context() as patch:
            patch.setenv("STOP_HERE", "1")
            with pytest.raises(KeyboardInterrupt):
                run_again(folder, resume=False)
    return folder / "out"


def run_again(folder: Path, *, resume: bool = True) -> Path:
    return simulate(
        Scenario.load(folder / "scenario.yaml"), folder / "out", folder=folder, resume=resume
    ).root


# Files in KuaiRand's format.


KUAIRAND_HEAD = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)


MIDNIGHT = 1_650_816_000_000
"""2022-04-25 00:00 in China, ms."""


def kuairand_row(
    user: int,
    video: int,
    t: int,
    click: int = 0,
    play: int = 1000,
    duration: int = 20_000,
    rand: int = 0,
    tab: int = 1,
) -> str:
    answers = f"{click},0,0,0,0,0,{click},{play},{duration}"
    return f"{user},{video},20220425,0,{t},{answers},0,0,0,{rand},{tab}"


# A world of three qualities of items, for learned and logged users.


LEARNED_USERS, LEARNED_ITEMS, LEARNED_DAYS, LEARNED_TEST_DAYS = 300, 60, 8, 2


LEARNED_SETTINGS: dict[str, Any] = {
    "dim": 4,
    "hidden": 16,
    "bins": 16,
    "epochs": 12,
    "batch": 512,
    "rate": 1e-2,
}


def silent(*_: Any) -> None:
    """No progress."""


def click_chance(
    item: npt.NDArray[np.int64], tab: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The world: items come in three qualities, surface 1 has many more clicks than surface 0."""
    return 1 / (1 + np.exp(-(-2.0 + 1.2 * (item % 3) + 1.5 * tab)))


def impression_columns(seed: int, low: int, high: int) -> dict[str, npt.NDArray[Any]]:
    """About 12 impressions a user-day: one or two a request, one session a day."""
    generator = np.random.default_rng(seed)
    n = LEARNED_USERS * (high - low) * 8
    user = generator.integers(0, LEARNED_USERS, n)
    day = generator.integers(low, high, n)
    t = day * DAY + generator.integers(0, DAY // 1000, n) * 1000
    order = np.lexsort((t, user))
    user, t, day = user[order], t[order], day[order]
    item, tab = generator.integers(1, LEARNED_ITEMS + 1, n), generator.integers(0, 2, n)
    click = generator.random(n) < click_chance(item, tab)
    watch = np.where(
        click,
        generator.exponential(30, n),
        np.where(generator.random(n) < 0.25, 0, generator.exponential(2, n)),
    )
    session = day - low
    first = np.searchsorted(user * 1000 + session, user * 1000 + session)
    return {
        "user": user,
        "session": session,
        "request": np.arange(n) - first,
        "position": np.zeros(n, dtype=np.int64),
        "t": t,
        "item": item,
        "click": click.astype(np.int8),
        "watch": watch.astype(np.float32),
        "duration": np.full(n, 40.0),
        "tab": tab,
        "comment": (click & (generator.random(n) < 0.01)).astype(np.int8),
        "like": (click & (generator.random(n) < 0.06)).astype(np.int8),
    }


def learned_source() -> Source:
    """Eight days of history, two to come."""
    metadata = Metadata(("history",), LEARNED_USERS, LEARNED_ITEMS)
    generator = np.random.default_rng(8)
    catalogue = Catalogue(
        LEARNED_USERS,
        LEARNED_ITEMS,
        {
            "duration": np.concatenate(([0], np.full(LEARNED_ITEMS, 40.0))).astype(np.float32),
            "tag": np.arange(LEARNED_ITEMS + 1) % 3,
        },
        {
            "degree": generator.integers(0, 3, LEARNED_USERS),
            "age": generator.normal(size=LEARNED_USERS).astype(np.float32),
        },
    )
    history = EventLog.from_columns(impression_columns(1, -LEARNED_DAYS, 0), metadata)
    return Source(
        catalogue,
        history,
        EventLog.from_columns(impression_columns(2, 0, LEARNED_TEST_DAYS), metadata),
    )


# A model.


def small_gpt(seed: int = 0, **form: Any) -> GPT:
    shape = dataclasses.replace(Shape.written(), width=16, feedforward=24, length=12, **form)
    model = GPT(30, 6, shape).initialise(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if not name.endswith("norm.weight"):
                weights.normal_(0, 0.3, generator=generator)
        model.items.weight[0] = 0
        if model.users is not None:
            model.users.weight[0] = 0
    return model.eval()


# A policy.


def broken_promises(policy: Policy, **how: Any) -> dict[str, str]:
    """What `check_policy` finds broken, by the name of the check."""
    return {r.name: r.detail for r in check_policy(policy, **how) if not (r.kept or r.skipped)}


@dataclass
class CoClicks(Scored):
    """Items by the users that they share with the clicked ones, by the dense product that policies
    are offered.
    """

    learns: ClassVar[tuple[str, ...]] = ("checkerboard",)

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        clicks = sequences.clicks()
        table = np.zeros((len(clicks), catalogue.n_items + 1), dtype=np.float32)
        table[np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets)), clicks.items] = 1
        table /= np.maximum(np.linalg.norm(table, axis=0), 1)
        self.alike_ = (table.T @ table).astype(np.float32)
        self.asked: list[int] = []
        return self

    def scores(self, histories: Histories) -> np.ndarray:
        self.asked.append(len(histories))
        read = np.zeros((len(histories), len(self.alike_)), dtype=np.float32)
        np.put_along_axis(read, histories.clicks(20), 0.7, axis=1)
        return matmul(read, self.alike_)

    def state(self) -> dict[str, np.ndarray]:
        return {"alike": self.alike_}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        self.alike_, self.asked = state["alike"], []
        return self


def write_sequences(
    folder: Path, name: str = "Beauty.txt", n_users: int = 60, n_items: int = 30
) -> Path:
    """Users who walk round a cycle of all items, with a fifth of the steps at random."""
    draw = np.random.default_rng(1)
    lines = []
    for user in range(n_users):
        item, row = int(draw.integers(n_items)), []
        for _ in range(int(draw.integers(5, 12))):
            item = (item + 1) % n_items if draw.random() < 0.8 else int(draw.integers(n_items))
            row.append(str(item + 1))
        lines.append(" ".join([str(user + 1), *row]))
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def in_file(array: np.ndarray) -> bool:
    """Whether an array lies in a file that is mapped into memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)
