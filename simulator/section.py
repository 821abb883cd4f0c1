"""Section: the base of every configuration model. Nothing else lives here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent coercion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)
