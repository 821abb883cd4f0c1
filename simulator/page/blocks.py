"""What a document is made of: sections of words, tables and figures. The page, Markdown and the
terminal show these blocks and add nothing to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from simulator.page.words import is_defined

MARKED = re.compile(r"`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)")


class Prose(str):
    """Our own words, in which `...` is code and [...](...) is a link. In any other text these
    signs are shown as they stand: it may be a name of somebody's file.
    """

    def parts(self) -> Iterator[tuple[Literal["words", "code", "link"], str, str]]:
        """The text piece by piece: (what it is, its words, the address of a link)."""
        end = 0
        for match in MARKED.finditer(self):
            yield "words", self[end : match.start()], ""
            code, link, address = match.groups()
            if code:
                yield "code", code, ""
            else:
                yield "link", link, address
            end = match.end()
        yield "words", self[end:], ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: its name; that of a column of figures is for those who cannot see them.
        number: numbers, set to the right and sorted as such.
        figure: figures of what the other columns say in numbers; only the page has them.
        sorts: whether the reader may sort by it.
        label: stands before the value where a phone has no room for the head.
    """

    head: str
    number: bool = False
    figure: bool = False
    sorts: bool = True
    label: str = ""

    @property
    def facet(self) -> str:
        """The head, where it is one of `FACETS`; else "": the reader may not choose among its
        values.
        """
        is_text = not self.number and not self.figure
        return self.head if is_text and self.head in FACETS else ""


FACETS = ("Arm", "Metric", "Segment", "Verdict", "Verdict on")
"""Heads of columns of text, and kinds of `Group`, among whose values the reader of a page may
choose: rows and groups with another value are hidden then, in all tables at once.
"""


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what it says.
        value: what it is sorted by, if not by its text; None: not defined, sorted last.
        under: a second line.
        kind: class of the style sheet (`good`, `bad`, `open`, `lift`, ...).
        sign: before the text.
        hint: shown on hover.
        span: rows that the cell goes on for; 0: the cell above goes on here (only the page joins
            them).
        figure: in place of text.
    """

    text: str = ""
    value: float | str | None = ""
    under: str = ""
    kind: str = ""
    sign: str = ""
    hint: str = ""
    span: int = 1
    figure: Markup | None = None


@dataclass(frozen=True)
class Table:
    """A table. `name` says what it is, to those who cannot see it; `kind` is its class, `rules` the
    rows that begin below a rule, and `foot` the axis below a column of figures."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    id: str = ""
    kind: str = ""
    sortable: bool = True
    foot: Markup | None = None
    rules: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Words:
    """A paragraph, `note` in smaller print; `lead` is its bold beginning."""

    text: str
    note: bool = False
    lead: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading within a section; a `loud` one is what the section has to say."""

    text: str
    loud: bool = False
    id: str = ""


@dataclass(frozen=True)
class Points:
    """Sentences, each with a sign."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Legend:
    """The signs of arms in the figures below it, as (index, name)."""

    arms: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Multiples:
    """Small figures with their titles; a table in the same section has their numbers. `facet`: of
    which of the `FACETS` their titles are values.
    """

    plots: Sequence[tuple[str, Markup]]
    facet: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Text to be copied."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are folded away on the screen unless they are `open`, and left out in the
    terminal; on paper they are shown, unless they are for the `screen` only (long tables).
    """

    summary: str
    blocks: Sequence[Block]
    open: bool = False
    screen: bool = False


@dataclass(frozen=True)
class Group:
    """Blocks that are about one value of each of some `FACETS`: {"Arm": "new"}."""

    about: Mapping[str, str]
    blocks: Sequence[Block]


Status = Literal["red", "amber", "green"]


@dataclass(frozen=True)
class Gate:
    """What must be read before what follows: a colour, a bold beginning, words, and what they rest
    on. The page prints a `quiet` one on a line without a frame.
    """

    status: Status
    lead: str
    text: str = ""
    blocks: Sequence[Block] = ()
    quiet: bool = False


Block = Table | Words | Heading | Points | Legend | Multiples | Facts | Code | Fold | Group | Gate


@dataclass(frozen=True)
class Section:
    """A section: where it is (`id`), what it is called, and by which short name the contents list
    it (none: not at all).

    `bare`: its title is for those who cannot see the page.
    """

    id: str
    title: str
    blocks: Sequence[Block]
    short: str = ""
    bare: bool = False


@dataclass(frozen=True)
class Document:
    """A whole document.

    Attributes:
        title: of the page.
        kicker: what kind of page.
        heading: the largest words.
        about: one sentence, or "".
        facts: names and values on the first screen.
        gates: what must be read before anything else.
        sections: in the order of reading.
        closing: how to read it.
    """

    title: str
    kicker: str
    heading: str
    about: str
    facts: Facts
    gates: Sequence[Gate]
    sections: Sequence[Section]
    closing: str = ""


def plain(text: Any, value: float | str | None = "") -> Cell:
    """A cell of text."""
    return Cell(text if isinstance(text, str) else str(text), value)


def numeric(show: Callable[..., str], value: float | None, *how: Any, **more: Any) -> Cell:
    """A number as `show` writes it (with `how`), sorted by its value; `more`: of the cell."""
    finite = value if is_defined(value) else None
    return Cell(show(finite, *how), finite, **more)


def columns(*heads: str, text: int = 1) -> list[Column]:
    """Columns of which the first `text` are text and the others numbers."""
    return [Column(head, number=i >= text) for i, head in enumerate(heads)]
