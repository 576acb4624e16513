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

    keeps_output = True

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        a = torch.relu_(z) if spare else torch.relu(z)
        return a, a

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.threshold_backward.grad_input(error, saved, 0, grad_input=error)  # type: ignore[no-any-return]


class Tanh(Activation):
    """``tanh z``."""

    keeps_output = True

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        a = torch.tanh_(z) if spare else torch.tanh(z)
        return a, a

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.tanh_backward.grad_input(error, saved, grad_input=error)  # type: ignore[no-any-return]


class Sigmoid(Activation):
    """``1 / (1 + exp(-z))``."""

    keeps_output = True

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        a = torch.sigmoid_(z) if spare else torch.sigmoid(z)
        return a, a

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.sigmoid_backward.grad_input(error, saved, grad_input=error)  # type: ignore[no-any-return]


class LeakyReLU(Activation):
    """``max(z, 0) + slope * min(z, 0)``."""

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.leaky_relu(z, self.layer.negative_slope), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        slope = self.layer.negative_slope
        return aten.leaky_relu_backward.grad_input(error, saved, slope, False, grad_input=error)  # type: ignore[no-any-return]


class ELU(Activation):
    """``z`` above zero, ``alpha (exp z - 1)`` below."""

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.elu(z, self.layer.alpha), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        alpha = self.layer.alpha
        return aten.elu_backward.grad_input(error, alpha, 1, 1, False, saved, grad_input=error)  # type: ignore[no-any-return]


class GELU(Activation):
    """``z Φ(z)``."""

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.gelu(z, approximate=self.layer.approximate), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        kind = self.layer.approximate
        return aten.gelu_backward.grad_input(error, saved, approximate=kind, grad_input=error)  # type: ignore[no-any-return]


class SiLU(Activation):
    """``z sigmoid(z)``."""

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor]:  # noqa: D102
        return nn.functional.silu(z), z

    def backward(self, error: Tensor, saved: Tensor) -> Tensor:  # noqa: D102
        return aten.silu_backward.grad_input(error, saved, grad_input=error)  # type: ignore[no-any-return]


class Identity(Activation):
    """Passes everything on."""

    passes_on = True

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, None]:  # noqa: D102
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
