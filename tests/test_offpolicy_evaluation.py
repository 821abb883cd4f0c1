"""An evaluation put together by hand from its parts: estimators' terms by user, the error of the
model, thresholds, intervals; and a rollout lived through in plain Python.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, Policy, Sequences, Slates
from policies.streams import Purpose, uniform
from simulator.offpolicy.answers import Expected, ModelEvidence
from simulator.offpolicy.diagnostics import EstimateVerdict, Findings, Weights, weighted
from simulator.offpolicy.estimators import IPS, SNIPS, ClippedIPS, DirectMethod
from simulator.offpolicy.evidence import Evidence, ReplayFacts
from simulator.offpolicy.kind_table import KindTable
from simulator.offpolicy.replay import (
    CurvePoint,
    Estimate,
    Evaluation,
    ReplaySettings,
    _Case,
    _Pick,
    evaluate,
)
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rollout import Requests, Rollout, judge, refused
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import ESTIMATORS
from simulator.offpolicy.target import Target, alone
from simulator.offpolicy.uncertainty import (
    EstimateInterval,
    Ratios,
    bernstein,
    bootstrap,
    delta,
    percentile,
)

USERS, ITEMS, PLACES = 12, 4, 2


def log(kind: str = "conditional", places: int = PLACES) -> list[Rounds]:
    """Two chunks of rounds, the last of which has a reward that was not observed."""
    random = np.random.default_rng(places)
    n = 40
    zero = np.zeros(n, dtype=np.int64)
    item = np.argsort(random.random((n, ITEMS)), axis=1)[:, :places] + 1
    reward = 1.0 * (random.random((n, places)) < 0.2 * item)
    reward[-1, 0] = np.nan
    user = random.integers(0, USERS - 1, n)  # the last user has no round
    chance = random.uniform(0.2, 0.6, (n, places))
    whole = Rounds(
        user, random.integers(0, 3, n), zero, np.arange(n), np.tile(np.arange(places), (n, 1)),
        item, reward, chance, kind, random.integers(0, 2, n),
    )  # type: ignore[arg-type]  # fmt: skip
    return [whole.rows(slice(0, 15)), whole.rows(slice(15, 15)), whole.rows(slice(15, n))]


class Half:
    """Shows the slates 1, 2 and 3, 4 as often as one another."""

    name = "half"

    def __call__(self, rounds: Rounds) -> Target:
        n, k = rounds.item.shape
        slates = np.broadcast_to(np.array([[1, 2], [3, 4]])[:, :k], (n, 2, k))
        first = 0.5 * np.isin(rounds.item[:, :1], (1, 3))
        rest = 1.0 * (rounds.item[:, 1:] == rounds.item[:, :1] + 1)
        chance = np.concatenate((first, rest), axis=1)
        law = np.zeros((n, k, ITEMS + 1))
        law[:, 0, [1, 3]] = 0.5
        if k > 1:
            law[np.arange(n), 1, np.minimum(rounds.item[:, 0] + 1, ITEMS)] = 1.0
        return Target(chance, slates, np.full((n, 2), 0.5), law)


CLUSTERS = np.array([0, 1, 1, 2, 2])
NAMES = ("ips", "snips", "dm", "dr", "sndr", "rips", "matching", "candidate_dr", "mips", "lips")


def by_user(user: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of each of the users who have rounds."""
    there = np.unique(user)
    return np.bincount(user, weights=values, minlength=USERS)[there]


