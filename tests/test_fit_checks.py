"""A fit that went wrong is seen before any lift is read; a good one is not called wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from simulator import report
from simulator.designs.fits import FitsSpec
from simulator.log.eventlog import EventLog
from simulator.log.fit_values import FILE, FitValues
from simulator.report import console
from simulator.report.content import Content
from simulator.report.errors import ReportError
from simulator.report.stored import encode
from simulator.run.held_out_clicks import FLOOR, LearnedArms
from simulator.run.pipeline import run, simulate
from simulator.scenario.model import Scenario
from simulator.serving.desk import ServingError
from simulator.stats.checks import Check
from simulator.stats.fit_checks import (
    LEVEL,
    check_fits,
    failures_not_excluded,
    judge_fits,
    unseen_failures,
)
from tests.worlds import fit_values, log_digests, simulate_scenario, tiny_scenario, write_scenario

BROKEN = FitsSpec(number=255).training_seed(9, 2)

COUNTER = f"""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from policies.popularity import Popularity


@dataclass
class Counter(Popularity):
    \"\"\"Counts half of the clicks, drawn by its seed; with one seed, none at all.\"\"\"

    draws_in_fit: ClassVar[bool] = True
    broken: bool = False

    def fit(self, sequences, catalogue, fitting):
        draws = np.random.default_rng(fitting.seed)
        super().fit(sequences.where(draws.random(len(sequences.items)) < 0.5), catalogue, fitting)
        if self.broken and fitting.seed == {BROKEN}:
            self.counts_ = draws.random(len(self.counts_)).astype(np.float32)
        return self
