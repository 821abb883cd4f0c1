"""Drawn worlds: what a scenario may say of them, how they are drawn so that they meet the targets,
and how they are run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from benchmarks import hidden
from simulator.calibration import draws
from simulator.calibration.draws import OPEN, Range, bootstraps, draw, ranges
from simulator.calibration.search import stages, value_of, with_values
from simulator.calibration.targets import (
    LOGGING,
    RANDOM,
    TARGETS,
    CalibrationError,
    PublishedFigure,
    compare,
    is_beyond,
    measured,
)
from simulator.cli import main
from simulator.report import drawn
from simulator.run.pipeline import run, simulate
from simulator.scenario.model import Scenario, ScenarioError
from simulator.stats.ensemble import over_worlds
from tests.worlds import log_files

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 4,
    "users": {"kind": "choice", "n_users": 150, "n_items": 120},
    "data": {"source": "synthetic", "history_days": 3},
    "days": 2,
    "arms": {"popularity": {"policy": "popularity"}, "random": {"policy": "random"}},
    "design": {"control": "popularity"},
    "engine": {"executor": "serial", "shards": 1},
}
KEY = "users.drift.renewal"


def scenario(**changes: Any) -> Scenario:
    return Scenario.model_validate({**SMALL, **changes})


def load(folder: Path, **changes: Any) -> Scenario:
    file = folder / "s.yaml"
    file.write_text(yaml.safe_dump({**SMALL, **changes}))
    return Scenario.load(file)


# What a scenario may say.


def test_a_drawn_world_is_the_own_world_with_other_numbers() -> None:
    worlds = {"a": {"seed": 9, "changes": {KEY: 0.2, "users.affinity.duration.10.0": 1}}}
    whole = scenario(worlds=worlds)
    alone = whole.within("a")
    assert alone.seed == 9
    assert alone.users == with_values(whole, worlds["a"]["changes"]).users
    assert alone.worlds == {}
    assert whole.drawn == ["a"]
    assert whole.resolved()["worlds"] == worlds
    assert Scenario.model_validate(whole.resolved()) == whole


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ({}, "worlds.a: must have `users`, or differ from the scenario's own world"),
        ({"changes": {"users.drift.renewel": 1}}, "no such key 'users.drift.renewel'"),
        ({"changes": {KEY: 5}}, f"worlds.a.changes.{KEY}: drift.renewal: must be less"),
        ({"changes": {"days": 3}}, "a world may change keys of `users` and `data` only"),
        ({"seed": 1, "data": {}}, "data of its own go with `users` of its own"),
        ({"seed": 1, "users": {"kind": "choice"}}, "leave out `changes` and `seed`, or `users`"),
    ],
)
def test_a_wrong_one_is_named(tmp_path: Path, world: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError) as error:
        load(tmp_path, worlds={"a": world})
    assert words in str(error.value)
    assert "s.yaml:" in str(error.value)


def test_worlds_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    worlds = {"a": {"seed": 9, "changes": {KEY: 0.2}}}
    (tmp_path / "worlds.yaml").write_text(yaml.safe_dump({"worlds": worlds}))
    assert load(tmp_path, worlds="worlds.yaml").worlds == scenario(worlds=worlds).worlds
    with pytest.raises(ScenarioError, match=r"worlds: .*nowhere\.yaml: cannot be read"):
        load(tmp_path, worlds="nowhere.yaml")
    (tmp_path / "worlds.yaml").write_text(yaml.safe_dump({"worlds": worlds, "days": 3}))
    with pytest.raises(ScenarioError, match="the key `worlds` alone"):
        load(tmp_path, worlds="worlds.yaml")


# How they are drawn.

IDENTIFIED = "users.affinity.base"


@pytest.fixture(scope="module")
def ensemble() -> tuple[Scenario, list[PublishedFigure], draws.Ensemble]:
    """Worlds that are to click as often as a world whose base is hidden from the search."""
    start = scenario(users={"kind": "choice", "n_users": 400, "n_items": 150})
    hidden = with_values(start, {IDENTIFIED: value_of(start, IDENTIFIED) + 0.3})
    truth = measured(hidden, (LOGGING, RANDOM))
    targets = [PublishedFigure(f, "click", truth[f]["click"].value) for f in (LOGGING, RANDOM)]
    return start, targets, draw(start, 10, (IDENTIFIED, KEY), targets=targets)


def test_every_world_meets_the_targets(ensemble: Any) -> None:
    start, targets, found = ensemble
    assert len(found.worlds) == 10
    whole = Scenario.model_validate({**start.resolved(), "worlds": dict(found.worlds)})
    search = draws._Search(start, ranges(start, (IDENTIFIED, KEY)), tuple(targets), 0.1, None)
    search.compare_seeds()
    for name in whole.drawn:
        rows = search.compared(whole.within(name))
        assert len(rows) == 2
        assert not [row for row in rows if is_beyond(row)]


def test_a_target_is_met_within_what_another_catalogue_brings() -> None:
    """The click rate of the random feed varies more between draws of videos than the error by users
    says; the error that counts is the larger one, and that of a marginal without any.
    """
    start = scenario(users={"kind": "choice", "n_users": 400, "n_items": 60})
    targets = tuple(
        PublishedFigure(LOGGING, name, 1.0) for name in ("click", "exposure gini", "watch zero")
    )
    search = draws._Search(start, ranges(start, (KEY,)), targets, 0.1, None)
    by_users = search.compared(start)
    search.compare_seeds()
    values = [
        [
            row.simulated
            for row in compare(measured(start.model_copy(update={"seed": s})), 0.1, targets)
        ]
        for s in [(start.seed - 1 - r) % 2**64 for r in range(draws.SEEDS)]
    ]
    between = np.std(values, axis=0, ddof=1)
    rows = search.compared(start)
    assert np.isnan(by_users[1].se)
    assert by_users[0].se < between[0]
    for row, alone, sd in zip(rows, by_users, between, strict=True):
        assert row.simulated == alone.simulated
        assert row.se == pytest.approx(max(np.nan_to_num(alone.se), sd))


def test_a_band_holds_the_lift_of_a_planted_reality() -> None:
    """A reality whose three parameters nobody sees, through draws, lives and verdict (`python -m
    benchmarks.hidden` has many).
    """
    row = hidden.repetition(1, 4)
    assert row is not None
    truth = row.truth["click"][0]
    band = over_worlds("click", "popularity", *np.array(row.worlds["click"]).T)
    assert band is not None
    assert band.low <= truth <= band.high
    assert band.high < 4  # and says more than nothing


def test_what_is_identified_is_found_and_what_is_not_stays_spread(ensemble: Any) -> None:
    start, _, found = ensemble
    values = {
        key: np.array([world["changes"][key] for world in found.worlds.values()])
        for key in (IDENTIFIED, KEY)
    }
    truth = value_of(start, IDENTIFIED) + 0.3
    assert values[IDENTIFIED].mean() == pytest.approx(truth, abs=0.2)
    assert found.left[IDENTIFIED] < 0.5
    assert found.left[KEY] > 0.5
    prior = next(one for one in OPEN if one.key == KEY)
    assert values[KEY].min() < 0.005 < 0.03 < values[KEY].max() <= prior.high
    assert len({world["seed"] for world in found.worlds.values()}) == 10


def test_the_same_scenario_draws_the_same_worlds(ensemble: Any) -> None:
    start, targets, found = ensemble
    again = draw(start, 4, (IDENTIFIED, KEY), targets=targets)
    assert list(again.worlds.values()) == list(found.worlds.values())[:4]


def test_targets_out_of_reach_are_named() -> None:
    targets = [PublishedFigure(LOGGING, "click", 5.0)]
    with pytest.raises(CalibrationError, match=r"0 of 5 worlds .* logging click"):
        draw(scenario(), 5, (KEY,), targets=targets)


def test_every_range_is_one_of_the_scenario() -> None:
    start = scenario()
    for one in ranges(start):
        for place in (-1.0, 0.0, 1.0):
            with_values(start, {one.key: one.at(place)})
    fitted = {
        knob.key for stage in stages(TARGETS) for block in stage.blocks for knob in block.knobs
    }
    unnamed = {"data.logging.params.boost", "data.logging.params.brevity"}
    assert {one.key for one in ranges(start)} == fitted - unnamed | {one.key for one in OPEN}
    assert [one.key for one in ranges(start, ("users.drift",))] == [
        "users.drift.persistence",
        KEY,
    ]
    with pytest.raises(CalibrationError, match=r"--vary users.drifft.*did you mean"):
        ranges(start, ("users.drifft",))


def test_a_range_goes_from_end_to_end() -> None:
    assert [Range("k", 1.0, 4.0, log=True).at(x) for x in (-1, 0, 1)] == [1.0, 2.0, 4.0]
    assert [Range("k", 1, 8, whole=True).at(x) for x in (-1, 0, 1)] == [1, 4, 8]


def test_the_shipped_worlds_meet_all_published_marginals() -> None:
    """Three of them, and the scenario's own; each is one of the 14 as it is run."""
    whole = Scenario.load("scenarios/drawn_worlds.yaml")
    own = whole.model_copy(update={"worlds": {}})
    for world in (own, *(whole.within(name) for name in ("w01", "w07", "w14"))):
        rows = compare(measured(world))
        assert len(rows) == sum(not one.name.startswith("life ") for one in TARGETS)
        assert not [(row.name, row.ratio) for row in rows if is_beyond(row)]


