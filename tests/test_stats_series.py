"""Many published tests at once: each is told as it would be alone, and what cannot be is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

from benchmarks.sequential import table
from simulator.cli.report import report as command
from simulator.report import table_files
from simulator.report.sections.over_days import RULES
from simulator.stats import series
from simulator.stats.rows import as_rows, of_arrow
from simulator.stats.unit_table import TableError
from tests.pages import ROOT

PUBLISHED = ROOT.parent / "shared" / "data" / "asos" / "asos_digital_experiments.parquet"


def frame() -> pd.DataFrame:
    return table(12, 4, 9, seed=3, share=0.5).to_pandas()


def test_a_series_is_told_as_its_experiment_alone() -> None:
    found = series.read_series(as_rows(frame()))
    stops = series.stops(found).set_index(["experiment", "metric"])
    stopped = 0
    for name in ("0", "5", "11"):
        one = series.experiment(found, name)
        for peek in one.peeks("control"):
            row = stops.loc[name, peek.metric.removeprefix("metric ")]
            last = peek.looks[-1]
            assert (row.lift, row.low, row.high) == pytest.approx((last.lift, last.low, last.high))
            assert row.p_always_valid == pytest.approx(last.p)
            assert (row.sequence_low, row.sequence_high) == pytest.approx(
                (last.sequence_low, last.sequence_high)
            )
            for rule in RULES:
                day = peek.stop(rule)
                assert (row[rule] == day) if day else np.isnan(row[rule])
                stopped += day is not None
    assert stopped >= 5


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("count_t", 3.0, "row 40: column 'count_t' (3) falls, but is of all users so far"),
        ("count_c", 1e7 + 0.5, "row 40: column 'count_c' (10,000,000.5) is no whole number"),
        ("variance_c", -1.0, "row 40: column 'variance_c' (-1) is below 0"),
        ("mean_t", np.nan, "row 40: column 'mean_t' (nan) is not there, but users are"),
    ],
)
def test_what_cannot_be_is_named_and_left_out(column: str, value: float, fault: str) -> None:
    broken, sound = frame(), series.stops(series.read_series(as_rows(frame())))
    broken[column] = broken[column].astype(float)
    broken.loc[40, column] = value
    found = series.read_series(as_rows(broken))
    stops = series.stops(found)
    row = stops.fault.str.startswith(fault)
    assert row.sum() == 1
    assert stops[row].lift.isna().all()
    assert stops[row][list(RULES)].isna().all(axis=None)
    pd.testing.assert_frame_equal(stops[~row], sound[~row])
    with pytest.raises(TableError, match="row 40"):
        series.experiment(found, stops[row].experiment.item())


def test_a_look_without_a_variance_is_no_look() -> None:
    gap = frame()
    gap.loc[40, "variance_t"] = np.nan
    stops = series.stops(series.read_series(as_rows(gap)))
    assert sorted(set(stops.looks)) == [8, 9]
    assert (stops.fault == "").all()
    without = series.stops(series.read_series(as_rows(gap.drop(index=40))))
    one = stops.looks == 8
    columns = ["lift", "p_always_valid", "always_valid"]
    pd.testing.assert_frame_equal(stops[one][columns], without[one][columns])


def test_a_look_that_is_there_twice() -> None:
    twice = pd.concat([frame(), frame().iloc[[5]]], ignore_index=True)
    with pytest.raises(TableError, match="row 432: this look of a series is there twice"):
        series.read_series(as_rows(twice))


def test_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "tests.csv"
    frame().to_csv(file, index=False)
    run = CliRunner().invoke
    done = run(command, [str(file), "--out", str(tmp_path / "all")])
    assert done.exit_code == 0, done.output
    assert "12 experiments, 48 series" in done.output
    assert len(pd.read_csv(tmp_path / "all" / "series.csv")) == 48
    done = run(command, [str(file), "--experiment", "5", "--out", str(tmp_path / "one")])
    assert done.exit_code == 0, done.output
    assert "variant 1 against control" in done.output
    for options, message in (
        (["--control", "control"], "--control: for one experiment"),
        (["--experiment", "99"], "no experiment '99' in this file; it has 0, 1,"),
        (["--experiment", "5", "--cluster", "x"], "published experiments has no cluster"),
    ):
        done = run(command, [str(file), *options, "--out", str(tmp_path / "none")])
        assert done.exit_code == 2
        assert message in " ".join(done.output.split()), done.output
        assert not (tmp_path / "none").exists()


@pytest.mark.data
def test_the_published_file_is_read_as_it_is() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED} is not there")
    found = series.read_series(table_files.read(PUBLISHED))
    stops = series.stops(found)
    assert len(stops) == 236
    assert stops.experiment.nunique() == 46
    assert (stops.fault == "").sum() == 220
    falls = stops[stops.fault.str.contains("falls")]
    assert list(falls.experiment.unique()) == ["4db6c7"]
    one = series.experiment(found, "08bcc2")
    m = one.moments("metric 1", "control", "variant 1")
    assert m is not None
    assert (m.n_control, m.n_treatment) == (1_384_352, 1_385_163)


def test_arrow_and_pandas_are_read_alike() -> None:
    arrow = series.stops(series.read_series(of_arrow(table(3, 2, 4))))
    pandas = series.stops(series.read_series(as_rows(table(3, 2, 4).to_pandas())))
    pd.testing.assert_frame_equal(arrow, pandas)


def published(**columns: object) -> pd.DataFrame:
    """Two experiments by hand: `e` with two variants and metrics, `f` with one look less."""
    rows = [
        # experiment variant metric time n_c mean_c var_c n_t mean_t var_t
        ("e", "1", "m", 2.0, 20, 1.0, 4.0, 22, 1.5, 5.0),
        ("e", "1", "m", 1.0, 10, 1.1, 3.0, 11, 1.2, 2.0),
        ("e", "1", "k", 1.0, 10, 2.1, 1.0, 11, 2.2, 1.5),
        ("e", "1", "k", 2.0, 20, 2.0, 1.2, 22, 2.4, 1.7),
        ("e", "2", "m", 1.0, 10, 1.1, 3.0, 13, 1.3, 2.5),
        ("e", "2", "m", 2.0, 20, 1.0, 4.0, 26, 0.9, 3.5),
        ("f", "1", "m", 3.0, 50, 7.0, 9.0, 60, 7.7, 8.0),
    ]
    names = (*series.KEYS, *(f"{moment}_{side}" for side in "ct" for moment in series.MOMENTS))
    return pd.DataFrame(rows, columns=list(names)).assign(**columns)


def put(row: int, column: str, value: object) -> pd.DataFrame:
    frame = published()
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


def test_series_by_hand() -> None:
    found = series.read_series(as_rows(published()))
    assert found.names == (
        ("e", "1", "m"), ("e", "1", "k"), ("e", "2", "m"), ("f", "1", "m"),
    )  # fmt: skip
    nan = float("nan")
    times = np.array([[1.0, 2], [1, 2], [1, 2], [3, nan]])
    assert np.array_equal(found.times, times, equal_nan=True)
    n = np.array([[[10, 20]] * 3 + [[50, nan]], [[11, 22], [11, 22], [13, 26], [60, nan]]])
    assert np.array_equal(found.n, n, equal_nan=True)
    m = found.moments
    assert (m.control[0, 0], m.treatment[0, 0], m.control[3, 0]) == (1.1, 1.2, 7.0)
    assert (m.var_control[0, 1], m.var_treatment[0, 1]) == (4 / 20, 5 / 22)
    assert (m.n_control[2, 1], m.n_treatment[2, 1], m.cov, m.paired) == (20, 26, 0.0, False)
    v, w = 4 / 20, 5 / 22
    assert m.df[0, 1] == pytest.approx((v + w) ** 2 / (v**2 / 19 + w**2 / 21))
    assert found.faults == ("", "", "", "")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (put(3, "time_since_start", None), "row 3: column 'time_since_start' has no value"),
        (published(time_since_start=[1.0, 2, None, None, 1, 2, 3]),
         "row 2: column 'time_since_start' has no value"),
        (put(4, "variant_id", None), "row 4: column 'variant_id' has no value"),
        (published(metric_id=["m", None, None, "k", "m", "m", "m"]),
         "row 1: column 'metric_id' has no value"),
        (put(0, "time_since_start", 1.0),
         "row 1: this look of a series is there twice; give one row for each"),
        (published(mean_c=[*"abcdefg"]), "column 'mean_c' must be numeric"),
        (published(mean_c=["1", "2", "3", "x", "5", "6", "7"]),
         "row 3: column 'mean_c' is 'x', no number, as most of the column are; such values: 1;"
         " write plain numbers, such as 1234.5"),
    ],
)  # fmt: skip
def test_what_is_no_series_is_named(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(TableError) as error:
        series.read_series(as_rows(table))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("table", "faults"),
    [
        (put(5, "count_c", -1),
         ["", "", "row 5: column 'count_c' (-1) is no whole number of users", ""]),
        (put(0, "count_t", 10),
         ["row 0: column 'count_t' (10) falls, but is of all users so far", "", "", ""]),
        (put(6, "mean_c", np.inf),
         ["", "", "", "row 6: column 'mean_c' (inf) is not there, but users are"]),
        (published(variance_t=[5.0, -2, 1.5, -1, 2.5, 3.5, 8]),
         ["row 1: column 'variance_t' (-2) is below 0",
          "row 3: column 'variance_t' (-1) is below 0", "", ""]),
        # The first of several: counts before means before variances, the control's before.
        (published(variance_c=-1.0, count_t=[22.5, 11, 11, 22, 13, 26, 60]),
         ["row 0: column 'count_t' (22.5) is no whole number of users",
          *(f"row {row}: column 'variance_c' (-1) is below 0" for row in (2, 4, 6))]),
        # Nobody yet, no variance, and as many users as at the look before are no faults.
        (published(count_t=[0, 0, 11, 11, 13, 26, 60], mean_t=[np.nan, np.nan, 2, 2, 1, 1, 7],
                   variance_c=[0.0, 0, 1, np.nan, 3, 4, 9]), [""] * 4),
    ],
)  # fmt: skip
def test_the_first_fault_of_each_series(table: pd.DataFrame, faults: list[str]) -> None:
    assert list(series.read_series(as_rows(table)).faults) == faults


def test_a_last_look_is_told_as_the_only_one() -> None:
    stops = series.stops(series.read_series(as_rows(published())))
    assert stops.looks.tolist() == [2, 2, 2, 1]
    assert stops.n_control.tolist() == [20, 20, 20, 50]
    assert stops.n_treatment.tolist() == [22, 22, 26, 60]
    assert stops.lift.tolist() == pytest.approx([0.5, 0.2, -0.1, 0.1])
    for row, (v, n, w, m, d) in enumerate(
        ((4.0, 20, 5.0, 22, 0.5), (1.2, 20, 1.7, 22, 0.4), (4.0, 20, 3.5, 26, -0.1))
    ):
        error = np.sqrt(v / n + w / m)
        df = error**4 / ((v / n) ** 2 / (n - 1) + (w / m) ** 2 / (m - 1))
        assert stops.p[row] == pytest.approx(2 * stats.t.sf(abs(d) / error, df))
    assert (stops.fault == "").all()
    gone = published(variance_t=[np.nan, 2, np.nan, np.nan, 2.5, 3.5, 8])
    stops = series.stops(series.read_series(as_rows(gone)))
    assert stops.looks.tolist() == [1, 0, 2, 1]
    assert (stops.n_control[0], stops.lift[0]) == (10, pytest.approx(1.2 / 1.1 - 1))
    assert stops.fault.tolist() == ["", "no look has a variance in both arms", "", ""]
    assert stops.iloc[1, 4:-1].isna().all()


def test_information_of_some_looks() -> None:
    variance = np.array(
        [[4.0, np.nan, 1.0], [np.nan, 2.0, 1.0], [np.nan] * 3, [3.0, np.nan, np.nan]]
    )
    found = series._information(variance)
    nan = np.nan
    expected = np.array([[0.25, nan, 1], [nan, 0.5, 1], [nan] * 3, [1, nan, nan]])
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_first_look_that_crosses() -> None:
    crossed = np.array([[False, True, True], [False] * 3, [True, False, False]])
    assert series._first(crossed).tolist() == [1, -1, 0]


def test_one_experiment_by_hand() -> None:
    found = series.read_series(as_rows(published()))
    one = series.experiment(found, "e", better={"metric m": "lower"})
    assert (one.arms, one.looks, one.variables) == (
        ("control", "variant 1", "variant 2"), ("1", "2"), ("metric m", "metric k"),
    )  # fmt: skip
    assert one.shares.tolist() == [0.5, 1.0]
    assert one.cells.n[:, :, 0].tolist() == [[10, 20], [11, 22], [13, 26]]
    assert one.cells.n[:, :, 1].tolist() == [[10, 20], [11, 22], [0, 0]]
    assert one.cells.mean[:, 1, 0].tolist() == [1.0, 1.5, 0.9]
    assert one.cells.cov[:, 1, 0, 0].tolist() == [4.0, 5.0, 3.5]
    assert np.isnan(one.cells.cov[:, :, 0, 1]).all()
    assert np.isnan(one.cells.mean[2, :, 1]).all()
    assert one.metrics["metric m"].higher_is_better is False
    (use,) = one.columns
    assert (use.column, use.role, use.note) == ("time_since_start", "look", "2 looks, from 1 to 2")
    other = series.experiment(found, "f")
    assert (other.looks, other.shares.tolist()) == (("3",), [1.0])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (put(5, "time_since_start", 4.0),
         "experiment 'e': variant 2, metric m has other looks than the first series; they cannot"
         " stand in one report"),
        (put(5, "count_c", 21),
         "experiment 'e': its variants have other users in the control; they are no arms of one"
         " test"),
        (put(5, "variance_c", -1), "row 5: column 'variance_c' (-1) is below 0"),
        (published(experiment_id=[*"ghijklm"]),
         "no experiment 'e' in this file; it has g, h, i, j, k, l, m"),
    ],
)  # fmt: skip
def test_what_is_no_test_is_named(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(TableError) as error:
        series.experiment(series.read_series(as_rows(table)), "e")
    assert str(error.value) == message


@pytest.mark.parametrize(("n", "more"), [(10, ""), (11, " and 1 more")])
def test_ten_experiments_are_named(n: int, more: str) -> None:
    many = pd.concat([published(experiment_id=f"x{i}").iloc[:1] for i in range(n)])
    found = series.read_series(as_rows(many.reset_index(drop=True)))
    with pytest.raises(TableError) as error:
        series.experiment(found, "e")
    ten = ", ".join(f"x{i}" for i in range(10))
    assert str(error.value) == f"no experiment 'e' in this file; it has {ten}{more}"
