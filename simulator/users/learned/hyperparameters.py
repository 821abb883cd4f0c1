"""The keys of the `users:` section of kind `learned`, which decide how its model is fitted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from simulator.config.section import ConfigSection


class Hyperparameters(ConfigSection):
    """How the response model is fitted."""

    kind: Literal["learned"] = "learned"
    dim: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="length of the user and item vectors"
    )
    hidden: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64, description="width of the shared encoder"
    )
    bins: Annotated[int, Field(ge=12, le=400)] = Field(
        default=48, description="bins of positive watch times"
    )
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    rate: Annotated[float, Field(gt=0, le=10)] = Field(
        default=4e-3, description="learning rate of the shared weights"
    )
    vector_rate: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=0.03, description="learning rate of vectors and features, times `rate`"
    )
    decay: Annotated[float, Field(ge=0, le=1e9)] = Field(
        default=300.0, description="weight decay of vectors and features"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    batch: Annotated[int, Field(ge=1, le=2**24)] = 2048
    bootstrap: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        default=0,
        description=(
            "0: fitted to the log as it is; 1, 2, ...: to the log with users drawn anew, another"
            " world each"
        ),
    )
