"""Measured beside published: rows, intervals over seeds, paired t-tests over users; as text, JSON
and Parquet. Nothing is run here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulator.log.files import staged, write_text
from simulator.reproduce.experiment import Floats, Results
from simulator.reproduce.systems import Protocol


@dataclass(frozen=True, slots=True)
class Cell:
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
) -> list[Cell]:
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
                    Cell(
                        dataset,
                        row,
                        system,
                        metric,
                        mean,
                        low,
                        high,
                        len(seeds),
                        printed,
                        mean - printed,
                        against,
                        t,
                        p,
                    )
                )
    return table


def number(value: float, sign: bool = False) -> str:
    """Four decimals without the leading zero, as the paper prints; a dash for NaN."""
    if np.isnan(value):
        return "-"
    return f"{value:+.4f}".replace("0.", ".", 1) if sign else f"{value:.4f}".replace("0.", ".", 1)


def chance(p: float) -> str:
    """A p value in few characters."""
    return "-" if np.isnan(p) else ("<.0001" if p < 1e-4 else f"{p:.4f}".replace("0.", ".", 1))


def text(table: Sequence[Cell], protocol: Protocol) -> str:
    """The table in Markdown, one block a data set, with its protocol."""
    lines = ["```", *protocol.lines(), "```"]
    for dataset in dict.fromkeys(cell.dataset for cell in table):
        lines += ["", f"**{dataset}**", ""]
        lines += [
            "| row | metric | measured | 95% over seeds | published | difference | seeds | against"
            " | t | p |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|---|"]
        for cell in table:
            if cell.dataset == dataset:
                spread = "-" if np.isnan(cell.low) else f"{number(cell.low)} to {number(cell.high)}"
                t = "-" if np.isnan(cell.t) else f"{cell.t:.2f}"
                lines.append(
                    f"| {cell.row} | {cell.metric} | {number(cell.measured)} | {spread} |"
                    f" {number(cell.published)} | {number(cell.difference, sign=True)} |"
                    f" {cell.seeds} | {cell.against or 'itself'} | {t} | {chance(cell.p)} |"
                )
    return "\n".join(lines) + "\n"


def write(
    name: str, rows: Sequence[Mapping[str, Any]], words: str, protocol: Protocol, out: Path
) -> list[Path]:
    """`NAME-PROTOCOL.json`, `.md` and `.parquet` in `out`, each by rename.

    Args:
        name: of the artefact.
        rows: of the table, all with the same keys; NaN is written as null.
        words: the table as Markdown.
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
    files = [out / f"{stem}.{ending}" for ending in ("json", "md", "parquet")]
    write_text(files[0], json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(files[1], words)
    with staged(files[2]) as staging:
        pq.write_table(pa.Table.from_pylist(cells), staging)
    return files
