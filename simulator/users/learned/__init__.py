"""Learned users: a response model fitted to a log answers every impression. torch is imported only
while a model is fitted.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from policies.base import IntArray, Progress, Slates
from policies.time import DAY, HOUR
from simulator.log.files import write_text
from simulator.users.base import CALIBRATION, Feedback, Source, UsersError
from simulator.users.clock import Clock, ClockedUsers
from simulator.users.learned.hyperparameters import Hyperparameters
from simulator.users.learned.inputs import surface
from simulator.users.learned.response import Response

__all__ = ["Learned", "LearnedUsers"]

MODEL = "response.npz"


class Learned(Hyperparameters):
    """Users who come when the log says (`clock.Clock`) and answer as a model of the history expects
    them to.

    The model is fitted on the impressions of the history whose answer is complete; its inputs are
    the user, the item, their features, what the days before say of either, hour, surface and
    position. Heads: click; watch time given the click; every further kind of feedback given both.
    The last day of the history decides how long to train and calibrates the heads.
    """

    def fit(self, source: Source, seed: int, folder: Path, progress: Progress) -> None:
        """Fit the response model on `source.history` and keep it in `folder`, with its calibration
        on `source.future`.

        The future is looked at after the fit, to say how far off the model is on days that it has
        not seen; it changes no answer.

        Raises:
            UsersError: the history has too few complete answers.
        """
        from simulator.users.learned.evaluation import evaluate
        from simulator.users.learned.fitting import fit

        folder.mkdir(parents=True, exist_ok=True)
        response = fit(self, source, seed, progress)
        response.save(folder / MODEL)
        if source.future is not None:
            found = evaluate(response, source, seed).calibration()
            write_text(folder / CALIBRATION, json.dumps(found, indent=1, allow_nan=False) + "\n")

    def build(
        self, source: Source, seed: int, days: int, folder: Path, who: IntArray | None = None
    ) -> LearnedUsers:
        """The users; `fit` must have been called with the same `folder`.

        Raises:
            UsersError: the data has no future whose sessions could be the clock, or it is shorter
                than `days`.
        """
        if source.future is None:
            raise UsersError(
                f"users.kind {self.kind} needs a log whose sessions are the clock: data.source must"
                " be table, kuairand or log"
            )
        last = max(
            (batch["t"].to_numpy().max() for batch in source.future.batches(["t"])), default=-1
        )
        there = int(last) // DAY + 1
        if there < days:
            raise UsersError(
                f"days must be at most the {there} days that the log has from the start of the A/B;"
                f" got {days}: see data.test_days"
            )
        if who is None:
            who = np.arange(source.catalogue.n_users)
        clock, response = Clock.of(source.future, days, who), Response.load(folder / MODEL)
        return LearnedUsers(clock, response, seed, source.catalogue.n_users)


class LearnedUsers(ClockedUsers):
    """Users of a clock who answer by a response model."""

    def __init__(self, clock: Clock, response: Response, seed: int, n_users: int) -> None:
        super().__init__(clock)
        self.response = response
        self.seed = seed
        self.n_users = n_users
        self.n_items = len(response.duration) - 1
        self.kinds: tuple[str, ...] = response.names

    def respond(self, user: IntArray, step: IntArray, t: IntArray, slates: Slates) -> Feedback:
        """Draw every answer from the model; all positions are shown."""
        tab = surface(self.clock.tab[self.place(user)])
        click, watch, kinds = self.response.answer(
            self.seed, user, step, slates.items, tab, t % DAY // HOUR
        )
        following, leaves = self.advance(user)
        shown = (slates.items > 0).sum(axis=1).astype(np.int64)
        return Feedback(
            click, watch, shown, following, leaves, kinds, np.zeros(click.shape, dtype=bool)
        )
