"""What a policy is lent cannot be written, and what it gives back is checked and copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pytest

from policies.base import Catalogue, Fitting, Histories, IntArray, Policy, Sequences, Slates
from policies.calls import CallError, Calls
from policies.examples import mixed
from policies.lending import Frozen, Shared


def arrays(value: Any) -> dict[str, np.ndarray]:
    """The arrays of a dataclass, with those in its mappings."""
    found = {}
    for name in type(value).__dataclass_fields__:
        part = getattr(value, name)
        found |= {name: part} if isinstance(part, np.ndarray) else {}
        found |= (
            {f"{name}.{key}": one for key, one in part.items()} if isinstance(part, Mapping) else {}
        )
    return found


@pytest.mark.parametrize("kind", [Frozen, Shared])
def test_nothing_that_is_lent_can_be_made_writable_again(kind: Any) -> None:
    example = mixed()
    lend = kind()
    for value in (example.sequences, example.catalogue, example.requests()):
        lent = arrays(lend(value))
        assert lent.keys() == arrays(value).keys()
        for name, array in lent.items():
            np.testing.assert_array_equal(array, arrays(value)[name])
            assert not np.shares_memory(array, arrays(value)[name]) or kind is Shared
            for view in (array, array[:3], array.T):
                with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                    view.setflags(write=True)
                base = view.base
                assert not (isinstance(base, np.ndarray) and base.flags.writeable)
    assert lend.changed() is None


@pytest.mark.parametrize("kind", [Frozen, Shared])
def test_a_write_through_a_pointer_is_seen(kind: Any) -> None:
    import ctypes

    lend = kind()
    lent = lend(Sequences(*(np.arange(1, 5) for _ in range(5)), {"watch": np.ones(4, np.float32)}))
    assert lend.changed() is None
    ctypes.memset(lent.columns["watch"].ctypes.data, 7, 4)
    assert lend.changed() == "sequences.columns['watch']"


def test_arrays_of_any_type_and_none_are_lent() -> None:
    columns = {
        "text": np.array(["a", "bc"]),
        "day": np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]"),
        "empty": np.zeros((2, 0)),
        "objects": np.array([{}, None], dtype=object),
        "strided": np.arange(6)[::3],
        "nan": np.array([np.nan, 1.0]),
        "scalar": np.array(3),
    }
    for lend in (Frozen(), Shared()):
        for name, array in lend(columns).items():
            assert array.dtype == columns[name].dtype
            assert array.shape == columns[name].shape
            assert not array.flags.writeable
            assert array.tolist() == columns[name].tolist() or name == "nan"
        assert lend.changed() is None


class Ones(Policy):
    """Gives what it is told, in arrays that it keeps and overwrites at the next call."""

    def __init__(self, **given: Any) -> None:
        self.given = given

    def fit(self, sequences: Sequences, catalogue: Catalogue, fitting: Fitting) -> Self:
        return self

    def recall(self, histories: Histories, k: int, seed: int) -> Slates:
        self.given["items"][:] = seed
        return Slates(**self.given)

    def score(self, histories: Histories, items: IntArray) -> Any:
        return self.given["scores"]

    def slate_propensities(self, histories: Histories, items: IntArray, seed: int) -> Any:
        return self.given["propensities"]

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        return self


def test_what_is_given_back_is_the_callers_own() -> None:
    calls = Calls(
        Ones(items=np.ones((2, 3), np.int64), scores=np.zeros((2, 3), np.float32)), "ones"
    )
    two = mixed().requests().rows(slice(0, 2))
    first = calls.recall(two, 3, 5)
    calls.recall(two, 3, 6)
    assert (first.items == 5).all()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            np.zeros((2, 3)),
            "scores must be a numpy array of float32 and shape \\(2, 3\\); got float64",
        ),
        (np.zeros((2, 2), np.float32), "got float32 \\(2, 2\\)"),
        ([[0, 0, 0]] * 2, "got list"),
        (None, "got None"),
        (
            np.array([[0, 0, 0], [0, np.nan, 0]], np.float32),
            "must be numbers; got NaN for request 1 at place 1",
        ),
    ],
)
def test_scores_of_another_form_are_refused(scores: Any, message: str) -> None:
    calls = Calls(Ones(scores=scores), "ones")
    with pytest.raises(CallError, match=f"policy 'ones': score: scores {message}|{message}"):
        calls.score(mixed().requests().rows(slice(0, 2)), np.ones((2, 3), np.int64))


@pytest.mark.parametrize("chance", [-0.1, 1.1, np.nan])
def test_probabilities_are_probabilities(chance: float) -> None:
    calls = Calls(Ones(propensities=np.full((2, 3), chance, np.float32)), "ones")
    with pytest.raises(CallError, match="slate_propensities: probabilities must be"):
        calls.slate_propensities(mixed().requests().rows(slice(0, 2)), np.ones((2, 3), np.int64), 1)
