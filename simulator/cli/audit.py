"""`abtest audit`: the true error rates of every test and interval, by re-randomising a paired
run.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.say import say

if TYPE_CHECKING:
    from simulator.stats.audit import Audit, Row


def _sizes(_: click.Context, __: click.Parameter, given: str | None) -> tuple[int, ...]:
    if given is None:
        return ()
    parts = given.split(",")
    if not all(part.strip().isdecimal() and int(part) >= 4 for part in parts):
        raise click.BadParameter(f"whole numbers >= 4 with commas between; got {given!r}")
    return tuple(sorted({int(part) for part in parts}))


@click.command()
@click.argument("source", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--repetitions",
    type=click.IntRange(100),
    default=10_000,
    show_default=True,
    help="Samples for each size.",
)
@click.option(
    "--sizes",
    callback=_sizes,
    help="Users in a sample, e.g. 100,500,2000; by default 100, 500 and 2000 or all users.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--population",
    type=click.IntRange(20),
    default=2000,
    show_default=True,
    help="Users of the run that samples are drawn from.",
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help=(
        "Also permutation tests and BCa intervals of so many resamples, on 1,000 samples of the"
        " largest size."
    ),
)
@click.option(
    "--analysis",
    "analyses",
    multiple=True,
    metavar="NAME",
    help="Only analyses with this in the name; repeatable.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file; in the run's folder audit.json if left out.",
)
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the file.")
def audit(
    source: Path,
    repetitions: int,
    sizes: tuple[int, ...],
    seed: int,
    population: int,
    resamples: int,
    analyses: tuple[str, ...],
    out: Path | None,
    quiet: bool,
) -> None:
    """Re-randomise the paired RUN (a run's folder or its log) and count, for every test and
    interval that a report prints: false positives where there is no effect, power, coverage of the
    95% interval, bias of the lift.

    \b
    abtest audit runs/kuaishou_like/latest
    abtest audit runs/kuaishou_like/latest --analysis BCa --resamples 1000 --sizes 500
    """
    from simulator.log.files import write_text
    from simulator.report import find
    from simulator.stats import audit as audits
    from simulator.stats import units

    with failures("the audit was interrupted; nothing was written"):
        log, home = find(source)
        days = units.read(log)
        control = log.metadata.control or days.arms[0]
        chosen = sizes or tuple(sorted({min(n, days.n_users) for n in (100, 500, 2000)}))
        with _progress(quiet) as progress:
            found = audits.audit(
                days,
                control,
                repetitions=repetitions,
                sizes=chosen,
                seed=seed,
                most=population,
                resamples=resamples,
                analyses=analyses,
                progress=progress,
            )
        target = out or home / ("audit-part.json" if analyses else "audit.json")
        write_text(target, json.dumps(plain(found), indent=1, allow_nan=False) + "\n")
        if not quiet:
            for line in lines(found):
                say(line)
        say(target)


def _progress(quiet: bool) -> Any:
    from contextlib import contextmanager

    from rich.progress import Progress

    @contextmanager
    def bar() -> Any:
        with Progress(disable=quiet or not os.isatty(2), transient=True) as shown:
            task = shown.add_task("re-randomising", total=None)

            def tell(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
                shown.update(task, description=stage, completed=done, total=total)

            yield tell

    return bar()


def plain(found: Audit) -> dict[str, Any]:
    """The audit as JSON types; what is not defined is None."""
    from dataclasses import asdict

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(v) for v in value]
        return (
            None
            if isinstance(value, float)
            and (value != value or value in (float("inf"), float("-inf")))
            else value
        )

    content: dict[str, Any] = clean(asdict(found))
    for row, given in zip(found.rows, content["rows"], strict=True):
        given |= {"holds": row.holds, "warning": row.warning}
    return content


def lines(found: Audit) -> Iterable[str]:
    """The audit for a terminal: what the verdict rests on, planted lifts, wrong analyses,
    warnings.
    """
    yield (
        f"Audit by re-randomisation: {found.repetitions:,} samples of each size from"
        f" {found.n_users:,} users, control {found.control}."
    )
    yield "False positives are nominally 5%, coverage 95%; ± is three Monte-Carlo standard errors."
    yield ""
    rates = f"{'false positives':>16} {'power':>7}  {'coverage':>15}  {'bias of lift':>13}"
    yield f"{'metric':<12} {'arm':<12} {'analysis':<22} {'users':>7}  {rates}"
    whole = any(row.default for row in found.rows)
    for row in found.rows:
        if row.default or not whole:
            yield _line(row)
    largest = {row.analysis: row.n for row in sorted(found.rows, key=lambda row: row.n)}
    beside = [row for row in found.rows if not row.default and row.n == largest[row.analysis]]
    off = [row for row in beside if not row.holds]
    yield ""
    yield (
        f"Printed beside the verdict, at the largest size of each: {len(beside) - len(off)} of"
        f" {len(beside)} rows hold."
    )
    yield from (f"  {row.warning} [{row.arm}]" for row in off)
    if not whole:
        return
    yield ""
    yield "A planted lift, recovered:"
    for p in found.planted:
        where = f"{p.metric:<12} {p.design:<7} {p.n:>7} users"
        yield (
            f"  {where}  planted {p.planted:+.3%}  recovered {p.pooled:+.3%} ± {3 * p.error:.3%} "
            f" coverage {p.coverage.value:.1%}"
        )
    yield ""
    yield "What the usual wrong analyses would have done where there is no effect (nominal 5%):"
    for w in found.wrong:
        yield (
            f"  {w.analysis:<28} {w.metric:<12} {w.error.value:6.1%} [{w.error.low:.1%},"
            f" {w.error.high:.1%}]  {w.why}"
        )
    if found.looking:
        yield ""
        yield "Looking at the end of every day, where there is no effect (nominal: at most 5%):"
    for rule in dict.fromkeys(look.rule for look in found.looking):
        said = [
            f"{look.metric} ({look.design}) {look.error.value:.1%}"
            for look in found.looking
            if look.rule == rule
        ]
        yield f"  {rule.replace('_', ' '):<16} " + ", ".join(said)
    warnings = [row.warning for row in found.rows if row.warning and row.default]
    yield ""
    yield "Warnings:" if warnings else "Every default holds at every size."
    yield from (f"  {warning}" for warning in warnings)


def _line(row: Row) -> str:
    wide = 3 * (0.05 * 0.95 / row.repetitions) ** 0.5
    mark = " " if row.holds else "!"
    name = f"{row.metric:<12} {row.arm:<12} {row.analysis:<22} {row.n:>7}"
    if row.undefined == 1.0:
        return f"{name}  identical in both arms"
    covered = (
        f"{'n/a':>15}"
        if math.isnan(row.coverage.value)
        else f"{row.coverage.value:7.2%} ± {wide:.2%}"
    )
    rates = f"{row.error.value:7.2%} ± {wide:.2%} {row.power.value:8.1%}  {covered}"
    bias = (
        f"{'n/a':>12}"
        if math.isnan(row.bias)
        else f"{row.bias:+12.3%}"
        if abs(row.bias) < 10
        else f"{'beyond 1,000%':>12}"
    )
    return f"{name} {mark} {rates}  {bias}"
