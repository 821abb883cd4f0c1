"""A replay as a whole: which estimators run, invariance to chunks, refusals, verdicts, the result's
files and the command.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from policies.base import Catalogue, Fitting, Histories, silent
from policies.explore import Explore
from policies.popularity import Popularity
from policies.time import DAY
from simulator.cli.replay import replay as command
from simulator.log.eventlog import EventLog
from simulator.log.metadata import LogError, Metadata
from simulator.offpolicy.diagnostics import Weights
from simulator.offpolicy.evidence import Evidence
from simulator.offpolicy.jobs import ReplayOptions, replay_log, training
from simulator.offpolicy.replay import (
    ESTIMATORS,
    Evaluation,
    ReplayError,
    ReplaySettings,
    evaluate,
)
from simulator.offpolicy.replay_page import _days, save
from simulator.offpolicy.result import as_json, gather
from simulator.offpolicy.rounds import Rounds, Stream
from simulator.offpolicy.scores import orderings
from simulator.offpolicy.target import PolicyTargets, Target, alone, apart
from simulator.offpolicy.target_fits import Wanted

USERS, ITEMS = 300, 8
CANDIDATES = ("candidate_ips", "candidate_snips", "candidate_dr")
QUICK = ReplaySettings(resamples=60)


def made_log(kind: str = "conditional", places: int = 2, seed: int = 1, days: int = 6) -> EventLog:
    """Plackett-Luce slates over `ITEMS` items, or single items with marginal propensities; popular
    items are clicked more.
    """
    random = np.random.Generator(np.random.Philox(key=[2, seed]))
    weight = np.linspace(1, 3, ITEMS)
    n = USERS * days
    slates = (random.exponential(size=(n, ITEMS)) / weight).argsort(axis=1)[:, :places]
    chosen = weight[slates]
    propensity = chosen / (
        weight.sum() - np.concatenate((np.zeros((n, 1)), chosen.cumsum(axis=1)[:, :-1]), axis=1)
    )
    click = random.uniform(size=slates.shape) < 0.1 + 0.05 * slates
    flat = lambda values: np.repeat(values, places)  # noqa: E731
    user, day = np.repeat(np.arange(USERS), days), np.tile(np.arange(days), USERS)
    return EventLog.from_columns(
        {
            "user": flat(user),
            "session": flat(day),
            "request": flat(np.zeros(n, dtype=int)),
            "position": np.tile(np.arange(places), n),
            "t": flat(day * DAY - (days - 2) * DAY),
            "item": slates.ravel() + 1,
            "click": click.ravel().astype(np.int8),
            "propensity": None if kind == "unknown" else propensity.ravel(),
            "watch": click.ravel() * 7.5,
        },
        Metadata(("history",), USERS, ITEMS, kind),  # type: ignore[arg-type]
    )


class Uniform:
    """A target that draws uniformly without replacement."""

    name = "uniform"

    def __call__(self, rounds: Rounds) -> Target:
        left = np.ones((len(rounds), rounds.length, ITEMS + 1))
        left[:, :, 0] = 0
        for place in range(1, rounds.length):
            left[np.arange(len(rounds))[:, None], place, rounds.item[:, :place]] = 0
        given = left / left.sum(axis=2, keepdims=True)
        drawn = (np.arange(rounds.length) + rounds.row[:, None]) % ITEMS + 1
        return Target(
            1 / (ITEMS - np.arange(rounds.length)) * np.ones_like(rounds.reward),
            drawn[:, None, :],
            None,
            given,
        )


class Never:
    """A target whose items the log never shows at their places."""

    name = "never"

    def __call__(self, rounds: Rounds) -> Target:
        return Target(
            np.zeros(rounds.item.shape),
            np.zeros((len(rounds), 1, rounds.length), dtype=np.int64),
            deterministic=True,
        )


def ran(found: Evaluation) -> set[str]:
    return {e.estimator for e in found.estimates if e.refused is None}


@pytest.mark.parametrize(
    ("kind", "places", "expected"),
    [
        (
            "conditional",
            2,
            {
                "matching",
                "ips",
                "clipped_ips",
                "snips",
                "dm",
                "dr",
                "sndr",
                "switch_dr",
                "shrunk_dr",
                "rips",
                "cascade_dr",
                *CANDIDATES,
            },
        ),
        (
            "marginal",
            1,
            {
                "matching",
                "ips",
                "clipped_ips",
                "snips",
                "dm",
                "dr",
                "sndr",
                "switch_dr",
                "shrunk_dr",
            },
        ),
        ("marginal", 2, {"matching", "dm", "iips", "pseudo_inverse", *CANDIDATES}),
        ("unknown", 2, {"matching", "cips", "cdr"}),
    ],
)
def test_the_kind_of_propensities_decides_which_estimators_run(
    kind: str, places: int, expected: set[str]
) -> None:
    log = made_log(kind, places)
    (found,) = evaluate(Stream(log), [Uniform()], USERS, ITEMS, QUICK)
    assert ran(found) == expected
    assert all(e.refused for e in found.estimates if e.estimator not in expected)
    assert {e.estimator for e in found.estimates} == set(ESTIMATORS)


def test_uniform_slates_are_seen_and_open_the_pseudo_inverse() -> None:
    log = made_log(places=2)
    table = log.table.to_pydict()
    columns = {
        name: np.array(table[name])
        for name in ("user", "session", "request", "position", "t", "item")
    }
    columns["propensity"] = np.where(columns["position"] == 0, 1 / ITEMS, 1 / (ITEMS - 1))
    columns["click"] = np.array(table["click"]).astype(np.int8)
    uniform = EventLog.from_columns(columns, log.metadata)
    (found,) = evaluate(Stream(uniform), [Uniform()], USERS, ITEMS, QUICK)
    assert "pseudo_inverse" in ran(found)
    assert found.facts.uniform
    assert found["pseudo_inverse"].value == pytest.approx(found.logged.value, rel=0.2)


def test_the_value_of_a_target_is_found_on_a_simulated_log() -> None:
    """Truth: uniform slates are clicked .1 + .05 * mean(0..7) = .275 a place."""
    (found,) = evaluate(Stream(made_log(places=2, days=30)), [Uniform()], USERS, ITEMS, QUICK)
    for name in ("ips", "snips", "dr", "sndr", "rips", "cascade_dr", "dm"):
        estimate = found[name]
        assert abs(estimate.value - 2 * 0.275) < 4 * estimate.error, name
        assert found.logged.value > 2 * 0.275 + 0.02


def test_chunks_and_order_change_nothing_but_rounding() -> None:
    log = made_log(places=2)
    (whole,) = evaluate(Stream(log), [Uniform()], USERS, ITEMS, QUICK)
    (small,) = evaluate(Stream(log, chunk=101), [Uniform()], USERS, ITEMS, QUICK)
    for one, other in zip(whole.estimates, small.estimates, strict=True):
        if one.refused is None:
            assert one.value == pytest.approx(other.value, rel=1e-9), one.estimator
            for mine, theirs in zip(one.intervals, other.intervals, strict=True):
                assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)


def test_folded_units_keep_the_estimate_and_its_error() -> None:
    log = made_log(places=2)
    (apart,) = evaluate(Stream(log), [Uniform()], USERS, ITEMS, QUICK)
    (folded,) = evaluate(Stream(log), [Uniform()], USERS, ITEMS, replace(QUICK, units=64))
    assert folded["rips"].value == pytest.approx(apart["rips"].value, rel=1e-12)
    assert folded["rips"].error == pytest.approx(
        apart["rips"].error, rel=0.35
    )  # sd of a standard error from 64 units: 9%


def test_no_match_is_nan_with_count_0_and_unusable() -> None:
    (found,) = evaluate(Stream(made_log()), [Never()], USERS, ITEMS, QUICK)
    for name in ("matching", "snips"):
        estimate = found[name]
        assert math.isnan(estimate.value)
        assert estimate.count == 0
        assert estimate.intervals == ()
        assert estimate.verdict is not None
        assert estimate.verdict.word == "unusable"
    assert "0 logged impressions agree" in str(found["matching"].verdict)


def test_unknown_propensities_flag_matching() -> None:
    (found,) = evaluate(Stream(made_log("unknown")), [Uniform()], USERS, ITEMS, QUICK)
    assert found.headline.estimator == "matching"
    assert found.headline.verdict is not None
    assert "inherits the logging policy's bias" in str(found.headline.verdict)
    assert "unknown" in str(found["ips"].refused)


@pytest.mark.parametrize("kind", ["unknown", "conditional"])
def test_days_have_weights_only_where_propensities_are_known(kind: str) -> None:
    (found,) = evaluate(Stream(made_log(kind)), [Uniform()], USERS, ITEMS, QUICK)
    days, table = list(found.weights.by_day()), _days(found.weights)
    assert [day.rounds for day in days] == [USERS] * 6
    known = kind != "unknown"
    assert [math.isfinite(day.mean_weight) for day in days] == [known] * 6
    assert [math.isfinite(day.snips) for day in days] == [known] * 6
    heads = [column.head for column in table.columns]
    assert heads[3:] == (["Mean weight", "Self-normalised"] if known else [])
    assert {len(row) for row in table.rows} == {len(heads)}


def test_a_null_propensity_in_a_log_that_says_it_has_them_is_named() -> None:
    log = made_log()
    table = log.table.to_pydict()
    values = np.array(table["propensity"])
    values[7] = np.nan
    wanted = ("user", "session", "request", "position", "t", "item")
    broken = EventLog.from_columns(
        {
            **{n: np.array(table[n]) for n in wanted},
            "propensity": values,
            "click": np.ones(len(values), np.int8),
        },
        log.metadata,
    )
    with pytest.raises(LogError, match=r"log in memory: row 7: propensity is null"):
        evaluate(Stream(broken), [Uniform()], USERS, ITEMS, QUICK)


def test_wrong_propensities_are_found_out_by_the_mean_weight() -> None:
    log = made_log(places=1, kind="marginal")
    table = log.table.to_pydict()
    wanted = ("user", "session", "request", "position", "t", "item")
    halved = EventLog.from_columns(
        {
            **{n: np.array(table[n]) for n in wanted},
            "propensity": np.array(table["propensity"]) / 2,
            "click": np.array(table["click"]).astype(np.int8),
        },
        log.metadata,
    )
    (found,) = evaluate(Stream(halved), [Uniform()], USERS, ITEMS, QUICK)
    assert found.mean_weight.low > 1.5
    assert found["ips"].verdict is not None
    assert found["ips"].verdict.word == "unusable"
    assert "should be 1" in str(found["ips"].verdict)
    assert found["snips"].value == pytest.approx(
        evaluate(Stream(log), [Uniform()], USERS, ITEMS, QUICK)[0]["snips"].value, rel=1e-6
    )


def test_unobserved_rewards_are_left_out_and_counted() -> None:
    log = made_log(places=2)
    table = log.table.to_pydict()
    click = np.array(table["click"]).astype(np.int8)
    click[:10] = -1
    wanted = ("user", "session", "request", "position", "t", "item", "propensity")
    partly = EventLog.from_columns(
        {**{n: np.array(table[n]) for n in wanted}, "click": click}, log.metadata
    )
    (found,) = evaluate(Stream(partly), [Uniform()], USERS, ITEMS, QUICK)
    assert found.unobserved == 5
    assert found.weights.rounds == USERS * 6 - 5


def test_effective_sample_size_and_largest_weights() -> None:
    rounds = next(iter(Stream(made_log(places=1, kind="marginal"))))
    e = Evidence(rounds, Uniform()(rounds))
    summary = Weights(ITEMS)
    for at in range(0, len(rounds), 100):
        part = rounds.rows(slice(at, at + 100))
        one = Evidence(part, Uniform()(part))
        summary.add(one, one.weight)
    w = e.weight
    assert summary.effective == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert [weight for weight, _ in summary.largest] == pytest.approx(sorted(w, reverse=True)[:10])
    assert summary.coverage == 1.0
    drawn = Uniform()(rounds).slates[:, 0]
    matched = np.count_nonzero(drawn == rounds.item)
    assert summary.matched_impressions == matched
    assert summary.share_of_impressions_matched == matched / len(rounds)


def test_weights_of_a_log_add_up_whatever_its_chunks() -> None:
    """Two places of items that another policy ranks: sums over impressions, slates and days."""
    rounds = next(iter(Stream(made_log())))
    whole = Evidence(rounds, Uniform()(rounds))
    weight, reward = whole.weight, whole.total
    summary = Weights(ITEMS)
    for at in range(0, len(rounds), 250):
        part = rounds.rows(slice(at, at + 250))
        summary.add(Evidence(part, _rows(whole.target, at)), weight[at : at + 250])
    n = len(rounds)
    assert (summary.rounds, summary.impressions) == (n, 2 * n)
    assert (summary.total, summary.mean) == pytest.approx((weight.sum(), weight.mean()))
    assert summary.effective_share == pytest.approx(weight.sum() ** 2 / (weight**2).sum() / n)
    running = whole.running
    assert summary.effective_by_place == pytest.approx(
        running.sum(axis=0) ** 2 / (running**2).sum(axis=0)
    )
    assert summary.events == np.count_nonzero((weight > 0) & (reward != 0)) < n
    assert summary.matched_rounds == np.count_nonzero(weight > 0)
    assert summary.share_of_rounds_matched == summary.matched_rounds / n
    same = (whole.target.slates == rounds.item[:, None, :]).mean(axis=1)
    assert summary.share_of_impressions_matched == pytest.approx(same.mean())
    for row in summary.by_day():
        own = rounds.day == row.day
        assert row.rounds == own.sum()
        assert row.logged == pytest.approx(reward[own].mean())
        assert row.mean_weight == pytest.approx(weight[own].mean())
        assert row.snips == pytest.approx((weight * reward)[own].sum() / weight[own].sum())
    assert len(list(summary.by_day())) == 6
    nothing = Weights(ITEMS)
    assert nothing.effective == nothing.effective_share == nothing.mean == 0.0
    assert nothing.share_of_rounds_matched == nothing.share_of_impressions_matched == 0.0
    assert math.isnan(nothing.coverage)


def _rows(target: Target, at: int) -> Target:
    """The 250 rounds of a target from one on."""
    here = slice(at, at + 250)
    fields = {name: getattr(target, name) for name in target.__dataclass_fields__}
    cut = {name: one[here] for name, one in fields.items() if isinstance(one, np.ndarray)}
    return replace(target, **cut)


def test_a_policy_is_asked_with_what_came_before_and_fitted_on_the_past_only() -> None:
    log = made_log(places=2)
    job = replay_log(
        "made", log, [Wanted.parse("popularity")], ReplayOptions(history=6, recall=3), silent
    )
    assert job.stream.since == 0
    assert int(training(log, "history", 0, None).t.max()) < 0
    assert int(training(log, "history", 0, 1).t.min()) >= -DAY
    (found,) = evaluate(job.stream, job.targets, USERS, ITEMS, QUICK)
    assert found.weights.rounds == USERS * 2
    assert found["recalled"].count > found["matching"].count > 0
    target = job.targets[0](next(iter(job.stream)))
    assert target.recalled is not None
    assert target.deterministic
    np.testing.assert_array_equal(target.slates[:, 0], target.recalled[:, :2])


def test_a_target_shares_no_random_numbers_with_the_log_of_its_seed() -> None:
    """Two independent draws from one law agree with the sum of its squared probabilities; with the
    log's seed they always do.
    """
    n = 4000
    popular = Popularity().fit(made_log(places=2).sequences(), Catalogue(USERS, ITEMS), Fitting())
    explore = Explore(temperature=1.0, epsilon=0.6, pool=ITEMS).over(popular, ITEMS)
    nothing = np.zeros((n, 1), dtype=np.int64)
    histories = Histories(np.arange(n), nothing[:, 0], nothing, nothing > 0, nothing)
    logged = explore.recall(histories, 1, 7).items
    law = np.array(
        [
            float(explore.slate_propensities(histories.rows([0]), np.array([[item]]), 7)[0, 0])
            for item in range(1, ITEMS + 1)
        ]
    )
    want = float(np.square(law).sum())
    assert law.sum() == pytest.approx(1)
    assert want < 0.9
    assert (explore.recall(histories, 1, 7).items == logged).all()
    agreed = float((explore.recall(histories, 1, apart(7)).items == logged).mean())
    assert agreed == pytest.approx(want, abs=4 * np.sqrt(want * (1 - want) / n))


def test_policy_targets_do_not_depend_on_their_block() -> None:
    log = made_log(places=2)
    stream = Stream(log, history=6)
    policy = Popularity().fit(log.sequences(), Catalogue(USERS, ITEMS), Fitting())
    rounds = next(iter(stream))
    desk = alone("p", policy, ITEMS, 4)
    one, other = (PolicyTargets("p", desk, block=block)(rounds) for block in (7, 4096))
    np.testing.assert_array_equal(one.slates, other.slates)
    np.testing.assert_array_equal(one.probability, other.probability)


@pytest.mark.parametrize(
    "text", ["explore:{policy: popularity, temperature: 0.2, epsilon: 0.3, pool: 3}", "random"]
)
def test_a_stochastic_policy_says_what_it_expects_after_the_logged_items(text: str) -> None:
    log = made_log(places=2)
    job = replay_log("made", log, [Wanted.parse(text)], ReplayOptions(history=2), silent)
    rounds = next(iter(job.stream))
    (target,) = job.targets
    assert isinstance(target, PolicyTargets)
    values = np.random.Generator(np.random.Philox(key=4)).normal(size=(3, ITEMS + 1))
    rows = (rounds.row[:, None] + np.arange(2)) % 3
    want = np.zeros(rounds.item.shape)
    for item in range(1, ITEMS + 1):
        for place in range(2):
            asked = rounds.item.copy()
            asked[:, place] = item
            want[:, place] += (
                target.desk.recall.policy.slate_propensities(rounds.histories, asked, 1)[:, place]
                * values[rows[:, place], item]
            )  # type: ignore[attr-defined]
    reached = np.column_stack(
        (np.ones(len(rounds), dtype=bool), target(rounds).probability[:, 0] > 0)
    )
    for block in (7, 4096):
        found = replace(target, block=block)(rounds).expects(values, rows)
        np.testing.assert_allclose(found[reached], want[reached], atol=1e-6)
    assert reached[:, 1].mean() > 0.3
    (said,) = evaluate(job.stream, job.targets, USERS, ITEMS, QUICK)
    assert "cascade_dr" in ran(said)


class Closed:
    """A stochastic target that gives the probability of the logged slate and drawn slates, and no
    more.
    """

    name = "closed"

    def __call__(self, rounds: Rounds) -> Target:
        whole = Uniform()(rounds)
        return Target(whole.probability, whole.slates)


def test_cascade_dr_says_why_it_refuses_a_policy_that_cannot_say_what_it_expects() -> None:
    (found,) = evaluate(Stream(made_log()), [Closed()], USERS, ITEMS, QUICK)
    assert "after the logged items above it: the policy has no `slate_expectations`" in str(
        found["cascade_dr"].refused
    )
    assert found["rips"].refused is None


@pytest.mark.parametrize(
    ("text", "name", "params"),
    [
        ("popularity", "popularity", {}),
        ("comirec:width=32,loss=bce", "comirec", {"width": 32, "loss": "bce"}),
        ("mine.py:Mine", "mine.py:Mine", {}),
        ("mine.py:Mine:alpha=.5", "mine.py:Mine", {"alpha": 0.5}),
        (
            "explore:{policy: itemknn, temperature: 0.5}",
            "explore",
            {"policy": "itemknn", "temperature": 0.5},
        ),
    ],
)
def test_a_policy_on_the_command_line(text: str, name: str, params: dict[str, object]) -> None:
    wanted = Wanted.parse(text)
    assert (wanted.name, wanted.params, wanted.label) == (name, params, text)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--policy", "itemknn:neighbours=9,neighbours=3"], "neighbours: given twice"),
        (["--policy", "explore:{policy: itemknn, policy: ease}"], "policy: given twice"),
        (["--policy", "popularity", "--seed", "-1"], "-1 is not in the range"),
        (["--policy", "popularity", "--resamples", "1"], "100<=x<=1000000"),
        (["--policy", "popularity", "--reward", "click,click"], "'click' is there twice"),
        (["--policy", "popularity", "--estimators", "ips,,dm"], "names with commas between"),
    ],
)
def test_what_is_asked_in_vain_is_refused(tmp_path: Path, arguments: list[str], rule: str) -> None:
    made_log().write(tmp_path / "log.parquet")
    done = CliRunner().invoke(command, [str(tmp_path / "log.parquet"), *arguments])
    assert done.exit_code == 2
    assert rule in done.output


def test_a_list_among_parameters_is_one_value() -> None:
    assert Wanted.parse("mine.py:Mine:sizes=[1,2],dim=3").params == {"sizes": [1, 2], "dim": 3}


def test_orderings_against_pairs_counted_by_hand() -> None:
    log = made_log(places=2)
    policy = Popularity().fit(log.sequences(), Catalogue(USERS, ITEMS), Fitting())
    sessions = Stream(log, history=4, by="session")
    (found,) = orderings(sessions, [("popularity", [policy])], USERS)
    right = pairs = 0.0
    per_user: dict[int, list[float]] = {}
    for rounds in sessions:
        assert rounds.histories is not None
        scores = policy.score(rounds.histories, rounds.item)
        for user, s, r in zip(rounds.user, scores, rounds.reward, strict=True):
            for i in np.flatnonzero(r == 1):
                for j in np.flatnonzero(r == 0):
                    win = 1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0
                    right, pairs = right + win, pairs + 1
                    per_user.setdefault(int(user), [0, 0, 0])
                    per_user[int(user)][0] += win
                    per_user[int(user)][1] += 1
    assert found.auc is not None
    assert found.gauc is not None
    assert found.ndcg is not None
    assert found.auc[0] == pytest.approx(right / pairs)
    assert 0.5 < found.auc[0] < 1
    assert found.ndcg[0] > 0.5
    assert found.gauc[0] == pytest.approx(
        np.average(
            [a / b for a, b, _ in per_user.values()], weights=[b for _, b, _ in per_user.values()]
        )
    )


@pytest.mark.parametrize(("kind", "places"), [("conditional", 2), ("marginal", 1)])
def test_a_uniform_draw_is_recognised_by_its_propensities(kind: str, places: int) -> None:
    log = made_log(kind, places)
    place = log.table.column_names.index("propensity")
    # One seventh is no number of 32 bits: it is recognised all the same.
    drawn = pa.array(1 / (ITEMS - 1 - log.table["position"].to_numpy()), pa.float32())
    uniform = EventLog(log.metadata, log.table.set_column(place, "propensity", drawn))
    for one, expected in ((log, False), (uniform, True)):
        (found,) = evaluate(
            Stream(one), [Uniform()], USERS, ITEMS, ReplaySettings(("ips",), resamples=9)
        )
        assert found.facts.uniform is expected


def test_self_normalised_estimates_do_not_depend_on_the_scale_of_the_weights() -> None:
    """Half the propensities are twice the weights: what divides by their sum is the same, with its
    error.
    """
    log = made_log(places=1, kind="marginal")
    half = pc.multiply(log.table["propensity"].cast("float64"), 0.5).cast("float32")
    place = log.table.column_names.index("propensity")
    halved = EventLog(log.metadata, log.table.set_column(place, "propensity", half))
    settings = ReplaySettings(("snips", "sndr"), resamples=60)
    once, twice = (
        {
            e.estimator: e
            for e in evaluate(Stream(one), [Uniform()], USERS, ITEMS, settings)[0].estimates
        }
        for one in (log, halved)
    )
    for name in ("snips", "sndr"):
        assert twice[name].value == pytest.approx(once[name].value, rel=1e-6)
        assert twice[name].error == pytest.approx(once[name].error, rel=1e-6)


def test_an_estimate_is_held_against_the_truth_where_there_is_one() -> None:
    job = replay_log(
        "made", made_log(), [Wanted.parse("popularity")], ReplayOptions(recall=3), silent
    )
    own = replace(job.stream, log=made_log(seed=5))
    job = replace(job, truths={job.targets[0].name: own})
    found = evaluate(job.stream, job.targets, USERS, ITEMS, QUICK)
    (policy,) = as_json(gather(job, found))["policies"]
    mean, error = policy["truth"]["value"], policy["truth"]["error"]
    assert mean == pytest.approx(np.concatenate([r.reward.sum(axis=1) for r in own]).mean())
    held = [one for one in policy["estimates"] if one.get("relative") is not None]
    assert len(held) > 3
    for one in held:
        assert one["relative"] == pytest.approx(one["value"] / mean - 1)
        assert one["z"] == pytest.approx((one["value"] - mean) / np.hypot(one["error"], error))
        assert one["covered"] == (one["low"] <= mean <= one["high"])


def test_the_result_is_plain_and_the_page_stands_alone(tmp_path: Path) -> None:
    job = replay_log(
        "made <log>",
        made_log(places=2),
        [Wanted.parse("popularity")],
        ReplayOptions(history=6, recall=3),
        silent,
    )
    found = evaluate(job.stream, job.targets, USERS, ITEMS, QUICK)
    result = gather(job, found, orderings(replace(job.stream, by="session"), job.policies, USERS))
    page = save([result], tmp_path)
    assert json.loads((tmp_path / "replay.json").read_text()) == json.loads(
        json.dumps([as_json(result)])
    )
    html = page.read_text()
    assert "made &lt;log&gt;" in html
    assert "http" not in html.replace("http-equiv", "")
    text = (tmp_path / "replay.md").read_text()
    assert "did not run" in text
    assert r"cascade\_dr |" in text
    assert "Grouped AUC".lower() in text.lower()
    side_by_side = "The estimate to read first of each policy"
    assert side_by_side not in text  # nothing to compare one policy with
    (one,) = result.evaluations
    save([replace(result, evaluations=(one, replace(one, policy="another")))], tmp_path)
    assert side_by_side in (tmp_path / "replay.md").read_text()


def test_days_drift_by_the_spread_of_their_precisely_weighted_means() -> None:
    """Cochran's Q of three days: rounds, sum of rewards, of their squares."""
    rewards = [np.array([0.0, 1, 1, 0, 1]), np.array([0.0, 0, 0, 1]), np.array([1.0, 1, 0])]
    weights = Weights(ITEMS)
    for day, reward in enumerate(rewards):
        weights.days[day] = np.array([len(reward), reward.sum(), np.square(reward).sum(), 1, 1])
    means = np.array([reward.mean() for reward in rewards])
    precision = np.array([len(reward) - 1 for reward in rewards]) / np.array(
        [reward.var() for reward in rewards]
    )
    middle = np.average(means, weights=precision)
    chi, _ = weights.drift()
    assert chi == pytest.approx((precision * np.square(means - middle)).sum())


