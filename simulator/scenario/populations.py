"""The kinds of users that a scenario may have, and the section that configures each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from simulator.config.document import disagreement, near, shown
from simulator.config.section import ConfigSection

POPULATIONS: dict[str, str] = {
    "choice": "simulator.users.choice:Choice",
    "markov": "simulator.users.markov:Markov",
    "learned": "simulator.users.learned:Learned",
    "logged": "simulator.users.logged:Logged",
    "held_out": "simulator.users.held_out:HeldOut",
}
"""Kinds of users -> the section that configures them; imported only when a scenario names them."""

SYNTHETIC = ("choice", "markov")
"""The kinds of users who make their own catalogue and history; all others live on the data of a
real log.
"""


def population_class(kind: str) -> type[ConfigSection]:
    """The section class of a kind of users."""
    module, name = POPULATIONS[kind].split(":")
    section: type[ConfigSection] = getattr(importlib.import_module(module), name)
    return section


def population(value: Any) -> ConfigSection:
    """The users section from its plain values; an instance passes through.

    Raises:
        ValueError: not a mapping, no or an unknown `kind`, or what the section itself complains of.
    """
    if isinstance(value, ConfigSection):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping with the key `kind`")
    kind = value.get("kind")
    if not (isinstance(kind, str) and kind in POPULATIONS):
        rule = f"no kind {shown(kind)}; {near(str(kind), POPULATIONS)}"
        raise disagreement([(("kind",), rule)])
    return population_class(kind).model_validate(dict(value))


Users = Annotated[SerializeAsAny[ConfigSection], BeforeValidator(population)]
"""The type of a `users` section: its `kind` decides which further keys there are."""
