"""The files that a result is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from simulator.log.files import json_text, write_texts
from simulator.page.blocks import Document
from simulator.page.html import page
from simulator.page.markdown import markdown

NO_MORE: Mapping[str, str] = MappingProxyType({})


def save(
    folder: Path, name: str, content: Any, shown: Document, more: Mapping[str, str] = NO_MORE
) -> Path:
    """Write a result as NAME.json, NAME.md and NAME.html, each by rename.

    Args:
        folder: is made if it is not there.
        name: of the files.
        content: what the JSON has: plain values, without NaN.
        shown: the page.
        more: texts of further files, by their names.

    Returns:
        The path of the page.

    Raises:
        FileError: a file cannot be written.
    """
    texts = {
        f"{name}.json": json_text(content),
        f"{name}.md": markdown(shown),
        **more,
        f"{name}.html": page(shown),
    }
    write_texts(folder, texts)
    return folder / f"{name}.html"
