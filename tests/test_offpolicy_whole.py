"""What the commands of the offline side hand to their parts: which log, from when on, which fits,
seeds and policies. The parts themselves are tested elsewhere; here they only note what they get.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, silent
from policies.time import DAY
from simulator.designs.fits import FitsSpec
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy import (
    diagnostics,
    fidelity,
    past_launches,
    pooled_run,
    sources,
    uncertainty,
)
from simulator.offpolicy.answers import AnswerModel
from simulator.offpolicy.choice import choose
from simulator.offpolicy.evidence import ReplayFacts
from simulator.offpolicy.jobs import ReplayJob, ReplayOptions, ServedCourse, _lessons
from simulator.offpolicy.lifts import off_policy_lifts
from simulator.offpolicy.pooled import LEVELS, pooled_audit, pooled_lift, pooled_moments
from simulator.offpolicy.ranked import RankedClicks
from simulator.offpolicy.replay import Estimate, evaluate
from simulator.offpolicy.result import gather
from simulator.offpolicy.rounds import Stream
from simulator.offpolicy.settings import BY_SERVING, ESTIMATORS, ReplayError, ReplaySettings
from simulator.offpolicy.sums import UnitSums
from simulator.offpolicy.target import PolicyTargets, alone, apart
from simulator.offpolicy.target_fits import Lesson, Wanted, fitted, served
from simulator.scenario.model import Scenario
from simulator.serving.ranking import Ranker
from tests.worlds import tiny_scenario

USERS, ITEMS = 6, 9


def log_of(arms: tuple[str, ...] = ("history", "a", "b"), **more: Any) -> EventLog:
    """One impression a day of each user in each arm; the history lies before 0."""
    arm, user, day = (one.ravel() for one in np.indices((len(arms), USERS, 5)))
    n = len(arm)
    columns = {
        "arm": arm, "user": user, "session": day, "request": np.zeros(n, int),
        "position": np.zeros(n, int), "t": np.where(arm == 0, day - 5, day) * DAY,
        "item": np.arange(n) % ITEMS + 1, "click": (np.arange(n) % 2).astype(np.int8),
    }  # fmt: skip
    return EventLog.from_columns(columns | more, Metadata(arms, USERS, ITEMS))


def scenario(**changes: Any) -> Scenario:
    arms = {"a": {"policy": "popularity"}, "b": {"policy": "random"}}
    return Scenario.model_validate(tiny_scenario(arms, **changes))


class Noted:
    """Takes whatever it is given, and remembers it."""

    def __init__(self, answer: Any = None) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.answer = answer

    def __call__(self, *how: Any, **more: Any) -> Any:
        self.calls.append((how, more))
        return self.answer(*how, **more) if callable(self.answer) else self.answer


def evaluation(name: str) -> Any:
    """Of which only its name is asked, and what stands beside it."""
    found = SimpleNamespace(policy=name, estimates=[])

    def beside(more: Any) -> Any:
        found.estimates = [*found.estimates, *more]
        return found

    found.beside = beside
    return found


@pytest.mark.parametrize("reward", ["click", "watch"])
@pytest.mark.parametrize("seen", [None, 30])
def test_the_offline_side_of_fidelity(
    reward: str, seen: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last days of the history, with the histories of the serving; what came before is what all
    fits of every arm learn from; users are divided over fits as in the run.
    """
    serving = {"slate": 2, "recall": 4, "history": 3} | ({"seen": seen} if seen else {})
    world = scenario(serving=serving, fits={"number": 2}, seed=11)
    catalogue = Catalogue(USERS, ITEMS, {"tag": np.arange(ITEMS + 1) % 4})
    desks = [
        tuple(alone(name, None, ITEMS, seed=fit) for fit in range(2))  # type: ignore[arg-type]
        for name in ("a", "b")
    ]
    monkeypatch.setattr(type(desks[0][0]), "asks", ("time",))
    served_by = Noted(([("a", ("fit",)), ("b", ("fit",))], desks))
    evaluated = Noted(lambda stream, targets, *_: [evaluation(one.name) for one in targets])
    rolled = SimpleNamespace(estimates=Noted(lambda name, *_: [f"rolled {name}"]))
    rollouts, ordered = Noted(rolled), Noted(["orders"])
    ranked = SimpleNamespace(threshold=0.0, level=None, model=False, places=False)
    monkeypatch.setattr(fidelity, "served", served_by)
    monkeypatch.setattr(fidelity, "evaluate", evaluated)
    monkeypatch.setattr(fidelity, "Rollout", SimpleNamespace(of=rollouts))
    monkeypatch.setattr(fidelity, "RankedClicks", SimpleNamespace(of=Noted(ranked)))
    monkeypatch.setattr(fidelity, "orderings", ordered)
    log = log_of()
    ran = fidelity.Ran(world, log, catalogue, tmp_path, tmp_path / "kept")
    how = fidelity.settings(11, 100, 4)
    found = fidelity.offline(ran, reward, how, 2, silent)
    ((_, wanted, lessons, *_, kept), _), *_ = served_by.calls
    assert [(one.label, one.name, one.folder, one.fits) for one in wanted] == [
        ("a", "popularity", tmp_path, world.fits_of("a")),
        ("b", "random", tmp_path, world.fits_of("b")),
    ]
    assert kept == tmp_path / "kept"
    assert [one.seed for one in lessons] == [world.fits.training_seed(11, fit) for fit in (0, 1)]
    assert len({id(one.sequences) for one in lessons}) == 1
    assert lessons[0].sequences.t.max() < -2 * DAY
    assert len(lessons[0].sequences.t) == USERS * 3
    ((stream, targets, n_users, n_items, settings, told), _), *_ = evaluated.calls
    assert (stream.arm, stream.reward, stream.since) == ("history", reward, -2 * DAY)
    assert (stream.history, stream.seen, stream.contexts) == (3, seen or 3, 3)
    assert stream.context == ("time",)
    want = world.fits.fit_of_user(11, np.arange(USERS), 2)
    assert stream.fit_of_user.tolist() == want.tolist()
    assert [one.name for one in targets] == ["a", "b"]
    assert (n_users, n_items, told) == (USERS, ITEMS, silent)
    assert settings.clusters.tolist() == [0, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert ("ranked" in settings.estimators) == (reward == "click")
    ((of_stream, past, known, seed, _), _), *_ = rollouts.calls
    assert (of_stream, known, seed) == (stream, catalogue, 11)
    assert past.t.max() < -2 * DAY
    assert [one.estimates for one in found.evaluations] == [["rolled a"], ["rolled b"]]
    ((sessions, policies, n), _), *_ = ordered.calls
    assert (sessions.reward, sessions.by, sessions.contexts, n) == ("click", "session", 1, USERS)
    assert [name for name, _ in policies] == ["a", "b"]
    assert found.orders == ("orders",)


@pytest.mark.parametrize("resume", [False, True])
def test_fidelity_runs_a_wide_scenario_and_replays_its_history(
    resume: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fits of the offline side are kept only to be resumed."""
    world, log = scenario(), log_of()
    simulate, offline, removed = Noted(), Noted(), Noted()
    logged = SimpleNamespace(value=0.25)
    one = SimpleNamespace(policy="b", logged=logged, weights=SimpleNamespace(rounds=77))
    offline.answer = SimpleNamespace(evaluations=[one])
    truth = SimpleNamespace(control="a", policies=lambda: ["policies"])
    online = Noted(SimpleNamespace(of=Noted(truth)))
    monkeypatch.setattr(fidelity, "simulate", simulate)
    monkeypatch.setattr(fidelity, "EventLog", SimpleNamespace(open=Noted(log)))
    monkeypatch.setattr(fidelity, "online", online)
    monkeypatch.setattr(fidelity, "remove", removed)
    monkeypatch.setattr(fidelity, "load_catalogue", Noted("catalogue"))
    monkeypatch.setattr(fidelity, "offline", offline)
    monkeypatch.setattr(fidelity, "best_of", Noted("best"))
    monkeypatch.setattr(fidelity, "agreements", Noted(["agreement"]))
    found = fidelity.fidelity(
        world, tmp_path, folder="plug", resume=resume, reward="watch", policies=9, test_days=3,
        resamples=55,
    )  # fmt: skip
    ((wide, root), more), *_ = simulate.calls
    assert len(wide.arms) == 9
    assert root == tmp_path / "run"
    assert more == {"folder": Path("plug"), "resume": resume, "progress": silent}
    assert online.calls == [((log, "a", "watch", 55, world.seed), {})]
    assert removed.calls == ([] if resume else [((tmp_path / "offline",), {})])
    ((ran, reward, how, days, _), _), *_ = offline.calls
    assert (ran.folder, ran.kept, ran.catalogue) == (
        Path("plug"),
        tmp_path / "offline",
        "catalogue",
    )
    assert (reward, days) == ("watch", 3)
    assert how == fidelity.settings(world.seed, 55, world.serving.recall)
    assert online.answer.of.calls == [((["b"],), {})]
    assert found == fidelity.FidelityResult(
        wide.name, "watch", 3, "a", ("policies",), "best", ("agreement",), 0.25, 77, 1,
    )  # type: ignore[arg-type]  # fmt: skip
    assert (fidelity.fidelity.__kwdefaults__ or {}) | {"progress": None, "folder": None} == {
        "folder": None, "resume": False, "reward": "click", "policies": 16, "test_days": 2,
        "resamples": 1000, "progress": None,
    }  # fmt: skip


@pytest.mark.parametrize(("resume", "finished"), [(True, True), (True, False), (False, True)])
def test_launches_run_the_scenario_unless_it_has_run(
    resume: bool, finished: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = scenario()
    file = tmp_path / "tests.csv"
    file.write_text("test,arm,control,metric,lift,se,simulated,simulated_se\n"
                    "one,a,b,click,1,1,,\ntwo,,x,click,1,1,0.5,0.1\n")  # fmt: skip
    simulate, lifts, held = Noted(), Noted("lifts"), Noted("held")
    place = SimpleNamespace(root=tmp_path / "run", log=tmp_path / "log", finished=finished)
    monkeypatch.setattr(past_launches, "Workspace", Noted(place))
    monkeypatch.setattr(past_launches, "simulate", simulate)
    monkeypatch.setattr(past_launches, "EventLog", SimpleNamespace(open=Noted("log")))
    monkeypatch.setattr(past_launches, "simulated_lifts", lifts)
    monkeypatch.setattr(past_launches, "held_against", held)
    found = past_launches.launches(world, file, tmp_path, resume=resume)
    assert found == "held"
    again = [] if resume and finished else [
        ((world, place.root), {"folder": Path(), "resume": resume, "progress": silent})
    ]  # fmt: skip
    assert simulate.calls == again
    # The scenario's control beside those of launches that it is to say something of.
    assert lifts.calls == [(("log", ["a", "b"]), {})]
    assert [test.test for test in held.calls[0][0][1]] == ["one", "two"]


def test_a_pooled_run_is_asked_arm_by_arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every treatment against the control, for each reward."""
    arms = {name: {"policy": "popularity"} for name in ("a", "b", "c")}
    world = Scenario.model_validate(tiny_scenario(arms))
    for root, words in ((tmp_path / "none", "give the folder of a finished run"),):
        with pytest.raises(ReplayError, match=words):
            pooled_run.pooled(log_of(), root)
    (tmp_path / "models").mkdir()
    with pytest.raises(ReplayError, match="a pooled lift asks the policies of a run"):
        pooled_run.pooled(log_of(), tmp_path)
    (tmp_path / "scenario.yaml").touch()
    desk = alone("x", None, ITEMS)  # type: ignore[arg-type]
    asked = SimpleNamespace(users=Noted("users"), lanes_called=Noted(("lane",)), desk=Noted(desk))
    sums, compared = Noted(("control", "treatment")), Noted("compared")
    monkeypatch.setattr(pooled_run.Scenario, "load", Noted(world))
    monkeypatch.setattr(pooled_run, "Context", Noted(asked))
    monkeypatch.setattr(pooled_run, "_sums", sums)
    monkeypatch.setattr(pooled_run, "_compared", compared)
    log = log_of(("history", "a", "b", "c"))
    found = pooled_run.pooled(log, tmp_path, rewards=("click", "watch"), repetitions=5, seed=3)
    assert found == ["compared"] * 4
    assert [how[2:] for how, _ in sums.calls] == [
        (("a", treatment), {"a": desk, "b": desk, "c": desk}, reward, silent)
        for reward in ("click", "watch") for treatment in ("b", "c")
    ]  # fmt: skip
    assert compared.calls[3] == ((("a", "c"), "watch", "control", "treatment", 5, 3), {})
    assert [how[:2] for how, _ in asked.desk.calls] == [("lane", 0)] * 3
    assert pooled_run.pooled.__kwdefaults__ == {
        "rewards": ("click",), "repetitions": 2000, "seed": 0, "progress": silent,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["paired", "split"])
def test_sums_of_a_run_are_of_the_users_of_each_arm(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = {"slate": 2, "recall": 4, "history": 3, "seen": 7}
    world = scenario(design={"kind": kind, "control": "a"}, serving=serving)
    log, sums = log_of(), Noted("sums")
    monkeypatch.setattr(pooled_run, "arm_sums", sums)
    desks = {name: alone(name, None, ITEMS) for name in "ab"}  # type: ignore[arg-type]
    monkeypatch.setattr(type(desks["a"]), "asks", ("times", "watch"))
    got = pooled_run._sums(log, world, ("a", "b"), desks, "watch", silent)
    assert got == ("sums", "sums")
    assigned = world.assignment.arm_of_user(USERS)
    for (how, _), name in zip(sums.calls, ("a", "b"), strict=True):
        stream, first, second, shares, users, _ = how
        assert (stream.reward, stream.arm, stream.propensity) == ("watch", name, "unknown")
        assert (stream.history, stream.seen, stream.context) == (3, 7, ("times", "watch"))
        assert (first.name, second.name, shares) == ("a", "b", (0.5, 0.5))
        mine = np.arange(USERS)
        if kind == "split":
            assert assigned is not None
            mine = np.flatnonzero(assigned == world.assignment.arms.index(name))
            assert 0 < len(mine) < USERS
        assert users.tolist() == mine.tolist()


def job(course: Any, reward: str = "click") -> ReplayJob:
    desk = alone("p", None, ITEMS)  # type: ignore[arg-type]
    stream = Stream(log_of(("history",)), reward, history=3)
    return ReplayJob("made", stream, (PolicyTargets("p", desk),), course=course)


@pytest.mark.parametrize("reward", ["click", "watch"])
def test_a_course_is_rolled_out_where_it_is_asked_for(
    reward: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the ranking stage expects is asked of clicks alone; of the two rollouts those that were
    asked for stand beside the others.
    """
    course = ServedCourse((("desk",),), "past", Catalogue(USERS, ITEMS), 6)  # type: ignore[arg-type]
    ranked = SimpleNamespace(threshold=0.0, level=None, model=False, places=False)
    monkeypatch.setattr(ServedCourse, "ranked", Noted(ranked))
    evaluated = Noted(lambda *how: [evaluation("p")])
    monkeypatch.setattr(sources, "evaluate", evaluated)
    estimates = [Estimate("p", name, "", "request") for name in ("rollout", "rollout_dr")]
    rolled = Noted(SimpleNamespace(estimates=Noted(estimates)))
    monkeypatch.setattr(sources, "Rollout", SimpleNamespace(of=rolled))
    monkeypatch.setattr(sources, "gather", lambda job, evaluations, orders, control: evaluations)

    def names(*by_serving: str) -> list[str]:
        made = sources._replayed(
            job(course, reward), ReplaySettings(("ips",)), by_serving, "p", silent
        )
        return [one.estimator for one in made[0].estimates]  # type: ignore[index]

    refused = [] if reward == "click" else ["ranked"]
    assert names("ranked", "rollout", "rollout_dr") == ["rollout", "rollout_dr", *refused]
    assert names("rollout_dr") == ["rollout_dr"]
    before = len(rolled.calls)
    assert names("ranked") == refused
    assert len(rolled.calls) == before
    asked = [how[4].estimators for how, _ in evaluated.calls]
    first = ("ips", "ranked") if reward == "click" else ("ips",)
    assert asked == [first, ("ips",), first]
    assert rolled.calls[0][0][1:4] == ("past", course.catalogue, 6)
    with pytest.raises(ReplayError) as error:
        sources._replayed(job("why"), ReplaySettings(("ips",)), (), "q", silent)
    assert str(error.value) == (
        "no policy 'q' to be the control of 'made', where lifts are of p: leave --control out, and"
        " they are over the policy that wrote the log"
    )


def test_lives_with_several_fits_are_lessons_of_their_own() -> None:
    log = log_of(("history", "a"))
    options = ReplayOptions(seed=7, fit_days=2)
    (one,) = _lessons(log, "history", -DAY, options)
    assert one.sequences.t.tolist() == [-3 * DAY, -2 * DAY] * USERS
    plain = replace(options, fit_days=None)
    (whole,) = _lessons(log, "a", 2 * DAY, plain)
    assert sorted(set(whole.sequences.t.tolist())) == [0, DAY]
    fit = np.arange(2 * USERS * 5) % 2
    crossed = log_of(("history", "a"), fit=fit)
    metadata = replace(crossed.metadata, scenario={"fits": {"number": 2, "design": "crossed"}})
    crossed = EventLog(metadata, crossed.table)
    assert crossed.metadata.fits.crossed
    first, second = _lessons(crossed, "a", 5 * DAY, plain)
    assert len(first.sequences.t) == len(second.sequences.t) == USERS * 5 / 2
    assert [one.seed for one in (first, second)] == [
        FitsSpec(number=2).training_seed(7, fit) for fit in (0, 1)
    ]
    (shared,) = _lessons(crossed, "history", 0, plain)
    assert len(shared.sequences.t) == USERS * 5


PLUGIN = """
from policies.popularity import Popularity


class Drawn(Popularity):
    draws_in_fit = True

    def fit(self, sequences, catalogue, fitting):
        fitting.progress("epoch", fitting.seed, 9, {})
        return super().fit(sequences, catalogue, fitting)
"""


def test_desks_are_one_for_each_fit_with_what_all_share(tmp_path: Path) -> None:
    """A policy that draws has a fit for each lesson; what does not draw is shared by all, the
    ranking stage as well unless the lessons are of different logs.
    """
    (tmp_path / "mine.py").write_text(PLUGIN)
    serving = {"slate": 2, "recall": 4, "history": 3, "ranking": {"kind": "pointwise"},
               "channels": [{"name": "new", "policy": "random", "quota": 2}]}  # fmt: skip
    world = scenario(serving=serving, seed=13)
    log = log_of()
    past, later = (log.sequences("history", before=at * DAY) for at in (-1, -2))
    wanted = [Wanted("p", "popularity", {}, tmp_path), Wanted("d", "mine.py:Drawn", {}, tmp_path)]
    told: list[tuple[Any, ...]] = []
    catalogue = Catalogue(USERS, ITEMS)
    fitting = Fitting(progress=lambda *said: told.append(said))
    same = [Lesson(past, seed) for seed in (1, 2)]
    own, desks = served(world, wanted, same, catalogue, fitting)
    assert told == [(f"fit d {fit}: epoch", fit + 1, 9, {}) for fit in (0, 1)]
    fitted(wanted[1:], same[:1], catalogue, fitting)
    assert told[-1] == ("fit d: epoch", 1, 9, {})
    assert [(name, len(fits)) for name, fits in own] == [("p", 1), ("d", 2)]
    assert [len(one) for one in desks] == [1, 2]
    assert desks[1][0].ranker is desks[1][1].ranker is not None
    assert {desk.seed for one in desks for desk in one} == {apart(13)}
    assert [desk.recall.policy for desk in desks[1]] == list(own[1][1])
    assert [one.name for one in desks[0][0].channels] == ["random"]
    assert desks[1][0].channels[0].policy is desks[1][1].channels[0].policy
    assert (desks[0][0].arm, desks[1][1].arm) == ("p", "d")
    apart_ = [Lesson(past, 1), Lesson(later, 2)]
    own, desks = served(world, wanted[:1], apart_, catalogue, fitting)
    assert [len(one) for one in desks] == [2]
    assert desks[0][0].ranker is not desks[0][1].ranker
    rough = scenario(serving={**serving, "ranking": {"kind": "recall"}})
    _, plain = served(rough, wanted[:1], same, catalogue, fitting)
    assert plain[0][0].ranker is None


def test_a_ranking_stage_that_also_looks_at_watch_times_is_asked_for_clicks() -> None:
    log = log_of()
    past, catalogue = log.sequences("history", before=-DAY), Catalogue(USERS, ITEMS)
    ranker = Ranker.fit(past, catalogue, 3, 0.5)
    assert RankedClicks.of(ranker, past, catalogue, 3).ranker == replace(ranker, weight=0.0)
    fitted = RankedClicks.of(None, past, catalogue, 3).ranker
    assert fitted.weight == 0.0
    own = Ranker.fit(past, catalogue, 3, 0.0)
    for name, value in vars(own).items():
        np.testing.assert_array_equal(getattr(fitted, name), value)


def test_what_is_not_said_is_as_it_is_documented() -> None:
    """Intervals at 95%, 1,000 resamples, seed 0."""
    known: list[tuple[Any, dict[str, Any]]] = [
        (uncertainty.delta, {"level": 0.95}),
        (uncertainty.bernstein, {"level": 0.95}),
        (uncertainty.percentile, {"level": 0.95}),
        (choose, {"level": 0.95, "resamples": 10_000, "seed": 0}),
        (off_policy_lifts, {"control": None, "level": 0.95}),
        (pooled_audit, {"repetitions": 2000, "seed": 0, "levels": tuple(LEVELS)}),
        (pooled_moments, {"adjusted": True}),
        (pooled_lift, {"carry": None}),
        (alone, {"recall": 0, "seed": 0}),
        (PolicyTargets.of, {"recall": 0, "seed": 0, "draws": 1}),
        (PolicyTargets, {"draws": 1, "block": 4096}),
        (UnitSums, {"units": 8192}),
        (fidelity.widened, {"policies": 16}),
        (ReplayFacts, {"uniform": False, "foretells": True, "recalled": False, "clusters": False}),
        (past_launches.launches, {"folder": Path(), "resume": False, "progress": silent}),
        (AnswerModel, {"seed": 0, "folds": 5, "scale": 1.0}),
        (Wanted, {"folder": None, "fits": None}),
        (gather, {"orders": (), "control": None}),
        (evaluate, {"settings": ReplaySettings(), "progress": None}),
    ]
    for function, want in known:
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in want} == want, function
    given = inspect.signature(sources.replay).parameters
    assert given["resamples"].default == uncertainty.RESAMPLES == 1000
    assert given["rewards"].default == ("click",)
    assert given["estimators"].default == (*ESTIMATORS, *BY_SERVING)
    assert (diagnostics.KEEP, diagnostics.EVENTS, diagnostics.WIDTH) == (10, 30, 1 / 3)
