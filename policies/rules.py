"""What pydantic says of a wrong value, in the words of somebody who writes YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

WORDS = {
    "list": "must be a list",
    "mapping": "must be a mapping of keys",
    "text": "must be text",
    "whole": "must be a whole number",
    "number": "must be a number",
    "yes or no": "must be true or false",
}

KINDS = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "dataclass_type"), "mapping"),
    **dict.fromkeys(("model_attributes_type", "dataclass_exact_type"), "mapping"),
    "string_type": "text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "whole"),
    **dict.fromkeys(("float_type", "float_parsing"), "number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "yes or no"),
}
"""Which words stand for an issue's type."""


def rule_of(issue: Mapping[str, Any]) -> str:
    """The rule that a value breaks: `must be a whole number`, `must be greater than 0`.

    Args:
        issue: one of `ValidationError.errors()`.
    """
    kind = KINDS.get(issue["type"])
    if kind is not None:
        return WORDS[kind]
    said = str(issue["msg"]).removeprefix("Value error, ")
    return re.sub(r"^(Input|String|Dictionary|Tuple|List) should ", "must ", said)
