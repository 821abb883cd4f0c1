"""Mapping: where in the space of one or two parameters an arm wins.

Runs are placed one after another, each where it leaves the fewest signs undecided, and each in a
world of its own: another seed draws other videos, users and fits, so that the surface
speaks of no one world and of no one fit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from policies.base import Progress, silent
from simulator.log.eventlog import EventLog
from simulator.log.workspace import RunError, Workspace
from simulator.run.executors import executor
from simulator.run.pipeline import check, simulate
from simulator.scenario.model import Scenario
from simulator.stats import units, verdict
from simulator.stats.intervals import quantile
from simulator.stats.methods import method_lifts, unknown
from simulator.surface.axes import Axis, MapError, read_axes
from simulator.surface.compared import one_arm
from simulator.surface.process import (
    Floats,
    Observations,
    Surface,
    band,
    next_cell,
    posterior,
    spread,
)

RUNS = 24
"""Runs of a map, unless asked otherwise."""
FIRST = {1: 5, 2: 9}
"""Runs that are spread over the cells before any is placed by what is known."""

Sign = Literal["higher", "lower", "undecided"]
SIGNS: tuple[Sign, ...] = ("higher", "lower", "undecided")


@dataclass(frozen=True)
class MapCell:
    """What is known of the lift at one cell.

    Attributes:
        values: of the axes.
        lift: posterior mean, a fraction.
        low, high: of the band that holds the lift at all cells at once.
        sign: what the band says.
    """

    values: tuple[Any, ...]
    lift: float
    low: float
    high: float
    sign: Sign


@dataclass(frozen=True)
class MapRun:
    """One run.

    Attributes:
        values: of the axes.
        seed: of the scenario.
        lift: of the verdict, a fraction.
        error: its standard error.
    """

    values: tuple[Any, ...]
    seed: int
    lift: float
    error: float


@dataclass(frozen=True)
class LiftMap:
    """A map: the content of map.json (docs/map.md).

    Attributes:
        scenario: its name.
        arm, control, metric: whose lift, over whom, in what.
        of: what the standard errors of the runs hold: users ("models"), or users and fits
            ("methods").
        level: of the band.
        seeds: that the runs are dealt over.
        between_seeds: standard deviation of the lift between runs of one cell that their standard
            errors do not explain: other videos, users and fits.
        axes: of the cells, the last changing fastest.
        cells: the surface.
        runs: in their order.
    """

    scenario: str
    arm: str
    control: str
    metric: str
    of: Literal["models", "methods"]
    level: float
    seeds: int
    between_seeds: float
    axes: tuple[Axis, ...]
    cells: tuple[MapCell, ...]
    runs: tuple[MapRun, ...]

    def share(self, sign: Sign) -> float:
        """The share of the cells that have a sign."""
        return sum(cell.sign == sign for cell in self.cells) / len(self.cells)


def map_lift(
    scenario: Scenario,
    over: Sequence[str],
    out: Path | str,
    *,
    arm: str | None = None,
    metric: str = "click",
    runs: int = RUNS,
    seeds: int | None = None,
    level: float = 0.95,
    folder: Path | str = Path(),
    resume: bool = False,
    progress: Progress = silent,
) -> LiftMap:
    """The lift of an arm as a surface over one or two keys of a scenario.

    Args:
        scenario: checked; only the arm and the control are run.
        over: `KEY=VALUES` of one key or two (`simulator.surface.axes.read_axes`).
        out: a folder for each run is made in its folder `runs`.
        arm: whose lift; None where there is only one besides the control.
        metric: of the log.
        runs: how many at most; fewer where the sign of every cell is decided before.
        seeds: of the scenario, dealt over the runs in turn; None: each run has one of its own.
            Runs of one seed share the fits of policies where the keys leave their past as it is.
        level: of the band.
        folder: where the scenario lies.
        resume: take over the finished runs in `out`.
        progress: told of the runs.

    Raises:
        MapError: the map cannot be made: an axis, an arm, a metric, or a lift that is not there.
        ScenarioError, PolicyError, RunError, DataError, FileError: as `simulator.run.pipeline.run`.
    """
    out, folder = Path(out), Path(folder)
    axes = read_axes(scenario, over)
    settings = _settings(scenario, axes, arm, metric, runs, seeds, level)
    survey = _Survey(scenario, axes, settings, out, folder, progress)
    if survey.home.exists() and not resume:
        raise RunError(
            f"{out} already holds a map; --resume continues it, or give --out another folder"
        )
    return survey.all()


@dataclass(frozen=True)
class _Settings:
    arm: str
    control: str
    metric: str
    runs: int
    seeds: int
    level: float


def _settings(
    scenario: Scenario,
    axes: Sequence[Axis],
    arm: str | None,
    metric: str,
    runs: int,
    seeds: int | None,
    level: float,
) -> _Settings:
    """What is asked for, checked."""
    control = scenario.control
    chosen_arm = one_arm(scenario, arm, metric, "A map", MapError)
    for axis in axes:
        section, _, rest = axis.key.partition(".")
        if section == "arms" and rest.partition(".")[0] not in (chosen_arm, control):
            raise MapError(
                f"--over {axis.key}: must be of {chosen_arm} or of the control, {control}; no other"
                " arm is run"
            )
    first = FIRST[len(axes)]
    if runs < first:
        raise MapError(f"--runs: must be at least {first}, which are spread first; got {runs}")
    if seeds is not None and seeds < 1:
        raise MapError(f"--seeds: must be at least 1; got {seeds}")
    return _Settings(chosen_arm, control, metric, runs, min(seeds or runs, runs), level)


class _Survey:
    """The runs of one map."""

    def __init__(
        self,
        scenario: Scenario,
        axes: tuple[Axis, ...],
        settings: _Settings,
        out: Path,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.axes, self.settings, self.folder, self.progress = axes, settings, folder, progress
        self.home = out / "runs"
        self.name, self.first_seed = scenario.name, scenario.seed
        self.values = tuple(product(*(axis.values for axis in axes)))
        self.scenarios = [self._at(scenario, values) for values in self.values]
        steps = (np.linspace(0.0, 1.0, len(axis.values)) for axis in axes)
        self.places = np.array(list(product(*steps)))
        self.of: Literal["models", "methods"] = "models"
        self.begun, self.simulated = time.monotonic(), 0
        self.cells: list[int] = []
        self.dealt: list[int] = []
        self.lifts: list[float] = []
        self.errors: list[float] = []

    def _at(self, scenario: Scenario, values: Sequence[Any]) -> Scenario:
        """The scenario of a cell, with the two arms that are compared."""
        keys = (axis.key for axis in self.axes)
        there = scenario.changed(dict(zip(keys, values, strict=True)), "--over")
        names = (self.settings.arm, self.settings.control)
        arms = {name: one for name, one in there.arms.items() if name in names}
        design = there.design.model_copy(update={"control": self.settings.control})
        return there.model_copy(update={"arms": arms, "design": design, "worlds": {}})

    def all(self) -> LiftMap:
        """Run after run, to the finished map."""
        self._check()
        for cell in spread(self.places, FIRST[len(self.axes)]):
            self._add(int(cell))
        while True:
            runs = Observations(*map(np.array, (self.cells, self.lifts, self.errors, self.dealt)))
            surface = posterior(self.places, runs)
            visits = np.bincount(self.cells, minlength=len(self.places))
            is_open = visits < self.settings.seeds
            is_last = len(self.cells) == self.settings.runs or not is_open.any()
            ends = self._ends(surface, is_last)
            if ends is not None:
                return self._map(surface, *ends)
            self._add(next_cell(surface, runs.usual_error, is_open))

    def _add(self, cell: int) -> None:
        """Run a cell with the next seed that it has not been run with: the same again would say
        nothing new.
        """
        run, seeds = len(self.cells), self.settings.seeds
        used = [seed for at, seed in zip(self.cells, self.dealt, strict=True) if at == cell]
        turns = ((run + i) % seeds for i in range(seeds))
        self.cells.append(cell)
        self.dealt.append(next(seed for seed in turns if seed not in used))
        lift, error = self._lift(run)
        self.lifts.append(lift)
        self.errors.append(error)

    def _ends(self, surface: Surface, is_last: bool) -> tuple[Floats, Floats] | None:
        """The band, where no more runs are wanted: they are used up, or every sign is decided."""
        # A band is drawn only where one of a single cell decides every sign: none is narrower.
        narrowest = float(quantile(np.inf, self.settings.level)) * surface.sd
        if not is_last and (np.abs(surface.mean) < narrowest).any():
            return None
        low, high = band(surface, self.settings.level, self.first_seed)
        return (low, high) if is_last or ((low > 0) | (high < 0)).all() else None

    def _check(self) -> None:
        """What every value of an axis needs from outside the scenario, before the first run."""
        with executor("serial", self.progress, 1) as here:
            strides = [len(self.values) // len(self.axes[0].values), 1]
            for axis, stride in zip(self.axes, strides, strict=False):
                for place in range(len(axis.values)):
                    one = self.scenarios[place * stride]
                    check(one, self.folder, here, strangers=False)

    def _seed(self, run: int) -> int:
        return (self.first_seed + self.dealt[run]) % 2**64

    def _lift(self, run: int) -> tuple[float, float]:
        """Lift and standard error of a run, which is simulated unless it is there."""
        self._tell(run)
        scenario = self._scenario(run)
        where = Workspace(self.home / f"{run:03d}")
        if not where.finished:
            self._simulate(scenario, where, run)
            self.simulated += 1
        log = EventLog.open(where.log)
        if log.metadata.scenario != scenario.identity():
            raise RunError(
                f"{where.root} holds a run of another scenario, or of a map of another metric or"
                " with other axes or seeds; undo the change, or give --out another folder"
            )
        return self._read(log, run)

    def _scenario(self, run: int) -> Scenario:
        return self.scenarios[self.cells[run]].model_copy(update={"seed": self._seed(run)})

    def _simulate(self, scenario: Scenario, where: Workspace, run: int) -> None:
        """A run, with the fits of the last one before it that has the same past."""
        fits = None
        for other in range(run):
            if _past(self._scenario(other)) == _past(scenario):
                fits = Workspace(self.home / f"{other:03d}").models
        simulate(
            scenario,
            where.root,
            folder=self.folder,
            resume=where.root.exists(),
            progress=lambda stage, *news: self.progress(f"run {run + 1}: {stage}", *news),
            fits=fits,
        )

    def _tell(self, run: int) -> None:
        left = self.settings.runs - run
        figures = {}
        if self.simulated:
            minutes = (time.monotonic() - self.begun) / self.simulated * left / 60
            figures = {"minutes left": minutes}
        self.progress("runs of the map", run, self.settings.runs, figures)

    def _read(self, log: EventLog, run: int) -> tuple[float, float]:
        """Lift and standard error by the verdict on methods, where a run has several fits, else by
        that on models.

        The error is the half-width of the 95% interval over the normal quantile: where few degrees
        of freedom make the interval wider, so they make the error.
        """
        asked = self.settings
        days = units.read(log, [asked.metric])
        unit = self.scenarios[0].assignment.unit
        if self.scenarios[0].fits.number > 1 and unknown(days, asked.control, asked.arm) is None:
            self.of = "methods"
            (of_methods,) = method_lifts(days, asked.control, unit=unit, interval="delta")
            row = of_methods.lift
        else:
            row = verdict.lift(days.by(unit), asked.metric, asked.control, asked.arm, "delta")
        error = (row.high - row.low) / 2.0 / float(quantile(np.inf, verdict.LEVEL))
        if row.control_mean == 0.0 or not np.isfinite([row.lift, error]).all():
            raise MapError(
                f"run {run + 1} ({self.home / f'{run:03d}'}): no lift of {asked.metric} with a"
                " standard error; take more users or days, or another metric"
            )
        return row.lift, error

    def _map(self, surface: Surface, low: Floats, high: Floats) -> LiftMap:
        asked = self.settings
        cells = []
        for values, *numbers in zip(self.values, surface.mean, low, high, strict=True):
            mean, below, above = map(_rounded, numbers)
            cells.append(MapCell(values, mean, below, above, _sign(below, above)))
        runs = []
        for run, cell in enumerate(self.cells):
            lift, error = self.lifts[run], self.errors[run]
            runs.append(MapRun(self.values[cell], self._seed(run), lift, error))
        return LiftMap(
            self.name,
            asked.arm,
            asked.control,
            asked.metric,
            self.of,
            asked.level,
            asked.seeds,
            _rounded(surface.between_seeds),
            self.axes,
            tuple(cells),
            tuple(runs),
        )


def _past(scenario: Scenario) -> dict[str, Any]:
    """What decides the history that policies are fitted on."""
    later = ("arms", "design", "metrics", "fits", "published", "description")
    return {key: value for key, value in scenario.identity().items() if key not in later}


def _sign(low: float, high: float) -> Sign:
    return "higher" if low > 0 else "lower" if high < 0 else "undecided"


def _rounded(value: float) -> float:
    """To a millionth of a percent: linear algebra has other last bits on other processors."""
    return round(float(value), 8) + 0.0
