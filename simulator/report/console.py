"""The report in the terminal: red checks, the lifts of the verdict in the paper's style, what is
needed to read them, amber checks. At 80 columns, and more beside it where there is room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from simulator.page import terminal
from simulator.page.blocks import Block, Cell, Column, Facts, Gate, Heading, Table, Words, plain
from simulator.page.words import (
    between,
    detects,
    interval,
    is_defined,
    number,
    percent,
    probability,
    share,
    title,
    whole,
)
from simulator.report.comparison import AcrossRuns, Compared, DesignUsers
from simulator.report.content import Across, Content
from simulator.report.drawn import flips
from simulator.report.sections import first_screen
from simulator.report.sections.decision_errors import error_gates
from simulator.report.sections.several_arms import chance_words, level_of, winners_on
from simulator.report.sections.supply_side import sentences
from simulator.report.sentences import (
    AGREEMENTS,
    SIGNS,
    adjusted_interval,
    analysed,
    compared,
    corrected,
    directions,
    gained,
    method_line,
    needed,
    sides,
    stated,
    tone,
    uses,
)
from simulator.stats.verdict import Lift

WIDE = 110
"""Columns of a terminal from which on absolute differences stand beside lifts."""


def show(content: Content, console: Console | None = None) -> None:
    """Print the lifts by user of every arm, what is not green, and nothing that the log does not
    say.
    """
    console = console or Console(highlight=False)
    terminal.show(_blocks(content, console.width >= WIDE), console)


def _blocks(content: Content, wide: bool) -> Iterator[Block]:
    size = content.size
    units = "clusters" if content.clusters and size.clusters is None else "users"
    if size.clusters is not None:
        units += f" in {whole(size.clusters)} clusters"
    days = f", {size.days} days" if size.days else ""
    yield from first_screen.lines(content)
    yield from error_gates(content)
    yield from _gates(content, "red")
    for headline in content.headlines:
        arm = headline.arm
        yield Heading(f"{arm} against {content.control}")
        yield Words(f"{content.design}, {whole(size.users)} {units}{days}", note=True)
        yield _lifts(content, arm, wide)
        yield Words(headline.sentence)
        yield from _method(content, arm)
        yield from _over_worlds(content, arm)
    about = method_line(content)
    if about is not None:
        yield Words(about)
    yield from _winners(content)
    level = share(content.choices.level)
    note = f"{level} intervals and p by {content.assigned}, adjusted: {corrected(content)}."
    detected = "detects: the true lift that the verdict would find four times in five."
    yield from (Words(text, note=True) for text in (note, *sides(content), detected))
    yield from (Words(line, note=True) for line in gained(content))
    yield from map(Words, directions(content.metrics))
    yield from (Words(text, note=True) for text in analysed(content.metrics))
    yield from (Words(f"{row.kind}: {row.sentence}") for row in content.guarded())
    yield from map(Words, sentences(content))
    yield from (Words(line, note=True) for line in uses(content.columns))
    yield from _gates(content, "amber")


def _gates(content: Content, status: str) -> Iterator[Gate]:
    """The checks of a colour: red ones stand before the lifts."""
    for check in content.checks:
        if check.status == status:
            lead = f"{status}: {check.name}."
            yield Gate(check.status, lead, f"{check.value} {check.meaning}")


def _method(content: Content, arm: str) -> Iterator[Block]:
    """The lifts of the arm's method, where its fits say something of it."""
    rows = []
    for one in content.of_methods(arm):
        share = plain(percent(one.components.share_of_fits, 0, False))
        rows.append((*_cells(content, one.lift, one.lift.words), share))
    if rows:
        heads = _columns(content, "methods", "fit")
        yield Table(f"Lifts of the method of {arm}", heads, rows)
        by = " p is Bonferroni's." if content.choices.correction == "dunnett" else ""
        yield Words(f"fit: how much of the variance is the luck of training.{by}", note=True)


def _winners(content: Content) -> Iterator[Block]:
    """The best of several arms, by what a reader chooses."""
    rows = winners_on(content)
    if not rows:
        return
    lines = []
    for one in rows:
        chance = next(chance for chance in one.arms if chance.arm == one.arm)
        lines.append(
            (
                plain(title(one.metric)),
                plain(one.arm),
                plain(percent(one.estimate)),
                plain(interval(one.low, one.high)),
                plain(chance_words(chance.best)),
                plain(percent(chance.regret, 2, sign=False)),
                plain(chance_words(one.top_two_best)),
            )
        )
    heads = [
        Column("best"),
        Column("of the arms"),
        Column("lift", number=True),
        Column(f"{level_of(rows)} interval", number=True),
        Column("is best", number=True),
        Column("regret", number=True),
        Column("top two", number=True),
    ]
    yield Table("The best of several arms", heads, lines)
    note = (
        "best: lift and interval are corrected for the arm's having been chosen; is best: with"
        " which probability; regret: the lift lost on average by taking it; top two: the best is"
        " one of the two best-looking, the control included."
    )
    yield Words(note, note=True)


