"""A report's figures for experiment trackers: one record, given to one function."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from simulator.report.errors import ReportError

if TYPE_CHECKING:
    from simulator.report.content import Content
    from simulator.stats.verdict import Lift

FILES = ("report.html", "report.json", "report.md")

ROW = ("lift", "low_adjusted", "high_adjusted", "p_adjusted", "difference", "mde")
"""The figures of a row of the verdict that are tracked."""

ANSWERS = {"ship": 1.0, "hold": 0.0, "drop": -1.0}

NAMED = re.compile(r"[^\w.\- ]")
"""What no tracker takes within a name."""


@dataclass(frozen=True)
class TrackedFigure:
    """A number of a report.

    Attributes:
        name: `ARM/METRIC/lift`.
        value: a finite number.
        step: the day, from 1, of figures by day; else 0.
    """

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class Record:
    """What a tracker is given.

    Attributes:
        name: of the run: that of the scenario or table.
        params: what was set, as text.
        figures: what was found.
        sentences: the decision on each arm, or what sums it up.
        files: of the report.
    """

    name: str
    params: Mapping[str, str]
    figures: tuple[TrackedFigure, ...]
    sentences: tuple[str, ...]
    files: tuple[Path, ...]


Tracker = Callable[[Record], None]


def record(content: Content, folder: Path) -> Record:
    """What a tracker is given of a report that lies in `folder`."""
    params = {
        "scenario": content.scenario,
        "seed": content.seed,
        "design": content.design,
        "control": content.control,
        "arms": ", ".join(content.arms),
        "users": content.size.users,
        "days": content.size.days,
        **{f"version of {name}": version for name, version in content.versions.items()},
    }
    if content.decision is not None:
        params["decision"] = content.decision.answer
        params["decided on"] = content.decision.on
        sentences = [one.sentence for one in content.decision.arms]
    else:
        sentences = [one.sentence for one in content.headlines]
    return Record(
        content.scenario or "abtest",
        {key: str(value) for key, value in params.items() if value is not None},
        tuple(one for one in _figures(content) if math.isfinite(one.value)),
        tuple(sentences),
        tuple(folder / name for name in FILES if (folder / name).is_file()),
    )


def _figures(content: Content) -> Iterator[TrackedFigure]:
    arms, metrics = _names(content.arms), _names(content.metrics)

    def of(row: Lift, what: str) -> Iterator[TrackedFigure]:
        place = f"{arms[row.arm]}/{metrics[row.metric]}{what}"
        yield from (TrackedFigure(f"{place}/{key}", getattr(row, key)) for key in ROW)

    for row, _ in content.decided():
        yield from of(row, "")
    for method in content.methods:
        for one in method.rows:
            yield from of(one.lift, "/methods")
    for day in content.daily:
        place = f"{arms[day.arm]}/{metrics[day.metric]}/lift by day"
        yield TrackedFigure(place, day.lift, day.day + 1)
    for arm in content.decision.arms if content.decision is not None else ():
        yield TrackedFigure(f"{arms[arm.arm]}/decision", ANSWERS[arm.answer])
    for status in ("red", "amber"):
        count = sum(check.status == status for check in content.checks)
        yield TrackedFigure(f"checks/{status}", float(count))


def _names(given: Iterable[str]) -> dict[str, str]:
    """Names as trackers take them, each its own."""
    taken: dict[str, str] = {}
    for name in given:
        plain = NAMED.sub("_", name)
        number, unique = 2, plain
        while unique in taken.values():
            unique, number = f"{plain}_{number}", number + 1
        taken[name] = unique
    return taken


def mlflow(given: Record) -> None:
    """A run of MLflow, where MLFLOW_TRACKING_URI says; in the experiment that MLflow's environment
    names, else in `abtest`.

    Parameters and figures stand under their names, the sentences in its description, the files
    among its artefacts.
    """
    import mlflow as api
    from mlflow.entities import Metric, Param

    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
        api.set_experiment("abtest")
    description = "\n\n".join(given.sentences)
    with api.start_run(run_name=given.name, description=description) as run:
        client, identity = api.MlflowClient(), run.info.run_id
        params = [Param(key, value[:MOST_LETTERS]) for key, value in given.params.items()]
        client.log_batch(identity, params=params)
        now = run.info.start_time
        metrics = [Metric(one.name, one.value, now, one.step) for one in given.figures]
        for first in range(0, len(metrics), BATCH):
            client.log_batch(identity, metrics=metrics[first : first + BATCH])
        for file in given.files:
            api.log_artifact(str(file))


MOST_LETTERS = 6000
"""Of a parameter's value, as MLflow limits it."""

BATCH = 1000
"""Figures in one call, as MLflow limits it."""

TRACKERS: dict[str, tuple[Tracker, str]] = {"mlflow": (mlflow, "abtest[mlflow]")}
"""The trackers that are known by name, and the extra that each needs."""


def tracker(name: str) -> Tracker:
    """The function that a name means: one of `TRACKERS`, `module:function` or `file.py:function`.

    Raises:
        ReportError: there is no such one, or what it stands on is not installed.
    """
    if name in TRACKERS:
        function, extra = TRACKERS[name]
        if importlib.util.find_spec(name) is None:
            raise ReportError(f"--track {name}: is not installed; pip install '{extra}'")
        return function
    place, colon, attribute = name.rpartition(":")
    if not colon:
        known = ", ".join(TRACKERS)
        raise ReportError(f"--track {name}: must be {known}, module:function or file.py:function")
    try:
        module = _file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        found: Any = getattr(module, attribute)
    except Exception as error:  # whatever somebody's module does
        why = f"{type(error).__name__}: {error}"
        raise ReportError(f"--track {name}: cannot be imported: {why}") from error
    if not callable(found):
        raise ReportError(f"--track {name}: must be a function of one record; got {found!r:.60}")
    checked: Tracker = found
    return checked


def _file(path: Path) -> ModuleType:
    """The module of a Python file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def track(content: Content, folder: Path | str, given: str | Tracker) -> None:
    """Give a report that lies in `folder` to a tracker.

    Args:
        content: the report.
        folder: where its files are.
        given: `mlflow`, `module:function`, `file.py:function`, or a function of a `Record`.

    Raises:
        ReportError: there is no such tracker, or it failed; the report is written all the same.
    """
    folder = Path(folder)
    function = tracker(given) if isinstance(given, str) else given
    name = given if isinstance(given, str) else getattr(given, "__name__", repr(given))
    try:
        function(record(content, folder))
    except Exception as error:  # whatever somebody's tracker does
        raise ReportError(
            f"tracker {name}: {type(error).__name__}: {error}. The report is written"
            f" ({folder / 'report.html'}), but it is not tracked, or not wholly"
        ) from error
