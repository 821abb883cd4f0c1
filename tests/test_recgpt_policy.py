"""PreTrain, FineTune, RecGPT, RecGPT1: the contract, stages, quotas, variants, tokens, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policies.base import Catalogue, Fitting, Histories, Sequences
from policies.blocks import ROWS
from policies.check import CHECKS
from policies.continuation import BEAMS, SHARES, Chosen, Continuation
from policies.examples import Example, chain, mixed, share_right
from policies.losses import Loss
from policies.mixture import WEIGHTS, TransitionCounts
from policies.registry import make
from policies.retrieval import Search, shares
from policies.train import Training
from policies.transitions import Transitions
from policies.vectors import weights_of
from recgpt.model import GENERATED, GPT, REAL, Shape
from recgpt.policy import FineTune, PreTrain, RecGPT, RecGPT1, _ragged
from recgpt.prompts import Prompts, converse, interleave
from recgpt.spectral import spectral
from recgpt.tuning import Lessons
from recgpt.validation import Validation
from tests.worlds import broken_promises

SMALL = Shape(width=16, feedforward=32, length=12)
BRIEF: dict[str, Any] = {
    "shape": SMALL,
    "pretraining": Training(epochs=2, patience=0, batch=64),
    "tuning": Training(epochs=1, patience=0, batch=64),
}


@pytest.fixture(scope="module")
def example() -> Example:
    return mixed(3)


@pytest.fixture(scope="module")
def fitted(example: Example) -> RecGPT:
    return RecGPT(**BRIEF).fit(example.sequences, example.catalogue, Fitting(seed=1))


def same_fit(policy: RecGPT, **serving: Any) -> RecGPT:
    return policy.with_params(**serving).restore(policy.state())


def test_slates_of_quotas_keep_the_promises() -> None:
    """What is registered is checked in `test_registered.py`."""
    assert broken_promises(RecGPT(quotas=(1,) * 6)) == {}


@pytest.mark.parametrize(
    "policy",
    [
        RecGPT(**BRIEF, prompts=Prompts(2, "model")),
        RecGPT(**BRIEF, prompts=Prompts(2, "both")),
        RecGPT(
            **{**BRIEF, "pretraining": Training(epochs=2, patience=1)}, counts=TransitionCounts()
        ),
        RecGPT1(**BRIEF, counts=TransitionCounts(), second="marginal"),
        RecGPT(**BRIEF, second="marginal", quotas=(1,) * 6),
        RecGPT1(
            **{**BRIEF, "shape": replace(SMALL, masked=False)},
            prompts=Prompts(1, form="tail"),
            second="marginal",
        ),
    ],
    ids=[
        "generated prompts",
        "generated and real prompts",
        "mixture",
        "marginal",
        "marginal interests",
        "padding read",
    ],
)
def test_other_forms_keep_the_promises_of_serving_too(policy: RecGPT) -> None:
    learns = {name for name in CHECKS if name.startswith("learns")}
    only = [name for name in CHECKS if name not in learns | {"propensities", "cost"}]
    assert broken_promises(policy, only=only) == {}


def test_a_mixture_is_the_product_of_its_probabilities_and_its_weight_the_best_on_validation(
    example: Example,
) -> None:
    policy = RecGPT1(
        **{**BRIEF, "pretraining": Training(epochs=2, patience=1)},
        counts=TransitionCounts(shrink=1.0),
        prompts=Prompts(0),
    )
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    mixture = policy.mixture_
    assert mixture is not None
    asked = example.requests(8)
    every = np.broadcast_to(np.arange(1, 51), (len(asked), 50))
    alone = policy.queries(asked)[:, 0] @ policy.item_vectors()[1:].T
    share = np.exp(alone - alone.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    counted = Transitions(200, 50, 0.8, 6.0, 1.0).fit(
        Validation(example.sequences, 99, 0, 48).history, example.catalogue, Fitting()
    )
    counts = counted.score(asked, every)
    total = counts.sum(1, keepdims=True)
    mixture.weight = 0.75
    expected = share * (counts / np.where(total > 0, total, 1) + 0.003) ** 0.75
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(policy.score(asked, every)), expected, rtol=2e-4, atol=1e-7)
    validation = Validation(example.sequences, 10**6, 0, 48)
    found = validation.ndcg_of(policy._walk(mixture), policy.tokens, once=True)()
    best = mixture.weight
    judged = []
    for weight in WEIGHTS:
        mixture.weight = weight
        gains = [
            validation.gains(policy.recall(validation.requests(some, 48), 10, 0).items, some).sum()
            for some in validation.blocks()
        ]
        judged.append(sum(gains))
    assert judged[WEIGHTS.index(best)] == max(judged) == pytest.approx(found * len(validation))


def test_counts_are_left_out_or_weighted_at_serving(example: Example) -> None:
    """The same fit: without counts at weight 0, at the chosen weight without one."""
    brief = {**BRIEF, "pretraining": Training(epochs=2, patience=1)}
    pooled = RecGPT(**brief, counts=TransitionCounts(shrink=1.0), prompts=Prompts(0))
    pooled.fit(example.sequences, example.catalogue, Fitting(seed=1))
    assert pooled.mixture_ is not None
    pooled.mixture_.weight = 3.0
    state, asked = pooled.state(), example.requests(70)

    def served(**serving: Any) -> RecGPT:
        return pooled.with_params(**serving).restore(state)

    assert served(weight=0.0).fit_key() == pooled.fit_key()
    chosen, same = (served(**serving).recall(asked, 10, 0) for serving in ({}, {"weight": 3.0}))
    assert np.array_equal(chosen.scores, same.scores)
    alone = served(weight=0.0)
    network = RecGPT(**brief, prompts=Prompts(0)).restore(state)
    assert np.array_equal(alone.recall(asked, 10, 0).items, network.recall(asked, 10, 0).items)
    every = np.broadcast_to(np.arange(1, 51), (len(asked), 50))
    assert np.array_equal(alone.score(asked, every), network.score(asked, every))
    assert not np.array_equal(chosen.items, alone.recall(asked, 10, 0).items)
    with pytest.raises(ValueError, match="'weight' parameter of RecGPT is that of its 'counts'"):
        RecGPT(weight=0.5)


def test_who_clicks_nothing_gets_what_was_clicked_most_but_for_the_validation_clicks() -> None:
    example = chain(1)
    policy = PreTrain(shape=SMALL, pretraining=Training(epochs=1, patience=1))
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    history = Validation(example.sequences, 10**6, 0, 48).history
    expected = np.bincount(history.items[history.clicked], minlength=len(policy.clicks_))
    assert np.array_equal(policy.clicks_, expected)
    assert policy.clicks_.sum() < example.sequences.clicked.sum()


@pytest.mark.parametrize("mode", ["written", "released"])
def test_both_modes_of_the_paper_learn_a_chain(mode: str) -> None:
    example = chain(1)
    shape = replace(
        getattr(Shape, mode)(), length=12, embedding_dropout=0.1, attention_dropout=0.0, dropout=0.1
    )
    prompts = (
        Prompts(1, "model") if mode == "written" else Prompts(1, "model", "tail", everywhere=True)
    )
    training = Training(epochs=40, patience=8, batch=32)
    policy = RecGPT1(
        shape=shape,
        prompts=prompts,
        pretraining_loss=Loss("bce"),
        pretraining=training,
        tuning=training,
    )
    policy.fit(example.sequences, example.catalogue, Fitting(seed=1))
    assert share_right(example, policy.recall(example.requests(), 1, 0).items) > 0.9


@pytest.mark.parametrize("quotas", [(1,), (9, 1), (8, 2), (5, 5), (1, 1, 1, 1, 1, 1), (3, 0, 1)])
@pytest.mark.parametrize("k", [1, 6, 10])
def test_steps_recall_their_quotas_without_repeats(
    fitted: RecGPT, example: Example, quotas: tuple[int, ...], k: int
) -> None:
    slates = same_fit(fitted, quotas=quotas).recall(example.requests(), k, 0)
    wanted = np.repeat(np.arange(len(quotas)), shares(quotas, k))
    assert slates.interest is not None
    warm = example.requests().clicked.any(axis=1)
    assert (slates.interest[warm] == wanted).all()
    assert all(len(set(row)) == k for row in slates.items.tolist())


def test_recall_is_autoregressive_step_by_step(fitted: RecGPT, example: Example) -> None:
    """Each step by hand: the whole sequence with the appended items through the network, all inner
    products, the best unseen ones.
    """
    policy = same_fit(fitted, quotas=(4, 2, 3))
    asked = example.requests()
    slates = policy.recall(asked, 9, 0)
    tokens, segments = policy.tokens(asked)
    vectors = policy.item_vectors()
    for row in np.flatnonzero(tokens.any(axis=1)):
        history, roles = (
            tokens[row][tokens[row] != 0].tolist(),
            segments[row][tokens[row] != 0].tolist(),
        )
        taken: list[int] = []
        for quota in (4, 2, 3):
            with torch.no_grad():
                user = torch.tensor([int(asked.user[row])])
                hidden = policy.network_(torch.tensor([history]), user, torch.tensor([roles]))[
                    0, -1
                ].numpy()
            scores = vectors @ hidden
            scores[[0, *asked.seen[row], *taken]] = -np.inf
            best = np.argsort(-scores)[:quota].tolist()
            taken += best
            history, roles = [*history, best[0]], [*roles, REAL]
        assert slates.items[row].tolist() == taken


@pytest.mark.parametrize("quotas", [(1,), (3, 2, 1)])
def test_a_marginal_step_is_an_expectation(
    fitted: RecGPT, example: Example, quotas: tuple[int, ...]
) -> None:
    """By hand: every continuation through the whole network, all inner products, the softmax over
    the candidates.
    """
    width, c, k = 12, 0.7, 6
    asked = Continuation(beam=3, share=c, candidates=width)
    policy = same_fit(fitted, quotas=quotas, second="marginal", continuation=asked)
    requests = example.requests()
    slates = policy.recall(requests, k, 0)
    tokens, segments = policy.tokens(requests)
    vectors = policy.item_vectors()

    def scores(user: int, history: list[int], roles: list[int]) -> np.ndarray:
        with torch.no_grad():
            inputs = torch.tensor([history]), torch.tensor([user]), torch.tensor([roles])
            return np.asarray(vectors @ policy.network_(*inputs)[0, -1].numpy())

    def softmax(values: np.ndarray) -> np.ndarray:
        shares = np.exp(values - values.max())
        return np.asarray(shares / shares.sum())

    for row in np.flatnonzero(tokens.any(axis=1)):
        is_read, user = tokens[row] != 0, int(requests.user[row])
        history, roles = tokens[row][is_read].tolist(), segments[row][is_read].tolist()
        first = scores(user, history, roles)
        first[[0, *requests.seen[row]]] = -np.inf
        candidates = np.argsort(-first)[:width]
        p = softmax(first[candidates])
        further = [
            softmax(scores(user, [*history, int(i)], [*roles, REAL])[candidates])
            for i in candidates[:3]
        ]
        if len(quotas) == 1:
            after = sum(p[b] * further[b] for b in range(3))
            marginal = (p + c * (after + (1 - p[:3].sum()) * p)) / (1 + c)
            expected = candidates[np.argsort(-marginal)[:k]].tolist()
            np.testing.assert_allclose(
                np.exp(slates.scores[row]), np.sort(marginal)[::-1][:k], rtol=1e-4
            )
        else:
            expected = []
            for part, quota in zip([p, *further], quotas, strict=False):
                left = [int(i) for i in candidates[np.argsort(-part)] if i not in expected]
                expected += left[:quota]
        assert slates.items[row].tolist() == expected


def test_a_share_of_nothing_is_one_step_and_merging_by_score_ranks_by_the_marginal(
    fitted: RecGPT, example: Example
) -> None:
    asked = example.requests(8)
    none = same_fit(
        fitted, quotas=(1,), second="marginal", continuation=Continuation(beam=2, share=0.0)
    ).recall(asked, 8, 0)
    # A further token takes a place of the history, here as with a second quota of nothing.
    one = same_fit(fitted, quotas=(1, 0)).recall(asked, 8, 0)
    assert (none.items == one.items).all()
    merged, ranked = (
        same_fit(
            fitted, quotas=quotas, merge=merge, second="marginal",
            continuation=Continuation(beam=2, share=0.5),
        ).recall(asked, 8, 0)
        for quotas, merge in (((2, 1, 1), "score"), ((1,), "interest"))
    )  # fmt: skip
    assert (merged.items == ranked.items).all()


@pytest.mark.parametrize("quotas", [(1,), (1,) * 6])
def test_a_marginal_step_has_fewer_items_than_its_beam(quotas: tuple[int, ...]) -> None:
    """Five items, four of them seen: one is recalled, and nothing else."""
    items = np.tile(np.arange(1, 6), 8)
    users, clicked = np.arange(8), np.ones(40, dtype=bool)
    log = Sequences(users, 5 * np.arange(9), items, clicked, np.tile(np.arange(5), 8))
    policy = RecGPT(**BRIEF, quotas=quotas, second="marginal").fit(
        log, Catalogue(8, 5), Fitting(seed=1)
    )
    history = np.tile([1, 2, 3, 4], (8, 1))
    asked = Histories(users, np.zeros(8, np.int64), history, history > 0, history)
    slates = policy.recall(asked, 9, 0)
    assert slates.items.tolist() == [[5, *[0] * 8]] * 8
    assert np.isneginf(slates.scores[:, 1:]).all()


def test_beam_and_share_are_chosen_on_the_validation_clicks(example: Example) -> None:
    brief = {**BRIEF, "pretraining": Training(epochs=3, patience=2, batch=64)}
    policy = RecGPT1(**brief, second="marginal").fit(
        example.sequences, example.catalogue, Fitting(seed=1)
    )
    validation = Validation(example.sequences, 10**6, 1, 48)
    judged = {}
    for beam in BEAMS:
        for share in SHARES:
            open_to = same_fit(policy, continuation=Continuation(beam=beam, share=share))
            judged[beam, share] = validation.ndcg(
                open_to.recall(validation.requests(some, 48), 10, 0).items
                for some in validation.blocks()
            )
    best = policy.chosen_
    assert judged[best.beam, best.share] == pytest.approx(max(judged.values()))
    assert same_fit(policy).chosen_ == best, "it is part of the state"
    state = {name: part for name, part in policy.state().items() if name != "continuation"}
    assert policy.with_params().restore(state).chosen_ == Chosen(), "a state from before has none"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"beam": 0}, "'beam'"), ({"share": -0.1}, "'share'"), ({"candidates": 0}, "'candidates'")],
)
def test_a_continuation_that_cannot_be_is_one_message(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"{words} of a continuation must be"):
        make("recgpt", {"second": "marginal", "continuation": wrong})


def test_the_first_step_does_not_know_of_the_second(fitted: RecGPT, example: Example) -> None:
    one, two = (
        same_fit(fitted, quotas=quotas).recall(example.requests(8), 10, 0)
        for quotas in ((1,), (9, 1))
    )
    assert (one.items[:, :9] == two.items[:, :9]).all()
    assert (one.items[:, 9] != two.items[:, 9]).any()


def test_merging_by_score_orders_by_inner_product(fitted: RecGPT, example: Example) -> None:
    asked = example.requests()
    by_step, by_score = (
        same_fit(fitted, quotas=(1,) * 6, merge=merge).recall(asked, 12, 0)
        for merge in ("interest", "score")
    )
    assert (np.sort(by_step.items) == np.sort(by_score.items)).all()
    assert (by_step.items != by_score.items).any()


def test_approximate_search_finds_the_same_first_items(fitted: RecGPT, example: Example) -> None:
    pytest.importorskip("faiss")
    exact, near = (
        same_fit(fitted, search=Search(kind), quotas=(1,)).recall(example.requests(), 5, 0)
        for kind in ("exact", "hnsw")
    )
    assert (exact.items == near.items).mean() > 0.99


def test_the_one_step_policy_shares_the_fit(fitted: RecGPT, example: Example) -> None:
    one, two = RecGPT1(**BRIEF), RecGPT(**BRIEF, quotas=(8, 2))
    assert one.fit_key() == two.fit_key() == fitted.fit_key()
    assert one.fit_key() != RecGPT1(**BRIEF, prompts=Prompts(2)).fit_key()
    assert PreTrain(shape=SMALL).fit_key() != FineTune(shape=SMALL).fit_key()
    one.restore(fitted.state())
    expected = same_fit(fitted, quotas=(1,)).recall(example.requests(), 5, 0)
    assert (one.recall(example.requests(), 5, 0).items == expected.items).all()


def test_variants_of_table_3_are_what_they_say(example: Example) -> None:
    """1: two steps on the pre-trained model, 3: one step on it; tuning starts from that very
    model.
    """
    three = PreTrain(shape=SMALL, pretraining=BRIEF["pretraining"]).fit(
        example.sequences, example.catalogue, Fitting(seed=1)
    )
    one = three.with_params(quotas=(8, 2)).restore(three.state())
    a, b = three.recall(example.requests(8), 10, 0), one.recall(example.requests(8), 10, 0)
    assert (a.items[:, :8] == b.items[:, :8]).all()
    untuned = RecGPT(**{**BRIEF, "tuning": Training(epochs=0, patience=0)}, prompts=Prompts(0)).fit(
        example.sequences, example.catalogue, Fitting(seed=1)
    )
    assert (
        untuned.with_params(quotas=(8, 2))
        .restore(untuned.state())
        .recall(example.requests(8), 10, 0)
        .items
        == b.items
    ).all()


def test_tuning_from_a_saved_pre_trained_model_is_tuning_after_pre_training(
    example: Example, fitted: RecGPT, tmp_path: Path
) -> None:
    PreTrain(shape=SMALL, pretraining=BRIEF["pretraining"]).fit(
        example.sequences, example.catalogue, Fitting(seed=1)
    ).save(tmp_path)
    tuned = RecGPT(**BRIEF, pretrained=str(tmp_path)).fit(
        example.sequences, example.catalogue, Fitting(seed=1)
    )
    assert all(np.array_equal(array, tuned.state()[name]) for name, array in fitted.state().items())
    for folder, shape in ((tmp_path / "none", SMALL), (tmp_path, replace(SMALL, width=8))):
        with pytest.raises(
            ValueError, match=r"must be the folder of a saved PreTrain of the same shape"
        ):
            RecGPT(shape=shape, pretrained=str(folder)).fit(
                example.sequences, example.catalogue, Fitting(seed=1)
            )


def test_real_unclicks_stand_between_the_clicks_they_were_shown_between(fitted: RecGPT) -> None:
    assert fitted.source_ == "exposed"
    items = np.array([[0, 3, 4, 5, 6, 7], [0, 0, 0, 0, 8, 9]])
    clicked = np.array([[False, True, False, False, True, False], [False] * 6])
    tokens, segments = same_fit(fitted, quotas=(1,)).tokens(
        Histories(np.array([0, 1]), np.zeros(2, int), items, clicked, items)
    )
    assert tokens[:, -4:].tolist() == [[0, 3, 5, 6], [0, 0, 0, 0]]
    assert segments[:, -4:].tolist() == [[0, REAL, GENERATED, REAL], [0, 0, 0, 0]]


def test_without_unclicks_prompts_are_generated_and_exposed_ones_refused(example: Example) -> None:
    clicks = example.sequences.clicks()
    policy = RecGPT(**BRIEF).fit(clicks, example.catalogue, Fitting(seed=1))
    assert policy.source_ == "model"
    with pytest.raises(ValueError, match=r"'exposed', but no impression of this log is an unclick"):
        RecGPT(**BRIEF, prompts=Prompts(1, "exposed")).fit(clicks, example.catalogue, Fitting())


def test_prompts_found_by_an_index_are_found_by_the_saved_one(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks, asked = example.sequences.clicks(), example.requests(12)
    prompts = {kind: Prompts(1, "model", search=Search(kind)) for kind in ("exact", "hnsw")}
    made = {
        kind: RecGPT(**BRIEF, prompts=how).fit(clicks, example.catalogue, Fitting(seed=1))
        for kind, how in prompts.items()
    }
    policy, exact = made["hnsw"], made["exact"]
    for name, values in exact.state().items():  # of few items the best one is always found
        np.testing.assert_array_equal(values, policy.state()[name])
    policy.save(tmp_path)
    assert len(list(tmp_path.glob("prompts-index-*.faiss"))) == 1
    assert not list(tmp_path.glob("index-*"))  # serving looks at the few items there are

    def refuse(*given: Any) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("policies.retrieval.Approximate.__init__", refuse)
    loaded = policy.with_params().load(tmp_path)
    np.testing.assert_array_equal(loaded.tokens(asked)[0], exact.tokens(asked)[0])
    with pytest.raises(AssertionError, match="built again"):
        policy.with_params().restore(policy.state()).tokens(asked)


def test_prompts_are_made_by_the_pre_trained_model_unless_anew(example: Example) -> None:
    """Algorithm 1's input is the pre-trained block, in training and at serving."""
    clicks, training = (
        example.sequences.clicks(),
        Training(epochs=6, patience=0, batch=32, rate=1e-2),
    )
    asked = example.requests(12)
    base: dict[str, Any] = {"shape": SMALL, "pretraining": BRIEF["pretraining"]}
    start = PreTrain(**base).fit(example.sequences, example.catalogue, Fitting(seed=1)).network_
    for anew in (False, True):
        prompts = Prompts(2, "model", anew=anew)
        policy = RecGPT1(**base, tuning=training, prompts=prompts).fit(
            clicks, example.catalogue, Fitting(seed=1)
        )
        restored = policy.with_params().restore(policy.state())
        read = [
            converse(model, _ragged(asked), prompts, "model", layer, ROWS).last(12)[0]
            for model, layer in (
                (start, "items"),
                (policy.network_, "output"),
            )
        ]
        assert (read[0] != read[1]).any()
        for served in (policy, restored):
            assert served.tokens(asked)[0].tolist() == read[anew].tolist()
    lost = {
        name: array for name, array in policy.state().items() if not name.startswith("generator/")
    }
    with pytest.raises(
        ValueError, match="lacks the pre-trained network that its prompts come from"
    ):
        policy.with_params(prompts=Prompts(2, "model")).restore(lost)


