"""OffCEM: unbiased by enumeration where the model errs alike within a cluster, off by a known
amount where it does not, refused without support; and clusters by item vectors.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from click.testing import CliRunner

from policies.base import DoubleArray, IntArray
from policies.clustering import spherical_clusters
from simulator.cli.replay import replay as command
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.abstractions import OffCEM
from simulator.offpolicy.evidence import Evidence
from simulator.offpolicy.replay import ReplaySettings, evaluate
from simulator.offpolicy.reward_model import RewardTable
from simulator.offpolicy.rounds import Rounds
from simulator.offpolicy.target import Target

CLUSTER = np.array([0, 1, 1, 2, 2, 3, 3])
ITEMS, LENGTH, CONTEXTS = 6, 2, 2
STRENGTH = np.array([[0, 3.0, 1.0, 2.0, 0.5, 1.0, 0.3], [0, 0.5, 2.0, 0.4, 1.0, 3.0, 1.0]])
"""Of each item in each context: the log is personal."""
TARGET = np.array([[4, 6], [2, 1]])
"""The slate of each context: so is the target."""

Kind = Literal["conditional", "marginal"]


def every_slate(kind: Kind, length: int = LENGTH) -> tuple[Rounds, DoubleArray]:
    """Every slate in every context, with no reward yet, and its probability: by Plackett-Luce, or
    with places drawn independently.
    """
    slates = np.array(list(permutations(range(1, ITEMS + 1), length)))
    if kind == "marginal":
        slates = np.stack(np.meshgrid(*[np.arange(1, ITEMS + 1)] * length), -1).reshape(-1, length)
    context = np.repeat(np.arange(CONTEXTS), len(slates))
    slates = np.tile(slates, (CONTEXTS, 1))
    chosen = np.take_along_axis(STRENGTH[context], slates, axis=1)
    left = np.broadcast_to(STRENGTH[context].sum(axis=1)[:, None], chosen.shape)
    if kind == "conditional":
        left = left - (chosen.cumsum(axis=1) - chosen)
    chance = chosen / left
    n = len(context)
    zero, place = np.zeros(n, dtype=np.int64), np.tile(np.arange(length), (n, 1))
    rounds = Rounds(
        np.arange(n), zero, zero, np.arange(n) * length, place, slates,
        np.zeros(slates.shape), chance, kind, context,
    )  # fmt: skip
    return rounds, chance.prod(axis=1) / CONTEXTS


def with_reward(rounds: Rounds, reward: DoubleArray) -> Rounds:
    """The rounds with what `reward` `[contexts, places, items + 1]` says of each impression."""
    given = reward[rounds.context[:, None], rounds.position, rounds.item]
    names = ("user", "day", "t", "row", "position", "item")
    return Rounds(
        *(getattr(rounds, name) for name in names),
        given, rounds.propensity, rounds.kind, rounds.context,
    )  # fmt: skip


def showing(rounds: Rounds, length: int = LENGTH) -> Target:
    """The target's slates."""
    slate = TARGET[rounds.context, :length]
    return Target((slate == rounds.item) * 1.0, slate[:, None, :], deterministic=True)


def model(table: DoubleArray) -> RewardTable:
    """A reward model that says `table` `[contexts, places, items + 1]`."""
    made = RewardTable(ITEMS, CONTEXTS, folds=1)
    made.n_positions, made.table = table.shape[1], table[None]
    return made


def expected(reward: DoubleArray, said: DoubleArray, kind: Kind, clusters: IntArray) -> float:
    """Expectation of the estimate over all that the log may show."""
    rounds, law = every_slate(kind)
    rounds = with_reward(rounds, reward)
    e = Evidence(rounds, showing(rounds), model(said), clusters=clusters)
    ((above, below),) = OffCEM().ratios(e)
    assert below is None
    assert (law * e.mean_cluster_weight).sum() == pytest.approx(1.0, abs=1e-12)
    return float((law * above).sum())


def truth(reward: DoubleArray) -> float:
    """What the target gets."""
    place = np.arange(LENGTH)
    return float(np.mean([reward[c, place, TARGET[c]].sum() for c in range(CONTEXTS)]))


@pytest.mark.parametrize("kind", ["conditional", "marginal"])
def test_it_is_unbiased_where_the_model_is_locally_correct(kind: Kind) -> None:
    """The model errs by any amount, the same for the items of a cluster; the log's and the target's
    choices are personal.
    """
    random = np.random.Generator(np.random.Philox(key=91))
    reward = random.uniform(0.1, 0.9, (CONTEXTS, LENGTH, ITEMS + 1))
    wrong = random.normal(0, 1, (CONTEXTS, LENGTH, 4))[:, :, CLUSTER]
    assert expected(reward, reward - wrong, kind, CLUSTER) == pytest.approx(truth(reward))


