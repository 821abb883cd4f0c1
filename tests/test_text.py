"""Names of anybody in every medium: the terminal does not act upon them, Markdown and HTML show
them literally.
"""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from rich.console import Console

from simulator.cli import main
from simulator.cli.say import say_report
from simulator.page.escapes import printable
from simulator.page.figures import element
from simulator.page.markdown import text
from simulator.report import load
from simulator.report.console import show
from simulator.stats.checks import Check, Status
from tests.worlds import decided_content

EVIL = "\x1b[31mred|`x`\u202e<script>alert(1)</script>&lt;**b**"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("na\u00efve \u4e2d\u6587 \U0001f680", "na\u00efve \u4e2d\u6587 \U0001f680"),
        ("a\u00a0b\tc\nd", "a\u00a0b\tc\nd"),
        ("\x1b[2J\x07\x00\x7f\x9b", r"\x1b[2J\x07\x00\x7f\x9b"),
        ("\u202eevil\u200b\u2028\ud800", r"\u202eevil\u200b\u2028\ud800"),
    ],
)
def test_what_nobody_can_see_is_an_escape(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_markdown_shows_a_name_literally() -> None:
    assert text("a|b`c`*d*_e_[f](g)<h>#i~j~") == r"a\|b\`c\`\*d\*\_e\_\[f\](g)&lt;h&gt;\#i\~j\~"
    assert text("&lt; &#60; R&D") == r"\&lt; \&\#60; R&D"
    assert text("two\nlines\x1b") == r"two lines\\x1b"


def test_a_figure_shows_a_name_literally() -> None:
    drawn = str(element("text", EVIL, aria_label=EVIL))
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert "\u202e" not in drawn


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "script"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def test_a_report_of_a_table_with_such_names(tmp_path: Path) -> None:
    """Arms, a metric and the values of a segment come from a file of anybody."""
    draw = np.random.default_rng(1)
    arms = [f"new {EVIL}", f"old {EVIL}"]
    table = pd.DataFrame(
        {"user": range(400), "arm": arms * 200, f"clicks {EVIL}": draw.poisson(3.0, 400)}
    )
    table["country"] = [f"x {EVIL}", "y", f"y {EVIL}", "x"] * 100
    table.to_parquet(tmp_path / "test.parquet")
    done = CliRunner().invoke(
        main,
        [
            "report",
            str(tmp_path / "test.parquet"),
            "--control",
            arms[1],
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert done.exit_code == 0, done.output
    terminal = io.StringIO()
    show(load(tmp_path / "out"), Console(file=terminal, width=200, force_terminal=False))
    page, markdown = (
        (tmp_path / "out" / name).read_text(encoding="utf-8")
        for name in ("report.html", "report.md")
    )
    for shown in (done.output, terminal.getvalue(), page, markdown):
        assert r"\x1b[31mred" in shown.replace(r"\\x1b\[", r"\x1b[")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)
    tags = Tags()
    tags.feed(page)
    assert len(tags.scripts) == 1
    assert "alert(1)" not in tags.scripts[0]
    assert not any(
        "<script" in line for line in markdown.splitlines() if not line.startswith("    ")
    )  # four spaces: code
    for part in re.findall(r"(?m)(?:^\| .*\n)+", markdown):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in part.splitlines()}) == 1, part


def test_quiet_hides_no_red_check(capsys: pytest.CaptureFixture[str]) -> None:
    statuses: tuple[Status, ...] = ("green", "red", "amber")
    checks = tuple(Check(f"Name {status}", status, "1 of 2.", "Do not.") for status in statuses)
    say_report(decided_content("a", {}, {}, checks=checks), Path("report.html"), quiet=True)
    said = capsys.readouterr()
    assert said.out == "report.html\n"
    assert said.err == "abtest: red: Name red. 1 of 2. Do not.\n"
