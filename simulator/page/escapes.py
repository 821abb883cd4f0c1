"""Text of others on its way to a reader: what a terminal would act upon, or no reader could see, is
shown as an escape.
"""

from __future__ import annotations

import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"})
"""Unicode's categories of characters without a picture: controls (`\\x1b[2J` clears a screen),
formats (U+202E turns a line round), halves of characters, characters that do not exist, and breaks
of lines that no editor shows."""


def printable(text: str) -> str:
    """The text with such characters as Python writes them, `\\x1b`, `\\u202e`; line ends and tabs
    stay.
    """
    if text.isprintable():
        return text
    return "".join(
        (
            c.encode("unicode_escape").decode()
            if c not in "\n\t" and unicodedata.category(c) in UNSEEN
            else c
        )
        for c in text
    )
