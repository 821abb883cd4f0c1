"""What there is to replay: where the rounds of a log begin, what policies are fitted on, the truth,
clusters, and what a survey says before any policy is asked.
"""

from __future__ import annotations

import math
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, silent
from policies.popularity import Popularity
from policies.time import DAY
from simulator.datasets import kuairand, open_bandit
from simulator.log.eventlog import EventLog
from simulator.log.metadata import LogError, Metadata
from simulator.offpolicy import jobs, sources
from simulator.offpolicy.item_clusters import clusters_by_vectors, clusters_of
from simulator.offpolicy.jobs import (
    ReplayJob,
    ReplayOptions,
    _clusters,
    _course,
    _extent,
    _of_lives,
    _own_scenario,
    ab_test,
    exposures,
    joined,
    replay_log,
    target,
    training,
    truth,
)
from simulator.offpolicy.replay import ReplaySettings
from simulator.offpolicy.rounds import Rounds, Stream, Uniform
from simulator.offpolicy.settings import ReplayError
from simulator.offpolicy.sources import AskedPolicies, replay
from simulator.offpolicy.survey import _uniform, observed, survey
from simulator.offpolicy.target import FittedTargets, PolicyTargets, alone, apart
from simulator.offpolicy.target_fits import Lesson, Wanted, _distinct, _named, _of_fit, fitted
from simulator.offpolicy.uncertainty import Ratios, delta
from tests.worlds import tiny_scenario, write_scenario

USERS, ITEMS = 3, 5


def log_of(
    t: list[int], arm: list[int] | None = None, arms: tuple[str, ...] = ("history",), **more: Any
) -> EventLog:
    """Single impressions of users in turn; a click on every item but the first."""
    n = len(t)
    item = np.arange(n) % ITEMS + 1
    columns = {
        "arm": np.array(arm or [0] * n), "user": np.arange(n) % USERS, "session": np.arange(n),
        "request": np.zeros(n, int), "position": np.zeros(n, int), "t": np.array(t), "item": item,
        "click": (item > 1).astype(np.int8),
    } | more  # fmt: skip
    known = "marginal" if "propensity" in more else "unknown"
    metadata = Metadata(arms, USERS, ITEMS, propensity=known, channels=("random", "own"))  # type: ignore[arg-type]
    return EventLog.from_columns(columns, metadata)


def test_options_are_those_of_the_docs() -> None:
    assert astuple(ReplayOptions()) == (
        "click", None, 2, None, 50, 100, 1, 1, 0, 262_144, None, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("t", "test_days", "since"),
    [
        ([-DAY, -1, 0], 2, 0),
        ([-DAY, -1], 1, -DAY),
        ([-3 * DAY, -DAY - 1], 1, -2 * DAY),
        ([0, 5 * DAY], 2, 4 * DAY),
        ([0, 6 * DAY - 1], 2, 4 * DAY),
        ([0, 0], 1, 0),
        ([-1, -1], 3, -3 * DAY),
    ],
)
def test_rounds_begin_at_0_or_some_days_before_the_end(
    t: list[int], test_days: int, since: int
) -> None:
    assert _extent("made", log_of(t), None, test_days) == (since, False)


def test_an_arm_draws_where_any_of_its_impressions_has_a_propensity() -> None:
    arms = ("a", "b")
    chance = np.array([0.5, 0.5, np.nan, np.nan])
    log = log_of([-5, 5, -7 * DAY, -7 * DAY], [0, 0, 1, 1], arms, propensity=chance)
    assert _extent("made", log, None, 1) == _extent("made", log, "a", 1) == (0, True)
    assert _extent("made", log, "b", 1) == (-7 * DAY, False)
    empty = log_of([0], [0], arms)
    with pytest.raises(ReplayError) as error:
        _extent("made", empty, "b", 1)
    assert str(error.value) == "made: no impressions of arm 'b' there"
    with pytest.raises(ReplayError, match="made: no impressions of arm 'b' there"):
        _extent("made", log_of([0], [1], ("b", "a")), None, 1)


