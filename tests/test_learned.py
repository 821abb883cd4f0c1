"""Learned and logged users on a small world whose truth is known: what the model must find, and
what it must never change.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from policies.base import Slates
from policies.time import DAY
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.users.base import CALIBRATION, NEVER, Feedback, Source
from simulator.users.clock import Clock
from simulator.users.learned import Learned, LearnedUsers
from simulator.users.learned.evaluation import evaluate
from simulator.users.learned.inputs import Features, HistoryEvidence
from simulator.users.learned.network import watch_edges
from simulator.users.learned.posthoc import margins, scale, shift
from simulator.users.learned.response import Response, _quantile
from simulator.users.logged import Logged, LoggedUsers
from tests.worlds import (
    LEARNED_DAYS,
    LEARNED_ITEMS,
    LEARNED_SETTINGS,
    LEARNED_TEST_DAYS,
    LEARNED_USERS,
    click_chance,
    impression_columns,
    learned_source,
    silent,
)


@pytest.fixture(scope="module")
def source() -> Source:
    return learned_source()


@pytest.fixture(scope="module")
def model_folder(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fitted model."""
    where = tmp_path_factory.mktemp("model")
    Learned(**LEARNED_SETTINGS).fit(source, 0, where, silent)
    return where


@pytest.fixture(scope="module")
def response(model_folder: Path) -> Response:
    """The fitted model at work."""
    return Response.load(model_folder / "response.npz")


def every(n: int) -> tuple[npt.NDArray[np.int64], ...]:
    """`n` random users, items, surfaces (as the model numbers them), hours and positions."""
    generator = np.random.default_rng(4)
    tab = generator.integers(0, 2, n)
    places = np.zeros(n, dtype=np.int64)
    return (
        generator.integers(0, LEARNED_USERS, n),
        generator.integers(1, LEARNED_ITEMS + 1, n),
        tab + 1,
        generator.integers(0, 24, n),
        places,
    )


def test_click_chances_are_found(response: Response) -> None:
    user, item, tab, hour, position = every(20_000)
    found, _ = response.predict(user, item, tab, hour, position)
    truth = click_chance(item, tab - 1)
    assert np.corrcoef(found, truth)[0, 1] > 0.93
    for quality in range(3):
        for surface in (1, 2):
            of = (item % 3 == quality) & (tab == surface)
            assert found[of].mean() == pytest.approx(truth[of].mean(), abs=0.04)


def test_simulated_rates_are_those_of_the_log(source: Source, response: Response) -> None:
    """Clicks, seconds and the rare comment: within 4 standard errors of both samples, plus 5% for
    the model itself.
    """
    assert source.future is not None
    table = source.future.table
    n = table.num_rows
    user, item = (table[name].to_numpy().astype(np.int64) for name in ("user", "item"))
    hour = table["t"].to_numpy() % DAY // 3_600_000
    step = np.arange(n, dtype=np.int64)
    click, watch, kinds = response.answer(
        7, user, step, item[:, None], table["tab"].to_numpy().astype(np.int64) + 1, hour
    )
    for drawn, name in (
        (click, "click"),
        (watch, "watch"),
        (kinds["comment"], "comment"),
        (kinds["like"], "like"),
    ):
        real = table[name].to_numpy().astype(np.float64)
        noise = 4 * (2 * real.var() / n) ** 0.5
        assert drawn.mean() == pytest.approx(real.mean(), abs=noise + 0.05 * real.mean()), name
    assert kinds["comment"][click == 0].mean() < 0.002
    assert (watch[click == 0] == 0).mean() == pytest.approx(0.25, abs=0.03)


def test_watch_quantiles_cover(response: Response) -> None:
    """Clicked items are watched Exponential(30 s): the fitted quantiles of the two-sided mixture
    hit its known distribution.
    """
    user, item, tab, hour, position = every(5000)
    p, bins = response.predict(user, item, tab, hour, position)
    truth = click_chance(item, tab - 1)
    for level in (0.5, 0.75, 0.9):
        at = _quantile(np.ascontiguousarray(bins), np.full(len(bins), level), response.edges)
        below = truth * (1 - np.exp(-at / 30)) + (1 - truth) * (0.25 + 0.75 * (1 - np.exp(-at / 2)))
        assert below.mean() == pytest.approx(level, abs=0.03)
    expected = truth * 30 + (1 - truth) * 0.75 * 2
    assert response.mean_watch(bins).mean() == pytest.approx(expected.mean(), rel=0.06)
    assert p.shape == (5000,)


