"""An ensemble of worlds that all meet the targets of a scenario: what a synthetic world may be,
given what is known.

Each world is drawn from all that its parameters may be, and then moved to the targets, no further
than it must: randomised maximum likelihood (Oliver, He & Reynolds, "Conditioning permeability
fields to pressure data", 1996), which draws from the posterior where marginals are linear in the
parameters and is a good proposal where they are not. An emulator, a regression of the marginals on
the parameters, says where to move; as in history matching (Craig et al. 1997; Vernon, Goldstein &
Bower, Bayesian Analysis 2010) it decides what is tried, never what is kept: a world is kept only if
all marginals of its own simulation are within tolerance, as a rejection sampler would (Beaumont,
"Approximate Bayesian computation in evolution and ecology", 2010).

Parameters that the marginals identify so end near the scenario's, together, one making up for
another; those of which they say nothing (`OPEN`) stay spread over all of their range. Every world
has a seed, and so a catalogue and users, of its own (or all have one), the same while it is moved:
what its seed brings is met as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import yaml

from policies.base import Progress, silent
from simulator.calibration.search import (
    hold_to_own_parameters,
    stages,
    value_of,
    with_values,
)
from simulator.calibration.targets import (
    TARGETS,
    TOLERANCE,
    CalibrationError,
    PublishedFigure,
    TargetRow,
    compare,
    feeds_of,
    held_to,
    is_beyond,
    measured,
)
from simulator.config.document import near

if TYPE_CHECKING:
    from simulator.scenario.model import Scenario

Floats = npt.NDArray[np.float64]

STEPS = 6
"""Steps of a fitted parameter (`search.Knob.step`) to either side of the scenario's value."""

TRIES = 7
"""Simulations of a world before another is drawn in its place; most need two or three."""

SEEDS = 8
"""Draws of users and videos that tell how far a marginal varies between them."""

PATIENCE = 3
"""Worlds drawn for each that is wanted, after which the targets count as out of reach."""


@dataclass(frozen=True)
class Range:
    """What a parameter may be before anything is matched: anything from `low` to `high`, alike.

    Attributes:
        key: dotted, in the scenario.
        low, high: its ends.
        log: whether its logarithm is alike, in place of itself.
        whole: whether it is a whole number.
        near: share of the range, around its middle, on which the emulator is made.
    """

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False
    near: float = 1.0

    def at(self, place: float) -> float:
        """The value at a place in -1..1."""
        share = (place + 1.0) / 2.0
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + (self.high - self.low) * share
        return round(value) if self.whole else float(f"{value:.5g}")


OPEN: tuple[Range, ...] = (
    Range("users.interests.per_user", 1, 8, whole=True),
    Range("users.interests.spread", 0.2, 0.8),
    Range("users.interests.concentration", 0.3, 2.0),
    Range("users.videos.author_spread", 0.2, 1.0),
    Range("users.videos.spread", 0.15, 0.7),
    Range("users.affinity.author", 0.0, 0.8),
    Range("users.affinity.taste", 0.0, 1.2),
    Range("users.satiation.strength", 0.0, 0.3),
    Range("users.satiation.recovery", 1.0, 48.0, log=True),
    Range("users.drift.persistence", 0.5, 1.0),
    Range("users.drift.renewal", 0.001, 0.1, log=True),
    Range("users.focus.strength", 0.0, 0.8),
    Range("users.patience.leave", 0.3, 0.55),
    Range("users.patience.satisfaction", 0.0, 2.0),
    Range("users.returning.satisfaction", 0.0, 2.0),
    Range("users.returning.memory", 0.5, 0.95),
)
"""Parameters of which nothing is published, and what we would believe of each."""


@dataclass(frozen=True)
class Ensemble:
    """Worlds that all meet the targets.

    Attributes:
        worlds: by name, its `seed` and what it `changes` in the scenario.
        tried: how many were simulated for it.
        left: by parameter, the spread over the ensemble as a share of that of its whole range: 1
            where the marginals say nothing of it.
    """

    worlds: Mapping[str, Mapping[str, Any]]
    tried: int
    left: Mapping[str, float]

    def to_yaml(self, about: str) -> str:
        """The file that a scenario names under `worlds`; `about` is its comment."""
        comment = "".join(f"# {line}\n" for line in about.splitlines())
        return comment + yaml.safe_dump(
            {"worlds": {name: dict(world) for name, world in self.worlds.items()}},
            sort_keys=False,
            default_flow_style=None,
            width=120,
        )