def test_policies_learn_from_an_arm_before_a_time_and_since_some_days() -> None:
    t = [-3 * DAY, -DAY, -DAY - 1, 0, -1, 1]
    log = log_of(t, [0, 0, 0, 0, 1, 1], ("a", "b"))

    def seen(*how: Any) -> list[int]:
        return sorted(training(log, *how).t.tolist())

    assert seen("a", 0, None) == [-3 * DAY, -DAY - 1, -DAY]
    alone = training(log_of([-2, -1, 0]), None, 0, None)
    assert alone.t.tolist() == [-2, -1]
    assert seen("a", 0, 1) == [-DAY]
    assert seen("a", 1, None) == [-3 * DAY, -DAY - 1, -DAY, 0]
    assert seen("b", 1, None) == [-1]
    assert seen("b", 2, 3) == [-1, 1]


def test_the_truth_is_the_mean_of_a_logs_own_rounds_by_user() -> None:
    log = log_of([0, 1, 2, 3, 4], watch=np.array([2.0, 0.0, 5.0, 1.0, 4.0]))
    found = truth(Stream(log, "watch"))
    own = Ratios(np.array([[3.0], [4.0], [5.0]]), np.array([[2.0], [2], [1]]))
    assert (found.value, found.error) == pytest.approx((12 / 5, own.error()))
    assert (found.rounds, found.interval) == (5, delta(own))


def test_logs_in_a_row_number_their_sessions_on() -> None:
    first, second = log_of([0, 1, 2, 3]), log_of([9, 9, 9], session=np.array([0, 4, 0]))
    both = joined(first, second).table
    rows = list(zip(both["user"].to_pylist(), both["session"].to_pylist(), strict=True))
    # User 0 had the sessions 0 and 3; user 1 the session 1; user 2 the session 2.
    assert sorted(rows) == [(0, 0), (0, 3), (0, 4), (1, 1), (1, 6), (2, 2), (2, 3)]
    assert joined(None, second) is second
    with pytest.raises(ReplayError, match="the data has no impressions"):
        joined(None, None)


def test_a_note_is_made_of_several_lives_only() -> None:
    assert _of_lives(1) == {}
    assert _of_lives(3)["fits"].startswith("every user lives with each of 3 fits of the policy")


def test_a_course_begins_in_the_history_or_in_the_only_arm() -> None:
    log, one = log_of([-1, 0], [0, 1], ("history", "b")), log_of([-1, 0])
    catalogue = Catalogue(USERS, ITEMS)
    assert _course(log, "b", 0, (), catalogue, 0) == (
        "the past of the users of 'b' begins in another arm of the log"
    )
    for own, arm in ((one, None), (log, "history")):
        course = _course(own, arm, 0, (), catalogue, 7)
        assert not isinstance(course, str)
        assert (course.seed, course.past.t.tolist()) == (7, [-1])


def test_clusters_are_a_column_of_whole_numbers_or_by_vectors() -> None:
    items = {
        "tag": np.array([0, 9, 4, 9, 4, 2]), "flag": np.ones(6, np.uint8),
        "score": np.zeros(6), "wide": np.zeros((6, 2), int),
    }  # fmt: skip
    catalogue = Catalogue(USERS, ITEMS, items)
    assert clusters_of(catalogue, "tag").tolist() == [0, 4, 3, 4, 3, 2]
    assert clusters_of(catalogue, "flag").tolist() == [0, 1, 1, 1, 1, 1]
    for name in ("score", "wide", "none"):
        with pytest.raises(ValueError, match="--clusters") as error:
            clusters_of(catalogue, name)
        assert str(error.value) == (
            f"--clusters {name}: it must be a column of whole numbers of the items; the catalogue"
            " has flag, tag"
        )
    with pytest.raises(ValueError, match="the catalogue has none"):
        clusters_of(Catalogue(USERS, ITEMS), "tag")

    class Vectors(Popularity):
        """Two directions, of three and two items."""

        def item_vectors(self) -> np.ndarray:
            return np.array([[9, 9], [1, 0], [0, 2], [3, 0], [0, 1], [1, 0.1]], np.float32)

        def queries(self, histories: Any) -> np.ndarray:
            raise NotImplementedError

    for number in (2, 1):
        found = clusters_by_vectors("v", Vectors(), number, 3)
        assert found[0] == 0
        assert sorted(set(found[1:])) == list(range(1, number + 1))
        assert found[1] == found[3] == found[5]
        assert (found[2] == found[4] != found[1]) == (number == 2)
    with pytest.raises(ValueError, match="--clusters v:0: the number of clusters must be 1 or mo"):
        clusters_by_vectors("v", Vectors(), 0, 3)
    with pytest.raises(ValueError, match="the policy 'p' has no item vectors"):
        clusters_by_vectors("p", Popularity(), 2, 3)
    assert _clusters(catalogue, None) is None
    assert _clusters(catalogue, "tag") is not None
    lesson, fitting = Lesson(log_of([0]).sequences(), 1), Fitting()
    for by, given, words in (
        ("tags", (), "--clusters tags: it must be"),
        ("bpr:4", (), "--clusters bpr:4: no policy is fitted on a log of published"),
        ("popularity:4", (lesson, fitting), "--clusters popularity:4: the policy"),
    ):
        with pytest.raises(ReplayError, match=words):
            _clusters(catalogue, by, *given)


