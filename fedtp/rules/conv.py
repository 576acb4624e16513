"""The rule of ``nn.Conv1d``, ``nn.Conv2d`` and ``nn.Conv3d``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.rules.base import Rule

aten: Any = torch.ops.aten


class ConvRule(Rule):
    """A convolution; a local error at its maps moves its weights, and no error at its input is ever computed.

    A stack of devices is one convolution with ``devices`` times as many groups.
    """

    batches_devices = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        conv: Any = layer
        self.conv = conv
        self.spatial: int = len(conv.kernel_size)
        # [out, in / groups, *kernel], or [devices, out, in / groups, *kernel]
        weight = self.parameters[0]
        self.devices = len(weight) if weight.dim() == self.spatial + 3 else 0
        self.groups: int = conv.groups * max(self.devices, 1)

    def apply(self, x: Tensor) -> Tensor:
        """Convolve ``[batch, channels, *positions]`` or ``[devices, batch, channels, *positions]``."""
        return self._unfold(self.convolve(self._enter(x)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the maps; the update will need the padded input."""
        x = self._enter(x)
        return self._unfold(self.convolve(x)), x

    def accumulate(self, into: Sequence[Tensor], saved: Tensor, error: Tensor, keep: float) -> None:
        """Add the weights' part of the convolution's derivative."""
        weight, *bias = self.folded()
        _, direction, sums = aten.convolution_backward(
            self._fold(error),
            saved,
            weight,
            [len(b) for b in bias] or None,
            self.conv.stride,
            self.padding,
            self.conv.dilation,
            False,
            [0] * self.spatial,
            self.groups,
            [False, True, bool(bias)],
        )
        for target, part in zip(into, (direction, sums), strict=False):
            if keep != 1.0:
                target.mul_(keep)
            target.add_(part.view_as(target))

    def inputs(self, saved: Tensor) -> tuple[Tensor, float]:
        """Return the input's maps; a unit sees a patch of them, and the mean is over the patches."""
        x = self._unfold(saved)
        positions = saved.shape[2:].numel()
        factor = math.prod(self.conv.kernel_size) / (positions * self.conv.groups)
        return x.flatten(2 if self.devices else 1), factor

    def forward_flops(self, x: Tensor) -> int:
        """Two operations, a product and a sum, per weight and position."""
        axes = 2 if self.devices else 1
        z = self.apply(x[:1] if axes == 1 else x[:, :1])
        return 2 * self.parameters[0].shape[-self.spatial - 1 :].numel() * z.shape[axes:].numel()

    def _enter(self, x: Tensor) -> Tensor:
        """Check an input, and return it padded, with the devices' channels side by side."""
        axes = 2 if self.devices else 1
        channels, dtype = self.conv.in_channels, self.parameters[0].dtype
        if x.dim() != axes + 1 + self.spatial or x.shape[axes] != channels or x.dtype != dtype:
            raise ModelError(
                f"{type(self.conv).__name__} of {dtype} with {channels} input channels got an input of {x.dtype} and "
                f"shape {tuple(x.shape)}; give it [batch, {channels}{', positions' * self.spatial}]."
            )
        x = self._fold(x)
        if self._pads_itself:
            mode = "constant" if self.conv.padding_mode == "zeros" else self.conv.padding_mode
            x = nn.functional.pad(x, self.conv._reversed_padding_repeated_twice, mode=mode)
        return x

    @property
    def _pads_itself(self) -> bool:
        """Whether the padding is more than the convolution's own: other than zeros, or "same", which may be uneven."""
        return bool(self.conv.padding_mode != "zeros" or self.conv.padding == "same")

    @property
    def padding(self) -> tuple[int, ...]:
        """What the convolution itself adds at each end of an axis."""
        if self._pads_itself or self.conv.padding == "valid":
            return (0,) * self.spatial
        padding: tuple[int, ...] = self.conv.padding
        return padding

    def convolve(self, x: Tensor) -> Tensor:
        """Convolve what `forward` has padded and folded, ``[batch, channels, *positions]``."""
        weight, *bias = self.folded()
        z: Tensor = aten.convolution(
            x,
            weight,
            bias[0] if bias else None,
            self.conv.stride,
            self.padding,
            self.conv.dilation,
            False,
            [0] * self.spatial,
            self.groups,
        )
        return z

    def folded(self) -> list[Tensor]:
        """Return the parameters with the devices' channels one under the other."""
        return [p.flatten(0, 1) for p in self.parameters] if self.devices else list(self.parameters)

    def _fold(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(1, 2) if self.devices else x

    def _unfold(self, z: Tensor) -> Tensor:
        return z.unflatten(1, (self.devices, -1)).transpose(0, 1) if self.devices else z
