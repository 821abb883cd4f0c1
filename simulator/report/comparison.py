"""Several runs beside one another: what differs in their settings, the lift in each, whether signs
agree, and the lift over all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.base import Progress, silent
from simulator.designs.registry import DESIGNS
from simulator.log.ledger import here
from simulator.page import words
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Heading,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.report import check_distinct, load
from simulator.report.content import SCHEMA_VERSION, Across, Content, DecidedLift, Size, Users
from simulator.report.errors import ReportError
from simulator.report.sections.supply_side import catalogue_shown
from simulator.report.sentences import compared, directions, method_line, needed
from simulator.report.stored import encode
from simulator.report.worlds import across, across_methods, across_supply
from simulator.stats.pooling import fixed_effect


@dataclass(frozen=True)
class RunFacts:
    """What a run is; `red`: the names of its red checks."""

    scenario: str | None
    seed: int | None
    design: str
    control: str
    arms: tuple[str, ...]
    size: Size
    red: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A dotted key of the resolved scenarios whose value is not the same in all runs; None where a
    run does not have it.
    """

    key: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Pooling:
    """What independent runs say together; each None where it cannot be said.

    Attributes:
        differ: p-value that the true lift is the same in all runs (Cochran's Q).
        pooled, low, high: the pooled lift and its 95% interval, of repeats of one scenario.
    """

    differ: float | None = None
    pooled: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def shown(self) -> str:
        """The verdict of all runs together."""
        if self.low is None or self.high is None or self.low <= 0.0 <= self.high:
            return "undecided"
        return "up" if self.low > 0.0 else "down"


@dataclass(frozen=True)
class AcrossRuns(Pooling, Across):
    """The lift in each run, and what the runs say together."""


@dataclass(frozen=True)
class DesignUsers:
    """How many users each design needs on one world to find what it has found there: a lift, or
    with interleaving a relative difference of credits (`lifts`, by design).
    """

    metric: str
    arm: str
    lifts: dict[str, float]
    users: Users


@dataclass(frozen=True)
class Compared:
    """Several runs side by side, its fields in the order of compare.json.

    Attributes:
        schema: version of compare.json.
        runs: by name.
        differences: the settings that are not the same in all.
        rows: the lifts of the models that were trained.
        methods: those of the methods, where the fits of a run say something of them.
        supply: those of the supply side, not taken together: each speaks of its own catalogue.
        designs: users that each design needs, where the runs are of one world.
        notes: what to know before the lifts are read.
    """

    schema: int
    runs: Mapping[str, RunFacts]
    differences: tuple[Difference, ...]
    rows: tuple[AcrossRuns, ...]
    methods: tuple[AcrossRuns, ...]
    supply: tuple[Across, ...]
    designs: tuple[DesignUsers, ...]
    notes: tuple[str, ...]


def read(paths: Sequence[Path | str], progress: Progress = silent) -> Compared:
    """The comparison of the runs, logs or reports at `paths`, each named by as much of its path as
    tells it from the others.

    Raises:
        ReportError: fewer than two, one twice, or no report there.
        LogError: something is there, but it is not an event log.
    """
    sources = [here(path) for path in paths]
    check_distinct(sources)
    if len(sources) < 2:
        raise ReportError(
            f"a comparison needs at least two runs; got {', '.join(map(str, sources)) or 'none'}"
        )
    places = [path.resolve() for path in sources]
    contents: dict[str, Content] = {}
    for i, (name, path) in enumerate(zip(_names(places), sources, strict=True)):
        progress("read the runs", i, len(sources), {})
        contents[name] = load(path)
    progress("read the runs", len(sources), len(sources), {})
    return compare(contents)


def compare(contents: Mapping[str, Content]) -> Compared:
    """Put gathered reports side by side.

    Args:
        contents: by name of the run.
    """
    runs = {name: _facts(content) for name, content in contents.items()}
    settings = {name: content.settings for name, content in contents.items()}
    differences = tuple(_differences(settings))
    keys = {row.key for row in differences}
    seeds = [content.seed for content in contents.values()]
    independent = None not in seeds and len(set(seeds)) == len(seeds)
    repeats = independent and keys <= {"seed", "name", "description"}

    def pooled(rows: Sequence[Across]) -> tuple[AcrossRuns, ...]:
        together = []
        for row in rows:
            whole = independent and len(row.lifts) == len(contents)
            pooling = _pool(list(row.lifts.values()), repeats) if whole else Pooling()
            together.append(AcrossRuns(**vars(row), **vars(pooling)))
        return tuple(together)

    metrics = {
        name: metric for content in contents.values() for name, metric in content.metrics.items()
    }
    return Compared(
        SCHEMA_VERSION,
        runs,
        differences,
        pooled(across(contents)),
        pooled(across_methods(contents)),
        tuple(across_supply(contents)),
        _designs(contents, keys),
        (
            *_notes(runs, independent, repeats),
            *_of_what(contents),
            *directions(metrics),
            *_of_supply(contents),
        ),
    )


