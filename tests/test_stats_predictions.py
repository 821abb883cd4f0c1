"""Adjustment for predictions: against a regression by statsmodels, its size, its gain, and that its
bytes know no order of rows.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from click.testing import CliRunner

import abtest
from simulator.cli.report import report as command
from simulator.log.metrics import metric
from simulator.report import user_table
from simulator.stats import audit, moments, predictions, tests, units
from simulator.stats.frames import from_frame
from simulator.stats.unit_table import TableError, UnitTable, keys_of
from tests.worlds import paired_log

METRICS = {"minutes": "minutes", "ctr": ("clicks", "impressions")}


def users(n: int = 1200, effect: float = 0.0) -> pd.DataFrame:
    """Minutes that depend on age and city as no line does; some ages are missing."""
    rng = np.random.default_rng(6)
    age, city = rng.uniform(18.0, 80.0, n), rng.choice(["a", "b", "c"], n)
    arm = rng.choice(["control", "new"], n)
    minutes = 9.0 * np.exp(-np.square((age - 45.0) / 10.0)) + 3.0 * (city == "b")
    impressions = 5 + rng.poisson(5.0 + 10.0 * (city == "c"), n)
    return pd.DataFrame(
        {
            "user": [f"u{i}" for i in range(n)],
            "arm": arm,
            "minutes": minutes + rng.normal(5.0, 1.5, n) + effect * (arm == "new"),
            "clicks": rng.binomial(impressions, 0.2 + 0.4 * (np.abs(age - 45.0) < 15.0)),
            "impressions": impressions,
            "age": np.where(rng.random(n) < 0.05, np.nan, age),
            "city": city,
            "minutes_before": minutes * rng.gamma(4.0, 0.25, n),
        }
    )


PREDICTORS = ("age", "city")


def test_the_last_step_is_the_regression_with_interaction() -> None:
    rng = np.random.default_rng(2)
    n = 4000
    g, treated = rng.normal(size=n), (rng.random(n) < 0.3).astype(float)
    y = 10.0 + g * (1.0 + 0.7 * treated) + 0.2 * treated + rng.normal(size=n)
    sides = [moments.sample([y[rows], g[rows]]) for rows in (treated == 0, treated == 1)]
    m = moments.interacted_moments(sides[0], sides[1], 0, None, [1])
    design = np.column_stack((np.ones(n), treated, g - g.mean(), treated * (g - g.mean())))
    fit = sm.OLS(y, design).fit(cov_type="HC1")
    assert m.difference == pytest.approx(fit.params[1], rel=1e-10)
    # The mean of g over both arms is an estimate, too: (theta_t - theta_c)^2 var(g) / n more.
    slopes = fit.params[3] ** 2 * g.var(ddof=1) / n
    assert m.variance == pytest.approx(fit.bse[1] ** 2 + slopes, rel=0.01)
    assert slopes > 0.05 * m.variance


def test_variance_is_that_of_repeated_tests() -> None:
    """Slopes that differ between arms of other sizes, and a ratio; 1,500 tests of 120 users."""
    rng = np.random.default_rng(3)
    estimates, variances, rejected = [], [], 0
    for _ in range(1500):
        g, h = rng.normal(size=(2, 120))
        treated = np.arange(120) < 40
        d = 5.0 + h + rng.normal(size=120)
        y = 0.5 * d + (0.5 + treated) * g + rng.normal(size=120)
        columns = np.stack([y, d, g, h])
        sides = [moments.sample(list(columns[:, rows])) for rows in (~treated, treated)]
        m = moments.interacted_moments(sides[0], sides[1], 0, 1, [2, 3])
        estimates.append(m.difference)
        variances.append(m.variance)
        rejected += tests.t_test(m).p < 0.05
    assert np.mean(variances) == pytest.approx(np.var(estimates, ddof=1), rel=0.1)
    assert rejected / 1500 == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 1500))


def test_size_is_5_percent_with_models_fitted_in_each_test() -> None:
    """Means and ratios; few trees, for time. In sample, predictions would reject far more."""
    rng = np.random.default_rng(4)
    counts, n, runs = {"mean": 0, "ratio": 0}, 160, 80
    for _ in range(runs):
        x = rng.normal(size=(n, 2))
        d = rng.poisson(np.exp(1.5 + 0.3 * x[:, 1])) + 1.0
        y = d * (1.0 + (x[:, 0] > 0)) + rng.normal(size=n)
        arm, keys = rng.integers(0, 2, n), rng.integers(0, 2**63, n).astype(np.uint64)
        predicted = [
            predictions.cross_fitted(x, [False, False], v, keys, max_iter=8) for v in (y, d)
        ]
        columns = np.stack([y, d, *predicted])
        sides = [moments.sample(list(columns[:, arm == a])) for a in (0, 1)]
        for name, bottom, columns in (("mean", None, [2]), ("ratio", 1, [2, 3])):
            m = moments.interacted_moments(sides[0], sides[1], 0, bottom, columns)
            counts[name] += tests.t_test(m).p < 0.05
    for name, count in counts.items():
        assert count / runs == pytest.approx(0.05, abs=3.2 * np.sqrt(0.05 * 0.95 / runs)), name


def test_nobody_is_predicted_by_a_model_that_has_seen_them() -> None:
    rng = np.random.default_rng(5)
    keys = keys_of(f"user {i}" for i in range(500))
    folds = predictions.folds_of(keys)
    assert np.bincount(folds).min() > 70
    x, y = rng.normal(size=(500, 2)), rng.normal(size=500)
    before = predictions.cross_fitted(x, [False, False], y, keys, max_iter=5)
    other = np.where(folds == 2, y + 100.0, y)
    after = predictions.cross_fitted(x, [False, False], other, keys, max_iter=5)
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert not np.array_equal(before[folds != 2], after[folds != 2])


def test_predictions_do_not_know_the_order_of_rows() -> None:
    frame = users(600)
    shuffled = frame.sample(frac=1.0, random_state=1).reset_index(drop=True)
    found = [
        predictions.with_predictions(
            from_frame(f, metrics=METRICS, predictors=PREDICTORS)
        ).covariates["predicted minutes"]
        for f in (frame, shuffled)
    ]
    by_user = dict(zip(frame.user, found[0], strict=True))
    assert found[1].tolist() == [by_user[user] for user in shuffled.user]


def test_the_gain_is_shown_beside_cuped(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    users(effect=0.4).to_csv(file, index=False)
    options = ["--metric", "minutes", "--metric", "ctr=clicks/impressions"]
    options += [one for name in PREDICTORS for one in ("--predictor", name)]
    done = CliRunner().invoke(command, [str(file), *options, "--out", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "Adjusted for predictions from age and city (MLRATE): as precise as with so many" in said
    assert "Not used, the pre-period (CUPED): as precise" in said
    content = abtest.load_report(tmp_path / "r")
    gains = {(gain.by, gain.metric): gain for gain in content.gains}
    assert gains["predictions", "minutes"].users > 2 * gains["CUPED", "minutes"].users > 0.1
    assert gains["predictions", "ctr"].users > 0.1
    assert ("CUPED", "ctr") not in gains
    assert content.predictors == PREDICTORS
    assert "MLRATE" in (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    assert {use.column: use.role for use in content.columns}["city"] == "segment"


def test_what_cannot_be_predicted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = users(200)
    for more, message in (
        ({"predictors": ["minutes"]}, "named as a metric and as a predictor"),
        ({"predictors": ["height"]}, "no column 'height'"),
        ({"metrics": ["minutes"], "predictors": [], "frame": frame[["user", "arm", "minutes"]]},
         "no column is known of users before the test"),
        ({"predictors": ["city"], "frame": frame.head(60)}, "at least 100 users; there are 60"),
    ):  # fmt: skip
        options = {"metrics": METRICS, "control": "control", "frame": frame, **more}
        with pytest.raises(TableError, match=message):
            user_table.lifts(options.pop("frame"), **options)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(TableError, match=r"pip install 'abtest\[ml\]'"):
        user_table.lifts(frame, metrics=METRICS, control="control", predictors=PREDICTORS)


def test_the_audit_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(predictions.MODEL, "max_iter", 5)
    days = units.read(paired_log(), ("click", "click_rate"))
    found = audit.audit(
        days, "a", arms=("b",), repetitions=100, sizes=(120,), predictions=12, analyses=("MLRATE",)
    )
    rows = {row.metric: row for row in found.rows}
    assert set(rows) == {"click", "click_rate"}
    for row in rows.values():
        assert (row.analysis, row.design, row.n) == ("MLRATE t, Fieller", "split", 120)
        assert row.error.value <= 0.35


def test_numbers_stay_numbers_and_labels_are_those_of_most_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features: dict[str, Any] = {
        "age": np.array([3.0, np.nan, 1.0, 2.0, 5.0, 6.0]),
        "kids": np.array([1, 2, 3, 4, 5, 6]),
        "old": np.array([True, False, True, True, False, False]),
        "city": np.array(["b", "a", "c", "b", "d", "c"]),
    }
    matrix, categorical = predictions.design_matrix(features)
    assert categorical == [False, False, False, True]
    for place, name in enumerate(("age", "kids", "old")):
        assert matrix[:, place] == pytest.approx(features[name].astype(float), nan_ok=True)
    assert matrix[:, 3].tolist() == [1, 0, 2, 1, 3, 2]
    # Of two levels b and c are kept, in the order of their names; the others are one beyond.
    monkeypatch.setattr(predictions, "CATEGORIES", 2)
    assert predictions.design_matrix(features)[0][:, 3].tolist() == [0, 2, 1, 0, 2, 1]
    monkeypatch.setattr(predictions, "CATEGORIES", 3)  # of a and d, the first in the alphabet
    assert predictions.design_matrix(features)[0][:, 3].tolist() == [1, 0, 2, 1, 3, 2]


def test_folds_are_the_remainder_of_the_key_by_5() -> None:
    keys = np.array([0, 4, 5, 2**63 + 3], dtype=np.uint64)
    assert predictions.folds_of(keys).tolist() == [0, 4, 0, (2**63 + 3) % 5]


@pytest.mark.parametrize("weighted", [False, True])
def test_each_fold_is_predicted_by_a_model_of_the_others(weighted: bool) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(1)
    n = 60
    matrix = np.column_stack((rng.normal(size=n), rng.integers(0, 3, n)))
    target = matrix[:, 0] ** 2 + matrix[:, 1] + rng.normal(0.0, 0.1, n)
    keys = rng.integers(0, 4, n).astype(np.uint64)  # nobody is in the fold of 4
    weights = rng.integers(1, 4, n).astype(float) if weighted else None
    found = predictions.cross_fitted(
        matrix, [False, True], target, keys, weights, max_iter=3, min_samples_leaf=5
    )
    for fold in range(4):
        others = np.flatnonzero(keys != fold)
        others = others[np.lexsort((target[others], keys[others]))]
        trees = HistGradientBoostingRegressor(
            max_iter=3, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=5,
            early_stopping=False, random_state=0, categorical_features=[False, True],
        )  # fmt: skip
        own = None if weights is None else weights[others]
        trees.fit(matrix[others], target[others], sample_weight=own)
        assert found[keys == fold] == pytest.approx(trees.predict(matrix[keys == fold]))


def split_table(n: int = 100) -> UnitTable:
    """Two metrics with one numerator, one that is constant, and a ratio by a number of its own."""
    rng = np.random.default_rng(2)
    click, shown = rng.gamma(2.0, 1.0, n), rng.gamma(9.0, 1.0, n)
    names = ("click", "click_rate", "like", "watch_time")
    tops = {"click": click, "click_rate": click, "like": np.ones(n), "watch_time": shown}
    return UnitTable(
        "user", ("a", "b"), {m: metric(m) for m in names}, tops, {"click_rate": shown},
        np.arange(n) % 2, covariates={"past": click}, features={"age": rng.normal(size=n)},
        keys=keys_of(map(str, range(n))),
    )  # fmt: skip


def test_sums_that_are_the_same_are_predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    table, made, calls = split_table(), [], []

    def fitted(matrix: Any, categorical: Any, target: Any, keys: Any) -> np.ndarray:
        made.append(target)
        assert (matrix[:, 0] == table.features["age"]).all()
        assert categorical == [False]
        assert keys is table.keys
        return np.zeros(100) if len(made) == 2 and still else target + len(made)

    monkeypatch.setattr(predictions, "cross_fitted", fitted)
    still = False
    found = predictions.with_predictions(table, lambda *one: calls.append(one))
    assert [target.tolist() for target in made] == [
        table.numerators[m].tolist() for m in ("click", "watch_time")
    ]
    assert found.predicted == {
        "click": ("predicted click",),
        "click_rate": ("predicted click", "predicted watch_time"),
        "watch_time": ("predicted watch_time",),
    }
    assert list(found.covariates) == ["past", "predicted click", "predicted watch_time"]
    assert (found.covariates["predicted click"] == table.numerators["click"] + 1).all()
    assert calls == [("report: predictions", i, 5, {}) for i in range(6)]
    left = predictions.without_predictions(found)
    assert (left.predicted, list(left.covariates)) == ({}, ["past"])
    assert predictions.without_predictions(table) is table
    # Of what nothing is predicted there is no covariate.
    made.clear()
    still = True
    other = predictions.with_predictions(table)
    assert other.predicted == {"click": ("predicted click",), "click_rate": ("predicted click",
                               "predicted denominator of click_rate")}  # fmt: skip


def test_tables_without_predictors_or_users_enough_are_refused() -> None:
    table = split_table()
    twins = replace(table, assigned=None)
    for bad, message in (
        (twins, "a paired table needs none"),
        (replace(table, features={}), "no column is known of users before the test"),
        (replace(table, keys=None), "no column is known of users before the test"),
        (table.where(np.arange(99)), "a model needs at least 100 users; there are 99"),
    ):
        with pytest.raises(TableError, match=message):
            predictions.with_predictions(bad)
