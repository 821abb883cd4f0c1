"""A catalogue that lives: how fresh what each arm shows is, and how many creators are left."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup

from simulator.page import figures
from simulator.page.blocks import (
    Block,
    Cell,
    Fold,
    Multiples,
    Section,
    Table,
    Words,
    columns,
    numeric,
    plain,
)
from simulator.page.words import between, listed, number, percent, share, typeset, whole
from simulator.report.catalogues import CatalogueDay, Catalogues
from simulator.report.content import Content
from simulator.report.plots import MOST_DRAWN
from simulator.report.sections.cells import legend
from simulator.stats.freshness import ShareEstimate


def living(c: Content) -> Section | None:
    one = c.catalogues
    if one is None:
        return None
    note = (
        f"Of {whole(one.creators)} creators each arm has left those who still upload; what they do"
        f" answers to what the arm showed. Fresh: uploaded at most {one.fresh_days} days before it"
        f" was shown. {share(one.level)} intervals, of freshness by user, of creators by creator;"
        " differences are of the same users and creators."
    )
    heads = ("Arm", "Fresh share", "Over the control", "Creators left", "Over the control")
    rows = [
        (
            plain(arm.arm),
            _estimated(arm.fresh),
            _points(arm.fresh_difference),
            _estimated(arm.creators),
            _points(arm.creators_difference),
        )
        for arm in one.arms
    ]
    blocks: list[Block] = [
        Words(" ".join(sentences(c))),
        Table("Fresh, and left", columns(*heads), rows),
        legend(c, 0),
        Multiples(
            [
                ("Fresh share", _figure(c, one, "Fresh share", lambda day: day.fresh)),
                ("Creators left", _figure(c, one, "Creators left", lambda day: day.creators)),
            ],
            "By day",
        ),
        Words(note, note=True),
        Fold("The same as a table", [_by_day(one)], screen=True),
    ]
    return Section("living", "A living catalogue", blocks, "Catalogue")


def sentences(c: Content) -> list[str]:
    """What each arm does to freshness and creators beside the control, a sentence each."""
    one = c.catalogues
    if one is None:
        return []
    control = one.arms[0]
    first = f"{control.arm}: {percent(control.fresh.value, 0, False)} of what it shows is fresh"
    said = [f"{first}, {percent(control.creators.value, 0, False)} of creators still upload."]
    for arm in one.arms[1:]:
        changes = [
            f"{what} {percent(by.value, 1)}"
            for what, by in (("fresh", arm.fresh_difference), ("creators", arm.creators_difference))
            if by is not None and (by.low > 0 or by.high < 0)
        ]
        told = listed(changes) + " (points)" if changes else "no difference is shown"
        said.append(f"{arm.arm} against {control.arm}: {told}.")
    return said


def _estimated(one: ShareEstimate) -> Cell:
    ends = between(one.low, one.high, lambda end: percent(end, 1, False))
    return Cell(percent(one.value, 1, False), one.value, under=ends)


def _points(one: ShareEstimate | None) -> Cell:
    if one is None:
        return plain("control")
    ends = between(one.low, one.high, lambda end: percent(end, 1))
    return Cell(percent(one.value, 1), one.value, under=ends)


def _figure(
    c: Content, one: Catalogues, what: str, of: Callable[[CatalogueDay], ShareEstimate]
) -> Markup:
    """A share by day, an arm a line, within its interval."""
    drawn = c.arms[: MOST_DRAWN + 1]
    series = []
    for i, arm in enumerate(drawn):
        points = []
        for day in one.days:
            if day.arm == arm:
                at = of(day)
                tip = typeset(f"Day {day.day + 1}. {what}, {arm}: {percent(at.value, 1, False)}")
                ends = figures.Whiskers(at.value, at.low, at.high)
                points.append(figures.Point(day.day, ends, tip))
        series.append(figures.Series(arm, i, points))
    n_days = max(day.day for day in one.days) + 1
    names = [str(day + 1) for day in range(n_days)]
    return figures.over_steps(series, names, f"{what} by day, for {listed(drawn)}", band=True)


def _by_day(one: Catalogues) -> Table:
    heads = ("Arm", "Day", "Fresh share", "Creators left", "Uploaded", "Removed", "Present")
    rows = [
        (
            plain(day.arm),
            plain(day.day + 1, day.day),
            _estimated(day.fresh),
            _estimated(day.creators),
            *(numeric(number, n) for n in (day.uploaded, day.removed, day.present)),
        )
        for day in one.days
    ]
    return Table("A living catalogue by day", columns(*heads), rows)
