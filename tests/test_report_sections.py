"""The page, the Markdown and the JSON of a report say the same: every table cell by cell, every key
of the content by some section.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator import report
from simulator.cli.audit import content as audit_content
from simulator.log.eventlog import EventLog
from simulator.log.metrics import Declared, declared
from simulator.page.blocks import Fold, Table
from simulator.page.html import page
from simulator.page.markdown import markdown
from simulator.report import ReportError, comparison, drawn, load, sections
from simulator.report import user_table as tables
from simulator.report.catalogues import CatalogueArm, CatalogueDay, Catalogues
from simulator.report.content import Content, WorldLifts
from simulator.report.stored import as_json
from simulator.stats import audit as audits
from simulator.stats import units
from simulator.stats.choices import Choices
from simulator.stats.freshness import ShareEstimate
from simulator.stats.margins import Margins
from simulator.stats.verdict import lifts
from tests.worlds import (
    feedback_log,
    fit_values,
    interleaved_log,
    paired_log,
    switchback_log,
    with_fits,
)


def a_paired_run(home: Path) -> Content:
    """With everything beside it that a run may have: an audit, a replay, another world, fits,
    margins, resampling.
    """
    log = feedback_log(n_users=120)
    days = units.read(paired_log(n_users=80), ("click", "watch_time"))
    days = replace(days, metrics=declared(days.metrics, {"click": Declared(role="success")}))
    found = audit_content(
        audits.audit(days, "a", repetitions=100, sizes=(20, 80), decision_repetitions=20)
    )
    (home / "audit.json").write_text(json.dumps(found))
    estimate = {"estimator": "snips", "value": 0.41, "low": 0.40, "high": 0.42}
    policy = {
        "policy": "recgpt",
        "headline": "snips",
        "verdict": "weak",
        "reasons": ["few matches"],
        "estimates": [estimate],
    }
    (home / "replay").mkdir()
    (home / "replay" / "replay.json").write_text(
        json.dumps([{"reward": "click", "logged": {"value": 0.39}, "policies": [policy]}])
    )
    (home / "fidelity").mkdir()
    figure = {
        "figure": "hit_rate@10",
        "rho": 0.7,
        "ordered": 0.8,
        "points": [{"value": v} for v in (0.11, 0.12, 0.15)],
    }
    policies = [
        {"policy": name, "lift": lift}
        for name, lift in (("comirec", 0.0), ("recgpt", 0.031), ("popularity", -0.1))
    ]
    foretold = {"reward": "click", "policies": policies, "figures": [figure]}
    (home / "fidelity" / "fidelity.json").write_text(json.dumps(foretold))
    report.write(feedback_log(n_users=100, seed=8), home / "worlds" / "other")
    changes = {f"w{i}": {"seed": i, "changes": {"users.drift.renewal": i / 99}} for i in range(14)}
    for i, name in enumerate(changes):
        rows = lifts(units.read(feedback_log(n_users=40, seed=20 + i)).by("user"), "comirec")
        status = "red" if i == 3 else "green"
        home.joinpath("worlds", name).mkdir()
        home.joinpath("worlds", name, drawn.FILE).write_text(
            as_json(WorldLifts(status, tuple(rows)))
        )
    calibration = {
        "basis": "a test",
        "tolerance": 0.1,
        "rows": [
            {
                "name": "clicks",
                "target": 1.0,
                "simulated": 1.02,
                "se": 0.01,
                "ratio": 1.02,
                "within": True,
            },
            {
                "name": "likes",
                "target": 1.0,
                "simulated": 1.5,
                "se": 0.01,
                "ratio": 1.5,
                "within": False,
            },
        ],
    }
    fit_values([0.2, 0.21, 0.05], 100, np.random.default_rng(2)).save(home)
    log = with_fits(log, 3)
    notes = {"calibration": calibration, "source": "made"}
    scenario = {**log.metadata.scenario, "worlds": changes}
    meta = dataclasses.replace(log.metadata, notes=notes, scenario=scenario)
    margins = Margins({"watch_time": 0.05}, {"click": 0.02})
    return report.write(
        EventLog(meta, log.table),
        home,
        runtime={"seconds": 1.5},
        margins=margins,
        choices=Choices(resamples=100),
    )


def a_split_table(home: Path) -> Content:
    random = np.random.default_rng(5)
    n = 900
    before = random.gamma(2.0, 3.0, n)
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": random.choice(["control", "a", "b"], n),
            "money": before + random.gamma(2.0, 1.0, n),
            "money_before": before,
            "clicks": random.poisson(3, n),
            "shown": 5 + random.poisson(20, n),
            "country": random.choice(["de", "jp"], n),
        }
    )
    asked = {"money": "money", "ctr": ("clicks", "shown")}
    choices = Choices(interval="log", correction="bh", winsorise=0.01, resamples=100, pairs=True)
    return tables.write(
        frame, home, metrics=asked, margins=Margins({"money": 0.1}), choices=choices
    )


def an_interleaved_run(home: Path) -> Content:
    return report.write(interleaved_log(60, 0.5), home)


def a_switchback(home: Path) -> Content:
    plays = np.random.default_rng(0).poisson(6, (200, 6))
    return report.write(switchback_log([0, 1, 1, 0, 0, 1], plays), home)


def a_living_catalogue(home: Path) -> Content:
    content = report.write(feedback_log(n_users=60, days=2), home)
    arms, days = [], []
    for i, arm in enumerate(content.arms):
        fresh, left = (ShareEstimate(x - i / 50, x - 0.04, x + 0.05) for x in (0.3, 0.8))
        differences = (ShareEstimate(-i / 50, -0.1, 0.01), ShareEstimate(-i / 50, -0.03, -0.01))
        arms.append(CatalogueArm(arm, fresh, differences[0] if i else None, left, None))
        arms[-1] = replace(arms[-1], creators_difference=differences[1] if i else None)
        days += [CatalogueDay(arm, day, fresh, left, 7.0, 5.0 + day, 340.0) for day in (0, 1)]
    content = replace(content, catalogues=Catalogues(7, 90, 0.95, tuple(arms), tuple(days)))
    report.save(content, home)
    return content


MADE = (a_paired_run, a_split_table, an_interleaved_run, a_switchback, a_living_catalogue)
KINDS = {made.__name__: made for made in MADE}


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for name, make in KINDS.items():
        found[name] = tmp_path_factory.mktemp(name)
        make(found[name])
    return found


class _Page(HTMLParser):
    """The rows of every table of a page by its label, and the text of the rest, without figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self._rows: list[list[str]] | None = None
        self._silent = 0
        self._quiet: list[str] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("svg", "style", "script", "tfoot"):
            self._silent += 1
        elif tag == "table":
            self._rows = self.tables.setdefault(given["aria-label"] or "", [])
        elif tag == "tr" and self._rows is not None and not self._silent:
            self._rows.append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("svg", "style", "script", "tfoot"):
            self._silent -= 1
        elif tag == "table":
            self._rows = None
        elif tag in ("td", "th") and self._cell is not None:
            if self._rows and not self._silent:
                self._rows[-1].append(_letters("".join(self._cell)))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if not self._silent:
            (self.words if self._cell is None else self._cell).append(data)


