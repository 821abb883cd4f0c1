"""Worlds made from a log: what is measured on it, what it cannot say, how days that were kept back
are foretold, and the command on files of several formats.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from policies.time import DAY
from simulator import datasets
from simulator.calibration import choice_of_log, kept_back, log_targets
from simulator.calibration.log_targets import LogFigures, measure_log, share_of_returning
from simulator.calibration.targets import CATALOGUE, CLICKS, LOGGING, held_to, world_log
from simulator.cli import main
from simulator.scenario.model import Scenario
from simulator.scenario.parts import Data
from simulator.users.base import Source, UsersError
from simulator.users.learned import Learned
from simulator.users.learned.evaluation import ResponseEvaluation, Total, evaluate
from simulator.users.learned.fitting import fit as fit_response

START = 1_714_521_600_000
"""2024-05-01 00:00 UTC, ms."""

HELD = 2
"""Days that are kept back."""


def reality() -> Scenario:
    """A world that plays reality; no fit knows its parameters."""
    return Scenario.model_validate(
        {
            "name": "reality",
            "seed": 5,
            "users": {
                "kind": "choice",
                "n_users": 500,
                "n_items": 120,
                "affinity": {"base": -4.4, "user": 0.9},
                "arrival": {"per_day": 1.0, "shape": 1.2, "busiest": 1000.0},
            },
            "data": {
                "source": "synthetic",
                "history_days": 8,
                "logging": {"policy": "production", "temperature": 1.0, "epsilon": 0.1},
            },
            "serving": {"slate": 2, "recall": 40, "seen": 8},
            "arms": {"random": {"policy": "random"}},
        }
    )


@pytest.fixture(scope="module")
def real_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the users of `reality` have seen and answered, as a table, `HELD` days longer than its
    history.
    """
    seen = world_log(reality(), 5, LOGGING, Path(), ahead=HELD)
    order = np.lexsort((seen.t, seen.user))
    lines = ["visitor,video,ts,clicked,watch_time,video_duration,is_like"]
    like = seen.kinds["like"]
    t = seen.t + START + 10 * DAY
    lines += [
        f"u{seen.user[i]},{seen.item[i]:03d},{t[i]},{int(seen.click[i])},"
        f"{seen.watch[i]:.3f},{seen.duration[i]:.3f},{int(like[i])}"
        for i in order
    ]
    file = tmp_path_factory.mktemp("log") / "events.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def read(file: Path, **keys: Any) -> Source:
    section = {"source": "table", "path": str(file), "test_days": HELD, **keys}
    return datasets.read(Data.model_validate(section), Path())


COLUMNS = {
    "user": "visitor",
    "item": "video",
    "time": {"column": "ts", "unit": "ms"},
    "click": "clicked",
    "watch": "watch_time",
    "duration": "video_duration",
    "like": "is_like",
}


@pytest.fixture(scope="module")
def source(real_log: Path) -> Source:
    return read(real_log, columns=COLUMNS)


@pytest.fixture(scope="module")
def figures(source: Source) -> LogFigures:
    return measure_log(source, 400, 1, 0.1)


def value(figures: LogFigures, name: str, feed: str = LOGGING) -> float:
    return next(t.value for t in figures.targets if t[:2] == (feed, name))


# What a log says.


