"""The GPT: causality, padding, segments, users, state = whole sequence, parity with torch's
encoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from policies.base import IntArray
from policies.blocks import ROWS
from policies.dropout import Dropout
from recgpt.attention import ATTENTION
from recgpt.model import GENERATED, GPT, REAL, Shape
from recgpt.one_block import OneBlock
from tests.worlds import small_gpt

FORMS: list[dict[str, Any]] = [
    {"attention": a, "norm": n, "layers": 2} for a in ATTENTION for n in ("post", "pre")
]
FORMS += [
    {"relative": True, "layers": 2},
    {"trace": True, "layers": 2},
    {"trace": True, "norm": "pre"},
]


def sequences() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(1, 31, (4, 9), generator=torch.Generator().manual_seed(5))
    tokens[1, :4] = 0
    tokens[2, :8] = 0
    segments = torch.randint(0, 2, tokens.shape, generator=torch.Generator().manual_seed(6)) * (
        tokens != 0
    )
    return tokens, torch.tensor([0, 5, -1, 99]), segments


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_token_sees_a_later_one(form: dict[str, Any]) -> None:
    model, (tokens, users, segments) = small_gpt(**form), sequences()
    before = model(tokens, users, segments)
    changed = tokens.clone()
    real = tokens[:, 6] != 0
    changed[real, 6] = changed[real, 6] % 30 + 1
    after = model(changed, users, segments)
    assert torch.equal(before[:, :6], after[:, :6])
    assert real.sum() == 3
    assert ((before[real, 6:] - after[real, 6:]).abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_padding_changes_nothing(form: dict[str, Any]) -> None:
    model, (tokens, users, segments) = small_gpt(**form), sequences()
    wide = model(tokens, users, segments)
    alone = model(tokens[1:2, 4:], users[1:2], segments[1:2, 4:])
    torch.testing.assert_close(wide[1:2, 4:], alone, atol=2e-6, rtol=2e-5)


def test_unmasked_padding_is_seen_as_in_the_released_code() -> None:
    model, (tokens, users, _) = small_gpt(masked=False), sequences()
    assert not torch.allclose(
        model(tokens, users)[1, -1], model(tokens[:, 4:], users)[1, -1], atol=1e-3
    )


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_token_by_token_equals_the_whole_sequence(form: dict[str, Any]) -> None:
    model, (tokens, users, segments) = small_gpt(**form), sequences()
    tokens, segments = tokens[:2], segments[:2]
    segments[:, -3:] = torch.tensor([REAL, GENERATED, REAL])
    whole = model(tokens, users[:2], segments)
    hidden, memory = model.begin(tokens[:, :-3], users[:2], segments[:, :-3], keep=3)
    torch.testing.assert_close(hidden, whole[:, -4], atol=5e-6, rtol=5e-5)
    for column, segment in ((-3, REAL), (-2, GENERATED), (-1, REAL)):
        hidden = model.extend(tokens[:, column], memory, segment)
        torch.testing.assert_close(hidden, whole[:, column], atol=5e-6, rtol=5e-5)


@pytest.mark.parametrize("form", [{}, {"layers": 2, "relative": True}, {"attention": "flow"}])
@pytest.mark.parametrize("length", [4, 32, 45, 50])
def test_a_row_is_the_same_bits_wherever_in_a_block_it_stands(
    form: dict[str, Any], length: int
) -> None:
    generator = torch.Generator().manual_seed(length)
    model = GPT(300, 80, Shape(**form)).initialise(generator).eval()
    tokens, users = (
        torch.randint(1, 300, (64, length), generator=generator),
        torch.randint(80, (64,), generator=generator),
    )
    further = torch.randint(1, 300, (3, 64), generator=generator)

    def read(rows: torch.Tensor) -> torch.Tensor:
        keep = min(len(further), 50 - length)
        hidden, memory = model.begin(
            tokens[rows], users[rows], None, keep, 0 if length == 50 else 45
        )
        return torch.stack(
            [hidden, *(model.extend(token[rows], memory) for token in further[:keep])], 1
        )

    with torch.inference_mode():
        first = read(torch.arange(64))
        for _ in range(8):
            rows = torch.randperm(64, generator=generator)
            assert torch.equal(read(rows), first[rows])


def test_segments_start_at_nothing_and_then_tell_prompts_from_items() -> None:
    fresh = (
        GPT(30, 6, Shape(width=16, feedforward=24))
        .initialise(torch.Generator().manual_seed(0))
        .eval()
    )
    tokens, users, segments = sequences()
    assert torch.equal(fresh(tokens, users, segments), fresh(tokens, users))
    model = small_gpt()
    assert not torch.allclose(
        model(tokens, users, segments)[0, -1], model(tokens, users, 1 - segments)[0, -1], atol=1e-3
    )


def test_unknown_users_add_nothing_and_known_ones_do() -> None:
    model, (tokens, _, _) = small_gpt(), sequences()
    unknown = model(tokens, torch.full((4,), -1))
    assert torch.equal(unknown, model(tokens, torch.full((4,), 6)))  # 6 users: 0..5
    assert not torch.allclose(
        unknown[0, -1], model(tokens, torch.zeros(4, dtype=torch.long))[0, -1], atol=1e-3
    )


def test_dropping_all_users_in_training_trains_no_user() -> None:
    model = small_gpt(user_dropout=1.0).train()
    tokens, _, _ = sequences()
    model(tokens, torch.arange(4)).sum().backward()
    assert model.users is not None
    assert model.users.weight.grad is None or not model.users.weight.grad.any()


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_blocks_agree_with_torch_under_shared_weights(norm: str, activation: str) -> None:
    model = small_gpt(norm=norm, activation=activation, layers=2)
    layer = nn.TransformerEncoderLayer(
        16, 2, 24, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    )
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    with torch.no_grad():
        for ours, other in zip(model.blocks, theirs.layers, strict=True):
            other.self_attn.in_proj_weight.copy_(ours.attention.qkv.weight)
            other.self_attn.in_proj_bias.copy_(ours.attention.qkv.bias)
            other.self_attn.out_proj.load_state_dict(ours.attention.out.state_dict())
            other.linear1.load_state_dict(ours.expand.state_dict())
            other.linear2.load_state_dict(ours.contract.state_dict())
            other.norm1.load_state_dict(ours.norm_attention.state_dict())
            other.norm2.load_state_dict(ours.norm_feedforward.state_dict())
        tokens, users, segments = sequences()
        x, real = model._embed(tokens, users, segments)
        got = model(tokens, users, segments)
        for row in range(
            4
        ):  # theirs has no answer for a padding row: each sequence alone, without its padding
            alone = x[row : row + 1, real[row]]
            causal = torch.ones(alone.shape[1], alone.shape[1], dtype=torch.bool).triu(1)
            expected = model.final(theirs(alone, mask=causal))[0]
            torch.testing.assert_close(got[row, real[row]], expected, atol=5e-6, rtol=5e-5)


def test_flow_attention_is_its_definition() -> None:
    """Wu et al. 2022, eq. 4-8, with sums over the tokens so far, written as loops."""
    torch.manual_seed(0)
    layer = ATTENTION["flow"](4, 1, 0.0).eval()
    x = torch.randn(1, 5, 4)
    got, _ = layer(x, torch.ones(1, 5, dtype=torch.bool))
    q, k, v = (part[0, 0] for part in layer.project(x))
    q, k = q.sigmoid(), k.sigmoid()
    incoming, outgoing, sources, rows = [], [], [], []
    for i in range(5):
        n = i + 1
        incoming.append(q[i] @ k[:n].sum(0) / n)
        outgoing.append(k[i] @ q[:n].sum(0) / n)
        sink = q[i] @ sum(k[j] / outgoing[j] for j in range(n)) / n
        sources.append((k[i] @ sum(q[j] / incoming[j] for j in range(n)) / n).clamp(-1, 1))
        value = torch.zeros(4)
        for j in range(n):
            competition = (
                torch.exp(sources[j]) / sum(torch.exp(sources[m]) for m in range(j + 1)) * (j + 1)
            )
            value += (q[i] @ k[j]) / (incoming[i] * n) * competition * v[j]
        rows.append(sink.sigmoid() * value)
    torch.testing.assert_close(got[0], layer.out(torch.stack(rows)), atol=1e-4, rtol=1e-3)


def test_the_trace_is_a_decayed_mean_of_the_embedded_clicks() -> None:
    """Prompts are in no mean and age none."""
    model, (tokens, users, segments) = small_gpt(trace=True), sequences()
    assert (segments[tokens != 0] == GENERATED).any()
    trace = model.trace
    assert trace is not None
    x, real = model._embed(tokens, users, segments)
    without = small_gpt(trace=True)
    without.trace = None
    got = model(tokens, users, segments) - without(tokens, users, segments)
    g = float(trace.decay.detach().sigmoid())
    for row in range(len(tokens)):
        for t in torch.nonzero(real[row])[:, 0].tolist():
            clicks = x[row, : t + 1][real[row, : t + 1] & (segments[row, : t + 1] == REAL)]
            if len(clicks):
                weights = torch.tensor([g**back for back in reversed(range(len(clicks)))])
                mean = (weights[:, None] * clicks).sum(0) / weights.sum()
                expected = trace.share.exp() * trace.norm(mean)
                torch.testing.assert_close(got[row, t], expected, atol=5e-6, rtol=5e-5)


def test_the_output_layer_starts_as_the_item_embedding() -> None:
    model = GPT(30, 6, Shape(width=16, feedforward=24, output="biased")).initialise(
        torch.Generator().manual_seed(0)
    )
    hidden = torch.randn(3, 16)
    through_items = model.query(hidden, "items") @ model.vectors("items").T
    torch.testing.assert_close(
        model.query(hidden, "output") @ model.vectors("output").T, through_items
    )


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"width": 10, "heads": 3}, "multiple of its 'heads'; got 10 and 3"),
        ({"layers": 0}, "'layers' of a shape must be at least 1; got 0"),
        ({"dropout": 1.0}, r"'dropout' of a shape must be within \[0, 1\); got 1.0"),
        ({"relative": True, "attention": "flow"}, "are of softmax attention; got attention 'flow'"),
    ],
)
def test_shapes_that_cannot_be_are_refused(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Shape(**wrong)


def test_dropout_drops_its_rate_keeps_the_mean_and_follows_the_seed() -> None:
    layer, x = Dropout(0.3).train(), torch.ones(401, 501)
    torch.manual_seed(3)
    one = layer(x)
    torch.manual_seed(3)
    assert torch.equal(one, layer(x))
    assert not torch.equal(one, layer(x))
    rate, n = 77 / 256, x.numel()
    assert abs(float((one == 0).double().mean()) - rate) < 5 * (rate * (1 - rate) / n) ** 0.5
    torch.testing.assert_close(one[one != 0], torch.full_like(one[one != 0], 1 / (1 - rate)))
    rows = (one == 0).double()
    assert (
        abs(float((rows[:, 1:] * rows[:, :-1]).mean()) - rate**2) < 5 * rate / n**0.5
    )  # neighbours are independent
    assert layer.eval()(x) is x


@pytest.mark.parametrize("form", [{}, {"users": "none", "user_dropout": 0.0}, {"heads": 4}])
@pytest.mark.parametrize("segmented", [False, True])
def test_one_block_is_served_as_the_network_says(form: dict[str, Any], segmented: bool) -> None:
    model, (tokens, users, segments) = small_gpt(**form), sequences()
    roles = segments if segmented else None
    assert OneBlock.covers(model)
    block = OneBlock(model, segmented)
    further = torch.randint(1, 31, (3, len(tokens)), generator=torch.Generator().manual_seed(7))
    arrays = tokens.numpy(), segments.numpy(), users.numpy()
    with torch.inference_mode():
        wanted, memory = model.begin(tokens, users, roles, 3)
        hidden, past = block.begin(*arrays, 3)
        torch.testing.assert_close(hidden, wanted, atol=5e-6, rtol=5e-5)
        for token in further:
            wanted = model.extend(token, memory, REAL if segmented else None)
            hidden = block.extend(token.numpy(), np.full(len(token), REAL), past)
            torch.testing.assert_close(hidden, wanted, atol=5e-6, rtol=5e-5)


@pytest.mark.parametrize("form", [{"layers": 2}, {"relative": True}, {"trace": True}])
def test_other_forms_are_served_by_the_network_itself(form: dict[str, Any]) -> None:
    assert not OneBlock.covers(small_gpt(**form))


def test_a_row_of_one_block_is_the_same_bits_in_any_company() -> None:
    generator = torch.Generator().manual_seed(0)
    model = GPT(300, 80, Shape()).initialise(generator).eval()
    random = np.random.default_rng(0)
    tokens = random.integers(1, 301, (150, 45))
    tokens[np.arange(45) < random.integers(0, 45, (150, 1))] = 0
    users, further = random.integers(-1, 80, 150), random.integers(1, 301, (150, 5))
    block = OneBlock(model, True)

    def read(rows: IntArray) -> torch.Tensor:
        shown = np.zeros_like(tokens[rows])
        hidden, past = block.begin(tokens[rows], shown, users[rows], 5)
        states = [hidden]
        for step in range(5):
            parts = []
            pasts = [past.rows(slice(i, i + ROWS)) for i in range(0, len(rows), ROWS)]
            for number, part in enumerate(pasts):
                own = rows[number * ROWS : (number + 1) * ROWS]
                part.used, part.count = part.used + step, part.count + step
                parts.append(block.extend(further[own, step], np.zeros_like(own), part))
            states.append(torch.cat(parts))
        return torch.stack(states, 1)

    with torch.inference_mode():
        whole = read(np.arange(150))
        for n in (1, 7, 64, 149):
            rows = random.permutation(150)[:n]
            assert torch.equal(read(rows), whole[rows])