def test_an_evaluation_is_the_sums_of_its_terms_by_user() -> None:
    chunks, target = log(), Half()
    settings = ReplaySettings(
        (*NAMES, "iips"), resamples=80, level=0.9, seed=7, folds=2, contexts=2, clusters=CLUSTERS
    )
    told: list[tuple[Any, ...]] = []
    (found,) = evaluate(chunks, [target], USERS, ITEMS, settings, lambda *said: told.append(said))
    assert told == [
        ("survey", 15, 0, {}), ("survey", 39, 0, {}), ("replay", 15, 39, {}),
        ("replay", 39, 39, {}), ("model error", 15, 39, {}), ("model error", 15, 39, {}),
        ("model error", 39, 39, {}),
    ]  # fmt: skip
    known = [chunks[0], chunks[2].rows(slice(0, 24))]
    model = RewardTable(ITEMS, 2, 2, 7)
    kinds = {level: KindTable(level, CLUSTERS, 2, 2, 7) for level in ("items", "slates")}  # type: ignore[arg-type]
    for one in known:
        model.add(one)
        for table in kinds.values():
            table.add(one)
    model.settle()
    for table in kinds.values():
        table.table.settle()
    whole = replace(known[0], **{
        name: np.concatenate([getattr(one, name) for one in known])
        for name in ("user", "day", "t", "row", "position", "item", "reward", "propensity",
                     "context")
    })  # fmt: skip
    e = Evidence(whole, target(whole), model, kinds, CLUSTERS)
    ones = np.ones(39)
    mass = model.mass(whole, e.target)
    ratios = {}
    for name in NAMES:
        (estimator,) = ESTIMATORS[name]
        terms = estimator.ratios(e)
        above = [by_user(whole.user, a)[:, None] for a, _ in terms]
        below = [by_user(whole.user, ones if b is None else b)[:, None] for _, b in terms]
        shift = None
        if estimator.level is not None:
            table = kinds[estimator.level]
            shows = table.table.mass(table.rounds(whole), table.target(e.target))
            (moved,) = table.table.influence(table.rounds(whole), shows[None])
            shift = by_user(whole.user, moved)
        elif estimator.model and estimator.moves_with_model:
            scale = 39 / below[-1].sum() if estimator.normalised else 1.0
            gradient = mass - scale * model.shown(whole, estimator.trust(e))
            shift = by_user(whole.user, model.influence(whole, gradient))
        ratios[name] = Ratios(np.concatenate(above, axis=1), np.concatenate(below, axis=1), shift)
    own = Ratios(*(by_user(whole.user, one)[:, None] for one in (e.total, ones)))
    resampled = bootstrap([*ratios.values(), own], 80, 7)
    for row, name in zip(resampled, NAMES, strict=False):
        estimate, ratio = found[name], ratios[name]
        assert estimate.value == pytest.approx(ratio.value, rel=1e-9), name
        assert estimate.error == pytest.approx(ratio.error(), rel=1e-9), name
        assert estimate.count == pytest.approx(ratio.denominators[:, 0].sum()), name
        want = percentile(row, 0.9), delta(ratio, 0.9), bernstein(ratio, 0.9)
        for mine, theirs in zip(estimate.intervals, want, strict=True):
            assert mine.method == theirs.method
            assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
        (first,) = estimate.first_order
        np.testing.assert_allclose(first.influence, ratio.influence(), rtol=1e-7, atol=1e-12)
        variate = ESTIMATORS[name][0].control_variate(e)
        assert (estimate.variate is None) == (variate is None)
        if variate is not None and estimate.variate is not None:
            mean = Ratios(*(by_user(whole.user, one)[:, None] for one in (variate, ones)))
            assert estimate.variate.value == pytest.approx(mean.value - 1)
            np.testing.assert_allclose(estimate.variate.influence, mean.influence(), atol=1e-12)
        assert (estimate.threshold, estimate.bias, estimate.curve) == (None, 0.0, ())
    assert found["iips"].refused is not None
    assert found.facts == ReplayFacts("conditional", 2, False, True, False, True)
    assert found.unobserved == 1
    logged = found.logged
    assert (logged.policy, logged.estimator, logged.unit) == ("log", "mean", "request")
    assert (logged.value, logged.count) == pytest.approx((own.value, 39))
    assert logged.error == pytest.approx(own.error())
    assert [one.method for one in logged.intervals] == ["bootstrap", "delta"]
    assert logged.interval("delta") == delta(own, 0.9)
    assert logged.interval() == percentile(resampled[-1], 0.9)
    per_item = Ratios(own.numerators, 2 * own.denominators)
    assert found.own["request"].value == pytest.approx(own.value)
    assert found.own["impression"].value == pytest.approx(own.value / 2)
    np.testing.assert_allclose(found.own["impression"].influence, per_item.influence())
    mean = Ratios(*(by_user(whole.user, one)[:, None] for one in (e.weight, ones)))
    assert found.mean_weight == delta(mean, 0.9)
    # The verdict of a weighted estimate, and of one that weighs items.
    nothing = EstimateInterval("delta", math.nan, math.nan)
    facts = found.facts
    told_of = Findings(facts, found.weights, found.mean_weight, nothing,
                       delta(ratios["ips"], 0.9), 39.0)  # fmt: skip
    assert found["ips"].verdict == weighted(told_of, self_normalised=False)
    items = Weights(ITEMS)
    items.add(e, e.mean_item_weight)
    of_items = Ratios(*(by_user(whole.user, one)[:, None] for one in (e.mean_item_weight, ones)))
    by_items = replace(told_of, weights=items, mean_weight=delta(of_items, 0.9),
                       own=delta(ratios["candidate_dr"], 0.9))  # fmt: skip
    assert found["candidate_dr"].verdict == weighted(by_items, self_normalised=False)
    residual = Ratios(*(by_user(whole.user, one)[:, None] for one in (e.weight * e.residual, ones)))
    modelled = replace(told_of, residual=delta(residual, 0.9), own=delta(ratios["dm"], 0.9))
    assert found["dm"].verdict == DirectMethod().judge(modelled)