def test_answers_do_not_depend_on_the_batch(response: Response) -> None:
    user, item, tab, hour, _ = every(60)
    items = np.stack([item, item[::-1], np.roll(item, 7)], axis=1)
    step = np.arange(60, dtype=np.int64)
    click, watch, kinds = response.answer(3, user, step, items, tab, hour)
    for cut in (slice(0, 1), slice(5, 12), slice(40, 60)):
        part = response.answer(3, user[cut], step[cut], items[cut], tab[cut], hour[cut])
        assert np.array_equal(part[0], click[cut])
        assert part[1].tobytes() == watch[cut].tobytes()
        assert all(np.array_equal(part[2][name], kinds[name][cut]) for name in kinds)


def test_noise_belongs_to_the_item_not_to_its_place(response: Response) -> None:
    """Position is an input, so only its noise is compared: two positions of equal weight must
    answer alike.
    """
    assert response.position[0].tolist() != []
    flat = Response(**{**vars_of(response), "position": np.zeros_like(response.position)})
    user, item, tab, hour, _ = every(50)
    step = np.zeros(50, dtype=np.int64)
    other = np.where(item == 1, 2, item - 1)
    forward = flat.answer(3, user, step, np.stack([item, other], axis=1), tab, hour)
    backward = flat.answer(3, user, step, np.stack([other, item], axis=1), tab, hour)
    assert np.array_equal(forward[0], backward[0][:, ::-1])
    assert np.array_equal(forward[1], backward[1][:, ::-1])


def vars_of(response: Response) -> dict[str, Any]:
    """The fields of a response."""
    return {name: getattr(response, name) for name in response.__dataclass_fields__}


def test_the_fit_is_repeatable_and_a_bootstrap_world_is_another(
    source: Source, model_folder: Path, tmp_path: Path
) -> None:
    quick = {**LEARNED_SETTINGS, "epochs": 2}
    Learned(**quick).fit(source, 0, tmp_path / "a", silent)
    Learned(**quick).fit(source, 0, tmp_path / "b", silent)
    Learned(**quick, bootstrap=1).fit(source, 0, tmp_path / "c", silent)
    a, b, c = (Response.load(tmp_path / name / "response.npz") for name in "abc")
    assert all(
        np.array_equal(x, y) for x, y in zip(vars_of(a).values(), vars_of(b).values(), strict=True)
    )
    assert not np.array_equal(a.click, c.click)


def test_the_fit_reads_no_future(source: Source, tmp_path: Path) -> None:
    quick = {**LEARNED_SETTINGS, "epochs": 1}
    Learned(**quick).fit(source, 0, tmp_path / "a", silent)
    Learned(**quick).fit(Source(source.catalogue, source.history, None), 0, tmp_path / "b", silent)
    a, b = (Response.load(tmp_path / name / "response.npz") for name in "ab")
    assert a.user_first.tobytes() == b.user_first.tobytes()


def test_evidence_is_of_other_days_and_clicks_are_of_earlier_ones(source: Source) -> None:
    """Against a literal count."""
    assert source.history is not None
    history = source.history.sequences("history")
    observed = np.ones(len(history.items), dtype=bool)
    evidence = HistoryEvidence(history, observed, LEARNED_ITEMS)
    user = np.repeat(history.user, np.diff(history.offsets))
    day = history.t // DAY
    for who, when in ((3, -5), (10, -8), (299, -1), (7, 0)):
        earlier, others = (user == who) & (day < when), (user == who) & (day != when)
        found = evidence.of_users(np.array([who]), np.array([when]))[0]
        assert found[3] == pytest.approx(np.log1p(others.sum() / (LEARNED_DAYS - 1)))
        bag = evidence.bags(np.array([who]), np.array([when]))[0]
        clicked = history.items[earlier & history.clicked][-32:]
        assert bag[bag > 0].tolist() == clicked.tolist()


def test_features_leave_out_ids_and_constants_and_merge_the_rare() -> None:
    features = Features.of(
        {
            "id": np.arange(100),
            "same": np.ones(100, dtype=int),
            "tag": np.array([7] * 50 + [9] * 48 + [3, 4]),
        },
        100,
    )
    assert features.categories.codes.shape == (100, 1)
    assert len(np.unique(features.categories.codes)) == 3  # 7, 9, the rare together


