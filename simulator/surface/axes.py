"""Axes: which keys of a scenario a map goes over, and the values that each takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from simulator.config.document import ScenarioError, YamlDocument, shown
from simulator.page.words import number
from simulator.scenario.model import Scenario

LEVELS = {1: 17, 2: 9}
"""Values of a range, where there are so many axes: 17 or 81 cells."""
MOST = 25
"""Values of a list: more are a range."""

REFUSED = {
    "seed": "every run has a seed of its own",
    "engine": "it may not change a byte of a log",
    "worlds": "the map is of the scenario's own world",
    "metrics": "the lift of a map is of one metric (--metric)",
    **dict.fromkeys(("name", "description", "decision", "published"), "it changes no lift"),
}
"""Sections that no axis goes over, and why."""


class MapError(ValueError):
    """A map that cannot be made; the message says what to change."""


@dataclass(frozen=True)
class Axis:
    """A key and its values, which stand at equal distances.

    Attributes:
        key: dotted, as in the scenario.
        values: in order.
        scale: equal differences, equal ratios, or a list as it was written.
    """

    key: str
    values: tuple[Any, ...]
    scale: Literal["linear", "log", "list"]

    def named(self, place: int) -> str:
        """The value at a place as text."""
        return named(self.values[place])


def named(value: Any) -> str:
    """A value of a scenario as text: a number to four digits, anything else as in YAML."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value)


def read_axes(scenario: Scenario, over: Sequence[str]) -> tuple[Axis, ...]:
    """The axes that `KEY=VALUES` describe.

    `VALUES` is a range `LOW:HIGH`, one of equal ratios `LOW:HIGH:log`, or a list `A,B,C` of YAML
    values. A range is of whole numbers where the scenario has one at the key, or where it has none
    and both ends are written as such.

    Raises:
        MapError: not of this form, none, more than two, the same twice.
        ScenarioError: a key or a value that the scenario does not take.
    """
    if not 1 <= len(over) <= len(LEVELS):
        raise MapError(f"--over: a map goes over one key or two; got {len(over)}")
    axes = [_axis(scenario, text, LEVELS[len(over)]) for text in over]
    if len(axes) == 2 and axes[0].key == axes[1].key:
        raise MapError(f"--over {axes[0].key}: given twice; give two keys, or one")
    return tuple(axes)


def _axis(scenario: Scenario, text: str, levels: int) -> Axis:
    key, mark, written = text.partition("=")
    key, written = key.strip(), written.strip()
    here = f"--over {key}"
    if not (key and mark and written):
        form = "KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C"
        raise MapError(f"--over: must be {form}; got {shown(text)}")
    why = REFUSED.get(key.partition(".")[0])
    if why is not None:
        raise MapError(f"{here}: no axis of a map: {why}")
    present = _at(scenario, key)
    if isinstance(present, dict) and key.rpartition(".")[2] != "params":
        keys = ", ".join(present)
        raise MapError(f"{here}: is a section; take one of its keys: {keys}")
    parts = written.split(":")
    if len(parts) > 1 and not any(sign in written for sign in "[]{},\"'"):
        values = _range(here, parts, present, levels)
        scale: Literal["linear", "log", "list"] = "log" if len(parts) == 3 else "linear"
    else:
        values, scale = _list(here, written), "list"
    if len({json.dumps(value) for value in values}) < len(values):
        raise MapError(f"{here}: a value is there twice; got {shown(written)}")
    if not 2 <= len(values) <= MOST:
        raise MapError(f"{here}: must have 2 to {MOST} values; got {len(values)}")
    return Axis(key, values, scale)


def _at(scenario: Scenario, key: str) -> Any:
    """What the scenario has at a key; None where it says nothing there."""
    here: Any = scenario.resolved()
    for part in key.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return here


def _range(here: str, parts: Sequence[str], present: Any, levels: int) -> tuple[Any, ...]:
    """The values of `LOW:HIGH` or `LOW:HIGH:log`."""
    got = shown(":".join(parts))
    try:
        low, high = (float(part) for part in parts[:2])
    except ValueError as error:
        raise MapError(f"{here}: the ends of a range must be numbers; got {got}") from error
    is_log = len(parts) == 3 and parts[2].strip() == "log"
    if len(parts) > 2 and not is_log:
        raise MapError(f"{here}: a range is LOW:HIGH or LOW:HIGH:log; got {got}")
    if not -1e300 < low < high < 1e300 or (is_log and low <= 0):
        rule = "0 < LOW < HIGH" if is_log else "LOW < HIGH"
        raise MapError(f"{here}: must have {rule}; got {got}")
    spaced = np.geomspace(low, high, levels) if is_log else np.linspace(low, high, levels)
    written_whole = all(part.strip().lstrip("+-").isdigit() for part in parts[:2])
    is_whole = isinstance(present, int) or (present is None and written_whole)
    if is_whole and not isinstance(present, bool):
        return tuple(sorted({round(value) for value in spaced}))
    return tuple(float(f"{value:.6g}") for value in spaced)


def _list(here: str, written: str) -> tuple[Any, ...]:
    """The values of `A,B,C`: what YAML reads between brackets."""
    try:
        return tuple(YamlDocument.parse(f"values: [{written}]", here).values["values"])
    except ScenarioError as error:
        raise MapError(f"{here}: must be a list of YAML values; got {shown(written)}") from error