def ranges(scenario: Scenario, vary: Sequence[str] = ()) -> list[Range]:
    """The parameters to draw: those that `abtest calibrate --fit` fits, near the scenario's values,
    and those of which nothing is published (`OPEN`).

    Args:
        scenario: of `choice` users.
        vary: keys, or beginnings of keys (`users.drift`); all if empty.

    Raises:
        CalibrationError: one of `vary` names none of them.
    """
    every = {one.key: one for one in (*_around(scenario), *OPEN)}
    chosen = {
        key: one
        for key, one in every.items()
        if not vary or any(key == name or key.startswith(f"{name}.") for name in vary)
    }
    for name in vary:
        if not any(key == name or key.startswith(f"{name}.") for key in chosen):
            raise CalibrationError(
                f"--vary {name}: no parameter that can be drawn; {near(name, every)}"
            )
    return list(chosen.values())


def _around(scenario: Scenario) -> Iterator[Range]:
    """The ranges of the parameters that are fitted. One that the scenario does not name (of its
    logging policy) stays what it is.
    """
    for stage in stages(held_to(scenario.calibration) or TARGETS):
        for knob in (knob for block in stage.blocks for knob in block.knobs):
            try:
                here = value_of(scenario, knob.key)
            except ValueError:
                continue
            reach = STEPS * knob.step
            low, high = here - reach, here + reach
            if knob.log:
                low, high = here * np.exp(-reach), here * np.exp(reach)
            yield Range(knob.key, low, min(high, knob.most), log=knob.log and here > 0, near=0.3)


def draw(
    scenario: Scenario,
    number: int,
    vary: Sequence[str] = (),
    *,
    tolerance: float = TOLERANCE,
    targets: Sequence[PublishedFigure] | None = None,
    one_seed: bool = False,
    progress: Progress = silent,
    folder: Path | None = None,
) -> Ensemble:
    """Draw worlds that meet all targets; the same again from the same scenario.

    Args:
        scenario: synthetic, of `choice` users; its seed decides all draws.
        number: of worlds.
        vary: parameters to draw (`ranges`).
        tolerance: relative.
        targets: what to meet; those that the scenario names if left out.
        one_seed: all worlds have the scenario's seed, and so its catalogue and users, and differ in
            their parameters alone. Small worlds need it: what their seed brings is more than the
            tolerance.
        progress: told of worlds.
        folder: that of the scenario, where plug-in files are looked up.

    Raises:
        CalibrationError: the data is not synthetic, the users are of another kind, or too few
            worlds meet the targets.
    """
    hold_to_own_parameters(scenario)
    parameters = ranges(scenario, vary)
    figures = tuple(targets or held_to(scenario.calibration))
    search = _Search(scenario, parameters, figures, tolerance, folder)
    if not one_seed:
        search.compare_seeds()
    search.make_emulator()
    kept: list[_Try] = []
    for i in range(PATIENCE * number):
        if len(kept) == number:
            break
        progress("draw worlds", len(kept), number, {"tried": float(len(search.tries))})
        seed = scenario.seed if one_seed else (scenario.seed + 1 + i) % 2**64
        world = search.draw_world(seed)
        if world is not None:
            kept.append(world)
        elif i + 1 >= GIVE_UP and len(kept) < (i + 1) / PATIENCE:
            break
    if len(kept) < number:
        raise CalibrationError(search.out_of_reach(len(kept), number))
    digits = max(2, len(str(number)))
    worlds = {
        f"w{i:0{digits}d}": {"seed": one.seed, "changes": search.changes(one.place)}
        for i, one in enumerate(kept, 1)
    }
    # A uniform law on -1..1 has variance 1/3.
    left = np.std(np.array([one.place for one in kept]), axis=0) * np.sqrt(3.0)
    keys = [one.key for one in parameters]
    return Ensemble(worlds, len(search.tries), dict(zip(keys, left.tolist(), strict=True)))


GIVE_UP = 12
"""Worlds after which the share of those that meet the targets is looked at."""


@dataclass(frozen=True)
class _Try:
    """A simulated world.

    Attributes:
        place: of its parameters, `[p]` in -1..1.
        seed: of the world.
        away: log(simulated / target), `[t]`.
        error: its standard error, `[t]`, 0 where none is known.
        broken: feed and name of the marginals that are out of tolerance.
    """

    place: Floats
    seed: int
    away: Floats
    error: Floats
    broken: tuple[tuple[str, str], ...]


