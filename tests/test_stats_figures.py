"""What is no mean (quantiles of clustered events, quantities of choice), and what is declared of
metrics: covariates, winsorising, quantiles; missing covariates; looks of a table by user and day.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

import abtest
from simulator.cli import main
from simulator.log.metrics import Declared, MetricError, metric
from simulator.report.errors import ReportError
from simulator.report.metric_file import read_metrics
from simulator.stats import sequential, verdict
from simulator.stats.adjustment import MISSING, pre_periods
from simulator.stats.contrasts import compare
from simulator.stats.frames import from_frame, looks_from_frame
from simulator.stats.quantities import Quantity, jackknife
from simulator.stats.segments import segments
from simulator.stats.unit_table import TableError


def events(random: np.random.Generator, users: int = 300) -> pd.DataFrame:
    """Page loads of users who differ from one another: rows of a user are alike."""
    own = random.gamma(4.0, 30.0, users)
    loads = random.poisson(8, users) + 1
    user = np.repeat(np.arange(users), loads)
    return pd.DataFrame(
        {
            "user": user,
            "arm": np.where(user % 2 == 0, "old", "new"),
            "latency": own[user] * random.gamma(5.0, 0.2, len(user)),
        }
    )


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_a_quantile_of_clustered_events_errs_as_often_as_it_says(level: float) -> None:
    """No difference: 5% with clusters; taken for independent, the same events err often."""
    random, n, wrong, naive = np.random.default_rng(1), 25, 0, 0
    entries = {"latency": Declared(better="lower", quantile=level)}
    for _ in range(n):
        frame = events(random)
        together = from_frame(frame, metrics=["latency"], cluster="user", entries=entries)
        row = verdict.lifts(together, "old")[0]
        wrong += row.p < 0.05
        frame["user"] = np.arange(len(frame))
        naive += verdict.lifts(from_frame(frame, metrics=["latency"], entries=entries), "old")[0].p < 0.05  # noqa: E501 # fmt: skip
    assert wrong / n == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / n))
    assert naive > 2 * wrong + 1


def test_a_quantile_with_as_many_clusters_as_rows_is_that_of_users() -> None:
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "user": np.arange(2000),
            "arm": random.choice(["a", "b"], 2000),
            "m": random.gamma(2.0, 3.0, 2000),
        }
    )
    entries = {"m": Declared(quantile=0.9)}
    one = verdict.lifts(from_frame(frame, entries=entries), "a")[0]
    same = verdict.lifts(from_frame(frame, cluster="user", entries=entries), "a")[0]
    assert same.lift == pytest.approx(one.lift, abs=1e-12)
    assert same.se == pytest.approx(one.se, rel=1e-3)
    assert one.control_mean == pytest.approx(
        np.quantile(frame["m"][frame["arm"] == "a"], 0.9, method="hazen"), rel=1e-3
    )


def test_a_quantile_that_cannot_be_told_says_why() -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"user": np.arange(400), "arm": ["a", "b"] * 200,
                          "m": random.poisson(2.0, 400)})  # fmt: skip
    for level, why in ((0.5, "too many values"), (0.99, "fewer than 50 units")):
        table = from_frame(frame, entries={"m": Declared(quantile=level)})
        row = verdict.lifts(table, "a")[0]
        assert row.words == "not computable"
        assert why in row.note


def test_clustered_rows_of_a_segment_stay_with_their_units() -> None:
    random = np.random.default_rng(4)
    frame = events(random, 900)
    frame["country"] = np.where(frame["user"] % 3 == 0, "de", "jp")
    entries = {"latency": Declared(quantile=0.5)}
    table = from_frame(frame, metrics=["latency"], cluster="user", entries=entries)
    part = table.where(table.groups["country"] == "de")
    alone = from_frame(
        frame[frame["country"] == "de"], metrics=["latency"], cluster="user", entries=entries
    )
    one, other = (compare(t, "latency", "old", "new") for t in (part, alone))
    assert one.lift == pytest.approx(other.lift, abs=1e-12)
    assert one.var_control == pytest.approx(other.var_control)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(5).gamma(2.0, 1.0, 150)
    found = jackknife(np.mean, [values])
    assert found.value == pytest.approx(values.mean())
    assert found.variance == pytest.approx(values.var(ddof=1) / 150)
    assert found.df == 149


def deviation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(np.mean((x - y) ** 2)))


@pytest.mark.parametrize("n", [80, 900])
def test_a_quantity_of_choice_covers_and_errs_as_it_says(n: int) -> None:
    random, runs, wrong = np.random.default_rng(6), 60, 0
    for _ in range(runs):
        frame = pd.DataFrame(
            {
                "user": np.arange(n),
                "arm": random.choice(["a", "b"], n),
                "x": random.normal(0.0, 1.0, n),
                "y": random.normal(0.0, 1.0, n),
            }
        )
        table = from_frame(frame, metrics={"error": Quantity(deviation, "x", "y")})
        wrong += verdict.lifts(table, "a")[0].p < 0.05
    assert wrong / runs == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / runs))


def test_a_quantity_of_twins_uses_their_covariance() -> None:
    random = np.random.default_rng(7)
    base = random.gamma(2.0, 3.0, 300)
    frame = pd.DataFrame(
        {
            "user": np.tile(np.arange(300), 2),
            "arm": np.repeat(["a", "b"], 300),
            "m": np.concatenate((base, base + random.normal(0.0, 0.1, 300))),
        }
    )
    mean, figure = (
        abtest.lifts(frame, control="a", metrics=metrics)
        for metrics in (["m"], {"m": abtest.Quantity(np.mean, "m")})
    )
    for key in ("lift", "se", "df"):
        assert figure[key][0] == pytest.approx(mean[key][0], rel=0.35 if key != "lift" else 1e-9)
    assert figure["se"][0] < 0.2 * base.std() / np.sqrt(300)


def test_a_quantity_that_is_no_number_is_refused_by_name() -> None:
    frame = pd.DataFrame({"user": np.arange(40), "arm": ["a", "b"] * 20, "m": 1.0 * np.arange(40)})
    for of, why in ((lambda x: x, "must return one number"), (lambda x: np.nan, "finite")):
        with pytest.raises(TableError, match=why):
            abtest.lifts(frame, control="a", metrics={"q": Quantity(of, "m")})


def past_and_ratio(random: np.random.Generator, n: int) -> pd.DataFrame:
    clicks, shown = random.poisson(6, n), 20 + random.poisson(20, n)
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "arm": random.choice(["a", "b"], n),
            "clicks": clicks + random.poisson(2, n),
            "shown": shown + random.poisson(5, n),
            "clicks_before": clicks.astype(float),
            "shown_before": shown.astype(float),
            "country": random.choice(["de", "jp"], n),
        }
    )


def test_a_ratio_is_adjusted_for_the_past_of_both_halves() -> None:
    """Size 5% and a shorter interval, in the whole and within segments."""
    random, n, wrong, shorter = np.random.default_rng(8), 80, 0, []
    for _ in range(n):
        table = from_frame(past_and_ratio(random, 300), metrics={"ctr": ("clicks", "shown")})
        past = pre_periods(table)
        assert past == {"ctr": ("clicks", "shown")}
        adjusted = verdict.lifts(table, "a", covariates=past)[0]
        wrong += adjusted.p < 0.05
        shorter.append(adjusted.se / verdict.lifts(table, "a")[0].se)
    assert wrong / n == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / n))
    assert np.mean(shorter) < 0.75
    plain, with_past = (segments(table, "a", covariates=one)[0] for one in (None, past))
    assert all(a.row.se < b.row.se for a, b in zip(with_past, plain, strict=True))


def test_missing_covariates_are_filled_and_cost_no_unit() -> None:
    """Values missing where the outcome is high: size 5%, and most of the gain is kept."""
    random, n, wrong, shorter = np.random.default_rng(9), 80, 0, []
    for _ in range(n):
        before = random.gamma(2.0, 3.0, 200)
        m = before + random.normal(0.0, 1.0, 200)
        frame = pd.DataFrame({"user": np.arange(200), "arm": random.choice(["a", "b"], 200), "m": m,
                              "m_before": np.where(before > 10.0, np.nan, before)})  # fmt: skip
        table = from_frame(frame)
        past = pre_periods(table)
        assert past == {"m": ("m", "m" + MISSING)}
        adjusted = verdict.lifts(table, "a", covariates=past)[0]
        assert adjusted.n_units == 200
        wrong += adjusted.p < 0.05
        shorter.append(adjusted.se / verdict.lifts(table, "a")[0].se)
    assert wrong / n == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / n))
    assert np.mean(shorter) < 0.8
    (use,) = [use for use in table.columns if use.column == "m_before"]
    assert "missing" in use.note


def test_a_metric_is_adjusted_for_what_is_declared_of_it_and_others_are_not() -> None:
    random = np.random.default_rng(10)
    frame = past_and_ratio(random, 300).rename(columns={"clicks_before": "old_clicks"})
    entries = {"clicks": Declared(covariates=("old_clicks",)), "shown": Declared(covariates=())}
    table = from_frame(frame, metrics=["clicks", "shown"], entries=entries)
    assert pre_periods(table) == {"clicks": ("old_clicks",)}
    with pytest.raises(TableError, match="no column 'nothing'"):
        from_frame(frame, entries={"clicks": Declared(covariates=("nothing",))})


def test_a_winsorised_metric_is_cut_once_for_all_arms() -> None:
    random = np.random.default_rng(11)
    frame = pd.DataFrame({"user": np.arange(1000), "arm": ["a", "b"] * 500,
                          "m": random.gamma(2.0, 3.0, 1000)})  # fmt: skip
    table = from_frame(frame, entries={"m": Declared(winsorise=0.01)})
    bound = np.sort(frame["m"])[-11]
    assert table.numerators["m"] == pytest.approx(np.minimum(frame["m"], bound))
    for entry in (Declared(winsorise=0.01), Declared(quantile=0.9)):
        with pytest.raises(MetricError, match="ratio of sums"):
            from_frame(frame.assign(d=1.0), metrics={"r": ("m", "d")}, entries={"r": entry})
    with pytest.raises(MetricError, match="neither winsorised"):
        from_frame(frame, entries={"m": Declared(quantile=0.9, winsorise=0.01)})


METRICS = """\
metrics:
  - minutes: {role: success, winsorise: 0.1%, covariate: none}
  - ctr: {of: clicks/shown, role: guardrail, margin: 2%}
  - slow: {of: latency, quantile: 90%, better: lower}
  - errors: lower
  - visits