@pytest.mark.parametrize("quotas", [(1,), (3, 1)])
def test_where_padding_is_read_serving_reads_as_much_of_it_as_training(
    example: Example, quotas: tuple[int, ...]
) -> None:
    shape = replace(Shape.released(), width=16, feedforward=32, length=12)
    policy = RecGPT(
        shape=shape,
        prompts=Prompts(1, "model", "tail"),
        quotas=quotas,
        ranking="items",
        **{k: BRIEF[k] for k in ("pretraining", "tuning")},
    )
    policy.fit(example.sequences.clicks(), example.catalogue, Fitting(seed=1))
    asked = example.requests(12)
    window = np.zeros((len(asked), 12), dtype=np.int64)
    for row in range(len(asked)):
        clicks = asked.items[row][asked.clicked[row] & (asked.items[row] != 0)][-12:]
        window[row, 12 - len(clicks) :] = clicks
    assert (window[:, 0] == 0).any()
    with torch.no_grad():
        token, real = torch.from_numpy(window), torch.zeros(window.shape, dtype=torch.long)
        expected = policy.network_(token, torch.from_numpy(asked.user), real)[:, -1]
    np.testing.assert_allclose(policy.queries(asked)[:, 0], expected, rtol=1e-4, atol=1e-6)
    if len(quotas) > 1:
        first = policy.with_params(quotas=(1,)).restore(policy.state()).recall(asked, 3, 0).items
        after = torch.from_numpy(np.append(window[:, 1:], first[:, :1], axis=1))
        with torch.no_grad():
            scores = (
                policy.network_(after, torch.from_numpy(asked.user), real)[:, -1]
                @ policy.network_.items.weight.T
            ).numpy()
        scores[:, 0] = -np.inf
        np.put_along_axis(scores, np.concatenate([asked.seen, first], axis=1), -np.inf, axis=1)
        known = window.any(axis=1)
        assert (
            policy.recall(asked, 4, 0).items[known, 3].tolist() == scores.argmax(1)[known].tolist()
        )


