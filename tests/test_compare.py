"""Several runs side by side: agreement of signs, settings that differ, pooling of repeats against
an independent tool.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import chi2, norm

from simulator import report
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.page.words import percent
from simulator.report import comparison
from simulator.report import worlds as world
from simulator.report.content import Content
from simulator.report.sentences import SIGNS
from simulator.stats.choices import Choices
from simulator.stats.fit_checks import judge_fits
from tests.worlds import (
    decided_content,
    feedback_log,
    fit_values,
    interleaved_log,
    paired_log,
    with_fits,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("runs")
    for seed in (5, 6):
        report.write(feedback_log(n_users=150, seed=seed), home / f"seed{seed}")
    return [home / "seed5", home / "seed6"]


def contents(**verdicts: dict[str, str]) -> dict[str, Content]:
    """Reports of one arm by name, from metric -> verdict."""
    sizes = {"up": 0.1, "down": -0.1}
    return {
        name: decided_content("b", {m: sizes.get(v, 0.0) for m, v in says.items()}, says)
        for name, says in verdicts.items()
    }


def test_signs_agree_only_where_every_world_shows_the_same() -> None:
    rows = world.across(
        contents(
            one={
                "click": "up",
                "like": "up",
                "play": "up",
                "comment": "identical",
                "return": "undecided",
            },
            two={"click": "up", "like": "down", "play": "undecided", "comment": "identical"},
        )
    )
    assert {row.metric: row.agree for row in rows} == {
        "click": "same sign",
        "like": "opposite",
        "play": "undecided",
        "comment": "identical",
        "return": "undecided",
    }


def test_repeats_are_pooled_as_in_statsmodels(runs: list[Path]) -> None:
    from statsmodels.stats.meta_analysis import combine_effects

    found = comparison.read(runs)
    assert found.differences == (comparison.Difference("seed", {"seed5": 5, "seed6": 6}),)
    row = next(r for r in found.rows if r.metric == "click" and r.arm == "recgpt")
    cells = list(row.lifts.values())
    effects = np.array([c.lift for c in cells])
    variances = np.array([((c.high - c.low) / 2 / norm.ppf(0.975)) ** 2 for c in cells])
    expected = combine_effects(effects, variances)
    assert row.pooled == pytest.approx(expected.mean_effect_fe, rel=1e-9)
    assert row.high is not None
    assert row.low is not None
    assert (row.high - row.low) / 2 == pytest.approx(
        norm.ppf(0.975) * expected.sd_eff_w_fe, rel=1e-9
    )
    assert row.differ == pytest.approx(chi2.sf(expected.q, 1), rel=1e-9)


def test_the_supply_side_is_compared(runs: list[Path], tmp_path: Path) -> None:
    """The rows of each report, with the interval that its verdict has; not taken together, since
    each run has a catalogue of its own.
    """
    found = comparison.read(runs)
    own = {path.name: report.load(path).supply for path in runs}
    row = next(r for r in found.supply if (r.metric, r.arm) == ("items_shown", "recgpt"))
    for name, side in own.items():
        assert side is not None
        lift = next(r for r in side.rows if (r.metric, r.arm) == (row.metric, row.arm))
        cell = row.lifts[name]
        assert (cell.lift, cell.verdict) == (lift.lift, lift.words)
        assert (cell.low_adjusted, cell.high_adjusted) == (lift.low_adjusted, lift.high_adjusted)
    page = comparison.save(found, tmp_path).read_text()
    assert "Supply side in each run" in page
    assert sum("of the catalogue" in note for note in found.notes) == 2
    result = CliRunner().invoke(main, ["compare", *map(str, runs)])
    assert "Items shown" in result.output
    assert "of the catalogue" in " ".join(result.output.split())


@pytest.mark.parametrize("choices", [Choices(level=0.8), Choices(alternative="better")])
def test_any_level_and_side_is_pooled_alike(
    runs: list[Path], tmp_path: Path, choices: Choices
) -> None:
    """A standard error follows from the interval of whatever level, and from its one end; what
    Fieller's theorem makes of the two ends differs a little.
    """
    for i, seed in enumerate((5, 6)):
        report.write(feedback_log(n_users=150, seed=seed), tmp_path / str(i), choices=choices)
    usual, chosen = (
        {(r.metric, r.arm): r for r in comparison.read(paths).rows}
        for paths in (runs, [tmp_path / "0", tmp_path / "1"])
    )
    for key in (("click", "recgpt"), ("watch_time", "recgpt")):
        one, other = usual[key], chosen[key]
        assert other.pooled == pytest.approx(one.pooled, abs=0.01)
        assert one.high is not None
        assert other.high is not None
        assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.15)  # type: ignore[operator]


def test_runs_of_one_seed_are_not_independent(tmp_path: Path) -> None:
    for i, n_users in enumerate((120, 150)):
        report.write(feedback_log(n_users=n_users, seed=5), tmp_path / str(i))
    found = comparison.read([tmp_path / "0", tmp_path / "1"])
    assert all(row.differ is row.pooled is None for row in found.rows)
    assert any("not independent" in note for note in found.notes)


def test_a_fit_that_went_wrong_in_a_further_world_is_red() -> None:
    found = contents(one={"click": "up"}, two={"click": "up"})
    broken = judge_fits(fit_values([0.01], 2000, np.random.default_rng(0)))
    found["two"] = dataclasses.replace(found["two"], fits=tuple(broken))
    check = world.agreement(world.over(found), {"two": found["two"]})
    assert check.status == "red"
    assert check.value.startswith("A fit went wrong in two: ")


def test_both_verdicts_are_compared(runs: list[Path], tmp_path: Path) -> None:
    """A run of one fit says nothing of the methods, and stands there without a lift."""
    for seed in (5, 6):
        log = with_fits(feedback_log(n_users=150, seed=seed), 3)
        report.write(log, tmp_path / f"fits{seed}")
    several = [tmp_path / "fits5", tmp_path / "fits6"]
    both = comparison.read(several)
    row = next(r for r in both.methods if (r.metric, r.arm) == ("click", "recgpt"))
    models = next(r for r in both.rows if (r.metric, r.arm) == ("click", "recgpt"))
    written = report.load(several[0])
    (method,) = [m for m in written.methods if m.arm == "recgpt"]
    lift = next(one.lift for one in method.rows if one.lift.metric == "click")
    assert row.lifts["fits5"].low == lift.low
    assert row.pooled is not None
    assert row.pooled != models.pooled
    assert any("fits are as random as users" in note for note in both.notes)

    mixed = comparison.read([several[0], runs[1]])
    row = next(r for r in mixed.methods if (r.metric, r.arm) == ("click", "recgpt"))
    assert list(row.lifts) == ["fits5"]
    assert (row.agree, row.pooled) == ("undecided", None)
    assert any(note.startswith("seed6: ") and "one fit" in note for note in mixed.notes)
    answer = CliRunner().invoke(
        main, ["compare", *map(str, several), "--out", str(tmp_path / "out")]
    )
    assert answer.exit_code == 0, answer.output
    assert "Lift of the methods by run" in answer.output
    text = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    assert "## Lift of the methods in each run" in text
    assert "Runs taken together: methods" in (tmp_path / "out" / "compare.html").read_text()

    assert comparison.read(runs).methods == ()


def test_the_command_writes_all_three_and_prints_a_table(runs: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["compare", *map(str, runs), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "Watch time" in result.output
    assert max(map(len, result.output.splitlines()[:-1])) <= 80
    stored = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert set(stored["runs"]) == {"seed5", "seed6"}
    assert "repeats" in (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "<table" in (tmp_path / "compare.html").read_text(encoding="utf-8")


def scenario(log: EventLog, settings: dict[str, Any]) -> EventLog:
    """The log, as if it were of a scenario with these settings."""
    return EventLog(dataclasses.replace(log.metadata, scenario=settings), log.table)


def test_designs_are_compared_on_one_world(tmp_path: Path) -> None:
    """A paired and an interleaved log of the same scenario: users needed by every design, stated
    with what it finds.
    """
    report.write(
        scenario(paired_log(n_users=150), {"design": {"kind": "paired"}}), tmp_path / "paired"
    )
    report.write(interleaved_log(150, 0.5), tmp_path / "mixed")
    found = comparison.read([tmp_path / "paired", tmp_path / "mixed"])
    (row,) = (r for r in found.designs if r.metric == "click")
    assert set(row.users) == {"paired", "split", "cuped", "switchback", "interleave"}
    alone = json.loads((tmp_path / "mixed" / "report.json").read_text())["designs"]
    assert row.users["interleave"] == next(
        r["users"]["interleave"] for r in alone if r["metric"] == "click"
    )
    assert row.lifts["interleave"] != row.lifts["paired"]
    assert any("credits within shared slates" in note for note in found.notes)
    result = CliRunner().invoke(
        main,
        [
            "compare",
            str(tmp_path / "paired"),
            str(tmp_path / "mixed"),
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert "Users needed on this world" in result.output
    for name, heading in (
        ("compare.md", "## Users that each design needs"),
        ("compare.html", "Users that each design needs on this world"),
    ):
        assert heading in (tmp_path / "out" / name).read_text(encoding="utf-8")
    other = scenario(
        paired_log(n_users=150), {"design": {"kind": "paired"}, "users": {"kind": "other"}}
    )
    report.write(other, tmp_path / "elsewhere")
    assert comparison.read([tmp_path / "elsewhere", tmp_path / "mixed"]).designs == ()


@pytest.mark.parametrize("command", ["compare", "sensitivity"])
@pytest.mark.parametrize("again", ["", "report.json", "log"])
def test_a_run_cannot_be_compared_with_itself(runs: list[Path], command: str, again: str) -> None:
    result = CliRunner().invoke(main, [command, str(runs[0]), str(runs[0] / again)])
    assert result.exit_code == 2
    assert f"{runs[0] / again}: the same run as {runs[0]}" in result.output


def test_one_run_cannot_be_compared(runs: list[Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["compare", str(runs[0])])
    assert result.exit_code == 2
    assert "at least two runs" in result.output
    alone = tmp_path / "alone.parquet"
    feedback_log(n_users=20, arms=("a",)).write(alone)
    result = CliRunner().invoke(main, ["compare", str(runs[0]), str(alone)])
    assert result.exit_code == 2
    assert f"{alone}: a report compares at least two arms" in result.output


@pytest.mark.parametrize("command", ["compare", "sensitivity"])
def test_quiet_without_a_page_would_say_nothing(runs: list[Path], command: str) -> None:
    result = CliRunner().invoke(main, [command, *map(str, runs), "--quiet"])
    assert result.exit_code == 2
    assert "without --out there is none" in result.output


def test_the_terminal_shows_what_repeats_say_together(runs: list[Path]) -> None:
    result = CliRunner().invoke(main, ["compare", *map(str, runs)])
    assert result.exit_code == 0, result.output
    row = next(r for r in comparison.read(runs).rows if r.metric == "click" and r.arm == "recgpt")
    assert row.pooled is not None
    assert "pooled" in result.output
    assert f"{SIGNS[row.shown]} {percent(row.pooled)}" in result.output
    down = comparison.Pooling(0.5, -0.2, -0.3, -0.1)
    assert (down.shown, dataclasses.replace(down, high=0.1).shown) == ("down", "undecided")
    assert dataclasses.replace(down, low=0.1, high=0.3).shown == "up"


def test_what_is_no_report_is_named(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"schema": 99}')
    for place, rule in ((tmp_path, "not a report of schema"), (tmp_path / "none", "no such file")):
        result = CliRunner().invoke(main, ["compare", str(runs[0]), str(place)])
        assert result.exit_code == 2
        assert rule in result.output


def test_further_worlds_stand_beside_the_run(runs: list[Path], tmp_path: Path) -> None:
    log = feedback_log(n_users=150, seed=5)
    report.write(feedback_log(n_users=150, seed=6), tmp_path / "worlds" / "markov")
    found = report.write(log, tmp_path)
    click = next(row for row in found.worlds if (row.metric, row.arm) == ("click", "recgpt"))
    assert set(click.lifts) == {"this world", "markov"}
    assert click.all is not None
    assert click.all.lift == pytest.approx(np.mean([cell.lift for cell in click.lifts.values()]))
    assert click.all.low < min(cell.lift for cell in click.lifts.values())
    assert "## The same arms in other worlds" in (tmp_path / "report.md").read_text(
        encoding="utf-8"
    )
    assert "The same arms in other worlds" in (tmp_path / "report.html").read_text(encoding="utf-8")
