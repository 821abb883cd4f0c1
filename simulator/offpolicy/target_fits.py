"""Target policies as the user names them, fitted on what came before the rounds, and the desks that
serve them. Nothing is replayed here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from policies.base import Catalogue, Fitting, Policy, Progress, Sequences
from policies.calls import Calls
from policies.registry import make
from simulator.config.document import ScenarioError, YamlDocument
from simulator.log.files import load_arrays, save_arrays
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.target import apart
from simulator.run.context import fit_name
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Arm
from simulator.serving.desk import Desk
from simulator.serving.ranking import Ranker

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """A target policy as the user named it."""

    label: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    """Where a plug-in file is looked for first."""
    fits: int | None = None
    """How often it is fitted at most; None: as often as there are lessons."""

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """`NAME`, `NAME:key=value,key=value` or `NAME:{yaml}`; NAME may be `module:Class` or
        `file.py:Class`.

        Raises:
            ReplayError: parameters that are no YAML mapping, or one that is given twice.
        """
        found = re.fullmatch(r"(?P<name>.+?):(?P<params>\{.*|[A-Za-z_]\w*=.*)", text, re.DOTALL)
        if found is None:
            return cls(text, text)
        given = found["params"]
        if not given.startswith("{"):
            given = "{" + ", ".join(part.replace("=", ": ", 1) for part in given.split(",")) + "}"
        try:
            params = YamlDocument.parse(given, "its parameters").values
        except ScenarioError as error:
            raise ReplayError(
                f"--policy {text!r}: {error}; write them as key=value,key=value or as a mapping,"
                " {epsilon: 0.1}"
            ) from error
        return cls(text, found["name"], params)


@dataclass(frozen=True)
class Lesson:
    """What one fit of each policy learns from: impressions, and the seed of its training."""

    sequences: Sequences
    seed: int

    @cached_property
    def digest(self) -> str:
        """Of the impressions."""
        log, found = self.sequences, hashlib.sha256()
        known = {"user": log.user, "offsets": log.offsets, "items": log.items, "t": log.t}
        for name, column in sorted({**known, "clicked": log.clicked, **log.columns}.items()):
            found.update(f"{name} {column.dtype} {column.shape}".encode() + column.tobytes())
        return found.hexdigest()[:12]


def served(
    scenario: Scenario,
    wanted: Sequence[Wanted],
    lessons: Sequence[Lesson],
    catalogue: Catalogue,
    fitting: Fitting,
    kept: Path | None = None,
) -> tuple[list[tuple[str, tuple[Policy, ...]]], list[tuple[Desk, ...]]]:
    """The fits of each policy by label, and the desks of each, one for each fit: with the
    scenario's channels, quotas and ranking stage, which have learned from the same; `kept` as of
    `fitted`.
    """
    serving = scenario.serving
    folder = next((one.folder for one in wanted), None)
    channels = [Wanted(one.name, one.policy, one.params, folder) for one in serving.channels]
    policies = fitted([*wanted, *channels], lessons, catalogue, fitting, kept)
    own, beside = policies[: len(wanted)], [fits for _, fits in policies[len(wanted) :]]
    rankers: list[Ranker | None] = [None]
    if serving.ranking.kind == "pointwise":
        weight = serving.ranking.watch_weight
        logs = _distinct(lessons)
        rankers = [Ranker.fit(log, catalogue, serving.history, weight) for log in logs]
    arms = {one.label: Arm(policy=one.name, params=dict(one.params)) for one in wanted}
    all_arms = scenario.model_copy(update={"arms": arms})

    def desk(name: str, fit: int, parts: Sequence[Sequence[Policy]]) -> Desk:
        made = Desk.of_arm(
            all_arms,
            name,
            [_of_fit(part, fit) for part in parts],
            _of_fit(rankers, fit),
            catalogue.n_items,
        )
        return replace(made, seed=apart(scenario.seed))

    desks = []
    for name, fits in own:
        parts = [fits, *beside]
        number = max(len(rankers), *map(len, parts))
        desks.append(tuple(desk(name, fit, parts) for fit in range(number)))
    return own, desks


def fitted(
    wanted: Sequence[Wanted],
    lessons: Sequence[Lesson],
    catalogue: Catalogue,
    fitting: Fitting,
    kept: Path | None = None,
) -> list[tuple[str, tuple[Policy, ...]]]:
    """The fits of each policy by label, one for each lesson; one alone where a policy draws nothing
    in training and all lessons are of the same log. Policies that differ only in how they serve
    share their fits.

    In the folder `kept` each is written under what it was made from, and taken over from there.
    """
    states: dict[tuple[str, int], Any] = {}
    shared = len(_distinct(lessons)) == 1
    policies = []
    for one in wanted:
        fits = []
        for number, lesson in enumerate(lessons[: one.fits]):
            policy = make(one.name, one.params, one.folder)
            if number and shared and not policy.is_seeded:
                break
            calls, key = Calls(policy, one.name), (policy.fit_key(), number)
            if key in states:
                calls.restore(states[key])
            else:
                label = f"fit {one.label}" + (f" {number}" if len(lessons) > 1 else "")
                own = replace(fitting, seed=lesson.seed, progress=_named(fitting.progress, label))
                states[key] = _state(calls, lesson, catalogue, own, kept)
            fits.append(policy)
        policies.append((one.label, tuple(fits)))
    return policies


def _state(
    calls: Calls, lesson: Lesson, catalogue: Catalogue, fitting: Fitting, kept: Path | None
) -> Mapping[str, Any]:
    """Fit a policy, or take over the fit that is kept; what it has learned."""
    file = None
    if kept is not None:
        file = kept / f"{fit_name(calls.policy, lesson.seed)}-{lesson.digest}.npz"
        if file.is_file():
            calls.restore(load_arrays(file))
            return calls.state()
    calls.fit(lesson.sequences, catalogue, fitting)
    state = calls.state()
    if file is not None:
        save_arrays(file, state)
    return state


def _of_fit(each: Sequence[T], fit: int) -> T:
    """What belongs to a fit: its own, or the one that all share."""
    return each[fit if len(each) > 1 else 0]


def _distinct(lessons: Sequence[Lesson]) -> list[Sequences]:
    """The logs that are learned from: one where all lessons share it."""
    logs = [lesson.sequences for lesson in lessons]
    return logs[:1] if all(log is logs[0] for log in logs) else logs


def _named(progress: Progress, label: str) -> Progress:
    def tell(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        progress(f"{label}: {stage}", done, total, figures)

    return tell
