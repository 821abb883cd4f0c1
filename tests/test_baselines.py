"""The published models against literal transcriptions of their equations, place by place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from policies.base import Catalogue, Fitting, Histories, Sequences
from policies.bert4rec import BERT4Rec
from policies.bpr import BPR, Clicks
from policies.gru4rec import GRU4Rec
from policies.layers import Attention, attention_mask
from policies.losses import Loss, Objective
from policies.narm import NARM
from policies.s3rec import Pretraining, S3Rec
from policies.sequence import Windows
from policies.stamp import STAMP
from policies.train import Training

ITEMS = torch.tensor([[0, 0, 3, 5, 2, 9], [4, 1, 7, 8, 8, 6], [0, 0, 0, 0, 0, 10]])
NOBODY = torch.zeros(3, dtype=torch.long)


def log(users: list[list[int]]) -> Sequences:
    items = np.array([item for user in users for item in user], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64)
    return Sequences(
        np.arange(len(users)),
        offsets,
        items,
        np.ones(len(items), dtype=bool),
        np.arange(len(items)),
    )


def real(row: int) -> Tensor:
    return ITEMS[row][ITEMS[row] > 0]


@torch.inference_mode()
def test_gru4rec_runs_over_the_real_items_only() -> None:
    torch.manual_seed(0)
    network = GRU4Rec(width=6, hidden=5, layers=2).network(1, 10).eval()
    hidden = network(ITEMS, NOBODY)
    for row in range(3):
        states, _ = network.recurrent.units(network.items(real(row))[None])
        torch.testing.assert_close(hidden[row, ITEMS[row] > 0], network.output(states[0]))
    assert network.vectors() is network.items.weight
    assert GRU4Rec(tied=False).network(1, 10).vectors().shape == (11, 64)


@torch.inference_mode()
def test_narm_place_by_place() -> None:
    torch.manual_seed(0)
    network = NARM(width=6, hidden=5).network(1, 10).eval()
    hidden = network(ITEMS, NOBODY)
    for row in range(3):
        h, _ = network.recurrent.units(network.items(real(row))[None])
        for t in range(len(real(row))):
            local = sum(
                network.attention.weights(
                    torch.sigmoid(network.query(h[0, t]) + network.attention.keys(h[0, j]))
                )
                * h[0, j]
                for j in range(t + 1)
            )
            expected = network.decoder(torch.cat([h[0, t], local]))  # type: ignore[list-item]
            torch.testing.assert_close(hidden[row, 6 - len(real(row)) + t], expected)


@torch.inference_mode()
def test_stamp_place_by_place() -> None:
    torch.manual_seed(0)
    network = STAMP(width=6, std=0.5).network(1, 10).eval()
    hidden = network(ITEMS, NOBODY)
    for row in range(3):
        x = network.items(real(row))
        for t in range(len(x)):
            mean = x[: t + 1].mean(0)
            shared = network.last_click(x[t]) + network.memory(mean)
            alpha = [
                network.attention.weights(torch.sigmoid(network.attention.keys(x[i]) + shared))
                for i in range(t + 1)
            ]
            attended = sum(a * x[i] for i, a in enumerate(alpha))
            expected = torch.tanh(network.session(attended)) * torch.tanh(network.recent(x[t]))
            torch.testing.assert_close(hidden[row, 6 - len(x) + t], expected)


@torch.inference_mode()
def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    mine = Attention(8, 2, 0.0).eval()
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": mine.inputs.weight,
            "in_proj_bias": mine.inputs.bias,
            "out_proj.weight": mine.output.weight,
            "out_proj.bias": mine.output.bias,
        }
    )
    x = torch.randn(3, 6, 8)
    mask = attention_mask(ITEMS, causal=True)
    expected, _ = theirs(
        x, x, x, attn_mask=~mask.repeat(1, 2, 1, 1).view(6, 6, 6), need_weights=False
    )
    torch.testing.assert_close(mine(x, mask), expected)


def test_bert4rec_learns_from_the_replaced_clicks_only() -> None:
    policy = BERT4Rec(width=8, length=6, masked=0.5, last_only=0.0)
    torch.manual_seed(0)
    network = policy.network(1, 10).eval()
    users = [[1, 2, 3, 4, 5, 6, 7], [8, 9]]
    samples = policy.samples(log(users))
    given: list[tuple[Tensor, Tensor]] = []

    def objective(hidden: Tensor, vectors: Tensor, target: Tensor, row: Tensor) -> Tensor:
        given.append((target, row))
        assert len(hidden) == len(target) == len(row)
        assert vectors.shape == (11, 9)
        return hidden.sum()

    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(200):
        policy.batch_loss(network, samples.batch(np.arange(2), "cpu"), objective)  # type: ignore[arg-type]
    full = torch.tensor([[2, 3, 4, 5, 6, 7], [0, 0, 0, 0, 8, 9]])
    shares = torch.zeros(2, 6)
    for items, (target, row) in zip(seen, given, strict=True):
        gaps = items == 11
        shares += gaps
        assert gaps.any(1).all()
        assert torch.equal(items[~gaps], full[~gaps])
        assert torch.equal(full[gaps], target)
        assert torch.equal(gaps.nonzero()[:, 0], row)
    assert (abs(shares[0] / 200 - 0.5) < 4 * np.sqrt(0.25 / 200)).all()
    assert shares[1, :4].sum() == 0
    only = policy.with_params(last_only=1.0)
    seen.clear()
    only.batch_loss(network, samples.batch(np.arange(2), "cpu"), objective)  # type: ignore[arg-type]
    assert torch.equal(seen[0] == 11, torch.tensor([[False] * 5 + [True]] * 2))


def test_bpr_scores_are_inner_products_and_biases() -> None:
    users = [[1, 2, 3], [4, 5], []]
    clicks = Clicks(log(users))
    assert clicks.batch(np.arange(5), "cpu").user.tolist() == [1, 1, 1, 2, 2]
    assert clicks.batch(np.array([4, 0]), "cpu").targets.tolist() == [[5], [1]]
    policy = BPR(width=4, training=Training(epochs=3, patience=0)).fit(
        log(users), Catalogue(3, 6), Fitting()
    )
    none = np.zeros((2, 0), dtype=np.int64)
    histories = Histories(np.array([1, 77]), np.zeros(2, np.int64), none, none.astype(bool), none)
    scores = policy.score(histories, np.tile(np.arange(1, 7), (2, 1)))
    with torch.inference_mode():
        network = policy.network_
        expected = network.items.weight[1:] @ network.users.weight[2] + network.bias[1:, 0]
        np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(scores[1], network.bias[1:, 0], rtol=1e-5, atol=1e-7)


ATTRIBUTES = (np.array([0, 0, 2, 3, 3, 5]), np.array([0, 2, 1, 0, 1]))
"""Item 1 has attributes 0 and 2, item 2 has 1, item 3 none, item 4 has 0 and 1."""


def pretraining(*objectives: str, outside: Any = None) -> Pretraining:
    policy = S3Rec(width=8, length=6, inner=8, objectives=objectives, dropout=0.0)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return Pretraining(
        policy.network(1, 4),
        policy,
        ATTRIBUTES,
        outside or Objective(Loss(), log([[1]]), 4).outside,
    ).eval()


def test_attribute_prediction_by_hand() -> None:
    model = pretraining("aap")
    batch = Windows(log([[1, 2, 4]]), 6, "last").batch(np.arange(1), "cpu")
    owned = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 0]], dtype=torch.float32)
    chances = torch.sigmoid(
        model.maps["aap"](model.network.items(torch.tensor([1, 2, 4]))) @ model.attributes.weight.T
    )
    by_hand = -(owned * chances.log() + (1 - owned) * (1 - chances).log()).sum(1).mean()
    torch.testing.assert_close(model(batch), 0.2 * by_hand)


def test_segments_are_taken_out_and_compared_with_another_users() -> None:
    model = pretraining("sp")
    seen: list[tuple[Tensor, Tensor]] = []
    encode = model._encode

    def record(items: Tensor, gaps: Tensor) -> Tensor:
        seen.append((items, gaps))
        return encode(items, gaps)

    model._encode = record  # type: ignore[method-assign]
    users = [[1, 2, 3, 4, 1, 2], [4, 3, 2, 1], [1, 2, 3]]
    batch = Windows(log(users), 6, "last").batch(np.arange(3), "cpu")
    for _ in range(100):
        seen.clear()
        model(batch)
        (items, inside), (own, nothing) = seen
        assert len(items) == 2  # three items are too few
        assert not nothing.any()
        for row in range(2):
            segment = items[row][inside[row]]
            assert 2 <= len(segment) <= (items[row] > 0).sum() // 2
            assert torch.equal(own[row][own[row] > 0], segment)
            assert (own[row][: 6 - len(segment)] == 0).all()
            places = inside[row].nonzero()[:, 0]
            assert (places.diff() == 1).all()


def test_masks_hide_the_item() -> None:
    model = pretraining("mip", "map")
    items = torch.tensor([[0, 1, 2, 3]])
    gaps = torch.tensor([[False, False, True, False]])
    other = torch.tensor([[0, 1, 4, 3]])
    torch.testing.assert_close(model._encode(items, gaps), model._encode(other, gaps))
    assert not torch.allclose(
        model._encode(items, ~gaps & False), model._encode(other, ~gaps & False)
    )


def test_masked_items_stand_against_items_that_are_not_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """User 0 owns all but item 4 and user 1 all but item 1: the loss is that of these negatives,
    whatever is masked.
    """
    users = [[1, 2, 3, 1, 2, 3], [4, 3, 2, 4]]
    batch = Windows(log(users), 6, "last").batch(np.arange(2), "cpu")
    items = torch.cat([batch.items, batch.targets[:, -1:]], dim=1)[:, -6:]
    other = torch.tensor([4, 1])
    model = pretraining("mip", outside=lambda row, n: other[row][:, None].expand(-1, n))
    vectors = model.network.items.weight
    torch.manual_seed(5)
    loss = model(batch)
    torch.manual_seed(5)
    gaps = (items != 0) & (torch.rand(items.shape) < model.policy.masked)
    gaps[:, -1] |= ~gaps.any(1)
    hidden, negative = (
        model.maps["mip"](model._encode(items, gaps)[gaps]),
        other[gaps.nonzero()[:, 0]],
    )
    by_hand = (
        -torch.sigmoid((hidden * (vectors[items[gaps]] - vectors[negative])).sum(1)).log().mean()
    )
    torch.testing.assert_close(loss, by_hand)

    drawn: list[Tensor] = []
    build = Pretraining.__init__

    def record(
        self: Pretraining, network: Any, policy: S3Rec, attributes: Any, outside: Any
    ) -> None:
        build(self, network, policy, attributes, outside)
        drawn.append(outside(torch.tensor([0, 1]), 200))

    monkeypatch.setattr(Pretraining, "__init__", record)
    brief = Training(epochs=0, patience=0)
    S3Rec(width=8, length=6, inner=8, pretraining=brief, training=brief).fit(
        log(users), Catalogue(2, 4), Fitting()
    )
    assert (
        drawn[0] == other[:, None]
    ).float().mean() > 0.95  # where 20 draws find none, an own item stands


@pytest.mark.parametrize(
    "objectives", [("aap",), ("mip",), ("map",), ("sp",), ("aap", "mip", "map", "sp")]
)
def test_every_objective_is_learned(objectives: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    users = [[(start + step) % 4 + 1 for step in range(6)] for start in rng.integers(0, 4, 200)]
    figures: list[float] = []
    policy = S3Rec(
        width=16,
        length=6,
        inner=16,
        dropout=0.0,
        objectives=objectives,
        training=Training(epochs=0, patience=0),  # type: ignore[arg-type]
        pretraining=Training(epochs=20, batch=50, rate=1e-2, patience=0),
    )
    fitting = Fitting(progress=lambda stage, done, total, each: figures.append(each["loss"]))
    policy.fit(log(users), Catalogue(200, 4, attributes=ATTRIBUTES), fitting)
    assert figures[-1] < 0.75 * figures[0]


def test_attributes_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"the objectives \['aap'\] of S3Rec need item attributes"):
        S3Rec(objectives=("aap", "mip")).fit(log([[1, 2]]), Catalogue(1, 2), Fitting())
    with pytest.raises(ValueError, match=r"'pretraining\.patience' must be 0; got 10"):
        S3Rec(pretraining=Training())


@pytest.mark.parametrize("kind", ["bce", "softmax", "sampled", "gbce", "bpr", "top1"])
def test_every_loss_trains_every_network(kind: str) -> None:
    users = [[1, 2, 3, 4, 5], [3, 4, 5, 6], [5, 6, 7, 8]]
    loss = Loss(kind, negatives=2)  # type: ignore[arg-type]
    for made in (GRU4Rec, NARM, STAMP, BERT4Rec):
        policy = made(width=8, length=5, loss=loss)
        torch.manual_seed(0)
        network = policy.network(3, 20)
        objective = Objective(loss, log(users), 20)
        value = policy.batch_loss(
            network, policy.samples(log(users)).batch(np.arange(3), "cpu"), objective
        )
        value.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(value)
        assert network.items.weight.grad is not None
        assert network.items.weight.grad.abs().sum() > 0
