"""Where the numbers come from: what was served, what was read, and how to repeat it."""

from __future__ import annotations

from simulator.page.blocks import (
    Block,
    Code,
    Facts,
    Fold,
    Heading,
    Section,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.words import number, percent, title, whole
from simulator.report.content import Content
from simulator.users.learned.support import Support


def served(c: Content) -> Section | None:
    blocks: list[Block] = []
    if c.channels:
        shares = c.channels.shares
        rows = [
            (plain(arm), *(plain(percent(share, 1, False)) for share in shares[arm]))
            for arm in c.arms
        ]
        note = (
            "Only part of each slate came from the policy under test; the rest came from recall"
            " channels that all arms share. The smaller the tested share, the smaller an online"
            " lift can be."
        )
        table = Table(
            "Share of impressions by recall channel",
            columns("Arm", *c.channels.names, text=1),
            rows,
            sortable=False,
        )
        blocks += [Words(note), table]
    if any(c.answered_by_log.values()):
        answered = ", ".join(f"{arm} {percent(c.answered_by_log[arm], 1, False)}" for arm in c.arms)
        blocks.append(
            Words(
                f"Impressions that the real log answered, in place of a model of users: {answered}."
            )
        )
    if c.support:
        note = (
            "A model answers best where it has data. An arm that shows items of which little was"
            " logged is judged by a guess, and may win by it. Shares are of its impressions."
        )
        rows = [
            (
                plain(row.arm),
                *(plain(percent(share, 1, False)) for share in _shares(row)),
                plain(whole(row.items)),
                plain(percent(row.top, 1, False)),
            )
            for row in c.support
        ]
        heads = (
            "Answered by the log",
            "Overlap with the log",
            "Items with few logged answers",
            "Items with none",
            "Users with none",
            "Items shown",
            "On the top 1%",
        )
        table = Table(
            "Support of each arm in the log",
            columns("Arm", *heads, text=1),
            rows,
            id="support",
            sortable=False,
        )
        blocks += [Words(note), table]
    if not blocks:
        return None
    return Section("served", "What was served, and who answered", blocks, "Served")


def _shares(row: Support) -> tuple[float, ...]:
    return row.logged, row.overlap, row.thin, row.never, row.cold


def table_columns(c: Content) -> Section | None:
    if not c.columns:
        return None
    note = (
        "What each column of the table was taken for, and how it was read. Only metrics are tested;"
        " nothing else of the table is."
    )
    rows = [(plain(use.column), plain(use.role), plain(use.note)) for use in c.columns]
    table = Table("Columns", columns("Column", "Taken for", "How, or why", text=3), rows)
    return Section("columns", "Columns of the table", [Words(note, note=True), table], "Columns")


def repeat(c: Content) -> Section | None:
    blocks: list[Block] = []
    if c.settings:
        blocks += [
            Words(
                "The same scenario and seed give the same log, byte for byte. Save the scenario"
                " below and run:"
            ),
            Code(c.command or "abtest run scenario.yaml"),
            Fold("Scenario, resolved", [Code(settings(c))], open=True),
        ]
    elif c.size.days:
        blocks.append(Words("The log carries no scenario: it was not written by abtest run."))
    else:
        blocks.append(Words("Made by abtest report from a table of users."))
        if c.command:
            blocks.append(Code(c.command))
    if c.versions:
        blocks.append(
            Words(
                "Versions:"
                f" {', '.join(f'{name} {version}' for name, version in c.versions.items())}.",
                note=True,
            )
        )
    if c.notes:
        blocks += [
            Heading("Notes that the log carries"),
            Facts([(name, str(value)) for name, value in c.notes.items()]),
        ]
    if c.runtime:
        times = [
            (title(k), number(v) if isinstance(v, (int, float)) else str(v))
            for k, v in c.runtime.items()
        ]
        blocks += [Heading("Run time"), Facts(times)]
    blocks.append(Words(f"Schema of report.json: {c.schema}.", note=True))
    return Section("repeat", "Repeat it", blocks, "Repeat it")


def settings(c: Content) -> str:
    """The resolved scenario as YAML, as the log carries it."""
    import yaml

    if c.settings:
        return yaml.safe_dump(
            dict(c.settings),
            sort_keys=False,
            allow_unicode=True,
            width=100,
            default_flow_style=None,
        )
    return ""
