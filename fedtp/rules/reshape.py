"""Layers that only rearrange or mask: flattening, unflattening, dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedtp.rules.tail import Tail


class Reshape(Tail):
    """Flattening and unflattening."""

    passes_on = True

    def apply(self, z: Tensor) -> Tensor:  # noqa: D102
        return self.unfold(self.layer(self.fold(z)))

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, torch.Size]:  # noqa: D102
        return self.apply(z), z.shape

    def backward(self, error: Tensor, saved: torch.Size) -> Tensor:  # noqa: D102
        return error.reshape(saved)


class Dropout(Tail):
    """Sets features to zero at random while the model is in training mode, and scales up the others."""

    passes_on = True

    def forward(self, z: Tensor, *, spare: bool) -> tuple[Tensor, Tensor | None]:  # noqa: D102
        if not self.layer.training:
            return z, None
        mask = nn.functional.dropout(torch.ones_like(z), self.layer.p)
        return (z.mul_(mask) if spare else z * mask), mask

    def backward(self, error: Tensor, saved: Tensor | None) -> Tensor:  # noqa: D102
        return error if saved is None else error.mul_(saved)


TAILS: dict[type[nn.Module], type[Tail]] = {nn.Flatten: Reshape, nn.Unflatten: Reshape, nn.Dropout: Dropout}
