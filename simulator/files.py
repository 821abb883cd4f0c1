"""Files that are whole or not there: written beside their place under another name, then renamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Where to write what will stand at `path`; it does only if nothing was raised."""
    staging = path.with_name(path.name + ".part")
    yield staging
    staging.replace(path)


def write_text(path: Path, text: str) -> Path:
    """Write a text file into a folder that is there; returns its path."""
    with staged(path) as staging:
        staging.write_text(text, encoding="utf-8")
    return path


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write text files by name into `folder`, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(folder / name, text)


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as one uncompressed npz; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged(path) as staging, staging.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
