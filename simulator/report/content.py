"""The content of a report: everything that is said of a run, gathered from its event log as plain
dicts, lists and numbers.

Every rendering (terminal, JSON, Markdown, HTML) shows this content and adds nothing to it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.base import Progress
from simulator.designs.base import Design
from simulator.designs.paired import Paired
from simulator.designs.split import Split
from simulator.log import workspace
from simulator.log.eventlog import EventLog, Metadata
from simulator.log.metadata import HISTORY
from simulator.log.metrics import Better, Metric, directed
from simulator.page.words import bounded, headline, sentence, sentenced, title
from simulator.report import ROW, SCHEMA_VERSION, ReportError, finite
from simulator.report import run_checks as checks
from simulator.report import worlds as world
from simulator.report.counts import Cells, Counts, count
from simulator.report.otherwise import computed_otherwise
from simulator.report.plan import compared_designs, interleaved_designs, needs, preferences
from simulator.report.spread import distributions
from simulator.stats import checks as design
from simulator.stats import segments, sequential, units, verdict
from simulator.stats.checks import Check
from simulator.stats.choices import Choices
from simulator.stats.margins import Margins, judged
from simulator.stats.tests import level_of_one
from simulator.stats.units import Unit, UnitTable, UserDays
from simulator.stats.verdict import Lift

FUNNEL = (
    "sessions",
    "requests",
    "impressions",
    "play",
    "click",
    "long_view",
    "like",
    "comment",
    "follow",
    "forward",
)
"""The steps of the funnel, in order, as far as the log has them."""


@dataclass(frozen=True)
class Comparison:
    """Who is compared with whom.

    Attributes:
        arms: names, in the order of the log, the control first.
        control: name of the control arm.
        index: of each of `arms` in the log's own list.
    """

    arms: tuple[str, ...]
    control: str
    index: tuple[int, ...]

    @classmethod
    def of(cls, meta: Metadata, without: tuple[str, ...] = ()) -> Comparison:
        """The comparison that a log declares, `without` some arms; where it declares no control, it
        is the first arm.

        Raises:
            ReportError: fewer than two arms, or no such control.
        """
        there = [name for name in meta.arms if name != HISTORY and name not in without]
        if len(there) < 2:
            raise ReportError(
                f"a report compares at least two arms; this log has {there or 'none'}"
            )
        control = meta.control or there[0]
        if control not in there:
            raise ReportError(f"the control arm {control!r} is not among the arms {there}")
        arms = (control, *(name for name in there if name != control))
        return cls(arms, control, tuple(meta.arms.index(name) for name in arms))

    @property
    def treatments(self) -> tuple[str, ...]:
        return self.arms[1:]

    def by_arm(self, cells: Cells) -> dict[str, Any]:
        """The rows of `cells` `[arms of the log, ...]` under the names of the compared arms."""
        return {name: cells[i].tolist() for name, i in zip(self.arms, self.index, strict=True)}


def gather(
    log: EventLog,
    *,
    runtime: Mapping[str, Any] | None,
    progress: Progress,
    margins: Margins | None = None,
    choices: Choices | None = None,
    better: Mapping[str, Better] | None = None,
) -> dict[str, Any]:
    """Everything that the report says of a log, as JSON types. See `simulator.report.write`."""
    meta, choices = log.metadata, choices or Choices()
    progress("report: sums", 0, 4, {})
    sums, silent = _answered(units.read(log))
    sums = dataclasses.replace(sums, metrics=directed(sums.metrics, better or {}))
    who = Comparison.of(meta, silent)
    progress("report: counts", 1, 4, {})
    counts = count(log)
    progress("report: calibration", 2, 4, {})
    calibration = world.calibration(log)
    progress("report: lifts", 3, 4, {})
    kind, unit = meta.design.kind, meta.design.unit
    by_all = verdict.verdict(
        sums, who.control, method=choices.interval, correction=choices.correction
    )
    rows = sorted(by_all, key=lambda row: (row.unit != unit, who.arms.index(row.arm)))
    scenario, notes = (
        json.loads(json.dumps(given, sort_keys=True)) for given in (meta.scenario, meta.notes)
    )
    by_user = sums.by("user")
    published = scenario.get("published", {})
    level = _level_of_one(by_all, choices)
    power = needs(by_user, who.control, who.treatments, published, level)
    daily = [_on_day(row, day) for day, lifts in verdict.by_day(sums, who.control) for row in lifts]
    content = {
        **_frame(rows, who, sums.metrics, unit, choices),
        "scenario": scenario.get("name"),
        "seed": scenario.get("seed"),
        "design": kind,
        "checks": _checks(
            checks.calibrated(calibration),
            *checks.complete(sums, silent, counts.steps["impressions"].sum(axis=0)),
            *design.checks(sums, who.control, scenario=scenario),
        ),
        "runtime": None if runtime is None else dict(runtime),
        "paired": by_user.paired,
        "margins": _margins(by_user, who.control, margins),
        "adjusted": [],
        "clusters": None,
        "columns": [],
        "command": (
            f"abtest run {shlex.quote(scenario['name'] + '.yaml')}"
            if scenario.get("name")
            else None
        ),
        "beside": _with_the_past(by_user, who) if sums.assigned is not None else None,
        "size": {
            "users": meta.n_users,
            "items": meta.n_items,
            "days": sums.days,
            "impressions": int(counts.steps["impressions"].sum()),
        },
        "units": _units(sums, who),
        "daily": daily,
        "sequential": (
            [_peeks(found) for found in sequential.peeks(sums, who.control)]
            if sums.days > 1 and sums.switched is None
            else []
        ),
        "distributions": distributions(by_user, who.arms),
        "segments": _segments(by_user, who.control),
        "otherwise": computed_otherwise(
            by_user, who.control, who.treatments, choices, progress=progress
        ),
        "funnel": _funnel(counts, who),
        "channels": _channels(counts, meta, who),
        "answered_by_log": _share(counts.logged, counts.steps["impressions"].sum(axis=1), who),
        "calibration": calibration,
        "support": world.support(log, who.arms),
        "published": _published(published, rows, power, _of_table(by_user).kind),
        "power": power,
        "designs": _designs(sums, who, meta.design, level),
        "preference": (
            preferences(by_user, who.control, who.treatments) if meta.design.shares_slates else []
        ),
        "offline": [],
        "foretold": [],
        "audit": None,
        "worlds": [],
        "settings": scenario,
        "versions": dict(sorted(meta.versions.items())),
        "notes": {name: value for name, value in notes.items() if name != "calibration"},
    }
    progress("report: lifts", 4, 4, {})
    return content


def gather_table(
    table: UnitTable,
    control: str,
    name: str,
    margins: Margins | None = None,
    choices: Choices | None = None,
    *,
    cluster: str | None = None,
    shares: Mapping[str, float] | None = None,
    command: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Everything that the report says of a plain per-user table, in the same form; what only a log
    can tell is empty.

    `adjusted` are the metrics whose lifts are adjusted for their pre-period column; `beside` has
    the same rows without. `cluster`: the column of clusters that are the table's units; `shares`:
    of users that were meant for each arm; `command`: that makes this report.
    """
    from simulator.report.user_table import adjustments, compared

    choices = choices or Choices()
    arms = (control, *(arm for arm in table.arms if arm != control))
    who = Comparison(arms, control, tuple(table.arms.index(arm) for arm in arms))
    adjusted = adjustments(table)
    rows = compared(table, control, choices)
    plain = [_row(row) for row in compared(table, control, choices, adjusted=False)]
    return {
        **_frame(rows, who, table.metrics, "user", choices),
        "scenario": name,
        "seed": None,
        "design": _of_table(table).kind,
        "checks": _checks(*design.checks(table, control, shares=shares)),
        "runtime": None,
        "paired": table.paired,
        "margins": _margins(table, control, margins),
        "adjusted": sorted(adjusted),
        "clusters": cluster,
        "columns": [dataclasses.asdict(use) for use in table.columns],
        "command": command,
        "beside": {"title": "Without adjustment", "rows": plain} if adjusted else None,
        "units": {arm: len(table.sums(next(iter(table.numerators)), arm)[0]) for arm in arms},
        "size": {"users": table.n_units, "items": None, "days": None, "impressions": None},
        "daily": [],
        "sequential": [],
        "distributions": distributions(table, arms),
        "segments": _segments(table, control),
        "otherwise": computed_otherwise(
            table, control, who.treatments, choices, adjusted, progress
        ),
        "funnel": [],
        "channels": None,
        "answered_by_log": {},
        "calibration": None,
        "support": [],
        "published": [],
        "power": needs(table, control, who.treatments, {}, _level_of_one(rows, choices)),
        "designs": [],
        "preference": [],
        "offline": [],
        "foretold": [],
        "audit": None,
        "worlds": [],
        "settings": {},
        "versions": workspace.versions(),
        "notes": {},
    }


