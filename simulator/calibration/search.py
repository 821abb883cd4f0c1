"""The free parameters of a synthetic scenario fitted to its targets; what is measured and what is
published lives elsewhere.

The noise of every answer is keyed by what it decides, so two nearby parameter values share it
(common random numbers) and their difference is smooth enough for Gauss-Newton steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simulator.calibration.targets import (
    LOGGING,
    RANDOM,
    TARGETS,
    TOLERANCE,
    CalibrationError,
    PublishedFigure,
    measured,
)
from simulator.scenario.changes import changed, number_at
from simulator.scenario.populations import is_synthetic

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Knob:
    """A free parameter: its dotted key in the scenario, the step in which it is tried (of its
    logarithm if `log`), its greatest value.
    """

    key: str
    step: float = 0.05
    log: bool = True
    most: float = np.inf


@dataclass(frozen=True)
class KnobBlock:
    """Knobs and the marginals that they answer for, as (feed, name)."""

    knobs: tuple[Knob, ...]
    marginals: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Stage:
    """Blocks that do not touch one another's marginals, so that one simulation tries a knob of
    each.
    """

    name: str
    blocks: tuple[KnobBlock, ...]
    evaluations: int


def _both(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((feed, name) for name in names for feed in (LOGGING, RANDOM))


def _reaction(kind: str) -> KnobBlock:
    # What is given to unclicked videos is identified only where its rate is published (like); the
    # others keep theirs.
    conditional = tuple((LOGGING, f"{kind} | {given}") for given in ("click", "no click"))
    published = {target[:2] for target in TARGETS}
    knobs = [
        Knob(f"users.reactions.{kind}.rate", 0.1, most=0.5),
        Knob(f"users.reactions.{kind}.affinity", 0.1, log=False),
    ]
    if any(name in published for name in conditional):
        knobs.append(Knob(f"users.reactions.{kind}.unclicked", 0.3))
    return KnobBlock(
        tuple(knobs), (*_both(kind), *(name for name in conditional if name in published))
    )


def _duration(key: str, bucket: str) -> KnobBlock:
    return KnobBlock(
        (Knob(f"users.affinity.duration.{key}", 0.05, log=False),), _both(f"click {bucket}")
    )


_DURATIONS = {
    "10.0": "0-15 s",
    "22.0": "15-30 s",
    "45.0": "30-60 s",
    "90.0": "60-120 s",
    "240.0": ">120 s",
}

_CLICKS = KnobBlock(
    (
        Knob("users.affinity.base", 0.1, log=False),
        Knob("users.affinity.user"),
        Knob("users.affinity.quality"),
        Knob("users.affinity.match"),
        Knob("users.affinity.activity", 0.05, log=False),
        Knob("data.logging.temperature"),
        Knob("data.logging.epsilon", 0.1, most=1.0),
        Knob("data.logging.params.boost"),
    ),
    (
        *_both("click", "click mean of videos", "click mean of users"),
        *((LOGGING, f"click sd of {name}") for name in ("users", "videos")),
        *((LOGGING, f"click of {name} users") for name in ("full-active", "high", "middle", "low")),
        (LOGGING, "exposure gini"),
        (LOGGING, "exposure top 20%"),
    ),
)
_WATCH = KnobBlock(
    (
        Knob("users.examination.first", 0.01, most=1.0),
        Knob("users.watch.skip_scale"),
        Knob("users.watch.skip_shape"),
        Knob("users.watch.attention"),
        Knob("users.watch.affinity"),
        Knob("users.watch.shape"),
        Knob("users.watch.stop", most=1.0),
        Knob("users.watch.loop", most=1.0),
    ),
    (
        *_both("long_view", "watch mean of videos", "watch mean of users"),
        *(
            (target.feed, target.name)
            for target in TARGETS
            if target.name.startswith("watch") and " of " not in target.name
        ),
        (LOGGING, "long_view | click"),
    ),
)
STAGES = (
    Stage("clicks", (_CLICKS,), 4),
    Stage("durations", tuple(_duration(key, name) for key, name in _DURATIONS.items()), 3),
    Stage("watching", (_WATCH,), 6),
    Stage(
        "reactions",
        tuple(
            _reaction(kind)
            for kind in ("like", "comment", "forward", "follow", "hate", "profile_enter")
        ),
        5,
    ),
)

Report = Callable[[str, Mapping[str, float], float], None]
"""Called after every simulation as (stage, values by key, cost)."""


def fit(
    scenario: Scenario, report: Report, rounds: int = 1, folder: Path | None = None
) -> Scenario:
    """The scenario with its free parameters moved to the targets, stage by stage.

    Least squares of log(simulated / target) / tolerance by the trust-region method (Branch, Coleman
    & Li 1999; scipy).

    Args:
        scenario: synthetic, of `choice` users.
        report: told of every step.
        rounds: how often all stages are gone through; later stages move earlier marginals a little.
        folder: that of the scenario, where plug-in files are looked up.

    Raises:
        CalibrationError: the users are of another kind.
    """
    hold_to_own_parameters(scenario)
    for _ in range(rounds):
        for stage in STAGES:
            scenario = fit_stage(scenario, stage, report, folder=folder)
    return scenario


def fit_stage(
    scenario: Scenario,
    stage: Stage,
    report: Report,
    targets: Sequence[PublishedFigure] = TARGETS,
    folder: Path | None = None,
) -> Scenario:
    """The scenario with the knobs of one stage moved to the targets of its blocks' marginals; the
    best that was tried.
    """
    from scipy.optimize import least_squares

    knobs = [knob for block in stage.blocks for knob in block.knobs]
    block_of = np.array([b for b, block in enumerate(stage.blocks) for _ in block.knobs])
    rank_in_block = np.array([j for block in stage.blocks for j in range(len(block.knobs))])
    names = [name for block in stage.blocks for name in block.marginals]
    row_block = np.array([b for b, block in enumerate(stage.blocks) for _ in block.marginals])
    wanted = {target[:2]: target for target in targets}
    start = np.array([value_of(scenario, knob.key) for knob in knobs])
    memory: dict[bytes, Floats] = {}

    def at(z: Floats) -> Scenario:
        moved = [
            s * np.exp(x) if knob.log else s + x for s, x, knob in zip(start, z, knobs, strict=True)
        ]
        return with_values(
            scenario, {k.key: float(f"{m:.5g}") for k, m in zip(knobs, moved, strict=True)}
        )

    def residuals(z: Floats) -> Floats:
        if z.tobytes() not in memory:
            tried = at(z)
            simulated = measured(tried, folder=folder)
            memory[z.tobytes()] = np.array(
                [_residual(wanted[name], simulated[name[0]][name[1]].value) for name in names]
            )
            report(
                stage.name,
                {k.key: value_of(tried, k.key) for k in knobs},
                float((memory[z.tobytes()] ** 2).sum()),
            )
        return memory[z.tobytes()]

    def jacobian(z: Floats) -> Floats:
        """Forward differences; one knob of every block at a time."""
        here, out = residuals(z), np.zeros((len(names), len(knobs)))
        for j in range(rank_in_block.max() + 1):
            tried = np.flatnonzero(rank_in_block == j)
            step = np.zeros(len(knobs))
            step[tried] = [knobs[i].step for i in tried]
            change = residuals(z + step) - here
            for i in tried:
                mine = row_block == block_of[i]
                out[mine, i] = change[mine] / knobs[i].step
        return out

    most = np.array(
        [
            np.log(knob.most / s) if knob.log else knob.most - s
            for s, knob in zip(start, knobs, strict=True)
        ]
    )
    # This leaves room for a step; a knob that starts at its most stays there.
    most = np.maximum(most - 0.02, 1e-9)
    least_squares(
        residuals,
        np.zeros(len(knobs)),
        jac=jacobian,
        bounds=(-np.inf, most),
        max_nfev=stage.evaluations,
        xtol=1e-3,
        ftol=1e-3,
    )
    return at(np.frombuffer(min(memory, key=lambda z: float((memory[z] ** 2).sum()))))


def _residual(target: PublishedFigure, value: float) -> float:
    return float(np.log(max(value, 1e-3 * target.value) / target.value) / TOLERANCE)


def hold_to_own_parameters(scenario: Scenario) -> None:
    """What is fitted and drawn are parameters of abtest's own synthetic users.

    Raises:
        CalibrationError: the users are of another kind.
    """
    if not is_synthetic(scenario.users):
        users: Any = scenario.users
        rule = (
            "parameters of choice and markov users are fitted and drawn; others are held to the"
            " targets as they are (without --fit and --ensemble)"
        )
        raise CalibrationError(f"{scenario.where(('users', 'kind'))}: {rule}; got {users.kind!r}")


def value_of(scenario: Scenario, key: str) -> float:
    """The number at a dotted key.

    Raises:
        ValueError: no such key.
    """
    return number_at(scenario.resolved(), key)


def with_values(scenario: Scenario, values: Mapping[str, float]) -> Scenario:
    """The scenario with the numbers at some dotted keys changed, checked again.

    Raises:
        ValueError: no such key, or a number that its key does not take.
    """
    return type(scenario).model_validate(changed(scenario.resolved(), values))