def test_marginal_slates_are_summed_up_by_the_mean_weight_of_their_places() -> None:
    settings = ReplaySettings(("iips",), resamples=9)
    (found,) = evaluate(log("".join("marginal")), [Half()], USERS, ITEMS, settings)
    chunks = log("marginal")
    step = np.concatenate([Half()(one).probability / one.propensity for one in chunks])[:-1]
    assert found.weights.total == pytest.approx(step.mean(axis=1).sum())
    (single,) = evaluate(log("".join("marginal"), 1), [Half()], USERS, ITEMS,
                         ReplaySettings(("ips",), resamples=9))  # fmt: skip
    chunks = log("marginal", 1)
    weight = np.concatenate([Half()(one).probability / one.propensity for one in chunks])[:-1]
    assert single.weights.total == pytest.approx(weight.sum())


def case(**of: Any) -> _Case:
    made = _Case.__new__(_Case)
    made.settings = ReplaySettings(("ips",), **of)
    return made


def test_the_threshold_with_the_least_squared_error_is_chosen() -> None:
    """Its bias is how far it is from the unbiased member, and what is not known of that."""
    random = np.random.default_rng(3)
    units, ones = 30, np.ones((30, 1))
    base = random.gamma(2.0, 1.0, (units, 1))
    wild = base + random.normal(0, 4, (units, 1))
    members = ClippedIPS(1.0), ClippedIPS(5.0), ClippedIPS(math.inf)
    ratios = {
        one.label: Ratios(values, ones)
        for one, values in zip(members, (0.2 * base, 0.9 * base, wild), strict=True)
    }
    made = case(members={"ips": members})
    pick = made._choose("ips", ratios)
    each = [ratios[one.label] for one in members]
    bound = [
        float(np.hypot(one.value - each[2].value, one.distance_error(each[2]))) for one in each
    ]
    errors = [one.error() ** 2 + far**2 for one, far in zip(each, bound, strict=True)]
    best = int(np.argmin(errors))
    assert pick.estimator is members[best]
    assert pick.both() == [each[best], each[2]]
    assert (pick.threshold, pick.bound) == (members[best].threshold, bound[best])
    curve = zip((1.0, 5.0, math.inf), each, bound, strict=True)
    assert pick.curve == tuple(
        CurvePoint(at, one.value, one.error(), far) for at, one, far in curve
    )
    alone = case()._choose("ips", {"ips": each[0]})
    assert (alone.estimator.label, alone.both(), alone.threshold) == ("ips", [each[0]], None)
    # Two readings of one log: the first is printed, the second widens its intervals.
    two = case(members={"ips": (IPS(), SNIPS())})
    both = two._choose("ips", {"ips": each[1], "snips": each[2]})
    assert (both.both(), both.threshold, both.curve) == ([each[1], each[2]], None, ())


