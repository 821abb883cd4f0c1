"""Which kinds of feedback a log may have besides click and watch time."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of feedback: what its metric counts, in which unit, and whether more is better."""

    counts: str
    unit: str
    higher_is_better: bool = True


FEEDBACK: dict[str, Kind] = {
    "long_view": Kind("long views", "long views"),
    "like": Kind("likes", "likes"),
    "comment": Kind("comments written", "comments"),
    "forward": Kind("videos forwarded", "forwards"),
    "follow": Kind("authors followed", "follows"),
    "hate": Kind("reports of dislike", "reports", higher_is_better=False),
    "profile_enter": Kind("visits to an author's profile", "visits"),
}
"""Kinds of feedback besides click and watch, each a column of the log and a metric; a log has the
columns that it knows. Another kind is one more line, at the end: the order is that of the columns.
"""
