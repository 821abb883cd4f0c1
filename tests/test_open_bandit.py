"""The Open Bandit reader on made files (every fault named) and on the real ones, evaluated both
ways against the truth.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from simulator.cli.replay import replay as command
from simulator.datasets import open_bandit
from simulator.datasets.delimited import DataError
from simulator.scenario.parts import Data

HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0\n"
ROWS = [
    "0,2019-11-24 00:03:24.688993+00:00,2,2,0,0.25,a,0.0\n",
    "1,2019-11-24 10:03:56.812917+00:00,0,1,1,0.5,a,0.0\n",
    "2,2019-11-26 23:59:56.8+00:00,3,3,0,0.125,b,0.0\n",
]


def write(
    root: Path, random: list[str] = ROWS, bts: list[str] = ROWS, campaign: str = "women"
) -> Path:
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
    assert (found.log.metadata.days, found.log.metadata.n_items, found.log.metadata.propensity) == (
        3,
        4,
        "marginal",
    )


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
        (
            "0,2019-11-24 00:03:24+00:00,2,2,0,0,a,0.0\n",
            "line 3: propensity_score must be a number in",
        ),
        (
            "0,2019-11-24 00:03:24+00:00,2,2,0,1.5,a,0.0\n",
            "line 3: propensity_score must be a number in",
        ),
        (
            "0,2019-11-24 00:03:24+00:00,2,4,0,.5,a,0.0\n",
            "line 3: position must be an integer in [1, 3]; got '4'",
        ),
        ("0,2019-11-24 00:03:24+00:00,-1,2,0,.5,a,0.0\n", "line 3: item_id must be"),
        (
            "0,yesterday,2,2,0,.5,a,0.0\n",
            "line 3: timestamp must be YYYY-MM-DD HH:MM:SS... in UTC, or with its zone",
        ),
        (
            "0,2019-11-24 00:03:24+00:00,2,2,maybe,.5,a,0.0\n",
            "line 3: click must be an integer in [0, 1]; got 'maybe'",
        ),
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


def test_repetitions_are_dropped_and_counted(tmp_path: Path) -> None:
    """The same stamp to the last digit is a repetition; another fraction of the second, item or
    click is not.
    """
    near = ROWS[1].replace("56.812917", "56.812918")
    found = open_bandit.campaign(
        write(
            tmp_path, bts=[ROWS[2], ROWS[1], ROWS[1].replace("1,", "7,", 1), near, ROWS[0], ROWS[1]]
        )
    )
    assert found.log.metadata.notes["exact duplicates dropped"] == 2
    assert found.log.table["arm"].to_pylist() == [0, 0, 0, 1, 1, 1, 1]
    assert found.log.table["item"].to_pylist()[3:] == [3, 1, 1, 4]  # in time order
    found.log.validate()


ITEMS, HOURS, COUNT = 34, [h for h in range(96) if not (24 <= h < 48 or h % 24 in (3, 4))], 40_000


class Campaign:
    """A made campaign of the source's format that is like none of the real ones: its truth is
    known.
    """

    def __init__(self) -> None:
        self.random = np.random.Generator(np.random.Philox(key=20))
        self.rate = self.random.uniform(0.01, 0.12, ITEMS)
        drift = (
            self.random.normal(0, 0.15, (96, 3, ITEMS)).cumsum(axis=0)
            + self.random.normal(0, 0.6, (3, ITEMS))
            + 12 * self.rate
        )
        self.law = np.exp(drift) / np.exp(drift).sum(axis=2, keepdims=True)
        self.value = {
            "random": float(self.rate.mean()),
            "bts": float((self.law[HOURS].mean(axis=(0, 1)) * self.rate).sum()),
        }

    def write(self, root: Path) -> Path:
        head = [
            "",
            "timestamp",
            "item_id",
            "position",
            "click",
            "propensity_score",
            *(f"user_feature_{i}" for i in range(4)),
        ]
        head += [f"user-item_affinity_{i}" for i in range(ITEMS)]
        for arm in ("random", "bts"):
            hour = self.random.permutation(np.resize(HOURS, COUNT))  # rows in no order
            place = self.random.integers(0, 3, COUNT)
            law = self.law[hour, place] if arm == "bts" else np.full((COUNT, ITEMS), 1 / ITEMS)
            item = (
                (self.random.uniform(size=(COUNT, 1)) > law.cumsum(axis=1))
                .sum(axis=1)
                .clip(max=ITEMS - 1)
            )
            click = (self.random.uniform(size=COUNT) < self.rate[item]).astype(int)
            chance, second = law[np.arange(COUNT), item], self.random.uniform(0, 3600, COUNT)
            tail = ",".join(["a", "b", "c", "d", *["0.0"] * ITEMS])
            folder = root / arm / "men"
            folder.mkdir(parents=True)
            with gzip.open(folder / "men.csv.gz", "wt", compresslevel=1) as file:
                file.write(",".join(head) + "\n")
                for i in range(COUNT):
                    minute, rest = divmod(second[i], 60)
                    stamp = (
                        f"2020-03-{2 + hour[i] // 24:02}"
                        f" {hour[i] % 24:02}:{int(minute):02}:{rest:09.6f}+00:00"
                    )
                    file.write(
                        f"{i},{stamp},{item[i]},{place[i] + 1},{click[i]},{chance[i]},{tail}\n"
                    )
        return root


def test_another_campaign_is_evaluated_both_ways(tmp_path: Path) -> None:
    """34 items, four days with one missing, hours missing, rows in no order: the values are found
    and the verdicts say so.
    """
    made = Campaign()
    done = CliRunner().invoke(
        command, [str(made.write(tmp_path / "data")), "--out", str(tmp_path / "out"), "--quiet"]
    )
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert [one["title"] for one in results] == [
        "men: bts from the log of random",
        "men: random from the log of bts",
    ]
    for one, target in zip(results, ("bts", "random"), strict=True):
        (policy,) = one["policies"]
        assert one["rounds"] == COUNT
        rows = {row["estimator"]: row for row in policy["estimates"] if not row["refused"]}
        for name in ("ips", "snips", "dr", "sndr"):
            assert abs(rows[name]["value"] - made.value[target]) < 4 * rows[name]["error"], (
                name,
                target,
            )
            assert rows[name]["verdict"] == "trustworthy", (name, rows[name]["reasons"])
        assert policy["diagnostics"]["weights"]["low"] < 1.01
        assert policy["diagnostics"]["weights"]["high"] > 0.99
        assert len(policy["diagnostics"]["days"]) == 3
        assert abs(policy["truth"]["value"] - made.value[target]) < 4 * policy["truth"]["error"]


@pytest.mark.data
def test_real_open_bandit_both_ways(data_root: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        command, [str(data_root / "open_bandit"), "--out", str(tmp_path), "--quiet"]
    )
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
    # a propensity of 1e-6 carries most of the weight when the uniform policy is judged from
    # Thompson sampling: not to be believed
    assert random["verdict"] == "unusable"
    assert any("alone carries" in reason for reason in random["reasons"])
    ips = next(row for row in bts["estimates"] if row["estimator"] == "ips")
    assert abs(ips["z"]) < 3
    assert np.isclose(forward["logged"]["value"], 0.0046)
