"""Which early metric foretells the late lift: figures of pairs against enumeration, intervals over
policies, runs from the command line, and what is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from scipy.stats import kendalltau, spearmanr

from simulator.cli import main
from simulator.surface import foretelling
from simulator.surface.foretelling import CREATORS, FRESH, ITSELF, _foresight

SMALL: dict[str, Any] = {
    "name": "months",
    "seed": 2,
    "users": {"kind": "choice", "n_users": 60, "n_items": 140, "videos": {"authors": 20}},
    "items": {"uploads": 6, "stock": 60, "remove_after": 9, "creators": {"window": 2, "least": 9}},
    "data": {"source": "synthetic", "history_days": 4},
    "days": 6,
    "serving": {"slate": 4, "recall": 20, "history": 20, "ranking": {"kind": "recall"}},
    "metrics": ["click", "watch_time"],
    "arms": {
        "random": {"policy": "random"},
        "popular": {"policy": "popularity"},
        "newest": {"policy": "newest"},
        "alike": {"policy": "itemknn"},
    },
    "engine": {"executor": "serial", "shards": 1},
}


def test_agreement_is_that_of_all_pairs_and_rank_that_of_both_ways_round() -> None:
    draw = np.random.default_rng(4)
    early, late = draw.normal(size=(2, 9))
    one = _foresight("click", 3, [early], [late])
    a, b = np.triu_indices(9, 1)
    dx, dy = early[b] - early[a], late[b] - late[a]
    assert one.agreement == pytest.approx((np.sign(dx) == np.sign(dy)).mean())
    assert one.agreement == pytest.approx((1 + kendalltau(early, late).statistic) / 2)
    both = spearmanr(np.concatenate([dx, -dx]), np.concatenate([dy, -dy])).statistic
    assert one.rank == pytest.approx(both)
    assert one.pairs == 36


def test_pairs_are_of_one_run_each() -> None:
    one = _foresight("click", 1, [np.arange(3.0), 9 - np.arange(3.0)], [np.arange(3.0)] * 2)
    assert (one.pairs, one.agreement) == (6, 0.5)


def test_an_interval_holds_what_one_policy_more_could_make_of_it() -> None:
    one = _foresight("click", 1, [np.arange(5.0)], [2 * np.arange(5.0)])
    assert (one.agreement, one.rank) == (1.0, 1.0)
    # A sixth policy has 5 of 15 pairs, and may be the other way round in all of them.
    assert one.agreement_low == pytest.approx(10 / 15)
    assert one.agreement_high == 1.0


def test_the_interval_covers_the_agreement_of_the_policies_that_are_drawn() -> None:
    """Normal early and late levels with correlation r agree in 1/2 + arcsin(r) / pi of pairs
    (Sheppard 1899).
    """
    draw, r, held = np.random.default_rng(0), 0.7, 0
    truth = 0.5 + np.arcsin(r) / np.pi
    for _ in range(200):
        x, noise = draw.normal(size=(2, 8))
        one = _foresight("click", 1, [x], [r * x + np.sqrt(1 - r * r) * noise])
        held += one.agreement_low <= truth <= one.agreement_high
    assert held >= 180


def test_lifts_that_are_not_there_are_left_out() -> None:
    one = _foresight("follow", 1, [np.array([np.nan, 1.0, 2.0])], [np.arange(3.0)])
    assert (one.pairs, one.agreement) == (1, 1.0)
    nothing = _foresight("follow", 1, [np.full(3, np.nan)], [np.arange(3.0)])
    assert nothing.pairs == 0
    assert np.isnan([nothing.agreement, nothing.rank, nothing.rank_low]).all()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foretell")
    (folder / "months.yaml").write_text(yaml.safe_dump(SMALL))
    out = folder / "out"
    args = ["foretell", str(folder / "months.yaml"), "--out", str(out), "--window", "2"]
    result = CliRunner().invoke(main, [*args, "--day", "1", "--day", "3", "--quiet"])
    assert result.exit_code == 0, result.output
    return out


def test_a_scenario_is_run_and_its_pairs_are_told(told: Path) -> None:
    stored = json.loads((told / "foretell.json").read_text())
    assert (stored["target"], stored["first"], stored["last"]) == ("watch_time", 5, 6)
    assert (stored["policies"], stored["pairs"], len(stored["lifts"])) == (4, 6, 6)
    rows = {(row["metric"], row["day"]): row for row in stored["rows"]}
    assert {(FRESH, 1), (CREATORS, 3), ("click", 3), (ITSELF, 6)} <= set(rows)
    for name in ("foretell.md", "foretell.html", "foretell.svg", "pairs.csv"):
        assert (told / name).is_file()
    assert stored["answer"].split(":")[0] in (told / "foretell.md").read_text()


def test_late_lifts_are_those_of_the_log(told: Path) -> None:
    from simulator.log.eventlog import EventLog

    rows = EventLog.open(told / "run" / "log").table.to_pandas()
    late = rows[(rows.arm > 0) & (rows.t >= 4 * 86_400_000)].groupby("arm").watch.sum()
    names = ["alike", "newest", "popular", "random"]
    watched = {name: late[i + 1] for i, name in enumerate(names)}
    for pair in json.loads((told / "foretell.json").read_text())["lifts"]:
        lift = watched[pair["arm"]] / watched[pair["control"]] - 1
        assert pair["late"] == pytest.approx(lift, rel=1e-5)


def test_finished_runs_are_read(told: Path, tmp_path: Path) -> None:
    args = ["foretell", str(told / "run"), "--out", str(tmp_path), "--window", "3", "--day", "2"]
    result = CliRunner().invoke(main, [*args, "--target", "click", "--metric", "click"])
    assert result.exit_code == 0, result.output
    assert "Same sign" in result.output
    stored = json.loads((tmp_path / "foretell.json").read_text())
    names = {row["metric"] for row in stored["rows"]}
    assert names == {"click", FRESH, CREATORS, ITSELF}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--window", "6"], ["has 6 days", "--window", "longer run"]),
        (["--window", "3", "--day", "4"], ["--day 4", "end by day 3"]),
        (["--window", "2", "--target", "clck"], ["clck", "click"]),
        (["--window", "2", "--target", "fresh_exposure_share"], ["supply side"]),
    ],
)
def test_what_cannot_be_told_is_refused(told: Path, options: list[str], words: list[str]) -> None:
    result = CliRunner().invoke(main, ["foretell", str(told / "run"), *options])
    assert result.exit_code == 2
    assert all(word in result.output for word in words), result.output
    assert "Traceback" not in result.output


def test_too_few_pairs_are_refused(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foretelling, "LEAST_PAIRS", 7)
    result = CliRunner().invoke(main, ["foretell", str(told / "run"), "--window", "2"])
    assert result.exit_code == 2
    assert "at least 7 pairs" in result.output


def test_a_scenario_and_a_run_together_are_refused(told: Path) -> None:
    result = CliRunner().invoke(main, ["foretell", "kuaishou_like", str(told / "run")])
    assert result.exit_code == 2
    assert "give one scenario, or folders of finished runs" in result.output


def test_the_report_of_a_catalogue_that_lives_shows_it(told: Path) -> None:
    from policies.base import silent
    from simulator.log.eventlog import EventLog
    from simulator.report.gather import gather
    from simulator.report.sections.fresh_and_left import living
    from simulator.report.stored import decode, encode

    content = gather(EventLog.open(told / "run" / "log"), runtime=None, progress=silent)
    one = content.catalogues
    assert one is not None
    assert {arm.arm for arm in one.arms} == set(SMALL["arms"])
    assert len(one.days) == 4 * 6
    for arm in one.arms:
        mine = [day for day in one.days if day.arm == arm.arm]
        left = [day.creators.value for day in mine]
        assert left == sorted(left, reverse=True)
        assert mine[-1].creators.value == arm.creators.value
        assert 0 <= arm.fresh.low <= arm.fresh.value <= arm.fresh.high <= 1
    newest = next(arm for arm in one.arms if arm.arm == "newest")
    assert newest.fresh_difference is not None
    assert newest.fresh_difference.low > 0
    section = living(content)
    assert section is not None
    assert decode(type(one), encode(one)) == one