"""


def test_a_file_of_metrics_says_all_that_a_scenario_does(tmp_path: Path) -> None:
    file = tmp_path / "metrics.yaml"
    file.write_text(METRICS)
    columns, entries = read_metrics(file)
    assert columns == {
        "minutes": "minutes",
        "ctr": ("clicks", "shown"),
        "slow": "latency",
        "errors": "errors",
        "visits": "visits",
    }
    assert entries == {
        "minutes": Declared(role="success", winsorise=0.001, covariates=()),
        "ctr": Declared(role="guardrail", margin=0.02),
        "slow": Declared(better="lower", quantile=0.9),
        "errors": Declared(better="lower"),
    }


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("metrics: [{m: {quantile: 100%}}]", "metrics.yaml:1: metrics.0"),
        ("metrics:\n  - m: {quantil: 0.9}", "metrics.yaml:2: metrics.0"),
        ("metrics:\n  - m\n  - m: lower", "metrics.yaml:3: metrics.1: m is there twice"),
        ("metrics: [{m: {of: a/b/c}}]", "NUMERATOR/DENOMINATOR"),
        ("metric: [m]", "metrics"),
    ],
)
def test_a_bad_file_of_metrics_is_named_with_its_line(
    tmp_path: Path, text: str, where: str
) -> None:
    file = tmp_path / "metrics.yaml"
    file.write_text(text)
    with pytest.raises(ReportError) as error:
        read_metrics(file)
    assert where in str(error.value)


def days(random: np.random.Generator, users: int = 300, share: float = 0.5) -> pd.DataFrame:
    parts = []
    arm = np.where(random.random(users) < share, "new", "old")
    for day in range(4):
        who = np.flatnonzero(random.random(users) < 0.6)
        parts.append(
            pd.DataFrame(
                {
                    "user": who,
                    "arm": arm[who],
                    "day": f"2026-03-{day + 9:02d}",
                    "minutes": random.gamma(2.0, 3.0, len(who)),
                }
            )
        )
    return pd.concat(parts).sample(frac=1.0, random_state=1)


def test_looks_of_a_table_by_day_are_the_sums_so_far() -> None:
    frame = days(np.random.default_rng(12))
    looks, new = looks_from_frame(frame, "day", metrics=["minutes"])
    assert len(looks) == 4
    assert new.sum() == looks[-1].n_units == frame["user"].nunique()
    for number, table in enumerate(looks):
        seen = frame[frame["day"] <= f"2026-03-{number + 9:02d}"]
        assert table.numerators["minutes"].sum() == pytest.approx(seen["minutes"].sum())
    (peeks,) = sequential.peeks_at(looks, "old")
    whole = frame.groupby(["user", "arm"], as_index=False)["minutes"].sum()
    row = abtest.lifts(whole, control="old")
    assert peeks.looks[-1].t == pytest.approx(row["t"][0])


def test_a_rule_looks_at_a_table_by_day_without_erring_more_often() -> None:
    random, n, stopped, last = np.random.default_rng(13), 25, 0, 0
    for _ in range(n):
        looks, _ = looks_from_frame(days(random, 120), "day", metrics=["minutes"])
        (peeks,) = sequential.peeks_at(looks, "old")
        stopped += peeks.stop("pocock") is not None
        last += any(abs(look.t) > 1.98 for look in peeks.looks)
    assert stopped / n < 0.05 + 3 * np.sqrt(0.05 * 0.95 / n)
    assert last > stopped


def test_the_command_reads_days_with_the_ratio_that_was_meant(tmp_path: Path) -> None:
    days(np.random.default_rng(14), 600, 0.2).to_csv(tmp_path / "d.csv", index=False)
    asked = ["--control", "old", "--day", "day", "--ratio", "old=4", "--ratio", "new=1"]
    arguments = ["report", str(tmp_path / "d.csv"), *asked, "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    content = abtest.load_report(tmp_path / "out")
    assert len(content.sequential[0].looks) == 4
    by_name = {check.name: check for check in content.checks}
    assert by_name["Sample ratio by day"].status == "green"
    equal = CliRunner().invoke(main, [*arguments[:4], "--day", "day", *arguments[-2:]])
    assert equal.exit_code == 0
    by_name = {check.name: check for check in abtest.load_report(tmp_path / "out").checks}
    assert by_name["Sample ratio by day"].status == "red"


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (pd.DataFrame({"user": [1, 1], "arm": ["a", "b"], "day": [0, 1], "m": [1.0, 2.0]}),
         "in several arms"),
        (pd.DataFrame({"user": [1, 2], "arm": ["a", "b"], "day": ["mon", "tue"], "m": [1.0, 2.0]}),
         "days are numbers"),
    ],
)  # fmt: skip
def test_bad_tables_by_day_are_refused(frame: pd.DataFrame, why: str) -> None:
    with pytest.raises(TableError, match=why):
        looks_from_frame(frame, "day")


def test_shipped_metrics_have_the_directions_that_their_names_say() -> None:
    lower = {"hate"}
    for name in ("click", "watch_time", "return", "sessions", "hate", "impressions", "click_rate"):
        assert metric(name).higher_is_better == (name not in lower)


def test_the_gini_coefficient_of_the_docs_is_scipys_relation() -> None:
    """Half the mean absolute difference over the mean, by both formulas."""
    x = np.random.default_rng(15).gamma(2.0, 1.0, 60)
    pairs = np.abs(x[:, None] - x).mean() / 2 / x.mean()
    ranks = stats.rankdata(x)
    assert 2 * np.cov(x, ranks, bias=True)[0, 1] / (60 * x.mean()) == pytest.approx(pairs)
