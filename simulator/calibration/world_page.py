"""Worlds fitted to a log as a document: what the log says, how near the worlds are, what they
foretell of days that were kept back, and what nobody can know from this log.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulator.calibration.figure import mark
from simulator.calibration.kept_back import TOLERANCE as DAILY
from simulator.calibration.kept_back import DayForecast
from simulator.calibration.targets import TargetRow, is_beyond
from simulator.page import saved
from simulator.page.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Prose,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.figures import RatioScale, axis, numbers
from simulator.page.words import counted, number, percent, whole

SCALE = RatioScale(0.5, 2.0, 2, 98)

WORLDS = {"learned": "learned users", "choice": "choice world"}


@dataclass(frozen=True)
class FittedWorlds:
    """What `abtest world fit` has found.

    Attributes:
        log: its name.
        basis: what of it was measured, in words.
        tolerance: relative, of marginals.
        rows: marginals of the choice world beside the log's; () without one.
        forecasts: of kept-back days.
        not_measured: what the log does not know, and why.
        too_few: marginals that the log is too small for, and why.
        moved: parameters of the choice world: key -> (begin, end of the fit).
        simulations: that the fit of the choice world took.
        left_out: worlds that could not be fitted, and why.
        notes: of the reader of the log.
        scenarios: files that were written.
        days_are: "days", or what stands for them.
    """

    log: str
    basis: str
    tolerance: float
    rows: tuple[TargetRow, ...]
    forecasts: tuple[DayForecast, ...]
    not_measured: Mapping[str, str]
    too_few: Mapping[str, str]
    moved: Mapping[str, tuple[float, float]]
    simulations: int
    left_out: Mapping[str, str]
    notes: Mapping[str, Any]
    scenarios: tuple[str, ...]
    days_are: str

    @property
    def beyond(self) -> list[TargetRow]:
        """Marginals out of tolerance by more than their errors."""
        return [row for row in self.rows if is_beyond(row, self.tolerance)]

    @property
    def missed(self) -> list[DayForecast]:
        """Totals of kept-back days that are out of tolerance by more than their errors."""
        return [row for row in self.forecasts if not row.within]

    @property
    def fits(self) -> bool:
        """Whether nothing is out of tolerance beyond its errors."""
        return not self.beyond and not self.missed


def document(found: FittedWorlds) -> Document:
    """The page."""
    heading = f"Worlds fitted to {found.log}"
    of_log = [(name, str(value)) for name, value in found.notes.items()]
    sections = [
        Section("days", f"Kept-back {found.days_are}", list(_days(found)), "Kept back"),
        Section("marginals", "Marginals", list(_marginals(found)), "Marginals"),
        Section("unknown", "What this log does not say", list(_unknown(found)), "Not measured"),
        Section("parameters", "What was fitted", list(_parameters(found)), "Parameters"),
        Section("log", "The log", [Facts(of_log)], "The log"),
    ]
    return Document(
        title=heading,
        kicker="Worlds of a log",
        heading=heading,
        about=found.basis[:1].upper() + found.basis[1:] + ".",
        facts=Facts([("scenarios", ", ".join(found.scenarios))]),
        gates=_gates(found),
        sections=[section for section in sections if section.blocks],
    )


def _gates(found: FittedWorlds) -> list[Gate]:
    gates = []
    if found.rows:
        gates.append(_gate("Marginals.", marginal_sentence(found), bad=bool(found.beyond)))
    if found.forecasts:
        lead = f"Kept-back {found.days_are}."
        gates.append(_gate(lead, daily_sentence(found), bad=bool(found.missed)))
    for world, why in found.left_out.items():
        gates.append(Gate("amber", f"No {WORLDS[world]}.", why))
    return gates


def _gate(lead: str, text: str, *, bad: bool) -> Gate:
    return Gate("red" if bad else "green", lead, text, quiet=not bad)


def marginal_sentence(found: FittedWorlds) -> str:
    """How many marginals are where they should be, and which are not."""
    n, within = len(found.rows), sum(row.within for row in found.rows)
    tolerance = percent(found.tolerance, 0, False)
    words = f"{within} of {n} marginals are within {tolerance} of the log's"
    unsure = n - within - len(found.beyond)
    if unsure:
        words += f", {unsure} more within their sampling error"
    if not found.beyond:
        return f"{words}."
    worst = sorted(found.beyond, key=lambda row: -abs(math.log(max(row.ratio, 1e-9))))[:5]
    some = ", ".join(f"{row.name} {row.ratio:.2f} times the log's" for row in worst)
    return f"{words}; out of tolerance: {some}."


def daily_sentence(found: FittedWorlds) -> str:
    """How many totals of kept-back days were foretold, and which were not."""
    n, missed = len(found.forecasts), found.missed
    near = sum(abs(row.error) <= DAILY for row in found.forecasts)
    words = f"{near} of {n} totals are foretold within {percent(DAILY, 0, False)}"
    unsure = n - near - len(missed)
    if unsure:
        words += f", {unsure} more within what is noise of the truth"
    if not missed:
        return f"{words}."
    some = ", ".join(
        f"{row.what} of {found.days_are.removesuffix('s')} {row.day} ({WORLDS[row.by]})"
        f" {percent(row.error, 1)}"
        for row in missed
    )
    return f"{words}; missed: {some}."


def day_table(rows: Sequence[DayForecast], days_are: str) -> Table:
    """A row for each total."""
    heads = columns(
        "World", "Total of", days_are[:-1].title(), "Forecast", "Truth", "Error", "Noise", text=2
    )
    lines = [
        (
            plain(WORLDS[row.by]),
            plain(row.what),
            plain(row.day, row.day),
            numeric(whole, row.forecast),
            numeric(whole, row.actual),
            numeric(percent, row.error, 1, kind="open" if row.within else "bad"),
            numeric(percent, row.noise, 1, False),
        )
        for row in rows
    ]
    return Table(f"Kept-back {days_are}", heads, lines)


def _days(found: FittedWorlds) -> list[Block]:
    if not found.forecasts:
        return []
    note = (
        "No world has seen these. Learned users answer what the log has shown, to whom it was"
        " shown; the choice world foretells visits as well, of users who are known from before."
        " Noise: one standard error of the truth; of a choice world's rows also what days of"
        " training differed by."
    )
    return [Words(note, note=True), day_table(found.forecasts, found.days_are)]


def _marginals(found: FittedWorlds) -> list[Block]:
    if not found.rows:
        return []
    heads = [
        *columns(
            "Measured on", "Marginal", "Log", "World", "Standard error", "World / log", text=2
        ),
        Column("Ratio to the log", figure=True, sorts=False),
    ]
    lines = []
    for row in found.rows:
        kind = "good" if row.within else "bad"
        error = None if math.isnan(row.se) else row.se
        ratio = numeric(number, row.ratio, kind=kind)
        figures = (numeric(number, row.target), numeric(number, row.simulated))
        drawn = Cell(figure=mark(row, found.tolerance, SCALE))
        lines.append(
            (plain(row.feed), plain(row.name), *figures, numeric(number, error), ratio, drawn)
        )
    foot = axis(SCALE, numbers)
    return [Table("Marginals", heads, lines, kind="forest", foot=foot)]


def _unknown(found: FittedWorlds) -> list[Block]:
    unknown = {**found.not_measured, **found.too_few}
    rows = [(plain(what), plain(why)) for what, why in unknown.items()]
    if not rows:
        return []
    note = (
        "What is not measured is no target: nothing is red for it, and the world keeps a default."
    )
    return [Words(note), Table("Not measured", columns("What", "Why", text=2), rows)]


def _parameters(found: FittedWorlds) -> list[Block]:
    rows = [
        (plain(key), numeric(number, begin), numeric(number, end))
        for key, (begin, end) in found.moved.items()
    ]
    run = "\n".join(f"abtest run {name}" for name in found.scenarios)
    blocks: list[Block] = [Words(Prose("What was written runs as it is:")), Code(run)]
    if rows:
        heads = columns("Parameter", "Begin", "Fitted")
        table = Table("Parameters of the choice world", heads, rows)
        summary = f"{counted(len(rows), 'parameter')} in {counted(found.simulations, 'simulation')}"
        blocks.append(Fold(summary, [table]))
    return blocks


def save(found: FittedWorlds, page: Path) -> Path:
    """Write the page, and the same as .json and .md beside it.

    Raises:
        FileError: a file cannot be written.
    """
    values = {**asdict(found), "rows": [row._asdict() for row in found.rows]}
    return saved.save(page.parent, page.stem, _finite(values), document(found))


def _finite(value: Any) -> Any:
    """Plain values; a number that is not defined becomes None."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
