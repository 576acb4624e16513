"""What trains a layer that has no rule of its own: autograd, inside that one layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedtp.rules.activation import Tail
from fedtp.rules.base import Rule


class GenericRule(Rule):
    """Any module: its own graph is kept from `forward` until `accumulate` or the next `forward`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self._output: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Run the module on a detached input, so that no error can leave the layer."""
        with torch.enable_grad():
            self._output = self.layer(x.detach())
        return self._output.detach().clone()  # the tail may write into it

    def accumulate(self, into: Sequence[Tensor], x: Tensor, error: Tensor, keep: float) -> None:
        """Add minus the gradient of the block's loss, found by autograd."""
        output, self._output = self._output, None
        assert output is not None, "accumulate follows forward"
        for target, direction in zip(
            into, torch.autograd.grad(output, self.parameters, error, allow_unused=True), strict=True
        ):
            target.mul_(keep)
            if direction is not None:
                target.add_(direction)

    def forward_flops(self, x: Tensor) -> int:
        """Count by PyTorch's own counter."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.layer(x[:1])
        return int(counter.get_total_flops())


class GenericTail(Tail):
    """Any parameterless module, by autograd through it alone."""

    def forward(self, z: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the module with a graph of its own."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            a = self.layer(z)
        return a.detach(), (z, a)

    def backward(self, error: Tensor, saved: tuple[Tensor, Tensor]) -> Tensor:
        """Return the error at the input."""
        z, a = saved
        return torch.autograd.grad(a, z, error)[0]
