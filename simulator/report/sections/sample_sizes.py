"""How many users it takes to find a lift, with this design and with others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from simulator.designs.registry import DESIGNS
from simulator.page.blocks import Block, Cell, Points, Section, Table, Words, columns, plain
from simulator.page.words import listed, percent, title
from simulator.report.content import Content
from simulator.report.sections.cells import lift_cell, metric_and_arm
from simulator.report.sentences import NeedsUsers, compared, needed


def users_needed(c: Content) -> Section | None:
    if not c.power:
        return None
    names = compared(c.power)
    caption = (
        "To find a true lift four times in five after the adjustment of this report, as the only"
        " one among its comparisons. Paired: the same users in both arms; split: all users of two"
        " equal arms; CUPED: split, adjusted for each user's past."
    )
    rows = [
        (
            *metric_and_arm(row),
            plain("published" if row.published else "round figure"),
            lift_cell(row),
            *_needs(row, names),
        )
        for row in c.power
    ]
    heads = columns("Metric", "Arm", "From", "Lift to find", *names.values(), text=3)
    sentences = []
    for row in c.power:
        if not row.published:
            continue
        users = [
            f"{needed(row, name)} users ({shown[0].lower()}{shown[1:]})"
            for name, shown in names.items()
        ]
        sentence = (
            f"To see the published {percent(row.lift)} {title(row.metric).lower()} of"
            f" {row.arm} you would need {listed(users, 'or')}."
        )
        sentences.append(("○", sentence))
    blocks: list[Block] = [Table("Users needed", heads, rows, caption=caption, id="power")]
    return Section(
        "needed",
        "Users needed",
        [*blocks, Points(sentences)] if sentences else blocks,
        "Users needed",
    )


def _needs(
    row: NeedsUsers, names: Iterable[str], notes: Mapping[str, str] | None = None
) -> Iterator[Cell]:
    for name in names:
        hint = (notes or {}).get(name, "")
        yield Cell(needed(row, name), row.users.get(name), hint=hint)


def designs(c: Content) -> Section | None:
    if not c.designs:
        return None
    names = compared(c.designs)
    if DESIGNS[c.design].shares_slates:
        caption = (
            "Users that each design would need, on the same world, to find this difference of"
            " credits four times in five, after the adjustment. A preference within one slate is"
            " not the lift of a whole feed; abtest compare puts it beside a paired run of the same"
            " scenario."
        )
    else:
        caption = (
            "Users that each design would need, on the same world, to find the lift found here four"
            " times in five, after the adjustment. A paired run knows both answers of every user,"
            " so every design that serves whole feeds can be tried on it; how interleaving does is"
            " told by abtest compare with an interleaved run of the same scenario."
        )
    rows = [
        (*metric_and_arm(row), lift_cell(row), *_needs(row, names, row.notes)) for row in c.designs
    ]
    table = Table(
        "Users needed by each design",
        columns("Metric", "Arm", "Lift", *names.values(), text=2),
        rows,
        caption=caption,
        id="designs",
    )
    notes = sorted(
        {f"{names[name]}: {note}." for row in c.designs for name, note in row.notes.items()}
    )
    return Section(
        "designs",
        "Designs compared",
        [table, *(Words(note, note=True) for note in notes)],
        "Designs",
    )
