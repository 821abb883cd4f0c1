"""Compile ahead what a scenario computes with: a miniature of its run, and its fits beside it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.base import Fitting, Progress, silent
from policies.registry import is_built_in, make
from simulator.run.executors import executor
from simulator.scenario.model import Scenario, ScenarioError

USERS = 64
"""Who live in a miniature."""


@dataclass(frozen=True)
class Miniature:
    """A whole run, report included, with few users, in a folder that is removed.

    Attributes:
        scenario: as JSON of `Scenario.resolved()`.
        folder: where its plug-in files lie.
    """

    scenario: str
    folder: str

    def __str__(self) -> str:
        return "running the scenario with few users"

    def __call__(self, progress: Progress) -> None:
        from simulator.run.pipeline import run

        scenario = Scenario.model_validate(json.loads(self.scenario))
        with tempfile.TemporaryDirectory() as out:
            run(scenario, Path(out) / "run", folder=Path(self.folder))


@dataclass(frozen=True)
class SmallFit:
    """A policy of abtest fitted on a made-up log and asked: the kernels of fits are compiled while
    the miniature still lives through its history.

    Attributes:
        policy: its name.
        params: its hyper-parameters.
    """

    policy: str
    params: Mapping[str, Any]

    def __str__(self) -> str:
        return f"fitting policy {self.policy!r} on a made-up log"

    def __call__(self, progress: Progress) -> None:
        from policies.examples import mixed

        policy = make(self.policy, self.params)
        example = mixed().with_context(policy.asks_for)
        policy.fit(example.sequences, example.catalogue, Fitting(0))
        policy.recall(example.requests(context=policy.asks_for), 6, 0)


def miniature(file: Path | str) -> Scenario:
    """The scenario of a synthetic world with few users and one fit, in one process.

    Raises:
        ScenarioError: as `Scenario.load`; a scenario of other data, or one whose rules so few users
            cannot keep.
    """
    whole = Scenario.load(file)
    n_users = getattr(whole.users, "n_users", None)
    if whole.data.source != "synthetic" or n_users is None:
        raise ScenarioError(
            f"{whole.where(('data', 'source'))}: must be synthetic, with users of which there can"
            " be fewer, for kernels to be compiled ahead; here the first run compiles what it needs"
        )
    small = {
        "users.n_users": min(USERS, n_users),
        "fits": 1,
        "engine.executor": "serial",
        "engine.shards": 1,
    }
    return Scenario.load(file, small, dict.fromkeys(small, "abtest compile:"))


def compile_ahead(small: Scenario, folder: Path, progress: Progress = silent) -> None:
    """Compile the kernels that a run of the scenario needs, so that it finds them in the cache.

    Args:
        small: its `miniature`.
        folder: where its plug-in files lie.
        progress: told of every finished part.

    Raises:
        RunError, PolicyError: as `simulator.run.pipeline.run`.
    """
    parts: list[Any] = [Miniature(json.dumps(small.resolved()), os.path.relpath(folder))]
    for arm in small.arms.values():
        fit = SmallFit(arm.policy, arm.params)
        if is_built_in(arm.policy) and fit not in parts:
            parts.append(fit)
    finished = 0

    def done(_: int, result: Any) -> None:
        nonlocal finished
        if isinstance(result, BaseException):
            raise result
        finished += 1
        progress("compile", finished, len(parts), {})

    progress("compile", 0, len(parts), {})
    with executor("processes", silent, len(parts)) as workers:
        workers.here(parts, done)
