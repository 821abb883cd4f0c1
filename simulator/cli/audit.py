"""`abtest audit`: the true error rates of every test and interval, by re-randomising a paired
run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simulator.cli.failure import failures
from simulator.cli.options import ALTERNATIVE, LEVEL, SAMPLES, SEED, SOURCE, WORKERS
from simulator.cli.say import say
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Heading,
    Points,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.terminal import show
from simulator.page.words import interval, percent, share, title, whole

if TYPE_CHECKING:
    from simulator.stats.audit import Audit, AuditedAnalysis, Planted
    from simulator.stats.looking import Looking
    from simulator.stats.randomise import Rate
    from simulator.stats.rule import Alternative
    from simulator.stats.wrong import Wrong


def _whole_numbers(least: int) -> Callable[..., tuple[int, ...]]:
    """An option of whole numbers from `least` on, with commas between; () where it is left out."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...]:
        if text is None:
            return ()
        parts = text.split(",")
        if not all(part.strip().isdecimal() and int(part) >= least for part in parts):
            raise click.BadParameter(f"whole numbers >= {least} with commas between; got {text!r}")
        return tuple(sorted({int(part) for part in parts}))

    return read


@click.command()
@click.argument("source", metavar="RUN", type=SOURCE)
@click.option(
    "--repetitions",
    type=click.IntRange(100),
    default=10_000,
    show_default=True,
    help="Samples for each size.",
)
@click.option(
    "--sizes",
    callback=_whole_numbers(4),
    help="Users in a sample, e.g. 100,500,2000; by default 100, 500 and 2000 or all users.",
)
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option(
    "--population",
    type=click.IntRange(20),
    default=2000,
    show_default=True,
    help="Users of the run that samples are drawn from, held in memory.",
)
@click.option(
    "--of-all",
    type=SAMPLES,
    default=1000,
    show_default=True,
    help=(
        "Samples of all users of a run with 2,097,152 or more, which the parts of its log sum up;"
        " 0: none."
    ),
)
@click.option(
    "--resamples",
    type=SAMPLES,
    default=0,
    show_default=True,
    help=(
        "Also permutation tests and BCa intervals of so many resamples, on 1,000 samples of the"
        " largest size."
    ),
)
@click.option(
    "--predictions",
    type=SAMPLES,
    default=0,
    show_default=True,
    help=(
        "Also the adjustment for predictions from users' past (abtest report --ml), with models of"
        " its own in each of so many samples of the largest size, e.g. 400; needs scikit-learn."
    ),
)
@click.option(
    "--fits",
    callback=_whole_numbers(2),
    help=(
        "Fits of an arm in the samples for the verdict on methods, e.g. 3,5,10 (default): of twins"
        " who live with every fit, of which it takes four for each."
    ),
)
@click.option(
    "--fit-repetitions",
    type=click.IntRange(100),
    default=1000,
    show_default=True,
    help="Samples of each kind for the verdict on methods.",
)
@click.option(
    "--decision-repetitions",
    type=click.IntRange(100),
    default=1000,
    show_default=True,
    help="Samples of each truth for the decision, in a run with a success metric.",
)
@click.option(
    "--metric", "metrics", multiple=True, help="Only this metric; repeatable; all if left out."
)
@LEVEL
@ALTERNATIVE
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
@WORKERS
@click.option("--quiet", is_flag=True, help="Print nothing but the path of the file.")
def audit(
    source: Path,
    repetitions: int,
    sizes: tuple[int, ...],
    seed: int,
    population: int,
    of_all: int,
    resamples: int,
    predictions: int,
    fits: tuple[int, ...],
    fit_repetitions: int,
    decision_repetitions: int,
    metrics: tuple[str, ...],
    level: float,
    alternative: Alternative,
    analyses: tuple[str, ...],
    out: Path | None,
    workers: int,
    quiet: bool,
) -> None:
    """Re-randomise the paired RUN (a run's folder or its log) and count, for every test and
    interval that a report prints: false positives where there is no effect, power, coverage of the
    interval, bias of the lift; and how often the decision ships an arm where all are equal,
    where a guardrail is harmed by its margin, and where a success is better by its detectable lift.
    Level and side are those of the report that is audited (`abtest report RUN --level 99%`).

    \b
    abtest audit runs/kuaishou_like/latest
    abtest audit runs/kuaishou_like/latest --analysis decision
    abtest audit runs/kuaishou_like/latest --level 99% --alternative better
    abtest audit runs/kuaishou_like/latest --analysis BCa --resamples 1000 --sizes 500
    """
    from simulator.log.files import json_text, write_text
    from simulator.log.workspace import Workspace
    from simulator.report import find
    from simulator.run.over_parts import parts_map
    from simulator.run.progress import board
    from simulator.stats import audit as audits
    from simulator.stats import fit_audit, units
    from simulator.stats.rule import Rule

    with failures("the audit was interrupted; nothing was written"):
        log, home = find(source, inspect=False)
        with parts_map("processes", workers, home) as parts, board(quiet=quiet) as progress:
            days = units.read(log, inspect=True, streamed=parts)
            days = days.in_order(Workspace(home).declared_arms)
            if metrics:
                days = days.of_metrics(metrics)
            result = audits.audit(
                days,
                log.metadata.control or days.arms[0],
                repetitions=repetitions,
                sizes=sizes or tuple(sorted({min(n, days.n_users) for n in (100, 500, 2000)})),
                seed=seed,
                most=population,
                of_all=of_all,
                resamples=resamples,
                predictions=predictions,
                analyses=analyses,
                fits=fits or fit_audit.FITS,
                fit_repetitions=fit_repetitions,
                decision_repetitions=decision_repetitions,
                rule=Rule(level, alternative),
                progress=progress,
            )
        target = out or home / ("audit-part.json" if analyses or metrics else "audit.json")
        write_text(target, json_text(content(result)))
        if not quiet:
            show(blocks(result))
        say(target)


