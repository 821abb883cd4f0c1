"""`abtest bias`: the global effect beside what designs report, on worlds of some tens of users."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from policies.base import Catalogue
from simulator import report
from simulator.cli import main
from simulator.designs.base import DesignError
from simulator.designs.clusters import Clusters
from simulator.designs.switchback import Switchback
from simulator.log.eventlog import EventLog
from simulator.log.workspace import RunError, Workspace
from simulator.page.markdown import markdown
from simulator.report.console import show
from simulator.report.sections import document as as_document
from simulator.report.stored import encode
from simulator.run.context import RefitDays, fit_name
from simulator.run.pipeline import simulate
from simulator.run.weighting import probability
from simulator.scenario.model import Scenario, ScenarioError
from simulator.stats import units
from simulator.surface.bias import GLOBAL, BiasError, BiasResult, design_bias, over_fits
from simulator.surface.bias_page import answer, save
from simulator.surface.groups import user_clusters
from tests.worlds import tiny_scenario, write_scenario

FILES = ("bias.json", "bias.md", "bias.svg", "bias.html", "runs.csv")
ARMS: dict[str, Any] = {
    "popular": {"policy": "popularity"},
    "near": {"policy": "itemknn", "params": {"neighbours": 5}},
}


SMALL: dict[str, Any] = {"serving": {"slate": 4, "recall": 12, "history": 16}}


def scenario(folder: Path, **changes: Any) -> Scenario:
    return Scenario.load(write_scenario(folder, tiny_scenario(ARMS, **{**SMALL, **changes})))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[BiasResult, Path]:
    root = tmp_path_factory.mktemp("bias")
    result = design_bias(scenario(root, days=3), root / "out", fits=2, clusters=12, keep_runs=True)
    save(result, root / "out")
    return result, root / "out"


def by_name(result: BiasResult) -> dict[str, Any]:
    return {one.design: one for one in result.designs}


def test_without_learning_nothing_is_shared_and_no_split_is_biased(tmp_path: Path) -> None:
    result = design_bias(scenario(tmp_path), tmp_path / "out", fits=2, refit="never", clusters=12)
    for name, one in by_name(result).items():
        if name == Switchback.kind:  # what a user saw of the other arm goes on in its lives
            assert one.low <= 0.0 <= one.high
        else:
            assert (one.bias, one.low, one.high) == (0.0, 0.0, 0.0)
    assert "exactly unbiased: shared training, diverted data, weighted training and user" in answer(
        result
    )


def test_equal_arms_have_no_effect_and_no_design_finds_one(tmp_path: Path) -> None:
    arms = {"one": ARMS["near"], "other": ARMS["near"]}
    alike = Scenario.load(write_scenario(tmp_path, tiny_scenario(arms, **SMALL)))
    result = design_bias(alike, tmp_path / "out", fits=2, clusters=12)
    assert (result.lift, result.low, result.high) == (0.0, 0.0, 0.0)
    assert by_name(result)["shared training"].bias == 0.0  # both arms have one model
    assert not any(one.is_biased for one in result.designs)


def test_the_global_effect_is_the_lift_of_twins_who_learn_from_themselves(
    shared: tuple[BiasResult, Path],
) -> None:
    result, out = shared
    lifts = [run.lift for run in result.runs if run.design == GLOBAL]
    assert [run.lift_of_twins for run in result.runs if run.design == GLOBAL] == pytest.approx(
        lifts
    )
    assert result.lift == pytest.approx(np.mean(lifts))
    log = EventLog.open(Workspace(out / "runs" / "000" / "global-effect").log)
    assert log.metadata.scenario["serving"]["refit_on"] == "own"
    assert log.metadata.design.has_twins


def test_the_luck_of_the_split_is_taken_off(shared: tuple[BiasResult, Path]) -> None:
    """The lift less luck is counted here by hand: everybody's twins, and what the arm's own users
    did otherwise.
    """
    result, out = shared
    runs = {run.design: run for run in result.runs if run.fit == 0}
    truth, split = (
        units.read(EventLog.open(Workspace(out / "runs" / "000" / name).log), ["click"])
        for name in (GLOBAL.replace(" ", "-"), "shared-training")
    )
    means = []
    for arm in (truth.arms.index("popular"), truth.arms.index("near")):
        assert split.assigned is not None
        twins, here = truth.terms["click"][arm].sum(axis=1), split.assigned == arm
        away = split.terms["click"][arm].sum(axis=1)[here] - twins[here]
        means.append(twins.mean() + away.mean())
    assert runs["shared training"].lift_of_twins == pytest.approx(means[1] / means[0] - 1)
    assert runs["shared training"].lift_of_twins != pytest.approx(runs["shared training"].lift)


def test_the_sums_of_runs_stand_for_them(shared: tuple[BiasResult, Path], tmp_path: Path) -> None:
    """Logs and models go, and what was interrupted goes on to the same result; another metric is
    told by the same runs.
    """

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int, figures: Any) -> None:
        if stage.startswith("weighted training 2: simulate"):
            raise StoppedError

    result, _ = shared
    one, out = scenario(tmp_path, days=3), tmp_path / "out"
    how: dict[str, Any] = {"fits": 2, "clusters": 12}
    with pytest.raises(StoppedError):
        design_bias(one, out, **how, progress=stop)
    assert encode(design_bias(one, out, **how, resume=True)) == encode(result)
    kept = [path for path in (out / "runs").rglob("*") if path.is_file()]
    assert len(kept) == 2 * 6 + 1
    assert {path.suffix for path in kept} == {".npz"}
    watched = design_bias(one, out, **how, metric="watch_time", resume=True)
    again = design_bias(one, shared[1], **how, metric="watch_time", resume=True)
    assert encode(watched) == encode(again)
    assert watched.lift != result.lift
    with pytest.raises(BiasError, match=r"--metric novelty: the finished runs in .* kept the sums"):
        design_bias(one, out, **how, metric="novelty", resume=True)
    with pytest.raises(RunError, match="has the clusters of a run with other options"):
        design_bias(one, out, fits=2, clusters=11, resume=True)


def test_every_repetition_has_fits_and_an_assignment_of_its_own(
    shared: tuple[BiasResult, Path],
) -> None:
    _, out = shared
    seeds = []
    for fit in ("000", "001"):
        said = EventLog.open(Workspace(out / "runs" / fit / "diverted-data").log).metadata
        arm = said.arm_of_user()
        assert arm is not None
        seeds.append((said.scenario["fits"]["seed"], arm.tolist()))
        assert said.scenario["seed"] == 9
    assert seeds[0][0] != seeds[1][0]
    assert seeds[0][1] != seeds[1][1]


def test_the_interval_over_repetitions_covers_when_users_and_repetitions_both_vary() -> None:
    draw, held, trials = np.random.default_rng(3), 0, 400
    for _ in range(trials):
        of_users = draw.normal(0, 0.02, 50)
        of_cells = draw.normal(0, 0.05, (5, 50))
        of_fits = draw.normal(0, 0.004, 5)
        cells = 1.0 + of_users + of_cells + of_fits[:, None]
        influence = (cells - cells.mean(axis=1, keepdims=True)) / 50
        low, high = over_fits(cells.mean(axis=1), influence)
        held += low <= 1.0 <= high
    assert 0.93 <= held / trials <= 0.99


def test_resuming_takes_over_and_other_options_are_refused(
    shared: tuple[BiasResult, Path], tmp_path: Path
) -> None:
    result, out = shared
    with pytest.raises(RunError, match="already holds runs; --resume"):
        design_bias(scenario(tmp_path, days=3), out, fits=2)
    again = design_bias(scenario(tmp_path, days=3), out, fits=2, clusters=12, resume=True)
    assert json.dumps(encode(again)) == json.dumps(encode(result))
    with pytest.raises(RunError, match="holds a run of another scenario, or of other options"):
        design_bias(scenario(tmp_path, days=3), out, fits=2, refit="never", resume=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arm": "far"}, "--arm: must be one of near; got 'far'"),
        ({"metric": "clicks"}, "--metric: .*click"),
        ({"metric": "items_shown"}, "--metric: items_shown is of the supply side; a bias is of"),
        ({"fits": 1}, "--fits: must be at least 2: one repetition has no interval; got 1"),
    ],
)
def test_what_cannot_be_told_is_refused_before_any_run(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BiasError, match=words):
        design_bias(scenario(tmp_path), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(BiasError, match="days: must be at least 2"):
        design_bias(scenario(tmp_path, days=1), tmp_path / "out")


@pytest.mark.parametrize("command", [["bias"], ["map", "--over", "days=1,2"]])
def test_one_arm_and_a_wrong_control_are_named(command: list[str], tmp_path: Path) -> None:
    file = write_scenario(tmp_path, tiny_scenario(ARMS, **SMALL, days=3))
    done = CliRunner().invoke(main, [*command, str(file), "--control", "far"])
    assert done.exit_code == 2
    assert "abtest: --control: no arm 'far'" in done.output
    alone = write_scenario(tmp_path, tiny_scenario({"near": ARMS["near"]}, **SMALL, days=3))
    done = CliRunner().invoke(main, [*command, str(alone)])
    assert done.exit_code == 2
    assert "is of an arm over the control; there is near alone" in done.output


def test_the_page_and_the_command(shared: tuple[BiasResult, Path]) -> None:
    """The command takes over the finished runs, and writes what Python gave."""
    _, out = shared
    file = write_scenario(out.parent, tiny_scenario(ARMS, **SMALL, days=3))
    before = {name: (out / name).read_bytes() for name in FILES}
    asked = ["bias", str(file), "--fits", "2", "--clusters", "12", "--out", str(out), "--quiet"]
    done = CliRunner().invoke(main, [*asked, "--resume"])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(out / "bias.html")
    assert {name: (out / name).read_bytes() for name in FILES} == before
    stored = json.loads((out / "bias.json").read_text())
    assert stored["designs"][0]["design"] == "shared training"
    assert stored["answer"] in (out / "bias.md").read_text().replace("\\", "")
    assert (out / "runs.csv").read_text().count("\n") == 1 + 2 * 6
    assert "<svg" in (out / "bias.svg").read_text()


# What the designs stand on.


def test_weights_are_the_probability_of_the_arm() -> None:
    """Arms that show item 1 with 80% and 20%: an impression of it is four times as likely of the
    first; and where they show the same, every impression is of either.
    """
    draw = np.random.default_rng(1)
    arm = draw.random(20_000) < 0.5
    item = np.where(draw.random(20_000) < np.where(arm, 0.8, 0.2), 1, 2)
    fold = draw.random(20_000) < 0.5
    ones = np.ones((20_000, 1))
    weight = probability(ones, item, arm, fold, 2)
    assert weight[item == 1].mean() == pytest.approx(0.8, abs=0.02)
    assert weight[item == 2].mean() == pytest.approx(0.2, abs=0.02)
    same = probability(ones, 1 + (draw.random(20_000) < 0.5), arm, fold, 2)
    assert same == pytest.approx(0.5, abs=0.03)


def test_clusters_are_dealt_whole_and_are_the_unit(tmp_path: Path) -> None:
    cluster = tuple(int(u) % 10 for u in range(60))
    design = Clusters(("a", "b"), 3, 2, cluster)
    arm = design.arm_of_user(60)
    assert arm is not None
    of_cluster = [set(arm[np.array(cluster) == c].tolist()) for c in range(10)]
    assert all(len(one) == 1 for one in of_cluster)
    assert sum(next(iter(one)) for one in of_cluster) == 5
    with pytest.raises(DesignError, match="a number for each of the 61 users; it has 60"):
        design.cluster_of_user(61)
    changes = {"kind": "clusters", "control": "popular", "clusters": list(cluster)}
    loaded = scenario(tmp_path, design=changes)
    root = simulate(loaded, tmp_path / "out").root
    log = EventLog.open(root / "log")
    log.validate()
    table = units.read(log, ["click"]).by("user")
    assert table.n_units == 10
    assert table.assigned is not None
    assert table.denominators["click"].sum() == 60
    content = report.load(root)
    assert (content.assigned, content.size.users, content.size.clusters) == ("cluster", 60, 10)
    shown = markdown(as_document(content))
    assert "Intervals and p are by cluster" in shown
    assert "more users" not in shown
    said = io.StringIO()
    show(content, Console(file=said, width=200))
    assert "clusters, 60 users in 10 clusters" in said.getvalue()
    assert "intervals and p by cluster" in said.getvalue()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"design": {"kind": "split", "clusters": [1, 2]}}, "clusters go with kind: clusters only"),
        ({"design": {"kind": "clusters", "clusters": [1, 2] * 30}}, "two clusters for each arm"),
        ({"design": {"kind": "clusters", "clusters": [1, 2, 3, 4]}}, "each of the 60 users"),
        (
            {"serving": {"slate": 4, "recall": 12, "refit_on": "weighted"}},
            "tells the arms' impressions apart by user, so each user must be in one arm",
        ),
    ],
)
def test_designs_that_cannot_be_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ScenarioError, match=words):
        scenario(tmp_path, **changes)


def test_an_older_scenario_keeps_its_bytes(tmp_path: Path) -> None:
    assert scenario(tmp_path).identity()["design"] == {"kind": "paired", "control": "popular"}


def test_users_of_a_cluster_click_alike() -> None:
    log_tags = np.repeat([[1, 1, 1, 2], [3, 4, 4, 4]], 10, axis=0)
    from policies.base import Sequences

    n, width = log_tags.shape
    log = Sequences(
        np.arange(n),
        np.arange(n + 1) * width,
        log_tags.ravel(),
        np.ones(n * width, dtype=bool),
        np.arange(n * width) - n * width,
    )
    known = Catalogue(n, 4, {"tag": np.array([0, 1, 1, 2, 2])})
    cluster = user_clusters(log, known, 2, 5)
    assert cluster is not None
    assert len(set(cluster[:10])) == len(set(cluster[10:])) == 1
    assert cluster[0] != cluster[-1]
    assert user_clusters(log, Catalogue(n, 4), 2, 5) is None


def test_refits_are_not_lent_to_other_runs(tmp_path: Path) -> None:
    serving = {"slate": 4, "recall": 12, "refit": "daily"}
    root = simulate(scenario(tmp_path, serving=serving), tmp_path / "out").root
    there = Workspace(tmp_path / "other")
    there.models.mkdir(parents=True)
    there.ledger.file.touch()
    there.borrow(Workspace(root).models)
    names = sorted(place.name for place in there.models.iterdir())
    assert len(names) == 2
    assert not any("-day-" in name for name in names)
    assert any("-day-1-" in place.name for place in Workspace(root).models.iterdir())


def test_a_refit_has_a_name_of_what_it_learned_from(tmp_path: Path) -> None:
    from policies.registry import make

    policy = make("popularity", {}, tmp_path)
    days = [RefitDays(1, "a"), RefitDays(1), RefitDays(1, like="a"), RefitDays(1, like="b")]
    assert len({fit_name(policy, 1, day) for day in days}) == 4