def test_no_stage_sees_what_a_later_one_validates_on(example: Example) -> None:
    """As released: pre-training stops by itself, tuning on the validation click; other last clicks
    leave the pre-trained weights alone.
    """
    clicks = example.sequences.clicks()
    items = clicks.items.copy()
    last = clicks.offsets[1:] - 1
    items[last] = items[last] % 50 + 1
    others = replace(clicks, items=items)
    states = [
        FineTune(
            shape=SMALL,
            pretraining=BRIEF["pretraining"],
            tuning=Training(epochs=0, patience=patience),
        )
        .fit(log, example.catalogue, Fitting(seed=1))
        .state()["model/items.weight"]
        for patience in (1, 0)
        for log in (clicks, others)
    ]
    assert np.array_equal(states[0], states[1])
    assert not np.array_equal(states[2], states[3])


def test_epochs_are_compared_as_they_are_served() -> None:
    """With counts, by the pool: a network that knows nothing is validated at the counts' level."""
    example, told = chain(1), []
    policy = PreTrain(
        shape=SMALL,
        pretraining=Training(epochs=1, patience=1, rate=1e-9),
        counts=TransitionCounts(),
    )
    fitting = Fitting(
        seed=1, progress=lambda stage, done, total, figures: told.append(figures["ndcg@10"])
    )
    policy.fit(example.sequences, example.catalogue, fitting)
    assert policy.mixture_ is not None
    policy.mixture_.weight = 1.0
    validation = Validation(example.sequences, 10**6, 0, 48)
    judged = []
    for served in (
        policy,
        PreTrain(shape=SMALL).restore(
            {k: v for k, v in policy.state().items() if not k.startswith("mixture/")}
        ),
    ):
        gains = [
            validation.gains(served.recall(validation.requests(some, 48), 10, 0).items, some).sum()
            for some in validation.blocks()
        ]
        judged.append(sum(gains) / len(validation))
    assert told == [pytest.approx(judged[0], rel=1e-3)]
    assert judged[0] > 2 * judged[1]