class _Search:
    """What has been simulated so far, and what the emulator makes of it."""

    def __init__(
        self,
        scenario: Scenario,
        parameters: Sequence[Range],
        targets: tuple[PublishedFigure, ...],
        tolerance: float,
        folder: Path | None,
    ) -> None:
        self.scenario, self.parameters, self.targets = scenario, parameters, targets
        self.tolerance, self.folder = tolerance, folder
        self.random = np.random.default_rng(scenario.seed)
        self.tries: list[_Try] = []
        self.between_seeds: Floats | None = None

    def changes(self, place: Floats) -> dict[str, float]:
        """The numbers at a place."""
        return {one.key: one.at(x) for one, x in zip(self.parameters, place.tolist(), strict=True)}

    def compare_seeds(self) -> None:
        """Measure how far each marginal varies between draws of users and videos, `[t]`, as a share
        of its target: the scenario's parameters under `SEEDS` further seeds.

        The standard error of a marginal counts users alone. A catalogue of some thousand videos, of
        which a few hundred are shown most, varies as well: in `scenarios/drawn_worlds.yaml` the
        standard deviation between seeds is two to five times that error. In history matching this
        is the variance of a stochastic simulator, a part of every implausibility (Vernon, Goldstein
        & Bower 2010).
        """
        seeds = [(self.scenario.seed - 1 - r) % 2**64 for r in range(SEEDS)]
        by_seed = [self.compared(self.scenario.model_copy(update={"seed": s})) for s in seeds]
        shares = np.array([[row.simulated / row.target for row in rows] for rows in by_seed])
        self.between_seeds = np.nan_to_num(shares.std(axis=0, ddof=1))

    def compared(self, world: Scenario) -> list[TargetRow]:
        """The marginals of a world beside their targets; the standard error is at least what
        marginals vary by between seeds, where that was measured.
        """
        figures = measured(world, feeds_of(self.targets), folder=self.folder)
        rows = compare(figures, self.tolerance, self.targets)
        if self.between_seeds is None:
            return rows
        errors = self.between_seeds * [row.target for row in rows]
        return [
            row._replace(se=max(error, float(np.nan_to_num(row.se))))
            for row, error in zip(rows, errors.tolist(), strict=True)
        ]

    def make_emulator(self) -> None:
        """Simulate a Latin hypercube of places, all with the scenario's own seed: what they differ
        in is then the parameters' doing.
        """
        from scipy.stats.qmc import LatinHypercube

        p = len(self.parameters)
        share = LatinHypercube(p, seed=self.random).random(max(16, 5 * p // 2))
        for place in (2.0 * share - 1.0) * [one.near for one in self.parameters]:
            self.simulate(place, self.scenario.seed)
        self.learn()

    def learn(self) -> None:
        """Regress the marginals on the places of the simulations that are nearest to the
        targets.
        """
        z = np.array([one.place for one in self.tries])
        y = np.array([one.away for one in self.tries])
        near = np.argsort(np.square(y).sum(axis=1), kind="stable")[: 3 * len(self.parameters) + 16]
        self.slope, self.intercept, self.noise = _regression(z[near], y[near])

    def draw_world(self, seed: int) -> _Try | None:
        """A world that meets all targets, from a place drawn at random; None where it is not
        reached.

        It aims at targets of its own, anywhere within a third of the tolerance of the published
        ones: the ensemble has the spread that the tolerance leaves, less what a draw may miss.
        """
        p, t = len(self.parameters), len(self.intercept)
        drawn = self.random.uniform(-1.0, 1.0, p)
        aim = self.random.uniform(-1.0, 1.0, t) * self.tolerance / 3.0
        weight = 1.0 / np.sqrt(np.square(self.tolerance / 3.0) + self.noise)
        start = self.intercept + drawn @ self.slope - aim
        place = self.moved(drawn, drawn, start, self.slope, weight)
        tries: list[_Try] = []
        for _ in range(TRIES):
            here = self.simulate(place, seed)
            if not here.broken:
                break
            tries.append(here)
            best = min(tries, key=lambda one: len(one.broken))
            slope = self.slope_at(best, tries)
            weight = 1.0 / np.hypot(self.tolerance / 3.0, best.error)
            place = self.moved(drawn, best.place, best.away - aim, slope, weight)
        self.learn()
        return None if here.broken else here

    def slope_at(self, here: _Try, tries: Sequence[_Try]) -> Floats:
        """The emulator's slopes with the least change that explains what a world's own tries have
        shown (Broyden, "A class of methods for solving nonlinear simultaneous equations", 1965,
        damped as the regression is, so that short steps do not bend them).
        """
        steps = np.array([one.place for one in tries]) - here.place
        surprise = np.array([one.away for one in tries]) - here.away - steps @ self.slope
        gram = steps.T @ steps + DAMPING * np.eye(steps.shape[1])
        return np.asarray(self.slope + np.linalg.solve(gram, steps.T @ surprise))

    def moved(
        self, drawn: Floats, place: Floats, away: Floats, slope: Floats, weight: Floats
    ) -> Floats:
        """The place within the box that balances how far its marginals are from their aims and how
        far it is from where it was drawn.

        Least squares with one row for each target and one for each parameter, whose prior standard
        deviation, of a uniform law on -1..1, is 1 / sqrt 3.
        """
        from scipy.optimize import lsq_linear

        prior = np.sqrt(3.0) * np.eye(len(place))
        rows = np.vstack([(slope * weight).T, prior])
        wanted = np.concatenate([weight * (place @ slope - away), prior @ drawn])
        return np.asarray(lsq_linear(rows, wanted, bounds=(-1.0, 1.0)).x)

    def simulate(self, place: Floats, seed: int) -> _Try:
        """Simulate a world and compare its marginals."""
        world = with_values(self.scenario, self.changes(place)).model_copy(update={"seed": seed})
        rows = self.compared(world)
        # A rate of which nobody has an event counts as a tenth of its target: it must not bend
        # the regression of all.
        ratio = np.nan_to_num(np.array([row.ratio for row in rows]), nan=0.1)
        error = np.nan_to_num(np.array([row.se / row.target for row in rows]))
        broken = tuple((row.feed, row.name) for row in rows if is_beyond(row, self.tolerance))
        self.tries.append(_Try(place, seed, np.log(np.clip(ratio, 0.1, 10.0)), error, broken))
        return self.tries[-1]

    def out_of_reach(self, kept: int, number: int) -> str:
        """Why there are not enough worlds, in words."""
        broken = Counter(name for one in self.tries[len(self.tries) // 2 :] for name in one.broken)
        worst = ", ".join(f"{feed} {name} ({n})" for (feed, name), n in broken.most_common(5))
        return (
            f"{kept} of {number} worlds after {len(self.tries)} simulations: most often out of"
            f" tolerance were {worst}. Fit the scenario first (--fit), give it more users or a"
            " longer history, vary more of what moves them, or raise --tolerance"
        )


def _regression(z: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """Slopes `[p, t]`, intercepts `[t]` and residual variances `[t]` of targets `y` on places `z`:
    ridge regression.
    """
    centre, mean = z.mean(axis=0), y.mean(axis=0)
    x = z - centre
    gram = x.T @ x + DAMPING * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, x.T @ (y - mean))
    degrees = float(np.trace(np.linalg.solve(gram, x.T @ x)))
    left = np.square(y - mean - x @ slope).sum(axis=0)
    return slope, mean - centre @ slope, left / max(len(z) - 1.0 - degrees, 1.0)


DAMPING = (0.05 / 0.2) ** 2
"""What two simulations of like parameters differ by over what half a range moves, both of the
logarithm of a marginal, squared: typical of the targets of a history of 100,000 impressions.
"""


def bootstraps(scenario: Scenario, number: int) -> Ensemble:
    """Worlds of users who are fitted to the log with its users drawn anew, each another time: the
    Bayesian bootstrap (Rubin, Annals of Statistics 1981).

    Raises:
        CalibrationError: the users are not fitted to a log.
    """
    key = {"learned": "users.bootstrap", "logged": "users.response.bootstrap"}
    users: Any = scenario.users
    if users.kind not in key:
        raise CalibrationError(
            f"users.kind: worlds are drawn of choice, learned and logged users; got {users.kind!r}"
        )
    digits = max(2, len(str(number)))
    worlds = {f"w{i:0{digits}d}": {"changes": {key[users.kind]: i}} for i in range(1, number + 1)}
    return Ensemble(worlds, number, {})
