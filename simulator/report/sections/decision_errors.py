"""The decision's error rates, where the run has an audit that counted them."""

from __future__ import annotations

from collections.abc import Iterator

from simulator.page.blocks import Gate, Section
from simulator.page.words import sentenced
from simulator.report.audited import decision_errors, of_decisions, other_rule
from simulator.report.content import Content
from simulator.stats.checks import Status


def error_gates(c: Content) -> Iterator[Gate]:
    """One line beside the decision: how often this rule ships where the truth is known."""
    if c.audit is None or c.decision is None:
        return
    rows = c.audit.decisions
    if rows:
        holds = all(row.holds for row in rows)
        kept = "As promised." if holds else "Not all as promised."
        other = other_rule(c.audit, c.choices.rule)
        if other:
            kept = sentenced(other)
        status: Status = "green" if holds and not other else "amber"
        yield Gate(status, "Errors of this decision, counted.", f"{decision_errors(rows)} {kept}")


def decision_errors_section(c: Content) -> Section | None:
    """Every truth under which the rule was counted."""
    rows = c.audit.decisions if c.audit is not None else ()
    if not rows:
        return None
    name = "Errors of the decision"
    return Section("decision-errors", name, list(of_decisions(rows)), "Decision's errors")
