"""Measured beside published: rows, intervals over seeds, paired t-tests over users; as a page,
Markdown, JSON and Parquet. Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulator.log.files import staged
from simulator.page import saved
from simulator.page.blocks import (
    Block,
    Cell,
    Document,
    Facts,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import between, probability, score, signed_score, two
from simulator.reproduce.experiment import Floats, Results
from simulator.reproduce.published import ELSEWHERE
from simulator.reproduce.systems import Protocol


@dataclass(frozen=True, slots=True)
class ResultCell:
    """One number of a table.

    Attributes:
        dataset: short name.
        row: as printed.
        system: what was run for it.
        metric: `hit_rate@k` or `ndcg@k`.
        measured: mean over users and seeds.
        low: lower end of the 95% interval of the mean over seeds (t with seeds - 1 degrees of
            freedom); NaN for one seed.
        high: upper end.
        seeds: how many.
        tuned: those in which tuning found better weights than its start; None for a system that is
            not tuned.
        published: the paper's number, NaN where it has none.
        difference: measured - published.
        against: the best baseline of this column, which the test compares with; "" for itself.
        t: of the paired t-test over users, each user's value averaged over seeds.
        p: two-sided.
    """

    dataset: str
    row: str
    system: str
    metric: str
    measured: float
    low: float
    high: float
    seeds: int
    tuned: tuple[int, ...] | None
    published: float
    difference: float
    against: str
    t: float
    p: float


def interval(seeds: Floats) -> tuple[float, float]:
    """The 95% interval of the mean over seeds, mean -+ t(.975, n - 1) s / sqrt(n); NaN for one
    seed.
    """
    if len(seeds) < 2:
        return float("nan"), float("nan")
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(seeds) - 1) * seeds.std(ddof=1) / np.sqrt(len(seeds)))
    return float(seeds.mean()) - half, float(seeds.mean()) + half


def paired_t(treatment: Floats, control: Floats) -> tuple[float, float]:
    """t and two-sided p of the paired t-test over users; NaN where every pair is equal."""
    if np.array_equal(treatment, control):
        return float("nan"), float("nan")
    from scipy import stats

    test = stats.ttest_rel(treatment, control)
    return float(test.statistic), float(test.pvalue)


def cells(
    results: Results,
    rows: Mapping[str, str],
    datasets: Sequence[str],
    metrics: Sequence[str],
    published: Mapping[tuple[str, str, str], float],
    baselines: Sequence[str],
) -> list[ResultCell]:
    """The cells of a table.

    Args:
        results: measured.
        rows: row -> system; rows whose system was not run are left out.
        datasets: short names.
        metrics: columns.
        published: (row, data set, metric) -> value.
        baselines: rows among which the best one of each column is what all others are tested
            against.
    """
    table = []
    for dataset in datasets:
        here = {row: system for row, system in rows.items() if (dataset, system) in results.places}
        for metric in metrics:
            candidates = [row for row in here if row in baselines]
            best = max(
                candidates,
                key=lambda row: results.seeds(dataset, here[row], metric).mean(),
                default="",
            )
            for row, system in here.items():
                seeds = results.seeds(dataset, system, metric)
                low, high = interval(seeds)
                t = p = float("nan")
                if best and row != best:
                    t, p = paired_t(
                        results.users(dataset, system, metric),
                        results.users(dataset, here[best], metric),
                    )
                printed = published.get((row, dataset, metric), float("nan"))
                mean = float(seeds.mean())
                against = best if row != best else ""
                table.append(
                    ResultCell(
                        dataset,
                        row,
                        system,
                        metric,
                        mean,
                        low,
                        high,
                        len(seeds),
                        _moved(results, dataset, system),
                        printed,
                        mean - printed,
                        against,
                        t,
                        p,
                    )
                )
    return table


def _moved(results: Results, dataset: str, system: str) -> tuple[int, ...] | None:
    """The seeds in which tuning moved a system; None for one that is not tuned."""
    moved = results.tuned.get((dataset, system))
    return None if moved is None else tuple(seed for seed, is_moved in enumerate(moved) if is_moved)


COLUMNS = (
    *columns("Row", "Metric", "Measured", "95% over seeds", "Published", text=2),
    *columns("Difference", "Seeds", text=0),
    *columns("Tuned", text=1),
    *columns("Against", "t", "p"),
)


def sections(table: Sequence[ResultCell]) -> list[Section]:
    """The cells as a table for each data set."""
    shown = []
    for dataset in dict.fromkeys(cell.dataset for cell in table):
        rows = [_line(cell) for cell in table if cell.dataset == dataset]
        name = f"Measured beside published: {dataset}"
        blocks: list[Block] = [Table(name, COLUMNS, rows)]
        if any(cell.tuned is not None for cell in table if cell.dataset == dataset):
            blocks.append(Words(TUNED, note=True))
        blocks += _elsewhere(dataset)
        shown.append(Section(dataset, dataset, blocks, dataset))
    return shown


def _elsewhere(dataset: str) -> list[Block]:
    """Rows of other papers on a data set; nothing where there are none."""
    heads = columns("Model", "HR@10", "NDCG@10", "Source")
    rows = [
        (
            plain(row.model),
            numeric(score, row.hit_rate),
            numeric(score, row.ndcg),
            plain(row.source),
        )
        for row in ELSEWHERE.get(dataset.lower(), ())
    ]
    return [Table(f"Published elsewhere: {dataset}", heads, rows)] if rows else []


def _line(cell: ResultCell) -> list[Cell]:
    over_seeds = "n/a" if np.isnan(cell.low) else between(cell.low, cell.high, score)
    return [
        plain(cell.row),
        plain(cell.metric),
        numeric(score, cell.measured),
        plain(over_seeds),
        numeric(score, cell.published),
        numeric(signed_score, cell.difference),
        plain(cell.seeds, cell.seeds),
        plain(_tuned(cell)),
        plain(cell.against or "itself"),
        numeric(two, cell.t),
        numeric(probability, cell.p),
    ]


TUNED = (
    "Tuned: in which seeds tuning found better weights than those it started from. In the others it"
    " kept its start, and the row is the network before tuning."
)


def _tuned(cell: ResultCell) -> str:
    if cell.tuned is None:
        return ""
    if not cell.tuned:
        return "no seed"
    if len(cell.tuned) == cell.seeds:
        return "all seeds"
    return "seeds " + ", ".join(map(str, cell.tuned))


def document(
    name: str, sections: Sequence[Section], protocol: Protocol, about: str = ""
) -> Document:
    """An artefact of the paper as a page: its tables, and the protocol under which they hold."""
    rows = [(plain(what), plain(how)) for what, how in protocol.says.items()]
    choices = Table("Protocol", columns("Choice", "How", text=2), rows, sortable=False)
    title = f"{name}, measured by the protocol {protocol.name}"
    return Document(
        title=title,
        kicker="Reproduction of arXiv 2404.08675",
        heading=title,
        about=about,
        facts=Facts([]),
        gates=[],
        sections=[*sections, Section("protocol", "Protocol", [choices], "Protocol")],
    )


def write(
    name: str, rows: Sequence[Mapping[str, Any]], shown: Document, protocol: Protocol, out: Path
) -> list[Path]:
    """`NAME-PROTOCOL.json`, `.md`, `.html` and `.parquet` in `out`, each by rename.

    Args:
        name: of the artefact.
        rows: of the table, all with the same keys; NaN is written as null.
        shown: the table as a document.
        protocol: stands in the JSON, and in the file names.
        out: folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{protocol.name}"
    cells = [
        {key: None if isinstance(v, float) and np.isnan(v) else v for key, v in row.items()}
        for row in rows
    ]
    content = {"table": name, "protocol": {"name": protocol.name, **protocol.says}, "cells": cells}
    saved.save(out, stem, content, shown)
    with staged(out / f"{stem}.parquet") as staging:
        pq.write_table(pa.Table.from_pylist(cells), staging)
    return [out / f"{stem}.{kind}" for kind in ("json", "md", "html", "parquet")]
