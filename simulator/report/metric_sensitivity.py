"""Which metric of several runs decides soonest: the runs' users, what they say, and its page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from policies.base import Progress, silent
from simulator.log.ledger import here
from simulator.log.metrics import chosen
from simulator.page import figures, words
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Points,
    Section,
    Table,
    Words,
    numeric,
    plain,
)
from simulator.page.words import counted, listed, percent, title, two, whole
from simulator.report import check_distinct, find
from simulator.report.errors import ReportError
from simulator.report.stored import encode
from simulator.stats import units
from simulator.stats.learned_metric import (
    CRITICAL,
    HOPELESS,
    LEARNED,
    Judged,
    MetricSensitivity,
    Outcome,
    Trial,
    judge,
)
from simulator.stats.unit_table import UnitTable
from simulator.stats.user_days import UserDays

FIRST = ("watch_time", "click")
"""The reference where no metric is a success: the first of these that the runs have."""


def sensitivity(
    paths: Sequence[Path | str],
    *,
    reference: str | None = None,
    declared: Mapping[str, Outcome] | None = None,
    metrics: Sequence[str] = (),
    progress: Progress = silent,
) -> Judged:
    """How soon each metric of several runs decides, and a learned sum of them.

    Args:
        paths: runs or logs with the same arms; or one with several fits.
        reference: the metric whose sign over all other runs is taken for the truth; the first
            success of the scenario if left out, else watch time or clicks.
        declared: by arm, 1 (better) or -1 (worse), where that is known otherwise.
        metrics: names; all that every run has if left out.
        progress: of reading and judging.

    Raises:
        ReportError: runs of different arms, of one arm, or of a design without users as units; a
            run twice; a metric of the supply side.
        TableError: too few runs, or of no arm the outcome is known.
    """
    sources = [here(path) for path in paths]
    check_distinct(sources)
    of_supply = [one.name for one in chosen(metrics) if one.supply is not None]
    if of_supply:
        raise ReportError(
            f"sensitivity: {', '.join(of_supply)} is of the supply side; sensitivity is told of"
            " metrics of users"
        )
    tables: dict[str, UnitTable] = {}
    control: str | None = None
    success: str | None = None
    for place, path in enumerate(sources):
        progress("read the runs", place, len(sources), {})
        log, _ = find(path)
        meta = log.metadata
        if meta.design.unit != "user":
            raise ReportError(
                f"{path}: in a {meta.design.kind} {meta.design.unit}s are the units; sensitivity"
                " is told of users"
            )
        own = meta.control or meta.compared[0]
        if len(meta.compared) < 2:
            raise ReportError(f"{path}: has one arm, {own!r}, and nothing to compare it with")
        if control not in (None, own):
            raise ReportError(
                f"{path}: its control is {own!r}, that of {sources[0]} is {control!r}; sensitivity"
                " needs runs of the same arms"
            )
        control = own
        days = units.read(log, list(metrics) or None)
        roles = [name for name, metric in days.metrics.items() if metric.role == "success"]
        success = success or (roles[0] if roles else None)
        for fit, table in _by_fit(days):
            tables[f"{path}{fit}"] = table
    progress("read the runs", len(sources), len(sources), {})
    if control is None:
        raise ReportError("sensitivity: give runs, or a run with several fits")
    names = _common(tables)
    arms = [arm for arm in next(iter(tables.values())).arms if arm != control]
    for run, table in tables.items():
        if set(table.arms) != {control, *arms}:
            raise ReportError(
                f"{run}: its arms are {list(table.arms)}, those of the first run"
                f" {[control, *arms]}; sensitivity needs runs of the same arms"
            )
    for arm in declared or {}:
        if arm not in arms:
            raise ReportError(f"no treatment arm {arm!r}; there are {arms}")
    wanted = reference or success or next((one for one in FIRST if one in names), names[0])
    trials = [
        Trial.of(run, table, control, arm, names) for run, table in tables.items() for arm in arms
    ]
    return judge(
        trials,
        names,
        wanted,
        declared,
        lambda done, total: progress("judge the metrics", done, total, {}),
    )


def _by_fit(days: UserDays) -> Iterable[tuple[str, UnitTable]]:
    """The table of users of each fit, under a name; of a run with one fit that of all users."""
    if days.lives:
        for fit, life in enumerate(days.lives):
            yield f" (fit {fit})", life.by("user")
    elif days.fit_of_user is not None:
        for fit in range(max(days.fits)):
            index = np.flatnonzero(days.fit_of_user == fit)
            if len(index):
                yield f" (fit {fit})", days.users(index).by("user")
    else:
        yield "", days.by("user")


def _common(tables: Mapping[str, UnitTable]) -> list[str]:
    """The metrics that every run has data for, in the order of the first.

    Raises:
        ReportError: there is none.
    """
    first, *others = tables.values()
    names = [name for name in first.numerators if all(name in t.numerators for t in others)]
    if not names:
        raise ReportError("sensitivity: no metric has data in every run")
    return names


def in_words(judged: Judged) -> list[str]:
    """What the table says, in sentences."""
    learned = next(row for row in judged.rows if row.metric == LEARNED)
    rows = [row for row in judged.rows if row.metric != LEARNED]
    first = rows[0]
    lines = []
    if np.isfinite(first.users):
        lines.append(
            f"{title(first.metric)} decides soonest: four times in five with"
            f" {whole(first.users)} users ({_times(first)} of a trial's"
            f" {whole(judged.users)}), with the wrong sign in {percent(first.wrong, 0, False)} of"
            " trials."
        )
    else:
        lines.append("No metric points where the outcome lies: none decides at any size.")
    if np.isfinite(learned.users):
        gain = first.users / learned.users if np.isfinite(first.users) else np.inf
        what = f"{gain:.1f} times fewer" if gain >= 1 else f"{1 / gain:.1f} times more"
        lines.append(
            f"The learned sum needs {whole(learned.users)} users, {what} than"
            f" {title(first.metric).lower()}, in runs that its weights have not seen."
            if np.isfinite(gain)
            else f"The learned sum needs {whole(learned.users)} users."
        )
    else:
        lines.append("The learned sum does not carry over to runs that it has not seen.")
    hopeless = [row for row in rows if HOPELESS < row.times < np.inf]
    if hopeless:
        names = listed([title(row.metric).lower() for row in hopeless])
        needs = f"{min(row.times for row in hopeless):.0f} times the users or more"
        verb = "is" if len(hopeless) == 1 else "are"
        lines.append(f"{names.capitalize()} {verb} hopeless at this size: {needs}.")
    against = [row for row in rows if not np.isfinite(row.users)]
    if against:
        names = listed([title(row.metric).lower() for row in against])
        lines.append(f"Against the outcome, or nowhere, on average: {names}.")
    return lines


def basis(judged: Judged) -> list[str]:
    """What the outcomes rest on, in sentences."""
    lines = []
    reference = title(judged.reference).lower()
    for one in judged.known:
        evidence = f"z {two(one.z)} of {reference} over {counted(one.trials, 'trial')}"
        if one.outcome == 0:
            lines.append(
                f"{one.arm}: whether it is better is not known ({evidence}), so its trials are not"
                " judged."
            )
            continue
        way = "better" if one.outcome > 0 else "worse"
        ground = evidence if np.isfinite(one.z) else "as declared"
        lines.append(f"{one.arm}: taken for {way} ({ground}).")
    return lines


def lines(judged: Judged) -> Iterable[Block]:
    """What the terminal shows."""
    yield from map(Words, in_words(judged))
    yield table(judged, with_plot=False)
    yield weights(judged)
    yield from (Words(line, note=True) for line in (*notes(judged), *basis(judged)))


def _times(row: MetricSensitivity) -> str:
    return f"{row.times:.2g} times" if row.times >= 0.1 else f"{row.times:.1%}"


def save(judged: Judged, folder: Path) -> Path:
    """Write sensitivity.json, sensitivity.md and sensitivity.html; returns the page."""
    from simulator.page import saved

    return saved.save(folder, "sensitivity", encode(judged), document(judged))


def document(judged: Judged) -> Document:
    """The page."""
    facts = Facts(
        [
            ("Outcome by", title(judged.reference)),
            ("Trials judged", f"{judged.trials} of {judged.of}"),
            ("Users of a trial", whole(judged.users)),
        ]
    )
    blocks: list[Block] = [
        Points([("", line) for line in in_words(judged)]),
        table(judged, with_plot=True),
        *(Words(line, note=True) for line in notes(judged)),
    ]
    return Document(
        title="Sensitivity of metrics",
        kicker="Sensitivity",
        heading="Which metric decides soonest",
        about="",
        facts=facts,
        gates=[],
        sections=[
            Section("metrics", "Metrics", blocks, "Metrics"),
            Section("weights", "The learned metric", [weights(judged)], "Learned metric"),
            Section(
                "basis",
                "What the outcomes rest on",
                [Points([("", line) for line in basis(judged)])],
                "Outcomes",
            ),
        ],
        closing="",
    )


def table(judged: Judged, *, with_plot: bool) -> Table:
    """Every metric with its z, its errors and the users that it needs."""
    rows = judged.rows
    ends = [v for row in rows for v in (row.z_low, row.z_high) if np.isfinite(v)]
    reach = 1.05 * max([CRITICAL * 1.5, *map(abs, ends)])
    scale = figures.Scale(-reach, reach, 2, 98)
    heads = [Column("Metric"), Column("z", number=True)]
    if with_plot:
        heads.append(Column("z by trial", figure=True, sorts=False))
    heads += [
        Column("right", number=True),
        Column("wrong", number=True),
        Column("A/A", number=True),
        Column("users", number=True),
        Column(""),
    ]
    lines = []
    for row in rows:
        cells = [plain(title(row.metric)), numeric(two, row.z)]
        if with_plot:
            tip = (
                f"{title(row.metric)}: mean z {two(row.z)}, between {two(row.z_low)} and"
                f" {two(row.z_high)}"
            )
            mark = figures.Whiskers(row.z, row.z_low, row.z_high)
            strip = figures.strip(
                mark, scale, _tone(row), words.typeset(tip), region=(-CRITICAL, CRITICAL)
            )
            cells.append(Cell(figure=strip))
        users = whole(row.users) if np.isfinite(row.users) else "no number"
        cells += [
            numeric(percent, row.right, 0, False),
            numeric(percent, row.wrong, 0, False),
            numeric(percent, row.false, 1, False),
            Cell(users, row.users if np.isfinite(row.users) else None),
            Cell(row.words, kind=_tone(row)),
        ]
        lines.append(cells)
    foot = figures.axis(scale, figures.numbers) if with_plot else None
    return Table("Sensitivity of metrics", heads, lines, foot=foot)


def _tone(row: MetricSensitivity) -> str:
    if row.times <= 1:
        return "good"
    return "open" if row.times <= HOPELESS else "bad"


def weights(judged: Judged) -> Table:
    """The learned metric."""
    heads = [
        Column("Metric"),
        Column("weight", number=True),
        Column("without one run", number=True),
    ]
    lines = [
        (
            plain(title(one.metric)),
            Cell(f"{one.weight:+.3f}", one.weight),
            Cell(f"{one.low:+.3f} to {one.high:+.3f}"),
        )
        for one in judged.weights
    ]
    return Table(
        "Weights",
        heads,
        lines,
        caption=(
            "Weight of a metric per standard deviation of a user's value, in the direction that is"
            " better; sizes add up to 1. A weight may be below 0: the metric then takes out what it"
            " shares with the others."
        ),
    )


def notes(judged: Judged) -> list[str]:
    """How to read the table."""
    return [
        f"z: of the difference from the control, mean over {counted(judged.trials, 'trial')}, in"
        " the direction of the known outcome. right, wrong: share of trials that decide (two-sided,"
        " 5%) as the outcome is, and against it. A/A: control users divided by a coin, share that"
        " decides: 5% is promised. users: to decide four times in five.",
        "learned: a weighted sum of all metrics (Jeunen & Ustimenko, KDD 2024); weights and outcome"
        " of a trial are those of the other runs.",
    ]
