"""Prompts: Algorithm 1 token for token against a literal transcription, real exposures, dialogues
and training windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.base import Sequences
from policies.retrieval import Search
from recgpt.model import GENERATED, GPT, REAL, Layer
from recgpt.prompts import Prompts, converse, exposures, generate, interleave, recent
from recgpt.tuning import Lessons
from tests.worlds import small_gpt

V = 30


def log(*users: list[tuple[int, bool]]) -> Sequences:
    offsets = np.concatenate(([0], np.cumsum([len(user) for user in users]))).astype(np.int64)
    flat = [pair for user in users for pair in user]
    items = np.array([item for item, _ in flat], dtype=np.int64)
    clicked = np.array([click for _, click in flat], dtype=bool)
    return Sequences(np.arange(len(users)), offsets, items, clicked, np.arange(len(flat)))


def random_log(seed: int, n_users: int = 7, longest: int = 14, clicks: float = 1.0) -> Sequences:
    draw = np.random.default_rng(seed)
    return log(
        *(
            [
                (int(draw.integers(1, V + 1)), bool(draw.random() < clicks))
                for _ in range(draw.integers(0, longest))
            ]
            for _ in range(n_users)
        )
    )


def algorithm_1(
    model: GPT, user: int, history: list[int], window: int, fresh: bool = False
) -> tuple[list[int], list[bool]]:
    """Algorithm 1 of the paper, line by line, with the whole sequence through the network for every
    token; `fresh` is not in it.
    """
    length = model.shape.length
    history = history[-length:]
    t = 1
    s_star, generated = history[:1], [False]
    while t < len(history):
        k = 1
        while k <= window:  # printed as "if k < K"
            tokens = s_star[-length:]
            segments = [GENERATED if g else REAL for g in generated[-length:]]
            if not model.shape.masked:
                tokens, segments = (
                    [0] * (length - len(tokens)) + tokens,
                    [REAL] * (length - len(segments)) + segments,
                )
            with torch.no_grad():
                hidden = model(
                    torch.tensor([tokens]), torch.tensor([user]), torch.tensor([segments])
                )[0, -1]
                scores = torch.log_softmax(hidden @ model.items.weight.T[:, 1:], dim=0)
            if fresh:
                scores[torch.tensor(s_star) - 1] = -torch.inf
            s_star, generated = [*s_star, int(scores.argmax()) + 1], [*generated, True]
            k += 1
        s_star, generated = [*s_star, history[t]], [*generated, False]
        t += 1
    return s_star, generated


FORMS: list[dict[str, Any]] = [
    {"layers": 1},
    {"layers": 2, "norm": "pre", "activation": "gelu"},
    {"layers": 1, "attention": "flow"},
    {"layers": 1, "attention": "flow", "masked": False},
    {"layers": 1, "masked": False},
]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("window", [0, 1, 3, 6])
def test_generated_prompts_are_algorithm_1_token_for_token(
    form: dict[str, Any], window: int, fresh: bool
) -> None:
    model, sequences = small_gpt(seed=3, **form), random_log(1)
    dialogues = converse(model, sequences, Prompts(window, "model", fresh=fresh), "model", "items")
    checked = 0
    for user in range(len(sequences)):
        history = sequences.items[sequences.offsets[user] : sequences.offsets[user + 1]].tolist()
        if not history:
            continue
        tokens, generated = algorithm_1(model, user, history, window, fresh)
        part = slice(dialogues.offsets[user], dialogues.offsets[user + 1])
        got, prompt = dialogues.tokens[part].tolist(), dialogues.prompt[part].tolist()
        assert (got[-len(tokens) :], prompt[-len(tokens) :]) == (tokens, generated)
        assert (
            got[: -len(tokens)] == history[: -model.shape.length]
        )  # items before the window have no prompts
        checked += len(tokens)
    assert checked > 20 * (window + 1)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("output", ["tied", "biased"])
def test_an_index_that_finds_the_best_item_gives_the_prompts_of_all_items(
    output: Any, fresh: bool
) -> None:
    model, sequences = small_gpt(seed=3, output=output), random_log(1)
    layer: Layer = "items" if output == "tied" else "output"
    prompts = Prompts(2, "model", fresh=fresh)
    index = Search("hnsw").index(model.vectors(layer).detach().numpy())
    exact, found = (
        converse(model, sequences, prompts, "model", layer, 0, one) for one in (None, index)
    )
    np.testing.assert_array_equal(found.tokens, exact.tokens)
    np.testing.assert_array_equal(found.prompt, exact.prompt)
    assert found.prompt.any()


@pytest.mark.parametrize("unfit", [{"least": 0.1}, {"anew": True}, {"form": "tail"}])
def test_an_approximate_search_of_prompts_goes_with_what_it_knows(unfit: dict[str, Any]) -> None:
    (name,) = unfit
    with pytest.raises(
        ValueError, match=rf"leave '{name}' out, or let it be exact; got kind 'ivf'"
    ):
        Prompts(1, "model", search=Search("ivf"), **unfit)


def test_prompts_do_not_depend_on_who_else_is_there() -> None:
    model, sequences = small_gpt(seed=3), random_log(2, n_users=20)
    together = converse(model, sequences, Prompts(2, "model"), "model", "items", rows=8)
    for user in np.flatnonzero(np.diff(sequences.offsets) > 1):
        part = slice(sequences.offsets[user], sequences.offsets[user + 1])
        one = Sequences(
            sequences.user[user : user + 1],
            np.array([0, part.stop - part.start]),
            *(a[part] for a in (sequences.items, sequences.clicked, sequences.t)),
        )
        alone = converse(model, one, Prompts(2, "model"), "model", "items", rows=8)
        assert (
            alone.tokens.tolist()
            == together.tokens[together.offsets[user] : together.offsets[user + 1]].tolist()
        )


def test_exposed_prompts_are_kept_and_answered() -> None:
    model = small_gpt(seed=4)
    items = np.array([5, 6, 7])
    clicks = Sequences(np.array([0]), np.array([0, 3]), items, np.ones(3, dtype=bool), items)
    exposed = np.array([[0, 0], [9, 0], [0, 0]])
    filled = generate(model, clicks, exposed, Prompts(2))
    assert filled[0].tolist() == [0, 0]
    assert filled[1, 0] == 9
    tokens = [5, 9]
    for place in ((1, 1), (2, 0), (2, 1)):
        if place == (2, 0):
            tokens.append(6)
        segments = torch.tensor(
            [[REAL if t == 5 or i == 3 else GENERATED for i, t in enumerate(tokens)]]
        )
        with torch.no_grad():
            best = (
                int(
                    (
                        model(torch.tensor([tokens]), torch.tensor([0]), segments)[0, -1]
                        @ model.items.weight.T
                    )[1:].argmax()
                )
                + 1
            )
        assert filled[place] == best
        tokens.append(best)


def test_exposures_are_the_last_unclicks_between_two_clicks() -> None:
    sequences = log(
        [
            (1, False),
            (2, True),
            (3, False),
            (4, False),
            (5, False),
            (6, True),
            (7, True),
            (8, False),
        ],  # before the first, after the last: no prompts
        [],
        [(9, False), (10, False)],
        [(11, True), (12, False), (13, True)],
    )
    clicks, prompts = exposures(sequences, 2)
    assert clicks.items.tolist() == [2, 6, 7, 11, 13]
    assert prompts.tolist() == [[0, 0], [4, 5], [0, 0], [0, 0], [12, 0]]
    dialogues = interleave(clicks.offsets, clicks.items, prompts)
    assert dialogues.offsets.tolist() == [0, 5, 5, 5, 8]
    assert dialogues.tokens.tolist() == [2, 4, 5, 6, 7, 11, 12, 13]
    assert dialogues.prompt.tolist() == [False, True, True, False, False, False, True, False]
    assert dialogues.target.tolist() == [6, 0, 0, 7, 0, 13, 0, 0]
    assert dialogues.following().tolist() == [6, 6, 6, 7, 0, 13, 13, 0]
    tokens, segments = dialogues.last(4)
    assert tokens.tolist() == [[4, 5, 6, 7], [0] * 4, [0] * 4, [0, 11, 12, 13]]
    assert segments.tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0, 0, 1, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 6))
def test_exposures_agree_with_walking_along_each_user(seed: int, window: int) -> None:
    sequences = random_log(seed, clicks=0.5)
    clicks, prompts = exposures(sequences, window)
    expected, row = [], 0
    for user in range(len(sequences)):
        shown: list[int] | None = None
        for place in range(sequences.offsets[user], sequences.offsets[user + 1]):
            if sequences.clicked[place]:
                kept = [] if shown is None or window == 0 else shown[-window:]
                expected.append(kept + [0] * (window - len(kept)))
                shown, row = [], row + 1
            elif shown is not None:
                shown.append(int(sequences.items[place]))
    assert prompts.tolist() == expected
    assert row == len(clicks.items)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(1, 20))
def test_recent_tokens_are_the_end_of_the_dialogue(seed: int, window: int, length: int) -> None:
    sequences = random_log(seed, n_users=9, longest=18, clicks=0.5)
    clicks, prompts = exposures(sequences, window)
    expected = interleave(clicks.offsets, clicks.items, prompts).last(length)
    got = recent(sequences.last(20), window, length)
    assert [a.tolist() for a in got] == [a.tolist() for a in expected]


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("cut", ["last", "all"])
def test_lessons_hold_every_target_with_its_token_once(cut: Any, everywhere: bool) -> None:
    sequences = random_log(5, n_users=30, longest=30, clicks=0.6)
    dialogues = converse(small_gpt(), sequences, Prompts(2, "exposed"), "exposed", "items")
    target = dialogues.following() if everywhere else dialogues.target
    lessons = Lessons(sequences.user, dialogues, 6, cut, everywhere)
    tokens, _, targets, row, users = lessons.batch(np.arange(len(lessons.row)), False, "cpu")
    assert (tokens != 0).sum(1).tolist() == lessons.lengths.tolist()
    assert int(lessons.lengths.max()) <= 6
    assert ((targets != 0) <= (tokens != 0)).all()
    assert users.tolist() == sequences.user[row].tolist()
    for user in range(len(sequences)):
        mine = slice(dialogues.offsets[user], dialogues.offsets[user + 1])
        pairs = [
            (int(a), int(b)) for a, b in zip(dialogues.tokens[mine], target[mine], strict=True)
        ]
        useful = max((i + 1 for i, (_, goal) in enumerate(pairs) if goal), default=0)
        wanted = pairs[:useful] if cut == "all" else pairs[:useful][-6:]
        rows = np.flatnonzero(row == user)[::-1]  # pieces are cut from the end
        got = [
            (int(a), int(b)) for r in rows for a, b in zip(tokens[r], targets[r], strict=True) if a
        ]
        assert got == wanted
    full = lessons.batch(np.arange(2), True, "cpu")[0]
    assert full.shape[1] == 6


def test_windows_out_of_range_and_tails_of_exposures_are_refused() -> None:
    with pytest.raises(ValueError, match="'window' of prompts must be within"):
        Prompts(-1)
    with pytest.raises(ValueError, match="cannot be 'exposed'"):
        Prompts(1, "exposed", "tail")


def test_doubtful_prompts_are_walked_over_but_do_not_stand() -> None:
    model, sequences = small_gpt(seed=2), random_log(3)
    clicks = sequences.clicks()
    empty = np.zeros((len(clicks.items), 2), dtype=np.int64)
    every = generate(model, clicks, empty, Prompts(2))
    sure = np.ones(every.shape)
    for row in range(len(clicks)):
        start, end = clicks.offsets[row], clicks.offsets[row + 1]
        tokens = clicks.items[start : start + 1].tolist()
        segments = [REAL] * len(tokens)
        for place in range(start + 1, end):
            for k in range(2):
                with torch.no_grad():
                    seen = (
                        torch.tensor([tokens[-12:]]),
                        torch.tensor([int(clicks.user[row])]),
                        torch.tensor([segments[-12:]]),
                    )
                    sure[place, k] = float(
                        (model(*seen)[0, -1] @ model.items.weight.T[:, 1:]).softmax(0).max()
                    )
                tokens, segments = [*tokens, int(every[place, k])], [*segments, GENERATED]
            tokens, segments = [*tokens, int(clicks.items[place])], [*segments, REAL]
    least = float(np.median(sure[every > 0])) + 1e-6
    some = generate(model, clicks, empty, Prompts(2, least=least))
    clear = abs(sure - least) > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(some[clear], np.where(sure >= least, every, 0)[clear])
    assert 0.3 < (some > 0).sum() / (every > 0).sum() < 0.7


@pytest.mark.parametrize(("beyond", "until"), [(0, 5), (5, 0), (3, 6)])
def test_prompts_beyond_and_until_so_many_clicks(beyond: int, until: int) -> None:
    model, sequences = small_gpt(seed=2), random_log(3)
    clicks = sequences.clicks()
    given = (Prompts(2, "model"), Prompts(2, "model", beyond=beyond, until=until))
    every, some = (converse(model, sequences, prompts, "model", "items") for prompts in given)
    n = np.diff(clicks.offsets)
    asked = (n > beyond) & (n <= (until or n.max()))
    assert 0 < asked.sum() < len(asked)
    for row in range(len(clicks)):
        mine = some.tokens[some.offsets[row] : some.offsets[row + 1]].tolist()
        theirs = every.tokens[every.offsets[row] : every.offsets[row + 1]].tolist()
        assert mine == (
            theirs
            if asked[row]
            else clicks.items[clicks.offsets[row] : clicks.offsets[row + 1]].tolist()
        )


def test_filters_of_prompts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'least' of prompts must be within \[0, 1\); got 1.0"):
        Prompts(least=1.0)
    with pytest.raises(
        ValueError,
        match=r"'beyond' of prompts must be at least 0, 'until' 0 or more than it; got 8 and 5",
    ):
        Prompts(beyond=8, until=5)
    with pytest.raises(ValueError, match="of prompts between items; got form 'tail'"):
        Prompts(form="tail", source="model", until=3)
    with pytest.raises(ValueError, match=r"'anew' keep their number .* got 0\.1"):
        Prompts(anew=True, least=0.1)
