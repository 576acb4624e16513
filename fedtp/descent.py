"""What a batch, or the chunks of a sequence, make of a block's parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedtp.normalization import mean_squared_norm, spectral_norm

#: Sets ``into = keep * into + descent``, in place, from the error of a batch.
Accumulate = Callable[[Sequence[Tensor], Tensor, float], None]


@dataclass
class Descent:
    """The way in which a batch would have some parameters go.

    Parameters
    ----------
    parameters
        Those that learn together.
    inputs, factor
        What they are multiplied by, ``[..., samples, features]``: a sample's squared norm is `factor` times its row's.
    error
        Minus the derivative of each sample's loss, ``[..., samples, *features]``; `weigh` and `into` change it.
    accumulate
        How errors become changes of the parameters.
    normalized
        Whether what the parameters make is normalised before it leaves the block, so that neither their scale nor that
        of the inputs matters.
    """

    parameters: Sequence[Tensor]
    inputs: Tensor
    factor: float
    error: Tensor
    accumulate: Accumulate
    normalized: bool = False

    def norm(self, shares: Tensor | None) -> Tensor:
        """Return the mean squared norm of the inputs, ``[]`` or ``[devices]``."""
        norm = mean_squared_norm(self.inputs, shares)
        return norm if self.factor == 1.0 else norm * self.factor

    def spectral(self, shares: Tensor | None) -> Tensor:
        """Return the largest eigenvalue of the inputs' second moment, ``[]`` or ``[devices]``."""
        spectral = spectral_norm(self.inputs, shares)
        return spectral if self.factor == 1.0 else spectral * self.factor

    def weigh(self, shares: Tensor) -> None:
        """Let each sample's error count for its share, ``[..., samples]``."""
        self.error.flatten(shares.dim()).mul_(shares.unsqueeze(-1))

    def into(self, targets: Sequence[Tensor], scale: float | Tensor, keep: float) -> None:
        """Set ``targets = keep * targets + scale * descent``, in place; `scale` is a number, or ``[devices]``."""
        self.accumulate(targets, self.error.mul_(_per_device(scale, self.error)), keep)


@dataclass
class Summed:
    """The descents of the chunks of a batch of sequences, added up."""

    parameters: Sequence[Tensor] = ()
    total: list[Tensor] = field(default_factory=list)
    normalized: bool = False
    _norm: Tensor = field(default_factory=lambda: torch.zeros(()))
    _spectral: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, chunk: Descent, shares: Tensor) -> None:
        """Add a chunk's descent; its samples count for `shares`, ``[..., samples]``."""
        if not self.total:
            self.parameters, self.total = chunk.parameters, [torch.zeros_like(p) for p in chunk.parameters]
            self.normalized = chunk.normalized
        self._norm = self._norm + chunk.norm(shares)
        # The largest eigenvalue of a sum is at most the sum of theirs.
        self._spectral = self._spectral + chunk.spectral(shares)
        chunk.weigh(shares)
        chunk.into(self.total, 1.0, 1.0)

    def norm(self, shares: Tensor | None) -> Tensor:
        """Return the mean squared norm of the inputs over all chunks, ``[]`` or ``[devices]``."""
        return self._norm

    def spectral(self, shares: Tensor | None) -> Tensor:
        """Return a bound on the largest eigenvalue of the inputs' second moment over all chunks."""
        return self._spectral

    def into(self, targets: Sequence[Tensor], scale: float | Tensor, keep: float) -> None:
        """Set ``targets = keep * targets + scale * descent``, in place; `scale` is a number, or ``[devices]``."""
        for target, total in zip(targets, self.total, strict=True):
            target.mul_(keep).add_(total.mul_(_per_device(scale, total)))


def _per_device(scale: float | Tensor, like: Tensor) -> float | Tensor:
    return scale if isinstance(scale, float) else scale.view(-1, *[1] * (like.dim() - 1))