def test_learned_users_are_drawn_by_the_bayesian_bootstrap() -> None:
    whole = Scenario.load("scenarios/kuairand_worlds.yaml").model_copy(update={"worlds": {}})
    found = bootstraps(whole, 3)
    drawn_from = Scenario.model_validate({**whole.resolved(), "worlds": dict(found.worlds)})
    users: list[Any] = [drawn_from.within(name).users for name in drawn_from.drawn]
    assert [one.response.bootstrap for one in users] == [1, 2, 3]
    with pytest.raises(CalibrationError, match="drawn of choice, learned and logged users"):
        bootstraps(scenario(users={"kind": "markov"}), 3)


def test_the_command_writes_what_a_scenario_reads(
    tmp_path: Path,
) -> None:
    file, out = tmp_path / "s.yaml", tmp_path / "worlds.yaml"
    named = {"targets": {"logging": {"watch zero": 0.098}}}
    file.write_text(yaml.safe_dump({**SMALL, "calibration": named}))
    asked = ["calibrate", str(file), "--ensemble", str(out), "--number", "3", "--vary"]
    done = CliRunner().invoke(main, [*asked, "users.examination.first"])
    assert done.exit_code == 0, done.output
    assert "What the marginals leave of each parameter" in done.output or "left of" in done.output
    assert out.read_text().startswith("# 3 worlds that meet all their targets within 10%")
    assert len(load(tmp_path, worlds="worlds.yaml").drawn) == 3
    wrong = CliRunner().invoke(main, ["calibrate", str(file), "--vary", KEY])
    assert wrong.exit_code == 2