def test_the_command_on_a_log(tmp_path: Path) -> None:
    made_log(places=2).write(tmp_path / "log.parquet")
    arguments = [
        str(tmp_path / "log.parquet"),
        "--policy",
        "popularity",
        "--recall",
        "4",
        "--history",
        "6",
        "--resamples",
        "100",
    ]
    done = CliRunner().invoke(
        command, [*arguments, "--reward", "click,watch", "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "out" / "replay.json").read_text())
    assert [one["reward"] for one in results] == ["click", "watch"]
    assert results[1]["logged"]["value"] == pytest.approx(
        7.5 * results[0]["logged"]["value"], rel=1e-5
    )
    assert done.output.splitlines()[-1] == str(tmp_path / "out" / "replay.html")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([], "no policy to evaluate"),
        (["--policy", "popularty"], "did you mean 'popularity'"),
        (["--policy", "popularity", "--estimators", "ipss"], "no estimator 'ipss'"),
        (["--policy", "popularity", "--reward", "like"], "reward 'like': the log has"),
        (["--policy", "popularity", "--arm", "x"], "no arm 'x'"),
        (
            ["--policy", "popularity", "--policy", "popularity"],
            "policy 'popularity' is there twice",
        ),
        (["--policy", "explore:{policy: ["], "its parameters:1: not YAML"),
        (["--policy", "popularity", "--history", "0"], "0 is not in the range x>=1"),
        (["--policy", "popularity", "--contexts", "0"], "0 is not in the range x>=1"),
        (["--policy", "popularity", "--recall", "-3"], "-3 is not in the range x>=0"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, change: list[str], message: str) -> None:
    made_log(places=1).write(tmp_path / "log.parquet")
    done = CliRunner().invoke(command, [str(tmp_path / "log.parquet"), "--quiet", *change])
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output


def test_broken_bytes_and_a_missing_propensity_are_named_by_file(tmp_path: Path) -> None:
    good = made_log(places=2).write(tmp_path / "log.parquet")
    whole = bytearray(good.read_bytes())
    whole[2000:2400] = b"\xff" * 400
    (tmp_path / "broken.parquet").write_bytes(bytes(whole))
    table = pq.read_table(good)
    values = table["propensity"].to_pylist()
    last = len(values) - 1  # the last day, which is replayed
    values[last] = None
    at = table.schema.get_field_index("propensity")
    lacking = table.set_column(at, table.schema.field(at), pa.array(values, pa.float32()))
    pq.write_table(lacking, tmp_path / "lacking.parquet")
    for name, words in (
        ("broken", "not a readable Parquet file"),
        ("lacking", f"row {last}: propensity is null"),
    ):
        file = tmp_path / f"{name}.parquet"
        done = CliRunner().invoke(command, [str(file), "--policy", "popularity", "--quiet"])
        assert (done.exit_code, words in done.output, str(file) in done.output) == (
            2,
            True,
            True,
        ), done.output


def test_the_page_has_a_row_with_the_paper_of_every_estimator() -> None:
    page = (Path(__file__).parents[1] / "docs/offpolicy.md").read_text(encoding="utf-8")
    for name, (first, *_) in ESTIMATORS.items():
        rows = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE)
        (row,) = (one for one in rows if len(one.strip("|").split("|")) == 5)
        author = re.split(r"[ ,]", first.paper)[0]
        assert author in row, (row, first.paper)


def test_settings_name_an_unknown_estimator() -> None:
    with pytest.raises(ReplayError, match="no estimator 'xyz'"):
        ReplaySettings(("xyz",))


@pytest.mark.data
def test_kuairand_by_what_needs_no_propensities_and_flagged(
    data_root: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        command,
        [
            str(data_root / "kuairand"),
            "--policy",
            "popularity",
            "--out",
            str(tmp_path),
            "--quiet",
            "--resamples",
            "100",
        ],
    )
    assert done.exit_code == 0, done.output
    (result,) = json.loads((tmp_path / "replay.json").read_text())
    (policy,) = result["policies"]
    names = {row["estimator"] for row in policy["estimates"] if row["refused"] is None}
    assert names == {"matching", "recalled", "cips", "cdr"}
    assert result["propensity"] == "unknown"
    assert policy["verdict"] == "weak"
    assert any("inherits the logging policy's bias" in reason for reason in policy["reasons"])
    recalled = next(row for row in policy["estimates"] if row["estimator"] == "recalled")
    assert recalled["count"] > 1000
    assert (
        recalled["low"] > result["logged"]["high"]
    )  # popular videos are clicked more than the feed as a whole
    (order,) = result["orders"]
    assert order["sessions"] > 1000
    assert order["gauc"]["low"] > 0.5


class Elsewhere:
    """A target that shows item 1 half of the time, and an item that the log never shows else."""

    name = "elsewhere"

    def __call__(self, rounds: Rounds) -> Target:
        share = np.full((len(rounds), 2), 0.5)
        slates = np.broadcast_to(np.array([[1], [ITEMS]]), (len(rounds), 2, 1))
        return Target(0.5 * (rounds.item == 1), slates, share)


def test_what_the_log_never_shows_is_said() -> None:
    log = made_log(places=1, kind="marginal", days=20)
    table = log.table.to_pydict()
    kept = np.array(table["item"]) != ITEMS
    wanted = ("user", "session", "request", "position", "t", "item", "propensity")
    columns = {name: np.array(table[name])[kept] for name in wanted} | {
        "click": np.array(table["click"])[kept].astype(np.int8)
    }
    (found,) = evaluate(
        Stream(EventLog.from_columns(columns, log.metadata)), [Elsewhere()], USERS, ITEMS, QUICK
    )
    assert found.weights.coverage == pytest.approx(0.5)
    assert "the log shows only 50% of what the target shows" in str(found["ips"].verdict)
    assert found.mean_weight.high < 0.8  # half of the target's showing has no support
