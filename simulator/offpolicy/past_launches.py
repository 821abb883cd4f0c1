"""`abtest fidelity --launches`: real tests of the past beside the simulator's lifts of the same,
and what they make of its next lift.

A file of launches has a row for each real test and metric:

    test,arm,control,metric,lift,se
    2024-03 more interests,comirec6,comirec4,watch_time,0.012,0.004

`arm` and `control` are arms of the scenario (a control that is left out is the scenario's); `low`
and `high` of a 95% interval may stand in the place of `se`; a test whose policies are not at hand
has `simulated` and `simulated_se` in the place of `arm`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.base import Progress, silent
from simulator.config.document import near
from simulator.log.eventlog import EventLog
from simulator.log.workspace import Workspace
from simulator.offpolicy.settings import ReplayError
from simulator.report.drawn import lifts_in
from simulator.report.earlier import finite_numbers, numbers
from simulator.report.errors import ReportError
from simulator.report.table_files import read
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario
from simulator.stats.launches import Calibrator, Estimated, Forecast, Launch, Relation
from simulator.stats.moments import Floats
from simulator.stats.rows import Rows, labels
from simulator.stats.unit_table import TableError

WIDTH = 2 * 1.959963984540054
"""Standard errors between the ends of a 95% interval of a normal law."""

LEVEL = 0.9
"""Of a forecast's interval."""


@dataclass(frozen=True)
class PastTest:
    """A row of a file of launches.

    Attributes:
        test: its name.
        metric: of the lift.
        arm, control: arms of the scenario; "" where `simulated` is given.
        real: the lift of the test, a fraction, and its standard error.
        simulated: that of the simulator, where the file gives it.
        place: where it stands, for messages.
    """

    test: str
    metric: str
    arm: str
    control: str
    real: tuple[float, float]
    simulated: tuple[float, float] | None
    place: str


@dataclass(frozen=True)
class ArmForecast:
    """The real lift of an arm that was not launched.

    Attributes:
        arm: of the scenario, over its control.
        simulated: its lift in the simulator.
        real: what it will be in reality.
    """

    arm: str
    simulated: Estimated
    real: Forecast


@dataclass(frozen=True)
class LaunchPair:
    """A launch with both its lifts, and their 95% intervals."""

    test: str
    arm: str
    control: str
    real: Estimated
    simulated: Estimated


@dataclass(frozen=True)
class MetricLaunches:
    """What launches say of one metric.

    Attributes:
        metric: its name.
        pairs: the launches.
        relation: of the simulator to reality; None where there are too few.
        why: what is in the way of a relation; "" where there is one.
        forecasts: of the arms that were not launched.
    """

    metric: str
    pairs: tuple[LaunchPair, ...]
    relation: Relation | None
    why: str
    forecasts: tuple[ArmForecast, ...]


@dataclass(frozen=True)
class LaunchResult:
    """What launches.json keeps.

    Attributes:
        scenario: its name.
        control: its control arm.
        metrics: in the order of the scenario, then of the file.
        level: of the intervals of forecasts.
    """

    scenario: str
    control: str
    metrics: tuple[MetricLaunches, ...]
    level: float = LEVEL


Simulated = Mapping[tuple[str, str, str], tuple[float, float]]
"""The simulator's lift and its standard error by (metric, arm, control)."""


def past_tests(path: Path, scenario: Scenario) -> list[PastTest]:
    """The rows of a file of launches.

    Raises:
        ReportError: it cannot be read, or a row is not what it should be; with its line.
    """
    rows = read(path)
    try:
        return _past_tests(rows, scenario)
    except TableError as error:
        raise ReportError(f"{path}: {error} (docs/offpolicy.md has an example)") from error


def _past_tests(rows: Rows, scenario: Scenario) -> list[PastTest]:
    metric = _texts(rows, "metric", needed=True)
    arm, control = _texts(rows, "arm"), _texts(rows, "control")
    names = _texts(rows, "test")
    lift, error = finite_numbers(rows, "lift"), _errors(rows)
    arm, control, names = (texts or [""] * len(lift) for texts in (arm, control, names))
    simulated = None
    if "simulated" in rows.columns:
        simulated = numbers(rows, "simulated"), numbers(rows, "simulated_se")
    tests = []
    for i in range(len(lift)):
        place = rows.place(i)
        given = None
        if simulated is not None and np.isfinite(simulated[0][i]):
            given = float(simulated[0][i]), float(simulated[1][i])
        if given is not None and not given[1] > 0:
            rule = "column 'simulated_se' must be above 0 where 'simulated' is given"
            raise TableError(f"{place}: {rule}; got {given[1]}")
        against = control[i] or scenario.control
        if given is None:
            _hold_to_arms(place, scenario, arm[i], against)
        name = names[i] or arm[i] or f"row {i + 1}"
        real = float(lift[i]), float(error[i])
        tests.append(PastTest(name, metric[i], arm[i], against, real, given, place))
    return tests


def _hold_to_arms(place: str, scenario: Scenario, arm: str, control: str) -> None:
    """Both policies of a launch are arms of the scenario.

    Raises:
        TableError: one is none.
    """
    for column, name in (("arm", arm), ("control", control)):
        if name not in scenario.arms:
            rule = (
                f"column {column!r}: no arm {name!r} in the scenario; {near(name, scenario.arms)}"
            )
            raise TableError(f"{place}: {rule}; or give 'simulated' and 'simulated_se'")
    if arm == control:
        raise TableError(f"{place}: arm and control are both {arm!r}")


