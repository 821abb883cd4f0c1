"""Many published tests at once: each is told as it would be alone, and what cannot be is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

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
