"""`abtest map`: its axes, its runs, and what it says, on worlds of some tens of users."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulator.cli import main
from simulator.log.eventlog import EventLog
from simulator.log.workspace import RunError
from simulator.page.markdown import markdown
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario, ScenarioError
from simulator.stats import units, verdict
from simulator.surface import mapping
from simulator.surface.axes import Axis, MapError, read_axes
from simulator.surface.map_page import answer, document, save
from simulator.surface.mapping import LiftMap, MapCell, MapRun, map_lift
from tests.worlds import tiny_scenario, write_scenario

ARMS: dict[str, Any] = {
    "popular": {"policy": "popularity"},
    "near": {"policy": "itemknn", "params": {"neighbours": 20}},
}
FILES = ("map.json", "map.md", "map.svg", "map.html", "points.csv")


def scenario(folder: Path, **changes: Any) -> Scenario:
    return Scenario.load(write_scenario(folder, tiny_scenario(ARMS, **changes)))


@pytest.mark.parametrize(
    ("over", "values", "scale"),
    [
        ("users.drift.renewal=0:1", tuple(i / 16 for i in range(17)), "linear"),
        ("users.interests.per_user=1:4", (1, 2, 3, 4), "linear"),
        ("users.interests.per_user=1:16:log", (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 16), "log"),
        ("users.interests.per_user=1,2,8", (1, 2, 8), "list"),
        ("users.drift.enabled=true,false", (True, False), "list"),
        ("arms.near.params.neighbours=5:7", (5, 6, 7), "linear"),
        ("arms.near.params.fading=[1],[1, 2]", ([1], [1, 2]), "list"),
        ("data.logging.params={noise: 0.1},{noise: 1:2}", None, None),
    ],
)
def test_axes_are_read(over: str, values: Any, scale: Any, tmp_path: Path) -> None:
    if values is None:
        values, scale = ({"noise": 0.1}, {"noise": "1:2"}), "list"
    (axis,) = read_axes(scenario(tmp_path), [over])
    assert axis == Axis(over.partition("=")[0], values, scale)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ([], "a map goes over one key or two; got 0"),
        (["a=1,2"] * 3, "a map goes over one key or two; got 3"),
        (["users.drift.renewal"], r"must be KEY=LOW:HIGH, .*; got 'users.drift.renewal'"),
        (["users.drift=0:1"], "is a section; take one of its keys: enabled, persistence, renewal"),
        (["users.drift.renewal=1:0"], "must have LOW < HIGH; got '1:0'"),
        (["users.drift.renewal=0:1:log"], "must have 0 < LOW < HIGH; got '0:1:log'"),
        (["users.drift.renewal=0:1:2"], "a range is LOW:HIGH or LOW:HIGH:log; got '0:1:2'"),
        (["users.drift.renewal=a:b"], "the ends of a range must be numbers; got 'a:b'"),
        (["users.drift.renewal=0.1"], "must have 2 to 25 values; got 1"),
        (["users.drift.renewal=0.1,0.1"], "a value is there twice"),
        (["users.drift.renewal=[1"], r"must be a list of YAML values; got '\[1'"),
        (["seed=1:9"], "every run has a seed of its own"),
        (["engine.tick=1:9"], "it may not change a byte"),
        (["name=a,b"], "it changes no lift"),
        (["metrics=click,watch_time"], "the lift of a map is of one metric"),
        (["users.drift.renewal=0:1", "users.drift.renewal=0,1"], "given twice"),
    ],
)
def test_an_axis_that_is_none_is_refused(over: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(MapError, match=words):
        read_axes(scenario(tmp_path), over)


@pytest.mark.parametrize(
    ("over", "options", "words"),
    [
        ("users.drift.renwal=0:1", {}, "no such key 'renwal'; did you mean 'renewal'?"),
        ("users.drift.renewal=0:2", {}, "--over users.drift.renewal: .*less than or equal to 1"),
        ("users.interests.per_user=one,two", {}, "--over users.interests.per_user: .*whole number"),
        ("serving.recall=2:12", {}, r"must be at least serving.slate \(4\); got 2"),
        ("serving.channels.0.quota=1:3", {}, "lies within a list or a value"),
        ("arms.near.params.neighbors=1:9", {}, "did you mean 'neighbours'"),
        ("arms.other.params.x=1,2", {}, "must be of near or of the control, popular"),
        ("days=1:3", {"arm": "far"}, "--arm: must be one of near; got 'far'"),
        ("days=1:3", {"metric": "clicks"}, "--metric: .*click"),
        ("days=1:3", {"runs": 4}, "--runs: must be at least 5, which are spread first; got 4"),
        ("days=1:3", {"seeds": 0}, "--seeds: must be at least 1; got 0"),
    ],
)
def test_what_the_scenario_does_not_take_is_refused_before_any_run(
    over: str, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises((MapError, ScenarioError), match=words):
        map_lift(scenario(tmp_path), [over], tmp_path / "map", **options)
    assert not (tmp_path / "map").exists()


def files(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in FILES}


OVER = ["users.drift.renewal=0,0.1,1", "users.interests.per_user=1,4"]


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("map")
    save(map_lift(scenario(root), OVER, root / "out", runs=10), root / "out")
    return root / "out"


def test_a_run_has_the_lift_of_the_scenario_with_its_values_and_seed(
    mapped: Path, tmp_path: Path
) -> None:
    """And each has a seed of its own, after the scenario's."""
    content = json.loads((mapped / "map.json").read_text())
    assert [run["seed"] for run in content["runs"]] == list(range(9, 19))
    for run in (content["runs"][0], content["runs"][8]):
        drift, interests = run["values"]
        plain = tiny_scenario(ARMS, seed=run["seed"])
        plain["users"] |= {"drift": {"renewal": drift}, "interests": {"per_user": interests}}
        root = tmp_path / str(run["seed"])
        simulate(Scenario.load(write_scenario(root, plain)), root / "run")
        days = units.read(EventLog.open(root / "run" / "log"), ["click"])
        row = verdict.lift(days.by("user"), "click", "popular", "near", "delta")
        assert run["lift"] == row.lift
        assert run["error"] * 1.959964 == pytest.approx((row.high - row.low) / 2, rel=1e-6)


