"""Random numbers: known answers, two independent implementations, and the promise that batching
changes nothing.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import philox as compiled
from policies import streams
from policies.streams import COMPILED_FROM, Purpose

WORD = st.integers(0, 2**32 - 1)
FULL = 0xFFFFFFFF

RANDOM123 = [
    ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((FULL, FULL), (FULL, FULL, FULL, FULL), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0xA4093822, 0x299F31D0),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""philox4x32 10 of Random123's kat_vectors: (key), (counter), (words)."""


@pytest.mark.parametrize(("key", "counter", "words"), RANDOM123)
def test_both_versions_give_the_known_answers_of_random123(key, counter, words):
    seed = key[0] | key[1] << 32
    assert tuple(int(w) for w in streams.philox(seed, *counter)) == words
    assert tuple(int(w) for w in compiled.philox(np.uint64(seed), *counter)) == words


def plain_philox(seed: int, counter: tuple[int, ...], rounds: int, width: int) -> tuple[int, ...]:
    """Philox4xW in Python integers, written from the paper for any word width."""
    mask = (1 << width) - 1
    m, w = {
        32: ((0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)),
        64: ((0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)),
    }[width]
    key = [seed & mask, seed >> width & mask]
    x = list(counter)
    for _ in range(rounds):
        p0, p1 = x[0] * m[0], x[2] * m[1]
        x = [(p1 >> width) ^ x[1] ^ key[0], p1 & mask, (p0 >> width) ^ x[3] ^ key[1], p0 & mask]
        key = [(key[0] + w[0]) & mask, (key[1] + w[1]) & mask]
    return tuple(x)


def test_the_plain_version_is_numpys_philox_at_64_bits():
    """numpy ships Philox4x64-10, which counts up before its first block; the plain transcription
    joins the two widths.
    """
    numpys = np.random.Philox(key=[123, 456], counter=[7, 8, 9, 10]).random_raw(4)
    assert tuple(int(w) for w in numpys) == plain_philox(123 | 456 << 64, (8, 8, 9, 10), 10, 64)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), counter=st.tuples(WORD, WORD, WORD, WORD))
def test_numpy_compiled_and_plain_agree_everywhere(seed, counter):
    plain = plain_philox(seed, counter, 10, 32)
    assert tuple(int(w) for w in streams.philox(seed, *counter)) == plain
    assert tuple(int(w) for w in compiled.philox(np.uint64(seed), *counter)) == plain


@pytest.mark.parametrize("n", [0, 1, 7, 333])
def test_many_words_at_once_are_the_words_one_by_one(n):
    """As many as are asked for, whatever fits into a vector register; what lies behind them is left
    alone.
    """
    counters = np.random.default_rng(n).integers(0, 2**32, (4, 400), dtype=np.uint32)
    words = np.zeros((4, 400), dtype=np.uint32)
    compiled.philox_words(np.uint64(2**63 + 11), counters, n, words)
    one_by_one = streams.philox(2**63 + 11, *counters[:, :n])
    np.testing.assert_array_equal(words[:, :n], one_by_one)
    assert not words[:, n:].any()


@pytest.mark.parametrize(
    ("user", "step", "lane"),
    [
        (np.arange(9000), 3, 0),
        (np.arange(900)[:, None], np.arange(900)[:, None] % 7, np.arange(11)),
        (np.arange(900)[:, None], 5, np.arange(11)[None, :]),
        (np.arange(900)[:, None], np.arange(900)[:, None], np.arange(9900).reshape(900, 11)),
        (5, np.arange(5000), 2),
        (np.arange(30)[:, None, None], np.arange(20)[None, :, None], np.arange(10)),
        (np.arange(2**32 - 3000, 2**32 + 3000), 0, -1),
    ],
)
def test_the_fast_path_is_the_numpy_path(user, step, lane):
    got = streams.uniform(2**63 + 11, Purpose.CLICK, user, step, lane)
    high, low, _, _ = streams.philox(2**63 + 11, user, step, int(Purpose.CLICK), lane)
    assert got.size >= COMPILED_FROM
    np.testing.assert_array_equal(got, streams.unit(high, low))


def test_a_number_does_not_depend_on_its_batch():
    users = np.arange(20_000)
    whole = streams.uniform(4, Purpose.WATCH, users, 2, 7)
    parts = np.concatenate(
        [streams.uniform(4, Purpose.WATCH, part, 2, 7) for part in np.array_split(users, 333)]
    )
    np.testing.assert_array_equal(whole, parts)
    assert streams.uniform(4, Purpose.WATCH, 17, 2, 7) == whole[17]
    assert compiled.uniform(np.uint64(4), int(Purpose.WATCH), 17, 2, 7) == whole[17]


def test_the_pair_is_the_number_and_a_second_one():
    first, second = streams.uniform2(9, Purpose.LEAVE, np.arange(100), 1, 2)
    np.testing.assert_array_equal(first, streams.uniform(9, Purpose.LEAVE, np.arange(100), 1, 2))
    assert [
        compiled.uniform2(np.uint64(9), int(Purpose.LEAVE), u, 1, 2) for u in range(100)
    ] == list(zip(first, second, strict=True))


def test_numbers_are_uniform_and_streams_independent():
    n = 200_000
    draws = {
        purpose: streams.uniform(1, purpose, np.arange(n))
        for purpose in (Purpose.CLICK, Purpose.WATCH)
    }
    for numbers in draws.values():
        assert abs(numbers.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
        counts = np.bincount((numbers * 100).astype(int), minlength=100)
        chi2 = ((counts - n / 100) ** 2 / (n / 100)).sum()
        assert abs(chi2 - 99) < 5 * (2 * 99) ** 0.5
    assert abs(np.corrcoef(*draws.values())[0, 1]) < 5 / n**0.5


def test_numbers_of_purposes_are_never_renumbered():
    assert [int(p) for p in Purpose] == [n for n in range(1, len(Purpose) + 2) if n != 6]
    assert Purpose.CLICK == 1
    assert Purpose.RESPONSE == 18