def test_intervals_of_a_chosen_threshold_are_hulls_with_the_unbiased_one() -> None:
    random = np.random.default_rng(4)
    one, last = (Ratios(random.gamma(2, 1, (20, 1)), np.ones((20, 1))) for _ in range(2))
    resampled = bootstrap([one, last], 60, 1)
    pick = _Pick(ClippedIPS(5.0), one, last)
    for at, (mine, made) in enumerate(
        zip(pick.intervals(resampled, 0.8), (percentile, delta, bernstein), strict=True)
    ):
        ends = (
            [made(row, 0.8) for row in resampled] if at == 0
            else [made(ratio, 0.8) for ratio in (one, last)]  # type: ignore[arg-type]
        )  # fmt: skip
        assert mine == ends[0].hull(ends[1])
    alone = _Pick(IPS(), one).intervals(resampled[:1], 0.8)
    assert alone == (percentile(resampled[0], 0.8), delta(one, 0.8), bernstein(one, 0.8))


def estimated(*names: str, kind: str = "conditional", length: int = 2, **more: Any) -> Evaluation:
    estimates = tuple(Estimate("p", name, "", "request", **more.get(name, {})) for name in names)
    nothing = EstimateInterval("delta", 1, 1)
    facts = ReplayFacts("".join(kind), length)  # type: ignore[arg-type]
    return Evaluation("p", facts, estimates, Weights(1), nothing, estimates[0], 0)


def test_what_to_read_first_depends_on_the_log_and_on_what_ran() -> None:
    every = ("matching", "recalled", "ips", "dr", "iips", "rips", "cascade_dr", "cdr", "dm")
    assert estimated(*every).precedence == ("cascade_dr", "rips", "iips", "matching", "recalled")
    assert estimated(*every, length=1).precedence == ("dr", "ips", "matching", "recalled")
    for word, first in (("weak", "cdr"), ("unusable", "recalled"), (None, "recalled")):
        verdict = None if word is None else EstimateVerdict(word, ())  # type: ignore[arg-type]
        found = estimated("matching", "recalled", "cdr", kind="unknown", cdr={"verdict": verdict})
        last = ("cdr", "recalled", "matching") if word == "weak" else ("recalled", "matching")
        assert found.precedence == last
        assert found.headline.estimator == first
    no = {"refused": "no"}
    few = estimated("dr", "ips", "matching", length=1, dr=no)
    assert few.precedence == ("ips", "matching")
    none = estimated("dm", "dr", length=1, dr=no)
    assert (none.precedence, none.headline.estimator) == ((), "dm")
    more = few.beside([refused("p", "rollout", "why")])
    assert more["rollout"].refused == "why"
    assert [one.estimator for one in more.estimates] == ["dr", "ips", "matching", "rollout"]
    bare = Estimate("p", "x", "", "request")
    assert (bare.word, bare.reasons, bare.count, bare.bias) == (None, (), 0.0, 0.0)
    assert bare.interval().method == "bootstrap"
    assert math.isnan(bare.interval().low)


# A rollout.


class Fresh(Policy):
    """Shows the lowest items that were not seen, from the user's own number on."""

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Fresh:
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        items = np.zeros((len(histories), k), dtype=np.int64)
        for r in range(len(histories)):
            start = int(histories.clicked[r].sum())
            order = [(start + i) % 9 + 1 for i in range(9)]
            fresh = [i for i in order if i not in histories.seen[r]][:k]
            items[r, : len(fresh)] = fresh
        scores = np.where(items > 0, -np.arange(k, dtype=np.float32), np.float32(-np.inf))
        return Slates(items, scores.astype(np.float32))

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Any) -> Fresh:
        return self


class World:
    """A model of answers by hand: item i is worth i / 10 and less by place; 2 folds beside it."""

    folds = 2
    catalogue = SimpleNamespace(n_items=9)
    evidence = ModelEvidence(True, 600.0, 0.0, 0.1, np.array([False, *[True] * 6, *[False] * 3]))

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def expect(self, user: Any, items: Any, t: Any) -> Expected:
        reward = self.scale * items / 10 * 0.9 ** np.arange(items.shape[1]) + (
            t[:, None] / 1000 + user[:, None] / 100
        ) * (items > 0)
        return Expected(reward, np.stack((reward * 0.9, reward * 1.2)), reward * 0.8)

    def expect_logged(self, rounds: Rounds) -> Any:
        return rounds.item / 10


PAST = Sequences(
    np.arange(4), np.array([0, 2, 3, 3, 3]), np.array([3, 5, 1]), np.array([True, False, True]),
    np.array([-9, -8, -7]),
)  # fmt: skip