@pytest.mark.parametrize("kind", ["conditional", "marginal"])
def test_elsewhere_it_takes_a_cluster_for_its_mean_error(kind: Kind) -> None:
    """One item for each cluster: right whatever the model. One cluster for all: the model's error
    on the target's items is taken for that on any.
    """
    random = np.random.Generator(np.random.Philox(key=92))
    reward = random.uniform(0.1, 0.9, (CONTEXTS, LENGTH, ITEMS + 1))
    said = random.uniform(0.1, 0.9, reward.shape)
    assert expected(reward, said, "marginal", np.arange(ITEMS + 1)) == pytest.approx(truth(reward))
    if kind == "marginal":
        everything = np.minimum(np.arange(ITEMS + 1), 1)
        missed = (reward - said)[:, :, 1:].mean(axis=2).sum(axis=1).mean()
        assert expected(reward, said, kind, everything) == pytest.approx(truth(said) + missed)


def test_a_stochastic_target_is_asked_for_its_share_of_the_cluster() -> None:
    """Single items: a law, of which the one drawn slate says little."""
    random = np.random.Generator(np.random.Philox(key=93))
    reward = random.uniform(0.1, 0.9, (CONTEXTS, 1, ITEMS + 1))
    wrong = random.normal(0, 1, (CONTEXTS, 1, 4))[:, :, CLUSTER]
    wanted = random.dirichlet(np.ones(ITEMS), CONTEXTS)
    wanted = np.concatenate((np.zeros((CONTEXTS, 1)), wanted), axis=1)
    rounds, law = every_slate("marginal", 1)
    rounds = with_reward(rounds, reward)
    given = wanted[rounds.context][:, None]
    chance = np.take_along_axis(given[:, 0], rounds.item, axis=1)
    target = Target(chance, np.ones((len(rounds), 1, 1), dtype=np.int64), given=given)
    e = Evidence(rounds, target, model(reward - wrong), clusters=CLUSTER)
    ((above, _),) = OffCEM().ratios(e)
    assert (law * above).sum() == pytest.approx((wanted * reward[:, 0]).sum(axis=1).mean())
    assert (law * e.mean_cluster_weight).sum() == pytest.approx(1.0)


class Shown:
    """The target of these tests as `evaluate` asks it."""

    name = "target"

    def __call__(self, rounds: Rounds) -> Target:
        return showing(rounds, rounds.length)


ROUNDS, USERS = 1500, 500
REWARD = np.random.Generator(np.random.Philox(key=94)).uniform(0.1, 0.7, (CONTEXTS, ITEMS + 1))


def drawn(seed: int) -> Rounds:
    """A log of single items; users have moods, and come three times."""
    random = np.random.Generator(np.random.Philox(key=[95, seed]))
    user = np.arange(ROUNDS) % USERS
    context = random.integers(0, CONTEXTS, USERS)[user]
    law = STRENGTH[context] / STRENGTH[context].sum(axis=1)[:, None]
    item = (random.uniform(size=(ROUNDS, 1)) > law.cumsum(axis=1)).sum(axis=1)
    mood = random.uniform(-0.05, 0.05, USERS)[user]
    click = random.uniform(size=ROUNDS) < REWARD[context, item] + mood
    zero = np.zeros(ROUNDS, dtype=np.int64)
    return Rounds(
        user, zero, zero, np.arange(ROUNDS), zero[:, None], item[:, None],
        click[:, None] * 1.0, law[np.arange(ROUNDS), item][:, None], "marginal", context,
    )  # fmt: skip


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """300 logs, a cluster for each item; 95% within 4 standard errors of a count."""
    value = REWARD[np.arange(CONTEXTS), TARGET[:, 0]].mean()
    settings = ReplaySettings(
        ("offcem",), resamples=200, contexts=CONTEXTS, clusters=np.arange(ITEMS + 1)
    )
    found = [evaluate([drawn(seed)], [Shown()], USERS, ITEMS, settings)[0] for seed in range(300)]
    estimates = [one["offcem"] for one in found]
    values = np.array([one.value for one in estimates])
    assert values.mean() == pytest.approx(value, abs=4 * values.std() / 300**0.5)
    for method in ("delta", "bootstrap"):
        held = np.mean([one.interval(method).covers(value) for one in estimates])
        assert 0.90 <= held <= 0.985, method
    words = [one.word for one in estimates]
    assert set(words) <= {"weak", "unusable"}
    assert words.count("weak") > 200
    assert "errs alike on all items of a cluster" in estimates[0].reasons[-1]


def test_a_cluster_that_the_log_cannot_show_is_found_out() -> None:
    rounds = drawn(0)
    rounds = rounds.rows((CLUSTER[rounds.item] != CLUSTER[TARGET[rounds.context, :1]]).all(axis=1))
    settings = ReplaySettings(("offcem",), resamples=50, contexts=CONTEXTS, clusters=CLUSTER)
    (found,) = evaluate([rounds], [Shown()], USERS, ITEMS, settings)
    assert found["offcem"].word == "unusable"
    assert "0 logged rounds agree" in found["offcem"].reasons[0]