def test_a_map_that_was_stopped_goes_on_to_the_same_bytes(mapped: Path, tmp_path: Path) -> None:
    """Whatever the cut of its work; and with more runs it goes on from there."""

    class StoppedError(Exception):
        pass

    def stop(stage: str, done: int, total: int, figures: Any) -> None:
        if stage.startswith("run 7: simulate"):
            raise StoppedError

    one = scenario(tmp_path, engine={"executor": "serial", "shards": 3, "block": 7})
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        map_lift(one, OVER, out, runs=10, progress=stop)
    assert not (out / "map.json").exists()
    with pytest.raises(RunError, match="already holds a map; --resume continues it"):
        map_lift(one, OVER, out, runs=10)
    save(map_lift(one, OVER, out, runs=10, resume=True), out)
    assert files(out) == files(mapped)
    with pytest.raises(RunError, match="of a map of another metric or with other axes or seeds"):
        map_lift(one, OVER, out, runs=10, seeds=2, resume=True)
    longer = map_lift(one, OVER, out, runs=11, resume=True)
    ten = json.loads((mapped / "map.json").read_text())["runs"]
    assert [run.lift for run in longer.runs[:10]] == [run["lift"] for run in ten]


def test_runs_of_one_seed_share_the_fits_of_what_has_the_same_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a parameter of a policy; over one of the world there is nothing to share."""
    borrowed: list[Path | None] = []

    def noted(*args: Any, **options: Any) -> Any:
        borrowed.append(options["fits"])
        return simulate(*args, **options)

    monkeypatch.setattr(mapping, "simulate", noted)
    one = scenario(tmp_path, days=1)
    out = tmp_path / "policy"
    shared = map_lift(one, ["arms.near.params.neighbours=1,3,30"], out, runs=5, seeds=2)
    home = out / "runs"
    seeds = [run.seed for run in shared.runs]
    assert set(seeds) == {9, 10}
    for run, fits in enumerate(borrowed):
        before = [other for other in range(run) if seeds[other] == seeds[run]]
        assert fits == (home / f"{before[-1]:03d}" / "models" if before else None)
    borrowed.clear()
    map_lift(one, ["users.drift.renewal=0,1,0.5"], tmp_path / "world", runs=5, seeds=5)
    assert borrowed == [None] * 5
    assert len({(run.values, run.seed) for run in shared.runs}) == 5  # no run twice


def test_several_fits_are_read_by_the_verdict_on_methods(tmp_path: Path) -> None:
    bpr = {"policy": "bpr", "params": {"width": 8, "training": {"epochs": 1}}}
    plain = tiny_scenario({"counts": {"policy": "popularity"}, "network": bpr}, fits=2)
    one = Scenario.load(write_scenario(tmp_path, plain))
    wide = map_lift(one, ["users.interests.per_user=1,4"], tmp_path / "map", runs=5)
    assert wide.of == "methods"
    alone = one.model_copy(update={"fits": type(one.fits)()})
    narrow = map_lift(alone, ["users.interests.per_user=1,4"], tmp_path / "alone", runs=5)
    assert narrow.of == "models"
    assert max(run.error for run in wide.runs) > max(run.error for run in narrow.runs)


def test_a_metric_that_nobody_has_is_named_with_its_run(tmp_path: Path) -> None:
    never = {"comment": {"enabled": False, "rate": 0.1, "affinity": 0.0, "unclicked": 0.0}}
    users = {"kind": "choice", "n_users": 60, "n_items": 120, "reactions": never}
    with pytest.raises(MapError, match=r"run \d \(.*00\d\): no lift of comment"):
        map_lift(
            scenario(tmp_path, users=users), ["days=1,2"], tmp_path / "m", metric="comment", runs=5
        )


def made(signs: list[str], axes: tuple[Axis, ...]) -> LiftMap:
    """A map by hand: a cell a sign, with an interval that says so."""
    ends = {"higher": (0.01, 0.03), "lower": (-0.03, -0.01), "undecided": (-0.01, 0.03)}
    cells = []
    for values, sign in zip(product(*(axis.values for axis in axes)), signs, strict=True):
        low, high = ends[sign]
        cells.append(MapCell(values, (low + high) / 2, low, high, sign))  # type: ignore[arg-type]
    runs = tuple(MapRun(cell.values, i, cell.lift, 0.01) for i, cell in enumerate(cells))
    return LiftMap(
        "by <hand>", "new", "old", "click", "models", 0.95, 4, 0.004, axes, tuple(cells), runs
    )


def test_the_answer_names_the_stretches_of_one_axis() -> None:
    axis = Axis("users.drift.renewal", (0.0, 0.1, 0.2, 0.3, 0.4), "linear")
    signs = ["higher", "higher", "undecided", "lower", "higher"]
    assert answer(made(signs, (axis,))) == (
        "new against old, click: higher on 60% of the range (0 to 0.1 and 0.4); lower on 20% of the"
        " range (0.3); not decided on 20% of the range (0.2). Highest at users.drift.renewal 0:"
        " +2.0% (+1.0% to +3.0%), lowest at users.drift.renewal 0.3: -2.0% (-3.0% to -1.0%)."
    )


def test_the_answer_measures_the_area_of_two_axes() -> None:
    axes = (Axis("days", (1, 2), "list"), Axis("arms.a.params.k", ([1], [1, 1]), "list"))
    shown = made(["higher", "undecided", "higher", "undecided"], axes)
    assert answer(shown).startswith(
        "new against old, click: higher on 50% of the area; lower nowhere; not decided on 50% of"
        " the area. Highest at days 1, arms.a.params.k [1]: +2.0%"
    )
    text = markdown(document(shown))
    assert "| \\[1\\] | 1 to 2 | nowhere | nowhere |" in text
    assert "by &lt;hand&gt;" in text


def test_the_command_says_where_it_wins_and_writes_five_files(tmp_path: Path) -> None:
    path = write_scenario(tmp_path, tiny_scenario(ARMS))
    command = ["map", str(path), "--over", "users.drift.renewal=0,0.5,1", "--runs", "6"]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "near against popular, click:" in done.output.replace("\n", " ")
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted([*FILES, "runs"])
    csv = (tmp_path / "out" / "points.csv").read_text().splitlines()
    assert csv[0] == "run,users.drift.renewal,seed,lift,error"
    assert len(csv) == 7
    again = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "--resume continues it" in again.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--over", "users.drift=0:1"], "is a section"),
        (["--over", "days=1:3", "--control", "nobody"], "nobody"),
        ([], "Missing option '--over'"),
    ],
)
def test_bad_input_ends_with_one_message(options: list[str], words: str, tmp_path: Path) -> None:
    path = write_scenario(tmp_path, tiny_scenario(ARMS))
    done = CliRunner().invoke(main, ["map", str(path), *options, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "out").exists()
