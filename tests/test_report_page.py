"""The page of a report is for those who decide: what the first screen holds, that rows are chosen
and taken along, and that it stays readable with many arms and many segments.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator import report
from simulator.log.eventlog import EventLog
from simulator.page.blocks import Fold, Table
from simulator.report import load, sections
from simulator.report import user_table as tables
from simulator.report.content import Content
from simulator.report.sections import behaviour, first_screen
from simulator.stats.margins import Margins
from tests.browser import PROGRAM, Browser
from tests.worlds import feedback_log, with_fits

pytestmark = pytest.mark.browser

FORMULA = "=cmd|' /c calc'!A0"
"""A name that a spreadsheet would run."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("no Chromium on this machine: install `chromium` to look at the page")
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with several fits and a decision on its methods."""
    home = tmp_path_factory.mktemp("decided")
    log = with_fits(feedback_log(n_users=150), 3)
    scenario = {**log.metadata.scenario, "arms": {name: {} for name in log.metadata.arms}}
    meta = dataclasses.replace(log.metadata, scenario=scenario)
    content = report.write(
        EventLog(meta, log.table),
        home,
        roles={"watch_time": "success", "like": "deterioration"},
        margins=Margins({"click": 0.05}),
    )
    assert content.decision is not None
    assert content.decision.on == "methods"
    return home


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 40 arms against the control."""
    random = np.random.default_rng(2)
    n = 41 * 60
    arm = np.arange(n) % 41
    names = np.array(["control", FORMULA, *(f"candidate_{i}" for i in range(2, 41))])
    frame = pd.DataFrame(
        {"user": range(n), "arm": names[arm], "plan": random.choice(["a", "b"], n)}
    )
    for metric in ("watch_time", "clicks", "likes"):
        frame[metric] = random.gamma(2.0, 30.0, n) * (1.0 + 0.02 * arm)
    home = tmp_path_factory.mktemp("many")
    tables.write(frame, home, roles={"watch_time": "success"}, margins=Margins({"clicks": 0.1}))
    return home


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with 200 segments, in one of which a lift of almost nothing's mean is enormous."""
    random = np.random.default_rng(3)
    n = 200 * 80
    frame = pd.DataFrame(
        {
            "user": range(n),
            "arm": np.where(np.arange(n) % 2, "new", "control"),
            "country": [f"country {i // 80:03d}" for i in range(n)],
            "money": random.gamma(2.0, 30.0, n),
            "rare": (random.random(n) < 0.03) * random.gamma(0.3, 30.0, n),
        }
    )
    frame.loc[frame["country"] == "country 007", "money"] *= np.where(
        frame.loc[frame["country"] == "country 007", "arm"] == "new", 3.0, 1.0
    )
    home = tmp_path_factory.mktemp("segmented")
    tables.write(frame, home)
    return home


def content_of(home: Path) -> Content:
    return load(home)


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_screen_decides(
    browser: Browser, decided: Path, script: bool, width: int, height: int
) -> None:
    """Of both arms the decision, the success metric with the intervals of models and methods, the
    guardrails and what is missing, above the fold.
    """
    browser.open(decided / "report.html", script=script, width=width, height=height)
    gate = "document.querySelector('div.gate')"
    assert browser.ask(f"{gate}.getBoundingClientRect().bottom") <= height
    text = browser.ask(f"{gate}.innerText").replace("−", "-")
    content = content_of(decided)
    assert content.decision is not None
    first = content.decision.arms[0]
    lead, _, reasons = first.sentence.partition(": ")
    assert lead in text
    assert reasons[1:].replace("−", "-") in text
    for piece in first_screen._pieces(content, first.arm):
        assert piece.methods is not None
        assert piece.metric.replace("_", " ").capitalize() in text
        role = content.notes_of_metrics()[piece.metric].role
        if width == 390 and role == "deterioration" and piece.methods.words == "undecided":
            continue  # one line: no harm is shown
        for whiskers in piece.drawn:
            assert f"{100 * whiskers.low:+.2f}% to {100 * whiskers.high:+.2f}%" in text
    assert "guardrail, margin 5.00%" in text
    assert len(content.decision.arms) == 2
    last = "[...document.querySelectorAll('div.gate')].at(-1).getBoundingClientRect().bottom"
    assert browser.ask(last) <= height


WIDE = """(() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  return [...document.querySelectorAll("table")]
    .filter((table) => table.getBoundingClientRect().right > innerWidth)
    .map((table) => table.ariaLabel);
})()"""


