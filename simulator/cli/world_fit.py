"""`abtest world`: worlds made from a log of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import COUNT, FILE, SEED, SOURCE
from simulator.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.base import Progress
    from simulator.calibration.world_page import FittedWorlds
    from simulator.scenario.model import Scenario
    from simulator.users.base import Source
    from simulator.users.learned.evaluation import Total

MOST_USERS = 3000
"""Users of a choice world by default: enough for 10% of a rate of one in a hundred."""
RETURNING = 0.1
"""Share of users who come on several days, below which days say nothing of a log's users."""
PARTS = 8
"""Parts of each user's rows before the kept-back ones, where a log has no days."""
MOST_PAIRS = 20_000_000
"""Users times items of a choice world by default, which is what a simulation takes."""


@click.group()
def world() -> None:
    """Make worlds from a log: learned users, and a choice world held to the log's own figures.

    \b
    abtest world fit events.csv --out scenario.yaml
    """


@world.command()
@click.argument("log", type=SOURCE)
@click.option("--out", type=FILE, required=True, help="The scenario to write.")
@click.option(
    "--users",
    type=click.Choice(["learned", "choice", "both"]),
    default="both",
    show_default=True,
    help="Which world; of both, the learned one is written beside OUT as OUT_learned.yaml.",
)
@click.option(
    "--map",
    "data_file",
    type=SOURCE,
    help="A file with the data: section that reads LOG (`abtest data describe --out`).",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="ROLE=COLUMN",
    help="Which column is what, where it is not guessed: --columns user=visitor.",
)
@click.option(
    "--holdout-days", type=COUNT, default=2, show_default=True, help="Days that are kept back."
)
@click.option(
    "--report",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="OUT.html if left out.",
)
@click.option(
    "--size", type=COUNT, help=f"Users of the choice world; at most {MOST_USERS} if left out."
)
@click.option(
    "--click-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Assumed where every row of LOG is a click.",
)
@click.option("--seed", type=SEED, default=1, show_default=True, help="Of users and fits.")
def fit(
    log: Path,
    out: Path,
    users: str,
    data_file: Path | None,
    columns: tuple[str, ...],
    holdout_days: int,
    page: Path | None,
    size: int | None,
    click_rate: float,
    seed: int,
) -> None:
    """Fit worlds to LOG, a table of interactions, and write scenarios that run in them.

    Learned users answer the log's own sessions by a model of its answers. A choice world is a
    synthetic population whose parameters are fitted until its marginals are those of the log's
    training days; what the log does not say is no target. Both foretell the days that were kept
    back, and the page shows how well.

    Exit code 0: everything is within its tolerance (marginals 10%, daily totals 5%) or its errors.
    1: something is not, and is named. 2: bad input.

    \b
    abtest world fit events.csv --out scenario.yaml
    abtest world fit ml-100k/u.data --out movies.yaml --users choice
    abtest world fit log.parquet --columns user=visitor --holdout-days 4 --out mine.yaml
    """
    from simulator.calibration import world_page
    from simulator.page.terminal import show
    from simulator.run.progress import board

    with failures(), board() as progress:
        asked = _read_as(log, data_file, columns, holdout_days, out)
        asked = asked.model_copy(update={"seed": seed})
        found = _fit(log, asked, out, users, size, click_rate, progress)
        written = world_page.save(found, page or out.with_suffix(".html"))
    if found.forecasts:
        show([world_page.day_table(found.forecasts, found.days_are)])
        say(world_page.daily_sentence(found))
    if found.rows:
        say(world_page.marginal_sentence(found))
    for what, why in found.not_measured.items():
        say(f"not measured: {what}: {why}")
    if found.too_few:
        say(f"not measured: {len(found.too_few)} marginals that the log is too small for")
    for kind, why in found.left_out.items():
        say(f"no {world_page.WORLDS[kind]}: {why}")
    for path in (*found.scenarios, written):
        say(path)
    if not found.fits:
        raise SystemExit(1)


def _read_as(
    log: Path, data_file: Path | None, columns: tuple[str, ...], holdout_days: int, out: Path
) -> Scenario:
    """A scenario of learned users whose `data` section reads the log: as a file says it, or as it
    is guessed.
    """
    from simulator.config.document import ScenarioError, YamlDocument
    from simulator.scenario.model import Scenario

    if data_file is None:
        document = YamlDocument(str(log), {"data": _guessed(log, _named(columns))}, {(): 1})
    elif columns:
        raise click.UsageError("--columns and --map say the same: give one of them")
    else:
        document = YamlDocument.read(data_file)
    section = document.values.get("data")
    if not isinstance(section, dict):
        rule = "must have the key `data`, as `abtest data describe --out` writes it"
        raise ScenarioError(f"{data_file}: {rule}")
    section["path"] = _path_of(log, out)
    section["test_days"] = holdout_days
    document.flags["data", "test_days"] = "--holdout-days"
    how = section.get("split")
    if how == "last":
        section |= {"split": "parts", "parts": holdout_days + PARTS}
    document.values = {
        "name": out.stem,
        "description": f"learned users of {log.name}",
        "data": section,
        "users": {"kind": "learned"},
        "days": holdout_days,
        "arms": {"popularity": {"policy": "popularity"}},
    }
    return Scenario.check(document)


