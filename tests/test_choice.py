"""The synthetic users against theory: what a mechanism says must be what is simulated, and off must
mean off.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.base import Histories, Slates
from policies.explore import Explore
from policies.streams import Purpose, philox
from policies.time import DAY
from simulator.users.choice import Choice, Oracle, Production
from simulator.users.choice import kernel as compiled
from simulator.users.choice.parameters import HOURS, Reaction, Reactions
from simulator.users.choice.people import People

OFF = {
    name: {"enabled": False}
    for name in (
        "examination",
        "cascade",
        "satiation",
        "drift",
        "focus",
        "patience",
        "diurnal",
        "returning",
    )
}

FLAT = {
    "base": 0.0,
    "user": 0.0,
    "activity": 0.0,
    "quality": 0.0,
    "match": 0.0,
    "author": 0.0,
    "taste": 0.0,
    "duration": {"30.0": 0.0},
}
"""Everybody likes everything alike."""


def world(n_users: int = 400, n_items: int = 300, seed: int = 5, **parameters: Any) -> People:
    choice = Choice.model_validate({"n_users": n_users, "n_items": n_items, **parameters})
    return choice.build(choice.source(seed), seed, 5, Path())


def slates(items: np.ndarray) -> Slates:
    return Slates(items, np.zeros(items.shape, dtype=np.float32))


def some(people: People, k: int = 6, salt: int = 0) -> np.ndarray:
    rng = np.random.default_rng(salt)
    return rng.permuted(np.tile(np.arange(1, people.n_items + 1), (people.n_users, 1)), axis=1)[
        :, :k
    ]


def ask(people: People, steps: int, k: int = 6, salt: int = 0) -> list[Any]:
    """The answers of everybody to `steps` requests, each made when the user is due."""
    everybody, clock, answers = (
        np.arange(people.n_users),
        people.first(np.arange(people.n_users)),
        [],
    )
    for step in range(steps):
        answers.append(
            people.respond(
                everybody,
                np.full(people.n_users, step),
                clock,
                slates(some(people, k, salt * 1000 + step)),
            )
        )
        clock = answers[-1].next
    return answers


def close(observed: float, expected: float, se: float, z: float = 4.0) -> bool:
    return abs(observed - expected) <= z * se


def test_a_session_has_a_geometric_number_of_requests_when_nothing_moves_patience() -> None:
    leave = 0.3
    people = world(2000, **OFF | {"patience": {"enabled": False, "leave": leave}})
    leaves = np.array([answer.leaves for answer in ask(people, 12)])
    n, p = leaves.size, leaves.mean()
    assert close(p, leave, np.sqrt(leave * (1 - leave) / n))
    lengths = np.diff(
        np.flatnonzero(leaves.T.ravel())
    )  # users one after the other: a run across users is geometric as well
    assert close(lengths.mean(), 1 / leave, np.sqrt((1 - leave) / leave**2 / len(lengths)))
    assert close((lengths == 1).mean(), leave, np.sqrt(leave * (1 - leave) / len(lengths)))


def test_patience_follows_its_logit() -> None:
    people = world(
        3000,
        **OFF
        | {
            "patience": {"leave": 0.4, "satisfaction": 2.0, "reference": 0.5},
            "affinity": {"base": 1.0},
        },
    )
    answers = ask(people, 3, k=2)  # of two videos, all or none are often long views
    for share in (0.0, 1.0):
        here = np.concatenate(
            [a.leaves[a.kinds["long_view"].mean(axis=1) == share] for a in answers]
        )
        odds = 0.4 / 0.6 * np.exp(-2.0 * (share - 0.5))
        expected = odds / (1 + odds)
        assert len(here) > 100
        assert close(here.mean(), expected, np.sqrt(expected * (1 - expected) / len(here)))


def test_clicks_are_binomial_at_the_logit_of_the_world() -> None:
    people = world(2000, affinity=FLAT | {"base": -0.4}, **OFF)
    clicks = np.concatenate([answer.click.ravel() for answer in ask(people, 5)])
    p = 1 / (1 + np.exp(0.4))
    assert close(clicks.mean(), p, np.sqrt(p * (1 - p) / len(clicks)))
    per_request = np.concatenate(
        [
            answer.click.sum(axis=1)
            for answer in ask(world(2000, affinity=FLAT | {"base": -0.4}, **OFF), 5)
        ]
    )
    variance = 6 * p * (1 - p)
    assert close(per_request.var(), variance, variance * np.sqrt(2 / len(per_request)))


def test_authors_and_tags_are_zipf_and_an_author_keeps_to_a_tag() -> None:
    n = 20_000
    videos = {"authors": 50, "tags": 1000, "tag_zipf": 0.0, "author_zipf": 0.7, "off_tag": 0.2}
    truth = world(2, n, videos=videos).world
    share = np.arange(1, 51) ** -0.7 / (np.arange(1, 51) ** -0.7).sum()
    counts = np.bincount(truth.author[1:], minlength=50) / n
    assert (np.abs(counts - share) <= 4 * np.sqrt(share / n)).all()
    author, tag = truth.author[1:], truth.tag[1:]
    main = np.array([np.bincount(tag[author == a]).argmax() for a in range(50)])
    assert close(
        (tag == main[author]).mean(), 0.8, np.sqrt(0.16 / n), z=5.0
    )  # an off-tag video meets the main tag once in a thousand


def test_a_video_lies_near_its_tag_and_its_author() -> None:
    """`tag's centre + author's deviation + its own`, at unit length: with both lengths 0 it is the
    centre, with one of them a cosine.
    """
    for spread, author_spread in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5)):
        truth = world(2, 500, videos={"spread": spread, "author_spread": author_spread}).world
        place, centre = truth.place[1:], truth.centres[truth.tag[1:]]
        assert np.allclose((place**2).sum(axis=1), 1)
        cosine = (place * centre).sum(axis=1)
        away = max(spread, author_spread)
        assert (
            cosine >= np.sqrt(1 - away**2) - 1e-9
        ).all()  # nearest direction to 1 at a distance of at most `away`
        assert (cosine.min() > 1 - 1e-9) == (away == 0)
    same = world(2, 500, videos={"spread": 0.0, "author_spread": 0.5, "off_tag": 0.0}).world
    _, first, inverse = np.unique(same.author[1:], return_index=True, return_inverse=True)
    assert np.allclose(same.place[1:], same.place[1:][first][inverse])


def test_durations_have_the_given_quantiles() -> None:
    given = {0.0: 6.0, 0.25: 32.0, 0.5: 81.0, 0.75: 148.0, 1.0: 520.0}
    durations = world(2, 20_000, videos={"duration": given}).world.duration[1:]
    for rank, value in given.items():
        assert close((durations <= value).mean(), rank, np.sqrt(rank * (1 - rank) / 20_000) + 1e-12)


def test_users_differ_in_level_and_activity() -> None:
    """Sessions a day are gamma with variance mean^2 / shape, cut at the busiest; a normal score of
    activity moves the level.
    """
    from scipy.stats import gamma, kstest, norm

    truth = world(
        20_000,
        5,
        arrival={"per_day": 1.3, "shape": 1.6, "busiest": 100.0},
        affinity={"activity": -0.3, "user": 0.5},
    ).truth
    assert kstest(truth.rate, gamma(1.6, scale=1.3 / 1.6).cdf).pvalue > 0.001
    score = norm.ppf(gamma(1.6, scale=1.3 / 1.6).cdf(truth.rate))
    slope, base = np.polyfit(score, truth.level, 1)
    assert close(slope, -0.3, 0.5 / np.sqrt(20_000))
    assert close(base, Choice().affinity.base, 0.5 / np.sqrt(20_000))
    assert close(float((truth.level - slope * score - base).std()), 0.5, 0.5 / np.sqrt(40_000))
    assert world(2000, 5, arrival={"busiest": 2.0}).truth.rate.max() == 2.0


def test_quality_duration_and_taste_have_their_spreads() -> None:
    truth = world(
        2, 20_000, affinity={"quality": 1.3, "duration": {"10.0": -1.0, "100.0": 1.0}}
    ).world
    offset = np.interp(np.log(truth.duration[1:]), np.log([10.0, 100.0]), [-1.0, 1.0])
    quality = truth.appeal[1:] - offset
    assert close(float(quality.mean()), 0, 1.3 / np.sqrt(20_000))
    assert close(float(quality.std()), 1.3, 1.3 / np.sqrt(40_000))
    users, items = 300, 100
    tastes = np.array(
        [
            [compiled.tastes(5, u, i % 10, i, 0.4, 0.6) for i in range(1, items + 1)]
            for u in range(users)
        ]
    )
    n = users * items
    assert close(
        float(tastes.std()), np.sqrt(0.4**2 + 0.6**2), np.sqrt(0.52) / np.sqrt(2 * users * 10)
    )
    by_author = tastes.reshape(users, 10, 10).mean(axis=1)  # of ten videos of one author
    assert close(float(by_author.var()), 0.4**2 + 0.6**2 / 10, 0.2 * np.sqrt(2 / (users * 10)))
    assert close(float(tastes.mean()), 0, 0.72 / np.sqrt(n / 10))


def test_examination_falls_by_position_and_the_unexamined_are_swiped_by() -> None:
    people = world(3000, **OFF | {"examination": {"first": 0.9, "decay": 0.8}})
    zero = np.concatenate([answer.watch == 0 for answer in ask(people, 4)])
    expected = 1 - 0.9 * 0.8 ** np.arange(6)
    assert close(np.abs(zero.mean(axis=0) - expected).max(), 0.0, np.sqrt(0.25 / len(zero)))


def test_cascade_cuts_the_slate_at_its_hazard() -> None:
    people = world(
        3000,
        **OFF
        | {
            "cascade": {"after_click": 0.1, "after_unclick": 0.1},
            "patience": {"leave": 1e-9},
        },
    )
    answers = ask(people, 3)
    shown = np.concatenate([answer.shown for answer in answers])
    for place in range(1, 6):
        expected = 0.9**place
        assert close(
            (shown > place).mean(), expected, np.sqrt(expected * (1 - expected) / len(shown))
        )
    for answer in answers:
        hidden = np.arange(6) >= answer.shown[:, None]
        assert (answer.click[hidden] == -1).all()
        assert np.isnan(answer.watch[hidden]).all()
        assert (answer.kinds["like"][hidden] == -1).all()
        assert (answer.click[~hidden] >= 0).all()
        assert answer.leaves[answer.shown < 6].all()


def test_a_click_is_a_valid_play_and_a_long_view_a_long_one() -> None:
    people = world(1000, affinity={"base": 0.0})
    durations = people.world.duration
    for salt in range(3):
        items = some(people, 6, salt)
        answer = people.respond(
            np.arange(1000), np.full(1000, salt), np.full(1000, salt * DAY), slates(items)
        )
        shown, duration = answer.click >= 0, durations[items]
        valid, long = (
            answer.watch >= np.minimum(7.0, duration) - 1e-4,
            answer.watch >= np.minimum(18.0, duration) - 1e-4,
        )
        assert (valid[shown] == (answer.click[shown] == 1)).all()
        assert (long[shown] == (answer.kinds["long_view"][shown] == 1)).all()


def test_attention_of_the_clicked_is_log_logistic() -> None:
    """With one long duration nothing is cut above: P(watch > s | click) is a ratio of survivals."""
    watch = {"attention": 20.0, "affinity": 0.0, "shape": 1.5}
    people = world(
        2000,
        watch=watch,
        videos={"duration": {"0.0": 8e4, "1.0": 8.6e4}},
        affinity={"base": 1.0},
        **OFF,
    )
    watched = np.concatenate([answer.watch[answer.click == 1] for answer in ask(people, 3)])
    for s in (10.0, 18.0, 60.0, 300.0):
        expected = (1 + (7 / 20) ** 1.5) / (1 + (s / 20) ** 1.5)
        assert close(
            (watched > s).mean(), expected, np.sqrt(expected * (1 - expected) / len(watched))
        )


def test_who_reaches_the_end_stops_or_loops() -> None:
    people = world(
        2000,
        videos={"duration": {"0.0": 20.0, "1.0": 20.0}},
        watch={"stop": 0.4},
        affinity={"base": 1.0},
        **OFF,
    )
    watched = np.concatenate([answer.watch[answer.click == 1] for answer in ask(people, 2)])
    ended = watched[watched >= 20.0 - 1e-4]
    assert close((ended <= 20.0 + 1e-4).mean(), 0.4, np.sqrt(0.24 / len(ended)))


def test_skips_are_weibull_below_the_threshold() -> None:
    skips, videos = {"skip_scale": 3.0, "skip_shape": 1.5}, {"duration": {"0.0": 50, "1.0": 90}}
    people = world(2000, affinity={"base": -3.0}, watch=skips, videos=videos, **OFF)
    skipped = np.concatenate([answer.watch[answer.click == 0] for answer in ask(people, 2)])
    below = 1 - np.exp(-((7 / 3) ** 1.5))
    for s in (0.5, 2.0, 5.0):
        expected = (1 - np.exp(-((s / 3) ** 1.5))) / below
        assert close(
            (skipped <= s).mean(), expected, np.sqrt(expected * (1 - expected) / len(skipped))
        )


def test_reactions_have_their_conditional_rates() -> None:
    like, hate = (
        {"rate": 0.2, "affinity": 3.0, "unclicked": 0.5},
        {
            "enabled": False,
            "rate": 0.5,
            "affinity": 0.0,
            "unclicked": 1.0,
        },
    )
    people = world(2000, affinity=FLAT, reactions={"like": like, "hate": hate}, **OFF)
    answers = ask(people, 3)
    click = np.concatenate([answer.click.ravel() for answer in answers]) == 1
    likes = np.concatenate([answer.kinds["like"].ravel() for answer in answers])
    for given, rate in ((click, 0.2), (~click, 0.1)):  # at p = 1/2 the affinity has no say
        assert close(likes[given].mean(), rate, np.sqrt(rate * (1 - rate) / given.sum()))
    assert not np.concatenate([answer.kinds["hate"].ravel() for answer in answers]).any()


class More(Reactions):
    """Six reactions more than the log's: words that are left over, then two further streams."""

    a: Reaction = Reaction(rate=0.3, affinity=0.0, unclicked=1.0)
    b: Reaction = a
    c: Reaction = a
    d: Reaction = a
    e: Reaction = a
    f: Reaction = a