def requests() -> Requests:
    """Users 0, 1 and 3; user 2 never comes. Slates of 2 and of 1."""
    return Requests(
        np.array([0, 0, 0, 1, 3, 3]), np.array([1, 2, 3, 7, 0, 1]), np.array([2, 1, 2, 2, 1, 2]),
        np.array([0, 1, 2, 0, 0, 1]), np.array([5, 6, 9, 4, 1, 3]), {},
    )  # fmt: skip


def rollout(**of: Any) -> Rollout:
    known: dict[str, Any] = {"history": 3, "seen": None, "context": (), "fit_of_user": None}
    stream = SimpleNamespace(**(known | of))
    reward = World(1.0)
    return Rollout(stream, PAST, requests(), reward, reward, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("seen", [None, 2, 6])
@pytest.mark.parametrize("apart", [False, True])
def test_a_rollout_is_lived_through_request_by_request(seen: int | None, apart: bool) -> None:
    """Answers are drawn by user, request and item; what was shown is remembered. Where another
    reward than clicks is counted, answers are still clicks.
    """
    run = rollout(seen=seen)
    if apart:
        run = replace(run, click=World(0.5))  # type: ignore[arg-type]
    course = run.run([alone("p", Fresh(), 9)])
    total, shown, known = np.zeros(4), 0, 0
    lives: dict[int, list[tuple[int, bool]]] = {0: [(3, True), (5, False)], 1: [(1, True)], 3: []}
    asked = requests()
    for r in range(6):
        user, step, t = (int(one[r]) for one in (asked.user, asked.step, asked.t))
        life = lives[user]
        gone = [item for item, _ in life[-(3 if seen is None else seen) :]]
        start = sum(clicked for _, clicked in life[-3:])
        order = [(start + i) % 9 + 1 for i in range(9)]
        # A slate is asked for at the length of the longest of this turn, and cut.
        slate = [item for item in order if item not in gone][: int(asked.length[r])]
        for place, item in enumerate(slate):
            worth = item / 10 * 0.9**place + t / 1000 + user / 100
            total[user] += worth
            chance = worth if not apart else 0.5 * item / 10 * 0.9**place + t / 1000 + user / 100
            noise = uniform(5, Purpose.CLICK, np.array([user]), np.array([step]), np.array([item]))
            life.append((item, bool(noise[0] < chance)))
            shown, known = shown + 1, known + (item <= 6)
    np.testing.assert_allclose(course.total, total)
    np.testing.assert_allclose(course.without, [0.9 * total.sum(), 1.2 * total.sum()])
    assert course.plain == pytest.approx(0.8 * total.sum())
    assert course.known == known / shown


def test_users_are_served_by_the_fit_that_they_live_with() -> None:
    class Other(Fresh):
        def recall(self, histories: Histories, k: int, seed: int) -> Slates:
            items = np.tile(np.arange(9, 9 - k, -1), (len(histories), 1))
            return Slates(items, np.tile(-np.arange(k, dtype=np.float32), (len(items), 1)))

    run = rollout(fit_of_user=np.array([0, 1, 0, 1]), seen=1)
    desks = [alone("p", one, 9) for one in (Fresh(), Other())]
    none = np.zeros((2, 1), dtype=np.int64)
    histories = Histories(np.array([1, 0]), none[:, 0], none, none > 0, none)
    assert run._serve(desks, np.array([1, 0]), histories, 2).tolist() == [[9, 8], [1, 2]]
    assert run._serve(desks[:1], np.array([1, 0]), histories, 2).tolist() == [[1, 2], [1, 2]]


def test_requests_are_in_the_order_of_users_and_steps_with_their_turns() -> None:
    def part(user: Any, step: Any, t: Any, places: int, tab: Any) -> Rounds:
        n = len(user)
        zero, past = np.zeros(n, dtype=np.int64), np.zeros((n, 1), dtype=np.int64)
        histories = Histories(np.array(user), np.array(step), past, past > 0, past)
        histories = histories.with_context({"features.tab": np.array(tab, np.int8)})
        wide = np.ones((n, places))
        return Rounds(
            np.array(user), zero, np.array(t), zero, wide.astype(int), wide.astype(int), wide,
            wide, "unknown", zero, histories,
        )  # fmt: skip

    got = Requests.of(
        [part([2, 0], [5, 3], [50, 30], 2, [1, 2]), part([0, 2], [1, 4], [9, 40], 3, [3, 4])]
    )
    assert got.user.tolist() == [0, 0, 2, 2]
    assert got.step.tolist() == [1, 3, 4, 5]
    assert got.length.tolist() == [3, 2, 3, 2]
    assert got.turn.tolist() == [0, 1, 0, 1]
    assert got.t.tolist() == [9, 30, 40, 50]
    assert {path: one.tolist() for path, one in got.context.items()} == {
        "features.tab": [3, 2, 4, 1]
    }
    assert len(got) == 4


def test_the_error_of_a_rollout_counts_users_folds_and_the_step_of_the_model() -> None:
    """Folds by the jackknife, the step from the scores alone as two units; the correction by what
    the log says of slates that the policy would show.
    """
    chunk = log()[0]
    user = np.array([0, 1, 3])[chunk.user % 3]  # those who come
    none = np.zeros((15, 1), dtype=np.int64)
    chunk = replace(chunk, user=user, histories=Histories(user, none[:, 0], none, none > 0, none))
    run = rollout()
    run = replace(run, stream=_Iterable(run.stream, [chunk]))
    desks, settings = [alone("p", Fresh(), 9)], ReplaySettings((), resamples=50, level=0.9, seed=2)
    plain, both = run.estimates("p", desks, settings)
    course = run.run(desks)
    counts = np.array([3.0, 1.0, 0.0, 2.0])
    there = counts > 0
    value = course.total.sum() / 6
    own = (course.total - value * counts)[there] / 6
    folds = (course.without - course.without.mean()) * np.sqrt(1 / 2) / 6
    step = (course.plain - course.total.sum()) / np.sqrt(2) / 6
    moved = np.concatenate((own, folds, [step, -step]))
    assert plain.value == pytest.approx(value)
    assert plain.count == 6
    assert plain.error == pytest.approx(np.sqrt((moved**2).sum() * 7 / 6))
    np.testing.assert_allclose(plain.first_order[0].influence, moved)
    assert plain.verdict == judge(run.reward.evidence, course.known)
    assert [one.method for one in plain.intervals] == ["bootstrap", "delta"]
    e = Evidence(chunk, _shown(chunk))
    missed = (e.item_weight * (chunk.reward - chunk.item / 10)).sum(axis=1)
    sums = [np.bincount(user, weights=one, minlength=4)[there]
            for one in (missed, np.ones(15), e.mean_item_weight)]  # fmt: skip
    ratios = Ratios(
        np.stack((course.total[there], sums[0]), axis=1),
        np.stack((counts[there], sums[1]), axis=1),
    )
    assert both.value == pytest.approx(value + missed.sum() / 15)
    assert both.error == pytest.approx(ratios.error())
    weights = Weights(9)
    weights.add(e, e.mean_item_weight)
    mean = delta(Ratios(sums[2][:, None], sums[1][:, None]), 0.9)
    nothing = EstimateInterval("delta", math.nan, math.nan)
    findings = Findings(
        ReplayFacts("conditional", 2), weights, mean, nothing, delta(ratios, 0.9), 6.0
    )
    assert both.verdict == weighted(findings, self_normalised=False)
    (resampled,) = bootstrap([ratios], 50, 2)
    assert both.intervals == (percentile(resampled, 0.9), delta(ratios, 0.9))
    unknown = replace(run, reward=World(1.0))
    unknown.reward.evidence = replace(World.evidence, drawn=False)  # type: ignore[misc]
    _, why = unknown.estimates("p", desks, settings)
    assert (why.estimator, why.refused) == ("rollout_dr", "the log's propensities are unknown")


class _Iterable:
    """A stream of some chunks."""

    def __init__(self, stream: Any, chunks: list[Rounds]) -> None:
        self.__dict__ |= vars(stream)
        self.chunks = chunks

    def __iter__(self) -> Any:
        return iter(self.chunks)


def _shown(chunk: Rounds) -> Target:
    """What `Fresh` shows to those who have seen nothing: 1, 2."""
    slates = np.tile([[[1, 2]]], (len(chunk), 1, 1))
    agree = 1.0 * (slates[:, 0] == chunk.item)
    return Target(agree, slates, deterministic=True)
