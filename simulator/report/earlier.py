"""Earlier tests: their lifts, read from tables and reports, and the priors that are fitted to them,
in a file.

A file of priors is YAML with the one key `prior`, as a scenario has it under `decision`:

    prior:
      watch_time: {mean: 0.001, scale: 0.012, df: 3}
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from simulator.config.document import ScenarioError, YamlDocument
from simulator.report.errors import ReportError
from simulator.report.table_files import read
from simulator.stats.moments import Floats
from simulator.stats.priors import FittedPrior, Prior, fit
from simulator.stats.readings import UnreadableError, read_numbers
from simulator.stats.rows import Rows, labels
from simulator.stats.unit_table import TableError

COLUMNS = ("metric", "lift", "se")
"""Of a table of earlier lifts: a fraction, and its standard error."""

Lifts = dict[str, tuple[Floats, Floats]]
"""By metric, lifts and their standard errors, each `[n]`."""


def earlier_lifts(sources: Iterable[Path]) -> Lifts:
    """The lifts of earlier tests.

    Args:
        sources: tables with the columns COLUMNS, one row for each test and treatment arm (csv, tsv,
            Parquet); or report.json, or the folder of a report, of which the lifts of the verdict
            are taken.

    Raises:
        ReportError: neither, or a number is missing.
    """
    rows: dict[str, list[tuple[float, float]]] = {}
    for source in sources:
        is_report = source.suffix == ".json" or (source / "report.json").is_file()
        found = _of_report(source) if is_report else _of_table(source)
        for metric, lift, error in found:
            rows.setdefault(metric, []).append((lift, error))
    columns = {metric: np.array(pairs) for metric, pairs in rows.items()}
    return {metric: (both[:, 0], both[:, 1]) for metric, both in columns.items()}


def _of_report(source: Path) -> list[tuple[str, float, float]]:
    """A lift whose arms are identical, or that cannot be computed, tells nothing."""
    from simulator.report import load

    rows = [row for row, _ in load(source).decided()]
    found = [(row.metric, row.lift, row.se / abs(row.control_mean)) for row in rows if row.se > 0]
    return [one for one in found if math.isfinite(one[1]) and math.isfinite(one[2])]


def _of_table(source: Path) -> list[tuple[str, float, float]]:
    rows = read(source)
    try:
        named = labels(rows, "metric")
        lifts, errors = (finite_numbers(rows, column) for column in ("lift", "se"))
        blank = np.flatnonzero(named.codes < 0)
        if len(blank):
            raise TableError(f"{rows.place(int(blank[0]))}: column 'metric' has no value")
    except TableError as error:
        rule = f"earlier lifts have the columns {', '.join(COLUMNS)}"
        raise ReportError(f"{source}: {error} ({rule})") from error
    metrics = [named.names[code] for code in named.codes]
    return list(zip(metrics, lifts.tolist(), errors.tolist(), strict=True))


def finite_numbers(rows: Rows, column: str) -> Floats:
    """A column of finite numbers.

    Raises:
        TableError: it is none, with the row.
    """
    values = numbers(rows, column)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise TableError(f"{rows.place(int(bad[0]))}: column {column!r} has no finite number")
    return values


def numbers(rows: Rows, column: str) -> Floats:
    """A column of numbers, NaN where it is blank.

    Raises:
        TableError: no such column, or a cell that is no number, with its row.
    """
    cells = rows.cells(column)
    try:
        reading = read_numbers(cells)
    except UnreadableError as error:
        place = rows.place(error.row)
        raise TableError(f"{place}: column {column!r} is {error.why}; {error.advice}") from error
    if reading is None:
        raise TableError(f"column {column!r} holds no numbers; the first cell is {cells[0]}")
    return np.asarray(reading.values)


def fitted(lifts: Lifts) -> dict[str, FittedPrior]:
    """The most likely prior of each metric.

    Raises:
        ReportError: a metric has too few lifts, or a standard error that cannot be.
    """
    priors = {}
    for metric, (values, errors) in lifts.items():
        try:
            priors[metric] = fit(values, errors)
        except TableError as error:
            raise ReportError(f"{metric}: {error}") from error
    return priors


def as_yaml(priors: Mapping[str, FittedPrior], sources: Iterable[Path]) -> str:
    """The file of priors, with where they are from."""
    import yaml

    prior = {
        metric: {
            "mean": float(f"{one.prior.mean:.4g}"),
            "scale": float(f"{one.prior.scale:.4g}"),
            "df": None if math.isinf(one.prior.df) else one.prior.df,
        }
        for metric, one in priors.items()
    }
    counts = ", ".join(f"{metric} {one.prior.tests}" for metric, one in priors.items())
    head = (
        f"# Priors of lifts, fitted by `abtest prior` to {', '.join(map(str, sources))}.\n"
        f"# Earlier lifts: {counts}.\n"
    )
    return head + yaml.safe_dump({"prior": prior}, sort_keys=False, allow_unicode=True)


def read_priors(path: Path | str) -> dict[str, Prior]:
    """The priors of a file, by metric.

    Raises:
        ReportError: it cannot be read or says something else; with file, line and key path.
    """
    from pydantic import ValidationError

    from simulator.config.document import complaints
    from simulator.scenario.parts import DecisionSpec, PriorSpec

    try:
        document = YamlDocument.read(Path(path))
    except ScenarioError as error:
        raise ReportError(str(error)) from error
    if list(document.values) != ["prior"]:
        raise ReportError(
            f"{path}: a file of priors has the key `prior` alone; got {list(document.values)}"
        )
    try:
        specs = DecisionSpec.model_validate(document.values).prior or {}
    except ValidationError as error:
        raise ReportError(complaints(document, error, lambda _: PriorSpec.model_fields)) from error
    if not specs:
        raise ReportError(f"{document.where(('prior',))}: has no metric; `abtest prior` fits them")
    return {m: Prior(one.mean, one.scale, one.df or math.inf) for m, one in specs.items()}