def content(result: Audit) -> dict[str, Any]:
    """The audit as JSON types; what is not defined is None."""
    from simulator.report.stored import encode

    stored: dict[str, Any] = encode(result)
    for row, stored_row in zip(result.rows, stored["rows"], strict=True):
        stored_row |= {"holds": row.holds, "warning": row.warning}
    return stored


def blocks(result: Audit) -> Iterator[Block]:
    """The audit for a terminal: what the verdict rests on, the verdict on methods, planted lifts,
    wrong analyses, warnings.
    """
    from simulator.report.audited import of_decisions, of_methods

    is_whole = bool(result.planted)
    if result.rows:
        yield from _tests(result, is_whole)
    for why, names in result.left_out.items():
        yield Words(f"Not audited: {', '.join(map(title, names))}: {why}.")
    if result.methods:
        yield Heading("The verdict on methods")
        yield from of_methods(result.methods)
    elif result.without_methods:
        yield Heading("The verdict on methods")
        yield Words(f"Not audited. {result.without_methods}", note=True)
    if result.decisions:
        yield Heading("The decision")
        yield from of_decisions(result.decisions)
    if not is_whole:
        return
    yield Heading("A planted lift, recovered")
    yield _planted(result.planted)
    yield Heading("What the usual wrong analyses would have done where there is no effect")
    yield _wrong(result.wrong)
    if result.looking:
        yield Heading("Looking at the end of every day, where there is no effect")
        yield Words(f"False positives; nominal: at most {share(result.rule.alpha)}.", note=True)
        yield _looking(result.looking)
    yield Words(
        "The tests of the supply side, whose units are authors, are not counted here: of equal arms"
        " they find 2.4 to 7.5% to differ where 5% are promised (docs/statistics.md; python -m"
        " benchmarks.supply counts anew).",
        note=True,
    )
    warnings = [row.warning for row in result.rows if row.warning and row.default]
    yield Heading("Warnings" if warnings else _all_hold(result))
    yield Points([("▲", warning) for warning in warnings])


def _all_hold(result: Audit) -> str:
    """What it says where no default has a warning: what could not be audited holds nothing."""
    defaults = [row for row in result.rows if row.default]
    audited = [row for row in defaults if row.undefined < 1.0]
    if not audited:
        return "No default could be audited: the arms are identical."
    if len(audited) < len(defaults):
        left = f"{len(defaults) - len(audited)} of {len(defaults)}"
        return f"Every default that could be audited holds; {left} could not."
    return "Every default holds at every size."


