"""Several fits of each method: who lives with which, what the log says, what a verdict may say."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from policies.base import Policy
from policies.registry import make
from simulator import report
from simulator.cli import main
from simulator.cli.power import power
from simulator.designs.fits import FitsSpec
from simulator.log.eventlog import EventLog
from simulator.log.metadata import FIT, LogError
from simulator.offpolicy.rounds import Stream
from simulator.report.stored import encode
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario, ScenarioError
from simulator.stats import units
from simulator.stats.checks import fits_ratio
from simulator.stats.methods import method_lifts, unknown
from tests.worlds import log_digests, simulate_scenario, tiny_scenario, write_scenario

BPR: dict[str, Any] = {"policy": "bpr", "params": {"width": 8, "training": {"epochs": 1}}}
ARMS: dict[str, Any] = {"counts": {"policy": "itemknn"}, "network": BPR}
DIVIDED: dict[str, Any] = {"number": 3}
CROSSED: dict[str, Any] = {"number": 3, "design": "crossed"}


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = tiny_scenario(ARMS, fits=DIVIDED)
    return simulate_scenario(tmp_path_factory.mktemp("divided"), content)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = tiny_scenario(ARMS, fits=CROSSED)
    return simulate_scenario(tmp_path_factory.mktemp("crossed"), content)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_scenario(tmp_path_factory.mktemp("single"), tiny_scenario(ARMS))


def rows_of(root: Path, arm: str, fit: int | None = None) -> pa.Table:
    log = EventLog.open(root / "log")
    table = log.table
    table = table.filter(pc.equal(table["arm"], log.metadata.arms.index(arm)))
    if fit is not None:
        table = table.filter(pc.equal(table[FIT], fit))
    return table.drop_columns([FIT]) if FIT in table.column_names else table


def test_one_fit_is_the_scenario_that_it_always_was(single: Path, tmp_path: Path) -> None:
    """The same bytes, and no column."""
    said = simulate_scenario(tmp_path, tiny_scenario(ARMS, fits=1))
    assert log_digests(said) == log_digests(single)
    assert FIT not in EventLog.open(single / "log").table.column_names


def test_divided_users_live_with_one_fit_in_every_arm(divided: Path) -> None:
    log = EventLog.open(divided / "log")
    log.validate()
    table = log.table.filter(pc.greater(log.table["arm"], 0))
    user, fit = table["user"].to_numpy().astype(int), table[FIT].to_numpy()
    theirs = FitsSpec(number=3).fit_of_user(9, np.arange(log.metadata.n_users), 3)
    np.testing.assert_array_equal(fit, theirs[user])
    assert set(fit) == {0, 1, 2}


def test_crossed_users_live_with_every_fit(crossed: Path) -> None:
    log = EventLog.open(crossed / "log")
    log.validate()
    assert log.metadata.key == ("arm", "fit", "user", "session", "request", "position")
    who = [set(rows_of(crossed, "network", fit)["user"].to_pylist()) for fit in range(3)]
    assert who[0] == who[1] == who[2]
    assert not rows_of(crossed, "network", 0).equals(rows_of(crossed, "network", 1))


def test_the_first_fit_is_the_only_one_of_a_run_with_one(single: Path, crossed: Path) -> None:
    """And a policy that draws nothing is the same in every fit."""
    for arm, fits in (("network", [0]), ("counts", [0, 1, 2])):
        for fit in fits:
            assert rows_of(crossed, arm, fit).equals(rows_of(single, arm))


def test_divided_users_do_as_their_fit_makes_them_do(divided: Path, crossed: Path) -> None:
    """The users of a fit have the lives that they have with it where everybody has."""
    theirs = FitsSpec(number=3).fit_of_user(9, np.arange(1000), 3)
    for fit in range(3):
        whole = rows_of(crossed, "network", fit)
        mine = whole.filter(pa.array(theirs[whole["user"].to_numpy()] == fit))
        assert rows_of(divided, "network", fit).equals(mine)


@pytest.mark.parametrize("fits", [DIVIDED, CROSSED], ids=["divided", "crossed"])
def test_the_cut_of_the_work_changes_no_byte(
    fits: dict[str, Any], divided: Path, crossed: Path, tmp_path: Path
) -> None:
    engine = {"executor": "serial", "block": 7, "shards": 3}
    again = simulate_scenario(tmp_path, tiny_scenario(ARMS, fits=fits, engine=engine))
    assert log_digests(again) == log_digests(divided if fits is DIVIDED else crossed)


@pytest.mark.parametrize("kind", ["split", "switchback", "interleave"])
@pytest.mark.parametrize("fits", [DIVIDED, CROSSED], ids=["divided", "crossed"])
def test_every_design_takes_part(kind: str, fits: dict[str, Any], tmp_path: Path) -> None:
    content = tiny_scenario(ARMS, fits=fits, design={"kind": kind}, days=4)
    log = EventLog.open(simulate_scenario(tmp_path, content) / "log")
    log.validate()
    days = units.read(log)
    assert days.fits == (3, 3)
    unit = log.metadata.design.unit
    found = {row.lift.metric: row for row in method_lifts(days, "counts", unit=unit)}
    assert found["click"].components.n_fits == 3
    assert np.isfinite(found["click"].lift.p)


def test_refits_channels_and_worlds_take_part(tmp_path: Path) -> None:
    """A refit of a divided run learns from everybody, one of a crossed run from its own lives."""
    channel = {"name": "network", "quota": 5, **BPR}
    serving = {"slate": 3, "recall": 8, "refit": "daily", "channels": [channel]}
    models = {}
    for name, fits in (("divided", DIVIDED), ("crossed", CROSSED)):
        content = tiny_scenario(ARMS, fits=fits, serving=serving)
        root = simulate_scenario(tmp_path / name, content)
        EventLog.open(root / "log").validate()
        models[name] = sorted(place.name for place in (root / "models").iterdir())
    own = [name for name in models["crossed"] if "-day-1-" in name]
    assert len([name for name in own if name.startswith("transitions")]) == 3
    own = [name for name in models["divided"] if "-day-1-" in name]
    assert len([name for name in own if name.startswith("transitions")]) == 1
    assert len([name for name in own if name.startswith("bpr")]) == 3


def test_lives_that_no_fit_can_change_are_lived_once(tmp_path: Path) -> None:
    """A policy that draws nothing serves the same lives in every fit: they are simulated once, and
    its refits on them are one; what learns from the networks' days, too, is another in each fit.
    """
    impressions, refits = {}, {}
    for on in ("own", "pooled"):
        serving = {"slate": 3, "recall": 8, "refit": "daily", "refit_on": on}
        content = tiny_scenario(ARMS, fits=CROSSED, serving=serving)
        file = write_scenario(tmp_path / on, content)
        outcome = simulate(Scenario.load(file), tmp_path / on / "run")
        rows = {arm: [rows_of(outcome.root, arm, fit) for fit in range(3)] for arm in ARMS}
        assert rows["counts"][0].equals(rows["counts"][1]) == (on == "own")
        impressions[on] = outcome.runtime["simulate impressions"]
        lived = rows["network"] + rows["counts"][: 1 if on == "own" else 3]
        assert impressions[on] == sum(table.num_rows for table in lived)
        models = [place.name for place in (outcome.root / "models").iterdir()]
        refits[on] = [one for one in models if one.startswith("transitions") and "-day-1-" in one]
    assert (len(refits["own"]), len(refits["pooled"])) == (1, 3)


def test_the_seed_of_the_fits_is_a_key_of_its_own(tmp_path: Path, single: Path) -> None:
    """Another seed of the fits: the world and the counts stay, the network does not."""
    other = simulate_scenario(tmp_path, tiny_scenario(ARMS, fits={"number": 1, "seed": 4}))
    assert rows_of(other, "counts").equals(rows_of(single, "counts"))
    assert not rows_of(other, "network").equals(rows_of(single, "network"))


def test_an_arm_of_one_fit_among_several(tmp_path: Path) -> None:
    """It serves everybody with that one, and nothing is said of its method; one that draws nothing
    is known by it.
    """
    arms = {"counts": {**ARMS["counts"], "fits": 1}, "again": {**BPR, "fits": 1}, "network": BPR}
    root = simulate_scenario(tmp_path, tiny_scenario(arms, fits=DIVIDED))
    log = EventLog.open(root / "log")
    log.validate()
    days = units.read(log)
    assert unknown(days, "counts", "network") is None
    assert unknown(days, "counts", "again") == "one fit of again"
    assert {row.lift.arm for row in method_lifts(days, "counts")} == {"network"}


def test_policies_that_draw_nothing_are_known_by_their_models(tmp_path: Path) -> None:
    arms = {"counts": ARMS["counts"], "popularity": {"policy": "popularity"}}
    root = simulate_scenario(tmp_path, tiny_scenario(arms, fits=DIVIDED))
    days = units.read(EventLog.open(root / "log"))
    (row,) = [r for r in method_lifts(days, "counts") if r.lift.metric == "click"]
    assert row.components.share_of_fits == 0.0
    assert row.lift.df == days.n_users - 1
    assert len(list((root / "models").glob("transitions-*"))) == 1


def test_a_log_without_the_column_is_of_one_fit(single: Path) -> None:
    days = units.read(EventLog.open(single / "log"))
    assert unknown(days, "counts", "network") == "one fit"
    assert method_lifts(days, "counts") == []


def test_crossed_sums_are_means_over_fits(crossed: Path) -> None:
    days = units.read(EventLog.open(crossed / "log"))
    whole = days.by("user")
    for metric, sums in whole.numerators.items():
        each = [life.by("user").numerators[metric] for life in days.lives]
        np.testing.assert_allclose(sums, np.mean(each, axis=0))


def relabelled(root: Path, change: Any) -> EventLog:
    """The log of a run with other fits in its rows."""
    log = EventLog.open(root / "log")
    table = log.table
    fit = change(table)
    place = table.column_names.index(FIT)
    return EventLog(log.metadata, table.set_column(place, table.schema.field(place), [fit]))


def test_a_fit_that_cannot_be_is_refused_with_its_row(divided: Path) -> None:
    def moved(table: pa.Table) -> pa.Array:
        fit = table[FIT].to_numpy().copy()
        fit[-1] = (fit[-1] + 1) % 3
        return pa.array(fit)

    def beyond(table: pa.Table) -> pa.Array:
        fit = table[FIT].to_numpy().copy()
        fit[-1] = 7
        return pa.array(fit)

    with pytest.raises(LogError, match=r"row \d+: fit must be that of its user: .*got"):
        relabelled(divided, moved).validate()
    with pytest.raises(LogError, match=r"fit must be below 3, the number of fits of the arm"):
        relabelled(divided, beyond).validate()


def test_a_log_of_several_fits_must_say_which(divided: Path) -> None:
    log = EventLog.open(divided / "log")
    without = EventLog(log.metadata, log.table.drop_columns([FIT]))
    with pytest.raises(LogError, match="column 'fit' is missing: the scenario has 3 fits"):
        without.validate()


def without(root: Path, arm: str, fit: int, users: int | None = None) -> EventLog:
    """The log of a run without the rows of one fit of an arm, of its first users or of all."""
    log = EventLog.open(root / "log")
    table = log.table
    lost = pc.and_(pc.equal(table["arm"], log.metadata.arms.index(arm)), pc.equal(table[FIT], fit))
    if users is not None:
        theirs = np.unique(table["user"].filter(lost).to_numpy())[:users]
        lost = pc.and_(lost, pc.is_in(table["user"], pa.array(theirs)))
    return EventLog(log.metadata, table.filter(pc.invert(lost)))


@pytest.mark.parametrize("kind", ["divided", "crossed"])
def test_a_log_without_the_rows_of_a_fit_is_refused(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """And so is a file of it that somebody gives to `abtest report`."""
    damaged = without(request.getfixturevalue(kind), "network", 2)
    with pytest.raises(LogError, match="the arm 'network' has no row of fit 2, with which"):
        damaged.validate()
    damaged.write(tmp_path / "log.parquet")
    answer = CliRunner().invoke(main, ["report", str(tmp_path / "log.parquet")])
    assert answer.exit_code == 2
    assert "has no row of fit 2" in answer.output
    assert "give the whole log" in answer.output


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        (0, "metadata.scenario.arms.network.fits must be greater than or equal to 1; got 0"),
        ("two", "metadata.scenario.arms.network.fits must be a whole number; got 'two'"),
        (2, "metadata.scenario.arms.network.fits: must be 1 or the scenario's fits.number (3)"),
    ],
)
def test_metadata_whose_fits_cannot_be_are_refused(own: Any, complaint: str, divided: Path) -> None:
    log = EventLog.open(divided / "log")
    scenario = json.loads(json.dumps(log.metadata.scenario))
    scenario["arms"]["network"]["fits"] = own
    damaged = dataclasses.replace(log.metadata, scenario=scenario)
    with pytest.raises(LogError, match=re.escape(complaint)):
        EventLog(damaged, log.table).validate()


@pytest.mark.parametrize("kind", ["divided", "crossed"])
def test_users_that_a_fit_has_lost_are_seen(kind: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(kind)
    whole = fits_ratio(units.read(EventLog.open(root / "log")))
    assert (whole.name, whole.status) == ("users by fit", "green")
    few = 15 if kind == "divided" else 40
    damaged = fits_ratio(units.read(without(root, "network", 1, few)))
    assert damaged.status == "red"
    assert damaged.meaning.startswith("users of a fit are missing")


def test_fits_of_an_arm_whose_policy_draws_nothing_are_refused(tmp_path: Path) -> None:
    arms = {"counts": {**ARMS["counts"], "fits": 3}, "network": BPR}
    rule = "arms.counts.fits: policy 'itemknn' draws nothing in training"
    with pytest.raises(ScenarioError, match=rule):
        simulate_scenario(tmp_path, tiny_scenario(arms, fits=DIVIDED))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"fits": 0}, "fits"),
        ({"fits": -2}, "fits"),
        ({"fits": True}, "fits: must be how often each policy is trained, a whole number, or"),
        ({"fits": "two"}, "fits: must be how often each policy is trained, a whole number, or"),
        ({"fits": {"number": 300}}, "fits.number"),
        ({"fits": {"numbers": 3}}, "fits.numbers"),
        ({"fits": {"number": 3, "design": "nested"}}, "fits.design"),
        ({"fits": 3, "arms": {**ARMS, "two": {**BPR, "fits": 2}}}, "arms.two.fits: must be 1 or"),
        (
            {"fits": CROSSED, "arms": {**ARMS, "two": {**BPR, "fits": 1}}},
            "each arm has as many fits as the others",
        ),
    ],
)
def test_fits_that_cannot_be_are_refused(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    content = tiny_scenario(ARMS)
    with pytest.raises(ScenarioError, match=complaint.replace(".", r"\.")):
        Scenario.load(write_scenario(tmp_path, {**content, **change}))


def test_who_draws_in_training() -> None:
    def draws(policy: Policy) -> bool:
        return policy.is_seeded

    assert not any(draws(make(name, {})) for name in ("popularity", "random", "itemknn"))
    assert all(draws(make(name, {})) for name in ("bpr", "sasrec", "recgpt", "comirec"))
    assert not draws(make("explore", {"policy": "itemknn"}))
    assert draws(make("explore", {"policy": "bpr"}))


def test_training_seeds_are_all_different_and_the_first_is_the_scenario_s() -> None:
    spec = FitsSpec(number=255)
    seeds = [spec.training_seed(2**63 + 5, fit) for fit in range(255)]
    assert seeds[0] == 2**63 + 5
    assert len(set(seeds)) == 255
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert FitsSpec(number=2, seed=7).training_seed(1, 0) == 7


def test_a_report_says_both_verdicts(divided: Path, tmp_path: Path) -> None:
    content = report.write(EventLog.open(divided / "log"), tmp_path)
    (method,) = content.methods
    assert (method.arm, method.fits, method.unknown) == ("network", 3, None)
    assert [row.lift.metric for row in method.rows] == list(content.metrics)
    page = (tmp_path / "report.html").read_text()
    assert "Models and methods" in page
    assert "fits are as random as users" in page
    assert "was fitted once, and its model is its method: counts." in page
    click = next(row for row in method.rows if row.lift.metric == "click")
    assert (click.components.n_fits, click.lift.df) == (3, 2.0)
    assert encode(report.load(tmp_path).methods) == encode(content.methods)


def test_a_report_of_one_fit_says_that_the_methods_are_not_known(
    single: Path, tmp_path: Path
) -> None:
    content = report.write(EventLog.open(single / "log"), tmp_path)
    (method,) = content.methods
    assert (method.arm, method.fits, method.unknown, method.rows) == ("network", 1, "one fit", ())
    text = (tmp_path / "report.md").read_text()
    assert "Of the methods: not known, one fit." in text
    assert "Models and methods" not in text


@pytest.mark.parametrize("kind", ["divided", "crossed"])
def test_an_arm_of_several_fits_is_replayed(kind: str, request: pytest.FixtureRequest) -> None:
    """Each life is a user's with one fit: rounds are those of the rows, and none crosses lives."""
    log = EventLog.open(request.getfixturevalue(kind) / "log")
    stream = Stream(log, reward="click", arm="network", history=5)
    rows = log.table.filter(pc.equal(log.table["arm"], log.metadata.arms.index("network")))
    requests = {tuple(row.values()) for row in rows.select([*log.metadata.key[:-1]]).to_pylist()}
    assert sum(len(chunk.user) for chunk in stream) == len(requests)


