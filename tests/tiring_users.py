"""Somebody's user model, in a file that the processes of a run load in a moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Catalogue
from policies.streams import Purpose, uniform
from simulator.users.base import Feedback
from simulator.users.plugins import UserModel

HOUR = 3_600_000


@dataclass
class Tiring(UserModel):
    """Users who click by chance, less after each click."""

    liking: float = 0.5
    by_shard: bool = False

    def catalogue(self, seed: int, n_users: int, n_items: int) -> Catalogue:
        duration = np.full(n_items + 1, 30.0, dtype=np.float32)
        return Catalogue(n_users, n_items, items={"duration": duration})

    def build(self, source: Any, seed: int, days: int, folder: Path) -> Any:
        return Tired(self, source.catalogue, seed)

    def build_some(self, source: Any, seed: int, days: int, folder: Path, who: Any) -> Any:
        return Tired(self, source.catalogue, seed, who) if self.by_shard else None


class Tired:
    kinds: tuple[str, ...] = ("like",)

    def __init__(self, model: Tiring, catalogue: Catalogue, seed: int, who: Any = None) -> None:
        self.model, self.seed = model, seed
        self.n_users, self.n_items = catalogue.n_users, catalogue.n_items
        self.who = np.arange(self.n_users) if who is None else who
        self.clicks = np.zeros(len(self.who), dtype=np.int64)

    def first(self, user: Any) -> Any:
        return (uniform(self.seed, Purpose.ARRIVE, user) * 24 * HOUR).astype(np.int64)

    def slate_size(self, user: Any, step: Any) -> Any:
        return None

    def respond(self, user: Any, step: Any, t: Any, slates: Any) -> Feedback:
        items, who, when = slates.items, user[:, None], step[:, None]
        luck = uniform(self.seed, Purpose.CLICK, who, when, items)
        row = np.searchsorted(self.who, user)
        click = (items > 0) & (luck < self.model.liking / (1 + 0.1 * self.clicks[row, None]))
        self.clicks[row] += click.sum(axis=1)
        leaves = uniform(self.seed, Purpose.LEAVE, user, step) < 0.4
        pause = np.where(leaves, 9 * HOUR, 60_000)
        watch = np.where(click, 20.0, 1.0).astype(np.float32)
        like = (click & (luck < 0.1)).astype(np.int8)
        shown = (items > 0).sum(axis=1)
        return Feedback(click.astype(np.int8), watch, shown, t + pause, leaves, {"like": like})

    def state(self) -> Any:
        return {"clicks": self.clicks}

    def restore(self, state: Any) -> None:
        self.clicks = np.array(state["clicks"])