def _tests(result: Audit, is_whole: bool) -> Iterator[Block]:
    """What the verdict rests on, or what was asked for, and of the others whatever does not
    hold.
    """
    from simulator.report.audited import rule_in_words, samples_in_words

    samples = samples_in_words(result.repetitions, result.n_users, result.rows)
    yield Words(
        f"Audit by re-randomisation: {samples}, control {result.control}, tests at"
        f" {rule_in_words(result.rule)}. False positives are nominally"
        f" {share(result.rule.alpha)}, coverage {share(result.rule.level)}; ± is three Monte-Carlo"
        " standard errors."
    )
    yield _analyses([row for row in result.rows if row.default or not is_whole])
    largest = {row.analysis: row.n for row in sorted(result.rows, key=lambda row: row.n)}
    beside = [row for row in result.rows if not row.default and row.n == largest[row.analysis]]
    off = [row for row in beside if not row.holds]
    yield Words(
        f"Printed beside the verdict, at the largest size of each: {len(beside) - len(off)} of"
        f" {len(beside)} rows hold."
    )
    yield Points([("▲", f"{row.warning} [{row.arm}]") for row in off])


def _analyses(rows: Iterable[AuditedAnalysis]) -> Table:
    from simulator.report.audited import three_errors

    lines = []
    for row in rows:
        names = (plain(row.metric), plain(row.arm), plain(row.analysis), plain(whole(row.n)))
        if row.undefined == 1.0:
            lines.append((*names, *[plain("n/a")] * 4, plain("identical in both arms")))
            continue
        wide = percent(three_errors(row.level, row.repetitions), 2, sign=False)
        beyond = not math.isnan(row.bias) and abs(row.bias) >= 10
        bias = "beyond 1,000%" if beyond else percent(row.bias)
        coverage = "n/a"
        if not math.isnan(row.coverage.value):
            coverage = f"{_rate(row.coverage, 2)} ± {wide}"
        lines.append(
            (
                *names,
                plain(f"{_rate(row.error, 2)} ± {wide}"),
                plain(_rate(row.power)),
                plain(coverage),
                plain(bias),
                Cell("yes", kind="good") if row.holds else Cell("no", kind="bad"),
            )
        )
    heads = [
        *columns("metric", "arm", "analysis", text=3),
        *columns("users", "false positives", "power", "coverage", "bias of lift", text=0),
    ]
    return Table("Audit of the tests", [*heads, Column("holds")], lines)


def _planted(planted: Iterable[Planted]) -> Table:
    heads = columns("metric", "design", "users", "planted", "recovered", "coverage", text=2)
    rows = [
        (
            plain(one.metric),
            plain(one.design),
            plain(whole(one.n)),
            plain(percent(one.planted)),
            plain(f"{percent(one.pooled)} ± {percent(3 * one.error, sign=False)}"),
            plain(_rate(one.coverage)),
        )
        for one in planted
    ]
    return Table("A planted lift", heads, rows)


def _wrong(wrong: Iterable[Wrong]) -> Table:
    heads = [
        *columns("analysis", "metric", "false positives", "95% interval", text=2),
        Column("what is wrong"),
    ]
    rows = [
        (
            plain(one.analysis),
            plain(one.metric),
            plain(_rate(one.error)),
            plain(interval(one.error.low, one.error.high, 1, sign=False)),
            plain(one.why),
        )
        for one in wrong
    ]
    return Table("Usual wrong analyses", heads, rows)


def _looking(looking: Iterable[Looking]) -> Table:
    heads = columns("rule", "metric", "design", "false positives", text=3)
    rows = [
        (
            plain(look.rule.replace("_", " ")),
            plain(look.metric),
            plain(look.design),
            plain(_rate(look.error)),
        )
        for look in looking
    ]
    return Table("Looking every day", heads, rows)


def _rate(rate: Rate, digits: int = 1) -> str:
    return percent(rate.value, digits, sign=False)
