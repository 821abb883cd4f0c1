"""Marginals by hand, the comparison with targets, the exposure of a world without a desk, the fit,
and the command.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from policies.time import DAY
from simulator.calibration import search as fitting
from simulator.calibration import targets as calibration
from simulator.calibration.figure import draw
from simulator.calibration.marginals import Impressions, Marginal, catalogue, measure
from simulator.calibration.scenes import Scene
from simulator.calibration.targets import (
    CATALOGUE,
    CLICKS,
    GAP,
    LOGGING,
    RANDOM,
    TargetRow,
    compare,
    expose,
    measured,
)
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.kinds import FEEDBACK
from simulator.log.metadata import Metadata
from simulator.scenario.model import Scenario

SCENARIO = Path(__file__).resolve().parents[1] / "scenarios" / "kuaishou_like.yaml"


def small(n_users: int = 150, n_items: int = 200, days: int = 2) -> Scenario:
    return Scenario.load(
        SCENARIO, {"users.n_users": n_users, "users.n_items": n_items, "data.history_days": days}
    )


def impressions() -> Impressions:
    """Two users, three videos, two days; everything can be counted by hand."""
    log = EventLog.from_columns(
        {
            "user": [0, 0, 0, 0, 1, 1],
            "session": [0, 0, 0, 1, 0, 0],
            "request": [0, 0, 0, 0, 0, 0],
            "position": [0, 1, 2, 0, 0, 1],
            "t": [-2 * DAY, -2 * DAY, -2 * DAY, -DAY + 5 * 3_600_000, -DAY, -DAY],
            "item": [1, 2, 1, 1, 1, 2],
            "click": [1, 0, 1, 1, 0, 0],
            "watch": [10.0, 0.0, 30.0, 20.0, 2.0, 4.0],
            "duration": [20.0, 40.0, 20.0, 20.0, 20.0, 40.0],
            "like": [1, 0, 0, 0, 1, 0],
        },
        Metadata(("history",), n_users=3, n_items=5),
    )
    return Impressions.of(log)


def test_marginals_by_hand() -> None:
    found = {name: marginal.value for name, marginal in measure(impressions()).items()}
    assert found["click"] == pytest.approx(3 / 6)
    assert found["like"] == pytest.approx(2 / 6)
    assert found["like | click"] == pytest.approx(1 / 3)
    assert found["like | no click"] == pytest.approx(1 / 3)
    assert found["watch mean"] == pytest.approx(11.0)
    assert found["watch zero"] == pytest.approx(1 / 6)
    assert found["watch p50 | click"] == pytest.approx(20.0)
    assert found["watch/duration p50"] == pytest.approx(np.median([0.5, 0, 1.5, 1, 0.1, 0.1]))
    assert found["click 15-30 s"] == pytest.approx(3 / 4)
    assert math.isnan(found["click 0-15 s"])
    assert found["hour 00"] == pytest.approx(5 / 6)
    assert found["hour 05"] == pytest.approx(1 / 6)
    assert found["active user-days"] == pytest.approx(
        3 / 4
    )  # user 0 on both days, user 1 on one; user 2 never came
    assert found["impressions of a user"] == pytest.approx(6 / 2)
    assert found["activity gini"] == pytest.approx((4 - 2) * 2 / (2 * 2 * 6))
    assert found["impressions of an active day"] == pytest.approx(6 / 3)
    assert found["visits of an active day"] == pytest.approx(3 / 3)
    assert found["back the next day"] == pytest.approx(1 / 1)  # of those there on the first day
    assert math.isnan(found["back within 3 days"])  # the log has two days
    shown = np.array([0, 0, 0, 2, 4])  # of five videos, ascending
    assert found["exposure gini"] == pytest.approx(
        np.abs(shown[:, None] - shown).sum() / (2 * 5 * shown.sum())
    )
    assert found["exposure top 20%"] == pytest.approx(4 / 6)


def test_the_standard_error_is_that_of_users_sums() -> None:
    """By the users (4 impressions, 3 clicks) and (2, 0): residuals 3 - 4/2 and 0 - 2/2."""
    assert measure(impressions())["click"].se == pytest.approx(math.sqrt(1**2 + 1**2) / 6)


def test_spreads_are_free_of_binomial_noise() -> None:
    rng = np.random.default_rng(4)
    n, per = 3000, 40
    rate = np.clip(rng.normal(0.4, 0.12, n), 0, 1)
    user = np.repeat(np.arange(n), per)
    click = rng.random(n * per) < rate[user]
    seen = Impressions(
        user,
        rng.integers(1, 50, n * per),
        np.zeros(n * per, dtype=np.int64),
        click,
        click * 10.0,
        np.full(n * per, 30.0),
        {},
        n,
        50,
        1,
    )
    found = measure(seen)
    assert found["click sd of users"].value == pytest.approx(rate.std(), abs=0.005)
    assert found["click sd of videos"].value < 0.02


def test_a_quantile_has_the_error_that_its_draws_show() -> None:
    """Users differ and are the clusters; 80 draws: the mean error is the spread within 25%."""
    rng = np.random.default_rng(8)
    n, per = 300, 25
    user = np.repeat(np.arange(n), per)
    names = ("watch p10", "watch p50", "watch/duration p90")
    draws = []
    for _ in range(80):
        watch = np.exp(1.0 + 0.5 * rng.normal(size=n)[user] + rng.normal(size=n * per))
        none = np.zeros(n * per, dtype=np.int64)
        seen = Impressions(
            user, none + 1, none, watch > 5, watch, np.full(n * per, 30.0), {}, n, 1, 1
        )
        found = measure(seen)
        draws.append([found[name] for name in names])
    values, errors = np.moveaxis(np.array(draws), 2, 0)
    assert errors.mean(axis=0) == pytest.approx(values.std(axis=0, ddof=1), rel=0.25)


def test_catalogue_figures() -> None:
    found = catalogue(np.exp(np.linspace(0.0, 4.0, 101)))
    assert found["catalogue ln duration mean"].value == pytest.approx(2.0)
    assert found["catalogue duration p25"].value == pytest.approx(math.e)


def test_compare_says_what_is_within() -> None:
    rows = compare(
        {LOGGING: {"click": Marginal(0.4597 * 1.09, 0.01), "like": Marginal(0.01848 * 1.11, 0.001)}}
    )
    assert [(row.name, row.within) for row in rows] == [("click", True), ("like", False)]
    assert compare({LOGGING: {"click": Marginal(math.nan, math.nan)}})[0].within is False
    both = {LOGGING: {"click": Marginal(0.5, 0.01)}, RANDOM: {"click": Marginal(0.2, 0.01)}}
    gap = next(row for row in compare(both) if row.feed == GAP)
    assert (gap.target, gap.simulated) == (2.6, 2.5)
    assert gap.se == pytest.approx(2.5 * math.hypot(0.02, 0.05))
    assert compare({LOGGING: {"no such marginal": Marginal(1.0, 0.0)}}) == []


def test_targets_are_unique_and_measured() -> None:
    names = [target[:2] for target in calibration.TARGETS]
    assert len(set(names)) == len(names)
    found = measured(small())
    assert {feed for feed, _ in names} == {LOGGING, RANDOM, CATALOGUE, GAP}
    absent = [name for feed, name in names if name not in found[LOGGING if feed == GAP else feed]]
    assert absent == ["life best day", "life day 8 / best day"]  # of a catalogue that lives


def test_exposure_without_a_desk_is_random_where_it_says_so() -> None:
    scenario = small(400, 50)
    source = scenario.users.source(1)
    users = scenario.users.build(source, 1, 5, Path())
    durations = source.catalogue.items["duration"]
    seen = expose(users, Scene(None, 1, 50), 2, 6, durations, 128)
    counts = np.bincount(seen.item, minlength=51)[1:]
    expected = len(seen.item) / 50
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 4 * math.sqrt(2 * 49)
    assert (seen.t >= -2 * DAY).all()
    assert (seen.t < 0).all()
    assert (seen.duration == durations[seen.item]).all()


def test_the_fit_finds_what_was_moved() -> None:
    """A parameter is moved; the fit to the unmoved world's own marginals must bring it back."""
    scenario = small(300, 200, 4)
    truth = measured(scenario)
    knob = fitting.Knob("users.affinity.base", 0.1, log=False)
    names = ((LOGGING, "click"), (RANDOM, "click"))
    targets = [
        calibration.PublishedFigure(feed, name, truth[feed][name].value) for feed, name in names
    ]
    moved = fitting.with_values(
        scenario, {"users.affinity.base": scenario.users.affinity.base + 0.6}
    )
    found = fitting.fit_stage(
        moved,
        fitting.Stage("one", (fitting.KnobBlock((knob,), names),), 6),
        lambda *_: None,
        targets,
    )
    assert found.users.affinity.base == pytest.approx(scenario.users.affinity.base, abs=0.05)