@pytest.mark.parametrize("home", ["decided", "many", "segmented"])
def test_no_table_is_wider_than_the_screen(
    browser: Browser, request: pytest.FixtureRequest, home: str
) -> None:
    page = request.getfixturevalue(home) / "report.html"
    for script in (True, False):
        browser.open(page, width=1280, script=script)
        assert browser.errors == []
        assert browser.ask(WIDE) == []
    assert page.stat().st_size < 4_000_000


def choose(browser: Browser, facet: str, value: str) -> None:
    browser.ask(
        f"""(() => {{
          const label = [...document.querySelectorAll(".choose label")]
            .find((one) => one.firstChild.textContent.trim() === {json.dumps(facet)});
          label.querySelector("select").value = {json.dumps(value)};
          label.querySelector("select").dispatchEvent(new Event("change"));
        }})()"""
    )


def visible(selector: str) -> str:
    """JavaScript: the elements that match and are seen."""
    return f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility())"


def seen(browser: Browser, table: str) -> list[list[str]]:
    """The rows of a table that are seen, as the texts of their cells."""
    rows: list[list[str]] = browser.ask(
        visible(f"#{table} tbody tr") + ".map(r => [...r.cells].map(c => c.textContent.trim()))"
    )
    return rows


def test_rows_are_chosen_in_all_tables_at_once(browser: Browser, decided: Path) -> None:
    browser.open(decided / "report.html", width=1280)
    whole = seen(browser, "lifts")
    assert {row[1] for row in whole} == {"recgpt1", "recgpt"}
    heads = visible("#verdict h2.headline") + ".length"
    assert browser.ask(heads) == 2
    choose(browser, "Arm", "recgpt")
    assert {row[1] for row in seen(browser, "lifts")} == {"recgpt"}
    assert browser.ask(heads) == 1
    choose(browser, "Metric", "Click")
    assert [row[:2] for row in seen(browser, "lifts")] == [["Click", "recgpt"]]
    titles = visible("#days figure h3") + ".map(h => h.textContent)"
    assert browser.ask(titles) == ["Click"]
    assert " of " in browser.ask("document.querySelector('.choose output').textContent")
    browser.ask("document.querySelector('.choose button').click()")
    assert seen(browser, "lifts") == whole
    choose(browser, "Verdict on", "the methods")
    shown = (
        "[...document.querySelectorAll('#verdict table')].filter(t => t.checkVisibility()).length"
    )
    assert browser.ask(shown) == 2, "one for each arm"
    choose(browser, "Verdict on", "")
    assert browser.ask(shown) == 4


def test_rows_are_sought_with_the_keyboard(browser: Browser, decided: Path) -> None:
    browser.open(decided / "report.html", width=1280)
    browser.ask("document.querySelector('.choose input').focus()")
    browser.send("Input.insertText", text="LIKE")
    assert {row[0] for row in seen(browser, "lifts")} == {"Like"}
    assert browser.ask("document.querySelector('#checks table').checkVisibility()"), (
        "what has no such columns stays"
    )
    browser.send("Input.insertText", text=" nothing of the kind")
    assert seen(browser, "lifts") == []
    none = visible(".none") + ".length"
    assert browser.ask(none) > 0
    browser.ask("document.querySelector('.choose button').click()")
    assert browser.ask(none) == 0


def test_the_contents_stay_in_sight(browser: Browser, decided: Path) -> None:
    for script in (True, False):
        browser.open(decided / "report.html", width=1280, script=script)
        browser.ask("document.querySelector('#numbers').scrollIntoView({behavior: 'instant'})")
        assert browser.ask("document.querySelector('.bar-top').getBoundingClientRect().top") == 0
        top = browser.ask("document.querySelector('#numbers-title').getBoundingClientRect().top")
        assert top >= browser.ask(
            "document.querySelector('.bar-top').getBoundingClientRect().bottom"
        )
    browser.open(decided / "report.html", width=1280)
    browser.ask(
        "new Promise(done => { document.querySelector('#numbers').scrollIntoView({behavior:"
        " 'instant'}); requestAnimationFrame(() => requestAnimationFrame(done)) })"
    )
    assert browser.ask("document.querySelector('nav [aria-current]').hash") == "#numbers"


