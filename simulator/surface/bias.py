"""The bias of a design: what an A/B test reports where arms learn from one another's data, beside
what it is meant to foretell.

The global effect is known in a simulation: everybody lives with the treatment, which learns from
everybody, and again with the control. A test of half the users each tells it only as far as the
arms do not learn from what the other has shown (interference by shared training: Si, arXiv
2310.17496; "symbiosis bias": Brennan et al., arXiv 2309.07107).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from policies.base import DoubleArray, Progress, silent
from policies.streams import Purpose, philox
from simulator.designs.clusters import Clusters
from simulator.designs.paired import Paired
from simulator.designs.registry import DESIGNS
from simulator.designs.split import Split
from simulator.designs.switchback import Switchback
from simulator.log.eventlog import EventLog
from simulator.log.files import load_arrays, remove, save_arrays, write_text
from simulator.log.metadata import HISTORY
from simulator.log.workspace import RunError, Workspace, load_catalogue
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats import units, verdict
from simulator.stats.intervals import quantile
from simulator.stats.moments import relative
from simulator.stats.user_days import UserDays
from simulator.surface import kept_sums
from simulator.surface.compared import one_arm
from simulator.surface.groups import FEATURES, user_clusters

FITS = 4
"""Tests that are repeated, unless the scenario has `fits`."""
PER_CLUSTER = 30
"""Users of a cluster, unless asked otherwise."""

Refit = Literal["daily", "never"]


class BiasError(ValueError):
    """A bias that cannot be told; the message says what to change."""


@dataclass(frozen=True)
class Arrangement:
    """A way to make the test: the design, and what refits learn from.

    Attributes:
        kind: of the design.
        refit_on: `serving.refit_on`.
        words: what happens, in half a sentence.
    """

    kind: str
    refit_on: str
    words: str


GLOBAL = "global effect"

ARRANGEMENTS: dict[str, Arrangement] = {
    GLOBAL: Arrangement(
        Paired.kind, "own", "everybody has the treatment, against nobody; each learns from itself"
    ),
    "shared training": Arrangement(
        Split.kind, "pooled", "users are split; both arms learn from the log of all"
    ),
    "diverted data": Arrangement(
        Split.kind, "own", "users are split; each arm learns from its own users alone"
    ),
    "weighted training": Arrangement(
        Split.kind, "weighted", "users are split; an arm learns from what is likely to be its own"
    ),
    "user clusters": Arrangement(
        Clusters.kind, "pooled", "clusters of like users are split; both learn from the log of all"
    ),
    Switchback.kind: Arrangement(
        Switchback.kind, "pooled", "all have one arm a day; both arms learn from the log of all"
    ),
}
"""What is run, by name; the first is the truth."""


@dataclass(frozen=True)
class BiasRun:
    """What one test reported.

    Attributes:
        fit: the repetition, from 0: fits and assignment have seeds of their own.
        design: name of the arrangement.
        lift, low, high: its verdict, fractions.
        lift_of_twins: the same with what its users would have done in the global runs taken off,
            and what everybody did there put in place (the luck of who is in which arm cancels).
    """

    fit: int
    design: str
    lift: float
    low: float
    high: float
    lift_of_twins: float


@dataclass(frozen=True)
class DesignBias:
    """A design, over all repetitions.

    Attributes:
        design, words: name and half a sentence.
        lift: that it reports on average, a fraction.
        bias: `lift` less the global effect.
        low, high: 95% interval of the bias.
        half_width: of the 95% interval that one test prints, on average.
        held: tests whose 95% interval held the global effect of their repetition; one without an
            interval (a switchback of two days) holds nothing.
        left_out: why it was not run, or "".
    """

    design: str
    words: str
    lift: float = float("nan")
    bias: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    half_width: float = float("nan")
    held: int = 0
    left_out: str = ""

    @property
    def is_biased(self) -> bool:
        """Whether the interval of the bias leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class BiasResult:
    """The content of bias.json (docs/bias.md).

    Attributes:
        scenario: its name.
        arm, control, metric, days: what was compared.
        refit: whether arms learn at the end of each day.
        fits: repetitions.
        lift, low, high: the global effect with its 95% interval.
        designs: in the order of `ARRANGEMENTS`.
        runs: by repetition, then design.
    """

    scenario: str
    arm: str
    control: str
    metric: str
    days: int
    refit: Refit
    fits: int
    lift: float
    low: float
    high: float
    designs: tuple[DesignBias, ...]
    runs: tuple[BiasRun, ...]


