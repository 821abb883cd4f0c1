"""The free parameters of a synthetic scenario fitted to its targets; what is measured and what the
targets are lives elsewhere.

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

from simulator.calibration.marginals import Marginal
from simulator.calibration.targets import (
    CLICKS,
    LOGGING,
    RANDOM,
    TARGETS,
    TOLERANCE,
    CalibrationError,
    PublishedFigure,
    feeds_of,
    held_to,
    measured,
)
from simulator.scenario.changes import changed, number_at
from simulator.scenario.populations import is_synthetic

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario

Floats = npt.NDArray[np.float64]


Place = tuple[str, str]
"""A marginal: its feed and its name."""


@dataclass(frozen=True)
class Knob:
    """A free parameter: its dotted key in the scenario, the step in which it is tried (of its
    logarithm if `log`), its greatest value.

    `by`: the marginals that tell it from others; without a target for one of these it stays what it
    is. All of its block's if empty.
    """

    key: str
    step: float = 0.05
    log: bool = True
    most: float = np.inf
    by: tuple[Place, ...] = ()


@dataclass(frozen=True)
class KnobBlock:
    """Knobs and the marginals that they answer for."""

    knobs: tuple[Knob, ...]
    marginals: tuple[Place, ...]


@dataclass(frozen=True)
class Stage:
    """Blocks that do not touch one another's marginals, so that one simulation tries a knob of
    each.
    """

    name: str
    blocks: tuple[KnobBlock, ...]
    evaluations: int


def _both(*names: str) -> tuple[Place, ...]:
    return tuple((feed, name) for name in names for feed in (LOGGING, RANDOM))


def _visits(*names: str) -> tuple[Place, ...]:
    return tuple((feed, name) for name in names for feed in (LOGGING, CLICKS))


def _reaction(kind: str) -> KnobBlock:
    given = (LOGGING, f"{kind} | click")
    otherwise = (LOGGING, f"{kind} | no click")
    knobs = (
        Knob(f"users.reactions.{kind}.rate", 0.1, most=0.5),
        Knob(f"users.reactions.{kind}.affinity", 0.1, log=False),
        Knob(f"users.reactions.{kind}.unclicked", 0.3, by=(otherwise,)),
    )
    return KnobBlock(knobs, (*_both(kind), given, otherwise))


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

_VISITS = KnobBlock(
    (
        Knob("users.arrival.per_day", 0.1, by=_visits("impressions of a user")),
        Knob("users.arrival.shape", 0.1, by=_visits("activity gini")),
        Knob("users.patience.leave", most=0.97, by=_visits("impressions of an active day")),
    ),
    _visits(
        "impressions of a user",
        "activity gini",
        "active user-days",
        "impressions of an active day",
        "visits of an active day",
        "back the next day",
        "back within 3 days",
    ),
)
_OF_ACTIVITY = tuple(
    (LOGGING, f"click of {name} users") for name in ("full-active", "high", "middle", "low")
)
_CONCENTRATION = _visits("exposure gini", "exposure top 20%")
_CLICKS = KnobBlock(
    (
        Knob("users.affinity.base", 0.1, log=False, by=_both("click")),
        Knob("users.affinity.user", by=((LOGGING, "click sd of users"),)),
        Knob("users.affinity.quality", by=((LOGGING, "click sd of videos"),)),
        Knob("users.affinity.match", by=((RANDOM, "click"),)),
        Knob("users.affinity.activity", 0.05, log=False, by=_OF_ACTIVITY),
        Knob("data.logging.temperature", by=_CONCENTRATION),
        Knob("data.logging.epsilon", 0.1, most=1.0, by=((RANDOM, "click"), *_CONCENTRATION)),
        Knob("data.logging.params.boost", by=_CONCENTRATION),
    ),
    (
        *_both("click", "click mean of videos", "click mean of users"),
        *((LOGGING, f"click sd of {name}") for name in ("users", "videos")),
        *_OF_ACTIVITY,
        *_CONCENTRATION,
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
        Knob("data.logging.params.brevity", log=False, by=((LOGGING, "watch/duration p50"),)),
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
    Stage("visits", (_VISITS,), 8),
    Stage("clicks", (_CLICKS,), 12),
    Stage("durations", tuple(_duration(key, name) for key, name in _DURATIONS.items()), 5),
    Stage("watching", (_WATCH,), 10),
    Stage(
        "reactions",
        tuple(
            _reaction(kind)
            for kind in ("like", "comment", "forward", "follow", "hate", "profile_enter")
        ),
        5,
    ),
)
"""All that can be fitted, whatever the targets."""


def stages(targets: Sequence[PublishedFigure]) -> tuple[Stage, ...]:
    """What these targets can fit: their marginals, and the knobs that one of these is about."""
    wanted = {target[:2] for target in targets}
    fitted = []
    for stage in STAGES:
        blocks = [_of_targets(block, wanted) for block in stage.blocks]
        blocks = [block for block in blocks if block.knobs and block.marginals]
        if blocks:
            fitted.append(Stage(stage.name, tuple(blocks), stage.evaluations))
    return tuple(fitted)


def _of_targets(block: KnobBlock, wanted: set[Place]) -> KnobBlock:
    marginals = tuple(name for name in block.marginals if name in wanted)
    knobs = tuple(knob for knob in block.knobs if not knob.by or wanted & set(knob.by))
    return KnobBlock(knobs, marginals)


Report = Callable[[str, Mapping[str, float], float], None]
"""Called after every simulation as (stage, values by key, cost)."""


def fit(
    scenario: Scenario, report: Report, rounds: int = 1, folder: Path | None = None
) -> Scenario:
    """The scenario with its free parameters moved to the targets that it names, stage by stage.

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
    targets = held_to(scenario.calibration)
    for _ in range(rounds):
        for stage in stages(targets):
            scenario = fit_stage(scenario, stage, report, targets, folder)
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
    most = np.array(
        [
            np.log(knob.most / s) if knob.log else knob.most - s
            for s, knob in zip(start, knobs, strict=True)
        ]
    )
    most = np.maximum(most, 1e-9)  # a knob that starts at its most may go down alone
    feeds = feeds_of(wanted[name] for name in names)
    memory: dict[bytes, Floats] = {}

    def at(z: Floats) -> Scenario:
        moved = [
            min(s * np.exp(x) if knob.log else s + x, knob.most)
            for s, x, knob in zip(start, z, knobs, strict=True)
        ]
        return with_values(
            scenario, {k.key: float(f"{m:.5g}") for k, m in zip(knobs, moved, strict=True)}
        )

    def residuals(z: Floats) -> Floats:
        if z.tobytes() not in memory:
            tried = at(z)
            simulated = measured(tried, feeds, folder=folder)
            memory[z.tobytes()] = np.array(
                [_residual(wanted[name], simulated.get(name[0], {})) for name in names]
            )
            report(
                stage.name,
                {k.key: value_of(tried, k.key) for k in knobs},
                float((memory[z.tobytes()] ** 2).sum()),
            )
        return memory[z.tobytes()]

    def differences(z: Floats) -> Floats:
        """Forward differences, backward at a knob's most; one knob of every block at a time."""
        here, out = residuals(z), np.zeros((len(names), len(knobs)))
        for j in range(rank_in_block.max() + 1):
            tried = np.flatnonzero(rank_in_block == j)
            step = np.zeros(len(knobs))
            step[tried] = [knobs[i].step for i in tried]
            step = np.where(z + step > most, -step, step)
            change = residuals(z + step) - here
            for i in tried:
                mine = row_block == block_of[i]
                out[mine, i] = change[mine] / step[i]
        return out

    known: list[tuple[Floats, Floats]] = []

    def jacobian(z: Floats) -> Floats:
        """Differences at the start; from there on what each step has shown of them (Broyden, "A
        class of methods for solving nonlinear simultaneous equations", 1965), block by block: a
        simulation a step in place of one for each knob.
        """
        if not known:
            known.append((z.copy(), differences(z)))
            return known[-1][1]
        last, slopes = known[-1]
        step = z - last
        surprise = residuals(z) - residuals(last) - slopes @ step
        slopes = slopes.copy()
        for block in range(len(stage.blocks)):
            rows, columns = row_block == block, block_of == block
            length = float(step[columns] @ step[columns])
            if length > 0.0:
                slopes[np.ix_(rows, columns)] += np.outer(surprise[rows], step[columns]) / length
        known.append((z.copy(), slopes))
        return slopes

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


def _residual(target: PublishedFigure, simulated: Mapping[str, Marginal]) -> float:
    """log(simulated / target) in units of the tolerance and of the error of a measured target; a
    marginal that cannot be measured counts as a thousandth of its target.
    """
    value = simulated[target.name].value if target.name in simulated else 0.0
    ratio = max(float(np.nan_to_num(value)) / target.value, 1e-3)
    return float(np.log(ratio) / np.hypot(TOLERANCE, target.se / target.value))


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