def saved(browser: Browser, label: str) -> list[list[str]]:
    """The rows of the CSV file that the page gives of a table."""
    text = browser.ask(
        f"""(async () => {{
          let blob = null;
          const make = URL.createObjectURL;
          URL.createObjectURL = (given) => {{ blob = given; return "#"; }};
          document.querySelector({json.dumps(f'button[aria-label="CSV of {label}"]')}).click();
          URL.createObjectURL = make;
          return await blob.text();
        }})()"""
    )
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def test_every_table_is_saved_as_csv_with_all_digits(browser: Browser, decided: Path) -> None:
    browser.open(decided / "report.html", width=1280)
    every = browser.ask(
        "[document.querySelectorAll('table').length, document.querySelectorAll('.csv').length]"
    )
    assert every[0] == every[1]
    heads, *rows = saved(browser, "All numbers")
    content = content_of(decided)
    lifts = [row for row in content.lifts if row.unit == "user"]
    assert heads[:4] == ["Metric", "Arm", "comirec", "Arm's mean"]
    assert heads[4:6] == ["Lift", "Lift, second line"]
    assert [float(row[4]) for row in rows] == [row.lift for row in lifts]
    assert [row[1] for row in rows] == [row.arm for row in lifts]
    joined = saved(browser, "Distribution of each metric")
    assert {len(row) for row in joined} == {len(joined[0])}
    first = next(iter(content.metrics)).capitalize()
    assert [row[0] for row in joined[1:4]] == [first] * 3, "a joined cell is said again"
    choose(browser, "Arm", "recgpt")
    assert {row[1] for row in saved(browser, "All numbers")[1:]} == {"recgpt"}, "what is chosen"


def test_a_name_is_no_formula_in_a_spreadsheet(browser: Browser, many: Path) -> None:
    browser.open(many / "report.html", width=1280)
    names = {row[1] for row in saved(browser, "All numbers")}
    assert "'" + FORMULA in names
    assert FORMULA not in names


def test_many_arms_share_a_table_those_that_ship_first(many: Path) -> None:
    content = content_of(many)
    (gate, *_) = sections.document(content).gates
    assert content.decision is not None
    ships = [one.arm for one in content.decision.arms if one.answer == "ship"]
    table, fold = gate.blocks
    assert isinstance(table, Table)
    assert isinstance(fold, Fold)
    assert [row[0].text for row in table.rows] == ships
    assert all(arm in gate.lead for arm in ships)
    (rest,) = fold.blocks
    assert isinstance(rest, Table)
    others = [one.arm for one in content.decision.arms if one.answer != "ship"]
    assert len(others) > 10
    assert [row[0].text for row in rest.rows] == others


def test_segments_without_evidence_are_printed_quietly(browser: Browser, segmented: Path) -> None:
    """What is shown stands first; the rest is folded away, and a lift whose interval says nothing
    of a size is not printed.
    """
    browser.open(segmented / "report.html", width=1280)
    label = "Segments in which a difference is shown"
    rows = browser.ask(
        f"[...document.querySelectorAll('table[aria-label=\"{label}\"] tbody tr')]"
        ".map(r => [...r.cells].map(c => c.textContent.trim()))"
    )
    assert [row[0] for row in rows] == ["▲ Money"]
    assert rows[0][2] == "country: country 007"
    content = content_of(segmented)
    assert content.segments is not None
    wide = [one.row for one in content.segments.rows if one.row.metric == "rare"]
    assert any(row.lift > behaviour.TOO_WIDE for row in wide), "there is something to keep quiet"
    quiet: list[Any] = browser.ask(
        "[...document.querySelectorAll('#segments details td.quiet')]"
        ".map(c => c.textContent.trim())"
    )
    assert "too uncertain" in quiet
    main = browser.ask("document.querySelector('#segments').innerText")
    for row in wide:
        if row.lift > 10:
            assert f"{100 * row.lift:+,.3f}%" not in main


def test_print_repeats_heads_and_hides_what_is_for_the_screen(
    browser: Browser, decided: Path
) -> None:
    browser.open(decided / "report.html", width=696)
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        style = "getComputedStyle(document.querySelector('{}')).{}"
        assert browser.ask(style.format("#lifts thead", "display")) == "table-header-group"
        assert browser.ask(style.format("#lifts tbody tr", "breakInside")) == "avoid"
        assert browser.ask(style.format("div.gate", "breakInside")) == "avoid"
        assert browser.ask(style.format(".bar-top", "display")) == "none"
        assert browser.ask(style.format(".csv", "display")) == "none"
        assert browser.ask("document.documentElement.scrollWidth") <= 696
        # Chromium paints no controls in heads that it repeats: those of sorting must be text.
        assert browser.ask("document.querySelectorAll('th button').length") > 0
        shown = "[...new Set([...document.querySelectorAll('th button')].map("
        assert browser.ask(f"{shown}b => getComputedStyle(b).display))].join()") == "contents"
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")
