"""Every broken rule of a scenario is named with file, line and key path; a good one survives the
round trip.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from simulator.cli import main
from simulator.log.workspace import file_name
from simulator.scenario.model import Scenario, ScenarioError, find, json_schema

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
    with pytest.raises(ScenarioError, match=r"^--engine\.tick: must be greater than 0; got -1\.0$"):
        load(tmp_path, GOOD, **{"engine.tick": -1.0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("seed: 7", "sed: 7"), r"s\.yaml:2: sed: no such key 'sed'; did you mean 'seed'\?"),
        (
            ("seed: 7", "seed: seven"),
            r"s\.yaml:2: seed: must be a whole number; got 'seven'",
        ),
        (("seed: 7", "seed: true"), r"s\.yaml:2: seed: must be a number; got True"),
        (
            ("kind: choice", f"kind: choice\n  diurnal: {{hours: [{'1, ' * 23}true]}}"),
            r"s\.yaml:5: users\.diurnal\.hours\.23: must be a number; got",
        ),
        (("seed: 7", "seed: -1"), r"s\.yaml:2: seed: .*greater than or equal to 0; got -1"),
        (
            ("policy: random", "policy: randm"),
            r"s\.yaml:6: arms\.one\.policy: no policy 'randm'; did you mean 'random'\?",
        ),
        (
            ("policy: random", "polcy: random"),
            r"s\.yaml:6: arms\.one\.polcy: no such key 'polcy'; did you mean 'policy'\?",
        ),
        (
            ("kind: choice", "kind: choise"),
            r"s\.yaml:4: users\.kind: no kind 'choise'; did you mean 'choice'\?",
        ),
        (
            ("kind: choice", "kind: choice\n  n_userz: 3"),
            r"s\.yaml:5: users\.n_userz: no such key 'n_userz'; did you mean 'n_users'\?",
        ),
        (
            ("kind: choice", "kind: choice\n  n_users: many"),
            r"s\.yaml:5: users\.n_users: must be a whole number",
        ),
        (
            ("control: one", "control: oen"),
            r"s\.yaml:10: design\.control: no arm 'oen'; did you mean 'one'\?",
        ),
        (
            ("seed: 7", "seed: 7\nseed: 8"),
            r"s\.yaml:3: seed: given twice, first on line 2; keep one",
        ),
        (("seed: 7", "seed: [7"), r"s\.yaml:\d+: not YAML"),
        (
            ("seed: 7", "metrics: {click: {role: success}}"),
            r"s\.yaml:2: metrics: must be a list, a metric a line: `- click: {role: success}`; got",
        ),
        (
            ("seed: 7", "metrics: [{click: {rol: success}}]"),
            r"^\S*s\.yaml:2: metrics\.0\.click\.rol: no such key 'rol'; did you mean 'role'\?$",
        ),
        (
            ("seed: 7", "metrics: [{click: {role: sucess}}]"),
            r"^\S*s\.yaml:2: metrics\.0\.click\.role: must be 'success', .*; got 'sucess'$",
        ),
        (
            ("seed: 7", "metrics: [{click: {covariate: 3}}]"),
            r"^\S*s\.yaml:2: metrics\.0\.click\.covariate: must be text, or must be a list; got 3",
        ),
        (("seed: 7", "fits: many"), r"s\.yaml:2: fits: must be how often each policy is trained"),
        (("seed: 7", "metrics: click"), r"s\.yaml:2: metrics: must be a list; got 'click'"),
        (("seed: 7", "serving: 3"), r"s\.yaml:2: serving: must be a mapping of keys; got 3"),
        (
            ("seed: 7", "metrics: [click, watchtime]"),
            r"s\.yaml:2: metrics\.1: no metric 'watchtime'; did you mean 'watch_time'\?",
        ),
        (
            ("policy: random", "policy: 'nowhere.py:Mine'"),
            r"s\.yaml:6: arms\.one\.policy: no plug-in file 'nowhere.py'; looked at",
        ),
        (
            ("seed: 7", "serving: {slate: 6, recall: 3}"),
            r"s\.yaml:2: serving\.recall: must be at least serving\.slate \(6\); got 3",
        ),
        (
            ("seed: 7", "serving: {channels: [{name: x, policy: random, quota: 3, quot: 4}]}"),
            r"s\.yaml:2: serving\.channels\.0\.quot: no such key 'quot'; did you mean 'quota'\?",
        ),
        (
            ("seed: 7", "worlds: {w: {users: {kind: markov, n_userz: 4}, dat: {}}}"),
            r"s\.yaml:2: worlds\.w\.users\.n_userz: no such key 'n_userz'; did you mean 'n_users'"
            r"(.|\n)*s\.yaml:2: worlds\.w\.dat: no such key 'dat'; did you mean 'data'\?",
        ),
        (
            ("seed: 7", "serving: {slte: 6}"),
            r"s\.yaml:2: serving\.slte: no such key 'slte'; did you mean 'slate'\?",
        ),
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
        load(
            tmp_path,
            GOOD.replace("seed: 7", "seed: seven").replace(
                "kind: choice", "kind: choice\n  n_userz: 3"
            ),
        )
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
    with pytest.raises(ScenarioError, match=r"no such file.*did you mean 'kuaishou_like'"):
        find(tmp_path / "kuaishu_like.yaml")
    assert find("scenarios/kuaishou_like.yaml").is_file()


def test_a_shipped_scenario_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("kuaishou_like") == find("kuaishou_like.yaml")
    assert find("kuaishou_like").stem == "kuaishou_like"
    with pytest.raises(
        ScenarioError, match=r"did you mean 'kuaishou_like'\? \(`abtest scenario li"
    ):
        find("kuaishu_like")
    own = tmp_path / "kuaishou_like"
    own.write_text("name: mine")
    assert find("kuaishou_like") == Path("kuaishou_like")
    told = CliRunner().invoke(main, ["scenario", "list"])
    assert told.exit_code == 0
    assert {"kuaishou_like", "kuairand"} <= set(told.output.split())


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
    own = {"choice", "markov", "learned", "logged", "held_out"}
    kinds = {title: schema["$defs"][title]["properties"]["kind"] for title in titles}
    others = kinds.pop("PluginUsers")
    assert {kind["const"] for kind in kinds.values()} == own
    assert set(others["not"]["enum"]) == own


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            "{half_lif: 3}",
            (
                r"s\.yaml:6: arms\.one\.params\.half_lif: .*no hyper-parameter 'half_lif'; did you"
                r" mean 'half_life'\?"
            ),
        ),
        (
            "{half_life: long}",
            r"s\.yaml:6: arms\.one\.params\.half_life: .*must be a number; got 'long'",
        ),
        (
            "{half_life: -1}",
            (
                r"s\.yaml:6: arms\.one\.params: policy 'popularity': the 'half_life' parameter .*"
                r" at least 0; got -1"
            ),
        ),
    ],
)
def test_a_wrong_hyper_parameter_is_named_before_anything_is_written(
    tmp_path: Path, params: str, message: str
) -> None:
    from simulator.run.pipeline import run

    text = (
        GOOD.replace("policy: random", f"policy: popularity, params: {params}")
        + "engine: {executor: serial}\n"
    )
    scenario = load(tmp_path, text)
    with pytest.raises(ScenarioError, match=message):
        run(scenario, tmp_path / "out", folder=tmp_path)
    assert not (tmp_path / "out").exists()


def bomb(levels: int, width: int) -> str:
    """Aliases of aliases: a few hundred bytes that would be `width ** levels` values."""
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 0x_", r"s\.yaml:2: seed: must be a whole number; got '0x_'"),
        ("seed: 1:30", r"s\.yaml:2: seed: must be a whole number; got '1:30'"),
        ("seed: 2020-01-01", r"s\.yaml:2: seed: must be a whole number; got '2020-01-01'"),
        ("seed: !!int x", r"s\.yaml:2: the tag 'tag:yaml\.org,2002:int' is not read"),
        (
            "seed: !!python/object/apply:os.getcwd []",
            r"s\.yaml:2: the tag 'tag:yaml\.org,2002:python/object/apply:os\.getcwd' is not read",
        ),
        (
            "seed: " + "9" * 5000,
            r"s\.yaml:2: seed: whole numbers lie between -2\^63 and 2\^64 - 1; got '9{50}",
        ),
        ("seed: 18446744073709551616", r"s\.yaml:2: seed: whole numbers lie between"),
        ("seed: -9223372036854775808", r"s\.yaml:2: seed: .*greater than or equal to 0"),
        ("seed: .inf", r"s\.yaml:2: seed: must be a finite number; got '\.inf'"),
        (
            "published: {click: .nan}",
            r"s\.yaml:2: published\.click: must be a finite number; got '\.nan'",
        ),
        (
            "published: {click: 1e999}",
            r"s\.yaml:2: published\.click: must be a finite number; got '1e999'",
        ),
        ("published: {click: 'inf'}", r"s\.yaml:2: published\.click: .*finite number"),
        (
            "published: {clack: 0.1}",
            r"s\.yaml:2: published\.clack: no metric 'clack'; did you mean 'click'\?",
        ),
        ("metrics: [click, click]", r"s\.yaml:2: metrics\.1: 'click' is there twice"),
        ("metrics: []", r"s\.yaml:2: metrics: must name at least one metric"),
        (
            "metrics: ['hit_rate@" + "9" * 5000 + "']",
            r"s\.yaml:2: metrics\.0: must be a metric's name",
        ),
        (bomb(9, 9), r"s\.yaml:\d+: a\d[.\d]+: more than 100,000 values once every alias"),
        ("description: &d {x: *d}", r"s\.yaml:2: description\.x: an anchor that contains itself"),
        ("description: " + "[" * 3000, r"s\.yaml:2: sections within sections, deeper than 32"),
        ("description: " + "{a: " * 3000, r"s\.yaml:2: sections within sections, deeper than 32"),
        (
            'description: "\\x1b[31m"',
            r"s\.yaml:2: description: a control character, U\+001B, in '\\x1b\[31m'; remove it",
        ),
        ('description: "\\ud800"', r"s\.yaml:2: description: a control character, U\+D800"),
        ('description: "\\UFFFFFFFF"', r"s\.yaml:2: not YAML"),
        ("description: \x07", r"s\.yaml:2: a control character, U\+0007"),
        ('"\\e[2J": 1', r"s\.yaml:2: a control character, U\+001B"),
        ("<<: {seed: 1}", r"s\.yaml:2: <<: merge keys are not read"),
        ("%YAML 1." + "9" * 5000 + "\n---\nseed: 1", r"s\.yaml:\d+: not YAML"),
        ("seed: 1\n---\nseed: 2", r"s\.yaml:\d+: not YAML: but found another document"),
        ("description: 7", r"s\.yaml:2: description: must be text; got 7; write it in quotes"),
        (
            "serving: {history: 1000000000}",
            r"s\.yaml:2: serving\.history: needs about [\d,]+ GiB of memory in one process",
        ),
        ("engine: {tick: 1e300}", r"s\.yaml:2: engine\.tick: .*less than or equal to"),
        (
            "worlds: {choice: {users: {kind: markov}}}",
            r"s\.yaml:2: worlds\.choice: the name 'choice' is kept for the scenario's own world",
        ),
        (
            "worlds: {real: {users: {kind: logged}}}",
            (
                r"s\.yaml:2: worlds\.real\.users\.kind: logged users do not go with data\.source"
                r" synthetic"
            ),
        ),
        (
            "worlds: {m: {users: {kind: [markov]}}}",
            r"s\.yaml:2: worlds\.m\.users\.kind: no kind \['markov'\]",
        ),
        (
            "worlds: {..: {users: {kind: markov}}}",
            r"s\.yaml:2: worlds\.\.\..*: a name must not consist of dots",
        ),
        (
            (
                "serving: {channels: [{policy: random, name: a, quota: 1}, {policy: random, name:"
                " A, quota: 1}]}"
            ),
            r"s\.yaml:2: serving\.channels\.1: 'A' differs from 'a' only in how it is written",
        ),
    ],
)
def test_any_text_ends_in_one_message_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ScenarioError, match=message):
        load(tmp_path, GOOD.replace("seed: 7", text))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("[choice]", r"s\.yaml:4: users\.kind: no kind \['choice'\]; did you mean 'choice'\?"),
        (
            "choice\n  n_users: 1000000000000",
            (
                r"s\.yaml:5: users\.n_users: needs about [\d,]+ GiB of memory"
                r" .*engine\.memory_limit \(64 GiB\)"
            ),
        ),
        (
            "choice\n  n_items: 1000000000000",
            r"s\.yaml:5: users\.n_items: needs about [\d,]+ GiB of memory",
        ),
        (
            "choice\n  videos: {authors: 2000000000}",
            r"s\.yaml:5: users\.videos: needs about [\d,]+ GiB of memory",
        ),
        (
            "choice\n  affinity: {base: .inf}",
            r"s\.yaml:5: users\.affinity\.base: must be a finite number",
        ),
        ("choice\n  affinity: {base: 'nan'}", r"s\.yaml:5: users\.affinity\.base: .*finite number"),
        (
            "choice\n  videos: {duration: {0.1: 5, 0.10: 6}}",
            r"s\.yaml:5: users\.videos\.duration: '0\.1' and '0\.10' are the same number",
        ),
        (
            "choice\n  videos: {duration: {}}",
            r"s\.yaml:5: users\.videos\.duration: .*at least 1 item",
        ),
        (
            f"choice\n  diurnal: {{hours: [{', '.join('0' * 24)}]}}",
            r"s\.yaml:5: users\.diurnal\.hours: one of the hours must have a weight",
        ),
        (
            "logged",
            (
                r"s\.yaml:4: users\.kind: logged users do not go with data\.source synthetic; it"
                r" has users of kind choice or markov"
            ),
        ),
    ],
)
def test_users_that_no_run_could_have_are_refused(tmp_path: Path, kind: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        load(tmp_path, GOOD.replace("kind: choice", f"kind: {kind}"))


def test_more_users_than_a_log_can_number_are_refused_whatever_the_memory(tmp_path: Path) -> None:
    text = (
        GOOD.replace("kind: choice", "kind: choice\n  n_users: 1000000000000")
        + "engine: {memory_limit: 1000000000}\n"
    )
    with pytest.raises(
        ScenarioError,
        match=r"users\.n_users: must be at most 2,147,483,647: a log numbers them in 32 bits",
    ):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("history", "the name 'history' is kept for what happened before the A/B"),
        ("ONE", "'ONE' differs from 'one' only in how it is written"),
        ("'\uff4fne'", "'\uff4fne' differs from 'one' only in how it is written"),
        ('"a\\nb"', r"a name is one line of printable characters; U\+000A is none"),
        ('"\\u202Eevil"', r"a name is one line of printable characters; U\+202E is none"),
        ("' two'", "a name must not begin or end with a space"),
        ("'.'", "a name must not consist of dots alone"),
        ("x" * 81, "at most 80 characters"),
    ],
)
def test_an_arm_has_a_name_of_its_own_that_can_be_printed(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ScenarioError, match=rf"(?s)s\.yaml:7: arms\..*{message}"):
        load(tmp_path, GOOD.replace("  two:", f"  ? {name}\n  :"))


def test_what_only_looks_like_something_else_is_text_and_numbers_are_numbers(
    tmp_path: Path,
) -> None:
    arms = "arms: {no: {policy: random}, 007: {policy: random}}\ndesign: {control: no}\n"
    scenario = load(
        tmp_path,
        "name: 'on'\nseed: 010\nusers: {kind: choice, n_users: 1e3, n_items: 1_000}\n" + arms,
    )
    assert list(scenario.arms) == ["no", "007"]
    assert (scenario.control, scenario.seed, scenario.users.n_users, scenario.users.n_items) == (
        "no",
        10,
        1000,
        1000,
    )  # type: ignore[attr-defined]
    assert load(tmp_path, GOOD.replace("seed: 7", "seed: 0x1F")).seed == 31


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding_is_named_and_a_byte_order_mark_is_none_of_the_text(
    tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(GOOD.replace("small", "klein\u00e9").encode(encoding))
    with pytest.raises(
        ScenarioError, match=r"s\.yaml:1: not UTF-8 text: byte 0x\w\w; save the file as UTF-8"
    ):
        Scenario.load(file)
    file.write_bytes(GOOD.encode("utf-8-sig"))
    assert Scenario.load(file) == load(tmp_path, GOOD)


def test_what_is_no_file_or_too_long_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (
        tmp_path / "pipe.yaml",
        tmp_path,
        Path("/dev/null"),
        Path("/dev/zero"),
        tmp_path / ("x" * 5000),
    ):
        with pytest.raises(ScenarioError):
            Scenario.load(path)
    long = tmp_path / "long.yaml"
    long.write_text(GOOD + "#" * (1 << 20))
    with pytest.raises(ScenarioError, match=r"long\.yaml: a scenario has at most 1,048,576 bytes"):
        Scenario.load(long)


def test_the_api_refuses_what_the_file_would(tmp_path: Path) -> None:
    plain = load(tmp_path, GOOD).resolved()
    for params in ({"half_life": math.inf}, {"x": [{"y": math.nan}]}, {"x": object()}):
        with pytest.raises(ValueError, match=r"finite numbers|must be text, numbers"):
            Scenario.model_validate(
                {**plain, "arms": {"one": {"policy": "popularity", "params": params}}}
            )


def test_a_million_users_are_within_the_limit_and_the_estimate_grows_with_them() -> None:
    from simulator.scenario import memory

    scenario = Scenario.load("million_users.yaml")
    needed = sum(part.size for part in memory.needed(scenario, 1_000_000, 10_000))
    assert 2 < needed / memory.GIB < 16
    assert sum(part.size for part in memory.needed(scenario, 2_000_000, 10_000)) > 1.9 * needed
    keys, rule = memory.excess(scenario, 100_000_000, 10_000) or ((), "")
    assert keys == ("users", "n_users")
    assert "impressions of the history" in rule
    assert "raise engine.memory_limit" in rule


NAMES = [
    *(
        "a",
        "A",
        "a b",
        "a-b",
        "a/b",
        "../a",
        "..",
        ".",
        "a.",
        "\u00e9",
        "e\u0301",
        "con",
        "claim.json",
        "%41",
        "<b>",
    ),
    *("x" * 80, "x" * 79 + "/"),
]


def test_every_name_becomes_one_safe_file_name() -> None:
    files = [file_name(name) for name in NAMES]
    assert len({name.casefold() for name in files}) == len(NAMES)
    assert all(re.fullmatch(r"[A-Za-z0-9_~-]{1,64}", name) for name in files)
    assert file_name("recgpt1") == "recgpt1"


def test_check_makes_built_in_policies_and_imports_no_plug_in(tmp_path: Path) -> None:
    plugin = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass Mine: ...\n"
    (tmp_path / "mine.py").write_text(plugin)
    explore = "policy: explore, params: {policy: popularity, policy_params: {half_lif: 3}}"
    channel = (
        "serving: {channels: [{policy: popularity, name: c, quota: 2, params: {half_life: -1}}]}\n"
    )
    text = (
        GOOD.replace("policy: random", explore).replace(
            "policy: popularity\n", "policy: 'mine.py:Mine'\n"
        )
        + channel
    )
    (tmp_path / "s.yaml").write_text(text)
    result = CliRunner().invoke(main, ["scenario", "check", str(tmp_path / "s.yaml")])
    assert result.exit_code == 2
    assert re.search(
        r"s\.yaml:6: arms\.one\.params\.policy_params\.half_lif: .*did you mean 'half_life'\?",
        result.stderr,
    )
    assert re.search(
        r"s\.yaml:11: serving\.channels\.0\.params: policy 'popularity': the 'half_life' parameter",
        result.stderr,
    )
    assert not (tmp_path / "ran").exists()
    (tmp_path / "s.yaml").write_text(
        GOOD.replace("policy: popularity\n", "policy: 'mine.py:Mine'\n")
    )
    result = CliRunner().invoke(main, ["scenario", "check", str(tmp_path / "s.yaml")])
    assert result.exit_code == 0
    assert "mine.py:Mine: there, but not imported" in result.stdout
    assert not (tmp_path / "ran").exists()
    result = CliRunner().invoke(main, ["scenario", "check", "--plug-ins", str(tmp_path / "s.yaml")])
    assert result.exit_code == 2
    assert "must be a subclass of policies.base.Policy" in result.stderr
    assert (tmp_path / "ran").exists()


def test_check_and_run_look_for_the_data_of_every_world_first(tmp_path: Path) -> None:
    world = "worlds: {real: {users: {kind: logged}, data: {source: log, path: nowhere.parquet}}}\n"
    (tmp_path / "s.yaml").write_text(GOOD + world)
    for command in (["scenario", "check"], ["run", "--out", str(tmp_path / "out")]):
        result = CliRunner().invoke(main, [*command, str(tmp_path / "s.yaml")])
        assert result.exit_code == 2
        assert re.search(
            r"s\.yaml:11: worlds\.real\.data\.path: nothing at 'nowhere\.parquet'", result.stderr
        )
    assert not (tmp_path / "out").exists()


def test_any_bytes_and_any_value_of_any_key_end_as_a_scenario_or_a_message(tmp_path: Path) -> None:
    """Mutated bytes of a shipped scenario, and each of its keys with values that somebody may
    write: never another error.
    """
    draw = random.Random(13)
    whole = find("kuaishou_like.yaml").read_bytes()
    pieces = [
        b"\0",
        b"\xff",
        b"&a ",
        b"*a",
        b"<<: ",
        b"---\n",
        b"\t",
        b"{",
        b"]",
        b": ",
        b"!!int ",
        b"'",
        b'"',
        b".nan",
        b"9" * 5000,
    ]
    file, refused = tmp_path / "s.yaml", 0
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 2, 10])):
            place = draw.randrange(len(content))
            content[place : place + draw.choice([0, 1, 40])] = draw.choice(pieces)
        file.write_bytes(content)
        refused += _refused(file)
    values = [
        "null",
        "[]",
        "{}",
        "''",
        "-1",
        "1e308",
        ".nan",
        "1" + "0" * 30,
        "no",
        "2020-01-01",
        "[[x]]",
        "{a: {b: 1}}",
    ]
    values += ["'\u202e'", "'../x'"]
    lines = whole.decode().splitlines()
    keyed = [i for i, line in enumerate(lines) if re.match(r" *\w+: *\S", line)]
    for _ in range(60):
        i = draw.choice(keyed)
        file.write_text(
            "\n".join(
                [
                    *lines[:i],
                    f"{lines[i].partition(':')[0]}: {draw.choice(values)}",
                    *lines[i + 1 :],
                ]
            )
        )
        refused += _refused(file)
    assert refused > 60


def _refused(file: Path) -> bool:
    message = None
    try:
        Scenario.load(file)
    except ScenarioError as error:
        message = str(error)
    assert message is None or str(file) in message
    assert all(character.isprintable() or character == "\n" for character in message or "")
    return message is not None
