"""The best of several arms: its lift, corrected for having been chosen, and what each choice is
worth.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.page.blocks import Block, Cell, Fold, Section, Table, Words, columns, numeric, plain
from simulator.page.words import interval, listed, percent, share, title
from simulator.report.content import Content
from simulator.stats.winners import LEVEL, Winner

Rows = Sequence[Winner]


def winners_on(c: Content) -> list[Winner]:
    """Those that a reader chooses by: of what the decision rests on, in the success metrics where
    there are any, else in all whose direction is known.
    """
    on = "models" if c.decision is None else c.decision.on
    rows = [one for one in c.winners if one.on == on]
    successes = [one for one in rows if c.metrics[one.metric].role == "success"]
    return successes or rows


def several_arms(c: Content) -> Section | None:
    """The best of several arms."""
    if not c.winners:
        return None
    first = winners_on(c) or list(c.winners)
    others = [one for one in c.winners if one not in first]
    blocks: list[Block] = [Words(EXPLAINED, note=True)]
    if any(one.prior for one in c.winners):
        blocks.append(Words(OF_PRIORS, note=True))
    blocks += [Words(sentence(one, c.control)) for one in first]
    blocks += [
        _winners("The best of several arms", first),
        _choices("What a choice is worth", first),
    ]
    if others:
        more: list[Block] = [
            _winners("The best of several arms, further metrics", others),
            _choices("What a choice is worth, further metrics", others),
        ]
        of_methods = {one.on for one in c.winners} == {"models", "methods"}
        further = "Further metrics, and the other verdict" if of_methods else "Further metrics"
        blocks.append(Fold(further, more))
    return Section("winners", "The best of several arms", blocks, "Best arm")


EXPLAINED = (
    "The arm that looks best was chosen by its luck, too: its measured lift is too high on average,"
    " and its ordinary interval holds the true one too rarely. Corrected: the lift that the true"
    " one is as likely above as below, and its interval, although the arm was chosen as the"
    " best (Andrews, Kitagawa & McCloskey, QJE 2024); with fewer than 4 degrees of freedom, as of"
    " few fits, by Bonferroni over the arms, which is wider. Best: the probability that the arm is"
    " the best of all, the control included; regret: the lift that is lost on average by taking it."
)
OF_PRIORS = (
    "Where a prior from earlier tests is given, chances and regret rest on it, and shrunk is the"
    " arm's lift with it and its interval."
)


def sentence(one: Winner, control: str) -> str:
    """One winner in words."""
    of = " of the methods" if one.on == "methods" else ""
    rivals = len(one.arms) - 1
    corrected = "no bounded interval exists for it"
    if min(abs(one.low), abs(one.high)) < float("inf"):
        corrected = (
            f"{percent(one.estimate)} ({interval(one.low, one.high)}) corrected for having been"
            f" chosen"
        )
    ranked = sorted(one.arms, key=lambda chance: -chance.best)[:4]
    chances = listed([f"{chance.arm} with {chance_words(chance.best)}" for chance in ranked])
    return (
        f"{title(one.metric)}{of}: {one.arm} is the best-looking of {rivals} arms against {control}"
        f" with {percent(one.lift)}, {corrected}. The best is {chances}; it is one of"
        f" {listed(one.top_two)} with {chance_words(one.top_two_best)}."
    )


def chance_words(share: float) -> str:
    """A probability from draws: what is beyond them is not called certain."""
    if share > 0.999:
        return ">99.9%"
    return "<0.1%" if share < 0.001 else percent(share, 1, sign=False)


def _chance(share: float) -> Cell:
    return Cell(chance_words(share), share)


def level_of(rows: Rows) -> str:
    """The level of their intervals, which is that of the rule of the report."""
    return share(rows[0].level if rows else LEVEL)


def _winners(name: str, rows: Rows) -> Table:
    lines = [
        (
            plain(title(one.metric)),
            plain(one.on),
            plain(one.arm),
            numeric(percent, one.lift),
            numeric(percent, one.estimate),
            plain(interval(one.low, one.high)),
            plain(listed(one.top_two)),
            _chance(one.top_two_best),
        )
        for one in rows
    ]
    heads = columns(
        "Metric",
        "Of",
        "Best-looking",
        "Measured",
        "Corrected",
        f"{level_of(rows)} interval",
        "Top two",
        "Best is one of them",
        text=3,
    )
    return Table(name, heads, lines)


def _choices(name: str, rows: Rows) -> Table:
    has_prior = any(one.prior for one in rows)
    lines = []
    for one in rows:
        for chance in one.arms:
            line = [
                plain(title(one.metric)),
                plain(one.on),
                plain(chance.arm),
                numeric(percent, chance.lift),
                _chance(chance.best),
                numeric(percent, chance.regret, 3, False),
            ]
            if has_prior:
                line.append(numeric(percent, chance.shrunk))
                line.append(plain(interval(chance.shrunk_low, chance.shrunk_high)))
            lines.append(tuple(line))
    heads = ["Metric", "Of", "Arm", "Measured", "Best", "Regret"]
    heads += ["Shrunk", f"Its {level_of(rows)} interval"] if has_prior else []
    return Table(name, columns(*heads, text=3), lines)
