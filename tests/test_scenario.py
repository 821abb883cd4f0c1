"""Every broken rule of a scenario is named with file, line and key path; a good one survives the round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simulator.scenario import Scenario, ScenarioError, find, json_schema

GOOD = """\
name: small
seed: 7
users:
  kind: choice
arms:
  one: {policy: random}
  two:
    policy: popularity
design:
  control: one
"""


def load(tmp_path: Path, text: str, **overrides: object) -> Scenario:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    return Scenario.load(file, overrides)


def test_a_good_scenario_is_equal_after_writing_and_reading(tmp_path: Path) -> None:
    scenario = load(tmp_path, GOOD)
    again = load(tmp_path, scenario.to_yaml())
    assert again == scenario
    assert scenario.control == "one"
    assert "engine" not in scenario.identity()
    assert "engine" in scenario.resolved()


def test_flags_override_and_are_named_in_complaints(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, **{"seed": 9, "engine.tick": 60.0, "engine.block": None}).seed == 9
    with pytest.raises(ScenarioError, match=r"^--engine\.tick: Input should be greater than 0; got -1\.0$"):
        load(tmp_path, GOOD, **{"engine.tick": -1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed: 7", "sed: 7"), r"s\.yaml:2: sed: no such key 'sed'; did you mean 'seed'\?"),
        (("seed: 7", "seed: seven"), r"s\.yaml:2: seed: Input should be a valid integer.*; got 'seven'"),
        (("seed: 7", "seed: -1"), r"s\.yaml:2: seed: .*greater than or equal to 0; got -1"),
        (("policy: random", "policy: randm"), r"s\.yaml:6: arms\.one\.policy: no policy 'randm'; did you mean 'random'\?"),
        (("policy: random", "polcy: random"), r"s\.yaml:6: arms\.one\.polcy: no such key 'polcy'; did you mean 'policy'\?"),
        (("kind: choice", "kind: choise"), r"s\.yaml:4: users\.kind: no kind 'choise'; did you mean 'choice'\?"),
        (("kind: choice", "kind: choice\n  n_userz: 3"), r"s\.yaml:5: users\.n_userz: no such key 'n_userz'; did you mean 'n_users'\?"),
        (("kind: choice", "kind: choice\n  n_users: many"), r"s\.yaml:5: users\.n_users: Input should be a valid integer"),
        (("control: one", "control: oen"), r"s\.yaml:10: design\.control: no arm 'oen'; did you mean 'one'\?"),
        (("seed: 7", "seed: 7\nseed: 8"), r"s\.yaml:3: seed: given twice, first on line 2; keep one"),
        (("seed: 7", "seed: [7"), r"s\.yaml:\d+: not YAML"),
        (("seed: 7", "metrics: [click, watchtime]"), r"s\.yaml:2: metrics\.1: no metric 'watchtime'; did you mean 'watch_time'\?"),
        (("policy: random", "policy: 'nowhere.py:Mine'"), r"s\.yaml:6: arms\.one\.policy: no plug-in file 'nowhere.py'; looked at"),
        (("seed: 7", "serving: {slate: 6, recall: 3}"), r"s\.yaml:2: serving\.recall: must be at least serving\.slate \(6\); got 3"),
        (("seed: 7", "serving: {slte: 6}"), r"s\.yaml:2: serving\.slte: no such key 'slte'; did you mean 'slate'\?"),
        (
            ("  two:\n    policy: popularity\ndesign:", "design:\n  kind: interleave"),
            r"s\.yaml:8: design\.kind: interleave mixes exactly 2",
        ),
        (("control: one", "kind: interleave\narms: {a: {policy: random}}"), r"given twice"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(ScenarioError, match=message):
        load(tmp_path, GOOD.replace(*change, 1))


def test_all_broken_rules_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, GOOD.replace("seed: 7", "seed: seven").replace("kind: choice", "kind: choice\n  n_userz: 3"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "- 1\n", "3", "a: &x [*x]\n", "\xff"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScenarioError, match=r"s\.yaml"):
        load(tmp_path, text)


def test_a_plugin_file_is_checked_without_being_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')\nclass Mine: ...\n")
    load(tmp_path, GOOD.replace("policy: random", "policy: 'mine.py:Mine'"))
    with pytest.raises(ScenarioError, match=r"mine\.py has no class 'Mien'; did you mean 'Mine'\?"):
        load(tmp_path, GOOD.replace("policy: random", "policy: 'mine.py:Mien'"))
    (tmp_path / "mine.py").write_text("class Mine(:\n")
    with pytest.raises(ScenarioError, match=r"mine\.py:1: not Python"):
        load(tmp_path, GOOD.replace("policy: random", "policy: 'mine.py:Mine'"))


def test_a_missing_file_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no such file.*did you mean 'kuaishou_like.yaml'"):
        find(tmp_path / "kuaishu_like.yaml")
    assert find("scenarios/kuaishou_like.yaml").is_file()


def test_the_shipped_scenarios_are_valid() -> None:
    import scenarios

    files = sorted(Path(scenarios.__path__[0]).glob("*.yaml"))
    assert files
    for file in files:
        assert Scenario.load(file).name == file.stem


def test_the_json_schema_describes_every_kind_of_users() -> None:
    schema = json_schema()
    json.dumps(schema)
    titles = {ref["$ref"].rsplit("/", 1)[1] for ref in schema["properties"]["users"]["oneOf"]}
    assert titles <= set(schema["$defs"])
    assert {schema["$defs"][title]["properties"]["kind"]["const"] for title in titles} == {
        "choice",
        "markov",
        "learned",
        "logged",
        "held_out",
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{half_lif: 3}", r"s\.yaml:6: arms\.one\.params\.half_lif: .*no hyper-parameter 'half_lif'; did you mean 'half_life'\?"),
        ("{half_life: long}", r"s\.yaml:6: arms\.one\.params\.half_life: .*valid number.*Got 'long' instead"),
        ("{half_life: -1}", r"s\.yaml:6: arms\.one\.params: policy 'popularity': the 'half_life' parameter .* at least 0; got -1"),
    ],
)
def test_a_wrong_hyper_parameter_is_named_before_anything_is_written(tmp_path: Path, params: str, message: str) -> None:
    from simulator.run import run

    text = GOOD.replace("policy: random", f"policy: popularity, params: {params}") + "engine: {executor: serial}\n"
    scenario = load(tmp_path, text)
    with pytest.raises(ScenarioError, match=message):
        run(scenario, tmp_path / "out", folder=tmp_path)
    assert not (tmp_path / "out").exists()