def _texts(rows: Rows, column: str, needed: bool = False) -> list[str]:
    """A column of text, in which blanks are ""; [] where there is none."""
    if column not in rows.columns:
        if needed:
            raise TableError(f"no column {column!r}; it has {', '.join(rows.columns)}")
        return []
    named = labels(rows, column)
    texts = ["" if code < 0 else named.names[code] for code in named.codes]
    if needed and "" in texts:
        raise TableError(f"{rows.place(texts.index(''))}: column {column!r} has no value")
    return texts


def _errors(rows: Rows) -> Floats:
    """Standard errors, from `se` or from the ends of 95% intervals."""
    if "se" in rows.columns:
        errors, column = finite_numbers(rows, "se"), "se"
    elif {"low", "high"} <= set(rows.columns):
        errors = (finite_numbers(rows, "high") - finite_numbers(rows, "low")) / WIDTH
        column = "high"
    else:
        raise TableError("no column 'se', nor 'low' and 'high' of a 95% interval")
    wrong = np.flatnonzero(~(errors > 0))
    if len(wrong):
        rule = "must be above 0" if column == "se" else "must be above 'low'"
        raise TableError(f"{rows.place(int(wrong[0]))}: column {column!r} {rule}")
    return errors


def launches(
    scenario: Scenario,
    file: Path,
    out: Path,
    *,
    folder: Path = Path(),
    resume: bool = False,
    progress: Progress = silent,
) -> LaunchResult:
    """Run a scenario and hold its lifts to those of real tests.

    Args:
        scenario: whose arms are the policies that were launched, and those that may be next.
        file: of launches (see above).
        out: the run is written into its folder `run`.
        folder: where plug-in files are looked up.
        resume: take over the finished pieces of the run that is there.
        progress: told of the run.

    Raises:
        ReportError: the file is not one of launches, or a metric is none of the scenario's.
        ReplayError: no launch has a lift in the simulator.
        RunError, ScenarioError, DataError, PolicyError: as `simulator.run.pipeline.run`.
    """
    tests = past_tests(file, scenario)
    _hold_to_metrics(tests, scenario, file)
    where = Workspace(out / "run")
    if not (resume and where.finished):
        simulate(scenario, where.root, folder=folder, resume=resume, progress=progress)
    controls = {test.control for test in tests if test.simulated is None} | {scenario.control}
    simulated = simulated_lifts(EventLog.open(where.log), sorted(controls))
    return held_against(scenario, tests, simulated)


def _hold_to_metrics(tests: list[PastTest], scenario: Scenario, file: Path) -> None:
    """The metrics of launches are the scenario's.

    Raises:
        ReportError: one is not, with its line.
    """
    known = [one if isinstance(one, str) else next(iter(one)) for one in scenario.metrics]
    for test in tests:
        if test.metric not in known:
            rule = f"no metric {test.metric!r} in the scenario; {near(test.metric, known)}"
            raise ReportError(f"{file}: {test.place}: {rule}")


def simulated_lifts(log: EventLog, controls: list[str]) -> Simulated:
    """The lifts of every arm over each of some controls: of methods where fits are replicated, else
    of models; without those that cannot be computed.
    """
    found = {}
    for control in controls:
        metadata = dataclasses.replace(log.metadata, control=control)
        for row in lifts_in(dataclasses.replace(log, metadata=metadata)).lifts:
            scale = abs(row.control_mean)
            if np.isfinite(row.lift) and row.se > 0 and scale > 0:
                found[row.metric, row.arm, control] = row.lift, row.se / scale
    return found


def held_against(scenario: Scenario, tests: list[PastTest], simulated: Simulated) -> LaunchResult:
    """The relation of both kinds of lifts by metric, and forecasts of the arms that no launch has.

    Raises:
        ReplayError: no launch has a lift in the simulator.
    """
    by_metric: dict[str, list[tuple[PastTest, tuple[float, float]]]] = {}
    for test in tests:
        lift = test.simulated or simulated.get((test.metric, test.arm, test.control))
        if lift is not None:
            by_metric.setdefault(test.metric, []).append((test, lift))
    if not by_metric:
        rule = "no launch has a lift in the simulator: what its arms show is the same"
        raise ReplayError(f"{scenario.name}: {rule}")
    metrics = [
        _of_metric(scenario, metric, pairs, simulated) for metric, pairs in by_metric.items()
    ]
    return LaunchResult(scenario.name, scenario.control, tuple(metrics))


def _of_metric(
    scenario: Scenario,
    metric: str,
    pairs: list[tuple[PastTest, tuple[float, float]]],
    simulated: Simulated,
) -> MetricLaunches:
    shown = tuple(
        LaunchPair(test.test, test.arm, test.control, _interval(*test.real), _interval(*lift))
        for test, lift in pairs
    )
    try:
        calibrator = Calibrator([Launch(test.test, *test.real, *lift) for test, lift in pairs])
    except TableError as error:
        return MetricLaunches(metric, shown, None, str(error), ())
    launched = {(test.arm, test.control) for test, _ in pairs}
    forecasts = []
    for arm in scenario.arms:
        lift = simulated.get((metric, arm, scenario.control))
        if lift is not None and (arm, scenario.control) not in launched:
            real = calibrator.forecast(*lift, level=LEVEL)
            forecasts.append(ArmForecast(arm, _interval(*lift), real))
    return MetricLaunches(metric, shown, calibrator.relation(), "", tuple(forecasts))


def _interval(lift: float, error: float) -> Estimated:
    """A lift with its 95% interval."""
    return Estimated(lift, lift - WIDTH / 2 * error, lift + WIDTH / 2 * error)