def test_prompts_made_anew_differ_from_prompts_made_once(example: Example) -> None:
    training = Training(epochs=4, patience=0, batch=32, rate=1e-2)
    states = [
        RecGPT(
            shape=SMALL,
            pretraining=BRIEF["pretraining"],
            tuning=training,
            prompts=Prompts(2, "model", anew=anew),
        )
        .fit(example.sequences, example.catalogue, Fitting(seed=1))
        .state()
        for anew in (False, False, True)
    ]
    same = [all(np.array_equal(states[0][name], state[name]) for name in state) for state in states]
    assert same == [True, True, False]


def test_stages_resume_where_they_were_cut(example: Example, tmp_path: Path) -> None:
    policy = RecGPT(
        **{**BRIEF, "tuning": Training(epochs=3, patience=2)},
        prompts=Prompts(1, "model", anew=True),
    )
    whole = (
        policy.with_params()
        .fit(example.sequences, example.catalogue, Fitting(seed=1, folder=tmp_path / "a"))
        .state()
    )

    class Cut(Exception):  # noqa: N818
        pass

    def cut(stage: str, done: int, total: int, figures: Any) -> None:
        if (stage, done) == ("tune", 2):
            raise Cut

    with pytest.raises(Cut):
        policy.with_params().fit(
            example.sequences,
            example.catalogue,
            Fitting(seed=1, folder=tmp_path / "b", progress=cut),
        )
    resumed = (
        policy.with_params()
        .fit(
            example.sequences,
            example.catalogue,
            Fitting(seed=1, folder=tmp_path / "b", resume=True),
        )
        .state()
    )
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)


