"""A catalogue that lives: what comes and goes and when, whatever the ticks and shards; policies
that are told, and those that are not; bad input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, IntArray, Slates
from policies.examples import checkerboard, uploads
from policies.popularity import Newest, Popularity, Random
from policies.time import DAY
from policies.transitions import Transitions
from policies.withheld import recall_withholding
from simulator.living.creators import Creators, Items
from simulator.living.life import PRESENT, REMOVED, STOPPED, UPLOADED, Uploads
from simulator.log.eventlog import EventLog
from simulator.log.files import load_arrays
from simulator.log.items import ItemFacts
from simulator.run.pipeline import simulate
from simulator.scenario.model import Scenario, ScenarioError
from simulator.serving.desk import Channel, Desk, ServingError
from tests.worlds import log_files

LIVING: dict[str, Any] = {
    "name": "living",
    "seed": 5,
    "users": {"kind": "choice", "n_users": 60, "n_items": 150, "videos": {"authors": 25}},
    "items": {
        "uploads": 8,
        "stock": 60,
        "remove_after": 9,
        "creators": {"window": 2, "half": 0.5, "least": 12},
    },
    "data": {"source": "synthetic", "history_days": 4},
    "days": 3,
    "serving": {
        "slate": 4,
        "recall": 20,
        "history": 20,
        "ranking": {"kind": "recall"},
        "channels": [{"name": "new", "policy": "newest", "quota": 10}],
    },
    "arms": {
        "random": {"policy": "random"},
        "popular": {"policy": "explore", "params": {"policy": "itemknn", "epsilon": 0.2}},
    },
    "engine": {"executor": "serial", "shards": 1},
}


def scenario(**changes: Any) -> Scenario:
    return Scenario.model_validate({**LIVING, **changes})


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("living") / "run"
    simulate(scenario(), folder)
    return folder


def world_of(n: int = 300, authors: int = 12, **items: Any) -> Uploads:
    draw = np.random.default_rng(0)
    author = np.concatenate(([0], draw.integers(0, authors, n)))
    return Uploads.draw(Items(**{"uploads": 10, "stock": 100, **items}), author, 3, -5)


def test_items_come_at_their_rate_and_in_their_order() -> None:
    world = world_of(releases=6)
    assert (np.diff(world.release[1:]) >= 0).all()
    assert set(world.release % (DAY // 6)) == {0}
    before = (world.release[1:101] <= -5 * DAY).sum()
    assert before in (99, 100)  # the stock: the last may come with the first release
    per_day = np.bincount((world.release[101:] // DAY + 5).astype(int))[1:-1]
    assert abs(per_day - 10).max() <= 2


def test_nobody_stops_and_all_is_uploaded_where_creators_do_not_mind() -> None:
    world = world_of(creators={"half": 0, "least": 0}, remove_after=4)
    life, nothing = world.born(), np.zeros(301, dtype=np.int64)
    for _ in range(8):
        life = life.after(world, nothing, nothing)
    day = life.day
    assert (life.record[:, STOPPED] == 0).all()
    there = life.available(world, (day + 1) * DAY - 1)
    ages = world.ages(day)
    np.testing.assert_array_equal(there[1:], ((ages >= 0) & (ages < 4))[1:])
    assert life.record[-1, PRESENT] == there.sum()
    assert life.record[1:, UPLOADED].sum() == (ages[1:] >= 0).sum() - (ages[1:] > 8 - 1).sum()


def test_creators_whom_nobody_sees_stop_after_a_window_and_the_others_go_on() -> None:
    world = world_of(creators={"window": 3, "half": 0, "least": 1})
    life = world.born()
    seen = np.where(world.author % 2 == 0, 5, 0)
    for _ in range(6):
        there = life.available(world, (life.day + 1) * DAY - 1)
        life = life.after(world, np.where(there, seen, 0), np.zeros(301, dtype=np.int64))
    odd = np.arange(world.n_creators) % 2 == 1
    assert (life.stopped_on[odd] == -2).all()  # three days after the history began
    assert (life.stopped_on[~odd] > life.day).all()
    later = (world.release >= -2 * DAY) & life.uploaded
    assert not odd[world.author[later]].any()
    assert later.any()


def test_an_audience_of_half_makes_every_second_upload() -> None:
    world = world_of(n=4000, authors=2, uploads=100, stock=500, creators={"half": 1.0, "window": 1})
    life, clicks = world.born(), np.zeros(4001, dtype=np.int64)
    shown = np.where(world.author == 0, 3, 0)
    shown[np.flatnonzero(world.author == 1)[0]] = shown.sum()  # both have as many
    came = np.zeros(2)
    for _ in range(20):
        life = life.after(world, shown, clicks)
        today = life.uploaded & (world.ages(life.day) == 0)
        came += np.bincount(world.author[today], minlength=2)
    due = (world.release >= -4 * DAY) & (world.ages(life.day) >= 0)
    share = came / np.bincount(world.author[due], minlength=2)
    assert np.abs(share - 0.5).max() < 4 * 0.5 / np.sqrt(came.min())


def test_a_trial_removes_new_items_without_clicks_and_never_the_stock() -> None:
    world = world_of(trial_days=2, trial_clicks=1, creators={"half": 0, "least": 0})
    life, _clicks = world.born(), np.zeros(301, dtype=np.int64)
    liked = np.arange(301) % 3 == 0
    for _ in range(5):
        there = life.available(world, (life.day + 1) * DAY - 1)
        life = life.after(world, there.astype(np.int64), (there & liked).astype(np.int64))
    new = (world.release >= -5 * DAY) & life.uploaded
    gone = life.removed & new
    np.testing.assert_array_equal(gone, new & ~liked & (world.ages(life.day) >= 2))
    assert not life.removed[1:90].any()
    assert life.record[:, REMOVED].sum() == life.removed.sum()


def test_what_is_not_there_yet_is_not_told() -> None:
    world = world_of()
    base = Catalogue(3, 300, {"author": world.author, "tag": np.arange(301)})
    life = world.born()
    told = life.catalogue(world, base, life.day * DAY)
    known = world.release <= life.day * DAY
    known[0] = False
    assert told.items["tag"][known].all()
    assert not told.items["tag"][~known].any()
    np.testing.assert_array_equal(np.isnan(told.items["uploaded"]), ~known)
    np.testing.assert_allclose(told.items["uploaded"][known], -world.release[known] / DAY)


def test_only_what_is_there_is_shown(lived: Path) -> None:
    log, n = EventLog.open(lived / "log"), 150
    uploaded = ItemFacts.of_log(log).uploaded
    assert uploaded is not None
    rows = log.table.to_pandas()
    age = np.floor(rows.t / DAY) - np.floor(uploaded[rows.item] / DAY)
    assert (rows.t >= uploaded[rows.item]).all()
    assert age.min() >= 0
    assert age.max() < 9
    assert (rows.t % DAY >= DAY // 2).any()
    assert (rows.item > n // 2).any()
    new_at_noon = rows[(age == 0) & (uploaded[rows.item] % DAY == DAY // 2)]
    assert len(new_at_noon)  # an upload within a day was shown on that day


def test_every_arm_has_its_own_creators(lived: Path) -> None:
    kept = load_arrays(lived / "models" / "catalogues.npz")
    one, other = (kept[f"record.{arm}"][0] for arm in ("random", "popular"))
    assert len(one) == 4 + 3 + 1
    np.testing.assert_array_equal(one[:5], other[:5])  # they share the history
    assert (one[5:] != other[5:]).any()


@pytest.mark.parametrize(
    "engine",
    [
        {"executor": "serial", "shards": 3, "tick": 20000.0},
        {"executor": "processes", "shards": 2, "block": 7},
    ],
)
def test_the_same_bytes_whatever_ticks_blocks_shards(
    lived: Path, tmp_path: Path, engine: dict[str, Any]
) -> None:
    simulate(scenario(engine=engine), tmp_path / "run")
    assert log_files(tmp_path / "run") == log_files(lived)
    kept, other = (load_arrays(f / "models" / "catalogues.npz") for f in (lived, tmp_path / "run"))
    for name in kept:
        np.testing.assert_array_equal(kept[name], other[name])


def test_a_run_that_was_stopped_at_a_midnight_goes_on(lived: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def until(stage: str, done: int, total: int, figures: Any) -> None:
        if stage.startswith("simulate popular") and done == 2:
            raise StopError

    with pytest.raises(StopError):
        simulate(scenario(), tmp_path / "run", progress=until)
    simulate(scenario(), tmp_path / "run", resume=True)
    assert log_files(tmp_path / "run") == log_files(lived)


@pytest.mark.parametrize("catalogue", ["own", "pooled"])
def test_arms_of_a_split_test_share_their_creators_where_the_catalogue_is_pooled(
    tmp_path: Path, catalogue: str
) -> None:
    items = {**LIVING["items"], "catalogue": catalogue}
    simulate(scenario(design={"kind": "split"}, items=items), tmp_path / "run")
    kept = load_arrays(tmp_path / "run" / "models" / "catalogues.npz")
    same = np.array_equal(kept["record.random"], kept["record.popular"])
    assert same == (catalogue == "pooled")


@pytest.mark.parametrize(
    "changes",
    [
        {"design": {"kind": "interleave"}},
        {"design": {"kind": "switchback"}, "days": 4},
        {
            "fits": {"number": 2, "design": "crossed"},
            "arms": {
                "random": {"policy": "random"},
                "learned": {"policy": "bpr", "params": {"training": {"epochs": 1}}},
            },
        },
        {"fits": 2, "items": {**LIVING["items"], "catalogue": "pooled"}},
    ],
    ids=["interleave", "switchback", "crossed", "divided"],
)
def test_every_design_shows_what_is_there(tmp_path: Path, changes: dict[str, Any]) -> None:
    one = scenario(**changes)
    simulate(one, tmp_path / "run")
    log = EventLog.open(tmp_path / "run" / "log")
    uploaded = ItemFacts.of_log(log).uploaded
    assert uploaded is not None
    rows = log.table.to_pandas()
    age = np.floor(rows.t / DAY) - np.floor(uploaded[rows.item] / DAY)
    assert (rows.t >= uploaded[rows.item]).all()
    assert age.max() < 9
    kept = load_arrays(tmp_path / "run" / "models" / "catalogues.npz")
    for arm in one.arms:
        assert kept[f"record.{arm}"].shape[1] == 4 + one.days + 1


def test_a_nightly_refit_is_told_of_what_came(tmp_path: Path) -> None:
    serving = {**LIVING["serving"], "refit": "daily"}
    arms = {
        "told": {"policy": "itemknn"},
        "untold": {"policy": "bpr", "params": {"training": {"epochs": 1}}},
    }
    simulate(scenario(serving=serving, arms=arms), tmp_path / "run")
    rows = EventLog.open(tmp_path / "run" / "log").table.to_pandas()
    own = rows[(rows.arm > 0) & (rows.channel == 0)]
    uploaded = ItemFacts.of_log(EventLog.open(tmp_path / "run" / "log")).uploaded
    assert uploaded is not None
    for arm in (1, 2):
        mine = own[own.arm == arm]
        assert (uploaded[mine.item] > 0).any()  # came during the test


def test_a_scenario_without_items_says_nothing_of_them() -> None:
    plain = {key: value for key, value in LIVING.items() if key != "items"}
    assert "items" not in Scenario.model_validate(plain).resolved()
    assert scenario().resolved()["items"]["uploads"] == 8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"items": {"uploads": 30, "stock": 60}}, ["users.n_items", "at least 270", "got 150"]),
        ({"items": {"stock": 60}}, ["items.uploads"]),
        ({"items": {"uploads": 8, "releases": 5}}, ["items.releases"]),
        ({"items": {"uploads": 8, "creators": {"windw": 3}}}, ["items.creators.windw", "window"]),
        (
            {"users": {"kind": "logged"}, "data": {"source": "kuairand"}},
            ["items", "choice or markov"],
        ),
    ],
)
def test_bad_sections_are_named(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    import yaml

    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({**LIVING, **changes}))
    with pytest.raises(ScenarioError) as error:
        Scenario.load(file)
    assert all(word in str(error.value) for word in words)
    assert "bad.yaml:" in str(error.value)


@pytest.mark.parametrize(
    "command",
    [
        ["replay", "RUN", "--policy", "popularity"],
        ["pooled", "RUN"],
        ["fidelity", "RUN/scenario.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_what_asks_policies_about_logged_requests_is_refused(
    lived: Path, tmp_path: Path, command: list[str]
) -> None:
    from click.testing import CliRunner

    from simulator.cli import main

    args = [word.replace("RUN", str(lived)) for word in command]
    result = CliRunner().invoke(main, [*args, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "its catalogue lives (`items`)" in result.output


# What a policy is told.


def told(policy: Any, new: list[int], removed: list[int]) -> tuple[Any, Histories]:
    """A policy that was fitted without the items `new`, and admitted them without `removed`."""
    example = checkerboard()
    policy.fit(example.sequences, uploads(example.catalogue, new, []), Fitting())
    policy.admit(uploads(example.catalogue, [], removed), np.array(new), 0)
    return policy, example.requests()


@pytest.mark.parametrize("kind", [Random, Popularity, Transitions, Newest])
def test_removed_items_are_recalled_no_more_and_new_ones_are(kind: Any) -> None:
    policy, asked = told(kind(), [39, 40], [1, 2, 3])
    items = policy.recall(asked, 40, 0).items
    assert not np.isin([1, 2, 3], items).any()
    assert np.isin([39, 40], items).all()


def test_a_new_item_counts_as_its_authors_others() -> None:
    example = checkerboard()
    alone = Popularity().fit(example.sequences, example.catalogue, Fitting())
    policy, _ = told(Popularity(), [12], [])
    others = alone.counts_[[13, 14]]  # author 4 has items 12, 13 and 14
    assert policy.present_[12] == pytest.approx(others.mean())
    scores = told(Transitions(), [12], [])[0]
    asked = example.requests()
    found = scores.scores(asked)
    np.testing.assert_allclose(found[:, 12], found[:, [13, 14]].mean(axis=1), rtol=1e-6)


def test_the_newest_come_first() -> None:
    policy, asked = told(Newest(), [40], [39])
    nothing = replace(asked, seen=np.zeros((len(asked), 0), dtype=np.int64))
    np.testing.assert_array_equal(policy.recall(nothing, 3, 0).items[0], [40, 38, 37])


def test_probabilities_of_exploration_are_those_among_what_is_there() -> None:
    from policies.explore import Explore

    example, new, removed = checkerboard(), [39, 40], [1, 2, 3]
    policy = Explore("popularity", epsilon=0.5).fit(
        example.sequences, uploads(example.catalogue, new, []), Fitting()
    )
    policy.admit(uploads(example.catalogue, [], removed), np.array(new), 0)
    asked = example.requests().rows(slice(0, 8))
    slates = policy.recall(asked, 5, 3)
    assert not np.isin(slates.items, removed).any()
    np.testing.assert_array_equal(
        policy.slate_propensities(asked, slates.items, 3), slates.propensities
    )
    first = np.arange(1, 41)[None].repeat(len(asked), axis=0)
    each = np.stack([policy.slate_propensities(asked, first[:, [i]], 3)[:, 0] for i in range(40)])
    np.testing.assert_allclose(each.sum(axis=0), 1.0, rtol=1e-5)


def test_requests_of_policies_that_are_not_told_bar_what_is_gone() -> None:
    policy = Random().fit(checkerboard().sequences, checkerboard().catalogue, Fitting())
    asked = checkerboard().requests()
    barred = np.arange(1, 31)
    slates = recall_withholding(lambda h: policy.recall(h, 5, 0), asked, barred)
    assert len(slates) == len(asked)
    assert slates.items[:, 0].min() > 30


@dataclass
class Stubborn(Popularity):
    """Is told what there is, and recalls what it always did."""

    learns: ClassVar[tuple[str, ...]] = ()

    def admit(self, catalogue: Catalogue, new: IntArray, t: int) -> Stubborn:
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        return Popularity().restore(self.state()).recall(histories, k, seed)


def test_a_policy_that_recalls_what_is_gone_is_named() -> None:
    from policies.check import BrokenPromise, check_one

    example = checkerboard()
    policy = Stubborn().fit(example.sequences, example.catalogue, Fitting())
    best = int(policy.counts_.argmax())
    desk = Desk("mine", Channel("stubborn", policy, 10), (), None, 40, 0)
    there = desk.admitting(uploads(example.catalogue, [], [best]), 0)
    asked = replace(example.requests(), seen=np.zeros((120, 0), dtype=np.int64))
    assert best in desk.serve(asked, 5).slates.items
    with pytest.raises(ServingError, match=f"item {best} at place 0 is not available now"):
        there.serve(asked, 5)
    with pytest.raises(BrokenPromise, match="not available"):
        check_one(Stubborn(), "admits")
    for kind in (Random, Popularity, Transitions, Newest):
        check_one(kind(), "admits")


def test_sections_have_defaults_that_make_sense() -> None:
    items = Items(uploads=20)
    assert items.at_start == 600
    assert items.needed(10) == 800
    assert Creators().half > 0


# The published life of a video.


def test_the_shipped_world_lives_as_published() -> None:
    from simulator.calibration.targets import LOGGING, compare, measured

    living = Scenario.load("scenarios/living_catalogue.yaml")
    rows = {row.name: row for row in compare(measured(living, feeds=(LOGGING,)))}
    for name in ("life best day", "life day 8 / best day"):
        assert rows[name].within, rows[name]


def test_the_life_of_a_pool_is_counted_on_videos_whose_first_week_is_there() -> None:
    from simulator.calibration.marginals import Impressions, measure

    curve = (20, 80, 80, 40, 20, 10, 10, 8)  # its logarithms are as high on day 2 as on day 3
    ages = np.repeat(np.arange(8), curve)
    n = len(ages)
    too_young = np.full(500, 7)  # a video of day -3, of which five days are not there yet
    item = np.concatenate((np.ones(n, dtype=np.int64), np.full(500, 2)))
    t = np.concatenate((ages - 10, too_young - 10)) * DAY + 5
    size = len(item)
    seen = Impressions(
        user=np.arange(size) % 7,
        item=item,
        t=t,
        click=np.arange(size) % 2 == 0,
        watch=np.full(size, 9.0),
        duration=np.full(size, 20.0),
        kinds={},
        n_users=7,
        n_items=2,
        days=8,
        uploaded=np.array([0.0, -10 * DAY + 3, -3 * DAY]),
    )
    found = measure(seen)
    assert found["life day 8 / best day"].value == pytest.approx(0.1)
    assert found["life best day"].value == pytest.approx(2.5)
    assert found["life best day"].se > 0
    still = measure(replace(seen, uploaded=None))
    assert not [name for name in still if name.startswith("life")]