def test_a_replay_of_a_log_is_put_together() -> None:
    """Policies see what came before; an arm without propensities is of unknown ones."""
    log = log_of([*range(-4 * DAY, 0, DAY), 5, 9], propensity=np.full(6, 0.5))
    options = ReplayOptions(history=3, recall=2, contexts=2, chunk=7, seed=4)
    told: list[tuple[Any, ...]] = []
    wanted = [Wanted.parse("popularity"), Wanted.parse("popularity:half_life=1")]
    job = replay_log("made", log, wanted, options, lambda *said: told.append(said))
    assert job.title == "made"
    stream = job.stream
    assert (stream.arm, stream.since, stream.history, stream.seen) == ("history", 0, 3, None)
    assert (stream.contexts, stream.chunk, stream.propensity) == (2, 7, None)
    assert [one.name for one in job.targets] == ["popularity", "popularity:half_life=1"]
    assert [name for name, _ in job.policies] == ["popularity", "popularity:half_life=1"]
    first = job.targets[0]
    assert isinstance(first, PolicyTargets)
    assert (first.desk.seed, first.desk.recall.quota, first.draws) == (apart(4), 2, 1)
    assert (job.notes, job.clusters) == ({}, None)
    assert job.course == "policies are asked alone, not through a serving (--served)"
    sure = replay_log("made", log_of([-1, 0]), wanted[:1], options, silent)
    assert sure.stream.propensity == "unknown"
    watched = job.of("watch")
    assert (watched.stream.reward, watched.targets is job.targets) == ("watch", True)
    other = replace(job, truths={"x": stream}).of("watch")
    assert other.truths["x"].reward == "watch"
    for asked, words in (
        ([], "no policy to evaluate: give --policy NAME at least once"),
        ([wanted[0], wanted[1], wanted[1]], "policy 'popularity:half_life=1' is there twice"),
    ):
        with pytest.raises(ReplayError, match=words):
            replay_log("made", log, asked, options, silent)
    late = replace(options, test_days=9)
    with pytest.raises(ReplayError) as error:
        replay_log("made", log_of([-DAY, -1]), wanted[:1], late, silent)
    assert str(error.value) == ("made: nothing to fit on before day -9: make --test-days smaller")
    with pytest.raises(ReplayError, match="--served: made does not say how requests are served"):
        _own_scenario("made", log)


def test_policies_of_an_ab_test_are_held_to_each_others_logs() -> None:
    log = log_of([0, 1, 2, 3], [0, 0, 1, 1], ("a", "b"), propensity=np.full(4, 0.5))
    catalogue = Catalogue(USERS, ITEMS, {"tag": np.arange(6)})
    options = ReplayOptions(clusters="tag", seed=5, chunk=3)
    first, second = ab_test("made", log, catalogue, options, silent)
    assert [one.title for one in (first, second)] == [
        "made: b from the log of a", "made: a from the log of b",
    ]  # fmt: skip
    assert (first.stream.arm, second.stream.arm, first.stream.chunk) == ("a", "b", 3)
    assert [one.name for one in first.targets] == ["b"]
    assert {name: one.arm for name, one in first.truths.items()} == {"b": "b"}
    assert first.targets[0].seed == 5  # type: ignore[attr-defined]
    assert first.clusters is not None
    assert first.policies == ()


