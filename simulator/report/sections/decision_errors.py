"""The decision's error rates, where the run has an audit that counted them."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.page.blocks import Gate, Section
from simulator.report.audited import decision_errors, of_decisions
from simulator.report.content import Content


def error_gates(c: Content) -> Iterator[Gate]:
    """One line beside the decision: how often this rule ships where the truth is known."""
    rows = c.audit.decisions if c.audit is not None else ()
    if rows and c.decision is not None:
        holds = all(row.holds for row in rows)
        kept = "As promised." if holds else "Not all as promised."
        lead = "Errors of this decision, counted."
        yield Gate("green" if holds else "amber", lead, f"{decision_errors(rows)} {kept}")


def decision_errors_section(c: Content) -> Section | None:
    """Every truth under which the rule was counted."""
    rows = c.audit.decisions if c.audit is not None else ()
    if not rows:
        return None
    name = "Errors of the decision"
    return Section("decision-errors", name, list(of_decisions(rows)), "Decision's errors")
