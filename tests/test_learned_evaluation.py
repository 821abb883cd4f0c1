"""Held-out evaluation, support and pooling of worlds, against cases solved by hand and simulated
truth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulator.log.eventlog import EventLog
from simulator.log.metadata import LogError, Metadata
from simulator.stats.pooling import pool_lifts, pooled
from simulator.stats.verdict import Lift
from simulator.users.base import Source, UsersError
from simulator.users.learned import Learned
from simulator.users.learned.evaluation import auc, evaluate
from simulator.users.learned.response import Response
from simulator.users.learned.support import SupportCounts, support
from tests.worlds import LEARNED_SETTINGS, learned_source, silent


@pytest.fixture(scope="module")
def source() -> Source:
    return learned_source()


def test_auc_is_the_chance_that_a_one_scores_above_a_zero() -> None:
    generator = np.random.default_rng(1)
    score = generator.integers(0, 6, 60).astype(float)  # with ties
    y = (generator.random(60) < 0.4).astype(float)
    ones, zeros = score[y == 1], score[y == 0]
    literal = np.mean([(a > b) + 0.5 * (a == b) for a in ones for b in zeros])
    assert auc(score, y) == pytest.approx(literal)
    assert np.isnan(auc(score, np.ones(60)))


@pytest.fixture(scope="module")
def fitted_response(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Response:
    """A model of the small world."""
    folder = tmp_path_factory.mktemp("evaluated")
    Learned(**LEARNED_SETTINGS).fit(source, 0, folder, silent)
    return Response.load(folder / "response.npz")


def test_a_good_model_of_a_known_world_is_found_good(
    source: Source, fitted_response: Response
) -> None:
    found = evaluate(fitted_response, source)
    assert source.future is not None
    assert found.impressions == source.future.n_rows
    click = found.heads[0]
    assert click.auc > 0.72
    assert click.log_loss < click.base_log_loss
    assert found.calibration_error < found.calibration_noise + 0.025
    assert sum(n for _, _, n in found.reliability) == found.impressions
    for level, share in found.coverage.items():
        assert share == pytest.approx(level, abs=0.025)
    totals = {(t.group, t.what): t for t in found.totals}
    for day in ("day 1", "day 2"):
        for what in ("click", "watch"):
            total = totals[(day, what)]
            assert abs(total.error) < 0.05 + 3 * total.noise
    assert (
        sum(t.actual for t in found.totals if t.what == "click" and t.group.startswith("day"))
        == click.occurred
    )


def test_a_bad_model_is_found_bad(source: Source, fitted_response: Response) -> None:
    """The same model, a click shifted by one logit and a watch head that knows no zero."""
    fields = {name: getattr(fitted_response, name) for name in fitted_response.__dataclass_fields__}
    watch = fitted_response.watch_bias.copy()
    watch[:, [0, len(fitted_response.edges)]] = -20
    worse = Response(
        **{**fields, "click_bias": fitted_response.click_bias + 1, "watch_bias": watch}
    )
    good, bad = evaluate(fitted_response, source), evaluate(worse, source)
    assert bad.calibration_error > 0.15 > good.calibration_error
    assert bad.heads[0].auc == pytest.approx(good.heads[0].auc, abs=0.002)
    assert bad.coverage[0.1] > good.coverage[0.1] + 0.03  # zeros lie below all that it expects


def test_evaluation_needs_a_future(source: Source, fitted_response: Response) -> None:
    with pytest.raises(UsersError, match="needs a log with history and future"):
        evaluate(fitted_response, Source(source.catalogue, source.history, None))


def run_log(shown: list[int]) -> EventLog:
    """History: items 1 (30 answers), 2 (10), user 0; one arm that shows `shown` to users 0, 1, 0,
    1, ...
    """
    past = [(0, 0, i, 1 if i < 30 else 2, -1000 + i) for i in range(40)]
    rows = past + [(1, i % 2, i, item, i) for i, item in enumerate(shown)]
    arm, user, request, item, t = (np.array(column) for column in zip(*rows, strict=True))
    zeros = np.zeros(len(rows), dtype=np.int64)
    columns: dict[str, Any] = {
        "arm": arm,
        "user": user,
        "session": zeros,
        "request": request,
        "position": zeros,
        "t": t,
        "item": item,
    }
    columns |= {
        "click": np.ones(len(rows), dtype=np.int8),
        "watch": np.ones(len(rows)),
        "logged": arm == 0,
    }
    return EventLog.from_columns(columns, Metadata(("history", "a"), 2, 300))


def test_support_by_hand() -> None:
    same = support(run_log([1, 1, 1, 2]))[0]
    assert same.overlap == pytest.approx(1.0)
    assert same.effective == pytest.approx(1.0)
    assert same.thin == 0.25
    assert same.cold == 0.5
    away = support(run_log([3, 4, 1, 2]))[0]
    assert away.never == 0.5
    assert away.overlap == pytest.approx(0.25 + 0.25)
    assert away.effective == pytest.approx(0.25 / (0.25**2 / 0.75 + 0.25**2 / 0.25))
    assert away.items == 4
    assert away.top == pytest.approx(0.75)  # 1% of 300 items are 3 items


def test_support_of_parts_adds_up() -> None:
    log = run_log([3, 4, 1, 2])
    whole = SupportCounts(log.metadata)
    for first, n in ((0, 40), (40, 3), (43, 1)):
        part = SupportCounts(log.metadata)
        for rows in EventLog(log.metadata, log.table.slice(first, n)).stretches():
            part.add(rows)
        whole.take(part.sums())
    assert whole.support() == support(log)


def test_support_needs_the_history() -> None:
    log = run_log([1])
    table = log.table.filter(np.arange(log.n_rows) >= 40)
    with pytest.raises(LogError, match="history with answers"):
        support(EventLog(log.metadata, table))


def test_pooling_by_hand() -> None:
    """m = 2, lifts 1 and 3, errors 1: W = 1, B = 2, T = 1 + 1.5 * 2 = 4, df = (1 + 1 / 3)^2."""
    found = pooled([1.0, 3.0], [1.0, 1.0])
    assert found.lift == 2
    assert found.within == 1
    assert found.between == pytest.approx(2**0.5)
    assert found.df == pytest.approx((4 / 3) ** 2)
    same = pooled([1.0, 1.0], [0.5, 0.5])
    assert same.high - same.lift == pytest.approx(1.959964 * 0.5, abs=1e-5)


def test_pooled_intervals_cover_a_truth_that_worlds_only_approach() -> None:
    """Worlds scatter around the truth by 1, users by .5: the pooled interval covers it, each
    world's own does not.
    """
    generator = np.random.default_rng(11)
    trials, m = 2000, 5
    # the truth is exchangeable with the worlds: a draw from the same population around an unknown
    # centre
    worlds = generator.normal(size=(trials, m + 1))
    truth, lifts = worlds[:, 0], worlds[:, 1:] + 0.5 * generator.normal(size=(trials, m))
    inside = [
        p.low <= z <= p.high
        for z, p in ((z, pooled(row, [0.5] * m)) for z, row in zip(truth, lifts, strict=True))
    ]
    alone = np.abs(lifts[:, 0] - truth) <= 1.96 * 0.5
    assert np.mean(inside) > 0.93
    assert alone.mean() < 0.6


def test_verdicts_are_pooled_row_by_row() -> None:
    def rows(lift: float) -> list[Lift]:
        z = 1.959964
        row = Lift(
            "click", "a", "user", 1.0, 1 + lift, lift, lift - z, lift + z, 1, 1e9, 0.5, 0.5, 9, 1
        )
        return [row, replace(row, unit="day"), replace(row, metric="sessions", low=0.0, high=0.0)]

    pools = pool_lifts([rows(1.0), rows(3.0)])
    assert list(pools) == [("a", "click")]
    assert pools[("a", "click")].within == pytest.approx(1.0, abs=1e-5)