def save(content: Compared, folder: Path) -> Path:
    """Write compare.json, compare.md and compare.html; returns the page."""
    from simulator.page import saved

    return saved.save(folder, "compare", encode(content), document(content))


def document(content: Compared) -> Document:
    """The comparison as a report is shown."""
    from simulator.report.sections.elsewhere import across

    names, rows = list(content.runs), content.rows
    note = (
        "Per user, over the control of the run, with the interval that goes with the verdict, as"
        " each report adjusts it. Same sign: the verdict is up in all runs, or down in all."
        " Opposite: up in one and down in another. Undecided: no contradiction, but not all runs"
        " show it."
    )
    sections = [
        Section(
            "verdict",
            "Lift in each run",
            [*map(Words, content.notes), Words(note, note=True), across(rows)],
            "Lifts",
        )
    ]
    if content.methods:
        note = (
            "As above, with fits as random as users: what another training would get, too. Runs of"
            " one fit say nothing of it and are left out."
        )
        blocks: list[Block] = [Words(note, note=True), across(content.methods)]
        sections.append(Section("methods", "Lift of the methods in each run", blocks, "Methods"))
    if content.supply:
        note = (
            "What of the catalogue the arms show and get clicked, over the control of the run, with"
            " the interval that goes with the verdict. Runs whose logs do not tell are left out."
        )
        blocks = [Words(note, note=True), across(content.supply)]
        sections.append(Section("supply", "Supply side in each run", blocks, "Supply"))
    together: list[Block] = []
    for what, some in (("models", rows), ("methods", content.methods)):
        independent = [row for row in some if row.differ is not None]
        if independent:
            together += _pooled(independent, what)
    if together:
        sections.append(Section("together", "Taken together", together, "Together"))
    if content.designs:
        sections.append(
            Section(
                "designs",
                "Users that each design needs on this world",
                _needed(content.designs),
                "Designs",
            )
        )
    sections.append(Section("settings", "Runs and settings", _settings(content), "Settings"))
    facts = Facts([("Runs", str(len(names)))])
    return Document(
        f"{len(names)} runs compared",
        "A/B runs compared",
        words.listed(names),
        "",
        facts,
        [],
        sections,
    )


def _pooled(rows: Sequence[AcrossRuns], what: str) -> list[Block]:
    note = (
        f"The lifts of the {what}. Differ: the p-value that the true lift is the same in all runs"
        " (Cochran's Q). Pooled: the inverse-variance mean, for repeats of one scenario only."
    )
    heads = columns("Metric", "Arm", "Differ, p", "Pooled", "95% interval", text=2)
    lines = []
    for row in rows:
        ends = "n/a" if row.pooled is None else words.interval(row.low, row.high)
        lines.append(
            (
                plain(words.title(row.metric)),
                plain(row.arm),
                numeric(words.probability, row.differ),
                numeric(words.percent, row.pooled),
                plain(ends),
            )
        )
    return [Words(note, note=True), Table(f"Runs taken together: {what}", heads, lines)]


def _needed(designs: Sequence[DesignUsers]) -> list[Block]:
    note = (
        "To find, four times in five after the adjustment of each run's report, what was there."
        " Whole feeds (paired, split, switchback) show a lift; interleaving shows a preference"
        " within one slate, a relative difference of credits, which is larger than the lift of a"
        " feed and not the same question. The switchback is given at its best, without carry-over."
    )
    names = compared(designs)
    heads = columns("Metric", "Arm", *names.values(), text=2)
    lines = []
    for row in designs:
        cells = []
        for name in names:
            lift = words.percent(row.lifts.get(name))
            cells.append(Cell(needed(row, name), row.users.get(name), under=f"for {lift}"))
        lines.append((plain(words.title(row.metric)), plain(row.arm), *cells))
    return [Words(note, note=True), Table("Users needed by each design", heads, lines)]


def _settings(content: Compared) -> list[Block]:
    """What the runs are, and in which settings they differ."""
    heads = [
        *columns("Run", "Scenario", "Seed", "Design", "Control", "Arms", "Users", "Days", text=6),
        Column("Red checks"),
    ]
    runs = [
        (
            plain(name),
            plain(run.scenario),
            plain(run.seed),
            plain(run.design),
            plain(run.control),
            plain(words.listed(run.arms)),
            plain(words.whole(run.size.users)),
            plain(run.size.days or "n/a"),
            plain(", ".join(run.red) or "none"),
        )
        for name, run in content.runs.items()
    ]
    keys = [Column("Key"), *map(Column, content.runs)]
    rows = [
        (plain(row.key), *(plain(row.values[name]) for name in content.runs))
        for row in content.differences
    ]
    differ: Block = Words("None.")
    if rows:
        differ = Table("Settings that differ", keys, rows, sortable=False)
    return [Table("Runs", heads, runs, sortable=False), Heading("Settings that differ"), differ]


