"""Next-item models: what each must learn, and what no batch, padding, future or reload may
change.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from policies.base import Catalogue, Fitting, Histories, IntArray, Sequences, right_aligned
from policies.bert4rec import BERT4Rec
from policies.bpr import BPR
from policies.comirec import ComiRec
from policies.gru4rec import GRU4Rec
from policies.losses import Loss
from policies.narm import NARM
from policies.retrieval import Search
from policies.s3rec import S3Rec
from policies.sasrec import SASRec
from policies.sequence import Windows
from policies.stamp import STAMP
from policies.train import Training
from policies.vectors import Network, VectorPolicy

ITEMS = 40


def sequences_of(users: list[list[int]]) -> Sequences:
    n = np.array([len(user) for user in users])
    items = np.array([item for user in users for item in user], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(n)]).astype(np.int64)
    return Sequences(
        np.arange(len(users)),
        offsets,
        items,
        np.ones(len(items), dtype=bool),
        np.arange(len(items)),
    )


def histories_of(users: list[list[int]], *, hide: bool = True) -> Histories:
    width = max(max(map(len, users)), 1)
    items = np.array([[0] * (width - len(user)) + user for user in users], dtype=np.int64)
    seen = items if hide else np.zeros((len(users), 0), dtype=np.int64)
    return Histories(
        np.arange(len(users)), np.zeros(len(users), dtype=np.int64), items, items > 0, seen
    )


def chain(rng: np.random.Generator, n: int) -> list[list[int]]:
    """After item i comes item i + 1 (1 after ITEMS): only the last click tells the next one."""
    return [
        [(start + step - 1) % ITEMS + 1 for step in range(rng.integers(4, 12))]
        for start in rng.integers(1, ITEMS + 1, n)
    ]


def checkerboard(rng: np.random.Generator, n: int) -> list[list[int]]:
    """Even users click even items, odd users odd ones, in random order and without repeats."""
    return [
        (2 * rng.permutation(ITEMS // 2)[: rng.integers(6, 15)] + 1 + user % 2).tolist()
        for user in range(n)
    ]


FAST = Training(epochs=15, batch=64, rate=5e-3, patience=0)
MODELS: dict[str, VectorPolicy] = {
    "sasrec": SASRec(
        width=32, length=12, blocks=1, dropout=0.1, training=FAST, loss=Loss("softmax")
    ),
    "sasrec-post": SASRec(
        width=32,
        length=12,
        dropout=0.1,
        training=FAST,
        norm="post",
        activation="gelu",
        heads=2,
        inner=64,
    ),
    "comirec-dr": ComiRec(
        width=32, length=12, interests=2, training=FAST, loss=Loss("sampled", negatives=60), cuts=4
    ),
    "comirec-sa": ComiRec(
        width=32,
        length=12,
        interests=2,
        training=FAST,
        loss=Loss("softmax"),
        extractor="sa",
        cuts=4,
        user_aware=True,
    ),
    "bpr": BPR(width=16, training=Training(epochs=30, batch=256, rate=1e-2, patience=0)),
    "gru4rec": GRU4Rec(
        width=32, length=12, hidden=48, training=FAST, loss=Loss("softmax"), tied=False
    ),
    "narm": NARM(width=32, length=12, hidden=32, training=FAST, loss=Loss("softmax")),
    "stamp": STAMP(width=32, length=12, training=FAST, loss=Loss("softmax")),
    "bert4rec": BERT4Rec(
        width=32,
        length=12,
        blocks=1,
        dropout=0.1,
        masked=0.2,
        training=Training(epochs=60, batch=32, rate=3e-3, patience=0),
    ),
    "s3rec": S3Rec(
        width=32,
        length=12,
        blocks=1,
        inner=64,
        dropout=0.1,
        training=FAST,
        pretraining=Training(epochs=3, batch=64, patience=0),
    ),
}
ORDERED = ["sasrec", "gru4rec", "narm", "stamp", "bert4rec", "s3rec"]
CAUSAL = [
    "sasrec-post",
    *(name for name in ORDERED if name != "bert4rec"),
]  # it sees both sides of a gap, and is asked for the gap after the last click


def fitted(name: str, users: list[list[int]], **fitting: object) -> VectorPolicy:
    policy = MODELS[name].with_params()
    return policy.fit(sequences_of(users), Catalogue(len(users), ITEMS), Fitting(**fitting))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=list(MODELS))
def learned(request: pytest.FixtureRequest) -> tuple[str, VectorPolicy]:
    """Each model, fitted on a checkerboard."""
    return request.param, fitted(request.param, checkerboard(np.random.default_rng(0), 600))


def test_learns_a_checkerboard(learned: tuple[str, VectorPolicy]) -> None:
    users = checkerboard(np.random.default_rng(1), 60)
    items = learned[1].recall(histories_of(users), 5, 0).items
    right = items % 2 != np.arange(60)[:, None] % 2
    assert right.mean() > 0.95  # guessing: .5


@pytest.mark.parametrize("name", ORDERED)
def test_learns_a_planted_chain(name: str) -> None:
    rng = np.random.default_rng(2)
    policy = fitted(name, chain(rng, 600))
    users = chain(rng, 100)
    items = policy.recall(histories_of([user[:-1] for user in users]), 1, 0).items
    assert np.mean(items[:, 0] == [user[-1] for user in users]) > 0.95  # guessing: 1/40


def test_one_by_one_equals_the_batch_bit_for_bit(learned: tuple[str, VectorPolicy]) -> None:
    rng = np.random.default_rng(3)
    policy = learned[1]
    users = [rng.integers(1, ITEMS + 1, rng.integers(0, 20)).tolist() for _ in range(150)]
    histories = histories_of(users)
    queries, slates, scores = (
        policy.queries(histories),
        policy.recall(histories, 7, 0),
        policy.score(histories, histories.items),
    )
    for size in (1, 13, 64):
        for start in range(0, 150, max(size, 10)):
            rows = rng.permutation(150)[:size] if size == 13 else slice(start, start + size)
            part = histories.rows(rows)
            np.testing.assert_array_equal(policy.queries(part), queries[rows])
            again = policy.recall(part, 7, 0)
            np.testing.assert_array_equal(again.items, slates.items[rows])
            np.testing.assert_array_equal(again.scores, slates.scores[rows])
            np.testing.assert_array_equal(policy.score(part, part.items), scores[rows])


def test_padding_and_unclicked_impressions_change_nothing(
    learned: tuple[str, VectorPolicy],
) -> None:
    policy = learned[1]
    plain = histories_of([[3, 5, 9], [4]])
    items = np.array([[0, 0, 0, 7, 3, 8, 5, 9, 2], [0, 0, 0, 0, 0, 0, 0, 4, 6]])
    clicked = np.array([[0, 0, 0, 0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0]], dtype=bool)
    longer = Histories(plain.user, plain.step, items, clicked, plain.seen)
    np.testing.assert_array_equal(policy.queries(longer), policy.queries(plain))


UNPADDED: dict[str, VectorPolicy] = {
    "two blocks": SASRec(width=16, length=20, blocks=2),
    "one block, two heads": SASRec(width=20, length=20, inner=36, heads=2, blocks=1),
    "norms after": SASRec(length=20, heads=2, blocks=3, norm="post", activation="gelu"),
    "one recurrent layer": GRU4Rec(width=16, length=20, hidden=21),
    "two recurrent layers": GRU4Rec(length=20, hidden=40, layers=2),
}
"""What is served without padding, in all its forms."""


def unpadded(policy: VectorPolicy) -> tuple[Network, IntArray]:
    """A network with weights of all sizes, and histories of no item, of one, of all lengths."""
    torch.manual_seed(0)
    network = policy.network(0, ITEMS).eval()
    for name, weight in network.named_parameters():
        if name != "items.weight":
            torch.nn.init.normal_(weight, std=1.0 if "bias" in name else 0.3)
    items = np.random.default_rng(0).integers(1, ITEMS + 1, (90, 20))
    items[np.arange(20) < 20 - np.arange(90)[:, None] % 21] = 0
    return network, items


@pytest.mark.parametrize("policy", UNPADDED.values(), ids=UNPADDED)
def test_histories_without_padding_are_read_as_with_it(policy: VectorPolicy) -> None:
    network, items = unpadded(policy)
    user = np.zeros(len(items), dtype=np.int64)
    with torch.inference_mode():
        padded, own = Network.queries(network, items, user), network.queries(items, user)
    np.testing.assert_allclose(own, padded, rtol=2e-4, atol=2e-5)
    assert own.dtype == np.float32
    assert own.shape == (90, 1, policy.width)


@pytest.mark.parametrize("policy", UNPADDED.values(), ids=UNPADDED)
def test_a_history_without_padding_is_the_same_bits_in_any_company(policy: VectorPolicy) -> None:
    network, items = unpadded(policy)
    random = np.random.default_rng(1)
    with torch.inference_mode():
        whole = network.queries(items, np.zeros(90, dtype=np.int64))
        for n in (1, 2, 7, 33, 64, 89):
            rows = random.permutation(90)[:n]
            again = network.queries(items[rows], np.zeros(n, dtype=np.int64))
            np.testing.assert_array_equal(again, whole[rows])


@pytest.mark.parametrize("policy", UNPADDED.values(), ids=UNPADDED)
@pytest.mark.parametrize("item", [ITEMS + 1, -1])
def test_an_item_that_is_none_is_refused_without_padding_too(
    policy: VectorPolicy, item: int
) -> None:
    network, items = unpadded(policy)
    items[7, -1] = item
    with torch.inference_mode(), pytest.raises(IndexError):
        network.queries(items, np.zeros(len(items), dtype=np.int64))


@pytest.mark.parametrize("name", CAUSAL)
def test_no_place_sees_a_later_one(name: str) -> None:
    torch.manual_seed(0)
    network = MODELS[name].network(30, ITEMS).eval()
    items = torch.tensor([[0, 0, 3, 5, 7, 9, 11, 13]])
    changed = items.clone()
    changed[0, 5:] = torch.tensor([2, 4, 6])
    with torch.inference_mode():
        before, after = (
            network(items, torch.zeros(1, dtype=torch.long)),
            network(changed, torch.zeros(1, dtype=torch.long)),
        )
    assert torch.equal(before[:, 2:5], after[:, 2:5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_cold_users_are_served(learned: tuple[str, VectorPolicy]) -> None:
    histories = Histories(
        np.array([10**6, 0]),
        np.zeros(2, np.int64),
        np.zeros((2, 0), np.int64),
        np.zeros((2, 0), bool),
        np.zeros((2, 1), np.int64),
    )
    slates = learned[1].recall(histories, ITEMS + 5, 0)
    assert sorted(slates.items[0].tolist()) == [0] * 5 + list(range(1, ITEMS + 1))
    assert np.isneginf(slates.scores[0, -5:]).all()
    assert (np.diff(slates.scores[:, :ITEMS]) <= 0).all()


def test_scores_agree_with_recall(learned: tuple[str, VectorPolicy]) -> None:
    policy = learned[1]
    histories = histories_of(checkerboard(np.random.default_rng(4), 20))
    slates = policy.recall(histories, 6, 0)
    np.testing.assert_allclose(
        policy.score(histories, slates.items), slates.scores, rtol=1e-4, atol=1e-5
    )


def test_save_and_load(learned: tuple[str, VectorPolicy], tmp_path: Path) -> None:
    name, policy = learned
    policy.save(tmp_path)
    other = MODELS[name].with_params().load(tmp_path)
    histories = histories_of(checkerboard(np.random.default_rng(5), 30))
    before, after = policy.recall(histories, 8, 0), other.recall(histories, 8, 0)
    np.testing.assert_array_equal(before.items, after.items)
    np.testing.assert_array_equal(before.scores, after.scores)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    users = checkerboard(np.random.default_rng(0), 40)
    short = MODELS["sasrec"].with_params(training=Training(epochs=2, patience=0))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    runs = [
        short.with_params()
        .fit(sequences_of(users), Catalogue(40, ITEMS), Fitting(seed=seed))
        .state()
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.rand(1), expected)
    assert all(np.array_equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not np.array_equal(runs[0]["items.weight"], runs[2]["items.weight"])


def test_approximate_serving_is_a_serving_matter_only() -> None:
    policy = fitted("sasrec", checkerboard(np.random.default_rng(0), 60))
    near = policy.with_params(search=Search("hnsw"))
    assert near.fit_params() == policy.fit_params()
    histories = histories_of(checkerboard(np.random.default_rng(6), 30))
    np.testing.assert_array_equal(
        near.restore(policy.state()).recall(histories, 5, 0).items,
        policy.recall(histories, 5, 0).items,
    )


def test_an_unfitted_policy_says_so() -> None:
    with pytest.raises(ValueError, match="SASRec has learned nothing yet"):
        SASRec().recall(histories_of([[1]]), 1, 0)


def test_windows_hold_every_target_once() -> None:
    users = [[1, 2, 3, 4, 5, 6, 7, 8], [9], [10, 11], [], [12, 13, 14, 15, 16]]
    clicks = sequences_of(users)
    pieces = Windows(clicks, 3, "all")
    batch = pieces.batch(np.arange(len(pieces.lengths)), "cpu")
    targets = batch.targets[batch.targets > 0].tolist()
    assert sorted(targets) == [2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 15, 16]
    for inputs, outputs in zip(batch.items.tolist(), batch.targets.tolist(), strict=True):
        assert [i + 1 for i in inputs if i] == [o for o in outputs if o]
        assert [bool(i) for i in inputs] == [bool(o) for o in outputs]
    last = Windows(clicks, 3, "last")
    batch = last.batch(np.arange(len(last.lengths)), "cpu")
    assert batch.targets.tolist() == [[6, 7, 8], [0, 0, 11], [14, 15, 16]]
    assert batch.items.tolist() == [[5, 6, 7], [0, 0, 10], [13, 14, 15]]
    assert batch.row.tolist() == [0, 2, 4]


def test_right_aligned() -> None:
    flat = np.array([1, 2, 3, 4, 5])
    assert right_aligned(flat, np.array([3, 5, 0]), np.array([3, 1, 0])).tolist() == [
        [1, 2, 3],
        [0, 0, 5],
        [0, 0, 0],
    ]
    assert right_aligned(flat > 2, np.array([4]), np.array([3]), 2).tolist() == [[True, True]]
    assert right_aligned(flat[:0], np.array([0]), np.array([0]), 2).tolist() == [[0, 0]]