def test_validation_ranks_each_last_click_and_sees_nothing_after_what_came_before_it(
    example: Example,
) -> None:
    validation = Validation(example.sequences, 10**6, 0, 48)
    for user in range(len(example.sequences)):
        mine = slice(*example.sequences.offsets[user : user + 2])
        clicks = np.flatnonzero(example.sequences.clicked[mine])
        known = validation.history.items[slice(*validation.history.offsets[user : user + 2])]
        assert (
            known.tolist()
            == example.sequences.items[mine][: clicks[-1] if len(clicks) else 0].tolist()
        )
        assert (user in validation.rows) == (len(clicks) >= 2)


def test_a_cold_user_gets_the_most_clicked(fitted: RecGPT) -> None:
    nothing = np.zeros((1, 4), dtype=np.int64)
    slates = fitted.recall(
        Histories(
            np.array([10**6]), np.zeros(1, int), nothing, nothing.astype(bool), np.array([[7]])
        ),
        3,
        0,
    )
    counts = fitted.clicks_.copy()
    counts[[0, 7]] = -1
    assert counts[slates.items[0]].tolist() == sorted(counts, reverse=True)[:3]


def test_a_log_without_a_pair_of_clicks_says_so(example: Example) -> None:
    nothing = example.sequences.where(np.zeros(len(example.sequences.items), dtype=bool))
    with pytest.raises(ValueError, match="nothing to train on"):
        RecGPT(**BRIEF).fit(
            Sequences(*(getattr(nothing, n) for n in ("user", "offsets", "items", "clicked", "t"))),
            example.catalogue,
            Fitting(),
        )


