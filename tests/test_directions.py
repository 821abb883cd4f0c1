"""Directions: which way a metric is good, how that is known, and that nothing calls a disaster
safe.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

from simulator import report
from simulator.cli import main
from simulator.log.metadata import Metadata
from simulator.log.metrics import MetricError, chosen, declarations, declared, direction_of, metric
from simulator.report import comparison, sentences
from simulator.report import user_table as tables
from simulator.scenario.model import Scenario, ScenarioError
from simulator.stats.frames import from_frame
from simulator.stats.margins import Margins, answer_margins
from simulator.stats.unit_table import TableError
from tests.worlds import paired_log


@pytest.fixture
def ops() -> pd.DataFrame:
    """A new arm that is slower by a fifth and crashes twice as often, and that people hate less."""
    random = np.random.default_rng(5)
    n = 3_000
    arm = np.arange(n) % 2
    return pd.DataFrame(
        {
            "user": np.arange(n),
            "arm": np.where(arm == 1, "new", "control"),
            "latency_ms": random.gamma(9.0, 20.0, n) * (1.0 + 0.2 * arm),
            "crashes": random.poisson(0.3 * (1 + arm)),
            "hate": random.poisson(2.0 - 0.8 * arm),
            "minutes": random.gamma(4.0, 5.0, n),
            "zeal": random.gamma(4.0, 5.0, n),
        }
    )


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        *(
            (name, False)
            for name in (
                "latency_ms",
                "p95Latency",
                "crashes",
                "errorRate",
                "bounce_rate",
                "hate",
                "unsubscribed",
                "refunds",
                "churn",
                "pageLoadTime",
                "cost_per_click",
                "opt_outs",
                "latencies",
            )
        ),
        *(
            (name, True)
            for name in (
                "revenue",
                "net_revenue",
                "watch_time",
                "clicks",
                "profit",
                "net_minutes",
                "money_eur",
                "conversion_rate",
            )
        ),
        *(
            (name, None)
            for name in (
                "x",
                "zeal",
                "lost_revenue",
                "crash_free_users",
                "cancelled_orders",
                "time_to_purchase",
                "return",
                "loss",
                "Größe",
                "",
            )
        ),
    ],
)
def test_names_tell_a_direction_or_nothing(name: str, higher: bool | None) -> None:
    assert direction_of(name) is higher


def test_the_direction_of_a_ratio_is_its_numerators() -> None:
    assert direction_of("cpo", "cost", "orders") is False
    assert direction_of("vpv", "revenue", "sessions") is True
    assert direction_of("revenue_quality", "refunds", "orders") is None, (
        "name and numerator disagree"
    )
    assert direction_of("effort", "sessions", "orders") is None, "how much was needed for one"
    assert direction_of("ctr", "clicks", "impressions") is True
    assert metric("hate/impressions").higher_is_better is False
    assert metric("watch_time/sessions").higher_is_better is True
    assert metric("impressions/click").higher_is_better is None


def test_a_declaration_is_above_the_name() -> None:
    found = declared({"crashes": metric("click")}, declarations({"crashes": "lower"}, None))[
        "crashes"
    ]
    assert (found.higher_is_better, found.known_by) == (False, "declared")
    assert [
        m.higher_is_better
        for m in chosen(["click", {"hate": "higher"}, {"impressions/click": "lower"}])
    ] == [True, True, False]
    for bad, rule in (
        ({"nope": "lower"}, "no metric 'nope'"),
        ({"click": "less"}, "must be 'higher' or 'lower'"),
    ):
        with pytest.raises(MetricError, match=rule):
            declared({"click": metric("click")}, declarations(bad, None))  # type: ignore[arg-type]


def test_disasters_are_never_safe(ops: pd.DataFrame) -> None:
    """Against one-sided Welch tests of new - (1 + margin) control by scipy."""
    table = from_frame(ops)
    found = {
        m.metric: m
        for m in answer_margins(
            table, "control", Margins({"latency_ms": 0.05, "crashes": 0.1, "hate": 0.05})
        )
    }
    assert {name: m.answer for name, m in found.items()} == {
        "latency_ms": "harmed",
        "crashes": "harmed",
        "hate": "safe",
    }
    for name, m in found.items():
        old, new = (ops.loc[ops["arm"] == arm, name].to_numpy(float) for arm in ("control", "new"))
        theirs = stats.ttest_ind(new, (1 + m.margin) * old, equal_var=False, alternative="less")
        assert m.p == pytest.approx(theirs.pvalue)
        assert (m.low < m.margin < m.high) == (0.05 < m.p < 0.95), "the interval is the test's own"
    few = answer_margins(from_frame(ops.iloc[:200]), "control", Margins({"hate": 0.001}))[0]
    open_answer = sentences.margin_sentence(
        replace(few, answer="not shown"), "control", higher_is_better=False
    )
    assert open_answer.startswith(
        "Hate (less is better): a rise of 0.10% under new is not excluded"
    )
    turned = answer_margins(
        from_frame(ops, better={"crashes": "higher"}), "control", Margins({"crashes": 0.1})
    )
    assert turned[0].answer == "safe"


def test_a_control_of_zeros_has_no_unbounded_interval_without_a_variance() -> None:
    """Its lift is not defined, which is no statement on how sure it is."""
    frame = pd.DataFrame(
        {"user": range(8), "arm": ["control", "new"] * 4, "crashes": [0.0, 2.0] * 4}
    )
    (row,) = answer_margins(from_frame(frame), "control", Margins({"crashes": 0.1}))
    assert row.note == ""


def test_what_is_the_same_in_both_arms_is_safe_and_equivalent_without_a_test() -> None:
    frame = pd.DataFrame({"user": range(8), "arm": ["control", "new"] * 4, "crashes": [2.0] * 8})
    planned = Margins({"crashes": 0.1}, {"crashes": 0.1})
    rows = answer_margins(from_frame(frame), "control", planned)
    assert [(row.kind, row.answer) for row in rows] == [
        ("guardrail", "safe"),
        ("equivalence", "equivalent"),
    ]
    for row in rows:
        assert (row.lift, row.low, row.high, row.note) == (0, 0, 0, "")
        assert np.isnan((row.p, row.p_adjusted)).all()


def test_a_guardrail_without_a_direction_is_refused(ops: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"is more of 'zeal' better, or less.*--better zeal=lower"):
        answer_margins(from_frame(ops), "control", Margins({"zeal": 0.05}))
    ops.to_csv(tmp_path / "t.csv", index=False)
    given = [
        "report",
        str(tmp_path / "t.csv"),
        "--out",
        str(tmp_path / "out"),
        "--guardrail",
        "zeal=30%",
    ]
    refused = CliRunner().invoke(main, given)
    assert (refused.exit_code, "--better zeal=lower (or =higher)" in refused.output) == (2, True)
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(main, [*given, "--better", "zeal=lower"]).exit_code == 0
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["margins"][0]["answer"] == "safe"
    assert stored["metrics"]["zeal"]["known_by"] == "declared"
    for bad, rule in (
        ("zeal", "written METRIC=lower"),
        ("zeal=less", "written METRIC=lower"),
        ("nope=lower", "no metric 'nope'"),
    ):
        result = CliRunner().invoke(main, [*given, "--better", bad])
        assert (result.exit_code, rule in result.output) == (2, True), result.output
    equivalence = answer_margins(from_frame(ops), "control", Margins(equivalence={"zeal": 0.3}))
    assert equivalence[0].answer == "equivalent", "neither side of an equivalence is the better one"


def test_every_rendering_says_which_way_is_better(ops: pd.DataFrame, tmp_path: Path) -> None:
    ops.to_csv(tmp_path / "t.csv", index=False)
    asked = ["--guardrail", "latency_ms=5%", "--guardrail", "minutes=5%"]
    result = CliRunner().invoke(
        main, ["report", str(tmp_path / "t.csv"), "--out", str(tmp_path), *asked]
    )
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    markdown, page = ((tmp_path / f"report.{kind}").read_text() for kind in ("md", "html"))
    content = json.loads((tmp_path / "report.json").read_text())
    assert {name: m["higher_is_better"] for name, m in content["metrics"].items()} == {
        "latency_ms": False, "crashes": False, "hate": False, "minutes": True, "zeal": None
    }  # fmt: skip
    assert [row["answer"] for row in content["margins"]] == ["harmed", "safe"]
    said = content["headlines"][0]["sentence"]
    assert said.startswith(
        "new against control: higher, which is worse, on latency ms and crashes; lower, which is"
        " better, on hate;"
    )
    known = "Less is better (known by their names): latency ms, crashes and hate."
    unknown = (
        "Not known whether more or less is better: zeal; --better zeal=lower (or =higher)"
        " declares it."
    )
    assert "▲ up: worse" in shown
    assert "▼ down: better" in shown
    for text in (shown, markdown, page):
        for sentence in (
            said,
            known,
            unknown,
            "Latency ms (less is better): WORSE under new than under control",
        ):
            assert sentence in " ".join(text.replace("&#39;", "'").split()), sentence
    assert "lower is better, known by its name" in markdown
    assert (
        "Latency ms: higher under new than under control, which is worse: +"
        in content["verdicts"][0]["sentence"]
    )


def test_a_comparison_says_which_way_is_better(ops: pd.DataFrame, tmp_path: Path) -> None:
    for i, part in enumerate((ops[ops["user"] % 3 > 0], ops[ops["user"] % 3 == 0])):
        tables.write(part, tmp_path / str(i), metrics=["crashes"])
    content = comparison.read([tmp_path / "0", tmp_path / "1"])
    assert "Less is better (known by its name): crashes." in content.notes
    comparison.save(content, tmp_path / "both")
    assert (
        "Less is better (known by its name): crashes."
        in (tmp_path / "both" / "compare.md").read_text()
    )


@pytest.mark.parametrize(
    ("verdict", "higher", "tone"),
    [("up", False, "bad"), ("down", False, "good"), ("up", None, "open")],
)
def test_tones_follow_the_direction(verdict: str, higher: bool | None, tone: str) -> None:
    assert sentences.tone(verdict, higher) == tone


def test_metrics_of_a_log_may_be_declared(tmp_path: Path) -> None:
    content = report.write(
        paired_log(200, 2), tmp_path, better={"click": "lower"}, margins=Margins({"click": 0.01})
    )
    assert content.metrics["click"].higher_is_better is False
    assert content.margins[0].answer != "safe", "clicks of the arm b are up by 5%"
    like = content.metrics["like"]
    assert (like.higher_is_better, like.known_by) == (True, "")


def test_a_scenario_declares_directions(tmp_path: Path) -> None:
    base = {
        "name": "d",
        "users": {"kind": "choice"},
        "arms": {"a": {"policy": "popularity"}, "b": {"policy": "popularity"}},
        "design": {"kind": "paired", "control": "a"},
    }

    def load(metrics: Any) -> Scenario:
        path = tmp_path / "d.yaml"
        path.write_text(json.dumps({**base, "metrics": metrics}))
        return Scenario.load(path)

    metrics = load(["click", {"impressions/click": "lower"}, "hit_rate@5"]).metrics
    assert [(m.name, m.higher_is_better) for m in chosen(metrics)] == [
        ("click", True),
        ("impressions/click", False),
        ("hit_rate@5", True),
    ]
    roles = [
        {"click": {"role": "success"}},
        {"hate": {"margin": "20 abs"}},
        {"impressions/click": {"better": "lower", "role": "deterioration"}},
    ]
    resolved = load(roles).resolved()
    assert resolved["metrics"] == roles, "what is left out stays out of the log"
    assert "decision" not in resolved
    assert [(m.role, m.margin, m.higher_is_better) for m in chosen(resolved["metrics"])] == [
        ("success", None, True),
        ("guardrail", 20.0, False),
        ("deterioration", None, False),
    ]
    meta = paired_log(20, 2).metadata
    kept = replace(meta, scenario={**meta.scenario, "metrics": roles})
    assert Metadata.from_json(kept.to_json()).scenario["metrics"] == roles
    for bad in (
        ["clik"],
        [{"click": "less"}],
        [{"nope": "lower"}],
        ["click/nope"],
        [{"click": {"role": "winner"}}],
        [{"click": {"role": "guardrail"}}],
        [{"click": {"margin": "-1%"}}],
        [{"impressions/click": {"role": "success"}}],
    ):
        with pytest.raises(ScenarioError, match="metrics"):
            load(bad)


def test_the_python_report_takes_directions(ops: pd.DataFrame, tmp_path: Path) -> None:
    content = tables.write(ops, tmp_path, margins=Margins({"zeal": 0.3}), better={"zeal": "higher"})
    assert content.margins[0].answer == "safe"