def test_uniform_exposures_are_replayed_where_there_are_any() -> None:
    log = log_of([0, 1, 2], channel=np.array([1, 2, 1]))
    job = ReplayJob("made", Stream(log), (), notes={"days": "one"})
    found = exposures(job, Uniform("random", 1234))
    assert found is not None
    assert found.title == "made: uniformly drawn impressions"
    assert found.notes == {
        "days": "one",
        "propensities": "1 of 1,234: these impressions were drawn uniformly from 1,234 items",
    }
    assert [one.row.tolist() for one in found.stream] == [[0, 2]]
    none = log_of([0, 1, 2], channel=np.array([2, 2, 2]))
    assert exposures(replace(job, stream=Stream(none)), Uniform("random", 9)) is None


def rounds(kind: Any, propensity: list[list[float]], reward: list[list[float]]) -> Rounds:
    n, k = np.shape(reward)
    zero = np.zeros(n, dtype=np.int64)
    return Rounds(
        zero, zero, zero, 10 * np.arange(1, n + 1), np.tile(np.arange(k), (n, 1)),
        np.ones((n, k), int), np.array(reward), np.array(propensity), kind, zero,
    )  # fmt: skip


def test_a_survey_counts_the_rounds_whose_rewards_were_observed() -> None:
    told: list[Any] = []
    nan = math.nan
    chunks = [
        rounds("conditional", [[0.25, 1 / 3], [0.25, 1 / 3]], [[1, 0], [nan, 1]]),
        rounds("conditional", [[0.25]], [[nan]]),
        rounds("conditional", [[0.5], [0.5]], [[1], [0]]),
    ]
    settings = ReplaySettings(("dm", "mips"), clusters=np.array([0, 1]), contexts=2, folds=4)
    found = survey(chunks, 1, settings, lambda *said: told.append(said))
    assert (found.kind, found.length, found.uniform) == ("conditional", 2, True)
    assert (found.rounds, found.impressions, found.unobserved) == (3, 4, 2)
    assert told == [("survey", 1, 0, {}), ("survey", 3, 0, {})]
    assert (found.model.n_contexts, found.model.folds) == (2, 4)
    assert found.model._count.sum() == 4
    assert hasattr(found.model, "table")
    assert found.kinds["items"].table._count.sum() == 4
    assert hasattr(found.kinds["items"].table, "table")
    assert [len(one) for one in observed(chunks)] == [1, 0, 2]
    plain = survey(chunks[2:], 1, ReplaySettings(("ips",)))
    assert (plain.length, plain.kinds, plain.model._count.sum()) == (1, {}, 0)
    with pytest.raises(ReplayError, match="no rounds: the log has no request with an observed re"):
        survey(chunks[1:2], 1, settings)
    mixed = [chunks[2], rounds("conditional", [[0.3]], [[1]])]
    assert not survey(mixed, 1, ReplaySettings(("ips",))).uniform
    assert not survey(mixed[::-1], 1, ReplaySettings(("ips",))).uniform


def test_an_impression_without_its_propensity_is_named_by_its_row() -> None:
    chunk = rounds("marginal", [[0.5, 0.5], [0.5, math.nan]], [[1, 0], [0, 1]])
    with pytest.raises(LogError) as error:
        survey([chunk], 1, ReplaySettings(("ips",)))
    assert str(error.value) == (
        "row 21: propensity is null in a log that says its propensities are marginal; mark the log"
        " unknown or fill it"
    )
    survey([replace(chunk, kind="unknown")], 1, ReplaySettings(("ips",)))


@pytest.mark.parametrize(
    ("kind", "propensity", "uniform"),
    [
        ("conditional", [1 / 4, 1 / 3], True),
        ("conditional", [1 / 4, 1 / 4], False),
        ("conditional", [1 / 4.5, 1 / 3.5], False),
        ("conditional", [np.float32(1 / 7), np.float32(1 / 6)], True),
        ("marginal", [1 / 4, 1 / 4], True),
        ("marginal", [1 / 4, 1 / 3], False),
        ("unknown", [1 / 4, 1 / 3], False),
    ],
)
def test_a_uniform_draw_leaves_one_candidate_fewer_at_each_place(
    kind: str, propensity: list[float], uniform: bool
) -> None:
    assert _uniform(rounds("".join(kind), [propensity], [[0, 0]])) is uniform


