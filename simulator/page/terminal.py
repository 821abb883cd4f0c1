"""Blocks in the terminal: the same as on the page, but for figures and what is folded away. No
colour where there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segments
from rich.table import Table as Grid
from rich.text import Text

from simulator.page.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Group,
    Heading,
    Legend,
    Multiples,
    Points,
    Prose,
    Table,
    Words,
)
from simulator.page.escapes import printable
from simulator.page.words import LIGHTS

STYLES = {
    "good": "green",
    "bad": "red",
    "green": "green",
    "amber": "yellow",
    "red": "bold red",
}
"""Colours of the style sheet's classes, as far as the terminal has them."""


def show(shown: Document | Iterable[Block], console: Console | None = None) -> None:
    """Print a document, or some blocks.

    Words are wrapped at the width of the console; a table wraps its words, never its numbers, and
    runs on where it is too wide for both.
    """
    console = console or Console(highlight=False)
    if not isinstance(shown, Document):
        _blocks(shown, console)
        return
    _blocks([Heading(shown.heading), Words(shown.about), shown.facts, *shown.gates], console)
    for section in shown.sections:
        title = [] if section.bare else [Heading(section.title)]
        _blocks([*title, *section.blocks], console)


def _blocks(blocks: Iterable[Block], console: Console) -> None:
    for block in blocks:
        match block:
            case Table():
                _table(block, console)
            case Words():
                if block.lead or block.text:
                    space = " " if block.lead and block.text else ""
                    lead = _text(block.lead + space, "bold")
                    console.print(lead + _text(block.text, "dim" if block.note else ""))
            case Heading():
                console.print()
                console.print(_text(block.text, "bold"))
            case Points():
                for sign, words in block.items:
                    console.print(_text(f"{sign or '-'} {words}"))
            case Facts():
                for name, value in block.items:
                    console.print(_text(f"{name}: {value}"))
            case Code():
                console.print(_text(block.text), soft_wrap=True)
            case Gate():
                gate = _text(f"{LIGHTS[block.status]} {block.lead} ", STYLES[block.status])
                console.print(gate + _text(block.text))
                _blocks(block.blocks, console)
            case Group():
                _blocks(block.blocks, console)
            case Fold():
                if block.open:
                    _blocks([Heading(block.summary), *block.blocks], console)
            case Legend() | Multiples():
                pass  # figures


def _text(text: str, style: str = "") -> Text:
    """Text that the terminal shows and does not act upon: names are those of people's files."""
    if isinstance(text, Prose):
        text = "".join(words for _, words, _ in text.parts())
    return Text(printable(text), style=style)


def _table(table: Table, console: Console) -> None:
    """A table without its columns of figures, its caption above.

    Where the console is too narrow, words are wrapped, then the heads of numbers. What is too wide
    even so runs on, and is not squeezed either.
    """
    if table.caption:
        console.print(_text(table.caption, "dim"))
    kept = [i for i, column in enumerate(table.columns) if not column.figure]
    columns = [(table.columns[i], [_cell(row[i]) for row in table.rows]) for i in kept]
    gaps = GAP * (len(columns) - 1)
    for whole_words, whole_heads in ((False, True), (False, False), (True, False)):
        least = [_least(*column, whole_words, whole_heads) for column in columns]
        if sum(least) + gaps <= console.width:
            break
    grid = Grid(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for (column, _), width in zip(columns, least, strict=True):
        if column.number:
            grid.add_column(_text(column.head), justify="right", width=width)
        else:
            grid.add_column(_text(column.head), overflow="fold", min_width=width)
    for row in zip(*(cells for _, cells in columns), strict=True):
        grid.add_row(*row)
    width = max(console.width, sum(least) + gaps)
    segments = console.render(grid, console.options.update(width=width))
    console.print(Segments(segments), crop=False, end="")


def _least(column: Column, cells: Sequence[Text], whole_words: bool, whole_heads: bool) -> int:
    """The least width of a column: of its longest number or its longest word, or of its whole texts
    up to a limit; and of its head or the longest word of that.
    """
    head = [_text(column.head)]
    if column.number:
        return max(_longest(head, whole_heads), _longest(cells, True))
    return max(_longest(head, False), min(_longest(cells, whole_words), LONGEST))


def _longest(texts: Sequence[Text], whole: bool) -> int:
    """The width of the longest text, or of the longest word of all."""
    if whole:
        return max((text.cell_len for text in texts), default=0)
    words = (word for text in texts for word in text.plain.split())
    return max(map(cell_len, words), default=0)


GAP = 2
"""Between two columns."""

LONGEST = 24
"""Width up to which a text is not broken: one long name must not push everything else aside."""


def _cell(cell: Cell) -> Text:
    style = next((STYLES[kind] for kind in cell.kind.split() if kind in STYLES), "")
    shown = _text(cell.text, style)
    if cell.sign:
        shown = _text(f"{cell.sign} ", style) + shown
    return shown + _text(f" ({cell.under})", style) if cell.under else shown
