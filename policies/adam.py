"""The optimiser of the one trainer. No epoch and no loss lives here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    def step(self) -> None:
        """Move every parameter against its gradient."""
        parameters: list[Tensor] = []
        gradients: list[Tensor] = []
        steps, means, squares = [], [], []
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is None:
                continue
            if number not in self._slots:
                zero = torch.zeros((), dtype=torch.float32, device=parameter.device)
                self._slots[number] = (
                    zero,
                    torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    torch.zeros_like(parameter, memory_format=torch.preserve_format),
                )
            step, mean, square = self._slots[number]
            parameters.append(parameter)
            gradients.append(parameter.grad)
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