def test_parameters_are_checked_where_they_are_given() -> None:
    assert make(
        "recgpt", {"quotas": [1, 1], "shape": {"width": 32}, "prompts": {"window": 3}}
    ) == RecGPT(quotas=(1, 1), shape=Shape(width=32), prompts=Prompts(3))
    with pytest.raises(ValueError, match=r"no hyper-parameter .shape\.widht."):
        make("recgpt", {"shape": {"widht": 32}})
    with pytest.raises(ValueError, match="quotas must be non-negative and not all zero"):
        make("recgpt", {"quotas": [0, 0]})
    with pytest.raises(ValueError, match=r"must have fewer entries than shape\.length"):
        RecGPT(quotas=(1,) * 50)
    with pytest.raises(
        ValueError, match=r"set shape\.masked to false, or prompts\.form to 'between'"
    ):
        RecGPT(prompts=Prompts(1, "model", "tail"))


def test_a_spectral_start_is_the_decomposition_of_who_clicked_what(example: Example) -> None:
    items, vectors = spectral(example.sequences, 60, 12, 3)
    clicks = example.sequences.clicks()
    row = np.repeat(np.arange(len(clicks)), np.diff(clicks.offsets))
    matrix = np.zeros((len(clicks), 61))
    matrix[row, clicks.items] = 1
    assert items.tolist() == np.flatnonzero(matrix.any(0)).tolist()
    matrix = matrix[matrix.any(1)][:, items.numpy()]
    matrix = matrix / np.sqrt(matrix.sum(1, keepdims=True)) / (np.sqrt(matrix.sum(0)) + 3)
    _, strength, right = np.linalg.svd(matrix, full_matrices=False)
    expected = (right[:12].T * strength[:12]) @ (right[:12].T * strength[:12]).T
    got = (vectors @ vectors.T).double().numpy()
    np.testing.assert_allclose(got / np.trace(got), expected / np.trace(expected), atol=1e-4)
    assert float(vectors.std()) == pytest.approx(0.02)
    assert torch.equal(vectors, spectral(example.sequences, 60, 12, 3)[1])