def test_another_reaction_is_data_and_changes_no_answer() -> None:
    few = Choice(n_users=1500, n_items=300)
    many = few.model_copy(update={"reactions": More()})
    answers = [
        ask(choice.build(choice.source(5), 5, 5, Path()), 2, salt=1) for choice in (few, many)
    ]
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one.click, other.click)
        np.testing.assert_array_equal(one.watch, other.watch)
        np.testing.assert_array_equal(one.next, other.next)
        for name, given in one.kinds.items():
            np.testing.assert_array_equal(given, other.kinds[name])
    examined = np.concatenate([answer.watch.ravel() for answer in answers[1]]) > 0
    new = np.array(
        [np.concatenate([answer.kinds[name].ravel() for answer in answers[1]]) for name in "abcdef"]
    )[:, examined]
    error = np.sqrt(0.3 * 0.7 / examined.sum())
    for given in new:
        assert close(given.mean(), 0.3, error)
    # Each has random words of its own: independent of the others, and of the click.
    assert np.abs(np.corrcoef(new) - np.eye(6)).max() < 5 / np.sqrt(examined.sum())
    click = np.concatenate([answer.click.ravel() for answer in answers[1]])[examined]
    for given in new:
        assert abs(np.corrcoef(given, click)[0, 1]) < 5 / np.sqrt(examined.sum())


