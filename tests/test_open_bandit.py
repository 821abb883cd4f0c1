"""The Open Bandit reader on made files (every fault named) and on the real ones, evaluated both ways against the truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from simulator.cli.replay import replay as command
from simulator.datasets import open_bandit
from simulator.datasets.tables import DataError
from simulator.scenario import Data

HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0\n"
ROWS = [
    "0,2019-11-24 00:03:24.688993+00:00,2,2,0,0.25,a,0.0\n",
    "1,2019-11-24 10:03:56.812917+00:00,0,1,1,0.5,a,0.0\n",
    "2,2019-11-26 23:59:56.8+00:00,3,3,0,0.125,b,0.0\n",
]


def write(root: Path, random: list[str] = ROWS, bts: list[str] = ROWS, campaign: str = "women") -> Path:
    for policy, rows in (("random", random), ("bts", bts)):
        folder = root / policy / campaign
        folder.mkdir(parents=True)
        (folder / f"{campaign}.csv").write_text(HEADER + "".join(rows))
    return root


def test_both_policies_become_the_arms_of_one_log(tmp_path: Path) -> None:
    found = open_bandit.campaign(write(tmp_path))
    found.log.validate()
    table = found.log.table.to_pydict()
    assert found.name == "women"
    assert table["arm"] == [0, 0, 0, 1, 1, 1]
    assert table["item"] == [3, 1, 4, 3, 1, 4]
    assert table["position"] == [1, 0, 2, 1, 0, 2]
    assert table["click"] == [False, True, False] * 2
    assert table["propensity"] == [0.25, 0.5, 0.125] * 2
    assert table["t"][:3] == [204_000, 36_236_000, 2 * 86_400_000 + 86_396_000]
    assert (found.log.metadata.days, found.log.metadata.n_items, found.log.metadata.propensity) == (3, 4, "marginal")


def test_a_policy_is_a_scenario_source(tmp_path: Path) -> None:
    write(tmp_path)
    source = open_bandit.read(Data(source="open_bandit", test_days=1), tmp_path / "bts" / "women")
    assert source.history is not None
    assert source.future is not None
    assert (source.history.n_rows, source.future.n_rows) == (2, 1)
    assert source.notes["policy"] == "bts"
    with pytest.raises(DataError, match="test_days = 3 leaves no history"):
        open_bandit.read(Data(source="open_bandit", test_days=3), tmp_path / "bts" / "women")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("0,2019-11-24 00:03:24+00:00,2,2,0,0,a,0.0\n", "line 3: propensity_score must be a number in"),
        ("0,2019-11-24 00:03:24+00:00,2,2,0,1.5,a,0.0\n", "line 3: propensity_score must be a number in"),
        ("0,2019-11-24 00:03:24+00:00,2,4,0,.5,a,0.0\n", "line 3: position must be an integer in [1, 3]; got '4'"),
        ("0,2019-11-24 00:03:24+00:00,-1,2,0,.5,a,0.0\n", "line 3: item_id must be"),
        ("0,yesterday,2,2,0,.5,a,0.0\n", "line 3: timestamp must be YYYY-MM-DD HH:MM:SS...; got 'yesterday'"),
        ("0,2019-11-24 00:03:24+00:00,2,2,maybe,.5,a,0.0\n", "line 3: click must be an integer in [0, 1]; got 'maybe'"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: str, words: str) -> None:
    write(tmp_path, bts=[ROWS[0], row, ROWS[2]])
    with pytest.raises(DataError) as raised:
        open_bandit.campaign(tmp_path)
    assert words in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "bts" / "women" / "women.csv"))
    done = CliRunner().invoke(command, [str(tmp_path), "--quiet"])
    assert (done.exit_code, words in done.output) == (2, True)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no campaign there"):
        open_bandit.campaign(tmp_path)
    write(tmp_path)
    write(tmp_path, campaign="men")
    with pytest.raises(DataError, match=r"several campaigns there \(men, women\)"):
        open_bandit.campaign(tmp_path)
    (tmp_path / "random" / "men" / "men.csv").unlink()
    with pytest.raises(DataError, match=r"no log there: expected men.csv or men.csv.gz"):
        open_bandit.campaign(tmp_path / "bts" / "men")


@pytest.mark.data
def test_real_open_bandit_both_ways(data_root: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(data_root / "open_bandit"), "--out", str(tmp_path), "--quiet"])
    assert done.exit_code == 0, done.output
    forward, backward = json.loads((tmp_path / "replay.json").read_text())[:2]
    for one in (forward, backward):
        (policy,) = one["policies"]
        truth = policy["truth"]
        assert truth["rounds"] == one["rounds"] == 10_000
        assert truth["value"] == pytest.approx(0.0046)  # 46 clicks of 10,000, in either log
        assert 0.12 < truth["relative_error"] < 0.16
        for row in policy["estimates"]:
            if row["refused"] is None:
                assert row["covered"] is not None
                assert row["covered"] == (row["low"] <= truth["value"] <= row["high"])
    (bts,), (random,) = forward["policies"], backward["policies"]
    assert bts["diagnostics"]["weights"]["low"] < 1 < bts["diagnostics"]["weights"]["high"]
    assert bts["verdict"] == "weak"
    # a propensity of 1e-6 carries most of the weight when the uniform policy is judged from Thompson sampling: not to be believed
    assert random["verdict"] == "unusable"
    assert any("alone carries" in reason for reason in random["reasons"])
    ips = next(row for row in bts["estimates"] if row["estimator"] == "ips")
    assert abs(ips["z"]) < 3
    assert np.isclose(forward["logged"]["value"], 0.0046)
