"""What a cluster is asked to do in tests/test_ray.py, in a module that its processes load in a
moment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from policies.base import Progress
from simulator.run.contract import Needs


@dataclass(frozen=True)
class Square:
    """Computes a square; 13 it does not like."""

    n: int

    def __call__(self, progress: Progress) -> int:
        progress(f"square {self.n}", 1, 1, {})
        if self.n == 13:
            raise ValueError("thirteen")
        return self.n * self.n


@dataclass(frozen=True)
class See:
    """Which GPUs a task sees that needs some, and more memory than any node has."""

    gpus: int
    memory: int

    @property
    def needs(self) -> Needs:
        return Needs(self.memory, self.gpus)

    def __call__(self, progress: Progress) -> str:
        return f"sees {os.environ.get('CUDA_VISIBLE_DEVICES', 'all')!r}"


@dataclass(frozen=True)
class End:
    """Ends its process, within a policy's code or outside."""

    inside: bool

    def __call__(self, progress: Progress) -> None:
        from policies.calls import calling

        if self.inside:
            with calling("mine.py:Mine", "fit"):
                os._exit(3)
        os._exit(3)