def _over_worlds(content: Content, arm: str) -> Iterator[Block]:
    """The lifts of the arm over drawn worlds, and which parameter changes a sign."""
    drawn = content.drawn
    rows = [] if drawn is None else [row for row in drawn.rows if row.arm == arm]
    if drawn is None or not rows:
        return
    heads = [
        Column("worlds", number=True),
        Column(""),
        Column("95% interval", number=True),
        Column("higher in", number=True),
        Column(""),
        Column("worlds", number=True),
    ]
    lines = []
    for row in rows:
        direction = content.metrics[row.metric].higher_is_better
        kind = tone(row.words, direction)
        lines.append(
            (
                Cell(percent(row.lift), kind=kind),
                Cell(title(row.metric), kind=kind),
                plain(interval(row.low, row.high)),
                plain(percent(row.up, 0, False)),
                Cell(stated(row.words, direction), kind=kind, sign=SIGNS[row.words]),
                plain(percent(row.share_of_worlds, 0, False)),
            )
        )
    yield Table(f"Lifts of {arm} over drawn worlds", heads, lines)
    note = (
        f"over {len(drawn.names)} drawn worlds: the lift in one more; in how many it is higher;"
        " worlds: how much of its variance is theirs."
    )
    yield Words(note, note=True)
    yield from map(Words, flips(drawn, arm))


def _lifts(content: Content, arm: str, wide: bool) -> Table:
    """The lifts of an arm; where the terminal is wide, with the differences in units of the metric
    and their intervals.
    """
    heads = _columns(content, "lift", "detects")
    if wide:
        heads += [Column("difference", number=True), Column("its interval", number=True)]
    rows = []
    for row, decided in content.decided():
        if row.arm == arm:
            cells = (*_cells(content, row, decided.verdict), plain(detects(row.mde)))
            rows.append((*cells, *_difference(row)) if wide else cells)
    return Table(f"Lifts of {arm}", heads, rows)


def _difference(row: Lift) -> tuple[Cell, Cell]:
    """The difference of the means, and the interval that goes with the verdict."""
    low, high = row.difference_low_adjusted, row.difference_high_adjusted
    known = is_defined(row.difference)
    value = number(row.difference) if known else "n/a"
    return plain(value), plain(between(low, high, number) if known and is_defined(low) else "n/a")


def _columns(content: Content, first: str, last: str) -> list[Column]:
    """Those of `_cells`, the first with its name, and one more."""
    return [
        Column(first, number=True),
        Column(""),
        Column(f"{share(content.choices.level)} interval", number=True),
        Column("adj. p", number=True),
        Column(""),
        Column(last, number=True),
    ]


def _cells(content: Content, row: Lift, verdict: str) -> tuple[Cell, ...]:
    """A lift as a line of the terminal, in the colour of its verdict."""
    direction = content.metrics[row.metric].higher_is_better
    kind = tone(verdict, direction)
    return (
        Cell(percent(row.lift), kind=kind),
        Cell(title(row.metric), kind=kind),
        plain(adjusted_interval(row)),
        plain(probability(row.p_adjusted)),
        Cell(stated(verdict, direction), kind=kind, sign=SIGNS[verdict]),
    )


def show_comparison(content: Compared) -> None:
    """Print the lift of every arm and metric in each run, and whether the runs agree."""
    terminal.show(_comparison(content))


def _comparison(content: Compared) -> Iterator[Block]:
    names = list(content.runs)
    runs = content.runs.items()
    yield Facts(
        [
            (f"[{number}] {name}", f"{run.scenario}, seed {run.seed}")
            for number, (name, run) in enumerate(runs, 1)
        ]
    )
    yield _by_run(content.rows, names, "Lift by run")
    if content.methods:
        yield _by_run(content.methods, names, "Lift of the methods by run", caption=True)
    if content.supply:
        yield _by_run(content.supply, names, "Supply side by run", caption=True)
    if content.designs:
        yield _needed(content.designs)
    for difference in content.differences[:20]:
        values = " | ".join(str(difference.values[name]) for name in names)
        yield Words(f"{difference.key}: {values}", note=True)
    yield from map(Words, content.notes)


def _by_run(
    rows: Sequence[Across], names: Sequence[str], title_of_all: str, *, caption: bool = False
) -> Table:
    """The lift of each arm and metric in each run and, of repeats, in all of them together; and
    whether the runs agree.
    """
    tones = {"same sign": "good", "opposite": "bad"}
    is_pooled = any(isinstance(row, AcrossRuns) and row.pooled is not None for row in rows)
    lines = []
    for row in rows:
        cells = (row.lifts.get(name) for name in names)
        lifts = [
            plain("n/a") if cell is None else Cell(percent(cell.lift), sign=SIGNS[cell.verdict])
            for cell in cells
        ]
        agreement = Cell(AGREEMENTS[row.agree], kind=tones.get(row.agree, "open"))
        together = []
        if is_pooled and isinstance(row, AcrossRuns):
            together = [Cell(percent(row.pooled), sign=SIGNS[row.shown])]
        lines.append((plain(row.arm), plain(title(row.metric)), *lifts, *together, agreement))
    heads = [f"[{i}]" for i in range(1, len(names) + 1)]
    heads += ["pooled"] if is_pooled else []
    numbered = (Column(head, number=True) for head in heads)
    columns = [Column("arm"), Column("metric"), *numbered, Column("agreement")]
    return Table(title_of_all, columns, lines, caption=title_of_all if caption else "")


def _needed(designs: Sequence[DesignUsers]) -> Table:
    """Users that each design needs on the world that the runs share."""
    names = compared(designs)
    heads = (Column(shown.lower(), number=True) for shown in names.values())
    columns = [Column("arm"), Column("metric"), *heads]
    rows = [
        (
            plain(row.arm),
            plain(title(row.metric)),
            *(plain(needed(row, name)) for name in names),
        )
        for row in designs
    ]
    name = "Users needed on this world"
    return Table(name, columns, rows, caption=name)
