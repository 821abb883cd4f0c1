"""A file of metrics for the commands that read tables: what a scenario declares of its metrics, of
the columns of a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from simulator.config.document import YamlDocument, complaints, dotted
from simulator.config.section import ConfigSection
from simulator.log.metrics import Declared
from simulator.report.errors import ReportError
from simulator.scenario.parts import MetricSpec, metric_list, one_metric
from simulator.stats.frames import Asked

RATIO = "must be a column, or two of which it is the ratio of sums: NUMERATOR/DENOMINATOR"


def _column(value: Any) -> Any:
    parts = value.split("/") if isinstance(value, str) else []
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise ValueError(RATIO)
    return value


class TableMetricSpec(MetricSpec):
    """What is declared of a metric of a table."""

    of: Annotated[str, BeforeValidator(_column)] | None = Field(
        default=None,
        description="its column, or NUMERATOR/DENOMINATOR; the one of its own name if left out",
    )


class MetricFile(ConfigSection):
    """The metrics of a table, in the order of print."""

    metrics: Annotated[
        tuple[
            Annotated[
                str | dict[str, Literal["higher", "lower"] | TableMetricSpec],
                BeforeValidator(one_metric),
            ],
            ...,
        ],
        BeforeValidator(metric_list),
    ] = Field(min_length=1, description="names, or {name: lower}, or {name: {role: success, ...}}")


def read_metrics(path: Path) -> tuple[dict[str, Asked], dict[str, Declared]]:
    """The metrics that a file declares: by name what each is computed from, and what is declared of
    it.

    Raises:
        ScenarioError: it cannot be read, or is not YAML.
        ReportError: it breaks a rule; all of them at once, each with file, line and key path.
    """
    document = YamlDocument.read(path)
    try:
        file = MetricFile.model_validate(document.values)
    except ValidationError as error:
        raise ReportError(complaints(document, error, _keys_around)) from error
    columns: dict[str, Asked] = {}
    entries: dict[str, Declared] = {}
    for i, entry in enumerate(file.metrics):
        declared = {entry: None} if isinstance(entry, str) else entry
        for name, what in declared.items():
            if name in columns:
                where = document.where(("metrics", i))
                raise ReportError(f"{where}: {dotted([name])} is there twice; keep one")
            values = what.model_dump(exclude_none=True) if isinstance(what, TableMetricSpec) else {}
            top, slash, bottom = values.pop("of", name).partition("/")
            columns[name] = (top, bottom) if slash else top
            if what is not None:
                entries[name] = Declared.of(what if isinstance(what, str) else values)
    return columns, entries


def _keys_around(path: tuple[str | int, ...]) -> Iterable[str]:
    return MetricFile.model_fields if len(path) == 1 else TableMetricSpec.model_fields
