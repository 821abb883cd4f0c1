"""What the systems and the paper's are trained by: the protocols, and what is printed of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

import pytest

from policies.bert4rec import BERT4Rec
from policies.losses import Loss
from policies.registry import make
from policies.train import Training
from simulator.reproduce import artefacts
from simulator.reproduce.experiment import (
    ReproduceError,
)
from simulator.reproduce.protocol import loss, printed, training
from simulator.reproduce.systems import (
    FAMILIES,
    PROTOCOLS,
    ROWS,
    SPLITS,
    Protocol,
)

PAPER = PROTOCOLS["paper"]


def test_models_are_chosen_by_row_system_or_family() -> None:
    assert artefacts.chosen(ROWS, ["sasrec", "RecGPT"]) == {
        "SASRec": "SASRec",
        "RecGPT": "RecGPT K=1 9_1",
    }
    assert list(artefacts.chosen(ROWS, ["RecGPT K=2"])) == [
        f"RecGPT K=2 {split}" for split in SPLITS
    ]
    assert set(artefacts.chosen(ROWS, ["Best committee"])) == {
        "Best committee network",
        "Best committee",
        "Best committee marginal",
    }
    assert list(artefacts.chosen(ROWS, ["all"])) == list(ROWS)
    with pytest.raises(
        ReproduceError, match=r"--models SASRek: nothing of that name; did you mean 'SASRec'"
    ):
        artefacts.chosen(ROWS, ["SASRek"])


@cache
def _printed(protocol: str) -> Mapping[str, str]:
    """What is printed of a protocol and all families."""
    return printed(PROTOCOLS[protocol], list(FAMILIES.values())).says


def _chosen(protocol: Protocol, what: str) -> dict[str, str]:
    """Family -> what is printed of it."""
    return {
        name: how
        for key, how in _printed(protocol.name).items()
        if key.startswith(f"{what} of ")
        for name in key.removeprefix(f"{what} of ").split(", ")
    }


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_printed_protocol_is_what_the_policies_are_given(protocol: Protocol) -> None:
    kinds = {
        "binary": "bce",
        "generalised": "gbce",
        "full": "softmax",
        "sampled": "sampled",
        "pairwise (BPR)": "bpr",
        "pairwise (TOP1)": "top1",
    }
    every = {
        (what, name)
        for what in ("loss", "tuning loss", "pretraining loss", "training", "tuning")
        for name in _chosen(protocol, what)
    }
    assert {name for what, name in every if what == "loss"} >= {
        "BPR",
        "STAMP",
        "BERT4Rec",
        "ComiRec-SA",
        "SASRec",
    }
    for what, name in every:
        spec = next(iter(FAMILIES[name].specs(protocol).values()))
        policy = make(spec["policy"], spec["params"])
        trained = policy.parts()[0] if FAMILIES[name].pooled else policy
        given, said = trained.params()[what.replace(" ", "_")], _chosen(protocol, what)[name]
        if isinstance(given, Loss):
            assert [kind for words, kind in kinds.items() if said.startswith(words)] == [given.kind]
        else:
            assert (
                f"{given.epochs} epochs, batches of {given.batch:,}, Adam at {given.rate:g}" in said
            )
            if not given.patience:
                assert "no validation" in said
                continue
            assert f"at most {given.sample:,} users" in said
            assert f"patience {given.patience};" in said
    losses = _chosen(protocol, "loss") | _chosen(protocol, "pretraining loss")
    assert losses["SASRec"] == losses["Pre-train"] == loss(Loss(**protocol.loss))
    assert losses["ComiRec-DR"].startswith("sampled softmax, 512 negatives")
    assert losses["Best pre-train"].startswith("sampled softmax, 1,024 negatives")


def test_bert4rec_is_trained_as_long_as_it_needs() -> None:
    own = BERT4Rec().training
    assert (own.epochs, own.patience) == (300, 20)
    spec = FAMILIES["BERT4Rec"].specs(PAPER)["BERT4Rec"]
    assert make(spec["policy"], spec["params"]).params()["training"] == own
    assert "300 epochs" in _chosen(PAPER, "training")["BERT4Rec"]


def test_what_the_paper_has_otherwise_is_printed() -> None:
    assert "W_l" in _chosen(PAPER, "scores")["RecGPT K=1"]
    assert "RecGPT as released" not in _chosen(PAPER, "scores")
    assert _chosen(PAPER, "prompts")["Best RecGPT sure"].startswith(
        "1 before each item from the second on, where its probability is at least"
    )
    assert (
        "the next item is predicted from them as well"
        in _chosen(PAPER, "prompts")["RecGPT as released"]
    )
    given = {
        json.dumps(family.params["prompts"], sort_keys=True)
        for family in FAMILIES.values()
        if "prompts" in family.params
    }
    assert len(set(_chosen(PAPER, "prompts").values())) == len(given)  # whatever differs is told
    alone = printed(PAPER, [FAMILIES["Fine-tuning"]]).says
    assert alone["start of Fine-tuning"] == "the fit of Pre-train"
    assert alone["pretraining loss of Pre-train"] == loss(
        Loss("bce")
    )  # of what it starts from, which is no row here
    assert "pretraining loss of Fine-tuning" not in alone


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            Training(patience=0, average=3, epochs=9),
            "no validation, weights: mean of the last 3 epochs",
        ),
        (Training(patience=0), "no validation, weights: last epoch"),
        (
            Training(every=2, average=5),
            (
                "every 2 epochs on at most 10,000 users, drawn by the seed; patience 10; weights:"
                " mean of the 5 best"
            ),
        ),
        (Training(decay=0.01, clip=5.0), "Adam at 0.001, L2 0.01, gradients up to 5; validated"),
    ],
)
def test_a_training_in_words(given: Training, said: str) -> None:
    assert said in training(given)