def test_one_day_of_history_is_too_little(source: Source, tmp_path: Path) -> None:
    history = EventLog.from_columns(
        impression_columns(1, -1, 0), Metadata(("history",), LEARNED_USERS, LEARNED_ITEMS)
    )
    with pytest.raises(ValueError, match="at least two days"):
        Learned(**LEARNED_SETTINGS).fit(
            Source(source.catalogue, history, None), 0, tmp_path, silent
        )


def test_clock_is_the_log(source: Source) -> None:
    assert source.future is not None
    clock = Clock.of(source.future, LEARNED_TEST_DAYS, np.arange(LEARNED_USERS))
    rows = source.future.table.to_pylist()
    for who in (0, 17, 299):
        own = [(r["t"], r["session"]) for r in rows if r["user"] == who]
        at = slice(clock.offsets[who], clock.offsets[who + 1])
        assert list(zip(clock.t[at].tolist(), clock.session[at].tolist(), strict=True)) == own
    assert clock.size.sum() == len(rows)
    assert (Clock.of(source.future, 1, clock.who).t < DAY).all()


def live(users: LearnedUsers, who: int, items: npt.NDArray[np.int64]) -> list[tuple[int, Feedback]]:
    """The life of one user who is always shown `items`."""
    user = np.array([who])
    t = users.first(user)
    told = []
    step = 0
    while t[0] != NEVER:
        slates = Slates(items[None, :], np.zeros((1, len(items)), dtype=np.float32))
        answer = users.respond(user, np.array([step]), t, slates)
        told.append((int(t[0]), answer))
        t, step = answer.next, step + 1
    return told


def test_users_come_when_the_log_says(source: Source, model_folder: Path) -> None:
    users = Learned(**LEARNED_SETTINGS).build(source, 0, LEARNED_TEST_DAYS, model_folder)
    assert source.future is not None
    rows = [r for r in source.future.table.to_pylist() if r["user"] == 5]
    told = live(users, 5, np.array([1, 2]))
    assert [t for t, _ in told] == [r["t"] for r in rows]
    ends = [a["session"] != b["session"] for a, b in pairwise(rows)] + [True]
    assert [bool(answer.leaves[0]) for _, answer in told] == ends
    with pytest.raises(ValueError, match="has no request left"):
        users.slate_size(np.array([5]), np.array([0]))


def test_state_continues_a_life(source: Source, model_folder: Path) -> None:
    settings = Learned(**LEARNED_SETTINGS)
    whole, half, rest = (
        settings.build(source, 0, LEARNED_TEST_DAYS, model_folder) for _ in range(3)
    )
    user, zero = np.array([9]), np.array([0])
    slates = Slates(np.array([[1, 2, 3]]), np.zeros((1, 3), dtype=np.float32))
    expected = [whole.respond(user, zero + i, np.array([i]), slates) for i in range(2)][1]
    half.respond(user, zero, zero, slates)
    rest.restore(half.state())
    again = rest.respond(user, zero + 1, np.array([1]), slates)
    assert np.array_equal(expected.watch, again.watch)
    assert np.array_equal(expected.next, again.next)


def test_more_days_than_the_log_has_are_refused(source: Source, model_folder: Path) -> None:
    with pytest.raises(ValueError, match="days must be at most the 2"):
        Learned(**LEARNED_SETTINGS).build(source, 0, 3, model_folder)
    with pytest.raises(ValueError, match="needs a log whose sessions are the clock"):
        Learned(**LEARNED_SETTINGS).build(
            Source(source.catalogue, source.history, None), 0, 1, model_folder
        )


def logged(source: Source, folder: Path, match: str) -> LoggedUsers:
    """Logged users with the fitted model."""
    return Logged.model_validate({"match": match, "response": LEARNED_SETTINGS}).build(
        source, 0, LEARNED_TEST_DAYS, folder
    )


def test_what_the_log_shows_answers_as_logged(source: Source, model_folder: Path) -> None:
    """A user who is shown just what the log shows answers just as the log says, in every
    request.
    """
    assert source.future is not None
    rows = [r for r in source.future.table.to_pylist() if r["user"] == 21]
    users = logged(source, model_folder, "request")
    user = np.array([21])
    for i, told in enumerate(rows):
        slates = Slates(np.array([[told["item"]]]), np.zeros((1, 1), dtype=np.float32))
        answer = users.respond(user, np.array([i]), np.array([told["t"]]), slates)
        assert answer.logged is not None
        assert answer.logged.all()
        assert bool(answer.click[0, 0]) == told["click"]
        assert answer.watch[0, 0] == pytest.approx(told["watch"])
        assert bool(answer.kinds["like"][0, 0]) == told["like"]


