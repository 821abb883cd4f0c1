"""Whether the numbers may be trusted: checks, calibration of the world, audit of the tests."""

from __future__ import annotations

from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Heading,
    Points,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import (
    LIGHTS,
    is_defined,
    number,
    percent,
    probability,
    share,
    title,
    whole,
)
from simulator.report.audited import of_methods, rule_in_words, samples_in_words
from simulator.report.content import Content
from simulator.report.sections.cells import lift_cell, metric_and_arm
from simulator.stats.randomise import Rate


def checks(c: Content) -> Section | None:
    if not c.checks:
        return None
    rows = [
        (
            plain(check.name),
            Cell(f"{LIGHTS[check.status]} {check.status}", kind=f"status {check.status}"),
            plain(check.value),
            plain(check.meaning),
        )
        for check in c.checks
    ]
    heads = [Column("Check"), Column("Status"), Column("Found"), Column("What it means")]
    return Section(
        "checks",
        "Checks",
        [Table("Checks", heads, rows, kind="checks", sortable=False)],
        "Checks",
    )


def fits(c: Content) -> Section | None:
    if not c.fits:
        return None
    note = (
        "Before the A/B some users live among slates drawn uniformly from all items. Their first"
        " clicks, which no fit has seen, are looked for among the candidates that each fit recalls"
        " for them: a click at place p, from 0, is worth 1 / log2(p + 2). Last comes the floor:"
        " policies that count. Below the floor: p that the fit finds at least as much as the lower"
        " of them. Falls out: p that no fit of the arm falls out of the others."
    )
    numbers = ("Fit", "NDCG", "Standard error", "Clicks found", "Below the floor", "Falls out")
    heads = [*columns("Arm", "Policy", *numbers, text=2), Column("Verdict")]
    rows = []
    for row in c.fits:
        verdict = Cell(row.fault or "nothing is wrong", kind="bad" if row.fault else "")
        rows.append(
            (
                plain(row.arm or "floor"),
                plain(row.policy),
                numeric(whole, row.fit),
                numeric(number, row.ndcg),
                numeric(number, row.se),
                numeric(percent, row.hit_rate, 2, False),
                numeric(probability, row.p_below),
                numeric(probability, row.p_outlier),
                verdict if row.arm else plain(""),
            )
        )
    return Section("fits", "The fits", [Words(note), Table("The fits", heads, rows)], "Fits")


def calibration(c: Content) -> Section | None:
    if not c.calibration or not c.calibration.rows:
        return None
    measured = c.calibration
    note = (
        "What the simulated users do, against what real ones are known to do. "
        f"Measured on {measured.basis}; tolerance {percent(measured.tolerance, 0, False)}."
    )
    heads = columns(
        "Marginal", "Target", "Simulated", "Standard error", "Simulated / target", text=1
    )
    blocks: list[Block] = [Words(note)]
    for within in (False, True):
        rows = [
            (Cell(row.name, sign="✓" if within else "✗", kind="good" if within else "bad"),
             *(numeric(number, v) for v in (row.target, row.simulated, row.se, row.ratio)))
            for row in measured.rows
            if row.within == within
        ]  # fmt: skip
        if rows:
            summary = (
                f"{len(rows)} of {len(measured.rows)} marginals {'within' if within else 'out of'}"
                " tolerance"
            )
            blocks.append(Fold(summary, [Table("Calibration", heads, rows)], open=not within))
    return Section("calibration", "Calibration of the world", blocks, "Calibration")


def audit(c: Content) -> Section | None:
    if not c.audit:
        return None
    result = c.audit
    note = (
        "This run knows both answers of every user, so the assignment can be drawn anew:"
        f" {samples_in_words(result.repetitions, result.n_users, result.rows)}."
        f" Tests at {rule_in_words(result.rule)}: false positives where both arms answer alike"
        f" (nominal {share(result.rule.alpha)}), power for what was there, how often the"
        f" {share(result.rule.level)} interval holds the true lift, and the mean error of the"
        f" lift. Of what is printed beside the verdict, {result.beside.held} of"
        f" {result.beside.of} rows hold."
    )
    rows = [
        (
            *metric_and_arm(row),
            plain(row.analysis),
            numeric(whole, row.n),
            *map(_rate, (row.error, row.power, row.coverage)),
            numeric(percent, row.bias),
            lift_cell(row),
            Cell("yes" if row.holds else "no", kind="good" if row.holds else "bad"),
        )
        for row in result.rows
    ]
    heads = columns(
        "Metric",
        "Arm",
        "Analysis",
        "Users",
        "False positives",
        "Power",
        "Coverage",
        "Bias",
        "True lift",
        text=3,
    )
    blocks: list[Block] = [
        Words(note, note=True),
        Table("Audit of the tests", [*heads, Column("Holds")], rows),
    ]
    for summary, warnings in (
        ("What the verdict rests on and does not hold", result.warnings),
        ("What is printed beside the verdict and does not hold", result.beside.warnings),
    ):
        if warnings:
            blocks.append(
                Fold(
                    f"{summary} ({len(warnings)})",
                    [Points([("▲", warning) for warning in warnings])],
                )
            )
    if result.methods:
        blocks += [Heading("The verdict on methods"), *of_methods(result.methods)]
    wrong = [
        (
            plain(row.analysis),
            plain(title(row.metric)),
            plain(row.why),
            _rate(row.error),
        )
        for row in result.wrong
    ]
    heads = columns("Analysis", "Metric", "What is wrong", "False positives", text=3)
    blocks += [
        Heading("What the usual wrong analyses would have done"),
        Table("Usual wrong analyses", heads, wrong),
    ]
    if result.looking:
        looks = [
            (
                plain(title(row.rule)),
                plain(title(row.metric)),
                plain(row.design),
                _rate(row.error),
            )
            for row in result.looking
        ]
        heads = columns("Rule", "Metric", "Design", "False positives", text=3)
        blocks += [
            Heading("Looking at the end of every day"),
            Table("Looking every day", heads, looks),
        ]
    return Section("audit", "Audit of the tests", blocks, "Audit")


def _rate(rate: Rate) -> Cell:
    """A share of samples with its Monte-Carlo interval."""
    ends = ""
    if is_defined(rate.value):
        ends = f"{percent(rate.low, 1, False)} to {percent(rate.high, 1, False)}"
    return numeric(percent, rate.value, 1, False, under=ends)
