"""The report: counts by hand, words, JSON, Markdown and HTML from a log alone, and the commands
that write them.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console
from scipy import stats

from policies.time import DAY
from simulator import report
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.log.metrics import DEFAULT_METRICS
from simulator.page import words
from simulator.page.words import between, number
from simulator.report.console import show
from simulator.report.content import Content, Headline
from simulator.report.counts import Counter, Counts
from simulator.report.sentences import headline, verdict_sentence
from simulator.report.stored import decode, encode
from simulator.stats.verdict import Lift
from tests.browser import PROGRAM, Browser
from tests.worlds import feedback_log, paired_log


@pytest.fixture(scope="session")
def log() -> EventLog:
    return feedback_log()


def counted(log: EventLog, rows: int) -> Counts:
    counter = Counter(log)
    for stretch in log.stretches(counter.columns, rows):
        counter.add(stretch)
    return counter.counts


def test_counts_agree_with_pandas(log: EventLog) -> None:
    frame = log.table.to_pandas()
    frame["day"] = frame.t // DAY
    found = counted(log, 997)
    by = frame.groupby(["arm", "day"])
    assert (found.steps["impressions"] == by.size().unstack().to_numpy()).all()
    for name in ("click", "like", "comment", "long_view"):
        assert (found.steps[name] == by[name].sum().unstack().to_numpy()).all()
    requests = (
        frame.drop_duplicates(["arm", "user", "session", "request"])
        .groupby(["arm", "day"])
        .size()
        .unstack()
    )
    sessions = (
        frame.drop_duplicates(["arm", "user", "session"]).groupby(["arm", "day"]).size().unstack()
    )
    assert (found.steps["requests"] == requests.to_numpy()).all()
    assert (found.steps["sessions"] == sessions.to_numpy()).all()
    assert (found.users == frame.groupby("arm").user.nunique().to_numpy()).all()
    assert (found.channels == frame.groupby(["arm", "channel"]).size().unstack().to_numpy()).all()


def test_counts_leave_out_the_history_and_what_was_not_observed() -> None:
    columns = {
        "user": [0, 0, 0],
        "session": [0, 1, 1],
        "request": [0, 0, 0],
        "position": [0, 0, 1],
        "t": [-5, 10, 10],
        "item": [1, 2, 3],
        "click": np.array([1, -1, 1], dtype=np.int8),
        "watch": [3.0, np.nan, 0.0],
    }
    found = counted(EventLog.from_columns(columns, Metadata(("a",), 1, 3, days=1)), 2)
    assert found.steps["impressions"].sum() == 2
    assert found.steps["click"].sum() == 1
    assert found.steps["play"].sum() == 0


@pytest.fixture(scope="session")
def folder(log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("run")
    log.write(home / "log" / "log.parquet")
    report.write(log, home, runtime={"seconds": 1.5})
    return home


@pytest.fixture(scope="session")
def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_rows_have_exactly_the_promised_keys(content: dict[str, Any]) -> None:
    assert {
        "schema",
        "scenario",
        "seed",
        "design",
        "control",
        "arms",
        "checks",
        "runtime",
        "lifts",
    } <= set(content)
    keys = [
        "metric",
        "arm",
        "unit",
        "control_mean",
        "treatment_mean",
        "lift",
        "low",
        "high",
        "t",
        "df",
        "p",
        "p_adjusted",
        "n_units",
        "mde",
        "se",
        "difference_low",
        "difference_high",
        "level_adjusted",
        "low_adjusted",
        "high_adjusted",
        "difference_low_adjusted",
        "difference_high_adjusted",
        "confidence",
        "alternative",
        "difference",
    ]
    assert all(list(row) == keys for row in content["lifts"])
    assert {(row["metric"], row["arm"], row["unit"]) for row in content["lifts"]} == {
        (metric, arm, unit)
        for metric in DEFAULT_METRICS
        for arm in ("recgpt1", "recgpt")
        for unit in ("user", "day")
    }


def test_lifts_agree_with_scipy_on_the_same_log(log: EventLog, content: dict[str, Any]) -> None:
    frame = log.table.to_pandas()
    sums = (
        frame.groupby(["arm", "user"])
        .watch.sum()
        .unstack(fill_value=0)
        .reindex(columns=range(300), fill_value=0)
        .to_numpy(float)
    )
    row = next(
        r
        for r in content["lifts"]
        if (r["metric"], r["arm"], r["unit"]) == ("watch_time", "recgpt", "user")
    )
    expected = stats.ttest_rel(sums[2], sums[0])
    assert row["t"] == pytest.approx(expected.statistic, rel=1e-6)
    assert row["p"] == pytest.approx(expected.pvalue, rel=1e-5)
    assert row["lift"] == pytest.approx(sums[2].mean() / sums[0].mean() - 1, rel=1e-6)
    assert row["n_units"] == 300
    by_day = (
        frame.assign(day=frame.t // DAY)
        .groupby(["arm", "day"])
        .watch.sum()
        .unstack()
        .to_numpy(float)
    )
    row = next(
        r
        for r in content["lifts"]
        if (r["metric"], r["arm"], r["unit"]) == ("watch_time", "recgpt", "day")
    )
    assert (row["t"], row["df"]) == (
        pytest.approx(stats.ttest_rel(by_day[2], by_day[0]).statistic, rel=1e-5),
        4,
    )


def test_the_log_alone_rebuilds_the_same_report(
    folder: Path, tmp_path: Path, content: dict[str, Any]
) -> None:
    rebuilt = report.write(EventLog.open(folder / "log"), tmp_path)
    assert {**encode(rebuilt), "runtime": None} == {**content, "runtime": None}
    again = CliRunner().invoke(main, ["report", str(folder), "--quiet"])
    assert again.exit_code == 0, again.output
    assert again.output.strip() == str(folder / "report.html")
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == content, (
        "runtime figures of the run are kept"
    )
    assert not list(folder.glob("*.part"))


def test_options_of_tables_are_refused_for_a_log(folder: Path) -> None:
    result = CliRunner().invoke(
        main, ["report", str(folder), "--control", "recgpt", "--metric", "click"]
    )
    assert (result.exit_code, "--control, --metric: for tables" in result.output) == (
        2,
        True,
    ), result.output


def test_an_a_a_run_is_identical_in_every_metric(log: EventLog, tmp_path: Path) -> None:
    table = log.table.filter(pc.equal(log.table["arm"], 0))
    twin = table.set_column(
        0, table.schema.field("arm"), pa.array(np.ones(table.num_rows), pa.uint8())
    )
    meta = dataclasses.replace(log.metadata, arms=("a", "b"), control="a")
    content = report.write(EventLog(meta, pa.concat_tables([table, twin])), tmp_path)
    assert {said.verdict for said in content.verdicts} == {"identical"}
    assert all(row.lift == 0 and math.isnan(row.p) for row in content.lifts)
    assert content.headlines == (Headline("b", "b and a are identical in every metric."),)
    assert "identical" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_terminal_table_is_in_the_papers_style_within_80_columns(
    content: dict[str, Any],
) -> None:
    out = io.StringIO()
    show(decode(Content, content), Console(file=out, width=80, highlight=False))
    text = out.getvalue()
    row = next(
        r
        for r in content["lifts"]
        if (r["metric"], r["arm"], r["unit"]) == ("click", "recgpt", "user")
    )
    assert f"{100 * row['lift']:+.3f}%  Click" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text, "no colour where there is no terminal"


def test_a_wide_terminal_shows_the_difference_beside_the_lift(content: dict[str, Any]) -> None:
    out = io.StringIO()
    whole = decode(Content, content)
    show(whole, Console(file=out, width=120, highlight=False))
    row = next(row for row, _ in whole.decided() if row.metric == "click" and row.arm == "recgpt")
    low, high = row.difference_low_adjusted, row.difference_high_adjusted
    difference = number(row.treatment_mean - row.control_mean)
    of_arm = out.getvalue().partition("recgpt against")[2].splitlines()
    line = next(line for line in of_arm if "  Click  " in line)
    assert line.split("%")[-1].split(maxsplit=1) == [difference, between(low, high, number)]


def test_bad_sources_end_with_one_message(tmp_path: Path, log: EventLog) -> None:
    one = EventLog.from_columns(
        {"user": [0], "session": [0], "request": [0], "position": [0], "t": [0], "item": [1]},
        Metadata(("only",), 1, 1),
    )
    one.write(tmp_path / "one.parquet")
    (tmp_path / "text.parquet").write_text("no")
    for source, rule in (
        ("none", "no such file"),
        ("one.parquet", "at least two arms"),
        ("text.parquet", "not a readable Parquet file"),
    ):
        result = CliRunner().invoke(
            main, ["report", str(tmp_path / source), "--out", str(tmp_path / "out")]
        )
        assert result.exit_code == 2
        assert rule in result.output
        assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists(), "nothing half written"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.00772, "+0.772%"),
        (-0.0001, "-0.010%"),
        (0.0, "0.000%"),
        (-1e-9, "0.000%"),
        (None, "n/a"),
        (12.5, "+1250.000%"),
    ],
)
def test_percent_is_in_the_papers_style(fraction: float | None, text: str) -> None:
    assert words.percent(fraction) == text


def test_sentences_say_what_the_row_says() -> None:
    row = Lift(
        metric="watch_time",
        arm="b",
        unit="user",
        control_mean=1.0,
        treatment_mean=1.01,
        lift=0.01,
        low=-0.01,
        high=0.03,
        t=1.0,
        df=9.0,
        p=0.04,
        p_adjusted=0.4,
        n_units=10,
        mde=0.02,
        low_adjusted=-0.02,
        high_adjusted=0.04,
    )
    said = verdict_sentence(row, "a", 9)
    assert said.startswith(
        "Watch time: not shown. +1.000%, adjusted 95% interval -2.000% to +4.000%; alone it would"
        " pass (p .040)"
    )
    assert "±2.00% or more" in said
    assert "unbounded" in verdict_sentence(
        dataclasses.replace(row, low_adjusted=-math.inf, high_adjusted=math.inf), "a", 9
    )
    assert "a relative lift of nothing is not defined" in verdict_sentence(
        dataclasses.replace(row, lift=math.nan, control_mean=0.0), "a", 9
    )
    assert (
        headline([("click", "down"), ("like", "up"), ("return", "undecided")], "b", "a")
        == "b against a: higher on like; lower on click; 1 of 3 metrics undecided."
    )
    assert (
        headline([("watch_time", "undecided")], "b", "a")
        == "No difference between b and a is shown on watch time."
    )


NASTY = "<script>window.hit=1</script>\"&'|`*"


@pytest.fixture(scope="session")
def nasty(log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which an arm, the scenario, a channel, a note and a version are markup."""
    home = tmp_path_factory.mktemp("nasty")
    meta = log.metadata
    scenario = {
        **meta.scenario,
        "name": NASTY,
        "description": NASTY,
        "arms": {"comirec": {}, "recgpt1": {}, NASTY: {"policy": NASTY}},
    }
    arms = ("comirec", "recgpt1", NASTY)
    changed = dataclasses.replace(
        meta,
        arms=arms,
        scenario=scenario,
        channels=(NASTY,),
        versions={NASTY: NASTY},
        notes={NASTY: NASTY},
    )
    report.write(EventLog(changed, log.table), home)
    return home


