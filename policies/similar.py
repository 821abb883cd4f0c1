"""What may have been meant by a name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def similar(name: str, names: Iterable[str]) -> str | None:
    """The most similar one of `names`, whatever its case and the spaces around it; None where none
    is similar.
    """
    by_form = {_form(one): one for one in names}
    # The comparison takes the product of both lengths, and a name may be as long as a file.
    nearest = difflib.get_close_matches(_form(name[:200]), by_form, n=1)
    return by_form[nearest[0]] if nearest else None


def suggest(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """`did you mean 'popularity'?` for the most similar one of `names`; `otherwise` where none is
    similar.
    """
    nearest = similar(name, names)
    return otherwise if nearest is None else f"did you mean {nearest!r}?"


def _form(name: str) -> str:
    return name.strip().casefold()