# How they are run.

WORLDS = {f"w{i}": {"seed": i, "changes": {KEY: i / 100}} for i in range(1, 15)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("drawn") / "run"
    run(scenario(worlds=WORLDS), home)
    return home


def test_a_drawn_world_is_a_run_of_its_own(finished: Path, tmp_path: Path) -> None:
    simulate(scenario(worlds=WORLDS).within("w3"), tmp_path / "alone")
    assert log_files(finished / "worlds" / "w3") == log_files(tmp_path / "alone")


def test_the_report_speaks_of_all_of_them(finished: Path) -> None:
    stored = json.loads((finished / "report.json").read_text())
    assert stored["drawn"]["names"] == sorted(WORLDS)
    rows = {row["metric"]: row for row in stored["drawn"]["rows"]}
    assert rows["click"]["n_worlds"] == len(WORLDS)
    assert rows["click"]["low"] < rows["click"]["lift"] < rows["click"]["high"]
    lifts = stored["drawn"]["lifts"][list(rows).index("click")]
    first = drawn.load(finished / "worlds" / "w1")
    click = next(row.lift for row in first.lifts if row.metric == "click")
    assert lifts[0] == click
    assert stored["drawn"]["parameters"] == {
        KEY: [WORLDS[name]["changes"][KEY] for name in sorted(WORLDS)]
    }
    text = (finished / "report.md").read_text()
    assert "## Over drawn worlds" in text
    assert "Drawn worlds" in {check["name"] for check in stored["checks"]}


def test_what_was_interrupted_goes_on_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    """Two of the worlds are there; the second has its log and not yet its lifts."""
    whole = scenario(worlds={name: WORLDS[name] for name in ("w1", "w2", "w3")})
    run(whole, tmp_path / "run")
    for name in ("w2", "w3"):
        assert log_files(finished / "worlds" / name) == log_files(
            tmp_path / "run" / "worlds" / name
        )
    before = (tmp_path / "run" / "report.json").read_bytes()
    (tmp_path / "run" / "worlds" / "w2" / drawn.FILE).unlink()
    run(whole, tmp_path / "run", resume=True)
    kept, again = (
        json.loads(text) for text in (before, (tmp_path / "run/report.json").read_bytes())
    )
    assert again["drawn"] == kept["drawn"]
