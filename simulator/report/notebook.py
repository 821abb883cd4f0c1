"""What a notebook shows for a report, its first screen, and for a decision."""

from __future__ import annotations

from dataclasses import replace

from simulator.page.blocks import Cell, Document, Facts, Section, Table, columns, plain
from simulator.page.display import as_html
from simulator.page.html import framed
from simulator.report.content import Content
from simulator.report.sections import document
from simulator.stats.decision import Decision

HEIGHT = 640
"""Of the frame of a report, px; it scrolls within."""

SHOWN = ("verdict", "margins", "checks")
"""The sections of a report that a notebook shows."""


@as_html.register
def of_report(content: Content) -> str:
    """The first screen of a report, its verdict and checks."""
    whole = document(content)
    sections = [section for section in whole.sections if section.id in SHOWN]
    return framed(replace(whole, sections=sections, closing=""), HEIGHT)


class ShownDecision(Decision):
    """A decision that a notebook shows as a table: each arm, its answer, and why."""

    def __eq__(self, other: object) -> bool:
        """As decisions are: how it is shown is no part of it."""
        if not isinstance(other, Decision):
            return NotImplemented
        return (self.on, self.arms) == (other.on, other.arms)

    __hash__ = Decision.__hash__

    def _repr_html_(self) -> str:
        """Answers and sentences, arm by arm."""
        rows = [
            (plain(one.arm), Cell(one.answer, kind=KINDS[one.answer]), plain(one.sentence))
            for one in self.arms
        ]
        table = Table("Decision", columns("Arm", "Decision", "Why", text=3), rows)
        section = Section("decision", "Decision", [table], bare=True)
        page = Document("Decision", "", "", "", Facts([]), [], [section])
        return framed(page, 150 + 60 * len(rows))


KINDS = {"ship": "good", "hold": "", "drop": "bad"}
"""How answers are coloured."""