def _names(places: Sequence[Path]) -> list[str]:
    for depth in range(1, max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return list(map(str, places))


def _facts(content: Content) -> RunFacts:
    return RunFacts(
        content.scenario,
        content.seed,
        content.design,
        content.control,
        content.arms,
        content.size,
        tuple(check.name for check in content.red()),
    )


def _differences(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[Difference]:
    """Every dotted key of the resolved scenarios whose value is not the same in all runs."""
    flat = {name: dict(_flat(scenario, "")) for name, scenario in settings.items()}
    for key in sorted(set().union(*flat.values())):
        values = {name: scenario.get(key) for name, scenario in flat.items()}
        if len({repr(value) for value in values.values()}) > 1:
            yield Difference(key, values)


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _pool(lifts: Sequence[DecidedLift], repeats: bool) -> Pooling:
    """What independent runs say together: whether they differ (p of Cochran's Q), and, of repeats
    of one scenario, the pooled lift. Nothing where a run has no interval of some width.

    """
    from scipy.stats import norm

    errors = np.array([one.error for one in lifts])
    if len(lifts) < 2 or not np.isfinite(errors).all():
        return Pooling()
    q = float(norm.ppf(0.975))
    together = fixed_effect(np.array([one.lift for one in lifts]), np.square(errors))
    if not repeats:
        return Pooling(together.p)
    half = q * together.error
    return Pooling(together.p, together.mean, together.mean - half, together.mean + half)


def _designs(contents: Mapping[str, Content], differences: set[str]) -> tuple[DesignUsers, ...]:
    """How many users each design needs on one world: of a paired run and an interleaved one of the
    same scenario, seeds aside. No rows where the runs are of different worlds or of one design.
    """
    by_kind = {content.design: content for content in contents.values() if content.designs}
    same_world = all(
        key.split(".")[0] in ("design", "seed", "name", "description") for key in differences
    )
    controls = {content.control for content in by_kind.values()}
    if not same_world or len(by_kind) < 2 or len(controls) > 1:
        return ()
    rows: dict[tuple[str, str], DesignUsers] = {}
    for content in by_kind.values():
        for need in content.designs:
            key = need.arm, need.metric
            row = rows.setdefault(key, DesignUsers(need.metric, need.arm, {}, {}))
            row.lifts.update(dict.fromkeys(need.users, need.lift))
            row.users.update(need.users)
    return tuple(row for row in rows.values() if set(by_kind) <= set(row.users))


def _of_what(contents: Mapping[str, Content]) -> Iterator[str]:
    """Whether the runs speak of models or of methods: once where all say the same."""
    lines = {}
    for name, content in contents.items():
        line = method_line(content)
        if line is not None:
            lines[name] = line
    if len(lines) == len(contents) and len(set(lines.values())) == 1:
        yield next(iter(lines.values()))
    else:
        yield from (f"{name}: {line}" for name, line in lines.items())


def _of_supply(contents: Mapping[str, Content]) -> Iterator[str]:
    """What the arms of each run show of its catalogue."""
    for name, content in contents.items():
        for line in catalogue_shown(content):
            yield f"{name}: {line}"


def _notes(runs: Mapping[str, RunFacts], independent: bool, repeats: bool) -> list[str]:
    notes = []
    controls = {run.control for run in runs.values()}
    if len(controls) > 1:
        notes.append(
            f"The runs have different controls ({', '.join(sorted(controls))}): their lifts are"
            " lifts over different things."
        )
    drafted = [name for name, run in runs.items() if DESIGNS[run.design].shares_slates]
    if drafted and len(drafted) < len(runs):
        notes.append(
            f"{', '.join(drafted)}: interleaved; its lifts are of credits within shared slates, not"
            " of whole feeds."
        )
    notes += [
        f"{name}: red checks: {', '.join(run.red).lower()}. Do not act on its lifts."
        for name, run in runs.items()
        if run.red
    ]
    if not independent:
        notes.append(
            "Runs of the same seed share their users and random numbers: they are not independent,"
            " and no test compares them."
        )
    elif repeats:
        notes.append(
            "The runs differ in their seed only: they are repeats, and their lifts are pooled by"
            " inverse variance."
        )
    return notes
