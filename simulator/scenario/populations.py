"""The kinds of users that a scenario may have, and the section that configures each."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny

from policies.calls import Limit
from simulator.config.document import disagreement, near, shown
from simulator.config.section import ConfigSection, Params
from simulator.users.base import Population, Source

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


YARDSTICKS = ("production", "oracle")
"""Policies that look into the users of these kinds, and into no others."""

_OTHERS: dict[str, Any] = {"not": {"enum": [*POPULATIONS]}}
"""JSON schema of the kinds that are not abtest's own."""


class PluginUsers(ConfigSection):
    """Users of a user model that is not abtest's own (docs/users.md)."""

    kind: str = Field(
        description="a registered name (`abtest users list`), `module:Class` or `file.py:Class`",
        json_schema_extra=_OTHERS,
    )
    params: Params = Field(default={}, description="its parameters")
    n_users: int | None = Field(
        default=None, ge=1, description="of a synthetic world; a real log says it itself"
    )
    n_items: int | None = Field(
        default=None, ge=1, description="of a synthetic world; a real log says it itself"
    )


def population_class(kind: str) -> type[ConfigSection]:
    """The section class of a kind of users."""
    if kind not in POPULATIONS:
        return PluginUsers
    module, name = POPULATIONS[kind].split(":")
    section: type[ConfigSection] = getattr(importlib.import_module(module), name)
    return section


def population(value: Any) -> ConfigSection:
    """The users section from its plain values; an instance passes through. No user model is
    imported.

    Raises:
        ValueError: not a mapping, no or an unknown `kind`, or what the section itself complains of.
    """
    if isinstance(value, ConfigSection):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping with the key `kind`")
    kind = value.get("kind")
    if not (isinstance(kind, str) and _is_known(kind)):
        names = [*POPULATIONS, *_registered()]
        own = "a user model of your own is `module:Class` or `file.py:Class`"
        advice = f"{near(str(kind), names)} ({own})"
        raise disagreement([(("kind",), f"no kind {shown(kind)}; {advice}")])
    return population_class(kind).model_validate(dict(value))


def behind(section: ConfigSection, folder: Path, seconds: float = 0.0) -> Population:
    """The population that a users section configures: itself, or the user model that it names.

    Args:
        section: `users` of a scenario.
        folder: where plug-in files are looked up.
        seconds: that one call of a user model's answers may take; 0 = any.

    Raises:
        UserModelError: there is no such user model, or it cannot be made.
    """
    if not isinstance(section, PluginUsers):
        own: Any = section
        return own  # type: ignore[no-any-return]
    from simulator.users.plugins import Plugged

    limit = Limit(seconds, f"engine.time_limit ({seconds:g} s)")
    return Plugged.of(section.kind, section.params, folder, section.n_users, section.n_items, limit)


def synthetic_source(section: ConfigSection, folder: Path, seed: int) -> Source:
    """What there is of a synthetic world before anybody lives, as `behind` its users section.

    Raises:
        UserModelError: as `behind`; or its code failed.
    """
    population: Any = behind(section, folder)
    source: Source = population.source(seed)
    return source


def is_synthetic(section: ConfigSection) -> bool | None:
    """Whether users make their own catalogue and history; None where they may do either."""
    if isinstance(section, PluginUsers):
        return None
    kind: Any = section
    return kind.kind in SYNTHETIC


def _is_known(kind: str) -> bool:
    return kind in POPULATIONS or ":" in kind or kind in _registered()


def _registered() -> list[str]:
    from simulator.users.plugins import USER_MODELS

    return list(USER_MODELS.available())


Users = Annotated[SerializeAsAny[ConfigSection], BeforeValidator(population)]
"""The type of a `users` section: its `kind` decides which further keys there are."""
