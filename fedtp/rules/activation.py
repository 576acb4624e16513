"""Activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fedtp.rules.tail import Tail

aten: Any = torch.ops.aten


class Activation(Tail):
    """A layer that works number by number."""


class ReLU(Activation):
    """``max(z, 0)``."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        a = torch.relu(z)
        return a, a

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.threshold_backward(error, saved, 0)  # type: ignore[no-any-return]


class Tanh(Activation):
    """``tanh z``."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        a = torch.tanh(z)
        return a, a

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.tanh_backward(error, saved)  # type: ignore[no-any-return]


class Sigmoid(Activation):
    """``1 / (1 + exp(-z))``."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        a = torch.sigmoid(z)
        return a, a

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.sigmoid_backward(error, saved)  # type: ignore[no-any-return]


class LeakyReLU(Activation):
    """``max(z, 0) + slope * min(z, 0)``."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.leaky_relu(z, self.layer.negative_slope), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.leaky_relu_backward(error, saved, self.layer.negative_slope, False)  # type: ignore[no-any-return]


class ELU(Activation):
    """``z`` above zero, ``alpha (exp z - 1)`` below."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.elu(z, self.layer.alpha), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.elu_backward(error, self.layer.alpha, 1, 1, False, saved)  # type: ignore[no-any-return]


class GELU(Activation):
    """``z Φ(z)``."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.gelu(z, approximate=self.layer.approximate), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.gelu_backward(error, saved, approximate=self.layer.approximate)  # type: ignore[no-any-return]


class SiLU(Activation):
    """``z sigmoid(z)``."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.silu(z), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.silu_backward(error, saved)  # type: ignore[no-any-return]


class Identity(Activation):
    """Passes everything on."""

    def forward(self, z: Tensor) -> tuple[Tensor, None]:  # noqa: D102
        return z, None

    def backward(self, error: Tensor, saved: None) -> Tensor:  # noqa: D102
        return error


TAILS: dict[type[nn.Module], type[Tail]] = {
    nn.ReLU: ReLU,
    nn.Tanh: Tanh,
    nn.Sigmoid: Sigmoid,
    nn.LeakyReLU: LeakyReLU,
    nn.ELU: ELU,
    nn.GELU: GELU,
    nn.SiLU: SiLU,
    nn.Identity: Identity,
}