def test_training_may_start_from_the_spectrum_even_where_it_is_narrower_than_the_network(
    example: Example,
) -> None:
    untrained: dict[str, Any] = {**BRIEF, "pretraining": Training(epochs=0, patience=0)}
    policy = PreTrain(
        **{
            **{k: v for k, v in untrained.items() if k != "tuning"},
            "shape": replace(SMALL, width=64),
        },
        start="spectral",
    )
    policy.fit(example.sequences, example.catalogue, Fitting(seed=4))
    items, vectors = spectral(example.sequences, example.catalogue.n_items, 64, 4)
    assert vectors.shape[1] < 64
    assert torch.equal(policy.network_.items.weight[items, : vectors.shape[1]], vectors)
    empty = example.sequences.where(np.zeros(len(example.sequences.items), dtype=bool))
    assert [len(part) for part in spectral(empty, 60, 12, 0)] == [0, 0]


def test_batches_hold_about_as_many_targets_whatever_the_length_of_their_rows() -> None:
    lengths = np.array([2, 3, 21, 30] * 100)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    items = np.arange(offsets[-1]) % 50 + 1
    prompts = np.where(np.arange(offsets[-1])[:, None] % 2, 7, 0)
    lessons = Lessons(np.arange(400), interleave(offsets, items, prompts), 16, "all", False)
    assert lessons.targets.sum() == (lengths - 1).sum()
    for index in range(len(lessons.row)):
        assert lessons.targets[index] == int(
            (lessons.batch(np.array([index]), False, "cpu")[2] != 0).sum()
        )


