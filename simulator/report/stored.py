"""How the types of a report are kept as JSON: one writer and one reader for report.json and
compare.json, both guided by the fields of the types.

A field is a key of its own name, in the order of the fields. JSON has neither NaN nor infinite
numbers: both are null there, and a null number is read as NaN.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from simulator.log.files import json_text
from simulator.report.content import Content, PairLift, WorldMarginal
from simulator.stats.decision import Decision
from simulator.stats.decision_audit import AuditedDecision
from simulator.stats.ensemble import WorldsLift
from simulator.stats.fit_audit import AuditedMethods
from simulator.stats.methods import MethodLift
from simulator.stats.segments import Segment
from simulator.stats.sequential import Peeks
from simulator.stats.verdict import Lift

T = TypeVar("T")

NOT_STORED = {(Lift, "note")}
"""Fields that are not written: the sentence of a verdict has the note."""

SPREAD_OUT = {(Segment, "row"), (PairLift, "row")}
"""Fields whose own keys stand in their place."""

LEFT_OUT_IF_NONE = {(WorldMarginal, "feed"), (Content, "catalogues")}

DERIVED: dict[type, Callable[[Any], dict[str, Any]]] = {
    Lift: lambda row: {"difference": encode(row.difference)},
    MethodLift: lambda one: {
        "verdict": one.lift.words,
        "share_of_fits": encode(one.components.share_of_fits),
    },
    AuditedDecision: lambda one: {"holds": one.holds},
    AuditedMethods: lambda one: {"holds": one.holds, "warning": one.warning},
    WorldsLift: lambda row: {
        "verdict": row.words,
        "share_of_worlds": row.share_of_worlds,
    },
    Decision: lambda decision: {"answer": decision.answer},
    Peeks: lambda peeks: {
        "stop": {rule: peeks.stop(rule) for rule in ("always_valid", "obrien_fleming", "pocock")}
    },
}
"""Keys that are written and not read: they follow from the others."""


class StoredError(ValueError):
    """A stored value is not what its type asks for; the message names the key, the rule and the
    value.
    """


def as_json(value: Any) -> str:
    """Indented JSON without NaN."""
    return json_text(encode(value))


def encode(value: Any) -> Any:
    """Dicts, lists, strings and numbers for a value of any type of a report."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _encode_fields(value)
    if isinstance(value, Mapping):
        return {key: encode(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _encode_fields(value: Any) -> dict[str, Any]:
    kind = type(value)
    keys: dict[str, Any] = {}
    for one in dataclasses.fields(value):
        place, inner = (kind, one.name), getattr(value, one.name)
        if place in NOT_STORED or (place in LEFT_OUT_IF_NONE and inner is None):
            continue
        if place in SPREAD_OUT:
            keys |= encode(inner)
        else:
            keys[one.name] = encode(inner)
    derive = DERIVED.get(kind)
    return keys if derive is None else keys | derive(value)


def decode(kind: type[T], stored: Any) -> T:
    """The value of type `kind` that `stored` is the JSON of. Keys that the type does not have are
    passed over; a key that is missing has the default of its field.

    Raises:
        StoredError: a key is missing, or a value is of another type.
    """
    value: T = _decode(kind, stored, "")
    return value


def _decode(hint: Any, stored: Any, place: str) -> Any:
    """The value at `place` (a dotted key) that `hint` asks for."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _decode_fields(hint, stored, place)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [one for one in get_args(hint) if one is not type(None)]
        return None if stored is None else _decode(inner[0], stored, place)
    if origin is Literal:
        return _expect(stored in get_args(hint), f"one of {list(get_args(hint))}", stored, place)
    if origin is tuple:
        _expect(isinstance(stored, list), "a list", stored, place)
        one, _ = get_args(hint)
        return tuple(_decode(one, inner, f"{place}.{i}") for i, inner in enumerate(stored))
    if origin is not None and issubclass(origin, Mapping):
        _expect(isinstance(stored, dict), "an object", stored, place)
        _, one = get_args(hint)
        return {key: _decode(one, inner, f"{place}.{key}") for key, inner in stored.items()}
    return _decode_plain(hint, stored, place)


def _decode_plain(hint: Any, stored: Any, place: str) -> Any:
    if hint is Any:
        return stored
    if hint is float:
        if stored is None:
            return math.nan
        is_number = isinstance(stored, (int, float)) and not isinstance(stored, bool)
        return _expect(is_number, "a number or null", stored, place)
    if hint is int:
        is_whole = isinstance(stored, int) and not isinstance(stored, bool)
        return _expect(is_whole, "a whole number", stored, place)
    if issubclass(hint, Enum):
        return hint(_expect(stored in list(hint), f"one of {list(map(str, hint))}", stored, place))
    return _expect(isinstance(stored, hint), f"of type {hint.__name__}", stored, place)


def _expect(is_so: bool, rule: str, stored: Any, place: str) -> Any:
    if not is_so:
        raise StoredError(f"{place.lstrip('.') or 'the whole'}: must be {rule}; got {stored!r:.60}")
    return stored


@lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_fields(kind: type, stored: Any, place: str) -> Any:
    _expect(isinstance(stored, dict), "an object", stored, place)
    values = {}
    for one in dataclasses.fields(kind):
        hint = _hints(kind)[one.name]
        if (kind, one.name) in SPREAD_OUT:
            values[one.name] = _decode(hint, stored, place)
        elif one.name in stored:
            values[one.name] = _decode(hint, stored[one.name], f"{place}.{one.name}")
        elif (kind, one.name) in LEFT_OUT_IF_NONE:
            values[one.name] = None
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise StoredError(f"{place.lstrip('.') or 'the whole'}: has no {one.name!r}")
    return kind(**values)
