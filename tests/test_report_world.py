"""What a lift rests on: the calibration gate, arms that were given up, offline estimates, and a
refusal where it is red.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from simulator import report
from simulator.calibration.marginals import Impressions, measure
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.report import ReportError
from simulator.report import run_checks as checks
from simulator.report import worlds as world
from simulator.report.content import Calibration, Content, HeadlineEstimate, WorldMarginal
from simulator.report.stored import encode
from simulator.stats.checks import Check
from tests.worlds import decided_content, feedback_log


def row(ratio: float, se: float = 0.0) -> WorldMarginal:
    return WorldMarginal(None, "click", 0.4, 0.4 * ratio, se, ratio, abs(ratio - 1) <= 0.1)


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([row(1.09), row(0.95)], "green"),
        ([row(1.2)], "red"),
        ([row(0.8, se=0.005)], "red"),
        ([row(1.2, se=0.05)], "amber"),
        (None, "amber"),
    ],
)
def test_the_gate_is_red_beyond_tolerance_and_sampling_error(
    rows: list[WorldMarginal] | None, status: str
) -> None:
    calibration = None if rows is None else Calibration("a history", 0.1, tuple(rows))
    assert checks.calibrated(calibration).status == status


def with_history(log: EventLog) -> EventLog:
    """The log with the first arm's impressions as its history, five days earlier, of a synthetic
    world.
    """
    table = log.table
    shifted = table.append_column("shift", pa.array(np.asarray(table["arm"]) + 1, pa.uint8()))
    arms = shifted["shift"]
    ab = table.set_column(0, table.schema.field("arm"), arms)
    past = table.filter(pa.array(np.asarray(table["arm"]) == 0))
    past = past.set_column(
        5, past.schema.field("t"), pa.array(np.asarray(past["t"]) - 5 * 86_400_000)
    )
    meta = dataclasses.replace(
        log.metadata,
        arms=("history", *log.metadata.arms),
        scenario={
            **log.metadata.scenario,
            "data": {"source": "synthetic"},
            "calibration": {"targets": "kuaishou"},
        },
    )
    return EventLog(meta, pa.concat_tables([past, ab]))


@pytest.fixture(scope="module")
def synthetic() -> EventLog:
    return with_history(feedback_log(n_users=200))


def test_calibration_is_measured_on_the_history_of_the_log(synthetic: EventLog) -> None:
    found = world.calibration(synthetic)
    assert found is not None
    expected = measure(Impressions.of(synthetic, "history"))
    assert {r.name: r.simulated for r in found.rows} == {
        r.name: pytest.approx(expected[r.name].value) for r in found.rows
    }
    assert {"click", "like", "watch p50"} <= {r.name for r in found.rows}


def test_a_world_without_targets_is_not_held_to_kuaishous(synthetic: EventLog) -> None:
    """Nothing is claimed of it: no row, no section, and a green check that says so."""
    scenario = {k: v for k, v in synthetic.metadata.scenario.items() if k != "calibration"}
    bare = EventLog(dataclasses.replace(synthetic.metadata, scenario=scenario), synthetic.table)
    found = world.calibration(bare)
    assert found == Calibration("", 0.1, ())
    check = checks.calibrated(found)
    assert check.status == "green"
    assert "names no targets" in check.value


def test_a_world_is_held_to_the_targets_of_its_scenario(synthetic: EventLog) -> None:
    """Its own click rate is met, another is missed; the error of a measured target counts."""
    expected = measure(Impressions.of(synthetic, "history"))["click"]
    clicks = measure(Impressions.of(synthetic, "history").where(clicked(synthetic)))

    def held(**targets: object) -> Calibration:
        section = {"targets": targets, "tolerance": 0.05, "basis": "a log"}
        scenario = {**synthetic.metadata.scenario, "calibration": section}
        named = dataclasses.replace(synthetic.metadata, scenario=scenario)
        found = world.calibration(EventLog(named, synthetic.table))
        assert found is not None
        return found

    met = held(
        logging={"click": expected.value},
        clicks={"exposure gini": clicks["exposure gini"].value},
        random={"click": 0.1},
    )
    assert [(row.feed, row.name, row.within) for row in met.rows] == [
        ("logging", "click", True),
        ("clicks", "exposure gini", True),
    ]
    assert "against a log" in met.basis
    far = held(logging={"click": 2 * expected.value})
    assert checks.calibrated(far).status == "red"
    unsure = held(logging={"click": {"value": 2 * expected.value, "se": expected.value}})
    assert checks.calibrated(unsure).status == "amber"
    with pytest.raises(ReportError, match=r"calibration\.targets\.logging\.clik: no such marginal"):
        held(logging={"clik": 1.0})


def clicked(log: EventLog) -> np.ndarray:
    return np.asarray(log.sequences("history").clicked)


def test_a_longer_history_is_measured_on_its_first_users(
    synthetic: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "ENOUGH", 5_000)
    whole = synthetic.table
    users = np.asarray(whole["user"])[np.asarray(whole["arm"]) == 0]
    cut = EventLog(
        synthetic.metadata,
        pa.Table.from_batches(whole.combine_chunks().to_batches(max_chunksize=3_000)),
    )
    found = world.calibration(cut)
    assert found is not None
    last = users[
        5_999
    ]  # the second batch passes 5,000; its last user may be cut in two and is left out
    assert f"{(users < last).sum():,} impressions of {last:,} users" in found.basis


def test_history_is_no_arm_and_red_stands_first(synthetic: EventLog, tmp_path: Path) -> None:
    content = report.write(synthetic, tmp_path)
    assert content.arms == ("comirec", "recgpt1", "recgpt")
    assert content.checks[0].status == "red"
    assert content.checks[0].name == "Calibration of the world"
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.index('class="gate red"') < html.index('id="verdict"')
    assert (
        "**■ Red: Calibration of the world.**"
        in (tmp_path / "report.md").read_text(encoding="utf-8").split("##")[0]
    )


def test_strict_refuses_to_print_a_lift(synthetic: EventLog, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="Calibration of the world"):
        report.write(synthetic, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()
    synthetic.write(tmp_path / "log" / "log.parquet")
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--strict"])
    assert result.exit_code == 2
    assert "95%" not in result.output
    assert not (tmp_path / "report.html").exists()


def test_a_world_may_bring_its_own_calibration(tmp_path: Path) -> None:
    log = feedback_log(n_users=60)
    calibration = Calibration("the last two days, held out", 0.05, (row(1.0),))
    notes = {"calibration": encode(calibration)}
    content = report.write(
        EventLog(dataclasses.replace(log.metadata, notes=notes), log.table),
        tmp_path,
    )
    assert content.calibration == calibration
    assert next(c for c in content.checks if c.name.startswith("Calibration")).status == "green"


def test_an_arm_without_impressions_is_left_out_and_named(tmp_path: Path) -> None:
    log = feedback_log(n_users=100)
    meta = dataclasses.replace(log.metadata, arms=(*log.metadata.arms, "broken"))
    content = report.write(EventLog(meta, log.table), tmp_path)
    assert "broken" not in content.arms
    assert encode(content.lifts) == encode(report.write(log, tmp_path / "without").lifts)
    assert any("broken" in check.value for check in content.red())


def test_offline_estimates_stand_beside_the_online_lift(tmp_path: Path) -> None:
    estimate = {"estimator": "snips", "value": 0.41, "low": 0.40, "high": 0.42}
    policy = {
        "policy": "recgpt",
        "headline": "snips",
        "verdict": "weak",
        "reasons": ["few matches"],
        "estimates": [estimate],
    }
    (tmp_path / "replay").mkdir()
    stored = [{"reward": "click", "logged": {"value": 0.39}, "policies": [policy]}]
    (tmp_path / "replay" / "replay.json").write_text(json.dumps(stored))
    content = report.write(feedback_log(n_users=100), tmp_path)
    online = next(
        r.lift for r in content.lifts if (r.metric, r.arm, r.unit) == ("click", "recgpt", "user")
    )
    assert content.offline == (
        HeadlineEstimate(
            policy="recgpt",
            verdict="weak",
            reasons=("few matches",),
            estimator="snips",
            value=0.41,
            low=0.40,
            high=0.42,
            reward="click",
            logged=0.39,
            arm="recgpt",
            online=online,
        ),
    )
    assert "few matches" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_support_of_a_fitted_world_is_that_of_the_history(
    synthetic: EventLog, tmp_path: Path
) -> None:
    given = synthetic.metadata.scenario
    scenario = {**given, "data": {"source": "kuairand"}, "users": {"kind": "logged"}}
    content = report.write(
        EventLog(dataclasses.replace(synthetic.metadata, scenario=scenario), synthetic.table),
        tmp_path,
    )
    assert [row.arm for row in content.support] == list(content.arms)
    assert content.support[0].overlap == pytest.approx(1.0), (
        "the first arm shows just what the history has"
    )
    assert content.support[1].overlap < 1.0
    assert report.write(synthetic, tmp_path).support == ()


def test_worlds_that_contradict_one_another_are_amber() -> None:
    """Two worlds by hand: recgpt is better in one and worse in the other on clicks, undecided on
    plays.
    """
    red = Check("Calibration of the world", "red", "", "")

    def content(lift: float, *checks: Check) -> Content:
        says = {"click": "up" if lift > 0 else "down", "play": "undecided"}
        return decided_content("recgpt", dict.fromkeys(says, lift), says, checks=checks)

    own, like, unlike = content(0.1), content(-0.1), content(0.2, red)
    opposite = world.agreement(world.over({"choice": own, "markov": like}), {"markov": like})
    assert opposite.status == "amber"
    assert "click of recgpt (up in choice, down in markov)" in opposite.value
    assert "play" not in opposite.value
    same = world.agreement(world.over({"choice": own, "other": own}), {"other": own})
    assert same.status == "green"
    assert "1 of 2" in same.value
    odd = world.agreement(world.over({"choice": own, "odd": unlike}), {"odd": unlike})
    assert odd.status == "amber"
    assert "Out of calibration themselves: odd" in odd.value