def test_a_pool_holds_the_best_of_what_every_interest_offers(
    example: Example, fitted: RecGPT
) -> None:
    asked = example.requests(9)
    pooled = same_fit(fitted, quotas=(3, 1), merge="pool").recall(asked, 6, 0)
    apart = same_fit(fitted, quotas=(1, 1)).recall(asked, 12, 0)  # 6 of each interest
    warm = np.flatnonzero((asked.clicked & (asked.items > 0)).any(axis=1))
    assert len(warm) > 5
    for row in warm:
        offered = sorted(
            zip(-apart_scores(fitted, asked, row), apart.items[row].tolist(), strict=True)
        )[:6]
        assert pooled.items[row].tolist() == [item for _, item in offered]
    assert (np.diff(pooled.scores, axis=1) <= 0).all()
    one = same_fit(fitted, quotas=(1,), merge="pool").recall(asked, 6, 0)
    assert one.items.tolist() == same_fit(fitted, quotas=(1,)).recall(asked, 6, 0).items.tolist()


def apart_scores(policy: RecGPT, asked: Histories, row: int) -> Any:
    """Inner products of the 12 items with the query of the interest that offered each, made from
    tokens one by one.
    """
    one = asked.rows(np.array([row]))
    model, walk = policy.network_, same_fit(policy, quotas=(1, 1))
    slate = walk.recall(one, 12, 0)
    tokens, segments = walk.tokens(one)
    token, segment, user = (
        torch.from_numpy(tokens),
        torch.from_numpy(segments),
        torch.from_numpy(one.user),
    )
    grown = torch.cat([token, torch.from_numpy(slate.items[:, :1])], 1)
    with torch.no_grad():
        first = model(token, user, segment)[0, -1]
        second = model(grown, user, torch.cat([segment, torch.zeros(1, 1, dtype=torch.int64)], 1))[
            0, -1
        ]
        vectors = model.vectors(policy.layer)
        query = torch.stack(
            [model.query(first, policy.layer)] * 6 + [model.query(second, policy.layer)] * 6
        )
        return (query * vectors[slate.items[0]]).sum(1).numpy()


@pytest.mark.parametrize(
    "shape", [Shape(length=20), Shape(length=20, attention="flow"), Shape(length=20, masked=False)]
)
def test_six_interests_among_many_items_do_not_depend_on_the_company(shape: Shape) -> None:
    """Histories of all lengths in blocks of any size, by a shortlist of a large catalogue: the same
    bytes.
    """
    n_items, n = 3000, 150
    policy, rng = RecGPT(shape=shape, quotas=(1,) * 6), np.random.default_rng(3)
    network = GPT(n_items, n, shape).initialise(torch.Generator().manual_seed(1))
    clicks = np.arange(n_items + 1, dtype=np.float32)
    policy.restore(
        {**weights_of(network, "model/"), "clicks": clicks, "source": np.array("exposed")}
    )
    items = rng.integers(1, n_items + 1, (n, 60)) * (
        np.arange(60) >= 60 - rng.integers(0, 61, (n, 1))
    )
    asked = Histories(
        np.arange(n),
        np.zeros(n, dtype=np.int64),
        items,
        (rng.random((n, 60)) < 0.5) & (items > 0),
        items,
    )
    whole = policy.recall(asked, 60, 1)
    order = rng.permutation(n)
    for size in (1, 7, 64):
        for rows in np.split(order, range(size, n, size))[:9]:
            part = policy.recall(asked.rows(rows), 60, 1)
            np.testing.assert_array_equal(part.items, whole.items[rows])
            np.testing.assert_array_equal(part.scores, whole.scores[rows])
            np.testing.assert_array_equal(part.interest, whole.interest[rows])
