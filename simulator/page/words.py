"""How numbers and names are written: a lift, an interval, a p-value, a count. Pure functions; no
layout. A number that is not defined is None or NaN, and reads `n/a`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeGuard

LIGHTS: dict[str, str] = {"green": "●", "amber": "▲", "red": "■"}
"""A sign for each colour of a check."""


def is_defined(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite number to be written."""
    return value is not None and math.isfinite(value)


def title(metric: str) -> str:
    """The metric as the reader is shown it: `watch_time` -> `Watch time`."""
    text = metric.replace("_", " ")
    return text[:1].upper() + text[1:]


def percent(fraction: float | None, digits: int = 3, sign: bool = True) -> str:
    """A fraction in the paper's style: `.00772` -> `+0.772%`; `n/a` where it is not defined."""
    if not is_defined(fraction):
        return "n/a"
    text = f"{100 * abs(fraction):.{digits}f}%"
    if float(text[:-1]) == 0 or (fraction > 0 and not sign):
        return text
    return ("+" if fraction > 0 else "-") + text


def interval(low: float | None, high: float | None, digits: int = 3, sign: bool = True) -> str:
    """`-0.310% to +1.854%`; an end that is open (an unbounded Fieller set) is said in words."""
    if not is_defined(low):
        return f"below {percent(high, digits, sign)}" if is_defined(high) else "unbounded"
    if not is_defined(high):
        return f"above {percent(low, digits, sign)}"
    return f"{percent(low, digits, sign)} to {percent(high, digits, sign)}"


def share(level: float) -> str:
    """`95%`, `99.5%`: a level, with as many digits as it has."""
    return f"{100.0 * level:.6g}%"


def probability(p: float | None) -> str:
    """`.034`; below a thousandth `<.001`; `n/a` where it is not defined."""
    if p is None or math.isnan(p):
        return "n/a"
    if p < 0.001:
        return "<.001"
    return f"{p:.3f}".removeprefix("0")


def number(value: float | None) -> str:
    """A mean to four significant digits, thousands separated; `n/a` where it is not defined."""
    if value is None or math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.2e}"


def two(value: float | None) -> str:
    """A correlation or a statistic of a test to two decimals."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.2f}"


def score(value: float | None) -> str:
    """A hit rate or NDCG to four decimals, as papers print it: `.0339`."""
    return _score(value, ".4f")


def signed_score(value: float | None) -> str:
    """A difference of two scores: `+.0012`."""
    return _score(value, "+.4f")


def _score(value: float | None, form: str) -> str:
    if value is None or math.isnan(value):
        return "n/a"
    return re.sub(r"^([+-]?)0\.", r"\1.", format(value, form))


def between(low: float | None, high: float | None, show: Callable[[float | None], str]) -> str:
    """The ends of an interval of numbers: `1.2 to 3.4`; `n/a` where neither is known."""
    if not is_defined(low) and not is_defined(high):
        return "n/a"
    return f"{show(low)} to {show(high)}"


def whole(n: float | None) -> str:
    """A whole number, thousands separated."""
    return f"{n:,.0f}" if is_defined(n) else "n/a"


def counted(n: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{whole(n)} {noun}" if n == 1 else f"{whole(n)} {noun}s"


def detects(mde: float | None) -> str:
    """The smallest detectable lift: `±0.42%`."""
    return f"±{percent(mde, 2, sign=False)}" if is_defined(mde) else "n/a"


def listed(words: Sequence[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


MOST_NAMES = 12


def some_of(names: Sequence[str]) -> str:
    """The names that there are, for a message: `['a', 'b']`, of many the first and their number."""
    if len(names) <= MOST_NAMES:
        return str(list(names))
    return f"{list(names[:MOST_NAMES])} and {len(names) - MOST_NAMES:,} more"


def typeset(text: str) -> str:
    """A hyphen before a number becomes a minus sign, and no line breaks between p and its value."""
    return re.sub(r"(?<![\w.-])-(?=[\d.])", "−", re.sub(r"\bp (?=[.<]|1\.000)", "p\u00a0", text))


def sentenced(text: str) -> str:
    """A phrase as a sentence: a capital first, a stop at the end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