def test_fits_are_made_once_for_policies_that_learn_the_same() -> None:
    """Popularity draws nothing: one fit is enough for equal logs; other logs need one each."""
    log, later = log_of([0, 1, 2]).sequences(), log_of([0, 1, 2, 3]).sequences()
    same, two = [Lesson(log, 1), Lesson(log, 2)], [Lesson(log, 1), Lesson(later, 2)]
    told: list[tuple[Any, ...]] = []
    fitting = Fitting(progress=lambda *said: told.append(said))
    catalogue = Catalogue(USERS, ITEMS)
    wanted = [Wanted("p", "popularity"), Wanted("q", "popularity")]
    (p, (one,)), (q, (other,)) = fitted(wanted, same, catalogue, fitting)
    assert (p, q) == ("p", "q")
    for name, value in one.state().items():
        np.testing.assert_array_equal(other.state()[name], value)
    ((_, each),) = fitted(wanted[:1], two, catalogue, fitting)
    assert len(each) == 2
    ((_, first),) = fitted([replace(wanted[0], fits=1)], two, catalogue, fitting)
    assert len(first) == 1
    assert len(_distinct(same)) == 1
    assert _distinct(two) == [log, later]
    assert [_of_fit("ab", fit) for fit in (0, 1)] == ["a", "b"]
    assert [_of_fit("a", fit) for fit in (0, 1)] == ["a", "a"]
    tell = _named(lambda *said: told.append(said), "fit p")
    tell("epoch", 2, 5, {"loss": 1.0})
    assert told[-1] == ("fit p: epoch", 2, 5, {"loss": 1.0})
    assert same[0].digest == Lesson(log_of([0, 1, 2]).sequences(), 9).digest != two[1].digest
    assert len(same[0].digest) == 12


def test_fits_are_kept_and_taken_over(tmp_path: Path) -> None:
    log, catalogue = log_of([0, 1, 2]).sequences(), Catalogue(USERS, ITEMS)
    lessons = [Lesson(log, 1)]
    ((_, (made,)),) = fitted([Wanted("p", "popularity")], lessons, catalogue, Fitting(), tmp_path)
    (file,) = tmp_path.glob("*.npz")
    assert file.name.endswith(f"-{lessons[0].digest}.npz")
    kept = file.stat().st_mtime_ns
    ((_, (again,)),) = fitted([Wanted("p", "popularity")], lessons, catalogue, Fitting(), tmp_path)
    assert file.stat().st_mtime_ns == kept
    for name, value in made.state().items():
        np.testing.assert_array_equal(again.state()[name], value)


def test_a_policy_with_several_fits_is_a_target_of_several() -> None:
    desks = [alone("p", Popularity(), ITEMS, 4, seed) for seed in (1, 2)]
    one, both = target("p", desks[:1], 3), target("p", desks)
    assert isinstance(one, PolicyTargets)
    assert (one.name, one.desk, one.draws) == ("p", desks[0], 3)
    assert isinstance(both, FittedTargets)
    assert [fit.desk.seed for fit in both.fits] == [1, 2]
    assert [fit.draws for fit in both.fits] == [1, 1]


def test_the_control_is_fitted_once_and_after_the_others() -> None:
    arm = Wanted("arm", "random")
    asked = AskedPolicies(("random", "popularity"), "popularity")
    assert [one.label for one in asked.beside([arm])] == ["arm", "random", "popularity"]
    assert [one.label for one in replace(asked, control="arm").beside([arm])] == [
        "arm", "random", "popularity",
    ]  # fmt: skip
    assert [one.label for one in replace(asked, control="ease").beside()] == [
        "random", "popularity", "ease",
    ]  # fmt: skip
    assert [one.label for one in AskedPolicies(("random",), None).beside()] == ["random"]


def test_a_log_is_replayed_for_each_reward_with_what_was_asked_for(tmp_path: Path) -> None:
    t = [day * DAY + 10 * i for day in (-2, -1, 0, 1) for i in range(30)]
    log = log_of(t, propensity=np.full(120, 0.2), watch=np.arange(120.0))
    file = log.write(tmp_path / "made.parquet")
    asked = {"estimators": ("ips", "ranked", "rollout"), "resamples": 20}
    found = replay(file, ["random"], rewards=("click", "watch"), control="popularity", **asked)  # type: ignore[arg-type]
    assert [one.reward for one in found] == ["click", "watch"]
    assert [one.policy for one in found[0].evaluations] == ["random", "popularity"]
    assert (len(found[0].orders), len(found[1].orders)) == (2, 0)
    why = "policies are asked alone, not through a serving (--served)"
    for one in found[0].evaluations:
        assert [each.estimator for each in one.estimates] == ["ips", "ranked", "rollout"]
        assert [each.refused for each in one.estimates[1:]] == [why, why]
    assert found[0].control == "popularity"
    assert [one.policy for one in found[0].lifts] == ["random"] * 3
    assert jobs.truth(Stream(log)).rounds == 120


