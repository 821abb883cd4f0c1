"""What may be shown while a world is exposed: every video from the first day to the last, or those
of a catalogue that lives.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from policies.base import Admitting, Catalogue, DoubleArray, Histories, IntArray, Slates
from policies.calls import Calls
from policies.streams import Purpose, uniform
from policies.time import DAY
from policies.withheld import recall_withholding
from simulator.living.life import LivingCatalogue, Uploads
from simulator.users.choice.people import People


class Scene:
    """A catalogue of which every video is always there.

    Attributes:
        calls: the policy that fills the slates; None: uniformly random exposure.
        seed: of its random numbers.
        n_items: videos are 1..n_items.
        uploaded: `[n_items + 1]` ms at which each appears; None: all are there always.
    """

    def __init__(self, calls: Calls | None, seed: int, n_items: int) -> None:
        self.calls, self.seed, self.n_items = calls, seed, n_items
        self.uploaded: DoubleArray | None = None

    def ends(self) -> Iterator[int]:
        """The times (ms, ascending, the last one 0) up to which what may be shown stays the same.
        Whoever goes on to the next one has shown everything before it, and said so (`take`).
        """
        yield 0

    def take(self, item: IntArray, clicked: IntArray) -> None:
        """Count what was shown since the time before, and what of it was clicked, `[m]` items."""

    def recall(self, histories: Histories, k: int) -> Slates:
        """Slates of `k` places."""
        if self.calls is not None:
            return self.calls.recall(histories, k, self.seed)
        return self._uniformly(histories, k, np.arange(1, self.n_items + 1))

    def _uniformly(self, histories: Histories, k: int, items: IntArray) -> Slates:
        """Random exposure as KuaiRand's: each place any of `items`, whatever was shown before."""
        user, step = histories.user[:, None], histories.step[:, None]
        u = uniform(self.seed, Purpose.RECALL, user, step, np.arange(k))
        return Slates(items[(u * len(items)).astype(np.int64)], np.zeros(u.shape, np.float32))


class LivingScene(Scene):
    """A catalogue that lives, whose history is exposed."""

    def __init__(
        self, calls: Calls | None, seed: int, catalogue: Catalogue, uploads: Uploads, users: People
    ) -> None:
        super().__init__(calls, seed, catalogue.n_items)
        self.catalogue, self.world, self.users = catalogue, uploads, users
        self.uploaded = uploads.release.astype(np.float64)
        self.life: LivingCatalogue = uploads.born()
        self._shown, self._clicked = np.zeros((2, catalogue.n_items + 1), dtype=np.int64)

    def ends(self) -> Iterator[int]:
        """The releases and midnights of the history."""
        for day in range(self.world.first_day, 0):
            self.users.fade(self.world.fading(day))
            self._admit(day * DAY)
            for t in self.life.releases(self.world):
                yield t
                self._admit(t)
            yield (day + 1) * DAY
            self.life = self.life.after(self.world, self._shown, self._clicked)
            self._shown[:], self._clicked[:] = 0, 0

    def take(self, item: IntArray, clicked: IntArray) -> None:
        self._shown += np.bincount(item, minlength=len(self._shown))
        self._clicked += np.bincount(clicked, minlength=len(self._clicked))

    def recall(self, histories: Histories, k: int) -> Slates:
        calls = self.calls
        if calls is None:
            there = np.setdiff1d(np.arange(1, self.n_items + 1), self._now.withheld)
            return self._uniformly(histories, k, there)
        barred = self._now.withheld
        if isinstance(calls.policy, Admitting):
            barred = barred[:0]
        return recall_withholding(
            lambda asked: calls.recall(asked, k, self.seed), histories, barred
        )

    def _admit(self, t: int) -> None:
        """From `t` on the catalogue is another."""
        self._now = self.life.catalogue(self.world, self.catalogue, t)
        if self.calls is not None and isinstance(self.calls.policy, Admitting):
            self.calls.admit(self._now, np.zeros(0, dtype=np.int64), t)