"""

SERVING = {"slate": 6, "recall": 12, "ranking": {"kind": "recall"}}
WORLD: dict[str, Any] = {
    "users": {"kind": "choice", "n_users": 240, "n_items": 120},
    "data": {"source": "synthetic", "history_days": 4},
    "serving": SERVING,
    "fits": 4,
}


def counters(*, broken: bool) -> dict[str, Any]:
    mine = {"policy": "counter.py:Counter"}
    return {"control": mine, "treatment": {**mine, "params": {"broken": broken}}}


def run_counters(folder: Path, *, broken: bool) -> Path:
    (folder / "counter.py").write_text(COUNTER)
    scenario = tiny_scenario(counters(broken=broken), **WORLD)
    loaded = Scenario.load(write_scenario(folder, scenario))
    return run(loaded, folder / "out", folder=folder).root


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two arms with four good fits each."""
    return run_counters(tmp_path_factory.mktemp("good"), broken=False)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, but one fit of the treatment learns nothing."""
    return run_counters(tmp_path_factory.mktemp("broken"), broken=True)


def check_of(content: Content) -> Check:
    (check,) = [check for check in content.checks if check.name == "Fits"]
    return check


def test_a_fit_that_learned_nothing_is_red_before_any_lift(broken: Path) -> None:
    content = report.load(broken)
    assert [(one.arm, one.fit) for one in content.fits if one.fault] == [("treatment", 2)]
    check = check_of(content)
    assert check.status == "red"
    assert check.value.startswith("Fit 2 of treatment finds less of what users click (")
    assert "fits.seed" in check.meaning
    page, text = ((broken / name).read_text() for name in ("report.html", "report.md"))
    assert page.index("Red: Fits.") < page.index('id="verdict"')
    assert text.index("Red: Fits.") < text.index("## Verdict")
    with pytest.raises(ReportError, match="Fits: Fit 2 of treatment finds less"):
        report.refuse(content)
    out = io.StringIO()
    console.show(content, Console(file=out, width=80, highlight=False))
    shown = out.getvalue()
    assert shown.index("red: Fits.") < shown.index("treatment against control")


def test_good_fits_are_green(good: Path) -> None:
    content = report.load(good)
    check = check_of(content)
    assert check.status == "green"
    assert check.value.startswith("8 fits of 2 arms: none finds less")
    assert not any(one.fault for one in content.fits)
    text = (good / "report.md").read_text()
    assert "## The fits" in text
    unseen = "No fit failed: 4 of an arm exclude, with 95%, only a training that fails more often"
    assert f"{unseen} than in 53%" in check.meaning
    out = io.StringIO()
    console.show(content, Console(file=out, width=80, highlight=False))
    for shown in (out.getvalue(), text, (good / "report.html").read_text()):
        assert unseen in " ".join(shown.split())


def test_a_report_made_again_says_the_same_of_the_fits(good: Path, tmp_path: Path) -> None:
    log = EventLog.open(good / "log")
    again = report.write(log, tmp_path, run=good)
    assert encode(again.fits) == encode(report.load(good).fits)
    alone = report.write(log, tmp_path / "alone")
    assert alone.fits == ()
    assert "Fits" not in {check.name for check in alone.checks}


def test_the_figures_are_those_of_the_clicks(good: Path) -> None:
    """Shares and gains are bounded by what there is to find; the floor stands last, once."""
    values = FitValues.load(good)
    assert values is not None
    assert values.arm == ("control",) * 4 + ("treatment",) * 4 + ("", "")
    assert values.policy[-2:] == tuple(spec.policy for spec in FLOOR)
    assert values.fit == (0, 1, 2, 3, 0, 1, 2, 3, 0, 0)
    assert values.candidates == SERVING["recall"]
    assert values.clicks.min() >= 1
    assert (values.hits <= values.clicks).all()
    assert (values.gains <= values.hits).all()
    assert (values.gains[values.hits > 0] > 0).all()


def test_the_random_day_changes_no_byte_of_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "counter.py").write_text(COUNTER)
    arms = {"control": {"policy": "popularity"}, "mine": {"policy": "../counter.py:Counter"}}
    content = tiny_scenario(arms, fits=2)
    measured = simulate_scenario(tmp_path / "measured", content)
    monkeypatch.setattr(LearnedArms, "__call__", lambda *_: [])
    plain = simulate_scenario(tmp_path / "plain", content)
    assert log_digests(measured) == log_digests(plain)
    assert (measured / FILE).is_file()
    assert not (plain / FILE).exists()


def test_an_arm_that_fails_among_random_slates_is_given_up(tmp_path: Path) -> None:
    """With `keep_going` the others are judged; what an arm is called is no matter."""
    (tmp_path / "counter.py").write_text(
        COUNTER + "\n    def recall(self, histories, k, seed):\n"
        "        if self.broken:\n            raise RuntimeError('no model')\n"
        "        return super().recall(histories, k, seed)\n"
    )
    mine = {"policy": "counter.py:Counter"}
    arms = {"clicks": mine, "found": mine, "lost": {**mine, "params": {"broken": True}}}
    content = tiny_scenario(arms)
    loaded = Scenario.load(write_scenario(tmp_path, content))
    with pytest.raises(ServingError, match=r"arm 'lost': policy 'counter\.py:Counter'"):
        simulate(loaded, tmp_path / "stopped", folder=tmp_path)
    outcome = simulate(loaded, tmp_path / "out", folder=tmp_path, keep_going=True)
    assert list(outcome.failed) == ["lost"]
    values = FitValues.load(outcome.root)
    assert values is not None
    assert values.arm == ("clicks", "found", "", "")
    assert (values.gains[0] == values.gains[1]).all()


def test_arms_that_only_count_are_not_judged(tmp_path: Path) -> None:
    """Random and popular slates may be arms: they are no training that went wrong."""
    root = simulate_scenario(tmp_path, tiny_scenario())
    assert FitValues.load(root) is None


@pytest.mark.parametrize("n_fits", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("spread", [0.0, 0.2], ids=["equal", "different"])
def test_good_fits_are_called_wrong_in_at_most_5_of_100_runs(n_fits: int, spread: float) -> None:
    """Fits as good as the floor at least, whose own rates differ by nothing or by a fifth: of 400
    runs at most 20 are expected to have a red check; 32 would be seen by chance in 5 of 1000.
    """
    draws = np.random.default_rng([n_fits, int(10 * spread)])
    alarms = 0
    for _ in range(400):
        rates = 0.05 * np.exp(spread * draws.normal(size=n_fits)) * (2.0 if spread else 1.0)
        figures = judge_fits(fit_values(list(rates), 200, draws))
        alarms += check_fits(figures).status == "red"
    assert alarms <= 32
    assert LEVEL == 0.05


@pytest.mark.parametrize("n_fits", [1, 4, 10])
def test_what_sound_fits_exclude_is_the_bound_of_clopper_and_pearson(n_fits: int) -> None:
    bound = failures_not_excluded(n_fits)
    assert bound == pytest.approx(stats.beta.ppf(0.95, 1, n_fits))
    assert (1 - bound) ** n_fits == pytest.approx(0.05)


def test_of_fits_that_failed_it_is_not_said_what_they_exclude() -> None:
    draws = np.random.default_rng(5)
    good = judge_fits(fit_values([0.2] * 3, 2000, draws))
    assert str(unseen_failures(good)).startswith("No fit failed: 3 of an arm exclude")
    assert unseen_failures(judge_fits(fit_values([0.2, 0.2, 0.01], 2000, draws))) is None
    assert unseen_failures([one for one in good if not one.arm]) is None


@pytest.mark.parametrize(("n_fits", "n_broken"), [(5, 1), (6, 2), (10, 1), (10, 3)])
def test_broken_fits_do_not_hide_one_another(n_fits: int, n_broken: int) -> None:
    """All of them fall out of the good ones, although they are above the floor."""
    draws = np.random.default_rng(n_fits)
    good = 0.2 + 0.003 * draws.normal(size=n_fits - n_broken)
    values = fit_values([*[0.12] * n_broken, *good], 4000, draws)
    figures = judge_fits(values)
    assert [one.fault for one in figures if one.arm] == [
        *["outlier"] * n_broken,
        *[""] * (n_fits - n_broken),
    ]
    assert "than the other fits of its arm" in check_fits(figures).value


def test_a_difference_within_the_noise_of_the_users_is_none() -> None:
    """Two fits agree to the last digit by chance, the third differs by a click of one user."""
    clicks = np.full(50, 4.0)
    gains = np.zeros((5, 50))
    gains[:, ::2] = 1.0
    gains[0, 0] = 0.0
    values = FitValues(10, ("a",) * 3 + ("", ""), ("p",) * 5, (0, 1, 2, 0, 0), clicks, gains, gains)
    assert not any(one.fault for one in judge_fits(values))


def test_the_floor_is_the_lower_policy_that_counts() -> None:
    draws = np.random.default_rng(3)
    values = fit_values([0.02], 2000, draws)
    (figure, *_) = judge_fits(values)
    assert figure.fault == "below the floor"
    check = check_fits(judge_fits(values))
    assert check.value.startswith("the fit of arm finds less of what users click")
    assert "which only counts" in check.value