def design_bias(
    scenario: Scenario,
    out: Path | str,
    *,
    arm: str | None = None,
    metric: str = "click",
    fits: int | None = None,
    refit: Refit = "daily",
    clusters: int | None = None,
    folder: Path | str = Path(),
    resume: bool = False,
    keep_runs: bool = False,
    progress: Progress = silent,
) -> BiasResult:
    """What each design of an A/B test would have reported, beside the global effect.

    Args:
        scenario: checked; only the arm and the control are run, in its own world.
        out: in its folder `runs` the sums of each run are kept, by user and day.
        arm: whose lift; None where there is only one besides the control.
        metric: of the log.
        fits: how often the whole is repeated, each time with other fits and another assignment,
            2 at least; None: the scenario's `fits`, or FITS.
        refit: `never`: nothing is learned in the A/B, so that nothing is shared: a check.
        clusters: of users, at most; None: one for each PER_CLUSTER users.
        folder: where the scenario lies.
        resume: take over the finished runs in `out`.
        keep_runs: keep the folder of each run, with its log and models, too.
        progress: told of the runs.

    Raises:
        BiasError: no such arm or metric, too few repetitions, no lift of the metric, or a metric
            that finished runs have no sums of.
        ScenarioError, PolicyError, RunError, DataError, FileError: as `simulator.run.pipeline.run`.
    """
    out, folder = Path(out), Path(folder)
    asked = _settings(scenario, arm, metric, fits, refit, clusters)
    study = _Study(scenario, asked, out, folder, keep_runs, progress)
    if study.home.exists() and not resume:
        raise RunError(
            f"{out} already holds runs; --resume continues them, or give --out another folder"
        )
    return study.all()


@dataclass(frozen=True)
class _Settings:
    arm: str
    control: str
    metric: str
    fits: int
    refit: Refit
    clusters: int | None


def _settings(
    scenario: Scenario,
    arm: str | None,
    metric: str,
    fits: int | None,
    refit: Refit,
    clusters: int | None,
) -> _Settings:
    """What is asked for, checked."""
    chosen_arm = one_arm(scenario, arm, metric, "A bias", BiasError)
    number = fits or (scenario.fits.number if scenario.fits.number > 1 else FITS)
    if number < 2:
        raise BiasError(f"--fits: must be at least 2: one repetition has no interval; got {number}")
    if scenario.days < 2:
        raise BiasError(
            f"days: must be at least 2: an arm learns at a day's end; got {scenario.days}"
        )
    return _Settings(chosen_arm, scenario.control, metric, number, refit, clusters)


KEPT = "kept"
"""A file in the folder of runs that are to stay, with their logs and models."""


