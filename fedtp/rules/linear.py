"""The rule of ``nn.Linear``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.rules.base import Rule


class LinearRule(Rule):
    """``z = x Wᵀ + b``; a local error ``e`` at ``z`` moves ``W`` along ``eᵀ x`` and ``b`` along ``Σ e``."""

    batches_devices = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.linear = cast(nn.Linear, layer)

    @property
    def devices(self) -> int:
        """How many devices' copies the weight ``[devices, outputs, inputs]`` holds."""
        weight = self.linear.weight
        return len(weight) if weight.dim() == 3 else 0

    def forward(self, x: Tensor) -> Tensor:
        """Compute ``x Wᵀ + b`` for ``x`` of shape ``[batch, features]`` or ``[devices, batch, features]``."""
        weight, bias = self.linear.weight, self.linear.bias
        if x.dim() != weight.dim() or x.shape[-1] != weight.shape[-1]:
            raise ModelError(
                f"nn.Linear with {weight.shape[-1]} inputs got an input of shape {tuple(x.shape)}; "
                f"give it [batch, {weight.shape[-1]}] (nn.Flatten() flattens images)."
            )
        if weight.dim() == 2:
            return nn.functional.linear(x, weight, bias)
        if bias is None:
            return torch.bmm(x, weight.mT)
        return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)

    def accumulate(self, into: Sequence[Tensor], x: Tensor, error: Tensor, keep: float) -> None:
        """Add ``errorᵀ x`` to the weight and the summed error to the bias, as `Rule.accumulate` says."""
        weight = into[0]
        if weight.dim() == 2:
            weight.addmm_(error.mT, x, beta=keep)
        else:
            weight.baddbmm_(error.mT, x, beta=keep)
        if len(into) == 2:
            bias = into[1]
            if keep != 1.0:
                bias.mul_(keep)
            bias.add_(error.sum(-2))

    def squared_norm(self, x: Tensor) -> Tensor:
        """Squared norm of each row of the input."""
        return torch.linalg.vector_norm(x, dim=-1).square_()

    def forward_flops(self, x: Tensor) -> int:
        """Two operations, a product and a sum, per weight."""
        return 2 * self.linear.in_features * self.linear.out_features