def _frame(
    rows: Sequence[Lift],
    who: Comparison,
    metrics: Mapping[str, Metric],
    unit: Unit,
    choices: Choices,
) -> dict[str, Any]:
    """What every report begins with: the lifts, and what they say; `unit`: of the verdict on the
    first screen.
    """
    return {
        "schema": SCHEMA_VERSION,
        "control": who.control,
        "arms": list(who.arms),
        "unit": unit,
        "lifts": [_row(row) for row in rows],
        "verdicts": _verdicts(rows, who.control, metrics),
        "headlines": [
            _headline([row for row in rows if row.unit == unit], arm, who.control, metrics)
            for arm in who.treatments
        ],
        "metrics": {name: _described(metric) for name, metric in metrics.items()},
        "family": verdict.FAMILY,
        "choices": dataclasses.asdict(choices),
    }


def _checks(*found: Check) -> list[dict[str, Any]]:
    """Red first, then amber; each a sentence."""
    said = [
        {
            "name": title(check.name),
            "status": check.status,
            "value": sentenced(check.value),
            "meaning": sentenced(check.meaning),
        }
        for check in found
    ]
    return sorted(said, key=_urgency)


def _urgency(check: Mapping[str, Any]) -> int:
    return ("red", "amber", "green").index(check["status"])


