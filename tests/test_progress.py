"""The bars: silent where nobody looks, a rate where requests are counted."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from simulator.run.progress import _Board, board, compiling, silent


def test_nobody_at_a_terminal_sees_nothing(monkeypatch, capsys):
    for tty, quiet in ((False, False), (True, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda tty=tty: tty)
        with board(quiet=quiet) as progress:
            assert progress is silent
            progress("fit", 1, 2, {"loss": 0.5})
    assert capsys.readouterr() == ("", "")


def test_each_stage_has_its_bar_with_its_figures(monkeypatch):
    calls: list[Any] = []
    bars = SimpleNamespace(
        add_task=lambda stage, total, figures: calls.append(("add", stage, total)) or len(calls),
        update=lambda task, **news: calls.append(
            (task, news["completed"], news["total"], news["figures"])
        ),
    )
    now = iter([10.0, 12.0])
    monkeypatch.setattr("simulator.run.progress.time.monotonic", lambda: next(now))
    seen = _Board(bars)
    seen("fit a", 1, 40, {"loss": 0.61234, "ndcg@10": 0.031})
    seen("simulate a", 1, 5, {"requests": 1000.0})
    seen("simulate a", 2, 5, {"requests": 5000.0})
    assert calls == [
        ("add", "fit a", 40),
        (1, 1, 40, "loss 0.6123  ndcg@10 0.031"),
        ("add", "simulate a", 5),
        (3, 1, 5, ""),
        (3, 2, 5, "requests/s 2,000"),
    ]


def test_a_terminal_gets_bars(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with board() as progress:
        progress("fit comirec", 3, 3, {"loss": 0.5})
    assert "fit comirec" in capsys.readouterr().err


def test_finished_bars_do_not_pile_up() -> None:
    shown: dict[str, int] = {}
    bars = SimpleNamespace(
        add_task=lambda stage, total, figures: stage,
        update=lambda task, **news: shown.update({task: news["completed"]}),
        remove_task=shown.pop,
    )
    board = _Board(bars)
    for stage in ("history 0-99", "history 100-199", "fit a"):
        for done in (1, 2):
            board(stage, done, 2, {})
    assert shown == {"fit a": 2}
    board("fit a", 1, 3, {})  # goes on after all
    board("simulate", 1, 9, {})
    assert shown == {"fit a": 1, "simulate": 1}


def test_kernels_that_are_compiled_are_a_stage() -> None:
    from numba import njit

    news: list[tuple[str, int, int]] = []
    kernel = njit(lambda x: x + 1)
    with compiling(lambda stage, done, total, figures: news.append((stage, done, total))):
        assert kernel(1) == 2
        told = len(news)
        assert kernel(2) == 3
    assert told == len(news) >= 2
    assert news[0][0].startswith("compile kernels")
    assert news[0][1:] == (0, 1)
    assert news[-1][1] == news[-1][2] >= 1
