"""A document as Markdown: the same blocks as the page, but for its figures, whose numbers stand in
tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from simulator.page.blocks import (
    Block,
    Cell,
    Code,
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
    Section,
    Table,
    Words,
)
from simulator.page.escapes import printable
from simulator.page.words import LIGHTS

MARKUP = re.compile(r"[\\`*_{}\[\]<>#|~]|&(?=#?\w+;)")
"""What Markdown would take for its own; an `&` only where it begins an entity."""


def text(value: Any) -> str:
    """A name as Markdown that shows it literally, on one line; of `Prose` code and links are
    Markdown's own.
    """
    shown = " ".join(printable(str(value)).split())
    if not isinstance(value, Prose):
        return _escaped(shown)
    pieces = []
    for kind, words, address in Prose(shown).parts():
        if kind == "code":
            pieces.append(f"`{words.replace('|', BAR)}`")
        elif kind == "link":
            pieces.append(f"[{_escaped(words)}]({address})")
        else:
            pieces.append(_escaped(words))
    return "".join(pieces)


BAR = "\\|"
"""What would end the cell of a table also within code."""


def _escaped(shown: str) -> str:
    return MARKUP.sub(lambda sign: {"<": "&lt;", ">": "&gt;"}.get(sign[0], "\\" + sign[0]), shown)


def markdown(document: Document) -> str:
    """The Markdown text of a document. Names are escaped, so that none of them becomes markup."""
    d = document
    blocks = [
        f"# {text(d.title)}",
        text(d.about),
        _facts(d.facts),
        *_shown(d.gates),
    ]
    blocks += map(sections, [d.sections] if d.sections else [])
    if d.closing:
        blocks.append(f"**How to read it.** {text(d.closing)}")
    return "\n\n".join(block for block in blocks if block) + "\n"


def sections(shown: Sequence[Section]) -> str:
    """Sections as Markdown: of a document, or of a page whose beginning is written by hand."""
    blocks: list[str] = []
    for section in shown:
        blocks += [f"## {text(section.title)}", *_shown(section.blocks)]
    return "\n\n".join(block for block in blocks if block)


def _shown(blocks: Sequence[Block]) -> Iterable[str]:
    for block in blocks:
        match block:
            case Table():
                yield from _table(block)
            case Words():
                yield (
                    f"**{text(block.lead)}** {text(block.text)}" if block.lead else text(block.text)
                )
            case Heading():
                yield f"### {text(block.text)}"
            case Points():
                yield "\n".join(
                    f"- {sign} {text(words)}" if sign else f"- {text(words)}"
                    for sign, words in block.items
                )
            case Facts():
                yield _facts(block)
            case Code():
                yield "\n".join("    " + line for line in printable(block.text).splitlines())
            case Fold():
                is_open = " open" if block.open else ""
                yield f"<details{is_open}><summary>{text(block.summary)}</summary>"
                yield from _shown(block.blocks)
                yield "</details>"
            case Group():
                yield from _shown(block.blocks)
            case Gate():
                yield _gate(block)
                yield from _shown(block.blocks)
            case Legend() | Multiples():
                pass  # figures


def _gate(gate: Gate) -> str:
    return f"**{LIGHTS[gate.status]} {text(gate.lead)}** {text(gate.text)}".rstrip()


def _facts(facts: Facts) -> str:
    return "; ".join(f"{text(name)}: {text(value)}" for name, value in facts.items)


def _table(table: Table) -> Iterable[str]:
    """A Markdown table without columns of figures, its caption above."""
    if table.caption:
        yield text(table.caption)
    kept = [i for i, column in enumerate(table.columns) if not column.figure]
    head = [text(table.columns[i].head) for i in kept]
    rule = ["--:" if table.columns[i].number else "---" for i in kept]
    rows = ([_cell(row[i]) for i in kept] for row in table.rows)
    yield "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


def _cell(cell: Cell) -> str:
    return " ".join(
        part
        for part in (cell.sign, text(cell.text), f"({text(cell.under)})" if cell.under else "")
        if part
    )
