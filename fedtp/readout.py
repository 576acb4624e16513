"""What a hidden block is read through, so that its own loss can compare it with the label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.descent import Descent
from fedtp.losses import Loss, Space

aten: Any = torch.ops.aten

#: The gain of a readout that learns, at the start: it grows where that helps (docs/findings.md).
START = 0.3


class Readout:
    """A matrix from a block's features to the classes: the block's projection, or one that starts as it and learns.

    The features are the block's output, ``[..., batch, features]``; of the maps of a convolution
    ``[..., batch, channels, *positions]`` they are the means over the cells of a grid.

    Parameters
    ----------
    rows
        The projection, ``[classes, features]``.
    loss
        What compares.
    space
        In label space the readout of the features is compared with the label, in target space the features with the
        label's projection.
    like
        An output of the block: the readout has its dtype and device.
    grid
        Cells per spatial axis; None for the full map, one feature per position.
    devices
        How many devices of a stack have a copy of their own of a readout that learns; 0 for an ordinary model.
    learns
        Whether the readout follows its own error, as a last layer does (label space).
    normalized
        Whether the block normalises its output, see `fedtp.blocks.Block.normalized`.

    Attributes
    ----------
    matrix
        ``[classes, features]``, or ``[devices, classes, features]``. In label space it holds the factor
        ``gain / √features``, so that features of unit size have logits of the same size in every block. The gain is the
        loss's; 1 for a block that is normalised, whose affine parts learn the rest; `START` for a readout that learns.
    """

    def __init__(
        self,
        rows: Tensor,
        loss: Loss,
        space: Space,
        *,
        like: Tensor,
        grid: int | None = None,
        devices: int = 0,
        learns: bool = False,
        normalized: bool = False,
    ) -> None:
        self.loss = loss
        self.space = space
        self.grid = grid
        self.learns = learns
        gain = START if learns else 1.0 if normalized else loss.gain
        scale = gain / math.sqrt(rows.shape[-1]) if space == "label" else 1.0
        matrix = (rows * scale).to(like.device, like.dtype)
        self.matrix = matrix.expand(devices, *matrix.shape).clone() if learns and devices else matrix

    def fits(self, features: int, like: Tensor) -> bool:
        """Whether it reads so many features of a block's output's dtype and device."""
        matrix = self.matrix
        return matrix.shape[-1] == features and matrix.dtype == like.dtype and matrix.device == like.device

    def read(self, a: Tensor, axes: int) -> Tensor:
        """Return the logits that a block's output stands for, ``[..., batch, classes]``, with `axes` leading axes."""
        return pooled(a, axes, self.grid) @ self.matrix.mT

    def compare(self, a: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Descent | None]:
        """Compare a block's output with the label.

        Parameters
        ----------
        a
            The block's output, ``[..., batch, *features]``.
        target
            ``[..., batch, classes]``.

        Returns
        -------
        value
            Loss of each sample, ``[..., batch]``.
        error
            Minus the derivative of the loss by `a`, shaped as `a`.
        descent
            How the readout itself should change, if it learns.
        """
        axes = target.dim() - 1
        features = pooled(a, axes, self.grid)
        if self.space == "target":
            value, error = self.loss.value_and_error(features, target @ self.matrix)
            return value, unpooled(error, a, axes, self.grid), None
        value, answer = self.loss.value_and_error(features @ self.matrix.mT, target)
        error = unpooled(answer @ self.matrix, a, axes, self.grid)
        if not self.learns:
            return value, error, None
        return value, error, Descent([self.matrix], features, 1.0, answer, partial(_accumulate, features))


def _accumulate(features: Tensor, into: Sequence[Tensor], error: Tensor, keep: float) -> None:
    (matrix,) = into
    (matrix.baddbmm_ if matrix.dim() == 3 else matrix.addmm_)(error.mT, features, beta=keep)


def width(a: Tensor, axes: int, grid: int | None) -> int:
    """Return how many features a block's output has, see `pooled`."""
    channels, *positions = a.shape[axes:] or (1,)
    if _pools(a, axes, grid):
        return channels * math.prod(_cells(a, axes, grid))
    return channels * math.prod(positions)


def pooled(a: Tensor, axes: int, grid: int | None) -> Tensor:
    """Return the features of a block's output: means over the cells of a grid where it has spatial axes.

    Parameters
    ----------
    a
        ``[..., features]`` or ``[..., channels, *positions]``, with `axes` leading axes.
    axes
        How many axes lead: the batch, and the devices of a stack.
    grid
        Cells per spatial axis; axes that are no longer than that, and all for None, stay as they are.

    Returns
    -------
    Tensor
        ``[..., features]``.
    """
    if _pools(a, axes, grid):
        a = nn.functional.adaptive_avg_pool2d(_planes(a, axes), _cells(a, axes, grid)).view(*a.shape[: axes + 1], -1)
    return a.flatten(axes)


def unpooled(error: Tensor, a: Tensor, axes: int, grid: int | None) -> Tensor:
    """Return the error at a block's output `a`, given the one at its features."""
    if _pools(a, axes, grid):
        cells = error.reshape(-1, a.shape[axes], *_cells(a, axes, grid))
        error = aten._adaptive_avg_pool2d_backward(cells, _planes(a, axes))
    return error.reshape(a.shape)


def _pools(a: Tensor, axes: int, grid: int | None) -> bool:
    positions = a.shape[axes + 1 :]
    return grid is not None and 1 <= len(positions) <= 2 and any(n > grid for n in positions)


def _planes(a: Tensor, axes: int) -> Tensor:
    """Return the maps as ``[batch, channels, height, width]``; one spatial axis is a picture of height 1."""
    planes = a.flatten(0, axes - 1)
    return planes if planes.dim() == 4 else planes.unsqueeze(-2)


def _cells(a: Tensor, axes: int, grid: int | None) -> tuple[int, int]:
    assert grid is not None
    *height, width = (min(n, grid) for n in a.shape[axes + 1 :])
    return (height[0] if height else 1), width