@pytest.mark.parametrize("match", ["user", "session", "request"])
def test_how_far_a_logged_answer_reaches(source: Source, model_folder: Path, match: str) -> None:
    assert source.future is not None
    rows = [r for r in source.future.table.to_pylist() if r["user"] == 40]
    first, same_session = (
        rows[0],
        next(
            r
            for r in rows[1:]
            if r["session"] == rows[0]["session"] and r["item"] != rows[0]["item"]
        ),
    )
    later = next(
        r
        for r in rows
        if r["session"] != first["session"]
        and all(r["item"] != x["item"] for x in rows if x["session"] == 0)
    )
    never = next(i for i in range(1, LEARNED_ITEMS + 1) if all(r["item"] != i for r in rows))
    users = logged(source, model_folder, match)
    items = np.array([[first["item"], same_session["item"], later["item"], never]])
    answer = users.respond(
        np.array([40]),
        np.array([0]),
        np.array([first["t"]]),
        Slates(items, np.zeros((1, 4), dtype=np.float32)),
    )
    assert answer.logged is not None
    expected = {
        "user": [True, True, True, False],
        "session": [True, True, False, False],
        "request": [True, False, False, False],
    }
    assert answer.logged[0].tolist() == expected[match]
    modelled = Learned(**LEARNED_SETTINGS).build(source, 0, LEARNED_TEST_DAYS, model_folder)
    alone = modelled.respond(
        np.array([40]),
        np.array([0]),
        np.array([first["t"]]),
        Slates(items, np.zeros((1, 4), dtype=np.float32)),
    )
    assert answer.click[0, 3] == alone.click[0, 3]
    assert answer.watch[0, 3] == alone.watch[0, 3]


def test_the_nearest_of_several_answers_is_taken(source: Source, model_folder: Path) -> None:
    """Against a literal search."""
    assert source.future is not None
    users = logged(source, model_folder, "user")
    rows = [r for r in source.future.table.to_pylist() if r["user"] == 77]
    item = max({r["item"] for r in rows}, key=lambda i: sum(r["item"] == i for r in rows))
    own = [r for r in rows if r["item"] == item]
    assert len(own) > 1
    for t in range(0, 2 * DAY, 7_000_000):
        found = users.occurrences.nearest(np.array([77]), np.array([[item]]), np.array([t]))[0, 0]
        assert users.occurrences.t[found] == min((abs(r["t"] - t), r["t"]) for r in own)[1]


def test_scale_finds_the_slope_and_shift_the_level() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=40_000) * 2
    y = (generator.random(40_000) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(float)
    weight = np.ones(40_000)
    a = scale(logits, y, weight, spread=10.0)
    assert a == pytest.approx(0.5, abs=0.03)
    b = shift(a * logits, y, weight)
    assert b == pytest.approx(-1, abs=0.06)
    assert (1 / (1 + np.exp(-(a * logits + b)))).sum() == pytest.approx(y.sum(), abs=1)
    assert np.isfinite(shift(logits, np.zeros(40_000), weight))


def test_margins_are_met() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5000, 6))
    y = generator.choice(6, 5000, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    shifted = logits + margins(logits, y, np.ones(5000), prior=1e-6)
    p = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p.sum(axis=0), np.bincount(y), rtol=1e-3)


def test_a_fit_says_how_far_off_it_is_on_days_that_it_has_not_seen(
    source: Source, model_folder: Path, response: Response
) -> None:
    stored = json.loads((model_folder / CALIBRATION).read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(evaluate(response, source, 0).calibration()))
    assert source.future is not None
    future = source.future.sequences("history")
    first = future.t // DAY == future.t.min() // DAY
    row = next(r for r in stored["rows"] if r["name"].startswith("click, "))
    assert row["target"] == pytest.approx(future.clicked[first].mean(), rel=1e-9)
    assert row["within"] == (abs(row["ratio"] - 1) <= stored["tolerance"])


def test_watch_times_that_are_all_alike_are_drawn_as_they_are() -> None:
    edges = watch_edges(np.full(50, 10.0, dtype=np.float32), 48)
    assert edges[0] == 0
    assert edges[-2] < 10 < edges[-1] == np.nextafter(np.float32(10), np.float32(np.inf))
    assert np.searchsorted(edges[1:-1], 10.0, side="left") + 1 == len(edges) - 1
    assert 0.5 * (edges[-2] + edges[-1]) == pytest.approx(10)