def test_targets_are_those_of_the_training_days(source: Source, figures: LogFigures) -> None:
    assert source.history is not None
    table = source.history.table
    click = table["click"].to_numpy(zero_copy_only=False)
    assert value(figures, "click") == pytest.approx(click.mean())
    assert figures.whole.days == 8
    assert len(figures.whole.user) == len(click)
    user_days = len({*zip(table["user"].to_numpy(), table["t"].to_numpy() // DAY, strict=True)})
    users = len(np.unique(table["user"].to_numpy()))
    assert value(figures, "active user-days") == pytest.approx(user_days / (8 * users))
    assert value(figures, "impressions of a user") == pytest.approx(len(click) / users)
    assert {t.feed for t in figures.targets} == {LOGGING, CATALOGUE}
    assert figures.not_measured.keys() == {"random exposure"}


def test_what_depends_on_the_number_of_users_is_measured_on_as_many(figures: LogFigures) -> None:
    shown = np.sort(np.bincount(figures.seen.item, minlength=figures.world_items + 1)[1:])
    n = len(shown)
    gini = np.abs(shown[:, None] - shown).sum() / (2 * n * shown.sum())
    assert figures.seen.n_users == figures.world_users == 400
    assert value(figures, "exposure gini") == pytest.approx(gini)


def test_the_same_users_stand_for_all_in_any_order_of_batches(source: Source) -> None:
    one, other = (measure_log(source, 100, 7, 0.1) for _ in range(2))
    assert one.targets == other.targets
    assert measure_log(source, 100, 8, 0.1).targets != one.targets


def test_a_figure_that_is_badly_known_is_no_target(figures: LogFigures) -> None:
    named = {target.name: target for target in figures.targets}
    for target in figures.targets:
        assert target.se <= log_targets.PRECISE * target.value
    assert "its standard error is" in figures.too_few["like | no click"]
    assert "like | no click" not in named


def test_the_fragment_of_a_first_day_is_left_out(real_log: Path, tmp_path: Path) -> None:
    lines = real_log.read_text().splitlines()
    early = lines[1].split(",")
    early[2] = str(START - 1000)  # the evening before
    file = tmp_path / "events.csv"
    file.write_text("\n".join([lines[0], ",".join(early), *lines[1:]]) + "\n")
    assert measure_log(read(file, columns=COLUMNS), 400, 1, 0.1).whole.days == 8


@pytest.mark.parametrize(
    ("without", "unknown"),
    [
        (("watch",), {"watch time"}),
        (("duration",), {"lengths of items"}),
        (("watch", "duration"), {"watch time", "lengths of items"}),
    ],
)
def test_what_a_log_lacks_is_no_target(
    real_log: Path, without: tuple[str, ...], unknown: set[str]
) -> None:
    columns = {role: one for role, one in COLUMNS.items() if role not in without}
    found = measure_log(read(real_log, columns=columns), 200, 1, 0.1)
    assert found.not_measured.keys() == {"random exposure", *unknown}
    names = {target.name for target in found.targets}
    assert "click" in names
    if "watch" in without:
        assert not [name for name in names if name.startswith("watch")]
    if "duration" in without:
        assert not [name for name in names if "/duration" in name or name.endswith(" s")]
        assert not [t for t in found.targets if t.feed == CATALOGUE]


def test_a_click_that_is_no_play_keeps_watch_time_out(real_log: Path) -> None:
    """A world's click is a play of 7 s; of a log in which it is a like, watch time is no target."""
    columns = {**COLUMNS, "click": "is_like"}
    del columns["like"]
    found = measure_log(read(real_log, columns=columns), 200, 1, 0.1)
    assert "a play of 7 s" in found.not_measured["watch time"]
    assert not [target for target in found.targets if target.name.startswith("watch")]


def test_a_log_of_clicks_is_measured_on_its_clicks(real_log: Path) -> None:
    columns = {role: COLUMNS[role] for role in ("user", "item", "time")}
    found = measure_log(read(real_log, columns=columns), 200, 1, 0.07)
    assert found.is_implicit
    assert value(found, "click") == 0.07
    assert {t.name for t in found.targets if t.feed == LOGGING} == {"click"}
    assert value(found, "impressions of a user", CLICKS) == pytest.approx(
        len(found.whole.user) / len(found.users)
    )
    assert "assumed is a click rate of 0.07 (--click-rate)" in found.not_measured["click rates"]


def test_users_who_do_not_come_back_are_told_from_those_who_do(
    source: Source, real_log: Path, tmp_path: Path
) -> None:
    assert share_of_returning(source) > 0.5
    once = tmp_path / "once.csv"
    rows = [f"u{u},{u % 7},{START + (u % 9) * DAY + k},1" for u in range(90) for k in range(5)]
    once.write_text("visitor,video,ts,clicked\n" + "\n".join(rows) + "\n")
    columns = {role: COLUMNS[role] for role in ("user", "item", "time", "click")}
    assert share_of_returning(read(once, columns=columns)) == 0.0


# Parts of rows in place of days.


def test_parts_are_pieces_of_each_users_rows(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    rows = [f"a,{i},{i % 2}" for i in range(10)] + ["b,1,1", "b,2,0"]
    file.write_text("user,item,click\n" + "\n".join(rows) + "\n")
    columns = {name: name for name in ("user", "item", "click")}
    found = read(file, columns=columns, split="parts", parts=5)
    assert found.history is not None
    assert found.future is not None
    past, future = (log.sequences("history") for log in (found.history, found.future))
    assert (past.t // DAY).tolist() == [-3, -3, -2, -2, -1, -1, -3, -1]  # of a, then of b
    assert (future.t // DAY).tolist() == [0, 0, 1, 1]
    assert np.diff(past.offsets).tolist() == [6, 2]
    assert found.notes["parts of each user's rows, which stand for days"] == 5


def test_what_came_together_stays_in_one_part(tmp_path: Path) -> None:
    file = tmp_path / "log.csv"
    rows = [f"a,{i},{1_000 + i // 3}" for i in range(12)]
    file.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    columns = {"user": "user", "item": "item", "time": {"column": "time", "unit": "s"}}
    found = read(file, columns=columns, split="parts", parts=5)
    assert found.history is not None
    assert found.future is not None
    sizes = [
        len(np.unique(log.table["request"].to_numpy())) for log in (found.history, found.future)
    ]
    together = [log.table["t"].to_numpy() for log in (found.history, found.future)]
    assert sum(len(np.unique(t)) for t in together) == 4  # requests, each at one time
    assert sum(sizes) >= 2
    every = np.concatenate(together)
    assert sorted(np.unique(every, return_counts=True)[1].tolist()) == [3, 3, 3, 3]


def test_a_part_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="test_days must be smaller; got 2"):
        Data.model_validate(
            {
                "source": "table",
                "columns": {"user": "u", "item": "i"},
                "split": "parts",
                "parts": 2,
                "test_days": 2,
            }
        )


# Learned users of a log without watch times.


def test_learned_users_of_a_log_without_watch_times_answer_without(real_log: Path) -> None:
    columns = {role: COLUMNS[role] for role in ("user", "item", "time", "click", "like")}
    found = read(real_log, columns=columns)
    response = fit_response(Learned(epochs=2), found, 1, lambda *_: None)
    assert not response.has_watch
    users, items = np.arange(40), np.arange(1, 41)[:, None]
    nothing = np.zeros(40, dtype=np.int64)
    click, watch, kinds = response.answer(1, users, nothing, items, nothing, nothing)
    assert np.isnan(watch).all()
    assert set(np.unique(click)) <= {0, 1}
    assert set(kinds) == {"like"}
    result = evaluate(response, found)
    assert {total.what for total in result.totals} == {"click", "like"}
    assert result.coverage == {}
    real = np.asarray(found.future.sequences("history").clicked) if found.future else np.zeros(0)
    days = [t for t in result.totals if t.group.startswith("day ") and t.what == "click"]
    assert sum(total.actual for total in days) == real.sum()
    assert sum(t.predicted for t in days) == pytest.approx(real.sum(), rel=0.15)


def test_a_model_of_clicks_alone_is_refused(real_log: Path) -> None:
    columns = {role: COLUMNS[role] for role in ("user", "item", "time")}
    with pytest.raises(UsersError, match="every one is a click"):
        fit_response(Learned(epochs=1), read(real_log, columns=columns), 1, lambda *_: None)


# Kept-back days.


def test_reality_foretells_itself(source: Source, figures: LogFigures) -> None:
    """The world that made the log goes on as the log did, user by user."""
    rows = kept_back.of_choice(figures, reality(), source, HELD)
    assert {(row.day, row.what) for row in rows} == {
        (day, what)
        for day in (1, 2)
        for what in ("clicks", "impressions", "watch time", "active users")
    }
    assert source.future is not None
    clicks = source.future.table["click"].to_numpy(zero_copy_only=False)
    actual = sum(row.actual for row in rows if row.what == "clicks")
    assert 0.95 * clicks.sum() <= actual <= clicks.sum()  # those of users who are known
    assert max(abs(row.error) for row in rows) < 0.03  # the world's newcomers are not left out
    assert all(row.within for row in rows)


def test_a_world_that_comes_twice_as_often_misses(source: Source, figures: LogFigures) -> None:
    values = reality().resolved()
    values["users"]["arrival"]["per_day"] = 2.0
    rows = kept_back.of_choice(figures, Scenario.model_validate(values), source, HELD)
    assert [row.within for row in rows if row.what == "impressions"] == [False, False]


def test_totals_are_within_their_tolerance_and_noise() -> None:
    totals = [
        Total("day 1", "click", 100, 104.0, 100.0, 0.04, 0.0),
        Total("day 2", "click", 100, 108.0, 100.0, 0.08, 0.01),
        Total("day 3", "watch", 100, 108.0, 100.0, 0.08, 0.02),
        Total("day 4", "watch", 100, 1.0, 0.0, float("nan"), float("nan")),
        Total("user history 1-5", "click", 100, 1.0, 100.0, -0.99, 0.0),
    ]
    rows = kept_back.of_learned(totals)
    assert [(row.day, row.what, row.within) for row in rows] == [
        (1, "clicks", True),
        (2, "clicks", False),
        (3, "watch time", True),
    ]


# The fit.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once through all stages: enough to see that everything works."""
    monkeypatch.setattr(choice_of_log, "ROUNDS", 1)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def run_it(scenario: Path, out: Path) -> None:
    done = run("run", scenario, "--out", out, "--engine.executor", "serial")
    assert done.exit_code == 0, done.output


def test_a_fitted_world_has_the_marginals_of_reality(figures: LogFigures) -> None:
    """It begins elsewhere, and comes within 10% (and errors) of nearly everything."""
    begun = choice_of_log.begin(figures, "x", 3, "made")
    assert begun.users.affinity.base != pytest.approx(-4.4, abs=0.2)
    found = choice_of_log.fit_choice(figures, "x", 3, "made")
    rows = {row.name: row for row in found.rows}
    assert len(rows) > 20
    for name in ("click", "exposure gini", "impressions of a user", "activity gini"):
        assert rows[name].ratio == pytest.approx(1.0, abs=0.15), name
    far = [row for row in found.rows if abs(row.ratio - 1) > 0.1 + 2 * np.nan_to_num(row.se)]
    assert len(far) <= len(rows) / 8, [(row.name, row.ratio) for row in far]
    assert held_to(found.scenario.calibration) == held_to(begun.calibration)


def test_the_command_writes_scenarios_that_run(real_log: Path, tmp_path: Path, quick: None) -> None:
    out = tmp_path / "world" / "mine.yaml"
    out.parent.mkdir()
    done = run("world", "fit", real_log, "--out", out, "--size", 200)
    assert done.exit_code in (0, 1), done.output
    assert isinstance(done.exception, SystemExit | None), done.exception
    written = json.loads(out.with_suffix(".json").read_text())
    assert {row["by"] for row in written["forecasts"]} == {"learned", "choice"}
    near = [row for row in written["forecasts"] if row["by"] == "learned"]
    assert [row["what"] for row in near] == ["clicks", "watch time"] * 2
    missed = [row for row in written["forecasts"] if not row["within"]]
    assert (done.exit_code == 0) == (not missed and "out of tolerance" not in done.output)
    world, learned = Scenario.load(out), Scenario.load(out.with_name("mine_learned.yaml"))
    assert (world.users.kind, learned.users.kind) == ("choice", "learned")
    assert world.calibration.basis.startswith("events.csv: the 8 days before the kept-back ones")
    held = run("calibrate", out)
    assert held.exit_code in (0, 1)
    assert f"of {len(held_to(world.calibration))} marginals within 10%" in held.output
    assert "not measured: random exposure" in held.output
    again = tmp_path / "again" / "mine.yaml"
    again.parent.mkdir()
    run("world", "fit", real_log, "--out", again, "--size", 200, "--users", "choice")
    assert again.read_bytes() == out.read_bytes()
    run_it(out.with_name("mine_learned.yaml"), tmp_path / "run")


MOVIES = np.random.default_rng(2)


def ratings() -> list[tuple[int, int, int, int]]:
    """Users who rate some dozen films on one day of a year each, and never come back."""
    rows = []
    for user in range(1, 151):
        t = 880_000_000 + int(MOVIES.integers(0, 365 * 86_400))
        films = MOVIES.choice(60, size=int(MOVIES.integers(20, 41)), replace=False) + 1
        for place, film in enumerate(films.tolist()):
            stars = int(np.clip(round(3.4 + MOVIES.normal() + (film % 5 - 2) / 3), 1, 5))
            rows.append((user, film, stars, t + 30 * place))
    return rows


def write_u_data(folder: Path) -> Path:
    file = folder / "u.data"
    file.write_text("".join("\t".join(map(str, row)) + "\n" for row in ratings()))
    return file


def write_ratings_csv(folder: Path) -> Path:
    file = folder / "ratings.csv"
    lines = [",".join(map(str, row)) for row in ratings()]
    file.write_text("\n".join(["userId,movieId,rating,timestamp", *lines]) + "\n")
    return file


def write_tenrec(folder: Path) -> Path:
    """`ctr_data_1M.csv`: no times, the order of rows is that of time."""
    rng = np.random.default_rng(4)
    head = "user_id,item_id,click,follow,like,share,video_category,watching_times,gender,age"
    lines = [head]
    for user in range(150):
        level = rng.normal(-0.8, 0.6)
        for item in rng.integers(0, 60, int(rng.integers(15, 60))).tolist():
            click = int(rng.random() < 1 / (1 + np.exp(-level - (item % 7 - 3) / 3)))
            lines.append(f"{user},{item},{click},0,{click * int(item % 9 == 0)},0,1,{click},1,2")
    file = folder / "ctr_data_1M.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize("write", [write_u_data, write_ratings_csv, write_tenrec])
def test_logs_without_days_are_cut_into_parts(tmp_path: Path, write: Any, quick: None) -> None:
    out = tmp_path / "world.yaml"
    done = run("world", "fit", write(tmp_path), "--out", out)
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.exit_code in (0, 1), done.output
    assert "not measured: watch time: the log has none" in done.output
    assert "parts of each user's rows" in done.output
    world, learned = Scenario.load(out), Scenario.load(tmp_path / "world_learned.yaml")
    assert learned.data.split == "parts"
    assert (learned.data.parts, learned.data.test_days) == (10, 2)
    assert world.data.history_days == 8
    assert "watch_time" not in world.metric_names
    found = json.loads(out.with_suffix(".json").read_text())
    clicks = [row for row in found["forecasts"] if row["by"] == "learned"]
    assert [row["within"] for row in clicks] == [True, True]
    names = {t.name for t in held_to(world.calibration)}
    assert {"click", "impressions of a user", "exposure gini"} <= names
    assert not [name for name in names if name.startswith(("hour", "back", "watch"))]
    run_it(tmp_path / "world_learned.yaml", tmp_path / "run")


def test_a_log_of_clicks_makes_a_choice_world_alone(
    real_log: Path, tmp_path: Path, quick: None
) -> None:
    rows = [line.split(",") for line in real_log.read_text().splitlines()[1:]]
    file = tmp_path / "clicks.csv"
    kept = [f"{r[0]},{r[1]},{r[2]}" for r in rows if r[3] == "1"]
    file.write_text("visitor,video,ts\n" + "\n".join(kept) + "\n")
    out = tmp_path / "clicks.yaml"
    done = run("world", "fit", file, "--out", out, "--size", 200, "--click-rate", 0.3)
    assert done.exit_code in (0, 1), done.output
    assert "no learned users: every row of the log is a click" in done.output
    assert "assumed is a click rate of 0.3 (--click-rate)" in done.output
    assert not (tmp_path / "clicks_learned.yaml").exists()
    refused = run("world", "fit", file, "--out", out, "--users", "learned")
    assert refused.exit_code == 2
    assert "--users choice" in refused.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--columns", "user"], "ROLE=COLUMN, as user=visitor; got 'user'"),
        (["--columns", "usr=a"], "no role 'usr'; did you mean 'user'?"),
        (["--columns", "user=a", "--columns", "user=b"], "user is named twice"),
        ([], "no column is called like item or user: say which it is, --columns item=COLUMN"),
        (["--columns", "user=a", "--columns", "item=z"], "no column 'z' for item; it has a, b"),
        (["--map", "map.yaml"], "map.yaml: must have the key `data`"),
        (
            ["--map", "bad.yaml"],
            "bad.yaml:2: data.colums: no such key 'colums'; did you mean 'columns'?",
        ),
        (["--map", "bad.yaml", "--columns", "user=a"], "give one of them"),
    ],
)
def test_bad_input_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("a,b\n1,2\n")
    Path("map.yaml").write_text("source: table\n")
    Path("bad.yaml").write_text("data: {source: table,\n  colums: {user: a, item: b}}\n")
    done = run("world", "fit", "log.csv", "--out", "o.yaml", *arguments)
    assert done.exit_code == 2, done.output
    assert words in done.output, done.output
    assert not Path("o.yaml").exists()


def test_columns_that_are_named_need_no_guess(real_log: Path, tmp_path: Path, quick: None) -> None:
    text = real_log.read_text().replace("visitor,video,ts,clicked", "a,b,c,d", 1)
    file = tmp_path / "log.csv"
    file.write_text(text)
    named = [
        f"--columns={role}={c}" for role, c in zip(("user", "item", "time"), "abc", strict=True)
    ]
    out = tmp_path / "o.yaml"
    done = run(
        "world", "fit", file, "--out", out, "--users", "learned", *named, "--columns=click=d"
    )
    assert done.exit_code in (0, 1), done.output
    section = yaml.safe_load(out.read_text())["data"]
    assert section["columns"]["time"]["unit"] == "ms"
    assert section["columns"]["click"]["column"] == "d"
    assert section["path"] == str(file)


@pytest.mark.data
def test_learned_users_foretell_kuairands_days_within_five_per_cent(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all days but the last two: AUC, calibration and daily totals of days that the model has
    not seen.
    """
    found: list[ResponseEvaluation] = []

    def remembered(*arguments: Any) -> ResponseEvaluation:
        found.append(evaluate(*arguments))
        return found[0]

    monkeypatch.setattr("simulator.users.learned.evaluation.evaluate", remembered)
    monkeypatch.setenv("ABTEST_DATA", str(data_root))
    done = run("world", "fit", "kuairand", "--out", tmp_path / "k.yaml", "--users", "learned")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "k.json").read_text())
    assert len(written["forecasts"]) == 4
    assert all(abs(row["error"]) < 0.05 for row in written["forecasts"])
    (model,) = found
    assert model.heads[0].auc >= 0.72
    assert model.calibration_error <= 0.02
    assert model.heads[0].log_loss < model.heads[0].base_log_loss - 0.08
    for level, share in model.coverage.items():
        assert share == pytest.approx(level, abs=0.02)
