"""Processes that train one network together, and the sums of their gradients. How such processes
are started, and what a network is, is not known here.

A batch is cut into micro-batches, and the gradient of the batch is the sum of theirs, added as a
binary tree over their order: (g0 + g1) + (g2 + g3). A rank computes the micro-batches below one
node of the tree; then ranks swap their sums pairwise, with the nearest in the tree first (recursive
doubling: Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in
MPICH", 2005, section 4.4). Since a + b and b + a have the same bits, every rank ends with those of
the whole tree, which do not depend on the number of ranks. An all-reduce of NCCL or gloo would not
do: it adds in an order that depends on it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from policies.device import DeviceError

if TYPE_CHECKING:
    from torch import Tensor

NONE, DENSE = -2, -1
"""What a rank says of a parameter that has no gradient, and of one whose gradient is whole; of a
sparse one it says the number of rows.
"""

PATIENCE = timedelta(days=365)
"""How long a rank waits for another one: whoever started them notices that one has died."""


class RankError(RuntimeError):
    """Another rank does not answer; what has ended it is said by whoever started it."""


@dataclass(frozen=True)
class Summand:
    """What micro-batches give.

    Attributes:
        loss: their share of the loss of the batch.
        gradients: of each parameter, whole or sparse and coalesced; None: it has none.
    """

    loss: float
    gradients: Sequence[Tensor | None]

    def plus(self, other: Summand) -> Summand:
        """The sum; the memory of this one's gradients is used for it."""
        pairs = zip(self.gradients, other.gradients, strict=True)
        return Summand(self.loss + other.loss, [_added(*pair) for pair in pairs])


@dataclass(frozen=True)
class RankGroup:
    """This process among those that train together.

    Attributes:
        rank: its number. The first one, 0, also validates, writes checkpoints and tells of
            progress.
        count: of processes, a power of two.
        file: by which they find one another; all see it, and nothing is there at first.
    """

    rank: int = 0
    count: int = 1
    file: Path | None = None

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.count}"

    @property
    def is_first(self) -> bool:
        """Whether it speaks for all."""
        return self.rank == 0

    def share(self, parts: int) -> range:
        """Which of `parts` micro-batches, a power of two, this rank computes. Where there are fewer
        of them than ranks, several ranks compute the same.
        """
        sharing = min(parts, self.count)
        first = self.rank * sharing // self.count * (parts // sharing)
        return range(first, first + parts // sharing)

    def total(self, part: Summand, parts: int, parameters: Sequence[Tensor]) -> Summand:
        """The sum over all micro-batches, the same bytes on all ranks.

        Args:
            part: the sum over this rank's `share`.
            parts: how many micro-batches there are.
            parameters: that the gradients are of.

        Raises:
            RankError: another rank does not answer.
        """
        distance = self.count // min(parts, self.count)
        while distance < self.count:
            part = part.plus(_swapped(part, self.rank ^ distance, parameters))
            distance *= 2
        return part

    def agreed(self, figure: Callable[[], float]) -> Callable[[], float]:
        """`figure` as the first rank computes it, on all ranks: what depends on it goes the same
        way everywhere.

        Raises:
            RankError: another rank does not answer.
        """
        if self.count == 1:
            return figure

        def told() -> float:
            import torch
            from torch import distributed

            device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
            own = figure() if self.is_first else 0.0
            value = torch.tensor([own], dtype=torch.float64, device=device)
            with _answered():
                distributed.broadcast(value, src=0)
            return value.item()

        return told

    @contextmanager
    def connected(self, device: str) -> Iterator[None]:
        """Connect the ranks, which are processes of one machine, for what is done inside. On
        `device` "cuda" each computes on a GPU of its own.

        Raises:
            DeviceError: there are fewer GPUs than ranks.
            RankError: another rank does not answer.
        """
        if self.count == 1:
            yield
            return
        import torch
        from torch import distributed

        if device == "cuda":
            gpus = torch.cuda.device_count()
            if gpus < self.count:
                raise DeviceError(
                    f"a fit by {self.count} processes needs as many CUDA devices, and torch sees"
                    f" {gpus} here: set engine.fit_processes to {1 << (gpus.bit_length() - 1)}"
                )
            torch.cuda.set_device(self.rank)
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        for library in ("GLOO", "NCCL"):  # no port of theirs is open to other machines
            if loopback is not None:
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)
        with _answered():
            distributed.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                init_method=f"file://{self.file}",
                rank=self.rank,
                world_size=self.count,
                timeout=PATIENCE,
            )
        try:
            yield
        finally:
            distributed.destroy_process_group()


ALONE = RankGroup()
"""A training in one process."""


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The sum of two gradients of a parameter, the same bits in either order."""
    if one is None or other is None:
        return other if one is None else one
    if one.is_sparse and other.is_sparse:
        return (one + other).coalesce()
    if one.is_sparse or other.is_sparse:
        return one.to_dense() + other.to_dense()
    return one.add_(other)


def _swapped(mine: Summand, peer: int, parameters: Sequence[Tensor]) -> Summand:
    """What the rank `peer` has, which gets `mine`: the loss and the kinds of all gradients, then
    the rows of the sparse ones, then all values.
    """
    import torch

    from policies.operators import sparse_rows

    given = [gradient for gradient in mine.gradients if gradient is not None]
    device, dtype = parameters[0].device, parameters[0].dtype
    head = torch.tensor([mine.loss, *map(_kind, mine.gradients)], dtype=torch.float64)
    loss, *kinds = _exchanged(head.to(device), len(head), peer).tolist()
    kinds = [int(kind) for kind in kinds]
    sizes = [_size(*pair) for pair in zip(kinds, parameters, strict=True)]
    none = torch.zeros(0, dtype=torch.int64, device=device)
    rows = torch.cat([none, *(g.indices()[0] for g in given if g.is_sparse)])
    rows = _exchanged(rows, sum(kind for kind in kinds if kind >= 0), peer)
    values = [(g.values() if g.is_sparse else g).reshape(-1) for g in given]
    flat = _exchanged(torch.cat([none.to(dtype), *values]), sum(sizes), peer)
    gradients: list[Tensor | None] = []
    for kind, parameter, part in zip(kinds, parameters, torch.split(flat, sizes), strict=True):
        if kind == NONE:
            gradients.append(None)
        elif kind == DENSE:
            gradients.append(part.view_as(parameter))
        else:
            own, rows = rows[:kind], rows[kind:]
            part = part.view(kind, *parameter.shape[1:])
            gradients.append(sparse_rows(own, part, parameter.shape, None))
    return Summand(loss, gradients)


def _kind(gradient: Tensor | None) -> int:
    if gradient is None:
        return NONE
    return len(gradient.values()) if gradient.is_sparse else DENSE


def _size(kind: int, parameter: Tensor) -> int:
    """How many values a gradient of some kind has."""
    if kind == DENSE:
        return parameter.numel()
    return max(kind, 0) * parameter[:1].numel() if parameter.dim() else 0


def _exchanged(mine: Tensor, n: int, peer: int) -> Tensor:
    """The `n` numbers that the rank `peer` has in the place of `mine` `[m]`."""
    from torch import distributed

    theirs = mine.new_empty(n)
    ways = ((distributed.isend, mine), (distributed.irecv, theirs))
    asked = [distributed.P2POp(way, each, peer) for way, each in ways if len(each)]
    if asked:
        with _answered():
            for work in distributed.batch_isend_irecv(asked):
                work.wait()
    return theirs


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankError(f"another process of this fit does not answer: {error}") from error