def test_every_knob_is_a_parameter_of_the_scenario() -> None:
    scenario = Scenario.load(SCENARIO)
    for stage in fitting.STAGES:
        for block in stage.blocks:
            for knob in block.knobs:
                value = fitting.value_of(scenario, knob.key)
                assert fitting.value_of(
                    fitting.with_values(scenario, {knob.key: value * 0.99}), knob.key
                ) == pytest.approx(value * 0.99)
            for feed, name in block.marginals:
                assert name in calibration.known_names()[feed]


def test_only_what_has_a_target_is_fitted() -> None:
    every = {knob.key for stage in fitting.STAGES for block in stage.blocks for knob in block.knobs}
    of_visits = {"users.arrival.per_day", "users.arrival.shape", "users.patience.leave"}

    def knobs(*names: tuple[str, str]) -> set[str]:
        targets = [calibration.PublishedFigure(*name, 1.0) for name in names]
        found = fitting.stages(targets)
        assert all(m in names for stage in found for block in stage.blocks for m in block.marginals)
        return {knob.key for stage in found for block in stage.blocks for knob in block.knobs}

    assert knobs(*(target[:2] for target in calibration.TARGETS)) >= every - of_visits - {
        f"users.reactions.{kind}.unclicked" for kind in FEEDBACK
    }
    assert knobs((LOGGING, "click")) == {"users.affinity.base"}
    assert knobs((CLICKS, "exposure gini")) == {
        "data.logging.temperature",
        "data.logging.epsilon",
        "data.logging.params.boost",
    }
    assert knobs((LOGGING, "impressions of a user")) == {"users.arrival.per_day"}
    assert knobs() == set()


