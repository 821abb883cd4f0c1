"""The optimiser of the one trainer: Adam, and lazy Adam of large tables. No epoch and no loss lives
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

SLOTS = ("step", "exp_avg", "exp_avg_sq")
"""What is kept of each parameter: steps taken, and the moments m and v."""


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1; beta .9 and .999, epsilon 1e-8), with an L2 penalty.

    The arithmetic is torch's own, in one call for all parameters. `torch.optim.Adam` makes the same
    steps, but the first one of a process imports torch's compiler, which takes 1.1 s of CPU time
    and 70 MiB: of a small fit a tenth.

    A parameter whose gradient is sparse (`policies.operators.LARGE`) is trained by *lazy* Adam, as
    `torch.optim.SparseAdam` and TensorFlow's LazyAdam: the same arithmetic for the rows that the
    batch has, while all others stay, with their moments. It is another optimiser: in Adam a row
    goes on moving by its moments, which fade by beta, in all batches that do not have it; here
    they wait for the next batch that does. The steps t of the corrections for their start at 0 are
    those of the table, and the penalty, too, is that of the batch's rows. Where every batch has
    every row both are the same.

    Args:
        parameters: what is trained. One without a gradient stays as it is.
        rate: learning rate.
        decay: weight of the L2 penalty, whose gradient is added to that of the loss.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, decay: float = 0.0) -> None:
        self.parameters = list(parameters)
        self.rate, self.decay = rate, decay
        self._slots: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def forget(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def clip(self, largest: float) -> None:
        """Scale all gradients down together where their norm is above `largest`, as
        `torch.nn.utils.clip_grad_norm_`.
        """
        gradients = [gradient for _, gradient, _ in self._gradients()]
        norm = nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))

    def _gradients(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """Of each parameter that has a gradient its number, the gradient's values, and the rows
        `[r]` that they are of; None: all.
        """
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                parameter.grad = parameter.grad.coalesce()
                yield number, parameter.grad.values(), parameter.grad.indices()[0]
            else:
                yield number, parameter.grad, None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient."""
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        steps, means, squares = [], [], []
        moved: list[tuple[Tensor, Tensor, Tensor]] = []
        for number, gradient, rows in self._gradients():
            parameter: Tensor = self.parameters[number]
            if number not in self._slots:
                zero = torch.zeros((), dtype=torch.float32, device=parameter.device)
                self._slots[number] = (
                    zero,
                    torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    torch.zeros_like(parameter, memory_format=torch.preserve_format),
                )
            step, mean, square = self._slots[number]
            if rows is not None:
                wholes = parameter, mean, square
                parameter, mean, square = (whole[rows] for whole in wholes)
                moved += zip(wholes, (parameter, mean, square), (rows,) * 3, strict=True)
            parameters.append(parameter)
            gradients.append(gradient)
            steps.append(step)
            means.append(mean)
            squares.append(square)
        adam(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.rate,
            weight_decay=self.decay,
            eps=1e-8,
            maximize=False,
        )
        for whole, part, rows in moved:
            whole.index_copy_(0, rows, part)

    def state(self) -> dict[int, dict[str, Tensor]]:
        """The `SLOTS` of each parameter that has taken a step, by its number."""
        return {
            number: dict(zip(SLOTS, slots, strict=True)) for number, slots in self._slots.items()
        }

    def restore(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Go on from what another instance's `state` gave."""
        self._slots = {}
        for number, slots in state.items():
            device = self.parameters[number].device
            step, mean, square = (slots[name].to(device, copy=True) for name in SLOTS)
            self._slots[number] = step, mean, square
