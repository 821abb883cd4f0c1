"""What a notebook shows for a value: registered where a type's page is made, so that the type need
not know its own page.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any


@singledispatch
def as_html(value: Any) -> str | None:
    """The HTML that a notebook shows in place of the text of `value`; None: that text."""
    return None
