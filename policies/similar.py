"""What may have been meant by a name that nothing has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, names: Iterable[str], otherwise: str = "") -> str:
    """`did you mean 'popularity'?` for the most similar one of `names`; `otherwise` where none is
    similar.
    """
    # The comparison takes the product of both lengths, and a name may be as long as a file.
    similar = difflib.get_close_matches(name[:200], list(names), n=1)
    return f"did you mean {similar[0]!r}?" if similar else otherwise