def add_check(content: dict[str, Any], found: Check) -> None:
    """One more check for a content that is gathered already."""
    content["checks"] = sorted([*content["checks"], *_checks(found)], key=_urgency)


def _described(metric: Metric) -> dict[str, Any]:
    return {
        key: getattr(metric, key)
        for key in ("description", "measure", "higher_is_better", "known_by")
    }


def _answered(sums: UserDays) -> tuple[UserDays, tuple[str, ...]]:
    """The sums without the arms that nobody has seen anything of (an arm that was given up), and
    the names of those.
    """
    shown = np.asarray(sums.terms["impressions"].any(axis=(1, 2)))
    if shown.all():
        return sums, ()
    kept = np.flatnonzero(shown)
    place = np.full(len(shown), -1)
    place[kept] = np.arange(len(kept))
    assigned = (
        None
        if sums.assigned is None
        else np.where(sums.assigned >= 0, place[np.maximum(sums.assigned, 0)], -1)
    )
    left = dataclasses.replace(sums.of_arms(kept), assigned=assigned)
    return left, tuple(sums.arms[i] for i in np.flatnonzero(~shown))


def _row(lift: Lift) -> dict[str, Any]:
    given = lift.to_dict()
    return {key: given[key] for key in ROW}


def _on_day(lift: Lift, day: int) -> dict[str, Any]:
    given = lift.to_dict()
    return {
        "day": day,
        **{
            key: given[key]
            for key in (
                "metric",
                "arm",
                "control_mean",
                "treatment_mean",
                "lift",
                "low",
                "high",
                "p",
                "n_units",
            )
        },
    }


def _units(sums: UserDays, who: Comparison) -> dict[str, int]:
    """Users in each arm, those that never came included."""
    if sums.assigned is None:
        return dict.fromkeys(who.arms, sums.n_users)
    return {arm: int(np.count_nonzero(sums.assigned == sums.arms.index(arm))) for arm in who.arms}


def _peeks(found: sequential.Peeks) -> dict[str, Any]:
    looks = [finite(dataclasses.asdict(look)) for look in found.looks]
    return {
        "metric": found.metric,
        "arm": found.arm,
        "looks": looks,
        "stop": {
            "always_valid": found.stop("always_valid"),
            "obrien_fleming": found.stop("obrien_fleming"),
            "pocock": found.stop("pocock"),
        },
    }


def _segments(table: UnitTable, control: str) -> dict[str, Any] | None:
    """Lifts in groups of users known before the test, the tests of whether they differ, and the
    warning that belongs beside.
    """
    rows, interactions = segments.segments(table, control)
    if not rows:
        return None
    found = [{"group": one.group, "level": one.level, **_row(one.row)} for one in rows]
    return {
        "warning": segments.WARNING,
        "rows": found,
        "interactions": [finite(dataclasses.asdict(one)) for one in interactions],
    }


def _with_the_past(table: UnitTable, who: Comparison) -> dict[str, Any] | None:
    """The lifts of a split log adjusted for each user's past, beside the plain ones."""
    from simulator.report.user_table import adjustments

    adjusted = adjustments(table)
    if not adjusted:
        return None
    rows = verdict.lifts(table, who.control, metrics=adjusted, covariates=adjusted)
    return {"title": "Adjusted for each user's past (CUPED)", "rows": [_row(row) for row in rows]}


