"""Pooling over one or two spatial axes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from fedtp.rules.tail import Tail

aten: Any = torch.ops.aten


class Pooling(Tail):
    """A pooling layer on planes ``[batch, channels, height, width]``; one spatial axis is a picture of height 1."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.flat = type(layer).__name__.endswith("1d")

    def apply(self, z: Tensor) -> Tensor:  # noqa: D102
        return self.unfold(self.layer(self.fold(z)))

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Any]:  # noqa: D102
        planes = self._planes(z)
        pooled, kept = self.pool(planes)
        return self._restored(pooled), (planes, kept)

    def backward(self, error: Tensor, saved: Any) -> Tensor:  # noqa: D102
        return self._restored(self.unpool(self._planes(error).contiguous(), *saved))

    @abstractmethod
    def pool(self, planes: Tensor) -> tuple[Tensor, Any]:
        """Return the pooled planes, and what `unpool` will need beside the planes."""

    @abstractmethod
    def unpool(self, error: Tensor, planes: Tensor, kept: Any) -> Tensor:
        """Return the error at the planes, given the one at the pooled ones."""

    def _planes(self, z: Tensor) -> Tensor:
        z = self.fold(z)
        return z.unsqueeze(-2) if self.flat else z

    def _restored(self, planes: Tensor) -> Tensor:
        return self.unfold(planes.squeeze(-2) if self.flat else planes)

    def _pair(self, value: Any, across: int) -> list[int]:
        """Return a setting of the layer for both axes; `across` is what a missing height has."""
        values = list(value) if isinstance(value, tuple | list) else [value] * (1 if self.flat else 2)
        return [across, *values] if self.flat else values


class MaxPool(Pooling):
    """The largest of each window; the error goes to where it stood."""

    def _settings(self) -> tuple[Any, ...]:
        pool = self.layer
        kernel, stride = self._pair(pool.kernel_size, 1), self._pair(pool.stride, 1)
        return kernel, stride, self._pair(pool.padding, 0), self._pair(pool.dilation, 1), pool.ceil_mode

    def pool(self, planes: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        pooled, indices = aten.max_pool2d_with_indices(planes, *self._settings())
        return pooled, indices

    def unpool(self, error: Tensor, planes: Tensor, kept: Tensor) -> Tensor:  # noqa: D102
        return aten.max_pool2d_with_indices_backward(error, planes, *self._settings(), kept)  # type: ignore[no-any-return]


class AvgPool(Pooling):
    """The mean of each window."""

    def _settings(self) -> tuple[Any, ...]:
        pool = self.layer
        return (
            self._pair(pool.kernel_size, 1),
            self._pair(pool.stride, 1),
            self._pair(pool.padding, 0),
            pool.ceil_mode,
            pool.count_include_pad,
            getattr(pool, "divisor_override", None),
        )

    def pool(self, planes: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        return aten.avg_pool2d(planes, *self._settings()), None

    def unpool(self, error: Tensor, planes: Tensor, kept: None) -> Tensor:  # noqa: D102
        return aten.avg_pool2d_backward(error, planes, *self._settings())  # type: ignore[no-any-return]


class AdaptiveAvgPool(Pooling):
    """The mean of each of a given number of cells."""

    def _cells(self, planes: Tensor) -> list[int]:
        """Return how many cells there are down and across; None in a setting leaves an axis as it is."""
        wanted = self._pair(self.layer.output_size, 1)
        return [size if cells is None else cells for cells, size in zip(wanted, planes.shape[2:], strict=True)]

    def pool(self, planes: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        return aten.adaptive_avg_pool2d(planes, self._cells(planes)), None

    def unpool(self, error: Tensor, planes: Tensor, kept: None) -> Tensor:  # noqa: D102
        return aten._adaptive_avg_pool2d_backward(error, planes)  # type: ignore[no-any-return]


TAILS: dict[type[nn.Module], type[Tail]] = {
    nn.MaxPool1d: MaxPool,
    nn.MaxPool2d: MaxPool,
    nn.AvgPool1d: AvgPool,
    nn.AvgPool2d: AvgPool,
    nn.AdaptiveAvgPool1d: AdaptiveAvgPool,
    nn.AdaptiveAvgPool2d: AdaptiveAvgPool,
}
