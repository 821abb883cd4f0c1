"""Fits over a log that is larger than memory: a stretch at a time, to the same bytes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies import stretches
from policies.base import Catalogue, Fitting, Policy, Sequences
from policies.registry import make
from policies.stretches import Pile, collected
from policies.validation import LastClicks
from simulator.serving.ranking import Ranker
from tests.worlds import in_file

N_ITEMS = 30
BRIEF: dict[str, Any] = {"epochs": 2, "patience": 1, "batch": 64, "sample": 100}
SMALL: dict[str, Any] = {"width": 4, "length": 6, "training": BRIEF}
GPT: dict[str, Any] = {
    "shape": {"width": 4, "feedforward": 4, "length": 6},
    "pretraining": BRIEF,
    "tuning": BRIEF,
}
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "popularity": ("popularity", {"half_life": 2.0}),
    "hourly": ("hourly", {"half_life": 2.0}),
    "content": ("content", {}),
    "itemknn": ("itemknn", {"neighbours": 5}),
    "bpr": ("bpr", {"width": 4, "training": BRIEF}),
    "sasrec": ("sasrec", {**SMALL, "windows": "all"}),
    "comirec": ("comirec", SMALL),
    "recgpt by exposures": (
        "recgpt",
        {**GPT, "prompts": {"source": "exposed", "window": 2, "everywhere": True}, "counts": {}},
    ),
    "recgpt by both": ("recgpt", {**GPT, "prompts": {"source": "both", "window": 2}}),
}


def long_history(users: int, each: int, folder: Path | None = None) -> tuple[Sequences, Catalogue]:
    """`each` impressions a user, but for one of nobody; in files where there is a `folder`."""
    draw, n = np.random.default_rng(users + each), (users - 1) * each
    items = draw.integers(1, N_ITEMS + 1, n)
    columns: dict[str, Any] = {
        "items": items,
        "clicked": draw.random(n) < 0.5,
        "t": np.arange(n) * 10_000 - n * 10_000,
        "watch": draw.random(n).astype(np.float32),
    }
    if folder is not None:
        for name, column in columns.items():
            np.save(folder / f"{name}.npy", column)
            columns[name] = np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray)
    offsets = np.minimum(np.arange(users + 1), users - 1) * each
    watch = {"watch": columns.pop("watch")}
    tag = {"tag": np.arange(N_ITEMS + 1) % 3}
    return Sequences(np.arange(users), offsets, *columns.values(), watch), Catalogue(
        users, N_ITEMS, tag
    )


def test_stretches_are_of_whole_users_and_hold_everybody_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stretches, "STRETCH", 10)
    counts = np.array([0, 3, 7, 1, 25, 0, 0, 4, 6, 0])
    offsets = np.concatenate(([0], np.cumsum(counts)))
    some = list(stretches.stretches(offsets))
    assert [users for users, _ in some] == [slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 10)]
    assert [rows for _, rows in some] == [slice(0, 10), slice(10, 11), slice(11, 36), slice(36, 46)]
    assert list(stretches.stretches(offsets[:1])) == [(slice(0, 0), slice(0, 0))]


def test_what_is_large_lies_in_a_file_and_may_be_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parts = [np.arange(12).reshape(6, 2), np.zeros((0, 2), dtype=np.int64), np.ones((3, 2), int)]
    expected = np.concatenate(parts)
    assert not in_file(collected(parts))
    monkeypatch.setattr(stretches, "LARGE", 90)
    large = collected(parts)
    assert in_file(large)
    assert large.dtype == expected.dtype
    assert np.array_equal(large, expected)
    large[1, 1] = -5
    assert large[1].tolist() == [2, -5]
    assert list(tmp_path.iterdir()) == []  # it has no name
    pile = Pile()
    for part in parts[:2]:
        pile.add(part)
    assert np.array_equal(pile.array(), parts[0])


def in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "STRETCH", 200)
    monkeypatch.setattr(stretches, "LARGE", 1000)


@pytest.mark.parametrize("name", FITS)
def test_fits_in_stretches_have_the_bytes_of_fits_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, params = FITS[name]
    log, catalogue = long_history(60, 40)

    def fit() -> dict[str, Any]:
        fitted: Policy = make(policy, params).fit(log, catalogue, Fitting(3))
        return fitted.state()

    expected = fit()
    in_stretches(monkeypatch)
    state = fit()
    assert state.keys() == expected.keys()
    for part, array in expected.items():
        assert state[part].dtype == array.dtype, part
        assert state[part].tobytes() == array.tobytes(), part


def test_a_ranking_stage_that_is_fitted_in_stretches_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, catalogue = long_history(60, 40)
    expected = Ranker.fit(log, catalogue, 10, 0.1).state()
    in_stretches(monkeypatch)
    for part, array in Ranker.fit(log, catalogue, 10, 0.1).state().items():
        assert array.tobytes() == expected[part].tobytes(), part


OWN = {"popularity": 0, "itemknn": 0, "sasrec": 0, "bpr": 48, "recgpt": 0, "validation": 0}
"""Bytes that a fit holds for a click more; those of BPR, whose samples are clicks, are their order
and batches.
"""

QUICK: dict[str, Any] = {"epochs": 1, "patience": 0, "batch": 256}
SHORT: dict[str, dict[str, Any]] = {
    "sasrec": {**SMALL, "training": QUICK},
    "bpr": {"width": 4, "training": QUICK},
    "recgpt": {
        "shape": GPT["shape"],
        "windows": "last",
        "pretraining": QUICK,
        "tuning": QUICK,
        "prompts": {"source": "exposed"},
    },
}


@pytest.mark.parametrize("name", [*OWN, "ranking"])
def test_the_memory_of_a_fit_does_not_grow_with_the_log(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a policy copied of a click were 17 bytes and more, twice with validation."""
    monkeypatch.setattr(stretches, "STRETCH", 2000)
    monkeypatch.setattr(stretches, "LARGE", 16_000)
    monkeypatch.setattr("simulator.serving.ranking.MAX_ROWS", 500)
    peaks = {}
    for each in (20, 200, 1000):  # the first compiles
        folder = tmp_path / str(each)
        folder.mkdir()
        log, catalogue = long_history(101, each, folder)
        tracemalloc.start()
        if name == "ranking":
            Ranker.fit(log, catalogue, 10, 0.1)
        elif name == "validation":
            LastClicks(log, 50, 0)
        else:
            make(name, SHORT.get(name, {})).fit(log, catalogue, Fitting(3))
        peaks[each] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    clicks = 800 * 100 / 2
    slope = (peaks[1000] - peaks[200]) / clicks
    assert slope < OWN.get(name, 0) + 1, (peaks, slope)