def test_satiation_lowers_near_duplicates_and_recovers() -> None:
    def clicks(strength: float, hours: float) -> tuple[float, float]:
        people = world(
            3000,
            satiation={"strength": strength, "recovery": 6.0},
            **{k: v for k, v in OFF.items() if k != "satiation"},
        )
        everybody, same = (
            np.arange(3000),
            np.tile(np.argsort(people.world.tag[1:], kind="stable")[:6] + 1, (3000, 1)),
        )
        t = np.array([0, round(hours * 3_600_000)])
        first, later = (
            people.respond(everybody, np.full(3000, i), np.full(3000, t[i]), slates(same))
            for i in (0, 1)
        )
        return float(first.click.mean()), float(later.click.mean())

    se = np.sqrt(2 * 0.25 / 18000)
    fresh, tired = clicks(0.8, 0.01)
    assert tired < fresh - 0.05
    for strength, hours in ((0.8, 240.0), (0.0, 0.01)):  # rested; never tired
        assert close(*clicks(strength, hours), se)


def test_drift_off_keeps_interests_and_on_moves_them_alike_in_every_arm() -> None:
    drifting = OFF | {"drift": {"persistence": 0.8}}
    still, moving, other = world(50, **OFF), world(50, **drifting), world(50, **drifting)
    before = still.lives.logits.copy()
    for people, salt in ((still, 1), (moving, 1), (other, 2)):  # what is shown differs
        for day in range(4):
            people.respond(
                np.arange(50),
                np.full(50, day),
                np.full(50, day * DAY),
                slates(some(people, 6, salt + day)),
            )
    assert np.array_equal(still.lives.logits, before)
    assert not np.array_equal(moving.lives.logits, before)
    assert np.array_equal(moving.lives.logits, other.lives.logits)
    assert np.array_equal(moving.lives.interests, other.lives.interests)