@pytest.mark.parametrize("kind", ["divided", "crossed"])
def test_a_test_of_methods_is_planned_from_a_run(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Users who live with every fit tell both ways of dealing fits, others only their own."""
    root = request.getfixturevalue(kind)
    figure, figures = tmp_path / "plan.svg", tmp_path / "plan.json"
    wishes = ["--lift", "30%", "--comparisons", "1", "--fit-seconds", "2", "--metric", "click"]
    wishes += ["--picture", str(figure), "--out", str(figures), "--user-day-seconds", "0.01"]
    result = CliRunner().invoke(power, [str(root), *wishes])
    assert result.exit_code == 0, result.output
    assert "luck of training" in " ".join(result.output.split())
    assert "CPU s by fits, divided" in figure.read_text()
    (plan,) = json.loads(figures.read_text())
    methods = plan["methods"]
    assert {one["dealing"] for one in methods["frontier"]} == (
        {"divided"} if kind == "divided" else {"divided", "crossed"}
    )
    assert methods["costs"] == {"fit": 2.0, "user": 0.02, "world": 0.0}
    assert methods["best"] in methods["frontier"]


def test_what_is_not_known_of_methods_is_not_planned(
    single: Path, divided: Path, tmp_path: Path
) -> None:
    for root, why in ((single, "not known: one fit"), (divided, "give --fit-seconds and")):
        result = CliRunner().invoke(power, [str(root), "--metric", "click"])
        assert result.exit_code == 0, result.output
        assert why in " ".join(result.output.split())
    result = CliRunner().invoke(power, [str(single), "--picture", str(tmp_path / "plan.svg")])
    assert result.exit_code == 2
    assert "no plan of these was made" in result.output


def counted(log: EventLog, is_counted: np.ndarray) -> np.ndarray:
    """Clicks of each item in the history of some users, `[n_items + 1]`."""
    past = log.sequences("history")
    user = np.repeat(past.user, np.diff(past.offsets))
    clicked = past.items[past.clicked & is_counted[user]]
    return np.bincount(clicked, minlength=log.metadata.n_items + 1)


def test_policies_learn_from_a_sample_of_users_that_no_cut_of_the_run_changes(
    tmp_path: Path,
) -> None:
    arms: dict[str, Any] = {"a": {"policy": "popularity"}, "b": {"policy": "random"}}
    content = tiny_scenario(
        arms, fits={"users": 20}, serving={"slate": 4, "recall": 12, "refit": "daily"}
    )
    roots = {}
    for shards in (1, 3):
        engine = {"executor": "serial", "shards": shards}
        roots[shards] = simulate_scenario(tmp_path / str(shards), {**content, "engine": engine})
    assert log_digests(roots[1]) == log_digests(roots[3])

    log = EventLog.open(roots[1] / "log")
    is_learned = FitsSpec(users=20).learned_from(9, 60)
    assert is_learned is not None
    assert is_learned.sum() == 20
    (first,) = [
        path
        for path in (roots[1] / "models").glob("popularity-*/state.npz")
        if "~" not in path.parent.name and "day" not in path.parent.name
    ]
    np.testing.assert_array_equal(np.load(first)["counts"], counted(log, is_learned))
    whole = simulate_scenario(tmp_path / "whole", {**content, "fits": 1})
    assert log_digests(whole) != log_digests(roots[1])


def test_a_larger_sample_of_users_holds_a_smaller_one() -> None:
    small, large = (FitsSpec(users=n).learned_from(3, 5000) for n in (400, 1000))
    assert small is not None
    assert large is not None
    assert (small.sum(), large.sum(), (small & large).sum()) == (400, 1000, 400)
    other = FitsSpec(users=400).learned_from(4, 5000)
    assert other is not None
    assert 5 < (small & other).sum() < 80  # 32 are expected of two that are drawn apart
    assert FitsSpec(users=5000).learned_from(3, 5000) is None
    with_which_fit = FitsSpec(number=2).fit_of_user(3, np.flatnonzero(small), 2)
    assert 150 < with_which_fit.sum() < 250  # drawn apart from who lives with which fit


def test_a_sample_of_more_users_than_there_are_is_refused(tmp_path: Path) -> None:
    content = tiny_scenario(fits={"users": 61})
    with pytest.raises(ScenarioError, match=r"fits\.users: must be at most .*60.*; got 61"):
        Scenario.load(write_scenario(tmp_path, content))
    with_fits = tiny_scenario(fits={"number": 2})
    assert "users" not in Scenario.load(write_scenario(tmp_path, with_fits)).resolved()["fits"]
