"""How much memory one process of a run needs, said before anything is simulated: a typing error in
a count must not end a machine.

The figures are counted from the arrays that a worker holds, each an upper bound of its kind, and
added as if all were held at once. `scenarios/million_users.yaml` is put at 3.8 GiB; its largest
process was measured at 2.3 GiB, its two workers and main process at 4.3 GiB in all
(docs/results.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from simulator.config.document import Keys, dotted
from simulator.config.section import ConfigSection
from simulator.scenario.parts import Data, EngineSpec, Serving

GIB = 2**30

PROCESS = 500 << 20
"""Bytes of a process that has imported what a run needs, torch included, and holds nothing yet."""

ROW = 100
"""Bytes of an impression of the history while a policy is fitted: a row of the log, and the same as
sequences.
"""

TAPED = 60
"""Bytes of an impression on a tape, with room to grow."""

REMEMBERED = 10
"""Bytes of an impression in a user's memory: item and click, and the same in a snapshot."""

ASKED = 40
"""Bytes of an impression in the block of requests that is being served."""

RECALLED = 60
"""Bytes of a candidate in the block of requests that is being served: item, score, propensity,
channel, order.
"""


class Sized(Protocol):
    """What the estimate reads of a scenario."""

    @property
    def users(self) -> ConfigSection: ...
    @property
    def data(self) -> Data: ...
    @property
    def serving(self) -> Serving: ...
    @property
    def engine(self) -> EngineSpec: ...


@dataclass(frozen=True)
class Part:
    """A part of the memory of one process.

    Attributes:
        what: the arrays, in words.
        keys: the key of the scenario that decides most of it.
        size: bytes.
    """

    what: str
    keys: Keys
    size: float


def lived(scenario: Sized, n_users: int, n_items: int) -> list[Part]:
    """What one process holds that simulates a shard."""
    serving, engine = scenario.serving, scenario.engine
    lives = -(-n_users // min(engine.shards, n_users))
    memory = max(serving.history, serving.seen or 0)
    past: Keys = ("serving", "seen" if memory > serving.history else "history")
    # Whichever is further above its default is named; 16 is the ratio of the defaults, 2048 / 128.
    unusual: Keys = ("engine", "block") if engine.block > 16 * memory else past
    candidates = serving.recall + sum(channel.quota for channel in serving.channels)
    parts = [
        Part("users' memories", past, REMEMBERED * lives * memory),
        Part("histories of a block", unusual, ASKED * engine.block * (serving.history + memory)),
        Part("candidates of a block", ("serving", "recall"), RECALLED * engine.block * candidates),
    ]
    users: Any = scenario.users
    if not hasattr(users, "interests"):
        return parts
    of_user, of_item, others = _of_world(users)
    impressions = lives * requests_a_day(users) * serving.slate
    return [
        Part("users", ("users", "n_users"), of_user * lives),
        Part("videos", ("users", "n_items"), of_item * n_items),
        Part("tags and authors", ("users", "videos"), others),
        Part("impressions of a day", ("users", "n_users"), TAPED * impressions),
        *parts,
    ]


def needed(scenario: Sized, n_users: int, n_items: int) -> list[Part]:
    """What one process of the run holds, which may simulate a shard and fit on the history."""
    parts, users = lived(scenario, n_users, n_items), scenario.users
    if hasattr(users, "interests"):
        impressions = n_users * requests_a_day(users) * scenario.serving.slate
        size = ROW * impressions * scenario.data.history_days
        parts.append(Part("impressions of the history", ("users", "n_users"), size))
    return parts


def of_shard(scenario: Sized, n_users: int, n_items: int, n_logged: int) -> int:
    """Bytes of a process that simulates a shard; arguments as `of_process`."""
    parts = sum(part.size for part in lived(scenario, n_users, n_items))
    return round(PROCESS + parts + ROW * n_logged / min(scenario.engine.shards, n_users))


def of_process(scenario: Sized, n_users: int, n_items: int, n_logged: int) -> int:
    """Bytes of one process of the run.

    Args:
        scenario: whose.
        n_users, n_items: of the catalogue.
        n_logged: impressions of a real history; those of a synthetic world are known.
    """
    parts = sum(part.size for part in needed(scenario, n_users, n_items))
    return round(PROCESS + parts + ROW * n_logged)


def _of_world(users: Any) -> tuple[float, float, float]:
    """Bytes of a user, of a video, and of all tags and authors in a synthetic world
    (`users.choice`, `users.markov`).
    """
    m, d = users.interests.per_user, users.interests.dimensions
    state = 8 * (m + m * d + m + d + 10)  # `law.Lives`, `World.level`, `World.rate`
    of_user = 2 * state  # as they are, and in a snapshot
    of_item = 8 * (2 * d + 20)  # `World`, which processes of a machine share; a row of estimates
    branches = users.succession.branches if hasattr(users, "succession") else 0
    videos = users.videos
    others = 8 * (videos.tags * (3 * d + branches) + videos.authors * (3 * d + 2))
    return of_user, of_item, others


def requests_a_day(users: Any) -> float:
    """Mean requests of a user per day in a synthetic world: sessions, each of 1 / `leave`
    requests.
    """
    return float(users.arrival.most_sessions / users.patience.leave)


def excess(scenario: Sized, n_users: int, n_items: int) -> tuple[Keys, str] | None:
    """The key and the rule where a process would need more than `engine.memory_limit`, else
    None.
    """
    parts = sorted(needed(scenario, n_users, n_items), key=lambda part: -part.size)
    total, limit = sum(part.size for part in parts), scenario.engine.memory_limit
    if total <= limit * GIB:
        return None
    key = dotted(parts[0].keys)
    largest = ", ".join(f"{part.what} {_size(part.size)}" for part in parts[:3])
    need = f"about {_size(total)} of memory in one process ({largest})"
    advice = f"make {key} smaller, raise engine.shards, or raise engine.memory_limit"
    return parts[0].keys, f"needs {need}, more than engine.memory_limit ({limit:g} GiB); {advice}"


def _size(n_bytes: float) -> str:
    gib = n_bytes / GIB
    return f"{gib:,.0f} GiB" if gib >= 10 else f"{gib:.2g} GiB"