def _letters(text: str) -> str:
    """Text as both renderings agree on it: letters, numbers and signs, without spaces, marks of
    layout and escapes.
    """
    text = html.unescape(text).replace("−", "-")
    return re.sub(r"[\s\\()/]+", "", re.sub(r"[▲▼○=–✓✗]", "", text))


def _tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a Markdown text, as cells."""
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("| "):
            rows.append([_letters(cell) for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            yield [rows[0], *rows[2:]]
            rows = []


@pytest.mark.parametrize("kind", KINDS)
def test_page_and_markdown_have_the_same_tables_cell_by_cell(
    homes: dict[str, Path], kind: str
) -> None:
    shown = _Page((homes[kind] / "report.html").read_text(encoding="utf-8"))
    written = (homes[kind] / "report.md").read_text(encoding="utf-8")
    on_page = list(shown.tables.values())
    in_text = list(_tables(written))
    assert sum(map(len, on_page)) == sum(map(len, in_text))
    cells = [{cell for row in rows for cell in row if cell} for rows in on_page]
    also = {cell for rows in in_text for row in rows for cell in row if cell}
    hidden = {"Forestplot", "Bars", "Figure"}
    assert set().union(*cells) - hidden == also


@pytest.mark.parametrize("kind", KINDS)
def test_page_and_markdown_have_the_same_words(homes: dict[str, Path], kind: str) -> None:
    shown = _Page((homes[kind] / "report.html").read_text(encoding="utf-8"))
    written = _letters(
        re.sub(
            r"</?details[^>]*>|</?summary>",
            "",
            (homes[kind] / "report.md").read_text(encoding="utf-8"),
        )
    )
    written = written.replace("**", "").replace("#", "")
    ours = {"Skip to the content", "What was checked", "A/B report"}
    content = load(homes[kind])
    nav = {section.short for section in sections.document(content).sections}
    titles = {metric.replace("_", " ").capitalize() for metric in content.metrics}  # of figures
    for text in shown.words:
        said = _letters(text).replace("*", "").replace("#", "")
        if said and text.strip() not in {*ours, *nav, *titles, *content.arms}:
            assert said.rstrip(":.,") in written or text == "Unnamed scenario", text


@pytest.mark.parametrize("kind", KINDS)
def test_every_section_has_its_heading_in_both(homes: dict[str, Path], kind: str) -> None:
    page, text = (
        (homes[kind] / f"report.{ending}").read_text(encoding="utf-8") for ending in ("html", "md")
    )
    for section in sections.document(load(homes[kind])).sections:
        assert f'<section id="{section.id}"' in page
        assert f"## {section.title}" in text.replace("\\", "")


def test_together_the_kinds_have_every_section(homes: dict[str, Path]) -> None:
    found = set()
    for home in homes.values():
        found |= {section.id for section in sections.document(load(home)).sections}
    assert len(found) == len(sections.SECTIONS)


def _unread(value: Any, show: Callable[[Any], object]) -> set[str]:
    """The fields of a dataclass that `show` does not ask for."""
    asked = set()

    class Watched(type(value)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattribute__(name)

    names = [field.name for field in dataclasses.fields(value)]
    watched = Watched(**{name: getattr(value, name) for name in names})
    asked.clear()
    show(watched)
    return set(names) - asked


def test_nothing_in_the_json_is_left_out(homes: dict[str, Path]) -> None:
    contents = {name: load(home) for name, home in homes.items()}
    assert _unread(contents["a_paired_run"], sections.document) == set()
    assert _unread(comparison.compare(contents), comparison.document) == {"schema"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(homes: dict[str, Path], kind: str) -> None:
    """report.json -> types -> report.json is the same, byte for byte."""
    assert as_json(load(homes[kind])) == (homes[kind] / "report.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        (("lifts", 0, "lift"), "much", "lifts.0.lift: must be a number or null; got 'much'"),
        (("arms",), "a", "arms: must be a list; got 'a'"),
        (("checks", 0, "status"), "blue", "checks.0.status: must be one of"),
        (("size", "users"), 1.5, "size.users: must be a whole number; got 1.5"),
        (("daily", 0), None, "daily.0: must be an object; got None"),
    ],
)
def test_a_damaged_report_is_refused_with_its_key(
    homes: dict[str, Path], tmp_path: Path, place: tuple[Any, ...], value: Any, rule: str
) -> None:
    stored = json.loads((homes["a_paired_run"] / "report.json").read_text(encoding="utf-8"))
    inner = stored
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (tmp_path / "report.json").write_text(json.dumps(stored))
    with pytest.raises(ReportError, match=re.escape(rule)):
        load(tmp_path)


def test_a_report_without_a_key_is_refused(homes: dict[str, Path], tmp_path: Path) -> None:
    stored = json.loads((homes["a_split_table"] / "report.json").read_text(encoding="utf-8"))
    del stored["lifts"][0]["p"]
    (tmp_path / "report.json").write_text(json.dumps(stored))
    with pytest.raises(ReportError, match=r"lifts\.0: has no 'p'"):
        load(tmp_path)


def test_a_report_is_made_of_the_json_alone(homes: dict[str, Path]) -> None:
    for home in homes.values():
        shown = sections.document(load(home))
        assert page(shown) == (home / "report.html").read_text(encoding="utf-8")
        assert markdown(shown) == (home / "report.md").read_text(encoding="utf-8")


def test_rows_have_as_many_cells_as_their_table_has_columns(homes: dict[str, Path]) -> None:
    def walk(blocks: Any) -> Iterator[Table]:
        for block in blocks:
            if isinstance(block, Table):
                yield block
            elif isinstance(block, Fold):
                yield from walk(block.blocks)

    for home in homes.values():
        for section in sections.document(load(home)).sections:
            for table in walk(section.blocks):
                assert {len(row) for row in table.rows} <= {len(table.columns)}, table.name


def test_offline_figures_stand_beside_the_online_lift(homes: dict[str, Path]) -> None:
    stored = json.loads((homes["a_paired_run"] / "report.json").read_text())
    assert stored["foretold"] == [
        {
            "figure": "hit_rate@10",
            "reward": "click",
            "arm": "recgpt",
            "value": 0.12,
            "control": 0.11,
            "online": 0.031,
            "rho": 0.7,
            "ordered": 0.8,
        }
    ]


def test_choices_are_stated_and_computed(homes: dict[str, Path]) -> None:
    stored = json.loads((homes["a_split_table"] / "report.json").read_text())
    assert stored["choices"] == {
        "interval": "log",
        "correction": "bh",
        "winsorise": 0.01,
        "resamples": 100,
        "seed": 0,
        "level": 0.95,
        "alternative": "two-sided",
        "pairs": True,
    }
    text = (homes["a_split_table"] / "report.md").read_text()
    assert "Benjamini and Hochberg over" in text
    assert "the delta method on the logarithm" in text
    methods = {row["method"] for row in stored["otherwise"] if row["metric"] == "money"}
    assert methods == {
        "as in the verdict",
        "Fieller interval",
        "delta interval",
        "rank sum",
        "winsorised 1%",
        "median",
        "ninth decile",
        "post-stratified by country",
        "permutation",
        "BCa bootstrap",
    }