class Found:
    """What each kind of source is asked for, noted instead of read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = log_of([-1, 0])
        catalogue = Catalogue(USERS, ITEMS)
        campaign = SimpleNamespace(name="men", log=self.log, catalogue=catalogue)
        source = SimpleNamespace(history=self.log, future=None, catalogue=catalogue)
        monkeypatch.setattr(open_bandit, "campaign", lambda folder: campaign)
        monkeypatch.setattr(sources, "ab_test", lambda *how: iter([("ab", *how)]))
        monkeypatch.setattr(sources, "replay_log", lambda *how: ("log", *how))
        monkeypatch.setattr(sources, "exposures", lambda *how: None)
        monkeypatch.setattr(sources.datasets, "read", lambda data, folder: source)


def jobs_of(path: Path, **options: Any) -> list[Any]:
    asked = AskedPolicies(("random",), None)
    return list(sources._jobs(path, asked, ReplayOptions(**options), silent))


def test_a_source_is_known_by_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published A/B tests: the folder of all campaigns, one of them in the folder of an arm, or a
    folder with the arms; a feed by its files; else a log.
    """
    found = Found(monkeypatch)
    for arm in ("random", "bts"):
        (tmp_path / "obd" / arm / "men").mkdir(parents=True)
    everything, half = tmp_path / "obd", tmp_path / "half"
    (half / "bts").mkdir(parents=True)
    for folder in (everything, everything / "random" / "men", half):
        ((kind, name, log, *_),) = jobs_of(folder)[:1]
        assert (kind, name) == ("ab", "men")
        assert log is found.log
    feed = tmp_path / "feed"
    feed.mkdir()
    (feed / "log_standard.csv").touch()
    (job,) = jobs_of(feed, test_days=3)
    assert job[:2] == ("log", "feed")
    assert [one.label for one in job[3]] == ["random"]
    file = found.log.write(tmp_path / "made.parquet")
    (job,) = jobs_of(file)
    assert job[:2] == ("log", "made.parquet")
    assert job[6] is None  # no catalogue beside it


def test_a_feed_is_replayed_once_more_by_what_it_drew_uniformly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From as many items as there are, or as are known to have been drawn from."""
    Found(monkeypatch)
    told: list[Uniform] = []
    monkeypatch.setattr(sources, "exposures", lambda job, uniform: told.append(uniform) or "drawn")
    for source, n_items, jobs_found, pool in (
        ("kuairand", 5, 2, 5), ("kuairand", 10_000, 2, kuairand.POOL), ("csv", 5, 1, None),
    ):  # fmt: skip
        told.clear()
        source_found: Any = SimpleNamespace(
            history=log_of([0]), future=None, catalogue=Catalogue(USERS, n_items)
        )
        data: Any = SimpleNamespace(source=source)
        found = list(sources._of_read("made", data, source_found, [], ReplayOptions(), silent))
        assert len(found) == jobs_found
        assert told == ([] if pool is None else [Uniform("random", pool)])
    monkeypatch.setattr(sources, "exposures", lambda job, uniform: None)
    data = SimpleNamespace(source="kuairand")
    assert len(list(sources._of_read("x", data, source_found, [], ReplayOptions(), silent))) == 1


def test_a_scenario_gives_its_arms_and_how_they_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Found(monkeypatch)
    path = write_scenario(tmp_path, tiny_scenario({"a": {"policy": "popularity"}}))
    (job,) = jobs_of(path, recall=7, history=8, seed=1)
    kind, title, _, wanted, options, _, _, scenario = job
    assert (kind, title, scenario.name) == ("log", "tiny", "tiny")
    assert [(one.label, one.name) for one in wanted] == [("a", "popularity"), ("random", "random")]
    assert wanted[0].folder == tmp_path
    assert (options.recall, options.history, options.seed) == (12, 16, 9)