def test_the_picture_is_well_formed_and_marks_what_is_out() -> None:
    rows = [
        TargetRow(LOGGING, "a < b", 1.0, 1.02, 0.01, 1.02, True),
        TargetRow(RANDOM, "c", 1.0, 9.0, math.nan, 9.0, False),
    ]
    root = ET.fromstring(
        draw([*rows, TargetRow(RANDOM, "d", 1.0, math.nan, math.nan, math.nan, False)], 0.1, "w")
    )
    assert "1 of 3 marginals" in root.attrib["aria-label"]
    strips = [element for element in root.iter() if "strip" in element.get("class", "")]
    assert [strip.get("class") for strip in strips] == ["strip good", "strip bad", "strip bad"]
    marks = [sum("dot" in mark.get("class", "") for mark in strip.iter()) for strip in strips]
    assert marks == [1, 2, 0]  # within; an arrow at both ends; nothing where nothing is known
    assert "http" not in draw(rows, 0.1, "w").replace("http://www.w3.org/2000/svg", "")


def test_the_command(tmp_path: Path) -> None:
    text = SCENARIO.read_text()
    for whole, part in (
        ("n_users: 3000", "n_users: 400"),
        ("n_items: 4000", "n_items: 300"),
        ("history_days: 14", "history_days: 4"),
    ):
        assert whole in text
        text = text.replace(whole, part)
    file = tmp_path / "world.yaml"
    file.write_text(text)
    picture = tmp_path / "c.svg"
    done = CliRunner().invoke(
        main, ["calibrate", str(file), "--replications", "1", "--picture", str(picture)]
    )
    assert done.exit_code == 1, done.output  # 400 users for four days: rare kinds are far off
    assert re.search(r"^random +click ", done.output, re.MULTILINE)
    assert picture.read_text().startswith("<svg")
    loose = CliRunner().invoke(
        main, ["calibrate", str(file), "--replications", "1", "--tolerance", "1000"]
    )
    assert loose.exit_code == 0, loose.output
    real = tmp_path / "real.yaml"
    real.write_text(text.replace("source: synthetic", "source: kuairand"))
    assert CliRunner().invoke(main, ["calibrate", str(real)]).exit_code == 2


