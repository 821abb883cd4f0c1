"""The sections of a report, in the order of reading: from its content to the blocks that page and
Markdown show.

Every key of the content is shown by some section, and nothing is shown that is not in it: the three
files say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from simulator.designs.registry import DESIGNS
from simulator.page.blocks import Document, Facts, Gate, Section
from simulator.page.words import listed, share, whole
from simulator.report.content import Content
from simulator.report.sections import (
    behaviour,
    decision,
    decision_errors,
    elsewhere,
    first_screen,
    fresh_and_left,
    numbers,
    over_days,
    over_worlds,
    provenance,
    sample_sizes,
    several_arms,
    supply_side,
    trust,
)

READING = (
    "A lift is the difference of the arm's mean from the control's, as a share of the size of the"
    " control's. A {level} interval of a lift covers the true one in {right} of 100 runs; an"
    " adjusted p-value below {alpha} would be seen on any of the comparisons in at most {wrong} of"
    " 100 runs in which nothing differs. The detectable lift is the true change that a run of this"
    " size finds in four of five runs."
)

SECTIONS: tuple[Callable[[Content], Section | None], ...] = (
    decision.verdict,
    decision.methods,
    several_arms.several_arms,
    decision_errors.decision_errors_section,
    over_worlds.worlds,
    decision.margins,
    trust.checks,
    numbers.by_day,
    over_days.daily,
    over_days.so_far,
    supply_side.supply,
    fresh_and_left.living,
    behaviour.funnel,
    behaviour.spread,
    behaviour.segments,
    numbers.all_pairs,
    numbers.all_numbers,
    numbers.otherwise,
    sample_sizes.users_needed,
    sample_sizes.designs,
    numbers.preference,
    elsewhere.published_lifts,
    elsewhere.worlds,
    elsewhere.offline,
    provenance.served,
    trust.fits,
    trust.calibration,
    trust.audit,
    provenance.table_columns,
    provenance.repeat,
)
"""Every section in the order of reading; one with nothing to show is None."""


def document(c: Content) -> Document:
    """The report of a gathered content."""
    name = c.scenario or "A/B report"
    return Document(
        title=f"{name}: {listed(c.arms[1:])} against {c.control}",
        kicker="A/B report",
        heading=c.scenario or "Unnamed scenario",
        about=str(c.settings.get("description") or ""),
        facts=_facts(c),
        gates=list(_gates(c)),
        sections=[section for section in (make(c) for make in SECTIONS) if section is not None],
        closing=_reading(c.choices.level),
    )


def _reading(level: float) -> str:
    right, wrong = f"{100 * level:.6g}", f"{100 * (1 - level):.6g}"
    alpha = f"{1 - level:.6g}".removeprefix("0")
    return READING.format(level=share(level), right=right, wrong=wrong, alpha=alpha)


def _facts(c: Content) -> Facts:
    size = c.size
    items = [
        ("Control", c.control),
        ("Against it", listed(c.arms[1:])),
        ("Design", f"{c.design}: {DESIGNS[c.design].words}"),
    ]
    of_table = c.clusters and size.clusters is None
    items.append((f"Clusters ({c.clusters})" if of_table else "Users", whole(size.users)))
    if size.clusters is not None:
        items.append((f"Clusters ({c.clusters})", whole(size.clusters)))
    if size.days:
        items += [
            ("Days", str(size.days)),
            ("Items", whole(size.items)),
            ("Impressions", whole(size.impressions)),
        ]
    if c.seed is not None:
        items.append(("Seed", str(c.seed)))
    return Facts(items)


def _gates(c: Content) -> Iterator[Gate]:
    """What must be read before the lifts: each red check whole, amber ones by name."""
    yield from first_screen.decisions(c)
    yield from decision_errors.error_gates(c)
    for check in c.red():
        yield Gate("red", f"Red: {check.name}.", f"{check.value} {check.meaning}")
    amber = [check.name.lower() for check in c.checks if check.status == "amber"]
    if amber:
        among = f"of {len(c.checks)} checks: {listed(amber)}."
        yield Gate("amber", f"{len(amber)} amber", among, quiet=True)
    elif c.checks and not c.red():
        yield Gate("green", f"All {len(c.checks)} checks are green.", quiet=True)
