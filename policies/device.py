"""Which processor neural policies are fitted on, and serve on. No model lives here."""

from __future__ import annotations

import os
import sys
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]


class DeviceError(ValueError):
    """A processor that was asked for and is not there."""


def device(
    wanted: Device, key: str = "engine.device", instead: str = "auto or cpu"
) -> Literal["cpu", "cuda"]:
    """The torch device of a fit, or of serving. Where it is `cuda`, torch's kernels are from then
    on those that give the same result each time.

    Args:
        wanted: `engine.device` of a scenario. `auto` is `cuda` where torch sees one and `cpu`
            elsewhere; where no policy has brought torch, it is not loaded for this.
        key: what said so, for the message.
        instead: what it may say where there is no `cuda`.

    Raises:
        DeviceError: `cuda` where torch sees none.
    """
    if wanted == "cpu" or (wanted == "auto" and "torch" not in sys.modules):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        # cuBLAS adds in a fixed order only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # for those who read what they did not write
        return "cuda"
    if wanted == "cuda":
        raise DeviceError(
            f"{key} is 'cuda', but torch {torch.__version__} sees no CUDA device here: set it to"
            f" {instead}"
        )
    return "cpu"
