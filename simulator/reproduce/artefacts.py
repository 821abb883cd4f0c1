"""The five artefacts of the paper: which systems each needs, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from policies.base import Progress
from policies.similar import suggest
from simulator.log.files import write_text
from simulator.page.blocks import (
    Block,
    Cell,
    Document,
    Multiples,
    Section,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.words import percent, whole
from simulator.reproduce import ahead as several
from simulator.reproduce import claims as answered
from simulator.reproduce import curves
from simulator.reproduce import result_tables as tables
from simulator.reproduce import second as continuations
from simulator.reproduce.experiment import Dataset, ExperimentPlan, ReproduceError
from simulator.reproduce.protocol import printed
from simulator.reproduce.published import DATASETS, METRICS, STATISTICS, TABLE_2, TABLE_3
from simulator.reproduce.systems import FAMILIES, ON_REQUEST, OWNER, ROWS, SPLITS, VARIANTS, Family


@dataclass(frozen=True)
class Artefact:
    """A table or figure.

    Attributes:
        name: as on the command line.
        rows: row -> system.
        metrics: columns.
        published: (row, data set, metric) -> value.
        baselines: rows whose best is tested against, for tables; for figures the row that all
            others are tested against.
        axis: what the rows of a figure are; "" for a table.
        on_request: rows that are made only when they are asked for by name.
    """

    name: str
    rows: Mapping[str, str]
    metrics: tuple[str, ...]
    published: Mapping[tuple[str, str, str], float]
    baselines: tuple[str, ...]
    axis: str = ""
    on_request: tuple[str, ...] = ()


ARTEFACTS = {
    artefact.name: artefact
    for artefact in (
        Artefact(
            "table2",
            ROWS,
            METRICS,
            TABLE_2,
            tuple(row for row, system in ROWS.items() if OWNER[system].role == "baseline"),
            on_request=ON_REQUEST,
        ),
        Artefact("table3", VARIANTS, METRICS[2:], TABLE_3, ("Variant_3",)),
        Artefact(
            "fig4", {str(k): f"RecGPT K={k} 9_1" for k in range(7)}, METRICS[2:], {}, ("0",), "K"
        ),
        Artefact(
            "fig5",
            {split: f"RecGPT K=1 {split}" for split in SPLITS},
            METRICS[2:],
            {},
            ("10_0",),
            "m_n",
        ),
    )
}
"""By name, without Table 1, which needs no run."""

ALL = "all"
"""As a model: every row, those made on request as well."""


def chosen(
    rows: Mapping[str, str], models: Sequence[str], on_request: Sequence[str] = ()
) -> dict[str, str]:
    """The rows to be made: those asked for by row, family or system, whichever of that name comes
    first; further systems become rows of their own, of a family all.

    Args:
        rows: row -> system.
        models: what was asked for, `all` = every row; nothing: all rows but those of `on_request`.
        on_request: rows that are made only when they are asked for.

    Raises:
        ReproduceError: a name that nothing has.
    """
    if not models:
        return {row: system for row, system in rows.items() if row not in on_request}
    asked_for: dict[str, str] = {}
    names = {name.lower(): name for name in [*FAMILIES, *OWNER, *rows]}
    for model in models:
        if model.lower() == ALL:
            asked_for |= rows
            continue
        name = names.get(model.lower())
        if name is None:
            hint = suggest(model, names.values(), f"there are {', '.join([*rows, *FAMILIES])}")
            raise ReproduceError(f"--models {model}: nothing of that name; {hint}")
        if name in rows:
            asked_for[name] = rows[name]
        else:
            systems = FAMILIES[name].systems() if name in FAMILIES else (name,)
            asked_for |= {system: system for system in systems}
    return asked_for


def families(rows: Mapping[str, str]) -> tuple[Family, ...]:
    """The families behind the rows, each once, in the order of all families."""
    needed = {OWNER[system].name for system in rows.values()}
    return tuple(family for name, family in FAMILIES.items() if name in needed)


def make(
    artefact: Artefact,
    models: Sequence[str],
    plan: ExperimentPlan,
    progress: Progress,
    workers: int = 1,
) -> tuple[Document, list[Path]]:
    """Run what is missing and write the artefact's files.

    Args:
        artefact: which.
        models: rows, systems or families; all of the artefact but what is made on request if there
            are none.
        plan: data sets, protocol, seeds, folder; the families are those behind the rows.
        progress: told of every experiment.
        workers: experiments side by side.

    Returns:
        The table, and the files.
    """
    rows = chosen(artefact.rows, models, artefact.on_request)
    asked = families(rows)
    results = replace(plan, families=asked).run(progress, workers)
    names = [dataset.name for dataset in plan.datasets]
    metrics = (*artefact.metrics, *plan.further_metrics)
    cells = tables.cells(results, rows, names, metrics, artefact.published, artefact.baselines)
    protocol, out = printed(plan.protocol, asked), plan.out
    sections = tables.sections(cells)
    plots = curves.figures(cells, artefact.axis) if artefact.axis else []
    if plots:
        sections.insert(0, Section("figure", "Figure", [Multiples(plots)], "Figure"))
    left_out = [row for row in artefact.on_request if row not in rows and not models]
    about = ""
    if left_out:
        about = (
            f"Not made: {', '.join(left_out)} (long; name them in --models, or --models {ALL} for"
            " the whole table)."
        )
    shown = tables.document(artefact.name, sections, protocol, about)
    files = tables.write(artefact.name, [asdict(cell) for cell in cells], shown, protocol, out)
    if plots:
        svg = curves.figure(plots, len(metrics))
        files.append(write_text(out / f"{artefact.name}-{protocol.name}.svg", svg))
    return shown, files


def claims(
    models: Sequence[str], plan: ExperimentPlan, progress: Progress, workers: int = 1
) -> tuple[Document, list[Path]]:
    """The paper's claims answered, over all users and by group; of `models` only, if there are any.
    As `make`.
    """
    systems = {
        system: system for claim in answered.CLAIMS for system in (claim.worse, claim.better)
    }
    plan = replace(plan, families=families(chosen(systems, models)))
    return _write(
        "claims",
        answered.answers(
            plan.run(progress, workers), plan.datasets, answered.CLAIMS, plan.further_metrics
        ),
        plan,
    )


def ahead(
    models: Sequence[str], plan: ExperimentPlan, progress: Progress, workers: int = 1
) -> tuple[Document, list[Path]]:
    """One slate for the next several clicks: two steps against one, by m:n, and the systems of
    claims that are asked for together; of `Pre-train` and `RecGPT K=1` without `models`. As `make`.
    """
    split = (
        f"each user's last {several.AHEAD} items are held out and tested by one slate; the item"
        " before them validates"
    )
    protocol = replace(plan.protocol, says={**plan.protocol.says, "split": split})
    asked = families(chosen({}, models or ("Pre-train", "RecGPT K=1")))
    plan = replace(plan, families=asked, ahead=several.AHEAD, protocol=protocol)
    return _write("ahead", several.answers(plan, progress, workers), plan)


def second(
    models: Sequence[str], plan: ExperimentPlan, progress: Progress, workers: int = 1
) -> tuple[Document, list[Path]]:
    """A second step in expectation against one step, and with other continuations than the user's
    own; of `Best pre-train` without `models`. As `make`.
    """
    asked = families(chosen({}, models or ("Best pre-train",)))
    rows = []
    for family in asked:
        alone = replace(plan, families=(family,))
        found = continuations.results(alone, progress, workers)
        rows += answered.answers(found, plan.datasets, continuations.CLAIMS)
    return _write("second", rows, replace(plan, families=asked))


def _write(
    name: str, rows: Sequence[answered.Answer], plan: ExperimentPlan
) -> tuple[Document, list[Path]]:
    protocol = printed(plan.protocol, plan.families)
    shown = tables.document(name, answered.sections(rows), protocol)
    files = tables.write(name, [answered.record(row) for row in rows], shown, protocol, plan.out)
    if rows:
        svg = curves.differences(rows)
        files.append(write_text(plan.out / f"{name}-{protocol.name}.svg", svg))
    return shown, files


def table1(datasets: Sequence[Dataset]) -> list[Block]:
    """Table 1: what the files hold beside what was published; sparsity is 1 - actions / (users x
    items).
    """
    rows = []
    for dataset in datasets:
        users, items, actions, _ = dataset.statistics
        rows.append(_line(dataset.name, "measured", users, items, actions, actions / users))
        if dataset.name in STATISTICS:
            rows.append(_line(dataset.name, "published", *STATISTICS[dataset.name]))
    heads = ("Users", "Items", "Actions", "Mean length", "Sparsity")
    blocks: list[Block] = [Table("Data sets", columns("Data set", "", *heads, text=2), rows)]
    missing = [name for name in DATASETS if name not in {dataset.name for dataset in datasets}]
    return [*blocks, Words(f"Not there: {', '.join(missing)}.")] if missing else blocks


def _line(
    name: str, kind: str, users: int, items: int, actions: int, mean: float
) -> tuple[Cell, ...]:
    sparsity = percent(1 - actions / (users * items), 2, sign=False)
    counts = (plain(whole(n)) for n in (users, items, actions))
    return (plain(name), plain(kind), *counts, plain(f"{mean:.1f}"), plain(sparsity))
