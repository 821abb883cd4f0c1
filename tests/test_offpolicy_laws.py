"""The law of a published log, read from its propensities."""

from __future__ import annotations

import numpy as np
import pytest

from policies.base import Catalogue, Fitting
from simulator.log.eventlog import EventLog
from simulator.log.metadata import Metadata
from simulator.offpolicy.logging_policy import HOUR, Published, PublishedTargets
from simulator.offpolicy.replay import (
    ReplayError,
)
from simulator.offpolicy.rounds import Stream


def test_published_reads_its_law_from_propensities() -> None:
    random = np.random.Generator(np.random.Philox(key=3))
    law = np.array([[0.0, 0.5, 0.3, 0.2], [0.0, 0.1, 0.1, 0.8]])
    n = 4000
    hour = np.sort(random.integers(0, 2, n))
    item = np.array([random.choice(4, p=law[h]) for h in hour])
    log = EventLog.from_columns(
        {
            "user": np.arange(n),
            "session": np.zeros(n, int),
            "request": np.zeros(n, int),
            "position": np.zeros(n, int),
            "t": hour * HOUR + 5,
            "item": item,
            "click": np.zeros(n, np.int8),
            "propensity": law[hour, item],
        },
        Metadata(("history",), n, 3, "marginal"),
    )
    policy = Published().fit(log.sequences(), Catalogue(n, 3), Fitting())
    np.testing.assert_allclose(policy.law_[:, 0], law, atol=1e-6)
    rounds = next(iter(Stream(log)))
    target = PublishedTargets("p", policy)(rounds)
    np.testing.assert_allclose(target.probability[:, 0], rounds.propensity[:, 0], atol=1e-6)
    drawn = np.bincount(target.slates[hour == 1, 0, 0], minlength=4) / (hour == 1).sum()
    np.testing.assert_allclose(drawn, law[1], atol=4 * 0.5 / np.sqrt(n / 2))


def test_a_law_of_a_stray_item_is_refused_before_it_takes_memory() -> None:
    n = 3
    zero = np.zeros(n, int)
    columns = {"user": np.arange(n), "session": zero, "request": zero, "position": zero}
    log = EventLog.from_columns(
        {
            **columns,
            "t": np.array([0, 1, 200]) * HOUR,
            "item": np.array([1, 2, 900_000]),
            "click": zero.astype(np.int8),
            "propensity": np.full(n, 0.5),
        },
        Metadata(("history",), n, 900_000, "marginal"),
    )
    with pytest.raises(ReplayError, match=r"201 stretches .* 900,001 items, .*a stray one\?"):
        Published().fit(log.sequences(), Catalogue(n, 900_000), Fitting())


def test_what_was_not_shown_in_an_hour_shares_what_is_left_of_it() -> None:
    """Hour 0 shows all of four items; hour 1 shows two with .5 and .3: the others share .2 as they
    stood, 3 to 1. Hour 2 is empty.

    Hour 3 shows the other two with .6 each (means within an hour may add to more than 1): the first
    two keep what they had. Hour 4 is sure.
    """
    hour, item = np.array([0, 0, 0, 0, 1, 1, 3, 3, 4]), np.array([1, 2, 3, 4, 1, 2, 3, 4, 1])
    chance = np.array([0.1, 0.5, 0.3, 0.1, 0.5, 0.3, 0.6, 0.6, 1.0])
    n = len(hour)
    zero = np.zeros(n, int)
    columns = {
        "user": np.arange(n),
        "session": zero,
        "request": zero,
        "position": zero,
        "t": hour * HOUR,
        "item": item,
    }
    log = EventLog.from_columns(
        {**columns, "click": zero.astype(np.int8), "propensity": chance},
        Metadata(("history",), n, 4, "marginal"),
    )
    law = Published().fit(log.sequences(), Catalogue(n, 4), Fitting()).law_[:, 0, 1:]
    want = [
        [0.1, 0.5, 0.3, 0.1],
        [0.5, 0.3, 0.15, 0.05],
        [0.5, 0.3, 0.15, 0.05],
        [0.25, 0.15, 0.3, 0.3],
        [1, 0, 0, 0],
    ]
    np.testing.assert_allclose(law, want, atol=1e-6)
