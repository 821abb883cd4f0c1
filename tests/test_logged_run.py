"""From files in KuaiRand's format to a report: the log's own sessions as the clock, in every
arm.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from policies.time import DAY
from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.fit_values import FitValues
from tests.worlds import KUAIRAND_HEAD, MIDNIGHT, kuairand_row, simulate_scenario

SCENARIO = """
name: small
seed: 3
data: {{source: kuairand, path: {path}, test_days: 2}}
users:
  kind: logged
  response: {{epochs: 2, dim: 4, hidden: 8, bins: 12}}
days: 2
serving: {{slate: 4, recall: 12}}
arms:
  popularity: {{policy: popularity}}
  random: {{policy: random}}
design: {{control: popularity}}
engine: {{executor: serial, shards: 2}}
"""


@pytest.fixture(scope="module")
def kuairand_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty users, thirty videos, six days; each comes once a day for two requests."""
    where = tmp_path_factory.mktemp("kuairand")
    generator = np.random.default_rng(6)
    lines = [KUAIRAND_HEAD]
    for user in range(60):
        for day in range(6):
            for request in range(2):
                t = MIDNIGHT + day * DAY + user * 60_000 + request * 30_000
                for video in generator.choice(30, size=2, replace=False):
                    click = int(generator.random() < 0.3 + 0.4 * (video % 2))
                    lines.append(
                        kuairand_row(
                            user,
                            int(video),
                            t,
                            click,
                            play=int(generator.exponential(20_000 if click else 1500)),
                        )
                    )
    (where / "log_standard_1_pure.csv").write_text("\n".join(lines) + "\n")
    (where / "scenario.yaml").write_text(SCENARIO.format(path=where))
    return where


def test_a_real_log_becomes_an_ab_test(kuairand_folder: Path) -> None:
    out = kuairand_folder / "run"
    done = CliRunner().invoke(
        main, ["run", str(kuairand_folder / "scenario.yaml"), "--out", str(out), "--quiet"]
    )
    assert done.exit_code == 0, done.output
    log = EventLog.open(out / "log")
    log.validate()
    rows = log.table.to_pandas()
    arms = {name: rows[(rows.arm == i) & (rows.t >= 0)] for i, name in enumerate(log.metadata.arms)}
    came = {
        name: part[["user", "t"]].drop_duplicates().sort_values(["user", "t"]).values.tolist()
        for name, part in arms.items()
    }
    assert came["popularity"] == came["random"]
    expected = [
        [user, day * DAY + user * 60_000 + request * 30_000]
        for user in range(60)
        for day in range(2)
        for request in range(2)
    ]
    assert came["random"] == expected
    assert all(
        len(arms[name]) == 2 * len(expected) for name in ("popularity", "random")
    )  # as many as the log shows
    assert 0 < arms["random"].logged.mean() < 0.5
    report = json.loads((out / "report.json").read_text())
    assert {line["metric"] for line in report["lifts"]} >= {"click", "watch_time", "comment"}


def test_more_days_than_the_log_has_end_with_one_message(kuairand_folder: Path) -> None:
    arguments = [
        "run",
        str(kuairand_folder / "scenario.yaml"),
        "--out",
        str(kuairand_folder / "long"),
        "--quiet",
    ]
    text = (kuairand_folder / "scenario.yaml").read_text()
    (kuairand_folder / "scenario.yaml").write_text(
        text.replace("days: 2\nserving", "days: 9\nserving")
    )
    try:
        done = CliRunner().invoke(main, arguments)
    finally:
        (kuairand_folder / "scenario.yaml").write_text(text)
    assert done.exit_code == 2, done.output
    assert "days: must be at most data.test_days (2); got 9" in done.output


def test_missing_data_end_with_one_message(kuairand_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SCENARIO.format(path="not/there"))
    done = CliRunner().invoke(
        main, ["run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "run"), "--quiet"]
    )
    assert done.exit_code == 2
    assert "not/there" in done.output
    assert "Looked at" in done.output


def test_what_the_data_has_after_the_ab_is_said(kuairand_folder: Path) -> None:
    """Two days are the future, the A/B takes one: 60 users with 4 impressions each come after
    it.
    """
    shorter = kuairand_folder / "shorter.yaml"
    shorter.write_text(
        (kuairand_folder / "scenario.yaml").read_text().replace("\ndays: 2", "\ndays: 1")
    )
    out = kuairand_folder / "shorter"
    done = CliRunner().invoke(main, ["run", str(shorter), "--out", str(out), "--quiet"])
    assert done.exit_code == 0, done.output
    notes = json.loads((out / "report.json").read_text())["notes"]
    assert notes["impressions of the data after the A/B (days: 1)"] == 240
    assert "impressions of the data after the A/B (days: 1): 240" in (out / "report.md").read_text()


@pytest.mark.parametrize("users", ["logged", "learned"])
def test_fits_are_judged_where_users_are_real(
    users: str, kuairand_folder: Path, tmp_path: Path
) -> None:
    """Users of a log live among random slates, too: the fits of an arm find what they click."""
    content = yaml.safe_load(SCENARIO.format(path=kuairand_folder))
    if users == "learned":
        content["users"] = {"kind": "learned", **content["users"]["response"]}
    content["arms"]["bpr"] = {"policy": "bpr", "params": {"training": {"epochs": 1}}}
    root = simulate_scenario(tmp_path, content)
    values = FitValues.load(root)
    assert values is not None
    assert values.arm == ("bpr", "", "")
    assert values.clicks.sum() > 60
    assert (values.hits.sum(axis=1) > 0).all()
