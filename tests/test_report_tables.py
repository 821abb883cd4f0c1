"""`abtest report` of a plain per-user table: the same verdict as scipy's, from csv, Parquet and
pandas; bad tables are named.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from click.testing import CliRunner
from scipy import stats

from simulator.cli import main
from simulator.log.metrics import Absolute
from simulator.report import ReportError, load
from simulator.report import user_table as tables
from simulator.stats.adjustment import pre_periods
from simulator.stats.frames import from_frame
from simulator.stats.margins import Margins
from simulator.stats.unit_table import TableError
from simulator.stats.verdict import ROW


@pytest.fixture(scope="module")
def users() -> pd.DataFrame:
    random = np.random.default_rng(11)
    n = 3000
    before = random.gamma(2.0, 3.0, n)
    arm = random.choice(["control", "a", "b"], n)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in range(n)],
            "arm": arm,
            "money": 0.9 * before + random.gamma(2.0, 1.0, n) + 0.4 * (arm == "b"),
            "money_before": before,
            "clicks": random.poisson(3, n),
            "impressions": 5 + random.poisson(20, n),
            "country": random.choice(["de", "jp", "fr"], n),
        }
    )


def test_lifts_agree_with_scipy_where_nothing_is_adjusted(users: pd.DataFrame) -> None:
    found = tables.lifts(users, metrics=["clicks"]).set_index("arm")
    assert list(found.reset_index().columns[: len(ROW)]) == [
        "arm",
        *(key for key in ROW if key != "arm"),
    ]
    for arm in ("a", "b"):
        expected = stats.ttest_ind(
            users.clicks[users.arm == arm], users.clicks[users.arm == "control"], equal_var=False
        )
        assert found.loc[arm, "t"] == pytest.approx(expected.statistic, rel=1e-9)
        assert found.loc[arm, "p"] == pytest.approx(expected.pvalue, rel=1e-9)
        assert found.loc[arm, "df"] == pytest.approx(expected.df, rel=1e-9)


def test_a_metric_with_a_past_is_adjusted_for_it_and_the_plain_rows_stand_beside(
    users: pd.DataFrame, tmp_path: Path
) -> None:
    content = tables.write(users, tmp_path, metrics=["money", "clicks"])
    assert content.adjusted == ("money",)
    assert content.beside is not None
    row = next(r for r in content.lifts if r.metric == "money" and r.arm == "b")
    plain = next(r for r in content.beside.rows if r.metric == "money" and r.arm == "b")
    expected = stats.ttest_ind(
        users.money[users.arm == "b"], users.money[users.arm == "control"], equal_var=False
    )
    assert plain.t == pytest.approx(expected.statistic, rel=1e-9)
    assert row.high - row.low < 0.6 * (plain.high - plain.low)
    assert row.low < 0.4 / users.money[users.arm == "control"].mean() < row.high, "the planted lift"
    kept = [key for key in ROW if "adjusted" not in key and key != "mde"]
    both = [*content.lifts, *content.beside.rows]
    clicks = [[getattr(r, key) for key in kept] for r in both if r.metric == "clicks"]
    assert clicks[:2] == clicks[2:], "a metric without a past is not changed"


def test_pandas_csv_and_parquet_say_the_same(users: pd.DataFrame, tmp_path: Path) -> None:
    users.to_csv(tmp_path / "users.csv.gz", index=False)
    users.to_csv(tmp_path / "users.tsv", index=False, sep="\t")
    users.to_parquet(tmp_path / "users.parquet")
    expected = tables.lifts(users)
    for name in ("users.csv.gz", "users.tsv", "users.parquet"):
        result = CliRunner().invoke(
            main, ["report", str(tmp_path / name), "--out", str(tmp_path / "out"), "--quiet"]
        )
        assert result.exit_code == 0, result.output
        content = json.loads((tmp_path / "out" / "report.json").read_text())
        found = pd.DataFrame(content["lifts"])
        pd.testing.assert_frame_equal(
            found[list(ROW)], expected[list(ROW)], rtol=1e-9, check_dtype=False
        )
        assert content["scenario"] == name
        assert {row["group"] for row in content["segments"]["rows"]} == {"country"}


def test_a_paired_table_is_tested_as_pairs(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    n = 400
    base = random.normal(10, 3, n)
    frame = pd.DataFrame(
        {
            "user": np.tile(np.arange(n), 2),
            "arm": np.repeat(["control", "new"], n),
            "x": np.concatenate([base, base + random.normal(0.1, 0.5, n)]),
        }
    )
    row = tables.lifts(frame.sample(frac=1, random_state=1), control="control").iloc[0]
    expected = stats.ttest_rel(frame.x[n:], frame.x[:n])
    assert row.t == pytest.approx(expected.statistic, rel=1e-9)
    assert row.n_units == n
    assert tables.write(frame, tmp_path).design == "paired"


def test_a_ratio_is_a_ratio_of_sums(users: pd.DataFrame) -> None:
    row = (
        tables.lifts(users, metrics=dict([tables.parse("ctr=clicks/impressions")]))
        .set_index("arm")
        .loc["a"]
    )
    sums = users.groupby("arm")[["clicks", "impressions"]].sum()
    ratio = sums.clicks / sums.impressions
    assert row.lift == pytest.approx(ratio["a"] / ratio["control"] - 1, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "options", "rule"),
    [
        (lambda u: u.drop(columns="arm"), {}, "no column 'arm'"),
        (lambda u: u.assign(arm="control"), {}, "at least two"),
        (lambda u: u.assign(arm=u.arm.replace("control", "c")), {}, "which arm is the control"),
        (lambda u: u, {"control": "z"}, "no arm 'z'"),
        (lambda u: u.assign(money=u.money.where(u.index != 3)), {}, "row 3: column 'money'"),
        (lambda u: u.assign(user=["u0", *u.user[:-1]]), {}, "user u0 has several rows"),
        (lambda u: u, {"metrics": ["nope"]}, "no column 'nope'"),
        (lambda u: u, {"metrics": ["country"]}, "must be numeric"),
    ],
)
def test_bad_tables_are_named(
    users: pd.DataFrame, change: Any, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises((TableError, ReportError), match=rule):
        tables.lifts(change(users), **options)


def test_a_word_among_numbers_is_named_by_file_line_and_column(
    users: pd.DataFrame, tmp_path: Path
) -> None:
    lines = users.to_csv(index=False).splitlines()
    at = list(users.columns).index("money")
    cells = lines[10].split(",")
    lines[10] = ",".join([*cells[:at], "oops", *cells[at + 1 :]])
    lines[4] += "\n"  # an empty line is no row, and shifts those below
    (tmp_path / "users.csv").write_text("\n".join(lines) + "\n")
    for arguments in ([], ["--metric", "money"]):
        result = CliRunner().invoke(
            main,
            ["report", str(tmp_path / "users.csv"), "--out", str(tmp_path / "out"), *arguments],
        )
        assert result.exit_code == 2
        assert f"{tmp_path / 'users.csv'}: line 12: column 'money' is 'oops'" in result.output
    assert not (tmp_path / "out").exists()
    asked = CliRunner().invoke(main, ["power", str(tmp_path / "users.csv")])
    assert (asked.exit_code, "line 12: column 'money' is 'oops'" in asked.output) == (2, True)


def test_a_segment_may_mix_words_and_numbers(users: pd.DataFrame) -> None:
    release = np.where(np.arange(len(users)) % 10 == 0, "beta", "12")
    with pytest.raises(
        TableError, match=r"row 0: column 'release' is 'beta'.*name 'release' as a segment"
    ):
        from_frame(users.assign(release=release))
    assert set(from_frame(users.assign(release=release), groups=["release"]).groups["release"]) == {
        "beta",
        "12",
    }
    assert set(from_frame(users.assign(release="v12", old=users.clicks % 2 == 0)).groups) == {
        "country"
    }, "one level is no segment"


def test_covariates_adjust_their_metric_or_all(users: pd.DataFrame) -> None:
    """Against ordinary least squares on the arm and both covariates, centred."""
    random = np.random.default_rng(11)
    frame = users[users.arm.isin(["control", "a"])].assign(
        age_before=random.normal(40, 10, len(users))[users.arm.isin(["control", "a"])]
    )
    frame["money"] += 0.3 * frame.age_before
    frame["minutes_before"] = frame.money + random.normal(0, 5, len(frame))
    table = from_frame(frame, metrics=["money", "clicks"])
    assert pre_periods(table) == {
        "money": ("money", "age", "minutes"),
        "clicks": ("age", "minutes"),
    }
    row = tables.lifts(frame, metrics=["money", "clicks"]).set_index("metric").loc["money"]
    design = sm.add_constant(
        frame[["money_before", "age_before", "minutes_before"]].assign(
            arm=(frame.arm == "a").astype(float)
        )
    )
    fit = sm.OLS(frame.money, design).fit(cov_type="HC2")
    assert row.t == pytest.approx(fit.tvalues["arm"], rel=0.01)
    assert row.treatment_mean - row.control_mean == pytest.approx(fit.params["arm"], rel=0.02)


def test_rows_of_a_cluster_are_not_independent(tmp_path: Path) -> None:
    """Households assigned as a whole: the verdict is least squares with clustered errors, and the
    file says what its units are.
    """
    random = np.random.default_rng(4)
    house = np.repeat(np.arange(400), random.integers(1, 5, 400))
    arm = random.choice(["control", "a"], 400)[house]
    frame = pd.DataFrame(
        {
            "house": house,
            "arm": arm,
            "minutes": 10 + random.normal(0, 2, 400)[house] + random.normal(0, 1, len(house)),
        }
    )
    frame.assign(user=range(len(frame))).to_csv(tmp_path / "h.csv", index=False)
    row = tables.lifts(frame, metrics=["minutes"], cluster="house").iloc[0]
    fit = sm.OLS(frame.minutes, sm.add_constant((frame.arm == "a").astype(float))).fit(
        cov_type="cluster", cov_kwds={"groups": house}
    )
    assert row.treatment_mean - row.control_mean == pytest.approx(fit.params["arm"])
    assert row.t == pytest.approx(fit.tvalues["arm"], rel=0.005)
    assert row.n_units == 400
    result = CliRunner().invoke(
        main,
        [
            "report",
            str(tmp_path / "h.csv"),
            "--metric",
            "minutes",
            "--cluster",
            "house",
            "--out",
            str(tmp_path),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "400 clusters" in result.output
    assert "Clusters (house): 400" in (tmp_path / "report.md").read_text().replace("\\", "")
    with pytest.raises(TableError, match="is in several arms"):
        from_frame(frame.assign(house=0), metrics=["minutes"], cluster="house")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--winsorise", "x"], "a share is written"),
        (["--winsorise", "60%"], "below 50%"),
        (["--resamples", "5"], "from 100 to 1,000,000, or 0 for none; got 5"),
        (["--resamples", "1000001"], "from 100 to 1,000,000"),
        (["--cluster", "nope"], "no column 'nope'"),
        (["--guardrail", "money=2"], "above 0 and below 100% (2% or 0.02)"),
        (["--equivalence", "money=150%"], "above 0 and below 100% (2% or 0.02)"),
        (["--guardrail", "money=1%", "--guardrail", "money=5%"], "--guardrail: 'money' is given"),
        (["--better", "money=lower", "--better", "money=higher"], "--better: 'money' is given"),
        (["--metric", "money", "--metric", "money=clicks"], "'money' and 'money=clicks': keep one"),
        (["--ratio", "a=1", "--ratio", "a=2"], "--ratio: 'a' is given twice, 'a=1' and 'a=2'"),
        (["--success", "money", "--quality", "money"], "declared success and quality"),
        (["--arm", "user", "--control", "x"], "for users and for arms"),
        (["--segment", "arm"], "'arm' is named as a segment, and is the column of arms"),
        (["--segment", "user"], "'user' is named as a segment, and is the column of users"),
        (["--metric", "user"], "'user' is named as a metric, and is the column of users"),
        (["--covariate", "user"], "'user' is named as a covariate, and is the column of users"),
        (["--predictor", "arm"], "'arm' is named as a predictor, and is the column of arms"),
    ],
)
def test_bad_choices_are_named(
    users: pd.DataFrame, tmp_path: Path, options: list[str], rule: str
) -> None:
    users.to_csv(tmp_path / "u.csv", index=False)
    result = CliRunner().invoke(
        main, ["report", str(tmp_path / "u.csv"), "--out", str(tmp_path / "out"), *options]
    )
    assert (result.exit_code, rule in result.output) == (2, True), result.output
    assert not (tmp_path / "out").exists()


def test_arms_of_one_value_each_have_no_interval_and_no_number_of_users(tmp_path: Path) -> None:
    flat = pd.DataFrame(
        {"user": range(40), "arm": ["control", "new"] * 20, "money": [3.0, 4.0] * 20}
    )
    content = tables.write(flat, tmp_path, control="control", roles={"money": "success"})
    (row,) = content.lifts
    assert row.words == "not computable"
    assert row.lift == pytest.approx(1 / 3)
    ends = (row.low, row.high, row.low_adjusted, row.high_adjusted)
    assert np.isnan([*ends, row.difference_low, row.difference_high]).all()
    assert content.decision is not None
    sentence = content.decision.arms[0].sentence
    assert "no test is possible" in sentence
    assert "any number of users" not in sentence


def test_the_ratio_that_was_meant_and_strictness(users: pd.DataFrame, tmp_path: Path) -> None:
    """A 9 : 1 split is sound where it was meant, and red where it was not; `--strict` then writes
    nothing. The command is in the report.
    """
    keep = (users.arm == "control") | ((users.arm == "a") & (users.index % 9 == 0))
    users[keep].to_csv(tmp_path / "u.csv", index=False)
    counts = users[keep].arm.value_counts()
    given = ["report", str(tmp_path / "u.csv"), "--metric", "money", "--strict"]
    refused = CliRunner().invoke(main, [*given, "--out", str(tmp_path / "no")])
    assert (refused.exit_code, "Sample ratio" in refused.output) == (2, True), refused.output
    assert not (tmp_path / "no").exists()
    meant = [f"--ratio=control={counts['control']}", f"--ratio=a={counts['a']}"]
    result = CliRunner().invoke(main, [*given, *meant, "--out", str(tmp_path / "yes")])
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "yes" / "report.json").read_text())
    assert stored["command"] == " ".join(
        [
            "abtest report",
            str(tmp_path / "u.csv"),
            "--strict --metric money",
            *(f"--ratio {m.removeprefix('--ratio=')}" for m in meant),
        ]
    )
    assert stored["command"] in (tmp_path / "yes" / "report.html").read_text()
    for bad, rule in (
        (["--ratio", "a=0"], "written ARM=9"),
        (["--ratio", "a=1"], "one positive number for each"),
    ):
        result = CliRunner().invoke(main, [*given, *bad, "--out", str(tmp_path / "no")])
        assert (result.exit_code, rule in result.output) == (2, True), result.output


def test_guardrails_and_equivalence_are_answered_in_every_rendering(
    users: pd.DataFrame, tmp_path: Path
) -> None:
    users.to_csv(tmp_path / "u.csv", index=False)
    asked = [
        "--guardrail",
        "money=20%",
        "--guardrail",
        "clicks=0.001",
        "--equivalence",
        "clicks=0.2",
    ]
    result = CliRunner().invoke(
        main, ["report", str(tmp_path / "u.csv"), "--out", str(tmp_path), *asked]
    )
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "report.json").read_text())
    rows = {(r["kind"], r["metric"], r["arm"]): r for r in stored["margins"]}
    assert {key: r["answer"] for key, r in rows.items() if key[2] == "a"} == {
        ("guardrail", "money", "a"): "safe",
        ("guardrail", "clicks", "a"): "not shown",
        ("equivalence", "clicks", "a"): "equivalent",
    }
    plain = {r["metric"]: r for r in stored["lifts"] if r["arm"] == "a"}
    money = rows["guardrail", "money", "a"]
    assert money["lift"] == plain["money"]["lift"], "adjusted as the verdict is"
    assert (
        plain["money"]["low"]
        < money["low"]
        < money["lift"]
        < money["high"]
        < plain["money"]["high"]
    )
    assert money["level"] == pytest.approx(0.9)
    for row in stored["margins"]:
        assert row["sentence"] in " ".join(result.output.split())
    assert "Guardrails and equivalence" in (tmp_path / "report.html").read_text()
    assert "## Guardrails and equivalence" in (tmp_path / "report.md").read_text()
    for bad, rule in (
        ("money", "a margin is written"),
        ("money=-1%", "a margin is written"),
        ("nope=1%", "no metric 'nope'"),
    ):
        result = CliRunner().invoke(
            main,
            ["report", str(tmp_path / "u.csv"), "--out", str(tmp_path / "no"), "--guardrail", bad],
        )
        assert (result.exit_code, rule in result.output) == (2, True)
    assert not (tmp_path / "no").exists()


def test_a_segment_shows_the_size_of_every_pair(users: pd.DataFrame, tmp_path: Path) -> None:
    """Three arms of different sizes: in each row the users of that pair of arms."""
    frame = users[(users["arm"] != "b") | (users["user"].str.endswith(("1", "2")))]
    tables.write(frame, tmp_path, metrics=["money"])
    text = (tmp_path / "report.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in text.splitlines()]
    counts = frame.groupby(["country", "arm"]).size()
    for country in frame["country"].unique():
        for arm in ("a", "b"):
            users_of = f"{counts[country, 'control'] + counts[country, arm]:,}"
            found = [row for row in rows if row[1:] == [arm, f"country: {country}", users_of]]
            assert len(found) == 1


def test_an_unbounded_interval_is_said_in_words(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "user": range(400),
            "arm": np.repeat(["control", "a"], 200),
            "x": random.normal(0.02, 1.0, 400),
        }
    )
    content = tables.write(frame, tmp_path)
    assert (content.lifts[0].low, content.lifts[0].high) == (-math.inf, math.inf)
    assert (
        "The control's mean is not distinguishable from 0 at 95%, so no bounded interval"
        in content.verdicts[0].sentence
    )


@pytest.mark.parametrize(
    ("spec", "parsed"), [("a", ("a", "a")), ("a=b", ("a", "b")), ("a=b/c", ("a", ("b", "c")))]
)
def test_metrics_of_the_command_line(spec: str, parsed: Any) -> None:
    assert tables.parse(spec) == parsed


def test_bad_files_end_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "head.csv").write_text("user,arm,x\n")
    (tmp_path / "latin.csv").write_bytes("user,arm,café\n1,a,2\n2,b,3\n".encode("latin-1"))
    (tmp_path / "longer.csv").write_text("user,arm,x\n1,a,2,7\n2,b,3,5\n")
    (tmp_path / "twice.csv").write_text("user,arm,x,x\n1,a,2,7\n2,b,3,5\n")
    (tmp_path / "semi.csv").write_text("user;arm;x\n1;a;2\n2;b;3\n")
    for name, arguments, rule in (
        ("x.json", [], "a per-user table is a file of"),
        ("empty.csv", [], "cannot be read as a table"),
        ("empty.csv", ["--metric", "a="], "cannot be read"),
        ("head.csv", [], "head.csv: has a head and no rows"),
        ("latin.csv", [], "is not UTF-8 text"),
        ("longer.csv", [], "a row has more values than line 1 has names"),
        ("twice.csv", [], "line 1: two columns are called 'x'"),
        ("semi.csv", [], "values must be separated by commas"),
    ):
        result = CliRunner().invoke(
            main, ["report", str(tmp_path / name), "--out", str(tmp_path / "out"), *arguments]
        )
        assert result.exit_code == 2
        assert rule in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("shift", "answer", "code"), [(2.0, "ship", 0), (0.0, "hold", 3), (-2.0, "drop", 4)]
)
def test_the_decision_is_first_and_is_the_exit_code_of_the_gate(
    shift: float, answer: str, code: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(4)
    arm = np.arange(800) % 2
    frame = pd.DataFrame({"user": range(800), "arm": np.where(arm == 1, "new", "control")})
    noise = random.normal(20.0, 4.0, 800)
    noise -= np.where(arm == 1, noise[arm == 1].mean(), noise[arm == 0].mean()) - 20.0
    frame["minutes"] = noise + shift * arm
    frame["latency"] = random.normal(100.0, 5.0, 800)
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = ["--success", "minutes", "--guardrail", "latency=5abs", "--gate"]
    out = tmp_path / "out"
    result = CliRunner().invoke(
        main, ["report", str(tmp_path / "t.csv"), "--out", str(out), *asked]
    )
    assert result.exit_code == code, result.output
    stored = json.loads((out / "report.json").read_text())
    assert stored["decision"]["answer"] == stored["decision"]["arms"][0]["answer"] == answer
    lead = f"{answer.capitalize()} new."
    assert lead in result.output.splitlines()[0]
    text = (out / "report.md").read_text()
    assert text.index(lead) < text.index("## Verdict")
    assert lead in (out / "report.html").read_text()
    decision = tables.decide(
        frame,
        roles={"minutes": "success"},
        margins=Margins(guardrails={"latency": Absolute(5.0)}),
    )
    assert decision is not None
    assert decision.arms[0].sentence == stored["decision"]["arms"][0]["sentence"]
    again = load(out)
    assert again.decision == decision


def test_a_gate_without_a_success_is_refused(tmp_path: Path, users: pd.DataFrame) -> None:
    users.to_csv(tmp_path / "t.csv", index=False)
    result = CliRunner().invoke(
        main, ["report", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out"), "--gate"]
    )
    assert result.exit_code == 2
    assert "no metric is declared a success" in result.output