def test_half_a_cluster_that_is_withheld_lowers_the_mean_weight() -> None:
    rounds = drawn(1)
    rounds = rounds.rows(~np.isin(rounds.item[:, 0], (1, 3)))
    settings = ReplaySettings(("offcem",), resamples=50, contexts=CONTEXTS, clusters=CLUSTER)
    (found,) = evaluate([rounds], [Shown()], USERS, ITEMS, settings)
    assert found["offcem"].word == "unusable"
    assert any("mean weight" in reason for reason in found["offcem"].reasons)


def test_it_is_refused_without_clusters_or_propensities() -> None:
    bare = ReplaySettings(("offcem",), resamples=50, contexts=CONTEXTS)
    (found,) = evaluate([drawn(0)], [Shown()], USERS, ITEMS, bare)
    assert "no clusters" in (found["offcem"].refused or "")
    one = drawn(0)
    unknown = Rounds(
        one.user, one.day, one.t, one.row, one.position, one.item, one.reward,
        np.full(one.item.shape, np.nan), "unknown", one.context,
    )  # fmt: skip
    settings = ReplaySettings(("offcem",), resamples=50, contexts=CONTEXTS, clusters=CLUSTER)
    (found,) = evaluate([unknown], [Shown()], USERS, ITEMS, settings)
    assert "propensities are unknown" in (found["offcem"].refused or "")


def test_vectors_that_point_the_same_way_stand_together() -> None:
    """Three bundles of directions, of any lengths."""
    random = np.random.Generator(np.random.Philox(key=96))
    bundle = random.integers(0, 3, 60)
    near = np.eye(3)[bundle] + random.normal(0, 0.1, (60, 3))
    found = spherical_clusters(near * random.uniform(0.1, 9, (60, 1)), 3, random.uniform(size=60))
    pairs = (found[:, None] == found) == (bundle[:, None] == bundle)
    assert pairs.all()
    assert (spherical_clusters(near, 1, np.zeros(60)) == 0).all()


def two_halves(path: Path) -> Path:
    """A log in which half of the users click on the first ten items, the others on the rest."""
    random = np.random.Generator(np.random.Philox(key=97))
    user = np.repeat(np.arange(200), 60)
    item = random.integers(1, 21, len(user))
    liked = (item <= 10) == (user < 100)
    columns = {
        "user": user,
        "session": np.tile(np.arange(60), 200),
        "request": np.zeros_like(user),
        "position": np.zeros_like(user),
        "t": np.tile(np.arange(60), 200) * 3_600_000 * 4 - 8 * 86_400_000,
        "item": item,
        "click": (random.uniform(size=len(user)) < np.where(liked, 0.8, 0.02)).astype(np.int8),
        "propensity": np.full(len(user), 1 / 20),
    }
    metadata = Metadata(("history",), 200, 20, propensity="conditional")
    return EventLog.from_columns(columns, metadata).write(path)


def test_clusters_by_item_vectors_on_the_command_line(tmp_path: Path) -> None:
    log = two_halves(tmp_path / "log.parquet")
    wanted = [str(log), "--policy", "itemknn", "--resamples", "100", "--quiet"]
    asked = [*wanted, "--estimators", "mips,offcem", "--out", str(tmp_path / "out")]
    bpr = "bpr:{width: 4, training: {epochs: 20, patience: 0}}:2"
    done = CliRunner().invoke(command, [*asked, "--clusters", bpr])
    assert done.exit_code == 0, done.output
    for by, rule in (
        ("popularity:2", "has no item vectors"),
        ("bpr:0", "the number of clusters must be 1 or more"),
        ("kind", "it must be a column of whole numbers"),
    ):
        done = CliRunner().invoke(command, [*wanted, "--clusters", by])
        assert (done.exit_code, rule in done.output) == (2, True), done.output


def test_clusters_by_item_vectors_find_who_is_liked_together(tmp_path: Path) -> None:
    from policies.base import Catalogue, Fitting
    from simulator.offpolicy.jobs import _clusters
    from simulator.offpolicy.target_fits import Lesson

    log = EventLog.open(two_halves(tmp_path / "log.parquet"))
    lesson, catalogue = Lesson(log.sequences(), 3), Catalogue(200, 20)
    bpr = "bpr:{width: 4, training: {epochs: 30, patience: 0}}:2"
    found = _clusters(catalogue, bpr, lesson, Fitting(3, "cpu"))
    assert found is not None
    assert (found[0], sorted(set(found[1:].tolist()))) == (0, [1, 2])
    assert len(set(found[1:11].tolist())) == len(set(found[11:].tolist())) == 1
