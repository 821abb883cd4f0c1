"""The page toolkit: numbers are written in one way, blocks read alike in every medium, and nobody
else writes tables or figures by hand.
"""

from __future__ import annotations

import ast
import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from simulator.page import figures, terminal, words
from simulator.page.blocks import (
    Block,
    Cell,
    Column,
    Document,
    Facts,
    Fold,
    Gate,
    Points,
    Prose,
    Section,
    Table,
    Words,
    columns,
    plain,
)
from simulator.page.html import page
from simulator.page.markdown import markdown

ROOT = Path(__file__).resolve().parents[1]
BY_HAND = re.compile(r"\| ?:?-{2,}|<(svg|table|td|tr|circle|line|rect|path|text)\b")


def test_nobody_else_writes_tables_or_figures() -> None:
    """No text of a module outside the room holds the rule of a Markdown table, or a tag of one."""
    found = []
    for path in sorted((ROOT / "simulator").rglob("*.py")):
        if path.parent.name == "page":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and BY_HAND.search(text):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_there_is_one_folder_of_templates() -> None:
    places = {path.parent for path in (ROOT / "simulator").rglob("*.j2")}
    assert places == {ROOT / "simulator" / "page" / "templates"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234.5, "1,234"),
        (0.0339, "0.0339"),
        (0.00001234, "1.23e-05"),
        (0, "0"),
        (math.inf, "∞"),
        (math.nan, "n/a"),
        (None, "n/a"),
    ],
)
def test_a_number(value: float | None, shown: str) -> None:
    assert words.number(value) == shown


def test_a_score_is_written_as_papers_do_and_keeps_its_digits() -> None:
    assert words.score(0.0339) == ".0339"
    assert words.score(-0.0339) == "-.0339"
    assert words.score(10.0339) == "10.0339"  # read 1.0339 once
    assert words.signed_score(0.0012) == "+.0012"
    assert words.score(math.nan) == "n/a"


def document(*blocks: Block) -> Document:
    return Document("T", "K", "H", "", Facts([]), [], [Section("s", "S", blocks)])


def printed(*blocks: Block, width: int = 80) -> str:
    out = io.StringIO()
    terminal.show(blocks, Console(file=out, width=width, highlight=False))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_code_and_links_are_those_of_our_own_prose_only() -> None:
    ours, theirs = Prose("`a|b` and [here](x.md) <i>"), "`a|b` and [here](x.md) <i>"
    shown = markdown(document(Words(ours), Words(theirs)))
    assert r"`a\|b` and [here](x.md) &lt;i&gt;" in shown
    assert r"\`a\|b\` and \[here\](x.md) &lt;i&gt;" in shown
    html = page(document(Words(ours), Words(theirs)))
    assert '<code>a|b</code> and <a href="x.md">here</a> &lt;i&gt;' in html
    assert "`a|b` and [here](x.md) &lt;i&gt;" in html
    assert printed(Words(ours)) == "a|b and here <i>"
    assert printed(Words(theirs)) == theirs


def test_blocks_say_the_same_in_every_medium() -> None:
    table = Table(
        "Lifts",
        [Column("Arm"), Column("Figure", figure=True), Column("Lift", number=True)],
        [(plain("new"), Cell(), Cell("+1.0%", 0.01, sign="▲", kind="good", under="0 to 2"))],
    )
    folded = Fold("More", [Points([("", "folded away")])])
    blocks: tuple[Block, ...] = (Gate("red", "Stop.", "Do not."), table, folded)
    shown = markdown(document(*blocks))
    assert "**■ Stop.** Do not." in shown
    assert "| Arm | Lift |\n| --- | --: |\n| new | ▲ +1.0% (0 to 2) |" in shown
    assert "- folded away" in shown
    html = page(document(*blocks))
    assert '<p class="gate red"><strong>■ Stop.</strong> Do not.</p>' in html
    assert 'data-value="0.01"' in html
    assert printed(*blocks) == "■ Stop. Do not.\nArm              Lift\nnew  ▲ +1.0% (0 to 2)"


def test_a_table_in_the_terminal_wraps_words_and_never_numbers() -> None:
    rows = [(plain("one two three"), plain("1,234,567"), plain("2,345,678"))]
    table = Table("T", columns("name", "first number", "second"), rows)
    assert printed(table) == (
        "name           first number     second\none two three     1,234,567  2,345,678"
    )
    assert printed(table, width=27).splitlines() == [
        "           first",
        "name      number     second",
        "one    1,234,567  2,345,678",
        "two",
        "three",
    ]
    narrow = printed(table, width=12).splitlines()
    assert narrow[-1] == "one two three  1,234,567  2,345,678"  # runs on, unsqueezed


def test_a_picture_is_well_formed_and_holds_its_figures() -> None:
    strip = figures.strip(
        figures.Whiskers(3.0, 2.0, 9.0), figures.Scale(1, 4, 30, 90), "good", "said <b>"
    )
    lines = [figures.Line("head"), figures.Line("a < b", strip, "note")]
    drawn = figures.forest(lines, figures.Scale(1, 4, 30, 90), figures.numbers, "label")
    root = ElementTree.fromstring(figures.picture([("title", drawn)], 1, (400, 60), "whole"))
    texts = [text.text for text in root.iterfind(".//{*}text")]
    assert texts[:4] == ["title", "head", "a < b", "note"]
    (arrow,) = root.iterfind(".//{*}polygon")
    assert arrow.get("points", "").startswith("0,-5 6,0")  # to the right: 9 is beyond 4


def test_an_interval_below_a_scale_of_positive_values_ends_in_an_arrow_to_the_left() -> None:
    scale = figures.RatioScale(0.5, 2.0)
    row = figures.Whiskers(0.6, 0.3, 0.7)
    assert 'points="0,-5 -6,0 0,5"' in figures.strip(row, scale, "bad", "")
    assert scale(1.0) == pytest.approx(50.0)