def test_markup_in_names_stays_text(nasty: Path) -> None:
    html = (nasty / "report.html").read_text(encoding="utf-8")
    assert html.count("<script>") == 1, "only our own"
    assert "&lt;script&gt;window.hit=1" in html
    assert (
        "<script>" not in (nasty / "report.md").read_text(encoding="utf-8").split("## Repeat it")[0]
    )


def test_the_page_is_self_contained_and_small(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert len(html.encode()) < 6_000_000
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", html)
    assert "url(" not in html
    assert "@import" not in html


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("no Chromium on this machine: install `chromium` to look at the page")
    with Browser() as running:
        yield running


FIGURES = (
    "[...document.querySelectorAll('svg[role=img]')].map(e => e.getBoundingClientRect()).map(b =>"
    " Math.min(b.width, b.height))"
)


@pytest.mark.browser
@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("width", [1200, 390])
def test_figures_are_drawn_with_and_without_script(
    browser: Browser, folder: Path, content: dict[str, Any], script: bool, width: int
) -> None:
    browser.open(folder / "report.html", script=script, width=width)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    boxes = browser.ask(FIGURES)
    assert len(boxes) >= 2 * len(DEFAULT_METRICS) + len(content["funnel"])
    assert min(boxes) >= 10
    assert browser.ask("document.documentElement.scrollWidth") <= width, (
        "no sideways scrolling of the page"
    )
    marks = (
        "[...document.querySelectorAll('svg .dot, svg .fill')].map(e =>"
        " e.getBoundingClientRect().width)"
    )
    assert min(w for w in browser.ask(marks)) > 0
    text = browser.ask("document.body.innerText")
    for said in content["headlines"]:
        assert said["sentence"] in text


@pytest.mark.browser
def test_tables_sort_by_click_and_keyboard(browser: Browser, folder: Path) -> None:
    browser.open(folder / "report.html")
    column = (
        "[...document.querySelectorAll('#lifts tbody tr')].map(r => r.cells[4].dataset.value).map(v"
        " => v === '' ? null : Number(v))"
    )
    head = "document.querySelectorAll('#lifts thead th')[4]"
    before = browser.ask(column)
    browser.ask(f"{head}.querySelector('button').click()")
    assert browser.ask(column) == sorted(before)
    assert browser.ask(f"{head}.getAttribute('aria-sort')") == "ascending"
    browser.ask(f"{head}.querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.send(
            "Input.dispatchKeyEvent",
            type=kind,
            key="Enter",
            code="Enter",
            windowsVirtualKeyCode=13,
            text="\r",
        )
    assert browser.ask(column) == sorted(before, reverse=True)
    assert browser.ask(f"{head}.getAttribute('aria-sort')") == "descending"


@pytest.mark.browser
def test_marks_answer_hover_and_arrow_keys(browser: Browser, folder: Path) -> None:
    browser.open(folder / "report.html")
    box = browser.ask(
        "(() => { const b = document.querySelector('.strip').getBoundingClientRect(); return [b.x +"
        " b.width / 2, b.y + b.height / 2] })()"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    tip = browser.ask("document.querySelector('#tip').textContent")
    first = browser.ask("document.querySelector('.forest tbody tr').textContent")
    assert re.match(r"[A-Z][a-z ]+, recgpt1: ", tip)
    assert tip.partition(",")[0] in first
    browser.ask("document.querySelector('svg.days').focus()")
    for _ in range(2):
        browser.send(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key="ArrowRight",
            code="ArrowRight",
            windowsVirtualKeyCode=39,
        )
    assert browser.ask("document.querySelector('#tip').textContent").startswith("Day 2. ")
    assert not browser.ask("document.querySelector('#tip').hidden")


@pytest.mark.browser
def test_the_page_is_walked_with_the_keyboard(browser: Browser, folder: Path) -> None:
    """Tab goes from the skip link through the contents to sort buttons and figures, in the order of
    the page, with a visible outline.
    """
    browser.open(folder / "report.html")

    def press(key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            browser.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text=text,
            )

    seen = []
    for _ in range(60):
        press("Tab", 9)
        seen.append(browser.ask(STOP))
    assert seen[0]["class"] == "skip"
    assert seen[0]["left"] >= 0, "the skip link is seen once it has the focus"
    assert [stop["tag"] for stop in seen[1:3]] == ["A", "A"]
    assert {"BUTTON", "svg"} <= {stop["tag"] for stop in seen}
    assert all(stop["outline"] != "none" for stop in seen), [
        stop for stop in seen if stop["outline"] == "none"
    ]
    tops = [stop["top"] for stop in seen[1:]]
    assert all(later >= earlier - 60 for earlier, later in itertools.pairwise(tops))
    head = "document.querySelectorAll('.forest thead th')[1]"
    browser.ask(f"{head}.querySelector('button').focus()")
    press(" ", 32, " ")
    assert browser.ask(f"{head}.getAttribute('aria-sort')") == "ascending", (
        "the space bar sorts, too"
    )


STOP = """(() => {
  const e = document.activeElement, b = e.getBoundingClientRect();
  return {tag: e.tagName, class: e.getAttribute("class"), left: b.left, top: b.top + scrollY,
          outline: getComputedStyle(e).outlineStyle};
})()"""
"""Where the focus is, and whether it is seen."""


@pytest.mark.browser
def test_markup_in_names_does_not_run(browser: Browser, nasty: Path) -> None:
    browser.open(nasty / "report.html")
    assert browser.errors == []
    assert browser.ask("window.hit") is None
    assert NASTY in browser.ask("document.querySelector('h1').textContent")
    assert browser.ask(
        "[...document.querySelectorAll('td')].some(e => e.textContent === '"
        + NASTY.replace("'", "\\'")
        + "')"
    )


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(browser: Browser, folder: Path, dark: bool) -> None:
    browser.open(folder / "report.html", dark=dark)
    ratios = browser.ask(CONTRAST)
    assert len(ratios) > 100
    worst = min(ratios, key=lambda found: found[0])
    assert worst[0] >= 4.5, worst


CONTRAST = """(() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  };
  const ground = (e) => {
    while (/, 0\\)$/.test(getComputedStyle(e).backgroundColor)) e = e.parentElement;
    return getComputedStyle(e).backgroundColor;
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest("script, .hidden, .skip")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(e instanceof SVGElement ? style.fill : style.color), light(ground(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    found.push([ratio, e.className, e.textContent.trim().slice(0, 40)]);
  }
  return found;
})()"""
"""WCAG 2.2 contrast ratio of every element that has text of its own, with its class and text."""


@pytest.mark.browser
def test_the_page_has_names_for_what_it_shows(browser: Browser, folder: Path) -> None:
    browser.open(folder / "report.html", script=False)
    assert browser.ask("document.documentElement.lang") == "en"
    assert browser.ask("document.querySelectorAll('h1').length") == 1
    assert browser.ask(
        "[...document.querySelectorAll('svg:not([role=img])')].every(e => e.closest('[aria-hidden],"
        " svg[role=img]'))"
    )
    assert browser.ask(
        "[...document.querySelectorAll('svg[role=img]')].every(e =>"
        " e.getAttribute('aria-label').length > 10)"
    )
    assert browser.ask(
        "[...document.querySelectorAll('table')].every(t => t.querySelector('thead th[scope=col]'))"
    )
    assert browser.ask(
        "[...document.querySelectorAll('nav a')].every(a =>"
        " document.querySelector(a.getAttribute('href')))"
    )


@pytest.mark.browser
def test_the_page_prints(browser: Browser, folder: Path, tmp_path: Path) -> None:
    browser.open(folder / "report.html")
    browser.pdf(tmp_path / "report.pdf")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 18
    browser.open(folder / "report.html", width=696, dark=True)  # an A4 sheet within its margins
    browser.send(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert browser.ask("document.documentElement.scrollWidth") <= 696, "nothing is cut off"
    assert (
        browser.ask(
            "Math.max(...[...document.querySelectorAll('table, pre, svg')].map(e =>"
            " e.getBoundingClientRect().right))"
        )
        <= 697
    )
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", (
        "paper is white, also of a dark screen"
    )
    browser.send("Emulation.setEmulatedMedia", media="")


def test_every_section_of_the_content_is_shown(folder: Path, content: dict[str, Any]) -> None:
    html, markdown = (
        (folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md")
    )
    for heading in (
        "Distributions",
        "Computed otherwise",
        "Users needed",
        "Designs compared",
        "Published beside ours",
        "Checks",
        "Repeat it",
    ):
        assert f">{heading}<" in html, heading
        assert f"## {heading}" in markdown, heading
    assert {check["status"] for check in content["checks"]} <= {"green", "amber", "red"}
    assert all(check["meaning"] in html.replace("&#39;", "'") for check in content["checks"])


def test_computed_otherwise_agrees_with_scipy(log: EventLog, content: dict[str, Any]) -> None:
    frame = log.table.to_pandas()
    sums = (
        frame.groupby(["arm", "user"])
        .watch.sum()
        .unstack(fill_value=0)
        .reindex(columns=range(300), fill_value=0)
        .to_numpy(float)
    )
    row = {
        r["method"]: r
        for r in content["otherwise"]
        if (r["metric"], r["arm"]) == ("watch_time", "recgpt")
    }
    assert row["Wilcoxon"]["p"] == pytest.approx(
        stats.wilcoxon(sums[2] - sums[0], zero_method="pratt", method="approx").pvalue, rel=1e-6
    )
    assert row["median"]["lift"] == pytest.approx(
        np.median(sums[2]) / np.median(sums[0]) - 1, rel=1e-4
    )


def test_users_needed_find_the_lift_four_times_in_five(content: dict[str, Any]) -> None:
    """The users that the report says a 1% lift of watch time needs, against statsmodels' power of a
    paired t test.
    """
    from statsmodels.stats.power import TTestPower

    need = next(
        r
        for r in content["power"]
        if (r["metric"], r["arm"], r["published"]) == ("watch_time", "recgpt", False)
    )
    lift = next(
        r
        for r in content["lifts"]
        if (r["metric"], r["arm"], r["unit"]) == ("watch_time", "recgpt", "user")
    )
    sd = (
        abs(lift["treatment_mean"] - lift["control_mean"]) / abs(lift["t"]) * lift["n_units"] ** 0.5
    )
    comparisons = sum(1 for r in content["lifts"] if r["unit"] == "user" and r["p"] is not None)
    power = TTestPower().power(
        0.01 * lift["control_mean"] / sd, need["users"]["paired"], 0.05 / comparisons
    )
    assert power == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("item", 0, r"row 5: item must be an item of 1\.\..*; got 0"),
        ("user", 10**6, r"row 5: user must be a user of 0\.\."),
        ("click", None, "columns are"),
    ],
)
def test_a_log_that_breaks_a_rule_is_named_with_its_row(
    tmp_path: Path, column: str, value: int | None, message: str
) -> None:
    """Exit code 2, one message with file and row, and nothing written."""
    log = feedback_log(n_users=20, days=2)
    place = log.write(tmp_path / "log" / "0.parquet")
    table = log.table.replace_schema_metadata({"abtest": log.metadata.to_json()})
    if value is None:
        table = table.drop_columns([column])
    else:
        changed = table[column].to_numpy().copy()
        changed[5] = value
        index = table.schema.get_field_index(column)
        table = table.set_column(
            index, table.schema.field(column), pa.array(changed, table.schema.field(column).type)
        )
    pq.write_table(table, place)
    done = CliRunner().invoke(
        main, ["report", str(tmp_path / "log"), "--out", str(tmp_path / "out"), "--quiet"]
    )
    assert done.exit_code == 2, done.output
    assert re.search(message, done.output), done.output
    assert "0.parquet" in done.output
    assert not (tmp_path / "out").exists()


def test_days_on_which_nothing_was_shown_are_said(tmp_path: Path) -> None:
    """A log whose times are s lies on its first day as a whole; one with all its days says nothing
    of them.
    """
    log = feedback_log(days=3, arms=("old", "new"))
    whole = report.write(log, tmp_path / "ms").checks
    assert "Days" not in {check.name for check in whole}
    t = pc.divide(log.table["t"], 1000)
    table = log.table.set_column(
        log.table.schema.get_field_index("t"), log.table.schema.field("t"), t
    )
    (check,) = (
        c
        for c in report.write(EventLog(log.metadata, table), tmp_path / "s").checks
        if c.name == "Days"
    )
    assert (check.status, check.value) == ("amber", "Nothing was shown on 2 of 3 days: 2, 3.")


def test_an_audit_of_the_run_stands_beside_it(tmp_path: Path) -> None:
    """What `abtest audit` has written is shown in every rendering, and its verdict on the tests is
    a check.
    """
    from simulator.cli.audit import content as audit_content
    from simulator.stats import audit as audits
    from simulator.stats import units

    log = paired_log(n_users=80)
    found = audit_content(
        audits.audit(units.read(log, ("click", "watch_time")), "a", repetitions=100, sizes=(20, 80))
    )
    (tmp_path / "audit.json").write_text(json.dumps(found))
    content = report.write(log, tmp_path)
    assert content.audit is not None
    assert content.audit.repetitions == 100
    assert {row.n for row in content.audit.rows} == {20, 80}
    assert content.audit.beside.of >= content.audit.beside.held > 0
    (check,) = (c for c in content.checks if c.name == "Audit of the tests")
    assert "100 samples of 80 users" in check.value
    by_day = [r for r in found["rows"] if r["analysis"] == "paired t by day" and r["n"] == 80]
    errors = [r["error"]["value"] for r in by_day]
    assert content.audit.by_day is not None
    assert content.audit.by_day.error == (min(errors), max(errors))
    assert f"{max(r['error']['value'] for r in by_day):.1%} of tests in place of 5%" in (
        tmp_path / "report.html"
    ).read_text(encoding="utf-8")
    assert "What the usual wrong analyses would have done" in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )
    assert "## Audit of the tests" in (tmp_path / "report.md").read_text(encoding="utf-8")
    for row in found["rows"]:
        row["holds"] &= not row["default"]
    (tmp_path / "audit.json").write_text(json.dumps(found))
    (check,) = (c for c in report.write(log, tmp_path).checks if c.name == "Audit of the tests")
    assert check.status == "amber"
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(report.ReportError, match="not an audit"):
        report.write(log, tmp_path)
