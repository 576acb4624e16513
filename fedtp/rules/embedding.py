"""The rule of ``nn.Embedding``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedtp.errors import ModelError
from fedtp.rules.base import Rule


class EmbeddingRule(Rule):
    """A table of vectors, ``[symbols, features]``; a local error moves the rows that were looked up."""

    batches_devices = True

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        assert isinstance(layer, nn.Embedding)
        if layer.max_norm is not None or layer.scale_grad_by_freq or layer.sparse:
            raise ModelError(
                "nn.Embedding learns here without max_norm, scale_grad_by_freq and sparse; leave them out."
            )
        self.devices = len(self.parameters[0]) if self.parameters[0].dim() == 3 else 0
        self.padding = layer.padding_idx

    def apply(self, x: Tensor) -> Tensor:
        """Look up ``[batch, ...]`` or ``[devices, batch, ...]`` indices; the features come last."""
        (table,) = self.parameters
        symbols = table.shape[-2]
        if x.is_floating_point() or x.dtype == torch.bool:
            raise ModelError(f"nn.Embedding takes whole numbers from 0 to {symbols - 1}, got {x.dtype}.")
        low, high = (int(v) for v in x.aminmax())
        if low < 0 or high >= symbols:
            raise ModelError(f"nn.Embedding has rows 0 to {symbols - 1}, got the index {low if low < 0 else high}.")
        return nn.functional.embedding(self._rows(x), table.flatten(0, -2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Look up; the update will need the indices."""
        return self.apply(x), x

    def accumulate(self, into: Sequence[Tensor], saved: Tensor, error: Tensor, keep: float) -> None:
        """Add each error to the row that it came from; that of padding stays."""
        (table,) = into
        if keep != 1.0:
            table.mul_(keep)
        if self.padding is not None:
            error = error * (saved != self.padding).unsqueeze(-1)
        table.view(-1, table.shape[-1]).index_add_(0, self._rows(saved).flatten(), error.flatten(0, -2))

    def inputs(self, saved: Tensor) -> tuple[Tensor, float]:
        """Return ones: an index is a one-hot vector, and, cautiously, all are taken to be the same."""
        axes = 2 if self.devices else 1
        return torch.ones(*saved.shape[:axes], 1, dtype=self.parameters[0].dtype, device=saved.device), 1.0

    @property
    def outputs(self) -> int:
        """Features of a row."""
        return self.parameters[0].shape[-1]

    def forward_flops(self, x: Tensor) -> int:
        """Count none: a row is only read."""
        return 0

    def _rows(self, x: Tensor) -> Tensor:
        """Return indices into the tables of all devices, one under the other."""
        if not self.devices:
            return x
        offsets = torch.arange(self.devices, device=x.device) * self.parameters[0].shape[-2]
        return x + offsets.view(-1, *[1] * (x.dim() - 1))
