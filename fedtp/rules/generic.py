"""What trains a layer that has no rule of its own: autograd, inside that one layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fedtp.errors import ModelError
from fedtp.rules.base import Rule
from fedtp.rules.tail import Tail


class GenericRule(Rule):
    """Any module from one tensor to one tensor. Its graph lives from `forward` to `accumulate`."""

    keeps_output = True

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the module on a detached input, so that no error can leave the layer."""
        with torch.enable_grad():
            output = self.layer(x.detach())
        if not isinstance(output, Tensor):
            raise ModelError(
                f"A {type(self.layer).__name__} puts out a {type(output).__name__}; every layer must give one tensor."
            )
        return output.detach(), (x, output)

    def accumulate(self, into: Sequence[Tensor], saved: tuple[Tensor, Tensor], error: Tensor, keep: float) -> None:
        """Add minus the gradient of the block's loss, found by autograd."""
        learning = [(target, p) for target, p in zip(into, self.parameters, strict=True) if p.requires_grad]
        directions = torch.autograd.grad(saved[1], [p for _, p in learning], error, allow_unused=True)
        for (target, _), direction in zip(learning, directions, strict=True):
            target.mul_(keep)
            if direction is not None:
                target.add_(direction)

    def inputs(self, saved: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        """Return the input; an index stands for a one-hot vector, as if all were the same: the cautious answer."""
        x, _ = saved
        if x.is_floating_point():
            return x.flatten(1), 1.0
        return torch.ones_like(x, dtype=self.parameters[0].dtype).flatten(1), 1.0

    @property
    def outputs(self) -> int | None:
        """What the module itself calls ``out_features``."""
        width = getattr(self.layer, "out_features", None)
        return width if isinstance(width, int) else None

    def forward_flops(self, x: Tensor) -> int:
        """Count by PyTorch's own counter, on a copy: counting must not move a normalisation's statistics."""
        layer = copy.deepcopy(self.layer).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(x[:1])
        return int(counter.get_total_flops())


class GenericTail(Tail):
    """Any parameterless module, by autograd through it alone."""

    batches_devices = False
    keeps_output = True

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run the module with a graph of its own."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            # A module that works in place may not do so on what the gradient is taken by.
            a = self.layer(z.clone() if getattr(self.layer, "inplace", False) else z)
        return a.detach(), (z, a)

    def backward(self, error: Tensor, saved: tuple[Tensor, Tensor]) -> Tensor:
        """Return the error at the input."""
        z, a = saved
        return torch.autograd.grad(a, z, error)[0]