def _margins(table: UnitTable, control: str, margins: Margins | None) -> list[dict[str, Any]]:
    """The answers to guardrails and equivalences that were asked, each with its sentence."""
    from simulator.report.user_table import adjustments

    rows = (
        [
            finite(dataclasses.asdict(one))
            for one in judged(table, control, margins, adjustments(table))
        ]
        if margins
        else []
    )
    return [
        {**row, "sentence": bounded(row, control, table.metrics[row["metric"]].higher_is_better)}
        for row in rows
    ]


def _level_of_one(rows: Sequence[Lift], choices: Choices) -> float:
    """The level of the two-sided test that one true difference must pass in the family of the
    verdict by user.
    """
    tested = sum(1 for row in rows if row.unit == "user" and not math.isnan(row.p))
    return 1.0 - level_of_one(tested, choices.correction)


def _of_table(table: UnitTable) -> type[Design]:
    """The design of a table of users, for which nobody needs to say it."""
    return Paired if table.paired else Split


def _designs(sums: UserDays, who: Comparison, design: Design, level: float) -> list[dict[str, Any]]:
    """Users that each design which the log can speak of would need."""
    if design.has_twins:
        return compared_designs(sums, who.control, who.treatments, level)
    if design.shares_slates:
        return interleaved_designs(sums, who.control, who.treatments, level)
    return []


def _verdicts(
    rows: Sequence[Lift], control: str, metrics: Mapping[str, Metric]
) -> list[dict[str, str]]:
    """Verdict and sentence of each row of `lifts`, in the same order."""
    comparisons = {
        unit: sum(1 for row in rows if row.unit == unit and not math.isnan(row.p))
        for unit in {row.unit for row in rows}
    }
    return [
        {
            "metric": row.metric,
            "arm": row.arm,
            "unit": row.unit,
            "verdict": row.words,
            "sentence": sentence(
                _row(row),
                row.words,
                control,
                comparisons[row.unit],
                row.note,
                metrics[row.metric].higher_is_better,
            ),
        }
        for row in rows
    ]


def _headline(
    rows: Sequence[Lift], arm: str, control: str, metrics: Mapping[str, Metric]
) -> dict[str, str]:
    mine = [(row.metric, row.words) for row in rows if row.arm == arm]
    turned = {name for name, metric in metrics.items() if metric.higher_is_better is False}
    return {"arm": arm, "sentence": headline(mine, arm, control, turned)}


def _funnel(counts: Counts, who: Comparison) -> list[dict[str, Any]]:
    """Steps with their count in each arm, users first."""
    totals = {
        "users": counts.users,
        **{name: counts.steps[name].sum(axis=1) for name in FUNNEL if name in counts.steps},
    }
    return [{"step": name, "counts": who.by_arm(total)} for name, total in totals.items()]


def _channels(counts: Counts, meta: Metadata, who: Comparison) -> dict[str, Any] | None:
    """Share of the impressions that each recall channel brought, by arm; None where there is but
    one.
    """
    if not meta.channels:
        return None
    whole = counts.channels.sum(axis=1, keepdims=True)
    return {
        "names": ["tested policy", *meta.channels],
        "shares": who.by_arm(counts.channels / whole.clip(min=1)),
    }


def _share(part: Cells, whole: Cells, who: Comparison) -> dict[str, float | None]:
    return {
        name: None if whole[i] == 0 else float(part[i] / whole[i])
        for name, i in zip(who.arms, who.index, strict=True)
    }


def _published(
    published: Mapping[str, float],
    rows: Sequence[Lift],
    power: Sequence[Mapping[str, Any]],
    design: str,
) -> list[dict[str, Any]]:
    """Published lifts beside ours by user, for every arm and metric that has one.

    `inside`: within our interval. `users`: how many this design needs to show the published lift.
    """
    needed = {
        (row["metric"], row["arm"]): row["users"].get(design) for row in power if row["published"]
    }
    found = []
    for lift in rows:
        if lift.unit == "user" and lift.metric in published:
            row, value = _row(lift), published[lift.metric]
            inside = None if row["lift"] is None else bool(lift.low <= value <= lift.high)
            ours = {key: row[key] for key in ("lift", "low", "high")}
            users = needed.get((lift.metric, lift.arm))
            found.append(
                {
                    "metric": lift.metric,
                    "arm": lift.arm,
                    "published": value,
                    **ours,
                    "inside": inside,
                    "users": users,
                }
            )
    return found