def test_the_weights_drift_as_a_stationary_process() -> None:
    people = world(
        4000,
        50,
        interests={"concentration": 1.5, "per_user": 2},
        **OFF | {"drift": {"persistence": 0.7, "renewal": 0.0}},
    )
    start = people.lives.logits.copy()
    for day in range(3):
        people.respond(
            np.arange(4000), np.full(4000, day), np.full(4000, day * DAY), slates(some(people))
        )
    now, n = people.lives.logits.ravel(), people.lives.logits.size
    assert close(now.var(), 1.5**2, 1.5**2 * np.sqrt(2 / n))
    correlation = float(np.corrcoef(start.ravel(), now)[0, 1])
    assert close(correlation, 0.7**2, 1 / np.sqrt(n))


def test_renewal_replaces_interests_at_its_rate() -> None:
    people = world(3000, 50, **OFF | {"drift": {"persistence": 1.0, "renewal": 0.05}})
    start = people.lives.interests.copy()
    for day in (0, 10):
        people.respond(
            np.arange(3000), np.full(3000, day), np.full(3000, day * DAY), slates(some(people))
        )
    kept = (people.lives.interests == start).all(axis=2)
    expected = 0.95**10
    assert close(kept.mean(), expected, np.sqrt(expected * (1 - expected) / kept.size))


