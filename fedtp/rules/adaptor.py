"""Adaptors inside the block of the layer that they follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.adaptors import Bottleneck, ScaleShift
from fedtp.rules.tail import Tail


class ScaleShiftTail(Tail):
    """``w a + b`` per feature or channel."""

    batches_devices = False

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        a: Tensor = self.layer(z)
        return a, z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return error * self._spread(self.parameters[0], error)

    def accumulate(self, into: Sequence[Tensor], saved: Tensor, error: Tensor, keep: float) -> None:
        """Add ``Σ error z`` to the scale, ``Σ error`` to the shift."""
        for target, direction in zip(into, (error * saved, error), strict=True):
            target.mul_(keep).add_(direction.sum_to_size(self._spread(target, error).shape).view_as(target))

    def inputs(self, saved: Tensor) -> tuple[Tensor, float]:
        """Return the numbers that are scaled; each parameter sees one of them, a feature's mean."""
        return saved.flatten(1), 1.0 / saved[0].numel()

    def _spread(self, parameter: Tensor, like: Tensor) -> Tensor:
        return parameter.view(-1, *[1] * (like.dim() - 2))


class BottleneckTail(Tail):
    """``a + U tanh(V a)``: the products of two dense layers."""

    batches_devices = False

    def forward(self, z: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # noqa: D102
        between = torch.tanh(self.layer.down(z))
        return z + self.layer.up(between), (z, between)

    def _at_between(self, error: Tensor, between: Tensor) -> Tensor:
        backward: Any = torch.ops.aten.tanh_backward
        at: Tensor = backward(error @ self.layer.up.weight, between)
        return at

    def backward(self, error: Tensor, saved: tuple[Tensor, Tensor]) -> Tensor:  # noqa: D102
        back: Tensor = error + self._at_between(error, saved[1]) @ self.layer.down.weight
        return back

    def accumulate(self, into: Sequence[Tensor], saved: tuple[Tensor, Tensor], error: Tensor, keep: float) -> None:
        """Add each product's part: error times input."""
        z, between = saved
        at = self._at_between(error, between)  # before the layer changes
        down, down_bias, up, up_bias = into
        for weight, bias, e, seen in ((down, down_bias, at, z), (up, up_bias, error, between)):
            weight.addmm_(e.mT, seen, beta=keep)
            bias.mul_(keep).add_(e.sum(0))

    def inputs(self, saved: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        """Return what the units between put out: what the way out of the bottleneck sees."""
        return saved[1], 1.0


TAILS: dict[type[nn.Module], type[Tail]] = {ScaleShift: ScaleShiftTail, Bottleneck: BottleneckTail}