def test_kuaishou_like_meets_its_targets() -> None:
    """The shipped world, on the history that a run makes: nothing is out of tolerance by more than
    two standard errors.
    """
    rows = compare(measured(Scenario.load(SCENARIO), feeds=(LOGGING, CATALOGUE)))
    surely = [
        row
        for row in rows
        if abs(row.simulated - row.target)
        > 0.1 * row.target + 2 * (0.0 if math.isnan(row.se) else row.se)
    ]
    assert not surely


@pytest.mark.parametrize("items", [None, {"uploads": 6, "stock": 40, "trial_clicks": 1}])
def test_the_history_of_a_run_is_what_was_measured(
    tmp_path: Path, items: dict[str, float] | None
) -> None:
    """The engine and the waves of `expose` log the same impressions, although one serves by time
    and the other by turns; also where the catalogue lives.
    """
    from simulator.run.pipeline import run

    arms = {name: {"policy": "random"} for name in ("a", "b")}
    engine = {"executor": "serial", "shards": 1}
    whole = small(60, 80, 3).resolved()
    scenario = Scenario.model_validate(
        whole
        | {"days": 1, "arms": arms, "design": {"control": "a"}, "engine": engine, "items": items}
    )
    run(scenario, tmp_path / "run")
    log = EventLog.open(tmp_path / "run" / "log")
    expected = measured(scenario, feeds=(LOGGING,))[LOGGING]
    found = measure(Impressions.of(log, "history"))
    assert {k: v for k, v in found.items() if not math.isnan(v.value)} == {
        k: v for k, v in expected.items() if not math.isnan(v.value)
    }


def test_the_command_fits_and_writes_a_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knob, names = (
        fitting.Knob("users.affinity.base", 0.1, log=False),
        (
            (LOGGING, "click"),
            (RANDOM, "click"),
        ),
    )
    monkeypatch.setattr(
        fitting, "STAGES", (fitting.Stage("level", (fitting.KnobBlock((knob,), names),), 4),)
    )
    file, fitted = tmp_path / "world.yaml", tmp_path / "fitted.yaml"
    off = fitting.with_values(small(200, 150, 3), {"users.affinity.base": -6.0})
    file.write_text(off.to_yaml())
    done = CliRunner().invoke(main, ["calibrate", str(file), "--fit", str(fitted)])
    assert done.exit_code in (0, 1), done.output
    assert "fit level: cost" in done.output
    before, after = (compare(measured(Scenario.load(path))) for path in (file, fitted))
    worst = [
        max(abs(math.log(row.ratio)) for row in rows if (row.feed, row.name) in names)
        for rows in (before, after)
    ]
    assert worst[1] < 0.5 * worst[0]


def test_any_policy_may_have_written_the_history_and_a_fault_of_its_code_is_named(tmp_path) -> None:
    """A policy that needs no world is measured; a plug-in is looked up beside the scenario."""
    (tmp_path / "mine.py").write_text(
        "from policies.popularity import Popularity\n"
        "class Broken(Popularity):\n"
        "    def recall(self, histories, k, seed):\n"
        "        raise RuntimeError('no')\n"
    )
    for policy, code, words in (
        ("popularity", 1, "marginals within 10%"),
        ("mine.py:Broken", 2, "policy 'mine.py:Broken': recall raised RuntimeError: no at mine.py"),
    ):
        plain = yaml.safe_load(SCENARIO.read_text())
        plain["users"] |= {"n_users": 40, "n_items": 60}
        plain["data"] = {"source": "synthetic", "history_days": 2, "logging": {"policy": policy}}
        file = tmp_path / "s.yaml"
        file.write_text(yaml.safe_dump(plain))
        result = CliRunner().invoke(main, ["calibrate", str(file)])
        assert (result.exit_code, words in result.output) == (code, True), result.output