class _Study:
    """The runs of all designs and repetitions."""

    def __init__(
        self,
        scenario: Scenario,
        asked: _Settings,
        out: Path,
        folder: Path,
        keep_runs: bool,
        progress: Progress,
    ) -> None:
        self.scenario, self.asked, self.folder, self.progress = scenario, asked, folder, progress
        self.home = out / "runs"
        # A later call, with --resume, leaves what an earlier one was asked to keep.
        self.keep_runs = keep_runs or (self.home / KEPT).is_file()
        self.begun, self.simulated, self.visited = time.monotonic(), 0, 0
        self.left_out: dict[str, str] = {}
        self.sides: dict[str, list[_Sides]] = {}
        self.reported: dict[str, list[verdict.Lift]] = {}

    def all(self) -> BiasResult:
        """Run after run, to the result."""
        if self.keep_runs:
            write_text(self.home / KEPT, "")
        for fit in range(self.asked.fits):
            for name in ARRANGEMENTS:
                self._tell()
                self.visited += 1
                scenario = None if name in self.left_out else self._scenario(name, fit)
                if scenario is not None:
                    self._add(name, self._days(name, fit, scenario))
                    if name != GLOBAL:
                        self._clear(name, fit)
            self._clear(GLOBAL, fit)  # the other runs of the repetition have used its fits
        self._tell()
        return self._result()

    def _tell(self) -> None:
        total = self.asked.fits * len(ARRANGEMENTS)
        figures = {}
        if self.simulated:
            each = (time.monotonic() - self.begun) / self.simulated
            figures = {"minutes left": each * (total - self.visited) / 60}
        self.progress("runs of the designs", self.visited, total, figures)

    def _scenario(self, name: str, fit: int) -> Scenario | None:
        """The scenario of one run; None where the design is left out."""
        asked, scenario, how = self.asked, self.scenario, ARRANGEMENTS[name]
        seed = scenario.fits.training_seed(scenario.seed, fit)
        values: dict[str, Any] = {
            "arms": {
                arm: {**spec, "fits": None}
                for arm, spec in scenario.resolved()["arms"].items()
                if arm in (asked.arm, asked.control)
            },
            "fits": {"number": 1, "seed": seed, "users": scenario.fits.users},
            "worlds": {},
            "serving.refit": asked.refit,
            "serving.refit_on": how.refit_on,
        }
        design: dict[str, Any] = {"kind": how.kind, "control": asked.control}
        if fit:
            words = philox(scenario.seed, fit, 0, Purpose.ASSIGN, 0)
            design["seed"] = int(words[0]) | int(words[1]) << 32
        if how.kind == Clusters.kind:
            found = self._clusters()
            if found is None:
                self.left_out[name] = (
                    f"the catalogue has no {' or '.join(FEATURES)} of the items to cluster users by"
                )
                return None
            design["clusters"] = found
        return scenario.changed({**values, "design": design}, "abtest bias:")

    def _clusters(self) -> list[int] | None:
        """The cluster of each user, by the history that all runs share."""
        file = self.home / "clusters.npz"
        if file.exists():
            stored = load_arrays(file)
            number, cluster = int(stored["number"]), stored["cluster"]
            if number != (self.asked.clusters or 0):
                raise RunError(
                    f"{file} has the clusters of a run with other options; undo the change"
                    " (--clusters), or give --out another folder"
                )
            return cluster.tolist() or None
        first = self._place(GLOBAL, 0)
        catalogue = load_catalogue(first.models / "catalogue.npz")
        number = self.asked.clusters or max(catalogue.n_users // PER_CLUSTER, 4)
        past = EventLog.open(first.log).sequences(HISTORY)
        found = user_clusters(past, catalogue, number, self.scenario.seed)
        cluster = np.zeros(0, dtype=np.int64) if found is None else found
        save_arrays(file, {"number": np.array(self.asked.clusters or 0), "cluster": cluster})
        return cluster.tolist() or None

    def _place(self, name: str, fit: int) -> Workspace:
        return Workspace(self.home / f"{fit:03d}" / name.replace(" ", "-"))

    def _days(self, name: str, fit: int, scenario: Scenario) -> UserDays:
        """The sums of a run, which is simulated unless they are there."""
        where, metric = self._place(name, fit), self.asked.metric
        file = where.root.with_suffix(".npz")
        if file.exists():
            days, identity = kept_sums.load(file)
            self._check(file, identity, scenario)
            if metric not in days.metrics:
                raise BiasError(
                    f"--metric {metric}: the finished runs in {self.home.parent} kept the sums of"
                    f" {', '.join(days.metrics)}; take one of these, or give --out another folder"
                )
            return days
        if not where.finished:
            lent = None if name == GLOBAL else self._place(GLOBAL, fit).models
            simulate(
                scenario,
                where.root,
                folder=self.folder,
                resume=where.root.exists(),
                progress=lambda stage, *news: self.progress(f"{name} {fit + 1}: {stage}", *news),
                fits=lent,
            )
            self.simulated += 1
        log = EventLog.open(where.log)
        self._check(where.root, log.metadata.scenario, scenario)
        days = kept_sums.slim(units.read(log, dict.fromkeys([metric, *scenario.metric_names])))
        kept_sums.keep(days, scenario.identity(), file)
        return days

    def _check(self, place: Path, identity: Mapping[str, Any], scenario: Scenario) -> None:
        """Refuse what is of another scenario, or of other options.

        Raises:
            RunError: it is.
        """
        if identity != scenario.identity():
            raise RunError(
                f"{place} holds a run of another scenario, or of other options; undo the"
                " change, or give --out another folder"
            )

    def _clear(self, name: str, fit: int) -> None:
        """Remove a run whose sums are kept: its log, models and history would fill disks."""
        place = self._place(name, fit).root
        if not self.keep_runs:
            remove(place)

    def _add(self, name: str, days: UserDays) -> None:
        """Keep what a run says of both arms, and what it reports."""
        asked = self.asked
        if asked.metric in days.missing:
            raise BiasError(f"--metric {asked.metric}: the world's log has no data for it")
        truth = self.sides[GLOBAL][-1].days if name != GLOBAL else days
        sides = _Sides(days, truth, asked.metric, (asked.control, asked.arm))
        unit = DESIGNS[ARRANGEMENTS[name].kind].unit
        row = verdict.lift(days.by(unit), asked.metric, asked.control, asked.arm, "delta")
        if not np.isfinite(sides.lift()):
            raise BiasError(
                f"no lift of {asked.metric}: {asked.control} has none in {name}; take another"
                " metric, more users or more days"
            )
        self.sides.setdefault(name, []).append(sides)
        self.reported.setdefault(name, []).append(row)

    def _result(self) -> BiasResult:
        asked, truths = self.asked, self.sides[GLOBAL]
        effect = np.array([one.lift() for one in truths])
        low, high = over_fits(effect, np.stack([one.influence() for one in truths]))
        designs = [self._bias(name, effect) for name in ARRANGEMENTS if name != GLOBAL]
        runs = [
            BiasRun(
                fit,
                name,
                float(row.lift),
                float(row.low),
                float(row.high),
                float(self.sides[name][fit].lift()),
            )
            for fit in range(asked.fits)
            for name in self.reported
            for row in [self.reported[name][fit]]
        ]
        return BiasResult(
            self.scenario.name,
            asked.arm,
            asked.control,
            asked.metric,
            self.scenario.days,
            asked.refit,
            asked.fits,
            float(effect.mean()),
            low,
            high,
            tuple(designs),
            tuple(runs),
        )

    def _bias(self, name: str, effect: DoubleArray) -> DesignBias:
        words = ARRANGEMENTS[name].words
        if name in self.left_out:
            return DesignBias(name, words, left_out=self.left_out[name])
        lifts = np.array([one.lift() for one in self.sides[name]])
        moved = [
            one.influence() - truth.influence()
            for one, truth in zip(self.sides[name], self.sides[GLOBAL], strict=True)
        ]
        low, high = over_fits(lifts - effect, np.stack(moved))
        rows = self.reported[name]
        held = sum(row.low <= true <= row.high for row, true in zip(rows, effect, strict=True))
        half = float(np.mean([(row.high - row.low) / 2.0 for row in rows]))
        bias = float((lifts - effect).mean())
        return DesignBias(name, words, float(lifts.mean()), bias, low, high, half, int(held))


class _Sides:
    """Both arms of one run, with the luck of who is in which arm taken off by the twins of the
    global run (a control variate whose mean is known: what everybody did there).
    """

    def __init__(self, days: UserDays, truth: UserDays, metric: str, arms: tuple[str, str]) -> None:
        self.days = days
        terms = days.metrics[metric].terms
        self.control, self.treatment = (
            [_Sum.of(days, truth, term, arm) for term in terms] for arm in arms
        )

    def lift(self) -> float:
        """The lift, a fraction."""
        control, treatment = (
            side[0].value / (side[1].value if len(side) > 1 else 1.0)
            for side in (self.control, self.treatment)
        )
        return float(relative(control, treatment))

    def influence(self) -> DoubleArray:
        """First-order effect of each user on the lift, `[U]` (infinitesimal jackknife)."""
        # log(1 + lift) is a sum of +- logs of means, so its differential is a sum of ratios.
        out = np.zeros(len(self.control[0].influence))
        for side, sign in ((self.treatment, 1.0), (self.control, -1.0)):
            for place, one in enumerate(side):
                if one.value != 0.0:
                    out += (sign if place == 0 else -sign) * one.influence / one.value
        return (1.0 + self.lift()) * out


@dataclass(frozen=True)
class _Sum:
    """A mean per user and day, and the effect `[U]` of each user on it."""

    value: float
    influence: DoubleArray

    @classmethod
    def of(cls, days: UserDays, truth: UserDays, term: Any, arm: str) -> _Sum:
        everybody = _cube(truth, term, arm)
        value = float(everybody.mean())
        own = everybody.mean(axis=1)
        influence = (own - value) / len(own)
        if days is truth:
            return cls(value, influence)
        is_here = _membership(days, arm)
        n = is_here.sum()
        away = np.where(is_here, _cube(days, term, arm) - everybody, 0.0)
        shift = float(away.sum() / n)
        each = (away - np.where(is_here, shift, 0.0)).sum(axis=1) / n
        return cls(value + shift, influence + each)


def _cube(days: UserDays, term: Any, arm: str) -> DoubleArray:
    """What each user did on each day under an arm, `[U, days]`; what is of no use where the user
    or the day was not the arm's.
    """
    sums = days.terms[term.name]
    cube: DoubleArray = sums[days.arms.index(arm)] if days.switched is None else sums.sum(axis=0)
    return cube.astype(np.float64) if term.days is None else term.days(cube)


def _membership(days: UserDays, arm: str) -> np.ndarray:
    """Which users and days an arm had, `[U, days]`."""
    index = days.arms.index(arm)
    is_here = np.ones((days.n_users, days.days), dtype=bool)
    if days.assigned is not None:
        is_here &= (days.assigned == index)[:, None]
    if days.switched is not None:
        is_here &= (days.switched == index)[None, :]
    return is_here


def over_fits(values: DoubleArray, influence: DoubleArray) -> tuple[float, float]:
    """95% interval of the mean over repetitions `[F]` that are of the same users.

    Users and repetitions are crossed, so variances are clustered both ways: that over users of
    their mean effect, plus that over repetitions, less that of the cells, which is in both
    (Cameron, Gelbach & Miller, Journal of Business & Economic Statistics 2011); never less than the
    one over repetitions. Degrees of freedom by Satterthwaite (Biometrics Bulletin 1946).

    Args:
        values: `[F]` of each repetition.
        influence: `[F, U]` effect of each user on them.
    """
    n, users = influence.shape
    mean = float(values.mean())
    of_fits = float(values.var(ddof=1) / n)
    of_users = float(np.square(influence.mean(axis=0)).sum() * users / max(users - 1, 1))
    of_cells = float(np.square(influence).sum() / n**2)
    variance = max(of_fits + of_users - of_cells, of_fits)
    if variance == 0.0:
        return mean, mean
    df = variance**2 / (of_fits**2 / (n - 1) + of_users**2 / max(users - 1, 1))
    half = float(quantile(max(df, 1.0), 0.95)) * variance**0.5
    return mean - half, mean + half
