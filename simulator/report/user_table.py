"""The verdict on a plain per-user table: a real A/B test, from any system, without a simulator.
pandas in, pandas out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from policies.base import Progress
from simulator.log.metrics import MARGIN, Better, Declared, MetricRole, declared, margin_of
from simulator.page.words import listed, some_of
from simulator.report import of_moments
from simulator.report.errors import ReportError
from simulator.report.table_files import is_log, read
from simulator.stats import decision, verdict
from simulator.stats import winners as races
from simulator.stats.adjustment import pre_periods
from simulator.stats.aggregates import Aggregates
from simulator.stats.choices import Choices
from simulator.stats.decision import Decision
from simulator.stats.frames import Columns, from_frame, looks_from_frame
from simulator.stats.margins import Margins
from simulator.stats.moment_sheets import are_moments, from_moments
from simulator.stats.predictions import with_predictions
from simulator.stats.priors import Prior
from simulator.stats.rows import Rows, as_rows
from simulator.stats.series import are_series, read_series
from simulator.stats.series import experiment as series_of_one
from simulator.stats.unit_table import TableError, UnitTable

if TYPE_CHECKING:
    import pandas as pd

    from simulator.report.content import Content

__all__ = [
    "are_series",
    "bound",
    "by_name",
    "by_role",
    "decide",
    "direction",
    "is_log",
    "lifts",
    "named",
    "of",
    "parse",
    "read",
    "share",
    "weight",
    "winners",
    "write",
]

T = TypeVar("T")

CONTROL = "control"
"""An arm of this name is the control where none is named."""


@contextmanager
def of(path: Path) -> Iterator[None]:
    """What is wrong with a table is said with the name of its file."""
    try:
        yield
    except TableError as error:
        raise ReportError(f"{path}: {error}") from error


def lifts(
    frame: pd.DataFrame | Rows | Any,
    *,
    control: str | None = None,
    metrics: Columns | Iterable[str] | None = None,
    covariates: Iterable[str] | None = None,
    user: str = "user",
    arm: str = "arm",
    cluster: str | None = None,
    predictors: Iterable[str] | None = None,
    choices: Choices | None = None,
    entries: Mapping[str, Declared] | None = None,
) -> pd.DataFrame:
    """The lift of every arm over the control in every metric.

    Args:
        frame: a pandas DataFrame or an Arrow table of one row per user (split), or one row per user
            and arm with every user in every arm (paired). A user without events has a row with
            zeros.
        control: the control arm; None: the arm called `control`.
        metrics: names of numeric columns; or name -> column; or name -> (numerator column,
            denominator column), a ratio of sums; or name -> `Quantity`, a figure of choice.
            None: every column of numbers, or of yes and no, that is not a covariate.
        covariates: numeric pre-period columns; None: those that end in `_before`. In a split design
            they adjust lifts (CUPED): `<metric>_before` those of its metric, any other (of no
            column of the table) those of all. A value may be missing (`adjustment.imputed`).
        user: name of the user column.
        arm: name of the arm column.
        cluster: name of a column of clusters that were assigned as a whole (households, shops; or
            the users, of a table by user and day): rows of a cluster are then not taken for
            independent.
        predictors: names of columns from which metrics are predicted, to adjust lifts for the
            predictions (`simulator.stats.predictions`; needs scikit-learn); (): every covariate and
            segment.
        choices: interval, correction, level and alternative of the tests.
        entries: by metric, what is declared of it: direction, role, margin, covariates,
            winsorising, quantile (`log.metrics.Declared`).

    Returns:
        One row for each arm and metric: the columns of `lifts` in report.json, and `verdict`; with
        `choices.pairs` one for each pair of arms and metric, and `over`: the other arm.
        Numbers that are not defined are NaN. A notebook shows it as a forest plot.

    Raises:
        TableError: a column missing or not numeric, a value missing, fewer than two arms, or users
            that are neither in one arm nor in all of them.
        ReportError: no such control arm.
    """
    from simulator.report import lift_frame

    choices, table_rows = choices or Choices(), as_rows(frame)
    over: dict[str, list[str]] = {}
    if are_moments(table_rows.columns, user):
        moments = from_moments(table_rows, metrics=metrics, covariates=covariates, arm=arm)
        known = moments.metrics
        rows = of_moments.lifts(moments, named(moments, control), choices)
    else:
        table = from_frame(
            table_rows,
            metrics=metrics,
            covariates=covariates,
            predictors=predictors,
            user=user,
            arm=arm,
            cluster=cluster,
            entries=entries,
        )
        if predictors is not None:
            table = with_predictions(table)
        past, control, known = pre_periods(table), named(table, control), table.metrics
        method, correction, rule = choices.interval, choices.correction, choices.rule
        if choices.pairs:
            both = verdict.pairs(
                table, control, covariates=past, method=method, correction=correction, rule=rule
            )
            over, rows = {"over": [one for one, _ in both]}, [row for _, row in both]
        else:
            rows = verdict.lifts(
                table, control, covariates=past, method=method, correction=correction, rule=rule
            )
    columns = {key: [getattr(row, key) for row in rows] for key in verdict.ROW}
    columns["verdict"] = [row.words for row in rows]
    columns |= over
    directions = {name: metric.higher_is_better for name, metric in known.items()}
    return lift_frame.lifts(columns, directions)


def decide(
    frame: pd.DataFrame | Rows | Any,
    *,
    control: str | None = None,
    margins: Margins | None = None,
    choices: Choices | None = None,
    **columns: Any,
) -> Decision | None:
    """Ship, hold or drop each arm (`simulator.stats.decision`).

    Args:
        frame: as `lifts`.
        control: as `lifts`.
        margins: the guardrails.
        choices: interval, correction, level and alternative of the tests.
        columns: as `write`; `roles` names the metrics that are a success (or `deterioration`,
            `quality`).

    Returns:
        The decision on each arm with its reasons and a sentence, which a notebook shows as a table;
        None where no metric is a success.

    Raises:
        TableError, ReportError: as `lifts`; a guardrail of a metric whose direction is not known.
        MetricError: a role of no metric, or one without a direction.
    """
    from simulator.report.notebook import ShownDecision
    from simulator.report.sentences import in_words

    table = from_frame(frame, **columns)
    if columns.get("predictors") is not None:
        table = with_predictions(table)
    rows, answers, known = decision.evidence(table, named(table, control), margins, choices)
    assigned = "user" if columns.get("cluster") is None else "cluster"
    said = in_words(decision.decide(rows, answers, known), rows, answers, assigned)
    return None if said is None else ShownDecision(said.on, said.arms)


def winners(
    frame: pd.DataFrame | Rows | Any,
    *,
    control: str | None = None,
    priors: Mapping[str, Prior] | None = None,
    choices: Choices | None = None,
    **columns: Any,
) -> pd.DataFrame:
    """Of several treatment arms the best in each metric, corrected for having been chosen, and what
    each choice is worth (`simulator.stats.winners`).

    Args:
        frame: as `lifts`.
        control: as `lifts`.
        priors: by metric, what earlier tests say of its lift.
        choices: level and alternative of the interval.
        columns: as `write`.

    Returns:
        One row for each metric whose direction is known, and arm: `metric`, `arm`, `lift`; `best`,
        the probability that it is the best of all, and `regret`, the lift that is lost on average
        by taking it; `shrunk`, `shrunk_low`, `shrunk_high` with a prior; of the treatment that came
        first `estimate`, `low` and `high`, its corrected lift with the interval, NaN for
        others; `top_two_best`, of the metric. Empty with one treatment arm.

    Raises:
        TableError, ReportError: as `lifts`.
    """
    import pandas as pd

    table = from_frame(frame, **columns)
    rule = (choices or Choices()).rule
    found = races.of_models(table, named(table, control), priors, pre_periods(table), rule)
    rows = []
    for one in found:
        for chance in one.arms:
            is_first = chance.arm == one.arm
            corrected = (one.estimate, one.low, one.high) if is_first else (math.nan,) * 3
            ends = dict(zip(("estimate", "low", "high"), corrected, strict=True))
            rows.append(
                {"metric": one.metric, **vars(chance), **ends, "top_two_best": one.top_two_best}
            )
    return pd.DataFrame(rows)


def named(table: UnitTable | Aggregates, control: str | None) -> str:
    """The control arm of a table.

    Raises:
        ReportError: none is named and none is called `control`, or there is no such arm.
    """
    if control is None and CONTROL in table.arms:
        return CONTROL
    if control is None:
        raise ReportError(
            f"which arm is the control? Name it (--control): one of {some_of(table.arms)}"
        )
    if control not in table.arms:
        raise ReportError(f"no arm {control!r} in the table; it has {some_of(table.arms)}")
    return control


def write(
    frame: pd.DataFrame | Rows | Any,
    folder: Path | str,
    *,
    control: str | None = None,
    name: str = "A/B test",
    margins: Margins | None = None,
    choices: Choices | None = None,
    shares: Mapping[str, float] | None = None,
    strict: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
    day: str | None = None,
    experiment: str | None = None,
    priors: Mapping[str, Prior] | None = None,
    **columns: Any,
) -> Content:
    """Write report.json, report.md and report.html of a per-user table, or of a table of moments
    (`simulator.stats.moment_sheets`).

    Args:
        frame: as `lifts`.
        folder: is made if it is not there.
        control: as `lifts`.
        name: title of the report.
        margins: guardrails and equivalences that were planned.
        choices: how lifts are computed, and what is computed beside them.
        shares: of users that were meant for each arm, up to a common factor (sample ratio); equal
            if left out.
        strict: refuse to report a lift, and write nothing, where a check is red.
        command: that makes this report, to be printed in it.
        progress: of what takes time.
        day: name of a column of days, of a table of moments or of one with a row for each user and
            day: the report has looks at the end of each (`frames.looks_from_frame`).
        experiment: which one, of a table of published experiments (`simulator.stats.series`).
        priors: by metric, what earlier tests say of its lift.
        columns: `metrics`, `covariates`, `user`, `arm`, `cluster` as `lifts`, `groups`: names of
            segment columns (None: every column of text or of categories with 2 to 250 levels),
            `predictors`: names of columns from which metrics are predicted, to adjust lifts for
            the predictions in place of the pre-period ((): every covariate and segment), and
            `better`: by metric, whether `higher` or `lower` values of it are better (of others as
            far as their names tell; a guardrail needs it), and `roles`: by metric, what it is for
            in the decision (`success`, `deterioration`, `quality`; guardrails are in `margins`);
            or `entries`: by metric, all that is declared of it.

    Returns:
        What the three files say.

    Raises:
        TableError, ReportError: as `lifts`; a guardrail of a metric whose direction is not known.
        MetricError: `better` of no metric, or no direction.
    """
    from simulator.report import refuse, save
    from simulator.report.gather import gather_table, with_decision

    rows = as_rows(frame)
    user = columns.get("user", "user")
    if are_series(rows.columns) or are_moments(rows.columns, user):
        if day is not None:
            columns["look"] = day
        moments = _moments(rows, experiment, columns)
        chosen, default = choices or Choices(), Choices()
        beside = {name: getattr(chosen, name) for name in ("resamples", "winsorise")}
        of_rows = {name: value != getattr(default, name) for name, value in beside.items()}
        _no_strangers(of_rows, "of moments")
        content = of_moments.gather_moments(
            moments,
            named(moments, control),
            name,
            margins,
            choices,
            shares=shares,
            command=command,
            priors=priors,
        )
    else:
        _no_strangers({"experiment": experiment, "look": columns.pop("look", None)}, "of users")
        looks, new = [] if day is not None else [from_frame(rows, **columns)], None
        if day is not None:
            _no_strangers({"predictors": columns.pop("predictors", None)}, "of days")
            looks, new = looks_from_frame(rows, day, **columns)
        table = looks[-1]
        content = gather_table(
            table,
            named(table, control),
            name,
            margins,
            choices,
            cluster=columns.get("cluster"),
            shares=shares,
            command=command,
            progress=progress,
            predict=columns.get("predictors") is not None,
            priors=priors,
            looks=() if day is None else looks,
            new=new,
        )
    content = with_decision(content)
    if strict:
        refuse(content)
    save(content, Path(folder))
    return content


def _moments(rows: Rows, experiment: str | None, columns: Mapping[str, Any]) -> Aggregates:
    """The moments of a table, or of one experiment of a table of many.

    Raises:
        TableError, MetricError: as `from_moments` and `series.experiment`.
        ReportError: a column is named that only a table of users has; an experiment is named, or is
            not, against what the table needs.
    """
    given = {name: value for name, value in columns.items() if value or value == ()}
    directions = {name: given.pop(name, None) for name in ("better", "roles")}
    entries: Mapping[str, Declared] = given.pop("entries", {})
    for metric, entry in entries.items():
        if (entry.covariates, entry.winsorise, entry.quantile) != (None, None, None):
            raise ReportError(
                f"metric {metric!r}: covariate, winsorise and quantile are declared of rows; of"
                " moments they are what the export has made of them"
            )
    defaults = {"user": "user", "arm": "arm"}
    if are_series(rows.columns):
        own = {name: value for name, value in given.items() if value != defaults.get(name)}
        _no_strangers(own, "of published experiments")
        if experiment is None:
            raise ReportError("this table has many experiments: name one (--experiment)")
        moments = series_of_one(read_series(rows), experiment, **directions)
        return replace(moments, metrics=declared(moments.metrics, entries))
    user = given.pop("user", defaults["user"])
    strangers = {name: given.pop(name, None) for name in ("cluster", "predictors")}
    strangers["user"] = None if user == defaults["user"] else user
    _no_strangers({"experiment": experiment, **strangers}, "of moments")
    moments = from_moments(rows, **given, **directions)
    return replace(moments, metrics=declared(moments.metrics, entries))


def _no_strangers(given: Mapping[str, Any], what: str) -> None:
    """Refuse columns that a table cannot have.

    Raises:
        ReportError: one is named.
    """
    strangers = [name for name, value in given.items() if value or value == ()]
    if strangers:
        raise ReportError(f"a table {what} has no {listed(strangers, 'or')}: leave it out")


def parse(spec: str) -> tuple[str, str | tuple[str, str]]:
    """A metric as the command line names it: `clicks`, `ctr=clicks/impressions`,
    `money=revenue_eur`.

    Raises:
        ReportError: an empty name or column.
    """
    name, equals, column = spec.partition("=")
    top, slash, bottom = (column if equals else name).partition("/")
    if not name or not top or (slash and not bottom):
        raise ReportError(
            f"--metric {spec!r}: expected NAME, NAME=COLUMN or NAME=NUMERATOR/DENOMINATOR"
        )
    return name, (top, bottom) if slash else top


def bound(spec: str) -> tuple[str, float]:
    """A margin as the command line names it: `watch_time=1%`, `watch_time=0.01`, or
    `watch_time=20abs` in the metric's own units.

    Raises:
        ReportError: no metric, or no margin (`margin_of`).
    """
    name, _, text = spec.partition("=")
    try:
        margin = margin_of(text)
    except ValueError:
        margin = 0.0
    if not name or not margin:
        raise ReportError(f"{spec!r}: a margin is written METRIC=2%: it must be {MARGIN}")
    return name, margin


def weight(spec: str) -> tuple[str, float]:
    """A share of users as the command line names it: `control=9`.

    Raises:
        ReportError: no arm, or no number above 0.
    """
    name, _, text = spec.rpartition("=")
    return _amount(
        name,
        text,
        f"--ratio {spec!r}: written ARM=9 or ARM=90%, for every arm, with a number above 0",
    )


def _amount(name: str, text: str, rule: str) -> tuple[str, float]:
    amount = _fraction(text)
    if not name or not 0.0 < amount < float("inf"):
        raise ReportError(rule)
    return name, amount


def share(spec: str) -> float:
    """A share as the command line names it: `1%` or `0.01`.

    Raises:
        ReportError: no number in [0, 0.5).
    """
    amount = _fraction(spec)
    if not 0.0 <= amount < 0.5:
        raise ReportError(
            f"--winsorise {spec!r}: a share is written 1% or 0.01, at least 0 and below 50%"
        )
    return amount


def direction(spec: str) -> tuple[str, Better]:
    """A direction as the command line declares it: `latency=lower`.

    Raises:
        ReportError: no metric, or neither higher nor lower.
    """
    name, _, text = spec.rpartition("=")
    if not name or text not in ("higher", "lower"):
        raise ReportError(
            f"--better {spec!r}: written METRIC=lower where less of it is better, METRIC=higher"
            " where more is"
        )
    return name, "lower" if text == "lower" else "higher"


def by_name(
    option: str, specs: Iterable[str], read: Callable[[str], tuple[str, T]]
) -> dict[str, T]:
    """What an option that may be given several times says of each name.

    Raises:
        ReportError: it says two things of one name; as `read`.
    """
    found: dict[str, T] = {}
    first: dict[str, str] = {}
    for spec in specs:
        name, value = read(spec)
        if first.setdefault(name, spec) != spec:
            raise ReportError(
                f"{option}: {name!r} is given twice, {first[name]!r} and {spec!r}: keep one"
            )
        found[name] = value
    return found


def by_role(names: Mapping[MetricRole, Iterable[str]]) -> dict[str, MetricRole]:
    """The role of each metric.

    Raises:
        ReportError: a metric has two.
    """
    found: dict[str, MetricRole] = {}
    for role, metrics in names.items():
        for metric in metrics:
            if found.setdefault(metric, role) != role:
                raise ReportError(
                    f"role: {metric!r} is declared {found[metric]} and {role}; it can have one"
                )
    return found


def _fraction(text: str) -> float:
    """The number of `1%` or `0.01`; NaN where there is none."""
    try:
        return float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        return float("nan")
