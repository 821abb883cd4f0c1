"""Off-policy estimators against exact enumeration: every slate of 4 items, Plackett-Luce logging,
bias zero to rounding.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from simulator.offpolicy.estimators import IPS, DirectMethod, DoublyRobust, Matching
from simulator.offpolicy.evidence import Evidence
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.settings import ESTIMATORS
from simulator.offpolicy.slates import (
    CascadeDR,
    IndependentIPS,
    PseudoInverse,
    RewardInteractionIPS,
)
from simulator.offpolicy.target import Target

ITEMS, LENGTH = 4, 3
SLATES = np.array(list(permutations(range(1, ITEMS + 1), LENGTH)))
LOGGING = np.array([1.2, 0.3, -0.4, 0.8])
WANTED = np.array([-0.5, 0.9, 0.7, -0.2])


def conditional(utility: np.ndarray, slates: np.ndarray) -> np.ndarray:
    """Plackett-Luce probability of each item given those above, `[S, K]` (Plackett 1975)."""
    strength = np.concatenate(([0.0], np.exp(utility)))
    chosen = strength[slates]
    left = strength.sum() - np.concatenate(
        (np.zeros((len(slates), 1)), chosen.cumsum(axis=1)[:, :-1]), axis=1
    )
    return chosen / left


def given_above(utility: np.ndarray, slates: np.ndarray) -> np.ndarray:
    """Plackett-Luce law of each place given the items above it, `[S, K, n + 1]`."""
    strength = np.concatenate(([0.0], np.exp(utility)))
    out = np.zeros((*slates.shape, len(strength)))
    for s, slate in enumerate(slates):
        for k in range(slates.shape[1]):
            free = strength.copy()
            free[slate[:k]] = 0.0
            out[s, k] = free / free.sum()
    return out


def marginal(law: np.ndarray) -> np.ndarray:
    """Probability of each (place, item) under a law over SLATES, `[K, n + 1]`."""
    out = np.zeros((LENGTH, ITEMS + 1))
    for slate, p in zip(SLATES, law, strict=True):
        out[np.arange(LENGTH), slate] += p
    return out


def rewards(kind: str) -> np.ndarray:
    """Mean reward of every place of every slate, `[S, K]`: independent, cascade (of the items
    above) or full interaction.
    """
    quality = np.array([0.0, 0.7, 0.2, 0.5, 0.35])
    place = np.array([1.0, 0.8, 0.55])
    own = quality[SLATES] * place
    if kind == "independent":
        return own
    above = np.concatenate((np.zeros((len(SLATES), 1)), own.cumsum(axis=1)[:, :-1]), axis=1)
    if kind == "cascade":
        return own * (1 - 0.4 * above)
    return own * (1 - 0.4 * above) + 0.3 * (SLATES[:, -1:] == 2)


def rounds(reward: np.ndarray, propensity: np.ndarray, kind: str) -> Rounds:
    n = len(SLATES)
    zero = np.zeros(n, dtype=np.int64)
    position = np.tile(np.arange(LENGTH), (n, 1))
    return Rounds(
        np.arange(n), zero, zero, np.arange(n), position, SLATES, reward, propensity, kind, zero
    )


LOG_LAW = conditional(LOGGING, SLATES).prod(axis=1)
TARGET_LAW = conditional(WANTED, SLATES).prod(axis=1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_says_its_paper_its_assumption_and_when_it_is_valid(name: str) -> None:
    for member in ESTIMATORS[name]:
        said = " ".join((type(member).__doc__ or "").split())
        order = [said.find(word) for word in ("Paper:", "Assumption:", "Valid:")]
        assert -1 not in order, name
        assert order == sorted(order), name
        years = re.findall(r"\b(?:19|20)\d\d\b", member.paper)
        assert years, member.paper
        assert all(year in said for year in years), (name, member.paper)


def wrong_model() -> RewardTable:
    """A reward model that is plainly wrong (fitted on rewards that have nothing to do with the
    world).
    """
    model = RewardTable(ITEMS, folds=2)
    noise = np.random.Generator(np.random.Philox(key=5)).uniform(0, 1, SLATES.shape)
    for shift in range(8):
        chunk = rounds(noise, conditional(LOGGING, SLATES), "conditional")
        model.add(
            Rounds(
                chunk.user + shift * 100, *(getattr(chunk, f) for f in list(Rounds.__slots__)[1:])
            )
        )
    model.settle()
    return model


def expectation(estimator: object, evidence: Evidence, law: np.ndarray) -> float:
    """Exact expectation under the log of an estimator that divides by the number of rounds."""
    ((above, below),) = estimator.ratios(evidence)  # type: ignore[attr-defined]
    assert below is None
    return float((law * above).sum())


def stochastic_target(logged: np.ndarray, *, marginals: bool = False) -> Target:
    """The Plackett-Luce target with its whole law over slates."""
    probability = conditional(WANTED, logged)
    if marginals:
        probability = marginal(TARGET_LAW)[np.arange(LENGTH), logged]
    everything = np.broadcast_to(SLATES, (len(logged), *SLATES.shape))
    share = np.broadcast_to(TARGET_LAW, (len(logged), len(SLATES)))
    return Target(probability, everything, share, given_above(WANTED, logged))


def deterministic_target(logged: np.ndarray) -> Target:
    slate = np.array([2, 3, 1])
    return Target(
        (logged == slate).astype(float),
        np.broadcast_to(slate, (len(logged), 1, LENGTH)),
        deterministic=True,
    )


def truth(kind: str, target: Target) -> float:
    law = (
        TARGET_LAW
        if not target.deterministic
        else (target.slates[0, 0] == SLATES).all(axis=1).astype(float)
    )
    return float((law * rewards(kind).sum(axis=1)).sum())


@pytest.mark.parametrize("kind", ["independent", "cascade", "interaction"])
@pytest.mark.parametrize("make", [stochastic_target, deterministic_target])
def test_standard_ips_and_doubly_robust_are_unbiased_for_any_reward(
    kind: str, make: object
) -> None:
    target = make(SLATES)  # type: ignore[operator]
    e = Evidence(
        rounds(rewards(kind), conditional(LOGGING, SLATES), "conditional"), target, wrong_model()
    )
    for estimator in (IPS(), DoublyRobust()):
        # the model's folds differ from round to round; its errors cancel in expectation within each
        # fold only, so one fold is used
        assert e.model is not None
        e.model.table[:] = e.model.table[:1]
        assert expectation(estimator, e, LOG_LAW) == pytest.approx(truth(kind, target), abs=1e-12)


@pytest.mark.parametrize("kind", ["independent", "cascade"])
@pytest.mark.parametrize("make", [stochastic_target, deterministic_target])
def test_rips_and_cascade_dr_are_unbiased_in_a_cascade(kind: str, make: object) -> None:
    target = make(SLATES)  # type: ignore[operator]
    model = wrong_model()
    model.table[:] = model.table[:1]
    e = Evidence(rounds(rewards(kind), conditional(LOGGING, SLATES), "conditional"), target, model)
    for estimator in (RewardInteractionIPS(), CascadeDR()):
        assert expectation(estimator, e, LOG_LAW) == pytest.approx(truth(kind, target), abs=1e-12)


def drawn_target(logged: np.ndarray) -> Target:
    """The Plackett-Luce target as a policy gives it: a slate drawn whatever was logged, and what it
    expects after the logged items.
    """
    law = given_above(WANTED, logged)
    drawn = np.broadcast_to(SLATES[17], (len(logged), 1, LENGTH))
    return Target(
        conditional(WANTED, logged),
        drawn,
        above=lambda values, rows: np.einsum("rka,rka->rk", law, values[rows]),
    )


def test_cascade_dr_of_a_drawn_target_needs_what_it_expects_below_the_logged_items() -> None:
    """Unbiased for any wrong model and any drawn slates; with the drawn item itself in the
    expectation's stead it is not.
    """
    target, model = drawn_target(SLATES), wrong_model()
    model.table[:] = model.table[:1]
    log = rounds(rewards("cascade"), conditional(LOGGING, SLATES), "conditional")
    assert expectation(CascadeDR(), Evidence(log, target, model), LOG_LAW) == pytest.approx(
        truth("cascade", target), abs=1e-12
    )
    tempting = replace(
        target, above=None, deterministic=True
    )  # "its slate says what it would put there"
    assert (
        abs(
            expectation(CascadeDR(), Evidence(log, tempting, model), LOG_LAW)
            - truth("cascade", target)
        )
        > 0.01
    )


def test_rips_is_biased_where_what_stands_below_matters() -> None:
    target = stochastic_target(SLATES)
    e = Evidence(
        rounds(rewards("interaction"), conditional(LOGGING, SLATES), "conditional"), target
    )
    assert (
        abs(expectation(RewardInteractionIPS(), e, LOG_LAW) - truth("interaction", target)) > 0.01
    )


def test_iips_is_unbiased_on_marginal_propensities() -> None:
    target = stochastic_target(SLATES, marginals=True)
    propensity = marginal(LOG_LAW)[np.arange(LENGTH), SLATES]
    e = Evidence(rounds(rewards("independent"), propensity, "marginal"), target)
    assert expectation(IndependentIPS(), e, LOG_LAW) == pytest.approx(
        truth("independent", target), abs=1e-12
    )


def test_the_tempting_formula_is_biased() -> None:
    """Position-wise weights over propensities conditional on the items above: wrong even where
    rewards are independent.
    """
    target = stochastic_target(SLATES)
    e = Evidence(
        rounds(rewards("independent"), conditional(LOGGING, SLATES), "conditional"), target
    )
    tempting = float((LOG_LAW * (e.step * e.rounds.reward).sum(axis=1)).sum())
    right = expectation(RewardInteractionIPS(), e, LOG_LAW)
    assert right == pytest.approx(truth("independent", target), abs=1e-12)
    assert abs(tempting - right) > 0.01


@pytest.mark.parametrize("make", [stochastic_target, deterministic_target])
def test_pseudo_inverse_is_unbiased_for_additive_rewards_under_plackett_luce(make: object) -> None:
    target = make(SLATES)  # type: ignore[operator]
    log = rounds(rewards("independent"), conditional(LOGGING, SLATES), "conditional")
    law = np.broadcast_to(LOG_LAW, (len(SLATES), len(SLATES)))
    estimator = PseudoInverse(lambda r: (SLATES, law[: len(r)]))
    assert expectation(estimator, Evidence(log, target), LOG_LAW) == pytest.approx(
        truth("independent", target), abs=1e-10
    )


@pytest.mark.parametrize("make", [stochastic_target, deterministic_target])
def test_pseudo_inverse_closed_form_of_uniform_slates_is_the_enumerated_one(make: object) -> None:
    target = make(SLATES)  # type: ignore[operator]
    flat = np.zeros(ITEMS)
    uniform = conditional(flat, SLATES)
    e = Evidence(rounds(rewards("independent"), uniform, "conditional"), target)
    law = np.broadcast_to(uniform.prod(axis=1), (len(SLATES), len(SLATES)))
    ((closed, _),) = PseudoInverse().ratios(e)
    ((slow, _),) = PseudoInverse(lambda r: (SLATES, law)).ratios(e)
    np.testing.assert_allclose(closed, slow, atol=1e-10)
    assert expectation(PseudoInverse(), e, law[0]) == pytest.approx(
        truth("independent", target), abs=1e-12
    )


def test_pseudo_inverse_of_independent_places() -> None:
    """Places drawn independently, with repeats: the weight is the sum of the marginal ratios less K
    - 1.
    """
    random = np.random.Generator(np.random.Philox(key=8))
    log, want = random.dirichlet(np.ones(ITEMS), LENGTH), random.dirichlet(np.ones(ITEMS), LENGTH)
    grid = np.stack(np.meshgrid(*[np.arange(ITEMS)] * LENGTH, indexing="ij"), axis=-1).reshape(
        -1, LENGTH
    )
    place = np.arange(LENGTH)
    law, wanted = log[place, grid].prod(axis=1), want[place, grid].prod(axis=1)
    reward = random.uniform(0, 1, (LENGTH, ITEMS))[place, grid]
    zero = np.zeros(len(grid), dtype=np.int64)
    chunk = Rounds(
        zero,
        zero,
        zero,
        zero,
        np.tile(place, (len(grid), 1)),
        grid + 1,
        reward,
        log[place, grid],
        "marginal",
        zero,
    )
    target = Target(want[place, grid], grid[:, None, :] + 1)
    assert expectation(PseudoInverse(), Evidence(chunk, target), law) == pytest.approx(
        float((wanted * reward.sum(axis=1)).sum()), abs=1e-12
    )


def test_matching_is_unbiased_under_uniform_single_items_and_biased_under_others() -> None:
    reward = np.array([[0.7], [0.2], [0.5], [0.35]])
    items = np.arange(1, 5)[:, None]
    zero = np.zeros(4, dtype=np.int64)
    chunk = Rounds(
        zero,
        zero,
        zero,
        zero,
        zero[:, None],
        items,
        reward,
        np.full((4, 1), 0.25),
        "marginal",
        zero,
    )
    target = Target((items == 3).astype(float), np.full((4, 1, 1), 3), deterministic=True)
    ((above, below),) = Matching().ratios(Evidence(chunk, target))
    assert below is not None
    assert above.sum() / below.sum() == pytest.approx(0.5)


def test_the_direct_method_is_its_model() -> None:
    target = stochastic_target(SLATES)
    model = wrong_model()
    model.table[:] = model.table[:1]
    e = Evidence(
        rounds(rewards("independent"), conditional(LOGGING, SLATES), "conditional"), target, model
    )
    want = float((marginal(TARGET_LAW) * model.table[0, 0]).sum())
    assert expectation(DirectMethod(), e, LOG_LAW) == pytest.approx(want, abs=1e-12)
