"""Section: the base of every configuration model, and the kinds of values that sections share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MAX_IDS = 2**31 - 1
"""Users and items are numbered in 32 bits (the columns `user` and `item` of a log, the memory of a
life).
"""

MAX_DAYS = 3660
"""Ten years."""

NAME_LENGTH = 80
"""Characters of a name: one line of a terminal."""


class ConfigSection(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent coercion of types, no infinite
    number and no NaN.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, validate_default=True, allow_inf_nan=False
    )


def _printable(name: str) -> str:
    if not name.isprintable():
        wrong = next(character for character in name if not character.isprintable())
        raise ValueError(f"a name is one line of printable characters; U+{ord(wrong):04X} is none")
    if name != name.strip():
        raise ValueError("a name must not begin or end with a space")
    if set(name) == {"."}:
        raise ValueError("a name must not consist of dots alone")
    return name


Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(_printable)]
"""What people call an arm, a world, a channel: it is printed in tables and becomes part of a file's
name (`workspace.file_name`).
"""

Title = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
"""The name of a scenario: longer, since a further world's is made of two names."""


def _storable(params: dict[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as JSON has them, so that a log can say them: a plug-in's are not known
    better here.
    """
    stack: list[Any] = [params]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            stack += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            stack += value
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"must be finite numbers; got {value}")
        elif value is not None and not isinstance(value, (str, bool, int, float)):
            raise ValueError(
                "must be text, numbers, true or false, null, lists and mappings of these; got"
                f" {type(value).__name__}"
            )
    return params


Params = Annotated[dict[str, Any], AfterValidator(_storable)]
"""Hyper-parameters of a policy; its own class checks their names, types and ranges."""


def _distinct_numbers(table: Any) -> Any:
    """Keys of YAML are text: `0.1` and `0.10` are two keys and one number, of which the last would
    win in silence.
    """
    if isinstance(table, Mapping):
        numbers: dict[float, Any] = {}
        for key in table:
            try:
                number = float(key)
            except (TypeError, ValueError):
                continue  # the type of the keys complains
            if number in numbers:
                raise ValueError(f"{numbers[number]!r} and {key!r} are the same number; keep one")
            numbers[number] = key
    return table


DistinctNumbers = BeforeValidator(_distinct_numbers)
"""For mappings whose keys are numbers."""