def _with_days(asked: Scenario, folder: Path) -> tuple[Scenario, Source, str]:
    """The scenario that reads the log, what it reads, and why the log's days are none, or "": days
    are kept back, or, of a log without any to which users come back, parts of each user's rows.
    """
    from simulator import datasets
    from simulator.calibration.log_targets import share_of_returning

    data = asked.data
    if data.split == "days":  # somebody has said so
        return asked, datasets.read(data, folder), ""
    if "time" not in data.columns:
        why = "the log has no times"
    elif data.split == "parts":
        why = "the last days have hardly any rows"
    else:
        source = datasets.read(data, folder)
        back = share_of_returning(source)
        if back >= RETURNING:
            return asked, source, ""
        why = f"of the users of its last days {back:.0%} came on more than one of them"
    parts = {"split": "parts", "parts": data.test_days + PARTS}
    data = data.model_copy(update=parts)
    return asked.model_copy(update={"data": data}), datasets.read(data, folder), why


def _named(columns: tuple[str, ...]) -> dict[str, str]:
    """The columns that the command line names, by role.

    Raises:
        click.UsageError: not ROLE=COLUMN, no such role, or one twice.
    """
    from simulator.config.document import near
    from simulator.scenario.tables import ROLES

    named: dict[str, str] = {}
    for text in columns:
        role, sign, column = text.partition("=")
        if not sign or not column:
            raise click.UsageError(f"--columns: ROLE=COLUMN, as user=visitor; got {text!r}")
        if role not in ROLES:
            raise click.UsageError(f"--columns {text}: no role {role!r}; {near(role, ROLES)}")
        if role in named:
            raise click.UsageError(f"--columns: {role} is named twice")
        named[role] = column
    return named


def _guessed(log: Path, named: dict[str, str]) -> dict[str, Any]:
    """The `data` section that `abtest data describe` writes."""
    from simulator import datasets
    from simulator.config.document import ScenarioError
    from simulator.datasets.describe import describe

    found = describe(datasets.locate(str(log), Path()), roles=named)
    if not found.section:
        absent = {"user", "item"} - {guess.role for guess in found.columns}
        flags = " ".join(f"--columns {role}=COLUMN" for role in sorted(absent))
        columns = ", ".join(guess.name for guess in found.columns)
        raise ScenarioError(
            f"{log}: no column is called like {' or '.join(sorted(absent))}: say which it is,"
            f" {flags}; it has {columns}"
        )
    return dict(found.section)


def _path_of(log: Path, out: Path) -> str:
    """How the scenario at `out` names the log: from its own folder where the log was named from the
    working directory; as it was named where it is absolute, or a data set of ABTEST_DATA.
    """
    if log.is_absolute() or not log.exists():
        return str(log)
    return os.path.relpath(log, out.parent)


def _fit(
    log: Path,
    asked: Scenario,
    out: Path,
    users: str,
    size: int | None,
    click_rate: float,
    progress: Progress,
) -> FittedWorlds:
    """Fit the worlds that are asked for, and write their scenarios."""
    from simulator.calibration import choice_of_log, kept_back
    from simulator.calibration.log_targets import measure_log
    from simulator.calibration.world_page import FittedWorlds
    from simulator.log.files import write_text
    from simulator.users.base import UsersError

    asked, source, no_days = _with_days(asked, out.parent)
    seed, days = asked.seed, asked.data.test_days
    figures = measure_log(source, size or MOST_USERS, seed, click_rate, no_days)
    if size is None and figures.world_users * figures.world_items > MOST_PAIRS:
        fewer = max(200, MOST_PAIRS // figures.world_items)
        figures = measure_log(source, fewer, seed, click_rate, no_days)
    days_are = "parts" if no_days else "days"
    basis = (
        f"{log.name}: the {figures.whole.days} {days_are} before the kept-back ones,"
        f" {len(figures.whole.user):,} impressions of {len(figures.users):,} users"
    )
    forecasts, left_out, scenarios = [], {}, []
    fitted = None
    if users in ("choice", "both"):
        fitted = choice_of_log.fit_choice(figures, out.stem, seed, basis, progress)
        forecasts += kept_back.of_choice(figures, fitted.scenario, source, days)
        scenarios.append(str(write_text(out, choice_of_log.yaml_of(fitted.scenario))))
    if users in ("learned", "both"):
        if figures.is_implicit:
            left_out["learned"] = (
                "every row of the log is a click, so a model of its answers would click on anything"
            )
        else:
            file = out if users == "learned" else out.with_name(f"{out.stem}_learned{out.suffix}")
            learned = choice_of_log.learned_scenario(asked, file.stem, figures)
            forecasts += kept_back.of_learned(_evaluate(learned, source, progress))
            scenarios.append(str(write_text(file, choice_of_log.yaml_of(learned))))
    if not scenarios:
        raise UsersError(f"{log}: no world can be fitted: {left_out['learned']}; --users choice")
    return FittedWorlds(
        log=log.name,
        basis=basis,
        tolerance=asked.calibration.tolerance,
        rows=() if fitted is None else fitted.rows,
        forecasts=tuple(forecasts),
        not_measured=figures.not_measured,
        too_few=figures.too_few,
        moved={} if fitted is None else fitted.moved,
        simulations=0 if fitted is None else fitted.simulations,
        left_out=left_out,
        notes=source.notes,
        scenarios=tuple(scenarios),
        days_are=days_are,
    )


def _evaluate(learned: Scenario, source: Source, progress: Progress) -> Sequence[Total]:
    """Totals of the kept-back days by a response model of the days before."""
    from simulator.users.learned.evaluation import evaluate
    from simulator.users.learned.fitting import fit

    users: Any = learned.users
    return evaluate(fit(users, source, learned.seed, progress), source, learned.seed).totals
