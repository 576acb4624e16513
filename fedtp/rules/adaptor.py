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

    def apply(self, z: Tensor) -> Tensor:  # noqa: D102
        scale, shift = (self._spread(p, z) for p in self.parameters)
        return z * scale + shift

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        return self.apply(z), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return error * self._spread(self.parameters[0], error)

    def learn(self, into: Sequence[Tensor], saved: Tensor, error: Tensor, keep: float) -> Tensor:
        """Add ``Σ error z`` to the scale, ``Σ error`` to the shift."""
        back = self.backward(error, saved)
        for target, direction in zip(into, (error * saved, error), strict=True):
            target.mul_(keep).add_(direction.sum_to_size(self._spread(target, error).shape).view_as(target))
        return back

    def inputs(self, saved: Tensor) -> tuple[Tensor, float]:
        """Return the numbers that are scaled; each parameter sees one of them, a feature's mean."""
        numbers = saved.flatten(2 if self.devices else 1)
        return numbers, 1.0 / numbers.shape[-1]

    def _spread(self, parameter: Tensor, like: Tensor) -> Tensor:
        """Return ``[features]`` or ``[devices, features]`` shaped to meet a batch."""
        lead = [self.devices, 1] if self.devices else []
        return parameter.view(*lead, -1, *[1] * (like.dim() - 2 - bool(self.devices)))


class BottleneckTail(Tail):
    """``a + U tanh(V a)``: the products of two dense layers."""

    def apply(self, z: Tensor) -> Tensor:  # noqa: D102
        return self.forward(z, spare=False)[0]

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:  # noqa: D102
        down, down_bias, up, up_bias = self.parameters
        between = torch.tanh(z @ down.mT + down_bias.unsqueeze(-2))
        return z + (between @ up.mT + up_bias.unsqueeze(-2)), (z, between)

    def backward(self, error: Tensor, saved: tuple[Tensor, Tensor]) -> Tensor:  # noqa: D102
        return error + self._at_between(error, saved[1]) @ self.parameters[0]

    def learn(self, into: Sequence[Tensor], saved: tuple[Tensor, Tensor], error: Tensor, keep: float) -> Tensor:
        """Add each product's part: error times input."""
        z, between = saved
        at = self._at_between(error, between)
        back = error + at @ self.parameters[0]
        down, down_bias, up, up_bias = into
        for weight, bias, e, seen in ((down, down_bias, at, z), (up, up_bias, error, between)):
            (weight.baddbmm_ if self.devices else weight.addmm_)(e.mT, seen, beta=keep)
            bias.mul_(keep).add_(e.sum(-2))
        return back

    def inputs(self, saved: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
        """Return what the units between put out: what the way out of the bottleneck sees."""
        return saved[1], 1.0

    def _at_between(self, error: Tensor, between: Tensor) -> Tensor:
        backward: Any = torch.ops.aten.tanh_backward
        at: Tensor = backward(error @ self.parameters[2], between)
        return at


TAILS: dict[type[nn.Module], type[Tail]] = {ScaleShift: ScaleShiftTail, Bottleneck: BottleneckTail}
