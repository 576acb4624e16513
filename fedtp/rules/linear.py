"""The rule of ``nn.Linear``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.rules.base import Rule


class LinearRule(Rule):
    """``z = x Wᵀ + b``; a local error ``e`` at ``z`` moves ``W`` along ``eᵀ x`` and ``b`` along ``Σ e``."""

    batches_devices = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        weight, *_ = self.parameters  # [outputs, inputs], or [devices, outputs, inputs]
        self.devices = len(weight) if weight.dim() == 3 else 0

    def apply(self, x: Tensor) -> Tensor:
        """Compute ``x Wᵀ + b`` for ``x`` of shape ``[batch, features]`` or ``[devices, batch, features]``."""
        weight, *bias = self.parameters
        if x.dim() != weight.dim() or x.shape[-1] != weight.shape[-1] or x.dtype != weight.dtype:
            raise ModelError(
                f"nn.Linear of {weight.dtype} with {weight.shape[-1]} inputs got an input of {x.dtype} and shape "
                f"{tuple(x.shape)}; give it [batch, {weight.shape[-1]}] (nn.Flatten() flattens images)."
            )
        if not self.devices:
            return nn.functional.linear(x, weight, *bias)
        if not bias:
            return torch.bmm(x, weight.mT)
        return torch.baddbmm(bias[0].unsqueeze(-2), x, weight.mT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the output; the update will need the input."""
        return self.apply(x), x

    def accumulate(self, into: Sequence[Tensor], saved: Tensor, error: Tensor, keep: float) -> None:
        """Add ``errorᵀ x`` to the weight and the summed error to the bias, as `Rule.accumulate` says."""
        weight, *bias = into
        if self.devices:
            weight.baddbmm_(error.mT, saved, beta=keep)
        else:
            weight.addmm_(error.mT, saved, beta=keep)
        for b in bias:
            if keep != 1.0:
                b.mul_(keep)
            b.add_(error.sum(-2))

    def inputs(self, saved: Tensor) -> tuple[Tensor, float]:
        """Return the input."""
        return saved, 1.0

    @property
    def outputs(self) -> int:
        """Units."""
        return self.parameters[0].shape[-2]

    def forward_flops(self, x: Tensor) -> int:
        """Two operations, a product and a sum, per weight."""
        return 2 * self.parameters[0].shape[-2:].numel()
