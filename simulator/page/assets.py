"""The style sheets and the script of pages and pictures."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def asset(name: str) -> str:
    """The text of a file of `templates`."""
    return files("simulator.page").joinpath("templates", name).read_text(encoding="utf-8")
