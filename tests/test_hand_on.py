"""What leaves a report for other tools: rows as CSV, a record for experiment trackers, HTML for
notebooks, completion for shells.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import abtest
from simulator.cli import main
from simulator.report import csv_files, load, tracking
from simulator.report.content import Content

ROOT = Path(__file__).resolve().parents[1]


def a_table() -> pd.DataFrame:
    random = np.random.default_rng(4)
    n = 900
    frame = pd.DataFrame({"user": range(n), "arm": ["control", "new", "a/b: 50%"] * (n // 3)})
    frame["watch_time"] = random.gamma(2.0, 30.0, n) * np.where(frame["arm"] == "new", 1.3, 1.0)
    frame["refunds"] = random.poisson(0.2, n)
    frame["country"] = random.choice(["de", "jp"], n)
    return frame


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    a_table().to_csv(folder / "users.csv", index=False)
    asked = ["--success", "watch_time", "--guardrail", "refunds=50%", "--quiet", "--csv"]
    done = CliRunner().invoke(main, ["report", str(folder / "users.csv"), *asked])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == str(folder / "report" / "csv")
    return folder / "report"


@pytest.fixture(scope="module")
def content(home: Path) -> Content:
    return load(home)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_list_of_the_report_is_a_file_with_all_digits(home: Path, content: Content) -> None:
    stored = json.loads((home / "report.json").read_text())
    lists = {key for key, value in stored.items() if value and isinstance(value, list)}
    names = {file.name.partition(".")[0] for file in (home / "csv").glob("*.csv")}
    assert lists - {"arms", "adjusted", "verdicts"} <= names
    found = read(home / "csv" / "lifts.csv")
    assert [float(row["lift"]) for row in found] == [row.lift for row in content.lifts]
    assert [row["verdict"] for row in found] == [one.verdict for one in content.verdicts]
    segments = read(home / "csv" / "segments.rows.csv")
    assert {row["level"] for row in segments} == {"de", "jp"}
    reasons = read(home / "csv" / "decision.arms.reasons.csv")
    assert {row["arm"] for row in reasons} == {"new", "a/b: 50%"}, "rows within rows say of whom"
    pandas = pd.read_csv(home / "csv" / "margins.csv")
    assert list(pandas["arm"]) == [row.arm for row in content.margins]


def test_a_table_that_is_no_longer_there_is_emptied(content: Content, tmp_path: Path) -> None:
    csv_files.write(content, tmp_path)
    (tmp_path / "csv" / "mine.csv").write_text("kept")
    csv_files.write(dataclasses.replace(content, margins=()), tmp_path)
    assert (tmp_path / "csv" / "margins.csv").read_text() == ""
    assert (tmp_path / "csv" / "mine.csv").read_text() == "kept"


def test_a_record_has_the_verdict_the_decision_and_the_files(home: Path, content: Content) -> None:
    found = tracking.record(content, home)
    values = {(one.name, one.step): one.value for one in found.figures}
    lift = next(row for row in content.lifts if (row.arm, row.metric) == ("new", "watch_time"))
    assert values["new/watch_time/lift", 0] == lift.lift
    assert values["new/decision", 0] == 1.0
    assert values["a_b_ 50_/decision", 0] == 0.0, "a name is one piece of the path"
    assert all(np.isfinite(list(values.values())))
    assert found.params["decision"] == "ship"
    assert "Ship new" in " ".join(found.sentences)
    assert [file.name for file in found.files] == list(tracking.FILES)


def test_names_that_become_alike_stay_apart() -> None:
    assert tracking._names(["a/b", "a:b", "a_b_2"]) == {
        "a/b": "a_b",
        "a:b": "a_b_2",
        "a_b_2": "a_b_2_2",
    }


def test_a_function_is_a_tracker(home: Path, content: Content, tmp_path: Path) -> None:
    given: list[tracking.Record] = []
    abtest.track(content, home, given.append)
    assert given == [tracking.record(content, home)]
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "def log(record): Path(__file__).with_suffix('.txt').write_text(record.name)\n"
        "def fails(record): raise OSError('no route to host')\n"
        "number = 3\n"
    )
    again = ["report", str(home.parent / "users.csv"), "--out", str(tmp_path / "out"), "--quiet"]
    done = CliRunner().invoke(main, [*again, "--track", f"{tmp_path / 'mine.py'}:log"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mine.txt").read_text() == "users.csv"
    done = CliRunner().invoke(main, [*again, "--track", f"{tmp_path / 'mine.py'}:fails"])
    assert done.exit_code == 2
    assert "tracker fails: OSError: no route to host. The report is written" in done.output
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mlfow", "--track mlfow: must be mlflow, module:function or file.py:function"),
        ("no_such_module:log", "cannot be imported: ModuleNotFoundError"),
        ("json:no_such", "cannot be imported: AttributeError"),
        ("math:pi", "must be a function of one record; got 3.14"),
        ("/no/such/file.py:log", "cannot be imported: FileNotFoundError"),
    ],
)
def test_a_wrong_tracker_is_named_before_anything_is_computed(
    home: Path, tmp_path: Path, name: str, message: str
) -> None:
    asked = ["report", str(home.parent / "users.csv"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*asked, "--track", name])
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(
        main, ["run", "kuaishou_like", "--out", str(tmp_path / "out"), "--track", name]
    )
    assert (done.exit_code, message in done.output) == (2, True)
    assert not (tmp_path / "out").exists()


def mlflow_path() -> list[str]:
    """What must be added to find MLflow: nothing, or the environment of `make peers`."""
    if importlib.util.find_spec("mlflow") is not None:
        return []
    return [str(path) for path in ROOT.glob(".venv-mlflow/lib/python3*/site-packages")]


def test_mlflow_has_the_figures_in_its_own_store(home: Path, tmp_path: Path) -> None:
    beside = mlflow_path()
    if importlib.util.find_spec("mlflow") is None and not beside:
        pytest.skip("no MLflow: run `make peers`, or install abtest[mlflow]")
    own = [path for path in sys.path if path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*own, *beside]),
        "MLFLOW_TRACKING_URI": (tmp_path / "store").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    asked = ["report", str(home.parent / "users.csv"), "--success", "watch_time", "--quiet"]
    command = [sys.executable, "-m", "simulator", *asked, "--track", "mlflow"]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = (path.parent for path in (tmp_path / "store").glob("*/*/meta.yaml"))
    lift = next(
        row
        for row in load(tmp_path / "out").lifts
        if (row.arm, row.metric) == ("new", "watch_time")
    )
    stamp, value, step = (run / "metrics/new/watch_time/lift").read_text().split()
    assert (float(value), int(step)) == (lift.lift, 0)
    assert int(stamp) > 0
    assert (run / "params/decision").read_text() == "ship"
    assert "Ship new" in (run / "tags/mlflow.note.content").read_text()
    names = {path.name for path in (run / "artifacts").iterdir()}
    assert names == set(tracking.FILES)


class _Frame(HTMLParser):
    """The page within the frame that a notebook shows."""

    page = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag == "iframe"
        self.page = dict(attributes)["srcdoc"] or ""


def framed(html: str | None) -> str:
    assert html is not None
    parser = _Frame()
    parser.feed(html)
    return parser.page


def test_a_notebook_shows_a_report_by_its_first_screen(content: Content) -> None:
    page = framed(content._repr_html_())
    assert "Ship new." in page
    assert '<section id="verdict"' in page
    assert '<section id="repeat"' not in page
    outcome = abtest.Outcome(Path(), report=content)
    assert framed(outcome._repr_html_()) == page
    assert abtest.Outcome(Path())._repr_html_() is None


def test_a_notebook_shows_lifts_as_a_forest_plot() -> None:
    frame = abtest.lifts(a_table())
    page = framed(frame._repr_html_())  # type: ignore[operator]
    assert page.count('class="strip') == len(frame) == 4
    assert "a/b: 50%" in page
    part = frame[frame["arm"] == "new"]
    assert type(part) is pd.DataFrame
    assert type(frame[["arm", "lift"]]) is pd.DataFrame


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("abtest re", "plain,report"),
        ("abtest report --tra", "plain,--track"),
        ("abtest report --interval f", "plain,fieller"),
        ("abtest policies ch", "plain,check"),
    ],
)
def test_a_shell_completes_commands_options_and_choices(words: str, expected: str) -> None:
    """What click's script for bash asks of the program."""
    parts = words.split()
    environment = {
        **os.environ,
        "_ABTEST_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(parts) - 1),
    }
    program = Path(sys.executable).parent / "abtest"
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
    assert expected in done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_click_writes_the_script_of_every_shell(shell: str) -> None:
    environment = {**os.environ, "_ABTEST_COMPLETE": f"{shell}_source"}
    program = Path(sys.executable).parent / "abtest"
    done = subprocess.run([program], env=environment, capture_output=True, text=True)
    if shell == "bash" and "not supported for Bash versions older" in done.stderr:
        pytest.skip("an old bash")
    assert "_ABTEST_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("arms", "metrics", "rule"),
    [
        ("{a: {policy: popularity}, b: {policy: random}}", "[click]", "declared a success"),
        ("{a: {policy: popularity}}", "[{click: {role: success}}]", "one arm alone"),
    ],
)
def test_a_gate_that_cannot_decide_is_refused_before_the_run(
    tmp_path: Path, arms: str, metrics: str, rule: str
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: s\nusers: {kind: choice, n_users: 50, n_items: 60}\n"
        "data: {source: synthetic, history_days: 2}\ndays: 2\nserving: {slate: 3, recall: 10}\n"
        f"arms: {arms}\nmetrics: {metrics}\ndesign: {{kind: paired, control: a}}\n"
    )
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["run", str(file), "--out", str(out), "--gate"])
    assert result.exit_code == 2, result.output
    assert rule in " ".join(result.output.split())
    assert not out.exists()
