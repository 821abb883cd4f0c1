"""What a weighted log says of itself, counted by hand, and estimators and their evidence on two
rounds small enough for paper.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.offpolicy.abstractions import LatentIPS, MarginalIPS, OffCEM
from simulator.offpolicy.candidates import CandidateDR, CandidateIPS, CandidateSNIPS
from simulator.offpolicy.deterministic import ClickDR, ClickIPS, _carried
from simulator.offpolicy.diagnostics import (
    EstimateVerdict,
    Findings,
    Weights,
    WeightsOfDay,
    finished,
    matched,
    modelled,
    weighted,
)
from simulator.offpolicy.estimators import (
    IPS,
    SNIPS,
    ClippedIPS,
    DirectMethod,
    DoublyRobust,
    Estimator,
    Gain,
    HitRate,
    Matching,
    Recalled,
    SelfNormalisedDR,
    ShrunkDR,
    SwitchDR,
    ranks,
)
from simulator.offpolicy.evidence import Evidence, ReplayFacts, within
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import (
    BY_SERVING,
    ESTIMATORS,
    SHRINKAGE,
    THRESHOLDS,
    ReplayError,
    ReplaySettings,
    hold_still,
)
from simulator.offpolicy.slates import (
    CascadeDR,
    IndependentIPS,
    PseudoInverse,
    RewardInteractionIPS,
)
from simulator.offpolicy.sums import UnitSums, _mixed
from simulator.offpolicy.target import Target
from simulator.offpolicy.uncertainty import EstimateInterval

ITEMS = 4


def read(kind: str) -> Any:
    """A word as it is read from a file: equal to the one in the code, and another object."""
    return "".join(kind)


def two_rounds(kind: Any = "conditional") -> Rounds:
    zero = np.zeros(2, dtype=np.int64)
    return Rounds(
        np.array([0, 1]), np.array([0, 1]), zero, np.array([10, 20]), np.tile([0, 1], (2, 1)),
        np.array([[1, 2], [3, 1]]), np.array([[1.0, 0.0], [1.0, 2.0]]),
        np.array([[0.5, 0.25], [0.2, 0.4]]), read(kind), zero,
    )  # fmt: skip


TARGET = Target(
    np.array([[0.25, 0.5], [0.4, 0.1]]),
    np.array([[[1, 3], [2, 1]], [[3, 0], [1, 3]]]),
    np.array([[0.75, 0.25], [0.5, 0.5]]),
    recalled=np.array([[2, 4, 1], [3, 0, 0]]),
)


class Model:
    """A reward model by hand: item i is worth i / 10 at the first place and half at the second."""

    attention = np.array([1.0, 0.5])

    def fold(self, user: np.ndarray) -> np.ndarray:
        return 0 * user

    def at(self, rounds: Rounds, slate: np.ndarray) -> np.ndarray:
        return slate * np.array([0.1, 0.05])

    def predict(self, fold: np.ndarray, rounds: Rounds) -> np.ndarray:
        return self.at(rounds, rounds.item)

    def expected(self, rounds: Rounds, target: Target) -> np.ndarray:
        return np.array([[0.15, 0.1], [0.2, 0.05]])

    def given_above(self, rounds: Rounds, target: Target) -> np.ndarray:
        return np.array([[0.3, 0.2], [0.1, 0.4]])


class Kinds:
    """What kinds of items or slates are worth, by hand."""

    def expected(self, rounds: Rounds, target: Target) -> np.ndarray:
        return np.array([0.5, 0.75])

    def known(self, rounds: Rounds, target: Target) -> np.ndarray:
        return np.array([1.0, 0.5])


CLUSTERS = np.array([0, 1, 1, 2, 2])


def evidence(kind: Any = "conditional") -> Evidence:
    kinds: Any = {"items": Kinds(), "slates": Kinds()}
    return Evidence(two_rounds(kind), TARGET, Model(), kinds, CLUSTERS)  # type: ignore[arg-type]


# Of both rounds: the weights of places, of the slate, the reward, its prediction.
STEP = np.array([[0.5, 2.0], [2.0, 0.25]])
RUNNING = np.array([[0.5, 1.0], [2.0, 0.5]])
SLATE = np.array([1.0, 0.5])
REWARD = np.array([1.0, 3.0])
VALUE = np.array([0.25, 0.25])
PREDICTED = np.array([[0.1, 0.1], [0.3, 0.05]])
RESIDUAL = REWARD - np.array([0.2, 0.35])
# The chance that the target's slate holds a logged item, and what stands above plus 1 / propensity.
INCLUSION = np.array([[1.0, 0.25], [1.0, 0.5]])
DRAWN = np.array([[(2 + 1) / 2, 4 / 2], [(5 + 1) / 2, 2.5 / 2]])
ITEM = INCLUSION * DRAWN
SHOWN = np.array([2.0, 0.5 * 1 + 0.5 * 2])
# Where the target puts the logged items, by attention: item 1 of round 0 stands first in three
# quarters of the slates and second in one, item 2 first in one quarter.
LOOK = np.array([[0.75 * 1 + 0.25 * 0.5, 0.25 * 1 / 0.5], [0.5 + 0.5 * 0.5, 0.5 * 1 / 0.5]])
# Of the logged item's cluster at its place: the target's share; over how many items are left.
SHARE = np.array([[1.0, 0.25], [0.5, 0.0]])
LEFT = np.array([[2.0, 1.0], [2.0, 2.0]])
CLUSTER = SHARE / (np.array([[0.5, 0.25], [0.2, 0.4]]) * LEFT)


def test_evidence_by_hand() -> None:
    e = evidence()
    assert len(e) == 2
    for name, want in (
        ("step", STEP),
        ("running", RUNNING),
        ("weight", SLATE),
        ("mean_weight", RUNNING.mean(axis=1)),
        ("inclusion", INCLUSION),
        ("drawn_weight", DRAWN),
        ("item_weight", ITEM),
        ("mean_item_weight", ITEM.sum(axis=1) / SHOWN),
        ("total", REWARD),
        ("predicted", PREDICTED),
        ("residual", RESIDUAL),
        ("value", VALUE),
        ("share", TARGET.share),
        ("click_weight", LOOK),
        ("cluster_weight", CLUSTER),
        ("mean_cluster_weight", CLUSTER.sum(axis=1) / SHOWN),
        ("overlap", (LOOK * [1, 0.5]).sum(axis=1) / [1.5, 0.5 * 1 + 0.5 * 1.5]),
        # Item 1 of round 0: worth .1 first in three quarters, .05 second in one quarter.
        ("expected_items", [[0.75 * 0.1 + 0.25 * 0.05, 0.25 * 0.2],
                            [0.5 * 0.3 + 0.5 * 0.15, 0.5 * 0.1]]),
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(e, name), want, err_msg=name)
    marginal = evidence("marginal")
    np.testing.assert_allclose(marginal.mean_weight, STEP.mean(axis=1))
    np.testing.assert_allclose(marginal.drawn_weight, 0.5 / np.array([[0.5, 0.25], [0.2, 0.4]]))
    np.testing.assert_allclose(
        marginal.cluster_weight, SHARE / (np.array([[0.5, 0.25], [0.2, 0.4]]) * 2)
    )
    drawn = Evidence(two_rounds(), replace(TARGET, share=None))
    np.testing.assert_array_equal(drawn.share, np.full((2, 2), 0.5))


def test_a_target_that_shows_nothing_has_no_mean_weight_and_no_overlap() -> None:
    nothing = replace(TARGET, slates=0 * TARGET.slates)
    e = Evidence(two_rounds(), nothing, Model(), clusters=CLUSTERS)  # type: ignore[arg-type]
    for name in ("mean_item_weight", "mean_cluster_weight", "overlap"):
        assert getattr(e, name).tolist() == [0.0, 0.0]
    assert not e.expected_items.any()


def test_a_cluster_of_single_items_is_shared_as_the_target_foretells() -> None:
    one = two_rounds("marginal")
    one = replace(one, **{
        name: getattr(one, name)[:, :1] for name in ("position", "item", "reward", "propensity")
    })  # fmt: skip
    given = np.array([[0, 0.1, 0.2, 0.3, 0.4], [0, 0.4, 0.3, 0.2, 0.1]])
    target = Target(np.ones((2, 1)), np.ones((2, 1, 1), int), None, given[:, None])
    e = Evidence(one, target, clusters=CLUSTERS)
    np.testing.assert_allclose(e.cluster_weight[:, 0], [0.3 / (0.5 * 2), 0.3 / (0.2 * 2)])


def test_ranks_and_membership() -> None:
    items, recalled = np.array([[1, 2, 9], [3, 1, 0]]), np.array([[2, 4, 1], [3, 5, 0]])
    assert ranks(items, recalled).tolist() == [[2, 0, 3], [0, 3, 2]]
    assert within(items, recalled).tolist() == [[True, True, False], [True, False, True]]


AGREE = TARGET.probability
IN = np.array([[1, 1], [1, 0]])
PLANNED = np.array([1 * (0.3 + 0.1) + 0.5 * 0.2, 1 * (0.1 + 0.05) + 2 * 0.4])
MISSED = two_rounds().reward - PREDICTED - [[0.1, 0], [0.05, 0]]
ALL = (RUNNING * MISSED).sum(axis=1) + PLANNED
"""Cascade-DR: running weights times reward less prediction and what follows, plus what was planned
below what stands above.
"""

FORMULAS: list[tuple[Estimator, list[tuple[Any, Any]]]] = [
    (Matching(), [((AGREE * two_rounds().reward).sum(axis=1), AGREE.sum(axis=1))]),
    (Recalled(), [((IN * two_rounds().reward).sum(axis=1), IN.sum(axis=1))]),
    (HitRate(3), [([1.0, 1.0], [1.0, 2.0])]),
    (HitRate(2), [([0.0, 1.0], [1.0, 2.0])]),
    (Gain(3), [([1 / np.log2(4), 1.0], [1.0, 2.0])]),
    (Gain(2), [([0.0, 1.0], [1.0, 2.0])]),
    (IPS(), [(SLATE * REWARD, None)]),
    (ClippedIPS(0.75), [([0.75, 1.5], None)]),
    (SNIPS(), [(SLATE * REWARD, SLATE)]),
    (DirectMethod(), [(VALUE, None)]),
    (DoublyRobust(), [(VALUE + SLATE * RESIDUAL, None)]),
    (SelfNormalisedDR(), [(VALUE, None), (SLATE * RESIDUAL, SLATE)]),
    (SwitchDR(0.75), [(VALUE + [0, 0.5] * RESIDUAL, None)]),
    (SwitchDR(1.0), [(VALUE + SLATE * RESIDUAL, None)]),
    (ShrunkDR(2.0), [(VALUE + 2 * SLATE / (SLATE**2 + 2) * RESIDUAL, None)]),
    (ShrunkDR(math.inf), [(VALUE + SLATE * RESIDUAL, None)]),
    (IndependentIPS(), [((STEP * two_rounds().reward).sum(axis=1), None)]),
    (RewardInteractionIPS(), [((RUNNING * two_rounds().reward).sum(axis=1), None)]),
    (CascadeDR(), [(ALL, None)]),
    (ClickIPS(), [((LOOK * two_rounds().reward).sum(axis=1), None)]),
    (ClickDR(), [(VALUE + (LOOK * (two_rounds().reward - PREDICTED)).sum(axis=1), None)]),
    (ClickDR(carried=True), [
        (VALUE, None),
        ((LOOK * (two_rounds().reward - PREDICTED)).sum(axis=1), evidence().overlap),
    ]),
    (CandidateIPS(), [((ITEM * two_rounds().reward).sum(axis=1), None)]),
    (CandidateSNIPS(), [((ITEM * two_rounds().reward).sum(axis=1), ITEM.sum(axis=1) / SHOWN)]),
    (CandidateDR(), [(VALUE + (DRAWN * (INCLUSION * two_rounds().reward
                                        - evidence().expected_items)).sum(axis=1), None)]),
    (MarginalIPS(), [([0.5, 0.75], None)]),
    (LatentIPS(), [([0.5, 0.75], None)]),
    (OffCEM(), [(VALUE + (CLUSTER * (two_rounds().reward - PREDICTED)).sum(axis=1), None)]),
]  # fmt: skip


@pytest.mark.parametrize(("estimator", "want"), FORMULAS, ids=lambda one: getattr(one, "label", ""))
def test_an_estimator_is_its_formula(estimator: Estimator, want: list[tuple[Any, Any]]) -> None:
    got = estimator.ratios(evidence())
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(mine[0], theirs[0])
        assert (mine[1] is None) == (theirs[1] is None)
        if theirs[1] is not None:
            np.testing.assert_allclose(mine[1], theirs[1])


def test_the_pseudo_inverse_of_places_that_were_drawn_apart() -> None:
    ((got, below),) = PseudoInverse().ratios(evidence("marginal"))
    np.testing.assert_allclose(got, (STEP.sum(axis=1) - 1) * REWARD)
    assert below is None


def test_what_an_estimator_trusts_and_what_moves_with_it() -> None:
    e, wide = evidence(), np.ones((2, 2))
    kinds: dict[str, tuple[list[Estimator], Any, Any]] = {
        "whole": ([IPS(), SNIPS(), ClippedIPS(2.0)], 0 * wide, SLATE),
        "none": ([Matching(), Recalled(), HitRate(), Gain(), DirectMethod(), MarginalIPS()],
                 0 * wide, None),
        "robust": ([DoublyRobust(), SelfNormalisedDR(), SwitchDR(9.0), ShrunkDR(math.inf)],
                   SLATE[:, None] * wide, SLATE),
        "switched": ([SwitchDR(0.75)], np.array([[0, 0], [0.5, 0.5]]), SLATE),
        "places": ([IndependentIPS(), RewardInteractionIPS(), PseudoInverse()], 0 * wide,
                   RUNNING.mean(axis=1)),
        "cascade": ([CascadeDR()], RUNNING, RUNNING.mean(axis=1)),
        "clicks": ([ClickDR()], LOOK, None),
        "items": ([CandidateIPS(), CandidateSNIPS(), CandidateDR()], 0 * wide,
                  ITEM.sum(axis=1) / SHOWN),
        "clusters": ([OffCEM()], CLUSTER, CLUSTER.sum(axis=1) / SHOWN),
    }  # fmt: skip
    for estimators, trust, variate in kinds.values():
        for one in estimators:
            np.testing.assert_allclose(one.trust(e), trust, err_msg=one.label)
            got = one.control_variate(e)
            assert (got is None) == (variate is None), one.label
            if got is not None:
                np.testing.assert_allclose(got, variate, err_msg=one.label)
    assert PseudoInverse().control_variate(evidence("unknown")) is None
    assert MarginalIPS().checks(e)["known"].tolist() == [1.0, 0.5]
    assert MarginalIPS().checks(e)["rounds"].tolist() == [1.0, 1.0]
    checks = ClickDR().checks(e)
    assert list(checks) == ["met", "overlap", "rounds", "residual", "value"]
    assert checks["met"].tolist() == [2.0, 2.0]
    np.testing.assert_allclose(
        checks["residual"], (LOOK * (two_rounds().reward - PREDICTED)).sum(axis=1)
    )
    assert IPS().checks(e) == {}


UNKNOWN = "the log's propensities are unknown"
MARGINAL = (
    "marginal propensities do not give the probability of a whole slate; it needs propensities"
    " conditional on the items above"
)
NO_CLUSTERS = "items have no clusters (--clusters)"


def same(name: str) -> str:
    return f"every slate has one item: the same as {name}"


def test_why_an_estimator_does_not_run() -> None:
    """For slates of two places and of one, by what is known of propensities."""
    no_set = "the target gives no set of candidates"
    has = "the log has propensities, by which less is assumed"
    biased = (
        "the propensities are conditional on the items above; position-wise weights over them are"
        " biased (use rips)"
    )
    law = (
        "it needs the log's law of whole slates: independent places, uniform slates, or a given"
        " `logging` distribution"
    )
    nothing = f"{UNKNOWN}, so nothing can contradict the model"
    every: list[tuple[Estimator, tuple[Any, ...]]] = [
        # conditional, marginal, unknown of two places; then of one.
        (Matching(), (None,) * 6),
        (Recalled(), (no_set,) * 6),
        (HitRate(), (no_set,) * 6),
        (IPS(), (None, MARGINAL, UNKNOWN, None, None, UNKNOWN)),
        (DirectMethod(), (None, None, nothing, None, None, nothing)),
        (IndependentIPS(), (biased, None, UNKNOWN, same("ips"), same("ips"), UNKNOWN)),
        (RewardInteractionIPS(), (None, MARGINAL, UNKNOWN, same("ips"), same("ips"), UNKNOWN)),
        (CascadeDR(), (None, MARGINAL, UNKNOWN, same("dr"), same("dr"), UNKNOWN)),
        (PseudoInverse(), (law, None, UNKNOWN, same("ips"), same("ips"), UNKNOWN)),
        (PseudoInverse(lambda rounds: (SLATES, SLATES)), (None,) * 6),
        (ClickIPS(), (has, has, None, has, has, None)),
        (CandidateIPS(), (None, None, UNKNOWN, same("ips"), same("ips"), UNKNOWN)),
        (CandidateDR(), (None, None, UNKNOWN, same("dr"), same("dr"), UNKNOWN)),
        (MarginalIPS(), (NO_CLUSTERS,) * 6),
        (LatentIPS(), (NO_CLUSTERS,) * 6),
        (OffCEM(), (NO_CLUSTERS, NO_CLUSTERS, UNKNOWN, NO_CLUSTERS, NO_CLUSTERS, UNKNOWN)),
    ]
    kinds = [read(kind) for kind in ("conditional", "marginal", "unknown")]
    facts = [ReplayFacts(kind, length) for length in (2, 1) for kind in kinds]
    for estimator, want in every:
        assert tuple(map(estimator.refuses, facts)) == want, estimator.label
    rich = ReplayFacts("conditional", 2, True, True, True, True)
    for estimator, _ in every:
        assert estimator.refuses(rich) in (None, biased, has), estimator.label
    assert LatentIPS().refuses(replace(rich, length=1)) == same("mips")
    blind = CascadeDR().refuses(replace(rich, foretells=False))
    assert blind is not None
    assert blind.endswith("has no `slate_expectations` (policies.base.Expectant)")


SLATES = np.zeros((1, 2), dtype=np.int64)


def test_estimators_are_listed_with_their_thresholds() -> None:
    assert (1, 2, 5, 10, 30, 100, 300, 1000, math.inf) == THRESHOLDS
    assert (1, 10, 100, 1e3, 1e4, 1e6, math.inf) == SHRINKAGE
    assert [one.label for one in ESTIMATORS["clipped_ips"]][::4] == [
        "clipped_ips(1)", "clipped_ips(30)", "clipped_ips",
    ]  # fmt: skip
    assert [one.label for one in ESTIMATORS["cdr"]] == ["cdr", "cdr, carried"]
    assert [one.label for one in ESTIMATORS["shrunk_dr"]][-2:] == ["shrunk_dr(1e+06)", "shrunk_dr"]
    assert (HitRate().label, Gain(5).label) == ("hr@10", "ndcg@5")
    units = {name: members[0].unit for name, members in ESTIMATORS.items()}
    assert {name for name, unit in units.items() if unit != "request"} == {"matching", "recalled"}
    modelled = {name for name, members in ESTIMATORS.items() if members[0].model}
    assert modelled == {"dm", "dr", "sndr", "switch_dr", "shrunk_dr", "cascade_dr", "cdr",
                        "candidate_dr", "offcem"}  # fmt: skip
    normalised = {one.label for members in ESTIMATORS.values() for one in members if one.normalised}
    assert normalised == {"snips", "sndr", "candidate_snips", "cdr, carried"}
    still = {name for name, members in ESTIMATORS.items() if not members[0].moves_with_model}
    assert still == {"candidate_dr"}
    assert {name for name, members in ESTIMATORS.items() if members[0].places} == {"cips", "cdr"}


def test_settings_are_those_of_the_docs_and_find_what_is_needed() -> None:
    plain = ReplaySettings()
    assert plain == ReplaySettings(
        tuple(ESTIMATORS), {}, 1000, 0.95, 0, 3, 1, 8192, None,
    )  # fmt: skip
    assert plain.modelled
    assert ReplaySettings(("cips",)).modelled
    assert not ReplaySettings(("ips", "matching")).modelled
    assert plain.kind_tables() == {}
    some = ReplaySettings(("ips", "lips"), clusters=CLUSTERS, contexts=2, folds=4, seed=5)
    (table,) = some.kind_tables().values()
    assert (table.level, table.contexts, table.folds, table.seed) == ("slates", 2, 4, 5)
    assert set(ReplaySettings(clusters=CLUSTERS).kind_tables()) == {"items", "slates"}
    more = some.beside("mine", HitRate(3))
    assert more.estimators == ("ips", "lips", "mine")
    assert more.family("mine") == (HitRate(3),)
    assert more.family("ips") is ESTIMATORS["ips"]
    with pytest.raises(ReplayError) as error:
        ReplaySettings(("ips", "xyz"))
    known = ", ".join((*ESTIMATORS, *BY_SERVING))
    assert str(error.value) == f"no estimator 'xyz'; there are {known}"
    hold_still("log", {})
    hold_still("log", {"items": None})
    with pytest.raises(ReplayError, match="log: its catalogue lives"):
        hold_still("log", {"items": {"daily": 3}})


def sound(**more: Any) -> Findings:
    """Findings that nothing is to be said against."""
    summary = Weights(1, rounds=1000, matched_rounds=900, events=30, total=1000.0, squares=1000.0)
    summary.shown[1], summary.wanted[1] = True, 1.0
    tight, zero = EstimateInterval("delta", 0.9, 1.1), EstimateInterval("delta", -0.1, 0.1)
    known = {"mean_weight": tight, "residual": zero, "own": tight, "count": 900.0} | more
    return Findings(ReplayFacts("conditional", 2), summary, **known)


def test_who_is_judged_by_what() -> None:
    """Matching is fair where the log was uniform, within a set only of single items; the rest by
    weights or by the model.
    """
    uniform = [
        replace(sound(), facts=ReplayFacts("conditional", length, True)) for length in (1, 2)
    ]
    assert [Matching().judge(one).word for one in uniform] == ["trustworthy", "trustworthy"]
    assert [Recalled().judge(one).word for one in uniform] == ["trustworthy", "weak"]
    assert HitRate().judge(uniform[0]).word == "weak"
    assert Matching().judge(sound()).word == "weak"
    assert DirectMethod().judge(sound()).reasons == (
        "valid only as far as the reward model is right; the log does not contradict it",
    )
    far = sound(mean_weight=EstimateInterval("delta", 1.2, 1.4))
    far.weights.total = 1300.0
    for estimator in (IPS(), CandidateIPS()):
        assert estimator.judge(far).word == "unusable"
    for estimator in (SNIPS(), CandidateSNIPS()):
        assert estimator.judge(far).word == "weak"
    assert OffCEM().judge(far).word == "unusable"
    claim = "valid only if the model errs alike on all items of a cluster; the log cannot show it"
    assert OffCEM().judge(sound()) == EstimateVerdict("weak", (claim,))


@pytest.mark.parametrize(
    ("known", "reasons"),
    [(950.0, ()), (949.0, ("the log has only 95% of the kinds that the target shows",))],
)
def test_kinds_are_known_to_95_percent(known: float, reasons: tuple[str, ...]) -> None:
    checks = {"known": np.array([known - 1, 1.0]), "rounds": np.array([500.0, 500.0])}
    for estimator, what in (
        (MarginalIPS(), "items of a cluster"),
        (LatentIPS(), "slates of a kind"),
    ):
        told = estimator.judge(sound(checks=checks))
        claim = f"valid only if {what} are worth the same; the log cannot show it"
        assert told == EstimateVerdict("unusable" if reasons else "weak", (*reasons, claim))


RANDOM = (
    "rests on clicks that are random given the request and independent of their neighbours; the log"
    " cannot test it"
)


def clicked(overlap: float, **more: Any) -> Findings:
    """Of ten users with ten rounds each, whose model is off by half a click on the overlap."""
    ten = np.ones(10)
    checks = {"met": 5.0 * ten, "overlap": 10 * overlap * ten, "rounds": 10 * ten,
              "residual": 5 * overlap * ten, "value": 20 * ten}  # fmt: skip
    return sound(checks=checks | more)


def test_clicks_are_judged_by_how_much_stood_in_the_same_slate() -> None:
    lower = (
        "only 98% of what the target shows stood in the logged slate of the same request, and the"
        " rest counts as nothing: a lower bound"
    )
    few = "only 49 impressions of the log are shown by the target, too"
    assert ClickIPS().judge(clicked(0.98)) == EstimateVerdict("weak", (RANDOM,))
    assert ClickIPS().judge(clicked(0.9799)) == EstimateVerdict("unusable", (lower, RANDOM))
    met = clicked(1.0, met=np.full(10, 4.9))
    assert ClickIPS().judge(met) == EstimateVerdict("unusable", (few, RANDOM))
    assert ClickIPS().judge(clicked(math.nan)).word == "unusable"


def test_a_model_beside_clicks_is_judged_by_what_its_error_would_move() -> None:
    """The error of half a click, on what the model stands in for, over the value of two."""
    rest = "only 50% of what the target shows stood in the logged slate of the same request"
    assert ClickDR().judge(clicked(1.0)) == EstimateVerdict("weak", (RANDOM,))
    below = ClickDR().judge(clicked(0.499))
    assert below.word == "unusable"
    assert below.reasons[0].startswith(rest)
    assert _carried(clicked(0.6)) == pytest.approx(0.4 * 0.5 / 2)
    text = (
        "the model stands in for {} of what the target shows; its error on the rest, carried over,"
        " would move the estimate by {}"
    )
    assert ClickDR().judge(clicked(0.61)).reasons == (RANDOM, text.format("39%", "10%"))
    assert ClickDR().judge(clicked(0.61)).word == "weak"
    assert ClickDR().judge(clicked(0.5)).reasons == (text.format("50%", "12%"), RANDOM)
    assert ClickDR().judge(clicked(0.5)).word == "unusable"
    assert _carried(clicked(0.6, value=np.zeros(10))) == math.inf
    # The farther end counts: residuals from -1 to 0 by a user.
    uneven = clicked(0.6, residual=np.array([0.0, -6.0] * 5))
    ratio, error = -0.5, np.sqrt(10 * (3 / 60) ** 2 * 10 / 9)
    low = ratio - 2.2621571628 * error
    assert _carried(uneven) == pytest.approx(0.4 * -low / 2)
    hidden = clicked(1.0)
    hidden.weights.shown[1] = False
    assert ClickDR().judge(hidden) == EstimateVerdict(
        "unusable", ("the log shows only 0% of what the target shows", RANDOM)
    )


def test_an_interval_may_be_a_third_of_the_estimate_to_either_side() -> None:
    """Around 3: an end 1 away is allowed, and a drift that chance gives once in a thousand."""

    def judged(low: float, high: float, **days: Any) -> EstimateVerdict:
        findings = sound(own=EstimateInterval("delta", low, high))
        findings.weights.days |= days.get("days", {})
        return finished(findings, [], [])

    assert judged(2.0, 4.0).word == "trustworthy"
    assert judged(1.99, 4.01).reasons == ("the interval is 34% of the estimate to either side",)
    assert judged(-4.5, -1.5).reasons == ("the interval is 50% of the estimate to either side",)
    assert judged(3.0, 3.0).reasons == ("every unit says the same: nothing is known of its error",)
    # Two days of variance 1/4 over 99: chi-square is (difference)^2 * 99 / (2 * .25).
    for difference, word in ((0.2338, "trustworthy"), (0.2340, "weak")):
        sums = [np.array([100.0, 100 * m, 100 * (m**2 + 0.25), 1, 1]) for m in (0, difference)]
        assert judged(2.0, 4.0, days=dict(enumerate(sums))).word == word
    mixed = finished(sound(), ["bad"], ["poor"])
    assert mixed == EstimateVerdict("unusable", ("bad", "poor"))
    assert (str(mixed), str(EstimateVerdict("weak", ()))) == ("unusable: bad; poor", "weak")


def test_days_of_one_round_or_without_variance_do_not_drift() -> None:
    weights = Weights(1)
    assert all(map(math.isnan, weights.drift()))
    weights.days = {0: np.array([1.0, 1, 1, 1, 1]), 1: np.array([9.0, 3, 3, 0, 0])}
    assert all(map(math.isnan, weights.drift()))  # a day of one round has no variance
    weights.days[2] = np.array([4.0, 4, 4, 0, 0])  # nor one whose rewards are all alike
    assert all(map(math.isnan, weights.drift()))
    weights.days[0] = np.array([2.0, 1, 1, 1, 1])
    # Means 1/3 and 1/2 with variances 2/9 / 8 and 1/4 / 1.
    assert weights.drift()[0] == pytest.approx((1 / 6) ** 2 / (2 / 72 + 1 / 4))
    (first, second, _) = weights.by_day()
    assert first == WeightsOfDay(0, 2, 0.5, 0.5, 1.0)
    assert (second.day, second.rounds, second.mean_weight) == (1, 9, 0.0)
    assert math.isnan(second.snips)


def test_weights_are_summed_chunk_by_chunk() -> None:
    """Slates of two places, then of one; the ten largest weights, the first of equal ones first."""
    found = Weights(ITEMS)
    found.add(evidence(), SLATE)
    one = replace(two_rounds(), row=np.array([30, 40]), **{
        name: getattr(two_rounds(), name)[:, :1]
        for name in ("position", "item", "reward", "propensity")
    })  # fmt: skip
    one = replace(one, reward=np.array([[1.0], [0.0]]))
    narrow = Target(AGREE[:, :1], TARGET.slates[:, :, :1], TARGET.share)
    found.add(Evidence(one, narrow), np.array([0.5, 2.0]))
    assert (found.rounds, found.impressions, found.matched_rounds) == (4, 6, 4)
    # Round 0: item 1 first in 3/4; round 1: item 3 first in 1/2; the second places never match.
    assert found.matched_impressions == pytest.approx(2 * (0.75 + 0.5))
    assert found.events == 3  # the last round has no reward
    assert (found.total, found.squares) == (4.0, 1 + 0.25 + 0.25 + 4)
    np.testing.assert_allclose(found.places, [[5.0, 8.5], [1.5, 1.25]])
    assert found.effective_by_place == pytest.approx([25 / 8.5, 2.25 / 1.25])
    assert found.largest == [(2.0, 40), (1.0, 10), (0.5, 20), (0.5, 30)]
    assert found.shown.tolist() == [False, True, True, True, False]
    # Item 1: 3/4 + 1/4, 1/2, and of single places 3/4 + 1/2; item 3: 3/4, 1/2 + 1/2, 1/2.
    assert found.wanted.tolist() == [0.5, 1.0 + 0.5 + 1.25, 0.5, 0.75 + 1.0 + 0.5, 0.0]
    assert found.coverage == 1.0
    unknown = Weights(ITEMS)
    unknown.add(evidence("unknown"), np.full(2, math.nan))
    assert (unknown.total, unknown.matched_rounds, unknown.events) == (0.0, 0, 0)
    assert unknown.places.shape == (0, 2)
    assert [day.logged for day in unknown.by_day()] == [1.0, 3.0]
    many = Weights(ITEMS)
    for _ in range(6):
        many.add(evidence(), SLATE)
    assert many.largest == [(1.0, 10)] * 6 + [(0.5, 20)] * 4


def test_many_users_are_folded_into_groups_by_a_hash() -> None:
    """The reference is splitmix64's finaliser in Python's own whole numbers."""

    def mixed(value: int) -> int:
        full = 2**64 - 1
        z = (value + 0x9E3779B97F4A7C15) & full
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & full
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & full
        return z ^ (z >> 31)

    users = np.arange(300)
    assert _mixed(users).tolist() == [mixed(user) for user in range(300)]
    folded, exact = UnitSums(300, 7), UnitSums(7, 7)
    assert (folded.n_units, exact.n_units, UnitSums(5).n_units) == (7, 7, 5)
    assert folded.unit(users).tolist() == [(mixed(user) >> 32) * 7 >> 32 for user in range(300)]
    assert exact.unit(users[:7]) is not None
    assert exact.unit(users[:7]).tolist() == list(range(7))
    exact.add(np.array([1, 1, 4]), {"a": np.array([1.0, 2.0, 4.0])})
    exact.add(np.array([4]), {"a": np.array([8.0]), "b": np.array([1.0])})
    assert exact["a"].tolist() == [0, 3, 0, 0, 12, 0, 0]
    assert "b" in exact
    assert "c" not in exact
    assert UnitSums(9000).n_units == 8192


def test_a_weighted_estimate_is_judged_on_both_sides_of_each_limit() -> None:
    """Effective sizes of 50 and 500 rounds, a mean weight of 1.1, a twentieth of all weight in one
    round, 30 events, 95% of what is shown.
    """

    def judged(normalised: bool = False, **of: Any) -> EstimateVerdict:
        findings = sound(**{"mean_weight": of.pop("mean_weight", sound().mean_weight)})
        for name, value in of.items():
            setattr(findings.weights, name, value)
        return weighted(findings, self_normalised=normalised)

    wide = {"mean_weight": EstimateInterval("delta", 1.01, 1.2), "squares": 1210.0}
    far = "mean weight {}, 95% interval [1.01, 1.2], should be 1"
    wanted = np.array([0.0, 95.0, 5.0])
    cover = {"n_items": 2, "shown": np.array([False, True, False]), "wanted": wanted}
    for of, word, reasons in (
        ({}, "trustworthy", ()),
        ({"squares": 2e4}, "weak", ("effective sample size 50 of 1,000 rounds",)),
        ({"squares": 2.01e4}, "unusable", ("effective sample size 49.8 of 1,000 rounds",)),
        ({"squares": 2000.0}, "trustworthy", ()),
        ({"squares": 2004.0}, "weak", ("effective sample size 499 of 1,000 rounds",)),
        (wide | {"total": 1099.9}, "weak", (far.format("1.1"),)),
        (wide | {"total": 1110.0}, "unusable", (far.format("1.11"),)),
        (wide | {"total": 1110.0, "normalised": True}, "weak", (far.format("1.11"),)),
        ({"largest": [(50.0, 7), (9.0, 8)]}, "trustworthy", ()),
        ({"largest": [(50.1, 7)]}, "weak", ("row 7 alone carries 5% of the weight",)),
        ({"events": 30}, "trustworthy", ()),
        ({"events": 29}, "weak", ("only 29 rounds with a reward carry it",)),
        (cover, "trustworthy", ()),
        (cover | {"wanted": np.array([0.0, 94.0, 6.0])}, "weak",
         ("the log shows only 94% of what the target shows",)),
        ({"matched_rounds": 0}, "unusable", ("0 logged rounds agree with the target",)),
        ({"total": 0.0, "largest": [(0.0, 7)], "squares": 0.0}, "unusable",
         ("effective sample size 0.0 of 1,000 rounds",)),
    ):  # fmt: skip
        assert judged(**of) == EstimateVerdict(word, reasons)  # type: ignore[arg-type]


def test_a_model_is_judged_by_its_residual_and_by_what_could_contradict_it() -> None:
    only = "valid only as far as the reward model is right; "
    nothing = EstimateInterval("delta", math.nan, math.nan)
    off = EstimateInterval("delta", 0.01, 0.234567)
    for squares, residual, word, reason in (
        (1000.0, nothing, "weak", "no weighted residual to hold the reward model against"),
        (1000.0, off, "unusable", "the reward model is contradicted: its mean weighted residual is"
                                  " in [0.01, 0.235]"),
        (2e4, sound().residual, "weak", f"{only}the log does not contradict it"),
        (2.1e4, sound().residual, "weak", f"{only}effective sample size 47.6: the log cannot"
                                          " contradict it"),
    ):  # fmt: skip
        findings = sound(residual=residual)
        findings.weights.squares = squares
        assert modelled(findings) == EstimateVerdict(word, (reason,))  # type: ignore[arg-type]
    for count, fair, word, reasons in (
        (0.0, True, "unusable", ("0 logged impressions agree with the target",)),
        (49.4, True, "unusable", ("only 49 impressions matched",)),
        (50.0, True, "trustworthy", ()),
        (50.0, False, "weak", ("the log did not choose uniformly at random: the figure inherits the"
                               " logging policy's bias",)),
    ):  # fmt: skip
        assert matched(sound(count=count), fair=fair) == EstimateVerdict(word, reasons)  # type: ignore[arg-type]


def test_uniform_slates_have_a_closed_pseudo_inverse_and_given_ones_their_own() -> None:
    """All slates of two of four items; and of two of two, which have no contrast."""
    for m in (4, 2):
        slates = np.array([(i, j) for i in range(1, m + 1) for j in range(1, m + 1) if i != j])
        n = len(slates)
        zero = np.zeros(n, dtype=np.int64)
        log = Rounds(
            zero, zero, zero, zero, np.tile([0, 1], (n, 1)), slates, np.ones((n, 2)),
            np.tile([1 / m, 1 / (m - 1)], (n, 1)), read("conditional"), zero,
        )  # fmt: skip
        wanted = np.tile([[[1, 2], [2, 1]]], (n, 1, 1))
        share = np.tile([0.75, 0.25], (n, 1))
        e = Evidence(log, Target(np.ones((n, 2)), wanted, share))
        # Indicators of (place, item): the log's second moment, and the target's mean of them.
        cells = np.eye(2 * m)[slates - 1 + np.array([0, m])].sum(axis=1)
        moment = cells.T @ cells / n
        q = 0.75 * np.eye(2 * m)[[0, m + 1]].sum(axis=0) + 0.25 * np.eye(2 * m)[[1, m]].sum(axis=0)
        want = 2 * cells @ np.linalg.pinv(moment) @ q
        ((closed, _),) = PseudoInverse().ratios(e)
        np.testing.assert_allclose(closed, want, atol=1e-12)
        law = np.full((n, n), 1 / n)
        ((slow, _),) = PseudoInverse(lambda rounds, s=slates, p=law: (s, p)).ratios(e)  # type: ignore[misc]
        np.testing.assert_allclose(slow, want, atol=1e-12)