def test_focus_leans_a_session_to_one_interest() -> None:
    people = world(
        2000, 50, interests={"concentration": 0.0}, **OFF | {"focus": {"strength": 0.75}}
    )
    people.respond(
        np.arange(2000),
        np.zeros(2000, dtype=np.int64),
        np.zeros(2000, dtype=np.int64),
        slates(some(people)),
    )
    assert np.allclose(np.sort(people.lives.weights, axis=1), [0.25, 0.25, 0.25, 1.0])
    counts = np.bincount(people.lives.weights.argmax(axis=1), minlength=4)
    assert close(np.abs(counts / 2000 - 0.25).max(), 0.0, np.sqrt(0.25 * 0.75 / 2000))


def test_sessions_start_as_a_poisson_process_along_the_hour_curve() -> None:
    """Time-changed to the cumulative rate, waits are exponential; by the clock, starts follow the
    curve.
    """
    people = world(
        4000,
        50,
        arrival={"per_day": 1.0, "shape": 1e6},
        **{k: v for k, v in OFF.items() if k != "diurnal"},
    )
    first = people.first(np.arange(4000))
    hour = np.bincount(first % DAY // 3_600_000, minlength=24) / 4000
    share = np.array(HOURS) / sum(HOURS)
    days, within = first // DAY, first % DAY / 3_600_000
    done = days + np.interp(within, np.arange(25), people.tables.hours)
    assert close(done.mean(), 1.0, 1 / np.sqrt(4000))
    assert close((done > 1).mean(), np.exp(-1), np.sqrt(0.24 / 4000))
    # After the first midnight the process does not know when it was started: within one more day it
    # is the curve.
    late = days >= 1
    assert np.abs(hour[12] - share[12]) < 0.02
    assert late.any()
    flat = world(4000, 50, **OFF).tables.hours
    assert np.allclose(np.diff(flat), 1 / 24)


def test_satisfied_users_come_back_sooner_and_off_means_off() -> None:
    def wait(enabled: bool, good: bool) -> float:
        blocks = OFF | {
            "returning": {"enabled": enabled, "satisfaction": 1.5},
            "patience": {"leave": 0.999},
        }
        people = world(4000, 50, affinity={"base": 4.0 if good else -6.0}, **blocks)
        answer = people.respond(
            np.arange(4000),
            np.zeros(4000, dtype=np.int64),
            np.zeros(4000, dtype=np.int64),
            slates(some(people)),
        )
        spent = np.where(np.isnan(answer.watch), 0, answer.watch + 1.0).sum(axis=1) * 1000
        assert np.isfinite(spent).all()
        return float(np.median((answer.next - spent)[answer.leaves]))

    assert wait(True, True) < 0.95 * wait(True, False)
    assert wait(False, True) == pytest.approx(wait(False, False), rel=0.01)


def test_noise_is_keyed_by_user_step_and_item_not_by_place_or_arm() -> None:
    people, arm = world(300, **OFF), world(300, **OFF)
    items = some(people)
    turned = items[:, ::-1].copy()
    one = people.respond(
        np.arange(300), np.zeros(300, dtype=np.int64), np.zeros(300, dtype=np.int64), slates(items)
    )
    two = arm.respond(
        np.arange(300), np.zeros(300, dtype=np.int64), np.zeros(300, dtype=np.int64), slates(turned)
    )
    assert np.array_equal(one.click, two.click[:, ::-1])
    assert np.array_equal(one.watch, two.watch[:, ::-1])
    for kind, given in one.kinds.items():
        assert np.array_equal(given, two.kinds[kind][:, ::-1])


def test_clicks_are_those_of_the_expectation_user_by_user() -> None:
    """Columns of requests compute what the scalars do, to the bit: whoever examines the first video
    clicks where the random number is below what `expected` says of him.
    """
    interests = {"per_user": 3, "dimensions": 7}  # neither is a whole number of vectors
    people, chance = world(300, interests=interests), np.empty(301)
    for step in range(4):  # from the second on with a memory that tires
        items, t = some(people, 1, step), np.full(300, step * 3_600_000)
        before = people.state()
        people.respond(np.arange(300), np.full(300, step), t, slates(np.zeros_like(items)))
        awake = people.lives
        people.restore(before)
        answer = people.respond(np.arange(300), np.full(300, step), t, slates(items))
        for user in range(300):
            compiled.expected(
                people.law, people.seed, people.truth, awake, user, user, False, chance
            )
            words = philox(5, user, step, int(Purpose.RESPONSE), items[user, 0])
            is_below = (int(words[0]) + 0.5) / 2**32 < chance[items[user, 0]]
            is_examined = answer.watch[user, 0] > 0
            assert answer.click[user, 0] == (is_examined and is_below)


@pytest.mark.parametrize("blocks", [[300], [1] * 300, [7] * 42 + [6]])
def test_answers_do_not_depend_on_the_batch(blocks: list[int]) -> None:
    whole, cut = world(300), world(300)
    for step in range(3):
        items, t = some(whole, 6, step), np.full(300, step * DAY)
        expected = whole.respond(np.arange(300), np.full(300, step), t, slates(items))
        order, at = np.random.default_rng(step).permutation(300), 0
        for size in blocks:
            users = order[at : at + size]
            at += size
            got = cut.respond(users, np.full(size, step), t[users], slates(items[users]))
            for name in ("click", "watch", "shown", "next", "leaves"):
                assert np.array_equal(
                    getattr(got, name), getattr(expected, name)[users], equal_nan=True
                )
    for name, column in whole.state().items():
        assert np.array_equal(column, cut.state()[name]), name


def lives_alike(one: People, other: People) -> bool:
    """Whether 100 users of both, who have answered three times, answer the next slate alike."""
    t, items = np.full(100, 40 * DAY), some(one, 6, 77)
    a, b = (
        people.respond(np.arange(100), np.full(100, 3), t, slates(items)) for people in (one, other)
    )
    return np.array_equal(a.watch, b.watch, equal_nan=True) and np.array_equal(a.next, b.next)


def test_state_and_restore_continue_the_same_lives() -> None:
    whole, first, second = world(100), world(100), world(100)
    ask(whole, 3)
    ask(first, 3)
    second.restore(first.state())
    assert lives_alike(whole, second)
    assert all(len(column) == 100 for column in whole.state().values())
    with pytest.raises(ValueError, match="'memory' must have shape"):
        second.restore({name: column for name, column in first.state().items() if name != "memory"})


def test_a_copy_of_people_who_have_answered_goes_on_as_they_do() -> None:
    people = world(100)
    ask(people, 3)
    assert lives_alike(people, copy.deepcopy(people))


def test_the_catalogue_shows_no_latent_truth() -> None:
    catalogue = Choice(n_users=10, n_items=50).source(1).catalogue
    assert set(catalogue.items) == {"duration", "author", "tag"}
    assert not catalogue.users
    assert catalogue.attributes is None
    assert catalogue.items["duration"].shape == (51,)
    assert (catalogue.items["duration"][1:] > 0).all()


def request(people: People, seen: np.ndarray | None = None) -> Histories:
    n = people.n_users
    nothing = np.zeros((n, 1), dtype=np.int64)
    return Histories(
        np.arange(n),
        np.zeros(n, dtype=np.int64),
        nothing,
        nothing.astype(bool),
        nothing if seen is None else seen,
    )


def test_the_oracle_is_the_sorted_truth() -> None:
    people = world(40, 60)
    ask(people, 2)
    oracle = Oracle()
    oracle.bind(people)
    seen = some(people, 5, 9)
    found = oracle.recall(request(people, seen), 10, 0)
    law, truth, lives = people.law, people.world, people.lives
    for user in range(40):  # the truth again, by matrix products
        x = (
            people.truth.level[user]
            + truth.appeal
            + law.match
            * np.maximum(truth.place @ lives.interests[user].T, 0) ** 2
            @ lives.weights[user]
        )
        x -= law.satiation * np.maximum(truth.place @ lives.memory[user], 0)
        x += [
            compiled.tastes(people.seed, user, truth.author[i], i, law.author, law.taste)
            for i in range(61)
        ]
        value = 1 / (1 + np.exp(-x))
        value[0] = 0
        value[seen[user]] = 0
        assert found.items[user].tolist() == np.argsort(-value, kind="stable")[:10].tolist()
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert (oracle.recall(request(people), 100, 0).items[:, 60:] == 0).all()


def test_production_estimates_are_a_function_of_the_user_and_the_week() -> None:
    """An instance that begins late recalls what one recalls that was there from the start."""
    people = world(60, 80)
    early, late = Production(noise=0.3), Production(noise=0.3)
    early.bind(people)
    first = early.recall(request(people), 20, 0)
    for day in range(9):
        people.respond(
            np.arange(60), np.full(60, day), np.full(60, day * DAY), slates(some(people, 6, day))
        )
    again = early.recall(request(people), 20, 0)
    late.bind(people)
    assert np.array_equal(again.items, late.recall(request(people), 20, 0).items)
    assert not np.array_equal(first.items, again.items)
    seen = again.items[:, :7]
    assert np.array_equal(early.recall(request(people, seen), 13, 0).items, again.items[:, 7:])


def test_the_logging_policy_has_honest_propensities() -> None:
    people = world(3, 12)
    base = Production()
    base.bind(people)
    explore = Explore("production", {}, temperature=1.0, epsilon=0.1).over(base, 12)
    n = 6000
    nothing = np.zeros((n, 1), dtype=np.int64)
    asked = Histories(
        np.ones(n, dtype=np.int64), np.arange(n), nothing, nothing.astype(bool), nothing
    )
    slate = explore.recall(asked, 2, 3)
    assert slate.propensities is not None
    claimed = {
        int(item): float(p)
        for item, p in zip(slate.items[:, 0], slate.propensities[:, 0], strict=True)
    }
    for item, p in claimed.items():
        assert close(float((slate.items[:, 0] == item).mean()), p, np.sqrt(p * (1 - p) / n))


def test_yardsticks_say_what_they_need() -> None:
    with pytest.raises(ValueError, match="policy Oracle reads the truth of a synthetic world"):
        Oracle().recall(request(world(2)), 3, 0)
    with pytest.raises(
        ValueError, match="policy Production reads the truth of users of kind 'choice'; got int"
    ):
        Production().bind(3)


@pytest.mark.parametrize("noise", [0.25, 0.0])
def test_production_recalls_the_best_of_all_videos_by_enumeration(noise: float) -> None:
    """Whatever bounds leave out: the values of all videos, from their definition."""
    people = world(12, 4000)
    production = Production(noise=noise)
    production.bind(people)
    found = production.recall(request(people), 40, 0)
    assert len(production.promoted_.order) == 4000
    video, n_places = people.truth.video, people.world.place.shape[1]
    for user in range(12):
        weights = np.exp(people.lives.logits[user] - people.lives.logits[user].max())
        match = np.maximum(people.lives.interests[user] @ video[:, :n_places].T, 0.0) ** 2
        author = [
            compiled.liking(people.seed, user, compiled.AUTHOR_TASTE, a)
            for a in range(int(people.truth.author.max()) + 1)
        ]
        error = [compiled.liking(people.seed, user, compiled.ESTIMATE, i) for i in range(4001)]
        value = video[:, n_places] + people.law.match * (weights @ match) + production.traffic_
        value += people.law.author * np.array(author)[people.truth.author] + noise * np.array(error)
        best = np.argsort(-value)[:40]
        assert found.items[user].tolist() == best.tolist()
        np.testing.assert_allclose(found.scores[user], value[best], rtol=1e-6)
